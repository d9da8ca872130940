"""Derivatives of functions of tensors: `jacobian`, `hessian`, and products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlab import autograd
from gradlab.autograd.modes import enable_grad
from gradlab.errors import DTypeError, ShapeError, message
from gradlab.ops.creation import ones_like, zeros, zeros_like
from gradlab.ops.shape import stack
from gradlab.tensor import Tensor


def _leaves(operation: str, inputs: Any, create_graph: bool) -> tuple[Tensor, ...]:
    """The inputs to differentiate by: views of the given tensors, or leaves of the same values."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    for each in given:
        if not isinstance(each, Tensor) or not each.is_floating_point():
            got = each.dtype.name if isinstance(each, Tensor) else type(each).__name__
            raise DTypeError(message(operation, expected="floating tensors as inputs", got=got))
    if create_graph:
        return tuple(
            x.view(x.shape) if x.requires_grad else x.detach().requires_grad_() for x in given
        )
    return tuple(x.detach().requires_grad_() for x in given)


def _outputs(operation: str, results: Any) -> tuple[Tensor, ...]:
    outputs = results if isinstance(results, tuple) else (results,)
    for each in outputs:
        if not isinstance(each, Tensor):
            got = type(each).__name__
            raise DTypeError(message(operation, expected="a function of tensors", got=got))
    return outputs


def _gradients(
    y: Tensor, leaves: tuple[Tensor, ...], start: Tensor | None, create_graph: bool
) -> tuple[Tensor, ...]:
    if not y.requires_grad:  # a constant
        return tuple(zeros_like(x) for x in leaves)
    found: Any = autograd.grad(  # None for what was not used
        y, leaves, start, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False) -> Any:
    """Return the derivatives of all elements of ``func(*inputs)`` by all elements of ``inputs``.

    ``inputs`` is a tensor or a tuple of tensors. For one input of shape s and one output of shape
    t the result has the shape (*t, *s); for a tuple of inputs it is a tuple, and for a tuple of
    outputs a tuple of these.

    >>> import gradlab as gl
    >>> gl.autograd.functional.jacobian(lambda x: x**2, gl.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    with enable_grad():
        leaves = _leaves("jacobian", inputs, create_graph)
        results = func(*leaves)
        table = []
        for y in _outputs("jacobian", results):
            rows = [_gradients(each, leaves, None, create_graph) for each in y.reshape(-1)]
            columns = zip(*rows, strict=True) if rows else ([] for _ in leaves)
            parts = zip(leaves, columns, strict=True)
            blocks = tuple(
                stack(list(column)).reshape((*y.shape, *x.shape))
                if y.numel()
                else zeros((*y.shape, *x.shape), dtype=x.dtype, device=x.device)
                for x, column in parts
            )
            table.append(blocks if isinstance(inputs, tuple) else blocks[0])
    return tuple(table) if isinstance(results, tuple) else table[0]


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False) -> Any:
    """Return the second derivatives of a function of one value by all elements of ``inputs``.

    For one input of shape s the shape is (*s, *s); for a tuple, a tuple of tuples of blocks.

    >>> import gradlab as gl
    >>> gl.autograd.functional.hessian(lambda x: (x**3).sum(), gl.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def gradient(*leaves: Tensor) -> Any:
        (y,) = _outputs("hessian", func(*leaves))
        if y.numel() != 1:
            got = f"shape {y.shape}"
            raise ShapeError(message("hessian", expected="a function of one value", got=got))
        found = _gradients(y.reshape(()), leaves, None, True)
        return found if isinstance(inputs, tuple) else found[0]

    return jacobian(gradient, inputs, create_graph)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """Return ``func(*inputs)`` and the product of ``v`` with its Jacobian, vᵀJ.

    ``v`` has the shape of the output, and may be left out for an output of one value.

    >>> import gradlab as gl
    >>> gl.autograd.functional.vjp(lambda x: x**2, gl.tensor([1.0, 2.0]), gl.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    with enable_grad():
        leaves = _leaves("vjp", inputs, create_graph)
        results = func(*leaves)
        outputs = _outputs("vjp", results)
        starts = v if isinstance(v, tuple) else (v,) * len(outputs)
        parts = [
            _gradients(y, leaves, start, create_graph)
            for y, start in zip(outputs, starts, strict=True)
        ]
        sums = tuple(sum(column[1:], column[0]) for column in zip(*parts, strict=True))
    if not create_graph:
        outputs = tuple(y.detach() for y in outputs)
    products = sums if isinstance(inputs, tuple) else sums[0]
    return (outputs if isinstance(results, tuple) else outputs[0]), products


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """Return ``func(*inputs)`` and the product of its Jacobian with ``v``, Jv.

    ``v`` has the shape of the input, and may be left out for an input of one value. Computed by
    differentiating vᵀJ by v [1]_, at the cost of two backward passes.

    .. [1] Jamie Townsend, "A new trick for calculating Jacobian vector products", 2017

    >>> import gradlab as gl
    >>> gl.autograd.functional.jvp(lambda x: x**2, gl.tensor([1.0, 2.0]), gl.tensor([1.0, 0.0]))
    (tensor([1., 4.]), tensor([2., 0.]))
    """
    with enable_grad():
        leaves = _leaves("jvp", inputs, create_graph)
        along = tuple(map(ones_like, leaves)) if v is None else v if isinstance(v, tuple) else (v,)
        results = func(*leaves)
        outputs = _outputs("jvp", results)
        products = []
        for y in outputs:
            start = zeros_like(y).requires_grad_()
            pulled = _gradients(y, leaves, start, True)
            mixed = sum((g * w).sum() for g, w in zip(pulled, along, strict=True))
            (found,) = _gradients(mixed, (start,), None, create_graph)  # type: ignore[arg-type]
            products.append(found)
    if not create_graph:
        outputs = tuple(y.detach() for y in outputs)
    if isinstance(results, tuple):
        return outputs, tuple(products)
    return outputs[0], products[0]
