"""Running sums and products on CUDA, on the emulator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import scan
from hypothesis import HealthCheck, given, settings, strategies as st

import gradlab
from fake_cuda import Array
from gradlab import dtypes
from gradlab.ops import reduction as ops
from gradlab.testing import assert_close, check_op


def run(operation: str, x: np.ndarray, axis: int, reverse: bool = False) -> np.ndarray:
    return scan.scan(operation, Array(x, 0), axis, reverse).get()


def numpy_cumsum(x: np.ndarray, axis: int, reverse: bool = False) -> np.ndarray:
    flipped = np.flip(x, axis) if reverse else x
    wide = np.float32 if x.dtype in dtypes.HALVES else None
    y = flipped.cumsum(axis, dtype=wide if x.dtype.kind not in "biu" else _wide(x.dtype))
    y = y.astype(x.dtype) if wide else y
    return np.flip(y, axis) if reverse else y


def _wide(dtype: np.dtype) -> str:
    return "uint64" if dtype == np.uint64 else "int64"


def kernels(emulator: Any) -> list[str]:
    names = [symbol.split("_", 1)[1].rsplit("_", 1)[0] for _, symbol in emulator.launches]
    emulator.launches.clear()
    return names


@pytest.mark.parametrize("op", [ops.CUMSUM, ops.CUMPROD], ids=lambda op: op.name)
def test_samples_on_cuda(emulator, op):
    check_op(op, devices=["cuda"])
    assert emulator.launches


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """An array of any strides, negative and 0 among them, and an axis of it."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 33, 70]), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-9, 9, [2 * n for n in shape]).astype(np.float64)
    x = x[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1, -2]))) for _ in shape)]
    x = x[tuple(slice(n) for n in shape)]
    if draw(st.booleans()):
        x = np.ascontiguousarray(x)
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    if draw(st.booleans()):
        x = np.broadcast_to(x, (draw(st.integers(1, 5)), *x.shape))
    return x, draw(st.integers(0, x.ndim - 1))


@given(case=cases(), reverse=st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_axis_of_any_strides(emulator, case, reverse):
    x, axis = case
    np.testing.assert_array_equal(run("cumsum", x, axis, reverse), numpy_cumsum(x, axis, reverse))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 31, 32, 33, 1023, 1024, 1025, 4096, 70_001, 70_004])
def test_sizes(emulator, size, reverse):
    x = np.random.default_rng(0).integers(-9, 9, (2, size)).astype(np.float32)
    for array, axis in ((x, 1), (x[1], 0), (x[:, ::-1], 1), (np.ascontiguousarray(x.T), 0),
                        (x.T, 0), (x[:, 1:], 1)):  # fmt: skip
        if array.size:
            expected = numpy_cumsum(array, axis, reverse)
            np.testing.assert_array_equal(run("cumsum", array, axis, reverse), expected)


DISPATCH = [
    ((100, 64), 1, ["rows_packed"]),
    ((100, 33), 1, ["rows"]),
    ((3, 10_000), 1, ["rows_packed"]),
    ((2, 100_000), 1, ["rows_packed", "prefixes", "rows_packed"]),
    ((100_001,), 0, ["rows", "prefixes", "rows"]),
    ((60, 50), 0, ["columns"]),
    ((4, 60, 50), 1, ["columns"]),
    ((3000, 3), 0, ["columns", "prefixes", "columns"]),
]


@pytest.mark.parametrize(("shape", "axis", "expected"), DISPATCH, ids=str)
def test_dispatch(emulator, shape, axis, expected):
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    np.testing.assert_array_equal(run("cumsum", x, axis), x.cumsum(axis))
    assert kernels(emulator) == expected


@pytest.mark.parametrize("name", ["bool", "int8", "uint16", "uint64", "float16", "bfloat16"])
def test_every_kind_of_dtype(emulator, name):
    dtype = dtypes.as_dtype(name)
    x = np.random.default_rng(0).integers(0, 2, (6, 200)).astype(dtype)
    for array in (x, x[:, 1:], x[::-1]):
        for axis in (0, 1):
            for reverse in (False, True):
                y, expected = (
                    run("cumsum", array, axis, reverse),
                    numpy_cumsum(array, axis, reverse),
                )
                assert y.dtype == expected.dtype
                np.testing.assert_array_equal(y, expected)


def test_products(emulator):
    x = np.random.default_rng(0).uniform(0.9, 1.1, (3, 500))
    np.testing.assert_allclose(run("cumprod", x, 1), x.cumprod(1), 1e-12)
    np.testing.assert_allclose(run("cumprod", x, 0), x.cumprod(0), 1e-12)
    whole = np.full(100, 3, np.int64)
    np.testing.assert_array_equal(run("cumprod", whole, 0), whole.cumprod())  # modulo 2^64


def test_a_long_running_sum_keeps_its_digits(emulator):
    x = np.random.default_rng(0).random(200_000, dtype=np.float32)
    exact = x.cumsum(dtype=np.float64)
    for array in (x, np.stack([x, x], 1)[:, 0]):
        np.testing.assert_allclose(run("cumsum", array, 0), exact, 1.2e-7)


def test_nan_and_infinity_go_on(emulator):
    x = np.ones((2, 3000), np.float32)
    x[0, 100], x[1, 2000] = math.nan, math.inf
    for array, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        np.testing.assert_array_equal(run("cumsum", array, axis), array.cumsum(axis))


def test_bits_depend_on_shapes_alone(emulator, monkeypatch):
    def properties() -> None:
        raise AssertionError("geometry must not depend on the GPU")

    monkeypatch.setattr(emulator, "properties", properties)
    for shape, axis in (((100_000,), 0), ((3, 5000), 1), ((3000, 4), 0)):
        x = np.random.default_rng(0).standard_normal(shape)
        found = set()
        for order in (0, 1):
            emulator.order = order
            found.add(run("cumsum", x, axis).tobytes())
        assert len(found) == 1


def test_gradient_through_tensors_without_waiting(emulator):
    x = gradlab.tensor(np.random.default_rng(0).random((4, 300)), device="cuda")
    x.requires_grad_()
    copies = emulator.copies_to_host
    y = (x.cumsum(1) * x).sum()
    y.backward()
    assert emulator.copies_to_host == copies
    host = x.detach().numpy(force=True)
    expected = host.cumsum(1) + np.flip(np.flip(host, 1).cumsum(1), 1)
    assert_close(x.grad.numpy(force=True), expected)


def test_strides_beyond_2_to_the_31(emulator):
    step = 2**31 - 64
    memory = np.zeros(2 * step + 512, np.int8)  # of which only the pages that are touched exist
    x = np.lib.stride_tricks.as_strided(memory, (2, 3, 20), (64, step, 1))
    x[...] = np.random.default_rng(0).integers(-9, 9, x.shape)
    for axis in range(3):
        np.testing.assert_array_equal(run("cumsum", x, axis), x.cumsum(axis))


@pytest.mark.parametrize("length", [2**31 + 8, 2**36])
def test_plans_of_axes_beyond_2_to_the_31(length):
    for shape, strides, axis in (((length,), (4,), 0), ((length, 5), (20, 4), 0)):
        plan = scan.plan(shape, strides, axis, False, 4, 4, True)
        g = plan.geometry
        assert plan.grid < 2**31
        assert (plan.parts - 1) * g["part"] < length <= plan.parts * g["part"]
        assert plan.prefix["length"] == plan.parts


def test_too_many_blocks_are_refused_before_launch():
    with pytest.raises(ValueError, match="blocks, and CUDA has"):
        scan.plan((2**36, 4), (16, 4), 1, False, 4, 4, True)


@pytest.mark.sanitized
@pytest.mark.parametrize(("shape", "axis"), [case[:2] for case in DISPATCH], ids=str)
def test_each_kernel_once(emulator, shape, axis):
    shape = tuple(n // 3 if n > 50_000 else n for n in shape)
    memory = np.random.default_rng(0).integers(-9, 9, math.prod(shape)).astype(np.float32)
    x = memory.reshape(shape)
    np.testing.assert_array_equal(run("cumsum", x, axis), x.cumsum(axis))
    np.testing.assert_array_equal(run("cumsum", x, axis, True), numpy_cumsum(x, axis, True))
