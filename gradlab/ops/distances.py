"""Distances of all rows of one matrix from all rows of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops.core import Op, apply, public
from gradlab.ops.elementwise import abs as absolute, sign, where
from gradlab.ops.reduction import VECTOR_NORM, vector_norm
from gradlab.ops.samples import Sample, values
from gradlab.ops.shape import broadcast_to
from gradlab.tensor import Tensor, require_number

# The differences of all pairs take k times the memory of the distances. On the CPU they are made
# for one coordinate at a time, for so many pairs that their sums stay in the cache.
_PAIRS = 1 << 16
# From so few pairs on, calls of NumPy take longer than the work in them.
_FEW_PAIRS = 1 << 10
_ADDED_AT_ONCE = 64  # terms; more, one after another, would lose digits


def _difference(x1: Any, x2: Any, i: int) -> Any:
    return x1[..., :, None, i] - x2[..., None, :, i]


def _add(xp: Any, y: Any, d: Any, p: float) -> None:
    """Take the differences of one coordinate into account, which become anything."""
    if p == 2:
        xp.multiply(d, d, out=d)
    elif p == 0:
        d = d != 0
    else:
        xp.absolute(d, out=d)
        if p == math.inf:
            xp.maximum(y, d, out=y)
            return
        if p != 1:
            xp.power(d, p, out=d)
    xp.add(y, d, out=y)


def _by_coordinate(x1: Any, x2: Any, y: Any, p: float, scale: Any = None) -> Any:
    for start in range(0, x1.shape[-1], _ADDED_AT_ONCE):
        part = np.zeros_like(y)
        for i in range(start, min(start + _ADDED_AT_ONCE, x1.shape[-1])):
            d = _difference(x1, x2, i)
            _add(np, part, d if scale is None else np.divide(d, scale, out=d), p)
        if p == math.inf:
            np.maximum(y, part, out=y)
        else:
            y += part
    return y


def _distances(x1: Any, x2: Any, y: Any, p: float) -> Any:
    if p in (0, 1, math.inf):
        return _by_coordinate(x1, x2, y, p)
    if p == 2:
        return np.sqrt(_by_coordinate(x1, x2, y, p), out=y)
    # Taking out what weighs most, the largest, keeps high powers within range.
    scale = _by_coordinate(x1, x2, np.zeros_like(y), math.inf)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, scale.dtype.type(1))
    total = np.power(_by_coordinate(x1, x2, y, p, scale), 1 / p, out=y)
    return np.multiply(total, scale, out=y)


# Below this share of the squares that it is the difference of, a square is computed directly. It
# leaves more digits of float64 than float32 has.
_NEAR = 2.0**-24


def _by_products(x1: Any, x2: Any, y: Any) -> None:
    """Distances of float32 by ``|x1|² + |x2|² - 2·x1·x2`` in float64, a product that BLAS makes."""
    a, b = x1.astype(np.float64), x2.astype(np.float64)
    sizes = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :]
    squares = np.matmul(a, b.swapaxes(-1, -2))
    squares *= -2
    squares += sizes
    sizes *= _NEAR
    near = ~(squares > sizes)  # true of NaN
    np.sqrt(squares, out=squares)
    y[...] = squares
    for i in _chunks(np.nonzero(near), x1.shape[-1]):
        d = x1[(*i[:-2], i[-2])].astype(np.float64) - x2[(*i[:-2], i[-1])]
        y[i] = np.sqrt((d * d).sum(-1))


def _chunks(indices: tuple[Any, ...], length: int) -> Iterator[tuple[Any, ...]]:
    step = max(1, _PAIRS // max(length, 1))
    for start in range(0, indices[0].size, step):
        yield tuple([each[start : start + step] for each in indices])


def _pulls_by_products(g: Any, x1: Any, x2: Any, needs: tuple[bool, bool]) -> tuple[Any, Any]:
    """The gradients of ``x1`` and ``x2`` for p = 2: sums of differences times ``g``."""
    g, a, b = (each.astype(np.float64) for each in (g, x1, x2))
    g1 = g2 = None
    if needs[0]:
        g1 = a * g.sum(-1)[..., None] - np.matmul(g, b)
    if needs[1]:
        g2 = b * g.sum(-2)[..., None] - np.matmul(g.swapaxes(-1, -2), a)
    return g1, g2


def _blocks(xp: Any, shape: tuple[int, ...]) -> list[slice]:
    """The rows to work on at a time; none where all differences are made at once."""
    pairs = math.prod(shape)
    if xp is not np or pairs < _FEW_PAIRS:
        return []
    step = max(1, _PAIRS * shape[-2] // pairs)
    return [slice(i, i + step) for i in range(0, shape[-2], step)]


def _cdist_forward(xp: Any, x1: Any, x2: Any, *, p: float) -> Any:
    shape = (*x1.shape[:-1], x2.shape[-2])
    blocks = _blocks(xp, shape)
    if not blocks:
        d = x1[..., :, None, :] - x2[..., None, :, :]
        if p == 0:
            return (d != 0).sum(axis=-1).astype(d.dtype)
        if not d.size:
            return xp.zeros(shape, d.dtype)
        options = {"axis": (d.ndim - 1,), "keepdims": False, "ord": p}
        return VECTOR_NORM.forward(xp, d, **options)  # type: ignore[operator]
    y = np.zeros(shape, x1.dtype)
    for rows in blocks:
        if p == 2 and x1.dtype == np.float32:
            _by_products(x1[..., rows, :], x2, y[..., rows, :])
            continue
        _distances(x1[..., rows, :], x2, y[..., rows, :], p)
    return y


def _over(gy: Tensor, y: Tensor) -> Tensor:
    return where(y == 0, 0.0, gy) / where(y == 0, 1.0, y)


def _pulls(gy: Tensor, x1: Tensor, x2: Tensor, y: Tensor, p: float) -> Tensor:
    """The gradient of the differences (…, m, n, k)."""
    d = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    if p == 2:
        return d * _over(gy, y).unsqueeze(-1)
    if p == 1:
        return sign(d) * gy.unsqueeze(-1)
    if p == 0:
        return d * 0
    y = y.unsqueeze(-1)
    if p == math.inf:
        largest = ((absolute(d) == y) & (d != 0)).astype(d.dtype)
        return sign(d) * (largest / largest.sum(-1, True).clamp(min=1)) * gy.unsqueeze(-1)
    ratio = where(d == 0, 1.0, absolute(d)) / where(y == 0, 1.0, y)
    return where(y == 0, 0.0, gy.unsqueeze(-1)) * sign(d) * ratio ** (p - 1)


def _pull(xp: Any, d: Any, g: Any, y: Any, p: float) -> Any:
    """The gradient of differences; ``g`` and ``y`` as prepared for it."""
    if p == 2:
        return xp.multiply(d, g, out=d)
    if p == math.inf:
        return xp.sign(d) * (xp.absolute(d) == y) * g
    if p != 1:
        size = xp.absolute(d)
        g = g * (xp.where(size == 0, size.dtype.type(1), size) / y) ** (p - 1)
    return xp.multiply(xp.sign(d, out=d), g, out=d)


def _prepared(xp: Any, g: Any, y: Any, p: float, ties: Callable[[], Any]) -> tuple[Any, Any]:
    """What the gradients of all coordinates are multiples of."""
    if p == 1:
        return g, y
    safe = xp.where(y == 0, y.dtype.type(1), y)
    g = xp.where(y == 0, g.dtype.type(0), g)
    if p == 2:
        return g / safe, y
    if p == math.inf:  # equal ones share
        return g / xp.maximum(ties(), 1).astype(g.dtype), y
    return g, safe


def _ties(x1: Any, x2: Any, y: Any) -> Any:
    count = np.zeros_like(y)
    for i in range(x1.shape[-1]):
        count += np.abs(_difference(x1, x2, i)) == y
    return count


def _cdist_backward(
    xp: Any, gy: Any, x1: Any, x2: Any, y: Any, *, needs: tuple[bool, bool], p: float
) -> Any:
    g1, g2 = xp.zeros(x1.shape, x1.dtype), xp.zeros(x2.shape, x2.dtype)
    if p == 0 or not y.size:
        return g1, g2
    if xp is not np:  # few launches
        d = x1[..., :, None, :] - x2[..., None, :, :]
        g, size = _prepared(xp, gy, y, p, lambda: (xp.absolute(d) == y[..., None]).sum(-1))
        pull = _pull(xp, d, g[..., None], size[..., None], p)
        return pull.sum(-2) if needs[0] else None, -pull.sum(-3) if needs[1] else None
    step = max(1, _PAIRS * y.shape[-2] // y.size)
    for start in range(0, y.shape[-2], step):
        rows = slice(start, start + step)
        part, y_part = x1[..., rows, :], y[..., rows, :]
        g, size = _prepared(np, gy[..., rows, :], y_part, p, partial(_ties, part, x2, y_part))
        if p == 2 and x1.dtype == np.float32:
            part1, part2 = _pulls_by_products(g, part, x2, needs)
            if needs[0]:
                g1[..., rows, :] = part1
            if needs[1]:
                g2 += part2
            continue
        for i in range(x1.shape[-1]):
            pull = _pull(np, _difference(part, x2, i), g, size, p)
            if needs[0]:
                g1[..., rows, i] = pull.sum(-1)
            if needs[1]:
                g2[..., i] -= pull.sum(-2)
    return g1, g2


def _cdist_samples() -> Iterator[Sample]:
    a, b = values((3, 4)), values((5, 4), seed=1)
    for p in (2.0, 1.0, math.inf, 3.0, 1.5, 0.0):
        yield Sample((a, b, p), {}, f"p={p}")
        large = (values((40, 5)), values((70, 5), seed=1), p)
        yield Sample(large, {}, f"p={p}, large", large=True)
    yield Sample((values((2, 1, 3, 4)), values((2, 5, 4), seed=1)), {}, "batches that broadcast")
    yield Sample((values((2, 30, 100)), values((2, 40, 100), seed=1)), {}, "wide", large=True)
    yield Sample((a, np.concatenate([a[:1], b])), {}, "a distance of 0", smooth=False)
    yield Sample((values((0, 4)), b), {}, "no rows")
    yield Sample((values((2, 0)), values((3, 0))), {}, "no coordinates")


CDIST = Op(
    "cdist",
    _cdist_forward,
    inputs=("x1", "x2"),
    gradients={
        "x1": lambda gy, x1, x2, y, p: _pulls(gy, x1, x2, y, p).sum(-2),
        "x2": lambda gy, x1, x2, y, p: -_pulls(gy, x1, x2, y, p).sum(-3),
    },
    kinds="fV",
    halves=True,
    fused=Op("cdist_backward", _cdist_backward, inputs=("gy", "x1", "x2", "y"), halves=True),
    samples=_cdist_samples,
)


@public(CDIST)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """Return the p-norm distance of each row of ``x1`` (…, m, k) from each of ``x2`` (…, n, k).

    The result has the shape (…, m, n). ``p`` is 0 or more, or infinity; 0 counts the coordinates
    that differ. The gradient of a distance of 0 is 0.

    >>> cdist(gl.tensor([[0.0, 0.0], [3.0, 0.0]]), gl.tensor([[3.0, 4.0]]))
    tensor([[5.],
            [4.]])
    """
    if min(x1.ndim, x2.ndim) < 2 or x1.shape[-1] != x2.shape[-1]:
        got = f"shapes {x1.shape} and {x2.shape}"
        raise ShapeError(message("cdist", expected="rows of the same length", got=got))
    order = require_number("cdist", p, " as p")
    if not order >= 0:
        raise OptionError(message("cdist", expected="p of 0 or more", got=str(p)))
    if x1.is_complex() or x2.is_complex():
        return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), order, -1)
    try:
        batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    except ValueError:
        got = f"shapes {x1.shape} and {x2.shape}"
        raise ShapeError(message("cdist", expected="batches that broadcast", got=got)) from None
    dtype = dtypes.result_type(x1.dtype, x2.dtype)
    given = [broadcast_to(x.astype(dtype, copy=False), (*batch, *x.shape[-2:])) for x in (x1, x2)]
    return apply(CDIST, given, {"p": order})
