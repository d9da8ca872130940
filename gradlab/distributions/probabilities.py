"""What distributions given by probabilities or by logits have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlab import dtypes
from gradlab.distributions.distribution import parameters
from gradlab.errors import OptionError, ShapeError, message
from gradlab.tensor import Tensor


class Derived:
    """A property for objects that hold no attribute of its name themselves.

    Of ``probs`` and ``logits`` the one that was given stands in the object, where it is found
    before the class is asked for the other.
    """

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, distribution: Any, owner: type) -> Any:
        return self if distribution is None else self._compute(distribution)


def one_given(name: str, probs: Any, logits: Any) -> tuple[str, Any]:
    """Which of the two was given, and its value."""
    if (probs is None) == (logits is None):
        got = "neither" if probs is None else "both"
        raise OptionError(message(name, expected="one of probs and logits", got=got))
    return ("logits", logits) if probs is None else ("probs", probs)


def vectors(name: str, value: Any) -> Tensor:
    """Probabilities or logits of several classes, along the last axis."""
    (x,) = parameters(name, value)
    if not x.ndim or not x.shape[-1]:
        raise ShapeError(
            message(
                name, expected="one value per class along the last axis", got=f"shape {x.shape}"
            )
        )
    return x


def away_from_bounds(p: Tensor) -> Tensor:
    """Probabilities kept so far from 0 and 1 that their logits are finite."""
    eps = dtypes.finfo(p.dtype).eps
    return p.clamp(eps, 1 - eps)
