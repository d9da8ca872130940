"""Runs the Python kernels under Numba's CUDA simulator, which needs a process of its own.

Started with NUMBA_ENABLE_CUDASIM=1, which Numba reads when it is imported.
"""

import sys

import numpy as np
from gradlab.kernels.numba_cuda import matmul, reduction, softmax
from numba import cuda


class Simulated:
    """The module `cuda` as a kernel finds it while it runs.

    The simulator puts another in the place of a global `cuda` of the kernel's module meanwhile.
    """

    def __init__(self, module):
        module.cuda, self.module = cuda, module

    def __getattr__(self, name):
        return getattr(self.module.cuda, name)


def run(build, constants, grid, block, *arrays):
    simulated = Simulated(sys.modules[build.__module__])
    cuda.jit(build(simulated, np.float32, *constants))[grid, block](*arrays)


def main():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 18), (18, 17)))
    for build in (matmul.matmul_naive, matmul.matmul_tiled):
        c = np.full((5, 17), np.nan, np.float32)
        run(build, (), 2, (16, 16), a, b, c)
        np.testing.assert_allclose(c, a @ b, rtol=0, atol=1e-5)

    x = rng.standard_normal((2, 300)).astype(np.float32)
    for build, blocks in ((softmax.softmax_naive, 1), (softmax.softmax_tiled, 2)):
        y = np.full_like(x, np.nan)
        run(build, (), blocks, 256, x, y)
        expected = np.exp(x - x.max(1, keepdims=True))
        np.testing.assert_allclose(y, expected / expected.sum(1, keepdims=True), rtol=1e-5)

    for build, blocks in ((reduction.reduce_naive, 1), (reduction.reduce_tiled, 2)):
        for largest, function in ((False, np.sum), (True, np.max)):
            y = np.full(2, np.nan, np.float32)
            run(build, (largest,), blocks, 256, x, y)
            np.testing.assert_allclose(y, function(x, axis=1), rtol=0, atol=1e-4)
    print("simulated")


if __name__ == "__main__":
    main()
