"""Special functions beyond what every op is tested for: their ends, and their message."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import special

import gradlab as gl
from gradlab.errors import OptionError

X = np.array([-math.inf, -1.5, -1.0, 0.0, 0.5, 30.0, math.inf, math.nan])


def test_at_poles_and_infinity():
    x = gl.tensor(X)
    np.testing.assert_allclose(gl.lgamma(x).numpy(), special.gammaln(X))
    np.testing.assert_allclose(gl.digamma(x).numpy(), special.digamma(X))
    assert gl.erfinv(gl.tensor([-1.0, 1.0, 1.5])).tolist()[:2] == [-math.inf, math.inf]
    assert math.isnan(gl.erfinv(gl.tensor(1.5)).item())


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_polygamma(n):
    x = X[4:6]
    np.testing.assert_allclose(gl.polygamma(n, gl.tensor(x)).numpy(), special.polygamma(n, x))


@pytest.mark.parametrize("n", [-1, 171, 1.0, True, None])
def test_the_order_of_polygamma(n):
    with pytest.raises(OptionError) as caught:
        gl.polygamma(n, 1.0)
    assert str(caught.value) == f"polygamma: expected an integer n from 0 to 170, got {n!r}"


def test_erfinv_where_it_has_no_value_takes_no_time():
    # SciPy takes 5 µs for each such value: 1 s for these.
    x = gl.full((200_000,), 2.0)
    start = time.process_time()
    y = gl.erfinv(x)
    assert time.process_time() - start < 0.5
    assert y.isnan().all()
