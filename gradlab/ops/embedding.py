"""Embedding: rows of a table chosen by index, and their gradients added up where they came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab import dtypes
from gradlab.errors import AxisError, DTypeError, OptionError, ShapeError, message
from gradlab.kernels.cuda import scatter as cuda
from gradlab.kernels.cuda.driver import current
from gradlab.ops.core import Kernel, Op, apply, public
from gradlab.ops.elementwise import where
from gradlab.ops.samples import Sample, values
from gradlab.tensor import Tensor, from_value

# Elements added at a time: their places are int64 and should stay in the cache.
_PIECE = 1 << 16
_UNSIGNED = dict(zip(dtypes.SIGNED, dtypes.UNSIGNED, strict=True))


# ------------------------------------------------------------------------- indices and ranges


def all_below(index: np.ndarray, size: int) -> bool:
    """True where all indices lie in [0, size). As unsigned numbers negative ones are huge, so one
    pass checks both ends."""
    if not index.size:
        return True
    index = index.view(_UNSIGNED.get(index.dtype, index.dtype))
    return bool(np.maximum.reduce(index, axis=None) < size)


def first_outside(index: np.ndarray, size: int) -> tuple[Any, str]:
    """The first index outside [0, size), and its position in words."""
    place = tuple(int(i) for i in np.argwhere((index < 0) | (index >= size))[0])
    where_ = f"position {place[0] if len(place) == 1 else place}" if place else "the only position"
    return index[place], where_


def add_rows(xp: Any, rows: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``rows[i]`` added to row ``index[i]``; rows are added in order."""
    y = xp.zeros(shape, rows.dtype)
    if xp is np:
        add_in_order(y, index, rows)
    else:
        xp.add.at(y, index, rows)
    return y


def add_in_order(y: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    """Add ``rows[i]`` to row ``index[i]`` of ``y``, a contiguous matrix, in place and in order.

    On flat arrays NumPy adds at given places 3 to 5 times faster than whole rows at a time.
    """
    width = rows.shape[1]
    if width == 1:
        np.add.at(y.reshape(-1), index, rows.reshape(-1))
        return
    flat, columns = y.reshape(-1), np.arange(width)
    step = max(1, _PIECE // max(1, width))
    for start in range(0, len(index), step):
        places = index[start : start + step, None] * width + columns
        np.add.at(flat, places.reshape(-1), rows[start : start + step].reshape(-1))


# ---------------------------------------------------------------------------------- embedding


def _embedding_samples() -> Any:
    table = values((6, 3))
    yield Sample((table, np.array([1, 4, 1, 0])), name="a vector of indices, one twice")
    yield Sample((table, np.array([[5, 2], [0, 2]])), name="a matrix of indices")
    # The padding row has no gradient by decree: the numeric one differs.
    padded = (table, np.array([[5, 2], [2, 2]]))
    yield Sample(padded, {"padding_idx": 2}, "with padding", smooth=False)
    yield Sample((table, np.array(3)), name="one index")
    yield Sample((table, np.zeros((0,), np.int64)), name="no index")
    yield Sample((table, np.array([0, 5], np.uint8)), name="uint8 indices")
    many = np.random.default_rng(0).integers(0, 33, 1025)
    yield Sample((values((33, 17)), many), name="1025 indices", large=True)


def _embedding_forward(xp: Any, weight: Any, indices: Any, *, padding_idx: int | None) -> Any:
    if weight.ndim != 2:
        raise ValueError
    if indices.dtype.kind not in "iu":
        raise TypeError
    if xp is np and not all_below(indices, weight.shape[0]):
        raise IndexError
    return weight.take(indices, axis=0)


def _check_embedding(weight: Any, indices: Any, padding_idx: int | None) -> None:
    if weight.ndim != 2:
        expected = "a table of shape (count, width)"
        raise ShapeError(message("embedding", expected=expected, got=f"shape {weight.shape}"))
    if indices.dtype.kind not in "iu":
        raise DTypeError(
            message(
                "embedding",
                expected="integer indices",
                got=f"{indices.dtype.name} {indices.shape}",
                hint="cast them with .astype(gradlab.int64)",
            )
        )
    bad, position = first_outside(indices.numpy(force=True), weight.shape[0])
    raise AxisError(
        message(
            "embedding",
            expected=f"indices from 0 to {weight.shape[0] - 1}, as the table has "
            f"{weight.shape[0]} rows",
            got=f"{bad} at {position}",
        )
    )


def _embedding_add_samples() -> Any:
    index = np.array([[1, 4], [1, 0]])
    yield Sample((values((2, 2, 3)), index), {"shape": (6, 3), "padding_idx": None}, "no padding")
    yield Sample((values((2, 2, 3)), index), {"shape": (6, 3), "padding_idx": 1}, "with padding")


def _embedding_add_forward(
    xp: Any, x: Any, indices: Any, *, shape: tuple[int, ...], padding_idx: int | None
) -> Any:
    index = indices.reshape(-1).astype(np.int64, copy=False)
    y = add_rows(xp, x.reshape(-1, shape[1]) if shape[1] else x, index, shape)
    if padding_idx is not None:
        y[padding_idx] = 0
    return y


def _embedding_add_cuda(
    x: Any, indices: Any, *, shape: tuple[int, ...], padding_idx: int | None
) -> Any:
    y = current().xp.zeros(shape, x.dtype)
    cuda.add_rows(y, indices.reshape(-1), x.reshape(-1, shape[1]))
    if padding_idx is not None:
        y[padding_idx] = 0
    return y


def _embedding_add_gradient(gy: Tensor, indices: Tensor, padding_idx: int | None) -> Tensor:
    gx = apply(EMBEDDING, (gy, indices), {"padding_idx": padding_idx})
    if padding_idx is None:
        return gx
    return where((indices == padding_idx)[..., None], 0.0, gx)


# The gradient of an embedding: the table's zeros, with each row's gradients added to it.
EMBEDDING_ADD = Op(
    "embedding_add",
    _embedding_add_forward,
    inputs=("x", "indices"),
    gradients={"x": _embedding_add_gradient},
    halves=True,
    # xp.add.at adds with atomics on a GPU, whose order changes the sums from run to run.
    kernels=[Kernel("cuda", "scatter", lambda x, *_, **__: cuda.accepts(x), _embedding_add_cuda)],
    samples=_embedding_add_samples,
)

EMBEDDING = Op(
    "embedding",
    _embedding_forward,
    inputs=("weight", "indices"),
    gradients={
        "weight": lambda gy, indices, padding_idx, weight_shape: apply(
            EMBEDDING_ADD, (gy, indices), {"shape": weight_shape, "padding_idx": padding_idx}
        )
    },
    check=_check_embedding,
    samples=_embedding_samples,
)


@public(EMBEDDING)
def embedding(weight: Tensor, indices: Any, padding_idx: int | None = None) -> Tensor:
    """Return the rows of ``weight`` (count, width) at ``indices``: shape (*indices.shape, width).

    ``indices`` are integers from 0 to count - 1. The row ``padding_idx`` (negative: counted from
    the end) gets no gradient.

    Raises `AxisError` naming the first index out of range (on the CPU; on a GPU it is not
    checked, as that would wait for the values), `DTypeError` where indices are not integers.

    >>> embedding(gl.tensor([[0.0, 1.0], [2.0, 3.0]]), gl.tensor([1, 1, 0]))
    tensor([[2., 3.],
            [2., 3.],
            [0., 1.]])
    """
    if not isinstance(indices, Tensor):
        indices = from_value(indices, weight.device, operation="embedding")
    if padding_idx is not None:
        padding_idx = _row_number(padding_idx, weight)
    return apply(EMBEDDING, (weight, indices), {"padding_idx": padding_idx})


def _row_number(padding_idx: int, weight: Tensor) -> int:
    count = weight.shape[0] if weight.ndim else 0
    if not -count <= padding_idx < count:
        raise OptionError(
            message(
                "embedding",
                expected=f"padding_idx from {-count} to {count - 1}",
                got=str(padding_idx),
            )
        )
    return padding_idx % count


__all__ = ["embedding"]
