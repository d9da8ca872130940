"""nn.init: distributions, formulas, streams, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import OptionError, ShapeError
from gradlab.nn import init
from refusals import refuses


def filled(fill, shape=(200, 300), **options) -> np.ndarray:
    x = gl.empty(*shape)
    assert fill(x, generator=gl.Generator(0), **options) is x
    return x.numpy()


def assert_uniform(values: np.ndarray, bound: float) -> None:
    assert abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values).max() > 0.99 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert values.mean() == pytest.approx(0, abs=0.02 * bound)


def assert_normal(values: np.ndarray, std: float) -> None:
    assert values.std() == pytest.approx(std, rel=0.02)
    assert values.mean() == pytest.approx(0, abs=0.02 * std)
    assert (abs(values) < std).mean() == pytest.approx(0.6827, abs=0.01)


def test_uniform_and_normal():
    values = filled(init.uniform_, a=2.0, b=4.0)
    assert_uniform(values - 3, 1.0)
    assert_normal(filled(init.normal_, mean=1.0, std=0.5) - 1, 0.5)


def test_glorot():
    assert_uniform(filled(init.xavier_uniform_, gain=2.0), 2 * math.sqrt(6 / 500))
    assert_normal(filled(init.xavier_normal_), math.sqrt(2 / 500))


def test_he():
    assert_uniform(filled(init.kaiming_uniform_), math.sqrt(6 / 300))
    assert_uniform(filled(init.kaiming_uniform_, a=math.sqrt(5)), 1 / math.sqrt(300))
    assert_uniform(
        filled(init.kaiming_uniform_, mode="fan_out", nonlinearity="linear"), math.sqrt(3 / 200)
    )
    assert_normal(filled(init.kaiming_normal_, nonlinearity="relu"), math.sqrt(2 / 300))
    assert_normal(
        filled(init.kaiming_normal_, shape=(20, 30, 5, 5), nonlinearity="relu"),
        math.sqrt(2 / 750),
    )


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (0.5, 1.0), (9.0, 10.0), (-40.0, -9.0)])
def test_truncated_normal(bounds):
    from scipy.stats import truncnorm

    a, b = bounds
    values = filled(init.trunc_normal_, a=a, b=b)
    assert values.min() >= a
    assert values.max() <= b
    expected = truncnorm(a, b)
    assert values.mean() == pytest.approx(expected.mean(), abs=0.02 * expected.std())
    assert values.std() == pytest.approx(expected.std(), rel=0.03)


def test_truncated_normal_scales_and_degenerates():
    values = filled(init.trunc_normal_, mean=3.0, std=2.0, a=1.0, b=5.0)
    assert values.mean() == pytest.approx(3, abs=0.02)
    assert filled(init.trunc_normal_, mean=9.0, std=0.0, a=1.0, b=5.0).max() == 5


def test_constants():
    x = gl.empty(2, 3)
    assert init.constant_(x, 7.0).tolist() == [[7.0] * 3] * 2
    assert init.zeros_(x).tolist() == [[0.0] * 3] * 2
    assert init.ones_(x).tolist() == [[1.0] * 3] * 2
    assert init.eye_(x).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 3, 2)])
def test_orthogonal(shape):
    q = filled(init.orthogonal_, shape=shape, gain=2.0).reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, 4 * np.eye(min(q.shape)), atol=1e-5)


def test_sparse():
    values = filled(init.sparse_, shape=(10, 40), sparsity=0.25)
    assert ((values == 0).sum(0) == 3).all()  # ⌈0.25 · 10⌉
    assert values[values != 0].std() == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize(
    "fill",
    [init.uniform_, init.normal_, init.trunc_normal_, init.xavier_uniform_, init.orthogonal_],
    ids=lambda fill: fill.__name__,
)
def test_streams(fill):
    """The same generator gives the same numbers, the default one is seeded by manual_seed."""
    np.testing.assert_array_equal(filled(fill, (20, 30)), filled(fill, (20, 30)))
    made = []
    for _ in range(2):
        gl.manual_seed(5)
        made.append(fill(gl.empty(3, 4)).tolist())
    assert made[0] == made[1] != fill(gl.empty(3, 4)).tolist()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_and_parameters(dtype):
    p = nn.Parameter(gl.empty(30, 40, dtype=dtype))
    address = p.data_ptr()
    for fill in (init.xavier_normal_, init.trunc_normal_, init.orthogonal_, init.eye_):
        assert fill(p) is p
        assert p.dtype.name == dtype
        assert p.data_ptr() == address
        assert p.requires_grad
        assert p.is_leaf


def test_empty_tensors():
    for fill in (init.kaiming_uniform_, init.orthogonal_, init.normal_, init.xavier_normal_):
        assert fill(gl.empty(0, 3)).shape == (0, 3)


def test_gains():
    assert init.calculate_gain("linear") == init.calculate_gain("conv_transpose2d") == 1
    assert init.calculate_gain("tanh") == pytest.approx(5 / 3)
    assert init.calculate_gain("leaky_relu") == pytest.approx(math.sqrt(2 / (1 + 1e-4)))


def test_refused():
    x = gl.empty(3)
    with refuses(
        ShapeError, "xavier_uniform_: expected a tensor of 2 axes or more, got shape (3,)"
    ):
        init.xavier_uniform_(x)
    with refuses(ShapeError, "eye_: expected a tensor of 2 axes, got shape (2, 2, 2)"):
        init.eye_(gl.empty(2, 2, 2))
    with refuses(ShapeError, "orthogonal_: expected a tensor of 2 axes or more, got shape (3,)"):
        init.orthogonal_(x)
    with refuses(
        OptionError, "kaiming_uniform_: expected mode one of 'fan_in', 'fan_out', got 'in"
    ):
        init.kaiming_uniform_(gl.empty(2, 2), mode="in")
    with refuses(OptionError, "calculate_gain: expected nonlinearity one of"):
        init.kaiming_normal_(gl.empty(2, 2), nonlinearity="step")
    with refuses(OptionError, "calculate_gain: expected a number as slope, got True"):
        init.calculate_gain("leaky_relu", True)
    with refuses(OptionError, "normal_: expected a std of 0 or more, finite in float32, got -1"):
        init.normal_(x, std=-1)
    with refuses(OptionError, "uniform_: expected low <= high, finite"):
        init.uniform_(x, 1, 0)
    with refuses(
        OptionError, "trunc_normal_: expected a <= b, and float32 numbers between, got a=1 and b=0"
    ):
        init.trunc_normal_(x, a=1, b=0)
    with refuses(OptionError, "sparse_: expected sparsity from 0 to 1, got 2"):
        init.sparse_(gl.empty(2, 2), 2)


def test_dir_lists_what_is_there_to_use():
    assert dir(nn.init) == sorted(nn.init.__all__)
