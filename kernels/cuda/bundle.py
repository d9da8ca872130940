"""Machine code compiled on one machine for another: ``resources --keep DIR``, then `bring`.

``DIR/gradlab`` is laid out as the cache of compiled modules is, with a list of what it holds. The
name of each file is the key of the cache: it stands for the source's text, the options, the
architecture and the compiler's version. What lies in ``DIR`` itself are kernels of CuPy's own, if
somebody has put a copy of its cache there; CuPy checks these when it reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gradlab.kernels.cuda import compiler, nvrtc, source as sources
from gradlab.kernels.cuda.driver import Variant

LIST = "cubins.json"


class Brought(NamedTuple):
    """Counts: modules that were there for this GPU, those that were not, kernels of CuPy's."""

    modules: int
    missing: int
    of_cupy: int


def keep(folder: Path, wanted: Sequence[tuple[Variant, str]], threads: int = 0) -> int:
    """Compile variants for architectures into ``folder``; return the size in bytes."""
    (folder / "gradlab").mkdir(parents=True, exist_ok=True)

    def make(pair: tuple[Variant, str]) -> tuple[str, bytes]:
        variant, arch = pair
        return _name(variant, arch), compiler.cubin(variant.source, variant.defines, arch)

    files, size = {}, 0
    with ThreadPoolExecutor(threads or None) as pool:
        for name, made in pool.map(make, wanted):
            (folder / "gradlab" / name).write_bytes(made)
            files[name] = hashlib.sha256(made).hexdigest()
            size += len(made)
    listed = {
        "nvrtc": "{}.{}".format(*nvrtc.version()),
        "architectures": sorted({arch for _, arch in wanted}), "files": files,
    }  # fmt: skip
    (folder / "gradlab" / LIST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return size


def bring(folder: Path, wanted: Iterable[Variant], arch: str) -> Brought:
    """Put what `keep` left in ``folder`` into this machine's cache, as far as it is for ``arch``.

    Raises ValueError where it was compiled by another NVRTC than this machine's, which would look
    for other files, or where a file is not what was kept.
    """
    listed = _read_list(folder)
    here = "{}.{}".format(*nvrtc.version())
    if listed["nvrtc"] != here:
        raise ValueError(
            f"{folder}: expected machine code compiled by this machine's NVRTC {here}, got that of "
            f"NVRTC {listed['nvrtc']}"
        )
    found = missing = 0
    for variant in wanted:
        name = _name(variant, arch)
        if name not in listed["files"]:
            missing += 1
            continue
        made = (folder / "gradlab" / name).read_bytes()
        if hashlib.sha256(made).hexdigest() != listed["files"][name]:
            raise ValueError(f"{folder}: {name} is not the file that was kept there")
        compiler.CACHE.put(name, made)
        found += 1
    return Brought(found, missing, _copy_cupys(folder))


def _copy_cupys(folder: Path) -> int:
    cache = compiler.cache_folder()
    files = [*folder.glob("*.cubin")] if cache else []
    for path in files:
        to = cache.parent / path.name
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            part = to.with_suffix(".part")
            part.write_bytes(path.read_bytes())
            part.replace(to)
    return len(files)


def _read_list(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "gradlab" / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: expected a folder that `python -m gradlab.kernels.cuda.resources --keep` "
            f"wrote, got no readable gradlab/{LIST} ({type(error).__name__})"
        ) from None
    return found


def _name(variant: Variant, arch: str) -> str:
    text, options = sources.read(variant.source), sources.options(variant.defines)
    return compiler.entry(variant.source, text, options, arch, ".cubin")
