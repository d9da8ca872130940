"""What each kernel takes of a GPU: ``python -m gradlab.kernels.cuda.resources``.

Compiles every module that a family can launch (its ``variants()``) for each architecture that
kernels are tuned for, without a GPU, and prints registers, shared memory, stack and spills as the
compiler reports them. A kernel that spills registers to memory, or draws a warning, is a problem.

``--keep DIR`` compiles them for another machine instead, which then has nothing to compile:
``--arch sm_90a --nvrtc FOLDER --keep DIR``. Its NVRTC has to have the version of the one that
``FOLDER`` holds (pip puts it there: ``--target FOLDER nvidia-cuda-nvrtc==13.0.88``).
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from gradlab.kernels import cuda
from gradlab.kernels.cuda import bundle, compiler, nvrtc, source as sources
from gradlab.kernels.cuda.driver import Defines, Variant

ARCHITECTURES = ("sm_80", "sm_89", "sm_90a")

_TWINS: dict[str | int, str] = {
    "uint8": "int8", "uint16": "int16", "uint32": "int32", "uint64": "int64",
    "float16": "bfloat16", "min": "max", "argmin": "argmax", "any": "all",
}  # fmt: skip

_COMPLAINT = re.compile(r"\bwarning\b|Performance Loss", re.IGNORECASE)
_COMPILED = re.compile(r"Compiling entry function '(\w+)' for")
_PROPERTIES = re.compile(r"Function properties for (\w+)")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+)(?:\+\d+)? bytes smem)?")


class Resources(NamedTuple):
    """What a kernel takes; sizes are in bytes, registers and stack per thread."""

    module: str
    arch: str
    kernel: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


class Report(NamedTuple):
    """A module compiled for an architecture, and what is wrong with it: lines of the compiler."""

    module: str
    arch: str
    seconds: float
    kernels: list[Resources]
    problems: list[str]


def variants() -> list[Variant]:
    """The variants of all families."""
    found: list[Variant] = []
    for module in pkgutil.iter_modules(cuda.__path__, f"{cuda.__name__}."):
        if not module.name.endswith(f".{__name__.rpartition('.')[2]}"):
            found += getattr(import_module(module.name), "variants", list)()
    return sorted(set(found), key=lambda each: (each.source, str(each.defines)))


def tasks(architectures: Sequence[str] = ARCHITECTURES) -> list[tuple[Variant, str]]:
    """Each variant with each architecture that it is for.

    A module whose twin is listed as well is compiled for the last architecture alone. That halves
    the time, and what the two differ in is one conversion or one comparison.
    """
    listed = variants()
    known = {(each.source, each.defines) for each in listed}
    return [
        (variant, arch)
        for variant in listed
        for arch in architectures
        if _allows(variant.capability, arch)
        and (arch == architectures[-1] or (variant.source, _twin(variant.defines)) not in known)
    ]


def _twin(defines: Defines) -> Defines | None:
    """The macros of a module of the same code and registers; None where there is none."""
    if not any(value in _TWINS for _, value in defines):
        return None
    return tuple((name, _TWINS.get(value, value)) for name, value in defines)


def _allows(oldest: tuple[int, int], arch: str) -> bool:
    number = re.sub(r"\D", "", arch)
    return oldest <= (int(number[:-1]), int(number[-1]))


def report(variant: Variant, arch: str) -> Report:
    """Compile a variant, unless that was done before, and read what the compiler says about it."""
    module = compiler.describe(variant.source, variant.defines)
    start = time.perf_counter()
    try:
        log = _log(variant, arch)
    except nvrtc.CompileError as error:
        return Report(module, arch, time.perf_counter() - start, [], [error.log])
    kernels, problems = read_log(log, module, arch)
    return Report(module, arch, time.perf_counter() - start, kernels, problems)


def _log(variant: Variant, arch: str) -> str:
    source, text = variant.source, sources.read(variant.source)
    options = (*sources.options(variant.defines), "--ptxas-options=-v")
    name = compiler.entry(source, text, options, arch, ".log")
    kept = compiler.CACHE.get(name)
    if kept is not None:
        return kept.decode()
    log = nvrtc.compile_source(text, source, arch, options).log
    compiler.CACHE.put(name, log.encode())
    return log


def read_log(log: str, module: str, arch: str) -> tuple[list[Resources], list[str]]:
    """The kernels in a compiler's log, and the lines that should not be there."""
    kernels: list[Resources] = []
    problems = [line for line in log.splitlines() if _COMPLAINT.search(line)]
    name, frame = "", (0, 0, 0)
    for line in log.splitlines():
        if found := _COMPILED.search(line):
            name, frame = found[1], (0, 0, 0)
        elif (found := _SPILLS.search(line)) and name:
            stack, stores, loads = map(int, found.groups())
            frame = (stack, stores, loads)
            if stores or loads:
                problems.append(f"{name}: {line.strip()}")
        elif (found := _USED.search(line)) and name:
            kernels.append(Resources(module, arch, name, int(found[1]), int(found[2] or 0), *frame))
    return kernels, problems


def reports(pairs: Iterable[tuple[Variant, str]], threads: int = 0) -> Iterator[Report]:
    """The reports of variants and architectures, compiled on all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(threads or cores) as pool:
        yield from pool.map(lambda pair: report(*pair), pairs)


def table(found: Iterable[Report]) -> str:
    """The kernels of reports, one line each."""
    head = ("kernel", "module", "arch", "registers", "shared", "stack", "spills")
    rows = [
        (each.kernel, each.module, each.arch, str(each.registers), str(each.shared),
         str(each.stack), str(each.spill_stores + each.spill_loads))
        for each in sorted(kernel for one in found for kernel in one.kernels)
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def _architecture(text: str) -> str:
    if not re.fullmatch(r"sm_\d{2,}[af]?", text):
        raise argparse.ArgumentTypeError(f"expected one such as sm_80 or sm_90a, got {text!r}")
    return text


def for_architecture(arch: str) -> list[Variant]:
    """The variants that can be launched on GPUs of an architecture."""
    return [variant for variant in variants() if _allows(variant.capability, arch)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m gradlab.kernels.cuda.resources")
    parser.add_argument("-k", default="", metavar="TEXT", help="only modules with this in the name")
    parser.add_argument(
        "--arch", action="append", type=_architecture, help="instead of sm_80, sm_89 and sm_90a"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="put the machine code there, for another machine"
    )
    parser.add_argument(
        "--nvrtc", type=Path, metavar="PATH", help="compile with this NVRTC, a file or a folder"
    )
    options = parser.parse_args(arguments)
    if options.nvrtc:
        try:
            nvrtc.use(options.nvrtc)
        except FileNotFoundError as error:
            parser.error(f"--nvrtc: {error}")
    return options


def _keep(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    pairs = [
        (variant, arch)
        for arch in options.arch or ARCHITECTURES
        for variant in for_architecture(arch)
        if options.k in compiler.describe(variant.source, variant.defines)
    ]
    size = bundle.keep(options.keep, pairs)
    print(
        f"{len(pairs)} modules ({size / 2**20:.1f} MiB), compiled by NVRTC "
        f"{'.'.join(map(str, nvrtc.version()))} in {time.perf_counter() - start:.0f} s, are in "
        f"{options.keep}"
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status is 1 where a kernel spills or draws a warning."""
    options = _options(arguments)
    if missing := nvrtc.available():
        print(missing, file=sys.stderr)
        return 2
    if options.keep:
        return _keep(options)
    pairs = [
        (variant, arch)
        for variant, arch in tasks(options.arch or ARCHITECTURES)
        if options.k in compiler.describe(variant.source, variant.defines)
    ]
    if not pairs:
        print(f"no module has {options.k!r} in its name", file=sys.stderr)
        return 2
    found = list(reports(pairs))
    print(table(found))
    problems = [(each, line) for each in found for line in each.problems]
    for each, line in problems:
        print(f"\n{each.module} for {each.arch}: {line}")
    seconds = sum(each.seconds for each in found)
    print(f"\n{len(found)} modules compiled in {seconds:.1f} s, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
