"""IDX files: written and read back, and one clear line for each file that is none."""

from __future__ import annotations

import gzip
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

import gradlab as gl
from gradlab.data import read_idx, write_idx
from gradlab.errors import DataError, DTypeError, OptionError, ShapeError

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write bytes into the current folder, so that messages name the file without a path."""
    monkeypatch.chdir(tmp_path)

    def write(content: bytes, name: str = "file") -> str:
        Path(name).write_bytes(content)
        return name

    return write


def refusal(path) -> str:
    with pytest.raises(DataError) as raised:
        read_idx(path)
    text = str(raised.value)
    assert "\n" not in text
    return text.removeprefix("read_idx: ")


def header(*shape: int, code: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


# -------------------------------------------------------------------------------- both directions


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(
            dtype, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
        )
    ),
    st.sampled_from(["file", "file.gz"]),
)
def test_what_is_written_is_read_again(tmp_path_factory, array, name):
    path = tmp_path_factory.getbasetemp() / name
    write_idx(path, array)
    read = read_idx(path)
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(read.numpy(), array)


def test_bytes_are_those_of_the_format(write):
    path = write(b"")
    write_idx(path, np.array([[1, -2, 300]], np.int16))
    expected = bytes.fromhex("00000b02 00000001 00000003 0001 fffe 012c")
    assert Path(path).read_bytes() == expected


def test_any_order_in_memory(write):
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4)[:, ::-1].T
    path = write(b"")
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path).numpy(), array)
    write_idx(path, gl.arange(3, dtype=gl.int32))
    assert read_idx(path).tolist() == [0, 1, 2]


def test_memory_is_new_and_writable(write):
    path = write(header(2) + b"\1\2")
    labels = read_idx(path)
    labels[0] = 7
    assert read_idx(path).tolist() == [1, 2]


def test_packed_files(write, tmp_path):
    data = np.arange(10, dtype=np.uint8)
    for name in ("one.gz", "two.gz"):
        write_idx(tmp_path / "new" / name, data)
    one, two = ((tmp_path / "new" / name).read_bytes() for name in ("one.gz", "two.gz"))
    assert one == two  # neither time nor name
    # Unpacked without a change of name is refused below; packed without one is no question.
    assert read_idx(write(one, "renamed")).tolist() == data.tolist()
    parts = gzip.compress(header(4)) + gzip.compress(b"\1\2") + gzip.compress(b"\3\4")
    assert read_idx(write(parts, "parts.gz")).tolist() == [1, 2, 3, 4]


def test_arrays_that_are_not_written(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(DTypeError) as raised:
        write_idx(path, gl.tensor([1, 2]))
    assert str(raised.value) == (
        "write_idx: expected a dtype of the format: uint8, int8, int16, int32, float32, float64, "
        "got int64; convert it first, labels to uint8"
    )
    with pytest.raises(ShapeError, match="expected one axis or more, got a single number"):
        write_idx(path, np.uint8(3))
    with pytest.raises(OptionError, match="expected a path, got int"):
        write_idx(3, np.zeros(3, np.uint8))
    assert not path.exists()


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hello", "expected an IDX file, which begins with two zero bytes, got 68 65 6c 6c"),
        (
            header(0, 2**32 - 1, 2**32 - 1),
            "expected sizes that an array can have, got (0, 4294967295, 4294967295)",
        ),
        (b"\0\0\x08", "expected an IDX file, which begins with two zero bytes, got 00 00 08"),
        (
            b"\0\0\x0a\1",
            "expected the code of a dtype, 0x08 (uint8), 0x09 (int8), 0x0b (int16), 0x0c (int32), "
            "0x0d (float32), 0x0e (float64), got 0x0a",
        ),
        (b"\0\0\x08\0", "expected 1 to 64 axes, got 0"),
        (b"\0\0\x08\x41" + bytes(260), "expected 1 to 64 axes, got 65"),
        (b"\0\0\x08\2\0\0", "expected the sizes of 2 axes, got 2 bytes; it is truncated"),
        (
            header(3) + b"\1\2\3\4\5",
            "expected 3 bytes of uint8 (3,) after the header, got 5; it is too long",
        ),
        (
            header(*[2**32 - 1] * 3) + bytes(100),
            f"expected {(2**32 - 1) ** 3:,} bytes of uint8 (4294967295, 4294967295, 4294967295) "
            "after the header, got a file too small to hold them; it is truncated",
        ),
    ],
)
def test_files_that_are_refused(write, pack, content, text):
    name = write(gzip.compress(content) if pack else content, "file.gz" if pack else "file")
    assert refusal(name) == f"{name}: {text}"


def test_a_packed_file_of_nothing(write):
    assert refusal(write(gzip.compress(b""))) == (
        "file: expected an IDX file, which begins with two zero bytes, got nothing"
    )


def test_truncated_files(write):
    content = header(2, 3, code=0x0D) + bytes(20)
    said = "expected 24 bytes of float32 (2, 3) after the header, got"
    end = "a file too small to hold them; it is truncated"
    assert refusal(write(content)) == f"file: {said} {end}"
    assert refusal(write(gzip.compress(content))) == f"file: {said} 20; it is truncated"


@given(st.data())
def test_every_cut_and_every_changed_byte_of_a_packed_file_is_noticed(tmp_path_factory, data):
    whole = gzip.compress(header(50) + bytes(range(50)), mtime=0)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    refusal(path)
    # Bytes 4 to 9 are the time, a hint for speed and the name of a system: nobody checks them.
    place = data.draw(st.sampled_from([*range(4), *range(10, len(whole))]))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with suppress(DataError):
        assert read_idx(path).tolist() == list(range(50))  # a bit without a meaning


def test_damaged_packed_files(write):
    whole = gzip.compress(header(50) + bytes(range(50)))
    wrong = whole[:-8] + bytes(4) + whole[-4:]
    assert refusal(write(wrong)).startswith("file: the gzip file is damaged (CRC check failed")
    assert refusal(write(whole[:-4])) == "file: the gzip file is truncated; fetch it anew"
    assert refusal(write(header(1) + b"\1", "plain.gz")) == (
        "plain.gz: expected a gzip file, as its name says, got another; it may be unpacked already "
        "(rename it), or no data at all"
    )
    assert refusal(write(b"", "empty.gz")) == "empty.gz: expected an IDX file, got an empty file"


def test_a_packed_header_does_not_ask_for_memory_that_no_file_fills(write):
    path = write(gzip.compress(header(2**31, 2**10)))
    assert "got a file too small to hold them" in refusal(path)


def test_files_that_cannot_be_opened(tmp_path):
    assert refusal(tmp_path / "none").endswith("none: there is no such file")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
