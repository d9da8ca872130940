"""Writes in place: object and memory stay, and gradients stay right or the write is refused."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab.autograd import grad, inference_mode, no_grad
from gradlab.errors import AxisError, DTypeError, GradientError, OptionError, ShapeError
from gradlab.ops.elementwise import exp, sigmoid, sin, sqrt, where
from gradlab.testing import assert_close, gradcheck


def leaf(values, dtype="float32"):
    return gl.tensor(values, dtype=dtype, requires_grad=True)


def set_all(x, v):
    x[...] = v
    return x


# Every way to write, as a function of the tensor; its name in messages; what becomes of 2.0.
WRITES = {
    "+=": (lambda x: x.__iadd__(3), "add_", 5.0),
    "-=": (lambda x: x.__isub__(3), "sub_", -1.0),
    "*=": (lambda x: x.__imul__(3), "mul_", 6.0),
    "/=": (lambda x: x.__itruediv__(4), "div_", 0.5),
    "//=": (lambda x: x.__ifloordiv__(2), "floor_divide_", 1.0),
    "%=": (lambda x: x.__imod__(1.5), "remainder_", 0.5),
    "**=": (lambda x: x.__ipow__(3), "pow_", 8.0),
    "add_": (lambda x: x.add_(3), "add_", 5.0),
    "add_ alpha": (lambda x: x.add_(3, alpha=2), "add_", 8.0),
    "sub_": (lambda x: x.sub_(3), "sub_", -1.0),
    "mul_": (lambda x: x.mul_(3), "mul_", 6.0),
    "div_": (lambda x: x.div_(4), "div_", 0.5),
    "pow_": (lambda x: x.pow_(2), "pow_", 4.0),
    "exp_": (lambda x: x.exp_(), "exp_", np.exp(2.0)),
    "sqrt_": (lambda x: x.sqrt_(), "sqrt_", np.sqrt(2.0)),
    "neg_": (lambda x: x.neg_(), "neg_", -2.0),
    "relu_": (lambda x: x.relu_(), "relu_", 2.0),
    "clamp_": (lambda x: x.clamp_(max=1.5), "clip_", 1.5),
    "zero_": (lambda x: x.zero_(), "zero_", 0.0),
    "fill_": (lambda x: x.fill_(7), "fill_", 7.0),
    "copy_": (lambda x: x.copy_(gl.tensor(9.0)), "copy_", 9.0),
    "setitem": (lambda x: set_all(x, 4), "setitem", 4.0),
}


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_object_memory_shape_and_dtype_stay(way, dtype):
    write, _, expected = WRITES[way]
    x = gl.tensor([[2.0, 2.0], [2.0, 2.0]], dtype=dtype)
    identity, address, array = id(x), x.data_ptr(), x.numpy()
    y = write(x)
    assert y is x
    assert (id(x), x.data_ptr(), x.shape) == (identity, address, (2, 2))
    assert x.dtype == dtype
    assert_close(array.astype(np.float64), np.full((2, 2), expected), rtol=1e-2)


def test_operators_keep_the_name_bound_to_the_object():
    x = gl.tensor([1.0, 2.0])
    before = x
    x += 1
    x[0] = 9
    x *= 2
    assert x is before
    assert x.tolist() == [18, 6]


@pytest.mark.parametrize("way", WRITES)
def test_a_write_to_a_leaf_is_refused(way):
    write, name, expected = WRITES[way]
    x = leaf([2.0, 2.0])
    text = (
        f"{name}: expected a tensor whose value may change, got a leaf tensor that requires a "
        "gradient, of shape (2,); write inside no_grad(), or to a clone()"
    )
    with pytest.raises(GradientError) as caught:
        write(x)
    assert str(caught.value).replace("a view of a leaf", "a leaf") == text
    assert x.tolist() == [2, 2]
    with no_grad():
        write(x)
    assert_close(x.detach(), [float(expected)] * 2)
    assert x.requires_grad
    assert x.is_leaf


@pytest.mark.parametrize("way", WRITES)
def test_a_write_to_a_view_of_a_leaf_is_refused(way):
    write, name, _ = WRITES[way]
    x = leaf([[2.0, 2.0], [3.0, 3.0]])
    for view in (x[0], x.T[:, 1], x.reshape(4)[::2]):
        with pytest.raises(GradientError, match=f"{name}: .*got a view of a leaf tensor that requ"):
            write(view)
    assert x.tolist() == [[2, 2], [3, 3]]


def test_a_view_taken_before_the_leaf_required_a_gradient():
    x = gl.tensor([1.0, 2.0])
    view = x[0:1]
    x.requires_grad_()
    with pytest.raises(GradientError, match="a view of a leaf tensor"):
        view += 1
    assert not view.requires_grad


def test_a_view_that_became_a_leaf():
    x = gl.tensor([1.0, 2.0])
    view = x[0:1].requires_grad_()
    w = leaf(3.0)
    x *= w
    assert view.is_leaf
    (view * 2).backward()
    assert view.grad.tolist() == [2]
    with pytest.raises(GradientError, match="a leaf tensor"):
        view += 1


# ------------------------------------------------------------------- saved values are guarded


@pytest.mark.parametrize("way", WRITES)
def test_a_write_to_a_saved_value_is_refused_in_backward(way):
    write, name, _ = WRITES[way]
    x = leaf([2.0, 2.0])
    y = x * 1
    z = y * y
    write(y)
    with pytest.raises(GradientError) as caught:
        z.sum().backward()
    assert str(caught.value) == (
        "backward of mul: expected the float32 value of shape (2,) that the forward pass saved, "
        f"got one that {name} changed in place since; use the out-of-place form, or clone() the "
        "value before changing it"
    )


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize(
    "other",
    [
        lambda y: y.detach(),
        lambda y: y[0:1],
        lambda y: y.reshape(1, 2).T,
        lambda y: y.detach()[1:],
        lambda y: y.data,
    ],
    ids=["detach", "slice", "view of a view", "view of detach", "data"],
)
def test_a_write_through_another_tensor_is_noticed(way, other):
    write, name, _ = WRITES[way]
    x = leaf([2.0, 2.0])
    y = x * 1
    z = y * y
    write(other(y))
    with pytest.raises(GradientError, match=f"that {name} changed in place since"):
        z.sum().backward()


def test_a_write_under_no_grad_is_noticed_too():
    x = leaf([2.0, 2.0])
    y = x * 1
    z = y * y
    with no_grad():
        y.add_(1)
    with pytest.raises(GradientError, match="that add_ changed"):
        z.sum().backward()


def test_a_write_to_a_leaf_under_no_grad_is_noticed():
    x = leaf([2.0, 2.0])
    z = x * x
    with no_grad():
        x.mul_(2)
    with pytest.raises(GradientError, match="that mul_ changed"):
        z.sum().backward()


@pytest.mark.parametrize("function", [exp, sigmoid, sqrt], ids=["exp", "sigmoid", "sqrt"])
def test_a_write_to_a_saved_result_is_noticed(function):
    x = leaf([2.0, 2.0])
    y = function(x)
    y.mul_(2)
    with pytest.raises(GradientError, match=r"backward of \w+: .*that mul_ changed"):
        y.sum().backward()


def test_a_write_that_no_gradient_needs_is_fine():
    x = leaf([2.0, 3.0])
    y = x + 1  # the gradient of a sum needs no value
    y.mul_(10)
    y.sum().backward()
    assert x.grad.tolist() == [10, 10]
    x.grad = None
    y = x * 1
    z = y * 3
    y.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_a_write_before_a_value_is_saved_is_fine():
    x = leaf([2.0, 3.0])
    y = x * 1
    y.add_(1)
    y[0] = 5
    (y * y).sum().backward()
    assert x.grad.tolist() == [0, 8]


def test_a_write_elsewhere_in_the_memory_is_noticed_as_in_pytorch():
    x = leaf([2.0, 3.0])
    y = x * 1
    z = y[0] * y[0]
    y[1] = 0.0
    with pytest.raises(GradientError, match="that setitem changed"):
        z.backward()


def test_a_write_after_backward_is_fine():
    x = leaf([2.0, 3.0])
    y = x * 1
    (y * y).sum().backward()
    y.zero_()
    assert x.grad.tolist() == [4, 6]


def test_saved_values_in_a_function_are_guarded():
    class Square(gl.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gy):
            (x,) = ctx.saved_tensors
            return gy * x * 2

    x = leaf([2.0, 3.0])
    y = x * 1
    z = Square.apply(y)
    y.add_(1)
    with pytest.raises(GradientError, match=r"saved_tensors: .*shape \(2,\) was changed .*add_"):
        z.sum().backward()


def test_an_index_may_be_reused():
    x = leaf([1.0, 2.0, 3.0])
    index = np.array([0, 2])
    y = x[index]
    index[:] = 1
    mask = gl.tensor([True, False, False])
    z = x[mask]
    mask.fill_(True)
    (y.sum() + z.sum() * 10).backward()
    assert x.grad.tolist() == [11, 0, 1]


# --------------------------------------------------------------------- gradients after writes


def check(function, *shapes):
    random = np.random.default_rng(0)
    inputs = [random.uniform(0.5, 1.5, shape) for shape in shapes]
    assert gradcheck(function, inputs, order=2)


def product(x, y):
    z = x * 1
    z *= y
    return z


def own_product(x):
    z = x * 1
    z *= z
    return z


def reversed_product(x):
    z = x * 1
    z *= z.flip(0)
    return z


def powers(x, y):
    z = x * 1
    z **= y
    z /= y
    z -= x
    return z


def broadcast_write(x, y):
    z = x * 1
    z += y
    z[1] *= y
    return z


def rows(x, v):
    out = gl.zeros(3, 4, dtype="float64")
    for i in range(3):
        out[i] = sin(v * (i + 1))
    return out * x


def recurrence(x):
    out = gl.zeros(5, dtype="float64")
    out[0] = x[0]
    for i in range(1, 5):
        out[i] = out[i - 1] * 0.5 + x[i]
    return out


def one_cell(x, v):
    z = x * 1
    z[1, 2] = v
    z[0, 0] *= v
    return z * z.clone()


def siblings(x):
    z = x * 1
    left, right = z[:, :2], z[:, 2:]
    left *= 3
    right += left
    return z * right.sum()


def view_before_write(x, v):
    z = x * 1
    row = z[1]
    z *= v
    return row * row.clone()


def chain_of_views(x, v):
    z = x * 1
    z.T[1:].reshape(3, 3)[::2][1] *= v
    return z


def write_through_two_views(x, v):
    z = x * 1
    outer = z[1:]
    inner = outer[:, 1]
    inner += v[:2]
    outer *= 2
    inner -= 1
    return z + outer.sum() + inner.sum()


def masked(x, v):
    z = x * 1
    z[x > 1] = 0.5
    z[:, gl.tensor([0, 3])] = v[:2]
    return z * x


def masked_many(x, v):
    z = x * 1
    mask = gl.tensor([[True, False, False, True]] * 3)
    z[mask] = (v[:3, None] * gl.tensor([[1.0, 2.0]], dtype="float64")).reshape(6)
    return z * x


def plain_target(x, v):
    buffer = gl.zeros(3, 4, dtype="float64")
    view = buffer[1:]
    view += v
    buffer *= x
    return view * 2


def filled(x, v):
    z = x * 1
    z.fill_(v.sum())
    z[0].zero_()
    z[2].copy_(v)
    return z * x


def functions(x):
    z = x * 1
    z.exp_().sqrt_().sin_().neg_()
    z[1:].clamp_(max=-0.9)
    return z


def swapped(x):
    z = x * 1
    z[0], z[1] = z[1].clone(), z[0].clone()
    return z * x


def overlapping(x):
    z = x * 1
    z[1:] = z[:-1].clone() * 2
    return z * x


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (product, [(3, 4), (4,)]),
        (own_product, [(3,)]),
        (reversed_product, [(4,)]),
        (powers, [(3,), (3,)]),
        (broadcast_write, [(3, 4), (4,)]),
        (rows, [(3, 4), (4,)]),
        (recurrence, [(5,)]),
        (one_cell, [(3, 4), ()]),
        (siblings, [(3, 4)]),
        (view_before_write, [(3, 4), (4,)]),
        (chain_of_views, [(3, 4), (3,)]),
        (write_through_two_views, [(3, 4), (4,)]),
        (masked, [(3, 4), (4,)]),
        (masked_many, [(3, 4), (4,)]),
        (plain_target, [(3, 4), (4,)]),
        (filled, [(3, 4), (4,)]),
        (functions, [(3, 4)]),
        (swapped, [(3, 4)]),
        (overlapping, [(3, 4)]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_gradients(function, shapes):
    check(function, *shapes)


def test_views_get_their_history_without_being_used():
    base = gl.tensor([1.0, 2.0])
    view = base[0]
    w = leaf(3.0)
    assert not view.requires_grad
    base *= w
    assert view.requires_grad
    assert not view.is_leaf
    assert view.grad_fn is not None
    assert "grad_fn" in repr(view)
    with pytest.raises(GradientError):
        view.numpy()
    view.backward(retain_graph=True)
    assert float(w.grad) == 1
    assert float(grad(view, w)[0]) == 1


def test_the_written_tensor_gets_the_history_of_the_value():
    buffer = gl.zeros(3)
    w = leaf(2.0)
    buffer[1] = w * 3
    assert buffer.requires_grad
    assert buffer.grad_fn.name == "ScatterViewBackward0"
    buffer.sum().backward()
    assert float(w.grad) == 3


def test_a_broadcast_value_gets_a_gradient_of_its_own_shape():
    buffer = gl.zeros(2, 3)
    v = leaf([[[1.0, 2.0, 3.0]]])  # NumPy lets a value have more axes than its place
    buffer[0] = v
    buffer[gl.tensor([1])] = v
    buffer.sum().backward()
    assert v.grad.tolist() == [[[2, 2, 2]]]


def test_a_cast_value_gets_a_gradient_of_its_own_dtype():
    buffer = gl.zeros(3, dtype="float64")
    v = leaf(1.5, dtype="float16")
    buffer[1] = v
    buffer.sum().backward()
    assert v.grad.dtype == gl.float16


def test_a_value_written_to_integers_loses_its_history():
    buffer = gl.zeros(3, dtype="int64")
    buffer[1] = leaf(2.7)
    assert buffer.tolist() == [0, 2, 0]
    assert not buffer.requires_grad


def test_a_recorded_write_must_fit_the_dtype():
    x = gl.tensor([1, 2])
    with pytest.raises(DTypeError, match=r"mul_: expected a result that fits int64, .*got f"):
        x *= leaf([1.5, 2.5])
    assert x.tolist() == [1, 2]
    assert not x.requires_grad


def test_a_hook_before_a_write_belongs_to_the_value_before():
    seen = []
    x = leaf([1.0, 2.0])
    y = x * 1
    y.register_hook(lambda g: seen.append(("before", g.tolist())))
    y *= 10
    y.register_hook(lambda g: seen.append(("after", g.tolist())))
    y.sum().backward()
    assert seen == [("after", [1, 1]), ("before", [10, 10])]


def test_detached_writes_are_not_part_of_the_graph():
    x = leaf([1.0, 2.0])
    y = x + 0
    y.detach().mul_(5)
    y.sum().backward()
    assert y.tolist() == [5, 10]
    assert x.grad.tolist() == [1, 1]


def test_a_view_made_in_no_grad_refuses_recorded_writes():
    x = leaf([1.0, 2.0])
    y = x * 1
    with no_grad():
        view = y[0]
    expected = (
        "mul_: expected a tensor whose writes can be recorded, got a view made inside no_grad() "
        "of a tensor that requires a gradient; make the view outside no_grad(), or write inside it"
    )
    with pytest.raises(GradientError) as caught:
        view *= 2
    assert str(caught.value) == expected
    with no_grad():
        view *= 2
    assert y.tolist() == [2, 2]
    with no_grad():
        view = x[0]
    with pytest.raises(GradientError, match="a view of a leaf tensor"):
        view *= 2


def test_a_view_made_in_no_grad_keeps_no_graph_alive():
    x = leaf([1.0, 2.0])
    y = x * 1
    with no_grad():
        view = y[0]
    del y
    view += 1  # nothing is left that the write could escape
    assert float(view) == 2


def test_memory_that_was_replaced_is_no_longer_looked_into():
    base = gl.tensor([1.0, 2.0])
    view = base[0:1]
    base.data = gl.tensor([5.0, 6.0])
    w = leaf(3.0)
    view *= w
    assert base.tolist() == [5, 6]
    assert not base.requires_grad


def test_replaced_data_shares_its_counter():
    x = leaf([1.0, 2.0])
    values = gl.tensor([3.0, 4.0])
    x.data = values
    y = x * x
    values += 1
    with pytest.raises(GradientError, match="that add_ changed"):
        y.sum().backward()


def test_inference_mode_writes():
    x = leaf([1.0, 2.0])
    with inference_mode():
        y = x * 2
        y[0] = 7
        y += 1
    assert y.tolist() == [8, 5]


def test_where_as_an_alternative_to_masked_writes():
    x = leaf([1.0, -2.0])
    y = where(x > 0, x, 0.0)
    y.sum().backward()
    assert x.grad.tolist() == [1, 0]


# ----------------------------------------------------------------------------------- dtypes


def test_integers_stay_integers():
    x = gl.tensor([7, 8])
    x += 1
    x *= gl.tensor([2, 3], dtype="int8")
    x //= 2
    assert x.tolist() == [8, 13]
    assert x.dtype == gl.int64
    for write in (lambda x: x.__itruediv__(2), lambda x: x.__imul__(0.5)):
        with pytest.raises(
            DTypeError, match="expected a result that fits int64, the dtype written"
        ):
            write(x)


def test_narrow_floats_stay_narrow():
    x = gl.tensor([1.0, 2.0], dtype="float16")
    x *= gl.tensor([0.5, 0.25], dtype="float64")
    assert x.dtype == gl.float16
    assert x.tolist() == [0.5, 0.5]


def test_bool_writes():
    x = gl.tensor([True, False])
    x |= gl.tensor([False, True])
    x &= True
    x ^= gl.tensor([True, False])
    assert x.tolist() == [False, True]
    with pytest.raises(DTypeError, match="add_: expected a result that fits bool"):
        x += 1


def test_copy_casts():
    x = gl.tensor([0, 0])
    x.copy_(gl.tensor([1.7, -1.7]))
    assert x.tolist() == [1, -1]
    x.copy_([3, 4])
    assert x.tolist() == [3, 4]
    x.copy_(np.array([5.5]))
    assert x.tolist() == [5, 5]


# ----------------------------------------------------------------------------------- errors


def test_a_write_may_not_change_the_shape():
    x = gl.tensor([1.0, 2.0])
    with pytest.raises(ShapeError) as caught:
        x += gl.ones(3, 2)
    assert str(caught.value) == (
        "add_: expected a result of the shape (2,) that is written to, got a result of shape "
        "(3, 2); use the out-of-place form"
    )
    with pytest.raises(ShapeError, match="add: expected shapes that broadcast"):
        x += gl.ones(3)
    with pytest.raises(ShapeError, match="copy"):
        x.copy_(gl.ones(3))
    assert x.tolist() == [1, 2]


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("recorded", [False, True], ids=["plain", "recorded"])
def test_read_only_memory(way, recorded):
    write, name, _ = WRITES[way]
    source = gl.tensor([2.0], requires_grad=recorded)
    for x in ((source * 1).expand(3), (source * 1).expand(2, 3)[0]):
        with pytest.raises(OptionError) as caught:
            write(x)
        assert str(caught.value) == (
            f"{name}: expected memory that may be written to, got a read-only tensor of shape "
            "(3,), from expand() or a read-only array; write to a clone()"
        )
    assert source.tolist() == [2]


def test_a_read_only_array():
    array = np.ones(2)
    array.flags.writeable = False
    x = gl.from_numpy(array)
    with pytest.raises(OptionError, match="read-only tensor"):
        x += 1
    x = gl.tensor(array)
    x += 1
    assert x.tolist() == [2, 2]


def test_failed_writes_change_nothing():
    x = gl.tensor([1.0, 2.0])
    y = x * leaf(1.0)
    for write in (
        lambda: x.__setitem__(5, 1.0),
        lambda: x.__setitem__(slice(0, 2), gl.ones(3)),
        lambda: y.__setitem__(5, 1.0),
        lambda: y.__setitem__(slice(0, 2), gl.ones(3)),
        lambda: y.__iadd__(gl.ones(3)),
    ):
        with pytest.raises((AxisError, ShapeError)):
            write()
    assert x.tolist() == [1, 2]
    y.sum().backward()


# -------------------------------------------------------------------------- shared with NumPy


def test_numpy_sees_writes_and_the_tensor_sees_numpys():
    array = np.zeros(3, dtype=np.float32)
    x = gl.from_numpy(array)
    x[1] = 5
    x += 1
    assert array.tolist() == [1, 6, 1]
    array[0] = -1
    assert x.tolist() == [-1, 6, 1]
    out = x.numpy()
    out[2] = 8
    assert x.tolist() == [-1, 6, 8]
    assert np.shares_memory(np.asarray(x), array)


def test_strided_memory_is_shared_too():
    array = np.zeros((4, 6))
    x = gl.from_numpy(array[::2, ::-3])
    x += 1
    assert array.sum() == 4
    assert array[0, 5] == array[2, 2] == 1


def test_a_write_through_overlapping_views_is_as_numpy_does_it():
    x = gl.arange(6)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7, 9]
    x = gl.arange(6)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4]
    x = gl.arange(6)
    x[::-1] = x
    assert x.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.masked_fill_(gl.tensor([True, False]), 0.0),
        lambda x: x.clamp_(0.0, 1.0),
        lambda x: x.lerp_(gl.ones(2), 0.5),
        lambda x: x.nan_to_num_(),
        lambda x: x.cumsum_(0),
        lambda x: x.index_fill_(0, gl.tensor([0]), 3.0),
        lambda x: x.scatter_(0, gl.tensor([0]), gl.tensor([3.0])),
        lambda x: x.tril_() if x.ndim > 1 else x.round_(),
    ],
)
def test_a_leaf_written_under_no_grad_stays_one(write):
    x = leaf([2.0, -2.0])
    with no_grad():
        write(x)
    assert x.requires_grad
    assert x.is_leaf
    (x * x).sum().backward()
    assert_close(x.grad, (2 * x).detach())


# ----------------------------------------------------------------------- places written repeatedly


def _at(x, index):
    return gl.tensor(index, device=x.device)


def _index_put(x, v):
    return x.index_put_((_at(x, [1, 0, 1, 1]),), v)


def _set_pairs(x, v):
    x[_at(x, [0, 2, 0]), _at(x, [1, 1, 1])] = v
    return x


def _set_after_slice(x, v):
    x[1:, gl.tensor([[0, 2], [2, 2]])] = v
    return x


def _set_with_mask(x, v):
    x[gl.tensor([True, False, True])] = v
    return x


SCATTERED = [[0, 0, 1], [2, 2, 2]]
REPEATED = {
    "rows": (lambda x, v: _set_rows(x, v), [(), (3,), (1, 3), (4, 3), (4, 1)]),
    "pairs": (_set_pairs, [(), (3,), (1,)]),
    "after a slice": (_set_after_slice, [(), (2, 2, 2), (2, 1), (1, 2, 2)]),
    "mask": (_set_with_mask, [(), (3,), (2, 3)]),
    "index_put_": (_index_put, [(), (4, 3)]),
    "index_copy_": (lambda x, v: x.index_copy_(0, _at(x, [2, 2, 0]), v), [(3, 3)]),
    "index_fill_": (lambda x, v: x.index_fill_(1, _at(x, [1, 1]), v), [()]),
    "scatter_": (lambda x, v: x.scatter_(0, _at(x, SCATTERED), v), [(), (2, 3), (3, 3)]),
    "scatter, axis 1": (lambda x, v: gl.scatter(x, 1, _at(x, SCATTERED), v), [(), (2, 3)]),
    "scatter_add": (lambda x, v: gl.scatter_add(x, 1, _at(x, SCATTERED), v), [(), (2, 3)]),
    "masked_scatter": (lambda x, v: gl.masked_scatter(x, x.detach() > 0, v), [(9,)]),
    "masked_fill": (lambda x, v: x.masked_fill(_at(x, [True, False, True]), v), [()]),
}


def _set_rows(x, v):
    x[gl.tensor([2, 0, 2, -1])] = v
    return x


def _repeated_cases():
    return [
        pytest.param(write, shape, id=f"{name}-{shape}")
        for name, (write, shapes) in REPEATED.items()
        for shape in shapes
    ]


@pytest.mark.parametrize(("write", "shape"), _repeated_cases())
def test_gradients_of_repeated_places(write, shape):
    rng = np.random.default_rng(0)
    x = gl.tensor(rng.standard_normal((3, 3)), requires_grad=True)
    v = gl.tensor(rng.standard_normal(shape), requires_grad=True)
    assert gradcheck(lambda x, v: sin(write(x * 1, v)), (x, v), order=2)


@pytest.mark.parametrize(("write", "shape"), _repeated_cases())
def test_gradients_of_repeated_places_on_a_gpu(emulator, write, shape):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((3, 3)), rng.standard_normal(shape), rng.standard_normal((3, 3))
    found = []
    for device in ("cuda", "cpu"):
        x, v, w = (gl.tensor(each, device=device) for each in arrays)
        plain = write(x * 1, v)
        y = write(x.requires_grad_() * 1, v.requires_grad_())
        assert y.detach().tolist() == plain.tolist()
        found.append([y.tolist(), *(each.tolist() for each in grad((y * w).sum(), (x, v)))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


def test_a_number_written_twice_to_a_place_counts_once():
    for value in (gl.tensor(2.0), gl.tensor([2.0, 3.0, 4.0])):
        v = value.requires_grad_()
        y = gl.zeros(3, 3)
        y[[0, 0]] = v
        (gv,) = grad(y.sum(), v)
        assert gv.tolist() == gl.ones_like(value).tolist() if v.ndim else gv.item() == 3


def test_only_the_last_of_several_values_has_a_gradient():
    v = gl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = gl.zeros(2)
    y[[0, 1, 0]] = v
    assert y.tolist() == [3.0, 2.0]
    assert grad(y.sum(), v)[0].tolist() == [0.0, 1.0, 1.0]
