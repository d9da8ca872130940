"""The built site is opened in Chromium, where there is one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_MILLISECONDS = 30_000


def missing() -> str | None:
    """Why no page can be opened here; None where it can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is not installed"
    return None if _executable() else "there is no Chromium"


def check(site: Path, pages: list[str]) -> list[str]:
    """Open pages, given relative to the site; what is wrong with them, one line for each.

    Wrong are errors on the console, requests that fail or leave the site, and images that are not
    shown.
    """
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with _served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_executable(), args=list(_QUIET), chromium_sandbox=False
        )
        context = browser.new_context()  # with one cache, of scripts and styles
        for page in pages:
            tab = context.new_page()
            wrong += [f"{page}: {each}" for each in _open(tab, address, page)]
            tab.close()
        browser.close()
    return wrong


def _open(tab: Any, address: str, page: str) -> list[str]:
    wrong: list[str] = []
    tab.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            request.url.startswith((address, "data:", "blob:"))
            or wrong.append(f"asks for {request.url}")
        ),
    )
    tab.goto(f"{address}/{page}", wait_until="load", timeout=_MILLISECONDS)
    unseen = "images => images.filter(image => !image.naturalWidth).map(image => image.src)"
    return wrong + [
        f"the image {source} is not shown" for source in tab.eval_on_selector_all("img", unseen)
    ]


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about each request."""


@contextmanager
def _served(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
