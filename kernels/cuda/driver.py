"""The machine as kernels see it: memory, launches, properties.

The real driver is CuPy's (`gradlab.backends.cuda.CupyDriver`); tests put another in its place,
which runs the same sources on the CPU. All launches pass `launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

Defines = tuple[tuple[str, str | int], ...]
Dim = tuple[int, ...]

FLOATS = ("float16", "bfloat16", "float32", "float64")  # the floating dtypes of kernels


class Properties(NamedTuple):
    """What geometry depends on. Sizes are in bytes."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_memory_per_block: int  # the opt-in limit, 227 KiB on sm_90
    l2_size: int


class Variant(NamedTuple):
    """One module that a family can launch, for the check that all of them compile."""

    source: str
    defines: Defines = ()
    capability: tuple[int, int] = (7, 5)  # the oldest GPU it is for


class Driver(Protocol):
    """The array namespace, memory, streams and launches of a CUDA machine."""

    xp: Any
    array_type: type
    untimed: str  # why times mean nothing here; empty on a GPU

    def device_count(self) -> int: ...

    def current_device(self) -> int: ...

    def device(self, index: int) -> Any: ...

    def to_device(self, array: np.ndarray, index: int) -> Any: ...

    def to_host(self, array: Any) -> np.ndarray: ...

    def synchronize(self, index: int) -> None: ...

    def memory(self, index: int) -> dict[str, int]: ...

    def properties(self) -> Properties:
        """Of the current device."""

    def launch(
        self, source: str, symbol: str, defines: Defines, grid: Dim, block: Dim,
        args: Sequence[Any], shared: int,
    ) -> None:  # fmt: skip
        """Queue a kernel on the current device's current stream."""

    def launch_ptx(self, kernel: Any, grid: Dim, block: Dim, args: Sequence[Any]) -> None:
        """Queue a kernel written in Python (`numba_cuda.launch.CompiledKernel`)."""

    def timed(self, function: Callable[[], Any], repeats: int) -> list[float]:
        """The seconds that the work queued by ``function`` takes, of each of ``repeats`` calls.

        Caches are cold: nothing of an earlier call is found in the L2.
        """

    def pointer(self, array: Any) -> int:
        """The address of an array's first element."""

    def tensor_map(
        self, address: int, dtype: str, shape: Dim, strides: Dim, box: Dim
    ) -> np.ndarray:
        """What the bulk copy engine is told of an array (`tensor_map.encode`)."""


_provide: Callable[[], Driver] | None = None


def provide(factory: Callable[[], Driver]) -> None:
    """Say where the driver comes from; gradlab.backends.cuda does, when it is imported."""
    global _provide
    _provide = factory


def current() -> Driver:
    """The driver in use."""
    if _provide is None:
        raise RuntimeError("no CUDA driver: import gradlab first")
    return _provide()


def launch(
    source: str, symbol: str, grid: Dim, block: Dim, args: Sequence[Any], *,
    defines: Defines = (), shared: int = 0,
) -> None:  # fmt: skip
    """Launch the kernel ``symbol`` of ``source``, compiled with the macros ``defines``.

    ``args`` are device arrays (pointers in the kernel), Python ints (``long long``), floats
    (``double``) and NumPy arrays without axes of a structured dtype (structs by value): a kernel's
    parameters have no other types. ``shared`` is the number of bytes of dynamic shared memory.
    An empty grid launches nothing; one with more blocks than CUDA numbers raises ValueError.
    """
    if 0 in grid:
        return
    if max(grid) > _FEWEST_BLOCKS:
        _check_grid(symbol, grid)
    current().launch(source, symbol, defines, grid, block, args, shared)


# The most blocks in a grid along y and z; along x there may be more.
_FEWEST_BLOCKS, _MOST_BLOCKS = 65_535, 2**31 - 1


def _check_grid(symbol: str, grid: Dim) -> None:
    limits = (_MOST_BLOCKS, _FEWEST_BLOCKS, _FEWEST_BLOCKS)
    if any(blocks > limit for blocks, limit in zip(grid, limits, strict=False)):
        raise ValueError(
            f"too large for one launch of {symbol}: expected a grid of at most {limits}, got {grid}"
        )


@cache
def dtype_name(dtype: Any) -> str:
    """The name of a dtype in kernels: ``float32``, ``bool``.

    NumPy makes the name anew each time, in 1 µs, and each launch needs it.
    """
    return str(dtype.name)


@cache
def dtype_define(dtype: Any) -> Defines:
    """The macro that compiles a source for ``dtype``."""
    return (("DTYPE", dtype_name(dtype)),)


def divide_up(count: int, size: int) -> int:
    """How many pieces of ``size`` hold ``count``."""
    return -(-count // size)
