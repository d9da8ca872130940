"""softmax and log_softmax on the device: which kernel for which shape, and its geometry.

Bytes: forward reads x once and writes y once, backward reads y and gy and writes gx. That is all
where a row fits the registers of a block (16,384 values); longer rows are read twice, the second
time from the L2 where it holds the rows that are under way. So the time to reach is 2 (backward
3) times the bytes of x over the bandwidth. Not yet measured.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

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

SOURCE = "softmax.cu"
OPERATIONS = ("softmax", "log_softmax", "softmax_backward", "log_softmax_backward")
THREADS = 256
STREAM_THREADS = 512
_FEW_ROWS = 256  # rows, below which a block each would leave multiprocessors without work
_PART = 16_384  # values, of which a part is made of at least so many: two accesses for 64 KB


class Plan(NamedTuple):
    """The kernel for a shape, and its launch; ``parts`` > 0 for several blocks to a row."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    parts: int = 0
    length: int = 0


def variants() -> list[Variant]:
    """Every module this family can launch."""
    return [Variant(SOURCE, _defines(name, dtype)) for dtype in FLOATS for name in OPERATIONS]


def _defines(operation: str, dtype: str) -> Defines:
    return (("OPERATION", operation), ("DTYPE", dtype))


@lru_cache(maxsize=1024)
def plan(outer: int, n: int, inner: int, itemsize: int, aligned: bool) -> Plan:
    """Choose the kernel for an array (outer, n, inner) along its middle axis.

    ``aligned``: the address is a multiple of 16 bytes.
    """
    if inner > 1:
        columns = min(32, 1 << (inner - 1).bit_length())
        rows = max(1, min(THREADS // columns, 1 << max(0, n // 4).bit_length()))
        return Plan("columns", (outer * divide_up(inner, columns),), (columns, rows))
    pack = 16 // itemsize
    packed = aligned and n % pack == 0
    suffix = "_packed" if packed else ""
    few = max(4, pack) if packed else 4
    if n <= 16:
        return Plan("rows_4", (divide_up(outer, THREADS // 4),), (THREADS,))
    values = 8 if itemsize == 8 else 16  # that a thread keeps in registers
    if n <= 32 * few:
        return Plan(f"rows_32_few{suffix}", (divide_up(outer, THREADS // 32),), (THREADS,))
    if n <= 32 * values:
        return Plan(f"rows_32{suffix}", (divide_up(outer, THREADS // 32),), (THREADS,))
    if n <= 256 * values:
        return Plan(f"rows_256{suffix}", (outer,), (256,))
    if n <= 1024 * (4 if itemsize == 8 else 16) and packed:
        return Plan("rows_1024_packed", (outer,), (1024,))
    if outer < _FEW_ROWS and n >= 2 * _PART:
        length = max(_PART, divide_up(n * outer, 4 * _FEW_ROWS))
        length = divide_up(length, pack) * pack
        parts = divide_up(n, length)
        return Plan(f"stream{suffix}", (parts, outer), (STREAM_THREADS,), parts, length)
    return Plan(f"stream{suffix}", (outer,), (STREAM_THREADS,))


def _run(operation: str, x: Any, gy: Any, axis: int) -> Any:
    """The result in the layout of ``x``, which is copied only where it has gaps."""
    if x.flags.c_contiguous and gy.flags.c_contiguous:
        return _run_contiguous(operation, x, gy, axis)
    contiguous = current().xp.ascontiguousarray
    # The axes by falling stride: in that order an array without gaps is contiguous.
    order = tuple(sorted(range(x.ndim), key=lambda i: -abs(x.strides[i])))
    x, gy = (contiguous(each.transpose(order)) for each in (x, gy))
    y = _run_contiguous(operation, x, gy, order.index(axis))
    return y.transpose(tuple(sorted(range(y.ndim), key=order.__getitem__)))


def _run_contiguous(operation: str, x: Any, gy: Any, axis: int) -> Any:
    driver = current()
    y = driver.xp.empty(x.shape, x.dtype)
    pointer = driver.pointer
    aligned = (pointer(x) | pointer(gy) | pointer(y)) % 16 == 0
    sizes = _sizes(x.shape, axis)
    _launch(operation, plan(*sizes, x.itemsize, aligned), x, gy, y, sizes)
    return y


@lru_cache(maxsize=1024)
def _sizes(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """An array as (outer, axis, inner)."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _launch(operation: str, chosen: Plan, x: Any, gy: Any, y: Any, sizes: Any) -> None:
    outer, n, inner = sizes
    name = dtype_name(x.dtype)
    defines = _defines(operation, name)

    def go(kernel: str, *args: Any) -> None:
        symbol = f"{operation}_{kernel}_{name}"
        launch(SOURCE, symbol, chosen.grid, chosen.block, args, defines=defines)

    if chosen.kernel == "columns":
        go("columns", x, gy, y, outer, n, inner)
    elif chosen.kernel.startswith("rows"):
        go(chosen.kernel, x, gy, y, outer, n)
    elif not chosen.parts:
        go(chosen.kernel, x, gy, y, n)
    else:
        wide = "float64" if name == "float64" else "float32"
        held = 1 if operation.endswith("backward") else 2  # a sum; or a maximum and a sum
        parts = current().xp.empty((outer, chosen.parts, held), wide)
        first, second = (
            chosen.kernel.replace("stream", f"stream_{stage}") for stage in ("parts", "apply")
        )
        go(first, x, gy, parts, n, chosen.length)
        go(second, x, gy, y, parts, n, chosen.length)


def _accepts(x: Any, *, axis: int) -> bool:
    return dtype_name(x.dtype) in FLOATS and x.size > 0 and x.ndim > 0


def _accepts_backward(gy: Any, y: Any, *, axis: int) -> bool:
    return gy.dtype == y.dtype and _accepts(y, axis=axis)


@ladder.rung("softmax", accepts=_accepts)
def softmax(x: Any, *, axis: int) -> Any:
    """``exp(x) / Σ exp(x)`` along ``axis``, of a floating array that is not empty."""
    return _run("softmax", x, x, axis)


@ladder.rung("softmax", accepts=_accepts)
def log_softmax(x: Any, *, axis: int) -> Any:
    """``x - log Σ exp(x)`` along ``axis``."""
    return _run("log_softmax", x, x, axis)


@ladder.rung("softmax", accepts=_accepts_backward)
def softmax_backward(gy: Any, y: Any, *, axis: int) -> Any:
    """The gradient of `softmax` with respect to its input, from its result ``y``."""
    return _run("softmax_backward", y, gy, axis)


@ladder.rung("softmax", accepts=_accepts_backward)
def log_softmax_backward(gy: Any, y: Any, *, axis: int) -> Any:
    """The gradient of `log_softmax` with respect to its input, from its result ``y``."""
    return _run("log_softmax_backward", y, gy, axis)
