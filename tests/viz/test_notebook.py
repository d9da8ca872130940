"""What a real notebook shows: a board in one output that goes on, plots as SVG."""

from __future__ import annotations

import os
import re

import pytest

from gradlab._environment import pip_install

pytest.importorskip("matplotlib")
pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = {
    "live": """
        import sys, time
        from gradlab.viz import ProgressBoard
        board = ProgressBoard("epoch")
        for i in range(60):
            board.draw(i, i, "train_loss", every_n=3)
            if i > 30:
                board.draw(i, 1, "val_loss", every_n=100)
            time.sleep(0.01)
        for i in range(7):
            board.draw(i, 2, f"_late {i}")
        """,
    "pyplot": "'matplotlib.pyplot' in sys.modules",
    "again": "board.draw(60, 60, 'train_loss')\nboard",
    "value": "board",
    "hidden": "hidden = ProgressBoard(display=False)\nhidden.draw(1, 2, 'loss')\nhidden.flush()",
    "error": "board.draw(61, 0, 'before_the_error'); board.draw(62, 0, 'loss'); 1 / 0",
    "plot": """
        import gradlab as gl
        from gradlab.viz.plot import plot, show_images
        x = gl.arange(0, 3, 0.1).requires_grad_()
        plot(x, [x**2, 2 * x - 3], "x", "f(x)", legend=["f(x)", "tangent"])
        """,
    "images": "axes = show_images(gl.zeros(3, 8, 8), 1, 3, titles=['a', 'b', 'c'])",
    "no matplotlib": """
        for name in [name for name in sys.modules if name.startswith("matplotlib")]:
            sys.modules[name] = None
        for _ in range(2):
            other = ProgressBoard()
            other.draw(0, 1, "loss")
            other.flush()
        """,
}


@pytest.fixture(scope="module")
def outputs():
    """The outputs of each cell, as the notebook has them in the end."""
    cells = [nbformat.v4.new_code_cell(_dedent(source)) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    # A kernel draws into the notebook, unless it is told otherwise as tests are.
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    client.execute(env=environment)
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))


def _dedent(source):
    lines = source.strip("\n").rstrip().splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[margin:] for line in lines)


def pictures(outputs):
    """The SVG pictures among the outputs, each as the texts in it."""
    found = [output["data"] for output in outputs if "data" in output]
    images = [data["image/svg+xml"] for data in found if "image/svg+xml" in data]
    return [re.findall(r"<!-- (.*?) -->", image) for image in images]


def test_one_picture_with_all_curves(outputs):
    (texts,) = pictures(outputs["live"])
    assert {"train_loss", "val_loss", *(f"_late {i}" for i in range(7)), "epoch"} <= set(texts)
    assert len(outputs["live"]) == 1
    assert outputs["live"][0].output_type == "display_data"
    (data,) = [output["data"] for output in outputs["pyplot"]]
    assert data["text/plain"] == "False"


def test_a_later_cell_shows_the_board_under_itself(outputs):
    (texts,) = pictures(outputs["again"])
    assert {"train_loss", "val_loss"} <= set(texts)
    assert len(pictures(outputs["value"])) == 1, "as the value of a cell"
    assert outputs["hidden"] == []


def test_the_picture_of_a_cell_that_fails(outputs):
    (texts,) = pictures(outputs["error"])
    assert {"before_the_error", "loss"} <= set(texts)
    assert [output.ename for output in outputs["error"] if output.output_type == "error"] == [
        "ZeroDivisionError"
    ]


def test_plots_are_svg(outputs):
    (texts,) = pictures(outputs["plot"])
    assert {"f(x)", "tangent", "x"} <= set(texts)
    (texts,) = pictures(outputs["images"])
    assert {"a", "b", "c"} <= set(texts)


def test_one_line_says_what_to_install(outputs):
    (output,) = outputs["no matplotlib"]
    assert output["text"] == (
        "ProgressBoard needs the package matplotlib, which is not installed; "
        f"run: {pip_install('viz', 'matplotlib')}\n"
    )
