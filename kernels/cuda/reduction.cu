// Reductions of any set of axes: sums, products, extrema and their places, truth, moments, norms.
//
// Compiled once per operation and dtype: -DOPERATION=sum -DDTYPE=float32 gives the kernels
// sum_rows_float32 and so on. An operation is a struct below; how the values reach it is the
// business of four kernels, which all operations share:
//
//   rows      threads lie along the innermost reduced axis. `rows_packed` reads 16 bytes at a
//             time where that axis is contiguous, `rows` one value at any stride.
//   columns   threads lie along the innermost kept axis (`columns_packed`, `columns`).
//   combine   puts together what several blocks found of the same result.
//
// Every order is fixed by shapes and layout: the same input gives the same bits on every GPU.
#include "common.cuh"

#ifndef OPERATION
#define OPERATION sum
#endif
#define KERNEL(stem) GRADLAB_JOIN(OPERATION, NAME(stem))

template <bool condition, class A, class B> struct Choose { using type = A; };
template <class A, class B> struct Choose<false, A, B> { using type = B; };
template <class A, class B> struct Same { static constexpr bool value = false; };
template <class A> struct Same<A, A> { static constexpr bool value = true; };

constexpr bool HALF = Same<T, float16>::value || Same<T, bfloat16>::value;
constexpr bool FLOATING = HALF || Same<T, float32>::value || Same<T, float64>::value;
using Real = Choose<Same<T, float64>::value, double, float>::type;
// Integers are added and multiplied modulo 2^64, whatever their sign: that is what NumPy gives, and
// what overflow of a signed integer is not in C++.
using Total = Choose<FLOATING, Real, uint64>::type;
using TotalResult = Choose<FLOATING, T, Choose<Same<T, uint64>::value, uint64, int64>::type>::type;
using Ordered = Choose<HALF, float, T>::type;  // a type that compares as T should

template <class S> INLINE Ordered ordered(S x) { return x; }
INLINE Ordered ordered(float16 x) { return Ordered(widen(x)); }
INLINE Ordered ordered(bfloat16 x) { return Ordered(widen(x)); }
template <class S> INLINE bool nonzero(S x) { return x != S(0); }
INLINE bool nonzero(float16 x) { return (x.bits & 0x7fff) != 0; }  // NaN is not 0
INLINE bool nonzero(bfloat16 x) { return (x.bits & 0x7fff) != 0; }

template <class S> struct Extreme {
  static constexpr S lowest() { return S(-1) < S(0) ? S(S(1) << (8 * sizeof(S) - 1)) : S(0); }
  static constexpr S highest() { return S(~lowest()); }
};
template <> struct Extreme<bool> {
  static constexpr bool lowest() { return false; }
  static constexpr bool highest() { return true; }
};
template <> struct Extreme<float> {
  static INLINE float lowest() { return __uint_as_float(0xff800000u); }
  static INLINE float highest() { return __uint_as_float(0x7f800000u); }
};
template <> struct Extreme<double> {
  static INLINE double lowest() { return __longlong_as_double(int64(0xfff0000000000000ull)); }
  static INLINE double highest() { return __longlong_as_double(0x7ff0000000000000ll); }
};

// ------------------------------------------------------------------------------- operations
//
// A part is what is known of some of the values. lift(x) is the part of one value, identity() of
// none; combine(a, b) joins two, of which a comes first; finish(part) is the result.

struct Options {
  double count;  // of the values behind a result; for var and std, less the correction
  double order;  // of a norm
};

struct Operation {
  Options options;
  static constexpr bool CHUNKS = false;  // true where it makes the part of a chunk by itself
};

// Where in the reduced values those of a chunk stand: value k of a chunk made of runs of RUN
// neighbours is number first + (k / RUN) * step + (k % RUN) * weight.
struct Places {
  int64 first, step, weight;
};

// The part of N values, a power of two. They are joined as a tree, log2 N combinations deep
// instead of N: the arithmetic units stay busy, and there is less rounding.
template <int RUN, class Op, int N>
INLINE auto chunk_part(const Op& op, const T (&x)[N], const Places& at) {
  if constexpr (Op::CHUNKS) {
    return op.template chunk<RUN>(x, at);
  } else {
    typename Op::Part parts[N];
#pragma unroll
    for (int i = 0; i < N; i++) parts[i] = op.lift(x[i]);
#pragma unroll
    for (int width = N / 2; width > 0; width /= 2) {
#pragma unroll
      for (int i = 0; i < width; i++) parts[i] = op.combine(parts[i], parts[i + width]);
    }
    return parts[0];
  }
}

INLINE float square_root(float x) { return sqrtf(x); }
INLINE double square_root(double x) { return sqrt(x); }
INLINE float power(float x, float p) { return powf(x, p); }
INLINE double power(double x, double p) { return pow(x, p); }

namespace operation {

struct sum : Operation {
  using Part = Total;
  using Result = TotalResult;
  INLINE Part identity() const { return Part(0); }
  INLINE Part lift(T x) const { return Part(load(x)); }
  INLINE Part combine(Part a, Part b) const { return a + b; }
  INLINE Result finish(Part a) const { return store<Result>(a); }
};

struct mean : sum {
  INLINE Result finish(Part a) const { return store<Result>(a / Part(options.count)); }
};

struct prod : sum {
  INLINE Part identity() const { return Part(1); }
  INLINE Part combine(Part a, Part b) const { return a * b; }
};

struct max : Operation {
  using Part = Ordered;
  using Result = T;
  INLINE Part identity() const { return Extreme<Part>::lowest(); }
  INLINE Part lift(T x) const { return ordered(x); }
  INLINE Part combine(Part a, Part b) const { return a > b || a != a ? a : b; }  // NaN wins
  INLINE Result finish(Part a) const { return store<Result>(a); }
};

struct min : max {
  INLINE Part identity() const { return Extreme<Part>::highest(); }
  INLINE Part combine(Part a, Part b) const { return a < b || a != a ? a : b; }
};

struct any : Operation {
  using Part = int;
  using Result = bool;
  INLINE Part identity() const { return 0; }
  INLINE Part lift(T x) const { return nonzero(x); }
  INLINE Part combine(Part a, Part b) const { return a | b; }
  INLINE Result finish(Part a) const { return a != 0; }
};

struct all : any {
  INLINE Part identity() const { return 1; }
  INLINE Part combine(Part a, Part b) const { return a & b; }
};

struct count_nonzero : Operation {
  using Part = int64;
  using Result = int64;
  INLINE Part identity() const { return 0; }
  INLINE Part lift(T x) const { return nonzero(x); }
  INLINE Part combine(Part a, Part b) const { return a + b; }
  INLINE Result finish(Part a) const { return a; }
};

// Where the first of the best values stands. No order of combination matters: of equal values that
// of the lower place wins.
template <class Self> struct PlaceOfBest : Operation {
  struct Part {
    Ordered value;
    int64 place;
  };
  using Result = int64;
  static constexpr bool CHUNKS = true;
  static INLINE bool beats(Ordered a, Ordered b) {  // a NaN beats all numbers, but not a NaN
    return Self::better(a, b) || (a != a && b == b);
  }
  INLINE Part identity() const { return {Self::worst(), Extreme<int64>::highest()}; }
  INLINE Part combine(Part a, Part b) const {
    bool second = beats(b.value, a.value) || (!beats(a.value, b.value) && b.place < a.place);
    return second ? b : a;
  }
  // Places grow within a chunk, so the first of its best values is the one that none before beats.
  template <int RUN, int N> INLINE Part chunk(const T (&x)[N], const Places& at) const {
    Ordered best = ordered(x[0]);
    int found = 0;
#pragma unroll
    for (int k = 1; k < N; k++) {
      Ordered value = ordered(x[k]);
      bool wins = beats(value, best);
      best = wins ? value : best;
      found = wins ? k : found;
    }
    return {best, at.first + found / RUN * at.step + found % RUN * at.weight};
  }
  INLINE Result finish(Part a) const { return a.place; }
};

struct argmax : PlaceOfBest<argmax> {
  static INLINE Ordered worst() { return Extreme<Ordered>::lowest(); }
  static INLINE bool better(Ordered a, Ordered b) { return a > b; }
};

struct argmin : PlaceOfBest<argmin> {
  static INLINE Ordered worst() { return Extreme<Ordered>::highest(); }
  static INLINE bool better(Ordered a, Ordered b) { return a < b; }
};

// The variance, reading memory once: of each chunk, in registers, first the mean and then the
// squares of the deviations from it; chunks are joined by the pairwise update of Chan, Golub and
// LeVeque (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979). A
// count as a Real is exact up to 2^24, and beyond that as good a weight as is needed.
struct var : Operation {
  struct Part {
    Real count, mean, squares;
  };
  using Result = T;
  static constexpr bool CHUNKS = true;
  INLINE Part identity() const { return {Real(0), Real(0), Real(0)}; }
  INLINE Part combine(Part a, Part b) const {
    Real count = a.count + b.count;
    Real weight = count > Real(0) ? b.count / count : Real(0);
    Real apart = b.mean - a.mean;
    return {count, a.mean + apart * weight,
            a.squares + b.squares + apart * apart * (a.count * weight)};
  }
  template <int RUN, int N> INLINE Part chunk(const T (&x)[N], const Places&) const {
    Real values[N], total = Real(0), squares = Real(0);
#pragma unroll
    for (int i = 0; i < N; i++) total += values[i] = Real(load(x[i]));
    Real mean = total * Real(1.0 / N);
#pragma unroll
    for (int i = 0; i < N; i++) squares += (values[i] - mean) * (values[i] - mean);
    return {Real(N), mean, squares};
  }
  INLINE Real variance(Part a) const { return a.squares / Real(options.count); }
  INLINE Result finish(Part a) const { return store<Result>(variance(a)); }
};

struct std : var {
  INLINE Result finish(Part a) const { return store<Result>(square_root(variance(a))); }
};

INLINE Real magnitude(T x) {
  Real value = Real(load(x));
  return value < Real(0) ? -value : value;
}

struct norm1 : Operation {  // the sum of |x|
  using Part = Real;
  using Result = T;
  INLINE Part identity() const { return Part(0); }
  INLINE Part lift(T x) const { return magnitude(x); }
  INLINE Part combine(Part a, Part b) const { return a + b; }
  INLINE Result finish(Part a) const { return store<Result>(a); }
};

struct norm2 : norm1 {
  INLINE Part lift(T x) const { return Part(load(x)) * Part(load(x)); }
  INLINE Result finish(Part a) const { return store<Result>(square_root(a)); }
};

// (Σ |x|^p)^(1/p), a part being scale^p · sum with the largest finite |x| as the scale: high powers
// stay within range, and the values are read once, where finding the largest first takes two.
struct norm : Operation {
  struct Part {
    Real scale, sum;
  };
  using Result = T;
  INLINE Part identity() const { return {Real(0), Real(0)}; }
  static constexpr bool CHUNKS = true;
  INLINE Real raised(Real x) const { return power(x, Real(options.order)); }
  template <int RUN, int N> INLINE Part chunk(const T (&x)[N], const Places&) const {
    Real scale = Real(0), total = Real(0);
#pragma unroll
    for (int i = 0; i < N; i++) {
      Real size = magnitude(x[i]);
      if (size > scale && size < Extreme<Real>::highest()) scale = size;
    }
    Real divisor = scale > Real(0) ? scale : Real(1);
#pragma unroll
    for (int i = 0; i < N; i++) total += raised(magnitude(x[i]) / divisor);
    return {scale, total};
  }
  INLINE Real at_scale(Part a, Real scale) const {
    // Sums of nothing, and of zeros or infinities alone, are the same at every scale.
    bool same = a.scale == scale || a.scale == Real(0) || a.sum == Extreme<Real>::highest();
    return same ? a.sum : a.sum * raised(a.scale / scale);
  }
  INLINE Part combine(Part a, Part b) const {
    Real scale = a.scale > b.scale ? a.scale : b.scale;
    return {scale, at_scale(a, scale) + at_scale(b, scale)};
  }
  INLINE Result finish(Part a) const {
    Real scale = a.scale > Real(0) ? a.scale : Real(1);
    return store<Result>(scale * power(a.sum, Real(1.0 / options.order)));
  }
};

}  // namespace operation

using Op = operation::OPERATION;
using Part = Op::Part;
using Result = Op::Result;

// -------------------------------------------------------------------------- shape and layout

constexpr int AXES = 8;

// Axes from the outermost to the innermost. `others` holds, of a kept axis, the stride in the
// result; of a reduced axis, the weight of its index in the place of a value. All in elements.
struct Axes {
  int64 count, total;
  int64 sizes[AXES], strides[AXES], others[AXES];
};

struct Geometry {
  Axes kept, outer;                // outer: the reduced axes but the innermost
  int64 length, stride, weight;    // the innermost reduced axis
  int64 columns, column_stride, column_other;  // the innermost kept axis, for `columns`
  int64 start;                     // of the first value, from the array's address
  int64 threads, lanes;            // threads of one result, and how many lie side by side
  int64 outer_part, inner_part;    // what one block reduces of the outer and innermost axes
  int64 outer_parts, inner_parts;  // how many blocks share a result
  int64 partial;                   // 1: `combine` will finish
  Options options;
};

// 64-bit division costs three times as much as 32-bit, and nearly all indices fit.
INLINE int64 quotient(int64 a, int64 b) {
  if (((a | b) >> 32) == 0) return int64(uint32(a) / uint32(b));
  return a / b;
}

struct Place {
  int64 at, other;
};

INLINE Place locate(const Axes& axes, int64 i) {
  Place place{0, 0};
  for (int axis = int(axes.count) - 1; axis > 0; axis--) {
    int64 next = quotient(i, axes.sizes[axis]), index = i - next * axes.sizes[axis];
    place.at += index * axes.strides[axis];
    place.other += index * axes.others[axis];
    i = next;
  }
  return {place.at + i * axes.strides[0], place.other + i * axes.others[0]};
}

template <class V> INLINE V shuffle_down(V x, int step, int width) {
  static_assert(sizeof(V) % 4 == 0 || sizeof(V) < 4, "a part is made of words, or is one number");
  if constexpr (sizeof(V) < 4) {
    return V(__shfl_down_sync(FULL_MASK, int(x), step, width));
  } else {
    union Words {
      V value;
      uint32 words[sizeof(V) / 4];
      INLINE Words() {}
    } all;
    all.value = x;
#pragma unroll
    for (int i = 0; i < int(sizeof(V) / 4); i++)
      all.words[i] = __shfl_down_sync(FULL_MASK, all.words[i], step, width);
    return all.value;
  }
}

// The first of each `threads` threads (a power of two: lanes of a warp, or the whole block) gets
// the part of them all.
INLINE Part combine_threads(const Op& op, Part part, int threads) {
  int width = threads < WARP ? threads : WARP;
  for (int step = width / 2; step > 0; step /= 2)
    part = op.combine(part, shuffle_down(part, step, width));
  if (threads <= WARP) return part;
  SHARED(Part, scratch, [WARP]);
  int lane = threadIdx.x % WARP, warps = threads / WARP;
  if (lane == 0) scratch[threadIdx.x / WARP] = part;
  __syncthreads();
  if (threadIdx.x >= WARP) return part;
  part = lane < warps ? scratch[lane] : op.identity();
  for (int step = WARP / 2; step > 0; step /= 2)
    part = op.combine(part, shuffle_down(part, step, WARP));
  return part;
}

// ------------------------------------------------------------------------------------- rows
//
// A block has 256 threads, which read `UNROLL` packs of 16 bytes each before they use the first:
// 64 bytes per thread are under way, and 64 KB on a multiprocessor where half of its 2048 threads
// fit. H200 needs about 40 KB: 4.8 TB/s times 0.9 µs of latency, over 132 multiprocessors.

constexpr int UNROLL = 4;
constexpr int PACK = 16 / sizeof(T);

// Takes every lanes-th value of a run of n, starting with number `lane`. Their places are `first`
// and on, `weight` apart.
INLINE Part take_values(const Op& op, Part part, const T* x, int64 n, int64 stride, int64 first,
                        int64 weight, int lane, int lanes) {
  constexpr int COUNT = 2 * UNROLL;
  T values[COUNT];
  int64 i = lane;
  for (; i + (COUNT - 1) * lanes < n; i += COUNT * lanes) {
#pragma unroll
    for (int u = 0; u < COUNT; u++) values[u] = x[(i + u * lanes) * stride];
    part = op.combine(part, chunk_part<1>(op, values, {first + i * weight, lanes * weight, 0}));
  }
#pragma unroll
  for (int u = 0; u < COUNT; u++)
    if (i + u * lanes < n) values[u] = x[(i + u * lanes) * stride];
#pragma unroll
  for (int u = 0; u < COUNT; u++) {
    T one[1] = {values[u]};
    if (i + u * lanes < n)
      part = op.combine(part, chunk_part<1>(op, one, {first + (i + u * lanes) * weight, 0, 0}));
  }
  return part;
}

// The same for neighbours in memory, in packs of 16 bytes; the few values before the first aligned
// pack and behind the last are taken one by one.
INLINE Part take_packs(const Op& op, Part part, const T* x, int64 n, int64 first, int64 weight,
                       int lane, int lanes) {
  int64 misplaced = int64(reinterpret_cast<uint64>(x) / sizeof(T) % PACK);
  int64 head = misplaced ? PACK - misplaced : 0;
  if (head > n) head = n;
  int64 count = (n - head) / PACK, body = head + count * PACK;
  const T* packed = x + head;
  int64 place = first + head * weight;
  Pack<T, PACK> packs[UNROLL];
  int64 i = lane;
  for (; i + (UNROLL - 1) * lanes < count; i += UNROLL * lanes) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) packs[u] = load_pack<PACK>(packed + (i + u * lanes) * PACK);
#pragma unroll
    for (int u = 0; u < UNROLL; u++)
      part = op.combine(part, chunk_part<PACK>(op, packs[u].values,
                                               {place + (i + u * lanes) * PACK * weight, 0, weight}));
  }
#pragma unroll
  for (int u = 0; u < UNROLL; u++)
    if (i + u * lanes < count) packs[u] = load_pack<PACK>(packed + (i + u * lanes) * PACK);
#pragma unroll
  for (int u = 0; u < UNROLL; u++)
    if (i + u * lanes < count)
      part = op.combine(part, chunk_part<PACK>(op, packs[u].values,
                                               {place + (i + u * lanes) * PACK * weight, 0, weight}));
  for (int64 k = lane; k < head + n - body; k += lanes) {
    int64 at = k < head ? k : body + k - head;
    T one[1] = {x[at]};
    part = op.combine(part, chunk_part<1>(op, one, {first + at * weight, 0, 0}));
  }
  return part;
}

// `threads` threads make one result, or with several parts a partial one: `lanes` of them side by
// side along the innermost reduced axis, the others on other indices of the axes outside it.
template <bool PACKED>
INLINE void reduce_rows(const T* x, Result* y, Part* parts, const Geometry& g) {
  Op op{};
  op.options = g.options;
  int threads = int(g.threads), lanes = int(g.lanes), groups = threads / lanes;
  int thread = threadIdx.x % threads, lane = thread % lanes, group = thread / lanes;
  int64 blocks = g.outer_parts * g.inner_parts;
  int64 block = quotient(blockIdx.x, blocks), split = blockIdx.x - block * blocks;
  int64 row = block * (blockDim.x / threads) + threadIdx.x / threads;
  bool valid = row < g.kept.total;
  Place kept = valid ? locate(g.kept, row) : Place{0, 0};
  Part part = op.identity();
  if (valid) {
    int64 outer_split = quotient(split, g.inner_parts);
    int64 from = (split - outer_split * g.inner_parts) * g.inner_part;
    int64 n = min(g.length - from, g.inner_part);
    int64 end = min((outer_split + 1) * g.outer_part, g.outer.total);
    for (int64 o = outer_split * g.outer_part + group; o < end; o += groups) {
      Place outer = locate(g.outer, o);
      const T* run = x + (g.start + kept.at + outer.at + from * g.stride);
      int64 first = outer.other + from * g.weight;
      part = PACKED ? take_packs(op, part, run, n, first, g.weight, lane, lanes)
                    : take_values(op, part, run, n, g.stride, first, g.weight, lane, lanes);
    }
  }
  part = combine_threads(op, part, threads);
  if (!valid || thread != 0) return;
  if (g.partial) {
    parts[split * g.kept.total + row] = part;
  } else {
    y[kept.other] = op.finish(part);
  }
}

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(rows_packed)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_rows<true>(x, y, parts, g);
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(rows)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_rows<false>(x, y, parts, g);
}

// ---------------------------------------------------------------------------------- columns
//
// A thread reduces V neighbouring columns, and reads its next ROWS rows of them before it uses the
// first. `lanes` threads side by side cover lanes · V columns, so that a warp reads 512 bytes of a
// row of float32; the block's other threads take other rows.

// Thread t has the parts of its V columns in parts[...][t]; group 0 gets those of all groups.
template <int V> INLINE void combine_groups(const Op& op, Part (&part)[V], int lanes) {
  SHARED(Part, scratch, [V][THREADS]);
  int group = threadIdx.x / lanes;
  for (int step = THREADS / lanes / 2; step > 0; step /= 2) {
    if (group >= step && group < 2 * step) {
#pragma unroll
      for (int v = 0; v < V; v++) scratch[v][threadIdx.x] = part[v];
    }
    __syncthreads();
    if (group < step) {
#pragma unroll
      for (int v = 0; v < V; v++)
        part[v] = op.combine(part[v], scratch[v][threadIdx.x + step * lanes]);
    }
  }
}

INLINE Place locate_row(const Geometry& g, int64 row) {
  if (g.outer.total == 1) return {row * g.stride, row * g.weight};
  int64 o = quotient(row, g.length), i = row - o * g.length;
  Place outer = locate(g.outer, o);
  return {outer.at + i * g.stride, outer.other + i * g.weight};
}

template <int V> INLINE void take_rows(const Op& op, Part (&part)[V], const T* x, int64 from,
                                       int64 end, int groups, const Geometry& g) {
  constexpr int ROWS = V * sizeof(T) == 16 ? 4 : 8;
  Pack<T, V> rows[ROWS];
  for (; from + (ROWS - 1) * groups < end; from += ROWS * groups) {
#pragma unroll
    for (int u = 0; u < ROWS; u++)
      rows[u] = load_pack<V>(x + locate_row(g, from + u * groups).at);
    // Places are those of evenly spaced rows: where they matter, there is one reduced axis.
    Places places{from * g.weight, groups * g.weight, 0};
#pragma unroll
    for (int v = 0; v < V; v++) {
      T column[ROWS];
#pragma unroll
      for (int u = 0; u < ROWS; u++) column[u] = rows[u][v];
      part[v] = op.combine(part[v], chunk_part<1>(op, column, places));
    }
  }
#pragma unroll
  for (int u = 0; u < ROWS; u++)
    if (from + u * groups < end) rows[u] = load_pack<V>(x + locate_row(g, from + u * groups).at);
#pragma unroll
  for (int u = 0; u < ROWS; u++) {
    if (from + u * groups >= end) break;
#pragma unroll
    for (int v = 0; v < V; v++) {
      T one[1] = {rows[u][v]};
      part[v] = op.combine(part[v], chunk_part<1>(op, one, {(from + u * groups) * g.weight, 0, 0}));
    }
  }
}

template <int V> INLINE void reduce_columns(const T* x, Result* y, Part* parts, const Geometry& g) {
  Op op{};
  op.options = g.options;
  int lanes = int(g.lanes), groups = THREADS / lanes;
  int lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
  // Blocks side by side in memory follow each other: columns, then rows, then what lies outside.
  int64 across = quotient(g.columns + lanes * V - 1, lanes * V);
  int64 above = quotient(blockIdx.x, across), column = (blockIdx.x - above * across) * lanes + lane;
  int64 outside = quotient(above, g.outer_parts), split = above - outside * g.outer_parts;
  column *= V;
  bool valid = column < g.columns;
  Place kept = locate(g.kept, outside);
  Part part[V];
#pragma unroll
  for (int v = 0; v < V; v++) part[v] = op.identity();
  if (valid) {
    int64 end = min((split + 1) * g.outer_part, g.outer.total * g.length);
    const T* top = x + (g.start + kept.at + column * g.column_stride);
    take_rows<V>(op, part, top, split * g.outer_part + group, end, groups, g);
  }
  combine_groups<V>(op, part, lanes);
  if (!valid || group != 0) return;
#pragma unroll
  for (int v = 0; v < V; v++) {
    if (g.partial) {
      parts[(split * g.kept.total + outside) * g.columns + column + v] = part[v];
    } else {
      y[kept.other + (column + v) * g.column_other] = op.finish(part[v]);
    }
  }
}

// Four values of a narrow dtype make 4 or 8 bytes, not 16: more columns would take more registers
// than hide the latency, and eight rows ahead keep as many bytes under way.
constexpr int COLUMN_PACK = sizeof(T) == 8 ? 2 : 4;

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(columns_packed)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_columns<COLUMN_PACK>(x, y, parts, g);
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(columns)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_columns<1>(x, y, parts, g);
}

// ----------------------------------------------------------------------------------- second stage

// parts[i][k] is part i of result k, for i below `length`; `kept` are all axes of the result.
extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(combine)(const Part* parts, Result* y, const __grid_constant__ Geometry g) {
  Op op{};
  op.options = g.options;
  int lanes = int(g.lanes), groups = THREADS / lanes, group = threadIdx.x / lanes;
  int64 k = int64(blockIdx.x) * lanes + threadIdx.x % lanes;
  bool valid = k < g.kept.total;
  Part part[1] = {op.identity()};
  if (valid) {
#pragma unroll 4
    for (int64 i = group; i < g.length; i += groups)
      part[0] = op.combine(part[0], parts[i * g.kept.total + k]);
  }
  combine_groups<1>(op, part, lanes);
  if (valid && group == 0) y[locate(g.kept, k).other] = op.finish(part[0]);
}
