"""From the name of a source to machine code: the options, the cache on disk, one line that says so.

Compiled modules are kept in the folder ``gradlab`` of CuPy's cache (``CUPY_CACHE_DIR``,
``~/.cupy/kernel_cache`` by default) and compiled again only when their text, the options or the
compiler change.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradlab.kernels.cuda import nvrtc, source as sources
from gradlab.kernels.cuda.driver import Defines

LOG = logging.getLogger("gradlab.cuda")


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
            f"{newest / 10}; install another CUDA release (gradlab[cuda12], gradlab[cuda13])"
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
    text, options = sources.read(source), sources.options(defines)
    file = cache_file(source, text, options, arch, ".cubin")
    with contextlib.suppress(OSError):
        return file.read_bytes()
    with _announced(describe(source, defines), arch):
        try:
            made = nvrtc.compile_source(text, source, arch, options).cubin
        except nvrtc.CompileError as error:
            what = f"{describe(source, defines)} does not compile for {arch}"
            raise KernelCompileError(f"{what}: {error}", error.log) from None
    save(file, made)
    return made


def cache_folder() -> Path:
    """Where compiled modules are kept."""
    return Path(
        os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache")), "gradlab"
    )


def cache_file(source: str, text: str, options: Sequence[str], arch: str, suffix: str) -> Path:
    """Where what comes of a compilation is kept."""
    key = hashlib.sha256(repr((text, options, arch, nvrtc.version())).encode()).hexdigest()[:32]
    return cache_folder() / f"{Path(source).stem}-{arch}-{key}{suffix}"


def save(file: Path, content: bytes) -> None:
    """Write a file at once, so that no other process reads half of it; a full disk is no error."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, file)


@contextmanager
def _announced(module: str, arch: str) -> Iterator[None]:
    """Say in one line what is compiled and how long it took.

    Through the logger ``gradlab.cuda`` (INFO) where logging is set up, else on standard error;
    ``GRADLAB_QUIET=1`` or a higher level of the logger turns it off.
    """
    quiet = os.environ.get("GRADLAB_QUIET", "0") not in ("", "0")
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
