"""A Trainer's run gives bit for bit what the same loop written by hand gives."""

from __future__ import annotations

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
from gradlab import nn, optim, training
from gradlab.data import DataLoader
from gradlab.errors import OptionError


def by_hand(model, batches, val, optimizer, epochs, clip=0.0, accumulate=1, schedule=None):
    """The loop, as one writes it without a Trainer; returns the losses."""
    gl.manual_seed(1)
    losses = []
    for _ in range(epochs):
        model.train()
        for i, (X, y) in enumerate(batches):
            if i % accumulate == 0:
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X), y)
            group = min(accumulate, len(batches) - i // accumulate * accumulate)
            (loss / group if accumulate > 1 else loss).backward()
            losses.append(loss.item())
            if i % accumulate == accumulate - 1 or i == len(batches) - 1:
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
        model.eval()
        with gl.no_grad():
            for X, _ in val:
                model(X)
        if schedule is not None:
            schedule.step()
    return losses


class WithAdam(Classifier):
    def configure_optimizers(self):
        optimizer = optim.AdamW(self.parameters(), lr=self.lr)
        return optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)


def test_sgd_with_momentum_dropout_and_shuffling():
    model = make_model()
    history = trainer(3, log_every_n_batches=1).fit(model, loader(), val_loader())
    other = make_model()
    losses = by_hand(
        other, loader(), val_loader(), optim.SGD(other.parameters(), lr=0.05, momentum=0.9), 3
    )
    assert_same(parameters(model), parameters(other))
    assert [row["train_loss"] for row in history.steps] == losses


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_adam_clipping_schedule_accumulation_and_prefetch(accumulate, prefetch):
    model = make_model(WithAdam)
    options = {"gradient_clip_val": 0.1, "accumulate_grad_batches": accumulate}
    trainer(3, **options).fit(model, loader(prefetch=prefetch), val_loader())
    other = make_model(WithAdam)
    optimizer, schedule = other.configure_optimizers()
    by_hand(other, loader(), val_loader(), optimizer, 3, 0.1, accumulate, schedule)
    assert_same(parameters(model), parameters(other))


class Lazy(Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))


@pytest.mark.parametrize("shuffled_by", [{}, {"seed": 3}])
def test_lazy_layers_are_settled_first(shuffled_by):
    model = make_model(Lazy)
    trainer(2).fit(model, loader(**shuffled_by), val_loader())
    other = make_model(Lazy)
    gl.manual_seed(1)
    batches = loader(**shuffled_by)
    with gl.no_grad():
        other(gl.zeros(1, 6))
    # by_hand seeds anew: so that the same numbers are drawn from here on
    state = gl.get_rng_state()
    optimizer = optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        gl.set_rng_state(state)
        for X, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(other(X), y).backward()
            optimizer.step()
        state = gl.get_rng_state()
    assert_same(parameters(model), parameters(other))


def test_two_optimizers_step_together():
    class Two(Classifier):
        def configure_optimizers(self):
            return [
                optim.SGD(self.net[0].parameters(), lr=0.1),
                optim.SGD(self.net[3].parameters(), lr=0.01),
            ]

    class Groups(Classifier):
        def configure_optimizers(self):
            groups = [
                {"params": self.net[0].parameters()},
                {"params": self.net[3].parameters(), "lr": 0.01},
            ]
            return optim.SGD(groups, lr=0.1)

    models = [make_model(Two), make_model(Groups)]
    for model in models:
        trainer().fit(model, loader())
    assert_same(*map(parameters, models))


def test_schedules_by_epoch_and_by_step():
    class Scheduled(Classifier):
        interval = "epoch"

        def configure_optimizers(self):
            optimizer = optim.SGD(self.parameters(), lr=1.0)
            scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
            return {"optimizer": optimizer, "scheduler": scheduler, "interval": self.interval}

    for interval, rate in [("epoch", 0.5**2), ("step", 0.5**12)]:
        model = make_model(Scheduled)
        model.interval = interval
        run = trainer(2)
        run.fit(model, loader())
        assert run.step == 12
        assert run.optimizers[0].param_groups[0]["lr"] == rate


def test_a_plateau_schedule_watches_its_metric():
    class Plateau(Classifier):
        def configure_optimizers(self):
            optimizer = optim.SGD(self.parameters(), lr=1.0)
            plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "scheduler": plateau, "monitor": "constant"}

        def validation_step(self, batch):
            self.log("constant", 1.0)

    run = trainer(3)
    run.fit(make_model(Plateau), loader(), val_loader())
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1**2)


def test_several_fits_are_independent():
    run = trainer(2)
    results = []
    for _ in range(2):
        model = make_model()
        run.fit(model, loader())
        results.append(parameters(model))
        assert (run.epoch, run.step) == (2, 12)
        assert len(run.history) == 2
    assert_same(*results)


@pytest.mark.parametrize(
    ("options", "steps", "seen"),
    [
        ({"limit_batches": 2}, 4, 2),
        ({"limit_train_batches": 0.5}, 6, 3),
        ({"limit_val_batches": 1}, 12, 1),
        ({"limit_val_batches": 0}, 12, 0),
        ({"limit_batches": 2, "limit_val_batches": 1.0}, 4, 3),
    ],
)
def test_limits(options, steps, seen):
    class Counting(Classifier):
        validated = 0

        def validation_step(self, batch):
            Counting.validated += 1

    run = trainer(2, **options)
    run.fit(make_model(Counting), loader(), val_loader())
    assert run.step == steps
    assert Counting.validated == (2 * seen if seen != 3 or "limit_batches" in options else 6)


def test_limited_epochs_see_other_batches_than_the_next():
    seen = []

    class Watching(Classifier):
        def training_step(self, batch):
            seen.append(batch[0].numpy().tobytes())
            return super().training_step(batch)

    trainer(2, limit_train_batches=1).fit(make_model(Watching), loader(seed=0))
    expected = [next(iter(epoch))[0].numpy().tobytes() for epoch in [loader(seed=0)]]
    batches = loader(seed=0)
    list(batches)
    expected.append(next(iter(batches))[0].numpy().tobytes())
    assert seen == expected


def test_fast_dev_run_tries_everything_once(tmp_path):
    run = trainer(None, fast_dev_run=True, checkpoint_dir=tmp_path / "none")
    history = run.fit(make_model(), loader(), val_loader())
    assert run.step == 1
    assert set(history.last()) == {"epoch", "step", "train_loss", "val_acc", "val_loss"}
    assert not (tmp_path / "none").exists()


def test_overfit_batches_learns_them_by_heart():
    run = trainer(60, overfit_batches=1)
    history = run.fit(make_model(dropout=0.0), loader(), val_loader())
    assert run.step == 60
    assert history.last()["val_acc"] == 1.0
    assert history["train_loss"][-1] < 0.05


def test_max_steps_stops_within_an_epoch():
    run = trainer(None, max_steps=8)
    history = run.fit(make_model(), loader(), val_loader())
    assert (run.step, run.epoch, run.batch, len(history)) == (8, 1, 2, 1)
    assert run.stop_reason == "max_steps=8 are done"


def test_max_steps_at_the_end_of_an_epoch_still_validates():
    run = trainer(None, max_steps=6)
    history = run.fit(make_model(), loader(), val_loader())
    assert (run.step, run.epoch, run.batch) == (6, 1, 0)
    assert "val_loss" in history.last()


def test_max_time():
    run = trainer(None, max_time="0.1s")
    run.fit(make_model(), loader())
    assert run.stop_reason == "max_time of 0.1 s is over"
    assert run.step > 0


def test_validation_every_few_epochs():
    history = trainer(5, check_val_every_n_epoch=2).fit(make_model(), loader(), val_loader())
    assert [row["epoch"] for row in history.epochs if "val_loss" in row] == [2, 4]


def test_evaluation_mode_and_no_graph_in_validation():
    class Watching(Classifier):
        def validation_step(self, batch):
            assert not self.net[2].training
            assert not gl.is_grad_enabled()
            return super().validation_step(batch)

        def training_step(self, batch):
            assert self.net[2].training
            return super().training_step(batch)

    model = make_model(Watching)
    trainer().fit(model, loader(), val_loader())
    assert not model.training  # ready to predict
    trainer().validate(model, val_loader())
    assert not model.training


def test_evaluation_leaves_each_layer_in_its_mode():
    model = make_model()
    model.net[2].eval()  # as one keeps a layer that is not to be trained
    run = trainer(1)
    run.validate(model, val_loader())
    run.predict(model, val_loader())
    assert model.training
    assert [layer.training for layer in model.net] == [True, True, False, True]


def test_validate_and_predict():
    model = make_model()
    run = trainer(1)
    history = run.fit(model, loader(), val_loader())
    found = run.validate(model, val_loader())
    assert found == {name: history.last()[name] for name in ("val_acc", "val_loss")}
    scores = run.predict(model, val_loader())
    assert scores.shape == (48, 3)
    right = (scores.argmax(axis=1) == val_loader().dataset.tensors[1]).astype("float64").mean()
    assert found["val_acc"] == pytest.approx(right.item())
    assert not scores.requires_grad


def test_metrics_are_weighted_by_batch_size():
    class Constant(Classifier):
        def validation_step(self, batch):
            self.log("size", float(len(batch[0])))

    found = trainer().validate(make_model(Constant), val_loader())  # 20, 20 and 8 samples
    assert found["size"] == pytest.approx((20 * 20 + 20 * 20 + 8 * 8) / 48)


def test_plain_arrays_dicts_and_lists_as_batches():
    class Dicts(Classifier):
        def training_step(self, batch):
            assert isinstance(batch["X"], gl.Tensor)
            return self.loss(self(batch["X"]), batch["y"])

    X, y = (x.numpy() for x in loader().dataset.tensors)
    batches = [{"X": X[i : i + 32], "y": y[i : i + 32]} for i in range(0, 96, 32)]
    history = trainer().fit(make_model(Dicts), batches)
    assert history.last()["step"] == 6


def test_data_without_a_length():
    class Stream:
        def __iter__(self):
            return iter(loader(shuffle=False))

    run = trainer(2)
    run.fit(make_model(), Stream())
    assert run.step == 12


def test_precision_casts_parameters_and_inputs():
    seen = []

    class Watching(Classifier):
        def training_step(self, batch):
            seen.append((batch[0].dtype, batch[1].dtype, self.net[0].weight.dtype))
            return super().training_step(batch)

    for precision, dtype in [("float64", gl.float64), ("bf16", gl.bfloat16)]:
        history = trainer(1, precision=precision).fit(make_model(Watching), loader())
        assert set(seen) == {(dtype, gl.int64, dtype)}
        assert history["train_loss"][0] < 2
        seen.clear()


def test_a_loop_by_hand_after_a_run_logs_nothing():
    model = make_model()
    run = trainer(1)
    run.fit(model, loader(), val_loader())
    for batch in val_loader():
        model.validation_step(batch)
    assert run.train_metrics.unread == run.val_metrics.unread == []
    assert len(run.history) == 1


def test_validating_on_other_data_within_a_run():
    class Test(training.Callback):
        def on_epoch_end(self, trainer):
            found = trainer.validate(trainer.model, DataLoader(dataset(seed=9), 32))
            trainer.log("test_acc", found["val_acc"])

    runs = [trainer(2, callbacks=callbacks) for callbacks in ([Test()], [])]
    models = [make_model(), make_model()]
    histories = [
        run.fit(model, loader(), val_loader()) for run, model in zip(runs, models, strict=True)
    ]
    assert_same(*map(parameters, models))
    assert len(histories[0]["test_acc"]) == 2
    assert histories[0]["val_loss"] == histories[1]["val_loss"]


@pytest.mark.parametrize("own", [True, False])
def test_another_model_or_another_trainer_within_a_run(own):
    other = make_model(seed=7)

    class Comparing(training.Callback):
        def on_epoch_end(self, run):
            beside = run if own else trainer(1)
            beside.validate(other if own else run.model, val_loader())
            beside.predict(other if own else run.model, val_loader())

    runs = [trainer(2, callbacks=callbacks) for callbacks in ([Comparing()], [])]
    models = [make_model(), make_model()]
    histories = [
        run.fit(model, loader(), val_loader()) for run, model in zip(runs, models, strict=True)
    ]
    assert_same(*map(parameters, models))
    assert histories[0].epochs == histories[1].epochs
    assert len(histories[0]["val_acc"]) == 2
    assert runs[0].model is models[0]
    assert models[0].trainer is runs[0]


def test_a_trainer_has_one_run_at_a_time():
    class Nested(Classifier):
        def training_step(self, batch):
            self.trainer.fit(make_model(), loader())

    run = trainer(1)
    with pytest.raises(OptionError) as error:
        run.fit(make_model(Nested), loader())
    assert str(error.value) == (
        "Trainer.fit: expected a Trainer without a run under way, got one within its own; use "
        "another Trainer"
    )
    assert len(run.fit(make_model(), loader())) == 1


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(
    ("value", "got"),
    [("high", "'high'"), (None, "None"), ([1, 2], "[1, 2]"),
     (np.ones(3), "a tensor of shape (3,); reduce it, for example with .mean()"),
     (gl.ones(3), "a tensor of shape (3,); reduce it, for example with .mean()")]
)  # fmt: skip
def test_logging_what_is_no_number(value, got, at_end):
    class Logging(training.Callback):
        def on_batch_end(self, trainer):
            trainer.log("good", np.array([0.5]))
            if not at_end:
                trainer.log("x", value)

        def on_epoch_end(self, trainer):
            trainer.log("x", value)

    with pytest.raises(gl.errors.ShapeError) as error:
        trainer(1, callbacks=Logging()).fit(make_model(), loader())
    expected = "Classifier.log: expected x to be a number or a tensor of one element"
    assert str(error.value) == f"{expected}, got {got}"


# ------------------------------------------------------------------------- accumulated gradients


class Stream:
    """Batches whose number shows only at their end, or is told wrongly."""

    def __init__(self, batches, length=None):
        self.batches, self.length = batches, length

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        if self.length is None:
            raise TypeError
        return self.length


class Plain(Classifier):
    """Without dropout and momentum, in float64: an update tells the gradient."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.double()

    def training_step(self, batch):
        X, y = batch
        return self.loss(self(X.double()), y)

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.5)


def updated(groups, epochs=1):
    """The parameters after an update by the mean over the batches of each group."""
    model = make_model(Plain)
    for group in groups * epochs:
        grads = [
            gl.autograd.grad(model.training_step(each), list(model.parameters())) for each in group
        ]
        with gl.no_grad():
            for parameter, *found in zip(model.parameters(), *grads, strict=True):
                parameter -= 0.5 * sum(found) / len(found)
    return model


def assert_close(model, expected):
    for name, x in parameters(model).items():
        np.testing.assert_allclose(x, parameters(expected)[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [5, None, 3, 4, 7])
@pytest.mark.parametrize("share", [2, 3, 4, 8])
def test_the_last_step_takes_the_mean_of_what_is_left(share, length):
    batches = list(loader(batch_size=20, shuffle=False))  # the last has 16 samples
    assert len(batches) == 5
    model = make_model(Plain)
    run = trainer(2, accumulate_grad_batches=share, log_every_n_batches=1)
    history = run.fit(model, Stream(batches, length))
    groups = [batches[i : i + share] for i in range(0, 5, share)]
    assert_close(model, updated(groups, epochs=2))
    assert run.step == 2 * len(groups)
    steps = [i // share + 1 for i in range(5)]
    assert [row["step"] for row in history.steps] == steps + [s + steps[-1] for s in steps]
    # The loss that is logged is that of the batch.
    first = make_model(Plain).training_step(batches[0]).item()
    assert history.steps[0]["train_loss"] == first


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"limit_train_batches": 3}, [[0, 1], [2]]),
        ({"limit_train_batches": 0.6}, [[0, 1], [2]]),
        ({"overfit_batches": 3}, [[0, 1], [2]]),
        ({"fast_dev_run": 3}, [[0, 1], [2]]),
        ({"max_steps": 1}, [[0, 1]]),
        ({"max_steps": 2}, [[0, 1], [2, 3]]),
        ({"max_steps": 3}, [[0, 1], [2, 3], [4]]),
    ],
)
def test_steps_of_epochs_that_are_cut_short(options, taken):
    batches = list(loader(batch_size=20, shuffle=False))
    model = make_model(Plain)
    run = trainer(1, accumulate_grad_batches=2, **options)
    run.fit(model, batches)
    assert_close(model, updated([[batches[i] for i in group] for group in taken]))
    assert run.step == len(taken)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_resumed_within_a_step(tmp_path, at):
    """A callback of the user's may write a checkpoint at any batch."""

    class Saving(training.Callback):
        def on_batch_end(self, trainer):
            if trainer.epoch == 1 and trainer.batch == at:
                self.path = writer.save(trainer)

    writer, saving = training.ModelCheckpoint(tmp_path, every=None), Saving()
    options = {"accumulate_grad_batches": 3, "log_every_n_batches": 1}
    whole = make_model()
    expected = trainer(2, callbacks=[saving, writer], **options).fit(whole, loader(20))
    resumed = make_model(seed=4)
    for parameter in resumed.parameters():
        parameter.grad = gl.ones_like(parameter)  # of an earlier use
    run = trainer(2, **options)
    history = run.fit(resumed, loader(20), resume=saving.path)
    assert_same(parameters(resumed), parameters(whole))
    assert (history.steps, history.epochs) == (expected.steps, expected.epochs)
    with pytest.raises(gl.errors.StateError, match=r"within a step of accumulate_grad_batches=2"):
        trainer(2, accumulate_grad_batches=2).fit(make_model(), loader(20), resume=saving.path)
