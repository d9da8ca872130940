"""Every Python block of the pages at the root runs, in order, and prints what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from doctest import ELLIPSIS
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from cuda_emulator import build
from gradlab.ops.core import REGISTRY
from gradlab.tensor import Tensor

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md"]


@pytest.fixture
def _declared_ops_are_taken_back() -> Iterator[None]:
    """The contributors' guide declares an op; other tests count the ops."""
    before, methods = set(REGISTRY), set(vars(Tensor))
    yield
    for name in set(REGISTRY) - before:
        del REGISTRY[name]
    for name in set(vars(Tensor)) - methods:
        delattr(Tensor, name)


# One test per page: each block goes on from those before it.
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_declared_ops_are_taken_back")
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "CONTRIBUTING.md" and (why := build.available("checked")):
        pytest.skip(why)
    monkeypatch.chdir(tmp_path)  # a block may write checkpoints
    parsers = [PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)]
    document = Sybil(parsers=parsers, path=str(ROOT)).parse(ROOT / page)
    examples = list(document.examples())
    assert len(examples) >= 3
    for example in examples:
        example.evaluate()
