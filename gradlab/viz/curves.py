"""Learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from gradlab.errors import DataError, printable
from gradlab.viz.figure import finish, new_figure

_PREFIXES = ("train_", "val_")
_NOT_DRAWN = ("epoch", "step")

Points = list[tuple[float, float]]


def plot_history(history: Any, path: str | PathLike[str] | None = None) -> Any:
    """Draw what a run measured, and return the Matplotlib figure.

    Metrics that differ in ``train_`` or ``val_`` only share a panel: ``train_loss`` and
    ``val_loss`` stand in one called ``loss``. Values taken every few steps are a thin line, those
    of whole epochs a line with points, each at the end of its epoch. ``history`` is a
    `gradlab.training.History`, or a list of rows such as ``{"step": 10, "train_loss": 0.5}``. With
    ``path``, the figure is also written to that file (PNG, SVG, PDF).

    >>> figure = plot_history([{"step": 1, "train_loss": 0.9}, {"step": 2, "train_loss": 0.4}])
    >>> figure.axes[0].get_title()
    'loss'
    """
    epochs = list(getattr(history, "epochs", history))
    steps = list(getattr(history, "steps", []))
    panels = _panels([*epochs, *steps])
    if not panels:
        raise DataError("plot_history: the history is empty; was the model trained?")
    figure = new_figure("plot_history", 4.8 * len(panels), 3.6)
    for axes, (title, names) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        _draw_panel(axes, title, names, epochs, steps)
    return finish("plot_history", figure, path)


def _panels(rows: Iterable[Mapping[str, float]]) -> dict[str, list[str]]:
    """The names of the metrics by the panel they are drawn in."""
    panels: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        if name in _NOT_DRAWN:
            continue
        title = next((name[len(p) :] for p in _PREFIXES if name.startswith(p)), name)
        panels.setdefault(title, []).append(name)
    return panels


def _draw_panel(axes: Any, title: str, names: list[str], epochs: Any, steps: Any) -> None:
    # Of the default colours there are ten; a panel with more curves takes them from a colour map.
    colours = _colours(len(names))
    for name, colour in zip(names, colours, strict=True):
        fine, coarse = _points(steps, name), _points(epochs, name)
        if fine:
            label = printable(f"{name} (per step)" if coarse else name)
            axes.plot(
                *zip(*fine, strict=True), color=colour, alpha=0.35, linewidth=1, label=label,
                marker="." if len(fine) == 1 else None,
            )  # fmt: skip
        if coarse:
            _draw_epochs(axes, name, colour, coarse, fine)
    axes.set_title(printable(title))
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_epochs(axes: Any, name: str, colour: Any, coarse: Points, fine: Points) -> None:
    # What is also measured at the steps is, for an epoch, their mean; anything else was measured
    # at its end.
    label = printable(f"{name} (epoch mean)" if fine else name)
    if len(coarse) > 1:
        axes.plot(*zip(*coarse, strict=True), color=colour, marker="o", markersize=3, label=label)
        return
    # A single epoch has no curve: its mean is a level over its steps.
    (end, value), start = coarse[0], min([x for x, _ in fine], default=coarse[0][0])
    across = [start, end] if start < end else [end]
    axes.plot(
        across, [value] * len(across), color=colour, linestyle="--", marker="o", markersize=5,
        markevery=[len(across) - 1], label=label,
    )  # fmt: skip


def _points(rows: Any, name: str) -> Points:
    return [
        (row.get("step", number), row[name])
        for number, row in enumerate(rows, start=1)
        if name in row
    ]


def _colours(count: int) -> list[Any]:
    if count <= 10:
        return [f"C{i}" for i in range(count)]
    from matplotlib import colormaps

    return [colormaps["turbo"]((i + 0.5) / count) for i in range(count)]
