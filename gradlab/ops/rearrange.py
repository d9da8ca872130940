"""Tensors put together and taken apart in the ways that NumPy and PyTorch have names for.

All are made of the ops of `shape` and of indexing, whose gradients they have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.devices import DeviceLike, find_device
from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops import shape
from gradlab.ops.core import public, put_together
from gradlab.ops.indexing import SLICE, take
from gradlab.ops.shape import canonical_axes, canonical_axis
from gradlab.tensor import Tensor, require_parts


def _require_axes(operation: str, x: Tensor, count: int) -> None:
    if x.ndim < count:
        expected = f"at least {count} {'axis' if count == 1 else 'axes'}"
        raise ShapeError(message(operation, expected=expected, got=f"shape {x.shape}"))


@public(None, "fliplr")
def fliplr(x: Tensor) -> Tensor:
    """Return ``x`` with its columns, axis 1, in reverse order.

    >>> fliplr(gl.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    _require_axes("fliplr", x, 2)
    return shape.flip(x, 1)


@public(None, "flipud")
def flipud(x: Tensor) -> Tensor:
    """Return ``x`` with its rows, axis 0, in reverse order.

    >>> flipud(gl.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    _require_axes("flipud", x, 1)
    return shape.flip(x, 0)


@public(None, "rot90")
def rot90(x: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Return ``x`` turned ``k`` times by 90° in the plane of two axes, from first to second.

    >>> rot90(gl.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    axes = canonical_axes("rot90", dims, x.ndim)
    if len(axes) != 2:
        raise OptionError(message("rot90", expected="two axes", got=repr(dims)))
    first, second = axes
    if k % 4 == 1:
        return shape.transpose(shape.flip(x, second), first, second)
    if k % 4 == 2:
        return shape.flip(x, axes)
    return shape.flip(shape.transpose(x, first, second), second) if k % 4 == 3 else x.clone()


def _at_least(tensors: tuple[Any, ...], reshaped: Any) -> Any:
    several = len(tensors) != 1 or isinstance(tensors[0], tuple | list)
    given = tensors[0] if len(tensors) == 1 and several else tensors
    made = tuple(reshaped(x) for x in given)
    return made if several else made[0]


def atleast_1d(*tensors: Any) -> Any:
    """Return the tensor with one axis if it has none; of several tensors, a tuple.

    >>> atleast_1d(gl.tensor(2.0))
    tensor([2.])
    """
    return _at_least(tensors, lambda x: x if x.ndim else x.reshape(1))


def atleast_2d(*tensors: Any) -> Any:
    """Return the tensor with two axes if it has fewer, a vector as a row; of several, a tuple.

    >>> atleast_2d(gl.tensor([1.0, 2.0]))
    tensor([[1., 2.]])
    """
    return _at_least(tensors, lambda x: x if x.ndim > 1 else x.reshape(1, -1))


def _with_three_axes(x: Tensor) -> Tensor:
    return atleast_2d(x).unsqueeze(-1) if x.ndim < 3 else x


def atleast_3d(*tensors: Any) -> Any:
    """Return the tensor with three axes if it has fewer, a matrix (m, n) as (m, n, 1).

    >>> atleast_3d(gl.tensor([1.0, 2.0])).shape
    (1, 2, 1)
    """
    return _at_least(tensors, _with_three_axes)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along axis 1, vectors as columns.

    >>> column_stack([gl.tensor([1, 2]), gl.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    xs = shape.require_tensors("column_stack", tensors)
    return shape.cat([x if x.ndim > 1 else x.reshape(-1, 1) for x in xs], 1)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along axis 2, a vector (n,) as (1, n, 1), a matrix (m, n) as (m, n, 1).

    >>> dstack([gl.tensor([1, 2]), gl.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    xs = shape.require_tensors("dstack", tensors)
    return shape.cat([_with_three_axes(x) for x in xs], 2)


@public(None, "tensor_split")
@accepts_dim
def tensor_split(
    x: Tensor, indices_or_sections: int | Sequence[int], axis: int = 0
) -> tuple[Tensor, ...]:
    """Split along ``axis``: into so many parts, sizes one apart at most, or before these indices.

    >>> tensor_split(gl.tensor([1, 2, 3]), 2)
    (tensor([1, 2]), tensor([3]))
    >>> tensor_split(gl.tensor([1, 2, 3]), (1,))
    (tensor([1]), tensor([2, 3]))
    """
    at = canonical_axis("tensor_split", axis, x.ndim)
    size, given = x.shape[at], indices_or_sections
    if isinstance(given, int | np.integer):
        if given < 1:
            raise OptionError(message("tensor_split", expected="1 part or more", got=repr(given)))
        require_parts("tensor_split", x, int(given))
        each, longer = divmod(size, int(given))
        cuts = [each * i + min(i, longer) for i in range(1, int(given))]
    else:
        cuts = [int(index) for index in given]
    before = (slice(None),) * at
    bounds = itertools.pairwise([0, *cuts, size])
    return tuple(x[(*before, slice(start, stop))] for start, stop in bounds)


def _split_evenly(operation: str, x: Tensor, given: int | Sequence[int], axis: int) -> Any:
    if isinstance(given, int | np.integer) and x.shape[axis] % given:
        expected = f"a number of parts that divides axis {axis}, of size {x.shape[axis]}"
        raise ShapeError(message(operation, expected=expected, got=repr(given)))
    return tensor_split(x, given, axis)


@public(None, "hsplit")
def hsplit(x: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Split along axis 1, a vector along axis 0, into equal parts or before these indices.

    >>> hsplit(gl.tensor([1, 2, 3, 4]), 2)
    (tensor([1, 2]), tensor([3, 4]))
    """
    _require_axes("hsplit", x, 1)
    return _split_evenly("hsplit", x, indices_or_sections, min(x.ndim - 1, 1))


@public(None, "vsplit")
def vsplit(x: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Split along axis 0 into equal parts or before these indices.

    >>> vsplit(gl.tensor([[1, 2], [3, 4]]), 2)
    (tensor([[1, 2]]), tensor([[3, 4]]))
    """
    _require_axes("vsplit", x, 2)
    return _split_evenly("vsplit", x, indices_or_sections, 0)


@public(None, "unfold")
def unfold(x: Tensor, dimension: int, size: int, step: int = 1) -> Tensor:
    """Return the windows of ``size`` elements along an axis, ``step`` apart, on a new last axis.

    A copy, where PyTorch gives a view.

    >>> unfold(gl.tensor([1, 2, 3, 4, 5]), 0, 3, 2)
    tensor([[1, 2, 3],
            [3, 4, 5]])
    """
    at = canonical_axis("unfold", dimension, x.ndim)
    if not 1 <= size <= x.shape[at] or step < 1:
        expected = f"a size from 1 to {x.shape[at]} and a step of 1 or more"
        raise OptionError(message("unfold", expected=expected, got=f"{size} and {step}"))
    starts = np.arange(0, x.shape[at] - size + 1, step)
    places = Tensor(starts[:, None] + np.arange(size), dtype=dtypes.int64, device=x.device)
    windows = take(x, places.reshape(-1), at)
    return shape.movedim(windows.unflatten(at, places.shape), at + 1, -1)


@public(None, "kron")
def kron(x1: Tensor, x2: Tensor) -> Tensor:
    """Return the Kronecker product: each element of ``x1`` times the whole of ``x2``, in its place.

    >>> kron(gl.tensor([1, 10]), gl.tensor([1, 2]))
    tensor([ 1,  2, 10, 20])
    """
    count = max(x1.ndim, x2.ndim)
    a, b = (x.reshape((1,) * (count - x.ndim) + x.shape) for x in (x1, x2))
    spread = a.reshape([n for size in a.shape for n in (size, 1)])
    product = spread * b.reshape([n for size in b.shape for n in (1, size)])
    return product.reshape([m * n for m, n in zip(a.shape, b.shape, strict=True)])


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Return all combinations of one element of each vector, a row each, the last changing first.

    >>> cartesian_prod(gl.tensor([1, 2]), gl.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    if len(tensors) == 1:
        return tensors[0]
    return shape.stack([x.reshape(-1) for x in shape.meshgrid(*tensors, indexing="ij")], 1)


def combinations(x: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Return all choices of ``r`` elements of a vector, a row each, in the order of their places.

    >>> combinations(gl.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    if x.ndim != 1:
        raise ShapeError(message("combinations", expected="a vector", got=f"shape {x.shape}"))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(len(x)), r)), np.int64).reshape(-1, r)
    return take(x, Tensor(rows, dtype=dtypes.int64, device=x.device).reshape(-1), 0).reshape(-1, r)


def block_diag(*tensors: Tensor) -> Tensor:
    """Return the matrices along the diagonal of one matrix of zeros; a vector counts as a row.

    >>> block_diag(gl.tensor([[1, 2]]), gl.tensor([[3]]))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    blocks = [atleast_2d(x) for x in shape.require_tensors("block_diag", tensors)]
    if any(x.ndim > 2 for x in blocks):
        got = " and ".join(str(x.shape) for x in blocks)
        raise ShapeError(message("block_diag", expected="at most two axes", got=f"shapes {got}"))
    dtype = dtypes.result_type(*{x.dtype for x in blocks})
    places, down, right = [], 0, 0
    for x in blocks:
        height, width = x.shape
        index = (slice(down, down + height), slice(right, right + width))
        places.append({"index": index})
        down, right = down + height, right + width
    blocks = [x.astype(dtype, copy=False) for x in blocks]
    return put_together(blocks, SLICE, places, (down, right))


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """Return the shape that tensors of these shapes broadcast to.

    >>> broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        got = " and ".join(map(str, shapes))
        expected = "shapes that broadcast (equal sizes, or 1, counted from the last axis)"
        raise ShapeError(message("broadcast_shapes", expected=expected, got=got)) from None


def _triangle(rows: int, columns: int, keep: Any, dtype: Any, device: DeviceLike) -> Tensor:
    i, j = np.indices((rows, columns))
    places = np.stack(np.nonzero(keep(i, j)))
    where = find_device(device)
    return Tensor._wrap(where.backend.from_host(places.astype(dtypes.as_dtype(dtype))), where)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: DeviceLike = None
) -> Tensor:
    """Return the places of the lower triangle of a matrix, rows above, columns below: (2, n).

    >>> tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    return _triangle(row, col, lambda i, j: j <= i + offset, dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: DeviceLike = None
) -> Tensor:
    """Return the places of the upper triangle of a matrix, rows above, columns below: (2, n).

    >>> triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    return _triangle(row, col, lambda i, j: j >= i + offset, dtype, device)
