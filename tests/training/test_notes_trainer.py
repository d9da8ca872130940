"""The methods of Trainer, Module and DataModule may be replaced, as the course notes replace them.

The bodies below are what a reader of the notes writes: each runs in a subclass, and when it is put
on the class itself.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support import (
    Classifier as Net,
    Scratch,
    ScratchSGD,
    assert_same,
    loader,
    parameters,
    val_loader,
)

import gradlab as gl
from gradlab import nn, optim, training
from gradlab.data import DataLoader
from gradlab.errors import OptionError
from gradlab.training import HyperParameters, Trainer, add_to_class

REPLACED = (
    "__init__", "prepare_data", "prepare_model", "prepare_batch", "fit_epoch", "clip_gradients",
)  # fmt: skip


class Bodies:
    """The notes' methods of Trainer."""

    def __init__(self, max_epochs, num_gpus=0, gradient_clip_val=0):
        self.save_hyperparameters()
        self.gpus = [training.gpu(i) for i in range(min(num_gpus, training.num_gpus()))]

    def prepare_data(self, data):
        self.train_dataloader = data.train_dataloader()
        self.val_dataloader = data.val_dataloader()
        self.num_train_batches = len(self.train_dataloader)
        self.num_val_batches = 0 if self.val_dataloader is None else len(self.val_dataloader)

    def prepare_model(self, model):
        model.trainer = self
        model.board.xlim = [0, self.max_epochs]
        if self.gpus:
            model.to(self.gpus[0])
        self.model = model

    def prepare_batch(self, batch):
        if self.gpus:
            batch = [x.to(self.gpus[0]) for x in batch]
        return batch

    def fit_epoch(self):
        self.model.train()
        for batch in self.train_dataloader:
            loss = self.model.training_step(self.prepare_batch(batch))
            self.optim.zero_grad()
            with gl.no_grad():
                loss.backward()
                if self.gradient_clip_val > 0:
                    self.clip_gradients(self.gradient_clip_val, self.model)
                self.optim.step()
            self.train_batch_idx += 1
        if self.val_dataloader is None:
            return
        self.model.eval()
        for batch in self.val_dataloader:
            with gl.no_grad():
                self.model.validation_step(self.prepare_batch(batch))
            self.val_batch_idx += 1

    def clip_gradients(self, grad_clip_val, model):
        params = [p for p in model.parameters() if p.requires_grad]
        norm = gl.sqrt(sum(gl.sum(p.grad**2) for p in params))
        if norm > grad_clip_val:
            for param in params:
                param.grad[:] *= grad_clip_val / norm


class Digits(training.DataModule):
    """A DataModule whose __init__ does not call the one it inherits."""

    def __init__(self, batch_size=16, val=True):
        self.save_hyperparameters()

    def train_dataloader(self):
        return loader(self.batch_size, seed=3)

    def val_dataloader(self):
        return val_loader() if self.val else None


class ByHand(Scratch):
    """With an optimizer of the notes."""

    def configure_optimizers(self):
        return ScratchSGD([self.W, self.b], self.lr)


class Framework(Scratch):
    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=self.lr)


@pytest.fixture(params=["subclass", "add_to_class"])
def replacing(request, monkeypatch):
    """A function that gives a Trainer class with some methods replaced by the notes'."""

    def replace(*names):
        bodies = {name: vars(Bodies)[name] for name in names}
        if request.param == "subclass":
            return type("Own", (Trainer,), bodies)
        for name, body in bodies.items():
            monkeypatch.setattr(Trainer, name, vars(Trainer)[name])  # to be put back
            add_to_class(Trainer)(body)
        return Trainer

    return replace


def run(kind, model, data, epochs=3, **options):
    gl.manual_seed(1)
    trainer = kind(epochs, **options)
    return trainer, trainer.fit(model, data)


@pytest.mark.parametrize("names", [(name,) for name in REPLACED] + [REPLACED])
@pytest.mark.parametrize("clip", [0, 0.2])
def test_each_method_may_be_replaced(replacing, names, clip):
    ours, theirs = Framework(), ByHand()
    _, expected = run(Trainer, ours, Digits(), gradient_clip_val=clip)
    trainer, history = run(replacing(*names), theirs, Digits(), gradient_clip_val=clip)
    if "clip_gradients" in names and clip:
        for name, value in parameters(ours).items():
            np.testing.assert_allclose(parameters(theirs)[name], value, rtol=1e-4, atol=1e-6)
    else:
        assert_same(parameters(theirs), parameters(ours))
    assert [list(row) for row in history.epochs] == [list(row) for row in expected.epochs]
    for mine, other in zip(history.epochs, expected.epochs, strict=True):
        assert mine == pytest.approx(other, rel=1e-4)
    assert [row["step"] for row in history.steps] == [row["step"] for row in expected.steps]
    assert (trainer.epoch, trainer.batch, trainer.step) == (3, 0, 18)
    assert (trainer.train_batch_idx, trainer.val_batch_idx) == (18, 9)
    assert theirs.board.data.keys() == {"train_loss", "val_loss", "val_acc"}
    for label, points in ours.board.data.items():
        assert np.allclose(theirs.board.data[label], points, rtol=1e-4)
    assert theirs.board.xlim == [0, 3]
    assert trainer.model is theirs
    assert theirs.trainer is trainer
    assert type(trainer.optim) is ScratchSGD


def fit(self, model, data):
    self.prepare_data(data)
    self.prepare_model(model)
    self.optim = model.configure_optimizers()
    self.epoch = self.train_batch_idx = self.val_batch_idx = 0
    for self.epoch in range(self.max_epochs):  # noqa: B020 - as the notes have it
        self.fit_epoch()


@pytest.mark.parametrize("names", [(), ("__init__",), ("prepare_data", "prepare_batch")])
def test_fit_may_be_replaced(replacing, monkeypatch, names):
    monkeypatch.setattr(Bodies, "fit", fit, raising=False)
    ours, theirs = Framework(), ByHand()
    _, expected = run(Trainer, ours, Digits())
    kind = replacing("fit", *names)
    for model in (ByHand(), theirs):  # the second run knows nothing of the first
        trainer, nothing = run(kind, model, Digits())
    assert nothing is None
    assert_same(parameters(theirs), parameters(ours))
    for mine, other in zip(trainer.history.epochs, expected.epochs, strict=True):
        assert mine == pytest.approx(other, rel=1e-6)
    assert theirs.board.data.keys() == {"train_loss", "val_loss", "val_acc"}
    for label, points in ours.board.data.items():
        assert np.allclose(theirs.board.data[label], points, rtol=1e-6)
    assert trainer.epoch == 2
    assert type(trainer.optim) is ScratchSGD


def test_all_methods_replaced_leave_the_board_to_the_model(replacing, monkeypatch):
    monkeypatch.setattr(Bodies, "fit", fit, raising=False)
    ours, theirs = Framework(), ByHand()
    run(Trainer, ours, Digits())
    run(replacing("fit", *REPLACED), theirs, Digits())
    assert_same(parameters(theirs), parameters(ours))
    assert [len(points) for points in theirs.board.data.values()] == [6, 3, 3]
    assert np.allclose(theirs.board.data["val_acc"], ours.board.data["val_acc"])


def test_an_epoch_without_a_run(capsys):
    with pytest.raises(OptionError) as caught:
        Trainer(3).fit_epoch()
    assert str(caught.value) == (
        "Trainer.fit_epoch: there is no run; call fit, or in a fit of your own first "
        "prepare_data(data), prepare_model(model) and set optim"
    )


def test_a_replaced_init_leaves_the_other_options_at_their_defaults(replacing):
    trainer = replacing("__init__")(4)
    assert trainer.hparams == {"max_epochs": 4, "num_gpus": 0, "gradient_clip_val": 0}
    assert trainer.accumulate_grad_batches == 1
    assert trainer.device is None
    assert [type(each).__name__ for each in trainer.callbacks] == ["ProgressBar"]
    assert repr(trainer).startswith(f"{type(trainer).__name__}(max_epochs=4")
    trainer.max_epochs = None
    with pytest.raises(ValueError, match="Trainer: say when to stop: give max_epochs"):
        trainer.fit(Framework(), Digits())


def test_a_loop_of_the_users_has_callbacks_limits_and_checkpoints(replacing, tmp_path):
    kind = replacing("fit_epoch")
    seen = []

    class Watching(training.Callback):
        def on_batch_end(self, trainer):
            seen.append((trainer.epoch, trainer.batch, trainer.step))

    options = {"limit_train_batches": 2, "limit_val_batches": 1, "callbacks": Watching()}
    trainer, _history = run(
        kind, Framework(), Digits(), checkpoint_dir=tmp_path, checkpoint_every=3, **options
    )
    assert seen == [(0, 1, 1), (0, 2, 2), (1, 1, 3), (1, 2, 4), (2, 1, 5), (2, 2, 6)]
    assert (trainer.num_train_batches, trainer.num_val_batches) == (2, 1)
    places = [training.read_checkpoint(path)["position"]["step"]
              for path in training.list_checkpoints(tmp_path)]  # fmt: skip
    assert places == [3, 6, 6]  # the last at the end of the run
    assert isinstance(trainer.train_dataloader, DataLoader)  # as it was given


@pytest.mark.parametrize("passes", [1, 2])
def test_a_batch_that_a_loop_of_the_users_leaves_by_break_is_done(passes):
    seen = []

    class Breaking(Trainer):
        def fit_epoch(self):
            for _ in range(passes):
                for count, batch in enumerate(self.train_dataloader, 1):
                    self.optim.zero_grad()
                    self.model.training_step(self.prepare_batch(batch)).backward()
                    self.optim.step()
                    if count == 2:
                        break

    class Watching(training.Callback):
        def on_batch_end(self, trainer):
            seen.append((trainer.epoch, trainer.batch, trainer.step))

    trainer, history = run(Breaking, Framework(), Digits(), epochs=2, callbacks=Watching())
    steps = 2 * passes
    assert seen == [(e, b + 1, steps * e + b + 1) for e in range(2) for b in range(steps)]
    assert (trainer.step, trainer.train_batch_idx) == (2 * steps, 2 * steps)
    assert [row["step"] for row in history.epochs] == [steps, 2 * steps]


def test_a_loop_of_the_users_is_resumed(replacing, tmp_path):
    whole = Framework()
    _, expected = run(Trainer, whole, Digits())
    kind = replacing("fit_epoch")
    run(kind, Framework(), Digits(), epochs=None, max_steps=8, checkpoint_dir=tmp_path)
    model = Framework()
    trainer = kind(3, checkpoint_dir=tmp_path)
    history = trainer.fit(model, Digits(), resume="last")
    assert_same(parameters(model), parameters(whole))
    assert history.epochs == expected.epochs
    assert trainer.train_batch_idx == 18


def test_ctrl_c_ends_a_loop_of_the_users_after_the_step(replacing, capsys):
    class Pressing(training.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 8:
                trainer.stopping.press()

    trainer, history = run(replacing("fit_epoch"), Framework(), Digits(), callbacks=Pressing())
    assert (trainer.step, trainer.epoch, trainer.batch, len(history)) == (8, 1, 2, 1)
    assert "Stopped by Ctrl-C in epoch 2, batch 2 (step 8)" in capsys.readouterr().err


def test_a_loop_of_the_users_without_validation_and_without_batches(replacing):
    kind = replacing("fit_epoch")
    trainer, history = run(kind, Framework(), Digits(val=False))
    assert list(history.last()) == ["epoch", "step", "train_loss"]
    assert trainer.num_val_batches == 0
    assert trainer.val_dataloader is None
    with pytest.raises(ValueError, match="the training data is empty: its loader gives no batch"):
        kind(1).fit(Framework(), [])


def test_a_loss_that_is_not_finite_in_a_loop_of_the_users(replacing):
    class Diverging(Framework):
        def loss(self, Y_hat, Y, averaged=True):
            return super().loss(Y_hat, Y) * float("nan")

    with pytest.raises(gl.errors.NonFiniteLossError, match="the loss became nan in epoch 1, batch"):
        run(replacing("fit_epoch"), Diverging(), Digits())


@pytest.mark.parametrize("batch", [2, 3, 6])
def test_the_curve_of_a_loss_that_diverges_goes_up_to_there(batch):
    class Diverging(Framework):
        steps = 0

        def __init__(self):
            super().__init__()
            self.plot_train_per_epoch = 2

        def loss(self, Y_hat, Y, averaged=True):
            self.steps += 1
            factor = float("nan") if self.steps == batch else 0.0
            return super().loss(Y_hat, Y) * factor + 1.0

    model = Diverging()
    with pytest.raises(gl.errors.NonFiniteLossError, match=f"epoch 1, batch {batch} "):
        Trainer(1).fit(model, Digits())
    whole, rest = divmod(batch - 1, 3)
    assert [len(model.board.data["train_loss"])] == [whole + (rest > 0)]
    assert all(y == 1 for _, y in model.board.data["train_loss"])


def test_two_loaders_with_replaced_methods(replacing):
    kind = replacing("prepare_data", "fit_epoch")
    model = Framework()
    history = kind(2).fit(model, loader(), val_loader())
    assert len(history["val_acc"]) == 2


class Looping(Trainer):
    """The loops of the user's below are made of these."""

    def train(self, batches):
        for batch in batches:
            loss = self.model.training_step(batch)
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()

    @gl.no_grad()
    def validate_on(self, batches):
        for batch in batches:
            self.model.validation_step(batch)


def test_a_loop_of_the_users_may_leave_validation_early():
    seen = []

    class Watching(training.Callback):
        def on_validation_end(self, trainer):
            seen.append(trainer.metrics["val_loss"])

    class Hasty(Looping):
        def fit_epoch(self):
            self.train(self.train_dataloader)
            self.validate_on([batch for batch, _ in zip(self.val_dataloader, [1], strict=False)])

    _, history = run(Hasty, Framework(), Digits(), callbacks=Watching())
    assert len(history["val_acc"]) == len(history["val_loss"]) == 3
    assert seen == history["val_loss"]


def test_a_loop_of_the_users_trains_before_it_validates():
    class Reversed(Looping):
        def fit_epoch(self):
            self.validate_on(self.val_dataloader)
            self.train(self.train_dataloader)

    with pytest.raises(OptionError) as error:
        run(Reversed, Framework(), Digits())
    assert str(error.value) == (
        "Trainer.fit_epoch: expected the training batches before the validation batches, got them "
        "after; go through train_dataloader first"
    )


def test_a_loop_of_the_users_makes_all_updates_itself():
    class Plain(Looping):
        def fit_epoch(self):
            self.train(self.train_dataloader)

    models = [Framework(), Framework()]
    runs = [
        run(Plain, model, Digits(val=False), **options)[0]
        for model, options in zip(models, ({}, {"accumulate_grad_batches": 4}), strict=True)
    ]
    assert runs[0].step == runs[1].step
    assert_same(*map(parameters, models))


def test_loops_of_the_users_alone_know_how_many_batches_there_are():
    class Alone(Looping):
        fit = fit

        def fit_epoch(self):
            for batch in self.train_dataloader:
                self.train([batch])
                self.train_batch_idx += 1
            self.validate_on(self.val_dataloader)

    model = Framework()
    Alone(2).fit(model, Digits())
    assert [point.x for point in model.board.data["val_acc"]] == [1, 2]
    assert len(model.board.data["train_loss"]) == 4


def test_after_ctrl_c_a_second_pass_has_no_batches():
    class Twice(Looping):
        def fit_epoch(self):
            for _ in range(2):
                self.train(self.train_dataloader)

    class Pressing(training.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 2:
                trainer.stopping.press()

    trainer, _ = run(Twice, Framework(), Digits(), callbacks=Pressing())
    assert trainer.step == trainer.batch == 2


def test_an_epoch_that_calls_the_own_one():
    class Telling(Trainer):
        told = 0

        def fit_epoch(self):
            self.told += 1
            super().fit_epoch()

    trainer, history = run(Telling, Framework(), Digits())
    assert trainer.told == len(history) == 3


# ---------------------------------------------------------------------------------------- the data


class Generated(training.DataModule):
    """The notes' hand-written loader."""

    def __init__(self, n=50, num_val=20, batch_size=16):
        super().__init__()
        self.save_hyperparameters()
        generator = np.random.default_rng(0)
        self.X = gl.tensor(generator.standard_normal((n + num_val, 6)).astype("float32"))
        self.y = self.X[:, :3].argmax(axis=1)
        self.seen = []

    def get_dataloader(self, train):
        indices = list(range(self.n) if train else range(self.n, self.n + self.num_val))
        if train:
            random.shuffle(indices)
            self.seen.append(list(indices))
        for i in range(0, len(indices), self.batch_size):
            batch = gl.tensor(indices[i : i + self.batch_size])
            yield self.X[batch], self.y[batch]


class Lazy(training.Classifier):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize("model", [Framework, Lazy])
def test_a_loader_that_yields_is_asked_anew_in_each_epoch(model):
    data = Generated()
    random.seed(0)
    trainer, history = run(Trainer, model(), data)
    assert trainer.step == 12
    assert len(history["val_acc"]) == 3
    assert trainer.num_train_batches is None
    assert trainer.num_val_batches is None
    orders = data.seen[-3:]
    assert orders[0] != orders[1] != orders[2]
    random.seed(0)
    expected = [list(range(50)) for _ in range(3)]
    for order in expected:
        random.shuffle(order)
    assert orders == expected  # lazy layers have not drawn from it
    # Of an epoch of unknown length a curve has one point, at its end.
    board = trainer.model.board
    assert [x for x, _ in board.data["train_loss"]] == [1, 2, 3]
    assert [x for x, _ in board.data["val_acc"]] == [1, 2, 3]
    assert trainer.validate(trainer.model, data).keys() == {"val_loss", "val_acc"}


def test_the_defaults_of_a_data_module():
    assert training.DataModule().hparams == {"root": None, "num_workers": 0}
    data = Digits()
    assert (data.root, data.num_workers) == (None, 0)
    data = training.DataModule(root="folder", num_workers=2)
    assert (data.root, data.num_workers) == ("folder", 2)
    tensors = [gl.arange(10), gl.arange(10)]
    assert len(data.get_tensorloader(tensors, False, slice(0, 8), batch_size=4)) == 2


# --------------------------------------------------------------------------------------- the board


@settings(max_examples=40)
@given(
    batches=st.integers(1, 9),
    epochs=st.integers(1, 4),
    per_epoch=st.sampled_from([0, 0.5, 1, 2, 3, 5, 100]),
    replaced=st.booleans(),
)
def test_the_board_holds_the_mean_of_all_losses(batches, epochs, per_epoch, replaced):
    class Model(training.Module):
        number = 0

        def __init__(self):
            super().__init__(plot_train_per_epoch=per_epoch, plot_valid_per_epoch=per_epoch)
            self.w = gl.zeros(1, requires_grad=True)
            self.losses = []

        def forward(self, X):
            return X * self.w

        def loss(self, y_hat, y):
            self.number += 1
            return (y_hat - y).sum() * 0 + float(self.number)

        def configure_optimizers(self):
            return optim.SGD(self.parameters(), lr=0.1)

    kind = type("Own", (Trainer,), {"fit_epoch": Bodies.fit_epoch} if replaced else {})
    trainer = kind(epochs, enable_progress_bar=False)
    model = Model()
    data = [(gl.ones(2, 1), gl.ones(2, 1))] * batches
    history = trainer.fit(model, data, data[:1])
    assert [row["step"] for row in history.epochs] == [batches * (i + 1) for i in range(epochs)]
    if not per_epoch:
        assert model.board.data == {}
        return
    # Every epoch has so many training losses and one validation loss.
    losses = [i * (batches + 1) + j + 1 for i in range(epochs) for j in range(batches)]
    every_n = max(1, int(batches / per_epoch))
    groups = [losses[i : i + every_n] for i in range(0, len(losses), every_n)]
    places = [list(range(len(losses)))[i : i + every_n] for i in range(0, len(losses), every_n)]
    train = model.board.data["train_loss"]
    assert [y for _, y in train] == pytest.approx([np.mean(group) for group in groups])
    assert [x for x, _ in train] == pytest.approx([np.mean(p) / batches for p in places])
    every_n = max(1, int(1 / per_epoch))
    ends = [(i + 1, (i + 1) * (batches + 1)) for i in range(epochs)]
    means = [np.mean(ends[i : i + every_n], axis=0) for i in range(0, epochs, every_n)]
    assert np.allclose(model.board.data["val_loss"], means)


def test_the_board_of_a_new_run_begins_empty(tmp_path):
    model = Framework()
    run(Trainer, model, Digits(), epochs=2, checkpoint_dir=tmp_path)
    assert model.board.xlim == [0, 2]
    assert model.board.xlabel == "epoch"
    run(Trainer, model, Digits(), epochs=1)
    assert [x for x, _ in model.board.data["val_loss"]] == [1]
    assert model.board.xlim == [0, 1]
    trainer = Trainer(3, checkpoint_dir=tmp_path)
    model.board.clear()
    model.board.draw(0.5, 1.0, "val_loss")
    trainer.fit(model, Digits(), resume="last")
    assert [x for x, _ in model.board.data["val_loss"]] == [1, 2, 3]  # with those of the checkpoint


def test_what_the_user_has_set_of_the_board_stays():
    model = Framework()
    model.board.xlim, model.board.xlabel = [1, 5], "pass"
    run(Trainer, model, Digits(), epochs=2)
    assert model.board.xlim == [1, 5]
    assert model.board.xlabel == "pass"
    model = Framework()
    run(Trainer, model, Digits(), epochs=None, max_steps=3)
    assert model.board.xlim is None
    model.board = None
    run(Trainer, model, Digits(), epochs=1)


@pytest.mark.parametrize("replaced", [False, True])
def test_the_curves_are_complete_after_an_error_and_after_ctrl_c(replaced, tmp_path):
    kind = type("Own", (Trainer,), {"fit_epoch": Bodies.fit_epoch} if replaced else {})

    class Ending(training.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 4:
                self.end(trainer)

    class Failing(Ending):
        def end(self, trainer):
            raise KeyError("out")

    class Pressing(Ending):
        def end(self, trainer):
            trainer.stopping.press()

    for callback in (Failing(), Pressing()):
        model = Framework()
        model.board.path = tmp_path / f"{type(callback).__name__}.svg"
        try:
            run(kind, model, Digits(), callbacks=callback)
        except KeyError:
            assert type(callback) is Failing
        assert [x for x, _ in model.board.data["train_loss"]] == pytest.approx([1 / 6, 3 / 6])
        assert model.board.path.exists()


def test_a_run_is_not_lost_for_a_picture(tmp_path):
    model = Framework()
    model.board.path = tmp_path / "file" / "curves.svg"
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="Trainer.fit: the board is not drawn: "):
        _, history = run(Trainer, model, Digits(), epochs=1)
    assert len(history) == 1


def test_plotting_without_a_trainer_and_outside_a_run():
    model = Framework()
    X, y = next(iter(loader()))
    model.training_step((X, y))
    model.validation_step((X, y))
    assert model.board.data == {}
    trainer, _history = run(Trainer, model, Digits(), epochs=1)
    before = {label: list(points) for label, points in model.board.data.items()}
    model.training_step((X, y))
    trainer.validate(model, Digits())
    assert model.board.data == before


def test_a_trainer_of_the_users_own():
    class Own(HyperParameters):
        def __init__(self, max_epochs):
            self.save_hyperparameters()
            self.gradient_clip_val = 0

        prepare_data = Bodies.prepare_data
        prepare_batch = staticmethod(lambda batch: batch)
        fit_epoch = Bodies.fit_epoch

        def fit(self, model, data):
            self.prepare_data(data)
            model.trainer, self.model = self, model
            self.optim = model.configure_optimizers()
            self.train_batch_idx = self.val_batch_idx = 0
            for self.epoch in range(self.max_epochs):  # noqa: B020
                self.fit_epoch()

    ours, theirs = Framework(), ByHand()
    run(Trainer, ours, Digits(), epochs=2)
    gl.manual_seed(1)
    own = Own(2)
    own.fit(theirs, Digits())
    assert_same(parameters(ours), parameters(theirs))
    for label, points in ours.board.data.items():
        assert np.allclose(theirs.board.data[label], points)


# --------------------------------------------------------------------------------------- the losses


def test_the_history_counts_each_loss_once():
    class Logging(Net):
        plots = "loss"

        def training_step(self, batch):
            loss = self.loss(self(batch[0]), batch[1])
            self.log("train_loss", loss)
            self.plot("loss", loss * 2, train=True)
            return loss + 1

        def validation_step(self, batch):
            loss = self.loss(self(batch[0]), batch[1])
            self.plot("loss", loss, train=False)
            return loss + 1

    class Plain(Net):
        def training_step(self, batch):
            return super().training_step(batch) + 1

        def validation_step(self, batch):
            return super().validation_step(batch) + 1

    histories = []
    for kind in (Logging, Plain):
        gl.manual_seed(0)
        model = kind(dropout=0.0)
        trainer = Trainer(1, enable_progress_bar=False)
        histories.append(trainer.fit(model, loader(seed=0), val_loader()))
        assert model.board.data["train_loss"]
    assert histories[0]["train_loss"] == pytest.approx(histories[1]["train_loss"])
    assert histories[0]["val_loss"] == pytest.approx(histories[1]["val_loss"])


def test_a_plotted_value_of_several_elements_is_refused():
    class Wrong(Framework):
        def validation_step(self, batch):
            self.plot("acc", self.accuracy(self(batch[0]), batch[1], averaged=False), train=False)

    with pytest.raises(gl.errors.ShapeError) as caught:
        run(Trainer, Wrong(), Digits())
    assert str(caught.value) == (
        "Wrong.log: expected val_acc to be a number or a tensor of one element, got a tensor of "
        "shape (20,); reduce it, for example with .mean()"
    )


def test_a_subclass_that_keeps_its_arguments_keeps_the_checkpoints(tmp_path):
    class Own(Trainer):
        def __init__(self, max_epochs, patience, callbacks=(), device="cpu"):
            super().__init__(
                max_epochs, callbacks=callbacks, device=device, checkpoint_dir=tmp_path
            )
            self.save_hyperparameters()

    trainer, history = run(Own, Framework(), Digits(), patience=2)
    assert trainer.patience == 2
    assert trainer.hparams["callbacks"] == ()
    assert trainer.device is gl.device("cpu")
    assert training.list_checkpoints(tmp_path)
    assert len(history) == 3
