"""How the driver speaks to CuPy, on a CuPy that notes what it is asked and a compiler that is real.

What CuPy itself does with it can only be seen on a GPU: `python -m benchmarks.gpu`.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from gradlab.kernels.cuda import compiler, driver as kernels_driver, nvrtc, source as sources

from gradlab.backends import cuda
from gradlab.backends.gate import counters
from gradlab.errors import CompileError

pytestmark = pytest.mark.skipif(bool(nvrtc.available()), reason=nvrtc.available())

LIMIT = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class Cupy:
    """CuPy's names, as far as the driver uses them; ``calls`` notes their use."""

    def __init__(self, capability=(9, 0), devices=2):
        self.calls, self.current, self.ndarray = [], 0, type("ndarray", (), {})
        note = self.calls.append

        class Function:
            def __init__(self, name):
                self.ptr = name

            def __call__(self, grid, block, args, shared_mem=0):
                assert all(type(each) is tuple for each in (grid, block))
                note(("launch", self.ptr, grid, block, list(args), shared_mem))

        class Module:
            def load(self, cubin):
                assert type(cubin) is bytes
                note(("load", cubin[:4], cubin))

            def get_function(self, name):
                return Function(name)

        class Device:
            mem_info = (3 << 30, 8 << 30)

            def __init__(device, index):  # noqa: N805
                device.index = index

            def __enter__(device):  # noqa: N805
                device.before, self.current = self.current, device.index
                return device

            def __exit__(device, *_):  # noqa: N805
                self.current = device.before

            def synchronize(device):  # noqa: N805
                note(("synchronize", device.index))

        driver = SimpleNamespace(
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=LIMIT,
            funcGetAttribute=lambda attribute, function: 48 << 10,
            funcSetAttribute=lambda function, attribute, value: note(("set", function, attribute,
                                                                     value)),
        )  # fmt: skip
        properties = {
            "name": b"NVIDIA H200", "major": capability[0], "minor": capability[1],
            "multiProcessorCount": 132, "sharedMemPerBlockOptin": 227 << 10,
            "l2CacheSize": 60 << 20,
        }  # fmt: skip
        runtime = SimpleNamespace(
            getDevice=lambda: self.current, getDeviceCount=lambda: devices,
            getDeviceProperties=lambda index: properties,
        )  # fmt: skip
        function = SimpleNamespace(CPointer=lambda address: ("at", address))
        self.cuda = SimpleNamespace(
            Module=Module, Device=Device, driver=driver, runtime=runtime, function=function
        )

    def get_default_memory_pool(self):
        return SimpleNamespace(free_bytes=lambda: 1 << 30)

    def took(self, what):
        return [call for call in self.calls if call[0] == what]


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    made = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    sources.read.cache_clear()
    (tmp_path / "twice.cu").write_text(
        'extern "C" __global__ void twice(DTYPE* x, long long n) {}\n'
        'extern "C" __global__ void thrice(DTYPE* x, long long n) {}'
    )
    (tmp_path / "wrong.cu").write_text('extern "C" __global__ void k() { y = 1; }')
    before = cuda.use_driver(cuda.CupyDriver())
    yield made
    cuda.use_driver(before)
    sources.read.cache_clear()


DEFINES = (("DTYPE", "float"),)


def launch(symbol="twice", source="twice.cu", shared=0, grid=(3, 2), args=("x", 5)):
    kernels_driver.launch(source, symbol, grid, (256,), args, defines=DEFINES, shared=shared)


def test_a_module_is_loaded_once_for_a_device_and_a_kernel_launched_as_asked(cupy):
    for symbol in ("twice", "thrice", "twice"):
        launch(symbol)
    (load,) = cupy.took("load")
    assert load[1] == b"\x7fELF"
    struct = np.zeros((), [("a", "i8"), ("b", "f8")])
    launch(args=("x", 5, 1.5, struct))
    assert cupy.took("launch")[0] == ("launch", "twice", (3, 2), (256,), ["x", 5], 0)
    assert cupy.took("launch")[-1][4][2:] == [1.5, ("at", struct.ctypes.data)]
    with cupy.cuda.Device(1):
        launch()
    assert len(cupy.took("load")) == 2
    assert cupy.took("load")[0][2] == cupy.took("load")[1][2]  # compiled once


def test_the_machine_code_is_for_the_gpus_own_architecture(cupy, monkeypatch):
    seen = []

    def loaded(source, defines, arch, load):
        seen.append((source, defines, arch))
        return load(b"")

    monkeypatch.setattr(compiler, "loaded", loaded)
    launch()
    assert seen == [("twice.cu", DEFINES, "sm_90a")]


def test_more_shared_memory_is_asked_for_once(cupy):
    for shared in (0, 48 << 10, 100 << 10, 64 << 10, 100 << 10, 200 << 10):
        launch(shared=shared)
    assert cupy.took("set") == [
        ("set", "twice", LIMIT, 100 << 10), ("set", "twice", LIMIT, 200 << 10),
    ]  # fmt: skip
    assert [call[5] for call in cupy.took("launch")][-1] == 200 << 10


def test_an_empty_grid_launches_nothing(cupy):
    counters.reset()
    launch(grid=(0, 5))  # CuPy would launch one block of it
    assert cupy.calls == []
    assert counters.launches == 0


def test_too_many_blocks_are_refused(cupy):
    for grid in ((2**31,), (1, 65_536), (1, 1, 65_536)):
        with pytest.raises(ValueError, match=r"too large for one launch of twice: expected a grid"):
            launch(grid=grid)
    launch(grid=(2**31 - 1, 65_535, 65_535))
    assert len(cupy.took("launch")) == 1


def test_a_kernel_that_does_not_compile_names_itself(cupy):
    expected = r'^wrong.cu \(float\) does not compile for sm_90a: wrong.cu\(1\): error: ident.* "y"'
    with pytest.raises(CompileError, match=expected):
        launch("k", "wrong.cu")


def test_properties_and_memory(cupy):
    driver = cuda.driver()
    assert driver.properties() == ("NVIDIA H200", (9, 0), 132, 227 << 10, 60 << 20)
    assert driver.device_count() == 2
    # What CuPy keeps for later is free as well.
    assert driver.memory(1) == {"used": 4 << 30, "free": 4 << 30, "total": 8 << 30}
    driver.synchronize(1)
    assert cupy.took("synchronize") == [("synchronize", 1)]


# ------------------------------------------------------------------------------------ times


class Gpu:
    """A host and a GPU, each with a clock: what is queued runs when the GPU comes to it."""

    def __init__(self, cupy, monkeypatch):
        self.now = self.free = 0.0  # the host's time; when the GPU has done what is queued
        self.spins = []
        gpu = self

        class Event:
            def record(event):  # noqa: N805
                event.at = max(gpu.free, gpu.now)

            @property
            def done(event):  # noqa: N805
                return event.at <= gpu.now

            def synchronize(event):  # noqa: N805
                gpu.now = max(gpu.now, event.at)

        cupy.float32, cupy.int64 = np.float32, np.int64
        cupy.cuda.Event = Event
        cupy.cuda.get_elapsed_time = lambda start, end: 1e3 * (end.at - start.at)
        cupy.zeros = lambda *_: SimpleNamespace(max=lambda: gpu.work(50e-6))
        cupy.empty = lambda *_: "elapsed"
        monkeypatch.setattr(cuda, "spin", self.spin)

    def spin(self, driver, elapsed, seconds):
        assert elapsed == "elapsed"
        self.spins.append(seconds)
        self.work(seconds)

    def work(self, seconds):
        """The GPU gets something to do, from now on or when it has time."""
        self.free = max(self.free, self.now) + seconds

    def call(self, launches, host, device):
        """A call that launches kernels, each of which takes the host and the GPU some time."""
        for _ in range(launches):
            self.now += host
            self.work(device)


@pytest.mark.parametrize("launches", [1, 18, 100, 2000])
def test_the_hosts_time_is_no_part_of_the_gpus(cupy, monkeypatch, launches):
    gpu = Gpu(cupy, monkeypatch)
    counters.reset()
    seconds = cuda.driver().timed(lambda: gpu.call(launches, 10e-6, 1e-6), 3)
    assert seconds == pytest.approx([launches * 1e-6] * 3)  # and not ten times that
    assert max(gpu.spins) < 4 * max(100e-6, launches * 10e-6)
    assert gpu.spins[-3:] == [gpu.spins[-1]] * 3  # one calibration for all repeats
    assert counters.launches == 0


def test_a_call_that_waits_for_the_gpu_is_timed_with_its_wait(cupy, monkeypatch):
    gpu = Gpu(cupy, monkeypatch)

    def waiting():
        gpu.now = max(gpu.now, gpu.free) + 5e-6
        gpu.work(1e-6)

    (seconds,) = cuda.driver().timed(waiting, 1)
    assert seconds == pytest.approx(6e-6)
    assert len(gpu.spins) < 12
