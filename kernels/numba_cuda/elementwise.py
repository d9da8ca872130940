"""Scalar Python functions over device arrays: one kernel around the function, made from source.

Numba compiles calls between device functions only where a GPU is at hand, so the function's own
syntax is put inside the kernel, where Numba inlines it. The kernel takes inputs as they lie in
memory, broadcast and strided; axes that can be walked as one are merged first.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from gradlab.kernels.cuda.driver import current, divide_up
from gradlab.kernels.numba_cuda.launch import PythonKernel, missing
from gradlab.kernels.scalar import FUNCTION, ScalarError, ScalarFunction, explain

THREADS = 256
# Per multiprocessor: fills it four times over, so that no tail is long. Not yet measured.
BLOCKS = 32


class DeviceFunction:
    """One of the values of a scalar function, over device arrays of one dtype."""

    def __init__(
        self, scalar: ScalarFunction, dtype: Any, result: Any, pick: int | None = None
    ) -> None:
        self.scalar, self.dtype, self.result, self.pick = scalar, dtype, result, pick
        self._kernels: dict[tuple[int, tuple[bool, ...]], PythonKernel] = {}

    def __call__(self, *inputs: Any) -> Any:
        """The result for arrays and scalars that broadcast, all of the function's dtype."""
        xp = current().xp
        arrays = [x for x in inputs if hasattr(x, "strides") and not isinstance(x, np.generic)]
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        out = xp.empty(shape, self.result)
        if not out.size:
            return out
        given = [
            x if hasattr(x, "flags") and not isinstance(x, np.generic) else float(x) for x in inputs
        ]
        merged, flat = merge_axes(xp, shape, [x for x in given if not isinstance(x, float)])
        left = iter(flat)
        given = [x if isinstance(x, float) else next(left) for x in given]
        scalars = tuple(isinstance(x, float) for x in given)
        kernel = self._kernels.get((len(merged), scalars))
        if kernel is None:
            kernel = self._kernels[len(merged), scalars] = self._make(len(merged), scalars)
        grid = min(divide_up(out.size, THREADS), BLOCKS * current().properties().multiprocessors)
        try:
            kernel.launch((grid,), (THREADS,), out.reshape(merged), *given)
        except ImportError as error:
            raise ScalarError(str(error)) from None
        except Exception as error:
            if type(error).__module__.startswith("numba"):
                raise explain(self.scalar, self.dtype, error) from None
            raise
        return out

    def _make(self, axes: int, scalars: Sequence[bool]) -> PythonKernel:
        tree = self.scalar.typed(self.dtype)
        if tree is None:
            raise ScalarError(
                f"{self.scalar.name}: expected a function whose source can be read, to compile it "
                "for a GPU, got one typed at a prompt, made by exec, or changed in its file since "
                "it was imported; put it in a file or notebook and import it again"
            )
        module = ast.parse(_kernel_source(axes, scalars, self.pick))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name == "_kernel_":
                node.body.insert(0, tree)
        scope = self.scalar.scope(self.dtype)
        scope["_input_"], scope["_result_"] = np.dtype(self.dtype).type, np.dtype(self.result).type
        exec(compile(ast.fix_missing_locations(module), "<gradlab elementwise>", "exec"), scope)
        scope["_build_"].__name__ = self.scalar.name
        return PythonKernel(scope["_build_"])


def _kernel_source(axes: int, scalars: Sequence[bool], pick: int | None) -> str:
    names = [f"_x{i}_" for i in range(len(scalars))]
    index = ", ".join(f"_at{axis}_" for axis in range(axes)) if axes > 1 else "_i_"
    # A flat index into its axes, the last one first.
    steps = ["_rest_ = _i_"] if axes > 1 else []
    for axis in range(axes - 1, 0, -1):
        steps += [f"_at{axis}_ = _rest_ % _out_.shape[{axis}]", f"_rest_ //= _out_.shape[{axis}]"]
    steps += ["_at0_ = _rest_"] if axes > 1 else []
    values = [
        f"_input_({name})" if scalar_ else f"{name}[{index}]"
        for name, scalar_ in zip(names, scalars, strict=True)
    ]
    call = f"{FUNCTION}({', '.join(values)})" + ("" if pick is None else f"[{pick}]")
    body = "\n            ".join([*steps, f"_out_[{index}] = _result_({call})"])
    return f"""
def _build_(_cuda_):
    def _kernel_(_out_, {", ".join(names)}):
        _i_ = _cuda_.grid(1)
        _step_ = _cuda_.gridsize(1)
        while _i_ < _out_.size:
            {body}
            _i_ += _step_
    return _kernel_
"""


def merge_axes(
    xp: Any, shape: Sequence[int], arrays: Sequence[Any]
) -> tuple[tuple[int, ...], list[Any]]:
    """The shape in as few axes as all arrays can be walked in, and the arrays in that shape.

    Two axes become one where, in every array, the outer stride is the inner stride times the inner
    size; axes of one element vanish. Contiguous arrays of one shape end up with one axis.
    """
    if all(x.shape == tuple(shape) and x.flags.c_contiguous for x in arrays):
        return (prod(shape),), [x.reshape(-1) for x in arrays]
    views = [xp.broadcast_to(x, shape) for x in arrays]
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in views]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        steps = [x.strides[axis] for x in views]
        if sizes and all(own[-1] == step * size for own, step in zip(strides, steps, strict=True)):
            sizes[-1] *= size
            for own, step in zip(strides, steps, strict=True):
                own[-1] = step
            continue
        sizes.append(size)
        for own, step in zip(strides, steps, strict=True):
            own.append(step)
    merged = tuple(sizes) or (1,)
    view = xp.lib.stride_tricks.as_strided
    return merged, [
        view(x, merged, tuple(own) or (x.itemsize,)) for x, own in zip(views, strides, strict=True)
    ]


__all__ = ["DeviceFunction", "merge_axes", "missing"]
