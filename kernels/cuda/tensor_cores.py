"""Matrix products on tensor cores: which kernel, which tile, and the launch.

``matmul_mma.cu`` (``mma.sync``, compute capability 8.0 and later) takes every layout, alignment and
shape; ``matmul_wgmma.cu`` (``wgmma`` and the bulk copy engine, 9.0) takes halves whose rows all
start at 16 bytes, and at most one batch axis. The rates that the choice is made with are estimates:
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
    Properties,
    Variant,
    current,
    divide_up,
    dtype_name,
    launch,
)

MMA, WGMMA = "matmul_mma.cu", "matmul_wgmma.cu"
ACTIVATIONS = (None, "relu", "sigmoid", "tanh", "gelu")  # numbered as in tensor_cores.cuh
HALVES = ("float16", "bfloat16")
BATCH_AXES = 6

# The struct Problem of tensor_cores.cuh.
_NUMBERS = """
    m n k a_stride b_stride c_stride residual_row residual_column bias_stride splits split_k batches
    batch_axes
"""
_BATCH = "batch_shape a_batch b_batch c_batch residual_batch"
_FLAGS = "activation has_bias has_residual wide_c wide_residual wide_bias"
PROBLEM = np.dtype([
    *((name, np.int64) for name in _NUMBERS.split()),
    *((name, np.int64, BATCH_AXES) for name in _BATCH.split()),
    *((name, np.int64) for name in _FLAGS.split()),
])  # fmt: skip
MAPS = np.dtype([("maps", np.uint64, 3 * 16)])  # the struct Maps of matmul_wgmma.cu


class Tile(NamedTuple):
    """What a block computes."""

    source: str
    m: int
    n: int
    rate: float  # share of the tensor cores' rate that such tiles reach; an estimate
    stages: int
    warp_m: int = 0  # what each of its warps computes; wgmma: always 64 rows per warpgroup
    warp_n: int = 0
    cluster: int = 1  # blocks, with tiles below one another, that share what they read of B

    @property
    def threads(self) -> int:
        return self.m // self.warp_m * (self.n // self.warp_n) * 32


# Two blocks of 128 x 128 find room on a multiprocessor of 100 KiB.
TILES = (
    Tile(MMA, 128, 256, 0.90, 4, 64, 64),
    Tile(MMA, 128, 128, 0.85, 3, 64, 64),
    Tile(MMA, 64, 64, 0.55, 4, 32, 32),
)
# A warp's 64 x 64 does not fit the registers where TF32 is loaded by words (k not along memory) or
# elements are copied one by one.
TILES_TF32 = (Tile(MMA, 128, 128, 0.80, 3, 64, 32), TILES[2])
TILES_UNALIGNED = TILES_TF32[:1]  # the copies are the limit, and small tiles copy more
# 128 x 256 at the full rate would read 48 bytes per cycle and multiprocessor out of L2, which has
# about half of that to give; two blocks that share B read 32.
TILES_WGMMA = (
    Tile(WGMMA, 128, 256, 0.90, 4, cluster=2),
    Tile(WGMMA, 128, 256, 0.85, 4),
    Tile(WGMMA, 128, 128, 0.80, 6),
)
WHOLE_GPU = 64  # multiprocessors; fewer are a slice of one, where clusters may not find room
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Operand(NamedTuple):
    """How a kernel walks over A or B: lines of elements one after another in memory."""

    k_major: bool  # the lines lie along k
    stride: int  # elements from line to line
    batch: tuple[int, ...]  # and from matrix to matrix, along each batch axis
    aligned: bool  # every line starts at a multiple of 16 bytes


class Array(NamedTuple):
    """What a plan has to know of an array; strides are in bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int  # modulo 16


class MapLayout(NamedTuple):
    """A tensor map without its address, for `Driver.tensor_map`."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]


class Plan(NamedTuple):
    """All of a launch that follows from shapes, strides and alignments."""

    source: str
    dtype: str
    defines: Defines
    blocks: int
    threads: int
    shared: int
    problem: np.ndarray
    partial: int  # floats of workspace; 0: the sum is not split
    finish: int  # blocks that add up the parts
    maps: tuple[MapLayout, ...] = ()  # of A, B and C


# ------------------------------------------------------------------------------------- calls


def accepts(
    a: Any, b: Any, bias: Any = None, activation: str | None = None, residual: Any = None,
    precision: str = "highest",
) -> bool:  # fmt: skip
    """True where `matmul` computes this call on tensor cores.

    float16 and bfloat16 always; float32 only where ``precision`` ("high" or "medium") allows its
    operands to be rounded to TF32.
    """
    dtype = a.dtype
    if dtype_name(dtype) not in HALVES and (
        dtype_name(dtype) != "float32" or precision == "highest"
    ):
        return False
    if activation not in ACTIVATIONS or current().properties().capability < (8, 0):
        return False
    if not 2 <= min(a.ndim, b.ndim) <= max(a.ndim, b.ndim) <= 2 + BATCH_AXES:
        return False
    others = [b, *(each for each in (bias, residual) if each is not None)]
    if a.shape[-1] != b.shape[-2] or any(each.dtype != dtype for each in others):
        return False
    return (bias is None or bias.shape == b.shape[-1:]) and _broadcast(a, b, residual)


def _broadcast(a: Any, b: Any, residual: Any) -> bool:
    try:
        shape = _result_shape(a.shape, b.shape)
        return residual is None or np.broadcast_shapes(residual.shape, shape) == shape
    except ValueError:
        return False


def matmul(
    a: Any, b: Any, *, bias: Any = None, activation: str | None = None, residual: Any = None,
    out: Any = None, precision: str = "highest",
) -> Any:  # fmt: skip
    """``activation(a @ b + bias) + residual``, summed in float32 and rounded once.

    ``a`` is (…, m, k) and ``b`` (…, k, n), their leading axes broadcast; ``bias`` is (n,) and
    ``residual`` broadcasts to the result. All have one dtype, which is the result's. ``activation``
    is None, ``"relu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"`` (with the exact erf). The result is
    written to ``out`` where one is given. The call is one that `accepts` has accepted, and there
    ``precision`` has had its say.
    """
    driver = current()
    xp = driver.xp
    a, b = _with_lines(xp, a), _with_lines(xp, b)
    shape = _result_shape(a.shape, b.shape)
    c = out if out is not None and _writable(out, shape) else xp.empty(shape, a.dtype)
    if c.size:
        described = (
            None if x is None else Array(x.shape, x.strides, driver.pointer(x) % 16)
            for x in (a, b, c, bias, residual)
        )
        plan = _plan(dtype_name(a.dtype), *described, activation, driver.properties())
        _launch(driver, plan, a, b, c, bias, residual)
    if out is not None and c is not out:
        out[...] = c
    return c if out is None else out


def _launch(driver: Any, plan: Plan, a: Any, b: Any, c: Any, bias: Any, residual: Any) -> None:
    # Any valid pointer stands for what there is none of; the problem's flags say what is read.
    bias = c if bias is None else bias
    residual = c if residual is None else residual
    grid, block = (plan.blocks,), (plan.threads,)
    if plan.maps:
        addresses = driver.pointer(a), driver.pointer(b), driver.pointer(c)
        maps = _encoded(driver, plan.dtype, addresses, plan.maps)
        launch(
            plan.source, f"matmul_wgmma_{plan.dtype}", grid, block,
            (maps, plan.problem, bias, residual), defines=plan.defines, shared=plan.shared,
        )  # fmt: skip
        return
    partial = driver.xp.empty(plan.partial, np.float32) if plan.partial else c
    launch(
        plan.source, f"matmul_mma_{plan.dtype}", grid, block,
        (a, b, c, partial, bias, residual, plan.problem), defines=plan.defines, shared=plan.shared,
    )  # fmt: skip
    if plan.partial:
        launch(
            plan.source, f"matmul_mma_finish_{plan.dtype}", (plan.finish,), (256,),
            (partial, c, bias, residual, plan.problem), defines=plan.defines,
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _encoded(
    driver: Any, dtype: str, addresses: tuple[int, ...], layouts: tuple[MapLayout, ...]
) -> np.ndarray:
    """The tensor maps of A, B and C; a training step meets the same addresses again and again."""
    words = [
        driver.tensor_map(address, dtype, *layout)
        for address, layout in zip(addresses, layouts, strict=True)
    ]
    return np.concatenate(words).view(MAPS).reshape(())


def _result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    if len(a) == len(b) == 2:
        return a[0], b[1]
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


def _writable(out: Any, shape: tuple[int, ...]) -> bool:
    """Whether a kernel can write to ``out``: row by row, each row in one piece."""
    return bool(out.shape == shape and out.strides[-1] == out.itemsize)


def _with_lines(xp: Any, x: Any) -> Any:
    """``x``, or a copy where neither of its last two axes has its elements side by side."""
    in_lines = x.itemsize in x.strides[-2:] or min(x.shape[-2:]) < 2
    return x if in_lines else xp.ascontiguousarray(x)


# ------------------------------------------------------------------------------------ layouts


def _walk(x: Array, edge: int, batch: tuple[int, ...], itemsize: int) -> Operand:
    """How to walk over a matrix whose axis ``edge`` is m (-2) or n (-1), the other one k."""
    k = -3 - edge
    elements = [stride // itemsize for stride in x.strides]
    steps = _batch_strides(x, batch, itemsize)
    found = []
    for along, across in ((k, edge), (edge, k)):
        if elements[along] == 1 or x.shape[along] < 2:
            stride = elements[across] if x.shape[across] > 1 else 0
            common = math.gcd(x.address, 16, *(step * itemsize for step in (stride, *steps)))
            found.append(Operand(along == k, stride, steps, common == 16))
    # Both are right for one row or one element of k; copies of 16 bytes are the better ones.
    return max(found, key=lambda each: (each.aligned, each.k_major))


def _batch_strides(x: Array, batch: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides, in elements, of an array's batch axes when it is broadcast to ``batch``."""
    own = zip(x.shape[:-2], x.strides[:-2], strict=True)
    strides = [0 if size == 1 else stride // itemsize for size, stride in own]
    return (*[0] * (len(batch) - len(strides)), *strides)


def _merged(axes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Batch axes, (size, stride, stride, …) each, outermost first, joined where strides allow."""
    found: list[tuple[int, ...]] = []
    for size, *steps in axes:
        if size == 1:
            continue
        if found and all(o == i * size for o, i in zip(found[-1][1:], steps, strict=True)):
            size *= found.pop()[0]
        found.append((size, *steps))
    return found


def _aligned(address: int, *strides: int) -> bool:
    return not any(each % 16 for each in (address, *strides))


def _outputs(
    c: Array, bias: Array | None, residual: Array | None, batch: tuple[int, ...], itemsize: int
) -> dict[str, Any]:
    """How C, the bias and the residual are walked over: fields of a Problem."""
    found: dict[str, Any] = {
        "c_stride": c.strides[-2] // itemsize if c.shape[-2] > 1 else c.shape[-1],
        "wide_c": _aligned(c.address, *c.strides[:-1]),
        "c_batch": _batch_strides(c, batch, itemsize),
        "has_bias": bias is not None,
        "has_residual": residual is not None,
        "residual_row": 0,
        "residual_batch": (0,) * len(batch),
    }
    if bias is not None:
        found["bias_stride"] = bias.strides[0] // itemsize
        found["wide_bias"] = bias.strides[0] == itemsize and _aligned(bias.address)
    if residual is not None:
        missing = max(0, 2 - len(residual.shape))
        shape = (1,) * missing + residual.shape
        strides = (0,) * missing + residual.strides
        residual = Array(shape, strides, residual.address)
        row, column = (
            0 if size == 1 else step for size, step in zip(shape[-2:], strides[-2:], strict=True)
        )
        found |= {"residual_row": row // itemsize, "residual_column": column // itemsize}
        found["residual_batch"] = _batch_strides(residual, batch, itemsize)
        wide = _aligned(residual.address, row, *strides[:-2])
        found["wide_residual"] = column == itemsize and wide
    return found


# ------------------------------------------------------------------------------------- plans


@lru_cache(maxsize=4096)
def _plan(
    dtype: str, a: Array, b: Array, c: Array, bias: Array | None, residual: Array | None,
    activation: str | None, properties: Properties,
) -> Plan:  # fmt: skip
    """The launch for a layout; remembered, as a training step repeats its products."""
    itemsize = 4 if dtype == "float32" else 2
    batch, (m, n), k = c.shape[:-2], c.shape[-2:], a.shape[-1]
    walk_a, walk_b = _walk(a, -2, batch, itemsize), _walk(b, -1, batch, itemsize)
    values = _outputs(c, bias, residual, batch, itemsize)
    steps = (walk_a.batch, walk_b.batch, values["c_batch"], values["residual_batch"])
    axes = _merged(list(zip(batch, *steps, strict=True)))
    m, walk_a, axes = _taller(m, walk_a, values, axes)
    batches = math.prod(size for size, *_ in axes)
    values |= {"m": m, "n": n, "k": k, "a_stride": walk_a.stride, "b_stride": walk_b.stride}
    values |= {"activation": ACTIVATIONS.index(activation), "batches": batches}
    values["batch_axes"] = len(axes)
    columns = zip(*axes, strict=True) if axes else [()] * 5
    values |= dict(zip(_BATCH.split(), columns, strict=True))

    aligned = walk_a.aligned and walk_b.aligned
    candidates = _candidates(dtype, aligned)
    if _bulk_copies(dtype, walk_a, walk_b, values, axes, properties):
        candidates += _wgmma_candidates(activation, walk_a.k_major, properties.multiprocessors)
    tile, splits, split_k = _choose(m, n, k, batches, candidates, itemsize, properties)
    values |= {"splits": splits, "split_k": split_k}
    tiles = divide_up(m, tile.m * tile.cluster) * divide_up(n, tile.n) * batches
    if tiles * splits >= 1 << 31:
        raise ValueError(
            f"{batches} products of {m}x{k} and {k}x{n} need more than 2^31 blocks; multiply them "
            "in several calls"
        )
    if tile.source == WGMMA:
        clusters = min(tiles, properties.multiprocessors // tile.cluster)
        return Plan(
            WGMMA, dtype,
            _wgmma_defines(dtype, tile, walk_a.k_major, walk_b.k_major, activation),
            clusters * tile.cluster, 384,
            tile.stages * (tile.m + tile.n) * 128 + 4 * 8192 + 1024,
            _problem(values), 0, 0, _maps(m, n, k, tile, walk_a, walk_b, values, axes),
        )  # fmt: skip
    pieces = batches * m * divide_up(n, 16 // itemsize)
    return Plan(
        MMA, dtype, _mma_defines(dtype, tile, walk_a.k_major, walk_b.k_major, aligned),
        tiles * splits, tile.threads, tile.stages * (tile.m + tile.n) * 64, _problem(values),
        splits * batches * m * n if splits > 1 else 0, divide_up(pieces, 256),
    )  # fmt: skip


def _problem(values: dict[str, Any]) -> np.ndarray:
    made = np.zeros((), PROBLEM)
    for name, value in values.items():
        if isinstance(value, tuple):
            made[name][: len(value)] = value
        else:
            made[name] = value
    return made


def _taller(
    m: int, a: Operand, values: dict[str, Any], axes: list[tuple[int, ...]]
) -> tuple[int, Operand, list[tuple[int, ...]]]:
    """Make a batch of A that all meet one B a taller A, where the strides allow it."""
    if len(axes) != 1 or axes[0][2] != 0 or not a.k_major:
        return m, a, axes
    size, a_step, _, c_step, residual_step = axes[0]
    if m == 1:
        values |= {"c_stride": c_step, "residual_row": residual_step}
        return size, a._replace(stride=a_step), []
    rows = (a.stride, values["c_stride"], values["residual_row"])
    if any(
        row * m != step for row, step in zip(rows, (a_step, c_step, residual_step), strict=True)
    ):
        return m, a, axes
    return m * size, a, []


def _bulk_copies(
    dtype: str, a: Operand, b: Operand, values: dict[str, Any], axes: list[tuple[int, ...]],
    properties: Properties,
) -> bool:  # fmt: skip
    """Whether the bulk copy engine can read A and B and write C (and wgmma is there)."""
    strides = (a.stride, b.stride, *(step for axis in axes for step in axis[1:4]))
    sizes = (values["m"], values["n"], values["k"], values["batches"])
    return (
        properties.capability == (9, 0) and dtype in HALVES and len(axes) <= 1
        and a.aligned and b.aligned and values["wide_c"]
        and min(strides) >= 0 and max(strides) < 1 << 39 and 0 < min(sizes) <= max(sizes) < 1 << 31
        # Lines that are one and the same in memory are for the other kernel.
        and (a.stride > 0 or values["m" if a.k_major else "k"] == 1)
        and (b.stride > 0 or values["n" if b.k_major else "k"] == 1)
    )  # fmt: skip


def _maps(
    m: int, n: int, k: int, tile: Tile, a: Operand, b: Operand, values: dict[str, Any],
    axes: list[tuple[int, ...]],
) -> tuple[MapLayout, ...]:  # fmt: skip
    """The boxes that matmul_wgmma.cu copies: 64 elements (128 bytes) of each of some lines."""
    size, *steps = axes[0] if axes else (1, 0, 0, 0)

    def layout(line: int, lines: int, stride: int, step: int, box: int) -> MapLayout:
        stride = 2 * stride if lines > 1 else divide_up(2 * line, 16) * 16
        # An operand that is not batched is a batch of one, whose stride is never used.
        outer = 2 * step if step else lines * stride
        return MapLayout((line, lines, size if step else 1), (stride, outer), (64, box, 1))

    return (
        layout(k, m, a.stride, steps[0], tile.m) if a.k_major
        else layout(m, k, a.stride, steps[0], 64),
        layout(k, n, b.stride, steps[1], tile.n // tile.cluster) if b.k_major
        else layout(n, k, b.stride, steps[1], 64),
        layout(n, m, values["c_stride"], steps[2], 64),
    )  # fmt: skip


def _candidates(dtype: str, aligned: bool) -> tuple[Tile, ...]:
    """The tiles of matmul_mma.cu to choose from."""
    if not aligned:
        return TILES_UNALIGNED
    return TILES_TF32 if dtype == "float32" else TILES


def _wgmma_candidates(
    activation: str | None, a_k_major: bool, multiprocessors: int
) -> tuple[Tile, ...]:
    """Those of matmul_wgmma.cu, which is compiled for an activation only where one is usual."""
    tiles = TILES_WGMMA if multiprocessors >= WHOLE_GPU else TILES_WGMMA[1:]
    if activation in (None, "relu"):
        return tiles
    return tiles[:1] if a_k_major and tiles[0].cluster == 2 else ()


@lru_cache(maxsize=4096)
def _choose(
    m: int, n: int, k: int, batches: int, tiles: tuple[Tile, ...], itemsize: int,
    properties: Properties,
) -> tuple[Tile, int, int]:  # fmt: skip
    """The tile, the number of parts of k and the length of each that take the fewest cycles.

    A block's cycles per k are those of its multiply-adds or those of its bytes from L2, 32 in a
    cycle. Blocks come in waves, each as long as a block; sums in parts are written and read again.
    """
    tile_k = 64 // itemsize
    best = (math.inf, tiles[0], 1, tile_k)
    for tile in tiles:
        blocks = divide_up(m, tile.m * tile.cluster) * tile.cluster * divide_up(n, tile.n) * batches
        rate = _rate(tile.source, properties.capability) * 2 / itemsize * tile.rate
        per_k = max(tile.m * tile.n / rate, (tile.m + tile.n / tile.cluster) * itemsize / 32)
        for splits in SPLITS if tile.source == MMA else (1,):
            split_k = max(divide_up(divide_up(k, splits), tile_k), 1) * tile_k
            # A part's length is an int on the device.
            if split_k >= 1 << 30 and tile.source == MMA:
                continue
            if splits > 1 and split_k < 8 * tile_k:
                break
            parts = max(divide_up(k, split_k), 1)
            waves = divide_up(blocks * parts, properties.multiprocessors)
            cycles = waves * (split_k * per_k + 1500)
            if parts > 1:
                moved = 4 * (parts + 1) * m * n * batches
                cycles += 4000 + moved / (16 * properties.multiprocessors)
            best = min(best, (cycles, tile, parts, split_k))
    return best[1:]


def _rate(source: str, capability: tuple[int, int]) -> int:
    """Multiply-adds of halves per cycle and multiprocessor, with sums in float32; of leads."""
    if capability >= (9, 0):
        return 2048 if source == WGMMA else 1270
    return 1024 if capability == (8, 0) else 512


def _mma_defines(
    dtype: str, tile: Tile, a_k_major: bool, b_k_major: bool, aligned: bool
) -> Defines:
    itemsize = 4 if dtype == "float32" else 2
    return (
        ("DTYPE", dtype), ("TILE_M", tile.m), ("TILE_N", tile.n), ("WARP_M", tile.warp_m),
        ("WARP_N", tile.warp_n), ("STAGES", tile.stages), ("A_K_MAJOR", int(a_k_major)),
        ("B_K_MAJOR", int(b_k_major)), ("ALIGN", 16 if aligned else itemsize),
    )  # fmt: skip


def _wgmma_defines(
    dtype: str, tile: Tile, a_k_major: bool, b_k_major: bool, activation: str | None
) -> Defines:
    compiled_in = 0 if activation == "relu" else ACTIVATIONS.index(activation)
    return (
        ("DTYPE", dtype), ("TILE_N", tile.n), ("CLUSTER", tile.cluster), ("STAGES", tile.stages),
        ("A_K_MAJOR", int(a_k_major)), ("B_K_MAJOR", int(b_k_major)), ("ACTIVATION", compiled_in),
    )  # fmt: skip


def variants() -> list[Variant]:
    """Every module that `matmul` can launch."""
    found = set()
    for a, b in product((False, True), repeat=2):
        for dtype, aligned in product((*HALVES, "float32"), (False, True)):
            for tile in _candidates(dtype, aligned):
                found.add(Variant(MMA, _mma_defines(dtype, tile, a, b, aligned), (8, 0)))
        for dtype, activation in product(HALVES, ACTIVATIONS):
            for tile in _wgmma_candidates(activation, a, WHOLE_GPU):
                defines = _wgmma_defines(dtype, tile, a, b, activation)
                found.add(Variant(WGMMA, defines, (9, 0)))
    return sorted(found)
