"""Reductions, norms and sorting against PyTorch: values and gradients of random cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab.ops import reduction as R, sorting as S
from gradlab.ops.creation import tensor
from gradlab.tensor import Tensor

torch = pytest.importorskip("torch")

# (name, gradlab's function, torch's), each of (x, dim, keepdim)
REDUCTIONS: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
    ("sum", R.sum, torch.sum),
    ("mean", R.mean, torch.mean),
    ("amax", R.amax, torch.amax),
    ("amin", R.amin, torch.amin),
    ("var", R.var, torch.var),
    ("std", R.std, torch.std),
    ("var0", lambda x, **o: R.var(x, correction=0, **o),
     lambda x, **o: torch.var(x, correction=0, **o)),
    ("logsumexp", R.logsumexp, torch.logsumexp),
    ("nansum", R.nansum, torch.nansum),
    ("nanmean", R.nanmean, torch.nanmean),
    *[(f"norm{p}", lambda x, p=p, **o: R.norm(x, p, **o),
       lambda x, p=p, **o: torch.linalg.vector_norm(x, p, **o))
      for p in (2, 1, 0, 3, 1.5, 0.5, float("inf"), -float("inf"))],
]  # fmt: skip
# Those of one axis, or of all.
SINGLE: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
    ("prod", R.prod, torch.prod),
    ("cumsum", R.cumsum, torch.cumsum),
    ("cumprod", R.cumprod, torch.cumprod),
    ("sort", lambda x, **o: S.sort(x, **o).values, lambda x, **o: torch.sort(x, **o).values),
    ("topk", lambda x, **o: S.topk(x, 2, **o).values, lambda x, **o: torch.topk(x, 2, **o).values),
    ("smallest", lambda x, **o: S.topk(x, 2, largest=False, **o).values,
     lambda x, **o: torch.topk(x, 2, largest=False, **o).values),
    ("kthvalue", lambda x, **o: S.kthvalue(x, 2, **o).values,
     lambda x, **o: torch.kthvalue(x, 2, **o).values),
    ("median", lambda x, **o: S.median(x, **o).values, lambda x, **o: torch.median(x, **o).values),
    ("quantile", lambda x, **o: S.quantile(x, 0.3, **o),
     lambda x, **o: torch.quantile(x, 0.3, **o)),
]  # fmt: skip


def compare(
    ours: Callable[..., Any], theirs: Callable[..., Any], x: np.ndarray, **options: Any
) -> None:
    """The values, and the gradients of a random weighting of them."""
    a = tensor(x, requires_grad=True)
    b = torch.tensor(x, requires_grad=True)
    y, z = ours(a, **options), theirs(b, **options)
    assert y.shape == tuple(z.shape)
    close(y.detach().numpy(), z.detach().numpy())
    weights = np.random.default_rng(9).standard_normal(y.shape).astype(np.float32)
    y.backward(tensor(weights))
    z.backward(torch.tensor(weights))
    assert a.grad is not None
    # PyTorch leaves out the gradient of a norm of order 0, which is 0.
    close(a.grad.numpy(), np.zeros_like(x) if b.grad is None else b.grad.numpy())


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Normal values kept away from 0, where orders below 1 have no gradient."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return x + np.copysign(np.float32(0.05), x)


SHAPES = [(7,), (3, 5), (4, 3, 2), (33, 31), (5000, 3), (3, 5000)]


@pytest.mark.parametrize(("ours", "theirs"), [c[1:] for c in REDUCTIONS], ids=[
    c[0] for c in REDUCTIONS
])  # fmt: skip
def test_reductions(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    for seed, shape in enumerate(SHAPES):
        x = values(shape, seed)
        everything = tuple(range(x.ndim))
        for dim in {0, -1, everything, everything[1:] or (0,)}:
            for keepdim in (False, True):
                compare(ours, theirs, x, dim=dim, keepdim=keepdim)


@pytest.mark.parametrize(("ours", "theirs"), [c[1:] for c in SINGLE], ids=[c[0] for c in SINGLE])
def test_single_axis(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    for seed, shape in enumerate([(7,), (3, 5), (4, 3, 2), (33, 31)]):
        for dim in (0, -1):
            compare(ours, theirs, values(shape, seed), dim=dim)


@pytest.mark.parametrize("p", ["fro", "nuc", 2, -2, 1, -1, float("inf"), -float("inf")])
def test_matrix_norm(p: Any) -> None:
    def ours(x: Any) -> Any:
        return R.matrix_norm(x, p)

    def theirs(x: Any) -> Any:
        return torch.linalg.matrix_norm(x, p)

    for seed, shape in enumerate([(3, 3), (4, 3), (2, 3, 5)]):
        compare(ours, theirs, values(shape, seed))


def test_everything() -> None:
    for name in ("sum", "mean", "prod", "max", "min", "var", "std", "norm", "median", "nansum"):
        compare(
            lambda x, name=name: getattr(x, name)(),
            lambda x, name=name: getattr(x, name)(),
            values((4, 3), 1),
        )


def test_ties_and_zeros() -> None:
    x = np.array([[1, 2, 2, 0], [0, 3, 0, 3], [0, 0, 0, 0]], np.float32)
    for ours, theirs in (
        (R.amax, torch.amax),
        (R.amin, torch.amin),
        (R.std, torch.std),
        (R.norm, torch.linalg.vector_norm),
        (lambda x, **o: R.norm(x, float("inf"), **o),
         lambda x, **o: torch.linalg.vector_norm(x, float("inf"), **o)),
        (R.prod, torch.prod),
        (R.cumprod, torch.cumprod),
    ):  # fmt: skip
        compare(ours, theirs, x, dim=1)
    compare(lambda x: x.max(), lambda x: x.max(), x)


def test_second_order() -> None:
    x = values((3, 4), 0)
    x[0, 1] = x[1, 0] = x[1, 2] = 0
    for name in ("prod", "cumprod", "var", "std", "logsumexp", "norm"):
        a, b = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        for leaf in (a, b):
            y = getattr(leaf, name)(dim=1)
            grad = _grad(y.sum(), leaf)
            (grad * grad).sum().backward()
        assert a.grad is not None
        close(a.grad.numpy(), b.grad.numpy())


def _grad(y: Any, x: Any) -> Any:
    if isinstance(x, Tensor):
        from gradlab.autograd import grad

        return grad(y, x, create_graph=True)[0]
    return torch.autograd.grad(y, x, create_graph=True)[0]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32"])
def test_result_dtypes(dtype: str) -> None:
    a = tensor(np.ones((2, 3)), dtype=dtype)
    b = torch.ones((2, 3), dtype=getattr(torch, dtype))
    for name in ("sum", "prod", "amax", "argmax", "any", "all", "cumsum", "sort", "mean", "var",
                 "norm", "logsumexp"):  # fmt: skip
        options = {"dim": 1}
        try:
            expected = getattr(b, name)(**options)
        except (RuntimeError, NotImplementedError):
            continue
        if dtype == "uint8" and name in ("any", "all"):
            continue  # there alone PyTorch gives uint8, for reasons of its history
        found = getattr(a, name)(**options)
        if name == "sort":
            found, expected = found.values, expected.values
        assert str(expected.dtype).removeprefix("torch.") == found.dtype.name, name


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_and_search(weighted: bool) -> None:
    x = np.random.default_rng(0).integers(0, 9, 100)
    w = np.random.default_rng(1).random(100).astype(np.float32)
    given = (w,) if weighted else ()
    ours = S.bincount(tensor(x), *map(tensor, given), minlength=12)
    theirs = torch.bincount(torch.tensor(x), *map(torch.tensor, given), minlength=12)
    close(ours.numpy(), theirs.numpy())
    edges, values_ = np.sort(w[:20]).reshape(2, 10), w[20:40].reshape(2, 10)
    for right in (False, True):
        found = S.searchsorted(tensor(edges), tensor(values_), right=right)
        expected = torch.searchsorted(torch.tensor(edges), torch.tensor(values_), right=right)
        close(found.numpy(), expected.numpy())
    for one, other in zip(
        S.unique(tensor(x), return_inverse=True, return_counts=True),
        torch.unique(torch.tensor(x), return_inverse=True, return_counts=True),
        strict=True,
    ):
        close(one.numpy(), other.numpy())


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("keepdim", [False, True])
def test_extremes_spelt_as_in_pytorch(name: str, keepdim: bool) -> None:
    array = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    x = gl.tensor(array, requires_grad=True)
    t = torch.tensor(array, requires_grad=True)
    got, expected = (getattr(each, name)(dim=1, keepdim=keepdim) for each in (x, t))
    assert got.indices.tolist() == expected.indices.tolist()
    assert got[0].tolist() == expected[0].tolist()
    got.values.sum().backward()
    expected.values.sum().backward()
    assert x.grad.tolist() == t.grad.tolist()
    other = np.zeros((4, 5), np.float32)
    pair = getattr(gl, name)(x, gl.tensor(other)), getattr(torch, name)(t, torch.tensor(other))
    assert pair[0].tolist() == pair[1].tolist()
