"""Numbers from a device, many in one transfer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradlab.ops.shape import cat
from gradlab.tensor import Tensor


def fetch(values: Iterable[Any]) -> list[Any]:
    """The values, with the number it holds in place of each tensor of one element.

    Tensors of one device and dtype come in one transfer: the host waits once for all of them.

    >>> import gradlab as gl
    >>> fetch([gl.tensor(1.5), "kept", gl.tensor([2.5])])
    [1.5, 'kept', 2.5]
    """
    found = list(values)
    alike: dict[Any, list[int]] = {}
    for i, value in enumerate(found):
        if isinstance(value, Tensor):
            alike.setdefault((value.device, value.dtype), []).append(i)
    for same in alike.values():
        numbers = cat([found[i].detach().reshape(1) for i in same]).tolist()
        for i, number in zip(same, numbers, strict=True):
            found[i] = number
    return found
