"""Indexing: reading and writing with ints, slices, ellipsis, None, masks and integer tensors.

A basic index (ints, slices, ``...``, None) gives a view; an index with a mask or an integer tensor
gives a copy. Writing goes through the same two: into the view, or into the chosen places.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.autograd.modes import mode
from gradlab.devices import cpu
from gradlab.errors import AxisError, DTypeError, ShapeError, message
from gradlab.kernels.cuda import scatter as cuda
from gradlab.kernels.cuda.driver import current
from gradlab.ops.core import (
    VIEW,
    Kernel,
    Op,
    apply,
    apply_,
    check_writable,
    in_float32,
    mark_written,
    mixed_devices,
    needs_record,
    public,
    read_only,
    rebase,
    spread,
)
from gradlab.ops.elementwise import COPY, where
from gradlab.ops.embedding import add_in_order
from gradlab.ops.samples import Sample, values
from gradlab.ops.shape import broadcast_tensors, canonical_axis
from gradlab.tensor import Tensor, describe, from_value, value_for

# ------------------------------------------------------------------------- the kinds of index


def _prepare(x: Tensor, index: Any) -> tuple[Any, bool]:
    """Return the index with arrays for tensors, and whether it is basic (gives a view)."""
    if index.__class__ in (int, slice):
        return index, True
    items = index if isinstance(index, tuple) else (index,)
    basic = True
    prepared = []
    for item in items:
        if item is None or item is Ellipsis or isinstance(item, slice):
            prepared.append(_prepare_slice(item))
        elif isinstance(item, bool | np.bool_):
            prepared.append(np.bool_(item))
            basic = False
        elif isinstance(item, int | np.integer):
            prepared.append(int(item))
        else:
            array = _index_array(x, item)
            if array.ndim == 0 and array.dtype.kind in "iu":
                prepared.append(int(x.device.backend.to_host(array)))
            else:
                prepared.append(array)
                basic = False
    return tuple(prepared), basic


def _prepare_slice(item: Any) -> Any:
    if not isinstance(item, slice):
        return item
    _check_slice(item)
    parts = (item.start, item.stop, item.step)
    return slice(*(part if part is None else part.__index__() for part in parts))


def _check_slice(item: slice) -> None:
    for part in (item.start, item.stop, item.step):
        if part is not None and not hasattr(part, "__index__"):
            got = repr(part)
            raise DTypeError(message("indexing", expected="slices of integers", got=got))
    if item.step is not None and item.step.__index__() == 0:
        raise AxisError("indexing: expected a slice step other than 0, got 0")


def _index_array(x: Tensor, item: Any) -> Any:
    made = from_value(item, x.device, operation="indexing", move=True)
    if made.dtype.kind not in "iub":
        empty = made.numel() == 0 and not isinstance(item, Tensor)
        if empty:  # x[[]] selects nothing
            return made.astype(np.int64)._array
        raise DTypeError(
            message(
                "indexing",
                expected="integers, slices, ..., None, or integer and bool tensors",
                got=f"{made.dtype.name} {made.shape}",
                hint="cast it with .astype(gradlab.int64)",
            )
        )
    return made._array


def _explain_index(x: Tensor, index: Any, **_: Any) -> None:
    """Raise the clear error for an index that NumPy refused."""
    items = index if isinstance(index, tuple) else (index,)
    _check_form(items)
    consumed = sum(
        item.ndim if getattr(item, "dtype", None) == np.bool_ else 1
        for item in items
        if item is not None and item is not Ellipsis
    )
    if consumed > x.ndim:
        raise AxisError(
            message(
                "indexing",
                expected=f"at most {x.ndim} indices for shape {x.shape}",
                got=str(consumed),
            )
        )
    axis = 0
    for item in items:
        if item is Ellipsis:
            axis = x.ndim - (consumed - axis)
            continue
        if item is None:
            continue
        axis += _explain_item(x, item, axis)
    arrays = [item.shape for item in items if hasattr(item, "shape") and item.dtype != np.bool_]
    try:
        np.broadcast_shapes(*arrays)
    except ValueError:
        got = " and ".join(map(str, arrays))
        raise ShapeError(
            message("indexing", expected="index tensors that broadcast", got=got)
        ) from None


def _check_form(items: tuple[Any, ...]) -> None:
    for item in items:
        if isinstance(item, slice):
            _check_slice(item)
    count = sum(item is Ellipsis for item in items)
    if count > 1:
        raise AxisError(message("indexing", expected="at most one ellipsis", got=str(count)))


def _explain_item(x: Tensor, item: Any, axis: int) -> int:
    """Check one index against its axis; return how many axes it consumes."""
    size = x.shape[axis]
    if getattr(item, "dtype", None) == np.bool_ and item.ndim:
        if item.shape != x.shape[axis : axis + item.ndim]:
            raise ShapeError(
                message(
                    "indexing",
                    expected=f"a mask of shape {x.shape[axis : axis + item.ndim]}",
                    got=str(item.shape),
                )
            )
        return int(item.ndim)
    if not isinstance(item, slice):
        on_host = isinstance(item, int | np.generic | np.ndarray)
        numbers = np.atleast_1d(item if on_host else x.device.backend.to_host(item))
        bad = numbers[(numbers < -size) | (numbers >= size)]
        if bad.size:
            raise AxisError(
                message(
                    "indexing",
                    expected=f"an index from {-size} to {size - 1} for axis {axis}",
                    got=f"{bad.flat[0]} (shape {x.shape})",
                )
            )
    return 1


# ------------------------------------------------------------------------------------ reading


def _as_view(index: Any) -> Any:
    # With an ellipsis NumPy gives a view of no axes where it would give a scalar.
    if not isinstance(index, tuple):
        return (index, Ellipsis)
    return index if any(item is Ellipsis for item in index) else (*index, Ellipsis)


def _slice_samples() -> Any:
    yield Sample((values((3, 4)), (1,)), name="row")
    yield Sample((values((3, 4)), (slice(None), slice(None, None, 2))), name="step")
    yield Sample((values((3, 4)), (Ellipsis, None, -1)), name="ellipsis and None")
    yield Sample((values((3, 4)), (slice(None, None, -1),)), name="backwards")
    yield Sample((values(5), 2), name="one element")


SLICE = Op(
    "slice",
    lambda xp, x, *, index: x[_as_view(index)],
    view=True,
    part=VIEW,
    check=_explain_index,
    samples=_slice_samples,
)


def _index_samples() -> Any:
    x = values((3, 4))
    yield Sample((x, np.array([0, 2, 0])), name="rows, one twice")
    yield Sample((x, x > 0), name="mask")
    yield Sample((x, (np.array([0, 1]), np.array([2, 2]))), name="pairs")
    yield Sample((x, (slice(None), np.array([[0], [3]]))), name="slice and indices")
    yield Sample((x, np.array([], dtype=np.int64)), name="nothing")


def _add_at(xp: Any, y: Any, index: Any, x: Any) -> None:
    """``y[index] += x``, every value counted, in a fixed order: ``xp.add.at`` of a GPU adds with
    atomics, whose order changes the sums from run to run."""
    if xp is not np and cuda.accepts(x):
        cuda.add_at(y, index, x)
        return
    found = _rows_at(y, index) if xp is np else None
    if found is None:
        xp.add.at(y, index, x)
        return
    places, shape, width = found
    x = np.broadcast_to(x, shape).reshape(-1, width)
    add_in_order(y.reshape(-1, width), places, x)


def _rows_at(y: np.ndarray, index: Any) -> tuple[np.ndarray, tuple[int, ...], int] | None:
    """For an index of integer arrays, or of one behind whole axes: the numbers of the rows it
    names when ``y`` is a matrix of rows, the shape of what it names, and the width of a row."""
    items = index if isinstance(index, tuple) else (index,)
    axis = 0
    while axis < len(items) and isinstance(items[axis], slice) and items[axis] == slice(None):
        axis += 1
    arrays = items[axis:]
    chosen = y.shape[axis : axis + len(arrays)]
    width = math.prod(y.shape[axis + len(arrays) :])
    plain = all(isinstance(each, np.ndarray) and each.dtype.kind in "iu" for each in arrays)
    if not (plain and arrays and width and y.flags.c_contiguous) or (axis and len(arrays) > 1):
        return None
    places: Any = 0
    for each, size in zip(arrays, chosen, strict=True):
        wide = each.astype(np.int64, copy=False)
        if wide.size and wide.min() < 0:
            wide = np.where(wide < 0, wide + size, wide)
        places = places * size + wide
    shape = (*y.shape[:axis], *places.shape, *y.shape[axis + len(arrays) :])
    if axis:
        starts = np.arange(0, math.prod(y.shape[: axis + 1]), chosen[0])
        places = starts[:, None] + places.reshape(-1)
    return places.reshape(-1), shape, width


INDEX = Op(
    "index",
    lambda xp, x, *, index: x[index],
    part=lambda xp, y, gy, *, index: _add_at(xp, y, index, gy),
    check=_explain_index,
    samples=_index_samples,
)


@public(None, "__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """Return ``x[index]``: a view for ints, slices, ``...`` and None; else a copy."""
    prepared, basic = _prepare(x, index)
    if basic:
        return apply(SLICE, (x,), {"index": prepared})
    if x._node is not None and mode.grad:
        prepared = _owned(x, prepared)
    return apply(INDEX, (x,), {"index": prepared})


def _owned(x: Tensor, index: Any) -> Any:
    """The index with copies of its arrays, which the user may write to before `backward`."""
    bind = x.device.backend.bind
    return tuple(bind(item.copy)() if hasattr(item, "copy") else item for item in index)


SLICE.function = INDEX.function = getitem

# ------------------------------------------------------------------------------------ writing


# A place may be written to several times. The last value stays, and the gradient with respect to
# the values is that of the result: what was written over gets 0. A GPU writes in any order, so
# there each write of a place brings the value that is to stay.


_ALL = slice(None)


def _last_writes(xp: Any, shape: tuple[int, ...], index: Any) -> tuple[Any, Any]:
    """The numbers of the writes that an index says, and that of the last to the same place."""
    kind = np.int64 if xp is np else np.uint64  # which every CuPy has a maximum.at for
    owner = xp.zeros(shape, kind)
    chosen = owner[index]
    numbers = xp.arange(chosen.size, dtype=kind).reshape(chosen.shape)
    if xp is np:
        owner[index] = numbers
    else:
        xp.maximum.at(owner, index, numbers)
    return numbers, owner[index]


def _survivors(xp: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Which writes stay, in a shape that broadcasts with what is written."""
    arrays = [i for i, item in enumerate(index) if not (type(item) is slice and item == _ALL)]
    if len(arrays) == 1 and hasattr(index[arrays[0]], "dtype"):  # whole slices, each by its number
        at = arrays[0]
        numbers, last = _last_writes(xp, shape[at : at + 1], (index[at],))
        return (numbers == last).reshape(*[1] * at, *numbers.shape, *[1] * (len(shape) - at - 1))
    numbers, last = _last_writes(xp, shape, index)
    return numbers == last


def _write(xp: Any, y: Any, index: Any, v: Any) -> None:
    """``y[index] = v`` of arrays, the last of several values staying."""
    if xp is not np and getattr(v, "size", 1) > 1 and _repeats(index):
        _, last = _last_writes(xp, y.shape, index)
        v = xp.broadcast_to(v, last.shape).reshape(-1)[last.astype(np.int64)]
    y[index] = v


def _repeats(index: Any) -> bool:
    """Whether an index may choose a place twice: one with integer arrays; a mask does not."""
    return any(getattr(item, "dtype", np.bool_) != np.bool_ for item in index)


# Which writes of x[index] = v stay.
SURVIVORS = Op(
    "survivors",
    lambda xp, x, *, index: _survivors(xp, x.shape, index),
    why_not="its result is bool",
)


def _written_gradient(gy: Tensor, index: Any) -> Tensor:
    g = apply(INDEX, (gy,), {"index": index})
    return where(apply(SURVIVORS, (gy,), {"index": index}), g, 0.0) if _repeats(index) else g


def _write_index_forward(xp: Any, x: Any, v: Any, *, index: Any) -> Any:
    y = x.copy()
    _write(xp, y, index, v)
    return y


# x with v at the chosen places: what a write with a mask or integer tensor means for gradients.
WRITE_INDEX = Op(
    "write_index",
    _write_index_forward,
    inputs=("x", "v"),
    gradients={
        "x": lambda gy, index: apply(WRITE_INDEX, (gy, 0.0), {"index": index}),
        "v": _written_gradient,
    },
    broadcasts=True,
    check=lambda x, v, index: _check_write(x, v, index),
)


@public(None, "__setitem__")
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """``x[index] = value``, keeping the object and its memory; ``value`` broadcasts and is cast.

    Where integer tensors choose a place more than once the last value stays (on a GPU, outside
    the graph, any of them), and the gradient of those written over is 0: for a number or a row
    that is broadcast a place counts once.
    """
    prepared, basic = _prepare(x, index)
    _assign(x, prepared, basic, value, "setitem")


@public(None, "index_put_")
def index_put_(
    x: Tensor, indices: tuple[Tensor, ...], values: Any, accumulate: bool = False
) -> Tensor:
    """In place: ``x[indices] = values``; with ``accumulate`` they are added, at each place all.

    Without it the last value for a place stays, and those written over have a gradient of 0.

    >>> gl.zeros(3).index_put_((gl.tensor([0, 0, 2]),), gl.ones(3), accumulate=True)
    tensor([2., 0., 1.])
    """
    if accumulate:
        added = value_for(x, values, "index_put_")
        index = tuple(indices)
        wide = added.astype(x.dtype, copy=False).broadcast_to(x[index].shape)
        return x.add_(spread(wide, INDEX, {"index": _prepare(x, index)[0]}, x.shape))
    setitem(x, tuple(indices), values)
    return x


_WHOLE = (Ellipsis,)


@public(None, "copy_")
def copy_(x: Tensor, source: Any) -> Tensor:
    """In place: take the values of ``source``, broadcast and cast to this shape and dtype.

    ``source`` may be on another device.
    """
    return _assign(x, _WHOLE, True, value_for(x, source, "copy_").to(x.device), "copy_")


@public(None, "fill_")
def fill_(x: Tensor, value: Any) -> Tensor:
    """In place: set every element to ``value``."""
    return _assign(x, _WHOLE, True, value, "fill_")


@public(None, "zero_")
def zero_(x: Tensor) -> Tensor:
    """In place: set every element to 0."""
    return _assign(x, _WHOLE, True, 0, "zero_")


def _assign(x: Tensor, index: Any, basic: bool, value: Any, name: str) -> Tensor:
    v: Any = value
    if value.__class__ in (int, float, bool):
        if x.device is not cpu and dtypes.is_integer(x.dtype):  # CuPy would let it wrap around
            v = from_value(value, cpu, dtype=x.dtype, operation=name).item()
    else:
        v = value_for(x, value, name)
        if v.device is not x.device:
            if v.shape:
                raise mixed_devices(name, (x, v))
            v = v.to(x.device)
    if mode.grad:
        check_writable(x, name)
        if needs_record(x, (v,)):
            return _assign_recorded(x, index, basic, v, name)
    array = v._array if isinstance(v, Tensor) else v
    try:
        put = x.device.backend.bind(x._array.__setitem__)
        mode.run(put, _as_view(index) if basic else index, _cast(array, x.dtype))
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        if (refused := read_only(x, name, error)) is not error:
            raise refused from None
        raise _explain_write(x, index, v, name) from None
    mark_written(x, name)
    return x


def _cast(array: Any, dtype: Any) -> Any:
    # NumPy refuses to write a complex into a real place silently; everything else it casts.
    if getattr(array, "dtype", None) is not None and array.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError("a complex value does not fit a real dtype")
    return array


def _explain_write(x: Tensor, index: Any, v: Any, name: str = "setitem") -> Exception:
    """The clear error for a write that NumPy refused."""
    _explain_index(x, index)
    chosen = _chosen(x, index).shape
    shape = v.shape if isinstance(v, Tensor) else ()
    try:
        fits = np.broadcast_shapes(chosen, shape) == chosen
    except ValueError:
        fits = False
    if not fits:
        expected = f"a value that broadcasts to {chosen}"
        return ShapeError(message(name, expected=expected, got=str(shape)))
    expected = f"a value that fits {x.dtype.name}"
    return DTypeError(message(name, expected=expected, got=describe(v)))


def _chosen(x: Tensor, index: Any) -> Any:
    """What a prepared index chooses of the array."""
    return x.device.backend.bind(x._array.__getitem__)(index)


def _check_write(x: Tensor, v: Any, index: Any) -> None:
    raise _explain_write(x, index, v)


def _without_leading_ones(v: Tensor, ndim: int) -> Tensor:
    """NumPy lets a value have more axes than its place, if their size is 1."""
    extra = max(0, v.ndim - ndim)
    return v.reshape(v.shape[extra:]) if extra and set(v.shape[:extra]) == {1} else v


def _assign_recorded(x: Tensor, index: Any, basic: bool, v: Any, name: str) -> Tensor:
    v = v if isinstance(v, Tensor) else value_for(x, v, name)
    if v.is_complex() and not x.is_complex():
        raise _explain_write(x, index, v, name)
    if v.dtype != x.dtype:
        v = v.astype(x.dtype)
    if not basic:
        if v.ndim and v.shape[0] == 1:
            v = _without_leading_ones(v, _chosen(x, index).ndim)
        before = Tensor._wrap(x._array, x.device)
        before._node = x._node
        rebase(x, apply(WRITE_INDEX, (before, v), {"index": _owned(x, index)}), name)
        return x
    # Written through the view, whose history reaches x by itself.
    view = x if index == _WHOLE else apply(SLICE, (x,), {"index": index})
    try:
        apply_(COPY, view, (_without_leading_ones(v, view.ndim),), name=name)
    except ShapeError:
        raise _explain_write(x, index, v, name) from None
    return x


# ------------------------------------------------------------------- gather, scatter, and kin


def _gather_samples() -> Any:
    x = values((3, 4))
    yield Sample((x, 1, np.array([[0, 1], [3, 3], [2, 0]])), name="columns")
    yield Sample((x, 0, np.array([[2, 0, 1, 1]])), name="rows")


def _places_along(xp: Any, index: Any, axis: int) -> tuple[Any, ...]:
    """The index of each element, being ``index`` along ``axis`` and its own along the others."""
    places = list(xp.ogrid[tuple(slice(n) for n in index.shape)])
    places[axis] = index
    return tuple(places)


GATHER = Op(
    "gather",
    lambda xp, x, index, *, axis: x[_places_along(xp, index, axis)],
    inputs=("x", "index"),
    part=lambda xp, y, gy, index, *, axis: _add_at(xp, y, _places_along(xp, index, axis), gy),
    samples=_gather_samples,
)


@public(GATHER, "gather")
@accepts_dim
def gather(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return ``y[i][j] = x[i][index[i][j]]`` (for ``axis=1``): elements chosen along an axis.

    ``index`` is an integer tensor with as many axes as ``x``, not larger than
    ``x`` along the others.
    """
    at = canonical_axis("gather", axis, x.ndim)
    places = from_value(index, x.device, operation="gather")
    if not x.ndim and not places.ndim:
        return gather(x.reshape(1), 0, places.reshape(1)).reshape(())
    _check_places("gather", x, at, places)
    return apply(GATHER, (x, places), {"axis": at})


def _require_integers(operation: str, index: Tensor) -> None:
    if index.dtype.kind not in "iu":
        raise DTypeError(message(operation, expected="an integer index", got=index.dtype.name))


def _check_places(operation: str, x: Tensor, axis: int, index: Tensor) -> None:
    _require_integers(operation, index)
    if index.ndim != x.ndim or any(
        n > m for i, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if i != axis
    ):
        raise ShapeError(
            message(
                operation,
                expected=f"an index of {x.ndim} axes that fits within {x.shape}",
                got=str(index.shape),
            )
        )
    check_range(operation, index, x.shape[axis], axis)


def check_range(operation: str, index: Tensor, size: int, axis: int) -> None:
    """Refuse indices outside an axis; on a GPU this would wait for the values, so it is left to
    the kernel there."""
    if index.device.type != "cpu" or not index.numel():
        return
    low, high = int(index._array.min()), int(index._array.max())
    if low < -size or high >= size:
        raise AxisError(
            message(
                operation,
                expected=f"indices from {-size} to {size - 1} for axis {axis}",
                got=str(low if low < -size else high),
            )
        )


@public(None, "take_along_dim")
@accepts_dim
def take_along_axis(x: Tensor, indices: Tensor, axis: int = -1) -> Tensor:
    """The array API's `gather`: ``indices`` broadcasts against the other axes of ``x``."""
    at = canonical_axis("take_along_axis", axis, x.ndim)
    places = from_value(indices, x.device, operation="take_along_axis")
    if places.ndim != x.ndim:
        expected = f"indices of {x.ndim} axes, as x"
        raise ShapeError(message("take_along_axis", expected=expected, got=str(places.shape)))
    shape = tuple(n if i != at else places.shape[at] for i, n in enumerate(x.shape))
    return gather(x, at, places.broadcast_to(shape))


def _take_samples() -> Any:
    x = values((3, 4))
    yield Sample((x, np.array([2, 0, 2])), {"axis": 0}, "rows")
    yield Sample((x, np.array([[1, 3]])), {"axis": 1}, "a matrix of columns")
    yield Sample((x, np.array([11, 0])), name="flattened")


TAKE = Op(
    "take",
    lambda xp, x, index, *, axis: xp.take(x, index, axis=axis),
    inputs=("x", "index"),
    part=lambda xp, y, gy, index, *, axis: _add_at(xp, y, (slice(None),) * axis + (index,), gy),
    samples=_take_samples,
)


@public(TAKE, "take")
@accepts_dim
def take(x: Tensor, indices: Tensor, axis: int | None = None) -> Tensor:
    """Return the slices of ``x`` at ``indices`` along ``axis``; of the flattened ``x`` if None."""
    places = from_value(indices, x.device, operation="take")
    if places.dtype.kind not in "iu":
        raise DTypeError(message("take", expected="integer indices", got=places.dtype.name))
    if axis is None:
        x, axis = x.ravel(), 0
    at = canonical_axis("take", axis, x.ndim)
    check_range("take", places, x.shape[at], at)
    return apply(TAKE, (x, places), {"axis": at})


@public(None, "index_select")
@accepts_dim
def index_select(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """PyTorch's name of `take` along an axis."""
    return take(x, index, axis)


def _scatter_samples() -> Any:
    index = np.array([[0, 1], [3, 2], [2, 0]])
    yield Sample((values((3, 4)), 1, index, values((3, 2), seed=1)), name="columns")


def _scatter_forward(xp: Any, x: Any, index: Any, v: Any, *, axis: int, add: bool) -> Any:
    places = _places_along(xp, index, axis)
    if not add:
        y = x.copy()
        _write(xp, y, places, v)
        return y
    wide = dtypes.float32 if x.dtype in dtypes.HALVES else x.dtype
    y = x.astype(wide)  # a copy
    _add_at(xp, y, places, v.astype(wide, copy=False))
    return y.astype(x.dtype, copy=False)


def _scatter_cuda(x: Any, index: Any, v: Any, *, axis: int, add: bool) -> Any:
    y = x.copy("C")
    cuda.add_at(y, _places_along(current().xp, index, axis), v)
    return y


SCATTER = Op(
    "scatter",
    _scatter_forward,
    inputs=("x", "index", "v"),
    gradients={
        "x": lambda gy, index, axis, add: (
            gy
            if add
            else apply(SCATTER, (gy, index, _zeros(index, gy)), {"axis": axis, "add": False})
        ),
        "v": lambda gy, index, axis, add: _scattered_gradient(gy, index, axis, add),
    },
    kernels=[
        Kernel(
            "cuda",
            "scatter",
            lambda x, index, v, *, axis, add: add and cuda.accepts(x) and v.dtype == x.dtype,
            _scatter_cuda,
        )
    ],
    samples=_scatter_samples,
)


# Which writes of a scatter stay.
SCATTER_SURVIVORS = Op(
    "scatter_survivors",
    lambda xp, x, index, *, axis: _survivors(xp, x.shape, _places_along(xp, index, axis)),
    inputs=("x", "index"),
    why_not="its result is bool",
)


def _scattered_gradient(gy: Tensor, index: Tensor, axis: int, add: bool) -> Tensor:
    g = gather(gy, axis, index)
    return g if add else where(apply(SCATTER_SURVIVORS, (gy, index), {"axis": axis}), g, 0.0)


def _zeros(index: Tensor, like: Tensor) -> Tensor:
    return Tensor._wrap(like.device.xp.zeros(index.shape, like.dtype), like.device)


@public(SCATTER, "scatter")
@accepts_dim
def scatter(x: Tensor, axis: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """Return ``x`` with ``y[i][index[i][j]] = src[i][j]`` (for ``axis=1``).

    ``src`` may be a number, which PyTorch calls ``value``. Of several values for one place the last
    stays and gets the gradient; that of those written over is 0.

    >>> scatter(gl.zeros(2, 3), 1, gl.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return _scatter("scatter", x, axis, index, value if src is None else src, add=False)


@public(None, "scatter_add")
@accepts_dim
def scatter_add(x: Tensor, axis: int, index: Tensor, src: Any) -> Tensor:
    """Return ``x`` with ``src[i][j]`` added to ``y[i][index[i][j]]`` (for ``axis=1``)."""
    return _scatter("scatter_add", x, axis, index, src, add=True)


def _whole_slices(
    operation: str, x: Tensor, axis: int, index: Any, source: Any
) -> tuple[int, Tensor]:
    """The axis, and the vector of the numbers of slices along it that ``source`` is for."""
    at = canonical_axis(operation, axis, x.ndim)
    numbers = from_value(index, x.device, operation=operation)
    count = numbers.numel()
    shape = (*x.shape[:at], count, *x.shape[at + 1 :])
    if not x.ndim or numbers.ndim > 1 or source.shape != shape:
        raise ShapeError(
            message(
                operation,
                expected=f"a vector of indices and as many slices of shape {x.shape} on axis {at}",
                got=f"indices of shape {numbers.shape}, values of shape {source.shape}",
            )
        )
    _require_integers(operation, numbers)
    check_range(operation, numbers, x.shape[at], at)
    return at, numbers.reshape(-1)


@public(None, "index_add")
@accepts_dim
@in_float32
def index_add(x: Tensor, axis: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """Return ``x`` with ``alpha·source[j]`` added to its slice number ``index[j]`` along ``axis``.

    >>> index_add(gl.zeros(3), 0, gl.tensor([2, 2]), gl.tensor([1.0, 4.0]))
    tensor([0., 0., 5.])
    """
    at, numbers = _whole_slices("index_add", x, axis, index, source)
    scaled = (source if alpha == 1 else alpha * source).astype(x.dtype, copy=False)
    return x + spread(scaled, TAKE, {"axis": at}, x.shape, numbers)


@public(None, "index_copy")
@accepts_dim
def index_copy(x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    """Return ``x`` with ``source[j]`` in place of its slice number ``index[j]`` along ``axis``.

    Of several slices for one place the last stays and gets the gradient, as in `scatter`.

    >>> index_copy(gl.zeros(3), 0, gl.tensor([2, 0]), gl.tensor([1.0, 4.0]))
    tensor([4., 0., 1.])
    """
    at, numbers = _whole_slices("index_copy", x, axis, index, source)
    # One op: on a GPU ``x[index] = v`` does not say which of several slices stays.
    where_to = (_ALL,) * at + (numbers._array,)
    v = value_for(x, source, "index_copy").astype(x.dtype, copy=False)
    return apply(WRITE_INDEX, (x, v), {"index": _owned(x, where_to)})


@public(None, "index_fill")
@accepts_dim
def index_fill(x: Tensor, axis: int, index: Tensor, value: Any) -> Tensor:
    """Return ``x`` with ``value`` in its slices ``index`` along ``axis``.

    >>> index_fill(gl.ones(2, 3), 1, gl.tensor([0, 2]), -1)
    tensor([[-1.,  1., -1.],
            [-1.,  1., -1.]])
    """
    at = canonical_axis("index_fill", axis, x.ndim)
    places = from_value(index, x.device, operation="index_fill")
    y = x.clone()
    y[(slice(None),) * at + (places,)] = value
    return y


@public(None, "masked_scatter")
def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Return ``x`` with the first elements of ``source``, in order, where ``mask`` is true.

    >>> masked_scatter(gl.zeros(3), gl.tensor([True, False, True]), gl.tensor([1.0, 2.0, 3.0]))
    tensor([1., 0., 2.])
    """
    mask = mask.broadcast_to(x.shape)
    count = int(mask.count_nonzero())
    if source.numel() < count:
        expected = f"at least {count} values, one for each place of the mask"
        raise ShapeError(message("masked_scatter", expected=expected, got=str(source.numel())))
    y = x.clone()
    y[mask] = source.reshape(-1)[:count]
    return y


def _scatter(operation: str, x: Tensor, axis: int, index: Tensor, src: Any, add: bool) -> Tensor:
    at = canonical_axis(operation, axis, x.ndim)
    places = from_value(index, x.device, operation=operation)
    _check_places(operation, x, at, places)
    v = value_for(x, src, operation)
    if v.dtype != x.dtype:
        v = v.astype(x.dtype)
    if v.ndim and (v.ndim != x.ndim or any(map(operator.lt, v.shape, places.shape))):
        expected = f"values of at least the index's shape {places.shape}"
        raise ShapeError(message(operation, expected=expected, got=str(v.shape)))
    v = v.broadcast_to(places.shape) if v.ndim == 0 else v[tuple(slice(n) for n in places.shape)]
    return apply(SCATTER, (x, places, v), {"axis": at, "add": add})


@public(None, "masked_select")
def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """Return the elements where ``mask`` is true, in one axis."""
    if mask.dtype != dtypes.bool_:
        raise DTypeError(message("masked_select", expected="a bool mask", got=mask.dtype.name))
    wide, chosen = broadcast_tensors(x, mask)
    return wide[chosen]


def _nonzero_samples() -> Any:
    yield Sample((np.where(values((3, 4)) > 0, values((3, 4)), 0.0),), name="matrix")
    yield Sample((np.zeros((2, 3)),), name="no true element")
    yield Sample((values((0, 3)),), name="empty")
    yield Sample((values(()),), name="scalar")


NONZERO = Op(
    "nonzero",
    lambda xp, x: (
        xp.stack(xp.nonzero(x), axis=1) if x.ndim else xp.zeros((int(bool(x)), 0), xp.int64)
    ),
    why_not="its result is integer",
    samples=_nonzero_samples,
)


@public(NONZERO, "nonzero", "argwhere")
def nonzero(x: Tensor, *, as_tuple: bool = False) -> Any:
    """Return the indices of the elements that are not 0, one row each.

    With ``as_tuple`` a tuple of index tensors, one per axis.
    """
    rows = apply(NONZERO, (x,))
    return rows.unbind(1) if as_tuple else rows


def _one_hot_forward(xp: Any, x: Any, *, num_classes: int) -> Any:
    return (x[..., None] == xp.arange(num_classes)).astype(dtypes.int64)


def _one_hot_samples() -> Any:
    yield Sample((np.array([[0, 2], [1, 0]]),), name="matrix")
    yield Sample((np.array([0, 2]), 5), name="number of classes given")
    yield Sample((np.array([], dtype=np.int64), 3), name="empty")


ONE_HOT = Op(
    "one_hot",
    _one_hot_forward,
    kinds="iu",
    why_not="its result is integer",
    samples=_one_hot_samples,
)


@public(ONE_HOT)
def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Return int64 rows with a 1 at each class; the number of classes is found if -1."""
    count = num_classes if num_classes >= 0 else int(x.max()) + 1
    low = int(x.min()) if x.numel() else 0
    if low < 0 or (x.numel() and int(x.max()) >= count):
        raise AxisError(
            message(
                "one_hot",
                expected=f"classes from 0 to {count - 1}",
                got=str(low if low < 0 else int(x.max())),
            )
        )
    return apply(ONE_HOT, (x,), {"num_classes": count})
