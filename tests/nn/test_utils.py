"""nn.utils: clipping and parameters as a vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import DTypeError, GradientError, OptionError, ShapeError
from gradlab.nn import utils
from refusals import refuses


def with_gradients(*arrays) -> list[gl.Tensor]:
    made = []
    for array in arrays:
        p = nn.Parameter(gl.zeros(array.shape, dtype=array.dtype))
        p.grad = gl.tensor(array)
        made.append(p)
    return made


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clip_grad_norm(norm_type, max_norm):
    arrays = [random(3, 4), random(5, seed=1), random(seed=2).reshape(())]
    params = with_gradients(*arrays)
    grads = [p.grad for p in params]
    total = utils.clip_grad_norm_(params, max_norm, norm_type)
    flat = np.concatenate([a.ravel() for a in arrays]).astype("float64")
    expected = np.linalg.norm(flat, norm_type)
    assert isinstance(total, gl.Tensor)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    factor = min(1, max_norm / (expected + 1e-6))
    for p, grad, array in zip(params, grads, arrays, strict=True):
        assert p.grad is grad
        np.testing.assert_allclose(grad.numpy(), array * factor, rtol=1e-6)


def test_large_gradients_are_added_precisely():
    array = random(700, 700)
    (p,) = with_gradients(array)
    expected = np.linalg.norm(array.astype("float64"))
    assert utils.clip_grad_norm_(p, 1.0).item() == pytest.approx(expected, rel=5e-7)
    (p,) = with_gradients(array.T)  # not contiguous
    assert utils.clip_grad_norm_(p, 1.0).item() == pytest.approx(expected, rel=5e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    p = nn.Parameter(gl.zeros(300, dtype=dtype))
    p.grad = gl.full((300,), 4.0).astype(dtype)
    total = utils.clip_grad_norm_([p], 1.0)
    assert total.dtype.name == ("float64" if dtype == "float64" else "float32")
    assert total.item() == pytest.approx(4 * math.sqrt(300), rel=1e-6)
    assert p.grad.dtype.name == dtype
    expected = 1 / math.sqrt(300)
    np.testing.assert_allclose(p.grad.float().numpy(), expected, rtol=1e-2)


def test_parameters_without_gradient():
    p, q = nn.Parameter(gl.ones(2)), with_gradients(np.array([3.0, 4.0], "float32"))[0]
    assert utils.clip_grad_norm_([p, q], 1.0).item() == 5.0
    assert p.grad is None
    assert utils.clip_grad_norm_([p], 1.0).item() == 0.0
    assert utils.clip_grad_norm_(iter([]), 1.0).item() == 0.0
    assert utils.get_total_norm([gl.zeros(0, 3)], math.inf).item() == 0.0


def test_nonfinite_gradients():
    (p,) = with_gradients(np.array([1.0, np.inf], "float32"))
    with refuses(
        GradientError, "clip_grad_norm_: expected finite gradients, got gradients whose no"
    ):
        utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert p.grad.tolist() == [1.0, math.inf]
    assert utils.clip_grad_norm_(p, 1.0).item() == math.inf
    (p,) = with_gradients(np.array([1.0, np.nan], "float32"))
    assert math.isnan(utils.clip_grad_norm_(p, 1.0, math.inf).item())


def test_clip_in_two_steps():
    (p,) = with_gradients(np.array([3.0, 4.0], "float32"))
    total = utils.get_total_norm([p.grad])
    utils.clip_grads_with_norm_(p, 2.5, total)
    np.testing.assert_allclose(p.grad.numpy(), [1.5, 2.0], rtol=1e-6)


def test_clip_grad_value():
    params = with_gradients(random(5, 4) * 3, random(3))
    before = [p.grad.numpy().copy() for p in params]
    utils.clip_grad_value_(params, 0.5)
    for p, array in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), np.clip(array, -0.5, 0.5))


def test_clipping_counts_as_a_write():
    x = gl.tensor([3.0, 4.0], requires_grad=True)
    x.grad = gl.tensor([3.0, 4.0])
    y = gl.tensor([1.0, 1.0], requires_grad=True) * x.grad
    utils.clip_grad_norm_(x, 1.0)
    with refuses(GradientError, "changed in place"):
        y.sum().backward()


def test_clipping_refuses():
    (p,) = with_gradients(random(3))
    with refuses(OptionError, "clip_grad_norm_: expected max_norm of 0 or more, got -1"):
        utils.clip_grad_norm_(p, -1)
    with refuses(OptionError, "clip_grad_norm_: expected norm_type above 0, or inf, got 0"):
        utils.clip_grad_norm_(p, 1, norm_type=0)
    with refuses(OptionError, "clip_grad_value_: expected clip_value of 0 or more, got nan"):
        utils.clip_grad_value_(p, math.nan)


def test_parameters_as_a_vector():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = utils.parameters_to_vector(net.parameters())
    assert vector.shape == (11,)
    vector.sum().backward()
    assert net[0].weight.grad.tolist() == [[1.0] * 3] * 2
    address = net[0].weight.data_ptr()
    utils.vector_to_parameters(gl.arange(11).float(), net.parameters())
    assert net[0].weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert net[1].bias.tolist() == [10.0]
    assert net[0].weight.data_ptr() == address
    with refuses(ShapeError, "vector_to_parameters: expected shape (11,), got (12,)"):
        utils.vector_to_parameters(gl.zeros(12), net.parameters())
    with refuses(DTypeError, "vector_to_parameters: expected a tensor, got list"):
        utils.vector_to_parameters([1.0], net.parameters())
    with refuses(OptionError, "parameters_to_vector: expected at least one parameter, got none"):
        utils.parameters_to_vector([])
