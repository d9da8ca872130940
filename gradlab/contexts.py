"""Contexts that put back what they changed, whenever Ctrl-C comes."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ContextDecorator
from functools import partial
from typing import TYPE_CHECKING, Any


class _LookedUp(threading.local):
    """The context of this thread whose ``__exit__`` a `with` statement has looked up last."""

    by: Any = None
    before: Any = None  # the list of that `with`, see `Restoring`


_looked_up = _LookedUp()

# The guards of contexts that were entered by calling __enter__; some are never left.
_entered: set[Any] = set()


class _Exit:
    """``__exit__`` of `Restoring`, which a ``with`` statement looks up before it enters."""

    def __get__(self, context: Restoring | None, kind: type[Restoring]) -> Any:
        if context is None:
            return kind._leave
        if context._guards:
            return context._leave
        before: list[Any] = []
        _looked_up.by, _looked_up.before = context, before
        # A call into C that takes any arguments, returns what is false, and holds the guard.
        return partial("".format, _started(context._restored(before)))


class Restoring(ContextDecorator):
    """Base of contexts for a ``with`` block whose end cannot be cut off by a signal.

    Python runs signal handlers when a function begins, ``__exit__`` too: a KeyboardInterrupt raised
    there leaves what the block changed as it is, for good (4 in 100 of random Ctrl-Cs in a loop
    over `no_grad`). Here a ``with`` statement calls nothing at its end that is written in Python.
    It holds the only reference to a generator that waits within its ``try``; with the statement
    over, CPython drops it, and the ``finally`` runs, before which no signal is looked for.

    A subclass defines `_change`, which notes in ``before`` what it is about to change, and
    `_restored`, which waits and puts it back, without a call or a loop, where
    signals are looked for.
    """

    _guards: tuple[Any, ...] = ()  # of entries without a `with`

    def _change(self, before: list[Any]) -> Any:
        """Note what is to be put back, then change it; return what ``as`` gives."""
        raise NotImplementedError

    def _restored(self, before: list[Any]) -> Generator[None, None, None]:
        """Yield within a ``try`` whose ``finally`` puts back what ``before`` has, if anything."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        by, before = _looked_up.by, _looked_up.before
        _looked_up.by = None
        if by is not self:  # called by its name, or by contextlib.ExitStack
            before = []
            guard = _started(self._restored(before))
            _entered.add(guard)
            self._guards = (*self._guards, guard)
        return self._change(before)

    def _leave(self, *exc: object) -> None:
        *others, guard = self._guards
        self._guards = tuple(others)
        _entered.discard(guard)
        guard.close()

    if TYPE_CHECKING:

        def __exit__(self, *exc: object) -> None: ...
    else:
        __exit__ = _Exit()


def _started(guard: Generator[None, None, None]) -> Generator[None, None, None]:
    next(guard)
    return guard
