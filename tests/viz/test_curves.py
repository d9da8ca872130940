"""Learning curves: every curve is drawn, and nothing needs a display."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gradlab import viz
from gradlab.errors import DataError, MissingDependencyError, OptionError
from gradlab.training import History

pytest.importorskip("matplotlib")


@pytest.fixture
def history():
    made = History()
    made.steps = [{"epoch": 1, "step": i, "train_loss": 1 / i} for i in range(1, 5)]
    made.epochs = [
        {"epoch": 1, "step": 2, "train_loss": 0.7, "val_loss": 0.8, "val_acc": 0.5},
        {"epoch": 2, "step": 4, "train_loss": 0.3, "val_loss": 0.6, "val_acc": 0.9},
    ]
    return made


def curves(axes):
    return {line.get_label(): list(line.get_xydata().tolist()) for line in axes.get_lines()}


def test_train_and_val_share_a_panel(history):
    figure = viz.plot_history(history)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "acc"]
    drawn = curves(figure.axes[0])
    assert drawn["train_loss (epoch mean)"] == [[2, 0.7], [4, 0.3]]
    assert drawn["train_loss (per step)"] == [[i, 1 / i] for i in range(1, 5)]
    assert drawn["val_loss"] == [[2, 0.8], [4, 0.6]]
    assert len(drawn) == 3
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(legend) == sorted(drawn)
    assert curves(figure.axes[1]) == {"val_acc": [[2, 0.5], [4, 0.9]]}


def test_the_mean_of_a_single_epoch_is_a_level_over_its_steps(history):
    del history.steps[2:], history.epochs[1:]
    drawn = curves(viz.plot_history(history).axes[0])
    assert drawn == {
        "train_loss (per step)": [[1, 1.0], [2, 0.5]],
        "train_loss (epoch mean)": [[1, 0.7], [2, 0.7]],
        "val_loss": [[2, 0.8]],
    }
    del history.steps[0]
    drawn = curves(viz.plot_history(history).axes[0])
    assert drawn["train_loss (epoch mean)"] == [[2, 0.7]]


def test_plain_rows():
    figure = viz.plot_history([{"loss": 3.0}, {"loss": 2.0}])
    assert curves(figure.axes[0]) == {"loss": [[1, 3.0], [2, 2.0]]}


@pytest.mark.parametrize("count", [1, 5, 10, 11, 25])
def test_no_curve_is_dropped(count):
    prefixes = ["train_", "val_", *(f"val_{i}_" for i in range(count))]
    rows = [{"step": 1, **{f"{prefix}loss": 1.0 for prefix in prefixes[:count]}}]
    figure = viz.plot_history(rows)
    assert sum(len(axes.get_lines()) for axes in figure.axes) == count


def test_colours_differ_however_many():
    from gradlab.viz.curves import _colours

    assert len(set(map(str, _colours(25)))) == 25


def test_a_file_is_written(history, tmp_path):
    path = tmp_path / "new" / "curve.png"
    history.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_format_that_is_unknown(history, tmp_path):
    with pytest.raises(
        OptionError, match=r"plot_history: expected a file name that ends in .*\.png"
    ):
        viz.plot_history(history, tmp_path / "curve.xyz")


def test_an_empty_history():
    with pytest.raises(
        DataError, match="plot_history: the history is empty; was the model trained"
    ):
        viz.plot_history(History())


def test_without_matplotlib(history, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "matplotlib>='):
        viz.plot_history(history)


def test_pyplot_is_left_alone():
    code = (
        "import sys; from gradlab import viz; assert 'matplotlib' not in sys.modules\n"
        "viz.plot_history([{'loss': 1.0}]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
