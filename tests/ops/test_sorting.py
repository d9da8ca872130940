"""Sorting and what rests on it, against NumPy; ties, NaN, nothing, and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gradlab import dtypes
from gradlab.autograd import grad
from gradlab.errors import AxisError, DTypeError, OptionError, ShapeError
from gradlab.ops import sorting as S
from gradlab.ops.creation import from_numpy, tensor
from gradlab.testing import assert_close, gradcheck

INF, NAN = math.inf, math.nan


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """An array with ties, in some layout, and an axis of it."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))
    x = np.random.default_rng(draw(st.integers(0, 99))).integers(-4, 5, shape) * 0.5
    if draw(st.booleans()):
        x = np.asfortranarray(x)
    if draw(st.booleans()):
        x = x[..., ::-1]
    return x, draw(st.integers(-len(shape), len(shape) - 1))


def descending(x: np.ndarray, axis: int) -> np.ndarray:
    return np.flip(np.sort(x, axis), axis)


# ---------------------------------------------------------------------------------------- sort


@given(case=cases(), reverse=st.booleans(), stable=st.booleans())
def test_sort(case: tuple[np.ndarray, int], reverse: bool, stable: bool) -> None:
    x, axis = case
    y, indices = S.sort(from_numpy(x), axis, descending=reverse, stable=stable)
    assert_close(y, descending(x, axis) if reverse else np.sort(x, axis))
    assert indices.dtype == dtypes.int64
    assert_close(y, np.take_along_axis(x, indices.numpy(), axis))
    order = S.argsort(from_numpy(x), axis, reverse, stable)
    assert_close(order, indices)
    if stable:
        key = -x if reverse else x
        assert_close(order, np.argsort(key, axis=axis, kind="stable"))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1023, 1024, 1025])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "bool", "uint64"])
def test_sort_dtypes(size: int, dtype: str) -> None:
    x = tensor(np.random.default_rng(0).integers(0, 100, size), dtype=dtype)
    y, indices = x.sort()
    assert y.dtype == x.dtype
    assert_close(y.double(), np.sort(x.double().numpy()))
    assert np.array_equal(np.sort(indices.numpy()), np.arange(size))


def test_nan_is_largest() -> None:
    x = tensor([1.0, NAN, -INF, INF])
    assert_close(S.sort(x).values, [-INF, 1.0, INF, NAN], equal_nan=True)
    assert_close(S.sort(x, descending=True).values, [NAN, INF, 1.0, -INF], equal_nan=True)
    assert_close(S.topk(x, 2).values, [NAN, INF], equal_nan=True)
    assert_close(S.topk(x, 3, largest=False).values, [-INF, 1.0, INF])
    assert math.isnan(S.kthvalue(x, 4).values.item())


def test_scalars() -> None:
    x = tensor(3.0)
    assert S.sort(x).values.shape == S.sort(x).indices.shape == ()
    assert S.argsort(x, 0).item() == 0
    assert S.topk(x, 1).values.shape == ()
    assert S.median(x).item() == S.quantile(x, 0.3).item() == 3
    assert S.kthvalue(x, 1, keepdims=True).values.shape == ()
    assert S.unique(x).tolist() == [3]


def test_names() -> None:
    x = tensor([[2.0, 1.0], [3.0, 4.0]])
    found = x.sort(dim=0, descending=True)
    assert found.values.tolist() == [[3, 4], [2, 1]]
    assert found.indices.tolist() == [[1, 1], [0, 0]]
    assert x.topk(1, dim=0).indices.tolist() == [[1, 1]]
    assert x.kthvalue(1, dim=1, keepdim=True).values.tolist() == [[1], [3]]
    assert x.median(dim=1, keepdim=True).values.tolist() == [[1], [3]]
    assert x.argsort(dim=1).tolist() == [[1, 0], [0, 1]]
    assert S.sort([3, 1, 2]).values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["sort", "argsort", "median"])
def test_axis_out_of_range(name: str) -> None:
    with pytest.raises(AxisError, match=rf"{name}: expected an axis from -1 to 0, .*, got 1"):
        getattr(S, name)(tensor([1.0]), axis=1)


def test_complex_values_have_no_order() -> None:
    with pytest.raises(DTypeError, match="argsort: expected bool or integer or floating values"):
        S.sort(tensor([1j]))


# ----------------------------------------------------------------------- top-k, order statistics


@given(case=cases(), largest=st.booleans(), ordered=st.booleans(), data=st.data())
def test_topk(case: tuple[np.ndarray, int], largest: bool, ordered: bool, data: Any) -> None:
    x, axis = case
    k = data.draw(st.integers(0, x.shape[axis]))
    y, indices = S.topk(from_numpy(x), k, axis, largest, ordered)
    best = descending(x, axis) if largest else np.sort(x, axis)
    expected = np.take(best, np.arange(k), axis)
    assert_close(y, np.take_along_axis(x, indices.numpy(), axis))
    assert_close(y if ordered else np.sort(y.numpy(), axis),
                 expected if ordered else np.sort(expected, axis))  # fmt: skip


@given(case=cases(), data=st.data())
def test_kthvalue(case: tuple[np.ndarray, int], data: Any) -> None:
    x, axis = case
    if not x.shape[axis]:
        return
    k = data.draw(st.integers(1, x.shape[axis]))
    y, index = S.kthvalue(from_numpy(x), k, axis, keepdims=True)
    assert_close(y, np.take(np.sort(x, axis), [k - 1], axis))
    assert_close(y, np.take_along_axis(x, index.numpy(), axis))


@pytest.mark.parametrize("k", [-1, 4])
def test_topk_beyond_the_axis(k: int) -> None:
    with pytest.raises(ShapeError, match=f"topk: expected k from 0 to 3, .* axis 0, got {k}"):
        S.topk(tensor([1.0, 2.0, 3.0]), k)


def test_rank_messages() -> None:
    with pytest.raises(ShapeError, match="kthvalue: expected k from 1 to 2, the size of axis 0, g"):
        S.kthvalue(tensor([1.0, 2.0]), 0)
    with pytest.raises(OptionError, match=r"topk: expected an integer k, got 1\.5"):
        S.topk(tensor([1.0, 2.0]), 1.5)
    with pytest.raises(ShapeError, match=r"median: expected at least one element to choose from, "):
        S.median(tensor(np.ones((0, 3))))
    with pytest.raises(ShapeError, match=r"got shape \(0, 3\) along axis 0"):
        S.median(tensor(np.ones((0, 3))), 0)


@pytest.mark.parametrize("shape", [(5,), (4,), (3, 4), (2, 3, 5)])
def test_median(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    for axis in (None, 0, -1):
        y = S.median(from_numpy(x), axis=axis)
        expected = np.quantile(x, 0.5, axis=axis, method="inverted_cdf")
        assert_close(y, expected)
        assert (
            S.median(from_numpy(x), axis=axis, keepdims=True).shape
            == np.sum(x, axis=axis, keepdims=True).shape
        )


def test_median_and_its_place_as_pytorch_spells_them() -> None:
    x = tensor([[4.0, 1.0, 3.0], [5.0, 6.0, 7.0]])
    for found in (S.median(x, 1), S.median(x, dim=1), x.median(-1)):
        assert [each.tolist() for each in found] == [[3, 6], [2, 1]]
    assert x.median(1, True).indices.tolist() == [[2], [1]]
    assert tensor(2.0).median(0) == (2, 0)


def test_median_of_nan() -> None:
    x = tensor([[1.0, NAN, 3.0], [1.0, 2.0, 3.0]])
    assert_close(S.median(x, axis=1), [NAN, 2.0], equal_nan=True)
    assert math.isnan(S.median(x).item())
    assert_close(S.quantile(x, 0.1, 1), [NAN, 1.2], equal_nan=True)


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "nearest", "midpoint"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_quantile(method: str, keepdims: bool) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for axis in (None, 0, 1, -1):
        for q in (0.0, 0.3, 1.0, [0.1, 0.5, 0.9]):
            y = S.quantile(from_numpy(x), q, axis, keepdims, interpolation=method)
            expected = np.quantile(x, q, axis=axis, keepdims=keepdims, method=method)
            assert_close(y, expected)


def test_quantile_of_infinities() -> None:
    x = tensor([-INF, 1.0, INF])
    assert S.quantile(x, 0.5).item() == 1
    assert S.quantile(x, 0.25).item() == -INF
    assert S.quantile(x, tensor([0.0, 1.0])).tolist() == [-INF, INF]


def test_quantile_messages() -> None:
    x = tensor([1.0, 2.0])
    with pytest.raises(OptionError, match=r"quantile: expected q a number or vector within \[0, 1"):
        S.quantile(x, 1.5)
    with pytest.raises(OptionError, match="quantile: expected interpolation one of 'linear', "):
        S.quantile(x, 0.5, interpolation="cubic")
    with pytest.raises(DTypeError, match="quantile: expected floating values, got int64; cast"):
        S.quantile(tensor([1, 2]), 0.5)


# ------------------------------------------------------------------------------- gradients


def test_gradients_go_to_where_values_came_from() -> None:
    x = tensor([3.0, 1.0, 2.0], requires_grad=True)
    weights = tensor([1.0, 10.0, 100.0])
    assert grad((S.sort(x).values * weights).sum(), x)[0].tolist() == [100, 1, 10]
    assert grad((S.topk(x, 2).values * weights[:2]).sum(), x)[0].tolist() == [1, 0, 10]
    assert grad(S.kthvalue(x, 2).values, x)[0].tolist() == [0, 0, 1]
    assert grad(S.median(x), x)[0].tolist() == [0, 0, 1]
    assert grad(S.quantile(x, 0.75), x)[0].tolist() == [0.5, 0, 0.5]
    assert not S.sort(x).indices.requires_grad


def test_gradients() -> None:
    x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) * 0.1
    functions = {
        "sort": lambda x: S.sort(x, 1, descending=True).values,
        "topk": lambda x: S.topk(x, 2, 0).values,
        "kthvalue": lambda x: S.kthvalue(x, 2, -1).values,
        "median": lambda x: S.median(x, axis=1),
        "quantile": lambda x: S.quantile(x, [0.2, 0.6], 2),
        "unique": lambda x: S.unique(x),
    }
    for function in functions.values():
        gradcheck(function, [x], order=2)


# ---------------------------------------------------------------------------------- unique


def test_unique() -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, 3))
    found = S.unique_all(from_numpy(x))
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True
    )
    assert_close(found.values, values)
    assert_close(found.indices, first)
    assert_close(found.inverse_indices, inverse.reshape(x.shape))
    assert_close(found.counts, counts)
    assert_close(found.values.numpy()[found.inverse_indices.numpy()], x)


def test_unique_options() -> None:
    x = tensor([[3, 1], [1, 1]])
    assert x.unique().tolist() == [1, 3]
    values, inverse = S.unique(x, return_inverse=True)
    assert inverse.tolist() == [[1, 0], [0, 0]]
    values, inverse, counts = S.unique(x, return_inverse=True, return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([1, 3], [3, 1])
    assert S.unique_counts(x).counts.tolist() == [3, 1]
    assert S.unique_inverse(x).inverse_indices.shape == (2, 2)
    assert S.unique_values(x).dtype == dtypes.int64


def test_unique_slices() -> None:
    x = tensor([[1, 2], [0, 5], [1, 2]])
    values, inverse, counts = S.unique(x, return_inverse=True, return_counts=True, dim=0)
    assert values.tolist() == [[0, 5], [1, 2]]
    assert inverse.tolist() == [1, 0, 1]
    assert counts.tolist() == [1, 2]
    assert S.unique(x.T, axis=-1).tolist() == [[0, 1], [5, 2]]


def test_every_nan_is_unique() -> None:
    assert S.unique(tensor([NAN, 1.0, NAN])).numel() == 3
    assert S.unique(tensor(np.zeros((0, 2)))).shape == (0,)


# ------------------------------------------------------------------------ binary search, counts


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: str) -> None:
    edges = np.array([1.0, 3.0, 3.0, 5.0])
    values = np.array([[0.0, 1.0, 3.0], [4.0, 5.0, NAN]])
    y = S.searchsorted(from_numpy(edges), from_numpy(values), side)
    assert_close(y, np.searchsorted(edges, values, side))
    assert y.dtype == dtypes.int64
    assert S.searchsorted(from_numpy(edges), 3, side).item() == (1 if side == "left" else 3)
    assert S.bucketize(3.0, from_numpy(edges), right=side == "right").shape == ()


def test_searchsorted_in_rows() -> None:
    rows = tensor([[1, 3, 5], [2, 4, 6]])
    wanted = tensor([[3, 6], [3, 6]])
    assert S.searchsorted(rows, wanted).tolist() == [[1, 3], [1, 2]]
    assert S.searchsorted(rows, wanted, right=True).tolist() == [[2, 3], [1, 3]]
    with pytest.raises(ShapeError, match=r"searchsorted: .* got shapes \(2, 3\) and \(3,\)"):
        S.searchsorted(rows, tensor([1, 2, 3]))
    with pytest.raises(OptionError, match="searchsorted: expected side one of 'left', 'right'"):
        S.searchsorted(rows, wanted, side="middle")


def test_bincount() -> None:
    x = np.random.default_rng(0).integers(0, 9, 200)
    assert_close(S.bincount(from_numpy(x)), np.bincount(x))
    assert S.bincount(from_numpy(x), minlength=20).shape == (20,)
    assert S.bincount(tensor([], dtype="int64")).shape == (0,)
    weights = np.random.default_rng(1).random(200)
    assert_close(S.bincount(from_numpy(x), from_numpy(weights)), np.bincount(x, weights))
    assert S.bincount(from_numpy(x), tensor(weights, dtype="float32")).dtype == dtypes.float32
    assert S.bincount(tensor([1, 1]), tensor([2, 3])).tolist() == [0, 5]
    assert tensor([1, 1], dtype="uint8").bincount().tolist() == [0, 2]


def test_bincount_gradient() -> None:
    x = tensor([1, 3, 1])
    gradcheck(lambda w: S.bincount(x, w), [np.array([0.5, 1.0, 2.0])], order=2)


def test_bincount_messages() -> None:
    with pytest.raises(OptionError, match="bincount: expected numbers of 0 or more, got -2"):
        S.bincount(tensor([1, -2]))
    with pytest.raises(DTypeError, match="bincount: expected integers, got float32"):
        S.bincount(tensor([1.0]))
    with pytest.raises(ShapeError, match=r"bincount: expected a vector, got shape \(1, 2\)"):
        S.bincount(tensor([[1, 2]]))
    with pytest.raises(ShapeError, match=r"bincount: expected weights of shape \(2,\), got \(3,\)"):
        S.bincount(tensor([1, 2]), tensor([1.0, 2.0, 3.0]))
    with pytest.raises(OptionError, match="bincount: expected minlength of 0 or more, got -1"):
        S.bincount(tensor([1]), minlength=-1)
