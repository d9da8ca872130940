"""Devices: where a tensor's memory lies and its arithmetic runs.

The device belongs to the tensor, never to a global mode.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

from gradlab.backends import cuda
from gradlab.backends.cpu import CpuBackend
from gradlab.backends.protocol import Backend
from gradlab.errors import DeviceError


class Device:
    """A device such as ``cpu`` or ``cuda:0``. There is one object per device.

    >>> device("cpu").type
    'cpu'
    """

    def __init__(self, kind: str, index: int | None) -> None:
        self.type = kind
        self.index = index

    @cached_property
    def backend(self) -> Backend:
        if self.index is None:
            return CpuBackend()
        return cuda.CudaBackend(self.index)

    @cached_property
    def xp(self) -> Any:
        return self.backend.outer_xp

    @cached_property
    def array_type(self) -> type:
        return self.backend.array_type

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device('{self}')"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other or (self.index == 0 and other == self.type)
        return self is other

    # Identity: the dispatcher hashes a device at every call.
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (str(self),)


cpu = Device("cpu", None)
_devices: dict[str, Device] = {"cpu": cpu}
_auto_said = False

DeviceLike = Device | str | None


def device(spec: DeviceLike = None) -> Device:
    """Return the device that ``spec`` names: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``.

    ``None`` is the CPU. ``"auto"`` is the first CUDA device where one works, else the CPU, and
    then says so once. Raises `DeviceError` with the reason and the remedy where a device that
    was asked for by name does not work.

    >>> device("cpu")
    device('cpu')
    """
    if isinstance(spec, Device):
        return spec
    if spec is None:
        return cpu
    found = _devices.get(spec)
    return _find(spec) if found is None else found


def _find(spec: str) -> Device:
    if spec == "auto":
        return _auto()
    kind, _, number = str(spec).partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise DeviceError(f"device: expected 'cpu', 'cuda', 'cuda:<index>' or 'auto', got {spec!r}")
    if kind == "cpu":
        return cpu
    name = f"cuda:{int(number or 0)}"
    if name not in _devices:
        made = Device("cuda", int(number or 0))
        made.backend  # noqa: B018 - fails here, by name, rather than at the first array
        _devices[name] = made
    return _devices[name]


def _auto() -> Device:
    global _auto_said
    try:
        return device("cuda")
    except DeviceError as error:
        if not _auto_said:
            _auto_said = True
            warnings.warn(f"device='auto' takes the CPU: {error}", stacklevel=3)
        return cpu


def is_available(kind: str = "cuda") -> bool:
    """True where ``device(kind)`` works."""
    try:
        device(kind)
    except DeviceError:
        return False
    return True


def device_count() -> int:
    """The number of CUDA devices that work."""
    try:
        return cuda.driver().device_count()
    except DeviceError:
        return 0


def synchronize(where: DeviceLike = None) -> None:
    """Wait until all work queued on a device is done; returns at once for the CPU."""
    device(where).backend.synchronize()


def forget_cuda() -> None:
    """Drop the CUDA devices found so far, so that the next use looks again (for tests)."""
    global _auto_said
    from gradlab.backends.probe import probe_cuda

    _auto_said = False
    probe_cuda.cache_clear()
    for name in [name for name in _devices if name != "cpu"]:
        del _devices[name]
