"""Special functions of probability: the gamma function's logarithm and derivatives, erf's inverse.

They come from SciPy and from CuPy's counterpart of it. `erf` stands with the elementwise functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from gradlab.errors import OptionError, message
from gradlab.ops.core import FLOAT, Op, apply, public
from gradlab.ops.elementwise import TensorLike, exp, special
from gradlab.ops.samples import Sample, unary
from gradlab.tensor import Tensor

_REAL = "biufV"

ERFINV = Op(
    "erfinv",
    # SciPy takes 5 µs for a value beyond ±1, where there is no result.
    lambda xp, x: special(xp).erfinv(xp.where(xp.abs(x) > 1, x.dtype.type("nan"), x)),
    gradients={"x": lambda gy, y: gy * exp(y * y) * (math.sqrt(math.pi) / 2)},
    dtype=FLOAT,
    kinds=_REAL,
    halves=True,
    samples=unary(-0.9, 0.9),
)


@public(ERFINV, "erfinv")
def erfinv(x: TensorLike) -> Tensor:
    """Return the y with ``erf(y) = x``: ±inf at ±1, NaN beyond.

    >>> erfinv(gl.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.4769,    inf])
    """
    return apply(ERFINV, (x,))


def _positive_samples(order: int | None = None) -> Iterable[Sample]:
    """Values around the minimum of the gamma function, and larger ones."""
    given = () if order is None else (order,)
    for sample in unary(0.5, 4.0)():
        yield Sample((*given, *sample.args), name=sample.name, large=sample.large)


LGAMMA = Op(
    "lgamma",
    lambda xp, x: special(xp).gammaln(x),
    gradients={"x": lambda gy, x: gy * digamma(x)},
    dtype=FLOAT,
    kinds=_REAL,
    halves=True,
    samples=_positive_samples,
)


@public(LGAMMA, "lgamma")
def lgamma(x: TensorLike) -> Tensor:
    """Return ``log |Γ(x)|``; ``Γ(n + 1)`` is n factorial. inf at 0, -1, -2, ….

    >>> lgamma(gl.tensor([1.0, 2.0, 5.0])).exp()
    tensor([ 1.,  1., 24.])
    """
    return apply(LGAMMA, (x,))


DIGAMMA = Op(
    "digamma",
    lambda xp, x: special(xp).digamma(x),
    gradients={"x": lambda gy, x: gy * polygamma(1, x)},
    dtype=FLOAT,
    kinds=_REAL,
    halves=True,
    samples=_positive_samples,
)


@public(DIGAMMA, "digamma")
def digamma(x: TensorLike) -> Tensor:
    """Return the derivative of `lgamma`.

    >>> digamma(gl.tensor([1.0]))
    tensor([-0.5772])
    """
    return apply(DIGAMMA, (x,))


def _polygamma_forward(xp: Any, x: Any, *, order: int) -> Any:
    # ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n + 1, x) [DLMF 5.15.1]
    factor = (-1) ** (order + 1) * math.factorial(order)
    return special(xp).zeta(x.dtype.type(order + 1), x) * x.dtype.type(factor)


def _polygamma_samples() -> Iterator[Sample]:
    for order in (1, 2):
        yield from _positive_samples(order)


POLYGAMMA = Op(
    "polygamma",
    _polygamma_forward,
    gradients={"x": lambda gy, x, order: gy * polygamma(order + 1, x)},
    dtype=FLOAT,
    kinds=_REAL,
    halves=True,
    samples=_polygamma_samples,
)


@public(POLYGAMMA)
def polygamma(n: int, x: TensorLike) -> Tensor:
    """Return the n-th derivative of `digamma`; ``n`` is from 0 to 170, as 171! has no float64.

    >>> polygamma(1, gl.tensor([1.0]))
    tensor([1.6449])
    """
    if type(n) is not int or not 0 <= n <= 170:
        raise OptionError(message("polygamma", expected="an integer n from 0 to 170", got=repr(n)))
    return apply(POLYGAMMA, (x,), {"order": n}) if n else digamma(x)


def _binomial_quantile(xp: Any, u: Any, n: Any, p: Any, *, limit: int) -> Any:
    betainc = special(xp).betainc
    low, high = xp.zeros_like(n), n
    for _ in range(limit.bit_length()):
        middle = xp.floor((low + high) / 2)
        # P(K <= k) = I(1 - p; n - k, k + 1), the regularized incomplete beta function [DLMF 8.17.5]
        below = betainc(xp.maximum(n - middle, 1.0), middle + 1, 1 - p)
        beyond = (below <= u) & (low < high)
        low, high = xp.where(beyond, middle + 1, low), xp.where(beyond, high, middle)
    return low


BINOMIAL_QUANTILE = Op(
    "binomial_quantile",
    _binomial_quantile,
    inputs=("u", "n", "p"),
    why_not="its result is a count",
)


def binomial_quantile(u: Tensor, n: Tensor, p: Tensor, limit: int) -> Tensor:
    """The smallest k with ``P(K <= k) > u`` for a count K of ``n`` draws with probability ``p``.

    All are float64, of one shape, and ``n`` at most ``limit``. With uniform ``u`` the result is
    binomially distributed; a binary search finds it, in as many steps for all elements.
    """
    return apply(BINOMIAL_QUANTILE, (u, n, p), {"limit": limit})
