"""The site: pages that have run as Markdown with their outputs, and MkDocs, which renders it."""

from __future__ import annotations

import base64
import html
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from docs.pages import CHAPTERS, Page

ROOT = Path(__file__).parents[1]

# The first kind that an output has is shown.
_FIGURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
_CONTENTS = "<!-- contents -->"


def write(pages: list[Page], source: Path, target: Path) -> None:
    """Write everything MkDocs reads into a folder, which is emptied before."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "notes").mkdir(parents=True)
    shutil.copytree(source / "assets", target / "assets")
    for path in (*source.glob("*.md"), source / "notes" / "index.md"):
        text = path.read_text(encoding="utf-8").replace(_CONTENTS, contents(pages))
        (target / path.relative_to(source)).write_text(text, encoding="utf-8")
    for page in pages:
        write_page(page, target / "notes", {each.name for each in pages})


def write_page(page: Page, folder: Path, names: set[str]) -> None:
    """Write a page as Markdown, the notebook, and its figures."""
    import nbformat

    text = "\n\n".join(_cell(page, index, folder) for index in range(len(page.notebook.cells)))
    link = f"[Download as a notebook]({page.name}.ipynb){{ .notebook download }}"
    title, _, rest = text.partition("\n")
    (folder / f"{page.name}.md").write_text(f"{title}\n\n{link}\n{rest}\n", encoding="utf-8")

    notebook = nbformat.from_dict(page.notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # Notebooks of other pages lie beside this one, as their pages do.
            cell.source = re.sub(
                r"\]\(([\w-]+)\.md([)#])",
                lambda link: link[0] if link[1] not in names else f"]({link[1]}.ipynb{link[2]}",
                cell.source,
            )
    nbformat.validate(notebook)
    nbformat.write(notebook, folder / f"{page.name}.ipynb")


def contents(pages: list[Page]) -> str:
    """The list of all pages, by chapter."""
    lines = []
    for number, title in CHAPTERS.items():
        chapter = [page for page in pages if page.section[0] == number]
        if chapter:
            lines += [f"## {number} {title}", ""]
            lines += [f"- {_number(page)} [{page.title}]({page.name}.md)" for page in chapter]
            lines += [""]
    return "\n".join(lines)


def navigation(pages: list[Page]) -> list[Any]:
    """The navigation as MkDocs takes it."""
    chapters: list[Any] = ["notes/index.md"]
    for number, title in CHAPTERS.items():
        chapter = [
            {f"{_number(page)} {page.title}": f"notes/{page.name}.md"}
            for page in pages
            if page.section[0] == number
        ]
        if chapter:
            chapters.append({f"{number} {title}": chapter})
    return [{"Home": "index.md"}, {"Course notes": chapters}, {"Notebooks": "notebooks.md"}]


def render(pages: list[Page], source: Path, target: Path) -> list[str]:
    """Run MkDocs; whatever it warns of is returned, one text for each."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import MkDocsException

    said = _Warnings()
    logger = logging.getLogger("mkdocs")
    logger.addHandler(said)
    try:
        config = load_config(
            str(ROOT / "mkdocs.yml"),
            docs_dir=str(source.resolve()),
            site_dir=str(target.resolve()),
            nav=navigation(pages),
        )
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        config.plugins.on_shutdown()
    except MkDocsException as error:
        said.texts.append(str(error))
    finally:
        logger.removeHandler(said)
    return [f"MkDocs: {text}" for text in said.texts]


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _number(page: Page) -> str:
    return f"{page.section[0]}.{page.section[1]}"


def _cell(page: Page, index: int, folder: Path) -> str:
    cell = page.notebook.cells[index]
    if cell.cell_type == "markdown":
        return str(cell.source)
    shown = [
        _output(page, output, folder / f"{page.name}-{index}-{place}")
        for place, output in enumerate(cell.outputs)
    ]
    return "\n\n".join([f"```python\n{cell.source}\n```", *shown])


def _output(page: Page, output: Any, stem: Path) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    for kind, suffix in _FIGURES.items():
        if kind in output.data:
            file = stem.with_name(f"{stem.name}.{suffix}")
            data = output.data[kind]
            file.write_bytes(data.encode() if suffix == "svg" else base64.b64decode(data))
            return f"![What the code above draws]({file.name}){{ .figure }}"
    if "text/html" in output.data:
        table = re.sub(r"<style.*?</style>", "", output.data["text/html"], flags=re.DOTALL)
        return f'<div class="output" markdown="0">{table}</div>'
    return _text(output.data["text/plain"])


def _text(text: str) -> str:
    # A blank line would end the block for Markdown.
    lines = html.escape(text.rstrip("\n"), quote=False).replace("\n", "&#10;")
    return f'<pre class="output">{lines}</pre>'
