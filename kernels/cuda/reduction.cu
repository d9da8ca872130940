// Reductions of any set of axes: sums, products, extrema and their places, truth, moments, norms.
//
// Compiled once per operation and dtype: -DOPERATION=sum -DDTYPE=float32 gives the kernels
// sum_rows_float32 and so on. An operation is a struct below; how the values reach it is the
// business of four kernels, which all operations share:
//
//   rows            threads lie along the innermost reduced axis, which is one run of memory
//   columns_packed  threads lie along the innermost kept axis, which is one
//   columns         the same for every other layout: any strides, any alignment
//   combine         puts together what several blocks found of the same result.
//
// Every order is fixed by shapes and layout: the same input gives the same bits on every GPU.
#include "layout.cuh"

#ifndef OPERATION
#define OPERATION sum
#endif
#define KERNEL(stem) GRADLAB_JOIN(OPERATION, NAME(stem))

using Ordered = Choose<HALF, float, T>::type;  // a type that compares as T should

template <class S> INLINE Ordered ordered(S x) { return x; }
INLINE Ordered ordered(float16 x) { return Ordered(widen(x)); }
INLINE Ordered ordered(bfloat16 x) { return Ordered(widen(x)); }
template <class S> INLINE bool nonzero(S x) { return x != S(0); }
INLINE bool nonzero(float16 x) { return widen(x) != 0.0f; }  // NaN is not 0
INLINE bool nonzero(bfloat16 x) { return widen(x) != 0.0f; }

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
  double count;  // what a mean or a variance divides by
  double order;  // of a norm; 0.5 for the root of a variance
};

struct Operation {
  Options options;
  static constexpr bool CHUNKS = false;  // true where it makes the part of a chunk by itself
  static constexpr bool SLOW = false;    // true where arithmetic, not memory, takes the time
  static constexpr bool PIVOTS = false;  // true where all values are taken less a result's first
};

// The part of N neighbouring values, a power of two; in the reduced values the first is number
// `place`, and the others follow it `weight` apart. They are joined as a tree, log2 N combinations
// deep instead of N: the arithmetic units stay busy, and there is less rounding.
template <class Op, int N>
INLINE auto chunk_part(const Op& op, const T (&x)[N], int64 place, int64 weight) {
  if constexpr (Op::CHUNKS) {
    return op.chunk(x, place, weight);
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

namespace operation {

struct sum : Operation {  // a mean too, where `count` is not 1
  using Part = Total;
  using Result = TotalResult;
  INLINE Part identity() const { return Part(0); }
  INLINE Part lift(T x) const { return Part(load(x)); }
  INLINE Part combine(Part a, Part b) const { return a + b; }
  INLINE Result finish(Part a) const {
    if constexpr (FLOATING) a /= Part(options.count);
    return store<Result>(a);
  }
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
  using Value = Choose<(sizeof(Ordered) < 4), int32, Ordered>::type;
  struct Part {
    Value values[8 / sizeof(Value)];  // the same one twice, where padding would be
    int64 place;
  };
  using Result = int64;
  static constexpr bool CHUNKS = true;
  static INLINE Part part_of(Value value, int64 place) {
    Part part;
    for (Value& each : part.values) each = value;
    part.place = place;
    return part;
  }
  template <class V> static INLINE bool beats(V a, V b) {  // a NaN beats all numbers, but not a NaN
    return Self::better(a, b) || (a != a && b == b);
  }
  INLINE Part identity() const { return part_of(Self::worst(), Extreme<int64>::highest()); }
  INLINE Part combine(Part a, Part b) const {
    bool worse = beats(a.values[0], b.values[0]);
    bool second = beats(b.values[0], a.values[0]) || (!worse && b.place < a.place);
    return second ? b : a;
  }
  // Places grow within a chunk, so the first of its best values is the one that none before beats.
  template <int N> INLINE Part chunk(const T (&x)[N], int64 place, int64 weight) const {
    Ordered best = ordered(x[0]);
    int found = 0;
#pragma unroll
    for (int k = 1; k < N; k++) {
      Ordered value = ordered(x[k]);
      bool wins = beats(value, best);
      best = wins ? value : best;
      found = wins ? k : found;
    }
    return part_of(best, place + found * weight);
  }
  INLINE Result finish(Part a) const { return a.place; }
};

struct argmax : PlaceOfBest<argmax> {
  static INLINE Ordered worst() { return Extreme<Ordered>::lowest(); }
  template <class V> static INLINE bool better(V a, V b) { return a > b; }
};

struct argmin : PlaceOfBest<argmin> {
  static INLINE Ordered worst() { return Extreme<Ordered>::highest(); }
  template <class V> static INLINE bool better(V a, V b) { return a < b; }
};

// The variance, reading memory once: of each chunk, in registers, first the mean and then the
// squares of the deviations from it; chunks are joined by the pairwise update of Chan, Golub and
// LeVeque (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979). A
// count as a Real is exact up to 2^24, and beyond that as good a weight as is needed. Values far
// from zero have means that are rounded by as much as they differ: so the first value of each result
// is taken from all of them, which changes nothing else.
struct var : Operation {  // the standard deviation too, as `order` 0.5
  struct Part {
    Real count, mean, squares;
  };
  using Result = T;
  static constexpr bool CHUNKS = true;
  static constexpr bool PIVOTS = true;
  Real pivot;
  INLINE Part identity() const { return {Real(0), Real(0), Real(0)}; }
  INLINE Part combine(Part a, Part b) const {
    Real count = a.count + b.count;
    Real weight = count > Real(0) ? b.count / count : Real(0);
    Real apart = b.mean - a.mean;
    return {count, a.mean + apart * weight,
            a.squares + b.squares + apart * apart * (a.count * weight)};
  }
  template <int N> INLINE Part chunk(const T (&x)[N], int64, int64) const {
    Real values[N], total = Real(0), squares = Real(0);
#pragma unroll
    for (int i = 0; i < N; i++) total += values[i] = Real(load(x[i])) - pivot;
    Real mean = total * Real(1.0 / N);
#pragma unroll
    for (int i = 0; i < N; i++) squares += (values[i] - mean) * (values[i] - mean);
    return {Real(N), mean, squares};
  }
  INLINE Result finish(Part a) const {
    Real variance = a.squares / Real(options.count);
    return store<Result>(options.order == 0.5 ? square_root(variance) : variance);
  }
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

struct norm_max : norm1 {
  INLINE Part combine(Part a, Part b) const { return a > b || a != a ? a : b; }
};

struct norm_min : norm_max {
  INLINE Part identity() const { return Extreme<Part>::highest(); }
  INLINE Part combine(Part a, Part b) const { return a < b || a != a ? a : b; }
};

// (Σ |x|^p)^(1/p), a part being scale^p · sum. The scale is the largest finite |x|, or for p < 0 the
// smallest but 0, so that no power overflows. The values are read once: to find the largest first
// would take two.
struct norm : Operation {
  struct Part {
    Real scale, sum;
  };
  using Result = T;
  static constexpr bool SLOW = true;  // a power for each value
  INLINE Part identity() const { return {Real(0), Real(0)}; }
  INLINE Part lift(T x) const {
    Real size = magnitude(x), infinity = Extreme<Real>::highest();
    if (size == Real(0) || size == infinity)
      return {Real(0), (size == Real(0)) == (options.order > 0) ? Real(0) : infinity};
    return {size != size ? Real(0) : size, size != size ? size : Real(1)};
  }
  INLINE Part combine(Part a, Part b) const {
    // A scale of 0 says that there is no number but 0, infinity and NaN: they are so at any scale.
    bool second = a.scale == Real(0) || (options.order > 0 ? a.scale < b.scale : a.scale > b.scale);
    second = second && b.scale > Real(0);
    Part ruling = second ? b : a, other = second ? a : b;
    if (other.scale > Real(0) && other.sum < Extreme<Real>::highest())
      other.sum *= power(other.scale / ruling.scale, Real(options.order));
    return {ruling.scale, ruling.sum + other.sum};
  }
  INLINE Result finish(Part a) const {
    Real scale = a.scale > Real(0) ? a.scale : Real(1);
    return store<Result>(scale * power(a.sum, Real(1.0 / options.order)));
  }
};

// log Σ exp(x), a part being exp(shift(top)) · sum: one reading, in which the sum is rescaled as the
// largest value grows (Milakov and Gimelshein, arXiv:1805.02867).
struct logsumexp : Operation {
  struct Part {
    Real top, sum;
  };
  using Result = T;
  static constexpr bool CHUNKS = true;
  // Infinities are not taken out: exp of them is 0 or infinity, as it should be.
  static INLINE Real shift(Real top) {
    return top > Extreme<Real>::lowest() && top < Extreme<Real>::highest() ? top : Real(0);
  }
  INLINE Part identity() const { return {Extreme<Real>::lowest(), Real(0)}; }
  INLINE Part combine(Part a, Part b) const {
    Real top = larger(a.top, b.top), by = shift(top);
    return {top, rescaled(a, by) + rescaled(b, by)};
  }
  static INLINE Real rescaled(Part a, Real by) {  // -inf has added nothing, whatever is taken out
    return a.top == Extreme<Real>::lowest() ? a.sum : a.sum * exponential(shift(a.top) - by);
  }
  template <int N> INLINE Part chunk(const T (&x)[N], int64, int64) const {
    Real values[N], top = Extreme<Real>::lowest(), total = Real(0);
#pragma unroll
    for (int i = 0; i < N; i++) top = larger(top, values[i] = Real(load(x[i])));
    Real by = shift(top);
#pragma unroll
    for (int i = 0; i < N; i++) total += exponential(values[i] - by);
    return {top, total};
  }
  INLINE Result finish(Part a) const { return store<Result>(logarithm(a.sum) + shift(a.top)); }
};

}  // namespace operation

using Op = operation::OPERATION;
using Part = Op::Part;
using Result = Op::Result;

// The operation for the values of one result, of which `first` is the first.
template <class Op> INLINE Op with_pivot(Op op, const T* first) {
  if constexpr (Op::PIVOTS) op.pivot = Real(load(*first));
  return op;
}

// -------------------------------------------------------------------------- shape and layout

struct Geometry {
  Axes kept, outer;                // outer: the reduced axes but the innermost
  int64 length, stride, weight;    // the innermost reduced axis
  int64 columns, column_stride, column_other, column_blocks;  // the innermost kept, for `columns`
  int64 start;                     // of the first value, from the array's address
  int64 threads, lanes;            // threads of one result, and how many lie side by side
  int64 outer_part, inner_part;    // what one block reduces of the outer and innermost axes
  int64 outer_parts, inner_parts;  // how many blocks share a result
  int64 partial;                   // 1: `combine` will finish
  int64 period;                    // columns, after which those of the same results come again
  Options options;
};

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
// A thread reads `UNROLL` packs of 16 bytes before it uses the first. With 64 registers four blocks
// of 256 threads fit on a multiprocessor, and 64 KB are under way; H200 needs about 40 KB: 4.8 TB/s
// times 1.1 µs of latency, over 132 multiprocessors.

constexpr int THREADS = 256;
// Blocks that a multiprocessor is to hold at once: as many as the registers allow without spills.
constexpr int RESIDENT = (sizeof(T) < 4 && !HALF) || sizeof(Part) > 12 ? 2 : 3;
constexpr int UNROLL = Op::SLOW ? 1 : 4;
constexpr int PACK = 16 / sizeof(T);
constexpr int CHUNK = PACK < 8 ? PACK : 8;  // of int8, two to a pack: 16 int64 take 32 registers

// Takes every lanes-th pack of a run of n values, starting with number `lane`; the few values before
// the first aligned pack and behind the last one by one. The places of the run are `place` and on,
// `weight` apart.
INLINE Part take_packs(const Op& op, Part part, const T* x, int n, int64 place, int64 weight,
                       int lane, int lanes) {
  int misplaced = int(reinterpret_cast<uint64>(x) / sizeof(T) % PACK);
  int head = misplaced ? PACK - misplaced : 0;
  if (head > n) head = n;
  int count = (n - head) / PACK, body = count * PACK;
  const T* packed = x + head;
  for (int i = lane; i < count; i += UNROLL * lanes) {
    Pack<T, PACK> packs[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++)
      if (i + u * lanes < count) packs[u] = load_pack<PACK>(packed + (i + u * lanes) * PACK);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      if (i + u * lanes >= count) break;
#pragma unroll
      for (int c = 0; c < PACK; c += CHUNK) {
        T chunk[CHUNK];
#pragma unroll
        for (int k = 0; k < CHUNK; k++) chunk[k] = packs[u][c + k];
        int64 first = place + (head + (i + u * lanes) * PACK + c) * weight;
        part = op.combine(part, chunk_part(op, chunk, first, weight));
      }
    }
  }
  for (int k = lane; k < n - body; k += lanes) {
    int i = k < head ? k : k + body;
    T one[1] = {x[i]};
    part = op.combine(part, chunk_part(op, one, place + i * weight, 0));
  }
  return part;
}

// The run of the innermost reduced axis that a block takes, of each index of the axes outside it.
struct Share {
  int64 from, outer, outer_end;
  int n;
};

INLINE Share share_of(const Geometry& g, int64 split) {
  int64 outer = quotient(split, g.inner_parts), from = (split - outer * g.inner_parts) * g.inner_part;
  return {from, outer * g.outer_part, min((outer + 1) * g.outer_part, g.outer.total),
          int(min(g.length - from, g.inner_part))};
}

// `threads` threads make one result, or with several parts a partial one: `lanes` of them side by
// side along the innermost reduced axis, the others on other indices of the axes outside it.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
KERNEL(rows)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  Op op{};
  op.options = g.options;
  int threads = int(g.threads), lanes = int(g.lanes), thread = threadIdx.x & (threads - 1);
  int64 splits = g.outer_parts * g.inner_parts;
  int64 block = quotient(blockIdx.x, splits), split = blockIdx.x - block * splits;
  int64 row = block * (THREADS / threads) + threadIdx.x / threads;
  bool valid = row < g.kept.total;
  Place kept = locate(g.kept, valid ? row : 0);
  Part part = op.identity();
  if (valid) {
    Share share = share_of(g, split);
    const T* top = x + (g.start + kept.at + share.from * g.stride);
    op = with_pivot(op, x + (g.start + kept.at));
    for (int64 o = share.outer + thread / lanes; o < share.outer_end; o += threads / lanes) {
      Place outer = locate(g.outer, o);
      int64 place = outer.other + share.from * g.weight;
      if constexpr (!Op::SLOW)  // which needs no packs, and would be large
        part = take_packs(op, part, top + outer.at, share.n, place, g.weight, thread & (lanes - 1),
                          lanes);
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

// ---------------------------------------------------------------------------------- columns
//
// A thread reduces V neighbouring columns, and reads its next ROWS rows of them before it uses the
// first. `lanes` threads side by side cover lanes · V columns, so that a warp reads 512 bytes of a
// row of float32; the block's other threads take other rows.

// Four values of a narrow dtype make 4 or 8 bytes, not 16: more columns would take more registers
// than hide the latency, and eight rows ahead keep as many bytes under way.
constexpr int COLUMN_PACK = Op::SLOW ? 1 : sizeof(T) == 8 ? 2 : 4;
constexpr int ROWS = Op::SLOW ? 1 : sizeof(T) < 4 ? 8 : 4;

// The first group of `lanes` threads gets the parts of all groups.
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

template <int V> INLINE void take_rows(const Op (&ops)[V], Part (&part)[V], const T* x, int n,
                                       int64 stride, int64 place, int64 weight, int group,
                                       int groups) {
  for (int i = group; i < n; i += ROWS * groups) {
    Pack<T, V> rows[ROWS];
#pragma unroll
    for (int u = 0; u < ROWS; u++)
      if (i + u * groups < n) rows[u] = load_pack<V>(x + (i + u * groups) * stride);
#pragma unroll
    for (int u = 0; u < ROWS; u++) {
      if (i + u * groups >= n) break;
#pragma unroll
      for (int v = 0; v < V; v++) {
        T one[1] = {rows[u][v]};
        part[v] =
            ops[v].combine(part[v], chunk_part(ops[v], one, place + (i + u * groups) * weight, 0));
      }
    }
  }
}

template <int V> INLINE void reduce_columns(const T* x, Result* y, Part* parts, const Geometry& g) {
  Op op{};
  op.options = g.options;
  int lanes = int(g.lanes), lane = threadIdx.x & (lanes - 1), group = threadIdx.x / lanes;
  // Blocks side by side in memory follow each other: columns, then rows, then what lies outside.
  int64 above = quotient(blockIdx.x, g.column_blocks);
  int64 column = ((blockIdx.x - above * g.column_blocks) * lanes + lane) * V;
  int64 splits = g.outer_parts * g.inner_parts;
  int64 outside = quotient(above, splits), split = above - outside * splits;
  bool valid = column < g.columns;
  Place kept = locate(g.kept, outside);
  Part part[V];
#pragma unroll
  for (int v = 0; v < V; v++) part[v] = op.identity();
  if (valid) {
    Share share = share_of(g, split);
    const T* top = x + (g.start + kept.at + column * g.column_stride + share.from * g.stride);
    Op ops[V];
#pragma unroll
    for (int v = 0; v < V; v++) {
      int64 result = Op::PIVOTS ? (column + v) % g.period : 0;
      ops[v] = with_pivot(op, x + (g.start + kept.at + result * g.column_stride));
    }
    for (int64 o = share.outer; o < share.outer_end; o++) {
      Place outer = locate(g.outer, o);
      take_rows<V>(ops, part, top + outer.at, share.n, g.stride,
                   outer.other + share.from * g.weight, g.weight, group, THREADS / lanes);
    }
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

// The pivots of V columns are V registers more, which three blocks do not have.
extern "C" __global__ void __launch_bounds__(THREADS, Op::PIVOTS ? 2 : RESIDENT)
KERNEL(columns_packed)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_columns<COLUMN_PACK>(x, y, parts, g);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
KERNEL(columns)(const T* x, Result* y, Part* parts, const __grid_constant__ Geometry g) {
  reduce_columns<1>(x, y, parts, g);
}

// ----------------------------------------------------------------------------------- second stage

// parts[i][k] is part i of result k, for i below `length`; `kept` are all axes of the result.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
KERNEL(combine)(const Part* parts, Result* y, const __grid_constant__ Geometry g) {
  Op op{};
  op.options = g.options;
  int lanes = int(g.lanes), groups = THREADS / lanes, group = threadIdx.x / lanes;
  int64 k = int64(blockIdx.x) * lanes + (threadIdx.x & (lanes - 1));
  bool valid = k < g.kept.total;
  Part part[1] = {op.identity()};
  if (valid) {
    for (int64 i = group; i < g.length; i += groups)
      part[0] = op.combine(part[0], parts[i * g.kept.total + k]);
  }
  combine_groups<1>(op, part, lanes);
  if (valid && group == 0) y[locate(g.kept, k).other] = op.finish(part[0]);
}
