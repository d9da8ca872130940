"""Matrix products on tensor cores: which kernel, which tile, and the launch.

``matmul_mma.cu`` (``mma.sync``, compute capability 8.0 and later) takes every layout, alignment and
shape; ``matmul_wgmma.cu`` (``wgmma`` and the bulk copy engine, 9.0) takes large products of halves
whose rows are aligned to 16 bytes. The limits and rates that the choice is made with are estimates:
not yet measured on a GPU.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gradlab.kernels.cuda.driver import (
    Defines,
    Dim,
    Properties,
    Variant,
    current,
    divide_up,
    launch,
)

ACTIVATIONS = (None, "relu", "sigmoid", "tanh", "gelu")  # numbered as in tensor_cores.cuh
HALVES = ("float16", "bfloat16")
BATCH_AXES = 6
ALIGNMENTS = (16, 4)  # bytes; below that, elements are copied one by one

_NAMES = """
    m n k a_stride b_stride c_stride residual_row residual_column bias_stride splits split_k batches
    batch_axes
"""
_BATCH_NAMES = "batch_shape a_batch b_batch c_batch residual_batch"
_FLAG_NAMES = "activation has_bias has_residual wide_c wide_residual wide_bias"
PROBLEM = np.dtype([
    *((name, np.int64) for name in _NAMES.split()),
    *((name, np.int64, BATCH_AXES) for name in _BATCH_NAMES.split()),
    *((name, np.int64) for name in _FLAG_NAMES.split()),
])  # fmt: skip


class Tile(NamedTuple):
    """What a block computes, and each of its warps."""

    m: int
    n: int
    warp_m: int
    warp_n: int
    stages: int
    rate: float  # share of the tensor cores' rate that such tiles reach; an estimate

    @property
    def threads(self) -> int:
        return self.m // self.warp_m * (self.n // self.warp_n) * 32


# Two blocks of 128 x 128 find room on a multiprocessor of 100 KiB. The two tiles of 16 are for
# products that read one large matrix, such as a few rows times weights.
TILES = (
    Tile(128, 256, 64, 64, 4, 0.90),
    Tile(128, 128, 64, 64, 3, 0.85),
    Tile(64, 64, 32, 32, 4, 0.55),
    Tile(16, 128, 16, 32, 4, 0.20),
    Tile(128, 16, 32, 16, 4, 0.20),
)
# A warp's 64 x 64 does not fit the registers where TF32 is loaded by words (k not along memory) or
# elements are copied one by one.
TILES_TF32 = (Tile(128, 128, 64, 32, 3, 0.80), *TILES[2:])
TILES_UNALIGNED = TILES_TF32[:2]  # copies of less than 16 bytes are the limit


class Operand(NamedTuple):
    """How a kernel walks over A or B: lines of elements one after another in memory."""

    k_major: bool  # the lines lie along k
    stride: int  # elements from line to line
    batch: tuple[int, ...]
    alignment: int  # bytes that every line starts at a multiple of


class Plan(NamedTuple):
    """All of a launch that follows from shapes, strides and alignments."""

    source: str
    symbol: str
    defines: Defines
    grid: Dim
    block: Dim
    shared: int
    problem: Any
    partial: int  # floats of workspace; 0: the sum is not split


# ------------------------------------------------------------------------------------- calls


def accepts(
    a: Any, b: Any, bias: Any = None, activation: str | None = None, residual: Any = None,
    precision: str = "highest",
) -> bool:  # fmt: skip
    """True where `matmul` computes this call on tensor cores.

    float16 and bfloat16 always; float32 only where ``precision`` ("high" or "medium") allows its
    operands to be rounded to TF32.
    """
    name = a.dtype.name
    if name not in HALVES and not (name == "float32" and precision in ("high", "medium")):
        return False
    if a.dtype != b.dtype or activation not in ACTIVATIONS:
        return False
    if not 2 <= a.ndim <= 2 + BATCH_AXES or not 2 <= b.ndim <= 2 + BATCH_AXES:
        return False
    if bias is not None and (bias.dtype != a.dtype or bias.shape != b.shape[-1:]):
        return False
    if residual is not None:
        if residual.dtype != a.dtype:
            return False
        shape = _result_shape(a.shape, b.shape)
        if np.broadcast_shapes(residual.shape, shape) != shape:
            return False
    return current().properties().capability >= (8, 0)


def matmul(
    a: Any, b: Any, *, bias: Any = None, activation: str | None = None, residual: Any = None,
    out: Any = None, precision: str = "highest",
) -> Any:  # fmt: skip
    """``act(a @ b + bias) + residual`` on tensor cores, summed in float32 and rounded once.

    ``a`` is (…, m, k) and ``b`` (…, k, n), their leading axes broadcast; ``bias`` is (n,) and
    ``residual`` broadcasts to the result. All have one dtype, which is the result's. ``activation``
    is None, ``"relu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"`` (the exact one). The call is one
    that `accepts` accepts; ``precision`` has spoken there.
    """
    driver = current()
    xp, pointer = driver.xp, driver.pointer
    a, b = _with_lines(xp, a), _with_lines(xp, b)
    shape = _result_shape(a.shape, b.shape)
    result = out
    if out is None or out.strides[-1] != out.itemsize or out.shape != shape:
        result = xp.empty(shape, a.dtype)
    if result.size:
        described = [
            None if x is None else (x.shape, x.strides, pointer(x) % 16)
            for x in (a, b, result, bias, residual)
        ]
        plan = _plan(a.dtype.name, *described, activation, driver.properties())
        _launch(xp, plan, a, b, result, bias, residual)
    if out is not None and result is not out:
        out[...] = result
    return result if out is None else out


def _launch(xp: Any, plan: Plan, a: Any, b: Any, c: Any, bias: Any, residual: Any) -> None:
    # Any valid pointer stands for what there is none of; the problem's flags say what is read.
    bias = c if bias is None else bias
    residual = c if residual is None else residual
    partial = xp.empty(plan.partial, np.float32) if plan.partial else c
    launch(
        plan.source, plan.symbol, plan.grid, plan.block,
        (a, b, c, partial, bias, residual, plan.problem), defines=plan.defines, shared=plan.shared,
    )  # fmt: skip
    if plan.partial:
        pieces = c.size // c.shape[-1] * divide_up(c.shape[-1], 16 // c.itemsize)
        launch(
            plan.source, plan.symbol.replace("mma_", "mma_finish_"), (divide_up(pieces, 256),),
            (256,), (partial, c, bias, residual, plan.problem), defines=plan.defines,
        )  # fmt: skip


def _result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    if len(a) == len(b) == 2:
        return a[0], b[1]
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


def _with_lines(xp: Any, x: Any) -> Any:
    """``x``, or a copy where neither of its last two axes has its elements side by side."""
    rows, columns = x.shape[-2:]
    if x.strides[-1] == x.itemsize or x.strides[-2] == x.itemsize or rows == 1 or columns == 1:
        return x
    return xp.ascontiguousarray(x)


# ------------------------------------------------------------------------------------ layouts


def _operand(described: Any, x_axis: int, batch: tuple[int, ...], itemsize: int) -> Operand:
    """How to walk over a matrix whose axis ``x_axis`` (-2 or -1) is not k."""
    shape, strides, address = described
    k_axis = -3 - x_axis
    counts = {axis: shape[axis] for axis in (x_axis, k_axis)}
    elements = {axis: strides[axis] // itemsize for axis in (x_axis, k_axis)}
    batch_strides = _batch_strides(shape, strides, batch, itemsize)
    found = []
    for along, across in ((k_axis, x_axis), (x_axis, k_axis)):
        if elements[along] == 1 or counts[along] == 1:
            stride = elements[across] if counts[across] > 1 else 0
            bytes_ = math.gcd(address, 16, *(s * itemsize for s in (stride, *batch_strides)))
            alignment = next((n for n in ALIGNMENTS if bytes_ % n == 0), itemsize)
            found.append(Operand(along == k_axis, stride, batch_strides, alignment))
    return max(found, key=lambda each: (each.alignment, each.k_major))


def _batch_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], batch: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """The strides, in elements, of an operand's batch axes broadcast to ``batch``."""
    missing = len(batch) - (len(shape) - 2)
    own = zip(shape[:-2], strides[:-2], strict=True)
    return (*[0] * missing, *(0 if size == 1 else stride // itemsize for size, stride in own))


def _merge_axes(shape: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Batch axes as few as possible: (size, stride, stride, …) of each, outermost first."""
    axes = [each for each in zip(shape, *strides, strict=True) if each[0] != 1]
    for i in range(len(axes) - 1, 0, -1):
        outer, inner = axes[i - 1], axes[i]
        if all(o == i_ * inner[0] for o, i_ in zip(outer[1:], inner[1:], strict=True)):
            axes[i - 1 : i + 1] = [(outer[0] * inner[0], *inner[1:])]
    return axes


# ------------------------------------------------------------------------------------- plans


@lru_cache(maxsize=4096)
def _plan(
    dtype: str, a: Any, b: Any, c: Any, bias: Any, residual: Any, activation: str | None,
    properties: Properties,
) -> Plan:  # fmt: skip
    """The launch for operands that are described by (shape, strides, address modulo 16)."""
    itemsize = 4 if dtype == "float32" else 2
    *batch, m, n = c[0]
    k = a[0][-1]
    walk_a = _operand(a, -2, tuple(batch), itemsize)
    walk_b = _operand(b, -1, tuple(batch), itemsize)
    problem, values = np.zeros((), PROBLEM), {"m": m, "n": n, "k": k}
    values |= {"a_stride": walk_a.stride, "b_stride": walk_b.stride}
    values |= _outputs(c, bias, residual, tuple(batch), itemsize)
    values |= {"activation": ACTIVATIONS.index(activation), "batches": math.prod(batch)}
    batch_strides = [walk_a.batch, walk_b.batch, _batch_strides(*c[:2], tuple(batch), itemsize)]
    batch_strides.append(values.pop("residual_batch"))
    axes = _merge_axes(tuple(batch), *batch_strides)
    values["batch_axes"] = len(axes)
    for column, name in zip(zip(*axes, strict=True), _BATCH_NAMES.split(), strict=False):
        problem[name][: len(axes)] = column
    aligned = min(walk_a.alignment, walk_b.alignment) == 16
    tile, splits, split_k = _tile(m, n, k, values["batches"], dtype, aligned, properties)
    values |= {"splits": splits, "split_k": split_k}
    for name, value in values.items():
        problem[name] = value
    defines = _defines(dtype, tile, walk_a, walk_b)
    blocks = divide_up(m, tile.m) * divide_up(n, tile.n) * splits * values["batches"]
    return Plan(
        "matmul_mma.cu", f"matmul_mma_{dtype}", defines, (blocks,), (tile.threads,),
        tile.stages * (tile.m + tile.n) * 64, problem,
        splits * values["batches"] * m * n if splits > 1 else 0,
    )  # fmt: skip


def _outputs(
    c: Any, bias: Any, residual: Any, batch: tuple[int, ...], itemsize: int
) -> dict[str, Any]:
    """The fields that say how C, the bias and the residual are walked over."""
    shape, strides, address = c
    found: dict[str, Any] = {
        "c_stride": strides[-2] // itemsize,
        "wide_c": _aligned(address, *strides[:-1]),
        "has_bias": bias is not None,
        "has_residual": residual is not None,
        "residual_batch": (0,) * len(batch),
    }
    if bias is not None:
        _, (stride,), address = bias
        found |= {"bias_stride": stride // itemsize}
        found |= {"wide_bias": stride == itemsize and _aligned(address)}
    if residual is not None:
        own, strides, address = residual
        own, strides = (1,) * (2 - len(own)) + own, (0,) * (2 - len(own)) + strides
        row, column = (
            0 if size == 1 else s for size, s in zip(own[-2:], strides[-2:], strict=True)
        )
        found |= {"residual_row": row // itemsize, "residual_column": column // itemsize}
        found |= {"residual_batch": _batch_strides(own, strides, batch, itemsize)}
        found |= {"wide_residual": column == itemsize and _aligned(address, row, *strides[:-2])}
    return found


def _aligned(address: int, *strides: int) -> bool:
    return not any(each % 16 for each in (address, *strides))


def _defines(dtype: str, tile: Tile, a: Operand, b: Operand) -> Defines:
    return (
        ("DTYPE", dtype), ("TILE_M", tile.m), ("TILE_N", tile.n), ("WARP_M", tile.warp_m),
        ("WARP_N", tile.warp_n), ("STAGES", tile.stages), ("A_K_MAJOR", int(a.k_major)),
        ("B_K_MAJOR", int(b.k_major)), ("ALIGN", min(a.alignment, b.alignment)),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _tile(
    m: int, n: int, k: int, batches: int, dtype: str, aligned: bool, properties: Properties
) -> tuple[Tile, int, int]:
    """The tile, the number of splits of k and the length of each that take the fewest cycles.

    A block's cycles per k are those of its multiply-adds or those of its bytes from L2. Blocks come
    in waves, each as long as a block; a split sum is written and read once more.
    """
    itemsize = 4 if dtype == "float32" else 2
    macs = 2048 / itemsize  # per cycle and multiprocessor: 1024 of halves, 512 of TF32
    tile_k = 64 // itemsize
    best = (math.inf, TILES[0], 1, tile_k)
    for tile in _tiles(dtype, aligned):
        tiles = divide_up(m, tile.m) * divide_up(n, tile.n) * batches
        per_k = max(tile.m * tile.n / (macs * tile.rate), (tile.m + tile.n) * itemsize / 24)
        for splits in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
            split_k = max(divide_up(divide_up(k, splits), tile_k), 1) * tile_k
            if splits > 1 and (split_k < 8 * tile_k or (splits - 1) * split_k >= k):
                break
            waves = divide_up(tiles * splits, properties.multiprocessors)
            cycles = waves * (split_k * per_k + 1500)
            if splits > 1:
                moved = 4 * (splits + 1) * m * n * batches
                cycles += 4000 + moved / (16 * properties.multiprocessors)
            best = min(best, (cycles, tile, splits, split_k))
    return best[1:]


def _tiles(dtype: str, aligned: bool) -> tuple[Tile, ...]:
    if not aligned:
        return TILES_UNALIGNED
    return TILES_TF32 if dtype == "float32" else TILES


def variants() -> list[Variant]:
    """Every module that `matmul` can launch."""
    found = []
    for dtype in (*HALVES, "float32"):
        for align in sorted({*ALIGNMENTS, 4 if dtype == "float32" else 2}):
            for tile in _tiles(dtype, align == 16):
                for a, b in product((False, True), repeat=2):
                    operands = Operand(a, 0, (), align), Operand(b, 0, (), align)
                    defines = _defines(dtype, tile, *operands)
                    found.append(Variant("matmul_mma.cu", defines, (8, 0)))
    return found
