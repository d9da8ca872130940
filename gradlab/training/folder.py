"""The folder of checkpoints, in which several runs may write, and any of them be killed.

A name begins with a number that grows. Whoever writes a checkpoint claims its number by a hidden
file, which no two processes can make, and holds a lock on it until the checkpoint is whole; so does
whoever removes one, until it is gone. What belongs to a claim that nobody holds was left by a
process that is gone, whatever the clock says.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradlab.fields import Kind
from gradlab.paths import as_path, cannot_write, lock, lock_abandoned
from gradlab.serialization import explained

_CHECKPOINT = r"(?P<number>\d{4,})-epoch\d+-step\d+\.(?P<kind>json|safetensors)"
_NAME = re.compile(_CHECKPOINT)
_TEMPORARY = re.compile(rf"\.{_CHECKPOINT}\.[0-9a-f]{{8}}\.tmp")
_CLAIM = re.compile(r"\.(?P<number>\d{4,})\.claim")

# Of the errors of a checkpoint that cannot be written.
OPERATION, SAFE = "checkpoint", "the checkpoints written before it are whole"

CHECKPOINT_NAME = Kind(
    "the name of a checkpoint",
    lambda name: isinstance(name, str) and _number(name, _NAME) is not None,
)


def _number(name: str, *patterns: re.Pattern[str]) -> int | None:
    found = (pattern.fullmatch(name) for pattern in patterns)
    return next((int(match["number"]) for match in found if match), None)


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, as the paths of their JSON files, the latest last.

    The list is empty where there is no such folder. Raises `CheckpointError` where it cannot be
    read.
    """
    folder, names = as_path("list_checkpoints", folder, "a folder"), []
    with explained("list_checkpoints", folder), suppress(FileNotFoundError, NotADirectoryError):
        names = [name for name in os.listdir(folder) if name.endswith(".json")]
    found = [(number, name) for name in names if (number := _number(name, _NAME)) is not None]
    return [folder / name for _, name in sorted(found)]


@contextmanager
def claimed(folder: Path, position: dict[str, Any]) -> Iterator[Path]:
    """The path for the next checkpoint in a folder, at a position in the run, to be written inside.

    Nobody else gets its number. Where the writing fails, no part of the checkpoint stays.
    """
    epoch = position["epoch"] + (position["batch"] > 0)  # from 1; the one that is over, if just so
    try:
        number, claim, handle = _claim(folder)
    except OSError as error:
        raise cannot_write(OPERATION, folder, error, SAFE) from None
    path = folder / f"{number:04d}-epoch{epoch}-step{position['step']}.json"
    try:
        yield path
    except BaseException:
        if not path.exists():
            path.with_suffix(".safetensors").unlink(missing_ok=True)
        raise
    finally:
        _give_back(claim, handle)


def require_writable(folder: Path) -> None:
    """Make a folder for checkpoints, and refuse one in which none can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _, claim, handle = _claim(folder)
    except OSError as error:
        raise cannot_write(OPERATION, folder, error, "nothing was trained") from None
    _give_back(claim, handle)


def _claim(folder: Path) -> tuple[int, Path, int]:
    while True:
        names = os.listdir(folder)
        taken = [_number(name, _NAME, _TEMPORARY, _CLAIM) or 0 for name in names]
        number = max(taken, default=0) + 1
        claim = folder / f".{number:04d}.claim"
        try:
            handle = _create(claim)
        except FileExistsError:
            continue
        lock(handle, wait=True)
        # It may have been taken for abandoned before it was locked; and between the look at the
        # folder and the claim, somebody else may have written the checkpoint of this number.
        with suppress(FileNotFoundError):
            ours = os.path.samestat(os.stat(claim), os.fstat(handle))
            if ours and not any(_number(name, _NAME) == number for name in os.listdir(folder)):
                return number, claim, handle
        _give_back(claim, handle)


def _create(claim: Path) -> int:
    return os.open(claim, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _give_back(claim: Path, handle: int) -> None:
    if sys.platform == "win32":  # which removes no open file
        os.close(handle)
    with suppress(OSError):
        # It may be another's by now, if it was taken for abandoned before it was locked.
        if sys.platform == "win32" or os.path.samestat(os.stat(claim), os.fstat(handle)):
            claim.unlink()
    if sys.platform != "win32":
        os.close(handle)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint, its JSON first: what is left of a kill in between is no checkpoint.

    A claim says meanwhile that the rest is to be removed as well.
    """
    claim, handle = path.with_name(f".{path.name.partition('-')[0]}.claim"), None
    with suppress(OSError):  # one that was left is there, or the disk is full: continue without
        handle = _create(claim)
        lock(handle, wait=True)
    try:
        path.unlink(missing_ok=True)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
    finally:
        if handle is not None:
            _give_back(claim, handle)


def remove_abandoned(folder: Path) -> None:
    """Delete what this user's processes left in a folder when they were killed while writing."""
    with suppress(OSError):
        names = os.listdir(folder)
        for claim in names:
            number = _number(claim, _CLAIM)
            if number is not None:
                with suppress(OSError):
                    left = [name for name in names if _number(name, _NAME, _TEMPORARY) == number]
                    _remove_if_abandoned(folder / claim, [folder / name for name in left])


def _remove_if_abandoned(claim: Path, left: list[Path]) -> None:
    handle = -1
    if sys.platform == "win32":
        claim.unlink()  # fails for a file that is open
    else:
        handle = os.open(claim, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if handle >= 0 and not lock_abandoned(handle):
            return
        for path in left:
            if path.suffix == ".tmp" or not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)
        claim.unlink(missing_ok=True)
    finally:
        if handle >= 0:
            os.close(handle)
