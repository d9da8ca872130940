"""What a figure depends on: the processor and the versions. No host name, no path."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int) -> None:
    """Give every library the same number of threads; to be called before NumPy is imported."""
    if "numpy" in sys.modules:
        raise RuntimeError("set_threads: NumPy is loaded already, and has started its threads")
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def processor() -> str:
    """The name of the processor's model."""
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", lines.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    if sys.platform == "darwin":
        import subprocess

        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def blas() -> str:
    """The library behind NumPy's products, and its version."""
    import numpy as np

    found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']}"


def versions(names: Sequence[str]) -> dict[str, str]:
    """The installed versions among ``names``."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(threads: int) -> dict[str, object]:
    """The machine and the versions, for the results file."""
    import gradlab

    return {
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gradlab": gradlab.__version__,
        "blas": blas(),
        **versions(["numpy", "torch", "jax"]),
    }
