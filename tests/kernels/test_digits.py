"""Sums on the device keep their digits too: no value goes through many additions.

Of a running sum of 2^24 and ones after it nothing is left but 2^24. The errors are measured in
roundings, of 2^-24 in float32.
"""

from __future__ import annotations

import numpy as np
import pytest
from gradlab.kernels.cuda import matmul

import gradlab as gl
from gradlab.nn import functional as F

ROUNDING = 2.0**-24


def roundings(y, exact):
    return float(np.max(np.abs(y.cpu().numpy().astype(np.float64) - exact) / exact)) / ROUNDING


def heavy(shape, axes):
    x = np.ones(shape, np.float32)
    x[tuple(0 if i in axes else slice(None) for i in range(len(shape)))] = 2**24
    return x


PATTERNS = [
    ((6000,), (0,)), ((6000, 2), (0,)), ((6000, 40), (0,)), ((2, 6000), (1,)), ((3, 6000, 2), (1,)),
    ((90, 90, 3), (0, 1)), ((90, 3, 90), (0, 2)), ((3, 90, 90), (1, 2)), ((20, 20, 20), (0, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axes"), PATTERNS)
def test_sums(emulator, shape, axes):
    for x in (heavy(shape, axes), np.asfortranarray(heavy(shape, axes))):
        exact = x.sum(axes, dtype=np.float64)
        on_device = gl.tensor(x, device="cuda")
        assert roundings(on_device.sum(axes), exact) <= 300
        count = x.size / max(exact.size, 1)
        assert roundings(on_device.mean(axes), exact / count) <= 300
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        assert roundings(on_device.sum_to(kept), exact.reshape(kept)) <= 300


@pytest.mark.parametrize("at", [1e4, 1e6])
def test_variance_far_from_zero(emulator, at):
    x = (np.random.default_rng(0).standard_normal((3000, 4)) + at).astype(np.float32)
    exact = x.astype(np.float64).var(0, ddof=1)
    for turned in (x, np.asfortranarray(x)):
        assert roundings(gl.tensor(turned, device="cuda").var(0), exact) <= 20
    norm = gl.nn.BatchNorm1d(4, momentum=1.0).to("cuda")
    norm(gl.tensor(x, device="cuda"))
    assert roundings(norm.running_var, exact) <= 20


@pytest.mark.parametrize("width", [1, 3, 32])
def test_many_rows_to_one_place(emulator, width):
    x = np.ascontiguousarray(np.broadcast_to(heavy((5000, 1), (0,)), (5000, width)))
    table = gl.zeros(2, width, device="cuda", requires_grad=True)
    places = gl.zeros(5000, dtype=gl.int64, device="cuda")
    F.embedding(places, table).backward(gl.tensor(x, device="cuda"))
    assert roundings(table.grad[0], x.sum(0, dtype=np.float64)) <= 1


def test_losses_and_biases(emulator):
    x = heavy((6000, 2), (0,))
    device = {"device": "cuda"}
    exact = x.sum(dtype=np.float64)
    root = gl.tensor(np.sqrt(x), **device)
    assert roundings(F.mse_loss(root, gl.zeros(6000, 2, **device), reduction="sum"), exact) <= 300
    layer = gl.nn.Linear(1, 2).to("cuda")
    layer(gl.ones(6000, 1, **device)).backward(gl.tensor(x, **device))
    assert roundings(layer.bias.grad, x.sum(0, dtype=np.float64)) <= 300


def test_long_thin_products_are_cut():
    """Each part of k adds up 8,192 values at most, whatever the shape lets the machine do."""
    for m, n in ((2, 1), (3, 2), (1, 10), (10, 500)):
        k = 20_000_000
        a, b = ((m, k), (4, 4 * m)), ((k, n), (4 * n, 4))  # the gradient of a layer's weight
        plan = matmul.plan(a, b, None, None, (True, True), "float32", None, 132)
        assert plan.product is not None
        assert -(-k // plan.parts) <= 2 * matmul.LONGEST_PART or not plan.tiled
