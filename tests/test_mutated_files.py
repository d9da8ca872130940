"""Damaged files of every kind: each gives what it gave before, something valid, or one clear error.

The digests of gradlab's own files are made again after the structured changes, so that what is
behind them is reached as well.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn, optim, serialization, training
from gradlab.data import (
    DataLoader,
    TableDataset,
    TablePreprocessor,
    TensorDataset,
    extract,
    read_idx,
    write_idx,
)
from gradlab.errors import GradlabError
from gradlab.training import checkpoint, read_checkpoint
from mutations import HOSTILE, changed_bytes, changed_values

pytestmark = pytest.mark.timeout(60)

COUNT = 200


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error of gradlab's, in one printable line, that it ends in."""
    try:
        with np.errstate(all="ignore"):  # a huge number becomes infinite in float32, as anywhere
            return call()
    except GradlabError as error:
        text = str(error)
        assert text.isprintable(), ascii(text)
        return error


def outcomes(call: Callable[[Any], Any], inputs: Iterator[Any]) -> list[Any]:
    """The results of the calls that did not end in an error of gradlab's."""
    found, errors = [], 0
    for each in inputs:
        result = outcome(lambda each=each: call(each))
        if isinstance(result, Exception):
            errors += 1
        else:
            found.append(result)
    assert errors > len(found) / 20  # the changes were not for nothing
    return found


def check_memory() -> None:
    """Nothing has asked for more than a fraction of what damaged headers claim."""
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < 2 << 30


# ----------------------------------------------------------------------------- files of tensors

STATE = {
    "weight": gl.arange(6.0).reshape(2, 3),
    "array": np.arange(3, dtype=np.int16),
    "phases": gl.tensor([1 + 2j, 3j]),
    "numbers": [1, 0.5, math.inf, 1 + 2j, None, True, "text"],
    "nested": {"$odd": (1, 2), 3: {"x": gl.zeros(1)}},
}


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "state.safetensors"
    gl.save(STATE, path)
    return path


def is_plain(value: Any) -> bool:
    """Whether `gradlab.save` could have been given this."""
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    simple = bool | int | float | complex | str | gl.Tensor | np.ndarray
    return value is None or isinstance(value, simple)


def test_bytes_of_a_file_of_tensors(saved):
    whole, expected = saved.read_bytes(), repr(gl.load(saved))

    def load(data: bytes) -> Any:
        saved.write_bytes(data)
        return gl.load(saved)

    found = outcomes(load, changed_bytes(whole, COUNT, 0))
    assert {repr(each) for each in found} <= {expected}
    check_memory()


def with_header(whole: bytes, header: Any) -> bytes:
    size = int.from_bytes(whole[:8], "little")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + size :]


def test_fields_of_a_file_of_tensors(saved):
    whole = saved.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])

    def load(changed: Any) -> Any:
        saved.write_bytes(with_header(whole, changed))
        return gl.load(saved)

    assert all(map(is_plain, outcomes(load, changed_values(header, COUNT, 1))))
    # As another program's, whose arrays are taken as they are.
    del header["__metadata__"]
    assert all(map(is_plain, outcomes(load, changed_values(header, COUNT, 2))))
    check_memory()


def test_the_structure_behind_a_digest(saved):
    structure, arrays = serialization.pack(STATE)

    def load(changed: Any) -> Any:
        serialization.write_arrays(saved, changed, arrays)
        return gl.load(saved)

    assert all(map(is_plain, outcomes(load, changed_values(structure, COUNT, 3))))


# ---------------------------------------------------------------------------------- checkpoints


class Line(training.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)

    def loss(self, y_hat, y):
        return ((y_hat - y) ** 2).mean()

    def validation_step(self, batch):
        self.log("score", 1.0)

    def configure_optimizers(self):
        optimizer = optim.Adam(self.parameters(), lr=0.01)
        schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "scheduler": schedule, "monitor": "train_loss"}


def batches() -> DataLoader:
    X = gl.arange(12.0).reshape(6, 2) / 12
    return DataLoader(TensorDataset(X, X[:, :1]), batch_size=2, shuffle=True)


def fit(folder: Path, epochs: int, resume: Any = None) -> Any:
    callbacks = [
        training.ModelCheckpoint(folder, every=2, keep=None, monitor="train_loss"),
        training.EarlyStopping("train_loss", patience=50),
    ]
    trainer = training.Trainer(
        max_epochs=epochs, callbacks=callbacks, enable_progress_bar=False, seed=1
    )
    return trainer.fit(Line(), batches(), batches(), resume=resume)


@pytest.fixture
def written(tmp_path) -> Path:
    fit(tmp_path, 2)
    return training.list_checkpoints(tmp_path)[-2]  # within an epoch


def test_bytes_of_a_checkpoint(written):
    expected = repr(read_checkpoint(written))
    for path in (written, written.with_suffix(".safetensors")):
        whole = path.read_bytes()

        def load(data: bytes, path: Path = path) -> Any:
            path.write_bytes(data)
            return read_checkpoint(written)

        found = outcomes(load, changed_bytes(whole, COUNT // 2, 4))
        assert {repr(each) for each in found} <= {expected}
        path.write_bytes(whole)


def rewrite(path: Path, document: Any) -> None:
    document.pop("sha256", None)
    text = json.dumps({**document, "sha256": checkpoint._digest(document)})
    path.write_text(text)


def test_fields_of_a_checkpoint(written, tmp_path):
    """Read, and, where that succeeds, resumed: the model changes wholly or not at all."""
    whole = json.loads(written.read_bytes())
    random_before = random.getstate()

    def load(changed: Any) -> Any:
        rewrite(written, changed)
        state = read_checkpoint(written)
        assert isinstance(state["position"]["step"], int)
        return state

    assert len(outcomes(load, changed_values(whole, COUNT, 5))) > 20
    assert random.getstate() == random_before


def test_resuming_from_changed_fields(written, tmp_path):
    whole = json.loads(written.read_bytes())
    ended = 0

    def resume(changed: Any) -> Any:
        nonlocal ended
        rewrite(written, changed)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fit(tmp_path / "out", 2, resume=written)
        ended += 1

    state = whole["state"]
    for i, each in enumerate(changed_values(state, COUNT, 6)):
        before = sys.stderr
        sys.stderr = io.StringIO()  # a finished run tells that it was
        try:
            outcome(lambda each=each: resume({**whole, "state": each}))
        finally:
            sys.stderr = before
        assert i >= 0
    assert ended > 5


# ------------------------------------------------------------------------ states loaded from dicts


def test_states_of_optimizers_schedules_and_loaders():
    w = gl.ones(2, requires_grad=True)
    w.sum().backward()
    made: list[Any] = [
        optim.SGD([w], lr=0.1, momentum=0.9), optim.Adam([w], amsgrad=True), optim.RMSprop([w]),
    ]  # fmt: skip
    for optimizer in made:
        optimizer.step()
    first = made[0]
    warm_up = optim.lr_scheduler.LinearLR(first, total_iters=2)
    made += [
        optim.lr_scheduler.MultiStepLR(first, [1, 2]),
        optim.lr_scheduler.ReduceLROnPlateau(first),
        optim.lr_scheduler.CyclicLR(first, 0.1, 1.0, 5),
        optim.lr_scheduler.SequentialLR(
            first, [warm_up, optim.lr_scheduler.ExponentialLR(first, 0.5)], [2]
        ),
        batches(),
        training.History(),
    ]
    for each in made:
        state = each.state_dict()
        for changed in changed_values(state, COUNT, 7):
            if outcome(lambda each=each, changed=changed: each.load_state_dict(changed)) is None:
                check_goes_on(each, w)
            each.load_state_dict(state)
    for hostile in HOSTILE:
        for each in made:
            outcome(lambda each=each, hostile=hostile: each.load_state_dict(hostile))


def check_goes_on(each: Any, w: gl.Tensor) -> None:
    """What has taken over a state does its work."""
    with np.errstate(all="ignore"):
        if isinstance(each, optim.Optimizer):
            outcome(each.step)
            w.detach().fill_(1.0)
        elif isinstance(each, optim.lr_scheduler.ReduceLROnPlateau):
            outcome(lambda: each.step(1.0))
        elif isinstance(each, optim.lr_scheduler.LRScheduler):
            outcome(each.step)
        elif isinstance(each, DataLoader):
            outcome(lambda: len(list(each)))


def test_states_of_a_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    for changed in changed_values(state, COUNT, 8):
        outcome(lambda changed=changed: model.load_state_dict(changed))
    assert model(gl.ones(3, 2)).shape == (3, 2)


def test_states_of_a_preprocessor(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, None, 3.0], "b": ["x", "y", None], "y": [0, 1, 1]})
    steps = TablePreprocessor(target="y", standardize=True).fit(frame)
    path = tmp_path / "steps"

    def transform(changed: Any) -> Any:
        gl.save(changed, path)
        made = TablePreprocessor()
        made.load_state_dict(gl.load(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of categories that were not learned
            return made.transform(frame)

    state = steps.state_dict()
    changes = (each for each in changed_values(state, COUNT // 2, 9) if "\ud800" not in repr(each))
    for made in outcomes(transform, changes):
        assert isinstance(made, TableDataset)
        assert made.features.shape == (3, len(made.feature_names))


# ----------------------------------------------------------------------------------- IDX files


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_bytes_of_an_idx_file(tmp_path, name):
    path = tmp_path / name
    write_idx(path, np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    whole = path.read_bytes()

    def load(data: bytes) -> Any:
        path.write_bytes(data)
        return read_idx(path)

    found = outcomes(load, changed_bytes(whole, COUNT, 10))
    assert all(each.nbytes <= 1032 * len(whole) for each in found)
    check_memory()


# ----------------------------------------------------------------------------------- archives


def make_archive(path: Path) -> None:
    members = {"a.csv": b"1,2\n" * 50, "train/b.csv": b"3,4\n" * 9}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "copy")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.csv"
            archive.addfile(info)


def everything_in(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.tar.gz"])
def test_bytes_of_an_archive(tmp_path, name):
    path = tmp_path / name
    make_archive(path)
    whole = path.read_bytes()
    for i, data in enumerate(changed_bytes(whole, COUNT // 2, 11)):
        path.write_bytes(data)
        inner = tmp_path / "inner"
        target = inner / "target"
        result = outcome(lambda target=target: extract(path, target, max_bytes=1 << 20))
        if isinstance(result, Exception):
            assert not inner.exists(), i
        else:
            for each in inner.rglob("*"):
                assert target.resolve() in (each.resolve(), *each.resolve().parents)
            for each in sorted(inner.rglob("*"), reverse=True):
                each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()
            inner.rmdir()
        assert everything_in(tmp_path) == {name}


def test_headers_of_a_tar_archive(tmp_path):
    """Members of any type, name and size, one to three of them, in any order."""
    draw = random.Random(12)
    names = [
        "a", "b", "a/b", "b/c", ".", "..", "../x", "/x", "a/../../x", "", "a/" * 90 + "z",
        "n" * 300, "\udcff", "C:x", "a\\..\\..\\x", "\x1b[2J",
    ]  # fmt: skip
    types = [
        tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
        tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"?",
    ]  # fmt: skip
    path, inner = tmp_path / "d.tar", tmp_path / "inner"
    for _ in range(COUNT // 2):
        with tarfile.open(
            path, "w", format=draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        ) as archive:
            for _ in range(draw.randrange(1, 5)):
                info = tarfile.TarInfo(draw.choice(names))
                info.type, info.linkname = draw.choice(types), draw.choice(names)
                info.mode, info.mtime = (
                    draw.choice((0, 0o777, 0o4755)),
                    draw.choice((0, 1e9, 2**33)),
                )
                info.size = 3
                if draw.random() < 0.1:
                    info.pax_headers = {"size": draw.choice(("-512", "9" * 30, "x")), "path": "\0"}
                archive.addfile(info, io.BytesIO(b"abc"))
        result = outcome(lambda: extract(path, inner / "target", max_bytes=1 << 20))
        assert isinstance(result, Exception) != inner.exists()
        for each in sorted(inner.rglob("*"), reverse=True):
            assert (inner / "target").resolve() in (each.resolve(), *each.resolve().parents)
            each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()
        if inner.exists():
            inner.rmdir()
        assert everything_in(tmp_path) == {"d.tar"}
        assert not os.path.lexists("/x")
