"""Draws of classes by their weights, and of 0 and 1 by their probability.

All draws by weights, those of `multinomial`, of samplers and of distributions, look a uniform up
among cumulated weights, or without replacement take the largest of perturbed ones (Gumbel-max).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.devices import find_device
from gradlab.errors import DTypeError, OptionError, ShapeError, message
from gradlab.ops.core import Op, apply, public, widened
from gradlab.ops.elementwise import where
from gradlab.ops.random import Generator, rand
from gradlab.ops.samples import Sample, values
from gradlab.ops.sorting import TOPK, find_places
from gradlab.tensor import Tensor, from_value, require_integer


def _times_power(xp: Any, x: Any, exponent: Any) -> Any:
    """``ldexp(x, exponent)``, which takes five times as long; in two steps, as 2¹⁰⁷⁴ is none."""
    half = exponent // 2
    y = x * xp.ldexp(1.0, half)
    return xp.multiply(y, xp.ldexp(1.0, exponent - half), out=y)


def _choose_forward(xp: Any, weights: Any, u: Any) -> Any:
    # In integers that add up to less than 2⁶², whose sums are exact: a class of weight 0 has no
    # width that rounding could give it, however many there are, and all devices agree.
    _, exponent = xp.frexp(xp.max(weights, axis=-1, keepdims=True))
    scaled = _times_power(xp, weights, -exponent)
    _, exponent = xp.frexp(xp.sum(scaled, axis=-1, keepdims=True))
    upper = xp.cumsum(_times_power(xp, scaled, 61 - exponent).astype(dtypes.int64), axis=-1)
    total = upper[..., -1:]
    places = xp.minimum((u * total).astype(dtypes.int64), total - 1)
    found = find_places(xp, upper, places, "right")
    return xp.minimum(found, weights.shape[-1] - 1)  # weights of no distribution, on a GPU


def _choose_samples() -> Iterator[Sample]:
    for shape, count in (((3,), 4), ((2, 5), 3), ((2, 1, 3), 2), ((1, 300), 7)):
        u = values((*shape[:-1], count), low=0.0, high=0.99)
        yield Sample((values(shape, seed=1, low=0.1), u), {}, f"{count} of {shape}")


# The first class whose cumulated weight is above u, a uniform, times their sum.
CHOOSE = Op(
    "choose",
    _choose_forward,
    inputs=("weights", "u"),
    why_not="its result is integer",
    samples=_choose_samples,
)


@public(CHOOSE)
def choose(weights: Tensor, u: Tensor) -> Tensor:
    """Return class numbers for uniforms ``u`` (…, n) by the weights (…, k) of their row."""
    return apply(CHOOSE, tuple(x.detach().astype(dtypes.float64) for x in (weights, u)))


def require_weights(
    operation: str, weights: Tensor, distinct: int | None = None, hint: str = ""
) -> None:
    """Refuse weights, along the last axis, that are no distribution, or have fewer than
    ``distinct`` classes that can be drawn. On a GPU this would wait for the values."""
    if dtypes.is_complex(weights.dtype):
        raise DTypeError(message(operation, expected="real weights", got=weights.dtype.name))
    if not weights.ndim or not weights.shape[-1]:
        expected, got = "one weight per class along the last axis", f"shape {weights.shape}"
        raise ShapeError(message(operation, expected=expected, got=got))
    if distinct is not None and distinct > weights.shape[-1]:
        raise _too_many(operation, weights.shape[-1], distinct)
    if weights.device.type != "cpu" or not weights.numel():
        return
    array = widened(weights._array)  # NumPy warns of a NaN among bfloat16
    if not (array.min() >= 0 and array.max() < math.inf):
        place = tuple(map(int, np.argwhere(~((array >= 0) & (array < math.inf)))[0]))
        got = f"{array[place]} at {list(place)}"
        raise OptionError(
            message(operation, expected="finite weights of 0 or more", got=got, hint=hint)
        )
    most = array.max(axis=-1)
    if not most.all():
        place = tuple(map(int, np.argwhere(most == 0)[0]))
        got = f"only zeros in row {list(place)}" if place else "only zeros"
        raise OptionError(message(operation, expected="a weight above 0", got=got, hint=hint))
    if distinct is not None:
        can_be_drawn = int(np.count_nonzero(array, axis=-1).min())
        if distinct > can_be_drawn:
            raise _too_many(operation, can_be_drawn, distinct)


def _too_many(operation: str, most: int, distinct: int) -> OptionError:
    expected = f"at most {most} samples without replacement, one per class of weight above 0"
    hint = "draw with replacement"
    return OptionError(message(operation, expected=expected, got=str(distinct), hint=hint))


@public(None, "multinomial")
def multinomial(
    weights: Tensor, num_samples: int, replacement: bool = False, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw ``num_samples`` class numbers, int64, with probabilities proportional to ``weights``.

    ``weights`` (…, k), 0 or more, need not sum to 1; each row is drawn from by itself. With
    replacement a class is looked up among the cumulated weights; without, those of the largest
    ``log(w) + Gumbel noise`` are taken. A class of weight 0 is never drawn.

    Raises `OptionError` where weights are negative, infinite, NaN or all 0, and where fewer classes
    than ``num_samples`` can be drawn without replacement. On a GPU the values are not looked at,
    as that would wait for them: rows that are no distribution give class numbers from 0 to k - 1
    that mean nothing, and classes of weight 0 come after all others.

    >>> multinomial(gl.tensor([0.0, 1.0, 0.0]), 3, replacement=True)
    tensor([1, 1, 1])
    """
    weights = from_value(weights, find_device(None), operation="multinomial")
    count = require_integer("multinomial", "num_samples", num_samples)
    require_weights("multinomial", weights, None if replacement else count)
    if replacement:
        shape = (*weights.shape[:-1], count)
        u = rand(shape, generator=generator, dtype="float64", device=weights.device)
        return choose(weights, u)
    u = rand(weights.shape, generator=generator, dtype="float64", device=weights.device)
    noise = -(-(u.log())).log()
    wide = weights.detach().astype("float64")
    # Above -inf, the score of weight 0, also where u is 0.
    scores = where(wide > 0, wide.log() + noise.clamp(min=-1e300), -math.inf)
    options = {"k": count, "axis": weights.ndim - 1, "largest": True, "ordered": True}
    found: Tensor = apply(TOPK, (scores,), options)
    return found


def draw_classes(probs: Tensor, sample_shape: tuple[int, ...]) -> Tensor:
    """Class numbers, int64, of the shape ``sample_shape`` and then the batch of ``probs``."""
    batch = probs.shape[:-1]
    u = rand((*sample_shape, *batch), dtype=dtypes.float64, device=probs.device)
    rows = u.reshape(-1, *batch).movedim(0, -1)  # each row of the batch searches for its own
    return choose(probs, rows).movedim(-1, 0).reshape(u.shape)


# ---------------------------------------------------------------------------------- Bernoulli


def require_probabilities(operation: str, p: Any) -> None:
    """Refuse numbers outside [0, 1]; of a tensor on a GPU, which would wait, none."""
    if isinstance(p, Tensor):
        if dtypes.is_complex(p.dtype):
            raise DTypeError(message(operation, expected="real probabilities", got=p.dtype.name))
        if p.device.type != "cpu":
            return
        array = widened(p._array)
    else:
        array = np.asarray(p)
    good = (array >= 0) & (array <= 1)
    if not good.all():
        place = tuple(map(int, np.argwhere(~good)[0]))
        got = f"{array[place]}" + (f" at {list(place)}" if place else "")
        raise OptionError(message(operation, expected="probabilities from 0 to 1", got=got))


def toss(
    operation: str, p: Any, shape: tuple[int, ...], device: Any, generator: Generator | None
) -> Tensor:
    """True with probability ``p``, of the given shape."""
    require_probabilities(operation, p)
    # A uniform of float32 is below 2⁻²⁵ as often as below 2⁻²⁴; a Python number is a float64.
    narrow = isinstance(p, Tensor) and p.dtype != dtypes.float64
    dtype = dtypes.float32 if narrow else dtypes.float64
    return rand(shape, generator=generator, dtype=dtype, device=device) < p


@public(None, "bernoulli")
def bernoulli(p: Any, *, generator: Generator | None = None) -> Tensor:
    """Draw 1 with probability ``p``, element by element, else 0; the dtype of ``p``.

    Raises `OptionError` for a ``p`` outside [0, 1] (on a GPU, where that would wait for the values,
    below 0 counts as 0 and above 1 as 1).
    """
    p = from_value(p, find_device(None), operation="bernoulli")
    return toss("bernoulli", p, p.shape, p.device, generator).astype(p.dtype)
