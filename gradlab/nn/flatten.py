"""Layers that change the shape: `Flatten`, `Unflatten`."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.nn.module import Module
from gradlab.nn.options import require_size
from gradlab.ops.shape import flatten, unflatten
from gradlab.tensor import Tensor


class Flatten(Module):
    """Joins the axes from ``start_dim`` to ``end_dim``: (N, *) → (N, ∏*) by default.

    >>> import gradlab as gl
    >>> gl.nn.Flatten()(gl.zeros(32, 1, 5, 5)).shape
    (32, 25)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits the axis ``dim`` into axes of the sizes ``unflattened_size`` (one may be -1).

    >>> import gradlab as gl
    >>> gl.nn.Unflatten(1, (2, 5, 5))(gl.zeros(2, 50)).shape
    (2, 2, 5, 5)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = require_size("Unflatten", "dim", dim, least=-64)
        self.unflattened_size = tuple(
            require_size("Unflatten", "unflattened_size", size, least=-1)
            for size in unflattened_size
        )

    def forward(self, x: Tensor) -> Tensor:
        return unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
