"""The example programs run as a user runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIGITS = [sys.executable, str(ROOT / "examples" / "digits_mlp.py")]

pytest.importorskip("sklearn", reason="the digits come with scikit-learn: the extra data")
pytest.importorskip("matplotlib", reason="the pictures need the extra viz")


def run(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [*DIGITS, "--out", str(folder), *options],
        capture_output=True, text=True, timeout=110, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def accuracy(text: str) -> float:
    return float(re.findall(r"validation accuracy: ([\d.]+)%", text)[-1])


def test_digits_reach_97_percent_and_leave_two_pictures(tmp_path: Path) -> None:
    text = run(tmp_path)
    assert accuracy(text) >= 97
    for name in ("learning_curve.png", "misclassified.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size > 5_000


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_a_checkpoint_and_the_next_run_goes_on(tmp_path: Path) -> None:
    options = ["--epochs", "400", "--hidden", "16", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*DIGITS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A job in the background ignores SIGINT, and so do the processes it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    while "epoch" not in process.stdout.readline():  # the first line of progress
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    stopped = re.search(r"Ctrl-C (in|after) epoch (\d+)", rest)
    assert stopped is not None, rest
    epochs = str(int(stopped[2]) + (stopped[1] == "after"))
    resumed = run(tmp_path, "--hidden", "16", "--epochs", epochs)
    assert "Traceback" not in resumed
    assert accuracy(resumed) > 30
