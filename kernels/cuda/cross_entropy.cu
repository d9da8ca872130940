// Cross-entropy with its softmax inside, forward and backward, along an axis of classes.
//
// With q the targets of a row, m its largest score and s = Σ exp(x - m), its loss is
//     Σ_c q_c · (log s - (x_c - m))
// and the gradient of the loss exp(x - m)/s · Σ q - q [1]. Forward reads the scores once and keeps
// m and s of each row, the log-sum-exp in two parts: m + log s in one float32 would lose the digits
// of log s where scores are large. Backward reads the scores once more and writes the gradient.
// Nothing else of the size of the scores exists. Bytes, for N rows of V scores of b bytes:
//     forward   N·V·b, and some 20 per row: label, m, s, perhaps the loss
//     backward  2·N·V·b, and some 20 per row
// so that the time to reach is that of as many bytes copied, above about 64 MB; below, of launches.
//
// Compiled once per dtype and kind of target. -DTARGET=LABELS and SMOOTHED: class labels, with
//     q_c = (1 - e)·w_t·[c = t] + e/V·w_c      (e: label smoothing, w: weights of the classes)
// where e is 0 for LABELS. -DTARGET=PROBABILITIES: t_c, of the shape of the scores, with
//     q_c = ((1 - e)·t_c + e/V)·w_c.
//
// Three kernels each way, which differ in where the threads lie:
//   narrow   up to 128 classes side by side: 1 to 32 lanes for a row, several rows to a warp.
//   rows     more classes side by side: a warp for a short row, a block for a long one, several
//            blocks where long rows are few.
//   columns  classes a stride apart, as in (N, C, H, W): threads lie along the positions.
// Sums of losses are added by block, and by one block in a second launch. Every order is fixed by
// shapes and layout: the same input gives the same bits on every GPU.
//
// [1] Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015: smoothing.
//     Milakov and Gimelshein, Online normalizer calculation for softmax, 2018: m and s in one pass.
#include "common.cuh"

#ifndef TARGET
#define TARGET LABELS
#endif
enum Kind { LABELS, SMOOTHED, PROBABILITIES };
constexpr bool SOFT = TARGET == PROBABILITIES;
constexpr bool SHARES = TARGET != LABELS;  // Σ q·x and Σ q are needed

using Real = wide<T>;
constexpr bool HALF = sizeof(T) == 2;
constexpr int THREADS = 256;
// Blocks that a multiprocessor should hold in forward: 4 leave a thread 64 registers, 3 leave 80.
constexpr int NARROW_BLOCKS = sizeof(T) == 8 ? 1 : SHARES ? 2 : 3;
constexpr int ROWS_BLOCKS = sizeof(T) == 8 ? 1 : SHARES ? 2 : 4;
constexpr int COLUMNS_BLOCKS = sizeof(T) == 8 ? 1 : SHARES ? 2 : 3;
constexpr int PACK = 16 / sizeof(T);

struct Problem {
  int64 rows, classes;
  // Row r begins at r / inner * outer_stride + r % inner * inner_stride of the scores, and of
  // targets that are probabilities; its classes are class_stride apart. In elements.
  int64 inner, outer_stride, inner_stride, class_stride;
  int64 lanes;          // threads of a row (narrow, rows), or rows side by side (columns)
  int64 part, parts;    // classes that one block takes of a row, and how many blocks a row has
  int64 ignore;         // the label of rows that do not count
  int64 long_labels;    // labels are int64; else int32
  int64 weighted;       // classes have weights; else they are all 1
  int64 reduction;      // 0: none, 1: sum, 2: mean
  int64 slope_step;     // backward: 1 if each row's loss has its own gradient, else 0
  int64 wants;          // backward: 1 the gradient of the scores, 2 of the probabilities, 3 both
  double smoothing;     // e
  double count;         // of rows, which a mean divides by where targets are probabilities
};

// 64-bit division costs three times as much as 32-bit, and nearly all indices fit.
INLINE int64 quotient(int64 a, int64 b) {
  if (((a | b) >> 32) == 0) return int64(uint32(a) / uint32(b));
  return a / b;
}

INLINE int64 row_start(const Problem& p, int64 row) {
  if (p.inner == 1) return row * p.outer_stride;
  int64 outer = quotient(row, p.inner);
  return outer * p.outer_stride + (row - outer * p.inner) * p.inner_stride;
}

// Where row r of a dense gradient begins: [outer][class][inner].
INLINE int64 gradient_start(const Problem& p, int64 row) {
  int64 outer = quotient(row, p.inner);
  return outer * p.inner * p.classes + (row - outer * p.inner);
}

// ------------------------------------------------------------------------------- arithmetic

INLINE float lowest(float) { return __uint_as_float(0xff800000u); }
INLINE double lowest(double) { return __longlong_as_double(int64(0xfff0000000000000ull)); }
INLINE Real no_number() { return Real(__uint_as_float(0x7fc00000u)); }

// exp(x) by one multiplication and one instruction: bfloat16 at the full bandwidth of an H200 is
// 2.4e12 values a second, which leaves 12 instructions for each. The error is |x|·1e-7 of the
// result: in a sum whose largest term is exp(0), below the rounding of float32.
INLINE float exp_of_sum(float x) { return power_of_two(x * 1.4426950408889634f); }
INLINE double exp_of_sum(double x) { return exp(x); }
// For results of their own: exact, but where they are rounded to 11 bits or fewer.
INLINE float exp_of_value(float x) { return HALF ? exp_of_sum(x) : expf(x); }
INLINE double exp_of_value(double x) { return exp(x); }

// The larger of two pairs of halves, in one instruction from sm_80 on; a NaN loses, as in fmaxf.
template <class Half> INLINE uint32 larger_pair(uint32 a, uint32 b, Half) {
  float low = larger(load(Half{uint16(a)}), load(Half{uint16(b)}));
  float high = larger(load(Half{uint16(a >> 16)}), load(Half{uint16(b >> 16)}));
  return store<Half>(low).bits | uint32(store<Half>(high).bits) << 16;
}
#if !defined(GRADLAB_EMULATOR) && __CUDA_ARCH__ >= 800
INLINE uint32 larger_pair(uint32 a, uint32 b, float16) {
  uint32 y;
  asm("max.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
INLINE uint32 larger_pair(uint32 a, uint32 b, bfloat16) {
  uint32 y;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
#endif

// The largest of neighbours.
template <int W> INLINE Real largest(const Pack<T, W>& x) {
  if constexpr (HALF && W == 8) {
    const auto& pairs = reinterpret_cast<const Pack<uint32, 4>&>(x);
    uint32 pair = larger_pair(larger_pair(pairs[0], pairs[1], T()),
                              larger_pair(pairs[2], pairs[3], T()), T());
    return larger(load(T{uint16(pair)}), load(T{uint16(pair >> 16)}));
  } else {
    Real peak = load(x[0]);
#pragma unroll
    for (int j = 1; j < W; j++) peak = larger(peak, load(x[j]));
    return peak;
  }
}

// What to subtract from scores of which `peak` is the largest. Where all of them are -inf, 0.
INLINE Real shift_of(Real peak) { return peak == lowest(Real()) ? Real(0) : peak; }

// What is known of some scores of a row; dot and mass only where SHARES.
struct Sums {
  Real peak;  // the largest
  Real sum;   // Σ exp(x - shift), with shift = shift_of(peak)
  Real dot;   // Σ q·(x - shift)
  Real mass;  // Σ q
};

INLINE Sums nothing() { return {lowest(Real()), Real(0), Real(0), Real(0)}; }

// The same sums with respect to a peak that is not lower.
INLINE Sums raised(const Sums& a, Real peak) {
  Real shift = shift_of(peak);
  Real dot = SHARES ? a.dot + (shift_of(a.peak) - shift) * a.mass : Real(0);
  return {peak, a.sum * exp_of_sum(a.peak - shift), dot, a.mass};
}

INLINE Sums joined(const Sums& a, const Sums& b) {
  Real peak = larger(a.peak, b.peak);
  Sums x = raised(a, peak), y = raised(b, peak);
  return {peak, x.sum + y.sum, x.dot + y.dot, x.mass + y.mass};
}

INLINE Sums shuffled(const Sums& a, int step) {
  Sums b{__shfl_xor_sync(FULL_MASK, a.peak, step), __shfl_xor_sync(FULL_MASK, a.sum, step),
         Real(0), Real(0)};
  if (SHARES) {
    b.dot = __shfl_xor_sync(FULL_MASK, a.dot, step);
    b.mass = __shfl_xor_sync(FULL_MASK, a.mass, step);
  }
  return b;
}

// all[i] of an array in registers, which have no addresses.
template <class S, int N> INLINE S selected(const S (&all)[N], int i) {
  S found = all[0];
#pragma unroll
  for (int k = 1; k < N; k++)
    if (k == i) found = all[k];
  return found;
}

// Thread 0 of each `threads` (32, or the block) gets the sums of them all.
INLINE Sums join_threads(Sums sums, int threads, Sums* scratch) {
  for (int step = WARP / 2; step > 0; step /= 2) sums = joined(sums, shuffled(sums, step));
  if (threads <= WARP) return sums;
  int lane = threadIdx.x % WARP, warps = THREADS / WARP;
  __syncthreads();  // the last row's use of scratch is over
  if (lane == 0) scratch[threadIdx.x / WARP] = sums;
  __syncthreads();
  if (threadIdx.x >= WARP) return sums;
  sums = lane < warps ? scratch[lane] : nothing();
  for (int step = warps / 2; step > 0; step /= 2) sums = joined(sums, shuffled(sums, step));
  return sums;
}

// ---------------------------------------------------------------------------------- targets

struct Arrays {
  const T* x;
  const void* target;
  const Real* weight;  // of the classes
};

// The label of a row. It is read beside the scores: read where it is needed, at the end, it would
// cost another 0.9 µs of waiting.
INLINE int64 label_of(const Arrays& from, const Problem& p, int64 row) {
  if (SOFT || row >= p.rows) return 0;
  return p.long_labels ? static_cast<const int64*>(from.target)[row]
                       : int64(static_cast<const int32*>(from.target)[row]);
}
INLINE bool counts(const Problem& p, int64 label) { return label != p.ignore; }
INLINE bool in_range(const Problem& p, int64 label) { return label >= 0 && label < p.classes; }
INLINE Real weight_of(const Arrays& from, const Problem& p, int64 c) {
  return p.weighted ? from.weight[c] : Real(1);
}

// What class c adds to a row's q, but for e/V of smoothed labels, which is a factor of them all.
INLINE Real share_of(const Arrays& from, const Problem& p, Real target, int64 c) {
  Real weight = weight_of(from, p, c);
  if (!SOFT) return weight;
  return (target * Real(1 - p.smoothing) + Real(p.smoothing / double(p.classes))) * weight;
}

INLINE const T* probabilities(const Arrays& from) { return static_cast<const T*>(from.target); }

// --------------------------------------------------------------------------- results of rows

struct Results {
  T* losses;      // of the rows, if they are not added up
  Real* kept;     // m, s and perhaps Σ q of each row: [2 or 3][rows]
  Real* totals;   // of each block: the sum of losses, the sum of weights
  Sums* parts;    // of each part of a row: [parts][rows]
};

struct Total {
  Real loss, weight;
};

INLINE Total label_loss(const Arrays& from, const Problem& p, int64 row, int64 label,
                        const Sums& sums) {
  if (!counts(p, label)) return {Real(0), Real(0)};
  if (!in_range(p, label)) return {no_number(), Real(0)};
  Real score = load(from.x[row_start(p, row) + label * p.class_stride]);
  Real log_sum = logarithm(sums.sum), weight = weight_of(from, p, label);
  Real loss = weight * (log_sum - (score - sums.peak));
  if (SHARES) {
    Real rest = sums.mass * log_sum - sums.dot;
    loss = loss * Real(1 - p.smoothing) + rest * Real(p.smoothing / double(p.classes));
  }
  return {loss, weight};
}

INLINE void finish_row(const Arrays& from, const Results& to, const Problem& p, int64 row,
                       int64 label, const Sums& sums, Total& total) {
  to.kept[row] = sums.peak;
  to.kept[p.rows + row] = sums.sum;
  if (SHARES) to.kept[2 * p.rows + row] = sums.mass;
  Total found = SOFT ? Total{sums.mass * logarithm(sums.sum) - sums.dot, Real(1)}
                     : label_loss(from, p, row, label, sums);
  if (p.reduction == 0) to.losses[row] = store<T>(found.loss);
  total.loss += found.loss;
  total.weight += found.weight;
}

INLINE void finish_part(const Arrays& from, const Results& to, const Problem& p, int64 row,
                        int64 split, int64 label, const Sums& sums, Total& total) {
  if (p.parts > 1) {
    to.parts[split * p.rows + row] = sums;
  } else {
    finish_row(from, to, p, row, label, sums, total);
  }
}

// The block's total, from those of its threads.
INLINE void finish_block(const Results& to, const Problem& p, const Total& total) {
  SHARED(Real, scratch, [WARP]);
  if (p.reduction == 0) return;
  Real loss = reduce_block(total.loss, Add(), scratch, Real(0));
  Real weight = reduce_block(total.weight, Add(), scratch, Real(0));
  if (threadIdx.x == 0) {
    to.totals[2 * int64(blockIdx.x)] = loss;
    to.totals[2 * int64(blockIdx.x) + 1] = weight;
  }
}

// ----------------------------------------------------------------- backward: slopes of rows

// The gradient of a score is exp(x - peak)·factor - q·scale, for labels with the part of q that
// all classes have in `share`, and the label's own in `on`.
struct Slope {
  Real peak, factor, scale, share, on;
  Real log_sum;  // for the gradient of probabilities
  int64 label;
  bool zero;  // a row that does not count
};

struct Known {
  const Real* kept;
  const Real* total;  // of the weights
  const T* slope;     // the gradient of the loss, or of each row's
};

// All that does not depend on the label is read before it is looked at.
INLINE Slope slope_of(const Arrays& from, const Known& known, const Problem& p, int64 row) {
  Slope found{};
  found.label = label_of(from, p, row);
  found.peak = known.kept[row];
  Real sum = known.kept[p.rows + row];
  Real mass = SHARES ? known.kept[2 * p.rows + row] : Real(0);
  Real scale = load(known.slope[row * p.slope_step]);
  if (p.reduction == 2) scale = scale / (SOFT ? Real(p.count) : known.total[0]);
  if (SOFT) {
    found.scale = scale;
    found.factor = scale * mass / sum;
    found.log_sum = logarithm(sum);
    return found;
  }
  found.zero = !counts(p, found.label);
  if (found.zero) return found;
  found.on = in_range(p, found.label) ? scale * weight_of(from, p, found.label) : no_number();
  if (SHARES) {
    found.on = found.on * Real(1 - p.smoothing);
    found.share = scale * Real(p.smoothing / double(p.classes));
  }
  found.factor = (found.on + found.share * mass) / sum;
  return found;
}

INLINE Real score_gradient(const Arrays& from, const Problem& p, const Slope& slope, Real x,
                           Real target, int64 c) {
  Real g = exp_of_value(x - slope.peak) * slope.factor;
  if (SOFT) return g - share_of(from, p, target, c) * slope.scale;
  if (SHARES) g -= slope.share * weight_of(from, p, c);
  return g;
}

INLINE Real target_gradient(const Arrays& from, const Problem& p, const Slope& slope, Real x,
                            int64 c) {
  Real loss = slope.log_sum - (x - slope.peak);
  return loss * weight_of(from, p, c) * (slope.scale * Real(1 - p.smoothing));
}

// ----------------------------------------------------------------------------------- narrow
//
// A lane has up to 4 values of each of 4 rows, all of which it reads before it uses the first: of
// 10 classes in float32 each of the 4 lanes of a row has 40 bytes under way, which is 30 KB on a
// multiprocessor with 768 threads, and of 16 or more 48 KB. H200 needs about 40: 4.8 TB/s times
// 0.9 µs, over 132. (Halves have half of that: expect them below the bandwidth.) Accesses of a warp
// begin and end within sectors; its next ones find the rest of them in the L1. The sums are those
// of two passes over registers, and different lanes finish a group's 4 rows.

constexpr int VALUES = 4;
constexpr int ROWS = 4;

struct Narrow {
  T x[ROWS][VALUES];
  T target[ROWS][VALUES];
  int lanes, lane, groups;
  int64 first;

  INLINE Narrow(const Problem& p, int64 tile) {
    lanes = int(p.lanes);
    lane = threadIdx.x % lanes;
    groups = THREADS / lanes;
    first = tile * (groups * ROWS) + threadIdx.x / lanes;
  }
  INLINE int64 row(int u) const { return first + u * groups; }
  INLINE bool has(const Problem& p, int u, int v) const {
    return row(u) < p.rows && lane + v * lanes < p.classes;
  }
  INLINE void read(const Arrays& from, const Problem& p) {
#pragma unroll
    for (int u = 0; u < ROWS; u++) {
      int64 start = row_start(p, row(u)) + lane;
#pragma unroll
      for (int v = 0; v < VALUES; v++)
        if (has(p, u, v)) {
          x[u][v] = from.x[start + v * lanes];
          if (SOFT) target[u][v] = probabilities(from)[start + v * lanes];
        }
    }
  }
  INLINE Sums sums(const Arrays& from, const Problem& p, int u) const {
    Sums found = nothing();
#pragma unroll
    for (int v = 0; v < VALUES; v++)
      if (has(p, u, v)) found.peak = larger(found.peak, load(x[u][v]));
    found.peak = reduce_warp(found.peak, Larger(), lanes);
    Real shift = shift_of(found.peak);
#pragma unroll
    for (int v = 0; v < VALUES; v++) {
      if (!has(p, u, v)) continue;
      Real d = load(x[u][v]) - shift;
      found.sum += exp_of_sum(d);
      if (SHARES) {
        Real q = share_of(from, p, SOFT ? load(target[u][v]) : Real(0), lane + v * lanes);
        found.dot += q * d;
        found.mass += q;
      }
    }
    found.sum = reduce_warp(found.sum, Add(), lanes);
    if (SHARES) {
      found.dot = reduce_warp(found.dot, Add(), lanes);
      found.mass = reduce_warp(found.mass, Add(), lanes);
    }
    return found;
  }
};

INLINE int64 narrow_tiles(const Problem& p) {
  int64 rows = THREADS / p.lanes * ROWS;
  return quotient(p.rows + rows - 1, rows);
}

extern "C" __global__ void __launch_bounds__(THREADS, NARROW_BLOCKS)
NAME(forward_narrow)(const T* x, const void* target, const Real* weight, T* losses, Real* kept,
                     Real* totals, Sums* parts, const __grid_constant__ Problem p) {
  Arrays from{x, target, weight};
  Results to{losses, kept, totals, parts};
  Total total{};
  int64 tiles = narrow_tiles(p);
  for (int64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    Narrow narrow(p, tile);
    narrow.read(from, p);
    int64 labels[ROWS];
    Sums sums[ROWS];
#pragma unroll
    for (int u = 0; u < ROWS; u++) labels[u] = label_of(from, p, narrow.row(u));
#pragma unroll
    for (int u = 0; u < ROWS; u++) sums[u] = narrow.sums(from, p, u);
    for (int u = narrow.lane; u < ROWS; u += narrow.lanes)
      if (narrow.row(u) < p.rows)
        finish_row(from, to, p, narrow.row(u), selected(labels, u), selected(sums, u), total);
  }
  finish_block(to, p, total);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(backward_narrow)(const T* x, const void* target, const Real* weight, const Real* kept,
                      const Real* total, const T* slopes, T* gx, T* gtarget,
                      const __grid_constant__ Problem p) {
  Arrays from{x, target, weight};
  Known known{kept, total, slopes};
  Narrow narrow(p, blockIdx.x);
  narrow.read(from, p);
  Slope slopes_of_rows[ROWS];  // all before the first is used, as the scores
#pragma unroll
  for (int u = 0; u < ROWS; u++)
    slopes_of_rows[u] = slope_of(from, known, p, min(narrow.row(u), p.rows - 1));
#pragma unroll
  for (int u = 0; u < ROWS; u++) {
    int64 row = narrow.row(u);
    if (row >= p.rows) continue;
    const Slope& slope = slopes_of_rows[u];
    int64 start = row * p.classes;
#pragma unroll
    for (int v = 0; v < VALUES; v++) {
      int64 c = narrow.lane + v * narrow.lanes;
      if (c >= p.classes) continue;
      Real score = load(narrow.x[u][v]);
      Real t = SOFT ? load(narrow.target[u][v]) : Real(0);
      if (p.wants & 1) {
        Real g = slope.zero ? Real(0) : score_gradient(from, p, slope, score, t, c);
        if (!SOFT && !slope.zero && c == slope.label) g -= slope.on;
        gx[start + c] = store<T>(g);
      }
      if (SOFT && (p.wants & 2))
        gtarget[start + c] = store<T>(target_gradient(from, p, slope, score, c));
    }
  }
}

// ------------------------------------------------------------------------------------- rows
//
// A thread reads 64 bytes, in 4 packs, before it uses the first: with 4 blocks 64 KB are under way
// on a multiprocessor, half as much again as H200 needs (see above), for the time in which warps
// compute. The sums of a chunk of 4 packs are taken with the largest of all scores so far, so that
// the old sums are corrected once in 32 scores of bfloat16, and a score costs about 6 instructions
// of the 12 there is time for. Backward writes what it reads, in as large accesses; a long row is
// cut into parts of 32 KB or more, so that all blocks end together. Made for 0.9 of the bandwidth
// of a copy; not yet measured.

constexpr int UNROLL = SHARES ? 2 : 4;  // weights or probabilities are read beside the scores

// COUNT accesses to W neighbours each, a warp's width apart: their offsets are constants. The first
// is at class c; unless FULL, those at `end` and beyond are not there.
template <int W, int COUNT, bool FULL> struct Chunk {
  static constexpr int STEP = WARP * W;
  Pack<T, W> x[COUNT];
  Pack<T, W> target[COUNT];
  int c, left;

  INLINE Chunk(int c, int end) : c(c), left(end - c) {}
  INLINE bool has(int u) const { return FULL || u * STEP < left; }
  INLINE void read(const T* xs, const T* targets) {
#pragma unroll
    for (int u = 0; u < COUNT; u++)
      if (has(u)) {
        x[u] = load_pack<W>(xs + c + u * STEP);
        if (SOFT) target[u] = load_pack<W>(targets + c + u * STEP);
      }
  }
  INLINE void add_to(Sums& sums, const Arrays& from, const Problem& p) const {
    Real peak = sums.peak;
#pragma unroll
    for (int u = 0; u < COUNT; u++)
      if (has(u)) peak = larger(peak, largest(x[u]));
    sums = raised(sums, peak);
    Real shift = shift_of(peak), part[COUNT];
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      part[u] = Real(0);
      if (has(u)) {
#pragma unroll
        for (int j = 0; j < W; j++) part[u] += exp_of_sum(load(x[u][j]) - shift);
      }
    }
#pragma unroll
    for (int u = 0; u < COUNT; u++) sums.sum += part[u];
    if (SHARES) add_shares(sums, from, p, shift);
  }
  INLINE void add_shares(Sums& sums, const Arrays& from, const Problem& p, Real shift) const {
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      if (!has(u)) continue;
#pragma unroll
      for (int j = 0; j < W; j++) {
        Real t = SOFT ? load(target[u][j]) : Real(0);
        Real q = share_of(from, p, t, c + u * STEP + j);
        sums.dot += q * (load(x[u][j]) - shift);
        sums.mass += q;
      }
    }
  }
  INLINE void write_gradients(T* gx, T* gtarget, const Arrays& from, const Problem& p,
                              const Slope& slope) const {
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      if (!has(u)) continue;
      int at = c + u * STEP;
      if (p.wants & 1) {
        Real g[W];
#pragma unroll
        for (int j = 0; j < W; j++) {
          Real t = SOFT ? load(target[u][j]) : Real(0);
          g[j] = score_gradient(from, p, slope, load(x[u][j]), t, at + j);
        }
        if (!SOFT && uint32(int(slope.label) - at) < W) {
#pragma unroll
          for (int j = 0; j < W; j++)
            if (at + j == int(slope.label)) g[j] -= slope.on;
        }
        Pack<T, W> made;
#pragma unroll
        for (int j = 0; j < W; j++) made[j] = store<T>(g[j]);
        store_pack(gx + at, made);
      }
      if (SOFT && (p.wants & 2)) {
        Pack<T, W> made;
#pragma unroll
        for (int j = 0; j < W; j++)
          made[j] = store<T>(target_gradient(from, p, slope, load(x[u][j]), at + j));
        store_pack(gtarget + at, made);
      }
    }
  }
  INLINE void write_zeros(T* gx) const {
    Pack<T, W> zeros;
#pragma unroll
    for (int j = 0; j < W; j++) zeros[j] = store<T>(Real(0));
#pragma unroll
    for (int u = 0; u < COUNT; u++)
      if (has(u)) store_pack(gx + c + u * STEP, zeros);
  }
};

// Calls use(chunk) for this warp's chunks of classes `from` to `end`: of the row's `warps` warps,
// each takes every warps-th.
template <int W, int COUNT, class Use>
INLINE void walk_chunks(int from, int end, int warp, int warps, Use use) {
  constexpr int SIZE = COUNT * Chunk<W, COUNT, true>::STEP;
  int first = from + warp * SIZE, lane = threadIdx.x % WARP * W;
  for (; first + SIZE <= end; first += warps * SIZE) use(Chunk<W, COUNT, true>(first + lane, end));
  if (first < end) use(Chunk<W, COUNT, false>(first + lane, end));
}

// The same for all of n classes with packs of 16 bytes, the few before the first 16-byte boundary
// and behind the last one by one. `at` is the address of class 0; everything that is read and
// written must be misplaced alike.
template <class Use>
INLINE void walk_packs(const T* at, int n, int warp, int warps, Use use) {
  int misplaced = int(reinterpret_cast<uint64>(at) / sizeof(T) % PACK);
  int head = min(n, misplaced ? PACK - misplaced : 0);
  int tail = head + (n - head) / PACK * PACK;
  walk_chunks<PACK, UNROLL>(head, tail, warp, warps, use);
  int k = threadIdx.x % WARP;
  if (warp == 0 && k < head + n - tail)  // 2 · (PACK - 1) at most
    use(Chunk<1, 1, true>(k < head ? k : tail + k - head, n));
}

INLINE bool alike(const void* a, const void* b) {
  return (reinterpret_cast<uint64>(a) - reinterpret_cast<uint64>(b)) % 16 == 0;
}

// Block b works on part b % parts of a row, or of as many rows as have their lanes in a block. In
// the part classes are counted from its own first, `from`, by 32-bit integers.
struct Span {
  int64 row, from, split;
  int count, lane, lanes, warp, warps;

  INLINE Span(const Problem& p, int64 unit) {
    int64 tile = quotient(unit, p.parts);
    split = unit - tile * p.parts;
    lanes = int(p.lanes);
    lane = threadIdx.x % lanes;
    warp = lane / WARP;
    warps = lanes / WARP;
    row = tile * (THREADS / lanes) + threadIdx.x / lanes;
    from = split * p.part;
    count = int(min(p.part, p.classes - from));
  }
};

INLINE int64 row_units(const Problem& p) {
  int64 rows = THREADS / p.lanes;
  return quotient(p.rows + rows - 1, rows) * p.parts;
}

extern "C" __global__ void __launch_bounds__(THREADS, ROWS_BLOCKS)
NAME(forward_rows)(const T* x, const void* target, const Real* weight, T* losses, Real* kept,
                   Real* totals, Sums* parts, const __grid_constant__ Problem p) {
  SHARED(Sums, scratch, [WARP]);
  Arrays from{x, target, weight};
  Results to{losses, kept, totals, parts};
  Total total{};
  int64 units = row_units(p);
  for (int64 unit = blockIdx.x; unit < units; unit += gridDim.x) {
    Span span(p, unit);
    bool valid = span.row < p.rows;
    Sums sums = nothing();
    if (valid && (SOFT || counts(p, label_of(from, p, span.row)))) {  // ignored rows are not read
      int64 start = row_start(p, span.row) + span.from;
      const T *xs = x + start, *targets = SOFT ? probabilities(from) + start : nullptr;
      Arrays part{xs, targets, weight + span.from};
      auto add = [&](auto chunk) {
        chunk.read(xs, targets);
        chunk.add_to(sums, part, p);
      };
      if (!SOFT || alike(xs, targets)) {
        walk_packs(xs, span.count, span.warp, span.warps, add);
      } else {
        walk_chunks<1, 2 * UNROLL>(0, span.count, span.warp, span.warps, add);
      }
    }
    sums = join_threads(sums, span.lanes, scratch);
    if (!valid || span.lane != 0) continue;
    // The label is read again, from the L1: kept, it would take two registers of 64.
    int64 label = label_of(from, p, span.row);
    finish_part(from, to, p, span.row, span.split, label, sums, total);
  }
  if (p.parts == 1) finish_block(to, p, total);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(backward_rows)(const T* x, const void* target, const Real* weight, const Real* kept,
                    const Real* total, const T* slopes, T* gx, T* gtarget,
                    const __grid_constant__ Problem p) {
  Arrays from{x, target, weight};
  Known known{kept, total, slopes};
  Span span(p, blockIdx.x);
  if (span.row >= p.rows) return;
  Slope slope = slope_of(from, known, p, span.row);
  // A label outside the part is that of no class in it.
  int64 label = slope.label - span.from;
  slope.label = label >= 0 && label < span.count ? label : -1;
  int64 start = row_start(p, span.row) + span.from, dense = span.row * p.classes + span.from;
  const T *xs = x + start, *targets = SOFT ? probabilities(from) + start : nullptr;
  T *gxs = gx + dense, *gtargets = gtarget + dense;
  if (!SOFT && slope.zero) {
    walk_packs(gxs, span.count, span.warp, span.warps,
               [&](auto chunk) { chunk.write_zeros(gxs); });
    return;
  }
  Arrays part{xs, targets, weight + span.from};
  auto write = [&](auto chunk) {
    chunk.read(xs, targets);
    chunk.write_gradients(gxs, gtargets, part, p, slope);
  };
  if (alike(xs, gxs) && (!SOFT || (alike(xs, targets) && alike(xs, gtargets)))) {
    walk_packs(xs, span.count, span.warp, span.warps, write);
  } else {
    walk_chunks<1, 2 * UNROLL>(0, span.count, span.warp, span.warps, write);
  }
}

// ---------------------------------------------------------------------------------- columns
//
// A thread has V neighbouring rows, positions of an image, and goes through their classes: a warp
// reads 256 bytes at a time, 8 bytes in each of 8 classes per thread before the first is used,
// which with 3 blocks is 48 KB on a multiprocessor.
// Where rows are few, several groups of a block share the classes, and several blocks a row.

constexpr int COLUMN_PACK = sizeof(T) == 8 ? 2 : 8 / sizeof(T);

template <int V> struct Tile {
  int64 row, start, from, end, split;
  int lanes, group, groups;

  INLINE Tile(const Problem& p, int64 unit) {
    int64 tile = quotient(unit, p.parts);
    split = unit - tile * p.parts;
    lanes = int(p.lanes);
    group = threadIdx.x / lanes;
    groups = THREADS / lanes;
    row = (tile * lanes + threadIdx.x % lanes) * V;
    start = row < p.rows ? row_start(p, row) : 0;
    end = min((split + 1) * p.part, p.classes);
    from = row < p.rows ? split * p.part + group : end;
  }
};

template <int V> INLINE int64 column_units(const Problem& p) {
  int64 rows = p.lanes * V;
  return quotient(p.rows + rows - 1, rows) * p.parts;
}

template <int V>
INLINE void add_classes(Sums (&sums)[V], const Arrays& from, const Problem& p,
                        const Tile<V>& tile) {
  constexpr int COUNT = SOFT || sizeof(T) == 8 ? 4 : 8;
  Pack<T, V> x[COUNT], target[COUNT];
  for (int64 c = tile.from; c < tile.end; c += COUNT * tile.groups) {
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      int64 at = tile.start + (c + u * tile.groups) * p.class_stride;
      if (c + u * tile.groups >= tile.end) break;
      x[u] = load_pack<V>(from.x + at);
      if (SOFT) target[u] = load_pack<V>(probabilities(from) + at);
    }
#pragma unroll
    for (int v = 0; v < V; v++) {
      Real peak = sums[v].peak;
#pragma unroll
      for (int u = 0; u < COUNT; u++)
        if (c + u * tile.groups < tile.end) peak = larger(peak, load(x[u][v]));
      sums[v] = raised(sums[v], peak);
      Real shift = shift_of(peak);
#pragma unroll
      for (int u = 0; u < COUNT; u++) {
        if (c + u * tile.groups >= tile.end) continue;
        Real d = load(x[u][v]) - shift;
        sums[v].sum += exp_of_sum(d);
        if (!SHARES) continue;
        Real q = share_of(from, p, SOFT ? load(target[u][v]) : Real(0), c + u * tile.groups);
        sums[v].dot += q * d;
        sums[v].mass += q;
      }
    }
  }
}

// Group 0 gets the sums of all groups.
template <int V>
INLINE void join_groups(Sums (&sums)[V], const Tile<V>& tile, Sums (&scratch)[V][THREADS]) {
  __syncthreads();  // the last tile's use of scratch is over
  for (int step = tile.groups / 2; step > 0; step /= 2) {
    if (tile.group >= step && tile.group < 2 * step) {
#pragma unroll
      for (int v = 0; v < V; v++) scratch[v][threadIdx.x] = sums[v];
    }
    __syncthreads();
    if (tile.group < step) {
#pragma unroll
      for (int v = 0; v < V; v++)
        sums[v] = joined(sums[v], scratch[v][threadIdx.x + step * tile.lanes]);
    }
  }
}

template <int V>
INLINE void forward_columns(const Arrays& from, const Results& to, const Problem& p,
                            Sums (&scratch)[V][THREADS]) {
  Total total{};
  int64 units = column_units<V>(p);
  for (int64 unit = blockIdx.x; unit < units; unit += gridDim.x) {
    Tile<V> tile(p, unit);
    int64 labels[V];
    Sums sums[V];
#pragma unroll
    for (int v = 0; v < V; v++) {
      labels[v] = tile.group == 0 && p.parts == 1 ? label_of(from, p, tile.row + v) : 0;
      sums[v] = nothing();
    }
    add_classes<V>(sums, from, p, tile);
    join_groups<V>(sums, tile, scratch);
    if (tile.group != 0 || tile.row >= p.rows) continue;
#pragma unroll 1
    for (int v = 0; v < V; v++)
      finish_part(from, to, p, tile.row + v, tile.split, selected(labels, v), selected(sums, v),
                  total);
  }
  if (p.parts == 1) finish_block(to, p, total);
}

template <int V>
INLINE void backward_columns(const Arrays& from, const Known& known, T* gx, T* gtarget,
                             const Problem& p) {
  constexpr int COUNT = 4;
  Tile<V> tile(p, blockIdx.x);
  if (tile.from >= tile.end) return;
  Slope slope[V];
#pragma unroll
  for (int v = 0; v < V; v++) slope[v] = slope_of(from, known, p, tile.row + v);
  int64 dense = gradient_start(p, tile.row);
  Pack<T, V> x[COUNT], target[COUNT], made;
  for (int64 first = tile.from; first < tile.end; first += COUNT * tile.groups) {
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      int64 at = tile.start + (first + u * tile.groups) * p.class_stride;
      if (first + u * tile.groups >= tile.end) break;
      x[u] = load_pack<V>(from.x + at);
      if (SOFT) target[u] = load_pack<V>(probabilities(from) + at);
    }
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
      int64 c = first + u * tile.groups, at = dense + c * p.inner;
      if (c >= tile.end) break;
      if (p.wants & 1) {
#pragma unroll
        for (int v = 0; v < V; v++) {
          Real t = SOFT ? load(target[u][v]) : Real(0);
          Real g = score_gradient(from, p, slope[v], load(x[u][v]), t, c);
          if (!SOFT && c == slope[v].label) g -= slope[v].on;
          made[v] = store<T>(!SOFT && slope[v].zero ? Real(0) : g);
        }
        store_pack(gx + at, made);
      }
      if (SOFT && (p.wants & 2)) {
#pragma unroll
        for (int v = 0; v < V; v++)
          made[v] = store<T>(target_gradient(from, p, slope[v], load(x[u][v]), c));
        store_pack(gtarget + at, made);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, COLUMNS_BLOCKS)
NAME(forward_columns_packed)(const T* x, const void* target, const Real* weight, T* losses,
                             Real* kept, Real* totals, Sums* parts,
                             const __grid_constant__ Problem p) {
  SHARED(Sums, scratch, [COLUMN_PACK][THREADS]);
  forward_columns<COLUMN_PACK>({x, target, weight}, {losses, kept, totals, parts}, p, scratch);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(forward_columns)(const T* x, const void* target, const Real* weight, T* losses, Real* kept,
                      Real* totals, Sums* parts, const __grid_constant__ Problem p) {
  SHARED(Sums, scratch, [1][THREADS]);
  forward_columns<1>({x, target, weight}, {losses, kept, totals, parts}, p, scratch);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(backward_columns_packed)(const T* x, const void* target, const Real* weight, const Real* kept,
                              const Real* total, const T* slopes, T* gx, T* gtarget,
                              const __grid_constant__ Problem p) {
  backward_columns<COLUMN_PACK>({x, target, weight}, {kept, total, slopes}, gx, gtarget, p);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(backward_columns)(const T* x, const void* target, const Real* weight, const Real* kept,
                       const Real* total, const T* slopes, T* gx, T* gtarget,
                       const __grid_constant__ Problem p) {
  backward_columns<1>({x, target, weight}, {kept, total, slopes}, gx, gtarget, p);
}

// ------------------------------------------------------------------------- further stages

// Joins the parts of rows that several blocks shared.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(join_parts)(const T* x, const void* target, const Real* weight, T* losses, Real* kept,
                 Real* totals, Sums* parts, const __grid_constant__ Problem p) {
  Arrays from{x, target, weight};
  Results to{losses, kept, totals, parts};
  Total total{};
  int64 step = int64(gridDim.x) * THREADS;
  for (int64 row = int64(blockIdx.x) * THREADS + threadIdx.x; row < p.rows; row += step) {
    int64 label = label_of(from, p, row);
    Sums sums = parts[row];
#pragma unroll 4
    for (int64 i = 1; i < p.parts; i++) sums = joined(sums, parts[i * p.rows + row]);
    finish_row(from, to, p, row, label, sums, total);
  }
  finish_block(to, p, total);
}

// The sum or mean of the losses, from the totals of blocks; `total` is what the mean divides by.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(add_totals)(const Real* totals, T* loss, Real* total, int64 blocks,
                 const __grid_constant__ Problem p) {
  SHARED(double, scratch, [WARP]);
  double losses = 0, weights = 0;
#pragma unroll 4
  for (int64 i = threadIdx.x; i < blocks; i += THREADS) {
    losses += double(totals[2 * i]);
    weights += double(totals[2 * i + 1]);
  }
  losses = reduce_block(losses, Add(), scratch, 0.0);
  weights = reduce_block(weights, Add(), scratch, 0.0);
  if (threadIdx.x != 0) return;
  if (SOFT) weights = p.count;
  loss[0] = store<T>(Real(p.reduction == 2 ? losses / weights : losses));
  total[0] = Real(weights);
}
