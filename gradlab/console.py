"""Output for people. Failing to show it must not end the work."""

from __future__ import annotations

import sys
from typing import Any

from gradlab.errors import printable


class Output:
    """A stream as `sys.stderr` may be: missing, closed, unread, of few characters, or no file.

    What cannot be written is left out. Characters that the stream does not have are escaped.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self._stream.write(text)
        except UnicodeError:
            self._try("write", writable(text, self._stream))
        except Exception:  # whatever it is: there is nobody to tell
            pass
        return len(text)

    def flush(self) -> None:
        """Flush, where there is something to flush."""
        self._try("flush")

    def isatty(self) -> bool:
        """Whether it is a terminal, as far as it says."""
        return bool(self._try("isatty"))

    def _try(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self._stream, method)(*args)
        except Exception:
            return None


def stderr() -> Output:
    """`sys.stderr`, as it is now."""
    return Output(getattr(sys, "stderr", None))


def stdout() -> Output:
    """`sys.stdout`, as it is now."""
    return Output(getattr(sys, "stdout", None))


def writable(text: str, stream: Any) -> str:
    """The text with those characters escaped that a stream has no bytes for."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def tell(text: str, output: Output | None = None) -> None:
    """Write a line, to `sys.stderr` unless told otherwise."""
    output = output or stderr()
    output.write(f"{printable(text)}\n")
    output.flush()
