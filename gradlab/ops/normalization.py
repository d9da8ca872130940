"""Normalization: layer, RMS and batch norm in one pass each way, and vectors of unit norm.

All three bring groups of values to a common scale: with ``r = 1/√(variance + eps)`` the normalized
values are ``h = (x - mean)·r``, and the result ``h·weight + bias``. For the gradient ``g`` of ``h``
that of ``x`` is ``(g - mean(g) - h·mean(g·h))·r``, all means over the group [1]_. RMS norm
subtracts no mean, so the middle term falls away; batch norm in evaluation takes mean and variance
as given, so that only ``g·r`` is left.

.. [1] Ioffe and Szegedy, https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.arguments import accepts_dim
from gradlab.autograd.modes import no_grad
from gradlab.devices import cpu
from gradlab.errors import OptionError, ShapeError, message
from gradlab.kernels.cuda import normalization as cuda
from gradlab.ops.core import FLOAT, PROMOTE, Kernel, Op, apply, apply_, in_float32, public, widened
from gradlab.ops.elementwise import rsqrt
from gradlab.ops.reducing import count_of, kept_shape, mean_and_variance, reduce_array
from gradlab.ops.reduction import norm
from gradlab.ops.samples import LARGE, Sample, values
from gradlab.ops.shape import Axis, sum_to
from gradlab.tensor import Tensor, from_value

Axes = tuple[int, ...]


def _is_one(weight: Any) -> bool:
    """True for the number that stands for no weight, in whatever dtype it was cast to."""
    return weight.__class__ is float or isinstance(weight, np.floating)


def _mean(xp: Any, x: Any, axes: Axes) -> Any:
    """The mean over some axes, which stay with size 1; of no values it is NaN."""
    count = count_of(x.shape, axes)
    total = reduce_array(xp, "sum", x, axes, True)
    return xp.divide(total, count, out=total)


def _tensor_mean(x: Tensor, axes: Axes) -> Tensor:
    return sum_to(x, kept_shape(x.shape, axes)) / count_of(x.shape, axes)


def _normalized(x: Tensor, axes: Axes, eps: float, centred: bool = True) -> tuple[Tensor, Tensor]:
    """``h`` and ``r`` of a tensor, differentiable in ``x``."""
    d = x - _tensor_mean(x, axes) if centred else x
    r = rsqrt(_tensor_mean(d * d, axes) + eps)
    return d * r, r


def _slope(g: Tensor, x: Tensor, axes: Axes, eps: float, centred: bool = True) -> Tensor:
    """The gradient of x, from that of ``h``."""
    h, r = _normalized(x, axes, eps, centred)
    g = g - h * _tensor_mean(g * h, axes) - (_tensor_mean(g, axes) if centred else 0.0)
    return g * r


def _reciprocal_root(xp: Any, variance: Any, eps: float) -> Any:
    r = xp.sqrt(variance + eps)
    return xp.reciprocal(r, out=r)


def _affine(h: Any, weight: Any, bias: Any, layout: tuple[int, ...]) -> Any:
    """``h·weight + bias``, written over ``h``; ``layout`` is the shape in which these broadcast."""
    if not _is_one(weight):
        h *= weight.reshape(layout)
    if bias is not None:
        h += bias.reshape(layout)
    return h


def _backward(
    xp: Any, gy: Any, h: Any, r: Any, weight: Any, needs: tuple[bool, ...], *, axes: Axes,
    others: Axes, layout: tuple[int, ...], centred: bool = True,
) -> Any:  # fmt: skip
    """The gradients of x, weight and bias. ``h`` is overwritten.

    Values are normalized along ``axes``; weight and bias are shared along ``others``.
    """
    gx = gweight = gbias = None
    if needs[1]:
        gweight = reduce_array(xp, "sum", gy * h, others, False)
    if needs[2]:
        gbias = reduce_array(xp, "sum", gy, others, False)
        gbias = gbias if others else gbias.copy()
    if needs[0]:
        g = gy.copy() if _is_one(weight) else gy * weight.reshape(layout)
        if axes:
            h *= _mean(xp, g * h, axes)
            if centred:
                h += _mean(xp, g, axes)
            g -= h
        gx = xp.multiply(g, r, out=g)
    return gx, gweight, gbias


def _check_parameters(operation: str, shape: tuple[int, ...], **parameters: Any) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != shape:
            raise ShapeError(
                message(operation, expected=f"{name} of shape {shape}", got=str(parameter.shape))
            )


def _as_tensor(operation: str, x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else from_value(x, cpu, operation=operation)


# ------------------------------------------------------------------------ layer_norm, rms_norm


# One reading of x on a GPU: rows are normalized in registers. The kernels' `aux` is the array
# code's, so that either can do the backward pass of the other.


def _layer_norm_rows(x: Any, weight: Any, bias: Any = None, *, count: int, eps: float) -> Any:
    y, mean, r = cuda.forward(x, weight, bias, count=count, eps=eps, centred=True)
    return y, (mean, r)


def _layer_norm_rows_backward(
    gy: Any, x: Any, weight: Any, *, needs: Any, count: int, aux: Any
) -> Any:
    gradients = cuda.backward(gy, x, weight, *aux, count=count, needs=needs)
    return gradients if needs[2] else gradients[:2]


def _rms_norm_rows(x: Any, weight: Any, *, count: int, eps: float) -> Any:
    y, _, r = cuda.forward(x, weight, None, count=count, eps=eps, centred=False)
    return y, r


def _rms_norm_rows_backward(
    gy: Any, x: Any, weight: Any, *, needs: Any, count: int, aux: Any
) -> Any:
    needs = (*needs, False)
    return cuda.backward(gy, x, weight, None, aux, count=count, needs=needs)[:2]


def _on_cuda(accepts: Callable[..., bool], run: Callable[..., Any]) -> Kernel:
    return Kernel("cuda", "normalization", accepts, run, casts=False)


def _rows_fit(x: Any, *parameters: Any, count: int, eps: float) -> bool:
    return cuda.accepts(x, *parameters, count=count)


def _rows_fit_backward(gy: Any, x: Any, weight: Any, *, count: int, **_: Any) -> bool:
    return cuda.accepts(x, gy, weight, count=count)


def _last_axes(ndim: int, count: int) -> tuple[Axes, Axes]:
    """The last ``count`` axes, and those before them."""
    return tuple(range(ndim - count, ndim)), tuple(range(ndim - count))


def _normalized_shape(operation: str, x: Tensor, given: int | Sequence[int]) -> tuple[int, ...]:
    shape = (given,) if isinstance(given, int) else tuple(given)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(
            message(
                operation,
                expected=f"x of shape (..., {', '.join(map(str, shape))}), as normalized_shape"
                if shape
                else "a normalized_shape of at least one size",
                got=str(x.shape) if shape else "()",
            )
        )
    return shape


def _layer_norm_forward(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, count: int, eps: float
) -> Any:
    axes, _ = _last_axes(x.ndim, count)
    mean = _mean(xp, x, axes)
    h = x - mean
    r = _reciprocal_root(xp, _mean(xp, h * h, axes), eps)
    h *= r
    return _affine(h, weight, bias, x.shape[-count:]), (mean, r)


def _layer_norm_backward(
    xp: Any, gy: Any, x: Any, weight: Any, *, needs: Any, count: int, aux: Any
) -> Any:
    mean, r = aux
    h = x - mean
    h *= r
    axes, others = _last_axes(x.ndim, count)
    layout = x.shape[-count:]
    gradients = _backward(xp, gy, h, r, weight, needs, axes=axes, others=others, layout=layout)
    return gradients if needs[2] else gradients[:2]  # there may be no bias


def _layer_norm_gx(gy: Tensor, x: Tensor, weight: Any, count: int, eps: float) -> Tensor:
    return _slope(gy * weight, x, _last_axes(x.ndim, count)[0], eps)


def _layer_norm_gweight(
    gy: Tensor, x: Tensor, count: int, eps: float, weight_shape: tuple[int, ...]
) -> Tensor:
    h, _ = _normalized(x, _last_axes(x.ndim, count)[0], eps)
    return sum_to(gy * h, weight_shape)


def _layer_norm_samples() -> Iterator[Sample]:
    for shape, normalized in (
        ((3, 4), 4), ((2, 3, 4), 4), ((2, 3, 4), (3, 4)), ((5,), 5), ((0, 3), 3),
    ):  # fmt: skip
        weight = values(normalized, 0.5, 1.5, seed=1)
        x = values(shape)
        name = f"{shape} over {normalized}"
        yield Sample((x, normalized, weight, values(normalized, seed=2)), name=name)
        yield Sample((x, normalized, weight), name=f"{name}, no bias")
        yield Sample((x, normalized), {"eps": 1e-3}, f"{name}, no parameters")
    yield Sample((values((3, 4)), 4, None, values(4, seed=2)), name="bias alone")
    yield Sample((values((LARGE // 1000, 1000)), 1000), name="large", large=True)


LAYER_NORM = Op(
    "layer_norm",
    _layer_norm_forward,
    inputs=("x", "weight", "bias"),
    gradients={
        "x": _layer_norm_gx,
        "weight": _layer_norm_gweight,
        "bias": lambda gy, bias_shape: sum_to(gy, bias_shape),
    },
    fused=Op(
        "layer_norm_backward",
        _layer_norm_backward,
        inputs=("gy", "x", "weight"),
        dtype=PROMOTE,
        halves=True,
        kernels=[_on_cuda(_rows_fit_backward, _layer_norm_rows_backward)],
    ),
    aux=True,
    dtype=FLOAT,
    kinds="fV",
    halves=True,
    wide=True,
    samples=_layer_norm_samples,
    kernels=[_on_cuda(_rows_fit, _layer_norm_rows)],
)


@public(LAYER_NORM)
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``(x - mean)/√(variance + eps)·weight + bias`` over the last axes [1]_.

    ``normalized_shape`` is the sizes of these axes and the shape of ``weight`` and ``bias``, either
    of which may be None. The variance is the biased one, the mean of the squared deviations.

    Raises `ShapeError` where the shapes do not fit.

    >>> layer_norm(gl.tensor([[1.0, 3.0]]), 2, eps=0.0)
    tensor([[-1.,  1.]])

    .. [1] Ba et al., https://arxiv.org/abs/1607.06450
    """
    x = _as_tensor("layer_norm", x)
    shape = _normalized_shape("layer_norm", x, normalized_shape)
    _check_parameters("layer_norm", shape, weight=weight, bias=bias)
    parameters = [1.0 if weight is None else weight] + ([] if bias is None else [bias])
    return apply(LAYER_NORM, (x, *parameters), {"count": len(shape), "eps": eps})


def _rms_norm_forward(xp: Any, x: Any, weight: Any, *, count: int, eps: float) -> Any:
    axes, _ = _last_axes(x.ndim, count)
    r = _reciprocal_root(xp, _mean(xp, x * x, axes), eps)
    return _affine(x * r, weight, None, x.shape[-count:]), r


def _rms_norm_backward(
    xp: Any, gy: Any, x: Any, weight: Any, *, needs: Any, count: int, aux: Any
) -> Any:
    axes, others = _last_axes(x.ndim, count)
    return _backward(
        xp, gy, x * aux, aux, weight, (*needs, False), axes=axes, others=others,
        layout=x.shape[-count:], centred=False,
    )[:2]  # fmt: skip


def _rms_norm_gx(gy: Tensor, x: Tensor, weight: Any, count: int, eps: float) -> Tensor:
    return _slope(gy * weight, x, _last_axes(x.ndim, count)[0], eps, centred=False)


def _rms_norm_gweight(
    gy: Tensor, x: Tensor, count: int, eps: float, weight_shape: tuple[int, ...]
) -> Tensor:
    h, _ = _normalized(x, _last_axes(x.ndim, count)[0], eps, centred=False)
    return sum_to(gy * h, weight_shape)


def _rms_norm_samples() -> Iterator[Sample]:
    for shape, normalized in (((3, 4), 4), ((2, 3, 4), (3, 4)), ((5,), 5)):
        weight = values(normalized, 0.5, 1.5, seed=1)
        name = f"{shape} over {normalized}"
        yield Sample((values(shape), normalized, weight), {"eps": 1e-5}, name)
        yield Sample((values(shape), normalized), {"eps": 1e-3}, f"{name}, no weight")
    yield Sample((values((LARGE // 1000, 1000)), 1000), name="large", large=True)


RMS_NORM = Op(
    "rms_norm",
    _rms_norm_forward,
    inputs=("x", "weight"),
    gradients={"x": _rms_norm_gx, "weight": _rms_norm_gweight},
    fused=Op(
        "rms_norm_backward",
        _rms_norm_backward,
        inputs=("gy", "x", "weight"),
        dtype=PROMOTE,
        halves=True,
        kernels=[_on_cuda(_rows_fit_backward, _rms_norm_rows_backward)],
    ),
    aux=True,
    dtype=FLOAT,
    kinds="fV",
    halves=True,
    wide=True,
    samples=_rms_norm_samples,
    kernels=[_on_cuda(_rows_fit, _rms_norm_rows)],
)


@public(RMS_NORM)
def rms_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Return ``x/√(mean(x²) + eps)·weight`` over the last axes [1]_.

    ``normalized_shape`` as for `layer_norm`; ``eps=None`` is the machine epsilon of the dtype of
    ``x``.

    >>> rms_norm(gl.tensor([[3.0, 4.0]]), 2)
    tensor([[0.8485, 1.1314]])

    .. [1] Zhang and Sennrich, https://arxiv.org/abs/1910.07467
    """
    x = _as_tensor("rms_norm", x)
    shape = _normalized_shape("rms_norm", x, normalized_shape)
    _check_parameters("rms_norm", shape, weight=weight)
    if eps is None:
        eps = dtypes.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    given = (x, 1.0 if weight is None else weight)
    return apply(RMS_NORM, given, {"count": len(shape), "eps": eps})


# ------------------------------------------------------------------------------------ batch_norm
#
# Mean and variance are inputs of the op: the batch's own in training, the running ones in
# evaluation. In training they follow from x, and the gradient of x accounts for that.


def _batch_axes(ndim: int) -> Axes:
    """All axes but 1, that of the channels."""
    return (0, *range(2, ndim))


def _layout(ndim: int) -> tuple[int, ...]:
    return (1, -1) + (1,) * (ndim - 2)


def _statistics_forward(xp: Any, x: Any, *, dtype: Any) -> Any:
    axes = _batch_axes(x.ndim)
    x = x.astype(dtype, copy=False)
    mean, variance = mean_and_variance(xp, x, axes, keepdims=False)
    return mean.reshape(-1), variance.reshape(-1)


# Mean and biased variance of each channel.
BATCH_STATISTICS = Op(
    "batch_statistics",
    _statistics_forward,
    kinds="fV",
    why_not="batch_norm takes the gradient of x as a whole",
    samples=lambda: [
        Sample((values(shape),), {"dtype": dtypes.float64}, f"{shape}")
        for shape in ((6, 4), (2, 3, 4))
    ],
)

# A running estimate after a new value.
RUNNING_AVERAGE = Op(
    "running_average",
    lambda xp, x, v, *, momentum: (x * (1 - momentum) + v * momentum).astype(x.dtype),
    inputs=("x", "v"),
    kinds="fV",
    why_not="running estimates are not trained",
    samples=lambda: [
        Sample((values(4), values(4, seed=1)), {"momentum": 0.1}, "a tenth of the new value")
    ],
)


def _batch_norm_forward(
    xp: Any, x: Any, mean: Any, var: Any, weight: Any, bias: Any = None, *, training: bool,
    eps: float,
) -> Any:  # fmt: skip
    layout = _layout(x.ndim)
    h = widened(x) - mean.reshape(layout)  # as the statistics, which stay float32
    h *= _reciprocal_root(xp, var, eps).reshape(layout)
    return _affine(h, weight, bias, layout).astype(x.dtype, copy=False)


def _batch_norm_backward(
    xp: Any, gy: Any, x: Any, mean: Any, var: Any, weight: Any, *, needs: Any, training: bool,
    eps: float,
) -> Any:  # fmt: skip
    layout = _layout(x.ndim)
    others = _batch_axes(x.ndim)
    r = _reciprocal_root(xp, var, eps).reshape(layout)
    h = widened(x) - mean.reshape(layout)
    h *= r
    gx, gweight, gbias = _backward(
        xp, widened(gy), h, r, weight, (needs[0], *needs[3:]), axes=others if training else (),
        others=others, layout=layout,
    )  # fmt: skip
    gradients = (gx, None, None, gweight, gbias)
    return gradients if needs[4] else gradients[:4]


def _batch_norm_h(x: Tensor, mean: Tensor, var: Tensor, training: bool, eps: float) -> Any:
    if training:
        return _normalized(x, _batch_axes(x.ndim), eps)
    layout = _layout(x.ndim)
    r = rsqrt(var + eps).reshape(layout)
    return (x - mean.reshape(layout)) * r, r


def _batch_norm_gx(
    gy: Tensor, x: Tensor, mean: Tensor, var: Tensor, weight: Any, training: bool, eps: float
) -> Tensor:
    g = gy * (weight if _is_one(weight) else weight.reshape(_layout(x.ndim)))
    if training:
        return _slope(g, x, _batch_axes(x.ndim), eps)
    return g * _batch_norm_h(x, mean, var, training, eps)[1]


def _batch_norm_gweight(
    gy: Tensor, x: Tensor, mean: Tensor, var: Tensor, training: bool, eps: float,
    weight_shape: tuple[int, ...],
) -> Tensor:  # fmt: skip
    h, _ = _batch_norm_h(x, mean, var, training, eps)
    return _per_channel(gy * h, weight_shape)


def _per_channel(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The sum for each channel, in the shape of a parameter."""
    return sum_to(g, kept_shape(g.shape, _batch_axes(g.ndim))).reshape(shape)


def _batch_norm_samples() -> Iterator[Sample]:
    for shape in ((6, 4), (2, 4, 3), (2, 4, 2, 2)):
        parameters = [values(4, 0.5, 1.5, seed=1), values(4, seed=2)]
        running = [values(4, seed=3), values(4, 0.5, 2.0, seed=4)]
        yield Sample((values(shape), None, None, *parameters, True), name=f"training, {shape}")
        yield Sample((values(shape), None, None, parameters[0], None, True), name="no bias")
        yield Sample((values(shape), None, None, None, parameters[1], True), name="bias alone")
        # Running statistics are fixed numbers here, not tensors to differentiate by.
        yield Sample((values(shape), *running, *parameters), name=f"evaluation, {shape}")
    yield Sample((values((LARGE // 100, 100)), None, None, None, None, True), name="large",
                 large=True)  # fmt: skip


BATCH_NORM = Op(
    "batch_norm",
    _batch_norm_forward,
    inputs=("x", "mean", "var", "weight", "bias"),
    gradients={
        "x": _batch_norm_gx,
        "weight": _batch_norm_gweight,
        "bias": lambda gy, bias_shape: _per_channel(gy, bias_shape),
    },
    fused=Op(
        "batch_norm_backward",
        _batch_norm_backward,
        inputs=("gy", "x", "mean", "var", "weight"),
    ),
    wide=True,
    why_not="running statistics are not trained",
    kinds="fV",
    samples=_batch_norm_samples,
)


@public(BATCH_NORM)
def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``(x - mean)/√(variance + eps)·weight + bias`` for each channel [1]_.

    ``x`` has shape (N, C) or (N, C, …), the other tensors (C,). In training mean and variance are
    those of the batch (the biased variance), and the running ones, where given, are updated in
    place: ``running = (1 - momentum)·running + momentum·batch``, with the unbiased variance.
    Otherwise the running ones are used. Statistics of float16 and bfloat16 are float32. A batch
    without values leaves the running ones as they are.

    Raises `ShapeError` where shapes do not fit, and in training for a batch that has one value per
    channel; `OptionError` in evaluation without running statistics.

    >>> batch_norm(gl.tensor([[1.0], [3.0]]), None, None, training=True, eps=0.0)
    tensor([[-1.],
            [ 1.]])

    .. [1] Ioffe and Szegedy, https://arxiv.org/abs/1502.03167
    """
    x = _as_tensor("batch_norm", x)
    if x.ndim < 2:
        raise ShapeError(message("batch_norm", expected="x of shape (N, C, ...)", got=str(x.shape)))
    _check_parameters(
        "batch_norm", x.shape[1:2], running_mean=running_mean, running_var=running_var,
        weight=weight, bias=bias,
    )  # fmt: skip
    if training:
        mean, var = _batch_statistics(x, running_mean, running_var, momentum)
    elif running_mean is None or running_var is None:
        raise OptionError(
            message(
                "batch_norm",
                expected="running_mean and running_var in evaluation",
                got="None",
                hint="pass training=True to use the statistics of the batch",
            )
        )
    else:
        mean, var = running_mean, running_var
    parameters = [1.0 if weight is None else weight] + ([] if bias is None else [bias])
    return apply(BATCH_NORM, (x, mean, var, *parameters), {"training": training, "eps": eps})


def _batch_statistics(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the batch; the running ones follow."""
    count = x.numel() // max(x.shape[1], 1)
    if count == 1:
        raise ShapeError(
            message(
                "batch_norm",
                expected="more than one value per channel in training",
                got=f"shape {x.shape}",
                hint="use a larger batch (drop_last=True leaves out a last batch of one), or "
                "evaluate with training=False",
            )
        )
    dtype = dtypes.float32 if x.dtype in dtypes.HALVES else x.dtype
    mean, var = apply(BATCH_STATISTICS, (x,), {"dtype": dtype})
    if not count:  # those of no values are NaN, which would stay in the running ones
        return mean, var
    with no_grad():
        if running_mean is not None:
            apply_(RUNNING_AVERAGE, running_mean, (mean,), {"momentum": momentum})
        if running_var is not None:
            unbiased = var * (count / max(count - 1, 1))
            apply_(RUNNING_AVERAGE, running_var, (unbiased,), {"momentum": momentum})
    return mean, var


# ------------------------------------------------------------------------------------- normalize


@accepts_dim
@in_float32
def normalize(x: Tensor, p: float = 2.0, axis: Axis = 1, eps: float = 1e-12) -> Tensor:
    """Return ``x / max(‖x‖ₚ, eps)``: vectors along ``axis`` of norm 1, those of norm 0 as they are.

    >>> normalize(gl.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if not eps >= 0:
        raise OptionError(message("normalize", expected="eps of 0 or more", got=str(eps)))
    return x / norm(x, p, axis, keepdims=True).clip(min=eps)


__all__ = ["batch_norm", "layer_norm", "normalize", "rms_norm"]
