"""`Dropout`."""

from __future__ import annotations

from gradlab.nn.module import Module
from gradlab.nn.options import require_probability
from gradlab.ops.random import dropout
from gradlab.tensor import Tensor


class Dropout(Module):
    """Sets each element to 0 with probability ``p`` and scales the rest by 1/(1 - p) [1]_.

    Only in training; in evaluation it returns its input. The same seed drops the same elements on
    every device.

    .. [1] Srivastava et al., "Dropout", JMLR 15, 2014

    >>> import gradlab as gl
    >>> gl.nn.Dropout(0.5).eval()(gl.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = require_probability("Dropout", "p", p)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        y = dropout(x, self.p, self.training)
        return x.copy_(y) if self.inplace and y is not x else y

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
