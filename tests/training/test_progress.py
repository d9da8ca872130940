"""The progress bar: a bar where one can be drawn, a few lines where not, never a flood."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest
from support import Classifier, loader, make_model, trainer, val_loader

from gradlab import training
from gradlab.errors import MissingDependencyError, OptionError
from gradlab.training import ProgressBar, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, epochs=3, mode="auto", val=True, every="30s", data=None, **options):
    bar = ProgressBar(mode, every, stream)
    made = trainer(epochs, callbacks=[bar], **options)
    made.fit(make_model(), data or loader(), val_loader() if val else None)
    return stream.getvalue()


def test_a_log_has_the_first_and_the_last_of_many_short_epochs():
    lines = run(io.StringIO(), epochs=200).splitlines()
    assert lines[0].startswith("epoch 1/200, 0.")
    assert lines[-1].startswith("epoch 200/200, ")
    seconds = float(lines[-1].split(", ")[1].removesuffix(" s"))
    assert len(lines) <= 3 + seconds
    assert all(text in lines[-1] for text in (" s, train_loss=0.", "val_acc=0.", "val_loss=0."))


def test_a_log_has_every_epoch_of_a_run_of_few():
    lines = run(io.StringIO(), epochs=20).splitlines()
    assert [line.split(",")[0] for line in lines] == [f"epoch {i}/20" for i in range(1, 21)]


def test_a_log_has_lines_within_long_epochs(monkeypatch):
    monkeypatch.setattr(training.trainer, "_LOOK_INTERVAL", 0.0)
    lines = run(io.StringIO(), epochs=1, every=0.0, val=False).splitlines()
    assert [line.split(", ")[1] for line in lines[:-1]] == [f"batch {i}/6" for i in range(1, 7)]


def test_a_terminal_has_one_bar(monkeypatch):
    text = run(Terminal())
    assert text.count("\n") == 1
    last = text.rstrip().split("\r")[-1]
    assert last.startswith("epoch 3/3: 100%|")
    assert "18/18" in last
    assert "train_loss=0." in last
    assert "val_acc=0." in last


def test_a_terminal_is_not_flooded():
    start = time.monotonic()
    text = run(Terminal(), epochs=100)
    seconds = time.monotonic() - start
    # Ten times a second, and a few more at the ends and at the starts of validation.
    assert text.count("\r") <= 10 * seconds + 20


def test_batches_of_unknown_number():
    class Stream:
        def __iter__(self):
            return iter(loader())

    text = run(Terminal(), data=Stream())
    assert "18batch" in text.split("\r")[-1]


def test_a_resumed_bar_begins_where_the_run_does(tmp_path):
    trainer(1, checkpoint_dir=tmp_path).fit(make_model(), loader())
    stream = Terminal()
    made = trainer(2, callbacks=[ProgressBar(stream=stream)], checkpoint_dir=tmp_path)
    made.fit(make_model(), loader(), resume="last")
    assert "6/12" in stream.getvalue().split("\r")[1]


def test_the_reason_for_stopping_is_told():
    text = run(io.StringIO(), max_steps=7)
    assert text.endswith("stopped: max_steps=7 are done\n")


def test_the_bar_is_closed_after_an_error():
    class Failing(Classifier):
        def training_step(self, batch):
            raise ZeroDivisionError

    stream = Terminal()
    with pytest.raises(ZeroDivisionError):
        trainer(callbacks=[ProgressBar(stream=stream)]).fit(make_model(Failing), loader())
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(("tty", "mode"), [(True, "terminal"), (False, "log")])
def test_finding_the_mode(tty, mode):
    assert progress.find_mode(Terminal() if tty else io.StringIO()) == mode


class ZMQInteractiveShell:
    pass


class TerminalInteractiveShell:
    pass


@pytest.mark.parametrize(
    ("shell", "widgets", "mode"),
    [
        (ZMQInteractiveShell(), True, "notebook"),
        (ZMQInteractiveShell(), False, "log"),
        (TerminalInteractiveShell(), True, "terminal"),
        (None, True, "terminal"),
    ],
)
def test_notebooks(monkeypatch, shell, widgets, mode):
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setattr(progress.util, "find_spec", lambda name: widgets or None)
    assert progress.find_mode(Terminal()) == mode


def test_one_bar_is_enough():
    own = ProgressBar("log", stream=io.StringIO())
    made = training.Trainer(1, callbacks=[own])
    assert [each for each in made.callbacks if isinstance(each, ProgressBar)] == [own]


def test_bad_options_and_no_tqdm(monkeypatch):
    with pytest.raises(OptionError, match=r"expected mode 'auto', .* got 'fancy'"):
        ProgressBar("fancy")
    with pytest.raises(OptionError, match="ProgressBar: expected a time such as '30s'"):
        ProgressBar(every="now and then")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingDependencyError, match="the progress bar needs the package tqdm"):
        run(Terminal())


# ------------------------------------------------------------------- streams that take nothing


class Unread(io.StringIO):
    """Raises from the write of that number on."""

    def __init__(self, error, writes=0, tty=False):
        super().__init__()
        self.error, self.writes, self.tty = error, writes, tty

    def isatty(self):
        return self.tty

    def write(self, text):
        self.writes -= 1
        if self.writes < 0:
            raise self.error
        return super().write(text)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


PIPE = BrokenPipeError(32, "Broken pipe")
STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "no stream": object,
    "broken pipe": lambda: Unread(PIPE),
    "broken pipe later": lambda: Unread(PIPE, writes=2),
    "terminal hung up": lambda: Unread(OSError(5, "Input/output error"), writes=4, tty=True),
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
}


@pytest.mark.parametrize("mode", ["auto", "terminal", "log"])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_run_is_not_lost_for_its_bar(monkeypatch, tmp_path, stream, mode):
    """As in services and in GUI programs, whose standard streams may be missing."""

    class Named(Classifier):
        def validation_step(self, batch):
            self.log("损失 ½", super().validation_step(batch))

    class Press(training.Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 1:
                trainer.stopping.press()

    monkeypatch.setattr(sys, "stderr", STREAMS[stream]())
    monkeypatch.setattr(sys, "stdout", STREAMS[stream]())

    def fit(*callbacks, **options):
        made = training.Trainer(
            3, callbacks=[ProgressBar(mode), *callbacks], checkpoint_dir=tmp_path
        )
        made.fit(make_model(Named), loader(), val_loader(), **options)
        return made

    assert fit(Press()).epoch == 2  # and the line about the checkpoint is written, or is not
    assert fit(resume="last").epoch == 3
    fit(resume="last")


@pytest.mark.parametrize("mode", ["terminal", "log"])
def test_characters_that_a_stream_does_not_have(mode):
    class Named(Classifier):
        def validation_step(self, batch):
            self.log("损失", super().validation_step(batch))

    raw = io.BytesIO()
    bar = ProgressBar(mode, stream=io.TextIOWrapper(raw, encoding="cp1252"))
    trainer(1, callbacks=[bar]).fit(make_model(Named), loader(), val_loader())
    assert r"\u635f\u5931=" in raw.getvalue().decode("cp1252")


@pytest.mark.parametrize("mode", ["terminal", "log"])
def test_names_that_would_command_a_terminal(mode):
    name = "\x1b[2J\x9b\r\nloss\u202e"

    class Named(Classifier):
        def validation_step(self, batch):
            self.log(name, super().validation_step(batch))

    stream = Terminal()
    stopping = training.EarlyStopping(name, patience=1, mode="max")
    made = trainer(3, callbacks=[ProgressBar(mode, stream=stream), stopping])
    history = made.fit(make_model(Named), loader(), val_loader())
    text = stream.getvalue()
    for raw in ("\x1b[2J", "\x9b", "\u202e", "\nloss"):
        assert raw not in text
        assert raw not in repr(history)
    assert r"\x1b[2J\x9b\r\nloss\u202e=" in text
    assert r"stopped: \x1b[2J\x9b\r\nloss\u202e has not improved" in text
    assert name in history.names  # as it was given
