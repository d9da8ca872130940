"""Each way in which CUDA can be missing is told apart, with what to do about it."""

import ctypes
import dataclasses
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from gradlab._environment import pip_install
from gradlab.backends import probe
from gradlab.backends.probe import CudaDevice, CudaProbe, probe_cuda

CUDA12, CUDA13 = pip_install("cuda12"), pip_install("cuda13")


class FakeDriver:
    """libcuda's functions, which answer through the references they are given."""

    def __init__(self, version=12040, capabilities=((9, 0),), init=0, error_name=None):
        self.version, self.capabilities = version, capabilities
        self.init, self.error_name = init, error_name

    def cuInit(self, flags):  # noqa: N802
        assert flags == 0
        return self.init

    def cuDriverGetVersion(self, answer):  # noqa: N802
        answer._obj.value = self.version

    def cuDeviceGetCount(self, answer):  # noqa: N802
        answer._obj.value = len(self.capabilities)

    def cuDeviceGet(self, answer, index):  # noqa: N802
        answer._obj.value = index

    def cuDeviceGetName(self, buffer, length, device):  # noqa: N802
        buffer.value = f"GPU {device}".encode()[:length]

    def cuDeviceTotalMem_v2(self, answer, device):  # noqa: N802
        assert isinstance(answer._obj, ctypes.c_size_t)
        answer._obj.value = 141 << 30

    def cuDeviceGetAttribute(self, answer, attribute, device):  # noqa: N802
        answer._obj.value = self.capabilities[device][{75: 0, 76: 1}[attribute]]

    def cuGetErrorName(self, code, answer):  # noqa: N802
        answer._obj.value = self.error_name


def fake_cupy(runtime=12090, device_count=lambda: 1, nvrtc=lambda: (12, 9)):
    return SimpleNamespace(
        cuda=SimpleNamespace(
            runtime=SimpleNamespace(runtimeGetVersion=lambda: runtime, getDeviceCount=device_count),
            nvrtc=SimpleNamespace(getVersion=nvrtc),
        )
    )


@pytest.fixture(autouse=True)
def fresh_probe():
    probe_cuda.cache_clear()
    yield
    probe_cuda.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """A Linux machine with nothing on it; ``machine(driver=…, packages=…)`` adds to it."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def build(driver=None, packages=None, cupy=None, hardware="", release=None):
        packages = packages or {}
        monkeypatch.setattr(probe, "_load_driver", lambda: driver)
        monkeypatch.setattr(probe, "_hardware", lambda: hardware)
        monkeypatch.setattr(probe, "_driver_release", lambda: release)
        monkeypatch.setattr(probe, "_package_version", packages.get)
        monkeypatch.setattr(probe.util, "find_spec", lambda name: None)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        return probe_cuda()

    return build


def test_a_working_machine(machine):
    driver = FakeDriver(12040, [(9, 0), (8, 0)])
    result = machine(driver, {"cupy-cuda12x": "14.2.0"}, fake_cupy(), release="550.54.15")
    assert result == CudaProbe(
        available=True,
        driver_version=(12, 4),
        driver_release="550.54.15",
        cupy_version="14.2.0",
        runtime_version=(12, 9),
        devices=[
            CudaDevice(0, "GPU 0", 141 << 30, (9, 0)),
            CudaDevice(1, "GPU 1", 141 << 30, (8, 0)),
        ],
    )
    assert (result.count, result.reason, result.remedy) == (2, "", "")


@pytest.mark.parametrize(
    ("hardware", "reason", "remedy"),
    [
        ("", "this machine has no NVIDIA GPU", "use device='cpu'"),
        (
            "gpu",
            "this machine has an NVIDIA GPU, but no NVIDIA driver is installed",
            "install the driver from https://www.nvidia.com/drivers",
        ),
        (
            "driver",
            "the NVIDIA driver is loaded, but its library libcuda cannot be found here",
            "in a container, start it with GPU access (docker run --gpus all); "
            "elsewhere, reinstall the NVIDIA driver",
        ),
    ],
)
def test_no_driver(machine, hardware, reason, remedy):
    assert machine(hardware=hardware) == CudaProbe(False, reason, remedy)


@pytest.mark.parametrize(
    ("platform", "reason"),
    [("darwin", "CUDA does not exist for macOS"), ("win32", "no NVIDIA driver is installed")],
)
def test_no_driver_elsewhere(machine, monkeypatch, platform, reason):
    monkeypatch.setattr(sys, "platform", platform)
    assert machine() == CudaProbe(False, reason, "use device='cpu'")


@pytest.mark.parametrize("driver", [FakeDriver(init=100), FakeDriver(capabilities=())])
def test_driver_without_a_device(machine, monkeypatch, driver):
    result = machine(driver)
    assert result.reason == "the NVIDIA driver is installed, but sees no GPU"
    assert "nvidia-smi" in result.remedy
    assert result.driver_version == (12, 4)
    probe_cuda.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    result = probe_cuda()
    assert result.reason == "no GPU is visible with CUDA_VISIBLE_DEVICES='-1'"
    assert result.remedy == "unset it, or set it to the number of a GPU, before Python starts"


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (34, "is the stub", "LD_LIBRARY_PATH"),
        (802, "not ready", "nvidia-fabricmanager"),
        (803, "old kernel module", "restart the machine"),
        (804, "forward-compatibility", "cuda-compat"),
        (999, "without saying why", "nvidia_uvm"),
        (46, "cuInit returned CUDA_ERROR_DEVICE_UNAVAILABLE", "nvidia-smi"),
    ],
)
def test_driver_that_does_not_start(machine, code, reason, remedy):
    result = machine(FakeDriver(init=code, error_name=b"CUDA_ERROR_DEVICE_UNAVAILABLE"))
    assert not result.available
    assert reason in result.reason
    assert remedy in result.remedy


def test_driver_that_does_not_name_its_error(machine):
    assert "(cuInit returned 12345)" in machine(FakeDriver(init=12345)).reason


@pytest.mark.parametrize(
    ("version", "capability", "remedy"),
    [
        (12040, (9, 0), CUDA12),
        (13000, (9, 0), CUDA13),
        (13000, (7, 5), CUDA13),
        (13000, (7, 0), CUDA12),  # CUDA 13 dropped Volta
        (
            11040,
            (8, 0),
            f"update the NVIDIA driver to release 525 or newer, then {CUDA12}",
        ),
    ],
)
def test_cupy_not_installed(machine, version, capability, remedy):
    result = machine(FakeDriver(version, [capability]))
    assert (result.reason, result.remedy) == ("CuPy is not installed", remedy)
    assert result.count == 1


def test_cupy_installed_twice(machine):
    packages = {"cupy-cuda12x": "13.6.0", "cupy-cuda13x": "14.2.0"}
    result = machine(FakeDriver(13000), packages)
    assert result.reason == (
        "cupy-cuda12x 13.6.0 and cupy-cuda13x 14.2.0 are installed together "
        "and overwrite each other's files"
    )
    assert result.remedy == (f"pip uninstall -y cupy-cuda12x cupy-cuda13x, then {CUDA13}")


def test_driver_too_old_for_the_wheel(machine):
    result = machine(FakeDriver(12040), {"cupy-cuda13x": "14.2.0"})
    assert result.reason == (
        "cupy-cuda13x needs CUDA 13, but the NVIDIA driver supports CUDA 12.4 at most"
    )
    assert result.remedy == (
        f"pip uninstall -y cupy-cuda13x, then {CUDA12}; "
        "or update the NVIDIA driver to release 580 or newer"
    )
    assert result.cupy_version == "14.2.0"


def test_driver_too_old_for_any_wheel(machine):
    result = machine(FakeDriver(11040), {"cupy-cuda12x": "14.2.0"})
    assert result.remedy == "update the NVIDIA driver to release 525 or newer"


def test_driver_too_old_for_a_cupy_built_from_source(machine):
    result = machine(FakeDriver(12040), {"cupy": "14.2.0"}, fake_cupy(runtime=13000))
    assert result.reason.startswith("cupy needs CUDA 13, but the NVIDIA driver supports CUDA 12.4")


def test_gpu_too_old_for_the_wheel(machine):
    result = machine(FakeDriver(13000, [(9, 0), (6, 1)]), {"cupy-cuda13x": "14.2.0"})
    assert result.reason == (
        "cupy-cuda13x does not support the GPU 1, which is older than CUDA 13 allows"
    )
    assert result.remedy == f"pip uninstall -y cupy-cuda13x, then {CUDA12}"


def test_cupy_takes_no_empty_variable_for_a_folder(machine, monkeypatch):
    def imported(name):
        assert "CUPY_CACHE_DIR" not in os.environ
        assert os.environ["CUPY_ACCELERATORS"] == "cub"
        raise ImportError("enough seen")

    monkeypatch.setenv("CUPY_CACHE_DIR", "")
    monkeypatch.setenv("CUPY_ACCELERATORS", "cub")
    monkeypatch.setattr(probe.importlib, "import_module", imported)
    assert "enough seen" in machine(FakeDriver(), {"cupy-cuda12x": "14.2.0"}).reason


def test_cupy_that_cannot_be_imported(machine, monkeypatch):
    def broken(name):
        banner = f"\n{'=' * 64}\nFailed to import CuPy.\n\nOriginal error: ...\n{'=' * 64}"
        cause = ImportError("libcublas.so.12: cannot open shared object file\nmore lines")
        raise ImportError(banner) from cause

    monkeypatch.setattr(probe.importlib, "import_module", broken)
    result = machine(FakeDriver(), {"cupy-cuda12x": "14.2.0"})
    assert result.reason == (
        "CuPy cannot be imported: ImportError: libcublas.so.12: cannot open shared object file"
    )
    packages = CUDA12.removeprefix("pip install ")
    assert result.remedy == f"pip install --upgrade --force-reinstall {packages}"


def raising(text):
    def function():
        raise RuntimeError(text)

    return function


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ({"device_count": raising("cudaErrorUnknown: x\ny")}, "RuntimeError: cudaErrorUnknown: x"),
        ({"nvrtc": raising("")}, "RuntimeError"),
    ],
)
def test_cupy_that_does_not_run(machine, broken, line):
    result = machine(FakeDriver(), {"cupy-cuda12x": "14.2.0"}, fake_cupy(**broken))
    assert result.reason == f"CuPy does not run: {line}"
    assert not result.available


def test_cupy_without_a_package_is_tried(machine, monkeypatch):
    machine(FakeDriver(), {}, fake_cupy())
    probe_cuda.cache_clear()
    monkeypatch.setattr(probe.util, "find_spec", lambda name: object())
    result = probe_cuda()
    assert (result.available, result.cupy_version) == (True, "unknown")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, ""),
        ({"proc/driver/nvidia/version": ""}, "driver"),
        ({"dev/nvidia0": ""}, "driver"),
        ({"dev/nvidia-caps/x": ""}, ""),
        ({"vendor": "0x10de\n", "class": "0x030200\n"}, "gpu"),
        ({"vendor": "0x10de\n", "class": "0x040300\n"}, ""),  # the sound of a graphics card
        ({"vendor": "0x1002\n", "class": "0x030000\n"}, ""),
        ({"vendor": "0x10de\n"}, ""),
    ],
)
def test_hardware(tmp_path, files, found):
    for name, text in files.items():
        folder = "" if "/" in name else "sys/bus/pci/devices/0000:01:00.0/"
        path = tmp_path / f"{folder}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert probe._hardware(tmp_path) == found


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            "580.65.06",
        ),
        ("something else", None),
        (None, None),
    ],
)
def test_driver_release(tmp_path, text, release):
    if text is not None:
        path = tmp_path / "proc/driver/nvidia/version"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert probe._driver_release(tmp_path) == release


def test_library_that_cannot_be_loaded(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert probe._load_driver() is None


def test_package_version():
    assert probe._package_version("numpy")
    assert probe._package_version("cupy-cuda99x") is None


def test_the_answer_is_kept_until_cleared(machine):
    before = machine()
    assert probe_cuda() is before
    probe_cuda.cache_clear()
    assert probe_cuda() is not before


def test_reasons_fit_into_a_sentence(machine):
    result = machine(FakeDriver(), {"cupy-cuda13x": "14.2.0"})
    for phrase in (result.reason, result.remedy):
        assert phrase == phrase.strip()
        assert not phrase.endswith(".")
        assert "\n" not in phrase
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.available = True


def test_this_machine_without_its_gpus_is_told_at_once():
    code = "from gradlab.backends.probe import probe_cuda; print(probe_cuda().available)"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert time.perf_counter() - started < 5  # 0.3 s where nothing else runs
