"""Halves on the CPU: large arrays, computed as float32, hold what small ones do."""

from __future__ import annotations

import time

import numpy as np
import pytest
from gradlab.kernels.cpu import halves

import gradlab as gl

COUNT = halves.LARGE + 7
# Of each dtype: elements of a large array and of a small one, and the exponents of ten in them.
SIZES = {"float16": (COUNT, 10_000, (-8, 5)), "bfloat16": (5000, 100, (-30, 30))}
BINARY = (
    *("add", "sub", "mul", "div", "maximum", "minimum", "fmod"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
)
UNARY = (
    *("sqrt", "square", "reciprocal", "floor", "ceil", "trunc", "neg", "abs", "sign"),
    *("isnan", "isinf", "relu"),
)

needs_kernels = pytest.mark.skipif(not halves.are_fast(), reason="no compiled casts here")


@needs_kernels
def test_every_half_is_widened_as_numpy_does():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).repeat(2)
    np.testing.assert_array_equal(halves.cast(every, np.dtype("f4")), every.astype("f4"))


@needs_kernels
def test_floats_are_rounded_as_numpy_does():
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 1 << 32, COUNT, dtype=np.uint32).view(np.float32)
    every = np.sort(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64))
    every = every[np.isfinite(every)]
    halfway = ((every[1:] + every[:-1]) / 2).astype(np.float32).repeat(3)
    for x in (anything, halfway):
        with np.errstate(all="ignore"):
            expected = x.astype(np.float16)
        np.testing.assert_array_equal(halves.cast(x, np.dtype("f2")), expected)


@pytest.mark.parametrize(
    "x",
    [
        np.ones((512, 512), "f4")[:, ::2],
        np.ones((512, 300), "f4").T,
        np.broadcast_to(np.float32(2), (400, 400)),
        np.frombuffer(b"\0" * (4 * COUNT + 1), np.uint8)[1:].view("f4"),
    ],
    ids=["every second", "transposed", "broadcast", "not aligned"],
)
def test_layouts(x):
    y = halves.cast(x, np.dtype("f2"))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("name", BINARY + UNARY)
def test_large_and_small_arrays_hold_the_same(name, dtype):
    count, part, exponents = SIZES[dtype]
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, count)) * 10.0 ** rng.integers(*exponents, (2, count))
    values[:, ::50] = [[np.nan], [np.inf]]
    values[:, 1::50] = 0
    x, y = (gl.tensor(each, dtype=dtype) for each in values)
    function = getattr(gl, name)
    large = function(x, y) if name in BINARY else function(x)
    parts = zip(x.split(part), y.split(part), strict=True)
    small = gl.cat([function(a, b) if name in BINARY else function(a) for a, b in parts])
    assert large.dtype == small.dtype
    np.testing.assert_array_equal(*(each.astype("float64").numpy() for each in (large, small)))


def test_exponentials():
    x = gl.randn(COUNT, generator=gl.Generator(0)).astype("float16")
    np.testing.assert_allclose(gl.exp(x).numpy(), np.exp(x.numpy().astype("f8")), rtol=1e-3)


def test_float16_with_a_number_and_in_place():
    x = gl.ones(COUNT, dtype=gl.float16)
    assert (x + 0.1).dtype == gl.float16
    assert (x + 0.1)[:3].tolist() == (x[:3] + 0.1).tolist()
    x += 0.1
    assert x.dtype == gl.float16
    assert x[:3].tolist() == (gl.ones(3, dtype=gl.float16) + 0.1).tolist()


def test_without_numba(monkeypatch):
    monkeypatch.setattr(halves, "are_fast", lambda: False)
    x = gl.full((COUNT,), 1.5, dtype=gl.float16)
    assert (x + x)[:2].tolist() == [3.0, 3.0]
    assert x.float()[:2].tolist() == [1.5, 1.5]


def test_bfloat16_with_a_number():
    x = gl.arange(5000, dtype=gl.bfloat16)
    assert (x + 1.5).dtype == gl.bfloat16
    assert (x + 1.5)[:9].tolist() == (x[:9] + 1.5).tolist()


def test_tanh_of_bfloat16_takes_no_time():
    x = gl.rand(500_000).astype("bfloat16")

    def seconds(x):
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            gl.tanh(x)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(x) < 30 * seconds(x.astype("float32"))  # 80 times, an element at a time
