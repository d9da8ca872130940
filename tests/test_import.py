"""`import gradlab` is light, and says how it must be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Imported inside the function that needs them, never for a user who does not.
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
LAZY = ("cupy", "matplotlib", "numba", "pandas", "safetensors", "scipy", "sklearn", "torch", "tqdm")


def run_python(code: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter that treats warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)


def test_import_loads_no_heavy_library():
    code = f"import gradlab, sys; print(*sorted({set(LAZY)!r} & set(sys.modules)))"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [], "imported at the top of a module: move into the function"


def test_import_prints_nothing():
    result = run_python("import gradlab")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# Timed inside the child, where the cost of starting an interpreter does not count. NumPy comes
# first: gradlab's own part is what we can make fast, and NumPy's time says how slow the machine
# is at this moment.
IMPORT_SECONDS = """
from time import perf_counter
start = perf_counter()
import numpy
middle = perf_counter()
import gradlab
print(middle - start, perf_counter() - middle)
"""


def test_import_takes_less_than_a_quarter_of_a_second(tmp_path):
    # Python compiles a module once and keeps the result, unless this variable forbids it; what is
    # timed is every later import.
    environment = {key: value for key, value in os.environ.items() if key != NO_BYTECODE}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    runs = [run_python(IMPORT_SECONDS, env=environment) for _ in range(6)][1:]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    seconds = [[float(field) for field in run.stdout.split()] for run in runs]
    numpy = min(numpy for numpy, _ in seconds)
    gradlab = min(gradlab for _, gradlab in seconds)
    # NumPy alone takes about 0.12 s on an idle machine. On a slower or busier one, the quarter of
    # a second grows in proportion.
    limit = 0.25 * max(1.0, numpy / 0.12)
    assert numpy + gradlab < limit, (
        f"took {numpy + gradlab:.3f} s, of which NumPy {numpy:.3f} s; at most {limit:.3f} s. "
        "`python -X importtime -c 'import gradlab'` shows where it went"
    )


def test_kernels_are_part_of_the_package():
    result = run_python("import gradlab.kernels.cpu as cpu; print(cpu.__name__)")
    hint = 'gradlab is not installed in this environment: pip install -e ".[test]"'
    assert result.stdout == "gradlab.kernels.cpu\n", f"{hint}\n{result.stderr}"


def test_top_level_kernels_is_refused():
    result = run_python("import kernels", cwd=ROOT)
    last_line = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last_line.startswith("ImportError: this folder holds gradlab's kernels")
    assert "Write `import gradlab.kernels`" in last_line


def test_public_names_exist():
    import gradlab

    missing = [name for name in gradlab.__all__ if not hasattr(gradlab, name)]
    assert missing == []
    assert len(set(gradlab.__all__)) == len(gradlab.__all__)
