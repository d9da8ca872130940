"""An optimizer's step alone, on the parameters of an MLP 784-256-10 and gradients that stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Case, Step

SHAPES = ((256, 784), (256,), (10, 256), (10,))


class OptimizerStep(Case):
    def __init__(self, name: str, **options: Any) -> None:
        self.optimizer = name
        self.options = options
        self.name = f"optimizer_{name.lower()}"
        words = "".join(f", {key} {value}" for key, value in options.items() if key != "lr")
        self.title = f"optimizer step, {name}{words}, MLP 784-256-10"
        random = np.random.default_rng(0)
        self.values = [random.standard_normal(shape, dtype=np.float32) for shape in SHAPES]
        self.gradients = [random.standard_normal(shape, dtype=np.float32) for shape in SHAPES]

    def gradlab(self) -> Step:
        import gradlab as gl
        from gradlab import optim

        return self.step_of(gl, optim)

    def pytorch(self) -> Step:
        import torch
        from torch import optim

        return self.step_of(torch, optim)

    def step_of(self, library: Any, optim: Any) -> Step:
        parameters = [library.tensor(value, requires_grad=True) for value in self.values]
        for p, g in zip(parameters, self.gradients, strict=True):
            p.grad = library.tensor(g)
        optimizer = getattr(optim, self.optimizer)(parameters, **self.options)

        def step() -> Any:
            optimizer.step()
            return parameters[0]

        return step


CASES = [OptimizerStep("SGD", lr=1e-3, momentum=0.9), OptimizerStep("Adam", lr=1e-3)]
