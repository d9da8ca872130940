"""`Tensor(…)`, `FloatTensor` and its kin: the constructors from before there were dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import DTypeError, OptionError

DTYPES = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16", "CharTensor": "int8", "ShortTensor": "int16",
    "IntTensor": "int32", "LongTensor": "int64", "ByteTensor": "uint8", "BoolTensor": "bool",
}  # fmt: skip


@pytest.mark.parametrize("data", [[1, 2], [True, False], np.array([1.0, 2.0]), gl.arange(2)])
def test_the_class_makes_the_default_dtype_of_anything(data):
    assert gl.Tensor(data).dtype == gl.float32
    assert gl.Tensor(data, dtype="int64").dtype == gl.int64


def test_the_class_makes_a_shape_of_sizes():
    assert gl.Tensor(2, 3).shape == (2, 3)
    assert gl.Tensor(np.int64(3)).shape == (3,)
    assert gl.Tensor().shape == (0,)
    assert gl.Tensor([]).shape == (0,)


@pytest.mark.parametrize("data", [(2, 3.0), ([1], [2]), (-1,), (2, True)])
def test_the_class_refuses_what_is_neither_values_nor_sizes(data):
    expected = "expected the values as one list, array or tensor, or the sizes as integers, got"
    with pytest.raises(OptionError, match=f"^Tensor: {expected}"):
        gl.Tensor(*data)


@pytest.mark.parametrize("name", DTYPES)
def test_a_type_makes_its_dtype_and_stands_for_it(name):
    kind = getattr(gl, name)
    assert kind([1, 0]).dtype == DTYPES[name]
    assert kind(2, 3).shape == (2, 3)
    assert isinstance(kind([1]), kind)
    assert not isinstance(gl.tensor([1j]), kind)
    x = gl.tensor([1, 0])
    for dtype in (kind, f"torch.{name}"):
        assert x.type(dtype).dtype == DTYPES[name]
        assert gl.zeros(2, dtype=dtype).dtype == DTYPES[name]


def test_the_default_type_is_the_default_dtype():
    for kind, name in ((gl.DoubleTensor, "float64"), ("torch.FloatTensor", "float32")):
        gl.set_default_tensor_type(kind)
        assert gl.ones(1).dtype == name
    with pytest.raises(DTypeError):
        gl.set_default_tensor_type(gl.LongTensor)
    with pytest.raises(OptionError, match="FloatTensor, DoubleTensor or another of these types"):
        gl.set_default_tensor_type(gl.float32)


def test_shapes_and_dtypes_have_a_class():
    x = gl.ones(2, 3)
    assert isinstance(x.shape, gl.Size)
    assert gl.Size([2, 3]) == x.shape
    assert isinstance(x.dtype, gl.dtype)


def test_a_variable_is_a_tensor():
    x = gl.ones(2)
    v = gl.autograd.Variable(x, requires_grad=True)
    (v * v).sum().backward()
    assert v.grad.tolist() == [2, 2]
    assert v.data_ptr() == x.data_ptr()
    assert not x.requires_grad
    with pytest.raises(DTypeError, match=r"^Variable: expected a tensor, got \[1\.0\]$"):
        gl.autograd.Variable([1.0])
