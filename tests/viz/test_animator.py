"""`Animator`: curves of which all get a point at a time."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab import d2l
from gradlab.errors import OptionError, ShapeError


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    d2l.plt.close("all")


def lines(animator):
    return [line.get_xydata().tolist() for line in animator.axes[0].get_lines()]


def test_points_of_several_curves():
    animator = d2l.Animator("epoch", "loss", legend=["train", "test"], xlim=[1, 3], yscale="log")
    for epoch in range(3):
        animator.add(epoch + 1, (gl.tensor(0.5), np.float32(0.25)))
    assert lines(animator) == [[[1, 0.5], [2, 0.5], [3, 0.5]], [[1, 0.25], [2, 0.25], [3, 0.25]]]
    axes = animator.axes[0]
    assert (axes.get_xlabel(), axes.get_yscale(), axes.get_xlim()) == ("epoch", "log", (1, 3))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]
    assert d2l.plt.gcf() is animator.fig  # plt.show() in a script shows it


@pytest.mark.parametrize("y", [0.5, gl.tensor(0.5, requires_grad=True), [0.5], gl.tensor([0.5])])
def test_one_curve(y):
    animator = d2l.Animator()
    animator.add(1, y)
    animator.add(gl.tensor(2), y)
    assert lines(animator) == [[[1, 0.5], [2, 0.5]]]


def test_curves_may_miss_points():
    animator = d2l.Animator(legend=["loss", "validation"])
    animator.add(1, (0.5, None))
    animator.add(2, (0.4, 0.6))
    animator.add([3, 4], [0.3, 0.5])
    assert lines(animator) == [[[1, 0.5], [2, 0.4], [3, 0.3]], [[2, 0.6], [4, 0.5]]]


def test_more_curves_than_formats_and_axes_for_other_pictures():
    animator = d2l.Animator(nrows=2, ncols=2, fmts=("-", "r:"))
    assert len(animator.axes) == 4
    for x in range(2):
        animator.add(x, range(3))
    assert len(lines(animator)) == 3
    assert [line.get_linestyle() for line in animator.axes[0].get_lines()] == ["-", ":", "-"]


def test_refusals():
    animator = d2l.Animator()
    animator.add(1, (0.5, 0.4))
    with pytest.raises(ShapeError, match=r"Animator\.add: expected 2 values, one per curve, got 3"):
        animator.add(2, (0.5, 0.4, 0.3))
    expected = r"Animator\.add: expected a number or a tensor of one element, got shape \(2,\);"
    with pytest.raises(ShapeError, match=expected):
        animator.add(2, (gl.ones(2), 0.1))
    with pytest.raises(OptionError, match="yscale to be one of"):
        d2l.Animator(yscale="logarithmic").add(1, 2)


def test_in_a_notebook_the_picture_is_updated(monkeypatch):
    from gradlab.viz import animator as module

    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr(module, "notebook", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    made = d2l.Animator()
    for x in range(3):
        made.add(x, x)
    assert shown == [made.fig] * 3
    assert d2l.plt.get_fignums() == []
