"""What a backend must offer, and nothing more.

An op's forward is written against ``xp``, an array namespace with NumPy's names. Everything
else that differs between devices (copies to and from the host, waiting, memory) is one of the
few methods here, so that a new device is one new file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray


class Backend(Protocol):
    """The services one device gives to the tensors that live on it."""

    name: str
    xp: Any  # for code that runs on the device already: inside `bind`
    outer_xp: Any  # for all other code
    array_type: type

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` such that it runs with this device as the current one."""

    def from_host(self, array: np.ndarray) -> Array:
        """Return ``array`` on the device; the CPU shares the memory."""

    def to_host(self, array: Array) -> np.ndarray:
        """Return the values as a NumPy array, waiting for them; the CPU shares the memory."""

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""

    def memory(self) -> dict[str, int]:
        """Bytes: ``used``, ``free`` and ``total``, where the device knows them."""

    def empty_cache(self) -> None:
        """Give memory that freed arrays left behind back to the device."""

    def explain(self, operation: str, error: Exception) -> Exception:
        """What to raise for a MemoryError or RuntimeError of the device that ``operation`` met."""
