"""Shape ops: views with other axes, and joining or cutting tensors along an axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import renamed
from gradlab.errors import AxisError, OptionError, ShapeError, message
from gradlab.kernels.cuda import reduction as _reduction  # noqa: F401 - rungs
from gradlab.ops.core import (
    VIEW,
    VIEW_OF_CONTIGUOUS,
    Op,
    apply,
    device_shares,
    ladder_kernel,
    mixed_devices,
    public,
)
from gradlab.ops.reducing import reduce_array
from gradlab.ops.samples import Sample, values
from gradlab.tensor import Tensor, operand_beside, require_option, require_parts

Axis = int | Sequence[int] | None


def canonical_axis(operation: str, axis: Any, ndim: int) -> int:
    """Return ``axis`` counted from the front, or raise `AxisError` where it is out of range."""
    try:
        index = axis.__index__()
    except AttributeError:
        got = f"{axis!r} of type {type(axis).__name__}"
        raise AxisError(message(operation, expected="an integer axis", got=got)) from None
    size = ndim or 1  # as in PyTorch, a scalar tensor accepts axis 0 and -1
    if not -size <= index < size:
        raise AxisError(
            message(
                operation,
                expected=f"an axis from {-size} to {size - 1}, for a tensor of {_axes(ndim)}",
                got=str(index),
            )
        )
    return index % size


def _axes(count: int) -> str:
    return "1 axis" if count == 1 else f"{count} axes"


def canonical_axes(operation: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes counted from the front; None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    if not isinstance(axis, tuple | list):
        return (canonical_axis(operation, axis, ndim),) if ndim else _scalar(operation, axis)
    axes = tuple(canonical_axis(operation, each, ndim) for each in axis)
    if len(set(axes)) != len(axes):
        raise AxisError(message(operation, expected="different axes", got=str(tuple(axis))))
    return axes if ndim else ()


def _scalar(operation: str, axis: Any) -> tuple[int, ...]:
    canonical_axis(operation, axis, 0)
    return ()


def accepts_dim(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``dim`` and ``keepdim``, PyTorch's names, stand for ``axis`` and ``keepdims``."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            renamed(kwargs)
        return function(*args, **kwargs)

    call.__renames__ = function  # type: ignore[attr-defined]
    call.__accepts_dim__ = True  # type: ignore[attr-defined]
    return call


def _sizes(shape: tuple[Any, ...], operation: str = "shape") -> tuple[int, ...]:
    """Accept ``f(2, 3)`` and ``f((2, 3))`` alike."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    try:
        return tuple([size.__index__() for size in given])
    except AttributeError:
        got = str(tuple(given))
        raise ShapeError(message(operation, expected="integer sizes", got=got)) from None


def new_shape(operation: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of a tensor to be made, given as ``f(2, 3)`` or ``f((2, 3))``."""
    sizes = _sizes(shape, operation)
    if min(sizes, default=0) < 0:
        raise ShapeError(message(operation, expected="sizes of 0 or more", got=str(sizes)))
    return sizes


# -------------------------------------------------------------------------------------- views


def _reshape_samples() -> Any:
    yield Sample((values((3, 4)), (2, 6)), name="matrix")
    yield Sample((values((3, 4)).T, (2, -1)), name="transposed, which copies")
    yield Sample((values(()), (1, 1)), name="scalar")
    yield Sample((values((0, 3)), (3, 0)), name="empty")


RESHAPE = Op(
    "reshape",
    lambda xp, x, *, shape: x.reshape(shape),
    gradients={"x": lambda gy, x_shape: reshape(gy, x_shape)},
    view=True,
    part=VIEW_OF_CONTIGUOUS,
    samples=_reshape_samples,
)


@public(RESHAPE, "reshape")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """Return the elements in another shape; -1 for at most one size that follows from the rest.

    The memory is shared where the layout allows it, as for every contiguous tensor.

    >>> reshape(gl.tensor([1, 2, 3, 4]), (2, -1))
    tensor([[1, 2],
            [3, 4]])
    """
    wanted = _sizes(shape, "reshape")
    size = x.numel()
    known = math.prod(each for each in wanted if each != -1)
    fits = size == known if -1 not in wanted else known and size % known == 0
    if not fits or wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise ShapeError(
            message(
                "reshape",
                expected=f"a shape of {size} elements, as {x.shape}, with at most one -1",
                got=f"{wanted}",
            )
        )
    if -1 in wanted:
        wanted = tuple(size // known if each == -1 else each for each in wanted)
    return apply(RESHAPE, (x,), {"shape": wanted})


@public(None, "view")
def view(x: Tensor, *shape: Any) -> Tensor:
    """`reshape` that refuses to copy, as PyTorch's ``view``; a dtype reinterprets nothing."""
    y = reshape(x, *shape)
    if x.numel() and not device_shares(x, y):
        raise ShapeError(
            message(
                "view",
                expected="a layout that the new shape can look into without a copy",
                got=f"shape {x.shape} with strides {x.stride()}",
                hint="use reshape",
            )
        )
    return y


@public(None, "reshape_as", "view_as")
def reshape_as(x: Tensor, other: Tensor) -> Tensor:
    """Return the elements in the shape of ``other``."""
    return reshape(x, other.shape)


@public(None, "flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes from ``start_dim`` to ``end_dim`` into one."""
    start = canonical_axis("flatten", start_dim, x.ndim)
    end = canonical_axis("flatten", end_dim, x.ndim)
    if start > end:
        raise AxisError(f"flatten: expected start_dim <= end_dim, got {start_dim} and {end_dim}")
    joined = math.prod(x.shape[start : end + 1])
    return reshape(x, (*x.shape[:start], joined, *x.shape[end + 1 :]))


@public(None, "ravel")
def ravel(x: Tensor) -> Tensor:
    """Return the elements in one axis, sharing memory where the layout allows it."""
    return reshape(x, (x.numel(),))


@public(None, "unflatten")
def unflatten(x: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Split one axis into several of the given sizes (one may be -1)."""
    at = canonical_axis("unflatten", axis, x.ndim)
    known = math.prod(size for size in sizes if size != -1)
    full = [x.shape[at] // known if size == -1 and known else size for size in sizes]
    if math.prod(full) != x.shape[at] or list(sizes).count(-1) > 1:
        expected = f"sizes whose product is {x.shape[at]}, the size of axis {at}"
        raise ShapeError(message("unflatten", expected=expected, got=str(tuple(sizes))))
    return reshape(x, (*x.shape[:at], *full, *x.shape[at + 1 :]))


def _permute_samples() -> Any:
    yield Sample((values((2, 3, 4)), (2, 0, 1)), name="three axes")
    yield Sample((values((3, 4)), (1, 0)), name="matrix")


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


PERMUTE = Op(
    "permute",
    lambda xp, x, *, axes: x.transpose(axes),
    gradients={"x": lambda gy, axes: apply(PERMUTE, (gy,), {"axes": _inverse(axes)})},
    view=True,
    part=VIEW,
    samples=_permute_samples,
)


@public(PERMUTE, "permute")
def permute(x: Tensor, *axes: Any) -> Tensor:
    """Return a view whose axis ``i`` is axis ``axes[i]`` of ``x``."""
    wanted = canonical_axes("permute", _sizes(axes, "permute"), x.ndim)
    if len(wanted) != x.ndim:
        raise AxisError(
            message("permute", expected=f"each of the {x.ndim} axes once", got=str(_sizes(axes)))
        )
    return apply(PERMUTE, (x,), {"axes": wanted})


def permute_dims(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The array API's name of `permute`."""
    return permute(x, tuple(axes))


@public(None, "transpose", "swapaxes")
def transpose(x: Tensor, axis0: int, axis1: int) -> Tensor:
    """Return a view with two axes exchanged."""
    axes = list(range(x.ndim))
    if not axes:
        return x
    i, j = (canonical_axis("transpose", axis, x.ndim) for axis in (axis0, axis1))
    axes[i], axes[j] = axes[j], axes[i]
    return apply(PERMUTE, (x,), {"axes": tuple(axes)})


swapaxes = transpose


@public(None, "t")
def t(x: Tensor) -> Tensor:
    """Return the transposed matrix; a vector or scalar as it is."""
    if x.ndim > 2:
        raise ShapeError(message("t", expected="at most two axes", got=f"shape {x.shape}"))
    return x if x.ndim < 2 else apply(PERMUTE, (x,), {"axes": (1, 0)})


def _reversed_axes(x: Tensor) -> Tensor:
    """The tensor with its axes in reverse order."""
    return apply(PERMUTE, (x,), {"axes": tuple(range(x.ndim))[::-1]})


def matrix_transpose(x: Tensor) -> Tensor:
    """Return a view with the last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(message("mT", expected="at least two axes", got=f"shape {x.shape}"))
    return transpose(x, -2, -1)


Tensor._add_method("T", property(_reversed_axes))
Tensor._add_method("mT", property(matrix_transpose, doc=matrix_transpose.__doc__))


@public(None, "movedim", "moveaxis")
def movedim(x: Tensor, source: Any, destination: Any) -> Tensor:
    """Return a view with the axes ``source`` moved to the places ``destination``."""
    sources = canonical_axes("movedim", source, x.ndim)
    places = canonical_axes("movedim", destination, x.ndim)
    if len(sources) != len(places):
        raise AxisError(
            message("movedim", expected="as many destinations as sources", got=str(destination))
        )
    axes = [axis for axis in range(x.ndim) if axis not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        axes.insert(place, axis)
    return apply(PERMUTE, (x,), {"axes": tuple(axes)})


moveaxis = movedim


@public(None, "squeeze")
@accepts_dim
def squeeze(x: Tensor, axis: Axis = None) -> Tensor:
    """Return ``x`` without its axes of size 1, or without those of ``axis`` that have size 1."""
    axes = canonical_axes("squeeze", axis, x.ndim)
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes or n != 1))


@public(None, "unsqueeze")
@accepts_dim
def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """Return ``x`` with a new axis of size 1 at ``axis``."""
    at = canonical_axis("unsqueeze", axis, x.ndim + 1)
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def expand_dims(x: Tensor, axis: int = 0) -> Tensor:
    """The array API's name of `unsqueeze`."""
    return unsqueeze(x, axis)


def _expand_samples() -> Any:
    yield Sample((values((3, 1)), (2, 3, 4)), name="new and stretched axes")
    yield Sample((values(()), (2, 2)), name="scalar")


EXPAND = Op(
    "expand",
    lambda xp, x, *, shape: xp.broadcast_to(x, shape),
    gradients={"x": lambda gy, x_shape: sum_to(gy, x_shape)},
    view=True,
    samples=_expand_samples,
)


@public(EXPAND, "expand")
def expand(x: Tensor, *shape: Any) -> Tensor:
    """Return a view stretched to ``shape``; -1 keeps a size. It cannot be written to."""
    wanted = _sizes(shape, "expand")
    offset = len(wanted) - x.ndim
    full = tuple(
        x.shape[i - offset] if size == -1 and i >= offset else size for i, size in enumerate(wanted)
    )
    fits = offset >= 0 and all(
        have in (1, want) for have, want in zip(x.shape, full[offset:], strict=True)
    )
    if not fits or min(full, default=0) < 0:
        raise ShapeError(
            message(
                "expand",
                expected=f"a shape that {x.shape} broadcasts to",
                got=str(wanted),
            )
        )
    return apply(EXPAND, (x,), {"shape": full})


@public(None, "broadcast_to")
def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a view stretched to ``shape``."""
    return expand(x, tuple(shape))


@public(None, "expand_as")
def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """Return a view stretched to the shape of ``other``."""
    return expand(x, other.shape)


def broadcast_tensors(*tensors: Tensor) -> list[Tensor]:
    """Return views of the tensors, all stretched to their common shape."""
    try:
        shape = np.broadcast_shapes(*(x.shape for x in tensors))
    except ValueError:
        shapes = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(
            message("broadcast_tensors", expected="shapes that broadcast", got=shapes)
        ) from None
    return [expand(x, shape) for x in tensors]


def _sum_to_samples() -> Any:
    yield Sample((values((2, 3, 4)),), {"shape": (3, 1)}, "leading and inner axes")
    yield Sample((values((3, 4)),), {"shape": ()}, "to a scalar")


def _sum_to_forward(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    extra = x.ndim - len(shape)
    stretched = tuple(
        i + extra for i, size in enumerate(shape) if size == 1 and x.shape[i + extra] != 1
    )
    return reduce_array(xp, "sum", x, (*range(extra), *stretched)).reshape(shape)


SUM_TO = Op(
    "sum_to",
    _sum_to_forward,
    gradients={"x": lambda gy, x_shape: apply(EXPAND, (gy,), {"shape": x_shape})},
    halves=True,
    check=lambda x, shape: _check_sum_to(x, shape),
    samples=_sum_to_samples,
    kernels=[ladder_kernel("reduction", "sum_to")],
)


@public(SUM_TO, "sum_to", "sum_to_size")
def sum_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``x`` summed to ``shape``: what undoes a broadcast in the backward pass."""
    wanted = tuple(shape)
    return x if x.shape == wanted else apply(SUM_TO, (x,), {"shape": wanted})


def _check_sum_to(x: Tensor, shape: tuple[int, ...]) -> None:
    expected = f"a shape that broadcasts to {x.shape}"
    raise ShapeError(message("sum_to", expected=expected, got=str(shape)))


def _flip_samples() -> Any:
    yield Sample((values((3, 4)),), {"axis": 0}, "rows")
    yield Sample((values((3, 4)),), {"axis": (0, 1)}, "both")


FLIP = Op(
    "flip",
    lambda xp, x, *, axis: xp.flip(x, axis).copy(),
    gradients={"x": lambda gy, axis: flip(gy, axis)},
    samples=_flip_samples,
)


@public(FLIP, "flip")
@accepts_dim
def flip(x: Tensor, axis: Axis = None) -> Tensor:
    """Return a copy with the order along ``axis`` (all, if None) reversed.

    >>> flip(gl.tensor([1, 2, 3]), axis=0)
    tensor([3, 2, 1])
    """
    return apply(FLIP, (x,), {"axis": canonical_axes("flip", axis, x.ndim)})


def _roll_samples() -> Any:
    yield Sample((values((3, 4)),), {"shift": 1, "axis": 1}, "columns")
    yield Sample((values((3, 4)),), {"shift": 5}, "flattened")


ROLL = Op(
    "roll",
    lambda xp, x, *, shift, axis: xp.roll(x, shift, axis),
    gradients={"x": lambda gy, shift, axis: roll(gy, _opposite(shift), axis)},
    samples=_roll_samples,
)


def _opposite(shift: Any) -> Any:
    return tuple(-each for each in shift) if isinstance(shift, tuple) else -shift


@public(ROLL, "roll")
@accepts_dim
def roll(x: Tensor, shift: Any, axis: Axis = None) -> Tensor:
    """Return ``x`` with its elements moved ``shift`` places along ``axis``, coming round again."""
    where = None if axis is None else canonical_axes("roll", axis, x.ndim)
    steps = _sizes((shift,), "roll")
    if len(steps) != (1 if where is None else len(where)):
        got = f"shift {shift} and axis {axis}"
        raise OptionError(message("roll", expected="as many shifts as axes", got=got))
    return apply(ROLL, (x,), {"shift": steps[0] if where is None else steps, "axis": where})


def tile(x: Tensor, *repeats: Any) -> Tensor:
    """Return ``x`` repeated as a whole ``repeats[i]`` times along axis ``i``."""
    times = _sizes(repeats, "tile")
    if min(times, default=0) < 0:
        raise ShapeError(message("tile", expected="0 repeats or more", got=str(times)))
    ndim = max(len(times), x.ndim)
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - x.ndim) + x.shape
    pairs = tuple(size for pair in zip(times, shape, strict=True) for size in pair)
    inner = reshape(x, tuple(size for n in shape for size in (1, n)))
    total = tuple(a * b for a, b in zip(times, shape, strict=True))
    return reshape(expand(inner, pairs), total)


Tensor._add_method("tile", tile)
Tensor._add_method("repeat", tile)


@public(None, "repeat_interleave")
@accepts_dim
def repeat_interleave(x: Tensor, repeats: Any, axis: int | None = None) -> Tensor:
    """Return ``x`` with each element repeated ``repeats`` times in place along ``axis``."""
    if axis is None:
        x, axis = ravel(x), 0
    at = canonical_axis("repeat_interleave", axis, x.ndim)
    if not isinstance(repeats, int) or repeats < 0:
        got = repr(repeats)
        raise OptionError(message("repeat_interleave", expected="0 repeats or more", got=got))
    stretched = expand(unsqueeze(x, at + 1), (*x.shape[: at + 1], repeats, *x.shape[at + 1 :]))
    return reshape(stretched, (*x.shape[:at], x.shape[at] * repeats, *x.shape[at + 1 :]))


# ------------------------------------------------------------------------------- join and cut


def _cat_samples() -> Any:
    a, b = values((2, 3)), values((4, 3), seed=1)
    yield Sample(([a, b],), {"axis": 0}, "rows")
    yield Sample(([a.T, b.T],), {"axis": -1}, "last axis")
    yield Sample(([a],), {"axis": 1}, "one tensor")


def _one_dtype(xs: Sequence[Any]) -> Sequence[Any]:
    found = {x.dtype for x in xs}
    if len(found) == 1:
        return xs
    dtype = dtypes.result_type(*found)
    return [x.astype(dtype, copy=False) for x in xs]


def _cat_forward(xp: Any, *xs: Any, axis: int, ends: tuple[int, ...]) -> Any:
    return xp.concatenate(_one_dtype(xs), axis=axis)


def _cat_gradient(gy: Tensor, i: int, axis: int, ends: tuple[int, ...]) -> Tensor:
    return gy[(slice(None),) * axis + (slice(ends[i - 1] if i else 0, ends[i]),)]


def _cat_backward(
    xp: Any, gy: Any, *, needs: Sequence[bool], axis: int, ends: tuple[int, ...]
) -> Any:
    before = (slice(None),) * axis
    pairs = zip((0, *ends[:-1]), ends, needs, strict=True)
    return tuple(gy[(*before, slice(start, end))] if need else None for start, end, need in pairs)


CAT = Op(
    "cat",
    _cat_forward,
    inputs=("*xs",),
    gradients={"*": _cat_gradient},
    fused=Op("cat_backward", _cat_backward, inputs=("gy",)),
    samples=_cat_samples,
)


@public(CAT)
@accepts_dim
def cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along an axis they have; all other sizes must agree.

    >>> cat([gl.tensor([1, 2]), gl.tensor([3])])
    tensor([1, 2, 3])
    """
    xs = require_tensors("cat", tensors)
    at = canonical_axis("cat", axis, xs[0].ndim)
    if xs[0].ndim == 0:
        raise ShapeError("cat: expected tensors with an axis, got scalars; use stack")
    rests = {(len(shape), shape[:at] + shape[at + 1 :]) for shape in {x.shape for x in xs}}
    if len(rests) > 1:
        raise ShapeError(
            message(
                "cat",
                expected=f"shapes that agree everywhere but at axis {at}",
                got=" and ".join(str(x.shape) for x in xs),
            )
        )
    ends = tuple(itertools.accumulate([x._array.shape[at] for x in xs]))
    return apply(CAT, xs, {"axis": at, "ends": ends})


concat = concatenate = cat


def require_tensors(operation: str, tensors: Any) -> tuple[Tensor, ...]:
    """A list of tensors on one device, with arrays in it made tensors; refuse anything else."""
    if isinstance(tensors, Tensor):
        raise OptionError(
            message(
                operation,
                expected="a list of tensors",
                got=f"a tensor of shape {tensors.shape}",
                hint=f"put the tensors in a list: {operation}([a, b])",
            )
        )
    given = tuple(tensors) if isinstance(tensors, list | tuple) else None
    if not given:
        raise OptionError(message(operation, expected="a list of tensors", got=repr(tensors)))
    first = next((x for x in given if isinstance(x, Tensor)), None)
    if first is None:
        raise OptionError(message(operation, expected="a list of tensors", got=repr(tensors)))
    xs = tuple(x if x.__class__ is Tensor else operand_beside(first, x, operation) for x in given)
    if any(x.device is not first.device for x in xs):
        raise mixed_devices(operation, xs)
    return xs


def _stack_samples() -> Any:
    a, b, c = (values((2, 3), seed=seed) for seed in range(3))
    yield Sample(([a, b, c],), {"axis": 0}, "in front")
    yield Sample(([a.T, b.T],), {"axis": 1}, "between")
    yield Sample(([a, b],), {"axis": -1}, "behind")
    yield Sample(([values(()), values((), seed=1)],), {}, "scalars")


def _stack_forward(xp: Any, *xs: Any, axis: int) -> Any:
    # One array from one call: a view with a new axis for each would take ten times as long.
    shape = xs[0].shape
    if axis == len(shape):
        xs = tuple(x[..., None] for x in xs)
    joined = xp.concatenate(_one_dtype(xs), axis=axis)
    return joined.reshape((*shape[:axis], len(xs), *shape[axis:]))


def _stack_gradient(gy: Tensor, i: int, axis: int) -> Tensor:
    return gy[(slice(None),) * axis + (i,)]


def _stack_backward(xp: Any, gy: Any, *, needs: Sequence[bool], axis: int) -> Any:
    return tuple(
        each if need else None for each, need in zip(xp.moveaxis(gy, axis, 0), needs, strict=True)
    )


STACK = Op(
    "stack",
    _stack_forward,
    inputs=("*xs",),
    gradients={"*": _stack_gradient},
    fused=Op("stack_backward", _stack_backward, inputs=("gy",)),
    samples=_stack_samples,
)


@public(STACK)
@accepts_dim
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis.

    >>> stack([gl.tensor([1, 2]), gl.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    xs = require_tensors("stack", tensors)
    if len({x.shape for x in xs}) > 1:
        got = " and ".join(str(x.shape) for x in xs)
        raise ShapeError(message("stack", expected="tensors of one shape", got=got))
    at = canonical_axis("stack", axis, xs[0].ndim + 1)
    return apply(STACK, xs, {"axis": at})


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along the second axis (the first, for vectors)."""
    xs = [x if x.ndim else reshape(x, (1,)) for x in require_tensors("hstack", tensors)]
    return cat(xs, 0 if xs[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along the first axis, vectors as rows."""
    return cat(
        [reshape(x, (1, -1)) if x.ndim < 2 else x for x in require_tensors("vstack", tensors)], 0
    )


@public(None, "narrow")
def narrow(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """Return the view of ``length`` elements from ``start`` along ``axis``."""
    at = canonical_axis("narrow", axis, x.ndim)
    if start < 0 or start + length > x.shape[at]:
        raise AxisError(
            message(
                "narrow",
                expected=f"a range within the {x.shape[at]} elements of axis {at}",
                got=f"start {start} and length {length}",
            )
        )
    return x[(slice(None),) * at + (slice(start, start + length),)]


@public(None, "split")
@accepts_dim
def split(x: Tensor, split_size: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Cut ``x`` along ``axis`` into views of ``split_size`` (the last may be smaller), or of the
    sizes given as a list.

    >>> split(gl.tensor([1, 2, 3]), 2)
    (tensor([1, 2]), tensor([3]))
    """
    at = canonical_axis("split", axis, x.ndim)
    size = x.shape[at]
    if isinstance(split_size, int):
        if split_size < 1:
            raise OptionError(message("split", expected="a size of 1 or more", got=str(split_size)))
        require_parts("split", x, -(-size // split_size))
        sizes = [min(split_size, size - i) for i in range(0, size, split_size)] or [0]
    else:
        sizes = list(split_size)
    if sum(sizes) != size:
        raise ShapeError(
            message(
                "split",
                expected=f"sizes that add up to {size}, the size of axis {at}",
                got=f"{sizes}",
            )
        )
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return tuple(narrow(x, at, start, n) for start, n in zip(starts, sizes, strict=True))


@public(None, "chunk")
@accepts_dim
def chunk(x: Tensor, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """Cut ``x`` along ``axis`` into at most ``chunks`` views of equal size (the last smaller)."""
    at = canonical_axis("chunk", axis, x.ndim)
    if chunks < 1:
        raise OptionError(message("chunk", expected="1 chunk or more", got=str(chunks)))
    return split(x, max(1, -(-x.shape[at] // chunks)), at)


@public(None, "unbind")
@accepts_dim
def unbind(x: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    """Return the slices along ``axis``, without that axis."""
    at = canonical_axis("unbind", axis, x.ndim)
    if at == 0 and x.ndim:
        return tuple(x)
    require_parts("unbind", x, x.shape[at])
    return tuple(x[(slice(None),) * at + (i,)] for i in range(x.shape[at]))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Return the coordinates of the grid spanned by vectors, one tensor per axis.

    The vectors are given one by one or as one sequence.
    """
    require_option("meshgrid", "indexing", indexing, ("ij", "xy"))
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    for x in tensors:
        if x.ndim > 1:
            raise ShapeError(message("meshgrid", expected="vectors", got=f"shape {x.shape}"))
    n = len(tensors)
    shaped = [reshape(x, (1,) * i + (-1,) + (1,) * (n - 1 - i)) for i, x in enumerate(tensors)]
    grids = broadcast_tensors(*shaped)
    return tuple(transpose(g, 0, 1) if indexing == "xy" and n > 1 else g for g in grids)


def _tri_samples() -> Any:
    yield Sample((values((3, 4)),), {"diagonal": 1}, "matrix")
    yield Sample((values((2, 3, 3)),), {"diagonal": 0}, "batch")


def _triangle(xp: Any, x: Any, cut: Any, diagonal: int) -> Any:
    if xp is np or x.dtype != dtypes.bfloat16:
        return cut(x, diagonal)
    return cut(x.view(np.uint16), diagonal).view(x.dtype)  # CuPy would give a float32


TRIL = Op(
    "tril", lambda xp, x, *, diagonal: _triangle(xp, x, xp.tril, diagonal),
    gradients={"x": lambda gy, diagonal: tril(gy, diagonal)}, samples=_tri_samples,
)  # fmt: skip
TRIU = Op(
    "triu", lambda xp, x, *, diagonal: _triangle(xp, x, xp.triu, diagonal),
    gradients={"x": lambda gy, diagonal: triu(gy, diagonal)}, samples=_tri_samples,
)  # fmt: skip


@public(TRIL, "tril")
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return the lower triangle of the last two axes, zeros above ``diagonal``."""
    return apply(TRIL, (x,), {"diagonal": _diagonal("tril", x, diagonal)})


@public(TRIU, "triu")
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return the upper triangle of the last two axes, zeros below ``diagonal``."""
    return apply(TRIU, (x,), {"diagonal": _diagonal("triu", x, diagonal)})


def _diagonal(operation: str, x: Tensor, diagonal: Any) -> int:
    if x.ndim < 2:
        raise ShapeError(message(operation, expected="at least two axes", got=f"shape {x.shape}"))
    if not isinstance(diagonal, int):
        got = repr(diagonal)
        raise OptionError(message(operation, expected="an integer diagonal", got=got))
    return diagonal
