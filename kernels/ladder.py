"""The rungs of each kernel family, and which of them a call takes.

A family (``matmul``, ``softmax``, ``reduction``) is a few functions on device arrays; a rung is
one way to compute them: gradlab's own CUDA kernels (``"gradlab"``), the vendor's library
(``"cublas"``, ``"cupy"``), the plain Python of `gradlab.kernels.numba_cuda` (``"numba_naive"``,
``"numba_tiled"``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

OWN = "gradlab"


class Rung(NamedTuple):
    """One way to compute one function of a family.

    ``accepts(*arrays, **options)`` says whether it can compute this call.
    """

    family: str
    name: str
    function: str
    accepts: Callable[..., bool]
    run: Callable[..., Any]


# family → function → name of the rung → rung
RUNGS: dict[str, dict[str, dict[str, Rung]]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def rung(
    family: str, name: str = OWN, function: str = "", *, accepts: Callable[..., bool] | None = None
) -> Callable[[F], F]:
    """Register a function as the rung ``name`` of ``family``; its own name is the function's."""

    def declare(run: F) -> F:
        named = function or run.__name__
        made = Rung(family, name, named, accepts or (lambda *_, **__: True), run)
        RUNGS.setdefault(family, {}).setdefault(named, {})[name] = made
        return run

    return declare


def accepts(family: str, function: str, *arrays: Any, **options: Any) -> bool:
    """True where gradlab's own rung can compute this call."""
    return RUNGS[family][function][OWN].accepts(*arrays, **options)


def run(family: str, function: str, *arrays: Any, **options: Any) -> Any:
    """Compute a call on the rung that is chosen for it."""
    return RUNGS[family][function][OWN].run(*arrays, **options)
