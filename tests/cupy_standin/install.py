"""The real CuPy on a machine without a GPU: `install` puts driver.cpp under it.

Device memory is host memory and kernels compute nothing, so the values that a program computes are
zeros. All else is CuPy's own: which functions it has and which arguments they take, the dtype, the
shape and the device of a result, what it launches, what it waits for.

CuPy finds CUDA in three places, and each is replaced:

- the driver, ``libcuda.so.1``, which it opens by name: ours is loaded first;
- the runtime, which is linked into its extension modules: its functions are overwritten in memory
  by jumps to ours;
- cuBLAS, cuSOLVER and the like, which need not be installed: libraries of their names are built
  with the functions that CuPy asks for.

Kernels are not compiled either, since nothing runs them: CuPy has thousands, one for each set of
dtypes. ``GRADLAB_CUPY_COMPILE=1`` compiles them all.

x86-64 Linux with g++ and binutils. A tool for tests: what it changes lasts as long as the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gradlab.kernels.cuda import compiler, nvrtc

from gradlab import devices
from gradlab.backends import cuda

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
VERSION = "14.2.0"  # of CuPy: another one may ask for functions that driver.cpp lacks

# The folder that CuPy was installed to, by `make cupy`. It is no part of the environment, in
# which CuPy would be found by all that looks for a GPU.
FOLDER = os.environ.get("GRADLAB_CUPY", "")


@cache
def unavailable() -> str:
    """Why CuPy cannot be run here without a GPU; empty where it can."""
    if not FOLDER:
        return "the real CuPy runs in `make cupy`, which sets GRADLAB_CUPY"
    if not (Path(FOLDER) / f"cupy_cuda13x-{VERSION}.dist-info").is_dir():
        return f"CuPy {VERSION} is not in {FOLDER}"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"the stand-in driver is written for Linux on x86-64, not {platform.platform()}"
    for program in (COMPILER, "nm"):
        if shutil.which(program) is None:
            return f"{program} is not on the PATH"
    return ""


def required() -> None:
    """Skip the module that calls this where CuPy cannot be run."""
    if why := unavailable():
        pytest.skip(why, allow_module_level=True)


class Counts(ctypes.Structure):
    """What the program has asked of the driver. A copy to the host is followed by a wait."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "launches", "waits", "copies_to_host", "copies_to_device", "copies_on_devices",
            "fills", "allocations",
        )
    ]  # fmt: skip


class StandIn:
    """The driver under CuPy, and the words with it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._counts = Counts.in_dll(library, "standin_counts")
        self._device_of = library.standin_device_of
        self._device_of.argtypes = [ctypes.c_void_p]
        self._launched = library.standin_launched
        self._launched.restype = ctypes.c_char_p
        self._asked_in_vain = library.standin_asked_in_vain
        self._asked_in_vain.restype = ctypes.c_char_p

    def set_devices(self, count: int) -> None:
        """Show gradlab ``count`` of the two GPUs; CuPy counts them once, and keeps to it."""
        driver = cuda.CupyDriver()
        driver.device_count = lambda: count  # type: ignore[method-assign]
        cuda.use_driver(driver)
        devices.forget_cuda()

    def device_of(self, address: int) -> int:
        """The number of the GPU in whose memory an address lies, -1 for the host's."""
        return int(self._device_of(address))

    def counts(self) -> dict[str, int]:
        return {name: getattr(self._counts, name) for name, _ in Counts._fields_}

    def launched(self) -> list[str]:
        """The names of the kernels launched since the last call."""
        return self._launched().decode().splitlines()

    def asked_in_vain(self) -> list[str]:
        """The functions called since the last call that driver.cpp does not have."""
        return sorted(set(self._asked_in_vain().decode().splitlines()))

    def during(self, function: Callable[[], Any]) -> tuple[dict[str, int], list[str]]:
        """What ``function`` asks of the driver: the counts, and the names of its kernels."""
        self.launched()
        before = self.counts()
        function()
        after = self.counts()
        return {name: after[name] - before[name] for name in after}, self.launched()


@cache
def install() -> StandIn:
    """Import CuPy over the stand-in driver; call it before anything else imports CuPy."""
    if why := unavailable():
        raise RuntimeError(why)
    if "cupy" in sys.modules:
        raise RuntimeError("CuPy was imported before the stand-in driver")
    sys.path.insert(0, FOLDER)
    nvrtc.library()  # loaded once, CuPy finds it too, wherever it was found
    driver = _library("libcuda.so.1", (HERE / "driver.cpp").read_text(encoding="utf-8"))
    libraries = {}
    for soname, functions in _wanted_functions().items():
        name = soname.partition(".")[0].removeprefix("lib")
        libraries[name] = _library(soname, _source_of(functions), soname)
    _find(libraries)
    runtime = importlib.import_module("cupy_backends.cuda.api.runtime")
    missing = _missing_functions(runtime, driver)
    _replace_runtime(runtime, driver, missing)
    cupy = importlib.import_module("cupy")
    for name in ("cupy.cuda.cub", "cupy.cuda.thrust", "cupy.random._generator_api"):
        _replace_runtime(importlib.import_module(name), driver, missing)
    # Memory that was freed holds what it held: without CuPy's pool each array begins as zeros.
    cupy.cuda.set_allocator(None)
    if os.environ.get("GRADLAB_CUPY_COMPILE", "0") in ("", "0"):
        _leave_out_compilation(cupy)
    return StandIn(driver)


def _leave_out_compilation(cupy: Any) -> None:
    """Make modules of nothing, in CuPy and in gradlab."""

    def module(source: str, *_: Any, name_expressions: Any = None, **__: Any) -> Any:
        made = cupy.cuda.Module()
        made.load(b"")
        made._set_mapping({name: name for name in name_expressions or ()})
        return made

    of_cupy: Any = importlib.import_module("cupy.cuda.compiler")
    of_cupy._compile_module_with_cache = module
    compiler.cubin = lambda *_, **__: b""


# ------------------------------------------------------------------------------------- libraries


def _library(soname: str, text: str, version: str = "") -> ctypes.CDLL:
    """Build a library, once per content, and load it under a name.

    Where another library needs one of that name, the system's loader takes what is loaded.
    """
    key = hashlib.sha256(f"{COMPILER} {version}\n{text}".encode()).hexdigest()[:16]
    file = HERE / ".build" / f"{key}-{soname}"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        command = [COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", "-x", "c++", "-",
                   f"-Wl,-soname,{soname}", "-o", str(part)]  # fmt: skip
        if version:  # symbols of NVIDIA's libraries carry the library's name as their version
            script = part.with_suffix(".map")
            script.write_text(f"{version} {{ global: *; }};", encoding="utf-8")
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, input=text.encode(), check=True)
        os.replace(part, file)
    return ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _wanted_functions() -> dict[str, list[str]]:
    """The functions that CuPy takes from NVIDIA's libraries, by the library's name."""
    found = defaultdict(set)
    for path in Path(FOLDER).glob("cupy*/**/*.so"):
        for symbol in _symbols(path, "--dynamic", "--undefined-only"):
            name, _, soname = symbol[-1].partition("@")
            if re.match(r"lib(cublas|cusolver|cusparse|curand|cufft)\.", soname):
                found[soname].add(name)
    return {soname: sorted(names) for soname, names in sorted(found.items())}


def _find(libraries: dict[str, ctypes.CDLL]) -> None:
    """Let CuPy's search for NVIDIA's libraries find these."""
    pathfinder: Any = importlib.import_module("cuda.pathfinder")
    search = pathfinder.load_nvidia_dynamic_lib
    found = {
        name: SimpleNamespace(abs_path=library._name, _handle_uint=library._handle)
        for name, library in libraries.items()
    }
    pathfinder.load_nvidia_dynamic_lib = lambda name: found.get(name) or search(name)


# What functions tell the host, the size of a workspace or a status: as which type, and in which
# arguments. https://docs.nvidia.com/cuda/cusolver, https://docs.nvidia.com/cuda/cublas
_TELLS = {
    r"cusolverDn[SDCZ](getrf|geqrf|potrf)_bufferSize": ("int", 5),
    r"cusolverDn[SDCZ](orgqr|ungqr)_bufferSize": ("int", 7),
    r"cusolverDn[SDCZ](sy|he)ev[dj]_bufferSize": ("int", 7),
    r"cusolverDn[SDCZ]gesvd_bufferSize": ("int", 3),
    r"cusolverDn[SDCZ]gesvdj_bufferSize": ("int", 12),
    r"cusolverDn[SDCZ]gesvdjBatched_bufferSize": ("int", 11),
    r"cusolverDnXsyevd_bufferSize": ("long", 11, 12),
    r"cublas[SDCZ]getrsBatched": ("int", 9),
}


def _source_of(functions: list[str]) -> str:
    """A library whose functions succeed: what creates a handle gives one, sizes are 0.

    Each of the others counts as a launch; in truth it may launch several kernels, or none.
    """
    lines = ['extern "C" {', "extern struct { long launches; } standin_counts;"]
    for name in functions:
        told = [places for form, places in _TELLS.items() if re.fullmatch(form, name)]
        if told:
            kind, *places = told[0]
            given = ", ".join(f"{kind}* a{i}" for i in range(max(places) + 1))
            written = " = ".join(f"*a{i}" for i in places)
            lines.append(f"int {name}({given}) {{ {written} = 0; return 0; }}")
        elif re.search(r"Create\w*$", name):
            lines.append(f"int {name}(void** made) {{ *made = (void*)8; return 0; }}")
        elif re.search(r"Get(Version|Property)$", name):
            lines.append(f"int {name}(void*, int* version) {{ *version = 13000; return 0; }}")
        elif re.search(r"(Destroy|Set|Get|bufferSize)", name):
            lines.append(f"int {name}() {{ return 0; }}")
        else:
            lines.append(f"int {name}() {{ ++standin_counts.launches; return 0; }}")
    return "\n".join([*lines, "}", ""])


# --------------------------------------------------------------------------------------- runtime


def _symbols(path: Path | str, *options: str) -> Iterator[list[str]]:
    found = subprocess.run(["nm", *options, str(path)], capture_output=True, text=True, check=True)
    return (line.split() for line in found.stdout.splitlines())


def _runtime_functions(module: Any) -> dict[str, int]:
    """The functions of the CUDA runtime that is linked into an extension module: their places.

    Those that register the kernels of the module have been called by now, and stay.
    """
    listed = (parts for parts in _symbols(module.__file__) if len(parts) == 3)
    symbols = {name: int(place, 16) for place, _, name in listed}
    entry = next(name for name in symbols if name.startswith("PyInit_"))
    base = _address(getattr(ctypes.CDLL(module.__file__), entry)) - symbols[entry]
    return {
        name: base + place
        for name, place in symbols.items()
        if re.fullmatch(r"(__)?cuda(?!Register|Unregister|InitModule)[A-Z]\w+", name)
    }


def _missing_functions(module: Any, driver: ctypes.CDLL) -> ctypes.CDLL:
    """Functions that note their name and fail, for those that driver.cpp does not have."""
    names = sorted(map(_plain, _runtime_functions(module)))
    lines = ['extern "C" {', "int standin_missing(const char* name);"]
    lines += [
        f'int {name}() {{ return standin_missing("{name}"); }}'
        for name in dict.fromkeys(names)
        if not hasattr(driver, name)
    ]
    return _library("libstandin_missing.so", "\n".join([*lines, "}", ""]))


def _replace_runtime(module: Any, driver: ctypes.CDLL, missing: ctypes.CDLL) -> None:
    """Overwrite the CUDA runtime that is linked into an extension module by jumps to ours."""
    for name, place in _runtime_functions(module).items():
        plain = _plain(name)
        ours = _address(getattr(driver if hasattr(driver, plain) else missing, plain))
        _write(place, b"\x48\xb8" + ours.to_bytes(8, "little") + b"\xff\xe0")  # mov rax; jmp rax


def _plain(name: str) -> str:
    """A function's name without what says that its default stream is the thread's."""
    return re.sub(r"_(ptsz|ptds)$", "", name)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _write(address: int, code: bytes) -> None:
    """Write into the program's own text, which is read-only until asked for."""
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PAGESIZE")
    start = address // size * size
    if mprotect(start, address + len(code) - start, 7):  # to read, write and execute
        raise OSError("this system lets no program write into its own text")
    ctypes.memmove(address, code, len(code))
