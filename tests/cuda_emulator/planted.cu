// Kernels with one fault each, for the tests of the emulator. With `fixed` they are right.
//
// They run with one block of 64 threads on 64 floats, unless test_faults.py says otherwise. The
// line that a message has to name ends in a comment with the kernel's name.
#include "common.cuh"

constexpr int N = 64;

#define KERNEL(name) extern "C" __global__ void name(float* x, int64 fixed)
#define ME int(threadIdx.x)

// ---------------------------------------------------------------------------- barriers and warps

KERNEL(barrier_at_two_places) {
  if (ME < 32 || fixed)
    __syncthreads();
  else
    __syncthreads();  // barrier_at_two_places
}

KERNEL(barrier_without_some) {
  if (ME == 5 && !fixed) return;
  __syncthreads();  // barrier_without_some
}

KERNEL(warp_at_two_places) {
  if (ME % 2 || fixed)
    x[ME] = __shfl_xor_sync(FULL_MASK, x[ME], 1);
  else
    x[ME] = __shfl_xor_sync(FULL_MASK, x[ME], 1);  // warp_at_two_places
}

KERNEL(shuffle_from_outside) {
  uint32 mask = fixed ? FULL_MASK : 0xffff;
  if (ME % 32 < 16 || fixed) x[ME] = __shfl_sync(mask, x[ME], 20);  // shuffle_from_outside
}

KERNEL(shuffle_without_one) {
  if (ME == 7 && !fixed) return;
  x[ME] = __shfl_down_sync(FULL_MASK, x[ME], 1);  // shuffle_without_one
}

KERNEL(vote_of_half_a_warp) {  // blocks of 48 threads
  uint32 mask = fixed && ME >= 32 ? 0xffff : FULL_MASK;
  if (__any_sync(mask, ME == 40)) x[ME] = 1;  // vote_of_half_a_warp
}

KERNEL(vote_by_a_stranger) {
  uint32 mask = fixed ? FULL_MASK : 0xfffffffe;
  if (__all_sync(mask, 1)) x[ME] = 1;  // vote_by_a_stranger
}

KERNEL(named_barrier_of_two_sizes) {
  int threads = ME < 32 || fixed ? 64 : 32;
  emu::named_barrier(1, threads, EMU_SITE);  // named_barrier_of_two_sizes
}

KERNEL(loop_for_ever) {
  SHARED(int, flag, [1]);
  if (ME == 0) flag[0] = 0;
  __syncthreads();
  if (ME == 63 && fixed) atomicExch(flag, 1);
  while (!atomicAdd(flag, 0)) emu::yield();
}

// --------------------------------------------------------------------------------- shared memory

KERNEL(shared_index_beyond) {
  SHARED(float, tile, [N]);
  tile[ME + !fixed] = x[ME];  // shared_index_beyond
}

KERNEL(shared_write_beyond) {
  SHARED(float, tile, [N]);
  float* at = tile;
  at[ME + !fixed] = x[ME];  // shared_write_beyond
}

KERNEL(shared_read_before) {
  SHARED(float, tile, [N]);
  const float* at = tile;
  tile[ME] = 1;
  __syncthreads();
  x[ME] = at[fixed ? ME : ME - 3];  // shared_read_before
}

KERNEL(dynamic_write_beyond) {  // 256 bytes
  DYNAMIC_SHARED(bytes);
  reinterpret_cast<float*>(bytes)[ME + !fixed] = 1;  // dynamic_write_beyond
}

KERNEL(dynamic_read_beyond) {
  DYNAMIC_SHARED(bytes);
  float* at = reinterpret_cast<float*>(bytes);
  at[ME] = 1;
  __syncthreads();
  x[ME] = at[ME + 100 * !fixed];  // dynamic_read_beyond
}

KERNEL(shared_not_written) {
  SHARED(float, tile, [N]);
  if (ME < 32 || fixed) tile[ME] = 1;
  __syncthreads();
  x[ME] = tile[ME];  // shared_not_written
}

KERNEL(race_without_barrier) {
  SHARED(float, tile, [N]);
  tile[ME] = float(ME);
  if (fixed) __syncthreads();
  x[ME] = tile[N - 1 - ME];  // race_without_barrier
}

KERNEL(race_after_a_shuffle) {  // which orders nothing
  SHARED(float, tile, [N]);
  tile[ME] = float(ME);
  x[ME] = __shfl_xor_sync(FULL_MASK, x[ME], 1);
  if (fixed) __syncwarp();
  x[ME] += tile[ME ^ 1];  // race_after_a_shuffle
}

KERNEL(race_with_next_round) {
  SHARED(float, tile, [N]);
  for (int i = 0; i < 3; i++) {
    tile[ME] = x[ME] + 1;  // race_with_next_round
    __syncthreads();
    x[ME] = tile[(ME + 1) % N];
    if (fixed) __syncthreads();
  }
}

KERNEL(race_of_writers) {
  SHARED(float, tile, [1]);
  if (ME == 0 || !fixed) tile[0] = float(ME);  // race_of_writers
}

KERNEL(race_with_an_atomic) {
  SHARED(int, sum, [1]);
  if (ME == 0) sum[0] = 0;
  __syncthreads();
  atomicAdd(sum, ME);
  if (fixed) __syncthreads();
  x[ME] = float(sum[0]);  // race_with_an_atomic
}

// Two warps, of which one writes what the other reads. Each waits for the other by name.
KERNEL(race_past_named_barriers) {
  SHARED(float, tile, [32]);
  for (int i = 0; i < 3; i++) {
    if (ME < 32) {
      tile[ME] = float(i);
      emu::named_barrier_arrive(1, 64, EMU_SITE);
      emu::named_barrier(2, 64, EMU_SITE);
    } else {
      emu::named_barrier(1, 64, EMU_SITE);
      if (!fixed) emu::named_barrier_arrive(2, 64, EMU_SITE);
      x[ME] = tile[63 - ME];  // race_past_named_barriers
      if (fixed) emu::named_barrier_arrive(2, 64, EMU_SITE);
    }
  }
}

// ------------------------------------------------------------------------- global memory and C++

KERNEL(global_read_beyond) {
  float sum = x[ME] + x[fixed ? ME : ME + 1];  // global_read_beyond
  x[ME] = sum;
}

KERNEL(global_write_before) {
  x[fixed ? ME : ME - 1] = 1;  // global_write_before
}

KERNEL(null_pointer) {
  float* at = fixed ? x : nullptr;
  at[ME] = 1;  // null_pointer
}

KERNEL(vector_not_aligned) {
  auto* at = reinterpret_cast<const float4*>(x + !fixed);
  if (ME == 3) x[ME] = at->x;  // vector_not_aligned
}

KERNEL(integer_overflow) {
  int y = 2147483647 - int(64 * fixed);
  y += ME;  // integer_overflow
  x[ME] = float(y);
}

KERNEL(shift_too_far) {
  x[ME] = float(1 << (fixed ? ME % 8 : ME));  // shift_too_far
}

KERNEL(division_by_zero) {
  x[ME] = float(100 / (fixed ? ME + 1 : 5 - ME));  // division_by_zero
}

__noinline__ float deep(const float* x, int depth) {
  volatile float room[1024];
  room[depth % 1024] = x[0];
  return depth ? deep(x, depth - 1) + room[depth % 1024] : 0;
}
KERNEL(stack_used_up) { x[ME] = deep(x + ME, fixed ? 3 : 100); }

// ------------------------------------------------------------------------- asynchronous copies

KERNEL(copy_not_waited_for) {
  SHARED(float, tile, [N]);
  emu::cp_async(&tile[ME], &x[ME], 4, 4, EMU_SITE);
  emu::cp_async_commit();
  if (fixed) emu::cp_async_wait(0);
  x[ME] = tile[ME] + 1;  // copy_not_waited_for
}

KERNEL(copy_waited_for_by_one) {
  SHARED(float, tile, [N]);
  emu::cp_async(&tile[ME], &x[ME], 4, 4, EMU_SITE);
  emu::cp_async_commit();
  emu::cp_async_wait(0);
  if (fixed) __syncthreads();
  x[ME] = tile[N - 1 - ME] + 1;  // copy_waited_for_by_one
}

KERNEL(copy_misaligned) {
  SHARED(float, tile, [N]);
  if (ME < 8) emu::cp_async(&tile[ME * 4 + 2 * !fixed], &x[ME * 4], 16, 16, EMU_SITE);  // copy_misaligned
}

// Thread 0 brings tiles by bulk copies through two buffers; warp 1 uses them up.
enum Fault { NONE, FULL_BUFFER, EMPTY_BUFFER, NO_ARRIVAL };
INLINE void pipeline(float* x, Fault fault) {
  SHARED(uint64, full, [2]);
  SHARED(uint64, empty, [2]);
  SHARED(float, tiles, [2][32]);
  if (ME == 0)
    for (int i = 0; i < 2; i++) {
      emu::mbarrier_init(&full[i], 1, EMU_SITE);
      emu::mbarrier_init(&empty[i], 32, EMU_SITE);
    }
  __syncthreads();
  for (int k = 0; k < 6; k++) {
    int buffer = k % 2, parity = k / 2 % 2;
    if (ME == 0) {
      if (fault != FULL_BUFFER)
        emu::mbarrier_wait(&empty[buffer], parity ^ 1, EMU_SITE);  // nobody_arrives
      emu::mbarrier_expect_tx(&full[buffer], 128, EMU_SITE);
      float* to = tiles[buffer];
      uint64* bar = &full[buffer];
      emu::async_copy({to, 128}, [to, x, bar] {
        for (int i = 0; i < 32; i++) to[i] = x[i];
        emu::mbarrier_complete_tx(bar, 128, EMU_SITE);
      }, EMU_SITE);  // copy_into_a_full_buffer
      emu::mbarrier_arrive(bar, 1, EMU_SITE);
    } else if (ME >= 32) {
      if (fault != EMPTY_BUFFER) emu::mbarrier_wait(&full[buffer], parity, EMU_SITE);
      x[ME] += tiles[buffer][ME - 32];  // use_of_an_empty_buffer
      if (fault != NO_ARRIVAL || k < 3) emu::mbarrier_arrive(&empty[buffer], 1, EMU_SITE);
    }
  }
}
KERNEL(copy_into_a_full_buffer) { pipeline(x, fixed ? NONE : FULL_BUFFER); }
KERNEL(use_of_an_empty_buffer) { pipeline(x, fixed ? NONE : EMPTY_BUFFER); }
KERNEL(nobody_arrives) { pipeline(x, fixed ? NONE : NO_ARRIVAL); }

KERNEL(mbarrier_written_over) {
  SHARED(uint64, bar, [1]);
  if (ME == 0) emu::mbarrier_init(bar, 64, EMU_SITE);
  __syncthreads();
  if (ME == 3 && !fixed) bar[0] = 7;
  emu::mbarrier_arrive(bar, 1, EMU_SITE);  // mbarrier_written_over
}

KERNEL(store_still_reads) {
  SHARED(float, tile, [N]);
  tile[ME] = 1;
  __syncthreads();
  if (ME == 0) {
    float* from = tile;
    emu::defer(emu::Queue::bulk, {from, 256}, [x, from] {
      for (int i = 0; i < N; i++) x[i] = from[i];
    }, EMU_SITE);
    emu::commit_group(emu::Queue::bulk, EMU_SITE);
    if (fixed) emu::wait_group(emu::Queue::bulk, 0, EMU_SITE);
    tile[0] = 2;  // store_still_reads
    emu::wait_group(emu::Queue::bulk, 0, EMU_SITE);
  }
}

KERNEL(left_while_storing) {
  SHARED(float, tile, [N]);
  tile[ME] = 1;
  __syncthreads();
  if (ME == 0) {
    float* from = tile;
    emu::defer(emu::Queue::bulk, {from, 256}, [x, from] { x[0] = from[0]; }, EMU_SITE);
    emu::commit_group(emu::Queue::bulk, EMU_SITE);
    if (fixed) emu::wait_group(emu::Queue::bulk, 0, EMU_SITE);
  }
}

// -------------------------------------------------------------------------------- limits

extern "C" __global__ void __launch_bounds__(N / 2 + 32, 2) bounded(float* x, int64 fixed) { x[ME] = 1; }

KERNEL(too_much_static) {
  SHARED(float, tile, [12 * 1024]);
  if (!fixed) {
    SHARED(float, more, [1]);  // too_much_static
    more[0] = 1;
  }
  tile[ME] = 1;
}

struct Six { int values[6]; };
extern "C" __global__ void four_kinds(const float* x, int64 n, double scale, Six six) {}
