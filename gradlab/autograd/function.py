"""`Function`: an operation of your own, with its gradient written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

from gradlab.autograd.graph import FREED, Node, Plan, next_number, version_of
from gradlab.autograd.modes import mode, no_grad
from gradlab.errors import DTypeError, GradientError, message

if TYPE_CHECKING:
    from gradlab.tensor import Tensor


class Context:
    """What ``forward`` hands to ``backward``; any attribute may be set on it."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Any, ...] = ()
        self._versions: tuple[int, ...] = ()
        self._outputs: dict[int, int] = {}  # place among the saved -> number of the output
        self._not_differentiable: tuple[Any, ...] = ()
        self._materialize = True
        self._node: FunctionNode | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `saved_tensors`; a later in-place change to them is refused."""
        self._saved = tensors
        self._versions = tuple(version_of(each) for each in tensors)

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Say that no gradient flows back from these outputs."""
        self._not_differentiable = outputs

    def set_materialize_grads(self, value: bool) -> None:
        """With False, an output that was not used passes None to backward instead of zeros."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors given to `save_for_backward`."""
        if self._saved is FREED:
            raise GradientError(
                "saved_tensors: expected the values saved by forward, got a graph whose values an "
                "earlier backward() freed; give that earlier call retain_graph=True"
            )
        for each, version in zip(self._saved, self._versions, strict=True):
            if version_of(each) != version:
                raise GradientError(
                    f"saved_tensors: the value of shape {each.shape} was changed in place by "
                    f"{each._version.writer} since forward saved it; clone() it before"
                )
        return tuple(
            each._like(each._array, self._output_node(self._outputs[at]))
            if at in self._outputs
            else each
            for at, each in enumerate(self._saved)
        )

    def _output_node(self, number: int) -> Any:
        return None if self._node is None else self._node.output_node(number)

    def _detach_outputs(self, outputs: tuple[Any, ...]) -> None:
        # An output saved as it is would hold its own node: a cycle that keeps the graph alive.
        for at, each in enumerate(self._saved):
            for number, output in enumerate(outputs):
                if each is output and each is not None:
                    self._outputs[at] = number
        self._saved = tuple(
            each.detach() if at in self._outputs else each for at, each in enumerate(self._saved)
        )


class _FunctionOp:
    """Stands where an op stands in a node."""

    broadcasts = False

    def __init__(self, name: str) -> None:
        self.name = name


class FunctionOutput(Node):
    """One of several outputs of a `Function`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return f"{self.op.name}Backward"


class FunctionNode(FunctionOutput):
    """The recorded call of a `Function`."""

    __slots__ = ("context", "function", "outputs_like")

    function: type[Function]
    context: Context
    outputs_like: tuple[Any, ...]

    def output_node(self, number: int) -> Node:
        return self if self.plan.outputs == 1 else _pick(self, number)

    def gradients(self, gy: Any, wanted: Any, fused: bool) -> Iterable[tuple[int, Any]]:
        del fused
        grads = list(gy) if self.plan.outputs > 1 else [gy]
        if self.context._materialize:
            grads = [
                _zeros(*like) if each is None else each
                for each, like in zip(grads, self.outputs_like, strict=True)
            ]
        self.context._node = self  # only while backward runs: kept, it would be a cycle
        try:
            results = self.function.backward(self.context, *grads)
        finally:
            self.context._node = None
        results = results if isinstance(results, tuple) else (results,)
        if len(results) != len(self.parents):
            raise GradientError(
                message(
                    f"{self.op.name}.backward",
                    expected=f"{len(self.parents)} gradients, one for each argument of forward",
                    got=f"{len(results)}",
                    hint="return None for arguments without a gradient",
                )
            )
        for position, (gx, parent) in enumerate(zip(results, self.parents, strict=True)):
            if parent is not None and (wanted is None or parent.number in wanted):
                if gx is not None and not hasattr(gx, "_array"):
                    raise DTypeError(
                        message(
                            f"{self.op.name}.backward",
                            expected="tensors or None",
                            got=type(gx).__name__,
                        )
                    )
                yield position, gx

    def free(self) -> None:
        if self.context._saved:
            self.context._saved = FREED


def _zeros(shape: tuple[int, ...], like: Any) -> Any:
    return like._like(like.device.xp.zeros(shape, like.dtype), None)


def _pick(parent: FunctionNode, number: int) -> Node:
    """The node of output ``number`` of a function with several outputs."""
    node = _node(FunctionOutput, parent.op, (parent,), parent.outputs_like[number][0])
    node.dtype = parent.outputs_like[number][1].dtype
    node.plan.picks = number
    node.plan.calls = ((0, _pass_on, (), (), ""),)
    return node


def _pass_on(gy: Any) -> Any:
    return gy


def _node(kind: type[Any], op: Any, parents: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    node: Any = object.__new__(kind)
    node.op, node.parents, node.shape = op, parents, shape
    node.plan = Plan()
    node.attributes = {}
    node.saved = ()
    node.versions = node.output = node.aux = node.hooks = node.dtype = None
    node.number = next_number()
    return node


class Function:
    """An operation with a hand-written gradient, called by ``YourFunction.apply(...)``.

    ``forward(ctx, *args)`` computes the result, outside the graph, and leaves on ``ctx`` what
    ``backward(ctx, *grads)`` will need; ``backward`` returns one gradient per argument, None for
    those that have none. If it is made of gradlab operations, it can be differentiated again.
    As in PyTorch, ``forward(*args)`` with ``setup_context(ctx, inputs, output)`` works too.

    >>> import gradlab as gl
    >>> class Cube(gl.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, gy):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x**2 * gy
    >>> x = gl.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Leave on ``ctx`` what backward needs, when ``forward`` takes no ``ctx``."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("a Function needs a static method backward(ctx, *grads)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and record it."""
        nodes = tuple(each._history() if hasattr(each, "_history") else None for each in args)
        needs = tuple(node is not None for node in nodes)
        context = Context(needs)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                result = cls.forward(context, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(context, args, result)
        if not (any(needs) and mode.grad):
            return result
        outputs = result if isinstance(result, tuple) else (result,)
        recorded = cls._record(context, args, nodes, outputs)
        return recorded if isinstance(result, tuple) else recorded[0]

    @classmethod
    def _record(
        cls, context: Context, args: Any, nodes: tuple[Any, ...], outputs: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        if not all(hasattr(each, "_array") for each in outputs):
            kinds = ", ".join(type(each).__name__ for each in outputs)
            raise DTypeError(message(f"{cls.__name__}.forward", expected="tensors", got=kinds))
        context._detach_outputs(outputs)
        node: FunctionNode = _node(FunctionNode, _FunctionOp(cls.__name__), nodes, outputs[0].shape)
        node.dtype = outputs[0].dtype
        node.function, node.context = cls, context
        node.plan.foreign = True
        node.plan.outputs = len(outputs)
        node.outputs_like = tuple((each.shape, _prototype(each)) for each in outputs)
        made = []
        for number, each in enumerate(outputs):
            plain = any(each is other for other in context._not_differentiable)
            taken = any(each is arg for arg in args) or each._node is not None
            tensor = each.detach() if taken or not plain else each
            if not plain and each.is_floating_point():
                tensor._node = node.output_node(number)
            made.append(tensor)
        return tuple(made)


def _prototype(tensor: Any) -> Any:
    """A tensor of no elements with the dtype and device of ``tensor``, to make zeros like it."""
    return tensor._like(tensor.device.xp.empty((0,), tensor.dtype), None)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` that is not made of gradlab operations: no second-order gradient.

    Put it under ``@staticmethod``. Asking for ``create_graph`` through it raises.
    """

    @wraps(backward)
    def run(ctx: Any, *grads: Any) -> Any:
        if mode.grad:
            raise GradientError(
                "backward: this Function is once_differentiable, so create_graph=True cannot go "
                "through it; write its backward with gradlab operations"
            )
        return backward(ctx, *grads)

    return run
