"""What a call costs beside the arithmetic: ops on 8 numbers, over NumPy's own call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Case, Step, Target

X = np.linspace(0.5, 1.5, 8, dtype=np.float32)
Y = np.linspace(1.0, 2.0, 8, dtype=np.float32)


class Elementwise(Case):
    """``operation(x, y, namespace)`` in each library; only x requires a gradient."""

    def __init__(
        self, name: str, title: str, operation: Callable[[Any, Any, Any], Step], grad: bool
    ) -> None:
        self.name = f"{name}_with_gradient" if grad else name
        self.title = f"{title} on 8 numbers" + (", recorded for backward" if grad else "")
        self.operation = operation
        self.grad = grad
        self.target = Target(2.5e-6 if grad else 1.0e-6, unit="over", against="numpy")

    def gradlab(self) -> Step:
        import gradlab as gl

        x = gl.tensor(X, requires_grad=self.grad)
        return self.operation(x, gl.tensor(Y), gl)

    def numpy(self) -> Step:
        return self.operation(X, Y, np)

    def pytorch(self) -> Step:
        import torch

        x = torch.tensor(X, requires_grad=self.grad)
        return self.operation(x, torch.tensor(Y), torch)


def _binary(x: Any, y: Any, xp: Any) -> Step:
    return lambda: x + y


def _scalar(x: Any, y: Any, xp: Any) -> Step:
    return lambda: x * 2.0


def _unary(name: str) -> Callable[[Any, Any, Any], Step]:
    def operation(x: Any, y: Any, xp: Any) -> Step:
        function = getattr(xp, name)
        return lambda: function(x)

    return operation


class Chain(Case):
    """Forward and backward of ten ops, one after another."""

    name = "chain"
    title = "forward and backward of a chain of 10 ops on 8 numbers"

    def gradlab(self) -> Step:
        import gradlab as gl

        return self.step_of(gl.tensor(X, requires_grad=True), gl.tensor(Y), gl)

    def pytorch(self) -> Step:
        import torch

        return self.step_of(torch.tensor(X, requires_grad=True), torch.tensor(Y), torch)

    def step_of(self, x: Any, y: Any, xp: Any) -> Step:
        def step() -> Any:
            x.grad = None
            z = ((x * y + 1.0).exp() - y).sqrt().tanh()
            ((z * z + x) * 0.5).sum().backward()
            return x.grad

        return step


CASES = [
    *(
        Elementwise(name, title, operation, grad)
        for grad in (False, True)
        for name, title, operation in (
            ("binary", "x + y", _binary),
            ("scalar", "x * 2.0", _scalar),
            ("unary", "sqrt(x)", _unary("sqrt")),
            # Not dispatch alone: gradlab's is the nearest float32, by two casts more than NumPy's.
            ("exp", "exp(x)", _unary("exp")),
        )
    ),
    Chain(),
]
