"""Callbacks: what a Trainer does beside training, at fixed moments of the loop.

A callback is any object with some of the methods of `Callback`; only those it defines are called.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlab.errors import OptionError, message
from gradlab.fields import COUNT, FILE_NAME, NUMBER, Maybe, check_fields
from gradlab.paths import as_path
from gradlab.tensor import is_integer, require_integer
from gradlab.training.checkpoint import write_checkpoint
from gradlab.training.folder import (
    CHECKPOINT_NAME,
    claimed,
    remove_abandoned,
    remove_checkpoint,
    require_writable,
)
from gradlab.training.stopping import read_duration

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


class Callback:
    """The moments at which a Trainer calls its callbacks, in the order they were given.

    ``trainer`` has what there is to know: ``model``, ``epoch`` (from 0), ``batch`` (the current one
    of the epoch, from 1), ``step`` (optimizer updates done), ``metrics``, ``history``; and
    ``trainer.stop(reason)`` ends the run after the current step or epoch.

    >>> class Shout(Callback):
    ...     def on_epoch_end(self, trainer):
    ...         print(f"epoch {trainer.epoch + 1} is over")
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Model, data and optimizers are ready, and a checkpoint is loaded if one is resumed."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch, or the first after resuming in its middle."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """After each training batch. It should be quick; see `on_progress`."""

    def on_progress(self, trainer: Trainer) -> None:
        """A few times a second within the training batches, when ``trainer.metrics`` are new."""

    def on_validation_start(self, trainer: Trainer) -> None:
        """Before the first validation batch."""

    def on_validation_end(self, trainer: Trainer) -> None:
        """After the last validation batch; ``trainer.metrics`` has the results."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After validation; ``trainer.history.epochs[-1]`` is the row of this epoch."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """The run ends with an error."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """The run is over, finished or stopped, without an error."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep of this callback: tensors, numbers, strings."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def read_callbacks(callbacks: Any) -> list[Any]:
    """The callbacks a Trainer was given, one alone as a list of one; refuses what is none."""
    if isinstance(callbacks, Iterable) and not isinstance(callbacks, str | type):
        given = list(callbacks)
    else:
        given = [] if callbacks is None else [callbacks]
    for each in given:
        is_class = isinstance(each, type)
        if is_class or not any(hasattr(each, name) for name in HOOKS):
            raise OptionError(
                message(
                    "Trainer",
                    expected="callbacks with at least one method of training.Callback",
                    got=f"the class {each.__name__}" if is_class else type(each).__name__,
                    hint=f"make one: {each.__name__}(...)" if is_class else "",
                )
            )
    return given


def arrange(callbacks: Iterable[Any], bar: Any) -> list[Any]:
    """Callbacks in the order of their calls: those that write checkpoints last, so that these
    hold the state of all others; before them the progress bar, ``bar`` if there is none."""
    given = list(callbacks)
    if bar is not None and not any(isinstance(each, type(bar)) for each in given):
        given.append(bar)
    return sorted(given, key=lambda each: isinstance(each, ModelCheckpoint))


def hooks_named(name: str, callbacks: Iterable[Any]) -> list[Callable[..., Any]]:
    """The methods of that name, without those that are only the empty one of `Callback`."""
    found = [getattr(each, name, None) for each in callbacks]
    empty = getattr(Callback, name)
    return [hook for hook in found if hook and getattr(hook, "__func__", None) is not empty]


def _keyed(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Callbacks that have a state, by the names under which a checkpoint keeps them."""
    found: dict[str, Any] = {}
    for each in callbacks:
        if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict")):
            continue
        name = wanted = type(each).__name__
        count = 1
        while name in found:
            count += 1
            name = f"{wanted}#{count}"
        found[name] = each
    return found


def callback_states(callbacks: Iterable[Any]) -> dict[str, Any]:
    """The states of callbacks, by name."""
    return {name: each.state_dict() for name, each in _keyed(callbacks).items()}


def load_callback_states(callbacks: Iterable[Any], states: dict[str, Any]) -> None:
    """Give callbacks the states of their names; those without one stay as they are."""
    for name, each in _keyed(callbacks).items():
        if name in states:
            each.load_state_dict(copy.deepcopy(states[name]))


def monitored(trainer: Trainer, who: str, name: str) -> float | None:
    """The value of a metric in this epoch's row; None in an epoch without validation."""
    value = trainer.history.epochs[-1].get(name)
    if value is None and not trainer.skipped_validation:
        known = ", ".join(trainer.history.names) or "none"
        hint = "log it in training_step or validation_step with self.log(name, value)"
        if name.startswith("val") and trainer.val_batches is None:
            hint = "there is no validation data: give fit() a second loader"
        expected = f"a metric to monitor among {known}"
        raise OptionError(message(who, expected=expected, got=repr(name), hint=hint))
    return value


class Best:
    """The best value of a metric so far."""

    def __init__(self, who: str, mode: str, min_delta: Any = 0.0) -> None:
        if mode not in ("min", "max"):
            raise OptionError(message(who, expected="mode 'min' or 'max'", got=repr(mode)))
        if not (isinstance(min_delta, int | float) and min_delta >= 0):
            raise OptionError(message(who, expected="min_delta of 0 or more", got=repr(min_delta)))
        self.mode, self.sign = mode, 1 if mode == "min" else -1
        self.min_delta = min_delta
        self.value = math.inf * self.sign

    def improved(self, value: float) -> bool:
        """Whether ``value`` is better, by more than ``min_delta``; if so it is the best now."""
        better = self.sign * value < self.sign * self.value - self.min_delta  # False for NaN
        if better:
            self.value = value
        return better


class EarlyStopping(Callback):
    """Stop when a metric has not improved for ``patience`` epochs in which it was measured.

    Parameters
    ----------
    monitor: name of the metric.
    patience: how many epochs without improvement end the run.
    min_delta: an improvement must be larger than this.
    mode: ``"min"`` where smaller is better, ``"max"`` where larger is.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "min",
    ) -> None:
        self.monitor = monitor
        self.patience = require_integer("EarlyStopping", "patience", patience)
        self.best = Best("EarlyStopping", mode, min_delta)
        self.waited = 0

    def __repr__(self) -> str:
        delta = f", min_delta={self.best.min_delta}" if self.best.min_delta else ""
        return (
            f"{type(self).__name__}(monitor={self.monitor!r}, patience={self.patience}{delta}, "
            f"mode={self.best.mode!r})"
        )

    def on_fit_start(self, trainer: Trainer) -> None:
        self._stop_if_due(trainer)  # where a run that it had ended is resumed

    def on_epoch_end(self, trainer: Trainer) -> None:
        value = monitored(trainer, "EarlyStopping", self.monitor)
        if value is not None:
            self.waited = 0 if self.best.improved(value) else self.waited + 1
            self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            trainer.stop(
                f"{self.monitor} has not improved for {self.patience} epochs, "
                f"its best was {self.best.value:.4g}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.value, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_fields("EarlyStopping", state, {"best": NUMBER, "waited": COUNT})
        self.best.value, self.waited = state["best"], state["waited"]


class LearningRateMonitor(Callback):
    """Log the learning rate in use as the metric ``lr`` (``lr-0``, ``lr-1``, … if several)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def on_batch_end(self, trainer: Trainer) -> None:
        with_groups = [each for each in trainer.optimizers if hasattr(each, "param_groups")]
        groups = [group for each in with_groups for group in each.param_groups]
        for number, group in enumerate(groups):
            trainer.log("lr" if len(groups) == 1 else f"lr-{number}", group["lr"], last=True)


class ModelCheckpoint(Callback):
    """Write checkpoints into a folder.

    One is written whenever ``every`` has passed, and at the end of the run, by Ctrl-C too. With
    ``monitor``, one is also written at the end of each epoch in which that metric was better than
    ever before, and the best is kept whatever becomes of the others.

    Several runs may write into one folder, at the same time too. A run deletes what it wrote
    itself, or what the run wrote that it continues by ``resume="last"`` or ``"auto"``, and nothing
    else; what a process of the same user left that was killed while writing is removed when the
    next run begins.

    Parameters
    ----------
    folder: made where it is missing; a relative one is in the folder the program is in now.
    every: a number of steps, ``"epoch"``, a time such as ``"30s"``, ``"10m"`` or ``"2h"``, a
        timedelta, or None for none in between.
    keep: how many of the latest checkpoints of this run stay; None for all.
    monitor, mode: a metric, and ``"min"`` or ``"max"``.
    """

    def __init__(
        self,
        folder: str | Path = "checkpoints",
        every: int | str | timedelta | None = "60s",
        keep: int | None = 3,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        if keep is not None:
            require_integer("ModelCheckpoint", "keep", keep)
        # Wherever the program goes to, and whatever has become of the folder it was in by then.
        given = as_path("ModelCheckpoint", folder, "a folder")
        self.folder = Path(os.path.abspath(given))
        self._given = str(given)
        self.every = every
        self.steps, self.seconds = 0, math.inf
        if is_integer(every):
            self.steps = require_integer("ModelCheckpoint", "every (steps)", every)
        elif every not in (None, "epoch"):
            self.seconds = read_duration("ModelCheckpoint", every)
        self.keep, self.monitor = keep, monitor
        self.best = Best("ModelCheckpoint", mode)
        self.best_path: Path | None = None
        self.last_path: Path | None = None
        # Whether the run continues what another wrote here, rather than a copy of it.
        self.continues = False
        self._written: list[str] = []  # what may be deleted, the latest last
        self._saved_position: Any = None
        self._due = math.inf

    def __repr__(self) -> str:
        best = f", monitor={self.monitor!r}, mode={self.best.mode!r}" if self.monitor else ""
        return (
            f"{type(self).__name__}({self._given!r}, every={self.every!r}, keep={self.keep}{best})"
        )

    def on_fit_start(self, trainer: Trainer) -> None:
        if not trainer.stopping.is_over(trainer.epoch, trainer.step):
            require_writable(self.folder)
        remove_abandoned(self.folder)
        self._prune()  # what a run that is continued did not come to
        self._saved_position = trainer.position() if self.last_path else None
        self._due = time.monotonic() + self.seconds

    def on_batch_end(self, trainer: Trainer) -> None:
        # The gradients of half a step are in no checkpoint.
        if self.steps and trainer.step % self.steps == 0 and not trainer.is_accumulating:
            self.save(trainer)

    def on_progress(self, trainer: Trainer) -> None:
        if time.monotonic() >= self._due and not trainer.is_accumulating:
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        value = None
        if self.monitor is not None:
            value = monitored(trainer, "ModelCheckpoint", self.monitor)
        is_best = value is not None and self.best.improved(value)
        if is_best or self.every == "epoch":
            self.save(trainer, is_best)

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.position() != self._saved_position:
            self.save(trainer)

    def save(self, trainer: Trainer, is_best: bool = False) -> Path:
        """Write a checkpoint now and delete those of this run that are no longer kept."""
        before = self.best_path, list(self._written)
        with claimed(self.folder, trainer.position()) as path:
            if is_best:  # before the state is taken, which includes this
                self.best_path = path
            if self.keep is not None:
                self._written.append(path.name)
            try:
                write_checkpoint(path, trainer.state_dict())
            except BaseException:
                self.best_path, self._written = before
                raise
        self.last_path = path
        self._saved_position = trainer.position()
        self._due = time.monotonic() + self.seconds
        self._prune()
        return path

    def _prune(self) -> None:
        """Delete what this run wrote, or the one it continues, but for the latest and the best."""
        if self.keep is None:
            return
        older, latest = self._written[: -self.keep], self._written[-self.keep :]
        best = None if self.best_path is None else self.best_path.name
        kept = [name for name in older if name == best or not self._remove(name)]
        self._written = [*kept, *latest]

    def _remove(self, name: str) -> bool:
        try:
            remove_checkpoint(self.folder / name)
        except OSError:  # somebody may be reading it; a run is not lost for that
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        name = None if self.best_path is None else self.best_path.name
        return {"best": self.best.value, "best_path": name, "written": list(self._written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Of its own folder: a file must not have another one's files counted as ours.
        check_fields("ModelCheckpoint", state, {"best": NUMBER, "best_path": Maybe(FILE_NAME)})
        written = state.get("written", [])
        check_fields("ModelCheckpoint: written", written, [CHECKPOINT_NAME])
        self.best.value = state["best"]
        name, folder = state["best_path"], self.folder
        if self.last_path is not None and not self.continues:
            folder = self.last_path.parent  # of the run that this one takes a copy of
        self.best_path = None if name is None else folder / name
        self._written = list(written) if self.continues else []
