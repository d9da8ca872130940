"""``python -m gradlab``: what is installed, which devices work, and what to do where one does not.

The report is gathered once, as plain data (`report`), and then written as text or as JSON.
Versions come from the packages' metadata: importing pandas and the like would take seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module, metadata, util
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gradlab
from gradlab import ops
from gradlab._environment import DISTRIBUTION, STRANGER, pip_install
from gradlab.backends.probe import CUPY_PACKAGES, CudaProbe, cupy_packages, probe_cuda
from gradlab.console import writable
from gradlab.ops import core

Rows = list[tuple[str, ...]]


class Package(NamedTuple):
    """A package that gradlab uses: its name, what needs it, and the extra that lists it."""

    name: str
    needed_for: str
    extra: str = ""


PACKAGES = (
    Package("numpy", "everything"),
    Package("scipy", "erf, some initializers"),
    Package("ml_dtypes", "bfloat16"),
    Package("safetensors", "save, load and checkpoints"),
    Package("tqdm", "the Trainer's progress bar"),
    Package("numba", "gradlab.elementwise, kernels in Python", "numba"),
    Package("pandas", "CSV files and data frames", "data"),
    Package("scikit-learn", "the handwritten digits", "data"),
    Package("matplotlib", "plots", "viz"),
)
CUPY = Package("cupy", "device='cuda' (an NVIDIA GPU)")


def report() -> dict[str, Any]:
    """Return what ``python -m gradlab --json`` prints."""
    probe = probe_cuda()
    packages = {each.name: _version(each.name) for each in PACKAGES}
    # Named as installed (cupy-cuda12x, say), since the variant decides where it runs.
    packages.update(cupy_packages())
    if packages.keys().isdisjoint(CUPY_PACKAGES):
        packages[CUPY.name] = None
    return {
        "gradlab": gradlab.__version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "executable": sys.executable,
        },
        "packages": packages,
        "blas": _blas(),
        "devices": {"cpu": _cpu(), "cuda": _cuda(probe)},
        "kernels": _kernels(),
        "missing": [
            {"name": name, "needed_for": purpose, "install": _install(name, extra, probe)}
            for name, purpose, extra in (*PACKAGES, CUPY)
            if name in packages and packages[name] is None
        ],
        "another_gradlab": _stranger(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _install(name: str, extra: str, probe: CudaProbe) -> str:
    """The line that installs a package; CuPy's fits this machine where the driver has told."""
    if name != CUPY.name:
        return pip_install(extra, name)
    if probe.devices:
        return probe.remedy
    return f"{pip_install('cuda12')}, or with a newer driver {pip_install('cuda13')}"


def _stranger() -> str | None:
    """The version of another distribution that installs a `gradlab`; None if there is none."""
    version = _version(STRANGER)
    return version if _version(DISTRIBUTION) else None


def _blas() -> dict[str, Any]:
    """The library behind ``matmul`` on the CPU; ``threads`` is None where nothing can tell."""
    config: Any = np.show_config(mode="dicts")
    built_with = config.get("Build Dependencies", {}).get("blas", {})
    return {
        "name": built_with.get("name", "unknown"),
        "version": built_with.get("version", "unknown"),
        "threads": _blas_threads(),
    }


def _blas_threads() -> int | None:
    # scikit-learn brings threadpoolctl; NumPy itself has no way to ask.
    if util.find_spec("threadpoolctl") is None:
        return None
    pools = import_module("threadpoolctl").threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=None)


def _cpu() -> dict[str, Any]:
    total = os.cpu_count() or 1
    # A container or a batch system may leave this process fewer cores than there are.
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else total
    return {"available": True, "model": _cpu_model(), "cores": total, "usable_cores": usable}


def _cpu_model() -> str:
    if sys.platform == "linux":
        model = _first_value(Path("/proc/cpuinfo"), "model name")
    elif sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        model = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    else:
        model = platform.processor()
    return model or platform.machine()


def _first_value(path: Path, key: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _cuda(probe: CudaProbe) -> dict[str, Any]:
    found = asdict(probe) | {"count": probe.count}
    for key in ("driver_version", "runtime_version"):
        found[key] = _dotted(found[key])
    for device in found["devices"]:
        device["compute_capability"] = _dotted(device["compute_capability"])
    return found


def _dotted(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


def _kernels() -> list[dict[str, str]]:
    # Some families of ops are imported with the layers that use them.
    for module in pkgutil.iter_modules(ops.__path__, f"{ops.__name__}."):
        import_module(module.name)
    return core.kernels_table()


# The text


def as_text(found: dict[str, Any]) -> str:
    """Write a `report` as aligned plain text."""
    sections: dict[str, Rows] = {
        f"gradlab {found['gradlab']}": _version_rows(found),
        "Another gradlab": _stranger_rows(found["another_gradlab"]),
        "Devices": [*_cpu_rows(found["devices"]["cpu"]), *_cuda_rows(found["devices"]["cuda"])],
        "Kernels": _kernel_rows(found["kernels"]),
        "Not installed": [
            (each["name"], f"needed for {each['needed_for']}", each["install"])
            for each in found["missing"]
        ],
    }
    return "\n\n".join(_section(title, rows) for title, rows in sections.items() if rows)


def _section(title: str, rows: Rows) -> str:
    """A title and its rows, indented, with their columns aligned."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = [
        "".join(f"  {cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])


def _version_rows(found: dict[str, Any]) -> Rows:
    python = found["python"]
    blas = found["blas"]
    threads = "threads unknown" if blas["threads"] is None else f"{blas['threads']} threads"
    notes = {
        "python": f"{python['implementation']} on {python['platform']}",
        "numpy": f"BLAS: {blas['name']} {blas['version']}, {threads}",
    }
    versions = {"python": python["version"], **found["packages"]}
    return [
        (name, version or "not installed", notes.get(name, ""))
        for name, version in versions.items()
    ]


def _stranger_rows(version: str | None) -> Rows:
    if version is None:
        return []
    return [
        (f"{STRANGER} {version}", "another distribution, which `import gradlab` may find instead"),
        ("", f"what to do: pip uninstall -y {STRANGER}"),
    ]


def _cpu_rows(cpu: dict[str, Any]) -> Rows:
    cores = f"{cpu['cores']} logical cores"
    if cpu["usable_cores"] != cpu["cores"]:
        cores = f"{cpu['usable_cores']} of {cores} usable"
    return [("cpu", f"{cpu['model']}, {cores}")]


def _cuda_rows(cuda: dict[str, Any]) -> Rows:
    release = cuda["driver_release"]
    driver = f"driver {release}" if release else "driver"
    rows: Rows = [
        (
            f"cuda:{each['index']}",
            f"{each['name']}, {each['memory'] / 2**30:.0f} GiB, "
            f"compute capability {each['compute_capability']}",
        )
        for each in cuda["devices"]
    ]
    if cuda["driver_version"]:
        text = f"{driver}, supports CUDA {cuda['driver_version']} and older"
        if cuda["runtime_version"]:
            text += f"; CuPy runs on CUDA {cuda['runtime_version']}"
        rows.append(("cuda", text))
    if not cuda["available"]:
        rows.append(("cuda", f"not available: {cuda['reason']}"))
        rows.append(("", f"what to do: {cuda['remedy']}"))
    return rows


def _kernel_rows(kernels: list[dict[str, str]]) -> Rows:
    rows: Rows = []
    for device, plain in (("cpu", "NumPy"), ("cuda", "CuPy")):
        own = [row for row in kernels if row["device"] == device]
        if not own:
            rows.append((device, f"none in this version; every op runs as plain {plain}"))
        by_kernel: dict[str, list[str]] = {}
        for row in own:
            by_kernel.setdefault(row["kernel"], []).append(row["op"].removesuffix("_backward"))
        width = max(map(len, by_kernel), default=0)
        for name, names in by_kernel.items():
            rows.append((device, f"{name:{width}}  {', '.join(dict.fromkeys(names))}"))
            device = ""
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gradlab",
        description="Show what is installed, which devices work, and why one does not.",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    options = parser.parse_args(arguments)
    found = report()
    text = json.dumps(found, indent=2) if options.json else as_text(found)
    try:
        print(writable(text, sys.stdout), flush=True)
    except BrokenPipeError:  # whoever reads has read enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
