"""NVRTC, the compiler for CUDA sources that needs neither a toolkit nor a GPU.

The library comes with CuPy's CUDA extras, or alone as the wheel ``nvidia-cuda-nvrtc``. It is
called through ctypes rather than by way of CuPy, which would add options of its own
(``-ftz=true``, which makes zeros of small numbers) and cannot compile for ``sm_90a``.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any, NamedTuple

from gradlab._environment import pip_install


class CompileError(RuntimeError):
    """A source that does not compile; ``log`` is all that the compiler said."""

    def __init__(self, log: str) -> None:
        super().__init__(first_error(log))
        self.log = log


class Compiled(NamedTuple):
    """Machine code, and what the compiler said about it."""

    cubin: bytes
    log: str


def compile_source(text: str, name: str, arch: str, options: Sequence[str] = ()) -> Compiled:
    """Compile a source for an architecture such as ``"sm_90a"``; raises `CompileError`.

    Other threads run meanwhile: ctypes gives up the interpreter's lock.
    """
    nvrtc = library()
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), name.encode(), 0, None, None
    ))  # fmt: skip
    try:
        given = [each.encode() for each in (f"--gpu-architecture={arch}", *options)]
        failed = nvrtc.nvrtcCompileProgram(
            program, len(given), (ctypes.c_char_p * len(given))(*given)
        )
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        said = log.rstrip(b"\0").decode(errors="replace")
        if failed:
            raise CompileError(said or _reason(failed))
        return Compiled(_read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), said)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def first_error(log: str) -> str:
    """The line of a compiler's log that says what is wrong first.

    >>> first_error('k.cu(3): warning #1: x\\nk.cu(7): error: identifier "y" is undefined\\n')
    'k.cu(7): error: identifier "y" is undefined'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"\berror\b", line)), " ".join(lines[:1]))


@cache
def version() -> tuple[int, int]:
    """The compiler's version, that of the CUDA release it belongs to."""
    return _version_of(library())


def _version_of(library: Any) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


@cache
def supported() -> tuple[int, ...]:
    """The compute capabilities it compiles for, as 75, 80, …, 90."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(found))
    return tuple(found)


@cache
def library() -> Any:
    """The loaded library; raises ImportError with the remedy where there is none that fits.

    Of several, the newest whose machine code this machine's driver loads: a driver for CUDA 12.x
    takes that of any NVRTC 12, and none of NVRTC 13.
    """
    limit = driver_version()
    found = sorted(_installed(), key=lambda each: each.version, reverse=True)
    for each in found:
        if _chosen or limit is None or each.version[0] <= limit[0]:
            _load_builtins(each.path)
            return each.library
    if not found:
        raise ImportError(
            "CUDA's compiler NVRTC is not installed; it comes with CuPy's [ctk] extra, or alone: "
            + pip_install("nvrtc", "nvidia-cuda-nvrtc")
        )
    assert limit is not None
    remedy = "update the driver"
    if limit[0] == 12:  # the wheels of later releases carry no number in their name
        remedy = f"run: {pip_install('nvrtc12', 'nvidia-cuda-nvrtc-cu12')}, or {remedy}"
    there = ", ".join(sorted({"{}.{}".format(*each.version) for each in found}))
    raise ImportError(
        f"CUDA's compiler NVRTC is installed in version {there}, and the NVIDIA driver supports "
        f"CUDA {limit[0]}.{limit[1]} at most, so it cannot load what NVRTC makes; {remedy}"
    )


def use(path: Path) -> None:
    """Compile with the library at ``path``, whatever the driver: for another machine.

    ``path`` is a file, or a folder somewhere below which there is one, as pip's ``--target`` makes.
    Raises FileNotFoundError where there is none.
    """
    _chosen[:] = [str(each) for each in _libraries_below(path)] if path.is_dir() else [str(path)]
    if not path.exists() or not _chosen:
        _chosen.clear()
        raise FileNotFoundError(f"no NVRTC (libnvrtc.so.13, say) at {path}")
    for each in (library, version, supported):
        each.cache_clear()


_chosen: list[str] = []  # by `use`, instead of what is installed


class _Library(NamedTuple):
    version: tuple[int, int]
    path: Path
    library: Any


def _installed() -> list[_Library]:
    """Every NVRTC that can be found."""
    names = ("libnvrtc.so", *(f"libnvrtc.so.{major}" for major in (13, 12)))
    found: dict[tuple[int, int], _Library] = {}
    for path in _chosen or dict.fromkeys((_of_pathfinder(), *_of_wheels(), *names)):
        try:
            each = ctypes.CDLL(path) if path else None
        except OSError:
            continue
        if each is not None:
            number = _version_of(each)
            found.setdefault(number, _Library(number, Path(path), each))
    return list(found.values())


@cache
def driver_version() -> tuple[int, int] | None:
    """The newest CUDA release that the NVIDIA driver supports; None where there is no driver."""
    number = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = driver.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else (number.value // 1000, number.value % 1000 // 10)


def _load_builtins(library: Path) -> None:
    """Load what NVRTC opens at the first compilation, a second library that lies beside it.

    Not all releases look for it there: that of CUDA 13.0 asks the system's loader by name alone.
    """
    for path in sorted(library.resolve().parent.glob("libnvrtc-builtins.so*")):
        with contextlib.suppress(OSError):  # another release's; the compiler says what it misses
            ctypes.CDLL(str(path))


def available() -> str:
    """Why NVRTC cannot be used here; empty where it can."""
    try:
        library()
    except ImportError as error:
        return str(error)
    return ""


def _of_pathfinder() -> str:
    """Where CuPy finds it too: wheels, conda, an installed toolkit."""
    if util.find_spec("cuda") is None or util.find_spec("cuda.pathfinder") is None:
        return ""
    finder = import_module("cuda.pathfinder")
    try:
        return str(finder.load_nvidia_dynamic_lib("nvrtc").abs_path or "")
    except RuntimeError:  # it is nowhere to be found, or not for this system
        return ""


def _of_wheels() -> list[str]:
    if util.find_spec("nvidia") is None:
        return []
    folders = map(Path, import_module("nvidia").__path__)
    return [str(path) for folder in folders for path in _libraries_below(folder)]


def _libraries_below(folder: Path) -> list[Path]:
    patterns = ("**/libnvrtc.so*", "**/nvrtc64*.dll")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _read(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer))
    return buffer.raw


def _reason(code: int) -> str:
    explain = library().nvrtcGetErrorString
    explain.restype = ctypes.c_char_p
    return str(explain(code).decode())


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"NVRTC: {_reason(code)}")
