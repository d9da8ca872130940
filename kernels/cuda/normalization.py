"""Layer norm and RMS norm, forward and backward: which kernel takes rows of which length."""

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

SOURCE = "normalization.cu"
WEIGHT, BIAS, CENTRED, GX, GWEIGHT, GBIAS = (1 << bit for bit in range(6))  # as normalization.cu
WARP = 32
_NARROW: Defines = (("NARROW", 1),)
# Threads of a block that holds several rows, and the most that one row gets. Backward keeps four
# values per element of a row in registers, forward one: half the threads have twice as many.
THREADS = 256
FORWARD_THREADS, BACKWARD_THREADS = 1024, 512


def variants() -> list[Variant]:
    """Everything that can be launched."""
    return [
        Variant(SOURCE, (("DTYPE", name), *narrow)) for name in FLOATS for narrow in ((), _NARROW)
    ]


def accepts(x: Any, *parameters: Any, count: int) -> bool:
    """True for rows of floats, and parameters of their dtype (or the number 1 for none)."""
    rows, columns = _rows(x, count)
    return (
        dtype_name(x.dtype) in FLOATS
        and columns > 0
        and rows < 1 << 31
        and all(p.__class__ is float or p is None or p.dtype == x.dtype for p in parameters)
    )


def forward(
    x: Any, weight: Any, bias: Any, *, count: int, eps: float, centred: bool
) -> tuple[Any, Any, Any]:
    """The normalized rows, their means (None if not ``centred``) and reciprocal roots.

    ``count`` is the number of axes that make a row; ``weight`` is 1.0 and ``bias`` None for none.
    """
    xp = current().xp
    x = xp.ascontiguousarray(x)
    weight, weighted = _given(xp, weight, x)
    bias, biased = _given(xp, bias, x)
    rows, columns = _rows(x, count)
    kept = x.shape[: x.ndim - count] + (1,) * count
    wide = np.float64 if x.dtype == np.float64 else np.float32
    y, roots = xp.empty(x.shape, x.dtype), xp.empty(kept, wide)
    means = xp.empty(kept, wide) if centred else None
    flags = weighted * WEIGHT + biased * BIAS + centred * CENTRED
    if rows:
        kernel = _Rows("forward", FORWARD_THREADS, rows, columns, [x, y, weight, bias])
        args = [x, weight, bias, y, roots if means is None else means, roots, rows, columns,
                float(eps), kernel.lanes, flags]  # fmt: skip
        kernel.launch(kernel.blocks, args)
    return y, means, roots


def backward(
    gy: Any, x: Any, weight: Any, means: Any, roots: Any, *, count: int, needs: Any
) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias, of which ``needs`` says which are wanted."""
    xp = current().xp
    shape = x.shape[x.ndim - count :]
    gy, x = xp.ascontiguousarray(gy), xp.ascontiguousarray(x)
    weight, weighted = _given(xp, weight, x)
    roots = xp.ascontiguousarray(roots)
    centred = means is not None
    means = xp.ascontiguousarray(means) if centred else roots
    rows, columns = _rows(x, count)
    gx = xp.empty(x.shape, x.dtype) if needs[0] else None
    gweight, gbias = (xp.empty(shape, x.dtype) if need else None for need in needs[1:3])
    wanted = [each for each in (gweight, gbias) if each is not None]
    flags = (
        weighted * WEIGHT + centred * CENTRED
        + sum(bit for bit, need in zip((GX, GWEIGHT, GBIAS), needs, strict=False) if need)
    )  # fmt: skip
    arrays = [gy, x, weight, *([gx] if needs[0] else [])]
    kernel = _Rows("backward", BACKWARD_THREADS, rows, columns, arrays)
    into = x if gx is None else gx
    lines, shares = 0, roots
    if kernel.streamed:
        if rows and gx is not None:
            args = [gy, x, weight, means, roots, into, roots, rows, columns, 0, flags]
            kernel.launch(rows, args)
        if wanted:
            lines = min(64, divide_up(rows, 8))
            shares = xp.empty((len(wanted), max(lines, 1), columns), roots.dtype)
        if lines:
            args = [gy, x, means, roots, shares, rows, columns, flags]
            kernel.launch_columns("column_shares", columns, lines, 256, args)
    elif rows:
        lines = kernel.blocks_in_turns()
        shares = xp.empty((max(len(wanted), 1), lines, columns), roots.dtype)
        args = [gy, x, weight, means, roots, into, shares, rows, columns, kernel.lanes, flags]
        kernel.launch(lines, args)
    if wanted:
        args = [shares, wanted[0], wanted[-1], lines, columns]
        # 1024 threads read many shares at a time; of few, more would wait than read.
        threads = 1024 if lines > 64 else min(256, WARP * max(lines, 1))
        kernel.launch_columns("column_sums", columns, len(wanted), threads, args)
    return gx, gweight, gbias


def _rows(x: Any, count: int) -> tuple[int, int]:
    return math.prod(x.shape[: x.ndim - count]), math.prod(x.shape[x.ndim - count :])


def _given(xp: Any, parameter: Any, x: Any) -> tuple[Any, bool]:
    """A parameter as rows have it, and True; ``x`` in the place of one that is not there."""
    missing = parameter is None or parameter.__class__ is float
    return (x, False) if missing else (xp.ascontiguousarray(parameter), True)


class _Rows:
    """The kernel for rows of a length, and how many of them a block takes."""

    def __init__(
        self, stem: str, most_threads: int, rows: int, columns: int, arrays: list[Any]
    ) -> None:
        self.dtype = arrays[0].dtype
        self.rows = rows
        pointer = current().pointer
        wide = 16 // self.dtype.itemsize
        aligned = columns % wide == 0 and all(pointer(each) % 16 == 0 for each in arrays)
        width = wide if aligned else 1
        self.defines: Defines = dtype_define(self.dtype) + (() if aligned else _NARROW)
        kept = (8 if self.dtype.itemsize == 8 else 16) // (1 if aligned else 2)
        packs = divide_up(columns, width)
        self.lanes, self.threads, self.shared, self.streamed = WARP, THREADS, 0, False
        if packs <= WARP:
            self.kind = "lanes"
            self.lanes = 1 << (packs - 1).bit_length()
        elif columns <= WARP * kept:
            self.kind = "warp"
        elif columns <= most_threads * kept:
            self.kind = "block"
            self.threads = self.lanes = divide_up(columns, kept * WARP) * WARP
        else:
            self.kind = "streamed"
            self.threads = self.lanes = 512
            self.streamed = True
        if stem == "backward" and self.kind in ("lanes", "warp"):
            # A line of sums per row that the block holds, in float32 or float64.
            self.shared = THREADS // self.lanes * columns * max(4, self.dtype.itemsize)
        self.name = f"{stem}_{self.kind}"
        self.blocks = divide_up(rows, self.threads // self.lanes)

    def blocks_in_turns(self) -> int:
        """Blocks that take rows in turns: as many as are resident at once, but beyond one per
        multiprocessor not so many that each sums less than 8 turns for weight and bias.

        The kernels have up to 124 registers in use, those of one access per thread 64: of 65,536
        registers that is 512 threads per multiprocessor with eight accesses of 16 bytes on their
        way each, or 1,024 with two.
        """
        threads = 1024 if self.kind == "lanes" else 512
        multiprocessors = current().properties().multiprocessors
        resident = multiprocessors * max(1, threads // self.threads)
        return min(resident, max(divide_up(self.blocks, 8), min(self.blocks, multiprocessors)))

    def launch(self, blocks: int, args: list[Any]) -> None:
        launch(
            SOURCE, f"{self.name}_{dtype_name(self.dtype)}", (blocks,), (self.threads,), args,
            defines=self.defines, shared=self.shared,
        )  # fmt: skip

    def launch_columns(
        self, stem: str, columns: int, lines: int, threads: int, args: list[Any]
    ) -> None:
        """A kernel that takes 32 columns per block, and a row of them per warp."""
        grid = divide_up(columns, WARP), lines
        name = f"{stem}_{dtype_name(self.dtype)}"
        launch(SOURCE, name, grid, (threads,), args, defines=self.defines)
