"""Random numbers on the device: the integers, uniforms and normals of one call of a Philox stream.

What is drawn is a function of seed, call and position alone, and equal to what the host draws:
integers and uniforms bit for bit, normals to the rounding of logarithm, sine and cosine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gradlab.kernels.cuda.driver import (
    FLOATS,
    Defines,
    Variant,
    current,
    divide_up,
    dtype_define,
    dtype_name,
    launch,
)

SOURCE = "random.cu"
# Philox wants registers (about 40) and no shared memory: 256 threads leave a multiprocessor its
# full 2048 threads at 32 registers, 1536 at 40.
THREADS = 256

# Up to so many keys are compared by 32 bits; of more, too many would be equal.
SHORT = 1 << 17

_INTEGERS: Defines = (("DTYPE", "int64"), ("INTEGERS", 1))


def fits(out: Any) -> bool:
    """True where a kernel can fill ``out``."""
    return bool(out.flags.c_contiguous) and dtype_name(out.dtype) in FLOATS


def uniform(out: Any, seed: int, call: int) -> None:
    """Fill ``out`` with uniforms from [0, 1)."""
    _fill("uniform", out, seed, call, out.size)


def normal(out: Any, seed: int, call: int) -> None:
    """Fill ``out`` with standard normals. A thread makes both values of each of its pairs."""
    _fill("normal", out, seed, call, (out.size + 1) // 2)


def integers(out: Any, seed: int, call: int, low: int, span: int) -> None:
    """Fill ``out`` with integers from [low, low + span)."""
    drawn = current().xp.empty(out.shape, np.int64)
    args = [drawn, drawn.size, _signed(seed), call, _signed(low), _signed(span)]
    _launch("integers_int64", drawn.size, 4, args, _INTEGERS)
    out[...] = drawn


def bits(count: int, seed: int, call: int) -> Any:
    """The first ``count`` 64-bit integers of a call."""
    drawn = current().xp.empty(count, np.uint64)
    _launch("bits_int64", count, 4, [drawn, count, _signed(seed), call], _INTEGERS)
    return drawn


def permutation(out: Any, seed: int, call: int) -> None:
    """Fill ``out`` with a random order of 0 … n - 1: random keys, sorted by CuPy."""
    out[...] = order_of(current().xp, bits(out.size, seed, call))


def order_of(xp: Any, keys: Any) -> Any:
    """The order that random 64-bit ``keys`` have, int64, in the memory of the keys.

    By their high bits: the low ones, 32 for up to 2¹⁷ keys, else as many as a position needs, give
    way to the position. So no two are equal, and any sort of values gives the same order.
    """
    count = keys.size
    mask = np.uint64((1 << (32 if count <= SHORT else (count - 1).bit_length())) - 1)
    keys &= ~mask
    keys |= xp.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= mask
    return keys.view(np.int64)


def dropout(x: Any, p: float, seed: int, call: int) -> Any:
    """``x`` with a share ``p`` of its elements made 0 and the others divided by 1 - p."""
    xp = current().xp
    x = xp.ascontiguousarray(x)  # the mask goes by the position in rows
    y = xp.empty(x.shape, x.dtype)
    threshold = math.ceil(float(np.float32(p)) * 2**24) << 8
    scale = 0.0 if p == 1 else 1 / (1 - p)
    args = [x, y, x.size, _signed(seed), call, threshold, scale]
    _launch(f"dropout_{dtype_name(x.dtype)}", x.size, 8, args, dtype_define(x.dtype))
    return y


def variants() -> list[Variant]:
    """Everything that can be launched."""
    made = [Variant(SOURCE, (("DTYPE", name),)) for name in FLOATS]
    return [*made, Variant(SOURCE, _INTEGERS)]


def _fill(stem: str, out: Any, seed: int, call: int, values: int) -> None:
    name = dtype_name(out.dtype)
    per_thread = 4 if name == "float64" else 8  # values of one block of the stream
    args = [out, out.size, _signed(seed), call]
    _launch(f"{stem}_{name}", values, per_thread, args, dtype_define(out.dtype))


def _launch(symbol: str, values: int, per_thread: int, args: Any, defines: Defines) -> None:
    if values:
        grid = (divide_up(values, per_thread * THREADS),)
        launch(SOURCE, symbol, grid, (THREADS,), args, defines=defines)


def _signed(word: int) -> int:
    """64 bits as the signed integer that a kernel's parameter is."""
    return word - (1 << 64) if word >= 1 << 63 else word
