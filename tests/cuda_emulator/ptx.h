// What the instructions of kernels/cuda/ptx.cuh do, written from the PTX ISA, for the emulator.
#pragma once

#include <chrono>

inline int64 nanoseconds_now() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ------------------------------------------------------------------------------------ cp.async

template <int BYTES>
void cp_async(void* to, const void* from, int valid = BYTES, emu::Site site = EMU_SITE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what cp.async copies");
  if (valid < 0 || valid > BYTES) emu::fail("cp.async: more valid bytes than the copy has", site);
  emu::cp_async(to, from, BYTES, valid, site);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int LEFT> void cp_async_wait() { emu::cp_async_wait(LEFT); }

// ------------------------------------------------------------------------ ldmatrix and mma.sync

namespace emu {

// PTX ISA, "ldmatrix": the rows of matrix i are at the addresses that lanes 8i to 8i + 7 give.
struct LoadMatrix {
  const unsigned char* row;
  uint32_t out[4];
};

template <int MATRICES, bool TRANSPOSED> void load_matrix(void** lanes, uint32_t) {
  for (int matrix = 0; matrix < MATRICES; matrix++) {
    const unsigned char* rows[8];
    for (int r = 0; r < 8; r++) rows[r] = static_cast<LoadMatrix*>(lanes[8 * matrix + r])->row;
    for (int l = 0; l < 32; l++) {
      unsigned char pair[4];
      for (int e = 0; e < 2; e++) {
        int row = l / 4, column = 2 * (l % 4) + e;
        if (TRANSPOSED) std::swap(row, column);
        memcpy(pair + 2 * e, rows[row] + 2 * column, 2);
      }
      memcpy(&static_cast<LoadMatrix*>(lanes[l])->out[matrix], pair, 4);
    }
  }
}

template <int MATRICES, bool TRANSPOSED>
void ldmatrix(uint32_t* out, const void* row, Site site) {
  if (current->lane < 8 * MATRICES && reinterpret_cast<uintptr_t>(row) % 16)
    fail("ldmatrix: the address of a row is not a multiple of 16", site);
  LoadMatrix mine{static_cast<const unsigned char*>(row), {}};
  collective("ldmatrix", 0xffffffffu, &mine, load_matrix<MATRICES, TRANSPOSED>, site);
  memcpy(out, mine.out, 4 * MATRICES);
}

// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "for mma.m16n8k8"
// (.tf32): the row and column of a's register i (element e of it) and of b's and acc's.
struct Multiply {
  float* acc;
  uint32_t a[4], b[2];
};

EMU_UNWATCHED inline float element(float16, const uint32_t* registers, int i) {
  return float_from_half(uint16_t(registers[i / 2] >> (16 * (i % 2))));
}
EMU_UNWATCHED inline float element(bfloat16, const uint32_t* registers, int i) {
  return bit_cast<float>(uint32_t(registers[i / 2] >> (16 * (i % 2)) << 16));
}
EMU_UNWATCHED inline float element(float32, const uint32_t* registers, int i) {
  return bit_cast<float>(registers[i] & 0xffffe000u);  // the tensor core ignores the last 13 bits
}

template <class S> EMU_UNWATCHED void multiply(void** lanes, uint32_t) {
  constexpr bool HALF = sizeof(S) == 2;
  constexpr int K = HALF ? 16 : 8;
  float a[16][K], b[K][8];
  for (int l = 0; l < 32; l++) {
    auto* lane = static_cast<Multiply*>(lanes[l]);
    int group = l >> 2, in_group = l % 4;
    for (int i = 0; i < (HALF ? 8 : 4); i++) {
      // .f16/.bf16: row = group for i in {0, 1, 4, 5}, else group + 8; column = 2·in_group +
      // (i & 1), + 8 for i >= 4. .tf32: row = group for a0 and a2; column = in_group, + 4 for a2, a3.
      int row = HALF ? (i & 2 ? group + 8 : group) : (i & 1 ? group + 8 : group);
      int column = HALF ? in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0) : in_group + (i >= 2 ? 4 : 0);
      a[row][column] = element(S{}, lane->a, i);
    }
    for (int i = 0; i < (HALF ? 4 : 2); i++) {
      int row = HALF ? in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0) : in_group + (i >= 1 ? 4 : 0);
      b[row][group] = element(S{}, lane->b, i);
    }
  }
  for (int l = 0; l < 32; l++) {
    auto* lane = static_cast<Multiply*>(lanes[l]);
    for (int i = 0; i < 4; i++) {
      int row = (l >> 2) + (i >= 2 ? 8 : 0), column = 2 * (l % 4) + (i & 1);
      double sum = lane->acc[i];  // products are exact; how the sum is rounded is left open
      for (int k = 0; k < K; k++) sum += double(a[row][k]) * b[k][column];
      lane->acc[i] = float(sum);
    }
  }
}

}  // namespace emu

inline void ldmatrix(uint32 (&out)[4], const void* row, emu::Site site = EMU_SITE) {
  emu::ldmatrix<4, false>(out, row, site);
}
inline void ldmatrix(uint32 (&out)[2], const void* row, emu::Site site = EMU_SITE) {
  emu::ldmatrix<2, false>(out, row, site);
}
inline void ldmatrix_transposed(uint32 (&out)[4], const void* row, emu::Site site = EMU_SITE) {
  emu::ldmatrix<4, true>(out, row, site);
}

template <class S>
void mma(S, float (&acc)[4], const uint32 (&a)[4], uint32 b0, uint32 b1,
         emu::Site site = EMU_SITE) {
  emu::Multiply mine{acc, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emu::collective("mma.sync", 0xffffffffu, &mine, emu::multiply<S>, site);
}

inline uint32 round_tf32(uint32 bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;  // a NaN stays one
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;
}
template <class S> uint32 round_pair(S, float low, float high) {
  return uint32(store<S>(low).bits) | uint32(store<S>(high).bits) << 16;
}

// ------------------------------------------------------- mbarriers and the bulk copy engine, sm_90

namespace emu {

// Addresses in shared memory are counted from the block's dynamic shared memory, which stands at
// 1024 on sm_90, too: the first KiB is the system's.
constexpr uint32_t SHARED_START = 1024;
inline unsigned char* shared_pointer(uint32_t address) {
  return here->dynamic_shared + (address - SHARED_START);
}

// CU_TENSOR_MAP_SWIZZLE_128B: bits 4 to 6 of an address in shared memory are combined with bits 7
// to 9 by exclusive or.
EMU_UNWATCHED inline uint32_t swizzle_128(uint32_t address) {
  return address ^ (address >> 7 & 7) << 4;
}

}  // namespace emu

inline uint32 shared_address(const void* at) {
  return uint32(static_cast<const unsigned char*>(at) - emu::here->dynamic_shared) +
         emu::SHARED_START;
}

// What tests/fake_cuda.py puts in the place of cuTensorMapEncodeTiled's 128 bytes.
struct alignas(8) TensorMap {
  uint64 address, sizes[3], strides[2];  // sizes in elements, x first; strides in bytes, of y and z
  uint64 box[3], itemsize;
  uint64 unused[6];
};

namespace emu {

inline void check_tensor_copy(const TensorMap& map, const void* shared, Site site) {
  if (map.address % 16 || map.strides[0] % 16 || map.strides[1] % 16)
    fail("cp.async.bulk.tensor: the matrix is not aligned to 16 bytes", site);
  if (map.box[0] * map.itemsize > 128)
    fail("cp.async.bulk.tensor: a box's rows have more than the 128 bytes of the swizzle", site);
  if (shared_address(shared) % 1024)
    fail("cp.async.bulk.tensor: the place in shared memory is not a multiple of 1024", site);
}

// Calls f(where in shared memory, where in global memory or null) for each element of a box.
template <class F>
void each_element(const TensorMap& map, uint32_t shared, int x, int y, int z, F f) {
  for (uint64 k = 0; k < map.box[2]; k++)
    for (uint64 j = 0; j < map.box[1]; j++)
      for (uint64 i = 0; i < map.box[0]; i++) {
        int64 at[3] = {x + int64(i), y + int64(j), z + int64(k)};
        bool inside = true;
        for (int axis = 0; axis < 3; axis++)
          inside = inside && at[axis] >= 0 && at[axis] < int64(map.sizes[axis]);
        auto* global = reinterpret_cast<unsigned char*>(map.address) + at[0] * int64(map.itemsize) +
                       at[1] * int64(map.strides[0]) + at[2] * int64(map.strides[1]);
        f(swizzle_128(shared + uint32_t(((k * map.box[1] + j) * map.box[0] + i) * map.itemsize)),
          inside ? global : nullptr);
      }
}

}  // namespace emu

inline void mbarrier_init(uint64* at, int arrivals, emu::Site site = EMU_SITE) {
  emu::mbarrier_init(at, arrivals, site);
}
inline void fence_mbarrier_init() {}
inline void mbarrier_arrive(uint64* at, emu::Site site = EMU_SITE) {
  emu::mbarrier_arrive(at, 1, site);
}
inline void mbarrier_arrive_expect_tx(uint64* at, int bytes, emu::Site site = EMU_SITE) {
  emu::mbarrier_expect_tx(at, bytes, site);
  emu::mbarrier_arrive(at, 1, site);
}
inline void mbarrier_wait(uint64* at, int parity, emu::Site site = EMU_SITE) {
  emu::mbarrier_wait(at, parity, site);
}
inline void fence_proxy_async() {}
inline void named_barrier(int id, int threads, emu::Site site = EMU_SITE) {
  emu::named_barrier(id, threads, site);
}

inline void tensor_prefetch(const TensorMap&) {}
inline void tensor_load(void* to, const TensorMap& map, uint64* barrier, int x, int y, int z,
                        emu::Site site = EMU_SITE) {
  emu::check_tensor_copy(map, to, site);
  int bytes = int(map.box[0] * map.box[1] * map.box[2] * map.itemsize);
  unsigned char* base = emu::here->dynamic_shared;
  uint32 address = shared_address(to);
  emu::async_copy({to, bytes}, [=, map = map] {
    emu::each_element(map, address, x, y, z, [&](uint32 shared, const unsigned char* global) {
      unsigned char* place = base + (shared - emu::SHARED_START);
      if (global) memcpy(place, global, map.itemsize);
      else memset(place, 0, map.itemsize);
    });
    emu::mbarrier_complete_tx(barrier, bytes, site);
  }, site);
}
inline void tensor_load(void* to, const TensorMap& map, uint64* barrier, int x, int y,
                        emu::Site site = EMU_SITE) {
  tensor_load(to, map, barrier, x, y, 0, site);
}

// A cluster's blocks are parts of one emulated block: each has its share of the threads and of the
// dynamic shared memory.
#define __cluster_dims__(...)
template <int BLOCKS> constexpr int BLOCKS_IN_ONE = BLOCKS;
template <int BLOCKS> int cluster_rank() {
  return emu::current->linear / int(emu::here->block_dim.x / BLOCKS);
}
template <int BLOCKS> int thread_of_block() {
  return emu::current->linear % int(emu::here->block_dim.x / BLOCKS);
}
template <int BLOCKS> unsigned char* shared_of_block(unsigned char* shared) {
  return shared + cluster_rank<BLOCKS>() * (emu::here->dynamic_bytes / BLOCKS);
}
template <int BLOCKS> uint32 cluster_index() { return emu::here->block.x; }
template <int BLOCKS> uint32 cluster_count() { return emu::here->grid_dim.x; }
template <int BLOCKS> void cluster_sync(emu::Site site = EMU_SITE) { __syncthreads(site); }
template <int BLOCKS, class V> V* in_block(V* at, int rank) {
  int64_t apart = emu::here->dynamic_bytes / BLOCKS * (rank - cluster_rank<BLOCKS>());
  return reinterpret_cast<V*>(reinterpret_cast<unsigned char*>(at) + apart);
}
template <int BLOCKS> void mbarrier_arrive_at(uint64* at, int rank, emu::Site site = EMU_SITE) {
  emu::mbarrier_arrive(in_block<BLOCKS>(at, rank), 1, site);
}
template <int BLOCKS>
void tensor_load_multicast(void* to, const TensorMap& map, uint64* barrier, int x, int y, int z,
                           uint16 blocks, emu::Site site = EMU_SITE) {
  for (int rank = 0; rank < BLOCKS; rank++)
    if (blocks >> rank & 1)
      tensor_load(in_block<BLOCKS>(static_cast<unsigned char*>(to), rank), map,
                  in_block<BLOCKS>(barrier, rank), x, y, z, site);
}

inline void tensor_store(const TensorMap& map, const void* from, int x, int y, int z,
                         emu::Site site = EMU_SITE) {
  emu::check_tensor_copy(map, from, site);
  int64_t bytes = int64_t(map.box[0] * map.box[1] * map.box[2] * map.itemsize);
  const unsigned char* base = emu::here->dynamic_shared;
  uint32 address = shared_address(from);
  emu::defer(emu::Queue::bulk, {const_cast<void*>(from), bytes}, [=, map = map] {
    emu::each_element(map, address, x, y, z, [&](uint32 shared, unsigned char* global) {
      if (global) memcpy(global, base + (shared - emu::SHARED_START), map.itemsize);
    });
  }, site);
}
inline void bulk_commit(emu::Site site = EMU_SITE) {
  emu::commit_group(emu::Queue::bulk, site);
}
template <int LEFT> void bulk_wait_read(emu::Site site = EMU_SITE) {
  emu::wait_group(emu::Queue::bulk, LEFT, site);
}

namespace emu {
struct StoreMatrix {
  unsigned char* row;
  uint32_t in[4];
};
}  // namespace emu
// PTX ISA, "stmatrix": the way back of ldmatrix.
inline void stmatrix(void* row, const uint32 (&in)[4], emu::Site site = EMU_SITE) {
  if (reinterpret_cast<uintptr_t>(row) % 16)
    emu::fail("stmatrix: the address of a row is not a multiple of 16", site);
  emu::StoreMatrix mine{static_cast<unsigned char*>(row), {in[0], in[1], in[2], in[3]}};
  emu::collective("stmatrix", 0xffffffffu, &mine, [](void** lanes, uint32_t) {
    for (int matrix = 0; matrix < 4; matrix++)
      for (int l = 0; l < 32; l++) {
        auto* owner = static_cast<emu::StoreMatrix*>(lanes[8 * matrix + l / 4]);
        memcpy(owner->row + l % 4 * 4, &static_cast<emu::StoreMatrix*>(lanes[l])->in[matrix], 4);
      }
  }, site);
}

// --------------------------------------------------------------------------------- wgmma, sm_90a

namespace emu {

// PTX ISA, "Matrix descriptor format" and "Canonical layouts" (128-byte swizzle): where element
// (x, k) of an operand is, x being its row (a) or column (b).
struct Descriptor {
  uint32_t start, leading, stride;
  bool along_k;
  Descriptor(uint64_t bits, bool transposed)
      : start(uint32_t(bits & 0x3fff) << 4), leading(uint32_t(bits >> 16 & 0x3fff) << 4),
        stride(uint32_t(bits >> 32 & 0x3fff) << 4), along_k(!transposed) {}
  EMU_UNWATCHED uint32_t operator()(int x, int k) const {
    uint32_t at = along_k ? x / 8 * stride + x % 8 * 128 + k * 2
                          : x / 64 * leading + k / 8 * stride + k % 8 * 128 + x % 64 * 2;
    return swizzle_128(start + at);
  }
  // The shared memory from the first to the last of its `size` rows or columns.
  Region region(int size) const {
    uint32_t bytes = along_k ? size / 8 * stride : (size / 64 - 1) * leading + 2 * stride;
    return {shared_pointer(start & ~1023u), bytes};
  }
};

struct WarpgroupMultiply {
  float* acc;
  uint64_t a, b;
  bool accumulate;
  Site site;
};

template <class S>
EMU_UNWATCHED float element_at(const unsigned char* shared, const Descriptor& from, int x, int k) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, shared + (from(x, k) - SHARED_START), 2);
  return element(S{}, &bits, 0);
}

// PTX ISA, the accumulator fragment of wgmma .m64nNk16.
template <class S, int N>
EMU_UNWATCHED void multiply_group(float* const* acc, const unsigned char* shared,
                                  const Descriptor& a, const Descriptor& b, bool accumulate) {
  static float left[64][16], right[N][16];
  for (int k = 0; k < 16; k++) {
    for (int row = 0; row < 64; row++) left[row][k] = element_at<S>(shared, a, row, k);
    for (int x = 0; x < N; x++) right[x][k] = element_at<S>(shared, b, x, k);
  }
  for (int thread = 0; thread < 128; thread++)
    for (int i = 0; i < N / 2; i++) {
      int row = thread / 32 * 16 + thread % 32 / 4 + (i & 2 ? 8 : 0);
      int column = i / 4 * 8 + thread % 4 * 2 + (i & 1);
      double sum = accumulate ? acc[thread][i] : 0.0f;
      for (int k = 0; k < 16; k++) sum += double(left[row][k]) * right[column][k];
      acc[thread][i] = float(sum);
    }
}

template <class S, int N, bool A_TRANSPOSED, bool B_TRANSPOSED> void issue(void** threads) {
  auto mine = [&](int i) { return static_cast<WarpgroupMultiply*>(threads[i]); };
  WarpgroupMultiply first = *mine(0);
  auto** acc = new float*[128];
  for (int i = 0; i < 128; i++) {
    if (mine(i)->a != first.a || mine(i)->b != first.b || mine(i)->accumulate != first.accumulate)
      fail("wgmma: the threads of a warpgroup give different operands", first.site);
    acc[i] = mine(i)->acc;
  }
  Descriptor a(first.a, A_TRANSPOSED), b(first.b, B_TRANSPOSED);
  const unsigned char* shared = here->dynamic_shared;
  defer(Queue::wgmma, a.region(64), [] {}, first.site);
  defer(Queue::wgmma, b.region(N), [=] {
    multiply_group<S, N>(acc, shared, a, b, first.accumulate);
    delete[] acc;
  }, first.site);
}

}  // namespace emu

template <int REGISTERS> void setmaxnreg_dec() {
  static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256);
}
template <int REGISTERS> void setmaxnreg_inc() { setmaxnreg_dec<REGISTERS>(); }
inline void wgmma_fence() {}
inline void wgmma_commit(emu::Site site = EMU_SITE) {
  emu::commit_group(emu::Queue::wgmma, site);
}
// .sync.aligned: the lanes of a warp wait together, and what one of them issued is over for all.
template <int LEFT, int N> void wgmma_wait(float (&)[N], emu::Site site = EMU_SITE) {
  emu::wait_group(emu::Queue::wgmma, LEFT, site);
  int nothing = 0;
  emu::collective("wgmma.wait_group", 0xffffffffu, &nothing, [](void**, uint32_t) {}, site);
  emu::wait_group(emu::Queue::wgmma, LEFT, site);
}

template <bool A_TRANSPOSED, bool B_TRANSPOSED, class S, int COUNT>
void wgmma(S, float (&acc)[COUNT], uint64 a, uint64 b, bool accumulate, emu::Site site = EMU_SITE) {
  if (a >> 62 != 1 || b >> 62 != 1 || (a >> 49 & 7) || (b >> 49 & 7))
    emu::fail("wgmma: only the 128-byte swizzle without a base offset is emulated", site);
  emu::WarpgroupMultiply mine{acc, a, b, accumulate, site};
  emu::collective_group("wgmma", &mine, emu::issue<S, 2 * COUNT, A_TRANSPOSED, B_TRANSPOSED>, site);
}
