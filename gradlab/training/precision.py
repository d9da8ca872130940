"""The dtype that a Trainer computes in."""

from __future__ import annotations

from typing import Any

from gradlab import dtypes
from gradlab.dtypes import DType
from gradlab.errors import OptionError, message

_NAMES = {
    **dict.fromkeys(("32", "32-true", "float32"), dtypes.float32),
    **dict.fromkeys(("64", "64-true", "float64"), dtypes.float64),
    **dict.fromkeys(("bf16", "bf16-true", "bfloat16"), dtypes.bfloat16),
}


def find_precision(precision: Any) -> DType | None:
    """The dtype for parameters and floating inputs; None leaves each in its own.

    Mixed precision, and float16 with the loss scaling it needs, are refused rather than imitated.
    """
    if precision is None:
        return None
    name = precision.name if isinstance(precision, dtypes.DType) else str(precision)
    if name in _NAMES:
        return _NAMES[name]
    hint = ""
    if "mixed" in name:
        hint = "mixed precision is not available"
    elif name.startswith(("16", "float16", "half")):
        hint = "float16 needs loss scaling, which is not available; 'bfloat16' does without"
    raise OptionError(
        message(
            "Trainer",
            expected="precision None, 'float32', 'float64' or 'bfloat16'",
            got=repr(precision),
            hint=hint,
        )
    )
