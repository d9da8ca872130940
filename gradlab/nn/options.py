"""Checks of the options that layers and losses are made with."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from gradlab.errors import OptionError, message
from gradlab.tensor import require_option


def require_size(layer: str, name: str, value: Any, least: int = 0) -> int:
    """Return a size as an int; refuse anything that is not an integer of ``least`` or more."""
    try:
        size = operator.index(value)
    except TypeError:
        size = least - 1
    if size < least or isinstance(value, bool):
        raise OptionError(
            message(layer, expected=f"{name} as an integer of {least} or more", got=repr(value))
        )
    return size


def require_shape(layer: str, name: str, value: Any) -> tuple[int, ...]:
    """Return one size or several as a tuple."""
    sizes: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
    return tuple(require_size(layer, name, size) for size in sizes)


def require_probability(layer: str, name: str, value: float) -> float:
    """Refuse a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise OptionError(message(layer, expected=f"{name} from 0 to 1", got=str(value)))
    return value


def require_positive(layer: str, name: str, value: float) -> float:
    """Refuse a number of 0 or below."""
    if not value > 0:
        raise OptionError(message(layer, expected=f"{name} above 0", got=str(value)))
    return value


def require_dim(layer: str, value: Any) -> int:
    """Refuse a missing ``dim``: which axis is meant cannot be guessed."""
    if value is None:
        hint = f"for class scores in the last axis: {layer}(dim=-1)"
        raise OptionError(
            message(layer, expected="dim, the axis to go along", got="None", hint=hint)
        )
    return require_size(layer, "dim", value, least=-64)


def require_reduction(layer: str, value: str, *more: str) -> str:
    """Refuse a ``reduction`` that is not none, mean or sum (or one of ``more``)."""
    require_option(layer, "reduction", value, ("none", "mean", "sum", *more))
    return value
