"""softmax and log_softmax on the device, against the array code in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from gradlab.kernels.cuda import softmax as kernels

import gradlab as gl
from gradlab.dtypes import as_dtype
from gradlab.testing import check_op


def launched(driver):
    return {symbol for source, symbol in driver.launches if source == kernels.SOURCE}


def check(x, axis, dtype="float32"):
    """Forward and backward against SciPy, within the rounding of the dtype."""
    given = x.astype(as_dtype(dtype))
    reference = given.astype(np.float64)
    gy = np.random.default_rng(1).normal(size=x.shape).astype(as_dtype(dtype))
    wide = gy.astype(np.float64)
    eps = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 2e-7, "float64": 4e-16}[dtype]
    for name in ("softmax", "log_softmax"):
        t = gl.tensor(given, device="cuda").requires_grad_()
        y = getattr(gl.nn.functional, name)(t, axis)
        y.backward(gl.tensor(gy, device="cuda"))
        expected = getattr(scipy.special, name)(reference, axis)
        probability = scipy.special.softmax(reference, axis)
        if name == "softmax":
            slope = probability * (wide - (wide * probability).sum(axis, keepdims=True))
        else:
            slope = wide - probability * wide.sum(axis, keepdims=True)
        for got, want in ((y.detach(), expected), (t.grad, slope)):
            error = np.abs(got.cpu().numpy().astype(np.float64) - want)
            assert (error <= 20 * eps * (1 + np.abs(want))).all(), (name, x.shape, error.max())


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_op(fake_cuda, name):
    check_op(name, devices=["cuda"])
    assert launched(fake_cuda)


@pytest.mark.sanitized
@pytest.mark.parametrize("n", [1, 10, 16, 17, 31, 32, 33, 128, 129, 512, 513, 1023, 1025])
def test_rows(emulator, n):
    check(np.random.default_rng(n).normal(size=(9, n)) * 5, 1)


@pytest.mark.parametrize("n", [4096, 4100, 16_385, 20_000])
def test_long_rows(emulator, n):
    check(np.random.default_rng(n).normal(size=(2, n)) * 5, 1)


@pytest.mark.sanitized
@pytest.mark.parametrize("n", [40_000, 40_001])
def test_few_huge_rows(emulator, n):
    check(np.random.default_rng(n).normal(size=(1, n)), 1)
    stems = {symbol.rpartition("_")[0] for symbol in launched(emulator)}
    packed = "_packed" if n % 4 == 0 else ""
    assert f"softmax_stream_parts{packed}" in stems
    assert f"log_softmax_backward_stream_apply{packed}" in stems


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("shape", "axis"), [((33, 5), 0), ((4, 7, 3), 1), ((2, 300, 65), 1), ((70, 1, 2), 0)]
)
def test_columns(emulator, shape, axis):
    check(np.random.default_rng(0).normal(size=shape), axis)
    assert {symbol for symbol in launched(emulator) if "columns" in symbol}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "shape", [(5, 10), (3, 264), (3, 260), (2, 5000), (300, 16_640), (1, 40_000)]
)
def test_dtypes(fake_cuda, dtype, shape):
    if shape[0] == 300 and dtype != "bfloat16":
        pytest.skip("one dtype for the long rows of many")
    check(np.random.default_rng(0).normal(size=shape), 1, dtype)


def test_layouts_are_kept(emulator):
    """A transposed array is read as it lies, and the result lies as it does."""
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32).T
    t = gl.tensor(np.ascontiguousarray(x.T), device="cuda").T
    y = gl.nn.functional.softmax(t, 1)
    np.testing.assert_allclose(y.cpu().numpy(), scipy.special.softmax(x, 1), rtol=1e-5)
    assert launched(emulator) == {"softmax_columns_float32"}
    assert y._array.strides == t._array.strides
    strided = gl.nn.functional.softmax(t[::2, ::-3], 0)
    np.testing.assert_allclose(
        strided.cpu().numpy(), scipy.special.softmax(x[::2, ::-3], 0), rtol=1e-5
    )


@pytest.mark.parametrize("n", [5, 40, 700, 5000, 40_000])
def test_extremes(fake_cuda, n):
    x = np.random.default_rng(0).uniform(-1e4, 1e4, (5, n)).astype(np.float32)
    x[1, : n // 2] = -np.inf
    x[2] = -np.inf
    x[3, n // 2] = np.inf
    x[4, -1] = np.nan
    with np.errstate(all="ignore"):
        for name in ("softmax", "log_softmax"):
            on_cpu = getattr(gl.nn.functional, name)(gl.tensor(x)).cpu().numpy()
            y = getattr(gl.nn.functional, name)(gl.tensor(x, device="cuda")).cpu().numpy()
            np.testing.assert_allclose(y, on_cpu, rtol=2e-5, atol=1e-7)
            assert np.isnan(y[2:]).all()
            assert not np.isnan(y[:2]).any()


def test_same_bits_again(fake_cuda):
    x = gl.tensor(np.random.default_rng(0).normal(size=(3, 50_000)), device="cuda")
    first = gl.nn.functional.softmax(x).cpu().numpy()
    fake_cuda.order = 1
    np.testing.assert_array_equal(gl.nn.functional.softmax(x).cpu().numpy(), first)


@pytest.mark.parametrize(
    ("shape", "itemsize", "aligned", "kernel"),
    [
        ((60_000, 10, 1), 4, True, "rows_4"),
        ((512, 128, 1), 4, True, "rows_32_few_packed"),
        ((512, 128, 1), 4, False, "rows_32_few"),
        ((512, 1000, 1), 2, True, "rows_256_packed"),
        ((512, 512, 1), 2, True, "rows_32_packed"),
        ((512, 511, 1), 2, True, "rows_32"),
        ((512, 16_384, 1), 4, True, "rows_1024_packed"),
        ((512, 50_257, 1), 4, True, "stream"),
        ((4, 128_256, 1), 2, True, "stream_packed"),
        ((8, 21, 1024), 4, True, "columns"),
    ],
)
def test_choice(shape, itemsize, aligned, kernel):
    assert kernels.plan(*shape, itemsize, aligned).kernel == kernel


def test_few_rows_get_several_blocks():
    chosen = kernels.plan(4, 128_256, 1, 2, True)
    assert chosen.parts * 4 == chosen.grid[0] * chosen.grid[1] > 16
    assert chosen.length % 8 == 0
    assert chosen.length * chosen.parts >= 128_256
    assert kernels.plan(512, 128_256, 1, 2, True).parts == 0


def test_logsumexp(emulator):
    """One reading, as other reductions; infinities and NaN as the array code has them."""
    check_op("logsumexp", devices=["cuda"])
    rng = np.random.default_rng(0)
    for n in (5, 700, 40_000):
        x = rng.uniform(-1e4, 1e4, (6, n)).astype(np.float32)
        x[1, : n // 2] = -np.inf
        x[2] = -np.inf
        x[3, n // 2] = np.inf
        x[4, -1] = np.nan
        x[5] = -1e4
        for axis in (0, 1, None):
            with np.errstate(all="ignore"):
                on_cpu = gl.logsumexp(gl.tensor(x), axis).numpy()
                y = gl.logsumexp(gl.tensor(x, device="cuda"), axis).cpu().numpy()
            np.testing.assert_allclose(y, on_cpu, rtol=1e-5)
    assert {symbol for _, symbol in emulator.launches if symbol.startswith("logsumexp")}
