"""Sheets of images."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab import viz
from gradlab.errors import DataError, OptionError, ShapeError

pytest.importorskip("matplotlib")


def drawn(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


@pytest.mark.parametrize(
    ("shape", "each"),
    [
        ((3, 8, 6), (8, 6)),
        ((3, 64), (8, 8)),
        ((3, 1, 8, 6), (8, 6)),
        ((3, 8, 6, 1), (8, 6)),
        ((3, 3, 8, 6), (8, 6, 3)),
        ((3, 8, 6, 4), (8, 6, 4)),
    ],
)
def test_layouts(shape, each):
    images = gl.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    shown = drawn(viz.show_images(images))
    assert [image.shape for image in shown] == [each] * 3


def test_channels_are_moved_not_mixed():
    images = np.zeros((1, 3, 4, 5), dtype=np.float32)
    images[0, 2] = 1
    (image,) = drawn(viz.show_images(images))
    assert np.array_equal(image[..., 2], np.ones((4, 5)))


def test_titles_and_limit():
    figure = viz.show_images(np.zeros((9, 2, 2)), [f"no {i}" for i in range(9)], limit=3)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["no 0", "no 1", "no 2"]


def test_titles_are_one_for_each_image():
    images = np.zeros((12, 28, 28))
    with pytest.raises(ShapeError) as error:
        viz.show_images(images, ["a"] * 3)
    assert str(error.value) == (
        "show_images: expected a title for each of the 12 images, got 3 titles"
    )
    with pytest.raises(ShapeError, match="expected a list of titles for 12 images, got str"):
        viz.show_images(images, "twelve chars")
    figure = viz.show_images(images[:2], gl.tensor([7, 3]))
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["7", "3"]


def test_misclassified_picks_the_wrong_ones(tmp_path):
    images = np.stack([np.full((4, 4), i) for i in range(4)])
    labels = gl.tensor([3, 1, 2, 0])
    scores = gl.nn.functional.one_hot(gl.tensor([3, 0, 2, 1]), 4)
    path = tmp_path / "sheet.png"
    figure = viz.misclassified(images, labels, scores, path)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["1 → 0", "0 → 1"]
    assert [float(image[0, 0]) for image in drawn(figure)] == [1, 3]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nothing_misclassified(tmp_path):
    path = tmp_path / "sheet.png"
    figure = viz.misclassified(np.zeros((2, 4, 4)), np.array([0, 1]), np.array([0, 1]), path)
    assert [text.get_text() for text in figure.texts] == ["All 2 images are classified correctly"]
    assert path.exists()


def test_bad_input():
    with pytest.raises(ShapeError, match=r"show_images: expected images of shape .*, got \(3, 7\)"):
        viz.show_images(np.zeros((3, 7)))
    with pytest.raises(OptionError, match="show_images: expected an integer columns of 1 or more"):
        viz.show_images(np.zeros((3, 4, 4)), columns=0)
    with pytest.raises(OptionError, match="misclassified: expected an integer limit of 1 or more"):
        viz.misclassified(np.zeros((3, 4, 4)), [0, 1, 2], [1, 1, 1], limit=-1)
    with pytest.raises(DataError, match="show_images: expected at least one image, got none"):
        viz.show_images(np.zeros((0, 4, 4)))
    with pytest.raises(ShapeError, match="a label and a prediction for each of the 3 images"):
        viz.misclassified(np.zeros((3, 4, 4)), np.array([1, 2]), np.array([1, 2]))
