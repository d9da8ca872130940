"""``python -m docs``: run the pages, write the notebooks and the site, and check every link."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from docs import browser, links, notebooks, pages, site

SOURCE = Path(__file__).parent


def build(source: Path, staging: Path, target: Path) -> list[str]:
    """Build the site from a folder such as ``docs/``; what is wrong, one text for each."""
    try:
        read = pages.read_all(source / "notes")
    except pages.PageError as error:
        return [str(error)]
    if wrong := notebooks.run_all(read):
        return [str(each) for each in wrong]
    site.write(read, source, staging)
    return site.render(read, staging, target) or links.check(target)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("site"), help="the folder of the site")
    options = parser.parse_args()

    began = time.perf_counter()
    try:
        wrong = build(SOURCE, Path("build/docs"), options.out) or _open_in_browser(options.out)
    except KeyboardInterrupt:
        print("interrupted: the site is not finished", file=sys.stderr)
        return 130
    for each in wrong:
        print(each, file=sys.stderr)
    if wrong:
        return 1
    print(f"{options.out / 'index.html'} is built, in {time.perf_counter() - began:.0f} s")
    return 0


def _open_in_browser(target: Path) -> list[str]:
    if why := browser.missing():
        print(f"not opened in a browser, since {why}")
        return []
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.html"))
    wrong = browser.check(target, [page for page in found if page != "404.html"])
    if not wrong:
        print(f"{len(found) - 1} pages opened in Chromium")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
