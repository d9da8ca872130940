// Matrix products on the tensor cores of sm_80 and later: float16, bfloat16, and float32 as TF32.
//
// Operations 2·m·n·k; bytes at least sizeof(T)·(m·k + k·n + m·n). At 8192³ in bfloat16 that is
// 1.1 TFLOP and 0.4 GB, 2700 operations per byte: arithmetic is the limit on every GPU. A tile of
// 128 x 256 reads 128 + 256 elements per k for 2·128·256 operations: 85 per byte of bfloat16 out of
// L2, and a warp's 64 x 64 reads 128 per k, 32 operations per byte out of shared memory. An A100
// does 1024 multiply-adds per cycle and multiprocessor, so 64 bytes of the 128 that shared memory
// gives per cycle: mma.sync is the limit once the latencies are hidden, which the stages of
// cp.async (global to shared) and the two sets of fragments (shared to registers) are for.
// Skinny products move bytes instead, and split the sum over k to keep all multiprocessors busy.
// Not yet measured on a GPU.
//
// Compiled for one tile and layout at a time: TILE_M x TILE_N per block, WARP_M x WARP_N per warp,
// STAGES buffers; A_K_MAJOR says that A's rows lie along k in memory (else its columns do),
// B_K_MAJOR the same of B's columns; ALIGN is the number of bytes that every line of A and B starts
// at a multiple of.
#include "common.cuh"
#include "ptx.cuh"
#include "tensor_cores.cuh"

#ifndef TILE_M
#define TILE_M 64
#define TILE_N 64
#define WARP_M 32
#define WARP_N 32
#define STAGES 3
#define A_K_MAJOR 1
#define B_K_MAJOR 0
#define ALIGN 16
#endif

constexpr int THREADS = (TILE_M / WARP_M) * (TILE_N / WARP_N) * WARP;
constexpr int CHUNK = 16 / sizeof(T);   // elements that are copied at once
constexpr int STEP = 32 / sizeof(T);    // k of one mma
constexpr int TILE_K = 64 / sizeof(T);  // k of one stage
constexpr int STEPS = TILE_K / STEP;

// One operand: how its tile of X rows (of A) or columns (of B) gets to shared memory and from there
// to registers. The tile keeps the layout of the matrix, in rows of 16-byte chunks. A chunk's place
// in its row is changed with the row (exclusive or), so that the 8 rows of an ldmatrix, which stand
// below one another, lie in 8 different groups of 4 banks.
template <int X, int WARP_X, bool K_MAJOR> struct Operand {
  static constexpr int ROWS = K_MAJOR ? X : TILE_K, COLUMNS = K_MAJOR ? TILE_K : X;
  static constexpr int CHUNKS = COLUMNS / CHUNK, ROW_BYTES = CHUNKS * 16;
  static constexpr int BYTES = ROWS * ROW_BYTES;
  static constexpr int APART = THREADS / CHUNKS;  // rows between the chunks that a thread copies
  static constexpr int COPIES = (ROWS + APART - 1) / APART;
  static_assert(THREADS % CHUNKS == 0 && APART % 8 == 0, "a chunk's place differs by rows only");

  const T* from;  // this thread's first chunk
  int64 apart, advance;  // elements from one chunk to its next, and from one tile to the next
  int row, chunk, x_left;
  int write, read;  // where in a tile this thread's first chunk goes, and its first fragment is

  INLINE Operand(const T* matrix, int64 stride, int64 x, int64 size, int64 k, int warp_x) {
    row = int(threadIdx.x) / CHUNKS;
    chunk = int(threadIdx.x) % CHUNKS;
    apart = APART * stride;
    advance = K_MAJOR ? TILE_K : TILE_K * stride;
    x_left = size - x < X ? int(size - x) : X;
    from = matrix + (K_MAJOR ? x * stride + k : k * stride + x) + row * stride + chunk * CHUNK;
    write = place(row, chunk);
    int lane = int(threadIdx.x) % WARP;
    if (K_MAJOR)
      read = place(warp_x + lane % 16, lane / 16);
    else if (sizeof(T) == 2)
      read = place(lane % 8 + lane / 16 * 8, warp_x / CHUNK + lane / 8 % 2);
    else
      read = place(lane % 4, (warp_x + lane / 4) / CHUNK) + lane / 4 % CHUNK * int(sizeof(T));
  }

  static INLINE int place(int row, int chunk) {
    int turn;
    if (!K_MAJOR && sizeof(T) == 4)  // read by words, see fragment
      turn = (COLUMNS >= 32 ? row & 3 : row >> 1 & 1) << 1;
    else
      turn = CHUNKS >= 8 ? row & 7 : row / (8 / CHUNKS) & (CHUNKS - 1);
    return row * ROW_BYTES + (chunk ^ turn) * 16;
  }

  // Start to copy the next tile along k, of which k_left remain; what is outside becomes 0.
  INLINE void copy(unsigned char* tile, int k_left) {
    int k = min(k_left, TILE_K), rows = K_MAJOR ? x_left : k, columns = K_MAJOR ? k : x_left;
    int count = min(max(columns - chunk * CHUNK, 0), CHUNK);
    const T* at = from;
    tile += write;
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
      int r = row + i * APART;
      if (COPIES * APART > ROWS && r >= ROWS) break;
      copy_chunk(tile + i * APART * ROW_BYTES, at, r < rows ? count : 0);
      at += apart;
    }
    from += advance;
  }

  static INLINE void copy_chunk(unsigned char* to, const T* at, int count) {
    if constexpr (ALIGN >= 4) {
      constexpr int PART = ALIGN / int(sizeof(T));  // elements
#pragma unroll
      for (int part = 0; part < 16 / ALIGN; part++) {
        int valid = min(max(count - part * PART, 0), PART);
        cp_async<ALIGN>(to + part * ALIGN, at + part * PART, valid * int(sizeof(T)));
      }
    } else {  // cp.async copies 4 bytes at least
      Pack<T, CHUNK> values;
#pragma unroll
      for (int i = 0; i < CHUNK; i++) values[i] = i < count ? at[i] : T{};
      store_pack_shared(reinterpret_cast<T*>(to), values);
    }
  }

  // The warp's 16 of X from 16·i on, at k = step·STEP: the registers of mma's a, in its order:
  // lower and upper 8 of X at the lower half of k, then at the upper one. (For b: two tiles,
  // registers 0, 2 and 1, 3.) Chunk numbers differ from those of `read` in bits that are 0 there,
  // so that they, too, are changed by an exclusive or, whatever the turn.
  INLINE void fragment(uint32 (&out)[4], const unsigned char* tile, int i, int step) const {
    static_assert(WARP_X % 16 == 0 && (WARP_X & (WARP_X - 1)) == 0, "bits of their own");
    if constexpr (K_MAJOR) {
      ldmatrix(out, tile + (read ^ step * 32) + i * 16 * ROW_BYTES);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_transposed(out, tile + (read ^ i * 32) + step * STEP * ROW_BYTES);
    } else {
      // No ldmatrix transposes words of 4 bytes. A warp reads 4 rows of 8 words.
#pragma unroll
      for (int part = 0; part < 4; part++)
        out[part] = *reinterpret_cast<const uint32*>(tile + (read ^ i * 64 ^ part % 2 * 32) +
                                                     (step * STEP + part / 2 * 4) * ROW_BYTES);
    }
  }
};

using OperandA = Operand<TILE_M, WARP_M, A_K_MAJOR>;
using OperandB = Operand<TILE_N, WARP_N, B_K_MAJOR>;

constexpr int STAGE_BYTES = OperandA::BYTES + OperandB::BYTES;
constexpr int FRAGMENTS_M = WARP_M / 16, FRAGMENTS_N = WARP_N / 16;

struct Fragments {
  uint32 a[FRAGMENTS_M][4], b[FRAGMENTS_N][4];

  INLINE void read(const OperandA& from_a, const OperandB& from_b, const unsigned char* stage,
                   int step) {
#pragma unroll
    for (int i = 0; i < FRAGMENTS_M; i++) from_a.fragment(a[i], stage, i, step);
#pragma unroll
    for (int i = 0; i < FRAGMENTS_N; i++) from_b.fragment(b[i], stage + OperandA::BYTES, i, step);
  }

  INLINE void round() {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 4 * FRAGMENTS_M; i++) a[i / 4][i % 4] = round_tf32(a[i / 4][i % 4]);
#pragma unroll
      for (int i = 0; i < 4 * FRAGMENTS_N; i++) b[i / 4][i % 4] = round_tf32(b[i / 4][i % 4]);
    }
  }

  INLINE void multiply(float (&acc)[FRAGMENTS_M][2 * FRAGMENTS_N][4]) {
    round();  // here and not in read, which must not wait for what it loads
#pragma unroll
    for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
      for (int j = 0; j < 2 * FRAGMENTS_N; j++)
        mma(T{}, acc[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
  }
};

// acc += A·B over one block's part of k.
INLINE void accumulate(float (&acc)[FRAGMENTS_M][2 * FRAGMENTS_N][4], OperandA a, OperandB b, int k,
                       unsigned char* shared) {
  int tiles = (k + TILE_K - 1) / TILE_K;
  if (tiles == 0) return;
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; stage++) {
    if (stage < tiles) {
      a.copy(shared + stage * STAGE_BYTES, k - stage * TILE_K);
      b.copy(shared + stage * STAGE_BYTES + OperandA::BYTES, k - stage * TILE_K);
    }
    cp_async_commit();  // also of nothing: the groups are counted
  }
  cp_async_wait<STAGES - 2>();
  __syncthreads();

  Fragments fragments[2];
  int reads = 0, writes = STAGES - 1;  // stages
  fragments[0].read(a, b, shared, 0);
  for (int tile = 0; tile < tiles; tile++) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      if (step == STEPS - 1) {
        // The next stage has arrived, for all threads; and all have read what they need of this
        // one, so that the next iteration may start to overwrite it.
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        reads = reads + 1 == STAGES ? 0 : reads + 1;
      }
      if (step < STEPS - 1 || tile + 1 < tiles)
        fragments[(step + 1) % 2].read(a, b, shared + reads * STAGE_BYTES, (step + 1) % STEPS);
      if (step == 0) {
        int k_left = k - (tile + STAGES - 1) * TILE_K;
        if (k_left > 0) {
          a.copy(shared + writes * STAGE_BYTES, k_left);
          b.copy(shared + writes * STAGE_BYTES + OperandA::BYTES, k_left);
        }
        cp_async_commit();
        writes = writes + 1 == STAGES ? 0 : writes + 1;
      }
      fragments[step % 2].multiply(acc);
    }
  }
  static_assert(STEPS % 2 == 0, "a tile ends where the next one's fragments were read to");
}

// The fragments of 16 rows at a time go through shared memory, where each warp has its own place,
// so that rows leave in pieces of 16 bytes.
constexpr int STAGED = WARP_N + 8;  // floats per row: 8 banks on, as lanes write 8 rows of 8 floats
constexpr int SHARED_BYTES_FOR_OUTPUT = THREADS / WARP * 16 * STAGED * 4;
static_assert(SHARED_BYTES_FOR_OUTPUT <= STAGES * STAGE_BYTES, "it fits where the stages were");

template <class Write>
INLINE void write_tile(const float (&acc)[FRAGMENTS_M][2 * FRAGMENTS_N][4], unsigned char* shared,
                       Write write) {
  int lane = int(threadIdx.x) % WARP;
  float* staged = reinterpret_cast<float*>(shared) + int(threadIdx.x) / WARP * 16 * STAGED;
  constexpr int PIECES = WARP_N / CHUNK;  // of a row
#pragma unroll
  for (int i = 0; i < FRAGMENTS_M; i++) {
#pragma unroll
    for (int j = 0; j < 2 * FRAGMENTS_N; j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float* at = staged + (lane / 4 + 8 * half) * STAGED + 8 * j + lane % 4 * 2;
        store_pack_shared(at, Pack<float, 2>{acc[i][j][2 * half], acc[i][j][2 * half + 1]});
      }
    __syncwarp();
    for (int piece = lane; piece < 16 * PIECES; piece += WARP) {
      int row = piece / PIECES, column = piece % PIECES * CHUNK;
      float values[CHUNK];
#pragma unroll
      for (int part = 0; part < CHUNK / 4; part++) {
        Pack<float, 4> four = load_pack<4>(staged + row * STAGED + column + 4 * part);
#pragma unroll
        for (int v = 0; v < 4; v++) values[4 * part + v] = four[v];
      }
      write(16 * i + row, column, values);
    }
    __syncwarp();
  }
}

// Grid: tiles of C, times the splits of k, times the batches. With splits the sums go to `partial`,
// (splits, batches, m, n), and matmul_mma_finish adds them up.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
NAME(matmul_mma)(const T* a, const T* b, T* c, float* partial, const T* bias, const T* residual,
                 const Problem p) {
  DYNAMIC_SHARED(shared);
  uint32 rows = uint32((p.m + TILE_M - 1) / TILE_M), columns = uint32((p.n + TILE_N - 1) / TILE_N);
  uint32 splits = uint32(p.splits), split_and_batch = blockIdx.x / (rows * columns), row, column;
  uint32 split = split_and_batch % splits, batch = split_and_batch / splits;
  tile_of<8>(blockIdx.x % (rows * columns), rows, columns, row, column);
  int64 m = int64(row) * TILE_M, n = int64(column) * TILE_N, k = split * p.split_k;

  int warp = int(threadIdx.x) / WARP;
  int warp_m = warp % (TILE_M / WARP_M) * WARP_M, warp_n = warp / (TILE_M / WARP_M) * WARP_N;
  float acc[FRAGMENTS_M][2 * FRAGMENTS_N][4] = {};
  accumulate(acc, OperandA(a + batch_offset(p, p.a_batch, batch), p.a_stride, m, p.m, k, warp_m),
             OperandB(b + batch_offset(p, p.b_batch, batch), p.b_stride, n, p.n, k, warp_n),
             int(p.k - k < p.split_k ? p.k - k : p.split_k), shared);

  __syncthreads();  // the stages have been read
  m += warp_m;
  n += warp_n;
  if (p.splits > 1) {
    float* part = partial + (split * p.batches + batch) * p.m * p.n;
    write_tile(acc, shared, [&](int i, int j, float (&x)[CHUNK]) {
      if (m + i < p.m) {
        float* at = part + (m + i) * p.n + n + j;
#pragma unroll
        for (int four = 0; four < CHUNK; four += 4)
          write_values(reinterpret_cast<float(&)[4]>(x[four]), at + four, p.n - n - j - four,
                       p.n % 4 == 0);
      }
    });
  } else {
    T* out = c + batch_offset(p, p.c_batch, batch);
    const T* more = p.has_residual ? residual + batch_offset(p, p.residual_batch, batch) : residual;
    write_tile(acc, shared, [&](int i, int j, float (&x)[CHUNK]) {
      finish(p, x, out, bias, more, m + i, n + j);
    });
  }
}

// Adds up the parts of a split sum, in their order, and finishes it. Grid: pieces of CHUNK columns
// of all rows of all batches, 256 to a block.
extern "C" __global__ void __launch_bounds__(256)
NAME(matmul_mma_finish)(const float* partial, T* c, const T* bias, const T* residual,
                        const Problem p) {
  int64 pieces = (p.n + CHUNK - 1) / CHUNK;
  int64 piece = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (piece >= p.batches * p.m * pieces) return;
  int64 line = piece / pieces, column = (piece - line * pieces) * CHUNK;
  int64 batch = p.batches == 1 ? 0 : line / p.m, row = line - batch * p.m;
  const float* at = partial + (batch * p.m + row) * p.n + column;
  float sums[CHUNK] = {};
#pragma unroll 4
  for (int64 split = 0; split < p.splits; split++)
#pragma unroll
    for (int four = 0; four < CHUNK; four += 4)
      add_values(reinterpret_cast<float(&)[4]>(sums[four]),
                 at + split * p.batches * p.m * p.n + four, 1, p.n - column - four, p.n % 4 == 0);
  if (p.has_residual) residual += batch_offset(p, p.residual_batch, uint32(batch));
  finish(p, sums, c + batch_offset(p, p.c_batch, uint32(batch)), bias, residual, row, column);
}
