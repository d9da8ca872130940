"""gradlab as its users get it: a wheel, or an editable install, in an environment of its own."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from email.policy import compat32
from pathlib import Path
from typing import NamedTuple

import pytest

from packaging_tools import build_distribution, copy_source, install, pip

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

# One worker builds for all tests of this file.
pytestmark = pytest.mark.xdist_group("packaging")

# Where import name and distribution name differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "cupyx": "cupy"}
# Imported within a notebook only, which has them.
NOTEBOOK = {"IPython", "matplotlib_inline"}


def source_files() -> dict[str, Path]:
    """Each file that belongs in the wheel: its name there, and where it is kept."""
    roots = {"gradlab": ROOT / "gradlab", "gradlab/kernels": ROOT / "kernels"}
    return {
        f"{name}/{file.relative_to(root).as_posix()}": file
        for name, root in roots.items()
        for file in root.rglob("*")
        if file.suffix in {".py", ".pyi", ".cu", ".cuh"} or file.name == "py.typed"
    }


class Installed(NamedTuple):
    python: Path
    gradlab: Path  # where its packages must come from
    kernels: Path
    version: str

    def run(self, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-I", "-W", "error", "-c", code]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return copy_source(tmp_path_factory.mktemp("source").resolve())


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build_distribution("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, source, tmp_path_factory) -> Installed:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "editable":
        archive = build_distribution("editable", source, folder)
        gradlab, kernels = source / "gradlab", source / "kernels"
        python, _ = install(folder / "venv", archive)
    else:
        archive = request.getfixturevalue("wheel")
        python, site_packages = install(folder / "venv", archive)
        gradlab, kernels = site_packages / "gradlab", site_packages / "gradlab/kernels"
    return Installed(python, gradlab, kernels, version=archive.name.split("-")[1])


def test_package_list_names_every_folder_of_code():
    folders = {name.rpartition("/")[0].replace("/", ".") for name in source_files()}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders), "correct [tool.setuptools] packages in pyproject.toml"


def test_every_package_has_an_init():
    names = set(source_files())
    packages = {name.rpartition("/")[0] for name in names}
    assert [package for package in packages if f"{package}/__init__.py" not in names] == []


def test_wheel_is_pure_python_and_holds_exactly_the_source(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    assert code == set(source_files())
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_version_is_a_literal():
    # Otherwise setuptools imports gradlab to learn it, where a build has no NumPy.
    tree = ast.parse((ROOT / "gradlab/__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert [type(ast.literal_eval(value)) for value in values] == [str]


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser(policy=compat32).parsestr(archive.read(name).decode())
    assert metadata["Name"] == "gradlab-arrays"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


def test_installed_gradlab_and_its_kernels_are_found(installed, tmp_path):
    code = (
        "import gradlab, gradlab.kernels.cpu as k; print(gradlab.__file__, k.__file__, sep='\\n')"
    )
    result = installed.run(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    gradlab, kernels = (Path(line).resolve() for line in result.stdout.splitlines())
    assert gradlab == installed.gradlab / "__init__.py"
    assert kernels == installed.kernels / "cpu/__init__.py"


def test_installed_version(installed, tmp_path):
    code = """
import gradlab
from importlib.metadata import version
print(gradlab.__version__, version("gradlab-arrays"))
"""
    result = installed.run(code, cwd=tmp_path)
    assert result.stdout.split() == [installed.version] * 2, result.stderr


THREE_STEPS = """
import gradlab as gl

gl.manual_seed(0)
X = gl.randn(32, 2)
y = X @ gl.tensor([[2.0], [-3.4]]) + 4.2
model = gl.nn.Linear(2, 1)
loss_function = gl.nn.MSELoss()
optimizer = gl.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    loss = loss_function(model(X), y)
    loss.backward()
    optimizer.step()
    print(loss.item())
"""


def test_installed_gradlab_trains(installed, tmp_path):
    result = installed.run(THREE_STEPS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    first, second, third = map(float, result.stdout.split())
    assert first > second > third


# On package indexes `gradlab` is another project. Whoever has both has two distributions in one
# folder, each of which overwrites the other's files.


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """A wheel of another project that installs a package named gradlab."""
    name = "gradlab-0.2.2"
    files = {
        "gradlab/__init__.py": "who = 'stranger'\n",
        "gradlab/agents.py": "",
        f"{name}.dist-info/METADATA": "Metadata-Version: 2.1\nName: gradlab\nVersion: 0.2.2\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}.dist-info/RECORD"
    files[record] = "".join(f"{each},,\n" for each in (*files, record))
    wheel = tmp_path_factory.mktemp("stranger") / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for each, text in files.items():
            archive.writestr(each, text)
    return wheel


@pytest.mark.parametrize("last", ["ours", "stranger"])
def test_a_foreign_gradlab_in_the_same_folder_is_refused(wheel, stranger, tmp_path, last):
    archives = [stranger, wheel] if last == "ours" else [wheel, stranger]
    python, site_packages = install(tmp_path / "venv", *archives)
    here = Installed(python, site_packages / "gradlab", site_packages / "gradlab/kernels", "")
    # What the stranger wrote last is its own __init__: nothing of ours runs before a module of ours
    # is asked for.
    asked = "import gradlab" if last == "ours" else "import gradlab.nn"
    refused = here.run(asked, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        f"ImportError: gradlab: the folder {here.gradlab} holds files of two distributions, "
        "gradlab-arrays (this library) and gradlab 0.2.2, which overwrite each other; "
        "run: pip uninstall -y gradlab, then pip install --force-reinstall --no-deps "
        f'"{wheel.as_uri()}"'
    )
    for command in re.findall(r"pip (.*?)(?:, then|$)", refused.stderr.splitlines()[-1]):
        pip(python, *shlex.split(command), "--quiet")
    result = here.run(THREE_STEPS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_ours_alone_is_no_stranger(installed):
    from gradlab._environment import stranger

    assert stranger(installed.gradlab.parent) == ""


def third_party_imports() -> set[str]:
    modules = set()
    for file in source_files().values():
        if not file.suffix.startswith(".py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module)
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"gradlab"}


def declared(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
    return {re.sub(r"^cupy-cuda\d+x$", "cupy", name) for name in names}


def test_every_library_imported_is_declared():
    extras = PROJECT["optional-dependencies"]
    used = [text for name in ("data", "viz", "numba", "cuda12", "cuda13") for text in extras[name]]
    known = declared([*PROJECT["dependencies"], *used])
    imported = {DISTRIBUTIONS.get(module, module) for module in third_party_imports() - NOTEBOOK}
    assert imported <= known, "add to dependencies, or to an extra named in the error message"


def test_every_requirement_has_a_lower_bound():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [requirement for group in groups for requirement in group]
    unbounded = [
        text for text in requirements if not re.search(r">=|==|~=|^gradlab-arrays\[", text)
    ]
    assert unbounded == []


def test_makefile_installs_the_pytorch_of_the_parity_extra():
    (pytorch,) = PROJECT["optional-dependencies"]["parity"]
    assert pytorch in PROJECT["optional-dependencies"]["bench"]
    assert f"TORCH ?= {pytorch}$(" in (ROOT / "Makefile").read_text(encoding="utf-8")
