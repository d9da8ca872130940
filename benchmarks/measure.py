"""Timing on a machine that others use too, and whose speed changes.

The peers take turns, A B C, C B A, A B C, …, each for a few milliseconds, which is below the time
slice of a scheduler; so each gets its share of the moments in which the machine is fast and left
alone. Everything else only makes a turn longer, by up to a hundred times where threads wait for
one another. Therefore the fastest tenth of each peer's turns counts. (NOTES.md has the figures of
other ways to sum up.)
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from statistics import median
from typing import NamedTuple

Round = Callable[[], float]


class Spread(NamedTuple):
    """The median of some figures, and the least and the greatest of them."""

    low: float
    median: float
    high: float


def fastest_tenth(seconds: Iterable[float]) -> Spread:
    """The spread of the shortest tenth of some times."""
    found = sorted(seconds)
    found = found[: -(-len(found) // 10)]
    return Spread(found[0], median(found), found[-1])


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
