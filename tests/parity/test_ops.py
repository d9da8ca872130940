"""Elementwise, shape and indexing ops against PyTorch: values and gradients of random cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
from gradlab.nn import functional as F
from gradlab.ops import elementwise as E

torch = pytest.importorskip("torch")
TF = torch.nn.functional

SHAPES = [(), (5,), (3, 4), (2, 3, 4), (0, 3)]
PAIRS = [((3, 4), (3, 4)), ((3, 1), (1, 4)), ((2, 3, 4), (4,)), ((), (3,)), ((2, 1, 4), (3, 1))]


def random(seed, shape, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def same(ours, theirs, dtype):
    """Equal values, up to a few roundings of the dtype."""
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)


def compare(ours, theirs, arrays, dtype="float64"):
    """Values, and gradients for a random weighting of the result, of the floating arguments."""
    a = [gl.tensor(x.astype(dtype), requires_grad=True) for x in arrays]
    b = [torch.tensor(x.astype(dtype), requires_grad=True) for x in arrays]
    y, z = ours(*a), theirs(*b)
    same(y, z, dtype)
    assert y.requires_grad == z.requires_grad
    if not z.requires_grad:
        return
    weights = random(9, y.shape).astype(dtype)
    y.backward(gl.tensor(weights))
    z.backward(torch.tensor(weights))
    for x, w in zip(a, b, strict=True):
        assert (x.grad is None) == (w.grad is None)
        if x.grad is not None:
            same(x.grad, w.grad, dtype)


# ------------------------------------------------------------------------- functions of one tensor

# name: (gradlab, torch, lowest and highest argument)
SAME_NAME = (
    "abs neg sign exp expm1 exp2 square sin cos sinh cosh tanh asinh atan floor ceil trunc round "
    "sigmoid relu erf"
)
UNARY = {
    **{name: (getattr(E, name), getattr(torch, name), -2, 2) for name in SAME_NAME.split()},
    **{
        name: (getattr(E, name), getattr(torch, name), 0.1, 5)
        for name in ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"]
    },
    "tan": (E.tan, torch.tan, -1.4, 1.4),
    "asin": (E.asin, torch.asin, -0.95, 0.95),
    "acos": (E.acos, torch.acos, -0.95, 0.95),
    "atanh": (E.atanh, torch.atanh, -0.95, 0.95),
    "acosh": (E.acosh, torch.acosh, 1.05, 4),
    "logsigmoid": (E.logsigmoid, TF.logsigmoid, -30, 30),
    "gelu": (F.gelu, TF.gelu, -4, 4),
    "gelu tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: TF.gelu(x, approximate="tanh"),
        -4,
        4,
    ),
    "silu": (F.silu, TF.silu, -6, 6),
    "softplus": (F.softplus, TF.softplus, -6, 6),
    "softplus beta": (lambda x: F.softplus(x, 2.5), lambda x: TF.softplus(x, 2.5), -6, 6),
    "elu": (F.elu, TF.elu, -3, 3),
    "elu alpha": (lambda x: F.elu(x, 1.7), lambda x: TF.elu(x, 1.7), -3, 3),
    "leaky_relu": (F.leaky_relu, TF.leaky_relu, -3, 3),
    "leaky_relu slope": (lambda x: F.leaky_relu(x, 0.2), lambda x: TF.leaky_relu(x, 0.2), -3, 3),
    "clip": (lambda x: x.clip(-1, 1), lambda x: x.clamp(-1, 1), -2, 2),
    "clip min": (lambda x: x.clip(min=0.5), lambda x: x.clamp(min=0.5), -2, 2),
    "clamp max": (lambda x: x.clamp(max=0.5), lambda x: x.clamp(max=0.5), -2, 2),
    "round 1": (lambda x: E.round(x, 1), lambda x: torch.round(x, decimals=1), -2, 2),
    "pow 2": (lambda x: x**2, lambda x: x**2, -2, 2),
    "pow 3": (lambda x: x**3, lambda x: x**3, -2, 2),
    "pow 0": (lambda x: x**0, lambda x: x**0, -2, 2),
    "pow 1": (lambda x: x**1, lambda x: x**1, -2, 2),
    "pow -1": (lambda x: x**-1, lambda x: x**-1, 0.5, 2),
    "pow 0.5": (lambda x: x**0.5, lambda x: x**0.5, 0.1, 2),
    "pow 2.5": (lambda x: x**2.5, lambda x: x**2.5, 0.1, 2),
    "power of 2": (lambda x: 2**x, lambda x: 2**x, -3, 3),
    "power of 0": (lambda x: 0**x, lambda x: 0**x, 0.5, 3),
    "1 - x": (lambda x: 1 - x, lambda x: 1 - x, -2, 2),
    "2 / x": (lambda x: 2 / x, lambda x: 2 / x, 0.5, 2),
    "x / 3": (lambda x: x / 3, lambda x: x / 3, -2, 2),
    "x % 0.7": (lambda x: x % 0.7, lambda x: x % 0.7, -2, 2),
    # PyTorch has no gradient of these three.
    "x // 0.7": (lambda x: x.detach() // 0.7, lambda x: x.detach() // 0.7, -2, 2),
    "2 % x": (lambda x: 2 % x.detach(), lambda x: 2 % x.detach(), 0.3, 0.9),
    "2 // x": (lambda x: 2 // x.detach(), lambda x: 2 // x.detach(), 0.3, 0.9),
    "add alpha": (lambda x: x.add(x, alpha=3), lambda x: x.add(x, alpha=3), -2, 2),
    "sub alpha": (lambda x: x.sub(1.5, alpha=3), lambda x: x.sub(1.5, alpha=3), -2, 2),
    "masked_fill": (
        lambda x: x.masked_fill(x > 0, 5.0),
        lambda x: x.masked_fill(x > 0, 5.0),
        -2,
        2,
    ),
    "astype": (lambda x: x.astype("float64"), lambda x: x.double(), -2, 2),
    "clone": (lambda x: x.clone(), lambda x: x.clone(), -2, 2),
    "isnan": (E.isnan, torch.isnan, -2, 2),
    "isinf": (E.isinf, torch.isinf, -2, 2),
    "isfinite": (E.isfinite, torch.isfinite, -2, 2),
    "signbit": (E.signbit, torch.signbit, -2, 2),
    "logical_not": (E.logical_not, torch.logical_not, -2, 2),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    ours, theirs, low, high = UNARY[name]
    for seed, shape in enumerate(SHAPES):
        compare(ours, theirs, [random(seed, shape, low, high)], dtype)
    transposed = random(7, (4, 3), low, high).T
    compare(ours, theirs, [transposed], dtype)


# Where the values leave the ordinary: the same infinities and NaNs as PyTorch. Left out are sign,
# whose NaN the array API keeps and PyTorch makes 0; gelu, which PyTorch makes NaN at infinity; and
# what rounds differently.
NOT_AT_THE_EDGES = {"sign", "gelu", "round 1", "x // 0.7", "2 // x", "tan"}
EDGES = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-30, 1e30, 88.0, -104.0]


@pytest.mark.parametrize("name", sorted(set(UNARY) - NOT_AT_THE_EDGES))
def test_unary_values_at_the_edges(name):
    ours, theirs, *_ = UNARY[name]
    x = np.array(EDGES, dtype=np.float32)
    same(ours(gl.tensor(x)), theirs(torch.tensor(x)), "float32")


GRADIENT_EDGES = {
    "relu": [0.0, -0.0, 1.0, math.inf, -math.inf],
    "abs": [0.0, -0.0, 1.0, math.inf, -math.inf],
    "sqrt": [0.0, 1.0, math.inf],
    "log": [0.0, 1.0, math.inf],
    "pow 0": [0.0, 1.0, -1.0],
    "pow 1": [0.0, 1.0, -1.0],
    "pow 2": [0.0, 1.0, math.inf],
    "pow 0.5": [0.0, 1.0, 4.0],
    "pow 2.5": [0.0, 1.0, 4.0],
    "pow -1": [1e-20, 1.0, math.inf],
    "power of 2": [0.0, -200.0, 100.0],
    "power of 0": [0.0, 1.0, 2.0],
    "clip": [-1.0, 1.0, 0.0, math.inf],
    "sigmoid": [0.0, 100.0, -100.0, math.inf, -math.inf],
    "tanh": [0.0, 100.0, -100.0, math.inf, -math.inf],
    "logsigmoid": [0.0, 200.0, -200.0],
    "softplus": [0.0, 200.0, -200.0],
    "exp": [0.0, -1000.0],
    "leaky_relu": [0.0, 1.0, -1.0],
    "elu": [0.0, 200.0, -200.0],
    "silu": [0.0, 80.0, -80.0],
    "gelu": [0.0, 30.0, -30.0],
}


@pytest.mark.parametrize("name", GRADIENT_EDGES)
def test_unary_gradients_at_the_edges(name):
    ours, theirs, *_ = UNARY[name]
    compare(ours, theirs, [np.array(GRADIENT_EDGES[name])])


# ------------------------------------------------------------------------ functions of two tensors

BINARY = {
    "add": (lambda x, y: x + y, lambda x, y: x + y, -2, 2),
    "sub": (lambda x, y: x - y, lambda x, y: x - y, -2, 2),
    "mul": (lambda x, y: x * y, lambda x, y: x * y, -2, 2),
    "div": (lambda x, y: x / y, lambda x, y: x / y, 0.5, 2),
    "div floor": (
        lambda x, y: x.div(y, rounding_mode="floor"),
        lambda x, y: x.div(y, rounding_mode="floor"),
        -2,
        2,
    ),
    "div trunc": (
        lambda x, y: x.div(y, rounding_mode="trunc"),
        lambda x, y: x.div(y, rounding_mode="trunc"),
        -2,
        2,
    ),
    "pow": (lambda x, y: x**y, lambda x, y: x**y, 0.2, 2),
    "remainder": (lambda x, y: x % y, lambda x, y: x % y, -2, 2),
    "maximum": (E.maximum, torch.maximum, -2, 2),
    "minimum": (E.minimum, torch.minimum, -2, 2),
    "atan2": (E.atan2, torch.atan2, -2, 2),
    "logaddexp": (E.logaddexp, torch.logaddexp, -30, 30),
    "where": (
        lambda x, y: gl.where(x > y, x, y * 2),
        lambda x, y: torch.where(x > y, x, y * 2),
        -2,
        2,
    ),
    "where scalar": (
        lambda x, y: gl.where(x > y, x, 0.5),
        lambda x, y: torch.where(x > y, x, 0.5),
        -2,
        2,
    ),
    "clip": (lambda x, y: x.clip(y, y + 1), lambda x, y: x.clamp(y, y + 1), -2, 2),
    **{
        name: (getattr(E, name), getattr(torch, name), -2, 2)
        for name in "eq ne lt le gt ge logical_and logical_or logical_xor".split()  # noqa: SIM905
    },
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, dtype):
    ours, theirs, low, high = BINARY[name]
    for seed, (first, second) in enumerate(PAIRS):
        arrays = [random(seed, first, low, high), random(seed + 100, second, low, high)]
        compare(ours, theirs, arrays, dtype)


# Not "remainder" and "div floor": at infinities PyTorch has no rule of its own but C's.
@pytest.mark.parametrize(
    "name", [name for name in BINARY if name not in ("remainder", "div floor", "div trunc", "pow")]
)
def test_binary_values_at_the_edges(name):
    ours, theirs, *_ = BINARY[name]
    x, y = (each.ravel() for each in np.meshgrid(EDGES, EDGES))
    x, y = x.astype(np.float32), y.astype(np.float32)
    same(ours(gl.tensor(x), gl.tensor(y)), theirs(torch.tensor(x), torch.tensor(y)), "float32")


@pytest.mark.parametrize("name", ["maximum", "minimum", "clip", "where", "pow", "logaddexp"])
def test_binary_gradients_at_ties(name):
    ours, theirs, *_ = BINARY[name]
    x = np.array([1.0, 2.0, 3.0, 0.0])
    compare(ours, theirs, [x, x.copy()])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_integer_arithmetic(dtype):
    random_ = np.random.default_rng(0)
    x = random_.integers(0, 100, 200).astype(dtype)
    y = random_.integers(1, 7, 200).astype(dtype)
    if dtype != "uint8":
        x = x - 50
        y = y * np.where(random_.random(200) > 0.5, 1, -1).astype(dtype)
    small = np.abs(y) % 3
    a, b, c, d = gl.tensor(x), gl.tensor(y), torch.tensor(x), torch.tensor(y)
    pairs = [
        (a + b, c + d),
        (a * b, c * d),
        (a - b, c - d),
        (a // b, c // d),
        (a % b, c % d),
        (a / b, c / d),
        (a & b, c & d),
        (a | b, c | d),
        (a ^ b, c ^ d),
        (~a, ~c),
        (abs(a), abs(c)),
        (a ** gl.tensor(small), c ** torch.tensor(small)),
        (E.sign(a), torch.sign(c)),
        (a.clip(5, 20), c.clamp(5, 20)),
        (a * 2, c * 2),
        (a * 0.5, c * 0.5),
        (a + True, c + True),
        (E.exp(gl.tensor(small)), torch.exp(torch.tensor(small))),
    ]
    if dtype != "uint8":
        pairs.append((-a, -c))
    for ours, theirs in pairs:
        same(ours, theirs, "float32")


def test_bool_arithmetic():
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    a, b, c, d = gl.tensor(x), gl.tensor(y), torch.tensor(x), torch.tensor(y)
    for ours, theirs in (
        (a & b, c & d),
        (a | b, c | d),
        (a ^ b, c ^ d),
        (~a, ~c),
        (a + b, c + d),
        (a * b, c * d),
        (a + 1, c + 1),
        (a * 0.5, c * 0.5),
        (a / b, c / d),
        (a == b, c == d),
    ):
        same(ours, theirs, "float32")


# ----------------------------------------------------------------------------------- shape ops

SHAPE_OPS = {
    "reshape": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "reshape tuple": (lambda x: x.reshape((2, 12)), lambda x: x.reshape((2, 12))),
    "view": (lambda x: x.view(-1), lambda x: x.view(-1)),
    "flatten": (lambda x: x.flatten(), lambda x: x.flatten()),
    "flatten 1": (lambda x: x.flatten(1), lambda x: x.flatten(1)),
    "flatten 0 1": (lambda x: x.flatten(0, 1), lambda x: x.flatten(0, 1)),
    "ravel": (lambda x: x.ravel(), lambda x: x.ravel()),
    "unflatten": (lambda x: x.unflatten(2, (2, -1)), lambda x: x.unflatten(2, (2, -1))),
    "transpose": (lambda x: x.transpose(0, -1), lambda x: x.transpose(0, -1)),
    "permute": (lambda x: x.permute(2, 0, 1), lambda x: x.permute(2, 0, 1)),
    "permute negative": (lambda x: x.permute(-1, 0, 1), lambda x: x.permute(-1, 0, 1)),
    "T": (lambda x: x[0].T, lambda x: x[0].T),
    "mT": (lambda x: x.mT, lambda x: x.mT),
    "t": (lambda x: x[1].t(), lambda x: x[1].t()),
    "movedim": (lambda x: x.movedim(0, 2), lambda x: x.movedim(0, 2)),
    "movedim two": (lambda x: x.movedim((0, 1), (2, 0)), lambda x: x.movedim((0, 1), (2, 0))),
    "squeeze": (lambda x: x[:1, :, :1].squeeze(), lambda x: x[:1, :, :1].squeeze()),
    "squeeze dim": (lambda x: x[:1].squeeze(dim=0), lambda x: x[:1].squeeze(dim=0)),
    "squeeze none": (lambda x: x.squeeze(1), lambda x: x.squeeze(1)),
    "squeeze dims": (
        lambda x: x[:1, :, :1].squeeze((0, 2)),
        lambda x: x[:1, :, :1].squeeze((0, 2)),
    ),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x.unsqueeze(1)),
    "unsqueeze -1": (lambda x: x.unsqueeze(dim=-1), lambda x: x.unsqueeze(dim=-1)),
    "expand": (lambda x: x[:, :1].expand(5, -1, 3, -1), lambda x: x[:, :1].expand(5, -1, 3, -1)),
    "broadcast_to": (
        lambda x: x[:1].broadcast_to((2, 3, 4)),
        lambda x: x[:1].broadcast_to((2, 3, 4)),
    ),
    "expand_as": (lambda x: x[:1].expand_as(x), lambda x: x[:1].expand_as(x)),
    "flip": (lambda x: x.flip((0, 2)), lambda x: x.flip((0, 2))),
    "flip one": (lambda x: x.flip(1), lambda x: x.flip(1)),
    "roll": (lambda x: x.roll(1), lambda x: x.roll(1)),
    "roll dim": (lambda x: x.roll(-2, 2), lambda x: x.roll(-2, 2)),
    "roll dims": (lambda x: x.roll((1, 2), (0, 1)), lambda x: x.roll((1, 2), (0, 1))),
    "tile": (lambda x: x.tile((2, 1, 3)), lambda x: x.tile((2, 1, 3))),
    "repeat": (lambda x: x.repeat(2, 1, 1, 3), lambda x: x.repeat(2, 1, 1, 3)),
    "repeat_interleave": (
        lambda x: x.repeat_interleave(3, dim=1),
        lambda x: x.repeat_interleave(3, dim=1),
    ),
    "repeat_interleave flat": (
        lambda x: x.repeat_interleave(2),
        lambda x: x.repeat_interleave(2),
    ),
    "cat": (lambda x: gl.cat([x, x[:, :2]], dim=1), lambda x: torch.cat([x, x[:, :2]], dim=1)),
    "cat -1": (lambda x: gl.cat([x, x, x], -1), lambda x: torch.cat([x, x, x], -1)),
    "stack": (lambda x: gl.stack([x, x * 2], 1), lambda x: torch.stack([x, x * 2], 1)),
    "stack -1": (lambda x: gl.stack([x, x], dim=-1), lambda x: torch.stack([x, x], dim=-1)),
    "hstack": (lambda x: gl.hstack([x, x]), lambda x: torch.hstack([x, x])),
    "vstack": (lambda x: gl.vstack([x[0, 0], x[0]]), lambda x: torch.vstack([x[0, 0], x[0]])),
    "narrow": (lambda x: x.narrow(2, 1, 2), lambda x: x.narrow(2, 1, 2)),
    "split": (lambda x: x.split(3, dim=2)[1], lambda x: x.split(3, dim=2)[1]),
    "split sizes": (lambda x: x.split([1, 3], 2)[1], lambda x: x.split([1, 3], 2)[1]),
    "chunk": (lambda x: x.chunk(3, dim=2)[-1], lambda x: x.chunk(3, dim=2)[-1]),
    "unbind": (lambda x: x.unbind(1)[2], lambda x: x.unbind(1)[2]),
    "meshgrid": (
        lambda x: gl.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0],
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0],
    ),
    "meshgrid xy": (
        lambda x: gl.meshgrid(x[0, 0], x[0, :, 0], indexing="xy")[1],
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="xy")[1],
    ),
    "tril": (lambda x: x.tril(), lambda x: x.tril()),
    "tril 1": (lambda x: x.tril(1), lambda x: x.tril(1)),
    "triu -1": (lambda x: x.triu(-1), lambda x: x.triu(-1)),
    "broadcast_tensors": (
        lambda x: gl.broadcast_tensors(x, x[:1])[1],
        lambda x: torch.broadcast_tensors(x, x[:1])[1],
    ),
    "contiguous": (lambda x: x.mT.contiguous(), lambda x: x.mT.contiguous()),
    "sum_to_size": (lambda x: x.sum_to_size((1, 4)), lambda x: x.sum_to_size(1, 4)),
}


@pytest.mark.parametrize("name", SHAPE_OPS)
def test_shape_ops(name):
    ours, theirs = SHAPE_OPS[name]
    x = random(0, (2, 3, 4))
    compare(ours, theirs, [x])
    if "view" not in name:
        # The same numbers in another memory layout.
        strided = np.asfortranarray(x)
        a = gl.from_numpy(strided)
        same(ours(a), theirs(torch.from_numpy(strided)), "float64")


@pytest.mark.parametrize(
    "name", ["reshape", "transpose", "permute", "unsqueeze", "narrow", "split"]
)
def test_views_share_memory_as_in_pytorch(name):
    ours, theirs = SHAPE_OPS[name]
    x = random(0, (2, 3, 4))
    a, b = gl.tensor(x), torch.tensor(x)
    y, z = ours(a), theirs(b)
    y += 1
    z += 1
    same(a, b, "float64")
    assert y.stride() == z.stride()


# -------------------------------------------------------------------------------- indexing ops

INDEX = np.array([[0, 2, 1], [2, 2, 0]])


def make_indexing(library, index):
    """The indexing ops with an index tensor of a library."""
    rows, long = index(INDEX[0]), index(INDEX)
    return {
        "rows": lambda x: x[rows],
        "columns": lambda x: x[:, rows],
        "pairs": lambda x: x[rows, rows],
        "matrix of rows": lambda x: x[long],
        "split by a slice": lambda x: x[rows, :, rows] if x.ndim > 2 else x[rows],
        "int and rows": lambda x: x[0, rows],
        "mask": lambda x: x[x > 0],
        "mask of rows": lambda x: x[x[:, 0] > 0],
        "negative": lambda x: x[-1, ..., -2],
        "None": lambda x: x[:, None, rows],
        "gather 0": lambda x: x.gather(0, long),
        "gather 1": lambda x: x.gather(1, long),
        "index_select": lambda x: x.index_select(1, rows),
        "take": lambda x: x.take(long * 3),
        "masked_select": lambda x: x.masked_select(x > 0.5),
        # Each place once: PyTorch gives a value that is written over a gradient.
        "scatter": lambda x: x.scatter(1, long[:, 1:], x[:2, 2:]),
        "scatter value": lambda x: x.scatter(0, long, 7.0),
        "scatter_add": lambda x: x.scatter_add(1, long, x[:2, 1:]),
        "take_along_dim": lambda x: (
            library.take_along_dim(x, long[:, :1], 1)
            if library is torch
            else x[:2].take_along_dim(long[:, :1], 1)
        ),
        "masked_fill": lambda x: x.masked_fill(x > 0, -1.0),
        "where method": lambda x: x.where(x > 0, x * 2),
    }


@pytest.mark.parametrize("name", make_indexing(gl, gl.tensor))
def test_indexing(name):
    ours = make_indexing(gl, gl.tensor)[name]
    theirs = make_indexing(torch, torch.tensor)[name]
    if name == "take_along_dim":
        theirs = lambda x: torch.take_along_dim(x[:2], torch.tensor(INDEX[:, :1]), 1)  # noqa: E731
    compare(ours, theirs, [random(3, (3, 4))])


def test_random_reads_and_writes():
    random_ = np.random.default_rng(0)
    for _ in range(100):
        x = random_.uniform(-1, 1, (4, 5))
        v = random_.uniform(-1, 1, 5)
        index = [
            int(random_.integers(-4, 4)),
            slice(*sorted(random_.integers(0, 5, 2).tolist())),
            random_.permutation(4)[: random_.integers(1, 4)],
            random_.random(4) > 0.5,
        ][random_.integers(0, 4)]
        results = []
        for library in (gl, torch):
            a = library.tensor(x, requires_grad=True)
            b = library.tensor(v, requires_grad=True)
            place = library.tensor(index) if isinstance(index, np.ndarray) else index
            y = a * 2
            y[place] = b * 3
            (y * y * library.tensor(x)).sum().backward()
            results.append((a.grad.numpy(), b.grad.numpy()))
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_dlpack_between_the_two():
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = torch.from_dlpack(x)
    y[0, 0] = 9
    assert x.tolist() == [[9, 2], [3, 4]]
    z = gl.from_dlpack(torch.arange(3, dtype=torch.int16))
    assert z.dtype == gl.int16
    assert z.tolist() == [0, 1, 2]


# ---------------------------------------------------------------------------- higher orders

HIGHER = {
    "pow": (lambda x: (x**3).sum(), lambda x: (x**3).sum()),
    "exp sin": (lambda x: E.sin(E.exp(x)).sum(), lambda x: torch.sin(torch.exp(x)).sum()),
    "sigmoid": (lambda x: E.sigmoid(x).prod(), lambda x: torch.sigmoid(x).prod()),
    "tanh": (lambda x: (E.tanh(x) * x).sum(), lambda x: (torch.tanh(x) * x).sum()),
    "division": (lambda x: (1 / x[1:]).sum() * x[0], lambda x: (1 / x[1:]).sum() * x[0]),
    "gelu": (lambda x: F.gelu(x).sum() ** 2, lambda x: TF.gelu(x).sum() ** 2),
    "logaddexp": (
        lambda x: E.logaddexp(x[:2], x[2:]).sum() ** 2,
        lambda x: torch.logaddexp(x[:2], x[2:]).sum() ** 2,
    ),
    "sqrt": (lambda x: E.sqrt(x).sum() ** 3, lambda x: torch.sqrt(x).sum() ** 3),
}


@pytest.mark.parametrize("name", HIGHER)
def test_gradients_of_gradients(name):
    ours, theirs = HIGHER[name]
    x = random(5, (4,), 0.5, 1.5)
    a, b = gl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    for order in range(3):
        (g,) = gl.autograd.grad(y, a, create_graph=True)
        (h,) = torch.autograd.grad(z, b, create_graph=True)
        np.testing.assert_allclose(
            g.detach().numpy(), h.detach().numpy(), rtol=1e-9, atol=1e-9, err_msg=f"order {order}"
        )
        weights = random(order, (4,))
        y, z = (g * gl.tensor(weights)).sum(), (h * torch.tensor(weights)).sum()
