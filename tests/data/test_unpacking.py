"""Archives from elsewhere: nothing leaves the folder, is there by half, or is too large."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from gradlab.data import extract, read_csv, read_idx, unpacking, write_idx
from gradlab.errors import FileError
from refusals import refusal

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links as POSIX has them")


def member(name, content=b"", kind=tarfile.REGTYPE, to="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name, to):
    return member(name, kind=tarfile.SYMTYPE, to=to)


def tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def everything_in(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "inner" / "target"


@pytest.fixture
def refused(tmp_path, target):
    """The text of a refusal after which nothing is there but the archive."""

    def check(archive, **options):
        before = everything_in(tmp_path)
        text = refusal(extract, archive, target, **options)
        assert text.startswith(f"extract: {archive}: ")
        assert everything_in(tmp_path) == before
        return text.removeprefix(f"extract: {archive}: ")

    return check


# ------------------------------------------------------------------------------ out of the folder


STEPS = "/".join(["d" * 247] * 16)


@LINKS
@pytest.mark.parametrize(
    "members",
    [
        [link("a", "..")],
        [link("a", "../..")],
        [link("a", "/etc")],
        [link("a", "b/../../..")],
        [link("a", ".."), member("a/x", b"1")],
        [member("d/x"), link("a", "d/../..")],
        # Each of the two alone stays within; the second leads out through the first.
        [member("d/e/x"), link("d/up", "e"), link("d/out", "up/../../..")],
        [member("d/e/x"), link("one", "d/e"), link("two", "one/../../..")],
        [link("a", "b"), link("b", "a")],
        [link("a", "a")],
        [link("a", "none")],
        [member("a", b"1"), link("b", "a/x")],
        [link("a", "x" * 5000)],
        [member("a", b"1"), link("a", "b"), member("b")],
        [member("d/x"), link("d", "e")],
        [member("a", kind=tarfile.LNKTYPE, to="../out")],
        [member("a", kind=tarfile.LNKTYPE, to="/etc/passwd")],
        [member("a", kind=tarfile.LNKTYPE, to="none")],
        [member("d/x"), member("a", kind=tarfile.LNKTYPE, to="d")],
        [member("x"), link("b", "x"), member("a", kind=tarfile.LNKTYPE, to="b")],
        [member("a", kind=tarfile.FIFOTYPE)],
        [member("a", kind=tarfile.CHRTYPE)],
        [member("a", kind=tarfile.BLKTYPE)],
        [member("a", b"1"), member("a/b", b"1")],
        [member("d/a", b"1"), member("d", b"1")],
        [member("n" * 256)],
        [member("d/" * 2100 + "x")],
        [member("")],
        [member(".", b"1")],
    ],
)
def test_tar_members_that_would_leave_the_folder(tmp_path, refused, members):
    text = refused(tar(tmp_path / "d.tar", *members))
    assert text.startswith("expected files that stay within the folder, got ")
    assert text.endswith("; nothing was unpacked")


@LINKS
def test_links_and_long_names_that_open_the_filter_of_tarfile(tmp_path, refused, target):
    """CVE-2025-4517: beyond the longest path, realpath no longer follows the links it is given."""
    members, path = [], ""
    step = "d" * (55 if sys.platform == "darwin" else 247)
    for letter in "abcdefghijklmnop":
        members.append(member(path + step, kind=tarfile.DIRTYPE))
        members.append(link(path + letter, step))
        path += f"{step}/"
    short = "/".join("abcdefghijklmnop")
    members.append(link(f"{short}/{'l' * 254}", "../" * 16))
    members.append(link("escape", f"{short}/{'l' * 254}/../../outside"))
    members.append(member("escape/written", b"1"))
    (tmp_path / "outside").mkdir()
    refused(tar(tmp_path / "d.tar", *members))
    assert everything_in(tmp_path / "outside") == []


def test_whatever_the_filter_of_tarfile_lets_through(tmp_path, refused, monkeypatch):
    """As on releases in which it has holes."""
    for name in ("data_filter", "tar_filter", "fully_trusted_filter"):
        monkeypatch.setattr(tarfile, name, lambda member, path: member)
    outside = tmp_path / "outside"
    for members in (
        [link("a", str(outside)), member("a/b", b"1")],
        [member("../../outside", b"1")],
        [member(str(outside), b"1")],
    ):
        refused(tar(tmp_path / "d.tar", *members))
        assert not outside.exists()


@LINKS
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_that_are_there_already_are_not_written_through(tmp_path, kind):
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "mine").write_text("mine")
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "mine")
    path = tmp_path / f"d.{kind}"

    def make(*names):
        if kind == "zip":
            return zipped(path, dict.fromkeys(names, "new"))
        return tar(path, *(member(name, b"new") for name in names))

    text = refusal(extract, make("a", "folder/b"), target)
    assert text == (
        f"extract: {path}: expected to make the folder {target}/folder, got a file or a link of "
        "that name which is there already; nothing was unpacked; choose another folder"
    )
    assert everything_in(outside) == ["mine"]
    assert everything_in(target) == ["file", "folder"]
    extract(make("file"), target)  # takes the place of the link, not of what it leads to
    assert (outside / "mine").read_text() == "mine"
    assert (target / "file").read_text() == "new"
    assert not (target / "file").is_symlink()


@LINKS
def test_a_link_in_a_zip_archive_is_one(tmp_path, refused, target):
    def make(to):
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        return zipped(tmp_path / "d.zip", {"a": "1", info: to})

    for to in ("..", "/etc/passwd", "none", "link"):
        assert "got 'link'" in refused(make(to))
    extract(make("a"), target)
    assert os.readlink(target / "link") == "a"


def test_a_name_with_a_nul(tmp_path, refused):
    info, content = member("a")
    info.pax_headers = {"path": "a\0b"}
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))
    text = refused(path)
    assert r"got 'a\x00b', a name that no file can have" in text or "is damaged" in text


def test_folders_in_folders_without_end(tmp_path, refused, target):
    """Libraries go down into each by a call, to remove them too."""
    assert refused(tar(tmp_path / "a.tar", member("a/" * 1500 + "f", b"1"))).startswith(
        "expected files that stay within the folder, got 'a/a/"
    )
    extract(tar(tmp_path / "b.tar", member("a/" * 99 + "f", b"1")), target)
    assert (target / ("a/" * 99 + "f")).read_bytes() == b"1"


def test_names_of_members_do_not_reach_the_terminal_raw(tmp_path, refused):
    assert r"got '../\x1b[2J'" in refused(zipped(tmp_path / "d.zip", {"../\x1b[2J": "1"}))
    assert r"got '../\x1b[2J'" in refused(tar(tmp_path / "d.tar", member("../\x1b[2J")))


# --------------------------------------------------------------------------------- what is kept


@LINKS
def test_what_stays_within_is_unpacked(tmp_path, target):
    path = tar(
        tmp_path / "d.tar",
        member("./", kind=tarfile.DIRTYPE),
        member("./a", b"old"),
        member("d", kind=tarfile.DIRTYPE),
        member("d/run", b"#!", mode=0o777, mtime=1e9),
        member("copy", kind=tarfile.LNKTYPE, to="./a"),
        link("d/up", "../a"),
        link("e", "d"),
        link("f", "e/../d/up"),
        link("top", "."),
        member("a", b"new", mtime=2**62),  # a second time, as `tar -r` adds it
        member("empty", kind=tarfile.DIRTYPE),
    )
    extract(path, target)
    assert everything_in(target) == [
        "a", "copy", "d", "d/run", "d/up", "e", "empty", "f", "top",
    ]  # fmt: skip
    contents = {name: (target / name).read_text() for name in ("a", "copy", "d/up", "f", "e/run")}
    assert contents == {"a": "new", "copy": "old", "d/up": "new", "f": "new", "e/run": "#!"}
    assert os.readlink(target / "top") == "."
    assert (target / "a").stat().st_nlink == 1
    (target / "plain").write_text("")
    mode = (target / "plain").stat().st_mode
    assert (target / "a").stat().st_mode == mode
    assert (target / "d/run").stat().st_mode == mode | (mode & 0o444) >> 2
    assert (target / "d/run").stat().st_mtime == 1e9
    again = target / "a"
    again.write_text("mine")
    extract(path, target)
    assert again.read_text() == "new"


def test_a_sparse_file(tmp_path, target):
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    with open(tmp_path / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    archive = tmp_path / "d.tar"
    command = ["tar", "-C", str(tmp_path), "-S", "-cf", str(archive), "sparse"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("tar knows no sparse files")
    assert archive.stat().st_size < 1 << 20
    extract(archive, target)
    assert (target / "sparse").read_bytes() == (tmp_path / "sparse").read_bytes()


def test_names_that_the_file_system_takes_for_one(tmp_path, refused, target, monkeypatch):
    path = tar(tmp_path / "d.tar", member("a", b"1"), member("A", b"2"))
    if os.path.exists(tmp_path / "D.TAR"):
        assert "got 'A', a second name for a file that is there" in refused(path)
        return
    extract(path, target)
    assert everything_in(target) == ["A", "a"]
    lexists = os.path.lexists  # as on a file system without case
    monkeypatch.setattr(os.path, "lexists", lambda p: lexists(str(p).replace("A", "a")))
    text = refusal(extract, path, target)
    assert "got 'A', a second name for a file that is there" in text


# ------------------------------------------------------------------------------ what is cut off


def cuts(path, positions):
    whole = path.read_bytes()
    for position in positions:
        path.write_bytes(whole[:position])
        yield position
    path.write_bytes(whole)


def test_a_tar_archive_that_is_cut_off_anywhere(tmp_path, refused, target):
    """At a header, within one, within a member: until now the members before were all there was."""
    path = tar(tmp_path / "d.tar", *(member(f"{i}.csv", b"1,2\n" * 200) for i in range(4)))
    step, end = 512 + 1024, 4 * (512 + 1024)
    for position in cuts(path, [512, step, step + 1, step + 512, step + 700, 2 * step, end]):
        text = refused(path)
        assert "truncated" in text or "unexpected end of data" in text, position
        assert text.endswith("; fetch it anew; nothing was unpacked")
    for _ in cuts(path, [end + 512]):  # one block of zeros is an end
        extract(path, target)
    assert len(everything_in(target)) == 4


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, refused):
    path = tar(tmp_path / "d.tar", member("a", b"1"), member("b", b"2"))
    whole = bytearray(path.read_bytes())
    whole[1024] ^= 1
    path.write_bytes(whole)
    assert "the archive is damaged" in refused(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_archive_that_is_cut_off_anywhere(tmp_path, refused, mode):
    path = tar(tmp_path / "d.tar", member("a", os.urandom(5000)), mode=mode)
    size = path.stat().st_size
    for _ in cuts(path, [*range(20, size, size // 15), size - 8, size - 1]):
        refused(path)


def test_the_checksum_at_the_end_of_a_packed_archive(tmp_path, refused):
    path = tar(tmp_path / "d.tar.gz", member("a", b"1" * 5000), mode="w:gz")
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1
    path.write_bytes(whole)
    assert "the archive is damaged (CRC check failed" in refused(path)


def test_a_zip_archive_that_is_cut_off_anywhere(tmp_path, refused):
    path = zipped(tmp_path / "d.zip", {"a": "1" * 3000, "b": "2" * 3000})
    size = path.stat().st_size
    for _ in cuts(path, [*range(30, size, size // 15), size - 1]):
        refused(path)


# ------------------------------------------------------------------------------ what is too large


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(unpacking, "_MAX_BYTES", 1 << 20)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_small_archive_that_unpacks_to_much(tmp_path, refused, target, small, kind):
    path, content = tmp_path / f"d.{kind}", bytes(3 << 20)
    if kind == "zip":
        zipped(path, {"a": content[: 1 << 19], "b": content}, compression=zipfile.ZIP_DEFLATED)
    else:
        tar(path, member("a", content[: 1 << 19]), member("b", content), mode=f"w:{kind[4:]}")
    assert path.stat().st_size < 10_000
    assert refused(path) == (
        f"expected at most {1 << 20:,} bytes when unpacked, got more; nothing was unpacked; if you "
        "trust it, give a larger max_bytes"
    )
    assert "expected at most 9 bytes" in refused(path, max_bytes=9)
    extract(path, target, max_bytes=4 << 20)
    assert (target / "b").stat().st_size == 3 << 20


def test_an_archive_may_unpack_to_a_hundred_times_its_size(tmp_path, target, small):
    content = os.urandom(30_000) * 60  # 1.8 MB, which gzip packs to 30 kB; the window is too short
    path = tar(tmp_path / "d.tar.xz", member("a", content), mode="w:xz")
    assert 1 << 20 < len(content) < 100 * path.stat().st_size
    extract(path, target)
    assert (target / "a").read_bytes() == content


def test_a_zip_archive_whose_sizes_are_a_lie(tmp_path, refused, small):
    path = zipped(tmp_path / "d.zip", {"a": bytes(3 << 20)}, compression=zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<I", 3 << 20), struct.pack("<I", 5)))
    refused(path)


def test_many_members(tmp_path, refused, target):
    names = [f"{i}" for i in range(11)]
    for path in (
        zipped(tmp_path / "d.zip", dict.fromkeys(names, "")),
        tar(tmp_path / "d.tar", *map(member, names)),
        tar(tmp_path / "e.tar", member("/".join(names))),  # folders count as well
        tar(tmp_path / "f.tar", *([member("a")] * 11)),
        tar(tmp_path / "g.tar", member("a"), *(link(name, "a") for name in names)),
    ):
        assert refused(path, max_members=10) == (
            "expected at most 10 members, got more; nothing was unpacked; if you trust it, give a "
            "larger max_members"
        )
    extract(tmp_path / "d.zip", target, max_members=11)
    for option in ("max_members", "max_bytes"):
        for value in (0, -1, 1.5, "9", True):
            assert refusal(extract, path, target, **{option: value}).startswith(
                f"extract: expected an integer {option} of 1 or more, got "
            )


def test_a_header_that_claims_to_be_long(tmp_path, refused):
    """tarfile reads all of an extended header at once."""
    content = bytes(50 << 20)
    path = tmp_path / "d.tar.gz"
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        info, _ = member("x", kind=kind)
        info.size = len(content)
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(tarfile.TarInfo("a").tobuf())
            file.write(info.tobuf())
            file.write(content)
        assert f"a header of {len(content):,} bytes" in refused(path)


def test_sizes_below_zero(tmp_path, refused):
    """CVE-2025-8194: the library goes back, and round for ever."""
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info, content = member("a", b"1")
        info.pax_headers = {"size": "-1024"}
        archive.addfile(info, io.BytesIO(content))
    assert "is damaged" in refused(path)


def test_packed_members_of_a_zip_archive_that_cannot_be_limited(tmp_path, refused):
    path = zipped(tmp_path / "d.zip", {"a": "1"}, compression=zipfile.ZIP_BZIP2)
    assert refused(path).startswith("expected members that are stored or deflated, got 'a'")


def test_single_files_that_unpack_to_much(tmp_path, small):
    path = tmp_path / "images.gz"
    write_idx(path, np.zeros(2 << 20, np.uint8))
    end = (
        f"expected at most {1 << 20:,} bytes when unpacked, got more; nothing was unpacked; if you "
        "trust it, unpack it first, with gzip -d"
    )
    assert refusal(read_idx, path).endswith(end)
    rest = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(2 << 20))
    path.write_bytes(rest)
    assert refusal(read_idx, path).endswith(end)
    table = tmp_path / "table.csv.gz"
    for text in (b"a,b\n" + b"1,2\n" * (1 << 19), b"a,b\n1," + b"2" * (2 << 20)):
        table.write_bytes(gzip.compress(text))
        assert refusal(read_csv, table).endswith(end)
    path.write_bytes(gzip.decompress(rest)[: 8 + 3])
    assert len(read_idx(path.rename(tmp_path / "images"))) == 3


# ------------------------------------------------------------------------------------- the disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses(tmp_path, target, monkeypatch, code):
    path = zipped(tmp_path / "d.zip", {"a": "1"})

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(FileError) as raised:
        extract(path, target)
    assert str(raised.value).startswith(
        f"extract: {target}: cannot be written: {os.strerror(code)}; nothing was unpacked; "
    )
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match="some of the files may be in place"):
        extract(path, target)


KILLED = """
import os, sys
from gradlab.data import extract, unpacking
unpacking.Stage.make_links = lambda stage: os.kill(os.getpid(), 9)
extract(*sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_what_a_killed_process_left_goes_with_the_next_time(tmp_path, target):
    path = zipped(tmp_path / "d.zip", {"a/b": "1"})
    target.mkdir(parents=True)
    command = [sys.executable, "-c", KILLED, str(path), str(target)]
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
    (left,) = os.listdir(target)
    assert left.startswith(".d.zip.")
    (target / ".e.zip.0123abcd.tmp").mkdir()
    extract(path, target)
    assert sorted(os.listdir(target)) == [".e.zip.0123abcd.tmp", "a"]


def test_a_folder_that_is_a_file(tmp_path):
    path = zipped(tmp_path / "d.zip", {"a": "1"})
    with pytest.raises(FileError, match=r"d\.zip: cannot be written: Not a directory"):
        extract(path, path)


def test_files_of_other_kinds_are_no_archives(tmp_path, refused):
    for name, content in {
        "a.gz": gzip.compress(b"text" * 500),
        "a.bz2": bz2.compress(b"text" * 500),
        "a.xz": lzma.compress(b"text" * 500),
        "a": b"",
        "b": bytes(100),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert refused(path) == "expected a zip or tar archive, got neither (or a damaged one)"
