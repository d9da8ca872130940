"""`autograd.Function`: operations with a gradient written by hand."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab.autograd import Function, grad, no_grad, once_differentiable
from gradlab.errors import DTypeError, GradientError
from gradlab.ops.elementwise import exp, sin
from gradlab.testing import assert_close, gradcheck


def leaf(values, dtype="float32"):
    return gl.tensor(values, dtype=dtype, requires_grad=True)


class Cube(Function):
    """The cube of x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gy):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gy


class Exp(Function):
    """Saves its result."""

    @staticmethod
    def forward(ctx, x):
        y = exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gy):
        (y,) = ctx.saved_tensors
        return gy * y


class SumAndProduct(Function):
    """Two results, both saved."""

    @staticmethod
    def forward(ctx, x, y):
        total, product = x + y, x * y
        ctx.save_for_backward(x, y, total, product)
        return total, product

    @staticmethod
    def backward(ctx, gs, gp):
        x, y, *_ = ctx.saved_tensors
        return gs + gp * y, gs + gp * x


class Scale(Function):
    """Arguments that are no tensors."""

    @staticmethod
    def forward(ctx, x, factor, name="", *, offset=0.0):
        ctx.factor = factor
        ctx.name = name
        return x * factor + offset

    @staticmethod
    def backward(ctx, gy):
        return gy * ctx.factor, None, None


class Modern(Function):
    """The form with setup_context."""

    @staticmethod
    def forward(x, exponent):
        return x**exponent

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.exponent = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, gy):
        (x,) = ctx.saved_tensors
        return gy * ctx.exponent * x ** (ctx.exponent - 1), None


@pytest.mark.parametrize("function", [Cube.apply, Exp.apply, lambda x: Modern.apply(x, 3)])
def test_gradients_of_any_order(function):
    assert gradcheck(function, np.array([0.5, -1.5, 2.0]), order=3)


def test_two_results():
    assert gradcheck(SumAndProduct.apply, [np.array([0.5, 1.5]), np.array([2.0, 3.0])], order=2)
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    total, product = SumAndProduct.apply(x, y)
    assert repr(total.grad_fn) == "<SumAndProductBackward>"
    product.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [3, 4]
    total.sum().backward()
    assert x.grad.tolist() == [4, 5]


def test_results_saved_by_a_function_have_their_history():
    x = leaf([0.5], dtype="float64")
    (g,) = grad(Exp.apply(x), x, create_graph=True)
    (gg,) = grad(g, x)
    assert_close(gg, [np.exp(0.5)])

    class SaveBoth(SumAndProduct):
        @staticmethod
        def backward(ctx, gs, gp):
            x, y, total, product = ctx.saved_tensors
            return gs * total / (x + y) + gp * product / x, gs + gp * product / y

    inputs = [np.array([0.5, 1.5]), np.array([2.0, 3.0])]
    assert gradcheck(SaveBoth.apply, inputs, order=3)


def test_arguments_that_are_no_tensors():
    x = leaf([1.0, 2.0])
    y = Scale.apply(x, 3.0, "three", offset=1.0)
    assert y.tolist() == [4, 7]
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_needs_input_grad():
    seen = []

    class Product(Function):
        @staticmethod
        def forward(ctx, x, y, z):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, gy):
            seen.append(ctx.needs_input_grad)
            x, y = ctx.saved_tensors
            return gy * y, gy * x, None

    x, y = leaf([1.0]), gl.tensor([2.0])
    Product.apply(x, y, None).sum().backward()
    assert seen == [(True, False, False)]
    assert y.grad is None
    assert x.grad.tolist() == [2]


def test_without_gradient_nothing_is_recorded():
    x = gl.tensor([1.0, 2.0])
    assert not Cube.apply(x).requires_grad
    with no_grad():
        assert not Cube.apply(leaf([1.0])).requires_grad


def test_forward_runs_outside_the_graph():
    class Look(Function):
        @staticmethod
        def forward(ctx, x):
            assert not gl.autograd.is_grad_enabled()
            y = x * 2
            assert not y.requires_grad
            return y

        @staticmethod
        def backward(ctx, gy):
            assert not gl.autograd.is_grad_enabled()
            return gy * 2

    x = leaf([1.0])
    Look.apply(x).sum().backward()
    assert x.grad.tolist() == [2]


def test_a_view_passed_to_a_function_has_its_history():
    base = gl.zeros(2)
    view = base[0]
    w = leaf(2.0)
    base += w
    Cube.apply(view).backward()
    assert float(w.grad) == 12


def test_returning_an_input():
    class Identity(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gy):
            return gy * 10

    x = leaf([1.0, 2.0])
    y = Identity.apply(x)
    assert y is not x
    assert y.data_ptr() == x.data_ptr()
    assert x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [10, 10]


def test_the_returned_gradient_is_not_kept_as_it_is():
    kept = gl.tensor([5.0, 5.0])

    class Constant(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gy):
            return kept

    x = leaf([1.0, 2.0])
    Constant.apply(x).sum().backward()
    x.grad.zero_()
    assert kept.tolist() == [5, 5]


def test_unused_results_get_zeros_or_none():
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x, materialize):
            ctx.set_materialize_grads(materialize)
            return x * 1, x[:1].astype("float64")

        @staticmethod
        def backward(ctx, ga, gb):
            seen.append(gb if gb is None else (gb.shape, gb.dtype.name, gb.tolist()))
            return ga, None

    x = leaf([1.0, 2.0])
    for materialize in (True, False):
        a, _ = Two.apply(x, materialize)
        a.sum().backward()
    assert seen == [((1,), "float64", [0.0]), None]


def test_results_without_gradient():
    class Sort(Function):
        @staticmethod
        def forward(ctx, x):
            order = x.argsort()
            ctx.save_for_backward(order)
            rounded = x.round()
            ctx.mark_non_differentiable(rounded)
            return x[order], order, rounded

        @staticmethod
        def backward(ctx, gy, _, __):
            (order,) = ctx.saved_tensors
            return gl.zeros(2).scatter(0, order, gy)

    x = leaf([3.0, 1.0])
    y, order, rounded = Sort.apply(x)
    assert y.requires_grad
    assert not order.requires_grad
    assert not rounded.requires_grad
    (y * gl.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [10, 1]


def test_once_differentiable():
    class Sine(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return sin(x)

        @staticmethod
        @once_differentiable
        def backward(ctx, gy):
            (x,) = ctx.saved_tensors
            return gl.tensor(gy.numpy() * np.cos(x.numpy(force=True)))

    x = leaf([0.5])
    Sine.apply(x).sum().backward()
    assert_close(x.grad, [float(np.cos(np.float32(0.5)))])
    with pytest.raises(GradientError, match="this Function is once_differentiable, so create_grap"):
        grad(Sine.apply(x).sum(), x, create_graph=True)


def test_saved_values_are_freed():
    x = leaf([1.0])
    y = Cube.apply(x).sum()
    y.backward()
    with pytest.raises(
        GradientError, match=r"earlier backward\(\) freed; give that earlier call r"
    ):
        y.backward()
    y = Cube.apply(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [9]


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (
            (gl.tensor([1.0]),),
            "Wrong.backward: expected 2 gradients, one for each argument of forward, got 1; return "
            "None for arguments without a gradient",
        ),
        ((1.0, None), "Wrong.backward: expected tensors or None, got float"),
        (
            (gl.tensor([1.0, 2.0, 3.0]), None),
            "backward of Wrong: expected a gradient of shape (2,), as its input, got (3,); correct "
            "the backward of Wrong",
        ),
    ],
)
def test_wrong_gradients(returned, text):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * 2

        @staticmethod
        def backward(ctx, gy):
            return returned

    x = leaf([1.0, 2.0])
    with pytest.raises((GradientError, DTypeError)) as caught:
        Wrong.apply(x, None).sum().backward()
    assert str(caught.value) == text


def test_a_gradient_may_be_left_out():
    class Stop(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gy):
            return None

    x = leaf([1.0])
    Stop.apply(x).sum().backward()
    assert x.grad is None


def test_forward_must_return_tensors():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return 1.0

    with pytest.raises(DTypeError, match=r"Wrong\.forward: expected tensors, got float"):
        Wrong.apply(leaf([1.0]))


def test_what_is_not_written():
    class Empty(Function):
        pass

    class OnlyForward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="a static method forward"):
        Empty.apply(leaf([1.0]))
    with pytest.raises(NotImplementedError, match="a static method backward"):
        OnlyForward.apply(leaf([1.0])).sum().backward()


def test_gradient_of_the_wrong_dtype_is_cast():
    class Wide(Function):
        @staticmethod
        def forward(ctx, x):
            return x.astype("float64")

        @staticmethod
        def backward(ctx, gy):
            assert gy.dtype == gl.float64
            return gy

    x = leaf([1.0])
    Wide.apply(x).sum().backward()
    assert x.grad.dtype == gl.float32


def test_functions_inside_functions():
    class Twice(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return Cube.apply(x) * 2

        @staticmethod
        def backward(ctx, gy):
            (x,) = ctx.saved_tensors
            with gl.autograd.enable_grad():
                inner = x.detach().requires_grad_()
                (g,) = grad(Cube.apply(inner).sum(), inner)
            return gy * g * 2

    x = leaf([2.0])
    Twice.apply(x).sum().backward()
    assert x.grad.tolist() == [24]


def test_checkpointing_recomputes_in_backward():
    class Checkpoint(Function):
        @staticmethod
        def forward(ctx, run, x):
            ctx.run = run
            ctx.save_for_backward(x)
            return run(x)

        @staticmethod
        def backward(ctx, gy):
            (x,) = ctx.saved_tensors
            with gl.autograd.enable_grad():
                again = x.detach().requires_grad_()
                ctx.run(again).backward(gy)
            return None, again.grad

    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    Checkpoint.apply(lambda x: exp(x * w), x).sum().backward()
    assert_close(x.grad, [3 * np.exp(3.0), 4 * np.exp(8.0)], rtol=1e-5)
    assert_close(w.grad, [np.exp(3.0), 2 * np.exp(8.0)], rtol=1e-5)


def test_hooks_on_results():
    x = leaf([1.0, 2.0])
    total, product = SumAndProduct.apply(x, x)
    seen = []
    total.register_hook(lambda g: seen.append("total"))
    product.register_hook(lambda g: g * 0)
    (total + product).sum().backward()
    assert seen == ["total"]
    assert x.grad.tolist() == [2, 2]
