"""`Classifier`: a `Module` whose predictions are scores of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlab.devices import cpu
from gradlab.dtypes import float32, is_floating
from gradlab.errors import OptionError, ShapeError, message
from gradlab.nn.functional import cross_entropy
from gradlab.ops.creation import zeros
from gradlab.tensor import Tensor
from gradlab.training.module import Module, evaluation


class Classifier(Module):
    """A model that scores classes: trained on the cross-entropy, judged by the accuracy too.

    ``forward`` gives logits, of which the last axis are the classes. The labels are class indices;
    for `loss` they may be the probabilities of the classes as well.

    >>> import gradlab as gl
    >>> class Softmax(Classifier):
    ...     def __init__(self, lr):
    ...         super().__init__()
    ...         self.save_hyperparameters()
    ...         self.net = gl.nn.Sequential(gl.nn.Flatten(), gl.nn.LazyLinear(3))
    >>> model = Softmax(lr=0.1)
    >>> model.layer_summary((8, 2, 2))
    Flatten output shape:    (8, 4)
    Linear output shape:     (8, 3)
    """

    def validation_step(self, batch: Any) -> None:
        """Plot the loss and the accuracy of one validation batch."""
        *inputs, y = batch
        y_hat = self(*inputs)
        self.plot("loss", self.loss(y_hat, y), train=False)
        self.plot("acc", self.accuracy(y_hat, y), train=False)

    def loss(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """The cross-entropy of logits ``Y_hat`` (..., classes) and labels ``Y`` (...).

        ``averaged=False`` gives that of each sample, a tensor of one axis. See
        `gradlab.nn.functional.cross_entropy` for its formula.

        >>> import gradlab as gl
        >>> Classifier().loss(gl.zeros(2, 4), gl.tensor([0, 3])).item()  # log 4
        1.3862943649291992
        """
        if not Y_hat.ndim:
            expected = "scores of shape (..., classes)"
            raise ShapeError(message("Classifier.loss", expected=expected, got="shape ()"))
        classes = Y_hat.shape[-1]
        is_distribution = Y.shape == Y_hat.shape and is_floating(Y.dtype)
        Y = Y.reshape(-1, classes) if is_distribution else Y.reshape(-1)
        reduction = "mean" if averaged else "none"
        return cross_entropy(Y_hat.reshape(-1, classes), Y, reduction=reduction)

    def accuracy(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """The fraction of correct predictions, float32; if not ``averaged``, 1 or 0 for each.

        ``Y_hat`` are scores (..., classes), or labels as ``Y`` are.

        >>> import gradlab as gl
        >>> Y_hat = gl.tensor([[0.1, 0.9], [0.8, 0.2]])
        >>> Classifier().accuracy(Y_hat, gl.tensor([1, 1])).item()
        0.5
        """
        right = _right("Classifier.accuracy", Y_hat, Y).astype(float32)
        return right.mean() if averaged else right

    def layer_summary(self, X_shape: Sequence[int]) -> None:
        """Print each layer of ``net`` and the shape of what it gives for an input of ``X_shape``.

        It settles lazy layers, and leaves everything else of the model as it was.
        """
        net = getattr(self, "net", None)
        if net is None or not hasattr(net, "__iter__"):
            raise OptionError(
                message(
                    f"{type(self).__name__}.layer_summary",
                    expected="an attribute `net` of layers one after the other",
                    got="none" if net is None else type(net).__name__,
                    hint="make it an nn.Sequential",
                )
            )
        first = next(iter(self.parameters()), None)
        X = zeros(tuple(X_shape), device=cpu if first is None else first.device)
        with evaluation(self):
            for layer in net:
                X = layer(X)
                print(f"{type(layer).__name__} output shape:\t", X.shape)  # noqa: T201


def accuracy(y_hat: Tensor, y: Tensor) -> float:
    """The number of correct predictions among scores (..., classes), or labels, ``y_hat``.

    >>> import gradlab as gl
    >>> y_hat = gl.tensor([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]])
    >>> accuracy(y_hat, gl.tensor([0, 2])) / 2
    0.5
    """
    return float(_right("accuracy", y_hat, y).sum().item())


def _right(operation: str, y_hat: Tensor, y: Tensor) -> Tensor:
    """For each label, in one axis, whether the prediction is correct."""
    if y_hat.numel() != y.numel():  # else they are labels, or the scores of a single class
        if y_hat.ndim == 0 or y_hat.numel() != y.numel() * y_hat.shape[-1]:
            raise ShapeError(
                message(
                    operation,
                    expected="scores (..., classes) and labels (...), or labels for both",
                    got=f"shapes {y_hat.shape} and {y.shape}",
                )
            )
        y_hat = y_hat.argmax(axis=-1)
    return y_hat.reshape(-1) == y.reshape(-1)
