"""Gradient clipping. Nothing here waits for a GPU, unless ``error_if_nonfinite`` asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gradlab import dtypes
from gradlab.autograd.modes import no_grad
from gradlab.devices import Device
from gradlab.errors import GradientError, OptionError, message
from gradlab.ops.clipping import CLIP_NORM, CLIP_VALUE, TOTAL_NORM
from gradlab.ops.core import update
from gradlab.ops.creation import empty, zeros
from gradlab.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale the gradients in place so that their norm, as one vector, is at most ``max_norm``.

    They are multiplied by ``min(1, max_norm / (norm + 1e-6))``, as in PyTorch [1]_. Returns the
    norm before scaling, a tensor that stays on the gradients' device.

    Parameters
    ----------
    parameters: tensors, of which those without a gradient are left out.
    norm_type: the p of the p-norm; ``inf`` for the largest absolute value.
    error_if_nonfinite: raise `GradientError` where the norm is NaN or infinite, before anything
        is scaled. It has to wait for the norm.

    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html

    >>> import gradlab as gl
    >>> w = gl.zeros(2, requires_grad=True)
    >>> w.grad = gl.tensor([3.0, 4.0])
    >>> clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6000, 0.8000])
    """
    grads = _gradients(parameters)
    _require("clip_grad_norm_", "max_norm", max_norm)
    total = _total_norm("clip_grad_norm_", grads, norm_type, error_if_nonfinite)
    _scale(grads, max_norm, total)
    return total


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Return the norm of all elements of all tensors, as one vector.

    It is on the device of the first, float64 where one of them is, else float32.
    """
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    return _total_norm("get_total_norm", given, norm_type, error_if_nonfinite)


def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor) -> None:
    """Scale the gradients in place by ``min(1, max_norm / (total_norm + 1e-6))``."""
    _require("clip_grads_with_norm_", "max_norm", max_norm)
    _scale(_gradients(parameters), max_norm, total_norm)


def clip_grad_value_(parameters: Tensors, clip_value: float) -> None:
    """Limit each element of the gradients to [-clip_value, clip_value], in place."""
    _require("clip_grad_value_", "clip_value", clip_value)
    for grads in _by_device(_gradients(parameters)).values():
        update(CLIP_VALUE, [grads], {"limit": float(clip_value)})


def _gradients(parameters: Tensors) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    return [each.grad for each in given if each.grad is not None]


def _require(operation: str, name: str, value: float) -> None:
    if not value >= 0:
        raise OptionError(message(operation, expected=f"{name} of 0 or more", got=str(value)))


def _by_device(tensors: list[Tensor]) -> dict[Device, list[Tensor]]:
    groups: dict[Device, list[Tensor]] = {}
    for each in tensors:
        groups.setdefault(each.device, []).append(each)
    return groups


def _total_norm(operation: str, tensors: list[Tensor], ord: float, check: bool) -> Tensor:
    if not ord > 0:
        raise OptionError(message(operation, expected="norm_type above 0, or inf", got=str(ord)))
    if not tensors:
        return zeros(())
    norms = [_norm(group, ord) for group in _by_device(tensors).values()]
    total = norms[0]
    if len(norms) > 1:
        total = _norm([each.to(device=total.device) for each in norms], ord)
    if check and not math.isfinite(value := float(total)):
        raise GradientError(
            message(
                operation,
                expected="finite gradients",
                got=f"gradients whose norm is {value}",
                hint="lower the learning rate, or go on with error_if_nonfinite=False",
            )
        )
    return total


def _norm(tensors: list[Tensor], ord: float) -> Tensor:
    """The norm of tensors that lie on one device."""
    wide = any(each.dtype == dtypes.float64 for each in tensors)
    total = empty((), dtype=dtypes.float64 if wide else dtypes.float32, device=tensors[0].device)
    update(TOTAL_NORM, [tensors, [total]], {"ord": float(ord)})
    return total


def _scale(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    with no_grad():
        for device, group in _by_device(grads).items():
            there = [total.to(device=device)]
            update(CLIP_NORM, [group, there], {"max_norm": float(max_norm)})
