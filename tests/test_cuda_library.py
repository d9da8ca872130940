"""The library as a whole on ``device="cuda"``, with gradlab's kernels run by the emulator."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn, optim, training
from gradlab.autograd import grad
from gradlab.data import DataLoader, TensorDataset
from gradlab.nn.utils import clip_grad_norm_
from gradlab.testing import assert_close, gradcheck

# --------------------------------------------------------------------------------- a training step


class Network(nn.Sequential):
    """Everything a step of a multilayer perceptron may hold."""

    def __init__(self):
        super().__init__(
            nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.25),
            nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 5),
        )  # fmt: skip


OPTIMIZERS = {
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: optim.SGD(
        parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    "Adam": lambda parameters: optim.Adam(parameters, lr=5e-3),
    "AdamW": lambda parameters: optim.AdamW(parameters, lr=5e-3),
}


class Steps:
    """Training steps of a network on a device, from the same numbers on each."""

    def __init__(self, device, optimizer="AdamW"):
        gl.manual_seed(0)
        self.model = Network().to(device)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=20)
        random = np.random.default_rng(0)
        x = random.standard_normal((24, 12), np.float32)
        self.x = gl.tensor(x, device=device)
        self.labels = gl.tensor(x[:, :5].argmax(axis=1), device=device)
        gl.manual_seed(1)

    def step(self):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.x), self.labels, label_smoothing=0.1)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_never_waits_for_the_device(optimizer, fake_cuda):
    steps = Steps("cuda", optimizer)
    steps.step()  # the first makes the optimizer's state
    gl.cuda.reset_statistics()
    losses = [steps.step() for _ in range(3)]
    passed = gl.cuda.statistics()
    assert passed.synchronizations == 0
    assert passed.copies_to_host == 0
    assert passed.copies_to_device == 0
    assert passed.launches >= 3 * 10
    assert all(math.isfinite(loss.item()) for loss in losses)
    assert gl.cuda.statistics().synchronizations == 3  # these, which were asked for


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_give_what_they_give_on_the_cpu(optimizer, fake_cuda):
    losses, weights = {}, {}
    for device in ("cpu", "cuda"):
        steps = Steps(device, optimizer)
        losses[device] = [steps.step().item() for _ in range(4)]
        weights[device] = [p.detach().cpu() for p in steps.model.parameters()]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)
    assert losses["cpu"][-1] < losses["cpu"][0]
    for one, other in zip(weights["cuda"], weights["cpu"], strict=True):
        assert_close(one, other, 2e-3, 2e-4)


def test_the_same_seed_gives_the_same_bits_twice(fake_cuda):
    runs = []
    for _ in range(2):
        steps = Steps("cuda")
        runs.append([steps.step().item() for _ in range(3)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_steps_in_other_dtypes(dtype, fake_cuda):
    losses = {}
    for device in ("cpu", "cuda"):
        steps = Steps(device, "momentum")
        steps.model.to(getattr(gl, dtype))
        steps.x = steps.x.astype(dtype)
        losses[device] = [float(steps.step().astype("float32").item()) for _ in range(2)]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-12 if "64" in dtype else 0.03)


# ----------------------------------------------------------------------------------- the Trainer


class Classifier(training.Module):
    def __init__(self):
        super().__init__()
        self.net = Network()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        x, labels = batch
        return nn.functional.cross_entropy(self(x), labels)

    def validation_step(self, batch):
        x, labels = batch
        self.log("accuracy", (self(x).argmax(axis=1) == labels).float().mean())

    def configure_optimizers(self):
        return optim.AdamW(self.parameters(), lr=1e-2)


def loaders():
    x = np.random.default_rng(3).standard_normal((96, 12), np.float32)
    data = TensorDataset(x, x[:, :5].argmax(axis=1))
    return DataLoader(data, 16, shuffle=True, seed=0), DataLoader(data, 48)


def fit(device, epochs=2, resume=None, **options):
    gl.manual_seed(0)
    model = Classifier()
    run = training.Trainer(
        epochs, seed=1, device=device, enable_progress_bar=False, gradient_clip_val=1.0, **options
    )
    run.fit(model, *loaders(), resume=resume)
    return run


def test_a_run_ends_with_the_losses_of_the_cpus(fake_cuda):
    on_cpu, on_cuda = fit("cpu"), fit("cuda")
    for here, there in zip(on_cpu.history.epochs, on_cuda.history.epochs, strict=True):
        assert here.keys() == there.keys()
        assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-3)
        assert there["accuracy"] == pytest.approx(here["accuracy"], abs=1.5 / 96)


def test_an_epoch_waits_only_to_read_its_metrics(fake_cuda, monkeypatch):
    monkeypatch.setattr(training.trainer, "_LOOK_INTERVAL", math.inf)
    fit("cuda", epochs=1)
    gl.cuda.reset_statistics()
    fit("cuda", epochs=3)
    passed = gl.cuda.statistics()
    # For each epoch the losses of its steps and the accuracies of its validation, each in one
    # copy, the first look at the metrics, and the last at the parameters. 18 steps and 6 validation
    # batches wait for nothing.
    assert passed.copies_to_host == passed.synchronizations == 3 * 2 + 2


def test_a_run_goes_on_on_another_device(fake_cuda, tmp_path):
    whole = fit("cpu", epochs=3)
    fit("cuda", epochs=1, checkpoint_dir=tmp_path)
    fit("cpu", epochs=2, resume="last", checkpoint_dir=tmp_path)
    moved = fit("cuda:1", epochs=3, resume="last", checkpoint_dir=tmp_path)
    assert {p.device for p in moved.model.parameters()} == {gl.device("cuda:1")}
    expected = [row["train_loss"] for row in whole.history.epochs]
    assert [row["train_loss"] for row in moved.history.epochs] == pytest.approx(expected, rel=1e-3)


# -------------------------------------------------------------------------------------- autograd


def test_gradients_of_gradients(fake_cuda):
    def curvature(device):
        x = gl.tensor(np.linspace(-1, 1, 12).reshape(3, 4), device=device, requires_grad=True)
        w = gl.tensor(np.linspace(0, 1, 8).reshape(4, 2), device=device, requires_grad=True)
        y = (x @ w).softmax(-1).log().sum() + x.var(axis=0).sum()
        (g,) = grad(y, x, create_graph=True)
        return [each.cpu() for each in grad((g * g).sum(), [x, w])]

    for one, other in zip(curvature("cuda"), curvature("cpu"), strict=True):
        assert_close(one, other, 1e-9, 1e-9)


def test_gradcheck_through_the_kernels(fake_cuda):
    x = gl.rand(3, 4, dtype="float64", device="cuda")
    w = gl.rand(4, 3, dtype="float64", device="cuda")
    assert gradcheck(lambda x, w: (x @ w).log_softmax(-1).cumsum(0) + w.mean(), [x, w], order=2)
    assert {source for source, _ in fake_cuda.launches} >= {"softmax.cu", "reduction.cu"}


# -------------------------------------------------------------------------------------- dispatch

F = nn.functional


def ones(*shape, dtype="float32"):
    return gl.ones(shape, dtype=dtype, device="cuda")


# What is called, and the sources that a call may take; none: CuPy computes it.
DISPATCH = {
    "matmul float32": (lambda: ones(40, 30) @ ones(30, 20), {"matmul.cu"}),
    "matmul float64": (lambda: ones(4, 3, dtype="float64") @ ones(3, 2, dtype="float64"),
                       {"matmul.cu"}),
    "matmul bfloat16": (lambda: ones(64, 64, dtype="bfloat16") @ ones(64, 64, dtype="bfloat16"),
                        {"matmul_mma.cu", "matmul_wgmma.cu"}),
    "matmul float16": (lambda: ones(64, 64, dtype="float16") @ ones(64, 64, dtype="float16"),
                       {"matmul_mma.cu", "matmul_wgmma.cu"}),
    "matrix times vector": (lambda: ones(40, 30) @ ones(30), {"matmul.cu"}),
    "matmul complex64": (lambda: ones(4, 3, dtype="complex64") @ ones(3, 2, dtype="complex64"),
                         set()),
    "softmax": (lambda: ones(5, 7).softmax(-1), {"softmax.cu"}),
    "log_softmax, middle axis": (lambda: ones(3, 5, 7).log_softmax(1), {"softmax.cu"}),
    "logsumexp float16": (lambda: ones(5, 7, dtype="float16").logsumexp(-1),
                          {"softmax.cu", "reduction.cu"}),
    "cross_entropy": (lambda: F.cross_entropy(ones(5, 7), gl.zeros(5, dtype="int64",
                                                                   device="cuda")),
                      {"cross_entropy.cu"}),
    "sum": (lambda: ones(5, 7).sum(), {"reduction.cu"}),
    "sum of bools": (lambda: (ones(5, 7) > 0).sum(axis=0), {"reduction.cu"}),
    "argmax": (lambda: ones(5, 7).argmax(axis=1), {"reduction.cu"}),
    "var": (lambda: ones(5, 7).var(axis=0), {"reduction.cu"}),
    "sum complex64": (lambda: ones(5, dtype="complex64").sum(), set()),
    "cumsum": (lambda: ones(5, 7).cumsum(1), {"scan.cu"}),
    "layer_norm": (lambda: F.layer_norm(ones(5, 7), (7,)), {"normalization.cu"}),
    "rms_norm": (lambda: F.rms_norm(ones(5, 7), (7,)), {"normalization.cu"}),
    "dropout": (lambda: F.dropout(ones(5, 7), 0.5), {"random.cu"}),
    "randn": (lambda: gl.randn(5, device="cuda"), {"random.cu"}),
    "add": (lambda: ones(5) + ones(5), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", DISPATCH)
def test_calls_take_the_kernels_of_their_family(name, fake_cuda):
    call, sources = DISPATCH[name]
    fake_cuda.launches.clear()
    call()
    taken = {source for source, _ in fake_cuda.launches}
    assert taken <= sources
    assert bool(taken) == bool(sources)


def test_an_optimizer_takes_one_launch_for_all_parameters(fake_cuda):
    parameters = [ones(3, i + 1).requires_grad_() for i in range(20)]
    for kind in (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.AdamW(p, lr=0.1)):
        optimizer = kind(parameters)
        for p in parameters:
            p.grad = gl.ones_like(p)
        optimizer.step()
        fake_cuda.launches.clear()
        optimizer.step()
        assert len(fake_cuda.launches) == 1


def test_the_kernels_in_use_are_listed():
    from gradlab.ops.core import kernels_table

    listed = {(row["device"], row["op"]) for row in kernels_table()}
    assert {("cuda", op) for op in ("matmul", "softmax", "sum", "dropout")} <= listed
