"""The normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gradlab.distributions import constraints
from gradlab.distributions.distribution import Distribution, Shape, parameters
from gradlab.ops.elementwise import erf
from gradlab.ops.random import randn
from gradlab.ops.special import erfinv
from gradlab.tensor import Tensor


class Normal(Distribution):
    """The normal (Gaussian) distribution with mean ``loc`` and standard deviation ``scale``.

    Both are finite numbers or tensors, which broadcast; ``scale`` is greater than 0.

    >>> import gradlab as gl
    >>> Normal(0.0, 1.0).log_prob(gl.tensor(0.0))
    tensor(-0.9189)
    """

    arg_constraints: ClassVar = {
        "loc": constraints.finite,
        "scale": constraints.finite_positive,
    }
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters("Normal", loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        z = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + z * self.scale

    def log_prob(self, value: Any) -> Tensor:
        x = self._value("log_prob", value)
        z = (x - self.loc) / self.scale
        return -0.5 * z * z - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Any) -> Tensor:
        x = self._value("cdf", value)
        return 0.5 * (1 + erf((x - self.loc) / self.scale * math.sqrt(0.5)))

    def icdf(self, value: Any) -> Tensor:
        """The value below which a draw lies with the probability ``value``, from 0 to 1."""
        p = self._probability(value)
        return self.loc + self.scale * erfinv(2 * p - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()
