"""The CPU: NumPy arrays, and kernels/cpu where they win."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlab.errors import OutOfMemoryError


class CpuBackend:
    """NumPy on the host. Nothing is asynchronous and nothing is copied."""

    name = "cpu"
    xp: Any = np
    outer_xp: Any = np
    array_type: type = np.ndarray

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def from_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def synchronize(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {}

    def empty_cache(self) -> None:
        pass

    def explain(self, operation: str, error: Exception) -> Exception:
        if isinstance(error, MemoryError) and not isinstance(error, OutOfMemoryError):
            return OutOfMemoryError(f"{operation}: out of memory on cpu: {error}")
        return error
