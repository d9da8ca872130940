"""The checks find what they are there to find, and say it in one line."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import OptionError
from gradlab.ops.core import FLOAT, PROMOTE, Op, apply
from gradlab.ops.elementwise import abs as absolute, exp, floor, maximum, relu, sin, where
from gradlab.ops.samples import Sample, values
from gradlab.testing import (
    CheckError,
    KinkError,
    assert_close,
    check_op,
    check_sample,
    gradcheck,
    gradgradcheck,
)

# --------------------------------------------------------------------------------- gradcheck


def double(x):
    return x * 2


class Wrong(gl.autograd.Function):
    """exp with a gradient that is 1% too large."""

    @staticmethod
    def forward(ctx, x):
        y = exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gy):
        (y,) = ctx.saved_tensors
        return gy * y * 1.01


class WrongTwice(gl.autograd.Function):
    """sin with a right gradient whose own gradient is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return sin(x)

    @staticmethod
    def backward(ctx, gy):
        (x,) = ctx.saved_tensors
        return gy * sin(x.detach() + np.pi / 2)


def test_gradcheck_accepts_right_gradients():
    assert gradcheck(lambda x, y: sin(x) * y, [values((3, 1)), values(4, seed=1)], order=3) is True


def test_gradcheck_names_the_class_whose_apply_is_wrong():
    with pytest.raises(CheckError, match=r"^gradcheck of Wrong.apply, order 1"):
        gradcheck(Wrong.apply, [values(3)])
    with pytest.raises(CheckError, match=r"^gradcheck of WrongTwice.apply, order 2"):
        gradgradcheck(WrongTwice.apply, [values(3)])


def test_gradcheck_stands_where_pytorch_has_it():
    assert gl.autograd.gradcheck is gradcheck
    assert gl.autograd.gradgradcheck is gradgradcheck


def test_gradgradcheck_is_order_2():
    assert gradgradcheck(lambda x: x**3, [values(5)])
    with pytest.raises(CheckError, match="order 2"):
        gradgradcheck(WrongTwice.apply, [values(5)])
    assert gradcheck(WrongTwice.apply, [values(5)])


def test_gradcheck_takes_a_single_input():
    assert gradcheck(double, values(3))
    assert gradcheck(double, gl.tensor([1.0, 2.0], requires_grad=True))


def test_gradcheck_names_function_input_and_both_values():
    def product(x, y):
        return x * Wrong.apply(y)

    with pytest.raises(CheckError) as caught:
        gradcheck(product, [values(3), values((2, 3), seed=1)])
    text = str(caught.value)
    assert text.startswith("gradcheck of product, order 1, input 1 (shape (2, 3)): analytic ")
    analytic = float(text.split("analytic ")[1].split(",")[0])
    numeric = float(text.split("numeric ")[1].split(",")[0])
    assert analytic == pytest.approx(1.01 * numeric, rel=1e-6)
    assert "difference" in text
    assert "allowed" in text


def test_gradcheck_works_in_float64_whatever_the_inputs():
    x = gl.tensor([0.5, 1.5], dtype="float16", requires_grad=True)
    assert gradcheck(exp, x, rtol=1e-9)
    assert x.dtype == gl.float16
    assert x.grad is None


def test_gradcheck_checks_what_requires_a_gradient():
    x = gl.tensor([1.0, 2.0], requires_grad=True)
    y = gl.tensor([1.0, 2.0])
    assert gradcheck(lambda x, y: x * Wrong.apply(y), [x, y])
    with pytest.raises(CheckError, match="input 1"):
        gradcheck(lambda x, y: x * Wrong.apply(y), [x.detach(), y])


def test_gradcheck_passes_other_inputs_on():
    index = gl.tensor([1, 0])
    assert gradcheck(lambda x, i, factor: x[i] * factor, [values(3), index, 3.0])


def test_gradcheck_of_several_results():
    assert gradcheck(lambda x: (x * 2, sin(x), x > 0), values(3), order=2)
    with pytest.raises(CheckError, match="input 0"):
        gradcheck(lambda x: (x * 2, Wrong.apply(x)), values(3))


def test_gradcheck_of_a_result_that_depends_on_nothing():
    assert gradcheck(lambda x: gl.tensor([1.0, 2.0]), values(3))
    # A detached path: the numeric derivative is not 0, so the missing gradient is found.
    with pytest.raises(CheckError, match="analytic 0,"):
        gradcheck(lambda x: x.detach() * 2, values(3))


@pytest.mark.parametrize(
    ("function", "point"),
    [
        (relu, [0.0, 1.0]),
        (absolute, [1.0, 0.0]),
        (lambda x: maximum(x, 1.0), [1.0, 3.0]),
        (floor, [2.0]),
        (lambda x: where(x > 0, 1.0, 0.0), [0.0]),
        (absolute, [3e-4]),  # within reach of the largest step
        (absolute, [-1e-5]),
    ],
    ids=["relu", "abs", "maximum", "floor", "step", "near", "nearer"],
)
def test_kinks_are_reported_as_kinks(function, point):
    with pytest.raises(KinkError, match="expected a function that is smooth here"):
        gradcheck(function, np.array(point))


@pytest.mark.parametrize(
    ("function", "point"),
    [
        (lambda x: x**2, [0.0]),
        (lambda x: x**4, [0.0]),
        (lambda x: x**2 * 1e6, [0.0, 1.0]),
        (exp, [10.0, -10.0]),
        (lambda x: sin(x * 30), [0.0, 1.0]),
        (lambda x: 1 / x, [0.1]),
        (absolute, [0.01]),
        (double, [1e8]),
    ],
    ids=["square", "fourth power", "steep", "exp", "wave", "pole", "beside", "far"],
)
def test_smooth_functions_are_no_kinks(function, point):
    assert gradcheck(function, np.array(point))


def test_kink_beyond_the_step_needs_a_smaller_one():
    assert gradcheck(absolute, np.array([3e-4]), eps=1e-4)


def test_gradcheck_notices_random_results():
    random = np.random.default_rng(0)
    with pytest.raises(CheckError, match=r"the same result for the same input.*set the seed"):
        gradcheck(lambda x: x * float(random.uniform()), values(3))


def test_gradcheck_finds_a_gradient_that_is_not_a_number():
    with pytest.raises(CheckError, match="analytic nan"):
        gradcheck(lambda x: where(x > 0, x, (x * 0) ** 0.5), np.array([1.0]))


def test_gradcheck_refuses_what_has_no_gradient():
    with pytest.raises(OptionError, match="gradcheck: expected an input of a floating dtype"):
        gradcheck(double, gl.tensor([1, 2]))
    with pytest.raises(OptionError, match="expected order from 1 to 10, got 0"):
        gradcheck(double, values(3), order=0)


def test_gradcheck_leaves_its_inputs_alone():
    x = gl.tensor([1.0, 2.0], requires_grad=True)
    before = x.detach().numpy().copy()
    gradcheck(sin, x, order=2)
    assert x.grad is None
    assert (x.detach().numpy() == before).all()


def test_gradcheck_inside_no_grad():
    with gl.autograd.no_grad():
        assert gradcheck(sin, values(3), order=2)


# ------------------------------------------------------------------------------ assert_close


@pytest.mark.parametrize(
    ("dtype", "relative"),
    [("float16", 9e-4), ("bfloat16", 7e-3), ("float32", 1e-6), ("float64", 9e-8)],
)
def test_tolerance_follows_the_dtype(dtype, relative):
    x = gl.tensor([1000.0, 2000.0], dtype=dtype)
    assert_close(x, x.astype("float64") * (1 + relative), check_dtype=False)
    with pytest.raises(CheckError):
        assert_close(x, x.astype("float64") * (1 + 4 * relative), check_dtype=False)


@pytest.mark.parametrize("dtype", ["int32", "uint64", "bool"])
def test_integers_must_be_equal(dtype):
    x = gl.tensor([0, 1, 1]).astype(dtype)
    assert_close(x, x.clone())
    with pytest.raises(CheckError, match=r"1 of 3 elements differs; the most at \[0\]"):
        assert_close(x, gl.tensor([1, 1, 1]).astype(dtype))


def test_large_integers_are_compared_exactly():
    x = np.array([2**63 + 1, 7], dtype=np.uint64)
    assert_close(x, x.copy())
    with pytest.raises(CheckError, match=r"at \[0\]: 9223372036854775809, expected 9223372036854"):
        assert_close(x, x - np.array([1, 0], dtype=np.uint64))


def test_message_names_the_worst_place():
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = gl.tensor([[1.0, 2.5], [3.25, 4.0]])
    expected = (
        "assert_close: 2 of 4 elements differ; the most at [0, 1]: 2.0, expected 2.5, "
        "difference 0.5, allowed 1.33e-05"
    )
    with pytest.raises(CheckError) as caught:
        assert_close(x, y)
    assert str(caught.value) == expected
    assert_close(x, y, atol=0.5)
    assert_close(x, y, rtol=0.2)


def test_nan_and_infinity():
    nan, inf = float("nan"), float("inf")
    assert_close([inf, -inf, 1.0], gl.tensor([inf, -inf, 1.0]))
    assert_close(gl.tensor([nan, 1.0]), [nan, 1.0], equal_nan=True)
    with pytest.raises(CheckError, match=r"at \[0\]: nan, expected nan"):
        assert_close(gl.tensor([nan, 1.0]), [nan, 1.0])
    with pytest.raises(CheckError, match=r"at \[1\]: 1.0, expected inf"):
        assert_close(np.array([5.0, 1.0]), gl.tensor([1.0, inf]), check_dtype=False)
    with pytest.raises(CheckError, match=r"-inf, expected inf"):
        assert_close([-inf], [inf], rtol=10.0)


def test_shapes_and_dtypes_must_agree():
    x = gl.tensor([1.0, 2.0])
    with pytest.raises(CheckError, match=r"expected shape \(2, 1\), got \(2,\)"):
        assert_close(x, np.ones((2, 1)))
    with pytest.raises(CheckError, match="expected dtype float64, got float32"):
        assert_close(x, x.astype("float64"))
    assert_close(x, x.astype("float64"), check_dtype=False)
    assert_close(x, [1, 2])


def test_containers():
    x = gl.tensor([1.0])
    assert_close({"a": x, "b": [x, 2]}, {"a": x, "b": [x, 2]})
    with pytest.raises(CheckError, match="assert_close, 'b', item 1: 1 of 1"):
        assert_close({"a": x, "b": [x, x]}, {"a": x, "b": [x, x + 1]})
    with pytest.raises(CheckError, match=r"expected keys \['a'\], got \['b'\]"):
        assert_close({"b": x}, {"a": x})
    with pytest.raises(CheckError, match="expected 1 items, got 2"):
        assert_close([x, x], [x])


def test_numbers_and_scalars():
    assert_close(1.0, 1.0 + 1e-9)
    assert_close(gl.tensor(2.0), 2)
    assert_close([], [])
    with pytest.raises(CheckError, match=r"at \[\]: 1.0, expected 2.0"):
        assert_close(gl.tensor(1.0), 2.0)


# ---------------------------------------------------------------------------------- check_op


def make(forward, gradient=lambda gy, x: gy * 2, **options):
    """An op of one's own, that does not join the registry. By default it doubles its input."""
    gradients = {} if gradient is None else {"x": gradient}
    options = {"dtype": FLOAT, "samples": samples, **options}
    op = Op("double", forward, gradients=gradients, register=False, **options)
    op.function = lambda x: apply(op, (x,))
    return op


def samples():
    yield Sample((values((3, 4)),), name="matrix")
    yield Sample((values(()),), name="scalar")
    yield Sample((values((0, 2)),), name="empty")


def double_array(xp, x):
    return x * x.dtype.type(2)


def test_an_op_of_ones_own():
    assert check_op(make(double_array)) == 3


def test_an_op_by_name():
    assert check_op("tanh") > 10
    with pytest.raises(
        OptionError, match="expected an op's name, got 'tanhh'; did you mean 'tanh'"
    ):
        check_op("tanhh")


def test_an_op_without_samples():
    op = make(double_array, samples=None)
    with pytest.raises(OptionError, match="expected samples of double, got none; give the Op"):
        check_op(op)


def broken(kind):
    """A way to get an op wrong, by name."""
    fused = Op(
        "double_backward",
        lambda xp, gy, *, needs: (gy * gy.dtype.type(3),),
        inputs=("gy",),
        register=False,
    )
    in_place = Op(
        "double_backward",
        lambda xp, gy, *, needs: (xp.multiply(gy, gy.dtype.type(2), out=gy),),
        inputs=("gy",),
        register=False,
    )

    def writes(xp, x):
        x *= 2
        return x.copy()

    def memory_order(xp, x):
        return xp.asarray(x.ravel("K") * x.dtype.type(2)).reshape(x.shape)

    return {
        "gradient": make(double_array, lambda gy, x: gy * 2.1),
        "second": make(lambda xp, x: x * x, lambda gy, x: gy * x.detach() * 2),
        "fused": make(double_array, fused=fused),
        "fused writes": make(double_array, fused=in_place),
        "dtype": make(lambda xp, x: x.astype("float64") * 2),
        "half": make(lambda xp, x: x * (2 if x.dtype != "float16" else 3)),
        "writes": make(writes),
        "shares": make(lambda xp, x: x, lambda gy: gy),
        "no view": make(lambda xp, x: x.copy(), lambda gy: gy, view=True, dtype="own"),
        "layout": make(memory_order),
        "kinds": make(double_array, dtype=PROMOTE, kinds="iu"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("gradient", "gradcheck of double, order 1, input 0.*analytic"),
        ("second", "gradcheck of double, order 2.*analytic"),
        ("fused", "gradcheck of double, order 1, input 0"),
        ("fused writes", "the incoming gradient, after: 12 of 12 elements differ"),
        ("dtype", "expected a float32 result of bool, got float64"),
        ("half", "in float16: 12 of 12 elements differ"),
        ("writes", "12 of 12 elements differ"),
        ("shares", "expected a result with memory of its own, got one that shares its input's"),
        ("no view", "expected a view, got a result with memory of its own"),
        ("layout", "inputs laid out"),
        ("kinds", "float16 is refused|bfloat16 is refused"),
    ],
)
def test_what_check_op_finds(kind, text):
    if kind == "kinds":
        op = make(double_array, dtype=PROMOTE, kinds="iuf")
        assert check_op(op) == 3  # bfloat16 is refused, and may be: its kind is not among them
        return
    with pytest.raises(CheckError, match=f"double, sample 'matrix': .*{text}"):
        check_op(broken(kind))


def test_a_kink_is_no_failure_where_the_sample_says_so():
    sample = Sample((np.array([0.0, 1.0]),), name="at 0", smooth=False)
    check_sample(gl.ops.core.REGISTRY["relu"], sample)
    sample.smooth = True
    with pytest.raises(KinkError, match="relu, sample 'at 0'"):
        check_sample(gl.ops.core.REGISTRY["relu"], sample)


@pytest.mark.parametrize(
    ("gradients", "asked"),
    [
        ({"x": lambda gy, z: gy * z}, "x: f(gy, z)"),
        ({"x": lambda x, gy: gy * x}, "x: f(x, gy)"),
        ({"z": lambda gy: gy}, "z: f(gy)"),
    ],
)
def test_a_gradient_that_asks_for_the_unknown_is_refused_where_it_is_declared(gradients, asked):
    with pytest.raises(OptionError) as caught:
        Op("cube", lambda xp, x: x**3, gradients=gradients, register=False)
    assert str(caught.value) == (
        "Op 'cube': expected gradients of x as f(gy, …) with parameters among gy, x, y, "
        f"<input>_shape, got {asked}"
    )
