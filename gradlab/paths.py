"""Files and folders as users name them; files are opened without waiting and replaced whole."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from gradlab.errors import FileError, OptionError, message, printable

if sys.platform != "win32":
    import fcntl


def as_path(operation: str, path: Any, expected: str = "a path") -> Path:
    """Return a path from a string or path-like object; refuse anything else."""
    if not isinstance(path, str | os.PathLike):
        raise OptionError(message(operation, expected=expected, got=type(path).__name__))
    try:
        made = Path(path)
        encoded = os.fsencode(made)
    except (TypeError, UnicodeEncodeError):  # bytes, or text that no file can be named by
        raise OptionError(
            message(operation, expected=f"{expected} of text", got=repr(path))
        ) from None
    if b"\0" in encoded:
        raise OptionError(
            message(operation, expected=f"{expected} without a NUL character", got=repr(path))
        )
    return made


# ------------------------------------------------------------------------------------- reading


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading without waiting for a writer; raise `OSError` if it is not a file.

    A pipe or a device may never end, and would block where nobody writes to it.
    """
    require_file(path, os.stat(path))
    # A pipe may have taken the place of the file by now.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        require_file(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def require_file(path: Path, found: os.stat_result) -> None:
    """Raise `OSError` for a folder, a pipe, a socket or a device."""
    if not stat.S_ISREG(found.st_mode):
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        kinds = {"a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
        kind = next((name for name, test in kinds.items() if test(found.st_mode)), "a device")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


# ------------------------------------------------------------------------------------- writing


@contextmanager
def replacing(
    path: str | os.PathLike[str], operation: str = "save", state: str = "nothing was written"
) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to, which takes its place on success.

    What was written is on the disk before the name changes, so that neither a killed process nor
    a power failure leaves half a file under the name. A file that is there is replaced as if it
    were written over: a link to it stays a link, and its mode, group and (where the system allows
    it) owner stay. What processes of the same user that were killed here have left is removed.

    Raises `FileError`, which tells what is safe (``state`` where no file was there), where the file
    cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if os.path.isfile(target):
            state = "the file that was there is unchanged"
        before = _writable(Path(path), target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        with _temporary(target, before) as temporary:
            yield temporary
        state = "the new file is in place, but might not survive a power failure"
        _synchronize(target.parent)
    except FileError:  # of another file, which is written meanwhile
        raise
    except OSError as error:
        raise cannot_write(operation, path, error, state) from None


def cannot_write(operation: str, path: Any, error: OSError, state: str) -> FileError:
    """The error for a file or folder that the system does not let us write."""
    # The system's words for it; they name no file, as a link may hide which one it is.
    reason = error.strerror or str(error) or type(error).__name__
    hint = _REMEDIES.get(error.errno or 0, "")
    made = FileError(
        f"{operation}: {printable(path)}: cannot be written: {printable(reason)}; {state}"
        + (f"; {hint}" if hint else "")
    )
    made.errno = error.errno
    return made


_REMEDIES = {
    errno.ENOSPC: "free some space, or choose a folder on another disk",
    getattr(errno, "EDQUOT", errno.ENOSPC): "free some space, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another file system",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead back to themselves; choose another place",
}


def _writable(path: Path, target: Path) -> os.stat_result | None:
    """What is at the target, None for nothing; raises for what cannot be written over."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    require_file(path, found)
    if not os.access(target, os.W_OK):  # only the folder would be asked
        raise OSError(errno.EACCES, "it is write-protected")
    return found


@contextmanager
def _temporary(target: Path, before: os.stat_result | None) -> Iterator[Path]:
    """A new file that takes the place of the target once it is on the disk, or is gone."""
    file, temporary = _create(target, 0o666 if before is None else 0o600)
    try:
        yield temporary
        if before is not None:
            keep_permissions(file.fileno(), before)
        os.fsync(file.fileno())
        if sys.platform == "win32":  # which gives no open file another name
            file.close()
        temporary.replace(target)
    except BaseException:
        file.close()
        temporary.unlink(missing_ok=True)
        raise
    finally:
        file.close()


def _create(target: Path, mode: int) -> tuple[BinaryIO, Path]:
    """Make a temporary file that nobody takes for abandoned."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            lock(handle, wait=True)
            if temporary.exists():  # else another process has cleaned up before the lock
                return os.fdopen(handle, "r+b"), temporary
        except BaseException:
            os.close(handle)
            temporary.unlink(missing_ok=True)
            raise
        os.close(handle)


def lock(handle: int, wait: bool = False) -> bool:
    """Mark a file as one that is being written, until it is closed or this process dies."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # it is locked, or on a file system without locks
        return False
    return True


def lock_abandoned(handle: int) -> bool:
    """Lock a file or folder of this user that no process holds; False for any other."""
    found = os.fstat(handle)
    is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_plain and found.st_uid == os.geteuid() and lock(handle)


def keep_permissions(handle: int, before: os.stat_result) -> None:
    """Give a new file the owner, the group and the mode of the one that it replaces."""
    mode = stat.S_IMODE(before.st_mode) & 0o777
    if hasattr(os, "fchown"):
        with suppress(OSError):  # only root may give files away
            os.fchown(handle, before.st_uid, -1)
        try:
            os.fchown(handle, -1, before.st_gid)
        except OSError:
            mode &= 0o707  # what the group was allowed, another group is not
    if hasattr(os, "fchmod"):
        os.fchmod(handle, mode)


@contextmanager
def fresh_folder(beside: Path) -> Iterator[Path]:
    """A new folder beside a path that nobody else may read, and that is gone at the end.

    What processes of the same user that were killed have left of such is removed.
    """
    _remove_abandoned(beside)
    folder = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}.tmp")
    os.mkdir(folder, 0o700)
    # A folder is no file on Windows, and cannot be locked.
    handle = None if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _remove_abandoned(target: Path) -> None:
    """Remove what this user's processes left of the target when they were killed.

    Whoever writes holds a lock; a process that is gone holds none, whatever the clock says.
    """
    if sys.platform == "win32":
        return
    pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.tmp")
    with suppress(OSError), os.scandir(target.parent) as entries:
        found = [entry.path for entry in entries if pattern.fullmatch(entry.name)]
        for path in found:
            with suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: str) -> None:
    is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    access = os.O_RDONLY if is_folder else os.O_RDWR
    handle = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if lock_abandoned(handle):
            shutil.rmtree(path) if is_folder else os.unlink(path)
    finally:
        os.close(handle)


def _synchronize(folder: Path) -> None:
    """Bring a new name to the disk, where the system has a call for it and grants it."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to, not listed
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without such a call
            raise
    finally:
        os.close(handle)
