// Random numbers: Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011), block by block, and what follows from its integers.
//
// A thread computes one block of the stream: four 64-bit integers, which are eight values of 32
// bits or four of 64. Ten rounds of two 64×64 → 128 bit products are some 160 integer
// multiply-adds, 20 per 32-bit value: at half rate on 132 multiprocessors that allows about
// 0.7·10¹² values per second, 2.9 TB/s of float32 (not yet measured). Memory is not far above, so
// all that stands beside Philox is kept small.
#include "common.cuh"

// The integers that NumPy's Philox gives for key [seed, 0] and counter [0, 0, call, 0]: it counts
// up before it draws, so that block 0 has counter 1.
INLINE void philox(int64 block, int64 seed, int64 call, uint64 (&x)[4]) {
  uint64 x0 = uint64(block) + 1, x1 = 0, x2 = uint64(call), x3 = 0;
  uint64 key0 = uint64(seed), key1 = 0;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    uint64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, x0), low0 = 0xD2E7470EE14C6C93ull * x0;
    uint64 high1 = __umul64hi(0xCA5A826395121157ull, x2), low1 = 0xCA5A826395121157ull * x2;
    x0 = high1 ^ x1 ^ key0, x1 = low1;
    x2 = high0 ^ x3 ^ key1, x3 = low0;
    key0 += 0x9E3779B97F4A7C15ull, key1 += 0xBB67AE8584CAA73Bull;
  }
  x[0] = x0, x[1] = x1, x[2] = x2, x[3] = x3;
}

INLINE void words(int64 block, int64 seed, int64 call, uint64* w) {
  philox(block, seed, call, *reinterpret_cast<uint64(*)[4]>(w));
}
INLINE void words(int64 block, int64 seed, int64 call, uint32* w) {
  uint64 x[4];
  philox(block, seed, call, x);
#pragma unroll
  for (int i = 0; i < 4; i++) w[2 * i] = uint32(x[i]), w[2 * i + 1] = uint32(x[i] >> 32);
}

INLINE int64 this_block() { return int64(blockIdx.x) * blockDim.x + threadIdx.x; }

// N values in a row, in accesses of 16 bytes where they fit and are aligned. Arrays may begin
// anywhere (a slice), and the last values are fewer than N.
template <int N, class S> constexpr int WIDTH = sizeof(S) * N < 16 ? N : 16 / int(sizeof(S));

template <class S> INLINE bool aligned(const S* at) {
  return reinterpret_cast<uint64>(at) % 16 == 0;
}

template <int N, class S> INLINE void write(S* y, int64 start, int64 count, const S (&values)[N]) {
  constexpr int W = WIDTH<N, S>;
  if (start + N <= count && aligned(y + start)) {
#pragma unroll
    for (int i = 0; i < N; i += W) {
      Pack<S, W> pack;
#pragma unroll
      for (int j = 0; j < W; j++) pack[j] = values[i + j];
      store_pack(y + start + i, pack);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; i++)
    if (start + i < count) y[start + i] = values[i];
}

template <int N, class S> INLINE void read(const S* x, int64 start, int64 count, S (&values)[N]) {
  constexpr int W = WIDTH<N, S>;
  if (start + N <= count && aligned(x + start)) {
#pragma unroll
    for (int i = 0; i < N; i += W) {
      auto pack = load_pack<W>(x + start + i);
#pragma unroll
      for (int j = 0; j < W; j++) values[i + j] = pack[j];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; i++)
    if (start + i < count) values[i] = x[start + i];
}

#ifdef INTEGERS

// The stream itself.
extern "C" __global__ void NAME(bits)(uint64* y, int64 count, int64 seed, int64 call) {
  int64 start = 4 * this_block();
  if (start >= count) return;
  uint64 x[4];
  philox(start / 4, seed, call, x);
  write<4>(y, start, count, x);
}

// low + bits mod span, or all bits for a span of 2^64, given as 0. The remainder takes longer than the bits; integers are drawn seldom.
extern "C" __global__ void NAME(integers)(int64* y, int64 count, int64 seed, int64 call, int64 low,
                                          int64 span) {
  int64 start = 4 * this_block();
  if (start >= count) return;
  uint64 x[4];
  int64 values[4];
  philox(start / 4, seed, call, x);
#pragma unroll
  for (int i = 0; i < 4; i++)
    values[i] = int64((span ? x[i] % uint64(span) : x[i]) + uint64(low));
  write<4>(y, start, count, values);
}

#else

using V = wide<T>;  // uniforms and normals of the halves are float32 numbers, rounded

template <class F> struct Uniform;
template <> struct Uniform<float> {
  using Word = uint32;
  static constexpr int N = 8;
  static INLINE float half_open(Word w) { return float(w >> 8) * 0x1p-24f; }
  static INLINE float open_below(Word w) { return (float(w) + 0.5f) * 0x1p-32f; }
};
template <> struct Uniform<double> {
  using Word = uint64;
  static constexpr int N = 4;
  static INLINE double half_open(Word w) { return double(w >> 11) * 0x1p-53; }
  static INLINE double open_below(Word w) { return (double(w >> 11) + 0.5) * 0x1p-53; }
};

using U = Uniform<V>;
constexpr int N = U::N;

INLINE void sine_cosine(float x, float* s, float* c) { sincosf(x, s, c); }
INLINE void sine_cosine(double x, double* s, double* c) { sincos(x, s, c); }

// Rounding to a half may reach 1, which [0, 1) leaves out.
template <class S> INLINE S below_one(S x) { return x; }
INLINE float16 below_one(float16 x) { return {uint16(x.bits == 0x3c00 ? 0x3bff : x.bits)}; }
INLINE bfloat16 below_one(bfloat16 x) { return {uint16(x.bits == 0x3f80 ? 0x3f7f : x.bits)}; }

extern "C" __global__ void NAME(uniform)(T* y, int64 count, int64 seed, int64 call) {
  int64 start = N * this_block();
  if (start >= count) return;
  U::Word w[N];
  T values[N];
  words(start / N, seed, call, w);
#pragma unroll
  for (int i = 0; i < N; i++) values[i] = below_one(store<T>(U::half_open(w[i])));
  write<N>(y, start, count, values);
}

// values[i] becomes values[i + shift] for the first half of them. With steps known to the compiler
// the values stay in registers, which an index that is not would forbid.
template <int STEP, int COUNT, class S> INLINE void move_down(S (&values)[COUNT], int shift) {
#pragma unroll
  for (int i = 0; i < COUNT - STEP; i++) values[i] = shift & STEP ? values[i + STEP] : values[i];
  if constexpr (STEP > 1) move_down<STEP / 2>(values, shift);
}

// Box-Muller: of 2·half uniforms u, number i and number half + i give a pair of normals, which
// become values i and half + i. The second ones begin inside a block of the stream unless half is
// a multiple of N: then two blocks are drawn for them, and moved to their places in registers.
extern "C" __global__ void NAME(normal)(T* y, int64 count, int64 seed, int64 call) {
  int64 half = (count + 1) / 2, start = N * this_block();
  if (start >= half) return;
  U::Word first[N], second[2 * N];
  words(start / N, seed, call, first);
  int64 block = (half + start) / N;
  int shift = int(half % N);
  words(block, seed, call, second);
  if (shift) words(block + 1, seed, call, second + N);
  move_down<N / 2>(second, shift);
  T cosines[N], sines[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    V radius = square_root(V(-2) * logarithm(U::open_below(first[i])));
    V angle = V(6.283185307179586) * U::open_below(second[i]), sine, cosine;
    sine_cosine(angle, &sine, &cosine);
    cosines[i] = store<T>(radius * cosine), sines[i] = store<T>(radius * sine);
  }
  write<N>(y, start, half, cosines);
  write<N>(y + half, start, count - half, sines);
}

// y = x·scale where the 24-bit uniform of the element is at least p, which is the same as
// word >= threshold with threshold = ⌈p·2²⁴⌉·2⁸ (up to 2³²). The mask is not stored: backward draws
// it again, 8 bytes of traffic per float32 element in either direction and 4 per half, where
// a stored mask would add a byte to each. Dropped elements are x·0, so that NaN and infinity pass.
extern "C" __global__ void NAME(dropout)(const T* __restrict__ x, T* __restrict__ y, int64 count,
                                         int64 seed, int64 call, int64 threshold, double scale) {
  constexpr int M = 8;
  int64 start = M * this_block();
  if (start >= count) return;
  T values[M];
  read<M>(x, start, count, values);  // on its way while the bits are computed
  uint32 w[M];
  words(start / M, seed, call, w);
#pragma unroll
  for (int i = 0; i < M; i++)
    values[i] = store<T>(load(values[i]) * (int64(w[i]) >= threshold ? V(scale) : V(0)));
  write<M>(y, start, count, values);
}

#endif
