"""Run every Python block of the pages at the root as a test."""

from __future__ import annotations

import os
import tempfile
from doctest import ELLIPSIS
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def _setup(namespace: dict[str, Any]) -> None:
    """Run in an empty folder: an example may write checkpoints."""
    namespace["_before"] = os.getcwd()
    namespace["_folder"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_folder"].name)


def _teardown(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()
    _forget_op("xlogy")


def _forget_op(name: str) -> None:
    """Take back the op that the contributors' guide declares: other tests count them."""
    from gradlab.ops.core import REGISTRY
    from gradlab.tensor import Tensor

    if REGISTRY.pop(name, None) is not None:
        delattr(Tensor, name)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the blocks of a page in one process: each goes on from those before it."""
    if item.path.suffix == ".md":
        item.add_marker(pytest.mark.xdist_group(item.path.name))


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    patterns=["README.md", "CONTRIBUTING.md"],
    setup=_setup,
    teardown=_teardown,
).pytest()
