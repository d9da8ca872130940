"""Activations put together from other ops: those of straight pieces, and rarer smooth ones.

Where ``x`` is NaN so is the result, and the gradient is not 0: the pieces of a constant value are
asked for, and what lies in none of them goes through.
"""

from __future__ import annotations

from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops.core import in_float32
from gradlab.ops.elementwise import (
    abs,
    clip,
    elu,
    sigmoid,
    sign,
    softplus,
    tanh,
    where,
)
from gradlab.ops.shape import split
from gradlab.tensor import Tensor

# The constants for which activations of mean 0 and variance 1 stay so from layer to layer.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Limit ``x`` to [``min_val``, ``max_val``]; the gradient outside is 0.

    >>> import gradlab as gl
    >>> hardtanh(gl.tensor([-2.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    if not min_val < max_val:
        got = f"{min_val} and {max_val}"
        raise OptionError(message("hardtanh", expected="min_val below max_val", got=got))
    outside = (x <= min_val) | (x >= max_val)
    return where(outside, clip(x, min_val, max_val).detach(), x)


def relu6(x: Tensor) -> Tensor:
    """Limit ``x`` to [0, 6].

    >>> import gradlab as gl
    >>> relu6(gl.tensor([-2.0, 8.0]))
    tensor([0., 6.])
    """
    return hardtanh(x, 0.0, 6.0)


@in_float32
def selu(x: Tensor) -> Tensor:
    """Return ``scale·elu(x, alpha)`` with the constants that keep mean 0 and variance 1 [1]_.

    >>> import gradlab as gl
    >>> selu(gl.tensor([0.0, 1.0]))
    tensor([0.0000, 1.0507])

    .. [1] Klambauer et al., https://arxiv.org/abs/1706.02515
    """
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


@in_float32
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return ``x`` where positive, else ``alpha·(exp(x/alpha) - 1)``, whose slope at 0 is 1.

    >>> import gradlab as gl
    >>> celu(gl.tensor([-1.0, 1.0]), alpha=2.0)
    tensor([-0.7869,  1.0000])
    """
    if not alpha > 0:
        raise OptionError(message("celu", expected="alpha above 0", got=repr(alpha)))
    return elu(x / alpha) * alpha


@in_float32
def softsign(x: Tensor) -> Tensor:
    """Return ``x / (1 + |x|)``, in (-1, 1).

    >>> import gradlab as gl
    >>> softsign(gl.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """
    return x / (1 + abs(x))


@in_float32
def mish(x: Tensor) -> Tensor:
    """Return ``x·tanh(softplus(x))`` [1]_.

    >>> import gradlab as gl
    >>> mish(gl.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8651])

    .. [1] Misra, https://arxiv.org/abs/1908.08681
    """
    return x * tanh(softplus(x))


@in_float32
def hardsigmoid(x: Tensor) -> Tensor:
    """Return ``x/6 + 1/2`` limited to [0, 1].

    >>> import gradlab as gl
    >>> hardsigmoid(gl.tensor([-4.0, 0.0]))
    tensor([0.0000, 0.5000])
    """
    return hardtanh(x / 6 + 0.5, 0.0, 1.0)


@in_float32
def hardswish(x: Tensor) -> Tensor:
    """Return ``x·hardsigmoid(x)`` [1]_.

    >>> import gradlab as gl
    >>> hardswish(gl.tensor([-4.0, 3.0]))
    tensor([-0.,  3.])

    .. [1] Howard et al., https://arxiv.org/abs/1905.02244
    """
    return x * hardsigmoid(x)


@in_float32
def tanhshrink(x: Tensor) -> Tensor:
    """Return ``x - tanh(x)``.

    >>> import gradlab as gl
    >>> tanhshrink(gl.tensor([0.0, 1.0]))
    tensor([0.0000, 0.2384])
    """
    return x - tanh(x)


@in_float32
def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Bring ``x`` nearer to 0 by ``lambd``, and to 0 what is within that.

    >>> import gradlab as gl
    >>> softshrink(gl.tensor([-2.0, 0.25]))
    tensor([-1.5000,  0.0000])
    """
    if not lambd >= 0:
        raise OptionError(message("softshrink", expected="lambd of 0 or more", got=repr(lambd)))
    return where(abs(x) <= lambd, 0.0, x - lambd * sign(x))


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Return ``x`` where ``|x|`` is above ``lambd``, else 0.

    >>> import gradlab as gl
    >>> hardshrink(gl.tensor([-2.0, 0.25]))
    tensor([-2.,  0.])
    """
    return where(abs(x) <= lambd, 0.0, x)


def threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    """Return ``x`` where above ``threshold``, else ``value``.

    >>> import gradlab as gl
    >>> threshold(gl.tensor([0.5, 2.0]), 1.0, -1.0)
    tensor([-1.,  2.])
    """
    return where(x <= threshold, value, x)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """Return ``a·sigmoid(b)``, where ``a`` and ``b`` are the halves of ``x`` along an axis [1]_.

    Raises `ShapeError` where the axis has an odd size.

    >>> import gradlab as gl
    >>> glu(gl.tensor([2.0, 4.0, 0.0, 0.0]))
    tensor([1., 2.])

    .. [1] Dauphin et al., https://arxiv.org/abs/1612.08083
    """
    size = x.size(dim)
    if size % 2:
        raise ShapeError(message("glu", expected="an axis of even size", got=f"shape {x.shape}"))
    a, b = split(x, size // 2, dim)
    return a * sigmoid(b)


__all__ = [
    "celu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "mish",
    "relu6",
    "selu",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]
