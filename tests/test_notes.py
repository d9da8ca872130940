"""Every page of the course notes runs, and prints what stands below each block.

A page is Markdown. Its ``python`` blocks run in order, in one namespace, as the cells of a notebook
do: what a block prints, and the value of its last line, is its output. An ``output`` block holds
what the block above it must give, to the digit; ``...`` stands for what differs from run to run.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import doctest
import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import gradlab

NOTES = Path(__file__).parents[1] / "docs" / "notes"
PAGES = sorted(path.name for path in NOTES.glob("*.md"))

# What a block gave, under a name that no page uses.
_OUTPUT = "_output_of_the_block_above"


class PythonBlocks(CodeBlockParser):
    """Runs a block as a notebook does: its last line, if an expression, is shown."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        tree = ast.parse(example.parsed)
        # Tracebacks then name the page and its line.
        ast.increment_lineno(tree, example.line + example.parsed.line_offset)
        shown = None
        if _shows_its_last_line(tree, example.parsed):
            shown = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            exec(compile(tree, example.path, "exec"), example.namespace)
            if shown is not None:
                value = eval(compile(shown, example.path, "eval"), example.namespace)
                if value is not None:
                    stream.write(_pretty(value) + "\n")
        example.namespace[_OUTPUT] = stream.getvalue()


class OutputBlocks(CodeBlockParser):
    """Compares what the block above gave with what the page says."""

    language = "output"

    def evaluate(self, example: Example) -> str | None:
        got = example.namespace.pop(_OUTPUT, None)
        if got is None:
            return "an output block has to stand below the python block it belongs to"
        want = example.parsed
        if doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS):
            return None
        lines = difflib.ndiff(want.splitlines(), got.splitlines())
        return "\n".join(["the page (-) and what its code gives (+) differ:", *lines])


def _shows_its_last_line(tree: ast.Module, source: str) -> bool:
    ends_in_semicolon = source.rstrip().endswith(";")
    return bool(tree.body) and isinstance(tree.body[-1], ast.Expr) and not ends_in_semicolon


def _pretty(value: Any) -> str:
    """A value as a notebook prints it: tuples with one line per entry where it needs them."""
    from IPython.lib.pretty import pretty

    return str(pretty(value))


@pytest.fixture
def _classes_as_they_were() -> Iterator[None]:
    """Pages add methods to gradlab's classes, as the notes do; take them back."""
    from gradlab import d2l

    classes = [each for each in vars(d2l).values() if inspect.isclass(each)]
    before = {each: dict(vars(each)) for each in classes}
    yield
    for each, attributes in before.items():
        for name in set(vars(each)) - set(attributes):
            delattr(each, name)
        for name, value in attributes.items():
            if vars(each).get(name) is not value:
                setattr(each, name, value)


@pytest.fixture
def _no_figures_left() -> Iterator[None]:
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_classes_as_they_were", "_no_figures_left")
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The notes write to ../data.
    (tmp_path / "page").mkdir()
    monkeypatch.chdir(tmp_path / "page")
    gradlab.manual_seed(0)
    document = Sybil(parsers=[PythonBlocks(), OutputBlocks()], path=str(NOTES)).parse(NOTES / page)
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()
