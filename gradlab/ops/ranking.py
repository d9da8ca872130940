"""How alike vectors are, and losses that compare scores or vectors with one another.

Each is put together from other ops. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.
"""

from __future__ import annotations

import math
from typing import Any

from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops.core import in_float32
from gradlab.ops.elementwise import (
    exp,
    log,
    logsigmoid,
    maximum,
    minimum,
    relu,
    softplus,
    sqrt,
    where,
)
from gradlab.ops.indexing import gather, one_hot
from gradlab.ops.loss import check_reduction
from gradlab.ops.reduction import vector_norm
from gradlab.tensor import Tensor, operand_beside


def _reduce(operation: str, losses: Tensor, reduction: str) -> Tensor:
    check_reduction(operation, reduction)
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


@in_float32
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the cosine of the angle between vectors along an axis, from -1 to 1.

    ``x1·x2 / (max(‖x1‖, eps)·max(‖x2‖, eps))``; the shapes broadcast.

    >>> import gradlab as gl
    >>> cosine_similarity(gl.tensor([3.0, 4.0]), gl.tensor([1.0, 0.0]), dim=0)
    tensor(0.6000)
    """
    lengths = [vector_norm(x, axis=dim).clip(min=eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / (lengths[0] * lengths[1])


@in_float32
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Return the p-norm of ``x1 - x2 + eps`` along the last axis.

    ``eps`` keeps the gradient of equal vectors finite.

    >>> import gradlab as gl
    >>> pairwise_distance(gl.tensor([[3.0, 4.0]]), gl.zeros(1, 2))
    tensor([5.0000])
    """
    return vector_norm(x1 - x2 + eps, ord=p, axis=-1, keepdims=keepdim)


@in_float32
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return the mean of ``max(0, margin - target·(input1 - input2))``.

    ``target`` is 1 where ``input1`` is to rank higher, -1 where ``input2`` is.

    >>> import gradlab as gl
    >>> margin_ranking_loss(gl.tensor([1.0]), gl.tensor([3.0]), gl.tensor([1.0]))
    tensor(2.)
    """
    losses = relu(margin - target * (input1 - input2))
    return _reduce("margin_ranking_loss", losses, reduction)


@in_float32
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return the mean of the distances ``input`` where ``target`` is 1, and of
    ``max(0, margin - input)`` where it is -1.

    >>> import gradlab as gl
    >>> hinge_embedding_loss(gl.tensor([0.5, 0.25]), gl.tensor([1.0, -1.0]), reduction="none")
    tensor([0.5000, 0.7500])
    """
    losses = where(target == 1, input, relu(margin - input))
    return _reduce("hinge_embedding_loss", losses, reduction)


@in_float32
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return the mean of ``1 - cos`` where ``target`` is 1, of ``max(0, cos - margin)`` where -1.

    ``cos`` is that of the angle between the rows of the inputs, of shape (N, D) or (D,).

    >>> import gradlab as gl
    >>> cosine_embedding_loss(gl.tensor([3.0, 4.0]), gl.tensor([1.0, 0.0]), gl.tensor(1.0))
    tensor(0.4000)
    """
    tiny = 1e-12  # as PyTorch adds to both squares
    squares = ((input1 * input1).sum(-1) + tiny) * ((input2 * input2).sum(-1) + tiny)
    cosine = (input1 * input2).sum(-1) / sqrt(squares)
    losses = where(target == 1, 1 - cosine, relu(cosine - margin))
    return _reduce("cosine_embedding_loss", losses, reduction)


@in_float32
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
    eps: float = 1e-6, swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the mean of ``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` [1]_.

    ``d`` is `pairwise_distance`; with ``swap`` the negative is taken from the nearer of anchor and
    positive.

    >>> import gradlab as gl
    >>> triplet_margin_loss(gl.zeros(1, 2), gl.zeros(1, 2), gl.tensor([[0.0, 0.5]]))
    tensor(0.5000)

    .. [1] Schroff et al., https://arxiv.org/abs/1503.03832
    """
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduce("triplet_margin_loss", relu(near - far + margin), reduction)


@in_float32
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return ``Σ max(0, margin - x[target] + x[class])ᵖ / C`` over the classes but the target.

    The hinge loss for several classes, averaged over the batch: ``input`` holds scores (N, C) or
    (C,), ``target`` labels (N,) or (), ``weight`` a factor for each class.

    >>> import gradlab as gl
    >>> multi_margin_loss(gl.tensor([[0.5, 1.0]]), gl.tensor([1]))
    tensor(0.2500)
    """
    name = "multi_margin_loss"
    if p not in (1, 2):
        raise OptionError(message(name, expected="p of 1 or 2", got=repr(p)))
    if input.ndim not in (1, 2) or tuple(target.shape) != input.shape[:-1]:
        raise ShapeError(
            message(
                name,
                expected="scores (N, C) and labels (N,)",
                got=f"shapes {input.shape} and {target.shape}",
            )
        )
    classes = input.shape[-1]
    of_target = gather(input, -1, target.unsqueeze(-1))
    losses = relu(margin - of_target + input)
    losses = losses if p == 1 else losses * losses
    if weight is not None:
        losses = losses * weight[target].unsqueeze(-1)
    others = 1 - one_hot(target, classes).astype(input.dtype)
    return _reduce(name, (losses * others).sum(-1) / classes, reduction)


@in_float32
def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Return the mean of ``log(1 + exp(-target·input))`` for targets of 1 and -1.

    >>> import gradlab as gl
    >>> soft_margin_loss(gl.zeros(2), gl.tensor([1.0, -1.0]))
    tensor(0.6931)
    """
    return _reduce("soft_margin_loss", softplus(-target * input), reduction)


@in_float32
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the binary cross-entropy of scores, averaged over the classes in the last axis.

    ``target`` is 1 for the classes that a sample has, else 0; ``weight`` a factor for each class.

    >>> import gradlab as gl
    >>> multilabel_soft_margin_loss(gl.zeros(1, 3), gl.tensor([[1.0, 0.0, 1.0]]))
    tensor(0.6931)
    """
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    losses = losses if weight is None else losses * weight
    return _reduce("multilabel_soft_margin_loss", losses.mean(-1), reduction)


@in_float32
def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the negative log-likelihood of counts under Poisson distributions, up to a constant.

    ``input`` is the logarithm of the mean, or the mean itself without ``log_input``: ``exp(input) -
    target·input``, or ``input - target·log(input + eps)``. ``full`` adds Stirling's approximation
    of the constant, ``log target!``, for targets above 1.

    >>> import gradlab as gl
    >>> poisson_nll_loss(gl.zeros(2), gl.tensor([1.0, 3.0]))
    tensor(1.)
    """
    losses = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        count = maximum(target, 1.0)
        constant = count * log(count) - count + 0.5 * log(2 * math.pi * count)
        losses = losses + where(target > 1, constant, 0.0)
    return _reduce("poisson_nll_loss", losses, reduction)


@in_float32
def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the mean of ``½(log var + (input - target)²/var)``, from normal distributions.

    ``var`` is a variance for each element, of a shape that broadcasts to that of ``input``, or a
    number; below ``eps`` it counts as ``eps``. ``full`` adds the constant ``½ log 2π``.

    >>> import gradlab as gl
    >>> gaussian_nll_loss(gl.tensor([1.0]), gl.tensor([3.0]), var=gl.tensor([1.0]))
    tensor(2.)
    """
    at_least = maximum(operand_beside(input, var, "gaussian_nll_loss"), eps)
    distance = input - target
    losses = 0.5 * (log(at_least) + distance * distance / at_least)
    losses = losses + 0.5 * math.log(2 * math.pi) if full else losses
    return _reduce("gaussian_nll_loss", losses, reduction)


__all__ = [
    "cosine_embedding_loss",
    "cosine_similarity",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "pairwise_distance",
    "poisson_nll_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
]
