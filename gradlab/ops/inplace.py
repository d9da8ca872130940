"""In-place forms of functions that no single op writes: ``x.masked_fill_(…)``, ``x.unsqueeze_(0)``.

Those of elementwise ops stand beside the ops. Here the function computes its result first, which
then takes the place of the values, with its history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gradlab import dtypes
from gradlab.autograd.modes import mode
from gradlab.errors import ShapeError, message
from gradlab.ops import elementwise, indexing, random, reduction, sampling, shape
from gradlab.ops.core import (
    REGISTRY,
    _check_fits,
    check_writable,
    mark_written,
    needs_record,
    public,
    rebase,
    write,
)
from gradlab.ops.random import Generator
from gradlab.tensor import Tensor, copied


def replace_values(x: Tensor, y: Tensor, name: str) -> Tensor:
    """Let ``x``, keeping its memory, take the values and the history of ``y``, computed from it."""
    if not mode.grad or (x._node is None and y._node is None):  # a leaf stays one
        write(x, y, name)
        mark_written(x, name)
        return x
    _check_fits(x, y, name)
    rebase(x, y if y.dtype == x.dtype else y.astype(x.dtype), name)
    return x


def before_write(x: Tensor, others: Sequence[Any], name: str) -> Tensor:
    """``x`` for computing what is written to it: a copy where gradients may need the old values."""
    if not mode.grad:
        return x
    check_writable(x, name)
    if not needs_record(x, others):
        return x
    before = Tensor._wrap(copied(x), x.device)
    before._node = x._node
    return before


def _in_place(function: Callable[..., Tensor], name: str) -> None:
    def in_place(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        before = before_write(x, (*args, *kwargs.values()), name)
        others = [before if other is x else other for other in args]
        return replace_values(x, function(before, *others, **kwargs), name)

    in_place.__doc__ = (
        f"In place: the tensor becomes ``{function.__name__}(x, …)``, keeping its memory."
    )
    Tensor._add_method(name, in_place)


for _function in (
    elementwise.masked_fill, elementwise.lerp, elementwise.addcmul, elementwise.addcdiv,
    elementwise.nan_to_num, elementwise.round,
    indexing.scatter, indexing.scatter_add, indexing.index_add, indexing.index_copy,
    indexing.index_fill, indexing.masked_scatter,
    shape.tril, shape.triu, reduction.cumsum, reduction.cumprod,
):  # fmt: skip
    _in_place(_function, f"{_function.__name__}_")
_in_place(elementwise.clip, "clip_")
for _name, _same in (
    ("clamp_", "clip_"),
    ("subtract_", "sub_"),
    ("multiply_", "mul_"),
    ("divide_", "div_"),
):
    Tensor._add_method(_name, getattr(Tensor, _same))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"):
    _in_place(REGISTRY[_name].function, f"{_name}_")


# -------------------------------------------------------------------------- another shape


def _reshaping(function: Callable[..., Tensor], name: str) -> None:
    def in_place(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if mode.grad:
            check_writable(x, name)
        seen = function(x, *args, **kwargs)
        x._array, x._node, x._view = seen._array, seen._node, None
        return x

    in_place.__doc__ = f"In place: the tensor becomes ``{function.__name__}(x, …)`` of its memory."
    Tensor._add_method(name, in_place)


for _function, _name in (
    (shape.unsqueeze, "unsqueeze_"), (shape.squeeze, "squeeze_"), (shape.t, "t_"),
    (shape.transpose, "transpose_"), (shape.transpose, "swapaxes_"),
):  # fmt: skip
    _reshaping(_function, _name)


# ---------------------------------------------------------------------------------- random


@public(None, "bernoulli_")
def bernoulli_(x: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """In place: draw 1 with probability ``p``, a number or a tensor that broadcasts, else 0.

    Raises `OptionError` for a ``p`` outside [0, 1], as `bernoulli`.
    """
    return indexing.copy_(x, sampling.toss("bernoulli_", p, x.shape, x.device, generator))


@public(None, "random_")
def random_(
    x: Tensor, low: int | None = None, high: int | None = None, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """In place: draw integers from [``low``, ``high``), or [0, ``low``) if one bound is given.

    Without bounds, from 0 to the largest integer the dtype holds exactly. Raises `OptionError`
    unless low < high are integers that it holds.
    """
    if high is None:
        bounds = (0, random.exact_range(x.dtype)[1] + 1 if low is None else low)
    else:
        bounds = (low or 0, high)
    return indexing.copy_(
        x, random.draw_integers("random_", *bounds, x.shape, generator, x.dtype, x.device)
    )


@public(None, "exponential_")
def exponential_(x: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """In place: draw from the exponential distribution of rate ``lambd``, whose mean is 1/lambd.

    Raises `OptionError` unless ``lambd`` is finite and above 0.
    """
    dtype = random.floating("exponential_", x.dtype)
    expected = "a finite lambd above 0"
    random.require_all("exponential_", expected, lambda a: (a > 0) & (a < math.inf), lambd)
    wide = dtypes.float64 if dtype == dtypes.float64 else dtypes.float32
    uniform = random.rand(x.shape, generator=generator, dtype=wide, device=x.device)
    return indexing.copy_(x, -elementwise.log1p(-uniform) / lambd)


@public(None, "fill_diagonal_")
def fill_diagonal_(x: Tensor, value: float) -> Tensor:
    """In place: set the main diagonal of a matrix to ``value``.

    >>> gl.zeros(2, 2).fill_diagonal_(1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    if x.ndim != 2:
        raise ShapeError(message("fill_diagonal_", expected="a matrix", got=f"shape {x.shape}"))
    index = Tensor._wrap(x.device.xp.arange(min(x.shape)), x.device)
    indexing.setitem(x, (index, index), value)
    return x
