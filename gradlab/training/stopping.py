"""When a run ends: at its limits, at a callback's word, at Ctrl-C, or at a signal."""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from gradlab.errors import OptionError, message
from gradlab.tensor import require_integer

# SIGINT last: where its own handler cuts `Signals.hold` off, it is the one that is not held yet.
_NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK", "SIGINT")


class Signals:
    """While held, the signals that ask a program to end only call ``press`` with their name.

    A second Ctrl-C (SIGINT) raises as usual. The others, which a batch system, a container or a
    closed terminal sends, are delivered again after the run, by `deliver`, to whoever handled them
    before; by default that ends the process.

    Where a signal is ignored, as SIGINT in a job that a shell runs in the background, or handled
    outside Python, it is left alone; so are all outside the main thread, which gets none.
    """

    def __init__(self, press: Callable[[str], None]) -> None:
        self.press = press
        self.leaving = False  # nothing is raised any more, so that `release` runs to its end
        self._pressed = False
        self._before: dict[int, Any] = {}
        self._pending: list[int] = []

    def hold(self) -> None:
        """Begin to hold signals."""
        self._pressed = self.leaving = False
        self._pending.clear()
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            before = signal.getsignal(number)
            if before is not None and before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.leaving:
            self._pending.append(number)
        elif number != signal.SIGINT:
            self._pending.append(number)
            self.press(signal.Signals(number).name)
        elif self._pressed:
            raise KeyboardInterrupt
        else:
            self._pressed = True
            self.press("Ctrl-C")

    def release(self) -> None:
        """Put back the handlers from before, but for those that somebody else has replaced."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        self._before.clear()

    def deliver(self) -> None:
        """Give the signals that were held to whoever handles them."""
        pending, self._pending = dict.fromkeys(self._pending), []
        for number in pending:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # there may be none, or nobody who reads
                    stream.flush()
            signal.raise_signal(number)


class Stopping:
    """The limits of a run, and the reason why it stopped."""

    def __init__(self) -> None:
        self.max_epochs: int | None = None
        self.max_steps: int | None = None
        self.max_seconds = math.inf
        self.signals = Signals(self.press)
        self.start()

    def set_limits(
        self,
        max_epochs: int | None,
        max_steps: int | None,
        max_time: float | str | timedelta | None,
    ) -> None:
        """When to stop, whichever comes first; at least one must be given."""
        if max_epochs is None and max_steps is None and max_time is None:
            raise OptionError("Trainer: say when to stop: give max_epochs, max_steps or max_time")
        for name, value in (("max_epochs", max_epochs), ("max_steps", max_steps)):
            if value is not None:
                require_integer("Trainer", name, value, 0)
        self.max_epochs, self.max_steps = max_epochs, max_steps
        self.max_seconds = math.inf if max_time is None else read_duration("Trainer", max_time)

    def start(self, seconds_before: float = 0.0) -> None:
        """Begin a run, or go on with one that took so long already."""
        self.reason: str | None = None
        self.interrupted = False
        self.told = False  # by a callback, so that the run counts as finished
        self.next_look = 0.0  # when the loop is to look up, in seconds of time.monotonic
        self._began = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """How long the run has taken, before it was resumed too."""
        return time.monotonic() - self._began

    def tell(self, reason: str) -> None:
        """End the run for a reason of the caller's."""
        if self.reason is None:
            self.reason, self.told = reason, True
        self.next_look = 0.0

    def press(self, what: str = "Ctrl-C") -> None:
        """End the run because of Ctrl-C, or of a signal."""
        self.reason, self.interrupted, self.next_look = what, True, 0.0

    def check(self, step: int) -> bool:
        """Whether the run has to end after ``step`` steps, in the middle of an epoch or not."""
        if self.reason is not None:
            return True
        if self.max_steps is not None and step >= self.max_steps:
            self.reason = f"max_steps={self.max_steps} are done"
        elif self.max_seconds < math.inf and self.seconds >= self.max_seconds:
            self.reason = f"max_time of {self.max_seconds:g} s is over"
        return self.reason is not None

    def reached(self, epoch: int, step: int) -> bool:
        """Whether so many epochs or steps are all there is to do."""
        epochs_done = self.max_epochs is not None and epoch >= self.max_epochs
        return epochs_done or (self.max_steps is not None and step >= self.max_steps)

    def is_over(self, epoch: int, step: int) -> bool:
        """Whether no further epoch is to begin."""
        return self.check(step) or self.reached(epoch, step)


def read_duration(who: str, value: Any) -> float:
    """Seconds, of a number of them, a timedelta, or text such as ``"30s"``, ``"10m"``, ``"2h"``."""
    seconds = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", str(value)):
        seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if not seconds >= 0:  # NaN is not
        expected = "a time such as '30s', '10m' or '2h', or a timedelta"
        raise OptionError(message(who, expected=expected, got=repr(value)))
    return seconds
