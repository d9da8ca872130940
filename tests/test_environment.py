"""Variables that are empty, and hints that work as they are printed."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gradlab import __main__ as report, _environment
from gradlab._environment import pip_install
from gradlab.data import FashionMNIST
from gradlab.errors import OptionError, missing_dependency
from packaging_tools import build_distribution, copy_source

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = [file for folder in ("gradlab", "kernels") for file in (ROOT / folder).rglob("*.py")]


# Variables


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    for value, found in ((None, "default"), ("", "default"), ("value", "value")):
        monkeypatch.delenv("GRADLAB_TEST", raising=False)
        if value is not None:
            monkeypatch.setenv("GRADLAB_TEST", value)
        assert _environment.variable("GRADLAB_TEST", "default") == found
    for value, found in (("", False), ("0", False), ("1", True), ("yes", True)):
        monkeypatch.setenv("GRADLAB_TEST", value)
        assert _environment.flag("GRADLAB_TEST") is found


# Empty, it hides all GPUs: the driver reads it, and the probe only repeats it.
READ_ELSEWHERE = {("gradlab/backends/probe.py", "CUDA_VISIBLE_DEVICES")}


def test_variables_are_read_in_one_place():
    found = set()
    for file in [*SOURCES, *(ROOT / "tests/cuda_emulator").glob("*.py")]:
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"(?:environ\.get|environ\[|getenv)\W*(\w+)", text):
            found.add((file.relative_to(ROOT).as_posix(), name))
    assert found - {("gradlab/_environment.py", "name")} == READ_ELSEWHERE


def test_a_user_without_a_home(monkeypatch):
    def none(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setenv("HOME", "/somewhere")
    assert _environment.home() is None
    monkeypatch.delenv("GRADLAB_DATA", raising=False)
    with pytest.raises(OptionError, match=r"^FashionMNIST: expected a folder, got a user without"):
        FashionMNIST(download=False)


@pytest.mark.skipif(sys.platform == "win32", reason="HOME is not read there")
def test_an_empty_home_is_an_unset_one(monkeypatch):
    monkeypatch.delenv("HOME")
    expected = Path.home()
    monkeypatch.setenv("HOME", "")
    assert _environment.home() == expected != Path("/")


# Hints


def test_a_hint_names_the_package_in_the_version_we_ask_for():
    lower = {
        re.match(r"[\w-]+", each)[0]: each
        for group in (PROJECT["dependencies"], PROJECT["optional-dependencies"]["viz"])
        for each in group
    }
    assert pip_install("viz", "matplotlib") == f'pip install "{lower["matplotlib"]}"'
    assert pip_install("", "ml-dtypes") == f'pip install "{lower["ml_dtypes"]}"'
    assert pip_install("viz") == pip_install("viz", "matplotlib")
    assert pip_install("numba").split()[2:] == ['"numba>=0.61"', '"numba-cuda>=0.30"']
    error = missing_dependency("matplotlib", "viz", "plot")
    assert str(error) == (
        "plot needs the package matplotlib, which is not installed; "
        f'run: pip install "{lower["matplotlib"]}"'
    )


def test_a_hint_without_metadata_is_the_name(monkeypatch):
    monkeypatch.setattr(_environment, "DISTRIBUTION", "no-such-distribution")
    assert pip_install("viz", "matplotlib") == "pip install matplotlib"
    assert pip_install("cuda12") == 'pip install ".[cuda12]"'


def test_metadata_is_read_for_errors_alone():
    code = "import sys, gradlab; assert 'importlib.metadata' not in sys.modules"
    if "importlib.metadata" in _modules_of_numpy():
        pytest.skip("NumPy imports it itself")
    subprocess.run([sys.executable, "-c", code], check=True)


def _modules_of_numpy() -> list[str]:
    code = "import sys, numpy, ml_dtypes; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def calls(name: str) -> Iterator[tuple[str, list[Any] | None]]:
    """The calls of a function in gradlab: the file, and the arguments where all are known."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
                first = node.args[:2] if name == "missing_dependency" else node.args
                known = all(isinstance(each, ast.Constant) for each in first)
                place = file.relative_to(ROOT).as_posix()
                yield place, [each.value for each in first] if known else None


# What calls with other than constants say, by the file of the call.
COMPUTED = {
    "gradlab/errors.py": [],  # the function that all others call
    "gradlab/ops/user.py": [pip_install("numba", "numba")],
    "gradlab/__main__.py": [pip_install(each.extra, each.name) for each in report.PACKAGES],
    "gradlab/backends/probe.py": [pip_install("cuda12"), pip_install("cuda13")],
}


def hints() -> set[str]:
    """All that gradlab's errors and reports tell users to run."""
    found, computed = set(), set()
    for place, arguments in calls("missing_dependency"):
        if arguments is None:
            computed.add(place)
        else:
            package, extra = arguments
            found.add(pip_install(extra, package))
    for place, arguments in calls("pip_install"):
        if arguments is None:
            computed.add(place)
        else:
            found.add(pip_install(*arguments))
    assert computed == set(COMPUTED), "say in COMPUTED which commands these calls make"
    return found.union(*COMPUTED.values())


def page_commands() -> set[str]:
    """All that the pages tell users to install."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    return {each.strip() for text in texts for each in re.findall(r"pip install [^`\n]+", text)}


def test_every_hint_comes_from_the_metadata():
    for file in SOURCES:
        if file.name == "_environment.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "pip install" not in node.value, f"{file}: use pip_install"
    found = hints()
    assert len(found) >= 12
    # Each package is one that some extra lists, so that the hint carries the lower bound.
    unbounded = [each for hint in found for each in shlex.split(hint)[2:] if ">=" not in each]
    assert unbounded == []


def test_hints_are_quoted_for_every_shell():
    for hint in hints() | page_commands():
        words = shlex.split(hint)
        assert words[:2] == ["pip", "install"]
        said = subprocess.run(
            ["sh", "-c", hint.replace("pip install", "printf '%s\\n'", 1)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.splitlines() == words[2:]
        # cmd.exe and PowerShell know double quotes only, and read these signs even within them.
        assert not set("'%^$`!") & set(hint)


def test_nobody_is_sent_to_the_index_for_gradlab():
    for hint in hints() | page_commands():
        for word in shlex.split(hint)[2:]:
            assert re.split(r"[^\w-]", word)[0] not in ("gradlab", "gradlab-arrays"), hint


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The Python of a new environment that holds nothing."""
    venv.create(tmp_path / "venv", symlinks=sys.platform != "win32")
    scheme = sysconfig.get_paths(scheme="venv", vars={"base": str(tmp_path / "venv")})
    return Path(scheme["scripts"], "python")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA for macOS")
def test_every_hint_can_be_installed(fresh: Path, tmp_path: Path):
    source = copy_source(tmp_path / "source")
    build_distribution("wheel", source, source / "dist")
    groups = in_groups([shlex.split(each)[2:] for each in sorted(hints() | page_commands())])

    def dry_run(words: list[str]) -> subprocess.CompletedProcess[str]:
        pip = [sys.executable, "-m", "pip", "--python", fresh, "--disable-pip-version-check"]
        command = [*pip, "install", "--dry-run", "--retries", "1", "--timeout", "30", *words]
        # Whether a package's own dependencies can be had is its affair, except for ours.
        command += [] if ".whl" in words[0] else ["--no-deps"]
        return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)

    if dry_run(["tqdm"]).returncode:
        pytest.skip("the package index cannot be reached")
    with ThreadPoolExecutor(2) as pool:
        for words, done in zip(groups, pool.map(dry_run, groups), strict=True):
            assert done.returncode == 0, f"pip install {shlex.join(words)}\n{done.stderr}"
            assert "does not provide the extra" not in done.stderr + done.stdout


def in_groups(commands: list[list[str]]) -> list[list[str]]:
    """The arguments of commands in as few runs as they can be installed in together.

    What can be installed together can be installed one by one. CUDA 12 and 13 cannot, nor can a
    checkout and a wheel of the same project.
    """

    def group(words: list[str]) -> str:
        text = " ".join(words)
        found = re.search(r"cuda12|cuda13|\.whl", text)
        return found[0] if found else "checkout" if words[-1].startswith(".") else ""

    ordered = sorted(commands, key=group)
    return [
        list(dict.fromkeys(itertools.chain.from_iterable(each)))
        for _, each in itertools.groupby(ordered, group)
    ]


def test_the_metadata_of_this_environment_is_that_of_the_project_file():
    listed = metadata.requires(_environment.DISTRIBUTION)
    for requirement in PROJECT["dependencies"]:
        assert requirement in listed, "install gradlab again: pyproject.toml has changed"
