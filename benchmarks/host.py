"""`python -m benchmarks.host`: what Python spends on CUDA calls, on a machine without a GPU.

A driver whose launches do nothing, on NumPy arrays, leaves what comes before a launch: dispatch,
the choice of kernel and geometry, allocation, the record for backward. CuPy's own share (some
microseconds per launch) and the GPU's are missing, and NumPy computes what CuPy would.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gradlab.kernels.cuda.driver import Properties

import gradlab as gl
from gradlab import nn
from gradlab.backends.cuda import use_driver


class NoDriver:
    """A GPU that takes no time."""

    untimed = "there is no GPU"
    xp = np
    array_type = np.ndarray
    launches = 0

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def device(self, index: int) -> Any:
        return contextlib.nullcontext()

    def to_device(self, array: np.ndarray, index: int) -> np.ndarray:
        return array.copy()

    def pointer(self, array: Any) -> int:
        return 1 << 20

    def properties(self) -> Properties:
        return Properties("none", (8, 0), 108, 163 << 10, 40 << 20)

    def launch(self, *args: Any) -> None:
        NoDriver.launches += 1


def seconds(call: Callable[[], Any], repeats: int = 200, rounds: int = 9) -> float:
    """The fastest round's time of one call."""
    found = []
    call()
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        found.append((time.perf_counter() - start) / repeats)
    return min(found)


def calls() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    x = gl.zeros(256, 784, device="cuda")
    labels = gl.zeros(256, dtype=gl.int64, device="cuda")
    model = nn.Sequential(nn.Linear(784, 256), nn.Linear(256, 10)).to("cuda")
    scores = gl.zeros(256, 10, device="cuda")
    weight, bias = model[0].weight.detach(), model[0].bias.detach()
    found: dict[str, Callable[[], Any]] = {
        "x.sum()": x.sum,
        "x.softmax(-1)": lambda: x.softmax(-1),
        "x @ w.T": lambda: x @ weight.T,
        "linear": lambda: nn.functional.linear(x, weight, bias),
        "cross_entropy": lambda: nn.functional.cross_entropy(scores, labels),
    }
    for name in ("SGD", "Adam"):
        optimizer = getattr(gl.optim, name)(model.parameters(), lr=0.1)
        model(x).sum().backward()
        found[f"{name}.step, 4 parameters"] = optimizer.step

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return found | {"training step, two linear layers, Adam": step}


def main() -> None:
    """Time everything and print a table."""
    use_driver(NoDriver())  # type: ignore[arg-type]
    for name, call in calls().items():
        call()
        before = NoDriver.launches
        call()
        launches = NoDriver.launches - before
        print(f"{name:40} {seconds(call) * 1e6:7.1f} µs  {launches} launches")


if __name__ == "__main__":
    main()
