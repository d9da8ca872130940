"""`nn.Module`: attributes, names, state, moving, hooks, repr, and what is said about misuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import (
    DTypeError,
    GradientError,
    OptionError,
    ShapeError,
    StateError,
)
from refusals import refuses


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.scale = nn.Parameter(gl.tensor([2.0]))
        self.register_buffer("seen", gl.tensor(0))
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))

    def forward(self, x):
        return self.out(self.hidden(x) * self.scale)


def numbers(*shape: int, seed: int = 0) -> gl.Tensor:
    return gl.tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))


# ------------------------------------------------------------------------------- attributes


def test_parameters_are_registered_by_assignment():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale",
        "hidden.weight",
        "hidden.bias",
        "out.1.weight",
    ]
    assert [name for name, _ in net.named_buffers()] == ["seen"]
    assert list(net.parameters()) == [p for _, p in net.named_parameters()]
    assert [name for name, _ in net.named_children()] == ["hidden", "out"]
    assert [name for name, _ in net.named_modules()] == ["", "hidden", "out", "out.0", "out.1"]
    assert list(net.modules()) == [m for _, m in net.named_modules()]


def test_recurse_false_keeps_to_the_module_itself():
    net = Net()
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert list(net.parameters(recurse=False)) == [net.scale]
    assert [name for name, _ in net.out.named_parameters("out")] == ["out.1.weight"]


def test_shared_parameters_and_modules_count_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    names = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, layer)
    assert len(list(twice.parameters())) == 2
    assert list(twice.children()) == [layer]
    assert list(twice.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_shared_parameters_stay_shared():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    for same in (copy.deepcopy(net), net.to("float64"), pickle.loads(pickle.dumps(net))):
        assert same[1].weight is same[0].weight


def test_replacing_what_a_name_stands_for():
    net = Net()
    other = nn.Parameter(gl.ones(3))
    net.scale = other
    assert net.scale is other
    net.scale = None
    assert net.scale is None
    assert "scale" not in dict(net.named_parameters())
    net.scale = other  # its place among the names is kept
    assert next(net.named_parameters())[0] == "scale"
    net.seen = gl.tensor(5)
    assert int(dict(net.named_buffers())["seen"]) == 5
    net.hidden = nn.Identity()
    assert isinstance(net.get_submodule("hidden"), nn.Identity)
    net.seen = nn.Parameter(gl.ones(1))
    assert "seen" in dict(net.named_parameters())
    assert dict(net.named_buffers()) == {}


def test_assigning_something_else_is_refused():
    net = Net()
    with pytest.raises(DTypeError) as error:
        net.scale = gl.ones(1)
    assert str(error.value) == (
        "Net.scale: expected a Parameter or None, got a tensor; wrap it in nn.Parameter(...), or "
        "write into the old one with .copy_(...)"
    )
    with refuses(DTypeError, "Net.hidden: expected a Module or None, got int; delete"):
        net.hidden = 3
    with refuses(DTypeError, "Net.seen: expected a tensor or None, got list"):
        net.seen = [1]
    with refuses(DTypeError, "Net.scale: expected a Parameter or None, got Linear"):
        net.scale = nn.Linear(1, 1)


def test_plain_attributes_are_left_alone():
    net = Net()
    net.note = gl.ones(2)
    net.width = 3
    assert "note" not in net.state_dict()
    net.width = nn.Parameter(gl.ones(1))  # becomes a parameter
    assert "width" in net.state_dict()


def test_deleting_an_attribute_unregisters_it():
    net = Net()
    del net.scale, net.seen, net.hidden
    assert list(net.state_dict()) == ["out.1.weight"]
    with pytest.raises(AttributeError):
        del net.scale


def test_a_property_handles_its_own_assignment():
    class Held(nn.Module):
        @property
        def layer(self):
            return self.held[0]

        @layer.setter
        def layer(self, value):
            self.held = nn.ModuleList([value])

    net = Held()
    net.layer = nn.Linear(2, 1)
    assert [name for name, _ in net.named_parameters()] == ["held.0.weight", "held.0.bias"]


def test_a_method_of_a_subclass_may_be_replaced_by_a_module():
    class WithLoss(nn.Module):
        def loss(self, y):
            return y

    net = WithLoss()
    net.loss = nn.Identity()
    assert isinstance(net.loss, nn.Identity)
    assert [name for name, _ in net.named_children()] == ["loss"]


@pytest.mark.parametrize("value", [nn.Identity, lambda: nn.Parameter(gl.ones(1))])
def test_assigning_before_init_is_explained(value):
    class Early(nn.Module):
        def __init__(self) -> None:
            self.first = value()

    with refuses(StateError, "Early: expected super().__init__() first, got a "):
        Early()


def test_forgetting_init_is_explained():
    class Forgot(nn.Module):
        def __init__(self) -> None:
            self.width = 3

    message = r"Forgot: call super\(\).__init__\(\) before using the module"
    with pytest.raises(AttributeError, match=message):
        list(Forgot().parameters())
    with pytest.raises(AttributeError, match=message):
        _ = Forgot().training


def test_missing_attribute_suggests_close_names():
    layer = nn.Linear(2, 2)
    with refuses(AttributeError, "Linear has no attribute 'wieght'; did you mean 'weig"):
        _ = layer.wieght
    with refuses(AttributeError, "Linear has no attribute 'zzz'"):
        _ = layer.zzz
    assert not hasattr(layer, "wieght")
    assert getattr(layer, "zzz", 7) == 7


def test_an_error_inside_a_property_is_shown():
    class Broken(nn.Module):
        @property
        def width(self):
            return self.hidden.width

        hidden = None

    with refuses(AttributeError, "'NoneType' object has no attribute 'width'"):
        _ = Broken().width


def test_dir_lists_names_and_no_numbers():
    names = dir(nn.Sequential(nn.ReLU()))
    assert "0" not in names
    assert {"append", "named_parameters"} <= set(names)
    assert {"weight", "bias"} <= set(dir(nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.register_parameter("w", gl.ones(1)),
            "expected a Parameter or None, got Tensor",
        ),
        (lambda m: m.register_buffer("w", [1]), "expected a tensor or None, got list"),
        (lambda m: m.add_module("w", nn.ReLU), "got the class ReLU; make one: ReLU("),
        (lambda m: m.add_module("w", 3), "expected a Module or None, got int"),
        (lambda m: m.add_module("a.b", None), "expected a name without dots, not empty, got 'a.b'"),
        (lambda m: m.register_buffer("", None), "not empty, got ''"),
        (lambda m: m.register_buffer(3, None), "got 3"),
        (lambda m: m.add_module("forward", nn.ReLU()), "got 'forward', which is an attribute alr"),
        (lambda m: m.register_buffer("hidden", None), "got 'hidden', which is an attribute alrea"),
        (lambda m: setattr(m, "to", nn.ReLU()), "got 'to', which is an attribute already"),
    ],
)
def test_registering_something_wrong(call, message):
    with pytest.raises((DTypeError, StateError)) as error:
        call(Net())
    assert message in str(error.value)
    assert str(error.value).startswith("Net")


def test_what_is_registered_as_dicts():
    class Chain(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            for i, layer in enumerate(layers):
                self._modules[str(i)] = layer

        def forward(self, x):
            for layer in self._modules.values():
                x = layer(x)
            return x

    net = Chain(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert net(gl.ones(4, 2)).shape == (4, 3)
    assert [name for name, _ in net.named_children()] == list(net._modules) == ["0", "1"]
    assert net._modules["1"]._parameters["weight"] is net._modules["1"].weight
    assert "running_mean" in net._modules["1"]._buffers
    assert str(nn.Sequential(nn.ReLU())._modules) == "{'0': ReLU()}"

    net._modules["1"] = nn.Tanh()
    assert len(net._modules) == 2
    assert isinstance(net(gl.ones(4, 2)), gl.Tensor)
    del net._modules["0"]
    assert list(net.parameters()) == []
    with pytest.raises(KeyError):
        net._modules["0"]
    with pytest.raises(KeyError):
        del net._modules["0"]
    net._parameters["scale"] = nn.Parameter(gl.ones(1))
    net._buffers["mean"] = gl.zeros(1)
    assert list(net.state_dict()) == ["scale", "mean"]
    with pytest.raises(gl.errors.DTypeError, match="register_module: expected a Module or None"):
        net._modules["2"] = gl.relu


def test_getting_by_dotted_name():
    net = Net()
    assert net.get_submodule("out.1") is net.out[1]
    assert net.get_submodule("") is net
    assert net.get_parameter("out.1.weight") is net.out[1].weight
    assert net.get_buffer("seen") is net.seen
    with refuses(AttributeError, "got 'out.3.x'; Sequential has the submodules '0', '1'"):
        net.get_submodule("out.3.x")
    with refuses(AttributeError, "name of a parameter, got 'out.1.b'; Linear has 'wei"):
        net.get_parameter("out.1.b")
    with refuses(AttributeError, "name of a buffer, got 'x'; Net has 'seen'"):
        net.get_buffer("x")


def test_forward_missing():
    with refuses(NotImplementedError, "Module: expected a method forward, got none"):
        nn.Module()(1)


# ------------------------------------------------------------------------------------- state


def test_state_dict_shares_memory_and_has_no_history():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["scale", "seen", "hidden.weight", "hidden.bias", "out.1.weight"]
    assert not state["scale"].requires_grad
    state["scale"][0] = 7.0
    assert net.scale.item() == 7.0
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert list(net.hidden.state_dict(prefix="net.")) == ["net.weight", "net.bias"]


def test_buffers_that_are_not_persistent_are_left_out():
    module = nn.Module()
    module.register_buffer("kept", gl.ones(1))
    module.register_buffer("scratch", gl.ones(1), persistent=False)
    module.register_buffer("none", None)
    assert list(module.state_dict()) == ["kept"]
    assert [name for name, _ in module.named_buffers()] == ["kept", "scratch"]


def test_loading_copies_into_the_same_memory():
    net, other = Net(), Net()
    before = {name: (p, p.data_ptr()) for name, p in net.named_parameters()}
    keys = net.load_state_dict(other.state_dict())
    assert repr(keys) == "<All keys matched successfully>"
    assert keys == ([], [])
    for name, p in net.named_parameters():
        assert before[name] == (p, p.data_ptr())
        assert p.requires_grad
        np.testing.assert_array_equal(
            p.detach().numpy(), other.get_parameter(name).detach().numpy()
        )


def test_loading_takes_arrays_and_casts():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": [3]})
    assert layer.weight.dtype == gl.float32
    assert layer.weight.tolist() == [[1.0, 2.0]]
    assert layer.bias.tolist() == [3.0]


def test_loading_names_everything_that_is_wrong_and_changes_nothing():
    net = Net()
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    wrong = {
        "scale": gl.ones(1),
        "seen": 1.5,
        "hidden.weight": gl.ones(4, 5),
        "hidden.bias": np.array(["a"] * 4),
        "out.2.weight": gl.ones(1),
    }
    with pytest.raises(StateError) as error:
        net.load_state_dict(wrong)
    assert str(error.value) == (
        "load_state_dict of Net: missing out.1.weight; unexpected out.2.weight; "
        "seen: expected int64 values, got float32; "
        "hidden.weight: expected shape (4, 3), got (4, 5); "
        "hidden.bias: expected numbers, got ndarray holding text; convert it to a numeric dtype "
        "first. Nothing was loaded"
    )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_loading_not_strictly():
    net = Net()
    keys = net.load_state_dict({"scale": gl.tensor([5.0]), "other": gl.ones(1)}, strict=False)
    assert net.scale.item() == 5.0
    assert keys.unexpected_keys == ["other"]
    assert keys.missing_keys == ["seen", "hidden.weight", "hidden.bias", "out.1.weight"]
    with refuses(StateError, "scale: expected shape (1,), got (2,). Nothing was"):
        net.load_state_dict({"scale": gl.ones(2)}, strict=False)


def test_loading_names_of_a_wrapped_module():
    net = Net()
    wrapped = {f"module.net.{name}": value for name, value in net.state_dict().items()}
    with refuses(StateError, "every name begins with 'module.net.': take that off"):
        net.load_state_dict(wrapped)


def test_loading_lists_the_first_few_names_only():
    deep = nn.Sequential(*[nn.Linear(2, 2) for _ in range(100)])
    with pytest.raises(StateError) as error:
        deep.load_state_dict({f"layers.{i}": gl.ones(1) for i in range(7)})
    assert str(error.value) == (
        "load_state_dict of Sequential: missing 0.weight, 0.bias, 1.weight, 1.bias, 2.weight, "
        "... and 195 more; unexpected layers.0, layers.1, layers.2, layers.3, layers.4, "
        "... and 2 more. Nothing was loaded"
    )
    wrong = {name: gl.ones(3) for name in deep.state_dict()}
    with refuses(StateError, "2.weight: expected shape (2, 2), got (3,); ... and 195 others that"):
        deep.load_state_dict(wrong)


def test_loading_the_checkpoint_of_a_trainer():
    net = Net()
    own = net.state_dict()
    hint = 'a Trainer: load gradlab.training.read_checkpoint(path)["model"]. Nothing'
    with refuses(StateError, hint):
        net.load_state_dict({"position": {}, "model": own})
    tensors = {f"model.{name}": value for name, value in own.items()}
    with refuses(StateError, hint):
        net.load_state_dict({**tensors, "random.python.words": gl.ones(1)})


def test_loading_something_else():
    with refuses(StateError, "expected a dict of names and values, got str; read a fi"):
        Net().load_state_dict("weights.safetensors")


def test_deepcopy_and_pickle():
    net = Net()
    x = numbers(5, 3)
    net(x).sum().backward()
    for same in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert same.scale is not net.scale
        assert isinstance(same.scale, nn.Parameter)
        np.testing.assert_array_equal(same(x).detach().numpy(), net(x).detach().numpy())
    assert copy.deepcopy(net).scale.grad.tolist() == net.scale.grad.tolist()


# ------------------------------------------------------------------------- everything at once


def test_train_and_eval():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    with refuses(OptionError, "Net.train: expected True or False, got 'yes'"):
        net.train("yes")


def test_to_keeps_parameters_gradients_and_optimizers():
    net = Net()
    net(numbers(5, 3)).sum().backward()
    scale, grad = net.scale, net.scale.grad
    assert net.to(gl.float64) is net
    assert net.scale is scale
    assert net.scale.grad is grad
    assert {p.dtype for p in net.parameters()} == {gl.float64}
    assert grad.dtype == gl.float64
    assert net.seen.dtype == gl.int64
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())
    net(numbers(5, 3).double()).sum().backward()
    assert grad.dtype == gl.float64


@pytest.mark.parametrize(
    ("cast", "dtype"),
    [
        (lambda m: m.double(), "float64"),
        (lambda m: m.half(), "float16"),
        (lambda m: m.bfloat16(), "bfloat16"),
        (lambda m: m.double().float(), "float32"),
        (lambda m: m.type("float64"), "float64"),
        (lambda m: m.to("cpu", "float16"), "float16"),
        (lambda m: m.to(dtype=gl.float64, device="cpu"), "float64"),
        (lambda m: m.to(gl.ones(1, dtype="float64")), "float64"),
        (lambda m: m.cpu(), "float32"),
    ],
)
def test_casts(cast, dtype):
    net = cast(Net())
    assert {p.dtype.name for p in net.parameters()} == {dtype}


def test_to_refuses_what_it_cannot_do():
    with refuses(DTypeError, "Net.to: expected a floating dtype, got int64; parameters"):
        Net().to(gl.int64)
    with refuses(gl.errors.DeviceError, "or 'auto', got 'gpu'"):
        Net().to("gpu")


def test_requires_grad_and_zero_grad():
    net = Net()
    net(numbers(5, 3)).sum().backward()
    grad = net.scale.grad
    net.zero_grad(set_to_none=False)
    assert net.scale.grad is grad
    assert grad.tolist() == [0.0]
    net.zero_grad()
    assert net.scale.grad is None
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_apply_goes_from_the_inside_out():
    order = []
    net = Net()
    assert net.apply(lambda module: order.append(type(module).__name__)) is net
    assert order == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


# ------------------------------------------------------------------------------------- hooks


def test_forward_hooks_see_and_change():
    layer = nn.Identity()
    seen = []
    first = layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    second = layer.register_forward_pre_hook(lambda m, args: args[0] * 10)  # not a tuple
    third = layer.register_forward_hook(lambda m, args, y: seen.append((args[0].item(), y.item())))
    fourth = layer.register_forward_hook(lambda m, args, y: -y)
    assert layer(gl.tensor(1.0)).item() == -20
    assert seen == [(20.0, 20.0)]
    for handle in (first, second, third, fourth):
        handle.remove()
    assert layer(gl.tensor(1.0)).item() == 1


def test_hooks_with_kwargs_and_prepended():
    class Scale(nn.Module):
        def forward(self, x, *, by):
            return x * by

    layer, order = Scale(), []
    layer.register_forward_pre_hook(lambda m, a: order.append("late"))
    layer.register_forward_pre_hook(
        lambda m, a, k: (order.append("early"), (a, {"by": 3}))[1], with_kwargs=True, prepend=True
    )
    layer.register_forward_hook(lambda m, a, k, y: order.append(k["by"]), with_kwargs=True)
    assert layer(2, by=2) == 6
    assert order == ["early", "late", 3]
    layer.register_forward_pre_hook(lambda m, a, k: a, with_kwargs=True)
    with pytest.raises(
        OptionError, match=r"pre-hook of Scale: expected None or a pair \(args, kwar"
    ):
        layer(2, by=2)


def test_a_hook_may_remove_itself():
    layer = nn.Identity()
    seen = []

    def once(module, args, y):
        seen.append(y)
        handle.remove()

    handle = layer.register_forward_hook(once)
    layer(1)
    layer(2)
    assert seen == [1]


def test_backward_hook_sees_the_gradients_through_this_module_alone():
    layer = nn.Linear(3, 2)
    seen = []
    handle = layer.register_full_backward_hook(lambda m, gx, gy: seen.append((m, gx, gy)))
    x = numbers(4, 3).requires_grad_()
    y = layer(x)
    (y.sum() + (x * 5).sum()).backward()
    ((module, (gx,), (gy,)),) = seen
    assert module is layer
    np.testing.assert_array_equal(gy.numpy(), np.ones((4, 2), "float32"))
    expected = np.ones((4, 2), "float32") @ layer.weight.detach().numpy()
    np.testing.assert_allclose(gx.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), expected + 5, rtol=1e-6)
    handle.remove()
    layer(x).sum().backward()
    assert len(seen) == 1


def test_backward_hook_replaces_the_gradients():
    class Sum(nn.Module):
        def forward(self, a, b, c):
            return a + b * 2, a * c

    layer = Sum()
    layer.register_full_backward_hook(lambda m, gx, gy: (gx[0] * 10, gx[1] + 1, None))
    a, b = gl.tensor(1.0, requires_grad=True), gl.tensor(2.0, requires_grad=True)
    first, second = layer(a, b, 3)
    (first + second).backward()
    assert (a.grad.item(), b.grad.item()) == (40.0, 3.0)

    layer.register_full_backward_hook(lambda m, gx, gy: gx[:1])
    with refuses(GradientError, "backward hook of Sum: expected None or 3 gradients, on"):
        layer(a, b, 3)[0].backward()


def test_backward_hook_without_gradients_for_the_input():
    layer, seen = nn.Linear(3, 2), []
    layer.register_full_backward_hook(lambda m, gx, gy: seen.append((gx, gy[0].shape)))
    layer(numbers(4, 3)).sum().backward()
    assert seen == [((None,), (4, 2))]
    assert layer.weight.grad is not None
    with gl.no_grad():
        layer(numbers(4, 3))
    assert len(seen) == 1


def test_backward_hook_goes_along_with_second_order():
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, gx, gy: (gx[0] * 2,))
    x = gl.tensor(0.3, dtype="float64", requires_grad=True)
    (g,) = gl.autograd.grad(layer(x), x, create_graph=True)
    (h,) = gl.autograd.grad(g, x)
    t = np.tanh(0.3)
    assert g.item() == pytest.approx(2 * (1 - t * t))
    # The way back from g to x leads through the module, and so through the hook, once more.
    assert h.item() == pytest.approx(-8 * t * (1 - t * t))


def test_backward_hook_refuses_a_module_that_writes_to_its_input():
    layer = nn.ReLU(inplace=True)
    layer.register_full_backward_hook(lambda m, gx, gy: None)
    x = numbers(3).requires_grad_() * 1
    with refuses(GradientError, "ReLU: expected a forward that leaves its input as it i"):
        layer(x)


def test_hooks_are_the_instances_own():
    first, second = nn.Identity(), nn.Identity()
    first.register_forward_hook(lambda m, args, y: y + 1)
    assert (first(1), second(1)) == (2, 1)
    assert copy.deepcopy(first)(1) == 2


# -------------------------------------------------------------------------------------- repr


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (hidden): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (out): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=4, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Module()) == "Module()"

    class Wordy(nn.Module):
        def extra_repr(self):
            return "one\ntwo"

    assert repr(Wordy()) == "Wordy(\n  one\n  two\n)"
    module = Wordy()
    module.inner = nn.ReLU()
    module.empty = None
    module.register_module("missing", None)
    assert repr(module) == "Wordy(\n  one\n  two\n  (inner): ReLU()\n  (missing): None\n)"


def test_names_in_a_repr_do_not_reach_the_terminal_raw():
    hostile = "a\x1b[2J\n"
    assert repr(nn.ModuleDict({hostile: nn.ReLU()})) == "ModuleDict(\n  (a\\x1b[2J\\n): ReLU()\n)"
    assert repr(nn.ParameterDict({hostile: gl.ones(1)})).startswith(
        "ParameterDict(\n  (a\\x1b[2J\\n): Parameter containing"
    )


def test_a_wrong_shape_inside_a_model_names_the_layer():
    with pytest.raises(
        ShapeError, match=r"^Linear\(3 -> 4\): expected an input whose last size is 3"
    ):
        Net()(numbers(5, 7))


# ------------------------------------------------------------------------- names from elsewhere


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"\x1b[2J": gl.ones(1)}, r"unexpected \x1b[2J. Nothing was loaded"),
        ({3: gl.ones(1), None: 1, (1, 2): 1}, "unexpected 3, None, (1, 2). Nothing was loaded"),
        ({"\ud800": 1, b"x": 1}, r"unexpected \ud800, b'x'. Nothing was loaded"),
    ],
)
def test_names_of_a_state_dict_are_shown_and_need_not_be_strings(change, text):
    model = nn.Linear(2, 1)
    state = {**model.state_dict(), **change}
    with pytest.raises(StateError) as raised:
        model.load_state_dict(state)
    assert str(raised.value) == f"load_state_dict of Linear: {text}"
    with pytest.raises(StateError, match="missing weight, bias; unexpected"):
        model.load_state_dict(change)
    keys = model.load_state_dict(state, strict=False)
    assert keys.unexpected_keys == list(change)


@pytest.mark.parametrize(
    "register",
    ["register_forward_pre_hook", "register_forward_hook", "register_full_backward_hook"],
)
def test_a_hook_is_a_function(register):
    layer = nn.Linear(1, 1)
    with pytest.raises(OptionError, match=f"{register}: expected a function, got 3"):
        getattr(layer, register)(3)
    layer(gl.ones(1, 1)).sum().backward()
