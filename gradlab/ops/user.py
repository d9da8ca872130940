"""`elementwise`: an op of your own from one Python function of numbers, on the CPU and the GPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import update_wrapper
from types import FunctionType
from typing import Any, overload

import numpy as np

from gradlab import dtypes
from gradlab.errors import (
    GradientError,
    MissingDependencyError,
    OptionError,
    message,
    missing_dependency,
)
from gradlab.kernels.cpu.elementwise import compile_ufunc, missing as missing_for_cpu
from gradlab.kernels.numba_cuda.elementwise import DeviceFunction, missing as missing_for_cuda
from gradlab.kernels.scalar import ScalarError, ScalarFunction
from gradlab.ops.core import FLOAT, Op, apply
from gradlab.ops.samples import Sample

Samples = Callable[[], Iterable[Sample]]


class Elementwise:
    """An op made by `elementwise`: call it on tensors, arrays and numbers.

    ``op`` is the `Op` behind it. `gradlab.testing.check_op` takes either.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        samples: Samples | None = None,
        _differentiates: Elementwise | None = None,
    ) -> None:
        self._signature = _check_function(function)
        self._of = _differentiates
        count = None if _differentiates is None else len(_differentiates._inputs)
        assert isinstance(function, FunctionType)
        self._scalar = ScalarFunction(function, count)
        self._inputs = _input_names(self._scalar.parameters)
        self._gradient: Elementwise | None = None
        self._ops = [self._make_op(pick) for pick in ([None] if count is None else range(count))]
        self.op = self._ops[0]
        self.op.function, self.op.samples = self, samples
        update_wrapper(self, function)

    def _make_op(self, pick: int | None) -> Op:
        scalar = self._scalar

        def refuse(gy: Any) -> Any:
            raise GradientError(self._missing_gradient())

        op = Op(
            scalar.name if pick is None else f"{scalar.name}[{pick}]",
            _forward(scalar, pick),
            inputs=self._inputs,
            gradients=dict.fromkeys(self._inputs, refuse),
            dtype=FLOAT, kinds="biufV", halves=True, broadcasts=True, register=False,
        )  # fmt: skip
        dtypes._caches_to_clear.append(op.forget)
        return op

    def _missing_gradient(self) -> str:
        name = self._scalar.name
        if self._of is not None:
            return (
                f"{self._of._scalar.name}: a gradient of its gradient was asked for, and {name} "
                f"has none; give it one with @{name}.gradient"
            )
        return (
            f"{name} has no gradient, and one was asked for; give it one with @{name}.gradient, or "
            "call it inside no_grad() or on x.detach()"
        )

    def gradient(self, function: Callable[..., Any]) -> Elementwise:
        """Give the gradient as a second scalar function; used as a decorator.

        It takes the gradient of the result, then the inputs, and returns the gradient of each
        input: ``def swish_gradient(gy, x, beta): return gx, gbeta``. The sums over broadcast axes
        are gradlab's to do. What comes back has a ``gradient`` in turn, for second-order gradients:
        it takes a gradient for each value that this function returns, then what this one takes.
        """
        made = Elementwise(function, _differentiates=self)
        results = len(self._ops)
        expected, got = results + len(self._inputs), len(made._inputs)
        if expected != got:
            names = "gy" if results == 1 else ", ".join(f"gy{i}" for i in range(results))
            raise OptionError(
                message(
                    f"{self._scalar.name}.gradient",
                    expected=f"a function of ({names}, {', '.join(self._scalar.parameters)})",
                    got=repr(made._scalar),
                )
            )
        for place, op in enumerate(self._ops):
            op.gradients = {
                name: _gradient(made._ops[i], self._inputs, place, results)
                for i, name in enumerate(self._inputs)
            }
            op.plans.clear()
        self._gradient = made
        return made

    def __call__(self, /, *inputs: Any, **named: Any) -> Any:
        if named or len(inputs) != len(self._inputs):
            inputs = self._bind(inputs, named)
        results = tuple(apply(op, inputs) for op in self._ops)
        return results if self._of is not None and len(results) > 1 else results[0]

    def _bind(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self._signature.bind(*inputs, **named)
        except TypeError as error:
            raise OptionError(
                message(
                    self._scalar.name,
                    expected=f"inputs ({', '.join(self._scalar.parameters)})",
                    got=", ".join([f"{len(inputs)} in order", *named]) + f" ({error})",
                )
            ) from None
        bound.apply_defaults()
        return bound.args

    def __repr__(self) -> str:
        return f"<elementwise {self._scalar!r}>"


def _check_function(function: Any) -> inspect.Signature:
    if not isinstance(function, FunctionType):
        raise OptionError(
            message("elementwise", expected="a Python function of numbers", got=repr(function))
        )
    # Of the function itself: what it wraps is not what is compiled.
    signature = inspect.signature(function, follow_wrapped=False)
    kinds = {each.kind for each in signature.parameters.values()}
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if not kinds or kinds - positional:
        raise OptionError(
            message(
                "elementwise",
                expected="a function with one or more inputs, and no *args or keyword-only ones",
                got=f"{function.__name__}{signature}",
            )
        )
    return signature


def _input_names(parameters: Iterable[str]) -> tuple[str, ...]:
    """The parameters, changed where an op means something by a name.

    Its gradients know the result as y, its gradient as gy and the array namespace as xp.
    """
    names: list[str] = []
    for name in parameters:
        while name in ("y", "gy", "xp", *names) or name.endswith("_shape"):
            name += "_"
        names.append(name)
    return tuple(names)


def _gradient(op: Op, inputs: tuple[str, ...], place: int, results: int) -> Callable[..., Any]:
    """``f(gy, *inputs)`` as ops want it, inputs by name; ``op`` takes ``results`` gradients."""
    before, after = (0.0,) * place, (0.0,) * (results - place - 1)

    def call(gy: Any, *values: Any) -> Any:
        return apply(op, (*before, gy, *after, *values))

    names, caller = ", ".join(inputs), "call"
    while caller in inputs:
        caller += "_"
    made: Callable[..., Any] = eval(f"lambda gy, {names}: {caller}(gy, {names})", {caller: call})
    return made


def _forward(scalar: ScalarFunction, pick: int | None) -> Callable[..., Any]:
    """The forward of an op: compiled for a dtype and a kind of device when first called on it.

    It is compiled again where something around the function has another value than then.
    """
    made: dict[Any, Callable[..., Any]] = {}
    watched: list[tuple[Callable[[], Any], Any]] = []

    def forward(xp: Any, *inputs: Any) -> Any:
        nonlocal made, watched
        if not made or (watched and any(read() is not value for read, value in watched)):
            made, watched = {}, scalar.watch()
        # All have one dtype; only for float64 is a Python number left as it is.
        first = inputs[0] if inputs[0].__class__ is not float else np.float64()
        key = (xp is np, first.dtype)
        run = made.get(key)
        try:
            if run is None:
                run = made[key] = _compile(scalar, pick, *key)
            return run(*inputs)
        except ScalarError as error:
            raise OptionError(str(error)) from None

    return forward


def _compile(scalar: ScalarFunction, pick: int | None, on_cpu: bool, dtype: Any) -> Any:
    package = missing_for_cpu()
    if package:
        raise missing_dependency(package, "numba", f"gradlab.elementwise ({scalar.name})")
    compiled = compile_ufunc(scalar, dtype, pick)  # and finds out what the function returns
    if on_cpu:
        return compiled.ufunc
    reason = missing_for_cuda()
    if reason:
        raise MissingDependencyError(f"gradlab.elementwise ({scalar.name}) on CUDA: {reason}")
    return DeviceFunction(scalar, dtype, compiled.dtype, compiled.pick)


@overload
def elementwise(function: Callable[..., Any], /) -> Elementwise: ...


@overload
def elementwise(
    *, gradient: Callable[..., Any] | None = None, samples: Samples | None = None
) -> Callable[[Callable[..., Any]], Elementwise]: ...


def elementwise(
    function: Callable[..., Any] | None = None,
    /,
    *,
    gradient: Callable[..., Any] | None = None,
    samples: Samples | None = None,
) -> Any:
    """Make an op of a Python function of numbers; used as a decorator.

    Numba compiles the function when the op is first called on a dtype and device: to a ufunc for
    the CPU, to a CUDA kernel for a GPU. It may use arithmetic, comparisons, conditions, loops, the
    module math, and numbers from around it; where one of those has changed, the function is
    compiled again. Python numbers in it take the dtype of the inputs. What is compiled is the
    function as it was imported, whatever its file says by now.

    The op broadcasts its inputs. Its result has their promoted dtype, integers becoming the default
    floating dtype, as in `div`; or it is bool where the function returns a bool. float16 and
    bfloat16 are computed in float32.

    The gradient is a second function, given with ``@op.gradient`` or as ``gradient=``. Without one,
    asking for a gradient raises `GradientError`. ``samples`` is a function that yields
    `gradlab.ops.samples.Sample`, for `gradlab.testing.check_op`.

    Needs Numba, and numba-cuda for a GPU: the extra ``numba``. Raises `OptionError` where Numba
    cannot compile the function.

    >>> import math
    >>> import gradlab as gl
    >>> @gl.elementwise
    ... def swish(x, beta=1.0):
    ...     return x / (1 + math.exp(-beta * x))
    >>> @swish.gradient
    ... def swish_gradient(gy, x, beta):
    ...     s = 1 / (1 + math.exp(-beta * x))
    ...     slope = x * s * (1 - s)
    ...     return gy * (s + beta * slope), gy * x * slope
    >>> x = gl.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> swish(x)
    tensor([-0.2689,  0.0000,  1.7616], grad_fn=<SwishBackward0>)
    >>> swish(x, 2.0).sum().backward()
    >>> x.grad
    tensor([-0.0908,  0.5000,  1.0527])
    """

    def make(function: Callable[..., Any]) -> Elementwise:
        made = Elementwise(function, samples=samples)
        if gradient is not None:
            made.gradient(gradient)
        return made

    return make if function is None else make(function)
