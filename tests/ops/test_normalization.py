"""Normalization beyond what the registry's checks cover: running statistics, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.errors import DTypeError, GradientError, GradlabError, OptionError, ShapeError
from gradlab.ops import normalization as N
from gradlab.ops.creation import tensor
from gradlab.tensor import Tensor
from gradlab.testing import assert_close, gradcheck


def zeros(*shape: int, dtype: Any = "float32") -> Tensor:
    return tensor(np.zeros(shape), dtype=dtype)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def test_layer_norm_has_mean_0_and_variance_1():
    y = N.layer_norm(tensor(random(5, 100) * 7 + 3), 100).numpy()
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(1), 1, atol=1e-5)


def test_large_offsets_keep_precision():
    """Mean and variance are taken in two passes: x² would lose the deviations of 1 from 10,000."""
    x = (random(4, 1000) + 1e4).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    np.testing.assert_allclose(N.layer_norm(tensor(x), 1000).numpy(), expected, atol=2e-3)


def test_running_statistics_keep_their_memory():
    mean, var = zeros(3), tensor(np.ones(3), dtype="float32")
    arrays = mean.numpy(), var.numpy()
    x = random(8, 3).astype(np.float32)
    N.batch_norm(tensor(x, requires_grad=True), mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(arrays[0], 0.25 * x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(arrays[1], 0.75 + 0.25 * x.var(0, ddof=1), rtol=1e-6)
    assert not mean.requires_grad


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (2, 3, 0, 5)])
def test_an_empty_batch_leaves_the_statistics_alone(shape):
    mean, var = tensor(random(3)), tensor(random(3) ** 2)
    before = mean.tolist(), var.tolist()
    x = tensor(np.ones(shape), requires_grad=True)
    y = N.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    assert (y.shape, x.grad.shape) == (shape, shape)
    assert (mean.tolist(), var.tolist()) == before


def test_evaluation_leaves_the_statistics_alone():
    mean, var = tensor(random(3)), tensor(random(3) ** 2)
    before = mean.tolist(), var.tolist()
    N.batch_norm(tensor(random(8, 3)), mean, var)
    assert (mean.tolist(), var.tolist()) == before


def test_backward_after_the_statistics_moved_on_is_refused():
    """In evaluation the gradient needs the running statistics as they were."""
    x, mean, var = tensor(random(4, 3), requires_grad=True), zeros(3), zeros(3) + 1.0
    y = N.batch_norm(x, mean, var)
    N.batch_norm(x.detach(), mean, var, training=True)
    with pytest.raises(GradientError, match="running_average_ changed in place"):
        y.sum().backward()


def test_backward_in_training_does_not_mind():
    x, mean, var = tensor(random(4, 3), requires_grad=True), zeros(3), zeros(3) + 1.0
    first = N.batch_norm(x, mean, var, training=True)
    second = N.batch_norm(x * 2, mean, var, training=True)
    (first + second).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16])
def test_halves_keep_float32_statistics(dtype):
    x = random(64, 3) + 100
    mean, var = zeros(3), zeros(3)
    y = N.batch_norm(tensor(x, dtype=dtype), mean, var, training=True, momentum=1.0)
    assert (y.dtype, mean.dtype) == (dtype, dtypes.float32)
    exact = tensor(x, dtype=dtype).astype("float64").numpy()
    np.testing.assert_allclose(mean.numpy(), exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(y.astype("float64").numpy().std(0), 1, rtol=2e-2)


def test_parameters_keep_their_precision_beside_halves():
    """The gradient of a float32 weight is not rounded to float16 on its way."""
    x, weight = tensor(random(500, 4), dtype="float16"), tensor(np.ones(4), dtype="float32")
    weight.requires_grad_()
    (found,) = grad(N.layer_norm(x, 4, weight).sum(), weight)
    h = N.layer_norm(x.astype("float64"), 4)
    assert_close(found, h.sum(0), 1e-4, 1e-3, check_dtype=False)


def test_normalize():
    assert_close(N.normalize(tensor([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])
    assert gradcheck(lambda x: N.normalize(x, 3.0, axis=0), random(3, 4), order=2, rtol=1e-5)
    x = tensor([[0.0, 0.0]], requires_grad=True)
    N.normalize(x).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


ONES = zeros(4) + 1.0
MESSAGES = [
    (lambda: N.layer_norm(zeros(2, 3), 4), ShapeError,
     "layer_norm: expected x of shape (..., 4), as normalized_shape, got (2, 3)"),
    (lambda: N.layer_norm(zeros(2, 3), (2, 2, 3)), ShapeError, "x of shape (..., 2, 2, 3)"),
    (lambda: N.layer_norm(zeros(2, 3), ()), ShapeError, "a normalized_shape of at least one size"),
    (lambda: N.layer_norm(zeros(2, 3), 3, zeros(4)), ShapeError,
     "layer_norm: expected weight of shape (3,), got (4,)"),
    (lambda: N.layer_norm(zeros(2, 3), 3, None, zeros(3, 1)), ShapeError,
     "layer_norm: expected bias of shape (3,), got (3, 1)"),
    (lambda: N.layer_norm(zeros(2, 3, dtype="int64"), 3), DTypeError,
     "layer_norm: expected floating values, got int64; cast with .astype(...)"),
    (lambda: N.rms_norm(zeros(2, 3, dtype="int64"), 3), DTypeError, "rms_norm: expected floating"),
    (lambda: N.rms_norm(zeros(2, 3), 2), ShapeError, "rms_norm: expected x of shape (..., 2)"),
    (lambda: N.batch_norm(zeros(1, 4), None, None, training=True), ShapeError,
     "batch_norm: expected more than one value per channel in training, got shape (1, 4); use a "
     "larger batch (drop_last=True leaves out a last batch of one), or evaluate with "
     "training=False"),
    (lambda: N.batch_norm(zeros(4), None, None, training=True), ShapeError,
     "batch_norm: expected x of shape (N, C, ...), got (4,)"),
    (lambda: N.batch_norm(zeros(2, 4), None, None), OptionError,
     "batch_norm: expected running_mean and running_var in evaluation, got None; pass "
     "training=True"),
    (lambda: N.batch_norm(zeros(2, 3), ONES, ONES), ShapeError,
     "batch_norm: expected running_mean of shape (3,), got (4,)"),
    (lambda: N.batch_norm(zeros(2, 4), ONES, ONES, zeros(2)), ShapeError,
     "batch_norm: expected weight of shape (4,), got (2,)"),
    (lambda: N.normalize(zeros(2, 2), eps=-1), OptionError, "expected eps of 0 or more, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), MESSAGES)
def test_message(call, kind, text):
    with pytest.raises(GradlabError) as caught:
        call()
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_value_per_channel_is_enough_with_positions():
    assert N.batch_norm(zeros(1, 4, 2), None, None, training=True).shape == (1, 4, 2)
