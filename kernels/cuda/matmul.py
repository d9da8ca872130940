"""Matrix products: which kernel of ``matmul.cu`` computes which, with what geometry.

Three kinds of kernel, by where the time goes. With m, n and k all large a product does
``2·m·n·k`` operations on ``(m·k + k·n + m·n)`` values: the *tiled* kernels. With m or n of 16 or
less each value of the large operand takes part in few operations and the time is that of reading it
once: the *skinny* kernels. Too few tiles to fill the machine and a long k: k is cut into parts,
which a second kernel adds up in order, so that the same product has the same bits every time.

What to expect of float32 on an H200 (132 multiprocessors; 67 TFLOP/s and 4.8 TB/s are its data
sheet's). The inner loop of the large tile issues its 1024 multiply-adds in 1150 (both operands
copied directly) to 1210 instructions (both transposed): at most 0.85 to 0.89 of the peak.

====================  ===================  ======================  =============================
m x k x n             operations per byte  bound by                expected, not yet measured
====================  ===================  ======================  =============================
4096 x 4096 x 4096    683                  arithmetic: 2.05 ms     2.6 ms: 4 waves, 0.97 full
1024 x 1024 x 1024    171                  arithmetic: 32 µs       47 µs: 256 tiles, 2 each
256 x 784 x 256       55                   latency                 6 µs: 16 tiles x 8 parts, sum
256 x 256 x 10        5                    latency                 3 µs: skinny, one launch
4096 x 4096 x 1       0.5                  memory: 14 µs           17 µs: skinny
====================  ===================  ======================  =============================
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from gradlab.kernels import ladder
from gradlab.kernels.cuda import driver
from gradlab.kernels.cuda.driver import Defines, Variant, divide_up, dtype_name

SOURCE = "matmul.cu"
ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2, "tanh": 3, "gelu": 4}

# The kernels that compute each dtype. Modulo 2^n it does not matter how a number is signed.
KERNEL_DTYPES = {
    "float32": "float32", "float64": "float64", "float16": "float16", "bfloat16": "bfloat16",
    "int8": "uint8", "int16": "uint16", "int32": "uint32", "int64": "uint64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip
FLOATING = ("float32", "float64", "float16", "bfloat16")
# What a kernel adds up in, and so what the parts of a long k are stored as.
SUMS = {"float16": "float32", "bfloat16": "float32", "uint8": "uint32", "uint16": "uint32"}
HALVES = ("float16", "bfloat16")

# How exact products of float32 are: "highest" is float32 throughout, the others allow the tensor
# cores, which round the operands to TF32. Set by gradlab.set_float32_matmul_precision.
PRECISIONS = ("highest", "high", "medium")
precision = "highest"


# ------------------------------------------------------------------------------------ geometry


class Tile(NamedTuple):
    """A tiled kernel, and what is assumed of its speed: not yet measured."""

    edge: int  # a block computes edge x edge values
    threads: int
    alone: float  # cycles per k of a block that has a multiprocessor to itself
    rate: float  # share of the peak when blocks share it


# A multiprocessor does 128 multiply-adds per cycle: edge² / 128 cycles per k and block, at best.
TILES = (Tile(128, 256, 170, 0.88), Tile(64, 128, 45, 0.80), Tile(32, 64, 30, 0.55))
# float64 and 64-bit integers do with the one tile that their registers allow, other integers too.
EDGES = {"float32": (128, 64, 32), "float16": (128, 64), "bfloat16": (128, 64)}
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SHORTEST_PART = 64
LONGEST_PART = 8192  # of a thin product: values added one after another, which costs digits
START = 1500  # cycles from a block's start to its first product and from its last to its end
SECOND_LAUNCH = 3500  # cycles of the kernel that adds up the parts, beside its traffic
BYTES_PER_CYCLE = 2500.0  # of device memory


def choose_tile(
    m: int, n: int, k: int, batches: int, dtype: str, multiprocessors: int
) -> tuple[Tile, int]:
    """The tile and the number of parts of k for which the estimated time is the shortest."""
    best: tuple[float, Tile, int] | None = None
    for tile in TILES:
        if tile.edge not in EDGES.get(dtype, (64,)):
            continue
        tiles = divide_up(m, tile.edge) * divide_up(n, tile.edge) * batches
        for parts in PARTS:
            # Parts are for machines that the tiles do not fill; each costs a copy of C.
            if parts > 1 and (k < parts * SHORTEST_PART or tiles >= 2 * multiprocessors):
                break
            waves = divide_up(tiles * parts, multiprocessors)
            per_k = max(tile.alone, waves * tile.edge**2 / 128 / tile.rate)
            cycles = START + per_k * divide_up(k, parts)
            if parts > 1:
                cycles += SECOND_LAUNCH + 2 * parts * m * n * batches * 4 / BYTES_PER_CYCLE
            if best is None or cycles < best[0]:
                best = (cycles, tile, parts)
    assert best is not None
    return best[1], best[2]


# The skinny kernels are compiled for one column and for up to 16.
SKINNY = 16
SHORTEST_ROW = 32  # along k, below which lanes that go along k would have nothing to do
WARPS = 8


class Skinny(NamedTuple):
    """The geometry of a skinny kernel."""

    kernel: str
    columns: int
    vector: bool  # 16-byte reads of the large operand
    warps_k: int  # warps of a block that share its part of k
    row_blocks: int
    parts: int


def values_per_access(itemsize: int) -> int:
    """How many values one access of a skinny kernel reads: 16 bytes, 4 values at most."""
    return 2 if itemsize == 8 else 4


def choose_skinny(
    m: int, n: int, k: int, batches: int, itemsize: int, kernel: str, aligned: bool,
    multiprocessors: int,
) -> Skinny:  # fmt: skip
    """Spread a product with n <= 16 columns over the machine."""
    columns = 1 if n == 1 else SKINNY
    width = values_per_access(itemsize)
    if kernel == "rows_along_lanes":
        rows = 2 if itemsize == 8 and columns == SKINNY else 4
        step = 32 * (width if aligned else 1)  # k of one warp at a time
        vector, shortest = aligned, WARPS * step
        warps_k = power_of_two(k // step)
    else:
        warps_k, shortest = power_of_two(k // 8), 256
        rows = 32 * width
        vector = aligned and divide_up(m, rows * WARPS // warps_k) * batches >= multiprocessors
        rows = rows if vector else 32
    row_blocks = divide_up(m, rows * WARPS // warps_k)
    wanted = divide_up(2 * multiprocessors, row_blocks * batches)
    return Skinny(kernel, columns, vector, warps_k, row_blocks, max(1, min(wanted, k // shortest)))


def power_of_two(limit: int) -> int:
    """The largest of 1, 2, 4 and 8 that is not above ``limit``; 1 for less."""
    return next((each for each in (8, 4, 2) if each <= limit), 1)


# ------------------------------------------------------------------------------- how it is laid out

AXES = 8
_FIELDS = [
    "m", "n", "k", "a_m", "a_k", "b_k", "b_n", "c_m", "c_n", "bias_m", "bias_n", "residual_m",
    "residual_n", "splits", "split_k", "tiles_m", "tiles_n", "activation", "has_bias",
    "has_residual", "vector_a", "vector_b", "warps_k", "batches", "axes",
]  # fmt: skip
PRODUCT = np.dtype(
    [(name, np.int64) for name in _FIELDS]
    + [(name, np.int64, AXES) for name in ("shape", "a_batch", "b_batch", "residual_batch")]
)


class Layout(NamedTuple):
    """A product of matrices as the kernels see it; strides are in elements."""

    m: int
    n: int
    k: int
    a: tuple[int, int]  # strides of A along m and k
    b: tuple[int, int]  # of B along k and n
    c: tuple[int, int]  # of C along m and n
    bias: tuple[int, int]
    residual: tuple[int, int]
    # The axes of the batch, each with its size and its strides in A, B and the residual.
    batch: tuple[tuple[int, int, int, int], ...]
    batches: int

    def exchanged(self) -> Layout:
        """Of the transposed product: Cᵀ = Bᵀ·Aᵀ."""
        return Layout(
            self.n, self.m, self.k, self.b[::-1], self.a[::-1], self.c[::-1], self.bias[::-1],
            self.residual[::-1], tuple((size, b, a, r) for size, a, b, r in self.batch),
            self.batches,
        )  # fmt: skip


def lay_out(a: Strided, b: Strided, bias: Strided | None, residual: Strided | None) -> Layout:
    """Read a product off the shapes and strides of its operands."""
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    full = (*outer, m, n)
    strides = [
        _broadcast(a.shape[:-2], a.strides[:-2], outer),
        _broadcast(b.shape[:-2], b.strides[:-2], outer),
        _broadcast(residual.shape, residual.strides, full) if residual else (0,) * len(full),
    ]
    a_m, r_m = a.strides[-2], strides[2][-2]
    batch = _merged(zip(outer, *(each[: len(outer)] for each in strides), strict=True))
    # A batch of A against one B is a taller A.
    if len(batch) == 1 and batch[0][2] == 0 and n and (m == 1 or batch[0][1] == a_m * m):
        size, a_step, _, r_step = batch[0]
        if residual is None or m == 1 or r_step == r_m * m:
            a_m, r_m = (a_step, r_step) if m == 1 else (a_m, r_m)
            m, batch = m * size, ()
    batches = 1
    for size, *_ in batch:
        batches *= size
    return Layout(
        m, n, k, (a_m, a.strides[-1]), (b.strides[-2], b.strides[-1]), (n, 1),
        (0, bias.strides[0] if bias else 0), (r_m, strides[2][-1]), batch, batches,
    )  # fmt: skip


class Strided(NamedTuple):
    """The shape and the strides, in elements, of an array; is its memory aligned to 16 bytes?"""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    aligned: bool


def _broadcast(
    shape: tuple[int, ...], strides: tuple[int, ...], to: tuple[int, ...]
) -> tuple[int, ...]:
    """The strides of an array that is broadcast to a shape."""
    kept = (0 if size == 1 else step for size, step in zip(shape, strides, strict=True))
    return (0,) * (len(to) - len(shape)) + tuple(kept)


def _merged(axes: Any) -> tuple[tuple[int, int, int, int], ...]:
    """Axes of a batch, those of size 1 left out, neighbours joined where all strides allow it."""
    found: list[tuple[int, int, int, int]] = []
    for size, *steps in axes:
        if size == 1:
            continue
        if found:
            outer, *before = found[-1]
            if all(step * size == wide for step, wide in zip(steps, before, strict=True)):
                found[-1] = (outer * size, *steps)
                continue
        found.append((size, *steps))
    return tuple(found)


# ---------------------------------------------------------------------------------------- plans


class Launch(NamedTuple):
    symbol: str
    defines: Defines
    blocks: int
    threads: int
    product: np.ndarray  # a PRODUCT


class Plan(NamedTuple):
    """What computes all products of some layout."""

    shape: tuple[int, ...]  # of C
    copies: tuple[bool, bool] = (False, False)  # make these operands contiguous and plan again
    tiled: bool = False  # rather than skinny or empty
    exchange: bool = False  # the kernel takes B for A
    product: Launch | None = None
    parts: int = 1
    sum: Launch | None = None


DIRECT, TRANSPOSED, GENERAL = "DIRECT", "TRANSPOSED", "GENERAL"
MODES = ((DIRECT, DIRECT), (DIRECT, TRANSPOSED), (TRANSPOSED, DIRECT), (TRANSPOSED, TRANSPOSED))


Memory = tuple[tuple[int, ...], tuple[int, ...]]  # the shape and the strides of an array, in bytes


@lru_cache(maxsize=4096)
def plan(
    a: Memory, b: Memory, bias: Memory | None, residual: Memory | None, aligned: tuple[bool, bool],
    dtype: str, activation: str | None, multiprocessors: int,
) -> Plan:  # fmt: skip
    """Choose the kernels for a layout; remembered, as a training step repeats its products."""
    options = _Options(dtype, activation, bias is not None, residual is not None)
    left, right = (_strided(x, options.itemsize, at) for x, at in zip((a, b), aligned, strict=True))
    copies = _scattered(left, right.shape[-1]), _scattered(right, left.shape[-2])
    if any(copies):
        return Plan((), copies)
    layout = lay_out(left, right, *(x and _strided(x, options.itemsize) for x in (bias, residual)))
    outer = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    empty = Plan((*outer, left.shape[-2], right.shape[-1]))
    if not layout.m * layout.n * layout.batches:
        return empty
    if not layout.k:  # nothing to multiply: C = activation(0 + bias) + residual
        return empty._replace(parts=0, sum=_sum_launch(layout, 0, options))
    exchange, kernel = _skinny_kernel(layout)
    if kernel:
        given = (left, right) if not exchange else (right, left)
        launch, parts = _skinny_launch(
            layout.exchanged() if exchange else layout, kernel, given[0].aligned, given[1].aligned,
            options, multiprocessors,
        )  # fmt: skip
    else:
        launch, parts = _tile_launch(layout, *aligned, options, multiprocessors)
    return empty._replace(
        tiled=not kernel, exchange=exchange, product=launch, parts=parts,
        sum=_sum_launch(layout, parts, options),
    )  # fmt: skip


def _strided(memory: Memory, itemsize: int, aligned: bool = False) -> Strided:
    shape, strides = memory
    return Strided(shape, tuple([step // itemsize for step in strides]), aligned)


REREADS = 3  # by how many tiles an operand is read before a copy pays


def _scattered(x: Strided, other_edge: int) -> bool:
    """Whether reading ``x`` as it lies would cost more than a contiguous copy.

    The kernels read any strides, but with no unit stride among the last two each value costs a
    sector of 32 bytes, every time it is read.
    """
    # A stride of 0 reads one value again and again, from the cache.
    far = min(map(abs, x.strides[-2:])) > 1 and min(x.shape[-2:]) > 1 and 0 not in x.strides
    return far and other_edge > REREADS * TILES[0].edge


class _Options(NamedTuple):
    dtype: str
    activation: str | None
    has_bias: bool
    has_residual: bool

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


def _skinny_kernel(layout: Layout) -> tuple[bool, str]:
    """Whether to exchange the operands, and the skinny kernel; "" where a tiled one is better."""
    exchange = layout.n > SKINNY
    if exchange and layout.m > SKINNY:
        return False, ""
    along_m, along_k = layout.b[::-1] if exchange else layout.a
    if along_k == 1 and layout.k >= SHORTEST_ROW:
        return exchange, "rows_along_lanes"
    if along_m == 1 and (layout.n if exchange else layout.m) >= SHORTEST_ROW:
        return exchange, "columns_along_lanes"
    return False, ""


def _skinny_launch(
    layout: Layout, kernel: str, aligned: bool, b_aligned: bool, options: _Options,
    multiprocessors: int,
) -> tuple[Launch, int]:  # fmt: skip
    dtype, size = options.dtype, options.itemsize
    width = values_per_access(size)
    row_step = layout.a[0 if kernel == "rows_along_lanes" else 1]
    fits = aligned and _aligned(width, row_step, [step[1] for step in layout.batch])
    chosen = choose_skinny(
        layout.m, layout.n, layout.k, layout.batches, size, kernel, fits, multiprocessors
    )
    vector_b = (
        chosen.vector and b_aligned and layout.b[0] == 1
        and _aligned(width, layout.b[1], [step[2] for step in layout.batch])
    )  # fmt: skip
    part, parts = _cut(layout.k, chosen.parts)
    product = _product(
        layout, options, parts=parts, part=part, tiles=(chosen.row_blocks, 1),
        vector_a=chosen.vector, vector_b=vector_b, warps_k=chosen.warps_k,
    )  # fmt: skip
    defines = (("DTYPE", dtype), ("COLUMNS", chosen.columns))
    blocks = chosen.row_blocks * parts * layout.batches
    return Launch(
        f"{kernel}_{dtype}", defines, _checked(blocks, layout), 32 * WARPS, product
    ), parts


def _tile_launch(
    layout: Layout, a_aligned: bool, b_aligned: bool, options: _Options, multiprocessors: int
) -> tuple[Launch, int]:
    dtype = options.dtype
    m, n, k, batches = layout.m, layout.n, layout.k, layout.batches
    tile, parts = choose_tile(m, n, k, batches, dtype, multiprocessors)
    if min(m, n) <= SKINNY:  # which the copies of C are small for
        parts = max(parts, k // LONGEST_PART)
    part, parts = _cut(k, parts)
    tiles = divide_up(m, tile.edge), divide_up(n, tile.edge)
    modes = (GENERAL, GENERAL)
    if dtype == "float32":
        found = (
            _mode(layout.a[0], layout.a[1], m, k, a_aligned, [step[1] for step in layout.batch]),
            _mode(layout.b[1], layout.b[0], n, k, b_aligned, [step[2] for step in layout.batch]),
        )
        modes = found if GENERAL not in found else modes
    defines = tile_defines(dtype, tile.edge, *modes)
    product = _product(layout, options, parts=parts, part=part, tiles=tiles)
    blocks = _checked(tiles[0] * tiles[1] * parts * batches, layout)
    return Launch(f"matmul_{dtype}", defines, blocks, tile.threads, product), parts


def tile_defines(dtype: str, edge: int, a_mode: str, b_mode: str) -> Defines:
    """The macros of a tiled kernel."""
    return (("DTYPE", dtype), ("TILE", edge), ("A_MODE", a_mode), ("B_MODE", b_mode))


def _mode(along_edge: int, along_k: int, edge: int, k: int, aligned: bool, batch: list[int]) -> str:
    """How the tiled kernel copies an operand whose axes are k and m (or n)."""
    if along_k == 1 or k == 1:
        return TRANSPOSED
    if (along_edge == 1 or edge == 1) and aligned and _aligned(4, along_k, batch):
        return DIRECT
    return GENERAL


def _aligned(width: int, step: int, batch: list[int]) -> bool:
    """Whether rows ``step`` apart, in matrices ``batch`` apart, all begin at 16 bytes."""
    return step % width == 0 and all(each % width == 0 for each in batch)


def _cut(k: int, parts: int) -> tuple[int, int]:
    """The length of each of ``parts`` parts of k, a multiple of 16, and how many it takes."""
    part = divide_up(divide_up(k, parts), 16) * 16
    return part, divide_up(k, part)


def _checked(blocks: int, layout: Layout) -> int:
    if blocks >= 2**31:
        sizes = f"{layout.batches} products of {layout.m}x{layout.k} and {layout.k}x{layout.n}"
        raise ValueError(f"{sizes} need more than 2^31 blocks; multiply them in several calls")
    return blocks


def _sum_launch(layout: Layout, parts: int, options: _Options) -> Launch | None:
    if parts == 1:
        return None
    size = layout.m * layout.n * layout.batches
    many = parts >= 32 and size < 1 << 16
    blocks = _checked(divide_up(size, WARPS if many else 32 * WARPS), layout)
    product = _product(layout, options, parts=parts, part=0, tiles=(1, 1))
    symbol = f"sum_{'many_' if many else ''}parts_{options.dtype}"
    return Launch(
        symbol, (("DTYPE", options.dtype),), _checked(blocks, layout), 32 * WARPS, product
    )


def _product(
    layout: Layout, options: _Options, *, parts: int, part: int, tiles: tuple[int, int],
    vector_a: bool = False, vector_b: bool = False, warps_k: int = 1,
) -> np.ndarray:  # fmt: skip
    axes = [[each[i] for each in layout.batch] for i in range(4)]
    return np.array(
        (
            layout.m, layout.n, layout.k, *layout.a, *layout.b, *layout.c, *layout.bias,
            *layout.residual, parts, part, *tiles, ACTIVATIONS[options.activation],
            options.has_bias, options.has_residual, vector_a, vector_b, warps_k, layout.batches,
            len(layout.batch), *([*each, *[0] * (AXES - len(each))] for each in axes),
        ),
        PRODUCT,
    )  # fmt: skip


# ------------------------------------------------------------------------------------- the family


@cache
def kernel_dtype(dtype: Any) -> str:
    """The dtype whose kernels compute ``dtype``; "" where there are none."""
    return KERNEL_DTYPES.get(dtype_name(dtype), "")


def accepts(
    a: Any, b: Any, *, bias: Any = None, activation: str | None = None, residual: Any = None
) -> bool:
    """True for operands of one dtype, matrices or batches of them, that fit together."""
    array_type = driver.current().array_type
    if a.__class__ is not array_type or b.__class__ is not array_type:
        return False
    dtype = a.dtype
    known = kernel_dtype(dtype)
    if not known or dtype != b.dtype or not 2 <= a.ndim <= AXES + 2 or not 2 <= b.ndim <= AXES + 2:
        return False
    if a.shape[-1] != b.shape[-2]:
        return False
    if activation is not None and (activation not in ACTIVATIONS or known not in FLOATING):
        return False
    if bias is not None and (bias.dtype != dtype or bias.shape != b.shape[-1:]):
        return False
    if residual is None and a.ndim == b.ndim == 2:
        return True
    try:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        return residual is None or (
            residual.dtype == dtype and np.broadcast_shapes(residual.shape, shape) == shape
        )
    except ValueError:
        return False


@ladder.rung("matmul", accepts=accepts)
def matmul(
    a: Any, b: Any, *, bias: Any = None, activation: str | None = None, residual: Any = None
) -> Any:
    """Return ``activation(a @ b + bias) + residual``, a new C-contiguous array.

    ``a`` is (…, m, k) and ``b`` (…, k, n), of one dtype, in any memory layout; the axes in front
    broadcast. ``bias`` is (n,), ``residual`` broadcasts to the result (…, m, n), ``activation`` is
    one of relu, sigmoid, tanh, gelu (with the exact erf) or None, for floating dtypes. float16 and
    bfloat16 are computed in float32 and rounded once, integers wrap around.

    Products of halves run on tensor cores where those take them, and of float32 where the
    precision allows it; not the skinny ones, whose time is that of reading the operands.
    """
    found = driver.current()
    dtype = kernel_dtype(a.dtype)
    chosen = plan(
        (a.shape, a.strides), (b.shape, b.strides),
        None if bias is None else (bias.shape, bias.strides),
        None if residual is None else (residual.shape, residual.strides),
        (found.pointer(a) % 16 == 0, found.pointer(b) % 16 == 0), dtype, activation,
        found.properties().multiprocessors,
    )  # fmt: skip
    if True in chosen.copies:
        a, b = (
            found.xp.ascontiguousarray(x) if copied else x
            for x, copied in zip((a, b), chosen.copies, strict=True)
        )
        return matmul(a, b, bias=bias, activation=activation, residual=residual)
    if chosen.tiled and (dtype in HALVES or (dtype == "float32" and precision != "highest")):
        cores = _tensor_cores()
        if cores is not None and cores.accepts(a, b, bias, activation, residual, precision):
            return cores.matmul(
                a, b, bias=bias, activation=activation, residual=residual, precision=precision
            )
    c = found.xp.empty(chosen.shape, a.dtype)
    run(chosen, a, b, bias, residual, c, dtype)
    return c


def run(chosen: Plan, a: Any, b: Any, bias: Any, residual: Any, c: Any, dtype: str) -> None:
    """Launch what a plan says; absent operands are flagged in it and any pointer does for them."""
    bias, residual = a if bias is None else bias, a if residual is None else residual
    parts = c
    if chosen.parts > 1:
        parts = driver.current().xp.empty(chosen.parts * c.size, SUMS.get(dtype, dtype))
    if chosen.product is not None:
        left, right = (b, a) if chosen.exchange else (a, b)
        _launch(chosen.product, (left, right, bias, residual, c, parts))
    if chosen.sum is not None:
        _launch(chosen.sum, (bias, residual, c, parts))


def _launch(launch: Launch, arrays: tuple[Any, ...]) -> None:
    driver.launch(
        SOURCE, launch.symbol, (launch.blocks,), (launch.threads,), (*arrays, launch.product),
        defines=launch.defines,
    )  # fmt: skip


@cache
def _tensor_cores() -> Any:
    """The tensor-core kernels of this family."""
    try:
        from gradlab.kernels.cuda import tensor_cores
    except ImportError:
        return None
    return tensor_cores


def activation_gradient(gy: Any, y: Any, activation: str) -> Any:
    """Return ``gy`` times the derivative of relu, sigmoid or tanh at the x of ``y``."""
    found = driver.current()
    gy, y = found.xp.ascontiguousarray(gy), found.xp.ascontiguousarray(y)
    gx = found.xp.empty(gy.shape, gy.dtype)
    if gy.size:
        dtype = dtype_name(gy.dtype)
        threads = divide_up(gy.size, 16 // gy.itemsize)
        args = (gy, y, gx, int(gy.size), ACTIVATIONS[activation])
        driver.launch(
            SOURCE, f"activation_gradient_{dtype}", (divide_up(threads, 32 * WARPS),),
            (32 * WARPS,), args, defines=(("DTYPE", dtype),),
        )  # fmt: skip
    return gx


def variants() -> list[Variant]:
    """Everything this module can launch."""
    return [Variant(SOURCE, defines) for defines in _all_defines()]


def _all_defines() -> Iterator[Defines]:
    for dtype in dict.fromkeys(KERNEL_DTYPES.values()):
        for edge in EDGES.get(dtype, (64,)):
            for modes in (*(MODES if dtype == "float32" else ()), (GENERAL, GENERAL)):
                yield tile_defines(dtype, edge, *modes)
        for columns in (1, SKINNY):
            yield (("DTYPE", dtype), ("COLUMNS", columns))
        yield (("DTYPE", dtype),)
