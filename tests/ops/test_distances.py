"""`cdist`: memory, the gradient at 0, messages. Its values: tests/parity/test_distances.py."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import DTypeError, OptionError, ShapeError
from refusals import refuses


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_memory_is_that_of_the_distances(p):
    # All differences at once take 50 times as much.
    x1, x2 = gl.rand(400, 50), gl.rand(500, 50)
    x1.requires_grad_()
    tracemalloc.start()
    gl.cdist(x1, x2, p).sum().backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 400 * 500 * 4


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_equal_rows_have_no_gradient(p):
    x = gl.rand(40, 3).requires_grad_()
    gl.cdist(x, x.detach(), p).diagonal().sum().backward()
    assert x.grad.tolist() == [[0, 0, 0]] * 40


def test_halves_do_not_overflow_on_the_way():
    x = gl.full((40, 4), 300.0, dtype="float16")
    assert gl.cdist(x, gl.zeros(40, 4, dtype="float16"))[0, 0].item() == 600


def test_refused():
    x = gl.ones(2, 3)
    with refuses(ShapeError, "cdist: expected rows of the same length, got shapes (2, 3) and (3,)"):
        gl.cdist(x, gl.ones(3))
    with refuses(ShapeError, "cdist: expected batches that broadcast"):
        gl.cdist(gl.ones(2, 2, 3), gl.ones(3, 2, 3))
    with refuses(OptionError, "cdist: expected p of 0 or more, got -1.0"):
        gl.cdist(x, x, -1.0)
    with refuses(OptionError, "cdist: expected p of 0 or more, got nan"):
        gl.cdist(x, x, math.nan)
    with refuses(DTypeError, "cdist: expected floating values, got int64"):
        gl.cdist(gl.ones(2, 2, dtype="int64"), gl.ones(2, 2, dtype="int64"))


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_float32_is_rounded_once(offset):
    # |x|² + |y|² - 2·x·y keeps nothing of close rows far from 0 where it is taken in float32.
    rng = np.random.default_rng(0)
    a, b = ((rng.standard_normal((n, 20)) + offset).astype(np.float32) for n in (60, 50))
    b[:3], b[3:6] = a[:3], np.nextafter(a[3:6], np.float32(1e9))
    x1, x2 = gl.tensor(a).requires_grad_(), gl.tensor(b).requires_grad_()
    wide1, wide2 = a.astype(np.float64), b.astype(np.float64)
    d = wide1[:, None] - wide2[None]
    exact = np.sqrt((d * d).sum(-1))
    y = gl.cdist(x1, x2)
    np.testing.assert_allclose(y.detach().numpy(), exact, rtol=6e-8, atol=0)
    assert (y.detach().numpy() == 0).sum() == 3
    y.sum().backward()
    pull = d / np.where(exact == 0, 1.0, exact)[..., None]
    np.testing.assert_allclose(x1.grad.numpy(), pull.sum(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x2.grad.numpy(), -pull.sum(0), rtol=1e-5, atol=1e-5)


def test_rows_that_are_infinite_or_nan():
    a, b = np.ones((40, 3), np.float32), np.zeros((40, 3), np.float32)
    a[3, 1], b[7, 2] = np.inf, np.nan
    y = gl.cdist(gl.tensor(a), gl.tensor(b)).numpy()
    assert np.isnan(y[:, 7]).all()
    assert np.isinf(np.delete(y[3], 7)).all()
    assert np.isfinite(np.delete(np.delete(y, 3, 0), 7, 1)).all()
