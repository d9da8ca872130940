// Matrix products on the ordinary arithmetic units:
//
//     C = activation(A·B + bias) + residual,     A (…, m, k), B (…, k, n)
//
// Compiled with TILE=128, 64 or 32 this is the tiled kernel: a block computes TILE x TILE values of
// C, over one part of k. With COLUMNS=1 or 16 it is the kernels for products with so short a side.
// With neither it is what stands beside: the sum over the parts of k, the gradient of an activation.
// matmul.py says which of them computes a product and why; operands are read through their strides,
// so that no layout is copied.
#include "common.cuh"
#include "ptx.cuh"

// What products of T are computed and added up in. Integers wrap around as NumPy's do: modulo 2^32
// keeps every bit that a shorter type stores, and unsigned kernels serve signed values too.
template <class S> struct Arithmetic { using type = S; };
template <> struct Arithmetic<float16> { using type = float; };
template <> struct Arithmetic<bfloat16> { using type = float; };
template <> struct Arithmetic<uint8> { using type = uint32; };
template <> struct Arithmetic<uint16> { using type = uint32; };
using Sum = Arithmetic<T>::type;

template <class S> INLINE Sum value(S x) { return Sum(x); }
INLINE float value(float16 x) { return widen(x); }
INLINE float value(bfloat16 x) { return widen(x); }

constexpr int AXES = 8;

// Strides are in elements. `matmul.py` has the same fields in the same order.
struct Product {
  int64 m, n, k;
  int64 a_m, a_k, b_k, b_n, c_m, c_n;
  int64 bias_m, bias_n, residual_m, residual_n;
  int64 splits, split_k;     // k is cut into `splits` parts of split_k, a multiple of 16
  int64 tiles_m, tiles_n;    // of one matrix
  int64 activation, has_bias, has_residual;
  int64 vector_a, vector_b;  // the skinny kernels may read 16 bytes at once
  int64 warps_k;             // the skinny kernels: how many warps of a block share its k
  int64 batches, axes;       // of the batch, with the strides of its axes:
  int64 shape[AXES], a_batch[AXES], b_batch[AXES], residual_batch[AXES];
};

// ------------------------------------------------------------------------------------ the epilogue

enum Activation { NONE, RELU, SIGMOID, TANH, GELU };

template <class V> INLINE V activate(V x, int64) { return x; }
INLINE float activate(float x, int64 activation) {
  switch (activation) {
    case RELU: return x < 0.0f ? 0.0f : x;  // not fmaxf, which would lose a NaN
    case SIGMOID: return 1.0f / (1.0f + expf(-x));
    case TANH: return tanhf(x);
    case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    default: return x;
  }
}
INLINE double activate(double x, int64 activation) {
  switch (activation) {
    case RELU: return x < 0.0 ? 0.0 : x;
    case SIGMOID: return 1.0 / (1.0 + exp(-x));
    case TANH: return tanh(x);
    case GELU: return 0.5 * x * (1.0 + erf(x * 0.70710678118654752));
    default: return x;
  }
}

// Where the matrices of one batch element begin.
struct Offsets {
  int64 a, b, residual;
};
INLINE Offsets offsets_of(const Product& p, int64 batch) {
  Offsets at{0, 0, 0};
  for (int64 axis = p.axes - 1; axis >= 0; axis--) {
    int64 i = batch % p.shape[axis];
    batch /= p.shape[axis];
    at.a += i * p.a_batch[axis];
    at.b += i * p.b_batch[axis];
    at.residual += i * p.residual_batch[axis];
  }
  return at;
}

INLINE T finished(Sum sum, const T* bias, const T* residual, const Product& p, int64 row, int64 column) {
  if (p.has_bias) sum += value(bias[row * p.bias_m + column * p.bias_n]);
  sum = activate(sum, p.activation);
  if (p.has_residual) sum += value(residual[row * p.residual_m + column * p.residual_n]);
  return store<T>(sum);
}

#ifdef TILE
// ------------------------------------------------------------------------------- the tiled kernel
//
// A thread keeps MICRO_M x MICRO_N sums in registers. For each k it reads MICRO_M values of A and
// MICRO_N of B from shared memory, 16 bytes at a time, and does MICRO_M * MICRO_N multiply-adds:
// with 8 x 8, 64 FFMA for 4 LDS.128. The lanes of a warp stand in an 8 x 4 (4 x 8) grid numbered
// so that lanes i and i^1 read the same A and i and i^2 the same B: the hardware then serves a
// 16-byte load of a warp in 2 cycles instead of 4, 8 warps take 64 of the 128 cycles that their
// FFMAs take on 128 lanes, and shared memory is not the limit.

// Copies go from global to shared memory beside the arithmetic where the hardware can and where
// shared memory holds the values as they are; elsewhere they pass through registers, which are
// short, so that the tile is half as deep.
#ifndef ASYNC
#if defined(GRADLAB_EMULATOR) || __CUDA_ARCH__ >= 800
#define ASYNC 1
#else
#define ASYNC 0
#endif
#endif
constexpr bool IS_ASYNC = ASYNC && sizeof(T) == sizeof(Sum);
constexpr int DEPTH = IS_ASYNC ? 16 : 8;  // how many k a tile holds

// BLOCKS on one multiprocessor at once leave a thread 65536 / (BLOCKS * THREADS) registers, in
// which everything has to fit.
#if TILE == 128    // 64 multiply-adds per value read from L2
constexpr int THREADS = 256, BLOCKS = 2, LANES_M = 8, WARPS_M = 2, MICRO_M = 8, MICRO_N = 8;
#elif TILE == 64   // a quarter of the work per block
constexpr int THREADS = 128, BLOCKS = sizeof(Sum) == 8 ? 3 : IS_ASYNC ? 5 : 4;
constexpr int LANES_M = 4, WARPS_M = 2, MICRO_M = 8, MICRO_N = 4;
#else              // small matrices: as many blocks as possible
constexpr int THREADS = 64, BLOCKS = 12, LANES_M = 4, WARPS_M = 2, MICRO_M = 4, MICRO_N = 4;
#endif
constexpr int V = 16 / sizeof(Sum);       // values in 16 bytes
// A row is one access longer than it need be: 8 k times 4 rows of a transposing copy then fall
// into 32 banks.
constexpr int ROW = TILE + V;
constexpr int LANES_N = WARP / LANES_M, WARPS_N = THREADS / WARP / WARPS_M;
constexpr int WARP_TILE_M = LANES_M * MICRO_M, WARP_TILE_N = LANES_N * MICRO_N;
static_assert(WARPS_M * WARP_TILE_M == TILE && WARPS_N * WARP_TILE_N == TILE, "warps cover the tile");

using Rows = Sum[ROW];
struct Tile {  // both operands with k outermost: a thread's values of one k are neighbours
  Sum a[DEPTH][ROW], b[DEPTH][ROW];
};

// How the tile of an operand is copied. Its two axes are k and the edge, which is m or n.
constexpr int DIRECT = 0;      // the edge has stride 1 and rows are aligned: 16 bytes at a time
constexpr int TRANSPOSED = 1;  // k has stride 1: value by value, each to its row
constexpr int GENERAL = 2;     // any strides and alignment: value by value
#ifndef A_MODE
#define A_MODE GENERAL
#define B_MODE GENERAL
#endif

// A thread copies one value (or 16 bytes) of every PASS_K-th k and every PASS_EDGE-th row.
constexpr int PASS_K = 8;

template <int MODE> struct Operand {
  static constexpr int WIDTH = MODE == DIRECT ? V : 1;
  static constexpr int PASS_EDGE = THREADS / PASS_K * WIDTH;
  static constexpr int COPIES_K = DEPTH / PASS_K, COPIES_EDGE = TILE / PASS_EDGE;
  static_assert(TILE % PASS_EDGE == 0, "whole passes");
  using Held = Pack<T, WIDTH>;

  const T* at;  // this thread's first value of the next tile
  int64 edge_stride, k_stride;
  int64 edge_left;  // rows from this thread's first to the end of the matrix
  int64 k_left;     // k from this thread's first of the next tile to the end
  int edge, k;      // this thread's first value in the tile
  Held held[IS_ASYNC ? 1 : COPIES_K * COPIES_EDGE];

  INLINE Operand(const T* from, int64 edge_step, int64 k_step, int64 edge0, int64 edges, int64 k0,
                 int64 k_end) {
    edge_stride = MODE == DIRECT ? 1 : edge_step;
    k_stride = MODE == TRANSPOSED ? 1 : k_step;
    // Neighbouring threads read neighbouring values: along k where that is the unit stride.
    bool along_k = MODE == TRANSPOSED || (MODE == GENERAL && k_step == 1);
    int thread = threadIdx.x;
    k = along_k ? thread % PASS_K : thread / (THREADS / PASS_K);
    edge = (along_k ? thread / PASS_K : thread % (THREADS / PASS_K)) * WIDTH;
    at = from + (edge0 + edge) * edge_stride + (k0 + k) * k_stride;
    edge_left = edges - edge0 - edge;
    k_left = k_end - k0 - k;
  }

  INLINE const T* source(int i, int j) const {
    return at + i * PASS_K * k_stride + j * PASS_EDGE * edge_stride;
  }
  // How many values of copy (i, j) lie inside the matrix.
  INLINE int inside(int i, int j) const {
    if (i * PASS_K >= k_left) return 0;
    int64 left = edge_left - j * PASS_EDGE;
    return left <= 0 ? 0 : left >= WIDTH ? WIDTH : int(left);
  }
  INLINE void advance() {
    at += DEPTH * k_stride;
    k_left -= DEPTH;
  }

  // Copy the next tile to shared memory, beside what this thread does next; what lies outside the
  // matrix becomes 0.
  template <bool CHECKED> INLINE void copy(Rows* to) {
#pragma unroll
    for (int i = 0; i < COPIES_K; i++)
#pragma unroll
      for (int j = 0; j < COPIES_EDGE; j++)
        cp_async<WIDTH * int(sizeof(Sum))>(&to[k + i * PASS_K][edge + j * PASS_EDGE], source(i, j),
                                           (CHECKED ? inside(i, j) : WIDTH) * int(sizeof(Sum)));
    advance();
  }

  // The same in two halves, through registers.
  template <bool CHECKED> INLINE void fetch() {
#pragma unroll
    for (int i = 0; i < COPIES_K; i++)
#pragma unroll
      for (int j = 0; j < COPIES_EDGE; j++) {
        Held& into = held[i * COPIES_EDGE + j];
        int count = CHECKED ? inside(i, j) : WIDTH;
        if (count == WIDTH) {
          into = load_pack<WIDTH>(source(i, j));
          continue;
        }
        into = Held{};
#pragma unroll
        for (int v = 0; v < WIDTH; v++)
          if (v < count) into[v] = source(i, j)[v];
      }
    advance();
  }
  INLINE void deposit(Rows* to) const {
#pragma unroll
    for (int i = 0; i < COPIES_K; i++)
#pragma unroll
      for (int j = 0; j < COPIES_EDGE; j++) {
        Pack<Sum, WIDTH> values;
#pragma unroll
        for (int v = 0; v < WIDTH; v++) values[v] = value(held[i * COPIES_EDGE + j][v]);
        store_pack_shared(&to[k + i * PASS_K][edge + j * PASS_EDGE], values);
      }
  }
};

// Where this warp and lane stand in the tile: their first row and column.
struct Place {
  int m, n, lane_m, lane_n;
};
INLINE Place place() {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  // The bits of the lane's number alternate between column and row.
  int column = (lane & 1) | (lane >> 1 & 2) | (LANES_N == 8 ? lane >> 2 & 4 : 0);
  int row = (lane >> 1 & 1) | (lane >> 2 & 2) | (LANES_M == 8 ? lane >> 2 & 4 : 0);
  return {warp % WARPS_M * WARP_TILE_M, warp / WARPS_M * WARP_TILE_N, row, column};
}

using Sums = Sum[MICRO_M][MICRO_N];

// The values of A and B for one k. A thread's rows come in groups of V, the groups LANES_M * V
// apart, so that the lanes of a warp read neighbouring 16 bytes.
struct Fragment {
  Pack<Sum, V> a[MICRO_M / V], b[MICRO_N / V];

  INLINE void read(const Tile& tile, int k, const Place& at) {
#pragma unroll
    for (int i = 0; i < MICRO_M / V; i++)
      a[i] = load_pack<V>(&tile.a[k][at.m + (i * LANES_M + at.lane_m) * V]);
#pragma unroll
    for (int j = 0; j < MICRO_N / V; j++)
      b[j] = load_pack<V>(&tile.b[k][at.n + (j * LANES_N + at.lane_n) * V]);
  }
};

INLINE void multiply(const Tile& tile, const Place& at, Sums& sums) {
  Fragment fragments[2];  // the next k is read while this one is multiplied
  fragments[0].read(tile, 0, at);
#pragma unroll
  for (int k = 0; k < DEPTH; k++) {
    if (k + 1 < DEPTH) fragments[(k + 1) % 2].read(tile, k + 1, at);
    const Fragment& now = fragments[k % 2];
#pragma unroll
    for (int i = 0; i < MICRO_M; i++)
#pragma unroll
      for (int j = 0; j < MICRO_N; j++) sums[i][j] += now.a[i / V][i % V] * now.b[j / V][j % V];
  }
}

// The sums of one warp go through shared memory, LANES_M rows at a time, so that each row of C is
// written (and the residual read) in whole lines, and so that the code of the epilogue stands here
// once and not once per sum. LINE puts the rows of the lanes that store together into different banks.
constexpr int LINE = WARP_TILE_N + 4 * V;
static_assert(THREADS / WARP * LANES_M * LINE * sizeof(Sum) <= 2 * sizeof(Tile), "fits");

template <class Out, class Finish>
INLINE void write(Sum* lines, const Sums& sums, const Place& at, Out* c, const Product& p, int64 row0,
                  int64 column0, Finish finish) {
  constexpr int PER_LINE = WARP_TILE_N / V;  // accesses
  int lane = threadIdx.x % WARP;
  int64 column = column0 + at.n + lane % PER_LINE * V;
  bool whole = p.n % V == 0 && column + V <= p.n;  // C is ours: its base is aligned
#pragma unroll 1
  for (int step = 0; step < MICRO_M; step++) {
    // Registers have no numbers at run time: the row of this step is picked from all of them.
#pragma unroll
    for (int i = 0; i < MICRO_M; i++) {
      if (i != step) continue;
#pragma unroll
      for (int j = 0; j < MICRO_N / V; j++) {
        Pack<Sum, V> values;
#pragma unroll
        for (int v = 0; v < V; v++) values[v] = sums[i][j * V + v];
        store_pack_shared(&lines[at.lane_m * LINE + (j * LANES_N + at.lane_n) * V], values);
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int line = lane / PER_LINE; line < LANES_M; line += WARP / PER_LINE) {
      int64 row = row0 + at.m + (step / V * LANES_M + line) * V + step % V;
      if (row >= p.m) continue;
      Pack<Sum, V> values = load_pack<V>(&lines[line * LINE + lane % PER_LINE * V]);
      Pack<Out, V> results;
#pragma unroll
      for (int v = 0; v < V; v++)
        if (column + v < p.n) results[v] = finish(values[v], row, column + v);
      Out* to = c + row * p.n + column;
      if (whole) store_pack(to, results);
      else
#pragma unroll
        for (int v = 0; v < V; v++)
          if (column + v < p.n) to[v] = results[v];
    }
    __syncwarp();
  }
}

// Blocks that run together should share what they read through L2: they take GROUP rows of tiles,
// column by column, instead of one long row of tiles, which would read all of B for each.
constexpr int GROUP = 8;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(matmul)(const T* a, const T* b, const T* bias, const T* residual, T* c, Sum* parts,
             const __grid_constant__ Product p) {
  SHARED(Tile, tiles, [2]);

  uint32 tiles_m = uint32(p.tiles_m), tiles_n = uint32(p.tiles_n), each = tiles_m * tiles_n;
  uint32 of_matrix = blockIdx.x / each, index = blockIdx.x % each;
  int64 split = of_matrix % uint32(p.splits), batch = of_matrix / uint32(p.splits);
  uint32 group = index / (GROUP * tiles_n), in_group = index % (GROUP * tiles_n);
  uint32 rows = min(GROUP, int(tiles_m - group * GROUP));
  int64 row0 = int64(group * GROUP + in_group % rows) * TILE;
  int64 column0 = int64(in_group / rows) * TILE;

  Offsets offsets = offsets_of(p, batch);
  int64 k0 = split * p.split_k, k_end = min(p.k, k0 + p.split_k);
  Operand<A_MODE> left(a + offsets.a, p.a_m, p.a_k, row0, p.m, k0, k_end);
  Operand<B_MODE> right(b + offsets.b, p.b_n, p.b_k, column0, p.n, k0, k_end);
  Place at = place();
  Sums sums = {};

  // Only blocks at the edge of C and the last tile of k ask for each copy whether it is inside.
  bool full = row0 + TILE <= p.m && column0 + TILE <= p.n;
  int64 whole_k = full ? (k_end - k0) / DEPTH : 0;
  int64 count = (k_end - k0 + DEPTH - 1) / DEPTH;
  if constexpr (IS_ASYNC) {
    auto copy = [&](int64 t) {
      Tile& tile = tiles[t % 2];
      if (t < whole_k) {
        left.template copy<false>(tile.a);
        right.template copy<false>(tile.b);
      } else {
        left.template copy<true>(tile.a);
        right.template copy<true>(tile.b);
      }
      cp_async_commit();
    };
    copy(0);
#pragma unroll 1
    for (int64 t = 0; t < count; t++) {
      cp_async_wait<0>();
      __syncthreads();  // tile t is there for all, and all are done with the one that t+1 replaces
      if (t + 1 < count) copy(t + 1);
      multiply(tiles[t % 2], at, sums);
    }
  } else {
    auto fetch = [&](int64 t) {
      if (t < whole_k) {
        left.template fetch<false>();
        right.template fetch<false>();
      } else {
        left.template fetch<true>();
        right.template fetch<true>();
      }
    };
    fetch(0);
    left.deposit(tiles[0].a);
    right.deposit(tiles[0].b);
    __syncthreads();
#pragma unroll 1
    for (int64 t = 0; t < count; t++) {
      if (t + 1 < count) fetch(t + 1);
      multiply(tiles[t % 2], at, sums);
      if (t + 1 == count) break;
      left.deposit(tiles[(t + 1) % 2].a);
      right.deposit(tiles[(t + 1) % 2].b);
      __syncthreads();
    }
  }
  __syncthreads();  // the tiles are free

  Sum* lines = reinterpret_cast<Sum*>(tiles) + threadIdx.x / WARP * LANES_M * LINE;
  if (p.splits > 1) {
    Sum* part = parts + (split * p.batches + batch) * p.m * p.n;
    write(lines, sums, at, part, p, row0, column0, [](Sum sum, int64, int64) { return sum; });
  } else {
    const T* added = residual + offsets.residual;
    write(lines, sums, at, c + batch * p.m * p.n, p, row0, column0,
          [&](Sum sum, int64 row, int64 column) { return finished(sum, bias, added, p, row, column); });
  }
}

#elif defined(COLUMNS)
// --------------------------------------------------------------------------------- skinny products
//
// One side of C is short: the time is that of reading the large operand once. "A" is the large
// operand here and n <= COLUMNS the short side; for a short m matmul.py exchanges the roles, which
// is why C and the bias have strides. A block is 8 warps; warps_k of them share the block's part of
// k and add up through shared memory, in order.

constexpr int THREADS = 256, WARPS = THREADS / WARP;

// Blocks are numbered with the rows innermost, then the parts of k, then the batch.
struct Part {
  int64 rows, split, batch, k0, k_end;
};
INLINE Part part_of(const Product& p, int64 blocks) {
  int64 rest = blockIdx.x / blocks, split = rest % p.splits, k0 = split * p.split_k;
  return {int64(blockIdx.x) % blocks, split, rest / p.splits, k0, min(p.k, k0 + p.split_k)};
}

INLINE void write(Sum sum, const T* bias, const T* residual, T* c, Sum* parts, const Product& p,
                  const Part& part, int64 row, int64 column) {
  int64 at = part.batch * p.m * p.n + row * p.c_m + column * p.c_n;
  if (p.splits > 1) parts[part.split * p.batches * p.m * p.n + at] = sum;
  else c[at] = finished(sum, bias, residual, p, row, column);
}

// Sum each of LEFT values over a warp with about LEFT shuffles instead of 5 * LEFT: while there are
// several, a lane sends half of its values to its partner and goes on with the other half. The sum
// of value i ends in the lanes from i * 32 / LEFT on, in values[0], or where LEFT > 32 in
// values[i % (LEFT / 32)] of lane i / (LEFT / 32).
template <int LEFT, int STEP = WARP / 2, int COUNT> INLINE void scatter_sums(Sum (&values)[COUNT]) {
  constexpr int HALF = LEFT / 2;
  if constexpr (HALF == 0) {
    values[0] = reduce_warp(values[0], Add(), 2 * STEP);
  } else {
    bool upper = threadIdx.x & STEP;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
      Sum other = __shfl_xor_sync(FULL_MASK, upper ? values[i] : values[i + HALF], STEP);
      values[i] = (upper ? values[i + HALF] : values[i]) + other;
    }
    if constexpr (STEP > 1) scatter_sums<HALF, STEP / 2>(values);
  }
}

// Values that one access reads, and rows of A per warp: each value of B that is read serves all.
constexpr int VALUES = sizeof(T) == 8 ? 2 : 4;
constexpr int ROWS = sizeof(Sum) == 8 && COLUMNS == 16 ? 2 : 4;
constexpr int COUNT = ROWS * COLUMNS;

// A has its unit stride along k: lanes go along k, VECTOR values each.
template <int VECTOR>
INLINE void sum_along_lanes(const T* a, const T* b, const Product& p, const Part& part, int64 row0,
                            int warp_k, Sum (&sums)[COUNT]) {
  int lane = threadIdx.x % WARP;
  int64 step = p.warps_k * WARP * VECTOR;
#pragma unroll 1
  for (int64 k = part.k0 + (warp_k * WARP + lane) * VECTOR; k < part.k_end; k += step) {
    bool whole = k + VECTOR <= part.k_end;
    Pack<T, VECTOR> rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const T* at = a + (row0 + r) * p.a_m + k * p.a_k;
      rows[r] = Pack<T, VECTOR>{};
      if (row0 + r >= p.m) continue;
      if (whole) rows[r] = load_pack<VECTOR>(at);
      else
#pragma unroll
        for (int v = 0; v < VECTOR; v++)
          if (k + v < part.k_end) rows[r][v] = at[v * p.a_k];
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
      if (j >= p.n) continue;
      const T* at = b + k * p.b_k + j * p.b_n;
      Pack<T, VECTOR> column{};
      if (whole && p.vector_b) column = load_pack<VECTOR>(at);
      else
#pragma unroll
        for (int v = 0; v < VECTOR; v++)
          if (k + v < part.k_end) column[v] = at[v * p.b_k];
#pragma unroll
      for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int v = 0; v < VECTOR; v++)
          sums[r * COLUMNS + j] += value(rows[r][v]) * value(column[v]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
NAME(rows_along_lanes)(const T* a, const T* b, const T* bias, const T* residual, T* c, Sum* parts,
                       const __grid_constant__ Product p) {
  SHARED(Sum, scratch, [WARPS][COUNT]);
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps_k = int(p.warps_k);
  int groups = WARPS / warps_k, warp_k = warp % warps_k;
  Part part = part_of(p, p.tiles_m);
  int64 row0 = (part.rows * groups + warp / warps_k) * ROWS;
  Offsets offsets = offsets_of(p, part.batch);
  a += offsets.a;
  b += offsets.b;

  Sum sums[COUNT] = {};
  if (p.vector_a) sum_along_lanes<VALUES>(a, b, p, part, row0, warp_k, sums);
  else sum_along_lanes<1>(a, b, p, part, row0, warp_k, sums);
  scatter_sums<COUNT>(sums);
  constexpr int LANES = COUNT < WARP ? WARP / COUNT : 1;  // that hold the same sum
  constexpr int KEPT = COUNT > WARP ? COUNT / WARP : 1;   // sums in one lane
  if (lane % LANES == 0)
#pragma unroll
    for (int i = 0; i < KEPT; i++) scratch[warp][lane / LANES * KEPT + i] = sums[i];
  __syncthreads();
  if (warp_k) return;
  for (int i = lane; i < COUNT; i += WARP) {
    Sum sum = scratch[warp][i];
    for (int w = 1; w < warps_k; w++) sum += scratch[warp + w][i];
    int64 row = row0 + i / COLUMNS, column = i % COLUMNS;
    if (row < p.m && column < p.n)
      write(sum, bias, residual + offsets.residual, c, parts, p, part, row, column);
  }
}

// How many k of B, the small operand, columns_along_lanes keeps in shared memory at once: from there
// four columns come in one access, without an address each.
constexpr int CHUNK = 256;

INLINE void copy_chunk(Sum (*to)[COLUMNS], const T* b, const Product& p, int64 k0, int64 k_end) {
#pragma unroll 4
  for (int i = threadIdx.x; i < CHUNK * COLUMNS; i += THREADS) {
    int64 k = k0 + i / COLUMNS, j = i % COLUMNS;
    to[i / COLUMNS][j] = k < k_end && j < p.n ? value(b[k * p.b_k + j * p.b_n]) : Sum(0);
  }
}

// A has its unit stride along its rows: a lane takes VECTOR rows and goes along k.
template <int VECTOR>
INLINE void sum_per_lane(const T* a, const T* b, const T* bias, const T* residual, T* c, Sum* parts,
                         const Product& p, Sum* scratch, Sum (*factors)[COLUMNS]) {
  constexpr int GROUP = COLUMNS < 4 ? COLUMNS : 4;  // columns that are skipped together
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps_k = int(p.warps_k);
  int groups = WARPS / warps_k, warp_k = warp % warps_k;
  Part part = part_of(p, p.tiles_m);
  int64 row0 = ((part.rows * groups + warp / warps_k) * WARP + lane) * VECTOR;
  Offsets offsets = offsets_of(p, part.batch);
  a += offsets.a + row0 * p.a_m;
  b += offsets.b;

  Sum sums[VECTOR][COLUMNS] = {};
  bool whole = row0 + VECTOR <= p.m;
#pragma unroll 1
  for (int64 k0 = part.k0; k0 < part.k_end; k0 += CHUNK) {
    __syncthreads();
    copy_chunk(factors, b, p, k0, part.k_end);
    __syncthreads();
    if (row0 >= p.m) continue;
    int count = int(min(int64(CHUNK), part.k_end - k0));
#pragma unroll 4  // independent loads in flight
    for (int k = warp_k; k < count; k += warps_k) {
      const T* at = a + (k0 + k) * p.a_k;
      Pack<T, VECTOR> rows{};
      if (whole) rows = load_pack<VECTOR>(at);
      else
#pragma unroll
        for (int v = 0; v < VECTOR; v++)
          if (row0 + v < p.m) rows[v] = at[v * p.a_m];
#pragma unroll
      for (int j0 = 0; j0 < COLUMNS; j0 += GROUP) {
        if (j0 >= p.n) continue;
#pragma unroll
        for (int j = j0; j < j0 + GROUP; j++)
#pragma unroll
          for (int v = 0; v < VECTOR; v++) sums[v][j] += value(rows[v]) * factors[k][j];
      }
    }
  }
  // One column after another, so that the scratch is small; which one is picked from all of them,
  // since registers have no numbers at run time.
#pragma unroll 1
  for (int64 column = 0; column < p.n; column++) {
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
      if (j == column)
#pragma unroll
        for (int v = 0; v < VECTOR; v++) scratch[(warp * VECTOR + v) * WARP + lane] = sums[v][j];
    __syncthreads();
    if (warp_k == 0)
#pragma unroll 1
      for (int v = 0; v < VECTOR; v++) {
        Sum sum = 0;
        for (int w = 0; w < warps_k; w++) sum += scratch[((warp + w) * VECTOR + v) * WARP + lane];
        if (row0 + v < p.m)
          write(sum, bias, residual + offsets.residual, c, parts, p, part, row0 + v, column);
      }
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
NAME(columns_along_lanes)(const T* a, const T* b, const T* bias, const T* residual, T* c,
                          Sum* parts, const __grid_constant__ Product p) {
  SHARED(Sum, scratch, [WARPS * VALUES * WARP]);
  SHARED(Sum, factors, [CHUNK][COLUMNS]);
  if (p.vector_a) sum_per_lane<VALUES>(a, b, bias, residual, c, parts, p, scratch, factors);
  else sum_per_lane<1>(a, b, bias, residual, c, parts, p, scratch, factors);
}

#else  // neither TILE nor COLUMNS

constexpr int THREADS = 256, WARPS = THREADS / WARP;

// ----------------------------------------------------------------------- the sum over parts of k
//
// Always from the first part to the last, so that the same product has the same bits. With no parts
// (k = 0) what is left is the epilogue.

INLINE void finish_sum(Sum sum, const T* bias, const T* residual, T* c, const Product& p, int64 at) {
  int64 of_matrix = at % (p.m * p.n), batch = at / (p.m * p.n);
  int64 row = of_matrix / p.n, column = of_matrix % p.n;
  c[at] = finished(sum, bias, residual + offsets_of(p, batch).residual, p, row, column);
}

// A thread per value.
extern "C" __global__ void __launch_bounds__(THREADS)
NAME(sum_parts)(const T* bias, const T* residual, T* c, const Sum* parts,
                const __grid_constant__ Product p) {
  int64 size = p.batches * p.m * p.n, at = int64(blockIdx.x) * THREADS + threadIdx.x;
  if (at >= size) return;
  Sum sum = 0;
#pragma unroll 8  // independent loads in flight
  for (int64 part = 0; part < p.splits; part++) sum += parts[part * size + at];
  finish_sum(sum, bias, residual, c, p, at);
}

// A warp per value, for few values of many parts: each lane adds up every 32nd part.
extern "C" __global__ void __launch_bounds__(THREADS)
NAME(sum_many_parts)(const T* bias, const T* residual, T* c, const Sum* parts,
                     const __grid_constant__ Product p) {
  int64 size = p.batches * p.m * p.n, at = int64(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (at >= size) return;
  Sum sum = 0;
  for (int64 part = threadIdx.x % WARP; part < p.splits; part += WARP) sum += parts[part * size + at];
  sum = reduce_warp(sum, Add());
  if (threadIdx.x % WARP == 0) finish_sum(sum, bias, residual, c, p, at);
}

// ------------------------------------------------------------------- the gradient of an activation

// From the result, y = activation(x). A NaN of y goes through relu.
template <class S> INLINE S gradient(S gy, S y, int64 activation) {
  switch (activation) {
    case RELU: return y <= S(0) ? S(0) : gy;
    case SIGMOID: return gy * (y * (S(1) - y));
    case TANH: return gy * (S(1) - y * y);
    default: return gy;
  }
}

// gx = gy * activation'(x), of contiguous arrays.
extern "C" __global__ void __launch_bounds__(THREADS)
NAME(activation_gradient)(const T* gy, const T* y, T* gx, int64 size, int64 activation) {
  constexpr int VECTOR = 16 / sizeof(T);
  int64 at = (int64(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;
  bool aligned = (reinterpret_cast<uint64>(gy) | reinterpret_cast<uint64>(y)) % 16 == 0;
  if (aligned && at + VECTOR <= size) {
    Pack<T, VECTOR> left = load_pack<VECTOR>(gy + at), right = load_pack<VECTOR>(y + at);
#pragma unroll
    for (int v = 0; v < VECTOR; v++)
      left[v] = store<T>(gradient(value(left[v]), value(right[v]), activation));
    store_pack(gx + at, left);
    return;
  }
  for (int v = 0; v < VECTOR; v++)
    if (at + v < size)
      gx[at + v] = store<T>(gradient(value(gy[at + v]), value(y[at + v]), activation));
}

#endif
