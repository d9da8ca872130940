"""What is kept on disk is whole, and nobody else's."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gradlab.kernels import cache
from gradlab.kernels.cache import Cache

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch) -> Path:
    """The private folder of this test."""
    folder = tmp_path / "private"
    monkeypatch.setattr(cache, "private", lambda: folder)
    cache._warn_once.cache_clear()
    cache._remove_abandoned.cache_clear()
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a" / "wanted"


@pytest.fixture
def kept(folder) -> Cache:
    return Cache("entries", "SOME_VARIABLE", lambda: folder)


def test_an_entry_comes_back_as_it_was(kept, folder):
    assert kept.get("x") is None
    kept.put("x", b"code")
    assert kept.get("x") == b"code"
    assert os.listdir(folder) == ["x"]
    kept.put("x", b"other code")
    assert kept.get("x") == b"other code"


@posix
def test_folders_and_entries_are_the_users_own(kept, folder):
    before = os.umask(0)
    try:
        kept.put("x", b"code")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, 20, -1])
def test_what_was_cut_is_missing(kept, folder, size):
    kept.put("x", b"code" * 50)
    file = folder / "x"
    file.write_bytes(file.read_bytes()[:size])
    assert kept.get("x") is None
    kept.put("x", b"code")
    assert kept.get("x") == b"code"


def test_what_was_altered_is_missing(kept, folder):
    kept.put("x", b"code" * 50)
    file = folder / "x"
    whole = file.read_bytes()
    for at in (0, 100, len(whole) - 40, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        assert kept.get("x") is None, at
    file.write_bytes(whole)
    assert kept.get("x") == b"code" * 50


def test_an_entry_under_another_name_is_missing(kept, folder):
    kept.put("x", b"code")
    os.rename(folder / "x", folder / "y")
    assert kept.get("y") is None


def test_an_entry_without_content_is_no_entry(kept):
    kept.put("x", b"")
    assert kept.get("x") is None


# Others


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o775, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_trusted(kept, folder, own, mode):
    kept.put("x", b"planted")
    folder.chmod(mode)
    assert kept.get("x") is None
    with pytest.warns(UserWarning, match="^entries") as said:
        kept.put("x", b"code")
    assert [str(each.message) for each in said] == [
        f"entries: they are kept in {own} instead: {folder} can be written to by others; "
        "SOME_VARIABLE names another folder"
    ]
    assert kept.get("x") == b"code"
    assert cache.read(own / "x") == b"code"
    kept.put("y", b"more")  # said once


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="chown needs root")
def test_what_belongs_to_another_user_is_not_trusted(kept, folder):
    kept.put("x", b"planted")
    os.chown(folder / "x", 12345, 12345)
    assert kept.get("x") is None
    kept.put("x", b"code")  # takes its place
    assert kept.get("x") == b"code"
    os.chown(folder, 12345, 12345)
    assert kept.get("x") is None
    with pytest.warns(UserWarning, match="can be written to by others"):
        kept.put("x", b"code")


@posix
def test_an_entry_that_others_can_write_is_not_trusted(kept, folder):
    kept.put("x", b"planted")
    (folder / "x").chmod(0o666)
    assert kept.get("x") is None


@posix
def test_links_and_pipes_are_no_entries(kept, folder, tmp_path):
    kept.put("x", b"code")
    os.rename(folder / "x", tmp_path / "x")
    os.symlink(tmp_path / "x", folder / "x")
    assert kept.get("x") is None
    os.mkfifo(folder / "y", 0o600)
    assert kept.get("y") is None  # and does not wait for a writer
    os.mkdir(folder / "z", 0o700)
    assert kept.get("z") is None
    kept.put("x", b"new")
    assert kept.get("x") == b"new"
    assert cache.read(tmp_path / "x") == b"code"  # not written through the link


# Trouble


def test_a_full_disk_is_no_error(kept, folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.warns(UserWarning, match="^entries") as said:
        kept.put("x", b"code")
    (only,) = said
    text = str(only.message)
    assert text.startswith("entries: they are not kept, and made again in every process: ")
    assert text.count("cannot be written (No space left on device)") == 2
    assert kept.get("x") is None
    assert os.listdir(folder) == []  # nothing partial
    kept.put("x", b"code")  # said once


def test_a_home_that_is_a_file_or_missing(own, tmp_path):
    (tmp_path / "file").write_text("")
    kept = Cache("entries", "SOME_VARIABLE", lambda: tmp_path / "file" / "below")
    with pytest.warns(UserWarning, match=r"kept in .*private instead: .* cannot be written \(Not "):
        kept.put("x", b"code")
    assert kept.get("x") == b"code"
    homeless = Cache("entries", "SOME_VARIABLE", lambda: None)
    homeless.put("y", b"code")
    assert cache.read(own / "y") == b"code"


def test_nowhere_to_write(monkeypatch):
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.undo()
    monkeypatch.setattr(cache.tempfile, "gettempdir", none)
    kept = Cache("entries", "SOME_VARIABLE", lambda: None)
    with pytest.warns(UserWarning, match=r"^entries: they are not kept, and made again"):
        kept.put("x", b"code")
    assert kept.get("x") is None


def test_an_interrupted_write_leaves_nothing(kept, folder, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.put("x", b"code")
    assert os.listdir(folder) == []


KILLED = """
import os, sys
from pathlib import Path
from gradlab.kernels import cache
cache.os.replace = lambda *_: os.kill(os.getpid(), 9)
cache._written(Path(sys.argv[1]), "x", b"code" * 1000)
"""


@posix
def test_what_a_killed_process_left_is_removed_in_time(kept, folder):
    kept.put("y", b"code")
    done = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    (part,) = folder.glob(".x.*.part")
    assert kept.get("x") is None
    cache._remove_abandoned.cache_clear()
    kept.put("y", b"code")
    assert part.exists()  # somebody may be writing it
    os.utime(part, (time.time() - 7200,) * 2)
    cache._remove_abandoned.cache_clear()
    kept.put("y", b"code")
    assert os.listdir(folder) == ["y"]


TOGETHER = """
import sys
from pathlib import Path
from gradlab.kernels.cache import Cache
kept = Cache("entries", "SOME_VARIABLE", lambda: Path(sys.argv[1]))
for i in range(200):
    kept.put("x", bytes([65 + int(sys.argv[2])]) * 20000)
    found = kept.get("x")
    assert found is not None and len(set(found)) == 1 and len(found) == 20000
"""


def test_two_processes_at_once(folder):
    started = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", TOGETHER, folder, str(i)])
        for i in range(2)
    ]
    assert [each.wait(60) for each in started] == [0, 0]
    assert os.listdir(folder) == ["x"]
