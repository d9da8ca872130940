"""PyTorch's questions about the GPUs of Apple, which gradlab does not run on."""

from __future__ import annotations


def is_available() -> bool:
    """Whether tensors can lie on device ``"mps"``: never."""
    return False


def is_built() -> bool:
    """Whether gradlab was built for device ``"mps"``: never."""
    return False
