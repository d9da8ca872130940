"""Devices: finding them, moving tensors, refusing to mix; and every op on a CUDA without a GPU."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import warnings

import numpy as np
import pytest

import device_programs
import fake_cuda as fake
import gradlab as gl
import gradlab.ops
from gradlab import devices
from gradlab.autograd import grad, no_grad
from gradlab.backends import cuda, probe
from gradlab.errors import AxisError, DeviceError, GradientError, OptionError
from gradlab.ops.core import REGISTRY
from gradlab.testing import assert_close, check_sample, gradcheck

for _module in pkgutil.iter_modules(gradlab.ops.__path__):
    importlib.import_module(f"gradlab.ops.{_module.name}")


@pytest.fixture
def no_cuda(monkeypatch):
    """A machine without a GPU, whatever this one has."""
    found = probe.CudaProbe(False, "no NVIDIA driver was found", "install one")
    monkeypatch.setattr(probe, "probe_cuda", lambda: found)
    before = cuda.use_driver(None)
    monkeypatch.setattr(devices, "_auto_said", False)
    for name in ("_devices", "_working"):
        known = getattr(devices, name).items()
        monkeypatch.setattr(devices, name, {key: each for key, each in known if each.type == "cpu"})
    yield found
    cuda.use_driver(before)


# ---------------------------------------------------------------------------- finding devices


def test_the_cpu():
    cpu = gl.device("cpu")
    assert str(cpu) == "cpu"
    assert repr(cpu) == "device(type='cpu')"
    assert (cpu.type, cpu.index) == ("cpu", None)
    assert gl.device(cpu) is cpu
    assert gl.device(None) is cpu
    assert gl.device() is cpu
    assert gl.tensor([1.0]).device is cpu
    assert gl.tensor([1.0], device="cpu").device is cpu
    assert cpu == "cpu"
    assert cpu != "cuda"


def test_a_device_is_named_without_asking_for_it(no_cuda):
    second = gl.device("cuda:1")
    for same in (gl.device("cuda", 1), gl.device(type="cuda", index=1), gl.device(1),
                 gl.device(second), gl.device(str(second))):  # fmt: skip
        assert same is second
    assert (second.type, second.index) == ("cuda", 1)
    assert repr(second) == "device(type='cuda', index=1)"
    assert isinstance(second, gl.device)
    assert second == gl.device("cuda:1") == "cuda:1"
    assert hash(second) == hash(gl.device("cuda", 1))
    assert len({second, gl.device("cuda:1"), gl.device("cuda"), gl.device("cuda:0")}) == 2
    assert pickle.loads(pickle.dumps(second)) is copy.deepcopy(second) is second
    assert gl.device("cpu", 0) is gl.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (("cuda:1", 0), "'cuda:1', 0"),
        (("cuda", -1), "'cuda', -1"),
        (("cuda", 1.0), "'cuda', 1.0"),
        ((-1,), "-1"),
        ((True,), "True"),
        (([0],), "[0]"),
        ((1.5,), "1.5"),
    ],
)
def test_what_names_no_device(arguments, got):
    with pytest.raises(DeviceError) as caught:
        gl.device(*arguments)
    assert str(caught.value).endswith(f"'cuda:<index>' or 'auto', got {got}")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0x", "", "cuda:1:2", "CPU"])
def test_unknown_names(name):
    with pytest.raises(DeviceError) as caught:
        gl.device(name)
    assert str(caught.value) == (
        f"device: expected 'cpu', 'cuda', 'cuda:<index>' or 'auto', got {name!r}"
    )


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_no_gpu(name, no_cuda):
    expected = "device 'cuda' is not available: no NVIDIA driver was found; install one"
    for use in (
        lambda: gl.tensor([1.0], device=name),
        lambda: gl.zeros(2, device=gl.device(name)),
        lambda: gl.asarray([1.0], device=name),
        lambda: gl.rand(2, device=name),
        lambda: gl.tensor([1.0]).to(name),
        lambda: gl.tensor([1.0]).to(gl.device(name)),
        lambda: gl.tensor([1.0]).to(0),
        lambda: gl.tensor([1.0]).cuda(),
        lambda: gl.tensor([1.0]).cuda(1),
        lambda: gl.nn.Linear(2, 1, device=name),
        lambda: gl.nn.LazyLinear(1, device=name),
        lambda: gl.nn.Linear(2, 1).to(gl.device(name)),
        lambda: gl.nn.Linear(2, 1).cuda(),
        lambda: gl.data.DataLoader([1, 2], device=name),
        lambda: gl.training.Trainer(max_epochs=1, device=name),
        lambda: gl.synchronize(name),
        lambda: gl.cuda.memory(name),
        lambda: gl.cuda.get_device_name(name),
        gl.cuda.get_device_capability,
        gl.cuda.current_device,
    ):
        with pytest.raises(DeviceError) as caught:
            use()
        assert str(caught.value) == expected
    assert not devices.is_available("cuda")
    assert devices.device_count() == 0


def test_auto_without_a_gpu_takes_the_cpu_and_says_so_once(no_cuda):
    with pytest.warns(UserWarning, match="device='auto' takes the CPU: device 'cuda' is not ava"):
        assert gl.device("auto") is gl.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gl.device("auto").type == "cpu"
        assert gl.tensor([1.0], device="auto").device.type == "cpu"


def test_auto_with_a_gpu(fake_cuda):
    assert gl.device("auto") is gl.device("cuda:0")


def test_cuda_devices(fake_cuda):
    first, second = gl.device("cuda"), gl.device("cuda:1")
    assert first is gl.device("cuda:0")
    assert first is not second
    assert str(first) == "cuda:0"
    assert first == "cuda"
    assert first == "cuda:0"
    assert second == "cuda:1"
    assert second != "cuda"
    assert devices.is_available("cuda")
    assert devices.device_count() == 2
    assert gl.cuda.current_device() == 0
    assert gl.cuda.get_device_name() == gl.cuda.get_device_name(second)
    assert gl.cuda.get_device_name(1) == fake_cuda.properties().name
    assert gl.cuda.get_device_capability() == fake_cuda.properties().capability
    with pytest.raises(OptionError, match="get_device_name: expected a CUDA device, got cpu"):
        gl.cuda.get_device_name("cpu")


def test_a_device_that_is_not_there(fake_cuda):
    expected = "device 'cuda:2' does not exist: this machine has 2 CUDA devices, numbered from 0"
    with pytest.raises(DeviceError) as caught:
        gl.zeros(3, device="cuda:2")
    assert str(caught.value) == expected
    cuda.use_driver(fake.FakeDriver(devices=1))
    devices.forget_cuda()
    with pytest.raises(DeviceError, match="this machine has 1 CUDA device, numbered from 0"):
        gl.zeros(3, device=gl.device("cuda:1"))


def test_synchronize(fake_cuda):
    gl.synchronize("cpu")
    gl.synchronize()
    assert fake_cuda.waits == 0  # no GPU was used
    gl.synchronize("cuda")
    assert fake_cuda.waits == 1


def test_synchronize_without_a_device_waits_for_all_gpus_in_use(fake_cuda):
    gl.ones(3, device="cuda:1")
    gl.synchronize()
    assert fake_cuda.waits == 1
    gl.ones(3, device="cuda:0")
    gl.cuda.synchronize()
    assert fake_cuda.waits == 3


# ----------------------------------------------------------------------------- moving tensors


def test_making_tensors_on_a_device(fake_cuda):
    made = [
        gl.tensor([1.0, 2.0], device="cuda"),
        gl.asarray(np.ones(2), device="cuda"),
        gl.zeros(2, device="cuda"),
        gl.ones(2, device="cuda"),
        gl.full((2,), 3.0, device="cuda"),
        gl.arange(2, device="cuda"),
        gl.linspace(0, 1, 2, device="cuda"),
        gl.eye(2, device="cuda"),
        gl.empty(2, device="cuda"),
        gl.rand(2, device="cuda"),
        gl.randn(2, device="cuda"),
        gl.randint(0, 5, (2,), device="cuda"),
        gl.randperm(2, device="cuda"),
        gl.zeros_like(gl.ones(2, device="cuda")),
        gl.ones(2, device="cuda").new_zeros(3),
    ]
    for x in made:
        assert x.device is gl.device("cuda")
        assert x.is_cuda
        assert type(x._array) is fake.Array
    assert made[0].tolist() == [1, 2]


def test_print_names_the_device(fake_cuda):
    assert repr(gl.tensor([1.0, 2.0], device="cuda:1")) == "tensor([1., 2.], device='cuda:1')"


def test_round_trip(fake_cuda):
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.to("cuda")
    assert y.device == "cuda:0"
    assert y.to("cuda") is y
    assert y.to("cuda:1").device == "cuda:1"
    assert y.to("cuda:1").to("cuda:0").cpu().tolist() == x.tolist()
    assert x.cuda().device == "cuda:0"
    assert x.cuda(1).device == x.cuda("cuda:1").device == x.to(1).device == "cuda:1"
    assert x.cuda(1).cuda(1) is not x.cuda(1)
    z = x.cuda(gl.device("cuda", 1))
    assert z.cuda(1) is z
    assert [each.get_device() for each in (x, y, z)] == [-1, 0, 1]
    assert [each.is_cuda for each in (x, y, z)] == [False, True, True]
    with pytest.raises(OptionError, match="cuda: expected a CUDA device, got cpu"):
        x.cuda("cpu")
    assert x.cpu() is x
    z = x.to("cuda", gl.float64)
    assert (z.device, z.dtype) == (gl.device("cuda"), gl.float64)
    assert x.to(z).dtype == gl.float64
    assert x.to(z).device == "cuda"
    assert gl.tensor(y).device == "cuda"
    assert gl.tensor(y, device="cpu").device == "cpu"
    assert gl.asarray(x.T, device="cuda").tolist() == x.T.tolist()


def test_a_moved_tensor_has_memory_of_its_own(fake_cuda):
    x = gl.tensor([1.0, 2.0])
    y = x.to("cuda")
    y += 1
    assert x.tolist() == [1, 2]


def test_gradients_travel_back(fake_cuda):
    x = gl.tensor([1.0, 2.0], requires_grad=True)
    w = gl.tensor([3.0, 4.0], device="cuda", requires_grad=True)
    ((x.to("cuda") * w).cpu() * 2).sum().backward()
    assert x.grad.device == "cpu"
    assert w.grad.device == "cuda"
    assert x.grad.tolist() == [6, 8]
    assert w.grad.tolist() == [2, 4]
    (g,) = grad((x.to("cuda") ** 3).sum().cpu(), x, create_graph=True)
    assert grad(g.sum(), x)[0].tolist() == [6, 12]
    (g,) = grad(gl.asarray(x, device="cuda", dtype="float64").sum(), x)
    assert (g.device, g.dtype) == (gl.device("cpu"), gl.float32)


def test_leaves_on_a_device(fake_cuda):
    x = gl.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.device == "cuda"
    x.grad.zero_()
    with no_grad():
        x -= 1
    assert x.tolist() == [0, 1]
    (x * 2).backward(gl.tensor([1.0, 1.0], device="cuda"))
    assert x.grad.tolist() == [2, 2]


def test_leaving_the_device_by_accident_is_refused(fake_cuda):
    x = gl.tensor([1.0, 2.0], device="cuda")
    expected = 'numpy: expected a tensor on the cpu, got one on cuda:0; use .to("cpu").numpy()'
    for use in (x.numpy, lambda: np.asarray(x), lambda: np.array(x)):
        with pytest.raises(DeviceError) as caught:
            use()
        assert str(caught.value) == expected
    assert x.numpy(force=True).tolist() == [1, 2]
    assert x.cpu().numpy().tolist() == [1, 2]


def test_reading_numbers(fake_cuda):
    x = gl.tensor([1.5], device="cuda")
    assert x.item() == 1.5
    assert float(x) == 1.5
    assert int(x) == 1
    assert bool(x)
    assert len(x) == 1
    assert [each.device.type for each in x] == ["cuda"]


def test_computing_does_not_read_from_the_device(fake_cuda):
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda", requires_grad=True)
    rows = gl.tensor([1, 0], device="cuda")
    before = fake_cuda.copies_to_host
    y = (x @ x.T).relu().sum(axis=0) * 2 + x[0].exp()
    loss = (y.softmax(0) - x[rows].mean(axis=1)).square().sum()
    loss.backward()
    with no_grad():
        x -= x.grad * 0.1
        x[0] = 1.0
        x[rows] = x.detach() * 2
    assert fake_cuda.copies_to_host == before


# ------------------------------------------------------------------------ devices are not mixed

MIXES = {
    "add": lambda x, y: x + y,
    "radd": lambda x, y: y + x,
    "matmul": lambda x, y: x @ y,
    "where": lambda x, y: gl.where(x > 0, x, y),
    "cat": lambda x, y: gl.cat([x, y]),
    "stack": lambda x, y: gl.stack([x, y]),
    "iadd": lambda x, y: x.__iadd__(y),
    "maximum": lambda x, y: x.maximum(y),
    "setitem": lambda x, y: x.__setitem__(slice(None), y),
    "mse_loss": lambda x, y: gl.nn.functional.mse_loss(x, y),
}


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("recorded", [False, True], ids=["plain", "recorded"])
def test_mixing_devices_is_refused(name, recorded, fake_cuda):
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = gl.ones(2, 2, device="cuda", requires_grad=recorded)
    with pytest.raises(DeviceError) as caught:
        MIXES[name](x, y)
    text = str(caught.value)
    assert text.startswith(f"{name.replace('radd', 'add').replace('iadd', 'add')}: ")
    assert "(2, 2) on cpu" in text
    assert "(2, 2) on cuda:0" in text
    assert ".to(" in text


def test_the_message_about_mixed_devices(fake_cuda):
    x, y = gl.ones(2, 3), gl.ones(3, device="cuda:1")
    with pytest.raises(DeviceError) as caught:
        x + y
    assert str(caught.value) == (
        "add: expected tensors on one device, got (2, 3) on cpu, (3,) on cuda:1; move one of them, "
        'for example with .to("cuda:1")'
    )
    with pytest.raises(DeviceError, match=r'on cpu; move one of them, .*\.to\("cuda:1"\)$'):
        y + x  # to the GPU, where the work was meant to be
    with pytest.raises(DeviceError, match=r"on cuda:0, \(3,\) on cuda:1; move one"):
        x.cuda() * y


def test_host_arrays_join_the_device_of_the_tensor(fake_cuda):
    x = gl.tensor([1.0, 2.0], device="cuda")
    for y in (x + np.array([1.0, 1.0], dtype=np.float32), np.ones(2, dtype=np.float32) + x):
        assert y.device == "cuda"
        assert y.tolist() == [2, 3]
    assert x[np.array([1, 0])].tolist() == [2, 1]
    assert x[gl.tensor([1, 0])].tolist() == [2, 1]  # an index may come from the CPU
    assert x[[True, False]].tolist() == [1]
    x[[0]] = [7.0]
    x[1] = np.float32(8)
    assert x.tolist() == [7, 8]
    x.copy_(gl.tensor([5.0, 6.0]))  # copy_ is meant for this
    assert x.tolist() == [5, 6]


def test_gradients_flow_through_copy_between_devices(fake_cuda):
    v = gl.tensor([1.0, 2.0], requires_grad=True)
    x = gl.zeros(2, device="cuda")
    x.copy_(v)
    (x * gl.tensor([1.0, 10.0], device="cuda")).sum().backward()
    assert v.grad.tolist() == [1, 10]
    assert v.grad.device == "cpu"


def test_mixed_gradients_are_refused(fake_cuda):
    x = gl.tensor([1.0, 2.0], requires_grad=True)
    expected = r"backward: expected a gradient on cpu, as the output, got one on cuda:0; move it wi"
    with pytest.raises(DeviceError, match=expected):
        (x * 2).backward(gl.ones(2, device="cuda"))


# --------------------------------------------------------------------------- every op on "cuda"

SAMPLED = [op for op in REGISTRY.values() if op.samples is not None]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("op", SAMPLED, ids=lambda op: op.name)
def test_every_op_gives_on_cuda_what_it_gives_on_the_cpu(op, index, fake_cuda):
    for sample in op.samples():
        if not sample.large:
            call = gradlab.testing._Call(op, sample)
            gradlab.testing._check_device(call, gl.device(f"cuda:{index}"))


def test_check_sample_includes_cuda_where_it_works(fake_cuda, monkeypatch):
    seen = []
    check = gradlab.testing._check_device
    record = lambda call, device: seen.append(str(device)) or check(call, device)  # noqa: E731
    monkeypatch.setattr(gradlab.testing, "_check_device", record)
    op = REGISTRY["tanh"]
    sample = next(iter(op.samples()))
    check_sample(op, sample)
    check_sample(op, sample, devices=["cuda:1", "cpu"])
    assert seen == ["cuda:0", "cuda:1"]


def test_gradcheck_on_a_device(fake_cuda):
    x = gl.rand(3, device="cuda")
    assert gradcheck(lambda x: x.sin() * x, x, order=2)


def test_in_place_and_views_on_a_device(fake_cuda):
    for name in ("cuda:0", "cuda:1"):
        x = gl.arange(6.0, device=name, requires_grad=True)
        y = x.reshape(2, 3) * 1
        address = y.data_ptr()
        y[0] *= 2
        y[1, 1:] = 5.0
        y[y > 4.5] = 0.0
        y.T[0] += 1
        assert y.data_ptr() == address
        assert y.tolist() == [[1, 2, 4], [4, 0, 0]]
        y.sum().backward()
        assert x.grad.tolist() == [2, 2, 2, 1, 0, 0]
        with pytest.raises(GradientError, match="a view of a leaf tensor"):
            x[0] += 1


def test_training_on_a_device(fake_cuda):
    results = []
    for name in ("cpu", "cuda", "cuda:1"):
        gl.manual_seed(0)
        model = gl.nn.Sequential(gl.nn.Linear(4, 8), gl.nn.Tanh(), gl.nn.Linear(8, 3)).to(name)
        optimizer = gl.optim.Adam(model.parameters(), lr=0.01)
        x, target = gl.randn(16, 4, device=name), gl.randint(0, 3, (16,), device=name)
        for _ in range(3):
            loss = gl.nn.functional.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results.append([p.detach().cpu() for p in model.parameters()])
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])


def test_assert_close_compares_devices(fake_cuda):
    x = gl.tensor([1.0])
    with pytest.raises(AssertionError, match="expected a tensor on cpu, got one on cuda:0; move"):
        assert_close(x.cuda(), x)
    assert_close(x.cuda(), x, check_device=False)


def test_arrays_of_a_gpu_become_tensors_where_they_lie(fake_cuda):
    array = fake.Namespace(np).asarray(np.arange(3.0, dtype=np.float32))
    shared, copied = gl.asarray(array), gl.tensor(array)
    assert shared.device is copied.device is gl.device("cuda")
    assert shared.dtype == gl.float32
    array[0] = 7.0
    assert (shared[0].item(), copied[0].item()) == (7, 0)
    assert gl.asarray(array, device="cuda", dtype="float64").dtype == gl.float64
    with fake.Device(1):
        other = fake.Namespace(np).asarray(np.ones(2))
    assert gl.asarray(other).device is gl.device("cuda:1")


def test_filled_tensors_are_made_on_the_device(fake_cuda):
    gl.cuda.reset_statistics()
    made = [gl.zeros(2, 3, device="cuda:1"), gl.ones((2,), device="cuda", dtype="bfloat16"),
            gl.full((2,), 1.5, device="cuda", dtype="bfloat16"), gl.empty(4, device="cuda"),
            gl.full((2,), 7, device="cuda")]  # fmt: skip
    made.append(gl.zeros_like(made[0]))
    assert gl.cuda.statistics() == gl.cuda.Statistics()
    assert [str(x.device) for x in made] == ["cuda:1", *["cuda:0"] * 4, "cuda:1"]
    assert made[2].tolist() == [1.5, 1.5]
    assert made[4].dtype == gl.int64


@pytest.mark.parametrize("index", [1, 0])
@pytest.mark.parametrize("name", device_programs.PROGRAMS)
def test_programs_stay_on_their_device(name, index, fake_cuda):
    device_programs.run(name, gl.device("cuda", index), current=1 - index)


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor", "logical_not"])
def test_truths_of_complex_numbers(name, fake_cuda):
    x = np.array([0, 1j, 0, 1], np.complex64)
    inputs = [x] if name == "logical_not" else [x, x[::-1].copy()]
    expected = getattr(np, name)(*inputs)
    found = getattr(gl, name)(*(gl.tensor(each, device="cuda") for each in inputs))
    np.testing.assert_array_equal(found.cpu().numpy(), expected)
    if name != "logical_not":
        found = getattr(gl, name)(gl.tensor(x, device="cuda"), 1.5)
        np.testing.assert_array_equal(found.cpu().numpy(), getattr(np, name)(x, 1.5))


ORDER_STATISTICS = {
    "topk": lambda x: x.topk(2).values,
    "topk, the smallest": lambda x: x.topk(2, largest=False).values,
    "topk, unsorted": lambda x: x.topk(3, sorted=False).values.sum(1),
    "kthvalue": lambda x: x.kthvalue(2).values,
    "median": lambda x: x.median(1).values,
}


@pytest.mark.parametrize("name", ORDER_STATISTICS)
def test_order_statistics_do_not_wait(name, fake_cuda):
    x = gl.tensor([[3.0, 1.0, 2.0, 0.0], [5.0, 4.0, 7.0, 6.0]])
    there = x.to("cuda")
    gl.cuda.reset_statistics()
    found = ORDER_STATISTICS[name](there)
    assert gl.cuda.statistics().synchronizations == 0
    assert_close(found, ORDER_STATISTICS[name](x), check_device=False)


def test_a_number_on_a_gpu_as_index_is_a_wait_that_counts(fake_cuda):
    x, i = gl.arange(4, device="cuda"), gl.tensor(2, device="cuda")
    gl.cuda.reset_statistics()
    y = x[i]
    assert gl.cuda.statistics().synchronizations == gl.cuda.statistics().copies_to_host == 1
    assert y.item() == 2


def test_an_index_on_a_gpu_that_is_refused_is_explained(fake_cuda):
    x = gl.ones(4, 3, device="cuda:1")
    expected = r"an index from -4 to 3 for axis 0, got 9 \(shape \(4, 3\)\)"
    with pytest.raises(AxisError, match=expected):
        x[gl.tensor([0, 9], device="cuda:1")]
    with pytest.raises(AxisError, match=expected):
        x[gl.tensor([0, 9], device="cuda:1")] = 1.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_choosing_keeps_the_dtype(dtype, fake_cuda):
    # CuPy's `where` has no loop for bfloat16.
    x = gl.tensor([[1.0, -2.0], [-3.0, 4.0]], dtype=dtype, device="cuda", requires_grad=True)
    slope = gl.tensor([0.5], dtype=dtype, device="cuda")
    for y in (
        gl.where(x > 0, x, 0.0),
        gl.where(x > 0, x, -x),
        x.masked_fill(x > 0, 7),
        gl.nn.functional.prelu(x, slope),
        gl.nn.functional.relu(x),
        x.T.tril(),
        x.triu(1),
        x.clip(-1, 1),
    ):
        assert y.dtype == x.dtype
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == x.dtype
    assert x.T.tril().astype("float32").tolist() == [[1, 0], [-2, 4]]
    assert gl.where(x > 0, x, -x).astype("float32").tolist() == [[1, 2], [3, 4]]


# ------------------------------------------------------- numbers on the CPU beside tensors on a GPU


@pytest.mark.usefixtures("fake_cuda")
def test_a_number_on_the_cpu_meets_a_tensor_on_a_gpu():
    x, number = gl.ones(3, device="cuda"), gl.tensor(2.0)
    for y in (x * number, number * x, gl.maximum(x, number), gl.where(x > number, x, number)):
        assert str(y.device) == "cuda:0"
    assert (number - x).tolist() == [1.0, 1.0, 1.0]
    assert (gl.tensor(3.0, device="cuda") + number).item() == 5.0
    x += number
    x[0] = number
    assert x.tolist() == [2.0, 3.0, 3.0]


@pytest.mark.usefixtures("fake_cuda")
def test_the_gradient_of_a_number_on_the_cpu_comes_back_to_it():
    x = gl.arange(3.0, device="cuda", requires_grad=True)
    scale = gl.tensor(2.0, requires_grad=True)
    (scale * x).sum().backward()
    assert scale.grad.item() == 3.0
    assert str(scale.grad.device) == "cpu"
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_number_moves_without_a_wait(fake_cuda):
    x, number = gl.ones(3, device="cuda"), gl.tensor(2.0)
    gl.cuda.reset_statistics()
    x * number
    assert gl.cuda.statistics().synchronizations == 0


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(
    "call",
    [
        lambda x, number: x + number.reshape(1),
        lambda x, number: x.to("cuda:1")[0] + x,
        lambda x, number: number.add_(x.sum()),
        lambda x, number: gl.cat([x, number.reshape(1)]),
    ],
)
def test_anything_else_on_two_devices_is_refused(call):
    with pytest.raises(DeviceError, match=r"expected tensors on one device, got .*; move one"):
        call(gl.ones(3, device="cuda"), gl.tensor(2.0))


def test_questions_about_gpus_that_programs_begin_with(no_cuda):
    gl.backends.cudnn.deterministic, gl.backends.cudnn.benchmark = True, False
    assert not gl.backends.mps.is_available()
    assert not gl.backends.mps.is_built()
    assert not gl.backends.cudnn.is_available()
    assert not gl.accelerator.is_available()
    assert gl.accelerator.current_accelerator() is None
    assert gl.accelerator.device_count() == 0
    gl.cuda.empty_cache()
    for seed in (gl.manual_seed, gl.cuda.manual_seed, gl.cuda.manual_seed_all):
        seed(3)
        assert (
            gl.randint(0, 1000, ()).item()
            == gl.randint(0, 1000, (), generator=gl.Generator(3)).item()
        )


def test_the_accelerator_is_the_first_gpu(fake_cuda):
    assert gl.accelerator.is_available()
    assert gl.accelerator.current_accelerator() is gl.device("cuda:0")
    gl.cuda.empty_cache()
    assert fake_cuda.emptied == [0, 1]
