"""Hooks of a module: functions called before and after its forward, and in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gradlab.autograd import Function
from gradlab.autograd.modes import mode
from gradlab.errors import GradientError, OptionError, message
from gradlab.tensor import Tensor

if TYPE_CHECKING:
    from gradlab.nn.module import Module

Hook = Callable[..., Any]


class Hooks:
    """The hooks of one module, by the numbers of their handles."""

    __slots__ = ("after", "backward", "before")

    def __init__(self) -> None:
        self.before: dict[int, tuple[Hook, bool]] = {}  # the bool: called with kwargs too
        self.after: dict[int, tuple[Hook, bool]] = {}
        self.backward: dict[int, Hook] = {}


def first(hooks: dict[int, Any]) -> None:
    """Move the hook that was added last to the front."""
    key = next(reversed(hooks))
    rest = {each: hooks[each] for each in hooks if each != key}
    newest = hooks.pop(key)
    hooks.clear()
    hooks.update({key: newest, **rest})


def call(module: Module, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run ``module.forward`` with its hooks round it."""
    for hook, with_kwargs in list(hooks.before.values()):
        args, kwargs = _run_before(module, hook, with_kwargs, args, kwargs)
    crossing = None
    if hooks.backward and mode.grad:
        crossing = _Crossing(module, hooks.backward)
        args = crossing.enter(args)
    y = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(hooks.after.values()):
        changed = hook(module, args, kwargs, y) if with_kwargs else hook(module, args, y)
        y = y if changed is None else changed
    return y if crossing is None else crossing.leave(y)


def _run_before(
    module: Module, hook: Hook, with_kwargs: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
    if changed is None:
        return args, kwargs
    if not with_kwargs:
        return (changed if isinstance(changed, tuple) else (changed,)), kwargs
    if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
        raise OptionError(
            message(
                f"forward pre-hook of {type(module).__name__}",
                expected="None or a pair (args, kwargs), as it is registered with_kwargs",
                got=type(changed).__name__,
            )
        )
    return changed


# ---------------------------------------------------------------------------- backward hooks


class _Crossing:
    """One call of a module with backward hooks.

    Copies of the inputs and of the outputs stand for them, made by a `Function` each, so that the
    gradients of all outputs and then of all inputs pass here together, and so that what reaches
    an input along ways that do not lead through the module is left out.
    """

    def __init__(self, module: Module, hooks: dict[int, Hook]) -> None:
        self.module, self.hooks = module, hooks
        self.count = 0  # of the positional arguments
        self.places: list[int] = []  # those that gradients flow back to
        self.copies: Sequence[Tensor] = ()
        self.grad_output: tuple[Any, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count = len(args)
        self.places = _with_history(args)
        if not self.places:
            return args
        self.copies = _Entrance.apply(self, *[args[i] for i in self.places])
        return _replaced(args, self.places, self.copies)

    def leave(self, y: Any) -> Any:
        if any(copy._version is not None and copy._version.count for copy in self.copies):
            raise GradientError(
                f"{type(self.module).__name__}: expected a forward that leaves its input as it is, "
                "for the backward hook that is registered, got one that changed it in place; use "
                "the out-of-place form"
            )
        outputs = tuple(y) if isinstance(y, tuple | list) else (y,)
        self.outputs = len(outputs)
        self.output_places = _with_history(outputs)
        if not self.output_places:
            return y
        copies = _Exit.apply(self, *[outputs[i] for i in self.output_places])
        outputs = _replaced(outputs, self.output_places, copies)
        if isinstance(y, tuple) and hasattr(y, "_fields"):
            return type(y)(*outputs)
        return type(y)(outputs) if isinstance(y, tuple | list) else outputs[0]

    def run(self, grads: Sequence[Any]) -> list[Any]:
        """Show the hooks the gradients of the inputs; return those to go on with."""
        grad_input = _replaced((None,) * self.count, self.places, grads)
        for hook in list(self.hooks.values()):
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = self._checked(changed)
        return [grad_input[i] for i in self.places]

    def _checked(self, changed: Any) -> tuple[Any, ...]:
        given = tuple(changed) if isinstance(changed, tuple | list) else (changed,)
        if len(given) != self.count:
            raise GradientError(
                message(
                    f"backward hook of {type(self.module).__name__}",
                    expected=f"None or {self.count} gradients, one for each positional argument",
                    got=str(len(given)),
                )
            )
        return given


def _with_history(values: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(values) if isinstance(x, Tensor) and x.requires_grad]


def _replaced(
    values: Sequence[Any], places: Sequence[int], others: Sequence[Any]
) -> tuple[Any, ...]:
    made = list(values)
    for place, other in zip(places, others, strict=True):
        made[place] = other
    return tuple(made)


class _Entrance(Function):
    """Passes the inputs of a module on, and the gradients that leave it through the hooks."""

    @staticmethod
    def forward(ctx: Any, crossing: _Crossing, *xs: Tensor) -> tuple[Tensor, ...]:
        ctx.crossing = crossing
        return tuple(x.clone() for x in xs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, *ctx.crossing.run(grads))


class _Exit(Function):
    """Passes the outputs of a module on, and notes the gradients that come back to them."""

    @staticmethod
    def forward(ctx: Any, crossing: _Crossing, *ys: Tensor) -> tuple[Tensor, ...]:
        ctx.crossing = crossing
        return tuple(y.clone() for y in ys)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        crossing: _Crossing = ctx.crossing
        crossing.grad_output = _replaced((None,) * crossing.outputs, crossing.output_places, grads)
        if not crossing.places:  # nothing flows on to the inputs, so nobody else calls the hooks
            crossing.run(())
        return (None, *grads)
