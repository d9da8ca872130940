"""Dtypes: promotion as the array API standard has it, weak Python scalars, the default dtype."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import gradlab as gl
from gradlab import dtypes
from gradlab.dtypes import result_type
from gradlab.errors import DTypeError, OptionError
from gradlab.ops.elementwise import add, div, exp, floor, lt, masked_fill, maximum, where
from gradlab.testing import assert_close

INTEGERS = [d.name for d in dtypes.INTEGERS]
NAMES = [d.name for d in dtypes.ALL]

# The tables of https://data-apis.org/array-api/latest/API_specification/type_promotion.html, row by
# row: what the dtype in front gives with each dtype of the line above. "-" is left open there.
ARRAY_API = """
         bool
bool     bool

         int8   int16  int32  int64
int8     int8   int16  int32  int64
int16    int16  int16  int32  int64
int32    int32  int32  int32  int64
int64    int64  int64  int64  int64

         uint8  uint16 uint32 uint64
uint8    uint8  uint16 uint32 uint64
uint16   uint16 uint16 uint32 uint64
uint32   uint32 uint32 uint32 uint64
uint64   uint64 uint64 uint64 uint64

         uint8  uint16 uint32 uint64
int8     int16  int32  int64  -
int16    int16  int32  int64  -
int32    int32  int32  int64  -
int64    int64  int64  int64  -

           float32    float64    complex64  complex128
float32    float32    float64    complex64  complex128
float64    float64    float64    complex128 complex128
complex64  complex64  complex128 complex64  complex128
complex128 complex128 complex128 complex128 complex128
"""


def table():
    for block in ARRAY_API.strip("\n").split("\n\n"):
        head, *rows = [line.split() for line in block.splitlines()]
        for first, *results in rows:
            yield from (
                (first, second, result) for second, result in zip(head, results, strict=True)
            )


def as_dtypes(*names):
    return [dtypes.as_dtype(name) for name in names]


@pytest.mark.parametrize(("first", "second", "expected"), list(table()))
def test_promotion_of_the_array_api(first, second, expected):
    a, b = as_dtypes(first, second)
    if expected == "-":
        text = f"promotion: expected integers with a common integer dtype, got {first} and {second}"
        with pytest.raises(DTypeError, match=text):
            result_type(a, b)
        return
    assert result_type(a, b) == result_type(b, a) == expected


# What the standard leaves open; a dtype of a higher kind keeps its own width, as in PyTorch.
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("bool", "uint8", "uint8"),
        ("bool", "float16", "float16"),
        ("int64", "float16", "float16"),
        ("int64", "bfloat16", "bfloat16"),
        ("uint64", "float32", "float32"),
        ("int8", "complex64", "complex64"),
        ("float16", "bfloat16", "float32"),
        ("float16", "float32", "float32"),
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "float64", "float64"),
        ("bfloat16", "complex64", "complex64"),
        ("float16", "complex128", "complex128"),
    ],
)
def test_promotion_between_kinds(first, second, expected):
    a, b = as_dtypes(first, second)
    assert result_type(a, b) == result_type(b, a) == expected


def test_promotion_does_not_depend_on_the_order():
    def promoted(*kinds):
        try:
            return result_type(*kinds)
        except DTypeError:
            return None

    for triple in itertools.combinations(dtypes.ALL, 3):
        results = {promoted(*order) for order in itertools.permutations(triple)}
        assert len(results) == 1, triple


@pytest.mark.parametrize("name", NAMES)
def test_python_scalars_are_weak(name):
    (dtype,) = as_dtypes(name)
    level = "biufVc".replace("u", "i").find(dtype.kind.replace("u", "i").replace("V", "f"))
    assert result_type(dtype, bool) == dtype
    assert result_type(dtype, int) == (dtype if dtype.kind != "b" else "int64")
    floating = dtype.kind in "fVc"
    assert result_type(dtype, float) == (dtype if floating else "float32")
    expected = {"complex128": "complex128", "float64": "complex128"}.get(name, "complex64")
    assert result_type(dtype, complex) == expected
    assert result_type(float, dtype) == result_type(dtype, float)
    assert level >= 0


def test_python_scalars_alone():
    assert result_type(bool) == "bool"
    assert result_type(int, bool) == "int64"
    assert result_type(int, float) == "float32"
    assert result_type(float, complex) == "complex64"


def test_public_result_type():
    x = gl.tensor([1], dtype="int8")
    assert gl.result_type(x, 2.0) == "float32"
    assert gl.result_type(x, "float16", np.float64(1)) == "float64"
    assert gl.result_type(np.ones(2, np.int16), x) == "int16"
    assert gl.result_type(1, 2.0) == "float32"


# -------------------------------------------------------------------------------------- in ops


def pairs():
    for a, b in itertools.product(dtypes.ALL, repeat=2):
        try:
            yield a, b, result_type(a, b)
        except DTypeError:
            continue


def test_arithmetic_follows_the_rules():
    for a, b, expected in pairs():
        x, y = gl.tensor([1, 0], dtype=a), gl.tensor([1, 1], dtype=b)
        total = x + y
        assert total.dtype == expected, (a, b)
        assert total.tolist() == ([True, True] if expected == "bool" else [2, 1])
        quotient = div(x, y)
        floating = expected.kind in "fVc"
        assert quotient.dtype == (expected if floating else "float32")
        assert (x == y).tolist() == [True, False]
        assert where(gl.tensor([True, False]), x, y).dtype == expected
        assert gl.cat([x, y]).dtype == expected
        assert gl.stack([x, y]).dtype == expected
        if expected.kind != "c":
            assert lt(x, y).dtype == "bool"
            assert maximum(x, y).dtype == expected


@pytest.mark.parametrize("scalar", [True, 2, 0.5, 1j])
def test_arithmetic_with_python_scalars(scalar):
    for dtype in dtypes.ALL:
        x = gl.tensor([1, 0], dtype=dtype)
        expected = result_type(dtype, type(scalar))
        for y in (x + scalar, scalar + x, where(gl.tensor([True, False]), x, scalar)):
            assert y.dtype == expected, (dtype, scalar)
        assert (x * scalar).tolist()[0] == scalar * 1
        assert (x == scalar).dtype == "bool"


def test_numpy_scalars_are_weak_too():
    x = gl.tensor([1.0], dtype="float16")
    for scalar in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        assert (x * scalar).dtype == (scalar * x).dtype == "float16"
    assert (gl.tensor([1]) * np.float64(0.5)).dtype == "float32"


def test_tensors_without_axes_are_not_weak():
    # Here gradlab follows the array API; in PyTorch the dtype of a tensor without axes is weak.
    assert (gl.tensor([1.0]) + gl.tensor(1.0, dtype="float64")).dtype == "float64"


def test_scalars_that_do_not_fit():
    x = gl.tensor([1, 2], dtype="uint8")
    for call in (lambda: x + 300, lambda: x * -1, lambda: x.__setitem__(0, 300)):
        with pytest.raises(DTypeError):
            call()
    assert (x < 300).tolist() == [True, True]
    assert (x == -1).tolist() == [False, False]
    with pytest.raises(
        DTypeError, match="pow: expected exponents of 0 or more for integers, got a"
    ):
        gl.tensor([2, 3]) ** -1
    with pytest.raises(DTypeError, match="pow: expected exponents of 0 or more for integers"):
        gl.tensor([2, 3]) ** gl.tensor([1, -1])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves(half):
    x = gl.tensor([1.0, 2.0, 3.0], dtype=half)
    for y in (
        x * 2.5,
        1 / x,
        exp(x),
        x.sum(),
        x.mean(),
        x.softmax(0),
        x.clip(1.5, 2.5),
        masked_fill(x, x > 1, 0.1),
        where(x > 1, x, 0.1),
        x.relu(),
        x**2,
        x**0.5,
        floor(x),
        x @ x,
        x.cumsum(0),
        x.std(),
        add(x, x, alpha=0.1),
        x.logsumexp(0),
        x.reshape(3, 1),
        x[[0, 1]],
        gl.nn.functional.gelu(x),
        gl.nn.functional.leaky_relu(x),
        gl.nn.functional.elu(x),
        gl.nn.functional.softplus(x),
    ):
        assert y.dtype == half
    big = gl.full((3000,), 1.0, dtype=half)
    assert big.sum().item() == 3000 if half == "float16" else big.sum().item() == 3008


def test_gradients_keep_the_dtype():
    for dtype in dtypes.FLOATS:
        x = gl.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
        y = gl.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
        (exp(x * 2 + y) / x).sum().backward()
        assert x.grad.dtype == dtype
        assert y.grad.dtype == "float64"


def test_complex_is_carried_through():
    x = gl.tensor([1 + 2j, 3 - 1j])
    assert x.dtype == "complex64"
    assert (x * 1j).tolist() == [-2 + 1j, 1 + 3j]
    assert x.conj().tolist() == [1 - 2j, 3 + 1j]
    assert_close(abs(x), [5**0.5, 10**0.5])
    assert abs(x).dtype == "float32"
    assert x.sum().item() == 4 + 1j
    with pytest.raises(
        DTypeError, match="lt: expected bool or integer or floating values, got comp"
    ):
        x < 1j  # noqa: B015
    with pytest.raises(
        DTypeError, match="setitem: expected a value that fits float32, got complex"
    ):
        gl.tensor([1.0])[0] = gl.tensor(1j)
    with pytest.raises(DTypeError, match=r"setitem: expected a value that fits float32, got "):
        gl.tensor([1.0])[0] = 1j


def test_ops_name_the_dtypes_they_take():
    with pytest.raises(DTypeError) as caught:
        gl.tensor([1.5]) & gl.tensor([1.0])
    assert str(caught.value) == (
        "bitwise_and: expected bool or integer values, got float32; cast with .astype(...)"
    )
    with pytest.raises(
        DTypeError, match=r"sub: expected integer or floating or complex values, got b"
    ):
        gl.tensor([True]) - gl.tensor([False])
    with pytest.raises(
        DTypeError, match="left_shift: expected bool or integer values, got a Python f"
    ):
        gl.tensor([1]) << 1.5


# ----------------------------------------------------------------------------- names and limits


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("float32", "float32"),
        (np.float32, "float32"),
        (np.dtype("f4"), "float32"),
        (float, "float64"),
        (int, "int64"),
        (bool, "bool"),
        (complex, "complex128"),
        ("half", "float16"),
        ("double", "float64"),
        ("long", "int64"),
        (ml_dtypes.bfloat16, "bfloat16"),
        ("bfloat16", "bfloat16"),
        (gl.int8, "int8"),
    ],
)
def test_names(given, name):
    assert dtypes.as_dtype(given).name == name
    assert dtypes.as_dtype(given) is dtypes.as_dtype(name)


def test_limits():
    assert gl.finfo("float32").eps == np.finfo(np.float32).eps
    assert gl.finfo(gl.bfloat16).max == float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    assert gl.finfo("float16").bits == 16
    assert gl.iinfo("int8").min == -128
    assert gl.iinfo("uint64").max == 2**64 - 1
    with pytest.raises(DTypeError, match="finfo: expected a floating dtype, got int8"):
        gl.finfo("int8")
    with pytest.raises(DTypeError, match="iinfo: expected an integer dtype, got float32"):
        gl.iinfo("float32")


# ---------------------------------------------------------------------------- the default dtype


@pytest.fixture
def default_dtype():
    yield gl.set_default_dtype
    gl.set_default_dtype("float32")


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16"])
def test_default_dtype(name, default_dtype):
    before = [gl.tensor([1, 2]) / 2, gl.tensor([1.0])]
    default_dtype(name)
    assert gl.get_default_dtype() == name
    for x in (
        gl.tensor([1.0]),
        gl.zeros(1),
        gl.arange(1.0),
        gl.linspace(0, 1, 2),
        gl.tensor([1, 2]) / 2,
        gl.tensor([1]) + 0.5,
        exp(gl.tensor([1])),
        gl.full((1,), 1.0),
    ):
        assert x.dtype == name
    assert [x.dtype for x in before] == [gl.float32, gl.float32]
    assert (before[1] + 1.0).dtype == gl.float32
    assert gl.tensor([1j]).dtype == ("complex128" if name == "float64" else "complex64")
    default_dtype("float32")
    assert (gl.tensor([1, 2]) / 2).dtype == gl.float32


@pytest.mark.parametrize("name", ["int64", "bool", "complex64"])
def test_default_dtype_must_be_floating(name):
    text = f"set_default_dtype: expected a floating dtype, got {name}"
    with pytest.raises(DTypeError, match=text):
        gl.set_default_dtype(name)


def test_clip_needs_a_bound():
    with pytest.raises(OptionError, match="clip: expected min, max or both, got neither"):
        gl.tensor([1.0]).clip()
    assert gl.tensor([1, 5]).clip(max=2).dtype == "int64"
    assert gl.tensor([1, 5]).clip(max=2.5).tolist() == [1, 2.5]
