"""Sums and maxima in plain Python: over the rows of a matrix, and over everything.

Naive, one thread adds up a row; tiled, the threads of a block share it. Over everything there are
two launches: many partial results, then those. The order never depends on which block is first,
so that the same data give the same bits.
"""

from __future__ import annotations

from typing import Any

from gradlab.kernels.cuda.driver import current, divide_up
from gradlab.kernels.ladder import rung
from gradlab.kernels.numba_cuda.launch import kernel, unfit

THREADS = 256
PARTS = 4096  # partial results over everything: 16 warps for each of a large GPU's 132 processors


def reduce_naive(cuda: Any, dtype: Any, largest: bool) -> Any:
    """Each thread takes one row of x (whole rows), from its first value to its last."""

    def kernel(x, y):  # type: ignore[no-untyped-def]
        row = cuda.grid(1)
        if row < x.shape[0]:
            total = x[row, 0]
            for i in range(1, x.shape[1]):
                value = x[row, i]
                if not largest:
                    total += value
                elif value > total or value != value:  # a NaN stays, as in NumPy
                    total = value
            y[row] = total

    return kernel


def reduce_tiled(cuda: Any, dtype: Any, largest: bool) -> Any:
    """Each block takes one row of x: its threads read neighbouring values, and meet in a tree."""

    def kernel(x, y):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(THREADS, dtype)
        row, thread = cuda.blockIdx.x, cuda.threadIdx.x
        total = x[row, 0] if largest else dtype(0)
        for i in range(thread, x.shape[1], THREADS):
            value = x[row, i]
            if not largest:
                total += value
            elif value > total or value != value:
                total = value
        shared[thread] = total
        step = THREADS // 2
        while step > 0:
            cuda.syncthreads()  # the level below is complete
            if thread < step:
                value = shared[thread + step]
                if not largest:
                    shared[thread] += value
                elif value > shared[thread] or value != value:
                    shared[thread] = value
            step //= 2
        if thread == 0:
            y[row] = shared[0]

    return kernel


def reduce_rows(build: Any, x: Any, largest: bool) -> Any:
    """The sum or maximum of each row of ``x`` (rows, columns); shape (rows,)."""
    xp = current().xp
    rows, columns = x.shape
    if not columns:
        return xp.zeros(rows, x.dtype)
    y = xp.empty(rows, x.dtype)
    if rows:
        blocks = rows if build is reduce_tiled else divide_up(rows, THREADS)
        kernel(build, x.dtype.type, largest).launch((blocks,), (THREADS,), x, y)
    return y


def reduce_everything(build: Any, x: Any, largest: bool) -> Any:
    """The sum or maximum of the values of ``x`` (contiguous), in an array without axes."""
    xp = current().xp
    flat = x.reshape(-1)
    length = flat.size // PARTS
    head, rest = flat[: length * PARTS], flat[length * PARTS :]
    if not length:
        return reduce_rows(build, rest.reshape(1, -1), largest).reshape(())
    # A thread's row is every PARTS-th value, so that a warp reads side by side; a block's row is
    # contiguous.
    naive = build is reduce_naive
    matrix = head.reshape(length, PARTS).T if naive else head.reshape(PARTS, length)
    values = xp.concatenate([reduce_rows(build, matrix, largest), rest])
    return reduce_rows(build, values.reshape(1, -1), largest).reshape(())


def _refuses(x: Any, *, axis: Any = None, keepdims: bool = False, **options: Any) -> str:
    given = [name for name, value in options.items() if value is not None]
    if given:
        return f"it has no {', '.join(given)}"
    if not x.size:
        return "there is nothing to reduce"
    if _axes(axis, x.ndim) == tuple(range(x.ndim)):
        return unfit(x, axes=0) or ("" if x.flags.c_contiguous else "it takes contiguous values")
    if len(_axes(axis, x.ndim)) != 1:
        return f"it reduces one axis of a matrix, or all, not {axis!r}"
    return unfit(x)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    each = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(i % ndim for i in each)) if ndim else ()


def _reduce(build: Any, x: Any, axis: Any, keepdims: bool, largest: bool) -> Any:
    axes = _axes(axis, x.ndim)
    if axes == tuple(range(x.ndim)):
        y = reduce_everything(build, x, largest)
    else:
        y = reduce_rows(build, x if axes == (1,) else x.T, largest)
    if keepdims:
        return y.reshape([1 if i in axes else size for i, size in enumerate(x.shape)])
    return y


def _declare(name: str, build: Any, function: str) -> None:
    @rung("reduction", name, function, refuses=_refuses)
    def run(x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
        return _reduce(build, x, axis, keepdims, function == "max")


for _name, _build in (("numba_naive", reduce_naive), ("numba_tiled", reduce_tiled)):
    for _function in ("sum", "max"):
        _declare(_name, _build, _function)
