"""`import gradlab` in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import ClassVar

from benchmarks.case import Case, Target
from benchmarks.measure import Round

# Heavy libraries that a user who does not need them must not wait for.
HEAVY = (
    "cupy",
    "matplotlib",
    "numba",
    "pandas",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "tqdm",
)

# Timed inside the interpreter, whose own start does not count.
TIMED = """
from time import perf_counter
start = perf_counter()
import {library}
print(perf_counter() - start)
"""

# What is loaded besides the standard library.
LOADED = """
import sys, gradlab
names = {name.partition(".")[0] for name in sys.modules}
print(*sorted(names - sys.stdlib_module_names - {"__main__", "gradlab"}))
"""

BYTECODE_VARIABLES = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


class ImportTime(Case):
    name = "import"
    title = "import in a fresh interpreter, NumPy included"
    target = Target(0.25, unit="seconds")
    rounds = 12

    modules: ClassVar = {"gradlab": "gradlab", "numpy": "numpy", "pytorch": "torch", "jax": "jax"}

    def __init__(self) -> None:
        self.bytecode = TemporaryDirectory(prefix="benchmarks-")

    def peers(self) -> Iterator[str]:
        return (peer for peer, module in self.modules.items() if find_spec(module))

    def round(self, peer: str, seconds: float) -> Round:
        code = TIMED.format(library=self.modules[peer])

        def run() -> float:
            return float(self.output_of(code))

        run()  # the first import compiles, and fills the file cache
        return run

    def agree(self, peers: list[str], steps: int = 3) -> None:
        """Hold instead that gradlab loads none of the heavy libraries."""
        heavy = set(self.output_of(LOADED).split()) & set(HEAVY)
        assert not heavy, f"import gradlab loads {', '.join(sorted(heavy))}"

    def output_of(self, code: str) -> str:
        # An installed library has its bytecode beside it; a checkout has none where the
        # environment forbids to write it, and would be compiled anew in every interpreter.
        environment = {k: v for k, v in os.environ.items() if k not in BYTECODE_VARIABLES}
        environment["PYTHONPYCACHEPREFIX"] = self.bytecode.name
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout


CASES = [ImportTime()]
