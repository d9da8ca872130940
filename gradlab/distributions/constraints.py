"""What values parameters and draws may have: a test on tensors, and its words for messages.

>>> import gradlab as gl
>>> positive.check(gl.tensor([1.0, 0.0, float("nan")]))
tensor([ True, False, False])
>>> interval(0.0, 1.0)
constraint(from 0.0 to 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradlab import dtypes
from gradlab.ops.elementwise import abs as absolute, isfinite
from gradlab.ops.reduction import all as all_of, any as any_of, sum as sum_of
from gradlab.tensor import Tensor


class Constraint:
    """A set of values.

    ``check(x)`` gives True where an element of ``x`` lies in it, or for ``event_dim`` 1 a vector
    along the last axis. NaN lies in none.
    """

    def __init__(
        self, words: str, check: Callable[[Tensor], Tensor], *, discrete: bool = False,
        event_dim: int = 0,
    ) -> None:  # fmt: skip
        self.words, self.check = words, check
        self.is_discrete, self.event_dim = discrete, event_dim

    def __repr__(self) -> str:
        return f"constraint({self.words})"


def _whole(x: Tensor) -> Tensor:
    return x == x.floor() if dtypes.is_floating(x.dtype) else isfinite(x)


def _is_simplex(x: Tensor) -> Tensor:
    return all_of(x >= 0, -1) & (absolute(sum_of(x, -1) - 1) < 1e-6)


def _has_weight(x: Tensor) -> Tensor:
    return all_of((x >= 0) & isfinite(x), -1) & any_of(x > 0, -1)


def _has_log_weight(x: Tensor) -> Tensor:
    return all_of(x < math.inf, -1) & any_of(x > -math.inf, -1)


real = Constraint("a number, not NaN", lambda x: x == x)
finite = Constraint("a finite number", isfinite)
positive = Constraint("greater than 0", lambda x: x > 0)
finite_positive = Constraint("finite and greater than 0", lambda x: (x > 0) & isfinite(x))
nonnegative = Constraint("0 or more", lambda x: x >= 0)
unit_interval = Constraint("from 0 to 1", lambda x: (x >= 0) & (x <= 1))
boolean = Constraint("0 or 1", lambda x: (x == 0) | (x == 1), discrete=True)
simplex = Constraint(
    "vectors of 0 or more along the last axis that sum to 1", _is_simplex, event_dim=1
)
weights = Constraint(
    "0 or more, finite and not all 0 along the last axis", _has_weight, event_dim=1
)
log_weights = Constraint(
    "below infinity and not all -inf along the last axis", _has_log_weight, event_dim=1
)


def interval(low: Any, high: Any) -> Constraint:
    """Numbers from ``low`` to ``high``, both included; either may be a tensor."""
    return Constraint(f"from {_bound(low)} to {_bound(high)}", lambda x: (x >= low) & (x <= high))


def integer_interval(low: int, high: int) -> Constraint:
    """The integers ``low``, …, ``high``."""
    return Constraint(
        f"an integer from {low} to {high}",
        lambda x: (x >= low) & (x <= high) & _whole(x),
        discrete=True,
    )


def multinomial(total_count: int) -> Constraint:
    """Vectors of counts that sum to ``total_count``."""
    return Constraint(
        f"vectors of counts along the last axis that sum to {total_count}",
        lambda x: all_of((x >= 0) & _whole(x), -1) & (sum_of(x, -1) == total_count),
        discrete=True,
        event_dim=1,
    )


def _bound(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return f"bounds of shape {value.shape}" if isinstance(value, Tensor) else str(value)
