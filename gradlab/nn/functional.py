"""The functions behind the layers, under their names in ``torch.nn.functional``.

>>> import gradlab as gl
>>> import gradlab.nn.functional as F
>>> F.relu(gl.tensor([-1.0, 1.0]))
tensor([0., 1.])
"""

from __future__ import annotations

from typing import Any

from gradlab.arguments import guard_namespace
from gradlab.ops import embedding as embedding_ops
from gradlab.ops.activation import (
    celu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    mish,
    relu6,
    selu,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from gradlab.ops.elementwise import (
    elu,
    gelu,
    leaky_relu,
    logsigmoid,
    prelu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from gradlab.ops.indexing import one_hot
from gradlab.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from gradlab.ops.matmul import linear, linear_act
from gradlab.ops.normalization import batch_norm, layer_norm, normalize, rms_norm
from gradlab.ops.padding import pad
from gradlab.ops.random import dropout
from gradlab.ops.ranking import (
    cosine_embedding_loss,
    cosine_similarity,
    gaussian_nll_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_soft_margin_loss,
    pairwise_distance,
    poisson_nll_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from gradlab.ops.shape import flatten, unflatten
from gradlab.ops.softmax import log_softmax, softmax, softmin
from gradlab.tensor import Tensor

__all__ = [
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_act",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "unflatten",
]


def embedding(x: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return the rows of ``weight`` (count, width) at the integers ``x``: shape (*x.shape, width).

    The row ``padding_idx`` gets no gradient. Raises `AxisError` for a number outside the table.

    >>> import gradlab as gl
    >>> embedding(gl.tensor([1, 0]), gl.tensor([[0.0, 1.0], [2.0, 3.0]]))
    tensor([[2., 3.],
            [0., 1.]])
    """
    return embedding_ops.embedding(weight, x, padding_idx)


guard_namespace(globals())
