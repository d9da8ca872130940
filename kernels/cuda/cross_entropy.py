"""Cross-entropy on the device: which kernel for which shape and layout, its geometry, its memory.

Scores are (N, C), (C,) or (N, C, d1, …). Positions without their class are the rows, in the order
of the labels. Classes that lie side by side are read by ``narrow`` or ``rows``, classes a stride
apart by ``columns``; scores of which neither classes nor positions lie side by side are copied
first. For the bytes that are moved see cross_entropy.cu; how fast they are is not yet measured.

The forward pass keeps two numbers per row (three with smoothing or probabilities); of a sum or a
mean, two per block for a while. A mean is divided by its weights on the device.
A label out of range gives its row a loss and a gradient of NaN, and counts nothing in the divisor
of a mean; a row with ``ignore_index`` is neither read nor counted, and its gradient is 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from gradlab.kernels.cuda.driver import (
    FLOATS,
    Defines,
    Variant,
    current,
    divide_up,
    dtype_name,
    launch,
)
from gradlab.kernels.ladder import rung

SOURCE = "cross_entropy.cu"
THREADS = 256
LABELS = ("int64", "int32")

_KINDS = ("LABELS", "SMOOTHED", "PROBABILITIES")  # of targets
_REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
_VALUES, _ROWS = 4, 4  # of `narrow`: values of a lane in a row, and rows of a lane
_WARP_BYTES = 8192  # the longest row of a warp: four times what its lanes read at once
_BLOCKS = 4096  # in a forward launch: 31 for each of 132 multiprocessors, which end evenly
_ENOUGH = 1024  # blocks, from which on nothing is gained by sharing rows
_BATCH = THREADS * 64  # bytes that a block reads at once


def variants() -> list[Variant]:
    """Every module this family can launch."""
    return [Variant(SOURCE, _defines(name, kind)) for name in FLOATS for kind in _KINDS]


def _defines(dtype: str, kind: str) -> Defines:
    return (("DTYPE", dtype), ("TARGET", kind))


# ------------------------------------------------------------------------------------ layout


class Layout(NamedTuple):
    """Where the scores lie, in elements: row r begins at ``r // inner * outer_stride + r % inner *
    inner_stride``, and its classes are ``class_stride`` apart."""

    rows: int
    classes: int
    inner: int
    outer_stride: int
    inner_stride: int
    class_stride: int

    @property
    def columns(self) -> bool:
        """True where threads lie along the rows instead of the classes."""
        return self.class_stride != 1


def layout(shape: tuple[int, ...], strides: tuple[int, ...]) -> Layout | None:
    """The layout of scores of ``strides`` in elements, None if no kernel can read them."""
    at = 1 if len(shape) > 1 else 0
    classes, class_stride = shape[at], strides[at] if shape[at] > 1 else 1
    axes: list[tuple[int, int]] = []  # sizes and strides of the rows, from the outermost
    for i, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        if i == at or size == 1:
            continue
        if axes and axes[-1][1] == stride * size:
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    if len(axes) > 2 or (class_stride != 1 and axes and axes[-1][1] != 1):
        return None
    if class_stride != 1 and not axes:  # a single row
        return None
    (outer, outer_stride), (inner, inner_stride) = [(1, 0)] * (2 - len(axes)) + axes
    rows = outer * inner
    if class_stride == 1 and outer == 1:
        return Layout(rows, classes, 1, inner_stride, 0, 1)
    return Layout(rows, classes, inner, outer_stride, inner_stride, class_stride)


def _empty_gradient(xp: Any, x: Any, place: Layout) -> Any:
    """Memory for a gradient, dense and in the order of the scores it belongs to."""
    shape = x.shape
    if len(shape) < 2:
        return xp.empty(shape, x.dtype)
    if not place.columns:
        return xp.moveaxis(xp.empty((shape[0], *shape[2:], shape[1]), x.dtype), -1, 1)
    if place.inner == place.rows:
        return xp.moveaxis(xp.empty((shape[1], shape[0], *shape[2:]), x.dtype), 0, 1)
    return xp.empty(shape, x.dtype)


# ---------------------------------------------------------------------------------- geometry

_FIELDS = (
    "rows", "classes", "inner", "outer_stride", "inner_stride", "class_stride", "lanes", "part",
    "parts", "ignore", "long_labels", "weighted", "reduction", "slope_step", "wants",
)  # fmt: skip
PROBLEM = np.dtype(
    [*((name, np.int64) for name in _FIELDS), ("smoothing", np.float64), ("count", np.float64)]
)


class Plan(NamedTuple):
    """A launch; ``parts`` is how many blocks share a row."""

    kernel: str
    grid: int
    parts: int
    problem: np.ndarray


@lru_cache(maxsize=4096)
def plan(
    place: Layout, itemsize: int, aligned: int, backward: bool, options: tuple[Any, ...]
) -> Plan:
    """Choose kernel and geometry; ``aligned`` is the largest power of two (up to 16) that divides
    all addresses, ``options`` the other fields of a problem. The same ones come at every step of
    training, so they are remembered."""
    if place.columns:
        kernel, lanes, units, least = _columns(place, itemsize, aligned)
    elif place.classes <= 32 * _VALUES:
        kernel, lanes = "narrow", _power_of_two(divide_up(place.classes, _VALUES))
        units, least = divide_up(place.rows, THREADS // lanes * _ROWS), place.classes
    else:
        kernel, lanes = "rows", 32 if place.classes * itemsize <= _WARP_BYTES else THREADS
        units, least = divide_up(place.rows, THREADS // lanes), 2 * _BATCH // itemsize
    part, parts = _parts(place.classes, units, least, backward)
    problem = np.zeros((), PROBLEM)
    fields = {**place._asdict(), "lanes": lanes, "part": part, "parts": parts, **dict(options)}
    for name, value in fields.items():
        problem[name] = value
    grid = units * parts
    return Plan(kernel, grid if backward or parts > 1 else min(grid, _BLOCKS), parts, problem)


def _columns(place: Layout, itemsize: int, aligned: int) -> tuple[str, int, int, int]:
    pack = 2 if itemsize == 8 else 8 // itemsize
    strides = (place.inner, place.outer_stride, place.class_stride)
    packed = aligned % (pack * itemsize) == 0 and all(each % pack == 0 for each in strides)
    pack = pack if packed else 1
    width = divide_up(place.rows, pack)
    lanes = min(THREADS, _power_of_two(width))
    # A block's groups share the classes: while blocks are few, and each group has 16 or more.
    fewest = 32 * THREADS // place.classes
    while lanes > 32 and lanes >= fewest and divide_up(width, lanes) < _ENOUGH:
        lanes //= 2
    least = 32 * (THREADS // lanes)
    name = "columns_packed" if packed else "columns"
    return name, lanes, divide_up(width, lanes), least


def _parts(classes: int, units: int, least: int, backward: bool) -> tuple[int, int]:
    """How many classes a block takes, ``least`` or more, and how many blocks share a row."""
    # Backward has nothing to join: long rows are cut short, and the last blocks end together.
    parts = max(1, classes // least)
    if not backward:
        parts = min(parts, divide_up(2 * _ENOUGH, units)) if units < _ENOUGH else 1
    parts = max(parts, divide_up(classes, 1 << 30))  # kernels count in 32 bits within a part
    part = divide_up(divide_up(classes, parts), 64) * 64
    return part, divide_up(classes, part)


def _power_of_two(n: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


# ------------------------------------------------------------------------------------ launch


class Saved(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    kept: Any  # the largest score of each row, its sum of exponentials, perhaps its Σ q
    total: Any  # the weights of all rows, which a mean of labelled rows divides by
    ignore_index: int


class _Given(NamedTuple):
    """Arrays that kernels can read, and where they lie."""

    x: Any
    target: Any
    weight: Any
    place: Layout
    aligned: int  # the largest power of two, up to 16, that divides their addresses
    options: tuple[tuple[str, float], ...]


def _read(
    x: Any, target: Any, weight: Any, *, kind: str, ignore_index: int, label_smoothing: float,
    reduction: str,
) -> _Given:  # fmt: skip
    driver = current()
    xp, soft = driver.xp, kind == "PROBABILITIES"
    place = None if soft and x.strides != target.strides else _layout_of(x)
    if place is None:
        x = xp.ascontiguousarray(x)
        place = _layout_of(x)
        assert place is not None, "scores in rows can be read"
    if not soft or x.strides != target.strides:
        target = xp.ascontiguousarray(target)
    weighted = hasattr(weight, "shape")
    if weighted:
        weight = xp.ascontiguousarray(weight.astype(_wide(x), copy=False))
    addresses = 16 | driver.pointer(x) | (driver.pointer(target) if soft else 0)
    options = (
        ("ignore", ignore_index), ("long_labels", int(dtype_name(target.dtype) == "int64")),
        ("weighted", int(weighted)), ("smoothing", label_smoothing),
        ("reduction", _REDUCTIONS[reduction]), ("count", place.rows),
    )  # fmt: skip
    aligned = addresses & -addresses
    return _Given(x, target, weight if weighted else x, place, aligned, options)


def _layout_of(x: Any) -> Layout | None:
    return layout(x.shape, tuple([stride // x.itemsize for stride in x.strides]))


def _wide(x: Any) -> type[np.floating]:
    """The type that kernels compute in."""
    return np.float64 if dtype_name(x.dtype) == "float64" else np.float32


def _forward(x: Any, target: Any, weight: Any, *, kind: str, **options: Any) -> Any:
    xp = current().xp
    shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    given = _read(x, target, weight, kind=kind, **options)
    x, rows = given.x, given.place.rows
    chosen = plan(given.place, x.itemsize, given.aligned, False, given.options)
    each, joins = options["reduction"] == "none", chosen.parts > 1
    blocks = min(divide_up(rows, THREADS), _BLOCKS) if joins else chosen.grid
    name, wide = dtype_name(x.dtype), _wide(x)
    losses = xp.empty(shape if each else (), x.dtype)
    kept = xp.empty((2 if kind == "LABELS" else 3, rows), wide)
    totals = kept if each else xp.empty((blocks, 2), wide)
    parts = xp.empty((chosen.parts, rows, 4), wide) if joins else kept
    args = (x, given.target, given.weight, losses, kept, totals, parts, chosen.problem)
    defines = _defines(name, kind)
    kernel = f"forward_{chosen.kernel}_{name}"
    launch(SOURCE, kernel, (chosen.grid,), (THREADS,), args, defines=defines)
    if joins:
        launch(SOURCE, f"join_parts_{name}", (blocks,), (THREADS,), args, defines=defines)
    if each:
        return losses, Saved(kept, kept, options["ignore_index"])
    total = xp.empty((), wide)
    added = (totals, losses, total, blocks, chosen.problem)
    launch(SOURCE, f"add_totals_{name}", (1,), (THREADS,), added, defines=defines)
    return losses, Saved(kept, total, options["ignore_index"])


def _backward(
    gy: Any, x: Any, target: Any, weight: Any, *, kind: str, needs: tuple[bool, ...], aux: Saved,
    **options: Any,
) -> Any:  # fmt: skip
    xp = current().xp
    given = _read(x, target, weight, kind=kind, ignore_index=aux.ignore_index, **options)
    x, name = given.x, dtype_name(given.x.dtype)
    gx = _empty_gradient(xp, x, given.place) if needs[0] else None
    gtarget = _empty_gradient(xp, x, given.place) if needs[1] else None
    slopes, step = _slopes(xp, gy) if options["reduction"] == "none" else (gy, 0)
    wants = int(gx is not None) + 2 * int(gtarget is not None)
    problem = (*given.options, ("slope_step", step), ("wants", wants))
    chosen = plan(given.place, x.itemsize, given.aligned, True, problem)
    made = gtarget if gx is None else gx
    args = (
        x, given.target, given.weight, aux.kept, aux.total, slopes, made,
        made if gtarget is None else gtarget, chosen.problem,
    )  # fmt: skip
    kernel = f"backward_{chosen.kernel}_{name}"
    launch(SOURCE, kernel, (chosen.grid,), (THREADS,), args, defines=_defines(name, kind))
    return gx, gtarget


def _slopes(xp: Any, gy: Any) -> tuple[Any, int]:
    """The gradient of each row's loss, and how far apart they lie: 0 where it is one for all."""
    if gy.size > 1 and not any(gy.strides):
        return gy, 0
    return xp.ascontiguousarray(gy), 1


# ------------------------------------------------------------------------------------- rungs


def _fits(x: Any, weight: Any) -> bool:
    if (
        dtype_name(x.dtype) not in FLOATS
        or not x.size
        or any(each % x.itemsize for each in x.strides)
    ):
        return False
    if not hasattr(weight, "shape"):
        return True
    # A loss is of the dtype of the scores, or else of half-precision weights.
    halves = weight.itemsize == 2 and x.itemsize > 2
    return weight.shape == (x.shape[1 if x.ndim > 1 else 0],) and not halves


def _accepts_labels(x: Any, target: Any, weight: Any = 1.0, **_: Any) -> bool:
    shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    return (
        x.ndim > 0
        and dtype_name(target.dtype) in LABELS
        and target.shape == shape
        and _fits(x, weight)
    )


def _accepts_probabilities(x: Any, target: Any, weight: Any = 1.0, **_: Any) -> bool:
    return x.ndim > 0 and target.dtype == x.dtype and target.shape == x.shape and _fits(x, weight)


def _has_saved(*arrays: Any, aux: Any, **_: Any) -> bool:
    """True where the kernels made the forward pass."""
    return aux.__class__ is Saved


@rung("cross_entropy", accepts=_accepts_labels)
def cross_entropy(
    x: Any, target: Any, weight: Any = 1.0, *, ignore_index: int = -100,
    label_smoothing: float = 0.0, reduction: str = "mean",
) -> Any:  # fmt: skip
    """The loss of class labels, and what `cross_entropy_backward` needs."""
    return _forward(
        x, target, weight, kind=_kind(label_smoothing), ignore_index=ignore_index,
        label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip


@rung("cross_entropy", accepts=_has_saved)
def cross_entropy_backward(
    gy: Any, x: Any, target: Any, weight: Any, *, aux: Saved, label_smoothing: float,
    reduction: str, needs: tuple[bool, ...] = (True,),
) -> Any:  # fmt: skip
    """The gradient of the scores, in a tuple."""
    gx, _ = _backward(
        gy, x, target, weight, kind=_kind(label_smoothing), needs=(True, False), aux=aux,
        label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip
    return (gx,)


@rung("cross_entropy", accepts=_accepts_probabilities)
def soft_cross_entropy(
    x: Any, target: Any, weight: Any = 1.0, *, label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """The loss of class probabilities, and what `soft_cross_entropy_backward` needs."""
    return _forward(
        x, target, weight, kind="PROBABILITIES", ignore_index=-1, label_smoothing=label_smoothing,
        reduction=reduction,
    )  # fmt: skip


@rung("cross_entropy", accepts=_has_saved)
def soft_cross_entropy_backward(
    gy: Any, x: Any, target: Any, weight: Any, *, aux: Saved, label_smoothing: float,
    reduction: str, needs: tuple[bool, ...] = (True, True),
) -> Any:  # fmt: skip
    """The gradients of the scores and of the probabilities; None where not needed."""
    return _backward(
        gy, x, target, weight, kind="PROBABILITIES", needs=needs[:2], aux=aux,
        label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip


def _kind(label_smoothing: float) -> str:
    return "SMOOTHED" if label_smoothing > 0 else "LABELS"
