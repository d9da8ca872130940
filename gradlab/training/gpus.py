"""The devices of this machine, as the course notes name them, and those of a Trainer."""

from __future__ import annotations

from functools import cache

from gradlab.arguments import warn
from gradlab.devices import Device, DeviceLike, cpu as the_cpu, device_count, find_device
from gradlab.errors import DeviceError, OptionError, message
from gradlab.tensor import require_integer


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


def find_gpus(num_gpus: int, device: DeviceLike = None) -> list[Device]:
    """The GPUs to train on: none, or one, the ``device`` where it names one.

    Says once where it is fewer than asked for. Raises `OptionError` for GPUs and the CPU at once.
    """
    require_integer("Trainer", "num_gpus", num_gpus, 0)
    if not num_gpus:
        return []
    if device is not None:
        if str(device) == "cpu":
            got = f"device='cpu' and num_gpus={num_gpus}"
            hint = "leave one of them out"
            expected = "a device that is a GPU where num_gpus is given"
            raise OptionError(message("Trainer", expected=expected, got=got, hint=hint))
        found = find_device(device)
        return [] if found is the_cpu else [found]  # "auto" has said why
    try:
        first = find_device("cuda")
    except DeviceError as error:
        _say_once(f"Trainer: num_gpus={num_gpus} trains on the CPU: {error}")
        return []
    if num_gpus > 1:
        _say_once(
            f"Trainer: num_gpus={num_gpus} trains on one GPU, {first}: it does not divide a batch "
            "among several"
        )
    return [first]


@cache
def _say_once(text: str) -> None:
    warn(text)
