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
z.index_put_((i[1:], i[:2]), y[0, :2])
z.index_put_((m.tensor([0, 0]),), y[:2], accumulate=True)
z.index_put_((m.tensor([0, 2]), m.tensor([1, 1])), m.tensor(2.0, dtype=m.float64), accumulate=True)
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


MORE = """
m.hypot(x, y), m.frac(x), m.deg2rad(x), m.rad2deg(x), m.clamp_min(x, 0.1), x.clamp_max(0.1)
m.heaviside(x.detach(), y.detach())
m.heaviside(m.tensor([-1.0, 0.0, 2.0]), m.tensor(0.5))
m.logit(x.sigmoid()), m.logit(x, eps=0.1)
m.range(1, 5), m.range(0, 1, 0.25), m.range(5, 1, -2)
m.fliplr(x), m.flipud(v), m.rot90(x), m.rot90(x, 2, (0, 1)), m.rot90(x, -1, [1, 0])
m.atleast_1d(x[0, 0]), m.atleast_2d(v), m.atleast_3d(v), m.atleast_3d(x)
m.atleast_2d(x[0, 0], v)
m.column_stack([x[:, 0], y]), m.column_stack((v, v)), m.dstack([x, y]), m.dstack([v, v])
m.tensor_split(x, 3, dim=1), x.tensor_split((1, 2)), m.hsplit(x, 2), m.hsplit(v, [1]), x.vsplit(3)
m.kron(x, y), m.kron(v, x), m.kron(x[0, 0], x)
m.cartesian_prod(v, v[:2]), m.cartesian_prod(v)
m.combinations(v), m.combinations(v, 3), m.combinations(v, r=2, with_replacement=True)
m.block_diag(x, v, x[0, 0])
tuple(m.broadcast_shapes((3, 1), (2, 1, 4)))
m.tril_indices(3, 4), m.triu_indices(3, 3, offset=1), m.tril_indices(2, 4, -1)
m.diff(x), m.diff(x, dim=0), x.diff(n=2), m.diff(v, prepend=v[:1]), m.diff(m.tensor([True, False]))
m.dist(x, y), x.dist(y, p=1)
m.cdist(x, y), m.cdist(x, y, p=1.0)
m.std_mean(x), m.var_mean(x, dim=1, keepdim=True), m.std_mean(x, dim=0, correction=0)
m.cov(x), m.cov(v), x.cov(correction=0), m.corrcoef(x), m.corrcoef(v)
m.histc(x.detach(), bins=5), m.histc(x.detach(), 4, -1, 1), m.histc(m.ones(3), 2)
m.mode(k % 2), m.mode(m.tensor([3, 1, 3, 2, 1])).values, m.mode(x, dim=0, keepdim=True).values
m.mode(m.tensor([[1, 2, 2, 1], [5, 5, 4, 3]])).values, m.mode(m.tensor(3)).values
m.isin(k, m.tensor([0, 3])), m.isin(k, 2), m.isin(k, i, invert=True)
m.isin(m.tensor([1.0, 2.5]), m.tensor([1, 2])), m.isin(k, m.tensor([], dtype=m.int64))
m.trapezoid(x), m.trapz(x, v, dim=1), m.trapezoid(x, dx=0.5, dim=0), m.trapezoid(x, y)
m.linalg.cross(x[:, :3], y[:, :3]), m.cross(x[:, 0], y[:, 0], dim=0), m.linalg.cross(x, y, dim=0)
m.linalg.multi_dot([x, y.T, x, v])
x.kron(y).shape[0], x.fliplr(), x.rot90()
str(x**2)[-15:], str(m.square(x))[-15:], str(x**3)[-15:]
(m.sin(x) + 1).grad_fn.next_functions[0][0].next_functions[0][1]
(2 * x).grad_fn.next_functions[0][0].next_functions, x.grad_fn
m.zeros_like(input=x), m.ones_like(input=k), m.full_like(input=k, fill_value=3)
m.rand_like(input=x).shape[0], m.randn_like(input=x).shape[1], m.empty_like(input=x).shape[0]
m.meshgrid([v, v[:2]], indexing="xy"), m.meshgrid((v,), indexing="ij")
x.unfold(1, 2, 1), x.unfold(0, 3, 2), v.unfold(0, 2, 2)
m.svd(x).S, m.svd(x)[2].shape, x.detach().svd(some=False)[2].shape, x.svd().U.shape
m.is_floating_point(x), m.is_complex(k), m.is_nonzero(m.tensor([0.0]))
str(m.promote_types(m.int8, m.float16))[-7:]
"""
DERIVATIVES = """
F.jacobian(lambda x: x**2, v)
F.jacobian(lambda x: (x**3).sum(), x)
F.jacobian(lambda x, w: x @ w, (x, v))
F.jacobian(lambda x, w: (x * w, w), (x, v))
F.jacobian(lambda x: m.ones(2, dtype=m.float64), v)
F.hessian(lambda x: (x**3).sum() * x[0], v)
F.hessian(lambda x, w: (x * w).pow(2).sum(), (x, v))
F.vjp(lambda x: x**2, v, v)
F.vjp(lambda x: (x**2).sum(), v)
F.vjp(lambda x, w: x @ w, (x, v), x[:, 0])
F.jvp(lambda x: x**2, v, v)
F.jvp(lambda x, w: x @ w, (x, v), (y, v))
F.jacobian(lambda x: x**3, v, create_graph=True)
F.hessian(lambda x: (x**4).sum(), v, create_graph=True)
"""


@pytest.mark.filterwarnings("ignore:torch.range is deprecated")
@pytest.mark.parametrize("text", lines(MORE))
def test_more_calls(text):
    check_alike(result(gl, text), result(torch, text))


@pytest.mark.parametrize("text", lines(DERIVATIVES))
def test_derivatives_of_functions(text):
    def found(m):
        leaves, names = given(m)
        y = eval(text, names | {"F": m.autograd.functional})
        if "create_graph" in text:
            (y * y).sum().backward()
        return y, [m.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]

    check_alike(found(gl), found(torch))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("m.fliplr(v)", "^fliplr: expected at least 2 axes, got shape"),
        ("m.rot90(x, 1, (0,))", "^rot90: expected two axes, got"),
        ("m.tensor_split(x, 0)", "^tensor_split: expected 1 part or more, got 0$"),
        ("m.vsplit(x, 2)", "^vsplit: expected a number of parts that divides axis 0, of size 3"),
        ("m.combinations(x)", "^combinations: expected a vector, got shape"),
        ("m.broadcast_shapes((2,), (3,))", "^broadcast_shapes: expected shapes that broadcast"),
        ("m.cdist(x, x.T)", "^cdist: expected rows of the same length"),
        ("m.cov(x.reshape(3, 2, 2))", "^cov: expected a matrix or a vector"),
        ("m.histc(k)", "^histc: expected a floating dtype, got int64$"),
        ("m.histc(x, 0)", "^histc: expected an integer number of bins of 1 or more"),
        ("m.histc(x, 3, 2, 1)", "^histc: expected finite bounds, min up to max, got from 2.0 to 1"),
        ("m.mode(x[:0], 0)", "^mode: expected elements along axis 0, got shape"),
        ("x.unfold(0, 4, 1)", "^unfold: expected a size from 1 to 3 and a step of 1 or more"),
        ("m.isin(1, 2)", "^isin: expected a tensor as elements or as test_elements, got 1$"),
        ("m.cross(x, y)", "^cross: expected vectors of 3 along axis 1, got size 4$"),
        ("m.linalg.multi_dot([x])", "^multi_dot: expected two or more tensors, got 1$"),
        ("m.range(1, 3, -1)", "^range: expected a step that leads to the end, got from 1 to 3"),
        ("m.autograd.functional.jacobian(m.sin, [1.0])", "^jacobian: expected floating tensors"),
        ("m.autograd.functional.hessian(m.sin, v)", "^hessian: expected a function of one value"),
        ("m.autograd.functional.vjp(len, v)", "^vjp: expected a function of tensors, got int$"),
    ],
)
def test_more_messages(text, error):
    with pytest.raises(gl.errors.GradlabError, match=error):
        eval(text, given(gl)[1])
