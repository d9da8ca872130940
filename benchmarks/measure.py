"""Timing on a machine that others use too, and whose speed changes.

The peers take turns, A B C, C B A, A B C, …, each for a few milliseconds, which is below the time
slice of a scheduler. What slows the machine for a second slows all of them, and so leaves their
ratio in that round as it is; what hits one turn spoils one of many rounds. Ratios are therefore
medians over the rounds. A time by itself has nothing to cancel against: there the fastest round
counts, as in `timeit`, which is still the mean of hundreds of calls where a call is short.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from statistics import quantiles
from typing import NamedTuple

Round = Callable[[], float]


class Spread(NamedTuple):
    """The least of some figures, their median, and the middle half around it."""

    least: float
    low: float
    median: float
    high: float


def spread(figures: list[float]) -> Spread:
    if len(figures) == 1:
        return Spread(*figures * 4)
    return Spread(min(figures), *quantiles(figures, n=4, method="inclusive"))


def seconds_of(step: Callable[[], object], count: int) -> float:
    """Seconds that ``count`` calls take."""
    clock = time.perf_counter
    start = clock()
    for _ in repeat(None, count):
        step()
    return clock() - start


def batches(step: Callable[[], object], seconds: float) -> Round:
    """A function that calls ``step`` for about ``seconds`` and returns the seconds of one call."""
    count, taken = 1, seconds_of(step, 1)
    while taken < seconds and count < 1 << 24:
        taken = min(seconds_of(step, count) for _ in range(2))
        if taken < seconds:
            count = max(count + 1, int(count * min(2.0, seconds / max(taken, 1e-9))))

    def run() -> float:
        step()  # the other peers have emptied the caches
        return seconds_of(step, count) / count

    return run


def take_turns(rounds: dict[str, Round], count: int, rest: float) -> list[dict[str, float]]:
    """Seconds of each peer in each of ``count`` rounds."""
    found = []
    order = list(rounds)
    for _ in range(count):
        taken = {}
        for name in order:
            if rest:
                time.sleep(rest)
            taken[name] = rounds[name]()
        found.append(taken)
        order.reverse()
    return found


@contextmanager
def frozen() -> Iterator[None]:
    """Keep what the libraries hold for good out of the collector's sight.

    It stays on, as it does for users, but in a process with all peers loaded a full collection
    would go through more objects than any one user has.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
