"""The error of sums beside PyTorch's: at most a few times as large, along any axes.

Errors are measured in roundings of ``Σ|x|``, of 2^-24 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlab as gl

torch = pytest.importorskip("torch")

ROUNDING = 2.0**-24
# What a sum of blocks of 64 may lose where PyTorch's own blocks happen to lose nothing.
LEAST = {"random": 3, "third": 16, "heavy": 16}

PATTERNS = [
    ((6000,), (0,)), ((6000, 2), (0,)), ((6000, 40), (0,)), ((2, 6000), (1,)), ((3, 6000, 2), (1,)),
    ((90, 90, 3), (0, 1)), ((90, 3, 90), (0, 2)), ((3, 90, 90), (1, 2)), ((20, 20, 20), (0, 1, 2)),
]  # fmt: skip


def values(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    if kind == "random":
        return np.random.default_rng(0).random(shape, np.float32)
    if kind == "third":  # rounds to the same side again and again
        return np.full(shape, 1 / 3, np.float32)
    x = np.ones(shape, np.float32)
    x[tuple(0 if i in axes else slice(None) for i in range(len(shape)))] = 2**24
    return x


OPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (lambda x, axes: x.sum(axes), lambda x, axes: x.sum(axes)),
    "mean": (lambda x, axes: x.mean(axes), lambda x, axes: x.mean(axes)),
    "nansum": (lambda x, axes: gl.nansum(x, axes), lambda x, axes: x.nansum(axes)),
    "nanmean": (lambda x, axes: gl.nanmean(x, axes), lambda x, axes: x.nanmean(axes)),
    "norm1": (
        lambda x, axes: gl.norm(x, 1, axes),
        lambda x, axes: torch.linalg.vector_norm(x, 1, axes),
    ),
    "sum of a part": (lambda x, axes: x[1:].sum(axes), lambda x, axes: x[1:].sum(axes)),
    "sum backwards": (
        lambda x, axes: gl.flip(x, axes).sum(axes),
        lambda x, axes: x.flip(axes).sum(axes),
    ),
    "gradient of a broadcast": (
        lambda x, axes: _broadcast(gl, gl.from_numpy, x, axes),
        lambda x, axes: _broadcast(torch, torch.from_numpy, x, axes),
    ),
}


def _broadcast(library: Any, convert: Any, x: Any, axes: tuple[int, ...]) -> Any:
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    small = library.zeros(shape, requires_grad=True)
    (small + library.zeros(tuple(x.shape))).backward(x)
    return small.grad.reshape([n for i, n in enumerate(x.shape) if i not in axes])


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(("shape", "axes"), PATTERNS)
def test_error_of_sums(shape: tuple[int, ...], axes: tuple[int, ...], name: str, kind: str) -> None:
    x = values(kind, shape, axes)
    used = x[1:] if name == "sum of a part" else x
    exact = used.sum(axes, dtype=np.float64)
    if "mean" in name:
        exact = exact / math.prod(shape[i] for i in axes)
    for turned in (x, np.asfortranarray(x)):
        ours, theirs = OPS[name]
        errors = [
            float(np.max(np.abs(y.numpy().astype(np.float64) - exact) / exact)) / ROUNDING
            for y in (ours(gl.from_numpy(turned), axes), theirs(torch.from_numpy(turned), axes))
        ]
        assert errors[0] <= 4 * max(errors[1], LEAST[kind]), errors


@pytest.mark.parametrize("at", [0, 100, 1e4])
@pytest.mark.parametrize(("shape", "axes"), PATTERNS)
def test_error_of_variances(shape: tuple[int, ...], axes: tuple[int, ...], at: float) -> None:
    x = (np.random.default_rng(0).standard_normal(shape) + at).astype(np.float32)
    exact = x.astype(np.float64).var(axes, ddof=1)
    errors = [
        float(np.max(np.abs(y.numpy().astype(np.float64) - exact) / exact)) / ROUNDING
        for y in (gl.from_numpy(x).var(axes), torch.from_numpy(x).var(axes))
    ]
    assert errors[0] <= 4 * max(errors[1], 3), errors


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize("features", [1, 2, 40])
def test_error_of_a_layer(features: int, kind: str) -> None:
    gy = np.ascontiguousarray(np.broadcast_to(values(kind, (20_000, 1), (0,)), (20_000, features)))
    exact = gy[:, 0].sum(dtype=np.float64)
    errors = []
    for library, convert in ((gl, gl.from_numpy), (torch, torch.from_numpy)):
        layer = library.nn.Linear(3, features)
        layer(library.ones(20_000, 3)).backward(convert(gy.copy()))
        for gradient in (layer.bias.grad, layer.weight.grad):
            error = np.abs(gradient.numpy().astype(np.float64) - exact).max() / exact
            errors.append(float(error) / ROUNDING)
    (bias, weight), (their_bias, their_weight) = errors[:2], errors[2:]
    assert bias <= 4 * max(their_bias, LEAST[kind])
    assert weight <= 4 * max(their_weight, LEAST[kind])
