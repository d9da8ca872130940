"""What is shown beside the work: written where it can be, and never a reason to stop."""

from __future__ import annotations

import io
import sys

import pytest

import gradlab as gl
from gradlab.console import Output, tell, writable
from gradlab.errors import CompileError, GradlabError, StateError, message, printable


class Raising(io.StringIO):
    """A stream nobody reads any more."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = isatty = write


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "no stream": object,
    "broken pipe": lambda: Raising(BrokenPipeError(32, "Broken pipe")),
    "hung up": lambda: Raising(OSError(5, "Input/output error")),
    "full": lambda: Raising(OSError(28, "No space left on device")),
}


@pytest.fixture(params=STREAMS)
def unusable(request):
    return STREAMS[request.param]()


def test_streams_that_cannot_be_written(unusable, monkeypatch):
    output = Output(unusable)
    output.write("text")
    output.flush()
    assert not output.isatty()
    monkeypatch.setattr(sys, "stderr", unusable)
    tell("text")


def test_no_stream_at_all(monkeypatch):
    monkeypatch.delattr(sys, "stderr")
    tell("text")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "損失 é ½"), ("cp1252", r"\u640d\u5931 é ½"), ("ascii", r"\u640d\u5931 \xe9 \xbd")],
)
def test_streams_of_few_characters(encoding, expected):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    tell("損失 é ½", Output(stream))
    assert raw.getvalue().decode(encoding) == f"{expected}\n"
    assert writable("損失 é ½", stream) == expected


HOSTILE = "a\x1b[2J\x9b1m\r\nb\u202ec\u2028\ud800\x00\x7f"
ESCAPED = r"a\x1b[2J\x9b1m\r\nb\u202ec\u2028\ud800\x00\x7f"


def test_printable():
    assert printable(HOSTILE) == ESCAPED
    assert printable(3.5) == "3.5"
    plain = "loss · ½ 損失 é 👍 a\\b"
    assert printable(plain) is plain


def test_errors_are_printable():
    assert str(GradlabError(HOSTILE)) == ESCAPED.replace(r"\n", "\n")
    assert str(StateError(HOSTILE)).endswith(r"\x00\x7f")
    assert (str(StateError()), str(StateError("'a'"))) == ("", "'a'")
    assert message(HOSTILE, expected=HOSTILE, got="x", hint=HOSTILE) == (
        f"{ESCAPED}: expected {ESCAPED}, got x; {ESCAPED}"
    )
    log = "kernel.cu(3): error:\n\tidentifier is undefined\n"
    assert str(CompileError(log)) == log.replace("\t", " " * 8)


def test_names_from_elsewhere_are_printable():
    layer = gl.nn.Linear(1, 1)
    state = {"\x1b]0;title\x07": gl.ones(1)}
    with pytest.raises(StateError) as raised:
        layer.load_state_dict(state)
    assert "\x1b" not in str(raised.value)
    assert r"\x1b]0;title\x07" in str(raised.value)
    board = gl.viz.ProgressBoard(display=False)
    board.draw(1, 2.0, HOSTILE)
    assert repr(board) == f"ProgressBoard({ESCAPED}: 1)"
