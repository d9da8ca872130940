"""Running sums and products on the device: which kernel for which layout, and its geometry.

Bytes. A scan reads its input once and writes its result once, as a copy does. Where series are long
and few, each is cut into parts so that all multiprocessors have work, and read twice: 1.5 times the
bytes of a copy, less what the L2 still holds. Not yet measured on a GPU.

How a series is cut follows from shape and layout, never from the GPU: the same bits everywhere.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from gradlab.kernels import ladder
from gradlab.kernels.cuda.driver import Defines, Variant, current, divide_up, dtype_name, launch
from gradlab.kernels.cuda.reduction import (
    AXES_DTYPE,
    TAKES,
    Axis,
    fits,
    merge,
    pack_axes,
    result_dtype,
)

SOURCE = "scan.cu"
THREADS = 256
WARP = 32

_FIELDS = (
    "length", "stride", "other", "start", "result_start", "reversed", "threads", "part", "parts",
    "totals",
)  # fmt: skip
GEOMETRY = np.dtype([("kept", AXES_DTYPE), *((name, np.int64) for name in _FIELDS)])


def variants() -> list[Variant]:
    """Every module this family can launch."""
    found = sorted({_compiled_as(dtype) for dtype in TAKES["sum"]})
    return [
        Variant(SOURCE, _defines(name, dtype)) for name in ("cumsum", "cumprod") for dtype in found
    ]


def _defines(operation: str, dtype: str) -> Defines:
    return (("OPERATION", operation), ("DTYPE", dtype))


@cache
def _compiled_as(dtype: str) -> str:
    """The dtype of the module: a sum modulo 2^64 does not depend on the sign."""
    return {"bool": "uint8", "uint64": "int64"}.get(dtype, dtype)


# ---------------------------------------------------------------------------------- geometry

_ENOUGH = 1024  # blocks, from which on cutting a series gains nothing
_BLOCKS = 2048  # to have where series are cut
_COLUMN_THREADS = 1 << 17  # the same for a thread per series: 992 for each of 132 multiprocessors


class Plan(NamedTuple):
    """The launches of a scan; ``parts`` is 1 where one does."""

    kernel: str
    grid: int
    geometry: np.ndarray
    totals: np.ndarray  # the geometry, to find the total of each part
    series: int
    parts: int
    prefix_grid: int
    prefix: np.ndarray


@lru_cache(maxsize=4096)
def plan(
    shape: tuple[int, ...], strides: tuple[int, ...], axis: int, reverse: bool, itemsize: int,
    pack: int, aligned: bool,
) -> Plan:  # fmt: skip
    """The launches for an array of ``strides`` in bytes, ``aligned`` for access in packs."""
    results = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        results[i - 1] = results[i] * shape[i]
    axes = [Axis(size, stride // itemsize, other)
            for size, stride, other in zip(shape, strides, results, strict=True)]  # fmt: skip
    along = axes.pop(axis)
    kept = merge(axes)
    if along.other == 1:
        return _plan_rows(kept, along, reverse, pack, aligned)
    return _plan_columns(kept, along, reverse)


def _plan_rows(
    kept: tuple[Axis, ...], along: Axis, reverse: bool, pack: int, aligned: bool
) -> Plan:
    packed = (
        along.stride == 1
        and aligned
        and all(n % pack == 0 for n in (along.size, *(axis.stride for axis in kept)))
    )
    tile = THREADS * 4 * (pack if packed else 1)
    threads = THREADS if along.size > tile // 4 else WARP
    series = _total(kept)
    blocks = divide_up(series, THREADS // threads)
    parts = 1
    if blocks < _ENOUGH and along.size >= 4 * tile:
        parts = min(divide_up(_BLOCKS, blocks), along.size // (2 * tile))
    part = divide_up(divide_up(along.size, parts), tile) * tile
    parts = divide_up(along.size, part)
    geometry = _geometry(
        kept, along, reverse and not packed, reversed=int(reverse and packed), threads=threads,
        part=part, parts=parts,
    )  # fmt: skip
    return _staged("rows_packed" if packed else "rows", blocks * parts, geometry, series, parts)


def _plan_columns(kept: tuple[Axis, ...], along: Axis, reverse: bool) -> Plan:
    series = _total(kept)
    parts = max(1, min(divide_up(_COLUMN_THREADS, series), along.size // 64, 4096))
    part = divide_up(along.size, parts)
    parts = divide_up(along.size, part)
    geometry = _geometry(kept, along, reverse, part=part, parts=parts)
    return _staged("columns", divide_up(series * parts, THREADS), geometry, series, parts)


def _total(axes: tuple[Axis, ...]) -> int:
    total = 1
    for axis in axes:
        total *= axis.size
    return total


def _geometry(kept: tuple[Axis, ...], along: Axis, backwards: bool, **fields: int) -> np.ndarray:
    """``backwards``: the axis is walked from its end, in the input and in the result."""
    made = np.zeros((), GEOMETRY)
    sign, last = (-1, along.size - 1) if backwards else (1, 0)
    made["kept"], made["length"] = pack_axes(kept), along.size
    made["stride"], made["other"] = sign * along.stride, sign * along.other
    made["start"], made["result_start"] = last * along.stride, last * along.other
    for name, value in fields.items():
        made[name] = value
    return made


def _staged(kernel: str, grid: int, geometry: np.ndarray, series: int, parts: int) -> Plan:
    if grid >= 1 << 31:
        raise ValueError(f"a scan of this shape takes {grid} blocks, and CUDA has 2^31 - 1")
    threads = THREADS if parts > 4 * WARP else WARP
    totals = (Axis(series, parts, parts),)
    prefix = _geometry(totals, Axis(parts, 1, 1), False, threads=threads, part=parts, parts=1)
    first = geometry.copy()
    first["totals"] = 1
    return Plan(
        kernel, grid, geometry, first, series, parts, divide_up(series, THREADS // threads), prefix
    )


# ------------------------------------------------------------------------------------ launch


class _Module(NamedTuple):
    """What follows from operation and dtype."""

    defines: Defines
    names: dict[str, str]  # of the kernels
    result: Any
    pack: int  # PACK in scan.cu
    part_bytes: int


@cache
def _module(operation: str, dtype: Any) -> _Module:
    compiled = _compiled_as(dtype_name(dtype))
    half = compiled in ("float16", "bfloat16")
    stems = ("rows_packed", "rows", "columns", "prefixes")
    return _Module(
        _defines(operation, compiled),
        {stem: f"{operation}_{stem}_{compiled}" for stem in stems},
        result_dtype("sum", dtype),
        2 if dtype.itemsize == 8 else 8 if half else 4,
        4 if half else 8,
    )


def scan(operation: str, x: Any, axis: int, reverse: bool = False) -> Any:
    """The running sum (``"cumsum"``) or product (``"cumprod"``) of ``x`` along ``axis``."""
    driver = current()
    defines, names, result, pack, part_bytes = _module(operation, x.dtype)
    y = driver.xp.empty(x.shape, result)
    aligned = driver.pointer(x) % (pack * x.itemsize) == 0
    chosen = plan(x.shape, x.strides, axis % x.ndim, reverse, x.itemsize, pack, aligned)
    symbol, grid, block = names[chosen.kernel], (chosen.grid,), (THREADS,)
    totals = y
    if chosen.parts > 1:
        totals = driver.xp.empty(chosen.series * chosen.parts * part_bytes, np.uint8)
        args = (x, y, totals, chosen.totals)
        launch(SOURCE, symbol, grid, block, args, defines=defines)
        prefix_grid, prefix = (chosen.prefix_grid,), (totals, chosen.prefix)
        launch(SOURCE, names["prefixes"], prefix_grid, block, prefix, defines=defines)
    launch(SOURCE, symbol, grid, block, (x, y, totals, chosen.geometry), defines=defines)
    return y


# ------------------------------------------------------------------- gradlab's rung of the ladder


def _accepts(x: Any, **_: Any) -> bool:
    return x.ndim > 0 and fits("sum", x)


@ladder.rung("reduction", accepts=_accepts)
def cumsum(x: Any, *, axis: int, reverse: bool = False) -> Any:
    """The running sum, or with ``reverse`` that of all that follow."""
    return scan("cumsum", x, axis, reverse)


@ladder.rung("reduction", accepts=_accepts)
def cumprod(x: Any, *, axis: int) -> Any:
    """The running product."""
    return scan("cumprod", x, axis)
