"""What is kept on disk between runs: whole or not at all, and in a folder of the user's own.

Compiled code that another user could have written would run as this one. So a folder counts only if
nobody else can write to it, and a private one below the system's folder for temporary files takes
its place. Entries carry a checksum: one that is empty, cut or altered is as good as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

_MARK = b"\0gradlab\0"
_ABANDONED = 3600.0  # seconds after which a file that somebody began to write is removed


class Cache:
    """Entries by name, in the first of two folders that works: the wanted one, a private one.

    ``what`` is what the entries are, for messages; ``variable`` names the environment variable that
    chooses the folder, and ``wanted`` gives that folder, or None where there is none.
    """

    def __init__(self, what: str, variable: str, wanted: Callable[[], Path | None]) -> None:
        self.what, self.variable, self.wanted = what, variable, wanted

    def get(self, name: str) -> bytes | None:
        """A whole entry; None where there is none."""
        for folder, _ in self._folders():
            found = read(folder / name)
            if found is not None:
                return found
        return None

    def put(self, name: str, content: bytes) -> None:
        """Keep an entry; says once why it could not, or not in the folder that was wanted."""
        reasons: list[str] = []
        for folder, reason in self._folders():
            reason = reason or _made(folder) or _written(folder, name, content)
            if not reason:
                if reasons:
                    self._say(f"they are kept in {folder} instead: {reasons[0]}")
                return
            reasons.append(f"{folder} {reason}")
        self._say(f"they are not kept, and made again in every process: {'; '.join(reasons)}")

    def _folders(self) -> Iterator[tuple[Path, str]]:
        """The folders in their order, each with the reason why it is not trusted, or ""."""
        for folder in (self.wanted(), private()):
            if folder is not None:
                yield folder, distrusted(folder)

    def _say(self, said: str) -> None:
        _warn_once(f"{self.what}: {said}; {self.variable} names another folder")


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def private() -> Path | None:
    """A folder of this user's own that needs no home; None where nothing can be written."""
    who = str(os.geteuid()) if hasattr(os, "geteuid") else "cache"
    try:
        return Path(tempfile.gettempdir(), f"gradlab-{who}")
    except FileNotFoundError:
        return None


def distrusted(folder: Path) -> str:
    """Why what lies in a folder may come from another user; "" if it cannot, or is not there."""
    try:
        found = folder.stat()
    except OSError:
        return ""
    return "" if _is_ours(found) else "can be written to by others"


def _is_ours(found: os.stat_result) -> bool:
    """Whether only this user and the administrator can have written a file or into a folder."""
    if not hasattr(os, "geteuid"):  # Windows, where a profile is its user's own
        return True
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


# ---------------------------------------------------------------------------------------- files


def read(file: Path) -> bytes | None:
    """The content of an entry; None if it is missing, damaged, or not certainly this user's."""
    found = _content(file)
    return None if found is None else unsealed(file.name, found)


def _content(file: Path) -> bytes | None:
    if distrusted(file.parent):
        return None
    # Neither follow a link nor wait for a pipe that somebody has put there.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        opened = os.open(file, flags | getattr(os, "O_BINARY", 0))
        with open(opened, "rb") as stream:
            found = os.fstat(stream.fileno())
            # Asked of the open file: the folder may have changed hands since it was looked at.
            return stream.read() if stat.S_ISREG(found.st_mode) and _is_ours(found) else None
    except OSError:
        return None


def sealed(name: str, content: bytes) -> bytes:
    """``content`` and behind it a checksum of it and of the name it is kept under."""
    return content + _MARK + _checksum(name, content)


def unsealed(name: str, found: bytes) -> bytes | None:
    """What `sealed` was given; None if anything is missing or has changed."""
    content, mark, checksum = found[: -32 - len(_MARK)], found[-32 - len(_MARK) : -32], found[-32:]
    whole = mark == _MARK and checksum == _checksum(name, content)
    return content if whole and content else None


def _checksum(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _made(folder: Path) -> str:
    """Make a folder that only this user can write to; the reason where that fails, or ""."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return _reason(error)
    return distrusted(folder)


def _written(folder: Path, name: str, content: bytes) -> str:
    """Write an entry at once, so that nobody reads half of it; the reason if it fails, or "".

    The checksum makes waiting for the disk unnecessary: what a power failure cuts is made again.
    """
    _remove_abandoned(folder)
    part = None
    try:
        opened, part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
        with open(opened, "wb") as stream:
            stream.write(sealed(name, content))
        os.replace(part, folder / name)
    except BaseException as error:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)
        if not isinstance(error, OSError):
            raise
        # On Windows a file that another process reads cannot be replaced, and need not be.
        return "" if read(folder / name) == content else _reason(error)
    return ""


def _reason(error: OSError) -> str:
    return f"cannot be written ({error.strerror or error})"


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of their writing."""
    with contextlib.suppress(OSError):
        for part in folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > _ABANDONED:
                    part.unlink()
