"""`Module`: a model that knows its loss, its steps and its optimizer."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlab import nn
from gradlab.errors import OptionError, message
from gradlab.nn.parameter import UninitializedParameter
from gradlab.optim import Optimizer
from gradlab.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from gradlab.tensor import Tensor

if TYPE_CHECKING:
    from gradlab.training.trainer import Trainer


class Module(nn.Module):
    """A `gradlab.nn.Module` that a `Trainer` can fit.

    A subclass defines at least `loss` and `configure_optimizers`, and either `forward` or an
    attribute ``net``, the network that `forward` then calls. A batch is a tuple whose last entry
    is the target; override `training_step` and `validation_step` where that does not fit.

    >>> import gradlab as gl
    >>> class Line(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = gl.nn.Linear(2, 1)
    ...     def loss(self, y_hat, y):
    ...         return ((y_hat - y) ** 2).mean()
    ...     def configure_optimizers(self):
    ...         return gl.optim.SGD(self.parameters(), lr=0.1)
    >>> X, y = gl.ones(8, 2), gl.zeros(8, 1)
    >>> Line().training_step((X, y)).shape
    ()
    """

    _trainer: weakref.ref[Trainer] | None = None

    @property
    def trainer(self) -> Trainer | None:
        """The Trainer that fits this model now or fitted it last; None before."""
        return None if self._trainer is None else self._trainer()

    @trainer.setter
    def trainer(self, trainer: Trainer) -> None:
        # Weak: a copy of the model, or its pickle, must not take the Trainer and its data along.
        object.__setattr__(self, "_trainer", weakref.ref(trainer))

    def forward(self, *inputs: Any) -> Any:
        """The prediction for the inputs of a batch: ``self.net(*inputs)``."""
        net = getattr(self, "net", None)
        if net is None:
            raise _undefined(self, "forward", "a forward, or an attribute `net`")
        return net(*inputs)

    def loss(self, y_hat: Any, y: Any) -> Any:
        """The loss, a tensor of one element, of predictions ``y_hat`` for targets ``y``."""
        raise _undefined(self, "loss", "a loss, for example `return F.cross_entropy(y_hat, y)`")

    def training_step(self, batch: Any) -> Any:
        """The loss of one training batch, of which the gradient is then taken.

        The Trainer logs it as ``train_loss``.
        """
        *inputs, y = batch
        return self.loss(self(*inputs), y)

    def validation_step(self, batch: Any) -> Any:
        """What one validation batch is judged by: its loss, logged as ``val_loss``.

        Log anything else, such as an accuracy, with `log`.
        """
        *inputs, y = batch
        return self.loss(self(*inputs), y)

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
        `ReduceLROnPlateau` watches.
        """
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
        """`log` under the name ``train_<key>`` or ``val_<key>``."""
        self.log(f"{'train' if train else 'val'}_{key}", value)


def _undefined(model: Module, method: str, what: str) -> OptionError:
    name = type(model).__name__
    return OptionError(f"{name}.{method}: {name} does not define it; give the class {what}")


def require_module(model: Any) -> None:
    """Refuse what a Trainer cannot train."""
    if not isinstance(model, Module):
        hint = "derive it from gradlab.training.Module and define loss and configure_optimizers"
        got = type(model).__name__
        raise OptionError(message("Trainer", expected="a training.Module", got=got, hint=hint))


def require_validation(model: Module) -> None:
    """Refuse a model that cannot validate: without a validation_step, and without its parts."""
    own_step = getattr(model.validation_step, "__func__", None) is not Module.validation_step
    own_loss = getattr(model.loss, "__func__", None) is not Module.loss
    if not (own_step or own_loss):
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


def read_optimizers(model: Any) -> tuple[list[Optimizer], list[Schedule]]:
    """What ``model.configure_optimizers()`` returned, sorted into optimizers and schedules."""
    configured = model.configure_optimizers()
    optimizers: list[Optimizer] = []
    schedules: list[Schedule] = []
    for entry in configured if isinstance(configured, list) else [configured]:
        optimizer, schedule = _read_entry(model, entry)
        optimizers.append(optimizer)
        schedules += schedule
    if not optimizers:
        raise _not_an_optimizer(model, configured)
    return optimizers, schedules


def _read_entry(model: Any, entry: Any) -> tuple[Optimizer, list[Schedule]]:
    if isinstance(entry, Optimizer):
        return entry, []
    found = entry
    if isinstance(entry, tuple) and len(entry) == 2:
        found = {"optimizer": entry[0], "scheduler": entry[1]}
    if not isinstance(found, dict) or not isinstance(found.get("optimizer"), Optimizer):
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
