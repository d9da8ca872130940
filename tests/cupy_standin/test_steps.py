"""What a training step asks of the GPU: kernels launched, and no wait, counted by the driver.

A launch takes the host some microseconds, however little its kernel does, and a small step is made
of little else. Where a number falls, write the lower one down.
"""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from cupy_standin import install
from gradlab import nn, optim
from gradlab.autograd import grad
from gradlab.nn import functional as F

install.required()

NETWORKS = {
    "784-256-10": lambda: nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)),
    "784-1024-1024-10": lambda: nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    ),
    "with batch norm and dropout": lambda: nn.Sequential(
        nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)
    ),
}
OPTIMIZERS = {
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: optim.Adam(parameters),
}
LAUNCHES = {
    ("784-256-10", "SGD"): 18,
    ("784-256-10", "Adam"): 18,
    ("784-1024-1024-10", "Adam"): 28,
    ("with batch norm and dropout", "Adam"): 64,
}


@pytest.mark.parametrize(("network", "optimizer"), LAUNCHES)
def test_a_training_step(network, optimizer, standin):
    device = gl.device("cuda")
    model = NETWORKS[network]().to(device)
    made = OPTIMIZERS[optimizer](model.parameters())
    x = gl.tensor(np.ones((256, 784), np.float32), device=device)
    labels = gl.tensor(np.arange(256) % 10, device=device)

    def step():
        made.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        made.step()

    step()  # the first makes the optimizer's states
    for _ in range(2):
        counts, kernels = standin.during(step)
        assert counts["launches"] == LAUNCHES[network, optimizer], "\n".join(kernels)
        assert counts["waits"] == counts["copies_to_host"] == counts["copies_to_device"] == 0


# Forward, and backward: where it is more than one, CuPy launches a kernel for each NumPy call.
OPS = {
    "relu": (F.relu, 1, 2),
    "gelu": (F.gelu, 5, 11),
    "silu": (F.silu, 4, 13),
    "sigmoid": (F.sigmoid, 4, 3),
    "tanh": (F.tanh, 1, 3),
    "softplus": (F.softplus, 3, 6),
    "mish": (F.mish, 5, 12),
    "hardswish": (F.hardswish, 9, 5),
    "relu6": (F.relu6, 6, 1),
    "softmax": (lambda x: F.softmax(x, 1), 1, 1),
    "log_softmax": (lambda x: F.log_softmax(x, 1), 1, 1),
    "dropout": (lambda x: F.dropout(x, 0.5), 1, 1),
    "layer_norm": (lambda x: F.layer_norm(x, (256,)), 1, 1),
    "normalize": (F.normalize, 3, 16),
    "mse_loss": (lambda x: F.mse_loss(x, x.detach()), 6, 2),
    "smooth_l1_loss": (lambda x: F.smooth_l1_loss(x, x.detach()), 8, 5),
    "binary_cross_entropy_with_logits": (
        lambda x: F.binary_cross_entropy_with_logits(x, x.detach()), 12, 7,
    ),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), 8, 15),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_launches_of_an_op(name, standin):
    function, forward, backward = OPS[name]
    x = gl.tensor(np.ones((64, 256), np.float32), device="cuda", requires_grad=True)
    results = []
    counts, kernels = standin.during(lambda: results.append(function(x)))
    assert counts["launches"] == forward, "\n".join(kernels)
    starts = [gl.ones_like(results[0])]
    counts, kernels = standin.during(lambda: grad(results, [x], starts))
    assert counts["launches"] == backward, "\n".join(kernels)
