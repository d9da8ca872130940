"""Reductions on CUDA, on the emulator: every op's samples; layouts, dtypes, sizes, dispatch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradlab.kernels.cuda import driver, reduction
from hypothesis import HealthCheck, assume, given, settings, strategies as st

import gradlab
from fake_cuda import Array
from gradlab import dtypes
from gradlab.ops import reduction as ops
from gradlab.ops.shape import SUM_TO
from gradlab.testing import assert_close, check_op

INF, NAN = math.inf, math.nan

OPS = [ops.SUM, ops.MEAN, ops.PROD, ops.VAR, ops.STD, ops.MAX, ops.MIN, ops.ARGMAX, ops.ARGMIN,
       ops.ANY, ops.ALL, ops.COUNT_NONZERO, ops.VECTOR_NORM]  # fmt: skip


def reduce(operation: str, x: np.ndarray, *args: Any, **options: Any) -> np.ndarray:
    return reduction.reduce(operation, Array(x, 0), *args, **options).get()


def kernels(emulator: Any) -> list[str]:
    """The kernels that were launched, without operation and dtype; and forget them."""
    names = [symbol.split("_", 1)[1].rsplit("_", 1)[0] for _, symbol in emulator.launches]
    emulator.launches.clear()
    return names


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_samples_on_cuda(emulator, op):
    check_op(op, devices=["cuda"])
    assert emulator.launches


# ------------------------------------------------------------------------------ layouts, axes


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """An array of any strides, negative and 0 among them, with ties in it; axes of it."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40]), min_size=1, max_size=4))
    while math.prod(shape) > 20_000:
        shape.pop()
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    whole = rng.integers(-9, 9, [2 * n + draw(st.integers(0, 1)) for n in shape]).astype(np.float64)
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1, -2])) for _ in shape]
    x = whole[tuple(slice(None, None, step) for step in steps)]
    x = x[tuple(slice(draw(st.integers(0, 1)), None) for _ in shape)]
    x = x[tuple(slice(n) for n in shape)]
    assume(x.size)
    if draw(st.booleans()):
        x = np.ascontiguousarray(x)
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    if draw(st.booleans()):
        x = np.broadcast_to(x, (draw(st.integers(1, 5)), *x.shape))
    axes = st.lists(st.integers(0, x.ndim - 1), unique=True).map(lambda axes: tuple(sorted(axes)))
    return x, draw(st.one_of(st.none(), axes))


@given(case=cases(), keepdims=st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_axes_of_any_strides(emulator, case, keepdims):
    x, axes = case
    options = {"axis": axes, "keepdims": keepdims}
    # Sums of small integers are exact in any order.
    np.testing.assert_array_equal(reduce("sum", x, axes, keepdims), x.sum(**options))
    np.testing.assert_array_equal(reduce("max", x, axes, keepdims), x.max(**options))
    np.testing.assert_allclose(
        reduce("var", x, axes, keepdims, count=x.size / max(1, x.sum(**options).size)),
        x.var(**options), 1e-12, 1e-12,
    )  # fmt: skip


@given(case=cases())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_places_in_any_strides(emulator, case):
    x, axes = case
    axis = axes[0] if axes else None
    np.testing.assert_array_equal(reduce("argmax", x, axis), x.argmax(axis=axis))


SIZES = [1, 31, 32, 33, 1023, 1024, 1025, 70_001]


@pytest.mark.parametrize("size", SIZES)
def test_sizes(emulator, size):
    x = np.random.default_rng(0).integers(-9, 9, (size, 3)).astype(np.float32)
    for array, axis in ((x, 0), (x, 1), (x, None), (x.T, 0), (x.T, 1), (x[:, 0], 0), (x[::-1], 0),
                        (np.ascontiguousarray(x.T), 1)):  # fmt: skip
        y = reduce("sum", array, axis)
        assert y.shape == np.sum(array, axis).shape
        np.testing.assert_array_equal(y, array.sum(axis=axis))
        if size < 2_000 or axis != 1:
            places = reduce("argmax", array, axis)
            np.testing.assert_array_equal(places, array.argmax(axis=axis))


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(6, 100), (2, 5000), (40, 33), (100, 36), (9, 7, 50)])
def test_unaligned_views(emulator, offset, shape):
    memory = np.random.default_rng(0).integers(-9, 9, math.prod(shape) + 8).astype(np.float32)
    x = memory[offset : offset + math.prod(shape)].reshape(shape)
    for axis in (*range(len(shape)), None):
        np.testing.assert_array_equal(reduce("sum", x, axis), x.sum(axis=axis))
        np.testing.assert_array_equal(reduce("argmax", x, axis), x.argmax(axis=axis))


def test_an_axis_longer_than_a_block_is_reduced_in_two_launches(emulator):
    x = np.ones((2, 150_000), np.float32)
    y = reduce("sum", x, 1)
    assert y.shape == (2,)
    assert y.tolist() == [150_000, 150_000]
    assert kernels(emulator) == ["rows", "combine"]


def test_through_tensors_without_waiting(emulator):
    x = gradlab.tensor(np.random.default_rng(0).random((64, 3, 7, 7)), device="cuda")
    copies, waits = emulator.copies_to_host, emulator.waits
    y = x.mean((0, 2, 3), keepdims=True)
    z = x.var((0, 2, 3))
    n = x.norm()
    assert (emulator.copies_to_host, emulator.waits) == (copies, waits)
    host = x.numpy(force=True)
    assert_close(y.numpy(force=True), host.mean((0, 2, 3), keepdims=True))
    assert_close(z.numpy(force=True), host.var((0, 2, 3), ddof=1))
    assert_close(n.numpy(force=True), np.sqrt((host * host).sum()))


def test_gradients_of_broadcasts(emulator):
    check_op(SUM_TO, devices=["cuda"])
    x = gradlab.ones(300, 5, device="cuda", requires_grad=True)
    bias = gradlab.ones(5, device="cuda", requires_grad=True)
    emulator.launches.clear()
    (x + bias).sum().backward()
    assert bias.grad.tolist() == [300] * 5
    symbols = [symbol for _, symbol in emulator.launches]
    assert symbols == ["sum_rows_float32", "sum_columns_float32"]


def test_sum_rows(emulator):
    x = np.random.default_rng(0).integers(-9, 9, (1000, 48)).astype(np.float32)
    np.testing.assert_array_equal(reduction.sum_rows(Array(x, 0)).get(), x.sum(0))


# ------------------------------------------------------------------------------------- dispatch

DISPATCH = [
    # shape, axes, kernels
    ((1000, 1000), 1, ["rows"]),  # a block for each row
    ((5000, 64), 1, ["rows"]),  # several rows to a warp
    ((4, 100_000), 1, ["rows", "combine"]),
    ((300_000,), None, ["rows", "combine"]),
    ((64, 10, 49), (0, 2), ["rows"]),  # the statistics of images, by channel
    ((64, 128), 0, ["columns_packed"]),
    ((4096, 128), 0, ["columns_packed", "combine"]),
    ((4096, 10), 0, ["columns_packed", "combine"]),  # sixteen rows read as one
    ((8, 64, 32), 1, ["columns_packed"]),  # the middle axis
    ((64, 33), 0, ["columns"]),
    ((5000, 3), 1, ["columns"]),  # rows shorter than a few packs
]


@pytest.mark.parametrize(("shape", "axes", "expected"), DISPATCH, ids=str)
def test_dispatch(emulator, shape, axes, expected):
    reduce("sum", np.ones(shape, np.float32), axes)
    assert kernels(emulator) == expected


def test_dispatch_by_layout(emulator):
    x = np.ones((128, 256), np.float32)
    reduce("sum", x.T, 0)
    reduce("sum", x.T, 1)
    reduce("sum", x[:, ::2], 1)
    reduce("sum", np.broadcast_to(x[0], (128, 256)), 0)
    assert kernels(emulator) == ["rows", "columns_packed", "columns", "columns_packed"]


REFUSED = [
    np.ones((3, 4), np.complex64),
    np.ones((0, 4), np.float32),
    np.ones(3, [("a", np.int8), ("b", np.float32)])["b"],  # 5 bytes apart
]


@pytest.mark.parametrize("x", REFUSED, ids=["complex", "empty", "strides"])
def test_what_kernels_refuse_the_array_code_takes(emulator, x):
    assert not reduction.fits("sum", Array(x, 0))
    assert_close(ops.sum(gradlab.tensor(x, device="cuda"), 0).numpy(force=True), x.sum(0))


# ----------------------------------------------------------------------------------------- dtypes


def numpy_sum(x: np.ndarray, axis: Any) -> np.ndarray:
    if x.dtype in dtypes.HALVES:
        return x.astype(np.float32).sum(axis=axis).astype(x.dtype)
    return x.sum(axis=axis, dtype="int64" if x.dtype != "uint64" else "uint64")


TYPES = ["bool", "int8", "uint16", "int32", "uint64", "float16", "bfloat16"]


@pytest.mark.parametrize("name", TYPES)
def test_sums_of_every_kind_of_dtype(emulator, name):
    dtype = dtypes.as_dtype(name)
    x = np.random.default_rng(0).integers(0, 7, (40, 300)).astype(dtype)
    for array in (x, x.T, x[::-1, ::-1], x[:, 1:]):
        for axis in (0, 1, None):
            y, expected = reduce("sum", array, axis), numpy_sum(array, axis)
            assert y.dtype == expected.dtype
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("operation", "name"),
    [("max", "bool"), ("max", "int64"), ("min", "float16"), ("argmax", "int8"),
     ("argmin", "bfloat16"), ("any", "uint8"), ("all", "bfloat16"), ("prod", "int8")],
)  # fmt: skip
def test_other_operations_of_narrow_dtypes(emulator, operation, name):
    dtype = dtypes.as_dtype(name)
    low = 0 if dtype.kind in "bu" else -2
    x = np.random.default_rng(0).integers(low, 3, (40, 300)).astype(dtype)
    wide = x.astype(np.float32) if dtype in dtypes.HALVES else x
    for array, plain in ((x, wide), (x.T, wide.T), (x[:, 1:], wide[:, 1:])):
        for axis in (0, 1):
            expected = getattr(np, operation)(plain, axis=axis)
            y = reduce(operation, array, axis)
            assert y.dtype == (expected.dtype if plain is array else y.dtype)
            np.testing.assert_array_equal(y.astype(expected.dtype), expected)


def test_integers_are_added_modulo_2_to_the_64(emulator):
    x = np.array([2**63 - 1, 5, -7, 2**62], np.int64)
    with np.errstate(over="ignore"):
        assert reduce("sum", x) == x.sum()
        assert reduce("prod", x) == x.prod()
    assert reduce("sum", np.array([2**63, 1], np.uint64)) == 2**63 + 1


def test_halves_do_not_overflow_on_the_way(emulator):
    x = np.full((3, 40_000), 60_000, np.float16)
    assert reduce("sum", x, 1, count=40_000.0).tolist() == [60_000] * 3
    assert reduce("var", x, 1, count=39_999.0).tolist() == [0] * 3


# ---------------------------------------------------------------------------- NaN, ties, infinity

# One shape for each way through the kernels; the reduced axis is the last.
WAYS = [(3, 7), (3, 64), (2, 3000), (1, 70_001)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", WAYS, ids=str)
def test_nan_and_ties(emulator, shape, transposed):
    rng = np.random.default_rng(0)
    ties = rng.integers(0, 3, shape).astype(np.float32)
    spots = rng.choice(shape[1], 2, replace=False)
    nan = ties.copy()
    nan[0, spots] = NAN
    infinite = ties.copy()
    infinite[:, spots[0]], infinite[:, spots[1]] = INF, -INF
    for x in (ties, nan, infinite, np.full(shape, -INF, np.float32), np.full(shape, NAN, "f4")):
        array = np.ascontiguousarray(x.T).T if transposed else x
        for operation in ("max", "min", "argmax", "argmin"):
            expected = getattr(np, operation)(x, axis=1)
            np.testing.assert_array_equal(reduce(operation, array, 1), expected, operation)


def test_infinities_add_up_to_nan(emulator):
    assert math.isnan(reduce("sum", np.array([INF, 1, -INF], np.float32)))
    assert reduce("sum", np.array([INF, 1], np.float32)) == INF
    assert reduce("any", np.array([0.0, NAN], np.float32))
    assert not reduce("all", np.array([-0.0, NAN], np.float32))


# ---------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("shape", [(2, 20), (2, 3000), (2, 150_000)], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_variance_beside_a_large_mean(emulator, shape, transposed):
    x = (np.random.default_rng(0).standard_normal(shape) + 1000).astype(np.float32)
    x[:, 0] = 0  # a bad guess at the mean
    exact = x.astype(np.float64).var(axis=1)
    array = np.ascontiguousarray(x.T).T if transposed else x
    y = reduce("var", array, 1, count=float(shape[1]))
    np.testing.assert_allclose(y, exact, 2e-5)
    np.testing.assert_allclose(reduce("var", array, 1, count=float(shape[1]), order=0.5),
                               np.sqrt(exact), 2e-5)  # fmt: skip


NORMS = [
    [3.0, -4.0, 0.0], [1e-30, 1e30, 2e30], [1e-38, 2e-38, 1e-37], [0.0, 0.0], [INF, 1.0, 1e30],
    [1e-30, -INF, 0.0], [NAN, 1.0, INF], [1.0], [0.0, 1e-30, 1e30], [5.0] * 3000,
]  # fmt: skip


@pytest.mark.parametrize("order", [1, INF, -INF, 3, 0.5, -1, -3])
def test_norms_stay_within_range(emulator, order):
    for numbers in NORMS:
        x = np.array(numbers, np.float32)
        expected = ops.vector_norm(gradlab.tensor(x), order).item()
        y = ops.vector_norm(gradlab.tensor(x, device="cuda"), order).item()
        np.testing.assert_allclose(y, expected, 2e-6, err_msg=f"{numbers[:3]}")
    assert {source for source, _ in emulator.launches} == {"reduction.cu"}


# -------------------------------------------------------------------------------- the same bits


def test_bits_depend_on_shapes_alone(emulator, monkeypatch):
    def properties() -> None:
        raise AssertionError("geometry must not depend on the GPU")

    monkeypatch.setattr(emulator, "properties", properties)
    rng = np.random.default_rng(0)
    for shape, axis in (((100_000,), None), ((3, 5000), 1), ((3000, 48), 0), ((50, 3, 49), (0, 2))):
        x = rng.standard_normal(shape).astype(np.float32)
        found = set()
        for order in (0, 1):
            emulator.order = order
            for operation in ("sum", "var"):
                found.add((operation, reduce(operation, x, axis).tobytes()))
        assert len(found) == 2


def test_bits_do_not_depend_on_the_upper_half_of_an_address(emulator):
    step = 2**31
    try:
        memory = np.empty(step + 1024, np.float32)  # of which only the pages that are touched exist
    except MemoryError:
        pytest.skip("there are no 8 GB of address space to be had")
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = set()
    for start in (3, step + 3):
        x = memory[start : start + values.size]
        x[:] = values
        found.add(reduce("sum", x).tobytes())
    assert len(found) == 1


# ------------------------------------------------------------------------------------ large


@pytest.mark.parametrize("length", [2**31 + 5, 2**33, 2**36 + 1])
@pytest.mark.parametrize("rows", [1, 3, 5000])
def test_plans_of_axes_beyond_2_to_the_31(length, rows):
    for strides in ((length, 1), (1, rows)):
        layout = reduction.canonical((rows, length), strides, (1,))
        plan = reduction._plan(layout, 4, 16, "sum")
        g = plan.geometry
        assert plan.grid < 2**31
        assert g["inner_part"] <= 2**30  # which kernels count in 32 bits
        fold = g["columns"] // rows if plan.kernel.startswith("columns") else 1
        assert g["length"] * fold == length
        assert (g["inner_parts"] - 1) * g["inner_part"] < g["length"]
        assert g["inner_parts"] * g["inner_part"] >= g["length"]
        assert plan.parts == g["inner_parts"] * g["outer_parts"] * fold


def test_strides_beyond_2_to_the_31(emulator):
    step = 2**31 + 64
    memory = np.zeros(3 * step, np.int8)  # of which only the pages that are touched exist
    x = np.lib.stride_tricks.as_strided(memory, (2, 3, 40), (64, step - 128, 1))
    assert x.strides[1] * 2 > 2**32 - 1000
    x = np.lib.stride_tricks.as_strided(memory, (2, 3, 40), (64, step // 2 * 2 - 128, 1))
    x[...] = np.random.default_rng(0).integers(-9, 9, x.shape)
    for axis in (0, 1, 2, (0, 2), (1, 2), (0, 1), None):
        np.testing.assert_array_equal(reduce("sum", x, axis), x.sum(axis=axis))


def test_places_beyond_2_to_the_31(emulator):
    x = np.array([1, 5, 2, 0, 3, 5], np.float32)
    y = np.empty(1, np.int64)
    outer = (reduction.Axis(2, 3, 2**40),)
    geometry = reduction._geometry(
        (), outer, length=3, stride=1, weight=2**35, columns=1, column_blocks=1, lanes=1,
        outer_part=2, outer_parts=1, inner_part=3, inner_parts=1,
    )  # fmt: skip
    defines = reduction._defines("argmax", "float32")
    args = (Array(x, 0), Array(y, 0), Array(y, 0), geometry)
    driver.launch("reduction.cu", "argmax_columns_float32", (1,), (256,), args, defines=defines)
    assert y[0] == 2**35
    x[1] = 0
    driver.launch("reduction.cu", "argmax_columns_float32", (1,), (256,), args, defines=defines)
    assert y[0] == 2**40 + 2 * 2**35


def test_too_many_blocks_are_refused_before_launch():
    layout = reduction.canonical((2**39, 4), (4, 1), (1,))
    with pytest.raises(ValueError, match="takes 2147483648 blocks, and CUDA has"):
        reduction._plan(layout, 4, 16, "sum")


# --------------------------------------------------------------------------------- geometry


def test_canonical_layouts():
    def layout(shape: Any, axes: Any, strides: Any = None, ordered: bool = False) -> Any:
        strides = strides or tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        found = reduction.canonical(shape, strides, axes, ordered)
        return [tuple(axis) for axis in found.kept], [tuple(a) for a in found.reduced], found.start

    assert layout((2, 3, 4), (0, 1, 2)) == ([], [(24, 1, 0)], 0)
    assert layout((2, 3, 4), (1,)) == ([(2, 12, 4), (4, 1, 1)], [(3, 4, 0)], 0)
    assert layout((2, 1, 4), (1,)) == ([(8, 1, 1)], [], 0)
    assert layout((2, 3, 4), (0, 2)) == ([(3, 4, 1)], [(2, 12, 0), (4, 1, 0)], 0)
    # Backwards, for sums: the start moves. A transposed array is one run as well.
    assert layout((5,), (0,), (-1,)) == ([], [(5, 1, 0)], -4)
    assert layout((4, 3), (0, 1), (1, 4)) == ([], [(12, 1, 0)], 0)
    # Places keep the order of the axes.
    assert layout((5,), (0,), (-1,), True) == ([], [(5, -1, 1)], 0)
    assert layout((4, 3), (0, 1), (1, 4), True) == ([], [(3, 4, 1), (4, 1, 3)], 0)
    # Axes that repeat are counted through last.
    assert layout((4, 3), (0, 1), (0, 1)) == ([], [(4, 0, 0), (3, 1, 0)], 0)


def test_part_sizes_are_those_of_the_structs(emulator):
    # Memory behind the parts would be overwritten otherwise, or left unwritten.
    for operation in ("sum", "max", "any", "count_nonzero", "argmax", "var", "norm", "norm2"):
        for dtype in ("float32", "float64"):
            assert reduction._part_bytes(operation, dtype) == PART[operation, dtype]


PART = {
    ("sum", "float32"): 4, ("sum", "float64"): 8, ("max", "float32"): 4, ("max", "float64"): 8,
    ("any", "float32"): 4, ("any", "float64"): 4, ("count_nonzero", "float32"): 8,
    ("count_nonzero", "float64"): 8, ("argmax", "float32"): 16, ("argmax", "float64"): 16,
    ("var", "float32"): 12, ("var", "float64"): 24, ("norm", "float32"): 8,
    ("norm", "float64"): 16, ("norm2", "float32"): 4, ("norm2", "float64"): 8,
}  # fmt: skip


# ------------------------------------------------------------------- for the sanitizers: see there


@pytest.mark.sanitized
@pytest.mark.parametrize("shape", [(5, 40), (2, 1300), (1, 20_000), (3, 2, 21)], ids=str)
@pytest.mark.parametrize("operation", ["sum", "argmax", "var"])
def test_each_kernel_once(emulator, operation, shape):
    rng = np.random.default_rng(0)
    memory = rng.integers(-9, 9, math.prod(shape) + 3).astype(np.float32)
    for x in (memory[:-3].reshape(shape), memory[3:].reshape(shape), memory[:-3].reshape(shape).T):
        for axis in (0, x.ndim - 1):
            y = reduce(
                operation, x, axis, count=float(x.shape[axis]) if operation == "var" else 1.0
            )
            np.testing.assert_allclose(y, getattr(np, operation)(x, axis=axis), 1e-5, 1e-5)
