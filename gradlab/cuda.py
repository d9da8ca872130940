"""Questions about the NVIDIA GPUs of this machine; only `memory` fails where there is none."""

from __future__ import annotations

from gradlab.backends.gate import Statistics, counters
from gradlab.devices import DeviceLike, device, device_count, is_available, synchronize

__all__ = [
    "Statistics",
    "device_count",
    "is_available",
    "memory",
    "reset_statistics",
    "statistics",
    "synchronize",
]


def memory(where: DeviceLike = "cuda") -> dict[str, int]:
    """Bytes ``used``, ``free`` and ``total`` on a CUDA device.

    Raises `DeviceError` where the device does not work.
    """
    return device(where).backend.memory()


def statistics() -> Statistics:
    """How often gradlab launched a kernel, copied, and made the host wait for a GPU.

    Counts since the start or `reset_statistics`, over all GPUs. A training step should add no
    ``synchronizations``: each one leaves the GPU idle until the host has queued new work.

    >>> reset_statistics()
    >>> statistics()
    Statistics(launches=0, copies_to_device=0, copies_to_host=0, synchronizations=0)
    """
    return counters.read()


def reset_statistics() -> None:
    """Start counting from zero."""
    counters.reset()
