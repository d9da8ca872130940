"""Which of several rungs is the fastest for a class of shapes: measured once, remembered on disk.

A class of shapes rounds every size up to a power of two and keeps dtypes, layouts and options.
The file holds one machine's answers for one version of the kernels: its name carries a hash of the
device, of CuPy's version and of every file of gradlab.kernels, so nothing old is ever believed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from gradlab.kernels.cache import Cache
from gradlab.kernels.cuda import driver

from gradlab._environment import home, variable

_REPEATS = 7

_lock = threading.RLock()  # a rung may run others
# By folder and entry, what was read from it or measured since.
_known: dict[tuple[Path | None, str], dict[str, str]] = {}


def choose(candidates: Mapping[str, Any], arrays: Any, options: Any) -> str:
    """The name of the fastest of ``candidates`` (rungs by name) for a call and those like it."""
    key = shape_class(next(iter(candidates.values())), arrays, options)
    name = entry()
    place = cache_folder(), name
    with _lock:
        if place not in _known:
            _known[place] = _read(name)
        known = _known[place]
        if known.get(key) not in candidates:
            known[key] = _measure(candidates, arrays, options)
            _write(name, known)
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


def cache_folder() -> Path | None:
    """Where gradlab keeps what it measured: ``GRADLAB_CACHE_DIR``, or the platform's folder.

    None where neither a variable nor a home says.
    """
    named = variable("GRADLAB_CACHE_DIR")
    if named:
        return Path(named)
    by_platform = {
        "win32": ("LOCALAPPDATA", "AppData/Local", "gradlab/Cache"),
        "darwin": ("", "Library/Caches", "gradlab"),
    }
    name, below_home, own = by_platform.get(sys.platform, ("XDG_CACHE_HOME", ".cache", "gradlab"))
    named, user = variable(name), home()
    if named:
        return Path(named, own)
    return user / below_home / own if user else None


CACHE = Cache("choices of kernels.policy('fastest')", "GRADLAB_CACHE_DIR", cache_folder)


def entry() -> str:
    """The file for the current device, the library's version and this version of the kernels."""
    machine = driver.current()
    parts = (machine.properties().name, str(machine.xp.__version__), _version(), source_hash())
    return f"fastest-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.choices"


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


def _read(name: str) -> dict[str, str]:
    """What an entry says; nothing where it is missing or damaged: then it is measured again."""
    try:
        choices = json.loads(CACHE.get(name) or "")["choices"]
        return {key: rung for key, rung in choices.items() if isinstance(rung, str)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(name: str, choices: dict[str, str]) -> None:
    content = {
        "device": driver.current().properties().name,
        # Another process may have measured other shapes meanwhile.
        "choices": dict(sorted({**_read(name), **choices}.items())),
    }
    CACHE.put(name, json.dumps(content, indent=1, ensure_ascii=False).encode())
