"""The examples in the docstrings of the public modules run and print what they show."""

from __future__ import annotations

import doctest
import importlib
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


@pytest.mark.parametrize("name", ["gradlab", *MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, extraglobs={"gl": gradlab}, optionflags=flags)
    assert not failed, f"{failed} examples in {name} print something else; see above"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = map(importlib.import_module, MODULES)
    count = sum(len(test.examples) for module in modules for test in finder.find(module))
    assert count > 100
