"""Which bytes of memory arrays occupy, read from their addresses and strides alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Memory(NamedTuple):
    """The memory of an array: its elements lie from ``start`` up to ``end``, with or without gaps.

    ``nbytes`` are those of its elements, each counted once where a broadcast repeats it.
    """

    start: int
    end: int
    nbytes: int
    strides: tuple[int, ...]

    @property
    def place(self) -> tuple[int, int, int]:
        """What a tensor has in common with its reshaped and transposed views."""
        return self[:3]


def memory_of(value: Any) -> Memory | None:
    """The memory of a tensor or an array, on any device; None if it has no elements.

    >>> import numpy as np
    >>> memory_of(np.ones((4, 3), np.float32)[:, 0]).nbytes
    16
    """
    array = getattr(value, "_array", value)
    if not array.size:
        return None
    interface = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    start = end = int(interface["data"][0])
    count, strides = 1, []
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size == 1 or not stride:
            continue
        count *= size
        strides.append(stride)
        reach = (size - 1) * stride
        start, end = (start + reach, end) if reach < 0 else (start, end + reach)
    return Memory(start, end + array.itemsize, count * array.itemsize, tuple(strides))


def distinct_bytes(memories: Iterable[Memory]) -> int:
    """The bytes that some arrays occupy together, those that they share counted once.

    Arrays that overlap take the memory from the first to the last of their bytes, or as much as
    their elements if that is less: two columns of a matrix lie between one another, and apart.
    """
    total = end = length = elements = 0
    for each in sorted(set(memories)):
        if each.start >= end:
            total += min(length, elements)
            end, length, elements = each.start, 0, 0
        length += max(each.end - end, 0)
        end = max(end, each.end)
        elements += each.nbytes
    return total + min(length, elements)
