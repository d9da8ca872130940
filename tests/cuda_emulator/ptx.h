// What the instructions of kernels/cuda/ptx.cuh do, written from the PTX ISA, for the emulator.
#pragma once

// ------------------------------------------------------------------------------------ cp.async

template <int BYTES>
void cp_async(void* to, const void* from, int valid = BYTES, emu::Site site = EMU_SITE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what cp.async copies");
  if (valid < 0 || valid > BYTES) emu::fail("cp.async: more valid bytes than the copy has", site);
  emu::cp_async(to, from, BYTES, valid, site);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int LEFT> void cp_async_wait() { emu::cp_async_wait(LEFT); }
