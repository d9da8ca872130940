"""The moments of a run, and the callbacks that come with gradlab."""

from __future__ import annotations

import pytest
from support import Classifier, loader, make_model, trainer, val_loader

from gradlab import optim, training
from gradlab.errors import OptionError
from gradlab.training.callbacks import HOOKS


class Recorder:
    """Notes every call; no subclass of Callback, which need not be."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda run, *args: self.calls.append((name, run.epoch, run.batch, run.step))


def test_the_order_of_the_moments():
    recorder = Recorder()
    trainer(2, callbacks=[recorder], check_val_every_n_epoch=2).fit(
        make_model(), loader(32), val_loader()
    )
    calls = [call for call in recorder.calls if call[0] != "on_progress"]
    assert calls == [
        ("on_fit_start", 0, 0, 0),
        ("on_epoch_start", 0, 0, 0),
        ("on_batch_end", 0, 1, 1),
        ("on_batch_end", 0, 2, 2),
        ("on_batch_end", 0, 3, 3),
        ("on_epoch_end", 0, 3, 3),
        ("on_epoch_start", 1, 0, 3),
        ("on_batch_end", 1, 1, 4),
        ("on_batch_end", 1, 2, 5),
        ("on_batch_end", 1, 3, 6),
        ("on_validation_start", 1, 3, 6),
        ("on_validation_end", 1, 3, 6),
        ("on_epoch_end", 1, 3, 6),
        ("on_fit_end", 2, 0, 6),
    ]


def test_an_error_is_told_and_goes_on():
    class Failing(Classifier):
        def training_step(self, batch):
            raise ZeroDivisionError("in the user's own code")

    class Listener(training.Callback):
        heard = None

        def on_exception(self, trainer, error):
            self.heard = error

        def on_fit_end(self, trainer):
            pytest.fail("the run did not end well")

    listener = Listener()
    with pytest.raises(ZeroDivisionError) as caught:
        trainer(callbacks=[listener]).fit(make_model(Failing), loader())
    assert listener.heard is caught.value


def test_metrics_are_exact_at_the_end_of_an_epoch():
    class Check(training.Callback):
        def on_epoch_end(self, trainer):
            row = trainer.history.epochs[-1]
            steps = [r for r in trainer.history.steps if r["epoch"] == trainer.epoch + 1]
            mean = sum(r["train_loss"] for r in steps) / len(steps)
            assert row["train_loss"] == pytest.approx(mean)
            assert trainer.metrics["train_loss"] == row["train_loss"]
            assert trainer.metrics["val_loss"] == row["val_loss"]

    trainer(callbacks=[Check()], log_every_n_batches=1).fit(make_model(), loader(), val_loader())


def test_the_learning_rate_monitor():
    class Scheduled(Classifier):
        def configure_optimizers(self):
            groups = [{"params": self.net[0].parameters(), "lr": 2.0},
                      {"params": self.net[3].parameters()}]  # fmt: skip
            optimizer = optim.SGD(groups, lr=1.0)
            scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
            return optimizer, scheduler

    history = trainer(2, callbacks=[training.LearningRateMonitor()]).fit(
        make_model(Scheduled), loader()
    )
    assert history["lr-0"] == [2.0, 1.0]
    assert history["lr-1"] == [1.0, 0.5]
    run = trainer(1, callbacks=[training.LearningRateMonitor()])
    assert run.fit(make_model(), loader())["lr"] == [0.05]


def test_logging_from_a_callback():
    class Note(training.Callback):
        def on_batch_end(self, trainer):
            trainer.log("batches", trainer.batch, last=True)

        def on_epoch_end(self, trainer):
            trainer.log("squared", trainer.epoch**2)

    history = trainer(3, callbacks=[Note()]).fit(make_model(), loader())
    assert history["batches"] == [6, 6, 6]
    assert history["squared"] == [0, 1, 4]


def test_state_is_kept_by_name(tmp_path):
    class Counter(training.Callback):
        def __init__(self):
            self.count = 0

        def on_batch_end(self, trainer):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    def run(epochs):
        counters = [Counter(), Counter()]
        trainer(epochs, callbacks=counters, checkpoint_dir=tmp_path).fit(
            make_model(), loader(), resume="auto"
        )
        return [counter.count for counter in counters]

    assert run(1) == [6, 6]
    assert run(3) == [18, 18]
    states = training.read_checkpoint(tmp_path)["callbacks"]
    assert states["Counter"] == states["Counter#2"] == {"count": 18}


def test_checkpoints_come_after_all_others():
    first, second = training.ModelCheckpoint("unused"), training.EarlyStopping()
    run = training.Trainer(1, callbacks=[first, second])
    kinds = [type(each).__name__ for each in run.callbacks]
    assert kinds == ["EarlyStopping", "ProgressBar", "ModelCheckpoint"]


# ----------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "callback",
    [
        lambda name: training.EarlyStopping(name),
        lambda name: training.ModelCheckpoint("unused", monitor=name),
    ],
)
def test_a_metric_that_does_not_exist(callback, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = callback("val_los")
    with pytest.raises(OptionError) as caught:
        trainer(callbacks=[made]).fit(make_model(), loader(), val_loader())
    assert str(caught.value) == (
        f"{type(made).__name__}: expected a metric to monitor among train_loss, val_acc, val_loss, "
        "got 'val_los'; log it in training_step or validation_step with self.log(name, value)"
    )


def test_a_validation_metric_without_validation():
    with pytest.raises(
        OptionError, match=r"there is no validation data: give fit.. a second loader"
    ):
        trainer(callbacks=[training.EarlyStopping()]).fit(make_model(), loader())


def test_options():
    for patience in (0, 1.5, "3"):
        with pytest.raises(OptionError, match="expected an integer patience of 1 or more, got"):
            training.EarlyStopping(patience=patience)
    for delta in (-1, "0"):
        with pytest.raises(OptionError, match="EarlyStopping: expected min_delta of 0 or more"):
            training.EarlyStopping(min_delta=delta)
    with pytest.raises(OptionError, match="EarlyStopping: expected mode 'min' or 'max', got 'up'"):
        training.EarlyStopping(mode="up")
    with pytest.raises(
        OptionError, match=r"callbacks with at least one method of .*, got function"
    ):
        trainer(callbacks=[lambda: None])


def test_reprs_are_one_line(tmp_path):
    stopping = training.EarlyStopping("val_acc", 5, 0.01, "max")
    assert repr(stopping) == (
        "EarlyStopping(monitor='val_acc', patience=5, min_delta=0.01, mode='max')"
    )
    assert repr(training.ModelCheckpoint("best", monitor="val_loss")) == (
        "ModelCheckpoint('best', every='60s', keep=3, monitor='val_loss', mode='min')"
    )
    assert repr(training.LearningRateMonitor()) == "LearningRateMonitor()"
    assert repr(training.ProgressBar()) == "ProgressBar(mode='auto', every='30s')"
    made = trainer(2, max_time="10m", device="cpu", callbacks=[stopping])
    assert repr(made) == (
        "Trainer(max_epochs=2, max_time='600s', device='cpu', callbacks=[EarlyStopping]; "
        "0 epochs, 0 steps done)"
    )
