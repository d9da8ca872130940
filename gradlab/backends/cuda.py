"""NVIDIA GPUs: CuPy holds the memory and does the array work.

The backend reaches the machine through one small driver object. The real one is CuPy; a test
may put another in its place (`use_driver`), which is how everything above this file runs on
``device="cuda"`` where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlab.errors import DeviceError
from gradlab.kernels.cuda import driver as kernels_driver, source as sources
from gradlab.kernels.cuda.driver import Defines, Dim, Driver, Properties


class CupyDriver:
    """CuPy, imported when the first CUDA tensor is made."""

    def __init__(self) -> None:
        import cupy

        self.xp: Any = cupy
        self.array_type: type = cupy.ndarray
        self._kernels: dict[Any, Any] = {}
        self._modules: dict[Any, Any] = {}
        self._properties: dict[int, Properties] = {}

    def device_count(self) -> int:
        return int(self.xp.cuda.runtime.getDeviceCount())

    def device(self, index: int) -> Any:
        """A context in which the device is the current one."""
        return self.xp.cuda.Device(index)

    def to_device(self, array: np.ndarray, index: int) -> Any:
        with self.device(index):
            return self.xp.asarray(array)

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(self.xp.asnumpy(array))

    def synchronize(self, index: int) -> None:
        self.device(index).synchronize()

    def memory(self, index: int) -> dict[str, int]:
        free, total = self.device(index).mem_info
        return {"used": total - free, "free": free, "total": total}

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def properties(self) -> Properties:
        index = self.xp.cuda.runtime.getDevice()
        found = self._properties.get(index)
        if found is None:
            found = self._properties[index] = _read_properties(self.xp, index)
        return found

    def launch(
        self, source: str, symbol: str, defines: Defines, grid: Dim, block: Dim,
        args: Sequence[Any], shared: int,
    ) -> None:  # fmt: skip
        key = (self.xp.cuda.runtime.getDevice(), source, symbol, defines)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._compile(*key)
        if shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(grid, block, tuple(args), shared_mem=shared)

    def _compile(self, index: int, source: str, symbol: str, defines: Defines) -> Any:
        """A kernel of a module that CuPy compiles, or finds in its cache on disk."""
        module = self._modules.get((index, source, defines))
        if module is None:
            module = self.xp.RawModule(
                code=sources.read(source), options=sources.options(defines), backend="nvrtc"
            )
            self._modules[index, source, defines] = module
        return module.get_function(symbol)


def _read_properties(cupy: Any, index: int) -> Properties:
    found = cupy.cuda.runtime.getDeviceProperties(index)
    return Properties(
        name=found["name"].decode(),
        capability=(found["major"], found["minor"]),
        multiprocessors=found["multiProcessorCount"],
        shared_memory_per_block=found["sharedMemPerBlockOptin"],
        l2_size=found["l2CacheSize"],
    )


_driver: Driver | None = None


def use_driver(driver: Driver | None) -> Driver | None:
    """Put ``driver`` in place of CuPy (None: back to CuPy) and return the one before."""
    global _driver
    before, _driver = _driver, driver
    return before


def driver() -> Driver:
    """The driver in use; raises `DeviceError` with the probe's reason where CUDA does not work."""
    global _driver
    if _driver is None:
        from gradlab.backends.probe import probe_cuda

        probe = probe_cuda()
        if not probe.available:
            raise DeviceError(f"device 'cuda' is not available: {probe.reason}; {probe.remedy}")
        _driver = CupyDriver()
    return _driver


kernels_driver.provide(driver)


class CudaBackend:
    """One CUDA device of the driver in use."""

    name = "cuda"

    def __init__(self, index: int) -> None:
        self.index = index
        self.driver = driver()
        count = self.driver.device_count()
        if index >= count:
            raise DeviceError(
                f"device 'cuda:{index}' does not exist: this machine has {count} CUDA "
                f"device{'s' if count != 1 else ''}, numbered from 0"
            )
        self.alone = count == 1
        self.xp = self.driver.xp
        self.outer_xp = self.xp if self.alone else _Namespace(self)
        self.array_type = self.driver.array_type

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with this device as the current one, where new arrays and kernels go."""
        if self.alone:
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.driver.device(self.index):
                return function(*args, **kwargs)

        return run

    def from_host(self, array: np.ndarray) -> Any:
        return self.driver.to_device(array, self.index)

    def to_host(self, array: Any) -> np.ndarray:
        return self.driver.to_host(array)

    def synchronize(self) -> None:
        self.driver.synchronize(self.index)

    def memory(self) -> dict[str, int]:
        return self.driver.memory(self.index)


class _Namespace:
    """The array namespace of one of several devices: each function runs on that device."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend.xp, name)
        if callable(found) and not isinstance(found, type):
            found = self._backend.bind(found)
        setattr(self, name, found)
        return found
