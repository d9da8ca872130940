"""What a user reads who gave the Trainer something it cannot work with: one clear line each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import Classifier, dataset, loader, make_model, trainer, val_loader

import gradlab as gl
from gradlab import nn, optim, training
from gradlab.data import DataLoader, IterableDataset
from gradlab.errors import DataError, GradientError, OptionError
from refusals import refusal


class Empty(IterableDataset):
    def __iter__(self):
        return iter(())


# --------------------------------------------------------------------------------------- data


def fit(data, val=None, model=None, **options):
    return refusal(trainer(**options).fit, model or make_model(), data, val)


def test_empty_data():
    empty = DataLoader(Empty(), 4)
    assert fit(empty) == "the training data is empty: its loader gives no batch"
    assert fit([]) == "the training data is empty: its loader gives no batch"
    assert fit(loader(), []) == "the validation data is empty: its loader gives no batch"
    assert fit(loader(), empty) == "the validation data is empty: its loader gives no batch"
    assert fit(loader(), limit_train_batches=0) == (
        "the training data is empty: its loader gives no batch"
    )


def test_empty_data_with_drop_last():
    class Three(IterableDataset):
        def __iter__(self):
            return iter([0, 1, 2])

    assert fit(DataLoader(Three(), 4, drop_last=True)) == (
        "the training data is empty: its loader gives no batch; with drop_last, fewer samples "
        "than batch_size=4 make no batch"
    )


def test_no_loader():
    assert fit(None) == (
        "training data: expected a DataLoader, a DataModule, or a list of batches, got None"
    )
    assert fit(dataset()) == (
        "training data: expected a DataLoader, a DataModule, or a list of batches, got "
        "TensorDataset; wrap it: DataLoader(dataset, batch_size=32)"
    )
    X, y = dataset().tensors
    assert fit((X, y)) == (
        "training data: expected a DataLoader, a DataModule, or a list of batches, got tuple; "
        "wrap the tensors: DataLoader(TensorDataset(X, y), batch_size=32)"
    )
    assert fit(np.zeros(3)).endswith("got ndarray; wrap the tensors: "
                                     "DataLoader(TensorDataset(X, y), batch_size=32)")  # fmt: skip
    assert fit(loader(), 3).startswith("validation data: expected a DataLoader")


def test_batches_that_come_once():
    assert fit(iter(loader())) == (
        "training data: expected batches that can be gone through once per epoch, got generator, "
        "an iterator, which gives them only once; make a list of it, or use a DataLoader"
    )


def test_validation_without_data():
    assert refusal(trainer().validate, make_model(), None) == (
        "validation data: expected a DataLoader, a DataModule, or a list of batches, got None"
    )

    class TrainOnly(training.DataModule):
        def train_dataloader(self):
            return loader()

    assert refusal(trainer().validate, make_model(), TrainOnly()).startswith("validation data: exp")
    trainer().fit(make_model(), TrainOnly())


def test_data_modules():
    assert refusal(training.DataModule().train_dataloader) == (
        "DataModule.get_dataloader: DataModule does not define it; give the class "
        "get_dataloader(self, train), or train_dataloader(self) and val_dataloader(self)"
    )

    class Data(training.DataModule):
        batch_size = 16

        def get_dataloader(self, train):
            tensors = dataset().tensors
            return self.get_tensorloader(tensors, train, slice(0, 64) if train else slice(64, 96))

    history = trainer(1).fit(make_model(), Data())
    assert history.last()["step"] == 4
    assert "val_loss" in history.last()
    assert trainer().predict(make_model(), Data()).shape == (32, 3)
    assert fit(Data(), loader()) == "Trainer.fit: expected a DataModule or two loaders, got both"


# -------------------------------------------------------------------------------------- models


def test_models():
    assert refusal(trainer().fit, nn.Linear(2, 1), loader()) == (
        "Trainer: expected a training.Module, got Linear; derive it from gradlab.training.Module "
        "and define loss and configure_optimizers"
    )

    class Bare(training.Module):
        pass

    assert fit(loader(), model=Bare()) == (
        "Bare.configure_optimizers: Bare does not define it; give the class an optimizer, for "
        "example `return optim.SGD(self.parameters(), lr=0.1)`"
    ) or "configure_optimizers" in fit(loader(), model=Bare())

    class NoNet(Classifier):
        def __init__(self):
            super().__init__()
            self.other, self.net = self.net, None

    assert fit(loader(), model=NoNet()) == (
        "NoNet.forward: NoNet does not define it; give the class a forward, or an attribute `net`"
    )

    class NoLoss(Classifier):
        loss = training.Module.loss

    assert fit(loader(), model=NoLoss()).startswith("NoLoss.loss: NoLoss does not define it")


def test_validation_data_for_a_model_that_cannot_validate():
    class TrainOnly(Classifier):
        loss = training.Module.loss
        validation_step = training.Module.validation_step

        def training_step(self, batch):
            return Classifier.loss(self, self(batch[0]), batch[1])

    expected = (
        "TrainOnly.validation_step: TrainOnly does not define it; give the class "
        "validation_step(self, batch), which returns the loss of a validation batch, or "
        "loss(self, y_hat, y); or fit it without validation data"
    )
    model = make_model(TrainOnly)
    before = model.net[0].weight.tolist()
    assert fit(loader(), val_loader(), model=model) == expected
    assert model.net[0].weight.tolist() == before  # told before the first epoch
    assert refusal(trainer().validate, model, val_loader()) == expected
    trainer().fit(model, loader())
    model.loss = nn.CrossEntropyLoss()
    trainer().fit(model, loader(), val_loader())


def configured(value):
    class Configured(Classifier):
        def configure_optimizers(self):
            return value(self)

    return fit(loader(), model=make_model(Configured))


def sgd(model):
    return optim.SGD(model.parameters(), lr=0.1)


def step_lr(optimizer):
    return optim.lr_scheduler.StepLR(optimizer, 1)


def test_optimizers():
    expected = (
        "Configured.configure_optimizers: expected an optimizer, (optimizer, scheduler), a dict "
        "with these, or a list of such, got "
    )
    assert configured(lambda model: None) == f"{expected}None; does it lack a return?"
    assert configured(lambda model: "SGD") == f"{expected}str"
    assert configured(lambda model: []) == f"{expected}()"
    assert configured(lambda model: (step_lr(sgd(model)), sgd(model))) == f"{expected}(StepLR, SGD)"
    assert configured(lambda model: (sgd(model), 3)) == f"{expected}(SGD, int)"
    keys = "expected the keys optimizer, scheduler, interval ('epoch' or 'step') and monitor, got "
    assert keys + "schedule" in configured(lambda model: {"optimizer": sgd(model), "schedule": 1})
    assert keys + "interval 'day'" in configured(
        lambda model: {"optimizer": sgd(model), "interval": "day"}
    )

    def plateau(model):
        optimizer = sgd(model)
        scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "scheduler": scheduler, "interval": "step"}

    assert "ReduceLROnPlateau steps once per epoch" in configured(plateau)


def test_losses():
    def losing(value):
        class Losing(Classifier):
            def training_step(self, batch):
                return value(batch)

        return fit(loader(), model=make_model(Losing))

    expected = "Losing.training_step: expected it to return the loss, a tensor of one element, got "
    assert losing(lambda batch: None) == f"{expected}None"
    assert losing(lambda batch: 1.0) == f"{expected}float"
    assert losing(lambda batch: batch[0]) == (
        f"{expected}a tensor of shape (16, 6); reduce it, for example with .mean()"
    )
    with pytest.raises(GradientError, match="backward: expected a tensor that depends on one with"):
        trainer().fit(make_model(type("Constant", (Classifier,), {
            "training_step": lambda self, batch: gl.tensor(1.0)})), loader())  # fmt: skip


def test_a_plateau_without_its_metric():
    class Plateau(Classifier):
        def configure_optimizers(self):
            optimizer = sgd(self)
            return optimizer, optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    assert fit(loader(), model=make_model(Plateau)) == (
        "ReduceLROnPlateau: expected a metric to monitor among train_loss, got 'val_loss'; there "
        "is no validation data: give fit() a second loader"
    )


@pytest.mark.parametrize("name", ["epoch", "step", 3, None])
@pytest.mark.parametrize("moment", ["training", "validation", "end"])
def test_names_that_are_no_metric(name, moment):
    class Logging(Classifier):
        def training_step(self, batch):
            if moment == "training":
                self.log(name, 1.0)
            return super().training_step(batch)

        def validation_step(self, batch):
            if moment == "validation":
                self.log(name, 1.0)

    class AtEnd(training.Callback):
        def on_epoch_end(self, run):
            if moment == "end":
                run.log(name, 1.0)

    run = trainer(1, callbacks=[AtEnd()])
    assert refusal(run.fit, make_model(Logging), loader(), val_loader()) == (
        "Logging.log: expected the name of a metric, a string other than 'epoch' and 'step', which "
        f"say where in the run a row of the history is, got {name!r}"
    )


def test_names_that_only_begin_like_a_column():
    class Logging(Classifier):
        def training_step(self, batch):
            loss = super().training_step(batch)
            self.plot("step", loss, train=True)
            self.log("epochs", 1.0)
            return loss

    history = trainer(1).fit(make_model(Logging), loader())
    assert history.names == ["epochs", "train_loss", "train_step"]
    assert (history.last()["epoch"], history.last()["step"]) == (1, 6)


# -------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": None}, "Trainer: say when to stop: give max_epochs, max_steps or max_time"),
        (
            {"max_epochs": -1},
            "Trainer: expected an integer max_epochs of 0 or more, got -1",
        ),
        (
            {"max_epochs": 1.5},
            "Trainer: expected an integer max_epochs of 0 or more, got 1.5",
        ),
        (
            {"max_steps": "9"},
            "Trainer: expected an integer max_steps of 0 or more, got '9'",
        ),
        (
            {"max_time": "soon"},
            "Trainer: expected a time such as '30s', '10m' or '2h', or a timedelta, got 'soon'",
        ),
        (
            {"gradient_clip_val": -1.0},
            "Trainer: expected gradient_clip_val to be a number of 0 or more, got -1.0",
        ),
        (
            {"accumulate_grad_batches": 0},
            "Trainer: expected an integer accumulate_grad_batches of 1 or more, got 0",
        ),
        (
            {"check_val_every_n_epoch": None},
            "Trainer: expected an integer check_val_every_n_epoch of 1 or more, got None",
        ),
        (
            {"gradient_clip_val": math.nan},
            "Trainer: expected gradient_clip_val to be a number of 0 or more, got nan",
        ),
        (
            {"fast_dev_run": "a"},
            "Trainer: expected an integer fast_dev_run of 1 or more, got 'a'",
        ),
        (
            {"precision": "16-mixed"},
            "Trainer: expected precision None, 'float32', 'float64' or 'bfloat16', got '16-mixed'; "
            "mixed precision is not available",
        ),
        (
            {"precision": 16},
            "Trainer: expected precision None, 'float32', 'float64' or 'bfloat16', got 16; float16 "
            "needs loss scaling, which is not available; 'bfloat16' does without",
        ),
        (
            {"precision": "int8"},
            "Trainer: expected precision None, 'float32', 'float64' or 'bfloat16', got 'int8'",
        ),
    ],
)
def test_options(options, message):
    assert refusal(training.Trainer, **{"max_epochs": 1, **options}) == message


def test_callbacks():
    expected = "Trainer: expected callbacks with at least one method of training.Callback, got "
    stopping = training.EarlyStopping
    for given in ([stopping], stopping):
        assert refusal(training.Trainer, 1, callbacks=given) == (
            f"{expected}the class EarlyStopping; make one: EarlyStopping(...)"
        )
    assert refusal(training.Trainer, 1, callbacks=3) == f"{expected}int"
    assert refusal(training.Trainer, 1, callbacks="early") == f"{expected}str"
    one = stopping("a")
    assert trainer(callbacks=one).callbacks == [one]
    assert trainer(callbacks=None).callbacks == []


@pytest.mark.parametrize("limit", [-1, 1.5, -0.5, True, "2"])
def test_limits(limit):
    assert fit(loader(), limit_train_batches=limit) == (
        "Trainer: expected the limit of training batches to be a number of them, or a fraction up "
        f"to 1.0, got {limit!r}"
    )


def test_a_fraction_of_an_unknown_number():
    class Stream:
        def __iter__(self):
            return iter(loader())

    assert fit(Stream(), limit_train_batches=0.5) == (
        "Trainer: a fraction (0.5) of the training batches needs a loader with a length; give a "
        "number of batches instead"
    )


def test_no_prediction():
    with pytest.raises(DataError, match="the prediction data is empty"):
        trainer().predict(make_model(), [])


def test_two_writers_of_checkpoints_may_work_side_by_side(tmp_path):
    writer = training.ModelCheckpoint(tmp_path / "best", monitor="val_loss")
    run = trainer(2, checkpoint_dir=tmp_path / "last", callbacks=[writer])
    run.fit(make_model(), loader(), val_loader())
    assert training.list_checkpoints(tmp_path / "best")
    assert training.list_checkpoints(tmp_path / "last")
    assert isinstance(OptionError("x"), ValueError)
