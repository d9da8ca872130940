"""Reductions: sums, products, extrema, moments, truth, norms; and cumulative sums and products.

``axis`` is None (all axes), an int or a tuple of ints, negative ones counted from the end;
``keepdims`` leaves the reduced axes in place with size 1. PyTorch's ``dim`` and ``keepdim`` stand
for them. bool and integers are summed in int64 (uint64 in uint64), float16 and bfloat16 in float32.

This module defines ``sum``, ``max``, ``any``, …: inside it these names mean gradlab's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.devices import cpu
from gradlab.errors import (
    AxisError,
    DTypeError,
    GradientError,
    LinAlgError,
    OptionError,
    ShapeError,
    message,
)
from gradlab.kernels.cuda import scan as _scan  # noqa: F401 - its rungs of the ladder
from gradlab.ops.core import FLOAT, Kernel, Op, apply, ladder_kernel, public
from gradlab.ops.elementwise import (
    abs as absolute,
    exp,
    isfinite,
    isnan,
    maximum,
    minimum,
    sign,
    where,
)
from gradlab.ops.indexing import take_along_axis
from gradlab.ops.reducing import (
    Axes,
    accumulation_dtype,
    count_of,
    kept_shape,
    mean_and_variance,
    reduce_array,
)
from gradlab.ops.samples import LARGE, SIZES, Sample, distinct, layouts, values
from gradlab.ops.shape import (
    EXPAND,
    Axis,
    canonical_axes,
    canonical_axis,
    cat,
    flip,
    movedim,
    narrow,
    squeeze,
)
from gradlab.tensor import Tensor, from_value, is_integer

_REAL = "biufV"
_INEXACT = "fcV"


def _on_cuda(function: str) -> Kernel:
    """The kernel for a function of the ladder's family "reduction"."""
    return ladder_kernel("reduction", function, "scan" if function.startswith("cum") else "")


# ---------------------------------------------------------------------------- what all share

_ALL: dict[str, Any] = {"axis": None, "keepdims": False}


def operand(operation: str, x: Any) -> Tensor:
    """``x`` itself if it is a tensor, else a tensor of it on the CPU."""
    return x if isinstance(x, Tensor) else from_value(x, cpu, operation=operation)


def _reduce(
    op: Op, x: Any, axis: Axis, keepdims: bool, dtype: Any = None, **attributes: Any
) -> Tensor:
    """Run a reduction, with ``x`` cast to ``dtype`` first."""
    x = operand(op.name, x)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    if wanted is not None:
        x = x.astype(wanted, copy=False)
    axes = None if axis is None else canonical_axes(op.name, axis, x.ndim)
    y: Tensor = apply(op, (x,), {"axis": axes, "keepdims": bool(keepdims), **attributes})
    # Integers come back in the dtype they accumulate in.
    if wanted is not None and y.dtype != wanted and wanted.kind in "biu":
        y = y.astype(wanted)
    return y


def _kept(y: Tensor, axis: Axes, x_shape: tuple[int, ...]) -> Tensor:
    """``y`` with the reduced axes in place, so that it broadcasts against ``x``."""
    return y if y.ndim == len(x_shape) else y.reshape(kept_shape(x_shape, axis))


def _stretch_forward(xp: Any, x: Any, *, axis: Axes, shape: tuple[int, ...], count: int) -> Any:
    if count != 1:
        x = xp.true_divide(x, count)
    if axis is not None and x.ndim != len(shape):
        x = x.reshape(kept_shape(shape, axis))
    y = xp.empty(shape, x.dtype)
    y[...] = x
    return y


def _stretch_samples() -> Iterator[Sample]:
    yield Sample((values(()),), {"axis": None, "shape": (3, 4), "count": 12}, "from a scalar")
    yield Sample((values((2, 4)),), {"axis": (1,), "shape": (2, 3, 4), "count": 1}, "inner axis")
    yield Sample((values((1, 3)),), {"axis": (0,), "shape": (5, 3), "count": 1}, "kept axis")


# The adjoint of a sum: its result at each place that was summed, and of a mean, divided by `count`.
STRETCH = Op(
    "stretch",
    _stretch_forward,
    gradients={"x": lambda gy, axis, count, x_shape: _stretch_gradient(gy, axis, count, x_shape)},
    halves=True,
    samples=_stretch_samples,
)


_COPIED = 8192  # elements, up to which copying takes less time than np.broadcast_to


def _stretch(gy: Tensor, axis: Axes, shape: tuple[int, ...], count: int = 1) -> Tensor:
    if gy.device is cpu and math.prod(shape) <= _COPIED:
        return apply(STRETCH, (gy,), {"axis": axis, "shape": shape, "count": count})
    kept = kept_shape(shape, axis)
    divided = apply(STRETCH, (gy,), {"axis": axis, "shape": kept, "count": count})
    return apply(EXPAND, (divided,), {"shape": shape})


def _stretch_gradient(gy: Tensor, axis: Axes, count: int, x_shape: tuple[int, ...]) -> Tensor:
    total = apply(SUM, (gy,), {"axis": axis, "keepdims": False}).reshape(x_shape)
    return total if count == 1 else total / count


def _explain_empty(operation: str) -> Callable[..., None]:
    """A check that explains why an empty reduction has no result."""

    def check(x: Tensor, axis: Any = None, **_: Any) -> None:
        if not x.numel():
            along = "" if axis is None else f" along axis {axis}"
            raise ShapeError(
                message(
                    operation,
                    expected=f"at least one element to choose from{along}",
                    got=f"shape {x.shape}",
                )
            )

    return check


def _reduction_samples(
    make: Callable[[Any], np.ndarray], *, empty: bool = True, ties: bool = False, **kwargs: Any
) -> Callable[[], Iterator[Sample]]:
    """Samples of a reduction: layouts, axes, sizes.

    ``empty``: a result exists where nothing is reduced. ``ties``: equal values make a kink.
    """

    def samples() -> Iterator[Sample]:
        for name, x in layouts(lambda shape: np.asarray(make(shape))):
            smooth = bool(x.size) and not (ties and name == "broadcast")
            if x.size or empty:
                yield Sample((x,), kwargs, name, smooth=smooth)
            for axis in range(x.ndim if x.size else 0):
                options: dict[str, Any] = {"axis": axis, "keepdims": axis == 0, **kwargs}
                yield Sample((x,), options, f"{name}, axis {axis}", smooth=smooth)
        for axes in (-1, (0, 2), (-1, 0), (0, 1, 2), ()):
            for keepdims in (False, True):
                options = {"axis": axes, "keepdims": keepdims, **kwargs}
                kept = "kept" if keepdims else "dropped"
                yield Sample((make((2, 3, 4)),), options, f"3-d, axis {axes} {kept}")
        yield Sample((make((0, 3)),), {"axis": 1, **kwargs}, "no rows, axis 1")
        for size in SIZES:
            if not (size or empty):
                continue
            large = size > 100
            for at, shape in ((None, (size,)), (0, (size, 3)), (1, (3, size))):
                options = {"axis": at, **kwargs}
                name = f"{shape}, axis {at}"
                yield Sample((make(shape),), options, name, smooth=size > 0, large=large)
        yield Sample((make((5000, 3)),), {"axis": 0, **kwargs}, "tall, axis 0", large=True)
        yield Sample((make((5000, 3)),), {"axis": 1, **kwargs}, "tall, axis 1", large=True)
        yield Sample((make(LARGE),), kwargs, "large", large=True)

    return samples


# ------------------------------------------------------------------- sum, mean, product, moments


def _sum_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "sum", x, axis, keepdims)


SUM = Op(
    "sum",
    _sum_forward,
    gradients={"x": lambda gy, axis, x_shape: _stretch(gy, axis, x_shape)},
    halves=True,
    samples=_reduction_samples(values),
    kernels=[_on_cuda("sum")],
)


@public(SUM, "sum")
@accepts_dim
def sum(x: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the sum over ``axis``; 0 where there is nothing to sum.

    bool and integers give int64 (uint64 stays), all else its own dtype; with ``dtype`` the
    elements are cast first.

    >>> sum(gl.tensor([[1, 2], [3, 4]]), axis=0)
    tensor([4, 6])
    """
    if axis is None and dtype is None and not keepdims:
        return apply(SUM, (x,), _ALL)
    return _reduce(SUM, x, axis, keepdims, dtype)


def _mean_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "sum", x, axis, keepdims) / count_of(x.shape, axis)


MEAN = Op(
    "mean",
    _mean_forward,
    gradients={
        "x": lambda gy, axis, x_shape: _stretch(gy, axis, x_shape, count_of(x_shape, axis)),
    },
    kinds=_INEXACT,
    halves=True,
    samples=_reduction_samples(values),
    kernels=[_on_cuda("mean")],
)


@public(MEAN, "mean")
@accepts_dim
def mean(x: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the arithmetic mean over ``axis``; NaN where there is nothing to average.

    ``x`` is floating or complex; with ``dtype`` the elements are cast first, so
    ``mean(x, dtype=gradlab.float32)`` averages integers.

    >>> mean(gl.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5000, 3.5000])
    """
    if axis is None and dtype is None and not keepdims:
        return apply(MEAN, (x,), _ALL)
    return _reduce(MEAN, x, axis, keepdims, dtype)


def _prod_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "prod", x, axis, keepdims)


def _prod_gradient(gy: Tensor, x: Tensor, axis: Axes) -> Tensor:
    # The product of all others, as that of those before times that of those after: with a
    # division by x, one zero would spoil it.
    axes = tuple(range(x.ndim)) if axis is None else axis
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    moved = x.permute((*kept, *axes))
    rows = moved.reshape(*(x.shape[i] for i in kept), count_of(x.shape, axes))
    after = flip(_product_before(flip(rows, -1), -1), -1)
    others = (_product_before(rows, -1) * after).reshape(moved.shape)
    back = tuple(sorted(range(x.ndim), key=(*kept, *axes).__getitem__))
    return _kept(gy, axis, x.shape) * others.permute(back)


def _near_one(shape: Any) -> np.ndarray:
    return values(shape, 0.9, 1.1)


def _prod_samples() -> Iterator[Sample]:
    yield from _reduction_samples(_near_one)()
    x = values((3, 4))
    x[0, 1] = x[1, 0] = x[1, 2] = 0
    yield Sample((x,), {"axis": 1}, "none, one and two zeros")
    yield Sample((x,), {}, "three zeros")
    yield Sample((values((2, 3, 4)),), {"axis": (2, 0)}, "axes out of order")


PROD = Op(
    "prod",
    _prod_forward,
    gradients={"x": _prod_gradient},
    halves=True,
    wide=True,
    samples=_prod_samples,
    kernels=[_on_cuda("prod")],
)


@public(PROD, "prod")
@accepts_dim
def prod(x: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the product over ``axis``; 1 where there is nothing to multiply.

    bool and integers give int64 (uint64 stays). The gradient is right for any number of zeros.

    >>> prod(gl.tensor([[1, 2], [3, 4]]), axis=1)
    tensor([ 2, 12])
    """
    return _reduce(PROD, x, axis, keepdims, dtype)


def _var_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float) -> Any:
    return mean_and_variance(xp, x, axis, keepdims, correction)[1]


def _deviation(x: Tensor, axis: Axes) -> Tensor:
    return x - apply(MEAN, (x,), {"axis": axis, "keepdims": True})


def _per_degree(shape: tuple[int, ...], axis: Axes, correction: float) -> float:
    degrees = count_of(shape, axis) - correction
    return 1 / degrees if degrees > 0 else math.inf


def _var_gradient(gy: Tensor, x: Tensor, axis: Axes, correction: float) -> Tensor:
    scale = 2 * _per_degree(x.shape, axis, correction)
    return _deviation(x, axis) * (_kept(gy, axis, x.shape) * scale)


VAR = Op(
    "var",
    _var_forward,
    gradients={"x": _var_gradient},
    kinds=_INEXACT,
    halves=True,
    wide=True,
    samples=_reduction_samples(values, correction=0),
    kernels=[_on_cuda("var")],
)


@public(VAR, "var")
@accepts_dim
def var(
    x: Tensor,
    axis: Axis = None,
    *,
    correction: float = 1,
    keepdims: bool = False,
    unbiased: bool | None = None,
    dtype: Any = None,
) -> Tensor:
    """Return the variance over ``axis``, ``Σ|x - mean|² / (n - correction)``.

    ``correction=1``, the default as in PyTorch, gives the unbiased estimate (Bessel's
    correction); 0 the mean square deviation, NumPy's default. ``unbiased=True`` and ``False`` are
    PyTorch's older names of the two. NaN where ``n <= correction`` leaves 0 / 0. ``x`` is floating
    or complex; of complex values the variance is real.

    >>> var(gl.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.6667)
    >>> var(gl.tensor([1.0, 2.0, 3.0, 4.0]), correction=0)
    tensor(1.2500)
    """
    correction = _correction("var", axis, correction, unbiased)
    return _reduce(VAR, x, axis, keepdims, dtype, correction=correction)


def _correction(operation: str, axis: Any, correction: float, unbiased: bool | None) -> float:
    if isinstance(axis, bool):  # PyTorch reads var(False) as unbiased=False, an int as an axis
        raise AxisError(
            message(operation, expected="an integer axis", got=str(axis), hint="name it unbiased=")
        )
    if unbiased is None:
        return correction
    if correction != 1:
        raise OptionError(
            message(operation, expected="correction or unbiased", got="both", hint="drop unbiased")
        )
    return 1 if unbiased else 0


def _std_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float) -> Any:
    return xp.sqrt(_var_forward(xp, x, axis=axis, keepdims=keepdims, correction=correction))


def _std_gradient(gy: Tensor, x: Tensor, y: Tensor, axis: Axes, correction: float) -> Tensor:
    scale = _over_norm(gy, y) * _per_degree(x.shape, axis, correction)
    return _deviation(x, axis) * _kept(scale, axis, x.shape)


def _over_norm(gy: Tensor, y: Tensor) -> Tensor:
    """``gy / y`` for a norm ``y``; 0 at its kink, where it is 0, as in PyTorch."""
    # Dividing by y and choosing afterwards would leave 0·inf = NaN to the next derivative.
    return where(y == 0, 0.0, gy) / where(y == 0, 1.0, y)


def _std_samples() -> Iterator[Sample]:
    for sample in _reduction_samples(values, correction=0)():
        axis = sample.kwargs.get("axis")
        shape = sample.args[0].shape
        axes = None if axis is None else canonical_axes("std", axis, len(shape))
        if sample.name.startswith("broadcast") and axes == (0,):
            continue  # equal values: what rounding leaves of the 0 differs by dtype
        sample.smooth = count_of(shape, axes) > 1  # one value: 0, the kink of the root
        yield sample


STD = Op(
    "std",
    _std_forward,
    gradients={"x": _std_gradient},
    kinds=_INEXACT,
    halves=True,
    wide=True,
    samples=_std_samples,
    kernels=[_on_cuda("std")],
)


@public(STD, "std")
@accepts_dim
def std(
    x: Tensor,
    axis: Axis = None,
    *,
    correction: float = 1,
    keepdims: bool = False,
    unbiased: bool | None = None,
    dtype: Any = None,
) -> Tensor:
    """Return the standard deviation over ``axis``, the square root of `var`.

    Where all values are equal its gradient is 0.

    >>> std(gl.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.2910)
    """
    correction = _correction("std", axis, correction, unbiased)
    return _reduce(STD, x, axis, keepdims, dtype, correction=correction)


# ----------------------------------------------------------------------------- largest, smallest


def _ties_forward(xp: Any, x: Any, y: Any, *, axis: Axes) -> Any:
    chosen = x == y.reshape(kept_shape(x.shape, axis))
    if x.dtype.kind in "fV":
        chosen |= x != x  # one NaN makes the result NaN, and owns its gradient
    # Counted as integers: float32 does not count beyond 2^24.
    return chosen / reduce_array(xp, "sum", chosen, axis, True, dtypes.int64).astype(x.dtype)


# The share of each element in the extremum y: 1, or 1/n for each of n equal ones.
TIES = Op("ties", _ties_forward, inputs=("x", "y"), halves=True, why_not="it is piecewise constant")


def _extremum_gradient(gy: Tensor, x: Tensor, y: Tensor, axis: Axes) -> Tensor:
    return _kept(gy, axis, x.shape) * apply(TIES, (x, y), {"axis": axis})


def _max_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "max", x, axis, keepdims)


def _min_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "min", x, axis, keepdims)


def _extremum_samples() -> Iterator[Sample]:
    yield from _reduction_samples(distinct, empty=False, ties=True)()
    yield Sample((np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]]),), {"axis": 1}, "ties", smooth=False)


MAX = Op(
    "max",
    _max_forward,
    gradients={"x": _extremum_gradient},
    kinds=_REAL,
    halves=True,
    check=_explain_empty("max"),
    samples=_extremum_samples,
    kernels=[_on_cuda("max")],
)
MIN = Op(
    "min",
    _min_forward,
    gradients={"x": _extremum_gradient},
    kinds=_REAL,
    halves=True,
    check=_explain_empty("min"),
    samples=_extremum_samples,
    kernels=[_on_cuda("min")],
)


@public(MAX, "amax")
@accepts_dim
def amax(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest value over ``axis``, NaN where one is NaN; equal ones share the gradient.

    Raises `ShapeError` where there is nothing to choose from.
    """
    if axis is None and not keepdims:
        return apply(MAX, (x,), _ALL)
    return _reduce(MAX, x, axis, keepdims)


@public(MIN, "amin")
@accepts_dim
def amin(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest value over ``axis``, NaN where one is NaN; equal ones share the gradient.

    Raises `ShapeError` where there is nothing to choose from.
    """
    if axis is None and not keepdims:
        return apply(MIN, (x,), _ALL)
    return _reduce(MIN, x, axis, keepdims)


class MinMax(NamedTuple):
    """The smallest and the largest values."""

    min: Tensor
    max: Tensor


@public(None, "aminmax")
@accepts_dim
def aminmax(x: Tensor, axis: Axis = None, keepdims: bool = False) -> MinMax:
    """Return `min` and `max` over ``axis`` as a named tuple ``(min, max)``."""
    return MinMax(amin(x, axis, keepdims), amax(x, axis, keepdims))


def _argmax_forward(xp: Any, x: Any, *, axis: int | None, keepdims: bool) -> Any:
    return xp.asarray(x.argmax(axis=axis, keepdims=keepdims)).astype(dtypes.int64, copy=False)


def _argmin_forward(xp: Any, x: Any, *, axis: int | None, keepdims: bool) -> Any:
    return xp.asarray(x.argmin(axis=axis, keepdims=keepdims)).astype(dtypes.int64, copy=False)


def _arg_samples() -> Iterator[Sample]:
    for sample in _extremum_samples():
        if not isinstance(sample.kwargs.get("axis"), tuple):
            yield sample


ARGMAX = Op(
    "argmax",
    _argmax_forward,
    kinds=_REAL,
    halves=True,
    why_not="its result is integer",
    check=_explain_empty("argmax"),
    samples=_arg_samples,
    kernels=[_on_cuda("argmax")],
)
ARGMIN = Op(
    "argmin",
    _argmin_forward,
    kinds=_REAL,
    halves=True,
    why_not="its result is integer",
    check=_explain_empty("argmin"),
    samples=_arg_samples,
    kernels=[_on_cuda("argmin")],
)


def _arg_reduce(op: Op, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    x = operand(op.name, x)
    at = None if axis is None else canonical_axis(op.name, axis, x.ndim)
    return apply(op, (x,), {"axis": at, "keepdims": bool(keepdims)})


@public(ARGMAX, "argmax")
@accepts_dim
def argmax(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return where the largest value stands along ``axis``, as int64: the first of equal ones, or
    the first NaN.

    With ``axis=None`` the place in the flattened tensor.

    >>> argmax(gl.tensor([[1, 5], [3, 4]]), axis=1)
    tensor([1, 1])
    """
    return _arg_reduce(ARGMAX, x, axis, keepdims)


@public(ARGMIN, "argmin")
@accepts_dim
def argmin(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return where the smallest value stands along ``axis``, as int64: the first of equal ones, or
    the first NaN.

    With ``axis=None`` the place in the flattened tensor.

    >>> argmin(gl.tensor([[1, 5], [3, 4]]))
    tensor(0)
    """
    return _arg_reduce(ARGMIN, x, axis, keepdims)


class ValuesAndIndices(NamedTuple):
    """Values, and where they stood along the axis (int64)."""

    values: Tensor
    indices: Tensor


def _axis_of(
    axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False
) -> tuple[Any, bool]:
    return (axis if dim is None else dim), keepdims or keepdim


def gives_pair(pair: Callable[..., ValuesAndIndices]) -> Callable[..., Any]:
    """Let ``f(x, dim=1)`` and ``f(x, 1)``, as PyTorch spells it, be ``pair``: values and indices.

    With ``axis`` or ``keepdims`` by name, as NumPy and the array API spell it, only the values come
    back. Much code unpacks the pair or takes ``[1]`` of it, and where there are two values to
    unpack, it would go on with them unnoticed.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        values = accepts_dim(function)

        @wraps(function)
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            is_axis = args and is_integer(args[0]) and "keepdims" not in kwargs
            if is_axis or "dim" in kwargs:
                return pair(x, *_axis_of(*args, **kwargs))
            return values(x, *args, **kwargs)

        call.__accepts_dim__ = True  # type: ignore[attr-defined]
        return call

    return decorate


def _compares(compare: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let ``f(x, other)`` be ``compare``, as ``max(x, y)`` of two tensors is in PyTorch."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], Tensor):
                return compare(x, *args, **kwargs)
            return function(x, *args, **kwargs)

        return call

    return decorate


def _largest(x: Tensor, axis: int, keepdims: bool) -> ValuesAndIndices:
    return _at(x, argmax(x, axis, keepdims=True), axis, keepdims)


def _smallest(x: Tensor, axis: int, keepdims: bool) -> ValuesAndIndices:
    return _at(x, argmin(x, axis, keepdims=True), axis, keepdims)


def _at(x: Tensor, places: Tensor, axis: int, keepdims: bool) -> ValuesAndIndices:
    found = ValuesAndIndices(take_along_axis(x, places, axis) if x.ndim else x, places)
    return found if keepdims else ValuesAndIndices(*(squeeze(each, axis) for each in found))


@public(None, "max")
@_compares(maximum)
@gives_pair(_largest)
def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the largest value over ``axis``, NaN where one is NaN; equal ones share the gradient.

    With ``axis`` by name, as in NumPy and the array API, only the values come back (`argmax` gives
    the places). Spelt as in PyTorch, ``max(x, 1)`` and ``max(x, dim=1)`` give the pair
    ``(values, indices)``, and ``max(x, other)`` is `maximum`.
    Raises `ShapeError` where there is nothing to choose from.

    >>> max(gl.tensor([[1, 5], [3, 4]]), axis=0)
    tensor([3, 5])
    >>> max(gl.tensor([[1, 5], [3, 4]]), dim=1).indices
    tensor([1, 1])
    """
    return amax(x, axis, keepdims)


@public(None, "min")
@_compares(minimum)
@gives_pair(_smallest)
def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the smallest value over ``axis``, NaN where one is NaN; equal ones share the gradient.

    With ``axis`` by name, as in NumPy and the array API, only the values come back (`argmin` gives
    the places). Spelt as in PyTorch, ``min(x, 1)`` and ``min(x, dim=1)`` give the pair
    ``(values, indices)``, and ``min(x, other)`` is `minimum`.
    Raises `ShapeError` where there is nothing to choose from.

    >>> min(gl.tensor([[1, 5], [3, 4]]), axis=1)
    tensor([1, 3])
    """
    return amin(x, axis, keepdims)


# ---------------------------------------------------------------------------- truth, counts, NaN


def _truth_samples() -> Iterator[Sample]:
    yield from _reduction_samples(lambda shape: (values(shape) > 1) * 1.0)()
    yield Sample((np.array([[True, False], [True, True]]),), {"axis": 1}, "bool")


def _any_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "any", x, axis, keepdims)


def _all_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "all", x, axis, keepdims)


ANY = Op(
    "any",
    _any_forward,
    halves=True,
    why_not="its result is bool",
    samples=_truth_samples,
    kernels=[_on_cuda("any")],
)
ALL = Op(
    "all",
    _all_forward,
    halves=True,
    why_not="its result is bool",
    samples=_truth_samples,
    kernels=[_on_cuda("all")],
)


@public(ANY, "any")
@accepts_dim
def any(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return True where at least one element over ``axis`` is not 0; NaN counts as true.

    >>> any(gl.tensor([[0, 1], [0, 0]]), axis=1)
    tensor([ True, False])
    """
    return _reduce(ANY, x, axis, keepdims)


@public(ALL, "all")
@accepts_dim
def all(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return True where no element over ``axis`` is 0; NaN counts as true.

    >>> all(gl.tensor([[0, 1], [2, 3]]), axis=1)
    tensor([False,  True])
    """
    return _reduce(ALL, x, axis, keepdims)


def _count_nonzero_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return reduce_array(xp, "sum", x != 0, axis, keepdims, dtypes.int64)


COUNT_NONZERO = Op(
    "count_nonzero",
    _count_nonzero_forward,
    why_not="its result is integer",
    samples=_truth_samples,
    kernels=[_on_cuda("count_nonzero")],
)


@public(COUNT_NONZERO, "count_nonzero")
@accepts_dim
def count_nonzero(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return how many elements over ``axis`` are not 0, as int64.

    >>> count_nonzero(gl.tensor([[0, 1], [2, 3]]), axis=0)
    tensor([1, 2])
    """
    return _reduce(COUNT_NONZERO, x, axis, keepdims)


@public(None, "nansum")
@accepts_dim
def nansum(x: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the `sum` of the elements that are not NaN.

    >>> nansum(gl.tensor([1.0, float("nan"), 2.0]))
    tensor(3.)
    """
    x = operand("nansum", x)
    return sum(where(isnan(x), 0, x), axis, keepdims, dtype=dtype)


@public(None, "nanmean")
@accepts_dim
def nanmean(x: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the `mean` of the elements that are not NaN; NaN where there is none.

    >>> nanmean(gl.tensor([1.0, float("nan"), 2.0]))
    tensor(1.5000)
    """
    x = operand("nanmean", x)
    if dtype is not None:
        x = x.astype(dtype, copy=False)
    given = x.dtype
    if given in dtypes.HALVES:  # where few are not NaN, the mean of all is too small for float16
        x = x.astype(dtypes.float32)
    missing = isnan(x)
    share = mean((~missing).astype(x.dtype), axis, keepdims)
    return (mean(where(missing, 0, x), axis, keepdims) / share).astype(given, copy=False)


# -------------------------------------------------------------------------------- log-sum-exp


def _logsumexp_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    if not count_of(x.shape, axis):
        return xp.log(reduce_array(xp, "sum", x, axis, keepdims))  # no terms: log(0) = -inf
    largest = reduce_array(xp, "max", x, axis, True)
    # An infinite maximum would make inf - inf; without a shift exp is 0 or inf, which is right.
    shift = xp.where(xp.isfinite(largest), largest, largest.dtype.type(0))
    y = xp.log(reduce_array(xp, "sum", xp.exp(x - shift), axis, True)) + shift
    return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if not _in(i, axis)])


def _in(i: int, axis: Axes) -> bool:
    return axis is None or i in axis


def _logsumexp_gradient(gy: Tensor, x: Tensor, y: Tensor, axis: Axes) -> Tensor:
    # Where all terms are exp(-inf) = 0 the gradient is 0, not exp(-inf + inf).
    finite = where(y == -math.inf, 0.0, y)
    return _kept(gy, axis, x.shape) * exp(x - _kept(finite, axis, x.shape))


LOGSUMEXP = Op(
    "logsumexp",
    _logsumexp_forward,
    gradients={"x": _logsumexp_gradient},
    dtype=FLOAT,
    kinds=_REAL,
    halves=True,
    wide=True,
    kernels=[_on_cuda("logsumexp")],
    samples=_reduction_samples(values),
)


@public(LOGSUMEXP, "logsumexp")
@accepts_dim
def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return ``log Σ exp(x)`` over ``axis`` without overflow: the largest value is taken out.

    Its gradient is the softmax of ``x``. -inf where there is nothing to sum; integers give the
    default floating dtype.

    >>> logsumexp(gl.tensor([1000.0, 1000.0]))
    tensor(1000.6932)
    """
    return _reduce(LOGSUMEXP, x, axis, keepdims)


# --------------------------------------------------------------------- cumulative sum and product


_RUNNING = {dtypes.float32: dtypes.float64, dtypes.complex64: dtypes.complex128}


def _accumulate(xp: Any, name: str, x: Any, axis: int) -> Any:
    # A running sum adds up its rounding errors: over a million numbers, float32 keeps four digits
    # and float64 all seven, for a fifth more time.
    dtype = _RUNNING.get(x.dtype) or accumulation_dtype(x.dtype)
    if xp is np:
        y = (np.add if name == "cumsum" else np.multiply).accumulate(x, axis, dtype)
    else:
        y = getattr(xp, name)(x, axis=axis, dtype=dtype)
    return y.astype(x.dtype) if x.dtype in _RUNNING else y


def _cumsum_forward(xp: Any, x: Any, *, axis: int, reverse: bool) -> Any:
    if not reverse:
        return _accumulate(xp, "cumsum", x, axis)
    return xp.flip(_accumulate(xp, "cumsum", xp.flip(x, axis), axis), axis)


def _cumulative_samples(make: Callable[[Any], np.ndarray]) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for name, x in layouts(lambda shape: np.asarray(make(shape))):
            yield Sample((x,), {}, f"{name}, flattened")
            for axis in range(-1, x.ndim - 1):
                yield Sample((x,), {"axis": axis}, f"{name}, axis {axis}")
        for size in SIZES:
            yield Sample((make(size),), {"axis": 0}, f"{size} values", large=size > 100)
            yield Sample((make((3, size)),), {"axis": 1}, f"{size} columns", large=size > 100)
        yield Sample((make(LARGE),), {"axis": 0}, "large", large=True)

    return samples


CUMSUM = Op(
    "cumsum",
    _cumsum_forward,
    gradients={
        "x": lambda gy, axis, reverse: apply(CUMSUM, (gy,), {"axis": axis, "reverse": not reverse}),
    },
    halves=True,
    samples=_cumulative_samples(values),
    kernels=[_on_cuda("cumsum")],
)


@public(CUMSUM, "cumsum")
@accepts_dim
def cumsum(x: Tensor, axis: int | None = None, *, dtype: Any = None) -> Tensor:
    """Return the running sum along ``axis``, of the shape of ``x``; of the flattened ``x`` if None.

    bool and integers give int64 (uint64 stays); with ``dtype`` the elements are cast first.

    >>> cumsum(gl.tensor([[1, 2], [3, 4]]), axis=1)
    tensor([[1, 3],
            [3, 7]])
    """
    return _cumulate(CUMSUM, x, axis, dtype, reverse=False)


def _cumulate(op: Op, x: Any, axis: int | None, dtype: Any, **attributes: Any) -> Tensor:
    x = operand(op.name, x)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    if wanted is not None:
        x = x.astype(wanted, copy=False)
    at = 0 if axis is None else canonical_axis(op.name, axis, x.ndim)
    rows = x.ravel() if axis is None or not x.ndim else x
    y: Tensor = apply(op, (rows,), {"axis": at, **attributes})
    if axis is not None and not x.ndim:
        y = y.reshape(())
    return y.astype(wanted) if wanted is not None and y.dtype != wanted else y


def _product_before(x: Tensor, axis: int) -> Tensor:
    """At each place along ``axis`` the product of all before it."""
    at = axis % x.ndim
    first = _constant(x, (*x.shape[:at], 1, *x.shape[at + 1 :]), 1)
    running = apply(CUMPROD, (x,), {"axis": at})
    return narrow(cat([first, running], at), at, 0, x.shape[at])


def _constant(like: Tensor, shape: tuple[int, ...], value: float) -> Tensor:
    return Tensor._wrap(like.device.xp.full(shape, value, like.dtype), like.device)


def _shifted(x: Tensor, axis: int, steps: int) -> Tensor:
    """``x`` moved ``steps`` places towards the front of ``axis``, zeros following."""
    steps = steps if steps < x.shape[axis] else x.shape[axis]
    zeros = _constant(x, (*x.shape[:axis], steps, *x.shape[axis + 1 :]), 0)
    return cat([narrow(x, axis, steps, x.shape[axis] - steps), zeros], axis)


def _cumprod_gradient(gy: Tensor, x: Tensor, axis: int) -> Tensor:
    # ∂y_j/∂x_i for j >= i is the product of x_0 … x_j without x_i, hence
    #     gx_i = (x_0 ⋯ x_{i-1}) · r_i,    r_i = gy_i + x_{i+1} · r_{i+1}.
    # Nothing is divided, so zeros need no care. The recurrence is solved in log₂ n steps, each of
    # which doubles the number of terms that r holds (Hillis and Steele, CACM 29, 1986). Products of
    # many factors are computed as widely as in the forward.
    wide = _RUNNING.get(x.dtype)
    if wide is not None:
        return _cumprod_gradient(gy.astype(wide), x.astype(wide), axis).astype(x.dtype)
    r, factor = gy, _shifted(x, axis, 1)
    steps = 1
    while steps < x.shape[axis]:
        r = r + factor * _shifted(r, axis, steps)
        factor = factor * _shifted(factor, axis, steps)
        steps *= 2
    return _product_before(x, axis) * r


def _cumprod_samples() -> Iterator[Sample]:
    yield from _cumulative_samples(_near_one)()
    x = values((3, 4))
    x[0, 1] = x[1, 0] = x[1, 2] = 0
    yield Sample((x,), {"axis": 1}, "none, one and two zeros")


CUMPROD = Op(
    "cumprod",
    lambda xp, x, *, axis: _accumulate(xp, "cumprod", x, axis),
    gradients={"x": _cumprod_gradient},
    halves=True,
    wide=True,
    samples=_cumprod_samples,
    kernels=[_on_cuda("cumprod")],
)


@public(CUMPROD, "cumprod")
@accepts_dim
def cumprod(x: Tensor, axis: int | None = None, *, dtype: Any = None) -> Tensor:
    """Return the running product along ``axis``; of the flattened ``x`` if None.

    bool and integers give int64 (uint64 stays). The gradient is right for any number of zeros.

    >>> cumprod(gl.tensor([1, 2, 3, 4]), axis=0)
    tensor([ 1,  2,  6, 24])
    """
    return _cumulate(CUMPROD, x, axis, dtype)


# -------------------------------------------------------------------------------------- norms


def _vector_norm_forward(xp: Any, x: Any, *, axis: Axes, keepdims: bool, ord: float) -> Any:
    size = xp.abs(x) if x.dtype.kind == "c" or ord != 2 else x
    if ord in (math.inf, -math.inf):
        return reduce_array(xp, "max" if ord > 0 else "min", size, axis, keepdims)
    if ord == 1:
        return reduce_array(xp, "sum", size, axis, keepdims)
    if ord == 2:
        return xp.sqrt(reduce_array(xp, "sum", size * size, axis, keepdims))
    if not count_of(x.shape, axis):
        return reduce_array(xp, "sum", size, axis, keepdims)
    # Taking out what weighs most, the largest, keeps high powers within range.
    scale = reduce_array(xp, "max" if ord > 0 else "min", size, axis, True)
    scale = xp.where(xp.isfinite(scale) & (scale > 0), scale, scale.dtype.type(1))
    total = reduce_array(xp, "sum", (size / scale) ** ord, axis, True)
    y = scale * total ** (1 / ord)
    return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if not _in(i, axis)])


def _vector_norm_gradient(gy: Tensor, x: Tensor, y: Tensor, axis: Axes, ord: float) -> Tensor:
    if ord == 1:
        return _kept(gy, axis, x.shape) * sign(x)
    if ord in (math.inf, -math.inf):
        return _extremum_gradient(gy, absolute(x), y, axis) * sign(x)
    if ord == 2:
        return x * _kept(_over_norm(gy, y), axis, x.shape)
    ratio = where(x == 0, 1.0, absolute(x)) / _kept(where(y == 0, 1.0, y), axis, x.shape)
    return _kept(where(y == 0, 0.0, gy), axis, x.shape) * sign(x) * ratio ** (ord - 1)


def _vector_norm_samples() -> Iterator[Sample]:
    yield from _reduction_samples(lambda shape: values(shape, 0.2, 2.0), empty=False)()
    yield Sample((values((0, 3)),), {"axis": 0}, "empty", smooth=False)
    for ord in (1, math.inf, -math.inf, 3, 1.5, 0.5, -1):
        yield Sample((values((3, 4)),), {"ord": ord, "axis": 1}, f"order {ord}")
        yield Sample((values((2, 3, 2)),), {"ord": ord, "keepdims": True}, f"order {ord}, kept")
    yield Sample((np.zeros((2, 3)),), {"axis": 1}, "zeros", smooth=False)


VECTOR_NORM = Op(
    "vector_norm",
    _vector_norm_forward,
    gradients={"x": _vector_norm_gradient},
    kinds=_INEXACT,
    halves=True,
    wide=True,
    check=_explain_empty("vector_norm"),
    samples=_vector_norm_samples,
    kernels=[_on_cuda("vector_norm")],
)


@public(VECTOR_NORM)
@accepts_dim
def vector_norm(
    x: Tensor, ord: float = 2, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None
) -> Tensor:
    """Return the norm ``(Σ |x|^ord)^(1/ord)`` of the vectors along ``axis``, of floating ``x``.

    ``ord`` may be any number, ``inf`` (the largest ``|x|``), ``-inf`` (the smallest) or 0 (how
    many are not 0). Several axes, and None for all, are taken as one vector. Where the norm is 0
    its gradient is 0.

    >>> vector_norm(gl.tensor([3.0, 4.0]))
    tensor(5.)
    >>> vector_norm(gl.tensor([[3.0, -4.0], [1.0, 0.0]]), ord=1, axis=1)
    tensor([7., 1.])
    """
    return _vector_norm("vector_norm", x, ord, axis, keepdims, dtype)


def _vector_norm(
    operation: str, x: Any, ord: Any, axis: Axis, keepdims: bool, dtype: Any
) -> Tensor:
    x = operand(operation, x)
    if dtype is not None:
        x = x.astype(dtype, copy=False)
    if not isinstance(ord, int | float | np.number) or isinstance(ord, bool) or ord != ord:
        raise OptionError(message(operation, expected="a number as the order", got=repr(ord)))
    _require_inexact(operation, x)
    if ord == 0:
        return sum(sign(absolute(x)), axis, keepdims)
    return _reduce(VECTOR_NORM, x, axis, keepdims, ord=float(ord))


def _require_inexact(operation: str, x: Tensor) -> None:
    if x.dtype.kind not in _INEXACT:
        raise DTypeError(
            message(
                operation,
                expected="floating or complex values",
                got=x.dtype.name,
                hint="cast with .astype(...), or pass dtype=",
            )
        )


_MATRIX_ORDERS = ("fro", "nuc", math.inf, -math.inf, 1, -1, 2, -2)


@accepts_dim
def matrix_norm(
    x: Tensor,
    ord: str | float = "fro",
    axis: tuple[int, int] = (-2, -1),
    keepdims: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return a norm of the matrices in the two axes ``axis`` of floating ``x``.

    =================  ==========================================================
    ``ord``            norm
    =================  ==========================================================
    ``"fro"``          Frobenius: the square root of the sum of squares
    ``"nuc"``          nuclear: the sum of the singular values
    2, -2              spectral: the largest, the smallest singular value
    1, -1              the largest, the smallest sum of ``|x|`` over a column
    ``inf``, ``-inf``  the largest, the smallest sum of ``|x|`` over a row
    =================  ==========================================================

    >>> matrix_norm(gl.tensor([[3.0, 0.0], [0.0, -4.0]]), ord="nuc")
    tensor(7.)
    """
    x = operand("matrix_norm", x)
    if dtype is not None:
        x = x.astype(dtype, copy=False)
    if ord not in _MATRIX_ORDERS:
        names = ", ".join(map(repr, _MATRIX_ORDERS))
        raise OptionError(message("matrix_norm", expected=f"ord one of {names}", got=repr(ord)))
    _require_inexact("matrix_norm", x)
    rows, columns = _matrix_axes("matrix_norm", x, axis)
    if ord == "fro":
        return _reduce(VECTOR_NORM, x, (rows, columns), keepdims, ord=2.0)
    moved = movedim(x, (rows, columns), (-2, -1))
    y = _matrix_norm(moved, ord)
    return _kept(y, (rows, columns), x.shape) if keepdims else y


def _matrix_axes(operation: str, x: Tensor, axis: Any) -> tuple[int, int]:
    if x.ndim < 2:
        raise ShapeError(message(operation, expected="at least two axes", got=f"shape {x.shape}"))
    if not isinstance(axis, tuple | list) or len(axis) != 2:
        raise AxisError(message(operation, expected="two axes, as (-2, -1)", got=repr(axis)))
    rows, columns = canonical_axes(operation, axis, x.ndim)
    return rows, columns


def _matrix_norm(x: Tensor, ord: str | float) -> Tensor:
    """The norm of the matrices in the last two axes."""
    if ord == "nuc":
        return sum(svdvals(x), -1)
    largest = amax if float(ord) > 0 else amin
    if ord in (2, -2):
        return largest(svdvals(x), -1)
    return largest(sum(absolute(x), -2 if ord in (1, -1) else -1), -1)


@public(None, "norm")
@accepts_dim
def norm(
    x: Tensor,
    p: str | float | None = "fro",
    axis: Axis = None,
    keepdims: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return a norm of floating ``x`` over ``axis``, as ``torch.norm``.

    ``p`` is a number, ``inf`` or ``-inf`` for the norm `vector_norm` of all elements over ``axis``
    (also of a matrix); ``"fro"`` the same as 2; ``"nuc"`` the sum of the singular values of the
    matrices in two axes. The norms of linear algebra are `vector_norm` and `matrix_norm`.

    >>> norm(gl.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor(5.)
    >>> norm(gl.tensor([3.0, -4.0]), float("inf"))
    tensor(4.)
    """
    x = operand("norm", x)
    if p == "nuc":
        if axis is None:
            axis = (-2, -1)
        return matrix_norm(x, "nuc", axis, keepdims, dtype=dtype)
    if isinstance(p, str) and p != "fro":
        raise OptionError(message("norm", expected="p a number, 'fro' or 'nuc'", got=repr(p)))
    return _vector_norm("norm", x, 2 if p in ("fro", None) else p, axis, keepdims, dtype)


# ----------------------------------------------------------------------------- singular values
#
# For A = U diag(s) Vᵀ the gradient of s is U diag(gs) Vᵀ, and the derivative of that in turn is
# known in closed form: in the basis of U and V, the symmetric part of a change P is multiplied by
# (g_i - g_j) / (s_i - s_j) and the antisymmetric part by (g_i + g_j) / (s_i + s_j); what lies
# outside the spans of U and V by g_i / s_i.


def thin_svd(xp: Any, x: Any) -> tuple[Any, Any, Any]:
    """``U, s, Vᵀ`` with ``min(m, n)`` columns, of arrays of matrices."""
    *batch, m, n = x.shape
    if m and n:
        u, s, vt = xp.linalg.svd(x, full_matrices=False)
        return u, s, vt
    # LAPACK would go through the columns of an empty matrix one by one, however many.
    empty = xp.zeros((*batch, 0), x.dtype.type(0).real.dtype)
    return xp.zeros((*batch, m, 0), x.dtype), empty, xp.zeros((*batch, 0, n), x.dtype)


def _singular_values(xp: Any, x: Any) -> Any:
    if 0 in x.shape[-2:]:
        return thin_svd(xp, x)[1]
    return xp.linalg.svd(x, compute_uv=False)


def _transposed(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _singular_sum_forward(xp: Any, x: Any, v: Any) -> Any:
    u, _, vt = thin_svd(xp, x)
    return u * v[..., None, :] @ vt


def _singular_part_forward(xp: Any, x: Any, v: Any) -> Any:
    u, _, vt = thin_svd(xp, x)
    return xp.sum((_transposed(u) @ v) * vt, axis=-1)


def _quotient(xp: Any, a: Any, b: Any) -> Any:
    return xp.where(b == 0, b.dtype.type(0), a / xp.where(b == 0, b.dtype.type(1), b))


def _singular_change_forward(xp: Any, x: Any, g: Any, v: Any) -> Any:
    u, s, vt = thin_svd(xp, x)
    ut = _transposed(u)
    p = ut @ v @ _transposed(vt)
    rows, columns = (..., slice(None), None), (..., None, slice(None))
    even, odd = (p + _transposed(p)) / 2, (p - _transposed(p)) / 2
    even = even * _quotient(xp, g[rows] - g[columns], s[rows] - s[columns])
    odd = odd * _quotient(xp, g[rows] + g[columns], s[rows] + s[columns])
    y = u @ (even + odd) @ vt
    outside = _quotient(xp, g, s)
    if x.shape[-2] > x.shape[-1]:
        y = y + (v - u @ (ut @ v)) @ _transposed(vt) * outside[columns] @ vt
    elif x.shape[-2] < x.shape[-1]:
        y = y + (u * outside[columns]) @ ut @ (v - v @ _transposed(vt) @ vt)
    return y


def _third_derivative(gy: Tensor) -> Tensor:
    raise GradientError("svdvals: its third derivative is not available; only two can be taken")


# Σ v_i u_i v_iᵀ, the gradient of the singular values.
SINGULAR_SUM = Op(
    "singular_sum",
    _singular_sum_forward,
    inputs=("x", "v"),
    gradients={
        "x": lambda gy, x, v: apply(SINGULAR_CHANGE, (x, v, gy)),
        "v": lambda gy, x: apply(SINGULAR_PART, (x, gy)),
    },
    halves=True,
)
# u_iᵀ v v_i: how much of v lies along each singular pair.
SINGULAR_PART = Op(
    "singular_part",
    _singular_part_forward,
    inputs=("x", "v"),
    gradients={
        "x": lambda gy, x, v: apply(SINGULAR_CHANGE, (x, gy, v)),
        "v": lambda gy, x: apply(SINGULAR_SUM, (x, gy)),
    },
    halves=True,
)
# The change of SINGULAR_SUM(x, g) when x changes by v; it is its own adjoint.
SINGULAR_CHANGE = Op(
    "singular_change",
    _singular_change_forward,
    inputs=("x", "g", "v"),
    gradients={
        "x": _third_derivative,
        "g": _third_derivative,
        "v": lambda gy, x, g: apply(SINGULAR_CHANGE, (x, g, gy)),
    },
    halves=True,
)


def _svdvals_samples() -> Iterator[Sample]:
    for shape in ((3, 3), (4, 2), (2, 4), (2, 3, 2), (1, 1)):
        yield Sample((values(shape),), {}, f"{shape}")
    yield Sample((values((3, 4)).T,), {}, "transposed")
    yield Sample((values((0, 3)),), {}, "no rows")
    yield Sample((values((33, 31)),), {}, "33 by 31", large=True)


def require_finite(operation: str, x: Tensor) -> None:
    """Raise where ``x``, which a factorization failed on, holds NaN or infinity."""
    if not bool(isfinite(x).all()):
        got = f"NaN or infinity in a tensor of shape {x.shape}"
        raise LinAlgError(message(operation, expected="finite values", got=got))


SVDVALS = Op(
    "svdvals",
    _singular_values,
    gradients={"x": lambda gy, x: apply(SINGULAR_SUM, (x, gy))},
    kinds=_INEXACT,
    halves=True,
    check=lambda x: require_finite("svdvals", x),
    samples=_svdvals_samples,
)


@public(SVDVALS)
def svdvals(x: Tensor) -> Tensor:
    """Return the singular values, largest first, of the floating matrices in the last two axes.

    Differentiable twice, where the singular values differ; their sum also where they are equal.

    >>> svdvals(gl.tensor([[3.0, 0.0], [0.0, -4.0]]))
    tensor([4., 3.])
    """
    x = operand("svdvals", x)
    _matrix_axes("svdvals", x, (-2, -1))
    return apply(SVDVALS, (x,))
