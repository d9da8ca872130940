// Adding values to places of an array, any number of them to one place, in a fixed order.
//
// Atomics add in the order in which threads happen to arrive, and float addition is not associative:
// the gradient of an embedding would differ from run to run. Here the places come sorted (stably, so
// that values of one place keep their order), and a warp adds up what belongs to one place.
//
//   bytes   the values once, the result's touched rows twice, 16 bytes of index per value
//
// A row of the result has `width` values. `lanes`, a power of two up to 32, lie along it; the 32 /
// lanes groups of a warp take every so manyth of the rows that are added, and their sums are put
// together by shuffles at the end. Sums are float64: one place may get millions of values, and a
// running sum of float32 stops growing at 2^24.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    NAME(scatter_add)(const T* x, const int64* places, const int64* order, T* y, int64 count,
                      int64 width, int64 rows, int64 lanes) {
  int64 first = int64(blockIdx.x) * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (first >= count) return;
  int64 place = places[first];
  // A warp whose values are not the first of their place has nothing to do; nor has one whose place
  // does not exist.
  if ((first > 0 && places[first - 1] == place) || place < 0 || place >= rows) return;
  int lane = threadIdx.x % WARP, group = lane / int(lanes), groups = WARP / int(lanes);
  for (int64 start = 0; start < width; start += lanes) {
    int64 column = start + lane % int(lanes);
    bool live = column < width;
    double sum = 0;
    for (int64 i = first + group; i < count && places[i] == place; i += groups)
      if (live) sum += x[order[i] * width + column];
    for (int step = int(lanes); step < WARP; step *= 2)
      sum += __shfl_xor_sync(FULL_MASK, sum, step);
    if (live && group == 0) {
      int64 at = place * width + column;
      y[at] = T(y[at] + sum);
    }
  }
}
