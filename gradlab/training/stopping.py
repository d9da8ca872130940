"""When a run ends: at its limits, at a callback's word, or at Ctrl-C."""

from __future__ import annotations

import math
import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from gradlab.errors import OptionError, message
from gradlab.tensor import require_integer


class Interrupt:
    """While entered, the first SIGINT only calls ``press``; the second raises as usual.

    Where SIGINT is ignored, as in a job that a shell runs in the background, and outside the main
    thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self, press: Callable[[], None]) -> None:
        self.press = press
        self._pressed = False
        self._before: Any = signal.SIG_IGN

    def __enter__(self) -> None:
        self._pressed = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True
        self.press()

    def __exit__(self, *exc: object) -> None:
        if self._before is not signal.SIG_IGN:
            # None: a handler that was not set from Python, which Python cannot set again.
            signal.signal(signal.SIGINT, self._before or signal.SIG_DFL)
            self._before = signal.SIG_IGN


class Stopping:
    """The limits of a run, and the reason why it stopped."""

    def __init__(self) -> None:
        self.max_epochs: int | None = None
        self.max_steps: int | None = None
        self.max_seconds = math.inf
        self.interrupt = Interrupt(self.press)
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

    def press(self) -> None:
        """End the run because of Ctrl-C."""
        self.reason, self.interrupted, self.next_look = "Ctrl-C", True, 0.0

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
