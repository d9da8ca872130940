"""`python -m benchmarks.gpu`: check and time everything on this machine's GPU, in one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu import table
from benchmarks.gpu.sections import SECTIONS, Record, Section

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
HUNG = -1000  # where a process's exit code would stand
COMMAND = (sys.executable, "-m", "benchmarks.gpu.sections")
LIMIT = 460.0  # seconds of a whole run
GRACE = 20.0  # beyond a section's time, for the piece it is in, and to start Python
RESTARTS = 6  # of a section whose process died


def run_section(section: Section, seconds: float, dry: bool) -> dict[str, Any]:
    """Run a section in processes of its own; whatever becomes of them, what was written counts."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shards = [
            _Shard(section, i, Path(folder) / f"{i}.jsonl", dry) for i in range(section.shards)
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

    def __init__(self, section: Section, index: int, out: Path, dry: bool) -> None:
        self.section, self.index, self.out, self.dry = section, index, out, dry
        self.crashes: list[dict[str, Any]] = []
        self.end = time.monotonic() + section.seconds
        self.process: Any = None
        self.first = 0
        self.done = False
        self.written, self.news = 0, 0.0  # bytes that the process has written, and when

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
            self.written, self.news = size, time.monotonic()
        return time.monotonic() - self.news > self.section.patience

    def stop(self) -> None:
        """End the process, where there is one, and all that it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _start(self, seconds: float) -> None:
        self.log = self.out.with_suffix(".log").open("wb")
        self.news = time.monotonic()
        arguments = [
            self.section.name, "--out", str(self.out), "--seconds", str(max(0.0, seconds)),
            "--first", str(self.first), "--shard", f"{self.index}/{self.section.shards}",
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
    code = (
        "import json; from benchmarks.gpu.machine import Machine; "
        f"print(json.dumps(Machine({dry}).describe()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = re.sub(r"^gradlab\.errors\.\w+: ", "", done.stderr.strip().splitlines()[-1])
        raise SystemExit(f"benchmarks.gpu: {said}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def file_name(machine: dict[str, Any]) -> str:
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', machine['gpu'].lower()).strip('-')}.json"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("-k", default="", metavar="TEXT", help="only sections with this in a name")
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"in all (default {LIMIT:g})")
    parser.add_argument("--out", type=Path, help="the results file (default benchmarks/results/…)")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator, without times")
    options = parser.parse_args(arguments)
    if not any(options.k in name for name in SECTIONS):
        parser.error(f"-k: expected a part of one of {', '.join(SECTIONS)}, got {options.k!r}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    start = time.monotonic()
    machine = describe(options.dry_run)
    print(f"{machine['gpu']}, Python {machine['python']}", flush=True)
    found: dict[str, Any] = {
        "kind": "gpu", "dry_run": options.dry_run, "date": date.today().isoformat(),
        "machine": machine, "sections": {},
    }  # fmt: skip
    out = options.out or (None if options.dry_run else RESULTS / file_name(machine))
    for name, section in SECTIONS.items():
        if options.k not in name:
            continue
        left = options.seconds - (time.monotonic() - start)
        done = run_section(section, min(section.seconds, left), options.dry_run)
        found["sections"][name] = done
        print(table.section_line(name, done), flush=True)
        if out is not None:  # after every section, so that nothing is lost
            table.add_shares(found)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table.add_shares(found)
    print()
    print(table.text(found))
    if out is not None:
        print(f"\nwritten to {out} after {time.monotonic() - start:.0f} s")
    return int(table.wrong(found))


if __name__ == "__main__":
    sys.exit(main())
