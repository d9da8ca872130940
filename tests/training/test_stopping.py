"""Ctrl-C, a loss that is no number, and callbacks that end a run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

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
from gradlab import training
from gradlab.data import DataLoader, Subset
from gradlab.errors import NonFiniteLossError
from gradlab.training.stopping import Signals

SCRIPT = Path(__file__).with_name("interrupted.py")


def start(folder, seconds):
    process = subprocess.Popen(
        [sys.executable, SCRIPT, folder, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.read(3) == "..."  # within the third step
    return process


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_cleanly(tmp_path):
    process = start(tmp_path, 0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("fit returned after step 3, Ctrl-C")
    (path,) = training.list_checkpoints(tmp_path)
    assert err == (
        f"Stopped by Ctrl-C in epoch 1, batch 3 (step 3); checkpoint {path}; to go on, call "
        'fit(..., resume="last")\n'
    )
    assert training.read_checkpoint(path)["position"]["batch"] == 3


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_second_ctrl_c_aborts_at_once(tmp_path):
    process = start(tmp_path, 30)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)  # it waits for the step, and the signals do not become one
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert training.list_checkpoints(tmp_path) == []


# --------------------------------------------------------------------------------- other signals

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
HELD = [signal.SIGINT, *ENDING]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", ENDING)
def test_a_warning_to_end_writes_a_checkpoint_and_ends_the_process(tmp_path, number):
    process = start(tmp_path, 0.2)
    process.send_signal(number)
    process.send_signal(number)  # a launcher may pass it on to those that got it already
    out, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert out == ""  # nothing after fit
    (path,) = training.list_checkpoints(tmp_path)
    assert err == (
        f"Stopped by {number.name} in epoch 1, batch 3 (step 3); checkpoint {path}; to go on, call "
        'fit(..., resume="last")\n'
    )
    state = training.read_checkpoint(path)
    assert (state["position"]["batch"], state["told_to_stop"]) == (3, False)


@pytest.fixture
def handlers():
    """Puts the handlers of all signals back; what it lists are the signals that came."""
    before = {number: signal.getsignal(number) for number in HELD}
    yield []
    for number, handler in before.items():
        signal.signal(number, handler)


class Raise(training.Callback):
    """Sends a signal to the process at a step."""

    def __init__(self, number, step=2):
        self.number, self.step = number, step

    def on_batch_end(self, run):
        if run.step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", ENDING)
def test_a_handler_of_the_program_gets_the_signal_after_the_run(tmp_path, handlers, number):
    def handle(number, frame):
        handlers.append((number, run.is_running, len(training.list_checkpoints(tmp_path))))

    signal.signal(number, handle)
    run = trainer(callbacks=[Raise(number)], checkpoint_dir=tmp_path)
    run.fit(make_model(), loader())
    assert handlers == [(number, False, 1)]
    assert (run.step, run.interrupted, run.stop_reason) == (2, True, number.name)
    assert signal.getsignal(number) is handle


def test_a_run_within_a_run_passes_the_signal_on(handlers):
    class Inner(training.Callback):
        def on_batch_end(self, run):
            if run.step == 3:
                inner.fit(make_model(), loader())

    signal.signal(signal.SIGTERM, lambda number, frame: handlers.append(number))
    inner, outer = trainer(callbacks=[Raise(signal.SIGTERM)]), trainer(callbacks=[Inner()])
    outer.fit(make_model(), loader())
    assert (inner.step, outer.step, handlers) == (2, 3, [signal.SIGTERM])


@pytest.mark.parametrize("number", HELD)
def test_an_ignored_signal_stays_ignored(handlers, number):
    signal.signal(number, signal.SIG_IGN)
    run = trainer(1, callbacks=[Raise(number)])
    run.fit(make_model(), loader())
    assert (run.step, run.interrupted) == (6, False)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_the_handlers_before_are_put_back(handlers):
    before = {number: signal.getsignal(number) for number in HELD}
    trainer().fit(make_model(), loader())
    assert {number: signal.getsignal(number) for number in HELD} == before
    with pytest.raises(ZeroDivisionError):
        trainer(callbacks=[Failing()]).fit(make_model(), loader())
    assert {number: signal.getsignal(number) for number in HELD} == before


class Failing(training.Callback):
    def on_batch_end(self, run):
        raise ZeroDivisionError


def test_a_handler_that_is_set_within_the_run_stays(handlers):
    def handle(number, frame):
        handlers.append(number)

    class Setting(training.Callback):
        def on_batch_end(self, run):
            signal.signal(signal.SIGTERM, handle)

    trainer(1, callbacks=[Setting(), Raise(signal.SIGTERM)]).fit(make_model(), loader())
    assert signal.getsignal(signal.SIGTERM) is handle
    assert handlers == [signal.SIGTERM]


def test_a_ctrl_c_while_the_handlers_are_put_back_is_raised_after_it(handlers):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = []
    signals = Signals(pressed.append)
    signals.hold()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signals.leaving = True
    signal.raise_signal(signal.SIGINT)
    signals.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signals.deliver()
    signals.deliver()  # once
    assert pressed == ["Ctrl-C"]


def test_training_outside_the_main_thread():
    run = trainer(1)
    thread = threading.Thread(target=run.fit, args=(make_model(), loader()))
    thread.start()
    thread.join()
    assert run.step == 6


def test_the_signals_of_a_run_in_a_thread_are_left_alone(handlers):
    seen = []

    class Looking(training.Callback):
        def on_batch_end(self, run):
            seen.append({number: signal.getsignal(number) for number in HELD})

    run = trainer(1, callbacks=[Looking()])
    thread = threading.Thread(target=run.fit, args=(make_model(), loader()))
    thread.start()
    thread.join()
    assert seen == [{number: signal.getsignal(number) for number in HELD}] * 6


def test_without_checkpoints_it_says_so(capsys):
    class Press(training.Callback):
        def on_batch_end(self, trainer):
            trainer.stopping.press()

    trainer(callbacks=[Press()]).fit(make_model(), loader())
    assert capsys.readouterr().err == (
        "Stopped by Ctrl-C in epoch 1, batch 1 (step 1); no checkpoint was written, which takes a "
        "checkpoint_dir\n"
    )


# ---------------------------------------------------------------------------------- not finite


class Diverging(Classifier):
    """Its loss is ``value`` from step ``at`` on."""

    at, value = 9, math.nan
    steps = 0

    def loss(self, y_hat, y):
        self.steps += self.training
        return super().loss(y_hat, y) * (self.value if self.steps >= self.at else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(tmp_path, value):
    model = make_model(Diverging)
    model.value = value
    run = trainer(3, checkpoint_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(NonFiniteLossError) as caught:
        run.fit(model, loader(), val_loader())
    (kept,) = training.list_checkpoints(tmp_path)[-1:]
    assert str(caught.value) == (
        f"Trainer.fit: the loss became {value} in epoch 2, batch 3 (step 9); the last good "
        f"checkpoint is {kept}; lower the learning rate, or set gradient_clip_val"
    )
    state = training.read_checkpoint(kept)
    assert state["position"]["step"] == 8
    # On the CPU it is found before it reaches the parameters.
    assert_same({n: x.numpy() for n, x in state["model"].items()}, parameters(model))


def test_without_a_checkpoint():
    with pytest.raises(
        NonFiniteLossError, match=r"batch 3 \(step 9\); no checkpoint was written; lo"
    ):
        trainer(3).fit(make_model(Diverging), loader())


def first_loss(batches, kind=Classifier):
    with pytest.raises(NonFiniteLossError) as caught:
        trainer().fit(make_model(kind), batches)
    text = str(caught.value)
    start = "Trainer.fit: the loss became nan in epoch 1, batch 1 (step 1), before any update; "
    assert text.startswith(start)
    return text.removeprefix(start)


def test_a_loss_that_is_not_finite_before_any_update():
    data = dataset()
    X, y = data.tensors
    X[3, 2] = math.nan
    told = "sample {} of the training data holds NaN or infinity"
    assert first_loss(DataLoader(data, 96, shuffle=True)) == told.format(3)
    assert first_loss(DataLoader(Subset(data, [0, 3]), 2)) == told.format(1)
    assert first_loss([(X, y)]) == "look at the inputs: do they hold NaN or infinity?"

    class Broken(Diverging):
        at = 1

    assert first_loss(loader(), Broken) == (
        "the training data set is finite, so look at the loss and at the initial parameters"
    )


def test_found_at_the_next_read_where_the_loss_is_on_a_device(tmp_path, monkeypatch):
    """As on a GPU: the loss is not read at each step, yet its own step is named."""

    def note_loss(self, loss):
        self.log("train_loss", Elsewhere(loss.item()))

    class Elsewhere(float):
        """A number that is not looked at before it is read."""

    monkeypatch.setattr(training.Trainer, "note_loss", note_loss)
    read = training.history.Metrics.read

    def returning_what_was_read(self):
        noted = list(self.unread)
        read(self)
        return noted

    monkeypatch.setattr(training.history.Metrics, "read", returning_what_was_read)
    run = trainer(3, checkpoint_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, batch 3 \(step 9\); the last good"):
        run.fit(make_model(Diverging), loader(), val_loader())
    assert [training.read_checkpoint(each)["position"]["step"] for each in
            training.list_checkpoints(tmp_path)] == [4, 8]  # fmt: skip


def test_parameters_that_are_not_finite_reach_no_checkpoint(tmp_path):
    class Exploding(Classifier):
        def training_step(self, batch):
            loss = super().training_step(batch)
            if self.trainer.batch == 4:
                loss.register_hook(lambda g: g * math.inf)
            return loss

    run = trainer(1, checkpoint_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(
        NonFiniteLossError, match=r"the parameter net\.0\.weight became NaN or inf.*4\)"
    ):
        run.fit(make_model(Exploding), loader())
    assert training.list_checkpoints(tmp_path) == []


class Late(Classifier):
    """Its last gradient is infinite, so that no loss tells."""

    last = 12

    def training_step(self, batch):
        loss = super().training_step(batch)
        if self.trainer.step + 1 == self.last:
            loss.register_hook(lambda g: g * math.inf)
        return loss


@pytest.mark.parametrize(
    ("options", "last", "place"),
    [
        ({}, 12, "in epoch 2 (step 12)"),
        ({"max_steps": 9}, 9, "in epoch 2, batch 3 (step 9)"),
        ({"accumulate_grad_batches": 4}, 4, "in epoch 2 (step 4)"),
    ],
)
@pytest.mark.parametrize("val", [True, False])
def test_the_last_step_may_not_leave_parameters_that_are_not_finite(options, last, place, val):
    """Without validation and checkpoints, nothing else would look at them."""
    model = make_model(Late)
    model.last = last
    if val:
        model.validation_step = lambda batch: None
    with pytest.raises(NonFiniteLossError) as caught:
        trainer(2, **options).fit(model, loader(), val_loader() if val else None)
    assert str(caught.value) == (
        f"Trainer.fit: the parameter net.0.weight became NaN or infinite {place}; no checkpoint "
        "was written; lower the learning rate, or set gradient_clip_val"
    )


def test_parameters_that_are_not_trained_may_be_infinite():
    model = make_model()
    model.mask = gl.nn.Parameter(gl.tensor([-math.inf]), requires_grad=False)
    trainer(1).fit(model, loader())


# ------------------------------------------------------------------------------ early stopping


def values(*numbers, name="val_loss", **options):
    """A model whose metric takes these values, epoch by epoch."""

    class Scripted(Classifier):
        def validation_step(self, batch):
            self.log(name, float(numbers[min(self.trainer.epoch, len(numbers) - 1)]))

    return make_model(Scripted, **options)


@pytest.mark.parametrize(
    ("numbers", "options", "epochs"),
    [
        ([5, 4, 3, 2, 1], {}, 5),
        ([5, 4, 4, 4, 1], {"patience": 2}, 4),
        ([5, 4, 4, 3, 3], {"patience": 2}, 5),
        ([5, 4.9, 4.8, 3], {"patience": 2, "min_delta": 0.5}, 3),
        ([1, 2, 3, 3, 3], {"patience": 2, "mode": "max"}, 5),
        ([1, math.nan, math.nan, 0], {"patience": 2}, 3),
        ([math.nan, 3, 2, 1, 0], {"patience": 2}, 5),
    ],
)
def test_early_stopping(numbers, options, epochs):
    run = trainer(5, callbacks=[training.EarlyStopping(**options)])
    history = run.fit(values(*numbers), loader(), val_loader())
    assert len(history) == epochs
    assert epochs == 5 or run.stop_reason.startswith("val_loss has not improved for 2 epochs")


def test_early_stopping_waits_for_validation():
    run = trainer(6, check_val_every_n_epoch=2, callbacks=[training.EarlyStopping(patience=1)])
    history = run.fit(values(5, 5, 5), loader(), val_loader())
    assert len(history) == 4


def test_each_fit_begins_with_fresh_callbacks():
    stopper = training.EarlyStopping(patience=2)
    run = trainer(3, callbacks=[stopper])
    for _ in range(2):
        assert len(run.fit(values(1, 1, 1), loader(), val_loader())) == 3
        assert stopper.waited == 2


def test_a_callback_stops_within_an_epoch():
    class Enough(training.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 2:
                trainer.stop("enough")

    run = trainer(2, callbacks=[Enough()])
    run.fit(make_model(), loader())
    assert (run.step, run.stop_reason, run.interrupted) == (2, "enough", False)
