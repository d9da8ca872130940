"""Runs kernels written in Python (gradlab.kernels.numba_cuda) thread by thread, as they are.

Numba's own simulator needs a process of its own and half a millisecond per thread. Here a kernel's
source is taken with every ``cuda.syncthreads()`` turned into a ``yield``: a thread is then a
generator, and a block runs all of its threads from barrier to barrier. A barrier that some threads
never reach is an error, shared memory begins as NaN, and the order of threads is a choice.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np


class KernelError(RuntimeError):
    """A kernel did what a GPU forbids, or what it leaves undefined."""


class _Barriers(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if ast.unparse(node.value) == "cuda.syncthreads()":
            node.value = ast.copy_location(ast.Yield(None), node.value)
        return node


@cache
def _with_yields(build: Callable[..., Any]) -> Callable[..., Any]:
    """``build`` giving generator functions, where its kernel has barriers."""
    try:
        text = textwrap.dedent(inspect.getsource(build))
    except OSError:
        return build  # made of text, and without barriers
    if "cuda.syncthreads" not in text:
        return build
    tree = ast.fix_missing_locations(_Barriers().visit(ast.parse(text)))
    closure = inspect.getclosurevars(build)
    scope = {**build.__globals__, **closure.nonlocals}
    exec(compile(tree, inspect.getfile(build), "exec"), scope)
    made: Callable[..., Any] = scope[build.__name__]
    return made


class Cuda:
    """What kernels see as the module ``cuda``; one thread's turn at a time."""

    def __init__(self, grid: Sequence[int], block: Sequence[int]) -> None:
        self.gridDim, self.blockDim = _dim(grid), _dim(block)
        self.blockIdx = self.threadIdx = _dim((0, 0, 0))
        self._arrays: list[np.ndarray] = []  # of the block, in the order in which it asks for them
        self._asked = 0
        self.shared = SimpleNamespace(array=self._shared_array)

    def begin_block(self, index: Sequence[int]) -> None:
        self.blockIdx = _dim(index)
        self._arrays = []

    def begin_thread(self) -> None:
        self._asked = 0

    def _shared_array(self, shape: Any, dtype: Any) -> np.ndarray:
        if self._asked == len(self._arrays):
            self._arrays.append(np.full(shape, np.nan, dtype))
        self._asked += 1
        return self._arrays[self._asked - 1]

    def grid(self, axes: int) -> Any:
        found = [
            getattr(self.blockIdx, axis) * getattr(self.blockDim, axis)
            + getattr(self.threadIdx, axis)
            for axis in "xyz"[:axes]
        ]
        return found[0] if axes == 1 else tuple(found)

    def gridsize(self, axes: int) -> Any:
        assert axes == 1
        return self.gridDim.x * self.blockDim.x


def _dim(sizes: Sequence[int]) -> SimpleNamespace:
    x, y, z = (*sizes, 1, 1)[:3]
    return SimpleNamespace(x=x, y=y, z=z)


def run(
    build: Callable[..., Any],
    constants: Sequence[Any],
    grid: Sequence[int],
    block: Sequence[int],
    args: Sequence[Any],
    backwards: bool = False,
) -> None:
    """Run a kernel on NumPy arrays; ``backwards``: the threads of a block from last to first."""
    cuda = Cuda(grid, block)
    kernel = _with_yields(build)(cuda, *constants)
    threads = [_dim(each[::-1]) for each in _indices(block)]
    if backwards:
        threads.reverse()
    for each in _indices(grid):
        cuda.begin_block(each[::-1])
        if inspect.isgeneratorfunction(kernel):
            _run_block(cuda, kernel, threads, args)
            continue
        for cuda.threadIdx in threads:
            cuda.begin_thread()
            kernel(*args)


def _indices(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    x, y, z = (*sizes, 1, 1)[:3]
    return product(range(z), range(y), range(x))


def _run_block(cuda: Cuda, kernel: Callable[..., Any], threads: Any, args: Any) -> None:
    alive = [(thread, kernel(*args)) for thread in threads]
    first = True
    while alive:
        waiting = []
        for thread, turn in alive:
            cuda.threadIdx = thread
            if first:
                cuda.begin_thread()
            if next(turn, "returned") != "returned":
                waiting.append((thread, turn))
        if waiting and len(waiting) < len(alive):
            raise KernelError(
                f"{len(alive) - len(waiting)} of {len(alive)} threads of a block returned while "
                "the others wait at cuda.syncthreads()"
            )
        alive, first = waiting, False
