"""What all optimizers share: parameter groups, state, and their saving."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab.autograd.modes import enable_grad
from gradlab.errors import DTypeError, GradientError, OptionError, StateError, message
from gradlab.ops.creation import zeros_like
from gradlab.tensor import Tensor, from_value

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Optimizer:
    """Base class: subclasses set ``defaults`` and write ``_update(group, params)``.

    ``params`` is an iterable of tensors, or of dicts ``{"params": [...], "lr": ...}`` whose other
    entries override the defaults for that group.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise DTypeError(
                message(
                    name,
                    expected="a list of parameters or of groups",
                    got="one tensor",
                    hint="put it into a list",
                )
            )
        given = list(params)
        if not given:
            raise OptionError(
                message(name, expected="at least one parameter", got="none",
                        hint="is the model's parameters() an iterator that was used before?")
            )  # fmt: skip
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items())
                      if key != "params"]  # fmt: skip
        return "\n".join([*lines, ")"])

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters, with options of its own where it names them."""
        name = type(self).__name__
        unknown = set(group) - {"params", "initial_lr", *self.defaults}
        if unknown:
            raise OptionError(
                message(
                    name,
                    expected=f"group options among {', '.join(sorted(self.defaults))}",
                    got=", ".join(sorted(map(str, unknown))),
                )
            )
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        self._check(name, params)
        made = {**self.defaults, **group, "params": params}
        self._check_options(made)
        self.param_groups.append(made)

    def _check(self, name: str, params: Sequence[Any]) -> None:
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise DTypeError(message(name, expected="tensors", got=type(p).__name__))
            if p.__class__.__name__.startswith("Uninitialized"):
                raise OptionError(
                    f"{name}: expected parameters with a shape, got one of a lazy layer; run the "
                    "model on one batch first"
                )
            if not p.is_leaf:
                raise GradientError(
                    message(name, expected="leaf tensors", got=f"a result of {p.grad_fn}")
                )
            if id(p) in known:
                raise OptionError(
                    f"{name}: expected each parameter once, got one of shape {p.shape} again"
                )
            known.add(id(p))

    def _check_options(self, group: dict[str, Any]) -> None:
        name = type(self).__name__
        for option in ("lr", "momentum", "weight_decay", "eps", "alpha", "lr_decay"):
            value = group.get(option)
            if value is not None and not value >= 0:
                raise OptionError(message(name, expected=f"{option} of 0 or more", got=str(value)))
        for beta in group.get("betas", ()):
            if not 0 <= beta < 1:
                raise OptionError(
                    message(name, expected="betas in [0, 1)", got=str(group["betas"]))
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to 0."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad = zeros_like(p.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients; those without one stay as they are.

        ``closure`` recomputes the loss, and its value is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, [p.grad for p in params])
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Any]) -> None:
        raise NotImplementedError

    def _states(self, params: list[Tensor], name: str) -> list[Tensor]:
        """The state tensor ``name`` of each parameter, made of zeros at first."""
        found = []
        for p in params:
            state = self.state.setdefault(p, {})
            if name not in state:
                state[name] = zeros_like(p)
            found.append(state[name])
        return found

    def _count_steps(self, params: list[Tensor]) -> list[int]:
        steps = []
        for p in params:
            state = self.state.setdefault(p, {})
            state["step"] = state.get("step", 0) + 1
            steps.append(state["step"])
        return steps

    # ------------------------------------------------------------------------------- saving

    def _numbered(self) -> Iterator[tuple[int, Tensor]]:
        return enumerate(p for group in self.param_groups for p in group["params"])

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups' options, parameters by their number, as in PyTorch."""
        numbers = {id(p): number for number, p in self._numbered()}
        groups = [
            {**copy.copy(group), "params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[id(p)]: dict(entries) for p, entries in self.state.items()}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave; values may be NumPy arrays or tensors."""
        name = type(self).__name__
        groups, states = self._checked(name, state_dict)
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            mine.update({key: _plain(value) for key, value in theirs.items() if key != "params"})
        self.state = states

    def _checked(self, name: str, given: dict[str, Any]) -> tuple[Any, Any]:
        """Check everything before anything changes."""
        if "state" not in given or "param_groups" not in given:
            raise StateError(
                f"{name}.load_state_dict: expected the keys 'state' and 'param_groups', got "
                f"{', '.join(map(repr, given))}"
            )
        mine = [len(group["params"]) for group in self.param_groups]
        theirs = [len(group["params"]) for group in given["param_groups"]]
        if mine != theirs:
            raise StateError(
                f"{name}.load_state_dict: expected groups of {mine} parameters, got {theirs}"
            )
        params = dict(self._numbered())
        states: dict[Tensor, dict[str, Any]] = {}
        for key, entries in given["state"].items():
            p = params.get(int(key))
            if p is None:
                raise StateError(
                    f"{name}.load_state_dict: expected parameter numbers below {len(params)}, "
                    f"got {key}"
                )
            states[p] = {entry: _for(p, entry, value, name) for entry, value in entries.items()}
        return given["param_groups"], states


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def _for(p: Tensor, entry: str, value: Any, name: str) -> Any:
    """A saved value as the state of ``p``: steps as ints, the rest on its device."""
    if not isinstance(value, Tensor | np.ndarray | np.generic):
        return value
    made = from_value(value, p.device, copy=True, move=True)
    if entry == "step":
        return int(made.item())
    if made.shape != p.shape:
        raise StateError(
            f"{name}.load_state_dict: expected {entry} of shape {p.shape}, got {made.shape}"
        )
    return made.astype(p.dtype, copy=False)
