"""Matrix products: `matmul` and its special cases, `linear`, `einsum`, and diagonals.

The gradients of a product are products. Each is written once, with what tensors and arrays have
in common (``@``, ``reshape``, ``swapaxes``, ``[..., None]``): on tensors it is the differentiable
gradient, on arrays the fused backward pass.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache, partial, wraps
from string import ascii_letters
from typing import Any

import numpy as np

from gradlab.errors import AxisError, OptionError, ShapeError, message
from gradlab.kernels import ladder
from gradlab.kernels.cuda import matmul as cuda, reduction
from gradlab.kernels.cuda.driver import current
from gradlab.ops.core import FLOAT, PROMOTE, VIEW, Kernel, Op, apply, public
from gradlab.ops.elementwise import TensorLike, conj, keep, where, write_out
from gradlab.ops.reducing import (
    array_dot,
    matrices,
    reduce_array,
    stacked_matmul,
    sum_along,
    without_added_axes,
)
from gradlab.ops.samples import Sample, values
from gradlab.ops.shape import canonical_axes, canonical_axis, permute, reshape, sum_to
from gradlab.tensor import Tensor, operand_beside, require_option

_NUMBERS = "iufcV"  # a product of bools has no agreed meaning


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if hasattr(x, "shape") else np.shape(x)


# ---------------------------------------------------------------------------------- on a GPU
#
# The family of products knows matrices and batches of them; vectors go in as matrices of one row
# or column. Complex numbers are left to CuPy, by way of the array code of each op.


def set_float32_matmul_precision(precision: str) -> None:
    """Set how exactly products of float32 matrices are computed on a GPU, in the whole process.

    ``"highest"`` (the default) multiplies and adds in float32. ``"high"`` and ``"medium"`` let the
    tensor cores of GPUs of compute capability 8.0 and later do it: they round the operands to
    TF32, which has 10 bits of fraction rather than 23, and add in float32. It is several times as
    fast; a product then has a relative error of about 3e-4 [1]_. Gradients are products too. On the
    CPU nothing changes.

    Raises `OptionError` for another word.

    >>> set_float32_matmul_precision("high")
    >>> get_float32_matmul_precision()
    'high'
    >>> set_float32_matmul_precision("highest")

    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html
    """
    require_option("set_float32_matmul_precision", "precision", precision, cuda.PRECISIONS)
    cuda.precision = precision


def get_float32_matmul_precision() -> str:
    """Return how exactly products of float32 matrices are computed on a GPU.

    ``"highest"``, ``"high"`` or ``"medium"``; see `set_float32_matmul_precision`.
    """
    return cuda.precision


def _product_accepts(x1: Any, x2: Any) -> bool:
    if not getattr(x1, "ndim", 0) or not getattr(x2, "ndim", 0):
        return False
    return ladder.accepts("matmul", "matmul", *matrices(x1, x2))


def _product_run(x1: Any, x2: Any) -> Any:
    return without_added_axes(ladder.run("matmul", "matmul", *matrices(x1, x2)), x1, x2)


def _same(*arrays: Any) -> bool:
    """True for arrays of one dtype that the family takes; their shapes the forward has checked."""
    first = arrays[0].dtype
    if not cuda.kernel_dtype(first):
        return False
    return all(x.dtype == first and x.ndim <= cuda.AXES + 2 for x in arrays)


def _on_cuda(
    name: str, accepts: Callable[..., bool], run: Callable[..., Any]
) -> tuple[Kernel, Kernel]:
    """A kernel for the arrays as they are, and for those that are promoted to one dtype first."""
    as_they_are = Kernel("cuda", name, accepts, run, casts=False)
    return as_they_are, as_they_are._replace(casts=True)


def array_matmul(xp: Any, x1: Any, x2: Any) -> Any:
    """Array code: the matrix product, on a GPU by gradlab's kernels."""
    if xp is not np and _product_accepts(x1, x2):
        return _product_run(x1, x2)
    return stacked_matmul(xp, x1, x2)


# ------------------------------------------------------------------------------------- matmul


def _matmul_samples() -> Any:
    shapes: list[tuple[Any, Any]] = [
        ((3, 4), (4, 2)), (4, 4), ((3, 4), 4), (3, (3, 4)), ((2, 3, 4), (4, 5)), ((2, 3, 4), 4),
        (3, (2, 3, 4)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (2, 4, 5)),
        ((0, 4), (4, 2)), ((3, 0), (0, 2)), ((1, 1), (1, 1)),
    ]  # fmt: skip
    for shape1, shape2 in shapes:
        yield Sample((values(shape1), values(shape2, seed=1)), name=f"{shape1} @ {shape2}")
    yield Sample((values((4, 3)).T, values((2, 4), seed=1).T), name="transposed")
    yield Sample((values((6, 8))[::2, ::2], values((4, 2), seed=1)), name="strided")
    x = np.broadcast_to(values((1, 4)), (3, 4))
    yield Sample((x, values((4, 2), seed=1)), name="broadcast")
    for m, k, n in ((31, 33, 32), (65, 17, 129), (33, 1025, 31)):
        pair = (values((m, k)), values((k, n), seed=1))
        yield Sample(pair, name=f"{m}x{k}x{n}", large=True)


def _matmul_forward(xp: Any, x1: Any, x2: Any) -> Any:
    n1, n2 = getattr(x1, "ndim", 0), getattr(x2, "ndim", 0)
    # The method `dot` takes half the time of np.matmul on small matrices, and is the same there.
    if 0 < n1 < 3 and 0 < n2 < 3:
        return array_dot(xp, x1, x2)
    return stacked_matmul(xp, x1, x2) if n1 and n2 else xp.matmul(x1, x2)


def _gx1(product: Any, gy: Any, x2: Any, x1_shape: tuple[int, ...]) -> Any:
    if x2.ndim == 1:
        return gy[..., None] * x2
    if len(x1_shape) == 1:
        return product(x2, gy[..., None])[..., 0]
    return product(gy, x2.swapaxes(-1, -2))


def _gx2(product: Any, gy: Any, x1: Any, x2_shape: tuple[int, ...]) -> Any:
    if x1.ndim == 1:
        return gy * x1 if len(x2_shape) == 1 else x1[:, None] * gy[..., None, :]
    if len(x2_shape) > 2:
        return product(x1.swapaxes(-1, -2), gy)
    # All rows of a batch meet the same x2: one large product rather than a sum of small ones.
    return product(_rows(gy, x2_shape[1:]).T, _rows(x1, x2_shape[:1])).T


def _matmul_gx1(gy: Tensor, x2: Tensor, x1_shape: tuple[int, ...]) -> Any:
    return _gx1(operator.matmul, gy, x2, x1_shape)


def _matmul_gx2(gy: Tensor, x1: Tensor, x2_shape: tuple[int, ...]) -> Any:
    return _gx2(operator.matmul, gy, x1, x2_shape)


def _rows(x: Any, last: tuple[int, ...]) -> Any:
    """``x`` as a matrix whose rows are the vectors along its last axis (a vector, for ``()``)."""
    count = math.prod(x.shape[: x.ndim - len(last)])
    return x if x.ndim == 1 + len(last) else x.reshape((count, *last))


def _matmul_backward(xp: Any, gy: Any, x1: Any, x2: Any, *, needs: tuple[bool, ...]) -> Any:
    gx1 = gx2 = None
    if x1.ndim == 2 and x2.ndim == 2:
        if needs[0]:
            gx1 = array_dot(xp, gy, x2.T)
        if needs[1]:
            gx2 = array_dot(xp, x1.T, gy)
        return gx1, gx2
    product = partial(stacked_matmul, xp)
    if needs[0]:
        gx1 = _gx1(product, gy, x2, x1.shape)
    if needs[1]:
        gx2 = _gx2(product, gy, x1, x2.shape)
    return gx1, gx2


def _matmul_backward_cuda(gy: Any, x1: Any, x2: Any, *, needs: tuple[bool, ...]) -> Any:
    """The same on matrices throughout; the transposes are views that the kernels read as such."""
    left, right = matrices(x1, x2)
    if x1.ndim == 1:
        gy = gy[..., None, :] if x2.ndim > 1 else gy[..., None]
    if x2.ndim == 1:
        gy = gy[..., None]
    gx1 = gx2 = None
    if needs[0]:
        gx1 = ladder.run("matmul", "matmul", gy, right.swapaxes(-1, -2))
        gx1 = gx1[..., 0, :] if x1.ndim == 1 else gx1
    if needs[1]:
        if right.ndim == 2:
            left, gy = _rows(left, left.shape[-1:]), _rows(gy, gy.shape[-1:])
        gx2 = ladder.run("matmul", "matmul", left.swapaxes(-1, -2), gy)
        gx2 = gx2[..., 0] if x2.ndim == 1 else gx2
    return gx1, gx2


def _check_product(operation: str, x1: Any, x2: Any) -> None:
    """Raise the clear error for two shapes that have no matrix product."""
    shape1, shape2 = _shape(x1), _shape(x2)
    if not shape1 or not shape2:
        raise ShapeError(
            message(
                operation,
                expected="tensors of at least one axis",
                got=f"shapes {shape1} and {shape2}",
                hint="multiply by a number with *",
            )
        )
    axis = -2 if len(shape2) > 1 else -1
    if shape1[-1] != shape2[axis]:
        raise ShapeError(
            message(
                operation,
                expected=f"axis -1 of the first to be as long as axis {axis} of the second",
                got=f"shapes {shape1} and {shape2}, which have {shape1[-1]} and {shape2[axis]}",
                hint=_transpose_hint(shape1, shape2),
            )
        )
    try:
        np.broadcast_shapes(shape1[:-2], shape2[:-2])
    except ValueError:
        raise ShapeError(
            message(
                operation,
                expected="batch axes (all but the last two) that broadcast",
                got=f"shapes {shape1} and {shape2}: {shape1[:-2]} and {shape2[:-2]}",
            )
        ) from None


def _transpose_hint(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> str:
    if len(shape2) > 1 and shape1[-1] == shape2[-1]:
        return "transpose the second with .mT"
    if len(shape1) > 1 and len(shape2) > 1 and shape1[-2] == shape2[-2]:
        return "transpose the first with .mT"
    if len(shape1) > 1 and len(shape2) > 1 and shape1[-2] == shape2[-1]:
        return "exchange the two"
    return "reshape or transpose one of them"


MATMUL = Op(
    "matmul",
    _matmul_forward,
    inputs=("x1", "x2"),
    gradients={"x1": _matmul_gx1, "x2": _matmul_gx2},
    fused=Op(
        "matmul_backward",
        _matmul_backward,
        inputs=("gy", "x1", "x2"),
        dtype=PROMOTE,
        halves=True,
        kernels=_on_cuda(
            "matmul", lambda gy, x1, x2, needs: _same(gy, x1, x2), _matmul_backward_cuda
        ),
    ),
    dtype=PROMOTE,
    kinds=_NUMBERS,
    halves=True,
    broadcasts=True,
    check=lambda x1, x2: _check_product("matmul", x1, x2),
    kernels=_on_cuda("matmul", _product_accepts, _product_run),
    samples=_matmul_samples,
)


@public(MATMUL, "__matmul__", "matmul")
def matmul(x1: TensorLike, x2: TensorLike, *, out: Tensor | None = None) -> Tensor:
    """Return the matrix product of ``x1`` (…, m, k) and ``x2`` (…, k, n): shape (…, m, n).

    The axes before the last two broadcast. A vector as ``x1`` counts as a row, as ``x2`` as a
    column, and its axis is absent from the result. float16 and bfloat16 are multiplied and summed
    in float32; integers stay integers and wrap around on overflow, as in NumPy. The product is
    written into ``out`` if given.

    Raises `ShapeError` where the inner axes differ, `DTypeError` for bool.

    >>> matmul(gl.tensor([[1.0, 2.0], [3.0, 4.0]]), gl.tensor([1.0, 10.0]))
    tensor([21., 43.])
    """
    y = apply(MATMUL, (x1, x2))
    return y if out is None else write_out("matmul", y, out)


@public(None, "__rmatmul__")
def _reflected_matmul(x2: Tensor, x1: TensorLike) -> Tensor:
    return apply(MATMUL, (x1, x2))


def _require_axes(
    operation: str, expected: str, hint: str, xs: Sequence[Any], *ndims: int
) -> tuple[Any, ...]:
    """Refuse tensors that have other numbers of axes than ``ndims``."""
    shapes = [_shape(x) for x in xs]
    if any(len(shape) != ndim for shape, ndim in zip(shapes, ndims, strict=True)):
        got = " and ".join(map(str, shapes))
        noun = "shapes" if len(shapes) > 1 else "shape"
        raise ShapeError(message(operation, expected=expected, got=f"{noun} {got}", hint=hint))
    return tuple(xs)


def _product(operation: str, x1: Any, x2: Any) -> Tensor:
    if _shape(x1)[-1] != _shape(x2)[-2 if len(_shape(x2)) > 1 else -1]:
        _check_product(operation, x1, x2)
    return apply(MATMUL, (x1, x2))


@public(None, "mm")
def mm(x1: TensorLike, x2: TensorLike, *, out: Tensor | None = None) -> Tensor:
    """Return the product of two matrices, (m, k) and (k, n): shape (m, n).

    It is written into ``out`` if given.

    >>> mm(gl.tensor([[1, 2]]), gl.tensor([[3], [4]]))
    tensor([[11]])
    """
    hint = "use mv for a matrix and a vector, bmm for batches, matmul for any shapes"
    _require_axes("mm", "two matrices", hint, (x1, x2), 2, 2)
    y = _product("mm", x1, x2)
    return y if out is None else write_out("mm", y, out)


@public(None, "mv")
def mv(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the product of a matrix (m, k) and a vector (k,): shape (m,).

    >>> mv(gl.tensor([[1, 2], [3, 4]]), gl.tensor([1, 1]))
    tensor([3, 7])
    """
    hint = "use mm for two matrices, dot for two vectors, matmul for any shapes"
    _require_axes("mv", "a matrix and a vector", hint, (x1, x2), 2, 1)
    return _product("mv", x1, x2)


@public(None, "bmm")
def bmm(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the products of two batches of matrices, (b, m, k) and (b, k, n): shape (b, m, n).

    Raises `ShapeError` where the batches differ in size; `matmul` broadcasts them.
    """
    hint = "use mm for two matrices, matmul to broadcast"
    expected = "two batches of matrices, (b, m, k) and (b, k, n)"
    _require_axes("bmm", expected, hint, (x1, x2), 3, 3)
    shape1, shape2 = _shape(x1), _shape(x2)
    if shape1[0] != shape2[0]:
        raise ShapeError(
            message(
                "bmm",
                expected="as many matrices in both",
                got=f"shapes {shape1} and {shape2}, which differ at axis 0: "
                f"{shape1[0]} and {shape2[0]}",
                hint="use matmul to broadcast",
            )
        )
    return _product("bmm", x1, x2)


def _two_vectors(operation: str, x1: Any, x2: Any) -> None:
    hint = "use mm for two matrices, mv for a matrix and a vector, (x1 * x2).sum() for any shapes"
    _require_axes(operation, "two vectors", hint, (x1, x2), 1, 1)
    n1, n2 = _shape(x1)[0], _shape(x2)[0]
    if n1 != n2:
        raise ShapeError(
            message(operation, expected="two vectors of one length", got=f"lengths {n1} and {n2}")
        )


@public(None, "dot")
def dot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the scalar product of two vectors of one length, a tensor of no axes.

    As in PyTorch it takes vectors only; for matrices there is `matmul`.

    >>> dot(gl.tensor([1.0, 2.0]), gl.tensor([3.0, 4.0]))
    tensor(11.)
    """
    _two_vectors("dot", x1, x2)
    return apply(MATMUL, (x1, x2))


@public(None, "vdot")
def vdot(x1: Tensor, x2: Tensor) -> Tensor:
    """Return the scalar product of two vectors, the first one conjugated if complex."""
    _two_vectors("vdot", x1, x2)
    return apply(MATMUL, (conj(x1) if x1.is_complex() else x1, x2))


@public(None, "inner")
def inner(x1: Tensor, x2: Tensor) -> Tensor:
    """Return the scalar products of all vectors along the last axes: shape (…1, …2).

    ``x1`` has shape (…1, k) and ``x2`` (…2, k); a scalar multiplies.
    """
    if not x1.ndim or not x2.ndim:
        return x1 * x2
    return tensordot(x1, x2, ([x1.ndim - 1], [x2.ndim - 1]))


@public(None, "outer", "ger")
def outer(x1: Tensor, x2: Tensor) -> Tensor:
    """Return all products of the elements of two vectors, (m,) and (n,): shape (m, n).

    >>> outer(gl.tensor([1, 2]), gl.tensor([1, 10, 100]))
    tensor([[  1,  10, 100],
            [  2,  20, 200]])
    """
    hint = "flatten them first with .ravel()"
    _require_axes("outer", "two vectors", hint, (x1, x2), 1, 1)
    return x1[:, None] * x2


def vecdot(x1: Tensor, x2: Tensor, axis: int = -1) -> Tensor:
    """Return the scalar products along ``axis`` of tensors that broadcast, ``x1`` conjugated.

    >>> vecdot(gl.tensor([[1, 2], [3, 4]]), gl.tensor([1, 1]))
    tensor([3, 7])
    """
    if not x1.ndim or not x2.ndim:
        got = f"shapes {x1.shape} and {x2.shape}"
        raise ShapeError(message("vecdot", expected="tensors of at least one axis", got=got))
    low = -min(x1.ndim, x2.ndim)
    if not low <= axis < 0:  # the axes in front broadcast: only counting from the end is defined
        raise AxisError(message("vecdot", expected=f"an axis from {low} to -1", got=str(axis)))
    if x1.shape[axis] != x2.shape[axis]:
        raise ShapeError(
            message(
                "vecdot",
                expected=f"vectors of one length along axis {axis}",
                got=f"shapes {x1.shape} and {x2.shape}",
            )
        )
    row = permute(x1, _to_last(x1.ndim, axis))[..., None, :]
    column = permute(x2, _to_last(x2.ndim, axis))[..., None]
    return matmul(conj(row) if x1.is_complex() else row, column)[..., 0, 0]


def _to_last(ndim: int, axis: int) -> tuple[int, ...]:
    at = axis % ndim
    return (*(i for i in range(ndim) if i != at), at)


Tensor._add_method("vecdot", vecdot)


@public(None, "addmm")
def addmm(
    x: TensorLike, mat1: TensorLike, mat2: TensorLike, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Return ``beta·x + alpha·(mat1 @ mat2)``; ``x`` broadcasts to the shape of the product."""
    product = mm(mat1, mat2)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


@public(None, "tensordot")
def tensordot(x1: Tensor, x2: Tensor, dims: Any = 2, *, axes: Any = None) -> Tensor:
    """Return the sum of products over some axes of both: the other axes of ``x1``, then of ``x2``.

    ``dims`` (``axes`` in the array API) is a number n, for the last n axes of ``x1`` and the
    first n of ``x2``, or a pair of lists of axes.

    >>> tensordot(gl.tensor([[1, 2], [3, 4]]), gl.tensor([1, 1]), dims=1)
    tensor([3, 7])
    """
    axes1, axes2 = _contracted_axes(x1, x2, dims if axes is None else axes)
    sizes1, sizes2 = ([x.shape[i] for i in at] for x, at in ((x1, axes1), (x2, axes2)))
    if sizes1 != sizes2:
        raise ShapeError(
            message(
                "tensordot",
                expected="the axes summed over to be of one length in both",
                got=f"shapes {x1.shape} and {x2.shape}, which have {sizes1} and {sizes2} there",
            )
        )
    free1 = tuple(i for i in range(x1.ndim) if i not in axes1)
    free2 = tuple(i for i in range(x2.ndim) if i not in axes2)
    shape1, shape2 = [x1.shape[i] for i in free1], [x2.shape[i] for i in free2]
    count = math.prod(sizes1)
    left = reshape(permute(x1, (*free1, *axes1)), (math.prod(shape1), count))
    right = reshape(permute(x2, (*axes2, *free2)), (count, math.prod(shape2)))
    return reshape(apply(MATMUL, (left, right)), (*shape1, *shape2))


def _contracted_axes(x1: Tensor, x2: Tensor, dims: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(dims, int):
        most = min(x1.ndim, x2.ndim)
        if not 0 <= dims <= most:
            raise AxisError(
                message(
                    "tensordot",
                    expected=f"from 0 to {most} axes to sum over",
                    got=f"{dims}, for shapes {x1.shape} and {x2.shape}",
                )
            )
        return tuple(range(x1.ndim - dims, x1.ndim)), tuple(range(dims))
    given1, given2 = ((at,) if isinstance(at, int) else tuple(at) for at in dims)
    if len(given1) != len(given2):
        got = f"{len(given1)} and {len(given2)}"
        raise AxisError(message("tensordot", expected="as many axes of both tensors", got=got))
    return (
        canonical_axes("tensordot", given1, x1.ndim),
        canonical_axes("tensordot", given2, x2.ndim),
    )


# ------------------------------------------------------------------------------------- linear


def _linear_samples() -> Any:
    for shape in ((5, 3), (3,), (2, 4, 3), (0, 3), (1, 3)):
        x, weight, bias = values(shape), values((4, 3), seed=1), values(4, seed=2)
        yield Sample((x, weight, bias), name=f"x of shape {shape}")
        yield Sample((x, weight), name=f"x of shape {shape}, no bias")
    yield Sample((values((5, 3)), values((1, 3), seed=1), values(1, seed=2)), name="one output")
    yield Sample((values((3, 5)).T, values((3, 4), seed=1).T, values(4, seed=2)), name="transposed")
    large = (values((33, 65)), values((31, 65), seed=1), values(31, seed=2))
    yield Sample(large, name="33x65 to 31", large=True)


def _linear_forward(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    ndim = getattr(x, "ndim", 0)
    if weight.ndim != 2 or not ndim:
        raise ValueError
    if ndim < 3:
        y = array_dot(xp, x, weight.T)
    else:
        y = array_dot(xp, x.reshape(-1, x.shape[-1]), weight.T)
        y = y.reshape(*x.shape[:-1], weight.shape[0])
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError
        y += bias
    return y


def _linear_backward(xp: Any, gy: Any, x: Any, weight: Any, *, needs: tuple[bool, ...]) -> Any:
    gx = gw = None
    rows = gy if gy.ndim == 2 else gy.reshape(-1, weight.shape[0])
    if needs[0]:
        gx = array_dot(xp, rows, weight)
        if gy.ndim != 2:
            gx = gx.reshape(x.shape)
    if needs[1]:
        gw = array_dot(xp, rows.T, x if x.ndim == 2 else x.reshape(-1, weight.shape[1]))
    return (gx, gw, sum_along(xp, rows, 0)) if needs[2] else (gx, gw)


def _linear_accepts(x: Any, weight: Any, bias: Any = None, activation: str = "") -> bool:
    if not getattr(x, "ndim", 0) or getattr(weight, "ndim", 0) != 2:
        return False
    if x.shape[-1] != weight.shape[1] or (activation and x.dtype.kind not in "fV"):
        return False
    if bias is None:
        return _same(x, weight)
    return getattr(bias, "shape", None) == weight.shape[:1] and _same(x, weight, bias)


def _linear_cuda(x: Any, weight: Any, bias: Any = None, activation: str = "") -> Any:
    """The bias and the activation are part of the product's kernel."""
    options = {} if bias is None else {"bias": bias}
    if activation:
        options["activation"] = activation
    y = ladder.run("matmul", "matmul", _tall(x), weight.T, **options)
    return y if y.ndim == x.ndim else y.reshape((*x.shape[:-1], weight.shape[0]))


def _tall(x: Any) -> Any:
    """A batch of matrices as one matrix, where that takes no copy."""
    return x if x.ndim > 1 and not x.flags.c_contiguous else _rows(x, x.shape[-1:])


def _linear_backward_cuda(
    gy: Any, x: Any, weight: Any, *, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    gx = gw = None
    rows = _rows(gy, gy.shape[-1:])  # the gradients of weight and bias are sums over all of them
    if needs[0]:
        gx = ladder.run("matmul", "matmul", rows, weight).reshape(x.shape)
    if needs[1]:
        gw = ladder.run("matmul", "matmul", rows.T, _rows(x, x.shape[-1:]))
    if not needs[2]:
        return gx, gw
    return gx, gw, reduction.sum_rows(rows) if rows.size else rows.sum(axis=0)


def _check_linear(x: Any, weight: Any, bias: Any = None, name: str = "linear") -> None:
    shape, weight_shape = _shape(x), _shape(weight)
    if len(weight_shape) != 2:
        raise ShapeError(
            message(
                name,
                expected="a weight of shape (out_features, in_features)",
                got=str(weight_shape),
                hint="use matmul for other shapes",
            )
        )
    n_out, n_in = weight_shape
    if not shape or shape[-1] != n_in:
        fits = shape and shape[-1] == n_out
        raise ShapeError(
            message(
                name,
                expected=f"x of shape (..., {n_in}), as the weight {weight_shape} takes",
                got=f"{shape}" + (f", whose last axis has {shape[-1]}" if shape else ""),
                hint="the weight is (out_features, in_features): transpose it" if fits else "",
            )
        )
    if bias is not None and _shape(bias) != (n_out,):
        raise ShapeError(
            message(
                name,
                expected=f"a bias of shape ({n_out},), as the weight {weight_shape} gives",
                got=str(_shape(bias)),
            )
        )


LINEAR = Op(
    "linear",
    _linear_forward,
    inputs=("x", "weight", "bias"),
    gradients={
        "x": lambda gy, weight: gy @ weight,
        "weight": lambda gy, x, weight_shape: (
            _rows(gy, weight_shape[:1]).T @ _rows(x, weight_shape[1:])
            if x.ndim > 1
            else gy[:, None] * x
        ),
        "bias": lambda gy, bias_shape: sum_to(gy, bias_shape),
    },
    fused=Op(
        "linear_backward",
        _linear_backward,
        inputs=("gy", "x", "weight"),
        dtype=PROMOTE,
        halves=True,
        kernels=_on_cuda(
            "matmul", lambda gy, x, weight, needs: _same(gy, x, weight), _linear_backward_cuda
        ),
    ),
    dtype=PROMOTE,
    kinds=_NUMBERS,
    halves=True,
    check=_check_linear,
    kernels=_on_cuda("matmul", _linear_accepts, _linear_cuda),
    samples=_linear_samples,
)


@public(LINEAR)
def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``: an affine map of the vectors along the last axis.

    ``x`` has shape (…, in_features), ``weight`` (out_features, in_features) and ``bias``
    (out_features,); the result has shape (…, out_features).

    Raises `ShapeError` where these do not fit.

    >>> linear(gl.tensor([[1.0, 2.0]]), gl.tensor([[3.0, 4.0]]), gl.tensor([0.5]))
    tensor([[11.5000]])
    """
    return apply(LINEAR, (x, weight) if bias is None else (x, weight, bias))


# --------------------------------------------------------------------- linear with an activation

_ACTIVATIONS = ("relu", "tanh", "sigmoid")


def _linear_act_samples() -> Any:
    for activation in _ACTIVATIONS:
        for shape in ((5, 3), (3,), (2, 4, 3), (0, 3)):
            x, weight, bias = values(shape), values((4, 3), seed=1), values(4, seed=2)
            options = {"activation": activation}
            yield Sample((x, weight, bias), options, f"{activation}, x of shape {shape}")
        yield Sample((x, weight), options, f"{activation}, no bias")
    turned = (values((3, 5)).T, values((3, 4), seed=1).T, values(4, seed=2))
    yield Sample(turned, {"activation": "tanh"}, name="transposed")
    large = (values((33, 65)), values((31, 65), seed=1), values(31, seed=2))
    yield Sample(large, name="33x65 to 31", large=True)


def _linear_act_forward(xp: Any, x: Any, weight: Any, bias: Any = None, *, activation: str) -> Any:
    y = _linear_forward(xp, x, weight, bias)
    if activation == "relu":
        return xp.maximum(y, xp.zeros((), y.dtype))
    if activation == "tanh":
        return xp.tanh(y)
    return xp.reciprocal(1 + xp.exp(-y))


def _through_activation(gy: Tensor, y: Tensor, activation: str) -> Tensor:
    """The gradient of what was activated, from the result ``y``."""
    if activation == "relu":
        return where(y != 0, gy, 0.0)  # a NaN is not hidden
    return gy * (1 - y * y) if activation == "tanh" else gy * y * (1 - y)


def _linear_act_gradient(
    gy: Tensor, x: Tensor, y: Tensor, activation: str, weight_shape: tuple[int, ...]
) -> Tensor:
    gz = _through_activation(gy, y, activation)
    if x.ndim == 1:
        return gz[:, None] * x
    return _rows(gz, weight_shape[:1]).T @ _rows(x, weight_shape[1:])


def _linear_act_backward(
    xp: Any, gy: Any, x: Any, weight: Any, y: Any, *, needs: tuple[bool, ...], activation: str
) -> Any:
    if activation == "relu":
        gz = keep(xp, y != 0, gy)
    elif activation == "tanh":
        gz = gy * (1 - y * y)
    else:
        gz = gy * y * (1 - y)
    return _linear_backward(xp, gz, x, weight, needs=needs)


def _linear_act_backward_cuda(
    gy: Any, x: Any, weight: Any, y: Any, *, needs: tuple[bool, ...], activation: str
) -> Any:
    gz = cuda.activation_gradient(gy, y, activation)
    return _linear_backward_cuda(gz, x, weight, needs=needs)


LINEAR_ACT = Op(
    "linear_act",
    _linear_act_forward,
    inputs=("x", "weight", "bias"),
    gradients={
        "x": lambda gy, weight, y, activation: _through_activation(gy, y, activation) @ weight,
        "weight": _linear_act_gradient,
        "bias": lambda gy, y, activation, bias_shape: sum_to(
            _through_activation(gy, y, activation), bias_shape
        ),
    },
    fused=Op(
        "linear_act_backward",
        _linear_act_backward,
        inputs=("gy", "x", "weight", "y"),
        dtype=PROMOTE,
        halves=True,
        kernels=_on_cuda(
            "matmul",
            lambda gy, x, weight, y, needs, activation: _same(gy, x, weight, y),
            _linear_act_backward_cuda,
        ),
    ),
    dtype=FLOAT,
    kinds="iufV",
    halves=True,
    check=lambda x, weight, bias=None, activation="": _check_linear(x, weight, bias, "linear_act"),
    kernels=_on_cuda("matmul", _linear_accepts, _linear_cuda),
    samples=_linear_act_samples,
)


@public(LINEAR_ACT)
def linear_act(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, activation: str = "relu"
) -> Tensor:
    """Return ``activation(x @ weight.T + bias)``, a layer of a perceptron in one op.

    The shapes are those of `linear`; ``activation`` is ``"relu"``, ``"tanh"`` or ``"sigmoid"``.
    On a GPU the bias and the activation are part of the product's kernel: the result is written
    once, and not read and written again by each of them. The gradient needs the result only, not
    what was activated. Integers are taken as the default floating dtype.

    Raises `ShapeError` where the shapes do not fit, `OptionError` for another activation.

    >>> weight = gl.tensor([[3.0, 4.0], [-3.0, 1.0]])
    >>> linear_act(gl.tensor([[1.0, 2.0]]), weight, gl.tensor([0.5, 0.0]))
    tensor([[11.5000,  0.0000]])
    """
    require_option("linear_act", "activation", activation, _ACTIVATIONS)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return apply(LINEAR_ACT, inputs, {"activation": activation})


# ------------------------------------------------------------------------------------- einsum
#
# The public function writes every equation in one simple form: no ellipsis, an explicit output,
# no label twice in a term (a diagonal was taken), equal sizes for equal labels (size 1 was
# expanded). The op then has only sums, transposes and pairwise products left, and the gradient
# of an operand is an equation of the same form.


def _einsum_samples() -> Any:
    a, b, v = values((2, 3)), values((3, 4), seed=1), values(3, seed=2)
    c, d = values((5, 2, 3)), values((5, 3, 4), seed=1)
    square = values((3, 3))
    for equation, *operands in (
        ("ij,jk->ik", a, b), ("ij,jk", a, b), ("ij->ji", a), ("ij->", a), ("ij->j", a), ("ba", a),
        ("i,i->", v, v * 1.5), ("i,j->ij", v, v * 1.5), ("bij,bjk->bik", c, d),
        ("...ij,...jk->...ik", c, b), ("...i->...", c), ("i...,i...->...", a, a * 1.5),
        ("ij,jk,k->i", a, b, values(4, seed=3)), ("ij,j,ik->jk", a, v, a * 1.5),
        ("ii->", square), ("ii->i", square), ("ij,jj->i", a, square), ("ij,kl->il", a, b),
        ("ij,ij->ij", a, values((1, 3), seed=4)), ("ij,->ij", a, np.asarray(values((), seed=5))),
    ):  # fmt: skip
        shapes = " and ".join(str(x.shape) for x in operands)
        yield Sample((equation, *operands), name=f"{equation} of {shapes}")
    yield Sample(("ij,jk->ki", values((65, 33)), values((33, 31), seed=1)), name="65x33x31",
                 large=True)  # fmt: skip


def _einsum_forward(xp: Any, *xs: Any, labels: tuple[str, ...], output: str) -> Any:
    terms = [(x, label) for x, label in zip(xs, labels, strict=True)]
    sizes = {label: n for x, term in terms for label, n in zip(term, x.shape, strict=True)}
    while len(terms) > 1:
        i, j = _cheapest_pair(tuple(term for _, term in terms), output, tuple(sizes.items()))
        second, first = terms.pop(j), terms.pop(i)
        wanted = set(output).union(*(term for _, term in terms))
        terms.append(_contract(xp, *first, *second, wanted, sizes))
    y, term = _sum_labels(xp, *terms[0], set(output))
    y = y.transpose([term.index(label) for label in output])
    # The result must not share the memory of an operand that was only transposed.
    return y.copy() if len(xs) == 1 and len(labels[0]) == len(output) else y


@lru_cache(maxsize=1024)
def _cheapest_pair(
    terms: tuple[str, ...], output: str, sizes: tuple[tuple[str, int], ...]
) -> tuple[int, int]:
    """The two terms whose product is the smallest against what it replaces (greedy order)."""
    size = dict(sizes)
    best: tuple[int, int, int] | None = None
    for j in range(1, len(terms)):
        for i in range(j):
            others = (term for at, term in enumerate(terms) if at not in (i, j))
            kept = set(terms[i] + terms[j]) & set(output).union(*others)
            before = sum(math.prod(size[label] for label in terms[at]) for at in (i, j))
            cost = math.prod(size[label] for label in kept) - before
            if best is None or cost < best[0]:
                best = (cost, i, j)
    assert best is not None
    return best[1], best[2]


def _sum_labels(xp: Any, x: Any, term: str, wanted: set[str]) -> tuple[Any, str]:
    """Sum over the labels that nothing asks for any more."""
    axes = tuple(i for i, label in enumerate(term) if label not in wanted)
    if not axes:
        return x, term
    return reduce_array(xp, "sum", x, axes), "".join(label for label in term if label in wanted)


def _contract(
    xp: Any, x1: Any, term1: str, x2: Any, term2: str, wanted: set[str], sizes: dict[str, int]
) -> tuple[Any, str]:
    """The product of two terms summed over the labels they share and nothing else asks for.

    Written as one batch of matrix products: (batch, left, summed) @ (batch, summed, right).
    """
    x1, term1 = _sum_labels(xp, x1, term1, wanted | set(term2))
    x2, term2 = _sum_labels(xp, x2, term2, wanted | set(term1))
    shared = [label for label in term1 if label in term2]
    batch = [label for label in shared if label in wanted]
    summed = [label for label in shared if label not in wanted]
    left = [label for label in term1 if label not in term2]
    right = [label for label in term2 if label not in term1]

    def arranged(x: Any, term: str, *groups: list[str]) -> Any:
        axes = [term.index(label) for group in groups for label in group]
        return x.transpose(axes).reshape([math.prod(sizes[k] for k in g) for g in groups])

    y1 = arranged(x1, term1, batch, left, summed)
    y2 = arranged(x2, term2, batch, summed, right)
    # With nothing to sum these are (batch, left, 1) and (batch, 1, right): many tiny matrices.
    y = array_matmul(xp, y1, y2) if summed else y1 * y2
    labels = batch + left + right
    return y.reshape([sizes[label] for label in labels]), "".join(labels)


def _is_one_product(*xs: Any, labels: tuple[str, ...], output: str) -> bool:
    """True for two tensors of halves of which a single product remains: it is rounded once."""
    if len(xs) != 2 or not _same(*xs) or cuda.kernel_dtype(xs[0].dtype) not in cuda.HALVES:
        return False
    term1, term2 = map(set, labels)
    return bool(term1 & term2 - set(output)) and term1 ^ term2 <= set(output)


def _einsum_cuda(*xs: Any, labels: tuple[str, ...], output: str) -> Any:
    return _einsum_forward(current().xp, *xs, labels=labels, output=output)


def _einsum_gradient(
    gy: Tensor,
    i: int,
    xs: tuple[Tensor, ...],
    labels: tuple[str, ...],
    output: str,
    x_shape: tuple[int, ...],
) -> Tensor:
    others = tuple(x for at, x in enumerate(xs) if at != i)
    terms = (output, *(term for at, term in enumerate(labels) if at != i))
    known = set().union(*terms)
    # A label that only this operand has was summed over: its gradient is the same all along.
    target = "".join(label for label in labels[i] if label in known)
    gx = apply(EINSUM, (gy, *others), {"labels": terms, "output": target})
    if target == labels[i]:
        return gx
    sizes = zip(labels[i], x_shape, strict=True)
    kept = tuple(n if label in known else 1 for label, n in sizes)
    return reshape(gx, kept).expand(x_shape)


EINSUM = Op(
    "einsum",
    _einsum_forward,
    inputs=("*xs",),
    gradients={"*": _einsum_gradient},
    dtype=PROMOTE,
    kinds=_NUMBERS,
    halves=True,
    # Other equations of halves are computed in float32, as on the CPU.
    kernels=[Kernel("cuda", "matmul", _is_one_product, _einsum_cuda, casts=False)],
    samples=_einsum_samples,
)


class _Equation:
    """An equation read once for given numbers of axes: the labels of each operand and the result.

    The axes an ellipsis stands for get capital Greek letters, the same from the right in every
    term, as they broadcast.
    """

    def __init__(self, equation: str, ndims: tuple[int, ...]) -> None:
        self.equation = text = equation.replace(" ", "")
        left, arrow, right = text.partition("->")
        terms = left.split(",")
        if len(terms) != len(ndims):
            raise self.error(f"{len(terms)} operands", str(len(ndims)))
        self.broadcast = ""
        self.terms = [self._expand(term, ndim) for term, ndim in zip(terms, ndims, strict=True)]
        if not arrow:
            once = sorted(label for label in set(left) if left.count(label) == 1)
            right = "..." + "".join(label for label in once if label in ascii_letters)
        self.output = self._output(right, explicit=bool(arrow))

    def error(self, expected: str, got: str, hint: str = "") -> OptionError:
        return OptionError(
            message(f"einsum {self.equation!r}", expected=expected, got=got, hint=hint)
        )

    def _expand(self, term: str, ndim: int) -> str:
        head, ellipsis, tail = term.partition("...")
        named = head + tail
        if bad := [label for label in named if label not in ascii_letters]:
            raise self.error("letters, commas, -> and ...", repr(bad[0]))
        missing = ndim - len(named)
        if missing < 0 or (missing and not ellipsis):
            expected = f"{len(named)} axes{' or more' if ellipsis else ''} for the term {term!r}"
            raise ShapeError(str(self.error(expected, f"a tensor of {ndim}")))
        axes = "".join(chr(ord("Ω") - i) for i in reversed(range(missing)))
        self.broadcast = max(self.broadcast, axes, key=len)
        return head + axes + tail

    def _output(self, right: str, explicit: bool) -> str:
        head, ellipsis, tail = right.partition("...")
        named = head + tail
        known = set("".join(self.terms))
        for label in named:
            if label not in known:
                raise self.error("an output whose labels stand in the operands", repr(label))
            if named.count(label) > 1:
                raise self.error(
                    "each label once in the output", repr(label), "use diag_embed for a diagonal"
                )
        if explicit and not ellipsis:
            return named
        return head + self.broadcast + tail


_read_equation = lru_cache(maxsize=1024)(_Equation)


def _unrepeated(x: Tensor, term: str) -> tuple[Tensor, str]:
    """Take diagonals until every label of the term stands for one axis."""
    for label in set(term):
        while term.count(label) > 1:
            first = term.index(label)
            second = term.index(label, first + 1)
            x = diagonal(x, 0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + label
    return x, term


def _label_sizes(found: _Equation, xs: Sequence[Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for x, term in zip(xs, found.terms, strict=True):
        for label, n in zip(term, x.shape, strict=True):
            before = sizes.get(label, 1)
            if n not in (1, before) and before != 1:
                name = "..." if label not in ascii_letters else label
                raise ShapeError(
                    message(
                        f"einsum {found.equation!r}",
                        expected=f"one size for {name!r}",
                        got=f"{before} and {n}, in shapes "
                        + " and ".join(str(each.shape) for each in xs),
                    )
                )
            sizes[label] = n if before == 1 else before
    return sizes


def _einsum_operands(equation: Any, operands: tuple[Any, ...]) -> list[Tensor]:
    if not isinstance(equation, str):
        got = type(equation).__name__
        raise OptionError(message("einsum", expected="an equation such as 'ij,jk->ik'", got=got))
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    first = next((x for x in operands if isinstance(x, Tensor)), None)
    if first is None:
        got = ", ".join(type(x).__name__ for x in operands) or "none"
        raise OptionError(message("einsum", expected="tensors as operands", got=got))
    return [operand_beside(first, x, "einsum") for x in operands]


@public(EINSUM)
def einsum(equation: str, *operands: Any) -> Tensor:
    """Return the sums of products that ``equation`` describes in Einstein's notation [1]_.

    Each operand's term names its axes by letters; a letter absent from the output is summed over.
    Without ``->`` the output is the letters that occur once, in alphabetical order. ``...`` stands
    for any number of axes that broadcast; a letter twice in one term takes the diagonal; a size of
    1 broadcasts. With three operands or more the products are taken two at a time, the one that
    shrinks most first, each as one batched matrix product.

    Raises `OptionError` for an equation that cannot be read, `ShapeError` for sizes that differ.

    >>> einsum("ij,jk->ik", gl.tensor([[1, 2]]), gl.tensor([[3], [4]]))
    tensor([[11]])
    >>> einsum("ii", gl.tensor([[1, 2], [3, 4]]))
    tensor(5)

    .. [1] https://numpy.org/doc/stable/reference/generated/numpy.einsum.html
    """
    xs = _einsum_operands(equation, operands)
    found = _read_equation(equation, tuple(x.ndim for x in xs))
    sizes = _label_sizes(found, xs)
    ready, labels = [], []
    for x, term in zip(xs, found.terms, strict=True):
        full = tuple(sizes[label] for label in term)
        x, term = _unrepeated(x if x.shape == full else x.expand(full), term)
        ready.append(x)
        labels.append(term)
    return apply(EINSUM, ready, {"labels": tuple(labels), "output": found.output})


# ---------------------------------------------------------------------------------- diagonals


def _diagonal_samples() -> Any:
    yield Sample((values((3, 4)),), name="matrix")
    yield Sample((values((3, 4)),), {"offset": 1}, "above")
    yield Sample((values((4, 3)),), {"offset": -2}, "below")
    yield Sample((values((2, 3, 4)),), {"axis1": 2, "axis2": 0}, "other axes")
    yield Sample((values((3, 4)),), {"offset": 4}, "empty")


def _diagonal_forward(xp: Any, x: Any, *, offset: int, axis1: int, axis2: int) -> Any:
    y = xp.diagonal(x, offset, axis1, axis2)
    # NumPy returns a read-only view; PyTorch and CuPy one to write to.
    if isinstance(y, np.ndarray) and x.flags.writeable:
        y.flags.writeable = True
    return y


def _embed_forward(
    xp: Any, x: Any, *, offset: int, axis1: int, axis2: int, shape: tuple[int, ...]
) -> Any:
    y = xp.zeros(shape, x.dtype)
    _diagonal_forward(xp, y, offset=offset, axis1=axis1, axis2=axis2)[...] = x
    return y


def _place(offset: int, axis1: int, axis2: int) -> dict[str, int]:
    return {"offset": offset, "axis1": axis1, "axis2": axis2}


DIAGONAL = Op(
    "diagonal",
    _diagonal_forward,
    view=True,
    part=VIEW,
    samples=_diagonal_samples,
)


def _embed_samples() -> Any:
    yield Sample((values(3),), name="vector")
    yield Sample((values((2, 3)),), {"offset": 1}, "batch, above")
    yield Sample((values((2, 3)),), {"offset": -1, "axis1": 0, "axis2": 2}, "other axes")


DIAG_EMBED = Op(
    "diag_embed",
    _embed_forward,
    gradients={
        "x": lambda gy, offset, axis1, axis2: apply(DIAGONAL, (gy,), _place(offset, axis1, axis2))
    },
    samples=_embed_samples,
)


def _two_axes(operation: str, axis1: int, axis2: int, ndim: int) -> tuple[int, int]:
    first, second = (canonical_axis(operation, axis, ndim) for axis in (axis1, axis2))
    if first == second:
        raise AxisError(message(operation, expected="two different axes", got=f"{axis1}, {axis2}"))
    return first, second


def _accepts_dims(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``dim1`` and ``dim2``, PyTorch's names, stand for ``axis1`` and ``axis2``."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name, dim in (("axis1", "dim1"), ("axis2", "dim2")):
            if dim in kwargs:
                kwargs[name] = kwargs.pop(dim)
        return function(*args, **kwargs)

    return call


@public(DIAGONAL, "diagonal")
@_accepts_dims
def diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the view of the diagonal of two axes; it becomes the last axis.

    ``offset`` counts diagonals above the main one (below, if negative). ``dim1`` and ``dim2`` name
    the axes too. Writing to the view writes to ``x``.

    >>> diagonal(gl.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    if x.ndim < 2:
        got = f"shape {x.shape}"
        raise ShapeError(
            message("diagonal", expected="at least two axes", got=got, hint="use diag")
        )
    first, second = _two_axes("diagonal", axis1, axis2, x.ndim)
    return apply(DIAGONAL, (x,), _place(offset, first, second))


@public(DIAG_EMBED, "diag_embed")
@_accepts_dims
def diag_embed(x: Tensor, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    """Return zeros with the last axis of ``x`` on the diagonal of two new axes.

    >>> diag_embed(gl.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    if not x.ndim:
        raise ShapeError(message("diag_embed", expected="at least one axis", got="a scalar"))
    ndim = x.ndim + 1
    first, second = _two_axes("diag_embed", axis1, axis2, ndim)
    size = x.shape[-1] + abs(offset)
    rest = iter(x.shape[:-1])
    shape = tuple(size if i in (first, second) else next(rest) for i in range(ndim))
    return apply(DIAG_EMBED, (x,), {**_place(offset, first, second), "shape": shape})


@public(None, "diag")
def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return the diagonal of a matrix, or the matrix with a vector on its diagonal.

    >>> diag(gl.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    if x.ndim == 1:
        return diag_embed(x, diagonal)
    if x.ndim != 2:
        hint = "use diagonal or diag_embed for more axes"
        raise ShapeError(
            message("diag", expected="a vector or a matrix", got=f"shape {x.shape}", hint=hint)
        )
    # The array API and PyTorch give a copy here, `diagonal` the view.
    return apply(DIAGONAL, (x,), _place(diagonal, 0, 1)).clone()


@public(None, "trace")
def trace(x: Tensor, offset: int = 0) -> Tensor:
    """Return the sum of the diagonal of a matrix, or of each matrix of a batch (…, m, n).

    Integers are summed in int64.

    >>> trace(gl.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    if x.ndim < 2:
        got = f"shape {x.shape}"
        raise ShapeError(message("trace", expected="a matrix or a batch of them", got=got))
    return diagonal(x, offset, -2, -1).sum(-1)


__all__ = [
    "addmm", "bmm", "diag", "diag_embed", "diagonal", "dot", "einsum",
    "get_float32_matmul_precision", "inner", "linear", "linear_act", "matmul", "mm", "mv", "outer",
    "set_float32_matmul_precision", "tensordot", "trace", "vdot", "vecdot",
]  # fmt: skip
