"""The uniform distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlab.distributions import constraints
from gradlab.distributions.distribution import Distribution, Shape, parameters
from gradlab.errors import OptionError, message
from gradlab.ops.elementwise import isfinite, where
from gradlab.ops.random import rand
from gradlab.tensor import Tensor


class Uniform(Distribution):
    """The uniform distribution over the numbers from ``low`` to below ``high``.

    Both are numbers or tensors, which broadcast.

    >>> import gradlab as gl
    >>> Uniform(0.0, 4.0).cdf(gl.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """

    arg_constraints: ClassVar = {"low": constraints.finite, "high": constraints.finite}
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = parameters("Uniform", low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._looks_at(self.low) and not bool((self.low < self.high).all()):
            got = f"{self.low.detach().tolist()} and {self.high.detach().tolist()}"
            raise OptionError(message("Uniform", expected="low < high", got=got))
        if self._looks_at(self.low) and not bool(isfinite(self.high - self.low).all()):
            got = f"{self.low.detach().tolist()} and {self.high.detach().tolist()}"
            expected = f"bounds whose distance {self.low.dtype.name} can hold"
            raise OptionError(message("Uniform", expected=expected, got=got))

    @property
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.low.detach(), self.high.detach())

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Tensor:
        """NaN: no value is more likely than another."""
        return math.nan * self.high

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low) ** 2 / 12

    @property
    def stddev(self) -> Tensor:
        return (self.high - self.low) / math.sqrt(12)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        u = rand(shape, dtype=self.low.dtype, device=self.low.device)
        y = self.low + u * (self.high - self.low)
        # What rounding brings up to ``high`` has the chance that ``low`` lacks: it is half of what
        # the numbers between have.
        return where(y < self.high, y, self.low)

    def log_prob(self, value: Any) -> Tensor:
        x = self._value("log_prob", value)
        inside = (x >= self.low) & (x < self.high)
        return where(inside, -(self.high - self.low).log(), -math.inf)

    def cdf(self, value: Any) -> Tensor:
        x = self._value("cdf", value)
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Any) -> Tensor:
        """The value below which a draw lies with the probability ``value``, from 0 to 1."""
        p = self._probability(value)
        return p * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()
