"""The rungs of each kernel family, and which of them a call takes.

A family (``matmul``, ``softmax``, ``reduction``) is a few functions on device arrays; a rung is
one way to compute them: gradlab's own CUDA kernels (``"gradlab"``), the vendor's library
(``"cublas"``, ``"cupy"``), the plain Python of `gradlab.kernels.numba_cuda` (``"numba_naive"``,
``"numba_tiled"``).

Ops ask `accepts` and `run`. Where nobody chose anything, which is nearly always, they take
gradlab's own rung after one look at an attribute. `use` chooses rungs by name for a block of
code, `policy` says what is preferred where no rung was named.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

OWN = "gradlab"

# In the order of the ladder. The first two are written to be read, not to be fast.
ORDER = ("numba_naive", "numba_tiled", OWN, "cublas", "cupy")
READABLE, LIBRARIES = ORDER[:2], ORDER[3:]
POLICIES = ("gradlab", "library")


class Rung(NamedTuple):
    """One way to compute one function of a family.

    ``accepts(*arrays, **options)`` says whether it can compute this call, and ``refuses``, with the
    same arguments, why not (empty where it can).
    """

    family: str
    name: str
    function: str
    accepts: Callable[..., bool]
    run: Callable[..., Any]
    refuses: Callable[..., str]


# family → function → name of the rung → rung
RUNGS: dict[str, dict[str, dict[str, Rung]]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def rung(
    family: str,
    name: str = OWN,
    function: str = "",
    *,
    accepts: Callable[..., bool] | None = None,
    refuses: Callable[..., str] | None = None,
) -> Callable[[F], F]:
    """Register a function as the rung ``name`` of ``family``; its own name is the function's.

    ``refuses`` gives the reason why it cannot compute a call, ``accepts`` only says whether it can;
    one of them is enough.
    """

    def why(*arrays: Any, **options: Any) -> str:
        fits = accepts is None or accepts(*arrays, **options)
        return "" if fits else f"it does not take {', '.join(map(_describe, arrays))}"

    def fits(*arrays: Any, **options: Any) -> bool:
        return refuses is None or not refuses(*arrays, **options)

    def declare(run: F) -> F:
        named = function or run.__name__
        made = Rung(family, name, named, accepts or fits, run, refuses or why)
        RUNGS.setdefault(family, {}).setdefault(named, {})[name] = made
        return run

    return declare


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"{value.dtype.name} {tuple(shape)}"


# ----------------------------------------------------------------------------- what a call takes


class _Chosen(threading.local):
    """What `use` and ``with policy(...)`` chose in this thread. None: nothing was chosen."""

    rungs: dict[str, str] | None = None
    policy: str | None = None


class _State:
    """``plain`` is true where every call takes gradlab's own rung: nobody, anywhere, chose."""

    __slots__ = ("blocks", "lock", "plain", "policy")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0  # with-blocks that are open, in all threads
        self.policy = "gradlab"  # of the process
        self.plain = True

    def change(self, blocks: int = 0, policy: str | None = None) -> None:
        with self.lock:
            self.blocks += blocks
            self.policy = policy or self.policy
            self.plain = self.blocks == 0 and self.policy == "gradlab"


# Thread-local and not a context variable: ops run in a context of their own.
_chosen = _Chosen()
_state = _State()


def accepts(family: str, function: str, *arrays: Any, **options: Any) -> bool:
    """True where the rung that the call would take can compute it."""
    own = RUNGS[family][function][OWN]
    if _state.plain:
        return own.accepts(*arrays, **options)
    found = _choose(family, function, arrays, options)
    return found is not own or own.accepts(*arrays, **options)


def run(family: str, function: str, *arrays: Any, **options: Any) -> Any:
    """Compute a call on the rung that is chosen for it."""
    if _state.plain:
        return RUNGS[family][function][OWN].run(*arrays, **options)
    return _choose(family, function, arrays, options).run(*arrays, **options)


def _choose(family: str, function: str, arrays: Any, options: Any) -> Rung:
    rungs = RUNGS[family][function]
    named = (_chosen.rungs or {}).get(family)
    if named == OWN:
        return rungs[OWN]
    if named is not None:
        why = _why_not(rungs.get(named), arrays, options)
        if not why:
            return rungs[named]
        _warn_once(family, function, named, why)
        return rungs[OWN]
    preferred = _chosen.policy or _state.policy
    if preferred == "library":
        return _library(rungs, arrays, options) or rungs[OWN]
    return rungs[OWN]


def _why_not(rung: Rung | None, arrays: Any, options: Any) -> str:
    return "it has no such function" if rung is None else rung.refuses(*arrays, **options)


@cache
def _warn_once(family: str, function: str, named: str, why: str) -> None:
    warnings.warn(
        f"kernels.use: {named!r} cannot compute this {function}: {why}; gradlab's own kernel does",
        stacklevel=2,
    )


def _library(rungs: dict[str, Rung], arrays: Any, options: Any) -> Rung | None:
    for name in LIBRARIES:
        if name in rungs and not rungs[name].refuses(*arrays, **options):
            return rungs[name]
    return None


# ------------------------------------------------------------------------------------- choosing


class use:
    """Compute a family's functions on the rung named, inside a ``with`` block and in this thread.

    ``use(matmul="numba_tiled")``, ``use(matmul="cublas", softmax="cupy")``. The rungs are
    ``"gradlab"`` (the default), ``"numba_naive"`` and ``"numba_tiled"`` (plain Python, compiled by
    Numba), and the vendor's library: ``"cublas"`` for matmul, ``"cupy"`` for softmax and reduction.
    Only tensors on a CUDA device take rungs.

    Blocks nest; the inner one decides for the families it names. A call that the rung cannot
    compute takes gradlab's own kernel, and one warning says why. Raises ValueError for a family or
    a rung that does not exist.

    >>> import gradlab as gl
    >>> with gl.kernels.use(matmul="numba_tiled", softmax="cupy"):
    ...     pass  # gl.tensor(..., device="cuda") @ ... here
    """

    def __init__(self, **rungs: str) -> None:
        for family, name in rungs.items():
            check_names("kernels.use", family, name)
        self._rungs = rungs
        self._before: list[dict[str, str] | None] = []  # a stack: one object may be entered twice

    def __enter__(self) -> use:
        self._before.append(_chosen.rungs)
        _chosen.rungs = {**(_chosen.rungs or {}), **self._rungs}
        _state.change(blocks=1)
        return self

    def __exit__(self, *exc: object) -> None:
        _chosen.rungs = self._before.pop()
        _state.change(blocks=-1)


class policy:
    """What computes matmul, softmax and reductions on CUDA where `use` names no rung.

    ``"gradlab"``: gradlab's own kernels (the default). ``"library"``: cuBLAS and CuPy where they
    can compute the call.

    As a function it holds for the process, as a context manager inside the block and in its thread.

    >>> import gradlab as gl
    >>> gl.kernels.policy("gradlab")
    policy('gradlab')
    >>> with gl.kernels.policy("library"):
    ...     pass
    """

    def __init__(self, name: str) -> None:
        if name not in POLICIES:
            expected = " or ".join(map(repr, POLICIES))
            raise ValueError(f"kernels.policy: expected {expected}, got {name!r}")
        self.name = name
        self._process = _state.policy
        self._before: list[str | None] = []
        _state.change(policy=name)

    def __enter__(self) -> policy:
        if not self._before:
            _state.change(policy=self._process)  # it is for the block, not for the process
        self._before.append(_chosen.policy)
        _chosen.policy = self.name
        _state.change(blocks=1)
        return self

    def __exit__(self, *exc: object) -> None:
        _chosen.policy = self._before.pop()
        _state.change(blocks=-1)

    def __repr__(self) -> str:
        return f"policy({self.name!r})"


def load_all() -> None:
    """Register all rungs; those beside gradlab's own are not needed until somebody names one."""
    for name in ("cross_entropy", "library", "matmul", "reduction", "softmax"):
        import_module(f"gradlab.kernels.cuda.{name}")
    for name in ("matmul", "reduction", "softmax"):
        import_module(f"gradlab.kernels.numba_cuda.{name}")


def names(family: str, function: str = "") -> list[str]:
    """The rungs of a family, or of one of its functions, from the bottom of the ladder up."""
    functions = RUNGS[family]
    found = functions[function] if function else {n: 0 for each in functions.values() for n in each}
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def check_names(operation: str, family: str, name: str = OWN) -> None:
    """Refuse a family or a rung that does not exist, listing those that do."""
    load_all()
    if family not in RUNGS:
        known = ", ".join(sorted(RUNGS))
        raise ValueError(f"{operation}: expected a family among {known}, got {family!r}")
    if name not in names(family):
        known = ", ".join(map(repr, names(family)))
        raise ValueError(f"{operation}: expected {family} to be one of {known}, got {name!r}")
