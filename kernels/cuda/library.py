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


ACTIVATIONS = (None, "relu", "sigmoid", "tanh")


def unfinished(
    *, bias: Any = None, activation: str | None = None, residual: Any = None, **options: Any
) -> str:
    """Why `finish` cannot do what a fused product does; empty where it can."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        return f"it has no {', '.join(given)}"
    return "" if activation in ACTIVATIONS else f"it has no {activation}"


def finish(y: Any, *, bias: Any = None, activation: str | None = None, residual: Any = None) -> Any:
    """``activation(y + bias) + residual`` in place, an operation at a time: what fusing saves."""
    xp = current().xp
    if bias is not None:
        y += bias
    if activation == "relu":
        xp.maximum(y, 0, out=y)
    elif activation == "tanh":
        xp.tanh(y, out=y)
    elif activation == "sigmoid":
        xp.negative(y, out=y)
        xp.exp(y, out=y)
        y += 1
        xp.reciprocal(y, out=y)
    if residual is not None:
        y += residual
    return y


def _refuses_matmul(a: Any, b: Any, **options: Any) -> str:
    why = _unfit(a, {}, (*_FLOATS, "bfloat16")) or _unfit(b, {}, (a.dtype.name,))
    if why or a.dtype.name != "bfloat16":
        return why or unfinished(**options)
    if a.ndim != 2 or b.ndim != 2 or any(value is not None for value in options.values()):
        return "it takes bfloat16 in products of two matrices only"
    if any(not (x.flags.c_contiguous or x.flags.f_contiguous) for x in (a, b)):
        return "it takes bfloat16 only without gaps between rows"
    return "" if current().xp.__name__ == "cupy" else "bfloat16 needs CuPy"


@rung("matmul", "cublas", refuses=_refuses_matmul)
def matmul(a: Any, b: Any, **options: Any) -> Any:
    """``a @ b`` by cuBLAS, which CuPy calls for it; of bfloat16 not in every release since 14.0."""
    if a.dtype.name == "bfloat16":
        return _gemm_bfloat16(a, b)
    return finish(current().xp.matmul(a, b), **options)


# cudaDataType_t, cublasComputeType_t, cublasGemmAlgo_t and cublasOperation_t:
# https://docs.nvidia.com/cuda/cublas/#cublasgemmex
_R_16BF, _COMPUTE_32F, _GEMM_DEFAULT = 14, 68, -1


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
    # writes is our C. A matrix that we have transposed it transposes back (1).
    (b_turned, b_step), (a_turned, a_step) = (
        (0, x.shape[1]) if x.flags.c_contiguous else (1, x.shape[0]) for x in (b, a)
    )
    cublas.gemmEx(
        handle, b_turned, a_turned, n, m, k, one.ctypes.data, b.data.ptr, _R_16BF, b_step,
        a.data.ptr, _R_16BF, a_step, zero.ctypes.data, c.data.ptr, _R_16BF, n, _COMPUTE_32F,
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
