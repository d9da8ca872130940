"""What all kernels share (common.cuh), on the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from gradlab.kernels.cuda import source

from cuda_emulator import build

ROW_SUM = (
    source.read("common.cuh")
    + r"""
extern "C" __global__ void NAME(row_sum)(const T* x, T* y, int64 columns) {
  SHARED(wide<T>, scratch, [32]);
  wide<T> sum = 0;
  x += blockIdx.x * columns;
  for (int64 i = threadIdx.x; i < columns; i += blockDim.x) sum += load(x[i]);
  sum = reduce_block(sum, Add(), scratch, wide<T>(0));
  if (threadIdx.x == 0) y[blockIdx.x] = store<T>(sum);
}
"""
)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("threads", [32, 256, 1024])
def test_reduce_block(dtype, threads):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (3, 777)).astype(dtype)
    y = np.empty(3, dtype)
    kernel = build.kernel_of(ROW_SUM, "row_sum.cu", f"row_sum_{dtype}", (("DTYPE", dtype),))
    kernel.launch((3,), (threads,), [build.address(x), build.address(y), 777], 0, 0)
    np.testing.assert_array_equal(y, x.sum(axis=1).astype(dtype))
