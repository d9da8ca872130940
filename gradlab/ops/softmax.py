"""Softmax and its logarithm: never overflow, one pass backward.

The largest value of each row is subtracted before exponentials are taken, which changes nothing
but their range: the greatest becomes exp(0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.arguments import accepts_dim
from gradlab.devices import cpu
from gradlab.kernels.cuda import softmax as cuda  # noqa: F401 - its rungs of the ladder
from gradlab.ops.core import FLOAT, Kernel, Op, apply, ladder_kernel, public
from gradlab.ops.elementwise import TensorLike, exp
from gradlab.ops.reducing import sum_along
from gradlab.ops.samples import LARGE, Sample, values
from gradlab.ops.shape import canonical_axis, sum_to
from gradlab.tensor import Tensor, from_value

# NumPy reduces rows one by one, at 40 ns each. Rows shorter than this are copied into columns
# first, so that the reduction runs along whole vectors: 3 times faster for 256 rows of 10.
_SHORT = 32


def has_short_rows(xp: Any, x: Any, axis: int) -> bool:
    """True for a matrix on the CPU whose rows are better gone through as columns."""
    return xp is np and axis == 1 and x.ndim == 2 and x.shape[1] <= min(_SHORT, x.shape[0])


def largest(xp: Any, x: Any, axis: int) -> Any:
    """The largest value along an axis, which stays with size 1."""
    if not x.shape[axis]:  # as the sum of nothing is 0, so is the shift of no values
        return xp.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
    # CuPy's ufuncs have no reduce but for sums; on NumPy the method costs three times as much.
    if xp is np:
        return np.maximum.reduce(x, axis=axis, keepdims=True)
    return x.max(axis=axis, keepdims=True)


def kept_sum_along(xp: Any, x: Any, axis: int) -> Any:
    """The sum along an axis, which stays with size 1."""
    return sum_along(xp, x, axis).reshape(_kept(x.shape, axis))


def _samples() -> Any:
    for shape, axis in (
        ((3, 4), -1), ((3, 4), 0), (5, 0), ((2, 3, 4), 1), ((40, 5), 1), ((3, 1), 1), ((0, 3), 1),
        ((3, 0), 1), ((), 0),
    ):  # fmt: skip
        yield Sample((np.asarray(values(shape)),), {"axis": axis}, f"{shape} along axis {axis}")
    yield Sample((values((4, 3)).T,), {"axis": 1}, "transposed")
    yield Sample((values((6, 8))[::2, ::-2],), {"axis": 1}, "strided")
    yield Sample((values((3, 4)) * 1e4,), {"axis": 1}, "values up to 20,000", large=True)
    masked = np.where(values((3, 4), seed=1) > 0.5, -np.inf, values((3, 4)))
    yield Sample((masked,), {"axis": 1}, "masked with -inf", large=True)
    for size in (31, 32, 33, 1023, 1024, 1025):
        yield Sample((values((3, size)),), {"axis": 1}, f"rows of {size}", large=True)
        yield Sample((values((size, 3)),), {"axis": 1}, f"{size} rows", large=True)
    yield Sample((values((LARGE // 1000, 1000)),), {"axis": 1}, "large", large=True)


def _run(operation: str, op: Op, x: Any, axis: int, dtype: Any) -> Tensor:
    x = from_value(x, cpu, operation=operation) if not isinstance(x, Tensor) else x
    if dtype is not None:
        x = x.astype(dtype, copy=False)
    at = canonical_axis(operation, axis, x.ndim)
    if not x.ndim:
        return apply(op, (x.reshape(1),), {"axis": 0}).reshape(())
    return apply(op, (x,), {"axis": at})


def _kept(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _backward_on_cuda(function: str) -> Kernel:
    """As the other kernels; but a backward pass is told which gradients are wanted: the one."""
    forward = ladder_kernel("softmax", function)

    def accepts(gy: Any, y: Any, *, needs: Any, axis: int) -> bool:
        return forward.accepts(gy, y, axis=axis)

    def run(gy: Any, y: Any, *, needs: Any, axis: int) -> Any:
        return (forward.run(gy, y, axis=axis),)

    return forward._replace(accepts=accepts, run=run)


# ------------------------------------------------------------------------------------ softmax


def _softmax_forward(xp: Any, x: Any, *, axis: int) -> Any:
    if has_short_rows(xp, x, axis):
        return _softmax_forward(xp, x.T.copy(), axis=0).T.copy()
    y = x - largest(xp, x, axis)
    xp.exp(y, out=y)
    y /= kept_sum_along(xp, y, axis)
    return y


def _softmax_backward(xp: Any, gy: Any, y: Any, *, needs: Any, axis: int) -> Any:
    gx = gy * y
    gx -= y * kept_sum_along(xp, gx, axis)
    return (gx,)


def _softmax_gradient(gy: Tensor, y: Tensor, axis: int) -> Tensor:
    return y * (gy - sum_to(gy * y, _kept(y.shape, axis)))


SOFTMAX = Op(
    "softmax",
    _softmax_forward,
    gradients={"x": _softmax_gradient},
    fused=Op(
        "softmax_backward",
        _softmax_backward,
        inputs=("gy", "y"),
        halves=True,
        kernels=[_backward_on_cuda("softmax_backward")],
    ),
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    kernels=[ladder_kernel("softmax", "softmax")],
    samples=_samples,
)


@public(SOFTMAX, "softmax")
@accepts_dim
def softmax(x: TensorLike, axis: int = -1, dtype: Any = None) -> Tensor:
    """Return ``exp(x) / Σ exp(x)`` along ``axis``: positive numbers that add up to 1.

    Values of any size are fine. A value of -inf (a masked place) gives 0; a row of nothing but
    -inf gives NaN, as in PyTorch. With ``dtype`` the input is cast first. float16 and bfloat16 are
    computed in float32; integers give the default floating dtype.

    Raises `AxisError` for an axis out of range.

    >>> softmax(gl.tensor([[0.0, 0.0], [1000.0, 0.0]]))
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    return _run("softmax", SOFTMAX, x, axis, dtype)


@public(None, "softmin")
@accepts_dim
def softmin(x: TensorLike, axis: int = -1, dtype: Any = None) -> Tensor:
    """Return `softmax` of ``-x``: the smallest value gets the largest share."""
    return softmax(-x, axis, dtype)


# -------------------------------------------------------------------------------- log_softmax


def _log_softmax_forward(xp: Any, x: Any, *, axis: int) -> Any:
    if has_short_rows(xp, x, axis):
        return _log_softmax_forward(xp, x.T.copy(), axis=0).T.copy()
    y = x - largest(xp, x, axis)
    log_sum = kept_sum_along(xp, xp.exp(y), axis)
    y -= xp.log(log_sum, out=log_sum)
    return y


def _log_softmax_backward(xp: Any, gy: Any, y: Any, *, needs: Any, axis: int) -> Any:
    gx = xp.exp(y)
    gx *= kept_sum_along(xp, gy, axis)
    return (xp.subtract(gy, gx, out=gx),)


def _log_softmax_gradient(gy: Tensor, y: Tensor, axis: int) -> Tensor:
    return gy - exp(y) * sum_to(gy, _kept(y.shape, axis))


LOG_SOFTMAX = Op(
    "log_softmax",
    _log_softmax_forward,
    gradients={"x": _log_softmax_gradient},
    fused=Op(
        "log_softmax_backward",
        _log_softmax_backward,
        inputs=("gy", "y"),
        halves=True,
        kernels=[_backward_on_cuda("log_softmax_backward")],
    ),
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    kernels=[ladder_kernel("softmax", "log_softmax")],
    samples=_samples,
)


@public(LOG_SOFTMAX, "log_softmax")
@accepts_dim
def log_softmax(x: TensorLike, axis: int = -1, dtype: Any = None) -> Tensor:
    """Return ``log(softmax(x))`` along ``axis``, without the underflow of taking it in two steps.

    ``dtype`` and -inf as in `softmax`.

    >>> log_softmax(gl.tensor([0.0, -1000.0]))
    tensor([    0., -1000.])
    """
    return _run("log_softmax", LOG_SOFTMAX, x, axis, dtype)


__all__ = ["log_softmax", "softmax", "softmin"]
