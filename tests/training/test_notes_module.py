"""HyperParameters, parameters by assignment, optimizers of the user's, classifiers, GPUs."""

from __future__ import annotations

import copy
import pickle
import sys
import types
import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st
from support import (
    Classifier as Net,
    Scratch,
    ScratchSGD,
    assert_same,
    loader,
    make_model,
    parameters,
    val_loader,
)

import gradlab as gl
from gradlab import nn, optim, training
from gradlab.errors import OptionError, StateError
from gradlab.training import HyperParameters, Trainer, add_to_class
from refusals import refusal

# ------------------------------------------------------------------------------- hyperparameters


class Three(HyperParameters):
    def __init__(self, a, b, c, *args, _hidden=0, **options):
        computed = a + b  # noqa: F841 - kept
        self.save_hyperparameters(ignore=["c"])


def test_arguments_and_local_variables_become_attributes():
    made = Three(1, 2, 3, 4, 5, _hidden=6, other=7)
    assert made.hparams == {"a": 1, "b": 2, "computed": 3, "args": (4, 5), "options": {"other": 7}}
    assert (made.a, made.b, made.computed, made.args) == (1, 2, 3, (4, 5))
    assert not hasattr(made, "c")
    assert not hasattr(made, "_hidden")


def test_a_name_to_ignore_and_another_name_for_self():
    class Odd(HyperParameters):
        def __init__(this, first, second):  # noqa: N805
            this.save_hyperparameters("first")
            this.inner = lambda: this  # a cell

    assert Odd(1, 2).hparams == {"second": 2}


def test_a_later_call_replaces_hparams_and_adds_attributes():
    class Four(Three):
        def __init__(self, d):
            super().__init__(1, 2, 3)
            self.save_hyperparameters()

    made = Four(4)
    assert made.hparams == {"d": 4}
    assert made.a == 1


def test_outside_a_method():
    made = Three(1, 2, 3)
    assert refusal(made.save_hyperparameters) == (
        "Three.save_hyperparameters: expected to be called within a method of the Three, whose "
        "arguments it keeps, got a call from refusal; call self.save_hyperparameters() in __init__"
    )
    with pytest.raises(OptionError, match="got a call from <module>"):
        exec("made.save_hyperparameters()", {"made": made})


def test_modules_and_tensors_given_as_arguments_are_registered():
    class Wrapping(training.Module):
        def __init__(self, net, w, lr=0.1):
            super().__init__()
            self.save_hyperparameters()

    net, w = nn.Linear(2, 1), gl.ones(2, requires_grad=True)
    model = Wrapping(net, w)
    assert [name for name, _ in model.named_parameters()] == ["w", "net.weight", "net.bias"]
    assert model.hparams == {"net": net, "w": w, "lr": 0.1}


def test_add_to_class():
    class A:
        b = 1

    a = A()

    @add_to_class(A)
    def do(self):
        return self.b

    assert a.do() == 1
    assert do(a) == 1
    assert refusal(add_to_class, a) == (
        "add_to_class: expected a class, got A; it is written above a function: "
        "@add_to_class(Model)"
    )


def test_the_options_of_a_trainer():
    trainer = Trainer(3, 0, 0.5, seed=4)
    assert (trainer.max_epochs, trainer.num_gpus, trainer.gradient_clip_val) == (3, 0, 0.5)
    assert trainer.hparams["seed"] == 4


# ---------------------------------------------------------------------- parameters by assignment


class Listed(Scratch):
    def parameters(self):
        return [self.W, self.b]


def test_a_tensor_to_be_trained_becomes_a_parameter_and_stays_itself():
    w = gl.ones(3, requires_grad=True)
    model = training.Module()
    model.w = w
    assert model.w is w
    assert type(w) is gl.Tensor
    assert list(model.parameters()) == [w]
    assert list(model.state_dict()) == ["w"]
    model.to(gl.float64)
    assert model.w is w
    assert w.dtype == gl.float64
    other = training.Module()
    other.w = gl.zeros(3, requires_grad=True)
    other.load_state_dict(model.state_dict())
    assert other.w.tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [gl.ones(2), gl.ones(2, requires_grad=True) * 2, 3.0, nn.ReLU()])
def test_other_values_are_plain_attributes_also_in_the_place_of_a_parameter(value):
    model = training.Module()
    model.w = value
    assert list(model.parameters()) == []
    model.w = gl.ones(2, requires_grad=True)
    assert len(list(model.parameters())) == 1
    model.w = value
    assert model.w is value
    assert list(model.parameters()) == []
    model.w = gl.ones(2, requires_grad=True)
    model.w = None
    assert model.w is None
    assert list(model.parameters()) == []
    model.w = gl.zeros(3)
    assert model.w.tolist() == [0, 0, 0]


def test_parameters_and_buffers_keep_their_kind():
    model = training.Module()
    model.p = nn.Parameter(gl.ones(2))
    with pytest.raises(gl.errors.DTypeError, match="expected a Parameter or None, got a tensor"):
        model.p = gl.ones(2)
    model.register_buffer("buffer", gl.ones(2))
    model.buffer = gl.ones(2, requires_grad=True)
    assert [name for name, _ in model.named_buffers()] == ["buffer"]
    model.p = gl.zeros(2, requires_grad=True)
    assert model.p.tolist() == [0, 0]


def test_without_the_inits_of_the_base_class():
    class Forgetful(training.Module):
        def __init__(self):
            self.w = gl.ones(2, requires_grad=True)

    assert refusal(Forgetful) == (
        "Forgetful: expected super().__init__() first, got a Parameter for 'w'; call "
        "super().__init__() at the beginning of __init__"
    )


@pytest.mark.parametrize("kind", [Scratch, Listed])
def test_models_from_scratch_train_as_others(kind, tmp_path):
    model = kind()
    trainer = Trainer(3, seed=1, checkpoint_dir=tmp_path, enable_progress_bar=False)
    history = trainer.fit(model, loader(), val_loader())
    assert history["train_loss"][-1] < history["train_loss"][0]
    again = kind()
    Trainer(3, checkpoint_dir=tmp_path, enable_progress_bar=False).fit(
        again, loader(), resume="last"
    )
    assert_same(parameters(again), parameters(model))


def test_a_copy_and_a_pickle_leave_the_trainer_behind():
    model = Scratch()
    trainer = Trainer(1, enable_progress_bar=False)
    trainer.fit(model, loader(), val_loader())
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.trainer is None
        assert_same(parameters(made), parameters(model))
        assert made.board.data == model.board.data
        trainer.fit(made, loader())
        assert made.board.xlim == [0, 1]
    assert model.trainer is trainer


# -------------------------------------------------------------------------------------- optimizers


class Remembering(ScratchSGD):
    steps = 0

    def step(self):
        self.steps += 1
        super().step()

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Own(Scratch):
    kind = ScratchSGD

    def configure_optimizers(self):
        return self.kind([self.W, self.b], self.lr)


class OwnRemembering(Own):
    kind = Remembering


def test_the_default_is_sgd_with_the_learning_rate_of_the_model():
    made = Scratch(lr=0.25).configure_optimizers()
    assert type(made) is optim.SGD
    assert made.param_groups[0]["lr"] == 0.25
    assert refusal(training.Module().configure_optimizers) == (
        "Module.configure_optimizers: Module does not define it; give the class an optimizer, for "
        "example `return optim.SGD(self.parameters(), lr=0.1)`"
    )


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}]
)
def test_any_object_with_step_and_zero_grad(options):
    models = [Scratch(), Own()]
    for model in models:
        trainer = Trainer(
            2,
            seed=1,
            callbacks=training.LearningRateMonitor(),
            enable_progress_bar=False,
            **options,
        )
        trainer.fit(model, loader())
    assert_same(*map(parameters, models))
    assert type(trainer.optim) is ScratchSGD
    assert trainer.optimizers == [trainer.optim]


def test_an_optimizer_without_a_state_cannot_be_in_a_checkpoint(tmp_path):
    expected = (
        "Trainer: expected an optimizer with state_dict and load_state_dict, for its checkpoint, "
        "got ScratchSGD, which does not have both; define them, or train without checkpoints"
    )
    model = Own()
    before = parameters(model)
    trainer = Trainer(1, checkpoint_dir=tmp_path / "new", enable_progress_bar=False)
    assert refusal(trainer.fit, model, loader()) == expected
    assert_same(parameters(model), before)
    assert not (tmp_path / "new").exists()
    trainer = Trainer(1, enable_progress_bar=False)
    trainer.fit(model, loader())
    assert refusal(trainer.state_dict) == expected


def test_an_optimizer_of_the_users_is_resumed(tmp_path):
    options = {"seed": 1, "checkpoint_dir": tmp_path, "enable_progress_bar": False}
    whole = OwnRemembering()
    Trainer(3, seed=1, enable_progress_bar=False).fit(whole, loader())
    Trainer(max_steps=8, **options).fit(OwnRemembering(), loader())
    model = OwnRemembering()
    trainer = Trainer(3, **options)
    trainer.fit(model, loader(), resume="last")
    assert trainer.optim.steps == 18
    assert_same(parameters(model), parameters(whole))


def test_no_optimizers():
    class Configured(Scratch):
        made: object = None

        def configure_optimizers(self):
            return type(self).made

    for made, got in [
        (ScratchSGD, "type"),
        (nn.Linear(1, 1), "Linear"),
        (None, "None; does it lack a"),
    ]:
        Configured.made = made
        text = refusal(Trainer(1).fit, Configured(), loader())
        assert text.startswith("Configured.configure_optimizers: expected an optimizer, (optimizer")
        assert f"got {got}" in text


# ------------------------------------------------------------------------------------------- init


def test_apply_init():
    class Deep(training.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.LazyLinear(2)
            )

    model = Deep()
    state = gl.get_rng_state()
    gl.manual_seed(3)
    seen = []
    model.apply_init([gl.ones(5, 3)], seen.append)
    assert seen == [*model.net, model.net]
    assert model.training
    assert model.net[1].running_mean.tolist() == [0] * 4
    assert [tuple(p.shape) for p in model.net[3].parameters()] == [(2, 4), (2,)]
    gl.set_rng_state(state)


# ------------------------------------------------------------------------------------- classifiers


@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(2, 5), st.booleans())
def test_accuracy_of_scores_and_labels_of_any_shape(shape, classes, as_labels):
    generator = np.random.default_rng(len(shape) + classes)
    scores = generator.standard_normal((*shape, classes)).astype(np.float32)
    labels = generator.integers(0, classes, shape)
    y_hat = gl.tensor(scores.argmax(-1) if as_labels else scores)
    y = gl.tensor(labels)
    right = scores.argmax(-1) == labels
    assert training.accuracy(y_hat, y) == right.sum()
    assert type(training.accuracy(y_hat, y)) is float
    found = training.Classifier().accuracy(y_hat, y)
    assert found.dtype == gl.float32
    assert found.item() == pytest.approx(right.mean())
    each = training.Classifier().accuracy(y_hat, y, averaged=False)
    assert each.tolist() == right.reshape(-1).astype(float).tolist()


def test_accuracy_of_what_does_not_fit():
    assert refusal(training.accuracy, gl.zeros(4, 3), gl.zeros(5)) == (
        "accuracy: expected scores (..., classes) and labels (...), or labels for both, got shapes "
        "(4, 3) and (5,)"
    )
    assert "got shapes () and (2,)" in refusal(training.accuracy, gl.tensor(1.0), gl.zeros(2))


def test_the_loss_of_a_classifier():
    model = training.Classifier()
    generator = np.random.default_rng(0)
    scores = gl.tensor(generator.standard_normal((2, 3, 4)).astype(np.float32))
    labels = gl.tensor([[0, 1, 2], [3, 2, 1]])
    expected = nn.functional.cross_entropy(scores.reshape(6, 4), labels.reshape(6))
    assert model.loss(scores, labels).item() == expected.item()
    each = model.loss(scores, labels, averaged=False)
    assert each.shape == (6,)
    assert each.mean().item() == pytest.approx(expected.item())
    one_hot = gl.tensor(np.eye(4, dtype=np.float32)[labels.numpy()])
    assert model.loss(scores, one_hot).item() == pytest.approx(expected.item())


def test_the_loss_of_a_single_score():
    with pytest.raises(gl.errors.ShapeError) as caught:
        training.Classifier().loss(gl.zeros(()), gl.tensor(0))
    assert str(caught.value) == (
        "Classifier.loss: expected scores of shape (..., classes), got shape ()"
    )


def test_layer_summary(capsys):
    class Deep(training.Classifier):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Flatten(), nn.LazyLinear(8), nn.Dropout(0.5), nn.Linear(8, 3)
            )

    model = Deep()
    state = gl.get_rng_state()
    model.layer_summary((2, 3, 4))
    assert capsys.readouterr().out == (
        "Flatten output shape:\t (2, 12)\n"
        "Linear output shape:\t (2, 8)\n"
        "Dropout output shape:\t (2, 8)\n"
        "Linear output shape:\t (2, 3)\n"
    )
    assert model.training
    assert gl.get_rng_state() != state
    assert refusal(training.Classifier().layer_summary, (2, 3)) == (
        "Classifier.layer_summary: expected an attribute `net` of layers one after the other, got "
        "none; make it an nn.Sequential"
    )


def test_a_classifier_plots_loss_and_accuracy():
    model = Scratch()
    history = Trainer(2, enable_progress_bar=False).fit(model, loader(), val_loader())
    assert list(history.last()) == ["epoch", "step", "train_loss", "val_loss", "val_acc"]
    assert list(model.board.data) == ["train_loss", "val_loss", "val_acc"]
    assert [y for _, y in model.board.data["train_loss"]] == pytest.approx(
        [row["train_loss"] for row in Trainer(
            2, log_every_n_batches=3, enable_progress_bar=False
        ).fit(Scratch(), loader(seed=0), val_loader()).steps], rel=1
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- GPUs


def losses(model, **options):
    fit = {name: options.pop(name) for name in ("device",) if options.get(name)}
    trainer = Trainer(2, seed=1, enable_progress_bar=False, **options)
    history = trainer.fit(model, loader(), val_loader(), **fit)
    return trainer, [row["train_loss"] for row in history.steps]


@pytest.mark.parametrize("kind", [Net, Scratch, Listed, Own])
def test_one_gpu_is_the_same_run(fake_cuda, kind):
    _, expected = losses(make_model(kind))
    model = make_model(kind)
    trainer, found = losses(model, num_gpus=1)
    assert found == pytest.approx(expected, rel=1e-4)
    assert trainer.gpus == [gl.device("cuda:0")]
    assert trainer.device is None
    assert {p.device for p in model.parameters()} == {gl.device("cuda:0")}
    model = make_model(kind)
    trainer, found = losses(model, device="cuda:1")
    assert found == pytest.approx(expected, rel=1e-4)
    assert {p.device for p in model.parameters()} == {gl.device("cuda:1")}
    assert len(model.board.data["train_loss"]) == 4


def test_a_device_for_one_fit(fake_cuda):
    trainer = Trainer(1, device="cuda:1", enable_progress_bar=False)
    models = [make_model(Scratch) for _ in range(2)]
    trainer.fit(models[0], loader(), device="cpu")
    trainer.fit(models[1], loader())
    assert [next(iter(m.parameters())).device.type for m in models] == ["cpu", "cuda"]
    with pytest.raises(gl.errors.DeviceError):
        trainer.fit(models[0], loader(), device="cuda:7")


def test_the_device_wins_over_the_number(fake_cuda):
    trainer = Trainer(1, num_gpus=1, device="cuda:1")
    assert trainer.gpus == [gl.device("cuda:1")]
    assert refusal(Trainer, 1, num_gpus=1, device="cpu") == (
        "Trainer: expected a device that is a GPU where num_gpus is given, got device='cpu' and "
        "num_gpus=1; leave one of them out"
    )
    assert refusal(Trainer, 1, num_gpus=-1) == (
        "Trainer: expected an integer num_gpus of 0 or more, got -1"
    )


@pytest.fixture
def unsaid():
    training.gpus._say_once.cache_clear()


def test_more_gpus_than_one(fake_cuda, unsaid):
    with pytest.warns(UserWarning, match="^Trainer: num_gpus=2 trains on one GPU, cuda:0: it does"):
        trainer = Trainer(1, num_gpus=2)
    assert trainer.gpus == [gl.device("cuda:0")]
    Trainer(1, num_gpus=2)  # said once


def test_no_gpu(unsaid):
    if gl.cuda.is_available():
        pytest.skip("there is one")
    with pytest.warns(UserWarning, match="^Trainer: num_gpus=1 trains on the CPU: ") as caught:
        trainer = Trainer(1, num_gpus=1, enable_progress_bar=False)
    assert caught[0].filename == __file__
    assert trainer.gpus == []
    model = Scratch()
    trainer.fit(model, loader())
    assert next(iter(model.parameters())).device == gl.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(1, num_gpus=1)


# ------------------------------------------------------------------------------- the progress bar


@pytest.fixture
def in_notebook(monkeypatch):
    shell = type("ZMQInteractiveShell", (), {})()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(training.progress, "find_mode", lambda stream: "log")
    monkeypatch.setattr(gl.viz.ProgressBoard, "_show", lambda self, complete=False: None)


class Silent(Scratch):
    def training_step(self, batch):
        return self.loss(self(batch[0]), batch[1])


def test_in_a_notebook_the_board_takes_the_place_of_the_bar(in_notebook, capsys):
    def shown(model, **options):
        Trainer(1, **options).fit(model, loader())
        return "train_loss" in capsys.readouterr().err

    assert not shown(Scratch())
    assert shown(Scratch(), enable_progress_bar=True)
    assert shown(Silent())  # nothing is drawn
    hidden = Scratch()
    hidden.board.display = False
    assert shown(hidden)
    hidden.board = None
    assert shown(hidden)
    assert not shown(Scratch(), enable_progress_bar=False)


def test_without_matplotlib_there_is_a_bar(in_notebook, capsys, monkeypatch):
    monkeypatch.setattr(training.progress.util, "find_spec", lambda name: None)
    Trainer(1).fit(Scratch(), loader())
    assert "train_loss" in capsys.readouterr().err


def test_outside_a_notebook_there_is_a_bar(capsys):
    Trainer(1).fit(Scratch(), loader())
    assert "train_loss" in capsys.readouterr().err


def test_states_of_other_optimizers_are_refused(tmp_path):
    trainer = Trainer(1, checkpoint_dir=tmp_path, enable_progress_bar=False)
    trainer.fit(OwnRemembering(), loader())
    with pytest.raises(StateError, match=r"gives the optimizers \['SGD'\], and the checkpoint has"):
        Trainer(2, checkpoint_dir=tmp_path, enable_progress_bar=False).fit(
            Scratch(), loader(), resume="last"
        )
