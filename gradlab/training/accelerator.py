"""Which GPU a Trainer was asked for by number."""

from __future__ import annotations

import warnings

from gradlab.devices import Device, DeviceLike, cpu, find_device
from gradlab.errors import DeviceError, OptionError, message
from gradlab.training.stopping import require_at_least

_said: set[str] = set()


def find_gpus(num_gpus: int, device: DeviceLike = None) -> list[Device]:
    """The GPUs to train on: none, or one, the ``device`` where it names one.

    Says once where it is fewer than asked for. Raises `OptionError` for GPUs and the CPU at once.
    """
    require_at_least("num_gpus", num_gpus, 0)
    if not num_gpus:
        return []
    if device is not None:
        if str(device) == "cpu":
            got = f"device='cpu' and num_gpus={num_gpus}"
            hint = "leave one of them out"
            expected = "a device that is a GPU where num_gpus is given"
            raise OptionError(message("Trainer", expected=expected, got=got, hint=hint))
        found = find_device(device)
        return [] if found is cpu else [found]  # "auto" has said why
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


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=4)
