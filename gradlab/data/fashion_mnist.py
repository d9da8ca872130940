"""Fashion-MNIST: 70,000 images of clothes, read from a folder or fetched into it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlab._environment import home, variable
from gradlab.data.collate import default_collate
from gradlab.data.dataset import Dataset, Indices, TensorDataset, read_samples
from gradlab.data.download import UnreachableError, fetch
from gradlab.data.idx import read_array
from gradlab.data.loader import DataLoader
from gradlab.devices import Device, DeviceLike, cpu, find_device, synchronize
from gradlab.errors import (
    AxisError,
    DataError,
    OptionError,
    message,
    missing_dependency,
    printable,
)
from gradlab.paths import as_path
from gradlab.tensor import Tensor, from_value, is_integer, require_option

_NAME = "FashionMNIST"

# Each part: images and labels, with the MD5 of the packed files as their authors give them.
_FILES = {
    True: {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    },
    False: {
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}

# The hashes hold for every address, so that one which is not https serves as well.
_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)

_TEXT_LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class ReadingSpeed(NamedTuple):
    """How fast the batches of an epoch came."""

    images: int
    seconds: float
    megabytes: float  # of the finished batches, 10**6 bytes each

    def __str__(self) -> str:
        return (
            f"{self.images:,} images in {self.seconds:.3f} s: "
            f"{self.images / self.seconds:,.0f} images/s, "
            f"{self.megabytes / self.seconds:,.0f} MB/s"
        )


class FashionMNIST(Dataset[tuple[Any, Any]]):
    """Images of clothes with ten labels, 60,000 to train on and 10,000 to test with [1]_.

    A sample is a pair (image, label): float32 of shape (1, 28, 28) in [0, 1], and an int. A batch
    of a `DataLoader` is float32 (n, 1, 28, 28) and int64 (n,). In memory the images are uint8,
    and each batch is converted at once.

    Parameters
    ----------
    root: the folder of the data. The files, packed (``.gz``) or not, lie in it or in
        ``FashionMNIST/raw`` below it, where torchvision has them too. By default the folder that
        the environment variable ``GRADLAB_DATA`` names, else ``~/.cache/gradlab``.
    train: the images to train on, or those to test with.
    download: fetch what is missing (30 MB) to ``FashionMNIST/raw``, and check its hash.
    transform: a function of one image that takes its place in a sample. It is called for each
        sample, which is slower than batches without it.
    resize: (height, width), or one number for both: scale the images once while loading, as
        Pillow does: bilinear with antialiasing, rounded to uint8.
    device: where the images are kept, as uint8, and the batches are made; None for the CPU.

    ``data[2:5]`` is the batch of these samples, and ``TensorDataset(*data[:])`` the whole
    collection converted once, for four times the memory.

    Attributes
    ----------
    data: the images, uint8 (n, height, width).
    targets: the labels, int64 (n,).
    classes: the ten names that the authors give the labels.

    Files that are there need not be the published ones, but must be whole IDX files of the two
    kinds, one label from 0 to 9 for each image. Raises `DataError` where they are not, or are
    neither there nor to be had, and `MissingDependencyError` where pooch (to download) or Pillow
    (to resize) is not installed.

    >>> import tempfile
    >>> from gradlab.data import DataLoader, write_idx
    >>> folder = tempfile.mkdtemp()  # a tiny collection, as there may be no network
    >>> images = np.arange(3 * 28 * 28).reshape(3, 28, 28)
    >>> write_idx(folder + "/train-images-idx3-ubyte.gz", images.astype(np.uint8))
    >>> write_idx(folder + "/train-labels-idx1-ubyte.gz", np.array([9, 0, 3], np.uint8))
    >>> train = FashionMNIST(folder)
    >>> train
    FashionMNIST(train, 3 images of 28×28)
    >>> image, label = train[0]
    >>> image.shape, image.dtype.name, label, train.classes[label]
    ((1, 28, 28), 'float32', 9, 'Ankle boot')
    >>> for images, labels in DataLoader(train, batch_size=2):
    ...     print(images.shape, labels, train.text_labels(labels))
    (2, 1, 28, 28) tensor([9, 0]) ['ankle boot', 't-shirt']
    (1, 1, 28, 28) tensor([3]) ['dress']

    .. [1] Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
       Machine Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747
    """

    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        download: bool = True,
        transform: Callable[[Tensor], Any] | None = None,
        resize: int | Sequence[int] | None = None,
        device: DeviceLike = None,
    ) -> None:
        size = _checked_size(resize)
        require_option(_NAME, "train", train, (True, False))  # "test" would be true
        self.root = _root(root)
        self.train = bool(train)
        self.transform = transform
        images, labels = _find(self.root, self.train, download)
        pixels, targets = _read_images(images), _read_labels(labels, len(self.classes))
        if len(pixels) != len(targets):
            raise DataError(
                f"{_NAME}: {printable(labels)}: expected {len(pixels):,} labels, one for each "
                f"image of {images.name}, got {len(targets):,}"
            )
        where = find_device(device)
        pixels = _resized(pixels, size)
        self._rows = TensorDataset(from_value(pixels, where), from_value(targets, where))

    @property
    def data(self) -> Tensor:
        """All images, uint8 (n, height, width), sharing the memory of the data set."""
        return self._rows.tensors[0]

    @property
    def targets(self) -> Tensor:
        """All labels, int64 (n,), sharing the memory of the data set."""
        return self._rows.tensors[1]

    @property
    def device(self) -> Device:
        """The device the images lie on, and the batches are made on."""
        return self._rows.device

    def __repr__(self) -> str:
        height, width = self.data.shape[1:]
        part = "train" if self.train else "test"
        where = "" if self.device is cpu else f" on {self.device}"
        return f"{type(self).__name__}({part}, {len(self):,} images of {height}×{width}{where})"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        if isinstance(index, slice):
            return self.get_batch(range(*index.indices(len(self))))
        try:
            pixels, label = self._rows[index]
        except AxisError:
            raise self._out_of_range(index) from None
        image = _as_images(pixels[None])
        return (image if self.transform is None else self.transform(image)), int(label)

    def get_batch(self, indices: Indices) -> tuple[Any, Any]:
        """The images and labels at ``indices``, converted at once where there is no transform."""
        if self.transform is not None:
            return default_collate(read_samples(self, indices))
        try:
            pixels, labels = self._rows.get_batch(indices)
        except AxisError:
            raise self._out_of_range(indices) from None
        return _as_images(pixels[:, None]), labels

    def _out_of_range(self, index: Any) -> AxisError:
        expected = f"an index from {-len(self)} to {len(self) - 1}"
        return AxisError(message(type(self).__name__, expected=expected, got=str(index)))

    @staticmethod
    def text_labels(indices: Iterable[Any]) -> list[str]:
        """The short names of labels, given as a tensor, an array or numbers.

        >>> FashionMNIST.text_labels([0, 9])
        ['t-shirt', 'ankle boot']
        """
        labels = [int(i) for i in indices]
        for label in labels:
            if not 0 <= label < len(_TEXT_LABELS):
                expected = f"labels from 0 to {len(_TEXT_LABELS) - 1}"
                raise OptionError(
                    message(f"{_NAME}.text_labels", expected=expected, got=str(label))
                )
        return [_TEXT_LABELS[label] for label in labels]

    def reading_speed(self, batch_size: int = 64) -> ReadingSpeed:
        """Read all batches once in random order, and tell how fast they came.

        >>> train = FashionMNIST("~/data")  # doctest: +SKIP
        >>> print(train.reading_speed(batch_size=256))  # doctest: +SKIP
        60,000 images in 0.031 s: 1,948,550 images/s, 6,126 MB/s
        """
        images, size = 0, 0
        start = time.perf_counter()
        for x, y in DataLoader(self, batch_size, shuffle=True, seed=0):
            images += len(y)
            size += y.nbytes + getattr(x, "nbytes", 0)
        synchronize()
        return ReadingSpeed(images, time.perf_counter() - start, size / 1e6)


def _as_images(pixels: Tensor) -> Tensor:
    """Shades of grey as float32 in [0, 1]."""
    if pixels.device is not cpu:
        return pixels / 255
    # One pass, where the division of tensors converts first.
    return from_value(np.divide(pixels.numpy(), np.float32(255), dtype=np.float32), cpu)


# --------------------------------------------------------------------------- finding the files


def _root(folder: Any) -> Path:
    if folder is None:
        user = home()
        folder = variable("GRADLAB_DATA") or (user and user / ".cache" / "gradlab")
        if folder is None:
            hint = "give root=, or set GRADLAB_DATA"
            raise OptionError(
                message(_NAME, expected="a folder", got="a user without a home folder", hint=hint)
            )
    return as_path(_NAME, folder, "a folder").expanduser()


def _find(root: Path, train: bool, download: bool) -> list[Path]:
    """The files of the images and the labels, fetched where they are missing."""
    found = {name: _look(root, name) for name in _FILES[train]}
    missing = [f"{name}.gz" for name, path in found.items() if path is None]
    if not missing:
        return [path for path in found.values() if path is not None]
    folder = root / "FashionMNIST" / "raw"
    if not download:
        raise _not_there(missing, folder, "", "give download=True, or get")
    try:
        return [path or _fetch(name, _FILES[train][name], folder) for name, path in found.items()]
    except UnreachableError as error:
        reason = f", and fetching failed: {error}"
        raise _not_there(missing, folder, reason, "with a network try again, else get") from None


def _look(root: Path, name: str) -> Path | None:
    folders = (root, root / "FashionMNIST" / "raw")
    places = (folder / (name + end) for folder in folders for end in ("", ".gz"))
    return next((place for place in places if place.is_file()), None)


def _not_there(missing: list[str], folder: Path, reason: str, hint: str) -> DataError:
    them = "them" if len(missing) > 1 else "it"
    return DataError(
        f"{_NAME}: expected {' and '.join(missing)} in {printable(folder)}, got no such "
        f"file{'s' * (len(missing) > 1)}{reason}; {hint} {them} from {_MIRRORS[0]} and put {them} "
        "there"
    )


def _fetch(name: str, md5: str, folder: Path) -> Path:
    reasons = []
    for mirror in _MIRRORS:
        try:
            return Path(fetch(_NAME, f"{mirror}{name}.gz", folder, f"md5:{md5}"))
        except UnreachableError as error:
            reasons.append(str(error))
    raise UnreachableError("; ".join(reasons))


# ------------------------------------------------------------------------------- their content


def _read(path: Path) -> np.ndarray:
    return read_array(path, _NAME, "fetch it anew, or give another root")


def _read_images(path: Path) -> np.ndarray:
    images = _read(path)
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        raise _of_another_kind(path, "images, uint8 (n, height, width)", images)
    return images


def _read_labels(path: Path, classes: int) -> np.ndarray:
    labels = _read(path)
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise _of_another_kind(path, "labels, uint8 (n,)", labels)
    if labels.size and labels.max() >= classes:
        i = int((labels >= classes).argmax())
        raise DataError(
            f"{_NAME}: {printable(path)}: expected labels from 0 to {classes - 1}, got "
            f"{labels[i]} for image {i}"
        )
    return labels.astype(np.int64)


def _of_another_kind(path: Path, expected: str, array: np.ndarray) -> DataError:
    what = {1: "labels, ", 3: "images, "}.get(array.ndim, "")
    hint = "; is it named as the other file?" * (bool(what) and what not in expected)
    return DataError(
        f"{_NAME}: {printable(path)}: expected {expected}, got {what}{array.dtype.name} "
        f"{array.shape}{hint}"
    )


# ------------------------------------------------------------------------------------ resizing


def _checked_size(resize: Any) -> tuple[int, int] | None:
    if resize is None:
        return None
    sizes = tuple(resize) if isinstance(resize, Sequence) else (resize, resize)
    if len(sizes) != 2 or not all(is_integer(size) and size > 0 for size in sizes):
        raise OptionError(
            message(_NAME, expected="resize=(height, width) of 1 or more each", got=repr(resize))
        )
    return sizes


def _resized(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or size == pixels.shape[1:]:
        return pixels
    try:
        from PIL import Image
    except ImportError:
        raise missing_dependency("pillow", "data", f"{_NAME}(resize=...)") from None
    height, width = size
    made = np.empty((len(pixels), height, width), np.uint8)
    for i, image in enumerate(pixels):
        scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        made[i] = np.asarray(scaled)
    return made
