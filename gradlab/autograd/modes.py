"""Whether operations are recorded: ``no_grad``, ``enable_grad``, ``inference_mode``.

The mode belongs to the thread. Each class works as a context manager and as a decorator.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import cached_property, wraps
from operator import call
from typing import Any, ParamSpec, TypeVar

import numpy as np

from gradlab.arguments import show
from gradlab.contexts import Restoring
from gradlab.errors import OptionError, message

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")


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


# Whether to record, and whether views go untracked: what a mode sets.
_Modes = tuple[bool, bool]


class _GradMode(Restoring):
    """A context that sets the modes of the thread, and puts the former ones back."""

    grad = True
    inference: bool | None = None

    def _change(self, before: list[_Modes]) -> None:
        before.append((mode.grad, mode.inference))
        mode.grad = self.grad
        if self.inference is not None:
            mode.inference = self.inference

    def _restored(self, before: list[_Modes]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            if before:
                mode.grad, mode.inference = before[0]

    def __call__(self, function: F) -> F:
        return _decorated(function, type(self).__name__, self._inside)

    def _inside(self) -> _Modes:
        """The modes in which a decorated function begins."""
        return self.grad, mode.inference if self.inference is None else self.inference


class _Bare(_GradMode):
    """A mode without arguments: also a decorator without parentheses, ``@no_grad``."""

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        return made if function is None else made(function)

    def __init__(self, function: None = None) -> None:
        pass


class no_grad(_Bare):
    """Operations inside are not recorded, so no gradient flows through them.

    A context, or a decorator of functions: also of generator and ``async`` functions, which then
    run in the mode between two yields or awaits, and leave the caller's mode as it was at each.

    >>> import gradlab as gl
    >>> x = gl.ones(2, requires_grad=True)
    >>> with gl.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    grad = False


class enable_grad(_Bare):
    """Operations inside are recorded again, within `no_grad`; a decorator as that is."""

    grad = True
    inference = False


class inference_mode(_GradMode):
    """`no_grad`, and views are not tracked either: the cheapest way to run a trained model."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if isinstance(mode, _FLAGS):
            return made
        made.__init__()  # type: ignore[misc]  # __new__ returns a function, so Python does not
        return made(mode)

    def __init__(self, mode: bool = True) -> None:
        self.grad = not mode
        self.inference = bool(mode)


class set_grad_enabled(_GradMode):
    """Record or do not record, by a flag: at once, or for a ``with`` block or a function.

    As in PyTorch, the mode is set when the object is made, before its block begins: a Ctrl-C just
    then leaves it set. `no_grad` and `enable_grad` have no such moment.
    """

    def __init__(self, mode: bool) -> None:
        flag: Any = mode
        if not isinstance(flag, _FLAGS):
            expected, got = "True or False", _kind(flag)
            raise OptionError(message("set_grad_enabled", expected=expected, got=got))
        self.grad = bool(flag)
        self._former: list[_Modes] = []
        super()._change(self._former)

    def _change(self, before: list[_Modes]) -> None:
        before[:] = self._former  # the mode was set when the object was made

    def __call__(self, function: F) -> F:
        mode.grad, mode.inference = self._former[0]
        return super().__call__(function)


_FLAGS = (bool, int, np.bool_)


# ------------------------------------------------------------------------------ as decorators


def _decorated(function: Any, name: str, inside: Callable[[], _Modes]) -> Any:
    """A function, or what a class body makes of one, that runs in the modes ``inside``."""
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_decorated(function.__func__, name, inside))
    if isinstance(function, property):
        fget, fset, fdel = (
            each and _decorated(each, name, inside)
            for each in (function.fget, function.fset, function.fdel)
        )
        return type(function)(fget, fset, fdel, function.__doc__)
    if isinstance(function, cached_property):
        return type(function)(_decorated(function.func, name, inside))
    if isinstance(function, type) or not callable(function):
        hint = "decorate its methods" if isinstance(function, type) else ""
        raise OptionError(message(name, expected="a function", got=_kind(function), hint=hint))
    for is_kind, make in _WRAPPERS:
        if is_kind(function) or is_kind(type(function).__call__):
            return make(function, inside)
    return _function(function, inside)


def _kind(value: Any) -> str:
    name = getattr(value, "__name__", None)
    if name is None:
        return show(value)
    return f"the {'class' if isinstance(value, type) else 'function'} {name}"


def _function(function: Callable[P, R], inside: Callable[[], _Modes]) -> Callable[P, R]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        before = mode.grad, mode.inference
        try:
            mode.grad, mode.inference = inside()
            return function(*args, **kwargs)
        finally:
            mode.grad, mode.inference = before

    return run


def _generator(function: Any, inside: Callable[[], _Modes]) -> Any:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (yield from _driven(function(*args, **kwargs), inside()))

    return run


def _coroutine(function: Any, inside: Callable[[], _Modes]) -> Any:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        return await _Driven(function(*args, **kwargs), inside())

    return run


def _async_generator(function: Any, inside: Callable[[], _Modes]) -> Any:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        source = function(*args, **kwargs)
        step, modes = source.__anext__(), inside()
        while True:
            driven = _Driven(step, modes)
            try:
                value = await driven
            except StopAsyncIteration:
                return
            try:
                sent = yield value
            except GeneratorExit:
                await _Driven(source.aclose(), driven.modes)
                raise
            except BaseException as error:
                step = source.athrow(error)
            else:
                step = source.asend(sent)
            modes = driven.modes

    return run


class _Driven:
    """An awaitable that runs in modes of its own; ``modes`` is what it left them as."""

    def __init__(self, source: Any, modes: _Modes) -> None:
        self.source, self.modes = source, modes

    def __await__(self) -> Any:
        return _driven(self.source, self.modes, self)


def _driven(source: Any, modes: _Modes, owner: Any = None) -> Any:
    """Run a generator or a coroutine in modes of its own, and its caller in the caller's.

    Between two steps it keeps its modes, which a ``with`` block around a ``yield`` may have set.
    """
    step, argument = source.send, None
    while True:
        before = mode.grad, mode.inference
        try:
            mode.grad, mode.inference = modes
            value = step(argument)
        except StopIteration as end:
            return end.value
        finally:
            modes = mode.grad, mode.inference
            mode.grad, mode.inference = before
            if owner is not None:
                owner.modes = modes
        try:
            step, argument = source.send, (yield value)
        except GeneratorExit as error:
            step, argument = _close(source), error
        except BaseException as error:
            step, argument = source.throw, error


def _close(source: Any) -> Callable[[BaseException], Any]:
    def close(error: BaseException) -> Any:
        source.close()
        raise error

    return close


_WRAPPERS: tuple[tuple[Callable[[Any], bool], Any], ...] = (
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
)
