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

inline float element(float16, const uint32_t* registers, int i) {
  return float_from_half(uint16_t(registers[i / 2] >> (16 * (i % 2))));
}
inline float element(bfloat16, const uint32_t* registers, int i) {
  return bit_cast<float>(uint32_t(registers[i / 2] >> (16 * (i % 2)) << 16));
}
inline float element(float32, const uint32_t* registers, int i) {
  return bit_cast<float>(registers[i] & 0xffffe000u);  // the tensor core ignores the last 13 bits
}

template <class S> void multiply(void** lanes, uint32_t) {
  constexpr bool HALF = sizeof(S) == 2;
  constexpr int K = HALF ? 16 : 8;
  float a[16][K], b[K][8];
  for (int l = 0; l < 32; l++) {
    auto* lane = static_cast<Multiply*>(lanes[l]);
    int group = l >> 2, in_group = l % 4;
    for (int i = 0; i < (HALF ? 8 : 4); i++) {
      // .f16/.bf16: row = group for i in {0, 1, 4, 5}, else group + 8; column = 2·in_group + (i & 1),
      // + 8 for i >= 4. .tf32: row = group for a0 and a2; column = in_group, + 4 for a2 and a3.
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
void mma(S, float (&acc)[4], const uint32 (&a)[4], uint32 b0, uint32 b1, emu::Site site = EMU_SITE) {
  emu::Multiply mine{acc, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emu::collective("mma.sync", 0xffffffffu, &mine, emu::multiply<S>, site);
}

inline uint32 round_tf32(uint32 bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;  // a NaN stays one
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;
}
