"""A run that was killed or interrupted, and then resumed, ends as if it had never been stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import (
    Classifier,
    assert_same,
    dataset,
    loader,
    make_model,
    parameters,
    trainer,
    val_loader,
)

import gradlab as gl
from gradlab import optim, training
from gradlab.data import DataLoader
from gradlab.errors import CheckpointError, OptionError, StateError

KILLED = Path(__file__).with_name("killed.py")


def start(folder, result):
    return subprocess.Popen(
        [sys.executable, KILLED, folder, result], stdout=subprocess.PIPE, text=True
    )


def finish(folder, result):
    process = start(folder, result)
    process.communicate(timeout=60)
    assert process.returncode == 0
    return gl.load(result)


def kill_at(folder, result, step, moment):
    """Kill a run ``moment`` seconds after it has done ``step`` steps; return its last step."""
    process = start(folder, result)
    last = 0
    for line in process.stdout:
        last = int(line)
        if last >= step:
            break
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return last


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(tmp_path, seed):
    expected = finish(tmp_path / "a", tmp_path / "expected")
    moments = random.Random(seed)
    steps = sorted(moments.sample(range(1, 85), 3))
    for step in steps:
        kill_at(tmp_path / "b", tmp_path / "result", step, moments.uniform(0, 0.01))
        assert not (tmp_path / "result").exists()
    result = finish(tmp_path / "b", tmp_path / "result")
    assert_same(
        {name: x.numpy() for name, x in expected["model"].items()},
        {name: x.numpy() for name, x in result["model"].items()},
    )
    assert result["history"] == expected["history"]
    assert len(list((tmp_path / "b").glob("*.json"))) <= 3  # the last two and the best


# --------------------------------------------------------------------- stopped within a process


class WithAdam(Classifier):
    plot_train_per_epoch = 4  # of 6 batches, so that means go on past the end of an epoch
    plot_valid_per_epoch = 1

    def validation_step(self, batch):
        loss = super().validation_step(batch)
        self.plot("loss", loss, train=False)
        return loss

    def configure_optimizers(self):
        optimizer = optim.Adam(self.parameters(), lr=0.01)
        return optimizer, optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)


class Interrupting(training.Callback):
    """Presses Ctrl-C at a moment: a hook's name, and the epoch and batch of the call."""

    def __init__(self, hook, epoch, batch=None):
        self.moment = (epoch, batch)
        setattr(self, hook, self.press)

    def press(self, run):
        epoch, batch = self.moment
        if run.epoch == epoch and batch in (None, run.batch):
            run.stopping.press()


MOMENTS = [
    ("on_fit_start", 0, 0),
    ("on_batch_end", 0, 1),
    ("on_batch_end", 1, 4),
    ("on_batch_end", 1, 6),  # the last of the epoch
    ("on_validation_start", 1, None),
    ("on_validation_end", 1, None),
    ("on_epoch_end", 1, None),
    ("on_batch_end", 2, 5),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize(
    "order", [{}, {"seed": 3}, {"generator": 3}, {"prefetch": 2}, {"shuffle": False}], ids=str
)
def test_interrupted_at(tmp_path, moment, order, capsys):
    def batches():
        options = dict(order)
        if "generator" in options:
            options["generator"] = gl.Generator(options["generator"])
        return loader(**options)

    whole = make_model(WithAdam)
    expected = trainer(3).fit(whole, batches(), val_loader())
    model = make_model(WithAdam)
    stopped = trainer(3, callbacks=[Interrupting(*moment)], checkpoint_dir=tmp_path)
    stopped.fit(model, batches(), val_loader())
    assert stopped.interrupted
    assert stopped.step < 18
    resumed = make_model(WithAdam, seed=5)
    gl.manual_seed(99)
    run = trainer(3, checkpoint_dir=tmp_path)
    history = run.fit(resumed, batches(), val_loader(), resume="last")
    assert_same(parameters(resumed), parameters(whole))
    assert history.epochs == expected.epochs
    assert history.steps == expected.steps
    assert run.step == 18
    assert resumed.board.data == whole.board.data
    assert len(whole.board.data["val_loss"]) == 3


class Exact(Classifier):
    """Logs in float64, where another order of additions shows."""

    def __init__(self):
        super().__init__()
        self.double()

    def training_step(self, batch):
        X, y = batch
        loss = self.loss(self(X.double()), y)
        self.log("third", loss.item() / 3)
        self.log("latest", loss.item(), last=True)
        return loss

    validation_step = None


class ByHand(training.Trainer):
    """Goes through the batches itself."""

    def fit_epoch(self):
        self.model.train()
        for batch in self.train_dataloader:
            loss = self.model.training_step(batch)
            self.log("train_loss", loss)
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()


class Enough(training.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, run):
        if run.step == self.step:
            run.stop("enough")


@pytest.mark.parametrize("kind", [training.Trainer, ByHand])
@pytest.mark.parametrize("by", ["Ctrl-C", "max_steps", "stop"])
@pytest.mark.parametrize("rows", [None, 7])
def test_a_run_that_stopped_within_a_row_of_its_history(tmp_path, capsys, kind, by, rows):
    """Its history shows the steps up to there; in that of the resumed run they are one row."""

    def run(step=None, **options):
        callbacks = [Enough(step)] if step and by == "stop" else []
        if step and by == "Ctrl-C":
            callbacks = [Interrupting("on_batch_end", (step - 1) // 20, (step - 1) % 20 + 1)]
        return kind(
            3, max_steps=step if by == "max_steps" else None, callbacks=callbacks, seed=1,
            log_every_n_batches=rows, enable_progress_bar=False, **options,
        )  # fmt: skip

    def fit(made, **options):
        model = make_model(Exact)
        return made.fit(model, loader(batch_size=5), **options), model

    expected, whole = fit(run())
    assert len(expected.epochs) == 3
    for step in (1, 7, 8, 19, 20, 22, 41, 59):
        folder = tmp_path / str(step)
        history, _ = fit(run(step, checkpoint_dir=folder))
        assert history.steps[-1]["step"] == step
        # It was told to stop, so that "last" has nothing to add.
        if by == "stop":
            continue
        resumed, model = fit(run(checkpoint_dir=folder), resume="last")
        assert resumed.steps == expected.steps
        assert resumed.epochs == expected.epochs
        assert_same(parameters(model), parameters(whole))


def test_the_users_own_random_numbers_go_on_too(tmp_path):
    class Noisy(Classifier):
        def training_step(self, batch):
            X, y = batch
            noise = np.random.standard_normal(X.shape).astype(np.float32)  # noqa: NPY002
            return self.loss(self(X + gl.from_numpy(noise) * random.random()), y)

    def seed():
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)

    seed()
    whole = make_model(Noisy)
    trainer(2).fit(whole, loader())
    seed()
    stopping = [Interrupting("on_batch_end", 1, 2)]
    trainer(2, callbacks=stopping, checkpoint_dir=tmp_path).fit(make_model(Noisy), loader())
    random.seed(5)
    resumed = make_model(Noisy)
    trainer(2, checkpoint_dir=tmp_path).fit(resumed, loader(), resume="last")
    assert_same(parameters(resumed), parameters(whole))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_batches_that_say_nothing_of_their_place(tmp_path, accumulate):
    """A list is gone through again, and passed over up to the batch where the run stopped."""
    batches = list(loader(seed=0))
    options = {"checkpoint_dir": tmp_path, "accumulate_grad_batches": accumulate}
    whole = make_model()
    trainer(2, accumulate_grad_batches=accumulate).fit(whole, batches)
    stopping = Interrupting("on_batch_end", 1, 3)
    stopped = trainer(2, callbacks=[stopping], **options)
    stopped.fit(make_model(), batches)
    assert stopped.batch == {1: 3, 4: 4}[accumulate]  # never within a step
    resumed = make_model(seed=1)
    trainer(2, **options).fit(resumed, batches, resume="last")
    assert_same(parameters(resumed), parameters(whole))


def test_limited_epochs(tmp_path):
    whole = make_model()
    trainer(3, limit_batches=4).fit(whole, loader())
    for epoch, batch in [(1, 2), (1, 4)]:
        stopping = [Interrupting("on_batch_end", epoch, batch)]
        folder = tmp_path / str(batch)
        options = {"limit_batches": 4, "checkpoint_dir": folder}
        trainer(3, callbacks=stopping, **options).fit(make_model(), loader())
        resumed = make_model(seed=1)
        trainer(3, **options).fit(resumed, loader(), resume="last")
        assert_same(parameters(resumed), parameters(whole))


def test_lazy_layers(tmp_path):
    class Lazy(Classifier):
        def __init__(self):
            super().__init__()
            self.net = gl.nn.Sequential(gl.nn.LazyLinear(8), gl.nn.ReLU(), gl.nn.LazyLinear(3))

    whole = make_model(Lazy)
    trainer(2).fit(whole, loader())
    stopping = [Interrupting("on_batch_end", 1, 2)]
    trainer(2, callbacks=stopping, checkpoint_dir=tmp_path).fit(make_model(Lazy), loader())
    resumed = make_model(Lazy)
    trainer(2, checkpoint_dir=tmp_path).fit(resumed, loader(), resume="last")
    assert_same(parameters(resumed), parameters(whole))


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    whole = make_model()
    trainer(4).fit(whole, loader())
    trainer(2, checkpoint_dir=tmp_path).fit(make_model(), loader())
    resumed = make_model()
    history = trainer(4, checkpoint_dir=tmp_path).fit(resumed, loader(), resume="auto")
    assert_same(parameters(resumed), parameters(whole))
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4]


def test_early_stopping_counts_on(tmp_path):
    class Constant(Classifier):
        def validation_step(self, batch):
            self.log("val_loss", 1.0)

    def run(epochs, **options):
        stopper = training.EarlyStopping(patience=3)
        made = trainer(epochs, callbacks=[stopper], checkpoint_dir=tmp_path)
        made.fit(make_model(Constant), loader(), val_loader(), **options)
        return made

    run(2)
    stopped = run(20, resume="last")
    assert stopped.epoch == 4
    again = run(20, resume="last")  # has nothing to add
    assert again.epoch == 4
    assert "val_loss has not improved for 3 epochs" in again.stop_reason


def test_a_finished_run_says_so(tmp_path, capsys):
    trainer(2, checkpoint_dir=tmp_path).fit(make_model(), loader())
    assert capsys.readouterr().err == ""
    history = trainer(2, checkpoint_dir=tmp_path).fit(make_model(), loader(), resume="last")
    assert len(history) == 2
    assert capsys.readouterr().err == (
        "Trainer.fit: the resumed run was finished already, after epoch 2 (step 12); nothing was "
        "trained. To train on, raise the limits of the Trainer; for a new run, leave resume out\n"
    )
    trainer(3, checkpoint_dir=tmp_path).fit(make_model(), loader(), resume="last")
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------- what the loader is left as


def stopped_within_an_epoch(folder, batches):
    trainer(2, max_steps=8, checkpoint_dir=folder).fit(make_model(), batches)


def test_a_finished_run_leaves_whole_epochs(tmp_path):
    stopped_within_an_epoch(tmp_path, loader())
    batches = loader()
    again = trainer(2, max_steps=8, checkpoint_dir=tmp_path)
    again.fit(make_model(), batches, resume="auto")
    assert again.step == 8
    assert len(list(batches)) == 6
    # So does one that an error ends before its first batch.
    wrong = trainer(2, callbacks=[Failing()], checkpoint_dir=tmp_path)
    with pytest.raises(ZeroDivisionError):
        wrong.fit(make_model(), batches, resume="last")
    assert len(list(batches)) == 6


class Failing(training.Callback):
    def on_fit_start(self, run):
        raise ZeroDivisionError


def test_a_refused_checkpoint_leaves_whole_epochs(tmp_path):
    batches = loader()
    stopped_within_an_epoch(tmp_path, batches)
    with pytest.raises(StateError):
        trainer(2).fit(make_model(Wider), batches, resume=tmp_path)
    assert len(list(batches)) == 6


def test_lazy_layers_begin_with_a_whole_epoch(tmp_path):
    batches = loader()
    stopped_within_an_epoch(tmp_path, batches)
    model = make_model()
    model.net = gl.nn.LazyLinear(3)
    run = trainer(1)
    run.fit(model, batches)
    assert run.step == 6


# ----------------------------------------------------------------------------------- messages


def test_nothing_to_resume(tmp_path):
    with pytest.raises(OptionError, match='resume="last" needs a folder to look in'):
        trainer().fit(make_model(), loader(), resume="last")
    with pytest.raises(
        CheckpointError, match=r'resume="last": there is no checkpoint in .*"auto" starts'
    ):
        trainer(checkpoint_dir=tmp_path).fit(make_model(), loader(), resume="last")
    with pytest.raises(CheckpointError, match=r"resume: there is no checkpoint .*nowhere\.json"):
        trainer().fit(make_model(), loader(), resume=tmp_path / "nowhere.json")
    given = tmp_path / "nowhere.safetensors"
    with pytest.raises(CheckpointError, match=r"resume: there is no checkpoint .*re\.safetensors"):
        trainer().fit(make_model(), loader(), resume=given)
    gl.save({"x": gl.ones(1)}, given)
    with pytest.raises(
        CheckpointError, match=r"re\.safetensors is no checkpoint without nowhere\."
    ):
        trainer().fit(make_model(), loader(), resume=given)
    with pytest.raises(CheckpointError, match="resume: there is no checkpoint in the folder"):
        trainer().fit(make_model(), loader(), resume=tmp_path)
    with pytest.raises(CheckpointError, match=r"resume: n+ cannot be read: File name too long"):
        trainer().fit(make_model(), loader(), resume="n" * 300)


@pytest.fixture
def checkpoint(tmp_path):
    run = trainer(None, max_steps=8, checkpoint_dir=tmp_path)
    run.fit(make_model(), loader())
    return training.list_checkpoints(tmp_path)[-1]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_by_path(checkpoint, suffix):
    run = trainer(2)
    run.fit(make_model(), loader(), resume=checkpoint.with_suffix(suffix))
    assert run.step == 12


class Wider(Classifier):
    def __init__(self):
        super().__init__()
        self.net[0] = gl.nn.Linear(6, 20)
        self.net[3] = gl.nn.Linear(20, 3)


def test_another_model_is_refused_and_nothing_changes(checkpoint):
    model, batches = make_model(Wider), loader()
    before, place = parameters(model), batches.state_dict()
    with pytest.raises(
        StateError, match=r"net\.0\.weight: expected shape \(20, 6\), got \(16, 6\)"
    ):
        trainer().fit(model, batches, resume=checkpoint)
    assert_same(parameters(model), before)
    assert batches.state_dict() == place


def test_another_optimizer_is_refused_and_nothing_changes(checkpoint):
    model = make_model(WithAdam)
    before = parameters(model)
    with pytest.raises(StateError, match=r"gives the optimizers \['Adam'\], and .* has \['SGD'\]"):
        trainer().fit(model, loader(), resume=checkpoint)
    assert_same(parameters(model), before)


def test_other_groups_are_refused(checkpoint):
    class Part(Classifier):
        def configure_optimizers(self):
            return optim.SGD(self.net[0].parameters(), lr=0.1, momentum=0.9)

    with pytest.raises(StateError, match=r"SGD has groups of \[2\] parameters, .* has \[4\]"):
        trainer().fit(make_model(Part), loader(), resume=checkpoint)


def test_other_data_is_refused_and_nothing_changes(checkpoint):
    model = make_model()
    before = parameters(model)
    with pytest.raises(
        StateError, match=r"DataLoader\.load_state_dict: expected a state of batches"
    ):
        trainer().fit(model, DataLoader(dataset(), 32, shuffle=True), resume=checkpoint)
    assert_same(parameters(model), before)
