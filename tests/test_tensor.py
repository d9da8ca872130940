"""What a tensor is: made of values, read as Python and NumPy read it, copied, saved, exchanged."""

from __future__ import annotations

import copy
import math
import pickle

import ml_dtypes
import numpy as np
import pytest

import gradlab as gl
from gradlab.errors import AxisError, DTypeError, GradientError, OptionError, ShapeError
from gradlab.testing import assert_close

ALL_DTYPES = gl.dtypes.ALL


# ------------------------------------------------------------------------------------ making


@pytest.mark.parametrize(
    ("data", "dtype", "values"),
    [
        (1.5, "float32", 1.5),
        (3, "int64", 3),
        (True, "bool", True),
        (1j, "complex64", 1j),
        ([], "float32", []),
        ([1, 2.5], "float32", [1, 2.5]),
        ([[1, 2], [3, 4]], "int64", [[1, 2], [3, 4]]),
        ((1, (2)), "int64", [1, 2]),
        (np.float64(1.5), "float64", 1.5),
        (np.arange(3, dtype=np.int16), "int16", [0, 1, 2]),
        ([np.float32(1), np.float32(2)], "float32", [1, 2]),
        ([np.arange(2), np.arange(2)], "int64", [[0, 1], [0, 1]]),
        (range(3), "int64", [0, 1, 2]),
    ],
)
def test_tensor(data, dtype, values):
    x = gl.tensor(data)
    assert x.dtype == dtype
    assert x.tolist() == values


def test_tensors_in_lists():
    x = gl.tensor([1.0, 2.0])
    assert gl.tensor([x, x]).tolist() == [[1, 2], [1, 2]]
    assert gl.tensor([x.sum(), 4.0]).tolist() == [3, 4]
    assert gl.tensor([[x[0], x[1]], [0, 1]]).shape == (2, 2)
    assert not gl.tensor([leaf(1.0), leaf(2.0)]).requires_grad


def leaf(value):
    return gl.tensor(value, requires_grad=True)


def test_tensor_always_copies():
    array = np.zeros(2)
    x = gl.tensor(array)
    y = gl.tensor(x)
    array[0] = 1
    x[1] = 2
    assert x.tolist() == [0, 2]
    assert y.tolist() == [0, 0]
    assert gl.Tensor(array).data_ptr() != x.data_ptr()
    assert not gl.tensor(leaf([1.0])).requires_grad


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([np.float32(1), 2.0], "float32"),
        ([1.0, np.float64(2)], "float64"),
        ([[1, 2], [np.float16(3), 4]], "float16"),
        ([gl.tensor(1), 2.5], "float32"),
        ([True, np.int8(1)], "int8"),
        ([np.int32(1), np.int32(2)], "int32"),
        ([np.array([1.0]), np.array([2.0])], "float64"),
        ([1, 2.5], "float32"),
    ],
)
def test_mixed_numbers_share_a_dtype_in_which_pythons_count_as_the_default(data, dtype):
    assert gl.tensor(data).dtype == dtype


def test_asarray_shares_where_it_can():
    array = np.zeros(2, dtype=np.float32)
    x = gl.asarray(array)
    array[0] = 7
    assert x.tolist() == [7, 0]
    assert gl.asarray(x) is x
    assert gl.asarray(x, copy=True).data_ptr() != x.data_ptr()
    assert gl.asarray(array, dtype="float64").tolist() == [7, 0]
    assert gl.asarray(array, copy=False).data_ptr() == x.data_ptr()
    for call in (
        lambda: gl.asarray(array, dtype="float64", copy=False),
        lambda: gl.asarray([1.0], copy=False),
        lambda: gl.asarray(x, dtype="float64", copy=False),
    ):
        with pytest.raises(
            OptionError, match="asarray: copy=False, but this input can only be had"
        ):
            call()


def test_asarray_keeps_the_history():
    x = leaf([1.0, 2.0])
    assert gl.asarray(x) is x
    gl.asarray(x, dtype="float64").sum().backward()
    gl.asarray(x, copy=True).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_from_numpy_shares_memory_of_every_layout_and_dtype():
    for dtype in ALL_DTYPES:
        array = np.zeros((4, 6), dtype=dtype)
        for view in (array, array.T, array[::2, ::-1]):
            x = gl.from_numpy(view)
            assert (x.dtype, x.shape) == (dtype, view.shape)
            assert np.shares_memory(x.numpy(), array)
    with pytest.raises(OptionError, match="from_numpy: expected a NumPy array, got list"):
        gl.from_numpy([1.0])


def test_arrays_of_the_other_byte_order():
    array = np.arange(3, dtype=">f4")
    x = gl.tensor(array)
    assert x.dtype == gl.float32
    assert x.tolist() == [0, 1, 2]
    assert (x + 1).tolist() == [1, 2, 3]
    with pytest.raises(
        DTypeError, match=r"from_numpy: expected an array in this machine's byte or"
    ):
        gl.from_numpy(array)


def test_kinds_of_arrays_become_plain():
    matrix = np.ones((2, 2)).view(np.matrix)
    x = gl.from_numpy(matrix)
    assert (x * x).tolist() == [[1, 1], [1, 1]]
    assert x.reshape(4).shape == (4,)
    assert x[0].shape == (2,)
    x += 1
    assert matrix.tolist() == [[2, 2], [2, 2]]
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    assert type(gl.tensor(masked).numpy()) is np.ndarray


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (
            [[1], [2, 3]],
            ShapeError,
            "tensor: expected nested lists whose rows have equal lengths, got rows of different "
            "lengths; pad them, or make one tensor per row",
        ),
        ("abc", DTypeError, "tensor: expected numbers, got str holding text; convert it to a"),
        (["1", "2"], DTypeError, "tensor: expected numbers, got list holding text"),
        ([None], DTypeError, "tensor: expected numbers, got list holding Python objects"),
        (np.array(["2020-01-01"], "datetime64[D]"), DTypeError, "got ndarray holding dates"),
        (object(), DTypeError, "tensor: expected numbers, got object holding Python objects"),
        ({"a": 1}, DTypeError, "tensor: expected numbers, got dict holding Python objects"),
        (np.zeros(2, dtype=np.longdouble), DTypeError, "got ndarray holding"),
    ],
)
def test_what_is_no_tensor(data, error, text):
    with pytest.raises(error) as caught:
        gl.tensor(data)
    assert text in str(caught.value)


def test_factories():
    assert gl.zeros(2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert gl.zeros((2, 3)).shape == gl.zeros([2, 3]).shape == (2, 3)
    assert gl.ones(()).tolist() == 1
    assert gl.ones(2, dtype="int8").dtype == "int8"
    assert gl.empty(0, 3).shape == (0, 3)
    assert gl.full((2,), 7).dtype == "int64"
    assert gl.full((2,), 7.0).dtype == "float32"
    assert gl.full((2,), True).dtype == "bool"
    assert gl.full((2,), gl.tensor(2.5, dtype="float64")).tolist() == [2.5, 2.5]
    assert gl.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert gl.eye(2, k=1).tolist() == [[0, 1], [0, 0]]
    x = gl.zeros(2, 3, dtype="float16")
    for make, value in ((gl.zeros_like, 0), (gl.ones_like, 1)):
        y = make(x)
        assert (y.shape, y.dtype, y.tolist()[0][0]) == ((2, 3), "float16", value)
    assert gl.full_like(x, 3).tolist() == [[3, 3, 3], [3, 3, 3]]
    assert gl.empty_like(x, dtype="int64").dtype == "int64"
    assert x.new_ones(2).dtype == "float16"
    assert x.new_tensor([1, 2]).dtype == "float16"
    assert gl.zeros(2, requires_grad=True).requires_grad


def test_bounds_under_pytorchs_names():
    assert gl.arange(start=1, end=8, step=3).tolist() == [1, 4, 7]
    assert gl.arange(end=3).tolist() == [0, 1, 2]
    assert gl.arange(1, end=3.0, dtype=gl.float32).tolist() == [1, 2]
    assert gl.linspace(start=0, end=1, steps=3).tolist() == [0, 0.5, 1]
    with pytest.raises(gl.errors.DTypeError, match="arange: expected numbers, got None"):
        gl.arange()


@pytest.mark.parametrize("make", [gl.zeros_like, gl.ones_like, gl.empty_like, gl.rand_like])
def test_made_alike_with_a_gradient(make):
    x = make(gl.ones(2, 3), requires_grad=True)
    assert (x.shape, x.requires_grad, x.is_leaf) == ((2, 3), True, True)
    assert gl.full_like(x, 7, requires_grad=True).requires_grad
    assert not make(x).requires_grad


def test_ranges():
    assert gl.arange(3).tolist() == [0, 1, 2]
    assert gl.arange(3).dtype == "int64"
    assert gl.arange(1, 2, 0.5).tolist() == [1, 1.5]
    assert gl.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert gl.arange(3.0).dtype == "float32"
    assert gl.arange(3, dtype="float64").dtype == "float64"
    assert gl.arange(5, 5).tolist() == gl.arange(5, 2).tolist() == []
    assert gl.arange(gl.tensor(3)).tolist() == [0, 1, 2]
    assert gl.arange(0, 1, 0.1).shape == (10,)
    assert_close(gl.arange(0, 1, 0.1)[-1], 0.9)
    assert_close(gl.linspace(0, 1, 5), [0, 0.25, 0.5, 0.75, 1])
    assert gl.linspace(0, 1, steps=3).tolist() == [0, 0.5, 1]
    assert gl.linspace(3, 4, 1).tolist() == [3]
    assert gl.linspace(0, 1, 4, endpoint=False).tolist() == [0, 0.25, 0.5, 0.75]
    assert_close(gl.logspace(0, 2, 3), [1, 10, 100])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gl.zeros(-1), ShapeError, "zeros: expected sizes of 0 or more, got (-1,)"),
        (lambda: gl.zeros(2, 2.5), ShapeError, "expected integer sizes, got (2, 2.5)"),
        (lambda: gl.zeros("ab"), ShapeError, "expected integer sizes, got ('ab',)"),
        (lambda: gl.arange(1, 5, 0), OptionError, "arange: expected a step other than 0, got 0"),
        (lambda: gl.linspace(0, 1, -1), OptionError, "linspace: expected 0 values or more, got -1"),
        (lambda: gl.zeros(2, dtype="float31"), DTypeError, "dtype: expected one of bool, int8, "),
        (lambda: gl.tensor([1.0], dtype=str), DTypeError, "got <class 'str'>"),
        (lambda: gl.tensor([1.0], dtype="str"), DTypeError, "got 'str'"),
        (lambda: gl.tensor([1.0], dtype=[1]), DTypeError, "got [1]"),
    ],
)
def test_factories_refuse(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


# ---------------------------------------------------------------------------------- what it is


def test_properties():
    x = gl.tensor(np.zeros((2, 3, 4), dtype=np.float16))
    assert x.shape == (2, 3, 4)
    assert x.size() == (2, 3, 4)
    assert x.size(-1) == 4
    assert x.ndim == x.dim() == 3
    assert x.numel() == gl.numel(x) == 24
    assert x.nbytes == 48
    assert x.itemsize == x.element_size() == 2
    assert x.stride() == (12, 4, 1)
    assert x.stride(-3) == 12
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert x.T.contiguous().is_contiguous()
    assert x.contiguous() is x
    assert x.is_floating_point()
    assert not x.is_complex()
    assert not x.is_cuda
    assert x.T.shape == (4, 3, 2)
    assert x.mT.shape == (2, 4, 3)
    assert isinstance(x.shape, tuple)
    assert gl.is_tensor(x)
    assert not gl.is_tensor(x.numpy())
    with pytest.raises(AxisError, match="size: expected an axis from -3 to 2, got 3"):
        x.size(3)
    with pytest.raises(AxisError, match="stride: expected an axis from -3 to 2, got -4"):
        x.stride(-4)


def test_data_ptr():
    x = gl.zeros(2, 3)
    assert x.data_ptr() == x.T.data_ptr() == x.reshape(6).data_ptr()
    assert x[0, 1].data_ptr() == x.data_ptr() + 4


def test_identity_decides_hashing():
    x, y = gl.tensor([1.0]), gl.tensor([1.0])
    assert len({x, y, x}) == 2
    assert {x: 1}[x] == 1


# ---------------------------------------------------------------------------- to Python values


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_item(dtype):
    x = gl.tensor([1], dtype=dtype)
    value = x.item()
    assert value == 1
    kinds = {"b": bool, "i": int, "u": int, "f": float, "V": float, "c": complex}
    assert type(value) is kinds[dtype.kind]
    assert x.reshape(()).item() == x.reshape(1, 1, 1).item() == 1
    assert x.reshape(()).tolist() == 1
    assert x.tolist() == [1]
    assert type(x.tolist()[0]) is kinds[dtype.kind]


def test_python_numbers():
    x = gl.tensor(2.75)
    assert float(x) == 2.75
    assert int(x) == 2
    assert complex(x) == 2.75
    assert bool(x)
    assert not bool(gl.tensor([[0]]))
    assert round(float(x), 1) == 2.8
    assert math.floor(float(x)) == 2
    assert [10, 20, 30][gl.tensor(1)] == 20
    assert range(3)[gl.tensor([2])] == 2
    assert f"{x:.1f}|{x}" == "2.8|2.75"
    assert f"{gl.tensor([1.0])}" == "tensor([1.])"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x: x.item(),
            "item: expected a tensor of one element, got shape (2,); use .tolist()",
        ),
        (float, "item: expected a tensor of one element, got shape (2,)"),
        (int, "item: expected a tensor of one element, got shape (2,)"),
        (
            bool,
            "bool: expected a tensor of one element, got shape (2,), whose truth is ambiguous; use "
            ".any() or .all()",
        ),
        (lambda x: len(x[0]), "len: expected a tensor with at least one axis, got a scalar tensor"),
        (lambda x: list(x[0]), "iteration: expected at least one axis, got a scalar tensor"),
        (lambda x: [1][x[0]], "index: expected an integer tensor of one element, got float32 ()"),
        (lambda x: range(3)[gl.tensor([0, 1])], "item: expected a tensor of one element"),
    ],
)
def test_python_values_refuse(call, text):
    with pytest.raises((ShapeError, DTypeError)) as caught:
        call(gl.tensor([1.0, 2.0]))
    assert text in str(caught.value)


def test_a_format_for_numbers_is_for_one_number():
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{gl.tensor([1.0, 2.0]):.2f}"


def test_len_iteration_and_membership():
    x = gl.tensor([[1, 2], [3, 4]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    a, b = x
    assert a.tolist() == [1, 2]
    b[0] = 9
    assert x.tolist() == [[1, 2], [9, 4]]
    assert [each.tolist() for each in reversed(list(x))] == [[9, 4], [1, 2]]
    assert 9 in x
    assert 5 not in x
    assert gl.tensor(4) in x
    assert len(gl.zeros(0, 3)) == 0
    assert list(gl.zeros(0, 3)) == []
    assert sum(gl.tensor([1.0, 2.0, 3.0])).item() == 6
    assert max(gl.tensor([1, 5, 2])).item() == 5


def test_comparing_with_anything():
    x = gl.tensor([1.0, 2.0])
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert (x == "a") is False
    assert x in [None, x]
    assert (x == [1.0, 3.0]).tolist() == [True, False]


# ------------------------------------------------------------------------------- NumPy and others


def test_numpy_interop():
    x = gl.tensor([1.0, 2.0])
    assert np.asarray(x) is not None
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(x), x.numpy())
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float64, copy=False)
    for y in (np.ones(2, np.float32) + x, np.float64(1) + x, 1 + x, np.int8(1) + x):
        assert isinstance(y, gl.Tensor)
        assert y.tolist() == [2, 3]
        assert y.dtype == gl.float32
    assert (np.array([1.0, 2.0]) == x).tolist() == [True, True]
    assert (np.array([[1.0]], dtype=np.float32) @ x.reshape(1, 2)).shape == (1, 2)
    array = np.ones(2, np.float32)
    array += x.numpy()
    assert array.tolist() == [2, 3]


def test_numpy_of_bfloat16():
    x = gl.tensor([1.5, 2.5], dtype="bfloat16")
    assert x.numpy().dtype == ml_dtypes.bfloat16
    assert x.tolist() == [1.5, 2.5]
    assert gl.from_numpy(x.numpy()).dtype == gl.bfloat16


@pytest.mark.parametrize("dtype", [d for d in ALL_DTYPES if d != gl.bfloat16], ids=str)
def test_dlpack(dtype):
    x = gl.tensor([[0, 1], [1, 0]], dtype=dtype)
    array = np.from_dlpack(x)
    assert array.dtype == dtype
    assert np.shares_memory(array, x.numpy())
    y = gl.from_dlpack(np.asarray(x.T))
    assert y.tolist() == x.T.tolist()
    assert y.dtype == dtype
    assert np.shares_memory(y.numpy(), x.numpy())


def test_array_api():
    x = gl.tensor([1.0])
    assert x.__array_namespace__() is gl
    assert x.device == "cpu"


# ------------------------------------------------------------------------------ copies and files


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_deepcopy_and_pickle(dtype, how):
    x = gl.tensor([[0, 1, 1], [1, 0, 0]], dtype=dtype).T
    y = how(x)
    assert type(y) is gl.Tensor
    assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
    y[0, 0] = 1
    assert x.tolist()[0][0] == 0


def test_deepcopy_of_leaves():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == [2, 4]
    assert y.grad is not x.grad
    (y * 3).sum().backward()
    assert x.grad.tolist() == [2, 4]
    shared = copy.deepcopy([x, x])
    assert shared[0] is shared[1]
    with pytest.raises(
        GradientError, match=r"deepcopy: expected a leaf.*MulBackward0; copy \.detach"
    ):
        copy.deepcopy(x * 2)


def test_copy_of_a_tensor_shares_its_memory():
    x = gl.tensor([1.0, 2.0])
    y = copy.copy(x)
    y[0] = 5
    assert x.tolist() == [5, 2]


def test_pickle_of_leaves_and_results():
    x = leaf([1.0, 2.0])
    y = pickle.loads(pickle.dumps(x))
    assert y.requires_grad
    z = pickle.loads(pickle.dumps(x * 2))
    assert z.is_leaf
    assert z.tolist() == [2, 4]


def test_pickle_of_a_device():
    assert pickle.loads(pickle.dumps(gl.device("cpu"))) is gl.device("cpu")


def test_to():
    x = gl.tensor([1.5, 2.5])
    assert x.to("cpu") is x
    assert x.to(gl.float32) is x
    assert x.to("float64").dtype == gl.float64
    assert x.to(dtype="int64").tolist() == [1, 2]
    assert x.to(gl.tensor([1], dtype="float16")).dtype == gl.float16
    assert x.to("cpu", copy=True) is not x
    assert x.to(float).dtype == gl.float64  # Python's float, as in NumPy and PyTorch
    for name, dtype in {
        "float": "float32",
        "double": "float64",
        "half": "float16",
        "bfloat16": "bfloat16",
        "long": "int64",
        "int": "int32",
        "bool": "bool",
    }.items():
        assert getattr(x, name)().dtype == dtype
    assert x.float() is x


def test_astype():
    x = gl.tensor([1.7, -1.7])
    assert x.astype("int64").tolist() == [1, -1]
    assert x.astype("float32") is not x
    assert x.astype("float32", copy=False) is x
    assert x.astype("bool").tolist() == [True, True]
    assert gl.tensor([1 + 2j]).astype("float32").tolist() == [1]
    y = leaf([1.0])
    y.astype("float64").sum().backward()
    assert y.grad.dtype == gl.float32


def test_a_subclass_stays_itself():
    class Mine(gl.Tensor):
        __slots__ = ()

    x = Mine([1.0, 2.0])
    assert (x + 1).tolist() == [2, 3]
    assert type(copy.deepcopy(x)) is Mine
    assert type(pickle_by_reference(x)) is Mine


def pickle_by_reference(x):
    function, arguments = x.__reduce__()
    return function(*arguments)


def test_methods_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="has a method 'add' already"):
        gl.Tensor._add_method("add", None)


def test_equality_of_whole_tensors():
    x = gl.tensor([1.0, 2.0])
    assert x.equal(gl.tensor([1.0, 2.0]))
    assert not x.equal(gl.tensor([1.0, 3.0]))
    assert not x.equal(gl.tensor([1.0]))
    assert x.allclose(x + 1e-9)
    assert not x.allclose(x + 1e-3)
    nan, inf = float("nan"), float("inf")
    y = gl.tensor([nan, inf, -inf, 1.0])
    assert y.isclose(y).tolist() == [False, True, True, True]
    assert y.isclose(y, equal_nan=True).tolist() == [True] * 4
    assert not gl.tensor([1.0]).allclose(gl.tensor([inf]))


def test_numpy_functions_of_tensors_run_and_record_the_op():
    x = gl.tensor([1.0, 4.0], requires_grad=True)
    y = np.sqrt(x) + np.maximum(x, 2)
    assert isinstance(y, gl.Tensor)
    y.sum().backward()
    assert x.grad.tolist() == [0.5, 1.25]
    assert np.sum(x).item() == np.max(x).item() + 1 == 5
    array = np.ones(2, np.float32)
    same = array
    array += x.detach()
    assert same is array
    assert array.tolist() == [2, 5]
    with pytest.raises(gl.errors.DTypeError, match=r"np.add.reduce: .* call it on x.numpy\(\)"):
        np.add.reduce(x)
    with pytest.raises(gl.errors.DTypeError, match=r"np.gcd: expected NumPy arrays"):
        np.gcd(x, 2)


def test_type_and_type_as():
    x = gl.tensor([1.5])
    assert x.type(gl.int64).tolist() == [1]
    assert x.type() == "float32"
    assert gl.tensor([1]).type_as(x).dtype == gl.float32
