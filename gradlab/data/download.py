"""Files from the web, checked against their hashes, and archives taken apart safely."""

from __future__ import annotations

import logging
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from gradlab.console import stderr
from gradlab.data.unpacking import (
    DAMAGED,
    RefusedError,
    Stage,
    largest,
    near,
    unpack_tar,
    unpack_zip,
)
from gradlab.errors import DataError, OptionError, message, missing_dependency, printable
from gradlab.notebook import notebook
from gradlab.paths import (
    as_path,
    cannot_write,
    fresh_folder,
    keep_permissions,
    open_file,
    require_file,
)
from gradlab.tensor import require_integer

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""Where the data sets of the course notes lie."""

DATA_HUB: dict[str, tuple[str, str]] = {}
"""The address and the SHA-1 of files by short names of one's own, which `download` then takes."""

_CHUNK = 1 << 16  # bytes per step of the progress bar
_TIMEOUT = 20  # seconds without an answer
_LONGEST = 3600.0  # seconds for all of a file

_BROKEN_OFF = "the connection broke off, and nothing was kept; try again"


def download(
    url: str,
    folder: str | os.PathLike[str] | None = None,
    sha1_hash: str | None = None,
    *,
    timeout: float | None = _LONGEST,
) -> str:
    """Fetch a file into a folder, unless it is there already, and return its path.

    Parameters
    ----------
    url: the address, ``http://`` or ``https://``, whose last part is the name of the file; or a
        name in `DATA_HUB`. What it holds before the host and after a ``?`` may be secret, and is in
        no message.
    folder: where to put it; made where it is missing. By default ``../data``.
    sha1_hash: the SHA-1 of the file in hexadecimal. A file that is there is kept where it matches,
        and fetched again where it does not. Without a hash any file of the name is kept.
    timeout: the seconds that all of it may take; None for any time. A server that is silent for 20
        seconds is given up at once.

    The file appears whole or not at all. On a terminal or in a notebook a bar shows the progress.

    Raises `DataError` where the address does not answer or has no such file, where the connection
    breaks off or is too slow, where it leads to something else than a web server, and where the
    hash differs; `FileError` where the folder cannot be written; `MissingDependencyError` where
    pooch is not installed.

    >>> path = download(DATA_URL + "kaggle_house_pred_train.csv", "data",
    ...                 sha1_hash="585e9cc93e70b39160e7921475f9bcd7d31219ce")  # doctest: +SKIP
    """
    if url in list(DATA_HUB):  # a list, which has no need of a hash
        url, sha1_hash = DATA_HUB[url]
    if sha1_hash is not None and not _is_sha1(sha1_hash):
        raise OptionError(
            message(
                "download",
                expected="sha1_hash of 40 hexadecimal digits",
                got=repr(sha1_hash),
                hint="sha1sum <file> gives it",
            )
        )
    _check_timeout(timeout)
    folder = "../data" if folder is None else folder  # as the root of a DataModule may be
    known = None if sha1_hash is None else f"sha1:{sha1_hash.lower()}"
    try:
        return fetch("download", url, folder, known, timeout)
    except UnreachableError as error:
        reason = str(error)
    raise DataError(
        f"download: {_shown(url)}: {reason}; off-line, put the file into "
        f"{printable(os.fspath(folder))}"
    )


def _is_sha1(text: Any) -> bool:
    return (
        isinstance(text, str) and len(text) == 40 and set(text.lower()) <= set("0123456789abcdef")
    )


def _check_timeout(timeout: Any) -> None:
    is_number = isinstance(timeout, int | float)
    if timeout is not None and not (is_number and 0 < timeout <= threading.TIMEOUT_MAX):
        expected = "a timeout of some seconds, or None"
        raise OptionError(message("download", expected=expected, got=repr(timeout)))


class UnreachableError(Exception):
    """Why an address gave no file, in a few words."""


def fetch(
    operation: str,
    url: str,
    folder: str | os.PathLike[str],
    known_hash: str | None,
    timeout: float | None = _LONGEST,
) -> str:
    """Fetch a file as `download` does, with a hash of any kind that pooch knows, as ``md5:…``.

    Raises `UnreachableError` for what another address, or another day, may mend.
    """
    name = _file_name(operation, url)
    folder = as_path(operation, folder, "a folder")
    try:
        import pooch
    except ImportError:
        raise missing_dependency("pooch", "data", operation) from None
    target = folder / name
    kind, _, digest = str(known_hash).partition(":")
    get = partial(_stream, url, target, timeout)
    quiet = _quiet(pooch.get_logger(), logging.getLogger("urllib3.connectionpool"))
    try:
        with suppress(FileNotFoundError):
            require_file(target, target.stat())
            if known_hash is None or pooch.file_hash(str(target), kind) == digest:
                return str(target)
        folder.mkdir(parents=True, exist_ok=True)
        # Not pooch's own temporary file, which stays for good where the process is killed.
        with quiet, fresh_folder(target) as fresh:
            # It has no need of the address, which it would repeat.
            got = pooch.retrieve(_shown(url), known_hash, name, fresh, downloader=get)
            os.replace(got, target)
    except OSError as error:
        place = target if folder.is_dir() else folder
        raise cannot_write(operation, place, error, "nothing was kept") from None
    except ValueError:  # how pooch reports a hash
        raise UnreachableError(
            f"expected a file whose {kind.upper()} is {digest}, got another, which was not kept"
        ) from None
    return str(target)


def _file_name(operation: str, url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host = parts.hostname
    except ValueError:  # a bracket that is not closed
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise OptionError(
            message(
                operation,
                expected="an address that begins with http:// or https://",
                got=_shown(url),
            )
        )
    name = unquote(parts.path).rpartition("/")[2]
    # No path, on Windows neither, whose drives and separators this knows.
    is_path = name == ".." or not name or PureWindowsPath(name).name != name
    if is_path or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
        raise OptionError(
            message(operation, expected="an address that ends in the name of a file",
                    got=_shown(url))
        )  # fmt: skip
    return name


def _shown(url: Any) -> str:
    """An address as it may be shown: without a name and password, or what follows a ``?``."""
    text = str(url)
    end = min((text.index(mark) for mark in "?#" if mark in text), default=len(text))
    before, slashes, rest = text[:end].partition("//")
    if not slashes:
        before, rest = "", before
    host = rest.partition("/")[0]
    # Also where a password that holds one of these marks has cut the host short.
    if "@" in host or (":" in host and "@" in text):
        rest = "…@" + rest.rpartition("@")[2] if "@" in rest else "…"
    return printable(before + slashes + rest + (text[end : end + 1] and text[end] + "…"))


def _reason(url: str, error: Any) -> str:
    names = {cls.__name__ for cls in type(error).__mro__}
    if "HTTPError" in names and error.response is not None:
        response = error.response
        return f"the server answered {response.status_code} {printable(response.reason)}".rstrip()
    host = printable(urlsplit(url).hostname)
    reasons = {
        "Timeout": f"{host} does not answer",
        "ChunkedEncodingError": _BROKEN_OFF,
        "SSLError": f"{host} cannot prove who it is (its certificate is not valid)",
        "ConnectionError": f"cannot connect to {host}",
        "TooManyRedirects": f"{host} leads from one address to the next without end",
        "InvalidSchema": f"{host} leads to an address that is not http:// or https://",
        "InvalidURL": f"{host} leads to what is no address",
    }
    found = next((text for name, text in reasons.items() if name in names), None)
    return found or f"cannot be fetched ({type(error).__name__})"


@contextmanager
def _quiet(*loggers: logging.Logger) -> Iterator[None]:
    """Without the lines in which libraries tell each step, addresses and all."""
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel("ERROR")
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _stream(url: str, target: Path, timeout: float | None, _: str, path: str, __: Any) -> None:
    """Write what an address gives to a file; pooch's own way leaves the connection open."""
    from tqdm import tqdm

    os.unlink(path)  # which pooch has made for its owner alone
    name = printable(target.name)
    with (
        open(path, "xb") as file,
        tqdm(desc=name, unit="B", unit_scale=True, disable=not _is_watched(), file=stderr()) as bar,
    ):
        with suppress(FileNotFoundError):
            keep_permissions(file.fileno(), target.stat())
        receiver = _Receiver(url, file, bar)
        receiver.start()
        receiver.join(timeout)
        if receiver.is_alive():
            receiver.give_up()
            raise UnreachableError(
                f"expected the file within {timeout:g} seconds, got {file.tell():,} bytes of it, "
                "which were not kept; try again, or give a longer timeout"
            )
    if receiver.failure is not None:
        raise receiver.failure


class _Receiver(threading.Thread):
    """What a server sends goes to a file.

    A thread of its own, since a server that sends a byte now and then, of the header or the
    content, is never silent, and would hold up another for as long as it likes.
    """

    def __init__(self, url: str, file: BinaryIO, bar: Any) -> None:
        super().__init__(name="gradlab-download", daemon=True)
        self.url, self.file, self.bar = url, file, bar
        self.failure: Exception | None = None
        self._response: Any = None

    def run(self) -> None:
        from requests.exceptions import RequestException

        try:
            self._receive()
        except RequestException as error:
            # Not raised here: it would hold on to the error, in which the address is spelt out.
            self.failure = UnreachableError(_reason(self.url, error))
        except (OSError, UnreachableError) as error:
            self.failure = error
        except Exception as error:  # of the libraries below, for answers that are no HTTP
            self.failure = UnreachableError(f"cannot be fetched ({type(error).__name__})")

    def _receive(self) -> None:
        import requests

        # As it is: what a server packs for the way would have another size than it says.
        request = requests.get(
            self.url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=_TIMEOUT
        )
        with request as response:
            self._response = response
            response.raise_for_status()
            size = _size(response.headers)
            self.bar.reset(size)
            got = 0
            for chunk in response.iter_content(_CHUNK):
                self.file.write(chunk)
                got += len(chunk)
                self.bar.update(len(chunk))
        if size not in (None, got):
            raise UnreachableError(_BROKEN_OFF)
        if not got:
            raise UnreachableError("expected a file, got one of 0 bytes, which was not kept")

    def give_up(self) -> None:
        """Have the thread end soon; it does so, too, when it finds its file closed."""
        shutdown = getattr(getattr(self._response, "raw", None), "shutdown", None)
        if shutdown is not None:  # urllib3 has it since 2.3
            with suppress(Exception):
                shutdown()


def _size(headers: Any) -> int | None:
    """The size that a server says a file has; None where it says none that counts."""
    if headers.get("Content-Encoding", "identity") != "identity":
        return None
    said = str(headers.get("Content-Length", "")).strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None


def _is_watched() -> bool:
    """Whether what is written to stderr is shown as it comes: on a terminal, in a notebook."""
    return stderr().isatty() or notebook() is not None


# ------------------------------------------------------------------------------------ archives


def extract(
    filename: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    max_bytes: int | None = None,
    max_members: int = 100_000,
) -> str:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz), and return the folder.

    Parameters
    ----------
    filename: the archive.
    folder: where to put its files; by default the folder the archive lies in. Files of the same
        names are replaced.
    max_bytes: how much it may unpack to. None: 1 GiB, or 100 times the size of the archive where
        that is more.
    max_members: how many files, folders and links it may unpack to.

    Nothing is written outside the folder, and nothing at all before the archive is known to be
    whole. One with a member that leads out (an absolute path, ``..``, a link), is a device, or
    would go through a link that is there already is refused, and so is one that is cut off or
    unpacks to more than it may. A hard link becomes a copy; members of a zip archive must be
    stored or deflated, as almost all are.

    Raises `DataError` for such an archive and for a file that is none, and `FileError` where the
    folder cannot be written.

    >>> import os, tempfile, zipfile
    >>> here = tempfile.mkdtemp()
    >>> with zipfile.ZipFile(os.path.join(here, "data.zip"), "w") as archive:
    ...     archive.writestr("train/a.csv", "x,y")
    >>> folder = extract(os.path.join(here, "data.zip"))
    >>> os.listdir(os.path.join(folder, "train"))
    ['a.csv']
    """
    source = as_path("extract", filename)
    target = source.parent if folder is None else as_path("extract", folder, "a folder")
    require_integer("extract", "max_members", max_members)
    if max_bytes is not None:
        require_integer("extract", "max_bytes", max_bytes)
    with _explained(source), _opened(source) as file:
        limit = largest(os.fstat(file.fileno()).st_size, max_bytes)
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        state = "nothing was unpacked"
        try:
            with fresh_folder(near(target) / source.name[:100]) as fresh:
                stage = Stage(fresh, limit, max_members)
                (unpack_zip if is_zip else unpack_tar)(file, stage)
                stage.make_links()
                stage.check(target)
                state = "some of the files may be in place"
                stage.move(target)
        except DAMAGED:
            raise
        except OSError as error:
            raise cannot_write("extract", target, error, state) from None
    return os.fspath(target)


@contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    try:
        file = open_file(source)
    except FileNotFoundError:
        raise RefusedError("there is no such file") from None
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror or error}") from None
    with file:
        yield file


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    start, end = f"extract: {printable(source)}: ", "nothing was unpacked"
    try:
        yield
    except RefusedError as error:
        text = printable(error)
    except DAMAGED as error:
        text = f"the archive is damaged ({printable(error)}); fetch it anew; {end}"
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        text = f"cannot be unpacked: {printable(error)}; {end}"
    else:
        return
    raise DataError(start + text)
