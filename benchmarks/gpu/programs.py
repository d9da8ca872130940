"""Small programs whose results on the GPU are those of the CPU.

They reach the ops that have no samples of their own, since nobody calls them by name: what draws
and samples numbers, what writes in place, what an optimizer's step is. And they put numbers where
arithmetic goes wrong first: sums of more terms than float32 can count, NaN, integers beyond 2⁵³,
squares that float16 does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import gradlab as gl
from gradlab import nn, optim
from gradlab.autograd import grad
from gradlab.distributions import Categorical, Multinomial
from gradlab.nn import functional as F
from gradlab.nn.utils import clip_grad_norm_, clip_grad_value_

# device, and how many terms a long sum has
Program = Callable[[Any, int], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


def normal(device: Any, *shape: int, seed: int = 0, **options: Any) -> gl.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return gl.tensor(values, device=device, **options)


# ---------------------------------------------------------------------------------- random numbers


@program
def drawn_numbers(device: Any, many: int) -> Any:
    there = {"generator": gl.Generator(3), "device": device}
    least = -(2**63)
    return [
        gl.rand(1001, **there), gl.randn(1001, **there), gl.rand(9, dtype=gl.float64, **there),
        gl.randn(9, dtype=gl.bfloat16, **there), gl.uniform(-2.0, 3.0, (33,), **there),
        gl.normal(1.0, 2.0, (33,), **there), gl.randint(-5, 9, (1001,), **there),
        gl.randint(least, 2**63, (101,), **there), gl.randint(0, 2**62 + 1, (101,), **there),
        gl.randperm(1, **there), gl.randperm(1000, **there), gl.randperm(200_000, **there),
    ]  # fmt: skip


@program
def dropout(device: Any, many: int) -> Any:
    x = normal(device, 33, 7, requires_grad=True)
    y = F.dropout(x, 0.3)
    return [y, *grad(y, [x], [normal(device, 33, 7, seed=1)])]


@program
def classes_drawn(device: Any, many: int) -> Any:
    generator = gl.Generator(3)
    weights = gl.tensor([[0.0, 1.0, 2.0, 1e-30, 0.5], [3.0, 0.0, 1.0, 1.0, 0.0]], device=device)
    large = normal(device, 3000).square()
    return [
        gl.multinomial(weights, 50, replacement=True, generator=generator),
        gl.multinomial(weights, 3, generator=generator),
        gl.multinomial(large, 1000, replacement=True, generator=generator),
        gl.multinomial(large, 100, generator=generator),
        gl.bernoulli(weights.clamp(max=1), generator=generator),
        Categorical(probs=weights).sample((7,)), Multinomial(11, probs=weights).sample((5,)),
        Multinomial(100_000, probs=weights).sample((5,)),
    ]  # fmt: skip


# ------------------------------------------------------------------------------- writing and taking


@program
def writes(device: Any, many: int) -> Any:
    found = []
    places = gl.tensor([0, 2, 0, 2, 1], device=device)
    for value in (2.5, normal(device, 5, 3, seed=1, requires_grad=True),
                  normal(device, 3, seed=2, requires_grad=True)):  # fmt: skip
        w = normal(device, 4, 3, requires_grad=True)
        x = w * 1
        x[1] = value if not isinstance(value, gl.Tensor) else value.sum()
        x.T[2] += 1
        x[places] = value
        x[x.detach() > 1] = 0.5
        (x * normal(device, 4, 3, seed=3)).sum().backward()
        found += [x, w.grad, *([value.grad] if isinstance(value, gl.Tensor) else [])]
    w = normal(device, 4, 3, requires_grad=True)
    y = w.T.contiguous().index_put_((places[:3],), normal(device, 3, 4, seed=4), accumulate=True)
    (g,) = grad(y.square().sum(), [w], create_graph=True)
    return [*found, y, *grad(g.square().sum(), [w]), y.clone(), w.T.contiguous()]


@program
def gradients_through_writes(device: Any, many: int) -> Any:
    w = normal(device, 4, 3, requires_grad=True)
    v = normal(device, 2, 3, seed=1, requires_grad=True)
    x = w * 1
    x[1:3] = v * v
    x[gl.tensor([0, 0], device=device)] = v
    x = x.scatter(0, gl.tensor([[3, 3, 2]], device=device), v[:1])
    first = grad(x.square().sum(), [w, v], create_graph=True)
    return [x, *first, *grad(sum(g.square().sum() for g in first), [w, v])]


@program
def parts(device: Any, many: int) -> Any:
    w = normal(device, 12, 5, requires_grad=True)
    half = normal(device, 12, 5, seed=1).to(gl.float16).requires_grad_()
    loss: Any = 0.0
    for x in (w, half):
        for i, row in enumerate(x):
            loss = loss + (row * (i + 1)).sum()
        for i, each in enumerate([*x.unbind(1), *x.split([3, 9]), *x.chunk(5, 1), x[::-2], x.T[1]]):
            loss = loss + (each.float().square() * (i + 1)).sum()
    loss.backward()
    many_rows = gl.stack([row * i for i, row in enumerate(w.unbind())])
    (g,) = grad((many_rows * gl.cat([w, w[:, :0]], 1)).sum(), [w], create_graph=True)
    return [loss, w.grad, half.grad, many_rows, g, *grad(g.square().sum(), [w])]


@program
def distances(device: Any, many: int) -> Any:
    found = []
    for p in (0.0, 1.0, 1.5, 2.0, math.inf):
        a = normal(device, 2, 30, 5, requires_grad=True)
        b = normal(device, 40, 5, seed=1, requires_grad=True)
        y = gl.cdist(a, b, p)
        found += [y, *grad(y.square().sum(), [a, b])]
        found += [gl.cdist((100 * a).to(gl.float16), (100 * b).to(gl.float16), p)]
    return found


@program
def moves(device: Any, many: int) -> Any:
    w = normal("cpu", 3, 4, requires_grad=True)
    x = w.to(device)
    y = (x.T * 2).cpu()
    (y.to(device).square().sum() + y.sum().to(device)).backward()
    return [x, y, w.grad, x.double(), x.detach().to(gl.bfloat16), x.detach().T.contiguous()]


# ----------------------------------------------------------------------------------------- training


@program
def steps_of_optimizers(device: Any, many: int) -> Any:
    found = []
    for name in optim.__all__:
        kind = getattr(optim, name)
        if not (isinstance(kind, type) and issubclass(kind, optim.Optimizer)):
            continue
        if kind is optim.Optimizer:
            continue
        for dtype in (gl.float32, gl.bfloat16):
            values = [normal(device, *shape).to(dtype) for shape in ((), (3,), (33, 5), (1025,))]
            parameters = [x.requires_grad_() for x in values]
            optimizer = kind(parameters, lr=0.1)
            for step in range(2):
                for p in parameters:
                    p.grad = normal(device, *p.shape, seed=step + 1).sign().to(dtype)
                norm = clip_grad_norm_(parameters, 20.0)
                clip_grad_value_(parameters, 0.7)
                optimizer.step()
                found += [norm, *parameters]
    return found


@program
def a_step_of_a_network(device: Any, many: int) -> Any:
    gl.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.SiLU(),
        nn.Linear(8, 3),
    ).to(device)  # fmt: skip
    x, labels = normal(device, 9, 6), gl.tensor([0, 1, 2, -100, 0, 1, 2, 0, 1], device=device)
    loss = F.cross_entropy(model(x), labels, label_smoothing=0.1)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    scores = normal(device, 9, 3, requires_grad=True)
    weight = gl.tensor([0.5, 1.0, 2.0], device=device)
    (g,) = grad(F.cross_entropy(scores, labels, weight), [scores], create_graph=True)
    return [loss, *gradients, g, *grad(g.square().sum(), [scores])]


# ----------------------------------------------------------------------------------- linear algebra


@program
def decompositions(device: Any, many: int) -> Any:
    """What is unique of them: not the signs of vectors."""
    found = []
    for shape in ((5, 5), (7, 4), (4, 7)):
        x = normal(device, *shape, requires_grad=True).double()
        u, s, vt = gl.linalg.svd(x, full_matrices=False)
        wide_u, _, wide_vt = gl.linalg.svd(x.detach(), full_matrices=True)
        q, r = gl.linalg.qr(x.detach(), mode="complete")
        found += [s, (u * s) @ vt, wide_u @ wide_u.T, wide_vt @ wide_vt.T, q @ r, q @ q.T]
        s = gl.linalg.svdvals(x)
        (g,) = grad((s**3).sum(), [x], create_graph=True)
        found += [g, *grad((g * g).sum(), [x])]
    a = normal(device, 5, 5).double()
    values, vectors = gl.linalg.eigh(a + a.T)
    return [*found, values, (vectors * values) @ vectors.T]


# ----------------------------------------------------------------- where arithmetic goes wrong


@program
def long_sums(device: Any, many: int) -> Any:
    """Each result is the number of terms, or the same for all: counting in float32 ends at 2²⁴."""
    found = []
    for shape, axis in (((many,), 0), ((many, 2), 0), ((2, many), 1), ((3, many // 3, 2), 1),
                        ((many // 64, 64), None)):  # fmt: skip
        x = gl.ones(*shape, device=device)
        found += [x.sum(axis), x.mean(axis), gl.linalg.norm(x, axis=axis)]
        found.append((x * 3).std(axis))
    x = gl.ones(many, device=device)
    found += [x @ x, x.reshape(1, -1) @ x.reshape(-1, 1), gl.einsum("i,i->", x, x),
              gl.ones(2, many, device=device) @ gl.ones(many, 3, device=device),
              x.cumsum(0)[-1:]]  # fmt: skip
    return found


@program
def long_sums_in_gradients(device: Any, many: int) -> Any:
    found = []
    layer = nn.Linear(1, 2).to(device)
    layer(gl.zeros(many, 1, device=device)).sum().backward()
    found += [layer.bias.grad, layer.weight.grad]
    one = gl.ones(1, device=device, requires_grad=True)
    (one + gl.zeros(many, device=device)).sum().backward()
    table = gl.zeros(3, 1, device=device, requires_grad=True)
    places = gl.zeros(many, dtype=gl.int64, device=device)
    table[places].sum().backward()
    from_table, table.grad = table.grad, None
    F.embedding(places, table).sum().backward()
    return [*found, one.grad, from_table, table.grad]


@program
def deviations_far_from_zero(device: Any, many: int) -> Any:
    found = []
    for shape, axes in (((50, 3001), (0, 1)), ((3001, 64), (0, 1)), ((5, 301, 24), (0, 1, 2))):
        x = normal(device, *shape) + 10_000
        found += [x.var(axis) for axis in axes] + [x.std(axis) for axis in axes] + [x.var()]
    return found


@program
def nan_and_infinity(device: Any, many: int) -> Any:
    x = gl.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5, -1.5], device=device)
    rows = gl.stack([x, x.flip(0), gl.zeros_like(x)])
    found = []
    for name in ("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish",
                 "softplus", "softsign", "hardtanh", "hardshrink", "softshrink", "tanhshrink",
                 "hardsigmoid", "hardswish", "logsigmoid", "sigmoid", "tanh"):  # fmt: skip
        y = x.clone().requires_grad_()
        z = getattr(F, name)(y)
        found += [z, *grad(z, [y], [gl.ones_like(z)])]
    for axis in (0, 1, None):
        found += [rows.amax(axis), rows.amin(axis), rows.argmax(axis), rows.argmin(axis),
                  rows.any() if axis is None else rows.any(axis), rows.sum(axis)]  # fmt: skip
    linear = gl.tensor([[math.nan, -1.0], [1.0, 1.0]], device=device, requires_grad=True)
    y = F.relu(F.linear(linear, gl.eye(2, device=device)))
    return [*found, rows.softmax(1), rows.cumsum(1), rows.sort(1).values, gl.isnan(x),
            gl.maximum(rows[0], rows[1]), y, *grad(y.sum(), [linear])]  # fmt: skip


@program
def large_integers(device: Any, many: int) -> Any:
    top = 2**63 - 1
    x = gl.tensor([2**53 + 1, -(2**53) - 1, top, -top - 1, 7, -7], device=device)
    y = gl.tensor([2**53 - 1, 3, top - 1, 1, -2, 2], device=device)
    u = gl.tensor(np.array([2**64 - 1, 2**63 + 1, 2**53 + 1], np.uint64), device=device)
    pairs = gl.stack([x, y])
    return [
        x + y, x - y, x * y, x // y, x % y, gl.maximum(x, y), gl.minimum(x, y), x == y, x < y,
        x.clamp(min=-(2**53) - 1, max=2**53 + 1), x & y, x ^ y, gl.where(x > y, x, y), x.sum(),
        pairs.sum(0), pairs.prod(0), pairs.amax(0), pairs.amax(1), pairs.argmax(1), x.cumsum(0),
        x.sort().values, x.argsort(), x.unique(), x[[0, 2]], gl.cat([x, y]), pairs @ pairs.T,
        x.to(gl.int32), x.to(gl.float64), x + 1, 2**53 + 1 - x[:2], u + 1, u // 2, u.amax(),
        gl.round(x), gl.floor(x), gl.full((2,), 2**53 + 1, device=device), x.abs()[:3], x.sign(),
    ]  # fmt: skip


@program
def halves_of_some_size(device: Any, many: int) -> Any:
    found = []
    for dtype in (gl.float16, gl.bfloat16):
        x, y = (300 * normal(device, 3, 40, seed=seed).to(dtype) for seed in (0, 1))
        w = x.requires_grad_()
        norm = gl.linalg.norm(w, axis=1)
        found += [norm, *grad(norm.sum(), [w]), F.normalize(x, dim=1), gl.dist(x, y),
                  F.cosine_similarity(x, y), F.pairwise_distance(x, y), x.std(1), x.mean(1),
                  F.layer_norm(x, (40,)), x.softmax(1), (x / 300) @ (y / 300).T]  # fmt: skip
    return found


@program
def functions_of_numbers(device: Any, many: int) -> Any:
    """`gradlab.elementwise`, which Numba compiles for the GPU; nothing where it cannot."""
    from gradlab.kernels.numba_cuda.launch import missing

    if missing():
        return []
    x = normal(device, 33, 7, requires_grad=True)
    y = _swish(x, 1.5)
    return [y, *grad(y, [x], [gl.ones_like(y)]), _swish(x.detach().double().T, 0.5)]


@gl.elementwise
def _swish(x, beta):  # type: ignore[no-untyped-def]
    return x / (1 + math.exp(-beta * x))


@_swish.gradient
def _swish_gradient(gy, x, beta):  # type: ignore[no-untyped-def]
    s = 1 / (1 + math.exp(-beta * x))
    return gy * s * (1 + beta * x * (1 - s)), gy * x * x * s * (1 - s)
