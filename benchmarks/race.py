"""Running a case, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Target
from benchmarks.measure import Spread, fastest_tenth, frozen, take_turns

RESULTS = Path(__file__).parent / "results"
SWEEPS = 6


@dataclass(frozen=True)
class Result:
    """The figures of a case: per peer the seconds of a step, in the fastest tenth of its turns."""

    name: str
    title: str
    seconds: dict[str, Spread]
    against: str
    target: Target | None

    @property
    def noisy(self) -> bool:
        """Whether not even the fast turns agree."""
        return any(each.high > 1.2 * each.low for each in self.seconds.values())

    def ratio(self, peer: str) -> float:
        """gradlab's time over the peer's."""
        return self.seconds["gradlab"].median / self.seconds[peer].median

    @property
    def unit(self) -> str:
        return self.target.unit if self.target else "ratio"

    @property
    def figure(self) -> float | None:
        """What the case comes down to, in `unit`; None where the peer is not installed."""
        own = self.seconds["gradlab"].median
        if self.unit == "seconds":
            return own
        if self.against not in self.seconds:
            return None
        if self.unit == "over":
            return own - self.seconds[self.against].median
        return self.ratio(self.against)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or its peer is not installed."""
        if self.target is None or self.figure is None:
            return None
        return self.figure <= self.target.limit


def race(
    cases: list[Case], rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Result]:
    """Check that the peers do the same work, then time them in turns.

    The rounds of a case come in `SWEEPS` over all cases, so that the minutes in which a machine
    is slow do not fall on one of them.
    """
    timers = []
    for case in cases:
        tell(f"preparing: {case.title}")
        case.agree(list(case.peers()))
        timers.append({peer: case.round(peer, seconds) for peer in case.peers()})
    taken: list[list[dict[str, float]]] = [[] for _ in cases]
    with frozen():
        for sweep in range(SWEEPS):
            for case, of_peers, found in zip(cases, timers, taken, strict=True):
                tell(f"{sweep + 1}/{SWEEPS}: {case.title}")
                count = -(-min(rounds, case.rounds) // SWEEPS)
                found += take_turns(of_peers, count, case.rest)
    return [result(case, found) for case, found in zip(cases, taken, strict=True)]


def result(case: Case, taken: list[dict[str, float]]) -> Result:
    """Sum up the seconds of each peer in each round."""
    return Result(
        name=case.name,
        title=case.title,
        seconds={peer: fastest_tenth(each[peer] for each in taken) for peer in taken[0]},
        against=case.target.against if case.target else case.against,
        target=case.target,
    )


# ------------------------------------------------------------------------------- results file


def save(results: list[Result], machine: dict[str, Any], date: str, folder: Path) -> Path:
    """Write the figures to a file named after the machine; a newer run takes its place."""
    text = json.dumps(
        {"date": date, "machine": machine, "cases": [_as_json(result) for result in results]},
        indent=1,
    )
    name = f"{machine['processor']} {machine['threads']} of {machine['cores']} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
    path = folder / f"{slug.strip('-')}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_spreads_on_one_line(text) + "\n")
    return path


def load(path: Path) -> tuple[list[Result], dict[str, Any], str]:
    """Read what `save` wrote: the results, the machine, the date."""
    found = json.loads(path.read_text())
    return [_from_json(case) for case in found["cases"]], found["machine"], found["date"]


def _spreads_on_one_line(text: str) -> str:
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: " ".join(found[0].split()), text)


def _rounded(figures: dict[str, Spread]) -> dict[str, list[float]]:
    return {name: [float(f"{value:.3g}") for value in each] for name, each in figures.items()}


def _as_json(result: Result) -> dict[str, Any]:
    target = result.target
    return {
        "name": result.name,
        "title": result.title,
        "seconds": _rounded(result.seconds),
        "ratios": {peer: float(f"{result.ratio(peer):.3g}") for peer in [*result.seconds][1:]},
        "against": result.against,
        "target": target and {"limit": target.limit, "unit": target.unit},
        "figure": result.figure and float(f"{result.figure:.3g}"),
        "met": result.met,
        "noisy": result.noisy,
    }


def _from_json(case: dict[str, Any]) -> Result:
    target = case["target"]
    return Result(
        name=case["name"],
        title=case["title"],
        seconds={name: Spread(*each) for name, each in case["seconds"].items()},
        against=case["against"],
        target=target and Target(target["limit"], target["unit"], case["against"]),
    )
