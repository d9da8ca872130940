"""The public API called with arguments that do not fit: one clear line each, and no call hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("hostile.py")
# Calls per target in a run of the tests. GRADLAB_HOSTILE=200 makes them thorough, for minutes.
CALLS = int(os.environ.get("GRADLAB_HOSTILE") or 10)
WORKERS = 4

pytest.importorskip("resource", reason="the workers limit their memory by it")


@pytest.mark.parametrize("part", range(WORKERS))
def test_hostile_calls(part, tmp_path):
    log = tmp_path / "last call"
    done = subprocess.run(
        [sys.executable, PROGRAM, str(part), str(WORKERS), "0", str(CALLS)],
        capture_output=True,
        text=True,
        timeout=100 * CALLS,
        check=False,
        env={**os.environ, "HOSTILE_LOG": str(log), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{log.read_text()}\n{done.stderr[-2000:]}"
    report = json.loads(done.stdout)
    assert report["calls"] > 100 * CALLS
    places = Counter((each["place"], each["error"]) for each in report["found"])
    shown = [each for each in report["found"] if places.pop((each["place"], each["error"]), 0)]
    assert shown == []
