"""The GPU to compute on, if there is one, under PyTorch's names of it.

>>> import gradlab as gl
>>> found = gl.accelerator.is_available()
>>> device = gl.accelerator.current_accelerator() if found else gl.device("cpu")
>>> gl.ones(2, device=device).sum().item()
2.0
"""

from __future__ import annotations

from gradlab import devices
from gradlab.devices import Device, device_count, synchronize

__all__ = ["current_accelerator", "device_count", "is_available", "synchronize"]


def is_available() -> bool:
    """Whether a GPU works here."""
    return devices.is_available("cuda")


def current_accelerator(check_available: bool = False) -> Device | None:
    """The device ``cuda:0``, or None where no GPU works.

    ``check_available`` changes nothing: PyTorch asks with it whether what it was built for is also
    there, and gradlab always asks.
    """
    return Device("cuda") if is_available() else None
