"""Loading a state dict into a module: everything is checked before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlab import dtypes
from gradlab.autograd.modes import no_grad
from gradlab.devices import cpu
from gradlab.errors import GradlabError, StateError, message, printable
from gradlab.nn.parameter import UninitializedParameter
from gradlab.tensor import Tensor, from_value

if TYPE_CHECKING:
    from gradlab.nn.module import Module

# How many names or problems of each kind a message lists.
_SHOWN = 5


class IncompatibleKeys(NamedTuple):
    """The names that a state dict lacks, and those that the module has no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


class _Place(NamedTuple):
    """Where a value goes."""

    module: Module
    tensor: Tensor


def load(module: Module, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy the values of ``state`` into the parameters and buffers of ``module``."""
    places, values, keys = _checked(module, state, strict)
    _write(places, values)
    return keys


def check(module: Module, state: Mapping[str, Any]) -> None:
    """Raise what a strict `load` would raise, and change nothing."""
    _checked(module, state, True)


def _checked(
    module: Module, state: Mapping[str, Any], strict: bool
) -> tuple[dict[str, _Place], dict[str, Tensor], IncompatibleKeys]:
    operation = f"load_state_dict of {type(module).__name__}"
    if not isinstance(state, Mapping):
        raise StateError(
            message(
                operation,
                expected="a dict of names and values",
                got=type(state).__name__,
                hint="read a file with gradlab.load(...) first" if isinstance(state, str) else "",
            )
        )
    places = _places(module)
    values, problems = _fitting_values(places, state)
    keys = IncompatibleKeys(
        [name for name in places if name not in state],
        [name for name in state if name not in places],
    )
    problems = _first(problems, "others that do not fit")
    if strict:
        problems = _key_problems(keys, state) + problems
    if problems:
        raise StateError(f"{operation}: {'; '.join(problems)}. Nothing was loaded")
    return places, values, keys


def _places(module: Module) -> dict[str, _Place]:
    # A shared submodule has its values under each of its names, as in its own state_dict.
    return {
        f"{path}.{name}" if path else name: _Place(owner, tensor)
        for path, owner in module.named_modules(remove_duplicate=False)
        for name, tensor in owner._state()
    }


def _fitting_values(
    places: dict[str, _Place], state: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """The values as tensors, and a line for each that does not fit its place."""
    values, problems = {}, []
    for name, place in places.items():
        if name not in state:
            continue
        try:
            value = state[name]
            where = value.device if isinstance(value, Tensor) else cpu
            values[name] = from_value(value, where, operation=printable(name))
        except GradlabError as error:
            problems.append(str(error))
            continue
        problem = _misfit(place.tensor, values[name])
        if problem:
            problems.append(message(printable(name), **problem))
    return values, problems


def _misfit(tensor: Tensor, value: Tensor) -> dict[str, str]:
    if isinstance(tensor, UninitializedParameter):
        sizes = ["any" if size == 0 else str(size) for size in tensor.placeholder().shape]
        if not tensor.fits(value.shape):
            return {"expected": f"shape ({', '.join(sizes)})", "got": str(value.shape)}
    elif tensor.shape != value.shape:
        return {"expected": f"shape {tensor.shape}", "got": str(value.shape)}
    if dtypes._level(value.dtype) > dtypes._level(tensor.dtype):
        return {"expected": f"{tensor.dtype.name} values", "got": value.dtype.name}
    return {}


def _key_problems(keys: IncompatibleKeys, state: Mapping[str, Any]) -> list[str]:
    problems = []
    if keys.missing_keys:
        problems.append(f"missing {_listed(keys.missing_keys)}")
    if keys.unexpected_keys:
        problems.append(f"unexpected {_listed(keys.unexpected_keys)}")
    prefix = _common_prefix(keys)
    if prefix:
        problems.append(f"every name begins with {prefix!r}: take that off")
    elif _is_checkpoint(keys, state):
        problems.append(
            "this is the checkpoint of a Trainer: load "
            'gradlab.training.read_checkpoint(path)["model"]'
        )
    return problems


def _listed(names: list[Any]) -> str:
    """Names from elsewhere, which need not be strings."""
    return ", ".join(map(printable, _first(names)))


def _first(items: list[str], what: str = "more") -> list[str]:
    """The first few items of a list, and how many are left out."""
    left_out = len(items) - _SHOWN
    return items if left_out <= 0 else [*items[:_SHOWN], f"... and {left_out} {what}"]


def _is_checkpoint(keys: IncompatibleKeys, state: Mapping[Any, Any]) -> bool:
    """Whether the missing values are in it as a Trainer's checkpoint has them: in a dict of their
    own once it is read, under a prefix in its file of tensors."""
    inner: Any = state.get("model")
    if not isinstance(inner, Mapping):
        inner = {name.removeprefix("model."): value for name, value in state.items()
                 if isinstance(name, str) and name.startswith("model.")}  # fmt: skip
    return bool(keys.missing_keys) and all(name in inner for name in keys.missing_keys)


def _common_prefix(keys: IncompatibleKeys) -> str:
    """The prefix under which a wrapping module saved exactly the missing names."""
    if not keys.missing_keys:
        return ""
    end, missing = f".{keys.missing_keys[0]}", set(keys.missing_keys)
    unexpected: list[Any] = keys.unexpected_keys
    found = [name for name in unexpected if isinstance(name, str)]
    for name in found:
        prefix = name.removesuffix(end) + "."
        if name.endswith(end) and missing == {each.removeprefix(prefix) for each in found}:
            return prefix
    return ""


def _write(places: dict[str, _Place], values: dict[str, Tensor]) -> None:
    with no_grad():
        for name, value in values.items():
            tensor = places[name].tensor
            if isinstance(tensor, UninitializedParameter):
                tensor.materialize(value.shape)
            tensor.copy_(value)
    for module in {id(place.module): place.module for place in places.values()}.values():
        module._loaded()
