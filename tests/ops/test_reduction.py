"""Reductions against NumPy; what each does with dtypes, NaN, infinities, ties and nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.errors import AxisError, DTypeError, GradientError, OptionError, ShapeError
from gradlab.ops import reduction as R
from gradlab.ops.creation import from_numpy, tensor
from gradlab.testing import assert_close, gradcheck

INF, NAN = math.inf, math.nan


def numpy_logsumexp(x: np.ndarray, **options: Any) -> np.ndarray:
    return np.log(np.sum(np.exp(x), **options))


NUMPY: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
    "count_nonzero": np.count_nonzero,
    "logsumexp": numpy_logsumexp,
    "var": lambda x, **options: np.var(x, ddof=1, **options),
    "std": lambda x, **options: np.std(x, ddof=1, **options),
    "vector_norm": lambda x, **options: np.sqrt(np.sum(x * x, **options)),
    "nansum": np.nansum,
    "nanmean": np.nanmean,
}


def reference(name: str, x: np.ndarray, **options: Any) -> np.ndarray:
    with warnings.catch_warnings():  # NumPy warns of means of nothing; the NaN is what we want
        warnings.simplefilter("ignore")
        return np.asarray(NUMPY[name](x, **options))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Any, bool]:
    """An array in some layout, with zeros in it; axes of it; keepdims."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    axes = st.integers(-len(shape), len(shape) - 1)
    several = st.lists(axes, max_size=len(shape), unique_by=lambda axis: axis % len(shape))
    axis = draw(st.one_of(st.none(), axes, several.map(tuple)))
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape)
    x = np.where(x > 1, 0.0, x)
    layout = draw(st.sampled_from(["rows", "columns", "backwards", "gaps"]))
    if layout == "columns":
        x = np.asfortranarray(x)
    elif layout == "backwards":
        x = x[..., ::-1]
    elif layout == "gaps":
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    return x, axis, draw(st.booleans())


@pytest.mark.parametrize("name", NUMPY)
@given(case=cases())
def test_values(name: str, case: tuple[np.ndarray, Any, bool]) -> None:
    x, axis, keepdims = case
    y = getattr(R, name)(from_numpy(x), axis=axis, keepdims=keepdims)
    expected = reference(name, x, axis=axis, keepdims=keepdims)
    assert_close(y, expected, 1e-12, 1e-12, equal_nan=True)


# Tall and narrow matrices go another way through memory; so do the sizes around its limits.
TALL = [
    (1025,), (4095, 1), (4096, 1), (4097, 2), (409, 10), (410, 10), (1025, 4), (5000, 3),
    (64, 16), (64, 17), (100, 255), (17, 256), (17, 257), (40, 11, 10), (2, 2000, 3), (3000, 0),
]  # fmt: skip


@pytest.mark.parametrize("shape", TALL)
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "any", "all", "var"])
def test_tall(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(0.99, 1.01, shape)
    if name in ("any", "all"):
        x = (x > 1.009) * 1.0
    tensor = from_numpy(x)
    everything = tuple(range(len(shape)))
    for axis in {0, len(shape) - 1, everything, everything[:-1] or 0}:
        if not x.size and name in ("max", "min"):
            continue
        for keepdims in (False, True):
            y = getattr(R, name)(tensor, axis=axis, keepdims=keepdims)
            expected = reference(name, x, axis=axis, keepdims=keepdims)
            assert_close(y, expected, 1e-11, 1e-11, equal_nan=True)


def test_tall_with_nan_and_infinity() -> None:
    x = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    x[4999, 0], x[1, 1], x[2500, 2] = NAN, INF, -INF
    for name in ("sum", "max", "min"):
        for axis in (0, 1):
            y = getattr(R, name)(from_numpy(x), axis=axis)
            assert_close(y, NUMPY[name](x, axis=axis), 1e-5, 1e-3, equal_nan=True)


def test_sum_over_many_rows_keeps_its_digits() -> None:
    x = np.random.default_rng(0).random((300_000, 4), dtype=np.float32)
    exact = x.sum(0, dtype=np.float64)
    assert float(np.max(np.abs(R.sum(from_numpy(x), 0).numpy() / exact - 1))) < 1e-6
    assert float(np.max(np.abs(R.mean(from_numpy(x), 0).numpy() * 300_000 / exact - 1))) < 1e-6


# ---------------------------------------------------------------------------------- dtypes

FLOATS = [dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64]
NARROW = [dtypes.bool_, dtypes.int8, dtypes.uint8, dtypes.int32, dtypes.int64]


@pytest.mark.parametrize("dtype", [*FLOATS, dtypes.complex64, dtypes.complex128], ids=str)
def test_inexact_dtypes_stay(dtype: Any) -> None:
    x = tensor(np.ones((2, 3)), dtype=dtype)
    for f in (R.sum, R.prod, R.mean, R.cumsum, R.cumprod):
        assert f(x, 0).dtype == dtype
    if not dtypes.is_complex(dtype):
        for f in (R.max, R.min, R.var, R.std, R.logsumexp, R.norm):
            assert f(x, axis=0).dtype == dtype


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_integers_accumulate_in_int64(dtype: Any) -> None:
    x = tensor(np.ones((300, 2)), dtype=dtype)
    for f in (R.sum, R.cumsum):
        y = f(x, 0)
        assert y.dtype == dtypes.int64
        assert y.numpy()[..., -1].max() == 300
    assert R.prod(x).dtype == R.cumprod(x, 0).dtype == dtypes.int64
    assert R.max(x).dtype == R.min(x, axis=0).dtype == dtype


def test_uint64_accumulates_in_uint64() -> None:
    x = tensor(np.array([2**63, 1]), dtype=dtypes.uint64)
    assert R.sum(x).dtype == dtypes.uint64
    assert R.sum(x).item() == 2**63 + 1


def test_halves_accumulate_in_float32() -> None:
    ones = tensor(np.ones(4096), dtype=dtypes.bfloat16)
    assert R.sum(ones).item() == 4096  # in bfloat16, 256 + 1 is 256
    large = tensor(np.full(100, 1000.0), dtype=dtypes.float16)
    assert R.mean(large).item() == 1000  # the sum is beyond float16
    assert R.var(large).item() == 0
    assert R.norm(large).item() == 10000
    assert R.nanmean(tensor(np.full(70_000, 2.0), dtype=dtypes.float16)).item() == 2


def test_gradient_of_a_half_mean_over_many() -> None:
    x = tensor(np.ones(100_000), dtype=dtypes.float16, requires_grad=True)
    R.mean(x).backward(tensor(1000.0, dtype=dtypes.float16))
    assert x.grad is not None
    assert x.grad.dtype == dtypes.float16
    assert_close(x.grad[0].item(), 0.01, 1e-3)


def test_dtype_casts_first() -> None:
    x = tensor([200, 100], dtype=dtypes.uint8)
    assert R.sum(x, dtype=dtypes.uint8).dtype == dtypes.uint8
    assert R.sum(x, dtype=dtypes.uint8).item() == 300 - 256
    assert R.mean(x, dtype=dtypes.float32).item() == 150
    assert R.sum(tensor([1.7, 1.7]), dtype="int64").item() == 2
    assert R.sum(x, dtype="bool").item() is True
    assert R.prod(x, dtype="float64").dtype == dtypes.float64
    assert R.cumsum(x, 0, dtype="int16").dtype == dtypes.int16
    assert R.norm(x, dtype="float32").dtype == dtypes.float32
    assert R.sum(tensor([60000.0] * 2, dtype="float16"), dtype="float32").item() == 120_000


def test_complex_moments() -> None:
    x = np.array([1 + 2j, 3 - 1j, -2 + 0.5j])
    assert_close(R.mean(from_numpy(x)), x.mean())
    assert_close(R.var(from_numpy(x)), x.var(ddof=1))
    assert_close(R.norm(from_numpy(x)), np.linalg.norm(x))


@pytest.mark.parametrize("name", ["mean", "var", "std", "nanmean"])
def test_integers_have_no_mean(name: str) -> None:
    with pytest.raises(DTypeError, match=r"expected floating or complex values, got int64; cast "):
        getattr(R, name)(tensor([1, 2]))


def test_complex_values_have_no_order() -> None:
    x = tensor([1j])
    with pytest.raises(DTypeError, match="max: expected bool or integer or floating values, got c"):
        R.max(x)
    with pytest.raises(DTypeError, match="argmin: "):
        R.argmin(x)


# ------------------------------------------------------------------------------ arguments


def test_pytorch_names_of_axis_and_keepdims() -> None:
    x = tensor([[1.0, 2.0], [3.0, 5.0]])
    for name in ("sum", "mean", "prod", "amax", "amin", "argmax", "any", "var", "std", "logsumexp",
                 "count_nonzero", "nansum", "aminmax"):  # fmt: skip
        method = getattr(x, name)
        assert_close(method(dim=1, keepdim=True), method(axis=1, keepdims=True))
    assert_close(x.norm(1, dim=0), tensor([4.0, 7.0]))
    assert_close(x.cumsum(dim=1), x.cumsum(1))


def test_scalars_have_one_axis_to_name() -> None:
    x = tensor(2.0)
    for name in ("sum", "mean", "prod", "max", "logsumexp", "argmax", "norm"):
        y = getattr(R, name)(x, axis=-1)
        assert y.shape == ()
    assert R.cumsum(x, 0).shape == R.cumprod(x, -1).shape == ()


def test_no_axes_reduce_nothing() -> None:
    x = tensor([[1.0, 2.0]])
    for f in (R.sum, R.max, R.mean, R.prod):
        y = f(x, ())
        assert_close(y, x)
        assert not np.shares_memory(y.numpy(), x.numpy())


def test_arrays_and_lists_are_taken() -> None:
    assert R.sum([1, 2, 3], axis=0).item() == 6
    assert R.max(np.array([1.0, 2.0])).item() == 2
    assert R.argmax([1, 3, 2]).item() == 1
    assert R.norm([3.0, 4.0]).item() == 5


@pytest.mark.parametrize("name", ["sum", "max", "argmax", "cumsum", "std", "norm", "logsumexp"])
def test_axis_out_of_range(name: str) -> None:
    with pytest.raises(
        AxisError, match=r"expected an axis from -2 to 1, for a tensor of 2 axes, got 2"
    ):
        getattr(R, name)(tensor(np.ones((2, 3))), axis=2)


def test_axis_twice_or_no_integer() -> None:
    x = tensor(np.ones((2, 3)))
    with pytest.raises(AxisError, match=r"sum: expected different axes, got \(0, -2\)"):
        x.sum((0, -2))
    with pytest.raises(AxisError, match="mean: expected an integer axis, got 'rows' of type str"):
        x.mean("rows")


# -------------------------------------------------------------------------------- nothing


def test_empty_sums() -> None:
    x = tensor(np.ones((0, 3)))
    assert_close(R.sum(x, 0), [0.0] * 3)
    assert_close(R.prod(x, 0), [1.0] * 3)
    assert_close(R.mean(x, 0), [NAN] * 3, equal_nan=True)
    assert_close(R.logsumexp(x, 0), [-INF] * 3)
    assert_close(R.norm(x, dim=0), [0.0] * 3)
    assert_close(R.norm(x, 3, dim=0), [0.0] * 3)
    assert not R.any(x).item()
    assert R.all(x).item()
    for f in (R.sum, R.max, R.mean, R.argmax, R.logsumexp):
        assert f(x, axis=1).shape == (0,)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_nothing_to_choose_from(name: str) -> None:
    x = tensor(np.ones((0, 3)))
    match = rf"^{name}: expected at least one element to choose from, got shape \(0, 3\)$"
    with pytest.raises(ShapeError, match=match):
        getattr(R, name)(x)
    with pytest.raises(ShapeError, match=r"at least one element to choose from along axis "):
        getattr(R, name)(x, 0)


def test_gradients_of_empty_tensors() -> None:
    x = tensor(np.ones((0, 3)), requires_grad=True)
    total = R.sum(x) + R.prod(x) + R.sum(R.mean(x, 0)) + R.sum(R.cumprod(x, 0)) + R.norm(x)
    (gx,) = grad(total, x)
    assert gx.shape == (0, 3)


# -------------------------------------------------------------------- sum, mean, moments, prod


def test_gradients_are_as_large_as_the_input() -> None:
    for shape in ((4, 5), (400, 50)):  # copied, and stretched without a copy
        x = tensor(np.ones(shape), requires_grad=True)
        (gx,) = grad(R.sum(R.mean(x, 0) * 3), x)
        assert_close(gx, np.full(shape, 3 / shape[0]))
        R.sum(x).backward()
        R.mean(x, keepdims=True).backward()
        assert_close(x.grad, np.full(shape, 1 + 1 / x.numel()))


def test_two_passes_keep_the_digits_of_a_variance() -> None:
    x = np.random.default_rng(0).standard_normal(1000) + 1e8
    assert_close(R.var(from_numpy(x)), x.var(ddof=1), 1e-6)
    assert_close(R.std(tensor([10000.0, 10001.0, 10002.0])).item(), 1.0)


def test_correction() -> None:
    x = tensor([1.0, 2.0, 4.0])
    assert_close(R.var(x).item(), 7 / 3)
    assert_close(x.var(correction=0).item(), 14 / 9)
    assert_close(x.var(unbiased=False).item(), 14 / 9)
    assert_close(x.std(unbiased=True).item(), math.sqrt(7 / 3))
    assert_close(x.var(correction=1.5).item(), 14 / 3 / 1.5)
    assert math.isnan(R.var(tensor([1.0])).item())
    assert R.var(x, correction=3).item() == INF


def test_correction_messages() -> None:
    x = tensor([1.0, 2.0])
    with pytest.raises(
        AxisError, match="var: expected an integer axis, got False; name it unbiased="
    ):
        x.var(False)
    with pytest.raises(OptionError, match="std: expected correction or unbiased, got both"):
        x.std(correction=0, unbiased=True)


def test_std_of_equal_values_has_gradient_0() -> None:
    x = tensor(np.ones(3), requires_grad=True)
    (gx,) = grad(R.std(x), x, create_graph=True)
    assert_close(gx, np.zeros(3))
    assert_close(grad(R.sum(gx), x)[0], np.zeros(3))


@pytest.mark.parametrize("zeros", [0, 1, 2, 4])
def test_prod_gradient_with_zeros(zeros: int) -> None:
    x = np.array([2.0, 3.0, -1.5, 0.5])
    x[:zeros] = 0
    gradcheck(R.prod, [tensor(x, dtype="float64")], order=3)
    expected = [np.prod(np.delete(x, i)) for i in range(4)]
    leaf = tensor(x, requires_grad=True)
    assert_close(grad(R.prod(leaf), leaf)[0], expected)


# ------------------------------------------------------------------------- largest, smallest


def test_ties_share_the_gradient() -> None:
    x = tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]], requires_grad=True)
    (gx,) = grad(R.sum(R.max(x, axis=1)), x)
    assert_close(gx, [[0, 0.5, 0.5], [1 / 3] * 3])
    (gx,) = grad(R.min(-x), x)
    assert_close(gx, [[0, 0, 0], [-1 / 3] * 3])


def test_nan_wins_and_owns_the_gradient() -> None:
    x = tensor([[1.0, NAN, 3.0], [1.0, 2.0, 3.0]], requires_grad=True)
    for f in (R.max, R.min):
        y = f(x, axis=1)
        assert math.isnan(y[0].item())
        assert not math.isnan(y[1].item())
        assert_close(grad(R.sum(y), x)[0][0], [0.0, 1.0, 0.0])
        assert math.isnan(f(x).item())
    assert R.argmax(x, 1).tolist() == [1, 2]
    assert R.argmin(x).item() == 1


def test_argmax_takes_the_first() -> None:
    x = tensor([[1, 3, 3], [5, 5, 0]])
    assert R.argmax(x, 1).tolist() == [1, 0]
    assert R.argmax(x, 1, keepdims=True).tolist() == [[1], [0]]
    assert R.argmax(x).item() == 3
    assert R.argmax(x, keepdims=True).shape == (1, 1)
    assert R.argmin(x, dim=0).tolist() == [0, 0, 1]
    assert R.argmax(x).dtype == dtypes.int64
    assert R.argmax(tensor([False, True])).item() == 1


@given(case=cases())
def test_arguments_of_the_extrema(case: tuple[np.ndarray, Any, bool]) -> None:
    x, axis, keepdims = case
    axis = axis[0] if isinstance(axis, tuple) and axis else None if axis == () else axis
    for f, expected in ((R.argmax, np.argmax), (R.argmin, np.argmin)):
        assert_close(f(from_numpy(x), axis, keepdims), expected(x, axis=axis, keepdims=keepdims))


def test_two_tensors_are_compared() -> None:
    x, y = tensor([1.0, 5.0]), tensor([2.0, 3.0])
    assert R.max(x, y).tolist() == [2, 5]
    assert R.min(x, y).tolist() == [1, 3]


def test_aminmax() -> None:
    found = R.aminmax(tensor([[1, 5], [3, 4]]), axis=1)
    assert found.min.tolist() == [1, 3]
    assert found.max.tolist() == [5, 4]


def test_infinities() -> None:
    x = tensor([-INF, 1.0, INF])
    assert R.max(x).item() == INF
    assert R.min(x).item() == -INF
    assert math.isnan(R.sum(x).item())


# ------------------------------------------------------------------------- truth, counts, NaN


def test_nan_is_true() -> None:
    x = tensor([NAN, 0.0])
    assert R.any(x).item()
    assert not R.all(x).item()
    assert R.count_nonzero(x).item() == 1
    assert R.count_nonzero(x).dtype == dtypes.int64
    assert R.any(x).dtype == dtypes.bool_


def test_nan_left_out() -> None:
    x = tensor([[1.0, NAN], [NAN, NAN]], requires_grad=True)
    assert_close(R.nansum(x, 1), [1.0, 0.0])
    assert_close(R.nanmean(x, 1), [1.0, NAN], equal_nan=True)
    assert_close(grad(R.nanmean(x), x)[0], [[1.0, 0.0], [0.0, 0.0]])
    assert R.nansum(tensor([1, 2])).item() == 3


# -------------------------------------------------------------------------------- logsumexp


def test_logsumexp_does_not_overflow() -> None:
    assert_close(R.logsumexp(tensor([1e4, 1e4])).item(), 1e4 + math.log(2))
    assert_close(R.logsumexp(tensor([-1e4, -1e4])).item(), -1e4 + math.log(2))
    assert R.logsumexp(tensor([0, 0])).dtype == dtypes.float32
    assert R.logsumexp(tensor([60000.0, 60000.0], dtype="float16")).item() == 60000


def test_logsumexp_of_infinities() -> None:
    x = tensor([[-INF, -INF], [-INF, 1.0], [INF, 1.0], [INF, -INF], [NAN, 1.0]], requires_grad=True)
    y = R.logsumexp(x, 1)
    assert_close(y, [-INF, 1.0, INF, INF, NAN], equal_nan=True)
    (gx,) = grad(R.sum(y[:2]), x)
    assert_close(gx[:2], [[0.0, 0.0], [0.0, 1.0]])


# ------------------------------------------------------------------------------- cumulative


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_cumulative(axis: int | None) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    for array in (x, x.T, x[:, ::-1], np.round(x * 3).astype(np.int32)):
        assert_close(R.cumsum(from_numpy(array), axis), np.cumsum(array, axis))
        assert_close(R.cumprod(from_numpy(array), axis), np.cumprod(array, axis))


def test_running_sum_keeps_its_digits() -> None:
    x = np.random.default_rng(0).random(300_000, dtype=np.float32)
    exact = np.cumsum(x, dtype=np.float64)
    assert float(np.max(np.abs(R.cumsum(from_numpy(x), 0).numpy() / exact - 1))) < 2e-7


@pytest.mark.parametrize("size", [0, 1, 2, 5, 8])
def test_cumprod_gradient_with_zeros(size: int) -> None:
    x = np.linspace(0.5, 1.5, 2 * size).reshape(2, size)
    x[0, 1::3] = 0
    if size:
        gradcheck(lambda x: R.cumprod(x, 1), [x], order=2)
        gradcheck(lambda x: R.cumprod(x, 0), [x], order=2)
    leaf = tensor(x, requires_grad=True)
    assert grad(R.sum(R.cumprod(leaf, 1)), leaf)[0].shape == (2, size)


# ------------------------------------------------------------------------------------ norms

ORDERS = [2, 1, 3, 0.5, -1, 0, INF, -INF]


@pytest.mark.parametrize("ord", ORDERS)
def test_vector_norm(ord: float) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    x[1, 2] = 0
    with np.errstate(divide="ignore"):
        expected = np.stack([np.linalg.norm(row, ord) for row in x])
        whole = np.linalg.norm(x.ravel(), ord)
    assert_close(R.vector_norm(from_numpy(x), ord, axis=1), expected)
    assert_close(R.norm(from_numpy(x), ord, axis=1, keepdims=True), expected[:, None])
    assert_close(R.norm(from_numpy(x), ord), whole)
    assert_close(R.norm(from_numpy(x), ord, axis=(0, 1)), whole)


@pytest.mark.parametrize("ord", ["fro", "nuc", INF, -INF, 1, -1, 2, -2])
def test_matrix_norm(ord: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    expected = np.stack([np.linalg.norm(matrix, ord) for matrix in x])
    assert_close(R.matrix_norm(from_numpy(x), ord), expected)
    assert_close(R.matrix_norm(from_numpy(x), ord, keepdims=True), expected.reshape(2, 1, 1))
    moved = from_numpy(np.moveaxis(x, (1, 2), (2, 0)))
    assert_close(R.matrix_norm(moved, ord, axis=(2, 0)), expected)
    assert R.matrix_norm(moved, ord, axis=(2, 0), keepdims=True).shape == (1, 2, 1)


def test_norm_follows_torch() -> None:
    x = tensor([[3.0, 0.0], [0.0, 4.0]])
    for p in ("fro", None, 2):
        assert R.norm(x, p).item() == 5  # a number means all elements as one vector
    assert_close(R.norm(x, "nuc").item(), 7.0)
    assert_close(x.norm(p=1, dim=0), [3.0, 4.0])


@pytest.mark.parametrize("ord", [2, 1, 3, 1.5, 0.5, -1, INF, 0])
def test_norm_of_zeros_has_gradient_0(ord: float) -> None:
    x = tensor(np.zeros((2, 3)), requires_grad=True)
    assert_close(grad(R.sum(R.norm(x, ord, 1)), x)[0], np.zeros((2, 3)))


def test_high_orders_do_not_overflow() -> None:
    assert_close(R.norm(tensor([1e5, 1e5]), 20).item(), 1e5 * 2**0.05)
    assert R.norm(tensor([INF, 1.0]), 3).item() == INF
    assert math.isnan(R.norm(tensor([NAN, 1.0]), 3).item())


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (2, 4), (2, 3, 2)])
def test_matrix_norm_gradients(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    for ord in ("nuc", 2, -2, "fro"):
        gradcheck(lambda x, ord=ord: R.matrix_norm(x, ord), [x], order=2)


def test_nuclear_norm_of_equal_singular_values() -> None:
    gradcheck(lambda x: R.norm(x, "nuc"), [np.eye(3) * 2], order=2)


def test_third_derivative_of_singular_values_is_refused() -> None:
    x = tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    (g,) = grad(R.norm(x, "nuc"), x, create_graph=True)
    (gg,) = grad(R.sum(g * g), x, create_graph=True)
    with pytest.raises(GradientError, match="third derivative is not available"):
        grad(R.sum(gg), x)


def test_norm_messages() -> None:
    x = tensor(np.ones((2, 3)))
    with pytest.raises(OptionError, match="norm: expected p a number, 'fro' or 'nuc', got 'max'"):
        R.norm(x, "max")
    with pytest.raises(OptionError, match="vector_norm: expected a number as the order, got 'fro'"):
        R.vector_norm(x, "fro")
    with pytest.raises(OptionError, match="matrix_norm: expected ord one of 'fro', 'nuc', inf, "):
        R.matrix_norm(x, 3)
    with pytest.raises(DTypeError, match="norm: expected floating or complex values, got int64"):
        R.norm(tensor([1, 2]))
    with pytest.raises(ShapeError, match=r"svdvals: expected at least two axes, got shape \(1,\)"):
        R.svdvals(tensor([1.0]))
    with pytest.raises(AxisError, match=r"matrix_norm: expected two axes, as \(-2, -1\), got 0"):
        R.norm(x, "nuc", axis=0)


@pytest.mark.parametrize("best", ["max", "min"])
def test_pairs_of_values_and_places_as_pytorch_spells_them(best):
    x = tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 9.0]])
    place = getattr(R, f"arg{best}")(x, axis=1, keepdims=True)
    function = getattr(R, best)
    for values, places in (
        function(x, dim=1, keepdim=True),
        function(x, 1, keepdim=True),
        function(x, 1, True),
        getattr(x, best)(1, True),
    ):
        assert places.tolist() == place.tolist()
        assert values.tolist() == getattr(x.numpy(), best)(1, keepdims=True).tolist()
    for values, places in (function(x, 1), getattr(x, best)(-1), function(x, dim=1)):
        assert places.tolist() == place.squeeze(1).tolist()
        assert values.tolist() == getattr(x.numpy(), best)(1).tolist()
    # By NumPy's names the values come alone.
    assert function(x, axis=1).shape == (2,)
    assert function(x, 1, keepdims=True).shape == function(x, axis=1, keepdim=True).shape == (2, 1)
    assert function(x, (0, 1)).shape == function(x, None).shape == ()
