"""Normalization layers: `LayerNorm`, `RMSNorm`, `BatchNorm1d`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlab import dtypes
from gradlab.devices import DeviceLike
from gradlab.errors import ShapeError, message
from gradlab.nn.module import Module
from gradlab.nn.options import require_shape, require_size
from gradlab.nn.parameter import Parameter
from gradlab.ops.creation import ones, zeros
from gradlab.ops.normalization import batch_norm, layer_norm, rms_norm
from gradlab.tensor import Tensor


class LayerNorm(Module):
    """``(x - mean) / √(variance + eps) · weight + bias`` over the last axes [1]_.

    Parameters
    ----------
    normalized_shape: the sizes of the last axes, over which mean and variance are taken.
    eps: added to the variance.
    elementwise_affine: learn ``weight`` (ones at first) and ``bias`` (zeros), of that shape.
    bias: with ``elementwise_affine``, False leaves the bias out.

    Raises `ShapeError` where the input does not end in ``normalized_shape``.

    .. [1] Ba et al., "Layer normalization", 2016

    >>> import gradlab as gl
    >>> gl.nn.LayerNorm(2)(gl.tensor([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = require_shape("LayerNorm", "normalized_shape", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        where: Any = {"device": device, "dtype": dtype}
        _register(self, "weight", ones, self.normalized_shape, elementwise_affine, where)
        _register(self, "bias", zeros, self.normalized_shape, elementwise_affine and bias, where)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        try:
            return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        except ShapeError as error:
            raise _explain(self, x, error) from None

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """``x / √(mean(x²) + eps) · weight`` over the last axes [1]_.

    ``eps=None`` is the machine epsilon of the input's dtype. Raises `ShapeError` where the input
    does not end in ``normalized_shape``.

    .. [1] Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = require_shape("RMSNorm", "normalized_shape", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        where: Any = {"device": device, "dtype": dtype}
        _register(self, "weight", ones, self.normalized_shape, elementwise_affine, where)

    def reset_parameters(self) -> None:
        """Set weight to 1."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        try:
            return rms_norm(x, self.normalized_shape, self.weight, self.eps)
        except ShapeError as error:
            raise _explain(self, x, error) from None

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


def _register(
    layer: Module, name: str, make: Any, shape: tuple[int, ...], wanted: bool, where: Any
) -> None:
    layer.register_parameter(name, Parameter(make(shape, **where)) if wanted else None)


def _reset(layer: Any) -> None:
    if layer.weight is not None:
        layer.weight.detach().fill_(1.0)
    if getattr(layer, "bias", None) is not None:
        layer.bias.detach().fill_(0.0)


def _explain(layer: Any, x: Any, error: ShapeError) -> ShapeError:
    """Say which layer it was, where the last sizes of ``x`` are what is wrong."""
    shape, got = layer.normalized_shape, getattr(x, "shape", None)
    if not isinstance(got, tuple) or got[-len(shape) :] == shape:
        return error
    return ShapeError(
        message(
            f"{type(layer).__name__}({shape[0] if len(shape) == 1 else shape})",
            expected=f"an input whose last sizes are {shape}",
            got=f"shape {got}",
        )
    )


class BatchNorm1d(Module):
    """``(x - mean) / √(variance + eps) · weight + bias`` for each channel, over the batch [1]_.

    Input of shape (N, C) or (N, C, L). In training mean and (biased) variance are those of the
    batch, and running estimates follow them, the unbiased variance for theirs; in evaluation the
    running estimates are used. An empty batch changes no estimate.

    Parameters
    ----------
    num_features: the number of channels C.
    eps: added to the variance.
    momentum: the weight of a new batch in the running estimates; None for their plain average.
    affine: learn ``weight`` (ones at first) and ``bias`` (zeros).
    track_running_stats: False keeps no estimates and takes those of the batch always.

    Raises `ShapeError` for an input of another shape, and in training for a batch that has a
    single value per channel, whose variance says nothing.

    .. [1] Ioffe and Szegedy, "Batch normalization", ICML 2015

    >>> import gradlab as gl
    >>> gl.nn.BatchNorm1d(2)(gl.tensor([[1.0, 5.0], [3.0, 5.0]])).round(3).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = require_size("BatchNorm1d", "num_features", num_features)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        where: Any = {"device": device, "dtype": dtype}
        shape = (self.num_features,)
        _register(self, "weight", ones, shape, affine, where)
        _register(self, "bias", zeros, shape, affine and bias, where)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(shape, **where) if tracked else None)
        self.register_buffer("running_var", ones(shape, **where) if tracked else None)
        count = zeros((), dtype=dtypes.int64, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)

    def reset_running_stats(self) -> None:
        """Forget the running estimates."""
        if self.track_running_stats:
            self.running_mean.fill_(0.0)  # type: ignore[union-attr]
            self.running_var.fill_(1.0)  # type: ignore[union-attr]
            self.num_batches_tracked.fill_(0)  # type: ignore[union-attr]

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and forget the running estimates."""
        self.reset_running_stats()
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None and x.numel():
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        return batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )

    def _check(self, x: Tensor) -> None:
        shape = x.shape
        if len(shape) not in (2, 3) or shape[1] != self.num_features:
            raise ShapeError(
                message(
                    f"BatchNorm1d({self.num_features})",
                    expected=f"an input of shape (N, {self.num_features}) or "
                    f"(N, {self.num_features}, L)",
                    got=f"shape {shape}",
                )
            )
        if self.training and shape[0] * (shape[2] if len(shape) == 3 else 1) == 1:
            raise ShapeError(
                message(
                    f"BatchNorm1d({self.num_features})",
                    expected="more than one value per channel in training",
                    got=f"shape {shape}",
                    hint="use larger batches, drop_last=True in the DataLoader, or eval()",
                )
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )
