// One function per PTX instruction that CUDA C++ has no name for: asynchronous copies, and what the
// tensor cores take and give. Each is the instruction alone on a device, and behind it, for a host
// compiler, what the PTX ISA says the instruction does (tests/cuda_emulator/ptx.h).
#pragma once
#include "common.cuh"

#ifdef GRADLAB_EMULATOR
#include <ptx.h>
#else

INLINE uint32 shared_address(const void* at) { return uint32(__cvta_generic_to_shared(at)); }

// Real time, which unlike clock64() does not depend on the clock rate; it ticks every microsecond
// or more often.
INLINE int64 nanoseconds_now() {
  int64 now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)::"memory");
  return now;
}

// ---------------------------------------------------------------------- cp.async, sm_80 and later

// Copy BYTES (4, 8 or 16) from global to shared memory, both addresses a multiple of BYTES: the
// first `valid` bytes are read, the rest of the destination becomes 0. The copy is seen by this
// thread after cp_async_wait and by others after a barrier that follows. sm_75 copies at once.
template <int BYTES> INLINE void cp_async(void* to, const void* from, int valid = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what cp.async copies");
#if __CUDA_ARCH__ >= 800
  if constexpr (BYTES == 16)  // .cg: past L1, which would only be filled and evicted
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 ::"r"(shared_address(to)), "l"(from), "r"(valid) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 ::"r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(valid) : "memory");
#else
  using Words = Pack<uint32, BYTES / 4>;
  Words words{};
  if (valid == BYTES) words = *static_cast<const Words*>(from);
  else
    for (int i = 0; i < BYTES; i++)
      if (i < valid)
        words.values[i / 4] |= uint32(static_cast<const uint8*>(from)[i]) << (8 * (i % 4));
  *static_cast<Words*>(to) = words;
#endif
}

// Close the group of copies that this thread issued since the last commit.
INLINE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most LEFT of this thread's groups, the newest ones, are still under way.
template <int LEFT> INLINE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

// ---------------------------------------------------------------- ldmatrix and mma.sync, sm_80+

#if __CUDA_ARCH__ >= 800

// Four matrices of 8 rows of 16 bytes: lane l gives the address of row l % 8 of matrix l / 8, and
// gets from each matrix the 4 bytes that begin at byte 4·(l % 4) of row l / 4.
INLINE void ldmatrix(uint32 (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)) : "memory");
}
// Two matrices; the addresses of lanes 0 to 15 count.
INLINE void ldmatrix(uint32 (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1]) : "r"(shared_address(row)) : "memory");
}
// Each matrix, of 2-byte elements, transposed: lane l gets column l / 4 of rows 2·(l % 4) and the
// one after.
INLINE void ldmatrix_transposed(uint32 (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)) : "memory");
}

// acc += a·b: a is 16 x 16 (float32: 16 x 8), b 16 x 8 (8 x 8). Lane l, with g = l / 4 and
// t = l % 4, holds of acc rows g (0, 1) and g + 8 (2, 3) at columns 2t and 2t + 1; of a rows g and
// g + 8 at columns 2t and 2t + 1 (0, 1), then the same 8 columns on (2, 3); of b column g at the
// rows that are these columns of a. float32: columns t and t + 4 of a.
#define GRADLAB_MMA(type, shape)                                                              \
  INLINE void mma(type, float (&acc)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {        \
    asm volatile("mma.sync.aligned." shape                                                    \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"           \
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));             \
  }
GRADLAB_MMA(float16, "m16n8k16.row.col.f32.f16.f16.f32")
GRADLAB_MMA(bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
GRADLAB_MMA(float32, "m16n8k8.row.col.f32.tf32.tf32.f32")

// The bits of a float32 rounded to TF32 (10 bits of fraction), halves away from zero: mma itself
// would cut the other 13 bits off, which is twice the error and all of it towards zero.
INLINE uint32 round_tf32(uint32 bits) {
  uint32 out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(bits)));
  return out;
}

// Two numbers rounded to nearest, the first in the lower half.
INLINE uint32 round_pair(float16, float low, float high) {
  uint32 out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
INLINE uint32 round_pair(bfloat16, float low, float high) {
  uint32 out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

#endif  // __CUDA_ARCH__ >= 800

// ------------------------------------------------------------------------------- sm_90 and sm_90a

#if __CUDA_ARCH__ >= 900

// A tensor map as cuTensorMapEncodeTiled makes it: where a matrix lies, and in what boxes it is
// copied.
struct alignas(64) TensorMap {
  uint64 opaque[16];
};

// An mbarrier's phase is over when `arrivals` threads have arrived and all bytes that were
// announced have come; then the next phase begins. Phases have the parities 0, 1, 0, …
INLINE void mbarrier_init(uint64* at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(arrivals)
               : "memory");
}
// Makes the mbarriers that this thread initialised known to the copy engine.
INLINE void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
INLINE void mbarrier_arrive(uint64* at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}
// Announce `bytes` more in this phase, and arrive.
INLINE void mbarrier_arrive_expect_tx(uint64* at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               ::"r"(shared_address(at)), "r"(bytes) : "memory");
}
// Wait for the end of the phase of that parity. (That of parity 1 before the first is over.)
INLINE void mbarrier_wait(uint64* at, int parity) {
  uint32 over;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(over) : "r"(shared_address(at)), "r"(parity) : "memory");
  } while (!over);
}

// What this thread wrote to shared memory is seen by the copy engine and by wgmma.
INLINE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

INLINE void tensor_prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Copy the box of a map that begins at element (x, y, z), x the innermost, to shared memory; its
// bytes are counted at `barrier`. What lies outside the matrix becomes 0.
INLINE void tensor_load(void* to, const TensorMap& map, uint64* barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];"
      ::"r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
INLINE void tensor_load(void* to, const TensorMap& map, uint64* barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];"
      ::"r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y)
      : "memory");
}
// The same into the shared memory of all blocks of the cluster whose bit is set in `blocks`, at the
// place that `to` has in this one, and counted at each one's own `barrier`.
template <int BLOCKS>
INLINE void tensor_load_multicast(void* to, const TensorMap& map, uint64* barrier, int x, int y,
                                  int z, uint16 blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;"
      ::"r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z),
      "h"(blocks) : "memory");
}
// The way back; nothing is written outside the matrix. Such copies are waited for in groups.
INLINE void tensor_store(const TensorMap& map, const void* from, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];"
               ::"l"(&map), "r"(shared_address(from)), "r"(x), "r"(y), "r"(z) : "memory");
}
INLINE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until all but the LEFT newest groups of this thread have read their shared memory.
template <int LEFT> INLINE void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(LEFT) : "memory");
}

// A cluster is BLOCKS blocks that run together and reach each other's shared memory. The emulator
// folds them into one block, so that a kernel asks here for what is its own.
template <int BLOCKS> constexpr int BLOCKS_IN_ONE = 1;
template <int BLOCKS> INLINE int cluster_rank() {
  uint32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return BLOCKS > 1 ? int(rank) : 0;
}
template <int BLOCKS> INLINE int thread_of_block() { return int(threadIdx.x); }
template <int BLOCKS> INLINE unsigned char* shared_of_block(unsigned char* shared) {
  return shared;
}
template <int BLOCKS> INLINE uint32 cluster_index() { return blockIdx.x / BLOCKS; }
template <int BLOCKS> INLINE uint32 cluster_count() { return gridDim.x / BLOCKS; }
// For all threads of the cluster, as __syncthreads() is for a block's.
template <int BLOCKS> INLINE void cluster_sync() {
  if constexpr (BLOCKS == 1)
    __syncthreads();
  else
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;"
                 ::: "memory");
}
// Arrive at another block's mbarrier, which is where `at` is in this one: to say that shared memory
// has been read, not that any was written. For that `.release.cluster` would be needed, for which
// the compiler makes the warp wait until all its accesses have reached the L2 (MEMBAR.ALL.GPU).
template <int BLOCKS> INLINE void mbarrier_arrive_at(uint64* at, int rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}"
      ::"r"(shared_address(at)), "r"(rank) : "memory");
}

// Barrier `id` of 1 to 15 for `threads` threads; 0 is that of __syncthreads().
INLINE void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Four matrices of 8 rows of 16 bytes go to where lane l says row l % 8 of matrix l / 8 should be;
// each lane holds of each what ldmatrix would give it.
INLINE void stmatrix(void* row, const uint32 (&in)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               ::"r"(shared_address(row)), "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3])
               : "memory");
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // sm_90a

// The registers per thread of this warpgroup, from those the kernel was launched with.
template <int REGISTERS> INLINE void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> INLINE void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Between what this thread did with the registers of a wgmma and that wgmma.
INLINE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT, int N> INLINE void wgmma_wait(float (&acc)[N]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
  if constexpr (LEFT == 0) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(acc[i])::"memory");  // not read before
  }
}

// acc = a·b, or acc += a·b: a is 64 x 16, b 16 x N, in shared memory where the descriptors say; a
// is stored along k, or TRANSPOSED along its 64, and likewise b. Warp w of the warpgroup holds rows
// 16w to 16w + 15: lane l, with g = l / 4 and t = l % 4, in acc[4j] and acc[4j + 1] columns 8j + 2t
// and the next of row 16w + g, in acc[4j + 2] and acc[4j + 3] those of row 16w + g + 8.
#define GRADLAB_ACC8(i)                                                                       \
  "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3]), "+f"(acc[i + 4]),       \
      "+f"(acc[i + 5]), "+f"(acc[i + 6]), "+f"(acc[i + 7])
#define GRADLAB_WGMMA_128(type, ptx)                                                          \
  template <bool A_TRANSPOSED, bool B_TRANSPOSED>                                             \
  INLINE void wgmma(type, float (&acc)[64], uint64 a, uint64 b, bool accumulate) {            \
    asm volatile(                                                                             \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                          \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." ptx "." ptx " {"                       \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "              \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "    \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "    \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"      \
        "}, %64, %65, p, 1, 1, %67, %68;\n}"                                                  \
        : GRADLAB_ACC8(0), GRADLAB_ACC8(8), GRADLAB_ACC8(16), GRADLAB_ACC8(24),               \
          GRADLAB_ACC8(32), GRADLAB_ACC8(40), GRADLAB_ACC8(48), GRADLAB_ACC8(56)              \
        : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(A_TRANSPOSED)),                       \
          "n"(int(B_TRANSPOSED)));                                                            \
  }
#define GRADLAB_WGMMA_256(type, ptx)                                                          \
  template <bool A_TRANSPOSED, bool B_TRANSPOSED>                                             \
  INLINE void wgmma(type, float (&acc)[128], uint64 a, uint64 b, bool accumulate) {           \
    asm volatile(                                                                             \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." ptx "." ptx " {"                       \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "              \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "    \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "    \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "    \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "    \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "    \
        "%96, %97, %98, %99, %100, %101, %102, %103, "                                        \
        "%104, %105, %106, %107, %108, %109, %110, %111, "                                    \
        "%112, %113, %114, %115, %116, %117, %118, %119, "                                    \
        "%120, %121, %122, %123, %124, %125, %126, %127"                                      \
        "}, %128, %129, p, 1, 1, %131, %132;\n}"                                              \
        : GRADLAB_ACC8(0), GRADLAB_ACC8(8), GRADLAB_ACC8(16), GRADLAB_ACC8(24),               \
          GRADLAB_ACC8(32), GRADLAB_ACC8(40), GRADLAB_ACC8(48), GRADLAB_ACC8(56),             \
          GRADLAB_ACC8(64), GRADLAB_ACC8(72), GRADLAB_ACC8(80), GRADLAB_ACC8(88),             \
          GRADLAB_ACC8(96), GRADLAB_ACC8(104), GRADLAB_ACC8(112), GRADLAB_ACC8(120)           \
        : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(A_TRANSPOSED)),                       \
          "n"(int(B_TRANSPOSED)));                                                            \
  }
GRADLAB_WGMMA_128(float16, "f16")
GRADLAB_WGMMA_128(bfloat16, "bf16")
GRADLAB_WGMMA_256(float16, "f16")
GRADLAB_WGMMA_256(bfloat16, "bf16")

#endif  // sm_90a

#endif  // __CUDA_ARCH__ >= 900

#endif  // GRADLAB_EMULATOR

#if defined(GRADLAB_EMULATOR) || __CUDA_ARCH__ >= 900

// Where a matrix for wgmma lies in shared memory, in the 128-byte swizzle: rows of 128 bytes, in
// groups of eight that begin at a multiple of 1024 bytes, where the 16-byte chunk c of row r stands
// in place c ^ r. `stride` is the number of bytes from one group of eight rows to the next.
// `leading` counts only for a matrix that is not stored along k and wider than the 64 elements of a
// row: it is the number of bytes from 64 of them to the next 64.
INLINE uint64 matrix_descriptor(const void* at, int leading, int stride) {
  constexpr uint64 SWIZZLE_128 = 1;
  return uint64(shared_address(at) >> 4 & 0x3fff) | uint64(leading >> 4) << 16 |
         uint64(stride >> 4) << 32 | SWIZZLE_128 << 62;
}
INLINE uint64 advance_descriptor(uint64 descriptor, int bytes) { return descriptor + (bytes >> 4); }

#endif
