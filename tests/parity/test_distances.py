"""`cdist` beside PyTorch's: values and gradients, small and in blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl

torch = pytest.importorskip("torch")


def _with_gradients(lib, first, second, p):
    x1, x2 = (lib.tensor(each, requires_grad=True) for each in (first, second))
    y = lib.cdist(x1, x2, p)
    weights = lib.tensor(np.cos(np.arange(y.numel())).reshape(y.shape))
    (y * weights).sum().backward()
    return y.detach().numpy(), x1.grad.numpy(), x2.grad.numpy()


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize(
    "shapes",
    [((3, 4), (5, 4)), ((50, 70), (60, 70)), ((2, 40, 130), (40, 130)), ((300, 2), (400, 2))],
)
def test_cdist(shapes, p):
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(shape) for shape in shapes)
    second[..., 0, :] = first.reshape(-1, first.shape[-1])[0]  # a distance of 0
    found = _with_gradients(gl, first, second, p)
    expected = _with_gradients(torch, first, second, p)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)
