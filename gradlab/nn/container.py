"""Containers: modules in a row or under names, and parameters likewise."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from gradlab.errors import AxisError, DTypeError, OptionError, StateError, message, printable
from gradlab.nn.module import Module, _got, _instance_hint, listed
from gradlab.nn.parameter import Parameter
from gradlab.tensor import Tensor


def _position(container: Any, index: Any, *, end: bool = False) -> int:
    """An index counted from the front; ``end`` allows the place after the last."""
    name, count = type(container).__name__, len(container)
    try:
        at = operator.index(index)
    except TypeError:
        got = type(index).__name__
        raise DTypeError(message(name, expected="an integer or a slice", got=got)) from None
    if not -count <= at < count + end:
        expected = f"an index from {-count} to {count - 1 + end}" if count else "no index"
        hint = "" if count else "it is empty"
        raise AxisError(message(name, expected=expected, got=str(at), hint=hint))
    return at if at >= 0 else at + count


class _Row(Module):
    """What `Sequential` and `ModuleList` share: modules named "0", "1", … in a row."""

    def _check(self, module: Any) -> Module:
        if not isinstance(module, Module):
            raise DTypeError(
                message(
                    type(self).__name__,
                    expected="modules",
                    got=_got(module),
                    hint=self._hint(module),
                )
            )
        return module

    def _hint(self, module: Any) -> str:
        return _instance_hint(module)

    def _values(self) -> list[Any]:
        return [self.__dict__[name] for name in self._module_names]

    def _empty(self) -> Self:
        """A container for some of these modules; a subclass's own __init__ is not called."""
        base: Any = Sequential if isinstance(self, Sequential) else ModuleList
        kind = type(self)
        return kind() if kind.__init__ is base.__init__ else base()

    def _refill_with(self, modules: Iterable[Any], names: Iterable[str] | None = None) -> None:
        """Put these modules in place of all, under new numbers if not under ``names``."""
        modules = [self._check(module) for module in modules]
        for name in list(self._module_names):
            delattr(self, name)
        for name, module in zip(names or map(str, range(len(modules))), modules, strict=True):
            self.register_module(name, module)

    def _is_numbered(self) -> bool:
        return list(self._module_names) == [str(i) for i in range(len(self))]

    def _free_name(self) -> str:
        number = len(self)  # a slice of a Sequential keeps its numbers
        while str(number) in self._module_names:
            number += 1
        return str(number)

    def _name_at(self, index: Any) -> str:
        return list(self._module_names)[_position(self, index)]

    @overload
    def __getitem__(self, index: slice) -> Self: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        """Return the module at an index; a container of the same kind for a slice."""
        if isinstance(index, slice):
            return self._sliced(index)
        return self.__dict__[self._name_at(index)]

    def _sliced(self, index: slice) -> Self:
        made = self._empty()
        made._refill_with(self._values()[index])
        return made

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name_at(index), self._check(module))

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._module_names)
        gone = names[index] if isinstance(index, slice) else [self._name_at(index)]
        numbered = self._is_numbered()
        for name in gone:
            delattr(self, name)
        if numbered:
            self._refill_with(self._values())

    def __len__(self) -> int:
        return len(self._module_names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __contains__(self, module: object) -> bool:
        return any(each is module for each in self._values())

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.register_module(self._free_name(), self._check(module))
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before position ``index``; those behind it get the next numbers."""
        at = _position(self, index, end=True)
        modules, names = self._values(), [*self._module_names]
        modules.insert(at, module)
        names.insert(at, self._free_name())
        self._refill_with(modules, None if self._is_numbered() else names)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        if isinstance(modules, Module) and not isinstance(modules, _Row):
            got, name = type(modules).__name__, type(self).__name__
            hint = "use append for one module"
            raise DTypeError(message(name, expected="several modules", got=got, hint=hint))
        for module in [self._check(each) for each in modules]:
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module

    def __add__(self, other: Iterable[Module]) -> Self:
        made = self._empty()
        made._refill_with([*self._values(), *other])
        return made

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)


class Sequential(_Row):
    """Modules that are applied one after the other.

    Given as arguments, they are named "0", "1", …; a dict gives them names. A slice is a
    `Sequential` of the same modules.

    >>> import gradlab as gl
    >>> from gradlab import nn
    >>> net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    >>> net(gl.zeros(32, 784)).shape
    (32, 10)
    >>> net[:2]
    Sequential(
      (0): Linear(in_features=784, out_features=256, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, self._check(module))
        else:
            self._refill_with(modules)

    def _hint(self, module: Any) -> str:
        if isinstance(module, list | tuple | Iterator):
            return "write Sequential(*layers)"
        return super()._hint(module)

    def forward(self, x: Any) -> Any:
        own = self.__dict__
        for name in self._module_names:
            x = own[name](x)
        return x

    def _sliced(self, index: slice) -> Self:
        made, names = self._empty(), list(self._module_names)[index]
        made._refill_with([self.__dict__[name] for name in names], names)
        return made

    def __mul__(self, times: int) -> Self:
        """Repeat the modules, the same ones: their parameters are shared."""
        made = self._empty()
        made._refill_with(self._values() * _times(self, times))
        return made

    __rmul__ = __mul__


def _times(container: Any, times: Any) -> int:
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        name = type(container).__name__
        raise OptionError(message(name, expected="a number of repeats", got=repr(times)))
    return times


class ModuleList(_Row):
    """Modules in a list, whose parameters count; it has no forward of its own.

    >>> from gradlab import nn
    >>> layers = nn.ModuleList([nn.Linear(10, 10) for _ in range(3)])
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __repr__(self) -> str:
        """As PyTorch's: equal neighbours are shown once, with their count."""
        runs: list[tuple[int, int, str]] = []
        for number, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], number, text)
            else:
                runs.append((number, number, text))
        lines = [
            f"({start}): {text}" if start == end else f"({start}-{end}): {end - start + 1} x {text}"
            for start, end, text in runs
        ]
        return listed(self._get_name(), lines)


class _Named(Module):
    """What the two dicts share: entries under names, in the order they were put in."""

    def _entries(self) -> dict[str, Any]:
        """A dict whose keys are the names."""
        raise NotImplementedError

    def __setitem__(self, key: str, value: Any) -> None:
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        _require_key(self, key, self._entries())
        return self.__dict__[key]

    def __delitem__(self, key: str) -> None:
        _require_key(self, key, self._entries())
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._entries())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __contains__(self, key: object) -> bool:
        return key in self._entries()

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._entries().keys()

    def values(self) -> Iterable[Any]:
        """The entries."""
        return [self.__dict__[name] for name in self._entries()]

    def items(self) -> Iterable[tuple[str, Any]]:
        """Pairs of name and entry."""
        return [(name, self.__dict__[name]) for name in self._entries()]

    def update(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Put in the entries of a dict or of pairs."""
        for key, value in dict(entries).items():
            self[key] = value

    def pop(self, key: str) -> Any:
        """Take an entry out and return it."""
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Take all entries out."""
        for name in list(self._entries()):
            delattr(self, name)


class ModuleDict(_Named):
    """Modules under names, in the order they were put in.

    >>> from gradlab import nn
    >>> heads = nn.ModuleDict({"digit": nn.Linear(8, 10), "parity": nn.Linear(8, 2)})
    >>> list(heads)
    ['digit', 'parity']
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def _entries(self) -> dict[str, Any]:
        return self._module_names

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)


def _require_key(container: Module, key: Any, known: Iterable[str]) -> None:
    if key not in known:
        names = ", ".join(map(repr, known)) or "none, as it is empty"
        raise StateError(
            message(type(container).__name__, expected=f"one of {names}", got=repr(key))
        )


def _as_parameter(container: Module, value: Any) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Tensor):
        return Parameter(value, requires_grad=value.is_floating_point())
    name, got = type(container).__name__, type(value).__name__
    hint = "convert it with gradlab.tensor(...)"
    raise DTypeError(message(name, expected="Parameters or tensors", got=got, hint=hint))


def _repr(container: Module, named: Iterable[tuple[str, Tensor]]) -> str:
    return listed(
        type(container).__name__,
        [
            f"({printable(name)}): Parameter containing: "
            f"[{x.dtype.name} of size {'x'.join(map(str, x.shape))}"
            f"{'' if x.device.type == 'cpu' else f' ({x.device})'}]"
            for name, x in named
        ],
    )


class ParameterList(Module):
    """Parameters in a list; tensors become parameters.

    >>> import gradlab as gl
    >>> weights = gl.nn.ParameterList([gl.zeros(2, 3), gl.zeros(3)])
    >>> [name for name, _ in weights.named_parameters()]
    ['0', '1']
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def _values(self) -> list[Any]:
        return [self.__dict__[name] for name in self._parameter_names]

    @overload
    def __getitem__(self, index: slice) -> Self: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self._values()[index])
        return self.__dict__[str(_position(self, index))]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(self, index)), _as_parameter(self, value))

    def __len__(self) -> int:
        return len(self._parameter_names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def append(self, value: Any) -> Self:
        """Add a parameter at the end."""
        self.register_parameter(str(len(self)), _as_parameter(self, value))
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several parameters at the end."""
        for value in [_as_parameter(self, each) for each in values]:
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def __repr__(self) -> str:
        return _repr(self, ((str(i), x) for i, x in enumerate(self)))


class ParameterDict(_Named):
    """Parameters under names; tensors become parameters."""

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def _entries(self) -> dict[str, Any]:
        return self._parameter_names

    def __setitem__(self, key: str, value: Any) -> None:
        self.register_parameter(key, _as_parameter(self, value))

    def __repr__(self) -> str:
        return _repr(self, self.items())
