"""The public API called with arguments that do not fit: one clear line each, and no call hangs."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest

import gradlab as gl
import hostile
from gradlab.errors import GradlabError

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


OPERATORS = "add sub mul truediv floordiv mod pow and_ or_ xor lt le eq ne ge gt matmul iadd imul"


@pytest.mark.parametrize("name", OPERATORS.split())
def test_operators(name):
    """They have no door of their own: each gets one operand, of which an op makes a tensor."""
    compute = getattr(operator, name)
    found = {}
    for what, make in hostile.hostile().items():
        for x in (gl.ones(2, 3), gl.tensor([1, 2]), gl.tensor([True]), gl.tensor([1j])):
            for pair in ((make(), x.clone()), (x.clone(), make())):
                error = error_of(compute, *pair)
                if isinstance(error, GradlabError):
                    assert "\n" not in str(error)
                elif error is not None and came_from_gradlab(error):
                    found[what, x.dtype.name] = repr(error)
    assert found == {}


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    return None


def came_from_gradlab(error):
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).is_relative_to(gl.__path__[0]) for frame in frames)
