"""The Bernoulli distribution: one toss of a coin."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlab.autograd import no_grad
from gradlab.distributions import constraints
from gradlab.distributions.distribution import Distribution, Shape, parameters
from gradlab.distributions.probabilities import Derived, away_from_bounds, one_given
from gradlab.ops.creation import arange
from gradlab.ops.elementwise import log, log1p, sigmoid, softplus, where
from gradlab.ops.sampling import bernoulli
from gradlab.tensor import Tensor


class Bernoulli(Distribution):
    """1 with probability ``probs``, else 0. ``logits``, ``log(p / (1 - p))``, may be given instead.

    >>> import gradlab as gl
    >>> Bernoulli(0.25).log_prob(gl.tensor([0.0, 1.0])).exp()
    tensor([0.7500, 0.2500])
    """

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.real}
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, value = one_given("Bernoulli", probs, logits)
        (given,) = parameters("Bernoulli", value)
        self.__dict__[name] = given
        super().__init__(given.shape, validate_args=validate_args)

    @Derived
    def probs(self) -> Tensor:
        """The probability of 1."""
        return sigmoid(self.logits)

    @Derived
    def logits(self) -> Tensor:
        """``log(p / (1 - p))``, finite also where p is 0 or 1."""
        p = away_from_bounds(self.probs)
        return log(p) - log1p(-p)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.boolean

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The likelier of 0 and 1; NaN where they are equally likely."""
        p = self.probs.detach()
        return where(p == 0.5, math.nan, (p >= 0.5).astype(p.dtype))

    @property
    def variance(self) -> Tensor:
        p = self.probs
        return p * (1 - p)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return bernoulli(self.probs.broadcast_to(shape))

    def log_prob(self, value: Any) -> Tensor:
        x = self._value("log_prob", value)
        # log p is -softplus(-logits), and log(1 - p) is -softplus(logits).
        return -(x * softplus(-self.logits) + (1 - x) * softplus(self.logits))

    def entropy(self) -> Tensor:
        p = self.probs
        return p * softplus(-self.logits) + (1 - p) * softplus(self.logits)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        p = self.probs
        both = arange(2, dtype=p.dtype, device=p.device).reshape(2, *[1] * p.ndim)
        return both.broadcast_to((2, *p.shape)) if expand else both
