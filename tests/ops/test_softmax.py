"""Softmax beyond what the registry's checks cover: extremes, short rows, errors."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab import dtypes
from gradlab.errors import AxisError, DTypeError
from gradlab.ops import softmax as S
from gradlab.ops.creation import tensor
from gradlab.testing import assert_close, gradcheck


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


def naive(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# Around the widths and heights where rows start to be gone through as columns.
@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 300])
@pytest.mark.parametrize("columns", [1, 2, 31, 32, 33, 300])
def test_every_way_through_a_matrix(rows, columns):
    x = random(rows, columns)
    for axis in (0, 1):
        assert_close(S.softmax(tensor(x), axis), naive(x, axis))
        assert_close(S.log_softmax(tensor(x), axis), np.log(naive(x, axis)))


@pytest.mark.parametrize("rows", [3, 100])
def test_short_rows_have_right_gradients(rows):
    for function in (S.softmax, S.log_softmax, S.softmin):
        assert gradcheck(lambda x, f=function: f(x, -1), random(rows, 3), order=2, rtol=1e-5)


@pytest.mark.parametrize("rows", [2, 100])
def test_large_values_do_not_overflow(rows):
    x = np.tile([[1e4, 0.0, -1e4]], (rows, 1)).astype(np.float32)
    assert S.softmax(tensor(x))[0].tolist() == [1, 0, 0]
    assert S.log_softmax(tensor(x))[0].tolist() == [0, -1e4, -2e4]


def test_masked_rows():
    x = np.array([[-np.inf, 0.0, 0.0], [-np.inf] * 3])
    y = S.softmax(tensor(x)).numpy()
    assert y[0].tolist() == [0, 0.5, 0.5]
    assert np.isnan(y[1]).all()


def test_dtypes():
    assert S.softmax(tensor([1, 2])).dtype == dtypes.float32
    assert S.softmax(tensor([1.0]), dtype="float64").dtype == dtypes.float64
    assert S.softmax(tensor([1.0], dtype="bfloat16")).dtype == dtypes.bfloat16
    with pytest.raises(DTypeError, match="softmax: expected bool or integer or floating values"):
        S.softmax(tensor([1j]))


def test_a_list_and_a_scalar():
    assert S.softmax([0.0, 0.0]).tolist() == [0.5, 0.5]
    assert S.softmax(tensor(3.0)).item() == 1
    assert S.softmin(tensor([0.0, 1e4]), dim=0).tolist() == [1, 0]


def test_axis_out_of_range():
    with pytest.raises(AxisError, match="log_softmax: expected an axis from -2 to 1"):
        S.log_softmax(tensor(random(2, 3)), 2)
