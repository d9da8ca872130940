"""Builds the CUDA sources with the host's C++ compiler, once per content, and calls kernels."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gradlab.kernels.cuda import source as sources

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("GRADLAB_EMULATOR_CACHE", HERE / ".build"))
COMPILER = os.environ.get("CXX", "g++")

# How a source can be built. `plain` runs inside the test process. `sanitized` needs a process
# that AddressSanitizer was loaded into first (see `sanitized_environment`).
FLAGS = {
    "plain": ["-O1"],
    "sanitized": [
        "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all", "-fno-sanitize=vptr",
    ],
}  # fmt: skip
COMMON = [
    "-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing",
    "-Wall", "-Wno-unknown-pragmas", "-Wno-unused", "-Wno-attributes",
]  # fmt: skip


class EmulatorError(RuntimeError):
    """A kernel did what a GPU forbids, or what it leaves undefined."""


def available() -> str:
    """Why kernels cannot be emulated here; empty where they can."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler: {COMPILER} is not on the PATH (set CXX)"
    return ""


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulatorError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process builds a file; the others wait for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _runtime(mode: str) -> Path:
    text = (HERE / "runtime.cpp").read_text() + (HERE / "emulator.h").read_text()
    flags = [*COMMON, "-O2", *FLAGS[mode]] if mode == "sanitized" else [*COMMON, "-O2"]
    key = hashlib.sha256(repr((text, flags)).encode()).hexdigest()[:20]
    made = CACHE / f"runtime-{mode}-{key}.o"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(made.with_suffix(".lock")):
        if not made.exists():
            # What the scheduler does with stacks is not the kernels' doing.
            flags = [flag for flag in flags if not flag.startswith(("-fsanitize", "-fno-sanit"))]
            if mode == "sanitized":
                flags += ["-D__SANITIZE_ADDRESS__=1"]
            part = made.with_suffix(f".{os.getpid()}.o")
            _run([COMPILER, *flags, "-c", str(HERE / "runtime.cpp"), "-o", str(part)])
            part.replace(made)
    return made


@cache
def build(text: str, name: str, defines: tuple[tuple[str, Any], ...], mode: str) -> Path:
    """The shared library of a source text for one set of macros."""
    macros = [f"-D{macro}={value}" for macro, value in defines]
    header = HERE / "emulator.h"
    flags = [*COMMON, *FLAGS[mode], *macros, f"-I{HERE}", "-include", str(header)]
    runtime = _runtime(mode)
    headers = [path.read_text() for path in sorted(HERE.glob("*.h"))]
    key = hashlib.sha256(repr((text, headers, flags, runtime.name)).encode()).hexdigest()
    variant = "-".join(str(value) for _, value in defines)
    made = CACHE / f"{Path(name).stem}-{variant[:60]}-{mode}-{key[:20]}.so"
    with _locked(made.with_suffix(".lock")):
        if not made.exists():
            _build(text, name, flags, runtime, made)
    return made


def _build(text: str, name: str, flags: list[str], runtime: Path, made: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(name).stem}.cpp"
        # The kernels are found in the preprocessed text: macros may have made their names. The
        # header defines __global__ as nothing, so the mark comes after it.
        file.write_text(f"#undef __global__\n#define __global__ EMU_GLOBAL\n{text}")
        found = _run([COMPILER, *flags, "-E", "-P", str(file)])
        symbols = re.findall(r"EMU_GLOBAL\s+void\s+(\w+)\s*\(", found)
        calls = "\n".join(f"EMU_KERNEL({symbol})" for symbol in symbols)
        file.write_text(f'{text}\n#line 1 "calls"\n{calls}\n')
        part = made.with_suffix(f".{os.getpid()}.part")
        _run([
            COMPILER, *flags, "-fvisibility=default", "-shared", "-Wl,-Bsymbolic",
            str(file), str(runtime), "-o", str(part),
        ])  # fmt: skip
        part.replace(made)


class Kernel:
    """A kernel of a built library."""

    def __init__(self, library: ctypes.CDLL, symbol: str) -> None:
        self.symbol = symbol
        self.call = getattr(library, f"emu_call_{symbol}")
        self.launch_function = library.emu_launch
        self.launch_function.restype = ctypes.c_char_p
        kinds, sizes = ctypes.create_string_buffer(64), (ctypes.c_int64 * 64)()
        getattr(library, f"emu_signature_{symbol}")(kinds, sizes)
        self.kinds = kinds.value.decode()
        self.sizes = list(sizes)[: len(self.kinds)]

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared: int,
        order: int,
    ) -> None:
        if len(args) != len(self.kinds):
            raise EmulatorError(
                f"{self.symbol} has {len(self.kinds)} parameters, got {len(args)} arguments"
            )
        held = [self._pack(i, each) for i, each in enumerate(args)]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(each) for each in held])
        dims = [(ctypes.c_uint * 3)(*(*dim, 1, 1)[:3]) for dim in (grid, block)]
        said = self.launch_function(
            ctypes.cast(self.call, ctypes.c_void_p), self.symbol.encode(), pointers, *dims,
            ctypes.c_int64(shared), order,
        )  # fmt: skip
        if said:
            raise EmulatorError(said.decode())

    def _pack(self, i: int, value: Any) -> Any:
        """An argument as bytes, checked against the parameter: a GPU would read on in silence."""
        kind, size = self.kinds[i], self.sizes[i]
        if isinstance(value, np.ndarray) and kind == "s" and value.nbytes == size:
            return (ctypes.c_char * size).from_buffer_copy(value.tobytes())
        if kind == "p" and (value is None or isinstance(value, ctypes.c_void_p)):
            return value or ctypes.c_void_p()
        if kind == "i" and type(value) is int and size == 8:
            return ctypes.c_longlong(value)
        if kind == "f" and type(value) is float and size == 8:
            return ctypes.c_double(value)
        expected = {"p": "a pointer", "i": "an integer", "f": "a double", "s": "a struct"}[kind]
        raise EmulatorError(
            f"{self.symbol}: parameter {i} is {expected} of {size} bytes, got {value!r}; kernels "
            "take pointers, long long, double and structs"
        )


@cache
def kernel(name: str, symbol: str, defines: tuple[tuple[str, Any], ...], mode: str) -> Kernel:
    """The kernel ``symbol`` of one of gradlab's own sources."""
    return kernel_of(sources.read(name), name, symbol, defines, mode)


def kernel_of(text: str, name: str, symbol: str, defines: Any = (), mode: str = "plain") -> Kernel:
    """The kernel ``symbol`` of any source text."""
    return Kernel(_load(str(build(text, name, defines, mode))), symbol)


@cache
def _load(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def address(array: np.ndarray) -> ctypes.c_void_p:
    """A host array as a kernel's pointer argument."""
    return ctypes.c_void_p(array.ctypes.data)
