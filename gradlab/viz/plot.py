"""Quick plots on the current axes of pyplot, as one makes them while trying things out.

``plt`` of this module is `matplotlib.pyplot`, imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from gradlab.errors import (
    DTypeError,
    OptionError,
    ShapeError,
    message,
    missing_dependency,
)
from gradlab.notebook import notebook
from gradlab.ops.fetch import fetch
from gradlab.tensor import require_integer
from gradlab.viz.figure import set_axis, write_legend
from gradlab.viz.images import as_images, as_titles, draw_image, to_numpy

FORMATS = ("-", "m--", "g-.", "r:")


def __getattr__(name: str) -> Any:
    if name == "plt":
        return import_pyplot("plt")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def plot(
    X: Any,
    Y: Any = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    legend: Sequence[str] = (),
    xlim: Any = None,
    ylim: Any = None,
    xscale: Any = "linear",
    yscale: Any = "linear",
    fmts: Sequence[str] = FORMATS,
    figsize: tuple[float, float] = (3.5, 2.5),
    axes: Any = None,
) -> None:
    """Draw curves on the current axes, in place of what is there.

    Parameters
    ----------
    X, Y: the values of a curve, or a list of such, or a matrix with a curve in each row: numbers,
        arrays, tensors on any device, which may require gradients. One ``X`` serves all curves of
        ``Y``. ``X`` alone is drawn over 0, 1, 2, …
    xlabel, ylabel, xlim, ylim, xscale, yscale: as in `ProgressBoard`.
    legend: the names of the curves.
    fmts: the formats of the curves as Matplotlib writes them; further curves take them again, in
        other colours.
    figsize: width and height in inches of the figure, if there is none yet, and of later ones.
    axes: Matplotlib axes to use instead of the current ones.

    Raises `ShapeError` where X and Y differ in the number of curves or of points, `DTypeError` for
    complex values, `OptionError` for an unknown scale.

    >>> import gradlab as gl
    >>> x = gl.linspace(0, 3, 50)
    >>> plot(x, [x**2, 2 * x - 1], "x", "f(x)", legend=["x²", "tangent at 1"])
    """
    curves = _pair(X, Y)
    if not fmts:
        raise OptionError(message("plot", expected="at least one format in fmts", got=repr(fmts)))
    pyplot = import_pyplot("plot")
    set_figsize(figsize)
    if axes is None:
        axes = _current_axes(pyplot)
    axes.cla()
    for i, (x, y) in enumerate(curves):
        points = (y,) if x is None else (x, y)
        (line,) = axes.plot(*points, fmts[i % len(fmts)])
        if i >= len(fmts):  # the format alone would make it look like an earlier one
            line.set_color(f"C{i % 10}")
    _label(axes, xlabel, ylabel, legend)
    set_axis("plot", axes, "x", xscale, xlim)
    set_axis("plot", axes, "y", yscale, ylim)


def set_axes(
    axes: Any,
    xlabel: str | None = None,
    ylabel: str | None = None,
    xlim: Any = None,
    ylim: Any = None,
    xscale: Any = "linear",
    yscale: Any = "linear",
    legend: Sequence[str] = (),
) -> None:
    """Give Matplotlib axes their labels, limits, scales, legend and a grid.

    >>> figure = import_pyplot("example").figure()
    >>> set_axes(figure.gca(), "x", "y", xlim=[0, 10], yscale="log")
    >>> figure.gca().get_yscale()
    'log'
    """
    _label(axes, xlabel, ylabel, legend)
    set_axis("set_axes", axes, "x", xscale, xlim)
    set_axis("set_axes", axes, "y", yscale, ylim)


def _label(axes: Any, xlabel: str | None, ylabel: str | None, legend: Sequence[str]) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    names = [legend] if isinstance(legend, str) else list(legend)
    if names:
        lines = axes.get_lines()[: len(names)]
        for line, name in zip(lines, names, strict=False):
            line.set_label(name)  # so that a later plt.legend() finds it
        write_legend(axes, list(lines), names[: len(lines)])
    axes.grid(True)


def set_figsize(figsize: tuple[float, float] = (3.5, 2.5)) -> None:
    """Set the width and height in inches of the figures that pyplot makes from now on.

    >>> set_figsize((4.5, 3.5))
    """
    pyplot = import_pyplot("set_figsize")
    use_svg_display()
    pyplot.rcParams["figure.figsize"] = figsize


def use_svg_display() -> None:
    """Have a notebook show pyplot's figures as SVG; elsewhere there is nothing to do.

    >>> use_svg_display()
    """
    if notebook() is None:
        return
    import_pyplot("use_svg_display")
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")


def show_images(
    imgs: Any, num_rows: int, num_cols: int, titles: Any = None, scale: float = 1.5
) -> np.ndarray:
    """Draw images in a figure of pyplot, and return its axes, an array of ``num_rows × num_cols``.

    `gradlab.viz.show_images` is the same for a sheet that chooses its rows and needs no pyplot.

    Parameters
    ----------
    imgs: images as there, or a list of arrays, tensors or PIL images, which may differ in size.
        What has no place is left out.
    num_rows, num_cols: images above and beside one another.
    titles: what to write above each that is drawn.
    scale: height and width of each in inches.

    >>> axes = show_images(np.zeros((4, 8, 8)), 2, 2, titles=["a", "b", "c", "d"])
    >>> axes.shape, axes[3].get_title()
    ((4,), 'd')
    """
    num_rows = require_integer("show_images", "num_rows", num_rows)
    num_cols = require_integer("show_images", "num_cols", num_cols)
    images = _separate(imgs)[: num_rows * num_cols]
    if titles is None or not len(titles):
        titles = [""] * len(images)
    titles = as_titles("show_images", titles[: len(images)], len(images))
    pyplot = import_pyplot("show_images")
    use_svg_display()
    figure = pyplot.figure(figsize=(num_cols * scale, num_rows * scale), layout="constrained")
    axes = figure.subplots(num_rows, num_cols, squeeze=False).flatten()
    for each in axes:
        each.set_axis_off()
    for each, image, title in zip(axes, images, titles, strict=False):
        draw_image(each, image, title)
    return axes


def _separate(images: Any) -> list[np.ndarray]:
    """Each image on its own, as they may differ in size."""
    if isinstance(images, list | tuple):
        arrays = [to_numpy(image)[np.newaxis] for image in images]
        return [as_images("show_images", array)[0] for array in arrays]
    return list(as_images("show_images", images))


def import_pyplot(operation: str) -> ModuleType:
    """Matplotlib's pyplot; where it is absent, the error names what needs it."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise missing_dependency("matplotlib", "viz", operation) from None
    return pyplot


def _current_axes(pyplot: Any) -> Any:
    if not pyplot.get_fignums():
        pyplot.figure(layout="constrained")  # at this size the labels would be cut off
    return pyplot.gca()


def _pair(X: Any, Y: Any) -> list[tuple[np.ndarray | None, np.ndarray]]:
    """The x and y values of each curve; no x where the curve is drawn over its index."""
    if Y is None:
        return [(None, y) for y in _curves("X", X)]
    ys, xs = _curves("Y", Y), _curves("X", X)
    if len(xs) == 1:
        xs *= len(ys)
    if len(xs) != len(ys):
        expected = f"one X for all curves, or one for each of the {len(ys)} in Y"
        raise ShapeError(message("plot", expected=expected, got=f"{len(xs)} in X"))
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if len(x) not in (0, len(y)):
            got = f"{len(x)} and {len(y)} in curve {i}"
            raise ShapeError(message("plot", expected="as many values of x as of y", got=got))
    return [(x if len(x) else None, y) for x, y in zip(xs, ys, strict=True)]


def _curves(name: str, values: Any) -> list[np.ndarray]:
    """The curves in the values of an argument: themselves, or one by one."""
    if isinstance(values, list | tuple):
        if not values:
            return [np.empty(0)]
        if not all(map(_is_one_value, values)):
            return [_values(name, value) for value in values]
        values = fetch(values)
    array = to_numpy(values)
    if array.ndim == 2 and 1 not in array.shape:
        return [_values(name, row) for row in array]
    return [_values(name, array)]


def _is_one_value(value: Any) -> bool:
    if hasattr(value, "ndim"):
        return value.ndim == 0
    return isinstance(value, str) or not hasattr(value, "__len__")


def _values(name: str, values: Any) -> np.ndarray:
    """The values of one curve, a row or a column."""
    array = to_numpy(fetch(values) if isinstance(values, list | tuple) else values)
    if array.size != max(array.shape, default=1):
        expected = f"the values of a curve, or of several in a list or in rows, in {name}"
        raise ShapeError(message("plot", expected=expected, got=f"shape {array.shape}"))
    if array.dtype.kind == "c":
        hint = "plot its .real, .imag or .abs()"
        raise DTypeError(message("plot", expected="real numbers", got=str(array.dtype), hint=hint))
    # Matplotlib knows no bfloat16; dates and names it does.
    known = array.dtype.kind in "biufMmUSO"
    return array.reshape(-1) if known else array.reshape(-1).astype(np.float32)
