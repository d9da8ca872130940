"""LaTeX becomes MathML when the site is built, which browsers draw without scripts or fonts."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

# What the Markdown extension arithmatex makes of $…$ and of $$…$$.
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)  # fmt: skip
# MathML's styles of letters, and their names in Unicode.
_STYLES = {
    "bold": "BOLD",
    "bold-italic": "BOLD ITALIC",
    "double-struck": "DOUBLE-STRUCK",
    "script": "SCRIPT",
}
_STYLED = re.compile(rf'<(mi|mn) mathvariant="({"|".join(_STYLES)})">(\w|&#x\w+;)</\1>')


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    from mkdocs.exceptions import PluginError

    def convert(formula: re.Match[str]) -> str:
        try:
            return mathml(html.unescape(formula[2]), "inline" if formula[1] == "span" else "block")
        except ValueError as error:
            raise PluginError(f"{page.file.src_uri}: {error}") from None

    return _FORMULA.sub(convert, content)


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as MathML. Raises ValueError where something in it is not understood."""
    from latex2mathml.converter import convert

    try:
        text = convert(latex.strip(), display=display)
    except Exception as error:
        raise ValueError(
            f"cannot read the formula {latex.strip()!r}: {type(error).__name__}"
        ) from None
    # It passes on what it does not know.
    if unknown := re.search(r"\\\w*|>&<", text):
        raise ValueError(f"cannot read {unknown[0]!r} in the formula {latex.strip()!r}")
    return _STYLED.sub(_styled, text)


def _styled(character: re.Match[str]) -> str:
    """Browsers know the letters of Unicode, and no longer the attribute."""
    element, style, plain = character[1], _STYLES[character[2]], html.unescape(character[3])
    name = re.sub(r"^(LATIN|GREEK) | LETTER", "", unicodedata.name(plain))
    for styled in (f"MATHEMATICAL {style} {name}", f"{style} {name}"):
        try:
            return f"<{element}>{unicodedata.lookup(styled)}</{element}>"
        except KeyError:
            continue
    return character[0]
