"""What all optimizers share: parameter groups, state, and their saving."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from gradlab.autograd.modes import enable_grad
from gradlab.devices import Device, cpu
from gradlab.errors import (
    DTypeError,
    GradientError,
    GradlabError,
    OptionError,
    ShapeError,
    StateError,
    message,
    printable,
)
from gradlab.fields import ANYTHING, DICT, FLAG, NUMBER, check_fields
from gradlab.ops.creation import full_like, zeros_like
from gradlab.ops.update import state_dtype
from gradlab.tensor import Tensor, from_value

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

# What a group may hold beside the options of its optimizer.
_LABELS = frozenset({"params", "name", "initial_lr"})


class Optimizer:
    """Base class of the optimizers: a subclass gives ``defaults`` and writes ``_update``.

    Parameters
    ----------
    params: the leaf tensors to change, as ``model.parameters()`` or ``model.named_parameters()``
        gives them; or groups, dicts ``{"params": [...], "lr": ...}`` whose other entries override
        the defaults for that group. A group may carry a ``"name"``.
    defaults: the options and the values that groups take where they do not say otherwise.

    ``param_groups`` is the list of groups; their options may be changed between steps. ``state``
    holds, for each parameter, what the optimizer remembers about it: tensors on the parameter's
    device and of its dtype (float32 for a float16 or bfloat16 parameter), which follow it when the
    model is moved.

    ``_update(group, params, grads)`` changes the ``params`` of one group that have a gradient.

    >>> import gradlab as gl
    >>> class SignSGD(Optimizer):
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params, {"lr": lr})
    ...
    ...     def _update(self, group, params, grads):
    ...         with gl.no_grad():
    ...             for p, g in zip(params, grads):
    ...                 p -= group["lr"] * gl.sign(g)
    >>> w = gl.tensor([1.0, -1.0], requires_grad=True)
    >>> w.grad = gl.tensor([0.3, 0.0])
    >>> SignSGD([w]).step()
    >>> w.detach()
    tensor([ 0.9000, -1.0000])
    """

    # The names of the state's entries, None where any name will do: a state with others belongs
    # to another optimizer.
    _entries: frozenset[str] | None = None

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = {key: _plain(value) for key, value in defaults.items()}
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        name = type(self).__name__
        _check_list(name, "a list of parameters or of groups", params)
        given = list(params)
        if not given:
            raise OptionError(
                message(name, expected="at least one parameter", got="none",
                        hint="is the model's parameters() an iterator that was used before?")
            )  # fmt: skip
        groups: list[Any] = given if isinstance(given[0], dict) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items())
                      if key != "params"]  # fmt: skip
        return "\n".join([*lines, ")"])

    # ------------------------------------------------------------------------------- groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with options of its own where it names them.

        >>> import gradlab as gl
        >>> optimizer = gl.optim.SGD([gl.ones(2, requires_grad=True)], lr=0.1)
        >>> optimizer.add_param_group({"params": [gl.ones(3, requires_grad=True)], "lr": 0.01})
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.1, 0.01]
        """
        name = type(self).__name__
        _check_group(name, param_group)
        unknown = set(param_group) - _LABELS - set(self.defaults)
        if unknown:
            raise OptionError(
                message(name, expected=f"group options among {', '.join(sorted(self.defaults))}",
                        got=", ".join(sorted(map(str, unknown))))
            )  # fmt: skip
        params = self._checked_params(name, param_group["params"])
        options = {key: _plain(value) for key, value in param_group.items() if key != "params"}
        made = {"params": params, **self.defaults, **options}
        self._check_options(made)
        self.param_groups.append(made)

    def _checked_params(self, name: str, given: Any) -> list[Tensor]:
        given = [given] if isinstance(given, Tensor) else given
        _check_list(name, "a list of parameters", given)
        params = [p[1] if isinstance(p, tuple) and len(p) == 2 else p for p in given]
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            _check_parameter(name, p)
            if id(p) in known:
                which = repr(p) if _is_lazy(p) else f"one of shape {p.shape}"
                raise OptionError(f"{name}: expected each parameter once, got {which} again")
            known.add(id(p))
        return params

    def _check_options(self, group: dict[str, Any]) -> None:
        """Refuse options that no update makes sense with; subclasses add their own."""
        name = type(self).__name__
        for option in _NOT_NEGATIVE & set(group):
            value = group[option]
            if not (isinstance(value, int | float) and value >= 0):
                raise OptionError(message(name, expected=f"{option} of 0 or more", got=repr(value)))
        if "betas" in group and not _are_betas(group["betas"]):
            raise OptionError(
                message(name, expected="two betas in [0, 1)", got=repr(group["betas"]))
            )

    # --------------------------------------------------------------------------------- step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; or, without ``set_to_none``, write zeros there.

        Zeros keep the memory of the gradients, and parameters whose gradient stays 0 still decay
        and move by their momentum; without a gradient they are left alone.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                elif p.grad.requires_grad:  # made with create_graph, part of a graph
                    p.grad = zeros_like(p.grad)
                else:
                    p.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients; those without one stay as they are.

        Nothing is recorded, inside `no_grad` or out of it. ``closure`` computes the loss anew,
        with gradients recorded, and its value is returned.

        Raises `ShapeError` for a gradient of another shape than its parameter.

        >>> import gradlab as gl
        >>> w = gl.tensor([4.0], requires_grad=True)
        >>> optimizer = gl.optim.SGD([w], lr=0.25)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (w * w).sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), w.item()
        (16.0, 2.0)
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        # All gradients are checked before the first parameter changes.
        ready = [(group, *each) for group in self.param_groups for each in self._ready(group)]
        for group, params, grads in ready:
            try:
                self._update(group, params, grads)
            except (TypeError, ValueError) as error:
                self._explain(params, error)
        return loss

    def _ready(self, group: dict[str, Any]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        """The parameters that have a gradient, and their gradients, in one pair of lists per
        device: an update is one op, and an op runs on one device."""
        lists: dict[Device, tuple[list[Tensor], list[Tensor]]] = {}
        device: Device | None = None
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            if g.__class__ is not Tensor or g.shape != p.shape:
                self._check_gradient(p, g)
            if p.device is not device:
                device = p.device
                params, grads = lists.setdefault(device, ([], []))
            params.append(p)
            grads.append(g)
        return lists.values()

    def _check_gradient(self, p: Tensor, g: Any) -> None:
        name = f"{type(self).__name__}.step"
        if not isinstance(g, Tensor):
            raise DTypeError(message(name, expected="tensors as gradients", got=_kind(g)))
        if g.shape != p.shape:
            raise ShapeError(
                message(name, expected=f"a gradient of shape {p.shape}, as its parameter",
                        got=str(g.shape))
            )  # fmt: skip

    def _explain(self, params: list[Tensor], error: Exception) -> NoReturn:
        """Say in the user's terms what the array library refused, where we know it."""
        for p in params:
            for entry, kept in self.state[p].items():
                if isinstance(kept, Tensor) and kept.shape != p.shape:
                    raise StateError(
                        f"{type(self).__name__}.step: expected a parameter of shape {kept.shape}, "
                        f"as its {entry}, got one whose shape is {p.shape} now; make a new "
                        "optimizer after changing the shape of a parameter"
                    ) from None
        raise error

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        """The group's options as attributes of the update."""
        options = {key: group[key] for key in self.defaults}
        options["lr"] = float(group["lr"])  # a schedule may have left a NumPy scalar
        return options

    def _states(self, params: list[Tensor], name: str, value: float = 0.0) -> list[Tensor]:
        """The state ``name`` of each parameter, filled with ``value`` at first."""
        found = []
        for p in params:
            entries = self.state[p]
            kept = entries.get(name)
            if kept is None:
                kept = entries[name] = full_like(p, value, dtype=state_dtype(p.dtype))
            elif kept.device is not p.device or kept.dtype is not p.dtype:
                # The model was moved or cast (or is of halves): its state follows.
                kept = entries[name] = kept.to(p.device, state_dtype(p.dtype))
            found.append(kept)
        return found

    def _count_steps(self, params: list[Tensor]) -> list[int]:
        """The number of this step for each parameter, from 1."""
        steps = []
        for p in params:
            entries = self.state[p]
            count = entries["step"] = entries.get("step", 0) + 1
            steps.append(count)
        return steps

    # ------------------------------------------------------------------------------- saving

    def _numbered(self) -> Iterator[tuple[int, Tensor]]:
        return enumerate(p for group in self.param_groups for p in group["params"])

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups' options, with parameters by number, in PyTorch's form.

        The tensors are those in use, not copies; write them to a file before the next step, or
        ``copy.deepcopy`` them.

        >>> import gradlab as gl
        >>> w = gl.ones(2, requires_grad=True)
        >>> optimizer = gl.optim.SGD([w], lr=0.1, momentum=0.9)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> optimizer.state_dict()["state"]
        {0: {'momentum_buffer': tensor([1., 1.])}}
        """
        numbers = {id(p): number for number, p in self._numbered()}
        groups = [
            {**group, "params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        # A parameter that was taken out of its group leaves its state behind.
        state = {numbers[id(p)]: dict(entries) for p, entries in self.state.items()
                 if entries and id(p) in numbers}  # fmt: skip
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state and options that `state_dict` gave; the values are copied.

        Tensors may be NumPy arrays, so that a state of PyTorch's loads as well; its options that
        gradlab does not have (``foreach``, ``fused``, ...) are left out. Raises `StateError`, and
        changes nothing, where the state does not fit.
        """
        name = f"{type(self).__name__}.load_state_dict"
        groups, states = self._checked_state(name, state_dict)
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            mine.update(theirs)
        self.state = defaultdict(dict, states)

    def _checked_state(
        self, name: str, given: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Any]]]:
        """Check everything before anything changes."""
        _check_keys(name, given)
        groups = [dict(group) for group in given["param_groups"]]
        numbers = [[*map(str, group.pop("params", ()))] for group in groups]  # JSON has no others
        mine = [len(group["params"]) for group in self.param_groups]
        if mine != [len(each) for each in numbers]:
            raise StateError(
                f"{name}: expected groups of {mine} parameters, got {[len(n) for n in numbers]}"
            )
        known = _LABELS | set(self.defaults)
        groups = [{key: _plain(v) for key, v in group.items() if key in known} for group in groups]
        for own, group in zip(self.param_groups, groups, strict=True):
            _check_kinds(name, own, group)
            self._check_options({**own, **group})
        mine_in_order = [p for _, p in self._numbered()]
        by_number = dict(zip(chain(*numbers), mine_in_order, strict=True))
        if len(by_number) < len(mine_in_order):
            raise StateError(f"{name}: expected each parameter number once, got one again")
        states = {}
        for key, entries in given["state"].items():
            if str(key) not in by_number:
                raise StateError(
                    f"{name}: expected parameter numbers among "
                    f"{printable(', '.join(by_number))}, got {key!r}"
                )
            p = by_number[str(key)]
            states[p] = self._checked_entries(name, p, entries)
        return groups, states

    def _checked_entries(self, name: str, p: Tensor, given: Any) -> dict[str, Any]:
        check_fields(f"{name}: the state of a parameter", given, DICT)
        unknown = set() if self._entries is None else set(given) - self._entries
        if unknown:
            raise StateError(
                f"{name}: expected the state of this optimizer "
                f"({', '.join(sorted(self._entries or ()))}), "
                f"got {printable(', '.join(sorted(map(str, unknown))))}"
            )
        return {
            entry: _restored(name, p, entry, value)
            for entry, value in given.items()
            if value is not None
        }


_NOT_NEGATIVE = frozenset(
    {"lr", "momentum", "weight_decay", "eps", "alpha", "lr_decay", "initial_accumulator_value"}
)


def _check_list(name: str, expected: str, given: Any) -> None:
    """Refuse what is no list, or has no order by which to number the parameters."""
    unfit = Tensor | Mapping | set | frozenset | str | bytes
    if isinstance(given, unfit) or not isinstance(given, Iterable):
        got = "one tensor" if isinstance(given, Tensor) else _kind(given)
        raise DTypeError(message(name, expected=expected, got=got, hint=_remedy(given)))


def _check_group(name: str, group: Any) -> None:
    if isinstance(group, dict) and "params" in group:
        return
    got = f"the keys {', '.join(map(str, group))}" if isinstance(group, dict) else _kind(group)
    raise OptionError(message(name, expected='groups of the form {"params": [...]}', got=got))


def _check_keys(name: str, given: Any) -> None:
    if isinstance(given, Mapping) and "state" in given and "param_groups" in given:
        check_fields(name, given, {"state": DICT, "param_groups": [DICT]})
        for group in given["param_groups"]:
            check_fields(name, {"params": group.get("params", ())}, {"params": [ANYTHING]})
        return
    got = ", ".join(map(repr, given)) or "none" if isinstance(given, Mapping) else _kind(given)
    raise StateError(f"{name}: expected the keys 'state' and 'param_groups', got {got}")


def _check_kinds(name: str, own: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse options that are no numbers, or not True or False, where our own are."""
    for key, value in given.items():
        mine = own.get(key, 0.0 if key == "initial_lr" else None)
        kind = FLAG if isinstance(mine, bool) else NUMBER
        if isinstance(mine, bool | int | float):
            check_fields(name, {key: value}, {key: kind})


def _are_betas(betas: Any) -> bool:
    return (
        isinstance(betas, tuple)
        and len(betas) == 2
        and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    )


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _remedy(params: Any) -> str:
    if hasattr(params, "parameters"):
        return "pass model.parameters()"
    if isinstance(params, set | frozenset):
        return "put them into a list, which has an order"
    return "put it into a list" if isinstance(params, Tensor | Mapping) else ""


def _is_lazy(p: Any) -> bool:
    """Whether a parameter is one of a lazy layer that has not seen its first input."""
    return type(p).__name__.startswith("Uninitialized")


def _check_parameter(name: str, p: Any) -> None:
    """Refuse what an optimizer cannot change."""
    if not isinstance(p, Tensor):
        raise DTypeError(message(name, expected="tensors", got=_kind(p), hint=_remedy(p)))
    if _is_lazy(p):
        return  # of a lazy layer: the same object once its shape is known, before it has a gradient
    if not p.is_leaf:
        raise GradientError(
            message(name, expected="leaf tensors", got=f"a result of {p.grad_fn}",
                    hint="pass the tensors it was computed from")
        )  # fmt: skip
    if p.device is cpu and not p.numpy(force=True).flags.writeable:
        raise OptionError(
            message(name, expected="tensors that may be written to",
                    got=f"one of shape {p.shape} in read-only memory", hint="pass a clone() of it")
        )  # fmt: skip


def _plain(value: Any) -> Any:
    """An option as Python has it: a number, a tuple of numbers, or itself."""
    if hasattr(value, "tolist"):  # arrays, NumPy scalars, tensors
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _count(value: Any) -> int:
    """A number of steps; PyTorch keeps it as a tensor of a float."""
    number = float(value)
    if isinstance(value, str) or not number.is_integer() or number < 0:
        raise ValueError
    return int(number)


def _restored(name: str, p: Tensor, entry: str, value: Any) -> Any:
    """A saved value as state of ``p``: counts as ints, the rest where ``p`` is."""
    try:
        if entry == "step":
            return _count(value)
        made = from_value(
            value if isinstance(value, Tensor) else np.asarray(value),
            p.device, dtype=state_dtype(p.dtype), copy=True, move=True,
        )  # fmt: skip
    except (GradlabError, TypeError, ValueError, OverflowError):
        wanted = "a number" if entry == "step" else "an array"
        raise StateError(f"{name}: expected {wanted} as {entry}, got {_kind(value)}") from None
    if made.shape != p.shape:
        raise StateError(f"{name}: expected {entry} of shape {p.shape}, got {made.shape}")
    return made
