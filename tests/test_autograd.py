"""Recording, backward, grad, the modes, hooks; how long graphs live, and how deep they may be."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import gradlab as gl
from gradlab.autograd import (
    backward,
    enable_grad,
    grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from gradlab.errors import DeviceError, DTypeError, GradientError, ShapeError
from gradlab.ops.core import Op, apply
from gradlab.ops.elementwise import exp, floor, log, relu, sin, square, where
from gradlab.testing import assert_close


def leaf(*values, dtype="float32"):
    return gl.tensor(values[0] if len(values) == 1 else list(values), dtype=dtype).requires_grad_()


# ---------------------------------------------------------------------- requires_grad and grad


def test_requires_grad_flag():
    x = gl.tensor([1.0, 2.0])
    assert not x.requires_grad
    assert x.is_leaf
    assert x.grad is None
    assert x.requires_grad_() is x
    assert x.requires_grad
    assert x.is_leaf
    assert x.grad_fn is None
    y = x * 2
    assert y.requires_grad
    assert not y.is_leaf
    assert repr(y.grad_fn) == "<MulBackward0>"
    assert y.grad is None
    x.requires_grad = False
    assert not (x * 2).requires_grad
    assert gl.tensor([1.0], requires_grad=True).requires_grad


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "complex64"])
def test_only_floats_require_gradients(dtype):
    x = gl.tensor([1, 0], dtype=dtype)
    with pytest.raises(DTypeError, match=f"requires_grad_: expected a floating dtype, got {dtype}"):
        x.requires_grad_()
    with pytest.raises(DTypeError):
        gl.tensor([1, 0], dtype=dtype, requires_grad=True)


def test_requires_grad_false_is_for_leaves():
    y = leaf(1.0) * 2
    with pytest.raises(GradientError, match=r"got a result of MulBackward0; use \.detach\(\)"):
        y.requires_grad_(False)


def test_results_of_other_kinds_do_not_require_gradients():
    x = leaf([1.0, 2.0])
    assert not (x > 1).requires_grad
    assert not x.astype("int64").requires_grad
    assert not x.argmax().requires_grad
    assert x.astype("float64").requires_grad


def test_gradients_accumulate_into_the_same_tensor():
    x = leaf([1.0, 2.0])
    (x * 3).sum().backward()
    first = x.grad
    assert first.tolist() == [3, 3]
    assert not first.requires_grad
    (x * x).sum().backward()
    assert x.grad is first
    assert x.grad.tolist() == [5, 7]
    x.grad.zero_()
    assert first.tolist() == [0, 0]
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad is not first


def test_a_grad_of_ones_own_is_added_to():
    x = leaf([1.0, 2.0])
    mine = x.grad = gl.tensor([10.0, 20.0])
    (x * 3).sum().backward()
    assert x.grad is mine
    assert mine.tolist() == [13, 23]


def test_gradients_of_two_leaves_never_share_memory():
    for create_graph in (False, True):
        x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
        start = gl.tensor([1.0, 1.0])
        (x + y).backward(start, create_graph=create_graph)
        x.grad.detach().zero_()
        assert y.grad.tolist() == [1, 1]
        assert start.tolist() == [1, 1]


def test_a_gradient_that_broadcasts_is_written_to_safely():
    x = leaf([1.0, 2.0, 3.0])
    x.sum().backward()
    x.grad.add_(1.0)
    assert x.grad.tolist() == [2, 2, 2]


def test_gradients_have_the_shape_and_dtype_of_their_tensor():
    x = leaf([[1.0], [2.0]], dtype="float16")
    y = leaf([1.0, 2.0, 3.0], dtype="float64")
    (x * y).sum().backward()
    assert (x.grad.shape, x.grad.dtype) == ((2, 1), gl.float16)
    assert (y.grad.shape, y.grad.dtype) == ((3,), gl.float64)
    assert x.grad.tolist() == [[6], [6]]


def test_a_tensor_used_many_times():
    x = leaf(2.0)
    y = x * x * x + x * 3 + x
    y.backward()
    assert float(x.grad) == 3 * 4 + 4


def test_diamond():
    x = leaf(2.0)
    a = x * 3
    b, c = a * a, a + 1
    (b * c).backward()  # 9x²(3x + 1)
    assert float(x.grad) == 81 * 4 + 18 * 2


# -------------------------------------------------------------------------------- backward


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf([1.0, 2.0])
    expected = (
        "backward: expected a scalar, or an explicit gradient, got a tensor of shape (2,); "
        "reduce it first, for example with .sum(), or pass gradient="
    )
    with pytest.raises(GradientError) as caught:
        (x * 2).backward()
    assert str(caught.value) == expected
    y = x * 2
    y.backward(gl.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 20]
    leaf([[5.0]]).sum().backward()
    z = leaf([[5.0]])
    (z * 2).backward()  # one element is enough, whatever the shape
    assert z.grad.tolist() == [[2]]


def test_backward_takes_arrays_lists_and_numbers():
    x = leaf([1.0, 2.0])
    (x * 2).backward([1, 10])
    (x * 2).backward(gradient=np.array([1.0, 1.0]))
    assert x.grad.tolist() == [4, 22]
    (x * 2).sum().backward(3.0)
    assert x.grad.tolist() == [10, 28]


def test_backward_casts_the_gradient():
    x = leaf([1.0, 2.0])
    (x * 2).backward(gl.tensor([1, 2], dtype="int64"))
    assert x.grad.dtype == gl.float32


def test_backward_refuses_a_gradient_of_another_shape():
    y = leaf([1.0, 2.0]) * 2
    with pytest.raises(ShapeError, match=r"of the output's shape \(2,\), got \(3,\)"):
        y.backward(gl.tensor([1.0, 1.0, 1.0]))


def test_backward_without_a_graph():
    expected = (
        "backward: expected a tensor that depends on one with requires_grad=True, got one of "
        "shape () that does not; call requires_grad_() on the inputs, and compute outside no_grad()"
    )
    with pytest.raises(GradientError) as caught:
        gl.tensor(1.0).backward()
    assert str(caught.value) == expected


def test_backward_from_a_leaf():
    x = leaf(3.0)
    x.backward()
    assert float(x.grad) == 1


def test_second_backward_is_refused():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradientError) as caught:
        y.backward()
    assert str(caught.value) == (
        "backward of mul: expected the values saved by the forward pass, got a graph whose values "
        "an earlier backward() freed; give that earlier call retain_graph=True, or compute the "
        "result again"
    )


def test_retain_graph():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]
    with pytest.raises(GradientError, match="freed"):
        y.backward()


def test_a_graph_that_saved_nothing_may_be_gone_through_again():
    x = leaf([1.0, 2.0])
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [2, 2]


def test_a_freed_part_of_another_graph():
    x = leaf(2.0)
    shared = x * x
    (shared * 3).backward()
    with pytest.raises(GradientError, match="backward of mul"):
        (shared * 5).backward()


def test_backward_of_several_tensors():
    x = leaf([1.0, 2.0])
    a, b = x * 2, x * x
    backward([a, b], [gl.tensor([1.0, 1.0]), gl.tensor([1.0, 10.0])])
    assert x.grad.tolist() == [4, 42]
    with pytest.raises(GradientError, match="expected 2 gradients, got 1"):
        backward([a, b], [gl.tensor([1.0, 1.0])])


def test_backward_of_one_tensor_twice_in_a_call():
    x = leaf(3.0)
    y = x * x
    backward([y, y])
    assert float(x.grad) == 12


def test_backward_with_inputs():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    h = x * y
    (h + y).sum().backward(inputs=[x, h])
    assert x.grad.tolist() == [3, 4]
    assert h.grad.tolist() == [1, 1]
    assert y.grad is None
    (x + y).sum().backward(inputs=[x, y])
    x.grad.zero_()
    assert y.grad.tolist() == [1, 1]
    grad_before = y.grad
    (x + y).sum().backward(inputs=y)
    assert y.grad is grad_before
    assert y.grad.tolist() == [2, 2]
    (x + y).sum().backward(inputs=[y, y])
    assert y.grad.tolist() == [3, 3]
    with pytest.raises(GradientError, match="expected inputs to compute gradients for, got none"):
        (x + y).sum().backward(inputs=[])


def test_complex_results_need_a_gradient():
    y = leaf([1.0, 2.0]) * gl.tensor([1j, 2j])
    with pytest.raises(GradientError, match="expected a real scalar, got complex64"):
        y.sum().backward()


def test_backward_through_a_leaf_that_is_gone():
    def result():
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        y = leaf(2.0)
        return x.reshape(4).expand(3, 4).sum() * y, y

    total, y = result()
    gc.collect()
    total.backward()
    assert float(y.grad) == 30


def test_results_that_need_no_gradient_record_nothing():
    x, y = gl.tensor([1.0, 2.0]), leaf([1.0, 2.0])
    assert (x * 2).grad_fn is None
    (x * y).sum().backward()
    assert x.grad is None


# ---------------------------------------------------------------------------- autograd.grad


def test_grad_touches_no_grad():
    x, y = leaf([1.0, 2.0]), leaf(3.0)
    gx, gy = grad((x * x * y).sum(), (x, y))
    assert gx.tolist() == [6, 12]
    assert float(gy) == 5
    assert x.grad is None
    assert y.grad is None
    assert not gx.requires_grad


def test_gradients_that_grad_returns_have_memory_of_their_own():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    start = gl.tensor([1.0, 1.0])
    for create_graph in (False, True):
        gx, gy = grad(x + y, (x, y), start, create_graph=create_graph)
        gx.detach().mul_(5)
        assert gy.tolist() == start.tolist() == [1, 1]
    (g,) = grad(x.sum(), x)  # a sum's gradient is one number, stretched
    g += 1
    assert g.tolist() == [2, 2]


def test_grad_of_an_inner_result():
    x = leaf(2.0)
    h = x * 3
    (gh,) = grad(h * h, h)
    assert float(gh) == 12
    gx, gh = grad(h * h * x, [x, h])
    assert (float(gx), float(gh)) == (36 + 72, 24)


def test_grad_does_not_run_what_is_not_asked_for():
    ran = []
    x, y = leaf([1.0, -2.0]), leaf([3.0, 4.0])
    a = relu(x)
    a.register_hook(lambda g: ran.append("a"))
    b = y * 2
    b.register_hook(lambda g: ran.append("b"))
    grad((a * b).sum(), y)
    assert ran == ["b"]


def test_grad_outputs():
    x = leaf([1.0, 2.0])
    (g,) = grad(x * x, x, gl.tensor([1.0, 10.0]))
    assert g.tolist() == [2, 40]
    (g,) = grad([x * x, x], x, [gl.tensor([1.0, 10.0]), gl.tensor([1.0, 1.0])])
    assert g.tolist() == [3, 41]


def test_grad_of_an_unused_input():
    x, y = leaf([1.0, 2.0]), leaf([3.0])
    expected = (
        "grad: the outputs do not depend on input 1 (shape (1,)); leave it out, or pass "
        "allow_unused=True"
    )
    with pytest.raises(GradientError) as caught:
        grad((x * 2).sum(), [x, y])
    assert str(caught.value) == expected
    gx, gy = grad((x * 2).sum(), [x, y], allow_unused=True)
    assert gx.tolist() == [2, 2]
    assert gy is None
    _, gy = grad((x * 2).sum(), [x, y], materialize_grads=True)
    assert gy.tolist() == [0]


def test_grad_of_an_input_without_gradient():
    x, y = leaf(1.0), gl.tensor(2.0)
    with pytest.raises(GradientError, match="grad: expected inputs that require a gradient"):
        grad(x * y, y)


def test_grad_to_the_fourth_order():
    x = leaf(2.0, dtype="float64")
    y = x**5 + exp(x)
    expected = [
        5 * 2**4,
        20 * 2**3,
        60 * 2**2,
        120 * 2,
    ]
    for coefficient in expected:
        (y,) = grad(y, x, create_graph=True)
        assert float(y) == pytest.approx(coefficient + np.exp(2.0), rel=1e-12)


def test_mixed_derivatives():
    x, y = leaf(0.5, dtype="float64"), leaf(1.5, dtype="float64")
    (gx,) = grad(sin(x * y), x, create_graph=True)
    (gxy,) = grad(gx, y)
    assert float(gxy) == pytest.approx(np.cos(0.75) - 0.75 * np.sin(0.75), rel=1e-12)


def test_gradient_penalty_reaches_the_parameters():
    w, x = leaf([0.5, -1.0]), leaf([2.0, 3.0])
    (gx,) = grad(square(w * x).sum(), x, create_graph=True)  # 2w²x
    square(gx).sum().backward()  # 4w⁴x², so 16w³x² for w and 8w⁴x for x
    assert_close(w.grad, [16 * 0.125 * 4, -16 * 9.0])
    assert_close(x.grad, [8 * 0.0625 * 2, 8 * 3.0])


def test_backward_with_create_graph():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    first.backward()
    assert float(x.grad) == 18


def test_second_order_through_broadcasting_and_views():
    x = leaf([[1.0, 2.0], [3.0, 4.0]], dtype="float64")
    y = (x[0] * x.T[:, 1:]).sum() + x.reshape(4)[::2].sum()
    (g,) = grad(y * y, x, create_graph=True)
    assert gl.testing.gradcheck(lambda x: (x[0] * x.T[:, 1:]).sum() ** 2, x, order=2)
    assert g.requires_grad


def test_zero_gradients_stay_zero_beside_infinities():
    x = leaf([1.5, 2.5])
    y = floor(x) * float("inf")
    y.sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_gradients_at_the_edge_of_the_domain():
    x = leaf([0.0, 4.0])
    (x**0.5).sum().backward()
    assert x.grad.tolist() == [float("inf"), 0.25]
    x = leaf([0.0, 2.0])
    (x**0).sum().backward()
    assert x.grad.tolist() == [0, 0]
    x = leaf([0.0, 1.0])
    log(x).sum().backward()
    assert x.grad.tolist() == [float("inf"), 1]
    base, power = leaf([0.0, 2.0]), leaf([2.0, 3.0])
    (base**power).sum().backward()
    assert base.grad.tolist() == [0, 12]
    assert_close(power.grad, [0.0, 8 * np.log(2.0)], rtol=1e-6)


# -------------------------------------------------------------------------- views and detach


def test_gradients_of_views():
    x = leaf(np.arange(12.0).reshape(3, 4))
    y = x[1:].T[::2].reshape(2, 2)[:, 1]
    (y * gl.tensor([1.0, 10.0])).sum().backward()
    expected = np.zeros((3, 4))
    expected[2, 0], expected[2, 2] = 1, 10
    assert x.grad.tolist() == expected.tolist()


def test_detach():
    x = leaf([1.0, 2.0])
    d = (x * 2).detach()
    assert not d.requires_grad
    assert d.is_leaf
    y = x.detach()
    assert y.data_ptr() == x.data_ptr()
    (x * x.detach()).sum().backward()
    assert x.grad.tolist() == [1, 2]
    z = x * 2
    assert z.detach_() is z
    assert not z.requires_grad


def test_data():
    x = leaf([1.0, 2.0])
    assert not x.data.requires_grad
    identity = id(x)
    x.data = gl.tensor([5.0, 6.0])
    assert id(x) == identity
    assert x.requires_grad
    assert x.tolist() == [5, 6]
    with pytest.raises(DTypeError, match="data: expected a tensor, got list"):
        x.data = [1.0]


def test_numpy_and_dlpack_of_a_recorded_tensor_are_refused():
    x = leaf([1.0, 2.0])
    for call in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(GradientError, match=r"does not require a gradient.*use \.detach\(\)"):
            call()
    with pytest.raises(GradientError, match=r"requires a gradient; use \.detach\(\)"):
        np.from_dlpack(x)
    assert x.numpy(force=True).tolist() == [1, 2]


# -------------------------------------------------------------------------------- the modes


def test_no_grad():
    x = leaf([1.0, 2.0])
    with no_grad():
        assert not is_grad_enabled()
        y = x * 2
    assert is_grad_enabled()
    assert not y.requires_grad
    assert x.requires_grad


def test_modes_nest_and_are_put_back():
    with no_grad():
        with enable_grad():
            assert is_grad_enabled()
            with no_grad():
                assert not is_grad_enabled()
            assert is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_modes_are_put_back_after_an_error():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_one_mode_object_may_be_entered_again():
    mode = no_grad()
    with mode:
        with mode:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


@pytest.mark.parametrize("decorate", [no_grad, no_grad()], ids=["@no_grad", "@no_grad()"])
def test_no_grad_as_a_decorator(decorate):
    @decorate
    def double(x, depth=1):
        """Twice x."""
        assert not is_grad_enabled()
        return x * 2 if depth == 0 else double(x, depth - 1)

    assert double.__name__ == "double"
    assert double.__doc__ == "Twice x."
    assert not double(leaf(1.0)).requires_grad
    assert is_grad_enabled()


@pytest.mark.parametrize("decorate", [enable_grad, enable_grad()], ids=["bare", "called"])
def test_enable_grad_as_a_decorator(decorate):
    @decorate
    def double(x):
        return x * 2

    with no_grad():
        assert double(leaf(1.0)).requires_grad
        assert not is_grad_enabled()


def test_inference_mode():
    x = leaf([1.0, 2.0])
    with inference_mode():
        assert is_inference_mode_enabled()
        assert not is_grad_enabled()
        y = x * 2
        view = y[0]
    assert not is_inference_mode_enabled()
    assert is_grad_enabled()
    assert not y.requires_grad
    assert float(view) == 2
    with inference_mode(False):
        assert (x * 2).requires_grad

    @inference_mode()
    def double(x):
        return x * 2

    assert not double(x).requires_grad


@pytest.mark.parametrize("decorate", [inference_mode, inference_mode()], ids=["bare", "called"])
def test_inference_mode_as_a_decorator(decorate):
    @decorate
    def double(x):
        assert is_inference_mode_enabled()
        return x * 2

    assert not double(leaf(1.0)).requires_grad
    assert not is_inference_mode_enabled()


def test_set_grad_enabled():
    x = leaf(1.0)
    for flag in (False, True):
        with set_grad_enabled(flag):
            assert (x * 2).requires_grad is flag
        assert is_grad_enabled()
    set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        set_grad_enabled(True)
    assert (x * 2).requires_grad

    @set_grad_enabled(False)
    def double(x):
        return x * 2

    assert is_grad_enabled()
    assert not double(x).requires_grad
    assert is_grad_enabled()


def test_modes_belong_to_the_thread():
    seen = {}
    inside, done = threading.Event(), threading.Event()

    def other():
        seen["start"] = is_grad_enabled()
        with no_grad():
            inside.set()
            done.wait(5)

    with no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(5)
    assert is_grad_enabled()  # although the other thread is inside no_grad()
    done.set()
    thread.join()
    assert seen == {"start": True}


def test_threads_compute_at_once():
    def work(results, i):
        x = leaf(np.full(100, float(i)))
        for _ in range(50):
            (sin(x) * x).sum().backward()
        results[i] = x.grad.numpy()

    results = {}
    threads = [threading.Thread(target=work, args=(results, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        expected = 50 * (i * np.cos(i) + np.sin(i))
        assert_close(results[i], np.full(100, expected, dtype=np.float32), rtol=1e-4)


def test_generators_do_not_leak_the_mode():
    def batches():
        with no_grad():
            yield 1
            yield 2

    for _ in batches():
        pass
    assert is_grad_enabled()


def test_backward_inside_no_grad():
    x = leaf(2.0)
    y = x * x
    with no_grad():
        y.backward()
    assert float(x.grad) == 4
    assert is_grad_enabled()


def test_the_mode_is_put_back_when_backward_fails():
    y = leaf(2.0) * 2

    def fail(g):
        raise KeyError

    y.register_hook(fail)
    with pytest.raises(KeyError):
        y.backward()
    assert is_grad_enabled()


# --------------------------------------------------------------------------------- hooks


def test_a_hook_sees_the_gradient():
    seen = []
    x = leaf([1.0, 2.0])
    y = x * 2
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    (y * y).sum().backward()
    assert seen == [("y", [4, 8]), ("x", [8, 16])]


def test_a_hook_replaces_the_gradient():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)
    y.sum().backward()
    assert x.grad.tolist() == [22, 22]
    x.grad = None
    x.register_hook(lambda g: g.clamp(max=5.0))
    (x * gl.tensor([1.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [1, 5]


def test_a_hook_of_a_leaf_runs_once_with_the_whole_gradient():
    seen = []
    x = leaf(1.0)
    x.register_hook(lambda g: seen.append(float(g)))
    (x * 2 + x * 3).backward()
    assert seen == [5]


def test_hooks_can_be_removed():
    seen = []
    x = leaf(1.0)
    handle = x.register_hook(lambda g: seen.append("kept"))
    other = x.register_hook(lambda g: seen.append("removed"))
    other.remove()
    other.remove()
    (x * 1).backward()
    assert seen == ["kept"]
    with handle:
        pass
    (x * 1).backward()
    assert seen == ["kept"]


def test_hooks_run_in_grad_too():
    x = leaf(1.0)
    y = x * 2
    y.register_hook(lambda g: g * 7)
    assert float(grad(y, x)[0]) == 14
    assert float(grad(y, y)[0]) == 7


def test_hooks_in_a_graph_of_the_graph():
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * x)  # the gradient becomes 2x², its own 4x
    (g,) = grad(y, x, create_graph=True)
    assert float(g) == 8
    assert float(grad(g, x)[0]) == 8


@pytest.mark.parametrize(
    ("result", "got"), [(lambda g: 3.0, "float"), (lambda g: g.reshape(2, 1), r"\(2, 1\)")]
)
def test_a_hook_must_return_a_gradient(result, got):
    x = leaf([1.0, 2.0])
    x.register_hook(result)
    with pytest.raises(GradientError, match=rf"hook: expected None or a tensor.*\(2,\), got {got}"):
        (x * 2).sum().backward()


def test_hooks_need_a_gradient():
    with pytest.raises(GradientError, match="register_hook: expected a tensor that requires"):
        gl.tensor(1.0).register_hook(print)


def test_retain_grad():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    z = y * y
    z.sum().backward(retain_graph=True)
    assert y.grad.tolist() == [4, 8]
    assert z.grad is None
    z.sum().backward()
    assert y.grad.tolist() == [8, 16]
    x.retain_grad()  # a leaf keeps its gradient anyway
    with pytest.raises(GradientError, match="retain_grad: expected a tensor that requires"):
        gl.tensor(1.0).retain_grad()


def test_a_retained_gradient_is_a_copy():
    x = leaf([1.0, 2.0])
    y = x + 0
    y.retain_grad()
    start = gl.tensor([1.0, 1.0])
    y.backward(start)
    y.grad.zero_()
    assert start.tolist() == [1, 1]
    assert x.grad.tolist() == [1, 1]


def test_retain_grad_keeps_nothing_alive():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    z = y.sum()
    alive = weakref.ref(y)
    del y
    assert alive() is None
    z.backward()
    assert x.grad.tolist() == [2, 2]


# ----------------------------------------------------------------------- depth and lifetime


@pytest.fixture
def without_collector():
    """Reference counting alone: a cycle in the graph would stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_chain_of_100_000_nodes():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = (y + 1) * 1.0
    y.backward()
    assert float(x.grad) == 1
    del y  # must not recurse either
    gc.collect()


def test_a_chain_of_100_000_nodes_that_is_never_walked():
    x = leaf([1.0])
    y = x
    for _ in range(100_000):
        y = y * x
    del y


def test_a_chain_of_20_000_views():
    x = leaf([1.0, 2.0])
    y = x * 1
    first = y
    for _ in range(20_000):
        y = y[...]
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]
    first.detach().mul_(2)  # every view of the chain is out of date now
    assert y.requires_grad
    y = y[:1]
    y *= 3
    assert first.tolist() == [6, 4]
    del y, first


def test_a_long_chain_of_in_place_writes():
    x = leaf(1.0)
    y = x * 1.0
    for _ in range(20_000):
        y += x
    y.backward()
    assert float(x.grad) == 20_001


def test_a_deep_graph_in_grad_and_of_second_order():
    x = leaf(1.0, dtype="float64")
    y = x
    for _ in range(2_000):
        y = sin(y)
    (g,) = grad(y, x, create_graph=True)
    (gg,) = grad(g, x)
    assert np.isfinite(float(gg))


def test_buffers_are_freed_by_backward(without_collector):
    x = leaf([1.0, 2.0])
    inner = exp(x)
    array = weakref.ref(inner.detach().numpy())
    y = (inner * inner).sum()
    del inner
    assert array() is not None
    y.backward()
    assert array() is None, "the graph still holds the values it saved"


def test_buffers_of_the_retained_graph_stay(without_collector):
    x = leaf([1.0, 2.0])
    inner = exp(x)
    array = weakref.ref(inner.detach().numpy())
    y = (inner * inner).sum()
    del inner
    y.backward(retain_graph=True)
    assert array() is not None
    del y
    assert array() is None


def make_views(x):
    y = x * 2
    y[0] *= x[1]
    y[1:] = x[:-1] * x[1:]
    return y.reshape(-1)[::2] * x[::2]


class Product(gl.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        z = x * y
        ctx.save_for_backward(x, y, z)
        return z, x + y

    @staticmethod
    def backward(ctx, gz, gs):
        x, y, _ = ctx.saved_tensors
        return gz * y + gs, gz * x + gs


GRAPHS = {
    "arithmetic": lambda x: exp(x) * x / (1 + x * x),
    "views and writes": make_views,
    "a tensor times itself in place": lambda x: (x * 1).mul_(x),
    "reductions": lambda x: (x - x.mean()) / x.std() + x.logsumexp(0) + x.softmax(0),
    "matmul": lambda x: x.reshape(2, 2) @ x.reshape(2, 2),
    "indexing": lambda x: where(x > 0, x[gl.tensor([0, 0, 1, 2])], x),
    "joining": lambda x: gl.cat([x, x * 2]),
    "function": lambda x: sum(Product.apply(x, x * 2)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_free_of_cycles(name, without_collector):
    x = leaf(np.linspace(0.5, 2.0, 4))
    for use in ("forgotten", "backward", "create_graph", "hooked"):
        y = GRAPHS[name](x)
        node = weakref.ref(TrackedNode.track(y))
        if use == "backward":
            y.sum().backward()
        if use == "create_graph":
            (g,) = grad(y.sum(), x, create_graph=True)
            g = g * g
            del g
        if use == "hooked":
            y.register_hook(lambda g: g * 2)
            y.retain_grad()
            y.sum().backward()
        del y
        assert node() is None, f"the graph outlives its last tensor ({use})"
        x.grad = None


class TrackedNode:
    """Something that lives as long as a node: the node's slots allow no weak reference to it."""

    @staticmethod
    def track(y):
        tracked = TrackedNode()
        y.grad_fn.attributes = {**(y.grad_fn.attributes or {}), "tracked": tracked}
        return tracked

    def __init__(self):
        pass


def test_a_training_loop_does_not_grow(without_collector):
    w = leaf(np.ones(3))
    x = gl.tensor([1.0, 2.0, 3.0])

    def step():
        loss = square((w * x).sum() - 1)
        loss.backward()
        with no_grad():
            w.sub_(w.grad * 0.01)
        w.grad = None

    step()
    before = len(gc.get_objects())
    for _ in range(100):
        step()
    assert len(gc.get_objects()) - before < 50


# ------------------------------------------------------------------------------------- misc


def test_an_op_without_gradient_says_why():
    op = Op(
        "scale",
        lambda xp, x, s: x * s,
        inputs=("x", "s"),
        gradients={"x": lambda gy, s: gy * s},
        why_not="it is given by the hardware",
        register=False,
    )
    with pytest.raises(GradientError) as caught:
        apply(op, (leaf([1.0]), leaf([2.0])))
    assert str(caught.value) == (
        "scale has no gradient with respect to s: it is given by the hardware; call it on "
        "s.detach(), or inside no_grad()"
    )


def test_a_gradient_of_the_wrong_shape_names_the_op():
    op = Op("half", lambda xp, x: x / 2, gradients={"x": lambda gy: gy.sum()}, register=False)
    x = leaf([1.0, 2.0])
    with pytest.raises(GradientError, match=r"backward of half: expected a gradient of shape \(2,"):
        apply(op, (x,)).sum().backward()


def test_walking_the_graph():
    x = leaf(1.0)
    y = x * 2 + 1
    names = []
    node = y.grad_fn
    while node is not None:
        names.append(node.name)
        node = next((each for each, _ in node.next_functions if each is not None), None)
    assert names == ["AddBackward0", "MulBackward0", "AccumulateGrad"]


def test_gradient_on_another_device_is_refused(fake_cuda):
    x = leaf([1.0, 2.0])
    with pytest.raises(
        DeviceError, match=r"backward: expected a gradient on cpu, .*\.to\(\"cpu\"\)"
    ):
        (x * 2).backward(gl.tensor([1.0, 1.0], device="cuda"))
