"""Timing on a machine that others use too, and whose speed changes.

The peers take turns, A B C, C B A, A B C, …, each for a few milliseconds, which is below the time
slice of a scheduler. What slows the machine for a second slows all of them, and leaves their ratio
in that round nearly as it is. What hits one turn, such as another process on a core that threads
were waiting for, spoils the round; so the rounds are ranked by the largest slow-down of any peer
against its own fastest turn, and the quietest tenth of them counts.
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


def spread(figures: Iterable[float]) -> Spread:
    found = sorted(figures)
    return Spread(found[0], median(found), found[-1])


def quietest(taken: list[dict[str, float]]) -> list[dict[str, float]]:
    """The tenth of the rounds in which no peer was slowed down much."""
    fastest = {peer: min(each[peer] for each in taken) for peer in taken[0]}

    def slowdown(seconds: dict[str, float]) -> float:
        return max(seconds[peer] / fastest[peer] for peer in seconds)

    return sorted(taken, key=slowdown)[: -(-len(taken) // 10)]


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
