"""nn.functional: the names are there, and those defined there compute what they say."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab.errors import OptionError, ShapeError


def test_every_name_is_a_function():
    for name in F.__all__:
        assert callable(getattr(F, name)), name


@pytest.mark.parametrize(("p", "dim"), [(2.0, 1), (1.0, 0), (3.0, -1), (float("inf"), 1)])
def test_normalize(p, dim):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    x[1] = 0.0 if dim != 0 else x[1]
    norms = np.linalg.norm(x, p, axis=dim, keepdims=True)
    expected = x / np.maximum(norms, 1e-12)
    np.testing.assert_allclose(F.normalize(gl.tensor(x), p, dim).numpy(), expected, rtol=1e-5)


def test_normalize_refuses():
    with pytest.raises(OptionError, match="normalize: expected eps of 0 or more, got -1"):
        F.normalize(gl.ones(2, 2), eps=-1)


def test_embedding_takes_indices_first():
    table = gl.tensor([[0.0, 1.0], [2.0, 3.0]], requires_grad=True)
    y = F.embedding(gl.tensor([1, 1, 0]), table, padding_idx=0)
    assert y.tolist() == [[2.0, 3.0], [2.0, 3.0], [0.0, 1.0]]
    y.sum().backward()
    assert table.grad.tolist() == [[0.0, 0.0], [2.0, 2.0]]
    assert F.embedding([1], table).tolist() == [[2.0, 3.0]]


def test_the_usual_names_work_together():
    gl.manual_seed(0)
    x, w = gl.randn(8, 5), gl.randn(3, 5, requires_grad=True)
    h = F.dropout(F.relu(F.linear(x, w)), 0.5, training=True)
    loss = F.cross_entropy(h, gl.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    loss.backward()
    assert w.grad.shape == (3, 5)
    assert F.softmax(h, dim=1).sum().item() == pytest.approx(8, rel=1e-6)
    assert F.one_hot(gl.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.hardtanh(x, 1.0, 1.0), OptionError, "hardtanh: expected min_val below max_v"),
        (lambda x: F.celu(x, 0.0), OptionError, "celu: expected alpha above 0, got 0.0"),
        (lambda x: F.softshrink(x, -1), OptionError, "softshrink: expected lambd of 0 or more, go"),
        (lambda x: F.glu(x), ShapeError, r"glu: expected an axis of even size, got shape \(2, 3\)"),
    ],
)
def test_activations_refuse(call, error, text):
    with pytest.raises(error, match=text):
        call(gl.ones(2, 3))


@pytest.mark.parametrize(
    "name",
    ["celu", "hardsigmoid", "hardswish", "hardtanh", "mish", "selu", "softsign", "tanhshrink"],
)
def test_second_derivatives_of_activations(name):
    x = gl.tensor([-2.2, -0.7, 0.3, 0.8, 4.1], dtype=gl.float64, requires_grad=True)
    assert gl.testing.gradcheck(getattr(F, name), [x])
    assert gl.testing.gradgradcheck(getattr(F, name), [x])


@pytest.mark.parametrize(
    ("pad", "mode", "error", "text"),
    [
        ((1,), "constant", ShapeError, r"pad: expected pairs of .* at most 2 axes, got \(1,\)"),
        ((1,) * 6, "constant", ShapeError, "pad: expected pairs of numbers for at most 2 axes"),
        ((-2, -2), "constant", ShapeError, "pad: expected to cut off at most 3 elements, got 4"),
        ((1, 1), "reflect", OptionError, "pad: expected mode 'constant', got 'reflect'"),
    ],
)  # fmt: skip
def test_pad_refuses(pad, mode, error, text):
    with pytest.raises(error, match=text):
        F.pad(gl.ones(2, 3), pad, mode)
