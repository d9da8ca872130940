"""Figures that need no display."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np

from gradlab.errors import OptionError, message, missing_dependency
from gradlab.paths import as_path, replacing

# Beyond it, Matplotlib's own arithmetic overflows.
_LARGEST = 1e150

# The limits of an axis without points.
_EMPTY = {"log": (1, 10), "logit": (0.1, 0.9)}

# A legend of more curves would hide them.
_AMONG = 5


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
        target = as_path(operation, path)
        known = figure.canvas.get_supported_filetypes()
        kind = target.suffix.removeprefix(".").lower()
        if kind not in known:
            expected = f"a file name that ends in .{', .'.join(sorted(known))}"
            raise OptionError(message(operation, expected=expected, got=repr(str(target))))
        with replacing(target, operation) as temporary:
            figure.savefig(temporary, dpi=120, format=kind)
    return figure


def set_axis(operation: str, axes: Any, which: str, scale: Any, limits: Any) -> None:
    """Give the axis ``"x"`` or ``"y"`` its scale and its limits; limits None: as the data are."""
    from matplotlib.scale import get_scale_names

    # Those called function and functionlog need more than a name: they are given as objects.
    names = [name for name in get_scale_names() if not name.startswith("function")]
    if isinstance(scale, str) and scale not in names:
        expected = f"{which}scale to be one of {', '.join(names)}"
        raise OptionError(message(operation, expected=expected, got=repr(scale)))
    if getattr(axes, f"get_{which}scale")() != scale:
        getattr(axes, f"set_{which}scale")(scale)
    if not np.isfinite(getattr(axes.dataLim, f"interval{which}")).all():
        # Without points Matplotlib keeps the limits, which the scale may have no place for.
        getattr(axes, f"set_{which}lim")(*_EMPTY.get(scale, (0, 1)))
    getattr(axes, f"set_autoscale{which}_on")(True)
    axes.autoscale_view(scalex=which == "x", scaley=which == "y")
    if limits is not None:
        getattr(axes, f"set_{which}lim")(*_read_limits(operation, which, scale, limits))


def _read_limits(operation: str, which: str, scale: Any, limits: Any) -> list[float | None]:
    try:
        low, high = (None if bound is None else float(bound) for bound in limits)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not all(bound is None or math.isfinite(bound) for bound in (low, high)):
        expected = f"{which}lim to be two finite numbers, as in [0, 10]"
        raise OptionError(message(operation, expected=expected, got=repr(limits)))
    if low is not None and low == high:  # [0, epochs] of a run of none: an axis needs a length
        return [None, None]
    # Zero is a bound that many set before they choose a logarithmic scale, which has no zero.
    return [
        None if bound is None or np.isnan(drawable(bound, scale)) else bound
        for bound in (low, high)
    ]


def write_legend(axes: Any, lines: list[Any], labels: list[str]) -> Any:
    """The legend of the lines: among them while they are few, beside the axes when they are many.

    Beside the axes it takes room from them; `make_room` gives it back.
    """
    if len(lines) <= _AMONG:
        return axes.legend(lines, labels, fontsize="small")
    height = 72 * axes.figure.get_figheight() - 40  # in points, as the size of the text is
    columns = math.ceil(len(lines) / max(1, height // 12.5))
    return axes.legend(
        lines, labels, fontsize="small", ncols=columns, loc="upper left", bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
    )  # fmt: skip


def make_room(figure: Any, legend: Any, size: tuple[float, float]) -> None:
    """Widen a figure of the given size by what the legend takes of it beside the axes."""
    width, height = size
    if len(legend.get_texts()) > _AMONG:
        width += legend.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    figure.set_size_inches(width, height)


def drawable(values: Any, scale: Any) -> np.ndarray:
    """The values with NaN, where a line has a gap, for what the scale has no place for."""
    array = np.array(values, dtype=float)
    shown = abs(array) < _LARGEST
    if scale == "log":
        shown &= array > 1 / _LARGEST
    elif scale == "logit":
        shown &= (array > 1e-14) & (array < 1 - 1e-14)
    array[~shown] = np.nan
    return array
