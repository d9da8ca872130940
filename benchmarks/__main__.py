"""`python -m benchmarks`: time gradlab beside its peers and print one table of ratios."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from benchmarks import machine


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "-k", default="", metavar="TEXT", help="only suites or cases with this in their name"
    )
    parser.add_argument(
        "--rounds", type=int, default=120, help="turns of each peer, at most (default 120)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.004, help="length of a turn (default 0.004)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=machine.cores(),
        help="for every library (default: all cores)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the results file (default benchmarks/results, for a full run)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    # Before the suites import NumPy, which starts its threads when it is loaded.
    machine.set_threads(options.threads)
    from benchmarks import race, table
    from benchmarks.suites import all_cases

    _give_pytorch(options.threads)
    cases = all_cases(options.k)
    if not cases:
        raise SystemExit(f"benchmarks: no suite or case has {options.k!r} in its name")
    results = race.race(cases, options.rounds, options.seconds, _tell)
    _tell("")
    described = machine.describe(options.threads)
    print(table.plain(table.rows(results)))
    print(f"\n{table.machine_line(described)}")
    if any(case.slows_pytorch for case in cases):
        print(table.CAVEAT)
    if table.warning(results):
        print(table.warning(results))
    folder = options.results or (None if options.k else race.RESULTS)
    if folder:
        print(f"written to {race.save(results, described, date.today().isoformat(), folder)}")


def _give_pytorch(threads: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def _tell(title: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{title}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
