"""Cross-entropy on CUDA, on the emulator: the definition in float64 is what it is held against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import cross_entropy as cuda
from hypothesis import given, strategies as st

import gradlab as gl
from fake_cuda import Array
from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.backends.gate import counters
from gradlab.errors import GradientError, ShapeError
from gradlab.nn import functional as F
from gradlab.ops.loss import CROSS_ENTROPY, SOFT_CROSS_ENTROPY
from gradlab.testing import assert_close, check_op

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng


def defined(
    x: Any, target: Any, weight: Any = None, *, ignore_index: int = -100,
    label_smoothing: float = 0.0, reduction: str = "mean", slope: Any = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Loss, gradient of the scores and of the probabilities, for scores (N, C, D) in float64."""
    count, classes, depth = x.shape
    soft = target.ndim == 3
    weight = np.ones(classes) if weight is None else np.asarray(weight, np.float64)
    if soft:
        hot, kept = np.asarray(target, np.float64), np.ones((count, depth), bool)
    else:
        kept = target != ignore_index
        hot = np.arange(classes)[:, None] == np.where(kept, target, 0)[:, None, :]
    q = (hot * (1 - label_smoothing) + label_smoothing / classes) * weight[:, None]
    if not soft:
        q *= kept[:, None]
    x = np.asarray(x, np.float64)
    d = x - x.max(1, keepdims=True)
    log_p = d - np.log(np.exp(d).sum(1, keepdims=True))
    divisor = {"sum": 1, "none": 1, "mean": count * depth}[reduction]
    if reduction == "mean" and not soft:
        divisor = (weight[np.where(kept, target, 0)] * kept).sum()
    losses = -(q * log_p).sum(1)
    loss = losses if reduction == "none" else losses.sum() / divisor
    scale = np.asarray(1.0 if slope is None else slope) / divisor
    scale = scale[:, None] if scale.ndim else scale
    gx = scale * (np.exp(log_p) * q.sum(1, keepdims=True) - q)
    return loss, gx, -scale * log_p * weight[:, None] * (1 - label_smoothing)


def computed(
    x: np.ndarray, target: np.ndarray, weight: Any = None, *, reduction: str = "mean",
    slope: Any = None, label_smoothing: float = 0.0, **options: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """The same by the kernels."""
    soft = target.dtype.kind not in "iu"
    forward = cuda.soft_cross_entropy if soft else cuda.cross_entropy
    back = cuda.soft_cross_entropy_backward if soft else cuda.cross_entropy_backward
    given = [Array(x, 0), Array(target, 0), 1.0 if weight is None else Array(weight, 0)]
    options = {"label_smoothing": label_smoothing, "reduction": reduction, **options}
    loss, aux = forward(*given, **options)
    options.pop("ignore_index", None)
    slope = np.ones(loss.shape, x.dtype) if slope is None else np.asarray(slope, x.dtype)
    found = back(Array(slope, 0), *given, aux=aux, **options)
    assert loss.dtype == found[0].dtype == x.dtype
    return loss.get(), found[0].get(), found[1].get() if soft else None


RESOLUTION = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-21, "float64": 2**-46}


def check(x: np.ndarray, target: np.ndarray, weight: Any = None, **options: Any) -> None:
    """Hold the kernels against the definition; scores of any number of axes."""
    rows = x.reshape((1, -1, 1) if x.ndim == 1 else (*x.shape[:2], -1))
    soft = target.dtype.kind not in "iu"
    # What the kernels are given is rounded already; what they make is rounded once.
    wanted = defined(
        rows.astype(np.float64),
        target.astype(np.float64).reshape(rows.shape) if soft
        else target.reshape(rows.shape[0], rows.shape[2]),
        None if weight is None else weight.astype(np.float64),
        **options,
    )  # fmt: skip
    loss, gx, gtarget = computed(x, target, weight, **options)
    rtol = RESOLUTION[x.dtype.name]
    np.testing.assert_allclose(loss.astype(float).ravel(), np.ravel(wanted[0]), 4 * rtol, rtol)
    for found, expected in ((gx, wanted[1]), (gtarget, wanted[2])):
        if found is None:
            continue
        assert found.shape == x.shape
        # Below 6e-8 float16 has no number but 0.
        atol = 2 * rtol * np.abs(expected).max() + (2**-24 if x.dtype == np.float16 else 0)
        np.testing.assert_allclose(
            found.astype(float).reshape(expected.shape), expected, 4 * rtol, atol
        )


def scores(shape: Any, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return (RNG(seed).standard_normal(shape) * 3).astype(dtypes.as_dtype(dtype))


def labels(shape: Any, classes: int, dtype: str = "int64", seed: int = 1) -> np.ndarray:
    return RNG(seed).integers(0, classes, shape).astype(dtype)


def shares(shape: Any, dtype: str = "float32", seed: int = 2) -> np.ndarray:
    e = np.exp(RNG(seed).standard_normal(shape))
    return (e / e.sum(1, keepdims=True)).astype(dtypes.as_dtype(dtype))


def kernels(emulator: Any) -> list[str]:
    """The kernels that were launched, without their dtype; and forget them."""
    names = [symbol.rsplit("_", 1)[0] for _, symbol in emulator.launches]
    emulator.launches.clear()
    return names


@pytest.mark.parametrize("op", [CROSS_ENTROPY, SOFT_CROSS_ENTROPY], ids=lambda op: op.name)
def test_samples(emulator, op):
    assert check_op(op, devices=["cuda"]) > 5
    assert {"forward_narrow", "backward_narrow", "forward_columns"} <= set(kernels(emulator))


# -------------------------------------------------------------------------- sizes and options

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "weight": True},
    {"weight": True, "label_smoothing": 0.3},
]


def options_for(options: dict[str, Any], classes: int, rows: Any) -> dict[str, Any]:
    options = dict(options)
    if options.pop("weight", False):
        options["weight"] = RNG(5).uniform(0.2, 2, classes).astype("float32")
    if options.get("reduction") == "none":
        options["slope"] = np.round(RNG(6).uniform(0.2, 2, rows) * 8) / 8
    return options


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@pytest.mark.parametrize(
    "dtype", [pytest.param("float32", marks=pytest.mark.sanitized), "bfloat16"]
)
def test_every_kernel(emulator, dtype, soft):
    """Rows for a lane, for lanes of a warp, for a warp, a block, several; columns, packed too."""
    launched = set()
    for shape in ((5, 3), (9, 10), (40, 33), (3, 129), (2, 5000), (1, 40_000), (2, 5, 7), (2, 5, 8),
                  (1, 700, 12)):  # fmt: skip
        x = scores(shape, dtype)
        rows = (shape[0], *shape[2:])
        target = shares(shape, dtype) if soft else labels(rows, shape[1])
        for i, options in enumerate(OPTIONS[: 2 if shape[1] > 1000 else None]):
            given = options_for(options, shape[1], (shape[0], math.prod(shape[2:])))
            if i == 1 and not soft:
                target.reshape(-1)[::3] = -100
            check(x, target, **given) if "slope" not in given else check_each(x, target, given)
        launched |= set(kernels(emulator))
    named = {f"{way}_{name}" for way in ("forward", "backward")
             for name in ("narrow", "rows", "columns", "columns_packed")}  # fmt: skip
    assert launched == named | {"join_parts", "add_totals"}


def check_each(x: np.ndarray, target: np.ndarray, given: dict[str, Any]) -> None:
    """The losses of all rows, each with a gradient of its own."""
    slope = given.pop("slope")
    rows = x.shape[:1] + x.shape[2:]
    wanted = defined(
        x.astype(float).reshape(*x.shape[:2], -1),
        target.reshape(slope.shape) if target.dtype.kind in "iu"
        else target.astype(float).reshape(*x.shape[:2], -1),
        slope=slope, **given,
    )  # fmt: skip
    loss, gx, _ = computed(x, target, slope=slope.reshape(rows), **given)
    rtol = RESOLUTION[x.dtype.name]
    assert loss.shape == rows
    np.testing.assert_allclose(loss.astype(float).ravel(), wanted[0].ravel(), 4 * rtol, rtol)
    np.testing.assert_allclose(
        gx.astype(float).reshape(wanted[1].shape), wanted[1], 4 * rtol, 4 * rtol
    )


@pytest.mark.sanitized
def test_halves_at_odd_addresses(emulator):
    """Classes before the first 16 bytes and behind the last; more than one pack in between."""
    x = scores((3, 1037), "bfloat16")
    for start, end in ((0, 1037), (1, 1030), (7, 1033), (3, 135)):
        check(x[:, start:end], labels(3, end - start))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 10, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025])
def test_sizes(emulator, dtype, classes):
    x = scores((70 if classes < 100 else 9, classes), dtype)
    check(x, labels(len(x), classes))
    check(x[0], labels((), classes))


def test_vocabularies(emulator):
    """Rows that blocks share, of lengths and at addresses that are no multiples of 16 bytes."""
    for rows, classes in ((3, 50_257), (2, 70_001)):
        x = scores((rows, classes), "bfloat16")
        check(x, labels(rows, classes, "int32"))
        assert kernels(emulator) == ["forward_rows", "join_parts", "add_totals", "backward_rows"]
    x = scores((2, 30_001))
    check(x, labels(2, 30_001), label_smoothing=0.1)
    check(x, shares((2, 30_001)))


# ------------------------------------------------------------------------------------ layouts


def arranged() -> list[np.ndarray]:
    """Scores (6, 10, 2, 4) in memory of many kinds."""
    x = scores((6, 10, 2, 4))
    return [
        np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1),  # classes side by side
        x.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3),  # classes outermost
        x[::-1],
        x[:, ::2],
        x[:, :, ::-1],
        x[..., ::2],
        x.transpose(3, 1, 2, 0),
        scores((6, 20, 2, 4))[:, 3:13],
        scores(481)[1:].reshape(6, 10, 2, 4),  # off the 8 bytes of a pack
    ]


@pytest.mark.sanitized
def test_layouts(emulator):
    for x in arranged():
        rows = (x.shape[0], *x.shape[2:])
        check(x, labels(rows, x.shape[1]))
        check(x, shares(x.shape), label_smoothing=0.1)
    for x in (scores((33, 200)).T, scores((7, 300))[:, 1:298], scores((14, 300))[::2, :297],
              scores((5, 400))[:, ::-2], scores((5, 200))[::-1], scores(200)[::2]):  # fmt: skip
        check(x, labels(x.shape[:-1], x.shape[-1]))
        if x.ndim > 1:
            check(x, shares(x.shape))
    wide = labels((20, 2), 50)
    check(scores((20, 50)), wide[:, 0])  # labels a stride apart
    x = np.broadcast_to(scores((1, 50)), (20, 50))
    check(x, labels(20, 50))


def test_gradients_lie_as_the_scores_do(emulator):
    for x in (*arranged()[:2], scores((33, 200)).T, scores((5, 10))):
        place = cuda.layout(x.shape, tuple(stride // 4 for stride in x.strides))
        assert place is not None
        made = cuda._empty_gradient(emulator.xp, Array(x, 0), place)
        assert (made.shape, made.strides) == (x.shape, x.strides)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    order=st.permutations(range(4)),
    steps=st.lists(st.sampled_from([1, 1, 2, -1]), min_size=4, max_size=4),
)
def test_a_layout_finds_every_score(shape, order, steps):
    order = [i for i in order if i < len(shape)]
    memory = np.arange(9**4).reshape(9, 9, 9, 9)[tuple(slice(n) for n in [9] * 4)]
    memory = np.ascontiguousarray(memory[(slice(None),) * len(shape) + (0,) * (4 - len(shape))])
    x = memory.transpose(order)[tuple(slice(None, None, step) for step in steps[: len(shape)])]
    x = x[tuple(slice(n) for n in shape)]
    place = cuda.layout(x.shape, tuple(stride // 8 for stride in x.strides))
    if place is None:
        return
    first = x.ravel()[0]
    base = memory.ravel().tolist().index(first)
    at = 1 if x.ndim > 1 else 0
    for r, row in enumerate(np.moveaxis(x, at, -1).reshape(-1, x.shape[at])):
        start = base + r // place.inner * place.outer_stride + r % place.inner * place.inner_stride
        for c, value in enumerate(row):
            assert memory.ravel()[start + c * place.class_stride] == value


# ---------------------------------------------------------------------- numbers at the extremes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(6, 10), (6, 700), (2, 9000), (2, 40, 3)])
def test_large_scores(emulator, dtype, shape):
    """The log-sum-exp is kept in two parts: scores of 10,000 cost no digits of the loss."""
    around = 1e4 * np.sign(RNG(3).standard_normal((shape[0], 1, *[1] * (len(shape) - 2))))
    x = (scores(shape, "float64") + around).astype(dtypes.as_dtype(dtype))
    check(x, labels((shape[0], *shape[2:]), shape[1]), label_smoothing=0.1)
    apart = (scores(shape, "float64", 4) * 1e4 / 10).astype(dtypes.as_dtype(dtype))
    check(apart, labels((shape[0], *shape[2:]), shape[1]), reduction="sum")


@pytest.mark.parametrize("shape", [(6, 10), (6, 700), (6, 9000), (6, 40, 3)])
def test_infinities(emulator, shape):
    """As the array code does: masked classes weigh nothing; rows of nothing but -inf are NaN."""
    x = scores(shape)
    x[1, 2:] = -INF
    x[2] = -INF
    x[3, 1] = INF
    x[4, 5] = NAN
    x[5, :-1] = -INF
    target = np.zeros((shape[0], *shape[2:]), np.int64)
    target[5] = shape[1] - 1
    made = []
    for device in ("cpu", "cuda"):
        scored = gl.tensor(x, device=device, requires_grad=True)
        y = F.cross_entropy(scored, gl.tensor(target, device=device), reduction="none")
        (gx,) = grad(y, scored, gl.ones(y.shape, device=device))
        made.append((y.detach().numpy(force=True), gx.numpy(force=True)))
    np.testing.assert_allclose(made[1][0], made[0][0], 1e-5, 1e-6)
    np.testing.assert_allclose(made[1][1], made[0][1], 1e-5, 1e-7)
    assert np.isfinite(made[1][0][[0, 1, 5]]).all()
    assert np.isnan(made[1][0][[2, 3, 4]]).all()


# ------------------------------------------------------------------------------------- labels


@pytest.mark.sanitized
@pytest.mark.parametrize("shape", [(4, 10), (4, 200), (4, 9000), (4, 10, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_label_out_of_range_is_nan_in_its_row_alone(emulator, shape, smoothing):
    x, far = scores(shape), shape[1]
    weight = np.full(shape[1], 2, "float32")
    for dtype, bad in (("int64", [far, -1, 1 << 62]), ("int32", [far, -(1 << 31), far + 5])):
        for each in bad:
            target = labels((4, *shape[2:]), shape[1], dtype)
            target[2] = each
            for factors in (None, weight):
                options = {"reduction": "none", "label_smoothing": smoothing}
                loss, gx, _ = computed(x, target, factors, **options)
                assert np.isnan(loss[2]).all()
                assert np.isnan(gx[2]).all()
                assert np.isfinite(np.delete(loss, 2, 0)).all()
                assert np.isfinite(np.delete(gx, 2, 0)).all()
    loss, gx, _ = computed(x, target, weight, label_smoothing=smoothing)
    good = np.array([0, 1, 3])
    _, kept, _ = computed(x[good], target[good], weight, label_smoothing=smoothing)
    assert np.isnan(loss)
    np.testing.assert_array_equal(gx[good], kept)  # the mean's divisor counts the others


@pytest.mark.parametrize("shape", [(6, 10), (6, 200), (6, 3000), (6, 10, 4)])
def test_ignored_rows_count_nothing(emulator, shape):
    x = scores(shape)
    target = labels((6, *shape[2:]), shape[1])
    for ignore in (-100, 3, 1 << 40):
        x[4] = NAN
        target[4] = ignore
        weight = RNG(5).uniform(0.2, 2, shape[1]).astype("float32")
        for smoothing in (0.0, 0.1):
            options = {"ignore_index": ignore, "label_smoothing": smoothing}
            loss, gx, _ = computed(x, target, weight, **options)
            rest, kept, _ = computed(np.delete(x, 4, 0), np.delete(target, 4, 0), weight, **options)
            np.testing.assert_allclose(loss, rest, 1e-6)
            np.testing.assert_allclose(np.delete(gx, 4, 0), kept, 1e-5, 1e-8)
            assert (gx[4] == 0).all()


def test_every_row_ignored(emulator):
    for shape in ((5, 10), (5, 200), (5, 3000), (5, 10, 4)):
        x, target = scores(shape), np.full((5, *shape[2:]), -100)
        for smoothing in (0.0, 0.1):
            loss, gx, _ = computed(x, target, label_smoothing=smoothing)
            assert np.isnan(loss)
            assert (gx == 0).all()
    x, target = scores((5, 10)), np.full(5, -100)
    loss, gx, _ = computed(x, target, reduction="sum")
    assert loss == 0
    assert (gx == 0).all()


def test_one_hot_probabilities_are_labels(emulator):
    x, target = scores((7, 12)), labels(7, 12)
    hot = np.eye(12, dtype="float32")[target]
    for options in ({}, {"label_smoothing": 0.1}):
        of_labels, of_hot = computed(x, target, **options), computed(x, hot, **options)
        np.testing.assert_allclose(of_hot[0], of_labels[0], 1e-6)
        np.testing.assert_allclose(of_hot[1], of_labels[1], 1e-5, 1e-7)


# ---------------------------------------------------------------- order, memory, no host waiting


@pytest.mark.parametrize("shape", [(5000, 10), (300, 200), (3, 40_000), (3, 10, 500)])
def test_the_same_bits_in_every_order_of_threads(emulator, shape):
    x, target = scores(shape), labels((shape[0], *shape[2:]), shape[1])
    first = computed(x, target, label_smoothing=0.1)
    emulator.order = 1 - emulator.order
    second = computed(x, target, label_smoothing=0.1)
    for a, b in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_of_the_scores_size_but_the_gradient(emulator, monkeypatch):
    sizes: list[int] = []
    empty = emulator.xp.empty

    def recorded(shape: Any, dtype: Any) -> Any:
        made = empty(shape, dtype)
        sizes.append(made.nbytes)
        return made

    monkeypatch.setattr(emulator.xp, "empty", recorded)
    for shape in ((64, 3000), (2, 40_000), (8, 40, 64)):
        x = gl.tensor(scores(shape), device="cuda", requires_grad=True)
        target = gl.tensor(labels((shape[0], *shape[2:]), shape[1]), device="cuda")
        loss = F.cross_entropy(x, target)
        rows = x.numel() // shape[1]
        assert sum(sizes) <= 64 * rows + 8 * 4096
        sizes.clear()
        loss.backward()
        assert sizes == [x.nbytes]
        sizes.clear()


def test_the_host_does_not_wait(emulator):
    x = gl.tensor(scores((40, 10)), device="cuda", requires_grad=True)
    target = gl.tensor(labels(40, 10), device="cuda")
    weight = gl.tensor(np.ones(10, "float32"), device="cuda")
    before = counters.synchronizations, emulator.waits, emulator.copies_to_host
    for smoothing in (0.0, 0.1):
        F.cross_entropy(x, target, weight, label_smoothing=smoothing).backward()
    assert (counters.synchronizations, emulator.waits, emulator.copies_to_host) == before


# ------------------------------------------------------------------------------- the op's kernels


@pytest.mark.parametrize(
    ("shape", "name", "parts"),
    [
        ((4096, 10), "narrow", 1),
        ((4096, 128), "narrow", 1),
        ((4096, 129), "rows", 1),
        ((4096, 50_257), "rows", 1),
        ((16, 262_144), "rows", 16),
        ((1, 1_000_000), "rows", 61),
        ((16, 21, 262_144), "columns_packed", 1),
        ((16, 21, 262_143), "columns", 1),
        ((8, 50_257, 1024), "columns_packed", 32),
    ],
)
def test_which_kernel_for_which_shape(shape, name, parts):
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    place = cuda.layout(shape, strides)
    assert place is not None
    chosen = cuda.plan(place, 2, 16, False, ())
    assert (chosen.kernel, chosen.parts) == (name, parts)
    back = cuda.plan(place, 2, 16, True, ())
    assert back.kernel == name
    for each in (chosen, back):
        assert int(each.problem["part"]) * each.parts >= shape[1]
        assert int(each.problem["part"]) * (each.parts - 1) < shape[1]


def test_classes_beyond_32_bits_are_split():
    place = cuda.layout((4096, 1 << 32), (1 << 32, 1))
    assert place is not None
    assert cuda.plan(place, 2, 16, False, ()).problem["part"] <= 1 << 30


def test_a_step_is_three_launches(emulator):
    x = gl.tensor(scores((40, 10)), device="cuda", requires_grad=True)
    F.cross_entropy(x, gl.tensor(labels(40, 10), device="cuda")).backward()
    assert kernels(emulator) == ["forward_narrow", "add_totals", "backward_narrow"]
    y = F.cross_entropy(x, gl.tensor(labels(40, 10), device="cuda"), reduction="none")
    y.sum().backward()
    assert [name for name in kernels(emulator) if "narrow" in name or "totals" in name] == [
        "forward_narrow", "backward_narrow",
    ]  # fmt: skip


def test_what_the_kernels_refuse(emulator):
    """The op's array code computes it then, and explains what is wrong."""
    x = gl.tensor(scores((6, 10)), device="cuda")
    half = x.astype("bfloat16")
    target = labels(6, 10)
    for dtype in ("uint8", "int16", "uint64"):
        F.cross_entropy(x, gl.tensor(target, dtype=dtype, device="cuda"))
    F.cross_entropy(half, gl.tensor(shares((6, 10)), device="cuda"))
    F.cross_entropy(gl.zeros((0, 10), device="cuda"), gl.zeros(0, dtype="int64", device="cuda"))
    on_device = gl.tensor(target, device="cuda")
    F.cross_entropy(x, on_device, gl.ones(10, dtype="float16", device="cuda"))
    with pytest.raises(ShapeError, match="weight for each of the 10 classes"):
        F.cross_entropy(x, on_device, gl.ones(9, device="cuda"))
    with pytest.raises(ShapeError, match="integer class labels of shape"):
        F.cross_entropy(x, on_device[:5])
    assert kernels(emulator) == []


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_weights_of_other_dtypes(emulator, soft):
    x, weight = scores((6, 10), "bfloat16"), RNG(5).uniform(0.2, 2, 10)
    target = shares((6, 10), "bfloat16") if soft else labels(6, 10)
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        given = weight.astype(dtypes.as_dtype(dtype))
        check(x, target, given, label_smoothing=0.1)


def test_gradients_of_the_gradient(emulator):
    x = gl.tensor(scores((5, 4), "float64"), device="cuda", requires_grad=True)
    y = F.cross_entropy(x, gl.tensor(labels(5, 4), device="cuda"))
    (first,) = grad(y, x, create_graph=True)
    (second,) = grad((first * first).sum(), x)
    x2 = gl.tensor(scores((5, 4), "float64"), requires_grad=True)
    y2 = F.cross_entropy(x2, gl.tensor(labels(5, 4)))
    (first2,) = grad(y2, x2, create_graph=True)
    (second2,) = grad((first2 * first2).sum(), x2)
    assert_close(second.numpy(force=True), second2.numpy(force=True))


def test_labels_written_between_the_passes_are_noticed(emulator):
    """Backward reads the labels again; as with every saved tensor, a write is an error."""
    x = gl.tensor(scores((5, 4)), device="cuda", requires_grad=True)
    target = gl.tensor(labels(5, 4), device="cuda")
    target.view(5)  # writes are counted from the first view on
    loss = F.cross_entropy(x, target)
    target.zero_()
    with pytest.raises(GradientError, match="in place"):
        loss.backward()
