"""All parameters of a model as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from gradlab.autograd.modes import no_grad
from gradlab.errors import DTypeError, OptionError, ShapeError, message
from gradlab.ops.shape import cat
from gradlab.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Return the elements of all parameters in one axis; gradients flow back to them.

    >>> import gradlab as gl
    >>> parameters_to_vector(gl.nn.Linear(3, 2).parameters()).shape
    (8,)
    """
    flat = [parameter.reshape(-1) for parameter in parameters]
    if not flat:
        raise OptionError("parameters_to_vector: expected at least one parameter, got none")
    return cat(flat)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of a vector into the parameters, in their order.

    Raises `ShapeError` where there are more or fewer elements than the parameters hold.
    """
    operation = "vector_to_parameters"
    if not isinstance(vec, Tensor):
        raise DTypeError(message(operation, expected="a tensor", got=type(vec).__name__))
    given = list(parameters)
    count = sum(parameter.numel() for parameter in given)
    if vec.shape != (count,):
        raise ShapeError(message(operation, expected=f"shape ({count},)", got=f"{vec.shape}"))
    start = 0
    with no_grad():
        for parameter in given:
            end = start + parameter.numel()
            parameter.copy_(vec[start:end].reshape(parameter.shape))
            start = end
