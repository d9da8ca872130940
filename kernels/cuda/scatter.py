"""Adding values to places of an array in a fixed order: the gradients of indexing and embedding."""

from __future__ import annotations

import math
from typing import Any

from gradlab.kernels.cuda.driver import (
    Variant,
    current,
    divide_up,
    dtype_define,
    dtype_name,
    launch,
)

SOURCE = "scatter.cu"
DTYPES = ("float32", "float64")
THREADS = 256


def variants() -> list[Variant]:
    """Every module this family can launch."""
    return [Variant(SOURCE, (("DTYPE", name),)) for name in DTYPES]


def accepts(x: Any) -> bool:
    """True for floats: integers add up to the same in any order."""
    return dtype_name(x.dtype) in DTYPES and x.size > 0


def add_rows(y: Any, places: Any, x: Any) -> None:
    """Add ``x[i]``, of shape ``y.shape[1:]``, to ``y[places[i]]``, for each place in order of i.

    ``y`` is contiguous and ``places`` has one axis. Places outside ``y`` are left out.
    """
    xp = current().xp
    width = math.prod(y.shape[1:])
    x = xp.ascontiguousarray(x)
    order = xp.argsort(places, kind="stable")
    lanes = min(32, 1 << (width - 1).bit_length())
    symbol, blocks = f"scatter_add_{dtype_name(x.dtype)}", divide_up(places.size, THREADS // 32)
    launch(
        SOURCE, symbol, (blocks,), (THREADS,),
        (x, places[order].astype("int64"), order.astype("int64"), y, places.size, width,
         y.shape[0], lanes),
        defines=dtype_define(x.dtype),
    )  # fmt: skip


def add_at(y: Any, index: Any, x: Any) -> None:
    """``y[index] += x``, every value counted; ``index`` as for arrays, ``y`` contiguous."""
    xp = current().xp
    item = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not isinstance(item, tuple) and item.ndim == 1:  # whole rows, however many y has
        places = xp.arange(y.shape[0])[item]
        if places.size:
            add_rows(y, places, xp.broadcast_to(x, (places.size, *y.shape[1:])))
        return
    places = xp.arange(y.size).reshape(y.shape)[index]
    if places.size:
        add_rows(y.reshape(-1), places.reshape(-1), xp.broadcast_to(x, places.shape))
