"""Integers of 64 bits come through as integers: Python's are the referee, modulo 2⁶⁴."""

from __future__ import annotations

import bisect
import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab.errors import DTypeError

SIGNED = [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**62 + 1, 3, -7, 0, 1, 2**24 + 1, -1]
UNSIGNED = [2**64 - 1, 2**63, 2**63 + 1, 2**53 + 1, 3, 0, 1, 2**24 + 1]
VALUES = {"int64": SIGNED, "uint64": UNSIGNED}
both = pytest.mark.parametrize("dtype", VALUES)


def wrapped(value, dtype):
    value %= 2**64
    return value if dtype == "uint64" or value < 2**63 else value - 2**64


def truncated(a, b):
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def made(values, dtype):
    return gl.tensor(values, dtype=dtype)


def check(found, expected, dtype):
    assert found.dtype == dtype
    assert found.tolist() == [wrapped(value, dtype) for value in expected]


ARITHMETIC = {
    "add": (gl.add, lambda a, b: a + b),
    "sub": (gl.sub, lambda a, b: a - b),
    "mul": (gl.mul, lambda a, b: a * b),
    "maximum": (gl.maximum, max),
    "minimum": (gl.minimum, min),
    "addcmul": (lambda a, b: gl.addcmul(a, a, b, value=3), lambda a, b: a + 3 * a * b),
    "add, alpha": (lambda a, b: gl.add(a, b, alpha=2**33 + 1), lambda a, b: a + b * (2**33 + 1)),
}
DIVISION = {
    "floor_divide": (gl.floor_divide, lambda a, b: a // b),
    "remainder": (gl.remainder, lambda a, b: a % b),
    "fmod": (gl.fmod, lambda a, b: a - b * truncated(a, b)),
    "div, floor": (lambda a, b: gl.div(a, b, rounding_mode="floor"), lambda a, b: a // b),
    "div, trunc": (lambda a, b: gl.div(a, b, rounding_mode="trunc"), truncated),
}


@both
@pytest.mark.parametrize("name", [*ARITHMETIC, *DIVISION])
def test_arithmetic(name, dtype):
    f, exact = {**ARITHMETIC, **DIVISION}[name]
    pairs = [
        (a, b) for a, b in itertools.product(VALUES[dtype], repeat=2) if b or name in ARITHMETIC
    ]
    x1, x2 = (made(list(each), dtype) for each in zip(*pairs, strict=True))
    check(f(x1, x2), [exact(a, b) for a, b in pairs], dtype)
    for number in (3, 2**53 + 1, *((-3,) if dtype == "int64" else ())):
        if name not in ("addcmul", "add, alpha"):
            check(f(x1, number), [exact(a, number) for a, _ in pairs], dtype)
        if name in DIVISION:
            check(f(number, x2), [exact(number, b) for _, b in pairs], dtype)


COMPARISONS = {
    gl.eq: lambda a, b: a == b, gl.ne: lambda a, b: a != b, gl.lt: lambda a, b: a < b,
    gl.le: lambda a, b: a <= b, gl.gt: lambda a, b: a > b, gl.ge: lambda a, b: a >= b,
}  # fmt: skip
NUMBERS = [
    2**53 + 1, 2**63 - 1, -5, 2**64, -(2**63), 2.0**53, 0.5, 2.0**63, 2.0**24, -1.5, math.inf,
    2.0**64, 1e300, -math.inf, math.nan,
]  # fmt: skip


@both
@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda f: f.__name__)
def test_comparisons(compare, dtype):
    exact, values = COMPARISONS[compare], VALUES[dtype]
    x = made(values, dtype)
    pairs = list(itertools.product(values, repeat=2))
    x1, x2 = (made(list(each), dtype) for each in zip(*pairs, strict=True))
    assert compare(x1, x2).tolist() == [exact(a, b) for a, b in pairs]
    for number in NUMBERS:
        assert compare(x, number).tolist() == [exact(a, number) for a in values], number
        assert compare(number, x).tolist() == [exact(number, a) for a in values], number
    for floating in ("float64", "float32", "float16", "bfloat16"):
        floats = made([float(a) for a in values], floating)
        expected = [exact(a, b) for a, b in zip(values, floats.tolist(), strict=True)]
        assert compare(x, floats).tolist() == expected
        turned = [exact(b, a) for a, b in zip(values, floats.tolist(), strict=True)]
        assert compare(floats, x).tolist() == turned


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_comparisons_of_narrow_integers(dtype):
    limits = gl.iinfo(dtype)
    x = gl.tensor([limits.max, limits.max - 1, limits.min], dtype=dtype)
    assert (x == float(limits.max)).tolist() == [True, False, False]
    assert (x < gl.tensor(limits.max - 0.5, dtype="float64")).tolist() == [False, True, True]


def test_comparisons_on_a_gpu(emulator):
    x = gl.tensor(SIGNED, device="cuda")
    for number in (2.0**53, 2.0**63, 0.5):
        assert (x == number).cpu().tolist() == [a == number for a in SIGNED]
        assert (x < number).cpu().tolist() == [a < number for a in SIGNED]
    floats = gl.tensor([float(a) for a in SIGNED], dtype="float64", device="cuda")
    assert (floats >= x).cpu().tolist() == [float(a) >= a for a in SIGNED]


UNARY = {
    "floor": (gl.floor, lambda a: a), "ceil": (gl.ceil, lambda a: a), "trunc": (gl.trunc, int),
    "round": (gl.round, lambda a: a), "round, 2": (lambda x: gl.round(x, 2), lambda a: a),
    "round, -1": (lambda x: gl.round(x, -1), lambda a: round(a, -1)),
    "round, -18": (lambda x: gl.round(x, -18), lambda a: round(a, -18)),
    "sign": (gl.sign, lambda a: (a > 0) - (a < 0)), "abs": (gl.abs, abs),
    "neg": (gl.neg, lambda a: -a), "frac": (gl.frac, lambda a: 0),
    "relu": (gl.relu, lambda a: max(a, 0)), "square": (gl.square, lambda a: a * a),
    "pow": (lambda x: x**5, lambda a: a**5), "nan_to_num": (gl.nan_to_num, lambda a: a),
    "clip": (lambda x: x.clip(3, 2**53 + 1), lambda a: min(max(a, 3), 2**53 + 1)),
    "clip, tensors": (
        lambda x: x.clip(gl.tensor(3, dtype=x.dtype), gl.tensor(2**53 + 1, dtype=x.dtype)),
        lambda a: min(max(a, 3), 2**53 + 1),
    ),
    "clamp_": (lambda x: x.clone().clamp_(max=2**53 + 1), lambda a: min(a, 2**53 + 1)),
    "where": (lambda x: gl.where(x > 3, x, 2**53 + 1), lambda a: a if a > 3 else 2**53 + 1),
    "masked_fill": (
        lambda x: x.masked_fill(x == 3, 2**53 + 1), lambda a: 2**53 + 1 if a == 3 else a
    ),
    "heaviside": (lambda x: gl.heaviside(x, x + 5), lambda a: 5 if a == 0 else int(a > 0)),
    "floor_divide_": (lambda x: x.clone().floor_divide_(3), lambda a: a // 3),
    "remainder_": (lambda x: x.clone().remainder_(3), lambda a: a % 3),
    "another dtype": (lambda x: x.to("uint64").to("int64").to(x.dtype), lambda a: a),
    "pickle": (lambda x: pickle.loads(pickle.dumps(x)), lambda a: a),
    "deepcopy": (copy.deepcopy, lambda a: a),
    "items": (lambda x: made([each.item() for each in x], x.dtype), lambda a: a),
}  # fmt: skip


@both
@pytest.mark.parametrize("name", UNARY)
def test_element_by_element(name, dtype):
    f, exact = UNARY[name]
    check(f(made(VALUES[dtype], dtype)), [exact(a) for a in VALUES[dtype]], dtype)


REDUCTIONS = {
    "sum": (lambda x: x.sum(), sum),
    "sum, dtype": (lambda x: x.sum(dtype=x.dtype), sum),
    "nansum": (gl.nansum, sum),
    "prod": (lambda x: x[3:5].prod(), lambda a: a[3] * a[4]),
    "max": (lambda x: x.max(), max),
    "min": (lambda x: x.min(), min),
    "amax": (lambda x: gl.amax(x, 0), max),
    "median": (lambda x: x.median(), lambda a: sorted(a)[(len(a) - 1) // 2]),
    "kthvalue": (lambda x: x.kthvalue(2).values, lambda a: sorted(a)[1]),
    "mode": (lambda x: gl.mode(gl.cat([x, x[2:3]])).values, lambda a: a[2]),
    "dot": (lambda x: gl.dot(x, x), lambda a: sum(b * b for b in a)),
    "matmul": (lambda x: (x[None] @ x[:, None])[0, 0], lambda a: sum(b * b for b in a)),
    "einsum": (lambda x: gl.einsum("i,i->", x, x), lambda a: sum(b * b for b in a)),
    "vecdot": (lambda x: gl.linalg.vecdot(x, x), lambda a: sum(b * b for b in a)),
    "trace": (lambda x: gl.trace(x[:4].reshape(2, 2)), lambda a: a[0] + a[3]),
}


@both
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, dtype):
    f, exact = REDUCTIONS[name]
    found = f(made(VALUES[dtype], dtype))
    assert found.dtype == dtype
    assert found.item() == wrapped(exact(VALUES[dtype]), dtype)


def _cross(a):
    p, q = a[:3], a[3:6]
    return [p[i - 2] * q[i - 1] - p[i - 1] * q[i - 2] for i in range(3)]


LISTS = {
    "cumsum": (lambda x: x.cumsum(0), lambda a: list(itertools.accumulate(a))),
    "cumprod": (
        lambda x: x.cumprod(0), lambda a: list(itertools.accumulate(a, lambda p, q: p * q)),
    ),
    "sort": (lambda x: x.sort().values, sorted),
    "argsort": (lambda x: x[x.argsort(descending=True)], lambda a: sorted(a)[::-1]),
    "topk": (lambda x: x.topk(3).values, lambda a: sorted(a)[::-1][:3]),
    "unique": (lambda x: gl.unique(gl.cat([x, x])), sorted),
    "diff": (gl.diff, lambda a: [q - p for p, q in itertools.pairwise(a)]),
    "cross": (lambda x: gl.linalg.cross(x[:3], x[3:6]), _cross),
    "kron": (lambda x: gl.kron(x[:2], x[3:5]), lambda a: [p * q for p in a[:2] for q in a[3:5]]),
    "outer": (lambda x: gl.outer(x, x).ravel(), lambda a: [p * q for p in a for q in a]),
    "scatter_add": (
        lambda x: gl.scatter_add(x[:1] * 0, 0, gl.tensor([0, 0]), x[3:5]), lambda a: [a[3] + a[4]],
    ),
    "index_add": (
        lambda x: gl.index_add(x[:1] * 0, 0, gl.tensor([0, 0]), x[3:5], alpha=3),
        lambda a: [3 * (a[3] + a[4])],
    ),
    "gather": (lambda x: gl.gather(x, 0, gl.tensor([2, 0])), lambda a: [a[2], a[0]]),
    "cat": (lambda x: gl.cat([x, gl.tensor([1], dtype="uint8")]), lambda a: [*a, 1]),
    "pad": (lambda x: F.pad(x[:1], (1, 0), value=2**53 + 1), lambda a: [2**53 + 1, a[0]]),
    "full": (lambda x: gl.full((2,), x[2].item(), dtype=x.dtype), lambda a: [a[2]] * 2),
}  # fmt: skip


@both
@pytest.mark.parametrize("name", LISTS)
def test_lists(name, dtype):
    f, exact = LISTS[name]
    check(f(made(VALUES[dtype], dtype)), exact(VALUES[dtype]), dtype)


EDGES = [0, 1, 2**53, 2**53 + 1, 2**53 + 2, 2**62 + 1, 2**63 - 1]
SORTED = {
    "int64": [-(2**63), -(2**63) + 1, -1, *EDGES],
    "uint64": [*EDGES, 2**63, 2**63 + 1, 2**64 - 1],
    "int32": [-(2**31), -1, 0, 7, 2**31 - 1],
    "float64": [
        -math.inf, -(2.0**63), -1.5, 0.5, 2.0**53, 2.0**63 - 1024, 2.0**63, 2.0**64, math.inf
    ],
    "float16": [-math.inf, -1.5, 0.5, 2048.0, math.inf],
}  # fmt: skip


@pytest.mark.parametrize("left", SORTED)
@pytest.mark.parametrize("right", SORTED)
def test_searches_among_numbers_without_a_common_dtype(left, right):
    ordered, values = SORTED[left], SORTED[right]
    rows = gl.stack([gl.tensor(ordered, dtype=left)] * 2)
    x = gl.stack([gl.tensor(values, dtype=right)] * 2)
    for side, place in (("left", bisect.bisect_left), ("right", bisect.bisect_right)):
        expected = [place(ordered, value) for value in values]
        assert gl.searchsorted(rows[0], x[0], side).tolist() == expected
        assert gl.searchsorted(rows, x, side).tolist() == [expected, expected]
        if left != "float16":  # beside floats a number is rounded to their dtype
            assert [gl.searchsorted(rows[0], value, side).item() for value in values] == expected


def test_nan_is_searched_for_behind_all_integers():
    assert gl.searchsorted(made([0, 2**63 - 1], "int64"), math.nan).item() == 2
    boundaries = gl.tensor([0.5, math.nan])
    assert gl.searchsorted(boundaries, made([0, 1, 2**63 - 1], "int64")).tolist() == [0, 1, 1]


def test_members_among_integers_without_a_common_dtype():
    some = [0, 3, 2**63, 2**64 - 1]
    x = made(some, "uint64")
    for others in (3, -1, [-1, 3], 2**63, [0.5, 3.0], True):
        among = others if isinstance(others, list) else [others]
        assert gl.isin(x, others).tolist() == [a in among for a in some]
    signed = [0, -1, 3, -(2**63)]
    assert gl.isin(made(signed, "int64"), x).tolist() == [True, False, True, False]
    assert gl.isin(x, made(signed, "int64")).tolist() == [True, True, False, False]


@both
def test_search(dtype):
    values = VALUES[dtype]
    x, ordered = made(values, dtype), sorted(values)
    s = made(ordered, dtype)
    assert gl.searchsorted(s, x).tolist() == [ordered.index(a) for a in values]
    assert gl.searchsorted(s, 2**53 + 1, right=True).item() == ordered.index(2**53 + 1) + 1
    assert gl.searchsorted(s, 2.0**24 + 0.5).item() == sum(a < 2.0**24 + 0.5 for a in values)
    assert gl.isin(x, values[:2]).tolist() == [a in values[:2] for a in values]
    some = [2.0**24, 2.0**53, 3.0, 0.5, math.nan, 2.0**63]
    for among in (some, gl.tensor(some, dtype="float64"), gl.tensor(some)):
        assert gl.isin(x, among).tolist() == [a in some for a in values]
    for floating in ("float32", "float64"):
        found = gl.isin(gl.tensor(some, dtype=floating), x)
        assert found.tolist() == [any(a == b for a in values) for b in some]
    assert 2**53 + 1 in x
    assert 2**53 not in x
    assert 2.0**53 not in x


@both
def test_close(dtype):
    x = made([2**53 + 1, 3, 5], dtype)
    assert gl.isclose(x, made([2**53, 5, 3], dtype), 0, 1).tolist() == [True, False, False]
    assert gl.isclose(x, made([2**53, 5, 3], dtype), 0, 2).tolist() == [True] * 3
    assert not gl.allclose(x[:1], made([2**53], dtype), 0, 0)
    low, high = gl.iinfo(dtype).min, gl.iinfo(dtype).max
    assert not gl.isclose(made([high], dtype), made([low], dtype)).item()
    assert not gl.isclose(made([low], dtype), made([high], dtype)).item()


@pytest.mark.parametrize(("dtype", "first"), [("int64", 2**53), ("uint64", 2**63)])
def test_ranges(dtype, first):
    def check(found, *steps):
        assert found.tolist() == [first + step for step in steps]

    check(gl.arange(first, first + 3, dtype=dtype), 0, 1, 2)
    check(gl.arange(first + 5, first, -2, dtype=dtype), 5, 3, 1)
    check(gl.range(first, first + 2, dtype=dtype), 0, 1, 2)
    check(gl.linspace(first, first + 4, 5, dtype=dtype), 0, 1, 2, 3, 4)
    check(gl.linspace(first, first + 4, 4, endpoint=False, dtype=dtype), 0, 1, 2, 3)
    check(gl.linspace(first, first + 2, 4, dtype=dtype), 0, 0, 1, 2)
    assert gl.full((1,), first).tolist() == [first]


@pytest.mark.parametrize(
    "make",
    [
        lambda: gl.arange(300, dtype="uint8"),
        lambda: gl.arange(0.0, 300.0, 100.0, dtype="int8"),
        lambda: gl.arange(-1, 2, dtype="uint64"),
        lambda: gl.arange(2**63, 2**63 + 2),
        lambda: gl.range(0, 300, 100, dtype="uint8"),
        lambda: gl.linspace(0, 300, 3, dtype="uint8"),
    ],
)
def test_ranges_beyond_the_dtype(make):
    with pytest.raises(DTypeError, match=r"expected values that fit u?int"):
        make()


@both
def test_files_and_text(dtype, tmp_path):
    x = made(VALUES[dtype], dtype)
    gl.save({"x": x, "number": VALUES[dtype][0]}, tmp_path / "x.safetensors")
    loaded = gl.load(tmp_path / "x.safetensors")
    assert loaded["x"].tolist() == VALUES[dtype]
    assert loaded["number"] == VALUES[dtype][0]
    assert all(str(value) in repr(x) for value in VALUES[dtype])
    assert f"{x[0]}" == str(VALUES[dtype][0])
    assert np.asarray(x).tolist() == VALUES[dtype]
