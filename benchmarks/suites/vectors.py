"""Adding two vectors of 10,000 numbers: at once, and element by element in a Python loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Case, Step

N = 10_000


def _at_once(a: Any, b: Any) -> Step:
    return lambda: a + b


def _looped(a: Any, b: Any, c: Any) -> Step:
    def step() -> Any:
        for i in range(N):
            c[i] = a[i] + b[i]
        return c

    return step


class VectorAddition(Case):
    name = "vector_addition"
    title = "a + b, 10,000 numbers at once"

    def gradlab(self) -> Step:
        import gradlab as gl

        return _at_once(gl.ones(N), gl.ones(N))

    def numpy(self) -> Step:
        return _at_once(np.ones(N, np.float32), np.ones(N, np.float32))

    def pytorch(self) -> Step:
        import torch

        return _at_once(torch.ones(N), torch.ones(N))


class LoopedAddition(Case):
    """The same one by one, in each library."""

    name = "looped_addition"
    title = "a[i] + b[i], 10,000 numbers one by one"
    rounds = 24

    def gradlab(self) -> Step:
        import gradlab as gl

        return _looped(gl.ones(N), gl.ones(N), gl.zeros(N))

    def numpy(self) -> Step:
        ones = np.ones(N, np.float32)
        return _looped(ones, ones.copy(), np.zeros_like(ones))

    def pytorch(self) -> Step:
        import torch

        return _looped(torch.ones(N), torch.ones(N), torch.zeros(N))


CASES: list[Case] = [VectorAddition(), LoopedAddition()]
