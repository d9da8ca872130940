"""Files and folders as users name them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gradlab.errors import OptionError, message


def as_path(operation: str, path: Any, expected: str = "a path") -> Path:
    """What a user gave as a path, a string or anything like a path; refuses what is none."""
    if not isinstance(path, str | os.PathLike):
        raise OptionError(message(operation, expected=expected, got=type(path).__name__))
    return Path(path)
