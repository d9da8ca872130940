"""Devices: where a tensor's memory lies and its arithmetic runs.

The device belongs to the tensor, never to a global mode.
"""

from __future__ import annotations

import builtins
import re
from functools import cached_property
from typing import Any

from gradlab.arguments import show, warn
from gradlab.backends import cuda
from gradlab.backends.cpu import CpuBackend
from gradlab.backends.protocol import Backend
from gradlab.errors import DeviceError, message

_FORM = re.compile(r"(?P<kind>cpu|cuda|auto)(:(?P<index>[0-9]+))?")


class Device:
    """The name of a device: ``cpu``, or ``cuda`` and the number of a GPU.

    ``Device("cuda:1")``, ``Device("cuda", 1)``, ``Device(1)`` and ``Device(type="cuda", index=1)``
    are the same object; ``"cuda"`` is ``"cuda:0"``, ``None`` the CPU. ``"auto"`` is the first CUDA
    device where one works, else the CPU, and then says so once.

    The machine is not asked: a device that it lacks can be named. To put a tensor there raises
    `DeviceError` with the reason and the remedy.

    >>> device = Device("cuda", 1)
    >>> device
    device(type='cuda', index=1)
    >>> str(device), device == Device("cuda:1")
    ('cuda:1', True)
    """

    type: str
    index: int | None

    def __new__(cls, type: DeviceLike | int = None, index: int | None = None) -> Device:
        name = _name(type, index)
        if name == "auto":
            return _auto()
        found = _devices.get(name)
        if found is None:
            found = _devices[name] = object.__new__(cls)
            kind, _, number = name.partition(":")
            found.type, found.index = kind, int(number) if number else None
        return found

    @cached_property
    def backend(self) -> Backend:
        if self.index is None:
            return CpuBackend()
        return cuda.CudaBackend(self.index)

    @cached_property
    def xp(self) -> Any:
        return self.backend.outer_xp

    @cached_property
    def array_type(self) -> builtins.type:
        return self.backend.array_type

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other or (self.index == 0 and other == self.type)
        return self is other

    # Identity: the dispatcher hashes a device at every call.
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (str(self),)


def _name(kind: DeviceLike | int, index: int | None) -> str:
    """``cpu``, ``cuda:<index>`` or ``auto``."""
    got = show(kind) if index is None else f"{show(kind)}, {show(index)}"
    if isinstance(kind, Device) and index is None:
        return str(kind)
    if isinstance(kind, int) and index is None:
        index, kind = kind, "cuda"
    match = _FORM.fullmatch("cpu" if kind is None else kind if isinstance(kind, str) else "")
    if not match or not _is_index(index) or (index is not None and match["index"]):
        expected = "'cpu', 'cuda', 'cuda:<index>' or 'auto'"
        raise DeviceError(message("device", expected=expected, got=got))
    return f"cuda:{int(match['index'] or index or 0)}" if match["kind"] == "cuda" else match["kind"]


def _is_index(index: Any) -> bool:
    return index is None or (type(index) is int and index >= 0)


device = Device
DeviceLike = Device | str | None

_devices: dict[str, Device] = {}
cpu = Device("cpu")
# What `find_device` was asked for and has found to work.
_working: dict[Any, Device] = {None: cpu, "cpu": cpu, cpu: cpu}
_auto_said = False


def find_device(spec: DeviceLike | int = None) -> Device:
    """The device that ``spec`` names, which works: every function that takes a device asks here.

    Raises `DeviceError` with the reason and the remedy where it does not work.

    >>> find_device("cpu")
    device(type='cpu')
    """
    try:
        found = _working.get(spec)
    except TypeError:  # what has no hash names no device
        found = None
    if found is None:
        found = Device(spec)
        found.backend  # noqa: B018 - fails here, by name, rather than at the first array
        if spec != "auto":
            _working[spec] = found
    return found


def _auto() -> Device:
    global _auto_said
    try:
        return find_device("cuda")
    except DeviceError as error:
        if not _auto_said:
            _auto_said = True
            warn(f"device='auto' takes the CPU: {error}")
        return cpu


def is_available(kind: str = "cuda") -> bool:
    """True where a tensor can be put on that device."""
    try:
        find_device(kind)
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
    """Wait until all work queued on a device is done, without one on every GPU that was used.

    Returns at once for the CPU.
    """
    if where is not None:
        find_device(where).backend.synchronize()
        return
    for each in list(_devices.values()):
        if each.type == "cuda" and "backend" in each.__dict__:
            each.backend.synchronize()


def forget_cuda() -> None:
    """Drop the CUDA devices found so far, so that the next use looks again (for tests)."""
    global _auto_said
    from gradlab.backends.probe import probe_cuda

    _auto_said = False
    probe_cuda.cache_clear()
    for known in (_devices, _working):
        for key in [key for key, each in known.items() if each is not cpu]:
            del known[key]
