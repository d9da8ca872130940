"""What the samples of the registry do not cover of the elementwise ops."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl

DTYPES = (gl.float16, gl.bfloat16, gl.float32, gl.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3,), (2000,), (40, 50)], ids=str)
class TestZeroWhereMasked:
    """`where` with a zero takes its own way on large arrays: it must drop NaN and ∞ as well."""

    def values(self, shape, dtype):
        x = np.random.default_rng(0).standard_normal(shape)
        x.flat[:3] = np.nan, np.inf, -np.inf
        return gl.tensor(x, dtype=dtype)

    def test_where(self, shape, dtype):
        x = self.values(shape, dtype)
        mask = np.arange(x.numel()).reshape(shape) % 3 == 1
        kept, dropped = gl.where(gl.tensor(mask), x, 0.0), gl.where(gl.tensor(mask), 0, x)
        assert kept.dtype == dropped.dtype == dtype
        wide = x.numpy().astype(np.float64)
        np.testing.assert_array_equal(kept.numpy().astype(np.float64), np.where(mask, wide, 0))
        np.testing.assert_array_equal(dropped.numpy().astype(np.float64), np.where(mask, 0, wide))

    def test_gradient_of_relu(self, shape, dtype):
        gradient = self.values(shape, dtype)
        x = gl.tensor(np.resize([-1.0, 2.0, 0.0], shape), dtype=dtype, requires_grad=True)
        x.relu().backward(gradient)
        expected = np.where(x.detach().numpy() > 0, gradient.numpy().astype(np.float64), 0)
        np.testing.assert_array_equal(x.grad.numpy().astype(np.float64), expected)


def test_where_keeps_the_sign_of_minus_zero():
    x = gl.ones(2000)
    assert np.signbit(gl.where(x > 2, x, -0.0).numpy()).all()
    assert not np.signbit(gl.where(x > 2, x, 0.0).numpy()).any()


def test_where_with_zero_on_views_and_broadcasting():
    x = gl.randn(60, 50)
    array = x.numpy()
    for part, other in ((x.T, array.T), (x[::2, ::3], array[::2, ::3])):
        np.testing.assert_array_equal(
            gl.where(part > 0, part, 0.0).numpy(), np.where(other > 0, other, 0)
        )
    row = gl.where(x[:1] > 0, x, 0.0).numpy()
    np.testing.assert_array_equal(row, np.where(array[:1] > 0, array, 0))
    column = gl.where(x > 0, 0.0, x[:, :1]).numpy()
    np.testing.assert_array_equal(column, np.where(array > 0, 0, array[:, :1]))


def test_exp_of_float32_is_the_nearest_float32():
    x = np.linspace(-87, 88, 10_001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(gl.exp(gl.tensor(x)).numpy(), expected)
    np.testing.assert_array_equal(gl.tensor(x).exp_().numpy(), expected)
