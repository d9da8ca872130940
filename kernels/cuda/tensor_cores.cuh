// What the two matrix product kernels for tensor cores share: the problem they are given, the order
// of its tiles, and what happens to a sum on its way out.
#pragma once
#include "common.cuh"

constexpr int BATCH_AXES = 6;

// C = act(A·B + bias) + residual, for each of a batch of matrices. Strides are in elements.
// kernels/cuda/tensor_cores.py fills it in.
struct Problem {
  int64 m, n, k;
  int64 a_stride, b_stride;  // from one line of A or B to the next, along the axis of stride not 1
  int64 c_stride;
  int64 residual_row, residual_column;
  int64 bias_stride;
  int64 splits, split_k;  // the sum over k in `splits` parts, each of split_k, the last one shorter
  int64 batches, batch_axes;
  int64 batch_shape[BATCH_AXES], a_batch[BATCH_AXES], b_batch[BATCH_AXES], c_batch[BATCH_AXES],
      residual_batch[BATCH_AXES];
  int64 activation;
  int64 has_bias, has_residual;
  int64 wide_c, wide_residual, wide_bias;  // whether 16 bytes may be moved at once
};

enum Activation { NONE, RELU, SIGMOID, TANH, GELU };

// Indices are divided in 32 bits, for a division of 64 is a call of a function.
INLINE int64 batch_offset(const Problem& p, const int64 (&strides)[BATCH_AXES], uint32 batch) {
  int64 offset = 0;
  for (int axis = int(p.batch_axes) - 1; axis >= 0; axis--) {
    uint32 size = uint32(p.batch_shape[axis]), outer = batch / size;
    offset += int64(batch - outer * size) * strides[axis];
    batch = outer;
  }
  return offset;
}

// Tiles that run at the same time should share rows and columns in L2: the order goes down GROUP
// tiles, then one to the right, so that a wave of blocks covers a patch that is nearly square.
template <int GROUP>
INLINE void tile_of(uint32 index, uint32 rows, uint32 columns, uint32& row, uint32& column) {
  uint32 first = index / (GROUP * columns) * GROUP;
  uint32 height = min(rows - first, uint32(GROUP));
  index -= first * columns;
  row = first + index % height;
  column = index / height;
}

template <int N> INLINE void activate(float (&x)[N], int64 activation) {
  if (activation == NONE) return;
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (activation == RELU) x[i] = x[i] < 0 ? 0.0f : x[i];  // a NaN stays one
    else if (activation == SIGMOID) x[i] = __fdividef(1.0f, 1.0f + expf(-x[i]));
    else if (activation == TANH) x[i] = tanhf(x[i]);
    else x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678118654752f));
  }
}

// Add to x the N values of S at `at`, `stride` elements apart, of which `count` exist.
template <int N, class S>
INLINE void add_values(float (&x)[N], const S* at, int64 stride, int64 count, bool wide) {
  if (wide && count >= N) {
    Pack<S, N> values = load_pack<N>(at);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] += load(values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i++)
      if (i < count) x[i] += load(at[i * stride]);
  }
}

template <int N, class S>
INLINE void write_values(const float (&x)[N], S* at, int64 count, bool wide) {
  if (wide && count >= N) {
    Pack<S, N> values;
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = store<S>(x[i]);
    store_pack(at, values);
  } else {
#pragma unroll
    for (int i = 0; i < N; i++)
      if (i < count) at[i] = store<S>(x[i]);
  }
}

// What becomes of N sums in a row of C, from `column` on. The pointers are those of the matrix.
template <int N>
INLINE void finish(const Problem& p, float (&x)[N], T* c, const T* bias, const T* residual,
                   int64 row, int64 column) {
  int64 count = p.n - column;
  if (row >= p.m || count <= 0) return;
  if (p.has_bias) add_values(x, bias + column * p.bias_stride, p.bias_stride, count, p.wide_bias);
  activate(x, p.activation);
  if (p.has_residual)
    add_values(x, residual + row * p.residual_row + column * p.residual_column, p.residual_column,
               count, p.wide_residual);
  write_values(x, c + row * p.c_stride + column, count, p.wide_c);
}
