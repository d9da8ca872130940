"""What programs do with tensors on one of several GPUs; `run` says that it left them there.

CuPy works on the current device, whichever the arrays lie on: a copy lands there, and a result with
it. So each program runs on a GPU while another one is current. test_devices.py runs them on the
stand-in for CuPy, which computes, and cupy_standin/test_devices.py on CuPy itself.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gradlab as gl
from gradlab import dtypes, nn, optim, training
from gradlab.autograd import grad
from gradlab.backends import cuda
from gradlab.data import DataLoader, TensorDataset
from gradlab.errors import GradlabError
from gradlab.nn.utils import clip_grad_norm_, clip_grad_value_

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are a package of the checkout

from benchmarks.gpu import programs

PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def run(name: str, device: gl.Device, current: int) -> None:
    """Run a program on ``device`` while the GPU ``current`` is the current one."""
    driver = cuda.driver()
    with driver.device(current):
        for what, x in _tensors(PROGRAMS[name](device), name):
            assert x.device is device, f"{what} is on {x.device}, expected {device}"
            index = x._array.device.id
            assert index == device.index, f"{what} says {device}, its memory is on GPU {index}"
        assert driver.current_device() == current, f"{name} left another device current"


def _tensors(found: Any, what: str) -> Iterator[tuple[str, gl.Tensor]]:
    """The tensors in what a program returned, each with where it was found."""
    if isinstance(found, gl.Tensor):
        yield what, found
        if found.grad is not None:
            yield f"{what}.grad", found.grad
    elif isinstance(found, nn.Module):
        yield from _tensors(dict(found.named_parameters()) | dict(found.named_buffers()), what)
    elif isinstance(found, optim.Optimizer):
        yield from _tensors(found.state_dict(), what)
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from _tensors(value, f"{what}, {key!r}")
    elif isinstance(found, list | tuple):
        for i, value in enumerate(found):
            yield from _tensors(value, f"{what}, item {i}")


def program(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    PROGRAMS[function.__name__] = function
    return function


def matrix(device: Any, shape: Any = (4, 3), **options: Any) -> gl.Tensor:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return gl.tensor(values, device=device, **options)


# ------------------------------------------------------------------------------- making, copying


@program
def making(device: Any) -> Any:
    there = {"device": device}
    x = matrix(device)
    return [
        gl.tensor([1.0, 2.0], **there), gl.tensor(3, **there), gl.Tensor(2, 3, **there),
        gl.Tensor([1, 2], **there), gl.zeros(3, **there), gl.ones(2, 2, **there),
        gl.full((2,), 1.5, **there), gl.empty(3, **there), gl.arange(5, **there),
        gl.linspace(0, 1, 5, **there), gl.eye(3, **there), gl.zeros_like(x), gl.ones_like(x),
        gl.full_like(x, 2.0), gl.empty_like(x), x.new_zeros(3), x.new_ones(2),
        x.new_tensor([1.0, 2.0]), gl.tril_indices(3, 3, **there), gl.meshgrid(x[0], x[1]),
    ]  # fmt: skip


@program
def drawing_numbers(device: Any) -> Any:
    generator = gl.Generator(3)
    there = {"device": device, "generator": generator}
    x = gl.full((3, 4), 0.5, device=device)
    return [
        gl.rand(3, **there), gl.randn(3, **there), gl.randint(0, 9, (3,), **there),
        gl.randperm(5, **there), gl.rand_like(x), gl.randn_like(x), gl.bernoulli(x),
        gl.normal(0.0, 1.0, (3,), **there), x.clone().uniform_(), x.clone().normal_(),
        nn.functional.dropout(x, 0.5), nn.functional.dropout(x.requires_grad_(), 0.5),
    ]  # fmt: skip


@program
def copying(device: Any) -> Any:
    x = matrix(device, requires_grad=True)
    y = x.detach()
    return [
        copy.deepcopy(x), copy.deepcopy(y), copy.copy(y), x.clone(), y.T.clone(), gl.tensor(y),
        gl.tensor(y.T), gl.tensor(y, dtype=gl.float64), gl.tensor(y, device=device),
        gl.Tensor(y, device=device), y.to(gl.float64), y.to(device, copy=True), y.cpu().to(device),
        y.contiguous(), y.T.contiguous(), y.double(), y.half(), y.data, y.cpu().cuda(device.index),
        pickle.loads(pickle.dumps(x)), gl.stack([y, y]), gl.cat([y, y]), y.reshape(-1),
        y.T.reshape(-1), y.flatten(), y.T.flatten(),
    ]  # fmt: skip


@program
def copies_in_other_dtypes(device: Any) -> Any:
    x = matrix(device)
    wanted = [gl.float16, gl.bfloat16, gl.float64, gl.int32, gl.bool, gl.complex64]
    return [[gl.tensor(x, dtype=dtype), x.to(dtype), x.astype(dtype)] for dtype in wanted]


@program
def moving_between_gpus(device: Any) -> Any:
    other = gl.device("cuda", 1 - device.index)
    x = matrix(other, requires_grad=True)
    y = x.to(device)
    (y * 2).sum().backward()
    assert x.grad.device is other
    assert x.grad._array.device.id == other.index
    there = x.detach().clone()
    return [y, matrix(device).copy_(matrix("cpu")), gl.tensor(there, device=device)]


@program
def arrays_of_other_libraries(device: Any) -> Any:
    xp = cuda.driver().xp
    found = []
    for index in (0, 1):
        with cuda.driver().device(index):
            foreign = xp.zeros((2, 3), np.float32)
        found += [
            gl.tensor(foreign, device=device), gl.asarray(foreign, device=device),
            gl.tensor(foreign, device=device, dtype=gl.float64), gl.Tensor(foreign, device=device),
        ]  # fmt: skip
    return found


@program
def saving_and_loading(device: Any) -> Any:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    file = io.BytesIO()
    pickle.dump(model, file)
    file.seek(0)
    again = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    again.load_state_dict(model.state_dict())
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    fresh.load_state_dict({name: x.cpu() for name, x in model.state_dict().items()})
    return [pickle.load(file), copy.deepcopy(model), again, fresh, model.double()]


@program
def files(device: Any) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        gl.save({"x": matrix(device), "deep": [matrix(device)]}, Path(folder) / "file")
        return gl.load(Path(folder) / "file", map_location=device)


# ------------------------------------------------------------------------------ indexing, writing


INDICES: list[Any] = [
    0, -1, slice(1, 3), (slice(None), 1), Ellipsis, (None, 0), [0, 2], (slice(None), [0, 2]),
    [], np.array([1, 0, 1]), np.array([True, False, True, False]),
]  # fmt: skip


def _indices(device: Any, x: gl.Tensor) -> list[Any]:
    return [
        *INDICES, gl.tensor(1, device=device), gl.tensor([0, 2, 0], device=device), x.detach() > 0,
        gl.tensor([True, False, True, True], device=device), gl.tensor([1, 2]),
    ]  # fmt: skip


@program
def reading_by_index(device: Any) -> Any:
    x = matrix(device)
    w = matrix(device, requires_grad=True)
    found = [x[index] for index in _indices(device, x)]
    for index in _indices(device, x):
        y = w[index]
        found += [y, *grad(y.sum(), [w], create_graph=True)]
    w[gl.tensor([0, 2, 0], device=device)].sum().backward()
    return [found, w]


@program
def writing_by_index(device: Any) -> Any:
    found = []
    for index in _indices(device, matrix(device)):
        plain, w = matrix(device), matrix(device, requires_grad=True)
        recorded = w * 1
        for x in (plain, recorded):
            x[index] = 2.0
            x[index] = x[index] * 1
        recorded.sum().backward()
        found += [plain, recorded, w]
    recorded = matrix(device, requires_grad=True) * 1
    recorded[gl.tensor([0, 1], device=device)] = matrix(device, (1, 2, 3))
    return [*found, recorded]


@program
def refused_indices(device: Any) -> Any:
    x = matrix(device)
    for index in (7, (0, 0, 0), (slice(None), 5), gl.tensor([True, False], device=device)):
        with suppress(GradlabError):
            x[index]
        with suppress(GradlabError):
            x[index] = 1.0
    with suppress(GradlabError):
        x[[0, 1]] = matrix(device, (7, 7))
    return x


@program
def writing_in_place(device: Any) -> Any:
    w = matrix(device, requires_grad=True)
    x, y, recorded = matrix(device), matrix(device), w * 1
    for each in (x, recorded):
        each += 1
        each *= y
        each.mul_(2).add_(y).clamp_(-1, 1).exp_().sigmoid_().relu_()
        each.copy_(y)
        each.fill_(0.5)
        each[0].zero_()
        each.masked_fill_(y > 0, 1.0)
        each.index_fill_(0, gl.tensor([1], device=device), 0.5)
        each.T[1] += 1
    recorded.sum().backward()
    out, grown = gl.zeros(4, 3, device=device), gl.empty(0, device=device)
    gl.add(x, y, out=out)
    gl.matmul(x.T, y, out=grown)
    return [x, recorded, w, out, grown]


# -------------------------------------------------------------------------------------- gradients


@program
def gradients(device: Any) -> Any:
    x, w = matrix(device, requires_grad=True), matrix(device, (3, 2), requires_grad=True)
    x.register_hook(lambda g: g * 2)
    h = (x @ w).tanh()
    h.retain_grad()
    y = nn.functional.softmax(h, 1).log().sum() + x.std() + x.sort().values.prod()
    y.backward(retain_graph=True)
    (gx,) = grad(y, [x], create_graph=True)
    gx.square().sum().backward()
    (x @ w).backward(gl.ones_like(h))
    h2 = x * 1
    h2.backward(np.ones((4, 3), np.float32))
    return [x, w, h, gx]


@program
def clipping_gradients(device: Any) -> Any:
    model = nn.Linear(3, 4).to(device)
    model(matrix(device)).sum().backward()
    norm = clip_grad_norm_(model.parameters(), 0.1)
    clip_grad_value_(model.parameters(), 0.01)
    return [norm, model]


@program
def errors_leave_the_device_as_it_was(device: Any) -> Any:
    x = matrix(device)
    for wrong in (
        lambda: x @ x, lambda: x.reshape(5), lambda: gl.cat([x, x[0]]), lambda: x + matrix("cpu"),
        lambda: gl.tensor([[1.0], [2.0, 3.0]], device=device), lambda: x.add_(matrix(device, (9,))),
        lambda: gl.linalg.inv(x), lambda: x.topk(99), lambda: x.copy_(matrix(device, (5, 5))),
    ):  # fmt: skip
        with suppress(GradlabError):
            wrong()
            raise AssertionError("it was not refused")
    return x


# ---------------------------------------------------------------------------------- layers, steps


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.25), nn.Linear(8, 8),
        nn.LayerNorm(8), nn.PReLU(), nn.Linear(8, 3),
    )  # fmt: skip


@program
def layers(device: Any) -> Any:
    model = network().to(device)
    lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU()).to(device)
    table = nn.Embedding(5, 6, padding_idx=0).to(device)
    x = table(gl.tensor([1, 4, 0, 1], device=device))
    y = model(x)
    losses = [
        nn.CrossEntropyLoss(label_smoothing=0.1)(y, gl.tensor([0, 1, 2, 0], device=device)),
        nn.CrossEntropyLoss(gl.ones(3, device=device))(y, gl.tensor([0, 1, 2, 0], device=device)),
        nn.MSELoss()(y, gl.zeros_like(y)), nn.BCEWithLogitsLoss()(y, gl.ones_like(y)),
        nn.HuberLoss()(y, gl.ones_like(y)), nn.KLDivLoss()(y.log_softmax(1), y.softmax(1).detach()),
        lazy(x).square().mean(),
    ]  # fmt: skip
    sum(losses).backward()
    model.eval()
    return [model, table, losses, model(x.detach()), lazy]


OPTIMIZERS = [name for name in optim.__all__ if name not in ("Optimizer", "lr_scheduler")]


@program
def optimizers(device: Any) -> Any:
    found = []
    for name in OPTIMIZERS:
        model = network().to(device)
        make = getattr(optim, name)
        options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = make(model.parameters(), lr=0.1, **options)
        x, labels = matrix(device, (4, 6)), gl.tensor([0, 1, 2, 0], device=device)

        def step(model=model, optimizer=optimizer, x=x, labels=labels):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        step()
        state = copy.deepcopy(optimizer.state_dict())
        again = make(model.parameters(), lr=0.1, **options)
        again.load_state_dict(copy.deepcopy(state))
        optimizer.load_state_dict(pickle.loads(pickle.dumps(state)))
        step()
        found += [model, optimizer, again, state]
    return found


@program
def half_precision_parameters(device: Any) -> Any:
    model = nn.Linear(6, 3).to(device).to(gl.bfloat16)
    optimizer = optim.Adam(model.parameters())
    model(matrix(device, (4, 6)).to(gl.bfloat16)).sum().backward()
    optimizer.step()
    return [model, optimizer]


@program
def training_by_the_trainer(device: Any) -> Any:
    x, y = matrix("cpu", (12, 6)).numpy(), np.arange(12) % 3
    data = TensorDataset(gl.tensor(x), gl.tensor(y))
    model = _Classifier()
    loader = DataLoader(data, batch_size=4, shuffle=True)
    run = training.Trainer(
        max_epochs=2, device=device, gradient_clip_val=1.0, enable_progress_bar=False
    )
    run.fit(model, loader, loader)
    return [model, run.predict(model, loader), next(iter(DataLoader(data, 4, device=device)))]


class _Classifier(training.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: gl.Tensor) -> gl.Tensor:
        return self.network(x)

    def loss(self, y_hat: gl.Tensor, y: gl.Tensor) -> gl.Tensor:
        return nn.functional.cross_entropy(y_hat, y)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.Adam(self.parameters())


# ------------------------------------------------------------------------------- numbers, printing


LAYOUTS: tuple[Callable[[gl.Tensor], gl.Tensor], ...] = (
    lambda x: x, lambda x: x.T, lambda x: x[::2], lambda x: x[:, ::-1], lambda x: x[0],
    lambda x: x[:, 1], lambda x: x[1, 2], lambda x: x[:0], lambda x: x[:1].expand(5, x.shape[1]),
    lambda x: x.diagonal(), lambda x: x[:, None, ::2].transpose(0, 2), lambda x: x * 2,
    lambda x: (x * 2).T,
)  # fmt: skip


@program
def printing_of_every_layout(device: Any) -> Any:
    """Values and the edges of large tensors, whatever the strides are."""
    for dtype in dtypes.ALL:
        for shape in ((4, 3), (1500, 3), (3, 1500)):
            plain = gl.zeros(*shape, dtype=dtype, device=device)
            for x in (plain, plain.requires_grad_() if dtypes.is_floating(dtype) else plain):
                for lay in LAYOUTS:
                    y, there = lay(x), lay(x.detach().cpu())
                    assert repr(y).rpartition("]")[0] == repr(there).rpartition("]")[0]
                    assert f"device='{device}'" in str(y)
                    assert y.tolist() == there.tolist()
    return matrix(device).T


@program
def numbers_and_printing(device: Any) -> Any:
    x, large = matrix(device), gl.zeros(2000, 3, device=device)
    assert f"device='{device}'" in repr(x)
    assert "..." in repr(large)
    assert x.tolist() == x.cpu().tolist() == x.numpy(force=True).tolist()
    one = x[0, 0]
    assert float(one) == one.item() == x.tolist()[0][0]
    assert [int(one), bool(one), f"{one:.3f}"]
    assert [[1, 2, 3][gl.tensor(1, device=device)], one in x, (x == x).all().item()]
    gl.testing.assert_close(x, x)
    return [x, *x]


@program
def sampling_from_distributions(device: Any) -> Any:
    from gradlab.distributions import Bernoulli, Categorical, Normal, Uniform

    zero, one = gl.zeros(3, device=device), gl.ones(3, device=device)
    each = [
        Normal(zero, one), Uniform(zero, one), Bernoulli(one * 0.5),
        Categorical(logits=gl.zeros(4, 3, device=device)),
    ]  # fmt: skip
    return [[d.sample((2,)) for d in each], [d.log_prob(d.sample()) for d in each],
            [d.entropy() for d in each]]  # fmt: skip


@program
def linear_algebra(device: Any) -> Any:
    a = matrix(device, (3, 3)) @ matrix(device, (3, 3)).T + gl.eye(3, device=device)
    linalg = gl.linalg
    return [linalg.det(a), linalg.inv(a), linalg.qr(a), linalg.svd(a), linalg.cholesky(a),
            linalg.eigh(a), linalg.norm(a), linalg.pinv(a)]  # fmt: skip


# What `benchmarks.gpu --check` compares with the CPU, but for moves from and to it.
for _name, _checked in programs.PROGRAMS.items():
    if _name != "moves":
        PROGRAMS[f"checked {_name}"] = partial(_checked, many=300)
