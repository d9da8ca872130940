"""The updates of the optimizers, as in-place ops over lists of arrays.

Each follows PyTorch's arithmetic step by step, so that parameters agree to float32 rounding. The
Python loop over parameters is the plain definition; a GPU kernel may take all of them in a launch.
Gradients are never written to. Large arrays are gone through in pieces that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gradlab.ops.core import Op

# Elements of a piece: its operands (5 float32 arrays at most) fit in a core's L2 cache.
PIECE = 1 << 15


def pieces(*arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the arrays, cut alike into pieces of at most `PIECE` elements if they can be."""
    first = arrays[0]
    if first.size <= PIECE or not all(a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, first.size, PIECE):
        yield tuple(a[start : start + PIECE] for a in flat)


def _effective(g: Any, p: Any, weight_decay: float, maximize: bool) -> Any:
    """The gradient to descend along: turned round to maximize, with L2 decay added."""
    if maximize:
        g = -g
    return g + p * weight_decay if weight_decay else g


def _sgd(
    xp: Any, params: Any, grads: Any, buffers: Any, *, lr: float, momentum: float,
    dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first: list[bool],
) -> None:  # fmt: skip
    if not momentum:
        for p_all, g_all in zip(params, grads, strict=True):
            for p, g in pieces(p_all, g_all):
                g = _effective(g, p, weight_decay, maximize)
                xp.subtract(p, g * lr, out=p)
        return
    for p_all, g_all, b_all, new in zip(params, grads, buffers, first, strict=True):
        for p, g, b in pieces(p_all, g_all, b_all):
            g = _effective(g, p, weight_decay, maximize)
            if new:
                b[...] = g
            else:
                xp.multiply(b, momentum, out=b)
                xp.add(b, g if not dampening else g * (1 - dampening), out=b)
            xp.subtract(p, (g + b * momentum if nesterov else b) * lr, out=p)


SGD = Op(
    "sgd_step", _sgd, inputs=("params", "grads", "buffers"), mutates=("params", "buffers")
)  # fmt: skip


def _adam(
    xp: Any, params: Any, grads: Any, means: Any, squares: Any, largest: Any, *, lr: float,
    betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool, amsgrad: bool,
    maximize: bool, steps: list[int],
) -> None:  # fmt: skip
    beta1, beta2 = betas
    for i, step in enumerate(steps):
        rate = lr / (1 - beta1**step)
        root = math.sqrt(1 - beta2**step)
        group = [params[i], grads[i], means[i], squares[i]] + ([largest[i]] if amsgrad else [])
        for p, g, m, v, *top in pieces(*group):
            if decoupled and weight_decay:
                xp.multiply(p, 1 - lr * weight_decay, out=p)
            g = _effective(g, p, 0.0 if decoupled else weight_decay, maximize)
            step_m = g - m
            xp.multiply(step_m, 1 - beta1, out=step_m)
            xp.add(m, step_m, out=m)
            xp.multiply(v, beta2, out=v)
            squared = xp.multiply(g, g, out=step_m)
            xp.multiply(squared, 1 - beta2, out=squared)
            xp.add(v, squared, out=v)
            if amsgrad:
                xp.maximum(top[0], v, out=top[0])
            denominator = xp.sqrt(top[0] if amsgrad else v, out=step_m)
            xp.divide(denominator, root, out=denominator)
            xp.add(denominator, eps, out=denominator)
            xp.divide(m, denominator, out=denominator)
            xp.multiply(denominator, rate, out=denominator)
            xp.subtract(p, denominator, out=p)


ADAM = Op(
    "adam_step",
    _adam,
    inputs=("params", "grads", "means", "squares", "largest"),
    mutates=("params", "means", "squares", "largest"),
)


def _rmsprop(
    xp: Any, params: Any, grads: Any, squares: Any, buffers: Any, means: Any, *, lr: float,
    alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool,
) -> None:  # fmt: skip
    for i in range(len(params)):
        group = [params[i], grads[i], squares[i]]
        group += [buffers[i]] if momentum else []
        group += [means[i]] if centered else []
        for p, g, v, *rest in pieces(*group):
            g = _effective(g, p, weight_decay, maximize)
            xp.multiply(v, alpha, out=v)
            xp.add(v, g * g * (1 - alpha), out=v)
            if centered:
                mean = rest[-1]
                xp.add(mean, (g - mean) * (1 - alpha), out=mean)
                root = xp.sqrt(v - mean * mean)
            else:
                root = xp.sqrt(v)
            xp.add(root, eps, out=root)
            direction = g / root
            if momentum:
                b = rest[0]
                xp.multiply(b, momentum, out=b)
                xp.add(b, direction, out=b)
                direction = b
            xp.subtract(p, direction * lr, out=p)


RMSPROP = Op(
    "rmsprop_step",
    _rmsprop,
    inputs=("params", "grads", "squares", "buffers", "means"),
    mutates=("params", "squares", "buffers", "means"),
)


def _adagrad(
    xp: Any, params: Any, grads: Any, sums: Any, *, lr: float, lr_decay: float, eps: float,
    weight_decay: float, maximize: bool, steps: list[int],
) -> None:  # fmt: skip
    for p_all, g_all, s_all, step in zip(params, grads, sums, steps, strict=True):
        rate = lr / (1 + (step - 1) * lr_decay)
        for p, g, s in pieces(p_all, g_all, s_all):
            g = _effective(g, p, weight_decay, maximize)
            xp.add(s, g * g, out=s)
            root = xp.sqrt(s)
            xp.add(root, eps, out=root)
            xp.subtract(p, g / root * rate, out=p)


ADAGRAD = Op(
    "adagrad_step", _adagrad, inputs=("params", "grads", "sums"), mutates=("params", "sums")
)  # fmt: skip
