"""`Run`: where a run is, what it has measured, and why it stops."""

from __future__ import annotations

import math
from typing import Any

from gradlab.devices import Device
from gradlab.training.callbacks import callback_states, load_callback_states
from gradlab.training.datamodule import Batches
from gradlab.training.history import History, Metrics, Row
from gradlab.training.module import Module, Schedule
from gradlab.training.runstate import get_state, not_finite
from gradlab.training.stopping import Stopping


class Run:
    """What a `Trainer` keeps of the run it is in, beside the options it was made with.

    ``epoch`` counts from 0; ``batch`` is the number, from 1, of the current batch of the epoch;
    ``step`` is the number of optimizer updates done. ``metrics`` has the latest values.
    """

    max_epochs: int | None
    max_steps: int | None
    accumulate_grad_batches: int
    log_every_n_batches: int | None
    device: Device | None

    model: Module
    optimizers: list[Any]
    schedules: list[Schedule]
    train_batches: Batches
    val_batches: Batches | None
    num_train_batches: int | None
    num_val_batches: int | None

    def __init__(self, callbacks: list[Any], stopping: Stopping) -> None:
        self.callbacks, self.stopping = callbacks, stopping
        self._fresh_callbacks = callback_states(callbacks)
        self.reset()

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
        self.epoch = self.batch = self.step = 0
        self.phase = "training"  # of the epoch; then "validating", and "over" once it has its row
        self.steps_before = 0  # this epoch
        self.batch_size = 1  # of the current batch: its weight in means
        self.history = History()
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
        """Whether Ctrl-C ended the run."""
        return self.stopping.interrupted

    # --------------------------------------------------------------------------------- metrics

    def log(self, name: str, value: Any, *, last: bool = False) -> None:
        """Note a metric of the current batch; see `Module.log`."""
        if not self.is_running:
            return
        if self.phase == "over":
            self.history.epochs[-1][name] = float(value)
            return
        metrics = self.train_metrics if self.phase == "training" else self.val_metrics
        metrics.add(name, value, self.batch_size, self.batch, last)

    def begin_metrics(self) -> None:
        """Begin the metrics of an epoch."""
        self.steps_before = self.step
        few = max(1, (self.num_train_batches or 500) // 5)
        self.train_metrics = Metrics(self.log_every_n_batches or few)

    def read_metrics(self, end_row: bool = False) -> None:
        """Bring ``metrics`` and ``history.steps`` up to date, which waits for the device."""
        for name, value, _, batch, _ in self.train_metrics.read():
            if name == "train_loss" and not math.isfinite(value):
                raise not_finite(self, "the loss", value, batch)
        for batch, row in self.train_metrics.take_rows(end_row):
            self.history.steps.append({"epoch": self.epoch + 1, "step": self.step_of(batch), **row})
        self.metrics.update(self.train_metrics.means())

    def add_epoch(self) -> None:
        """Set down the row of an epoch that is over."""
        means = {**self.train_metrics.means(), **self.val_metrics.means()}
        self.history.epochs.append({"epoch": self.epoch + 1, "step": self.step, **means})
