"""Gradient clipping, as in-place ops over lists of arrays: what `gradlab.nn.utils` calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.kernels.cuda import update as cuda
from gradlab.ops.core import Kernel, Op

# Elements whose squares are added in float32, by a dot product: four times as fast as squaring and
# adding pairwise, and of the same relative error (2e-7) as long as the partial sums are not many.
PIECE = 1 << 16


def _multi_tensor(run: Callable[..., None]) -> Kernel:
    """A kernel for lists of arrays: a few launches for all of them, and no wait for the norm."""

    def accepts(arrays: Any, total: Any = (), **_: Any) -> bool:
        wide = all(x.dtype in (dtypes.float32, dtypes.float64) for x in total)
        return wide and all(map(cuda.dense, arrays))

    return Kernel("cuda", "update", accepts, run)


def _pieces(xp: Any, x: Any) -> Iterator[Any]:
    """The elements of an array in rows, halves widened."""
    x = x.reshape(-1)
    if x.dtype in dtypes.HALVES:
        x = x.astype(dtypes.float32)
    if xp is not np or x.size <= PIECE:
        yield x
        return
    for start in range(0, x.size, PIECE):
        yield x[start : start + PIECE]


def _powers(xp: Any, x: Any, ord: float) -> Any:
    """The sum of ``|x|^ord``; for infinity, the largest ``|x|``."""
    if ord == 2:
        return xp.dot(x, x)
    return xp.max(xp.abs(x)) if ord == math.inf else xp.sum(xp.abs(x) ** ord)


def _total_norm(xp: Any, arrays: Any, total: Any, *, ord: float) -> None:
    parts = [_powers(xp, x, ord) for each in arrays for x in _pieces(xp, each) if x.size]
    if not parts:
        total[0][...] = 0
        return
    # NumPy makes an array of numbers ten times as fast as it stacks arrays of no axes.
    stacked = np.array(parts, np.float64) if xp is np else xp.stack(parts).astype(np.float64)
    norm = xp.max(stacked) if ord == math.inf else xp.sum(stacked) ** (1 / ord)
    total[0][...] = norm


# The norm of all elements of all arrays, written into `total`.
TOTAL_NORM = Op(
    "total_norm",
    _total_norm,
    inputs=("arrays", "total"),
    mutates=("total",),
    kernels=[
        _multi_tensor(lambda arrays, total, *, ord: cuda.total_norm(arrays, total[0], ord)),
    ],
)


def _clip_norm(xp: Any, grads: Any, total: Any, *, max_norm: float) -> None:
    # Multiplying by 1 is done too: to leave it out, a GPU's norm would have to be waited for.
    factor = xp.minimum(max_norm / (total[0] + 1e-6), 1)
    for grad in grads:
        # Halves by the float32 factor: as a half it would have three digits, or be 0.
        same = grad.dtype == factor.dtype or grad.dtype in dtypes.HALVES
        xp.multiply(grad, factor if same else factor.astype(grad.dtype), out=grad, casting="unsafe")


CLIP_NORM = Op(
    "clip_grad_norm",
    _clip_norm,
    inputs=("grads", "total"),
    mutates=("grads",),
    kernels=[
        _multi_tensor(lambda grads, total, *, max_norm: cuda.clip_norm(grads, total[0], max_norm)),
    ],
)


def _clip_value(xp: Any, grads: Any, *, limit: float) -> None:
    for grad in grads:
        xp.maximum(grad, -limit, out=grad)
        xp.minimum(grad, limit, out=grad)


CLIP_VALUE = Op(
    "clip_grad_value",
    _clip_value,
    inputs=("grads",),
    mutates=("grads",),
    kernels=[_multi_tensor(cuda.clip_value)],
)
