"""Every variant of every kernel, forced, on fresh random inputs, against NumPy's float64.

What a call takes is chosen by size and machine, so that the ops' samples meet few of the modules.
Here each module that a family lists (`resources.variants`) is launched, with the choice taken away
from the family: ragged sizes, layouts, batches, what is fused to it. A module without a way to be
forced is a failure, and so is one that was not launched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import scipy.special
from gradlab.kernels.cuda import (
    compiler,
    cross_entropy,
    matmul,
    normalization,
    random,
    reduction,
    resources,
    scan,
    scatter,
    softmax,
    spin,
    tensor_cores,
    update,
)
from gradlab.kernels.cuda.driver import FLOATS, Variant

import gradlab as gl
from benchmarks.gpu.verify import Limit, compare, poisoned, seed
from gradlab.ops.random import Generator

Record = dict[str, Any]


class Check(NamedTuple):
    """A result, and what it should be in float64 or integers, or a function that says so."""

    title: str
    got: Any
    exact: Any
    limit: Limit = Limit()


class Lab:
    """Random inputs for a variant, and the way to the device; ``small`` for the emulator."""

    def __init__(self, machine: Any, variant: Variant, run_seed: int, small: bool) -> None:
        self.machine, self.small = machine, small
        self.xp = machine.xp
        self.random = np.random.default_rng(seed(variant.source, variant.defines, run_seed))

    def put(self, x: np.ndarray) -> Any:
        """A copy on the device."""
        return self.machine.driver.to_device(np.ascontiguousarray(x), 0)

    def normal(self, shape: Any, dtype: str = "float32") -> np.ndarray:
        return self.random.standard_normal(shape).astype(dtype_of(dtype))

    def values(self, shape: Any, dtype: str) -> np.ndarray:
        """Standard normals, or integers from the dtype's whole range."""
        if dtype in FLOATS:
            return self.normal(shape, dtype)
        if dtype == "bool":
            return self.random.random(shape) < 0.5
        limits = np.iinfo(dtype)
        return self.random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


@contextmanager
def patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Put values in the place of modules' own, and forget the plans made with the others."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    forget = (matmul.plan, tensor_cores._plan, tensor_cores._choose)
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        for each in forget:
            each.cache_clear()
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        for each in forget:
            each.cache_clear()


# ------------------------------------------------------------------------------------- products

ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "gelu": lambda x: x * scipy.special.ndtr(x),
}
EPILOGUES = (  # activation, bias, residual
    (None, False, False), ("relu", True, False), ("sigmoid", False, True), ("tanh", True, True),
    ("gelu", True, True),
)  # fmt: skip


def stored(x: np.ndarray, turned: bool, lab: Lab) -> Any:
    """On the device, with the last two axes the other way round in memory where ``turned``."""
    return lab.put(x.swapaxes(-1, -2)).swapaxes(-1, -2) if turned else lab.put(x)


def product_check(
    lab: Lab, function: Callable[..., Any], dtype: str, shapes: Any, turned: tuple[bool, bool],
    epilogue: tuple[str | None, bool, bool] = EPILOGUES[0],
) -> Check:  # fmt: skip
    """``activation(a @ b + bias) + residual``; halves and float32 are exact in TF32."""
    activation, biased, residual = epilogue
    a, b = (_exact_in_tf32(lab.values(shape, dtype)) for shape in shapes)
    k, n = b.shape[-2:]
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], n)
    extra = {
        name: lab.values(size, dtype)
        for name, size, there in (("bias", (n,), biased), ("residual", shape, residual))
        if there
    }
    got = function(
        stored(a, turned[0], lab), stored(b, turned[1], lab), activation=activation,
        **{name: lab.put(x) for name, x in extra.items()},
    )  # fmt: skip
    title = f"{a.shape} @ {b.shape}, turned {turned}, {activation}, {sorted(extra)}"
    exact = partial(_exact_product, a, b, activation, extra)
    return Check(title, got, exact, Limit(terms=max(k, 1), scale=math.sqrt(max(k, 1))))


def _exact_product(a: Any, b: Any, activation: str | None, extra: dict[str, Any]) -> Any:
    if a.dtype.name not in FLOATS:  # modulo 2^n, in which NumPy's 64 bits are any other width's too
        sums = a.astype(np.uint64) @ b.astype(np.uint64)
        for x in extra.values():
            sums = sums + x.astype(np.uint64)
        return sums.astype(a.dtype)
    sums = wide(a) @ wide(b) + (wide(extra["bias"]) if "bias" in extra else 0.0)
    return ACTIVATIONS[activation](sums) + (wide(extra["residual"]) if "residual" in extra else 0)


def _exact_in_tf32(x: np.ndarray) -> np.ndarray:
    """Single precision without the bits that TF32 has not: a product of two is then exact."""
    if x.dtype != np.float32:
        return x
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def matmul_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Tiles of each layout, skinny products, and the sums of parts."""
    dtype = defines["DTYPE"]
    with patched((matmul, "_tensor_cores", lambda: None)):
        if "TILE" in defines:
            yield from _tiles(lab, dtype, defines)
        elif "COLUMNS" in defines:
            yield from _skinny(lab, dtype, defines["COLUMNS"])
        else:
            yield from _sums_of_parts(lab, dtype)


def _tiles(lab: Lab, dtype: str, defines: dict[str, Any]) -> Iterator[Check]:
    edge = defines["TILE"]
    # Which way round each operand lies in memory, by the mode of its copy: see matmul._mode.
    turned = defines["A_MODE"] == matmul.DIRECT, defines["B_MODE"] == matmul.TRANSPOSED
    general = defines["A_MODE"] == matmul.GENERAL
    odd = 1 if general else 0
    sizes = [(edge + 4, edge + 8, 36), (2 * edge + 44, edge + 20, 132)]
    epilogues = EPILOGUES if dtype in FLOATS else ((None, False, False), (None, True, True))
    with patched((matmul, "EDGES", {dtype: (edge,)}), (matmul, "PARTS", (1,))):
        for m, n, k in sizes[:1] if lab.small else sizes:
            m, n, k = m + odd, n + odd, k + odd
            for epilogue in epilogues[-1:] if lab.small else epilogues:
                shapes = (m, k), (k, n)
                if general:  # rows of odd length cannot be copied 16 bytes at a time
                    turned = (True, False)
                yield product_check(lab, matmul.matmul, dtype, shapes, turned, epilogue)
        if not lab.small:
            yield product_check(
                lab, matmul.matmul, dtype, ((3, edge + 4 + odd, 40 + odd), (3, 40 + odd, 44 + odd)),
                turned,
            )  # fmt: skip
    if not lab.small:
        with patched((matmul, "EDGES", {dtype: (edge,)}), (matmul, "PARTS", (4,))):
            k = 1000 + odd
            yield product_check(
                lab, matmul.matmul, dtype, ((edge + odd, k), (k, 36 + odd)), turned, EPILOGUES[0]
            )


def _skinny(lab: Lab, dtype: str, columns: int) -> Iterator[Check]:
    sizes = [(70, 100), (331, 300), (48, 5000), (1000, 65)]
    for m, k in sizes[:1] if lab.small else sizes:
        for n in (1,) if columns == 1 else (3,) if lab.small else (2, 16):
            for left, right in product((False, True), repeat=2):
                yield product_check(lab, matmul.matmul, dtype, ((m, k), (k, n)), (left, right))
            # The other way round, when the kernel takes B for A; and a batch.
            yield product_check(lab, matmul.matmul, dtype, ((n, k), (k, m)), (False, True))
            yield product_check(lab, matmul.matmul, dtype, ((2, m, k), (2, k, n)), (False, False))
    if dtype in FLOATS and not lab.small:
        shapes = (99, 300), (300, columns)
        yield product_check(lab, matmul.matmul, dtype, shapes, (False, False), EPILOGUES[3])


def _sums_of_parts(lab: Lab, dtype: str) -> Iterator[Check]:
    epilogue = EPILOGUES[-1] if dtype in FLOATS else (None, True, True)
    for parts in (4,) if lab.small else (4, 32):
        with patched((matmul, "PARTS", (parts,))):
            k = 64 * parts + (3 if parts < 32 else 0)  # 32: a warp adds up the parts of a value
            shapes = (33, k), (k, 40)
            yield product_check(lab, matmul.matmul, dtype, shapes, (False, False), epilogue)
    yield product_check(lab, matmul.matmul, dtype, ((33, 0), (0, 40)), (False, False), epilogue)
    if dtype not in FLOATS:
        return
    for activation in ("relu", "sigmoid", "tanh"):
        x, gy = lab.normal((37, 61)), lab.normal((37, 61), dtype)
        y = ACTIVATIONS[activation](wide(x)).astype(dtype_of(dtype))
        got = matmul.activation_gradient(lab.put(gy), lab.put(y), activation)
        slope = {
            "relu": wide(y) > 0, "sigmoid": wide(y) * (1 - wide(y)), "tanh": 1 - wide(y) ** 2,
        }[activation]  # fmt: skip
        yield Check(f"gradient of {activation}", got, wide(gy) * slope)


def tensor_core(lab: Lab, defines: dict[str, Any], source: str) -> Iterator[Check]:
    """mma and wgmma: ragged sizes, batches, epilogues, sums in parts, many tiles to a block."""
    dtype = defines["DTYPE"]
    turned = not defines["A_K_MAJOR"], bool(defines["B_K_MAJOR"])
    function = partial(tensor_cores.matmul, precision="high")
    with patched(*_only(defines, source)):
        for shapes, epilogue in _tensor_core_calls(lab, defines, source):
            yield product_check(lab, function, dtype, shapes, turned, epilogue)


def _only(defines: dict[str, Any], source: str) -> tuple[tuple[Any, str, Any], ...]:
    """Leave one tile to choose from, whatever its rate is taken to be."""
    wgmma = source == tensor_cores.WGMMA
    tiles = tensor_cores.TILES_WGMMA if wgmma else (
        *tensor_cores.TILES, *tensor_cores.TILES_TF32, *tensor_cores.TILES_UNALIGNED
    )  # fmt: skip
    tile = next(
        each for each in tiles
        if each.n == defines["TILE_N"] and each.stages == defines["STAGES"]
        and (each.cluster == defines["CLUSTER"] if wgmma else
             (each.m, each.warp_m, each.warp_n)
             == tuple(defines[name] for name in ("TILE_M", "WARP_M", "WARP_N")))
    )  # fmt: skip
    return (
        (tensor_cores, "_candidates", lambda *_: tensor_cores.TILES[:1] if wgmma else (tile,)),
        (tensor_cores, "_wgmma_candidates", lambda *_: (tile,) if wgmma else ()),
        (tensor_cores, "_rate", lambda name, _: 1e9 if name == source else 1),
    )  # fmt: skip


def _tensor_core_calls(lab: Lab, defines: dict[str, Any], source: str) -> Iterator[Any]:
    wgmma = source == tensor_cores.WGMMA
    m, n = defines.get("TILE_M", 128) * defines.get("CLUSTER", 1), defines["TILE_N"]
    # Elements to which lines are a multiple: of 16 bytes, or of none.
    step = 1 if defines.get("ALIGN", 16) != 16 else 4 if defines["DTYPE"] == "float32" else 8
    odd = 1 if step == 1 else 0
    plain = EPILOGUES[0]
    if wgmma:  # relu and none at run time, the others are compiled in
        own = tensor_cores.ACTIVATIONS[defines["ACTIVATION"]]
        plain = (own, False, False)
        epilogues = [(each, *extra) for each in ({own, "relu"} if own is None else {own})
                     for extra in product((False, True), repeat=2)]  # fmt: skip
    else:
        epilogues = list(EPILOGUES)
    yield ((m // 2 + step, 72 + odd), (72 + odd, n + step)), epilogues[-1]
    if lab.small:
        return
    for epilogue in epilogues:
        yield ((m + 8 * step, 200 + odd), (200 + odd, 2 * n + 3 * step)), epilogue
    yield ((8, 8 + odd), (8 + odd, 8 + odd)), plain
    yield ((3, m + step, 104 + odd), (3, 104 + odd, n - step)), epilogues[-1]  # a batch
    if wgmma:
        yield ((2056, 72), (72, 2040)), plain  # several tiles to a block, in turn
    else:
        yield ((24 + odd, 5000 + odd), (5000 + odd, 40 + odd)), epilogues[-1]  # k in parts


# ------------------------------------------------------------------------------------- softmax


def softmax_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Rows of all lengths that have a kernel of their own, and columns."""
    operation, dtype = defines["OPERATION"], defines["DTYPE"]
    rows = [(70, 13), (65, 64), (65, 100), (33, 101), (33, 251), (33, 256), (33, 301), (33, 304),
            (9, 1999), (9, 2000), (9, 3001), (9, 4096), (9, 9001), (5, 9000), (3, 16384),
            (3, 20001), (3, 20000), (3, 70001), (3, 70000)]  # fmt: skip
    cases = [(shape, 1) for shape in rows] + [((3, 37, 40), 1), ((200, 2), 0), ((5, 7, 3, 3), 1)]
    small = [((7, 13), 1), ((5, 100), 1), ((3, 301), 1), ((2, 7, 5), 1)]
    for shape, axis in small if lab.small else cases:
        x = lab.normal(shape, dtype)
        arrays, exact = _softmax_of(operation, x, lab.normal(shape, dtype), axis)
        got = getattr(softmax, operation)(*(lab.put(each) for each in arrays), axis=axis)
        limit = Limit(terms=shape[axis], scale=_softmax_scale(operation, shape[axis]))
        yield Check(f"{operation} of {shape}, axis {axis}", got, exact, limit)


def _softmax_scale(operation: str, n: int) -> float:
    """The typical size of sums of that many terms."""
    return {"softmax": 1 / n, "log_softmax": 1.0, "softmax_backward": 1 / n}.get(operation, 1.0)


def _softmax_of(operation: str, x: Any, gy: Any, axis: int) -> tuple[Any, Any]:
    """The arguments of a function of `gradlab.kernels.cuda.softmax`, and its exact result."""
    top = wide(x).max(axis=axis, keepdims=True)
    total = np.exp(wide(x) - top).sum(axis=axis, keepdims=True)
    logs = wide(x) - top - np.log(total)
    if not operation.endswith("backward"):
        return (x,), logs if operation.startswith("log") else np.exp(logs)
    # From a result that is rounded to the dtype.
    y = (logs if operation.startswith("log") else np.exp(logs)).astype(x.dtype)
    slope = wide(gy)
    if operation.startswith("log"):
        return (gy, y), slope - np.exp(wide(y)) * slope.sum(axis=axis, keepdims=True)
    return (gy, y), wide(y) * (slope - (slope * wide(y)).sum(axis=axis, keepdims=True))


# -------------------------------------------------------------------------------- cross-entropy


def cross_entropy_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """All layouts, reductions, weights, labels that are left out; forward and backward."""
    dtype, kind = defines["DTYPE"], defines["TARGET"]
    shapes = [(700, 10), (70, 100), (33, 1000), (5, 9001), (2, 40_000), (3, 10, 37), (4, 12, 64),
              (2, 3000, 8), (1, 5000, 33), (60, 40, 64), (9,)]  # fmt: skip
    turn = 0
    for shape in [(7, 10), (2, 200), (2, 5, 7)] if lab.small else shapes:
        for reduction_ in ("none", "sum", "mean"):
            turn += 1
            yield from _cross_entropy_checks(lab, dtype, kind, shape, reduction_, turn)


def _cross_entropy_checks(
    lab: Lab, dtype: str, kind: str, shape: Any, reduction_: str, turn: int
) -> Iterator[Check]:
    at = 1 if len(shape) > 1 else 0
    classes = shape[at]
    smoothing = 0.1 if kind == "SMOOTHED" or (kind != "LABELS" and turn % 2) else 0.0
    x = lab.normal(shape, dtype)
    weight = lab.random.random(classes).astype(dtype_of(dtype)) + 0.5 if turn % 2 else None
    if weight is not None:
        weight = weight.astype(dtype_of(dtype))
    target = _target(lab, kind, shape, at, dtype, turn)
    exact = _ExactCrossEntropy(x, target, weight, at, kind, smoothing)
    soft = kind == "PROBABILITIES"
    stem = "soft_cross_entropy" if soft else "cross_entropy"
    on_device = lab.put(x), lab.put(target), 1.0 if weight is None else lab.put(weight)
    losses, saved = getattr(cross_entropy, stem)(
        *on_device, label_smoothing=smoothing, reduction=reduction_
    )
    title = f"{stem} of {shape}, {reduction_}, smoothing {smoothing}, weights {turn % 2}"
    limit = Limit(terms=classes if reduction_ == "none" else 16)  # blocks add up side by side
    yield Check(title, losses, exact.loss(reduction_), limit)
    gy = lab.random.random(losses.shape).astype(dtype_of(dtype)) + 0.5
    gy = np.asarray(gy, dtype_of(dtype))
    made = getattr(cross_entropy, f"{stem}_backward")(
        lab.put(gy), *on_device, aux=saved, label_smoothing=smoothing, reduction=reduction_
    )
    slopes = wide(gy) * exact.divided(reduction_)
    # Of half-precision gradients the smallest have few digits: their scale is that of 1 / N.
    limit = Limit(terms=classes, scale=float(np.abs(slopes).max(initial=1e-30)))
    for name, got, right in zip(("scores", "targets"), made, exact.gradients(slopes), strict=False):
        if got is not None:
            yield Check(f"{title}: gradient of {name}", got, right, limit)


def _target(lab: Lab, kind: str, shape: Any, at: int, dtype: str, turn: int) -> np.ndarray:
    if kind == "PROBABILITIES":
        p = np.exp(lab.random.standard_normal(shape))
        return (p / p.sum(axis=at, keepdims=True)).astype(dtype_of(dtype))
    labels = lab.random.integers(0, shape[at], shape[:at] + shape[at + 1 :])
    labels = np.asarray(labels)
    if labels.size > 3:
        labels.reshape(-1)[:: 3 + turn % 4] = -100
    return labels.astype(np.int32 if turn % 3 == 0 else np.int64)


class _ExactCrossEntropy:
    """Cross-entropy in float64, as cross_entropy.cu defines it: classes in the last axis."""

    def __init__(
        self, x: Any, target: Any, weight: Any, at: int, kind: str, smoothing: float
    ) -> None:
        self.at = at
        scores = np.moveaxis(wide(x), at, -1)
        classes = scores.shape[-1]
        weights = np.ones(classes) if weight is None else wide(weight)
        top = scores.max(axis=-1, keepdims=True)
        self.lse = np.log(np.exp(scores - top).sum(axis=-1, keepdims=True)) + top
        self.rest = self.lse - scores  # minus the log of each probability
        uniform = smoothing / classes * weights
        if kind == "PROBABILITIES":
            q = (1 - smoothing) * np.moveaxis(wide(target), at, -1) * weights + uniform
            self.counted = np.full(scores.shape[:-1], 1.0)
        else:
            valid = target >= 0
            labels = np.where(valid, target, 0)
            q = np.where(np.arange(classes) == labels[..., None], (1 - smoothing) * weights, 0.0)
            q = (q + uniform) * valid[..., None]
            self.counted = np.where(valid, weights[labels], 0.0)
        self.q, self.slope_of_target = q, (1 - smoothing) * weights
        self.losses = (q * self.rest).sum(axis=-1)

    def divided(self, reduction_: str) -> float:
        return 1 / float(self.counted.sum()) if reduction_ == "mean" else 1.0

    def loss(self, reduction_: str) -> Any:
        if reduction_ == "none":
            return self.losses
        return np.asarray(self.losses.sum() * self.divided(reduction_))

    def gradients(self, slopes: Any) -> tuple[Any, Any]:
        slopes = np.broadcast_to(slopes, self.losses.shape)[..., None]
        probabilities = np.exp(-self.rest)
        scores = (probabilities * self.q.sum(axis=-1, keepdims=True) - self.q) * slopes
        targets = self.slope_of_target * self.rest * slopes
        return np.moveaxis(scores, -1, self.at), np.moveaxis(targets, -1, self.at)


# -------------------------------------------------------------------------------- normalization


def normalization_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Rows for lanes, a warp, a block, and streamed; both norms, with and without parameters."""
    dtype = defines["DTYPE"]
    shapes = [(3000, 48), (37, 120), (37, 128), (37, 192), (9, 1000), (700, 1024), (5, 5000),
              (5, 8200), (20, 20000)]  # fmt: skip
    if "NARROW" in defines:
        shapes = [(3000, 7), (37, 31), (37, 33), (37, 129), (37, 255), (9, 511), (9, 1001),
                  (5, 5001), (5, 9001), (20, 20001)]  # fmt: skip
    if lab.small:
        shapes = [(9, 7)] if "NARROW" in defines else [(9, 48), (3, 192)]
    for turn, (shape, centred) in enumerate(product(shapes, (True, False))):
        yield from _norm_checks(lab, dtype, shape, centred, with_parameters=turn % 4 < 3)


def _norm_checks(
    lab: Lab, dtype: str, shape: tuple[int, int], centred: bool, with_parameters: bool
) -> Iterator[Check]:
    x, gy = lab.normal(shape, dtype), lab.normal(shape, dtype)
    weight, bias = (lab.normal(shape[1], dtype) for _ in range(2))
    weight_, bias_ = (lab.put(weight), lab.put(bias)) if with_parameters else (1.0, None)
    bias_ = bias_ if centred else None
    y, means, roots = normalization.forward(
        lab.put(x), weight_, bias_, count=1, eps=1e-5, centred=centred
    )
    w = wide(weight) if with_parameters else 1.0
    mean = wide(x).mean(axis=1, keepdims=True) if centred else 0.0
    root = 1 / np.sqrt(((wide(x) - mean) ** 2).mean(axis=1, keepdims=True) + 1e-5)
    xhat = (wide(x) - mean) * root
    title = f"{'layer' if centred else 'rms'} norm of {shape}"
    terms = Limit(terms=shape[1], scale=0.1)
    yield Check(title, y, xhat * w + (wide(bias) if bias_ is not None else 0.0), terms)
    yield Check(f"{title}: 1 / deviation", roots, root, terms)
    if centred:
        yield Check(f"{title}: mean", means, mean, terms)
    g = wide(gy) * w
    gx = (g - xhat * (g * xhat).mean(axis=1, keepdims=True)
          - (g.mean(axis=1, keepdims=True) if centred else 0.0)) * root  # fmt: skip
    needs = (True, with_parameters, bias_ is not None)
    made = normalization.backward(
        lab.put(gy), lab.put(x), weight_, means, roots, count=1, needs=needs
    )
    exact = (gx, (wide(gy) * xhat).sum(axis=0), wide(gy).sum(axis=0))
    sums = Limit(terms=shape[0], scale=math.sqrt(shape[0]))
    for name, got, right, limit in zip(
        ("x", "weight", "bias"), made, exact, (terms, sums, sums), strict=True
    ):
        if got is not None:
            yield Check(f"{title}: gradient of {name}", got, right, limit)


# ----------------------------------------------------------------------------------- reductions

_VIEWS: tuple[tuple[str, tuple[int, ...], Any], ...] = (
    # shape, axes: rows of all lengths, rows in parts, columns with and without packs, in parts
    ("rows", (300, 50), (1,)), ("rows", (37, 3000), (1,)), ("rows", (70, 129), (1,)),
    ("rows in parts", (2, 200_000), (1,)), ("columns", (500, 33), (0,)),
    ("columns", (500, 64), (0,)), ("columns in parts", (20_000, 64), (0,)),
    ("columns in parts", (9001, 3), (0,)), ("middle", (5, 40, 24), (1,)),
    ("outer and inner", (6, 5, 64), (0, 2)), ("all", (300, 333), None),
)  # fmt: skip
_SMALL_VIEWS = (("rows", (5, 50), (1,)), ("columns", (30, 8), (0,)), ("all", (9, 33), None))


def reduction_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """An operation along rows and columns, in one launch and in parts, and of turned arrays."""
    operation, dtype = defines["OPERATION"], defines["DTYPE"]
    names = {"sum": ("sum", "mean"), "var": ("var", "std")}.get(operation, (operation,))
    for name in names:
        if dtype not in FLOATS and name == "mean":
            continue
        for title, shape, axes in _SMALL_VIEWS if lab.small else _VIEWS:
            if dtype in ("float16", "bfloat16") and shape == (2, 200_000):
                shape = (2, 40_000)  # or the sum of absolute values is beyond float16
            x = _reduced_values(lab, name, shape, dtype)
            yield _reduction_check(lab, f"{name}, {title} {shape}", name, x, lab.put(x), axes)
        x = _reduced_values(lab, name, (40, 70), dtype)
        yield _reduction_check(lab, f"{name}, turned", name, x.T, lab.put(x).T, (1,))
        yield _reduction_check(
            lab, f"{name}, backwards", name, x[::-1, ::-2], lab.put(x)[::-1, ::-2], (1,)
        )


def _reduced_values(lab: Lab, name: str, shape: Any, dtype: str) -> np.ndarray:
    if name in ("any", "all", "count_nonzero"):
        share = {"any": 0.01, "all": 0.99}.get(name, 0.5)
        return (lab.random.random(shape) < share).astype(dtype_of(dtype))
    if name == "prod" and dtype in FLOATS:
        signs = lab.random.choice([-1.0, 1.0], shape)
        return ((1 + 0.005 * lab.random.standard_normal(shape)) * signs).astype(dtype_of(dtype))
    return lab.values(shape, dtype)


def _reduction_check(lab: Lab, title: str, name: str, x: Any, on_device: Any, axes: Any) -> Check:
    count = x.size if axes is None else math.prod(x.shape[i] for i in axes)
    options: dict[str, float] = {}
    if name == "mean":
        options = {"count": float(count)}
    elif name in ("var", "std"):
        options = {"count": float(count - 1), "order": 0.5}
    elif name == "norm":
        options = {"order": 3.0}
    if name == "var":
        del options["order"]
    got = reduction.reduce(name, on_device, axes, **options)
    limit = Limit(terms=min(count, 4096), scale={"sum": math.sqrt(count),
                  "mean": 1 / math.sqrt(count)}.get(name, 0.0))  # fmt: skip
    if name == "prod":
        limit = Limit(factors=count)
    return Check(title, got, _reduced(name, x, axes), limit)


def _reduced(name: str, x: np.ndarray, axes: Any) -> Any:
    if x.dtype.name not in FLOATS:
        return _reduced_integers(name, x, axes)
    x = wide(x)
    absolute = np.abs(x)
    functions: dict[str, Callable[[], Any]] = {
        "var": lambda: x.var(axis=axes, ddof=1),
        "std": lambda: x.std(axis=axes, ddof=1),
        "norm": lambda: (absolute**3).sum(axis=axes) ** (1 / 3),
        "norm1": lambda: absolute.sum(axis=axes),
        "norm2": lambda: np.sqrt((x * x).sum(axis=axes)),
        "norm_max": lambda: absolute.max(axis=axes),
        "norm_min": lambda: absolute.min(axis=axes),
        "logsumexp": lambda: scipy.special.logsumexp(x, axis=axes),
    }
    if name in functions:
        return np.asarray(functions[name]())
    return _reduced_integers(name, x, axes)


def _reduced_integers(name: str, x: np.ndarray, axes: Any) -> Any:
    if name in ("argmax", "argmin"):
        if axes is None:
            return np.asarray(getattr(np, name)(x))
        rest = [i for i in range(x.ndim) if i not in axes]
        kept = [x.shape[i] for i in rest]
        return getattr(np, name)(x.transpose(*rest, *axes).reshape(*kept, -1), axis=-1)
    return np.asarray(getattr(np, name)(x, axis=axes))


def scan_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Running sums and products: rows, columns, in parts, from the end."""
    operation, dtype = defines["OPERATION"], defines["DTYPE"]
    cases = [((37, 3001), 1), ((37, 3000), 1), ((300, 50), 1), ((3, 100_000), 1),
             ((2, 70_001), 1), ((5000, 8), 0), ((5, 400, 24), 1), ((70_000,), 0)]  # fmt: skip
    for shape, axis in [((3, 50), 1), ((30, 4), 0)] if lab.small else cases:
        for reverse in (False, True) if operation == "cumsum" else (False,):
            x = _reduced_values(lab, "prod" if operation == "cumprod" else "sum", shape, dtype)
            got = scan.scan(operation, lab.put(x), axis, reverse)
            values = wide(x) if dtype in FLOATS else x
            values = np.flip(values, axis) if reverse else values
            exact = getattr(np, operation)(values, axis=axis)
            exact = np.flip(exact, axis) if reverse else exact
            n = shape[axis]
            limit = (
                Limit(factors=n) if operation == "cumprod"
                else Limit(terms=min(n, 4096), scale=math.sqrt(n))
            )  # fmt: skip
            title = f"{operation} of {shape}, axis {axis}, reverse {reverse}"
            yield Check(title, got, exact, limit)


def scatter_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Rows of several widths, places that repeat and some that are outside."""
    dtype = defines["DTYPE"]
    cases = [(40, 1000, 1), (40, 1000, 33), (7, 5000, 768), (1000, 3000, 5)]
    for places, count, width in [(9, 5, 3)] if lab.small else cases:
        y, x = lab.normal((places, width), dtype), lab.normal((count, width), dtype)
        at = lab.random.integers(0, places + 1, count)  # the last one is outside
        got = lab.put(y)
        scatter.add_rows(got, lab.put(at), lab.put(x))
        exact = np.concatenate([wide(y), np.zeros((1, width))])
        np.add.at(exact, at, wide(x))
        terms = 1 + count // places
        yield Check(f"{count} rows of {width} into {places}", got, exact[:-1],
                    Limit(terms=4 * terms, scale=math.sqrt(terms)))  # fmt: skip


# ---------------------------------------------------------------------------------- random numbers


def random_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """What is drawn is the host's: bit for bit, and to the rounding of functions for normals."""
    dtype, chosen, call = defines["DTYPE"], int(lab.random.integers(1 << 62)), 3
    xp = lab.xp
    for size in (33,) if lab.small else (1, 7, 2049, 100_003):
        if "INTEGERS" in defines:
            exact = Generator(chosen).bits(size, call)
            yield Check(f"{size} × 64 bits", random.bits(size, chosen, call), exact)
            got = xp.empty(size, "int64")
            random.integers(got, chosen, call, -5, 1000)
            draw = partial(gl.randint, -5, 995, (size,))
            yield Check(f"{size} integers", got, _on_host(draw, chosen, call))
            continue
        for name, host in (("uniform", gl.rand), ("normal", gl.randn)):
            got = xp.empty(size, dtype_of(dtype))
            getattr(random, name)(got, chosen, call)
            exact = wide(_on_host(partial(host, size, dtype=dtype), chosen, call))
            # The host rounds its normals to the dtype, too.
            yield Check(f"{size} × {name}", got, exact, Limit(slack=2.0))
        x = lab.normal(size, dtype)
        generator = Generator().set_state({"seed": chosen, "calls": call})
        exact = np.zeros(size)
        while not exact.any():  # zeros alone are no reference, and of one value it may be dropped
            number = generator.get_state()["calls"]
            exact = wide(gl.dropout(gl.tensor(x), 0.3, generator=generator).numpy())
        got = random.dropout(lab.put(x), 0.3, chosen, number)
        yield Check(f"dropout of {size}", got, exact, Limit(slack=2.0))


def _on_host(draw: Callable[..., Any], chosen: int, call: int) -> np.ndarray:
    generator = Generator().set_state({"seed": chosen, "calls": call})
    found: np.ndarray = draw(generator=generator, device="cpu").numpy()
    return found


# ---------------------------------------------------------------------------------------- updates

OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
)


def update_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """Steps of every optimizer over more tensors than a launch takes, and clipping."""
    dtype = defines["DTYPE"]
    shapes = [(5,), (33, 3)] if lab.small else [(), (3,), (33, 31), (1025,), (300, 700)] * 12
    for kind, options in OPTIMIZERS:
        yield from _steps(lab, dtype, kind, options, shapes)
    yield from _clipping(lab, dtype, shapes)


def _steps(
    lab: Lab, dtype: str, kind: str, options: dict[str, Any], shapes: Any
) -> Iterator[Check]:
    values = [lab.normal(shape, dtype) for shape in shapes]
    found = [gl.tensor(x, device="cuda", requires_grad=True) for x in values]
    exact = [gl.tensor(wide(x), requires_grad=True) for x in values]
    optimizers = [getattr(gl.optim, kind)(each, **options) for each in (found, exact)]
    for step in range(2):
        for ours, right in zip(found, exact, strict=True):
            # Not small: the first steps divide by the gradient's size.
            g = lab.normal(ours.shape, dtype)
            g = np.asarray(np.where(np.abs(g) < 0.1, g + 0.5, g), dtype_of(dtype))
            ours.grad, right.grad = gl.tensor(g, device="cuda"), gl.tensor(wide(g))
        for optimizer in optimizers:
            optimizer.step()
        title = f"{kind} {options}, step {step + 1}"
        got = lab.xp.concatenate([p.detach()._array.reshape(-1) for p in found])
        right_values = [p.detach().numpy().reshape(-1) for p in exact]
        yield Check(title, got, np.concatenate(right_values), Limit(terms=16, scale=1.0))
        with gl.no_grad():  # the next step begins with what was rounded
            for ours, right in zip(found, exact, strict=True):
                right.copy_(ours.detach().cpu().to(gl.float64))


def _clipping(lab: Lab, dtype: str, shapes: Any) -> Iterator[Check]:
    count = sum(math.prod(shape) for shape in shapes)
    for order in (2.0, 1.0, math.inf, 3.0):
        grads = [lab.normal(shape, dtype) for shape in shapes]
        arrays = [lab.put(np.asarray(g)) for g in grads]
        total = lab.xp.empty((), "float64" if dtype == "float64" else "float32")
        update.total_norm(arrays, total, order)
        flat = np.concatenate([wide(g).reshape(-1) for g in grads])
        norm = np.linalg.norm(flat, order)
        yield Check(f"norm of order {order}", total, np.asarray(norm), Limit(terms=count))
        update.clip_norm(arrays, total, float(norm) / 3)
        got = lab.xp.concatenate([x.reshape(-1) for x in arrays])
        yield Check(f"clipped by norm {order}", got, flat * (norm / 3 / (norm + 1e-6)),
                    Limit(terms=count, scale=1e-3))  # fmt: skip
        clipped = np.clip(wide(lab.machine.host(got)), -0.1, 0.1)
        update.clip_value(arrays, 0.1)
        got = lab.xp.concatenate([x.reshape(-1) for x in arrays])
        yield Check("clipped to 0.1", got, clipped)
        if lab.small:
            return


def spin_cu(lab: Lab, defines: dict[str, Any]) -> Iterator[Check]:
    """It lasts as long as asked, and not ten times as long."""
    elapsed = lab.xp.empty(1, "int64")
    spin.spin(lab.machine.driver.driver, elapsed, 2e-4)
    passed = int(lab.machine.host(elapsed)[0])
    yield Check(f"200 µs took {passed} ns", np.asarray([200_000 <= passed <= 2_000_000]),
                np.asarray([True]))  # fmt: skip


SOURCES: dict[str, Callable[[Lab, dict[str, Any]], Iterator[Check]]] = {
    "cross_entropy.cu": cross_entropy_cu,
    "matmul.cu": matmul_cu,
    "matmul_mma.cu": partial(tensor_core, source=tensor_cores.MMA),
    "matmul_wgmma.cu": partial(tensor_core, source=tensor_cores.WGMMA),
    "normalization.cu": normalization_cu,
    "random.cu": random_cu,
    "reduction.cu": reduction_cu,
    "scan.cu": scan_cu,
    "scatter.cu": scatter_cu,
    "softmax.cu": softmax_cu,
    "spin.cu": spin_cu,
    "update.cu": update_cu,
}

# ------------------------------------------------------------------------------------ the section


def wanted(machine: Any) -> list[Variant]:
    """The variants that this machine's GPU can be asked for; on the emulator one of each source."""
    return of_each_kind(machine) if machine.dry else _found(machine)


def _found(machine: Any) -> list[Variant]:
    capability = machine.driver.properties().capability
    found = resources.for_architecture("sm_{}{}".format(*capability))
    # wgmma is of 9.0 alone, and no later GPU is asked for it.
    return [each for each in found if capability == (9, 0) or each.source != tensor_cores.WGMMA]


def of_each_kind(machine: Any) -> list[Variant]:
    """All of wgmma's, those of mma for one dtype, and one of each other source."""
    few = [
        variant for name in SOURCES
        if (variant := next((v for v in _found(machine) if _is_emulated(v, name)), None))
    ]  # fmt: skip
    if machine.dry:
        return few
    of_products = [
        each for each in _found(machine)
        if each.source == tensor_cores.WGMMA
        or (each.source == tensor_cores.MMA and dict(each.defines)["DTYPE"] == "bfloat16")
    ]  # fmt: skip
    return [*of_products, *(each for each in few if each not in of_products)]


def _is_emulated(variant: Variant, source: str) -> bool:
    """Whether a variant is the one of its source that a dry run takes: small, and float32."""
    defines = dict(variant.defines)
    sizes = {"TILE": 32, "TILE_N": 64 if source == tensor_cores.MMA else 128}
    return (
        variant.source == source
        and defines.get("DTYPE", "float32")
        == ("float16" if source in (tensor_cores.MMA, tensor_cores.WGMMA) else "float32")
        and all(defines.get(name, size) == size for name, size in sizes.items())
        and defines.get("ALIGN", 16) == 16
        and defines.get("OPERATION", "sum") in ("sum", "softmax", "cumsum")
        and "COLUMNS" not in defines
        and (source != "matmul.cu" or "TILE" in defines)
    )


@contextmanager
def noted(machine: Any) -> Iterator[set[tuple[str, Any]]]:
    """The modules that are launched inside."""
    driver = machine.driver.driver
    launched: set[tuple[str, Any]] = set()
    launch = driver.launch

    def noting(source: str, symbol: str, defines: Any, *rest: Any) -> None:
        launched.add((source, defines))
        launch(source, symbol, defines, *rest)

    driver.launch = noting
    try:
        yield launched
    finally:
        driver.launch = launch


def force(
    machine: Any, variant: Variant, run_seed: int = 0, *, pooled: bool = True,
    small: bool | None = None, judge: bool = True,
) -> Record:  # fmt: skip
    """Launch a variant in every way it is used in, and compare; what is wrong is listed.

    ``small``: a few small inputs alone, as on the emulator. ``judge`` is off where launches do
    nothing and are only counted.
    """
    failures: list[str] = []
    count, worst = 0, 0.0
    way = SOURCES.get(variant.source)
    with ExitStack() as stack:
        launched = stack.enter_context(noted(machine))
        stack.enter_context(poisoned(machine, pooled))
        lab = Lab(machine, variant, run_seed, machine.dry if small is None else small)
        for check in way(lab, dict(variant.defines)) if way else ():
            count += 1
            if not judge:
                continue
            exact = check.exact() if callable(check.exact) else check.exact
            verdict = compare(machine, check.got, exact, check.limit)
            worst = max(worst, verdict.error or 0.0)
            if verdict.wrong:
                failures.append(f"{check.title}: {verdict.wrong}")
    if (variant.source, variant.defines) not in launched:
        failures.append("it was not launched")
    return {
        "checks": count, "failures": failures[:10], "failed_checks": len(failures),
        "worst_error": worst,
    }  # fmt: skip


def title(variant: Variant) -> str:
    return compiler.describe(variant.source, variant.defines)
