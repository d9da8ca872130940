"""Statistics and differences of tensors, made of the ops of the other files."""

from __future__ import annotations

import math
from typing import Any

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.errors import DTypeError, OptionError, ShapeError, message
from gradlab.ops import elementwise, reduction, sorting
from gradlab.ops.core import in_float32, public, widened
from gradlab.ops.reduction import ValuesAndIndices
from gradlab.ops.shape import canonical_axis, cat, movedim
from gradlab.tensor import Tensor, from_value, require_integer


def _part(x: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop),)]


@public(None, "diff")
@accepts_dim
def diff(
    x: Tensor, n: int = 1, axis: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the differences of neighbours along ``axis``, taken ``n`` times.

    ``prepend`` and ``append`` are put before and after ``x`` first.

    >>> diff(gl.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    at = canonical_axis("diff", axis, x.ndim)
    require_integer("diff", "n", n, 0)
    x = cat([each for each in (prepend, x, append) if each is not None], at)
    for _ in range(min(n, x.shape[at])):  # nothing is left after that
        later, before = _part(x, at, 1, None), _part(x, at, None, -1)
        x = later != before if x.dtype == dtypes.bool_ else later - before
    return x


@public(None, "dist")
def dist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """Return the p-norm of ``x1 - x2``, all elements taken as one vector.

    >>> dist(gl.tensor([0.0, 0.0]), gl.tensor([3.0, 4.0]))
    tensor(5.)
    """
    return reduction.norm((x1 - x2).reshape(-1), p)


@accepts_dim
def std_mean(
    x: Tensor, axis: Any = None, *, correction: float = 1, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the standard deviation and the mean, as `std` and `mean`.

    >>> std_mean(gl.tensor([1.0, 3.0]))
    (tensor(1.4142), tensor(2.))
    """
    spread = reduction.std(x, axis, correction=correction, keepdims=keepdims)
    return spread, reduction.mean(x, axis, keepdims=keepdims)


@accepts_dim
def var_mean(
    x: Tensor, axis: Any = None, *, correction: float = 1, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the variance and the mean, as `var` and `mean`.

    >>> var_mean(gl.tensor([1.0, 3.0]))
    (tensor(2.), tensor(2.))
    """
    spread = reduction.var(x, axis, correction=correction, keepdims=keepdims)
    return spread, reduction.mean(x, axis, keepdims=keepdims)


@public(None, "cov")
@in_float32
def cov(x: Tensor, *, correction: int = 1) -> Tensor:
    """Return the covariance matrix of the variables in the rows of ``x``, observed in its columns.

    >>> cov(gl.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if x.ndim > 2:
        raise ShapeError(message("cov", expected="a matrix or a vector", got=f"shape {x.shape}"))
    rows = x.reshape(1, -1) if x.ndim < 2 else x
    centred = rows - reduction.mean(rows, 1, keepdims=True)
    covariance = centred @ centred.mT / max(rows.shape[1] - correction, 0)
    return covariance if x.ndim == 2 else covariance.reshape(())


@public(None, "corrcoef")
@in_float32
def corrcoef(x: Tensor) -> Tensor:
    """Return the correlation coefficients of the variables in the rows of ``x``.

    >>> corrcoef(gl.tensor([[0.0, 1.0, 2.0], [4.0, 2.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    covariance = cov(x)
    if covariance.ndim == 0:
        return covariance / covariance
    spread = elementwise.sqrt(covariance.diagonal())
    return elementwise.clip(covariance / spread.unsqueeze(1) / spread, -1, 1)


@public(None, "histc")
def histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Return how many elements lie in each of ``bins`` equal parts of [``min``, ``max``].

    Elements outside count nowhere. The bounds are those of ``x`` where both are 0. The counts have
    the dtype of ``x``.

    >>> histc(gl.tensor([0.0, 1.0, 1.5, 4.0]), bins=4)
    tensor([1., 2., 0., 1.])
    """
    if not x.is_floating_point():
        raise DTypeError(message("histc", expected="a floating dtype", got=x.dtype.name))
    require_integer("histc", "number of bins", bins)
    values = widened(x.detach()).reshape(-1)
    low, high = float(min), float(max)
    if low == high == 0 and values.numel():
        low, high = values.min().item(), values.max().item()
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        got = f"from {low} to {high}"
        raise OptionError(message("histc", expected="finite bounds, min up to max", got=got))
    if low == high:
        low, high = low - 1, high + 1
    values = values[(values >= low) & (values <= high)]
    places = ((values - low) * (bins / (high - low))).astype(dtypes.int64)
    return sorting.bincount(elementwise.clip(places, 0, bins - 1), minlength=bins).astype(x.dtype)


@public(None, "mode")
@accepts_dim
def mode(x: Tensor, axis: int = -1, keepdims: bool = False) -> ValuesAndIndices:
    """Return the most frequent value along ``axis``, the smallest of several, and its last place.

    >>> mode(gl.tensor([3, 1, 3, 2, 1, 3]))
    ValuesAndIndices(values=tensor(3), indices=tensor(5))
    """
    if x.ndim == 0:
        return ValuesAndIndices(*(each.squeeze(0) for each in mode(x.reshape(1))))
    at = canonical_axis("mode", axis, x.ndim)
    if not x.shape[at]:
        got = f"shape {x.shape}"
        raise ShapeError(message("mode", expected=f"elements along axis {at}", got=got))
    rows, places = sorting.sort(movedim(x.detach(), at, -1), stable=True)
    after = sorting.searchsorted(rows, rows, right=True)
    counts = after - sorting.searchsorted(rows, rows)
    most = reduction.argmax(counts, -1, keepdims=True)
    last = places.gather(-1, after.gather(-1, most) - 1)  # equal values are sorted by their places
    place = movedim(last, -1, at)
    found = x.gather(at, place)
    if not keepdims:
        found, place = found.squeeze(at), place.squeeze(at)
    return ValuesAndIndices(found, place)


def isin(elements: Any, test_elements: Any, *, invert: bool = False) -> Tensor:
    """Return for each element whether it is one of ``test_elements``; with ``invert`` whether not.

    >>> isin(gl.tensor([1, 2, 3]), gl.tensor([1, 3]))
    tensor([ True, False,  True])
    """
    tensors = [each for each in (elements, test_elements) if isinstance(each, Tensor)]
    if not tensors:
        expected = "a tensor as elements or as test_elements"
        raise OptionError(message("isin", expected=expected, got=repr(elements)))
    first = tensors[0]
    beside = first.dtype if first.is_floating_point() else dtypes.float64
    x, among = (
        from_value(each, first.device, beside=beside, operation="isin")
        for each in (elements, test_elements)
    )
    found = _is_among(x.detach(), among.detach().reshape(-1))
    return ~found if invert else found


def _is_among(x: Tensor, among: Tensor) -> Tensor:
    if x.is_floating_point() and dtypes.is_integer(among.dtype):
        limits = dtypes.iinfo(among.dtype)
        # Floats as the integers they are: several integers may become one float.
        fits = (x >= float(limits.min)) & (x < float(limits.max + 1)) & (x == elementwise.floor(x))
        return fits & _is_among(elementwise.where(fits, x, 0).astype(among.dtype), among)
    if dtypes.uint64 in (x.dtype, among.dtype) and "i" in (x.dtype.kind, among.dtype.kind):
        natural = among[among >= 0].astype(dtypes.uint64)  # no dtype holds both
        return (x >= 0) & _is_among(x.astype(dtypes.uint64), natural)
    shared = dtypes.result_type(x.dtype, among.dtype)
    mixed = dtypes.is_floating(shared) and not x.is_floating_point()
    wide = dtypes.int64 if shared == dtypes.bool_ else dtypes.float64 if mixed else shared
    known = sorting.sort(among.astype(wide)).values
    if not known.numel():
        return elementwise.where(x == x, False, False)
    at = sorting.searchsorted(known, x.astype(wide))
    return known[elementwise.clip(at, 0, known.numel() - 1)] == (x if mixed else x.astype(wide))


@accepts_dim
@in_float32
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, axis: int = -1) -> Tensor:
    """Return the integral of ``y`` along ``axis`` by the trapezoidal rule.

    ``x`` are the points at which ``y`` was taken, ``dx`` their distance if they are not given.

    >>> trapezoid(gl.tensor([1.0, 2.0, 3.0]))
    tensor(4.)
    """
    at = canonical_axis("trapezoid", axis, y.ndim)
    means = (_part(y, at, 1, None) + _part(y, at, None, -1)) / 2
    if x is None:
        return reduction.sum(means, at) * dx
    steps = diff(x, axis=at if x.ndim > 1 else 0)
    if x.ndim == 1:
        steps = steps.reshape([-1 if i == at else 1 for i in range(y.ndim)])
    return reduction.sum(means * steps, at)


trapz = trapezoid
