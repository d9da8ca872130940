"""Casts between float16 and float32, which NumPy does an element at a time.

Numba compiles them to the processor's own vector instructions, in a twentieth to a thirtieth of the
time. Where Numba or the instructions are missing, NumPy's casts are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

LARGE = 1 << 17  # elements, from which compiling, half a second in each process, is worth it
LARGE_BFLOAT16 = 1 << 12  # the same where ml_dtypes casts, compiled already

_BLOCK = 1 << 15  # elements computed at a time, whose float32 values stay in the cache
_HALF, _SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def cast(x: Any, dtype: Any, copy: bool = False) -> Any:
    """``x.astype(dtype, copy=copy)``, quicker for large arrays of float16 and of float32."""
    if x.__class__ is not np.ndarray or x.size < LARGE:
        return x.astype(dtype, copy=copy)
    if (x.dtype, dtype) not in ((_HALF, _SINGLE), (_SINGLE, _HALF)) or not are_fast():
        return x.astype(dtype, copy=copy)
    if not x.flags.forc or not x.flags.aligned:
        x = x.copy()
    y = np.empty_like(x, dtype)
    _cast_into(x.ravel("K"), y.ravel("K"))
    return y


def is_large(x: Any) -> bool:
    """Whether an array of halves is better computed in float32, by `apply_wide`."""
    if x.dtype == _HALF:
        return x.size >= LARGE and are_fast()
    return bool(x.size >= LARGE_BFLOAT16)


def apply_wide(ufunc: Any, arrays: Sequence[Any], half: Any) -> Any:
    """``ufunc`` of arrays and numbers of a half dtype, computed in float32 and rounded once.

    Arrays of one shape go through the cache in blocks: new memory for all of their float32 values
    would take longer than the rest.
    """
    arrays = [x if isinstance(x, np.ndarray) else np.asarray(x, half) for x in arrays]
    shapes = {x.shape for x in arrays if x.ndim}
    if len(shapes) != 1 or not all(x.flags.c_contiguous for x in arrays):
        y = ufunc(*[cast(x, _SINGLE) for x in arrays])
        return cast(y, half) if y.dtype == _SINGLE else y
    flat = [x.reshape(-1) if x.ndim else x.astype(_SINGLE) for x in arrays]
    scratch = [np.empty(_BLOCK, _SINGLE) for _ in arrays]
    (shape,) = shapes
    y = np.empty(shape, half)
    for start in range(0, y.size, _BLOCK):
        parts = [
            _cast_into(x[start : start + _BLOCK], into) if x.ndim else x
            for x, into in zip(flat, scratch, strict=True)
        ]
        values = ufunc(*parts)
        if values.dtype != _SINGLE and y.dtype == half:  # what a comparison gives
            y = np.empty(shape, values.dtype)
        _cast_into(values, y.reshape(-1)[start : start + _BLOCK])
    return y


def _cast_into(x: Any, y: Any) -> Any:
    """Cast a vector into the first elements of another, which are returned."""
    y = y[: x.size]
    if x.dtype == _HALF and y.dtype == _SINGLE and are_fast():
        _kernels()[0](x.view(np.uint16), y)
    elif x.dtype == _SINGLE and y.dtype == _HALF and are_fast():
        _kernels()[1](y.view(np.uint16), x)
    else:
        np.copyto(y, x, casting="unsafe")
    return y


@cache
def are_fast() -> bool:
    """Whether large arrays are cast by compiled kernels."""
    if find_spec("numba") is None:
        return False
    binding: Any = import_module("llvmlite.binding")
    # Elsewhere LLVM calls a function of a runtime library, which may be missing.
    has_instructions = binding.get_host_cpu_features().get("f16c", False)
    return has_instructions or binding.get_process_triple().startswith("aarch64")


@cache
def _kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    """Compiled functions of the bits of halves and the floats: one that widens, one that narrows.

    Both round and keep infinities and NaN as IEEE 754 has it, as NumPy does.
    """
    numba: Any = import_module("numba")
    ir: Any = import_module("llvmlite.ir")
    extending: Any = import_module("numba.extending")

    @extending.intrinsic
    def widened(context: Any, bits: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            half = builder.bitcast(arguments[0], ir.HalfType())
            return builder.fpext(half, ir.FloatType())

        return numba.float32(numba.uint16), generate

    @extending.intrinsic
    def narrowed(context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            half = builder.fptrunc(arguments[0], ir.HalfType())
            return builder.bitcast(half, ir.IntType(16))

        return numba.uint16(numba.float32), generate

    def widen(halves: Any, floats: Any) -> None:
        for i in range(halves.size):
            floats[i] = widened(halves[i])

    def narrow(halves: Any, floats: Any) -> None:
        for i in range(halves.size):
            halves[i] = narrowed(floats[i])

    compile = numba.njit("void(uint16[::1], float32[::1])", nogil=True)
    return compile(widen), compile(narrow)
