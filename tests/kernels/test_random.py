"""Random numbers drawn by CUDA kernels: those of the host, bit for bit where they are integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import driver, random as cuda

import gradlab as gl
from gradlab.ops.random import DROPOUT, Generator
from gradlab.testing import check_op

SIZES = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 2047, 2048, 2049, 5001]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
LAST = (1 << 64) - 1


def drawn(draw: Any, device: str, seed: int, calls: int = 0) -> np.ndarray:
    generator = Generator().set_state({"seed": seed, "calls": calls})
    return draw(generator=generator, device=device).numpy(force=True)


@pytest.mark.sanitized
@pytest.mark.parametrize(("seed", "call"), [(0, 0), (7, 3), (LAST, 1 << 40), (1 << 63, 1)])
def test_bits_are_numpys(emulator, seed, call):
    for count in (1, 4, 9, 1030):
        found = cuda.bits(count, seed, call).get()
        assert found.tolist() == Generator(seed).bits(count, call).tolist()


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniforms_are_the_hosts(emulator, dtype):
    for size in SIZES:
        for seed in (1, LAST):
            made = [
                drawn(lambda size=size, **where: gl.rand(size, dtype=dtype, **where), device, seed)
                for device in ("cuda", "cpu")
            ]
            np.testing.assert_array_equal(*made)
    assert emulator.copies_to_host == 2 * len(SIZES)  # to look at them
    assert {symbol for _, symbol in emulator.launches} == {f"uniform_{dtype}"}


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", FLOATS)
def test_normals_are_the_hosts(emulator, dtype):
    """To the last digits of logarithm, sine and cosine, which the host takes from elsewhere."""
    rtol = {"float64": 1e-13, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    for size in SIZES:
        on_device, on_host = (
            drawn(lambda size=size, **w: gl.randn(size, dtype=dtype, **w), device, 5)
            for device in ("cuda", "cpu")
        )
        assert on_device.dtype == on_host.dtype
        np.testing.assert_allclose(
            on_device.astype("float64"), on_host.astype("float64"), rtol, rtol
        )


def test_uniforms_of_halves_stay_below_one(emulator):
    """Among 16,384 values some 4 round to 1 in float16 and 32 in bfloat16."""
    for dtype, below in (("float16", 1 - 2.0**-11), ("bfloat16", 1 - 2.0**-8)):
        x = drawn(lambda dtype=dtype, **w: gl.rand(16_384, dtype=dtype, **w), "cuda", 0)
        assert float(x.max()) == below


@pytest.mark.parametrize("bounds", [(0, 10), (-5, 6), (-(1 << 63), (1 << 63) - 1), (0, 1)])
def test_integers_are_the_hosts(emulator, bounds):
    for size in (0, 1, 5, 1030):
        on_device, on_host = (
            drawn(lambda size=size, **where: gl.randint(*bounds, (size,), **where), device, 3)
            for device in ("cuda", "cpu")
        )
        np.testing.assert_array_equal(on_device, on_host)
    assert {symbol for _, symbol in emulator.launches} == {"integers_int64"}


def test_everything_is_the_same_on_both_devices(emulator):
    weights = np.array([0.0, 1.0, 3.0])
    draws = [
        lambda **w: gl.randint(100, (7, 3), dtype="int32", **w),
        lambda **w: gl.randperm(1000, **w),
        lambda **w: gl.uniform(-1.0, 3.0, (5, 5), **w),
        lambda **w: gl.rand(2, 3, size=None, **w),
        lambda device, **w: gl.zeros(33, device=device).uniform_(2.0, 3.0, **w),
        lambda device, **w: gl.bernoulli(gl.full((99,), 0.25, device=device), **w),
        lambda device, **w: gl.multinomial(gl.tensor(weights, device=device), 50, True, **w),
        lambda device, **w: gl.rand_like(gl.zeros((4, 5), device=device), **w),
    ]
    for draw in draws:
        there, here = drawn(draw, "cuda", 11, 2), drawn(draw, "cpu", 11, 2)
        assert there.dtype == here.dtype
        np.testing.assert_array_equal(there, here)


def test_calls_count_alike(emulator):
    generators = Generator(3), Generator(3)
    for generator, device in zip(generators, ("cpu", "cuda"), strict=True):
        gl.rand(5, generator=generator, device=device)
        gl.dropout(gl.ones(5, device=device), generator=generator)
        gl.randn(0, generator=generator, device=device)
    assert generators[0].get_state() == generators[1].get_state() == {"seed": 3, "calls": 3}


def test_memory_of_a_slice_is_filled(emulator):
    """A slice begins anywhere: off the 16 bytes of a wide store."""
    memory = driver.current().xp.zeros(40, np.float32)
    for start, size in ((1, 33), (2, 8), (3, 1), (4, 16)):
        memory[...] = 7.0
        part = memory[start : start + size]
        cuda.uniform(part, 9, 0)
        host = memory.get()
        np.testing.assert_array_equal(
            host[start : start + size], gl.rand(size, generator=Generator(9)).numpy()
        )
        assert (host[:start] == 7).all()
        assert (host[start + size :] == 7).all()


# ------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 1 - 1e-9])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_drops_the_same_elements(emulator, dtype, p):
    values = np.random.default_rng(0).standard_normal((37, 29))
    made = []
    for device in ("cpu", "cuda"):
        x = gl.tensor(values, dtype=dtype, device=device, requires_grad=True)
        y = gl.dropout(x, p, generator=Generator(4))
        y.backward(gl.ones(y.shape, dtype=dtype, device=device))
        made.append([y.detach().numpy(force=True), x.grad.numpy(force=True)])
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])
    assert [symbol for _, symbol in emulator.launches] == 2 * [f"dropout_{dtype}"]
    np.testing.assert_array_equal(made[1][0] != 0, made[1][1] != 0)


@pytest.mark.sanitized
def test_dropout_takes_any_layout(emulator):
    values = np.random.default_rng(0).standard_normal((18, 9)).astype("float32")
    for arrange in (lambda x: x.T, lambda x: x[1:, ::2], lambda x: x.flatten()[1:]):
        here, there = (
            gl.dropout(arrange(gl.tensor(values, device=device)), generator=Generator(4))
            for device in ("cpu", "cuda")
        )
        np.testing.assert_array_equal(here.numpy(), there.numpy(force=True))


def test_what_is_dropped_passes_on_nan(emulator):
    x = gl.tensor([float("nan"), float("inf"), 1.0] * 20)
    here, there = (
        gl.dropout(x.to(device=device), generator=Generator(1)).numpy(force=True)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(here, there)


def test_complex_dropout(emulator):
    x = gl.tensor(np.arange(20) + 1j, dtype="complex64")
    here, there = (
        gl.dropout(x.to(device=device), generator=Generator(1)).numpy(force=True)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(here, there)


def test_dropout_samples(emulator):
    assert check_op(DROPOUT, devices=["cuda"]) > 5


def test_second_gradients_have_the_mask(emulator):
    x = gl.ones(50, device="cuda", requires_grad=True)
    y = gl.dropout(x * x, 0.5, generator=Generator(3))
    (first,) = gl.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = gl.autograd.grad(first.sum(), x)
    np.testing.assert_array_equal(second.numpy(force=True), 2 * y.detach().numpy(force=True))
