"""Arguments kept as attributes, and methods added to a class that exists already."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TypeVar

from gradlab.errors import OptionError, message

T = TypeVar("T", bound=Callable[..., Any])


def add_to_class(cls: Any) -> Callable[[T], T]:
    """Make the function that it decorates a method of ``cls``, and of all objects made of it.

    >>> class Counter:
    ...     count = 0
    >>> counter = Counter()
    >>> @add_to_class(Counter)
    ... def step(self):
    ...     self.count += 1
    >>> counter.step()
    >>> counter.count
    1
    """
    if not isinstance(cls, type):
        hint = "it is written above a function: @add_to_class(Model)"
        got = type(cls).__name__
        raise OptionError(message("add_to_class", expected="a class", got=got, hint=hint))

    def add(function: T) -> T:
        setattr(cls, function.__name__, function)
        return function

    return add


def is_replaced(owner: Any, method: Callable[..., Any]) -> bool:
    """Whether an object has another method in place of ``method``, by whatever way it came there.

    ``method`` is kept by whoever asks, from before `add_to_class` could replace it.
    """
    return getattr(getattr(owner, method.__name__), "__func__", None) is not method


class HyperParameters:
    """Base class of what keeps its arguments as attributes.

    >>> class Line(HyperParameters):
    ...     def __init__(self, slope, offset=0.0, name="line"):
    ...         self.save_hyperparameters(ignore=["name"])
    >>> line = Line(2.0)
    >>> line.slope, line.hparams
    (2.0, {'slope': 2.0, 'offset': 0.0})
    """

    hparams: dict[str, Any]

    # Arguments of which a class makes attributes itself, that are not what it was given.
    _made_from_arguments: frozenset[str] = frozenset()

    def save_hyperparameters(self, ignore: Iterable[str] = ()) -> None:
        """Keep the local variables of the method that calls it, as attributes and in ``hparams``.

        These are the method's arguments, and what it has computed before the call. Left out are
        ``self``, the names in ``ignore`` and those that begin with an underscore. A later call
        replaces ``hparams`` and adds to the attributes.

        Raises `OptionError` where it is called outside a method of this object.
        """
        ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        found = _locals_of_method(self, sys._getframe(1))
        self.hparams = {
            name: value
            for name, value in found.items()
            if name not in ignored and not name.startswith("_")
        }
        for name, value in self.hparams.items():
            if name not in self._made_from_arguments:
                setattr(self, name, value)


def _locals_of_method(owner: Any, frame: FrameType) -> dict[str, Any]:
    """The local variables of a method of ``owner``, without the ``owner`` itself."""
    code, found = frame.f_code, dict(frame.f_locals)
    first = code.co_varnames[0] if code.co_argcount else ""
    if found.pop(first, None) is not owner:
        name = type(owner).__name__
        raise OptionError(
            message(
                f"{name}.save_hyperparameters",
                expected=f"to be called within a method of the {name}, whose arguments it keeps",
                got=f"a call from {code.co_name}",
                hint="call self.save_hyperparameters() in __init__",
            )
        )
    return found
