"""Samplers: orders that follow from a seed and an epoch, or from a generator."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

import gradlab as gl
from gradlab.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from gradlab.errors import OptionError
from gradlab.ops.random import Generator


def test_sequential():
    sampler = SequentialSampler("abcd")
    assert (len(sampler), list(sampler), sampler.indices()) == (4, [0, 1, 2, 3], range(4))


@given(st.integers(1, 200), st.integers(-(2**63), 2**64 - 1))
def test_random_is_a_permutation(size, seed):
    assert sorted(RandomSampler(range(size), seed=seed)) == list(range(size))


def test_order_depends_on_seed_and_epoch_alone():
    sampler = RandomSampler(range(50), seed=3)
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    again = RandomSampler(range(50), seed=3)
    again.set_epoch(2)
    gl.manual_seed(99)
    assert list(again) == epochs[2]
    # Neighbouring seeds share no orders.
    assert list(RandomSampler(range(50), seed=4)) not in epochs


def test_order_follows_the_generator():
    source = Generator(5)
    first = list(RandomSampler(range(50), generator=source))
    second = list(RandomSampler(range(50), generator=source))
    assert first != second
    assert list(RandomSampler(range(50), generator=Generator(5))) == first


def test_order_follows_the_default_generator():
    sampler = RandomSampler(range(50))
    gl.manual_seed(1)
    first = list(sampler)
    gl.manual_seed(1)
    assert list(sampler) == first


def test_an_epoch_seed_repeats_its_epoch_and_draws_nothing():
    source = Generator(5)
    sampler = RandomSampler(range(50), generator=source)
    epoch_seed = sampler.begin_epoch(0)
    first = list(sampler)
    state = source.get_state()
    sampler.begin_epoch(0, epoch_seed)
    assert list(sampler) == first
    assert source.get_state() == state
    assert list(sampler) != first


def test_replacement_and_num_samples():
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=100, seed=0))
    assert len(drawn) == 100
    assert set(drawn) == {0, 1, 2}
    sampler = RandomSampler(range(5), num_samples=12, seed=0)
    order = list(sampler)
    assert len(sampler) == len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(set(RandomSampler(range(5), num_samples=2, seed=0))) == 2


@pytest.mark.parametrize("indices", [[7, 1, 3], range(1, 9, 2), gl.tensor([4, 2]), (5,)])
def test_a_subset_in_random_order(indices):
    sampler = SubsetRandomSampler(indices)
    assert sorted(sampler) == sorted(int(i) for i in indices)
    assert len(sampler) == len(indices)


def test_training_and_validation_parts_of_one_data_set():
    order = gl.randperm(100).tolist()
    parts = [SubsetRandomSampler(order[:80], seed=1), SubsetRandomSampler(order[80:], seed=1)]
    loaders = [DataLoader(gl.arange(100), batch_size=32, sampler=part) for part in parts]
    seen = [[batch.tolist() for batch in loader] for loader in loaders]
    assert [[len(batch) for batch in epoch] for epoch in seen] == [[32, 32, 16], [20]]
    assert sorted(i for batch in seen[0] for i in batch) == sorted(order[:80])
    assert sorted(seen[1][0]) == sorted(order[80:])
    assert [batch.tolist() for batch in loaders[1]] != seen[1]  # another order in each epoch


def test_weights_are_the_shares():
    sampler = WeightedRandomSampler([1.0, 0.0, 3.0], 40000, seed=0)
    counts = gl.bincount(gl.tensor(list(sampler)), minlength=3) / 40000
    assert gl.allclose(counts, gl.tensor([0.25, 0.0, 0.75]), atol=0.01)
    assert len(sampler) == 40000


def test_weights_without_replacement():
    for seed in range(20):
        sampler = WeightedRandomSampler(gl.tensor([1, 0, 2, 5]), 3, replacement=False, seed=seed)
        assert sorted(sampler) == [0, 2, 3]


def test_weighted_order_follows_the_default_generator():
    weights = [gl.tensor(0.5), gl.tensor(1.0), gl.tensor(0.1)]
    gl.manual_seed(4)
    first = list(WeightedRandomSampler(weights, 50))
    gl.manual_seed(4)
    assert list(WeightedRandomSampler(weights, 50)) == first
    assert list(WeightedRandomSampler(weights, 50)) != first


@pytest.mark.parametrize("sampler", [
    lambda: SubsetRandomSampler(range(0, 60, 2)),
    lambda: WeightedRandomSampler(range(1, 61), 30),
])  # fmt: skip
def test_a_loader_goes_on_within_a_random_part(sampler):
    loader = DataLoader(gl.arange(60), batch_size=8, sampler=sampler())
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = [batch.tolist() for batch in batches]
    again = DataLoader(gl.arange(60), batch_size=8, sampler=sampler())
    again.load_state_dict(state)
    assert [batch.tolist() for batch in again] == rest


def test_names_of_the_utils():
    from gradlab.utils.data import dataloader, dataset, sampler

    assert dataloader.DataLoader is DataLoader
    assert dataset.Subset is gl.data.Subset
    assert sampler.SubsetRandomSampler is SubsetRandomSampler


def test_batches():
    sampler = SequentialSampler(range(7))
    assert list(BatchSampler(sampler, 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(sampler, 3, True)) == [[0, 1, 2], [3, 4, 5]]
    assert [len(BatchSampler(sampler, 3, drop)) for drop in (False, True)] == [3, 2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: BatchSampler([0], 0, False),
            "BatchSampler: expected an integer batch_size of 1 or more, got 0",
        ),
        (
            lambda: BatchSampler([0], True, False),
            "BatchSampler: expected an integer batch_size of 1 or more, got True",
        ),
        (
            lambda: RandomSampler([]),
            "RandomSampler: expected one sample or more, got an empty data set",
        ),
        (
            lambda: RandomSampler([1], num_samples=0),
            "RandomSampler: expected an integer num_samples of 1 or more, got 0",
        ),
        (
            lambda: RandomSampler([1], generator=3),
            "RandomSampler: expected a gradlab.Generator as generator, got int; "
            "give a number as seed=",
        ),
        (lambda: RandomSampler([1], seed="a"), "RandomSampler: expected an integer seed, got 'a'"),
        (
            lambda: RandomSampler([1], seed=1, generator=Generator(1)),
            "RandomSampler: expected a seed or a generator, got both",
        ),
        (
            lambda: WeightedRandomSampler([[1.0]], 1),
            "WeightedRandomSampler: expected weights with one axis, a number per sample, "
            "got shape (1, 1)",
        ),
        (
            lambda: WeightedRandomSampler([1.0, -1.0], 1),
            "WeightedRandomSampler: expected finite weights of 0 or more, got -1.0 at [1]; "
            "a class that has no samples gives 1/0: count it as 1",
        ),
        (
            lambda: WeightedRandomSampler([1.0, 0.0], 2, replacement=False),
            "WeightedRandomSampler: expected at most 1 samples without replacement, one per class "
            "of weight above 0, got 2; draw with replacement",
        ),
    ],
)
def test_samplers_refuse(make, text):
    with pytest.raises(OptionError) as raised:
        make()
    assert str(raised.value) == text


def test_a_sampler_must_say_its_order():
    with pytest.raises(NotImplementedError, match=r"Sampler does not define __iter__\(\)"):
        iter(Sampler())


def test_reprs_are_one_line():
    assert repr(SequentialSampler(range(5))) == "SequentialSampler(5 indices)"
    assert repr(RandomSampler(range(5), seed=3)) == "RandomSampler(5 indices, seed=3)"
    assert repr(RandomSampler("ab", True, 9)) == "RandomSampler(9 indices, replacement=True)"
    batches = BatchSampler(SequentialSampler(range(5)), 2, drop_last=True)
    assert repr(batches) == (
        "BatchSampler(SequentialSampler(5 indices), batch_size=2, drop_last=True)"
    )
    assert repr(BatchSampler([3, 1], 2, False)) == (
        "BatchSampler(list, batch_size=2, drop_last=False)"
    )
