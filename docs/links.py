"""Every link of the built site leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself, as opposed to what a reader may follow.
_LOADED = {("link", "href"), ("img", "src"), ("script", "src"), ("iframe", "src"),
           ("source", "src"), ("video", "src"), ("audio", "src"), ("object", "data")}  # fmt: skip
_FOLLOWED = {("a", "href"), ("area", "href")}


class _Links(HTMLParser):
    """The links of a page, and the anchors that others may link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}  # both are the top of any page
        self.links: list[tuple[str, bool, int]] = []  # where to, whether loaded, line
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value or "")
            elif (tag, name) in _LOADED | _FOLLOWED and value is not None:
                self.links.append((value, (tag, name) in _LOADED, self.getpos()[0]))


def check(site: Path) -> list[str]:
    """What is wrong with the links of a built site, one line for each."""
    root = site.resolve()
    pages = {path: _Links(path.read_text(encoding="utf-8")) for path in root.rglob("*.html")}
    wrong = []
    for path, page in sorted(pages.items()):
        for link, loaded, line in page.links:
            why = _why_broken(root, path, link, loaded, pages)
            if why is not None:
                wrong.append(f"{site / path.relative_to(root)}:{line}: {why}")
    return wrong + _foreign_styles(site)


def _why_broken(
    site: Path, path: Path, link: str, loaded: bool, pages: dict[Path, _Links]
) -> str | None:
    try:
        parts = urlsplit(link)
    except ValueError as error:
        return f"{link!r} is no address: {error}"
    if parts.scheme in ("http", "https") or parts.netloc:
        if loaded:
            return f"{link!r} is loaded from elsewhere, and the site is read off-line"
        return None if parts.netloc and parts.scheme else f"{link!r} is no address"
    if parts.scheme in ("data", "mailto", "javascript"):
        return None
    base = site if parts.path.startswith("/") else path.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return f"{link!r} leads nowhere"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"{link!r} leads to no anchor of {target.name}"
    return None


def _foreign_styles(site: Path) -> list[str]:
    wrong = []
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]+)", path.read_text("utf-8")):
            wrong.append(f"{path}: {address!r} is loaded from elsewhere")
    return wrong
