"""`gradlab.linalg` against ``torch.linalg``: values, shapes and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlab as gl

torch = pytest.importorskip("torch")

RTOL = {np.float32: 2e-4, np.float64: 1e-9}

SQUARE = [(3, 3), (1, 1), (2, 4, 4), (2, 1, 3, 3), (0, 3, 3), (17, 17)]
OBLONG = [(4, 2), (2, 4), (3, 3), (2, 5, 3), (3, 2, 2, 4)]
SYMMETRIC = ("cholesky", "eigvalsh", "upper")


def random(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Matrices far from singular."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x + 3 * np.eye(*shape[-2:])).astype(dtype)


def compare(function: Callable[..., Any], *arrays: np.ndarray) -> None:
    """``function(module, *tensors)`` in both, and the gradients of a weighting of its results."""
    ours = [gl.tensor(x, requires_grad=True) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    ys, zs = function(gl, *ours), function(torch, *theirs)
    ys, zs = (each if isinstance(each, tuple | list) else (each,) for each in (ys, zs))
    assert len(ys) == len(zs)
    total, other = gl.zeros(()), torch.zeros(())
    for i, (y, z) in enumerate(zip(ys, zs, strict=True)):
        close(y, z)
        if y.requires_grad:
            w = np.random.default_rng(i).standard_normal(y.shape).astype(arrays[0].dtype)
            total, other = total + (y * gl.tensor(w)).sum(), other + (z * torch.tensor(w)).sum()
    if total.requires_grad:
        total.backward()
        other.backward()
        for a, b in zip(ours, theirs, strict=True):
            close(a.grad, b.grad)


def close(ours: Any, theirs: Any) -> None:
    x, y = ours.numpy(force=True), theirs.detach().numpy()
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    rtol = RTOL.get(x.dtype.type, 0.0)
    scale = float(np.max(np.abs(y), initial=0.0))
    np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale)


def signed(u: Any) -> Any:
    """Vectors with the sign that makes their first element positive."""
    return u * u[..., :1, :].sign()


FUNCTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("inv", lambda m, x: m.linalg.inv(x)),
    ("inverse", lambda m, x: m.inverse(x) + x.inverse()),
    ("det", lambda m, x: m.linalg.det(x)),
    ("slogdet", lambda m, x: tuple(m.linalg.slogdet(x))),
    ("logdet", lambda m, x: m.logdet(x @ x.mT)),
    ("cholesky", lambda m, x: m.linalg.cholesky(x)),
    ("upper", lambda m, x: m.linalg.cholesky(x, upper=True)),
    ("eigvalsh", lambda m, x: m.linalg.eigvalsh(x)),
    ("matrix_power", lambda m, x: m.linalg.matrix_power(x, 3)),
    ("negative power", lambda m, x: m.linalg.matrix_power(x, -2)),
    # PyTorch 2.13 fails in the backward pass of these.
    ("cond 1", lambda m, x: m.linalg.cond(x.detach(), 1)),
    ("cond fro", lambda m, x: m.linalg.cond(x.detach(), "fro")),
    ("triangular", lambda m, x: m.linalg.solve_triangular(x, x.mT, upper=True)),
    ("lower, right",
     lambda m, x: m.linalg.solve_triangular(x, x.mT, upper=False, left=False)),
    ("ones", lambda m, x: m.linalg.solve_triangular(x, x.mT, upper=False, unitriangular=True)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_square(name, function, shape, dtype):
    x = random(shape, dtype)
    if name in SYMMETRIC:
        x = x @ x.swapaxes(-1, -2)
    if shape[-1] == 17:  # as well conditioned as the small ones
        x = x / 4 + 3 * np.eye(17, dtype=dtype)
    compare(function, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", OBLONG)
def test_oblong(shape, dtype):
    x = random(shape, dtype)
    compare(lambda m, x: m.linalg.pinv(x), x)
    compare(lambda m, x: m.pinverse(x), x)
    compare(lambda m, x: tuple(m.linalg.qr(x)), x)
    compare(lambda m, x: m.linalg.svd(x, full_matrices=False).S, x)
    compare(lambda m, x: m.linalg.cond(x), x)
    compare(lambda m, x: m.linalg.matrix_rank(x), x)
    compare(lambda m, x: m.linalg.matrix_rank(x, rtol=0.5), x)
    with gl.no_grad(), torch.no_grad():
        ours, theirs = gl.linalg.svd(gl.tensor(x)), torch.linalg.svd(torch.tensor(x))
        assert [y.shape for y in ours] == [tuple(y.shape) for y in theirs]


def test_vectors_of_factorizations():
    x = random((2, 4, 4), np.float64)
    compare(lambda m, x: signed(m.linalg.svd(x).U), x)
    compare(lambda m, x: signed(m.linalg.eigh(x).eigenvectors), x @ x.swapaxes(-1, -2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape1", "shape2"),
    [
        ((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3)), ((2, 3, 3), (2, 3, 4)),
        ((2, 3, 3), (3,)), ((2, 3, 3), (3, 4)), ((3, 3), (2, 3, 4)), ((3, 3, 3), (3, 3)),
        ((4, 1, 2, 2), (3, 2, 1)),
    ],
)  # fmt: skip
def test_solve(shape1, shape2, dtype):
    b = np.random.default_rng(1).standard_normal(shape2).astype(dtype)
    compare(lambda m, a, b: m.linalg.solve(a, b), random(shape1, dtype), b)


def test_solve_from_the_right():
    b = np.random.default_rng(1).standard_normal((2, 4, 3))
    compare(lambda m, a, b: m.linalg.solve(a, b, left=False), random((2, 3, 3), np.float64), b)


@pytest.mark.parametrize(
    ("shape1", "shape2"),
    [
        ((4, 2), (4,)), ((4, 2), (4, 3)), ((2, 4), (2, 3)), ((3, 3), (3, 3)),
        ((2, 4, 3), (2, 4)), ((2, 4, 3), (2, 4, 2)),
    ],
)  # fmt: skip
def test_lstsq(shape1, shape2):
    b = np.random.default_rng(1).standard_normal(shape2)
    compare(lambda m, a, b: m.linalg.lstsq(a, b).solution, random(shape1, np.float64), b)
    with torch.no_grad():
        ours = gl.linalg.lstsq(gl.tensor(random(shape1, np.float64)), gl.tensor(b))
        theirs = torch.linalg.lstsq(
            torch.tensor(random(shape1, np.float64)), torch.tensor(b), driver="gelsd"
        )
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)


def test_the_analytic_solution_agrees_with_sgd():
    """(XᵀX)⁻¹Xᵀy, lstsq and what gradient descent comes to."""
    gl.manual_seed(0)
    x = gl.randn(200, 2)
    y = x @ gl.tensor([2.0, -3.4]) + 0.01 * gl.randn(200)
    exact = gl.linalg.inv(x.T @ x) @ x.T @ y
    close(gl.linalg.lstsq(x, y).solution, torch.linalg.lstsq(
        torch.tensor(x.numpy()), torch.tensor(y.numpy())).solution)  # fmt: skip
    close(exact, torch.tensor(gl.linalg.lstsq(x, y).solution.numpy()))
    w = gl.zeros(2, requires_grad=True)
    optimizer = gl.optim.SGD([w], lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        ((x @ w - y) ** 2).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(w.numpy(force=True), exact.numpy(), rtol=1e-5)
