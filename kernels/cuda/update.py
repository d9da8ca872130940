"""Optimizer updates and gradient clipping: all tensors of a list in one or a few launches.

A launch takes up to `TENSORS` tensors of one dtype, of any sizes. What is computed is defined by
the ops of the same names; states are float32 for float16 and bfloat16 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from gradlab.kernels.cuda.driver import (
    FLOATS,
    Variant,
    current,
    divide_up,
    dtype_define,
    dtype_name,
    launch,
)

SOURCE = "update.cu"
TENSORS = 55  # these are the constants of update.cu
SCALARS = 8
STATES = 3
THREADS = 256
SHARE = 16  # pieces in a block's share of a norm

DECAY, MAXIMIZE, MOMENTUM, DAMPENING, NESTEROV, DECOUPLED, AMSGRAD, CENTERED = (
    1 << bit for bit in range(8)
)
SUM, SQUARES, LARGEST, POWERS = 1, 2, 3, 4

Arrays = Sequence[Any]


def variants() -> list[Variant]:
    """Everything that can be launched."""
    return [Variant(SOURCE, (("DTYPE", name),)) for name in FLOATS]


def fits(param: Any, grad: Any, *states: Any) -> bool:
    """True where a kernel can update ``param``: row by row in memory, of one kind of dtype.

    The layout of ``grad`` does not matter, one that differs is copied.
    """
    dtype = param.dtype
    wide = _wide(dtype)
    if wide is None or grad.dtype != dtype or not param.flags.c_contiguous:
        return False
    return all(state.dtype == wide and state.flags.c_contiguous for state in states)


def dense(x: Any) -> bool:
    """True where a kernel can go through the elements of ``x`` as they lie in memory."""
    return _wide(x.dtype) is not None and (x.flags.c_contiguous or x.flags.f_contiguous)


def sgd(
    params: Arrays, grads: Arrays, buffers: Arrays, *, lr: float, momentum: float,
    dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first: Sequence[bool],
) -> None:  # fmt: skip
    """Take a step of SGD, as ``sgd_step`` defines it."""
    options = _options({
        DECAY: weight_decay, MAXIMIZE: maximize, MOMENTUM: momentum, DAMPENING: dampening,
        NESTEROV: nesterov,
    })  # fmt: skip
    scalars = lr, weight_decay, momentum, 1 - dampening
    states = [buffers] if momentum else []
    _update("sgd", params, grads, states, [first] if momentum else [], scalars, options)


def adam(
    params: Arrays, grads: Arrays, means: Arrays, squares: Arrays, largest: Arrays, *, lr: float,
    betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool, amsgrad: bool,
    maximize: bool, steps: Sequence[int],
) -> None:  # fmt: skip
    """Take a step of Adam or AdamW, as ``adam_step`` defines it."""
    beta1, beta2 = betas
    options = _options({
        DECAY: weight_decay and not decoupled, MAXIMIZE: maximize, AMSGRAD: amsgrad,
        DECOUPLED: weight_decay and decoupled,
    })  # fmt: skip
    scalars = beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, 1 - lr * weight_decay
    # Few numbers of steps differ among parameters that are trained together.
    rates = {step: lr / (1 - beta1**step) for step in set(steps)}
    roots = {step: math.sqrt(1 - beta2**step) for step in rates}
    values = [[rates[step] for step in steps], [roots[step] for step in steps]]
    states = [means, squares, largest] if amsgrad else [means, squares]
    _update("adam", params, grads, states, values, scalars, options)


def rmsprop(
    params: Arrays, grads: Arrays, squares: Arrays, buffers: Arrays, means: Arrays, *, lr: float,
    alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool,
) -> None:  # fmt: skip
    """Take a step of RMSprop, as ``rmsprop_step`` defines it."""
    options = _options(
        {DECAY: weight_decay, MAXIMIZE: maximize, MOMENTUM: momentum, CENTERED: centered}
    )
    scalars = lr, weight_decay, alpha, 1 - alpha, eps, momentum
    # Each state has its place in the table; `squares` stands in for those not in use.
    states = [squares, buffers if momentum else squares, means if centered else squares]
    _update("rmsprop", params, grads, states, [], scalars, options)


def adagrad(
    params: Arrays, grads: Arrays, sums: Arrays, *, lr: float, lr_decay: float, eps: float,
    weight_decay: float, maximize: bool, steps: Sequence[int],
) -> None:  # fmt: skip
    """Take a step of Adagrad, as ``adagrad_step`` defines it."""
    options = _options({DECAY: weight_decay, MAXIMIZE: maximize})
    rates = [lr / (1 + (step - 1) * lr_decay) for step in steps]
    _update("adagrad", params, grads, [sums], [rates], (weight_decay, eps), options)


def total_norm(arrays: Arrays, total: Any, order: float) -> None:
    """Write the norm of all elements of all arrays into ``total``, float32 or float64."""
    norm = {1: SUM, 2: SQUARES, math.inf: LARGEST}.get(order, POWERS)
    tables = [_Table(part, [part], scalars=[order], pieces=SHARE) for (part,) in _parts([arrays])]
    count = sum(table.blocks for table in tables)
    shares = current().xp.empty(max(count, 1), np.float64)
    offset = 0
    for table in tables:
        table.launch("norm_shares", [shares, offset, norm])
        offset += table.blocks
    args = [shares, count, total, norm, float(order)]
    launch(
        SOURCE, f"norm_total_{dtype_name(total.dtype)}", (1,), (1024,), args,
        defines=dtype_define(total.dtype),
    )  # fmt: skip


def clip_norm(grads: Arrays, total: Any, max_norm: float) -> None:
    """Scale gradients in place by ``min(1, max_norm / (total + 1e-6))``."""
    for (part,) in _parts([grads]):
        args = [total, int(total.dtype == np.float64), float(max_norm)]
        _Table(part, [part]).launch("clip_norm", args)


def clip_value(grads: Arrays, limit: float) -> None:
    """Limit gradients in place to [-limit, limit]."""
    for (part,) in _parts([grads]):
        _Table(part, [part], scalars=[limit]).launch("clip_value", [])


# ------------------------------------------------------------------------------------- tables


def _update(
    stem: str, params: Arrays, grads: Arrays, states: Sequence[Arrays],
    values: Sequence[Sequence[float]], scalars: Sequence[float], options: int,
) -> None:  # fmt: skip
    grads = [current().xp.ascontiguousarray(g) for g in grads]
    count = len(states)
    for part, grad, *rest in _parts([params, grads, *states, *values]):
        table = _Table(part, [grad, *rest[:count]], rest[count:], scalars)
        table.launch(stem, [options])


def _parts(lists: Sequence[Sequence[Any]]) -> list[list[list[Any]]]:
    """The lists cut into those of a launch: of one dtype, not too long, without empty arrays."""
    by_dtype: dict[Any, list[int]] = {}
    for i, array in enumerate(lists[0]):
        if array.size:
            by_dtype.setdefault(array.dtype, []).append(i)
    return [
        [[each[i] for i in chosen[start : start + TENSORS]] for each in lists]
        for chosen in by_dtype.values()
        for start in range(0, len(chosen), TENSORS)
    ]


class _Table:
    """The table of tensors that a kernel takes by value, and the blocks they need."""

    def __init__(
        self, params: Arrays, others: Sequence[Arrays], values: Sequence[Sequence[float]] = (),
        scalars: Sequence[float] = (), pieces: int = 1,
    ) -> None:  # fmt: skip
        self.dtype = params[0].dtype
        wide = "float64" if self.dtype.itemsize == 8 else "float32"
        block = THREADS * (2 if self.dtype.itemsize == 8 else 4) * pieces
        sizes = [p.size for p in params]
        ends = list(accumulate(divide_up(size, block) for size in sizes))
        self.blocks = ends[-1]
        self.held = params, others  # contiguous copies live until the launch
        made = self.table = np.zeros((), _layout(wide))
        count = made["count"] = len(params)
        made["first"][1:count] = ends[:-1]
        made["scalars"][: len(scalars)] = scalars
        rows = made["tensors"][:count]
        rows["size"] = sizes
        pointer = current().pointer
        rows["param"] = [pointer(p) for p in params]
        for column, arrays in enumerate(others):
            rows["others"][:, column] = [pointer(each) for each in arrays]
        for column, numbers in enumerate(values):
            rows["values"][:, column] = numbers

    def launch(self, stem: str, args: list[Any]) -> None:
        name = f"{stem}_{dtype_name(self.dtype)}"
        defines = dtype_define(self.dtype)
        launch(SOURCE, name, (self.blocks,), (THREADS,), [self.table, *args], defines=defines)


@cache
def _layout(wide: str) -> np.dtype:
    """The struct ``Tensors`` of update.cu; the gradient and the states are its ``others``."""
    tensor = np.dtype([
        ("param", np.uint64), ("others", np.uint64, 1 + STATES), ("size", np.int64),
        ("values", wide, 2),
    ])  # fmt: skip
    return np.dtype([
        ("count", np.int64), ("first", np.int64, TENSORS), ("scalars", wide, SCALARS),
        ("tensors", tensor, TENSORS),
    ])  # fmt: skip


@cache
def _wide(dtype: Any) -> np.dtype | None:
    """The dtype that states are kept and updates computed in; None where no kernel computes.

    Asked of every parameter in every step, so remembered: the name of a dtype takes 0.7 µs.
    """
    if dtype_name(dtype) not in FLOATS:
        return None
    return np.dtype(np.float32) if dtype.itemsize < 4 else dtype


def _options(chosen: dict[int, Any]) -> int:
    return sum(bit for bit, on in chosen.items() if on)
