"""The kernels' tests that are marked `sanitized`, under AddressSanitizer and under the checker.

`sanitized` is AddressSanitizer with redzones between shared arrays, which has to be in the process
from its beginning. `checked` knows who wrote and read each byte of shared memory: it finds races
and what nobody wrote. Both find undefined behaviour of C++.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_emulator import build

KERNELS = Path(__file__).parents[1] / "kernels"


def environment(mode: str) -> dict[str, str]:
    if why := build.available():
        pytest.skip(why)
    if mode == "checked":
        return {"GRADLAB_EMULATOR_MODE": "checked"}
    try:
        return build.sanitized_environment()
    except build.EmulatorError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["sanitized", "checked"])
def test_kernels(mode):
    if build.MODE != "plain":
        pytest.skip("runs inside itself")
    # Output is not captured in there: a report of AddressSanitizer ends the process, and would be
    # lost with what was captured.
    command = [sys.executable, "-m", "pytest", str(KERNELS), "-m", "sanitized", "-x", "-q", "-s"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=300"]
    done = subprocess.run(
        command,
        env={**os.environ, **environment(mode)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-12000:]}"
    assert " passed" in done.stdout, done.stdout
