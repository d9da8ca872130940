"""The updates of the optimizers, as in-place ops over lists of arrays.

Each follows PyTorch's arithmetic step by step, so that parameters agree to float32 rounding. The
Python loop over parameters is the plain definition; a GPU kernel takes all of them in a launch,
with the same roundings (``kernels/cuda/update.cu``). Gradients are never written to. A float16 or
bfloat16 parameter is updated in float32 and rounded once, at the end; its state is float32
(`state_dtype`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gradlab.dtypes import HALVES, DType, float32
from gradlab.kernels.cuda import driver, update as cuda
from gradlab.ops.core import Kernel, Op

# Elements of a piece. The operands of one (five float32 arrays of 1 MiB at most) stay in a shared
# cache from one pass over them to the next. Adam on an EPYC with 32 MiB of L3, as a share of the
# time that whole arrays take: 1.0 for 200,704 elements, 0.65 for 4 million, 0.5 for 16 million;
# pieces of 1 << 15 elements take 1.1, 0.7 and 0.55.
PIECE = 1 << 18

# Up to here a temporary comes from the allocator, which beats slicing one that is kept. Beyond,
# an allocator may take fresh memory from the system at every step: with malloc's mmap or trim
# threshold fixed at 128 KiB, page faults made the Adam update of an MLP 784-256-10 take 2.5 times
# as long. (Under glibc's defaults, which adapt, both ways take the same time.)
SMALL = 1 << 14


def state_dtype(dtype: DType) -> DType:
    """The dtype in which an optimizer keeps its state for a parameter of ``dtype``."""
    return float32 if dtype in HALVES else dtype


class _Kept(threading.local):
    """Two temporaries of `PIECE` elements per dtype, kept by each thread between steps."""

    def __init__(self) -> None:
        self.arrays: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

    def like(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both temporaries in the shape of ``piece``."""
        pair = self.arrays.get(piece.dtype)
        if pair is None:
            pair = np.empty(PIECE, piece.dtype), np.empty(PIECE, piece.dtype)
            self.arrays[piece.dtype] = pair
        first, second = pair
        size, shape = piece.size, piece.shape
        return first[:size].reshape(shape), second[:size].reshape(shape)


_kept = _Kept()


def walk(xp: Any, *lists: Any) -> Iterator[tuple[Any, ...]]:
    """Yield ``(i, p, g, *states, t, u)`` for each parameter, or for each piece of a large one.

    ``t`` and ``u`` are temporaries to be given as ``out=``; None, which lets the array library
    allocate, where that is quicker.
    """
    for i, arrays in enumerate(zip(*lists, strict=True)):
        p = arrays[0]
        if p.itemsize < 4:  # float16, bfloat16
            wide = [a.astype(float32) for a in arrays[:2]]
            yield from _pieces(xp, i, [*wide, *arrays[2:]])
            p[...] = wide[0]
        elif p.size <= SMALL and p.ndim:
            yield i, *arrays, None, None
        else:
            yield from _pieces(xp, i, arrays)


def _pieces(xp: Any, i: int, arrays: Any) -> Iterator[tuple[Any, ...]]:
    if arrays[0].ndim == 0:
        arrays = [a.reshape(1) for a in arrays]  # NumPy gives scalars, not arrays, without axes
    size, rows = arrays[0].size, len(arrays[0])
    if xp is not np or size <= SMALL:  # on a GPU each piece would be a launch more
        yield i, *arrays, None, None
        return
    if size > PIECE and all(a.flags.c_contiguous for a in arrays):
        arrays = [a.reshape(-1) for a in arrays]
        rows = size
    # Other layouts are cut along the first axis; a row larger than a piece stays whole.
    height = max(1, PIECE * rows // size)
    for start in range(0, rows, height):
        piece = [a[start : start + height] for a in arrays]
        fits = piece[0].size <= PIECE
        yield i, *piece, *(_kept.like(piece[0]) if fits else (None, None))


@lru_cache(maxsize=256)  # parameters of one dtype share them, from step to step but for Adam's
def _scalars(xp: Any, dtype: DType, *values: float) -> tuple[Any, ...]:
    """The scalars of an update, for arrays of ``dtype``.

    As arrays without axes they spare NumPy the conversion of a Python float in every call, 0.27 of
    its 0.6 µs, and round alike.
    """
    return tuple(np.array(v, dtype) if xp is np else v for v in values)


def _effective(xp: Any, g: Any, p: Any, decay: Any, maximize: bool, out: Any) -> Any:
    """The gradient to descend along: turned round to maximize, with L2 decay added if any."""
    if decay is None:
        return xp.negative(g, out=out) if maximize else g
    out = xp.multiply(p, decay, out=out)
    return xp.subtract(out, g, out=out) if maximize else xp.add(g, out, out=out)


def _average(xp: Any, mean: Any, g: Any, keep: Any, new: Any, out: Any) -> Any:
    """Move the running ``mean`` to ``keep·mean + new·g``; returns the temporary it used."""
    out = xp.subtract(g, mean, out=out)
    if new < 0.5:
        xp.multiply(out, new, out=out)
        xp.add(mean, out, out=mean)
    else:  # so that new = 1 gives g itself, whatever the mean was
        xp.multiply(out, keep, out=out)
        xp.subtract(g, out, out=mean)
    return out


def _decayed_sum(xp: Any, mean: Any, value: Any, keep: Any, new: Any) -> None:
    """Move ``mean`` to ``keep·mean + new·value``; ``value`` is used up."""
    xp.multiply(mean, keep, out=mean)
    xp.multiply(value, new, out=value)
    xp.add(mean, value, out=mean)


def _multi_tensor(plain: Callable[..., None], step: Callable[..., None]) -> Kernel:
    """``step`` for all parameters that a kernel can update, ``plain`` for what is left."""

    def run(*lists: Any, **options: Any) -> None:
        used = [each for each in lists if each]
        fit = [cuda.fits(*arrays) for arrays in zip(*used, strict=True)]
        if all(fit):
            step(*lists, **options)
            return
        for function, wanted in ((step, True), (partial(plain, driver.current().xp), False)):
            chosen = [i for i, each in enumerate(fit) if each is wanted]
            # `steps` and `first` are lists too: an entry per parameter, where they are in use.
            some = {
                name: [value[i] for i in chosen] if isinstance(value, list) and value else value
                for name, value in options.items()
            }
            function(*[[each[i] for i in chosen] if each else each for each in lists], **some)

    return Kernel("cuda", "update", accepts=lambda *_, **__: True, run=run)


def _sgd(
    xp: Any, params: Any, grads: Any, buffers: Any, *, lr: float, momentum: float,
    dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first: list[bool],
) -> None:  # fmt: skip
    if not momentum:
        for _, p, g, t, _ in walk(xp, params, grads):
            rate, decay = _scalars(xp, p.dtype, lr, weight_decay)
            if weight_decay or maximize:
                g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
            t = xp.multiply(g, rate, out=t)
            xp.subtract(p, t, out=p)
        return
    for i, p, g, b, t, u in walk(xp, params, grads, buffers):
        rate, decay, keep, new = _scalars(xp, p.dtype, lr, weight_decay, momentum, 1 - dampening)
        if weight_decay or maximize:
            g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
        if first[i]:
            b[...] = g
        else:
            xp.multiply(b, keep, out=b)
            xp.add(b, xp.multiply(g, new, out=u) if dampening else g, out=b)
        step = b
        if nesterov:
            u = xp.multiply(b, keep, out=u)
            step = xp.add(g, u, out=u)
        u = xp.multiply(step, rate, out=u)
        xp.subtract(p, u, out=p)


SGD = Op(
    "sgd_step",
    _sgd,
    inputs=("params", "grads", "buffers"),
    mutates=("params", "buffers"),
    kernels=[_multi_tensor(_sgd, cuda.sgd)],
)


def _adam(
    xp: Any, params: Any, grads: Any, means: Any, squares: Any, largest: Any, *, lr: float,
    betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool, amsgrad: bool,
    maximize: bool, steps: list[int],
) -> None:  # fmt: skip
    beta1, beta2 = betas
    fixed = beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, 1 - lr * weight_decay
    l2 = bool(weight_decay) and not decoupled
    tops = largest if amsgrad else squares
    for i, p, g, m, v, top, t, u in walk(xp, params, grads, means, squares, tops):
        step = steps[i]
        unbiased = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
        rate, root, keep1, new1, keep2, new2, epsilon, decay, shrink = _scalars(
            xp, p.dtype, *unbiased, *fixed
        )
        if weight_decay and decoupled:
            xp.multiply(p, shrink, out=p)
        if l2 or maximize:
            g = _effective(xp, g, p, decay if l2 else None, maximize, t)
        u = _average(xp, m, g, keep1, new1, u)
        xp.multiply(g, g, out=u)
        _decayed_sum(xp, v, u, keep2, new2)
        if amsgrad:
            xp.maximum(top, v, out=top)
        xp.sqrt(top, out=u)
        xp.divide(u, root, out=u)
        xp.add(u, epsilon, out=u)
        xp.divide(m, u, out=u)
        xp.multiply(u, rate, out=u)
        xp.subtract(p, u, out=p)


ADAM = Op(
    "adam_step",
    _adam,
    inputs=("params", "grads", "means", "squares", "largest"),
    mutates=("params", "means", "squares", "largest"),
    kernels=[_multi_tensor(_adam, cuda.adam)],
)


def _rmsprop(
    xp: Any, params: Any, grads: Any, squares: Any, buffers: Any, means: Any, *, lr: float,
    alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool,
) -> None:  # fmt: skip
    # `squares` stands in for lists that are not in use, so that each parameter has one of each.
    buffers = buffers if momentum else squares
    means = means if centered else squares
    values = lr, weight_decay, alpha, 1 - alpha, eps, momentum
    for _, p, g, v, b, mean, t, u in walk(xp, params, grads, squares, buffers, means):
        rate, decay, keep, new, epsilon, share = _scalars(xp, p.dtype, *values)
        if weight_decay or maximize:
            g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
        u = xp.multiply(g, g, out=u)
        _decayed_sum(xp, v, u, keep, new)
        if centered:
            _average(xp, mean, g, keep, new, u)
            xp.multiply(mean, mean, out=u)
            xp.subtract(v, u, out=u)
            xp.sqrt(u, out=u)
        else:
            xp.sqrt(v, out=u)
        xp.add(u, epsilon, out=u)
        xp.divide(g, u, out=u)
        if momentum:
            xp.multiply(b, share, out=b)
            xp.add(b, u, out=b)
            xp.multiply(b, rate, out=u)
        else:
            xp.multiply(u, rate, out=u)
        xp.subtract(p, u, out=p)


RMSPROP = Op(
    "rmsprop_step",
    _rmsprop,
    inputs=("params", "grads", "squares", "buffers", "means"),
    mutates=("params", "squares", "buffers", "means"),
    kernels=[_multi_tensor(_rmsprop, cuda.rmsprop)],
)


def _adagrad(
    xp: Any, params: Any, grads: Any, sums: Any, *, lr: float, lr_decay: float, eps: float,
    weight_decay: float, maximize: bool, steps: list[int],
) -> None:  # fmt: skip
    for i, p, g, s, t, u in walk(xp, params, grads, sums):
        decayed = lr / (1 + (steps[i] - 1) * lr_decay)
        rate, decay, epsilon = _scalars(xp, p.dtype, decayed, weight_decay, eps)
        if weight_decay or maximize:
            g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
        u = xp.multiply(g, g, out=u)
        xp.add(s, u, out=s)
        xp.sqrt(s, out=u)
        xp.add(u, epsilon, out=u)
        xp.divide(g, u, out=u)
        xp.multiply(u, rate, out=u)
        xp.subtract(p, u, out=p)


ADAGRAD = Op(
    "adagrad_step",
    _adagrad,
    inputs=("params", "grads", "sums"),
    mutates=("params", "sums"),
    kernels=[_multi_tensor(_adagrad, cuda.adagrad)],
)


def _adadelta(
    xp: Any, params: Any, grads: Any, squares: Any, deltas: Any, *, lr: float, rho: float,
    eps: float, weight_decay: float, maximize: bool,
) -> None:  # fmt: skip
    for _, p, g, v, d, t, u in walk(xp, params, grads, squares, deltas):
        rate, decay, keep, new, epsilon = _scalars(xp, p.dtype, lr, weight_decay, rho, 1 - rho, eps)
        if weight_decay or maximize:
            g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
        u = xp.multiply(g, g, out=u)
        _decayed_sum(xp, v, u, keep, new)
        xp.add(v, epsilon, out=u)
        xp.sqrt(u, out=u)
        xp.divide(g, u, out=u)
        t = xp.add(d, epsilon, out=t)
        xp.sqrt(t, out=t)
        xp.multiply(u, t, out=u)
        xp.multiply(u, u, out=t)
        _decayed_sum(xp, d, t, keep, new)
        xp.multiply(u, rate, out=u)
        xp.subtract(p, u, out=p)


ADADELTA = Op(
    "adadelta_step",
    _adadelta,
    inputs=("params", "grads", "squares", "deltas"),
    mutates=("params", "squares", "deltas"),
)


def _adamax(
    xp: Any, params: Any, grads: Any, means: Any, largest: Any, *, lr: float,
    betas: tuple[float, float], eps: float, weight_decay: float, maximize: bool, steps: list[int],
) -> None:  # fmt: skip
    beta1, beta2 = betas
    for i, p, g, m, top, t, u in walk(xp, params, grads, means, largest):
        rate, keep1, new1, keep2, epsilon, decay = _scalars(
            xp, p.dtype, lr / (1 - beta1 ** steps[i]), beta1, 1 - beta1, beta2, eps, weight_decay
        )
        if weight_decay or maximize:
            g = _effective(xp, g, p, decay if weight_decay else None, maximize, t)
        u = _average(xp, m, g, keep1, new1, u)
        xp.multiply(top, keep2, out=top)
        xp.absolute(g, out=u)
        xp.add(u, epsilon, out=u)
        xp.maximum(top, u, out=top)
        xp.divide(m, top, out=u)
        xp.multiply(u, rate, out=u)
        xp.subtract(p, u, out=p)


ADAMAX = Op(
    "adamax_step",
    _adamax,
    inputs=("params", "grads", "means", "largest"),
    mutates=("params", "means", "largest"),
)
