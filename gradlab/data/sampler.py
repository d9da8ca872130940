"""Samplers: the order in which a loader reads the samples of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from gradlab.errors import OptionError, message
from gradlab.ops.creation import asarray
from gradlab.ops.random import Generator, randint, randperm
from gradlab.ops.sampling import multinomial, require_weights
from gradlab.tensor import is_integer, require_integer

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """An order of indices; a subclass defines ``__iter__`` and, where it is known, ``__len__``.

    An order that differs from epoch to epoch follows from ``set_epoch(epoch)``, which `DataLoader`
    calls, where it is defined, before it reads the order.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__()")


class SequentialSampler(Sampler[int]):
    """The indices from first to last.

    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} indices)"

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices())

    def indices(self) -> range:
        """The whole order."""
        return range(len(self.data_source))


class SeededSampler(Sampler[int]):
    """Base of the samplers whose order is random, a new one in each epoch.

    Each epoch has a seed of its own, and its order depends on that alone. With ``seed``, it follows
    from ``(seed, epoch)``; else it is drawn from ``generator``, by default the one that
    `gradlab.manual_seed` seeds, when the epoch begins. A subclass defines ``_order(generator)`` and
    ``__len__``.
    """

    def __init__(self, generator: Generator | None, seed: int | None) -> None:
        check_source(type(self).__name__, generator, seed)
        self.generator = generator
        self.seed = None if seed is None else int(seed)
        self._epoch = 0
        self._epoch_seed: int | None = None

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"{type(self).__name__}({len(self)} indices{self._described()}{seed})"

    def _described(self) -> str:
        return ""

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``, counted from 0."""
        self._epoch = epoch

    def begin_epoch(self, epoch: int, epoch_seed: int | None = None) -> int:
        """Settle the order of the next iteration, and return the seed it follows from.

        ``epoch_seed``, as an earlier call returned it, repeats the order of that epoch and draws
        nothing.
        """
        self._epoch = epoch
        self._epoch_seed = self._draw_seed(epoch) if epoch_seed is None else epoch_seed
        return self._epoch_seed

    def _draw_seed(self, epoch: int) -> int:
        if self.seed is None:
            return int(randint(0, (1 << 63) - 1, (), generator=self.generator))
        # Hashed together: seed + epoch would give seed 1 the orders of seed 0, one epoch late.
        mixed = np.random.SeedSequence([self.seed % (1 << 64), epoch])
        return int(mixed.generate_state(1, np.uint64)[0])

    def indices(self) -> np.ndarray:
        """The whole order of the next epoch, int64."""
        seed = self._epoch_seed
        if seed is None:
            seed = self._draw_seed(self._epoch)
        self._epoch += 1
        self._epoch_seed = None
        return self._order(Generator(seed))

    def _order(self, source: Generator) -> np.ndarray:
        raise NotImplementedError


class RandomSampler(SeededSampler):
    """The indices in random order, a new one in each epoch.

    Each epoch has a seed of its own, and its order depends on that alone. With ``seed``, it follows
    from ``(seed, epoch)``; else it is drawn from ``generator``, by default the one that
    `gradlab.manual_seed` seeds, when the epoch begins.

    Parameters
    ----------
    replacement: draw each index independently of the others.
    num_samples: how many indices to draw, by default ``len(data_source)``. Without replacement,
        more than that begin another order.

    >>> a = RandomSampler(range(100), seed=3)
    >>> b = RandomSampler(range(100), seed=3)
    >>> first = list(a)
    >>> first == list(b), sorted(first) == list(range(100)), first == list(a)
    (True, True, False)
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator, seed)
        if num_samples is not None:
            num_samples = require_integer("RandomSampler", "num_samples", num_samples)
        if not len(data_source):
            raise OptionError("RandomSampler: expected one sample or more, got an empty data set")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _described(self) -> str:
        return ", replacement=True" if self.replacement else ""

    def __len__(self) -> int:
        return self.num_samples

    def _order(self, source: Generator) -> np.ndarray:
        size, count = len(self.data_source), self.num_samples
        if self.replacement:
            return randint(0, size, (count,), generator=source).numpy()
        if count == size:
            return randperm(size, generator=source).numpy()
        rounds = [randperm(size, generator=source).numpy() for _ in range(-(-count // size))]
        return np.concatenate(rounds)[:count]


class SubsetRandomSampler(SeededSampler):
    """Given indices in random order, a new one in each epoch: a part of a data set, shuffled.

    ``generator`` and ``seed`` are those of `RandomSampler`.

    >>> part = SubsetRandomSampler([3, 5, 8], seed=0)
    >>> sorted(part), len(part)
    ([3, 5, 8], 3)
    """

    def __init__(
        self,
        indices: Iterable[int],
        generator: Generator | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator, seed)
        self._indices = np.asarray([int(index) for index in indices], np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def _order(self, source: Generator) -> np.ndarray:
        return self._indices[randperm(len(self), generator=source).numpy()]


class WeightedRandomSampler(SeededSampler):
    """Indices ``0 … len(weights)-1``, each drawn with a probability proportional to its weight.

    With weights of one over the size of each sample's class, batches hold the classes in equal
    parts.

    Parameters
    ----------
    weights: a list, array or 1-D tensor of numbers of 0 or more, one per sample.
    num_samples: how many indices an epoch has.
    replacement: draw each independently of the others; else none comes twice.
    generator, seed: as in `RandomSampler`.

    >>> import gradlab as gl
    >>> labels = gl.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    >>> weights = 1 / gl.bincount(labels)[labels]
    >>> drawn = labels[list(WeightedRandomSampler(weights, num_samples=1000, seed=0))]
    >>> 450 < drawn.sum().item() < 550
    True
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator, seed)
        self.num_samples = require_integer("WeightedRandomSampler", "num_samples", num_samples)
        self.weights = asarray(weights, dtype="float64", device="cpu").detach()
        self.replacement = replacement
        if self.weights.ndim != 1:
            expected, got = "weights with one axis, a number per sample", str(self.weights.shape)
            raise OptionError(
                message("WeightedRandomSampler", expected=expected, got=f"shape {got}")
            )
        hint = "a class that has no samples gives 1/0: count it as 1"
        distinct = None if replacement else self.num_samples
        require_weights("WeightedRandomSampler", self.weights, distinct, hint)

    def _described(self) -> str:
        return "" if self.replacement else ", replacement=False"

    def __len__(self) -> int:
        return self.num_samples

    def _order(self, source: Generator) -> np.ndarray:
        drawn = multinomial(self.weights, self.num_samples, self.replacement, generator=source)
        return drawn.numpy()


def check_source(name: str, generator: Any, seed: Any) -> None:
    """Refuse a generator or a seed that is none, and both together."""
    if generator is not None and not isinstance(generator, Generator):
        raise OptionError(
            message(
                name,
                expected="a gradlab.Generator as generator",
                got=type(generator).__name__,
                hint="give a number as seed=",
            )
        )
    if seed is not None and not is_integer(seed):
        raise OptionError(message(name, expected="an integer seed", got=repr(seed)))
    if seed is not None and generator is not None:
        raise OptionError(f"{name}: expected a seed or a generator, got both")


class BatchSampler(Sampler[list[Any]]):
    """Lists of ``batch_size`` indices of another sampler; the last may be shorter.

    ``drop_last`` leaves out a last list that is shorter.

    >>> list(BatchSampler(SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = require_integer("BatchSampler", "batch_size", batch_size)
        self.drop_last = drop_last

    def __repr__(self) -> str:
        # Indices may also come from a list of any length, which a line does not hold.
        own = isinstance(self.sampler, Sampler)
        sampler = repr(self.sampler) if own else type(self.sampler).__name__
        return (
            f"{type(self).__name__}({sampler}, batch_size={self.batch_size}, "
            f"drop_last={self.drop_last})"
        )

    def __len__(self) -> int:
        size = len(self.sampler)  # type: ignore[arg-type]
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        # The order is drawn now, not at the first batch: two iterations may run side by side.
        return chunks(iter(self.sampler), self.batch_size, self.drop_last)


def chunks(items: Iterator[Any], size: int, drop_last: bool) -> Iterator[list[Any]]:
    """Lists of ``size`` items, the last one shorter unless ``drop_last``."""
    while chunk := list(islice(items, size)):
        if len(chunk) < size and drop_last:
            return
        yield chunk
