"""`cdist`: memory, the gradient at 0, messages. Its values: tests/parity/test_distances.py."""

from __future__ import annotations

import math
import tracemalloc

import pytest

import gradlab as gl
from gradlab.errors import DTypeError, OptionError, ShapeError
from refusals import refuses


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_memory_is_that_of_the_distances(p):
    # All differences at once take 50 times as much.
    x1, x2 = gl.rand(400, 50), gl.rand(500, 50)
    x1.requires_grad_()
    tracemalloc.start()
    gl.cdist(x1, x2, p).sum().backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 400 * 500 * 4


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_equal_rows_have_no_gradient(p):
    x = gl.rand(40, 3).requires_grad_()
    gl.cdist(x, x.detach(), p).diagonal().sum().backward()
    assert x.grad.tolist() == [[0, 0, 0]] * 40


def test_halves_do_not_overflow_on_the_way():
    x = gl.full((40, 4), 300.0, dtype="float16")
    assert gl.cdist(x, gl.zeros(40, 4, dtype="float16"))[0, 0].item() == 600


def test_refused():
    x = gl.ones(2, 3)
    with refuses(ShapeError, "cdist: expected rows of the same length, got shapes (2, 3) and (3,)"):
        gl.cdist(x, gl.ones(3))
    with refuses(ShapeError, "cdist: expected batches that broadcast"):
        gl.cdist(gl.ones(2, 2, 3), gl.ones(3, 2, 3))
    with refuses(OptionError, "cdist: expected p of 0 or more, got -1.0"):
        gl.cdist(x, x, -1.0)
    with refuses(OptionError, "cdist: expected p of 0 or more, got nan"):
        gl.cdist(x, x, math.nan)
    with refuses(DTypeError, "cdist: expected floating values, got int64"):
        gl.cdist(gl.ones(2, 2, dtype="int64"), gl.ones(2, 2, dtype="int64"))
