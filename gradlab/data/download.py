"""Files from the web, checked against their hashes, and archives taken apart safely."""

from __future__ import annotations

import lzma
import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gradlab.errors import DataError, OptionError, message, missing_dependency
from gradlab.notebook import notebook
from gradlab.paths import as_path

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""Where the data sets of the course notes lie."""

DATA_HUB: dict[str, tuple[str, str]] = {}
"""The address and the SHA-1 of files by short names of one's own, which `download` then takes."""

_CHUNK = 1 << 16  # bytes per step of the progress bar
_TIMEOUT = 20  # seconds without an answer


def download(
    url: str, folder: str | os.PathLike[str] | None = None, sha1_hash: str | None = None
) -> str:
    """Fetch a file into a folder, unless it is there already, and return its path.

    Parameters
    ----------
    url: the address, ``http://`` or ``https://``, whose last part is the name of the file; or a
        name in `DATA_HUB`.
    folder: where to put it; made where it is missing. By default ``../data``.
    sha1_hash: the SHA-1 of the file in hexadecimal. A file that is there is kept where it matches,
        and fetched anew where it does not. Without a hash any file of the name is kept.

    The file appears whole or not at all. On a terminal or in a notebook a bar shows the progress.

    Raises `DataError` where the address does not answer or has no such file, where the connection
    breaks off, and where the hash differs; `MissingDependencyError` where pooch is not installed.

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
    folder = "../data" if folder is None else folder  # as the root of a DataModule may be
    known = None if sha1_hash is None else f"sha1:{sha1_hash.lower()}"
    try:
        return fetch("download", url, folder, known)
    except UnreachableError as error:
        raise DataError(
            f"download: {url}: {error}; off-line, put the file into {os.fspath(folder)}"
        ) from None


def _is_sha1(text: Any) -> bool:
    return (
        isinstance(text, str) and len(text) == 40 and set(text.lower()) <= set("0123456789abcdef")
    )


class UnreachableError(Exception):
    """Why an address gave no file, in a few words."""


def fetch(operation: str, url: str, folder: str | os.PathLike[str], known_hash: str | None) -> str:
    """Fetch a file as `download` does, with a hash of any kind that pooch knows, as ``md5:…``.

    Raises `UnreachableError` for what another address, or another day, may mend.
    """
    name = _file_name(operation, url)
    folder = as_path(operation, folder, "a folder")
    try:
        import pooch
        from requests.exceptions import RequestException
    except ImportError:
        raise missing_dependency("pooch", "data", operation) from None
    with _quiet(pooch.get_logger()):
        try:
            return str(
                pooch.retrieve(url, known_hash, name, folder, downloader=partial(_stream, name))
            )
        except RequestException as error:
            raise UnreachableError(_reason(url, error)) from None
        except OSError as error:
            raise DataError(
                f"{operation}: {os.fspath(folder)}: cannot be written: {error.strerror or error}"
            ) from None
        except ValueError:  # how pooch reports a hash
            kind, _, digest = str(known_hash).partition(":")
            raise UnreachableError(
                f"expected a file whose {kind.upper()} is {digest}, got another, which was not kept"
            ) from None


def _file_name(operation: str, url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:  # a bracket that is not closed
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OptionError(
            message(operation, expected="an address that begins with http:// or https://", got=url)
        )
    name = unquote(parts.path).rpartition("/")[2]
    # No path, on Windows neither, whose drives and separators this knows.
    if name == ".." or "\0" in name or not name or PureWindowsPath(name).name != name:
        raise OptionError(
            message(operation, expected="an address that ends in the name of a file", got=url)
        )
    return name


def _reason(url: str, error: Any) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code} {response.reason}".rstrip()
    names = {cls.__name__ for cls in type(error).__mro__}
    if "Timeout" in names:
        return f"{urlsplit(url).hostname} does not answer"
    if "ChunkedEncodingError" in names:
        return "the connection broke off, and nothing was kept; try again"
    if "ConnectionError" in names:
        return f"cannot connect to {urlsplit(url).hostname}"
    return f"cannot be fetched ({type(error).__name__})"


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Without the lines in which pooch tells each step."""
    before = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(before)


def _stream(name: str, url: str, path: str, _: Any) -> None:
    """Write what an address gives to a file; pooch's own way leaves the connection open."""
    import requests
    from tqdm import tqdm

    # As it is: what a server packs for the way would have another size than it says.
    request = requests.get(
        url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=_TIMEOUT
    )
    with request as response, open(path, "wb") as file:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(
            desc=name, total=size, unit="B", unit_scale=True, disable=not _is_watched()
        ) as bar:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _is_watched() -> bool:
    """Whether what is written to stderr is shown as it comes: on a terminal, in a notebook."""
    return sys.stderr.isatty() or notebook() is not None


# ------------------------------------------------------------------------------------ archives


def extract(filename: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> str:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz), and return the folder.

    Parameters
    ----------
    filename: the archive.
    folder: where to put its files; by default the folder the archive lies in.

    Nothing is written outside the folder: an archive with a member that would be (an absolute
    path, ``..``, a link that leads out, a device) is refused before any of it is unpacked.

    Raises `DataError` for such an archive, a damaged one, and a file that is none.

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
    with _explained(source):
        if zipfile.is_zipfile(source):
            _extract_zip(source, target)
        elif tarfile.is_tarfile(source):
            _extract_tar(source, target)
        else:
            raise DataError(
                f"extract: {source}: expected a zip or tar archive, got neither (or a damaged one)"
            )
    return os.fspath(target)


def _extract_zip(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if _leads_out(name):
                raise _outside(source, name)
        archive.extractall(target)


def _leads_out(name: str) -> bool:
    """Whether a name is no path below a folder; the libraries would put it elsewhere, silently."""
    windows = PureWindowsPath(name)  # knows both separators, and drives
    return bool(PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts)


def _extract_tar(source: Path, target: Path) -> None:
    with tarfile.open(source) as archive:
        for member in archive:
            if _leads_out(member.name) or not _passes(member, target):
                raise _outside(source, member.name)
        archive.extractall(target, filter="data")


def _passes(member: tarfile.TarInfo, target: Path) -> bool:
    """Whether the library's own filter lets a member through, links and devices included."""
    try:
        tarfile.data_filter(member, os.fspath(target))
    except tarfile.FilterError:
        return False
    return True


def _outside(source: Path, name: str) -> DataError:
    return DataError(
        f"extract: {source}: expected files that stay within the folder, got {name!r}; "
        "nothing was unpacked"
    )


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    start = f"extract: {source}: "
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{start}there is no such file") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{start}the archive is damaged ({error}); fetch it anew") from None
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        raise DataError(f"{start}cannot be unpacked: {error}") from None
    except OSError as error:
        raise DataError(f"{start}cannot be unpacked: {error.strerror or error}") from None
