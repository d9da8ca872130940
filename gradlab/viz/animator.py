"""`Animator`: curves of which all get a point at a time, as earlier editions of the notes draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlab.errors import ShapeError, message
from gradlab.notebook import notebook
from gradlab.tensor import require_number
from gradlab.viz.plot import FORMATS, import_pyplot, plot, use_svg_display


class Animator:
    """Curves in a figure of pyplot, drawn again with every point.

    In a notebook the picture is updated in place. In a script nothing opens by itself:
    ``d2l.plt.show()`` shows the figure, ``fig.savefig(path)`` writes it. `ProgressBoard` also takes
    values from a GPU without waiting for them, and means of several points.

    Parameters
    ----------
    xlabel, ylabel, xlim, ylim, xscale, yscale: as in `ProgressBoard`.
    legend: the names of the curves.
    fmts: the formats of the curves as Matplotlib writes them, taken in turn.
    nrows, ncols: axes below and beside one another, as ``axes``; the curves are in the first.
    figsize: width and height in inches.

    >>> animator = Animator(xlabel="epoch", legend=["train loss", "test loss"])
    >>> for epoch in range(3):
    ...     animator.add(epoch + 1, (2.0**-epoch, 3.0**-epoch))
    >>> animator.Y[0]
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        legend: Sequence[str] | None = None,
        xlim: Any = None,
        ylim: Any = None,
        xscale: Any = "linear",
        yscale: Any = "linear",
        fmts: Sequence[str] = FORMATS,
        nrows: int = 1,
        ncols: int = 1,
        figsize: tuple[float, float] = (3.5, 2.5),
    ) -> None:
        pyplot = import_pyplot("Animator")
        use_svg_display()
        self.fig, axes = pyplot.subplots(
            nrows, ncols, figsize=figsize, squeeze=False, layout="constrained"
        )
        self.axes = list(axes.flat)
        self.X: list[list[Any]] = []
        self.Y: list[list[Any]] = []
        self._options = {
            "xlabel": xlabel, "ylabel": ylabel, "legend": legend or (), "xlim": xlim, "ylim": ylim,
            "xscale": xscale, "yscale": yscale, "fmts": fmts, "figsize": figsize,
        }  # fmt: skip
        self._shown: Any = None
        if notebook() is not None:
            pyplot.close(self.fig)  # the cell would show it a second time when it ends

    def add(self, x: Any, y: Any) -> None:
        """Add a point to each curve: ``y`` is its value, or one for each, None for no point.

        ``x`` is one number for all, or one for each. Raises `ShapeError` where there are more or
        fewer values than curves.
        """
        ys = list(y) if _are_several(y) else [y]
        xs = list(x) if _are_several(x) else [x] * len(ys)
        if not self.Y:
            self.X, self.Y = [[] for _ in ys], [[] for _ in ys]
        if not len(xs) == len(ys) == len(self.Y):
            got = f"{len(xs)} of x and {len(ys)} of y"
            raise ShapeError(
                message("Animator.add", expected=f"{len(self.Y)} values, one per curve", got=got)
            )
        for i, (a, b) in enumerate(zip(xs, ys, strict=True)):
            if a is not None and b is not None:
                self.X[i].append(require_number("Animator.add", a))
                self.Y[i].append(require_number("Animator.add", b))
        plot(self.X, self.Y, axes=self.axes[0], **self._options)
        self._show()

    def _show(self) -> None:
        if notebook() is None:
            return
        from IPython.display import display

        if self._shown is None:
            self._shown = display(self.fig, display_id=True)
        else:
            self._shown.update(self.fig)


def _are_several(value: Any) -> bool:
    return value.ndim > 0 if hasattr(value, "ndim") else hasattr(value, "__len__")
