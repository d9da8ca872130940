"""Indexing: reading and writing as NumPy does, with the gradients that go with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import gradlab as gl
from gradlab.autograd import grad
from gradlab.errors import AxisError, DTypeError, ShapeError
from gradlab.testing import gradcheck

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def numbered(shape):
    """Different numbers everywhere, so that no mix-up goes unseen."""
    return np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape)


@st.composite
def basic(draw):
    shape = draw(SHAPES)
    index = draw(hnp.basic_indices(shape, min_dims=0, max_dims=6, allow_newaxis=True))
    return shape, index


@st.composite
def with_arrays(draw):
    """Integer arrays, masks, slices, ints, None and an ellipsis, mixed as NumPy allows."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    common = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=3))
    axis, index, ellipsis = 0, [], False
    while axis < len(shape):
        kind = draw(st.sampled_from(["array", "array", "slice", "int", "none", "mask", "ellipsis"]))
        size = shape[axis]
        if kind == "array":
            index.append(draw(hnp.arrays(np.int64, common, elements=st.integers(-size, size - 1))))
        elif kind == "slice":
            index.append(draw(st.slices(size)))
        elif kind == "int":
            index.append(draw(st.integers(-size, size - 1)))
        elif kind == "none":
            index.append(None)
            axis -= 1
        elif kind == "mask" and not any(isinstance(each, np.ndarray) for each in index):
            index.append(draw(hnp.arrays(np.bool_, shape[axis : axis + 1])))
            index.extend([slice(None)] * (len(shape) - axis - 1))
            break
        elif kind == "ellipsis" and not ellipsis:
            ellipsis = True
            index.append(Ellipsis)
            break
        axis += 1
        if draw(st.booleans()) and axis:
            break
    return shape, tuple(index)


def check_read(shape, index):
    array = numbered(shape)
    x = gl.tensor(array, requires_grad=True)
    y = x[index]
    expected = array[index]
    assert y.shape == np.shape(expected)
    assert y.tolist() == expected.tolist()
    # The gradient counts how often each element was read, weighted.
    weights = numbered(y.shape)
    (g,) = grad(y, x, weights, materialize_grads=True)
    counted = np.zeros(shape)
    np.add.at(counted, index, weights)
    assert g.tolist() == counted.tolist()


def check_write(shape, index, scalar):
    array = numbered(shape)
    x = gl.tensor(array)
    value = 7.0 if scalar else -numbered(np.shape(array[index]))
    recorded = gl.tensor(array, requires_grad=True) * 1
    v = gl.tensor(value, dtype="float64", requires_grad=True)
    x[index] = value
    recorded[index] = v
    array[index] = value
    assert x.tolist() == array.tolist()
    assert recorded.tolist() == array.tolist()
    # Only what stays has a gradient: of several values for one place, the last.
    (gv,) = grad(recorded.sum(), v, materialize_grads=True)
    if scalar:
        written = np.zeros(shape, bool)
        written[index] = True
        assert gv.item() == written.sum()
    else:
        assert gv.tolist() == (array[index] == value).astype(float).tolist()


@given(basic())
def test_basic_reads(case):
    check_read(*case)


@given(basic(), st.booleans())
def test_basic_writes(case, scalar):
    check_write(*case, scalar)


@given(with_arrays())
def test_reads_with_arrays(case):
    check_read(*case)


@given(with_arrays(), st.booleans())
def test_writes_with_arrays(case, scalar):
    check_write(*case, scalar)


@given(basic())
def test_basic_indices_give_views(case):
    shape, index = case
    x = gl.tensor(numbered(shape))
    y = x[index]
    assert not y.numel() or np.shares_memory(x.numpy(), y.numpy())
    y += 100
    array = numbered(shape)
    array[index] += 100
    assert x.tolist() == array.tolist()


@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), st.data())
def test_masks(shape, data):
    mask = data.draw(hnp.arrays(np.bool_, shape))
    array = numbered(shape)
    x = gl.tensor(array, requires_grad=True)
    for given_mask in (mask, gl.tensor(mask), mask.tolist()):
        if mask.size or not isinstance(given_mask, list):
            assert x[given_mask].tolist() == array[mask].tolist()
    assert x.masked_select(gl.tensor(mask)).tolist() == array[mask].tolist()
    y = x * 1
    y[gl.tensor(mask)] = 0.0
    y.sum().backward()
    assert y.tolist() == np.where(mask, 0, array).tolist()
    assert x.grad.tolist() == np.where(mask, 0.0, 1.0).tolist()


@pytest.mark.parametrize(
    "index",
    [
        [0, 2],
        gl.tensor([0, 2]),
        gl.tensor([[0], [2]], dtype="uint8"),
        gl.tensor(1),
        np.int64(1),
        np.array(1),
        [True, False, True],
        True,
        False,
        np.True_,
        [],
        (),
        ...,
        None,
        (None, ..., None),
        (gl.tensor([0, 1]), gl.tensor([1, 0])),
        ([0, 1], slice(None), None),
        (slice(None), [3, 0]),
        (gl.tensor(2), gl.tensor([1])),
        (slice(gl.tensor(1), None),),
        (slice(np.int64(0), np.int64(2)), -1),
        ([[0, 1], [2, 0]],),
    ],
    ids=str,
)
def test_kinds_of_indices(index):
    array = numbered((3, 4))

    def plain(item):
        if isinstance(item, gl.Tensor):
            return item.numpy()
        if isinstance(item, slice):
            return slice(
                *(None if p is None else int(p) for p in (item.start, item.stop, item.step))
            )
        return item

    same = tuple(map(plain, index)) if isinstance(index, tuple) else plain(index)
    x = gl.tensor(array)
    assert x[index].shape == array[same].shape
    assert x[index].tolist() == array[same].tolist()
    x[index] = -1.0
    array[same] = -1.0
    assert x.tolist() == array.tolist()


def test_elements():
    x = gl.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x[1, 0].shape == ()
    assert float(x[1, 0]) == 3
    x[1, 0] = 9
    x[0] = [7, 8]
    x[:, 1] += 1
    assert x.tolist() == [[7, 9], [9, 5]]
    x[:] = gl.tensor([0.5, 0.25])
    assert x.tolist() == [[0.5, 0.25]] * 2
    x[...] = 3
    assert x.tolist() == [[3, 3]] * 2
    scalar = gl.tensor(1.0)
    scalar[()] = 5
    scalar[...] += 1
    assert float(scalar) == 6


def test_repeated_places():
    x = gl.zeros(3)
    x[[0, 0, 1]] += 1  # as in NumPy: read, add, write back
    assert x.tolist() == [1, 1, 0]
    y = gl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (y[[0, 0, 2]] * gl.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert y.grad.tolist() == [11, 0, 100]


def test_written_values_are_cast():
    x = gl.zeros(3, dtype="int64")
    x[0] = 2.9
    x[1:] = gl.tensor([1.5, -1.5])
    assert x.tolist() == [2, 1, -1]
    b = gl.zeros(2, dtype="bool")
    b[0] = 3
    assert b.tolist() == [True, False]
    h = gl.zeros(2, dtype="bfloat16")
    h[0] = 1.5
    h[1] = gl.tensor(2.5, dtype="float64")
    assert h.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (3, AxisError, "expected an index from -3 to 2 for axis 0, got 3 (shape (3, 4))"),
        ((0, -5), AxisError, "expected an index from -4 to 3 for axis 1, got -5 (shape (3, 4))"),
        ((..., 4), AxisError, "expected an index from -4 to 3 for axis 1, got 4 (shape (3, 4))"),
        ((None, 0, 9), AxisError, "expected an index from -4 to 3 for axis 1, got 9"),
        (
            (gl.tensor([0, 7]),),
            AxisError,
            "expected an index from -3 to 2 for axis 0, got 7 (shape (3, 4))",
        ),
        ((slice(None), [[0], [-9]]), AxisError, "from -4 to 3 for axis 1, got -9"),
        ((0, 0, 0), AxisError, "expected at most 2 indices for shape (3, 4), got 3"),
        ((..., 0, 0, 0), AxisError, "expected at most 2 indices for shape (3, 4), got 3"),
        (
            gl.tensor([True, False]),
            ShapeError,
            "expected a mask of shape (3,), got (2,)",
        ),
        (np.ones((3, 5), bool), ShapeError, "expected a mask of shape (3, 4), got (3, 5)"),
        (np.ones((3, 4, 1), bool), AxisError, "expected at most 2 indices for shape (3, 4), got 3"),
        (
            1.5,
            DTypeError,
            "expected integers, slices, ..., None, or integer and bool tensors, got float32 (); "
            "cast it with .astype(gradlab.int64)",
        ),
        (gl.tensor([1.0]), DTypeError, "or integer and bool tensors, got float32 (1,); cast it"),
        ("a", DTypeError, "indexing: expected numbers, got str holding text"),
        ((..., ...), AxisError, "expected at most one ellipsis, got 2"),
        (slice(None, None, 0), AxisError, "expected a slice step other than 0, got 0"),
        (slice(1.5, None), DTypeError, "expected slices of integers, got 1.5"),
        (
            (gl.tensor([0, 1]), gl.tensor([0, 1, 2])),
            ShapeError,
            "expected index tensors that broadcast, got (2,) and (3,)",
        ),
    ],
    ids=str,
)
def test_wrong_indices(index, error, text):
    x = gl.tensor(numbered((3, 4)))
    before = x.tolist()
    for use in (
        lambda: x[index],
        lambda: x.__setitem__(index, 0.0),
        lambda: (gl.tensor(numbered((3, 4)), requires_grad=True) * 1).__setitem__(index, 0.0),
    ):
        with pytest.raises(error) as caught:
            use()
        assert str(caught.value).startswith("indexing: ")
        assert text in str(caught.value)
    assert x.tolist() == before


@pytest.mark.parametrize("recorded", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize(
    ("index", "value", "text"),
    [
        (0, [1.0, 2.0], "setitem: expected a value that broadcasts to (4,), got (2,)"),
        (slice(1, 3), gl.ones(3, 4), "expected a value that broadcasts to (2, 4), got (3, 4)"),
        ([0, 1], gl.ones(3), "expected a value that broadcasts to (2, 4), got (3,)"),
        ((0, 0), gl.ones(2), "expected a value that broadcasts to (), got (2,)"),
        (np.eye(3, 4) > 0, gl.ones(4), "expected a value that broadcasts to (3,), got (4,)"),
    ],
    ids=str,
)
def test_wrong_values(index, value, text, recorded):
    x = gl.tensor(numbered((3, 4)), requires_grad=recorded) * 1
    before = x.tolist()
    with pytest.raises(ShapeError) as caught:
        x[index] = value
    assert text in str(caught.value)
    assert x.tolist() == before


def test_values_of_more_axes_than_their_place():
    x = gl.zeros(2, 3)
    x[0] = gl.ones(1, 1, 3)
    x[[1]] = gl.ones(1, 1, 3) * 2
    x[0, 0] = gl.full((1, 1), 5.0)
    assert x.tolist() == [[5, 1, 1], [2, 2, 2]]


def test_text_values_are_refused():
    x = gl.zeros(2)
    with pytest.raises(DTypeError, match="expected numbers, got str holding text"):
        x[0] = "one"
    with pytest.raises(DTypeError, match="expected numbers, got NoneType"):
        x[0] = None


# ------------------------------------------------------------------- gather, scatter, and kin


def test_gather_and_scatter():
    x = gl.tensor(numbered((3, 4)))
    index = gl.tensor([[0, 1], [3, 3], [2, 0]])
    assert x.gather(1, index).tolist() == [[1, 2], [8, 8], [11, 9]]
    assert x.gather(0, gl.tensor([[2, 0, 1, 2]])).tolist() == [[9, 2, 7, 12]]
    y = gl.zeros(3, 4).scatter(1, index, gl.ones(3, 2))
    assert y.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]
    y = gl.zeros(3, 4).scatter_add(1, index, gl.ones(3, 2))
    assert y.tolist() == [[1, 1, 0, 0], [0, 0, 0, 2], [1, 0, 1, 0]]
    assert gl.zeros(3).scatter(0, gl.tensor([2]), 5.0).tolist() == [0, 0, 5]
    assert gl.tensor([1.0, 2.0, 3.0]).gather(0, gl.tensor([2, 2])).tolist() == [3, 3]
    assert gl.take_along_axis(x, gl.tensor([[1]]), 1).tolist() == [[2], [6], [10]]


def test_take():
    x = gl.tensor(numbered((3, 4)))
    assert x.take(gl.tensor([2, 0]), axis=0).tolist() == [[9, 10, 11, 12], [1, 2, 3, 4]]
    assert x.take(gl.tensor([[1, -1]]), axis=1).shape == (3, 1, 2)
    assert x.take(gl.tensor([11, 0])).tolist() == [12, 1]
    assert x.index_select(1, gl.tensor([3])).tolist() == [[4], [8], [12]]
    assert x.take(gl.tensor([2]), dim=0).tolist() == [[9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: x.gather(1, gl.tensor([[4]])),
            AxisError,
            "gather: expected indices from -4 to 3 for axis 1, got 4",
        ),
        (
            lambda x: x.gather(1, gl.tensor([0])),
            ShapeError,
            "gather: expected an index of 2 axes that fits within (3, 4), got (1,)",
        ),
        (
            lambda x: x.gather(1, gl.tensor([[0.0]])),
            DTypeError,
            "gather: expected an integer index, got float32",
        ),
        (
            lambda x: x.gather(2, gl.tensor([[0]])),
            AxisError,
            "gather: expected an axis from -2 to 1",
        ),
        (lambda x: x.take(gl.tensor([12])), AxisError, "take: expected indices from -12 to 11"),
        (
            lambda x: x.take(gl.tensor([0.5])),
            DTypeError,
            "take: expected integer indices, got float",
        ),
        (
            lambda x: x.scatter(0, gl.tensor([[5]]), 1.0),
            AxisError,
            "scatter: expected indices from -3 to 2 for axis 0, got 5",
        ),
        (
            lambda x: gl.take_along_axis(x, gl.tensor([0]), 1),
            ShapeError,
            "take_along_axis: expected indices of 2 axes, as x, got (1,)",
        ),
        (
            lambda x: x.scatter(0, gl.tensor([[0, 1]]), gl.ones(1, 1)),
            ShapeError,
            "scatter: expected values of at least the index's shape (1, 2), got (1, 1)",
        ),
        (
            lambda x: x.masked_select(gl.tensor([1, 0, 1, 0])),
            DTypeError,
            "masked_select: expected a bool mask, got int64",
        ),
    ],
)
def test_wrong_gathers(call, error, text):
    with pytest.raises(error) as caught:
        call(gl.tensor(numbered((3, 4))))
    assert text in str(caught.value)


def test_nonzero():
    x = gl.tensor([[0, 1], [2, 0]])
    assert x.nonzero().tolist() == [[0, 1], [1, 0]]
    rows, columns = x.nonzero(as_tuple=True)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert x[rows, columns].tolist() == [1, 2]
    assert [each.tolist() for each in gl.where(x > 0)] == [[0, 1], [1, 0]]
    assert gl.tensor(3).nonzero().shape == (1, 0)
    assert gl.tensor([]).nonzero().shape == (0, 1)


def test_one_hot():
    x = gl.tensor([[0, 2], [1, 0]])
    assert gl.one_hot(x).tolist() == np.eye(3)[x.numpy()].tolist()
    assert gl.one_hot(x, 4).shape == (2, 2, 4)
    assert gl.one_hot(gl.tensor([], dtype="int64"), 3).shape == (0, 3)
    with pytest.raises(AxisError, match="one_hot: expected classes from 0 to 1, got 2"):
        gl.one_hot(x, 2)
    with pytest.raises(AxisError, match="one_hot: expected classes from 0 to 0, got -1"):
        gl.one_hot(gl.tensor([-1, 0]))


def test_second_order_through_indexing():
    index = gl.tensor([0, 2, 0])
    mask = gl.tensor([True, False, True])
    assert gradcheck(lambda x: (x[index] * x[mask][0]) ** 2, [np.array([1.0, 2.0, 3.0])], order=2)
    assert gradcheck(
        lambda x: (x.gather(0, index) * x.take(index) * x[1:].sum()) ** 2,
        [np.array([1.0, 2.0, 3.0])],
        order=2,
    )
