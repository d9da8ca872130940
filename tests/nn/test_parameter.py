"""`nn.Parameter`, and the parameter of a lazy layer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import DTypeError, StateError
from refusals import refuses


def test_a_parameter_is_a_leaf_that_shares_memory():
    x = gl.ones(3)
    p = nn.Parameter(x)
    assert isinstance(p, gl.Tensor)
    assert p.requires_grad
    assert p.is_leaf
    x[0] = 5.0
    assert p.tolist() == [5.0, 1.0, 1.0]
    assert type(p * 2) is gl.Tensor
    assert not nn.Parameter(x, requires_grad=False).requires_grad


def test_a_parameter_leaves_history_behind():
    x = gl.ones(3, requires_grad=True)
    p = nn.Parameter(x * 2)
    p.sum().backward()
    assert p.grad.tolist() == [1.0, 1.0, 1.0]
    assert x.grad is None


def test_a_parameter_of_arrays_and_lists():
    assert nn.Parameter(np.zeros(2)).dtype == gl.float64
    assert nn.Parameter([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert nn.Parameter(gl.tensor([1, 2]), requires_grad=False).dtype == gl.int64
    with refuses(DTypeError, "Parameter: expected a floating dtype, got int64; cast it"):
        nn.Parameter(gl.tensor([1, 2]))


def test_repr():
    assert repr(nn.Parameter(gl.zeros(2))) == (
        "Parameter containing:\ntensor([0., 0.], requires_grad=True)"
    )


def test_copies_keep_the_class():
    p = nn.Parameter(gl.ones(2))
    p.grad = gl.ones(2)
    for same in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(same) is nn.Parameter
        assert same.requires_grad
        assert same.tolist() == [1.0, 1.0]


def test_no_instance_dict():
    with pytest.raises(AttributeError):
        nn.Parameter(gl.ones(1)).anything = 1


def test_uninitialized_parameter():
    p = nn.LazyLinear(3, dtype="float64").weight
    assert type(p) is nn.UninitializedParameter
    assert repr(p) == "<UninitializedParameter>"
    assert p.dtype == gl.float64
    assert p.requires_grad
    message = "a parameter of a lazy layer has no shape and no values before the layer's first forw"
    for read in (lambda: p.shape, lambda: p.numel(), lambda: p * 2, lambda: p.sum(), lambda: p[0]):
        with pytest.raises(StateError, match=message):
            read()
    assert (p.data.shape, p.data.dtype, p.data.device) == ((0,), gl.float64, p.device)
    with pytest.raises(StateError, match="data: a parameter of a lazy layer takes no values befo"):
        p.data = gl.ones(3, 5)
    for same in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(same) is nn.UninitializedParameter
        assert same.dtype == gl.float64
    p.materialize((3, 5))
    assert type(p) is nn.Parameter
    assert p.shape == (3, 5)
