"""Metrics while a run goes on, and the tables they leave."""

from __future__ import annotations

import math

import pytest
from support import loader, make_model, trainer, val_loader

import gradlab as gl
from gradlab.errors import MissingDependencyError, OptionError
from gradlab.training import History
from gradlab.training.history import Metrics


def add_all(metrics, values, name="loss", weight=1.0, **options):
    for batch, value in enumerate(values, start=1):
        metrics.add(name, value, weight, batch, **options)


def test_weighted_means():
    metrics = Metrics()
    metrics.add("loss", 1.0, 30, 1)
    metrics.add("loss", gl.tensor(4.0), 10, 2)
    assert metrics.means() == {}
    metrics.read()
    assert metrics.means() == {"loss": 1.75}


def test_the_latest_value():
    metrics = Metrics(window=2)
    add_all(metrics, [1, 2, 3, 4, 5], last=True)
    metrics.read()
    assert metrics.means() == {"loss": 5}
    assert metrics.take_rows(end_row=True) == [(2, {"loss": 2}), (4, {"loss": 4}), (5, {"loss": 5})]


@pytest.mark.parametrize("reads", [[], [1], [2], [3], [1, 4], [1, 2, 3, 4, 5, 6]])
def test_rows_do_not_depend_on_when_values_are_read(reads):
    metrics = Metrics(window=3)
    rows = []
    for batch in range(1, 8):
        metrics.add("loss", float(batch), 1, batch)
        metrics.add("other", gl.tensor([float(-batch)]), 2, batch)
        if batch in reads:
            metrics.read()
            rows += metrics.take_rows()
    metrics.read()
    rows += metrics.take_rows(end_row=True)
    assert rows == [
        (3, {"loss": 2, "other": -2}),
        (6, {"loss": 5, "other": -5}),
        (7, {"loss": 7, "other": -7}),
    ]
    assert metrics.means() == {"loss": 4, "other": -4}


def test_the_state_goes_on_in_the_middle_of_a_row():
    whole, first, second = Metrics(window=3), Metrics(window=3), Metrics(window=3)
    add_all(whole, [1, 2, 3, 4, 5])
    whole.read()
    add_all(first, [1, 2])
    first.read()
    second.load_state_dict(first.state_dict())
    for batch, value in [(3, 3), (4, 4), (5, 5)]:
        second.add("loss", value, 1, batch)
    second.read()
    assert second.take_rows(end_row=True) == whole.take_rows(end_row=True)
    assert second.means() == whole.means()


def test_a_metric_of_a_few_batches_only():
    metrics = Metrics(window=1)
    metrics.add("rare", 3.0, 1, 2)
    metrics.add("loss", 1.0, 1, 2)
    metrics.read()
    assert metrics.means() == {"rare": 3.0, "loss": 1.0}


def test_numbers_of_any_kind():
    metrics = Metrics()
    add_all(metrics, [True, 1, gl.tensor(3), gl.tensor(1.0, dtype="bfloat16")])
    metrics.read()
    assert metrics.means() == {"loss": 1.5}


# ------------------------------------------------------------------------------------ history


@pytest.fixture
def history():
    made = History()
    made.epochs = [
        {"epoch": 1, "step": 5, "train_loss": 0.9, "val_acc": 0.5},
        {"epoch": 2, "step": 10, "train_loss": 0.5},
        {"epoch": 3, "step": 15, "train_loss": 0.6, "val_acc": math.nan},
        {"epoch": 4, "step": 20, "train_loss": 0.7, "val_acc": 0.7},
    ]
    made.steps = [{"epoch": 1, "step": 1, "train_loss": 1.0}]
    return made


def test_reading_a_history(history):
    assert history.names == ["train_loss", "val_acc"]
    assert history["train_loss"] == [0.9, 0.5, 0.6, 0.7]
    assert history["val_acc"][0::2] == [0.5, 0.7]
    assert history.best("train_loss")["epoch"] == 2
    assert history.best("val_acc", "max")["epoch"] == 4
    assert repr(history) == (
        "History(4 epochs; last: epoch=4, step=20, train_loss=0.7, val_acc=0.7)"
    )
    assert repr(History()) == "History(0 epochs)"


def test_names_that_are_not_there(history):
    with pytest.raises(OptionError, match="no metric 'acc'; there are: train_loss, val_acc"):
        history["acc"]
    with pytest.raises(OptionError, match="History: there is no metric 'acc'; there are: none yet"):
        History().best("acc")
    with pytest.raises(OptionError, match=r"History\.best: expected mode 'min' or 'max', got 'up'"):
        history.best("val_acc", "up")


def test_dataframes(history):
    pytest.importorskip("pandas")
    frame = history.to_dataframe()
    assert list(frame.columns) == ["epoch", "step", "train_loss", "val_acc"]
    assert frame["train_loss"].tolist() == history["train_loss"]
    assert len(history.to_dataframe("steps")) == 1
    with pytest.raises(OptionError, match="expected 'epochs' or 'steps', got 'batches'"):
        history.to_dataframe("batches")


def test_without_pandas(history, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "pandas>='):
        history.to_dataframe()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),  # few batches: a row for each, never for none
        ({"log_every_n_batches": 4}, [4, 6]),
        ({"log_every_n_batches": 100}, [6]),
        ({"log_every_n_batches": 2, "accumulate_grad_batches": 2}, [1, 2, 3]),
        ({"log_every_n_batches": 1, "accumulate_grad_batches": 4}, [1, 1, 1, 1, 2, 2]),
    ],
)
def test_rows_of_steps(options, steps):
    history = trainer(1, **options).fit(make_model(), loader(), val_loader())
    assert [row["step"] for row in history.steps] == steps
    assert {row["epoch"] for row in history.steps} == {1}
