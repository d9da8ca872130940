"""What a run on a GPU found, as tables; `python -m benchmarks.gpu.table --into README.md`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import FAMILIES, PEERS
from benchmarks.table import between, markdown, options, plain, show, time

RESULTS = Path(__file__).parents[1] / "results"
START, END = "<!-- gpu:start -->", "<!-- gpu:end -->"
COMMAND = "python -m benchmarks.gpu --time"
NOT_YET = "not yet measured on a GPU"
Found = dict[str, Any]


def add_shares(found: Found) -> None:
    """Note beside each time what share of the machine's ceiling it reaches, and the ratios."""
    copy, peaks = ceilings(found)
    for record in records(found):
        seconds = (record.get("seconds") or {}).get("gradlab")
        if not seconds or not is_checked(record):
            continue
        peak = peaks.get(record.get("dtype", ""))
        if record.get("ceiling") == "matmul" and peak:
            # What is small or skinny is limited by memory; the nearer of the two ceilings counts.
            floors = [record["flops"] / peak, *([record["bytes"] / copy] if copy else [])]
            record["share"] = max(floors) / seconds
        elif record.get("ceiling") == "copy" and copy:
            record["share"] = record["bytes"] / copy / seconds
        record["faster_than"] = {
            peer: other / seconds
            for peer, other in record["seconds"].items()
            if peer != "gradlab" and other and is_checked(record, peer)
        }


def is_checked(record: Found, peer: str = "gradlab") -> bool:
    """Whether a result was compared with float64 and right; without that there is no time."""
    return peer in (record.get("checked") or {}) and not record.get("failures")


def ceilings(found: Found) -> tuple[float | None, dict[str, float]]:
    """Bytes per second of a copy, and operations per second of a product, by dtype."""
    section = found["sections"].get("ceilings", {"records": []})
    by_title = {record["title"]: record for record in section["records"]}
    copy = by_title.get("copy", {}).get("bytes_per_second")
    peaks = {
        title.removeprefix("matmul "): record["flops_per_second"]
        for title, record in by_title.items()
        if record.get("flops_per_second")
    }
    return copy, peaks


def records(found: Found) -> Iterator[Found]:
    """The records of all sections."""
    for section in found["sections"].values():
        yield from section["records"]


def wrong(found: Found) -> bool:
    """Whether something failed: an op, a case, a process, a check of memory; or was left out for
    lack of time; or nothing of a section could be run at all."""
    sections = found["sections"].values()
    if any(each["crashes"] or each["left_out"] for each in sections):
        return True
    if not found.get("dry_run") and any(map(_ran_nothing, sections)):
        return True
    return any(
        record.get("failed") or record.get("failures") or record.get("clean") is False
        for record in records(found)
    )


def _ran_nothing(section: Found) -> bool:
    """Whether all of a section needs what is not there, as compute-sanitizer."""
    found = section["records"]
    return bool(found) and all("left_out_because" in record for record in found)


def section_line(name: str, section: Found) -> str:
    """A section in one line, as it ends."""
    bad = [r for r in section["records"] if r.get("failed") or r.get("failures")]
    absent = sum("left_out_because" in record for record in section["records"])
    parts = [f"{len(section['records']) - absent} done"]
    parts += [f"{len(bad)} with failures"] if bad else []
    parts += [f"{absent} need what is not here"] if absent else []
    parts += [f"{section['left_out']} left out for lack of time"] if section["left_out"] else []
    parts += [f"{len(section['crashes'])} crashes"] if section["crashes"] else []
    return f"{name:14} {section['seconds']:6.1f} s  {', '.join(parts)}"


def met(record: Found, target: Found) -> bool | None:
    """Whether a target is met; None where it could not be measured, or was not checked."""
    if not is_checked(record):
        return None
    if target["share"] is not None:
        share = record.get("share")
        return None if share is None else share >= target["share"]
    peer, factor = target["faster_than"]
    ratio = record.get("faster_than", {}).get(peer)
    return None if ratio is None or not is_checked(record, peer) else ratio >= factor


def rows(found: Found, headline: bool | None = None) -> list[list[str]]:
    """The timed cases, one row each: all, the README's alone, or the others."""
    cells = [["case", "dtype", "gradlab", "rate", "of ceiling",
              *(f"vs {title}" for title in PEERS.values()), "target", "met?"]]  # fmt: skip
    for record in records(found):
        if "family_case" not in record or (headline not in (None, record["headline"])):
            continue
        seconds = record["seconds"].get("gradlab") if is_checked(record) else None
        ratios = record.get("faster_than", {})
        verdicts = [met(record, target) for target in record["targets"]]
        cells.append([
            record["family_case"], record["dtype"],
            time(seconds) if seconds else _without_time(record),
            _rate(record, seconds), f"{record['share']:.0%}" if "share" in record else "",
            *(f"{ratios[peer]:.2f}×" if peer in ratios else "" for peer in PEERS),
            "; ".join(target["text"] for target in record["targets"]),
            "; ".join({True: "yes", False: "NO", None: "?"}[each] for each in verdicts)
            if any(each is not None for each in verdicts) else "",
        ])  # fmt: skip
    return cells


def _without_time(record: Found) -> str:
    if record["failures"]:
        return "WRONG" if record["failures"][0].startswith("wrong") else "failed"
    return "not timed" if is_checked(record) else "not checked"


def _rate(record: Found, seconds: float | None) -> str:
    if not seconds:
        return ""
    if record["ceiling"] == "matmul":
        return f"{record['flops'] / seconds / 1e12:.4g} TFLOP/s"
    return f"{record['bytes'] / seconds / 1e9:.4g} GB/s"


def wall_rows(found: Found) -> list[list[str]]:
    """Training steps, optimizers and calls, as a user waits for them."""
    cells = [["case", "gradlab", "CuPy", "PyTorch", "vs PyTorch"]]
    for record in records(found):
        seconds = record.get("wall_seconds")
        if not isinstance(seconds, dict) or not seconds.get("gradlab") or not is_checked(record):
            continue
        seconds = {peer: each for peer, each in seconds.items() if is_checked(record, peer)}
        own, other = seconds["gradlab"], seconds.get("pytorch")
        cells.append([
            record["title"],
            *(time(seconds[peer]) if seconds.get(peer) else "" for peer in
              ("gradlab", "cupy", "pytorch")),
            f"{other / own:.2f}×" if other else "",
        ])  # fmt: skip
    return cells


MOST = 10_500  # characters of the tables and of what failed; of the rest of the output, 12,000


def text(found: Found, most: int = MOST) -> str:
    """The tables of a run, for a terminal; what failed comes last, where it is not cut off.

    Of a long output often only the end is seen. So all is shortened to ``most`` characters:
    headlines come before other rows, and the file has everything.
    """
    copy, peaks = ceilings(found)
    problems = _shortened([*_absent(found), *_all_problems(found)], most // 2)
    head = f"ceilings: {_ceiling_text(copy, peaks)}" if copy or peaks else ""
    left = most - sum(len(line) + 1 for line in (head, *problems))
    tables: list[str] = []
    for cells in (wall_rows(found), rows(found, headline=True), rows(found, headline=False)):
        made = _fitted(cells, left)
        tables += made
        left -= sum(map(len, made))
    return "\n".join([*([head] if head else []), *tables, *([""] if problems else []), *problems])


def _fitted(cells: list[list[str]], most: int) -> list[str]:
    """A table of as many rows as ``most`` characters hold, and how many more there are."""
    if len(cells) < 2:
        return []
    full = [any(column) for column in zip(*cells[1:], strict=True)]
    cells = [[cell for cell, some in zip(row, full, strict=True) if some] for row in cells]
    kept = len(cells) - 1
    while kept > 0:
        lines = ["", plain(cells[: kept + 1])]
        if kept < len(cells) - 1:
            lines.append(f"and {len(cells) - 1 - kept} more rows in the file")
        if sum(len(line) + 1 for line in lines) <= most:
            return lines
        kept -= 1
    return [f"{len(cells) - 1} more rows in the file"]


def _shortened(lines: list[str], most: int) -> list[str]:
    found: list[str] = []
    for i, line in enumerate(lines):
        line = line if len(line) <= 240 else f"{line[:239]}…"
        most -= len(line) + 1
        if most < 0:
            return [*found, f"and {len(lines) - i} more problems in the file"]
        found.append(line)
    return found


def _absent(found: Found) -> Iterator[str]:
    """What was left out since something is not installed, a line for each reason."""
    for name, section in found["sections"].items():
        reasons = Counter(r["left_out_because"] for r in section["records"]
                          if "left_out_because" in r)  # fmt: skip
        for reason, count in reasons.items():
            yield f"{name}: {count} of {len(section['records'])} left out: {reason}"


def _all_problems(found: Found) -> Iterator[str]:
    for name, section in found["sections"].items():
        if section["left_out"]:
            yield f"{name}: {section['left_out']} left out for lack of time"
        for crash in section["crashes"]:
            said = crash["said"][-1] if crash["said"] else ""
            yield f"{name}: died during {crash['during']} ({crash['exit_code']}): {said}"
        for record in section["records"]:
            for problem in _problems(record):
                yield f"{name}, {record['title']}: {problem}"


def _problems(record: Found) -> list[str]:
    failures = record.get("failures") or []
    failed = [record["failed"]] if record.get("failed") else []
    unclean = record.get("said", [])[:10] if record.get("clean") is False else []
    return [*failed, *failures, *unclean]


def _ceiling_text(copy: float | None, peaks: dict[str, float]) -> str:
    parts = [f"copy {copy / 1e9:.0f} GB/s"] if copy else []
    parts += [f"{dtype} {flops / 1e12:.4g} TFLOP/s" for dtype, flops in peaks.items()]
    return ", ".join(parts)


def readme_table(path: Path | None) -> str:
    """The README's table of a results file; without one, the cases and that nothing is measured."""
    if path is None:
        cells = [["case", "dtype", "target", "measured"], *planned()]
        return f"{markdown(cells)}\n\n`{COMMAND}` measures these and many more; {NOT_YET}."
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["dry_run"]:
        raise ValueError(f"{path.name} is a dry run: it has no times")
    copy, peaks = ceilings(found)
    machine = found["machine"]
    cupy = machine.get("cupy-cuda13x") or machine.get("cupy-cuda12x")
    peers = [f"{title} {machine[name]}" for name, title in (("torch", "PyTorch"),
             ("triton", "Triton")) if name in machine]  # fmt: skip
    libraries = ", ".join([f"CuPy {cupy}", *peers])
    note = (
        f"Measured by `{COMMAND}` on {found['date']}: {machine['gpu']}, Python "
        f"{machine['python']}, {libraries}. "
        f"Ceilings measured in the same run: {_ceiling_text(copy, peaks)}. A time is "
        "the median of calls that take turns with the peers', between CUDA events, on inputs "
        "that the L2 does not hold; a ratio above 1 says that gradlab is faster. Every result "
        "was compared with float64 before, and only right ones are timed."
    )
    parts = [markdown(rows(found, headline=True))]
    if len(wall := wall_rows(found)) > 1:
        parts.append(markdown(wall))
    return "\n\n".join([*parts, note])


def planned() -> list[list[str]]:
    """The README's cases, before anything was measured."""
    from types import SimpleNamespace

    machine: Any = SimpleNamespace(dry=False, triton=None, torch=None, xp=None)
    return [
        [case.title, case.dtype, "; ".join(map(str, case.targets)), NOT_YET]
        for family in FAMILIES.values()
        for case in family(machine)
        if case.headline
    ]


def newest(folder: Path = RESULTS) -> Path | None:
    """The results with the latest date, dry runs left out; None where there are none."""
    found = [
        (contents["date"], path)
        for path in sorted(folder.glob("gpu-*.json"))
        if not (contents := json.loads(path.read_text(encoding="utf-8")))["dry_run"]
        and any("family_case" in record for record in records(contents))
    ]
    return max(found)[1] if found else None


def rewrite(text: str, table: str) -> str:
    """``text`` with ``table`` between its two markers."""
    return between(text, table, (START, END))


def main(arguments: list[str] | None = None) -> None:
    module = "benchmarks.gpu.table"
    given = options(module, __doc__, "a results file, gpu-….json", arguments)
    show(module, readme_table(given.results or newest()), given.into, rewrite)


if __name__ == "__main__":
    main()
