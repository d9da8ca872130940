"""The progress bar, which knows a terminal from a notebook from a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from importlib import util
from typing import TYPE_CHECKING, Any, TextIO

from gradlab.console import Output, stderr, tell
from gradlab.errors import OptionError, message, missing_dependency, printable
from gradlab.notebook import notebook
from gradlab.training.callbacks import Callback
from gradlab.training.history import PLACE
from gradlab.training.stopping import read_duration

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer

# A bar is drawn anew ten times a second at most: more is not seen, and takes time from training.
_REFRESH = 0.1

# A log has a line for each epoch of a run of so many.
_FEW_EPOCHS = 20


class ProgressBar(Callback):
    """Show how far a run has come, and the metrics it has logged.

    In a terminal or a notebook it is one bar. Where the output goes to a file, as in CI, it is a
    line at the end of an epoch, in runs of more than 20 epochs not more often than every second,
    and one every ``every`` within long epochs.

    Parameters
    ----------
    mode: ``"terminal"``, ``"notebook"``, ``"log"``, or ``"auto"``, which finds out.
    every: time between two lines within an epoch in a log, as seconds, a timedelta or ``"30s"``.
    stream: where a terminal's bar or a log's lines are written; by default ``sys.stderr``. What it
        does not take, being closed for example, is not shown, and the run continues.
    """

    def __init__(
        self, mode: str = "auto", every: Any = "30s", stream: TextIO | None = None
    ) -> None:
        if mode not in ("auto", "terminal", "notebook", "log"):
            raise OptionError(
                message(
                    "ProgressBar",
                    expected="mode 'auto', 'terminal', 'notebook' or 'log'",
                    got=repr(mode),
                )
            )
        self.mode = mode
        self.every = read_duration("ProgressBar", every)
        self.stream = stream
        self.gives_way = False  # shows nothing where a notebook shows the model's board
        self._display: _Bar | _Log | None = None
        self._due = 0.0
        self._waits = False  # for the first batch, which may draw on the board

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.mode!r}, every='{self.every:g}s')"

    def on_fit_start(self, trainer: Trainer) -> None:
        self._display = None
        self._waits = self.gives_way and _is_shown(trainer.model.board)
        if not self._waits:
            self._open(trainer)

    def _open(self, trainer: Trainer) -> None:
        stream = stderr() if self.stream is None else Output(self.stream)
        mode = find_mode(stream) if self.mode == "auto" else self.mode
        if mode == "log":
            self._display = _Log(stream, self.every)
        else:
            self._display = _Bar(mode, stream, trainer)
        self._due = time.monotonic() + self._display.interval

    def on_progress(self, trainer: Trainer) -> None:
        if self._waits:
            self._waits = False
            if not trainer.plotted:
                self._open(trainer)
        if self._display is not None and time.monotonic() >= self._due:
            self._display.update(trainer)
            self._due = time.monotonic() + self._display.interval

    def on_validation_start(self, trainer: Trainer) -> None:
        if self._display is not None:
            self._display.start_validation(trainer)

    def on_validation_end(self, trainer: Trainer) -> None:
        if self._display is not None:
            self._display.end_validation(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._display is not None:
            self._display.end_epoch(trainer)
            self._due = time.monotonic() + self._display.interval

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._close(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        self._waits = False
        if self._display is not None:
            self._display.close(trainer)
            if trainer.stop_reason and not trainer.interrupted:
                tell(f"stopped: {trainer.stop_reason}", self._display.stream)
            self._display = None


class _Bar:
    """A tqdm bar over all batches of the run."""

    interval = _REFRESH

    def __init__(self, mode: str, stream: Output, trainer: Trainer) -> None:
        self.stream = stream
        self.size = trainer.num_train_batches  # of an epoch; None where that shows only at its end
        self.before = 0  # then: the batches of the epochs before
        known = self.size and trainer.max_epochs
        self.bar = _tqdm(mode)(
            total=self.size * trainer.max_epochs if known else None,  # type: ignore[operator]
            initial=self._done(trainer),
            unit="batch",
            dynamic_ncols=True,
            mininterval=0,  # when to draw is decided here
            **({} if mode == "notebook" else {"file": stream}),
        )
        self.drawn = self.validation_began = 0.0
        self.validation_is_long = True  # until one has shown otherwise

    def _done(self, trainer: Trainer) -> int:
        before = self.before if self.size is None else trainer.epoch * self.size
        return before + trainer.batch

    def update(self, trainer: Trainer, note: str = "") -> None:
        self.drawn = time.monotonic()
        self.bar.n = self._done(trainer)
        self.bar.set_description_str(_epoch(trainer), refresh=False)
        text = ", ".join(filter(None, [note, describe(trainer.metrics)]))
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.refresh()

    def start_validation(self, trainer: Trainer) -> None:
        # What is shown now stays until the last validation batch.
        self.validation_began = time.monotonic()
        if self.validation_is_long or self.validation_began - self.drawn >= self.interval:
            self.update(trainer, note="validating")

    def end_validation(self, trainer: Trainer) -> None:
        self.validation_is_long = time.monotonic() - self.validation_began > 5 * self.interval

    def end_epoch(self, trainer: Trainer) -> None:
        if time.monotonic() - self.drawn >= self.interval:
            self.update(trainer)
        if self.size is None:
            self.before += trainer.batch

    def close(self, trainer: Trainer) -> None:
        self.update(trainer)
        self.bar.close()


class _Log:
    """Lines of text, few of them."""

    least = 1.0  # seconds between the lines at the ends of short epochs

    def __init__(self, stream: Output, interval: float) -> None:
        self.stream, self.interval = stream, interval
        self.start = self.written = time.monotonic()
        self.left_out = False  # the line of the latest epoch

    def update(self, trainer: Trainer) -> None:
        size = f"/{trainer.num_train_batches}" if trainer.num_train_batches else ""
        self._write(f"{_epoch(trainer)}, batch {trainer.batch}{size}", trainer.metrics)

    def start_validation(self, trainer: Trainer) -> None:
        """A log does not tell."""

    def end_validation(self, trainer: Trainer) -> None:
        """Nor does it tell this."""

    def end_epoch(self, trainer: Trainer) -> None:
        shown = len(trainer.history.epochs) == 1 or (trainer.max_epochs or math.inf) <= _FEW_EPOCHS
        self.left_out = not shown and time.monotonic() - self.written < self.least
        if not self.left_out:
            self._write(_epoch(trainer), trainer.history.last())

    def close(self, trainer: Trainer) -> None:
        if self.left_out:
            row = trainer.history.last()
            self._write(f"epoch {row['epoch']}{_of(trainer)}", row)

    def _write(self, place: str, metrics: Mapping[str, float]) -> None:
        elapsed = f"{time.monotonic() - self.start:.1f} s"
        tell(", ".join(filter(None, [place, elapsed, describe(metrics)])), self.stream)
        self.written = time.monotonic()


def _epoch(trainer: Trainer) -> str:
    # After the last epoch, trainer.epoch is the one that would follow.
    number = trainer.epoch + 1
    if trainer.max_epochs is not None:
        number = min(number, trainer.max_epochs)
    return f"epoch {number}{_of(trainer)}"


def _of(trainer: Trainer) -> str:
    return "" if trainer.max_epochs is None else f"/{trainer.max_epochs}"


def describe(metrics: Mapping[str, float]) -> str:
    """``train_loss=0.1234, val_acc=0.98``: the metrics on one line, four digits each."""
    return ", ".join(
        f"{printable(name)}={value:.4g}" for name, value in metrics.items() if name not in PLACE
    )


def find_mode(stream: Output) -> str:
    """``"notebook"``, ``"terminal"`` or ``"log"``, as the output can show it."""
    if notebook() is not None:
        # Without its widgets a notebook shows control characters rather than a bar.
        return "notebook" if util.find_spec("ipywidgets") else "log"
    return "terminal" if stream.isatty() else "log"


def _is_shown(board: Any) -> bool:
    """Whether what is drawn on a board appears while it comes."""
    shown = board is not None and board.display and notebook() is not None
    return shown and util.find_spec("matplotlib") is not None


def _tqdm(mode: str) -> Any:
    try:
        if mode == "notebook":
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        raise missing_dependency("tqdm", "", "the progress bar") from None
    return tqdm
