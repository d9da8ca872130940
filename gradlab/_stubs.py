"""Write ``_methods.pyi``: the methods that ops attach to `Tensor`, for editors and type checkers.

Run ``python -m gradlab._stubs`` after adding an op with methods; a test holds the file up to date.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("_methods.pyi")
HEADER = """\
# Made by `python -m gradlab._stubs` from the op registry; do not edit by hand.
from collections.abc import Sequence
from typing import Any, Self

from gradlab.devices import DeviceLike
from gradlab.ops.elementwise import TensorLike
from gradlab.ops.random import Generator
from gradlab.ops.shape import Axis
from gradlab.tensor import Tensor

class TensorMethods:
"""
_KNOWN = {
    "Any", "Axis", "DeviceLike", "Generator", "None", "Sequence", "Tensor",
    "TensorLike", "bool", "complex", "float", "int", "list", "object", "slice", "str", "tuple",
}  # fmt: skip
# Methods of these names hide the builtin types inside the class body of the stub.
_UNLIKE = ("__iadd__", "__imul__", "__isub__", "__itruediv__")
_HIDDEN = {"bool": "_bool", "float": "_float", "int": "_int"}


def methods() -> dict[str, Any]:
    """The attributes of `Tensor` that ops attached, by name."""
    import gradlab  # noqa: F401 - attaches them
    from gradlab.tensor import Tensor

    def is_attached(value: Any) -> bool:
        function = value.fget if isinstance(value, property) else value
        plain = inspect.unwrap(function) if callable(function) else function
        return getattr(plain, "__module__", "").startswith("gradlab.ops")

    return {name: value for name, value in sorted(vars(Tensor).items()) if is_attached(value)}


def _annotation(text: Any) -> str:
    if not isinstance(text, str):
        return "Any"
    words = text.replace("[", " ").replace("]", " ").replace("|", " ").replace(",", " ").split()
    if not all(word in _KNOWN or word == "..." for word in words):
        return "Any"
    for name, alias in _HIDDEN.items():
        text = text.replace(name, alias) if name in words else text
    return text


def _default(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float | str | None) else "..."


def _parameters(function: Any) -> list[str]:
    given = list(inspect.signature(function).parameters.values())[1:]
    parts, keyword_only = ["self"], False
    for parameter in given:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else star
        text = f"{star}{parameter.name}: {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        parts.append(text)
    if getattr(function, "__accepts_dim__", False):
        names = [parameter.name for parameter in given]
        parts += [] if keyword_only else ["*"]
        parts += ["dim: Any = ..."] + (["keepdim: _bool = ..."] if "keepdims" in names else [])
        return _with_optional_axis(parts)
    return parts


def _with_optional_axis(parts: list[str]) -> list[str]:
    """With PyTorch's name instead, axis is left out; what follows it needs a default as well."""
    made: list[str] = []
    optional = False
    for part in parts:
        optional = (optional or part.startswith("axis:")) and not part.startswith("*")
        made.append(f"{part} = ..." if optional and "=" not in part else part)
    return made


def _method(name: str, value: Any) -> str:
    if isinstance(value, property):
        return f"    @property\n    def {name}(self) -> Tensor: ...\n"
    if name.startswith("__i") and name.endswith("__") and name != "__invert__":
        # mypy compares with __add__ and its keyword; Python calls both with one operand.
        ignore = "  # type: ignore[misc]" if name in _UNLIKE else ""
        return f"    def {name}(self, other: TensorLike, /) -> Self: ...{ignore}\n"
    result = _annotation(inspect.signature(value).return_annotation)
    return f"    def {name}({', '.join(_parameters(value))}) -> {result}: ...\n"


def render() -> str:
    """The text of the stub."""
    aliases = "".join(f"{alias} = {name}\n" for name, alias in _HIDDEN.items())
    body = "".join(_method(name, value) for name, value in methods().items())
    return HEADER.replace("class TensorMethods", f"{aliases}\nclass TensorMethods") + body


if __name__ == "__main__":
    PATH.write_text(render())
    print(f"wrote {PATH}: {len(methods())} methods")
