// softmax and log_softmax along one axis of a contiguous array, forward and backward.
//
// The array is (outer, n, inner), the axis being the middle one; it is read in its own layout.
// Compiled once per dtype and operation (-DOPERATION=softmax_backward). Three kinds of kernels:
//
//   rows      inner = 1 and a row fits the registers of 4 lanes, a warp or a block. One read, one
//             write: 2 * n * sizeof(T) bytes per row forward, 3 backward, which is the floor.
//   stream    inner = 1 and longer rows: largest value and sum of exponentials in one online pass
//             [1], the result in a second one. One block per row; or, where rows are few, many
//             (`stream_parts`, then `stream_apply`).
//   columns   inner > 1: threads lie along inner, so that a warp reads neighbours.
//
// What a row leaves behind it is a Part; parts are combined in an order that shapes alone decide.
//
// [1] Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867
#include "common.cuh"

#ifndef OPERATION
#define OPERATION softmax
#endif

using V = wide<T>;  // float, or double
constexpr int PACK = 16 / sizeof(T);
constexpr int THREADS = 256;

// Per thread: values of a row in registers, and accesses under way before the first is used. More
// of float64 would spill.
constexpr int VALUES = sizeof(T) == 8 ? 8 : 16;
constexpr int AHEAD = sizeof(T) == 8 ? 2 : 4;
constexpr int VALUES_1024 = sizeof(T) == 8 ? 4 : 16;  // 64 registers are all there are

INLINE float infinity(float) { return __uint_as_float(0x7f800000u); }
INLINE double infinity(double) { return __longlong_as_double(0x7ff0000000000000ll); }

// exp(x), for a result that is rounded to 11 bits or fewer by a multiplication and one instruction
// instead of eight: bfloat16 at the full bandwidth of an H200 leaves some 24 for a value.
INLINE float exp_of(float x) {
  return sizeof(T) == 2 ? power_of_two(x * 1.4426950408889634f) : expf(x);
}
INLINE double exp_of(double x) { return exp(x); }

INLINE float product(float a, float b) { return __fmul_rn(a, b); }
INLINE double product(double a, double b) { return __dmul_rn(a, b); }

// --------------------------------------------------------------------------------- operations
//
// An operation has a Part, what is known of some places of a row; add() takes in N more of them,
// combine() joins two parts, and value() is the result at one place once the part is complete.
// Inputs: x forward, y and gy backward.

struct MaxSum {
  V max, sum;  // sum of exp(x - max)
};

struct Forward {
  using Part = MaxSum;
  static constexpr int INPUTS = 1;
  static INLINE Part identity() { return {-infinity(V()), V(0)}; }
  // exp(-inf - -inf) would be NaN: a part that has seen nothing but -inf has a sum of 0.
  static INLINE V shift(V max) { return max == -infinity(V()) ? V(0) : max; }
  template <int N> static INLINE void add(Part& part, const V (&x)[N], const V (&)[N]) {
    V top = part.max;
#pragma unroll
    for (int i = 0; i < N; i++) top = larger(top, x[i]);
    V by = shift(top);
    V sum = part.sum * exp_of(part.max - by);
#pragma unroll
    for (int i = 0; i < N; i++) sum += exp_of(x[i] - by);
    part = {top, sum};
  }
  // Both products are rounded before they are added: with one of them fused into the addition, two
  // lanes that combine the same parts would differ in the last digit, and so would the results of
  // equal values.
  static INLINE Part combine(Part a, Part b) {
    V top = larger(a.max, b.max), by = shift(top);
    return {top, product(a.sum, exp_of(a.max - by)) + product(b.sum, exp_of(b.max - by))};
  }
  static INLINE Part from_lane(Part part, int step) {
    return {__shfl_xor_sync(FULL_MASK, part.max, step), __shfl_xor_sync(FULL_MASK, part.sum, step)};
  }
};

namespace operation {

struct softmax : Forward {
  static INLINE Part finish(Part part) { return {part.max, V(1) / part.sum}; }
  static INLINE V value(Part part, V x, V) { return exp_of(x - part.max) * part.sum; }
};

struct log_softmax : Forward {
  static INLINE Part finish(Part part) { return {part.max, logarithm(part.sum)}; }
  // In two steps, as the array code: max and log(sum) may differ by many orders of magnitude.
  static INLINE V value(Part part, V x, V) { return (x - part.max) - part.sum; }
};

struct Backward {
  using Part = V;
  static constexpr int INPUTS = 2;
  static INLINE Part identity() { return V(0); }
  static INLINE Part combine(Part a, Part b) { return a + b; }
  static INLINE Part from_lane(Part part, int step) { return __shfl_xor_sync(FULL_MASK, part, step); }
  static INLINE Part finish(Part part) { return part; }
};

struct softmax_backward : Backward {  // gx = y * (gy - sum(gy * y))
  template <int N> static INLINE void add(Part& part, const V (&y)[N], const V (&gy)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) part += gy[i] * y[i];
  }
  static INLINE V value(Part part, V y, V gy) { return y * (gy - part); }
};

struct log_softmax_backward : Backward {  // gx = gy - exp(y) * sum(gy)
  template <int N> static INLINE void add(Part& part, const V (&)[N], const V (&gy)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) part += gy[i];
  }
  static INLINE V value(Part part, V y, V gy) { return gy - exp_of(y) * part; }
};

}  // namespace operation

// ------------------------------------------------------------------------------- combination

template <class Op> INLINE typename Op::Part combine_lanes(typename Op::Part part, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) part = Op::combine(part, Op::from_lane(part, step));
  return part;
}

// For every thread of a block the part of all; `scratch` holds 32.
template <class Op>
INLINE typename Op::Part combine_block(typename Op::Part part, typename Op::Part* scratch) {
  int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  part = combine_lanes<Op>(part, WARP);
  if (lane == 0) scratch[threadIdx.x / WARP] = part;
  __syncthreads();
  part = lane < warps ? scratch[lane] : Op::identity();
  return combine_lanes<Op>(part, WARP);
}

// Reads N values at `at`, or what leaves a part as it is where there is none.
template <int N> INLINE void read(V (&values)[N], const T* at, bool there, V otherwise) {
  if (there) {
    Pack<T, N> pack = load_pack<N>(at);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = load(pack[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = otherwise;
  }
}

template <int N> INLINE void write(T* at, const V (&values)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack[i] = store<T>(values[i]);
  store_pack(at, pack);
}

template <class Op> INLINE V absent() { return Op::INPUTS == 1 ? -infinity(V()) : V(0); }

// --------------------------------------------------------------------------------------- rows
//
// LANES threads share a row, and each keeps COUNT packs of N values in registers: all loads are
// under way before the first is used. With 16 bytes each and 2,048 threads a multiprocessor has
// 32 to 128 KB in flight. Rows of 4 lanes or a warp leave a block together, 256 threads in all.

template <class Op, int LANES, int COUNT, int N>
INLINE void rows(const T* x, const T* gy, T* y, int64 count, int64 n) {
  using Part = typename Op::Part;
  int lane = threadIdx.x % LANES;
  int64 row = int64(blockIdx.x) * (blockDim.x / LANES) + threadIdx.x / LANES;
  bool live = row < count;  // the others go along: a warp operation needs all its lanes
  int64 start = (live ? row : 0) * n;
  V a[COUNT][N], b[Op::INPUTS == 2 ? COUNT : 1][N];
#pragma unroll
  for (int k = 0; k < COUNT; k++) {
    int64 i = int64(k * LANES + lane) * N;
    read(a[k], x + start + i, i < n, absent<Op>());
    if (Op::INPUTS == 2) read(b[k], gy + start + i, i < n, V(0));
  }
  Part part;
  if constexpr (Op::INPUTS == 1) {
    // The largest value first: then each exponential is taken once. Of all lanes of a warp it costs
    // no more shuffles than to combine their parts, and ten exponentials less; of a block it would
    // cost two barriers.
    V top = -infinity(V());
#pragma unroll
    for (int k = 0; k < COUNT; k++)
#pragma unroll
      for (int i = 0; i < N; i++) top = larger(top, a[k][i]);
    if constexpr (LANES <= WARP) top = reduce_warp(top, Larger(), LANES);
    V sum = 0, by = Op::shift(top);
#pragma unroll
    for (int k = 0; k < COUNT; k++)
#pragma unroll
      for (int i = 0; i < N; i++) sum += exp_of(a[k][i] - by);
    part = {top, sum};
  } else {
    part = Op::identity();
#pragma unroll
    for (int k = 0; k < COUNT; k++) Op::add(part, a[k], b[k]);
  }
  if constexpr (LANES > WARP) {
    SHARED(Part, scratch, [32]);
    part = combine_block<Op>(part, scratch);
  } else if constexpr (Op::INPUTS == 1) {
    part.sum = reduce_warp(part.sum, Add(), LANES);
  } else {
    part = combine_lanes<Op>(part, LANES);
  }
  part = Op::finish(part);
  if (!live) return;
#pragma unroll
  for (int k = 0; k < COUNT; k++) {
    int64 i = int64(k * LANES + lane) * N;
    if (i >= n) continue;
    V result[N];
#pragma unroll
    for (int j = 0; j < N; j++)
      result[j] = Op::value(part, a[k][j], b[Op::INPUTS == 2 ? k : 0][j]);
    write(y + start + i, result);
  }
}

// ------------------------------------------------------------------------------------- stream

// The part of places [from, to) of a row, of which every thread of the block takes some.
template <class Op, int N>
INLINE typename Op::Part stream_part(const T* x, const T* gy, int64 from, int64 to) {
  constexpr bool TWO = Op::INPUTS == 2;
  typename Op::Part part = Op::identity();
  for (int64 i = from + int64(threadIdx.x) * N; i < to; i += int64(blockDim.x) * N * AHEAD) {
    V a[AHEAD][N], b[AHEAD][N];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + int64(k) * blockDim.x * N;
      read(a[k], x + at, at < to, absent<Op>());
      if (TWO) read(b[k], gy + at, at < to, V(0));
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) Op::add(part, a[k], TWO ? b[k] : a[k]);
  }
  return part;
}

template <class Op, int N>
INLINE void stream_values(
    typename Op::Part part, const T* x, const T* gy, T* y, int64 from, int64 to) {
  constexpr bool TWO = Op::INPUTS == 2;
  // Reads stand before the writes, past which the compiler may not move them.
  for (int64 i = from + int64(threadIdx.x) * N; i < to; i += int64(blockDim.x) * N * AHEAD) {
    V a[AHEAD][N], b[AHEAD][N];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + int64(k) * blockDim.x * N;
      read(a[k], x + at, at < to, V(0));
      if (TWO) read(b[k], gy + at, at < to, V(0));
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + int64(k) * blockDim.x * N;
      if (at >= to) continue;
      V result[N];
#pragma unroll
      for (int j = 0; j < N; j++) result[j] = Op::value(part, a[k][j], TWO ? b[k][j] : a[k][j]);
      write(y + at, result);
    }
  }
}

template <class Op, int N> INLINE void stream(const T* x, const T* gy, T* y, int64 n) {
  SHARED(typename Op::Part, scratch, [32]);
  int64 start = int64(blockIdx.x) * n;
  auto part = stream_part<Op, N>(x + start, gy + start, 0, n);
  part = Op::finish(combine_block<Op>(part, scratch));
  stream_values<Op, N>(part, x + start, gy + start, y + start, 0, n);
}

// The grid is (parts, rows); each part has `length` places, the last one perhaps fewer.
template <class Op, int N>
INLINE void stream_parts(
    const T* x, const T* gy, typename Op::Part* parts, int64 n, int64 length) {
  SHARED(typename Op::Part, scratch, [32]);
  int64 start = int64(blockIdx.y) * n, from = int64(blockIdx.x) * length;
  auto part = stream_part<Op, N>(x + start, gy + start, from, min(from + length, n));
  part = combine_block<Op>(part, scratch);
  if (threadIdx.x == 0) parts[int64(blockIdx.y) * gridDim.x + blockIdx.x] = part;
}

template <class Op, int N>
INLINE void stream_apply(
    const T* x, const T* gy, T* y, const typename Op::Part* parts, int64 n, int64 length) {
  SHARED(typename Op::Part, scratch, [32]);
  int64 start = int64(blockIdx.y) * n, from = int64(blockIdx.x) * length;
  auto part = Op::identity();
  for (int k = threadIdx.x; k < gridDim.x; k += blockDim.x)
    part = Op::combine(part, parts[int64(blockIdx.y) * gridDim.x + k]);
  part = Op::finish(combine_block<Op>(part, scratch));
  stream_values<Op, N>(part, x + start, gy + start, y + start, from, min(from + length, n));
}

// ------------------------------------------------------------------------------------ columns
//
// A block is (columns, threads per column). Its threads walk down the axis with AHEAD loads under
// way each: 256 threads with 4 of float32, 8 blocks to a multiprocessor, have 32 KB in flight.

template <class Op>
INLINE void columns(const T* x, const T* gy, T* y, int64 outer, int64 n, int64 inner) {
  using Part = typename Op::Part;
  constexpr bool TWO = Op::INPUTS == 2;
  SHARED(Part, scratch, [THREADS]);
  int64 across = (inner + blockDim.x - 1) / blockDim.x;
  int64 column = int64(blockIdx.x) % across * blockDim.x + threadIdx.x;
  int64 start = int64(blockIdx.x) / across * n * inner + column;
  bool live = column < inner;
  int64 step = blockDim.y;
  Part part = Op::identity();
  for (int64 i = threadIdx.y; i < n; i += step * AHEAD) {
    V a[AHEAD], b[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + k * step;
      bool there = live && at < n;
      a[k] = there ? load(x[start + at * inner]) : absent<Op>();
      if (TWO) b[k] = there ? load(gy[start + at * inner]) : V(0);
    }
    Op::add(part, a, TWO ? b : a);
  }
  scratch[threadIdx.y * blockDim.x + threadIdx.x] = part;
  __syncthreads();
  part = scratch[threadIdx.x];
  for (int k = 1; k < blockDim.y; k++)
    part = Op::combine(part, scratch[k * blockDim.x + threadIdx.x]);
  part = Op::finish(part);
  if (!live) return;
  for (int64 i = threadIdx.y; i < n; i += step * AHEAD) {
    V a[AHEAD], b[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + k * step;
      a[k] = at < n ? load(x[start + at * inner]) : V(0);
      if (TWO) b[k] = at < n ? load(gy[start + at * inner]) : V(0);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int64 at = i + k * step;
      if (at < n) y[start + at * inner] = store<T>(Op::value(part, a[k], TWO ? b[k] : a[k]));
    }
  }
}

// ------------------------------------------------------------------------------------ kernels

#define KERNEL(stem) GRADLAB_JOIN(OPERATION, NAME(stem))
using Op = operation::OPERATION;

#define ROWS(stem, LANES, COUNT, N)                                                 \
  extern "C" __global__ void __launch_bounds__(LANES > THREADS ? LANES : THREADS, 1) \
      KERNEL(rows_##stem)(const T* x, const T* gy, T* y, int64 count, int64 n) {    \
    rows<Op, LANES, COUNT, N>(x, gy, y, count, n);                                  \
  }

// 4 values of each lane, or 16 bytes.
constexpr int FEW = PACK > 4 ? 1 : 4 / PACK;

ROWS(4, 4, 4, 1)
ROWS(32_few, 32, 4, 1)
ROWS(32_few_packed, 32, FEW, PACK)
ROWS(32, 32, VALUES, 1)
ROWS(32_packed, 32, VALUES / PACK, PACK)
ROWS(256, 256, VALUES, 1)
ROWS(256_packed, 256, VALUES / PACK, PACK)
ROWS(1024_packed, 1024, VALUES_1024 / PACK, PACK)

#define STREAM(stem, N)                                                             \
  extern "C" __global__ void __launch_bounds__(512, 1)                               \
      KERNEL(stream##stem)(const T* x, const T* gy, T* y, int64 n) {                \
    stream<Op, N>(x, gy, y, n);                                                     \
  }                                                                                 \
  extern "C" __global__ void __launch_bounds__(512, 1) KERNEL(stream_parts##stem)(     \
      const T* x, const T* gy, Op::Part* parts, int64 n, int64 length) {            \
    stream_parts<Op, N>(x, gy, parts, n, length);                                   \
  }                                                                                 \
  extern "C" __global__ void __launch_bounds__(512, 1) KERNEL(stream_apply##stem)(     \
      const T* x, const T* gy, T* y, const Op::Part* parts, int64 n, int64 length) { \
    stream_apply<Op, N>(x, gy, y, parts, n, length);                                \
  }

STREAM(, 1)
STREAM(_packed, PACK)

extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(columns)(const T* x, const T* gy, T* y, int64 outer, int64 n, int64 inner) {
  columns<Op>(x, gy, y, outer, n, inner);
}
