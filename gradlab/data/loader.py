"""The loader: batches of a data set, in order or shuffled, loaded ahead, resumable at any batch.

An iteration has three parts. The *plan* is an iterator of index batches (for an `IterableDataset`,
of lists of samples), begun at the batch where an interrupted epoch stopped. `read` turns one of
them into a batch. Where batches are loaded ahead, threads do the reading; the plan itself is
followed in the consumer's thread, so that random numbers are drawn in one order always.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any

from gradlab.data.collate import default_collate, to_device
from gradlab.data.dataset import (
    IterableDataset,
    described,
    read_samples,
    reads,
    size_of,
)
from gradlab.data.sampler import (
    RandomSampler,
    SeededSampler,
    SequentialSampler,
    check_source,
    chunks,
)
from gradlab.devices import Device, DeviceLike, find_device
from gradlab.errors import DataError, OptionError, StateError, message
from gradlab.fields import COUNT, INTEGER, NOTHING, Maybe, check_fields
from gradlab.ops.random import Generator
from gradlab.tensor import require_integer

_NAME = "DataLoader"
_END = object()  # what a thread returns when an IterableDataset has no more samples


class _Position:
    """How far the consumer has come in an epoch, and the seed that a random order follows from."""

    def __init__(self, epoch: int, batches: int = 0, epoch_seed: int | None = None) -> None:
        self.epoch = epoch
        self.batches = batches
        self.epoch_seed = epoch_seed
        self.finished = False


class DataLoader:
    """Iterates over a data set in batches.

    Data in memory (`TensorDataset`, a `Subset` of one, any data set with ``get_batch``) is read by
    one gather per tensor and batch. Other data sets are read sample by sample and
    joined by ``collate_fn``.

    Parameters
    ----------
    dataset: anything with ``__getitem__`` and ``__len__``, or an `IterableDataset`.
    batch_size: samples per batch; None gives the samples one by one as the data set has them, for
        an `IterableDataset` that makes whole batches.
    shuffle: read in a new random order in each epoch.
    sampler: indices to read, in their order; takes the place of ``shuffle``.
    batch_sampler: lists of indices, one per batch; takes the place of ``batch_size``, ``shuffle``,
        ``sampler`` and ``drop_last``.
    collate_fn: makes a batch of a list of samples, by default `default_collate`.
    drop_last: leave out a last batch that is shorter.
    seed: makes the order of each epoch a function of ``(seed, epoch)``.
    generator: draws the order of each epoch when the epoch begins. With neither, the default
        generator does, which `gradlab.manual_seed` seeds.
    prefetch: how many batches to load ahead, in a background thread; 0 loads each when it is asked
        for, which is faster for data in memory. ``prefetch_factor``, as in PyTorch, counts them per
        worker (2 if workers are given).
    device: where to put the tensors of each batch; None leaves them where they are.
    num_workers: how many threads load ahead. They are threads, not processes: they help where a
        data set waits for files or computes in NumPy, and start at once. More than one calls the
        data set's ``__getitem__`` from several threads at a time. An `IterableDataset` is read by
        one thread.
    pin_memory, persistent_workers: taken so that programs written for PyTorch run as they are.
        They change nothing: no memory is pinned, and threads cost nothing to start.

    An error raised while loading ahead comes to the consumer at its own batch, with its traceback.
    A data set that draws random numbers of its own should own the `Generator` it draws from:
    threads would take turns at the default one in an order that nobody controls.

    `state_dict` tells the place within an epoch; after `load_state_dict`, the next iteration gives
    exactly the batches that were left, and the epochs after it are those of an uninterrupted run.

    Raises `DataError` for an empty data set and `OptionError` for options that exclude each other.

    >>> import numpy as np
    >>> from gradlab.data import TensorDataset
    >>> data = TensorDataset(np.arange(10, dtype=np.float32).reshape(5, 2), np.arange(5))
    >>> for x, y in DataLoader(data, batch_size=2):
    ...     print(x.shape, y)
    (2, 2) tensor([0, 1])
    (2, 2) tensor([2, 3])
    (1, 2) tensor([4])
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Generator | None = None,
        seed: int | None = None,
        prefetch: int = 0,
        prefetch_factor: int | None = None,
        device: DeviceLike = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
    ) -> None:
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            _check_iterable(shuffle, sampler, batch_sampler)
        elif not size_of(_NAME, dataset):
            raise DataError(f"{_NAME}: expected a data set with samples, got an empty one")
        _check_order(batch_size, shuffle, sampler, batch_sampler, drop_last)
        check_source(_NAME, generator, seed)
        _check_ahead(prefetch, prefetch_factor, num_workers)
        self.dataset = dataset
        self.batch_size = None if batch_sampler is not None else batch_size
        self.drop_last = drop_last
        self.collate_fn = collate_fn
        self.generator = generator
        self.device: Device | None = None if device is None else find_device(device)
        self.num_workers = num_workers
        self.pin_memory, self.persistent_workers = pin_memory, persistent_workers
        per_worker = prefetch_factor or (2 if num_workers else 0)
        self.prefetch = prefetch or per_worker * max(1, num_workers)
        self.batch_sampler: Any = batch_sampler
        self.sampler: Any = sampler
        if shuffle:
            self.sampler = RandomSampler(dataset, generator=generator, seed=seed)
        elif sampler is None and batch_sampler is None and not self._iterable:
            self.sampler = SequentialSampler(dataset)
        self._random = _find_random(self.sampler if batch_sampler is None else batch_sampler)
        if not self._iterable and batch_sampler is None and drop_last:
            self._check_not_all_dropped()
        self._epoch = 0  # the epoch that the next iteration begins
        self._position: _Position | None = None  # of the iteration begun last
        self._resumed = False  # the next iteration goes on from _position

    def __repr__(self) -> str:
        by_batch = self.batch_sampler
        options = {
            "batch_size": self.batch_size,
            "shuffle": isinstance(self.sampler, RandomSampler) or None,
            "batch_sampler": None if by_batch is None else type(by_batch).__name__,
            "drop_last": self.drop_last or None,
            "prefetch": self.prefetch or None,
            "num_workers": self.num_workers or None,
            "device": self.device and str(self.device),
        }
        given = "".join(f", {k}={v}" for k, v in options.items() if v is not None)
        return f"{type(self).__name__}({described(self.dataset)}{given})"

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        source: Any = self.batch_sampler
        if source is None:
            source = self.dataset if self._iterable else self.sampler
        if not hasattr(source, "__len__"):
            # The type that len() has for this: list(loader) asks and goes on without.
            raise TypeError(
                f"len({_NAME}): expected a {'data set' if self._iterable else 'sampler'} with "
                f"__len__, got {type(source).__name__}"
            )
        size = len(source)
        if self.batch_sampler is not None or self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        position = self._begin_epoch()
        plan, read = self._plan(position)
        # A generator, not map(): there a StopIteration out of the data set would end the epoch.
        batches = self._ahead(plan, read) if self.prefetch else (read(part) for part in plan)
        return _counted(batches, position)

    @property
    def epoch(self) -> int:
        """The number, from 0, of the epoch under way, or of the next one between epochs."""
        return self._position.epoch if self._under_way() else self._epoch  # type: ignore[union-attr]

    # ------------------------------------------------------------------------------- epochs

    def _under_way(self) -> bool:
        return self._position is not None and not self._position.finished

    def _begin_epoch(self) -> _Position:
        position = self._position
        if position is None or not self._resumed:
            position = self._position = _Position(self._epoch)
        self._resumed = False
        self._epoch = position.epoch + 1
        if self._random is not None:
            position.epoch_seed = self._random.begin_epoch(position.epoch, position.epoch_seed)
        for source in (self.dataset, self.sampler, self.batch_sampler):
            if source is not self._random and hasattr(source, "set_epoch"):
                source.set_epoch(position.epoch)
        return position

    def finish_epoch(self) -> None:
        """Count the epoch under way as over, although batches of it are left.

        For a loop that ends its epochs early: without it, `state_dict` describes the place where
        the loop stopped, and a resumed run would continue from there. A place that
        `load_state_dict` has set stays: no loop has been there yet.
        """
        if self._under_way() and not self._resumed:
            self._position.finished = True  # type: ignore[union-attr]

    # ---------------------------------------------------------------------- plan and reading

    def _plan(self, position: _Position) -> tuple[Iterator[Any], Callable[[Any], Any]]:
        plan = (
            self._samples(position.batches) if self._iterable else self._indices(position.batches)
        )
        return plan, self._reader()

    def _indices(self, skip: int) -> Iterator[Any]:
        """Index batches, from batch ``skip`` on; nothing of the batches before it is read."""
        size = self.batch_size
        if self.batch_sampler is not None or size is None:
            source: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
            return islice(iter(source), skip, None)
        if not isinstance(self.sampler, SeededSampler | SequentialSampler):
            batches = chunks(iter(self.sampler), size, self.drop_last)
            return islice(batches, skip, None)
        order = self.sampler.indices()
        stop = len(order) - len(order) % size if self.drop_last else len(order)
        return (order[start : start + size] for start in range(skip * size, stop, size))

    def _samples(self, skip: int) -> Iterator[Any]:
        """Lists of samples of an iterable data set, which is read up to where it is to go on."""
        samples = iter(self.dataset)
        size = self.batch_size
        rest = islice(samples, skip * (size or 1), None)
        return rest if size is None else chunks(rest, size, self.drop_last)

    def _reader(self) -> Callable[[Any], Any]:
        """What makes a batch of a part of the plan."""
        dataset, collate, device = self.dataset, self.collate_fn, self.device
        unbatched = self.batch_size is None and self.batch_sampler is None
        read: Callable[[Any], Any]
        if unbatched:
            convert = (lambda sample: sample) if collate is None else collate
            read = convert if self._iterable else lambda index: convert(dataset[index])
        elif self._iterable:
            read = collate or default_collate
        elif collate is None and reads(dataset, "get_batch"):
            read = dataset.get_batch
        else:
            join = collate or default_collate
            read = lambda indices: join(read_samples(dataset, indices))  # noqa: E731
        return read if device is None else lambda part: to_device(read(part), device)

    def _ahead(self, plan: Iterator[Any], read: Callable[[Any], Any]) -> Iterator[Any]:
        if not self._iterable:
            return _load_ahead(plan, read, self.prefetch, max(1, self.num_workers))

        def step(_: None) -> Any:  # here the plan itself reads the data, so the thread follows it
            part = next(plan, _END)
            return part if part is _END else read(part)

        return _load_ahead(repeat(None), step, self.prefetch, 1)

    # ------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch under way, and what its order and the next ones follow from.

        A dict of plain numbers, fit for JSON. Batches count once the consumer was given them,
        whatever was loaded ahead. Where the default generator shuffles, its own state
        (`gradlab.get_rng_state`) belongs beside this one in a checkpoint.
        """
        at = self._position if self._under_way() else None
        source = self._random
        generator = None if source is None else source.generator
        return {
            "epoch": self.epoch,
            "batches": 0 if at is None else at.batches,
            "epoch_seed": None if at is None else at.epoch_seed,
            "order": self._order_kind(),
            "seed": None if source is None else source.seed,
            "generator": None if generator is None else generator.get_state(),
            "batch_size": self.batch_size,
            "samples": None if self._iterable else len(self.dataset),
        }

    def load_state_dict(self, state: Any) -> None:
        """Go on where `state_dict` was taken: the next iteration gives the batches left there.

        An iterable data set, and a sampler other than the ones of gradlab, must give the same again
        in the same epoch; a data set read by index is not read up to that place.

        Raises `StateError` where the state was taken from a loader of other data, another batch
        size or another way to shuffle.
        """
        own = self.state_dict()
        missing = [key for key in own if not isinstance(state, Mapping) or key not in state]
        if missing:
            raise StateError(
                message(
                    f"{_NAME}.load_state_dict",
                    expected="a dict that DataLoader.state_dict gave",
                    got=f"one without {', '.join(map(repr, missing))}",
                )
            )
        _check_same(own, state)
        form = {
            "epoch": COUNT, "batches": COUNT, "epoch_seed": Maybe(INTEGER),
            "seed": NOTHING if own["seed"] is None else INTEGER,
            "generator": NOTHING if own["generator"] is None else _GENERATOR,
        }  # fmt: skip
        check_fields(f"{_NAME}.load_state_dict", state, form)
        source = self._random
        if source is not None:
            source.seed = state["seed"]
            if source.generator is not None:
                source.generator.set_state(state["generator"])
        self._epoch = state["epoch"]
        self._resumed = bool(state["batches"] or state["epoch_seed"] is not None)
        self._position = None
        if self._resumed:
            self._position = _Position(state["epoch"], state["batches"], state["epoch_seed"])

    def _order_kind(self) -> str:
        if self._random is None:
            return "not shuffled by gradlab"
        if self._random.seed is not None:
            return "shuffled by a seed"
        if self._random.generator is not None:
            return "shuffled by a generator"
        return "shuffled by the default generator"

    # ---------------------------------------------------------------------------- checks

    def _check_not_all_dropped(self) -> None:
        size = len(self.sampler) if hasattr(self.sampler, "__len__") else None
        if size is not None and len(self) == 0:
            raise OptionError(
                message(
                    _NAME,
                    expected=f"at least one whole batch of {self.batch_size} with drop_last=True",
                    got=f"{size} samples",
                    hint="lower batch_size, or leave drop_last off",
                )
            )


_GENERATOR = {"seed": INTEGER, "calls": COUNT}


def _counted(batches: Iterator[Any], position: _Position) -> Iterator[Any]:
    for batch in batches:
        position.batches += 1
        yield batch
    position.finished = True


def _load_ahead(
    plan: Iterator[Any], read: Callable[[Any], Any], depth: int, threads: int
) -> Iterator[Any]:
    """Batches in the order of the plan, up to ``depth`` of them read ahead by threads.

    The threads end when this iterator does, whether it is exhausted, closed or dropped: none waits
    on a queue that nobody empties. A batch being read at that moment is read to its end first.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads, thread_name_prefix="gradlab-loader")
    waiting: deque[Future[Any]] = deque()
    try:
        for part in plan:
            waiting.append(pool.submit(read, part))
            if len(waiting) > depth:
                batch = waiting.popleft().result()
                if batch is _END:
                    return
                yield batch
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Without waiting: the consumer may be on its way out of an error or an interrupt.
        pool.shutdown(wait=False, cancel_futures=True)


def _find_random(source: Any) -> SeededSampler | None:
    """The sampler that a random order comes from, be it wrapped in batch samplers."""
    while source is not None and not isinstance(source, SeededSampler):
        source = getattr(source, "sampler", None)
    return source


def _check_iterable(shuffle: bool, sampler: Any, batch_sampler: Any) -> None:
    given = [
        name
        for name, value in (
            ("shuffle=True", shuffle or None),
            ("a sampler", sampler),
            ("a batch_sampler", batch_sampler),
        )
        if value is not None
    ]
    if given:
        raise OptionError(
            message(
                _NAME,
                expected="an IterableDataset in its own order",
                got=" and ".join(given),
                hint="shuffle within the data set",
            )
        )


def _check_order(
    batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if shuffle and sampler is not None:
        raise OptionError(
            f"{_NAME}: expected shuffle=True or a sampler, got both; the sampler sets the order"
        )
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise OptionError(
                f"{_NAME}: expected a batch_sampler alone, got batch_size, shuffle, sampler or "
                "drop_last beside it; the batch_sampler sets them all"
            )
        return
    if batch_size is None and drop_last:
        raise OptionError(f"{_NAME}: expected a batch_size with drop_last=True, got None")
    if batch_size is not None:
        require_integer(_NAME, "batch_size", batch_size)


def _check_ahead(prefetch: Any, prefetch_factor: Any, num_workers: Any) -> None:
    require_integer(_NAME, "prefetch", prefetch, 0)
    require_integer(_NAME, "num_workers", num_workers, 0)
    if prefetch_factor is None:
        return
    require_integer(_NAME, "prefetch_factor", prefetch_factor)
    if prefetch:
        raise OptionError(f"{_NAME}: expected prefetch or prefetch_factor, got both")


def _check_same(own: dict[str, Any], state: dict[str, Any]) -> None:
    words = {
        "samples": "a state of {} samples",
        "batch_size": "a state of batches of {}",
        "order": "a state of a loader {}",
    }
    for key, text in words.items():
        if own[key] != state[key]:
            raise StateError(
                message(
                    f"{_NAME}.load_state_dict",
                    expected=text.format(own[key]),
                    got=text.format(state[key]).removeprefix("a state of "),
                    hint="make the loader as it was when the state was taken",
                )
            )
