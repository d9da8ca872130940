"""How optimizers treat parameters, memory, state and devices; the arithmetic is in tests/parity."""

import copy
import json
import threading

import numpy as np
import pytest

import gradlab as gl
from gradlab import dtypes
from gradlab.devices import Device
from gradlab.ops import update

OPTIMIZERS = {
    "SGD": lambda params: gl.optim.SGD(params, lr=0.1),
    "SGD, momentum": lambda params: gl.optim.SGD(
        params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "Adam": lambda params: gl.optim.Adam(params, lr=0.1, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda params: gl.optim.AdamW(params, lr=0.1, maximize=True),
    "RMSprop": lambda params: gl.optim.RMSprop(params, lr=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda params: gl.optim.Adagrad(params, lr=0.1, initial_accumulator_value=0.1),
    "Adadelta": lambda params: gl.optim.Adadelta(params, lr=0.1, weight_decay=0.1),
    "Adamax": lambda params: gl.optim.Adamax(params, lr=0.1, weight_decay=0.1),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def leaf(shape, seed=0, dtype="float32"):
    values = np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)
    return gl.from_numpy(values).requires_grad_()


def set_gradients(params, rng):
    for p in params:
        p.grad = gl.from_numpy(np.asarray(rng.standard_normal(p.shape)).astype(p.dtype))


def steps(optimizer, count, rng):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(count):
        set_gradients(params, rng)
        optimizer.step()


def bits(params):
    return [p.detach().numpy().tobytes() for p in params]


# --------------------------------------------------------------------------------------- pieces


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pieces_give_the_bits_of_whole_arrays(make, dtype, monkeypatch):
    shapes = [(), (5,), (0, 2), (7, 9), (3, 2, 11), (101,)]
    results = []
    for small, piece in [(10**9, 10**9), (2, 8), (2, 10**4), (50, 60)]:
        monkeypatch.setattr(update, "SMALL", small)
        monkeypatch.setattr(update, "PIECE", piece)
        monkeypatch.setattr(update, "_kept", update._Kept())
        params = [leaf(shape, dtype=dtypes.as_dtype(dtype)) for shape in shapes]
        steps(make(params), 3, np.random.default_rng(1))
        results.append(bits(params))
    assert all(result == results[0] for result in results)


@every_optimizer
@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_layouts_give_the_same_bits(make, axes, monkeypatch):
    monkeypatch.setattr(update, "SMALL", 4)
    monkeypatch.setattr(update, "PIECE", 16)
    monkeypatch.setattr(update, "_kept", update._Kept())
    plain = leaf((6, 7, 3))
    inverse = np.argsort(axes)
    strided = gl.from_numpy(
        np.ascontiguousarray(plain.detach().numpy().transpose(axes)).transpose(inverse)
    ).requires_grad_()
    first, second = make([plain]), make([strided])
    rng = np.random.default_rng(0)
    for _ in range(3):
        set_gradients([plain], rng)
        # The gradient in yet another layout.
        strided.grad = gl.from_numpy(np.asfortranarray(plain.grad.numpy()))
        first.step()
        second.step()
    assert strided.stride() != plain.stride()
    assert np.array_equal(plain.detach().numpy(), strided.detach().numpy())


def test_threads_do_not_share_temporaries():
    params = [leaf((update.SMALL + 1,), seed) for seed in range(4)]
    expected = [leaf((update.SMALL + 1,), seed) for seed in range(4)]
    barrier = threading.Barrier(4)

    def train(p, seed):
        barrier.wait()
        steps(gl.optim.Adam([p], weight_decay=0.1), 20, np.random.default_rng(seed))

    threads = [threading.Thread(target=train, args=(p, i)) for i, p in enumerate(params)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, p in enumerate(expected):
        steps(gl.optim.Adam([p], weight_decay=0.1), 20, np.random.default_rng(seed))
    assert bits(params) == bits(expected)


class Namespace:
    """NumPy under another name, as CuPy looks to the updates: no pieces, no kept temporaries."""

    def __getattr__(self, name):
        return getattr(np, name)


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_array_namespace_gives_the_same_bits(make, dtype, monkeypatch):
    monkeypatch.setattr(update, "SMALL", 4)
    elsewhere = Device("cpu", None)
    elsewhere.xp = Namespace()
    shapes = [(), (5,), (0, 2), (7, 9)]
    params = [leaf(shape, dtype=dtypes.as_dtype(dtype)) for shape in shapes]
    others = [p.detach().to(elsewhere).requires_grad_() for p in params]
    first, second = make(params), make(others)
    rng = np.random.default_rng(0)
    for _ in range(3):
        set_gradients(params, rng)
        for p, other in zip(params, others, strict=True):
            other.grad = p.grad.to(elsewhere)
        first.step()
        second.step()
    assert bits(params) == [p.detach().numpy(force=True).tobytes() for p in others]


# ------------------------------------------------------------------------- gradients, recording


@every_optimizer
def test_gradients_are_left_as_they_are(make):
    p = leaf((4, 5))
    p.grad = g = leaf((4, 5), seed=1).detach()
    before = g.numpy().copy()
    optimizer = make([p])
    optimizer.step()
    optimizer.step()
    assert p.grad is g
    assert np.array_equal(g.numpy(), before)


@every_optimizer
@pytest.mark.parametrize("grad_mode", [gl.no_grad, gl.enable_grad, gl.inference_mode])
def test_nothing_is_recorded_in_any_mode(make, grad_mode):
    p = leaf((3,))
    memory = p.data_ptr()
    optimizer = make([p])
    outside = leaf((3,))
    reference = make([outside])
    for seed in range(3):
        for each, one in [(p, optimizer), (outside, reference)]:
            each.grad = leaf((3,), seed).detach()
            if each is p:
                with grad_mode():
                    one.step()
            else:
                one.step()
    assert p.is_leaf
    assert p.requires_grad
    assert p.data_ptr() == memory
    assert bits([p]) == bits([outside])
    for entries in optimizer.state.values():
        assert not any(isinstance(v, gl.Tensor) and v.requires_grad for v in entries.values())


def test_gradients_that_carry_a_graph():
    p = gl.tensor([2.0], requires_grad=True)
    optimizer = gl.optim.SGD([p], lr=0.1)
    (p**3).sum().backward(create_graph=True)
    assert p.grad.requires_grad
    optimizer.step()
    assert p.is_leaf
    assert p.item() == pytest.approx(2 - 0.1 * 12)
    optimizer.zero_grad(set_to_none=False)
    assert not p.grad.requires_grad
    assert p.grad.item() == 0


def test_a_value_saved_for_backward_is_not_changed_unnoticed():
    p = gl.tensor([2.0], requires_grad=True)
    loss = (p * p).sum()
    p.grad = gl.tensor([1.0])
    gl.optim.SGD([p], lr=0.1).step()
    with pytest.raises(gl.errors.GradientError, match="sgd_step changed in place"):
        loss.backward()


def test_closure_records_and_its_loss_is_returned():
    p = gl.tensor([4.0], requires_grad=True)
    optimizer = gl.optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with gl.no_grad():
        assert optimizer.step(closure).item() == 16
        assert optimizer.step(closure).item() == 4
        assert not gl.is_grad_enabled()
    assert p.item() == 1
    assert optimizer.step() is None


def test_zero_grad():
    p, q = leaf((2,)), leaf((2,))
    optimizer = gl.optim.SGD([p, q], lr=0.1)
    p.grad = gl.ones(2)
    memory = p.grad.data_ptr()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.data_ptr() == memory
    assert p.grad.tolist() == [0, 0]
    assert q.grad is None
    optimizer.zero_grad()
    assert p.grad is None


def test_steps_without_gradients_do_nothing():
    p = leaf((2,))
    optimizer = gl.optim.Adam([p])
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}


# -------------------------------------------------------------------------------- shared memory


@every_optimizer
def test_a_parameter_may_look_into_other_memory(make):
    whole = np.zeros(10, np.float32)
    p = gl.from_numpy(whole)[2:5].detach().requires_grad_()
    q = leaf((3,))
    with gl.no_grad():
        q.zero_()
    for each in (p, q):
        optimizer = make([each])
        steps(optimizer, 3, np.random.default_rng(0))
    assert np.array_equal(whole[2:5], q.detach().numpy())
    assert not whole[:2].any()
    assert not whole[5:].any()


def test_writing_to_a_view_counts_for_the_whole():
    whole = gl.ones(4)
    p = whole[:2].detach().requires_grad_()
    scale = gl.ones(4, requires_grad=True)
    loss = (scale * whole).sum()
    p.grad = gl.ones(2)
    gl.optim.SGD([p], lr=0.1).step()
    with pytest.raises(gl.errors.GradientError, match="sgd_step changed in place"):
        loss.backward()


def test_parameters_of_a_module_and_tied_weights():
    class Tied(gl.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = gl.nn.Parameter(gl.ones(2, 2))
            self.second = self.first

    model = Tied()
    optimizer = gl.optim.SGD(model.parameters(), lr=0.5)
    assert len(optimizer.param_groups[0]["params"]) == 1
    (model.first.sum() + model.second.sum()).backward()
    optimizer.step()
    assert model.second.tolist() == [[0, 0], [0, 0]]
    assert isinstance(model.first, gl.nn.Parameter)


def test_named_parameters():
    p, q = leaf((2,)), leaf((3,))
    optimizer = gl.optim.SGD([("first", p), ("second", q)], lr=0.1)
    assert optimizer.param_groups[0]["params"] == [p, q]


# ---------------------------------------------------------------------------- devices and dtypes


@every_optimizer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_updated_in_float32_and_rounded_once(make, dtype):
    start = leaf((40,)).detach().astype(dtype)
    half = start.clone().requires_grad_()
    wide = start.astype("float32").requires_grad_()
    optimizer, reference = make([half]), make([wide])
    rng = np.random.default_rng(0)
    for _ in range(5):
        set_gradients([half], rng)
        with gl.no_grad():
            wide.copy_(half.astype("float32"))
        wide.grad = half.grad.astype("float32")
        optimizer.step()
        reference.step()
        expected = wide.detach().astype(dtype)
        assert half.detach().astype("float32").tolist() == expected.astype("float32").tolist()
    for entries in optimizer.state.values():
        assert {v.dtype for v in entries.values() if isinstance(v, gl.Tensor)} <= {gl.float32}


def test_float64_parameters_keep_their_precision():
    p = gl.tensor([1.0], dtype=gl.float64, requires_grad=True)
    p.grad = gl.tensor([1.0], dtype=gl.float64)
    optimizer = gl.optim.Adam([p], lr=1e-12)
    optimizer.step()
    assert optimizer.state[p]["exp_avg"].dtype == gl.float64
    assert 0 < 1 - p.item() < 1e-11


@every_optimizer
def test_state_follows_a_model_that_is_cast(make):
    p = leaf((3,))
    optimizer = make([p])
    steps(optimizer, 2, np.random.default_rng(0))
    p.data = p.data.astype(gl.float64)
    steps(optimizer, 1, np.random.default_rng(0))
    for entries in optimizer.state.values():
        assert {v.dtype for v in entries.values() if isinstance(v, gl.Tensor)} <= {gl.float64}


@every_optimizer
def test_state_follows_a_model_that_is_moved(make):
    elsewhere = Device("cpu", None)  # another device object, so another device
    p, q = leaf((3,)), leaf((3,))
    moving, staying = make([p]), make([q])
    for optimizer in (moving, staying):
        steps(optimizer, 2, np.random.default_rng(0))
    p.data = p.data.to(elsewhere)
    q.grad = leaf((3,), seed=5).detach()
    p.grad = q.grad.to(elsewhere)
    moving.step()
    staying.step()
    assert p.device is elsewhere
    assert np.array_equal(p.detach().numpy(force=True), q.detach().numpy())
    for entries in moving.state.values():
        assert all(v.device is elsewhere for v in entries.values() if isinstance(v, gl.Tensor))


@every_optimizer
def test_one_group_on_two_devices(make):
    elsewhere = Device("cpu", None)
    p, q = leaf((3,)), leaf((3,)).detach().to(elsewhere).requires_grad_()
    optimizer = make([p, q])
    for seed in range(3):
        p.grad = leaf((3,), seed).detach()
        q.grad = p.grad.to(elsewhere)
        optimizer.step()
    assert np.array_equal(p.detach().numpy(), q.detach().numpy(force=True))


def test_numpy_scalars_as_options_do_not_widen_the_arithmetic():
    p, q = leaf((5,)), leaf((5,))
    steps(gl.optim.SGD([p], lr=np.float64(0.1)), 1, np.random.default_rng(0))
    other = gl.optim.SGD([q], lr=1.0)
    other.param_groups[0]["lr"] = np.float64(0.1)
    steps(other, 1, np.random.default_rng(0))
    third = leaf((5,))
    steps(gl.optim.SGD([third], lr=0.1), 1, np.random.default_rng(0))
    assert bits([p]) == bits([q]) == bits([third])


def test_a_rate_given_as_a_tensor():
    p = leaf((2,))
    assert gl.optim.SGD([p], lr=gl.tensor(0.5)).param_groups[0]["lr"] == 0.5


# --------------------------------------------------------------------------------------- saving


def groups_of(make, seed):
    params = [leaf(shape, seed) for shape in [(3,), (), (2, 5), (0,)]]
    optimizer = make(params[:2])
    optimizer.add_param_group({"params": params[2:], "lr": 0.03, "name": "others"})
    return params, optimizer


@every_optimizer
@pytest.mark.parametrize("way", ["objects", "arrays", "file"])
def test_resuming_in_mid_run_changes_no_bit(make, way, tmp_path):
    params, optimizer = groups_of(make, 0)
    rng = np.random.default_rng(1)
    steps(optimizer, 7, rng)
    state = copy.deepcopy(optimizer.state_dict())
    values = [p.detach().numpy().copy() for p in params]
    saved_rng = copy.deepcopy(rng)
    if way == "file":
        gl.save(optimizer.state_dict(), tmp_path / "optimizer.safetensors")
        state = gl.load(tmp_path / "optimizer.safetensors")
    elif way == "arrays":  # what a JSON file beside an archive of arrays gives back
        entries = {
            str(number): {
                name: v.numpy() if isinstance(v, gl.Tensor) else v for name, v in each.items()
            }
            for number, each in state["state"].items()
        }
        state = {"state": entries, "param_groups": json.loads(json.dumps(state["param_groups"]))}
    steps(optimizer, 7, rng)

    resumed, other = groups_of(make, 9)
    with gl.no_grad():
        for p, value in zip(resumed, values, strict=True):
            p.copy_(gl.from_numpy(value))
    for group in other.param_groups:
        group["lr"] = 123.0
    other.load_state_dict(state)
    steps(other, 7, saved_rng)
    assert bits(resumed) == bits(params)
    assert other.param_groups[1]["name"] == "others"
    assert other.param_groups[1]["lr"] == 0.03


@every_optimizer
def test_a_loaded_state_is_a_copy(make):
    _, optimizer = groups_of(make, 0)
    steps(optimizer, 1, np.random.default_rng(0))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    _, other = groups_of(make, 0)
    other.load_state_dict(state)
    steps(other, 3, np.random.default_rng(1))
    for number, entries in state["state"].items():
        for name, value in entries.items():
            assert np.array_equal(np.asarray(value), np.asarray(before["state"][number][name]))


def test_state_dict_has_pytorchs_form():
    params, optimizer = groups_of(OPTIMIZERS["Adam"], 0)
    params[0].grad = gl.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2, 3]]
    assert list(state["state"]) == [0]
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert state["state"][0]["step"] == 1
    json.dumps(state["param_groups"])


def test_options_of_other_libraries_are_left_out():
    optimizer = gl.optim.SGD([leaf((2,))], lr=0.1)
    state = optimizer.state_dict()
    state["param_groups"][0] |= {"foreach": None, "fused": True}
    optimizer.load_state_dict(state)
    assert "fused" not in optimizer.param_groups[0]


def test_a_copied_optimizer_is_on_its_own():
    p = leaf((3,))
    optimizer = gl.optim.Adam([p])
    steps(optimizer, 2, np.random.default_rng(0))
    other = copy.deepcopy(optimizer)
    (q,) = other.param_groups[0]["params"]
    before = bits([p])
    steps(other, 1, np.random.default_rng(1))
    assert bits([p]) == before
    steps(optimizer, 1, np.random.default_rng(1))
    assert bits([p]) == bits([q])


def test_repr():
    text = repr(gl.optim.SGD([leaf((2,))], lr=0.1))
    assert text.splitlines()[:2] == ["SGD (", "Parameter Group 0"]
    assert "    lr: 0.1" in text
