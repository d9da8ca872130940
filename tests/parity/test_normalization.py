"""Layer, RMS and batch norm against PyTorch: values, gradients, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradlab.autograd import grad
from gradlab.ops import normalization as N
from gradlab.ops.creation import tensor

torch = pytest.importorskip("torch")
F = torch.nn.functional


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def close(a: Any, b: Any, rtol: float) -> None:
    a, b = a.detach().numpy(), b.detach().numpy()
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=1.0))


def compare(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    *arrays: np.ndarray,
    rtol: float = 1e-9,
    second: bool = True,
) -> None:
    xs = [tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(*ts)
    close(y, t, rtol)
    start = random(*y.shape, seed=1).astype(arrays[0].dtype)
    plain = grad(y, xs, tensor(start), create_graph=True)
    quick = grad(y, xs, tensor(start), retain_graph=True)
    wanted = torch.autograd.grad(t, ts, torch.tensor(start), create_graph=True)
    for a, b, c in zip(plain, quick, wanted, strict=True):
        close(a, c, rtol)
        close(b, c, rtol)
    total, wanted_total = (sum((g * g).sum() for g in gs) for gs in (plain, wanted))
    if not second or not total.requires_grad:  # linear in x
        return
    found = grad(total, xs, allow_unused=True)
    expected = torch.autograd.grad(wanted_total, ts, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b, 10 * rtol)


CASES = [((4, 5), (5,)), ((2, 3, 4), (4,)), ((2, 3, 4), (3, 4)), ((7,), (7,)), ((300, 10), (10,))]


@pytest.mark.parametrize("parameters", [0, 1, 2])
@pytest.mark.parametrize(("shape", "normalized"), CASES)
def test_layer_norm(shape, normalized, parameters):
    arrays = [random(*shape), random(*normalized, seed=2), random(*normalized, seed=3)]
    compare(
        lambda x, *rest: N.layer_norm(x, normalized, *rest, eps=1e-3),
        lambda x, *rest: F.layer_norm(x, normalized, *rest, eps=1e-3),
        *arrays[: 1 + parameters],
    )


def test_layer_norm_with_a_bias_alone():
    compare(
        lambda x, bias: N.layer_norm(x, 5, None, bias),
        lambda x, bias: F.layer_norm(x, (5,), None, bias),
        random(4, 5),
        random(5),
        second=False,  # PyTorch 2.13 raises from inside
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize(("shape", "normalized"), CASES)
def test_rms_norm(shape, normalized, eps, weighted):
    arrays = [random(*shape), random(*normalized, seed=2)][: 1 + weighted]
    compare(
        lambda x, *rest: N.rms_norm(x, normalized, *rest, eps=eps),
        lambda x, *rest: F.rms_norm(x, normalized, *rest, eps=eps),
        *arrays,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype):
    x = (random(4, 50) * 3).astype(np.float32)
    ours = N.layer_norm(tensor(x, dtype=dtype), 50)
    theirs = F.layer_norm(torch.tensor(x).to(getattr(torch, dtype)), (50,))
    assert ours.dtype.name == dtype
    np.testing.assert_allclose(ours.astype("float32").numpy(), theirs.float().numpy(), rtol=2e-2)


SHAPES = [(6, 4), (2, 4, 3), (2, 4, 3, 2), (300, 4)]


@pytest.mark.parametrize("parameters", [0, 1, 2])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(shape, training, parameters):
    statistics = [random(4, seed=4), random(4, seed=5) ** 2 + 0.5]
    arrays = [random(*shape) + 3, random(4, seed=2), random(4, seed=3)]
    ours = [tensor(a) for a in statistics]
    theirs = [torch.tensor(a) for a in statistics]

    def with_statistics(function: Any, running: Any) -> Any:
        def run(x: Any, *rest: Any) -> Any:
            rest = (*rest, None, None)[:2]
            return function(x, *running, *rest, training, 0.3, 1e-3)

        return run

    compare(
        with_statistics(N.batch_norm, ours),
        with_statistics(F.batch_norm, theirs),
        *arrays[: 1 + parameters],
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 1e-10)


def test_batch_norm_without_running_statistics():
    compare(
        lambda x: N.batch_norm(x, None, None, training=True),
        lambda x: F.batch_norm(x, None, None, training=True),
        random(6, 4),
    )


def test_running_statistics_in_float32():
    """Bit for bit over many batches, but for the order in which a batch is summed."""
    ours = [tensor(np.zeros(4, "f")), tensor(np.ones(4, "f"))]
    theirs = [torch.zeros(4), torch.ones(4)]
    for seed in range(20):
        x = (random(32, 4, seed=seed) * 2 + 1).astype(np.float32)
        N.batch_norm(tensor(x), *ours, training=True)
        F.batch_norm(torch.tensor(x), *theirs, training=True)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 1e-6)


@pytest.mark.parametrize("p", [2, 1, 3.0, float("inf")])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_normalize(p, dim):
    compare(
        lambda x: N.normalize(x, p, dim=dim), lambda x: F.normalize(x, p, dim=dim), random(3, 4, 2)
    )
