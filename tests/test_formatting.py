"""The printed form of tensors: what is shown, how it is aligned, and what is noted."""

import math
import threading

import ml_dtypes
import numpy as np
import pytest

from gradlab.errors import OptionError
from gradlab.formatting import (
    PrintOptions,
    format_tensor,
    get_printoptions,
    printoptions,
    set_printoptions,
)


@pytest.fixture(autouse=True)
def default_options():
    yield
    set_printoptions(profile="default")


def float32(*values):
    return np.array(values, np.float32)


class Recording:
    """An array on a device: what leaves it is copied by `fetch`, which counts."""

    def __init__(self, array):
        self.array = array
        self.shape, self.ndim, self.size, self.dtype = (
            array.shape,
            array.ndim,
            array.size,
            array.dtype,
        )
        self.copied = 0

    def __getitem__(self, index):
        part = Recording(self.array[index])
        part.fetch = self.fetch
        return part

    def fetch(self, array):
        self.copied += array.size
        return array.array


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.float32(3.0), "tensor(3.)"),
        (np.float32(math.pi), "tensor(3.1416)"),
        (np.int64(3), "tensor(3)"),
        (float32(1, 2.5), "tensor([1.0000, 2.5000])"),
        (float32(0, -1), "tensor([ 0., -1.])"),
        (float32(1e-5, 1), "tensor([1.0000e-05, 1.0000e+00])"),
        (float32(1e8, 1e8), "tensor([100000000., 100000000.])"),
        (float32(2e8, 2e8), "tensor([2.0000e+08, 2.0000e+08])"),
        (float32(1, 1000), "tensor([   1., 1000.])"),
        (float32(1, 1001), "tensor([1.0000e+00, 1.0010e+03])"),
        (float32(math.nan, math.inf, -math.inf), "tensor([nan, inf, -inf])"),
        (float32(math.nan, 1.5, -math.inf), "tensor([   nan, 1.5000,   -inf])"),
        (float32(-0.0, 0.0), "tensor([-0., 0.])"),
        (np.array([True, False]), "tensor([ True, False])"),
        (np.array([-1, 10]), "tensor([-1, 10])"),
        (np.array([1 + 2j], np.complex64), "tensor([1.+2.j])"),
    ],
)
def test_one_style_and_one_width_for_all_values(values, text):
    assert format_tensor(np.asarray(values)) == text


@pytest.mark.parametrize(
    ("array", "default", "note"),
    [
        (np.ones(1, np.float64), "float32", "dtype=float64"),
        (np.ones(1, np.float64), "float64", None),
        (np.ones(1, np.float32), "float64", "dtype=float32"),
        (np.ones(1, np.float16), "float32", "dtype=float16"),
        (np.ones(1, ml_dtypes.bfloat16), "float32", "dtype=bfloat16"),
        (np.ones(1, ml_dtypes.bfloat16), ml_dtypes.bfloat16, None),
        (np.ones(1, np.int64), "float32", None),
        (np.ones(1, np.uint8), "float32", "dtype=uint8"),
        (np.ones(1, np.bool_), "float32", None),
        (np.ones(1, np.complex64), "float32", None),
        (np.ones(1, np.complex128), "float32", "dtype=complex128"),
        (np.ones(1, np.complex128), "float64", None),
        (np.ones(0, np.int64), "float32", "dtype=int64"),
        (np.ones(0, np.float32), "float32", None),
    ],
)
def test_dtype_is_noted_where_the_values_do_not_imply_it(array, default, note):
    text = format_tensor(array, default_dtype=default)
    assert text.endswith(f", {note})" if note else "])")


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((0,), "tensor([])"),
        ((0, 3), "tensor([], size=(0, 3))"),
        ((2, 0, 1), "tensor([], size=(2, 0, 1))"),
    ],
)
def test_empty_tensors_show_the_size_that_brackets_cannot(shape, text):
    assert format_tensor(np.zeros(shape, np.float32)) == text


def test_notes_are_in_order_and_only_where_not_the_default():
    array = np.ones(1, np.float64)
    assert format_tensor(array, device="cuda:0", grad_fn="MulBackward0", requires_grad=True) == (
        "tensor([1.], device='cuda:0', dtype=float64, grad_fn=<MulBackward0>)"
    )
    assert format_tensor(float32(1), device="cpu", requires_grad=True) == (
        "tensor([1.], requires_grad=True)"
    )


def test_notes_go_to_the_next_line_below_the_values():
    text = format_tensor(np.full(9, 0.5), requires_grad=True)
    assert text.split("\n") == [
        "tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000],",
        "       dtype=float64, requires_grad=True)",
    ]


def test_rows_align_below_the_last_line_of_the_prefix():
    array = float32(1, 2, 3, 4).reshape(2, 2)
    text = format_tensor(array, prefix="Parameter containing:\ntensor(", requires_grad=True)
    assert text.split("\n") == [
        "Parameter containing:",
        "tensor([[1., 2.],",
        "        [3., 4.]], requires_grad=True)",
    ]


def test_above_the_threshold_only_the_ends_of_each_axis_are_shown():
    text = format_tensor(np.arange(4000).reshape(2, 2000))
    assert text.split("\n") == [
        "tensor([[   0,    1,    2,  ..., 1997, 1998, 1999],",
        "        [2000, 2001, 2002,  ..., 3997, 3998, 3999]])",
    ]
    assert "..." not in format_tensor(np.arange(1000))


def test_hidden_values_do_not_set_the_style():
    array = np.ones(5000, np.float32)
    array[2500] = 1e-7
    assert format_tensor(array) == "tensor([1., 1., 1.,  ..., 1., 1., 1.])"


@pytest.mark.parametrize("shape", [(10**6, 10**6), (4, 10**9), (7,) * 6])
def test_a_huge_array_costs_one_small_copy(shape):
    array = Recording(np.broadcast_to(np.float32(2.5), shape))
    assert "..." in format_tensor(array, to_host=array.fetch)
    assert array.copied == math.prod(min(length, 6) for length in shape)


def test_strided_and_broadcast_views_print_as_their_copies():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (base.T, base[::-2, 1::3], np.broadcast_to(base[:1], (3, 6))):
        assert format_tensor(view) == format_tensor(view.copy())


def test_a_signalling_nan_prints_without_a_warning():
    assert format_tensor(np.array([0x7FA00000], np.uint32).view(np.float32)) == "tensor([nan])"


def test_options():
    array = float32(0.123456, 2)
    set_printoptions(precision=2)
    assert format_tensor(array) == "tensor([0.12, 2.00])"
    set_printoptions(sci_mode=True)
    assert format_tensor(array) == "tensor([1.23e-01, 2.00e+00])"
    set_printoptions(sci_mode=None, edgeitems=1, threshold=2)
    assert format_tensor(np.arange(9.0, dtype=np.float32)) == "tensor([0.,  ..., 8.])"
    set_printoptions(profile="short", precision=1)
    assert get_printoptions() == PrintOptions(precision=1, edgeitems=2)
    set_printoptions(profile="full")
    assert "..." not in format_tensor(np.zeros(1500))
    set_printoptions(profile="default", linewidth=20)
    assert format_tensor(np.arange(8)) == "tensor([0, 1, 2, 3,\n        4, 5, 6, 7])"


def test_no_edge_items_leave_the_size():
    with printoptions(edgeitems=0):
        assert format_tensor(np.zeros((50, 30), np.float32)) == "tensor([...], size=(50, 30))"


def test_printoptions_end_with_the_block_also_after_an_error():
    with printoptions(precision=1) as options:
        assert options == get_printoptions() == PrintOptions(precision=1)
    assert get_printoptions() == PrintOptions()
    with pytest.raises(OptionError), printoptions(precision=1):
        set_printoptions(precision=-1)
    assert get_printoptions() == PrintOptions()


def test_options_hold_in_every_thread():
    set_printoptions(precision=1)
    texts = []
    thread = threading.Thread(target=lambda: texts.append(format_tensor(float32(0.25))))
    thread.start()
    thread.join()
    assert texts == ["tensor([0.2])"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": -1}, "expected precision to be an integer of at least 0, got -1"),
        ({"precision": 2.5}, "expected precision to be an integer of at least 0, got 2.5"),
        ({"edgeitems": True}, "expected edgeitems to be an integer of at least 0, got True"),
        ({"linewidth": 0}, "expected linewidth to be an integer of at least 1, got 0"),
        (
            {"threshold": "many"},
            "expected threshold to be an integer of at least 0 (or math.inf), got 'many'",
        ),
        (
            {"profile": "long"},
            "expected profile to be one of 'default', 'short', 'full', got 'long'",
        ),
        ({"sci_mode": "yes"}, "expected sci_mode to be True, False or None, got 'yes'"),
    ],
)
def test_bad_options_are_refused_and_change_nothing(options, text):
    with pytest.raises(OptionError) as error:
        set_printoptions(**options)
    assert str(error.value) == f"set_printoptions: {text}"
    assert get_printoptions() == PrintOptions()
