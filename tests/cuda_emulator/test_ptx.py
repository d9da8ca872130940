"""The emulated PTX instructions (ptx.h) against the tables of the PTX ISA, stated with NumPy.

Each kernel here is one instruction and the loads and stores around it, so that a fragment's layout,
a swizzle or a descriptor that is wrong shows here and not as a wrong product of matrices.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from gradlab.kernels.cuda import source

from cuda_emulator import build
from fake_cuda import FakeDriver

LANES = np.arange(32)
GROUP, IN_GROUP = LANES // 4, LANES % 4  # groupID and threadID_in_group of the tables


PROBES = (
    source.read("ptx.cuh")
    + r"""
template <int BYTES> void copy(const uint8* from, uint8* to, int valid) {
  SHARED(uint8, tile, [512]);
  for (int i = 0; i < 16; i++) tile[threadIdx.x * 16 + i] = 7;
  cp_async<BYTES>(tile + threadIdx.x * 16, from + threadIdx.x * 16, valid);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 16; i++) to[threadIdx.x * 16 + i] = tile[threadIdx.x * 16 + i];
}
#define COPY(BYTES)                                                                         \
  extern "C" __global__ void NAME(copy_##BYTES)(const uint8* from, uint8* to, int64 valid) { \
    copy<BYTES>(from, to, int(valid));                                                      \
  }
COPY(4) COPY(8) COPY(16)

template <int COUNT, bool TRANSPOSED> void load(const uint4* from, uint32* to, const int64* rows) {
  SHARED(uint4, tile, [64]);
  for (int i = 0; i < 2; i++) tile[threadIdx.x + 32 * i] = from[threadIdx.x + 32 * i];
  __syncthreads();
  uint32 out[COUNT];
  if constexpr (TRANSPOSED)
    ldmatrix_transposed(out, tile + rows[threadIdx.x]);
  else
    ldmatrix(out, tile + rows[threadIdx.x]);
  for (int i = 0; i < COUNT; i++) to[threadIdx.x * COUNT + i] = out[i];
}
#define LOAD(NAME_, COUNT, TRANSPOSED)                                                       \
  extern "C" __global__ void NAME(NAME_)(const uint4* from, uint32* to, const int64* rows) { \
    load<COUNT, TRANSPOSED>(from, to, rows);                                                \
  }
LOAD(load_2, 2, false) LOAD(load_4, 4, false) LOAD(load_4_transposed, 4, true)

extern "C" __global__ void NAME(store)(const uint32* from, uint4* to, const int64* rows) {
  SHARED(uint4, tile, [32]);
  uint32 in[4];
  for (int i = 0; i < 4; i++) in[i] = from[threadIdx.x * 4 + i];
  stmatrix(tile + rows[threadIdx.x], in);
  __syncthreads();
  to[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void NAME(multiply)(const uint32* a, const uint32* b, float* acc) {
  uint32 in[4];
  float out[4];
  for (int i = 0; i < 4; i++) in[i] = a[threadIdx.x * 4 + i];
  for (int i = 0; i < 4; i++) out[i] = acc[threadIdx.x * 4 + i];
  mma(T{}, out, in, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
  for (int i = 0; i < 4; i++) acc[threadIdx.x * 4 + i] = out[i];
}

extern "C" __global__ void NAME(round)(const uint32* from, uint32* to) {
  to[threadIdx.x] = round_tf32(from[threadIdx.x]);
}

struct Maps { TensorMap from, to; };
extern "C" __global__ void NAME(bulk)(const __grid_constant__ Maps maps, uint4* seen,
                                           const int64* at) {
  DYNAMIC_SHARED(shared);
  uint64* bar = reinterpret_cast<uint64*>(shared + 8192);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    fence_mbarrier_init();
  }
  __syncthreads();
  for (int phase = 0; phase < 2; phase++) {
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect_tx(bar, 8192);
      tensor_load(shared, maps.from, bar, int(at[0]), int(at[1]), int(at[2]) + phase);
    }
    mbarrier_wait(bar, phase);
    __syncthreads();
  }
  for (int i = threadIdx.x; i < 512; i += 32) seen[i] = reinterpret_cast<uint4*>(shared)[i];
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_store(maps.to, shared, int(at[0]), int(at[1]), int(at[2]));
    bulk_commit();
    bulk_wait_read<0>();
  }
}

#ifdef HALVES
template <int N, bool A_T, bool B_T>
void warpgroup(const uint4* a, const uint4* b, float* acc, int64 accumulate) {
  DYNAMIC_SHARED(shared);
  uint4* tile = reinterpret_cast<uint4*>(shared);
  for (int i = threadIdx.x; i < 512; i += 128) tile[i] = a[i];  // 8 KiB
  for (int i = threadIdx.x; i < N * 8; i += 128) tile[512 + i] = b[i];
  fence_proxy_async();
  __syncthreads();
  float out[N / 2];
  for (int i = 0; i < N / 2; i++) out[i] = acc[threadIdx.x * (N / 2) + i];
  uint64 at_a = matrix_descriptor(shared, 8192, 1024);
  uint64 at_b = matrix_descriptor(shared + 8192, 8192, 1024);
  wgmma_fence();
  for (int k = 0; k < 4; k++)
    wgmma<A_T, B_T>(T{}, out, advance_descriptor(at_a, k * (A_T ? 2048 : 32)),
                    advance_descriptor(at_b, k * (B_T ? 2048 : 32)),
                    accumulate == 2 ? threadIdx.x % 2 : accumulate || k > 0);  // 2: a fault
  wgmma_commit();
  wgmma_wait<0>(out);
  for (int i = 0; i < N / 2; i++) acc[threadIdx.x * (N / 2) + i] = out[i];
}
#define WARPGROUP(N, A_T, B_T)                                                              \
  extern "C" __global__ void NAME(warpgroup_##N##_##A_T##B_T)(const uint4* a, const uint4* b, \
                                                              float* acc, int64 accumulate) { \
    warpgroup<N, A_T, B_T>(a, b, acc, accumulate);                                          \
  }
WARPGROUP(128, 0, 0) WARPGROUP(128, 1, 0) WARPGROUP(256, 0, 1) WARPGROUP(256, 1, 1)
#endif
"""
)


def run(name, *args, dtype="float16", threads=32, shared=0, order=0):
    """Run one kernel of PROBES, by one block."""
    defines = (("DTYPE", dtype), *([] if dtype == "float32" else [("HALVES", 1)]))
    kernel = build.kernel_of(PROBES, "probes.cu", f"{name}_{dtype}", defines)
    given = [build.address(x) if isinstance(x, np.ndarray) and x.ndim else x for x in args]
    kernel.launch((1,), (threads,), given, shared, order)


@pytest.fixture(params=[0, 1], ids=["forwards", "backwards"])
def order(request):
    return request.param


# ----------------------------------------------------------------------------------- cp.async


@pytest.mark.parametrize(("size", "valid"), [(16, 16), (16, 5), (16, 0), (8, 6), (4, 2)])
def test_cp_async_fills_with_zeros(size, valid):
    given = np.arange(512, dtype=np.uint8) | 1
    got = np.zeros(512, np.uint8)
    run(f"copy_{size}", given, got, valid)
    expected = given.reshape(32, 16).copy()
    expected[:, valid:size] = 0
    expected[:, size:] = 7
    np.testing.assert_array_equal(got.reshape(32, 16), expected)


# ---------------------------------------------------------------------- ldmatrix and stmatrix


@pytest.mark.parametrize(("count", "transposed"), [(2, False), (4, False), (4, True)])
def test_ldmatrix(count, transposed, order):
    rng = np.random.default_rng(count)
    rows = rng.permutation(64)[:32].astype(np.int64)  # any row can be anywhere
    given = rng.integers(0, 1 << 16, (64, 8), dtype=np.uint16)
    got = np.zeros((32, count, 2), np.uint16)
    run(f"load_{count}{'_transposed' * transposed}", given, got, rows, order=order)
    for i in range(count):
        matrix = given[rows[8 * i : 8 * i + 8]]  # lanes 8i to 8i + 7 give its rows
        for e in range(2):  # the first element of a pair is in the lower half of a register
            row, column = GROUP, 2 * IN_GROUP + e
            expected = matrix[column, row] if transposed else matrix[row, column]
            np.testing.assert_array_equal(got[:, i, e], expected)


def test_stmatrix(order):
    rng = np.random.default_rng(3)
    rows = rng.permutation(32).astype(np.int64)
    given = rng.integers(0, 1 << 16, (32, 4, 2), dtype=np.uint16)
    got = np.zeros((32, 8), np.uint16)
    run("store", given, got, rows, order=order)
    for i in range(4):
        for e in range(2):
            at = rows[8 * i : 8 * i + 8][GROUP], 2 * IN_GROUP + e
            np.testing.assert_array_equal(got[at], given[:, i, e])


# ----------------------------------------------------------------------------------- mma.sync


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_mma(dtype, order):
    rng = np.random.default_rng(4)
    number = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    k = 8 if dtype == "float32" else 16
    # Integers this small are exact in every format, and so are their sums.
    a = rng.integers(-8, 9, (16, k)).astype(number)
    b = rng.integers(-8, 9, (k, 8)).astype(number)
    acc = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    if k == 16:
        # Registers of a: rows g, g + 8, g, g + 8 at columns 2t + {0, 1}, the last two 8 on.
        left = np.stack([
            a[GROUP + 8 * (r % 2), 2 * IN_GROUP + e + 8 * (r // 2)]
            for r in range(4) for e in range(2)
        ], axis=1)  # fmt: skip
        right = np.stack(
            [b[2 * IN_GROUP + e + 8 * r, GROUP] for r in range(2) for e in range(2)], axis=1
        )
    else:
        left = np.stack([a[GROUP + 8 * (r % 2), IN_GROUP + 4 * (r // 2)] for r in range(4)], axis=1)
        right = np.stack([b[IN_GROUP + 4 * r, GROUP] for r in range(2)], axis=1)
    places = [(GROUP + 8 * (r // 2), 2 * IN_GROUP + r % 2) for r in range(4)]
    got = np.ascontiguousarray(np.stack([acc[place] for place in places], axis=1))
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    run("multiply", left, right, got, dtype=dtype, order=order)
    expected = acc + a.astype(np.float32) @ b.astype(np.float32)
    for r, place in enumerate(places):
        np.testing.assert_array_equal(got[:, r], expected[place])


def test_round_tf32_takes_halves_away_from_zero():
    cases = {
        1.0: 1.0,
        1 + 2**-11: 1 + 2**-10,  # half of the last place
        -1 - 2**-11: -1 - 2**-10,
        1 + 2**-11 - 2**-23: 1.0,
        3.4028235e38: np.inf,
        np.inf: np.inf,
        -np.inf: -np.inf,
        np.nan: np.nan,
    }
    given = np.zeros(32, np.float32)
    given[: len(cases)] = list(cases)
    got = np.empty(32, np.float32)
    run("round", given, got, dtype="float32")
    expected = np.array(list(cases.values()), np.float32)
    np.testing.assert_array_equal(got[: len(cases)], expected)


# ------------------------------------------------------------------- tensor maps and mbarriers


def swizzled(rows, row_bytes=128):
    """Where byte 16c of row r stands: CU_TENSOR_MAP_SWIZZLE_128B, rows of 128 bytes."""
    r, c = np.divmod(np.arange(rows * row_bytes // 16), row_bytes // 16)
    return r, (c ^ r % 8)


@pytest.mark.parametrize("at", [(0, 0, 0), (64, 64, 1), (-8, -3, 0), (96, 60, 1), (200, 0, 0)])
def test_bulk_copies_cut_at_the_edges(at, order):
    """A box of 64 x 64 from (x, y, z + 1) of one array to (x, y, z) of another."""
    rng = np.random.default_rng(5)
    x, y, z = at
    given = rng.integers(1, 1 << 16, (3, 70, 104), dtype=np.uint16)
    made = np.zeros_like(given)
    seen = np.zeros((64, 8, 8), np.uint16)  # rows, chunks of 16 bytes, elements
    driver = FakeDriver()
    maps = np.concatenate([
        driver.tensor_map(
            each.ctypes.data, "float16", each.shape[::-1], each.strides[1::-1], (64, 64, 1)
        )
        for each in (given, made)
    ])  # fmt: skip
    struct = maps.view(np.dtype([("maps", np.uint64, 32)])).reshape(())
    run("bulk", struct, seen, np.array(at, np.int64), shared=8200, order=order)
    wide = np.pad(given, ((1, 2), (64, 128), (64, 256)))  # zeros all round
    box = wide[z + 2, y + 64 : y + 128, x + 64 : x + 128]
    rows, places = swizzled(64)
    np.testing.assert_array_equal(seen[rows, places], box.reshape(512, 8))
    expected = np.zeros_like(wide)
    expected[z + 1, y + 64 : y + 128, x + 64 : x + 128] = box
    np.testing.assert_array_equal(made, expected[1:-2, 64:-128, 64:-256])


# -------------------------------------------------------------------------------------- wgmma


def in_shared(matrix, along_k):
    """A (x, 64) operand as the swizzled rows of 128 bytes that the copy engine would write.

    Along k a row is one x and its 64 k; else 64 x of one k, all k of them behind one another.
    """
    x = len(matrix)
    lines = matrix if along_k else matrix.T.reshape(64, x // 64, 64).swapaxes(0, 1).reshape(x, 64)
    rows, places = swizzled(x)
    made = np.empty((x, 8, 8), matrix.dtype)
    made[rows, places] = lines.reshape(x * 8, 8)
    return made


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("n", "a_transposed", "b_transposed"),
    [(128, False, False), (128, True, False), (256, False, True), (256, True, True)],
)
def test_wgmma(dtype, n, a_transposed, b_transposed, order):
    rng = np.random.default_rng(6)
    number = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    a = rng.integers(-8, 9, (64, 64)).astype(number)
    b = rng.integers(-8, 9, (64, n)).astype(number)
    acc = rng.integers(-8, 9, (64, n)).astype(np.float32)
    accumulate = order == 1
    thread, i = np.divmod(np.arange(64 * n), n // 2)
    row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)
    column = 8 * (i // 4) + 2 * (thread % 4) + i % 2
    got = acc[row, column]
    run(
        f"warpgroup_{n}_{int(a_transposed)}{int(b_transposed)}",
        in_shared(a, not a_transposed), in_shared(b.T, not b_transposed), got, int(accumulate),
        dtype=dtype, threads=128, shared=8192 + n * 128, order=order,
    )  # fmt: skip
    expected = a.astype(np.float32) @ b.astype(np.float32) + (acc if accumulate else 0)
    np.testing.assert_array_equal(got, expected[row, column])


def test_wgmma_wants_the_same_operands_of_all_threads():
    a, acc = np.zeros((128, 64), np.float16), np.zeros(64 * 128, np.float32)
    with pytest.raises(build.EmulatorError, match="different operands"):
        run("warpgroup_128_00", a, a, acc, 2, threads=128, shared=8192 + 128 * 128)
