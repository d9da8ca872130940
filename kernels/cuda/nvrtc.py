"""NVRTC, the compiler for CUDA sources that needs neither a toolkit nor a GPU.

The library comes with CuPy's CUDA extras, or alone as the wheel ``nvidia-cuda-nvrtc``. It is
called through ctypes rather than by way of CuPy, which would add options of its own
(``-ftz=true``, which makes zeros of small numbers) and cannot compile for ``sm_90a``.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
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
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
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
    """The loaded library; raises ImportError with the remedy where there is none."""
    for path in (_of_pathfinder(), _of_wheel(), "libnvrtc.so"):
        try:
            if path:
                found = ctypes.CDLL(path)
                _load_builtins(Path(path))
                return found
        except OSError:
            continue
    raise ImportError(
        "CUDA's compiler NVRTC is not installed; it comes with CuPy's [ctk] extra, or alone: "
        + pip_install("nvrtc", "nvidia-cuda-nvrtc")
    )


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


def _of_wheel() -> str:
    if util.find_spec("nvidia") is None:
        return ""
    for folder in import_module("nvidia").__path__:
        for pattern in ("**/libnvrtc.so*", "**/nvrtc64*.dll"):
            for path in sorted(Path(folder).glob(pattern)):
                return str(path)
    return ""


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
