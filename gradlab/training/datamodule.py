"""`DataModule`: where a Trainer gets its batches; and `Batches`, what it makes of a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.data import DataLoader, TensorDataset
from gradlab.devices import Device, cpu
from gradlab.dtypes import DType
from gradlab.errors import DataError, OptionError, message
from gradlab.tensor import Tensor, from_value, is_integer
from gradlab.training.checkpoint import random_state, set_random_state
from gradlab.training.hyperparameters import HyperParameters, is_replaced


class DataModule(HyperParameters):
    """Training and validation data under one name.

    A subclass defines `get_dataloader`, or `train_dataloader` and `val_dataloader`. These may also
    give an iterator, or be generators that yield the batches: a Trainer asks for a new one in each
    epoch.

    Parameters
    ----------
    root: the folder for data sets that are downloaded; None: the one the data set decides on.
    num_workers: for the loaders that read ahead; 0 for none.

    >>> import gradlab as gl
    >>> class Points(DataModule):
    ...     batch_size = 4
    ...     def get_dataloader(self, train):
    ...         X = gl.arange(20).reshape(10, 2)
    ...         return self.get_tensorloader((X,), train, slice(0, 8) if train else slice(8, 10))
    >>> len(Points().train_dataloader()), len(Points().val_dataloader())
    (2, 1)
    """

    # A subclass may have an __init__ that does not call the one below.
    root: str | Path | None = None
    num_workers: int = 0
    batch_size: int = 32

    def __init__(self, root: str | Path | None = None, num_workers: int = 0) -> None:
        self.save_hyperparameters()

    def get_dataloader(self, train: bool) -> Any:
        """The loader of the training data, or that of the validation data."""
        name = type(self).__name__
        raise OptionError(
            f"{name}.get_dataloader: {name} does not define it; give the class get_dataloader"
            "(self, train), or train_dataloader(self) and val_dataloader(self)"
        )

    def train_dataloader(self) -> Any:
        """The loader of the training data."""
        return self.get_dataloader(train=True)

    def val_dataloader(self) -> Any:
        """The loader of the validation data; None where there is none."""
        return self.get_dataloader(train=False) if is_replaced(self, _NO_LOADER) else None

    def predict_dataloader(self) -> Any:
        """The loader of the data for `Trainer.predict`; the validation data by default."""
        return self.val_dataloader()

    def get_tensorloader(
        self, tensors: Sequence[Any], train: bool, indices: Any = slice(None), **options: Any
    ) -> DataLoader:
        """A loader of the rows ``indices`` of tensors, in random order if ``train``.

        ``options`` go to the `DataLoader`.
        """
        dataset = TensorDataset(*[x[indices] for x in tensors])
        return DataLoader(dataset, **{"batch_size": self.batch_size, "shuffle": train, **options})


_NO_LOADER = DataModule.get_dataloader  # whatever is put on the class in its place later


class Loaders(DataModule):
    """One or two loaders as a `DataModule`."""

    def __init__(self, train: Any, val: Any) -> None:
        self._loaders = train, val

    def train_dataloader(self) -> Any:
        return self._loaders[0]

    def val_dataloader(self) -> Any:
        return self._loaders[1]


def as_data_module(data: Any, val: Any = None) -> Any:
    """A `DataModule`, or anything with its methods, as it is; one or two loaders as one."""
    if not hasattr(data, "train_dataloader"):
        return Loaders(data, val)
    if val is not None:
        raise OptionError("Trainer.fit: expected a DataModule or two loaders, got both")
    return data


def read_loader(data: Any, method: str) -> Any:
    """The loader that a method of a `DataModule` gives; for an iterator, one that asks again."""
    make = getattr(data, method)
    loader = make()
    return (
        Anew(loader, make) if hasattr(loader, "__next__") and type(data) is not Loaders else loader
    )


class Anew:
    """The batches of a method that gives an iterator: in each pass those of a new one."""

    def __init__(self, first: Iterator[Any], make: Callable[[], Iterator[Any]]) -> None:
        self._first: Iterator[Any] | None = first
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        first, self._first = self._first, None
        return self._make() if first is None else first


class Batches:
    """The batches of an epoch: those of a loader, or the first of them.

    ``limit`` is a number of batches, a fraction (a float up to 1) of them, or None for all. A
    loader that can say where it is (``state_dict``) goes on from there; of any other, the batches
    that were done are read once more and passed over.
    """

    def __init__(self, loader: Any, limit: int | float | None, purpose: str) -> None:
        _check_loader(loader, purpose)
        self.loader, self.purpose = loader, purpose
        size = length_of(loader)
        self.limit = _read_limit(limit, size, purpose)
        # Of an epoch; None where that shows only at its end.
        self.size = size if self.limit is None or size is None else min(size, self.limit)
        if self.size == 0:
            raise self.empty()
        self._done = 0
        self._passes_over = False
        self._before: Any = None  # what the loader said before it was given a place

    def __iter__(self) -> Iterator[Any]:
        self._before = None
        batches = iter(self.loader)
        if self._passes_over:
            batches = islice(batches, self._done, None)
        if self.limit is not None:
            batches = islice(batches, max(0, self.limit - self._done))
        self._done, self._passes_over = 0, False
        return batches

    def finish_epoch(self) -> None:
        """Let the loader count an epoch as over that ended early."""
        if hasattr(self.loader, "finish_epoch"):
            self.loader.finish_epoch()

    def first(self) -> Any:
        """The first batch, leaving the loader and the random numbers as they were."""
        random = random_state()
        self.finish_epoch()  # else the place where an earlier loop left it would be gone on from
        state = self.state_dict()
        try:
            for batch in self.loader:
                return batch
            raise self.empty()
        finally:
            self._load(state)
            set_random_state(random)

    def state_dict(self) -> Any:
        """What the loader says of its place; None if it says nothing."""
        return self.loader.state_dict() if hasattr(self.loader, "state_dict") else None

    def load_state_dict(self, state: Any, done: int) -> None:
        """Let the next iteration go on after ``done`` batches of the epoch."""
        self.finish_epoch()
        before = self.state_dict()
        self._passes_over = not self._load(state) and done > 0
        self._done, self._before = done, before

    def take_back(self) -> None:
        """Let the loader be as before `load_state_dict`, unless an iteration went on from there.

        A later loop over it would get the rest of an epoch for a whole one.
        """
        before, self._before = self._before, None
        self._load(before)

    def _load(self, state: Any) -> bool:
        if state is None or not hasattr(self.loader, "load_state_dict"):
            return False
        self.loader.load_state_dict(state)
        return True

    def empty(self) -> DataError:
        """The error for a loader that gives no batch."""
        hint = ""
        if getattr(self.loader, "drop_last", False):
            size = getattr(self.loader, "batch_size", None)
            hint = f"; with drop_last, fewer samples than batch_size={size} make no batch"
        return DataError(f"the {self.purpose} data is empty: its loader gives no batch{hint}")


def place(batch: Any, device: Device, dtype: DType | None) -> Any:
    """A batch on a device, its arrays as tensors, its floating tensors in ``dtype`` if given."""
    if isinstance(batch, Tensor):
        if dtype is not None and batch.dtype != dtype and batch.is_floating_point():
            batch = batch.astype(dtype)
        return batch if batch.device is device else batch.to(device)
    if isinstance(batch, np.ndarray):
        return place(from_value(batch, cpu), device, dtype)
    if isinstance(batch, Mapping):
        return {key: place(value, device, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        placed = [place(each, device, dtype) for each in batch]
        if isinstance(batch, list):
            return placed
        return type(batch)(*placed) if hasattr(batch, "_fields") else tuple(placed)
    return batch


def size_of_batch(batch: Any) -> int:
    """The number of samples in a batch: the first size of its first tensor, else 1."""
    if batch.__class__ is tuple and batch and batch[0].__class__ is Tensor:
        return (batch[0].shape or (1,))[0]
    while batch.__class__ is not Tensor:
        if isinstance(batch, tuple | list) and batch:
            batch = batch[0]
        elif isinstance(batch, Mapping) and batch:
            batch = next(iter(batch.values()))
        else:
            return 1
    shape = batch.shape
    return shape[0] if shape else 1


def length_of(loader: Any) -> int | None:
    """The number of its batches; None where that shows only at their end."""
    try:
        return len(loader)
    except TypeError:  # no length, or one of data that has none
        return None


def _check_loader(loader: Any, purpose: str) -> None:
    name = type(loader).__name__
    what = f"{purpose} data"
    if hasattr(loader, "__next__"):
        raise DataError(
            message(
                what,
                expected="batches that can be gone through once per epoch",
                got=f"{name}, an iterator, which gives them only once",
                hint="make a list of it, or use a DataLoader",
            )
        )
    if isinstance(loader, tuple | Tensor | np.ndarray):
        hint = "wrap the tensors: DataLoader(TensorDataset(X, y), batch_size=32)"
    elif not hasattr(loader, "__iter__") and hasattr(loader, "__getitem__"):
        hint = "wrap it: DataLoader(dataset, batch_size=32)"
    elif hasattr(loader, "__iter__"):
        return
    else:
        hint = ""
    expected = "a DataLoader, a DataModule, or a list of batches"
    got = "None" if loader is None else name
    raise DataError(message(what, expected=expected, got=got, hint=hint))


def _read_limit(limit: int | float | None, size: int | None, purpose: str) -> int | None:
    if limit is None:
        return None
    whole = is_integer(limit)
    if not (whole and limit >= 0) and not (isinstance(limit, float) and 0 <= limit <= 1):
        expected = f"the limit of {purpose} batches to be a number of them, or a fraction up to 1.0"
        raise OptionError(message("Trainer", expected=expected, got=repr(limit)))
    if whole:
        return int(limit)
    if size is None:
        raise OptionError(
            f"Trainer: a fraction ({limit}) of the {purpose} batches needs a loader with a "
            "length; give a number of batches instead"
        )
    return max(1, int(size * limit)) if limit else 0
