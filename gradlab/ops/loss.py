"""Losses, with PyTorch's names and arithmetic; each is one op, its reduction included.

``reduction`` says what becomes of the losses of the elements (of the rows, for losses of class
labels): ``"mean"``, ``"sum"``, or ``"none"`` to return them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gradlab.devices import cpu
from gradlab.errors import DataError, DTypeError, OptionError, ShapeError, message
from gradlab.kernels.cuda import cross_entropy as _cuda  # noqa: F401 - registers its rungs
from gradlab.ops.core import FLOAT, Op, apply, ladder_kernel, public
from gradlab.ops.elementwise import (
    TensorLike,
    clip,
    exp,
    log,
    log1p,
    logsigmoid,
    maximum,
    sigmoid,
    sign,
    where,
)
from gradlab.ops.embedding import all_below, first_outside
from gradlab.ops.reducing import array_dot, reduce_array, sum_along
from gradlab.ops.samples import LARGE, Sample, values
from gradlab.ops.shape import expand, reshape, sum_to
from gradlab.ops.softmax import has_short_rows, largest, log_softmax, softmax
from gradlab.tensor import Tensor, from_value, operand_beside, require_option

_REDUCTIONS = ("mean", "sum", "none")
_CONSTANT = "weights are constants of a loss"


def check_reduction(operation: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        require_option(operation, "reduction", reduction, _REDUCTIONS)


def _is_one(weight: Any) -> bool:
    """True for the number that stands for no weight, in whatever dtype it was cast to."""
    return weight.__class__ is float or isinstance(weight, np.floating)


def _shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


# ----------------------------------------------------------------------- losses of elements
#
# `d` is the difference of input and target, which most of these losses are functions of. It is
# kept for the backward pass in place of both.


def _reduced(xp: Any, y: Any, reduction: str) -> Any:
    if reduction == "none":
        return y
    total = reduce_array(xp, "sum", y)
    return total / y.size if reduction == "mean" else total


def _spread(gy: Any, reduction: str, count: int) -> Any:
    """The gradient of each element's loss, from that of the reduced loss."""
    return gy / count if reduction == "mean" else gy


def _pair(g: Any, needs: tuple[bool, ...]) -> Any:
    """The gradients of input and target, where one is the other's opposite."""
    return g if needs[0] else None, -g if needs[1] else None


def _fits(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> bool:
    """True where one of two shapes is what both broadcast to: nothing is paired by mistake."""
    try:
        return np.broadcast_shapes(shape1, shape2) in (shape1, shape2)
    except ValueError:
        return False


def _difference(x: Any, target: Any) -> Any:
    shape1, shape2 = _shape(x), _shape(target)
    if shape1 != shape2 and not _fits(shape1, shape2):
        raise ValueError
    return x - target


def _shape_check(operation: str) -> Callable[..., None]:
    def check(x: Any, target: Any, *rest: Any, **attributes: Any) -> None:
        shape1, shape2 = _shape(x), _shape(target)
        if _fits(shape1, shape2):
            return
        raise ShapeError(
            message(
                operation,
                expected="input and target of one shape, or one that broadcasts to the other",
                got=f"{shape1} and {shape2}" + _pairing(shape1, shape2),
                hint=_reshape_hint(shape1, shape2),
            )
        )

    return check


def _pairing(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> str:
    try:
        both = np.broadcast_shapes(shape1, shape2)
    except ValueError:
        return ""
    return f", which would compare every element with every other, {both} in all"


def _reshape_hint(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> str:
    if math.prod(shape1) == math.prod(shape2):
        return f"reshape the target with .reshape{shape1}"
    return ""


def _element_samples(**kwargs: Any) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for reduction in _REDUCTIONS:
            for shape1, shape2 in (((3, 4), (3, 4)), ((5,), (5,)), ((), ()), ((2, 3, 4), (3, 4))):
                # Odd multiples of 1/16 in one and even ones in the other: no difference is 0.
                x, target = (
                    np.asarray(np.round(values(shape, seed=seed) * 8) / 8 - offset)
                    for seed, (shape, offset) in enumerate(((shape1, 1 / 16), (shape2, 0)))
                )
                name = f"{shape1} and {shape2}, {reduction}"
                yield Sample((x, target), {"reduction": reduction, **kwargs}, name)
        yield Sample((values((3, 4)), 0.03), kwargs, "a number as target")
        for size in (0, 1, 31, 1023, 1025, LARGE):
            pair = (values(size), values(size, seed=1))
            yield Sample(pair, kwargs, f"{size} values", large=True)

    return samples


def _mse_forward(xp: Any, x: Any, target: Any, *, reduction: str) -> Any:
    d = _difference(x, target)
    if reduction == "none":
        return d * d, d
    flat = d.reshape(-1)
    total = array_dot(xp, flat, flat)
    return total / d.size if reduction == "mean" else total, d


def _mse_backward(xp: Any, gy: Any, *, needs: Any, reduction: str, aux: Any) -> Any:
    scale = 2 / max(aux.size, 1) if reduction == "mean" else 2
    return _pair(aux * (gy * scale), needs)


def _mse_slope(gy: Tensor, x: Any, target: Any, reduction: str) -> Tensor:
    d = x - target
    return _spread(gy, reduction, d.numel()) * d * 2


MSE_LOSS = Op(
    "mse_loss",
    _mse_forward,
    inputs=("x", "target"),
    gradients={
        "x": _mse_slope,
        "target": lambda gy, x, target, reduction: -_mse_slope(gy, x, target, reduction),
    },
    fused=Op("mse_loss_backward", _mse_backward, inputs=("gy",), halves=True),
    aux=True,
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    wide=True,
    broadcasts=True,
    check=_shape_check("mse_loss"),
    samples=_element_samples(),
)


@public(MSE_LOSS)
def mse_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Return the mean squared error, the mean of ``(input - target)²``.

    Shapes must be equal, or one of them what both broadcast to. (32, 1) against (32,) is refused:
    it would compare each of 32 predictions with all 32 targets.

    Raises `ShapeError`, `OptionError`.

    >>> mse_loss(gl.tensor([1.0, 2.0]), gl.tensor([0.0, 0.0]))
    tensor(2.5000)
    """
    if reduction not in _REDUCTIONS:
        check_reduction("mse_loss", reduction)
    return apply(MSE_LOSS, (input, target), {"reduction": reduction})


def _l1_forward(xp: Any, x: Any, target: Any, *, reduction: str) -> Any:
    d = _difference(x, target)
    return _reduced(xp, xp.abs(d), reduction), d


def _l1_backward(xp: Any, gy: Any, *, needs: Any, reduction: str, aux: Any) -> Any:
    return _pair(xp.sign(aux) * _spread(gy, reduction, aux.size), needs)


def _l1_slope(gy: Tensor, x: Any, target: Any, reduction: str) -> Tensor:
    d = x - target
    return _spread(gy, reduction, d.numel()) * sign(d)


L1_LOSS = Op(
    "l1_loss",
    _l1_forward,
    inputs=("x", "target"),
    gradients={
        "x": _l1_slope,
        "target": lambda gy, x, target, reduction: -_l1_slope(gy, x, target, reduction),
    },
    fused=Op("l1_loss_backward", _l1_backward, inputs=("gy",), halves=True),
    aux=True,
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    wide=True,
    broadcasts=True,
    check=_shape_check("l1_loss"),
    samples=_element_samples(),
)


@public(L1_LOSS)
def l1_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Return the mean absolute error, the mean of ``|input - target|``; its gradient at 0 is 0.

    Shapes as for `mse_loss`.

    >>> l1_loss(gl.tensor([1.0, 2.0]), gl.tensor([0.0, 0.0]))
    tensor(1.5000)
    """
    check_reduction("l1_loss", reduction)
    return apply(L1_LOSS, (input, target), {"reduction": reduction})


def _huber_forward(
    xp: Any, x: Any, target: Any, *, delta: float, scale: float, reduction: str
) -> Any:
    d = _difference(x, target)
    size = xp.abs(d)
    near = xp.minimum(size, delta)
    # near·(size - near/2) is size²/2 within delta, and delta·(size - delta/2) beyond.
    y = near * (size - near * 0.5)
    return _reduced(xp, y if scale == 1 else y * scale, reduction), d


def _huber_backward(
    xp: Any, gy: Any, *, needs: Any, delta: float, scale: float, reduction: str, aux: Any
) -> Any:
    g = xp.minimum(xp.maximum(aux, -delta), delta)
    return _pair(g * (_spread(gy, reduction, aux.size) * scale), needs)


def _huber_slope(
    gy: Tensor, x: Any, target: Any, delta: float, scale: float, reduction: str
) -> Tensor:
    d = x - target
    return _spread(gy, reduction, d.numel()) * clip(d, -delta, delta) * scale


HUBER_LOSS = Op(
    "huber_loss",
    _huber_forward,
    inputs=("x", "target"),
    gradients={
        "x": _huber_slope,
        "target": lambda gy, x, target, delta, scale, reduction: (
            -_huber_slope(gy, x, target, delta, scale, reduction)
        ),
    },
    fused=Op("huber_loss_backward", _huber_backward, inputs=("gy",), halves=True),
    aux=True,
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    wide=True,
    broadcasts=True,
    check=_shape_check("huber_loss"),
    samples=_element_samples(delta=0.71),
)


@public(HUBER_LOSS)
def huber_loss(
    input: TensorLike, target: TensorLike, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Return the mean of ``d²/2`` where ``|d| <= delta``, else ``delta·(|d| - delta/2)`` [1]_.

    ``d`` is ``input - target``; ``delta`` is positive. Shapes as for `mse_loss`.

    >>> huber_loss(gl.tensor([0.5, 3.0]), gl.tensor([0.0, 0.0]), reduction="none")
    tensor([0.1250, 2.5000])

    .. [1] P. Huber, Robust Estimation of a Location Parameter, 1964.
    """
    check_reduction("huber_loss", reduction)
    if not delta > 0:
        raise OptionError(message("huber_loss", expected="delta above 0", got=str(delta)))
    attributes = {"delta": delta, "scale": 1.0, "reduction": reduction}
    return apply(HUBER_LOSS, (input, target), attributes)


def smooth_l1_loss(
    input: TensorLike, target: TensorLike, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Return the mean of ``d²/(2·beta)`` where ``|d| < beta``, else ``|d| - beta/2``.

    ``d`` is ``input - target``. With ``beta=0`` it is `l1_loss`. Shapes as for `mse_loss`.

    >>> smooth_l1_loss(gl.tensor([0.5, 3.0]), gl.tensor([0.0, 0.0]), reduction="none", beta=2.0)
    tensor([0.0625, 2.0000])
    """
    check_reduction("smooth_l1_loss", reduction)
    if beta < 0:
        raise OptionError(message("smooth_l1_loss", expected="beta of 0 or more", got=str(beta)))
    if beta == 0:
        return l1_loss(input, target, reduction)
    attributes = {"delta": beta, "scale": 1 / beta, "reduction": reduction}
    return apply(HUBER_LOSS, (input, target), attributes)


# ------------------------------------------------------------------ losses of probabilities


def _probability_samples(low: float, high: float, *weights: str) -> Any:
    def samples() -> Iterator[Sample]:
        for reduction in _REDUCTIONS:
            x, target = values((3, 4), low, high), values((3, 4), 0.1, 0.9, seed=1)
            yield Sample((x, target), {"reduction": reduction}, reduction)
            for name in weights:
                for shape in ((4,), (3, 1)):
                    options = {name: values(shape, 0.3, 2.0, seed=2), "reduction": reduction}
                    yield Sample((x, target), options, f"{name} of shape {shape}, {reduction}")
        both = {name: values(4, 0.3, 2.0, seed=2) for name in weights}
        yield Sample((values((3, 4), low, high), values((3, 4), 0.1, 0.9)), both, "all weights")
        for size in (0, 1, 1025, LARGE):
            pair = values(size, low, high), values(size, 0.1, 0.9, seed=1)
            yield Sample(pair, name=f"{size} values", large=True)

    return samples


def _same_shape_check(operation: str) -> Callable[..., None]:
    def check(x: Any, target: Any, *weights: Any, **attributes: Any) -> None:
        shape1, shape2 = _shape(x), _shape(target)
        if shape1 != shape2:
            raise ShapeError(
                message(
                    operation,
                    expected="input and target of one shape",
                    got=f"{shape1} and {shape2}",
                    hint=_reshape_hint(shape1, shape2),
                )
            )
        for weight in weights:
            if not _fits(shape1, _shape(weight)) or len(_shape(weight)) > len(shape1):
                raise ShapeError(
                    message(
                        operation,
                        expected=f"weights that broadcast to the input's shape {shape1}",
                        got=str(_shape(weight)),
                    )
                )
        if operation == "binary_cross_entropy":
            _check_probabilities(x)

    return check


def _check_probabilities(x: Any) -> None:
    array = x.numpy(force=True).astype(np.float64)
    bad = np.argwhere((array < 0) | (array > 1))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise DataError(
            message(
                "binary_cross_entropy",
                expected="probabilities from 0 to 1 as input",
                got=f"{array[place]:.6g} at position {place[0] if len(place) == 1 else place}",
                hint="take sigmoid first, or use binary_cross_entropy_with_logits",
            )
        )


def _weighted(y: Any, *weights: Any) -> Any:
    """``y`` times the weights that are not the number 1."""
    shape = y.shape
    for weight in weights:
        if not _is_one(weight):
            y = y * weight
    if y.shape != shape:
        raise ValueError
    return y


# PyTorch's bounds: no logarithm below -100, and no division by less than 1e-12.
_LOG_FLOOR = -100.0
_SMALLEST = 1e-12


def _bce_forward(xp: Any, x: Any, target: Any, weight: Any, *, reduction: str) -> Any:
    if x.shape != target.shape:
        raise ValueError
    if xp is np and x.size:
        low, high = np.minimum.reduce(x, axis=None), np.maximum.reduce(x, axis=None)
        if low < 0 or high > 1:
            raise ValueError
    log_no = xp.maximum(xp.log1p(-x), _LOG_FLOOR)
    y = (target - 1) * log_no - target * xp.maximum(xp.log(x), _LOG_FLOOR)
    return _reduced(xp, _weighted(y, weight), reduction)


def _bce_gx(gy: Tensor, x: Tensor, target: Tensor, weight: Any, reduction: str) -> Tensor:
    slope = (x - target) / maximum(x * (1 - x), _SMALLEST)
    return _spread(gy, reduction, x.numel()) * (slope * weight)


def _bce_gtarget(gy: Tensor, x: Tensor, weight: Any, reduction: str) -> Tensor:
    slope = maximum(log1p(-x), _LOG_FLOOR) - maximum(log(x), _LOG_FLOOR)
    return _spread(gy, reduction, x.numel()) * (slope * weight)


def _bce_backward(
    xp: Any, gy: Any, x: Any, target: Any, weight: Any, *, needs: Any, reduction: str
) -> Any:
    gx = gtarget = None
    g = _weighted(xp.zeros(x.shape, x.dtype) + _spread(gy, reduction, x.size), weight)
    if needs[1]:
        gtarget = g * (xp.maximum(xp.log1p(-x), _LOG_FLOOR) - xp.maximum(xp.log(x), _LOG_FLOOR))
    if needs[0]:
        gx = g * (x - target)
        gx /= xp.maximum(x * (1 - x), _SMALLEST)
    return gx, gtarget


BCE_LOSS = Op(
    "binary_cross_entropy",
    _bce_forward,
    inputs=("x", "target", "weight"),
    gradients={"x": _bce_gx, "target": _bce_gtarget},
    fused=Op(
        "binary_cross_entropy_backward",
        _bce_backward,
        inputs=("gy", "x", "target", "weight"),
        halves=True,
    ),
    why_not=_CONSTANT,
    dtype=FLOAT,
    kinds="fV",
    halves=True,
    wide=True,
    check=_same_shape_check("binary_cross_entropy"),
    samples=_probability_samples(0.05, 0.95, "weight"),
)


@public(BCE_LOSS)
def binary_cross_entropy(
    input: Tensor, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the mean of ``-target·log(input) - (1 - target)·log(1 - input)``.

    ``input`` holds probabilities from 0 to 1 and ``target`` (of the same shape) what they should
    be; ``weight`` broadcasts and multiplies the elements' losses. Logarithms below -100 count as
    -100. `binary_cross_entropy_with_logits` is more precise.

    Raises `ShapeError`; `DataError` for an input outside 0 to 1 (checked on the CPU).

    >>> binary_cross_entropy(gl.tensor([0.5, 0.8]), gl.tensor([1.0, 0.0]), reduction="none")
    tensor([0.6931, 1.6094])
    """
    check_reduction("binary_cross_entropy", reduction)
    x, probabilities, factor = _tensors("binary_cross_entropy", input, target, weight)
    if probabilities.dtype.kind in "biu":  # labels
        probabilities = probabilities.astype(x.dtype)
    return apply(BCE_LOSS, (x, probabilities, factor), {"reduction": reduction})


def _tensors(operation: str, x: Any, *others: Any) -> tuple[Any, ...]:
    """The inputs as tensors, on the device of ``x``; the number 1 for weights that are None."""
    if not isinstance(x, Tensor):
        beside = next((each.dtype for each in others if isinstance(each, Tensor)), None)
        x = from_value(x, cpu, beside=beside, operation=operation)
    return (
        x,
        *(
            1.0
            if other is None
            else other
            if isinstance(other, Tensor)
            else operand_beside(x, other, operation)
            for other in others
        ),
    )


def _sigmoid(xp: Any, x: Any) -> Any:
    y = xp.exp(-x)  # inf for very negative x, and the result the right 0
    y += 1
    return xp.reciprocal(y, out=y)


def _softplus_minus(xp: Any, x: Any) -> Any:
    """``log(1 + exp(-x))``, which does not overflow."""
    y = xp.log1p(xp.exp(-xp.abs(x)))
    y += xp.maximum(-x, 0)
    return y


def _bce_logits_forward(
    xp: Any, x: Any, target: Any, weight: Any, pos_weight: Any, *, reduction: str
) -> Any:
    if x.shape != target.shape:
        raise ValueError
    y = _softplus_minus(xp, x)
    if not _is_one(pos_weight):
        y = _weighted(y, (pos_weight - 1) * target + 1)
    y = y + (1 - target) * x
    return _reduced(xp, _weighted(y, weight), reduction)


def _bce_logits_gx(
    gy: Tensor, x: Tensor, target: Tensor, weight: Any, pos_weight: Any, reduction: str
) -> Tensor:
    slope = sigmoid(x) * ((pos_weight - 1) * target + 1) - pos_weight * target
    return _spread(gy, reduction, x.numel()) * (slope * weight)


def _bce_logits_gtarget(
    gy: Tensor, x: Tensor, weight: Any, pos_weight: Any, reduction: str
) -> Tensor:
    slope = (pos_weight - 1) * -logsigmoid(x) - x
    return _spread(gy, reduction, x.numel()) * (slope * weight)


def _bce_logits_backward(
    xp: Any, gy: Any, x: Any, target: Any, weight: Any, pos_weight: Any, *, needs: Any,
    reduction: str,
) -> Any:  # fmt: skip
    gx = gtarget = None
    scale = _spread(gy, reduction, x.size)
    if needs[0]:
        gx = _sigmoid(xp, x)
        if _is_one(pos_weight):
            gx -= target
        else:
            gx *= (pos_weight - 1) * target + 1
            gx -= pos_weight * target
        gx = _weighted(gx, weight)
        gx *= scale
    if needs[1]:
        gtarget = (pos_weight - 1) * _softplus_minus(xp, x) - x
        gtarget = _weighted(gtarget, weight) * scale
    return gx, gtarget


BCE_LOGITS_LOSS = Op(
    "binary_cross_entropy_with_logits",
    _bce_logits_forward,
    inputs=("x", "target", "weight", "pos_weight"),
    gradients={"x": _bce_logits_gx, "target": _bce_logits_gtarget},
    fused=Op(
        "binary_cross_entropy_with_logits_backward",
        _bce_logits_backward,
        inputs=("gy", "x", "target", "weight", "pos_weight"),
        halves=True,
    ),
    why_not=_CONSTANT,
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    wide=True,
    check=_same_shape_check("binary_cross_entropy_with_logits"),
    samples=_probability_samples(-2.0, 2.0, "weight", "pos_weight"),
)


@public(BCE_LOGITS_LOSS)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """Return `binary_cross_entropy` of ``sigmoid(input)``, without its loss of precision.

    ``target`` has the shape of ``input``. ``weight`` multiplies the elements' losses, and
    ``pos_weight`` the part of the positive targets; both broadcast to the input's shape.

    Raises `ShapeError`, `OptionError`.

    >>> target = gl.tensor([1.0, 0.0])
    >>> binary_cross_entropy_with_logits(gl.tensor([0.0, 100.0]), target, reduction="none")
    tensor([  0.6931, 100.0000])
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    given = _tensors(name, input, target, weight, pos_weight)
    return apply(BCE_LOGITS_LOSS, given, {"reduction": reduction})


def _kl_samples() -> Iterator[Sample]:
    for reduction in (*_REDUCTIONS, "batchmean"):
        x, target = values((3, 4)), values((3, 4), 0.1, 0.9, seed=1)
        yield Sample((x, target), {"reduction": reduction}, reduction)
        options = {"reduction": reduction, "log_target": True}
        yield Sample((x, values((3, 4), seed=1)), options, f"log target, {reduction}")
    yield Sample((values((3, 4)), values(4, 0.1, 0.9, seed=1)), name="broadcast")
    yield Sample((values(LARGE), values(LARGE, 0.1, 0.9, seed=1)), name="large", large=True)


def _kl_count(shape1: tuple[int, ...], shape2: tuple[int, ...], reduction: str) -> int:
    """What the sum is divided by: the elements, or for ``"batchmean"`` the rows."""
    shape = np.broadcast_shapes(shape1, shape2)
    if reduction == "batchmean":
        return shape[0] if shape else 1
    return math.prod(shape) if reduction == "mean" else 1


def _kl_forward(xp: Any, x: Any, target: Any, *, log_target: bool, reduction: str) -> Any:
    d = _difference(target if log_target else xp.log(target), x)
    y = (xp.exp(target) if log_target else target) * d
    if not log_target:  # a target of 0 adds nothing, whatever its logarithm
        y = xp.where(target == 0, xp.zeros((), y.dtype), y)
    if reduction == "none":
        return y
    return reduce_array(xp, "sum", y) / _kl_count(x.shape, target.shape, reduction)


def _kl_gx(gy: Tensor, target: Any, log_target: bool, reduction: str, x_shape: Any) -> Tensor:
    slope = -exp(target) if log_target else -target
    shape = np.broadcast_shapes(x_shape, target.shape)
    return gy / _kl_count(x_shape, target.shape, reduction) * expand(slope, shape)


def _kl_gtarget(gy: Tensor, x: Any, target: Any, log_target: bool, reduction: str) -> Tensor:
    scaled = gy / _kl_count(x.shape, target.shape, reduction)
    if log_target:
        return scaled * exp(target) * (target - x + 1)
    return scaled * where(target == 0, 0.0, log(where(target == 0, 1.0, target)) - x + 1)


KL_DIV = Op(
    "kl_div",
    _kl_forward,
    inputs=("x", "target"),
    gradients={"x": _kl_gx, "target": _kl_gtarget},
    dtype=FLOAT,
    kinds="biufV",
    halves=True,
    wide=True,
    broadcasts=True,
    check=_shape_check("kl_div"),
    samples=_kl_samples,
)


@public(KL_DIV)
def kl_div(
    input: Tensor, target: TensorLike, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """Return the mean of ``target·(log(target) - input)``, the Kullback–Leibler divergence.

    ``input`` holds log-probabilities and ``target`` probabilities (log-probabilities too, with
    ``log_target``). As in PyTorch ``"mean"`` divides by the number of elements;
    ``reduction="batchmean"`` divides by the length of the first axis, as the definition does.

    >>> kl_div(log(gl.tensor([[0.5, 0.5]])), gl.tensor([[1.0, 0.0]]), reduction="batchmean")
    tensor(0.6931)
    """
    require_option("kl_div", "reduction", reduction, (*_REDUCTIONS, "batchmean"))
    given = _tensors("kl_div", input, target)
    return apply(KL_DIV, given, {"log_target": bool(log_target), "reduction": reduction})


# ------------------------------------------------------------------- losses of class labels
#
# Inside, an input (N, C, d1, …) is (N, C) or (N, C, D) and labels (N, d1, …) are (N,) or (N, D).
# These are its rows, C values each.


def _as_rows(x: Any) -> Any:
    if x.ndim == 2:
        return x
    return x.reshape((1, -1) if x.ndim == 1 else (*x.shape[:2], -1))


def _label_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the labels that go with an input of ``shape``."""
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def _require_labels(x: Any, target: Any, weight: Any) -> None:
    """A cheap test; `_label_check` finds the words."""
    if x.dtype.kind not in "fV" or target.dtype.kind not in "iu":
        raise TypeError
    if not x.ndim or target.shape != (x.shape[:1] if x.ndim == 2 else _label_shape(x.shape)):
        raise ValueError
    if not _is_one(weight) and weight.shape != (x.shape[1 if x.ndim > 1 else 0],):
        raise ValueError


class _Labels(NamedTuple):
    """What the labels say of the rows of an input."""

    places: Any  # where in the flat rows the labelled values lie
    weights: Any  # how much each row counts; None: all 1
    total: Any  # the sum of the weights, which "mean" divides by
    kept: Any  # False for ignored rows; None: no row is ignored


def _read_labels(
    xp: Any, shape: tuple[int, ...], dtype: Any, target: Any, weight: Any, ignore: int
) -> _Labels:
    """Check the labels of rows of ``shape`` and find their places and weights."""
    labels = target if len(shape) == 2 == target.ndim + 1 else target.reshape(shape[:1] + shape[2:])
    if labels.dtype != np.int64:
        labels = labels.astype(np.int64)
    kept = _kept(xp, labels, shape[1], ignore)
    if kept is not None:
        labels = xp.where(kept, labels, 0)
    places = _places(xp, labels, shape)
    if kept is None and _is_one(weight):
        return _Labels(places, None, labels.size, None)
    if _is_one(weight):
        weights = kept.astype(dtype)
    else:
        weights = weight.take(labels)
        weights = weights if kept is None else weights * kept
    return _Labels(places, weights, reduce_array(xp, "sum", weights), kept)


def _kept(xp: Any, labels: Any, classes: int, ignore: int) -> Any:
    """True for the rows that are not ignored, None where all count; refuse bad labels."""
    if xp is not np:  # looking at the labels would wait for the GPU
        return labels != ignore
    if not 0 <= ignore < classes and all_below(labels, classes):
        return None
    kept = labels != ignore
    if not all_below(labels[kept], classes):
        raise ValueError
    return kept


def _places(xp: Any, labels: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 2:
        return labels + (_row_starts if xp is np else _make_row_starts)(xp, *shape)
    count, classes, depth = shape
    starts = xp.arange(count)[:, None] * (classes * depth) + xp.arange(depth)
    return labels * depth + starts


def _make_row_starts(xp: Any, count: int, classes: int) -> Any:
    return xp.arange(count) * classes


_row_starts = lru_cache(maxsize=8)(_make_row_starts)


def _label_check(operation: str) -> Callable[..., None]:
    def check(
        x: Any, target: Any, weight: Any, ignore_index: int = -100, **attributes: Any
    ) -> None:
        if not x.is_floating_point():
            got = f"{x.dtype.name} {x.shape}"
            hint = "cast it with .astype(gradlab.float32)"
            raise DTypeError(message(operation, expected="floating input", got=got, hint=hint))
        if not x.ndim:
            raise ShapeError(message(operation, expected="input (N, C) or (C,)", got="shape ()"))
        classes = x.shape[1 if x.ndim > 1 else 0]
        _check_labels(operation, x, target)
        _check_class_weight(operation, weight, classes)
        _check_label_range(operation, target, classes, ignore_index)

    return check


def _check_class_weight(operation: str, weight: Any, classes: int) -> None:
    if isinstance(weight, Tensor) and weight.shape != (classes,):
        expected = f"a weight for each of the {classes} classes, shape ({classes},)"
        raise ShapeError(message(operation, expected=expected, got=f"shape {weight.shape}"))


def _check_labels(operation: str, x: Any, target: Any) -> None:
    shape = _label_shape(x.shape)
    expected = f"integer class labels of shape {shape}"
    if operation == "cross_entropy":
        expected += f" or floating probabilities of shape {x.shape}"
    expected += f", for input {x.shape}"
    got = f"{target.dtype.name} {target.shape}"
    if target.dtype.kind not in "iu":
        fits = target.shape == shape
        hint = "cast labels with .astype(gradlab.int64)" if fits else ""
        raise DTypeError(message(operation, expected=expected, got=got, hint=hint))
    if target.shape != shape:
        hint = ""
        if target.shape == x.shape and operation == "cross_entropy":
            hint = "cast one-hot labels with .astype(gradlab.float32)"
        elif math.prod(target.shape) == math.prod(shape):
            hint = f"reshape the labels with .reshape({shape})"
        raise ShapeError(message(operation, expected=expected, got=got, hint=hint))


def _check_label_range(operation: str, target: Any, classes: int, ignore_index: int) -> None:
    labels = target.numpy(force=True)
    counted = np.where(labels == ignore_index, 0, labels)
    if all_below(counted, classes):
        return
    bad, position = first_outside(counted, classes)
    raise DataError(
        message(
            operation,
            expected=f"labels from 0 to {classes - 1}, as the input has {classes} classes "
            f"(or {ignore_index}, which is ignored)",
            got=f"{bad} at {position}",
        )
    )


def _averaged(xp: Any, losses: Any, total: Any, shape: tuple[int, ...], reduction: str) -> Any:
    if reduction == "none":
        return losses.reshape(shape)
    loss = reduce_array(xp, "sum", losses)
    return loss / total if reduction == "mean" else loss


def _row_scale(gy: Any, shape: tuple[int, ...], total: Any, reduction: str) -> Any:
    """The gradient of each row's loss: one number, or with ``"none"`` one per row."""
    if reduction == "none":
        return gy.reshape(shape)
    return gy / total if reduction == "mean" else gy


# ------------------------------------------------------------------------------ cross_entropy
#
# With p = softmax(x), label t and e = label_smoothing, a row's loss is
#     (1 - e)·w_t·(-log p_t) + e/C·Σ_c w_c·(-log p_c)
# which is Σ_c q_c·(-log p_c) with the row's targets q = (1 - e)·w_t·[c = t] + e/C·w_c, and its
# gradient is p·Σ q - q [1]_. Neither p nor q is ever stored: the forward pass keeps the largest
# value and the sum of exponentials of each row, and the backward pass takes the exponentials
# again while it writes the gradient.
#
# .. [1] Szegedy et al., https://arxiv.org/abs/1512.00567 (label smoothing)

# Elements gone through at a time on the CPU, so that temporaries stay in the cache.
_PIECE = 1 << 17


def _pieces(xp: Any, rows: Any, *others: Any) -> Iterable[tuple[Any, ...]]:
    """The rows, and others as many, in pieces that are gone through one after another."""
    if rows.size <= _PIECE or xp is not np:
        return ((rows, *others),)
    count = rows.shape[0]
    step = max(1, _PIECE * count // rows.size)
    return (
        tuple([x[start : start + step] for x in (rows, *others)]) for start in range(0, count, step)
    )


def _class_axis(weight: Any, ndim: int) -> Any:
    """The weights of the classes, along axis 1 of the rows."""
    return weight if ndim == 2 else weight[:, None]


def _row_sums(xp: Any, rows: Any, weight: Any, smooth: bool) -> tuple[Any, Any, Any]:
    """Of each row the largest value, the sum of ``exp(x - largest)``, and Σ w·(x - largest)."""
    drift = None
    axis = 1
    if has_short_rows(xp, rows, 1):
        d, axis = rows.T.copy(), 0
        peak = largest(xp, d, 0)
        d -= peak
    else:
        peak = largest(xp, rows, 1)
        d = rows - peak
    if smooth:
        weighted = d if _is_one(weight) else d * weight.reshape(_along(axis, d.ndim))
        drift = sum_along(xp, weighted, axis)
    xp.exp(d, out=d)
    sums = sum_along(xp, d, axis)
    return peak.reshape(sums.shape), sums, drift


def _along(axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(-1 if i == axis else 1 for i in range(ndim))


def _all_row_sums(xp: Any, rows: Any, weight: Any, smooth: bool) -> tuple[Any, Any, Any]:
    parts = [_row_sums(xp, piece, weight, smooth) for (piece,) in _pieces(xp, rows)]
    if len(parts) == 1:
        return parts[0]
    peaks, sums, drifts = zip(*parts, strict=True)
    return np.concatenate(peaks), np.concatenate(sums), np.concatenate(drifts) if smooth else None


def _cross_entropy_forward(
    xp: Any, x: Any, target: Any, weight: Any, *, ignore_index: int, label_smoothing: float,
    reduction: str,
) -> Any:  # fmt: skip
    _require_labels(x, target, weight)
    rows = _as_rows(x)
    if not _is_one(weight):
        weight = weight.astype(x.dtype, copy=False)
    labels = _read_labels(xp, rows.shape, x.dtype, target, weight, ignore_index)
    peak, sums, drift = _all_row_sums(xp, rows, weight, label_smoothing > 0)
    log_sums = xp.log(sums)
    picked = rows.take(labels.places)
    picked -= peak  # the two large numbers first, for precision
    losses = log_sums - picked
    if labels.weights is not None:
        losses *= labels.weights
        if labels.kept is not None:  # an ignored row counts 0 even where it is inf or NaN
            losses = xp.where(labels.kept, losses, xp.zeros((), losses.dtype))
    if label_smoothing:
        mass = rows.shape[1] if _is_one(weight) else reduce_array(xp, "sum", weight)
        smooth = (log_sums * mass - drift) * (label_smoothing / max(rows.shape[1], 1))
        if labels.kept is not None:
            smooth = xp.where(labels.kept, smooth, xp.zeros((), smooth.dtype))
        losses = losses * (1 - label_smoothing) + smooth
    loss = _averaged(xp, losses, labels.total, target.shape, reduction)
    return loss, (peak, sums, labels)


def _cross_entropy_backward(
    xp: Any, gy: Any, x: Any, target: Any, weight: Any, *, needs: Any, label_smoothing: float,
    reduction: str, aux: Any,
) -> Any:  # fmt: skip
    peak, sums, labels = aux  # labels: of the target, which only kernels read again
    rows = _as_rows(x)
    scale = _row_scale(gy, peak.shape, labels.total, reduction)
    on = scale if labels.weights is None else scale * labels.weights
    if not label_smoothing:
        g = _scaled_exponentials(xp, rows, peak, on / sums)
    else:
        on = on * (1 - label_smoothing)
        share = scale * (label_smoothing / max(rows.shape[1], 1))
        weight = 1.0 if _is_one(weight) else weight.astype(x.dtype, copy=False)
        mass = rows.shape[1] if _is_one(weight) else reduce_array(xp, "sum", weight)
        g = _scaled_exponentials(xp, rows, peak, (on + share * mass) / sums)
        if not _is_one(weight):
            weight = _class_axis(weight, rows.ndim)
        g -= xp.broadcast_to(share, peak.shape)[:, None] * weight
    g.reshape(-1)[labels.places] -= on
    if labels.kept is not None:
        _clear_ignored(xp, g, labels.kept)
    return (g.reshape(x.shape),)


def _clear_ignored(xp: Any, g: Any, kept: Any) -> None:
    """Set ignored rows to 0. A factor of 0 would leave NaN: the mean of no rows divides by 0."""
    if xp is np:
        np.moveaxis(g, 1, -1)[~kept] = 0
    else:  # an index made of a mask would wait for the device to count it
        xp.copyto(g, 0, where=~kept[:, None])


def _scaled_exponentials(xp: Any, rows: Any, peak: Any, factor: Any) -> Any:
    """``exp(rows - peak)·factor``, with one value of each per row, in row-major order."""
    y = xp.empty(rows.shape, rows.dtype)
    for x, shift, scale, part in _pieces(xp, rows, peak[:, None], factor[:, None], y):
        xp.subtract(x, shift, out=part)
        xp.exp(part, out=part)
        xp.multiply(part, scale, out=part)
    return y


def _class_targets_forward(
    xp: Any, target: Any, weight: Any, *, shape: tuple[int, ...], dtype: Any, ignore_index: int,
    label_smoothing: float, reduction: str,
) -> Any:  # fmt: skip
    rows_shape = _as_rows(np.broadcast_to(0, shape)).shape
    labels = _read_labels(xp, rows_shape, dtype, target, weight, ignore_index)
    q = xp.zeros(rows_shape, dtype)
    on = 1 if labels.weights is None else labels.weights
    total = xp.asarray(labels.total, dtype) if reduction == "mean" else 1
    q.reshape(-1)[labels.places] = on * (1 - label_smoothing) / total
    if label_smoothing:
        spread = label_smoothing / max(rows_shape[1], 1)
        spread = spread if _is_one(weight) else _class_axis(weight, q.ndim) * spread
        q += spread / total
    if labels.kept is None:
        return q.reshape(shape), None
    _clear_ignored(xp, q, labels.kept)
    return q.reshape(shape), labels.kept.reshape(_one_at(1 if len(shape) > 1 else 0, shape))


# The targets q of all rows, for the gradient's own gradient, divided for a mean by the sum of the
# rows' weights; and which rows are not ignored (None: all).
CLASS_TARGETS = Op(
    "class_targets",
    _class_targets_forward,
    inputs=("target", "weight"),
    why_not="class labels are not continuous",
)


def _class_targets(
    gy: Tensor, target: Tensor, weight: Any, shape: tuple[int, ...], dtype: Any, ignore_index: int,
    label_smoothing: float, reduction: str,
) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
    """The rows' targets, which rows count, and the gradient of each row's loss (to broadcast)."""
    q, kept = apply(
        CLASS_TARGETS,
        (target, weight),
        {
            "shape": shape,
            "dtype": dtype,
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "reduction": reduction,
        },
    )
    if reduction == "none":
        gy = reshape(gy, _one_at(1 if len(shape) > 1 else 0, shape))
    return q, kept, gy


def _one_at(axis: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _cross_entropy_gradient(
    gy: Tensor, x: Tensor, target: Tensor, weight: Any, ignore_index: int, label_smoothing: float,
    reduction: str,
) -> Tensor:  # fmt: skip
    q, kept, scale = _class_targets(
        gy, target, weight, x.shape, x.dtype, ignore_index, label_smoothing, reduction
    )
    axis = 1 if x.ndim > 1 else 0
    if kept is not None:
        x = where(kept, x, 0.0)  # an ignored row gets 0 even where it is inf or NaN
    return scale * (sum_to(q, _one_at(axis, x.shape)) * softmax(x, axis) - q)


def _label_samples(scores: Callable[..., Any], **kwargs: Any) -> Iterator[Sample]:
    def labels(shape: Any) -> Any:
        return np.random.default_rng(3).integers(0, 4, shape)

    x, t, weight = scores((6, 4)), labels(6), values(4, 0.3, 2.0, seed=2)
    for reduction in _REDUCTIONS:
        options = {"reduction": reduction, **kwargs}
        yield Sample((x, t), options, f"matrix, {reduction}")
        yield Sample((scores(4), np.array(2)), options, f"one row, {reduction}")
        yield Sample((scores((2, 4, 3)), labels((2, 3))), options, f"3-d, {reduction}")
        yield Sample((x, t), {"weight": weight, **options}, f"weights, {reduction}")
        ignoring = {"ignore_index": int(t[0]), **options}
        yield Sample((x, t), ignoring, f"one class ignored, {reduction}")
        masked = np.where(np.arange(6) % 2, t, -100)
        yield Sample((x, masked), {"weight": weight, **options}, f"-100 ignored, {reduction}")
    yield Sample((scores((40, 4)), labels(40)), kwargs, "short rows")
    yield Sample((scores((2, 4, 2, 2)), labels((2, 2, 2))), kwargs, "4-d")
    yield Sample((scores((0, 4)), labels(0)), {"reduction": "sum", **kwargs}, "no rows")
    yield Sample((scores((3, 4)), labels(3).astype(np.uint8)), kwargs, "uint8 labels")
    for rows, classes in ((33, 1025), (1025, 33), (300, 1000)):
        many = np.random.default_rng(4).integers(0, classes, rows)
        yield Sample((scores((rows, classes)), many), kwargs, f"{rows}x{classes}", large=True)


def _cross_entropy_samples() -> Iterator[Sample]:
    yield from _label_samples(values)
    for sample in _label_samples(values, label_smoothing=0.2):
        yield Sample(sample.args, sample.kwargs, f"{sample.name}, smoothed", large=sample.large)


CROSS_ENTROPY = Op(
    "cross_entropy",
    _cross_entropy_forward,
    inputs=("x", "target", "weight"),
    gradients={"x": _cross_entropy_gradient},
    fused=Op(
        "cross_entropy_backward",
        _cross_entropy_backward,
        inputs=("gy", "x", "target", "weight"),
        halves=True,
        kernels=[ladder_kernel("cross_entropy", "cross_entropy_backward")],
    ),
    aux=True,
    why_not=_CONSTANT,
    halves=True,
    wide=True,
    check=_label_check("cross_entropy"),
    samples=_cross_entropy_samples,
    kernels=[ladder_kernel("cross_entropy", "cross_entropy")],
)


@public(CROSS_ENTROPY)
def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean of ``-log(softmax(input))`` at the target classes.

    Parameters
    ----------
    input: unnormalised scores ("logits") of shape (N, C), (C,) or (N, C, d1, …), floating.
    target: class labels from 0 to C - 1 of integer dtype and shape (N,), () or (N, d1, …); or
        class probabilities, floating, of the shape of ``input``.
    weight: a factor for each class, shape (C,). With labels ``"mean"`` divides by the sum of the
        weights of the labels, as PyTorch does.
    ignore_index: rows with this label count nothing and get a gradient of 0. Where all rows are
        ignored the mean is NaN, and the gradient still 0.
    label_smoothing: from 0 to 1; the share of the target that is spread over all classes [1]_.

    Scores of any size are fine. The computation never stores the probabilities.

    Raises `ShapeError`, `DTypeError`, and on the CPU `DataError` naming the first label out of
    range. On a GPU, where looking at the labels would wait for it, the loss and the gradient of
    such a row are NaN.

    >>> cross_entropy(gl.tensor([[2.0, 0.0], [0.0, 0.0]]), gl.tensor([0, 1]), reduction="none")
    tensor([0.1269, 0.6931])

    .. [1] Szegedy et al., https://arxiv.org/abs/1512.00567
    """
    if reduction not in _REDUCTIONS:
        check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        got = str(label_smoothing)
        raise OptionError(message("cross_entropy", expected="label_smoothing in [0, 1]", got=got))
    x, target, weight = _tensors("cross_entropy", input, target, weight)
    if target.dtype.kind in "fV" and target.shape == x.shape and x.ndim:
        if ignore_index >= 0:
            hint = "give such rows probabilities of 0"
            got = str(ignore_index)
            raise OptionError(
                message("cross_entropy", expected="no ignore_index with probabilities as target",
                        got=got, hint=hint)
            )  # fmt: skip
        attributes = {"label_smoothing": label_smoothing, "reduction": reduction}
        return apply(SOFT_CROSS_ENTROPY, (x, target, weight), attributes)
    return apply(
        CROSS_ENTROPY,
        (x, target, weight),
        {
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "reduction": reduction,
        },
    )


# ------------------------------------------------------ cross_entropy with probabilities


def _smoothed(target: Any, weight: Any, classes: int, axis: int, label_smoothing: float) -> Any:
    """The targets q, as for labels; works on arrays and on tensors."""
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / max(classes, 1)
    if _is_one(weight):
        return target
    return target * weight.reshape(_along(axis, target.ndim))


def _soft_forward(
    xp: Any, x: Any, target: Any, weight: Any, *, label_smoothing: float, reduction: str
) -> Any:
    axis = 1 if x.ndim > 1 else 0
    if not _is_one(weight) and weight.shape != (x.shape[axis],):
        raise ValueError
    rows = _as_rows(x)
    q = _smoothed(_as_rows(target), weight, rows.shape[1], 1, label_smoothing)
    peak = largest(xp, rows, 1)
    d = rows - peak
    losses = -sum_along(xp, q * d, 1)
    sums = sum_along(xp, xp.exp(d, out=d), 1)
    mass = sum_along(xp, q, 1)
    losses += mass * xp.log(sums)
    loss = _averaged(xp, losses, losses.size, _label_shape(x.shape), reduction)
    return loss, (peak.reshape(sums.shape), sums, mass)


def _soft_backward(
    xp: Any, gy: Any, x: Any, target: Any, weight: Any, *, needs: Any, label_smoothing: float,
    reduction: str, aux: Any,
) -> Any:  # fmt: skip
    peak, sums, mass = aux
    rows = _as_rows(x)
    scale = _row_scale(gy, peak.shape, peak.size, reduction)
    gx = gtarget = None
    column = xp.broadcast_to(scale, peak.shape)[:, None]
    if needs[0]:
        q = _smoothed(_as_rows(target), weight, rows.shape[1], 1, label_smoothing)
        gx = _scaled_exponentials(xp, rows, peak, scale * mass / sums)
        gx -= q * column
        gx = gx.reshape(x.shape)
    if needs[1]:
        gtarget = (xp.log(sums) + peak)[:, None] - rows
        if not _is_one(weight):
            gtarget *= _class_axis(weight, rows.ndim)
        gtarget *= column * (1 - label_smoothing)
        gtarget = gtarget.reshape(x.shape)
    return gx, gtarget


def _soft_scale(gy: Tensor, shape: tuple[int, ...], axis: int, reduction: str) -> Tensor:
    kept = _one_at(axis, shape)
    return reshape(gy, kept) if reduction == "none" else _spread(gy, reduction, math.prod(kept))


def _soft_gx(
    gy: Tensor, x: Tensor, target: Tensor, weight: Any, label_smoothing: float, reduction: str
) -> Tensor:
    axis = 1 if x.ndim > 1 else 0
    q = _smoothed(target, weight, x.shape[axis], axis, label_smoothing)
    p = softmax(x, axis)
    return _soft_scale(gy, x.shape, axis, reduction) * (sum_to(q, _one_at(axis, x.shape)) * p - q)


def _soft_gtarget(
    gy: Tensor, x: Tensor, weight: Any, label_smoothing: float, reduction: str
) -> Tensor:
    axis = 1 if x.ndim > 1 else 0
    slope = log_softmax(x, axis) * (label_smoothing - 1)
    if not _is_one(weight):
        slope = slope * weight.reshape(_along(axis, x.ndim))
    return _soft_scale(gy, x.shape, axis, reduction) * slope


def _soft_samples() -> Iterator[Sample]:
    weight = values(4, 0.3, 2.0, seed=2)
    for reduction in _REDUCTIONS:
        for shape in ((3, 4), (4,), (2, 4, 3)):
            pair = values(shape), values(shape, 0.1, 0.9, seed=1)
            yield Sample(pair, {"reduction": reduction}, f"{shape}, {reduction}")
            options = {"reduction": reduction, "weight": weight, "label_smoothing": 0.2}
            yield Sample(pair, options, f"{shape}, {reduction}, weights, smoothed")
    pair = values((33, 1025)), values((33, 1025), 0.0, 0.002, seed=1)
    yield Sample(pair, name="33x1025", large=True)


def _check_soft(x: Any, target: Any, weight: Any, **attributes: Any) -> None:
    _check_class_weight("cross_entropy", weight, x.shape[1 if x.ndim > 1 else 0])


SOFT_CROSS_ENTROPY = Op(
    "soft_cross_entropy",
    _soft_forward,
    inputs=("x", "target", "weight"),
    gradients={"x": _soft_gx, "target": _soft_gtarget},
    fused=Op(
        "soft_cross_entropy_backward",
        _soft_backward,
        inputs=("gy", "x", "target", "weight"),
        halves=True,
        kernels=[ladder_kernel("cross_entropy", "soft_cross_entropy_backward")],
    ),
    aux=True,
    why_not=_CONSTANT,
    dtype=FLOAT,
    kinds="fV",
    halves=True,
    wide=True,
    check=_check_soft,
    samples=_soft_samples,
    kernels=[ladder_kernel("cross_entropy", "soft_cross_entropy")],
)
SOFT_CROSS_ENTROPY.function = cross_entropy


# ----------------------------------------------------------------------------------- nll_loss


def _nll_forward(
    xp: Any, x: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str
) -> Any:
    _require_labels(x, target, weight)
    rows = _as_rows(x)
    if not _is_one(weight):
        weight = weight.astype(x.dtype, copy=False)
    labels = _read_labels(xp, rows.shape, x.dtype, target, weight, ignore_index)
    losses = -rows.take(labels.places)
    if labels.weights is not None:
        losses *= labels.weights
        if labels.kept is not None:
            losses = xp.where(labels.kept, losses, xp.zeros((), losses.dtype))
    loss = _averaged(xp, losses, labels.total, target.shape, reduction)
    return loss, (rows.shape, x.shape, x.dtype, labels)


def _nll_backward(xp: Any, gy: Any, *, needs: Any, reduction: str, aux: Any) -> Any:
    rows_shape, shape, dtype, labels = aux
    scale = _row_scale(gy, labels.places.shape, labels.total, reduction)
    g = xp.zeros(rows_shape, dtype)
    slope = -scale if labels.weights is None else -scale * labels.weights
    if labels.kept is not None:  # where all rows are ignored `scale` was divided by 0
        slope = xp.where(labels.kept, slope, xp.zeros((), dtype))
    g.reshape(-1)[labels.places] = slope
    return (g.reshape(shape),)


def _nll_gradient(
    gy: Tensor, target: Tensor, weight: Any, ignore_index: int, reduction: str, x_shape: Any
) -> Tensor:
    q, _, scale = _class_targets(
        gy, target, weight, x_shape, gy.dtype, ignore_index, 0.0, reduction
    )
    return -scale * q


NLL_LOSS = Op(
    "nll_loss",
    _nll_forward,
    inputs=("x", "target", "weight"),
    gradients={"x": _nll_gradient},
    fused=Op("nll_loss_backward", _nll_backward, inputs=("gy",), halves=True),
    aux=True,
    why_not=_CONSTANT,
    halves=True,
    wide=True,
    check=_label_check("nll_loss"),
    samples=lambda: _label_samples(values),
)


@public(NLL_LOSS)
def nll_loss(
    input: Tensor,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return the mean of ``-input`` at the target classes, the negative log-likelihood.

    ``input`` holds log-probabilities of shape (N, C), (C,) or (N, C, d1, …) and ``target`` integer
    labels of shape (N,), () or (N, d1, …). ``weight``, ``ignore_index`` and errors as for
    `cross_entropy`, which takes unnormalised scores instead.

    >>> nll_loss(gl.tensor([[-0.1, -2.4], [-0.7, -0.7]]), gl.tensor([0, 1]))
    tensor(0.4000)
    """
    check_reduction("nll_loss", reduction)
    given = _tensors("nll_loss", input, target, weight)
    return apply(NLL_LOSS, given, {"ignore_index": ignore_index, "reduction": reduction})


__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip
