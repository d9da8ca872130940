"""`python -m benchmarks.vectorization`: adding vectors element by element, and all at once.

``for i in range(n): c[i] = a[i] + b[i]`` against ``c = a + b``, over sizes, libraries and devices.
`--plot FILE` draws time against size; `pytest benchmarks/test_vectorization.py --benchmark-only`
gives the same cases to pytest-benchmark.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measure import batches, fastest_tenth, frozen, take_turns
from benchmarks.table import time as written

SIZES = (10, 100, 1000, 10_000, 100_000, 1_000_000)
# A loop of a million steps takes seconds; how the line goes on, four sizes tell.
LONGEST_LOOP = 10_000


@dataclass(frozen=True)
class Library:
    """A way to hold vectors: how they are made, and why it is not there."""

    name: str
    make: Callable[[list[float]], Any]
    missing: Callable[[], str] = lambda: ""
    wait: Callable[[], Any] | None = None  # for a device that works while Python goes on
    adds: bool = True  # whether `a + b` adds the elements

    def step(self, kind: str, size: int) -> Callable[[], Any]:
        """A function that adds two vectors of ``size`` and returns the sum, once it is there."""
        numbers = random.Random(0)
        a, b = (self.make([numbers.random() for _ in range(size)]) for _ in "ab")
        if kind == "vectorized":
            if self.wait is None:
                return lambda: a + b
            return lambda: (a + b, self.wait())[0]
        c, wait = self.make([0.0] * size), self.wait

        def loop() -> Any:
            for i in range(size):
                c[i] = a[i] + b[i]
            if wait is not None:
                wait()
            return c

        return loop


@dataclass(frozen=True)
class Case:
    """One line of the figure at one size."""

    library: Library
    kind: str  # "loop" or "vectorized"
    size: int

    @property
    def name(self) -> str:
        return f"{self.library.name}, {self.kind}, {self.size}"

    def step(self) -> Callable[[], Any]:
        return self.library.step(self.kind, self.size)


def _numpy(values: list[float]) -> Any:
    import numpy as np

    return np.array(values, dtype=np.float32)


def _gradlab(values: list[float], device: str) -> Any:
    import gradlab as gl

    return gl.tensor(values, device=device)


def _torch(values: list[float]) -> Any:
    import torch

    return torch.tensor(values)


def _synchronize() -> None:
    import gradlab as gl

    gl.synchronize("cuda")


def _no_cuda() -> str:
    import gradlab as gl
    from gradlab.errors import DeviceError

    try:
        gl.zeros(1, device="cuda")
    except DeviceError as error:
        return str(error)
    return ""


LIBRARIES = [
    Library("Python lists", list, adds=False),
    Library("NumPy", _numpy),
    Library("PyTorch", _torch, lambda: "" if find_spec("torch") else "PyTorch is not installed"),
    Library("gradlab, cpu", partial(_gradlab, device="cpu")),
    Library("gradlab, cuda", partial(_gradlab, device="cuda"), _no_cuda, _synchronize),
]


def cases(libraries: list[Library], sizes: tuple[int, ...] = SIZES) -> list[Case]:
    """The loops up to `LONGEST_LOOP`, and the sums of whole vectors."""
    return [
        Case(library, kind, size)
        for size in sizes
        for library in libraries
        for kind in ("loop", "vectorized")
        if (size <= LONGEST_LOOP if kind == "loop" else library.adds)
    ]


def measure(found: list[Case], rounds: int, seconds: float) -> dict[Case, float]:
    """Seconds of each case: its median among the fastest tenth of its turns.

    The cases of one size take turns, as in `python -m benchmarks`.
    """
    result = {}
    for size in sorted({case.size for case in found}):
        of_size = {case.name: case for case in found if case.size == size}
        with frozen():
            timers = {name: batches(case.step(), seconds) for name, case in of_size.items()}
            taken = take_turns(timers, rounds, 0.0)
        for name, case in of_size.items():
            result[case] = fastest_tenth(each[name] for each in taken).median
    return result


def lines(result: dict[Case, float]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """For each library and kind the sizes and seconds."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for case, seconds in result.items():
        found.setdefault((case.library.name, case.kind), []).append((case.size, seconds))
    return found


def table(result: dict[Case, float]) -> str:
    """A row per library and kind, a column per size."""
    sizes = sorted({case.size for case in result})
    rows = [["", *[f"{size:,}" for size in sizes]]]
    for (library, kind), points in sorted(lines(result).items()):
        at = dict(points)
        rows.append([f"{library}, {kind}", *[written(at[n]) if n in at else "" for n in sizes]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def plot(result: dict[Case, float], path: Path) -> None:
    """Time against size on two logarithmic axes: a color per library, loops dashed."""
    from gradlab.viz.figure import finish, new_figure

    figure = new_figure("benchmarks.vectorization", 7.0, 4.2)
    axes = figure.add_subplot()
    names = [library.name for library in LIBRARIES]
    for (library, kind), points in lines(result).items():
        axes.loglog(
            *zip(*points, strict=True),
            color=f"C{names.index(library)}",
            linestyle="--" if kind == "loop" else "-",
            marker="o",
            markersize=3.5,
            label=f"{library}, {'element by element' if kind == 'loop' else 'a + b'}",
        )
    axes.set_xlabel("elements of each vector")
    axes.set_ylabel("seconds for one sum")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    # From the slowest to the fastest, as the lines lie above one another.
    order = sorted(range(len(labels)), key=lambda i: -handles[i].get_ydata()[0])
    axes.legend(
        [handles[i] for i in order], [labels[i] for i in order],
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8,
    )  # fmt: skip
    finish("benchmarks.vectorization", figure, path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.vectorization", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an .svg, .png or .pdf to write")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each (default 30)")
    parser.add_argument(
        "--seconds", type=float, default=0.004, help="length of a turn (default 0.004)"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="elements of the vectors"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    present = []
    for library in LIBRARIES:
        if why := library.missing():
            print(f"without {library.name}: {why}")
        else:
            present.append(library)
    result = measure(cases(present, tuple(options.sizes)), options.rounds, options.seconds)
    print(table(result))
    print(f"\n{machine.processor()}")
    if options.plot:
        plot(result, options.plot)
        print(f"written to {options.plot}")


if __name__ == "__main__":
    machine.set_threads(1)  # what is compared is one core at work
    main()
