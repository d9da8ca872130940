"""Losses beyond what the registry's checks cover: shapes and labels that are refused, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.errors import (
    AxisError,
    DataError,
    DTypeError,
    GradientError,
    GradlabError,
    OptionError,
    ShapeError,
)
from gradlab.ops import embedding as E, loss as L
from gradlab.ops.creation import tensor
from gradlab.tensor import Tensor
from gradlab.testing import assert_close, gradcheck


def zeros(*shape: int, dtype: Any = "float32") -> Tensor:
    return tensor(np.zeros(shape), dtype=dtype)


def labels(*values: Any, dtype: Any = "int64") -> Tensor:
    return tensor(np.array(values), dtype=dtype)


# ---------------------------------------------------------------------------- shapes of targets


@pytest.mark.parametrize("loss", [L.mse_loss, L.l1_loss, L.huber_loss, L.smooth_l1_loss])
def test_a_column_against_a_vector_is_refused(loss):
    """The most common silent mistake: PyTorch only warns, and compares each with every other."""
    with pytest.raises(ShapeError) as caught:
        loss(zeros(32, 1), zeros(32))
    assert str(caught.value).partition(": ")[2] == (
        "expected input and target of one shape, or one that broadcasts to the other, got (32, 1) "
        "and (32,), which would compare every element with every other, (32, 32) in all; reshape "
        "the target with .reshape(32, 1)"
    )


@pytest.mark.parametrize(
    ("shape1", "shape2"),
    [((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (3, 4)), ((3,), ()), ((2,), (1,))],
)
def test_a_target_that_broadcasts_to_the_input_is_welcome(shape1, shape2):
    x, target = np.random.default_rng(0).standard_normal((2, 12))
    x, target = (
        a[: int(np.prod(shape))].reshape(shape) for a, shape in ((x, shape1), (target, shape2))
    )
    assert_close(L.mse_loss(tensor(x), tensor(target)), np.mean((x - target) ** 2))
    assert gradcheck(L.mse_loss, [x, target], order=2)


def test_a_number_as_target():
    assert L.mse_loss(tensor([1.0, 3.0]), 1).item() == 2
    assert L.l1_loss(tensor([1.0, 3.0]), [1.0, 1.0]).item() == 1


def test_a_mean_of_nothing():
    for loss in (L.mse_loss, L.l1_loss, L.huber_loss, L.binary_cross_entropy_with_logits):
        assert np.isnan(loss(zeros(0), zeros(0)).item())
        assert loss(zeros(0), zeros(0), reduction="sum").item() == 0
    assert np.isnan(L.cross_entropy(zeros(0, 3), labels()).item())
    x = tensor(np.zeros((0, 3)), requires_grad=True)
    assert grad(L.cross_entropy(x, labels(), reduction="sum"), x)[0].shape == (0, 3)


def test_integers_become_floating():
    loss = L.mse_loss(tensor([1, 2]), tensor([2, 4]))
    assert loss.item() == 2.5
    assert loss.dtype == dtypes.float32


def test_labels_of_probabilities_may_be_integers():
    expected = L.binary_cross_entropy(tensor([0.3, 0.6]), tensor([1.0, 0.0]))
    assert L.binary_cross_entropy(tensor([0.3, 0.6]), tensor([1, 0])).item() == expected.item()
    logits = tensor([0.3, -2.0])
    expected = L.binary_cross_entropy_with_logits(logits, tensor([1.0, 0.0]))
    found = L.binary_cross_entropy_with_logits(logits, tensor([True, False]))
    assert found.item() == expected.item()


# -------------------------------------------------------------------------------- class labels


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_labels_of_every_integer_dtype(dtype):
    x = np.random.default_rng(0).standard_normal((3, 4))
    expected = L.cross_entropy(tensor(x), labels(3, 0, 2))
    assert L.cross_entropy(tensor(x), labels(3, 0, 2, dtype=dtype)).item() == expected.item()
    with pytest.raises(DataError, match="got 4 at position 1"):
        L.cross_entropy(tensor(x), labels(3, 4, 2, dtype=dtype))


def test_labels_as_lists_and_arrays():
    x = tensor(np.eye(3))
    expected = L.cross_entropy(x, labels(2, 1, 0)).item()
    assert L.cross_entropy(x, [2, 1, 0]).item() == expected
    assert L.cross_entropy(x, np.array([2, 1, 0])).item() == expected


def test_forward_stores_no_probabilities():
    """What is kept for the backward pass grows with the rows, not with the classes."""
    x = tensor(np.zeros((4, 1000)), requires_grad=True)
    node = L.cross_entropy(x, labels(0, 1, 2, 3)).grad_fn
    peak, sums, found = node.aux
    assert [each.size for each in (peak, sums, found.places)] == [4, 4, 4]


@pytest.mark.parametrize("classes", [4, 40_000])
def test_rows_gone_through_in_pieces(classes):
    rows = 3 * (1 << 17) // classes + 5
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((rows, classes)), rng.integers(0, classes, rows)
    exact = np.log(np.exp(x).sum(1)) - x[np.arange(rows), target]
    leaf = tensor(x, requires_grad=True)
    loss = L.cross_entropy(leaf, tensor(target), label_smoothing=0.0, reduction="none")
    assert_close(loss.detach(), exact)
    start = rng.standard_normal(rows)
    (found,) = grad(loss, leaf, tensor(start))
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    p[np.arange(rows), target] -= 1
    assert_close(found, p * start[:, None])


def test_transposed_scores():
    x = np.random.default_rng(0).standard_normal((4, 6))
    target = labels(0, 1, 2, 3, 0, 1)
    leaf, contiguous = tensor(x, requires_grad=True), tensor(x.T.copy(), requires_grad=True)
    (found,) = grad(L.cross_entropy(leaf.T, target), leaf)
    (expected,) = grad(L.cross_entropy(contiguous, target), contiguous)
    assert_close(found, expected.numpy().T)


def test_weights_have_no_gradient():
    weight = tensor(np.ones(3), requires_grad=True)
    with pytest.raises(
        GradientError, match="no gradient with respect to weight: weights are const"
    ):
        L.cross_entropy(tensor(np.eye(3)), labels(0, 1, 2), weight)


# -------------------------------------------------------------------------------------- errors

CE = L.cross_entropy
MESSAGES = [
    (lambda: CE(zeros(3, 10), labels(1, 10, 12)), DataError,
     "cross_entropy: expected labels from 0 to 9, as the input has 10 classes (or -100, which is "
     "ignored), got 10 at position 1"),
    (lambda: CE(zeros(3, 10), labels(1, 2, -1)), DataError, "got -1 at position 2"),
    (lambda: CE(zeros(2, 3, 4), labels([0, 1, 2, 0], [0, 0, 5, 1])), DataError,
     "expected labels from 0 to 2, as the input has 3 classes (or -100, which is ignored), "
     "got 5 at "
     "position (1, 2)"),
    (lambda: CE(zeros(10), labels(11).reshape(())), DataError, "got 11 at the only position"),
    (lambda: CE(zeros(3, 4), labels(0, -100, 7), ignore_index=-1), DataError,
     "(or -1, which is ignored), got -100 at position 1"),
    (lambda: L.nll_loss(zeros(2, 3), labels(0, 3)), DataError,
     "nll_loss: expected labels from 0 to 2"),
    (lambda: CE(zeros(3, 4), labels(0.0, 1.0, 2.0, dtype="float32")), DTypeError,
     "cross_entropy: expected integer class labels of shape (3,) or floating probabilities "
     "of shape "
     "(3, 4), for input (3, 4), got float32 (3,); cast labels with .astype(gradlab.int64)"),
    (lambda: CE(zeros(3, 4), zeros(3, 5)), DTypeError, "got float32 (3, 5)"),
    (lambda: CE(zeros(3, 4), zeros(3, 4, dtype="int64")), ShapeError,
     "got int64 (3, 4); cast one-hot labels with .astype(gradlab.float32)"),
    (lambda: CE(zeros(3, 4), zeros(3, 1, dtype="int64")), ShapeError,
     "got int64 (3, 1); reshape the labels with .reshape((3,))"),
    (lambda: CE(zeros(3, 4), labels(0, 1)), ShapeError, "got int64 (2,)"),
    (lambda: CE(zeros(3, 4, dtype="int64"), labels(0, 1, 2)), DTypeError,
     "cross_entropy: expected floating input, got int64 (3, 4); cast it with"),
    (lambda: CE(zeros(), labels(0)), ShapeError, "expected input (N, C) or (C,), got shape ()"),
    (lambda: CE(zeros(3, 4), labels(0, 1, 2), zeros(3)), ShapeError,
     "cross_entropy: expected a weight for each of the 4 classes, shape (4,), got shape (3,)"),
    (lambda: CE(zeros(3, 4), zeros(3, 4), zeros(3)), ShapeError, "got shape (3,)"),
    (lambda: CE(zeros(3, 4), labels(0, 1, 2), reduction="avg"), OptionError,
     "cross_entropy: expected reduction one of 'mean', 'sum', 'none', got 'avg'"),
    (lambda: CE(zeros(3, 4), labels(0, 1, 2), label_smoothing=1.5), OptionError,
     "cross_entropy: expected label_smoothing in [0, 1], got 1.5"),
    (lambda: CE(zeros(3, 4), zeros(3, 4), ignore_index=0), OptionError,
     "cross_entropy: expected no ignore_index with probabilities as target, got 0"),
    (lambda: L.mse_loss(zeros(3), zeros(4)), ShapeError, "got (3,) and (4,)"),
    (lambda: L.mse_loss(zeros(3), zeros(3), reduction="max"), OptionError, "mse_loss: expected"),
    (lambda: L.mse_loss(tensor([1j]), zeros(1)), DTypeError, "mse_loss: expected bool or integer"),
    (lambda: L.huber_loss(zeros(3), zeros(3), delta=0), OptionError,
     "expected delta above 0, got 0"),
    (lambda: L.smooth_l1_loss(zeros(3), zeros(3), beta=-1), OptionError,
     "beta of 0 or more, got -1"),
    (lambda: L.binary_cross_entropy(tensor([0.5, 1.5]), zeros(2)), DataError,
     "binary_cross_entropy: expected probabilities from 0 to 1 as input, got 1.5 at "
     "position 1; take "
     "sigmoid first, or use binary_cross_entropy_with_logits"),
    (lambda: L.binary_cross_entropy(zeros(3, 1), zeros(3)), ShapeError,
     "binary_cross_entropy: expected input and target of one shape, got (3, 1) and (3,); "
     "reshape the "
     "target with .reshape(3, 1)"),
    (lambda: L.binary_cross_entropy_with_logits(zeros(3), zeros(3), zeros(2)), ShapeError,
     "expected weights that broadcast to the input's shape (3,), got (2,)"),
    (lambda: L.binary_cross_entropy_with_logits(zeros(3), zeros(3), pos_weight=zeros(2, 3)),
     ShapeError, "expected weights that broadcast to the input's shape (3,), got (2, 3)"),
    (lambda: L.kl_div(zeros(3, 1), zeros(3)), ShapeError, "kl_div: expected input and target"),
    (lambda: L.kl_div(zeros(3), zeros(3), reduction="x"), OptionError,
     "'none', 'batchmean', got 'x'"),
    (lambda: E.embedding(zeros(5, 2), [[0, 1], [5, 2]]), AxisError,
     "embedding: expected indices from 0 to 4, as the table has 5 rows, got 5 at position (1, 0)"),
    (lambda: E.embedding(zeros(5, 2), [0, -1]), AxisError, "got -1 at position 1"),
    (lambda: E.embedding(zeros(5, 2), zeros(3)), DTypeError,
     "embedding: expected integer indices, got float32 (3,); cast them with "
     ".astype(gradlab.int64)"),
    (lambda: E.embedding(zeros(5), [1]), ShapeError, "expected a table of shape (count, width)"),
    (lambda: E.embedding(zeros(5, 2), [1], 5), OptionError,
     "expected padding_idx from -5 to 4, got 5"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), MESSAGES)
def test_message(call, kind, text):
    with pytest.raises(GradlabError) as caught:
        call()
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- embedding


def test_padding_gets_no_gradient_of_any_order():
    table = tensor(np.ones((3, 2)), requires_grad=True)
    rows = E.embedding(table, [0, 1, 1], padding_idx=1)
    start = tensor(np.ones((3, 2)), requires_grad=True)
    (gradient,) = grad(rows, table, start, create_graph=True)
    assert gradient.tolist() == [[1, 1], [0, 0], [0, 0]]
    (second,) = grad(gradient.sum(), start)
    assert second.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_rows_are_added_in_order():
    """The same bits in every run, and in whatever pieces the rows are gone through."""
    rng = np.random.default_rng(0)
    rows, index = rng.standard_normal((3_000, 100)).astype("f"), rng.integers(0, 7, 3_000)
    expected = np.zeros((7, 100), "f")
    for row, i in zip(rows, index, strict=True):
        expected[i] += row
    assert np.array_equal(E.add_rows(np, rows, index, (7, 100)), expected)


# --------------------------------------------------------------------------- nothing that counts


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_batch_without_labels_leaves_the_model_as_it_is(dtype, plain):
    for loss, options in ((CE, {}), (CE, {"label_smoothing": 0.1}), (L.nll_loss, {})):
        x = tensor(np.ones((2, 3)), dtype=dtype, requires_grad=True)
        y = loss(x, labels(-100, -100), **options)
        assert np.isnan(y.item())
        (gx,) = grad(y, x, create_graph=plain)
        assert gx.tolist() == [[0.0] * 3] * 2
        assert str(gx.dtype) == dtype


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_rows_of_any_values_have_a_gradient_of_0(plain, smoothing):
    x = tensor([[np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]], requires_grad=True)
    y = CE(x, labels(-100, -100, 1), label_smoothing=smoothing)
    (gx,) = grad(y, x, create_graph=plain)
    assert gx[:2].tolist() == [[0.0, 0.0]] * 2
    expected = 0.5 - smoothing / 2
    np.testing.assert_allclose(gx[2].tolist(), [expected, -expected], rtol=1e-6)
