"""What all kernels share (common.cuh), on the emulator."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from gradlab.kernels.cuda import source

from cuda_emulator import build

pytestmark = pytest.mark.skipif(bool(build.available()), reason=build.available() or "-")

TEXT = (
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

extern "C" __global__ void NAME(widened)(const T* x, float* y, int64 size) {
  int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) y[i] = float(load(x[i]));
}

extern "C" __global__ void NAME(narrowed)(const float* x, T* y, int64 size) {
  int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) y[i] = store<T>(x[i]);
}

extern "C" __global__ void NAME(reversed)(const T* x, T* y, int64 packs) {
  constexpr int N = 16 / sizeof(T);
  int64 i = threadIdx.x;
  if (i >= packs) return;
  Pack<T, N> pack = load_pack<N>(x + i * N), back;
  for (int k = 0; k < N; k++) back[k] = pack[N - 1 - k];
  store_pack(y + (packs - 1 - i) * N, back);
}
"""
)


def launch(symbol: str, dtype: str, grid: int, threads: int, *args: object, order: int = 0) -> None:
    kernel = build.kernel_of(TEXT, "common.cu", f"{symbol}_{dtype}", (("DTYPE", dtype),))
    arrays = [x for x in args if isinstance(x, np.ndarray)]
    extents = [(x.ctypes.data, x.ctypes.data + x.nbytes) for x in arrays]
    given = [build.address(x) if isinstance(x, np.ndarray) else x for x in args]
    kernel.launch((grid,), (threads,), given, 0, order, extents)


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("threads", [32, 256, 1024])
def test_reduce_block(dtype, threads):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (3, 777)).astype(dtype)
    for order in (0, 1):
        y = np.empty(3, dtype)
        launch("row_sum", dtype, 3, threads, x, y, 777, order=order)
        np.testing.assert_array_equal(y, x.sum(axis=1).astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_is_widened(dtype):
    x = np.arange(1 << 16, dtype=np.uint16)
    y = np.empty(x.shape, np.float32)
    launch("widened", dtype, 64, 1024, x, y, x.size)
    expected = x.view(np.dtype(getattr(ml_dtypes, dtype, dtype))).astype(np.float32)
    np.testing.assert_array_equal(y, expected)
    numbers = ~np.isnan(expected)  # -0.0 among them
    np.testing.assert_array_equal(y[numbers].view(np.uint32), expected[numbers].view(np.uint32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_are_rounded_to_the_nearest_half(dtype):
    half = np.dtype(getattr(ml_dtypes, dtype, dtype))
    every = np.arange(1 << 16, dtype=np.uint16).view(half).astype(np.float32)
    every = np.sort(every[np.isfinite(every)])
    between = (every[1:].astype(np.float64) + every[:-1]) / 2  # ties, and their neighbours
    ties = between.astype(np.float32)
    edges = np.float32([np.inf, -np.inf, np.nan, 65519.996, 65520, 3.3961775e38, 1e-45, -1e-45])
    x = np.concatenate(
        [every, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), edges]
    ).astype(np.float32)
    y = np.empty(x.shape, np.uint16)
    launch("narrowed", dtype, x.size // 1024 + 1, 1024, x, y, x.size)
    with np.errstate(over="ignore"):
        expected = x.astype(half)
    numbers = ~np.isnan(x)
    assert np.isnan(y.view(half)[~numbers].astype(np.float32)).all()
    np.testing.assert_array_equal(y[numbers], expected.view(np.uint16)[numbers])


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "float64", "bfloat16"])
def test_packs(dtype):
    x = np.zeros(8 * 16 // np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize, dtype=np.uint8)
    x = x.astype(getattr(ml_dtypes, dtype, dtype))
    x[::3] = 1
    y = np.empty_like(x)
    launch("reversed", dtype, 1, 32, x, y, 8)
    np.testing.assert_array_equal(y, x[::-1])
