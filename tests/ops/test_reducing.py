"""Sums keep their digits: along any axes, of any layout, in every op that adds up.

The error of a sum is measured in roundings of ``Σ|x|``, of 2^-24 in float32. Two kinds of values
tell a sum in blocks from a running one: random numbers, of which a running sum of n loses about
√n/3 roundings, and 2^24 followed by ones, of which it loses all n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab import dtypes
from gradlab.nn import functional as F
from gradlab.ops.reducing import reduce_array

ROUNDING = 2.0**-24
RANDOM, HEAVY = "random", "2^24 and ones"
# A block of a running sum may be lost beside 2^24. Products of BLAS have blocks of their own.
MOST = {RANDOM: 10, HEAVY: 300}
MOST_OF_PRODUCTS = {RANDOM: 20, HEAVY: 1200}


def values(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    if kind == RANDOM:
        return np.random.default_rng(0).random(shape, np.float32)
    x = np.ones(shape, np.float32)
    x[tuple(0 if i in axes else slice(None) for i in range(len(shape)))] = 2**24
    return x


def roundings(y: Any, exact: Any, total: Any) -> float:
    """The largest error, in roundings of what was added up."""
    y = y.detach().numpy() if isinstance(y, gl.Tensor) else y
    assert np.shape(y) == np.shape(exact)
    return float(np.max(np.abs(y.astype(np.float64) - exact) / total)) / ROUNDING


# ------------------------------------------------------------------------------ axes and layouts

PATTERNS = [
    ((5000,), (0,)), ((5000, 2), (0,)), ((5001, 10), (0,)), ((4096, 150), (0,)), ((4100, 1), (0,)),
    ((2, 5000), (1,)), ((300, 700), (0, 1)), ((3, 5000, 2), (1,)), ((20, 5000, 1), (1,)),
    ((5000, 2, 3), (0,)), ((100, 3, 90), (0, 2)), ((70, 80, 3), (0, 1)), ((3, 70, 80), (1, 2)),
    ((40, 2, 40, 3), (0, 2)), ((17, 17, 17), (0, 1, 2)), ((9, 9, 9, 9), (0, 1, 3)),
]  # fmt: skip


def layouts(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "rows", x
    yield "columns", np.asfortranarray(x)
    for order in itertools.islice(itertools.permutations(range(x.ndim)), 1, 5):
        back = sorted(range(x.ndim), key=order.__getitem__)
        yield f"order {order}", np.ascontiguousarray(x.transpose(order)).transpose(back)
    gaps = np.zeros([2 * n for n in x.shape], np.float32)[(slice(None, None, 2),) * x.ndim]
    gaps[...] = x
    yield "gaps", gaps
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), np.float32)[..., 1:-2]
    wide[...] = x
    yield "part of longer rows", wide
    yield "backwards", x[(slice(None, None, -1),) * x.ndim]


@pytest.mark.parametrize("kind", [RANDOM, HEAVY])
@pytest.mark.parametrize(("shape", "axes"), PATTERNS)
def test_axes_and_layouts(shape: tuple[int, ...], axes: tuple[int, ...], kind: str) -> None:
    for name, x in layouts(values(kind, shape, axes)):
        exact = x.sum(axes, dtype=np.float64)
        for keepdims in (False, True):
            y = gl.from_numpy(x).sum(axes, keepdims=keepdims)
            expected = x.sum(axes, dtype=np.float64, keepdims=keepdims)
            assert roundings(y, expected, expected) <= MOST[kind], name
        count = math.prod(shape[i] for i in axes)
        mean = gl.from_numpy(x).mean(axes)
        assert roundings(mean, exact / count, exact / count) <= MOST[kind], name


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2), None])
@pytest.mark.parametrize("repeated", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_broadcast_arrays(axes: tuple[int, ...] | None, repeated: tuple[int, ...]) -> None:
    """A value that is repeated is multiplied."""
    shape = (900, 3, 40)
    once = np.random.default_rng(0).random(
        [1 if i in repeated else n for i, n in enumerate(shape)], np.float32
    )
    x = np.broadcast_to(once, shape)
    exact = x.sum(axes, dtype=np.float64)
    y = reduce_array(np, "sum", x, axes)
    assert roundings(y, exact, exact) <= MOST[RANDOM]
    assert isinstance(y, np.float32) or y.flags.writeable
    np.testing.assert_array_equal(reduce_array(np, "max", x, axes), x.max(axes))
    np.testing.assert_array_equal(reduce_array(np, "any", x > 0.9, axes), (x > 0.9).any(axes))
    powers = x.prod(axes, dtype=np.float64)
    np.testing.assert_allclose(reduce_array(np, "prod", x, axes), powers, rtol=1e-3, atol=1e-38)


def test_a_sum_over_nothing_is_a_copy() -> None:
    for shape, axes in (((600, 1), (1,)), ((600, 2), ()), ((1, 600), (0,)), ((30, 1, 30), (1,))):
        for x in (np.ones(shape, np.float32), np.asfortranarray(np.ones(shape, np.float32))):
            y = reduce_array(np, "sum", x, axes)
            assert not np.shares_memory(x, y)
            np.testing.assert_array_equal(y, x.sum(axes))


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
def test_other_dtypes(dtype: Any) -> None:
    x = np.random.default_rng(0).random((5000, 3)).astype(dtype)
    if x.dtype.kind == "c":
        x *= 1 - 2j
    exact = x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble).sum(0)
    y = gl.from_numpy(x).sum(0)
    assert y.dtype == x.dtype
    assert np.max(np.abs(y.numpy() - exact) / np.abs(exact)) <= 10 * np.finfo(dtype).eps


def test_integers_are_exact() -> None:
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (3000, 3, 7))
    for axes in ((0,), (1,), (0, 2), (0, 1, 2)):
        np.testing.assert_array_equal(gl.from_numpy(x).sum(axes).numpy(), x.sum(axes))
    many = np.ones((5000, 4), np.int8)
    assert gl.from_numpy(many).sum(0).tolist() == [5000] * 4
    assert gl.from_numpy(many > 0).sum(0).tolist() == [5000] * 4
    assert gl.count_nonzero(gl.from_numpy(many), 0).tolist() == [5000] * 4


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16])
def test_halves_add_up_in_float32(dtype: Any) -> None:
    x = gl.full((70_000, 3), 2.0, dtype=dtype)
    assert x.mean(0).tolist() == [2.0] * 3  # the sum would overflow float16
    assert x.mean().item() == 2.0
    assert (x * x).mean(0).tolist() == [4.0] * 3
    few = gl.full((60_000,), math.nan, dtype=dtype)
    few[7] = 1.5
    assert gl.nanmean(few).item() == 1.5


# ------------------------------------------------------------------------- ops that add up

Case = tuple[Any, Any, Any]  # the result, the exact one, and what was added up for it
COUNT = 20_000


def rows(kind: str, width: int = 1) -> np.ndarray:
    x = values(kind, (COUNT, 1), (0,))
    return np.ascontiguousarray(np.broadcast_to(x, (COUNT, width)))


def gradient(f: Callable[..., Any], x: np.ndarray, gy: np.ndarray) -> Any:
    x = gl.tensor(x, requires_grad=True)
    f(x).backward(gl.from_numpy(gy))
    return x.grad


def case_nansum(kind: str) -> Case:
    x = rows(kind, 2)
    x[1::2] = math.nan
    exact = np.nansum(x.astype(np.float64), 0)
    return gl.nansum(gl.from_numpy(x), 0), exact, exact


def case_nanmean(kind: str) -> Case:
    x = rows(kind, 2)
    x[1::2] = math.nan
    exact = np.nanmean(x.astype(np.float64), 0)
    return gl.nanmean(gl.from_numpy(x), 0), exact, exact


def case_norm1(kind: str) -> Case:
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    return gl.linalg.vector_norm(gl.from_numpy(-rows(kind, 3)), 1, 0), exact, exact


def case_norm2(kind: str) -> Case:
    exact = np.sqrt(rows(kind, 3).sum(0, dtype=np.float64))
    return gl.linalg.vector_norm(gl.from_numpy(np.sqrt(rows(kind, 3))), 2, 0), exact, exact


def case_softmax(kind: str) -> Case:
    x = np.log(rows(kind, 3)[:, :, None]).astype(np.float32)
    e = np.exp(x.astype(np.float64))
    exact = (e / e.sum(0))[0]
    return gl.softmax(gl.from_numpy(x), 0)[0], exact, exact


def case_softmax_backward(kind: str) -> Case:
    # With equal scores gx = (gy - mean(gy)) / n.
    gx = gradient(lambda x: gl.softmax(x, 0), np.zeros((COUNT, 2), np.float32), rows(kind, 2))
    g = rows(kind, 2).astype(np.float64)
    return gx[-1], (g[-1] - g.mean(0)) / COUNT, g.mean(0) / COUNT


def case_log_softmax_backward(kind: str) -> Case:
    gx = gradient(lambda x: gl.log_softmax(x, 0), np.zeros((COUNT, 2), np.float32), rows(kind, 2))
    g = rows(kind, 2).astype(np.float64)
    return gx[-1], g[-1] - g.mean(0), g.mean(0)


def case_broadcast(kind: str) -> Case:
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    gbias = gradient(lambda x: x + gl.zeros(COUNT, 3), np.zeros(3, np.float32), rows(kind, 3))
    return gbias, exact, exact


def case_sum_to(kind: str) -> Case:
    exact = rows(kind, 3).sum(0, dtype=np.float64)[None, :, None]
    return gl.from_numpy(rows(kind, 3)[:, :, None]).sum_to((1, 3, 1)), exact, exact


def case_einsum(kind: str) -> Case:
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    return gl.einsum("ij->j", gl.from_numpy(rows(kind, 3))), exact, exact


def case_trapezoid(kind: str) -> Case:
    x = rows(kind, 2).astype(np.float64)
    exact = x.sum(0) - (x[0] + x[-1]) / 2
    return gl.trapezoid(gl.from_numpy(rows(kind, 2)), axis=0), exact, exact


def case_cumsum(kind: str) -> Case:
    exact = rows(kind, 2).cumsum(0, dtype=np.float64)
    return gl.cumsum(gl.from_numpy(rows(kind, 2)), 0), exact, exact


def case_complex_cumsum(kind: str) -> Case:
    exact = rows(kind, 2).cumsum(0, dtype=np.float64)
    y = gl.cumsum(gl.from_numpy(rows(kind, 2).astype(np.complex64)), 0)
    return y.numpy().real, exact, exact


def case_trace(kind: str) -> Case:
    x = np.zeros((2000, 2000), np.float32)
    np.fill_diagonal(x, rows(kind)[:2000, 0])
    exact = x.sum(dtype=np.float64)
    return gl.trace(gl.from_numpy(x)), exact, exact


def case_mse(kind: str) -> Case:
    exact = rows(kind, 3).sum(dtype=np.float64) / (3 * COUNT)
    x = gl.from_numpy(np.sqrt(rows(kind, 3)))
    return F.mse_loss(x, gl.zeros(COUNT, 3)), exact, exact


def case_l1_of_columns(kind: str) -> Case:
    exact = rows(kind, 3).sum(dtype=np.float64)
    x = gl.from_numpy(np.asfortranarray(rows(kind, 6)))[:, ::2]
    return F.l1_loss(x, gl.zeros(COUNT, 3), reduction="sum"), exact, exact


def case_cross_entropy(kind: str) -> Case:
    x = np.zeros((COUNT, 2), np.float32)
    x[:, 1] = rows(kind)[:, 0]
    loss = F.cross_entropy(gl.from_numpy(x), gl.zeros(COUNT, dtype=gl.int64), reduction="sum")
    exact = np.logaddexp(0, x[:, 1].astype(np.float64)).sum()
    return loss, exact, exact


def case_linear_bias(kind: str) -> Case:
    layer = gl.nn.Linear(1, 3)
    layer(gl.ones(COUNT, 1)).backward(gl.from_numpy(rows(kind, 3)))
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    return layer.bias.grad, exact, exact


def case_linear_weight(kind: str) -> Case:
    layer = gl.nn.Linear(1, 3)
    layer(gl.ones(COUNT, 1)).backward(gl.from_numpy(rows(kind, 3)))
    exact = rows(kind, 3).sum(0, dtype=np.float64)[:, None]
    return layer.weight.grad, exact, exact


def case_layer_norm(kind: str) -> Case:
    gbias = gradient(
        lambda bias: F.layer_norm(gl.rand(COUNT, 3), (3,), None, bias),
        np.zeros(3, np.float32), rows(kind, 3),
    )  # fmt: skip
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    return gbias, exact, exact


def case_batch_norm(kind: str) -> Case:
    gy = np.ascontiguousarray(rows(kind, 3).reshape(200, 100, 3).swapaxes(1, 2))
    gbias = gradient(
        lambda bias: F.batch_norm(gl.rand(200, 3, 100), None, None, None, bias, training=True),
        np.zeros(3, np.float32), gy,
    )  # fmt: skip
    exact = rows(kind, 3).sum(0, dtype=np.float64)
    return gbias, exact, exact


SUMS: dict[str, Callable[[str], Case]] = {
    name.removeprefix("case_"): f for name, f in list(globals().items()) if name.startswith("case_")
}


@pytest.mark.parametrize("kind", [RANDOM, HEAVY])
@pytest.mark.parametrize("name", SUMS)
def test_ops_that_add_up(name: str, kind: str) -> None:
    product = name in ("mse", "linear_weight")
    assert roundings(*SUMS[name](kind)) <= (MOST_OF_PRODUCTS if product else MOST)[kind]


# --------------------------------------------------------------------------------- products

PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "vector · vector": lambda x, one: x[:, 0] @ one[:, 0],
    "vector · matrix": lambda x, one: one[:, 0] @ x,
    "matrix · vector": lambda x, one: x.T @ one[:, 0],
    "contiguous matrix · vector": lambda x, one: x.T.contiguous() @ one[:, 0],
    "matrix · matrix": lambda x, one: x.T @ one,
    "batch of matrices": lambda x, one: gl.stack([x.T, x.T]) @ one,
    "broadcast": lambda x, one: x.T @ gl.ones(1, 1).expand(COUNT, 2),
    "einsum": lambda x, one: gl.einsum("ij,ik->jk", x, one),
    "einsum to vectors": lambda x, one: gl.einsum("ij,i->j", x, one[:, 0]),
    "tensordot": lambda x, one: gl.tensordot(x, one, ([0], [0])),
    "vecdot": lambda x, one: gl.vecdot(x.T, one[:, 0]),
    "linear": lambda x, one: gl.nn.functional.linear(x.T, one.T),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("kind", [RANDOM, HEAVY])
def test_long_thin_products(name: str, kind: str) -> None:
    """What BLAS adds up one after another is cut into pieces of 1,024."""
    x, one = gl.from_numpy(rows(kind, 3)), gl.ones(COUNT, 2)
    y = PRODUCTS[name](x, one)
    exact = np.broadcast_to(rows(kind)[:, 0].sum(dtype=np.float64), y.shape)
    assert roundings(y, exact, exact) <= MOST_OF_PRODUCTS[kind]


@pytest.mark.parametrize("kind", [RANDOM, HEAVY])
def test_gradients_of_products(kind: str) -> None:
    """A matrix of many rows times a vector: the vector's gradient is a sum over the rows."""
    for shape in ((3,), (3, 2)):
        x = gl.zeros(*shape, requires_grad=True)
        y = gl.ones(COUNT, 3) @ x
        y.backward(gl.from_numpy(rows(kind, 2)[:, 0] if x.ndim == 1 else rows(kind, 2)))
        exact = np.broadcast_to(rows(kind)[:, 0].sum(dtype=np.float64), shape)
        assert roundings(x.grad, exact, exact) <= MOST_OF_PRODUCTS[kind]
    x = gl.zeros(100, 200, 3).requires_grad_(False)
    w = gl.zeros(3, 2, requires_grad=True)
    ((x + 1) @ w).backward(gl.from_numpy(rows(kind, 2).reshape(100, 200, 2)))
    exact = np.broadcast_to(rows(kind)[:, 0].sum(dtype=np.float64), (3, 2))
    assert roundings(w.grad, exact, exact) <= MOST_OF_PRODUCTS[kind]


def test_products_in_pieces_of_all_shapes() -> None:
    rng = np.random.default_rng(0)
    for k in (8191, 8192, 9000, 70_000):
        for left, right in (
            ((k,), (k,)), ((k,), (k, 2)), ((2, k), (k,)), ((2, k), (k, 3)), ((20, k), (k, 3)),
            ((3, 2, k), (k, 2)), ((3, 2, k), (3, k, 2)), ((3, 2, k), (k,)), ((k,), (3, k, 2)),
            ((20, k), (k, 20)), ((1, k), (2, 1, k, 1)),
        ):  # fmt: skip
            x1, x2 = rng.standard_normal(left), rng.standard_normal(right)
            y = gl.from_numpy(x1) @ gl.from_numpy(x2)
            np.testing.assert_allclose(y.numpy(), x1 @ x2, rtol=1e-10, atol=1e-10)
            turned = np.asfortranarray(x1)[..., ::-1]
            y = gl.from_numpy(turned) @ gl.from_numpy(np.asfortranarray(x2))
            np.testing.assert_allclose(y.numpy(), turned @ x2, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------- far from zero

FAR = [1e4, 1e6]


@pytest.mark.parametrize("at", FAR)
@pytest.mark.parametrize("axes", [None, 0, 1, (0, 2), (1, 2)])
def test_variance_far_from_zero(at: float, axes: Any) -> None:
    x = (np.random.default_rng(0).standard_normal((50, 40, 60)) + at).astype(np.float32)
    exact = x.astype(np.float64).var(axes, ddof=1)
    assert roundings(gl.var(gl.from_numpy(x), axes), exact, exact) <= 20
    assert roundings(gl.std(gl.from_numpy(x), axes), np.sqrt(exact), np.sqrt(exact)) <= 20


def test_equal_values_vary_by_nothing() -> None:
    for value in (1e6 / 3, 0.1, 1e-30):
        for shape, axes in (((5000, 3), 0), ((3, 5000), 1), ((70_000,), None)):
            x = gl.full(shape, value, dtype=gl.float32)
            y = gl.std(x, axes)
            assert bool((y >= 0).all())
            assert bool((y <= 1e-6 * value).all())


def test_batch_statistics_far_from_zero() -> None:
    x = (np.random.default_rng(0).standard_normal((3000, 4)) + 1e6).astype(np.float32)
    norm = gl.nn.BatchNorm1d(4, momentum=1.0)
    norm(gl.from_numpy(x))
    exact = x.astype(np.float64).var(0, ddof=1)
    assert roundings(norm.running_var, exact, exact) <= 10


def test_ties_are_counted_exactly() -> None:
    x = gl.zeros(2**24 + 4, requires_grad=True)
    x.amax().backward()
    assert x.grad is not None
    assert x.grad[0].item() == np.float32(1 / (2**24 + 4))


# --------------------------------------------------------------------------------- large


@pytest.mark.slow
def test_gradients_of_long_running_products() -> None:
    x = (1 + 1e-3 * np.random.default_rng(0).uniform(-0.5, 0.5, (20_000, 3))).astype(np.float32)
    found = []
    for dtype in ("float32", "float64"):
        t = gl.tensor(x, dtype=dtype, requires_grad=True)
        gl.cumprod(t, 0).sum().backward()
        found.append(t.grad.numpy())
    assert np.abs(found[0] - found[1]).max() < 1e-7 * np.abs(found[1]).max()


def test_bias_of_twenty_million_rows() -> None:
    layer = gl.nn.Linear(1, 2)
    layer(gl.zeros(20_000_000, 1)).sum().backward()
    assert layer.bias.grad.tolist() == [2e7, 2e7]
    layer.zero_grad()
    (layer(gl.ones(20_000_000, 1)) * 1.0).sum().backward()  # a gradient that lies in memory
    assert layer.bias.grad.tolist() == [2e7, 2e7]
    assert layer.weight.grad.tolist() == [[2e7], [2e7]]


@pytest.mark.slow
def test_a_hundred_million_values() -> None:
    # Equal values round the same way again and again, always to one side.
    x = gl.full((100_000_000,), 0.1, dtype=gl.float32)
    exact = float(np.float32(0.1)) * 1e8
    for shape, axes in (((50_000_000, 2), 0), ((10, 5_000_000, 2), 1), ((100_000_000,), None)):
        y = x.reshape(shape).sum(axes)
        total = np.full(y.shape, exact / y.numel())
        assert roundings(y, total, total) <= 4 * MOST[RANDOM]
        mean = x.reshape(shape).mean(axes)
        share = np.full(y.shape, float(np.float32(0.1)))
        assert roundings(mean, share, share) <= 4 * MOST[RANDOM]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int32", "uint64"])
def test_integers_accumulate_in_int64_wherever_they_are_added(dtype):
    x = gl.full((2, 3), 100, dtype=dtype)
    wide = gl.uint64 if dtype == "uint64" else gl.int64
    sums = (
        x.sum(0),
        x.sum_to_size((3,)),
        gl.einsum("ij->j", x),
        gl.einsum("ij,k->j", x, gl.ones(1, dtype=dtype)),
    )
    for y in sums:
        assert y.dtype == wide
        assert y.tolist() == [200, 200, 200]
