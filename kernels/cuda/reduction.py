"""Reductions on the device: which kernel for which shape and layout, and its geometry.

The axes of the array are put in the order in which they lie in memory, and those that together are
one run are made one (`canonical`). What remains is nearly always one of two cases. Where the axis
that lies closest is reduced, threads lie along it (``rows``); where it is kept, they lie along that
(``columns_packed``); either way neighbouring threads read neighbouring values, 16 bytes each. Axes
outside it are counted through inside the kernels, so that any set of axes is one pass over memory.
``columns`` takes all other layouts, one value at a time.

A result with many values behind it is made by several blocks, and a second launch puts their parts
together in a fixed order. How many there are follows from shape and layout, never from the GPU.

Bytes. A reduction reads its input once; results and parts are a few percent of that where each
is made of 64 values or more. So the time to reach is bytes / bandwidth. Not yet measured on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from gradlab.kernels import ladder
from gradlab.kernels.cuda.driver import (
    FLOATS,
    Defines,
    Variant,
    current,
    divide_up,
    dtype_name,
    launch,
)

SOURCE = "reduction.cu"
THREADS = 256
WARP = 32
AXES = 8  # that a kernel can count through, of each kind

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_REAL = ("bool", *_INTEGERS, *FLOATS)

# What each operation takes and gives. "wide": int64 (or uint64) of integers, else the input's.
TAKES = {
    "sum": _REAL, "mean": FLOATS, "prod": _REAL, "max": _REAL, "min": _REAL, "argmax": _REAL,
    "argmin": _REAL, "any": _REAL, "all": _REAL, "count_nonzero": _REAL, "var": FLOATS,
    "std": FLOATS, "norm": FLOATS, "norm1": FLOATS, "norm2": FLOATS, "norm_max": FLOATS,
    "norm_min": FLOATS, "vector_norm": FLOATS, "logsumexp": FLOATS,
}  # fmt: skip
_GIVES = {
    "sum": "wide", "prod": "wide", "any": "bool", "all": "bool", "count_nonzero": "int64",
    "argmax": "int64", "argmin": "int64",
}  # fmt: skip
_PLACES = ("argmax", "argmin")  # operations to which the order of the values means something
_TRUTH = ("any", "all", "count_nonzero")
_SLOW = ("norm",)  # a power for each value takes longer than to read it
_OF = {"mean": "sum", "std": "var"}  # operations that differ in how they finish


@cache
def _compiled_as(operation: str, dtype: str) -> tuple[str, str]:
    """The operation and the dtype of the module that computes: of several that compute alike, one.

    A sum modulo 2^64 does not depend on the sign, a bool is ordered as its byte is, and whether an
    integer is 0 depends on its width alone.
    """
    operation = _OF.get(operation, operation)
    if operation in _TRUTH and dtype not in FLOATS:
        dtype = f"int{8 * np.dtype(dtype).itemsize}"
    elif operation in ("sum", "prod") and dtype == "uint64":
        dtype = "int64"
    elif dtype == "bool":
        dtype = "uint8"
    return operation, dtype


def _defines(operation: str, dtype: str) -> Defines:
    return (("OPERATION", operation), ("DTYPE", dtype))


def variants() -> list[Variant]:
    """Every module this family can launch."""
    functions = ("mean", "std", "vector_norm")  # computed by other operations
    found = {
        _compiled_as(name, dtype)
        for name, taken in TAKES.items()
        for dtype in taken
        if name not in functions
    }
    return [Variant(SOURCE, _defines(*each)) for each in sorted(found)]


# ------------------------------------------------------------------------------------ layout


class Axis(NamedTuple):
    """An axis, in elements: ``other`` is a kept one's stride in the result, or the weight of a
    reduced one's index in the place of a value."""

    size: int
    stride: int
    other: int


class Layout(NamedTuple):
    """Kept and reduced axes, from the outermost in memory to the innermost; where they start."""

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    start: int


def canonical(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...], ordered: bool = False
) -> Layout:
    """The layout of a reduction over ``axes`` of an array of ``strides`` in elements.

    ``ordered``: places count, so that axes are not read backwards, and only those are merged
    whose places run on.
    """
    kept, reduced, start = [], [], 0
    result, weight = 1, 1
    for i in range(len(shape) - 1, -1, -1):
        size, stride = shape[i], strides[i]
        if i in axes:
            if stride < 0 and not ordered:
                start += stride * (size - 1)
                stride = -stride
            reduced.append(Axis(size, stride, weight if ordered else 0))
            weight *= size
        else:
            kept.append(Axis(size, stride, result))
            result *= size
    return Layout(_merged(kept), _merged(reduced), start)


def _merged(axes: list[Axis]) -> tuple[Axis, ...]:
    """Axes, given from the innermost, by falling stride, those that repeat (stride 0) first."""
    axes = axes[::-1]
    return merge(sorted(axes, key=lambda axis: -abs(axis.stride) if axis.stride else -math.inf))


def merge(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Axes without those of size 1, and with those that together are one run made one."""
    found: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if found:
            size, stride, other = found[-1]
            if (stride, other) == (axis.stride * axis.size, axis.other * axis.size):
                found[-1] = Axis(size * axis.size, axis.stride, axis.other)
                continue
        found.append(axis)
    return tuple(found)


# ---------------------------------------------------------------------------------- geometry

AXES_DTYPE = np.dtype([
    ("count", np.int64), ("total", np.int64), ("sizes", np.int64, AXES),
    ("strides", np.int64, AXES), ("others", np.int64, AXES),
])  # fmt: skip
_FIELDS = (
    "length", "stride", "weight", "columns", "column_stride", "column_other", "column_blocks",
    "start", "threads", "lanes", "outer_part", "inner_part", "outer_parts", "inner_parts",
    "partial", "period",
)  # fmt: skip
GEOMETRY = np.dtype([
    ("kept", AXES_DTYPE), ("outer", AXES_DTYPE), *((name, np.int64) for name in _FIELDS),
    ("count", np.float64), ("order", np.float64),
])  # fmt: skip

_UNROLL = 4  # packs that a thread reads before it uses the first
_BLOCKS = 4096  # blocks that share a result: 31 for each of 132 multiprocessors, which end evenly
_ENOUGH = 2048  # blocks, from which on nothing is gained by more


class Plan(NamedTuple):
    """The launches of a reduction: the first kernel, and the parts that a second one combines."""

    kernel: str
    grid: int
    geometry: np.ndarray
    parts: int  # of each result; with one the first launch makes the result
    combine_grid: int
    combine: np.ndarray


def pack_axes(axes: tuple[Axis, ...]) -> tuple[Any, ...]:
    """Axes as kernels take them (`AXES_DTYPE`)."""
    axes = axes or (Axis(1, 0, 0),)
    padded = axes + (Axis(1, 0, 0),) * (AXES - len(axes))
    total = math.prod(axis.size for axis in axes)
    return (len(axes), total, *([axis[i] for axis in padded] for i in range(3)))


def _power_of_two(n: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def _geometry(kept: tuple[Axis, ...], outer: tuple[Axis, ...], **fields: float) -> np.ndarray:
    made = np.zeros((), GEOMETRY)
    made["kept"], made["outer"] = pack_axes(kept), pack_axes(outer)
    for name, value in fields.items():
        made[name] = value
    return made


def _plan(layout: Layout, itemsize: int, aligned: int, operation: str) -> Plan:
    """Choose kernel and geometry; ``aligned`` is the largest power of two (up to 16) that divides
    the address."""
    *outer, inner = layout.reduced or (Axis(1, 0, 0),)
    pack = 16 // itemsize
    # A shorter run is hardly more than its unaligned ends. Where no kept axis lies closer, it is
    # still better than to read it across.
    if inner.stride == 1 and inner.size >= (2 if outer else 8) * pack and operation not in _SLOW:
        return _plan_rows(layout, inner, pack)
    return _plan_columns(layout, itemsize, aligned, operation)


def _plan_rows(layout: Layout, inner: Axis, pack: int) -> Plan:
    kept, outers = _total(layout.kept), _total(layout.reduced[:-1])
    packs = inner.size // pack
    # A warp, or part of one, for a row that gives each thread up to eight packs; two at least, so
    # that short rows too have bytes under way.
    work = packs * outers
    threads = THREADS
    if work <= WARP * 2 * _UNROLL:
        threads = min(WARP, _power_of_two(divide_up(work, 2)))
    lanes = min(threads, _power_of_two(divide_up(packs, 2)))
    blocks = divide_up(kept, THREADS // threads)
    parts = 1
    if threads == THREADS and blocks < _ENOUGH and work > 4 * THREADS * _UNROLL:
        # One launch is faster for up to 64 KB; with two, a block gets 16 KB or more.
        parts = min(divide_up(_BLOCKS, blocks), work // (THREADS * _UNROLL))
    shares = _shares(layout.reduced, parts, lanes * _UNROLL * pack)
    parts = shares["outer_parts"] * shares["inner_parts"]
    geometry = _geometry(
        layout.kept, layout.reduced[:-1], length=inner.size, stride=1, weight=inner.other,
        start=layout.start, threads=threads, lanes=lanes, partial=int(parts > 1), **shares,
    )  # fmt: skip
    return _staged("rows", blocks * parts, geometry, parts, layout.kept)


def _plan_columns(layout: Layout, itemsize: int, aligned: int, operation: str) -> Plan:
    *above, column = layout.kept or (Axis(1, 0, 0),)
    # Whole rows are read in any order of the reduced axes: the longest is counted through the
    # fastest, unless it is a reduced axis that lies closest.
    reduced = layout.reduced or (Axis(1, 0, 0),)
    if column.stride and abs(column.stride) < abs(reduced[-1].stride):
        reduced = tuple(sorted(reduced, key=lambda axis: axis.size))
    fold = 1
    if not above and len(reduced) == 1 and operation not in _PLACES:
        fold = _fold(column, reduced[0])
        column = Axis(column.size * fold, column.stride, column.other)
        reduced = (Axis(reduced[0].size // fold, reduced[0].stride * fold, 0),)
    inner = reduced[-1]
    pack = 2 if itemsize == 8 else 4
    steps = [axis.stride for axis in (*above, *reduced)]
    packed = (
        column.stride == 1
        and aligned % (pack * itemsize) == 0
        and all(number % pack == 0 for number in (column.size, layout.start, *steps))
        and operation not in _SLOW
    )
    width = column.size // pack if packed else column.size  # threads that a row takes
    ahead = 8 if itemsize < 4 else 4  # rows that a thread reads before it uses the first
    # A row of 32 threads, with eight of them below each other, unless there are fewer columns or
    # too few rows.
    groups = _floor_power(max(1, min(8, inner.size // ahead)))
    lanes = min(THREADS // groups, _power_of_two(width))
    groups = THREADS // lanes
    across = divide_up(width, lanes)
    blocks, rows = _total(tuple(above)) * across, _total(reduced)
    parts = 1
    if blocks < _ENOUGH // 2 and rows >= 8 * groups * ahead:
        # Four batches or more for each block: a part costs two accesses to memory, or to the L2.
        parts = min(divide_up(_ENOUGH, blocks), rows // (4 * groups * ahead))
    shares = _shares(reduced, parts, groups * ahead)
    parts = shares["outer_parts"] * shares["inner_parts"]
    geometry = _geometry(
        tuple(above), reduced[:-1], length=inner.size, stride=inner.stride, weight=inner.other,
        columns=column.size, column_stride=column.stride, column_other=column.other,
        column_blocks=across, start=layout.start, lanes=lanes, partial=int(parts * fold > 1),
        period=column.size // fold, **shares,
    )  # fmt: skip
    name = "columns_packed" if packed else "columns"
    return _staged(name, blocks * parts, geometry, parts * fold, layout.kept)


_RUN = 1 << 30  # elements of a run, which kernels count in 32 bits


def _shares(reduced: tuple[Axis, ...], parts: int, batch: int) -> dict[str, int]:
    """How many blocks share a result: about ``parts``, none with a run of less than ``batch``."""
    *outer, inner = reduced
    outers = _total(tuple(outer))
    outer_part = divide_up(outers, min(outers, parts))
    outer_parts = divide_up(outers, outer_part)
    inner_parts = max(1, min(parts // outer_parts, inner.size // batch))
    inner_part = min(_RUN, divide_up(divide_up(inner.size, inner_parts), 64) * 64)
    return {
        "outer_part": outer_part, "outer_parts": outer_parts,
        "inner_part": inner_part, "inner_parts": divide_up(inner.size, inner_part),
    }  # fmt: skip


def _fold(column: Axis, row: Axis) -> int:
    """How many rows of a tall narrow matrix to read as one, so that a warp has a whole row.

    Column c of row r is then column (r % fold) * columns + c of row r // fold: each folded row
    leaves ``fold`` parts of each column, lying one after another as other parts do.
    """
    if column.stride != 1 or row.stride != column.size:
        return 1
    fold = 1
    while column.size * fold < 128 and row.size % (2 * fold) == 0 and row.size // fold >= 256:
        fold *= 2
    return fold


def _staged(
    kernel: str, grid: int, geometry: np.ndarray, parts: int, kept: tuple[Axis, ...]
) -> Plan:
    if grid >= 1 << 31:
        raise ValueError(f"a reduction of this shape takes {grid} blocks, and CUDA has 2^31 - 1")
    total = _total(kept)
    # Many results lie side by side in a warp; of few, each has a block to itself.
    lanes = min(WARP, _power_of_two(total)) if total > 64 or parts < THREADS else 1
    combine = _geometry(kept, (), length=parts, lanes=lanes)
    return Plan(kernel, grid, geometry, parts, divide_up(total, lanes), combine)


def _total(axes: tuple[Axis, ...]) -> int:
    return math.prod(axis.size for axis in axes)


def _floor_power(n: int) -> int:
    """The largest power of two that is not more."""
    return 1 << (n.bit_length() - 1)


# ------------------------------------------------------------------------------------ launch

# The bytes of a part: see the operations in reduction.cu.
_PART = {"any": 4, "all": 4, "count_nonzero": 8, "argmax": 16, "argmin": 16}


@cache
def _part_bytes(operation: str, dtype: str) -> int:
    real = 8 if dtype == "float64" else 4
    if operation in _PART:
        return _PART[operation]
    if operation == "var":
        return 3 * real
    if operation in ("norm", "logsumexp"):
        return 2 * real
    if dtype in FLOATS:
        return real
    return 8 if operation in ("sum", "prod") else int(np.dtype(dtype).itemsize)


@cache
def result_dtype(operation: str, dtype: Any) -> Any:
    """The dtype of an operation's result."""
    gives = _GIVES.get(operation)
    if gives is None or (gives == "wide" and dtype_name(dtype) in (*FLOATS, "uint64")):
        return dtype
    return np.dtype("int64" if gives == "wide" else gives)


@cache
def _takes(operation: str, dtype: Any) -> bool:
    return dtype_name(dtype) in TAKES[operation]


def fits(operation: str, x: Any) -> bool:
    """True where the kernels compute ``operation`` of ``x``: all but complex numbers, arrays
    without elements, and views into the middle of elements."""
    return (
        _takes(operation, x.dtype)
        and x.size > 0
        and x.ndim <= AXES
        and (x.flags.c_contiguous or all(stride % x.itemsize == 0 for stride in x.strides))
    )


class Launches(NamedTuple):
    """A reduction, ready to run: its result, the first kernel, and the second where it has one."""

    shape: tuple[int, ...]
    dtype: Any
    defines: Defines
    symbol: str
    grid: tuple[int]
    geometry: np.ndarray
    part_bytes: int  # of all parts; 0: there is no second kernel
    combine_symbol: str
    combine_grid: tuple[int]
    combine: np.ndarray


# At every step of training they are the same, and a look-up is all that is left of this.
@lru_cache(maxsize=4096)
def _prepare(
    operation: str, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...],
    axes: tuple[int, ...] | None, keepdims: bool, aligned: int, count: float, order: float,
) -> Launches:  # fmt: skip
    """The launches for an array of ``strides`` in bytes."""
    reduced = tuple(range(len(shape))) if axes is None else axes
    result = tuple(
        1 if i in reduced else size for i, size in enumerate(shape) if keepdims or i not in reduced
    )
    elements = tuple(stride // dtype.itemsize for stride in strides)
    layout = canonical(shape, elements, reduced, operation in _PLACES)
    name, compiled = _compiled_as(operation, dtype_name(dtype))
    plan = _plan(layout, dtype.itemsize, aligned, name)
    for each in (plan.geometry, plan.combine):
        each["count"], each["order"] = count, order
    size = plan.parts * math.prod(result) * _part_bytes(name, compiled)
    return Launches(
        result, result_dtype(operation, dtype), _defines(name, compiled),
        f"{name}_{plan.kernel}_{compiled}", (plan.grid,), plan.geometry,
        size if plan.parts > 1 else 0, f"{name}_combine_{compiled}", (plan.combine_grid,),
        plan.combine,
    )  # fmt: skip


def reduce(
    operation: str, x: Any, axis: tuple[int, ...] | int | None = None, keepdims: bool = False,
    *, count: float = 1.0, order: float = 2.0,
) -> Any:  # fmt: skip
    """Reduce ``x`` over ``axis`` (None: all axes) by an operation of `TAKES`.

    ``count`` is what a mean or a variance divides by, ``order`` the order of a norm.
    """
    driver = current()
    address = driver.pointer(x)
    todo = _prepare(
        operation, x.dtype, x.shape, x.strides, (axis,) if isinstance(axis, int) else axis,
        keepdims, min(16, address & -address), count, order,
    )  # fmt: skip
    y = driver.xp.empty(todo.shape, todo.dtype)
    block, defines = (THREADS,), todo.defines
    if not todo.part_bytes:
        args = (x, y, y, todo.geometry)
        launch(SOURCE, todo.symbol, todo.grid, block, args, defines=defines)
        return y
    parts = driver.xp.empty(todo.part_bytes, np.uint8)
    args = (x, y, parts, todo.geometry)
    launch(SOURCE, todo.symbol, todo.grid, block, args, defines=defines)
    last = (parts, y, todo.combine)
    launch(SOURCE, todo.combine_symbol, todo.combine_grid, block, last, defines=defines)
    return y


def sum_rows(x: Any) -> Any:
    """The sum over axis 0: of the gradient of a matrix product's result, that of its bias."""
    return reduce("sum", x, (0,))


# ------------------------------------------------------------------- gradlab's rung of the ladder


def _declare(function: str, make: Callable[..., Any] | None = None) -> None:
    def run(x: Any, *, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        given = {} if make is None else make(x, axis, **options)
        return reduce(given.pop("operation", function), x, axis, keepdims, **given)

    def accepts(x: Any, **_: Any) -> bool:
        return fits(function, x)

    ladder.rung("reduction", function=function, accepts=accepts)(run)


def _count(x: Any, axis: Any) -> int:
    """How many elements each result is made of."""
    if axis is None:
        return int(x.size)
    return math.prod(x.shape[i] for i in ((axis,) if isinstance(axis, int) else axis))


def _mean(x: Any, axis: Any) -> dict[str, Any]:
    return {"count": float(_count(x, axis))}


def _var(x: Any, axis: Any, correction: float) -> dict[str, Any]:
    return {"count": float(max(_count(x, axis) - correction, 0))}


def _std(x: Any, axis: Any, correction: float) -> dict[str, Any]:
    return {**_var(x, axis, correction), "order": 0.5}


_NORMS = {1.0: "norm1", 2.0: "norm2", math.inf: "norm_max", -math.inf: "norm_min"}


def _vector_norm(x: Any, axis: Any, ord: float) -> dict[str, Any]:
    if ord in _NORMS:
        return {"operation": _NORMS[ord]}
    return {"operation": "norm", "order": float(ord)}


for _name in ("sum", "prod", "max", "min", "argmax", "argmin", "logsumexp", *_TRUTH):
    _declare(_name)
_declare("mean", _mean)
_declare("var", _var)
_declare("std", _std)
_declare("vector_norm", _vector_norm)


@lru_cache(maxsize=4096)
def _stretched(wide: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes that broadcasting ``shape`` to ``wide`` adds or stretches; None if it cannot."""
    extra = len(wide) - len(shape)
    if extra < 0 or any(n not in (1, wide[i + extra]) for i, n in enumerate(shape)):
        return None
    stretched = [i + extra for i, n in enumerate(shape) if n != wide[i + extra]]
    return (*range(extra), *stretched)


def _undoes_broadcast(x: Any, *, shape: tuple[int, ...]) -> bool:
    return _takes("mean", x.dtype) and fits("sum", x) and _stretched(x.shape, shape) is not None


@ladder.rung("reduction", accepts=_undoes_broadcast)
def sum_to(x: Any, *, shape: tuple[int, ...]) -> Any:
    """``x`` summed to a shape that broadcasts to its own: the gradient of whatever broadcast."""
    return reduce("sum", x, _stretched(x.shape, shape)).reshape(shape)
