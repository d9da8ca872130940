"""Automatic differentiation: `backward`, `grad`, the modes, and `Function` for ops of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradlab.arguments import guard_namespace
from gradlab.autograd import functional
from gradlab.autograd.function import Function, once_differentiable
from gradlab.autograd.graph import run_backward
from gradlab.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from gradlab.errors import DeviceError, DTypeError, GradientError, ShapeError, message

if TYPE_CHECKING:
    from gradlab.tensor import Tensor
    from gradlab.testing import gradcheck, gradgradcheck

__all__ = [
    "Function",
    "Variable",
    "backward",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]


def __getattr__(name: str) -> Any:
    """`gradcheck` and `gradgradcheck` of `gradlab.testing`, which PyTorch has here."""
    if name in ("gradcheck", "gradgradcheck"):
        from gradlab import testing

        return getattr(testing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:  # noqa: N802 - PyTorch's name
    """Return a tensor that shares the memory of ``data`` and has no history.

    PyTorch's wrapper from before tensors had gradients of their own; a plain tensor does.

    >>> import gradlab as gl
    >>> gl.autograd.Variable(gl.ones(2), requires_grad=True)
    tensor([1., 1.], requires_grad=True)
    """
    _check_tensors("Variable", "a tensor", [data])
    return data.detach().requires_grad_(requires_grad)


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)


def _roots(operation: str, outputs: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    """Pair each output's node with the gradient that starts there."""
    if len(outputs) != len(gradients):
        raise GradientError(
            message(operation, expected=f"{len(outputs)} gradients", got=str(len(gradients)))
        )
    roots = []
    _check_tensors(operation, "tensors to start from", outputs)
    for output, gradient in zip(outputs, gradients, strict=True):
        node = output._history()
        if node is None:
            raise GradientError(
                f"{operation}: expected a tensor that depends on one with requires_grad=True, got "
                f"one of shape {output.shape} that does not; call requires_grad_() on the inputs, "
                "and compute outside no_grad()"
            )
        roots.append((node, _start(operation, output, gradient)))
    return roots


def _check_tensors(operation: str, expected: str, values: Sequence[Any]) -> None:
    for value in values:
        if not hasattr(value, "_array"):
            raise DTypeError(message(operation, expected=expected, got=repr(value)))


def _start(operation: str, output: Any, gradient: Any) -> Any:
    if gradient is None:
        if output._array.size != 1:
            raise GradientError(
                message(
                    operation,
                    expected="a scalar, or an explicit gradient",
                    got=f"a tensor of shape {output.shape}",
                    hint="reduce it first, for example with .sum(), or pass gradient=",
                )
            )
        if output.is_complex():
            raise GradientError(
                message(
                    operation,
                    expected="a real scalar",
                    got=output.dtype.name,
                    hint="take .abs() or the real part, or pass gradient=",
                )
            )
        xp, array = output.device.xp, output._array
        one = xp.asarray(1, array.dtype)  # np.ones takes three times as long
        return output._like(one if not array.ndim else xp.ones(array.shape, array.dtype), None)
    if not hasattr(gradient, "_array"):
        try:
            array = output.device.xp.asarray(gradient, dtype=output.dtype)
        except (TypeError, ValueError):
            _check_tensors(operation, "a tensor or an array as gradient", (gradient,))
            raise
        gradient = output._like(array, None)
    if gradient.device is not output.device:
        raise DeviceError(
            message(
                operation,
                expected=f"a gradient on {output.device}, as the output",
                got=f"one on {gradient.device}",
                hint=f'move it with .to("{output.device}")',
            )
        )
    if gradient.shape != output.shape:
        raise ShapeError(
            message(
                operation,
                expected=f"a gradient of the output's shape {output.shape}",
                got=f"{gradient.shape}",
            )
        )
    return gradient if gradient.dtype == output.dtype else gradient.astype(output.dtype)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of ``tensors`` to the ``grad`` of the leaves they depend on.

    ``grad_tensors`` holds, for each tensor, the gradient that starts there (None: 1, for a
    scalar). With ``inputs`` only the ``grad`` of these changes.
    """
    outputs = _as_tuple(tensors)
    starts = (None,) * len(outputs) if grad_tensors is None else _as_tuple(grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    if inputs is not None:
        given = tuple(dict.fromkeys(_as_tuple(inputs)))  # one named twice counts once
        if not given:
            raise GradientError("backward: expected inputs to compute gradients for, got none")
        found = grad(
            outputs,
            given,
            starts,
            retain_graph=retain,
            create_graph=create_graph,
            allow_unused=True,
        )
        for each, gradient in zip(given, found, strict=True):
            if gradient is not None:
                _accumulate(each, gradient, create_graph)
        return
    roots = _roots("backward", outputs, starts)
    run_backward(roots, retain_graph=retain, create_graph=create_graph)


def _accumulate(tensor: Tensor, gradient: Tensor, create_graph: bool) -> None:
    if tensor.grad is None:
        tensor.grad = gradient
    elif create_graph:
        tensor.grad = tensor.grad + gradient
    else:
        with no_grad():
            tensor.grad.add_(gradient)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradients of ``outputs`` with respect to ``inputs``; no ``grad`` is touched.

    With ``create_graph`` the results can be differentiated again, to any order. An input that the
    outputs do not depend on is refused, unless ``allow_unused`` (its gradient is then None) or
    ``materialize_grads`` (zeros).

    >>> import gradlab as gl
    >>> x = gl.tensor(3.0, requires_grad=True)
    >>> (g,) = gl.autograd.grad(x**3, x, create_graph=True)
    >>> gl.autograd.grad(g, x)
    (tensor(18.),)
    """
    results, sources = _as_tuple(outputs), _as_tuple(inputs)
    starts = (None,) * len(results) if grad_outputs is None else _as_tuple(grad_outputs)
    _check_tensors("grad", "tensors as inputs", sources)
    for source in sources:
        if source._history() is None:
            raise GradientError(
                "grad: expected inputs that require a gradient, got one of shape "
                f"{source.shape} that does not; call requires_grad_() before computing with it"
            )
    captured = run_backward(
        _roots("grad", results, starts),
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=create_graph,
        capture=[source._node for source in sources],
    )
    found: list[Any] = []
    for number, source in enumerate(sources):
        gradient = captured.get(source._node.number)
        if gradient is None and materialize_grads:
            gradient = source._like(source.device.xp.zeros(source.shape, source.dtype), None)
        if gradient is None and not allow_unused:
            raise GradientError(
                f"grad: the outputs do not depend on input {number} (shape {source.shape}); "
                "leave it out, or pass allow_unused=True"
            )
        found.append(gradient)
    return tuple(found)


guard_namespace(globals())
