"""Reductions on the device: which kernel for which shape and layout, and its geometry.

The axes of the array are put in the order in which they lie in memory, and those that together are
one run are made one (`canonical`). What remains is nearly always one of two cases. Where the axis
with the smallest stride is reduced, threads lie along it (``rows``); where it is kept, they lie
along that (``columns``); either way neighbouring threads read neighbouring values. Axes outside it
are counted through inside the kernels, so any set of axes of any strides is one pass over memory.

A result with many values behind it is made by several blocks, and a second launch puts their parts
together in a fixed order. How many there are follows from shape and layout, never from the GPU.

Bytes. A reduction reads its input once; results and partial results are a few percent of that where
each is made of 64 values or more. So the time to reach is bytes / bandwidth. Not yet measured.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gradlab.kernels import ladder
from gradlab.kernels.cuda.driver import Defines, Variant, current, divide_up, launch

SOURCE = "reduction.cu"
THREADS = 256
AXES = 8  # that a kernel can count through, of each kind

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_REAL = ("bool", *_INTEGERS, *_FLOATS)

# What each operation takes and gives. "wide": int64 (or uint64) of integers, else the input's.
_TAKES = {
    "sum": _REAL, "prod": _REAL, "mean": _FLOATS, "max": _REAL, "min": _REAL, "any": _REAL,
    "all": _REAL, "count_nonzero": _REAL, "argmax": _REAL, "argmin": _REAL, "var": _FLOATS,
    "std": _FLOATS, "norm1": _FLOATS, "norm2": _FLOATS, "norm": _FLOATS,
}  # fmt: skip
_GIVES = {
    "sum": "wide", "prod": "wide", "any": "bool", "all": "bool", "count_nonzero": "int64",
    "argmax": "int64", "argmin": "int64",
}  # fmt: skip
_PLACES = ("argmax", "argmin")  # operations to which the order of the values means something


def variants() -> list[Variant]:
    """Every module this family can launch."""
    return [
        Variant(SOURCE, _defines(name, dtype)) for name, taken in _TAKES.items() for dtype in taken
    ]


def _defines(operation: str, dtype: str) -> Defines:
    return (("OPERATION", operation), ("DTYPE", dtype))


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
    """Axes by falling stride, those that repeat (stride 0) first; runs of memory as one."""
    found: list[Axis] = []
    longer = [axis for axis in reversed(axes) if axis.size != 1]
    for axis in sorted(longer, key=lambda axis: -abs(axis.stride) if axis.stride else -math.inf):
        if found:
            size, stride, other = found[-1]
            if (stride, other) == (axis.stride * axis.size, axis.other * axis.size):
                found[-1] = Axis(size * axis.size, axis.stride, axis.other)
                continue
        found.append(axis)
    return tuple(found)


# ---------------------------------------------------------------------------------- geometry

_AXES = np.dtype([
    ("count", np.int64), ("total", np.int64), ("sizes", np.int64, AXES),
    ("strides", np.int64, AXES), ("others", np.int64, AXES),
])  # fmt: skip
_FIELDS = (
    "length", "stride", "weight", "columns", "column_stride", "column_other", "start", "threads",
    "lanes", "outer_part", "inner_part", "outer_parts", "inner_parts", "partial",
)  # fmt: skip
GEOMETRY = np.dtype([
    ("kept", _AXES), ("outer", _AXES), *((name, np.int64) for name in _FIELDS),
    ("count", np.float64), ("order", np.float64),
])  # fmt: skip

_UNROLL = 4  # packs, or 2 * _UNROLL values, that a thread reads before it uses the first
_BLOCKS = 4096  # blocks that share a result: 31 for each of 132 multiprocessors, which end evenly
_ENOUGH = 2048  # blocks, from which on nothing is gained by more


class Plan(NamedTuple):
    """The launches of a reduction: the first kernel, and the parts that a second one combines."""

    kernel: str
    grid: int
    geometry: np.ndarray
    parts: int  # partial results of each result; 0: the first launch makes the result
    combine_grid: int
    combine: np.ndarray


def _axes(axes: tuple[Axis, ...]) -> tuple[Any, ...]:
    axes = axes or (Axis(1, 0, 0),)
    padded = axes + (Axis(1, 0, 0),) * (AXES - len(axes))
    total = math.prod(axis.size for axis in axes)
    return (len(axes), total, *([axis[i] for axis in padded] for i in range(3)))


def _power_of_two(n: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def _geometry(kept: tuple[Axis, ...], outer: tuple[Axis, ...], **fields: int) -> np.ndarray:
    made = np.zeros((), GEOMETRY)
    made["kept"], made["outer"] = _axes(kept), _axes(outer)
    for name, value in fields.items():
        made[name] = value
    return made


def _plan(layout: Layout, itemsize: int, aligned: int, ordered: bool) -> Plan:
    """Choose kernel and geometry; ``aligned`` is the largest power of two (up to 16) that divides
    the address."""
    inner = layout.reduced[-1] if layout.reduced else Axis(1, 0, 0)
    if layout.kept:
        stride = abs(layout.kept[-1].stride)
        if stride and (not inner.stride or stride < abs(inner.stride)):
            return _plan_columns(layout, inner, itemsize, aligned, ordered)
    return _plan_rows(layout, inner, itemsize)


def _plan_rows(layout: Layout, inner: Axis, itemsize: int) -> Plan:
    outer = layout.reduced[:-1]
    pack = 16 // itemsize
    packed = inner.stride == 1 and inner.size >= 2 * pack
    units = inner.size // pack if packed else inner.size  # what a thread reads in one access
    ahead = _UNROLL if packed else 2 * _UNROLL  # accesses in flight, per thread
    kept, outers = _total(layout.kept), _total(outer)
    # A warp, or part of one, for a row that gives each thread up to two batches of accesses; half
    # a batch at least, so that short rows too have bytes under way.
    work = units * outers
    if work <= 32 * 2 * ahead:
        threads = min(32, _power_of_two(divide_up(work, ahead // 2)))
    else:
        threads = THREADS
    lanes = min(threads, _power_of_two(divide_up(units, ahead // 2)))
    blocks = divide_up(kept, THREADS // threads)
    parts = 1
    if threads == THREADS and blocks < _ENOUGH and work > 4 * THREADS * ahead:
        # One launch is faster for up to 64 KB; with two, a block gets 16 KB or more.
        parts = min(divide_up(_BLOCKS, blocks), work // (THREADS * ahead))
    outer_parts = min(outers, parts)
    inner_parts = max(1, min(parts // outer_parts, units // (lanes * ahead)))
    outer_part = divide_up(outers, outer_parts)
    inner_part = divide_up(divide_up(inner.size, inner_parts), 64) * 64
    outer_parts, inner_parts = divide_up(outers, outer_part), divide_up(inner.size, inner_part)
    parts = outer_parts * inner_parts
    geometry = _geometry(
        layout.kept, outer, length=inner.size, stride=inner.stride, weight=inner.other,
        start=layout.start, threads=threads, lanes=lanes, outer_part=outer_part,
        inner_part=inner_part, outer_parts=outer_parts, inner_parts=inner_parts,
        partial=int(parts > 1),
    )  # fmt: skip
    name = "rows_packed" if packed else "rows"
    return _staged(name, blocks * parts, geometry, parts if parts > 1 else 0, layout.kept)


def _plan_columns(layout: Layout, inner: Axis, itemsize: int, aligned: int, ordered: bool) -> Plan:
    *above, column = layout.kept
    reduced = layout.reduced or (inner,)
    fold = 1
    if not above and not ordered and len(reduced) == 1:
        fold = _fold(column, inner)
        column = Axis(column.size * fold, column.stride, column.other)
        reduced = inner, *_ = (Axis(inner.size // fold, inner.stride * fold, 0),)
    pack = 2 if itemsize == 8 else 4
    steps = [axis.stride for axis in (*above, *reduced)]
    packed = (
        column.stride == 1
        and aligned % (pack * itemsize) == 0
        and all(number % pack == 0 for number in (column.size, layout.start, *steps))
    )
    width = column.size // pack if packed else column.size  # threads that a row takes
    ahead = 4 if packed and pack * itemsize == 16 else 8
    rows = _total(reduced)
    groups = max(1, min(8, rows // ahead))
    lanes = min(THREADS // _floor_power(groups), _power_of_two(width))
    groups = THREADS // lanes
    across = divide_up(width, lanes)
    blocks = _total(tuple(above)) * across
    parts = 1
    if blocks < _ENOUGH // 2 and rows >= 8 * groups * ahead:
        # 4 batches or more of each block: a part costs two accesses to memory, or to the L2.
        parts = min(divide_up(_ENOUGH, blocks), rows // (4 * groups * ahead))
    part = divide_up(rows, parts)
    parts = divide_up(rows, part)
    geometry = _geometry(
        tuple(above), reduced[:-1], length=inner.size, stride=inner.stride, weight=inner.other,
        columns=column.size, column_stride=column.stride, column_other=column.other,
        start=layout.start, lanes=lanes, outer_part=part, outer_parts=parts,
        partial=int(parts * fold > 1),
    )  # fmt: skip
    name = "columns_packed" if packed else "columns"
    return _staged(
        name, blocks * parts, geometry, parts * fold if parts * fold > 1 else 0, layout.kept
    )


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
    total = _total(kept)
    # One result to a block where there are few, so that all of its threads read parts.
    lanes = min(32, _power_of_two(total)) if total > 64 or parts < THREADS else 1
    combine = _geometry(kept, (), length=parts, lanes=lanes)
    return Plan(kernel, grid, geometry, parts, divide_up(total, lanes), combine)


def _total(axes: tuple[Axis, ...]) -> int:
    return math.prod(axis.size for axis in axes)


def _floor_power(n: int) -> int:
    """The largest power of two that is not more."""
    return 1 << (n.bit_length() - 1)


@lru_cache(maxsize=4096)
def plan(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...] | None,
    itemsize: int, aligned: int, ordered: bool,
) -> Plan:  # fmt: skip
    """The launches for an array of ``strides`` in bytes; the same ones at every step of training,
    so they are remembered."""
    elements = tuple(stride // itemsize for stride in strides)
    chosen = tuple(range(len(shape))) if axes is None else axes
    return _plan(canonical(shape, elements, chosen, ordered), itemsize, aligned, ordered)


# ------------------------------------------------------------------------------------ launch

# The bytes of a part, by what it holds: see the operations in reduction.cu.
_PART = {"any": 4, "all": 4, "count_nonzero": 8, "argmax": 16, "argmin": 16}


def _part_bytes(operation: str, dtype: Any) -> int:
    real = 8 if dtype.name == "float64" else 4
    if operation in _PART:
        return _PART[operation]
    if operation in ("var", "std"):
        return 3 * real
    if operation == "norm":
        return 2 * real
    if operation in ("max", "min"):
        return 4 if dtype.name in _FLOATS[:2] else int(dtype.itemsize)
    return real if dtype.name in _FLOATS else 8


def _result_dtype(operation: str, dtype: Any) -> Any:
    gives = _GIVES.get(operation)
    if gives is None or (gives == "wide" and dtype.name in (*_FLOATS, "uint64")):
        return dtype
    return np.dtype("int64" if gives == "wide" else gives)


def accepts(
    operation: str, x: Any, axis: tuple[int, ...] | int | None = None, **_: Any
) -> bool:
    """True where the kernels can compute ``operation`` of ``x``; nothing is left to the library
    but complex numbers, empty arrays and odd strides."""
    return (
        x.dtype.name in _TAKES[operation]
        and 0 < x.size
        and x.ndim <= AXES
        and (x.flags.c_contiguous or all(stride % x.itemsize == 0 for stride in x.strides))
    )


def reduce(
    operation: str, x: Any, axis: tuple[int, ...] | int | None = None, keepdims: bool = False,
    *, count: float = 1.0, order: float = 2.0,
) -> Any:  # fmt: skip
    """Reduce ``x`` over ``axis`` (None: all axes) by an operation of reduction.cu.

    ``count`` is what a mean or a variance divides by, ``order`` the order of a norm.
    """
    driver = current()
    axes = (axis,) if isinstance(axis, int) else axis
    address = driver.pointer(x)
    chosen = plan(
        x.shape, x.strides, axes, x.itemsize, min(16, address & -address), operation in _PLACES
    )
    if axes is None:
        shape: tuple[int, ...] = (1,) * x.ndim if keepdims else ()
    elif keepdims:
        shape = tuple([1 if i in axes else size for i, size in enumerate(x.shape)])
    else:
        shape = tuple([size for i, size in enumerate(x.shape) if i not in axes])
    y = driver.xp.empty(shape, _result_dtype(operation, x.dtype))
    run(operation, x, y, chosen, count, order)
    return y


def run(operation: str, x: Any, y: Any, chosen: Plan, count: float, order: float) -> None:
    """Launch a plan."""
    name = x.dtype.name
    defines = _defines(operation, name)
    geometry, combine = chosen.geometry, chosen.combine
    if count != 1.0 or order != 2.0:
        geometry, combine = geometry.copy(), combine.copy()
        for each in (geometry, combine):
            each["count"], each["order"] = count, order
    kernel = f"{operation}_{chosen.kernel}_{name}"
    if not chosen.parts:
        launch(SOURCE, kernel, (chosen.grid,), (THREADS,), (x, y, y, geometry), defines=defines)
        return
    size = chosen.parts * y.size * _part_bytes(operation, x.dtype)
    parts = current().xp.empty(size, np.uint8)
    launch(SOURCE, kernel, (chosen.grid,), (THREADS,), (x, y, parts, geometry), defines=defines)
    launch(
        SOURCE, f"{operation}_combine_{name}", (chosen.combine_grid,), (THREADS,),
        (parts, y, combine), defines=defines,
    )  # fmt: skip


def sum_rows(x: Any) -> Any:
    """The sum over axis 0: of the gradient of a matrix product's result, that of its bias."""
    return reduce("sum", x, (0,))
