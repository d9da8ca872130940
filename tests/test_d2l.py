"""Programs written against `gradlab.d2l` and ``import gradlab as torch``, on CPU and CUDA."""

from __future__ import annotations

import contextlib
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradlab as torch
from gradlab import d2l, nn
from gradlab.errors import DataError, MissingDependencyError, OptionError, ShapeError
from gradlab.nn import functional as F
from gradlab.testing import assert_close


def quiet(max_epochs, **options):
    return d2l.Trainer(max_epochs, enable_progress_bar=False, **options)


def both(program):
    """What a program gives on the CPU and on CUDA is the same; what it gives on the CPU."""
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        found.append([x.detach().cpu() for x in program(torch.device(device))])
    assert len(found[0]) == len(found[1]) > 0
    for here, there in zip(*found, strict=True):
        assert_close(there, here, rtol=1e-4, atol=1e-6)  # sums are added up in another order
    return found[0]


# ----------------------------------------------------------------------------------- the names


def test_every_name_is_there_and_nothing_else_is_promised():
    assert len(set(d2l.__all__)) == len(d2l.__all__)
    for name in d2l.__all__:
        assert getattr(d2l, name) is not None
    assert set(dir(d2l)) == {*d2l.__all__, "plt"}
    asked = (
        "add_to_class HyperParameters ProgressBoard Module DataModule Trainer Classifier SGD "
        "LinearRegression LinearRegressionScratch SoftmaxRegression SoftmaxRegressionScratch MLP "
        "MLPScratch SyntheticRegressionData FashionMNIST plot plt set_figsize set_axes show_images "
        "use_svg_display cpu gpu num_gpus try_gpu try_all_gpus accuracy Timer Accumulator"
    )
    assert set(asked.split()) <= set(dir(d2l))
    with pytest.raises(AttributeError, match=r"module 'gradlab\.d2l' has no attribute 'Conv9d'"):
        d2l.Conv9d  # noqa: B018


def test_it_is_imported_without_matplotlib():
    code = (
        "import sys; from gradlab import d2l; "
        "print([m for m in ('matplotlib', 'pandas', 'IPython', 'pooch', 'torch') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert d2l.plt is sys.modules["matplotlib.pyplot"]


def test_without_matplotlib_plt_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "matplotlib>='):
        d2l.plt  # noqa: B018


def test_every_class_and_function_has_a_docstring():
    assert [
        n for n in d2l.__all__ if callable(getattr(d2l, n)) and not getattr(d2l, n).__doc__
    ] == []


def test_aliases_of_tensor_functions():
    x = d2l.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    assert d2l.size(x) == 6
    assert d2l.numpy(x).tolist() == x.tolist()
    assert d2l.reduce_sum(x, 0).tolist() == [5, 7, 9]
    assert d2l.reduce_sum(x, 1, keepdims=True).shape == (2, 1)
    assert d2l.reduce_mean(x).item() == 3.5
    assert d2l.reduce_mean(x, axis=1).tolist() == [2, 5]
    assert d2l.argmax(x, axis=1).tolist() == [2, 2]
    assert d2l.astype(x, d2l.int32).dtype == torch.int32
    assert d2l.transpose(x).shape == (3, 2)
    assert d2l.expand_dims(x, 1).shape == (2, 1, 3)
    assert d2l.swapaxes(x, 0, 1).shape == (3, 2)
    assert d2l.repeat(x, 2, 1).shape == (4, 3)
    assert d2l.reshape(x, (3, 2)).shape == d2l.reshape(x, 3, 2).shape == (3, 2)
    assert d2l.to(x, d2l.float64).dtype == torch.float64
    assert d2l.to(x, d2l.cpu()) is x
    assert d2l.concat([x, x], 1).shape == (2, 6)
    assert d2l.stack([x, x]).shape == (2, 2, 3)
    assert d2l.batch_matmul(d2l.ones(2, 3, 4), d2l.ones(2, 4, 5)).shape == (2, 3, 5)
    assert d2l.matmul(x, d2l.ones(3, 1)).tolist() == [[6], [15]]
    assert d2l.nn_Module is nn.Module
    assert [d2l.float64, d2l.int64] == [torch.float64, torch.int64]


def test_functions_of_numbers():
    x = d2l.linspace(-1, 1, 5)
    for name in ("sin", "cos", "sinh", "cosh", "tanh", "exp", "abs", "sigmoid"):
        ours = getattr(d2l, name)(x)
        expected = 1 / (1 + np.exp(-x.numpy())) if name == "sigmoid" else getattr(np, name)(x)
        assert np.allclose(ours, expected)
    assert d2l.log(d2l.exp(x)).allclose(x, atol=1e-6)
    assert d2l.arange(3).tolist() == [0, 1, 2]
    assert d2l.eye(2).tolist() == [[1, 0], [0, 1]]
    assert d2l.ones_like(x).sum().item() + d2l.zeros_like(x).sum().item() + d2l.zeros(2)[0] == 5
    assert d2l.normal(0, 1, (2, 3)).shape == d2l.rand(2, 3).shape == d2l.randn(2, 3).shape
    rows, columns = d2l.meshgrid(d2l.arange(2), d2l.arange(3), indexing="ij")
    assert rows.shape == columns.shape == (2, 3)


# --------------------------------------------------------------------------- linear regression

W, B = [2.0, -3.4], 4.2


def regression_errors(model, data):
    w, b = model.get_w_b()
    w, b = w.cpu().reshape(-1), b.cpu()
    return [data.w.reshape(-1) - w, data.b - b]


@pytest.mark.parametrize(
    "make", [lambda: d2l.LinearRegressionScratch(2, lr=0.03), lambda: d2l.LinearRegression(lr=0.03)]
)
def test_linear_regression_finds_the_weights(make, fake_cuda):
    def program(device):
        model, data = make(), d2l.SyntheticRegressionData(w=d2l.tensor(W), b=B)
        history = quiet(3, device=device).fit(model, data)
        assert history["val_loss"][-1] < history["val_loss"][0]
        assert next(model.parameters()).device == device
        return regression_errors(model, data)

    for error in both(program):
        assert error.abs().max().item() < 0.3


def test_the_same_regression_by_a_loop_written_by_hand(fake_cuda):
    def program(device):
        true_w = torch.tensor(W)
        features, labels = (x.to(device) for x in d2l.synthetic_data(true_w, B, 1000))
        w = torch.normal(0, 0.01, size=(2, 1), requires_grad=True, device=device)
        b = torch.zeros(1, requires_grad=True, device=device)
        for _ in range(3):
            for X, y in d2l.load_array((features, labels), 10):
                d2l.squared_loss(d2l.linreg(X, w, b), y).sum().backward()
                d2l.sgd([w, b], lr=0.03, batch_size=len(X))
        batches = d2l.load_array((features, labels), 64, is_train=False)
        assert d2l.evaluate_loss(lambda X: d2l.linreg(X, w, b), batches, d2l.squared_loss) < 1e-3
        return [w, b]

    w, b = both(program)
    assert np.allclose(w.reshape(-1), W, atol=0.05)
    assert np.allclose(b, B, atol=0.05)


def test_sgd_needs_gradients():
    with pytest.raises(OptionError) as caught:
        d2l.sgd([torch.ones(2, requires_grad=True)], lr=0.1, batch_size=1)
    assert str(caught.value) == (
        "sgd: expected a gradient, got none; call backward() on a loss that depends on it"
    )


def test_sgd_agrees_with_the_analytic_solution():
    torch.manual_seed(0)
    X, y = d2l.synthetic_data(W, B, 500)
    A = torch.cat((X, torch.ones(500, 1)), dim=1)
    exact = torch.linalg.solve(A.T @ A, A.T @ y)
    assert torch.linalg.inv(A.T @ A).matmul(A.T @ y).allclose(exact, atol=1e-4)
    model = d2l.LinearRegressionScratch(2, lr=0.05)
    quiet(20).fit(model, d2l.load_array((X, y), 50))
    assert torch.cat((model.w, model.b.reshape(1, 1))).allclose(exact, atol=0.01)


def test_the_loader_written_by_hand_gives_what_the_loader_gives():
    data = d2l.SyntheticRegressionData(W, B, noise=0, num_train=70, num_val=33, batch_size=32)
    assert (data.X.shape, data.y.shape, data.w.tolist()) == (
        (103, 2),
        (103, 1),
        d2l.tensor(W).tolist(),
    )
    assert data.y.allclose(data.X @ data.w.reshape(-1, 1) + B)
    for train in (True, False):
        by_hand, batches = list(data.read_batches(train)), list(data.get_dataloader(train))
        assert [len(X) for X, _ in by_hand] == [len(X) for X, _ in batches]
        joined = [torch.cat([X for X, _ in each]).tolist() for each in (by_hand, batches)]
        assert sorted(joined[0]) == sorted(joined[1])
        assert (joined[0] == joined[1]) is not train
    assert [len(data.train_dataloader()), len(data.val_dataloader())] == [3, 2]


@pytest.mark.parametrize(
    ("options", "got"), [({"num_train": 0}, "an integer num_train of 1 or more, got 0"),
                         ({"num_train": True}, "an integer num_train of 1 or more, got True"),
                         ({"num_val": -1}, "an integer num_val of 0 or more, got -1")]
)  # fmt: skip
def test_what_synthetic_data_refuse(options, got):
    with pytest.raises(OptionError) as caught:
        d2l.SyntheticRegressionData(W, B, **options)
    assert str(caught.value) == f"SyntheticRegressionData: expected {got}"


def test_synthetic_data_without_validation():
    data = d2l.SyntheticRegressionData(W, B, num_train=64, num_val=0)
    assert data.val_dataloader() is None
    assert list(quiet(1).fit(d2l.LinearRegression(lr=0.03), data).last()) == [
        "epoch", "step", "train_loss",
    ]  # fmt: skip


def test_synthetic_data_of_parameters_have_no_history():
    w, b = torch.tensor(W, requires_grad=True), torch.tensor(B, requires_grad=True)
    assert not d2l.SyntheticRegressionData(w, b, num_train=4, num_val=4).y.requires_grad


def test_no_data_to_evaluate_on():
    net = torch.nn.Linear(2, 1)
    for evaluate, rest in ((d2l.evaluate_accuracy, ()), (d2l.evaluate_loss, (d2l.squared_loss,))):
        with pytest.raises(DataError) as caught:
            evaluate(net, [], *rest)
        assert str(caught.value) == f"{evaluate.__name__}: expected batches of data, got none"


def test_the_accuracy_of_a_plain_function_is_taken_where_its_batches_are(fake_cuda):
    scores, batches = torch.eye(3, device="cuda"), [(torch.eye(3), torch.tensor([0, 1, 1]))]
    on_cuda = [(X.to("cuda"), y.to("cuda")) for X, y in batches]
    assert d2l.evaluate_accuracy(lambda X: X @ scores, on_cuda) == pytest.approx(2 / 3)
    assert d2l.evaluate_accuracy(lambda X: X @ scores, batches, "cuda") == pytest.approx(2 / 3)


class WeightDecay(d2l.LinearRegression):
    """With a penalty on the weights, none on the bias."""

    def __init__(self, wd, lr):
        super().__init__(lr)
        self.save_hyperparameters()

    def configure_optimizers(self):
        groups = [{"params": self.net.weight, "weight_decay": self.wd}, {"params": self.net.bias}]
        return torch.optim.SGD(groups, lr=self.lr)


class WeightDecayScratch(d2l.LinearRegressionScratch):
    def __init__(self, num_inputs, lambd, lr, sigma=0.01):
        super().__init__(num_inputs, lr, sigma)
        self.save_hyperparameters()

    def loss(self, y_hat, y):
        return super().loss(y_hat, y) + self.lambd * d2l.reduce_sum(self.w**2) / 2


def test_weight_decay_as_a_group_and_as_a_penalty(fake_cuda):
    def program(device):
        norms = []
        data = d2l.SyntheticRegressionData(
            [0.0] * 40, 0.05, noise=1, num_train=20, num_val=40, batch_size=5
        )
        for make in (WeightDecay, lambda wd, lr: WeightDecayScratch(40, wd, lr)):
            for wd in (0, 3):
                model = make(wd, lr=0.01)
                model.board.yscale = "log"
                quiet(10, device=device).fit(model, data)
                norms.append(model.get_w_b()[0].square().sum())
        return norms

    without, with_decay, scratch_without, scratch_with = map(float, both(program))
    assert with_decay < without / 2
    assert scratch_with < scratch_without / 2


# --------------------------------------------------------------------------------- classifiers


class Digits(d2l.DataModule):
    """Handwritten digits, 8 × 8, in place of pictures that would have to be downloaded."""

    def __init__(self, batch_size=64, num_train=None):
        super().__init__()
        self.save_hyperparameters()
        pytest.importorskip("sklearn")

    def get_dataloader(self, train):
        images, labels = torch.data.load_digits("train" if train else "test")
        rows = slice(0, self.num_train if train else None)
        return self.get_tensorloader((images.reshape(-1, 1, 8, 8), labels), train, rows)


class DropoutMLP(d2l.Classifier):
    def __init__(self, num_outputs, num_hiddens, dropout, lr):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(num_hiddens), nn.ReLU(),
            nn.Dropout(dropout), nn.LazyLinear(num_outputs),
        )  # fmt: skip


def dropout_layer(X, dropout):
    if dropout == 1:
        return torch.zeros_like(X)
    mask = (torch.rand(X.shape, device=X.device) > dropout).float()
    return mask * X / (1.0 - dropout)


class DropoutMLPScratch(d2l.Classifier):
    def __init__(self, num_outputs, num_hiddens, dropout, lr):
        super().__init__()
        self.save_hyperparameters()
        self.lin1, self.lin2 = nn.LazyLinear(num_hiddens), nn.LazyLinear(num_outputs)
        self.relu = nn.ReLU()

    def forward(self, X):
        H = self.relu(self.lin1(X.reshape((X.shape[0], -1))))
        return self.lin2(dropout_layer(H, self.dropout) if self.training else H)


# What each model is made with, and the accuracy that it surpasses in so many epochs.
CLASSIFIERS = {
    "SoftmaxRegressionScratch": (lambda: d2l.SoftmaxRegressionScratch(64, 10, lr=0.5), 0.9),
    "SoftmaxRegression": (lambda: d2l.SoftmaxRegression(num_outputs=10, lr=0.5), 0.9),
    "MLPScratch": (lambda: d2l.MLPScratch(64, 10, num_hiddens=32, lr=0.5, sigma=0.1), 0.9),
    "MLP": (lambda: d2l.MLP(num_outputs=10, num_hiddens=32, lr=0.5), 0.9),
    "DropoutMLP": (lambda: DropoutMLP(10, 64, dropout=0.2, lr=0.5), 0.9),
    "DropoutMLPScratch": (lambda: DropoutMLPScratch(10, 64, dropout=0.2, lr=0.5), 0.9),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_learn_the_digits(name):
    make, least = CLASSIFIERS[name]
    torch.manual_seed(0)
    model, data = make(), Digits()
    history = quiet(15).fit(model, data)
    assert history["val_acc"][-1] > least
    X, y = next(iter(data.val_dataloader()))
    model.eval()
    predictions = d2l.argmax(model(X), axis=1)
    assert d2l.accuracy(model(X), y) == (predictions == y).sum().item()
    everything = d2l.evaluate_accuracy(model, data.val_dataloader())
    assert everything == pytest.approx(history["val_acc"][-1])
    assert not model.training
    assert len(model.board.data["train_loss"]) >= 15 * model.plot_train_per_epoch
    assert len(model.board.data["val_acc"]) == 15


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_learn_the_same_on_cuda(name, fake_cuda):
    def program(device):
        model = CLASSIFIERS[name][0]()
        quiet(2, device=device).fit(model, Digits(num_train=192))
        return list(model.parameters())

    both(program)


def test_softmax_from_scratch_stands_large_logits():
    model = d2l.SoftmaxRegressionScratch(2, 2, lr=0.1)
    with torch.no_grad():
        model.W[:] = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    X, y = torch.eye(2), torch.tensor([1, 1])
    y_hat = model(X)
    assert y_hat.tolist() == [[1, 0], [0, 1]]
    losses = model.loss(y_hat, y, averaged=False)
    assert losses.tolist() == pytest.approx([-math.log(np.finfo(np.float32).tiny), 0])
    model.loss(y_hat, y).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with_logits = d2l.SoftmaxRegression(2, lr=0.1)
    assert with_logits.loss(1e4 * torch.tensor([[1.0, -1.0]]), torch.tensor([1])).item() == 2e4


def test_parameters_of_models_from_scratch_are_parameters():
    model = d2l.LinearRegressionScratch(2, lr=0.1)
    assert [name for name, _ in model.named_parameters()] == ["w", "b"]
    assert model.w.is_leaf
    copy = d2l.LinearRegressionScratch(2, lr=0.1)
    copy.load_state_dict(model.state_dict())
    assert copy.w.tolist() == model.w.tolist()
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, d2l.SGD)
    optimizer.load_state_dict({"lr": 0.5})
    model.w.grad = torch.ones(2, 1)
    optimizer.step()
    assert model.w.allclose(copy.w - 0.5)
    optimizer.zero_grad()
    assert model.w.grad.tolist() == [[0], [0]]


def test_a_target_of_one_axis_is_a_column():
    model = d2l.LinearRegressionScratch(2, lr=0.1)
    y_hat = torch.tensor([[1.0], [2.0]])
    assert model.loss(y_hat, torch.tensor([1.0, 4.0])).item() == 1
    with pytest.raises(ShapeError):
        model.loss(y_hat, torch.ones(3))


# ------------------------------------------------------------------------------------ pictures


@pytest.fixture
def clothes(tmp_path):
    """A few pictures in the files of Fashion-MNIST: those of label k are k rows of white."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, size in (("train", 100), ("t10k", 30)):
        labels = np.arange(size, dtype=np.uint8) % 10
        pictures = np.zeros((size, 28, 28), np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            picture[: 2 * label] = 255
        torch.data.write_idx(folder / f"{part}-images-idx3-ubyte", pictures)
        torch.data.write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return tmp_path


def test_fashion_mnist(clothes):
    data = d2l.FashionMNIST(batch_size=16, root=clothes)
    assert (len(data.train), len(data.val), data.batch_size) == (100, 30, 16)
    assert data.train[0][0].shape == (1, 28, 28)
    X, y = next(iter(data.val_dataloader()))
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((16, 1, 28, 28), "float32", (16,), "int64")
    assert y.tolist() == [i % 10 for i in range(16)]
    assert X.amax().item() == 1
    assert data.text_labels(y[:3]) == ["t-shirt", "trouser", "pullover"]
    orders = [torch.cat([y for _, y in data.train_dataloader()]).tolist() for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(data.train.targets.tolist())
    assert "100 images in" in str(data.train.reading_speed())
    assert d2l.FashionMNIST(resize=(14, 14), root=clothes).val[3][0].shape == (1, 14, 14)
    train, test = d2l.load_data_fashion_mnist(8, root=clothes)
    assert (len(train), len(test)) == (13, 4)
    assert d2l.get_fashion_mnist_labels(next(iter(test))[1])[:2] == ["t-shirt", "trouser"]


def test_fashion_mnist_is_shown(clothes):
    data = d2l.FashionMNIST(batch_size=16, root=clothes)
    try:
        assert data.visualize(next(iter(data.val_dataloader())), nrows=2, ncols=4) is None
        titles = [axes.get_title() for axes in d2l.plt.gcf().axes]
        assert titles == data.text_labels(range(8))
        X, y = next(iter(data.val_dataloader()))
        data.visualize([X[:3], y[:3]], labels=["a", "b", "c"])
        assert [axes.get_title() for axes in d2l.plt.gcf().axes][:3] == ["a", "b", "c"]
    finally:
        d2l.plt.close("all")


def test_a_classifier_of_fashion_mnist(clothes, fake_cuda):
    def program(device):
        model = d2l.MLP(num_outputs=10, num_hiddens=16, lr=0.1)
        data = d2l.FashionMNIST(batch_size=50, root=clothes)
        history = quiet(2, device=device).fit(model, data)
        assert history["train_loss"][-1] < history["train_loss"][0]
        return list(model.parameters())

    both(program)


# ---------------------------------------------------------------- layers, parameters, placement


class CenteredLayer(nn.Module):
    def forward(self, X):
        return X - X.mean()


class MyLinear(nn.Module):
    def __init__(self, in_units, units):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_units, units))
        self.bias = nn.Parameter(torch.randn(units))

    def forward(self, X):
        return F.relu(torch.matmul(X, self.weight.data) + self.bias.data)


class MySequential(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)

    def forward(self, X):
        for layer in self.children():
            X = layer(X)
        return X


class FixedHidden(nn.Module):
    """A layer used twice around weights that are not trained, with control flow."""

    def __init__(self):
        super().__init__()
        self.rand_weight = torch.rand((4, 4))
        self.linear = nn.LazyLinear(4)

    def forward(self, X):
        X = F.relu(self.linear(X) @ self.rand_weight.to(X.device) + 1)
        X = self.linear(X)
        while X.abs().sum() > 1:
            X /= 2
        return X.sum()


def test_layers_of_ones_own(fake_cuda):
    def program(device):
        X = torch.rand(2, 4).to(device)
        net = MySequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(4), CenteredLayer())
        net.to(device=device)
        Y = net(X)
        assert abs(Y.mean().item()) < 1e-6
        assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]
        fixed, mine = FixedHidden().to(device), MyLinear(4, 3).to(device)
        loss = fixed(Y)
        loss.backward()
        assert mine(X).shape == (2, 3)
        assert abs(loss.item()) <= 1
        return [Y, loss, mine(X), *(p.grad for p in net.parameters()), fixed.linear.weight.grad]

    both(program)


def test_parameters_are_reached_shared_and_set(fake_cuda):
    def program(device):
        shared = nn.LazyLinear(8)
        net = nn.Sequential(
            nn.LazyLinear(8), nn.ReLU(), shared, nn.ReLU(), shared, nn.LazyLinear(1)
        )
        net.to(device)
        X = torch.rand(size=(2, 4), device=device)
        net(X)
        assert net[2].weight.grad is None
        assert type(net[2].bias) is nn.Parameter
        names = [name for name, _ in net.named_parameters()]
        assert names == ["0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias"]
        net[2].weight.data[0, 0] = 100
        assert (net[2].weight.data[0] == net[4].weight.data[0]).all()
        net[2].bias.data[0] = 3
        assert net[4].bias[0].item() == 3
        net(X).sum().backward()
        return [net[2].weight.grad, net[0].weight.data[0], net[2].bias.data]

    both(program)


def test_parameters_are_initialised(fake_cuda):
    def program(device):
        net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)).to(device)
        net(torch.rand(2, 4, device=device))
        found = []
        for set_weight in (
            lambda w: nn.init.normal_(w, mean=0, std=0.01),
            lambda w: nn.init.constant_(w, 1),
            nn.init.xavier_uniform_,
            nn.init.kaiming_normal_,
            nn.init.ones_,
            lambda w: nn.init.uniform_(w, -10, 10),
        ):

            def init(module, set_weight=set_weight):
                if type(module) is nn.Linear:
                    set_weight(module.weight)
                    nn.init.zeros_(module.bias)

            net.apply(init)
            found += [net[0].weight.data.clone(), net[0].bias.data.clone()]
        net[0].weight.data *= net[0].weight.data.abs() >= 5
        net[0].weight.data[:] += 1
        net[0].weight.data[0, 0] = 42
        return [*found, net[0].weight.data, net[2].state_dict()["weight"]]

    found = both(program)
    assert found[-2][0, 0].item() == 42
    kept = found[-2] - 1
    assert ((kept == 0) | (kept.abs() >= 5)).all()


def test_saving_and_loading(tmp_path, monkeypatch, fake_cuda):
    monkeypatch.chdir(tmp_path)

    def program(device):
        x, y = torch.arange(4), torch.zeros(4, device=device)
        torch.save([x, {"y": y}], "values")
        x2, named = torch.load("values")
        assert x2.tolist() == x.tolist()
        assert named["y"].tolist() == [0] * 4
        net = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)).to(device)
        X = torch.randn(size=(2, 3), device=device)
        Y = net(X)
        torch.save(net.state_dict(), "net.params")
        clone = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)).to(device)
        clone.load_state_dict(torch.load("net.params", map_location=device, weights_only=True))
        assert (clone.eval()(X) == Y).all()
        return [Y]

    both(program)


def test_placement_on_two_gpus(fake_cuda):
    assert [d2l.try_gpu(), d2l.try_gpu(10), d2l.num_gpus()] == [d2l.gpu(0), d2l.cpu(), 2]
    assert d2l.try_all_gpus() == [torch.device("cuda", 0), torch.device("cuda:1")]
    X = torch.ones(2, 3, device=d2l.try_gpu())
    Y = torch.rand(2, 3, device=d2l.try_gpu(1))
    Z = X.cuda(1)
    assert (Y + Z).device == d2l.gpu(1)
    assert Z.cuda(1) is Z
    net = nn.Sequential(nn.LazyLinear(1)).to(device=d2l.try_gpu())
    assert net(X).shape == (2, 1)
    assert net[0].weight.data.device == d2l.gpu()
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 2


def test_num_gpus_trains_on_the_gpu(fake_cuda):
    weights = []
    for options in ({"num_gpus": 1}, {"device": "cuda"}):
        torch.manual_seed(0)
        model, data = d2l.LinearRegression(lr=0.03), d2l.SyntheticRegressionData(W, B)
        trainer = quiet(1, **options)
        trainer.fit(model, data)
        weights.append(model.get_w_b()[0])
    assert weights[0].device == d2l.gpu()
    assert weights[0].tolist() == weights[1].tolist()


# ------------------------------------------------------------- what a user of PyTorch also does


def test_small_things_of_pytorch():
    x = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    assert torch.max(x, torch.zeros_like(x)).tolist() == [[1, 0], [3, 0]]
    values, indices = torch.max(x, dim=1)
    assert (values.tolist(), indices.tolist()) == ([1, 3], [0, 0])
    assert x.type(torch.int64).dtype == "int64"
    assert (x > 0).float().dtype == x.double().float().dtype == "float32"
    assert x.t().tolist() == x.T.tolist()
    assert torch.normal(0, 1, size=(4, 4)).shape == torch.rand(size=(4, 4)).shape
    assert torch.normal(torch.zeros(3), torch.ones(3)).shape == (3,)
    x.grad = torch.ones(2, 2)
    x.grad.data.zero_()
    assert x.grad.sum().item() == 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        help(torch.ones)
    assert "Make a tensor of ones" in printed.getvalue()
    assert {"Normal", "Categorical"} <= set(dir(torch.distributions))
    assert {"DataLoader", "TensorDataset", "Dataset"} <= set(dir(torch.utils.data))
    assert torch.utils.data.DataLoader is torch.data.DataLoader


def test_a_loop_with_a_condition(fake_cuda):
    def program(device):
        a = torch.randn(size=(), requires_grad=True, device=device)
        b = a * 2
        while b.norm() < 1000:
            b = b * 2
        d = b if b.sum() > 0 else 100 * b
        d.backward()
        assert (a.grad == d / a).item()
        return [a.grad]

    both(program)


def test_methods_added_to_a_class_and_kept_arguments():
    class Model(d2l.HyperParameters):
        def __init__(self, a, b, c):
            self.save_hyperparameters(ignore=["c"])

    model = Model(1, 2, c=3)

    @d2l.add_to_class(Model)
    def total(self):
        return self.a + self.b

    assert model.total() == 3
    assert not hasattr(model, "c")


def test_times_and_sums():
    timer, sums = d2l.Timer(), d2l.Accumulator(2)
    sums.add(d2l.accuracy(torch.eye(3), torch.tensor([0, 1, 1])), 3)
    assert timer.stop() >= 0
    assert sums[0] / sums[1] == 2 / 3


def test_plots(tmp_path):
    x = torch.arange(-8.0, 8.0, 0.1, requires_grad=True)
    y = torch.relu(x)
    y.backward(torch.ones_like(x), retain_graph=True)
    try:
        d2l.set_figsize((5, 2.5))
        d2l.use_svg_display()
        d2l.plot(x.detach(), [y.detach(), x.grad], "x", "relu", legend=["relu", "gradient"])
        axes = d2l.plt.gca()
        assert len(axes.lines) == 2
        d2l.set_axes(axes, "x", "y", [0, 1], [0, 2], "linear", "linear", ["a", "b"])
        assert (axes.get_xlabel(), axes.get_ylim()) == ("x", (0, 2))
        assert d2l.show_images(torch.zeros(4, 8, 8), 2, 2).shape == (4,)
    finally:
        d2l.plt.close("all")
    board = d2l.ProgressBoard("x")
    for i in range(20):
        board.draw(i, math.sin(i), "sin", every_n=2)
    assert len(board.data["sin"]) == 10
    board.save(tmp_path / "sin.svg")
    assert Path(tmp_path / "sin.svg").stat().st_size > 1000


def test_downloads_and_archives_are_those_of_data():
    assert d2l.download is torch.data.download
    assert d2l.extract is torch.data.extract
    assert d2l.DATA_URL.startswith("http")


def test_a_model_is_printed_as_the_notes_print_it():
    model = d2l.LinearRegression(lr=0.1)
    layer = "(net): {}(in_features={}, out_features=1, bias=True)"
    assert layer.format("LazyLinear", 0) in repr(model)
    model(torch.ones(3, 2))
    assert layer.format("Linear", 2) in repr(model)
