"""Building gradlab in a copy of its source, and installing it; shared by the packaging tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import warnings
from pathlib import Path

import build
import pyproject_hooks

ROOT = Path(__file__).parents[1]


def copy_source(copy: Path) -> Path:
    """A copy of what a wheel is built from: building leaves `build/` and `*.egg-info` behind."""
    for folder in ("gradlab", "kernels"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


def build_distribution(kind: str, source: Path, target: Path) -> Path:
    """Build a ``"wheel"`` or ``"editable"`` without isolation, hence without the network."""
    builder = build.ProjectBuilder(source, runner=pyproject_hooks.quiet_subprocess_runner)
    # setuptools reminds of what an editable install is; a build that fails raises.
    with warnings.catch_warnings(action="ignore"):
        return Path(builder.build(kind, target))


def install(folder: Path, *archives: Path) -> tuple[Path, Path]:
    """A new environment with ``archives``, one after another, and the libraries of this one.

    Returns its Python and its site-packages.
    """
    venv.create(folder, symlinks=sys.platform != "win32")
    variables = {"base": str(folder), "platbase": str(folder)}
    scheme = sysconfig.get_paths(scheme="venv", vars=variables)
    python, site_packages = Path(scheme["scripts"], "python"), Path(scheme["purelib"])
    for archive in archives:
        pip(python, "install", "--quiet", "--no-deps", "--no-index", archive)
    # Lines of a .pth file add a folder but do not run the .pth files in it, so that an editable
    # gradlab of the environment these tests run in stays out.
    here = [path for path in sys.path if Path(path).name == "site-packages"]
    Path(site_packages, "libraries.pth").write_text("\n".join([*here, ""]))
    return python, site_packages.resolve()


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip for another Python."""
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)
