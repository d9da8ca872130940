"""From samples to a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import gradlab as gl
from gradlab.data import default_collate
from gradlab.data.collate import to_device
from gradlab.devices import cpu
from gradlab.errors import DataError, ShapeError


class Sample(NamedTuple):
    x: object
    name: str


@pytest.mark.parametrize(
    ("samples", "dtype", "values"),
    [
        ([gl.tensor([1.0, 2.0]), gl.tensor([3.0, 4.0])], "float32", [[1, 2], [3, 4]]),
        ([gl.tensor(1), gl.tensor(2)], "int64", [1, 2]),
        ([np.array([1], "int8"), np.array([2], "int8")], "int8", [[1], [2]]),
        ([1.5, 2.5], "float32", [1.5, 2.5]),
        ([1, 2], "int64", [1, 2]),
        ([1, 2.5], "float32", [1, 2.5]),
        ([True, False], "bool", [True, False]),
        ([np.float64(1), np.float64(2)], "float64", [1, 2]),
        ([np.uint8(1), np.uint8(2)], "uint8", [1, 2]),
    ],
)
def test_numbers_become_tensors(samples, dtype, values):
    batch = default_collate(samples)
    assert isinstance(batch, gl.Tensor)
    assert (batch.dtype.name, batch.tolist()) == (dtype, values)


def test_a_batch_is_a_copy():
    sample = gl.zeros(2)
    batch = default_collate([sample, sample])
    batch[0, 0] = 5
    assert sample.tolist() == [0, 0]


def test_gradients_flow_through():
    x = gl.tensor([1.0, 1.0], requires_grad=True)
    default_collate([x, x * 2]).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_forms_are_kept():
    nested = [{"a": (1, [2.0, "u"]), "b": "s"}, {"a": (3, [4.0, "v"]), "b": "t"}]
    batch = default_collate(nested)
    assert batch["a"][0].tolist() == [1, 3]
    assert batch["a"][1][0].tolist() == [2, 4]
    assert (batch["a"][1][1], batch["b"]) == (["u", "v"], ["s", "t"])
    assert isinstance(batch["a"], tuple)
    assert isinstance(batch["a"][1], list)
    named = default_collate([Sample(1, "u"), Sample(2, "v")])
    assert isinstance(named, Sample)
    assert (named.x.tolist(), named.name) == ([1, 2], ["u", "v"])
    assert default_collate([b"u", b"v"]) == [b"u", b"v"]


def test_to_device_leaves_what_is_there():
    x = gl.tensor([1.0, 1.0])
    batch = {"x": x, "pair": (x, "text"), "named": Sample(x, "n")}
    moved = to_device(batch, cpu)
    assert moved["x"] is x
    assert moved["pair"] == (x, "text")
    assert isinstance(moved["named"], Sample)


@pytest.mark.parametrize(
    ("samples", "kind", "text"),
    [
        ([], DataError, "expected one sample or more, got none"),
        (
            [None, None],
            DataError,
            "expected tensors, arrays, numbers, text, or tuples, lists and dicts of them, "
            "got NoneType; give the DataLoader a collate_fn",
        ),
        (
            [np.zeros(3), np.zeros(3), np.zeros(4)],
            ShapeError,
            "expected samples of one shape, (3,) as the first, got (4,) for sample 2 of the batch; "
            "pad them, or give the DataLoader a collate_fn",
        ),
        (
            [(gl.zeros(2), 1), (gl.zeros(2, 1), 1)],
            ShapeError,
            "expected samples of one shape, (2,) as the first, got (2, 1) for sample 1 of the "
            "batch; pad them, or give the DataLoader a collate_fn",
        ),
        (
            [1, None],
            DataError,
            "expected samples of one type, int as the first, got NoneType for sample 1 of the "
            "batch; give the DataLoader a collate_fn",
        ),
        (
            [gl.zeros(1), np.zeros(1)],
            DataError,
            "expected samples of one type, Tensor as the first, got ndarray for sample 1 of the "
            "batch; give the DataLoader a collate_fn",
        ),
        (
            [(1, 2), 3],
            DataError,
            "expected samples of one type, tuple as the first, got int for sample 1 of the batch; "
            "give the DataLoader a collate_fn",
        ),
        (
            [(1, 2), (1, 2, 3)],
            DataError,
            "expected samples of 2 items, as the first, got 3 items for sample 1 of the batch",
        ),
        (
            [{"a": 1}, {"b": 1}],
            DataError,
            "expected the key 'a' in every sample, as in the first, "
            "got sample 1 of the batch without it",
        ),
    ],
)
def test_default_collate_refuses(samples, kind, text):
    with pytest.raises(kind) as raised:
        default_collate(samples)
    assert str(raised.value) == f"default_collate: {text}"
