"""Samplers: orders that follow from a seed and an epoch, or from a generator."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

import gradlab as gl
from gradlab.data import BatchSampler, RandomSampler, Sampler, SequentialSampler
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
