"""Curves that are drawn while they come."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from os import PathLike
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from gradlab.console import stdout, tell
from gradlab.errors import (
    GradlabError,
    MissingDependencyError,
    OptionError,
    message,
    printable,
)
from gradlab.fields import COUNT, NUMBER, Each, array_of, check_fields
from gradlab.notebook import notebook
from gradlab.ops.fetch import fetch
from gradlab.tensor import Tensor, require_number
from gradlab.viz.figure import (
    drawable,
    finish,
    make_room,
    new_figure,
    set_axis,
    write_legend,
)

# In a notebook, a picture follows the one before after at least so many seconds, and after so many
# times what drawing that one took: drawing takes a tenth of the time at most.
_INTERVAL = 0.1
_REST = 9

# The colours of Matplotlib's own cycle.
_COLORS = tuple(f"C{i}" for i in range(10))

# So many points are kept as they were noted, with what they hold of a device, before they are read.
_UNREAD = 1 << 16


class Point(NamedTuple):
    """A point of a curve."""

    x: float
    y: float


class ProgressBoard:
    """Curves of a run, drawn while it goes on in a notebook, written to a file from a script.

    In a notebook the picture appears with the first point, is then updated in place, at most ten
    times a second and for at most a tenth of the time, and is complete when the cell ends. In a
    script nothing opens and nothing waits: `save` writes the picture. All arguments are attributes
    too, and may be changed at any time; the next picture shows it.

    Parameters
    ----------
    xlabel, ylabel: what stands at the axes.
    xlim, ylim: their limits, as ``[0, 10]``; None: as the points need.
    xscale, yscale: ``"linear"``, ``"log"``, ``"symlog"`` or another scale of Matplotlib. Values a
        scale has no place for, such as 0 in a logarithm, are left out, as NaN and infinity are.
    ls, colors: line styles and colours, taken in turn, so combined that the curves differ.
    fig, axes: a Matplotlib figure or axes to draw into; by default a figure of its own.
    figsize: width and height of its own figure, in inches.
    display: False: keep the points, but show nothing.
    path: a file that `flush` writes the picture to (SVG, PNG, PDF).

    >>> board = ProgressBoard("epoch", yscale="log")
    >>> for i in range(10):
    ...     board.draw(i / 10, 2.0**-i, "loss", every_n=5)
    >>> board.data["loss"]
    [Point(x=0.2, y=0.3875), Point(x=0.7, y=0.012109375)]
    >>> board.save("loss.svg")
    """

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        xlim: Any = None,
        ylim: Any = None,
        xscale: Any = "linear",
        yscale: Any = "linear",
        ls: Sequence[Any] = ("-", "--", "-.", ":"),
        colors: Sequence[Any] = _COLORS,
        fig: Any = None,
        axes: Any = None,
        figsize: tuple[float, float] = (3.5, 2.5),
        display: bool = True,
        *,
        path: str | PathLike[str] | None = None,
    ) -> None:
        self.xlabel, self.ylabel = xlabel, ylabel
        self.xlim, self.ylim = xlim, ylim
        self.xscale, self.yscale = xscale, yscale
        self.ls, self.colors = ls, colors
        self.fig, self.axes = fig, axes
        self.figsize = figsize
        self.display = display
        self.path = path
        self._noted: list[tuple[Any, Any, Hashable, float]] = []  # not yet read
        # By label: the sums of x and y, and their number, that the next point is the mean of.
        self._begun: dict[Hashable, list[float]] = {}
        self._data: dict[Hashable, list[Point]] = {}
        self._picture: _Picture | None = None
        self._screen: _Screen | None = None
        self._due = 0.0  # when to draw again; infinity where nothing is shown

    def __repr__(self) -> str:
        noted = ", ".join(
            f"{printable(label)}: {len(points)}" for label, points in self.data.items()
        )
        return f"ProgressBoard({noted or 'empty'})"

    def __getstate__(self) -> dict[str, Any]:
        """All but the figure, which belongs to this board and this process."""
        self._read()
        return {
            **vars(self),
            "_noted": [],
            "_begun": {label: list(sums) for label, sums in self._begun.items()},
            "_data": {label: list(points) for label, points in self._data.items()},
            **dict.fromkeys(("fig", "axes", "_picture", "_screen")),
            "_due": 0.0,
        }

    def draw(self, x: Any, y: Any, label: Hashable, every_n: float = 1) -> None:
        """Note a point of the curve ``label``; the curve gets the mean of every ``every_n``.

        ``x`` and ``y`` are numbers, or tensors of one element. Those on a GPU are read when a
        picture is drawn, all in one transfer: noting them does not wait. An ``every_n`` below 1
        counts as 1, a fraction is left out.

        Raises `ShapeError` for more than one element, `OptionError` for an ``every_n`` that is not
        a finite number.

        >>> board = ProgressBoard()
        >>> board.draw(0, 1.0, "loss"), board.data
        (None, {'loss': [Point(x=0.0, y=1.0)]})
        """
        if x.__class__ is not float:
            x = _keep("x", x)
        if y.__class__ is not float:
            y = _keep("y", y)
        if every_n.__class__ is not int:
            every_n = _whole(every_n)
        self._noted.append((x, y, label, every_n))
        if len(self._noted) >= _UNREAD:
            self._read()
        if self.display and self._due < math.inf and perf_counter() >= self._due:
            self._show()

    @property
    def data(self) -> dict[Hashable, list[Point]]:
        """The points of each curve by its label; reading them waits for what a GPU has to send."""
        self._read()
        return self._data

    def flush(self) -> None:
        """Complete the means begun, of fewer points than asked for; draw, and write ``path``.

        >>> board = ProgressBoard()
        >>> board.draw(1, 2.0, "loss", every_n=10)
        >>> board.flush()
        >>> board.data
        {'loss': [Point(x=1.0, y=2.0)]}
        """
        self._read()
        for label in self._begun:
            self._complete(label)
        if self.display and self._due < math.inf:
            self._show()
        if self.path is not None:
            try:
                self.save(self.path)
            except MissingDependencyError as error:
                _tell_once(str(error))  # a run is not lost for a picture

    def clear(self) -> None:
        """Forget all points and curves."""
        self._noted.clear()
        self._begun, self._data = {}, {}
        if self._picture is not None:
            self._picture.clear()
        self._due = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The curves whose label is a string, by label: their points, and the mean that is begun.

        >>> board = ProgressBoard()
        >>> board.draw(1, 2.0, "loss")
        >>> board.state_dict()["loss"]["points"]
        array([[1., 2.]])
        """
        return {
            label: {"points": np.array(points).reshape(-1, 2), "begun": list(self._begun[label])}
            for label, points in self.data.items()
            if isinstance(label, str)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the curves that `state_dict` gave, and no others."""
        points = array_of("float64", None, 2)
        curve_of = {"points": points, "begun": (NUMBER, NUMBER, COUNT)}
        check_fields("ProgressBoard.load_state_dict", state, Each(curve_of))
        self.clear()
        for label, curve in state.items():
            self._data[label] = [Point(x, y) for x, y in curve["points"].tolist()]
            self._begun[label] = list(curve["begun"])

    def figure(self) -> Any:
        """The Matplotlib figure with all that was noted.

        >>> board = ProgressBoard("epoch")
        >>> board.draw(1, 0.5, "loss")
        >>> board.figure().axes[0].get_xlabel()
        'epoch'
        """
        return self._draw("ProgressBoard.figure", complete=True)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture to a file; the ending of its name says how (SVG, PNG, PDF)."""
        finish("ProgressBoard.save", self._draw("ProgressBoard.save", complete=True), path)

    def _repr_svg_(self) -> str | None:
        # A board that is the value of the cell that draws it is shown there already.
        if not self.data or (self._screen is not None and self._screen.is_shown):
            return None
        try:
            return _svg(self._draw("ProgressBoard", complete=True))
        except MissingDependencyError:
            return None

    def _read(self) -> None:
        """Bring what was noted into the curves."""
        # Waiting for a device may be interrupted: nothing is taken off the list before.
        xs = fetch(entry[0] for entry in self._noted)
        ys = fetch(entry[1] for entry in self._noted)
        noted, self._noted = self._noted, []
        for x, y, (_, _, label, every_n) in zip(xs, ys, noted, strict=True):
            begun = self._begun.get(label)
            if begun is None:
                begun = self._begun[label] = [0.0, 0.0, 0]
                self._data[label] = []
            begun[0] += x
            begun[1] += y
            begun[2] += 1
            if begun[2] >= every_n:
                self._complete(label)

    def _complete(self, label: Hashable) -> None:
        """Give a curve the mean it has begun, if it has."""
        self._data[label] += _mean(self._begun[label])
        self._begun[label] = [0.0, 0.0, 0]

    def _draw(self, operation: str, complete: bool) -> Any:
        """Draw the curves, with ``complete`` up to the means begun, and return the figure.

        The first of its means a curve shows at once, so that there is something to see.
        """
        self._read()
        if self._picture is not None and not self._picture.fits(self):
            self._picture.clear()
            self._picture = None
        if self._picture is None:
            self._picture = _Picture(operation, self)
        curves = {
            label: points + _mean(self._begun[label]) if complete or not points else points
            for label, points in self._data.items()
        }
        self._picture.draw(self, curves)
        return self._picture.figure

    def _show(self, complete: bool = False) -> None:
        """Bring the picture onto the screen, if there is one and there are points."""
        if self._screen is None:
            shell = notebook()
            if shell is None:
                self._due = math.inf
                return
            self._screen = _Screen(shell)
        if not self.data:
            return
        is_first = self._picture is None  # it loads Matplotlib, which the next will not
        begin = perf_counter()
        try:
            svg = _svg(self._draw("ProgressBoard", complete))
            self._screen.at_end_of_cell(self._end_cell)
            self._screen.show(svg)
            end = perf_counter()
            self._due = end + max(_INTERVAL, 0.0 if is_first else _REST * (end - begin))
        except MissingDependencyError as error:
            self._due = math.inf
            _tell_once(str(error))

    def _end_cell(self) -> None:
        """Draw what has come since the last picture; what comes later is shown in its own cell."""
        try:
            if self.display and self._due < math.inf:
                self._show(complete=True)
        except GradlabError as error:  # IPython would print it with a traceback from inside
            tell(str(error), stdout())
        self._screen, self._due = None, 0.0


class _Picture:
    """The artists of a board: each curve has a line, which gets its points anew."""

    def __init__(self, operation: str, board: ProgressBoard) -> None:
        self.is_own = board.fig is None and board.axes is None
        if board.axes is not None:
            self.axes = board.axes
        else:
            figure = board.fig
            if figure is None:
                figure = new_figure(operation, *board.figsize)
            self.axes = figure.gca()
        self.figure = self.axes.figure.canvas.figure  # of a subfigure, the whole
        self.made_for = (board.fig, board.axes)
        self.lines: dict[Hashable, Any] = {}
        self.styles: list[dict[str, Any]] = []
        self.legend: Any = None

    def fits(self, board: ProgressBoard) -> bool:
        """Whether it is the picture to draw into still."""
        asked = (board.fig, board.axes)
        cleared = any(line.axes is None for line in self.lines.values())  # by axes.cla()
        return not cleared and all(a is b for a, b in zip(self.made_for, asked, strict=True))

    def clear(self) -> None:
        """Take the curves away, unless the user has cleared the axes."""
        for line in self.lines.values():
            if line.axes is not None:
                line.remove()
        if self.legend is not None and self.axes.get_legend() is self.legend:
            self.legend.remove()
        self.lines, self.styles, self.legend = {}, [], None

    def draw(self, board: ProgressBoard, curves: dict[Hashable, list[Point]]) -> None:
        """Draw the curves as the board says."""
        styles = [_style(board, number) for number in range(len(curves))]
        if styles != self.styles:
            self._set_styles(list(curves), styles)
        for label, points in curves.items():
            x, y = np.array(points).reshape(-1, 2).T
            self.lines[label].set_data(drawable(x, board.xscale), drawable(y, board.yscale))
            self.lines[label].set_marker("." if len(points) == 1 else "None")
        self.axes.relim()
        for which in "xy":
            scale, limits = (getattr(board, which + name) for name in ("scale", "lim"))
            set_axis("ProgressBoard", self.axes, which, scale, limits)
            label = getattr(board, f"{which}label")
            if label is not None:
                getattr(self.axes, f"set_{which}label")(label)
        if self.is_own and self.legend is not None:
            make_room(self.figure, self.legend, board.figsize)

    def _set_styles(self, labels: list[Hashable], styles: list[dict[str, Any]]) -> None:
        """Make lines for curves that are new, and show the styles of all in the legend."""
        for label, style in zip(labels, styles, strict=True):
            if label not in self.lines:
                (self.lines[label],) = self.axes.plot([], [])
            self.lines[label].set(**style, marker="None")  # nor has the legend one
        self.styles = styles
        self.legend = write_legend(
            self.axes, list(self.lines.values()), list(map(printable, labels))
        )


class _Screen:
    """A cell's output."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._handle: Any = None
        self._at_end: Any = None

    @property
    def is_shown(self) -> bool:
        return self._handle is not None

    def show(self, svg: str) -> None:
        """Show the picture, in the place of the one before."""
        from IPython.display import display

        picture = {"image/svg+xml": svg, "text/plain": "<ProgressBoard>"}
        if self._handle is None:
            self._handle = display(picture, raw=True, display_id=True)
        else:
            self._handle.update(picture, raw=True)

    def at_end_of_cell(self, function: Any) -> None:
        """Call the function once, when the cell has run."""
        if self._at_end is not None:
            return

        def at_end(*_: Any) -> None:
            self._shell.events.unregister("post_run_cell", at_end)
            function()

        self._at_end = at_end
        self._shell.events.register("post_run_cell", at_end)


def _keep(name: str, value: Any) -> Any:
    """A number, or a tensor that holds one on a device and that nothing changes any more."""
    if isinstance(value, int):
        return float(value)
    if not isinstance(value, Tensor) or value.device.type == "cpu" or value.numel() != 1:
        return require_number("ProgressBoard.draw", value, f" as {name}")
    return value.detach().clone()  # a sum may go on, as `total += loss` does, before it is read


def _whole(every_n: Any) -> int:
    try:
        return int(every_n)
    except (TypeError, ValueError, OverflowError):
        got = repr(every_n)
    raise OptionError(
        message("ProgressBoard.draw", expected="every_n to be a finite number", got=got)
    )


def _mean(begun: list[float]) -> list[Point]:
    """The point that is the mean of what was begun; none where nothing was."""
    x, y, count = begun
    return [Point(x / count, y / count)] if count else []


def _style(board: ProgressBoard, number: int) -> dict[str, Any]:
    """Line style and colour of the curve ``number``: each combination once before any again."""
    styles, colors = ([x] if isinstance(x, str) else list(x) for x in (board.ls, board.colors))
    if not styles or not colors:
        expected = "at least one line style and one colour"
        got = f"ls={board.ls!r} and colors={board.colors!r}"
        raise OptionError(message("ProgressBoard", expected=expected, got=got))
    rounds = number // math.lcm(len(styles), len(colors))
    return {
        "linestyle": styles[(number + rounds) % len(styles)],
        "color": colors[number % len(colors)],
    }


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


@cache
def _tell_once(line: str) -> None:
    tell(line, stdout())
