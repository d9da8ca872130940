"""The categorical distribution: one of several classes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from gradlab import dtypes
from gradlab.autograd import no_grad
from gradlab.distributions import constraints
from gradlab.distributions.distribution import Distribution, Shape
from gradlab.distributions.probabilities import (
    Derived,
    away_from_bounds,
    one_given,
    vectors,
)
from gradlab.ops.creation import arange
from gradlab.ops.elementwise import log
from gradlab.ops.indexing import gather
from gradlab.ops.reduction import argmax, logsumexp, sum as sum_of
from gradlab.ops.sampling import draw_classes
from gradlab.ops.shape import broadcast_to
from gradlab.ops.softmax import softmax
from gradlab.tensor import Tensor


class Categorical(Distribution):
    """A class number from 0 to k - 1, for ``probs`` or ``logits`` of k classes along the last axis.

    ``probs`` are 0 or more and are divided by their sum; ``logits`` are logarithms of such
    probabilities up to a constant. Draws are int64.

    >>> import gradlab as gl
    >>> Categorical(gl.tensor([1.0, 1.0, 2.0])).probs
    tensor([0.2500, 0.2500, 0.5000])
    """

    arg_constraints: ClassVar = {
        "probs": constraints.weights,
        "logits": constraints.log_weights,
    }
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, value = one_given("Categorical", probs, logits)
        given = vectors("Categorical", value)
        self.__dict__[name] = given
        super().__init__(given.shape[:-1], validate_args=validate_args)
        is_probs = name == "probs"
        total = sum_of(given, -1, True) if is_probs else logsumexp(given, -1, True)
        self.__dict__[name] = given / total if is_probs else given - total

    @Derived
    def probs(self) -> Tensor:
        """The probability of each class."""
        return softmax(self.logits, -1)

    @Derived
    def logits(self) -> Tensor:
        """The logarithm of each class's probability, finite also where that is 0."""
        return log(away_from_bounds(self.probs))

    @property
    def _classes(self) -> int:
        given = self.__dict__.get("probs", self.__dict__.get("logits"))
        assert given is not None
        return int(given.shape[-1])

    @property
    def param_shape(self) -> Shape:
        """The shape of the parameters: the batch, then the classes."""
        return (*self._batch_shape, self._classes)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self._classes - 1)

    @property
    def mean(self) -> Tensor:
        """NaN: classes are no quantities."""
        return self.probs.detach()[..., 0] * math.nan

    @property
    def variance(self) -> Tensor:
        """NaN: classes are no quantities."""
        return self.mean

    @property
    def mode(self) -> Tensor:
        return argmax(self.probs, -1)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        self._extended_shape(sample_shape)
        with no_grad():
            return draw_classes(self.probs, tuple(sample_shape))

    def log_prob(self, value: Any) -> Tensor:
        x = self._value("log_prob", value).astype(dtypes.int64)
        shape = np.broadcast_shapes(x.shape, self._batch_shape)
        rows = broadcast_to(self.logits, (*shape, self._classes))
        return gather(rows, -1, broadcast_to(x, shape)[..., None])[..., 0]

    def entropy(self) -> Tensor:
        logits = self.logits.clamp(min=float(dtypes.finfo(self.logits.dtype).min))
        return -sum_of(self.probs * logits, -1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        device = self.probs.device
        classes = arange(self._classes, device=device).reshape(-1, *[1] * len(self._batch_shape))
        return classes.broadcast_to((self._classes, *self._batch_shape)) if expand else classes
