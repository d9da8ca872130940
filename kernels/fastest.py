"""Which of several rungs is the fastest for a class of shapes: measured once, remembered on disk.

A class of shapes rounds every size up to a power of two and keeps dtypes, layouts and options.
The file holds one machine's answers for one version of the kernels: its name carries a hash of the
device, of CuPy's version and of every file of gradlab.kernels, so nothing old is ever believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from gradlab.kernels.cuda import driver

_REPEATS = 7

_lock = threading.RLock()  # a rung may run others
_known: dict[Path, dict[str, str]] = {}  # by file, what was read from it or measured since


def choose(candidates: Mapping[str, Any], arrays: Any, options: Any) -> str:
    """The name of the fastest of ``candidates`` (rungs by name) for a call and those like it."""
    key = shape_class(next(iter(candidates.values())), arrays, options)
    file = cache_file()
    with _lock:
        if file not in _known:
            _known[file] = _read(file)
        known = _known[file]
        if known.get(key) not in candidates:
            known[key] = _measure(candidates, arrays, options)
            _write(file, known)
        return known[key]


def forget() -> None:
    """Drop what this process remembers; the files stay."""
    _known.clear()


def _measure(candidates: Mapping[str, Any], arrays: Any, options: Any) -> str:
    machine = driver.current()
    medians = {}
    for name, rung in candidates.items():
        call: Callable[[], Any] = partial(rung.run, *arrays, **options)
        call()  # compiles, allocates
        medians[name] = float(np.median(machine.timed(call, _REPEATS)))
    return min(medians, key=medians.__getitem__)


def shape_class(rung: Any, arrays: Any, options: Any) -> str:
    """What calls have in common that are taken to be equally fast on a rung."""
    each = [_describe(x) for x in (*arrays, *(options[name] for name in sorted(options)))]
    return f"{rung.family}.{rung.function}({', '.join(each)}; {', '.join(sorted(options))})"


def _describe(value: Any) -> str:
    if not hasattr(value, "strides"):
        return repr(value)
    sizes = "×".join(str(1 << (size - 1).bit_length() if size else 0) for size in value.shape)
    return f"{value.dtype.name}[{sizes}]{_layout(value)}"


def _layout(x: Any) -> str:
    if x.flags.c_contiguous:
        return "C"
    return "F" if x.flags.f_contiguous else "strided"


# ------------------------------------------------------------------------------------- on disk


def cache_folder() -> Path:
    """Where gradlab keeps what it measured: ``GRADLAB_CACHE_DIR``, or the platform's folder."""
    named = os.environ.get("GRADLAB_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "gradlab" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gradlab"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradlab"


def cache_file() -> Path:
    """The file for the current device, the library's version and this version of the kernels."""
    machine = driver.current()
    parts = (machine.properties().name, str(machine.xp.__version__), _version(), source_hash())
    return cache_folder() / f"fastest-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.json"


def _version() -> str:
    return str(getattr(sys.modules.get("gradlab"), "__version__", ""))


@cache
def source_hash() -> str:
    """A hash of all that gradlab.kernels consists of."""
    root = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".cu", ".cuh"):
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _read(file: Path) -> dict[str, str]:
    """What a file says; nothing where it is missing or damaged: then it is measured anew."""
    try:
        choices = json.loads(file.read_text(encoding="utf-8"))["choices"]
        return {key: name for key, name in choices.items() if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(file: Path, choices: dict[str, str]) -> None:
    content = {
        "device": driver.current().properties().name,
        # Another process may have measured other shapes meanwhile.
        "choices": dict(sorted({**_read(file), **choices}.items())),
    }
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(file)  # at once: nobody reads half a file
    except OSError as error:
        _warn_unwritable(str(file.parent), str(error))


@cache
def _warn_unwritable(folder: str, reason: str) -> None:
    warnings.warn(
        f"kernels.policy('fastest'): what is measured cannot be kept in {folder} ({reason}), and "
        "every process will measure again; set GRADLAB_CACHE_DIR to a folder that can be written",
        stacklevel=2,
    )
