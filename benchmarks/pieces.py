"""Where the time of a training step goes: `python -m benchmarks.pieces mlp`.

Per step: the phases as the user writes them; what NumPy takes in each op; and the rest, which is
dispatch, graph and Python. All figures are first quartiles over the same
steps, for what disturbs a step only makes it longer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from itertools import pairwise
from statistics import quantiles
from typing import Any

from benchmarks import machine

PHASES = ("zero_grad", "forward", "loss", "backward", "step")


def phases(model: Any, loss_of: Any, optimizer: Any, x: Any, y: Any) -> list[float]:
    """Run a step and return the seconds of each phase."""
    clock = time.perf_counter
    marks = [clock()]
    optimizer.zero_grad()
    marks.append(clock())
    scores = model(x)
    marks.append(clock())
    loss = loss_of(scores, y)
    marks.append(clock())
    loss.backward()
    marks.append(clock())
    optimizer.step()
    marks.append(clock())
    return [end - start for start, end in pairwise(marks)]


class ArrayCalls:
    """Times each call of an array function: a stand-in for the context that ops run them in."""

    def __init__(self) -> None:
        from gradlab.autograd.modes import mode

        self.mode, self.quietly = mode, mode.quietly
        self.calls: list[tuple[Any, float]] = []

    def __enter__(self) -> ArrayCalls:
        self.mode.quietly = self.timed
        return self

    def __exit__(self, *exc: object) -> None:
        self.mode.quietly = self.quietly

    def timed(self, run: Any, *arrays: Any, **attributes: Any) -> Any:
        start = time.perf_counter()
        result = self.quietly(run, *arrays, **attributes)
        self.calls.append((run, time.perf_counter() - start))
        return result


def names_of_runs() -> dict[int, str]:
    """The op that each function in a dispatch table belongs to."""
    from gradlab.ops.core import REGISTRY

    ops = [*REGISTRY.values()]
    ops += [op.fused for op in ops if op.fused is not None]
    return {id(run): op.name for op in ops for run in op.table.values()}


def quartile(figures: Iterable[float]) -> float:
    return quantiles(figures, n=4)[0]


def report(name: str, steps: int) -> str:
    from benchmarks.suites.training_step import CASES

    case = next(case for case in CASES if case.name == name)
    parts = case.parts("gradlab")
    by_step, calls_by_step = [], []
    with ArrayCalls() as arrays:
        for _ in range(steps):
            arrays.calls = []
            by_step.append(phases(*parts))
            calls_by_step.append(arrays.calls)
    names = names_of_runs()
    calls: dict[str, list[float]] = {}
    for same_call in zip(*calls_by_step[steps // 10 :], strict=True):
        op = names.get(id(same_call[0][0]), "other")
        calls.setdefault(op, []).append(quartile(seconds for _, seconds in same_call))
    by_phase = [quartile(each) for each in zip(*by_step[steps // 10 :], strict=True)]
    whole, in_arrays = sum(by_phase), sum(map(sum, calls.values()))

    def line(seconds: float, text: str) -> str:
        return f"{seconds * 1e6:9.1f} µs {seconds / whole:4.0%}  {text}".rstrip()

    lines = [f"{case.title}", "", line(whole, "in all"), ""]
    lines += [line(seconds, phase) for phase, seconds in zip(PHASES, by_phase, strict=True)]
    lines += ["", line(in_arrays, "in array functions, of which")]
    for op, taken in sorted(calls.items(), key=lambda item: -sum(item[1])):
        each = " + ".join(f"{seconds * 1e6:.1f}" for seconds in taken) if len(taken) > 1 else ""
        lines.append(line(sum(taken), f"  {op}  {each}"))
    lines.append(line(whole - in_arrays, "in dispatch, graph and Python"))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.pieces", description=__doc__)
    parser.add_argument("case", nargs="?", default="linear_regression", help="or mlp")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=machine.cores())
    given = parser.parse_args(arguments)
    machine.set_threads(given.threads)
    print(report(given.case, given.steps))


if __name__ == "__main__":
    main()
