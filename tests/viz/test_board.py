"""The board keeps what is noted, draws it whatever it is, and reads a device when it draws."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import gradlab as gl
from gradlab._environment import pip_install
from gradlab.errors import MissingDependencyError, OptionError, ShapeError
from gradlab.viz import Point, ProgressBoard, board as module

matplotlib = pytest.importorskip("matplotlib")


def drawn(board):
    """The points of each line by its name in the legend."""
    axes = board.figure().axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    return dict(zip(names, [line.get_xydata().tolist() for line in axes.lines], strict=True))


def noted(*values, label="loss", every_n=1, **options):
    board = ProgressBoard(**options)
    for x, y in enumerate(values):
        board.draw(x, y, label, every_n)
    return board


# ------------------------------------------------------------------------------------- the points


def test_means_of_every_n():
    board = noted(0, 1, 2, 3, 4, every_n=2)
    assert board.data == {"loss": [(0.5, 0.5), (2.5, 2.5)]}
    assert board.data["loss"][-1].y == 2.5
    board.draw(5, 8, "loss", every_n=2)
    assert board.data["loss"][2:] == [Point(4.5, 6.0)]


@pytest.mark.parametrize("every_n", [1, 0, 0.4, -3, 1.9, np.int64(1), True])
def test_less_than_two_is_one(every_n):
    assert len(noted(1, 2, 3, every_n=every_n).data["loss"]) == 3


def test_a_fraction_is_left_out():
    assert len(noted(*range(5), every_n=2.5).data["loss"]) == 2


def test_a_curve_of_fewer_points_than_every_n():
    board = noted(1, 3, every_n=10)
    assert board.data == {"loss": []}
    assert drawn(board) == {"loss": [[0.5, 2.0]]}, "a picture shows the mean so far"
    assert board.data == {"loss": []}
    board.flush()
    board.flush()
    assert board.data == {"loss": [(0.5, 2.0)]}
    board.draw(2, 5, "loss", every_n=1)
    assert board.data["loss"][1:] == [(2.0, 5.0)]


@pytest.mark.parametrize(
    "value",
    [
        gl.tensor(2.0),
        gl.tensor([[2.0]], requires_grad=True),
        gl.tensor(2, dtype=gl.int64),
        gl.tensor(2.0, dtype=gl.bfloat16),
        np.float32(2),
        np.array([2.0]),
        2,
    ],
)
def test_kinds_of_numbers(value):
    board = ProgressBoard()
    board.draw(value, value, "loss")
    (point,) = board.data["loss"]
    assert point == (2.0, 2.0)
    assert [type(each) for each in point] == [float, float]


def test_a_value_that_changes_later_was_noted_before():
    total, array, board = gl.tensor(1.0), np.array(1.0), ProgressBoard()
    board.draw(0, total, "a")
    board.draw(0, array, "b")
    total += 1
    array += 1
    assert board.data == {"a": [(0, 1)], "b": [(0, 1)]}


def test_clear_and_draw_again():
    board = noted(1, 2)
    board.figure()
    board.draw(9, 9, "loss", every_n=5)
    board.clear()
    assert board.data == {}
    board.draw(0, 4.0, "other")
    assert drawn(board) == {"other": [[0, 4]]}
    assert repr(board) == "ProgressBoard(other: 1)"


def test_many_points_are_read_from_time_to_time(monkeypatch):
    monkeypatch.setattr(module, "_UNREAD", 10)
    board = noted(*range(25), every_n=3)
    assert len(board._noted) < 10
    assert [point.x for point in board.data["loss"]] == list(range(1, 24, 3))


@pytest.mark.parametrize("y", [gl.ones(3), np.ones((2, 1)), "high", None, 1j, [1.0]])
def test_what_is_not_a_number(y):
    with pytest.raises(ShapeError) as error:
        ProgressBoard().draw(0, y, "loss")
    several = hasattr(y, "shape")
    got = f"shape {y.shape}; take its .sum() or .mean() first" if several else repr(y)
    assert str(error.value) == (
        f"ProgressBoard.draw: expected a number or a tensor of one element as y, got {got}"
    )


@pytest.mark.parametrize("every_n", [math.inf, math.nan, "2 of 3", None])
def test_every_n_is_a_number(every_n):
    with pytest.raises(OptionError) as error:
        ProgressBoard().draw(0, 1, "loss", every_n)
    assert str(error.value) == (
        f"ProgressBoard.draw: expected every_n to be a finite number, got {every_n!r}"
    )


# ------------------------------------------------------------------------------------ the devices


def test_a_device_is_read_once_for_a_picture(fake_cuda):
    w = gl.ones(4, device="cuda", requires_grad=True)
    board = ProgressBoard()
    values = [(w * i).sum() for i in range(20)]
    gl.cuda.reset_statistics()
    for i, value in enumerate(values):
        board.draw(i, value, "a")
        board.draw(i, value.detach(), "b", every_n=2)
    counts = gl.cuda.statistics()
    assert (counts.copies_to_host, counts.synchronizations) == (0, 0)
    board.figure()
    assert gl.cuda.statistics().copies_to_host == 1
    assert [point.y for point in board.data["a"]] == [4 * i for i in range(20)]
    assert gl.cuda.statistics().copies_to_host == 1
    assert [point.y for point in board.data["b"]] == [4 * i + 2 for i in range(0, 20, 2)]


def test_a_sum_that_goes_on_on_a_device(fake_cuda):
    w = gl.ones((), device="cuda", requires_grad=True)
    total, losses, board = gl.zeros((), device="cuda"), gl.zeros((), device="cuda"), ProgressBoard()
    for i in range(3):
        total += 1
        losses += 2 * w  # recorded, and changed in place all the same
        board.draw(i, total, "total")
        board.draw(i, losses, "losses")
    assert [point.y for point in board.data["total"]] == [1, 2, 3]
    assert [point.y for point in board.data["losses"]] == [2, 4, 6]
    with pytest.raises(ShapeError, match=r"one element as y, got shape \(3,\)"):
        board.draw(0, gl.ones(3, device="cuda"), "total")


# ------------------------------------------------------------------------------------ the picture


@pytest.mark.parametrize("count", [1, 4, 5, 12, 41])
def test_no_curve_is_dropped(count):
    board = ProgressBoard()
    for x in range(2):
        for i in range(count):
            board.draw(x, i, f"_curve {i}" if i % 2 else f"curve {i}")
    assert list(drawn(board).values()) == [[[0, i], [1, i]] for i in range(count)]
    lines = board.figure().axes[0].lines
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(styles) == min(count, 40), "of 10 colours and 4 line styles"


def test_the_first_styles_are_those_given():
    board = ProgressBoard(ls=["-", ":"], colors=["red", "green"])
    for i in range(5):
        board.draw(0, i, i)
    lines = board.figure().axes[0].lines
    assert [(line.get_color(), line.get_linestyle()) for line in lines] == [
        ("red", "-"), ("green", ":"), ("red", ":"), ("green", "-"), ("red", "-"),
    ]  # fmt: skip
    board.ls, board.colors = "--", "black"
    assert {line.get_linestyle() for line in board.figure().axes[0].lines} == {"--"}


@pytest.mark.parametrize("count", [3, 9, 30])
def test_nothing_is_cut_off(count):
    board = ProgressBoard("epoch", "value")
    for i in range(count):
        board.draw(0, i, f"validation_loss_{i}")
        board.draw(1, 0, f"validation_loss_{i}")
    figure = board.figure()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for artist in (axes.get_legend(), axes.xaxis.label, axes.yaxis.label):
        box = artist.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    assert axes.get_window_extent().width > 2.5 * figure.dpi, "the curves keep their room"
    assert figure.get_figheight() == 2.5


def test_curves_go_on_in_the_artists_they_have():
    board = noted(1, 2)
    figure = board.figure()
    lines = list(figure.axes[0].lines)
    board.draw(2, 30, "loss")
    assert board.figure() is figure
    assert figure.axes[0].lines[0] is lines[0]
    assert figure.axes[0].get_ylim()[1] > 30
    board.draw(0, 1, "new")
    assert list(drawn(board)) == ["loss", "new"]


def test_changes_show_in_the_next_picture():
    board = noted(1, 10, 100, xlabel="step")
    (axes,) = board.figure().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("step", "", "linear")
    board.xlabel, board.ylabel, board.yscale, board.xlim = "epoch", "loss", "log", [0, 10]
    board.ylim = (None, 1000)
    board.figsize = (6, 4)
    assert board.figure().axes == [axes]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "loss", "log")
    assert axes.get_xlim() == (0, 10)
    assert 0 < axes.get_ylim()[0] <= 1
    assert axes.get_ylim()[1] == 1000
    assert board.figure().get_size_inches().tolist() == [6, 4]
    board.xlim = board.ylim = None
    board.draw(50, 5, "loss")
    assert board.figure().axes[0].get_xlim()[1] > 50


AWKWARD = [
    [math.nan] * 3,
    [math.inf, -math.inf, 1.0],
    [0.0, -1.0],
    [1e308, -1e308],
    [1e-320, 1.0],
    [5.0, 5.0],
    [1e30, 1e38, math.nan],
]


@pytest.mark.parametrize("scale", ["linear", "log", "symlog", "logit"])
@pytest.mark.parametrize("values", AWKWARD, ids=str)
def test_any_values_on_any_scale(values, scale):
    board = noted(*values, yscale=scale, xscale="log" if scale == "log" else "linear")
    board.figure().draw_without_rendering()
    board.xlim = board.ylim = [0, 10]
    board.figure().draw_without_rendering()
    assert [point.y for point in board.data["loss"]] == pytest.approx(values, nan_ok=True)


def test_points_at_one_x_and_limits_of_no_length():
    board = ProgressBoard(xlim=[0, 0])
    for y in range(3):
        board.draw(1, y, "loss")
    board.figure().draw_without_rendering()
    assert drawn(board) == {"loss": [[1, 0], [1, 1], [1, 2]]}


def test_a_single_point_is_seen():
    (line,) = noted(1).figure().axes[0].lines
    assert line.get_marker() == "."
    board = noted(1)
    board.figure()
    board.draw(1, 2, "loss")
    board.draw(1, 2, "acc")
    (axes,) = board.figure().axes
    assert [line.get_marker() for line in axes.lines] == ["None", "."]
    assert {line.get_marker() for line in axes.get_legend().get_lines()} == {"None"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"yscale": "lgo"}, "expected yscale to be one of asinh, .*linear, log, .*, got 'lgo'"),
        ({"xlim": [0]}, r"expected xlim to be two finite numbers, as in \[0, 10\], got \[0\]"),
        ({"ylim": 3}, r"expected ylim to be two finite numbers, as in \[0, 10\], got 3"),
        ({"ylim": [0, math.inf]}, r"expected ylim to be two finite numbers.*, got \[0, inf\]"),
        ({"ls": []}, r"expected at least one line style and one colour, got ls=\[\] and"),
    ],
)
def test_options_that_cannot_be(options, expected):
    with pytest.raises(OptionError, match=f"^ProgressBoard: {expected}"):
        noted(1, **options).figure()


def test_axes_of_ones_own():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3))
    left, right = figure.subplots(1, 2)
    board = noted(1, 2, axes=right)
    for i in range(9):
        board.draw(0, i, i)
    assert board.figure() is figure
    assert (len(left.lines), len(right.lines)) == (0, 10)
    assert figure.get_size_inches().tolist() == [7, 3]
    right.cla()
    board.figure()
    assert len(right.lines) == 10, "drawn again after the axes were cleared"
    board.axes = left
    board.figure()
    assert (len(left.lines), len(right.lines)) == (10, 0)
    right.cla()
    left.cla()
    board.clear()
    board.draw(0, 1, "after")
    assert list(drawn(board)) == ["after"]

    board = noted(1, 2)
    board.fig = board.figure()
    assert drawn(board) == {"loss": [[0, 1], [1, 2]]}, "once, in its own figure"

    whole = Figure()
    assert noted(1, fig=whole).figure() is whole
    assert len(whole.axes) == 1


def test_axes_of_a_subfigure(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    board = noted(1, 2, axes=figure.subfigures(1, 2)[1].subplots())
    assert board.figure() is figure
    board.save(tmp_path / "whole.png")


# --------------------------------------------------------------------------------- files, scripts


@pytest.mark.parametrize(
    ("ending", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_files(ending, start, tmp_path):
    path = tmp_path / "new" / f"curves.{ending}"
    noted(1, 2).save(path)
    assert path.read_bytes().startswith(start)


def test_flush_writes_the_file(tmp_path):
    path = tmp_path / "curves.svg"
    board = noted(1, 2, path=path, display=False)
    assert not path.exists()
    board.flush()
    assert path.exists()
    with pytest.raises(OptionError, match=r"^ProgressBoard\.save: expected a file name that ends"):
        board.save("curves.xyz")


def test_a_script_opens_nothing():
    code = """
import sys
from gradlab.viz import ProgressBoard
board = ProgressBoard()
for i in range(100):
    board.draw(i, i, "loss")
board.flush()
assert "matplotlib" not in sys.modules
board.figure()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_board_goes_on_from_its_state(tmp_path):
    whole, first, second = ProgressBoard(), ProgressBoard(), ProgressBoard()
    second.draw(0, 7.0, "of an earlier run")
    for board in (whole, first):
        for i in range(5):
            board.draw(i, 2.0 * i, "loss", every_n=2)
        board.draw(1, 3.0, ("not", "a string"))
    gl.save(first.state_dict(), tmp_path / "board")
    second.load_state_dict(gl.load(tmp_path / "board"))
    assert second.data == {"loss": whole.data["loss"]}
    for board in (whole, second):
        board.draw(5, 10.0, "loss", every_n=2)
    assert second.data["loss"] == whole.data["loss"] == [(0.5, 1), (2.5, 5), (4.5, 9)]


def test_copies_leave_the_figure_behind():
    board = noted(1, 2, 3, every_n=2, xlabel="epoch")
    board.fig = board.figure()
    for other in (copy.deepcopy(board), pickle.loads(pickle.dumps(board))):
        assert other.data == board.data == {"loss": [(0.5, 1.5)]}
        assert (other.fig, other.axes, other.xlabel) == (None, None, "epoch")
        assert other.figure() is not board.figure()
        other.flush()
        assert (len(other.data["loss"]), len(board.data["loss"])) == (2, 1)


# ------------------------------------------------------------------------------------- a notebook


class Shell:
    """What the board asks of a notebook's shell."""

    def __init__(self):
        self.events, self.functions, self.shown = self, [], []

    def register(self, event, function):
        assert event == "post_run_cell"
        self.functions.append(function)

    def unregister(self, event, function):
        self.functions.remove(function)

    def end_cell(self):
        for function in list(self.functions):
            function("result")

    def display(self, picture, **options):
        assert options == {"raw": True, "display_id": True}
        self.shown.append([picture["image/svg+xml"]])
        return self

    def update(self, picture, raw):
        self.shown[-1].append(picture["image/svg+xml"])


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    display = type(sys)("IPython.display")
    display.display = made.display
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(module, "notebook", lambda: made)
    module._tell_once.cache_clear()
    return made


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until it is moved."""
    made = {"now": 100.0}
    monkeypatch.setattr(module, "perf_counter", lambda: made["now"])
    return made


def test_pictures_are_few(shell, clock):
    board = ProgressBoard()
    for i in range(100):
        board.draw(i, i, "loss")
        clock["now"] += 0.01
    assert len(shell.shown) == 1
    assert 8 <= len(shell.shown[0]) <= 11, "the first at once, then one each tenth of a second"
    assert len(board.data["loss"]) == 100


def test_drawing_takes_a_tenth_of_the_time(shell, clock, monkeypatch):
    def slow(figure):
        clock["now"] += 1.0
        return "<svg/>"

    monkeypatch.setattr(module, "_svg", slow)
    board = ProgressBoard()
    for i in range(300):
        board.draw(i, i, "loss")
        clock["now"] += 0.1
    assert len(shell.shown[0]) == 5, "at 0, at 1.1 as the first one is slow by itself, 11.1, …"


def test_the_rest_is_drawn_at_the_end_of_the_cell(shell, clock):
    board = noted(*range(10), every_n=4)
    assert len(shell.shown[0]) == 1
    shell.end_cell()
    assert (len(shell.shown[0]), shell.functions) == (2, [])
    assert len(board.data["loss"]) == 2, "the third mean goes on in the next cell"
    shell.end_cell()
    assert len(shell.shown) == 1
    board.draw(10, 10, "loss")
    assert len(shell.shown) == 2, "another cell shows it under itself"


def test_flush_draws_now(shell, clock):
    board = noted(1, 2, 3)
    board.flush()
    assert len(shell.shown[0]) == 2
    board.display = False
    board.flush()
    shell.end_cell()
    assert len(shell.shown[0]) == 2


def test_nothing_to_show(shell, clock):
    ProgressBoard().flush()
    board = noted(1, 2, display=False)
    board.flush()
    assert shell.shown == []
    assert len(board.data["loss"]) == 2
    board.display = True
    board.draw(2, 3, "loss")
    assert len(shell.shown) == 1


def test_a_device_is_left_alone_between_pictures(shell, clock, fake_cuda):
    board = ProgressBoard()
    losses = [gl.ones((), device="cuda") * i for i in range(30)]
    board.draw(0, losses[0], "loss")
    gl.cuda.reset_statistics()
    for i, loss in enumerate(losses[1:], start=1):
        board.draw(i, loss, "loss")
    assert gl.cuda.statistics().copies_to_host == 0
    assert gl.cuda.statistics().synchronizations == 0
    shell.end_cell()
    assert gl.cuda.statistics().copies_to_host == 1


def test_a_wrong_option_at_the_end_of_a_cell(shell, clock, capsys):
    board = noted(1, 2)
    board.yscale = "lgo"
    shell.end_cell()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("ProgressBoard: expected yscale to be one of")


# ------------------------------------------------------------------------------ without matplotlib


@pytest.fixture
def without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    module._tell_once.cache_clear()


INSTALL = (
    "needs the package matplotlib, which is not installed; "
    f"run: {pip_install('viz', 'matplotlib')}\n"
)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib(tmp_path, capsys):
    board = noted(1, 2)
    for function in (board.figure, lambda: board.save(tmp_path / "a.svg")):
        with pytest.raises(MissingDependencyError, match=r'pip install "matplotlib>='):
            function()
    assert board._repr_svg_() is None
    board.flush()
    assert capsys.readouterr().out == ""
    board.path = tmp_path / "a.svg"
    board.flush()
    assert capsys.readouterr().out == f"ProgressBoard.save {INSTALL}"
    assert len(board.data["loss"]) == 2


@pytest.mark.usefixtures("without_matplotlib")
def test_a_notebook_without_matplotlib_says_so_once(shell, capsys):
    for _ in range(2):
        board = noted(1, 2, 3)
        board.flush()
        shell.end_cell()
        assert len(board.data["loss"]) == 3
    assert capsys.readouterr().out == f"ProgressBoard {INSTALL}"
    assert shell.shown == []
