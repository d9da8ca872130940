"""`Run`: where a run is, what it has measured, and why it stops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradlab.devices import Device, cpu
from gradlab.errors import OptionError, ShapeError, message
from gradlab.tensor import Tensor
from gradlab.training.callbacks import callback_states, load_callback_states
from gradlab.training.datamodule import Batches
from gradlab.training.history import PLACE, Entry, History, Metrics, Row
from gradlab.training.module import Module, Schedule, batches_per_point, not_a_loss
from gradlab.training.runstate import get_state, not_finite
from gradlab.training.stopping import Stopping

if TYPE_CHECKING:
    from typing import Self


class Run:
    """What a `Trainer` keeps of the run it is in, beside the options it was made with.

    ``epoch`` counts from 0; ``batch`` is the number, from 1, of the current batch of the epoch;
    ``step`` is the number of optimizer updates done. ``train_batch_idx`` and ``val_batch_idx``
    count the batches done in the whole run. ``metrics`` has the latest values.

    ``train_dataloader`` and ``val_dataloader`` are the loaders, ``num_train_batches`` and
    ``num_val_batches`` how many of their batches an epoch takes: None where that shows only at its
    end, and 0 without validation. ``optim`` is the first of the ``optimizers``.
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    accumulate_grad_batches: int = 1
    log_every_n_batches: int | None = None
    device: Device | None = None

    callbacks: list[Any]
    stopping: Stopping
    gpus: list[Device]
    model: Module
    optim: Any
    optimizers: list[Any]
    schedules: list[Schedule]
    train_dataloader: Any
    val_dataloader: Any
    train_batches: Batches
    val_batches: Batches | None
    num_train_batches: int | None
    num_val_batches: int | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: a subclass, or `add_to_class`, may put another one in its place.
        run = super().__new__(cls)
        run.stopping, run.gpus = Stopping(), []
        run.set_callbacks([])
        run.reset()
        return run

    def set_callbacks(self, callbacks: list[Any]) -> None:
        """Take the callbacks of all runs to come, each of which begins with their present state."""
        self.callbacks = callbacks
        self._fresh_callbacks = callback_states(callbacks)

    def __repr__(self) -> str:
        seconds = self.stopping.max_seconds
        limits = {
            "max_epochs": self.max_epochs,
            "max_steps": self.max_steps,
            "max_time": None if seconds == math.inf else f"'{seconds:g}s'",
            "device": None if self.device is None else f"'{self.device}'",
        }
        given = "".join(f"{k}={v}, " for k, v in limits.items() if v is not None)
        callbacks = ", ".join(type(each).__name__ for each in self.callbacks)
        now = f"{self.epoch} epochs, {self.step} steps"
        return f"{type(self).__name__}({given}callbacks=[{callbacks}]; {now} done)"

    def reset(self) -> None:
        """Be as before the first run."""
        self.is_running = False
        self.is_left = False  # the epoch, before its end
        self.only_validates = False  # in this epoch, where the run was resumed after its training
        self.epoch = self.batch = self.step = 0
        self.train_batch_idx = self.val_batch_idx = 0
        self.phase = "training"  # of the epoch; then "validating", and "over" once it has its row
        self.steps_before = 0  # this epoch
        # Steps and batches done before the batch that a fit_epoch of the user's is at.
        self.open_batch: tuple[int, int] | None = None
        self.batch_size = 1  # of the current batch: its weight in means
        self.plotted: dict[str, None] = {}  # the names of what is drawn on the model's board
        self.undrawn: dict[str, list[tuple[float, float]]] = {}  # by name, until the mean is full
        self.noted_loss: Any = None  # what the step of the current batch has plotted as its loss
        self.history = History()
        self.rows_begun = 0  # of history.steps, at its end: of a run that is over
        self.metrics: Row = {}
        self.train_metrics = self.val_metrics = Metrics()
        self.skipped_validation = False
        self.random_before_validation: dict[str, Any] | None = None
        self.stopping.start()
        load_callback_states(self.callbacks, self._fresh_callbacks)

    # ------------------------------------------------------------------------- place and state

    @property
    def is_accumulating(self) -> bool:
        """Whether the current step waits for more batches."""
        return self.batch % self.accumulate_grad_batches != 0 and self.phase == "training"

    @property
    def batches_in_step(self) -> int:
        """How many batches the current step is made of, as far as that is known beforehand."""
        share, size = self.accumulate_grad_batches, self.num_train_batches
        first = (self.batch - 1) // share * share
        return share if size is None or size <= first else min(share, size - first)

    def step_of(self, batch: int) -> int:
        """The number, from 1, of the step that a batch of this epoch belongs to."""
        return self.steps_before + -(-batch // self.accumulate_grad_batches)

    def position(self) -> dict[str, Any]:
        """Where the run is; at the end of an epoch, that is before the first batch of the next."""
        if self.phase == "over":
            return {"epoch": self.epoch + 1, "batch": 0, "step": self.step, "phase": "training"}
        return {name: getattr(self, name) for name in ("epoch", "batch", "step", "phase")}

    def state_dict(self) -> dict[str, Any]:
        """The whole state of the run, which a `ModelCheckpoint` writes.

        Raises `NonFiniteLossError` where a loss or a trained parameter is NaN or infinite.
        """
        return get_state(self)

    # -------------------------------------------------------------------------------- stopping

    def stop(self, reason: str) -> None:
        """End the run after the current step or epoch; it then counts as finished."""
        self.stopping.tell(reason)

    @property
    def stop_reason(self) -> str | None:
        """Why the run ended before ``max_epochs``; None where it did not."""
        return self.stopping.reason

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, or a signal such as SIGTERM, ended the run."""
        return self.stopping.interrupted

    # --------------------------------------------------------------------------------- metrics

    def log(self, name: str, value: Any, *, last: bool = False) -> None:
        """Note a metric of the current batch; see `Module.log`."""
        if self.is_running:
            self.note(name, value, last)

    def draw(self, entries: list[Entry], end: bool = False) -> None:
        """Draw those of the entries, which were read, that the model has plotted.

        The board gets means of several batches, which are taken here: to hand over each value takes
        as long as to note it. With ``end`` the means begun are drawn, too. What is NaN or infinite
        has no place on a board, and is left out of the means, too: the curve of a loss that
        diverges goes up to there.
        """
        for label in list(self.plotted) if entries or end else ():
            train = label.startswith("train_")
            batches = self.num_train_batches if train else self.num_val_batches
            every_n = batches_per_point(self.model, label, batches)
            if not every_n:
                continue
            points = self.undrawn.setdefault(label, [])
            points += self._points(label, entries, batches if train else None)
            ready = len(points) if end else len(points) - len(points) % every_n
            for first in range(0, ready, every_n):
                xs, ys = zip(*points[first : first + every_n], strict=True)
                self.model.board.draw(sum(xs) / len(xs), sum(ys) / len(ys), label)
            del points[:ready]

    def _points(
        self, label: str, entries: list[Entry], batches: int | None
    ) -> Iterator[tuple[float, float]]:
        """The values of a curve, each at the part of the run, in epochs, that was done before its
        batch; without a number of ``batches`` at the end of the epoch."""
        for name, y, _, batch, _ in entries:
            if name == label and math.isfinite(y):
                yield self.epoch + ((batch - 1) / batches if batches else 1.0), y

    def note(self, name: str, value: Any, last: bool = False) -> Any:
        """Note a metric; return its value, a number, or a tensor where that is on a device.

        A training loss on the CPU is refused there and then if it is not finite. Elsewhere that
        would mean to wait for the device: `read_metrics` does it, in its own time.
        """
        if name.__class__ is not str or name in PLACE:
            raise _not_a_name(self.model, name)
        if self.phase == "training":
            metrics, batch, loss_name = self.train_metrics, self.batch, "train_loss"
        elif self.phase == "validating":
            metrics, batch, loss_name = self.val_metrics, self.val_batch_idx, "val_loss"
        else:
            value = self.history.epochs[-1][name] = self._as_float(name, value)
            return value
        kept = value
        if isinstance(value, Tensor):
            try:
                kept = value.item() if value.device is cpu else value.detach()
            except ShapeError:
                raise self._not_one_element(name, value) from None
            if value.device is not cpu and name != loss_name:
                kept = kept.clone()  # it may be a sum that goes on in place before it is read
        elif value.__class__ is not float:
            kept = self._as_float(name, value)
        metrics.add(name, kept, self.batch_size, batch, last)
        if name == loss_name:
            self.noted_loss = value
            if name == "train_loss" and kept.__class__ is float and not math.isfinite(kept):
                raise not_finite(self, "the loss", kept, batch)
        return kept

    def note_loss(self, loss: Any) -> None:
        """Note the loss that a step has returned, in place of one it has plotted or logged."""
        if self.phase == "training":
            if not isinstance(loss, Tensor):
                raise not_a_loss(self.model, loss)
            metrics, batch, name = self.train_metrics, self.batch, "train_loss"
        else:
            if not (isinstance(loss, Tensor) and loss.numel() == 1):
                return
            metrics, batch, name = self.val_metrics, self.val_batch_idx, "val_loss"
        if self.noted_loss is not None:
            metrics.take_back(name, batch)
        self.note(name, loss)
        self.noted_loss = None

    def _as_float(self, name: str, value: Any) -> float:
        try:
            return float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError):
            raise self._not_one_element(name, value) from None

    def _not_one_element(self, name: str, value: Any) -> Exception:
        if name == "train_loss" and isinstance(value, Tensor):
            return not_a_loss(self.model, value)
        has_shape = hasattr(value, "shape")
        return ShapeError(
            message(
                f"{type(self.model).__name__}.log",
                expected=f"{name} to be a number or a tensor of one element",
                got=f"a tensor of shape {value.shape}" if has_shape else repr(value),
                hint="reduce it, for example with .mean()" if has_shape else "",
            )
        )

    def begin_metrics(self) -> None:
        """Begin the metrics of an epoch."""
        self.steps_before = self.step
        self.val_metrics = Metrics()
        few = max(1, (self.num_train_batches or 500) // 5)
        self.train_metrics = Metrics(self.log_every_n_batches or few)

    def read_metrics(self, end_row: bool = False) -> None:
        """Bring ``metrics`` and ``history.steps`` up to date, which waits for the device."""
        entries = self.train_metrics.read()
        self.draw(entries)
        for name, value, _, batch, _ in entries:
            if name == "train_loss" and not math.isfinite(value):
                raise not_finite(self, "the loss", value, batch)
        self._add_rows(self.train_metrics.take_rows(end_row))
        self.metrics.update(self.train_metrics.means())

    def show_row_begun(self) -> None:
        """Let the history of a run that ends within an epoch have the steps up to there.

        That row is in no checkpoint: a resumed run has it whole.
        """
        self.read_metrics()
        begun = self.train_metrics.row_begun()
        self._add_rows(begun)
        self.rows_begun = len(begun)

    def _add_rows(self, rows: list[tuple[int, Row]]) -> None:
        for batch, row in rows:
            self.history.steps.append({"epoch": self.epoch + 1, "step": self.step_of(batch), **row})

    def add_epoch(self) -> None:
        """Set down the row of an epoch that is over."""
        means = {**self.train_metrics.means(), **self.val_metrics.means()}
        self.history.epochs.append({"epoch": self.epoch + 1, "step": self.step, **means})


def _not_a_name(model: Module, name: Any) -> OptionError:
    """The error for a metric whose name is no string, or that of a column each row has."""
    return OptionError(
        message(
            f"{type(model).__name__}.log",
            expected="the name of a metric, a string other than 'epoch' and 'step', which say "
            "where in the run a row of the history is",
            got=repr(name),
        )
    )
