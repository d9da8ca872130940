"""Builds the CUDA sources with the host's C++ compiler, once per content, and calls kernels.

A source can be built in three modes:

``plain``
    as it is. Barriers, warp operations and launches are checked by the scheduler, nothing else.
``checked``
    every access to memory is reported to the emulator's own checker (the compiler's instrumentation
    for ThreadSanitizer, with other functions behind it), and so is undefined behaviour of C++:
    accesses beyond an array in shared or global memory, shared memory that nobody wrote, missing
    barriers, misaligned vectors, overflow. Runs in any process.
``sanitized``
    AddressSanitizer, with redzones between shared arrays, and the same checks of undefined
    behaviour. Needs a process that AddressSanitizer was loaded into first, see
    `sanitized_environment`; its report ends the process.

What a mode finds is an `EmulatorError` that names kernel, block, thread and place.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gradlab.kernels import cache as cache_on_disk
from gradlab.kernels.cuda import source as sources

from gradlab._environment import variable

HERE = Path(__file__).parent
CACHE = Path(variable("GRADLAB_EMULATOR_CACHE") or HERE / ".build")
if cache_on_disk.distrusted(CACHE):  # what lies there is loaded into this process
    CACHE = (cache_on_disk.private() or HERE) / "emulator"
CACHE_BYTES, CACHE_SECONDS = 512 << 20, 3600  # what is kept at most, and how long at least
COMPILER = variable("CXX", "g++")

COMMON = [
    "-std=c++20", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE",
    "-Wall", "-Wno-unknown-pragmas", "-Wno-unused", "-Wno-attributes",
]  # fmt: skip
# The calls that report undefined behaviour end in the emulator, not in libubsan.
UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize=vptr,return", "-fno-sanitize-recover=undefined"]
FLAGS = {
    "plain": ["-O1", "-g1", "-gdwarf-4"],
    "checked": [
        "-O1",
        "-g1",
        "-gdwarf-4",
        "-fno-omit-frame-pointer",
        "-fsanitize=thread",
        *UNDEFINED,
    ],
    "sanitized": [
        "-O1",
        "-g1",
        "-gdwarf-4",
        "-fno-omit-frame-pointer",
        "-fsanitize=address",
        *UNDEFINED,
    ],
}
RUNTIME = ["runtime.cpp", "checker.cpp", "undefined.cpp"]
RUNTIME_FLAGS = {
    "plain": [],
    "checked": ["-DCHECKED=1"],
    "sanitized": ["-D__SANITIZE_ADDRESS__=1"],
}


MODE = variable("GRADLAB_EMULATOR_MODE", "plain")  # what is meant where none is named


class EmulatorError(RuntimeError):
    """A kernel did what a GPU forbids, or what it leaves undefined."""


# ---------------------------------------------------------------------- what this machine has


@cache
def available(mode: str = "plain") -> str:
    """Why kernels cannot be emulated in this process; empty where they can."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler: {COMPILER} is not on the PATH (set CXX)"
    if mode == "sanitized" and not hasattr(ctypes.CDLL(None), "__asan_init"):
        return "AddressSanitizer was not loaded into this process (see sanitized_environment)"
    return ""


def sanitized_environment() -> dict[str, str]:
    """Environment variables for a process that runs kernels in `sanitized` mode.

    Raises `EmulatorError` where the compiler comes without AddressSanitizer.
    """
    if why := available():
        raise EmulatorError(why)
    # libstdc++ comes along: AddressSanitizer looks for __cxa_throw before Python loads it.
    libraries = [_run([COMPILER, f"-print-file-name=lib{name}.so"]).strip()
                 for name in ("asan", "stdc++")]  # fmt: skip
    if not all(os.path.isabs(path) for path in libraries):
        raise EmulatorError(f"{COMPILER} has no shared AddressSanitizer (libasan.so)")
    return {
        "LD_PRELOAD": " ".join(libraries),
        # Python keeps memory until its end, and asks for more than there is to see what happens.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=1",
        "PYTHONMALLOC": "malloc",
        "GRADLAB_EMULATOR_MODE": "sanitized",
    }


# ------------------------------------------------------------------------------------- builds


def _run(command: Sequence[str]) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    # What AddressSanitizer is loaded into for a kernel's sake would slow the compiler down.
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulatorError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process builds a file; the others wait for it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _once(made: Path, make: Any) -> Path:
    """``made``, by ``make(a temporary path)`` where it is not there yet, or not whole."""
    if cache_on_disk.read(made) is None:
        with _locked(made.with_suffix(".lock")):
            if cache_on_disk.read(made) is None:
                part = made.with_suffix(f".{os.getpid()}.part")
                try:
                    make(part)
                    # A loader ignores what follows a library: here the checksum.
                    part.write_bytes(cache_on_disk.sealed(made.name, part.read_bytes()))
                    part.chmod(0o700)
                    part.replace(made)
                finally:
                    part.unlink(missing_ok=True)
        prune(CACHE)
    os.utime(made)
    return made


def prune(folder: Path, limit: int = CACHE_BYTES, age: float = CACHE_SECONDS) -> None:
    """Delete the builds that were not used for longest, until ``limit`` bytes are left."""
    entries = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            stat = path.stat()
            entries.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    for used, size, path in sorted(entries):
        if total <= limit or time.time() - used < age:
            return
        path.unlink(missing_ok=True)
        total -= size


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


@cache
def _compiler() -> str:
    return _run([COMPILER, "--version"]).splitlines()[0]


@cache
def _headers() -> list[str]:
    return [path.read_text() for path in sorted(HERE.glob("*.h"))]


@cache
def _runtime(mode: str) -> Path:
    """The scheduler, as a library of its own: kernels of one mode share its stacks."""
    texts = [(HERE / name).read_text() for name in RUNTIME]
    flags = [*COMMON, "-O2", "-g1", *RUNTIME_FLAGS[mode]]
    made = CACHE / f"runtime-{mode}-{_key(texts, _headers(), flags, _compiler())}.so"

    def make(part: Path) -> None:
        _run([
            COMPILER, *flags, "-shared", "-Wl,-Bsymbolic", f"-Wl,-soname,gradlab-emulator-{mode}",
            *(str(HERE / name) for name in RUNTIME), "-o", str(part), "-ldl",
        ])  # fmt: skip

    return _once(made, make)


@cache
def build(text: str, name: str, defines: tuple[tuple[str, Any], ...], mode: str) -> Path:
    """The shared library of a source text for one set of macros."""
    macros = [f"-D{macro}={value}" for macro, value in defines]
    # GNU_UNIQUE symbols would be shared among libraries.
    flags = [*COMMON, "-fvisibility=hidden", "-fno-gnu-unique", *FLAGS[mode], *macros]
    flags += [f"-I{HERE}", "-include", str(HERE / "emulator.h")]
    variant = "-".join(re.sub(r"\W+", "_", str(value)) for _, value in defines)
    key = _key(text, name, _headers(), flags, _compiler())
    made = CACHE / f"{Path(name).stem}-{variant[:60]}-{mode}-{key}.so"
    return _once(made, lambda part: _build(text, name, flags, mode, part))


# A kernel's name and its __launch_bounds__ in the preprocessed text.
_KERNEL = re.compile(
    r"EMU_GLOBAL\s+(?:EMU_BOUNDS\((?P<before>(?:[^()]|\([^()]*\))*)\)\s*)?void\s+"
    r"(?:EMU_BOUNDS\((?P<after>(?:[^()]|\([^()]*\))*)\)\s*)?(?P<symbol>\w+)\s*\("
)


def _build(text: str, name: str, flags: list[str], mode: str, made: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, part = Path(folder) / f"{Path(name).stem}.cpp", Path(folder) / "part.o"
        # The kernels are found in the preprocessed text: macros may have made their names. The
        # header defines the marks as nothing, so they come after it.
        marks = ("__global__ EMU_GLOBAL", "__launch_bounds__(...) EMU_BOUNDS(__VA_ARGS__)")
        undo = "#undef __global__\n#undef __launch_bounds__\n"
        file.write_text(undo + "".join(f"#define {mark}\n" for mark in marks) + text)
        found = _KERNEL.finditer(_run([COMPILER, *flags, "-E", "-P", str(file)]))
        calls = [f"EMU_KERNEL({each['symbol']}, {each['before'] or each['after'] or 0})"
                 for each in found]  # fmt: skip
        file.write_text("\n".join([f'#line 1 "{name}"', text, '#line 1 "calls"', *calls, ""]))
        _run([COMPILER, *flags, "-c", str(file), "-o", str(part)])
        # Linked without the sanitizers' libraries: libasan is in the process already.
        objects = [str(part), str(_runtime(mode))]
        _run([COMPILER, "-shared", "-Wl,-Bsymbolic", *objects, "-o", str(made)])


# ------------------------------------------------------------------------------------ kernels

Extents = Sequence[tuple[int, int]]
_one_launch = threading.Lock()  # the scheduler's state is global


class Kernel:
    """A kernel of a built library."""

    def __init__(self, library: ctypes.CDLL, runtime: ctypes.CDLL, symbol: str) -> None:
        self.symbol = symbol
        self.call = ctypes.cast(getattr(library, f"emu_call_{symbol}"), ctypes.c_void_p)
        self.launch_function = runtime.emu_launch
        self.launch_function.restype = ctypes.c_char_p
        kinds, sizes = ctypes.create_string_buffer(256), (ctypes.c_int64 * 256)()
        self.bounds = getattr(library, f"emu_signature_{symbol}")(kinds, sizes)
        self.kinds = kinds.value.decode()
        self.sizes = list(sizes)[: len(self.kinds)]

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared: int = 0,
        order: int = 0,
        extents: Extents | None = None,
        blocks_in_one: int = 1,
    ) -> None:
        """Run the kernel on a grid.

        ``order`` 1 runs blocks and threads from the last to the first. ``extents`` are the ranges
        of addresses that the kernel may use, where they are known; the `checked` mode minds them.
        ``blocks_in_one`` blocks of a cluster are one emulated block, whose ``shared`` is theirs.
        """
        if len(args) != len(self.kinds):
            raise EmulatorError(
                f"{self.symbol} has {len(self.kinds)} parameters, got {len(args)} arguments"
            )
        threads = math.prod(map(int, block))
        if self.bounds and threads > self.bounds:
            raise EmulatorError(
                f"{self.symbol} is launched with blocks of {threads} threads, beyond its "
                f"__launch_bounds__({self.bounds})"
            )
        held = [self._pack(i, each) for i, each in enumerate(args)]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(each) for each in held])
        dims = [self._dim(each, what) for each, what in ((grid, "grid"), (block, "block"))]
        ends = [end for extent in extents or () for end in extent]
        with _one_launch:
            said = self.launch_function(
                self.call, self.symbol.encode(), pointers, *dims, ctypes.c_int64(shared),
                blocks_in_one, order, (ctypes.c_void_p * len(ends))(*ends),
                -1 if extents is None else len(extents),
            )  # fmt: skip
        if said:
            raise EmulatorError(_PLACE.sub(_look_up, said.decode()))

    def _dim(self, dim: Sequence[int], what: str) -> Any:
        dim = tuple(map(int, dim))
        if not 1 <= len(dim) <= 3 or not all(0 < size < 1 << 32 for size in dim):
            raise EmulatorError(f"{self.symbol} is launched with a {what} of {dim}")
        return (ctypes.c_uint * 3)(*(*dim, 1, 1)[:3])

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
def kernel(name: str, symbol: str, defines: tuple[tuple[str, Any], ...], mode: str = "") -> Kernel:
    """The kernel ``symbol`` of one of gradlab's own sources."""
    return kernel_of(sources.read(name), name, symbol, defines, mode)


def kernel_of(text: str, name: str, symbol: str, defines: Any = (), mode: str = "") -> Kernel:
    """The kernel ``symbol`` of any source text."""
    mode = mode or MODE
    if why := available(mode):
        raise EmulatorError(why)
    runtime = _load(_runtime(mode))  # before the kernels, which ask for it by its soname
    return Kernel(_load(build(text, name, defines, mode)), runtime, symbol)


@cache
def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def address(array: np.ndarray) -> ctypes.c_void_p:
    """A host array as a kernel's pointer argument."""
    return ctypes.c_void_p(array.ctypes.data)


# ------------------------------------------------------------------------------------- places

_PLACE = re.compile(r"(?P<before>, | at )@@(?P<library>[^@]+)\+(?P<offset>0x[0-9a-f]+)@@")


def _look_up(found: re.Match[str]) -> str:
    """The source line of an address, from the line tables, and where that line was inlined."""
    try:
        lines = _run(["addr2line", "-i", "-e", found["library"], found["offset"]]).splitlines()
    except (OSError, EmulatorError):
        return ""
    places = [Path(line.partition(" (")[0]).name for line in lines if "?" not in line]
    own = {path.name for path in HERE.glob("*.h")}
    places = [place for place in places if place.partition(":")[0] not in own] or places[:1]
    return found["before"] + ", called at ".join(places) if places else ""
