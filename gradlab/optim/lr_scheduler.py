"""Learning-rate schedules: step, exponential, cosine, warm-up, and waiting on a plateau.

Each computes the rate of every group from its initial rate and the number of ``step()`` calls,
so a schedule can be resumed from that number alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from gradlab.errors import OptionError, StateError, message
from gradlab.optim.optimizer import Optimizer


class LRScheduler:
    """Base class: subclasses write ``_rate(initial_lr, epoch)``.

    Call ``step()`` once per epoch (or per batch, if the schedule counts batches), after the
    optimizer's own step.
    """

    _keeps: tuple[str, ...] = ()

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise OptionError(
                message(type(self).__name__, expected="an optimizer", got=type(optimizer).__name__)
            )
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def step(self) -> None:
        """Count one more epoch and set the groups' rates."""
        self.last_epoch += 1
        self._set()

    def _set(self) -> None:
        pairs = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        for number, (group, base) in enumerate(pairs):
            group["lr"] = self._rate(base, self.last_epoch, number)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The rates in use, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers from which `load_state_dict` goes on."""
        kept = {name: getattr(self, name) for name in self._keeps}
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), **kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; the rates themselves are the optimizer's to restore."""
        name = type(self).__name__
        missing = {"last_epoch", "base_lrs", *self._keeps} - set(state_dict)
        if missing:
            raise StateError(f"{name}.load_state_dict: missing {', '.join(sorted(missing))}")
        for key in ("last_epoch", "base_lrs", *self._keeps):
            setattr(self, key, state_dict[key])


class LambdaLR(LRScheduler):
    """The initial rate times ``lr_lambda(epoch)``; one function, or one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise OptionError(
                message("LambdaLR", expected=f"{count} functions, one per group",
                        got=str(len(self.lr_lambdas)))
            )  # fmt: skip
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.lr_lambdas[group](epoch)


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise OptionError(
                message("StepLR", expected="step_size of 1 or more", got=str(step_size))
            )
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the epochs in ``milestones``."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma**epoch


class ConstantLR(LRScheduler):
    """The rate times ``factor`` for the first ``total_iters`` epochs, then the initial rate."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        return base * (self.factor if epoch < self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """Linear warm-up: the rate's factor goes from ``start_factor`` to ``end_factor`` evenly over
    ``total_iters`` epochs, and stays there."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise OptionError(
                message(
                    "LinearLR",
                    expected="start_factor in (0, 1] and end_factor in [0, 1]",
                    got=f"{start_factor} and {end_factor}",
                )
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to ``eta_min`` over ``T_max`` epochs [1]_.

    .. [1] Loshchilov and Hutter, https://arxiv.org/abs/1608.03983
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if T_max < 1:
            raise OptionError(
                message("CosineAnnealingLR", expected="T_max of 1 or more", got=str(T_max))
            )
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        wave = 1 + math.cos(math.pi * epoch / self.T_max)
        return self.eta_min + (base - self.eta_min) * wave / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """`CosineAnnealingLR` that starts again after ``T_0`` epochs, each time ``T_mult`` longer."""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if T_0 < 1 or T_mult < 1:
            raise OptionError(
                message("CosineAnnealingWarmRestarts", expected="T_0 and T_mult of 1 or more",
                        got=f"{T_0} and {T_mult}")
            )  # fmt: skip
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        length, within = self.T_0, epoch
        while within >= length:
            within -= length
            length *= self.T_mult
        wave = 1 + math.cos(math.pi * within / length)
        return self.eta_min + (base - self.eta_min) * wave / 2


class WarmupCosineLR(LRScheduler):
    """Linear warm-up over ``warmup`` steps, then half a cosine to ``eta_min`` at ``total``."""

    def __init__(
        self, optimizer: Optimizer, warmup: int, total: int, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 <= warmup < total:
            raise OptionError(
                message("WarmupCosineLR", expected="0 <= warmup < total",
                        got=f"{warmup} and {total}")
            )  # fmt: skip
        self.warmup, self.total, self.eta_min = warmup, total, eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        if epoch < self.warmup:
            return base * (epoch + 1) / self.warmup
        done = min(1.0, (epoch - self.warmup) / (self.total - self.warmup))
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * done)) / 2


class SequentialLR(LRScheduler):
    """One schedule after another, changing over at each of the ``milestones``."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise OptionError(
                message(
                    "SequentialLR",
                    expected=f"{len(schedulers) - 1} milestones for {len(schedulers)} schedulers",
                    got=str(len(milestones)),
                )
            )
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: int, group: int) -> float:
        which = bisect_right(self.milestones, epoch)
        start = self.milestones[which - 1] if which else 0
        return self.schedulers[which]._rate(base, epoch - start, group)


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a metric has not improved for ``patience`` epochs.

    Call ``step(metric)``. ``mode="min"``: smaller is better. An improvement must exceed
    ``threshold``, relative (``threshold_mode="rel"``) or absolute. After a cut, ``cooldown``
    epochs pass without counting.
    """

    _keeps = ("best", "bad_epochs", "cooling")

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise OptionError(
                message(
                    "ReduceLROnPlateau",
                    expected="mode 'min' or 'max' and threshold_mode 'rel' or 'abs'",
                    got=f"{mode!r} and {threshold_mode!r}",
                )
            )
        if not 0 <= factor < 1:
            raise OptionError(
                message("ReduceLROnPlateau", expected="a factor below 1", got=str(factor))
            )
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_epochs = self.cooling = 0
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = 0

    def step(self, metric: Any = None) -> None:
        """Count one epoch whose metric (a number or a tensor of one element) was ``metric``."""
        if metric is None:
            raise OptionError("ReduceLROnPlateau.step: expected the metric, got none")
        value = float(metric)
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooling:
            self.cooling -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self._reduce()
            self.cooling, self.bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return sign * value < sign * self.best - self.threshold
        # Relative to the size of the best value; PyTorch's rule turns round below 0.
        margin = 1 - self.threshold if self.mode == "min" else 1 + self.threshold
        return sign * value < sign * self.best * margin

    def _reduce(self) -> None:
        for group in self.optimizer.param_groups:
            rate = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate
