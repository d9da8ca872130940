"""The constructors that PyTorch had before there were dtypes: `FloatTensor` and its kin."""

from __future__ import annotations

from typing import Any

from gradlab import dtypes
from gradlab.dtypes import DType
from gradlab.errors import OptionError, message
from gradlab.tensor import Tensor


class TensorType(type):
    """The tensors of one dtype on the CPU: called, it makes one; ``isinstance`` tells one.

    ``FloatTensor([1, 2])`` holds these values, ``FloatTensor(2, 3)`` is of that shape and holds
    whatever the memory held. In place of a dtype, as in ``x.type(FloatTensor)``, it stands for its
    own.

    >>> FloatTensor([1, 2])
    tensor([1., 2.])
    >>> isinstance(gl.tensor([1, 2]), LongTensor)
    True
    """

    dtype: DType

    def __call__(cls, *data: Any) -> Tensor:
        return Tensor(*data, dtype=cls.dtype)

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, Tensor) and x.dtype == cls.dtype and not x.is_cuda


def _of(name: str) -> TensorType:
    return TensorType(name, (), {"dtype": dtypes.as_dtype(f"torch.{name}")})


FloatTensor, DoubleTensor = _of("FloatTensor"), _of("DoubleTensor")
HalfTensor, BFloat16Tensor = _of("HalfTensor"), _of("BFloat16Tensor")
CharTensor, ShortTensor, IntTensor = _of("CharTensor"), _of("ShortTensor"), _of("IntTensor")
LongTensor, ByteTensor, BoolTensor = _of("LongTensor"), _of("ByteTensor"), _of("BoolTensor")


def set_default_tensor_type(kind: TensorType | str) -> None:
    """Make the dtype of ``FloatTensor``, ``DoubleTensor``, … the default floating dtype.

    PyTorch's older name of `set_default_dtype`; ``kind`` may be a string, "torch.DoubleTensor".

    >>> set_default_tensor_type(DoubleTensor)
    >>> gl.tensor([1.0])
    tensor([1.])
    >>> gl.tensor([1.0]).dtype.name
    'float64'
    >>> set_default_tensor_type(FloatTensor)
    """
    if not isinstance(kind, TensorType | str):
        expected = "FloatTensor, DoubleTensor or another of these types"  # type: ignore[unreachable]
        raise OptionError(message("set_default_tensor_type", expected=expected, got=repr(kind)))
    dtypes.set_default_dtype(dtypes.as_dtype(kind))
