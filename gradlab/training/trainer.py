"""The Trainer: the training loop, and around it what every run needs."""

from __future__ import annotations

import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from gradlab.devices import DeviceLike, cpu, find_device
from gradlab.errors import ShapeError
from gradlab.nn.utils import clip_grad_norm_
from gradlab.ops.random import manual_seed
from gradlab.tensor import Tensor
from gradlab.training.callbacks import (
    HOOKS,
    ModelCheckpoint,
    arrange,
    hooks_named,
    monitored,
    read_callbacks,
)
from gradlab.training.checkpoint import random_state
from gradlab.training.datamodule import Batches, place, read_loaders, size_of_batch
from gradlab.training.evaluation import evaluation, predict, validate
from gradlab.training.history import History, Metrics, Row
from gradlab.training.module import (
    Module,
    is_lazy,
    not_a_loss,
    read_optimizers,
    require_module,
    require_validation,
)
from gradlab.training.precision import find_precision
from gradlab.training.progress import ProgressBar
from gradlab.training.run import Run
from gradlab.training.runstate import (
    choose_checkpoint,
    how_to_resume,
    not_finite,
    set_state,
    was_finished,
)
from gradlab.training.stopping import Stopping, require_at_least

# Seconds between two looks at what goes on beside the loop: each waits for a GPU and draws the bar.
_LOOK_INTERVAL = 0.25


class Trainer(Run):
    """Trains a `Module`, with a progress bar, metrics, checkpoints and an orderly Ctrl-C.

    `fit` does what the loop in `fit_epoch` shows, and gives bit for bit what the same loop written
    by hand gives. Where the run is and what it has measured stands in the attributes of `Run`.

    Parameters
    ----------
    max_epochs, max_steps, max_time: when to stop, whichever comes first; at least one is needed.
        ``max_time`` is seconds, a timedelta, or text such as ``"10m"``.
    device: where to train, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``; None: where the
        model is. Batches are moved there.
    precision: ``"float32"``, ``"float64"`` or ``"bfloat16"`` for parameters and floating inputs;
        None leaves them as they are.
    gradient_clip_val: scale gradients down to this norm at most; 0 for no clipping.
    accumulate_grad_batches: add up the gradients of so many batches for each update.
    limit_batches: use the first so many batches of an epoch, or a fraction of them (a float);
        ``limit_train_batches`` and ``limit_val_batches`` set one kind only.
    fast_dev_run: run one batch of everything (or so many), without checkpoints, to find mistakes.
    overfit_batches: train and validate on the same first so many batches, without checkpoints.
    check_val_every_n_epoch: validate after every so many epochs.
    log_every_n_batches: batches per row of ``history.steps``; None for five rows per epoch.
    seed: passed to `gradlab.manual_seed` at the start of `fit`.
    callbacks: objects with methods of `Callback`, or one alone.
    enable_progress_bar: show a `ProgressBar`.
    checkpoint_dir: folder for checkpoints; without one, none are written.
    checkpoint_every: steps, ``"epoch"``, or a time such as ``"60s"``.
    checkpoint_keep: how many of the latest to keep. For more, give a `ModelCheckpoint` callback.

    >>> import gradlab as gl
    >>> class Line(gl.training.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = gl.nn.Linear(1, 1)
    ...     def loss(self, y_hat, y):
    ...         return ((y_hat - y) ** 2).mean()
    ...     def configure_optimizers(self):
    ...         return gl.optim.SGD(self.parameters(), lr=0.3)
    >>> X = gl.linspace(-1, 1, 32).reshape(32, 1)
    >>> data = gl.data.DataLoader(gl.data.TensorDataset(X, 2 * X + 1), batch_size=8, shuffle=True)
    >>> trainer = Trainer(max_epochs=20, enable_progress_bar=False)
    >>> history = trainer.fit(Line(), data)
    >>> history["train_loss"][-1] < 1e-4
    True
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        *,
        max_steps: int | None = None,
        max_time: float | str | timedelta | None = None,
        device: DeviceLike = None,
        precision: Any = None,
        gradient_clip_val: float = 0.0,
        accumulate_grad_batches: int = 1,
        limit_batches: int | float | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        fast_dev_run: bool | int = False,
        overfit_batches: int | float = 0,
        check_val_every_n_epoch: int = 1,
        log_every_n_batches: int | None = None,
        seed: int | None = None,
        callbacks: Any = (),
        enable_progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | str | timedelta | None = "60s",
        checkpoint_keep: int | None = 3,
    ) -> None:
        if fast_dev_run:
            max_epochs, limit_batches = 1, int(fast_dev_run)
        require_at_least("gradient_clip_val", gradient_clip_val, 0, whole=False)
        require_at_least("accumulate_grad_batches", accumulate_grad_batches, 1)
        require_at_least("check_val_every_n_epoch", check_val_every_n_epoch, 1)
        require_at_least("log_every_n_batches", log_every_n_batches, 1)
        self.max_epochs, self.max_steps = max_epochs, max_steps
        self.device = None if device is None else find_device(device)
        self.dtype = find_precision(precision)
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.limit_train_batches = _first_given(limit_train_batches, limit_batches)
        self.limit_val_batches = _first_given(limit_val_batches, limit_batches)
        self.overfit_batches = overfit_batches
        self.check_val_every_n_epoch = check_val_every_n_epoch
        self.log_every_n_batches = log_every_n_batches
        self.seed = seed
        callbacks = read_callbacks(callbacks)
        if checkpoint_dir is not None:
            writer = ModelCheckpoint(checkpoint_dir, checkpoint_every, checkpoint_keep)
            callbacks = [*callbacks, writer]
        if fast_dev_run or overfit_batches:  # runs to find mistakes, whose state nobody needs
            callbacks = [each for each in callbacks if not isinstance(each, ModelCheckpoint)]
        callbacks = arrange(callbacks, ProgressBar() if enable_progress_bar else None)
        super().__init__(callbacks, Stopping(max_epochs, max_steps, max_time))
        self._hooks = {name: hooks_named(name, callbacks) for name in HOOKS}

    # ------------------------------------------------------------------------------- the loop

    def fit(
        self, model: Module, data: Any, val: Any = None, *, resume: str | Path | None = None
    ) -> History:
        """Train ``model`` and return the history.

        ``data`` is a `DataModule`, or the training batches (a `DataLoader`, a list), to which
        ``val`` adds the validation batches. ``resume`` is the path of a checkpoint to go on from;
        ``"last"``, the latest in this Trainer's folder; or ``"auto"``: that one too, unless there
        is none or its run was finished. A resumed run ends bit for bit as one that was never
        stopped, where the batches come from a `DataLoader`, from anything else with
        ``state_dict``, or are the same in each pass.

        Ctrl-C ends the run after the current step, with a checkpoint; a second one at once. Raises
        `NonFiniteLossError` when the loss becomes NaN or infinite, and keeps the checkpoints
        written before.
        """
        state = choose_checkpoint(self, resume)
        self.reset()
        if self.seed is not None:
            manual_seed(self.seed)
        self.prepare_data(data, val)
        self.prepare_model(model, state)
        self.is_running = True
        with self.stopping.interrupt:
            try:
                self._call("on_fit_start")
                while not self.stopping.is_over(self.epoch, self.step):
                    self.fit_epoch()
                self.read_metrics(end_row=True)
                self._call("on_fit_end")
            except BaseException as error:
                for hook in self._hooks["on_exception"]:
                    hook(self, error)
                raise
            finally:
                self.is_running = False
        if self.interrupted:
            sys.stderr.write(f"{how_to_resume(self)}\n")
        elif state is not None and self.position() == state["position"]:
            sys.stderr.write(f"{was_finished(self)}\n")
        return self.history

    def fit_epoch(self) -> None:
        """One epoch: the training batches, then the validation batches."""
        self._call("on_epoch_start")
        model, stopping, share = self.model.train(), self.stopping, self.accumulate_grad_batches
        hooks = self._hooks["on_batch_end"]
        for batch in self.train_batches if self.phase == "training" else ():
            if self.batch % share == 0:
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
            self.batch += 1
            loss = model.training_step(self.prepare_batch(batch))
            self.note_loss(loss)
            (loss if share == 1 else loss / share).backward()
            if self.batch % share == 0:
                self.optimizer_step()
            for hook in hooks:
                hook(self)
            if time.monotonic() >= stopping.next_look and self.look_around():
                return
        self._end_training()
        if self._validate():
            self._end_epoch()

    def prepare_batch(self, batch: Any) -> Any:
        """Move a batch to the device, cast its floating tensors, make tensors of its arrays."""
        if batch.__class__ is tuple and batch and self.dtype is None:
            for x in batch:
                if x.__class__ is not Tensor or x.device is not self.model_device:
                    break
            else:  # at nearly every step of nearly every run: nothing to do
                self.batch_size = (batch[0].shape or (1,))[0]
                return batch
        batch = place(batch, self.model_device, self.dtype)
        self.batch_size = size_of_batch(batch)
        return batch

    def note_loss(self, loss: Any) -> None:
        """Note the loss of a batch. On the CPU, refuse it there and then if it is not finite.

        Elsewhere that would mean to wait for the device: `read_metrics` does it, in its own time.
        """
        try:
            value = loss.item() if loss.device is cpu else loss.detach()
        except (AttributeError, ShapeError):
            raise not_a_loss(self.model, loss) from None
        if value.__class__ is float and not math.isfinite(value):
            raise not_finite(self, "the loss", value, self.batch)
        self.train_metrics.unread.append(("train_loss", value, self.batch_size, self.batch, False))

    def optimizer_step(self) -> None:
        """Clip the gradients, update the parameters, and step the schedules that count steps."""
        if self.gradient_clip_val:
            self.clip_gradients(self.gradient_clip_val, self.model)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        if self.step == self.max_steps:
            self.stopping.next_look = 0.0
        for schedule in self.schedules:
            if schedule.interval == "step":
                schedule.scheduler.step()

    def clip_gradients(self, grad_clip_val: float, model: Module) -> None:
        """Scale the gradients so that their norm, as one vector, is at most ``grad_clip_val``."""
        clip_grad_norm_(model.parameters(), grad_clip_val)

    def _end_training(self) -> None:
        if self.phase != "training":  # the run was resumed where only validation was left
            return
        if self.batch == 0:
            raise self.train_batches.empty()
        if self.is_accumulating:
            self.optimizer_step()
        self.train_batches.finish_epoch()
        self.read_metrics(end_row=True)
        self.phase = "validating"

    def _validate(self) -> bool:
        """Validate where it is due; False where Ctrl-C came before its end."""
        due = (self.epoch + 1) % self.check_val_every_n_epoch == 0
        self.skipped_validation = self.val_batches is not None and not due
        self.val_metrics = Metrics()
        if self.val_batches is None or not due:
            return True
        self.random_before_validation = random_state()
        self._call("on_validation_start")
        if not validate(self, self.val_batches, lambda: self.interrupted):
            return False
        self.random_before_validation = None
        self.metrics.update(self.val_metrics.means())
        self._call("on_validation_end")
        return True

    def _end_epoch(self) -> None:
        self.add_epoch()
        for schedule in self.schedules:
            if schedule.plateau is not None:
                value = monitored(self, "ReduceLROnPlateau", schedule.monitor)
                if value is not None:
                    schedule.plateau.step(value)
            elif schedule.interval == "epoch":
                schedule.scheduler.step()
        self.phase = "over"
        self._call("on_epoch_end")
        self.epoch, self.batch, self.phase = self.epoch + 1, 0, "training"
        self.begin_metrics()

    def _call(self, name: str) -> None:
        for hook in self._hooks[name]:
            hook(self)

    def look_around(self) -> bool:
        """Read the metrics, show them, look at the clock; return whether to leave the epoch.

        What would take time at every step, or make it wait for the device, is done here, a few
        times a second, and when the run has to stop.
        """
        self.stopping.next_look = time.monotonic() + _LOOK_INTERVAL
        self.read_metrics()
        self._call("on_progress")
        if not self.stopping.check(self.step):
            return False
        self.stopping.next_look = 0.0
        # Never within a step; and an epoch whose last batch is done is brought to its end.
        return not self.is_accumulating and self.batch != self.num_train_batches

    # -------------------------------------------------------------------------- model and data

    def prepare_data(self, data: Any, val: Any = None) -> None:
        """Take the batches of a `DataModule`, or of one or two loaders."""
        data, val = read_loaders(data, val)
        if self.overfit_batches:
            data = list(Batches(data, self.overfit_batches, "training"))
            val = None if val is None else data
        self.train_batches = Batches(data, self.limit_train_batches, "training")
        self.val_batches = None
        if val is not None and self.limit_val_batches != 0:
            self.val_batches = Batches(val, self.limit_val_batches, "validation")
        self.num_train_batches = self.train_batches.size
        self.num_val_batches = None if self.val_batches is None else self.val_batches.size

    def prepare_model(self, model: Module, state: dict[str, Any] | None = None) -> None:
        """Move the model, settle its lazy layers, make its optimizers; go on from ``state``."""
        self._place_model(model)
        if self.val_batches is not None:
            require_validation(model)  # now, rather than after an epoch of training
        if is_lazy(model):
            if state is None:
                batch = self.prepare_batch(self.train_batches.first())
                with evaluation(model):
                    model.training_step(batch)
            else:
                model.load_state_dict(state["model"])
        self.begin_metrics()
        self.optimizers, self.schedules = read_optimizers(model)
        if state is not None:
            set_state(self, state)

    def _place_model(self, model: Module) -> None:
        require_module(model)
        if self.device is not None or self.dtype is not None:
            model.to(device=self.device, dtype=self.dtype)
        first = next(iter(model.parameters()), None)
        self.model_device = self.device or (cpu if first is None else first.device)
        self.model, model.trainer = model, self

    def validate(self, model: Module, data: Any) -> Row:
        """The metrics of ``model`` on validation data: a `DataModule`, or a loader."""
        loader = data.val_dataloader() if hasattr(data, "val_dataloader") else data
        batches = Batches(loader, self.limit_val_batches, "validation")
        self._place_model(model)
        before = self.is_running, self.phase, self.val_metrics
        self.is_running, self.phase, self.val_metrics = True, "validating", Metrics()
        try:
            validate(self, batches)
            return self.val_metrics.means()
        finally:
            self.is_running, self.phase, self.val_metrics = before

    def predict(self, model: Module, data: Any) -> Any:
        """The predictions of ``model`` for all batches, in one tensor where they are tensors."""
        loader = data.predict_dataloader() if hasattr(data, "predict_dataloader") else data
        batches = Batches(loader, None, "prediction")
        self._place_model(model)
        return predict(self, batches)


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
