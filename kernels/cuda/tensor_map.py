"""Tensor maps: how the bulk copy engine of compute capability 9.0 is told what a matrix looks like.

The driver encodes them (``cuTensorMapEncodeTiled``), into 128 bytes that a kernel takes by value.
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TENSOR__MEMORY.html
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

# CUtensorMapDataType, and the other choices: no interleaving, the 128-byte swizzle, lines of 128
# bytes brought to L2, zeros for what is outside.
_TYPES = {"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9}
_INTERLEAVE_NONE, _SWIZZLE_128B, _L2_128B, _FILL_ZEROS = 0, 3, 2, 0


def encode(
    address: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
) -> np.ndarray:
    """The map of an array of up to 5 axes, as 16 words of 64 bits.

    ``shape`` is in elements and ``strides`` in bytes, both from the innermost axis (the one of
    stride 1) outwards; ``strides`` leaves that one out. The address and the strides are multiples
    of 16. A copy moves ``box`` elements of each axis, 128 bytes at most of the innermost.
    """
    rank = len(shape)
    memory = np.zeros(16 + 8, np.uint64)
    skip = -memory.ctypes.data % 64 // 8  # the map begins at a multiple of 64
    made = memory[skip : skip + 16]
    status = _function()(
        made.ctypes.data, _TYPES[dtype], rank, address,
        (ctypes.c_uint64 * rank)(*shape), (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box), (ctypes.c_uint32 * rank)(*[1] * rank),
        _INTERLEAVE_NONE, _SWIZZLE_128B, _L2_128B, _FILL_ZEROS,
    )  # fmt: skip
    if status:
        raise RuntimeError(
            f"cuTensorMapEncodeTiled: CUDA error {status} for shape {shape}, strides {strides}, "
            f"box {box}, {dtype}"
        )
    return made


@cache
def _function() -> Any:
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    function = library.cuTensorMapEncodeTiled
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    function.argtypes = [
        pointer, ctypes.c_int, number, pointer, pointer, pointer, pointer, pointer,
        ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    function.restype = ctypes.c_int
    return function
