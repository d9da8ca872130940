"""The figures as a table: for the terminal, and for the README.

`python -m benchmarks.table` prints the README's table of the newest results;
`python -m benchmarks.table --into README.md` writes it between the two markers there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.case import TITLES
from benchmarks.race import RESULTS, Result, load

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def time(seconds: float) -> str:
    """Seconds in the unit that suits them, with three figures."""
    size, unit = next((each for each in UNITS if abs(seconds) >= each[0] * 0.9995), UNITS[-1])
    value = seconds / size
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def ratio(value: float) -> str:
    return f"{value:.3g}×"


def figure(result: Result) -> str:
    """What the case comes down to: a ratio, a difference, or a time."""
    if result.figure is None:
        return ""
    if result.unit == "seconds":
        return time(result.figure)
    if result.unit == "over":
        return f"+{result.figure * 1e6:.2f} µs over {TITLES[result.against]}"
    return f"{ratio(result.figure)} {TITLES[result.against]}"


def limit(result: Result) -> str:
    if result.target is None:
        return ""
    value = result.target.limit
    if result.unit == "seconds":
        return f"≤ {value:g} s"
    return f"≤ {value * 1e6:.1f} µs" if result.unit == "over" else f"≤ {value:g}×"


def met(result: Result) -> str:
    if result.target is None:
        return ""
    return {True: "yes", False: "NO", None: "not measured"}[result.met]


def rows(results: list[Result]) -> list[list[str]]:
    """The cells of the table, headings first; peers that were not there have no column."""
    peers = [name for name in TITLES if any(name in result.seconds for result in results)]
    found = [["case", *(TITLES[peer] for peer in peers), "ratio", "target", "met?"]]
    for result in results:
        seconds = {peer: time(each.median) for peer, each in result.seconds.items()}
        times = [seconds.get(peer, "") for peer in peers]
        found.append([result.title, *times, figure(result), limit(result), met(result)])
    return found


def plain(cells: list[list[str]]) -> str:
    """The table for a terminal: numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def markdown(cells: list[list[str]]) -> str:
    rule = ["---", *["--:"] * (len(cells[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]])


def machine_line(machine: dict[str, Any]) -> str:
    """The machine and the versions in a sentence."""
    libraries = [
        f"{title} {machine[name]}"
        for name, title in (("python", "Python"), ("numpy", "NumPy"), ("torch", "PyTorch"),
                            ("jax", "JAX"))
        if name in machine
    ]  # fmt: skip
    libraries.insert(2, machine["blas"])
    threads = machine["threads"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {threads} "
        f"thread{'' if threads == 1 else 's'} each; {', '.join(libraries)}."
    )


def warning(results: list[Result]) -> str:
    """Names the cases whose figures are not to be relied on; "" if there are none."""
    noisy = [result.name for result in results if result.noisy]
    if not noisy:
        return ""
    return (
        "The machine was too busy: even the fastest turns of these cases differ by more than 20 %. "
        f"Run them again: {', '.join(noisy)}"
    )


CAVEAT = (
    "PyTorch's times of training steps and programs are too long: OpenBLAS's threads keep "
    "spinning after gradlab's turn, and take a core from PyTorch's."
)


def fair(results: list[Result]) -> list[Result]:
    """The results without the times of PyTorch that gradlab's turns have lengthened."""
    from benchmarks.suites import all_cases

    slowed = {case.name for case in all_cases() if case.slows_pytorch}
    return [
        replace(
            result,
            seconds={peer: each for peer, each in result.seconds.items() if peer != "pytorch"},
            target=None,
        )
        if result.name in slowed
        else result
        for result in results
    ]


def readme_table(path: Path) -> str:
    """The README's table of a results file, and the line that says how to reproduce it."""
    results, machine, date = load(path)
    results = fair(results)
    note = (
        f"Measured by `make bench` on {date}: {machine_line(machine)} The libraries take turns in "
        "one process; a time is the median of the fastest tenth of the turns."
    )
    return f"{markdown(rows(results))}\n\n{note}"


def between(text: str, table: str, markers: tuple[str, str]) -> str:
    """``text`` with ``table`` between two markers."""
    first, last = markers
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"expected a line {first} and after it a line {last}, got none")
    return f"{before}{first}\n{table}\n{last}{after}"


def rewrite(text: str, table: str) -> str:
    """``text`` with ``table`` between its two markers."""
    return between(text, table, (START, END))


def newest(folder: Path = RESULTS) -> Path:
    """The results file with the latest date, and among those the one with the most threads."""

    def age(path: Path) -> tuple[str, int]:
        _, machine, date = load(path)
        return date, machine["threads"]

    files = sorted(each for each in folder.glob("*.json") if not each.name.startswith("gpu-"))
    if not files:
        raise SystemExit("benchmarks.table: there are no results yet; run make bench")
    return max(files, key=age)


def main(arguments: list[str] | None = None) -> None:
    given = options("benchmarks.table", __doc__, "a file of benchmarks/results", arguments)
    show("benchmarks.table", readme_table(given.results or newest()), given.into, rewrite)


def options(
    module: str, doc: str | None, results: str, arguments: list[str] | None
) -> argparse.Namespace:
    """The options of a command that makes the README's table of a file of results."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=doc)
    parser.add_argument("results", nargs="?", type=Path, help=results)
    parser.add_argument("--into", type=Path, metavar="README.md", help="write between its markers")
    return parser.parse_args(arguments)


def show(module: str, table: str, into: Path | None, rewritten: Callable[[str, str], str]) -> None:
    """Print a table, or write it between its markers in a file."""
    if into is None:
        print(table)
        return
    try:
        text = rewritten(into.read_text(encoding="utf-8"), table)
    except ValueError as error:
        raise SystemExit(f"{module}: {into}: {error}") from None
    into.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
