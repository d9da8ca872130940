"""Softmax over the rows of a matrix in plain Python: a thread per row, then a block per row.

softmax(x)_i = exp(x_i - max x) / Σ_j exp(x_j - max x): subtracting the largest value changes
nothing in exact arithmetic, and keeps exp from overflowing.
"""

from __future__ import annotations

import math
from typing import Any

from gradlab.kernels.cuda.driver import current, divide_up
from gradlab.kernels.ladder import rung
from gradlab.kernels.numba_cuda.launch import kernel, unfit

THREADS = 256


def softmax_naive(cuda: Any, dtype: Any) -> Any:
    """Each thread works through one row three times: its maximum, the sum, the quotients.

    The threads of a warp read 32 rows at a time, far apart in memory: most of what each access
    brings is not used.
    """

    def kernel(x, y):  # type: ignore[no-untyped-def]
        row = cuda.grid(1)
        if row < x.shape[0]:
            largest = x[row, 0]
            for i in range(1, x.shape[1]):
                if x[row, i] > largest or x[row, i] != x[row, i]:  # a NaN stays one
                    largest = x[row, i]
            total = dtype(0)
            for i in range(x.shape[1]):
                y[row, i] = math.exp(x[row, i] - largest)
                total += y[row, i]
            for i in range(x.shape[1]):
                y[row, i] /= total

    return kernel


def softmax_tiled(cuda: Any, dtype: Any) -> Any:  # noqa: C901 - two trees
    """Each block takes one row: threads read neighbouring values, and meet in shared memory.

    A thread takes every 256th value; the 256 results are combined in a tree of 8 levels.
    """

    def kernel(x, y):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(THREADS, dtype)
        row, thread = cuda.blockIdx.x, cuda.threadIdx.x

        largest = x[row, 0]
        for i in range(thread, x.shape[1], THREADS):
            if x[row, i] > largest or x[row, i] != x[row, i]:
                largest = x[row, i]
        shared[thread] = largest
        step = THREADS // 2
        while step > 0:
            cuda.syncthreads()
            if thread < step:
                other = shared[thread + step]
                if other > shared[thread] or other != other:
                    shared[thread] = other
            step //= 2
        cuda.syncthreads()
        largest = shared[0]
        cuda.syncthreads()  # everyone has read it: shared memory is free again

        total = dtype(0)
        for i in range(thread, x.shape[1], THREADS):
            y[row, i] = math.exp(x[row, i] - largest)
            total += y[row, i]
        shared[thread] = total
        step = THREADS // 2
        while step > 0:
            cuda.syncthreads()
            if thread < step:
                shared[thread] += shared[thread + step]
            step //= 2
        cuda.syncthreads()
        total = shared[0]
        for i in range(thread, x.shape[1], THREADS):
            y[row, i] /= total

    return kernel


def _refuses(x: Any, *, axis: Any = -1, **options: Any) -> str:
    given = [name for name, value in options.items() if value is not None]
    if given:
        return f"it has no {', '.join(given)}"
    if hasattr(x, "ndim") and axis not in range(-x.ndim, x.ndim):
        return f"it works along one axis, not {axis!r}"
    return unfit(x)


def _along_rows(build: Any, x: Any, axis: int, threads_per_row: int) -> Any:
    y = current().xp.empty(x.shape, x.dtype)
    if not y.size:
        return y
    rows, result = (x, y) if axis in (1, -1) else (x.T, y.T)
    blocks = divide_up(rows.shape[0] * threads_per_row, THREADS)
    kernel(build, x.dtype.type).launch((blocks,), (THREADS,), rows, result)
    return y


@rung("softmax", "numba_naive", "softmax", refuses=_refuses)
def _naive(x: Any, *, axis: int = -1, **_: Any) -> Any:
    return _along_rows(softmax_naive, x, axis, 1)


@rung("softmax", "numba_tiled", "softmax", refuses=_refuses)
def _tiled(x: Any, *, axis: int = -1, **_: Any) -> Any:
    return _along_rows(softmax_tiled, x, axis, THREADS)
