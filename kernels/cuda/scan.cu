// Running sums and products along one axis.
//
// Compiled once per operation and dtype: -DOPERATION=cumsum -DDTYPE=float32. A series is what one
// running sum goes through. Its values are added up in float64 for float32, as the error of a
// running sum grows with its length; in float32 for halves, and modulo 2^64 for integers.
//
//   rows      a warp or a block takes a series, in tiles; what went before is carried from tile to
//             tile. `rows_packed` reads 16 bytes at a time where series lie in memory in one piece.
//   columns   a thread takes a series, and neighbouring threads take neighbouring series.
//
// Long series that are few are cut into parts: a first launch finds the total of each part,
// `prefixes` what stands before it, and a third scans all parts at once. This reads the input twice.
// Passing sums from block to block while they run would read it once, but adds
// them in an order that depends on which block comes first.
#include "layout.cuh"

#ifndef OPERATION
#define OPERATION cumsum
#endif
#define KERNEL(stem) GRADLAB_JOIN(OPERATION, NAME(stem))

using Sum = Choose<FLOATING, Choose<HALF, float, double>::type, uint64>::type;

namespace operation {
struct cumsum {
  static INLINE Sum identity() { return Sum(0); }
  static INLINE Sum join(Sum a, Sum b) { return a + b; }
};
struct cumprod {
  static INLINE Sum identity() { return Sum(1); }
  static INLINE Sum join(Sum a, Sum b) { return a * b; }
};
}  // namespace operation
using Op = operation::OPERATION;

struct Geometry {
  Axes kept;                // `others`: strides of the result
  int64 length, stride, other;  // of the axis, in the input and in the result
  int64 start, result_start;
  int64 reversed;           // packed series are read from their end
  int64 threads;            // of a series: 32 or the whole block
  int64 part, parts;        // values of a part; parts of a series
  int64 totals;             // 1: find the total of each part, and nothing else
};

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;

INLINE Sum widened(Sum x) { return x; }
template <class S> INLINE Sum lift(S x) { return Sum(load(x)); }
INLINE Sum lift(Sum x) { return x; }

template <class R> INLINE R narrowed(Sum x) {
  if constexpr (HALF || sizeof(R) == 8) return store<R>(x);
  else return store<R>(float(x));
}

// A thread holds AHEAD packs of V neighbouring values; those of a warp lie side by side, so that
// warp w of a block has the values from w · AHEAD · 32 · V of a tile.
template <int V, int AHEAD> struct Tile {
  Sum values[AHEAD][V];
  Sum before[AHEAD];  // of the warp's values, those before each pack
  Sum total;          // of the warp's values

  INLINE void scan() {
    int lane = threadIdx.x % WARP;
    total = Op::identity();
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
#pragma unroll
      for (int v = 1; v < V; v++) values[u][v] = Op::join(values[u][v - 1], values[u][v]);
      Sum running = values[u][V - 1];
#pragma unroll
      for (int step = 1; step < WARP; step *= 2) {
        Sum other = __shfl_up_sync(FULL_MASK, running, step);
        if (lane >= step) running = Op::join(other, running);
      }
      Sum previous = __shfl_up_sync(FULL_MASK, running, 1);
      before[u] = lane ? Op::join(total, previous) : total;
      total = Op::join(total, __shfl_sync(FULL_MASK, running, WARP - 1));
    }
  }
};

// With PREFIX each result leaves its own value out.
template <class S, class R, int V, int AHEAD, bool PREFIX>
INLINE void scan_rows(const S* x, R* y, Sum* totals, const Geometry& g) {
  SHARED(Sum, warp_totals, [2][WARPS]);
  int threads = int(g.threads), lane = threadIdx.x % WARP, warp = threadIdx.x % threads / WARP;
  int64 block = quotient(blockIdx.x, g.parts), part = blockIdx.x - block * g.parts;
  int64 series = block * (THREADS / threads) + threadIdx.x / threads;
  bool valid = series < g.kept.total;
  Place kept = locate(g.kept, valid ? series : 0);
  x += g.start + kept.at;
  y += g.result_start + kept.other;
  Sum carry = Op::identity();
  if (!g.totals && g.parts > 1 && valid) carry = totals[series * g.parts + part];
  int64 end = valid ? min((part + 1) * g.part, g.length) : 0;
  int64 tile = int64(threads) * AHEAD * V;
  // Threads of a block take the same number of turns: there is a barrier in each.
  for (int64 from = part * g.part, turn = 0; from < min((part + 1) * g.part, g.length);
       from += tile, turn ^= 1) {
    Tile<V, AHEAD> t;
    int64 first = from + (warp * AHEAD * WARP + lane) * V;
    Pack<S, V> packs[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      int64 i = first + u * WARP * V;
      const S* at = V == 1 ? x + i * g.stride : g.reversed ? x + (g.length - V - i) : x + i;
      if (i < end) packs[u] = load_pack<V>(at);
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      bool inside = first + u * WARP * V < end;
#pragma unroll
      for (int v = 0; v < V; v++)
        t.values[u][v] =
            inside ? lift(g.reversed ? packs[u][V - 1 - v] : packs[u][v]) : Op::identity();
    }
    t.scan();
    Sum base = carry;
    if (threads > WARP) {
      if (lane == 0) warp_totals[turn][warp] = t.total;
      __syncthreads();
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        if (w == warp) base = carry;
        carry = Op::join(carry, warp_totals[turn][w]);
      }
    } else {
      carry = Op::join(carry, t.total);
    }
    if (g.totals) continue;
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      int64 i = first + u * WARP * V;
      if (i >= end) break;
      Sum before = Op::join(base, t.before[u]);
      Sum sums[V];
#pragma unroll
      for (int v = 0; v < V; v++)
        sums[v] = !PREFIX ? Op::join(before, t.values[u][v])
                  : v     ? Op::join(before, t.values[u][v - 1])
                          : before;
      Pack<R, V> pack;
#pragma unroll
      for (int v = 0; v < V; v++) pack[v] = narrowed<R>(g.reversed ? sums[V - 1 - v] : sums[v]);
      store_pack(V == 1 ? y + i * g.other : g.reversed ? y + (g.length - V - i) : y + i, pack);
    }
  }
  if (g.totals && valid && threadIdx.x % threads == 0) totals[series * g.parts + part] = carry;
}

// Neighbouring values that a thread reads in one access, of which it has four ahead. 16 float64, or
// 32 float32, are 32 registers: more would leave a multiprocessor fewer than two blocks.
constexpr int PACK = sizeof(T) == 8 ? 2 : HALF ? 8 : 4;

extern "C" __global__ void __launch_bounds__(THREADS, 2)
KERNEL(rows_packed)(const T* x, TotalResult* y, Sum* totals, const __grid_constant__ Geometry g) {
  scan_rows<T, TotalResult, PACK, 4, false>(x, y, totals, g);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
KERNEL(rows)(const T* x, TotalResult* y, Sum* totals, const __grid_constant__ Geometry g) {
  scan_rows<T, TotalResult, 1, 4, false>(x, y, totals, g);
}

// What stands before each part, in place of the totals of the parts.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
KERNEL(prefixes)(Sum* totals, const __grid_constant__ Geometry g) {
  scan_rows<Sum, Sum, 1, 4, true>(totals, totals, totals, g);
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL(columns)(const T* x, TotalResult* y, Sum* totals, const __grid_constant__ Geometry g) {
  constexpr int AHEAD = 8;
  int64 thread = int64(blockIdx.x) * THREADS + threadIdx.x;
  int64 part = quotient(thread, g.kept.total), series = thread - part * g.kept.total;
  if (part >= g.parts) return;
  Place kept = locate(g.kept, series);
  x += g.start + kept.at;
  y += g.result_start + kept.other;
  Sum running = !g.totals && g.parts > 1 ? totals[series * g.parts + part] : Op::identity();
  int64 end = min((part + 1) * g.part, g.length);
  for (int64 from = part * g.part; from < end; from += AHEAD) {
    T values[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
      if (from + u < end) values[u] = x[(from + u) * g.stride];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      if (from + u >= end) break;
      running = Op::join(running, lift(values[u]));
      if (!g.totals) y[(from + u) * g.other] = narrowed<TotalResult>(running);
    }
  }
  if (g.totals) totals[series * g.parts + part] = running;
}
