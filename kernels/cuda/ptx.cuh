// One function per PTX instruction that CUDA C++ has no name for: asynchronous copies, and what the
// tensor cores take and give. Each is the instruction alone on a device, and behind it, for a host
// compiler, what the PTX ISA says the instruction does (tests/cuda_emulator/ptx.h).
#pragma once
#include "common.cuh"

#ifdef GRADLAB_EMULATOR
#include <ptx.h>
#else

INLINE uint32 shared_address(const void* at) { return uint32(__cvta_generic_to_shared(at)); }

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

#endif  // __CUDA_ARCH__ >= 800

#endif  // GRADLAB_EMULATOR
