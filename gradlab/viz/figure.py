"""Figures that need no display."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

from gradlab.errors import OptionError, message, missing_dependency


def new_figure(operation: str, width: float, height: float) -> Any:
    """An empty figure of a size in inches.

    It is made without pyplot, which would keep it alive in a list and might open a window.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_dependency("matplotlib", "viz", operation) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(operation: str, figure: Any, path: str | PathLike[str] | None) -> Any:
    """Write the figure to ``path`` if there is one; the ending of the name gives the format."""
    if path is not None:
        target = Path(fspath(path))
        known = figure.canvas.get_supported_filetypes()
        kind = target.suffix.removeprefix(".").lower()
        if kind not in known:
            expected = f"a file name that ends in .{', .'.join(sorted(known))}"
            raise OptionError(message(operation, expected=expected, got=repr(str(target))))
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=120)
    return figure
