"""Scalar Python functions over NumPy arrays: a ufunc compiled by Numba."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from gradlab.kernels.scalar import ScalarError, ScalarFunction, compiling


def missing() -> str:
    """The package that is not installed; empty where all are."""
    return "" if find_spec("numba") else "numba"


class Compiled(NamedTuple):
    """A ufunc, its result's dtype, and the place of the result in what the function returns."""

    ufunc: Any
    dtype: np.dtype
    pick: int | None


def compile_ufunc(scalar: ScalarFunction, dtype: Any, pick: int | None = None) -> Compiled:
    """A NumPy ufunc of the function for inputs of ``dtype``, or of one of the values it returns.

    The result has that dtype too, or is bool where the function returns a bool. Raises
    `ScalarError` where Numba cannot compile the function.
    """
    found: Compiled | ScalarError = compiling(
        scalar, dtype, lambda function: _ufunc(scalar, function, dtype, pick)
    )
    if isinstance(found, ScalarError):
        raise found
    return found


def _ufunc(
    scalar: ScalarFunction, function: FunctionType, dtype: Any, pick: int | None
) -> Compiled | ScalarError:
    numba: Any = import_module("numba")
    number = numba.from_dtype(np.dtype(dtype))
    # numpy: dividing by zero gives infinities, as everywhere in gradlab, and no exception.
    inner = numba.njit(error_model="numpy")(function)
    arguments = (number,) * len(scalar.parameters)
    inner.compile(arguments)
    returned = inner.overloads[arguments].signature.return_type
    wrong = _wrong_count(scalar, returned)
    if wrong is not None:
        return wrong
    count = getattr(returned, "count", None)
    kind = returned if pick is None or count is None else returned.types[pick]
    if not isinstance(kind, numba.types.Number | numba.types.Boolean) or _is_complex(kind):
        return ScalarError(f"{scalar.name}: expected it to return real numbers, got {kind}")
    result = numba.types.boolean if kind == numba.types.boolean else number
    made = np.dtype(bool if result == numba.types.boolean else dtype)
    place = None if count is None else pick or 0
    names = ", ".join(f"x{i}" for i in range(len(arguments)))
    value = f"inner({names})" + ("" if place is None else f"[{place}]")
    scope = {"inner": inner, "result": made.type}
    exec(f"def call({names}): return result({value})", scope)  # no name of it is the user's
    scope["call"].__name__ = scope["call"].__qualname__ = scalar.name
    return Compiled(numba.vectorize([result(*arguments)])(scope["call"]), made, place)


def _is_complex(kind: Any) -> bool:
    return str(kind).startswith("complex")


def _wrong_count(scalar: ScalarFunction, returned: Any) -> ScalarError | None:
    count = getattr(returned, "count", None)
    # A function of one value may return it in a tuple.
    if count == scalar.count or (count is None and scalar.count in (None, 1)):
        return None
    expected = "one number" if scalar.count is None else f"{scalar.count} numbers"
    got = "one number" if count is None else f"{count} numbers"
    return ScalarError(f"{scalar!r}: expected it to return {expected}, got {got}")
