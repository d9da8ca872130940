"""The files of a checkpoint: whole or not there, refused by name when damaged, few of them kept."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
from datetime import timedelta
from pathlib import Path

import pytest
from support import Classifier, assert_same, loader, make_model, parameters, trainer, val_loader

import gradlab as gl
from gradlab import training
from gradlab.errors import CheckpointError, FileError, OptionError
from gradlab.training import ModelCheckpoint, checkpoint, list_checkpoints, read_checkpoint
from refusals import refusal


def steps_in(folder):
    return [read_checkpoint(path)["position"]["step"] for path in list_checkpoints(folder)]


def train(folder, epochs=2, **options):
    model = make_model()
    callback = ModelCheckpoint(folder, **options)
    trainer(epochs, callbacks=[callback]).fit(model, loader(), val_loader())
    return model, callback


# ---------------------------------------------------------------------------- when and how many


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"every": None}, [12]),
        ({"every": 5}, [5, 10, 12]),
        ({"every": 5, "keep": 2}, [10, 12]),
        # After the last batch of an epoch, before its validation; and after the epoch.
        ({"every": 4, "keep": None}, [4, 8, 12, 12]),
        ({"every": "epoch"}, [6, 12]),
        ({"every": "1h"}, [12]),
        ({"every": timedelta(seconds=0), "keep": None}, [1, 12]),
    ],
)
def test_when_and_how_many(tmp_path, options, steps):
    train(tmp_path, **options)
    assert steps_in(tmp_path) == steps
    assert len(os.listdir(tmp_path)) == 2 * len(steps)


def test_names_tell_the_place(tmp_path):
    train(tmp_path, every=5)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["0001-epoch1-step5.json", "0002-epoch2-step10.json", "0003-epoch2-step12.json"]


class Scripted(Classifier):
    """Its metric takes these values, epoch by epoch."""

    values = (3.0, 1.0, 2.0, float("nan"), 4.0, 2.0)

    def validation_step(self, batch):
        self.log("score", self.values[self.trainer.epoch])


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 5)])
def test_the_best_is_kept(tmp_path, mode, best):
    callback = ModelCheckpoint(tmp_path, every="epoch", keep=1, monitor="score", mode=mode)
    trainer(6, callbacks=[callback]).fit(make_model(Scripted), loader(), val_loader())
    epochs = [read_checkpoint(path)["history"]["epochs"] for path in list_checkpoints(tmp_path)]
    assert sorted(len(rows) for rows in epochs) == sorted({best, 6})
    assert len(read_checkpoint(callback.best_path)["history"]["epochs"]) == best
    assert callback.best.value == {"min": 1.0, "max": 4.0}[mode]


def test_the_best_is_remembered_when_resumed(tmp_path):
    def run(epochs):
        callback = ModelCheckpoint(tmp_path, every=None, keep=1, monitor="score")
        made = trainer(epochs, callbacks=[callback])
        made.fit(make_model(Scripted), loader(), val_loader(), resume="auto")
        return callback

    first = run(2)
    assert run(5).best_path == first.best_path
    assert first.best_path.exists()


def test_a_state_dict_for_other_uses(tmp_path):
    model, callback = train(tmp_path)
    other = make_model(seed=4)
    other.load_state_dict(read_checkpoint(callback.last_path)["model"])
    assert_same(parameters(other), parameters(model))
    tensors = gl.load(callback.last_path.with_suffix(".safetensors"))
    assert tensors["model.net.0.weight"].tolist() == model.net[0].weight.tolist()


def test_the_json_is_plain(tmp_path):
    _, callback = train(tmp_path)
    document = json.loads(callback.last_path.read_text())
    state = document["state"]
    assert state["position"] == {"epoch": 2, "batch": 0, "step": 12, "phase": "training"}
    assert state["optimizers"][0]["type"] == "SGD"
    assert state["optimizers"][0]["param_groups"][0]["momentum"] == 0.9
    assert state["random"]["gradlab"].keys() == {"seed", "calls"}
    assert state["versions"]["numpy"]
    assert document["tensors"]["file"] == callback.last_path.with_suffix(".safetensors").name


# ------------------------------------------------------------------------------------ damaged


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "emptied":
        data = b""
    elif how == "truncated":
        data = data[: len(data) // 2]
    elif how == "cut by one byte":
        data = data[:-1]
    else:
        data[how % len(data)] ^= 1
    path.write_bytes(data)


HOWS = ["emptied", "truncated", "cut by one byte", 30, 1000, 4001, -2]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, how):
    _, callback = train(tmp_path)
    damaged = callback.last_path.with_suffix(suffix)
    damage(damaged, how)
    model, batches = make_model(seed=3), loader()
    before, place = parameters(model), batches.state_dict()
    with pytest.raises(CheckpointError) as caught:
        trainer(3).fit(model, batches, resume=callback.last_path)
    assert str(damaged) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert_same(parameters(model), before)
    assert batches.state_dict() == place


def test_no_altered_byte_of_the_json_goes_unnoticed(tmp_path):
    _, callback = train(tmp_path, epochs=1)
    path = callback.last_path
    whole, state = path.read_bytes(), json.loads(path.read_bytes())
    for at in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[at] ^= 1
        path.write_bytes(altered)
        try:
            read_checkpoint(path)
        except CheckpointError:
            continue
        assert json.loads(path.read_bytes()) == state  # white space, say


def test_the_tensors_of_another_checkpoint_are_refused(tmp_path):
    train(tmp_path, every="epoch")
    first, second = (path.with_suffix(".safetensors") for path in list_checkpoints(tmp_path))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match="is not the file that was written with 0002-epoch2"):
        read_checkpoint(tmp_path)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"0002-epoch2-step12\.safetensors, .*, is missing"):
        read_checkpoint(tmp_path)


def test_the_one_before_a_damaged_one_is_named(tmp_path):
    train(tmp_path, every="epoch")
    first, second = list_checkpoints(tmp_path)
    damage(second, "truncated")
    with pytest.raises(CheckpointError, match=f"the checkpoint before it is {first}"):
        read_checkpoint(second)
    assert read_checkpoint(first)["position"]["step"] == 6


def test_other_files_are_no_checkpoints(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    assert list_checkpoints(tmp_path) == []
    with pytest.raises(CheckpointError, match=r"notes\.json is truncated or is no checkpoint"):
        read_checkpoint(tmp_path / "notes.json")


# ------------------------------------------------------------------------------------ atomic


@pytest.mark.parametrize("call", range(1, 12))
def test_failing_at_any_system_call_leaves_the_last_good_one(tmp_path, monkeypatch, call):
    """Each call that changes the file system fails once, and nothing after it happens."""
    train(tmp_path, every="epoch")
    expected = read_checkpoint(tmp_path)["position"]
    calls = []

    def failing(module, name):
        function = getattr(module, name)

        def run(*args, **kwargs):
            calls.append(name)
            if len(calls) >= call:  # as if the process were no longer there
                raise OSError("the disk is gone")
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, run)

    for module, name in [(os, "fsync"), (Path, "replace"), (Path, "write_bytes"),
                         (Path, "write_text"), (Path, "unlink")]:  # fmt: skip
        failing(module, name)
    run = trainer(3, callbacks=[ModelCheckpoint(tmp_path, keep=1)])
    try:
        run.fit(make_model(), loader(), resume=list_checkpoints(tmp_path)[-1])
    except OSError:
        assert len(calls) >= call
    monkeypatch.undo()
    found = read_checkpoint(tmp_path)["position"]
    assert found in (expected, {"epoch": 3, "batch": 0, "step": 18, "phase": "training"})
    for path in list_checkpoints(tmp_path):
        read_checkpoint(path)


# ------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "ModelCheckpoint: expected an integer keep of 1 or more, got 0"),
        ({"keep": "3"}, "ModelCheckpoint: expected an integer keep of 1 or more, got '3'"),
        ({"every": 0}, r"ModelCheckpoint: expected an integer every \(steps\) of 1 or more, got 0"),
        ({"every": True}, "ModelCheckpoint: expected a time such as '30s', .* got True"),
        ({"every": -0.5}, "ModelCheckpoint: expected a time such as '30s', .* got -0.5"),
        ({"every": math.nan}, "ModelCheckpoint: expected a time such as '30s', .* got nan"),
        ({"every": "often"}, "expected a time such as '30s', '10m' or '2h', .* got 'often'"),
        ({"mode": "least"}, "ModelCheckpoint: expected mode 'min' or 'max', got 'least'"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        ModelCheckpoint(**options)


def test_durations():
    read = training.stopping.read_duration
    assert [read("", value) for value in ("30s", "1.5m", "2h", 4, timedelta(days=1))] == [
        30, 90, 7200, 4, 86400,
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ hostile


@pytest.fixture
def written(tmp_path):
    """A checkpoint in the middle of an epoch, and a function that changes it, digest and all."""
    _, callback = train(tmp_path, every=4, keep=None)
    path = list_checkpoints(tmp_path)[0]
    assert callback.last_path != path
    whole = json.loads(path.read_text())

    def change(edit):
        document = copy.deepcopy(whole)
        edit(document)
        document.pop("sha256")
        digest = checkpoint._digest(document)
        path.write_text(json.dumps({**document, "sha256": digest}))
        return path

    return change


def at(place, value):
    """An edit of a document: an entry set, or taken out where the value is ``...``."""
    keys = [int(key) if key.isdigit() else key for key in place.split(".")]

    def edit(document):
        for key in keys[:-1]:
            document = document[key]
        if value is ...:
            del document[keys[-1]]
        else:
            document[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (at("tensors.file", "../x"),
         "tensors['file'] to be the name of a file, without a folder, got '../x'"),
        (at("tensors.file", "/etc/passwd"), "to be the name of a file, without a folder"),
        (at("tensors.file", "a\0b"), "to be the name of a file, without a folder"),
        (at("tensors.file", ...), "tensors to be a dict with 'file', got one without"),
        (at("tensors", None), "tensors to be a dict, got None"),
        (at("tensors.sha256", 3), "tensors['sha256'] to be a string, got 3"),
        (at("state", []), "state to be a dict, got a list of 0"),
        (at("state.position.model", 1),
         "position to be a dict of other keys, got the key 'model'"),
        (at("state.position._hooks", {}), "got the key '_hooks'"),
        (at("state.position.step", ...), "position to be a dict with 'step'"),
        (at("state.position.step", -1),
         "position['step'] to be an integer of 0 or more, got -1"),
        (at("state.position.batch", 2**63), "position['batch'] to be an integer of 0"),
        (at("state.position.epoch", "1"), "position['epoch'] to be an integer"),
        (at("state.position.phase", "over"),
         "position['phase'] to be one of 'training', 'validating', got 'over'"),
        (at("state.seconds", {"$float": "nan"}), "seconds to be a finite number, got nan"),
        (at("state.model", 3), "model to be a dict, got 3"),
        (at("state.optimizers.0.type", ...), "optimizers[0] to be a dict with 'type'"),
        (at("state.history.epochs", [1]), "history['epochs'][0] to be a dict, got 1"),
        (at("state.curves.plotted", [[]]), "curves['plotted'][0] to be a string"),
        (at("state.metrics.sums", {"x": 1}), "metrics['sums']['x'] to be a list"),
        (at("state.random.python.words", 3), "to be an array of uint32"),
        (at("state.random.python.version", 99), "no state of a random generator"),
        (at("state.random.numpy.state.pos", 10**6),
         "it holds no state of a random generator"),
        (at("state.random.numpy.state.pos", -1), "no state of a random generator"),
        (at("state.random.numpy", {}), "it holds no state of a random generator"),
        (at("state.random.gradlab", {"seed": 1}), "to be a dict with 'calls'"),
        (at("state.random.python.words", {"$array": "none"}),
         "it holds a tensor 'none', which is not in the file"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(written, edit, text):
    path = written(edit)
    told = refusal(read_checkpoint, path)
    assert told.startswith(f"resume: {path}")
    assert text in told


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (at("state.callbacks.ModelCheckpoint.best_path", "../../x"),
         "ModelCheckpoint: expected best_path to be the name of a file, without a folder"),
        (at("state.callbacks.ModelCheckpoint", {}), "a dict with 'best'"),
        (at("state.optimizers.0.param_groups", 3), "param_groups to be a list, got 3"),
        (at("state.optimizers.0.param_groups.0.params", ...), "'params'"),
        (at("state.optimizers.0.state", []), "state to be a dict"),
        (at("state.optimizers.0.param_groups.0.lr", "0.1"), "lr to be a number"),
        (at("state.optimizers.0.param_groups.0.nesterov", "no"),
         "nesterov to be True or False"),
        (at("state.data.epoch", "1"), "epoch to be an integer of 0 or more"),
        (at("state.data.seed", 5), "seed to be None, got 5"),
        (at("state.data", 3), "a dict that DataLoader.state_dict gave"),
    ],
)  # fmt: skip
def test_states_that_are_refused_leave_everything_as_it_was(written, tmp_path, edit, text):
    path = written(edit)
    model, batches = make_model(seed=3), loader()
    before, place = parameters(model), batches.state_dict()
    run = trainer(3, callbacks=[ModelCheckpoint(tmp_path / "other")])
    told = refusal(run.fit, model, batches, val_loader(), resume=path)
    assert text in told
    assert_same(parameters(model), before)
    assert batches.state_dict() == place


def test_a_key_twice_and_what_json_does_not_have(written):
    path = written(lambda document: None)
    text = path.read_text()
    assert read_checkpoint(path)["position"]["step"] == 4
    for altered in (
        text.replace('"state": {', '"state": 1, "state": {', 1),
        text.replace('"seconds": ', '"seconds": NaN, "x": ', 1),
        "[" * 100_000, "[]", "null", "3", "\xff", "",
    ):  # fmt: skip
        path.write_text(altered, encoding="latin-1")
        told = refusal(read_checkpoint, path)
        assert told == f"resume: {path} is truncated or is no checkpoint; nothing was loaded"


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_full_disk(tmp_path, monkeypatch, suffix):
    """Which file, what is safe, what to do; and nothing is left of the one that was begun."""
    train(tmp_path)
    before = sorted(os.listdir(tmp_path))
    replace = Path.replace

    def fail(path, target):
        if target.suffix == suffix:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    run = trainer(3, callbacks=[ModelCheckpoint(tmp_path, every="epoch")])
    with pytest.raises(FileError) as raised:
        run.fit(make_model(), loader(), resume="last")
    assert str(raised.value) == (
        f"checkpoint: {tmp_path}/0002-epoch3-step18{suffix}: cannot be written: No space left on "
        "device; the checkpoints written before it are whole; free some space, or choose a folder "
        "on another disk"
    )
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == before
    assert read_checkpoint(tmp_path)["position"]["step"] == 12
