"""NumPy's ufuncs called on tensors: the function that computes them runs, and is recorded."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab.ops.core import _function_of_ufunc
from gradlab.testing import gradcheck

UFUNCS = {ufunc.__name__: ufunc for ufunc in vars(np).values() if isinstance(ufunc, np.ufunc)}
OURS = sorted(name for name in UFUNCS if _function_of_ufunc(name) is not None)


def arguments(ufunc: np.ufunc) -> tuple[np.ndarray, ...]:
    kind = np.float64 if any(each.startswith("d") for each in ufunc.types) else np.int64
    low = 1 if ufunc is np.arccosh else 0
    x1 = np.array([low + 0.25, low + 0.75, low + 0.5]).astype(kind) + (kind is np.int64)
    x2 = np.array([0.5, 0.25, 0.75]).astype(kind) + (kind is np.int64)
    return (x1, x2)[: ufunc.nin]


def test_what_is_ours():
    missing = (
        "bitwise_count cbrt copysign divmod fabs float_power fmax fmin frexp gcd isnat lcm ldexp "
        "logaddexp2 matvec modf nextafter spacing vecmat"
    )
    assert set(UFUNCS) - set(OURS) <= set(missing.split())
    # A ufunc that has a function of the same name here must not be refused.
    assert [n for n in UFUNCS if hasattr(gl, n) and n not in OURS] == []


@pytest.mark.parametrize("name", OURS)
def test_from_either_side(name):
    ufunc = UFUNCS[name]
    arrays = arguments(ufunc)
    expected = ufunc(*arrays)
    sides = [[gl.tensor(x) for x in arrays]]
    if ufunc.nin == 2:
        x1, x2 = arrays
        sides += [[x1, gl.tensor(x2)], [gl.tensor(x1), x2]]
    for inputs in sides:
        y = ufunc(*inputs)
        assert isinstance(y, gl.Tensor)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
        assert y.numpy().dtype == expected.dtype


@pytest.mark.parametrize("name", [name for name in OURS if UFUNCS[name].nin == 2])
def test_numpy_scalar_from_the_left(name):
    ufunc = UFUNCS[name]
    if name in ("matmul", "vecdot"):
        pytest.skip("NumPy has no product of a matrix and a number either")
    x1, x2 = arguments(ufunc)
    y = ufunc(x1[0], gl.tensor(x2))
    np.testing.assert_allclose(y.numpy(), ufunc(x1[0], x2), rtol=1e-12)


def test_division_from_the_left():
    assert (np.ones(3, np.float32) / gl.full((3,), 2.0)).tolist() == [0.5] * 3
    assert (np.float64(2) / gl.ones(3)).tolist() == [2.0] * 3
    assert (np.int64(7) // gl.tensor([2])).tolist() == [3]
    assert (np.float64(0.1) + gl.zeros(1, dtype=gl.float64)).item() == 0.1


def test_recorded():
    x = gl.tensor([3.0, 4.0], requires_grad=True)
    np.divide(np.array([1.0, 2.0], np.float32), x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [-1 / 9, -2 / 16], rtol=1e-6)
    assert gradcheck(lambda x: np.hypot(np.array([3.0, 1.0]), x), [gl.tensor([4.0, 2.0])])


def test_written_to_an_array():
    array = np.ones(3)
    array /= gl.full((3,), 2.0)
    assert array.tolist() == [0.5] * 3
    whole = np.ones(3, np.int64)
    with pytest.raises(gl.errors.DTypeError, match=r"np\.add.*float32.*int64"):
        whole += gl.full((3,), 0.5)
    assert whole.tolist() == [1] * 3


@pytest.mark.parametrize(
    "call", [lambda x: np.add.reduce(x), lambda x: np.cbrt(x), lambda x: np.add(x, x, where=False)]
)
def test_refused(call):
    with pytest.raises(gl.errors.DTypeError, match=r"np\.\w+.*numpy\(\)"):
        call(gl.ones(3))
