"""The examples in the docstrings of the public modules run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
from pathlib import Path

import pytest

import gradlab

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gradlab.__path__, "gradlab.")
    if not module.name.endswith("__main__") and ".kernels" not in module.name
)


class Finder(doctest.DocTestFinder):
    """Finds the examples of a public function in the module that defines it, and there alone."""

    def _from_module(self, module, object):  # type: ignore[no-untyped-def]
        defined_in = getattr(inspect.unwrap(object), "__module__", None)
        if inspect.isfunction(object) and defined_in != module.__name__:
            return False
        return super()._from_module(module, object)


@pytest.mark.parametrize("name", ["gradlab", *MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    module = importlib.import_module(name)
    finder = Finder()
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    for test in finder.find(module, name, extraglobs={"gl": gradlab}):
        runner.run(test)
    failed = runner.failures
    assert not failed, f"{failed} examples in {name} print something else; see above"


def test_there_are_examples() -> None:
    finder = Finder()
    modules = map(importlib.import_module, MODULES)
    count = sum(len(test.examples) for module in modules for test in finder.find(module))
    assert count > 100
