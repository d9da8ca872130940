"""Copies between devices, as an op, so that gradients travel back."""

from __future__ import annotations

from typing import Any

from gradlab.autograd.modes import mode
from gradlab.devices import Device
from gradlab.ops.core import Op, record
from gradlab.tensor import Tensor

TRANSFER = Op(
    "transfer",
    lambda xp, x, *, source: x,
    gradients={"x": lambda gy, source: transfer(gy, source)},
)


def transfer(x: Tensor, where: Device) -> Tensor:
    """Return a copy of ``x`` on the device ``where``."""
    array: Any = where.backend.from_host(x.device.backend.to_host(x._array))
    y = Tensor._wrap(array, where)
    if x._node is not None and mode.grad:
        y._node = record(TRANSFER, (x,), {"source": x.device}, 1, (x._node,), False, array)
    return y
