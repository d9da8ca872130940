"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict

import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import AxisError, DTypeError, OptionError, StateError
from refusals import refuses


class Plus(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x):
        return x * 10 + self.n

    def extra_repr(self):
        return str(self.n)


def row(*numbers: int) -> list[Plus]:
    return [Plus(n) for n in numbers]


def held(container) -> list[int]:
    assert [name for name, _ in container.named_modules()][1:] == [
        str(i) for i in range(len(container))
    ]
    return [module.n for module in container]


def test_sequential_runs_in_order():
    assert nn.Sequential(*row(1, 2, 3))(0) == 123
    assert nn.Sequential()(7) == 7


def test_sequential_with_names():
    net = nn.Sequential(OrderedDict(first=Plus(1), second=Plus(2)))
    assert net(0) == 12
    assert net.first.n == 1
    assert net[1] is net.second
    assert [name for name, _ in net[1:].named_children()] == ["second"]
    assert repr(net) == "Sequential(\n  (first): Plus(1)\n  (second): Plus(2)\n)"
    del net[0]
    assert [name for name, _ in net.named_children()] == ["second"]


@pytest.mark.parametrize("kind", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_rows_are_lists(kind):
    net = kind(*row(1, 2, 3))
    assert held(net) == [1, 2, 3]
    assert net[-1].n == 3
    assert [module.n for module in net[1:]] == [2, 3]
    assert held(net[:2]) == [1, 2]
    assert type(net[:1]) is type(net)
    assert net[0] in net
    assert Plus(1) not in net
    net.append(Plus(4)).extend(row(5, 6))
    assert held(net) == [1, 2, 3, 4, 5, 6]
    net.insert(1, Plus(9)).insert(-1, Plus(8))
    assert held(net) == [1, 9, 2, 3, 4, 5, 8, 6]
    assert net.pop(1).n == 9
    del net[2:5]
    assert held(net) == [1, 2, 8, 6]
    del net[-1]
    net[0] = Plus(7)
    assert held(net) == [7, 2, 8]
    assert held(net + row(1)) == [7, 2, 8, 1]
    net += row(0)
    assert held(net) == [7, 2, 8, 0]
    assert next(iter(net.modules())) is net


def test_a_slice_of_a_sequential_keeps_its_names():
    part = nn.Sequential(*row(1, 2, 3))[1:]
    assert [name for name, _ in part.named_children()] == ["1", "2"]
    part.append(Plus(4)).insert(0, Plus(5))
    assert [m.n for m in part] == [5, 2, 3, 4]
    assert [name for name, _ in nn.ModuleList(row(1, 2, 3))[1:].named_children()] == ["0", "1"]


def test_a_subclass_with_arguments_can_be_sliced():
    class Tower(nn.Sequential):
        def __init__(self, height: int) -> None:
            super().__init__(*row(*range(height)))

    assert [m.n for m in Tower(3)[1:]] == [1, 2]
    assert held(Tower(2) + row(7)) == [0, 1, 7]


def test_a_row_may_hold_one_module_twice():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(net) == 3
    assert net[0] is net[2]
    del net[1]
    assert len(net) == 2
    assert len(nn.Sequential(layer) * 3) == 3
    assert len(2 * nn.Sequential(layer)) == 2
    with refuses(OptionError, "Sequential: expected a number of repeats, got 0"):
        nn.Sequential(layer) * 0


def test_wrong_members():
    with pytest.raises(
        DTypeError, match=r"Sequential: expected modules, got the class ReLU; make o"
    ):
        nn.Sequential(nn.Linear(1, 1), nn.ReLU)
    with refuses(DTypeError, "got function; write a Module whose forward calls it"):
        nn.Sequential().append(test_wrong_members)
    with refuses(DTypeError, "Sequential: expected modules, got list; write Sequential(*layers)"):
        nn.Sequential([nn.Linear(2, 2)])
    with refuses(DTypeError, "got generator; write Sequential(*layers)"):
        nn.Sequential(layer for layer in row(2))
    with refuses(DTypeError, "Sequential: expected modules, got function; wrap it: nn.ReLU()"):
        nn.Sequential(nn.Linear(2, 2), gl.relu)
    with refuses(DTypeError, "got function; wrap it: nn.Linear(...)"):
        nn.ModuleList([nn.functional.linear])
    with refuses(DTypeError, "ModuleList: expected several modules, got ReLU; use append"):
        nn.ModuleList().extend(nn.ReLU())
    with refuses(AxisError, "ModuleList: expected an index from -1 to 0, got 1"):
        _ = nn.ModuleList([nn.ReLU()])[1]
    with refuses(AxisError, "ModuleList: expected no index, got 0; it is empty"):
        _ = nn.ModuleList()[0]
    with refuses(DTypeError, "Sequential: expected an integer or a slice, got str"):
        _ = nn.Sequential(nn.ReLU())["0"]


def test_a_failed_extension_adds_nothing():
    net = nn.ModuleList(row(1))
    with pytest.raises(DTypeError):
        net.extend([Plus(2), None])
    assert held(net) == [1]


def test_module_list_has_no_forward():
    with refuses(NotImplementedError, "ModuleList: expected a method forward"):
        nn.ModuleList(row(1))(0)


def test_module_list_repr_counts_equal_neighbours():
    assert repr(nn.ModuleList(row(1, 1, 2, 1))) == (
        "ModuleList(\n  (0-1): 2 x Plus(1)\n  (2): Plus(2)\n  (3): Plus(1)\n)"
    )
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_module_dict():
    net = nn.ModuleDict({"a": Plus(1), "b": Plus(2)})
    assert list(net) == list(net.keys()) == ["a", "b"]
    assert [m.n for m in net.values()] == [1, 2]
    assert [(k, m.n) for k, m in net.items()] == [("a", 1), ("b", 2)]
    assert "a" in net
    assert net.a is net["a"]
    net["a"] = Plus(5)
    net.update([("c", Plus(3))])
    assert net.pop("b").n == 2
    del net["c"]
    assert len(net) == 1
    assert repr(net) == "ModuleDict(\n  (a): Plus(5)\n)"
    with refuses(StateError, "ModuleDict: expected one of 'a', got 'z'"):
        _ = net["z"]
    with refuses(StateError, "got 'keys', which is an attribute already"):
        net["keys"] = Plus(1)
    net.clear()
    assert len(net) == 0
    with refuses(StateError, "expected one of none, as it is empty, got 'a'"):
        del net["a"]


def test_parameter_list():
    weights = nn.ParameterList([gl.zeros(2, 3), nn.Parameter(gl.ones(()))])
    weights.append(gl.tensor([1, 2]))
    weights += [gl.ones(1)]
    assert [name for name, _ in weights.named_parameters()] == ["0", "1", "2", "3"]
    assert [p.requires_grad for p in weights] == [True, True, False, True]
    assert weights[-1] is weights[3]
    assert len(weights[1:3]) == 2
    weights[0] = gl.ones(4)
    assert weights[0].shape == (4,)
    assert isinstance(weights[0], nn.Parameter)
    assert repr(weights).splitlines()[:2] == [
        "ParameterList(",
        "  (0): Parameter containing: [float32 of size 4]",
    ]
    with refuses(DTypeError, "ParameterList: expected Parameters or tensors, got int"):
        weights.append(3)
    with refuses(AxisError, "ParameterList: expected an index from -4 to 3, got 4"):
        _ = weights[4]


def test_parameter_dict():
    weights = nn.ParameterDict({"w": gl.zeros(2)})
    weights["b"] = gl.ones(1)
    assert list(weights) == list(weights.keys()) == ["w", "b"]
    assert list(weights.state_dict()) == ["w", "b"]
    assert weights["b"] is dict(weights.items())["b"]
    assert len(list(weights.values())) == len(weights) == 2
    assert weights.pop("w").shape == (2,)
    assert repr(weights) == ("ParameterDict(\n  (b): Parameter containing: [float32 of size 1]\n)")
    del weights["b"]
    assert "b" not in weights
    assert repr(weights) == "ParameterDict()"
    with refuses(StateError, "ParameterDict: expected one of none"):
        _ = weights["b"]
