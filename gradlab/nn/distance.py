"""Layers that compare vectors."""

from __future__ import annotations

from gradlab.nn.module import Module
from gradlab.ops.ranking import cosine_similarity, pairwise_distance
from gradlab.tensor import Tensor


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along an axis.

    >>> import gradlab as gl
    >>> gl.nn.CosineSimilarity(dim=0)(gl.tensor([3.0, 4.0]), gl.tensor([1.0, 0.0]))
    tensor(0.6000)
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of the difference of vectors in the last axis."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
