"""`python -m benchmarks.gpu`: check this machine's GPU, time it, or run compute-sanitizer on it."""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import benchmarks.gpu
from benchmarks.gpu import table
from benchmarks.gpu.cases import FAMILIES
from benchmarks.gpu.sections import PARTS, SECTIONS, Record, Section, names

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
HUNG = -1000  # where a process's exit code would stand
COMMAND = (sys.executable, "-m", "benchmarks.gpu.sections")
LIMIT = 540.0  # seconds of a whole run, imports and all
STARTING = 120.0  # seconds that a process may take to import what it needs from a cold disk
GRACE = 20.0  # beyond a section's time, for the piece it is in, and to start Python
RESTARTS = 6  # of a section whose process died


def run_section(section: Section, seconds: float, dry: bool, seed: int = 0) -> dict[str, Any]:
    """Run a section in processes of its own; whatever becomes of them, what was written counts."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shards = [
            _Shard(section, i, Path(folder) / f"{i}.jsonl", dry, seed)
            for i in range(section.shards)
        ]
        running = shards
        try:
            while running:
                left = seconds - (time.monotonic() - start)
                running = [shard for shard in running if shard.alive(left)]
                time.sleep(0.05)
        finally:  # Ctrl-C does not reach processes of another session
            for shard in shards:
                shard.stop()
        records = [record for shard in shards for record in shard.records()]
    return {
        "seconds": time.monotonic() - start,
        "records": sorted((r for r in records if "title" in r), key=lambda r: r["number"]),
        "left_out": sum(r.get("left_out", 0) for r in records),
        "crashes": [crash for shard in shards for crash in shard.crashes],
    }


class _Shard:
    """One process of a section, started again behind the piece that took it down."""

    def __init__(self, section: Section, index: int, out: Path, dry: bool, seed: int) -> None:
        self.section, self.index, self.out, self.dry = section, index, out, dry
        self.seed = seed
        self.crashes: list[dict[str, Any]] = []
        self.end = time.monotonic() + section.seconds
        self.process: Any = None
        self.first = 0
        self.done = False
        self.written, self.news = 0, 0.0  # bytes that the process has written, and when
        self.ready = False  # it has begun to write: what it imports is there

    def alive(self, seconds_left: float) -> bool:
        """Look after the process: start it, note how it ended; False when all is over."""
        if self.done:
            return False
        if self.process is None:
            self._start(seconds_left)
        elif self.process.poll() is not None:
            self._ended(self.process.returncode)
        elif seconds_left < -GRACE:
            self.stop()
            self._ended(None)
        elif self._hangs():
            self.stop()
            self._ended(HUNG)
        return not self.done

    def _hangs(self) -> bool:
        """Whether the piece in work has taken longer than any piece should."""
        size = self.out.stat().st_size if self.out.exists() else 0
        if size != self.written:
            self.written, self.news, self.ready = size, time.monotonic(), True
        patience = self.section.patience if self.ready else STARTING
        return time.monotonic() - self.news > patience

    def stop(self) -> None:
        """End the process, where there is one, and all that it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _start(self, seconds: float) -> None:
        self.log = self.out.with_suffix(".log").open("wb")
        self.news, self.ready = time.monotonic(), False
        arguments = [
            self.section.name, "--out", str(self.out), "--seconds", str(max(0.0, seconds)),
            "--first", str(self.first), "--shard", f"{self.index}/{self.section.shards}",
            "--seed", str(self.seed),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [*COMMAND, *arguments, *(["--dry-run"] if self.dry else [])], cwd=ROOT,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "GRADLAB_QUIET": "1"},
        )  # fmt: skip

    def _ended(self, code: int | None) -> None:
        self.log.close()
        lines = self._lines()
        begun = [line for line in lines if "begin" in line]
        finished = {line["title"] for line in lines if "title" in line}
        self.process = None
        if code == 0 or (code is None and not begun):
            self.done = True
            return
        text = self.out.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        where = begun[-1]["begin"] if begun and begun[-1]["begin"] not in finished else ""
        self.crashes.append({
            "during": where or (begun[-1]["begin"] if begun else "the start"),
            "exit_code": {None: "killed: out of time", HUNG: "killed: it hung"}.get(code, code),
            "said": text.strip().splitlines()[-8:],
        })  # fmt: skip
        if code is None or not begun or len(self.crashes) > RESTARTS:
            self.done = True
            return
        self.first = begun[-1]["number"] + 1

    def _lines(self) -> list[Record]:
        if not self.out.exists():
            return []
        found = []
        for line in self.out.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the process died while writing it
                continue
        return found

    def records(self) -> list[Record]:
        lines = self._lines()
        numbers = {line["begin"]: line["number"] for line in lines if "begin" in line}
        return [
            {**line, "number": numbers[line["title"]]} if "title" in line else line
            for line in lines
            if "begin" not in line
        ]


def describe(dry: bool) -> dict[str, Any]:
    """The machine; asked in another process, since this one is to stay away from the GPU."""
    found: dict[str, Any] = _asked(f"Machine({dry}).describe()")
    return found


def bring(cubins: Path) -> str:
    """Put machine code that was compiled elsewhere into this machine's cache; say what came."""
    try:
        modules, missing, of_cupy = _asked(f"Machine().bring({str(cubins)!r})")
    except SystemExit as error:  # then it is compiled here
        return f"{error}; not used"
    left = f", {missing} are missing" if missing else ""
    return f"{modules} modules of {cubins} are in the cache{left}, and {of_cupy} kernels of CuPy's"


def _asked(expression: str) -> Any:
    code = (
        f"import json; from benchmarks.gpu.machine import Machine; print(json.dumps({expression}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = re.sub(r"^[\w.]+(Error|Exception): ", "", done.stderr.strip().splitlines()[-1])
        raise SystemExit(f"benchmarks.gpu: {said}")
    return json.loads(done.stdout.splitlines()[-1])


def warm_up() -> str:
    """Import the large libraries once, so that no section waits for a cold disk; say how long."""
    parts = []
    for name in ("cupy", "torch", "triton"):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, check=False
        )
        seconds = time.monotonic() - start
        parts.append(f"{name} {seconds:.1f} s" if done.returncode == 0 else f"no {name}")
    return f"imports: {', '.join(parts)}"


def file_name(machine: dict[str, Any], parts: Sequence[str] = ("time",)) -> str:
    """The name of the results file; that of times is the machine's alone."""
    gpu = re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
    return f"gpu-{gpu}{'' if 'time' in parts else '-' + '-'.join(parts)}.json"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for part, text in (("check", "is everything right (the default)"), ("time", "how fast"),
                       ("sanitize", "compute-sanitizer")):  # fmt: skip
        parser.add_argument(
            f"--{part}", nargs="*", metavar="SECTION",
            help=f"{text}: {', '.join(names(part))}, or those named",
        )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"in all (default {LIMIT:g})")
    parser.add_argument(
        "--out", type=Path, help="a folder, or a file ending in .json, for the results"
    )
    parser.add_argument("--cubins", type=Path, help="machine code that `make cubins` has compiled")
    parser.add_argument("--seed", type=int, help="of the random inputs (default: any)")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator, without times")
    options = parser.parse_args(arguments)
    if all(getattr(options, part) is None for part in PARTS):
        options.check = []
    options.sections = _chosen(parser, options)
    if options.seed is None:
        options.seed = secrets.randbits(31)
    return options


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The sections to run, in their order; the ceilings come with what is measured against them."""
    chosen: set[str] = set()
    for part in PARTS:
        named = getattr(options, part)
        if named is None:
            continue
        for name in named:
            if name not in names(part):
                parser.error(f"--{part}: expected names among {', '.join(names(part))}, got {name}")
        chosen |= set(named or names(part))
    if chosen & {*FAMILIES, "optimizers"}:
        chosen.add("ceilings")
    return [name for name in SECTIONS if name in chosen]


def out_file(out: Path | None, machine: dict[str, Any], sections: Sequence[str], dry: bool) -> Any:
    """Where the results go; None where nobody asked for those of a dry run."""
    if out is None and dry:
        return None
    parts = [part for part in PARTS if any(name in names(part) for name in sections)]
    if out is not None and out.suffix == ".json":
        return out
    return (out or RESULTS) / file_name(machine, parts)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    start = time.monotonic()
    if not options.dry_run:
        print(warm_up(), flush=True)
    machine = describe(options.dry_run)
    print(f"{machine['gpu']}, Python {machine['python']}, NVRTC {machine['nvrtc']}", flush=True)
    if options.cubins and not options.dry_run:
        print(bring(options.cubins), flush=True)
    found: dict[str, Any] = {
        "kind": "gpu", "dry_run": options.dry_run, "date": date.today().isoformat(),
        "seed": options.seed, "machine": machine, "sections": {},
    }  # fmt: skip
    out = out_file(options.out, machine, options.sections, options.dry_run)
    for name in options.sections:
        section = SECTIONS[name]
        if section.part != "check" and _check_failed(found):
            print(f"{name:14} left out: what was checked before is not right", flush=True)
            found.setdefault("left_out", []).append(name)
            continue
        left = options.seconds - (time.monotonic() - start)
        done = run_section(section, min(section.seconds, left), options.dry_run, options.seed)
        found["sections"][name] = done
        print(table.section_line(name, done), flush=True)
        _write(found, out)  # after every section, so that nothing is lost
    table.add_shares(found)
    _write(found, out)
    print()
    print(table.text(found))
    if out is not None:
        print(f"\nwritten to {out} after {time.monotonic() - start:.0f} s")
    return int(table.wrong(found))


def _check_failed(found: dict[str, Any]) -> bool:
    """Whether a section that checks is among those that ran, and is not right or not complete."""
    checked = {n: each for n, each in found["sections"].items() if SECTIONS[n].part == "check"}
    return bool(checked) and table.wrong({"sections": checked})


def _write(found: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    table.add_shares(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
