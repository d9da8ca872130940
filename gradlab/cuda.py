"""Questions about the NVIDIA GPUs of this machine.

Where there is none, `is_available` is False and `device_count` 0; what is asked of one GPU raises.
"""

from __future__ import annotations

from typing import Any

from gradlab.arguments import guard_namespace
from gradlab.backends.gate import Statistics, counters
from gradlab.devices import DeviceLike, device_count, find_device, is_available, synchronize
from gradlab.errors import OptionError, message
from gradlab.ops import random

__all__ = [
    "Statistics",
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "memory",
    "reset_statistics",
    "statistics",
    "synchronize",
]


def current_device() -> int:
    """The number of the GPU that ``"cuda"`` names: 0, for no global mode changes it.

    Raises `DeviceError` where CUDA does not work.
    """
    return _gpu("current_device", "cuda").index or 0


def get_device_name(where: DeviceLike | int = "cuda") -> str:
    """The name of a GPU, as ``"NVIDIA H100 80GB HBM3"``; ``where`` is a device or its number.

    Raises `DeviceError` where it does not work.
    """
    backend = _gpu("get_device_name", where).backend
    return str(backend.bind(backend.driver.properties)().name)


def get_device_capability(where: DeviceLike | int = "cuda") -> tuple[int, int]:
    """The compute capability of a GPU, as ``(9, 0)``; ``where`` is a device or its number.

    Raises `DeviceError` where it does not work.
    """
    backend = _gpu("get_device_capability", where).backend
    major, minor = backend.bind(backend.driver.properties)().capability
    return major, minor


def memory(where: DeviceLike | int = "cuda") -> dict[str, int]:
    """Bytes ``used``, ``free`` and ``total`` on a CUDA device.

    Raises `DeviceError` where the device does not work.
    """
    return find_device(where).backend.memory()


def empty_cache() -> None:
    """Give the memory that freed arrays left with gradlab back to the GPUs, for other programs.

    gradlab uses that memory for its next arrays, so nothing has more room or runs faster by this.
    Does nothing where CUDA does not work.
    """
    for index in range(device_count()):
        find_device(index).backend.empty_cache()


def manual_seed(seed: int) -> None:
    """Seed the random numbers: `gradlab.manual_seed`, whose generator serves all devices."""
    random.manual_seed(seed)


manual_seed_all = manual_seed


def _gpu(operation: str, where: DeviceLike | int) -> Any:
    found = find_device("cuda" if where is None else where)
    if found.type != "cuda":
        raise OptionError(message(operation, expected="a CUDA device", got=str(found)))
    return found


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


guard_namespace(globals())
