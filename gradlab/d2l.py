"""The names that the course notes use, in one place; each is defined where it belongs.

    >>> from gradlab import d2l
    >>> d2l.reduce_mean(d2l.tensor([1.0, 2.0, 3.0]))
    tensor(2.)

The tensor functions are those of `gradlab`; below stand the few that the notes name otherwise.
Matplotlib is imported when a plot is drawn, or `d2l.plt` is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab import (
    Tensor,
    abs,
    arange,
    bmm as batch_matmul,
    cat as concat,
    cos,
    cosh,
    exp,
    eye,
    float32,
    float64,
    int32,
    int64,
    linspace,
    log,
    matmul,
    meshgrid,
    normal,
    ones,
    ones_like,
    rand,
    randn,
    sigmoid,
    sin,
    sinh,
    stack,
    tanh,
    tensor,
    zeros,
    zeros_like,
)
from gradlab.data import DATA_HUB, DATA_URL, download, extract
from gradlab.nn import Module as nn_Module
from gradlab.training import (
    Accumulator,
    Classifier,
    DataModule,
    HyperParameters,
    Module,
    Timer,
    Trainer,
    accuracy,
    add_to_class,
    cpu,
    gpu,
    num_gpus,
    try_all_gpus,
    try_gpu,
)
from gradlab.training.by_hand import (
    evaluate_accuracy,
    evaluate_loss,
    get_dataloader_workers,
    get_fashion_mnist_labels,
    linreg,
    load_array,
    load_data_fashion_mnist,
    sgd,
    squared_loss,
    synthetic_data,
)
from gradlab.training.datamodules import FashionMNIST, SyntheticRegressionData
from gradlab.training.models import (
    MLP,
    SGD,
    LinearRegression,
    LinearRegressionScratch,
    MLPScratch,
    SoftmaxRegression,
    SoftmaxRegressionScratch,
)
from gradlab.viz import Animator, ProgressBoard
from gradlab.viz.plot import plot, set_axes, set_figsize, show_images, use_svg_display

# ------------------------------------------------------- functions for methods, by other names


def numpy(x: Tensor, **options: Any) -> np.ndarray:
    """``x.detach().numpy()``: the values as a NumPy array that shares the memory."""
    return x.detach().numpy(**options)


def size(x: Tensor) -> int:
    """``x.numel()``: the number of elements."""
    return x.numel()


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """``x.reshape(shape)``."""
    return x.reshape(*shape)


def to(x: Any, *args: Any, **options: Any) -> Any:
    """``x.to(device)`` or ``x.to(dtype)``."""
    return x.to(*args, **options)


def reduce_sum(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """``x.sum(axis)``."""
    return x.sum(*args, **options)


def reduce_mean(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """``x.mean(axis)``."""
    return x.mean(*args, **options)


def argmax(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """``x.argmax(axis)``: the index of the largest element."""
    return x.argmax(*args, **options)


def astype(x: Tensor, dtype: Any) -> Tensor:
    """``x.type(dtype)``."""
    return x.type(dtype)


def transpose(x: Tensor) -> Tensor:
    """``x.t()``: the transpose of a matrix."""
    return x.t()


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """``x.unsqueeze(axis)``: with a new axis of size 1."""
    return x.unsqueeze(axis)


def swapaxes(x: Tensor, axis0: int, axis1: int) -> Tensor:
    """``x.swapaxes(axis0, axis1)``."""
    return x.swapaxes(axis0, axis1)


def repeat(x: Tensor, *sizes: int) -> Tensor:
    """``x.repeat(sizes)``: copies of the whole along each axis."""
    return x.repeat(*sizes)


if TYPE_CHECKING:
    from matplotlib import pyplot

    plt = pyplot
else:

    def __getattr__(name: str) -> Any:
        """`plt`, ``matplotlib.pyplot``, when it is first asked for."""
        if name == "plt":
            from gradlab.viz.plot import plt

            return plt
        raise AttributeError(f"module 'gradlab.d2l' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "plt"])


__all__ = [
    "DATA_HUB",
    "DATA_URL",
    "MLP",
    "SGD",
    "Accumulator",
    "Animator",
    "Classifier",
    "DataModule",
    "FashionMNIST",
    "HyperParameters",
    "LinearRegression",
    "LinearRegressionScratch",
    "MLPScratch",
    "Module",
    "ProgressBoard",
    "SoftmaxRegression",
    "SoftmaxRegressionScratch",
    "SyntheticRegressionData",
    "Timer",
    "Trainer",
    "abs",
    "accuracy",
    "add_to_class",
    "arange",
    "argmax",
    "astype",
    "batch_matmul",
    "concat",
    "cos",
    "cosh",
    "cpu",
    "download",
    "evaluate_accuracy",
    "evaluate_loss",
    "exp",
    "expand_dims",
    "extract",
    "eye",
    "float32",
    "float64",
    "get_dataloader_workers",
    "get_fashion_mnist_labels",
    "gpu",
    "int32",
    "int64",
    "linreg",
    "linspace",
    "load_array",
    "load_data_fashion_mnist",
    "log",
    "matmul",
    "meshgrid",
    "nn_Module",
    "normal",
    "num_gpus",
    "numpy",
    "ones",
    "ones_like",
    "plot",
    "rand",
    "randn",
    "reduce_mean",
    "reduce_sum",
    "repeat",
    "reshape",
    "set_axes",
    "set_figsize",
    "sgd",
    "show_images",
    "sigmoid",
    "sin",
    "sinh",
    "size",
    "squared_loss",
    "stack",
    "swapaxes",
    "synthetic_data",
    "tanh",
    "tensor",
    "to",
    "transpose",
    "try_all_gpus",
    "try_gpu",
    "use_svg_display",
    "zeros",
    "zeros_like",
]
