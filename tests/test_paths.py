"""What is no path is told in one line, wherever a file or a folder can be given; what is no file is
neither waited for nor replaced; and what is replaced keeps all but its content."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gradlab as gl
from gradlab import data, training, viz
from gradlab.errors import FileError, OptionError
from gradlab.paths import as_path, replacing
from refusals import refusal


def test_paths(tmp_path):
    assert as_path("save", str(tmp_path)) == as_path("save", tmp_path) == tmp_path


CALLS = {
    "save": lambda: gl.save({}, 3),
    "load": lambda: gl.load(3),
    "read_idx": lambda: data.read_idx(3),
    "write_idx": lambda: data.write_idx(3, np.zeros(1, np.uint8)),
    "read_csv": lambda: data.read_csv(3),
    "extract": lambda: data.extract(3),
    "plot_history": lambda: viz.plot_history([{"step": 1, "loss": 2.0}], 3),
    "graph.save": lambda: viz.graph(gl.ones(1, requires_grad=True) * 2, path=3),
    "resume": lambda: training.read_checkpoint(3),
}
FOLDERS = {
    "FashionMNIST": lambda: data.FashionMNIST(3),
    "make_house_prices": lambda: data.make_house_prices(3, 5, 5),
    "list_checkpoints": lambda: training.list_checkpoints(3),
    "ModelCheckpoint": lambda: training.ModelCheckpoint(3),
}


@pytest.mark.parametrize(
    ("operation", "call", "expected"),
    [
        *[(operation, call, "a path") for operation, call in CALLS.items()],
        *[(operation, call, "a folder") for operation, call in FOLDERS.items()],
    ],
    ids=[*CALLS, *FOLDERS],
)
def test_what_is_no_path(operation, call, expected):
    with pytest.raises(OptionError) as raised:
        call()
    assert str(raised.value) == f"{operation}: expected {expected}, got int"


@pytest.mark.parametrize(
    "call",
    [lambda p: gl.load(p), lambda p: gl.save(1, p), data.read_idx, data.read_csv, data.extract,
     training.read_checkpoint],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "expected"),
    [("a\0b", "a path without a NUL character, got 'a\\x00b'"),
     ("a\ud800", "a path of text, got 'a\\ud800'")],
)  # fmt: skip
def test_names_that_no_file_can_have(call, path, expected):
    with pytest.raises(OptionError) as raised:
        call(path)
    assert str(raised.value).partition(": expected ")[2] == expected


def test_a_path_of_bytes():
    class Bytes:
        def __fspath__(self):
            return b"bytes"

    with pytest.raises(OptionError, match="save: expected a path of text, got "):
        gl.save(1, Bytes())


# ------------------------------------------------------------------------- what is not a file

CAN_MAKE_PIPES = hasattr(os, "mkfifo")


def make(kind: str, path: Path) -> Path:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to(path.name)
    return path


@pytest.fixture
def short(monkeypatch, tmp_path):
    """The current folder: the name of a socket may be no longer than some 100 characters."""
    monkeypatch.chdir(tmp_path)
    return Path()


READS = {
    "load": lambda p: gl.load(p),
    "read_idx": data.read_idx,
    "read_csv": data.read_csv,
    "extract": lambda p: data.extract(p, p.parent / "out"),
    "resume": training.read_checkpoint,
}


@pytest.mark.skipif(not CAN_MAKE_PIPES, reason="pipes and sockets as POSIX has them")
@pytest.mark.timeout(20)  # nobody ever writes to the pipe
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "it is a pipe, not a file"),
        ("socket", "it is a socket, not a file"),
        ("folder", "Is a directory"),
        ("link to itself", "links"),
    ],
)
def test_what_is_read_must_be_a_file(short, read, kind, reason):
    path = make(kind, short / "state.json")
    text = refusal(READS[read], path)
    if not (read == "resume" and kind in ("folder", "link to itself")):  # a folder has checkpoints
        assert reason in text
    assert "state" in text


@pytest.mark.skipif(not CAN_MAKE_PIPES, reason="pipes as POSIX has them")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
def test_only_a_file_is_written_over(short, kind):
    path = make(kind, short / "state.svg")
    before = path.lstat()
    history = [{"step": 1, "loss": 2.0}]
    for call in (
        lambda: gl.save(1, path),
        lambda: data.write_idx(path, np.zeros(1, np.uint8)),
        lambda: viz.graph(gl.ones(1, requires_grad=True) * 2, path=path),
        lambda: viz.plot_history(history, path),
    ):
        with pytest.raises(
            FileError, match=r"state\.svg: cannot be written: .*nothing was written"
        ):
            call()
    assert path.lstat().st_mode == before.st_mode
    assert [each.name for each in Path().iterdir()] == ["state.svg"]


# ----------------------------------------------------------------------------------- replacing


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


WRITES = {
    "save": lambda p: gl.save(2, p),
    "write_idx": lambda p: data.write_idx(p, np.zeros(3, np.uint8)),
    "graph.save": lambda p: viz.graph(gl.ones(1, requires_grad=True) * 2, path=p),
    "plot_history": lambda p: viz.plot_history([{"step": 1, "loss": 2.0}], p),
}


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o606])
def test_a_file_keeps_its_permissions(tmp_path, write, mode):
    path = tmp_path / "file.svg"
    path.write_text("old")
    path.chmod(mode)
    link = tmp_path / "link.svg"
    link.symlink_to(path)
    WRITES[write](link)
    assert link.is_symlink()
    assert path.read_bytes() != b"old"
    assert mode_of(path) == mode
    assert sorted(os.listdir(tmp_path)) == ["file.svg", "link.svg"]


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
def test_what_replaces_a_private_file_is_private_from_the_first_byte(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    with replacing(path) as temporary:
        assert mode_of(temporary) == 0o600
        temporary.write_text("new")


@pytest.mark.skipif(not hasattr(os, "fchown"), reason="groups as POSIX has them")
def test_owner_and_group_are_kept_where_the_system_allows_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o664)
    given = []
    monkeypatch.setattr(os, "fchown", lambda handle, user, group: given.append((user, group)))
    gl.save(1, path)
    found = path.stat()
    assert given == [(found.st_uid, -1), (-1, found.st_gid)]

    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    gl.save(1, path)
    assert mode_of(path) == 0o604  # what its group was allowed, another group is not


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "file"
    gl.save(1, path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to any
    with pytest.raises(FileError) as raised:
        gl.save(2, path)
    assert str(raised.value) == (
        f"save: {path}: cannot be written: it is write-protected; the file that was there is "
        "unchanged; change its permissions, or choose another place"
    )
    assert gl.load(path) == 1


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space, or choose a folder on another disk"),
        (errno.EDQUOT, "free some space, or choose a folder on another disk"),
        (errno.EROFS, "choose a folder that can be written to"),
        (errno.EACCES, "change its permissions, or choose another place"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("call", ["open", "fsync", "fchmod"])
def test_a_disk_that_refuses(tmp_path, monkeypatch, code, remedy, there, call):
    path = tmp_path / "file"
    if there:
        gl.save(1, path)
    elif call == "fchmod":
        return

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    safe = "the file that was there is unchanged" if there else "nothing was written"
    for write in (lambda: gl.save(2, path), lambda: data.write_idx(path, np.zeros(9, np.uint8))):
        with pytest.raises(FileError) as raised:
            write()
        start, _, end = str(raised.value).partition(": ")
        assert start in ("save", "write_idx")
        assert end == f"{path}: cannot be written: {os.strerror(code)}; {safe}; {remedy}"
        assert raised.value.errno == code
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["file"] * there
    if there:
        assert gl.load(path) == 1


LIMITED = """
import os, resource, sys
import gradlab as gl
from gradlab import data
folder = sys.argv[1]
gl.save(gl.ones(10), folder + "/state")
data.write_idx(folder + "/idx", gl.zeros(10, dtype=gl.uint8))
before = {name: open(folder + "/" + name, "rb").read() for name in os.listdir(folder)}
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for write in (
    lambda: gl.save(gl.ones(10_000), folder + "/state"),
    lambda: data.write_idx(folder + "/idx", gl.zeros(10_000, dtype=gl.uint8)),
):
    try:
        write()
    except gl.errors.FileError as error:
        print(error)
assert before == {name: open(folder + "/" + name, "rb").read() for name in os.listdir(folder)}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_a_limit_on_the_size_of_files(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    end = (
        "cannot be written: File too large; the file that was there is unchanged; raise the limit "
        "on the size of files (ulimit -f), or choose another file system"
    )
    assert ran.stdout.splitlines() == [f"save: {tmp_path}/state: {end}",
                                       f"write_idx: {tmp_path}/idx: {end}"]  # fmt: skip


# ------------------------------------------------------------------------- what the killed leave

WRITER = """
import os, sys, time
from gradlab.paths import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_what_a_killed_writer_left_goes_with_the_next_save_of_that_file(tmp_path):
    path = tmp_path / "file"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        killed, alive = (each.stdout.readline().strip() for each in writers)
        writers[0].kill()
        writers[0].wait()
        others = {".other.0123abcd.tmp", ".file.tmp", ".file.0123abcd.tmp.old", "file.0123abcd.tmp"}
        for name in others:
            (tmp_path / name).write_text("")
        assert {killed, alive} <= set(os.listdir(tmp_path))
        gl.save(1, tmp_path / "another")
        assert killed in os.listdir(tmp_path)
        gl.save(1, path)
        assert set(os.listdir(tmp_path)) == {"file", "another", alive, *others}
    finally:
        for each in writers:
            each.kill()
            each.wait()
            each.stdout.close()
    gl.save(2, path)
    assert set(os.listdir(tmp_path)) == {"file", "another", *others}


@pytest.mark.skipif(os.name != "posix", reason="owners as POSIX has them")
def test_what_another_user_left_stays(tmp_path, monkeypatch):
    left = tmp_path / ".file.0123abcd.tmp"
    left.write_text("theirs")
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    gl.save(1, tmp_path / "file")
    assert left.read_text() == "theirs"


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_threads_that_save_to_one_file(tmp_path):
    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: gl.save([i] * 100, path), range(64)))
    assert len(set(gl.load(path))) == 1
    assert os.listdir(tmp_path) == ["file"]


# --------------------------------------------------------------------------------- what is shown


def test_names_of_files_do_not_reach_the_terminal_raw(tmp_path):
    folder = tmp_path / "a\x1b[2J\nb"
    folder.mkdir()
    path = folder / "x\x1b]0;title\x07.gz"
    for read in (*READS.values(), lambda p: training.read_checkpoint(folder)):
        text = refusal(read, path)
        assert text.isprintable()
        assert r"a\x1b[2J\nb" in text
    path.write_bytes(b"x")
    for name in ("load", "read_idx", "extract", "resume"):
        assert refusal(READS[name], path).isprintable()
    path.unlink()
    folder.rmdir()
    folder.write_text("")
    for write in (lambda p: gl.save(1, p), lambda p: data.write_idx(p, np.zeros(1, np.uint8))):
        assert r"a\x1b[2J\nb/x\x1b]0;title\x07.gz: cannot be written: Not a dir" in refusal(
            write, path
        )
