"""A small problem and a model for it, for the tests of the Trainer."""

from __future__ import annotations

import numpy as np

import gradlab as gl
from gradlab import nn, optim, training
from gradlab.data import DataLoader, TensorDataset

SAMPLES, FEATURES, CLASSES = 96, 6, 3


def dataset(seed=0, samples=SAMPLES):
    """Points whose class is their largest coordinate among the first few."""
    X = np.random.default_rng(seed).standard_normal((samples, FEATURES)).astype(np.float32)
    return TensorDataset(X, X[:, :CLASSES].argmax(axis=1))


def loader(batch_size=16, shuffle=True, **options):
    return DataLoader(dataset(), batch_size, shuffle=shuffle, **options)


def val_loader(batch_size=20):
    return DataLoader(dataset(seed=1, samples=48), batch_size)


class Classifier(training.Module):
    """Two layers with dropout between them."""

    def __init__(self, lr=0.05, dropout=0.2):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES)
        )

    def loss(self, y_hat, y):
        return nn.functional.cross_entropy(y_hat, y)

    def validation_step(self, batch):
        X, y = batch
        y_hat = self(X)
        self.log("val_acc", (y_hat.argmax(axis=1) == y).astype("float32").mean())
        return self.loss(y_hat, y)

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def make_model(kind=Classifier, seed=0, **options):
    gl.manual_seed(seed)
    return kind(**options)


def trainer(max_epochs=2, **options):
    options = {"enable_progress_bar": False, "seed": 1, **options}
    return training.Trainer(max_epochs=max_epochs, **options)


def parameters(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def assert_same(a, b):
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


class Scratch(training.Classifier):
    """Softmax regression whose parameters are plain tensors."""

    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        gl.manual_seed(0)
        self.W = gl.normal(0, 0.01, (FEATURES, CLASSES), requires_grad=True)
        self.b = gl.zeros(CLASSES, requires_grad=True)

    def forward(self, X):
        return X @ self.W + self.b


class ScratchSGD(training.HyperParameters):
    """An optimizer as one writes it oneself: the Trainer sees to no_grad."""

    def __init__(self, params, lr):
        self.save_hyperparameters()

    def step(self):
        for param in self.params:
            param -= self.lr * param.grad

    def zero_grad(self):
        for param in self.params:
            if param.grad is not None:
                param.grad.zero_()
