"""Reductions of arrays, not of tensors: the one place where values are added up.

A running sum of float32 stops growing at 2^24 times the value that is added, and loses digits long
before. NumPy adds pairwise only along the axis that lies closest in memory, and one after another
along all others. Here every sum is taken in blocks, and the sums of the blocks in blocks again, so
that a value takes part in about a hundred additions however many values there are: the error is a
few roundings of ``Σ|x|`` along any axes of any layout [1]_. Blocks are products with ones, which
BLAS computes faster than NumPy adds.

.. [1] N. J. Higham, The accuracy of floating point summation, SIAM J. Sci. Comput. 14, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.kernels import ladder
from gradlab.kernels.cuda import reduction as _reduction  # noqa: F401 - its rungs of the ladder

Axes = tuple[int, ...] | None  # canonical: counted from the front, None for all

# np.sum and its kin spend 1.3 µs in Python before they reach these.
_ADD: Callable[..., Any] = np.add.reduce
_REDUCE: dict[str, Callable[..., Any]] = {
    "sum": _ADD,
    "prod": np.multiply.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "any": np.logical_or.reduce,
    "all": np.logical_and.reduce,
}

_ACCUMULATE = frozenset({"sum", "prod"})

_SMALL = 512  # elements, below which nothing is gained
_CACHED = 1 << 18  # elements of an array that is in the cache
_CHAIN = 64  # values that are added one after another
_SHORT = 16  # rows, up to which none are read as one
_NARROW = 512  # elements of a row, below which several are read as one
_WIDE = 2048  # elements of a row that is long enough for BLAS to read rows from memory
_FOLDED, _FOLDED_IN_CACHE = 1024, 4096  # elements of a row that is made of several
_SCRATCH = 31 * 1024  # elements, up to which malloc reuses memory instead of asking the system
_RUN = 64  # neighbours in memory that are better added by a product than pairwise
_RUN_IN_CACHE = 256  # the same where all of the array is in the cache
_RUN_JUST_WRITTEN = 1024  # the same for what was computed a moment ago


def kept_shape(shape: Sequence[int], axis: Axes) -> tuple[int, ...]:
    """The shape with the reduced axes in place, of size 1."""
    if axis is None:
        return (1,) * len(shape)
    return tuple([1 if i in axis else n for i, n in enumerate(shape)])


def count_of(shape: Sequence[int], axis: Axes) -> int:
    """How many elements each result is made of."""
    return math.prod(shape if axis is None else [shape[i] for i in axis])


def accumulation_dtype(dtype: Any) -> Any:
    """The dtype in which integers accumulate; None where the dtype itself will do."""
    if dtype.kind not in "biu":
        return None
    return dtypes.uint64 if dtype == dtypes.uint64 else dtypes.int64


def reduce_array(
    xp: Any, name: str, x: Any, axis: Axes = None, keepdims: bool = False, dtype: Any = None
) -> Any:
    """Reduce an array by ``name``, the array namespace's function, the fastest precise way known.

    ``dtype`` is what is added or multiplied in: int64 for integers (uint64 stays), for floats
    their own.
    """
    if dtype is None and name in _ACCUMULATE:
        dtype = accumulation_dtype(x.dtype)
    if xp is not np:
        return _reduce_on_device(xp, name, x, axis, keepdims, dtype)
    reduce = _REDUCE[name]
    if x.size < _SMALL or dtype is not None or (reduce is _ADD and x.dtype.kind not in "fc"):
        return reduce(x, axis, dtype, None, keepdims)
    if axis is None:
        if x.flags.forc:  # one run, which is added pairwise
            return reduce(x, None, None, None, keepdims)
        axis = tuple(range(x.ndim))
    if x.flags.c_contiguous:
        y = _reduce_packed(reduce, x, axis)
    else:
        y = _reduce_strided(reduce, x, axis)
    if keepdims:
        return y.reshape(kept_shape(x.shape, axis))
    # As NumPy does, a number rather than an array without axes.
    return y.reshape([n for i, n in enumerate(x.shape) if i not in axis])[()]


def _reduce_on_device(xp: Any, name: str, x: Any, axis: Axes, keepdims: bool, dtype: Any) -> Any:
    # Integers are exact in the int64 that the kernels give them, whatever is made of it after.
    exact = dtype is None or x.dtype.kind in "biu"
    if exact and ladder.accepts("reduction", name, x, axis=axis, keepdims=keepdims):
        y = ladder.run("reduction", name, x, axis=axis, keepdims=keepdims)
        return y if dtype is None else y.astype(dtype, copy=False)
    options = {} if dtype is None else {"dtype": dtype}
    return getattr(xp, name)(x, axis=axis, keepdims=keepdims, **options)


def _reduce_packed(reduce: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Reduce a C-contiguous array, neighbouring axes of one kind taken together."""
    if axes == (0,) and x.ndim == 2 and x.shape[1] > 1:  # the gradient of a bias: no time to lose
        return _reduce_rows(reduce, x)
    sizes: list[int] = []
    reduced: list[bool] = []
    for i, n in enumerate(x.shape):
        if n == 1:
            continue
        if reduced and reduced[-1] is (i in axes):
            sizes[-1] *= n
        else:
            sizes.append(n)
            reduced.append(i in axes)
    # The longest first: the least is left then.
    todo = sorted([(n, i) for i, n in enumerate(sizes) if reduced[i]], reverse=True)
    if not todo:
        return reduce(x, axes)  # a copy
    for n, i in todo:
        sizes[i] = 1
        outer, inner = math.prod(sizes[:i]), math.prod(sizes[i + 1 :])
        if inner == 1:
            x = _reduce_runs(reduce, x.reshape(outer, n))
        else:
            x = _reduce_rows(
                reduce, x.reshape(n, inner) if outer == 1 else x.reshape(outer, n, inner)
            )
    return x


def _reduce_rows(reduce: Any, x: Any) -> Any:
    """Reduce the last axis but one of a C-contiguous array of two or three axes."""
    n, inner = x.shape[-2:]
    cached = x.size <= _CACHED
    # Of short rows that come from memory BLAS reads four at a time, and the prefetcher loses track.
    product = reduce is _ADD and x.dtype.char in "fd" and (cached or inner >= _WIDE)
    if inner < _NARROW and n > (_CHAIN if product else _SHORT):
        return _reduce_folded(reduce, x)
    if n <= _CHAIN:
        if not product:
            return reduce(x, -2)
        one = ones(n, x.dtype)
        return one.dot(x) if x.ndim == 2 else np.matmul(one, x)
    if reduce is not _ADD:
        return reduce(x, -2)
    return _reduce_rows(reduce, _block_sums(x, product))


def _block_sums(x: Any, product: bool) -> Any:
    """The sums of blocks of rows, of the last axis but one; where they are many, of many blocks."""
    *outer, n, inner = x.shape
    blocks = max(1, _SCRATCH // inner)  # whose sums are added at once
    step = _CHAIN if product or n < 4 * _CHAIN * blocks else _CHAIN * blocks
    count = n // step
    y = np.empty((*outer, count + (n % step > 0), inner), x.dtype)
    whole = x[..., : count * step, :].reshape(*outer, count, step, inner)
    sums = y[..., :count, :]
    if product:
        np.matmul(ones(_CHAIN, x.dtype), whole, sums)
    elif step == _CHAIN:
        _ADD(whole, -2, None, sums)
    else:
        scratch = np.empty((*outer, blocks, inner), x.dtype)
        for i in range(count):
            slab = whole[..., i, :, :].reshape(*outer, blocks, _CHAIN, inner)
            _ADD(_ADD(slab, -2, None, scratch), -2, None, sums[..., i, :])
    if n % step:
        y[..., count, :] = _reduce_rows(_ADD, x[..., count * step :, :])
    return y


def _reduce_folded(reduce: Any, x: Any) -> Any:
    """Reduce rows that are short, reading several as one: NumPy and BLAS go from row to row."""
    *outer, n, inner = x.shape
    width = _FOLDED_IN_CACHE if x.size <= _CACHED else _FOLDED
    rows = min(width // inner, 1 << n.bit_length() // 2)
    rest = n % rows
    long = (x[..., : n - rest, :] if rest else x).reshape(*outer, n // rows, rows * inner)
    y = _reduce_rows(reduce, long).reshape(*outer, rows, inner)
    return _reduce_rows(reduce, np.concatenate((y, x[..., n - rest :, :]), -2) if rest else y)


def _reduce_runs(reduce: Any, x: Any) -> Any:
    """Reduce the rows of a matrix, each of which is one run of memory."""
    n = x.shape[1]
    if reduce is _ADD and x.dtype.char in "fd":
        if n <= _RUN or (n <= _RUN_IN_CACHE and x.size <= _CACHED):
            return x.dot(ones(n, x.dtype))
    elif 0 < n <= _SHORT:
        return reduce(np.ascontiguousarray(x.T), 0)
    return reduce(x, 1)  # a sum pairwise


def _reduce_strided(reduce: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Reduce an array of any strides; the reduced axes stay, with size 1."""
    if reduce is not _REDUCE["prod"] and _repeated(x):
        return _reduce_repeated(reduce, x, axes)
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    kept = [1 if i in axes else x.shape[i] for i in order]
    x = x.transpose(order)
    axes = tuple([k for k, i in enumerate(order) if i in axes])
    if x.flags.c_contiguous:
        y = _reduce_packed(reduce, x, axes).reshape(kept)
    elif reduce is not _ADD or math.prod([x.shape[i] for i in axes if i < x.ndim - 1]) <= _CHAIN:
        y = reduce(x, axes, None, None, True)  # pairwise along the last axis
    else:
        y = _add_strided(x, axes)
    return y.transpose(sorted(range(x.ndim), key=order.__getitem__))


def _add_strided(x: Any, axes: tuple[int, ...]) -> Any:
    """Add along the longest axis, in blocks unless it is the last; then along the others."""
    n, i = max((x.shape[i], i) for i in axes)
    if n <= _CHAIN or i == x.ndim - 1:
        y = _ADD(x, i, None, None, True)
    else:
        blocks = n // _CHAIN
        whole = blocks * _CHAIN
        before, after = x.shape[:i], x.shape[i + 1 :]
        y = np.empty((*before, blocks + (whole < n), *after), x.dtype)
        here = (slice(None),) * i
        rows = x[(*here, slice(0, whole))].reshape(*before, blocks, _CHAIN, *after)
        _ADD(rows, i + 1, None, y[(*here, slice(0, blocks))])
        if whole < n:
            _ADD(x[(*here, slice(whole, n))], i, None, y[(*here, blocks)])
    return reduce_array(np, "sum", y, axes, True)


def _reduce_repeated(reduce: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Reduce a broadcast array: a value that is repeated is taken once, and a sum multiplied."""
    repeated = _repeated(x)
    once = x[tuple([slice(0, 1) if i in repeated else slice(None) for i in range(x.ndim)])]
    y = _reduce_strided(reduce, once, axes)
    count = math.prod([x.shape[i] for i in repeated if i in axes])
    if reduce is _ADD and count != 1:
        y = y * count
    return np.broadcast_to(y, kept_shape(x.shape, axes)).copy()


def _repeated(x: Any) -> list[int]:
    """The axes along which an array repeats the same memory."""
    return [i for i, step in enumerate(x.strides) if step == 0 and x.shape[i] > 1]


@lru_cache(maxsize=64)
def ones(count: int, dtype: Any) -> np.ndarray:
    """A vector of ones, kept: a product with it is the quickest sum of a block."""
    return np.ones(count, dtype)


def sum_along(xp: Any, x: Any, axis: int) -> Any:
    """The sum along an axis, which is gone then; quicker than `reduce_array` on small matrices."""
    if xp is np and x.ndim == 2 and x.dtype.char in "fd":
        n = x.shape[axis]
        if n <= _CHAIN or (axis == 1 and n <= _RUN_JUST_WRITTEN):
            return ones(n, x.dtype).dot(x) if axis == 0 else x.dot(ones(n, x.dtype))
        if axis == 0 and x.flags.c_contiguous and x.shape[1] > 1:
            return _reduce_rows(_ADD, x)
    return reduce_array(xp, "sum", x, (axis,))


# ---------------------------------------------------------------------------- sums of products
#
# BLAS adds up thin products, of few rows or few columns, one after another. (Others it cuts into
# blocks by itself.) Long ones are cut into pieces, whose results are added as all sums are.
_THIN = 16  # rows or columns
_LONG, _PIECE = 1 << 13, 1 << 10  # values added for each result, and for each piece
# Two vectors have one result, for which BLAS keeps some 32 partial sums.
_LONG_VECTOR, _VECTOR_PIECE = 1 << 16, 1 << 15


def matrices(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Two arrays as matrices: views, the first a row and the second a column if a vector."""
    return x1[None, :] if x1.ndim == 1 else x1, x2[:, None] if x2.ndim == 1 else x2


def without_added_axes(y: Any, x1: Any, x2: Any) -> Any:
    """The product of what `matrices` made of ``x1`` and ``x2``, without the axes that it added."""
    if x1.ndim == 1:
        y = y[..., 0, :]
    return y[..., 0] if x2.ndim == 1 else y


def _is_long(x1: Any, x2: Any) -> bool:
    """True for arrays whose product needs to be cut."""
    k = x1.shape[-1]
    if k < _LONG or x1.dtype != x2.dtype or x1.dtype.kind not in "fc":
        return False
    if x1.ndim == x2.ndim == 1 and k < _LONG_VECTOR:
        return False
    if x1.ndim > 1 and x2.ndim > 1 and min(x1.shape[-2], x2.shape[-1]) >= _THIN:
        return False
    return bool(k == x2.shape[-2 if x2.ndim > 1 else 0])


def _product_in_pieces(x1: Any, x2: Any) -> Any:
    """The product of two arrays, of one or more axes, on the CPU."""
    left, right = map(_for_blas, matrices(x1, x2))
    k = left.shape[-1]
    piece = _PIECE if x1.ndim > 1 or x2.ndim > 1 else _VECTOR_PIECE
    rest = k % piece
    whole, pieces = k - rest, k // piece
    rows, columns = left[..., :whole], right[..., :whole, :]
    y = np.matmul(
        rows.reshape(*rows.shape[:-1], pieces, piece).swapaxes(-2, -3),
        columns.reshape(*columns.shape[:-2], pieces, piece, columns.shape[-1]),
    )
    y = reduce_array(np, "sum", y, (y.ndim - 3,))
    if rest:
        y += np.matmul(left[..., whole:], right[..., whole:, :])
    return without_added_axes(y, x1, x2)


def _for_blas(x: Any) -> Any:
    """Matrices that BLAS can read: `matmul`, unlike `dot`, does without it rather than copy."""
    steps = x.strides[-2:]
    return x if x.itemsize in steps and min(steps) > 0 else np.ascontiguousarray(x)


def array_dot(xp: Any, x1: Any, x2: Any) -> Any:
    """Array code: the product of vectors and matrices, quicker than `matmul` on small ones."""
    if x1.shape[-1] >= _LONG and xp is np and _is_long(x1, x2):
        return _product_in_pieces(x1, x2)
    return x1.dot(x2)


def stacked_matmul(xp: Any, x1: Any, x2: Any) -> Any:
    """Array code: the product of arrays of one or more axes."""
    if xp is np and _is_long(x1, x2):
        return _product_in_pieces(x1, x2)
    return xp.matmul(x1, x2)


# ------------------------------------------------------------------------------- variances


def mean_and_variance(
    xp: Any, x: Any, axis: Axes, keepdims: bool, correction: float = 0.0
) -> tuple[Any, Any]:
    """The mean over some axes, which stay with size 1, and ``Σ|x - mean|² / (n - correction)``.

    Without degrees of freedom the variance is infinite, or NaN.
    """
    axes = tuple(range(x.ndim)) if axis is None else axis
    count = count_of(x.shape, axes)
    mean = reduce_array(xp, "sum", x, axis, True) / count
    options = {"axis": axis, "keepdims": keepdims, "correction": correction}
    if xp is not np and ladder.accepts("reduction", "var", x, **options):
        return mean, ladder.run("reduction", "var", x, **options)
    squares = _sum_of_squares(xp, x, mean, count, axes)
    if not keepdims:
        squares = squares.reshape([n for i, n in enumerate(x.shape) if i not in axes])[()]
    return mean, squares / max(count - correction, 0)


def _sum_of_squares(xp: Any, x: Any, mean: Any, count: int, axes: tuple[int, ...]) -> Any:
    """``Σ|x - mean|²`` over axes, which stay with size 1.

    In two passes: ``E[x²] - E[x]²`` loses all digits where the mean is large beside the deviations.
    There the mean is rounded by as much as a deviation, too: what the deviations then add up to,
    instead of 0, corrects the squares [1]_.

    .. [1] Chan, Golub and LeVeque, Algorithms for computing the sample variance: analysis and
       recommendations, The American Statistician 37, 1983, equation 1.7.
    """
    squares = _in_pieces(xp, _squares, x, mean, axes)
    size = xp.abs(mean)
    if xp is np and not (size * size * count > squares * _FAR).any():
        return squares
    drift = xp.abs(_in_pieces(xp, _drift, x, mean, axes))
    # Rounding could leave less than the 0 of equal values.
    return xp.maximum(squares - drift * drift / count, 0)


# Squares of the mean over the variance, up to which its rounding costs the variance no digit.
_FAR = 1 << 18
_SLAB = 1 << 17  # elements processed at a time, so that temporaries stay in the cache


def _drift(xp: Any, x: Any, mean: Any, axes: tuple[int, ...]) -> Any:
    return reduce_array(xp, "sum", x - mean, axes, True)


def _squares(xp: Any, x: Any, mean: Any, axes: tuple[int, ...]) -> Any:
    d = x - mean
    if d.dtype.kind == "c":
        d = xp.abs(d)
    if xp is np and len(axes) == d.ndim and d.flags.c_contiguous:
        flat = d.reshape(-1)
        return np.asarray(array_dot(np, flat, flat)).reshape((1,) * d.ndim)
    d *= d
    return reduce_array(xp, "sum", d, axes, True)


def _in_pieces(xp: Any, f: Callable[..., Any], x: Any, mean: Any, axes: tuple[int, ...]) -> Any:
    """The sum over axes, which stay with size 1, of what ``f`` finds of each slab."""
    if xp is not np or x.size <= 2 * _SLAB:
        return f(xp, x, mean, axes)
    at = max(range(x.ndim), key=lambda i: abs(x.strides[i]) if x.shape[i] > 1 else -1)
    step = max(1, _SLAB * x.shape[at] // x.size)
    here = (slice(None),) * at
    parts = []
    for start in range(0, x.shape[at], step):
        slab = (*here, slice(start, start + step))
        parts.append(f(xp, x[slab], mean if at in axes else mean[slab], axes))
    y = np.concatenate(parts, at)
    return reduce_array(xp, "sum", y, (at,), True) if at in axes else y
