"""Kernels written in Python: compiled to PTX by numba-cuda, launched by gradlab's driver.

numba.cuda would launch them too, but describes every CuPy array anew at each launch, which takes
tens of microseconds. Here Numba only compiles. Its kernels take an array as a fixed list of
64-bit words, and `CompiledKernel.words` writes them down: no more than a CuPy kernel costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np
from gradlab.kernels.cuda import driver
from gradlab.kernels.cuda.driver import Dim

from gradlab._environment import pip_install

# build(cuda, *constants) returns the kernel: a function that sees the module `cuda`, the dtype and
# the like as constants from around it. Numba compiles it, its simulator and tests run it as it is.
Build = Callable[..., FunctionType]


@cache
def missing() -> str:
    """Why Python kernels cannot be compiled here; empty where they can."""
    for module, package in (("numba", "numba"), ("numba_cuda", "numba-cuda")):
        if find_spec(module) is None:
            return f"{package} is not installed; run: {pip_install('numba')}"
    try:  # with NVIDIA's libraries, which come apart from it
        numba_cuda = import_module("numba.cuda")
        numba_cuda.compile(_nothing, "void()", device=False, abi="numba", cc=(8, 0), output="ptx")
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return (
            f"numba-cuda cannot compile ({type(error).__name__}: {first}); "
            f"run: {pip_install('nvrtc,test', 'nvidia-nvvm', 'nvidia-cuda-nvrtc')}"
        )
    return ""


def _nothing() -> None:
    pass


class PythonKernel:
    """A kernel written in Python, compiled for the types of its arguments when first launched."""

    def __init__(self, build: Build, *constants: Any) -> None:
        self.build, self.constants = build, constants
        self.name = build.__name__
        self._compiled: dict[Any, CompiledKernel] = {}

    def __repr__(self) -> str:
        return f"<Python kernel {self.name}>"

    def launch(self, grid: Dim, block: Dim, *args: Any) -> None:
        """Queue the kernel; ``args`` are device arrays, ints (int64) and floats (float64)."""
        machine = driver.current()
        types = tuple(map(_kind, args))
        capability = machine.properties().capability
        compiled = self._compiled.get((types, capability))
        if compiled is None:
            compiled = CompiledKernel(self, types, capability)
            self._compiled[types, capability] = compiled
        machine.launch_ptx(compiled, grid, block, args)


def _kind(value: Any) -> Any:
    """What the compiler must know of an argument."""
    if hasattr(value, "strides"):
        return value.dtype, value.ndim, "C" if value.flags.c_contiguous else "A"
    return type(value)


class CompiledKernel:
    """The PTX of a Python kernel for one choice of argument types, and its symbol in it.

    ``source`` is the kernel it was made from, for a machine that runs no PTX.
    """

    __slots__ = ("ptx", "source", "symbol")

    def __init__(
        self, source: PythonKernel, kinds: Sequence[Any], capability: tuple[int, int]
    ) -> None:
        self.source = source
        self.ptx = compile_ptx(source, kinds, capability)
        found = re.search(r"\.visible \.entry (\w+)", self.ptx)
        assert found is not None, self.ptx
        self.symbol = found[1]

    def words(self, args: Sequence[Any], pointer: Callable[[Any], int]) -> list[Any]:
        """The kernel's parameters: an array becomes the words that Numba's kernels expect.

        Two pointers that Numba keeps for reference counts (0 on a GPU), the number of elements,
        the size of one, the address, the shape, the strides in bytes.
        """
        words: list[Any] = []
        for x in args:
            if hasattr(x, "strides"):
                words += (0, 0, x.size, x.itemsize, pointer(x), *x.shape, *x.strides)
            else:
                words.append(x)
        return words


def compile_ptx(source: PythonKernel, kinds: Sequence[Any], capability: tuple[int, int]) -> str:
    """The PTX of a kernel for arguments of ``kinds``: (dtype, axes, layout), int or float."""
    reason = missing()
    if reason:
        raise ImportError(f"{source.name}: {reason}")
    numba: Any = import_module("numba")
    cuda, types = import_module("numba.cuda"), numba.types

    def numba_type(kind: Any) -> Any:
        if isinstance(kind, tuple):
            dtype, ndim, layout = kind
            return types.Array(numba.from_dtype(np.dtype(dtype)), ndim, layout)
        return {int: types.int64, float: types.float64}[kind]

    signature = types.void(*map(numba_type, kinds))
    function = source.build(cuda, *source.constants)
    ptx, _ = cuda.compile(
        function, signature, device=False, abi="numba", cc=capability, output="ptx"
    )
    return _for_older_drivers(str(ptx), capability)


# The oldest PTX that knows an architecture:
# https://docs.nvidia.com/cuda/parallel-thread-execution/#release-notes-ptx-release-history
_PTX_VERSIONS = {
    (7, 5): "6.3", (8, 0): "7.0", (8, 6): "7.1", (8, 7): "7.4", (8, 9): "7.8", (9, 0): "7.8",
    (10, 0): "8.6", (10, 3): "8.8", (12, 0): "8.7", (12, 1): "8.8",
}  # fmt: skip


def _for_older_drivers(ptx: str, capability: tuple[int, int]) -> str:
    """The same PTX marked with the oldest version that has the architecture.

    NVVM writes its own version, and a driver refuses all that is newer than itself. What Numba
    makes of plain Python has been in PTX since long before.
    """
    version = _PTX_VERSIONS.get(capability)
    if version is None:
        return ptx
    return re.sub(r"^\.version .*$", f".version {version}", ptx, count=1, flags=re.MULTILINE)


@cache
def kernel(build: Build, *constants: Any) -> PythonKernel:
    """The one `PythonKernel` of a build function and its constants."""
    return PythonKernel(build, *constants)


def unfit(*arrays: Any, axes: int = 2) -> str:
    """Why the Python kernels do not take these arrays; empty where they do."""
    for x in arrays:
        if not hasattr(x, "dtype") or x.dtype not in (np.float32, np.float64):
            return f"it is written for float32 and float64, not {getattr(x, 'dtype', x)}"
        if x.dtype != arrays[0].dtype:
            return f"it takes one dtype, not {arrays[0].dtype} and {x.dtype}"
        if axes and x.ndim != axes:
            return f"it takes {'matrices' if axes == 2 else f'{axes} axes'}, not shape {x.shape}"
    return missing()
