"""Calls as PyTorch programs write them, in gradlab and in PyTorch: values, dtypes, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl

torch = pytest.importorskip("torch")

# Each runs with `m`, which is gradlab or torch, and with x (3, 4), y (3, 4), v (4,), i and k int64.
CALLS = """
x.fmod(0.7)
m.fmod(x, y)
m.fmod(k, 3)
m.fmod(-k, 3)
m.lerp(x, y, 0.25)
x.lerp(y, y * y)
m.addcmul(x, y, v, value=0.5)
m.addcdiv(x, y, v + 3, value=-0.5)
m.nan_to_num(m.log(x), nan=1.0, neginf=-2.0)
m.nan_to_num(m.tensor([math.inf, -math.inf, math.nan]))
m.positive(x) + (+y)
m.index_add(x, 1, i, y[:, :3], alpha=2)
x.index_add(0, m.tensor([2, 2]), y[:2])
x.index_copy(1, i, y[:, :3])
x.index_fill(1, i, 5.0)
x.index_fill(dim=0, index=m.tensor([0, 2]), value=-1)
m.masked_scatter(x, y > 0, v.repeat(3))
x.scatter(1, k, 2.0)
x.scatter(dim=1, index=k, value=2.0)
m.gather(x, dim=1, index=k)
m.index_select(x, dim=1, index=i)
x.absolute() + x.greater(0) + x.less_equal(y) + x.not_equal(y)
k.short(), k.char(), k.byte()
x.nelement(), x.ndimension()
"""
IN_PLACE = """
z.masked_fill_(y > 0, 3.0)
z.scatter_(1, k, 1.0)
z.scatter_(1, k, y)
z.scatter_add_(1, k, y)
z.index_add_(1, i, y[:, :3])
z.index_copy_(1, i, y[:, :3])
z.index_fill_(1, i, 2.0)
z.masked_scatter_(y > 0, v.repeat(3))
z.fmod_(0.7)
z.lerp_(y, 0.5)
z.addcmul_(y, y, value=2)
z.addcdiv_(y, y * y + 1, value=2)
z.nan_to_num_()
z.sigmoid_()
z.erf_()
z.round_()
z.tril_()
z.triu_(1)
z.cumsum_(0)
z.cumprod_(1)
z.subtract_(y)
z.divide_(y * y + 1)
z.gt_(0)
z.eq_(y)
z.unsqueeze_(1)
z.unsqueeze_(1).squeeze_()
z.t_()
z.transpose_(0, 1)
z.t_().mul_(2)
"""


def lines(text):
    return text.strip().splitlines()


def given(m):
    random = np.random.default_rng(0)
    x, y, v = (random.uniform(-2, 2, shape) for shape in ((3, 4), (3, 4), (4,)))
    leaves = [m.tensor(a, requires_grad=True) for a in (x, y, v)]
    k = m.tensor(random.permuted(np.tile(np.arange(4), (3, 1)), axis=1))
    names = {"i": m.tensor([3, 0, 1]), "k": k, "m": m, "math": math}
    return leaves, names | dict(zip("xyv", leaves, strict=True))


def check_alike(ours, theirs):
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            check_alike(a, b)
        return
    if not isinstance(theirs, torch.Tensor):
        assert ours == theirs
        return
    assert ours.shape == tuple(theirs.shape)
    assert ours.dtype == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), 1e-6, 1e-9)


def result(m, text, first=None):
    leaves, names = given(m)
    if first is not None:
        names["z"] = eval(first, names)
    y = eval(text, names)
    if "z" in names:
        assert y is names["z"]
    several = y if isinstance(y, tuple | list) else [y]
    recorded = [each for each in several if getattr(each, "requires_grad", False)]
    if recorded:
        sum((each * each).sum() for each in recorded).backward()
    return y, [m.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


@pytest.mark.parametrize("text", lines(CALLS))
def test_calls(text):
    check_alike(result(gl, text), result(torch, text))


@pytest.mark.parametrize("first", ["x.detach().clone()", "x * 1"])
@pytest.mark.parametrize("text", lines(IN_PLACE))
def test_in_place(text, first):
    check_alike(result(gl, text, first), result(torch, text, first))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "matmul", "mm"])
def test_out(name):
    def into(m):
        a, b = m.tensor([[1.0, 2.0], [3.0, 4.0]]), m.tensor([[5.0, 6.0], [7.0, 9.0]])
        out, empty = m.zeros(2, 2), m.empty(0)
        row = out[0]
        assert getattr(m, name)(a, b, out=out) is out
        getattr(m, name)(a, b, out=empty)
        return out, row, empty

    check_alike(into(gl), into(torch))


def test_out_refuses_gradients_and_what_does_not_fit():
    a = gl.ones(2, requires_grad=True)
    with pytest.raises(gl.errors.GradientError, match=r"^add: expected no gradients to record wh"):
        gl.add(a, 1, out=gl.ones(2))
    with pytest.raises(gl.errors.ShapeError, match=r"^mul: expected a result of the shape \(3,\)"):
        gl.mul(gl.ones(2), 2, out=gl.ones(3))
    with pytest.raises(gl.errors.DTypeError, match=r"^add: expected a result that fits int64"):
        gl.add(gl.ones(2), 2, out=gl.arange(2))
    with pytest.raises(gl.errors.OptionError, match=r"^add: expected a tensor as out, got list$"):
        gl.add(gl.ones(2), 2, out=[])


def test_in_place_forms_refuse_a_leaf():
    x = gl.ones(2, 2, requires_grad=True)
    for name in ("sigmoid_", "t_", "cumsum_"):
        with pytest.raises(gl.errors.GradientError, match=f"^{name}: "):
            getattr(x, name)(*([0] if name == "cumsum_" else []))
    assert x.shape == (2, 2)


def test_draws_in_place():
    gl.manual_seed(0)
    x = gl.zeros(20_000)
    assert x.bernoulli_(0.3) is x
    assert abs(x.mean().item() - 0.3) < 0.02
    assert abs(x.exponential_(2.0).mean().item() - 0.5) < 0.02
    assert set(x.random_(3).tolist()) == {0, 1, 2}
    assert set(x.random_(-1, 1).tolist()) == {-1, 0}
    assert 2**23 < x.random_().max().item() < 2**24
    assert gl.zeros(1000, dtype=gl.int8).random_().max().item() > 100
    assert gl.tensor([[0.0, 1.0]]).multinomial(1).tolist() == [[1]]
    assert gl.tensor([0.0, 1.0]).bernoulli().tolist() == [0, 1]
    with pytest.raises(gl.errors.DTypeError, match=r"^exponential_: expected a floating dtype"):
        gl.arange(3).exponential_()


def test_a_diagonal_in_place():
    assert gl.zeros(2, 3).fill_diagonal_(2).tolist() == [[2, 0, 0], [0, 2, 0]]
    with pytest.raises(gl.errors.ShapeError, match=r"^fill_diagonal_: expected a matrix"):
        gl.zeros(2).fill_diagonal_(2)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("m.index_add(x, 1, i, y)", "^index_add: expected a vector of indices and as many slices"),
        ("m.masked_scatter(x, x == x, v)", "^masked_scatter: expected at least 12 values"),
    ],
)
def test_messages(text, error):
    with pytest.raises(gl.errors.GradlabError, match=error):
        eval(text, given(gl)[1])
