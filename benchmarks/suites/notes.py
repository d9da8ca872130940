"""Programs of the course notes, from the data to the trained model.

gradlab runs them as the notes write them: a data module, a model, and the Trainer, which draws
curves and validates. PyTorch does the same in the loop that one writes with its own parts.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.case import Case, Step, Target


class Program(Case):
    """``epochs`` of training, each with a validation; the result is the last validation loss."""

    target = Target(1.0)
    slows_pytorch = True
    rounds = 12
    tolerance = 0.1  # the batches come in an order of each library's own
    epochs: int
    rate: float
    batch_size: int

    def trained(self, model: Any, data: Any) -> Any:
        """The last validation loss of a model of gradlab's."""
        from gradlab import d2l

        trainer = d2l.Trainer(max_epochs=self.epochs, enable_progress_bar=False)
        return trainer.fit(model, data)["val_loss"][-1]

    def trained_by_hand(self, model: Any, loss_of: Any, optimizer: Any, data: Any) -> Any:
        """The same of PyTorch's. ``data`` are tensors to train on, and to validate with."""
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        train, val = (
            DataLoader(TensorDataset(*each), self.batch_size, shuffle=each is data[0])
            for each in data
        )
        for _ in range(self.epochs):
            model.train()
            train_loss = 0.0
            for X, y in train:
                optimizer.zero_grad()
                loss = loss_of(model(X), y)
                loss.backward()
                optimizer.step()
                train_loss += loss.item() * len(X)
            model.eval()
            with torch.no_grad():
                val_loss = sum(loss_of(model(X), y).item() * len(X) for X, y in val)
        return val_loss / len(data[1][0])


class LinearRegression(Program):
    name = "notes_linear_regression"
    title = "linear regression, 1,000 points, 3 epochs, batch 32"
    epochs, rate, batch_size = 3, 0.03, 32

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        X = random.standard_normal((2000, 2), dtype=np.float32)
        noise = random.standard_normal((2000, 1), dtype=np.float32) / 2
        return X, X @ np.array([[2], [-3.4]], np.float32) + 4.2 + noise

    def gradlab(self) -> Step:
        import gradlab as gl
        from gradlab import d2l

        X, y = (gl.tensor(each) for each in self.points)

        class Points(d2l.DataModule):
            batch_size = self.batch_size

            def get_dataloader(self, train: bool) -> Any:
                rows = slice(0, 1000) if train else slice(1000, None)
                return self.get_tensorloader((X, y), train, rows)

        return lambda: self.trained(d2l.LinearRegression(lr=self.rate), Points())

    def pytorch(self) -> Step:
        import torch
        from torch import nn

        X, y = (torch.tensor(each) for each in self.points)
        data = (X[:1000], y[:1000]), (X[1000:], y[1000:])

        def step() -> Any:
            model = nn.Linear(2, 1)
            nn.init.normal_(model.weight, 0, 0.01)
            nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), self.rate)
            return self.trained_by_hand(model, nn.MSELoss(), optimizer, data)

        return step


class Clothes(Program):
    """An epoch over pictures in the form and number of Fashion-MNIST, of ten noisy patterns."""

    rounds = 6
    epochs, rate, batch_size = 1, 0.1, 256
    pictures_of = 60_000, 10_000  # to train on, and to validate with
    hiddens: tuple[int, ...] = ()

    @cached_property
    def pictures(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """uint8 of shape (n, 28, 28) and labels (n,), for training and for validation."""
        random = np.random.default_rng(0)
        patterns = random.integers(0, 96, (10, 28, 28))
        found = []
        for size in self.pictures_of:
            labels = random.integers(0, 10, size, dtype=np.uint8)
            noise = random.integers(0, 160, (size, 28, 28), dtype=np.uint8)
            found.append((patterns.astype(np.uint8)[labels] + noise, labels))
        return found

    def gradlab(self) -> Step:
        from gradlab import d2l
        from gradlab.data import write_idx

        with TemporaryDirectory() as folder:
            for name, (images, labels) in zip(("train", "t10k"), self.pictures, strict=True):
                write_idx(Path(folder, f"{name}-images-idx3-ubyte"), images)
                write_idx(Path(folder, f"{name}-labels-idx1-ubyte"), labels)
            data = d2l.FashionMNIST(self.batch_size, root=folder)

        def step() -> Any:
            if self.hiddens:
                return self.trained(d2l.MLP(10, *self.hiddens, lr=self.rate), data)
            return self.trained(d2l.SoftmaxRegression(10, lr=self.rate), data)

        return step

    def pytorch(self) -> Step:
        import torch
        from torch import nn

        data = [
            (torch.tensor(images[:, None] / np.float32(255)), torch.tensor(labels).long())
            for images, labels in self.pictures
        ]

        def step() -> Any:
            sizes = (784, *self.hiddens, 10)
            layers: list[nn.Module] = [nn.Flatten()]
            for n_in, n_out in pairwise(sizes):
                layers += [nn.Linear(n_in, n_out), nn.ReLU()]
            model = nn.Sequential(*layers[:-1])
            optimizer = torch.optim.SGD(model.parameters(), self.rate)
            return self.trained_by_hand(model, nn.CrossEntropyLoss(), optimizer, data)

        return step


class SoftmaxRegression(Clothes):
    name = "notes_softmax_regression"
    title = "softmax regression, 60,000 pictures of 28×28, an epoch, batch 256"


class MLP(Clothes):
    name = "notes_mlp"
    title = "MLP 784-256-10, 60,000 pictures of 28×28, an epoch, batch 256"
    hiddens = (256,)


CASES = [LinearRegression(), SoftmaxRegression(), MLP()]
