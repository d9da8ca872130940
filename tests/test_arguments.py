"""What public functions do with arguments that do not fit."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import gradlab as gl
import gradlab.nn.functional as F
from gradlab.arguments import guarded, show
from gradlab.errors import DTypeError, GradlabError, OptionError, ShapeError
from gradlab.testing import assert_close

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

# A call of each of these with lists and with arrays gives what it gives with tensors.
TAKES_LISTS = {
    "trace": lambda x: gl.trace(x),
    "reshape": lambda x: gl.reshape(x, (3, 2)),
    "diagonal": lambda x: gl.diagonal(x),
    "flip": lambda x: gl.flip(x, 0),
    "unsqueeze": lambda x: gl.unsqueeze(x, 0),
    "kron": lambda x: gl.kron(x, x),
    "tril": lambda x: gl.tril(x),
    "cat": lambda x: gl.cat([x, x]),
    "stack": lambda x: gl.stack([x, x]),
    "broadcast_tensors": lambda x: gl.broadcast_tensors(x, gl.ones(2, 1))[0],
    "numel": lambda x: gl.numel(x),
    "cov": lambda x: gl.cov(x),
    "cdist": lambda x: gl.cdist(x, x),
    "matrix_rank": lambda x: gl.linalg.matrix_rank(x),
    "softmax": lambda x: F.softmax(x, 1),
    "hardsigmoid": lambda x: F.hardsigmoid(x),
    "glu": lambda x: F.glu(gl.cat([gl.tensor(x), gl.tensor(x)]), 0),
    "mse_loss": lambda x: F.mse_loss(x, x),
    "unbind": lambda x: gl.unbind(x)[1],
    "split": lambda x: gl.split(x, 1)[1],
    "max": lambda x: gl.max(x),
    "var": lambda x: gl.var(x, dim=1),
    "sort": lambda x: gl.sort(x).values,
    "fliplr": lambda x: gl.fliplr(x),
    "equal": lambda x: gl.equal(x, x),
}


@pytest.mark.parametrize("name", TAKES_LISTS)
@pytest.mark.parametrize("make", [list, np.float32], ids=["lists", "arrays"])
def test_lists_and_arrays(name, make):
    call = TAKES_LISTS[name]
    given = ROWS if make is list else np.array(ROWS, np.float32)
    assert_close(call(given), call(gl.tensor(ROWS)))


def test_a_list_of_another_kind():
    x = [[1, 2], [3, 4]]
    assert gl.trace(x).dtype == gl.int64
    assert gl.reshape(np.ones((2, 3)), (3, 2)).dtype == gl.float64


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: gl.diagonal(2),
            ShapeError,
            "diagonal: expected at least two axes, got shape (); use diag",
        ),
        (
            lambda: gl.unflatten(gl.ones(2, 3), 1, -7),
            OptionError,
            "unflatten: expected sizes as a sequence of integers, got -7",
        ),
        (
            lambda: gl.trace("abc"),
            DTypeError,
            "trace: expected x as a tensor, got 'abc'",
        ),
        (
            lambda: gl.randperm(float("inf")),
            OptionError,
            "randperm: expected an integer n of 0 or more, got inf",
        ),
        (
            lambda: gl.nn.CELU((1, 2)),
            OptionError,
            "CELU: expected alpha as a number, got (1, 2)",
        ),
        (
            lambda: gl.kron(object(), gl.ones(2)),
            DTypeError,
            "kron: expected x1 as a tensor, got object",
        ),
        (
            lambda: gl.rand(2, generator="seed"),
            OptionError,
            "rand: expected generator as a Generator or None, got 'seed'",
        ),
    ],
)
def test_one_clear_line(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text


def itself() -> list[Any]:
    made: list[Any] = [1.0]
    made.append(made)
    return made


@pytest.mark.parametrize("call", [gl.tensor, gl.exp, gl.trace, lambda x: gl.ones(2) + x])
def test_a_list_that_holds_itself(call):
    with pytest.raises(ShapeError, match="nested deeper, or holds itself"):
        call(itself())


@pytest.mark.parametrize(
    "call",
    [
        lambda: gl.LongTensor(2**31, 2**31),
        lambda: gl.ones(2**62),
        lambda: gl.tensor(2**70),
        lambda: gl.arange(10**400),
        lambda: gl.eye(-1),
        lambda: gl.nn.Linear(2**62, 2**62),
        lambda: gl.ones(3).reshape(10**400),
        lambda: gl.meshgrid(gl.ones(2), indexing=np.array(["ij", "xy"])),
        lambda: gl.ones(2).size("a"),
    ],
)
def test_refused(call):
    with pytest.raises(GradlabError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_once_took_for_ever():
    assert gl.linalg.matrix_rank(gl.zeros(0, 2**40)).item() == 0
    assert gl.linalg.svdvals(gl.zeros(3, 2**40, 0)).shape == (3, 0)
    assert gl.linalg.pinv(gl.zeros(0, 4)).shape == (4, 0)
    assert gl.diff(gl.ones(3), n=2**70).shape == (0,)
    assert repr(gl.zeros(2**40, 0)) == "tensor([], size=(1099511627776, 0))"


# -------------------------------------------------------------- a tensor in place of a number


NUMBERS = {
    "softplus": (lambda x, p: F.softplus(x, p), 2.0),
    "leaky_relu": (lambda x, p: F.leaky_relu(x, p), 0.2),
    "elu": (lambda x, p: F.elu(x, alpha=p), 1.5),
    "celu": (lambda x, p: F.celu(x, p), 1.5),
    "hardshrink": (lambda x, p: F.hardshrink(x, p), 0.5),
    "huber": (lambda x, p: F.huber_loss(x, x * 2, delta=p), 0.5),
    "Softplus": (lambda x, p: gl.nn.Softplus(p)(x), 2.0),
    "dropout": (lambda x, p: F.dropout(x, p, training=False), 0.5),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_tensor_for_a_number(name):
    call, number = NUMBERS[name]
    x = gl.tensor([-2.0, -0.5, 3.0], requires_grad=True)
    y = call(x, gl.tensor(number))
    assert_close(y, call(x, number), rtol=0, atol=0)
    y.sum().backward()
    given = x.grad
    x.grad = None
    call(x, number).sum().backward()
    assert_close(given, x.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", NUMBERS)
def test_no_gradient_is_lost_in_a_number(name):
    call, number = NUMBERS[name]
    with pytest.raises(OptionError, match=r"requires a gradient.*\.item\(\)"):
        call(gl.ones(3), gl.tensor(number, requires_grad=True))
    with pytest.raises(OptionError, match=r"got a tensor of shape \(2,\)"):
        call(gl.ones(3), gl.full((2,), number))


def test_bounds_are_tensors():
    x = gl.ones(3)
    x.clamp_(gl.tensor([2.0, 0.0, 0.0]))
    assert x.tolist() == [2.0, 1.0, 1.0]
    low = gl.tensor([2.0, 0.0, 0.0], requires_grad=True)
    y = gl.zeros(3) + 1
    y.clamp_(min=low)
    y.sum().backward()
    assert low.grad.tolist() == [1.0, 0.0, 0.0]
    z = gl.ones(3)
    assert z.clip_(max=gl.tensor([0.5, 2.0, 2.0])).tolist() == [0.5, 1.0, 1.0]


# ------------------------------------------------------------------------------ what passes


def test_errors_of_callbacks_pass():
    def callback(x: gl.Tensor) -> gl.Tensor:
        return x.no_such_attribute

    with pytest.raises(AttributeError, match="no_such_attribute"):
        gl.autograd.functional.jacobian(callback, gl.ones(2))

    class Odd:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gl.trace(Odd())


def test_wrong_signatures_are_python_s():
    with pytest.raises(TypeError, match=r"reshape\(\) missing 1 required positional argument: 'x'"):
        gl.reshape()
    with pytest.raises(TypeError, match=r"trace\(\) got an unexpected keyword argument 'size'"):
        gl.trace(gl.ones(2, 2), size=1)


def test_the_cause_is_kept():
    with pytest.raises(OptionError) as caught:
        gl.unflatten(gl.ones(2, 3), 1, -7)
    assert isinstance(caught.value.__cause__, TypeError)


def test_in_place_functions_convert_nothing():
    with pytest.raises(GradlabError):
        gl.nn.init.zeros_([[1.0]])


def test_a_door_is_the_function_to_all_who_look():
    assert F.relu is gl.relu
    assert gl.nn.functional.softplus.__name__ == "softplus"
    assert gl.reshape.__doc__.startswith("Return the elements in another shape")
    for function in (
        gl.relu,
        gl.reshape,
        gl.sum,
        gl.linalg.svd,
        gl.svd,
        F.softplus,
        gl.nn.init.zeros_,
    ):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
    assert guarded(gl.reshape) is gl.reshape


def test_show():
    assert show(gl.ones(2, 3)) == "float32 (2, 3)"
    assert show(np.ones(2)) == "array of float64 (2,)"
    assert show(1.5) == "1.5"
    assert show("a\nb") == r"'a\nb'"
    assert show(Decimal("0.1")) == "Decimal('0.1')"
    assert len(show(list(range(1000)))) < 80
    assert len(show("x" * 1000)) < 80

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Mute" in show(Mute())
    assert show(itself())
