"""`Module`: a model that knows its loss, its steps and its optimizer."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Generator
from itertools import repeat
from operator import setitem
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlab import nn
from gradlab.autograd.modes import mode
from gradlab.contexts import Restoring
from gradlab.errors import OptionError, message
from gradlab.nn.parameter import UninitializedParameter
from gradlab.optim import SGD, Optimizer
from gradlab.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from gradlab.tensor import Tensor
from gradlab.training.hyperparameters import HyperParameters, is_replaced
from gradlab.viz.board import ProgressBoard

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


class Module(nn.Module, HyperParameters):
    """A `gradlab.nn.Module` that a `Trainer` can fit.

    A subclass defines at least `loss`, either `forward` or an attribute ``net``, the network that
    `forward` then calls, and `configure_optimizers` or an attribute ``lr``, the learning rate of
    the SGD it then makes. A batch is a tuple whose last entry is the target; override
    `training_step` and `validation_step` where that does not fit.

    A leaf tensor with ``requires_grad=True`` that is assigned to an attribute becomes a parameter,
    as an `nn.Parameter` does, and stays the same object.

    Parameters
    ----------
    plot_train_per_epoch, plot_valid_per_epoch: how many points a curve on the ``board``, a
        `gradlab.viz.ProgressBoard`, gets per epoch, each the mean of as many batches; 0 for none.

    >>> import gradlab as gl
    >>> class Line(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net, self.lr = gl.nn.Linear(2, 1), 0.1
    ...     def loss(self, y_hat, y):
    ...         return ((y_hat - y) ** 2).mean()
    >>> X, y = gl.ones(8, 2), gl.zeros(8, 1)
    >>> Line().training_step((X, y)).shape
    ()
    """

    board: Any  # a ProgressBoard, or None for no curves
    _trainer: weakref.ref[Trainer] | None = None
    _board_limits: list[int] | None = None  # what a Trainer gave the board

    def __init__(self, plot_train_per_epoch: float = 2, plot_valid_per_epoch: float = 1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.board = ProgressBoard("epoch")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        held = own.get(name) if name in own.get("_parameter_names", ()) else None
        if _is_learned(value) and name not in own.get("_buffer_names", ()):
            self._register("_parameter_names", name, value, replace=True)
            return
        if held.__class__ is Tensor and not isinstance(value, nn.Parameter):
            self._forget(name)  # it became a parameter by assignment, and ceases to be one so
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle of the model leaves the Trainer, and its data, behind."""
        return {name: value for name, value in self.__dict__.items() if name != "_trainer"}

    @property
    def trainer(self) -> Trainer | None:
        """The Trainer that fits this model now or fitted it last; None before."""
        return None if self._trainer is None else self._trainer()

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        # Weak: the Trainer has the model, and a model that outlives it needs none of its data.
        kept = None if trainer is None else weakref.ref(trainer)
        object.__setattr__(self, "_trainer", kept)

    def forward(self, *inputs: Any) -> Any:
        """The prediction for the inputs of a batch: ``self.net(*inputs)``."""
        net = getattr(self, "net", None)
        if net is None:
            raise _undefined(self, "forward", "a forward, or an attribute `net`")
        return net(*inputs)

    def apply_init(self, inputs: Any, init: Callable[[nn.Module], Any] | None = None) -> None:
        """Settle the lazy layers by one forward pass, then call ``init`` on each layer.

        ``inputs`` is what `forward` takes, as a list or tuple. The pass runs as in evaluation: no
        gradients, no dropout, no statistics.

        >>> import gradlab as gl
        >>> class Line(Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = gl.nn.LazyLinear(1)
        >>> model = Line()
        >>> def ones(layer):
        ...     gl.nn.init.ones_(layer.weight)
        >>> model.apply_init([gl.zeros(1, 3)], ones)
        >>> model.net.weight.tolist()
        [[1.0, 1.0, 1.0]]
        """
        with evaluation(self):
            self(*inputs)
        if init is not None:
            getattr(self, "net", self).apply(init)

    def loss(self, y_hat: Any, y: Any) -> Any:
        """The loss, a tensor of one element, of predictions ``y_hat`` for targets ``y``."""
        raise _undefined(self, "loss", "a loss, for example `return F.cross_entropy(y_hat, y)`")

    def training_step(self, batch: Any) -> Any:
        """The loss of one training batch, of which the gradient is then taken; plots it."""
        *inputs, y = batch
        loss = self.loss(self(*inputs), y)
        self.plot("loss", loss, train=True)
        return loss

    def validation_step(self, batch: Any) -> Any:
        """What one validation batch is judged by: its loss, plotted and returned.

        An override may log or plot anything else, such as an accuracy. A tensor of one element that
        it returns is noted as ``val_loss``, unless it has noted a ``val_loss`` itself.
        """
        *inputs, y = batch
        loss = self.loss(self(*inputs), y)
        self.plot("loss", loss, train=False)
        return loss

    def predict_step(self, batch: Any) -> Any:
        """The prediction for one batch: of all but its last entry, if it has several."""
        if not isinstance(batch, tuple | list):
            return self(batch)
        return self(*(batch[:-1] if len(batch) > 1 else batch))

    def configure_optimizers(self) -> Any:
        """The optimizer, or how several optimizers and learning-rate schedules work together.

        One of: an optimizer; a pair ``(optimizer, scheduler)``, the scheduler stepping once per
        epoch; a dict ``{"optimizer": …, "scheduler": …, "interval": "epoch" or "step",
        "monitor": "val_loss"}`` of which all but the first may be left out; or a list of these,
        whose optimizers all step after each backward pass. ``monitor`` names the metric that a
        `ReduceLROnPlateau` watches. An optimizer is any object with ``step()``, which is called
        with no gradients recorded, and ``zero_grad()``.

        By default it is SGD with the learning rate ``self.lr``.
        """
        if "lr" in self.__dict__ or hasattr(type(self), "lr"):
            return SGD(self.parameters(), lr=self.lr)
        hint = "an optimizer, for example `return optim.SGD(self.parameters(), lr=0.1)`"
        raise _undefined(self, "configure_optimizers", hint)

    def log(self, name: str, value: Any, *, last: bool = False) -> None:
        """Note a metric of the current batch, a number or a tensor of one element.

        The history holds the mean over the batches, each weighted by its size; with ``last`` the
        latest value instead. Costs no synchronisation with the device. Without a Trainer at work
        it does nothing, so that the same module serves a loop written by hand.
        """
        trainer = self.trainer
        if trainer is not None:
            trainer.log(name, value, last=last)

    def plot(self, key: str, value: Any, train: bool) -> None:
        """`log` under the name ``train_<key>`` or ``val_<key>``, and draw on the ``board``.

        Training values are drawn at the part of the run that is done, in epochs, as often as
        ``plot_train_per_epoch`` says; validation values at the end of their epoch. Where the number
        of batches is not known, a curve gets one point per epoch.
        """
        # At every step of nearly every run, so without the property.
        trainer: Any = None if self._trainer is None else self._trainer()
        if trainer is None:
            return
        label = f"train_{key}" if train else f"val_{key}"
        plot = getattr(trainer, "plot", None)
        if plot is not None:
            plot(label, value)
        else:
            self.draw(trainer, label, value)

    def draw(self, trainer: Any, label: str, value: Any) -> None:
        """Draw a value on the ``board``, where the run of a trainer of the user's is.

        Taken of the trainer are ``epoch``, ``train_batch_idx``, ``num_train_batches`` and
        ``num_val_batches``.
        """
        train = label.startswith("train_")
        batches = trainer.num_train_batches if train else trainer.num_val_batches
        x = trainer.train_batch_idx / batches if train else trainer.epoch + 1
        every_n = batches_per_point(self, label, batches)
        if every_n:
            self.board.draw(x, value, label, every_n)


def batches_per_point(model: Module, label: str, batches: int | None) -> int:
    """Of how many batches a point of a curve is the mean, in epochs of ``batches``; 0 for none."""
    train = label.startswith("train_")
    per_epoch = model.plot_train_per_epoch if train else model.plot_valid_per_epoch
    if model.board is None or not per_epoch:
        return 0
    # Without a known number, the Trainer completes the mean at the end of the epoch.
    return max(1, int(batches / per_epoch)) if batches else sys.maxsize


def _is_learned(value: Any) -> bool:
    """Whether a value is a tensor, not a Parameter, that gradients are collected for."""
    return value.__class__ is Tensor and value.requires_grad and value.is_leaf


class evaluation(Restoring):
    """The model in evaluation mode, with nothing recorded for gradients; afterwards each of its
    modules is in the mode it was in."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def _change(self, before: list[Any]) -> None:
        modules = [vars(module) for module in self.model.modules()]
        flags = [module["training"] for module in modules]
        put_back = map(setitem, modules, repeat("training"), flags)
        before.append((mode.grad, mode.inference, put_back))
        self.model.eval()
        mode.grad = False

    def _restored(self, before: list[Any]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            if before:
                mode.grad, mode.inference, put_back = before[0]
                _ = [*put_back]  # where a loop or a call would look for signals


def _undefined(model: Module, method: str, what: str) -> OptionError:
    name = type(model).__name__
    return OptionError(f"{name}.{method}: {name} does not define it; give the class {what}")


def set_board_limits(model: Module, max_epochs: int | None) -> None:
    """Let the board show a run of so many epochs, unless the user has set its limits."""
    board = model.board
    if board is not None and (board.xlim is None or board.xlim is model._board_limits):
        board.xlim = model._board_limits = [0, max_epochs] if max_epochs else None


# As they stand here, whatever is put on the class in their place later.
_VALIDATION_STEP, _LOSS = Module.validation_step, Module.loss


def require_module(model: Any) -> None:
    """Refuse what a Trainer cannot train."""
    if not isinstance(model, Module):
        hint = "derive it from gradlab.training.Module and define loss and configure_optimizers"
        got = type(model).__name__
        raise OptionError(message("Trainer", expected="a training.Module", got=got, hint=hint))


def require_validation(model: Module) -> None:
    """Refuse a model that cannot validate: without a validation_step, and without its parts."""
    if not (is_replaced(model, _VALIDATION_STEP) or is_replaced(model, _LOSS)):
        raise _undefined(
            model,
            "validation_step",
            "validation_step(self, batch), which returns the loss of a validation batch, or "
            "loss(self, y_hat, y); or fit it without validation data",
        )


def is_lazy(model: Module) -> bool:
    """Whether the model has layers that take their shape from the first batch."""
    return any(isinstance(each, UninitializedParameter) for each in model.parameters())


def not_a_loss(model: Module, got: Any) -> OptionError:
    """The error for what ``training_step`` returned in place of a loss."""
    form = f"a tensor of shape {got.shape}" if isinstance(got, Tensor) else type(got).__name__
    return OptionError(
        message(
            f"{type(model).__name__}.training_step",
            expected="it to return the loss, a tensor of one element",
            got="None" if got is None else form,
            hint="reduce it, for example with .mean()" if isinstance(got, Tensor) else "",
        )
    )


# --------------------------------------------------------------------------------- optimizers


class Schedule(NamedTuple):
    """A scheduler and when it steps."""

    scheduler: LRScheduler
    interval: str = "epoch"
    monitor: str = "val_loss"

    @property
    def plateau(self) -> ReduceLROnPlateau | None:
        """The scheduler, if it is one that steps by a metric."""
        return self.scheduler if isinstance(self.scheduler, ReduceLROnPlateau) else None


def is_optimizer(value: Any) -> bool:
    """Whether a value can step and forget its gradients, a class of the user's included."""
    if isinstance(value, Optimizer | type):
        return isinstance(value, Optimizer)
    return callable(getattr(value, "step", None)) and callable(getattr(value, "zero_grad", None))


def read_optimizers(model: Any) -> tuple[list[Any], list[Schedule]]:
    """What ``model.configure_optimizers()`` returned, sorted into optimizers and schedules."""
    configured = model.configure_optimizers()
    optimizers: list[Any] = []
    schedules: list[Schedule] = []
    for entry in configured if isinstance(configured, list) else [configured]:
        optimizer, schedule = _read_entry(model, entry)
        optimizers.append(optimizer)
        schedules += schedule
    if not optimizers:
        raise _not_an_optimizer(model, configured)
    return optimizers, schedules


def _read_entry(model: Any, entry: Any) -> tuple[Any, list[Schedule]]:
    if is_optimizer(entry):
        return entry, []
    found = entry
    if isinstance(entry, tuple) and len(entry) == 2:
        found = {"optimizer": entry[0], "scheduler": entry[1]}
    if not isinstance(found, dict) or not is_optimizer(found.get("optimizer")):
        raise _not_an_optimizer(model, entry)
    _check_keys(model, found)
    scheduler = found.get("scheduler", found.get("lr_scheduler"))
    if scheduler is None:
        return found["optimizer"], []
    if not isinstance(scheduler, LRScheduler):
        raise _not_an_optimizer(model, entry)
    schedule = Schedule(scheduler, found.get("interval", "epoch"), found.get("monitor", "val_loss"))
    if schedule.plateau is not None and schedule.interval == "step":
        raise OptionError(
            f"{type(model).__name__}.configure_optimizers: ReduceLROnPlateau steps once per epoch, "
            "when its metric is known; leave interval out"
        )
    return found["optimizer"], [schedule]


def _check_keys(model: Any, entry: dict[str, Any]) -> None:
    unknown = set(entry) - {"optimizer", "scheduler", "lr_scheduler", "interval", "monitor"}
    interval = entry.get("interval", "epoch")
    if unknown or interval not in ("epoch", "step"):
        raise OptionError(
            message(
                f"{type(model).__name__}.configure_optimizers",
                expected="the keys optimizer, scheduler, interval ('epoch' or 'step') and monitor",
                got=", ".join(sorted(unknown)) or f"interval {interval!r}",
            )
        )


def _not_an_optimizer(model: Any, got: Any) -> OptionError:
    def name(each: Any) -> str:
        if isinstance(each, tuple | list):
            return f"({', '.join(map(name, each))})"
        return "None" if each is None else type(each).__name__

    return OptionError(
        message(
            f"{type(model).__name__}.configure_optimizers",
            expected="an optimizer, (optimizer, scheduler), a dict with these, or a list of such",
            got=name(got),
            hint="" if got is not None else "does it lack a return?",
        )
    )
