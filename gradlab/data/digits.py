"""The 1,797 handwritten digits that scikit-learn carries: real data without a download."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import TensorDataset
from gradlab.errors import OptionError, message, missing_dependency
from gradlab.ops.creation import tensor
from gradlab.ops.random import Generator, randperm
from gradlab.tensor import Tensor

_SPLITS = (None, "train", "test")


def load_digits(
    split: str | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the images and the labels of the handwritten digits [1]_.

    Parameters
    ----------
    split: ``"train"`` or ``"test"``; None gives all, in the order of the collection.
    seed: decides which images are in which part. The parts do not depend on the device, on
        `gradlab.manual_seed` or on the version of NumPy.
    test_fraction: the part of the images that is kept for ``"test"``, rounded to whole images.
    normalize: scale the 17 shades of grey, 0 … 16, to [0, 1].

    Returns
    -------
    images: float32 (n, 64), the rows of each 8×8 image one after the other.
    labels: int64 (n,), from 0 to 9.

    Raises `OptionError` for another split or fraction and `MissingDependencyError` where
    scikit-learn is not installed.

    >>> images, labels = load_digits("train")
    >>> images.shape, labels.shape
    ((1438, 64), (1438,))

    .. [1] Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
       Repository, 1998: the test set, which scikit-learn carries
    """
    if split not in _SPLITS:
        raise OptionError(
            message("load_digits", expected="split None, 'train' or 'test'", got=repr(split))
        )
    if not 0 < test_fraction < 1:
        raise OptionError(
            message(
                "load_digits", expected="test_fraction between 0 and 1", got=repr(test_fraction)
            )
        )
    images, labels = _read()
    if split is not None:
        rows = _rows(split, len(labels), seed, test_fraction)
        images, labels = images[rows], labels[rows]
    if normalize:
        images = images / np.float32(16)
    return tensor(images), tensor(labels)


def _read() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits as read
    except ImportError:
        raise missing_dependency("scikit-learn", "data", "load_digits") from None
    images, labels = read(return_X_y=True)
    return images.astype(np.float32), labels.astype(np.int64)


def _rows(split: str, count: int, seed: int, test_fraction: float) -> np.ndarray:
    order = randperm(count, generator=Generator(seed)).numpy()
    held_out = round(count * test_fraction)
    return order[:held_out] if split == "test" else order[held_out:]


class Digits(TensorDataset):
    """The handwritten digits as a data set of pairs (image, label); parameters of `load_digits`.

    >>> train, test = Digits("train"), Digits("test")
    >>> len(train), len(test)
    (1438, 359)
    >>> image, label = train[0]
    >>> image.shape, label.dtype.name
    ((64,), 'int64')
    """

    classes = tuple(str(digit) for digit in range(10))
    image_shape = (8, 8)

    def __init__(
        self,
        split: str | None = None,
        seed: int = 0,
        test_fraction: float = 0.2,
        normalize: bool = True,
    ) -> None:
        super().__init__(*load_digits(split, seed, test_fraction, normalize))
        self.split = split

    @property
    def images(self) -> Tensor:
        """All images as 8×8 pictures, float32 (n, 8, 8), sharing the memory of the data."""
        return self.tensors[0].reshape(-1, *self.image_shape)

    @property
    def labels(self) -> Tensor:
        """All labels, int64 (n,)."""
        return self.tensors[1]

    def __repr__(self) -> str:
        part = "" if self.split is None else f"{self.split!r}, "
        return f"Digits({part}{len(self)} images of 8×8)"
