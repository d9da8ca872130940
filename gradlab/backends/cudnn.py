"""PyTorch's switches of cuDNN, which gradlab does not use: setting them changes nothing.

They are here for programs that set them, commonly to get the same result from each run. gradlab's
results are the same each time without.
"""

from __future__ import annotations

enabled = False
deterministic = True
benchmark = False


def is_available() -> bool:
    """Whether cuDNN is used: never."""
    return False
