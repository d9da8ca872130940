"""Elementwise ops: arithmetic, comparison, logic, the functions of one variable, `where`, `clip`.

All broadcast as NumPy does, and promote dtypes as `gradlab.dtypes` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gradlab import dtypes
from gradlab.arguments import show
from gradlab.autograd.modes import mode
from gradlab.devices import cpu
from gradlab.errors import DTypeError, GradientError, OptionError, message
from gradlab.kernels.cpu import halves
from gradlab.ops.core import (
    BOOL,
    FLOAT,
    OWN,
    PROMOTE,
    Op,
    apply,
    apply_,
    in_float32,
    mark_written,
    public,
    wide_kernel,
    write,
)
from gradlab.ops.samples import Sample, binary, unary, values
from gradlab.tensor import Tensor, from_value, operand_beside, require_option, value_for

TensorLike: TypeAlias = Tensor | bool | int | float | complex | np.ndarray

X1_X2 = ("x1", "x2")


def _binary(name: str, ufunc: Any, **options: Any) -> Op:
    options = {"dtype": PROMOTE, "samples": binary(), **options}
    return Op(name, ufunc, inputs=X1_X2, broadcasts=True, **options)


def _unary(name: str, ufunc: Any, **options: Any) -> Op:
    options = {"dtype": FLOAT, "samples": unary(), **options}
    return Op(name, ufunc, **options)


def write_out(name: str, y: Tensor, out: Tensor) -> Tensor:
    """Write the result ``y`` into the memory of ``out``; an empty ``out`` gets memory."""
    if not isinstance(out, Tensor):
        got = type(out).__name__  # type: ignore[unreachable]
        raise OptionError(message(name, expected="a tensor as out", got=got))
    if y.requires_grad or (mode.grad and out.requires_grad):
        raise GradientError(
            message(
                name,
                expected="no gradients to record where the result is written into out=",
                got="a tensor that requires a gradient",
                hint="leave out= away, or compute in no_grad()",
            )
        )
    if out.numel() == 0 and out.shape != y.shape:
        out._replace(Tensor._wrap(out.device.xp.empty(y.shape, out.dtype), out.device))
    write(out, y, name)
    mark_written(out, name)
    return out


def _reflected(op: Op, method: str) -> None:
    """Attach ``__radd__`` and the like: the operand on the left was no tensor."""

    def reflected(x2: Tensor, x1: TensorLike) -> Tensor:
        return apply(op, (x1, x2))

    Tensor._add_method(method, reflected)


def _check_numbers(operation: str) -> Callable[..., None]:
    """The check of an op whose attributes are numbers."""

    def check(x: Tensor, **attributes: Any) -> None:
        for name, value in attributes.items():
            if not isinstance(value, int | float):
                expected = f"a number as {name}"
                raise OptionError(message(operation, expected=expected, got=show(value)))

    return check


def _in_place(op: Op, *names: str) -> None:
    """Attach ``__iadd__``, ``add_`` and the like."""

    def in_place(x: Tensor, *others: Any) -> Tensor:
        return apply_(op, x, others)

    in_place.__doc__ = f"In place: the tensor becomes ``{op.name}(x, …)``, keeping its memory."
    for name in names:
        Tensor._add_method(name, in_place)


# --------------------------------------------------------------------------------- arithmetic


def _times(x: TensorLike, alpha: Any) -> Any:
    """``alpha·x``, of two numbers as Python has it: they meet their tensor's dtype later."""
    both = isinstance(x, int | float | complex) and not isinstance(alpha, Tensor)
    return x * alpha if both else mul(x, alpha)


ADD = _binary("add", "add", gradients={"x1": lambda gy: gy, "x2": lambda gy: gy})


@public(ADD, "__add__", "add")
def add(x1: TensorLike, x2: TensorLike, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """Return ``x1 + alpha·x2``, element by element; written into ``out`` if given.

    >>> add(gl.tensor([1.0, 2.0]), 1)
    tensor([2., 3.])
    """
    y = apply(ADD, (x1, x2 if alpha == 1 else _times(x2, alpha)))
    return y if out is None else write_out("add", y, out)


SUB = _binary("sub", "subtract", kinds="iufcV", gradients={
    "x1": lambda gy: gy,
    "x2": lambda gy: -gy,
})  # fmt: skip


@public(SUB, "__sub__", "sub", "subtract")
def sub(x1: TensorLike, x2: TensorLike, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """Return ``x1 - alpha·x2``, element by element; written into ``out`` if given."""
    y = apply(SUB, (x1, x2 if alpha == 1 else _times(x2, alpha)))
    return y if out is None else write_out("sub", y, out)


MUL = _binary("mul", "multiply", gradients={
    "x1": lambda gy, x2: gy * x2,
    "x2": lambda gy, x1: gy * x1,
})  # fmt: skip


@public(MUL, "__mul__", "mul", "multiply")
def mul(x1: TensorLike, x2: TensorLike, *, out: Tensor | None = None) -> Tensor:
    """Return ``x1 · x2``, element by element (the Hadamard product); written into ``out`` if given.

    >>> mul(gl.tensor([1.0, 2.0]), gl.tensor([3.0, 4.0]))
    tensor([3., 8.])
    """
    y = apply(MUL, (x1, x2))
    return y if out is None else write_out("mul", y, out)


DIV = _binary("div", "true_divide", dtype=FLOAT, samples=binary(low2=0.5, high2=2.0), gradients={
    "x1": lambda gy, x2: gy / x2,
    "x2": lambda gy, x1, x2: -gy * (x1 / x2) / x2,
})  # fmt: skip


@public(DIV, "__truediv__", "div", "divide", "true_divide")
def div(
    x1: TensorLike, x2: TensorLike, *, rounding_mode: str | None = None, out: Tensor | None = None
) -> Tensor:
    """Return ``x1 / x2``, element by element; integers give the default floating dtype.

    ``rounding_mode``: None, ``"floor"`` (as `floor_divide`) or ``"trunc"`` (towards zero). With one
    integers stay integers. Written into ``out`` if given.
    """
    require_option("div", "rounding_mode", rounding_mode, (None, "floor", "trunc"))
    if rounding_mode == "floor":
        y = floor_divide(x1, x2)
    elif rounding_mode is None:
        y = apply(DIV, (x1, x2))
    elif _is_whole(x1) and _is_whole(x2):
        y = floor_divide(sub(x1, fmod(x1, x2)), x2)  # nothing is left to round
    else:
        y = trunc(apply(DIV, (x1, x2)))
    return y if out is None else write_out("div", y, out)


def _is_whole(x: TensorLike) -> bool:
    kind = x.dtype.kind if hasattr(x, "dtype") else np.asarray(x).dtype.kind
    return kind in "iub"


def _zero_like(gy: Tensor) -> Tensor:
    # Not gy * 0, which is NaN where gy is infinite. It depends on gy, so any order works.
    return where(Tensor._wrap(gy.device.xp.zeros((), bool), gy.device), gy, 0.0)


FLOOR_DIVIDE = _binary(
    "floor_divide", "floor_divide", kinds="iufV",
    samples=binary(low=0.62, high=0.68, low2=0.24, high2=0.29),  # quotients from 2.1 to 2.9
    gradients={"x1": _zero_like, "x2": _zero_like},
)  # fmt: skip


@public(FLOOR_DIVIDE, "__floordiv__", "floor_divide")
def floor_divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the largest whole number not above ``x1 / x2``. Its gradient is 0."""
    return apply(FLOOR_DIVIDE, (x1, x2))


REMAINDER = _binary(
    "remainder", "remainder", kinds="iufV",
    samples=binary(low=0.82, high=0.9, low2=0.32, high2=0.38),  # quotients from 2.1 to 2.9
    gradients={"x1": lambda gy: gy, "x2": lambda gy, x1, x2: -gy * floor_divide(x1, x2)},
)  # fmt: skip


@public(REMAINDER, "__mod__", "remainder")
def remainder(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return ``x1 - x2·floor(x1 / x2)``, which has the sign of ``x2``."""
    return apply(REMAINDER, (x1, x2))


FMOD = _binary(
    "fmod", "fmod", kinds="iufV",
    samples=binary(low=0.82, high=0.9, low2=0.32, high2=0.38),  # quotients from 2.1 to 2.9
    gradients={"x1": lambda gy: gy, "x2": lambda gy, x1, x2: -gy * trunc(x1 / x2)},
)  # fmt: skip


@public(FMOD, "fmod")
def fmod(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return ``x1 - x2·trunc(x1 / x2)``, which has the sign of ``x1``, as C's ``%``.

    >>> fmod(gl.tensor([-3.0, 3.0]), 2)
    tensor([-1.,  1.])
    """
    return apply(FMOD, (x1, x2))


def _pow_forward(xp: Any, x1: Any, x2: Any) -> Any:
    if isinstance(x2, np.generic) and x2 == 0.5 and x1.dtype.kind == "f":
        return xp.sqrt(x1)  # a third of the time of np.power
    return xp.power(x1, x2)


def _check_pow(x1: Any, x2: Any) -> None:
    kinds = [x.dtype.kind if isinstance(x, Tensor) else None for x in (x1, x2)]
    if set(kinds) <= {"i", "u", None}:
        raise DTypeError(
            message(
                "pow",
                expected="exponents of 0 or more for integers",
                got="a negative one",
                hint="cast first, for example with .astype(gradlab.float32)",
            )
        )


def _pow_gx1(gy: Tensor, x1: Any, x2: Any) -> Tensor:
    if not isinstance(x2, Tensor):
        return _zero_like(gy) if x2 == 0 else gy * (x1 * 2 if x2 == 2 else x2 * x1 ** (x2 - 1))
    # x2·x1^(x2-1) is 0·inf at x2 = 0, where the derivative is 0.
    return gy * where(x2 == 0, 0.0, x2 * x1 ** where(x2 == 0, 1.0, x2 - 1))


def _pow_gx2(gy: Tensor, x1: Any, x2: Tensor, y: Tensor) -> Tensor:
    # y·log(x1) is 0·(-inf) at x1 = 0, where the derivative is 0 for x2 of 0 or more.
    if not isinstance(x1, Tensor):
        if x1 == 0:
            return gy * where(x2 >= 0, 0.0, y * -math.inf)
        return gy * y * (math.log(x1) if x1 > 0 else math.nan)
    flat = (x1 == 0) & (x2 >= 0)
    return gy * where(flat, 0.0, y * log(where(flat, 1.0, x1)))


POW = _binary(
    "pow", _pow_forward, kinds="iufcV", wide=True, samples=binary(low=0.3, high=2.0),
    gradients={"x1": _pow_gx1, "x2": _pow_gx2}, check=_check_pow,
)  # fmt: skip


@public(POW, "__pow__", "pow")
def pow(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return ``x1 ** x2``, element by element.

    >>> pow(gl.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.])
    """
    if x2.__class__ is int and x2 == 2 and isinstance(x1, Tensor) and x1.dtype.kind in "fV":
        return apply(SQUARE, (x1,))  # np.power takes ten times as long as a product
    return apply(POW, (x1, x2))


def _tie_half(gy: Tensor, beaten: Tensor, tie: Tensor) -> Tensor:
    # Ask which is beaten: NaN is not, so its gradient passes through.
    return where(tie, gy * 0.5, where(beaten, 0.0, gy))


MAXIMUM = _binary("maximum", "maximum", kinds="biufV", gradients={
    "x1": lambda gy, x1, x2: _tie_half(gy, x1 < x2, x1 == x2),
    "x2": lambda gy, x1, x2: _tie_half(gy, x2 < x1, x1 == x2),
})  # fmt: skip


@public(MAXIMUM, "maximum")
def maximum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the larger of each pair, NaN where one is NaN; at ties both get half the gradient."""
    return apply(MAXIMUM, (x1, x2))


MINIMUM = _binary("minimum", "minimum", kinds="biufV", gradients={
    "x1": lambda gy, x1, x2: _tie_half(gy, x1 > x2, x1 == x2),
    "x2": lambda gy, x1, x2: _tie_half(gy, x2 > x1, x1 == x2),
})  # fmt: skip


@public(MINIMUM, "minimum")
def minimum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the smaller of each pair, NaN where one is NaN; at ties both get half the gradient."""
    return apply(MINIMUM, (x1, x2))


ATAN2 = _binary("atan2", "arctan2", dtype=FLOAT, kinds="biufV", wide=True, gradients={
    "x1": lambda gy, x1, x2: gy * x2 / (x1 * x1 + x2 * x2),
    "x2": lambda gy, x1, x2: -gy * x1 / (x1 * x1 + x2 * x2),
})  # fmt: skip


@public(ATAN2, "atan2", "arctan2")
def atan2(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return the angle of the point ``(x2, x1)`` in radians, in [-π, π]."""
    return apply(ATAN2, (x1, x2))


LOGADDEXP = _binary("logaddexp", "logaddexp", dtype=FLOAT, kinds="biufV", gradients={
    "x1": lambda gy, x1, x2: gy * sigmoid(x1 - x2),
    "x2": lambda gy, x1, x2: gy * sigmoid(x2 - x1),
})  # fmt: skip


@public(LOGADDEXP, "logaddexp")
def logaddexp(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Return ``log(exp(x1) + exp(x2))`` without overflow."""
    return apply(LOGADDEXP, (x1, x2))


@public(None, "lerp")
@in_float32
def lerp(x: Tensor, end: Tensor, weight: TensorLike) -> Tensor:
    """Return ``x + weight·(end - x)``: ``x`` at weight 0, ``end`` at weight 1.

    >>> lerp(gl.tensor([1.0, 2.0]), gl.tensor([3.0, 6.0]), 0.5)
    tensor([2., 4.])
    """
    return x + weight * (end - x)


@public(None, "addcmul")
@in_float32
def addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """Return ``x + value·tensor1·tensor2``.

    >>> addcmul(gl.ones(2), gl.tensor([1.0, 2.0]), gl.tensor([3.0, 4.0]), value=2)
    tensor([ 7., 17.])
    """
    return x + value * tensor1 * tensor2


@public(None, "addcdiv")
@in_float32
def addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """Return ``x + value·tensor1 / tensor2``.

    >>> addcdiv(gl.ones(2), gl.tensor([1.0, 2.0]), gl.tensor([2.0, 4.0]), value=2)
    tensor([2., 2.])
    """
    return x + value * tensor1 / tensor2


@public(None, "hypot")
@in_float32
def hypot(x1: Tensor, x2: Tensor) -> Tensor:
    """Return ``√(x1² + x2²)``, without overflow.

    >>> hypot(gl.tensor([3.0]), gl.tensor([4.0]))
    tensor([5.])
    """
    large, small = maximum(abs(x1), abs(x2)), minimum(abs(x1), abs(x2))
    ratio = where(large == 0, 0.0, small / where(large == 0, 1.0, large))
    return where(large == math.inf, math.inf, large * sqrt(1 + ratio * ratio))


@public(None, "heaviside")
def heaviside(x: Tensor, values: Any) -> Tensor:
    """Return 0 for negative elements, ``values`` for 0, and 1 for positive ones; NaN for NaN.

    >>> heaviside(gl.tensor([-1.5, 0.0, 2.0]), gl.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    step = relu(sign(x.detach())) if x.is_floating_point() else (x > 0).astype(x.dtype)
    return where(x == 0, values, step)


# The names of NumPy and the array API.
subtract, multiply, divide, true_divide, arctan2 = sub, mul, div, div, atan2

for _op, _method in (
    (ADD, "__radd__"), (SUB, "__rsub__"), (MUL, "__rmul__"), (DIV, "__rtruediv__"),
    (FLOOR_DIVIDE, "__rfloordiv__"), (REMAINDER, "__rmod__"), (POW, "__rpow__"),
):  # fmt: skip
    _reflected(_op, _method)
_in_place(MUL, "__imul__", "mul_")
_in_place(DIV, "__itruediv__", "div_")
_in_place(FLOOR_DIVIDE, "__ifloordiv__", "floor_divide_")
_in_place(REMAINDER, "__imod__", "remainder_")
_in_place(FMOD, "fmod_")
_in_place(POW, "__ipow__", "pow_")
_in_place(ADD, "__iadd__")
_in_place(SUB, "__isub__")


@public(None, "add_")
def add_(x: Tensor, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """In place: ``x`` becomes ``x + alpha·other``, keeping its memory."""
    return apply_(ADD, x, (other if alpha == 1 else _times(other, alpha),))


@public(None, "sub_")
def sub_(x: Tensor, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """In place: ``x`` becomes ``x - alpha·other``, keeping its memory."""
    return apply_(SUB, x, (other if alpha == 1 else _times(other, alpha),))


# --------------------------------------------------------------------- comparison and logic


def _comparison(name: str, ufunc: str, method: str, kinds: str, doc: str) -> Any:
    op = _binary(name, ufunc, dtype=BOOL, kinds=kinds, why_not="its result is bool")

    def compare(x1: TensorLike, x2: TensorLike) -> Tensor:
        return apply(op, (x1, x2))

    return _named(
        compare, name, f"Return bool values: {doc}, element by element.", op, method, name, ufunc
    )


def _named(function: Any, name: str, doc: str, op: Op | None, *methods: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return public(op, *methods)(function)


def _equality(name: str, ufunc: str, method: str, doc: str) -> Any:
    op = _binary(name, ufunc, dtype=BOOL, why_not="its result is bool")

    def compare(x1: TensorLike, x2: TensorLike) -> Tensor:
        return apply(op, (x1, x2))

    def method_(x1: Tensor, x2: Any) -> Any:
        # `tensor == None` and `tensor in [...]` must not raise.
        if x2 is None or isinstance(x2, str):
            return NotImplemented
        return apply(op, (x1, x2))

    Tensor._add_method(method, method_)
    names = (name, ufunc) if ufunc == "not_equal" else (name,)  # equal() is another function
    return _named(compare, name, f"Return bool values: {doc}, element by element.", op, *names)


eq = _equality("eq", "equal", "__eq__", "x1 equals x2")
ne = not_equal = _equality("ne", "not_equal", "__ne__", "x1 differs from x2")
lt = less = _comparison("lt", "less", "__lt__", "biufV", "x1 is below x2")
le = less_equal = _comparison("le", "less_equal", "__le__", "biufV", "x1 is not above x2")
gt = greater = _comparison("gt", "greater", "__gt__", "biufV", "x1 is above x2")
ge = greater_equal = _comparison("ge", "greater_equal", "__ge__", "biufV", "x1 is not below x2")


def _of_truths(name: str) -> Callable[..., Any]:
    """The forward of a logical ufunc: CuPy's take no complex values."""
    on_host, of_numbers = getattr(np, name), np.dtype(complex)

    def forward(xp: Any, *inputs: Any) -> Any:
        if xp is np:
            return on_host(*inputs)
        kinds = [getattr(x, "dtype", of_numbers).kind for x in inputs]
        return getattr(xp, name)(
            *(x != 0 if kind == "c" else x for x, kind in zip(inputs, kinds, strict=True))
        )

    return forward


def _logical(name: str, doc: str) -> Any:
    op = _binary(name, _of_truths(name), dtype=BOOL, why_not="its result is bool")

    def logical(x1: TensorLike, x2: TensorLike) -> Tensor:
        return apply(op, (x1, x2))

    return _named(logical, name, f"Return bool values: {doc} (0 is false).", op, name)


logical_and = _logical("logical_and", "both are true")
logical_or = _logical("logical_or", "at least one is true")
logical_xor = _logical("logical_xor", "exactly one is true")


def _integers() -> Any:
    yield Sample((np.arange(12).reshape(3, 4), np.arange(4)), name="integers")
    yield Sample((np.arange(6), 3), name="integers with a scalar")
    yield Sample((np.array([True, False]), np.array([True, True])), name="bool")


def _bitwise(name: str, method: str, doc: str) -> Any:
    op = _binary(name, name, kinds="biu", why_not="it is defined on bits", samples=_integers)

    def bitwise(x1: TensorLike, x2: TensorLike) -> Tensor:
        return apply(op, (x1, x2))

    _reflected(op, f"__r{method}__")
    _in_place(op, f"__i{method}__")
    doc = f"Return {doc}; for bool and integer dtypes."
    return _named(bitwise, name, doc, op, f"__{method}__", name)


bitwise_and = _bitwise("bitwise_and", "and", "the bits set in both, ``x1 & x2``")
bitwise_or = _bitwise("bitwise_or", "or", "the bits set in either, ``x1 | x2``")
bitwise_xor = _bitwise("bitwise_xor", "xor", "the bits set in exactly one, ``x1 ^ x2``")
bitwise_left_shift = _bitwise("left_shift", "lshift", "``x1 << x2``")
bitwise_right_shift = _bitwise("right_shift", "rshift", "``x1 >> x2``")


def _one_integer() -> Any:
    yield Sample((np.arange(12).reshape(3, 4),), name="integers")
    yield Sample((np.array([True, False]),), name="bool")


BITWISE_NOT = Op(
    "bitwise_not", "invert", kinds="biu", why_not="it is defined on bits", samples=_one_integer
)


@public(BITWISE_NOT, "__invert__", "bitwise_not")
def bitwise_not(x: Tensor) -> Tensor:
    """Return ``x`` with every bit flipped; for bool, its negation."""
    return apply(BITWISE_NOT, (x,))


# ---------------------------------------------------------------- functions of one variable


def _function(
    name: str,
    forward: str | Callable[..., Any],
    gradient: Callable[..., Any] | None,
    doc: str,
    *methods: str,
    **options: Any,
) -> Any:
    """Declare an elementwise function of one tensor."""
    gradients = None if gradient is None else {"x": gradient}
    why_not = "its result is bool" if gradient is None else ""
    op = _unary(name, forward, gradients=gradients, why_not=why_not, **options)

    def function(x: TensorLike) -> Tensor:
        return apply(op, (x,))

    if gradient is not None:
        _in_place(op, f"{name}_")
    return _named(function, name, doc, op, name, *methods)


_REAL = "biufV"

neg = negative = _function(
    "neg", "negative", lambda gy: -gy, "Return ``-x``.", "__neg__",
    dtype=PROMOTE, kinds="iufcV",
)  # fmt: skip
abs = absolute = _function(
    "abs", "absolute", lambda gy, x: gy * sign(x), "Return ``|x|``.", "__abs__", "absolute",
    dtype=OWN, kinds="biufcV",
)  # fmt: skip
sign = _function(
    "sign", "sign", lambda gy: _zero_like(gy), "Return -1, 0 or 1. Its gradient is 0.",
    dtype=PROMOTE, kinds="iufV",
)  # fmt: skip


def _exp(xp: Any, x: Any) -> Any:
    # NumPy's float32 exponential is off in its last digit for two numbers in five, and differs
    # between processors; taken in float64 and rounded once, it is the nearest float32 everywhere.
    if xp is not np or x.dtype != dtypes.float32:
        return xp.exp(x)
    y = x.astype(np.float64)
    return np.exp(y, y).astype(np.float32)


exp = _function("exp", _exp, lambda gy, y: gy * y, "Return e to the power ``x``.",
                halves=True, kernels=[wide_kernel(np.exp)])  # fmt: skip
expm1 = _function("expm1", "expm1", lambda gy, y: gy * (y + 1), "Return ``exp(x) - 1``, precise "
                  "near 0.", halves=True)  # fmt: skip
exp2 = _function("exp2", "exp2", lambda gy, y: gy * y * math.log(2), "Return 2 to the power ``x``.",
                 kinds=_REAL, wide=True)  # fmt: skip
log = _function("log", "log", lambda gy, x: gy / x, "Return the natural logarithm; -inf at 0, NaN "
                "below.", samples=unary(0.2, 3.0))  # fmt: skip
log2 = _function("log2", "log2", lambda gy, x: gy / (x * math.log(2)), "Return the logarithm to "
                 "base 2.", samples=unary(0.2, 3.0), wide=True)  # fmt: skip
log10 = _function("log10", "log10", lambda gy, x: gy / (x * math.log(10)), "Return the logarithm "
                  "to base 10.", samples=unary(0.2, 3.0), wide=True)  # fmt: skip
log1p = _function("log1p", "log1p", lambda gy, x: gy / (x + 1), "Return ``log(1 + x)``, precise "
                  "near 0.", samples=unary(-0.7, 3.0), wide=True)  # fmt: skip
sqrt = _function("sqrt", "sqrt", lambda gy, y: gy / (y * 2), "Return the square root; NaN below 0.",
                 samples=unary(0.2, 3.0))  # fmt: skip
rsqrt = _function("rsqrt", lambda xp, x: 1 / xp.sqrt(x), lambda gy, y: gy * -0.5 * y * y * y,
                  "Return ``1 / sqrt(x)``.", samples=unary(0.2, 3.0), wide=True)  # fmt: skip
SQUARE = _unary(
    "square", "square", gradients={"x": lambda gy, x: gy * x * 2}, dtype=PROMOTE, kinds="iufcV"
)


@public(SQUARE, "square")
def square(x: TensorLike) -> Tensor:
    """Return ``x²``."""
    return apply(SQUARE, (x,))


_in_place(SQUARE, "square_")
reciprocal = _function("reciprocal", "reciprocal", lambda gy, y: -gy * y * y, "Return ``1 / x``.",
                       samples=unary(0.4, 3.0), wide=True)  # fmt: skip
sin = _function("sin", "sin", lambda gy, x: gy * cos(x), "Return the sine of ``x`` (radians).")
cos = _function("cos", "cos", lambda gy, x: -gy * sin(x), "Return the cosine of ``x`` (radians).")
tan = _function("tan", "tan", lambda gy, y: gy * (y * y + 1), "Return the tangent of ``x`` "
                "(radians).", samples=unary(-1.2, 1.2), wide=True)  # fmt: skip
asin = arcsin = _function(
    "asin", "arcsin", lambda gy, x: gy / sqrt(1 - x * x), "Return the angle whose sine is ``x``.",
    "arcsin", samples=unary(-0.9, 0.9), wide=True
)  # fmt: skip
acos = arccos = _function(
    "acos", "arccos", lambda gy, x: -gy / sqrt(1 - x * x),
    "Return the angle whose cosine is ``x``.", "arccos", samples=unary(-0.9, 0.9), wide=True
)  # fmt: skip
atan = arctan = _function(
    "atan", "arctan", lambda gy, x: gy / (1 + x * x), "Return the angle whose tangent is ``x``.",
    "arctan", wide=True
)  # fmt: skip
sinh = _function(
    "sinh", "sinh", lambda gy, x: gy * cosh(x), "Return the hyperbolic sine.", wide=True
)
cosh = _function(
    "cosh", "cosh", lambda gy, x: gy * sinh(x), "Return the hyperbolic cosine.", wide=True
)
tanh = _function(
    "tanh", "tanh", lambda gy, y: gy * (1 - y * y), "Return the hyperbolic tangent.", wide=True
)
asinh = arcsinh = _function(
    "asinh", "arcsinh", lambda gy, x: gy / sqrt(x * x + 1),
    "Return the inverse of the hyperbolic sine.", "arcsinh", wide=True
)  # fmt: skip
acosh = arccosh = _function(
    "acosh", "arccosh", lambda gy, x: gy / sqrt(x * x - 1),
    "Return the inverse of the hyperbolic cosine.", "arccosh", samples=unary(1.2, 3.0), wide=True
)  # fmt: skip
atanh = arctanh = _function(
    "atanh", "arctanh", lambda gy, x: gy / (1 - x * x),
    "Return the inverse of the hyperbolic tangent.", "arctanh", samples=unary(-0.9, 0.9), wide=True
)  # fmt: skip
floor = _function("floor", "floor", lambda gy: _zero_like(gy), "Round down. Its gradient is 0.",
                  dtype=PROMOTE, kinds="iufV", samples=unary(0.1, 0.9))  # fmt: skip
ceil = _function("ceil", "ceil", lambda gy: _zero_like(gy), "Round up. Its gradient is 0.",
                 dtype=PROMOTE, kinds="iufV", samples=unary(0.1, 0.9))  # fmt: skip
trunc = _function("trunc", "trunc", lambda gy: _zero_like(gy), "Round towards 0. Its gradient is "
                  "0.", dtype=PROMOTE, kinds="iufV", samples=unary(0.1, 0.9))  # fmt: skip

isnan = _function("isnan", "isnan", None, "Return True where ``x`` is NaN.", dtype=OWN)
isinf = _function("isinf", "isinf", None, "Return True where ``x`` is +inf or -inf.", dtype=OWN)
isfinite = _function("isfinite", "isfinite", None, "Return True where ``x`` is neither infinite "
                     "nor NaN.", dtype=OWN)  # fmt: skip
logical_not = _function("logical_not", _of_truths("logical_not"), None,
                        "Return True where ``x`` is 0.", dtype=OWN)  # fmt: skip
signbit = _function("signbit", "signbit", None, "Return True where the sign bit is set (-0.0 too).",
                    dtype=OWN, kinds="fV")  # fmt: skip
conj = _function("conj", "conjugate", lambda gy: gy, "Return the complex conjugate.", dtype=OWN)


def _round_integers(xp: Any, x: Any, unit: int) -> Any:
    """Integers to multiples of ``unit``, a power of ten, halves to the even multiple."""
    if unit > np.iinfo(x.dtype).max:
        return xp.zeros_like(x)
    quotient = xp.floor_divide(x, unit)
    rest = x - quotient * unit
    half = unit // 2
    up = (rest > half) | ((rest == half) & (quotient % 2 == 1))
    return (quotient + up.astype(x.dtype)) * unit


def _round_forward(xp: Any, x: Any, *, decimals: int) -> Any:
    if x.dtype.kind in "iu":  # NumPy goes through float64
        return x.copy() if decimals >= 0 else _round_integers(xp, x, 10**-decimals)
    return xp.round(x, decimals) if x.dtype != dtypes.bfloat16 else xp.rint(x)


ROUND = Op(
    "round", _round_forward, dtype=PROMOTE, kinds="iufcV",
    gradients={"x": lambda gy: _zero_like(gy)},
    samples=unary(0.1, 0.4), check=_check_numbers("round"),
)  # fmt: skip


@public(ROUND, "round")
def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Round to ``decimals`` places, halves to the even neighbour. Its gradient is 0."""
    return apply(ROUND, (x,), {"decimals": decimals})


# -------------------------------------------------------------------------------- activations


def _sigmoid_forward(xp: Any, x: Any) -> Any:
    # For very negative x the exponential overflows to inf, and the result is the right 0.
    return xp.reciprocal(1 + xp.exp(-x))


sigmoid = _function(
    "sigmoid", _sigmoid_forward, lambda gy, y: gy * y * (1 - y),
    "Return the logistic function ``1 / (1 + exp(-x))``, in (0, 1).", halves=True, wide=True,
    kinds=_REAL,
)  # fmt: skip


def _log_of_one_and_exp(xp: Any, x: Any) -> Any:
    """``log(1 + exp(x))`` without overflow."""
    zero = x.dtype.type(0)
    if xp is not np:
        return xp.logaddexp(zero, x)
    # np.logaddexp takes one value after another: 15 times as long.
    return np.maximum(x, zero) + np.log1p(np.exp(-np.abs(x)))


logsigmoid = _function(
    "logsigmoid", lambda xp, x: -_log_of_one_and_exp(xp, -x), lambda gy, x: gy * sigmoid(-x),
    "Return ``log(sigmoid(x))`` without overflow.", halves=True, kinds=_REAL,
)  # fmt: skip


def keep(xp: Any, mask: Any, x: Any, inverted: bool = False) -> Any:
    """Array code: ``x`` where the bool ``mask`` holds, else 0, even where ``x`` is NaN or ∞; with
    ``inverted`` where it does not hold.

    NumPy's `where` takes a branch per element: 11 times the time of this on 65,536 float32 values
    with a mask without pattern, twice with a regular one. Below 1,024 values it is quicker.
    """
    if xp is not np or x.size < 1024 or x.dtype.kind not in "fV" or x.itemsize > 8:
        zero = xp.zeros((), x.dtype)
        return choose(xp, mask, zero, x) if inverted else choose(xp, mask, x, zero)
    bits = np.multiply(x.view(f"i{x.itemsize}"), ~mask if inverted else mask)
    return bits.view(x.dtype)


def choose(xp: Any, condition: Any, x1: Any, x2: Any) -> Any:
    """``xp.where(condition, x1, x2)`` of arrays of one dtype, which the result keeps."""
    if xp is np or x1.dtype != dtypes.bfloat16:
        return xp.where(condition, x1, x2)
    # CuPy's where does not know bfloat16 and would give a float32.
    return xp.where(condition, x1.view(np.uint16), x2.view(np.uint16)).view(x1.dtype)


RELU_BACKWARD = Op(
    "relu_backward",
    lambda xp, gy, y, *, needs: (keep(xp, y != 0, gy),),  # NaN is kept
    inputs=("gy", "y"),
)
RELU = _unary(
    "relu",
    lambda xp, x: xp.maximum(x, xp.zeros((), x.dtype)),
    dtype=PROMOTE,
    kinds="iufV",
    gradients={"x": lambda gy, y: where(y != 0, gy, 0.0)},
    fused=RELU_BACKWARD,
    kernels=[wide_kernel(np.maximum, 0.0)],
)


@public(RELU, "relu")
def relu(x: TensorLike) -> Tensor:
    """Return ``max(x, 0)``; its gradient at 0 is 0, and NaN stays NaN.

    >>> relu(gl.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    """
    return apply(RELU, (x,))


_in_place(RELU, "relu_")


def special(xp: Any) -> Any:
    """The special functions that go with an array namespace; loaded at their first use."""
    if xp is np:
        import scipy.special

        return scipy.special
    import cupyx.scipy.special

    return cupyx.scipy.special


erf = _function(
    "erf", lambda xp, x: special(xp).erf(x),
    lambda gy, x: gy * exp(-x * x) * (2 / math.sqrt(math.pi)),
    "Return the error function ``2/√π ∫₀ˣ exp(-t²) dt``.", halves=True, kinds=_REAL, wide=True
)  # fmt: skip


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """Return ``x·Φ(x)``, Φ the standard normal distribution function [1]_.

    ``approximate="tanh"`` takes ``0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`` instead.

    .. [1] Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415
    """
    require_option("gelu", "approximate", approximate, ("none", "tanh"))
    if approximate == "tanh":
        return apply(GELU_TANH, (x,))
    return apply(GELU, (x,))


def _gelu_forward(xp: Any, x: Any) -> Any:
    return 0.5 * x * (1 + special(xp).erf(x * math.sqrt(0.5)))


def _gelu_gradient(gy: Tensor, x: Tensor) -> Tensor:
    cdf = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    return gy * (cdf + x * exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


def _gelu_tanh_forward(xp: Any, x: Any) -> Any:
    return 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _gelu_tanh_gradient(gy: Tensor, x: Tensor) -> Tensor:
    scale = math.sqrt(2 / math.pi)
    t = tanh(scale * (x + 0.044715 * x * x * x))
    return gy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * scale * (1 + 3 * 0.044715 * x * x))


GELU = _unary(
    "gelu", _gelu_forward, gradients={"x": _gelu_gradient}, halves=True, wide=True, kinds=_REAL
)
GELU_TANH = _unary(
    "gelu_tanh",
    _gelu_tanh_forward,
    gradients={"x": _gelu_tanh_gradient},
    halves=True,
    wide=True,
    kinds=_REAL,
)
public(GELU)(gelu)

silu = _function(
    "silu", lambda xp, x: x / (1 + xp.exp(-x)),
    lambda gy, x: gy * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "Return ``x·sigmoid(x)``, also known as swish.", halves=True, kinds=_REAL, wide=True
)  # fmt: skip


SOFTPLUS = _unary(
    "softplus",
    lambda xp, x, *, beta: _log_of_one_and_exp(xp, beta * x) / beta,
    gradients={"x": lambda gy, x, beta: gy * sigmoid(beta * x)},
    halves=True,
    wide=True,
    kinds=_REAL,
    samples=unary(beta=1.5),
    check=_check_numbers("softplus"),
)


@public(SOFTPLUS)
def softplus(x: TensorLike, beta: float = 1.0) -> Tensor:
    """Return ``log(1 + exp(beta·x)) / beta`` without overflow."""
    return apply(SOFTPLUS, (x,), {"beta": beta})


ELU = _unary(
    "elu",
    lambda xp, x, *, alpha: xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0))),
    gradients={"x": lambda gy, x, alpha: gy * where(x > 0, 1.0, alpha * exp(minimum(x, 0.0)))},
    halves=True,
    wide=True,
    kinds=_REAL,
    samples=unary(alpha=1.3),
    check=_check_numbers("elu"),
)


@public(ELU)
def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return ``x`` where positive, else ``alpha·(exp(x) - 1)``."""
    return apply(ELU, (x,), {"alpha": alpha})


LEAKY_RELU = _unary(
    "leaky_relu",
    lambda xp, x, *, negative_slope: xp.where(x > 0, x, x * negative_slope),
    gradients={"x": lambda gy, x, negative_slope: where(x > 0, gy, gy * negative_slope)},
    dtype=FLOAT,
    halves=True,
    kinds=_REAL,
    samples=unary(negative_slope=0.1),
    check=_check_numbers("leaky_relu"),
)


@public(LEAKY_RELU)
def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return ``x`` where positive, else ``negative_slope·x``."""
    return apply(LEAKY_RELU, (x,), {"negative_slope": negative_slope})


def _prelu_samples() -> Any:
    x = values((2, 3, 4))
    yield Sample((x, values(3, seed=1)), name="a weight per channel")
    yield Sample((x, values(1, seed=1)), name="one weight")
    yield Sample((values((5, 3)).T, values((3, 1), seed=1)), name="broadcast")
    yield Sample((values(33), values((), seed=1)), name="vector")


PRELU = _binary(
    "prelu",
    lambda xp, x1, x2: choose(xp, x1 > 0, x1, x1 * x2),
    gradients={
        "x1": lambda gy, x1, x2: where(x1 > 0, gy, gy * x2),
        "x2": lambda gy, x1: where(x1 > 0, 0.0, gy * x1),
    },
    kinds=_REAL,
    samples=_prelu_samples,
)


@public(PRELU, "prelu")
def prelu(x: TensorLike, weight: TensorLike) -> Tensor:
    """Return ``x`` where positive, else ``weight·x``; ``weight`` broadcasts against ``x``.

    As in PyTorch a weight of one axis belongs to axis 1 of an input with two axes or more.
    """
    if isinstance(x, Tensor) and isinstance(weight, Tensor) and weight.ndim == 1 and x.ndim > 1:
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    return apply(PRELU, (x, weight))


# ---------------------------------------------------------------------------- choose and clip


def _where_samples() -> Any:
    mask = values((3, 4), seed=2) > 0
    yield Sample((mask, values((3, 4)), values((3, 4), seed=1)), name="matrices")
    yield Sample((mask, values((3, 1)), values((4,), seed=1)), name="broadcast")
    yield Sample((mask, values((3, 4)), 0.5), name="with a scalar")
    yield Sample((values(1025, seed=2) > 0, values(1025), 0.0), name="1025 values", large=True)


def _where_forward(xp: Any, condition: Any, x1: Any, x2: Any) -> Any:
    dtype = dtypes.result_type(*(x.dtype if hasattr(x, "dtype") else type(x) for x in (x1, x2)))
    if condition.dtype == dtypes.bool_:  # where(condition, gy, 0.0) is the gradient of many an op
        if _is_zero(x2) and getattr(x1, "dtype", None) is dtype:
            return keep(xp, condition, x1)
        if _is_zero(x1) and getattr(x2, "dtype", None) is dtype:
            return keep(xp, condition, x2, inverted=True)
    return choose(xp, condition, xp.asarray(x1, dtype=dtype), xp.asarray(x2, dtype=dtype))


def _is_zero(x: Any) -> bool:
    return x.__class__ in (int, float) and x == 0 and math.copysign(1, x) > 0


WHERE = Op(
    "where",
    _where_forward,
    inputs=("condition", "x1", "x2"),
    gradients={
        "x1": lambda gy, condition: where(condition, gy, 0.0),
        "x2": lambda gy, condition: where(condition, 0.0, gy),
    },
    broadcasts=True,
    samples=_where_samples,
)


@public(WHERE)
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """Return ``x1`` where ``condition`` holds and ``x2`` elsewhere; all three broadcast.

    With ``condition`` alone: a tuple of index tensors of its true elements, as `nonzero`.
    """
    if not isinstance(condition, Tensor):
        device = next((x.device for x in (x1, x2) if isinstance(x, Tensor)), cpu)
        condition = from_value(condition, device, operation="where")
    if x1 is None and x2 is None:
        return condition.nonzero(as_tuple=True)
    return apply(WHERE, (condition, x1, x2))


@public(None, "where")
def _where_method(x: Tensor, condition: Tensor, other: Any) -> Tensor:
    """Return the tensor where ``condition`` holds, ``other`` elsewhere."""
    return where(condition, x, other)


@public(None, "masked_fill")
def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Return ``x`` with ``value`` where ``mask`` is true; its dtype stays."""
    value = value_for(x, value, "masked_fill")
    return apply(WHERE, (mask, value.astype(x.dtype, copy=False), x))


@public(None, "nan_to_num")
def nan_to_num(
    x: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Return ``x`` with ``nan`` for NaN and, if not given, the dtype's limits for the infinities.

    >>> nan_to_num(gl.tensor([math.nan, math.inf, 1.0]), posinf=9)
    tensor([0., 9., 1.])
    """
    if x.dtype.kind not in "fV":
        return x
    limits = dtypes.finfo(x.dtype)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    x = where(isnan(x), nan, x)
    return where(x == math.inf, high, where(x == -math.inf, low, x))


@public(None, "clamp_min")
def clamp_min(x: Tensor, min: Any) -> Tensor:
    """Return ``x``, no smaller than ``min``."""
    return clip(x, min)


@public(None, "clamp_max")
def clamp_max(x: Tensor, max: Any) -> Tensor:
    """Return ``x``, no larger than ``max``."""
    return clip(x, None, max)


@public(None, "frac")
def frac(x: Tensor) -> Tensor:
    """Return what lies behind the point, with the sign of ``x``.

    >>> frac(gl.tensor([1.5, -1.25]))
    tensor([ 0.5000, -0.2500])
    """
    return x - trunc(x)


@public(None, "deg2rad")
def deg2rad(x: Tensor) -> Tensor:
    """Return angles in degrees as radians.

    >>> deg2rad(gl.tensor([180.0]))
    tensor([3.1416])
    """
    return x * (math.pi / 180)


@public(None, "rad2deg")
def rad2deg(x: Tensor) -> Tensor:
    """Return angles in radians as degrees.

    >>> rad2deg(gl.tensor([math.pi]))
    tensor([180.])
    """
    return x * (180 / math.pi)


@public(None, "logit")
@in_float32
def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """Return ``log(x / (1 - x))``, the inverse of `sigmoid`; ``x`` limited to [eps, 1 - eps] first.

    >>> logit(gl.tensor([0.5, 0.75]))
    tensor([0.0000, 1.0986])
    """
    x = x if eps is None else clip(x, eps, 1 - eps)
    return log(x / (1 - x))


def _clip_samples() -> Any:
    for sample in unary()():
        yield Sample(sample.args, {"min": -1.01, "max": 1.02}, sample.name, large=sample.large)
    yield Sample((values((3, 4)),), {"min": 0.01}, "min alone")
    yield Sample((values((3, 4)),), {"max": 0.01}, "max alone")


def _clip_forward(xp: Any, x: Any, *, min: Any, max: Any) -> Any:
    # Not xp.clip: its Python wrapper takes as long as ten ufunc calls on a small array.
    if x.dtype == dtypes.bfloat16:  # which no Python scalar is weak beside
        min, max = (None if m is None else x.dtype.type(m) for m in (min, max))
    if min is not None:
        x = xp.maximum(x, min)
    return x if max is None else xp.minimum(x, max)


def _clip_gradient(gy: Tensor, x: Tensor, min: Any, max: Any) -> Tensor:
    outside = x < min if min is not None else x > max
    if min is not None and max is not None:
        outside = outside | (x > max)
    return where(outside, 0.0, gy)


CLIP = Op(
    "clip", _clip_forward, kinds="iufV", gradients={"x": _clip_gradient}, samples=_clip_samples
)


@public(CLIP, "clip", "clamp")
def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return ``x`` limited to [``min``, ``max``]; either may be None or a tensor.

    The gradient is 0 outside and 1 where ``min <= x <= max``. NaN stays NaN, with a gradient of 1.
    """
    if min is None and max is None:
        raise OptionError("clip: expected min, max or both, got neither")
    min, max = (_bound(x, m) for m in (min, max))
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        # Not maximum and minimum, which would share the gradient of x where it equals a bound.
        x = x if min is None else where((x < min) | (min != min), min, x)
        return x if max is None else where((x > max) | (max != max), max, x)
    dtype = dtypes.result_type(x.dtype, *(type(m) for m in (min, max) if m is not None))
    return apply(CLIP, (x if dtype == x.dtype else x.astype(dtype),), {"min": min, "max": max})


def _bound(x: Tensor, value: Any) -> Any:
    """A bound of `clip`: a Python number, a tensor, or None."""
    if value is None or value.__class__ in (bool, int, float) or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic) and value.dtype in dtypes.ALL:
        return value.item()
    return operand_beside(x, value, "clip")


clamp = clip


# ------------------------------------------------------------------------- dtype, copy, write


def _astype_samples() -> Any:
    yield Sample((values((3, 4)),), {"dtype": "float64"}, "same dtype")
    yield Sample((np.arange(5),), {"dtype": "float32"}, "integer to float")


ASTYPE = Op(
    "astype",
    lambda xp, x, *, dtype: x.real.astype(dtype) if x.dtype.kind == "c" and dtype.kind != "c"
    else halves.cast(x, dtype, copy=True),
    gradients={"x": lambda gy: gy},
    samples=_astype_samples,
)  # fmt: skip


@public(ASTYPE, "astype")
def astype(x: Tensor, dtype: Any, *, copy: bool = True) -> Tensor:
    """Return ``x`` in another dtype; with ``copy=False`` itself where it has it already.

    >>> gl.tensor([1.7, -1.7]).astype("int64")
    tensor([ 1, -1])
    """
    wanted = dtypes.as_dtype(dtype)
    if wanted == x.dtype and not copy:
        return x
    if x._node is not None and not (dtypes.is_floating(wanted) or dtypes.is_complex(wanted)):
        x = x.detach()  # no gradient flows through integers
    return apply(ASTYPE, (x,), {"dtype": wanted})


@public(None, "type")
def _type(x: Tensor, dtype: Any = None) -> Any:
    """Return ``x`` in another dtype (PyTorch's name of `astype`); without one, the dtype's name."""
    return x.dtype.name if dtype is None else astype(x, dtype, copy=False)


@public(None, "type_as")
def type_as(x: Tensor, other: Tensor) -> Tensor:
    """Return ``x`` in the dtype and on the device of ``other``."""
    return x.to(other)


def _cast_method(name: str, dtype: Any) -> None:
    def cast(x: Tensor) -> Tensor:
        return astype(x, dtype, copy=False)

    _named(cast, name, f"Return the values as {np.dtype(dtype).name}.", None, name)


for _name, _dtype in {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16,
    "bfloat16": dtypes.bfloat16, "long": dtypes.int64, "int": dtypes.int32, "bool": dtypes.bool_,
    "short": dtypes.int16, "char": dtypes.int8, "byte": dtypes.uint8,
}.items():  # fmt: skip
    _cast_method(_name, _dtype)

CLONE = Op("clone", lambda xp, x: x.copy(), gradients={"x": lambda gy: gy}, samples=unary())


@public(None, "__pos__", "positive")
def positive(x: Tensor) -> Tensor:
    """Return ``x`` itself, which ``+x`` is."""
    return x


@public(CLONE, "clone")
def clone(x: Tensor) -> Tensor:
    """Return a copy with memory of its own, through which gradients flow."""
    return apply(CLONE, (x,))


CONTIGUOUS = Op(
    "contiguous", lambda xp, x: xp.ascontiguousarray(x).reshape(x.shape),
    gradients={"x": lambda gy: gy}, samples=unary(),
)  # fmt: skip


@public(CONTIGUOUS, "contiguous")
def contiguous(x: Tensor) -> Tensor:
    """Return ``x`` itself where its memory is in row-major order, else a copy that is."""
    return x if x.is_contiguous() else apply(CONTIGUOUS, (x,))


# x with the values of v: what a write means for gradients.
COPY = Op(
    "copy",
    lambda xp, x, v: xp.broadcast_to(v, x.shape).astype(x.dtype),
    inputs=("x", "v"),
    gradients={"x": lambda gy: _zero_like(gy), "v": lambda gy: gy},
    broadcasts=True,
)


# ------------------------------------------------------------------------------- comparisons


def isclose(
    x1: Tensor, x2: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Return True where ``|x1 - x2| <= atol + rtol·|x2|``."""
    x2 = operand_beside(x1, x2, "isclose")
    if dtypes.is_integer(dtypes.result_type(x1.dtype, x2.dtype)):
        # A distance beyond 63 bits comes out negative, and -2⁶³ has no absolute value.
        distance = maximum(x1, x2) - minimum(x1, x2)
        return (distance >= 0) & (distance <= atol + rtol * abs(x2.astype(dtypes.float64)))
    close = (x1 == x2) | ((abs(x1 - x2) <= atol + rtol * abs(x2)) & isfinite(x2))
    return close | (isnan(x1) & isnan(x2)) if equal_nan else close


def allclose(
    x1: Tensor, x2: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Return whether all elements are close, in the sense of `isclose`."""
    return bool(isclose(x1, x2, rtol, atol, equal_nan).all())


def equal(x1: Tensor, x2: Tensor) -> bool:
    """Return whether both have the same shape and the same elements."""
    return x1.shape == x2.shape and bool((x1 == x2).all())


for _compare in (isclose, allclose, equal):
    Tensor._add_method(_compare.__name__, _compare)
