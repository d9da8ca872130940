"""Every page of the course notes runs, and prints what stands below each block.

``docs/pages.py`` tells how a page is written. Here its blocks run in this process, in a second or
less; ``make docs`` runs them again in notebooks.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.example import SybilFailure
from sybil.parsers.markdown import CodeBlockParser

import gradlab
from gradlab import d2l, devices
from notebook_cells import run_cell
from patched_classes import classes_as_they_were

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the pages belong to the checkout, not to the wheel

from docs import pages  # noqa: E402

# What a block gave, under a name that no page uses.
_OUTPUT = "_output_of_the_block_above"


class PythonBlocks(CodeBlockParser):
    """Runs a block as a notebook does: its last line, if an expression, is shown."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        before = example.line + example.parsed.line_offset
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            run_cell(example.parsed, example.namespace, _pretty, example.path, before)
        example.namespace[_OUTPUT] = stream.getvalue()


class OutputBlocks(CodeBlockParser):
    """Compares what the block above gave with what the page says."""

    language = "output"

    def evaluate(self, example: Example) -> str | None:
        got = example.namespace.pop(_OUTPUT, None)
        if got is None:
            return "an output block has to stand below the python block it belongs to"
        return pages.differences(example.parsed, got)


def _pretty(value: Any) -> str:
    """A value as a notebook prints it: tuples with one line per entry where it needs them."""
    from IPython.lib.pretty import pretty

    return str(pretty(value))


@pytest.fixture
def _classes_as_they_were() -> Iterator[None]:
    with classes_as_they_were(d2l):
        yield


@pytest.fixture
def _matplotlib_as_it_was() -> Iterator[None]:
    from matplotlib import pyplot as plt

    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages show what a machine without a GPU gives; ``make docs`` hides GPUs too."""
    monkeypatch.setattr("gradlab.backends.probe._load_driver", lambda: None)
    devices.forget_cuda()
    yield
    devices.forget_cuda()


def run(page: Path) -> None:
    document = Sybil(parsers=[PythonBlocks(), OutputBlocks()], path=str(page.parent)).parse(page)
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("page", pages.paths(), ids=lambda page: page.stem)
@pytest.mark.usefixtures("_classes_as_they_were", "_matplotlib_as_it_was", "_no_gpu")
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The notes write to ../data.
    (tmp_path / "page").mkdir()
    monkeypatch.chdir(tmp_path / "page")
    gradlab.manual_seed(0)
    run(page)


# The same pages on a GPU: every tensor that a page makes lies there, and it prints the same. Left
# out are pages that take tensors to NumPy, read files, or train with loaders, whose indices are
# made on the CPU; tests/test_d2l.py trains on both.
ON_CUDA = [
    "automatic-differentiation",
    "base-classifier",
    "generalization",
    "initialization",
    "lazy-initialization",
    "linear-algebra",
    "linear-regression",
    "model-construction",
    "multilayer-perceptrons",
    "parameters",
    "read-write",
    "softmax-regression",
]


@pytest.fixture
def _made_on_cuda(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made without a device lies on ``cuda:0``, and what is printed does not say so."""
    cuda = devices.find_device("cuda")
    monkeypatch.setitem(devices._working, None, cuda)
    for module in (gradlab, d2l):
        monkeypatch.setattr(module, "tensor", partial(gradlab.tensor, device=cuda))
    differences = pages.differences

    def same(text: str) -> str:  # but for line breaks, which the longer text has at other places
        return " ".join(re.sub(r",\s+device='cuda:0'", "", text).split()) + "\n"

    monkeypatch.setattr(
        pages, "differences", lambda wanted, got: differences(same(wanted), same(got))
    )


@pytest.mark.unlisted
@pytest.mark.parametrize("name", ON_CUDA)
@pytest.mark.usefixtures("_classes_as_they_were", "_matplotlib_as_it_was", "_made_on_cuda")
def test_page_on_cuda(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gradlab.manual_seed(0)
    gradlab.cuda.reset_statistics()
    run(pages.NOTES / f"{name}.md")
    assert gradlab.cuda.statistics().launches > 0


# The runner itself.


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(f"# 2.1 A page\n\n{text}", encoding="utf-8")
    return page


def test_a_page_gives_what_it_prints_and_then_the_value_of_its_last_line(tmp_path):
    text = """
```python
x = 1
print("first ")
{"x": x}
```

```output
first
{'x': 1}
```

```python
x;
```

```output
```

```python
import time
time.time()
```

```output
1...
```
"""
    run(page_of(tmp_path, text))


def test_a_wrong_output_is_told_with_its_page_and_line(tmp_path):
    page = page_of(tmp_path, "```python\n1 + 1\n```\n\n```output\n3\n```\n")
    with pytest.raises(
        SybilFailure, match=r"(?s)page\.md, line 7.*\(-\).*\(\+\) differ.*- 3.*\+ 2"
    ):
        run(page)


@pytest.mark.parametrize("code", ["", "```python\n1\n```\n```output\n1\n```\n"])
def test_an_output_that_belongs_to_no_code_is_told_with_its_page_and_line(code, tmp_path):
    page = page_of(tmp_path, code + "```output\n1\n```\n")
    line = 3 + code.count("\n")
    with pytest.raises(SybilFailure, match=rf"(?s)page\.md, line {line},.*stand below the python"):
        run(page)


def test_an_exception_comes_through_with_its_page_and_line(tmp_path):
    page = page_of(tmp_path, "```python\nx = 0\n1 / x\n```\n")
    with pytest.raises(ZeroDivisionError) as raised:
        run(page)
    last = traceback.extract_tb(raised.tb)[-1]
    assert (Path(last.filename), last.lineno) == (page, 5)


def test_a_last_line_that_fails_is_told_with_its_page_and_line_too(tmp_path):
    page = page_of(tmp_path, "Text.\n\n```python\nimport gradlab\ngradlab.zeros(2) @ 3\n```\n")
    with pytest.raises(gradlab.errors.GradlabError) as raised:
        run(page)
    lines = [each.lineno for each in traceback.extract_tb(raised.tb) if each.filename == str(page)]
    assert lines == [7]
