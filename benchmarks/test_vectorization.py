"""The loop against the vectorized sum under pytest-benchmark, a group per size.

`pytest benchmarks/test_vectorization.py --benchmark-only`; the figure is drawn by
`python -m benchmarks.vectorization --plot FILE`.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.vectorization import LIBRARIES, Case, cases


@pytest.mark.parametrize("case", cases(LIBRARIES), ids=lambda case: case.name)
def test_sum(benchmark: Any, case: Case) -> None:
    if why := case.library.missing():
        pytest.skip(why)
    benchmark.group = f"{case.size:,} elements"
    benchmark(case.step())
