// Matrix products of float16 and bfloat16 on the tensor cores of sm_90a: one warpgroup copies, two
// multiply.
//
// Operations 2·m·n·k; bytes at least 2·(m·k + k·n + m·n). At 8192³ that is 1.1 TFLOP and 0.4 GB,
// 2700 operations per byte where an H200 has 206: arithmetic is the limit, if it is fed. A
// multiprocessor does 2048 multiply-adds per cycle, 16 cycles per k of a tile of 128 x 256, which
// reads 384 elements per k out of L2: 85 operations per byte, 48 bytes per cycle, about twice what
// L2 gives to all of them at once. Two blocks that share B by multicast read 32. Of shared memory a
// wgmma of 64 x 256 reads 640 bytes per k in its 8 cycles, of which a multiprocessor gives 1024.
// Not yet measured on a GPU.
//
// A producer keeps a ring of STAGES tiles filled by the bulk copy engine, which also does the
// 128-byte swizzle and the edges: what is outside A and B arrives as 0, what is outside C is not
// written. Each consumer has 64 of the tile's rows, and 64 x TILE_N sums in the registers that the
// producer gave up. Blocks stay and take one tile after another, so that the producer fetches the
// next tile's first stages while the consumers write this one's results, through shared memory and
// by the copy engine, which goes on while they multiply again.
//
// Compiled for one layout and tile at a time: A_K_MAJOR says that A's rows lie along k in memory
// (else its columns do), B_K_MAJOR the same of B's columns; TILE_N is 128 or 256; CLUSTER blocks
// share what they read of B. ACTIVATION 0 is none or relu, as the problem says; the others, whose
// code stands here 128 times, are compiled in.
#include "common.cuh"
#include "ptx.cuh"
#include "tensor_cores.cuh"

#if defined(GRADLAB_EMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

#ifndef TILE_N
#undef DTYPE
#define DTYPE bfloat16
#define TILE_N 256
#define CLUSTER 1
#define STAGES 4
#define A_K_MAJOR 1
#define B_K_MAJOR 1
#define ACTIVATION 0
#endif

constexpr int TILE_M = 128, TILE_K = 64;  // 64 elements are the 128 bytes of the swizzle
constexpr int WARPGROUP = 128, CONSUMERS = 2, THREADS = WARPGROUP * (1 + CONSUMERS);
constexpr int BOX = 64 * 128;  // bytes of 64 rows of 128 bytes
constexpr int A_BYTES = TILE_M * TILE_K * 2, B_BYTES = TILE_N * TILE_K * 2;
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
// A consumer's results leave in two boxes of 64 x 64 at a time.
constexpr int OUTPUT = STAGES * STAGE_BYTES, BARRIERS = OUTPUT + CONSUMERS * 2 * BOX;
constexpr int GROUP = 16;  // tiles down, by about 8 across: 2048 x 2048 of C for 132 blocks

struct Maps {
  TensorMap a, b, c;
};

// A block's share of shared memory, and the mbarriers of its stages.
struct Pipe {
  unsigned char* shared;
  uint64 *full, *empty;
  INLINE explicit Pipe(unsigned char* begin) : shared(begin) {
    full = reinterpret_cast<uint64*>(begin + BARRIERS);
    empty = full + STAGES;
  }
  INLINE unsigned char* a(int stage) const { return shared + stage * STAGE_BYTES; }
  INLINE unsigned char* b(int stage) const { return a(stage) + A_BYTES; }
};

// Where the producer, or a consumer, is in the ring; and the parity of that round.
struct Ring {
  int stage = 0, parity = 0;
  INLINE void advance() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// A cluster takes CLUSTER tiles that are below one another, each block one of them.
struct Place {
  int m, n, batch;
  INLINE Place(const Problem& p, uint32 index) {
    uint32 rows = rows_of(p), columns = columns_of(p), row, column;
    batch = int(index / (rows * columns));
    tile_of<GROUP / CLUSTER>(index % (rows * columns), rows, columns, row, column);
    m = (int(row) * CLUSTER + cluster_rank<CLUSTER>()) * TILE_M;
    n = int(column) * TILE_N;
  }
  static INLINE uint32 rows_of(const Problem& p) {
    return (uint32(p.m) + CLUSTER * TILE_M - 1) / (CLUSTER * TILE_M);
  }
  static INLINE uint32 columns_of(const Problem& p) { return (uint32(p.n) + TILE_N - 1) / TILE_N; }
};

template <class F> INLINE void each_tile(const Problem& p, F function) {
  uint32 tiles = Place::rows_of(p) * Place::columns_of(p) * uint32(p.batches);
  for (uint32 i = cluster_index<CLUSTER>(); i < tiles; i += cluster_count<CLUSTER>())
    function(Place(p, i));
}

INLINE int k_tiles_of(const Problem& p) { return (int(p.k) + TILE_K - 1) / TILE_K; }

// ------------------------------------------------------------------------------ the producer

// X rows (A) or columns (B) of a tile, at k. Along k they are one box of rows of 64 k; else one of
// 64 rows (k) for every 64 of X, behind one another. SHARE: for all blocks of the cluster.
template <int X, bool K_MAJOR, bool SHARE>
INLINE void load_operand(unsigned char* to, const TensorMap& map, uint64* full, int x, int k,
                         int batch) {
#pragma unroll
  for (int i = 0; i < (K_MAJOR ? 1 : X / 64); i++, to += BOX) {
    int inner = K_MAJOR ? k : x + 64 * i, outer = K_MAJOR ? x : k;
    if constexpr (SHARE && CLUSTER > 1)
      tensor_load_multicast<CLUSTER>(to, map, full, inner, outer, batch, (1 << CLUSTER) - 1);
    else
      tensor_load(to, map, full, inner, outer, batch);
  }
}

// Every block of a cluster fetches A for itself and one part of B for all, when all of them have
// given the stage back. A part may arrive in a block before that one's producer has announced it:
// the phase cannot end without the producer.
INLINE void produce(const Maps& maps, const Problem& p, const Pipe& pipe) {
  constexpr int PART = TILE_N / CLUSTER, PART_BYTES = B_BYTES / CLUSTER;
  Ring ring;
  int k_tiles = k_tiles_of(p), part = cluster_rank<CLUSTER>();
  each_tile(p, [&](const Place& place) {
    // A matrix that is the same for the whole batch is a batch of one.
    int batch_a = p.a_batch[0] ? place.batch : 0, batch_b = p.b_batch[0] ? place.batch : 0;
    for (int k_tile = 0; k_tile < k_tiles; k_tile++, ring.advance()) {
      uint64* full = pipe.full + ring.stage;
      mbarrier_wait(pipe.empty + ring.stage, ring.parity ^ 1);
      mbarrier_arrive_expect_tx(full, STAGE_BYTES);
      load_operand<TILE_M, A_K_MAJOR, false>(pipe.a(ring.stage), maps.a, full, place.m,
                                             k_tile * TILE_K, batch_a);
      load_operand<PART, B_K_MAJOR, true>(pipe.b(ring.stage) + part * PART_BYTES, maps.b, full,
                                          place.n + part * PART, k_tile * TILE_K, batch_b);
    }
  });
  // The block must not end before the others have arrived at its mbarriers for the last time.
  if constexpr (CLUSTER > 1)
    for (int i = 0; i < STAGES; i++, ring.advance())
      mbarrier_wait(pipe.empty + ring.stage, ring.parity ^ 1);
}

// ----------------------------------------------------------------------------- the consumers

// 16 of k are 32 bytes of each row along k, else 16 rows of 128 bytes.
template <bool K_MAJOR> INLINE uint64 descriptor(const unsigned char* tile) {
  return matrix_descriptor(tile, K_MAJOR ? 16 : BOX, 1024);
}
template <bool K_MAJOR> constexpr int STEP_BYTES = K_MAJOR ? 32 : 16 * 128;

INLINE void multiply_stage(float (&acc)[TILE_N / 2], const unsigned char* a, const unsigned char* b,
                           bool accumulate) {
  uint64 at_a = descriptor<A_K_MAJOR>(a), at_b = descriptor<B_K_MAJOR>(b);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < TILE_K / 16; step++)
    wgmma<!A_K_MAJOR, !B_K_MAJOR>(
        T{}, acc, advance_descriptor(at_a, step * STEP_BYTES<A_K_MAJOR>),
        advance_descriptor(at_b, step * STEP_BYTES<B_K_MAJOR>), accumulate || step > 0);
  wgmma_commit();
}

// This warp has done with a stage: the producers of all blocks of the cluster want to know.
INLINE void give_back(uint64* empty) {
  int lane = int(threadIdx.x) % WARP;
  if constexpr (CLUSTER == 1) {
    if (lane == 0) mbarrier_arrive(empty);
  } else {
    if (lane < CLUSTER) mbarrier_arrive_at<CLUSTER>(empty, lane);
  }
}

// The 64 rows of consumer `index`, of a tile. One wgmma group is always in flight: a stage is given
// back when the next one's group has been issued.
INLINE void multiply_tile(float (&acc)[TILE_N / 2], int index, int k_tiles, const Pipe& pipe,
                          Ring& ring) {
  int before = 0;
  for (int k_tile = 0; k_tile < k_tiles; k_tile++, ring.advance()) {
    mbarrier_wait(pipe.full + ring.stage, ring.parity);
    multiply_stage(acc, pipe.a(ring.stage) + index * BOX, pipe.b(ring.stage), k_tile > 0);
    wgmma_wait<1>(acc);
    if (k_tile > 0) give_back(pipe.empty + before);
    before = ring.stage;
  }
  wgmma_wait<0>(acc);
  give_back(pipe.empty + before);
}

// Two sums that stand side by side at (row, column) of C, finished and rounded.
template <bool PLAIN>
INLINE uint32 finish_pair(const Problem& p, float low, float high, const T* bias, const T* residual,
                          int64 row, int64 column) {
  if constexpr (PLAIN) return round_pair(T{}, low, high);
  float x[2] = {low, high};
  int64 count = p.n - column;
  if (p.has_bias) add_values(x, bias + column * p.bias_stride, p.bias_stride, count, p.wide_bias);
  activate(x, ACTIVATION != NONE ? ACTIVATION : p.activation == RELU ? RELU : NONE);
  if (p.has_residual && row < p.m)
    add_values(x, residual + row * p.residual_row + column * p.residual_column, p.residual_column,
               count, p.wide_residual);
  return round_pair(T{}, x[0], x[1]);
}

// 128 columns of a consumer's rows to shared memory, as the copy engine wants them: rows of 128
// bytes, swizzled. Lanes 0-7 and 8-15 store the upper and lower rows of 8 columns, the others those
// of the next 8.
template <bool PLAIN>
INLINE void stage_columns(const float* acc, unsigned char* output, const Problem& p, int row,
                          int column, const T* bias, const T* residual) {
  int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) % WARPGROUP / WARP;
  int store_row = warp * 16 + lane % 16, store_chunk = lane / 16;
  row += warp * 16 + lane / 4;
  column += lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 16; j += 2) {  // groups of 8 columns
    uint32 out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int at = 4 * (j + i / 2) + 2 * (i % 2);
      out[i] = finish_pair<PLAIN>(p, acc[at], acc[at + 1], bias, residual, row + 8 * (i % 2),
                                  column + 8 * (j + i / 2));
    }
    int chunk = (j % 8 + store_chunk) ^ store_row % 8;
    stmatrix(output + j / 8 * BOX + store_row * 128 + chunk * 16, out);
  }
}

INLINE void write_tile(const float (&acc)[TILE_N / 2], int index, const Maps& maps,
                       const Problem& p, const Place& place, const Pipe& pipe, const T* bias,
                       const T* residual) {
  bool first = threadIdx.x % WARPGROUP == 0;
  bool plain = ACTIVATION == NONE && !p.has_bias && !p.has_residual && p.activation == NONE;
  int m = place.m + 64 * index, barrier = 1 + index + CONSUMERS * cluster_rank<CLUSTER>();
  unsigned char* output = pipe.shared + OUTPUT + index * 2 * BOX;
  if (p.has_residual) residual += p.residual_batch[0] * place.batch;
#pragma unroll
  for (int part = 0; part < TILE_N / 128; part++) {
    int n = place.n + 128 * part;
    if (first) bulk_wait_read<0>();  // the copies before this have read the place
    named_barrier(barrier, WARPGROUP);
    // One test for the sums that are only rounded, rather than three for each of 64 pairs.
    if (plain) stage_columns<true>(acc + 64 * part, output, p, m, n, bias, residual);
    else stage_columns<false>(acc + 64 * part, output, p, m, n, bias, residual);
    fence_proxy_async();
    named_barrier(barrier, WARPGROUP);
    if (first) {
#pragma unroll
      for (int i = 0; i < 2; i++)
        tensor_store(maps.c, output + i * BOX, n + 64 * i, m, place.batch);
      bulk_commit();
    }
  }
}

INLINE void consume(const Maps& maps, const Problem& p, const Pipe& pipe, int index, const T* bias,
                    const T* residual) {
  Ring ring;
  int k_tiles = k_tiles_of(p);
  float acc[TILE_N / 2];
  each_tile(p, [&](const Place& place) {
    multiply_tile(acc, index, k_tiles, pipe, ring);
    write_tile(acc, index, maps, p, place, pipe, bias, residual);
  });
  if (threadIdx.x % WARPGROUP == 0) bulk_wait_read<0>();  // shared memory ends with the block
}

#if CLUSTER > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

// Grid: at most as many blocks as multiprocessors, a multiple of CLUSTER. k is at least 1.
extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS * BLOCKS_IN_ONE<CLUSTER>, 1)
NAME(matmul_wgmma)(const __grid_constant__ Maps maps, const __grid_constant__ Problem p,
                   const T* bias, const T* residual) {
  DYNAMIC_SHARED(all_shared);
  Pipe pipe(shared_of_block<CLUSTER>(all_shared));
  int thread = thread_of_block<CLUSTER>();
  if (thread == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      mbarrier_init(pipe.full + stage, 1);
      mbarrier_init(pipe.empty + stage, CLUSTER * CONSUMERS * WARPGROUP / WARP);
    }
    fence_mbarrier_init();
    tensor_prefetch(maps.a);
    tensor_prefetch(maps.b);
    tensor_prefetch(maps.c);
  }
  cluster_sync<CLUSTER>();
  // 168 registers per thread at the start: 40 for the producer leave 232 for each consumer. What
  // the producer does must be inlined (no division of 64 bits is): the compiler gives a function
  // that both roles call registers that the producer does not have any more.
  if (thread < WARPGROUP) {
    setmaxnreg_dec<40>();
    if (thread == 0) produce(maps, p, pipe);
  } else {
    setmaxnreg_inc<232>();
    consume(maps, p, pipe, thread / WARPGROUP - 1, bias, residual);
  }
}

#endif
