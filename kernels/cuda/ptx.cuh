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

#endif  // GRADLAB_EMULATOR
