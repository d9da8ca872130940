"""Whether operations are recorded: ``no_grad``, ``enable_grad``, ``inference_mode``.

The mode belongs to the thread. Each class works as a context manager and as a decorator.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from operator import call
from typing import Any, ParamSpec, TypeVar

import numpy as np

from gradlab.arguments import show
from gradlab.errors import OptionError, message

P = ParamSpec("P")
R = TypeVar("R")


class _Mode(threading.local):
    """The modes of this thread, and the context its array calls run in."""

    def __init__(self) -> None:
        self.grad = True
        self.inference = False
        # As in PyTorch, log(0) is -inf without a word. Running array calls in a context of their
        # own costs 0.1 µs; `with np.errstate(...)` costs 1.0 µs, and np.seterr would change what
        # the user's own NumPy code prints.
        context = contextvars.copy_context()
        context.run(self._silence)
        self.quietly: Callable[..., Any] = context.run

    def _silence(self) -> None:
        np.seterr(all="ignore")
        _silenced.set(self.__dict__)

    def refused_reentry(self) -> bool:
        """True where `quietly` has just failed because the code around it runs in it already.

        A context cannot be entered twice. A signal handler, a finalizer or a debugger that touches
        a tensor while an op runs would; `reentrantly` runs it then.
        """
        return self.quietly is not call and _silenced.get() is self.__dict__

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``function`` as `quietly` does, also from within it, for 0.1 µs more."""
        try:
            return self.quietly(function, *args, **kwargs)
        except RuntimeError:
            if not self.refused_reentry():
                raise
        return function(*args, **kwargs)

    def reentrantly(self, function: Callable[..., R], *args: Any) -> R:
        """Call ``function`` where array calls need no context, being in the quiet one already."""
        before, self.quietly = self.quietly, call
        try:
            return function(*args)
        finally:
            self.quietly = before


# The modes of the thread whose quiet context this is; None outside.
_silenced: ContextVar[Any] = ContextVar("_silenced", default=None)

mode = _Mode()


def is_grad_enabled() -> bool:
    """True where operations on tensors that require gradients are recorded."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """True inside `inference_mode`."""
    return mode.inference


class _GradMode:
    """A context that sets the modes of the thread, and puts the former ones back."""

    grad = True
    inference: bool | None = None

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((mode.grad, mode.inference))
        mode.grad = self.grad
        if self.inference is not None:
            mode.inference = self.inference

    def __exit__(self, *exc: object) -> None:
        mode.grad, mode.inference = self._before.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        kind, arguments = type(self), self._arguments()

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with kind(*arguments):  # a fresh context: a decorated function may call itself
                return function(*args, **kwargs)

        return run

    def _arguments(self) -> tuple[Any, ...]:
        return ()


class _Bare(_GradMode):
    """A mode without arguments: also a decorator without parentheses, ``@no_grad``."""

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        if not callable(function):
            got = show(function)
            raise OptionError(message(cls.__name__, expected="a function, or nothing", got=got))
        made.__init__()  # type: ignore[misc]  # __new__ returns a function, so Python does not
        return made(function)

    def __init__(self, function: None = None) -> None:
        super().__init__()


class no_grad(_Bare):
    """Operations inside are not recorded, so no gradient flows through them.

    >>> import gradlab as gl
    >>> x = gl.ones(2, requires_grad=True)
    >>> with gl.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    grad = False


class enable_grad(_Bare):
    """Operations inside are recorded again, within `no_grad`."""

    grad = True
    inference = False


class inference_mode(_GradMode):
    """`no_grad`, and views are not tracked either: the cheapest way to run a trained model."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if not callable(mode):
            return made
        made.__init__()  # type: ignore[misc]  # as in _Bare: the decorator @inference_mode
        return made(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.grad = not mode
        self.inference = mode

    def _arguments(self) -> tuple[Any, ...]:
        return (self.inference,)


class set_grad_enabled(_GradMode):
    """Record or do not record, by a flag: at once, or for a ``with`` block or a function."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.grad = bool(mode)
        super().__enter__()

    def __enter__(self) -> None:  # the mode was set when the object was made
        pass

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        super().__exit__()
        return super().__call__(function)

    def _arguments(self) -> tuple[Any, ...]:
        return (self.grad,)
