"""The models of the course notes: each written from scratch, and with the layers of `gradlab.nn`.

Those from scratch are there to be read: tensors, products, and gradients by autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradlab import nn, optim
from gradlab.autograd import no_grad
from gradlab.dtypes import finfo
from gradlab.fields import NUMBER, check_fields
from gradlab.nn import functional as F
from gradlab.ops.creation import arange, zeros
from gradlab.ops.elementwise import exp, log, maximum
from gradlab.ops.matmul import matmul
from gradlab.ops.random import normal
from gradlab.tensor import Tensor
from gradlab.training.classifier import Classifier
from gradlab.training.hyperparameters import HyperParameters
from gradlab.training.module import Module

# --------------------------------------------------------------------------- linear regression


class SGD(HyperParameters):
    """Stochastic gradient descent from scratch: each parameter moves by −lr·gradient.

    `gradlab.optim.SGD` has momentum, weight decay and groups, and updates all parameters in one op.

    >>> import gradlab as gl
    >>> w = gl.tensor([4.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.item()
    2.0
    """

    params: list[Tensor]
    lr: float

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        params = list(params)
        self.save_hyperparameters()

    def step(self) -> None:
        """Update the parameters that have a gradient, in place and outside the graph."""
        with no_grad():
            for param in self.params:
                if param.grad is not None:
                    param -= self.lr * param.grad

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        for param in self.params:
            if param.grad is not None:
                param.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the learning rate."""
        return {"lr": self.lr}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_fields("SGD.load_state_dict", state_dict, {"lr": NUMBER})
        self.lr = state_dict["lr"]


class LinearRegressionScratch(Module):
    """Linear regression from scratch: ŷ = Xw + b with half the mean squared error.

    Parameters
    ----------
    num_inputs: the number of features, d.
    lr: the learning rate.
    sigma: the standard deviation of the initial weights; b starts at 0.

    X has shape (n, d), ŷ and y (n, 1), ``w`` (d, 1) and ``b`` (1,).

    >>> import gradlab as gl
    >>> model = LinearRegressionScratch(2, lr=0.03)
    >>> X, y = gl.ones(5, 2), gl.zeros(5, 1)
    >>> model(X).shape, model.loss(model(X), y).shape
    ((5, 1), ())
    """

    num_inputs: int
    lr: float
    sigma: float

    def __init__(self, num_inputs: int, lr: float, sigma: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.w = normal(0, sigma, (num_inputs, 1), requires_grad=True)
        self.b = zeros(1, requires_grad=True)

    def forward(self, X: Tensor) -> Tensor:
        """The predictions, of shape (n, 1)."""
        return matmul(X, self.w) + self.b

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The mean of ½(ŷ − y)²."""
        # Of shapes (n, 1) and (n,), the difference would be all n² of them.
        return ((y_hat - y.reshape(y_hat.shape)) ** 2 / 2).mean()

    def configure_optimizers(self) -> Any:
        """`SGD` from scratch."""
        return SGD([self.w, self.b], self.lr)

    def get_w_b(self) -> tuple[Tensor, Tensor]:
        """The weights (d, 1) and the bias (1,), without history."""
        return self.w.data, self.b.data


class LinearRegression(Module):
    """Linear regression on `nn.LazyLinear`, with the mean squared error.

    ``lr`` is the learning rate. X has shape (n, d), where d shows with the first batch; ŷ and y
    have (n, 1). The initial weights have a standard deviation of 0.01, the bias starts at 0.

    >>> import gradlab as gl
    >>> model = LinearRegression(lr=0.03)
    >>> model(gl.ones(5, 2)).shape
    (5, 1)
    >>> w, b = model.get_w_b()
    >>> w.shape, b.item()
    ((1, 2), 0.0)
    """

    lr: float

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = _SmallLinear(1)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The mean of (ŷ − y)²."""
        return F.mse_loss(y_hat, y)

    def configure_optimizers(self) -> Any:
        """`gradlab.optim.SGD`."""
        return optim.SGD(self.parameters(), lr=self.lr)

    def get_w_b(self) -> tuple[Tensor, Tensor]:
        """The weights (1, d) and the bias (1,), without history."""
        assert self.net.bias is not None
        return self.net.weight.data, self.net.bias.data


class _SmallLinear(nn.LazyLinear):
    """A lazy layer that begins near 0. Values set before its first input would be lost."""

    def initialize_parameters(self, in_features: int) -> None:
        drawn = isinstance(self.weight, nn.UninitializedParameter)
        super().initialize_parameters(in_features)
        if drawn:
            nn.init.normal_(self.weight, mean=0, std=0.01)
            if self.bias is not None:
                nn.init.zeros_(self.bias)

    def _get_name(self) -> str:
        return "LazyLinear"  # as the notes print the model


# --------------------------------------------------------------------------- softmax regression


class SoftmaxRegressionScratch(Classifier):
    """Softmax regression from scratch: probabilities softmax(XW + b) and their cross-entropy.

    Parameters
    ----------
    num_inputs: the number of features, d; an input of more axes is flattened.
    num_outputs: the number of classes, k.
    lr: the learning rate.
    sigma: the standard deviation of the initial weights; b starts at 0.

    X has shape (n, ...) with d features in all, ŷ (n, k), y (n,) of int64; ``W`` (d, k) and ``b``
    (k,).

    Logits of any size, ±1e4 too, give probabilities that are finite and sum to 1, because the
    largest logit of a row is first taken off all of it. A probability too small for its dtype
    counts in the loss as the smallest that is not (1.2e-38 in float32): a loss of 87 at most, and
    no gradient. `SoftmaxRegression`, whose loss is made from the logits, has no such limit.

    >>> import gradlab as gl
    >>> model = SoftmaxRegressionScratch(784, 10, lr=0.1)
    >>> y_hat = model(gl.ones(3, 1, 28, 28))
    >>> y_hat.shape, gl.allclose(y_hat.sum(axis=1), gl.ones(3))
    ((3, 10), True)
    """

    num_inputs: int
    num_outputs: int
    lr: float
    sigma: float

    def __init__(self, num_inputs: int, num_outputs: int, lr: float, sigma: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.W = normal(0, sigma, (num_inputs, num_outputs), requires_grad=True)
        self.b = zeros(num_outputs, requires_grad=True)

    def forward(self, X: Tensor) -> Tensor:
        """The probabilities of the classes, (n, k)."""
        X = X.reshape(-1, self.W.shape[0])
        return _softmax(matmul(X, self.W) + self.b)

    def loss(self, y_hat: Tensor, y: Tensor, averaged: bool = True) -> Tensor:
        """The cross-entropy −log ŷ[i, y[i]], its mean if ``averaged``, else that of each row."""
        right = y_hat[arange(len(y), device=y.device), y]
        losses = -log(right.clamp(min=float(finfo(right.dtype).smallest_normal)))
        return losses.mean() if averaged else losses

    def configure_optimizers(self) -> Any:
        """`SGD` from scratch."""
        return SGD([self.W, self.b], self.lr)


def _softmax(X: Tensor) -> Tensor:
    X_exp = exp(X - X.detach().amax(axis=1, keepdims=True))
    return X_exp / X_exp.sum(axis=1, keepdims=True)


class SoftmaxRegression(Classifier):
    """Softmax regression on `nn.LazyLinear`; the loss takes the logits, and cannot overflow.

    ``num_outputs`` is the number of classes, k, and ``lr`` the learning rate. X of shape (n, ...)
    is flattened, the logits are (n, k), y is (n,) of int64.

    >>> import gradlab as gl
    >>> model = SoftmaxRegression(num_outputs=10, lr=0.1)
    >>> logits = model(gl.ones(3, 1, 28, 28))
    >>> logits.shape, model.loss(logits, gl.tensor([0, 1, 2])).shape
    ((3, 10), ())
    """

    num_outputs: int
    lr: float

    def __init__(self, num_outputs: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))


# ----------------------------------------------------------------------- multilayer perceptrons


class MLPScratch(Classifier):
    """A perceptron with one hidden layer from scratch: logits max(XW₁ + b₁, 0)W₂ + b₂.

    Parameters
    ----------
    num_inputs: the number of features, d; an input of more axes is flattened.
    num_outputs: the number of classes, k.
    num_hiddens: the width of the hidden layer, h.
    lr: the learning rate.
    sigma: the standard deviation of the initial weights; the biases start at 0.

    X has shape (n, ...) with d features in all, the logits (n, k), y (n,) of int64; ``W1`` (d, h),
    ``b1`` (h,), ``W2`` (h, k), ``b2`` (k,).

    >>> import gradlab as gl
    >>> model = MLPScratch(num_inputs=784, num_outputs=10, num_hiddens=256, lr=0.1)
    >>> model(gl.ones(3, 1, 28, 28)).shape
    (3, 10)
    """

    num_inputs: int
    num_outputs: int
    num_hiddens: int
    lr: float
    sigma: float

    def __init__(
        self, num_inputs: int, num_outputs: int, num_hiddens: int, lr: float, sigma: float = 0.01
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.W1 = nn.Parameter(normal(0, sigma, (num_inputs, num_hiddens)))
        self.b1 = nn.Parameter(zeros(num_hiddens))
        self.W2 = nn.Parameter(normal(0, sigma, (num_hiddens, num_outputs)))
        self.b2 = nn.Parameter(zeros(num_outputs))

    def forward(self, X: Tensor) -> Tensor:
        """The logits, (n, k)."""
        X = X.reshape(-1, self.num_inputs)
        H = maximum(matmul(X, self.W1) + self.b1, 0)
        return matmul(H, self.W2) + self.b2


class MLP(Classifier):
    """A perceptron with one hidden layer of ReLUs on `nn.LazyLinear`.

    ``num_outputs`` is the number of classes, k, ``num_hiddens`` the width of the hidden layer and
    ``lr`` the learning rate. X of shape (n, ...) is flattened, the logits are (n, k).

    >>> import gradlab as gl
    >>> model = MLP(num_outputs=10, num_hiddens=256, lr=0.1)
    >>> model(gl.ones(3, 1, 28, 28)).shape
    (3, 10)
    """

    num_outputs: int
    num_hiddens: int
    lr: float

    def __init__(self, num_outputs: int, num_hiddens: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.LazyLinear(num_hiddens),
            nn.ReLU(),
            nn.LazyLinear(num_outputs),
        )
