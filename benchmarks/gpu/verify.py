"""Is a result right? Against float64, every element; without a yes there is no time.

What is counted are elements within the limit, so that NaN, an infinity and a comparison that did
not run at all are failures. Memory that a call allocates is full of NaN before (`poisoned`): what
a kernel does not write shows, and so does a result that an earlier call left behind.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

# The largest relative error of rounding a result to the dtype, and half the smallest number.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST = {"float16": 2.0**-25, "bfloat16": 2.0**-134, "float32": 2.0**-150, "float64": 0.0}
ON_HOST = 1 << 20  # elements, up to which NumPy compares
CHUNK = 1 << 26  # elements that are compared at a time on the device


@dataclass(frozen=True)
class Limit:
    """How far an element may be from the exact one.

    Computing is in float32 (float64 for float64), of unit u: 2⁻²⁴ (2⁻⁵³). A function of one value
    may err by 128 u of it, the result is rounded once to its dtype, and a sum of ``terms`` terms
    errs by 32 u √terms of ``scale``, the size that results have (0: their root mean square). The
    rounding errors of n terms add up like a random walk (Higham, Accuracy and Stability of
    Numerical Algorithms, §2.8), as a rule to less than u √n; TF32, which keeps 11 bits, is far
    beyond the limit. A product of ``factors`` numbers errs by 16 u √factors of itself.

    Where ``through`` results were rounded to the dtype on the way, each may leave a rounding of the
    size that results have: in x - y of two that are about the same, nothing is left but that.

    ``norm``: compare ‖result − exact‖ with this share of ‖exact‖ instead, where single elements
    may differ: a ReLU's side is decided by a rounding error.
    """

    terms: int = 1
    scale: float = 0.0
    factors: int = 0
    through: int = 0
    norm: float = 0.0
    slack: float = 1.0  # of peers, whose sums go one by one

    def bounds(self, dtype: str, scale: float) -> tuple[float, float]:
        """The errors allowed: a share of the exact value, and one that does not depend on it."""
        unit = ROUNDING["float64" if dtype == "float64" else "float32"]
        relative = (128 + 16 * math.sqrt(self.factors)) * unit + 1.01 * ROUNDING[dtype]
        rounded = 32 * unit * math.sqrt(self.terms) + self.through * ROUNDING[dtype]
        absolute = rounded * (self.scale or scale) + SMALLEST[dtype]
        return self.slack * relative, self.slack * absolute


class Verdict(NamedTuple):
    """What a comparison found: what is wrong (empty: nothing), and ‖result − exact‖ / ‖exact‖."""

    wrong: str
    error: float | None = None


def compare(machine: Any, got: Any, exact: Any, limit: Limit) -> Verdict:
    """Compare a result with the exact one, in float64 or integers, on host or device."""
    if tuple(got.shape) != tuple(exact.shape):
        return Verdict(f"expected shape {tuple(exact.shape)}, got {tuple(got.shape)}")
    dtype = got.dtype.name
    if got.size <= ON_HOST or machine.dry:
        xp: Any = np
        got, exact = machine.host(got), machine.host(exact)
    else:
        xp = machine.xp
        if why := referee(machine):
            return Verdict(why)
        got, exact = xp.ascontiguousarray(got), xp.ascontiguousarray(xp.asarray(exact))
    got, exact = got.reshape(-1), exact.reshape(-1)
    if dtype not in ROUNDING:
        return _compare_integers(xp, got, exact)
    return _compare_floats(xp, got, exact, dtype, limit)


def _chunks(size: int) -> Iterator[slice]:
    return (slice(i, i + CHUNK) for i in range(0, size, CHUNK))


def _compare_integers(xp: Any, got: Any, exact: Any) -> Verdict:
    if got.dtype.kind == "b":  # a byte that is neither 0 nor 1 is no bool
        got, exact = got.view("uint8"), exact.astype("uint8")
    equal = sum(int(xp.sum(got[i] == exact[i].astype(got.dtype))) for i in _chunks(got.size))
    if equal == got.size:
        return Verdict("", 0.0)
    return Verdict(f"{got.size - equal} of {got.size} elements are wrong")


def _compare_floats(xp: Any, got: Any, exact: Any, dtype: str, limit: Limit) -> Verdict:
    with np.errstate(all="ignore"):
        pieces = [_squares(xp, got[i], exact[i]) for i in _chunks(got.size)]
        difference, norm = (math.sqrt(sum(each[i] for each in pieces)) for i in range(2))
        if not (math.isfinite(norm) and norm > 0) and got.size:
            return Verdict(f"the reference is no reference: its norm is {norm}")
        error = difference / (norm or 1.0)
        if limit.norm:
            wrong = "" if error <= limit.norm else f"relative error {error:.2g} > {limit.norm:g}"
            return Verdict(wrong, error if math.isfinite(error) else None)
        relative, absolute = limit.bounds(dtype, norm / math.sqrt(max(got.size, 1)))
        good = sum(_within(xp, got[i], exact[i], relative, absolute) for i in _chunks(got.size))
    error_or_none = error if math.isfinite(error) else None  # JSON knows no NaN
    if good == got.size:
        return Verdict("", error_or_none)
    return Verdict(
        f"{got.size - good} of {got.size} elements are beyond {relative:.1e} of the exact value "
        f"+ {absolute:.1e}; relative error of all {error:.2g}",
        error_or_none,
    )


def _squares(xp: Any, got: Any, exact: Any) -> tuple[float, float]:
    exact = exact.astype("float64", copy=False)
    difference = got.astype("float64") - exact
    return float((difference * difference).sum()), float((exact * exact).sum())


def _within(xp: Any, got: Any, exact: Any, relative: float, absolute: float) -> int:
    exact = exact.astype("float64", copy=False)
    bound = xp.abs(exact) * relative + absolute
    return int((xp.abs(got.astype("float64") - exact) <= bound).sum())


@cache
def referee(machine: Any) -> str:
    """Why the device's own float64 cannot be the judge here; empty where it can.

    Large results are compared on the device with what CuPy computes there, so CuPy itself is
    compared with NumPy first.
    """
    random = np.random.default_rng(7)
    a, b = random.standard_normal((2, 70, 70))
    device = [machine.driver.to_device(x, 0) for x in (a, b)]
    found = [
        (machine.host(function(machine.xp, *device)), function(np, a, b))
        for function in (
            lambda xp, a, b: xp.matmul(a, b),
            lambda xp, a, b: xp.exp(a).sum(axis=1) + xp.abs(b).max(axis=1),
            lambda xp, a, b: xp.asarray((xp.abs(a) <= 1.0).sum()).astype("float64"),
        )
    ]
    if all(np.allclose(got, exact, rtol=1e-12, atol=1e-12) for got, exact in found):
        return ""
    return "the reference itself is wrong: CuPy's float64 does not agree with NumPy's here"


# ------------------------------------------------------------------------------------- memory


@contextmanager
def poisoned(machine: Any, pooled: bool = True) -> Iterator[None]:
    """All memory that is allocated inside is full of 0xFF: NaN in every format, -1 as an integer.

    ``pooled``: out of CuPy's pool, and else from CUDA each time, where a sanitizer sees its ends.
    """
    if machine.dry:
        with _poisoned_emulator(machine.xp):
            yield
        return
    cuda = machine.xp.cuda
    malloc = machine.xp.get_default_memory_pool().malloc

    def allocate(size: int) -> Any:
        made = malloc(size) if pooled else cuda.MemoryPointer(cuda.Memory(size), 0)
        if size:
            made.memset_async(0xFF, size)
        return made

    with cuda.using_allocator(allocate):
        probe = machine.host(machine.xp.empty(5, "float32"))
        if not np.isnan(probe).all():
            raise RuntimeError(f"expected poisoned memory, got {probe}")
        yield


@contextmanager
def _poisoned_emulator(xp: Any) -> Iterator[None]:
    plain = xp.empty

    def empty(*args: Any, **kwargs: Any) -> Any:
        made = plain(*args, **kwargs)
        made.reshape(-1).view("uint8")[...] = 0xFF
        return made

    xp.empty = empty
    try:
        yield
    finally:
        xp.empty = plain


def seed(*parts: Any) -> int:
    """A seed of its own for everything that has a name."""
    return zlib.crc32(repr(parts).encode())
