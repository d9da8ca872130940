"""The text of the CUDA sources, as compilers get it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "([\w.]+)"\s*$', re.MULTILINE)


@cache
def read(name: str) -> str:
    """The source ``name`` (``"softmax.cu"``) with the files it includes put in their places.

    CuPy's cache on disk is keyed by the text it compiles: a change in an included file must be a
    change of that text. ``#line`` keeps the compiler's messages pointing at the files.
    """
    return _expand(name, set())


def _expand(name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    text = (FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "\n")
    parts, end, line = [f'#line 1 "{name}"\n'], 0, 1
    for found in _INCLUDE.finditer(text):
        line += text.count("\n", end, found.end()) + 1
        parts += [text[end : found.start()], _expand(found[1], seen), f'\n#line {line} "{name}"']
        end = found.end()
        line -= 1
    return "".join([*parts, text[end:]])


def options(defines: tuple[tuple[str, str | int], ...]) -> tuple[str, ...]:
    """What NVRTC is told: the language, that all functions are device code, a variant's macros."""
    return ("-std=c++17", "-default-device", *(f"-D{name}={value}" for name, value in defines))


def names() -> list[str]:
    """The sources that hold kernels."""
    return sorted(path.name for path in FOLDER.glob("*.cu"))
