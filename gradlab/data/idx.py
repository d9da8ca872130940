"""IDX files, the format of MNIST and its kin, read with every check the format allows.

A file is four bytes (two zeros, the code of the dtype, the number of axes), one big-endian uint32
per axis (its size), and the values in C order, big-endian [1]_.

.. [1] LeCun, Cortes and Burges, "The MNIST database of handwritten digits",
   http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gradlab.data.unpacking import UNPACK_FIRST, RefusedError, largest, too_large, unzipped
from gradlab.devices import cpu
from gradlab.errors import DataError, DTypeError, ShapeError, message, printable
from gradlab.paths import as_path, open_file, replacing
from gradlab.tensor import Tensor, from_value

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

_GZIP = b"\x1f\x8b"
_MAX_AXES = 64  # of a NumPy array
# No DEFLATE stream holds more bytes per byte of its own (zlib's "Maximum Compression Factor").
_MAX_RATIO = 1032


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read an IDX file, plain or compressed by gzip, as a tensor of its dtype and shape.

    The dtype is one of uint8, int8, int16, int32, float32 and float64; the memory is new.

    Raises `DataError`, with the name of the file, where it is no IDX file, holds fewer or more
    bytes than its header says, is damaged (gzip's own checksum does not match), unpacks to more
    than 1 GiB and 100 times its size, or cannot be read.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "labels-idx1-ubyte.gz")
    >>> write_idx(path, np.array([9, 2, 1], dtype=np.uint8))
    >>> read_idx(path)
    tensor([9, 2, 1], dtype=uint8)
    """
    return from_value(read_array(path, "read_idx"), cpu)


def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write a tensor or array as an IDX file, compressed by gzip where ``path`` ends in ``.gz``.

    Equal arrays make equal files. Missing folders are made; a file that is there is replaced whole
    or not at all, as by `gradlab.save`. Raises `DTypeError` for a dtype that the format does not
    have, `ShapeError` for a single number, which has no axis, and `FileError` where the file cannot
    be written.

    >>> import gradlab as gl, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "images-idx3-ubyte")
    >>> write_idx(path, gl.zeros(2, 28, 28, dtype=gl.uint8))
    >>> os.path.getsize(path)  # 4 bytes, 4 per axis, 1 per pixel
    1584
    """
    values = array.numpy(force=True) if isinstance(array, Tensor) else np.asarray(array)
    header = _header(values)
    values = values.astype(values.dtype.newbyteorder(">"), order="C", copy=False)
    target = as_path("write_idx", path)
    with replacing(target, "write_idx") as temporary, temporary.open("wb") as file:
        if target.suffix != ".gz":
            file.write(header)
            file.write(values.data if values.size else b"")
            return
        # Without name and time, which would make two files of one array differ.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            packed.write(header)
            packed.write(values.data if values.size else b"")


def _header(values: np.ndarray) -> bytes:
    code = _CODES.get(values.dtype.newbyteorder("="))
    if code is None:
        names = ", ".join(dtype.name for dtype in _CODES)
        raise DTypeError(
            message(
                "write_idx",
                expected=f"a dtype of the format: {names}",
                got=values.dtype.name,
                hint="convert it first, labels to uint8",
            )
        )
    if not values.ndim:
        raise ShapeError(message("write_idx", expected="one axis or more", got="a single number"))
    for size in values.shape:
        if size >= 2**32:
            raise ShapeError(message("write_idx", expected="sizes below 2**32", got=str(size)))
    return struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)


# ------------------------------------------------------------------------------------- reading


def read_array(path: str | os.PathLike[str], operation: str, hint: str = "") -> np.ndarray:
    """`read_idx` on behalf of another operation, as an array; ``hint`` ends its messages."""
    source = as_path(operation, path)
    with _explained(operation, source, hint), open_file(source) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise _UnfitError("expected an IDX file, got an empty file")
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            with unzipped(file) as unpacked:
                return _read(unpacked, size * _MAX_RATIO, largest(size, None))
        if source.suffix == ".gz":
            raise _UnfitError(
                "expected a gzip file, as its name says, got another; it may be unpacked already "
                "(rename it), or no data at all"
            )
        return _read(file, size, size)


def _read(file: BinaryIO, at_most: int, limit: int) -> np.ndarray:
    """The array in a file that can hold ``at_most`` so many bytes, and may hold ``limit``."""
    dtype, shape = _read_header(file)
    header = 4 + 4 * len(shape)
    wanted = math.prod(shape) * dtype.itemsize  # Python's integers do not overflow
    said = f"{wanted:,} bytes of {dtype.name} {shape} after the header"
    if wanted > at_most - header:
        # Before any memory is asked for: a damaged header may speak of exabytes.
        raise _UnfitError(f"expected {said}, got a file too small to hold them; it is truncated")
    if wanted > limit:
        raise too_large(limit, UNPACK_FIRST)
    try:
        values = np.empty(shape, dtype)
    except ValueError:  # of an empty array, too, NumPy multiplies the other sizes
        raise _UnfitError(f"expected sizes that an array can have, got {shape}") from None
    got = _fill(file, values)
    if got < wanted:
        raise _UnfitError(f"expected {said}, got {got:,}; it is truncated")
    if rest := _count_rest(file):
        raise _UnfitError(f"expected {said}, got {wanted + rest:,}; it is too long")
    if dtype.itemsize > 1 and sys.byteorder == "little":
        values.byteswap(inplace=True)
    return values


def _read_header(file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        got = magic.hex(" ") or "nothing"
        raise _UnfitError(f"expected an IDX file, which begins with two zero bytes, got {got}")
    dtype = _DTYPES.get(magic[2])
    if dtype is None:
        known = ", ".join(f"0x{code:02x} ({dtype.name})" for code, dtype in _DTYPES.items())
        raise _UnfitError(f"expected the code of a dtype, {known}, got 0x{magic[2]:02x}")
    axes = magic[3]
    if not 1 <= axes <= _MAX_AXES:
        raise _UnfitError(f"expected 1 to {_MAX_AXES} axes, got {axes}")
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise _UnfitError(
            f"expected the sizes of {axes} axes, got {len(sizes)} bytes; it is truncated"
        )
    return dtype, struct.unpack(f">{axes}I", sizes)


def _fill(file: BinaryIO, values: np.ndarray) -> int:
    """Read into the memory of an array; returns how many bytes there were."""
    if not values.size:
        return 0
    memory = values.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(memory):
        got = file.readinto(memory[filled:])  # type: ignore[attr-defined]
        if not got:
            break
        filled += got
    return filled


def _count_rest(file: BinaryIO) -> int:
    """The bytes up to the end, where gzip compares its checksum."""
    rest = 0
    while part := file.read(1 << 20):
        rest += len(part)
    return rest


class _UnfitError(Exception):
    """What is wrong with a file, before its name is known."""


@contextmanager
def _explained(operation: str, path: Path, hint: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one line that names it."""
    start, end = f"{operation}: {printable(path)}: ", f"; {hint}" if hint else ""
    try:
        yield
    except (_UnfitError, RefusedError) as error:
        raise DataError(f"{start}{error}{end}") from None
    except FileNotFoundError:
        raise DataError(f"{start}there is no such file{end}") from None
    except EOFError:
        raise DataError(f"{start}the gzip file is truncated; fetch it anew") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{start}the gzip file is damaged ({error}); fetch it anew") from None
    except MemoryError:
        raise DataError(f"{start}does not fit in memory{end}") from None
    except OSError as error:
        raise DataError(f"{start}cannot be read: {error.strerror or error}{end}") from None
