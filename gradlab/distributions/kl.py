"""The Kullback-Leibler divergence of pairs of distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gradlab.distributions.bernoulli import Bernoulli
from gradlab.distributions.categorical import Categorical
from gradlab.distributions.distribution import Distribution
from gradlab.distributions.normal import Normal
from gradlab.distributions.uniform import Uniform
from gradlab.errors import NotSupportedError, ShapeError, message
from gradlab.ops.core import in_float32
from gradlab.ops.elementwise import softplus, where
from gradlab.ops.reduction import sum as sum_of
from gradlab.tensor import Tensor

Divergence = Callable[[Any, Any], Tensor]
F = TypeVar("F", bound=Divergence)

_DIVERGENCES: dict[tuple[type, type], Divergence] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[F], F]:
    """A decorator that makes a function ``f(p, q)`` the divergence of two classes.

    It holds for subclasses too, where none is registered for them.

    >>> class Shifted(Normal): pass
    >>> @register_kl(Shifted, Shifted)
    ... def kl_of_shifted(p, q):
    ...     return (p.loc - q.loc) ** 2 / 2
    >>> kl_divergence(Shifted(1.0, 1.0), Shifted(0.0, 1.0))
    tensor(0.5000)
    """

    def register(function: F) -> F:
        _DIVERGENCES[type_p, type_q] = function
        return function

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """Return ``KL(p ‖ q) = E_p[log p - log q]`` in nats, over the common batch.

    Raises `NotSupportedError` for a pair of classes that none is known for; see `register_kl`.

    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0))
    tensor(0.5000)
    """
    function = _closest(type(p), type(q))
    try:
        np.broadcast_shapes(p.batch_shape, q.batch_shape)
    except ValueError:
        got = f"{p.batch_shape} and {q.batch_shape}"
        expected = "batch shapes that broadcast"
        raise ShapeError(message("kl_divergence", expected=expected, got=got)) from None
    return function(p, q)


def _closest(type_p: type, type_q: type) -> Divergence:
    # The pair that is closest to the two classes, counted in steps up their bases.
    bases_p, bases_q = type_p.__mro__, type_q.__mro__
    known = [
        (bases_p.index(a) + bases_q.index(b), bases_p.index(a), function)
        for (a, b), function in _DIVERGENCES.items()
        if a in bases_p and b in bases_q
    ]
    if not known:
        got = f"{type_p.__name__} and {type_q.__name__}"
        raise NotSupportedError(
            message(
                "kl_divergence",
                expected="two distributions whose divergence is known",
                got=got,
                hint="give it with @register_kl",
            )
        )
    return min(known, key=lambda each: each[:2])[2]


@register_kl(Normal, Normal)
def _normal_normal(p: Normal, q: Normal) -> Tensor:
    return _between_normals(p.loc, p.scale, q.loc, q.scale)


@in_float32
def _between_normals(loc1: Tensor, scale1: Tensor, loc2: Tensor, scale2: Tensor) -> Tensor:
    ratio = (scale1 / scale2) ** 2
    return 0.5 * (ratio + ((loc1 - loc2) / scale2) ** 2 - 1 - ratio.log())


@register_kl(Uniform, Uniform)
def _uniform_uniform(p: Uniform, q: Uniform) -> Tensor:
    inside = (q.low <= p.low) & (p.high <= q.high)
    return where(inside, ((q.high - q.low) / (p.high - p.low)).log(), math.inf)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Uniform, q: Normal) -> Tensor:
    width = p.high - p.low
    square = ((p.mean - q.loc) ** 2 + width**2 / 12) / (2 * q.scale**2)
    return (q.scale * math.sqrt(2 * math.pi) / width).log() + square


@register_kl(Normal, Uniform)
def _normal_uniform(p: Normal, q: Uniform) -> Tensor:
    return (p.loc - q.low) * 0 + math.inf


@register_kl(Bernoulli, Bernoulli)
def _bernoulli_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    # The logits of 0 and 1 are finite, so that what is infinite or nothing is said here.
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = where(p.probs == 0, 0.0, where(q.probs == 0, math.inf, one))
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    zero = where(p.probs == 1, 0.0, where(q.probs == 1, math.inf, zero))
    return one + zero


@register_kl(Categorical, Categorical)
def _categorical_categorical(p: Categorical, q: Categorical) -> Tensor:
    if p.param_shape[-1] != q.param_shape[-1]:
        got = f"{p.param_shape[-1]} and {q.param_shape[-1]}"
        raise ShapeError(message("kl_divergence", expected="equally many classes", got=got))
    probs = p.probs
    terms = where(q.probs == 0, math.inf, probs * (p.logits - q.logits))
    return sum_of(where(probs == 0, 0.0, terms), -1)
