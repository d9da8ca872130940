"""Questions about the NVIDIA GPUs of this machine; none of them fails where there is none."""

from __future__ import annotations

from gradlab.devices import DeviceLike, device, device_count, is_available, synchronize

__all__ = ["device_count", "is_available", "memory", "synchronize"]


def memory(where: DeviceLike = "cuda") -> dict[str, int]:
    """Bytes ``used``, ``free`` and ``total`` on a CUDA device."""
    return device(where).backend.memory()
