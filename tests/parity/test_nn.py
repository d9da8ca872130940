"""`gradlab.nn` beside `torch.nn`: names, reprs, values and gradients on random cases."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn

torch = pytest.importorskip("torch")

TOLERANCE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}


def rng(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))


def both(source: str) -> tuple[nn.Module, Any]:
    """The module that ``source`` makes with `gradlab.nn`, and with `torch.nn`."""
    return (
        eval(source, {"nn": nn, "lib": gl, "gl": gl}),
        eval(source, {"nn": torch.nn, "lib": torch, "gl": torch}),
    )


def randomize(ours: nn.Module, theirs: Any, source: str) -> None:
    """Give both modules the same random parameters and buffers, through NumPy."""
    r = rng(source)
    state = {
        name: r.normal(size=tuple(value.shape)).astype("float32")
        for name, value in theirs.state_dict().items()
        if value.is_floating_point()
    }
    for name, value in state.items():
        if name.endswith("running_var"):
            np.abs(value, out=value)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=False)
    ours.load_state_dict(state, strict=False)


LAYERS = [
    # source, shape of the input
    ("nn.Linear(5, 3)", (7, 5)),
    ("nn.Linear(5, 3, bias=False)", (2, 3, 5)),
    ("nn.Linear(4, 1)", (4,)),
    ("nn.Identity(3, a=1)", (3,)),
    ("nn.Flatten()", (2, 3, 4)),
    ("nn.Flatten(0, -2)", (2, 3, 4)),
    ("nn.Unflatten(1, (2, 3))", (4, 6)),
    ("nn.ReLU()", (3, 4)),
    ("nn.ReLU(inplace=True)", (3, 4)),
    ("nn.LeakyReLU(0.3)", (3, 4)),
    ("nn.LeakyReLU(0.3, inplace=True)", (3, 4)),
    ("nn.PReLU()", (3, 4)),
    ("nn.PReLU(4)", (3, 4, 2)),
    ("nn.ELU(0.7)", (3, 4)),
    ("nn.ELU(inplace=True)", (3, 4)),
    ("nn.GELU()", (3, 4)),
    ("nn.GELU('tanh')", (3, 4)),
    ("nn.SiLU()", (3, 4)),
    ("nn.SiLU(inplace=True)", (3, 4)),
    ("nn.Sigmoid()", (3, 4)),
    ("nn.Tanh()", (3, 4)),
    ("nn.Softplus()", (3, 4)),
    ("nn.Softplus(2, threshold=1)", (3, 4)),
    ("nn.LogSigmoid()", (3, 4)),
    ("nn.Softmax(dim=1)", (3, 4)),
    ("nn.LogSoftmax(dim=0)", (3, 4, 2)),
    ("nn.Softmin(dim=1)", (3, 4)),
    ("nn.Hardtanh()", (3, 4)),
    ("nn.Hardtanh(-0.3, 0.5, inplace=True)", (3, 4)),
    ("nn.ReLU6()", (3, 4)),
    ("nn.ReLU6(inplace=True)", (3, 4)),
    ("nn.SELU()", (3, 4)),
    ("nn.SELU(inplace=True)", (3, 4)),
    ("nn.CELU(0.7)", (3, 4)),
    ("nn.Softsign()", (3, 4)),
    ("nn.Mish()", (3, 4)),
    ("nn.Hardsigmoid()", (3, 4)),
    ("nn.Hardswish()", (3, 4)),
    ("nn.Tanhshrink()", (3, 4)),
    ("nn.Softshrink(0.3)", (3, 4)),
    ("nn.Hardshrink()", (3, 4)),
    ("nn.Threshold(0.1, 20)", (3, 4)),
    ("nn.GLU()", (3, 4)),
    ("nn.GLU(dim=0)", (4, 3)),
    ("nn.Dropout(0.3).eval()", (3, 4)),
    ("nn.Dropout(0.0, inplace=True)", (3, 4)),
    ("nn.LayerNorm(4)", (3, 4)),
    ("nn.LayerNorm((3, 4), eps=0.1)", (2, 3, 4)),
    ("nn.LayerNorm(4, bias=False)", (2, 3, 4)),
    ("nn.LayerNorm(4, elementwise_affine=False)", (3, 4)),
    ("nn.RMSNorm(4)", (3, 4)),
    ("nn.RMSNorm((3, 4), eps=0.1)", (2, 3, 4)),
    ("nn.RMSNorm(4, elementwise_affine=False)", (3, 4)),
    ("nn.BatchNorm1d(4)", (6, 4)),
    ("nn.BatchNorm1d(4, momentum=None)", (6, 4, 3)),
    ("nn.BatchNorm1d(4, eps=0.01, momentum=0.3, affine=False)", (6, 4)),
    ("nn.BatchNorm1d(4, track_running_stats=False)", (6, 4, 3)),
    ("nn.BatchNorm1d(4).eval()", (6, 4)),
    ("nn.BatchNorm1d(4, track_running_stats=False).eval()", (6, 4)),
    ("nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 2))", (6, 4)),
    ("nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))[1:]", (6, 4)),
]


@pytest.mark.parametrize(("source", "shape"), LAYERS, ids=[source for source, _ in LAYERS])
def test_layer(source, shape):
    ours, theirs = both(source)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    randomize(ours, theirs, source)
    for batch in range(2):
        r = rng(f"{source} {batch}")
        x = r.normal(size=shape).astype("float32")
        ours_x = gl.tensor(x, requires_grad=True)
        theirs_x = torch.tensor(x, requires_grad=True)
        # The product by 1 makes it no leaf, which may be written to in place.
        ours_y, theirs_y = ours(ours_x * 1), theirs(theirs_x * 1)
        assert ours_y.shape == tuple(theirs_y.shape)
        np.testing.assert_allclose(ours_y.detach().numpy(), theirs_y.detach().numpy(), **TOLERANCE)
        gy = r.normal(size=ours_y.shape).astype("float32")
        ours_y.backward(gl.tensor(gy))
        theirs_y.backward(torch.tensor(gy))
        np.testing.assert_allclose(ours_x.grad.numpy(), theirs_x.grad.numpy(), **TOLERANCE)
        assert_same_state(ours, theirs)
        assert_same_gradients(ours, theirs)


def assert_same_state(ours: nn.Module, theirs: Any) -> None:
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert value.dtype.name == str(expected[name].dtype).removeprefix("torch.")
        np.testing.assert_allclose(value.numpy(), expected[name].numpy(), **TOLERANCE, err_msg=name)


def assert_same_gradients(ours: nn.Module, theirs: Any) -> None:
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        # The terms of a sum may cancel: what it comes to is as precise as the largest.
        gradient = expected[name].grad.numpy()
        atol = 1e-5 * max(1, abs(gradient).max())
        np.testing.assert_allclose(
            parameter.grad.numpy(), gradient, rtol=2e-5, atol=atol, err_msg=name
        )


REPRS = [
    "nn.Module()",
    "nn.Sequential()",
    "nn.Dropout(0.1, inplace=True)",
    "nn.Embedding(10, 3)",
    "nn.Embedding(10, 3, padding_idx=-1)",
    "nn.LazyLinear(3, bias=False)",
    "nn.ModuleList()",
    "nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)])",
    "nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Tanh()) for _ in range(3)])",
    "nn.ModuleDict({'a': nn.Linear(2, 2), 'b': nn.Sequential(nn.ReLU())})",
    "nn.Sequential(nn.ModuleList([nn.ReLU()]), nn.ModuleDict())",
    "nn.CrossEntropyLoss(label_smoothing=0.1)",
    "nn.BCEWithLogitsLoss(pos_weight=lib.ones(3))",
    "nn.HuberLoss(delta=2.0)",
]


@pytest.mark.parametrize("source", REPRS)
def test_repr_and_names(source):
    ours, theirs = both(source)
    assert repr(ours) == repr(theirs)
    if "Lazy" not in source:
        assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embedding(padding_idx):
    ours, theirs = nn.Embedding(10, 3, padding_idx), torch.nn.Embedding(10, 3, padding_idx)
    randomize(ours, theirs, "embedding")
    x = rng("indices").integers(0, 10, (4, 5))
    gy = rng("gy").normal(size=(4, 5, 3)).astype("float32")
    ours(gl.tensor(x)).backward(gl.tensor(gy))
    theirs(torch.tensor(x)).backward(torch.tensor(gy))
    assert_same_gradients(ours, theirs)


C = 5
LOSSES = [
    *[f"nn.{kind}(reduction={reduction!r})" for reduction in ("mean", "sum", "none") for kind in
      ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss", "BCELoss", "BCEWithLogitsLoss",
       "KLDivLoss")],
    "nn.HuberLoss(delta=0.3)",
    "nn.SmoothL1Loss(beta=0.3)",
    "nn.SmoothL1Loss(beta=0)",
    "nn.BCELoss(weight=lib.arange(5) / 3)",
    "nn.BCEWithLogitsLoss(weight=lib.arange(5) / 3, pos_weight=lib.arange(5) / 2)",
    "nn.KLDivLoss(reduction='batchmean')",
    "nn.KLDivLoss(log_target=True)",
]  # fmt: skip


def losses_agree(source: str, x: np.ndarray, target: np.ndarray) -> None:
    ours, theirs = both(source)
    ours_x, theirs_x = gl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours_y, theirs_y = ours(ours_x, gl.tensor(target)), theirs(theirs_x, torch.tensor(target))
    np.testing.assert_allclose(ours_y.detach().numpy(), theirs_y.detach().numpy(), **TOLERANCE)
    ours_y.sum().backward()
    theirs_y.sum().backward()
    np.testing.assert_allclose(ours_x.grad.numpy(), theirs_x.grad.numpy(), **TOLERANCE)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
@pytest.mark.filterwarnings("ignore:.*'batchmean' divides the total loss:UserWarning")
@pytest.mark.parametrize("source", LOSSES)
def test_loss(source):
    r = rng(source)
    x = r.normal(size=(6, 5)).astype("float32")
    target = r.uniform(0.05, 0.95, size=(6, 5)).astype("float32")
    if "BCELoss" in source:
        x = r.uniform(0.05, 0.95, size=(6, 5)).astype("float32")
    if "KLDiv" in source:
        target /= target.sum(1, keepdims=True)
        target = np.log(target) if "log_target" in source else target
    losses_agree(source, x, target)


COMPARING = [
    # source, shapes of the inputs, kind of the target
    ("nn.MarginRankingLoss(0.3)", [(6,), (6,)], "sign"),
    ("nn.HingeEmbeddingLoss(reduction='sum')", [(6, 5)], "sign"),
    ("nn.CosineEmbeddingLoss(0.1)", [(6, 5), (6, 5)], "row sign"),
    ("nn.TripletMarginLoss()", [(6, 5), (6, 5), (6, 5)], ""),
    ("nn.TripletMarginLoss(2.0, p=1, swap=True, reduction='none')", [(6, 5)] * 3, ""),
    ("nn.MultiMarginLoss()", [(6, 5)], "label"),
    ("nn.MultiMarginLoss(2, 0.5, weight=lib.arange(5) / 4)", [(6, 5)], "label"),
    ("nn.MultiMarginLoss(reduction='none')", [(6, 5)], "label"),
    ("nn.SoftMarginLoss()", [(6, 5)], "sign"),
    ("nn.MultiLabelSoftMarginLoss()", [(6, 5)], "0 or 1"),
    ("nn.MultiLabelSoftMarginLoss(lib.arange(5) / 4, reduction='none')", [(6, 5)], "0 or 1"),
    ("nn.PoissonNLLLoss()", [(6, 5)], "count"),
    ("nn.PoissonNLLLoss(full=True, reduction='sum')", [(6, 5)], "count"),
    ("nn.GaussianNLLLoss()", [(6, 5), (6, 5)], "variance"),
    ("nn.GaussianNLLLoss(full=True, reduction='none')", [(6, 5), (6, 5)], "one variance"),
    ("nn.CosineSimilarity()", [(6, 5), (6, 5)], ""),
    ("nn.CosineSimilarity(dim=-1)", [(6, 1, 5), (3, 5)], ""),
    ("nn.PairwiseDistance()", [(6, 5), (6, 5)], ""),
    ("nn.PairwiseDistance(p=1, keepdim=True)", [(6, 5), (5,)], ""),
]


@pytest.mark.parametrize(("source", "shapes", "kind"), COMPARING, ids=[c[0] for c in COMPARING])
def test_comparing(source, shapes, kind):
    ours, theirs = both(source)
    assert repr(ours) == repr(theirs)
    r = rng(source)
    inputs = [r.normal(size=shape).astype("float32") for shape in shapes]
    target = {
        "": None,
        "sign": r.choice([-1.0, 1.0], size=shapes[0]),
        "row sign": r.choice([-1.0, 1.0], size=6),
        "label": r.integers(0, 5, 6),
        "0 or 1": r.choice([0.0, 1.0], size=(6, 5)),
        "count": r.poisson(3.0, (6, 5)).astype(float),
        "variance": r.uniform(0.1, 2, (6, 5)),
        "one variance": r.uniform(0.1, 2, (6, 1)),
    }[kind]
    target = [] if target is None else [target if kind == "label" else target.astype("float32")]
    ours_x = [gl.tensor(x, requires_grad=True) for x in inputs]
    theirs_x = [torch.tensor(x, requires_grad=True) for x in inputs]
    ours_y = ours(*ours_x, *map(gl.tensor, target))
    theirs_y = theirs(*theirs_x, *map(torch.tensor, target))
    assert ours_y.dtype == "float32"
    np.testing.assert_allclose(ours_y.detach().numpy(), theirs_y.detach().numpy(), **TOLERANCE)
    ours_y.sum().backward()
    theirs_y.sum().backward()
    for mine, other in zip(ours_x, theirs_x, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), **TOLERANCE)


OPTIONS = [
    "",
    "reduction='sum'",
    "reduction='none'",
    "weight=lib.arange(5) / 3 + 0.2",
    "ignore_index=2",
    "weight=lib.arange(5) / 3 + 0.2, ignore_index=1, reduction='sum'",
]
SMOOTHING = ["label_smoothing=0.2", "label_smoothing=0.2, weight=lib.arange(5) / 3 + 0.2"]


@pytest.mark.parametrize("options", OPTIONS + SMOOTHING)
@pytest.mark.parametrize("shape", [(6, 5), (5,), (4, 5, 3)], ids=str)
def test_cross_entropy_of_classes(options, shape):
    source = f"nn.CrossEntropyLoss({options})"
    r = rng(source + str(shape))
    x = r.normal(size=shape).astype("float32") * 3
    classes = r.integers(3, 5, size=shape[:1] + shape[2:] if len(shape) > 1 else ())
    if len(shape) > 1:
        classes.flat[:3] = [0, 1, 2]
    losses_agree(source, x, classes)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3)], ids=str)
def test_negative_log_likelihood(options, shape):
    source = f"nn.NLLLoss({options})"
    r = rng(source + str(shape))
    x = r.normal(size=shape).astype("float32") * 3
    classes = r.integers(0, 5, size=shape[:1] + shape[2:])
    losses_agree(source, x - np.log(np.exp(x).sum(1, keepdims=True)), classes)


@pytest.mark.parametrize("options", ["", "reduction='sum'", "reduction='none'", *SMOOTHING])
@pytest.mark.parametrize("shape", [(6, 5), (5,), (4, 5, 3)], ids=str)
def test_cross_entropy_of_probabilities(options, shape):
    r = rng(options + str(shape))
    x = r.normal(size=shape).astype("float32") * 3
    p = r.uniform(size=shape).astype("float32")
    p /= p.sum(axis=0 if len(shape) == 1 else 1, keepdims=True)
    losses_agree(f"nn.CrossEntropyLoss({options})", x, p)


class Net:
    """The same model for both libraries."""

    @staticmethod
    def make(nn: Any) -> Any:
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(7, 4)
                self.norm = nn.BatchNorm1d(4)
                self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
                self.heads = nn.ModuleDict({"a": nn.Linear(4, 3, bias=False)})
                self.scales = nn.ParameterList([nn.Parameter(self.norm.weight.detach() * 2)])
                self.blocks[1].weight = self.blocks[0].weight
                self.register_buffer("scratch", self.norm.running_mean * 1, persistent=False)

            def forward(self, x):
                h = self.norm(self.embedding(x)) * self.scales[0]
                for block in self.blocks:
                    h = h + block(h).tanh()
                return self.heads["a"](h)

        return Net()


def test_a_model_with_shared_weights():
    ours, theirs = Net.make(nn), Net.make(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    ours.load_state_dict(theirs.state_dict())  # torch's own tensors
    x = rng("x").integers(0, 7, 9)
    for _ in range(3):
        ours_y, theirs_y = ours(gl.tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(ours_y.detach().numpy(), theirs_y.detach().numpy(), **TOLERANCE)
        ours_y.square().sum().backward()
        theirs_y.square().sum().backward()
        assert_same_gradients(ours, theirs)
        ours_norm = nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
        theirs_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        assert ours_norm.item() == pytest.approx(theirs_norm.item(), rel=1e-5)
        assert_same_gradients(ours, theirs)
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.7, 1e3])
def test_clipping(norm_type, max_norm):
    shapes = [(3, 4), (5,), (), (200, 300)]
    grads = [rng(f"{norm_type}{shape}").normal(size=shape).astype("float32") for shape in shapes]
    ours = [nn.Parameter(gl.zeros(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for p, q, grad in zip(ours, theirs, grads, strict=True):
        p.grad, q.grad = gl.tensor(grad), torch.tensor(grad)
    total = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)
    nn.utils.clip_grad_value_(ours, 0.01)
    torch.nn.utils.clip_grad_value_(theirs, 0.01)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)


def test_gains():
    from torch.nn import init

    names = [
        "linear",
        "conv1d",
        "conv_transpose3d",
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "selu",
    ]
    for name in names:
        assert nn.init.calculate_gain(name) == init.calculate_gain(name)
    assert nn.init.calculate_gain("leaky_relu", 0.3) == init.calculate_gain("leaky_relu", 0.3)


FILLS = [
    ("xavier_uniform_", {"gain": 0.5}),
    ("xavier_normal_", {"gain": 2.0}),
    ("kaiming_uniform_", {"a": math.sqrt(5)}),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ("trunc_normal_", {"std": 0.02, "a": -0.03, "b": 0.05}),
    ("orthogonal_", {"gain": 1.5}),
    ("sparse_", {"sparsity": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), FILLS)
def test_initialisation_draws_from_the_same_distribution(name, options):
    ours = getattr(nn.init, name)(gl.empty(300, 200), generator=gl.Generator(0), **options).numpy()
    torch.manual_seed(0)
    theirs = getattr(torch.nn.init, name)(torch.empty(300, 200), **options).numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.02 * float(theirs.std()))
    # The largest distance between the two distribution functions (Kolmogorov-Smirnov).
    grid = np.quantile(theirs, np.linspace(0.01, 0.99, 50))
    shares = [np.searchsorted(np.sort(x.ravel()), grid) / x.size for x in (ours, theirs)]
    assert abs(shares[0] - shares[1]).max() < 0.02


def test_default_initialisation():
    torch.manual_seed(0)
    gl.manual_seed(0)
    for source in ("nn.Linear(300, 200)", "nn.Embedding(300, 200)"):
        ours, theirs = both(source)
        for name, value in ours.state_dict().items():
            expected = theirs.state_dict()[name].numpy()
            assert value.numpy().std() == pytest.approx(expected.std(), rel=0.1)
            assert abs(value.numpy()).max() == pytest.approx(abs(expected).max(), rel=0.2)


def test_functional():
    import gradlab.nn.functional as F

    x = rng("functional").normal(size=(4, 5)).astype("float32")
    ours, theirs = gl.tensor(x), torch.tensor(x)
    G = torch.nn.functional
    for name, options in [
        ("normalize", {}), ("normalize", {"p": 3.0, "dim": 0}), ("softmax", {"dim": 1}),
        ("log_softmax", {"dim": 0}), ("gelu", {"approximate": "tanh"}), ("relu", {}), ("silu", {}),
        ("leaky_relu", {"negative_slope": 0.2}), ("elu", {"alpha": 0.5}), ("softplus", {}),
        ("layer_norm", {"normalized_shape": (5,)}), ("logsigmoid", {}),
    ]:  # fmt: skip
        y = getattr(F, name)(ours, **options)
        expected = getattr(G, name)(theirs, **options)
        np.testing.assert_allclose(y.numpy(), expected.numpy(), **TOLERANCE, err_msg=name)
    index = np.array([[1, 3], [0, 3]])
    np.testing.assert_array_equal(
        F.one_hot(gl.tensor(index)).numpy(), G.one_hot(torch.tensor(index)).numpy()
    )


@pytest.mark.parametrize(
    ("shape", "pad", "value"),
    [
        ((2, 3), (1, 1), None),
        ((2, 3), (0, 2, 1, 0), 9.0),
        ((3,), (0, 0), 1.0),
        ((4, 3, 2), (1, -1, -1, 2), -1.0),
        ((4, 3), (0, 0, -2, 0), None),
        ((2, 3), (-3, 0), None),
    ],
)
def test_pad(shape, pad, value):
    x = rng("pad").normal(size=shape).astype("float32")
    mine, other = gl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours = nn.functional.pad(mine, pad, value=value)
    theirs = torch.nn.functional.pad(other, pad, value=value)
    np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    (ours * ours).sum().backward()
    (theirs * theirs).sum().backward()
    np.testing.assert_array_equal(mine.grad.numpy(), other.grad.numpy())
