"""What is measured along a loop written by hand: times, and sums over batches."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import Any

from gradlab.devices import DeviceLike, cpu, find_device
from gradlab.errors import OptionError, message
from gradlab.ops.fetch import fetch
from gradlab.tensor import Tensor, require_integer, require_number

# So many values are kept on a device, with the memory they hold, before they are read.
_UNREAD = 1 << 12


class Timer:
    """A stopwatch that keeps its times, in seconds; it runs from the moment it is made.

    Parameters
    ----------
    device: wait for this device to finish its work at each start and stop. Without it a GPU is
        still computing when the clock is read, and what is timed is the time to queue the work.

    >>> timer = Timer()
    >>> seconds = timer.stop()
    >>> timer.start()
    >>> timer.stop() == timer.times[1]
    True
    >>> timer.sum() == timer.cumsum()[-1] == 2 * timer.avg()
    True
    """

    def __init__(self, device: DeviceLike = None) -> None:
        self.device = find_device(device)
        self.times: list[float] = []
        self.start()

    def __repr__(self) -> str:
        return f"Timer({len(self.times)} times, {self.sum():.3g} s)"

    def start(self) -> None:
        """Begin a time."""
        self._started = self._now()

    def stop(self) -> float:
        """Keep the time since the last start, and return it."""
        self.times.append(self._now() - self._started)
        return self.times[-1]

    def avg(self) -> float:
        """The mean of the times."""
        if not self.times:
            raise OptionError("Timer.avg: expected at least one time, got none; call stop() first")
        return self.sum() / len(self.times)

    def sum(self) -> float:
        """The sum of the times."""
        return sum(self.times)

    def cumsum(self) -> list[float]:
        """The sums of the first time, the first two, and so on."""
        return list(accumulate(self.times))

    def _now(self) -> float:
        self.device.backend.synchronize()
        return time.perf_counter()


class Accumulator:
    """Sums of ``n`` quantities, such as a loss, correct predictions and their number.

    A value is a number, or a tensor of one element. Those on a GPU are read, all in one transfer,
    when a sum is asked for: adding them does not wait for the device. Sums are kept in float64.

    >>> import gradlab as gl
    >>> metric = Accumulator(2)
    >>> metric.add(gl.tensor(3.0), 4)
    >>> metric.add(1, 4)
    >>> metric[0] / metric[1]
    0.5
    """

    def __init__(self, n: int) -> None:
        self._sums = [0.0] * require_integer("Accumulator", "n", n, 0)
        self._unread: list[tuple[int, Tensor]] = []

    def __repr__(self) -> str:
        return f"Accumulator({self.data})"

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, *values: Any) -> None:
        """Add a value to each sum, in order."""
        if len(values) != len(self):
            expected = f"{len(self)} values, one for each sum"
            raise OptionError(message("Accumulator.add", expected=expected, got=str(len(values))))
        for i, value in enumerate(values):
            if isinstance(value, Tensor) and value.numel() == 1 and value.device is not cpu:
                self._unread.append((i, value.detach().clone()))  # it may be added to later
            else:
                self._sums[i] += require_number("Accumulator.add", value)
        if len(self._unread) > _UNREAD:
            self._read()

    def reset(self) -> None:
        """Set all sums to 0."""
        self._sums = [0.0] * len(self)
        self._unread.clear()

    @property
    def data(self) -> list[float]:
        """The sums."""
        self._read()
        return list(self._sums)

    def __getitem__(self, i: int) -> float:
        self._read()
        return self._sums[i]

    def _read(self) -> None:
        numbers = fetch(value for _, value in self._unread)
        for (i, _), number in zip(self._unread, numbers, strict=True):
            self._sums[i] += number
        self._unread.clear()
