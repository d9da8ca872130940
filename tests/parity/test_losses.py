"""Losses and softmax against PyTorch: values, gradients and second gradients of random cases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from gradlab.autograd import grad
from gradlab.ops import embedding as E, loss as L, softmax as S
from gradlab.ops.creation import tensor

torch = pytest.importorskip("torch")
F = torch.nn.functional

REDUCTIONS = ("mean", "sum", "none")


def random(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape)


def labels(*shape: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).integers(0, classes, shape)


def close(a: Any, b: Any, rtol: float = 1e-9) -> None:
    a, b = a.detach().numpy(), b.detach().clone().numpy(force=True)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    finite = np.abs(b[np.isfinite(b)])
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * finite.max(initial=1.0))


def compare(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    *arrays: np.ndarray,
    fixed: tuple[np.ndarray, ...] = (),
    second: bool = True,
    rtol: float = 1e-9,
) -> None:
    """Values and gradients by ``arrays``; ``fixed`` are passed on as tensors."""
    xs = [tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = ours(*xs, *(tensor(a) for a in fixed))
    t = theirs(*ts, *(torch.tensor(a) for a in fixed))
    close(y, t, rtol)
    start = random(*y.shape, seed=1).astype(arrays[0].dtype)
    plain = grad(y, xs, tensor(start), create_graph=True)
    quick = grad(y, xs, tensor(start), retain_graph=True)
    wanted = torch.autograd.grad(t, ts, torch.tensor(start), create_graph=second)
    for a, b, c in zip(plain, quick, wanted, strict=True):
        close(a, c, rtol)
        close(b, c, rtol)
    if second:
        _compare_second(xs, plain, ts, wanted, rtol)


def _compare_second(xs: Any, ours: Any, ts: Any, theirs: Any, rtol: float) -> None:
    def second(inputs: Any, gradients: Any, grad: Any) -> Any:
        total = sum((g * g).sum() for g in gradients)
        return grad(total, inputs, allow_unused=True) if total.requires_grad else [None] * len(xs)

    for a, b in zip(second(xs, ours, grad), second(ts, theirs, torch.autograd.grad), strict=True):
        if a is not None and b is not None:
            close(a, b, rtol)
        else:  # one side may know that the derivative is 0 where the other computes it
            assert all(each is None or not each.any() for each in (a, b))


# -------------------------------------------------------------------------- losses of elements

ELEMENTS = [
    ("mse_loss", {}),
    ("l1_loss", {}),
    ("huber_loss", {}),
    ("huber_loss", {"delta": 0.3}),
    ("smooth_l1_loss", {}),
    ("smooth_l1_loss", {"beta": 0.4}),
    ("smooth_l1_loss", {"beta": 0.0}),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options"), ELEMENTS)
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 4)])
def test_losses_of_elements(name, options, shape, reduction):
    options = {"reduction": reduction, **options}
    compare(
        lambda x, y: getattr(L, name)(x, y, **options),
        lambda x, y: getattr(F, name)(x, y, **options),
        random(*shape),
        random(*shape, seed=2),
    )


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_targets_that_broadcast(reduction):
    compare(
        lambda x, y: L.mse_loss(x, y, reduction=reduction),
        lambda x, y: F.mse_loss(x, y, reduction=reduction),
        random(4, 3),
        random(3),
    )


def test_mse_loss_of_many_values():
    x, y = (random(300_000, seed=seed).astype(np.float32) for seed in (0, 1))
    exact = np.mean((x.astype(np.float64) - y) ** 2)
    assert L.mse_loss(tensor(x), tensor(y)).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(reduction, weighted):
    weight = random(3, low=0.2) if weighted else None

    def options(make: Any) -> dict[str, Any]:
        return {"weight": None if weight is None else make(weight), "reduction": reduction}

    compare(
        lambda x, y: L.binary_cross_entropy(x, y, **options(tensor)),
        lambda x, y: F.binary_cross_entropy(x, y, **options(torch.tensor)),
        random(4, 3, low=0.02, high=0.98),
        random(4, 3, seed=1, low=0.0, high=1.0),
    )


def test_binary_cross_entropy_at_the_ends():
    x, y = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    # PyTorch's 1e-12 is a float32.
    compare(L.binary_cross_entropy, F.binary_cross_entropy, x, fixed=(y,), second=False, rtol=1e-8)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("weighted", "positive"), [*product([False, True], repeat=2)])
def test_binary_cross_entropy_with_logits(reduction, weighted, positive):
    weight = random(4, 1, low=0.2) if weighted else None
    pos_weight = random(3, low=0.2) if positive else None

    def options(make: Any) -> dict[str, Any]:
        given = {"weight": weight, "pos_weight": pos_weight}
        return {k: make(v) for k, v in given.items() if v is not None} | {"reduction": reduction}

    compare(
        lambda x, y: L.binary_cross_entropy_with_logits(x, y, **options(tensor)),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, **options(torch.tensor)),
        random(4, 3, low=-5, high=5),
        random(4, 3, seed=1, low=0.0, high=1.0),
    )


def test_logits_of_any_size():
    x = np.array([-1e4, -200.0, 0.0, 200.0, 1e4])
    for target in (0.0, 0.3, 1.0):
        compare(
            lambda x, y: L.binary_cross_entropy_with_logits(x, y, reduction="none"),
            lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
            x,
            fixed=(np.full(5, target),),
            second=False,
        )


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(reduction, log_target):
    x = np.log(random(4, 3, low=0.1, high=1.0))
    y = random(4, 3, seed=1, low=0.1, high=1.0)
    options = {"reduction": reduction, "log_target": log_target}
    compare(
        lambda x, y: L.kl_div(x, y, **options),
        lambda x, y: F.kl_div(x, y, **options),
        x,
        np.log(y) if log_target else y,
    )


def test_kl_div_of_a_target_of_zero():
    y = np.array([[0.0, 1.0], [0.5, 0.5]])
    options = {"reduction": "none"}
    compare(
        lambda x, y: L.kl_div(x, y, **options),
        lambda x, y: F.kl_div(x, y, **options),
        np.log(random(2, 2, low=0.1, high=1.0)),
        fixed=(y,),
    )


# ------------------------------------------------------------------------------ class labels

SHAPES = [((6, 4), (6,)), ((4,), ()), ((2, 4, 3, 2), (2, 3, 2)), ((40, 4), (40,))]
LABELLED = list(product(SHAPES, REDUCTIONS, [False, True], [-100, 1]))


def _with_ignored(target: np.ndarray, ignore_index: int) -> np.ndarray:
    target = np.array(target)
    if ignore_index < 0 and target.ndim:
        target.flat[::3] = ignore_index
    return target


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("shapes", "reduction", "weighted", "ignore_index"), LABELLED)
def test_cross_entropy(shapes, reduction, weighted, ignore_index, smoothing):
    weight = random(4, low=0.2) if weighted else None
    target = _with_ignored(labels(*shapes[1], classes=4), ignore_index)
    options = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": smoothing}
    compare(
        lambda x, y: L.cross_entropy(x, y, None if weight is None else tensor(weight), **options),
        lambda x, y: F.cross_entropy(
            x, y, None if weight is None else torch.tensor(weight), **options
        ),
        random(*shapes[0]),
        fixed=(target,),
    )


@pytest.mark.parametrize(("shapes", "reduction", "weighted", "ignore_index"), LABELLED)
def test_nll_loss(shapes, reduction, weighted, ignore_index):
    weight = random(4, low=0.2) if weighted else None
    target = _with_ignored(labels(*shapes[1], classes=4), ignore_index)
    options = {"reduction": reduction, "ignore_index": ignore_index}
    compare(
        lambda x, y: L.nll_loss(x, y, None if weight is None else tensor(weight), **options),
        lambda x, y: F.nll_loss(x, y, None if weight is None else torch.tensor(weight), **options),
        random(*shapes[0]),
        fixed=(target,),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6, 4), (4,), (2, 4, 3)])
def test_cross_entropy_with_probabilities(shape, reduction, weighted, smoothing):
    weight = random(4, low=0.2) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(
        lambda x, y: L.cross_entropy(x, y, None if weight is None else tensor(weight), **options),
        lambda x, y: F.cross_entropy(
            x, y, None if weight is None else torch.tensor(weight), **options
        ),
        random(*shape),
        random(*shape, seed=1, low=0.0, high=1.0),
    )


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_scores_of_any_size(size):
    x = (random(5, 4) * size).astype(np.float32)
    compare(
        L.cross_entropy, F.cross_entropy, x, fixed=(labels(5, classes=4),), second=False, rtol=1e-6
    )


def test_precision_far_from_zero():
    """Scores near 10,000 keep the precision of their differences."""
    x = (random(50, 4) + 1e4).astype(np.float32)
    exact = F.cross_entropy(torch.tensor(x.astype(np.float64)), torch.tensor(labels(50, classes=4)))
    found = L.cross_entropy(tensor(x), tensor(labels(50, classes=4)))
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_infinite_scores(smoothing):
    options = {"reduction": "none", "label_smoothing": smoothing}
    compare(
        lambda x, y: L.cross_entropy(x, y, **options),
        lambda x, y: F.cross_entropy(x, y, **options),
        np.array([[-np.inf, 0.0, 1.0], [-np.inf] * 3, [np.inf, 0.0, 1.0]]),
        fixed=(np.array([1, 0, 0]),),
        second=False,
    )


def test_ignored_rows_may_hold_anything():
    x = random(4, 3)
    x[1], x[2] = np.nan, np.inf
    target = np.array([0, -100, -100, 2])
    x_ours, x_theirs = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    close(L.cross_entropy(x_ours, tensor(target)), F.cross_entropy(x_theirs, torch.tensor(target)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_everything_ignored(reduction):
    target = np.full(3, -100)
    for ours, theirs in ((L.cross_entropy, F.cross_entropy), (L.nll_loss, F.nll_loss)):
        close(
            ours(tensor(random(3, 4)), tensor(target), reduction=reduction),
            theirs(torch.tensor(random(3, 4)), torch.tensor(target), reduction=reduction),
        )


@pytest.mark.parametrize("shape", [(32, 10), (256, 10), (64, 1000), (3, 70_000)])
def test_cross_entropy_in_float32(shape):
    x = random(*shape, low=-4, high=4).astype(np.float32)
    compare(
        L.cross_entropy, F.cross_entropy, x, fixed=(labels(shape[0], classes=shape[1]),),
        second=False, rtol=2e-6,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cross_entropy_in_halves(dtype):
    x, target = random(8, 5), labels(8, classes=5)
    ours = L.cross_entropy(tensor(x, dtype=dtype), tensor(target))
    theirs = F.cross_entropy(torch.tensor(x).to(getattr(torch, dtype)), torch.tensor(target))
    assert ours.dtype.name == dtype
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-2)


# ----------------------------------------------------------------------- softmax and embedding


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize(("shape", "dim"), [((), 0), ((5,), 0), ((6, 4), 1), ((40, 4), -1),
                                            ((6, 4), 0), ((2, 3, 4), 1), ((3, 0), 1)])  # fmt: skip
def test_softmax(name, shape, dim):
    compare(
        lambda x: getattr(S, name)(x, dim=dim), lambda x: getattr(F, name)(x, dim=dim),
        random(*shape),
    )  # fmt: skip


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_extremes(name, rows):
    x = np.tile(random(1, 4), (rows, 1)) * 1e4
    x[1] = [-np.inf, 0, 1, -np.inf]
    x[2] = -np.inf
    compare(
        lambda x: getattr(S, name)(x, axis=1), lambda x: getattr(F, name)(x, dim=1), x, second=False
    )


def test_softmax_casts_first():
    x = np.array([1, 2, 3])
    close(
        S.softmax(tensor(x), 0, dtype="float64"), F.softmax(torch.tensor(x), 0, dtype=torch.float64)
    )


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_embedding(shape, padding_idx):
    index = labels(*shape, classes=6)
    compare(
        lambda w, i: E.embedding(w, i, padding_idx),
        lambda w, i: F.embedding(i, w, padding_idx),
        random(6, 3),
        fixed=(index,),
    )


def test_embedding_of_many_rows():
    index = labels(5_000, classes=50)
    compare(E.embedding, lambda w, i: F.embedding(i, w), random(50, 64), fixed=(index,))


NOTHING_COUNTS = {
    "all ignored": ((4, 3), [-100] * 4, None),
    "all ignored, weights": ((4, 3), [-100] * 4, [1.0, 2.0, 0.5]),
    "ignored and of weight 0": ((4, 3), [0, -100, 1, -100], [0.0, 0.0, 1.0]),
    "images": ((2, 3, 2, 2), np.full((2, 2, 2), -100), None),
    "one row": ((3,), -100, None),
    "no rows": ((0, 3), np.zeros(0, int), None),
    "all weights 0": ((2, 3), [0, 1], [0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [None, 0.0, 0.2])
@pytest.mark.parametrize("case", NOTHING_COUNTS)
def test_batches_in_which_nothing_counts(case, smoothing, reduction):
    shape, given, class_weights = NOTHING_COUNTS[case]
    x, target = random(*shape), np.asarray(given)
    options: dict[str, Any] = {"reduction": reduction}
    if smoothing is not None:
        options["label_smoothing"] = smoothing
    ours, theirs = (L.nll_loss, F.nll_loss) if smoothing is None else (
        L.cross_entropy, F.cross_entropy
    )  # fmt: skip
    weight = None if class_weights is None else np.asarray(class_weights)
    a, b = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = ours(a, tensor(target), None if weight is None else tensor(weight), **options)
    t = theirs(b, torch.tensor(target), None if weight is None else torch.tensor(weight), **options)
    if not (case == "ignored and of weight 0" and smoothing and reduction == "mean"):  # inf or NaN
        close(y, t)
    (wanted,) = torch.autograd.grad(t.sum(), b)
    for plain in (False, True):
        (found,) = grad(y.sum(), a, create_graph=plain, retain_graph=True)
        close(found, wanted)
