"""`Embedding`: rows of a table, looked up by number."""

from __future__ import annotations

from typing import Any, Self

from gradlab.autograd.modes import no_grad
from gradlab.devices import DeviceLike
from gradlab.errors import OptionError, ShapeError, message
from gradlab.nn import init
from gradlab.nn.module import Module
from gradlab.nn.options import require_size
from gradlab.nn.parameter import Parameter
from gradlab.ops.creation import empty
from gradlab.ops.embedding import embedding
from gradlab.tensor import Tensor


class Embedding(Module):
    """A table of ``num_embeddings`` vectors: integers (*) → (*, embedding_dim).

    ``weight`` begins standard normal. The row ``padding_idx`` begins at 0 and gets no gradient.

    Raises `AxisError` for a number outside the table and `DTypeError` for one that is no integer.

    >>> import gradlab as gl
    >>> gl.nn.Embedding(10, 3)(gl.tensor([[1, 2, 4, 5], [4, 3, 2, 9]])).shape
    (2, 4, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = require_size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = require_size("Embedding", "embedding_dim", embedding_dim)
        self.padding_idx = _row("Embedding", padding_idx, self.num_embeddings)
        self.weight = Parameter(
            empty(self.num_embeddings, self.embedding_dim, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """An embedding of a given table, whose memory it shares; not trained if ``freeze``."""
        if embeddings.ndim != 2:
            raise ShapeError(
                message(
                    "Embedding.from_pretrained",
                    expected="a table of 2 axes",
                    got=f"shape {embeddings.shape}",
                )
            )
        made = cls.__new__(cls)
        Module.__init__(made)
        made.num_embeddings, made.embedding_dim = embeddings.shape
        made.padding_idx = _row("Embedding", padding_idx, made.num_embeddings)
        made.weight = Parameter(embeddings, requires_grad=not freeze)
        return made

    def forward(self, x: Tensor) -> Tensor:
        return embedding(self.weight, x, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _row(layer: str, number: int | None, count: int) -> int | None:
    if number is None:
        return None
    if not -count <= number < count:
        expected = f"padding_idx from {-count} to {count - 1}, or None"
        raise OptionError(message(layer, expected=expected, got=str(number)))
    return number % count
