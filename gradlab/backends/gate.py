"""The one place where gradlab meets a CUDA machine: calls are counted, failures explained.

A GPU works through a queue, and the host should not wait for it: `Statistics` says how often it
did. For the same reason a kernel that fails is reported late, by whatever call comes next.
``GRADLAB_SYNC=1`` makes the host wait after every launch and op, which names the one that failed.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlab._environment import flag
from gradlab.errors import (
    CompileError,
    GradlabError,
    LaunchError,
    MissingDependencyError,
    OutOfMemoryError,
)
from gradlab.kernels.cuda.compiler import KernelCompileError
from gradlab.kernels.cuda.driver import Defines, Dim, Driver, Properties

# After these a process cannot use the GPU any more, and every later call reports the same. The
# numbers are CUresult's and cudaError_t's alike:
# https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html
_STICKY = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719, 720})
_MEMORY = re.compile(r"OUT_OF_MEMORY|cudaErrorMemoryAllocation|ALLOC_FAILED")


class Statistics(NamedTuple):
    """What has passed between the host and its GPUs.

    ``launches`` counts gradlab's own kernels, not CuPy's. ``synchronizations`` counts how often the
    host waited for a GPU; each copy to the host is one of them. Not counted are waits inside CuPy:
    `nonzero`, `unique`, `bincount` and a mask as index wait to learn how large their result is.
    """

    launches: int = 0
    copies_to_device: int = 0
    copies_to_host: int = 0
    synchronizations: int = 0


class Counters:
    """`Statistics` in the making."""

    __slots__ = Statistics._fields

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.launches = self.copies_to_device = self.copies_to_host = self.synchronizations = 0

    def read(self) -> Statistics:
        return Statistics(*(getattr(self, name) for name in Statistics._fields))


counters = Counters()


class Gate:
    """A driver whose calls are counted and whose failures are gradlab's errors."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.xp: Any = driver.xp
        self.array_type: type = driver.array_type
        self.untimed = driver.untimed
        self.sync = flag("GRADLAB_SYNC")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    # What passes

    def launch(
        self, source: str, symbol: str, defines: Defines, grid: Dim, block: Dim,
        args: Sequence[Any], shared: int,
    ) -> None:  # fmt: skip
        counters.launches += 1
        try:
            self.driver.launch(source, symbol, defines, grid, block, args, shared)
            if self.sync:
                self.driver.synchronize(self.driver.current_device())
        except (MemoryError, RuntimeError, ImportError) as error:
            kernel = f"kernel {symbol} of {source}"
            launch = f" with grid {grid}, block {block} and {shared:,} bytes of shared memory"
            raise self._of_launch(kernel, launch, error) from None

    def launch_ptx(self, kernel: Any, grid: Dim, block: Dim, args: Sequence[Any]) -> None:
        counters.launches += 1
        try:
            self.driver.launch_ptx(kernel, grid, block, args)
            if self.sync:
                self.driver.synchronize(self.driver.current_device())
        except (MemoryError, RuntimeError) as error:
            named, launch = f"{kernel.source!r}"[1:-1], f" with grid {grid} and block {block}"
            raise self._of_launch(named, launch, error) from None

    def timed(self, function: Callable[[], Any], repeats: int) -> list[float]:
        counters.synchronizations += 1
        found: list[float] = self._guarded(
            "timing", self.driver.current_device(), self.driver.timed, function, repeats
        )
        return found

    def to_device(self, array: np.ndarray, index: int) -> Any:
        counters.copies_to_device += 1
        return self._guarded("to", index, self.driver.to_device, array, index)

    def to_host(self, array: Any) -> np.ndarray:
        counters.copies_to_host += 1
        counters.synchronizations += 1
        found: np.ndarray = self._guarded(
            "copy to the host", array.device.id, self.driver.to_host, array
        )
        return found

    def synchronize(self, index: int) -> None:
        counters.synchronizations += 1
        self._guarded("synchronize", index, self.driver.synchronize, index)

    def _guarded(self, operation: str, index: int, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except (MemoryError, RuntimeError) as error:
            raise self.explain(operation, error, index) from None

    # Stated for the type checker; __getattr__ would find them.

    def device_count(self) -> int:
        return self.driver.device_count()

    def current_device(self) -> int:
        return self.driver.current_device()

    def device(self, index: int) -> Any:
        return self.driver.device(index)

    def memory(self, index: int) -> dict[str, int]:
        return self.driver.memory(index)

    def properties(self) -> Properties:
        return self.driver.properties()

    def pointer(self, array: Any) -> int:
        return self.driver.pointer(array)

    # What fails

    def waits(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` followed by a wait, so that what it queued fails in it and not later."""

        def run(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            try:
                self.driver.synchronize(self.driver.current_device())
            except RuntimeError as error:
                raise self._of_launch("a kernel of CuPy", "", error) from None
            return found

        return run

    def explain(self, operation: str, error: Exception, index: int) -> Exception:
        """What to raise for an exception of device ``index`` that came up in ``operation``."""
        found = self._translate(error, index)
        return _of_op(operation, found) if isinstance(found, _MACHINE_ERRORS) else found

    def _translate(self, error: Exception, index: int) -> Exception:
        if isinstance(error, GradlabError):
            return error
        if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
            return OutOfMemoryError(self._out_of_memory(error, index))
        if isinstance(error, KernelCompileError):
            return CompileError(str(error))
        if isinstance(error, ImportError):  # of the compiler
            return MissingDependencyError(str(error))
        if _is_sticky(error):
            return LaunchError(
                f"a kernel launched earlier has failed ({error}), which CUDA reports late; run "
                "again with GRADLAB_SYNC=1 to find its place, and in a new process, since this one "
                "can no longer use the GPU"
            )
        return error

    def _of_launch(self, kernel: str, launch: str, error: Exception) -> Exception:
        """What to raise for an exception that a launch, or the wait after it, came back with."""
        sticky = _is_sticky(error)
        if sticky and self.sync:
            return LaunchError(
                f"{kernel} failed ({error}){launch}; this process can no longer use the GPU"
            )
        found = self._translate(error, self.driver.current_device())
        if found is error and _status(error) is not None:
            return LaunchError(f"{kernel} was refused by the GPU ({error}){launch}")
        return found

    def _out_of_memory(self, error: Exception, index: int) -> str:
        memory = self.driver.memory(index)
        found = re.search(r"allocating ([\d,]+) bytes", str(error))
        request = f"{amount(int(found[1].replace(',', '')))} asked for" if found else str(error)
        largest = "; ".join(largest_arrays(self.array_type, index)) or "none"
        return (
            f"out of memory on cuda:{index}: {request}, {amount(memory['free'])} free of "
            f"{amount(memory['total'])}; the largest arrays alive: {largest}"
        )


_MACHINE_ERRORS = (CompileError, LaunchError, OutOfMemoryError)


def _of_op(operation: str, error: Exception) -> Exception:
    """``error`` with the operation before its text, unless it has one already."""
    if hasattr(error, "operation"):
        return error
    named = type(error)(f"{operation}: {error}")
    named.operation = operation  # type: ignore[attr-defined]
    return named


def _is_sticky(error: Exception) -> bool:
    # cuBLAS has numbers of its own, and one for all that goes wrong on the GPU.
    return _status(error) in _STICKY or "CUBLAS_STATUS_EXECUTION_FAILED" in str(error)


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    return None if status is None else int(status)


def amount(size: float) -> str:
    """A number of bytes as people read it.

    >>> amount(3 * 2**29)
    '1.5 GiB'
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def largest_arrays(array_type: type, index: int, count: int = 3) -> list[str]:
    """The shapes and dtypes that hold most of a device's memory: ``2 × float32 (4096, 4096), …``.

    Views are not counted; they hold nothing of their own.
    """
    alive: Counter[tuple[str, tuple[int, ...]]] = Counter()
    held: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for each in gc.get_objects():
        if type(each) is array_type and each.base is None and each.device.id == index:  # type: ignore[attr-defined]
            kind = (each.dtype.name, each.shape)  # type: ignore[attr-defined]
            alive[kind] += 1
            held[kind] += each.nbytes  # type: ignore[attr-defined]
    return [
        f"{alive[kind]} × {kind[0]} {kind[1]}, {amount(size)}"
        for kind, size in held.most_common(count)
        if size
    ]
