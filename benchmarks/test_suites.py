"""The same cases under pytest-benchmark, for its statistics, comparisons and histograms.

`pytest benchmarks -k softmax --benchmark-only` times the peers of a case one after another, with
all the spread of a busy machine between them; for ratios run `python -m benchmarks`.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.case import Case
from benchmarks.suites import all_cases


def timed() -> list[Any]:
    return [
        pytest.param(case, peer, id=f"{case.name}-{peer}")
        for case in all_cases()
        if type(case).round is Case.round  # else it has no step to be timed in this process
        for peer in case.peers()
    ]


@pytest.mark.parametrize(("case", "peer"), timed())
def test_step(benchmark: Any, case: Case, peer: str) -> None:
    benchmark.group = case.title
    benchmark(case.step(peer))
