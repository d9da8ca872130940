"""Adding values to places in a fixed order: the gradients of indexing and embedding."""

from __future__ import annotations

import numpy as np
import pytest
from gradlab.kernels.cuda import scatter

import gradlab as gl
from gradlab.testing import check_op


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("count", "width"), [(1, 1), (40, 1), (33, 3), (50, 17), (20, 70)])
def test_rows(emulator, dtype, count, width):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (count, width)).astype(dtype)  # whose sums are exact
    places = rng.integers(0, 6, count)
    expected = np.ones((7, width), dtype)
    np.add.at(expected, places, x)
    y, places, x = (
        gl.tensor(each, device="cuda")._array for each in (np.ones_like(expected), places, x)
    )
    scatter.add_rows(y, places, x)
    np.testing.assert_array_equal(y.get(), expected)


def test_many_of_one_place(emulator):
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    table = gl.zeros(4, 3, device="cuda", requires_grad=True)
    places = gl.full((500,), 2, dtype=gl.int64, device="cuda")
    gl.nn.functional.embedding(places, table).backward(gl.tensor(x, device="cuda"))
    expected = np.zeros((4, 3))
    expected[2] = x.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(table.grad.cpu().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_places_that_do_not_exist_are_left_out(emulator):
    y = gl.zeros(3, device="cuda")._array
    places = gl.tensor([5, -1, 1], device="cuda")._array
    scatter.add_rows(y, places, gl.ones(3, device="cuda")._array)
    np.testing.assert_array_equal(y.get(), [0, 1, 0])


@pytest.mark.parametrize("name", ["index", "gather", "take", "embedding"])
def test_ops(fake_cuda, name):
    check_op(name, devices=["cuda"])
    assert ("scatter.cu", "scatter_add_float64") in fake_cuda.launches


def test_scatter_add(emulator):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    index = np.array([[0, 0], [3, 2], [2, 2]])
    v = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    on_cpu, y = (
        gl.tensor(x, device=device).scatter_add(
            1, gl.tensor(index, device=device), gl.tensor(v, device=device)
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(y.cpu().numpy(), on_cpu.numpy())
    assert emulator.launches == [("scatter.cu", "scatter_add_float32")]


def test_same_bits_in_any_order_of_threads(fake_cuda):
    rng = np.random.default_rng(0)
    x = gl.tensor(rng.normal(size=300).astype(np.float32), device="cuda").requires_grad_()
    places = gl.tensor(rng.integers(0, 300, 2000), device="cuda")
    found = []
    for order in (0, 1):
        fake_cuda.order = order
        x.grad = None
        (x[places] * 1.1).sum().backward()
        found.append(x.grad.cpu().numpy())
    np.testing.assert_array_equal(*found)
