"""What a user reads after a mistake with tensors, gradients or devices: one line, word for word.

The messages of a family of ops with many of its own stand in the tests of that family.
"""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab import autograd, errors

# What the user wrote, which error came, and how it reads. In the snippets x is a matrix (2, 3), v a
# vector (2,), i a vector of integers (2,), and r a vector (2,) that requires a gradient.
MISTAKES = [
    # Making tensors
    ("gl.zeros(2, -3)", errors.ShapeError, "zeros: expected sizes of 0 or more, got (2, -3)"),
    ('gl.zeros("a")', errors.ShapeError, "zeros: expected integer sizes, got ('a',)"),
    ("gl.ones(1.5)", errors.ShapeError, "ones: expected integer sizes, got (1.5,)"),
    ('gl.full((2,), "a")', errors.DTypeError, "full: expected numbers, got 'a'"),
    (
        'gl.full((2,), 300, dtype="uint8")',
        errors.DTypeError,
        "full: expected values that fit uint8, from 0 to 255, got 300",
    ),
    ("gl.full(None, 1.)", errors.ShapeError, "full: expected integer sizes, got (None,)"),
    ('gl.arange("a")', errors.DTypeError, "arange: expected numbers, got 'a'"),
    ("gl.arange(0, 1, 0)", errors.OptionError, "arange: expected a step other than 0, got 0"),
    (
        'gl.arange(0, float("inf"))',
        errors.OptionError,
        "arange: expected finite bounds and step, got 0, inf and 1",
    ),
    (
        'gl.arange(float("nan"))',
        errors.OptionError,
        "arange: expected finite bounds and step, got 0, nan and 1",
    ),
    ("gl.linspace(0, 1, -2)", errors.OptionError, "linspace: expected 0 values or more, got -2"),
    ('gl.linspace("a", 1)', errors.DTypeError, "linspace: expected numbers, got 'a'"),
    ("gl.eye(-1)", errors.ShapeError, "eye: expected sizes of 0 or more, got (-1, -1)"),
    ("gl.eye(2.5)", errors.ShapeError, "eye: expected integer sizes, got (2.5, 2.5)"),
    (
        'gl.tensor("abc")',
        errors.DTypeError,
        "tensor: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        'gl.tensor([1, "a"])',
        errors.DTypeError,
        "tensor: expected numbers, got list holding text; convert it to a numeric dtype first",
    ),
    (
        "gl.tensor([[1], [1, 2]])",
        errors.ShapeError,
        "tensor: expected nested lists whose rows have equal lengths, got rows of "
        "different lengths; pad them, or make one tensor per row",
    ),
    (
        "gl.tensor(None)",
        errors.DTypeError,
        "tensor: expected numbers, got NoneType holding Python objects; convert it to a "
        "numeric dtype first",
    ),
    ("gl.from_numpy([1])", errors.OptionError, "from_numpy: expected a NumPy array, got list"),
    (
        "gl.from_dlpack(3)",
        errors.OptionError,
        "from_dlpack: expected an object with __dlpack__, got int",
    ),
    (
        "gl.asarray([1.], copy=False)",
        errors.OptionError,
        "asarray: copy=False, but this input can only be had as a copy",
    ),
    (
        'gl.set_default_dtype("int64")',
        errors.DTypeError,
        "set_default_dtype: expected a floating dtype, got int64",
    ),
    ('gl.finfo("int64")', errors.DTypeError, "finfo: expected a floating dtype, got int64"),
    (
        'gl.tensor([300], dtype="uint8")',
        errors.DTypeError,
        "tensor: expected values that fit uint8, from 0 to 255, got 300",
    ),
    (
        'gl.tensor([-1], dtype="uint8")',
        errors.DTypeError,
        "tensor: expected values that fit uint8, from 0 to 255, got -1",
    ),
    (
        'gl.tensor([float("nan")], dtype="int64")',
        errors.DTypeError,
        "tensor: expected values that fit int64, from -9223372036854775808 to "
        "9223372036854775807, got nan",
    ),
    (
        "gl.tensor(2**70)",
        errors.DTypeError,
        "tensor: expected numbers, got int holding integers beyond 64 bits; convert it to"
        " a numeric dtype first",
    ),
    # Shapes
    (
        "x + v",
        errors.ShapeError,
        "add: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2,), which differ at axis -1: 3 and 2; reshape or "
        "transpose one of them",
    ),
    (
        "x * gl.ones(2,2)",
        errors.ShapeError,
        "mul: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2, 2), which differ at axis -1: 3 and 2; reshape or "
        "transpose one of them",
    ),
    (
        "x.add(gl.ones(4,3))",
        errors.ShapeError,
        "add: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (4, 3), which differ at axis -2: 2 and 4; reshape or "
        "transpose one of them",
    ),
    (
        "x @ x",
        errors.ShapeError,
        "matmul: expected axis -1 of the first to be as long as axis -2 of the second, "
        "got shapes (2, 3) and (2, 3), which have 3 and 2; transpose the second with .mT",
    ),
    (
        "x @ v",
        errors.ShapeError,
        "matmul: expected axis -1 of the first to be as long as axis -1 of the second, "
        "got shapes (2, 3) and (2,), which have 3 and 2; reshape or transpose one of them",
    ),
    (
        "v @ x @ x",
        errors.ShapeError,
        "matmul: expected axis -1 of the first to be as long as axis -2 of the second, "
        "got shapes (3,) and (2, 3), which have 3 and 2; transpose the second with .mT",
    ),
    (
        "x.reshape(4)",
        errors.ShapeError,
        "reshape: expected a shape of 6 elements, as (2, 3), with at most one -1, got (4,)",
    ),
    (
        "x.reshape(-1, -1)",
        errors.ShapeError,
        "reshape: expected a shape of 6 elements, as (2, 3), with at most one -1, got (-1, -1)",
    ),
    (
        "x.reshape(5, -1)",
        errors.ShapeError,
        "reshape: expected a shape of 6 elements, as (2, 3), with at most one -1, got (5, -1)",
    ),
    ('x.reshape(2, "a")', errors.ShapeError, "reshape: expected integer sizes, got (2, 'a')"),
    (
        "x.reshape(-2, 3)",
        errors.ShapeError,
        "reshape: expected a shape of 6 elements, as (2, 3), with at most one -1, got (-2, 3)",
    ),
    (
        "x.T.view(6)",
        errors.ShapeError,
        "view: expected a layout that the new shape can look into without a copy, got "
        "shape (3, 2) with strides (1, 3); use reshape",
    ),
    (
        "x.unflatten(1, (2, 2))",
        errors.ShapeError,
        "unflatten: expected sizes whose product is 3, the size of axis 1, got (2, 2)",
    ),
    (
        "x.unflatten(0, (-1, -1))",
        errors.ShapeError,
        "unflatten: expected sizes whose product is 2, the size of axis 0, got (-1, -1)",
    ),
    ("gl.ones(2,2,2).t()", errors.ShapeError, "t: expected at most two axes, got shape (2, 2, 2)"),
    ("v.mT", errors.ShapeError, "mT: expected at least two axes, got shape (2,)"),
    (
        "x.expand(4, 3)",
        errors.ShapeError,
        "expand: expected a shape that (2, 3) broadcasts to, got (4, 3)",
    ),
    (
        "x.expand(2)",
        errors.ShapeError,
        "expand: expected a shape that (2, 3) broadcasts to, got (2,)",
    ),
    (
        "x.expand(2, -3)",
        errors.ShapeError,
        "expand: expected a shape that (2, 3) broadcasts to, got (2, -3)",
    ),
    (
        "x.broadcast_to((5, 5))",
        errors.ShapeError,
        "expand: expected a shape that (2, 3) broadcasts to, got (5, 5)",
    ),
    (
        "gl.broadcast_tensors(x, v)",
        errors.ShapeError,
        "broadcast_tensors: expected shapes that broadcast, got (2, 3) and (2,)",
    ),
    ("x.roll(1.5, 0)", errors.ShapeError, "roll: expected integer sizes, got (1.5,)"),
    ("x.tile(-1)", errors.ShapeError, "tile: expected 0 repeats or more, got (-1,)"),
    ("v.tril()", errors.ShapeError, "tril: expected at least two axes, got shape (2,)"),
    (
        "x.sum_to((5,))",
        errors.ShapeError,
        "sum_to: expected a shape that broadcasts to (2, 3), got (5,)",
    ),
    (
        "x.div(v)",
        errors.ShapeError,
        "div: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2,), which differ at axis -1: 3 and 2; reshape or "
        "transpose one of them",
    ),
    (
        "x.masked_fill(v > 1, 0.)",
        errors.ShapeError,
        "where: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2,) and () and (2, 3), which differ at axis -1: 2 and 3; reshape or "
        "transpose one of them",
    ),
    (
        "x.masked_fill(x > 1, gl.ones(2))",
        errors.ShapeError,
        "where: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2,) and (2, 3), which differ at axis -1: 3 and 2 and 3; "
        "reshape or transpose one of them",
    ),
    (
        "gl.where(x > 1, v, x)",
        errors.ShapeError,
        "where: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2,) and (2, 3), which differ at axis -1: 3 and 2 and 3; "
        "reshape or transpose one of them",
    ),
    (
        "x * [1, 2]",
        errors.ShapeError,
        "mul: expected shapes that broadcast (equal sizes, or 1, counted from the last "
        "axis), got (2, 3) and (2,), which differ at axis -1: 3 and 2; reshape or "
        "transpose one of them",
    ),
    # Axes
    ("x.flatten(1, 0)", errors.AxisError, "flatten: expected start_dim <= end_dim, got 1 and 0"),
    (
        "x.flatten(5)",
        errors.AxisError,
        "flatten: expected an axis from -2 to 1, for a tensor of 2 axes, got 5",
    ),
    ("x.permute(0)", errors.AxisError, "permute: expected each of the 2 axes once, got (0,)"),
    ("x.permute(0, 0)", errors.AxisError, "permute: expected different axes, got (0, 0)"),
    (
        "x.permute(0, 5)",
        errors.AxisError,
        "permute: expected an axis from -2 to 1, for a tensor of 2 axes, got 5",
    ),
    (
        "x.transpose(0, 3)",
        errors.AxisError,
        "transpose: expected an axis from -2 to 1, for a tensor of 2 axes, got 3",
    ),
    (
        "x.movedim((0, 1), 0)",
        errors.AxisError,
        "movedim: expected as many destinations as sources, got 0",
    ),
    (
        "x.movedim(0, 9)",
        errors.AxisError,
        "movedim: expected an axis from -2 to 1, for a tensor of 2 axes, got 9",
    ),
    (
        "x.squeeze(5)",
        errors.AxisError,
        "squeeze: expected an axis from -2 to 1, for a tensor of 2 axes, got 5",
    ),
    (
        "x.unsqueeze(5)",
        errors.AxisError,
        "unsqueeze: expected an axis from -3 to 2, for a tensor of 3 axes, got 5",
    ),
    (
        "x.flip(3)",
        errors.AxisError,
        "flip: expected an axis from -2 to 1, for a tensor of 2 axes, got 3",
    ),
    ("x.flip((0, 0))", errors.AxisError, "flip: expected different axes, got (0, 0)"),
    (
        "x.roll(1, 4)",
        errors.AxisError,
        "roll: expected an axis from -2 to 1, for a tensor of 2 axes, got 4",
    ),
    (
        "x.repeat_interleave(2, dim=3)",
        errors.AxisError,
        "repeat_interleave: expected an axis from -2 to 1, for a tensor of 2 axes, got 3",
    ),
    (
        "x.sum(axis=2)",
        errors.AxisError,
        "sum: expected an axis from -2 to 1, for a tensor of 2 axes, got 2",
    ),
    ("x.sum(axis=(0, 0))", errors.AxisError, "sum: expected different axes, got (0, 0)"),
    ("x.sum(axis=1.5)", errors.AxisError, "sum: expected an integer axis, got 1.5 of type float"),
    ('x.sum(axis="a")', errors.AxisError, "sum: expected an integer axis, got 'a' of type str"),
    # Indexing
    ("x.gather(0, v)", errors.DTypeError, "gather: expected an integer index, got float32"),
    (
        "x.gather(0, i)",
        errors.ShapeError,
        "gather: expected an index of 2 axes that fits within (2, 3), got (2,)",
    ),
    ("x.take(v)", errors.DTypeError, "take: expected integer indices, got float32"),
    (
        "x.scatter(0, gl.tensor([[9]]), 1.)",
        errors.AxisError,
        "scatter: expected indices from -2 to 1 for axis 0, got 9",
    ),
    (
        "gl.one_hot(v)",
        errors.DTypeError,
        "one_hot: expected integer values, got float32; cast with .astype(...)",
    ),
    ("gl.one_hot(i, 1)", errors.AxisError, "one_hot: expected classes from 0 to 0, got 2"),
    (
        "x[5]",
        errors.AxisError,
        "indexing: expected an index from -2 to 1 for axis 0, got 5 (shape (2, 3))",
    ),
    (
        "x[0, 0, 0]",
        errors.AxisError,
        "indexing: expected at most 2 indices for shape (2, 3), got 3",
    ),
    (
        'x["a"]',
        errors.DTypeError,
        "indexing: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        "x[1.5]",
        errors.DTypeError,
        "indexing: expected integers, slices, ..., None, or integer and bool tensors, got"
        " float32 (); cast it with .astype(gradlab.int64)",
    ),
    (
        "x[gl.tensor([0.5])]",
        errors.DTypeError,
        "indexing: expected integers, slices, ..., None, or integer and bool tensors, got"
        " float32 (1,); cast it with .astype(gradlab.int64)",
    ),
    ("x[[True]]", errors.ShapeError, "indexing: expected a mask of shape (2,), got (1,)"),
    # Joining and cutting
    (
        "gl.cat(x, x)",
        errors.OptionError,
        "cat: expected a list of tensors, got a tensor of shape (2, 3); put the tensors in a "
        "list: cat([a, b])",
    ),
    ("gl.cat([])", errors.OptionError, "cat: expected a list of tensors, got []"),
    (
        "gl.cat([x], 5)",
        errors.AxisError,
        "cat: expected an axis from -2 to 1, for a tensor of 2 axes, got 5",
    ),
    (
        "gl.cat([x, v])",
        errors.ShapeError,
        "cat: expected shapes that agree everywhere but at axis 0, got (2, 3) and (2,)",
    ),
    (
        "gl.cat([gl.tensor(1.), gl.tensor(2.)])",
        errors.ShapeError,
        "cat: expected tensors with an axis, got scalars; use stack",
    ),
    ('gl.cat("ab")', errors.OptionError, "cat: expected a list of tensors, got 'ab'"),
    ("gl.cat(3)", errors.OptionError, "cat: expected a list of tensors, got 3"),
    (
        "gl.cat([x, gl.ones(2, 4)], dim=0)",
        errors.ShapeError,
        "cat: expected shapes that agree everywhere but at axis 0, got (2, 3) and (2, 4)",
    ),
    (
        "gl.stack([x, v])",
        errors.ShapeError,
        "stack: expected tensors of one shape, got (2, 3) and (2,)",
    ),
    ("gl.stack([])", errors.OptionError, "stack: expected a list of tensors, got []"),
    ("gl.hstack([])", errors.OptionError, "hstack: expected a list of tensors, got []"),
    (
        "gl.vstack([x, v])",
        errors.ShapeError,
        "cat: expected shapes that agree everywhere but at axis 0, got (2, 3) and (1, 2)",
    ),
    (
        "x.narrow(0, 1, 5)",
        errors.AxisError,
        "narrow: expected a range within the 2 elements of axis 0, got start 1 and length 5",
    ),
    (
        "x.narrow(0, -1, 1)",
        errors.AxisError,
        "narrow: expected a range within the 2 elements of axis 0, got start -1 and length 1",
    ),
    ("x.split(0)", errors.OptionError, "split: expected a size of 1 or more, got 0"),
    (
        "x.split([1, 5])",
        errors.ShapeError,
        "split: expected sizes that add up to 2, the size of axis 0, got [1, 5]",
    ),
    (
        "x.split(2, dim=7)",
        errors.AxisError,
        "split: expected an axis from -2 to 1, for a tensor of 2 axes, got 7",
    ),
    ("x.chunk(0)", errors.OptionError, "chunk: expected 1 chunk or more, got 0"),
    (
        "x.chunk(2, 5)",
        errors.AxisError,
        "chunk: expected an axis from -2 to 1, for a tensor of 2 axes, got 5",
    ),
    (
        "x.unbind(3)",
        errors.AxisError,
        "unbind: expected an axis from -2 to 1, for a tensor of 2 axes, got 3",
    ),
    ("gl.meshgrid(x, v)", errors.ShapeError, "meshgrid: expected vectors, got shape (2, 3)"),
    (
        'gl.meshgrid(v, v, indexing="ab")',
        errors.OptionError,
        "meshgrid: expected indexing one of 'ij', 'xy', got 'ab'",
    ),
    # Dtypes and options
    (
        "x.roll((1, 2), 0)",
        errors.OptionError,
        "roll: expected as many shifts as axes, got shift (1, 2) and axis 0",
    ),
    (
        "x.repeat_interleave(-1)",
        errors.OptionError,
        "repeat_interleave: expected 0 repeats or more, got -1",
    ),
    ('x.tril("a")', errors.OptionError, "tril: expected an integer diagonal, got 'a'"),
    (
        'x.div(2, rounding_mode="up")',
        errors.OptionError,
        "div: expected rounding_mode one of None, 'floor', 'trunc', got 'up'",
    ),
    ("x.clip()", errors.OptionError, "clip: expected min, max or both, got neither"),
    (
        'x.clip(min="a")',
        errors.DTypeError,
        "clip: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        'x.masked_fill(x > 1, "a")',
        errors.DTypeError,
        "masked_fill: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        'x.add("a")',
        errors.DTypeError,
        "add: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        'x + "a"',
        errors.DTypeError,
        "add: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        "x + None",
        errors.DTypeError,
        "add: expected numbers, got NoneType holding Python objects; convert it to a "
        "numeric dtype first",
    ),
    (
        "x + {}",
        errors.DTypeError,
        "add: expected numbers, got dict holding Python objects; convert it to a numeric "
        "dtype first",
    ),
    (
        "x & x",
        errors.DTypeError,
        "bitwise_and: expected bool or integer values, got float32; cast with .astype(...)",
    ),
    (
        "x << 1",
        errors.DTypeError,
        "left_shift: expected bool or integer values, got float32; cast with .astype(...)",
    ),
    (
        "~x",
        errors.DTypeError,
        "bitwise_not: expected bool or integer values, got float32; cast with .astype(...)",
    ),
    (
        "x < gl.tensor(1j)",
        errors.DTypeError,
        "lt: expected bool or integer or floating values, got complex64; cast with .astype(...)",
    ),
    (
        "x // gl.tensor(1j)",
        errors.DTypeError,
        "floor_divide: expected integer or floating values, got complex64; cast with .astype(...)",
    ),
    (
        "gl.tensor([1]) ** -1",
        errors.DTypeError,
        "pow: expected exponents of 0 or more for integers, got a negative one; cast "
        "first, for example with .astype(gradlab.float32)",
    ),
    (
        "gl.tensor([True]) - True",
        errors.DTypeError,
        "sub: expected integer or floating or complex values, got bool; cast with .astype(...)",
    ),
    (
        "-gl.tensor([True])",
        errors.DTypeError,
        "neg: expected integer or floating or complex values, got bool; cast with .astype(...)",
    ),
    (
        'gl.tensor([1], dtype="uint8") + 300',
        errors.DTypeError,
        "add: Python integer 300 out of bounds for uint8; got uint8 (1,), 300",
    ),
    (
        'gl.tensor([1], dtype="int64") + gl.tensor([1], dtype="uint64")',
        errors.DTypeError,
        "promotion: expected integers with a common integer dtype, got int64 and uint64; "
        "cast one of them with .astype(...)",
    ),
    ('x.round("a")', errors.OptionError, "round: expected a number as decimals, got 'a'"),
    (
        'gl.nn.functional.gelu(x, approximate="abs")',
        errors.OptionError,
        "gelu: expected approximate one of 'none', 'tanh', got 'abs'",
    ),
    (
        'gl.nn.functional.softplus(x, "a")',
        errors.OptionError,
        "softplus: expected a number as beta, got 'a'",
    ),
    # Reading and writing
    (
        "x.copy_(v)",
        errors.ShapeError,
        "copy_: expected a value that broadcasts to (2, 3), got (2,)",
    ),
    (
        'x.fill_("a")',
        errors.DTypeError,
        "fill_: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        "x.fill_(v)",
        errors.ShapeError,
        "fill_: expected a value that broadcasts to (2, 3), got (2,)",
    ),
    (
        "x.item()",
        errors.ShapeError,
        "item: expected a tensor of one element, got shape (2, 3); use .tolist() or index it first",
    ),
    (
        "x.nonzero().item()",
        errors.ShapeError,
        "item: expected a tensor of one element, got shape (6, 2); use .tolist() or index it first",
    ),
    (
        "x.__setitem__(0, v)",
        errors.ShapeError,
        "setitem: expected a value that broadcasts to (3,), got (2,)",
    ),
    (
        'x.__setitem__(0, "a")',
        errors.DTypeError,
        "setitem: expected numbers, got str holding text; convert it to a numeric dtype first",
    ),
    (
        "x.__setitem__(0, 1j)",
        errors.DTypeError,
        "setitem: expected a value that fits float32, got 1j",
    ),
    ("x.size(4)", errors.AxisError, "size: expected an axis from -2 to 1, got 4"),
    (
        "bool(x)",
        errors.ShapeError,
        "bool: expected a tensor of one element, got shape (2, 3), whose truth is "
        "ambiguous; use .any() or .all()",
    ),
    (
        "len(x[0, 0])",
        errors.ShapeError,
        "len: expected a tensor with at least one axis, got a scalar tensor",
    ),
    # Gradients
    (
        "r.numpy()",
        errors.GradientError,
        "numpy: expected a tensor that does not require a gradient, got one that does; "
        "use .detach().numpy()",
    ),
    (
        "r.sum().backward(gl.ones(2))",
        errors.ShapeError,
        "backward: expected a gradient of the output's shape (), got (2,)",
    ),
    (
        "(r * 2).backward()",
        errors.GradientError,
        "backward: expected a scalar, or an explicit gradient, got a tensor of shape "
        "(2,); reduce it first, for example with .sum(), or pass gradient=",
    ),
    (
        '(r * 2).backward("a")',
        errors.DTypeError,
        "backward: expected a tensor or an array as gradient, got 'a'",
    ),
    (
        "v.sum().backward()",
        errors.GradientError,
        "backward: expected a tensor that depends on one with requires_grad=True, got one"
        " of shape () that does not; call requires_grad_() on the inputs, and compute "
        "outside no_grad()",
    ),
    (
        "backward([r.sum()], [None, None])",
        errors.GradientError,
        "backward: expected 1 gradients, got 2",
    ),
    (
        "grad(r.sum(), v)",
        errors.GradientError,
        "grad: expected inputs that require a gradient, got one of shape (2,) that does "
        "not; call requires_grad_() before computing with it",
    ),
    ("grad(r.sum(), 3)", errors.DTypeError, "grad: expected tensors as inputs, got 3"),
    ("grad(3, r)", errors.DTypeError, "grad: expected tensors to start from, got 3"),
    ("backward(3)", errors.DTypeError, "backward: expected tensors to start from, got 3"),
    (
        "r.add_(1)",
        errors.GradientError,
        "add_: expected a tensor whose value may change, got a leaf tensor that requires "
        "a gradient, of shape (2,); write inside no_grad(), or to a clone()",
    ),
    (
        "r[0].add_(1)",
        errors.GradientError,
        "add_: expected a tensor whose value may change, got a view of a leaf tensor that"
        " requires a gradient, of shape (); write inside no_grad(), or to a clone()",
    ),
    (
        "r.__setitem__(0, 1.)",
        errors.GradientError,
        "setitem: expected a tensor whose value may change, got a leaf tensor that "
        "requires a gradient, of shape (2,); write inside no_grad(), or to a clone()",
    ),
    (
        "i.requires_grad_()",
        errors.DTypeError,
        "requires_grad_: expected a floating dtype, got int64; cast first, for example "
        "with .astype(gradlab.float32)",
    ),
    (
        "(r*2).requires_grad_(False)",
        errors.GradientError,
        "requires_grad_(False): expected a leaf, got a result of MulBackward0; use "
        ".detach() to leave the graph",
    ),
    (
        "v.retain_grad()",
        errors.GradientError,
        "retain_grad: expected a tensor that requires a gradient, got one that does not",
    ),
    (
        "v.register_hook(print)",
        errors.GradientError,
        "register_hook: expected a tensor that requires a gradient, got one that does "
        "not; call requires_grad_() first",
    ),
    ("r.register_hook(3)", errors.OptionError, "register_hook: expected a function, got 3"),
    ("no_grad(3)", errors.OptionError, "no_grad: expected a function, got 3"),
    # Devices
    (
        'x.to("gpu")',
        errors.OptionError,
        "to: expected a device such as 'cpu' or 'cuda:0', or a dtype such as 'float64', got 'gpu'",
    ),
    (
        'x.to("float31")',
        errors.OptionError,
        "to: expected a device such as 'cpu' or 'cuda:0', or a dtype such as 'float64', "
        "got 'float31'",
    ),
    (
        'gl.tensor([1, 2], dtype="uint8", device=-3)',
        errors.DeviceError,
        "device: expected 'cpu', 'cuda', 'cuda:<index>' or 'auto', got -3",
    ),
    (
        'gl.device("tpu")',
        errors.DeviceError,
        "device: expected 'cpu', 'cuda', 'cuda:<index>' or 'auto', got 'tpu'",
    ),
    (
        "gl.device(-3)",
        errors.DeviceError,
        "device: expected 'cpu', 'cuda', 'cuda:<index>' or 'auto', got -3",
    ),
]


@pytest.fixture
def names():
    x = gl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    r = gl.tensor([1.0, 2.0], requires_grad=True)
    public = {name: getattr(autograd, name) for name in autograd.__all__}
    return public | {"gl": gl, "x": x, "v": gl.tensor([1.0, 2.0]), "i": gl.tensor([1, 2]), "r": r}


@pytest.mark.parametrize(("code", "error", "text"), MISTAKES, ids=[code for code, *_ in MISTAKES])
def test_message(code, error, text, names):
    with pytest.raises(error) as caught:
        eval(code, names)
    assert str(caught.value) == text
    assert "\n" not in text


def test_the_error_types_are_those_of_python():
    for ours, python in {
        errors.ShapeError: ValueError,
        errors.DTypeError: TypeError,
        errors.AxisError: IndexError,
        errors.OptionError: ValueError,
        errors.DataError: ValueError,
        errors.GradientError: RuntimeError,
        errors.DeviceError: RuntimeError,
        errors.StateError: KeyError,
        errors.NonFiniteLossError: ArithmeticError,
        errors.MissingDependencyError: ImportError,
        errors.FileError: OSError,
        errors.MissingFileError: FileNotFoundError,
    }.items():
        assert issubclass(ours, python)
        assert issubclass(ours, errors.GradlabError)


def test_nothing_inside_shows_in_the_traceback_as_its_cause():
    with pytest.raises(errors.ShapeError) as caught:
        gl.ones(2) + gl.ones(3)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_not_understood_still_names_the_operation_and_the_tensors():
    with pytest.raises(errors.DTypeError) as caught:
        gl.tensor([1], dtype="uint8") + 300
    assert str(caught.value).startswith("add: ")
    assert "uint8 (1,), 300" in str(caught.value)


def test_python_lists_are_checked_before_they_are_cast():
    for values, dtype, text in (
        ([1, 300], "uint8", "tensor: expected values that fit uint8, from 0 to 255, got 300"),
        ([[-1]], "uint16", "tensor: expected values that fit uint16, from 0 to 65535, got -1"),
        ([1.0, float("nan")], "int64", "got nan"),
        ([1e30], "int32", "got 1e+30"),
    ):  # fmt: skip
        with pytest.raises(errors.DTypeError) as caught:
            gl.tensor(values, dtype=dtype)
        assert text in str(caught.value)
    # An array has a dtype of its own; casting it wraps, as .astype does.
    assert gl.tensor(np.array([300]), dtype="uint8").tolist() == [44]
    assert gl.tensor([1.7, -1.7], dtype="int8").tolist() == [1, -1]
    assert gl.tensor([], dtype="int8").shape == (0,)
