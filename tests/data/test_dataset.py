"""Data sets, joined and divided; whole batches read at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

import gradlab as gl
from gradlab.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from gradlab.data.dataset import read_batch, reads
from gradlab.errors import AxisError, DataError, OptionError, ShapeError
from gradlab.ops.random import Generator


def pairs(size: int = 10) -> TensorDataset:
    x = np.arange(2.0 * size, dtype=np.float32).reshape(size, 2)
    return TensorDataset(x, np.arange(size))


def labels(dataset) -> list[int]:
    return [int(dataset[i][1]) for i in range(len(dataset))]


class Squares(Dataset):
    def __init__(self, size: int = 6) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        if not 0 <= index < self.size:
            raise IndexError(index)
        return index, index**2


# ------------------------------------------------------------------------------ TensorDataset


def test_tensor_dataset_shares_arrays_and_keeps_dtypes():
    x = np.zeros((3, 2))
    data = TensorDataset(x, gl.tensor([1, 2, 3]))
    x[1, 0] = 5
    assert data[1][0].tolist() == [5, 0]
    assert [each.dtype.name for each in data.tensors] == ["float64", "int64"]
    assert len(data) == 3


def test_tensor_dataset_reads_by_index_and_slice():
    data = pairs()
    assert data[-1][1].item() == 9
    assert data[2:4][1].tolist() == [2, 3]
    assert data[np.int64(3)][0].tolist() == [6, 7]
    assert labels(data) == list(range(10))
    assert len(list(data)) == 10  # the IndexError at the end stops the iteration


def test_writing_into_a_batch_leaves_the_data_as_it_is():
    data = pairs()
    x, y = data.get_batch(range(2, 5))
    x -= 100
    assert data[2][0].tolist() == [4, 5]
    assert y.tolist() == [2, 3, 4]


@pytest.mark.parametrize("indices", [np.array([7, 0, -1]), [7, 0, -1], gl.tensor([7, 0, -1])])
def test_other_rows_are_one_gather(indices):
    x, y = pairs().get_batch(indices)
    assert y.tolist() == [7, 0, 9]
    assert x.tolist() == [[14, 15], [0, 1], [18, 19]]


def test_batches_of_data_without_gradient_keep_no_history():
    data = pairs()
    weight = gl.tensor([1.0, 1.0], requires_grad=True)
    x, _ = data.get_batch(range(3))
    x *= weight  # recorded for the batch alone
    assert x.requires_grad
    assert not data.tensors[0].requires_grad


def test_batches_of_data_with_gradient_keep_it():
    source = gl.tensor([[1.0, 1.0]] * 4, requires_grad=True)
    data = TensorDataset(source)
    for rows in (range(1, 3), np.array([1, 2])):
        source.grad = None
        data.get_batch(rows)[0].sum().backward()
        assert source.grad.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: TensorDataset(),
            OptionError,
            "TensorDataset: expected one tensor or more, got none",
        ),
        (
            lambda: TensorDataset(np.zeros((5, 2)), np.zeros(4), np.zeros(5)),
            ShapeError,
            "TensorDataset: expected tensors with the same first size, the number of samples, "
            "got shapes (5, 2) and (4,) and (5,)",
        ),
        (
            lambda: TensorDataset(gl.tensor(3.0)),
            ShapeError,
            "TensorDataset: expected tensors whose first axis counts the samples, got shape (); "
            "reshape a single number to (1,)",
        ),
        (
            lambda: pairs()[10],
            AxisError,
            "TensorDataset: expected an index from -10 to 9, got 10",
        ),
        (
            lambda: pairs().get_batch(np.array([0, -11])),
            AxisError,
            "TensorDataset: expected an index from -10 to 9, got -11",
        ),
        (
            lambda: pairs(0)[0],
            AxisError,
            "TensorDataset: expected samples to choose from, got an empty data set",
        ),
        (
            lambda: pairs().get_batch([0.5]),
            OptionError,
            "TensorDataset: expected a sequence of integer indices, got float64 (1,)",
        ),
        (
            lambda: pairs().get_batch(np.ones(10, bool)),
            OptionError,
            "TensorDataset: expected a sequence of integer indices, got bool (10,); "
            "numpy.flatnonzero(mask) gives those of a mask",
        ),
    ],
)
def test_tensor_dataset_refuses(make, kind, text):
    with pytest.raises(kind) as raised:
        make()
    assert str(raised.value) == text


# -------------------------------------------------------------------------------- whole batches


class Counting(Squares):
    """Counts how its samples are read."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getitem__(self, index):
        self.calls.append("item")
        return super().__getitem__(index)

    def get_batch(self, indices):
        self.calls.append("batch")
        return gl.tensor([i**2 for i in indices])


def test_get_batch_is_used_where_it_is_defined():
    data = Counting()
    assert read_batch(data, range(2, 4)).tolist() == [4, 9]
    assert data.calls == ["batch"]


def test_get_batch_is_passed_over_where_a_subclass_overrides_getitem_alone():
    class Shifted(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + 100, y

    data = Shifted(np.zeros((4, 1)), np.arange(4))
    x, y = read_batch(data, np.array([3, 0]))
    assert x.tolist() == [[100], [100]]
    assert y.tolist() == [3, 0]
    x, _ = read_batch(Subset(data, [2, 1]), range(2))
    assert x.tolist() == [[100], [100]]


def test_getitems_is_pytorchs_list_of_samples():
    class Listed(Squares):
        def __getitem__(self, index):
            raise AssertionError("read one by one")

        def __getitems__(self, indices):
            assert all(type(i) is int for i in indices)
            return [(i, -i) for i in indices]

    a, b = read_batch(Listed(), np.array([3, 1]))
    assert (a.tolist(), b.tolist()) == ([3, 1], [-3, -1])


def test_reads_follows_the_class_that_defines_getitem():
    class Both(Squares):
        def __getitem__(self, index):
            return index

        def get_batch(self, indices):
            return list(indices)

    class Inherits(Both):
        pass

    class Overrides(Inherits):
        def __getitem__(self, index):
            return -index

    assert [reads(cls(), "get_batch") for cls in (Squares, Both, Inherits, Overrides)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_an_error_in_a_sample_says_which():
    class Broken(Squares):
        def __getitem__(self, index):
            if index == 4:
                raise OSError("disk on fire")
            return index

    with pytest.raises(OSError, match="disk on fire") as raised:
        read_batch(Broken(), np.array([1, 4, 2]))
    assert raised.value.__notes__ == ["raised while reading sample 4 of the data set"]


# -------------------------------------------------------------------------- Subset and Concat


def test_subset_reads_through():
    data = Subset(pairs(), [7, -8, 4])
    assert labels(data) == [7, 2, 4]
    assert data[-1][1].item() == 4
    assert data[:2][1].tolist() == [7, 2]
    assert data.get_batch(range(1, 3))[1].tolist() == [2, 4]
    assert data.get_batch(np.array([2, 0]))[1].tolist() == [4, 7]
    assert [int(y) for _, y in data.__getitems__([1, 0])] == [2, 7]


@pytest.mark.parametrize("indices", [range(3, 8), [3, 4, 5, 6, 7], gl.arange(3, 8)])
def test_subset_of_consecutive_rows_is_a_range(indices):
    data = pairs()
    part = Subset(data, indices)
    assert part.indices == range(3, 8)
    _, y = part.get_batch(range(1, 4))
    assert y.tolist() == [4, 5, 6]
    assert part.get_batch(np.array([4, 0]))[1].tolist() == [7, 3]


def test_subsets_nest():
    part = Subset(Subset(pairs(), [9, 7, 5, 3]), [2, 0])
    assert labels(part) == [5, 9]
    assert part.get_batch(range(2))[1].tolist() == [5, 9]


def test_subset_of_samples_read_one_by_one():
    a, b = Subset(Squares(), [5, 2]).get_batch(range(2))
    assert (a.tolist(), b.tolist()) == ([5, 2], [25, 4])


def test_concat():
    data = pairs(3) + pairs(0) + pairs(2)
    assert len(data) == 5
    assert labels(data) == [0, 1, 2, 0, 1]
    assert data[-1][1].item() == 1
    assert isinstance(data, ConcatDataset)
    assert read_batch(data, [4, 2])[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: Subset(pairs(), [3, 10]),
            AxisError,
            "Subset: expected an index from -10 to 9, got 10",
        ),
        (
            lambda: Subset(pairs(3), [0, 1])[2],
            AxisError,
            "Subset: expected an index from -2 to 1, got 2",
        ),
        (
            lambda: Subset(pairs(3), [0, 2]).get_batch(np.array([0, 2])),
            AxisError,
            "Subset: expected an index from -2 to 1, got 2",
        ),
        (
            lambda: Subset(pairs(), [[1, 2]]),
            OptionError,
            "Subset: expected a sequence of integer indices, got int64 (1, 2)",
        ),
        (
            lambda: Subset((i for i in range(3)), [0]),
            DataError,
            "Subset: expected a data set with __getitem__ and __len__, got generator; "
            "derive it from gradlab.data.Dataset and define both",
        ),
        (
            lambda: ConcatDataset([]),
            OptionError,
            "ConcatDataset: expected one data set or more, got none",
        ),
        (
            lambda: (pairs(3) + pairs(2))[5],
            AxisError,
            "ConcatDataset: expected an index from -5 to 4, got 5",
        ),
        (lambda: Dataset()[0], NotImplementedError, "Dataset does not define __getitem__(index)"),
        (
            lambda: iter(IterableDataset()),
            NotImplementedError,
            "IterableDataset does not define __iter__()",
        ),
    ],
)
def test_parts_refuse(make, kind, text):
    with pytest.raises(kind) as raised:
        make()
    assert str(raised.value) == text


# -------------------------------------------------------------------------------- random_split


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 2**64 - 1))
def test_random_split_divides_without_overlap(size, first, seed):
    first = min(first, size)
    parts = random_split(pairs(size), [first, size - first], Generator(seed))
    assert [len(part) for part in parts] == [first, size - first]
    assert sorted(labels(parts[0]) + labels(parts[1])) == list(range(size))


def test_random_split_follows_the_generator():
    one, same, other = (random_split(pairs(50), [30, 20], Generator(seed)) for seed in (0, 0, 1))
    assert labels(one[0]) == labels(same[0]) != labels(other[0])
    gl.manual_seed(3)
    by_default = random_split(pairs(50), [30, 20])
    gl.manual_seed(3)
    assert labels(random_split(pairs(50), [30, 20])[0]) == labels(by_default[0])


@pytest.mark.parametrize(
    ("size", "fractions", "sizes"),
    [
        (10, [0.8, 0.2], [8, 2]),
        (10, [0.7, 0.3], [7, 3]),  # 10 · 0.7 falls below 7 in floating point
        (100, [0.71, 0.29], [71, 29]),
        (10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
        (3, [0.5, 0.5], [2, 1]),
        (1, [0.0, 1.0], [0, 1]),
    ],
)
def test_random_split_by_fractions(size, fractions, sizes):
    assert [len(part) for part in random_split(pairs(size), fractions)] == sizes


@pytest.mark.parametrize(
    ("lengths", "got"),
    [
        ([6, 3], "lengths that add up to 10, the size of the data set, got 6 + 3 = 9"),
        ([11, -1], "lengths of 0 or more, got 11 + -1 = 10"),
        ([0.5, 0.25], "fractions that add up to 1, got 0.5 + 0.25 = 0.75"),
        ([], "lengths that add up to 10, the size of the data set, got no lengths"),
    ],
)
def test_random_split_refuses(lengths, got):
    with pytest.raises(OptionError) as raised:
        random_split(pairs(), lengths)
    assert str(raised.value) == f"random_split: expected {got}"


def test_reprs_are_one_line():
    class Seven(Dataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return index

    data = TensorDataset(np.zeros((3, 2), np.float32), np.zeros(3, np.int64))
    assert repr(data) == "TensorDataset(3 samples: float32 (3, 2), int64 (3,))"
    assert repr(Subset(data, [1])) == f"Subset(1 sample of {data})"
    assert repr(Subset(Seven(), [0, 2])) == "Subset(2 samples of Seven(7 samples))"
    assert repr(data + Seven()) == f"ConcatDataset(10 samples: {data}, Seven(7 samples))"
