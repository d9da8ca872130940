"""Promotion beside PyTorch's; each difference has its reason."""

from __future__ import annotations

import itertools

import pytest

import gradlab as gl
from gradlab import dtypes
from gradlab.errors import DTypeError

torch = pytest.importorskip("torch")

NAMES = [dtype.name for dtype in dtypes.ALL]
SCALARS = [True, 1, 1.0, 1j]

# PyTorch promotes its wide unsigned integers with nothing but floats; the array API standard says
# what they give with other integers, and gradlab follows it.
WIDE_UNSIGNED = {"uint16", "uint32", "uint64"}
# PyTorch has a complex dtype of 32 bits, which neither NumPy nor the standard knows.
COMPLEX32 = {("float16", complex)}


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(NAMES, repeat=2)))
def test_promotion(first, second):
    try:
        theirs = name_of(torch.promote_types(getattr(torch, first), getattr(torch, second)))
    except RuntimeError:
        assert WIDE_UNSIGNED & {first, second}
        return
    a, b = dtypes.as_dtype(first), dtypes.as_dtype(second)
    if theirs == "float32" and {a.kind, b.kind} == {"i", "u"}:
        with pytest.raises(DTypeError):  # int64 with uint64
            dtypes.result_type(a, b)
        return
    assert dtypes.result_type(a, b).name == theirs


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_scalars(name, scalar):
    if (name, type(scalar)) in COMPLEX32:
        return
    x = torch.zeros(2, dtype=getattr(torch, name))
    theirs = name_of(torch.result_type(x, scalar))
    assert gl.result_type(gl.zeros(2, dtype=name), scalar).name == theirs


def test_tensors_without_axes():
    # In PyTorch a tensor without axes is as weak as a Python scalar. The array API standard, and so
    # gradlab, treats it as any other: the dtype of a result does not depend on shapes.
    one = torch.tensor(1.0, dtype=torch.float64)
    assert (torch.zeros(2) + one).dtype == torch.float32
    assert (gl.zeros(2) + gl.tensor(1.0, dtype="float64")).dtype == gl.float64
