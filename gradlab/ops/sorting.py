"""Sorting and what rests on it: sort, top-k, order statistics, unique values, search, counts.

The place of each value is found by an op without a gradient, and the values are gathered from
there: gradients flow to where a value came from. NaN counts as larger than every number, as in
NumPy and PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.errors import DTypeError, OptionError, ShapeError, message
from gradlab.ops import elementwise
from gradlab.ops.core import Op, apply, public
from gradlab.ops.elementwise import isnan, where
from gradlab.ops.indexing import GATHER, TAKE
from gradlab.ops.reduction import ValuesAndIndices, gives_pair, operand
from gradlab.ops.samples import LARGE, SIZES, Sample, distinct, layouts, rng, values
from gradlab.ops.shape import canonical_axis
from gradlab.tensor import Tensor, from_value, is_integer, require_option

_REAL = "biufV"


def _along(operation: str, x: Any, axis: int) -> tuple[Tensor, int]:
    """The tensor, with one axis if it had none, and the axis counted from the front."""
    x = operand(operation, x)
    at = canonical_axis(operation, axis, x.ndim)
    return (x if x.ndim else x.reshape(1)), at


def _pick(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    return apply(GATHER, (x, indices), {"axis": axis})


def _check_by_values(op: Op) -> None:
    """Let checks of ``op`` see the values it finds: of equal values any place will do."""

    def find_values(x: Tensor, *, axis: int, **options: Any) -> Tensor:
        return _pick(x, apply(op, (x,), {"axis": axis, **options}), axis)

    op.function = find_values


def _drop(x: Tensor, axis: int, keepdims: bool) -> Tensor:
    """``x`` without ``axis``, which has size 1."""
    return x if keepdims else x.reshape((*x.shape[:axis], *x.shape[axis + 1 :]))


# ---------------------------------------------------------------------------------------- sort


def _argsort_forward(xp: Any, x: Any, *, axis: int, descending: bool, stable: bool) -> Any:
    kind = "stable" if stable else None
    if not descending:
        return xp.argsort(x, axis=axis, kind=kind)
    if not stable:
        return xp.flip(xp.argsort(x, axis=axis), axis).copy()
    # Equal values keep their order if both the values and their order are reversed.
    backwards = xp.argsort(xp.flip(x, axis), axis=axis, kind=kind)
    return x.shape[axis] - 1 - xp.flip(backwards, axis)


def _sort_samples() -> Iterator[Sample]:
    # All stable: otherwise equal values, which narrow dtypes make, may come in any order.
    for name, x in layouts(lambda shape: np.asarray(distinct(shape))):
        for axis in range(-1, x.ndim - 1):
            for descending in (False, True):
                options = {"axis": axis, "descending": descending, "stable": True}
                yield Sample((x,), options, f"{name}, axis {axis}, descending={descending}")
    ties = np.array([2.0, 1.0, 2.0, 1.0, 1.0])
    for descending in (False, True):
        options = {"descending": descending, "stable": True}
        yield Sample((ties,), options, f"ties, descending={descending}")
    for size in SIZES:
        yield Sample((distinct(size),), {"stable": True}, f"{size} values", large=size > 100)
    yield Sample((distinct(LARGE),), {"stable": True}, "large", large=True)


ARGSORT = Op(
    "argsort",
    _argsort_forward,
    kinds=_REAL,
    halves=True,
    why_not="its result is integer",
    samples=_sort_samples,
)


def _argsort(x: Tensor, axis: int, descending: bool, stable: bool) -> Tensor:
    options = {"axis": axis, "descending": bool(descending), "stable": bool(stable)}
    return apply(ARGSORT, (x,), options)


@public(ARGSORT, "argsort")
@accepts_dim
def argsort(x: Tensor, axis: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return the indices, int64, that put ``x`` in order along ``axis``.

    With ``stable`` equal values keep the order they had.

    >>> argsort(gl.tensor([3, 1, 2]))
    tensor([1, 2, 0])
    """
    rows, at = _along("argsort", x, axis)
    return _argsort(rows, at, descending, stable).reshape(np.shape(x))


@public(None, "sort")
@accepts_dim
def sort(
    x: Tensor, axis: int = -1, descending: bool = False, stable: bool = False
) -> ValuesAndIndices:
    """Return ``x`` in order along ``axis``, and where each value stood: a named tuple
    ``(values, indices)``.

    NaN comes last, or first with ``descending``. With ``stable`` equal values keep the order they
    had.

    >>> values, indices = sort(gl.tensor([3.0, 1.0, 2.0]), descending=True)
    >>> values, indices
    (tensor([3., 2., 1.]), tensor([0, 2, 1]))
    """
    rows, at = _along("sort", x, axis)
    indices = _argsort(rows, at, descending, stable)
    shape = np.shape(x)
    return ValuesAndIndices(_pick(rows, indices, at).reshape(shape), indices.reshape(shape))


# ------------------------------------------------------------------- top-k and order statistics


def _slice(xp: Any, x: Any, axis: int, start: int, stop: int) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _topk_forward(xp: Any, x: Any, *, k: int, axis: int, largest: bool, ordered: bool) -> Any:
    size = x.shape[axis]
    # A partial sort finds the k in linear time; only they are then put in order. CuPy's
    # argpartition sorts all, and waits for the GPU twice.
    if 0 < k < size and xp is np:
        places = xp.argpartition(x, size - k if largest else k - 1, axis=axis)
        places = _slice(xp, places, axis, *((size - k, size) if largest else (0, k)))
        if not ordered:
            return places.copy()
        order = xp.argsort(xp.take_along_axis(x, places, axis), axis=axis)
        places = xp.take_along_axis(places, order, axis)
        return xp.flip(places, axis).copy() if largest else places
    places = xp.argsort(x, axis=axis)
    return _slice(xp, xp.flip(places, axis) if largest else places, axis, 0, k).copy()


def _topk_samples() -> Iterator[Sample]:
    x = distinct((3, 5, 4))
    for k, axis in ((1, 0), (2, 1), (5, 1), (0, 2), (3, 2)):
        for largest in (True, False):
            options = {"k": k, "axis": axis, "largest": largest, "ordered": True}
            yield Sample((x,), options, f"k={k}, axis {axis}, largest={largest}")
    for size in SIZES[1:]:
        k = (size + 1) // 2
        options = {"k": k, "axis": 0, "largest": True, "ordered": True}
        yield Sample((distinct(size),), options, f"{k} of {size}", large=size > 100)
    options = {"k": 10, "axis": 0, "largest": True, "ordered": True}
    yield Sample((distinct(LARGE),), options, "large", large=True)


TOPK = Op(
    "topk",
    _topk_forward,
    kinds=_REAL,
    halves=True,
    why_not="its result is integer; the values are gathered from there",
    samples=_topk_samples,
)


_check_by_values(TOPK)


@public(None, "topk")
@accepts_dim
def topk(
    x: Tensor, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesAndIndices:
    """Return the ``k`` largest values along ``axis`` (the smallest, if not ``largest``), and where
    they stand: a named tuple ``(values, indices)``.

    The best comes first, unless ``sorted=False``, which leaves the order open. Raises
    `ShapeError` where the axis has fewer than ``k`` values.

    >>> topk(gl.tensor([1.0, 5.0, 3.0]), 2).values
    tensor([5., 3.])
    """
    rows, at = _along("topk", x, axis)
    _check_rank("topk", rows, at, k, least=0)
    options = {"k": int(k), "axis": at, "largest": bool(largest), "ordered": bool(sorted)}
    indices = apply(TOPK, (rows,), options)
    found = _pick(rows, indices, at)
    if not np.ndim(x) and k == 1:
        found, indices = found.reshape(()), indices.reshape(())
    return ValuesAndIndices(found, indices)


def _check_rank(operation: str, x: Tensor, axis: int, k: Any, least: int) -> None:
    if not is_integer(k):
        raise OptionError(message(operation, expected="an integer k", got=repr(k)))
    if not least <= k <= x.shape[axis]:
        raise ShapeError(
            message(
                operation,
                expected=f"k from {least} to {x.shape[axis]}, the size of axis {axis}",
                got=f"{k}",
            )
        )


def _rank_forward(xp: Any, x: Any, *, k: int, axis: int, nan: bool) -> Any:
    """The place of the value of rank k, counted from 0; with ``nan`` that of a NaN, if any."""
    places = np.argpartition(x, k, axis=axis) if xp is np else xp.argsort(x, axis=axis)
    place = _slice(xp, places, axis, k, k + 1)
    if not nan or x.dtype.kind not in "fV":
        return place.copy()
    missing = xp.isnan(x)
    first = xp.expand_dims(xp.argmax(missing, axis=axis), axis)
    return xp.where(xp.any(missing, axis=axis, keepdims=True), first, place)


def _rank_samples() -> Iterator[Sample]:
    x = distinct((3, 5))
    for k, axis in ((0, 0), (2, 0), (4, 1), (2, 1)):
        yield Sample((x,), {"k": k, "axis": axis, "nan": True}, f"rank {k}, axis {axis}")
    for size in SIZES[1:]:
        options = {"k": (size - 1) // 2, "axis": 0, "nan": False}
        yield Sample((distinct(size),), options, f"middle of {size}", large=size > 100)


RANK = Op(
    "place_of_rank",
    _rank_forward,
    kinds=_REAL,
    halves=True,
    why_not="its result is integer; the values are gathered from there",
    samples=_rank_samples,
)


_check_by_values(RANK)


@public(None, "kthvalue")
@accepts_dim
def kthvalue(x: Tensor, k: int, axis: int = -1, keepdims: bool = False) -> ValuesAndIndices:
    """Return the ``k``-th smallest value along ``axis``, counted from 1, and where it stands.

    >>> kthvalue(gl.tensor([3.0, 1.0, 2.0]), 1)
    ValuesAndIndices(values=tensor(1.), indices=tensor(1))
    """
    rows, at = _along("kthvalue", x, axis)
    _check_rank("kthvalue", rows, at, k, least=1)
    return _of_rank(rows, int(k) - 1, at, keepdims and np.ndim(x) > 0, nan=False)


def _of_rank(x: Tensor, k: int, axis: int, keepdims: bool, nan: bool) -> ValuesAndIndices:
    indices = apply(RANK, (x,), {"k": k, "axis": axis, "nan": nan})
    found = _pick(x, indices, axis)
    return ValuesAndIndices(_drop(found, axis, keepdims), _drop(indices, axis, keepdims))


def _middle(x: Tensor, axis: int, keepdims: bool) -> ValuesAndIndices:
    rows, at, _ = _flattened("median", x, axis, keepdims)
    return _of_rank(rows, (rows.shape[at] - 1) // 2, at, keepdims and np.ndim(x) > 0, nan=True)


@public(None, "median")
@gives_pair(_middle)
def median(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the median over ``axis`` (None: of all), NaN where one value is NaN.

    Of an even number of values the lower of the two in the middle, as in PyTorch, so that it is
    one of the values; ``quantile(x, 0.5)`` gives their mean. Spelt as in PyTorch, ``median(x, 1)``
    and ``median(x, dim=1)`` give the pair ``(values, indices)``.

    >>> median(gl.tensor([4.0, 1.0, 3.0, 2.0]))
    tensor(2.)
    >>> median(gl.tensor([[4.0, 1.0, 3.0]]), dim=1)
    ValuesAndIndices(values=tensor([3.]), indices=tensor([2]))
    """
    rows, at, kept = _flattened("median", x, axis, keepdims)
    y = _of_rank(rows, (rows.shape[at] - 1) // 2, at, kept is None and keepdims, nan=True).values
    return y if kept is None else y.reshape(kept)


def _flattened(
    operation: str, x: Any, axis: int | None, keepdims: bool
) -> tuple[Tensor, int, tuple[int, ...] | None]:
    """Rows to choose from and their axis; for ``axis=None`` also the shape of the result."""
    rows, at = _along(operation, x, 0 if axis is None else axis)
    if not rows.shape[at] or (axis is None and not rows.numel()):
        raise ShapeError(
            message(
                operation,
                expected="at least one element to choose from",
                got=f"shape {np.shape(x)}" + ("" if axis is None else f" along axis {axis}"),
            )
        )
    if axis is not None and np.ndim(x):
        return rows, at, None
    return rows.ravel(), 0, (1,) * np.ndim(x) if keepdims else ()


_INTERPOLATIONS = ("linear", "lower", "higher", "nearest", "midpoint")


@public(None, "quantile")
@accepts_dim
def quantile(
    x: Tensor,
    q: float | Tensor,
    axis: int | None = None,
    keepdims: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """Return the quantiles ``q`` of floating ``x`` over ``axis`` (None: of all).

    ``q`` is a number in [0, 1] or a vector of them; with a vector the result has a first axis of
    its length. The quantile stands at place ``q·(n - 1)`` of the n sorted values; between two of
    them ``interpolation`` decides: ``"linear"``, ``"lower"``, ``"higher"``, ``"nearest"`` or
    ``"midpoint"``. NaN where one value is NaN.

    >>> quantile(gl.tensor([1.0, 2.0, 3.0, 4.0]), 0.5)
    tensor(2.5000)
    """
    require_option("quantile", "interpolation", interpolation, _INTERPOLATIONS)
    rows, at, kept = _flattened("quantile", x, axis, keepdims)
    if rows.dtype.kind not in "fV":
        raise DTypeError(
            message(
                "quantile",
                expected="floating values",
                got=rows.dtype.name,
                hint="cast with .astype(...)",
            )
        )
    wanted = _fractions(q)
    ordered = sort(rows, at).values
    found = _interpolate(ordered, wanted.ravel() * (rows.shape[at] - 1), at, interpolation)
    last = apply(TAKE, (ordered, _indices(ordered, [rows.shape[at] - 1])), {"axis": at})
    found = where(isnan(last), last, found)
    moved = found.movedim(at, 0)
    rest = moved.shape[1:]
    if kept is not None:
        rest = kept
    elif keepdims:
        rest = (*rest[:at], 1, *rest[at:])
    return moved.reshape((*wanted.shape, *rest))


def _fractions(q: Any) -> np.ndarray:
    given = q.numpy(force=True) if isinstance(q, Tensor) else q
    wanted = np.asarray(given, dtype=np.float64)
    if wanted.ndim > 1 or not ((wanted >= 0) & (wanted <= 1)).all():
        raise OptionError(
            message("quantile", expected="q a number or vector within [0, 1]", got=repr(given))
        )
    return wanted


def _indices(like: Tensor, places: Any) -> Tensor:
    return from_value(np.asarray(places, dtype=np.int64), like.device)


def _interpolate(ordered: Tensor, places: np.ndarray, axis: int, interpolation: str) -> Tensor:
    """The values at fractional places along an axis of sorted values."""
    low, high = np.floor(places), np.ceil(places)
    if interpolation in ("lower", "higher", "nearest"):
        chosen = {"lower": low, "higher": high, "nearest": np.rint(places)}[interpolation]
        return apply(TAKE, (ordered, _indices(ordered, chosen)), {"axis": axis})
    share = places - low if interpolation == "linear" else np.where(low == high, 0.0, 0.5)
    below = apply(TAKE, (ordered, _indices(ordered, low)), {"axis": axis})
    above = apply(TAKE, (ordered, _indices(ordered, high)), {"axis": axis})
    weight = from_value(share.astype(ordered.dtype), ordered.device)
    weight = weight.reshape((-1,) + (1,) * (ordered.ndim - 1 - axis))
    # Not below + (above - below)·weight, nor inf·0: an infinite neighbour would leave NaN.
    return where(weight == 0, below, below * (1 - weight) + above * weight)


# -------------------------------------------------------------------------------------- unique


class UniqueAll(NamedTuple):
    """What `unique_all` returns."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What `unique_counts` returns."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What `unique_inverse` returns."""

    values: Tensor
    inverse_indices: Tensor


def _unique_forward(xp: Any, x: Any, *, axis: int | None) -> Any:
    if x.dtype == bool:  # CuPy compares rows by their differences, which bool has none of
        x = x.view(np.uint8)
    # equal_nan=False: each NaN differs from all others, as in PyTorch and the array API.
    _, first, inverse, counts = xp.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    shape = x.shape if axis is None else (x.shape[axis],)
    return first, inverse.reshape(shape), counts


def _unique_samples() -> Iterator[Sample]:
    x = rng(0).integers(0, 5, (6, 4)) * 1.0
    yield Sample((x,), {"axis": None}, "matrix")
    yield Sample((x[:, :1],), {"axis": 0}, "rows")
    yield Sample((np.zeros((0,)),), {"axis": None}, "empty")
    for size in SIZES[1:]:
        yield Sample((rng(1).integers(0, 9, size) * 1.0,), {"axis": None}, f"{size} values")


UNIQUE = Op(
    "unique",
    _unique_forward,
    halves=True,
    why_not="its results are integer; the values are gathered from there",
    samples=_unique_samples,
)


def unique_all(x: Tensor, *, axis: int | None = None) -> UniqueAll:
    """Return the distinct values in ascending order, where each stands first, which of them each
    element is, and how often each occurs: the array API's function.

    With ``axis`` the slices along it are compared. ``indices`` counts in the flattened tensor,
    ``inverse_indices`` has the shape of ``x`` (one axis, with ``axis``).
    """
    x = operand("unique", x)
    at = None if axis is None else canonical_axis("unique", axis, x.ndim)
    rows = x if x.ndim else x.reshape(1)
    first, inverse, counts = apply(UNIQUE, (rows,), {"axis": at if x.ndim else None})
    source, place = (rows.ravel(), 0) if at is None or not x.ndim else (rows, at)
    found = apply(TAKE, (source, first), {"axis": place})
    return UniqueAll(found, first, inverse.reshape(x.shape) if at is None else inverse, counts)


def unique_counts(x: Tensor) -> UniqueCounts:
    """Return the distinct values in ascending order and how often each occurs."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Tensor) -> UniqueInverse:
    """Return the distinct values in ascending order and which of them each element is."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Tensor) -> Tensor:
    """Return the distinct values in ascending order."""
    return unique_all(x).values


@public(None, "unique")
@accepts_dim
def unique(
    x: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
) -> Any:
    """Return the distinct values of ``x`` in ascending order (also if ``sorted`` is False).

    With ``return_inverse`` also which of them each element is, in the shape of ``x``; with
    ``return_counts`` how often each occurs: then a tuple. With ``axis`` the slices along it are
    compared. Each NaN is distinct. The gradient of a value flows to its first occurrence.

    >>> unique(gl.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    del sorted
    found = unique_all(x, axis=axis)
    if not (return_inverse or return_counts):
        return found.values
    inverse = (found.inverse_indices,) if return_inverse else ()
    return (found.values, *inverse, *((found.counts,) if return_counts else ()))


# ------------------------------------------------------------------------ binary search, counts


def _before(xp: Any, x: Any, value: Any, side: str) -> Any:
    """Whether ``x`` comes before the place of ``value``; NaN comes after all numbers."""
    if side == "right":
        return (x <= value) | (value != value)
    return (x < value) | ((value != value) & (x == x))


def find_places(xp: Any, x1: Any, x2: Any, side: str) -> Any:
    """Where the values ``x2`` (…, n) belong in the sorted rows ``x1`` (…, k), or one row."""
    if x1.ndim == 1:  # CuPy searches for arrays only
        return xp.searchsorted(x1, xp.asarray(x2), side=side).astype(dtypes.int64, copy=False)
    if math.prod(x1.shape[:-1]) == 1:
        found = xp.searchsorted(x1.reshape(-1), x2.reshape(-1), side=side)
        return found.reshape(x2.shape).astype(dtypes.int64, copy=False)
    # All rows at once, a bit of the place after the other.
    y = xp.zeros(x2.shape, dtypes.int64)
    count = x1.shape[-1]
    for bit in reversed(range(count.bit_length())):
        further = y + (1 << bit)
        seen = xp.take_along_axis(x1, xp.minimum(further, count) - 1, axis=-1)
        y = xp.where((further <= count) & _before(xp, seen, x2, side), further, y)
    return y


def _searchsorted_forward(xp: Any, x1: Any, x2: Any, *, side: str) -> Any:
    return find_places(xp, x1, x2, side)


def _searchsorted_samples() -> Iterator[Sample]:
    edges = np.sort(distinct(7))
    yield Sample((edges, values((3, 4))), {}, "a vector, a matrix of values")
    yield Sample((edges, edges), {"side": "right"}, "ties, right")
    yield Sample((edges, 0.5), {}, "a scalar")
    yield Sample((np.sort(values((3, 5))), values((3, 2), seed=1)), {}, "row by row")
    for size in SIZES:
        yield Sample((np.sort(distinct(size)), values(33)), {}, f"{size} values", large=size > 100)


SEARCHSORTED = Op(
    "searchsorted",
    _searchsorted_forward,
    inputs=("x1", "x2"),
    kinds=_REAL,
    halves=True,
    why_not="its result is integer",
    samples=_searchsorted_samples,
)


@public(SEARCHSORTED)
def searchsorted(
    sorted_sequence: Tensor, values: Any, side: str = "left", *, right: bool = False
) -> Tensor:
    """Return where ``values`` would be inserted into a sequence in ascending order, as int64.

    ``side="left"`` gives the first place i with ``value <= sequence[i]``, ``"right"`` (or
    ``right=True``) the first with ``value < sequence[i]``. The sequence is a vector, or has the
    axes of ``values`` but for the last, and each row is searched for its own values. That it is
    in order is not checked.

    >>> searchsorted(gl.tensor([1, 3, 5]), gl.tensor([0, 3, 9]))
    tensor([0, 1, 3])
    """
    require_option("searchsorted", "side", side, ("left", "right"))
    x1 = operand("searchsorted", sorted_sequence)
    # Beside integers a float is a float64: a float32 would not hold it.
    beside = x1.dtype if x1.is_floating_point() else dtypes.float64
    x2 = from_value(values, x1.device, beside=beside, operation="searchsorted")
    if not x1.ndim or (x1.ndim > 1 and x1.shape[:-1] != x2.shape[:-1]):
        raise ShapeError(
            message(
                "searchsorted",
                expected="a sorted vector, or rows for the rows of the values",
                got=f"shapes {x1.shape} and {x2.shape}",
            )
        )
    side = "right" if right else side
    kinds = {x1.dtype.kind, x2.dtype.kind}
    if {x1.dtype, x2.dtype} & {dtypes.int64, dtypes.uint64} and len(kinds - {"b"}) == 2:
        return _search_as_integers(x1, x2, side)
    return apply(SEARCHSORTED, (x1, x2), {"side": side})


def _search_as_integers(x1: Tensor, x2: Tensor, side: str) -> Tensor:
    """Search 64-bit integers for floats, or the other way, or uint64 for signed ones: no dtype
    holds both. For integers n, ``x <= n`` is ``ceil(x) <= n`` and ``n <= x`` is ``n <= floor(x)``.
    """
    right = side == "right"
    count = x1.shape[-1]
    if dtypes.is_integer(x1.dtype):
        x2, below, above = _as_integers(
            x2, x1.dtype, elementwise.floor if right else elementwise.ceil
        )
        found = apply(SEARCHSORTED, (x1, x2), {"side": side})
        return where(below, 0, where(above, count, found))
    x1, below, above = _as_integers(x1, x2.dtype, elementwise.ceil if right else elementwise.floor)
    found = apply(SEARCHSORTED, (x1, x2), {"side": side})
    rows = x1.ndim > 1
    first, last = below.sum(-1, keepdims=rows), count - above.sum(-1, keepdims=rows)
    return elementwise.clip(found, first, last)


def _as_integers(x: Tensor, dtype: Any, round_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` as integers of a dtype, the nearest that it holds, and which lie below and above them:
    NaN above, as it is sorted."""
    limits = dtypes.iinfo(dtype)
    low: float = limits.min
    high: float = limits.max
    if x.is_floating_point():
        x = round_(x.astype(dtypes.float64))
        low, high = float(low), float(high)
        high = high if high <= limits.max else math.nextafter(high, 0)
    else:
        own = dtypes.iinfo(x.dtype)
        low, high = max(low, own.min), min(high, own.max)
    below, above = x < low, ~(x <= high)
    return where(below, low, where(above, high, x)).astype(dtype), below, above


def bucketize(x: Any, boundaries: Tensor, *, right: bool = False) -> Tensor:
    """Return the number of the bucket each value falls into, as int64: `searchsorted` with its
    arguments exchanged.

    >>> bucketize(gl.tensor([0, 3, 9]), gl.tensor([1, 3, 5]))
    tensor([0, 1, 3])
    """
    return searchsorted(boundaries, x, right=right)


def _bincount_forward(xp: Any, x: Any, weights: Any = None, *, minlength: int) -> Any:
    if weights is None:
        return xp.bincount(x, minlength=minlength).astype(dtypes.int64, copy=False)
    return xp.bincount(x, weights=weights, minlength=minlength).astype(weights.dtype, copy=False)


def _explain_bincount(x: Tensor, *_: Any, **__: Any) -> None:
    low = int(x.numpy(force=True).min()) if x.numel() else 0
    if low < 0:
        raise OptionError(message("bincount", expected="numbers of 0 or more", got=str(low)))


def _bincount_samples() -> Iterator[Sample]:
    for size in SIZES:
        x = rng(2).integers(0, 7, size)
        yield Sample((x,), {"minlength": 3}, f"{size} numbers", large=size > 100)
        yield Sample((x,), {"weights": values(size)}, f"{size} weighted", large=size > 100)


BINCOUNT = Op(
    "bincount",
    _bincount_forward,
    inputs=("x", "weights"),
    gradients={"weights": lambda gy, x: apply(TAKE, (gy, x), {"axis": 0})},
    kinds=_REAL,
    halves=True,
    why_not="it counts",
    check=_explain_bincount,
    samples=_bincount_samples,
)


@public(BINCOUNT, "bincount")
def bincount(x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Return how often each of the numbers 0, 1, … occurs in a vector of integers, as int64.

    With ``weights``, of the length of ``x``, the sum of the weights of each number: floating
    weights keep their dtype and gradient, integers give float64. The result has ``max(x) + 1``
    elements, or ``minlength`` if that is more.

    >>> bincount(gl.tensor([1, 3, 1]))
    tensor([0, 2, 0, 1])
    """
    x = operand("bincount", x)
    if x.dtype.kind not in "iu":
        raise DTypeError(message("bincount", expected="integers", got=x.dtype.name))
    if x.ndim != 1:
        raise ShapeError(message("bincount", expected="a vector", got=f"shape {x.shape}"))
    if minlength < 0:
        raise OptionError(
            message("bincount", expected="minlength of 0 or more", got=str(minlength))
        )
    if x.dtype == dtypes.uint64:
        x = x.astype(dtypes.int64)
    options = {"minlength": int(minlength)}
    if weights is None:
        return apply(BINCOUNT, (x,), options)
    w = from_value(weights, x.device, operation="bincount")
    if w.shape != x.shape:
        raise ShapeError(
            message("bincount", expected=f"weights of shape {x.shape}", got=str(w.shape))
        )
    if w.dtype.kind in "biu":
        w = w.astype(dtypes.float64)
    return apply(BINCOUNT, (x, w), options)
