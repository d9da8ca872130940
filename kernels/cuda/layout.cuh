// What reductions and scans share: the types they compute in, axes and how to count through them,
// shuffles of structs.
#pragma once
#include "common.cuh"

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
using TotalResult = Choose<FLOATING, T, uint64>::type;

constexpr int AXES = 8;

// Axes from the outermost to the innermost. `others` holds, of a kept axis, the stride in the
// result; of a reduced axis, the weight of its index in the place of a value. All in elements.
struct Axes {
  int64 count, total;
  int64 sizes[AXES], strides[AXES], others[AXES];
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

// __shfl_down_sync for structs too.
template <class V> INLINE V shuffle_down(V x, int step, int width) {
  static_assert(sizeof(V) % 4 == 0 || sizeof(V) < 4, "words, or one number");
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
