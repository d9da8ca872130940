"""Quick plots take whatever holds numbers, and draw all of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import DTypeError, MissingDependencyError, OptionError, ShapeError
from gradlab.viz.plot import plot, set_axes, set_figsize, show_images, use_svg_display

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _clean_pyplot():
    with pyplot.rc_context():
        yield
    pyplot.close("all")


def curves():
    return [line.get_xydata().tolist() for line in pyplot.gca().lines]


X = [1.0, 2.0, 4.0]
Y = [3.0, 5.0, 7.0]
POINTS = [[1, 3], [2, 5], [4, 7]]


# ---------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        gl.tensor,
        lambda values: gl.tensor(values, requires_grad=True),
        lambda values: gl.tensor(values, requires_grad=True) * 1,
        lambda values: gl.tensor(values, dtype=gl.bfloat16),
        lambda values: gl.tensor(values, dtype=gl.int64),
        lambda values: [gl.tensor(value) for value in values],
        lambda values: gl.tensor(values).reshape(3, 1),
    ],
)
def test_one_curve_of_any_kind(make):
    plot(make(X), make(Y))
    assert curves() == [POINTS]
    plot(make(X), [make(Y)])
    assert curves() == [POINTS]
    plot(make(Y))
    assert curves() == [[[0, 3], [1, 5], [2, 7]]]


def test_a_device(fake_cuda):
    x, y = gl.tensor(X, device="cuda"), gl.tensor(Y, device="cuda", requires_grad=True)
    plot(x, y)
    assert curves() == [POINTS]
    gl.cuda.reset_statistics()
    plot(X, [list(y), Y])
    assert curves() == [POINTS, POINTS]
    assert gl.cuda.statistics().copies_to_host == 1


def test_several_curves():
    other = [[1, 0], [2, 0], [4, 0]]
    for y in ([Y, [0] * 3], [gl.tensor(Y), np.zeros(3)], gl.tensor([Y, [0] * 3]), (Y, range(0))):
        plot(X, y) if len(y[1]) else plot(X, [y[0], np.zeros(3)])
        assert curves() == [POINTS, other]
    plot([X, [1, 2, 4]], [Y, [0] * 3])
    assert curves() == [POINTS, other]
    plot([Y, [0] * 3])
    assert curves() == [[[0, 3], [1, 5], [2, 7]], [[0, 0], [1, 0], [2, 0]]]
    plot([X, X[:2]], [Y, Y[:2]])
    assert curves() == [POINTS, POINTS[:2]]


def test_curves_without_x():
    plot([], Y)
    assert curves() == [[[0, 3], [1, 5], [2, 7]]]
    plot([], [])
    assert curves() == [[]]


@pytest.mark.parametrize("count", [1, 4, 5, 20])
def test_no_curve_is_dropped(count):
    plot(X, [Y] * count, legend=[f"_{i}" for i in range(count)])
    lines = pyplot.gca().lines
    assert len(lines) == count
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == count
    legend = pyplot.gca().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"_{i}" for i in range(count)]


def test_names_and_dates_as_x():
    plot(["a", "b", "c"], Y)
    assert curves() == [[[0, 3], [1, 5], [2, 7]]]
    plot(np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[D]"), Y)
    assert [y for _, y in curves()[0]] == Y


def test_labels_limits_scales():
    plot(X, Y, "x", "y", ["f"], xlim=[0, 10], ylim=(1, None), yscale="log", figsize=(5, 2.5))
    axes = pyplot.gca()
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("x", "y", "log")
    assert (axes.get_xlim(), axes.get_ylim()[0]) == ((0, 10), 1)
    assert axes.get_legend().get_texts()[0].get_text() == "f"
    assert pyplot.gcf().get_size_inches().tolist() == [5, 2.5]
    plot(X, Y)
    assert pyplot.gca() is axes, "drawn in place of what was there"
    assert (axes.get_xlabel(), axes.get_yscale(), axes.get_legend()) == ("", "linear", None)


def test_what_users_do_next():
    plot(X, [Y, X], legend=["f", "g"], fmts=("-", "o"))
    pyplot.legend(loc="lower right")
    assert [text.get_text() for text in pyplot.gca().get_legend().get_texts()] == ["f", "g"]
    pyplot.plot(gl.tensor(X), gl.tensor(Y), label="pyplot itself")
    assert curves()[-1] == POINTS
    _, axes = pyplot.subplots(1, 2)
    assert plot(X, Y, axes=axes[0], legend="one name") is None
    assert (len(axes[0].lines), len(axes[1].lines)) == (1, 0)
    assert axes[0].get_legend().get_texts()[0].get_text() == "one name"


def test_the_labels_are_not_cut_off():
    plot(X, Y, "x", "y")
    figure = pyplot.gcf()
    figure.draw_without_rendering()
    for label in (figure.axes[0].xaxis.label, figure.axes[0].yaxis.label):
        box = label.get_window_extent()
        assert min(box.x0, box.y0) >= 0


def test_set_axes():
    axes = pyplot.gca()
    set_axes(axes, "x", "y", [0, 1], [1, 2], "linear", "log", ["nothing yet"])
    set_axes(axes, "x", "y", [0, 1], [1, 2], "linear", "log", [])
    assert (axes.get_xlim(), axes.get_ylim(), axes.get_yscale()) == ((0, 1), (1, 2), "log")
    assert all(line.get_visible() for line in axes.get_xgridlines()), "a grid stays a grid"


def test_set_figsize():
    use_svg_display()
    set_figsize((4.5, 3.5))
    assert pyplot.figure().get_size_inches().tolist() == [4.5, 3.5]
    set_figsize()
    assert pyplot.figure().get_size_inches().tolist() == [3.5, 2.5]


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (
            ([X, X], [Y, Y, Y]),
            ShapeError,
            "plot: expected one X for all curves, or one for each of the 3 in Y, got 2 in X",
        ),
        (
            (X, [Y, Y[:2]]),
            ShapeError,
            "plot: expected as many values of x as of y, got 3 and 2 in curve 1",
        ),
        (
            (X, np.zeros((2, 3, 4))),
            ShapeError,
            "plot: expected the values of a curve, or of several in a list or in rows, in Y, "
            "got shape (2, 3, 4)",
        ),
        (
            (X, np.array(Y) * 1j),
            DTypeError,
            "plot: expected real numbers, got complex128; plot its .real, .imag or .abs()",
        ),
    ],
)
def test_mistakes(arguments, error, expected):
    with pytest.raises(error) as raised:
        plot(*arguments)
    assert str(raised.value) == expected


def test_wrong_options():
    with pytest.raises(OptionError, match=r"^plot: expected xscale to be one of .*, got 'lgo'"):
        plot(X, Y, xscale="lgo")
    with pytest.raises(OptionError, match=r"^plot: expected ylim to be two finite numbers"):
        plot(X, Y, ylim=[1, 2, 3])
    with pytest.raises(OptionError, match=r"^plot: expected at least one format in fmts, got "):
        plot(X, Y, fmts=())
    with pytest.raises(OptionError, match=r"^set_axes: expected yscale to be one of"):
        set_axes(pyplot.gca(), yscale="lgo")


@pytest.mark.parametrize("shell", [None, object()])
def test_without_matplotlib(monkeypatch, shell):
    import gradlab.viz.plot as module

    monkeypatch.setattr(module, "notebook", lambda: shell)
    monkeypatch.delattr(sys.modules["matplotlib"], "pyplot")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    calls = {
        "plot": lambda: plot(X),
        "plt": lambda: module.plt,
        "set_figsize": set_figsize,
        "show_images": lambda: show_images(np.zeros((1, 2, 2)), 1, 1),
    }
    if shell is not None:
        calls["use_svg_display"] = use_svg_display
    for name, call in calls.items():
        expected = rf'^{name} needs the package matplotlib, .* pip install "matplotlib>=[\d.]+"$'
        with pytest.raises(MissingDependencyError, match=expected):
            call()
    assert not hasattr(module, "other")


def test_a_script_without_a_display(tmp_path):
    code = """
import os, sys
for name in ("MPLBACKEND", "DISPLAY", "WAYLAND_DISPLAY"):
    os.environ.pop(name, None)
from gradlab.viz import plot as module
assert "matplotlib" not in sys.modules
module.plot([1.0, 2.0])
module.plt.savefig("plot.png")
assert module.plt.get_backend().lower() == "agg"
module.plt.show()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60, capture_output=True
    )
    assert (tmp_path / "plot.png").exists()
    assert result.stdout == b""


# --------------------------------------------------------------------------------- sheets of images


def shown(axes):
    return [each.images[0].get_array().shape for each in axes if each.images]


@pytest.mark.parametrize(
    ("images", "shapes"),
    [
        (gl.zeros(6, 8, 8), [(8, 8)] * 6),
        (gl.zeros(9, 1, 8, 8), [(8, 8)] * 6),
        (gl.zeros(2, 3, 8, 9, requires_grad=True), [(8, 9, 3)] * 2),
        ([np.zeros((4, 5)), gl.zeros(1, 6, 7), np.zeros((3, 8, 8))], [(4, 5), (6, 7), (8, 8, 3)]),
    ],
)
def test_kinds_of_images(images, shapes):
    axes = show_images(images, 2, 3)
    assert axes.shape == (6,)
    assert shown(axes) == shapes
    assert axes[0].figure is pyplot.gcf()
    assert axes[0].figure.get_size_inches().tolist() == [4.5, 3]


def test_pillow_images():
    image = pytest.importorskip("PIL.Image")
    axes = show_images([image.new("L", (7, 5)), image.new("RGB", (6, 4))], 1, 2, scale=2)
    assert shown(axes) == [(5, 7), (4, 6, 3)]
    assert axes[0].figure.get_size_inches().tolist() == [4, 2]


def test_images_on_a_device(fake_cuda):
    assert shown(show_images(gl.zeros(2, 8, 8, device="cuda"), 1, 2)) == [(8, 8)] * 2


def test_titles():
    axes = show_images(gl.zeros(5, 4, 4), 1, 3, titles=list("abcde"))
    assert [each.get_title() for each in axes] == ["a", "b", "c"]
    axes = show_images(gl.zeros(2, 4, 4), 1, 3, gl.tensor([7, 3]))
    assert [each.get_title() for each in axes] == ["7", "3", ""]
    assert [each.get_title() for each in show_images(gl.zeros(1, 4, 4), 1, 1, titles=[])] == [""]


def test_wrong_images():
    with pytest.raises(ShapeError, match="a title for each of the 3 images, got 2 titles"):
        show_images(gl.zeros(5, 4, 4), 1, 3, titles=["a", "b"])
    with pytest.raises(OptionError, match="show_images: expected an integer num_rows of 1 or more"):
        show_images(gl.zeros(5, 4, 4), 0, 3)
    with pytest.raises(ShapeError, match=r"show_images: expected images of shape .*got \(2,\)"):
        show_images(gl.zeros(2), 1, 3)
    assert pyplot.get_fignums() == []
