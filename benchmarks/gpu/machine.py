"""The GPU of a run, its libraries and its clock; or the emulator, which has no times."""

from __future__ import annotations

import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, versions

PACKAGES = ("numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton", "numba-cuda",
            "nvidia-cuda-nvrtc")  # fmt: skip
Step = Callable[[int], Any]


class Machine:
    """One GPU. ``dry`` selects the emulator: tiny sizes, no peers, no times.

    ``seed`` is of the run: its random inputs are those of no other one.
    """

    def __init__(self, dry: bool = False, seed: int = 0) -> None:
        import gradlab as gl
        from gradlab.backends.cuda import driver

        self.dry, self.seed = dry, seed
        if dry:
            use_emulator()
        else:
            from gradlab.kernels.cuda import nvrtc

            nvrtc.available()  # it loads what CuPy's compiler does not find by itself
        self.device = gl.device("cuda")
        self.driver = driver()
        self.xp = self.driver.xp

    @property
    def l2_size(self) -> int:
        return int(self.driver.properties().l2_size)

    @property
    def memory(self) -> int:
        return int(self.driver.memory(0)["free"])

    @property
    def torch(self) -> Any:
        """PyTorch, where it is installed and sees the GPU."""
        return None if self.dry else _torch()

    def to_torch(self, array: Any) -> Any:
        """PyTorch's tensor of an array's memory."""
        if array.dtype.name == "bfloat16":  # which not every version of CuPy can hand over
            return self.torch.from_dlpack(array.view("int16")).view(self.torch.bfloat16)
        return self.torch.from_dlpack(array)

    @property
    def triton(self) -> Any:
        return None if self.dry or self.torch is None else _import("triton")

    def wait(self) -> None:
        self.driver.synchronize(0)

    def describe(self) -> dict[str, Any]:
        """What the figures depend on. No host name, no path."""
        from gradlab.kernels.cuda import nvrtc

        import gradlab as gl

        properties = self.driver.properties()
        found = {
            "gpu": properties.name,
            "compute_capability": "{}.{}".format(*properties.capability),
            "multiprocessors": properties.multiprocessors,
            "l2_bytes": properties.l2_size,
            "memory_bytes": self.driver.memory(0)["total"],
            "processor": processor(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "gradlab": gl.__version__,
            "nvrtc": "" if nvrtc.available() else "{}.{}".format(*nvrtc.version()),
            **versions(PACKAGES),
        }
        if not self.dry:
            runtime = self.xp.cuda.runtime
            found["cuda_driver"] = runtime.driverGetVersion()
            found["cuda_runtime"] = runtime.runtimeGetVersion()
        return found

    def host(self, x: Any) -> Any:
        """An array of NumPy's with the values of a device's array, a number or a host's."""
        if isinstance(x, self.driver.array_type):
            return self.driver.to_host(x)
        import numpy as np

        return np.asarray(x)

    def array(self, result: Any) -> Any:
        """The device's array in what a library returned: a tensor of ours or of PyTorch's."""
        if isinstance(result, self.driver.array_type):
            return result
        if hasattr(result, "_array"):
            return result.detach()._array
        result = result.detach().contiguous()
        if result.dtype == self.torch.bfloat16:
            return self.xp.from_dlpack(result.view(self.torch.int16)).view(_bfloat16())
        if result.dtype == self.torch.bool:
            return self.xp.from_dlpack(result.view(self.torch.uint8)).view("bool")
        return self.xp.from_dlpack(result)

    def bring(self, folder: str) -> Any:
        """Fill the cache of compiled modules from what `make cubins` has left in ``folder``."""
        from gradlab.kernels.cuda import bundle, compiler, resources

        arch = compiler.architecture(self.driver.properties().capability)
        return bundle.bring(Path(folder), resources.for_architecture(arch), arch)

    def seconds(self, peers: dict[str, Step], budget: float) -> dict[str, list[float]]:
        """GPU seconds of calls of each peer, which take turns: A B C, C B A, …

        A call is a step with the number of the input set to use. The events around a call enclose
        its work and no wait for Python: see `gradlab.backends.cuda.Timer`.
        """
        if self.dry:
            for step in peers.values():
                step(0)
            return {name: [] for name in peers}
        for step in peers.values():
            for i in range(3):
                step(i)
        self.wait()
        turn = 0
        timers = {name: self.driver.timer(lambda step=step: step(turn))
                  for name, step in peers.items()}  # fmt: skip
        found: dict[str, list[float]] = {name: [] for name in peers}
        end = time.perf_counter() + budget
        order = list(peers)
        while turn < 5 or (time.perf_counter() < end and turn < 200):
            for name in order:
                found[name].append(timers[name].once())
            order.reverse()
            turn += 1
        return found

    def wall(self, peers: dict[str, Step], budget: float) -> dict[str, list[float]]:
        """Seconds of steps as a user waits for them: many queued at once, one wait at the end."""
        if self.dry:
            for step in peers.values():
                step(0)
            return {name: [] for name in peers}
        found: dict[str, list[float]] = {name: [] for name in peers}
        count = {name: self._steps_in(step, 0.02) for name, step in peers.items()}
        end = time.perf_counter() + budget
        order, turn = list(peers.items()), 0
        while turn < 5 or (time.perf_counter() < end and turn < 200):
            for name, step in order:
                self.wait()
                start = time.perf_counter()
                for i in range(count[name]):
                    step(i)
                self.wait()
                found[name].append((time.perf_counter() - start) / count[name])
            order.reverse()
            turn += 1
        return found

    def _steps_in(self, step: Step, seconds: float) -> int:
        for i in range(3):
            step(i)
        self.wait()
        start = time.perf_counter()
        for i in range(3):
            step(i)
        self.wait()
        return max(1, min(1000, round(3 * seconds / (time.perf_counter() - start))))


# What CUDA, its driver, cuBLAS and PyTorch say when a kernel has broken the process's context.
_FATAL = re.compile(
    "can no longer use the GPU|illegal memory access|misaligned address|illegal instruction"
    "|unspecified launch failure|device-side assert|hardware stack error|launch timed out"
    "|invalid program counter|EXECUTION_FAILED|context is destroyed"
)


def is_fatal(error: BaseException) -> bool:
    """Whether the process can do nothing more with the GPU."""
    return bool(_FATAL.search(str(error)))


def _bfloat16() -> Any:
    import ml_dtypes
    import numpy as np

    return np.dtype(ml_dtypes.bfloat16)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


@cache
def _torch() -> Any:
    found = _import("torch")
    return found if found is not None and found.cuda.is_available() else None


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        return None


def use_emulator() -> None:
    """Put the tests' stand-in for CuPy, with the emulator of kernels, in CuPy's place."""
    from gradlab.backends import cuda

    tests = str(Path(__file__).parents[2] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    import fake_cuda

    if not isinstance(getattr(cuda._gate, "driver", None), fake_cuda.FakeDriver):
        sys.modules.update(fake_cuda.special_modules())
        cuda.use_driver(fake_cuda.FakeDriver(devices=1))
