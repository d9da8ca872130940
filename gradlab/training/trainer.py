"""The Trainer: the training loop, and around it what every run needs."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlab.arguments import warn
from gradlab.autograd.modes import no_grad
from gradlab.console import tell
from gradlab.contexts import Restoring
from gradlab.devices import Device, DeviceLike, cpu, find_device
from gradlab.errors import OptionError, message
from gradlab.nn.utils import clip_grad_norm_
from gradlab.ops.random import manual_seed
from gradlab.optim import Optimizer
from gradlab.tensor import Tensor, is_integer, require_integer
from gradlab.training.callbacks import (
    HOOKS,
    ModelCheckpoint,
    arrange,
    hooks_named,
    monitored,
    read_callbacks,
)
from gradlab.training.checkpoint import random_state
from gradlab.training.datamodule import (
    Batches,
    as_data_module,
    length_of,
    place,
    read_loader,
    size_of_batch,
)
from gradlab.training.evaluation import predict, validate
from gradlab.training.gpus import find_gpus
from gradlab.training.history import History, Metrics, Row
from gradlab.training.hyperparameters import HyperParameters, is_replaced
from gradlab.training.module import (
    Module,
    evaluation,
    is_lazy,
    read_optimizers,
    require_module,
    require_validation,
    set_board_limits,
)
from gradlab.training.precision import find_precision
from gradlab.training.progress import ProgressBar
from gradlab.training.run import Run
from gradlab.training.runstate import (
    checkpoint_writer,
    choose_checkpoint,
    how_to_resume,
    require_finite,
    require_states,
    set_state,
    was_finished,
)
from gradlab.training.watched import WatchedTraining, WatchedValidation

if TYPE_CHECKING:
    from typing import Self

# Seconds between two looks at what goes on beside the loop: each waits for a GPU and draws the bar.
_LOOK_INTERVAL = 0.25


class Trainer(Run, HyperParameters):
    """Trains a `Module`, with a progress bar, metrics, checkpoints and an orderly Ctrl-C.

    `fit` does what the loop in `fit_epoch` shows, and gives bit for bit what the same loop written
    by hand gives. Where the run is and what it has measured stands in the attributes of `Run`.
    `prepare_data`, `prepare_model`, `prepare_batch`, `fit_epoch`, `clip_gradients` and ``__init__``
    may be replaced, in a subclass or by `add_to_class`.

    Parameters
    ----------
    max_epochs, max_steps, max_time: when to stop, whichever comes first; at least one is needed.
        ``max_time`` is seconds, a timedelta, or text such as ``"10m"``.
    num_gpus: 1 to train on the first GPU, where there is one; ``device`` says it more exactly.
    gradient_clip_val: scale gradients down to this norm at most; 0 for no clipping.
    device: where to train, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``; None: where the
        model is. Batches are moved there.
    precision: ``"float32"``, ``"float64"`` or ``"bfloat16"`` for parameters and floating inputs;
        None leaves them as they are.
    accumulate_grad_batches: take the mean gradient of this many batches for each update. The last
        update of an epoch may be left with fewer, and takes the mean of those. Each batch counts
        the same, whatever its size.
    limit_batches: use the first so many batches of an epoch, or a fraction of them (a float);
        ``limit_train_batches`` and ``limit_val_batches`` set one kind only.
    fast_dev_run: run one batch of everything (or so many), without checkpoints, to find mistakes.
    overfit_batches: train and validate on the same first so many batches, without checkpoints.
    check_val_every_n_epoch: validate after every so many epochs.
    log_every_n_batches: batches per row of ``history.steps``; None for five rows per epoch.
    seed: passed to `gradlab.manual_seed` at the start of `fit`.
    callbacks: objects with methods of `Callback`, or one alone.
    enable_progress_bar: show a `ProgressBar`; None: unless a notebook shows the model's board.
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

    # What each option is where another __init__, one that knows fewer, was put in place of ours.
    max_time: float | str | timedelta | None = None
    dtype: Any = None
    num_gpus: int = 0
    gradient_clip_val: float = 0.0
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    overfit_batches: int | float = 0
    check_val_every_n_epoch: int = 1
    seed: int | None = None
    _fit_device: Device | None = None
    # A subclass that keeps its own arguments must not undo what is made of them here.
    _made_from_arguments = frozenset({"callbacks", "device"})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        trainer = super().__new__(cls)
        trainer.set_callbacks([_bar_or_board()])
        return trainer

    def __init__(
        self,
        max_epochs: int | None = None,
        num_gpus: int = 0,
        gradient_clip_val: float = 0.0,
        *,
        max_steps: int | None = None,
        max_time: float | str | timedelta | None = None,
        device: DeviceLike = None,
        precision: Any = None,
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
        enable_progress_bar: bool | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | str | timedelta | None = "60s",
        checkpoint_keep: int | None = 3,
    ) -> None:
        self.save_hyperparameters()
        if fast_dev_run:
            self.max_epochs = 1
            limit_batches = _number_of_batches(fast_dev_run)
        _check_norm(gradient_clip_val)
        require_integer("Trainer", "accumulate_grad_batches", accumulate_grad_batches)
        require_integer("Trainer", "check_val_every_n_epoch", check_val_every_n_epoch)
        if log_every_n_batches is not None:
            require_integer("Trainer", "log_every_n_batches", log_every_n_batches)
        self.stopping.set_limits(self.max_epochs, max_steps, max_time)
        self.gpus = find_gpus(num_gpus, device)
        self.device = None if device is None else find_device(device)
        self.dtype = find_precision(precision)
        self.limit_train_batches = _first_given(limit_train_batches, limit_batches)
        self.limit_val_batches = _first_given(limit_val_batches, limit_batches)
        callbacks = read_callbacks(callbacks)
        if checkpoint_dir is not None:
            writer = ModelCheckpoint(checkpoint_dir, checkpoint_every, checkpoint_keep)
            callbacks = [*callbacks, writer]
        if fast_dev_run or overfit_batches:  # runs to find mistakes, whose state nobody needs
            callbacks = [each for each in callbacks if not isinstance(each, ModelCheckpoint)]
        bar = _bar_or_board() if enable_progress_bar is None else ProgressBar()
        self.set_callbacks(arrange(callbacks, None if enable_progress_bar is False else bar))

    # ------------------------------------------------------------------------------- the loop

    def fit(
        self,
        model: Module,
        data: Any,
        val: Any = None,
        *,
        device: DeviceLike = None,
        resume: str | Path | None = None,
    ) -> History:
        """Train ``model``, leave it in evaluation mode, and return the history.

        ``data`` is a `DataModule`, or the training batches (a `DataLoader`, a list), to which
        ``val`` adds the validation batches. ``device`` is where to train this time, whatever the
        Trainer was made with. ``resume`` is the path of a checkpoint to go on from; ``"last"``, the
        latest in this Trainer's folder; or ``"auto"``, for a program that may be stopped and
        started any number of times: a new run where the folder has no checkpoint, else the latest
        that is whole, with a warning about those after it; a run that was finished stays as it is.
        A resumed run ends bit for bit as one that was never stopped, where the batches come from a
        `DataLoader`, from anything else with ``state_dict``, or are the same in each pass.

        Ctrl-C ends the run after the current step, with a checkpoint; a second one at once. So do
        SIGTERM and SIGHUP, with which batch systems, containers and closed terminals warn; once the
        checkpoint is written they are delivered again, which ends the process, unless the program
        handles or ignores them. Signals reach the main thread only.

        Raises `NonFiniteLossError` when the loss becomes NaN or infinite, or a trained parameter
        with the last step, and keeps the checkpoints written before.
        """
        if self.is_running:
            raise OptionError(
                "Trainer.fit: expected a Trainer without a run under way, got one within its own; "
                "use another Trainer"
            )
        self.stopping.set_limits(self.max_epochs, self.max_steps, self.max_time)
        self._fit_device = None if device is None else find_device(device)
        try:
            state = choose_checkpoint(self, resume)
            self._reset()
            if self.seed is not None:
                manual_seed(self.seed)
            self.prepare_data(as_data_module(data, val))
            self._take_batches()
            self.prepare_model(model)
            self._begin(model, state)
            self._run()
            self.model.eval()
        finally:
            self._fit_device = None
        if self.interrupted:
            tell(how_to_resume(self))
        elif state is not None and self.position() == state["position"]:
            tell(was_finished(self))
        self.stopping.signals.deliver()
        return self.history

    def plot(self, label: str, value: Any) -> None:
        """Note a metric that is also drawn, once it is read; see `Module.plot`."""
        if self.is_running:
            self.plotted[label] = None
            self.note(label, value)
        elif is_replaced(self, _FIT):  # with loops of the user's alone
            self.model.draw(self, label, value)

    def _run(self) -> None:
        """All epochs, with the callbacks at their beginning and their end."""
        loaders = self.train_dataloader, self.val_dataloader
        self.train_dataloader = WatchedTraining(self, self.train_batches)
        self.val_dataloader = self.val_batches and WatchedValidation(self, self.val_batches)
        signals = self.stopping.signals
        try:
            signals.hold()
            self.is_running = True
            self.call("on_fit_start")
            while not self.stopping.is_over(self.epoch, self.step):
                self._run_epoch()
            self.show_row_begun()
            require_finite(self)
            self.call("on_fit_end")
        except BaseException as error:
            for hook in self._hooks["on_exception"]:
                hook(self, error)
            raise
        finally:
            signals.leaving = True
            signals.release()
            self.is_running = False
            self.train_dataloader, self.val_dataloader = loaders
            self.train_batches.take_back()  # where nothing was trained
            self._flush_board()

    def _run_epoch(self) -> None:
        self.is_left, self.only_validates = False, self.phase != "training"
        self.call("on_epoch_start")
        self.fit_epoch()
        if not self.is_left:
            self.end_training()
            if self.random_before_validation is not None:  # a loop of the user's has left it early
                self.end_validation()
            self._end_epoch()

    def _run_epoch_alone(self) -> None:
        """An epoch for a `fit` of the user's, which has prepared data and model and made ``optim``.

        It counts the epochs itself, from 0, with which a run begins.
        """
        epoch, optimizer = self.epoch, getattr(self, "optim", None)
        if optimizer is None or self.train_dataloader is None:
            raise OptionError(
                "Trainer.fit_epoch: there is no run; call fit, or in a fit of your own first "
                "prepare_data(data), prepare_model(model) and set optim"
            )
        if epoch == 0:
            self._reset()
            self._take_batches()
            self._begin(self.model, None)
            self.optim = optimizer
            self.optimizers = [optimizer]
        self.is_running = True
        try:
            self._run_epoch()
        finally:
            self.is_running = False
            self.epoch = epoch
            self._flush_board()

    def _reset(self) -> None:
        self.reset()
        self._hooks = {name: hooks_named(name, self.callbacks) for name in HOOKS}

    def fit_epoch(self) -> None:
        """One epoch: the training batches, then the validation batches.

        A subclass may put a loop of its own in its place. It goes through ``train_dataloader`` and
        ``val_dataloader`` (None where there is none), which see to everything beside the loop; what
        its steps plot or log becomes the history.
        """
        if not self.is_running:
            self._run_epoch_alone()
            return
        model, stopping, share = self.model.train(), self.stopping, self.accumulate_grad_batches
        hooks = self._hooks["on_batch_end"]
        own_batches = is_replaced(self, _PREPARE_BATCH)
        for batch in self.train_batches if self.phase == "training" else ():
            if self.batch % share == 0:
                self.zero_grad()
            self.batch += 1
            batch = self.prepare_batch(batch)
            if own_batches:
                self.batch_size = size_of_batch(batch)
            loss = model.training_step(batch)
            if loss is not self.noted_loss or loss is None:
                self.note_loss(loss)
            self.noted_loss = None
            (loss if share == 1 else loss / self.batches_in_step).backward()
            if self.batch % share == 0:
                self._end_step()
            self.train_batch_idx += 1
            for hook in hooks:
                hook(self)
            if time.monotonic() >= stopping.next_look and self.look_around():
                self.is_left = True
                return
        self._end_batches()
        self._validate()

    def _end_batches(self) -> None:
        """After the last training batch: the update that waited for more of them."""
        if self.phase == "training" and not self.batch:
            raise self.train_batches.empty()
        if self.is_accumulating:
            self._end_step()
        self.end_training()

    def _end_step(self) -> None:
        """Update by the mean over the batches that came, which may be fewer than was thought."""
        share = self.accumulate_grad_batches
        came, thought = self.batch - (self.batch - 1) // share * share, self.batches_in_step
        if came != thought:
            with no_grad():
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        parameter.grad *= thought / came
        self.optimizer_step()

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

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def optimizer_step(self) -> None:
        """Clip the gradients, update the parameters, and step the schedules that count steps."""
        if self.gradient_clip_val:
            self.clip_gradients(self.gradient_clip_val, self.model)
        for optimizer in self.optimizers:
            if isinstance(optimizer, Optimizer):
                optimizer.step()
            else:  # a class of the user's, which may write `param -= lr * param.grad`
                with no_grad():
                    optimizer.step()
        self.count_step()

    def count_step(self) -> None:
        """Count an update of the parameters, for ``max_steps`` and for the schedules."""
        self.step += 1
        if self.step == self.max_steps:
            self.stopping.next_look = 0.0
        for schedule in self.schedules:
            if schedule.interval == "step":
                schedule.scheduler.step()

    def begin_batch(self, batch: Any) -> None:
        """Before a training batch of a `fit_epoch` of the user's."""
        self.open_batch = self.step, self.train_batch_idx
        self.batch += 1
        self.batch_size = size_of_batch(batch)

    def end_batch(self) -> None:
        """After a training batch of a `fit_epoch` of the user's, if it is in one."""
        if self.open_batch is None:
            return
        (step, batches), self.open_batch = self.open_batch, None
        self.noted_loss = None
        self.train_batch_idx = batches + 1  # the notes' loop counts it itself
        if self.step == step:  # it stepped the optimizers itself
            self.count_step()
        self.call("on_batch_end")

    def clip_gradients(self, grad_clip_val: float, model: Module) -> None:
        """Scale the gradients so that their norm, as one vector, is at most ``grad_clip_val``."""
        clip_grad_norm_(model.parameters(), grad_clip_val)

    def end_training(self) -> None:
        """After the training batches of an epoch: what is left of them is done."""
        if self.phase != "training":  # it is done, or the run was resumed after it
            return
        self.end_batch()  # where a loop of the user's has left it by `break`
        self.train_batches.finish_epoch()
        self.read_metrics(end_row=True)
        self.phase = "validating"

    def _validate(self) -> None:
        """Validate where it is due; the epoch is left where Ctrl-C came before its end."""
        if not self.begin_validation():
            return
        if validate(self, self.val_batches, lambda: self.interrupted):  # type: ignore[arg-type]
            self.end_validation()
        else:
            self.is_left = True

    def begin_validation(self) -> bool:
        """Whether validation is due; if so, everything is made ready for it."""
        due = (self.epoch + 1) % self.check_val_every_n_epoch == 0
        self.skipped_validation = self.val_batches is not None and not due
        self.val_metrics = Metrics()
        if self.val_batches is None or not due:
            return False
        self.random_before_validation = random_state()
        self.call("on_validation_start")
        return True

    def end_validation(self) -> None:
        """After the last validation batch."""
        self.random_before_validation = None
        self.draw(self.val_metrics.read())
        self.metrics.update(self.val_metrics.means())
        self.call("on_validation_end")

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
        self.call("on_epoch_end")
        if self.num_train_batches is None or self.num_val_batches is None:
            self._flush_board()  # the means of an epoch whose length nobody knew
        self.epoch, self.batch, self.phase = self.epoch + 1, 0, "training"
        self.begin_metrics()

    def _flush_board(self) -> None:
        """Complete the curves on the board. A run is not lost for a picture."""
        try:
            # Something is there to read where an error has ended the run.
            self.draw(self.train_metrics.read(), end=True)
            if self.model.board is not None:
                self.model.board.flush()
        except Exception as error:
            warn(f"Trainer.fit: the board is not drawn: {error}")

    def call(self, name: str) -> None:
        """Call the method ``name`` of all callbacks."""
        for hook in self._hooks[name]:
            hook(self)

    def look_around(self) -> bool:
        """Read the metrics, show them, look at the clock; return whether to leave the epoch.

        What would take time at every step, or make it wait for the device, is done here, a few
        times a second, and when the run has to stop.
        """
        self.stopping.next_look = time.monotonic() + _LOOK_INTERVAL
        self.read_metrics()
        self.call("on_progress")
        if not self.stopping.check(self.step):
            return False
        self.stopping.next_look = 0.0
        # Never within a step; and an epoch whose last batch is done is brought to its end.
        return not self.is_accumulating and self.batch != self.num_train_batches

    # -------------------------------------------------------------------------- model and data

    def prepare_data(self, data: Any, val: Any = None) -> None:
        """Take the loaders of a `DataModule`, or one or two loaders as they are."""
        data = as_data_module(data, val)
        self.train_dataloader = read_loader(data, "train_dataloader")
        self.val_dataloader = read_loader(data, "val_dataloader")
        # For loops of the user's alone; the options may take fewer.
        val = self.val_dataloader
        self.num_train_batches = length_of(self.train_dataloader)
        self.num_val_batches = 0 if val is None else length_of(val)

    def _take_batches(self) -> None:
        """As many batches of the loaders as the options say."""
        train, val = self.train_dataloader, self.val_dataloader
        if self.overfit_batches:
            train = list(Batches(train, self.overfit_batches, "training"))
            val = None if val is None else train
        self.train_batches = Batches(train, self.limit_train_batches, "training")
        self.val_batches = None
        if val is not None and self.limit_val_batches != 0:
            self.val_batches = Batches(val, self.limit_val_batches, "validation")
        self.num_train_batches = self.train_batches.size
        self.num_val_batches = 0 if self.val_batches is None else self.val_batches.size

    def prepare_model(self, model: Module) -> None:
        """Move the model to where it is trained, and give its board the length of the run."""
        self._place_model(model)
        set_board_limits(model, self.max_epochs)

    def _begin(self, model: Module, state: dict[str, Any] | None) -> None:
        """Settle lazy layers, make the optimizers, clear the board; go on from ``state``."""
        self._place_model(model)  # a prepare_model of the user's may not have heard of all options
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
        self.optim = self.optimizers[0]
        if state is not None or checkpoint_writer(self) is not None:
            require_states(self.optimizers)
        if state is not None:
            set_state(self, state)
        elif model.board is not None:
            model.board.clear()

    def _place_model(self, model: Module) -> None:
        require_module(model)
        device = self._fit_device or self.device or next(iter(self.gpus), None)
        if device is not None or self.dtype is not None:
            model.to(device=device, dtype=self.dtype)
        first = next(iter(model.parameters()), None)
        self.model_device = device or (cpu if first is None else first.device)
        self.model, model.trainer = model, self

    def validate(self, model: Module, data: Any) -> Row:
        """The metrics of ``model`` on validation data: a `DataModule`, or a loader."""
        if hasattr(data, "val_dataloader"):
            data = read_loader(data, "val_dataloader")
        batches = Batches(data, self.limit_val_batches, "validation")
        with _Visit(self, model):
            self.is_running, self.phase, self.val_metrics = True, "validating", Metrics()
            validate(self, batches)
            self.val_metrics.read()
            return self.val_metrics.means()

    def predict(self, model: Module, data: Any) -> Any:
        """The predictions of ``model`` for all batches, in one tensor where they are tensors."""
        if hasattr(data, "predict_dataloader"):
            data = read_loader(data, "predict_dataloader")
        batches = Batches(data, None, "prediction")
        with _Visit(self, model):
            return predict(self, batches)


class _Visit(Restoring):
    """A Trainer works with a model beside the run that may be under way, its own or another's."""

    def __init__(self, trainer: Trainer, model: Module) -> None:
        self.trainer, self.model = trainer, model

    def _change(self, before: list[Any]) -> None:
        trainer, model = self.trainer, self.model
        require_module(model)
        names = ["is_running", "phase", "val_metrics", "val_batch_idx", "batch_size", "noted_loss"]
        if trainer.is_running:
            names += ["model", "model_device"]
        is_fitted = getattr(model.trainer, "is_running", False)  # by this Trainer, or by another
        of_model = {"_trainer": model._trainer} if is_fitted else {}
        before.append(({name: getattr(trainer, name) for name in names}, of_model))
        trainer._place_model(model)

    def _restored(self, before: list[Any]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            if before:
                of_trainer, of_model = self.trainer.__dict__, self.model.__dict__
                of_trainer |= before[0][0]
                of_model |= before[0][1]


# As they stand here, whatever is put on the class in their place later.
_FIT, _PREPARE_BATCH = Trainer.fit, Trainer.prepare_batch


def _number_of_batches(fast_dev_run: Any) -> int:
    return 1 if fast_dev_run is True else require_integer("Trainer", "fast_dev_run", fast_dev_run)


def _check_norm(value: Any) -> None:
    is_number = is_integer(value) or isinstance(value, float)
    if not (is_number and value >= 0):
        expected = "gradient_clip_val to be a number of 0 or more"
        raise OptionError(message("Trainer", expected=expected, got=repr(value)))


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _bar_or_board() -> ProgressBar:
    bar = ProgressBar()
    bar.gives_way = True
    return bar
