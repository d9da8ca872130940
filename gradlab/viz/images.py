"""Sheets of images."""

from __future__ import annotations

import math
from collections.abc import Sized
from os import PathLike
from typing import Any

import numpy as np

from gradlab.errors import DataError, ShapeError, message
from gradlab.tensor import Tensor, require_integer
from gradlab.viz.figure import finish, new_figure


def show_images(
    images: Any,
    titles: Any = None,
    path: str | PathLike[str] | None = None,
    *,
    columns: int = 8,
    limit: int = 64,
) -> Any:
    """Draw images in rows, and return the Matplotlib figure.

    Parameters
    ----------
    images: a tensor or array of shape (n, height, width), (n, channels, height, width) or
        (n, height, width, channels) with 1, 3 or 4 channels, or (n, size²) for square ones.
        Each image is drawn from its own smallest value, black, to its largest, white; images in
        colour hold values from 0 to 1, or to 255.
    titles: what to write above each: a list, array or tensor with one entry per image.
    path: a file to write the figure to as well (PNG, SVG, PDF).
    columns, limit: images per row, and at most.

    >>> show_images(np.zeros((10, 8, 8)), columns=5).axes[0].get_title()
    ''
    """
    array = as_images("show_images", images)
    columns = require_integer("show_images", "columns", columns)
    shown = array[: require_integer("show_images", "limit", limit)]
    titles = None if titles is None else as_titles("show_images", titles, len(array))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure("show_images", 1.1 * columns, (1.35 if titles else 1.15) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for i, axes in enumerate(grid):
        axes.set_axis_off()
        if i < len(shown):
            draw_image(axes, shown[i], titles[i] if titles is not None else "")
    return finish("show_images", figure, path)


def draw_image(axes: Any, image: np.ndarray, title: Any) -> None:
    """Draw one image, (height, width) or (height, width, 3 or 4), under its title."""
    axes.imshow(image, cmap="gray" if image.ndim == 2 else None)
    axes.set_title(title, fontsize=9)


def misclassified(
    images: Any,
    labels: Any,
    predictions: Any,
    path: str | PathLike[str] | None = None,
    *,
    columns: int = 8,
    limit: int = 64,
) -> Any:
    """Draw the images whose prediction is not their label, and return the Matplotlib figure.

    Above each stands what it is and what it was taken for, as ``3 → 5``. ``labels`` has shape
    (n,), ``predictions`` has it too, or is (n, classes), the scores of each class.

    >>> figure = misclassified(np.zeros((3, 8, 8)), np.array([1, 2, 3]), np.array([1, 7, 3]))
    >>> figure.axes[0].get_title()
    '2 → 7'
    """
    array = as_images("misclassified", images)
    limit = require_integer("misclassified", "limit", limit)
    truth, guess = to_numpy(labels), to_numpy(predictions)
    if guess.ndim == 2:
        guess = guess.argmax(axis=1)
    if not truth.shape == guess.shape == array.shape[:1]:
        raise ShapeError(
            message(
                "misclassified",
                expected=f"a label and a prediction for each of the {len(array)} images",
                got=f"labels {truth.shape} and predictions {to_numpy(predictions).shape}",
            )
        )
    wrong = np.flatnonzero(truth != guess)
    if not wrong.size:
        figure = new_figure("misclassified", 4.8, 1.2)
        figure.text(0.5, 0.5, f"All {len(array)} images are classified correctly", ha="center")
        return finish("misclassified", figure, path)
    titles = [f"{truth[i]} → {guess[i]}" for i in wrong]
    figure = show_images(array[wrong], titles, columns=columns, limit=limit)
    left_out = f", of which {limit} are shown" if wrong.size > limit else ""
    figure.suptitle(f"{wrong.size} of {len(array)} misclassified (truth → prediction){left_out}")
    return finish("misclassified", figure, path)


def to_numpy(values: Any) -> np.ndarray:
    """The values as an array of NumPy, wherever they are."""
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)


def as_titles(operation: str, titles: Any, count: int) -> list[Any]:
    """One title per image."""
    if isinstance(titles, Tensor | np.ndarray):
        titles = to_numpy(titles).tolist()
    if isinstance(titles, str) or not isinstance(titles, Sized):
        expected, got = f"a list of titles for {count} images", type(titles).__name__
        raise ShapeError(message(operation, expected=expected, got=got))
    if len(titles) != count:
        expected = f"a title for each of the {count} images"
        raise ShapeError(message(operation, expected=expected, got=f"{len(titles)} titles"))
    return list(titles)  # type: ignore[call-overload]


def as_images(operation: str, images: Any) -> np.ndarray:
    """The images as (n, height, width) or (n, height, width, 3 or 4)."""
    array = to_numpy(images)
    if array.ndim == 2 and math.isqrt(array.shape[1]) ** 2 == array.shape[1]:
        side = math.isqrt(array.shape[1])
        array = array.reshape(len(array), side, side)
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (3, 4)):
        raise ShapeError(
            message(
                operation,
                expected="images of shape (n, height, width), (n, channels, height, width) or, "
                "if square, (n, size²)",
                got=f"{to_numpy(images).shape}",
            )
        )
    if not len(array):
        raise DataError(f"{operation}: expected at least one image, got none")
    return array.astype(np.float32) if array.dtype.kind not in "uf" else array
