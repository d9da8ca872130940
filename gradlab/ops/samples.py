"""Inputs for an op, made from a seed: what tests, gradient checks and benchmarks draw from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Sizes at which kernels go wrong: nothing, one, around a warp, around a block, beyond a grid.
SIZES = (0, 1, 31, 32, 33, 1023, 1024, 1025)
LARGE = 300_000


@dataclass
class Sample:
    """One call of an op: NumPy arrays (float64 where floating), Python values and attributes.

    ``name`` says what it exercises. ``smooth`` is False where the function has a kink or a jump
    at this input, so that no numeric gradient exists. ``large`` marks sizes too big for a
    numeric gradient.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    smooth: bool = True
    large: bool = False

    def __repr__(self) -> str:
        return f"Sample({self.name})"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def values(
    shape: Sequence[int] | int, low: float = -2.0, high: float = 2.0, seed: int = 0
) -> np.ndarray:
    """Uniform float64 values in [low, high), kept 0.05 away from 0 where 0 lies inside."""
    x = rng(seed).uniform(low, high, shape)
    if low < 0 < high:
        x = x + np.where(x < 0, -0.05, 0.05)
    return np.asarray(x)  # NumPy gives a scalar where there are no axes


def distinct(shape: Sequence[int] | int, seed: int = 0) -> np.ndarray:
    """Values at least 0.1 apart in random order: no ties for max and sort to break."""
    size = int(np.prod(shape))
    return (rng(seed).permutation(size).reshape(shape) - size / 2 + 0.25) * 0.1


def layouts(make: Callable[..., np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The same kind of values in several memory layouts."""
    yield "matrix", make((3, 4))
    yield "transposed", make((4, 3)).T
    yield "strided", make((6, 8))[::2, ::-2]
    yield "broadcast", np.broadcast_to(make((1, 4)), (3, 4))
    yield "scalar", make(())
    yield "empty", make((0, 3))
    yield "3-d", make((2, 3, 4))


def unary(low: float = -2.0, high: float = 2.0, **kwargs: Any) -> Callable[[], Iterable[Sample]]:
    """Samples for an elementwise op of one tensor, with values between ``low`` and ``high``."""

    def make(shape: Any) -> np.ndarray:
        return values(shape, low, high)

    def samples() -> Iterator[Sample]:
        for name, x in layouts(make):
            yield Sample((x,), kwargs, name)
        for size in SIZES:
            yield Sample((make(size),), kwargs, f"{size} values", large=size > 100)
        yield Sample((make(LARGE),), kwargs, "large", large=True)

    return samples


def binary(
    low: float = -2.0,
    high: float = 2.0,
    *,
    low2: float | None = None,
    high2: float | None = None,
    scalars: bool = True,
) -> Callable[[], Iterable[Sample]]:
    """Samples for an elementwise op of two tensors that broadcast."""
    low2, high2 = low if low2 is None else low2, high if high2 is None else high2

    def samples() -> Iterator[Sample]:
        for name, x in layouts(lambda shape: values(shape, low, high)):
            yield Sample((x, values(x.shape, low2, high2, seed=1)), name=name)
        for shape1, shape2 in (((3, 1), (1, 2)), ((2, 3, 4), (4,)), ((), (3,)), ((1, 4), (3, 1))):
            x1, x2 = values(shape1, low, high), values(shape2, low2, high2, seed=1)
            yield Sample((x1, x2), name=f"{shape1} with {shape2}")
        if scalars:
            yield Sample((values((3, 4), low, high), 1.5), name="with a scalar")
        for size in SIZES:
            pair = (values(size, low, high), values(size, low2, high2, seed=1))
            yield Sample(pair, name=f"{size} values", large=size > 100)

    return samples
