"""The layers: what they compute, what they are made with, and what they refuse."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn, optim
from gradlab.errors import AxisError, DTypeError, OptionError, ShapeError, StateError
from refusals import refuses


def numbers(*shape: int, seed: int = 0) -> gl.Tensor:
    return gl.tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))


# ------------------------------------------------------------------------------------ Linear


def test_linear():
    layer = nn.Linear(3, 2)
    x = numbers(4, 5, 3)
    y = layer(x)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    np.testing.assert_allclose(y.detach().numpy(), x.numpy() @ weight.T + bias, rtol=1e-5)
    assert layer(numbers(3)).shape == (2,)
    plain = nn.Linear(3, 2, bias=False)
    assert plain.bias is None
    assert list(plain.state_dict()) == ["weight"]
    assert plain(x).shape == (4, 5, 2)
    assert nn.Linear(0, 2)(gl.ones(5, 0)).shape == (5, 2)
    assert nn.Linear(3, 2, dtype="float64")(numbers(1, 3).double()).dtype == gl.float64


def test_linear_starts_within_its_bound():
    gl.manual_seed(0)
    layer = nn.Linear(400, 300)
    for values in (layer.weight, layer.bias):
        assert abs(values.detach().numpy()).max() <= 1 / math.sqrt(400)
    assert layer.weight.detach().numpy().std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.01)
    before = layer.weight.tolist()
    layer.reset_parameters()
    assert layer.weight.tolist() != before
    gl.manual_seed(0)
    assert nn.Linear(400, 300).weight.tolist() == before


def test_linear_refuses():
    layer = nn.Linear(784, 256)
    expected = "Linear(784 -> 256): expected an input whose last size is 784, got shape "
    with refuses(ShapeError, expected + "(32, 100)"):
        layer(numbers(32, 100))
    with refuses(ShapeError, expected + "(2, 28, 28); put nn.Flatten() before it"):
        layer(numbers(2, 28, 28))
    with refuses(ShapeError, expected + "()"):
        layer(gl.tensor(1.0))
    with refuses(OptionError, "Linear: expected in_features as an integer of 0 or more, got 2.5"):
        nn.Linear(2.5, 3)
    with refuses(OptionError, "Linear: expected out_features as an integer of 0 or more, got -1"):
        nn.Linear(2, -1)
    with refuses(OptionError, "got True"):
        nn.Linear(True, 3)


def test_identity():
    x = numbers(3)
    assert nn.Identity(54, unused=True)(x) is x


# -------------------------------------------------------------------------------- LazyLinear


def test_lazy_linear_becomes_linear():
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2, bias=False))
    weight = net[0].weight
    assert repr(net[0]) == "LazyLinear(in_features=0, out_features=8, bias=True)"
    assert net(numbers(5, 20)).shape == (5, 2)
    assert type(net[0]) is nn.Linear
    assert repr(net[0]) == "Linear(in_features=20, out_features=8, bias=True)"
    assert net[0].weight is weight
    assert type(weight) is nn.Parameter
    assert (net[0].weight.shape, net[2].weight.shape) == ((8, 20), (2, 8))
    assert abs(weight.detach().numpy()).max() <= 1 / math.sqrt(20)
    net(numbers(5, 20)).sum().backward()
    assert weight.grad.shape == (8, 20)


def test_lazy_layers_let_the_values_of_all_layers_be_set():
    net = nn.LazyLinear(1)
    net.weight.data.normal_(0, 0.01)
    net.bias.data.fill_(0)
    assert net(gl.ones(2, 4)).shape == (2, 1)


def test_a_lazy_layer_draws_as_a_plain_one():
    gl.manual_seed(3)
    plain = nn.Linear(5, 4)
    gl.manual_seed(3)
    lazy = nn.LazyLinear(4)
    lazy(numbers(1, 5))
    assert lazy.weight.dtype == gl.float32
    assert lazy.weight.tolist() == plain.weight.tolist()
    assert lazy.bias.tolist() == plain.bias.tolist()


def test_what_has_to_wait_for_the_first_forward():
    net = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(8))
    with refuses(StateError, "state_dict: LazyLinear has no weight before its first forward; run"):
        net.state_dict()
    with refuses(StateError, "no shape and no values before the layer's first forward"):
        sum(p.numel() for p in net.parameters())
    with refuses(ShapeError, "LazyLinear(? -> 8): expected an input with at least one axis, got "):
        net[1](gl.tensor(1.0))
    lazy = list(net[1].parameters())
    with refuses(OptionError, "SGD: expected each parameter once, got <UninitializedParameter> ag"):
        optim.SGD([*lazy, lazy[0]], lr=0.1)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_an_optimizer_made_before_the_first_forward(make):
    gl.manual_seed(0)
    net = nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(1))
    optimizer = make(net.parameters(), lr=0.1)
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}
    net(numbers(4, 2)).sum().backward()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    assert optimizer.param_groups[0]["params"] == list(net.parameters())
    for old, p in zip(before, net.parameters(), strict=True):
        assert (old != p).all()


def test_a_lazy_layer_may_be_cast_copied_and_frozen():
    layer = nn.LazyLinear(2).double()
    layer.requires_grad_(False)
    layer.zero_grad()
    other = copy.deepcopy(layer)
    other(numbers(3, 4).double())
    assert other.weight.dtype == other.bias.dtype == gl.float64
    assert not other.weight.requires_grad
    assert type(layer.weight) is nn.UninitializedParameter


def test_loading_settles_the_width():
    state = {"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2)}
    net = nn.Sequential(nn.LazyLinear(2))
    net.load_state_dict(state)
    assert repr(net[0]) == "Linear(in_features=3, out_features=2, bias=True)"
    assert net(gl.ones(1, 3)).tolist() == [[3.0, 3.0]]

    wrong = nn.Sequential(nn.LazyLinear(5))
    with refuses(
        StateError, "0.weight: expected shape (5, any), got (2, 3); 0.bias: expected shap"
    ):
        wrong.load_state_dict(state)
    assert type(wrong[0]) is nn.LazyLinear

    partly = nn.Sequential(nn.LazyLinear(2))
    partly.load_state_dict({"0.bias": [7.0, 8.0]}, strict=False)
    assert type(partly[0]) is nn.LazyLinear
    partly(numbers(1, 4))
    assert partly[0].bias.tolist() == [7.0, 8.0]

    partly = nn.Sequential(nn.LazyLinear(2))
    partly.load_state_dict({"0.weight": np.ones((2, 3))}, strict=False)
    assert type(partly[0]) is nn.Linear
    assert partly[0].bias.shape == (2,)


# ------------------------------------------------------------------- shape, dropout, embedding


def test_flatten_and_unflatten():
    x = numbers(2, 3, 4, 5)
    assert nn.Flatten()(x).shape == (2, 60)
    assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert nn.Unflatten(1, (3, -1))(nn.Flatten()(x)).shape == (2, 3, 20)
    with refuses(AxisError, "flatten"):
        nn.Flatten(start_dim=5)(x)
    with refuses(OptionError, "Unflatten: expected unflattened_size as an integer of -1 or more"):
        nn.Unflatten(1, (2.0, 3))


def test_dropout():
    layer = nn.Dropout(0.25)
    x = gl.ones(200, 50)
    gl.manual_seed(0)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
    gl.manual_seed(0)
    np.testing.assert_array_equal(layer(x).numpy(), y)
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert nn.Dropout(1.0)(x).numpy().max() == 0
    with refuses(OptionError, "Dropout: expected p from 0 to 1, got 1.5"):
        nn.Dropout(1.5)


def test_dropout_in_place():
    x = gl.ones(100)
    y = nn.Dropout(0.5, inplace=True)(x)
    assert y is x
    assert 0 in x.numpy()
    assert nn.Dropout(0.5, inplace=True).eval()(x) is x
    start = gl.ones(100, requires_grad=True)
    y = nn.Dropout(0.5, inplace=True)(start * 1)
    y.sum().backward()
    assert start.grad.tolist() == y.tolist()


def test_embedding():
    layer = nn.Embedding(10, 3, padding_idx=-1)
    assert layer.padding_idx == 9
    assert layer.weight[9].tolist() == [0.0, 0.0, 0.0]
    x = gl.tensor([[1, 9], [1, 4]])
    y = layer(x)
    np.testing.assert_array_equal(y.detach().numpy(), layer.weight.detach().numpy()[x.numpy()])
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [0, 2, 0, 0, 1, 0, 0, 0, 0, 0])
    assert repr(layer) == "Embedding(10, 3, padding_idx=9)"
    assert nn.Embedding(2000, 50).weight.detach().numpy().std() == pytest.approx(1, rel=0.02)


def test_embedding_from_pretrained():
    table = numbers(5, 2)
    layer = nn.Embedding.from_pretrained(table, padding_idx=1)
    assert not layer.weight.requires_grad
    assert layer.weight.data_ptr() == table.data_ptr()
    assert repr(layer) == "Embedding(5, 2, padding_idx=1)"
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    with refuses(
        ShapeError, "Embedding.from_pretrained: expected a table of 2 axes, got shape (5,)"
    ):
        nn.Embedding.from_pretrained(numbers(5))


def test_embedding_refuses():
    layer = nn.Embedding(10, 3)
    with refuses(AxisError, "10"):
        layer(gl.tensor([3, 10]))
    with refuses(DTypeError, "integer"):
        layer(gl.tensor([1.0]))
    with refuses(OptionError, "Embedding: expected padding_idx from -10 to 9, or None, got 10"):
        nn.Embedding(10, 3, padding_idx=10)


# -------------------------------------------------------------------------------- activations


ACTIVATIONS = {
    nn.ReLU(): lambda x: np.maximum(x, 0),
    nn.LeakyReLU(0.2): lambda x: np.where(x > 0, x, 0.2 * x),
    nn.PReLU(): lambda x: np.where(x > 0, x, 0.25 * x),
    nn.ELU(1.5): lambda x: np.where(x > 0, x, 1.5 * np.expm1(x)),
    nn.SiLU(): lambda x: x / (1 + np.exp(-x)),
    nn.Sigmoid(): lambda x: 1 / (1 + np.exp(-x)),
    nn.Tanh(): np.tanh,
    nn.LogSigmoid(): lambda x: -np.log1p(np.exp(-x)),
    nn.Softplus(2.0): lambda x: np.log1p(np.exp(2 * x)) / 2,
    nn.Softplus(1.0, threshold=0.5): lambda x: np.where(x > 0.5, x, np.log1p(np.exp(x))),
    nn.Softmax(-1): lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    nn.LogSoftmax(0): lambda x: x - np.log(np.exp(x).sum(0)),
}


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activation(layer):
    x = numbers(3, 4)
    y = layer(x).detach().numpy()
    np.testing.assert_allclose(y, ACTIVATIONS[layer](x.numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU], ids=lambda kind: kind.__name__
)
def test_activation_in_place(kind):
    x = numbers(3, 4)
    expected = kind()(x.clone())
    layer = kind(inplace=True)
    assert "inplace=True" in repr(layer)
    assert layer(x) is x
    assert x.tolist() == expected.tolist()

    start = numbers(3, 4).requires_grad_()
    plain = numbers(3, 4).requires_grad_()
    layer(start * 1).sum().backward()
    kind()(plain * 1).sum().backward()
    assert start.grad.tolist() == plain.grad.tolist()


def test_prelu_has_a_weight_for_each_channel():
    layer = nn.PReLU(3)
    layer.load_state_dict({"weight": np.array([0.1, 0.2, 0.3])})
    y = layer(-gl.ones(2, 3, 4)).detach().numpy()
    np.testing.assert_allclose(y[0, :, 0], [-0.1, -0.2, -0.3], rtol=1e-6)
    layer.reset_parameters()
    assert layer.weight.tolist() == [0.25] * 3


def test_activations_refuse():
    with refuses(OptionError, "GELU: expected approximate one of 'none', 'tanh', got 'fast'"):
        nn.GELU("fast")
    with refuses(
        OptionError, "Softmax: expected dim, the axis to go along, got None; for class sc"
    ):
        nn.Softmax()
    with refuses(OptionError, "LogSoftmax: expected dim as an integer"):
        nn.LogSoftmax("rows")
    with refuses(AxisError, "softmax"):
        nn.Softmax(2)(numbers(3, 4))
    with refuses(OptionError, "Softplus: expected beta above 0, got 0"):
        nn.Softplus(0)
    with refuses(OptionError, "PReLU: expected num_parameters as an integer of 1 or more, got 0"):
        nn.PReLU(0)


# ------------------------------------------------------------------------------ normalization


def test_layer_norm():
    layer = nn.LayerNorm((3, 4))
    x = numbers(2, 3, 4) * 3 + 1
    flat = layer(x).detach().numpy().reshape(2, -1)
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(flat.std(1), 1, rtol=1e-4)
    assert layer.weight.shape == layer.bias.shape == (3, 4)
    assert list(nn.LayerNorm(4, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(4, elementwise_affine=False).state_dict()) == []
    with refuses(
        ShapeError, "LayerNorm((3, 4)): expected an input whose last sizes are (3, 4), got"
    ):
        layer(numbers(3, 5))
    with refuses(ShapeError, "LayerNorm(1): expected an input whose last sizes are (1,), got shap"):
        nn.LayerNorm(1)(numbers(3, 5))
    with refuses(ShapeError, "got shape (4,)"):
        layer(numbers(4))


def test_rms_norm():
    layer = nn.RMSNorm(4)
    y = layer(numbers(3, 4) * 5).detach().numpy()
    np.testing.assert_allclose((y * y).mean(1), 1, rtol=1e-4)
    assert list(layer.state_dict()) == ["weight"]
    with refuses(
        ShapeError, "RMSNorm(4): expected an input whose last sizes are (4,), got shape (3,"
    ):
        layer(numbers(3, 5))


def test_resetting_norms():
    for layer in (nn.LayerNorm(3), nn.RMSNorm(3), nn.BatchNorm1d(3)):
        layer.weight.detach().fill_(5.0)
        layer.reset_parameters()
        assert layer.weight.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(64, 3), (16, 3, 4)])
def test_batch_norm_trains_and_evaluates(shape):
    layer = nn.BatchNorm1d(3)
    x = numbers(*shape) * 2 + 5
    axes = tuple(i for i in range(len(shape)) if i != 1)
    y = layer(x).detach().numpy()
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axes), 1, rtol=1e-3)
    mean, var = x.numpy().mean(axes), x.numpy().var(axes, ddof=1)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * var, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1
    assert layer.num_batches_tracked.dtype == gl.int64

    layer.eval()
    before = layer.running_mean.tolist()
    y = layer(x).detach().numpy()
    spread = (1, 3) + (1,) * (len(shape) - 2)
    scale = np.sqrt(layer.running_var.numpy() + 1e-5).reshape(spread)
    expected = (x.numpy() - layer.running_mean.numpy().reshape(spread)) / scale
    np.testing.assert_allclose(y, expected, rtol=1e-4)
    assert layer.running_mean.tolist() == before
    assert layer(x[:1]).shape == x[:1].shape  # one row is fine in evaluation


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0)])
def test_an_empty_batch_changes_no_running_estimate(momentum, shape):
    layers = [nn.BatchNorm1d(3, momentum=momentum) for _ in range(2)]
    layers[0](gl.zeros(*shape)).sum().backward()
    x = gl.randn(8, 3)
    for layer in layers:
        layer(x)
    for name, value in layers[0].state_dict().items():
        assert value.tolist() == layers[1].state_dict()[name].tolist(), name
    assert layers[0].weight.grad.tolist() == [0, 0, 0]


def test_batch_norm_averages_all_batches_without_momentum():
    layer = nn.BatchNorm1d(3, momentum=None)
    batches = [numbers(8, 3, seed=seed) for seed in range(4)]
    for x in batches:
        layer(x)
    expected = np.mean([x.numpy().mean(0) for x in batches], axis=0)
    np.testing.assert_allclose(layer.running_mean.numpy(), expected, atol=1e-6)
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0.0] * 3
    assert layer.num_batches_tracked.item() == 0


def test_batch_norm_without_running_estimates():
    layer = nn.BatchNorm1d(3, track_running_stats=False, affine=False).eval()
    assert list(layer.state_dict()) == []
    y = layer(numbers(50, 3) * 4 + 1).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)


def test_batch_norm_moves_and_saves():
    layer = nn.BatchNorm1d(3).double()
    assert layer.running_mean.dtype == gl.float64
    assert layer.num_batches_tracked.dtype == gl.int64
    assert list(layer.state_dict()) == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    # The weights take part in gradients, the estimates do not.
    layer(numbers(4, 3).double()).sum().backward()
    assert layer.weight.grad is not None
    assert not layer.running_mean.requires_grad
    assert copy.deepcopy(layer).num_batches_tracked.item() == 1


def test_batch_norm_refuses():
    layer = nn.BatchNorm1d(3)
    expected = "BatchNorm1d(3): expected an input of shape (N, 3) or (N, 3, L), got shape "
    for shape in ((5, 4), (3,), (5, 3, 2, 2)):
        with refuses(ShapeError, expected + str(shape)):
            layer(numbers(*shape))
    with refuses(
        ShapeError, "expected more than one value per channel in training, got shape (1, 3"
    ):
        layer(numbers(1, 3))
    assert layer.num_batches_tracked.item() == 0
    assert layer(numbers(1, 3, 2)).shape == (1, 3, 2)
