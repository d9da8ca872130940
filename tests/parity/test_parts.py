"""Tensors taken apart, put together and written piece by piece: gradients beside PyTorch's."""

from __future__ import annotations

import random

import numpy as np
import pytest

import gradlab as gl

torch = pytest.importorskip("torch")


def _read(lib, draw, x):
    i, j = draw.randrange(4), draw.randrange(4)
    return draw.choice(
        [
            lambda: x[i],
            lambda: x[:, j],
            lambda: x[i:, j].sum() + x[j],
            lambda: x.unbind(1)[j],
            lambda: x.split([1, 3])[0].reshape(-1),
            lambda: x.T[i],
            lambda: x.unsqueeze(0).permute(2, 0, 1)[j, 0],
            lambda: x.T.reshape(2, 8)[0][i : i + 4],
            lambda: x.T[:3].diagonal(1)[:2].sum() + x.T.diagonal(1).sum(),
            lambda: x.diagonal(),
            lambda: x[lib.tensor([i, i, j, 0]), j],
            lambda: x.clone().gather(1, lib.tensor([[i], [j], [i], [0]])).reshape(-1),
            lambda: lib.index_select(x, 0, lib.tensor([i, i])).sum(0),
            lambda: lib.stack(list(x), 1)[i],
            lambda: lib.cat([x[i : i + 1], x[j : j + 1]]).sum(0),
            lambda: x.sum(0),
            lambda: x.reshape(2, 8)[i // 2, j : j + 4],
        ]
    )()


def _write(lib, draw, y, value):
    i, j = draw.randrange(4), draw.randrange(4)
    kind = draw.randrange(6)
    if kind == 0:
        y[i] = value
    elif kind == 1:
        y[:, j] = value
    elif kind == 2:
        y[i].sub_(value)
    elif kind == 3:
        y.T[j].add_(value)
    elif kind == 4:
        y.view(16)[i : i + 4] = value
    else:
        y[i : i + 1].mul_(2)


def _program(lib, seed, x):
    draw = random.Random(seed)
    y = x * 1.5
    z = x * 2.5
    collected = []
    for _ in range(draw.randrange(3, 9)):
        source = draw.choice([x, y, z])
        value = _read(lib, draw, source) * draw.choice([0.5, 1.0, -1.0])
        collected.append((value * value).sum())
        if draw.random() < 0.6:
            _write(lib, draw, draw.choice([y, z]), _read(lib, draw, x) * 0.7)
    return lib.stack(collected).sum() + (y * y).sum() + z.sum()


def _gradients(lib, seed, values, order):
    x = lib.tensor(values, requires_grad=True)
    loss = _program(lib, seed, x)
    if order == 1:
        loss.backward()
        return [x.grad.numpy()]
    (gx,) = lib.autograd.grad(loss, x, create_graph=True)
    (gx * gx).sum().backward()
    return [gx.detach().numpy(), x.grad.numpy()]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed, order):
    values = np.random.default_rng(seed).standard_normal((4, 4))
    ours = _gradients(gl, seed, values, order)
    theirs = _gradients(torch, seed, values, order)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
