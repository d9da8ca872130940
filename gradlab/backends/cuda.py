"""NVIDIA GPUs: CuPy holds the memory and does the array work.

The backend reaches the machine through one small driver object. The real one is CuPy; a test
may put another in its place (`use_driver`), which is how everything above this file runs on
``device="cuda"`` where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlab.backends.gate import Gate
from gradlab.errors import DeviceError
from gradlab.kernels.cuda import compiler, driver as kernels_driver, tensor_map
from gradlab.kernels.cuda.driver import Defines, Dim, Driver, Properties
from gradlab.kernels.cuda.spin import spin


class CupyDriver:
    """CuPy, imported when the first CUDA tensor is made."""

    untimed = ""

    def __init__(self) -> None:
        import cupy

        self.xp: Any = cupy
        self.array_type: type = cupy.ndarray
        self._current_device = cupy.cuda.runtime.getDevice
        self._struct = cupy.cuda.function.CPointer
        self._kernels: dict[Any, _Kernel] = {}
        self._modules: dict[Any, Any] = {}
        self._properties: dict[int, Properties] = {}

    def device_count(self) -> int:
        return int(self.xp.cuda.runtime.getDeviceCount())

    def current_device(self) -> int:
        return int(self._current_device())

    def device(self, index: int) -> Any:
        """A context in which the device is the current one."""
        return self.xp.cuda.Device(index)

    def to_device(self, array: np.ndarray, index: int) -> Any:
        with self.device(index):
            return self.xp.asarray(array)

    def to_host(self, array: Any) -> np.ndarray:
        # On the array's own device: the copy is queued on the current stream of the current one.
        with array.device:
            return np.asarray(self.xp.asnumpy(array))

    def synchronize(self, index: int) -> None:
        self.device(index).synchronize()

    def memory(self, index: int) -> dict[str, int]:
        with self.device(index) as device:
            free, total = device.mem_info
            # Memory that was freed stays with CuPy, for the next arrays.
            spare = self.xp.get_default_memory_pool().free_bytes()
        return {"used": total - free - spare, "free": free + spare, "total": total}

    def empty_cache(self, index: int) -> None:
        with self.device(index):
            self.xp.get_default_memory_pool().free_all_blocks()

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def tensor_map(
        self, address: int, dtype: str, shape: Dim, strides: Dim, box: Dim
    ) -> np.ndarray:
        return tensor_map.encode(address, dtype, shape, strides, box)

    def properties(self) -> Properties:
        index = self._current_device()
        found = self._properties.get(index)
        if found is None:
            found = self._properties[index] = _read_properties(self.xp, index)
        return found

    def launch(
        self, source: str, symbol: str, defines: Defines, grid: Dim, block: Dim,
        args: Sequence[Any], shared: int,
    ) -> None:  # fmt: skip
        key = (self._current_device(), source, symbol, defines)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._load(*key)
        if shared > kernel.shared_limit:
            kernel.allow_shared(shared)
        # CuPy would ask a struct for its `__array_interface__`, which lists the fields: 30 µs.
        given = [self._struct(x.ctypes.data) if isinstance(x, np.ndarray) else x for x in args]
        kernel.function(grid, block, given, shared)  # on the current stream of the device

    def launch_ptx(self, kernel: Any, grid: Dim, block: Dim, args: Sequence[Any]) -> None:
        key = (self._current_device(), kernel)
        found = self._kernels.get(key)
        if found is None:
            module = self.xp.cuda.Module()
            module.load(kernel.ptx.encode())  # the GPU's driver compiles PTX, and keeps the result
            self._modules[key] = module
            found = _Kernel(self.xp.cuda.driver, module.get_function(kernel.symbol))
            self._kernels[key] = found
        found.function(grid, block, kernel.words(args, self.pointer))

    def timed(self, function: Callable[[], Any], repeats: int) -> list[float]:
        """GPU seconds of each call, between two CUDA events around what it queues (`Timer`)."""
        timer = self.timer(function)
        return [timer.once() for _ in range(repeats)]

    def timer(self, function: Callable[[], Any]) -> Timer:
        """What `timed` times a function with, call by call."""
        return Timer(self, function)

    def _load(self, index: int, source: str, symbol: str, defines: Defines) -> _Kernel:
        """A kernel, its module compiled or found on disk the first time."""
        module = self._modules.get((index, source, defines))
        if module is None:
            arch = compiler.architecture(self.properties().capability)
            module = compiler.loaded(source, defines, arch, self._module)
            self._modules[index, source, defines] = module
        return _Kernel(self.xp.cuda.driver, module.get_function(symbol))

    def _module(self, code: bytes) -> Any:
        module = self.xp.cuda.Module()
        module.load(code)
        return module


class Timer:
    """Times calls of a function on the GPU, without the time that the host takes to queue them.

    Before each call a buffer twice as large as the L2 is read, so that nothing of an earlier call
    is found there and no writes are left to be done in this one's time. Then the GPU is kept busy
    (`spin`) while the host queues the call between two events. A GPU that had come to the call
    before all of it was queued may have waited for the host: that time does not count, and the
    call is repeated behind twice the delay. Of a call that itself waits for the GPU, which no
    delay can help, the host's time remains a part.
    """

    SHORTEST, LONGEST = 100e-6, 50e-3  # seconds of the delay

    def __init__(self, driver: CupyDriver, function: Callable[[], Any]) -> None:
        xp = driver.xp
        self._driver, self._function = driver, function
        self._spill = xp.zeros(max(2 * driver.properties().l2_size, 64 << 20) // 4, xp.float32)
        self._elapsed = xp.empty(1, xp.int64)
        self._delay = self.SHORTEST

    def once(self) -> float:
        """Seconds of one call."""
        while True:
            seconds, undisturbed = self._try()
            if undisturbed or self._delay >= self.LONGEST:
                return seconds
            self._delay *= 2

    def _try(self) -> tuple[float, bool]:
        cuda = self._driver.xp.cuda
        start, end = cuda.Event(), cuda.Event()
        self._spill.max()
        spin(self._driver, self._elapsed, self._delay)
        start.record()
        self._function()
        end.record()
        undisturbed = not start.done
        end.synchronize()
        return cuda.get_elapsed_time(start, end) / 1e3, undisturbed


class _Kernel:
    """A kernel on a device, and how much dynamic shared memory it may have."""

    __slots__ = ("driver", "function", "shared_limit")

    def __init__(self, driver: Any, function: Any) -> None:
        self.driver, self.function = driver, function
        attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self.shared_limit = driver.funcGetAttribute(attribute, function.ptr)

    def allow_shared(self, size: int) -> None:
        # A block gets more than 48 KiB of shared memory only where this was asked for.
        attribute = self.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self.driver.funcSetAttribute(self.function.ptr, attribute, size)
        self.shared_limit = size


def _read_properties(cupy: Any, index: int) -> Properties:
    found = cupy.cuda.runtime.getDeviceProperties(index)
    return Properties(
        name=found["name"].decode(),
        capability=(found["major"], found["minor"]),
        multiprocessors=found["multiProcessorCount"],
        shared_memory_per_block=found["sharedMemPerBlockOptin"],
        l2_size=found["l2CacheSize"],
    )


_gate: Gate | None = None


def use_driver(driver: Driver | None) -> Driver | None:
    """Put ``driver`` in place of CuPy (None: back to CuPy) and return the one before."""
    global _gate
    before, _gate = _gate, None if driver is None else Gate(driver)
    return None if before is None else before.driver


def driver() -> Gate:
    """The driver in use; raises `DeviceError` with the probe's reason where CUDA does not work."""
    global _gate
    if _gate is None:
        from gradlab.backends.probe import probe_cuda

        probe = probe_cuda()
        if not probe.available:
            raise DeviceError(f"device 'cuda' is not available: {probe.reason}; {probe.remedy}")
        _gate = Gate(CupyDriver())
    return _gate


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
        if self.driver.sync:
            function = self.driver.waits(function)
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

    def empty_cache(self) -> None:
        self.driver.empty_cache(self.index)

    def explain(self, operation: str, error: Exception) -> Exception:
        return self.driver.explain(operation, error, self.index)


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
