"""The dtypes of gradlab, their promotion, and the default dtype.

A dtype is a NumPy dtype, so it goes into NumPy and CuPy calls as it is; ``bfloat16`` comes
from `ml_dtypes <https://github.com/jax-ml/ml_dtypes>`_. Promotion follows the Python array API
standard [1]_ where the standard defines it. Where it leaves the result open, gradlab does what
PyTorch does: a floating dtype wins over an integer one and keeps its own width.

.. [1] https://data-apis.org/array-api/latest/API_specification/type_promotion.html
"""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from gradlab.errors import DTypeError, message

DType = np.dtype
Scalar = bool | int | float | complex

bool_ = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{bits}") for bits in (16, 32, 64))
bfloat16 = np.dtype(ml_dtypes.bfloat16)
complex64, complex128 = np.dtype("complex64"), np.dtype("complex128")

SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
INTEGERS = SIGNED + UNSIGNED
HALVES = (float16, bfloat16)
FLOATS = (float16, bfloat16, float32, float64)
COMPLEX = (complex64, complex128)
ALL = (bool_, *INTEGERS, *FLOATS, *COMPLEX)

_BY_NAME: dict[Any, DType] = {dtype.name: dtype for dtype in ALL} | {
    bool: bool_,
    int: int64,
    float: float64,
    complex: complex128,
    "half": float16,
    "float": float32,
    "double": float64,
    "long": int64,
    "int": int32,
    # PyTorch's older names, of which `gradlab.FloatTensor` and its kin are the constructors.
    "torch.FloatTensor": float32,
    "torch.DoubleTensor": float64,
    "torch.HalfTensor": float16,
    "torch.BFloat16Tensor": bfloat16,
    "torch.CharTensor": int8,
    "torch.ShortTensor": int16,
    "torch.IntTensor": int32,
    "torch.LongTensor": int64,
    "torch.ByteTensor": uint8,
    "torch.BoolTensor": bool_,
}
_KNOWN = frozenset(ALL)
_default = float32


def get_default_dtype() -> DType:
    """The floating dtype that Python floats and factories such as ``zeros`` take."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Make ``dtype`` (float16, bfloat16, float32 or float64) the default floating dtype.

    >>> set_default_dtype(float64); set_default_dtype(float32)
    """
    global _default
    wanted = as_dtype(dtype)
    if wanted not in FLOATS:
        raise DTypeError(message("set_default_dtype", expected="a floating dtype", got=wanted.name))
    _default = wanted
    _forget_promotions()


_caches_to_clear: list[Any] = []


def _forget_promotions() -> None:
    # The default dtype is baked into every remembered promotion (int / int -> default float).
    for clear in _caches_to_clear:
        clear()


def as_dtype(dtype: Any) -> DType:
    """Return the dtype that ``dtype`` names: a dtype, its name, or a Python scalar type.

    Python's ``float`` and ``complex`` name the 64-bit dtypes, as in NumPy and PyTorch.

    >>> as_dtype("bfloat16").name, as_dtype(float).name
    ('bfloat16', 'float64')
    """
    try:
        known = _BY_NAME.get(getattr(dtype, "dtype", dtype))  # a FloatTensor stands for its dtype
        # np.dtype(None) would be float64.
        found: Any = np.dtype(dtype) if known is None and dtype is not None else known
    except TypeError:
        found = None
    if found not in _KNOWN:
        names = ", ".join(each.name for each in ALL)
        raise DTypeError(message("dtype", expected=f"one of {names}", got=repr(dtype)))
    # One object per dtype: the dispatcher's table is keyed by identity-equal dtypes.
    return _BY_NAME[found.name]


def is_floating(dtype: DType) -> bool:
    return dtype in FLOATS


def is_complex(dtype: DType) -> bool:
    return dtype in COMPLEX


def is_integer(dtype: DType) -> bool:
    """True for the signed and unsigned integers, False for bool."""
    return dtype in INTEGERS


def scalar_dtype(kind: type) -> DType:
    """The dtype a Python scalar becomes when no tensor decides for it."""
    if kind is float:
        return _default
    if kind is complex:
        return complex128 if _default == float64 else complex64
    return as_dtype(kind)


def result_type(*kinds: DType | type) -> DType:
    """Return the common dtype of dtypes and weak Python scalar types.

    A Python scalar takes the dtype of the tensors unless it is of a higher kind
    (bool < integer < floating < complex), as in the array API standard.

    >>> result_type(float32, int64).name, result_type(int8, float).name
    ('float32', 'float32')
    """
    strong = [kind for kind in kinds if isinstance(kind, np.dtype)]
    if len(strong) > 2:  # so that the order does not matter: float32 decides for int64 and uint64
        strong.sort(key=_level, reverse=True)
    weak = [kind for kind in kinds if not isinstance(kind, np.dtype)]
    if not strong:
        return scalar_dtype(max(weak, key=(bool, int, float, complex).index))
    result = strong[0]
    for dtype in strong[1:]:
        result = _promote(result, dtype)
    for kind in weak:
        result = _promote_weak(result, kind)
    return result


def _level(dtype: DType) -> int:
    return 0 if dtype == bool_ else 1 if dtype in INTEGERS else 2 if dtype in FLOATS else 3


@cache
def _promote(a: DType, b: DType) -> DType:
    if a == b:
        return a
    low, high = sorted((a, b), key=_level)
    if _level(low) < _level(high):
        # complex64 holds float32 at most; every other higher kind keeps its own width.
        return complex128 if high == complex64 and low == float64 else high
    if bfloat16 in (a, b):  # neither half holds the other
        other = a if b == bfloat16 else b
        return float32 if other == float16 else other
    result = np.promote_types(a, b)
    if _level(result) != _level(a):  # uint64 with a signed integer
        raise DTypeError(
            message(
                "promotion",
                expected="integers with a common integer dtype",
                got=f"{a.name} and {b.name}",
                hint="cast one of them with .astype(...)",
            )
        )
    return result


def _promote_weak(dtype: DType, kind: type) -> DType:
    if (bool, int, float, complex).index(kind) <= _level(dtype):
        return dtype
    if kind is complex and _level(dtype) == 2:
        return complex128 if dtype == float64 else complex64
    return scalar_dtype(kind)


def default_for(value_dtype: DType) -> DType:
    """The dtype a NumPy value made of Python numbers takes: float64 becomes the default."""
    if value_dtype == float64:
        return _default
    if value_dtype == complex128:
        return scalar_dtype(complex)
    return as_dtype(value_dtype)


class finfo:
    """Limits of a floating dtype: ``eps``, ``max``, ``min``, ``tiny``, ``bits``.

    >>> finfo(float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = as_dtype(dtype)
        if _level(self.dtype) < 2:
            raise DTypeError(message("finfo", expected="a floating dtype", got=self.dtype.name))
        info: Any = (ml_dtypes if self.dtype == bfloat16 else np).finfo(self.dtype)
        self.bits = int(info.bits)
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)


class iinfo:
    """Limits of an integer dtype: ``max``, ``min``, ``bits``.

    >>> iinfo(int8).max
    127
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = as_dtype(dtype)
        if self.dtype not in INTEGERS:
            raise DTypeError(message("iinfo", expected="an integer dtype", got=self.dtype.name))
        info = np.iinfo(self.dtype)
        self.bits, self.max, self.min = info.bits, int(info.max), int(info.min)
