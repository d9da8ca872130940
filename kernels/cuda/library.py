"""The vendor's library as rungs of the ladder: cuBLAS for matmul, CuPy for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from gradlab.kernels.cuda.driver import current
from gradlab.kernels.ladder import rung

_FLOATS = ("float16", "float32", "float64")


def _unfit(x: Any, options: dict[str, Any], dtypes: tuple[str, ...] = _FLOATS) -> str:
    given = [name for name, value in options.items() if value is not None]
    if given:
        return f"it has no {', '.join(given)}"
    if not hasattr(x, "dtype") or x.dtype.name not in dtypes:
        return f"it takes {', '.join(dtypes)}, not {getattr(x, 'dtype', x)}"
    return ""


# --------------------------------------------------------------------------------------- cuBLAS


def _refuses_matmul(a: Any, b: Any, **options: Any) -> str:
    why = _unfit(a, options, (*_FLOATS, "bfloat16")) or _unfit(b, options, (a.dtype.name,))
    if why or a.dtype.name != "bfloat16":
        return why
    if a.ndim != 2 or b.ndim != 2:
        return "it takes bfloat16 in matrices only"
    if not (a.flags.c_contiguous and b.flags.c_contiguous):
        return "it takes contiguous bfloat16 only"
    return "" if _is_cupy() else "bfloat16 needs CuPy"


def _is_cupy() -> bool:
    return bool(current().xp.__name__ == "cupy")


@rung("matmul", "cublas", refuses=_refuses_matmul)
def matmul(a: Any, b: Any, **_: Any) -> Any:
    """``a @ b``: CuPy calls cuBLAS for it, but not for bfloat16."""
    return _gemm_bfloat16(a, b) if a.dtype.name == "bfloat16" else current().xp.matmul(a, b)


# cudaDataType_t, cublasComputeType_t and cublasGemmAlgo_t:
# https://docs.nvidia.com/cuda/cublas/#cublasgemmex
_R_16BF, _COMPUTE_32F, _GEMM_DEFAULT, _NO_TRANSPOSE = 14, 68, -1, 0


def _gemm_bfloat16(a: Any, b: Any) -> Any:
    cupy = current().xp
    (m, k), n = a.shape, b.shape[1]
    c = cupy.empty((m, n), a.dtype)
    if not c.size or not k:
        c[...] = 0
        return c
    one, zero = np.ones((), np.float32), np.zeros((), np.float32)
    cublas, handle = cupy.cuda.cublas, cupy.cuda.get_cublas_handle()
    # cuBLAS stores matrices by column: what it takes for Bᵀ and Aᵀ are our B and A, and the Cᵀ it
    # writes is our C.
    cublas.gemmEx(
        handle, _NO_TRANSPOSE, _NO_TRANSPOSE, n, m, k, one.ctypes.data, b.data.ptr, _R_16BF, n,
        a.data.ptr, _R_16BF, k, zero.ctypes.data, c.data.ptr, _R_16BF, n, _COMPUTE_32F,
        _GEMM_DEFAULT,
    )  # fmt: skip
    return c


# ----------------------------------------------------------------------------------------- CuPy


def _refuses_softmax(x: Any, *, axis: Any = -1, **options: Any) -> str:
    del axis
    return _unfit(x, options) or ("" if x.size else "there is nothing in it")


def _shifted(x: Any, axis: Any) -> tuple[Any, Any]:
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    return wide, wide - wide.max(axis=axis, keepdims=True)


@rung("softmax", "cupy", refuses=_refuses_softmax)
def softmax(x: Any, *, axis: Any = -1, **_: Any) -> Any:
    xp = current().xp
    y = xp.exp(_shifted(x, axis)[1])
    y /= y.sum(axis=axis, keepdims=True)
    return y.astype(x.dtype, copy=False)


@rung("softmax", "cupy", refuses=_refuses_softmax)
def log_softmax(x: Any, *, axis: Any = -1, **_: Any) -> Any:
    xp = current().xp
    y = _shifted(x, axis)[1]
    y -= xp.log(xp.exp(y).sum(axis=axis, keepdims=True))
    return y.astype(x.dtype, copy=False)


def _refuses_reduction(x: Any, *, axis: Any = None, keepdims: bool = False, **options: Any) -> str:
    del axis, keepdims
    return _unfit(x, options) or ("" if x.size else "there is nothing in it")


def _declare(function: str) -> None:
    @rung("reduction", "cupy", function, refuses=_refuses_reduction)
    def run(x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
        return getattr(current().xp, function)(x, axis=axis, keepdims=keepdims)


for _function in ("sum", "mean", "prod", "max", "min"):
    _declare(_function)
