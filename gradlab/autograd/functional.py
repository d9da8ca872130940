"""`jacobian`, `hessian`, `vjp` and `jvp` under PyTorch's name; they stand in `ops.derivatives`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradlab.arguments import guarded

if TYPE_CHECKING:
    from gradlab.ops.derivatives import hessian, jacobian, jvp, vjp

__all__ = ["hessian", "jacobian", "jvp", "vjp"]


def __getattr__(name: str) -> Any:
    """Import them when they are first used: they need tensors, which need this package."""
    if name in __all__:
        from gradlab.ops import derivatives

        return guarded(getattr(derivatives, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
