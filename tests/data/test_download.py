"""Files fetched from a server on this machine, and archives that try to get out of their folder."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import io
import math
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gradlab._environment import pip_install
from gradlab.data import DATA_HUB, FashionMNIST, download, extract, write_idx
from gradlab.errors import DataError, FileError, MissingDependencyError, OptionError
from refusals import refusal

pytest.importorskip("pooch")

CONTENT = b"Id,SalePrice\n1,208500\n" * 5000
SHA1 = hashlib.sha1(CONTENT).hexdigest()
FASHION = sys.modules[FashionMNIST.__module__]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        assert self.headers["Accept-Encoding"] == "identity"
        if "Authorization" in self.headers:
            self.server.accounts.append(self.headers["Authorization"])
        name = self.path.partition("?")[0].rpartition("/")[2]
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000] if name.startswith("cut") else content)

    def log_message(self, *args) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.accounts: list[str] = []
        self.files = {"houses.csv": CONTENT, "cut.csv": CONTENT}
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        # Asked often whether to stop, as each test waits for it.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.rglob("*") if each.is_file())


# ------------------------------------------------------------------------------------- download


def test_a_file_is_fetched_once(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())  # imported is not running
    folder = tmp_path / "new" / "data"
    for _ in range(2):
        path = download(server.url + "sub/houses.csv?version=2", folder, SHA1.upper())
        assert Path(path) == folder / "houses.csv"
        assert Path(path).read_bytes() == CONTENT
    assert server.asked == ["/sub/houses.csv?version=2"]
    assert files_in(tmp_path) == ["houses.csv"]
    assert capfd.readouterr() == ("", "")  # no bar where nobody watches, and no log


def test_a_file_by_its_short_name(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_HUB, "houses", (server.url + "houses.csv", SHA1))
    path = download("houses", tmp_path)
    assert Path(path).read_bytes() == CONTENT
    with pytest.raises(OptionError, match="expected an address that begins with http"):
        download("flats", tmp_path)


def test_a_file_with_another_hash_is_fetched_anew(server, tmp_path):
    (tmp_path / "houses.csv").write_bytes(b"old")
    download(server.url + "houses.csv", tmp_path)
    assert server.asked == []  # without a hash there is nothing to compare
    path = download(server.url + "houses.csv", tmp_path, SHA1)
    assert Path(path).read_bytes() == CONTENT


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_a_bar_shows_the_progress(where, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: where == "terminal")
    if where == "notebook":
        shell = type("ZMQInteractiveShell", (), {})()
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    download(server.url + "houses.csv", tmp_path, SHA1)
    last = capsys.readouterr().err.strip().rpartition("\r")[2]
    assert last.startswith("houses.csv: 100%|")
    assert "110k/110k" in last


class Unread(io.StringIO):
    """A terminal that was closed meanwhile."""

    def isatty(self):
        return True

    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [None, object(), Unread()], ids=["none", "no stream", "closed"])
def test_a_file_is_not_lost_for_its_bar(stream, server, tmp_path, monkeypatch):
    """As in services and GUI programs, whose standard streams may be missing."""
    monkeypatch.setattr(sys, "stderr", stream)
    path = download(server.url + "houses.csv", tmp_path, SHA1)
    assert Path(path).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_what_was_there(server, tmp_path):
    wrong = "0" * 40
    url = server.url + "houses.csv"
    said = (
        f"download: {url}: expected a file whose SHA1 is {wrong}, got another, which was not kept; "
        f"off-line, put the file into {tmp_path}"
    )
    assert refusal(download, url, tmp_path, wrong) == said
    assert files_in(tmp_path) == []
    (tmp_path / "houses.csv").write_bytes(b"mine")
    assert refusal(download, url, tmp_path, wrong) == said
    assert (tmp_path / "houses.csv").read_bytes() == b"mine"
    assert files_in(tmp_path) == ["houses.csv"]


def test_files_that_cannot_be_had(server, tmp_path):
    hint = f"off-line, put the file into {tmp_path}"
    url = server.url + "none.csv"
    text = refusal(download, url, tmp_path)
    assert text == f"download: {url}: the server answered 404 Not Found; {hint}"
    url = server.url + "cut.csv"
    text = refusal(download, url, tmp_path)
    assert text == (
        f"download: {url}: the connection broke off, and nothing was kept; try again; {hint}"
    )
    assert files_in(tmp_path) == []


def test_off_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    server.server_close()  # its port refuses now
    url = server.url + "houses.csv"
    assert refusal(download, url, tmp_path, SHA1) == (
        f"download: {url}: cannot connect to 127.0.0.1; off-line, put the file into {tmp_path}"
    )


def test_what_is_no_address(tmp_path):
    expected = "download: expected an address that begins with http:// or https://, got "
    for url in ("houses.csv", "ftp://host/houses.csv", "http:///houses.csv", "http://[::1/x", 3):
        assert refusal(download, url, tmp_path) == f"{expected}{url}"
    assert refusal(download, "http://host/folder/", tmp_path) == (
        "download: expected an address that ends in the name of a file, got http://host/folder/"
    )
    for name in ("..%5Cx", "a%00b", "C:x", "a/..", "."):
        url = f"http://host/{name}"
        assert refusal(download, url, tmp_path).endswith(f"the name of a file, got {url}")
    assert refusal(download, "http://host/x", 3) == "download: expected a folder, got int"
    assert refusal(extract, None) == "extract: expected a path, got NoneType"
    assert refusal(extract, "data.zip", 3) == "extract: expected a folder, got int"
    assert refusal(download, "http://host/x", tmp_path, "abc") == (
        "download: expected sha1_hash of 40 hexadecimal digits, got 'abc'; sha1sum <file> gives it"
    )


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    text = refusal(download, server.url + "houses.csv", tmp_path / "file" / "data", SHA1)
    assert text.startswith(f"download: {tmp_path}/file/data: cannot be written: ")


def test_without_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependencyError) as raised:
        download("http://host/x", tmp_path)
    assert str(raised.value) == (
        "download needs the package pooch, which is not installed; "
        f"run: {pip_install('data', 'pooch')}"
    )


# ------------------------------------------------------------------------- servers of all kinds


class Odd(BaseHTTPRequestHandler):
    """Answers with what the test says, byte for byte, as the name of the file asks for it."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        for part in self.server.answer:
            if isinstance(part, float):
                if self.server.stopped.wait(part):
                    return
            else:
                try:
                    self.wfile.write(part)
                except OSError:
                    return

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def odd(server):
    """A server of raw answers: bytes, and seconds to wait between them."""
    server.RequestHandlerClass = Odd
    server.stopped = threading.Event()
    server.answer = []
    yield server
    server.stopped.set()


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = [part for i in range(2000) for part in (b"x", 0.02)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "answer",
    [
        [HEAD + b"Content-Length: 100000\r\n\r\n", *DRIPS],
        [HEAD + b"\r\n", *DRIPS],
        [HEAD + b"X: ", *DRIPS],  # a header without end
        [HEAD[:9], 60.0],
    ],
    ids=["content", "content of any length", "header", "nothing"],
)
def test_a_slow_server_has_a_time_out_for_all_of_it(odd, tmp_path, answer):
    odd.answer = answer
    started = time.monotonic()
    text = refusal(download, odd.url + "slow.csv", tmp_path / "data", timeout=0.3)
    assert time.monotonic() - started < 5
    assert re.search(
        r"/slow\.csv: expected the file within 0\.3 seconds, got [\d,]+ bytes of it, which were "
        r"not kept; try again, or give a longer timeout; off-line, ",
        text,
    )
    assert files_in(tmp_path) == []


def test_the_time_out_ends_the_thread_that_receives(odd, tmp_path):
    pytest.importorskip("urllib3", minversion="2.3")
    odd.answer = [HEAD + b"Content-Length: 100000\r\n\r\n", *DRIPS]
    refusal(download, odd.url + "slow.csv", tmp_path, timeout=0.3)
    for _ in range(100):
        if not any(each.name == "gradlab-download" for each in threading.enumerate()):
            return
        time.sleep(0.05)
    pytest.fail("the thread goes on")


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "9", 1e30])
def test_time_outs_that_are_none(tmp_path, timeout):
    assert refusal(download, "http://host/x", tmp_path, timeout=timeout).startswith(
        "download: expected a timeout of some seconds, or None, got "
    )


def test_no_time_out(server, tmp_path):
    assert Path(download(server.url + "houses.csv", tmp_path, timeout=None)).read_bytes() == CONTENT


BROKEN = "the connection broke off, and nothing was kept; try again"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HEAD + b"Content-Length: 10\r\n\r\n12345", BROKEN),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", BROKEN),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", BROKEN),
        (HEAD + b"Content-Length: 0\r\n\r\n", "expected a file, got one of 0 bytes, which was not"),
        (HEAD + b"\r\n", "expected a file, got one of 0 bytes, which was not kept"),
        (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n",
         "127.0.0.1 leads to an address that is not http:// or https://"),
        (b"HTTP/1.1 302 F\r\nLocation: ftp://host/x\r\n\r\n",
         "127.0.0.1 leads to an address that is not http:// or https://"),
        (b"HTTP/1.1 302 F\r\nLocation: http://[::1/x\r\n\r\n", ""),
        (b"HTTP/1.1 302 F\r\nLocation: http://a..b:x/\r\n\r\n", ""),
        (b"HTTP/1.1 302 F\r\nLocation: /odd.csv\r\n\r\n",
         "127.0.0.1 leads from one address to the next without end"),
        (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", "the server answered 500 \\x1b[2J"),
        (b"nonsense\r\n\r\n", ""),
        (b"", ""),
        (HEAD + b"Content-Encoding: gzip\r\n\r\nno gzip", ""),
    ],
)  # fmt: skip
def test_answers_that_give_no_file(odd, tmp_path, answer, reason):
    odd.answer = [answer]
    text = refusal(download, odd.url + "odd.csv", tmp_path)
    assert text.startswith(f"download: {odd.url}odd.csv: {reason}")
    assert text.isprintable()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("length", [b"x", b"-5", b"1e3", b""])
def test_a_length_that_is_none(odd, tmp_path, length):
    odd.answer = [HEAD + b"Content-Length: " + length + b"\r\n\r\n12345"]
    assert Path(download(odd.url + "odd.csv", tmp_path)).read_bytes() == b"12345"


def test_a_file_that_the_server_packs_for_the_way(odd, tmp_path):
    packed = gzip.compress(CONTENT)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    odd.answer = [head + packed]
    assert Path(download(odd.url + "odd.csv", tmp_path, SHA1)).read_bytes() == CONTENT


SECRETS = [
    "http://me:pass-word@{}/houses.csv",
    "http://me:pass/word@{}/houses.csv",
    "http://me:pass?word@{}/houses.csv",
    "http://me:pass#word@{}/houses.csv",
    "http://token-pass@{}/houses.csv",
    "http://{}/houses.csv?token=pass&sig=word",
    "http://{}/houses.csv#pass",
    "htp://me:pass@{}/houses.csv",
    "me:pass@{}/houses.csv",
    "http://me:pass@{}/folder/?key=word",
    "http://me:pass@[::1/houses.csv",
]


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("form", SECRETS)
def test_a_secret_in_an_address_is_never_repeated(
    server, tmp_path, monkeypatch, caplog, capfd, form, found
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # a bar is drawn
    caplog.set_level("DEBUG")
    if not found:
        server.files.clear()
    url = form.format(server.url.removeprefix("http://").rstrip("/"))
    try:
        download(url, tmp_path, "0" * 40 if "word" in form else None)
    except OptionError as raised:
        error: BaseException | None = raised
    except DataError as raised:
        error = raised
    else:
        error = None
    texts = [*capfd.readouterr(), caplog.text]
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    for secret in ("pass", "word"):
        assert secret not in " ".join(texts)


def test_the_account_in_an_address_is_used(server, tmp_path):
    """The server gets the password, or the token, all the same."""
    url = server.url.replace("http://", "http://me:word@") + "houses.csv?token=abc"
    assert Path(download(url, tmp_path, SHA1)).name == "houses.csv"
    assert server.asked == ["/houses.csv?token=abc"]
    assert server.accounts == ["Basic " + base64.b64encode(b"me:word").decode()]


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
def test_a_fetched_file_has_the_permissions_of_any_other(server, tmp_path):
    (tmp_path / "plain").write_text("")
    path = Path(download(server.url + "houses.csv", tmp_path))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.write_text("old")
    path.chmod(0o640)
    download(server.url + "houses.csv", tmp_path, SHA1)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.timeout(20)
def test_what_is_there_must_be_a_file(server, tmp_path):
    os.mkfifo(tmp_path / "houses.csv")
    for known in (None, SHA1):
        text = refusal(download, server.url + "houses.csv", tmp_path, known)
        assert "houses.csv: cannot be written: it is a pipe, not a file" in text
    (tmp_path / "houses.csv").unlink()
    (tmp_path / "houses.csv").mkdir()
    assert "Is a directory" in refusal(download, server.url + "houses.csv", tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")
def test_a_link_of_the_name_is_not_written_through(server, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "houses.csv").symlink_to(mine)
    download(server.url + "houses.csv", tmp_path / "data", SHA1)
    assert mine.read_text() == "mine"


def test_a_full_disk(server, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.BufferedWriter):
        write = fail

    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda file, mode="r", **options: (
            Full(io.FileIO(file, "x")) if mode == "xb" else real(file, mode, **options)
        ),
    )
    with pytest.raises(FileError) as raised:
        download(server.url + "houses.csv", tmp_path)
    assert str(raised.value) == (
        f"download: {tmp_path}/houses.csv: cannot be written: No space left on device; nothing was "
        "kept; free some space, or choose a folder on another disk"
    )
    monkeypatch.undo()
    assert files_in(tmp_path) == []


KILLED = """
import os, sys
from gradlab.data import download
sys.addaudithook(lambda event, given: event == "socket.connect" and os._exit(9))
download(*sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_what_a_killed_download_left_goes_with_the_next(server, tmp_path):
    url = server.url + "houses.csv"
    done = subprocess.run([sys.executable, "-c", KILLED, url, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert len(os.listdir(tmp_path)) == 1
    download(url, tmp_path)
    assert os.listdir(tmp_path) == ["houses.csv"]


def test_names_with_control_characters(server, tmp_path):
    for name in ("a%1B%5B2Jb", "a%0Ab", "a%C2%9Bb", "a%7F"):
        text = refusal(download, server.url + name, tmp_path)
        assert "expected an address that ends in the name of a file" in text
    text = refusal(download, server.url + "none\x1b[2J.csv", tmp_path)
    assert text.isprintable()


# -------------------------------------------------------------------- Fashion-MNIST by the web


@pytest.fixture
def fashion(server, tmp_path, monkeypatch):
    """A server with a small collection, whose hashes are those that are known."""
    names = list(FASHION._FILES[True])
    write_idx(tmp_path / "images.gz", np.zeros((3, 4, 4), np.uint8))
    write_idx(tmp_path / "labels.gz", np.array([1, 2, 3], np.uint8))
    for name, packed in zip(names, ("images.gz", "labels.gz"), strict=True):
        server.files[f"{name}.gz"] = (tmp_path / packed).read_bytes()
    hashes = {name: hashlib.md5(server.files[f"{name}.gz"]).hexdigest() for name in names}
    monkeypatch.setattr(FASHION, "_FILES", {True: hashes, False: hashes})
    monkeypatch.setattr(FASHION, "_MIRRORS", (server.url,))
    return server


def test_fashion_mnist_is_fetched_once(fashion, tmp_path):
    root = tmp_path / "root"
    for _ in range(2):
        assert FashionMNIST(root).targets.tolist() == [1, 2, 3]
    assert len(fashion.asked) == 2
    assert files_in(root) == [f"{name}.gz" for name in sorted(FASHION._FILES[True])]
    (root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz").unlink()
    FashionMNIST(root)
    assert len(fashion.asked) == 3


def test_fashion_mnist_takes_the_next_mirror(fashion, tmp_path, monkeypatch):
    monkeypatch.setattr(FASHION, "_MIRRORS", (fashion.url + "no-", fashion.url))
    assert len(FashionMNIST(tmp_path / "root")) == 3


def test_fashion_mnist_with_another_hash_is_not_kept(fashion, tmp_path):
    fashion.files["train-images-idx3-ubyte.gz"] += b" "
    root = tmp_path / "root"
    text = refusal(FashionMNIST, root)
    assert "fetching failed: expected a file whose MD5 is " in text
    assert files_in(root) == []


def test_fashion_mnist_off_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    server.server_close()
    monkeypatch.setattr(FASHION, "_MIRRORS", (server.url,))
    folder = tmp_path / "FashionMNIST" / "raw"
    assert refusal(FashionMNIST, tmp_path, train=False) == (
        "FashionMNIST: expected t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz in "
        f"{folder}, got no such files, and fetching failed: cannot connect to 127.0.0.1; with a "
        f"network try again, else get them from {server.url} and put them there"
    )


# -------------------------------------------------------------------------------------- archives


def make_zip(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def make_tar(path: Path, members: dict[str, str], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_archives_of_each_kind(tmp_path):
    members = {"a.csv": "1", "train/b.csv": "2"}
    archives = [make_zip(tmp_path / "d.zip", members)]
    for mode in ("", ":gz", ":bz2", ":xz"):
        name = "d.tar" + mode.replace(":", ".")
        archives.append(make_tar(tmp_path / name, members, "w" + mode))
    for i, archive in enumerate(archives):
        target = tmp_path / str(i)
        assert extract(archive, target) == str(target)
        assert files_in(target) == ["a.csv", "b.csv"]
        assert (target / "train" / "b.csv").read_text() == "2"
    assert extract(str(archives[0])) == str(tmp_path)
    assert (tmp_path / "a.csv").read_text() == "1"


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..\\out", "C:\\out"])
def test_members_outside_the_folder(tmp_path, name):
    members = {"first": "1", name: "2"}
    archives = [make_zip(tmp_path / "d.zip", members), make_tar(tmp_path / "d.tar", members)]
    target = tmp_path / "inner" / "folder"
    for archive in archives:
        text = refusal(extract, archive, target)
        assert text.startswith(f"extract: {archive}: expected files that stay within the folder")
        assert text.endswith(f"got {name!r}; nothing was unpacked")
        assert not target.exists()


def test_links_out_of_the_folder(tmp_path):
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(link)
    assert "got 'link'; nothing was unpacked" in refusal(extract, path, tmp_path / "inner")


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "d.csv"
    assert refusal(extract, path) == f"extract: {path}: there is no such file"
    path.write_text("a,b")
    assert refusal(extract, path) == (
        f"extract: {path}: expected a zip or tar archive, got neither (or a damaged one)"
    )
    whole = make_zip(tmp_path / "d.zip", {"a": "1" * 1000}).read_bytes()
    path.write_bytes(whole.replace(b"1" * 10, b"2" * 10))
    text = refusal(extract, path)
    assert text.startswith(f"extract: {path}: the archive is damaged (Bad CRC-32")
    packed = make_tar(tmp_path / "d.tar.gz", {"a": "1" * 9999}, "w:gz").read_bytes()
    path.write_bytes(packed[:-20])
    assert refusal(extract, path).startswith(f"extract: {path}: ")
