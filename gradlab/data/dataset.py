"""Data sets: samples read by index, or one after the other, and ways to join and divide them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate, pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from gradlab.data.collate import default_collate
from gradlab.devices import Device, cpu
from gradlab.errors import (
    AxisError,
    DataError,
    DeviceError,
    GradlabError,
    OptionError,
    ShapeError,
    message,
)
from gradlab.ops.core import apply
from gradlab.ops.indexing import TAKE
from gradlab.ops.random import Generator, randperm
from gradlab.tensor import Tensor, from_value

T_co = TypeVar("T_co", covariant=True)

Indices = Any  # a range, an int64 array or a list of ints: whatever `x[i] for i in indices` takes


class Dataset(Generic[T_co]):
    """A data set whose samples are read by index (map style).

    A subclass defines ``__getitem__(index)``, which returns one sample (a tensor, an array, a
    number, or a tuple, list or dict of them), and ``__len__``.

    Where many samples can be read at once for less than the sum of their costs, it may also define

    - ``get_batch(indices)``: the finished batch. ``indices`` is a ``range`` (rows that follow one
      another) or an int64 NumPy array; or
    - ``__getitems__(indices)``: the list of samples at a list of ints, as in PyTorch.

    `DataLoader` uses them, unless a subclass overrides ``__getitem__`` and leaves them as they
    were: a transform written there is never passed over.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[3]
    (3, 9)
    """

    def __getitem__(self, index: int) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__(index)")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A data set whose samples come one after the other, such as lines of a stream.

    A subclass defines ``__iter__``, and ``__len__`` where the number of samples is known. Where it
    also defines ``set_epoch(epoch)``, `DataLoader` calls that before each pass.

    >>> class Count(IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(3))
    >>> list(Count())
    [0, 1, 2]
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__()")


# ------------------------------------------------------------------------------ whole batches


def reads(dataset: Any, method: str) -> bool:
    """Whether ``method`` reads the same samples as ``dataset[index]``.

    It does where its class is the one that defines ``__getitem__``, or one derived from it. Where
    a subclass overrides ``__getitem__`` alone, ``method`` knows nothing of it.
    """
    for cls in type(dataset).__mro__:
        if method in vars(cls):
            return True
        if "__getitem__" in vars(cls):
            return False
    return False


def read_samples(dataset: Any, indices: Indices) -> list[Any]:
    """The samples at ``indices``, read at once where the data set can."""
    places = indices.tolist() if isinstance(indices, np.ndarray) else list(indices)
    if reads(dataset, "__getitems__"):
        return list(dataset.__getitems__(places))
    samples: list[Any] = []
    try:
        for i in places:
            samples.append(dataset[i])
    except Exception as error:
        error.add_note(f"raised while reading sample {places[len(samples)]} of the data set")
        raise
    return samples


def read_batch(dataset: Any, indices: Indices) -> Any:
    """The collated batch of the samples at ``indices``."""
    if reads(dataset, "get_batch"):
        return dataset.get_batch(indices)
    return default_collate(read_samples(dataset, indices))


def size_of(operation: str, dataset: Any) -> int:
    """The number of samples; refuses what has no length or no index."""
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            message(
                operation,
                expected="a data set with __getitem__ and __len__",
                got=type(dataset).__name__,
                hint="derive it from gradlab.data.Dataset and define both",
            )
        )
    return len(dataset)


def described(dataset: Any) -> str:
    """A data set in the repr of another object: its own repr, or its kind and size."""
    if isinstance(dataset, Dataset) and type(dataset).__repr__ is not object.__repr__:
        return repr(dataset)
    size = f"({counted(dataset)})" if isinstance(dataset, Sized) else ""
    return type(dataset).__name__ + size


def counted(items: Sized, what: str = "sample") -> str:
    """``"1 sample"``, ``"3 samples"``."""
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"


def _out_of_range(name: str, size: int, index: Any) -> AxisError:
    if not size:
        return AxisError(f"{name}: expected samples to choose from, got an empty data set")
    return AxisError(message(name, expected=f"an index from {-size} to {size - 1}", got=f"{index}"))


def _integers(name: str, indices: Any) -> np.ndarray:
    """Indices from a user as an int64 array of one axis."""
    array = np.asarray(indices.numpy(force=True) if isinstance(indices, Tensor) else indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise OptionError(
            message(
                name,
                expected="a sequence of integer indices",
                got=f"{array.dtype.name} {array.shape}",
                hint="numpy.flatnonzero(mask) gives those of a mask" if array.dtype == bool else "",
            )
        )
    return array.astype(np.int64, copy=False)


# ----------------------------------------------------------------------------------- datasets


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples that lie in memory: sample ``i`` is the ``i``-th row of each tensor.

    Parameters
    ----------
    tensors: tensors or NumPy arrays, all with the same first size and on one device. Arrays keep
        their dtype and share their memory with the data set.

    A batch is a copy, made by one gather per tensor (one plain copy, for rows that follow one
    another), so writing into a batch (``x -= mean``) leaves the data set as it is. Indexing,
    ``data[2:5]``, gives views.

    Raises `ShapeError` where the first sizes differ and `DeviceError` where the devices do.

    >>> data = TensorDataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    >>> len(data), data[1]
    (3, (tensor([2., 3.], dtype=float64), tensor(1)))
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Any) -> None:
        if not tensors:
            raise OptionError(message("TensorDataset", expected="one tensor or more", got="none"))
        made = tuple(
            x if isinstance(x, Tensor) else from_value(x, cpu, operation="TensorDataset")
            for x in tensors
        )
        _check_rows(made)
        self.tensors = made

    @property
    def device(self) -> Device:
        """The device the tensors lie on."""
        return self.tensors[0].device

    def __repr__(self) -> str:
        tensors = ", ".join(f"{x.dtype.name} {x.shape}" for x in self.tensors)
        where = "" if self.device is cpu else f" on {self.device}"
        return f"{type(self).__name__}({counted(self)}: {tensors}{where})"

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        try:
            return tuple([x[index] for x in self.tensors])
        except AxisError:
            if isinstance(index, int | np.integer):
                raise _out_of_range(type(self).__name__, len(self), index) from None
            raise

    def get_batch(self, indices: Indices) -> tuple[Tensor, ...]:
        """Copies of the rows at ``indices`` of each tensor."""
        if isinstance(indices, range):
            rows = slice(indices.start, indices.stop, indices.step)
            return tuple([x[rows].clone() for x in self.tensors])
        index = Tensor._wrap(self.device.backend.from_host(self._checked(indices)), self.device)
        try:
            return tuple([apply(TAKE, (x, index), {"axis": 0}) for x in self.tensors])
        except GradlabError:
            self._check_range(index.numpy(force=True))
            raise

    def _checked(self, indices: Indices) -> np.ndarray:
        if indices.__class__ is not np.ndarray or indices.dtype != np.int64:
            indices = _integers(type(self).__name__, indices)
        if self.device is not cpu:  # NumPy refuses an index out of range, a GPU reads elsewhere
            self._check_range(indices)
        return indices

    def _check_range(self, indices: np.ndarray) -> None:
        size = len(self)
        bad = indices[(indices < -size) | (indices >= size)]
        if bad.size:
            raise _out_of_range(type(self).__name__, size, bad[0])


def _check_rows(tensors: Sequence[Tensor]) -> None:
    shapes = [x.shape for x in tensors]
    listed = " and ".join(map(str, shapes))
    if not all(shapes):
        raise ShapeError(
            message(
                "TensorDataset",
                expected="tensors whose first axis counts the samples",
                got=f"shapes {listed}" if len(shapes) > 1 else f"shape {listed}",
                hint="reshape a single number to (1,)",
            )
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise ShapeError(
            message(
                "TensorDataset",
                expected="tensors with the same first size, the number of samples",
                got=f"shapes {listed}",
            )
        )
    if len({id(x.device) for x in tensors}) > 1:
        devices = " and ".join(str(x.device) for x in tensors)
        raise DeviceError(
            message(
                "TensorDataset",
                expected="tensors on one device",
                got=devices,
                hint="move them with .to(...)",
            )
        )


class Subset(Dataset[T_co]):
    """The samples of a data set at the given indices.

    ``indices`` (ints, an integer array or tensor) are kept as a ``range`` where they follow one
    another, else as an int64 array. Raises `AxisError` for an index out of range.

    >>> data = TensorDataset(np.arange(10))
    >>> Subset(data, [7, 2])[0]
    (tensor(7),)
    """

    indices: range | np.ndarray

    def __init__(self, dataset: Dataset[T_co], indices: Any) -> None:
        self.dataset = dataset
        size = size_of("Subset", dataset)
        rows = _integers("Subset", indices)
        bad = rows[(rows < -size) | (rows >= size)]
        if bad.size:
            raise _out_of_range("Subset", size, bad[0])
        self._rows = np.where(rows < 0, rows + size, rows)
        self.indices = _as_range(self._rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(self)} of {described(self.dataset)})"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> T_co:
        try:
            place: Any = self.indices[index]
        except IndexError:
            raise _out_of_range(type(self).__name__, len(self), index) from None
        source: Any = self.dataset
        return source[place if isinstance(place, range | np.ndarray) else int(place)]

    def get_batch(self, indices: Indices) -> Any:
        """The batch that the data set itself gives for these samples of it."""
        return read_batch(self.dataset, self._places(indices))

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        return read_samples(self.dataset, self._places(indices))

    def _places(self, indices: Indices) -> range | np.ndarray:
        if isinstance(indices, range):
            return self.indices[indices.start : indices.stop : indices.step]
        try:
            return self._rows[indices]
        except IndexError:
            rows = _integers(type(self).__name__, indices)
            bad = rows[(rows < -len(self)) | (rows >= len(self))]
            raise _out_of_range(type(self).__name__, len(self), bad[0]) from None


def _as_range(rows: np.ndarray) -> range | np.ndarray:
    if rows.size and np.array_equal(rows, np.arange(rows[0], rows[0] + rows.size)):
        return range(int(rows[0]), int(rows[0]) + rows.size)
    return rows


class ConcatDataset(Dataset[T_co]):
    """Several data sets, one after the other; ``a + b`` is the same as ``ConcatDataset([a, b])``.

    >>> data = TensorDataset(np.arange(2)) + TensorDataset(np.arange(10, 13))
    >>> len(data), data[2]
    (5, (tensor(10),))
    """

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise OptionError(message("ConcatDataset", expected="one data set or more", got="none"))
        self.cumulative_sizes = list(
            accumulate(size_of("ConcatDataset", each) for each in self.datasets)
        )

    def __repr__(self) -> str:
        parts = ", ".join(map(described, self.datasets))
        return f"{type(self).__name__}({counted(self)}: {parts})"

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        size = len(self)
        place = index + size if index < 0 else index
        if not 0 <= place < size:
            raise _out_of_range("ConcatDataset", size, index)
        which = bisect_right(self.cumulative_sizes, place)
        return self.datasets[which][place - (self.cumulative_sizes[which - 1] if which else 0)]


# ---------------------------------------------------------------------------------- splitting


def random_split(
    dataset: Dataset[T_co],
    lengths: Sequence[int | float],
    generator: Generator | None = None,
) -> list[Subset[T_co]]:
    """Divide a data set at random into parts that do not overlap.

    Parameters
    ----------
    lengths: sizes that add up to ``len(dataset)``, or fractions that add up to 1. Fractions are
        rounded down, and the samples left over go to the parts one each, from the first on.
    generator: where the order comes from; by default the generator `gradlab.manual_seed` seeds.

    Raises `OptionError` where the lengths do not add up.

    >>> train, test = random_split(TensorDataset(np.arange(10)), [0.75, 0.25])
    >>> len(train), len(test)
    (8, 2)
    """
    size = size_of("random_split", dataset)
    sizes = _sizes(size, list(lengths))
    order = randperm(size, generator=generator).numpy()
    bounds = [0, *accumulate(sizes)]
    return [Subset(dataset, order[start:stop]) for start, stop in pairwise(bounds)]


def _sizes(size: int, lengths: list[int | float]) -> list[int]:
    added = f"{' + '.join(map(str, lengths))} = {sum(lengths)}" if lengths else "no lengths"
    if any(length < 0 for length in lengths):
        raise OptionError(message("random_split", expected="lengths of 0 or more", got=added))
    if not any(isinstance(length, float) for length in lengths):
        if sum(lengths) != size:
            raise OptionError(
                message(
                    "random_split",
                    expected=f"lengths that add up to {size}, the size of the data set",
                    got=added,
                )
            )
        return [int(length) for length in lengths]
    if not math.isclose(sum(lengths), 1):
        raise OptionError(message("random_split", expected="fractions that add up to 1", got=added))
    # The small addend mends fractions such as 0.3, whose product with 10 may fall below 3.
    sizes = [math.floor(size * fraction + 1e-9) for fraction in lengths]
    for i in range(size - sum(sizes)):
        sizes[i % len(sizes)] += 1
    return sizes
