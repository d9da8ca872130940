"""A loader goes on exactly where its state was taken."""

from __future__ import annotations

import json
import time

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
    Subset,
    TensorDataset,
)
from gradlab.errors import StateError
from gradlab.ops.random import Generator

SIZE, BATCH = 23, 4
N_BATCHES = -(-SIZE // BATCH)


def pairs(size: int = SIZE) -> TensorDataset:
    return TensorDataset(np.zeros((size, 2), np.float32), np.arange(size))


class Items(Dataset):
    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int):
        self.read.append(index)
        return 0.0, index


class Stream(IterableDataset):
    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return ((0.0, 100 * self.epoch + i) for i in range(SIZE))


def batched(**options) -> DataLoader:
    return DataLoader(
        pairs(), batch_sampler=BatchSampler(**options, batch_size=BATCH, drop_last=False)
    )


# How each kind of loader is made anew in a process that resumes.
LOADERS = {
    "in order": lambda **o: DataLoader(pairs(), BATCH, **o),
    "seed": lambda **o: DataLoader(pairs(), BATCH, shuffle=True, seed=5, **o),
    "generator": lambda **o: DataLoader(pairs(), BATCH, True, generator=Generator(5), **o),
    "items": lambda **o: DataLoader(Items(), BATCH, shuffle=True, seed=5, **o),
    "subset": lambda **o: DataLoader(Subset(pairs(30), range(3, 26)), BATCH, True, seed=5, **o),
    "drop_last": lambda **o: DataLoader(pairs(), BATCH, True, seed=5, drop_last=True, **o),
    "stream": lambda **o: DataLoader(Stream(), BATCH, **o),
    "random sampler": lambda **o: DataLoader(
        pairs(), BATCH, sampler=RandomSampler(pairs(), generator=Generator(5)), **o
    ),
    "batch sampler": lambda **o: DataLoader(
        pairs(), batch_sampler=BatchSampler(RandomSampler(pairs(), seed=5), BATCH, False), **o
    ),
    "list of indices": lambda **o: DataLoader(pairs(), BATCH, sampler=list(range(SIZE)), **o),
    "one by one": lambda **o: DataLoader(pairs(), None, True, seed=5, **o),
}


def epoch(loader) -> list:
    return [batch[1].tolist() for batch in loader]


def stop_after(loader, count: int) -> dict:
    """The state after ``count`` batches, through JSON as in a checkpoint."""
    if count:
        for i, _ in enumerate(loader, start=1):
            if i == count:
                state = loader.state_dict()
                break
    else:
        state = loader.state_dict()
    return json.loads(json.dumps(state))


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", LOADERS)
def test_resuming_gives_what_was_left(kind, count, done, prefetch):
    make = LOADERS[kind]
    straight = make()
    expected = [epoch(straight) for _ in range(4)]

    stopped = make(prefetch=prefetch)
    for _ in range(done):
        epoch(stopped)
    state = stop_after(stopped, count)
    assert (state["epoch"], state["batches"]) == (done, count)

    resumed = make(prefetch=prefetch)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert resumed.epoch == done
    assert epoch(resumed) == expected[done][count:]
    assert [epoch(resumed) for _ in range(3 - done)] == expected[done + 1 :]


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, N_BATCHES), max_size=4), st.booleans())
def test_resuming_again_and_again(seed, stops, by_seed):
    def make() -> DataLoader:
        source = {"seed": seed} if by_seed else {"generator": Generator(seed)}
        return DataLoader(pairs(), BATCH, shuffle=True, **source)

    straight = make()
    expected = epoch(straight) + epoch(straight)
    loader, found = make(), []
    for count in stops:
        state = loader.state_dict()
        for batch in loader:
            if count == 0:
                break
            found.append(batch[1].tolist())
            state = loader.state_dict()
            count -= 1
        else:
            state = loader.state_dict()
        loader = make()
        loader.load_state_dict(json.loads(json.dumps(state)))
    while len(found) < len(expected):
        found += epoch(loader)
    assert found[: len(expected)] == expected


def test_after_the_last_batch_nothing_of_the_epoch_is_left():
    loader = LOADERS["seed"]()
    expected = [epoch(loader), epoch(loader)]
    stopped, resumed = LOADERS["seed"](), LOADERS["seed"]()
    iterator = iter(stopped)
    for _ in range(N_BATCHES):
        next(iterator)
    resumed.load_state_dict(stopped.state_dict())  # the last batch is given, the end not yet seen
    assert (epoch(resumed), epoch(resumed)) == ([], expected[1])


def test_skipped_samples_are_not_read():
    loader = LOADERS["items"]()
    state = stop_after(loader, 4)
    resumed = LOADERS["items"]()
    resumed.load_state_dict(state)
    assert [i for batch in epoch(resumed) for i in batch] == resumed.dataset.read


def test_batches_read_ahead_do_not_count():
    loader = DataLoader(Items(), BATCH, prefetch=4)
    iterator = iter(loader)
    next(iterator)
    stop = time.monotonic() + 5
    while len(loader.dataset.read) < 5 * BATCH and time.monotonic() < stop:
        time.sleep(0.002)
    assert loader.state_dict()["batches"] == 1


def test_default_generator_with_its_own_state_beside():
    def run(loader, count):
        """What an interrupted program draws: batches, and numbers between them."""
        drawn = []
        for batch in loader:
            drawn.append((batch[1].tolist(), float(gl.rand(1))))
            if len(drawn) == count:
                break
        return drawn

    def make():
        return DataLoader(pairs(), BATCH, shuffle=True)

    gl.manual_seed(8)
    straight = make()
    expected = run(straight, 0) + run(straight, 0)

    gl.manual_seed(8)
    stopped = make()
    found = run(stopped, 2)
    state, rng = stopped.state_dict(), gl.get_rng_state()

    gl.manual_seed(1)
    resumed = make()
    resumed.load_state_dict(state)
    gl.set_rng_state(rng)
    found += run(resumed, 0) + run(resumed, 0)
    assert found == expected


def test_a_generator_shared_with_other_draws():
    def make():
        source = Generator(3)
        return source, DataLoader(pairs(), BATCH, shuffle=True, generator=source)

    def run(source, loader, count):
        drawn = []
        for batch in loader:
            drawn.append((batch[1].tolist(), float(gl.rand(1, generator=source))))
            if len(drawn) == count:
                break
        return drawn

    straight = make()
    expected = run(*straight, 0) + run(*straight, 0)
    stopped = make()
    found = run(*stopped, 3)
    resumed = make()
    resumed[1].load_state_dict(stopped[1].state_dict())
    found += run(*resumed, 0) + run(*resumed, 0)
    assert found == expected


def test_finish_epoch_leaves_the_rest():
    loader = LOADERS["seed"]()
    expected = [epoch(loader), epoch(loader)]
    stopped = LOADERS["seed"]()
    next(iter(stopped))
    stopped.finish_epoch()
    state = stopped.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 0)
    resumed = LOADERS["seed"]()
    resumed.load_state_dict(state)
    assert epoch(resumed) == expected[1]
    resumed.finish_epoch()  # between epochs: nothing to finish
    assert resumed.state_dict()["epoch"] == 2


def test_breaking_off_begins_the_next_epoch():
    loader = LOADERS["seed"]()
    expected = [epoch(loader), epoch(loader)]
    stopped = LOADERS["seed"]()
    next(iter(stopped))
    assert epoch(stopped) == expected[1]


def test_the_state_belongs_to_the_iteration_begun_last():
    loader = LOADERS["in order"]()
    first = iter(loader)
    next(first)
    second = iter(loader)
    next(second)
    next(first)
    next(first)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (1, 1)


def test_the_seed_comes_with_the_state():
    state = stop_after(LOADERS["seed"](), 2)
    straight = LOADERS["seed"]()
    expected = [epoch(straight), epoch(straight)]
    other = DataLoader(pairs(), BATCH, shuffle=True, seed=77)
    other.load_state_dict(state)
    assert [epoch(other), epoch(other)] == [expected[0][2:], expected[1]]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: DataLoader(pairs(9), BATCH, shuffle=True, seed=5),
            "a state of 9 samples, got 23 samples",
        ),
        (
            lambda: DataLoader(pairs(), 8, shuffle=True, seed=5),
            "a state of batches of 8, got batches of 4",
        ),
        (
            lambda: DataLoader(pairs(), BATCH, shuffle=True, generator=Generator(5)),
            "a state of a loader shuffled by a generator, got a loader shuffled by a seed",
        ),
        (
            lambda: DataLoader(pairs(), BATCH),
            "a state of a loader not shuffled by gradlab, got a loader shuffled by a seed",
        ),
    ],
)
def test_a_state_of_another_loader_is_refused(make, expected):
    state = stop_after(LOADERS["seed"](), 2)
    loader = make()
    before = loader.state_dict()
    with pytest.raises(StateError) as raised:
        loader.load_state_dict(state)
    assert str(raised.value) == (
        f"DataLoader.load_state_dict: expected {expected}; "
        "make the loader as it was when the state was taken"
    )
    assert loader.state_dict() == before


def test_an_incomplete_state_is_refused():
    state = LOADERS["seed"]().state_dict()
    del state["epoch_seed"], state["batches"]
    with pytest.raises(StateError) as raised:
        LOADERS["seed"]().load_state_dict(state)
    assert str(raised.value) == (
        "DataLoader.load_state_dict: expected a dict that DataLoader.state_dict gave, "
        "got one without 'batches', 'epoch_seed'"
    )
