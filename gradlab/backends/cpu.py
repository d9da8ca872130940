"""The CPU: NumPy arrays, and kernels/cpu where they win."""

from __future__ import annotations

import numpy as np


class CpuBackend:
    """NumPy on the host. Nothing is asynchronous and nothing is copied."""

    name = "cpu"
    xp = np
    array_type = np.ndarray

    def from_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def synchronize(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {}
