// Layer norm and RMS norm of rows: y = (x - mean)·r·weight + bias with r = 1/√(variance + eps).
//
// Memory decides: the least traffic is 8 bytes per float32 element forward (x read, y written) and
// 12 backward (x and gy read, gx written). So a row is read once and kept in registers, 16 values
// of each array per thread (8 of float64): in the lanes of a warp up to 512 columns, in those of
// a block beyond, up to 16,384 forward and 8,192 backward, where the sums for weight and bias take
// as many registers again. Longer rows are streamed: read twice. Loads of a thread are independent
// of each other, four of 16 bytes per array: 64 KB on their way per multiprocessor with 1,024
// threads, where latency times bandwidth asks for 25 KB on an H200 (not yet measured).
//
// The gradients of weight and bias are sums over rows. Blocks take rows in turns and each keeps
// the sums of its own; a second kernel adds those up, in fixed order. That is what lets gx, gweight
// and gbias come from one reading of x and gy.
#include "common.cuh"

using V = wide<T>;

// W is the number of values of one access. Where rows do not begin at multiples of 16 bytes (an odd
// number of columns) it is 1, in a module of its own; a thread then keeps half as many values, since
// each has an address.
#ifdef NARROW
constexpr int W = 1;
constexpr int KEPT = sizeof(V) == 8 ? 4 : 8;
#else
constexpr int W = 16 / int(sizeof(T));
constexpr int KEPT = sizeof(V) == 8 ? 8 : 16;
#endif

enum Flag : int64 { WEIGHT = 1, BIAS = 2, CENTRED = 4, GX = 8, GWEIGHT = 16, GBIAS = 32 };

// ------------------------------------------------------------------- the threads of one row

// A row is taken by `lanes` lanes of a warp (a power of two), or by a whole block.
template <bool BLOCK> struct Row {
  int lanes, lane;

  INLINE explicit Row(int64 lanes_of_row)
      : lanes(BLOCK ? int(blockDim.x) : int(lanes_of_row)),
        lane(BLOCK ? int(threadIdx.x) : int(threadIdx.x) % int(lanes_of_row)) {}

  INLINE int group() const { return BLOCK ? 0 : int(threadIdx.x) / lanes; }
  INLINE int groups() const { return BLOCK ? 1 : int(blockDim.x) / lanes; }

  INLINE V sum(V x, V* scratch) const {
    return BLOCK ? reduce_block(x, Add(), scratch, V(0)) : reduce_warp(x, Add(), lanes);
  }

  // Two sums for the price of one pair of barriers. `scratch` holds 64 values.
  INLINE void sum(V& a, V& b, V* scratch) const {
    a = reduce_warp(a, Add(), BLOCK ? WARP : lanes);
    b = reduce_warp(b, Add(), BLOCK ? WARP : lanes);
    if (!BLOCK) return;
    int place = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    __syncthreads();  // the last use of scratch is over
    if (place == 0) scratch[warp] = a, scratch[WARP + warp] = b;
    __syncthreads();
    a = reduce_warp(place < warps ? scratch[place] : V(0), Add());
    b = reduce_warp(place < warps ? scratch[WARP + place] : V(0), Add());
  }
};

// The thread's values of a row: N of them, W at a time, `lanes` packs apart; 0 beyond the end.
template <int N> INLINE void read(const T* row, int64 columns, int lane, int lanes, V (&v)[N]) {
#pragma unroll
  for (int k = 0; k < N / W; k++) {
    int64 at = int64(k * lanes + lane) * W;
    Pack<T, W> pack = {};
    if (at < columns) pack = load_pack<W>(row + at);
#pragma unroll
    for (int i = 0; i < W; i++) v[k * W + i] = load(pack[i]);
  }
}

template <int N>
INLINE void write(T* row, int64 columns, int lane, int lanes, const V (&v)[N]) {
#pragma unroll
  for (int k = 0; k < N / W; k++) {
    int64 at = int64(k * lanes + lane) * W;
    Pack<T, W> pack;
#pragma unroll
    for (int i = 0; i < W; i++) pack[i] = store<T>(v[k * W + i]);
    if (at < columns) store_pack(row + at, pack);
  }
}

INLINE V affine(V h, const Pack<T, W>& weight, const Pack<T, W>& bias, int i, int64 flags) {
  if (flags & WEIGHT) h *= load(weight[i]);
  if (flags & BIAS) h += load(bias[i]);
  return h;
}

// ------------------------------------------------------------------------------------- forward

template <int N, bool BLOCK>
INLINE void forward(const T* x, const T* weight, const T* bias, T* y, V* means, V* roots,
                    int64 rows, int64 columns, double eps, int64 lanes, int64 flags) {
  SHARED(V, scratch, [32]);
  Row<BLOCK> row(lanes);
  int64 number = int64(blockIdx.x) * row.groups() + row.group();
  bool exists = number < rows;  // lanes without a row take part in the sums of their warp
  V v[N];
  read(x + (exists ? number : 0) * columns, columns, row.lane, row.lanes, v);
  V mean = 0, squares = 0;
  if (flags & CENTRED) {
#pragma unroll
    for (int i = 0; i < N; i++) mean += v[i];
    mean = row.sum(mean, scratch) / V(columns);
  }
#pragma unroll
  for (int k = 0; k < N / W; k++) {
    bool inside = int64(k * row.lanes + row.lane) * W < columns;
#pragma unroll
    for (int i = 0; i < W; i++) {
      V d = v[k * W + i] - mean;
      v[k * W + i] = d;
      squares += inside ? d * d : V(0);
    }
  }
  V r = V(1) / square_root(row.sum(squares, scratch) / V(columns) + V(eps));
  if (!exists) return;
  if (row.lane == 0) {
    if (flags & CENTRED) means[number] = mean;
    roots[number] = r;
  }
#pragma unroll
  for (int k = 0; k < N / W; k++) {
    int64 at = int64(k * row.lanes + row.lane) * W;
    Pack<T, W> w = {}, b = {};
    if (at < columns && flags & WEIGHT) w = load_pack<W>(weight + at);
    if (at < columns && flags & BIAS) b = load_pack<W>(bias + at);
#pragma unroll
    for (int i = 0; i < W; i++) v[k * W + i] = affine(v[k * W + i] * r, w, b, i, flags);
  }
  write(y + number * columns, columns, row.lane, row.lanes, v);
}

#define FORWARD(stem, N, BLOCK)                                                                \
  extern "C" __global__ void __launch_bounds__(BLOCK ? 1024 : 256)                             \
      NAME(stem)(const T* __restrict__ x, const T* __restrict__ weight,                        \
                 const T* __restrict__ bias, T* __restrict__ y, V* means, V* roots, int64 rows, \
                 int64 columns, double eps, int64 lanes, int64 flags) {                        \
    forward<N, BLOCK>(x, weight, bias, y, means, roots, rows, columns, eps, lanes, flags);  \
  }
FORWARD(forward_lanes, W, false)  // one access per lane, and no more lanes than a row needs
FORWARD(forward_warp, KEPT, false)
FORWARD(forward_block, KEPT, true)

// Count, mean and sum of squared deviations of some values, and of two such sets taken together:
// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979. One reading of a row gives both mean and variance, without the cancellation
// of E[x²] - E[x]².
struct Moments {
  V count, mean, squares;
};
INLINE Moments together(Moments a, Moments b) {
  V count = a.count + b.count;
  if (count == V(0)) return a;
  V apart = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}

// The moments over a block. Two lanes that combine the same pair differ in the last digit, so
// everybody takes what the first lane found.
INLINE Moments together(Moments m, V (*scratch)[32]) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  for (int round = 0; round < 2; round++) {
    for (int step = WARP / 2; step > 0; step /= 2) {
      Moments other{__shfl_down_sync(FULL_MASK, m.count, step),
                    __shfl_down_sync(FULL_MASK, m.mean, step),
                    __shfl_down_sync(FULL_MASK, m.squares, step)};
      if (lane + step < WARP) m = together(m, other);
    }
    __syncthreads();
    int place = round ? 0 : warp;
    if (lane == 0 && (!round || warp == 0))
      scratch[0][place] = m.count, scratch[1][place] = m.mean, scratch[2][place] = m.squares;
    __syncthreads();
    int from = round ? 0 : lane;
    bool there = round || lane < warps;
    m = {there ? scratch[0][from] : V(0), there ? scratch[1][from] : V(0),
         there ? scratch[2][from] : V(0)};
  }
  return m;
}

extern "C" __global__ void __launch_bounds__(512)
    NAME(forward_streamed)(const T* __restrict__ x, const T* __restrict__ weight,
                           const T* __restrict__ bias, T* __restrict__ y, V* means, V* roots,
                           int64, int64 columns, double eps, int64, int64 flags) {
  SHARED(V, scratch, [3][32]);
  x += int64(blockIdx.x) * columns, y += int64(blockIdx.x) * columns;
  int64 start = int64(threadIdx.x) * W, stride = int64(blockDim.x) * W;
  V mean = 0, variance;
  if (flags & CENTRED) {
    Moments all{0, 0, 0};
    for (int64 at = start; at < columns; at += stride) {
      auto pack = load_pack<W>(x + at);
      Moments some{V(W), 0, 0};
#pragma unroll
      for (int i = 0; i < W; i++) some.mean += load(pack[i]);
      some.mean /= V(W);
#pragma unroll
      for (int i = 0; i < W; i++) {
        V d = load(pack[i]) - some.mean;
        some.squares += d * d;
      }
      all = together(all, some);
    }
    all = together(all, scratch);
    mean = all.mean, variance = all.squares / V(columns);
  } else {
    V squares = 0;
    for (int64 at = start; at < columns; at += stride) {
      auto pack = load_pack<W>(x + at);
#pragma unroll
      for (int i = 0; i < W; i++) squares += load(pack[i]) * load(pack[i]);
    }
    variance = reduce_block(squares, Add(), scratch[0], V(0)) / V(columns);
  }
  V r = V(1) / square_root(variance + V(eps));
  if (threadIdx.x == 0) {
    if (flags & CENTRED) means[blockIdx.x] = mean;
    roots[blockIdx.x] = r;
  }
  for (int64 at = start; at < columns; at += stride) {
    auto pack = load_pack<W>(x + at);
    Pack<T, W> w = {}, b = {};
    if (flags & WEIGHT) w = load_pack<W>(weight + at);
    if (flags & BIAS) b = load_pack<W>(bias + at);
#pragma unroll
    for (int i = 0; i < W; i++)
      pack[i] = store<T>(affine((load(pack[i]) - mean) * r, w, b, i, flags));
    store_pack(y + at, pack);
  }
}

// ------------------------------------------------------------------------------------ backward
//
// With h = (x - mean)·r and g = gy·weight, gx = (g - h·mean(g·h) - mean(g))·r, the last mean only
// where one was subtracted; gweight = Σ gy·h and gbias = Σ gy over rows.

// The sums of a block's rows, one line of `shares`; those of a warp's rows meet in shared memory.
template <int N, bool BLOCK>
INLINE void share(const Row<BLOCK>& row, const V (&sums)[N], int64 columns, V* shares, V* meeting) {
#pragma unroll
  for (int k = 0; k < N / W; k++) {
    int64 at = int64(k * row.lanes + row.lane) * W;
    if (at < columns) {
#pragma unroll
      for (int i = 0; i < W; i++)
        (BLOCK ? shares : meeting + row.group() * columns)[at + i] = sums[k * W + i];
    }
  }
  if (BLOCK) return;
  __syncthreads();
  for (int64 at = threadIdx.x; at < columns; at += blockDim.x) {
    V sum = 0;
    for (int group = 0; group < row.groups(); group++) sum += meeting[group * columns + at];
    shares[at] = sum;
  }
  __syncthreads();
}

template <int N, bool BLOCK>
INLINE void backward(const T* gy, const T* x, const T* weight, const V* means, const V* roots,
                     T* gx, V* shares, int64 rows, int64 columns, int64 lanes, int64 flags) {
  SHARED(V, scratch, [64]);
  DYNAMIC_SHARED(meeting);
  Row<BLOCK> row(lanes);
  V weight_sums[N] = {}, bias_sums[N] = {};
  int64 stride = int64(gridDim.x) * row.groups();
  // The bound is the warp's: all of its lanes come along, with a row of their own or without.
  int64 first = int64(blockIdx.x) * row.groups();
  for (int64 start = first; start < rows; start += stride) {
    int64 number = start + row.group();
    bool exists = number < rows;
    number = exists ? number : 0;
    V h[N], g[N];
    read(x + number * columns, columns, row.lane, row.lanes, h);
    read(gy + number * columns, columns, row.lane, row.lanes, g);
    V mean = flags & CENTRED ? means[number] : V(0), r = roots[number];
    V sum_gh = 0, sum_g = 0;
#pragma unroll
    for (int k = 0; k < N / W; k++) {
      int64 at = int64(k * row.lanes + row.lane) * W;
      Pack<T, W> w = {};
      if (at < columns && flags & WEIGHT) w = load_pack<W>(weight + at);
#pragma unroll
      for (int i = 0; i < W; i++) {
        int j = k * W + i;
        h[j] = (h[j] - mean) * r;  // g is 0 beyond the end of the row, so h does not matter there
        if (exists) weight_sums[j] += g[j] * h[j], bias_sums[j] += g[j];
        if (flags & WEIGHT) g[j] *= load(w[i]);
        sum_gh += g[j] * h[j], sum_g += g[j];
      }
    }
    if (!(flags & GX)) continue;
    row.sum(sum_gh, sum_g, scratch);
    V mean_gh = sum_gh / V(columns), mean_g = flags & CENTRED ? sum_g / V(columns) : V(0);
#pragma unroll
    for (int j = 0; j < N; j++) g[j] = (g[j] - (h[j] * mean_gh + mean_g)) * r;
    if (exists) write(gx + number * columns, columns, row.lane, row.lanes, g);
  }
  V* meet = reinterpret_cast<V*>(meeting);
  V* mine = shares + int64(blockIdx.x) * columns;
  if (flags & GWEIGHT) share(row, weight_sums, columns, mine, meet);
  if (flags & GWEIGHT) mine += int64(gridDim.x) * columns;
  if (flags & GBIAS) share(row, bias_sums, columns, mine, meet);
}

#define BACKWARD(stem, N, BLOCK)                                                              \
  extern "C" __global__ void __launch_bounds__(BLOCK ? 512 : 256)                             \
      NAME(stem)(const T* __restrict__ gy, const T* __restrict__ x,                           \
                 const T* __restrict__ weight, const V* means, const V* roots,                \
                 T* __restrict__ gx, V* shares, int64 rows, int64 columns, int64 lanes,       \
                 int64 flags) {                                                               \
    backward<N, BLOCK>(gy, x, weight, means, roots, gx, shares, rows, columns, lanes, flags); \
  }
BACKWARD(backward_lanes, W, false)
BACKWARD(backward_warp, KEPT, false)
BACKWARD(backward_block, KEPT, true)

// gx of a long row: x and gy are read for the sums, and again for the result.
extern "C" __global__ void __launch_bounds__(512)
    NAME(backward_streamed)(const T* __restrict__ gy, const T* __restrict__ x,
                            const T* __restrict__ weight, const V* means, const V* roots,
                            T* __restrict__ gx, V*, int64, int64 columns, int64, int64 flags) {
  SHARED(V, scratch, [64]);
  Row<true> row(0);
  int64 offset = int64(blockIdx.x) * columns;
  x += offset, gy += offset, gx += offset;
  int64 start = int64(threadIdx.x) * W, stride = int64(blockDim.x) * W;
  V mean = flags & CENTRED ? means[blockIdx.x] : V(0), r = roots[blockIdx.x];
  V sum_gh = 0, sum_g = 0;
  for (int64 at = start; at < columns; at += stride) {
    auto xs = load_pack<W>(x + at), gs = load_pack<W>(gy + at);
    Pack<T, W> w = {};
    if (flags & WEIGHT) w = load_pack<W>(weight + at);
#pragma unroll
    for (int i = 0; i < W; i++) {
      V g = load(gs[i]);
      if (flags & WEIGHT) g *= load(w[i]);
      sum_gh += g * ((load(xs[i]) - mean) * r), sum_g += g;
    }
  }
  row.sum(sum_gh, sum_g, scratch);
  V mean_gh = sum_gh / V(columns), mean_g = flags & CENTRED ? sum_g / V(columns) : V(0);
  for (int64 at = start; at < columns; at += stride) {
    auto xs = load_pack<W>(x + at), gs = load_pack<W>(gy + at);
    Pack<T, W> w = {};
    if (flags & WEIGHT) w = load_pack<W>(weight + at);
#pragma unroll
    for (int i = 0; i < W; i++) {
      V g = load(gs[i]), h = (load(xs[i]) - mean) * r;
      if (flags & WEIGHT) g *= load(w[i]);
      gs[i] = store<T>((g - (h * mean_gh + mean_g)) * r);
    }
    store_pack(gx + at, gs);
  }
}

// The sums over rows for long rows: a block takes 32 columns and every gridDim.y-th group of as many
// rows as it has warps. A warp reads 32 values in a row, 128 bytes of float32.
extern "C" __global__ void __launch_bounds__(256)
    NAME(column_shares)(const T* __restrict__ gy, const T* __restrict__ x, const V* means,
                        const V* roots, V* shares, int64 rows, int64 columns, int64 flags) {
  SHARED(V, sums, [2][8][WARP]);
  int lane = threadIdx.x % WARP, line = threadIdx.x / WARP, lines = blockDim.x / WARP;
  int64 column = int64(blockIdx.x) * WARP + lane;
  V gweight = 0, gbias = 0;
  if (column < columns)
    for (int64 row = int64(blockIdx.y) * lines + line; row < rows; row += int64(gridDim.y) * lines) {
      V g = load(gy[row * columns + column]);
      V mean = flags & CENTRED ? means[row] : V(0);
      gweight += g * ((load(x[row * columns + column]) - mean) * roots[row]);
      gbias += g;
    }
  sums[0][line][lane] = gweight, sums[1][line][lane] = gbias;
  __syncthreads();
  if (line || column >= columns) return;
  for (int i = 1; i < lines; i++) gweight += sums[0][i][lane], gbias += sums[1][i][lane];
  V* mine = shares + int64(blockIdx.y) * columns + column;
  if (flags & GWEIGHT) *mine = gweight, mine += int64(gridDim.y) * columns;
  if (flags & GBIAS) *mine = gbias;
}

// The second stage: `count` shares of each column are added up, 32 columns per block. blockIdx.y
// is 0 for the first of the sums that are wanted, 1 for the second.
extern "C" __global__ void __launch_bounds__(1024)
    NAME(column_sums)(const V* __restrict__ shares, T* first, T* second, int64 count,
                      int64 columns) {
  SHARED(V, sums, [32][WARP]);
  int lane = threadIdx.x % WARP, line = threadIdx.x / WARP, lines = blockDim.x / WARP;
  int64 column = int64(blockIdx.x) * WARP + lane;
  shares += blockIdx.y * count * columns;
  V sum = 0;
  if (column < columns)
#pragma unroll 4
    for (int64 i = line; i < count; i += lines) sum += shares[i * columns + column];
  sums[line][lane] = sum;
  __syncthreads();
  if (line || column >= columns) return;
  for (int i = 1; i < lines; i++) sum += sums[i][lane];
  (blockIdx.y ? second : first)[column] = store<T>(sum);
}
