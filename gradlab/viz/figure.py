"""Figures that need no display."""

from __future__ import annotations

import sys
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

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


def notebook() -> Any:
    """IPython's shell if this is a notebook, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # By name, since ipykernel need not be installed; Colab's shell is derived from this one.
    kinds = {kind.__name__ for kind in type(shell).__mro__}
    return shell if "ZMQInteractiveShell" in kinds else None


def set_axis(operation: str, axes: Any, which: str, scale: Any, limits: Any) -> None:
    """Give the axis ``"x"`` or ``"y"`` its scale and its limits; limits None: as the data are."""
    from matplotlib.scale import get_scale_names

    if isinstance(scale, str) and scale not in get_scale_names():
        expected = f"{which}scale to be one of {', '.join(get_scale_names())}"
        raise OptionError(message(operation, expected=expected, got=repr(scale)))
    if getattr(axes, f"get_{which}scale")() != scale:
        getattr(axes, f"set_{which}scale")(scale)
    if limits is None:
        getattr(axes, f"set_autoscale{which}_on")(True)
    else:
        bounds = _read_limits(operation, which, scale, limits)
        getattr(axes, f"set_{which}lim")(*bounds)


def _read_limits(operation: str, which: str, scale: Any, limits: Any) -> list[float | None]:
    try:
        low, high = (None if bound is None else float(bound) for bound in limits)
    except (TypeError, ValueError):
        low = high = np.nan
    bounds = [low, high]
    if not all(bound is None or np.isfinite(bound) for bound in bounds):
        expected = f"{which}lim to be two finite numbers, as in [0, 10]"
        raise OptionError(message(operation, expected=expected, got=repr(limits)))
    # Zero is a bound that many set before they choose a logarithmic scale, which has no zero.
    return [None if scale == "log" and bound is not None and bound <= 0 else bound
            for bound in bounds]  # fmt: skip


def drawable(values: Any, scale: Any) -> np.ndarray:
    """The values with NaN, where a line has a gap, for what the scale has no place for."""
    array = np.array(values, dtype=float)
    shown = np.isfinite(array)
    if scale == "log":
        shown &= array > 0
    elif scale == "logit":
        shown &= (array > 0) & (array < 1)
    array[~shown] = np.nan
    return array
