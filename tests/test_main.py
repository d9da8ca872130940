"""``python -m gradlab`` says what is installed and works, at once and without the network."""

import io
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab import __main__ as command
from gradlab._environment import pip_install
from gradlab.backends.probe import CudaDevice, CudaProbe

ROOT = Path(__file__).parents[1]

NO_GPU = CudaProbe(False, "this machine has no NVIDIA GPU", "use device='cpu'")
GPU = CudaDevice(0, "NVIDIA H200", 141 << 30, (9, 0))
TWO_GPUS = CudaProbe(
    available=True,
    driver_version=(13, 0),
    driver_release="580.65.06",
    cupy_version="14.2.0",
    runtime_version=(12, 9),
    devices=[GPU, CudaDevice(1, "NVIDIA A100", 40 << 30, (8, 0))],
)
NO_CUPY = CudaProbe(
    False,
    "CuPy is not installed",
    pip_install("cuda13"),
    driver_version=(13, 0),
    devices=[GPU],
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gradlab", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def installed(monkeypatch):
    """Puts another machine in place of this one."""

    def install(probe=NO_GPU, packages=None, cupy=None, kernels=()):
        versions = {"numpy": "2.4.6"} if packages is None else packages
        monkeypatch.setattr(command, "probe_cuda", lambda: probe)
        monkeypatch.setattr(command, "cupy_packages", lambda: dict(cupy or {}))
        monkeypatch.setattr(command, "_version", versions.get)
        monkeypatch.setattr(command, "_kernels", lambda: list(kernels))
        return command.as_text(command.report()).splitlines()

    return install


def test_text():
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"gradlab {gradlab.__version__}"
    assert {"Devices", "Kernels"} < set(lines)
    assert any(line.split()[:2] == ["numpy", np.__version__] for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_json_is_the_same_report():
    done = run("--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    # Other tests of this process may have loaded a second BLAS or registered kernels.
    for part in ("gradlab", "python", "packages", "devices", "missing"):
        assert found[part] == json.loads(json.dumps(command.report()[part]))
    assert found["blas"]["name"]
    assert isinstance(found["kernels"], list)
    assert found["packages"]["numpy"] == np.__version__
    assert found["devices"]["cpu"]["cores"] >= found["devices"]["cpu"]["usable_cores"] >= 1
    assert {each["name"] for each in found["missing"]} == {
        name for name, version in found["packages"].items() if version is None
    }


def test_a_reader_that_has_read_enough():
    run = [sys.executable, "-m", "gradlab"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("stream", ["none", "ascii"])
def test_a_missing_output_and_one_of_few_characters(stream, monkeypatch):
    raw = io.BytesIO()
    output = None if stream == "none" else io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(command, "_cpu_model", lambda: "Core\u2122 i7")
    assert command.main([]) == 0
    assert stream == "none" or b"Core\\u2122 i7" in raw.getvalue()


def test_an_unknown_option_is_refused():
    done = run("--jsn")
    assert done.returncode == 2
    assert "unrecognized arguments: --jsn" in done.stderr


def test_it_loads_nothing_heavy_and_opens_no_connection():
    code = """
import socket, sys
def refuse(*_): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
from gradlab.__main__ import main
assert main([]) == 0
heavy = {"matplotlib", "numba", "pandas", "safetensors", "sklearn", "torch", "tqdm"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.perf_counter() - started < 5  # 0.3 s where nothing else runs


def test_without_a_gpu(installed):
    lines = installed()
    assert "  cuda  not available: this machine has no NVIDIA GPU" in lines
    assert "        what to do: use device='cpu'" in lines
    assert "  cupy          not installed" in lines
    assert lines[-1].startswith("  cupy ")
    lines_for = f"  {pip_install('cuda12')}, or with a newer driver {pip_install('cuda13')}"
    assert lines[-1].endswith(lines_for)


def test_with_gpus(installed):
    lines = installed(TWO_GPUS, cupy={"cupy-cuda12x": "14.2.0"})
    start = lines.index("Devices")
    assert lines[start + 2 : start + 5] == [
        "  cuda:0  NVIDIA H200, 141 GiB, compute capability 9.0",
        "  cuda:1  NVIDIA A100, 40 GiB, compute capability 8.0",
        "  cuda    driver 580.65.06, supports CUDA 13.0 and older; CuPy runs on CUDA 12.9",
    ]
    assert "  cupy-cuda12x  14.2.0" in lines
    assert not any("not available" in line for line in lines)


def test_a_gpu_without_cupy_gets_the_line_that_fits_it(installed):
    lines = installed(NO_CUPY)
    assert "  cuda    not available: CuPy is not installed" in lines
    assert lines[-1].startswith("  cupy ")
    assert lines[-1].endswith(f"  {pip_install('cuda13')}")


def test_what_is_missing_comes_with_its_purpose_and_its_line(installed):
    lines = installed(packages={"numpy": "2.4.6", "pandas": "3.1.1"})
    missing = {line.split()[0]: line for line in lines[lines.index("Not installed") + 1 :]}
    assert missing.keys() == {
        *(
            "scipy",
            "ml_dtypes",
            "safetensors",
            "tqdm",
            "numba",
            "scikit-learn",
            "matplotlib",
            "cupy",
        )
    }
    assert "needed for the handwritten digits" in missing["scikit-learn"]
    assert missing["scikit-learn"].endswith(f"  {pip_install('data', 'scikit-learn')}")


def test_nothing_missing_has_no_section(installed):
    versions = {package.name: "1.0" for package in command.PACKAGES}
    assert "Not installed" not in installed(TWO_GPUS, versions, {"cupy-cuda13x": "14.2.0"})


def test_kernels(installed):
    lines = installed()
    start = lines.index("Kernels")
    assert lines[start + 1 : start + 3] == [
        "  cpu   none in this version; every op runs as plain NumPy",
        "  cuda  none in this version; every op runs as plain CuPy",
    ]
    table = [
        {"op": "softmax", "device": "cuda", "kernel": "softmax"},
        {"op": "log_softmax_backward", "device": "cuda", "kernel": "softmax"},
        {"op": "log_softmax", "device": "cuda", "kernel": "softmax"},
        {"op": "sum", "device": "cuda", "kernel": "reduction"},
    ]
    lines = installed(kernels=table)
    assert [line.split() for line in lines[start + 2 : start + 4]] == [
        ["cuda", "softmax", "softmax,", "log_softmax"],
        ["reduction", "sum"],
    ]


def test_kernels_of_every_family_are_listed():
    assert {row["kernel"] for row in command._kernels()} >= {"matmul", "normalization", "update"}


def test_fewer_cores_than_the_machine_has(installed, monkeypatch):
    cpu = {"available": True, "model": "Some CPU", "cores": 16, "usable_cores": 4}
    monkeypatch.setattr(command, "_cpu", lambda: cpu)
    assert "  cpu   Some CPU, 4 of 16 logical cores usable" in installed()


def test_unknown_thread_count(installed, monkeypatch):
    monkeypatch.setattr(command, "_blas_threads", lambda: None)
    assert any(line.endswith(", threads unknown") for line in installed())


def test_the_packages_are_those_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    for package in command.PACKAGES:
        assert any(each.startswith(f"{package.name}>=") for each in extras[package.extra])
    assert {package.name for package in command.PACKAGES if not package.extra} == {
        requirement.split(">")[0] for requirement in project["dependencies"]
    }


def test_another_gradlab_is_named(installed):
    versions = {"numpy": "2.4.6", "gradlab-arrays": "0.1.0", "gradlab": "0.2.2"}
    lines = installed(packages=versions)
    start = lines.index("Another gradlab")
    assert lines[start + 1 : start + 3] == [
        "  gradlab 0.2.2  another distribution, which `import gradlab` may find instead",
        "                 what to do: pip uninstall -y gradlab",
    ]
    assert "Another gradlab" not in installed(packages={"gradlab-arrays": "0.1.0"})
