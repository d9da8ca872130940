"""Why CUDA works here, or why not and what to do about it.

`probe_cuda` asks in the order in which things can be missing: the driver, a GPU that it sees, a
CuPy that fits the driver. The driver is asked through ctypes, so that a machine without a GPU
gets its answer in milliseconds; CuPy is imported only when all else is in place.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from gradlab._environment import pip_install

Version = tuple[int, int]

# The wheels of CuPy, one for each major version of CUDA, and the package built from source. All
# of them install the same module.
CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")

# CUDA 13 dropped the GPUs before Turing.
CUDA13_COMPUTE_CAPABILITY = (7, 5)


@dataclass(frozen=True)
class CudaDevice:
    """A GPU as the driver describes it; ``memory`` is in bytes."""

    index: int
    name: str
    memory: int
    compute_capability: Version


@dataclass(frozen=True)
class CudaProbe:
    """What `probe_cuda` found.

    Where CUDA works, ``reason`` and ``remedy`` are empty; where it does not, each is a phrase
    without a full stop. What was not reached stays None or empty. ``driver_version`` is the
    newest CUDA version that the driver supports, ``driver_release`` the driver's own version,
    ``runtime_version`` the CUDA version that CuPy runs on.
    """

    available: bool
    reason: str = ""
    remedy: str = ""
    driver_version: Version | None = None
    driver_release: str | None = None
    cupy_version: str | None = None
    runtime_version: Version | None = None
    devices: list[CudaDevice] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of GPUs that the driver shows to this process."""
        return len(self.devices)


class _UnusableError(Exception):
    """Ends the probe with a reason and a remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@cache
def probe_cuda() -> CudaProbe:
    """Find out whether CUDA works; never raises.

    The answer is kept for the life of the process; ``probe_cuda.cache_clear()`` asks again.
    """
    facts: dict[str, Any] = {}
    try:
        for fact, value in _facts():
            facts[fact] = value
    except _UnusableError as problem:
        return CudaProbe(False, problem.reason, problem.remedy, **facts)
    return CudaProbe(True, **facts)


def _facts() -> Iterator[tuple[str, Any]]:
    """Yield the fields of `CudaProbe` as they become known, up to what does not work."""
    driver = _load_driver()
    if driver is None:
        raise _no_driver()
    driver_version = _driver_version(driver)
    yield "driver_version", driver_version
    yield "driver_release", _driver_release()

    _initialise(driver)
    devices = _list_devices(driver)
    if not devices:
        raise _no_device()
    yield "devices", devices

    extra = _fitting_extra(driver_version, devices)
    package, cupy_version = _installed_cupy(extra)
    yield "cupy_version", cupy_version
    _check_package_fits(package, driver_version, devices, extra)

    cupy = _import_cupy(extra)
    runtime_version = _version(cupy.cuda.runtime.runtimeGetVersion())
    yield "runtime_version", runtime_version
    if runtime_version[0] > driver_version[0]:
        raise _driver_too_old(package, runtime_version[0], driver_version, extra)
    _check_cupy_runs(cupy, extra)


# The driver


def _load_driver() -> Any:
    """The driver's library, or None. The system's loader knows it by name; nothing is searched."""
    if sys.platform == "darwin":
        return None
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _driver_version(driver: Any) -> Version:
    return _version(_ask_int(driver.cuDriverGetVersion))


def _driver_release(root: Path = Path("/")) -> str | None:
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found[1] if found else None


def _no_driver() -> _UnusableError:
    cpu = "use device='cpu'"
    if sys.platform == "darwin":
        return _UnusableError("CUDA does not exist for macOS", cpu)
    hardware = _hardware()
    if hardware == "driver":
        return _UnusableError(
            "the NVIDIA driver is loaded, but its library libcuda cannot be found here",
            "in a container, start it with GPU access (docker run --gpus all); "
            "elsewhere, reinstall the NVIDIA driver",
        )
    if hardware == "gpu":
        return _UnusableError(
            "this machine has an NVIDIA GPU, but no NVIDIA driver is installed",
            "install the driver from https://www.nvidia.com/drivers",
        )
    if sys.platform == "win32":
        return _UnusableError("no NVIDIA driver is installed", cpu)
    return _UnusableError("this machine has no NVIDIA GPU", cpu)


def _hardware(root: Path = Path("/")) -> str:
    """What Linux shows of NVIDIA: ``"driver"`` (loaded), ``"gpu"`` (only the card) or ``""``."""
    if (root / "proc/driver/nvidia").is_dir() or any((root / "dev").glob("nvidia[0-9]*")):
        return "driver"
    for device in (root / "sys/bus/pci/devices").glob("*"):
        # Class 03 is a display controller; NVIDIA also makes sound, USB and bridge devices.
        if _read(device / "vendor") == "0x10de" and _read(device / "class").startswith("0x03"):
            return "gpu"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# What the driver answers to cuInit, from the CUresult values of the CUDA driver API:
# https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html
_NO_DEVICE = 100
_INIT_PROBLEMS = {
    34: (
        "libcuda is the stub that programs are linked with, not the driver",
        "remove the CUDA toolkit's 'stubs' folder from LD_LIBRARY_PATH",
    ),
    802: (
        "the GPUs are not ready yet",
        "wait until NVIDIA's Fabric Manager runs: systemctl status nvidia-fabricmanager",
    ),
    803: (
        "the NVIDIA driver was updated while its old kernel module is still loaded",
        "restart the machine",
    ),
    804: (
        "CUDA's forward-compatibility package does not support this GPU",
        "remove its folder (cuda-compat) from LD_LIBRARY_PATH, or update the NVIDIA driver",
    ),
    999: (
        "the NVIDIA driver failed to start without saying why",
        "reload its module (sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm) "
        "or restart the machine",
    ),
}


def _initialise(driver: Any) -> None:
    code = driver.cuInit(0)
    if code == 0:
        return
    if code == _NO_DEVICE:
        raise _no_device()
    unknown = (
        f"the NVIDIA driver failed to start (cuInit returned {_error_name(driver, code)})",
        "see whether nvidia-smi works; if it does not, restart the machine or reinstall the driver",
    )
    raise _UnusableError(*_INIT_PROBLEMS.get(code, unknown))


def _error_name(driver: Any, code: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else str(code)


def _no_device() -> _UnusableError:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _UnusableError(
            f"no GPU is visible with CUDA_VISIBLE_DEVICES={visible!r}",
            "unset it, or set it to the number of a GPU, before Python starts",
        )
    return _UnusableError(
        "the NVIDIA driver is installed, but sees no GPU",
        "in a container, start it with GPU access (docker run --gpus all); "
        "elsewhere, see whether nvidia-smi lists a GPU",
    )


def _list_devices(driver: Any) -> list[CudaDevice]:
    """Describe the GPUs, without creating a context on any (which costs time and memory)."""
    return [_describe(driver, index) for index in range(_ask_int(driver.cuDeviceGetCount))]


# CUdevice_attribute values of the CUDA driver API.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


def _describe(driver: Any, index: int) -> CudaDevice:
    handle = _ask_int(driver.cuDeviceGet, index)
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    capability = (
        _ask_int(driver.cuDeviceGetAttribute, _COMPUTE_CAPABILITY_MAJOR, handle),
        _ask_int(driver.cuDeviceGetAttribute, _COMPUTE_CAPABILITY_MINOR, handle),
    )
    return CudaDevice(index, name.value.decode(errors="replace"), memory.value, capability)


def _ask_int(function: Any, *arguments: int) -> int:
    """Call a driver function that writes an int through its first argument.

    A call that fails writes nothing, and leaves 0: no devices, no version.
    """
    answer = ctypes.c_int()
    function(ctypes.byref(answer), *arguments)
    return answer.value


def _version(number: int) -> Version:
    """CUDA writes 12.4 as 12040."""
    return number // 1000, number % 1000 // 10


# CuPy


def _fitting_extra(driver_version: Version, devices: list[CudaDevice]) -> str | None:
    """The extra of gradlab whose CuPy suits this driver and these GPUs, or None."""
    oldest = min(device.compute_capability for device in devices)
    if driver_version >= (13, 0) and oldest >= CUDA13_COMPUTE_CAPABILITY:
        return "cuda13"
    return "cuda12" if driver_version >= (12, 0) else None


def cupy_packages() -> dict[str, str]:
    """The CuPy packages that are installed, with their versions; more than one is a mistake."""
    return {name: version for name in CUPY_PACKAGES if (version := _package_version(name))}


def _installed_cupy(extra: str | None) -> tuple[str, str]:
    """Name and version of the one CuPy package that is installed."""
    found = cupy_packages()
    if len(found) > 1:
        names = " and ".join(f"{name} {version}" for name, version in found.items())
        raise _UnusableError(
            f"{names} are installed together and overwrite each other's files",
            f"pip uninstall -y {' '.join(found)}, then {_install(extra)}",
        )
    if found:
        return next(iter(found.items()))
    if util.find_spec("cupy") is not None:  # built from source, say, and never registered
        return "cupy", "unknown"
    raise _UnusableError("CuPy is not installed", _install(extra))


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(extra: str | None) -> str:
    if extra is None:
        return f"update the NVIDIA driver to release 525 or newer, then {pip_install('cuda12')}"
    return pip_install(extra)


def _check_package_fits(
    package: str, driver_version: Version, devices: list[CudaDevice], extra: str | None
) -> None:
    """Refuse a wheel that this machine cannot run, by its name, before it is imported."""
    found = re.search(r"cuda(\d+)x", package)
    if found is None:
        return
    cuda = int(found[1])
    if cuda > driver_version[0]:
        raise _driver_too_old(package, cuda, driver_version, extra)
    too_old = [each for each in devices if each.compute_capability < CUDA13_COMPUTE_CAPABILITY]
    if cuda >= 13 and too_old:
        raise _UnusableError(
            f"{package} does not support the {too_old[0].name}, which is older than CUDA 13 allows",
            f"pip uninstall -y {package}, then {_install(extra)}",
        )


def _driver_too_old(
    package: str, cuda: int, driver_version: Version, extra: str | None
) -> _UnusableError:
    instead = f"pip uninstall -y {package}, then {_install(extra)}; or " if extra else ""
    return _UnusableError(
        f"{package} needs CUDA {cuda}, but the NVIDIA driver supports CUDA "
        f"{driver_version[0]}.{driver_version[1]} at most",
        f"{instead}{_update_driver(cuda)}",
    )


def _update_driver(cuda: int) -> str:
    # https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    release = {12: 525, 13: 580}.get(cuda)
    return "update the NVIDIA driver" + (f" to release {release} or newer" if release else "")


def _import_cupy(extra: str | None) -> Any:
    # CuPy takes an empty CUPY_CACHE_DIR for a folder, and fails at the first sum.
    for name in [key for key, value in os.environ.items() if key.startswith("CUPY_") and not value]:
        os.environ.pop(name)
    try:
        return importlib.import_module("cupy")
    except Exception as error:  # a broken installation can raise anything
        raise _UnusableError(
            f"CuPy cannot be imported: {_first_line(error)}", _mend(extra)
        ) from error


def _check_cupy_runs(cupy: Any, extra: str | None) -> None:
    try:
        cupy.cuda.runtime.getDeviceCount()
        # CuPy compiles nearly all that it runs; without NVRTC the first sum would fail.
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # CuPy's own errors, or whatever a missing library raises
        raise _UnusableError(f"CuPy does not run: {_first_line(error)}", _mend(extra)) from error


def _mend(extra: str | None) -> str:
    if extra is None:
        return _install(extra)
    return pip_install(extra, options="--upgrade --force-reinstall")


def _first_line(error: BaseException) -> str:
    """What went wrong at the bottom; CuPy wraps it in a banner of many lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
