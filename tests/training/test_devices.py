"""Training on a device other than the CPU, which is not to be waited for at every step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import Classifier, loader, make_model, trainer, val_loader

import gradlab as gl
from gradlab import training
from gradlab.errors import NonFiniteLossError
from gradlab.testing import assert_close


def on_host(model):
    return {name: x.numpy(force=True).copy() for name, x in model.state_dict().items()}


def test_the_same_run_as_on_the_cpu(fake_cuda):
    models = [make_model(), make_model()]
    histories = [
        trainer(2, device=device, gradient_clip_val=1.0).fit(model, loader(), val_loader())
        for device, model in zip(("cpu", "cuda"), models, strict=True)
    ]
    assert {x.device for x in models[1].parameters()} == {gl.device("cuda")}
    assert_close(*map(on_host, models), rtol=1e-4)  # sums are added up in another order there
    for name in ("epochs", "steps"):
        for here, there in zip(*(getattr(each, name) for each in histories), strict=True):
            assert there == pytest.approx(here, rel=1e-4)


def test_the_model_decides_where_the_trainer_does_not(fake_cuda):
    model = make_model().to("cuda:1")
    run = trainer(1)
    run.fit(model, loader())
    assert {x.device for x in model.parameters()} == {gl.device("cuda:1")}
    assert run.predict(model, val_loader()).device == gl.device("cuda:1")


def test_the_device_is_not_waited_for_at_every_step(fake_cuda, monkeypatch):
    monkeypatch.setattr(training.trainer, "_LOOK_INTERVAL", math.inf)
    run = trainer(2, device="cuda")
    run.fit(make_model(), loader(2), val_loader())
    assert run.step == 96
    # In each epoch: the losses of its steps, the losses and the accuracies of its validation, in
    # one transfer each (float32 both, so that these two come together). And the first look, and
    # one at the end at the parameters.
    assert fake_cuda.copies_to_host == 2 * 2 + 2


def test_a_sum_that_goes_on_is_logged_as_it_was(fake_cuda):
    class Counts(Classifier):
        def training_step(self, batch):
            if not hasattr(self, "seen"):
                self.seen = gl.zeros((), device=batch[0].device)
            self.seen += 1
            self.log("seen", self.seen)
            return super().training_step(batch)

    models = [make_model(Counts), make_model(Counts)]
    here, there = (
        trainer(1, device=device).fit(model, loader()).epochs[0]["seen"]
        for device, model in zip(("cpu", "cuda"), models, strict=True)
    )
    assert here == there


def test_a_loss_that_is_not_finite_is_named_when_it_is_read(fake_cuda, tmp_path, monkeypatch):
    monkeypatch.setattr(training.trainer, "_LOOK_INTERVAL", math.inf)

    class Diverging(Classifier):
        steps = 0

        def training_step(self, batch):
            self.steps += 1
            return super().training_step(batch) * (math.nan if self.steps == 9 else 1.0)

    run = trainer(3, device="cuda", checkpoint_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(
        NonFiniteLossError, match=r"the loss became nan in epoch 2, batch 3 \(step 9"
    ):
        run.fit(make_model(Diverging), loader(), val_loader())
    assert run.step > 9
    paths = training.list_checkpoints(tmp_path)
    assert [training.read_checkpoint(each)["position"]["step"] for each in paths] == [4, 8]


def test_a_run_moves_between_devices(fake_cuda, tmp_path):
    whole = make_model()
    trainer(3).fit(whole, loader())
    trainer(1, checkpoint_dir=tmp_path).fit(make_model(), loader())
    for epochs, device in [(2, "cuda"), (3, "cpu")]:
        model = make_model(seed=5)
        run = trainer(epochs, device=device, checkpoint_dir=tmp_path)
        run.fit(model, loader(), resume="last")
    assert_close(on_host(model), on_host(whole), rtol=1e-4)


def test_save_and_load(fake_cuda, tmp_path):
    x = gl.tensor(np.arange(3.0), device="cuda")
    gl.save({"x": x}, tmp_path / "file")
    assert gl.load(tmp_path / "file")["x"].device == gl.device("cpu")
    assert gl.load(tmp_path / "file", device="cuda:1")["x"].device == gl.device("cuda:1")
