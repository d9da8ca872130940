"""Losses, as modules. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` in all of them."""

from __future__ import annotations

from typing import Any

from gradlab.errors import OptionError, message
from gradlab.nn.module import Module
from gradlab.nn.options import require_positive, require_probability, require_reduction
from gradlab.ops import loss as ops, ranking
from gradlab.tensor import Tensor


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = require_reduction(type(self).__name__, reduction)


class MSELoss(_Loss):
    """The mean of ``(x - target)²``.

    >>> import gradlab as gl
    >>> gl.nn.MSELoss()(gl.tensor([1.0, 3.0]), gl.tensor([1.0, 1.0]))
    tensor(2.)
    """

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean of ``|x - target|``."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.l1_loss(x, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """``½d²`` for ``|d| < delta``, else ``delta·(|d| - ½delta)``, where ``d = x - target`` [1]_.

    .. [1] Huber, "Robust estimation of a location parameter", 1964
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = require_positive("HuberLoss", "delta", delta)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.huber_loss(x, target, reduction=self.reduction, delta=self.delta)


class SmoothL1Loss(_Loss):
    """``½d²/beta`` for ``|d| < beta``, else ``|d| - ½beta``, where ``d = x - target``.

    With ``beta=0`` it is `L1Loss`.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not beta >= 0:
            raise OptionError(message("SmoothL1Loss", expected="beta of 0 or more", got=str(beta)))
        self.beta = beta

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.smooth_l1_loss(x, target, reduction=self.reduction, beta=self.beta)


class _Weighted(_Loss):
    """A loss with a weight per class (or element), which moves with the module."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, reduction: str) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_Weighted):
    """The cross-entropy of scores (logits) with classes, softmax included.

    Parameters
    ----------
    weight: a weight for each of the C classes; the mean is then weighted too.
    ignore_index: a class whose rows are left out.
    label_smoothing: the share of each target that is spread over all classes, in [0, 1].

    The scores have shape (N, C), (C,) or (N, C, d₁, …). The target holds class numbers, of shape
    (N,), () or (N, d₁, …), or probabilities in the shape of the scores.

    Raises `DataError` for class numbers outside 0 … C - 1.

    >>> import gradlab as gl
    >>> scores = gl.tensor([[2.0, 2.0], [0.0, 0.0]])
    >>> gl.nn.CrossEntropyLoss()(scores, gl.tensor([0, 1]))
    tensor(0.6931)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = require_probability(
            "CrossEntropyLoss", "label_smoothing", label_smoothing
        )

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.cross_entropy(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Weighted):
    """The negative log-likelihood: like `CrossEntropyLoss`, of log-probabilities."""

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.nll_loss(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class BCELoss(_Weighted):
    """The binary cross-entropy of probabilities; prefer `BCEWithLogitsLoss` for scores."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.binary_cross_entropy(x, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Weighted):
    """The binary cross-entropy of scores (logits), sigmoid included; never overflows.

    ``weight`` multiplies each element's loss, ``pos_weight`` the part of the positive targets.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.binary_cross_entropy_with_logits(
            x, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(Module):
    """The Kullback-Leibler divergence ``target·(log target - x)``; ``x`` holds log-probabilities.

    ``reduction="batchmean"`` divides the sum by the size of the first axis: the divergence as
    defined, averaged over a batch. With ``log_target`` the target holds log-probabilities too.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__()
        self.reduction = require_reduction("KLDivLoss", reduction, "batchmean")
        self.log_target = log_target

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        options: Any = {"reduction": self.reduction, "log_target": self.log_target}
        return ops.kl_div(x, target, **options)


class MarginRankingLoss(_Loss):
    """The mean of ``max(0, margin - target·(x1 - x2))``; the target 1 ranks ``x1`` higher."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x1: Tensor, x2: Tensor, target: Tensor) -> Tensor:
        return ranking.margin_ranking_loss(x1, x2, target, self.margin, self.reduction)


class HingeEmbeddingLoss(_Loss):
    """The mean of distances ``x`` where the target is 1, of ``max(0, margin - x)`` where -1."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ranking.hinge_embedding_loss(x, target, self.margin, self.reduction)


class CosineEmbeddingLoss(_Loss):
    """The mean of ``1 - cos(x1, x2)`` where the target is 1, ``max(0, cos - margin)`` where -1."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x1: Tensor, x2: Tensor, target: Tensor) -> Tensor:
        return ranking.cosine_embedding_loss(x1, x2, target, self.margin, self.reduction)


class TripletMarginLoss(_Loss):
    """The mean of ``max(0, d(anchor, positive) - d(anchor, negative) + margin)``.

    ``d`` is the p-norm of the difference; ``swap`` takes the negative's distance from the nearer of
    anchor and positive.
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return ranking.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class MultiMarginLoss(_Weighted):
    """The hinge loss of scores (N, C) with labels (N,), for two classes or more."""

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(weight, reduction)
        self.p, self.margin = p, margin

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ranking.multi_margin_loss(
            x, target, self.p, self.margin, self.weight, self.reduction
        )


class SoftMarginLoss(_Loss):
    """The mean of ``log(1 + exp(-target·x))`` for targets of 1 and -1."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ranking.soft_margin_loss(x, target, self.reduction)


class MultiLabelSoftMarginLoss(_Weighted):
    """The binary cross-entropy of scores, averaged over the classes in the last axis."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ranking.multilabel_soft_margin_loss(x, target, self.weight, self.reduction)


class PoissonNLLLoss(_Loss):
    """The negative log-likelihood of counts, of which ``x`` is the (logarithm of the) mean."""

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self.log_input, self.full = log_input, full
        self.eps = require_positive("PoissonNLLLoss", "eps", eps)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ranking.poisson_nll_loss(
            x, target, self.log_input, self.full, self.eps, self.reduction
        )


class GaussianNLLLoss(_Loss):
    """The mean of ``½(log var + (x - target)²/var)``; called with ``(x, target, var)``."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full, self.eps = full, require_positive("GaussianNLLLoss", "eps", eps)

    def forward(self, x: Tensor, target: Tensor, var: Any) -> Tensor:
        return ranking.gaussian_nll_loss(x, target, var, self.full, self.eps, self.reduction)
