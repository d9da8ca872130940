"""What is no path is told in one line, wherever a file or a folder can be given."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab import data, training, viz
from gradlab.errors import OptionError
from gradlab.paths import as_path


def test_paths(tmp_path):
    assert as_path("save", str(tmp_path)) == as_path("save", tmp_path) == tmp_path


CALLS = {
    "save": lambda: gl.save({}, 3),
    "load": lambda: gl.load(3),
    "read_idx": lambda: data.read_idx(3),
    "write_idx": lambda: data.write_idx(3, np.zeros(1, np.uint8)),
    "read_csv": lambda: data.read_csv(3),
    "extract": lambda: data.extract(3),
    "plot_history": lambda: viz.plot_history([{"step": 1, "loss": 2.0}], 3),
    "graph.save": lambda: viz.graph(gl.ones(1, requires_grad=True) * 2, path=3),
    "resume": lambda: training.read_checkpoint(3),
}
FOLDERS = {
    "FashionMNIST": lambda: data.FashionMNIST(3),
    "make_house_prices": lambda: data.make_house_prices(3, 5, 5),
    "list_checkpoints": lambda: training.list_checkpoints(3),
    "ModelCheckpoint": lambda: training.ModelCheckpoint(3),
}


@pytest.mark.parametrize(
    ("operation", "call", "expected"),
    [
        *[(operation, call, "a path") for operation, call in CALLS.items()],
        *[(operation, call, "a folder") for operation, call in FOLDERS.items()],
    ],
    ids=[*CALLS, *FOLDERS],
)
def test_what_is_no_path(operation, call, expected):
    with pytest.raises(OptionError) as raised:
        call()
    assert str(raised.value) == f"{operation}: expected {expected}, got int"
