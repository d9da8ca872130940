"""The multinomial distribution: how often each class comes up in a number of draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from typing import Any, ClassVar, Self

from gradlab import dtypes
from gradlab.autograd import no_grad
from gradlab.distributions import constraints
from gradlab.distributions.categorical import Categorical
from gradlab.distributions.distribution import Distribution, Shape
from gradlab.ops.creation import arange, full, ones, zeros
from gradlab.ops.elementwise import log1p, where
from gradlab.ops.indexing import scatter_add
from gradlab.ops.random import rand
from gradlab.ops.reduction import cumsum, sum as sum_of
from gradlab.ops.sampling import draw_classes
from gradlab.ops.shape import broadcast_to, flip, movedim, stack
from gradlab.ops.special import binomial_quantile, lgamma
from gradlab.tensor import Tensor, require_integer

# Up to so many draws per class they are drawn and counted; counting takes 0.15 µs a draw, finding a
# binomial quantile 1.5 µs a bit of the count (NumPy).
_DRAWN_PER_CLASS = 64


class Multinomial(Distribution):
    """The counts of k classes in ``total_count`` draws of a `Categorical`.

    ``probs`` are 0 or more and are divided by their sum; or ``logits``. Counts have their dtype.

    >>> import gradlab as gl
    >>> counts = Multinomial(100, gl.tensor([0.5, 0.5])).sample()
    >>> counts.shape, counts.sum()
    ((2,), tensor(100.))
    """

    arg_constraints: ClassVar = {
        "probs": constraints.weights,
        "logits": constraints.log_weights,
    }

    def __init__(
        self,
        total_count: int = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        self.total_count = require_integer("Multinomial", "total_count", total_count, 0)
        self._categorical = Categorical(probs, logits, validate_args)
        classes = self._categorical._classes
        super().__init__(self._categorical.batch_shape, (classes,), validate_args)

    @property
    def probs(self) -> Tensor:
        """The probability of each class."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithm of each class's probability."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Shape:
        """The shape of the parameters: the batch, then the classes."""
        return self._categorical.param_shape

    @property
    def support(self) -> constraints.Constraint:
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        p = self.probs
        return self.total_count * p * (1 - p)

    def expand(self, batch_shape: Shape) -> Self:
        made = copy(self)
        made._categorical = self._categorical.expand(batch_shape)
        made._batch_shape = made._categorical.batch_shape
        return made

    def __repr__(self) -> str:
        given = repr(self._categorical).removeprefix("Categorical")[1:-1]
        return f"Multinomial(total_count: {self.total_count}, {given})"

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return self._categorical._tensors()

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            probs = self.probs
            if self.total_count <= _DRAWN_PER_CLASS * (shape[-1] - 1):
                return _counted(self.total_count, probs, shape)
            return _by_quantiles(self.total_count, probs, shape)

    def log_prob(self, value: Any) -> Tensor:
        x = self._value("log_prob", value)
        logits = self.logits
        # 0 draws of an impossible class are certain: 0 · -inf is to be 0.
        terms = where((x == 0) & (logits == -math.inf), 0.0, x * logits)
        orders = lgamma(sum_of(x, -1) + 1) - sum_of(lgamma(x + 1), -1)
        return orders + sum_of(terms, -1)

    def entropy(self) -> Tensor:
        # n H(p) - log n! + Σ_i E[log x_i!], the expectation over x_i, which is binomial. In
        # float64, since the large terms almost cancel.
        n, eps = self.total_count, dtypes.finfo(self.probs.dtype).eps
        p = self.probs.astype(dtypes.float64)
        kept = p.clamp(eps, 1 - eps)
        counts = arange(1, n + 1, dtype=p.dtype, device=p.device).reshape(-1, *[1] * p.ndim)
        log_counts = lgamma(counts + 1)
        choices = math.lgamma(n + 1) - log_counts - lgamma(n - counts + 1)
        binomial = (choices + counts * kept.log() + (n - counts) * log1p(-kept)).exp()
        expected = sum_of(sum_of(binomial * log_counts, 0), -1)
        entropy = -n * sum_of(p * kept.log(), -1) - math.lgamma(n + 1) + expected
        return entropy.astype(self.probs.dtype)


def _counted(total: int, probs: Tensor, shape: Shape) -> Tensor:
    """Draw ``total`` classes for each event, and count them."""
    places, classes = shape[:-1], shape[-1]
    samples = places[: len(places) - (probs.ndim - 1)]
    drawn = draw_classes(probs, (total, *samples)).reshape(total, math.prod(places))
    rows = movedim(drawn, 0, 1)
    counts = zeros(rows.shape[0], classes, dtype=probs.dtype, device=probs.device)
    each = ones(rows.shape, dtype=probs.dtype, device=probs.device)
    return scatter_add(counts, 1, rows, each).reshape(shape)


def _by_quantiles(total: int, probs: Tensor, shape: Shape) -> Tensor:
    """The count of a class, given those before it, is binomial: of the draws that are left.

    The time does not depend on how many draws there are, but for the bits of their number.
    """
    wide = broadcast_to(probs.astype(dtypes.float64), shape)
    left = flip(cumsum(flip(wide, -1), -1), -1)  # the probability of this class and those after it
    u = rand((shape[-1] - 1, *shape[:-1]), dtype=dtypes.float64, device=probs.device)
    remaining = full(shape[:-1], float(total), dtype=dtypes.float64, device=probs.device)
    counts = []
    for i in range(shape[-1] - 1):
        p = where(left[..., i] > 0, wide[..., i] / left[..., i], 0.0).clamp(0, 1)
        counts.append(binomial_quantile(u[i], remaining, p, total))
        remaining = remaining - counts[-1]
    return stack([*counts, remaining], -1).astype(probs.dtype)
