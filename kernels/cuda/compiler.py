"""From the name of a source to machine code: the options, the cache on disk, one line that says so.

Compiled modules are kept in the folder ``gradlab`` of CuPy's cache (``CUPY_CACHE_DIR``,
``~/.cupy/kernel_cache`` by default) and compiled again only when their text, the options or the
compiler change, or when the GPU's driver refuses what was kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gradlab.kernels.cache import Cache
from gradlab.kernels.cuda import nvrtc, source as sources
from gradlab.kernels.cuda.driver import Defines

from gradlab._environment import flag, home, pip_install, variable

LOG = logging.getLogger("gradlab.cuda")

T = TypeVar("T")


class KernelCompileError(RuntimeError):
    """Kernels that cannot be compiled; ``log`` is all that the compiler said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def architecture(capability: tuple[int, int]) -> str:
    """What to compile for on a GPU of a compute capability.

    On 9.0 it is ``sm_90a``, which has the warpgroup instructions (``wgmma``, ``setmaxnreg``). A GPU
    newer than the compiler runs the code of the newest one of its generation.
    """
    if capability == (9, 0):
        return "sm_90a"
    major, minor = capability
    number = 10 * major + minor
    known = [each for each in nvrtc.supported() if each // 10 == major and each <= number]
    if not known:
        newest = nvrtc.supported()[-1]
        raise KernelCompileError(
            f"this GPU has compute capability {major}.{minor}, and NVRTC "
            f"{'.'.join(map(str, nvrtc.version()))} compiles for {nvrtc.supported()[0] / 10} to "
            f"{newest / 10}; install another CUDA release: {pip_install('cuda12')}, "
            f"or {pip_install('cuda13')}"
        )
    return f"sm_{known[-1]}"


def describe(source: str, defines: Defines) -> str:
    """A module as messages call it: ``softmax.cu (float32)``."""
    values = ", ".join(
        str(value) if name == "DTYPE" else f"{name}={value}" for name, value in defines
    )
    return f"{source} ({values})" if values else source


def cubin(source: str, defines: Defines, arch: str) -> bytes:
    """The machine code of a module, compiled now or found on disk."""
    return loaded(source, defines, arch, lambda code: code)


def loaded(source: str, defines: Defines, arch: str, load: Callable[[bytes], T]) -> T:
    """``load`` of a module's machine code, which is compiled once more if it does not load."""
    text, options = sources.read(source), sources.options(defines)
    name = entry(source, text, options, arch, ".cubin")
    kept = CACHE.get(name)
    if kept is not None:
        with contextlib.suppress(Exception):  # what is wrong for good the second try will say
            return load(kept)
    made = _compiled(source, text, defines, arch)
    CACHE.put(name, made)
    return load(made)


def _compiled(source: str, text: str, defines: Defines, arch: str) -> bytes:
    options = sources.options(defines)
    with _announced(describe(source, defines), arch):
        try:
            return nvrtc.compile_source(text, source, arch, options).cubin
        except nvrtc.CompileError as error:
            what = f"{describe(source, defines)} does not compile for {arch}"
            raise KernelCompileError(f"{what}: {error}", error.log) from None


def cache_folder() -> Path | None:
    """Where compiled modules are kept; None where neither a variable nor a home says."""
    named = variable("CUPY_CACHE_DIR")
    if named:
        return Path(named, "gradlab")
    user = home()
    return user / ".cupy" / "kernel_cache" / "gradlab" if user else None


CACHE = Cache("compiled CUDA kernels", "CUPY_CACHE_DIR", cache_folder)


def entry(source: str, text: str, options: Sequence[str], arch: str, suffix: str) -> str:
    """The name under which what comes of a compilation is kept."""
    key = hashlib.sha256(repr((text, options, arch, nvrtc.version())).encode()).hexdigest()[:32]
    return f"{Path(source).stem}-{arch}-{key}{suffix}"


@contextmanager
def _announced(module: str, arch: str) -> Iterator[None]:
    """Say in one line what is compiled and how long it took.

    Through the logger ``gradlab.cuda`` (INFO) where logging is set up, else on standard error;
    ``GRADLAB_QUIET=1`` or a higher level of the logger turns it off.
    """
    quiet = flag("GRADLAB_QUIET")
    # The root logger's own level says nothing here: it is WARNING where nobody has set it.
    wanted = not quiet and (LOG.level or logging.getLogger("gradlab").level) <= logging.INFO
    on_screen = wanted and not LOG.hasHandlers()
    if on_screen:
        _say(f"gradlab: compiling {module} for {arch} ...")
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        if on_screen:
            _say(f" {seconds:.1f} s (once: the result is kept on disk)\n")
        elif wanted:
            LOG.info("compiled %s for %s in %.1f s", module, arch, seconds)


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # standard error may be missing, closed or unread
        sys.stderr.write(text)
        sys.stderr.flush()
