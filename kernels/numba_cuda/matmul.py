"""The product of two matrices in plain Python: one thread per element, then in tiles."""

from __future__ import annotations

from typing import Any

from gradlab.kernels.cuda.driver import current, divide_up
from gradlab.kernels.cuda.library import finish, unfinished
from gradlab.kernels.ladder import rung
from gradlab.kernels.numba_cuda.launch import kernel, unfit

TILE = 16


def matmul_naive(cuda: Any, dtype: Any) -> Any:
    """Each thread adds up one element of C, reading a row of A and a column of B.

    Both are read again for every element: A is read n times, B m times.
    """

    def kernel(a, b, c):  # type: ignore[no-untyped-def]
        # Neighbouring threads take neighbouring columns, so that a warp's reads of B and writes
        # of C are adjacent in memory.
        across = (c.shape[1] + TILE - 1) // TILE
        row = cuda.blockIdx.x // across * TILE + cuda.threadIdx.y
        column = cuda.blockIdx.x % across * TILE + cuda.threadIdx.x
        if row < c.shape[0] and column < c.shape[1]:
            total = dtype(0)
            for k in range(a.shape[1]):
                total += a[row, k] * b[k, column]
            c[row, column] = total

    return kernel


def matmul_tiled(cuda: Any, dtype: Any) -> Any:
    """Each block computes a tile of C; tiles of A and B pass through shared memory.

    An element is read from global memory once per tile that needs it, so 16 times less often. What
    lies beyond an edge is 0 and adds nothing.
    """

    def kernel(a, b, c):  # type: ignore[no-untyped-def]
        tile_a = cuda.shared.array((TILE, TILE), dtype)
        tile_b = cuda.shared.array((TILE, TILE), dtype)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        across = (c.shape[1] + TILE - 1) // TILE
        row = cuda.blockIdx.x // across * TILE + y
        column = cuda.blockIdx.x % across * TILE + x
        total = dtype(0)
        for start in range(0, a.shape[1], TILE):
            tile_a[y, x] = dtype(0)
            tile_b[y, x] = dtype(0)
            if row < a.shape[0] and start + x < a.shape[1]:
                tile_a[y, x] = a[row, start + x]
            if start + y < b.shape[0] and column < b.shape[1]:
                tile_b[y, x] = b[start + y, column]
            cuda.syncthreads()  # the tiles are complete
            for k in range(TILE):
                total += tile_a[y, k] * tile_b[k, x]
            cuda.syncthreads()  # and have been used
        if row < c.shape[0] and column < c.shape[1]:
            c[row, column] = total

    return kernel


def _refuses(a: Any, b: Any, **options: Any) -> str:
    return unfit(a, b) or unfinished(**options)


def _multiply(build: Any, a: Any, b: Any, options: dict[str, Any]) -> Any:
    c = current().xp.empty((a.shape[0], b.shape[1]), a.dtype)
    if c.size:
        tiles = divide_up(c.shape[0], TILE) * divide_up(c.shape[1], TILE)
        kernel(build, a.dtype.type).launch((tiles,), (TILE, TILE), a, b, c)
    return finish(c, **options)


@rung("matmul", "numba_naive", "matmul", refuses=_refuses)
def _naive(a: Any, b: Any, **options: Any) -> Any:
    return _multiply(matmul_naive, a, b, options)


@rung("matmul", "numba_tiled", "matmul", refuses=_refuses)
def _tiled(a: Any, b: Any, **options: Any) -> Any:
    return _multiply(matmul_tiled, a, b, options)
