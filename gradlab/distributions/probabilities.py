"""What distributions given by probabilities or by logits have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlab import dtypes
from gradlab.distributions.distribution import parameters
from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops.random import rand
from gradlab.ops.reduction import cumsum
from gradlab.ops.sorting import searchsorted
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


def draw_classes(probs: Tensor, sample_shape: tuple[int, ...]) -> Tensor:
    """Class numbers, int64, of the shape ``sample_shape`` and then the batch of ``probs``.

    The class of a uniform u is the first whose cumulated probability is above u. In float64: the
    sum of many float32 probabilities would have lost the small ones.
    """
    classes, batch = probs.shape[-1], probs.shape[:-1]
    cumulated = cumsum(probs.detach().astype(dtypes.float64), -1)
    cumulated = cumulated / cumulated[..., -1:]
    u = rand((*sample_shape, *batch), dtype=dtypes.float64, device=probs.device)
    if not batch:
        return searchsorted(cumulated, u, right=True).clamp(max=classes - 1)
    rows = u.reshape(-1, *batch).movedim(0, -1)  # each row of the batch searches for its own
    found = searchsorted(cumulated, rows, right=True).clamp(max=classes - 1)
    return found.movedim(-1, 0).reshape(u.shape)
