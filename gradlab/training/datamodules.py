"""The data of the course notes, as data modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gradlab import data
from gradlab.autograd import no_grad
from gradlab.ops.creation import arange, as_tensor
from gradlab.ops.matmul import matmul
from gradlab.ops.random import randn, randperm
from gradlab.tensor import Tensor, require_integer
from gradlab.training.datamodule import DataModule
from gradlab.viz.plot import show_images


class SyntheticRegressionData(DataModule):
    """Points of a linear model with noise: y = Xw + b + ε.

    Parameters
    ----------
    w: the weights, shape (d,) or (d, 1); a tensor or a list.
    b: the bias.
    noise: the standard deviation of ε; 0 for none.
    num_train, num_val: how many points to train on and to validate with.
    batch_size: points per batch.

    ``X`` has shape (num_train + num_val, d) and is standard normal; ``y`` has one column. They come
    of the seed of `gradlab.manual_seed`.

    The loaders are `DataLoader`; `read_batches` does the same by hand, to be read.

    >>> import gradlab as gl
    >>> points = SyntheticRegressionData(w=gl.tensor([2, -3.4]), b=4.2)
    >>> X, y = next(iter(points.train_dataloader()))
    >>> X.shape, y.shape, len(points.train_dataloader())
    ((32, 2), (32, 1), 32)
    >>> X, y = next(points.read_batches(train=True))
    >>> X.shape, y.shape
    ((32, 2), (32, 1))
    """

    num_train: int
    num_val: int

    def __init__(
        self,
        w: Tensor | Sequence[float],
        b: Any,
        noise: float = 0.01,
        num_train: int = 1000,
        num_val: int = 1000,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        require_integer("SyntheticRegressionData", "num_train", num_train)
        require_integer("SyntheticRegressionData", "num_val", num_val, 0)
        w = as_tensor(w)
        self.save_hyperparameters()
        n = num_train + num_val
        self.X = randn(n, w.numel(), device=w.device)
        with no_grad():  # w and b may be parameters
            self.y = matmul(self.X, w.reshape(-1, 1).to(self.X.dtype)) + b
            self.y += noise * randn(n, 1, device=w.device)

    def get_dataloader(self, train: bool) -> Any:
        """The loader of the points to train on, in random order, or of those to validate with.

        None where there is nothing to validate with.
        """
        if not train and not self.num_val:
            return None
        rows = slice(0, self.num_train) if train else slice(self.num_train, None)
        return self.get_tensorloader((self.X, self.y), train, rows)

    def read_batches(self, train: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """What `get_dataloader` gives, written by hand: the batches of one pass.

        The order is random if ``train``; the last batch has what is left.
        """
        if train:
            indices = randperm(self.num_train, device=self.X.device)
        else:
            indices = arange(self.num_train, len(self.X), device=self.X.device)
        for i in range(0, len(indices), self.batch_size):
            batch = indices[i : i + self.batch_size]
            yield self.X[batch], self.y[batch]


class FashionMNIST(DataModule):
    """Images of clothes with ten labels: 60,000 to train on, 10,000 to validate with.

    Parameters
    ----------
    batch_size: images per batch.
    resize: (height, width) to scale the images to once, while they are loaded.
    root: the folder of the data, that of `gradlab.data.FashionMNIST` by default; what is missing
        there is downloaded.
    num_workers: for loaders that read ahead; the images lie in memory, so that none is fast too.

    A batch is (images, labels): float32 of shape (n, 1, height, width) in [0, 1], and int64 (n,).
    ``train`` and ``val`` are the data sets; ``train.reading_speed()`` measures them.

    >>> clothes = FashionMNIST(resize=(32, 32))  # doctest: +SKIP
    >>> X, y = next(iter(clothes.val_dataloader()))  # doctest: +SKIP
    >>> X.shape, clothes.text_labels(y[:2])  # doctest: +SKIP
    ((64, 1, 32, 32), ['ankle boot', 'pullover'])
    >>> clothes.visualize((X, y))  # doctest: +SKIP
    """

    def __init__(
        self,
        batch_size: int = 64,
        resize: int | tuple[int, int] = (28, 28),
        root: str | Path | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(root, num_workers)
        self.save_hyperparameters()
        self.train = data.FashionMNIST(root, train=True, resize=resize)
        self.val = data.FashionMNIST(root, train=False, resize=resize)

    def get_dataloader(self, train: bool) -> Any:
        """The loader of the images to train on, in random order, or to validate with."""
        return data.DataLoader(
            self.train if train else self.val,
            self.batch_size,
            shuffle=train,
            num_workers=self.num_workers,
        )

    def text_labels(self, indices: Iterable[Any]) -> list[str]:
        """The names of labels, given as a tensor or numbers."""
        return data.FashionMNIST.text_labels(indices)

    def visualize(
        self, batch: Any, nrows: int = 1, ncols: int = 8, labels: Sequence[str] = ()
    ) -> None:
        """Show the first images of a batch, each under its label or another text."""
        X, y = batch
        titles = list(labels) or self.text_labels(y)
        show_images(X.squeeze(1), nrows, ncols, titles=titles)
