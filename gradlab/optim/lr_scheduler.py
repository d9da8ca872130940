"""Learning-rate schedules: step, exponential, cosine, warm-up, one cycle, waiting on a plateau.

A schedule computes the rate of every group from the group's initial rate and the number of
``step()`` calls, so it can be resumed from that number. What others do to the rate meanwhile (the
user, or a second schedule on the same optimizer) it keeps as a factor wherever PyTorch's schedule
of that name does; `LambdaLR`, `CosineAnnealingWarmRestarts` and `OneCycleLR` set the rate anew.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

from gradlab.arguments import guard_namespace
from gradlab.errors import DTypeError, OptionError, StateError, message
from gradlab.fields import DICT, FINITE, NUMBER, check_fields, shown
from gradlab.optim.optimizer import Optimizer

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineLR",
]


class LRScheduler:
    """Base class: a subclass writes ``_rate(base, epoch, group)``, the rate of one group.

    Or, as for PyTorch, ``get_lr()``, the list of the rates of all groups in epoch
    ``self.last_epoch``; it may look at ``self.base_lrs`` and at the groups' own ``"lr"``.

    Call ``step()`` once per epoch (or per batch, if the schedule is to count batches), after the
    optimizer's own step. ``last_epoch`` is -1 to start, or the number of the last epoch that is
    over: the schedule then goes on with the next, from the ``initial_lr`` of the groups.

    >>> import gradlab as gl
    >>> class Halving(LRScheduler):
    ...     def _rate(self, base, epoch, group):
    ...         return base / 2**epoch
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=0.8)
    >>> scheduler = Halving(optimizer)
    >>> for epoch in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.1]
    """

    # What a change from outside scales: the rate's distance from this. None: it is overwritten.
    _floor: float | None = 0.0

    # Attributes that belong to the state: the options, and what is counted beside epochs.
    _keeps: tuple[str, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What others made of the rate is for get_lr to look at, or not.
        if cls._rate is LRScheduler._rate and "_floor" not in vars(cls):
            cls._floor = None

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        _check_optimizer(name, optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            _require(
                name, "initial_lr" in group,
                f"groups with an initial_lr to go on from epoch {last_epoch}", f"group {number} "
                "without; load the optimizer's state first, or start with last_epoch=-1",
            )  # fmt: skip
        self.optimizer = optimizer
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch: float = last_epoch
        self._factors = [1.0] * len(self.base_lrs)
        # A schedule that starts keeps what others made of the initial rate; one that goes on cannot
        # tell whether the rate in the group is that of the last epoch or of the next.
        self._last_lr = list(self.base_lrs) if last_epoch == -1 else self.get_last_lr()
        self._go_to(last_epoch + 1)

    def __repr__(self) -> str:
        options = ", ".join([*self._parts(), *(f"{k}={getattr(self, k)!r}" for k in self._keeps)])
        rates = ", ".join(f"{rate:.6g}" for rate in self.get_last_lr())
        now = f"epoch {self.last_epoch:g}, lr={rates if len(self.base_lrs) == 1 else f'[{rates}]'}"
        return f"{type(self).__name__}({'; '.join(filter(None, [options, now]))})"

    def _parts(self) -> list[str]:
        """What the schedule is made of beside options, in words for its repr."""
        return []

    def step(self) -> None:
        """Count one more epoch and set the groups' rates."""
        self._go_to(self.last_epoch + 1)

    def _go_to(self, epoch: float) -> None:
        groups = self._groups()
        rates = self._rates(epoch)
        floor = self._floor
        if floor is not None:
            self._factors = self._factors_now()
            rates = [
                rate if factor == 1 else floor + (rate - floor) * factor
                for rate, factor in zip(rates, self._factors, strict=True)
            ]
        self.last_epoch = epoch
        self._set_rates(rates)
        for number in range(len(groups)):
            self._set_momentum(epoch, number)

    def _groups(self) -> list[dict[str, Any]]:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise StateError(
                f"{type(self).__name__}.step: expected {len(self.base_lrs)} parameter groups, as "
                f"when the schedule was made, got {len(groups)}; add groups before making it"
            )
        return groups

    def _rates(self, epoch: float) -> list[float]:
        return [float(self._rate(b, epoch, number)) for number, b in enumerate(self.base_lrs)]

    def _set_rates(self, rates: list[float]) -> None:
        self._last_lr = rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _factors_now(self) -> list[float]:
        """The factors, with what others did to the rates since the last step."""
        floor = self._floor
        if floor is None:
            return self._factors
        return [
            factor if rate in (last, floor) or last == floor
            else factor * (rate - floor) / (last - floor)
            for factor, rate, last in zip(
                self._factors, self.get_last_lr(), self._last_lr, strict=True
            )
        ]  # fmt: skip

    def _rate(self, base: float, epoch: float, group: int) -> float:
        self.last_epoch = epoch
        rates = self.get_lr()
        count = len(self.base_lrs)
        _require(
            f"{type(self).__name__}.get_lr", len(rates) == count, f"{count} rates, one per group",
            len(rates),
        )  # fmt: skip
        return rates[group]

    def get_lr(self) -> list[float]:
        """The rates of epoch ``last_epoch``, one per group, before others changed them.

        `get_last_lr` gives those in use.
        """
        if type(self)._rate is LRScheduler._rate:
            name = type(self).__name__
            raise NotImplementedError(f"{name}: expected a method get_lr, got none; define it")
        return self._rates(self.last_epoch)

    def _set_momentum(self, epoch: float, group: int) -> None:
        """For schedules that move more than the rate."""

    def get_last_lr(self) -> list[float]:
        """The rates in use, one per group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists from which `load_state_dict` goes on."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "factors": list(self._factors_now()),
            "_last_lr": self.get_last_lr(),
            **{key: _plain(getattr(self, key)) for key in self._keeps},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, with its options and its rates.

        Raises `StateError`, and changes nothing, where the state is of another kind of schedule or
        of another number of groups.
        """
        self._check_state(state_dict)
        for key in self._keeps:
            setattr(self, key, _plain(state_dict[key]))
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = list(state_dict.get("base_lrs", self.base_lrs))
        self._factors = list(state_dict.get("factors", [1.0] * len(self.base_lrs)))
        self._set_rates(list(state_dict["_last_lr"]))
        for number in range(len(self.base_lrs)):
            self._set_momentum(self.last_epoch, number)

    def _check_state(self, given: Mapping[str, Any]) -> None:
        name = f"{type(self).__name__}.load_state_dict"
        if not isinstance(given, Mapping):
            raise StateError(f"{name}: expected a state dict, got {type(given).__name__}")
        missing = {"last_epoch", "_last_lr", *self._keeps} - set(given)
        if missing:
            raise StateError(
                f"{name}: expected the state of a {type(self).__name__}, got one without "
                f"{', '.join(sorted(missing))}"
            )
        check_fields(name, given, {"last_epoch": FINITE, "_last_lr": [FINITE]})
        count = len(self.optimizer.param_groups)
        if len(given["_last_lr"]) != count:
            raise StateError(
                f"{name}: expected the rates of {count} groups, got {len(given['_last_lr'])}"
            )
        per_group = {key: (FINITE,) * count for key in ("base_lrs", "factors") if key in given}
        check_fields(name, given, per_group)
        for key in self._keeps:
            own, its = getattr(self, key), _plain(given[key])
            fits = _are_alike(own, its) and not (key in _COUNTS and its < 1)
            if not fits or (key in _PER_GROUP and len(own) != len(its)):
                raise StateError(f"{name}: expected {key} such as {own!r}, got {shown(given[key])}")
        self._check_rates(name, given)

    def _check_rates(self, name: str, given: Mapping[str, Any]) -> None:
        """Refuse options that together leave no rate for this epoch or the next."""
        trial = copy.copy(self)
        for key in self._keeps:
            setattr(trial, key, _plain(given[key]))
        for epoch in (given["last_epoch"], given["last_epoch"] + 1):
            try:
                trial._rates(epoch)
            except ArithmeticError as error:
                raise StateError(
                    f"{name}: expected options of a {type(self).__name__}, got some that give no "
                    f"rate for epoch {epoch:g} ({error})"
                ) from None
            except Exception:  # raised in a user's function, say, and reported at that step
                return


_LRScheduler = LRScheduler  # its name in older programs


# -------------------------------------------------------------------------- options and state


def _check_optimizer(name: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        got = "None" if optimizer is None else type(optimizer).__name__
        raise DTypeError(message(name, expected="an optimizer", got=got))


def _require(name: str, holds: bool, expected: str, got: Any) -> None:
    if not holds:
        raise OptionError(message(name, expected=expected, got=str(got)))


def _at_least(name: str, least: float, **options: Any) -> None:
    """Refuse options that are no numbers of at least ``least``."""
    for option, value in options.items():
        fits = isinstance(value, Real) and float(value) >= least
        _require(name, fits, f"{option} of {least} or more", repr(value))


def _per_group(name: str, option: str, optimizer: Optimizer, value: Any) -> list[float]:
    """An option given once for all groups, or as a list with one for each."""
    count = len(optimizer.param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    _require(name, len(values) == count, f"{count} values of {option}, one per group", len(values))
    return [float(each) for each in values]


# The words that options are made of; one is as good as another of its line.
_WORDS = (
    ("min", "max"), ("rel", "abs"), ("cos", "linear"), ("cycle", "iterations"),
    ("triangular", "triangular2", "exp_range"),
)  # fmt: skip

# Options of 1 or more, which are divided by.
_COUNTS = frozenset(
    {"step_size", "step_size_up", "step_size_down", "T_max", "T_0", "T_mult", "total"}
    | {"total_steps"}
)

# Options with one value for each group.
_PER_GROUP = frozenset({"max_lrs", "min_lrs", "base_momentums", "max_momentums"})


def _are_alike(own: Any, given: Any) -> bool:
    """Whether a saved option can take the place of our own."""
    if isinstance(own, str):
        return own == given or any(own in words and given in words for words in _WORDS)
    if isinstance(own, list):
        one = own[0] if own else 0.0
        return isinstance(given, list) and all(_are_alike(one, each) for each in given)
    if isinstance(own, bool):
        return isinstance(given, bool)
    return not isinstance(own, int | float) or NUMBER.holds(given)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------------------ factors


class LambdaLR(LRScheduler):
    """The initial rate times ``lr_lambda(epoch)``; one function, or one per group.

    Functions are not part of the state: to resume, make the schedule with the same ones.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _floor = None

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = _functions("LambdaLR", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * float(self.lr_lambdas[group](epoch))


class MultiplicativeLR(LRScheduler):
    """The rate times ``lr_lambda(epoch)``, epoch by epoch; one function, or one per group.

    Functions are not part of the state: to resume, make the schedule with the same ones.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = MultiplicativeLR(optimizer, lambda epoch: 0.5)
    >>> scheduler.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = _functions("MultiplicativeLR", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates in use times what the functions say of epoch ``last_epoch``."""
        rates = self.get_last_lr()
        if self.last_epoch == 0:
            return rates
        return [
            rate * float(function(self.last_epoch))
            for rate, function in zip(rates, self.lr_lambdas, strict=True)
        ]


def _functions(name: str, optimizer: Optimizer, given: Any) -> list[Any]:
    """A function given once for all groups, or a list with one for each."""
    _check_optimizer(name, optimizer)
    count = len(optimizer.param_groups)
    functions: list[Any] = [given] * count if callable(given) else list(given)
    _require(name, len(functions) == count, f"{count} functions, one per group", len(functions))
    for function in functions:
        _require(name, callable(function), "functions", type(function).__name__)
    return functions


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` epochs.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    _keeps = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        _at_least("StepLR", 1, step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the epochs in ``milestones``.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    _keeps = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` every epoch.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = ExponentialLR(optimizer, gamma=0.5)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _keeps = ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * self.gamma**epoch


class ConstantLR(LRScheduler):
    """The rate times ``factor`` for the first ``total_iters`` epochs, then the initial rate.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> ConstantLR(optimizer, factor=0.5).get_last_lr()
    [0.5]
    """

    _keeps = ("factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _require("ConstantLR", 0 <= factor <= 1, "a factor in [0, 1]", factor)
        _at_least("ConstantLR", 0, total_iters=total_iters)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * (self.factor if epoch < self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """Linear warm-up: the rate's factor goes from ``start_factor`` to ``end_factor`` evenly over
    ``total_iters`` epochs, and stays there.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.75]
    """

    _keeps = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        _require(
            "LinearLR", 0 < start_factor <= 1 and 0 <= end_factor <= 1,
            "start_factor in (0, 1] and end_factor in [0, 1]", f"{start_factor} and {end_factor}",
        )  # fmt: skip
        _at_least("LinearLR", 0, total_iters=total_iters)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        done = epoch / self.total_iters if epoch < self.total_iters else 1.0
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class PolynomialLR(LRScheduler):
    """The rate falls to 0 over ``total_iters`` epochs, times ``(1 - epoch/total_iters)**power``.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = PolynomialLR(optimizer, total_iters=4, power=2)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5625]
    """

    _keeps = ("total_iters", "power")

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        _at_least("PolynomialLR", 1, total_iters=total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base * (1 - min(epoch, self.total_iters) / self.total_iters) ** self.power


# ------------------------------------------------------------------------------------- cosines


def _half_cosine(start: float, end: float, done: float) -> float:
    """From ``start`` at 0 to ``end`` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to ``eta_min`` over ``T_max`` epochs [1]_.

    After that it rises again, and falls, with the period ``2·T_max``.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = CosineAnnealingLR(optimizer, T_max=2)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]

    .. [1] Loshchilov and Hutter, https://arxiv.org/abs/1608.03983
    """

    _keeps = ("T_max", "eta_min")

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        _at_least("CosineAnnealingLR", 1, T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    @property
    def _floor(self) -> float:  # type: ignore[override]
        return self.eta_min

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return _half_cosine(base, self.eta_min, epoch / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """`CosineAnnealingLR` that starts again after ``T_0`` epochs, each time ``T_mult`` longer [1]_.

    ``step(epoch + batch / batches)`` sets the rate in mid-epoch.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [1.0, 0.5, 1.0, 0.5]

    .. [1] Loshchilov and Hutter, https://arxiv.org/abs/1608.03983
    """

    _floor = None
    _keeps = ("T_0", "T_mult", "eta_min")

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        _at_least("CosineAnnealingWarmRestarts", 1, T_0=T_0, T_mult=T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Go on by one epoch, or to ``epoch``, which may be a fraction."""
        if epoch is None:
            epoch = self.last_epoch + 1
        _at_least("CosineAnnealingWarmRestarts.step", 0, epoch=epoch)
        self._go_to(epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        length, within = self.T_0, epoch
        if self.T_mult == 1:
            within %= length
        while within >= length:
            within -= length
            length *= self.T_mult
        return _half_cosine(base, self.eta_min, within / length)


class WarmupCosineLR(LRScheduler):
    """Linear warm-up over ``warmup`` steps, then half a cosine to ``eta_min`` at ``total``.

    The first step has the rate ``lr/warmup``, not 0, so that it is not wasted.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = WarmupCosineLR(optimizer, warmup=2, total=6)
    >>> rates = []
    >>> for step in range(6):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> [round(rate, 3) for rate in rates]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """

    _keeps = ("warmup", "total", "eta_min")

    def __init__(
        self, optimizer: Optimizer, warmup: int, total: int, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        _require(
            "WarmupCosineLR", 0 <= warmup < total, "0 <= warmup < total", f"{warmup} and {total}"
        )
        self.warmup, self.total, self.eta_min = warmup, total, eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        if epoch < self.warmup:
            return base * (epoch + 1) / self.warmup
        done = (epoch - self.warmup) / (self.total - self.warmup)
        return _half_cosine(base, self.eta_min, min(1.0, done))


class _Phase(NamedTuple):
    end: float  # the step at which it ends
    start_level: str
    end_level: str


class OneCycleLR(LRScheduler):
    """One cycle [1]_: up from ``max_lr/div_factor`` to ``max_lr``, then down to nearly nothing.

    Momentum (``momentum``, or the first of ``betas``) goes the other way, from ``max_momentum`` to
    ``base_momentum`` and back. The schedule counts batches: call ``step()`` after each, no more
    than ``total_steps`` times.

    Parameters
    ----------
    max_lr, base_momentum, max_momentum: one number, or a list with one per group.
    total_steps: or ``epochs`` and ``steps_per_epoch``, whose product it is.
    pct_start: the share of the steps that go up, in [0, 1].
    anneal_strategy: ``"cos"`` or ``"linear"``.
    cycle_momentum: False leaves the momentum alone.
    div_factor, final_div_factor: the first rate is ``max_lr/div_factor``, the last one that,
        divided by ``final_div_factor``.
    three_phase: come down to the first rate as fast as up, and from there to the last.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0, momentum=0.9)
    >>> scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=11, pct_start=0.5)
    >>> rates = []
    >>> for step in range(11):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> [round(rate, 2) for rate in rates[:10:3]]
    [0.04, 0.76, 0.83, 0.08]

    .. [1] Smith and Topin, https://arxiv.org/abs/1708.07120
    """

    _floor = None
    _keeps = (
        "total_steps", "pct_start", "anneal_strategy", "cycle_momentum", "max_lrs",
        "base_momentums", "max_momentums", "final_div_factor", "three_phase",
    )  # fmt: skip

    def __init__(
        self, optimizer: Optimizer, max_lr: float | Sequence[float],
        total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4, three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        name = "OneCycleLR"
        _check_optimizer(name, optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        _require(name, 0 <= pct_start <= 1, "pct_start in [0, 1]", pct_start)
        _require(
            name, anneal_strategy in ("cos", "linear"), "anneal_strategy 'cos' or 'linear'",
            repr(anneal_strategy),
        )  # fmt: skip
        _check_momentum(name, optimizer, cycle_momentum)
        self.pct_start, self.anneal_strategy = pct_start, anneal_strategy
        self.cycle_momentum, self.three_phase = cycle_momentum, three_phase
        self.max_lrs = _per_group(name, "max_lr", optimizer, max_lr)
        self.base_momentums = _per_group(name, "base_momentum", optimizer, base_momentum)
        self.max_momentums = _per_group(name, "max_momentum", optimizer, max_momentum)
        self.final_div_factor = final_div_factor
        if last_epoch == -1:
            for group, highest in zip(optimizer.param_groups, self.max_lrs, strict=True):
                group["initial_lr"] = highest / div_factor
        super().__init__(optimizer, last_epoch)

    def _phases(self) -> list[_Phase]:
        up, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if self.three_phase:
            return [
                _Phase(up, "first", "peak"),
                _Phase(2 * up, "peak", "first"),
                _Phase(last, "first", "last"),
            ]
        return [_Phase(up, "first", "peak"), _Phase(last, "peak", "last")]

    def _between(self, levels: dict[str, float], epoch: float) -> float:
        """The value at ``epoch`` of what runs through the ``levels``."""
        phases = self._phases()
        at = next((i for i, phase in enumerate(phases) if epoch <= phase.end), len(phases) - 1)
        begin = phases[at - 1].end if at else 0.0
        end, start_level, end_level = phases[at]
        done = min(1.0, (epoch - begin) / (end - begin)) if end > begin else 1.0
        start, stop = levels[start_level], levels[end_level]
        if self.anneal_strategy == "linear":
            return start + (stop - start) * done
        return _half_cosine(start, stop, done)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        if epoch > self.total_steps:
            raise OptionError(
                f"OneCycleLR.step: expected at most total_steps={self.total_steps} steps, got "
                f"step {epoch}; the schedule counts batches, so total_steps is epochs times batches"
            )
        last = base / self.final_div_factor
        return self._between({"first": base, "peak": self.max_lrs[group], "last": last}, epoch)

    def _set_momentum(self, epoch: float, group: int) -> None:
        if not self.cycle_momentum:
            return
        highest = self.max_momentums[group]
        levels = {"first": highest, "peak": self.base_momentums[group], "last": highest}
        value = self._between(levels, epoch)
        _write_momentum(self.optimizer.param_groups[group], value)


def _write_momentum(options: dict[str, Any], value: float) -> None:
    if "betas" in options:
        options["betas"] = (value, options["betas"][1])
    else:
        options["momentum"] = value


def _check_momentum(name: str, optimizer: Optimizer, cycle_momentum: bool) -> None:
    can = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    _require(
        name, can or not cycle_momentum, "an optimizer with momentum or betas",
        f"{type(optimizer).__name__}; pass cycle_momentum=False",
    )  # fmt: skip


def _total_steps(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    if total_steps is not None:
        _at_least("OneCycleLR", 1, total_steps=total_steps)
        return int(total_steps)
    _require(
        "OneCycleLR", epochs is not None and steps_per_epoch is not None,
        "total_steps, or epochs and steps_per_epoch", "neither",
    )  # fmt: skip
    _at_least("OneCycleLR", 1, epochs=epochs, steps_per_epoch=steps_per_epoch)
    return int(epochs) * int(steps_per_epoch)


class CyclicLR(LRScheduler):
    """Up from ``base_lr`` to ``max_lr`` and down again, over and over [1]_.

    Momentum (``momentum``, or the first of ``betas``) goes the other way, from ``max_momentum`` to
    ``base_momentum`` and back. The schedule counts batches: call ``step()`` after each.

    Parameters
    ----------
    base_lr, max_lr, base_momentum, max_momentum: one number, or a list with one per group.
    step_size_up, step_size_down: the batches of the way up, and of the way down; by default equal.
    mode: ``"triangular"``; ``"triangular2"`` halves the height after each cycle; ``"exp_range"``
        multiplies it by ``gamma`` after each batch.
    scale_fn, scale_mode: a function in place of ``mode``, which gets the number of the cycle, from
        1 (``"cycle"``), or of the batch (``"iterations"``), and returns the share of the height.
        It is not part of the state.
    cycle_momentum: False leaves the momentum alone.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0, momentum=0.9)
    >>> scheduler = CyclicLR(optimizer, base_lr=0.2, max_lr=1.0, step_size_up=2)
    >>> rates = []
    >>> for step in range(6):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> [round(rate, 2) for rate in rates]
    [0.2, 0.6, 1.0, 0.6, 0.2, 0.6]

    .. [1] Smith, https://arxiv.org/abs/1506.01186
    """

    _floor = None
    _keeps = (
        "max_lrs", "step_size_up", "step_size_down", "mode", "gamma", "scale_mode",
        "cycle_momentum", "base_momentums", "max_momentums",
    )  # fmt: skip

    def __init__(
        self, optimizer: Optimizer, base_lr: float | Sequence[float],
        max_lr: float | Sequence[float], step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
        cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        name = "CyclicLR"
        _check_optimizer(name, optimizer)
        down = step_size_up if step_size_down is None else step_size_down
        _at_least(name, 1, step_size_up=step_size_up, step_size_down=down)
        modes = ("triangular", "triangular2", "exp_range")
        _require(name, scale_fn is not None or mode in modes, f"mode one of {modes}", repr(mode))
        counts = ("cycle", "iterations")
        _require(name, scale_mode in counts, f"scale_mode one of {counts}", repr(scale_mode))
        _check_momentum(name, optimizer, cycle_momentum)
        self.step_size_up, self.step_size_down = step_size_up, down
        self.mode, self.gamma = mode, gamma
        self.scale_fn, self.scale_mode = scale_fn, scale_mode
        self.cycle_momentum = cycle_momentum
        self.max_lrs = _per_group(name, "max_lr", optimizer, max_lr)
        self.base_momentums = _per_group(name, "base_momentum", optimizer, base_momentum)
        self.max_momentums = _per_group(name, "max_momentum", optimizer, max_momentum)
        if last_epoch == -1:
            lowest = _per_group(name, "base_lr", optimizer, base_lr)
            for group, rate in zip(optimizer.param_groups, lowest, strict=True):
                group["initial_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def _height(self, epoch: float) -> float:
        """How far up the cycle is, from 0 to 1, times the share of the height of this cycle."""
        length = self.step_size_up + self.step_size_down
        cycle, within = divmod(epoch, length)
        up = within / self.step_size_up
        height = up if within <= self.step_size_up else (length - within) / self.step_size_down
        return height * self._share(epoch, int(cycle) + 1)

    def _share(self, epoch: float, cycle: int) -> float:
        if self.scale_fn is not None:
            return float(self.scale_fn(cycle if self.scale_mode == "cycle" else epoch))
        if self.mode == "exp_range":
            return self.gamma**epoch
        return 0.5 ** (cycle - 1) if self.mode == "triangular2" else 1.0

    def _rate(self, base: float, epoch: float, group: int) -> float:
        return base + (self.max_lrs[group] - base) * self._height(epoch)

    def _set_momentum(self, epoch: float, group: int) -> None:
        if self.cycle_momentum:
            low, high = self.base_momentums[group], self.max_momentums[group]
            value = high - (high - low) * self._height(epoch)
            _write_momentum(self.optimizer.param_groups[group], value)


# -------------------------------------------------------------------------------- combinations


class _Combined(LRScheduler):
    """Base of the schedules that are made of others."""

    schedulers: list[LRScheduler]

    def _parts(self) -> list[str]:
        return [f"[{', '.join(type(each).__name__ for each in self.schedulers)}]"]

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole and, under ``schedulers``, of its parts."""
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self._check_state(state_dict)
        parts = state_dict.get("schedulers", ())
        check_fields(f"{type(self).__name__}.load_state_dict", {"schedulers": parts}, _PARTS)
        if len(parts) != len(self.schedulers):
            raise StateError(
                f"{type(self).__name__}.load_state_dict: expected the states of "
                f"{len(self.schedulers)} schedulers, got {len(parts)}"
            )
        for schedule, part in zip(self.schedulers, parts, strict=True):
            schedule._check_state(part)
        for schedule, part in zip(self.schedulers, parts, strict=True):
            schedule.load_state_dict(part)
        super().load_state_dict(state_dict)  # last: it sets the rates


_PARTS = {"schedulers": [DICT]}


def _check_schedulers(
    name: str, schedulers: Sequence[LRScheduler], optimizer: Optimizer, which: str
) -> None:
    for each in schedulers:
        kind = type(each).__name__
        by_metric = isinstance(each, ReduceLROnPlateau)
        _require(name, not by_metric, "schedulers that step without a metric", kind)
        own = each.optimizer is optimizer
        _require(name, own, f"schedulers of {which} optimizer", f"a {kind} of another")


class SequentialLR(_Combined):
    """One schedule after another, changing over at each of the ``milestones``.

    Each counts its epochs from the milestone at which it begins.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> warm_up = LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> scheduler = SequentialLR(optimizer, [warm_up, ExponentialLR(optimizer, 0.5)], [2])
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.5, 0.25]
    """

    _keeps = ("milestones",)

    def _check_state(self, given: Mapping[str, Any]) -> None:
        super()._check_state(given)
        milestones = given["milestones"]
        if len(milestones) != len(self.schedulers) - 1:
            raise StateError(
                f"SequentialLR.load_state_dict: expected {len(self.schedulers) - 1} milestones for "
                f"{len(self.schedulers)} schedulers, got {len(milestones)}"
            )

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        name = "SequentialLR"
        _check_optimizer(name, optimizer)
        _require(name, len(schedulers) > 0, "at least one scheduler", "none")
        wanted = f"{len(schedulers) - 1} milestones for {len(schedulers)} schedulers"
        _require(name, len(schedulers) == len(milestones) + 1, wanted, len(milestones))
        ascending = all(a < b for a, b in pairwise(milestones))
        _require(name, ascending, "milestones that ascend", list(milestones))
        _check_schedulers(name, schedulers, optimizer, "this")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        if last_epoch == -1:  # the schedules have set the rates when they were made
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
        super().__init__(optimizer, last_epoch)

    def _current(self, epoch: float) -> tuple[LRScheduler, float]:
        """The schedule in charge at ``epoch``, and what it counts then."""
        which = bisect_right(self.milestones, epoch)
        return self.schedulers[which], epoch - (self.milestones[which - 1] if which else 0)

    @property
    def _floor(self) -> float | None:  # type: ignore[override]
        return self._current(max(self.last_epoch, 0))[0]._floor

    def _go_to(self, epoch: float) -> None:
        if epoch in self.milestones:  # the next schedule starts from its own initial rate
            self._factors = [1.0] * len(self.base_lrs)
            self._last_lr = self.get_last_lr()
            self.last_epoch = epoch
        super()._go_to(epoch)

    def _rate(self, base: float, epoch: float, group: int) -> float:
        schedule, own_epoch = self._current(epoch)
        return schedule._rate(schedule.base_lrs[group], own_epoch, group)

    def _set_momentum(self, epoch: float, group: int) -> None:
        schedule, own_epoch = self._current(epoch)
        schedule._set_momentum(own_epoch, group)


class ChainedScheduler(_Combined):
    """Several schedules at once: each step is a step of every one of them, in their order.

    What the others made of the rate each keeps as a factor, so that factors multiply.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> warm_up = ConstantLR(optimizer, factor=0.1, total_iters=2)
    >>> scheduler = ChainedScheduler([warm_up, ExponentialLR(optimizer, 0.5)])
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [0.1, 0.05, 0.25, 0.125]
    """

    _floor = None

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        name = "ChainedScheduler"
        _require(name, len(schedulers) > 0, "at least one scheduler", "none")
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        _check_optimizer(name, optimizer)
        _check_schedulers(name, schedulers, optimizer, "one")
        self.schedulers, self.optimizer = list(schedulers), optimizer
        # The parts have set the rates when they were made: there is nothing to begin.
        self.base_lrs = list(schedulers[0].base_lrs)
        self.last_epoch = 0
        self._factors = [1.0] * len(self.base_lrs)
        self._last_lr = self.get_last_lr()

    def step(self) -> None:
        """Take a step of each schedule."""
        for each in self.schedulers:
            each.step()
        self.last_epoch += 1
        self._last_lr = self.get_last_lr()


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a metric has not improved for ``patience`` epochs.

    Call ``step(metric)`` once per epoch.

    Parameters
    ----------
    mode: ``"min"`` where smaller is better, as for a loss, or ``"max"``.
    factor: below 1.
    patience: epochs without an improvement that are let pass; the one after them cuts the rate.
    threshold, threshold_mode: an improvement is a metric better than the best by more than
        ``threshold·best`` (``"rel"``) or ``threshold`` (``"abs"``).
    cooldown: epochs after a cut in which none is counted as bad.
    min_lr: no rate is cut below this; one number, or a list with one per group.
    eps: cuts smaller than this are left out.

    >>> import gradlab as gl
    >>> optimizer = gl.optim.SGD([gl.tensor([1.0])], lr=1.0)
    >>> scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.5]:
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _floor = None
    _keeps = (
        "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lrs", "eps",
        "best", "num_bad_epochs", "cooldown_counter",
    )  # fmt: skip

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        name = "ReduceLROnPlateau"
        _check_optimizer(name, optimizer)
        _require(
            name, mode in ("min", "max") and threshold_mode in ("rel", "abs"),
            "mode 'min' or 'max' and threshold_mode 'rel' or 'abs'",
            f"{mode!r} and {threshold_mode!r}",
        )  # fmt: skip
        _require(name, 0 <= factor < 1, "a factor in [0, 1)", factor)
        _at_least(name, 0, patience=patience, cooldown=cooldown)
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = _per_group(name, "min_lr", optimizer, min_lr)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0
        self.optimizer = optimizer
        self.base_lrs = self.get_last_lr()
        self._last_lr, self._factors = list(self.base_lrs), [1.0] * len(self.base_lrs)
        self.last_epoch = 0

    def step(self, metrics: Any = None) -> None:
        """Count one epoch whose metric, a number or a tensor of one element, was ``metrics``."""
        name = "ReduceLROnPlateau.step"
        _require(name, metrics is not None, "the metric of the epoch", "none")
        value = float(metrics)
        groups = self._groups()
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce(groups)
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return sign * value < sign * self.best - self.threshold
        # As in PyTorch, relative to the value with its sign: below 0 the rule turns round.
        margin = 1 - self.threshold if self.mode == "min" else 1 + self.threshold
        return sign * value < sign * self.best * margin

    def _reduce(self, groups: list[dict[str, Any]]) -> None:
        for group, least in zip(groups, self.min_lrs, strict=True):
            rate = max(float(group["lr"]) * self.factor, least)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate


guard_namespace(globals())
