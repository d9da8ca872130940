"""The loader: batches, their order, and reading ahead."""

from __future__ import annotations

import gc
import threading
import time
import traceback

import numpy as np
import pytest
from hypothesis import given, strategies as st

import gradlab as gl
from gradlab.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    random_split,
)
from gradlab.errors import DataError, DeviceError, OptionError
from gradlab.ops.random import Generator


def pairs(size: int = 10) -> TensorDataset:
    x = np.arange(2.0 * size, dtype=np.float32).reshape(size, 2)
    return TensorDataset(x, np.arange(size))


class Items(Dataset):
    """Read sample by sample; remembers which samples were read."""

    def __init__(self, size: int = 10, seconds: float = 0.0) -> None:
        self.size, self.seconds = size, seconds
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        time.sleep(self.seconds)
        self.read.append(index)
        return np.float32(index), index


class Stream(IterableDataset):
    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __iter__(self):
        return ((np.float32(i), i) for i in range(self.size))


def batches(loader) -> list[list[int]]:
    """The second item of each batch."""
    return [batch[1].tolist() for batch in loader]


def flat(lists) -> list[int]:
    return [value for each in lists for value in each]


AHEAD = [{}, {"prefetch": 1}, {"prefetch": 3}, {"num_workers": 2}, {"prefetch_factor": 2}]
SOURCES = [pairs, Items, Stream, lambda size: Subset(pairs(size + 3), range(size))]


# ------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("options", AHEAD)
@pytest.mark.parametrize("source", SOURCES)
def test_batches_in_order(source, options):
    loader = DataLoader(source(10), batch_size=4, **options)
    assert batches(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] == batches(loader)
    loader = DataLoader(source(10), batch_size=4, drop_last=True, **options)
    assert batches(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@given(
    st.integers(1, 40),
    st.integers(1, 45),
    st.booleans(),
    st.booleans(),
    st.sampled_from([{}, {"prefetch": 2}]),
    st.sampled_from([pairs, Items]),
)
def test_every_sample_once(size, batch_size, shuffle, drop_last, options, source):
    if drop_last and batch_size > size:
        batch_size = size
    loader = DataLoader(source(size), batch_size, shuffle, drop_last=drop_last, seed=0, **options)
    found = batches(loader)
    assert len(found) == len(loader)
    assert {len(batch) for batch in found[:-1]} <= {batch_size}
    kept = size - size % batch_size if drop_last else size
    assert len(set(flat(found))) == len(flat(found)) == kept


def test_batches_hold_what_the_samples_hold():
    loader = DataLoader(pairs(), batch_size=3, shuffle=True, seed=1)
    for x, y in loader:
        assert x.tolist() == [[2 * i, 2 * i + 1] for i in y.tolist()]
        assert (x.dtype.name, y.dtype.name) == ("float32", "int64")


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_share_no_memory_with_the_data(shuffle):
    data = pairs()
    shared = [
        np.shares_memory(x.numpy(), data.tensors[0].numpy())
        for x, _ in DataLoader(data, 4, shuffle=shuffle)
    ]
    assert shared == [False] * 3


def test_samples_without_a_batch():
    assert [int(y) for _, y in DataLoader(pairs(3), batch_size=None)] == [0, 1, 2]
    assert [y for _, y in DataLoader(Stream(3), batch_size=None)] == [0, 1, 2]
    assert len(DataLoader(pairs(3), batch_size=None)) == 3
    loader = DataLoader(pairs(3), batch_size=None, collate_fn=lambda sample: int(sample[1]) + 10)
    assert list(loader) == [10, 11, 12]


def test_collate_fn_is_given_the_list_of_samples():
    loader = DataLoader(pairs(5), 2, collate_fn=lambda samples: [int(y) for _, y in samples])
    assert list(loader) == [[0, 1], [2, 3], [4]]
    loader = DataLoader(Stream(3), 2, collate_fn=len)
    assert list(loader) == [2, 1]


def test_any_sequence_is_a_data_set():
    assert [batch.tolist() for batch in DataLoader([1.0, 2.0, 3.0], 2)] == [[1, 2], [3]]
    assert [batch.tolist() for batch in DataLoader(np.arange(3), 2)] == [[0, 1], [2]]


def test_device_moves_each_batch():
    loader = DataLoader(Items(3), 2, device="cpu")
    assert [x.device for x, _ in loader] == ["cpu", "cpu"]


@pytest.mark.parametrize("options", AHEAD)
def test_batches_on_a_gpu(fake_cuda, options):
    for source in (pairs(), Items()):
        for x, y in DataLoader(source, 4, True, seed=0, device="cuda", **options):
            assert (x.device, y.device) == ("cuda", "cuda")
            scale = 1 if source.__class__ is Items else 2
            assert x.cpu().numpy().ravel()[0] == scale * y.cpu().numpy()[0]


@pytest.mark.parametrize("shuffle", [False, True])
def test_data_that_lies_on_a_gpu(fake_cuda, shuffle):
    there = TensorDataset(*(x.to("cuda") for x in pairs().tensors))
    here = batches(DataLoader(pairs(), 4, shuffle, seed=0))
    assert batches(DataLoader(there, 4, shuffle, seed=0)) == here
    assert batches(DataLoader(Subset(there, range(10)), 4, shuffle, seed=0)) == here
    with pytest.raises(IndexError, match="expected an index from -10 to 9, got 10"):
        there.get_batch([10])  # a GPU would read beside the data
    with pytest.raises(DeviceError) as raised:
        TensorDataset(there.tensors[0], gl.zeros(10))
    assert str(raised.value) == (
        "TensorDataset: expected tensors on one device, got cuda:0 and cpu; move them with .to(...)"
    )


# -------------------------------------------------------------------------------------- order


def test_seed_and_epoch_decide_the_order():
    loader = DataLoader(pairs(50), 8, shuffle=True, seed=3)
    epochs = [batches(loader) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    gl.manual_seed(12)
    ahead = DataLoader(Items(50), 8, shuffle=True, seed=3, prefetch=2)
    assert [batches(ahead) for _ in range(3)] == epochs
    # The batch size cuts the same order elsewhere.
    assert flat(batches(DataLoader(pairs(50), 7, shuffle=True, seed=3))) == flat(epochs[0])


def test_generator_decides_the_order():
    one, same = (DataLoader(pairs(50), 8, shuffle=True, generator=Generator(2)) for _ in "ab")
    epochs = [batches(one), batches(one)]
    assert epochs[0] != epochs[1]
    assert [batches(same), batches(same)] == epochs


def test_default_generator_decides_the_order():
    loader = DataLoader(pairs(50), 8, shuffle=True)
    gl.manual_seed(4)
    first = batches(loader)
    gl.manual_seed(4)
    assert batches(loader) == first
    assert batches(loader) != first


def test_iterations_side_by_side_are_two_epochs():
    for options in ({"shuffle": True, "seed": 0}, {}):
        if not options:
            sampler = BatchSampler(RandomSampler(pairs(20), seed=0), 4, False)
            options = {"batch_sampler": sampler}
        else:
            options["batch_size"] = 4
        alone = DataLoader(pairs(20), **options)
        epochs = [batches(alone), batches(alone)]
        loader = DataLoader(pairs(20), **{**options, **_fresh(options)})
        both = [(a[1].tolist(), b[1].tolist()) for a, b in zip(loader, loader, strict=True)]
        assert [list(column) for column in zip(*both, strict=True)] == epochs


def _fresh(options):
    if "batch_sampler" not in options:
        return {}
    return {"batch_sampler": BatchSampler(RandomSampler(pairs(20), seed=0), 4, False)}


def test_sampler_sets_the_order():
    assert batches(DataLoader(pairs(), 2, sampler=[5, 1, 3])) == [[5, 1], [3]]
    assert batches(DataLoader(pairs(), 2, sampler=SequentialSampler(range(3)))) == [[0, 1], [2]]
    endless = iter(lambda: 7, None)
    loader = DataLoader(pairs(), 2, sampler=endless)
    assert next(iter(loader))[1].tolist() == [7, 7]
    loader = DataLoader(pairs(), batch_sampler=[[3], [1, 2]])
    assert (batches(loader), len(loader)) == ([[3], [1, 2]], 2)


def test_set_epoch_is_called():
    class Rolling:
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch])

    class Epochs(IterableDataset):
        set_epoch = Rolling.set_epoch
        __iter__ = Rolling.__iter__

    assert [[y.tolist() for _, y in DataLoader(pairs(), sampler=Rolling())]] == [[[0]]]
    loader = DataLoader(Epochs())
    assert [[x.tolist() for x in loader] for _ in range(3)] == [[[0]], [[1]], [[2]]]


def test_random_split_parts_load():
    train, rest = random_split(pairs(20), [0.8, 0.2], Generator(0))
    found = flat(batches(DataLoader(train, 3, shuffle=True))) + flat(batches(DataLoader(rest, 3)))
    assert sorted(found) == list(range(20))


# ------------------------------------------------------------------------------------- length


def test_length():
    assert len(DataLoader(pairs(10), 4)) == 3
    assert len(DataLoader(pairs(10), 4, drop_last=True)) == 2
    assert len(DataLoader(pairs(10), 4, sampler=[1, 2])) == 1


def test_length_unknown():
    with pytest.raises(TypeError) as raised:
        len(DataLoader(Stream(), 4))
    assert str(raised.value) == "len(DataLoader): expected a data set with __len__, got Stream"
    with pytest.raises(TypeError, match="expected a sampler with __len__, got generator"):
        len(DataLoader(pairs(), sampler=(i for i in range(3))))
    assert len(list(DataLoader(Stream(), 4))) == 3  # list() asks for the length first

    class Known(Stream):
        def __len__(self):
            return self.size

    assert len(DataLoader(Known(10), 4)) == 3


# -------------------------------------------------------------------------------- reading ahead


def loader_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("gradlab-loader")]


def assert_threads_end(seconds: float = 5.0) -> None:
    stop = time.monotonic() + seconds
    while loader_threads() and time.monotonic() < stop:
        time.sleep(0.002)
    assert loader_threads() == []


@pytest.mark.parametrize("source", [Items, Stream])
def test_threads_end_with_the_iteration(source):
    loader = DataLoader(source(20), 2, prefetch=3)
    for _ in loader:
        assert loader_threads()
    assert_threads_end()


@pytest.mark.parametrize("source", [Items, Stream])
def test_threads_end_when_the_loop_breaks(source):
    for x, _ in DataLoader(source(1000), 2, prefetch=3):
        assert x.tolist() == [0, 1]
        break
    assert_threads_end()


def test_options_of_pytorch_that_change_nothing():
    options = {"pin_memory": True, "persistent_workers": True, "num_workers": 1}
    loader = DataLoader(pairs(), 2, **options)
    assert {name: getattr(loader, name) for name in options} == options
    assert flat(batches(loader)) == flat(batches(DataLoader(pairs(), 2)))


def test_threads_end_when_the_iterator_is_dropped():
    iterator = iter(DataLoader(Items(1000), 2, num_workers=3))
    next(iterator)
    assert len(loader_threads()) > 0
    del iterator
    assert_threads_end()


def test_threads_end_when_the_iterator_is_found_by_the_garbage_collector():
    iterator = iter(DataLoader(Items(1000), 2, prefetch=3))
    next(iterator)
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    gc.collect()
    assert_threads_end()


def test_threads_end_when_the_consumer_raises():
    def consume():
        for _ in DataLoader(Items(1000), 2, prefetch=3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert_threads_end()


def test_batches_are_read_ahead_and_no_further():
    data = Items(40)
    iterator = iter(DataLoader(data, 2, prefetch=3))
    next(iterator)
    stop = time.monotonic() + 5
    while len(data.read) < 8 and time.monotonic() < stop:
        time.sleep(0.002)
    time.sleep(0.02)
    assert data.read == list(range(8))  # the one given, and three more


def test_reading_overlaps_with_the_work_on_batches():
    def seconds(**options) -> float:
        start = time.perf_counter()
        for _ in DataLoader(Items(12, seconds=0.01), 1, **options):
            time.sleep(0.01)
        return time.perf_counter() - start

    assert min(seconds(prefetch=2) for _ in range(3)) < 0.8 * seconds()


def test_workers_read_side_by_side_and_keep_the_order():
    class Uneven(Items):
        def __getitem__(self, index):
            time.sleep(0.02 if index % 3 == 0 else 0.0)
            return super().__getitem__(index)

    data = Uneven(12)
    assert flat(batches(DataLoader(data, 1, num_workers=3))) == list(range(12))
    assert data.read != list(range(12))


@pytest.mark.parametrize("options", AHEAD)
@pytest.mark.parametrize("kind", ["items", "stream"])
def test_errors_come_at_their_batch_with_their_traceback(kind, options):
    def sample(index):
        if index == 5:
            raise OSError("the file of sample 5 is gone")
        return index, index

    class Broken(Items):
        def __getitem__(self, index):
            return sample(index)

    class BrokenStream(IterableDataset):
        def __iter__(self):
            return map(sample, range(10))

    found = []
    loader = DataLoader(Broken() if kind == "items" else BrokenStream(), 2, **options)
    with pytest.raises(OSError, match="the file of sample 5 is gone") as raised:
        found.extend(y.tolist() for _, y in loader)
    assert found == [[0, 1], [2, 3]]
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert frames[-1] == "sample"
    assert frames[0] == "test_errors_come_at_their_batch_with_their_traceback"
    assert_threads_end()


def test_stop_iteration_in_a_data_set_does_not_end_the_epoch_in_silence():
    class Stops(Items):
        def __getitem__(self, index):
            return next(iter(()))

    for options in ({}, {"prefetch": 2}):
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(DataLoader(Stops(), 2, **options))
    assert_threads_end()


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: DataLoader(pairs(0)),
            DataError,
            "expected a data set with samples, got an empty one",
        ),
        (
            lambda: DataLoader(i for i in range(3)),
            DataError,
            "expected a data set with __getitem__ and __len__, got generator; "
            "derive it from gradlab.data.Dataset and define both",
        ),
        (
            lambda: DataLoader(pairs(), 0),
            OptionError,
            "expected an integer batch_size of 1 or more, got 0",
        ),
        (
            lambda: DataLoader(pairs(), 2.5),
            OptionError,
            "expected an integer batch_size of 1 or more, got 2.5",
        ),
        (
            lambda: DataLoader(pairs(), shuffle=True, sampler=[0]),
            OptionError,
            "expected shuffle=True or a sampler, got both; the sampler sets the order",
        ),
        (
            lambda: DataLoader(pairs(), 2, batch_sampler=[[0]]),
            OptionError,
            "expected a batch_sampler alone, got batch_size, shuffle, sampler or drop_last "
            "beside it; the batch_sampler sets them all",
        ),
        (
            lambda: DataLoader(pairs(), None, drop_last=True),
            OptionError,
            "expected a batch_size with drop_last=True, got None",
        ),
        (
            lambda: DataLoader(pairs(5), 6, drop_last=True),
            OptionError,
            "expected at least one whole batch of 6 with drop_last=True, got 5 samples; "
            "lower batch_size, or leave drop_last off",
        ),
        (
            lambda: DataLoader(Stream(), shuffle=True),
            OptionError,
            "expected an IterableDataset in its own order, got shuffle=True; "
            "shuffle within the data set",
        ),
        (
            lambda: DataLoader(Stream(), sampler=[0]),
            OptionError,
            "expected an IterableDataset in its own order, got a sampler; "
            "shuffle within the data set",
        ),
        (
            lambda: DataLoader(pairs(), seed=0, generator=Generator(0)),
            OptionError,
            "expected a seed or a generator, got both",
        ),
        (
            lambda: DataLoader(pairs(), generator=7),
            OptionError,
            "expected a gradlab.Generator as generator, got int; give a number as seed=",
        ),
        (lambda: DataLoader(pairs(), seed=1.5), OptionError, "expected an integer seed, got 1.5"),
        (
            lambda: DataLoader(pairs(), prefetch=-1),
            OptionError,
            "expected an integer prefetch of 0 or more, got -1",
        ),
        (
            lambda: DataLoader(pairs(), num_workers=True),
            OptionError,
            "expected an integer num_workers of 0 or more, got True",
        ),
        (
            lambda: DataLoader(pairs(), prefetch_factor=0),
            OptionError,
            "expected an integer prefetch_factor of 1 or more, got 0",
        ),
        (
            lambda: DataLoader(pairs(), prefetch=2, prefetch_factor=2),
            OptionError,
            "expected prefetch or prefetch_factor, got both",
        ),
    ],
)
def test_loader_refuses(make, kind, text):
    with pytest.raises(kind) as raised:
        make()
    assert str(raised.value) == f"DataLoader: {text}"


def test_loader_refuses_an_unknown_device():
    with pytest.raises(DeviceError, match="got 'tpu'"):
        DataLoader(pairs(), device="tpu")


def test_indices_out_of_range():
    with pytest.raises(IndexError) as raised:
        list(DataLoader(pairs(5), 2, sampler=[0, 1, 2, 5]))
    assert str(raised.value) == "TensorDataset: expected an index from -5 to 4, got 5"


def test_the_repr_is_one_line():
    data = TensorDataset(np.zeros((5, 2), np.float32))
    assert repr(DataLoader(data, 2, shuffle=True, drop_last=True)) == (
        f"DataLoader({data}, batch_size=2, shuffle=True, drop_last=True)"
    )
    assert repr(DataLoader(data, num_workers=2, device="cpu")) == (
        f"DataLoader({data}, batch_size=1, prefetch=4, num_workers=2, device=cpu)"
    )
    assert repr(DataLoader(data, batch_sampler=[[0, 1], [2]])) == (
        f"DataLoader({data}, batch_sampler=list)"
    )
