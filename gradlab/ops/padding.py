"""Values put round a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlab.errors import OptionError, ShapeError, message
from gradlab.ops.creation import full
from gradlab.ops.shape import cat
from gradlab.tensor import Tensor


def pad(
    x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Put ``value`` (0 unless given) round ``x``, so many times before and after it on each axis.

    ``pad`` is (before, after) for the last axis, then for the one before it, and so on, as
    PyTorch has it; a negative number cuts off so many elements. ``mode`` is ``"constant"``.

    >>> import gradlab as gl
    >>> pad(gl.ones(1, 2), (1, 0, 0, 1), value=5.0)
    tensor([[5., 1., 1.],
            [5., 5., 5.]])
    """
    if mode != "constant":
        raise OptionError(message("pad", expected="mode 'constant'", got=repr(mode)))
    widths = [int(width) for width in pad]
    if len(widths) % 2 or len(widths) > 2 * x.ndim:
        expected = f"pairs of numbers for at most {x.ndim} axes"
        raise ShapeError(message("pad", expected=expected, got=str(tuple(pad))))
    for number, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        x = _pad_axis(x, -1 - number, before, after, value or 0.0)
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, value: Any) -> Tensor:
    size = x.shape[axis]
    if size + before + after < 0:
        raise ShapeError(
            message("pad", expected=f"to cut off at most {size} elements", got=f"{-before - after}")
        )
    if before < 0 or after < 0:
        kept = slice(max(0, -before), size - max(0, -after))
        x = x[(..., kept, *[slice(None)] * (-axis - 1))]

    def block(count: int) -> Tensor:
        shape = [*x.shape]
        shape[axis] = count
        return full(shape, value, dtype=x.dtype, device=x.device)

    parts = [block(before)] if before > 0 else []
    parts += [x] + ([block(after)] if after > 0 else [])
    return cat(parts, axis) if len(parts) > 1 else x


__all__ = ["pad"]
