"""Archives and compressed streams from elsewhere, read with limits and unpacked without trust.

Neither the filters of `tarfile` nor the checks of `zipfile` are relied on, since several Python
releases have holes in them. Every member is written by the code below, into a fresh folder, and
what is whole is moved to its place at the end.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import IO, Any, BinaryIO

from gradlab.errors import printable

# What a file may unpack to where the caller says nothing.
_MAX_BYTES = 1 << 30
_MAX_RATIO = 100

# Of one read. tarfile asks for all of an extended header at once, however long it claims to be.
_PIECE = 1 << 14

_MAX_NAME, _MAX_PATH = 255, 4096  # bytes, of most file systems
_MAX_DEPTH = 100  # folders; what lies deeper, not every library can remove again
_MAX_LINKS = 40  # from link to link, as in Linux

# What the libraries raise for bytes that they cannot read.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    struct.error, ValueError, LookupError, ArithmeticError, RecursionError, AttributeError,
    TypeError,
)  # fmt: skip

Parts = tuple[str, ...]


class RefusedError(Exception):
    """Why a file is not unpacked, before its name is known."""


def largest(size: int, max_bytes: int | None) -> int:
    """How many bytes a file of ``size`` bytes may unpack to: 1 GiB, and 100 times its size."""
    return max(_MAX_BYTES, _MAX_RATIO * size) if max_bytes is None else max_bytes


def too_large(limit: int, remedy: str = "give a larger max_bytes") -> RefusedError:
    """The error for what unpacks to more than it may."""
    return RefusedError(
        f"expected at most {limit:,} bytes when unpacked, got more; nothing was unpacked; if you "
        f"trust it, {remedy}"
    )


UNPACK_FIRST = "unpack it first, with gzip -d"


class _Unzipped(io.RawIOBase):
    """What gzip has packed, `RefusedError` where it is too large."""

    def __init__(self, file: BinaryIO) -> None:
        self._limit = self._left = largest(os.fstat(file.fileno()).st_size, None)
        self._packed, self._unpacked = file, gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, memory: Any) -> int:
        got = self._unpacked.readinto(memory)
        self._left -= got
        if self._left < 0:
            raise too_large(self._limit, UNPACK_FIRST)
        return got

    def close(self) -> None:
        self._packed.close()
        super().close()


def unzipped(file: BinaryIO) -> BinaryIO:
    """The content of a single file that gzip has packed, within the limits of `largest`."""
    return io.BufferedReader(_Unzipped(file), 1 << 16)


class Limited:
    """A stream for reading that holds ``limit`` bytes at most; `RefusedError` where it holds more.

    It gives small pieces only, so that no length that a header claims is ever allocated. ``piece``
    is the latest.
    """

    def __init__(self, file: BinaryIO | IO[bytes], limit: int) -> None:
        self.file, self.limit = file, limit
        self.piece = b""

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; fewer at the end."""
        if not 0 <= size <= _PIECE:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        with _as_damage():
            self.piece = self.file.read(size)
        self._check(self.file.tell())
        return self.piece

    def seek(self, position: int) -> int:
        """Go to a position, to which a compressed stream has to be read."""
        self._check(position)
        with _as_damage():
            return self.file.seek(position)

    def tell(self) -> int:
        """The position."""
        return self.file.tell()

    def drain(self) -> None:
        """Read to the end, where a compressed stream compares its checksum."""
        while self.read(_PIECE):
            pass

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise too_large(self.limit)


@contextmanager
def _as_damage() -> Iterator[None]:
    """Tell what is wrong with a stream from what is wrong with the disk it is unpacked to."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DAMAGED):
            raise
        raise tarfile.ReadError(error.strerror or str(error)) from None


@contextmanager
def decompressed(file: BinaryIO) -> Iterator[IO[bytes]]:
    """The content of a file that gzip, bzip2 or xz has packed, or the file as it is."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked  # type: ignore[misc]
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(file) as unpacked_bz2:
            yield unpacked_bz2
    elif start.startswith(b"\xfd7zXZ\0"):
        with lzma.LZMAFile(file) as unpacked_xz:
            yield unpacked_xz
    else:
        yield file


# -------------------------------------------------------------------------------- the fresh folder


class Stage:
    """A fresh folder that members of an archive are written to, one after another.

    Nothing is ever written through a link: links are made last, and only those whose destination,
    followed step by step among the members alone, is a member.
    """

    def __init__(self, folder: Path, max_bytes: int, max_members: int) -> None:
        self.folder = folder
        self.max_bytes, self.max_members = max_bytes, max_members
        self._bytes = self._count = 0
        # Every member and every folder above one: "folder", "file", or where a link leads.
        self._members: dict[Parts, str] = {}
        self._links: dict[Parts, str] = {}

    def add_folder(self, name: str) -> None:
        """Make a folder, and those above it."""
        self._make_folders(self._parts(name, count=False), name)

    def add_file(
        self, name: str, content: Any, executable: bool = False, time: float | None = None
    ) -> None:
        """Write a file from a stream; a second one of the same name takes the place of the first.

        ``time`` is that of its last change.
        """
        path = self._new(name)
        with open(path, "xb") as file:
            while piece := content.read(_PIECE):
                self._bytes += len(piece)
                if self._bytes > self.max_bytes:
                    raise too_large(self.max_bytes)
                file.write(piece)
            if executable:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                path.chmod(mode | (mode & 0o444) >> 2)  # for those who may read it
        if time is not None:
            with suppress(OSError, OverflowError, ValueError):  # a time that the system lacks
                os.utime(path, (time, time))

    def add_copy(self, name: str, of: str) -> None:
        """Write a second copy of an earlier file, which is what a hard link becomes."""
        source = self._parts(of, count=False)
        if self._members.get(source) != "file":
            raise outside(name, f"a hard link to {of!r}, which is no file before it")
        if self._parts(name, count=False) != source:
            with open(self.folder.joinpath(*source), "rb") as content:
                self.add_file(name, content)

    def add_link(self, name: str, to: str) -> None:
        """Note a link, to be made when all files are there."""
        parts = self._parts(name)
        self._make_folders(parts[:-1], name)
        if not parts or self._members.get(parts, "") in ("file", "folder"):
            raise outside(name, "a link in place of a file")
        if "\0" in to or len(os.fsencode(to)) > _MAX_PATH:
            raise outside(name, "a link to a name that no file can have")
        self._members[parts] = "link"
        self._links[parts] = to

    def make_links(self) -> None:
        """Make the links that were noted."""
        for parts, to in self._links.items():
            self._check_link(parts)
            path = self.folder.joinpath(*parts)
            if os.path.lexists(path):
                raise outside("/".join(parts), "a second name for a file that is there")
            os.symlink(to, path, target_is_directory=False)

    def check(self, target: Path) -> None:
        """Refuse to go through, or put a file in place of, what is in a folder already."""
        for parts, kind in self._members.items():
            place = target.joinpath(*parts)
            with suppress(FileNotFoundError):
                is_folder = stat.S_ISDIR(place.lstat().st_mode)
                if is_folder != (kind == "folder"):
                    there = "a folder" if is_folder else "a file or a link"
                    raise RefusedError(
                        f"expected to make the {kind} {printable(place)}, got {there} of that name "
                        "which is there already; nothing was unpacked; choose another folder"
                    )

    def move(self, target: Path) -> None:
        """Move everything to a folder, in place of files and links of the same names."""
        target.mkdir(parents=True, exist_ok=True)
        for parts, kind in self._members.items():
            place = target.joinpath(*parts)
            if kind == "folder":
                place.mkdir(exist_ok=True)
            else:
                os.replace(self.folder.joinpath(*parts), place)

    def _parts(self, name: str, count: bool = True) -> Parts:
        """A name within the archive, part by part; refuses what is no path below a folder."""
        self._add_to_count(count)
        windows = PureWindowsPath(name)  # knows both separators, and drives
        if name.startswith("/") or windows.anchor or ".." in windows.parts:
            raise outside(name)
        separated = name.replace("\\", "/") if os.name == "nt" else name
        parts = tuple(part for part in separated.split("/") if part not in ("", "."))
        sizes = [len(os.fsencode(part)) for part in parts]
        too_long = max(sizes, default=0) > _MAX_NAME or sum(sizes) + len(parts) > _MAX_PATH
        if "\0" in name or too_long or (os.name == "nt" and ":" in name):
            raise outside(name, "a name that no file can have")
        if len(parts) > _MAX_DEPTH:
            raise outside(name, f"a path of more than {_MAX_DEPTH} parts")
        return parts

    def _add_to_count(self, count: int) -> None:
        self._count += count
        if self._count > self.max_members:
            raise RefusedError(
                f"expected at most {self.max_members:,} members, got more; nothing was unpacked; "
                "if you trust it, give a larger max_members"
            )

    def _make_folders(self, parts: Parts, name: str) -> None:
        for end in range(1, len(parts) + 1):
            kind = self._members.setdefault(parts[:end], "")
            if not kind:
                self._add_to_count(1)
                self._members[parts[:end]] = "folder"
                self._create(self.folder.joinpath(*parts[:end]), name)
            elif kind != "folder":
                raise outside(name, f"a way through a {kind}")

    @staticmethod
    def _create(path: Path, name: str) -> None:
        try:
            path.mkdir()
        except FileExistsError:  # its name differs, but not to this file system
            raise outside(name, "a second name for a file that is there") from None

    def _new(self, name: str) -> Path:
        """Where a new file of that name is to be written."""
        parts = self._parts(name)
        self._make_folders(parts[:-1], name)
        path = self.folder.joinpath(*parts)
        kind = self._members.get(parts, "")
        if not parts or kind not in ("", "file"):
            raise outside(name, f"a file in place of a {kind or 'folder'}")
        if kind:
            path.unlink()
        elif os.path.lexists(path):
            raise outside(name, "a second name for a file that is there")
        self._members[parts] = "file"
        return path

    def _check_link(self, parts: Parts) -> None:
        """Follow a link through the members, and refuse one that leads to none of them."""
        name = "/".join(parts)
        here, ahead, followed = list(parts[:-1]), [self._links[parts]], 0
        while ahead:
            step = ahead.pop()
            if step.startswith("/") or PureWindowsPath(step).anchor:
                raise outside(name)
            if "/" in step:
                ahead += reversed(step.split("/"))
            elif step == "..":
                if not here:
                    raise outside(name)
                here.pop()
            elif step not in ("", "."):
                here.append(step)
                kind = self._members.get(tuple(here))
                if kind is None:
                    raise outside(name, "a link to nothing in the archive")
                if kind == "link":
                    followed += 1
                    if followed > _MAX_LINKS:
                        raise outside(name, "a link that leads back to itself")
                    ahead.append(self._links[tuple(here)])
                    here.pop()


def outside(name: str, what: str = "") -> RefusedError:
    """The error for a member that does not belong into the folder."""
    shown = repr(name) if len(name) <= 80 else f"{name[:80]!r}..."
    got = f"{shown}, {what}" if what else shown
    return RefusedError(
        f"expected files that stay within the folder, got {got}; nothing was unpacked"
    )


def near(target: Path) -> Path:
    """The nearest folder that is there: on the file system of ``target``, as its parts will be."""
    while not target.exists():
        target = target.parent
    return target


# ------------------------------------------------------------------------------------ zip and tar


def unpack_zip(file: BinaryIO, stage: Stage) -> None:
    """Write the members of a zip archive."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            # The library unpacks other kinds without a limit to the memory that they take.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RefusedError(
                    f"expected members that are stored or deflated, got {info.filename!r} "
                    f"compressed by method {info.compress_type}; unpack it with another program"
                )
            mode = info.external_attr >> 16
            if info.is_dir():
                stage.add_folder(info.filename)
                continue
            with archive.open(info) as content:
                if stat.S_ISLNK(mode):
                    stage.add_link(info.filename, os.fsdecode(content.read(_MAX_PATH + 1)))
                else:
                    stage.add_file(info.filename, content, bool(mode & 0o100))


def unpack_tar(file: BinaryIO, stage: Stage) -> None:
    """Write the members of a tar archive, plain or compressed by gzip, bzip2 or xz."""
    with decompressed(file) as content:
        headers = 4 * _PIECE * (stage.max_members + 1)
        stream = Limited(content, stage.max_bytes + headers)
        try:
            archive = tarfile.open(fileobj=stream, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        except tarfile.ReadError:
            raise RefusedError(
                "expected a zip or tar archive, got neither (or a damaged one)"
            ) from None
        with archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # they would be kept, with all that their headers hold
                _unpack_member(archive, member, stage)
        # The library takes the end of the file, and any damaged header, for the end as well.
        if stream.piece != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without an end-of-archive block; it is truncated")
        stream.drain()


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, stage: Stage) -> None:
    if member.size < 0 or not _is_sound(member):
        raise tarfile.ReadError(f"a member of {member.size} bytes")
    if member.isdir():
        stage.add_folder(member.name)
    elif member.issym():
        stage.add_link(member.name, member.linkname)
    elif member.islnk():
        stage.add_copy(member.name, member.linkname)
    elif member.isreg():
        content = archive.extractfile(member)
        stage.add_file(member.name, content, bool(member.mode & 0o100), member.mtime)
    else:
        raise outside(member.name, "a device, a pipe or another special file")


def _is_sound(member: tarfile.TarInfo) -> bool:
    """Whether the parts of a sparse file follow one another; in others the library gets lost."""
    end = 0
    for offset, size in getattr(member, "sparse", None) or ():
        if offset == size == 0:  # a place that the header has left
            continue
        if offset < end or size < 0:
            return False
        end = offset + size
    return end <= member.size
