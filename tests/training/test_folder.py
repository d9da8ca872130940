"""A folder of checkpoints that several runs share, one of which may be damaged or killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import Classifier, assert_same, loader, make_model, parameters, trainer, val_loader

import gradlab as gl
from gradlab import training
from gradlab.errors import CheckpointError, FileError, NonFiniteLossError
from gradlab.training import ModelCheckpoint, folder, list_checkpoints, read_checkpoint
from gradlab.training.folder import claimed, remove_abandoned, remove_checkpoint
from refusals import refusal

CLAIMING = Path(__file__).with_name("claiming.py")
POSITION = {"epoch": 1, "batch": 0, "step": 5}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def claiming(folder, count):
    return subprocess.Popen(
        [sys.executable, CLAIMING, folder, str(count)], stdout=subprocess.PIPE, text=True
    )


class Scored(Classifier):
    """Its score is best in the first epoch."""

    def validation_step(self, batch):
        self.log("score", float(self.trainer.epoch))


def run(folder, epochs=3, resume=None, kind=Scored, **options):
    writer = ModelCheckpoint(folder, **{"every": "epoch", "keep": 1, "monitor": "score", **options})
    made = trainer(epochs, callbacks=[writer])
    made.fit(make_model(kind), loader(), val_loader(), resume=resume)
    return writer


# -------------------------------------------------------------------------------- what is deleted


def test_a_run_deletes_nothing_of_another(tmp_path):
    first = run(tmp_path)
    before = contents(tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "0001-epoch1-step6.json",  # its best
        "0003-epoch3-step18.json",
    ]
    second = run(tmp_path)
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert len(list_checkpoints(tmp_path)) == 4
    assert second.best_path.name == "0004-epoch1-step6.json"
    assert first.best_path.exists()
    third = run(tmp_path, keep=2, monitor=None)
    assert len(list_checkpoints(tmp_path)) == 6
    # And one Trainer's second run nothing of its first.
    again = trainer(1, callbacks=[third])
    for _ in range(2):
        again.fit(make_model(), loader())
    assert len(list_checkpoints(tmp_path)) == 8


@pytest.mark.parametrize("resume", ["last", "auto"])
def test_a_run_that_is_continued_is_the_same_run(tmp_path, resume):
    run(tmp_path, epochs=2)
    continued = run(tmp_path, epochs=5, resume=resume)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "0001-epoch1-step6.json",
        "0005-epoch5-step30.json",
    ]
    assert continued.best_path == list_checkpoints(tmp_path)[0]


def test_a_copy_of_a_run_deletes_nothing_of_it(tmp_path):
    first = run(tmp_path, epochs=3, keep=2)
    before = contents(tmp_path)
    copy = run(tmp_path, epochs=6, resume=first.last_path)
    assert {name: contents(tmp_path).get(name) for name in before} == before
    assert copy.best_path == first.best_path
    # The names in a checkpoint are those of its own folder.
    elsewhere = tmp_path / "elsewhere"
    run(elsewhere, epochs=2, keep=None, monitor=None)
    own = contents(elsewhere)
    moved = run(elsewhere, epochs=6, resume=first.last_path)
    assert {name: contents(elsewhere).get(name) for name in own} == own
    assert moved.best_path == first.best_path


def test_what_a_killed_run_did_not_come_to_is_deleted(tmp_path, monkeypatch):
    """Between a checkpoint that is written and an older one that is to go."""
    with monkeypatch.context() as patch:
        patch.setattr(ModelCheckpoint, "_prune", lambda self: None)
        run(tmp_path, epochs=4, monitor=None)
    assert len(list_checkpoints(tmp_path)) == 4
    list_checkpoints(tmp_path)[0].unlink()  # and in the middle of deleting it
    run(tmp_path, epochs=4, monitor=None, resume="auto")
    assert sorted(os.listdir(tmp_path)) == ["0004-epoch4-step24.json",
                                            "0004-epoch4-step24.safetensors"]  # fmt: skip


def test_a_file_that_cannot_be_deleted_ends_no_run(tmp_path, monkeypatch):
    refused = []

    def refuse(path):
        if not refused or refused == [path]:
            refused.append(path)
            raise PermissionError
        remove_checkpoint(path)

    monkeypatch.setattr(training.callbacks, "remove_checkpoint", refuse)
    run(tmp_path, epochs=4, monitor=None)
    assert refused == [tmp_path / "0001-epoch1-step6.json"] * 2  # then it could
    assert [path.name[:4] for path in list_checkpoints(tmp_path)] == ["0004"]


def test_a_checkpoint_that_fails_is_not_the_best(tmp_path):
    class Exploding(Scored):
        def validation_step(self, batch):
            self.log("score", -float(self.trainer.epoch))
            if self.trainer.epoch == 1:
                with gl.no_grad():
                    self.net[0].weight.fill_(float("inf"))

    writer = ModelCheckpoint(tmp_path, every="epoch", keep=1, monitor="score")
    with pytest.raises(NonFiniteLossError, match="the parameter net"):
        trainer(3, callbacks=[writer]).fit(make_model(Exploding), loader(), val_loader())
    assert writer.best_path == writer.last_path == list_checkpoints(tmp_path)[0]
    assert writer.state_dict()["written"] == [writer.best_path.name]
    assert len(os.listdir(tmp_path)) == 2


# ------------------------------------------------------------------------------------------ names


def test_no_two_processes_take_one_number(tmp_path):
    processes = [claiming(tmp_path, 25) for _ in range(2)]

    def claim():
        for _ in range(25):
            with claimed(tmp_path, POSITION) as path:
                path.touch(exist_ok=False)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for each in processes:
        each.communicate(timeout=60)
        assert each.returncode == 0
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        f"{number:04d}-epoch1-step5.json" for number in range(1, 101)
    ]
    assert not list(tmp_path.glob(".*"))


def test_numbers_of_more_digits_come_later(tmp_path):
    for number in (9998, 9999, 10000):
        (tmp_path / f"{number}-epoch1-step1.json").write_text("{}")
    (tmp_path / "10001-epoch1-step1.safetensors").write_text("")
    with claimed(tmp_path, POSITION) as path:
        assert path.name == "10002-epoch1-step5.json"
    assert [path.name[:5] for path in list_checkpoints(tmp_path)] == ["9998-", "9999-", "10000"]
    with pytest.raises(CheckpointError, match=r"the checkpoint before it is .*/9999-epoch1"):
        read_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    assert list_checkpoints(tmp_path / "none") == []
    run(tmp_path, epochs=1)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    for resume in ("auto", "last", tmp_path):
        with pytest.raises(CheckpointError, match=f"{tmp_path} cannot be read: Permission denied"):
            run(tmp_path, epochs=1, resume=resume)


def test_two_runs_at_a_time(tmp_path):
    class Both(training.Callback):
        """The second run within each step of the first."""

        def on_batch_end(self, first):
            if first.step == 3:
                run(tmp_path, epochs=2, every=1, keep=2, monitor=None)

    writer = ModelCheckpoint(tmp_path, every=1, keep=2)
    made = trainer(1, callbacks=[Both(), writer])
    made.fit(make_model(), loader())
    steps = [read_checkpoint(path)["position"]["step"] for path in list_checkpoints(tmp_path)]
    assert steps == [12, 12, 6, 6]  # at the last step, and at the end of the epoch


# --------------------------------------------------------------------------------- what is left


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("days", [-30, 0, 30])
def test_what_a_killed_process_left_is_cleared(tmp_path, monkeypatch, days):
    """Whatever the clock says: as long as it writes, nobody touches its files."""
    others = {"0007-epoch1-step5.safetensors", "model.safetensors", "0007-notes.txt", ".x.tmp",
              ".0009-epoch1-step5.json.0123abcd.tmp"}  # fmt: skip
    for name in others:
        (tmp_path / name).write_text("x")
    process = claiming(tmp_path, 0)
    name = process.stdout.readline().strip()
    assert name == "0010-epoch1-step5.json"
    writing = {".0010.claim", "0010-epoch1-step5.safetensors", f".{name}.0123abcd.tmp"}
    assert set(os.listdir(tmp_path)) == others | writing
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 86400)
    for each in tmp_path.iterdir():
        os.utime(each, (0, 0))
    remove_abandoned(tmp_path)
    run(tmp_path, epochs=1, monitor=None)
    assert writing <= set(os.listdir(tmp_path))
    process.kill()
    process.communicate(timeout=60)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)  # what another user left
        run(tmp_path, epochs=1, monitor=None)
    assert writing <= set(os.listdir(tmp_path))
    run(tmp_path, epochs=1, monitor=None)
    assert not writing & set(os.listdir(tmp_path))
    assert others <= set(os.listdir(tmp_path))
    assert [path.name[:4] for path in list_checkpoints(tmp_path)] == ["0011", "0012", "0013"]


def test_a_claim_of_a_whole_checkpoint(tmp_path):
    """Of a process that was killed before it could take its claim back."""
    writer = run(tmp_path, epochs=1, monitor=None)
    (tmp_path / ".0001.claim").touch()
    before = writer.last_path.read_bytes()
    remove_abandoned(tmp_path)
    assert writer.last_path.read_bytes() == before
    assert len(os.listdir(tmp_path)) == 2


def test_a_kill_in_the_middle_of_deleting(tmp_path, monkeypatch):
    """The rest goes with the next run, which need not be the one that wrote it."""

    class Killed(BaseException):
        pass

    def kill(path, missing_ok=False):
        if path.suffix == ".safetensors":
            raise Killed
        os.unlink(path)

    run(tmp_path, epochs=1, monitor=None)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        patch.setattr(folder, "_give_back", lambda claim, handle: os.close(handle))
        with pytest.raises(Killed):
            remove_checkpoint(list_checkpoints(tmp_path)[0])
    assert sorted(os.listdir(tmp_path)) == [".0001.claim", "0001-epoch1-step6.safetensors"]
    run(tmp_path, epochs=1, monitor=None)
    assert [path.name[:4] for path in list_checkpoints(tmp_path)] == ["0001"]
    assert len(os.listdir(tmp_path)) == 2


def test_deleting_needs_no_claim(tmp_path, monkeypatch):
    """A full disk has no place for one."""

    def refuse(claim):
        raise OSError(errno.ENOSPC, "No space left on device")

    run(tmp_path, epochs=1, monitor=None)
    monkeypatch.setattr(folder, "_create", refuse)
    remove_checkpoint(list_checkpoints(tmp_path)[0])
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_a_claim_of_another_stays(tmp_path):
    """One that was taken for abandoned before it was locked, and whose number is taken again."""
    claim = tmp_path / ".0001.claim"
    handle = folder._create(claim)
    claim.unlink()
    another = folder._create(claim)
    folder._give_back(claim, handle)
    assert claim.exists()
    folder._give_back(claim, another)
    assert not claim.exists()


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_claims_that_are_no_files(tmp_path):
    (tmp_path / ".0003.claim").mkdir()
    (tmp_path / ".0004.claim").symlink_to(tmp_path / "notes")
    os.mkfifo(tmp_path / ".0005.claim")
    before = set(os.listdir(tmp_path))
    remove_abandoned(tmp_path)
    assert set(os.listdir(tmp_path)) == before
    run(tmp_path, epochs=1, monitor=None)
    assert [path.name[:4] for path in list_checkpoints(tmp_path)] == ["0006"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"checkpoint: .*/file: cannot be written: .*; nothing was"):
        run(tmp_path / "file")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_run(tmp_path, monkeypatch):
    run(tmp_path, epochs=1)
    before = contents(tmp_path)

    def refuse(claim):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder, "_create", refuse)
    with pytest.raises(FileError, match=r"cannot be written: Read-only .*; nothing was trained"):
        run(tmp_path, epochs=2, resume="auto")
    run(tmp_path, epochs=1, resume="auto")  # which is finished, and writes nothing
    assert contents(tmp_path) == before


def test_a_folder_that_is_gone_within_the_run(tmp_path):
    class Removing(training.Callback):
        def on_batch_end(self, run):
            (tmp_path / "folder").rmdir()

    made = trainer(
        1, callbacks=[Removing()], checkpoint_dir=tmp_path / "folder", checkpoint_every=1
    )
    with pytest.raises(FileError, match=r"checkpoint: .*/folder: cannot be written: No such file"):
        made.fit(make_model(), loader())


def test_a_relative_folder_and_a_program_that_moves(tmp_path, monkeypatch):
    class Moving(training.Callback):
        def on_batch_end(self, run):
            os.chdir(tmp_path / "b")

    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    made = trainer(2, callbacks=[Moving()], checkpoint_dir="here", checkpoint_every=3)
    made.fit(make_model(), loader())
    assert os.listdir(tmp_path / "b") == []
    assert len(list_checkpoints(tmp_path / "a" / "here")) == 3
    made.fit(make_model(), loader(), resume="last")
    assert made.step == 12


# --------------------------------------------------------------------------------- resume="auto"


@pytest.fixture
def stopped(tmp_path):
    """A folder with checkpoints after 4, 8 and 10 steps of 18, and the result of the whole run."""
    whole = make_model()
    trainer(3).fit(whole, loader())
    made = trainer(None, max_steps=10, checkpoint_dir=tmp_path, checkpoint_every=4)
    made.fit(make_model(), loader())
    assert len(list_checkpoints(tmp_path)) == 3
    return tmp_path, whole


def fit(folder, resume="auto", epochs=3):
    model = make_model(seed=4)
    made = trainer(epochs, checkpoint_dir=folder, checkpoint_every=4)
    made.fit(model, loader(), resume=resume)
    return made, model


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("how", ["emptied", "truncated", "altered", "missing", "a folder"])
def test_auto_takes_the_one_before_a_damaged_one(stopped, suffix, how):
    folder, whole = stopped
    _, second, latest = list_checkpoints(folder)
    damaged = latest.with_suffix(suffix)
    data = damaged.read_bytes()
    damaged.unlink()
    if how == "a folder":
        damaged.mkdir()
    elif how != "missing":
        altered = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        damaged.write_bytes({"emptied": b"", "truncated": data[: len(data) // 2]}.get(how, altered))
    if (how, suffix) != ("missing", ".json"):
        with pytest.raises(CheckpointError):
            fit(folder, resume="last")
        with pytest.warns(UserWarning, match="resume=.auto. takes") as told:
            _, model = fit(folder)
        (text,) = [str(each.message) for each in told]
        assert text.startswith(
            f'Trainer.fit: resume="auto" takes {second}, an earlier checkpoint: '
        )
        assert str(damaged) in text
        assert told[0].filename == __file__
        assert_same(parameters(model), parameters(whole))
    # The next time, there are later ones.
    made, model = fit(folder, epochs=4)
    assert made.step == 24


@pytest.mark.parametrize("resume", ["auto", "last"])
def test_a_checkpoint_that_another_run_replaces_meanwhile(tmp_path, monkeypatch, resume):
    run(tmp_path, epochs=1, monitor=None)
    (first,) = list_checkpoints(tmp_path)

    def read(path):
        if path == first:
            run(tmp_path, epochs=2, monitor=None)  # which writes 0002 and 0003
            remove_checkpoint(first)
        return read_checkpoint(path)

    monkeypatch.setattr(training.runstate, "read_checkpoint", read)
    assert run(tmp_path, epochs=2, monitor=None, resume=resume).last_path.name[:4] == "0003"


def test_auto_takes_none_where_all_are_damaged(stopped):
    folder, _ = stopped
    for path in list_checkpoints(folder):
        path.write_text("{}")
    before = contents(folder)
    latest = list_checkpoints(folder)[-1]
    assert refusal(fit, folder).startswith(
        f'Trainer.fit: resume="auto": none of the 3 checkpoints in {folder} can be read; of the '
        f"latest: resume: {latest} is truncated or is no checkpoint"
    )
    assert contents(folder) == before


def test_auto_leaves_a_finished_run_as_it_is(tmp_path, capsys):
    made, model = fit(tmp_path)
    before = contents(tmp_path)
    for _ in range(2):
        again, restored = fit(tmp_path)
        assert contents(tmp_path) == before
        assert_same(parameters(restored), parameters(model))
        assert again.history.epochs == made.history.epochs
        assert "the resumed run was finished already, after epoch 3" in capsys.readouterr().err
    longer, _ = fit(tmp_path, epochs=4)
    assert longer.step == 24


def test_auto_leaves_a_run_as_it_is_that_was_told_to_stop(tmp_path, capsys):
    class Enough(training.Callback):
        def on_batch_end(self, run):
            if run.step == 8:
                run.stop("it was good enough")

    made = trainer(3, callbacks=[Enough()], checkpoint_dir=tmp_path)
    made.fit(make_model(), loader())
    before = contents(tmp_path)
    again, _ = fit(tmp_path)
    assert (again.step, again.stop_reason) == (8, "it was good enough")
    assert contents(tmp_path) == before
    assert "(step 8) (it was good enough); nothing was trained" in capsys.readouterr().err
    assert fit(tmp_path, resume="last")[0].step == 18  # which asks for more


def test_auto_starts_where_there_is_nothing(tmp_path):
    made, _ = fit(tmp_path / "new")
    assert made.step == 18
