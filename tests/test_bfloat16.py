"""bfloat16 on the CPU: large arrays, computed as float32, hold what small ones do."""

from __future__ import annotations

import time

import numpy as np
import pytest

import gradlab as gl

COUNT = 5000
NAMES = (
    "add sub mul div maximum minimum eq ne lt le gt ge sqrt square reciprocal floor ceil trunc "
    "neg abs sign isnan isinf fmod"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_large_and_small_arrays_hold_the_same(name):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, COUNT)) * 10.0 ** rng.integers(-30, 30, (2, COUNT))
    values[:, ::50] = [[np.nan], [np.inf]]
    values[:, 1::50] = 0
    x, y = (gl.tensor(each, dtype=gl.bfloat16) for each in values)
    function = getattr(gl, name)
    both = name in NAMES.split()[:12] or name == "fmod"
    large = function(x, y) if both else function(x)
    parts = zip(x.split(100), y.split(100), strict=True)
    small = gl.cat([function(a, b) if both else function(a) for a, b in parts])
    assert large.dtype == small.dtype
    np.testing.assert_array_equal(*(each.astype("float64").numpy() for each in (large, small)))


def test_with_a_number():
    x = gl.arange(COUNT, dtype=gl.bfloat16)
    assert (x + 1.5).dtype == gl.bfloat16
    assert (x + 1.5)[:9].tolist() == (x[:9] + 1.5).tolist()


def test_tanh_takes_no_time():
    x = gl.rand(500_000).astype("bfloat16")

    def seconds(x):
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            gl.tanh(x)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(x) < 30 * seconds(x.astype("float32"))  # 80 times, an element at a time
