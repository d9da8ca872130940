// What all kernels share: the types that NumPy names, shared memory, reductions over a warp and a
// block, vector loads. NVRTC compiles it for a GPU; a host compiler reads the same text behind
// tests/cuda_emulator/emulator.h, which stands in for CUDA's own declarations.
//
// A file is compiled once per dtype, with -DDTYPE=float32 and the like: T is that type, and
// NAME(softmax) the symbol softmax_float32. No CUDA header is included: NVRTC needs none, and
// cuda_fp16.h alone would double the time of a compilation.
#pragma once

using int8 = signed char;
using uint8 = unsigned char;
using int16 = short;
using uint16 = unsigned short;
using int32 = int;
using uint32 = unsigned int;
using int64 = long long;
using uint64 = unsigned long long;
using float32 = float;
using float64 = double;

// Storage only: arithmetic happens in float32. The bits are IEEE 754 binary16 and the upper half
// of a binary32.
struct alignas(2) float16 {
  uint16 bits;
};
struct alignas(2) bfloat16 {
  uint16 bits;
};

#ifndef DTYPE
#define DTYPE float32
#endif
using T = DTYPE;

#define GRADLAB_JOIN_(a, b) a##_##b
#define GRADLAB_JOIN(a, b) GRADLAB_JOIN_(a, b)
#define NAME(stem) GRADLAB_JOIN(stem, DTYPE)

#ifndef GRADLAB_EMULATOR
// SHARED(float, tile, [16][17]) is an array in shared memory; DYNAMIC_SHARED(bytes) the block of
// bytes whose size the launch gives, aligned for the bulk copy engine's 128-byte swizzle.
#define SHARED(type, name, dims) __shared__ __align__(128) type name dims
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

#define INLINE __device__ __forceinline__

constexpr uint32 FULL_MASK = 0xffffffffu;
constexpr int WARP = 32;

// ------------------------------------------------------------------------- float16 and bfloat16

#ifdef GRADLAB_EMULATOR
INLINE float widen(float16 x) { return emu::float_from_half(x.bits); }
INLINE float16 narrow_float16(float x) { return {emu::half_from_float(x)}; }
#else
INLINE float widen(float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
INLINE float16 narrow_float16(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
#endif

INLINE float widen(bfloat16 x) { return __uint_as_float(uint32(x.bits) << 16); }
// To nearest, ties to even. A NaN stays one.
#if !defined(GRADLAB_EMULATOR) && __CUDA_ARCH__ >= 800
INLINE bfloat16 narrow_bfloat16(float x) {
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
#else
INLINE bfloat16 narrow_bfloat16(float x) {
  uint32 bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16(0x7fc0)};
  return {uint16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
#endif

// The type in which values of S are added up.
template <class S> struct Wide { using type = S; };
template <> struct Wide<float16> { using type = float; };
template <> struct Wide<bfloat16> { using type = float; };
template <> struct Wide<bool> { using type = int64; };
template <> struct Wide<int8> { using type = int64; };
template <> struct Wide<uint8> { using type = int64; };
template <> struct Wide<int16> { using type = int64; };
template <> struct Wide<uint16> { using type = int64; };
template <> struct Wide<int32> { using type = int64; };
template <> struct Wide<uint32> { using type = int64; };
template <class S> using wide = typename Wide<S>::type;

// load(x) is x in the type it is computed in; store<S>(v) turns that back into an S.
template <class S> INLINE wide<S> load(S x) { return wide<S>(x); }
INLINE float load(float16 x) { return widen(x); }
INLINE float load(bfloat16 x) { return widen(x); }
template <class S> struct Store {
  template <class V> static INLINE S from(V x) { return S(x); }
};
template <> struct Store<float16> {
  static INLINE float16 from(float x) { return narrow_float16(x); }
};
template <> struct Store<bfloat16> {
  static INLINE bfloat16 from(float x) { return narrow_bfloat16(x); }
};
template <class S, class V> INLINE S store(V x) { return Store<S>::from(x); }

// ------------------------------------------------------------- one name for float and for double

INLINE float square_root(float x) { return sqrtf(x); }
INLINE double square_root(double x) { return sqrt(x); }
INLINE float power(float x, float p) { return powf(x, p); }
INLINE double power(double x, double p) { return pow(x, p); }
INLINE float exponential(float x) { return expf(x); }
INLINE double exponential(double x) { return exp(x); }
INLINE float logarithm(float x) { return logf(x); }
INLINE double logarithm(double x) { return log(x); }

// In one instruction, to 2 units in the last place; what is below 2^-126 becomes 0.
#ifdef GRADLAB_EMULATOR
INLINE float power_of_two(float x) { return exp2f(x); }
#else
INLINE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

// ------------------------------------------------------------------------------- vector access

// N values of S, read and written in one access of up to 16 bytes. The address must be a multiple
// of the size.
template <class S, int N> struct alignas(sizeof(S) * N) Pack {
  S values[N];
  INLINE S& operator[](int i) { return values[i]; }
  INLINE const S& operator[](int i) const { return values[i]; }
};

template <int N, class S> INLINE Pack<S, N> load_pack(const S* at) {
  return *reinterpret_cast<const Pack<S, N>*>(at);
}
// To shared memory.
template <class S, int N> INLINE void store_pack_shared(S* at, const Pack<S, N>& pack) {
  *reinterpret_cast<Pack<S, N>*>(at) = pack;
}

// To global memory. The instruction is named because the compiler takes structs apart, and after
// many a loop or branch does not put the words together again: four stores of 4 bytes, 16 apart
// from lane to lane, for one of 16.
template <class S, int N> INLINE void store_pack(S* at, const Pack<S, N>& pack) {
#ifdef GRADLAB_EMULATOR
  *reinterpret_cast<Pack<S, N>*>(at) = pack;
#else
  if constexpr (N == 1 || sizeof(pack) < 4) {
    *reinterpret_cast<Pack<S, N>*>(at) = pack;
  } else {
    constexpr int WORDS = sizeof(pack) / 4;
    const auto& w = reinterpret_cast<const Pack<uint32, WORDS>&>(pack);
    uint32* to = reinterpret_cast<uint32*>(at);
    if constexpr (WORDS == 1) {
      *to = w[0];
    } else if constexpr (WORDS == 2) {
      asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
    } else {
#pragma unroll
      for (int i = 0; i < WORDS; i += 4)
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                     ::"l"(to + i), "r"(w[i]), "r"(w[i + 1]), "r"(w[i + 2]), "r"(w[i + 3])
                     : "memory");
    }
  }
#endif
}

// ------------------------------------------------------------------- reductions, in fixed order

template <class V> INLINE V larger(V a, V b) { return a > b ? a : b; }
INLINE float larger(float a, float b) { return fmaxf(a, b); }
INLINE double larger(double a, double b) { return fmax(a, b); }

struct Add {
  template <class V> INLINE V operator()(V a, V b) const { return a + b; }
};
struct Larger {
  template <class V> INLINE V operator()(V a, V b) const { return larger(a, b); }
};

// Every lane gets the result over the first `lanes` (a power of two) lanes of its group.
template <class V, class F> INLINE V reduce_warp(V x, F combine, int lanes = WARP) {
  for (int step = lanes / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(FULL_MASK, x, step));
  return x;
}

// Every thread gets the result over the block, whose size is a multiple of 32, up to 1024.
// `scratch` holds 32 values; the function may be called again with it at once.
template <class V, class F> INLINE V reduce_block(V x, F combine, V* scratch, V identity) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  x = reduce_warp(x, combine);
  __syncthreads();  // the last use of scratch is over
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = lane < warps ? scratch[lane] : identity;
  return reduce_warp(x, combine);
}
