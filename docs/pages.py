"""The format of a page of the notes, and how what it prints is compared with what it shows.

A page is Markdown. Its title begins with its section, ``# 2.5 Automatic differentiation``, which
gives it its place in the navigation. Its ``python`` blocks are the cells of a notebook. An
``output`` block below one holds what that cell must give, to the digit: what it prints, then the
value of its last line. ``...`` stands for what differs from run to run.
"""

from __future__ import annotations

import difflib
import doctest
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = Path(__file__).parent / "notes"

CHAPTERS = {
    2: "Preliminaries",
    3: "Linear regression",
    4: "Linear classification",
    5: "Multilayer perceptrons",
    6: "Builders' guide",
}

_TITLE = re.compile(r"# (\d+)\.(\d+) (.+)")
_OUTPUT = re.compile(r"^```output\n(.*?)^```[ ]*(?:\n+|\Z)", re.DOTALL | re.MULTILINE)
_METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


class PageError(Exception):
    """What is wrong with a page, as one text that begins with its file and line."""


@dataclass
class Page:
    """A page as a notebook that has not run."""

    path: Path
    section: tuple[int, int]
    title: str  # without the section
    notebook: Any  # without the output blocks
    lines: dict[int, int] = field(default_factory=dict)  # of code cells: where their code begins
    wanted: dict[int, str] = field(default_factory=dict)  # of code cells: what they must give

    @property
    def name(self) -> str:
        return self.path.stem

    def at(self, cell: int, line: int = 1) -> str:
        """Where the given line of a cell stands: file and line, as editors open it."""
        return f"{self.path}:{self.lines[cell] + line - 1}"


def paths(folder: Path = NOTES) -> list[Path]:
    """The pages of a folder, by file name."""
    return sorted(path for path in folder.glob("*.md") if path.name != "index.md")


def read_all(folder: Path = NOTES) -> list[Page]:
    """The pages of a folder, in the order of their sections."""
    pages = sorted((read(path) for path in paths(folder)), key=lambda page: page.section)
    for one, other in itertools.pairwise(pages):
        if one.section == other.section:
            raise PageError(f"{other.path}:1: {one.path.name} is of the same section")
    return pages


def read(path: Path) -> Page:
    """Read one page."""
    import jupytext
    import nbformat

    text = path.read_text(encoding="utf-8")
    title = _TITLE.match(text)
    if title is None or int(title[1]) not in CHAPTERS:
        raise PageError(
            f"{path}:1: a page begins with its section, of chapters {min(CHAPTERS)} to "
            f"{max(CHAPTERS)}, and its title, as in '# 2.5 Automatic differentiation'"
        )
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata = nbformat.from_dict(_METADATA)
    page = Page(path, (int(title[1]), int(title[2])), title[3].strip(), notebook)
    _find_code(page, text)
    _take_outputs(page)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # otherwise drawn at random
    return page


def differences(wanted: str, got: str) -> str | None:
    """How the output of a block differs from what its page shows; None where it does not.

    White space at the ends of lines, which editors strip and nobody sees, does not count.
    """
    wanted, got = (re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE) for text in (wanted, got))
    if doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS):
        return None
    lines = difflib.ndiff(wanted.splitlines(), got.splitlines())
    return "\n".join(["the page (-) and what its code gives (+) differ:", *lines])


def _find_code(page: Page, text: str) -> None:
    """Note the line at which each code cell begins."""
    starts = [number + 1 for number, line in enumerate(text.splitlines(), 1) if line == "```python"]
    cells = [i for i, cell in enumerate(page.notebook.cells) if cell.cell_type == "code"]
    if len(starts) != len(cells):
        raise PageError(
            f"{page.path}:1: {len(starts)} blocks are marked ```python and {len(cells)} would be "
            "cells of the notebook; mark what is not to be run as text or pycon"
        )
    page.lines = dict(zip(cells, starts, strict=True))


def _take_outputs(page: Page) -> None:
    """Take the output blocks from the Markdown cells, and note what they hold."""
    cells = page.notebook.cells
    for index, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        block = _OUTPUT.match(cell.source)
        if block is not None and index - 1 in page.lines:
            page.wanted[index - 1] = block[1]
            cell.source = cell.source[block.end() :]
        if "```output" in cell.source:
            before = max((i for i in page.lines if i < index), default=None)
            place = f"{page.path}:1" if before is None else page.at(before)
            raise PageError(
                f"{place}: an output block has to stand below the python block it belongs to"
            )
    kept = [i for i, cell in enumerate(cells) if cell.cell_type == "code" or cell.source.strip()]
    new = {old: index for index, old in enumerate(kept)}
    page.notebook.cells = [cells[i] for i in kept]
    page.lines = {new[i]: line for i, line in page.lines.items()}
    page.wanted = {new[i]: text for i, text in page.wanted.items()}
