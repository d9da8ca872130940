"""Imports point down only, so that each layer can be read and tested without those above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module imports what stands in the lines below its own; names joined in one
# string may also import one another, names side by side may not. `__init__` is gradlab itself,
# the public namespace.
LAYERS = [
    ["_environment"],
    ["errors"],
    ["arguments", "console", "contexts", "dtypes", "fields", "notebook", "paths"],
    ["kernels"],
    ["backends"],
    ["devices"],
    ["autograd"],
    ["tensor ops formatting _methods"],
    [
        "nn",
        "optim",
        "data",
        "distributions",
        "viz",
        "testing",
        "serialization",
        "cuda",
        "linalg",
        "accelerator",
    ],
    ["training", "utils"],
    ["__init__ __main__ _stubs d2l"],
]

# Imports that point up, and why. Only inside a function: never when gradlab is being loaded.
UPWARD = {
    ("gradlab.arguments", "gradlab.devices"): "a list that was given for a tensor is on the CPU",
    ("gradlab.arguments", "gradlab.tensor"): "a list that was given for a tensor becomes one",
    ("gradlab.autograd", "gradlab.testing"): "PyTorch has gradcheck in autograd",
    ("gradlab.autograd.functional", "gradlab.ops.derivatives"): "PyTorch has them in autograd",
    ("gradlab.tensor", "gradlab"): "the Array API asks a tensor for its namespace",
}


class Import(NamedTuple):
    importer: str  # the module, as gradlab.ops.core
    imported: str  # a module again
    lazy: bool  # inside a function
    line: int


def modules() -> dict[str, Path]:
    """Every module of gradlab and its file."""
    found = {}
    for prefix, root in (("gradlab", ROOT / "gradlab"), ("gradlab.kernels", ROOT / "kernels")):
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join((prefix, *parts)).removesuffix(".__init__")
            found[name] = file
    return found


MODULES = modules()


def component(module: str) -> str:
    """The part of gradlab a module belongs to: ``ops`` for gradlab.ops.core."""
    return [*module.split("."), "__init__"][1]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


def import_nodes(
    node: ast.AST, lazy: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import statement that runs, and whether it stands in a function."""
    for child in node.orelse if is_type_checking(node) else ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from import_nodes(child, lazy or inner)


def targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """What a statement imports, where ``package`` is the package it stands in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    base = ".".join([*parents, node.module or ""]).strip(".") if node.level else node.module
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in MODULES else base


def imports(module: str, source: str, is_package: bool) -> Iterator[Import]:
    """The imports of gradlab's own modules in the source of ``module``."""
    package = module if is_package else module.rpartition(".")[0]
    for node, lazy in import_nodes(ast.parse(source)):
        for target in targets(node, package):
            if target.split(".")[0] == "gradlab":
                yield Import(module, target, lazy, node.lineno)


def place(name: str) -> tuple[int, str]:
    """Height and group of a component."""
    for height, layer in enumerate(LAYERS):
        for group in layer:
            if name in group.split():
                return height, group
    raise AssertionError(f"give gradlab.{name} a place in LAYERS")


def points_down(importer: str, imported: str) -> bool:
    if component(importer) == "kernels":
        return component(imported) in ("kernels", "_environment")
    (height, group), (other_height, other_group) = map(
        place, (component(importer), component(imported))
    )
    return other_height < height or other_group == group


ALL_IMPORTS = [
    item
    for module, file in MODULES.items()
    for item in imports(module, file.read_text(encoding="utf-8"), file.name == "__init__.py")
]


def test_every_part_has_a_place():
    for module in MODULES:
        place(component(module))
    parts = {component(module) for module in MODULES}
    names = {name for layer in LAYERS for group in layer for name in group.split()}
    assert names - parts == set(), "in LAYERS, but not on disk"


def test_imports_point_down():
    wrong = [
        f"{item.importer}, line {item.line}: imports {item.imported}"
        for item in ALL_IMPORTS
        if not points_down(item.importer, item.imported)
        and not (item.lazy and (item.importer, item.imported) in UPWARD)
    ]
    assert wrong == []


def test_exceptions_are_still_needed():
    upward = {
        (item.importer, item.imported)
        for item in ALL_IMPORTS
        if item.lazy and not points_down(item.importer, item.imported)
    }
    assert set(UPWARD) - upward == set()


# The reader of imports itself. Each line of source is read as part of gradlab.ops.core.
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np", []),
        ("import gradlab.errors", [("gradlab.errors", False)]),
        ("import gradlab", [("gradlab", False)]),
        ("from gradlab import errors, no_such_module", [("gradlab.errors", 0), ("gradlab", 0)]),
        ("from gradlab.errors import ShapeError", [("gradlab.errors", False)]),
        ("from ..errors import ShapeError", [("gradlab.errors", False)]),
        ("from .. import errors", [("gradlab.errors", False)]),
        ("from . import core", [("gradlab.ops.core", False)]),
        ("def f():\n  import gradlab", [("gradlab", True)]),
        ("class A:\n  import gradlab", [("gradlab", False)]),
        ("try:\n  import gradlab\nexcept ImportError: pass", [("gradlab", False)]),
        ("if TYPE_CHECKING:\n  import gradlab", []),
        ("if typing.TYPE_CHECKING:\n  pass\nelse:\n  import gradlab", [("gradlab", False)]),
        ("if True:\n  import gradlab", [("gradlab", False)]),
    ],
)
def test_reading_imports(source, expected):
    found = [(item.imported, item.lazy) for item in imports("gradlab.ops.core", source, False)]
    assert found == expected


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("gradlab.training.trainer", "gradlab.nn.functional", True),
        ("gradlab.nn.functional", "gradlab.training.trainer", False),
        ("gradlab.nn.linear", "gradlab.nn.module", True),
        ("gradlab.nn.linear", "gradlab.optim", False),
        ("gradlab.tensor", "gradlab.ops.core", True),
        ("gradlab.autograd.graph", "gradlab.ops.core", False),
        ("gradlab.backends.cpu", "gradlab.kernels.cpu", True),
        ("gradlab.kernels.cpu", "gradlab.kernels", True),
        ("gradlab.kernels.cpu", "gradlab.errors", False),
        ("gradlab.kernels.cpu", "gradlab._environment", True),
        ("gradlab.nn.linear", "gradlab", False),
        ("gradlab", "gradlab.training", True),
    ],
)
def test_what_may_import_what(importer, imported, allowed):
    assert points_down(importer, imported) is allowed
