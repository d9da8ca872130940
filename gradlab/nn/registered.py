"""The parameters, buffers or submodules of a module as a dict of their names."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.nn.module import Module


class Registered(MutableMapping[str, Any]):
    """What a module holds of one kind, by name: a view, writing to which registers.

    ``module._modules["hidden"] = layer`` does what ``module.add_module("hidden", layer)`` does.
    """

    __slots__ = ("_kind", "_module", "_register")

    def __init__(self, module: Module, kind: str, register: Any) -> None:
        self._module = module
        self._kind = kind  # the attribute of the module that keeps the names
        self._register = register

    def _names(self) -> dict[str, Any]:
        names: dict[str, Any] = getattr(self._module, self._kind)
        return names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return self._module.__dict__[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._names():
            setattr(self._module, name, value)
        else:
            self._register(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self._names():
            raise KeyError(name)
        delattr(self._module, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return repr(dict(self))
