// The updates of the optimizers, and gradient clipping: one launch for many tensors.
//
// A model has tens to hundreds of parameters, most of them small. A launch per parameter takes the
// host some 5 µs, longer than the GPU needs for any that fits its caches. So the kernels take a
// table of tensors by value, in the 4 KB that parameters of a launch may have: 55 tensors, of any
// sizes. Blocks take pieces of one vector per thread; which tensor a block's piece belongs to it
// finds by bisection in the table, six reads from the constant cache.
//
// Traffic per float32 element: SGD 12 bytes, with momentum 20, Adam 28, and as many per element
// of a half parameter but 6 (parameter read and written, gradient read). With a vector of 16 bytes
// of each array a thread of Adam has 64 bytes on their way, a multiprocessor of 1,024 such threads
// 64 KB, above the 25 KB that latency times bandwidth asks for on an H200 (not yet measured).
#include "common.cuh"

using V = wide<T>;  // the states of a half parameter are float32, and so is the arithmetic

constexpr int TENSORS = 55, SCALARS = 8, STATES = 3;
constexpr int THREADS = 256, WIDTH = 16 / int(sizeof(V)), PIECE = THREADS * WIDTH;

struct Tensor {
  T* param;
  const T* grad;
  V* states[STATES];
  int64 size;
  V values[2];  // what differs from tensor to tensor: Adam's bias corrections
};
struct Tensors {
  int64 count;
  int64 first[TENSORS];  // the first block of each tensor; none is empty
  V scalars[SCALARS];
  Tensor tensors[TENSORS];
};
static_assert(sizeof(Tensors) <= 4096 - 4 * 8, "more than a launch's parameters may take");

// What an update does besides; Python knows the same bits.
enum Option : int64 {
  DECAY = 1,
  MAXIMIZE = 2,
  MOMENTUM = 4,
  DAMPENING = 8,
  NESTEROV = 16,
  DECOUPLED = 32,
  AMSGRAD = 64,
  CENTERED = 128,
};

// Numbers whose operations round one by one. The compiler fuses products and sums elsewhere, which
// is as fast here, where memory decides, and would make a training step differ from the CPU's and
// from the op's plain definition.
struct Real {
  V v;
  Real() = default;
  INLINE Real(V x) : v(x) {}
};
INLINE float product(float a, float b) { return __fmul_rn(a, b); }
INLINE double product(double a, double b) { return __dmul_rn(a, b); }
INLINE float sum(float a, float b) { return __fadd_rn(a, b); }
INLINE double sum(double a, double b) { return __dadd_rn(a, b); }
INLINE Real operator*(Real a, Real b) { return product(a.v, b.v); }
INLINE Real operator+(Real a, Real b) { return sum(a.v, b.v); }
INLINE Real operator-(Real a, Real b) { return sum(a.v, -b.v); }
INLINE Real operator-(Real a) { return -a.v; }
INLINE Real operator/(Real a, Real b) { return a.v / b.v; }
INLINE Real square_root(Real a) { return square_root(a.v); }
// As NumPy's maximum: NaN if one is.
INLINE Real maximum(Real a, Real b) { return a.v >= b.v || a.v != a.v ? a : b; }
INLINE Real minimum(Real a, Real b) { return a.v <= b.v || a.v != a.v ? a : b; }

// ------------------------------------------------------------------------ from block to elements

INLINE int tensor_of(const Tensors& all, int64 block) {
  int low = 0, high = int(all.count);
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (all.first[middle] <= block) low = middle;
    else high = middle;
  }
  return low;
}

INLINE bool aligned(const void* at, int bytes) { return reinterpret_cast<uint64>(at) % bytes == 0; }

// W elements in a row of a tensor, each through step(p, g, states, tensor).
template <int W, class Step>
INLINE void update(const Tensor& t, int64 at, int states, const Step& step) {
  auto p = load_pack<W>(t.param + at);
  auto g = load_pack<W>(t.grad + at);
  Pack<V, W> s[STATES];
#pragma unroll
  for (int k = 0; k < STATES; k++)
    if (states >> k & 1) s[k] = load_pack<W>(t.states[k] + at);
#pragma unroll
  for (int i = 0; i < W; i++) {
    Real x = load(p[i]), state[STATES];
#pragma unroll
    for (int k = 0; k < STATES; k++) state[k] = states >> k & 1 ? s[k][i] : V(0);
    step(x, load(g[i]), state, t);
    p[i] = store<T>(x.v);
#pragma unroll
    for (int k = 0; k < STATES; k++) s[k][i] = state[k].v;
  }
  store_pack(t.param + at, p);
#pragma unroll
  for (int k = 0; k < STATES; k++)
    if (states >> k & 1) store_pack(t.states[k] + at, s[k]);
}

// The block's piece of its tensor; `states` is the set of those in use, which step changes.
template <class Step> INLINE void walk(const Tensors& all, int states, const Step& step) {
  int number = tensor_of(all, blockIdx.x);
  const Tensor& t = all.tensors[number];
  int64 start = (blockIdx.x - all.first[number]) * PIECE;
  int64 end = min(start + PIECE, t.size);
  constexpr int BYTES = WIDTH * int(sizeof(T));
  bool wide_access = aligned(t.param, BYTES) && aligned(t.grad, BYTES);
#pragma unroll
  for (int k = 0; k < STATES; k++)
    if (states >> k & 1) wide_access &= aligned(t.states[k], 16);
  if (wide_access) {
    int64 at = start + threadIdx.x * WIDTH;
    if (at + WIDTH <= end) update<WIDTH>(t, at, states, step);
    else
      for (; at < end; at++) update<1>(t, at, states, step);
    return;
  }
  for (int64 at = start + threadIdx.x; at < end; at += THREADS) update<1>(t, at, states, step);
}

// ---------------------------------------------------------------------------------- optimizers
//
// What they compute is gradlab/ops/update.py, operation by operation.

INLINE Real effective(Real g, Real p, Real decay, int64 options) {
  if (options & DECAY) {
    Real decayed = p * decay;
    return options & MAXIMIZE ? decayed - g : g + decayed;
  }
  return options & MAXIMIZE ? -g : g;
}

INLINE void average(Real& mean, Real g, Real keep, Real share) {
  Real apart = g - mean;
  mean = share.v < V(0.5) ? mean + apart * share : g - apart * keep;
}

// scalars: lr, weight decay, momentum, 1 - dampening; values: whether this is the first step
extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(sgd)(const __grid_constant__ Tensors all, int64 options) {
  Real rate = all.scalars[0], decay = all.scalars[1], keep = all.scalars[2], share = all.scalars[3];
  walk(all, options & MOMENTUM ? 1 : 0, [&](Real& p, Real g, Real* state, const Tensor& t) {
    g = effective(g, p, decay, options);
    Real step = g;
    if (options & MOMENTUM) {
      Real& b = state[0];
      b = t.values[0] != V(0) ? g : b * keep + (options & DAMPENING ? g * share : g);
      step = options & NESTEROV ? g + b * keep : b;
    }
    p = p - step * rate;
  });
}

// scalars: β₁, 1 - β₁, β₂, 1 - β₂, eps, weight decay, 1 - lr·weight decay;
// values: lr/(1 - β₁ᵗ), √(1 - β₂ᵗ); states: means, squares, largest squares
extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(adam)(const __grid_constant__ Tensors all, int64 options) {
  Real keep1 = all.scalars[0], share1 = all.scalars[1], keep2 = all.scalars[2];
  Real share2 = all.scalars[3], eps = all.scalars[4], decay = all.scalars[5];
  Real shrink = all.scalars[6];
  walk(all, options & AMSGRAD ? 7 : 3, [&](Real& p, Real g, Real* state, const Tensor& t) {
    Real &m = state[0], &v = state[1], &top = state[2];
    if (options & DECOUPLED) p = p * shrink;
    g = effective(g, p, decay, options);
    average(m, g, keep1, share1);
    v = v * keep2 + g * g * share2;
    top = options & AMSGRAD ? maximum(top, v) : v;
    Real step = m / (square_root(top) / t.values[1] + eps);
    p = p - step * t.values[0];
  });
}

// scalars: lr, weight decay, alpha, 1 - alpha, eps, momentum; states: squares, buffers, means
extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(rmsprop)(const __grid_constant__ Tensors all, int64 options) {
  Real rate = all.scalars[0], decay = all.scalars[1], keep = all.scalars[2], share = all.scalars[3];
  Real eps = all.scalars[4], momentum = all.scalars[5];
  int states = 1 | (options & MOMENTUM ? 2 : 0) | (options & CENTERED ? 4 : 0);
  walk(all, states, [&](Real& p, Real g, Real* state, const Tensor&) {
    Real &v = state[0], &b = state[1], &mean = state[2];
    g = effective(g, p, decay, options);
    v = v * keep + g * g * share;
    Real variance = v;
    if (options & CENTERED) {
      average(mean, g, keep, share);
      variance = v - mean * mean;
    }
    Real step = g / (square_root(variance) + eps);
    if (options & MOMENTUM) step = b = b * momentum + step;
    p = p - step * rate;
  });
}

// scalars: weight decay, eps; values: the decayed lr; states: sums of squares
extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(adagrad)(const __grid_constant__ Tensors all, int64 options) {
  Real decay = all.scalars[0], eps = all.scalars[1];
  walk(all, 1, [&](Real& p, Real g, Real* state, const Tensor& t) {
    g = effective(g, p, decay, options);
    state[0] = state[0] + g * g;
    p = p - g / (square_root(state[0]) + eps) * t.values[0];
  });
}

// ------------------------------------------------------------------------------------ clipping
//
// The tensors are gradients, in the table's `param` and `grad` alike.

// How the elements of a p-norm are added up.
enum Norm : int64 { SUM = 1, SQUARES = 2, LARGEST = 3, POWERS = 4 };

INLINE float magnitude(float x) { return fabsf(x); }
INLINE double magnitude(double x) { return fabs(x); }

INLINE V term(V x, int64 norm, V order) {
  if (norm == SQUARES) return x * x;
  x = magnitude(x);
  return norm == POWERS ? power(x, order) : x;
}

struct Gather {
  int64 norm;
  template <class S> INLINE S operator()(S a, S b) const {
    if (norm != LARGEST) return a + b;
    return a >= b || a != a ? a : b;
  }
};

// A block's share of a norm is 16 pieces, so that the shares of 100 million elements (6,000) keep
// the one block that adds them up busy for a few microseconds only. A thread adds 16 numbers to
// each of its sums in V; beyond that all is added in float64, in fixed order.
constexpr int SHARE = 16 * PIECE;

extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(norm_shares)(const __grid_constant__ Tensors all, double* shares, int64 offset,
                      int64 norm) {
  SHARED(double, scratch, [32]);
  int number = tensor_of(all, blockIdx.x);
  const Tensor& t = all.tensors[number];
  int64 start = (blockIdx.x - all.first[number]) * SHARE;
  int64 end = min(start + SHARE, t.size);
  V order = all.scalars[0];
  Gather gather{norm};
  V sums[WIDTH] = {};
  if (aligned(t.grad, WIDTH * int(sizeof(T))) && end - start == SHARE) {
#pragma unroll 4
    for (int64 at = start + threadIdx.x * WIDTH; at < end; at += PIECE) {
      auto g = load_pack<WIDTH>(t.grad + at);
#pragma unroll
      for (int i = 0; i < WIDTH; i++) sums[i] = gather(sums[i], term(load(g[i]), norm, order));
    }
  } else {
    for (int64 at = start + threadIdx.x; at < end; at += PIECE)
#pragma unroll
      for (int i = 0; i < WIDTH; i++) {
        int64 mine = at + i * THREADS;
        if (mine < end) sums[i] = gather(sums[i], term(load(t.grad[mine]), norm, order));
      }
  }
  double share = sums[0];
#pragma unroll
  for (int i = 1; i < WIDTH; i++) share = gather(share, double(sums[i]));
  share = reduce_block(share, gather, scratch, 0.0);
  if (threadIdx.x == 0) shares[offset + blockIdx.x] = share;
}

// One block makes the norm of the shares; T is the norm's dtype.
extern "C" __global__ void NAME(norm_total)(const double* shares, int64 count, T* total, int64 norm,
                                            double order) {
  SHARED(double, scratch, [32]);
  Gather gather{norm};
  double all = 0.0;
  for (int64 i = threadIdx.x; i < count; i += blockDim.x) all = gather(all, shares[i]);
  all = reduce_block(all, gather, scratch, 0.0);
  if (norm == SQUARES) all = sqrt(all);
  if (norm == POWERS) all = pow(all, 1.0 / order);
  if (threadIdx.x == 0) *total = store<T>(V(all));
}

template <class S> INLINE S clip_factor(S max_norm, S total) {
  S factor = max_norm / (total + S(1e-6));
  return factor <= S(1) || factor != factor ? factor : S(1);
}

// Gradients times min(1, max_norm/(total + 1e-6)), halves in float32. The total is read here: the
// host does not know it, and need not wait for it.
extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(clip_norm)(const __grid_constant__ Tensors all, const void* total, int64 total_is_double,
                    double max_norm) {
  V factor = total_is_double
                 ? V(clip_factor(max_norm, *static_cast<const double*>(total)))
                 : V(clip_factor(float(max_norm), *static_cast<const float*>(total)));
  Real scale = Real(factor);
  walk(all, 0, [&](Real& p, Real, Real*, const Tensor&) { p = p * scale; });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    NAME(clip_value)(const __grid_constant__ Tensors all) {
  Real limit = load(store<T>(all.scalars[0]));
  walk(all, 0, [&](Real& p, Real, Real*, const Tensor&) {
    p = minimum(maximum(p, -limit), limit);
  });
}
