"""The devices of this machine, as the course notes name them."""

from __future__ import annotations

from gradlab.devices import Device, device_count


def cpu() -> Device:
    """The CPU.

    >>> cpu()
    device(type='cpu')
    """
    return Device("cpu")


def gpu(i: int = 0) -> Device:
    """The GPU of number ``i``, whether or not it is there: that shows when it is used.

    >>> gpu(1)
    device(type='cuda', index=1)
    """
    return Device("cuda", i)


def num_gpus() -> int:
    """The number of GPUs that work; 0 where CUDA does not.

    >>> num_gpus() >= 0
    True
    """
    return device_count()


def try_gpu(i: int = 0) -> Device:
    """The GPU of number ``i`` where it is there, else the CPU.

    >>> try_gpu(1000)
    device(type='cpu')
    """
    return gpu(i) if i < num_gpus() else cpu()


def try_all_gpus() -> list[Device]:
    """All GPUs, or the CPU alone where there is none, so that there is always a first device.

    >>> try_all_gpus()[0] == try_gpu()
    True
    """
    return [gpu(i) for i in range(num_gpus())] or [cpu()]
