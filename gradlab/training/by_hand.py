"""The pieces of a training loop that is written by hand, as in earlier editions of the notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gradlab import nn
from gradlab.autograd import no_grad
from gradlab.data import DataLoader, FashionMNIST, TensorDataset
from gradlab.devices import DeviceLike, find_device
from gradlab.errors import DataError, OptionError, message
from gradlab.ops.creation import as_tensor
from gradlab.ops.matmul import matmul
from gradlab.ops.random import normal
from gradlab.tensor import Tensor
from gradlab.training.meters import Accumulator
from gradlab.training.module import evaluation

# ------------------------------------------------------------------------------------------ data


def synthetic_data(w: Any, b: float, num_examples: int) -> tuple[Tensor, Tensor]:
    """Points of a linear model with noise: X of shape (n, d), y of shape (n, 1).

    X is standard normal and y = Xw + b + ε with ε of standard deviation 0.01. ``w`` is a
    tensor or a list of shape (d,).

    >>> import gradlab as gl
    >>> X, y = synthetic_data(gl.tensor([2.0, -3.4]), 4.2, 1000)
    >>> X.shape, y.shape
    ((1000, 2), (1000, 1))
    """
    w = as_tensor(w)
    X = normal(0, 1, (num_examples, len(w)))
    y = matmul(X, w.reshape(-1, 1)) + b
    return X, y + normal(0, 0.01, y.shape)


def load_array(data_arrays: Sequence[Any], batch_size: int, is_train: bool = True) -> DataLoader:
    """A loader of the rows of tensors, in random order if ``is_train``.

    >>> import gradlab as gl
    >>> X, y = next(iter(load_array((gl.ones(10, 3), gl.zeros(10, 1)), batch_size=4)))
    >>> X.shape, y.shape
    ((4, 3), (4, 1))
    """
    return DataLoader(TensorDataset(*data_arrays), batch_size, shuffle=is_train)


def get_dataloader_workers() -> int:
    """How many workers a `DataLoader` of the notes has: 4, which in gradlab are threads.

    >>> get_dataloader_workers()
    4
    """
    return 4


def load_data_fashion_mnist(
    batch_size: int, resize: int | tuple[int, int] | None = None, root: Any = None
) -> tuple[DataLoader, DataLoader]:
    """The loaders of Fashion-MNIST: the images to train on, in random order, and to test with.

    ``resize`` and ``root`` are those of `gradlab.data.FashionMNIST`.
    """
    train, test = (FashionMNIST(root, train=part, resize=resize) for part in (True, False))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, batch_size)


def get_fashion_mnist_labels(labels: Iterable[Any]) -> list[str]:
    """The names of labels of Fashion-MNIST, given as a tensor or numbers.

    >>> get_fashion_mnist_labels([1, 8])
    ['trouser', 'bag']
    """
    return FashionMNIST.text_labels(labels)


# ------------------------------------------------------------------------ model, loss, optimizer


def linreg(X: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The linear model Xw + b: X of shape (n, d), w of (d, 1), b of (1,).

    >>> import gradlab as gl
    >>> linreg(gl.ones(1, 2), gl.tensor([[2.0], [3.0]]), gl.tensor([1.0]))
    tensor([[6.]])
    """
    return matmul(X, w) + b


def squared_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """½(ŷ − y)² of each element, in the shape of ``y_hat``.

    >>> import gradlab as gl
    >>> squared_loss(gl.tensor([[1.0], [2.0]]), gl.tensor([1.0, 4.0]))
    tensor([[0.],
            [2.]])
    """
    return (y_hat - y.reshape(y_hat.shape)) ** 2 / 2


def sgd(params: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """One step of stochastic gradient descent on the sum of a batch's losses, in place.

    Each parameter moves by −lr·gradient/batch_size, and its gradient becomes 0.

    >>> import gradlab as gl
    >>> w = gl.tensor([1.0], requires_grad=True)
    >>> (w * gl.tensor([2.0, 4.0])).sum().backward()
    >>> sgd([w], lr=0.1, batch_size=2)
    >>> round(w.item(), 4), w.grad
    (0.7, tensor([0.]))
    """
    with no_grad():
        for param in params:
            if param.grad is None:
                hint = "call backward() on a loss that depends on it"
                raise OptionError(message("sgd", expected="a gradient", got="none", hint=hint))
            param -= lr * param.grad / batch_size
            param.grad.zero_()


# ------------------------------------------------------------------------------------ evaluation


def evaluate_loss(
    net: Callable[[Any], Tensor], data_iter: Iterable[Any], loss: Callable[[Any, Any], Tensor]
) -> float:
    """The mean loss of a model over all elements of a data set.

    ``loss`` gives that of each element, or a sum or mean of a batch, which then counts once.

    >>> import gradlab as gl
    >>> batches = [(gl.ones(2, 1), gl.zeros(2)), (gl.ones(1, 1), gl.ones(1))]
    >>> evaluate_loss(lambda X: 2 * X, batches, squared_loss)
    1.5
    """
    sums = Accumulator(2)
    with no_grad():
        for X, y in data_iter:
            out = net(X)
            value = loss(out, y.reshape(out.shape))
            sums.add(value.sum(), value.numel())
    return _mean("evaluate_loss", sums)


def evaluate_accuracy(
    net: Callable[[Any], Tensor], data_iter: Iterable[Any], device: DeviceLike = None
) -> float:
    """The fraction of a data set that a model classifies correctly, in evaluation mode.

    ``device`` is where the batches go; by default where the parameters of an `nn.Module` are. To
    any other function they are given as they come.

    >>> import gradlab as gl
    >>> batches = [(gl.eye(3), gl.tensor([0, 1, 2])), (gl.eye(3), gl.tensor([0, 1, 1]))]
    >>> evaluate_accuracy(lambda X: X, batches)
    0.8333333333333334
    """
    model = net if isinstance(net, nn.Module) else None
    first = None if model is None else next(model.parameters(), None)
    if device is None and first is not None:
        device = first.device
    where = None if device is None else find_device(device)
    right = Accumulator(2)
    with no_grad() if model is None else evaluation(model):
        for X, y in data_iter:
            if where is not None:
                X, y = X.to(where), y.to(where)
            right.add((net(X).argmax(axis=1) == y).sum(), y.numel())
    return _mean("evaluate_accuracy", right)


def _mean(operation: str, sums: Accumulator) -> float:
    """The first sum over the second, a number of elements."""
    if not sums[1]:
        raise DataError(message(operation, expected="batches of data", got="none"))
    return sums[0] / sums[1]
