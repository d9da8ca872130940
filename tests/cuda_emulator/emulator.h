// CUDA's device language for a host compiler: what a .cu file needs to be built and run on a CPU.
//
// How a kernel runs here. build.py compiles the very source that NVRTC gets with g++, this header in
// front, into a shared library, and calls it through ctypes; tests/fake_cuda.py does so for each
// launch of gradlab's. The blocks of a grid run one after another. The threads of a block are fibers
// of one host thread: each runs until it has to wait and then hands over to the next that can go on.
// So a kernel meets what it meets on a GPU, one thread at a time, and the same run is repeatable.
//
// What stands for what:
//   threadIdx, blockIdx ..  macros that look at emu::current and emu::here
//   SHARED(float, x, [32])  a piece of the block's arena; nobody's value is NaN (bytes of 0xff)
//   __syncthreads, ..       emu::barrier: all threads of the block, at one place of the source
//   __shfl_sync, votes ..   emu::collective: the lanes of a mask bring what they have, the last one
//                           to come computes for all of them
//   cp.async, bulk copies   emu::cp_async, emu::async_copy: arrive as late as they may
//   mma, wgmma, TMA ..      ptx.h, made of the above from the PTX ISA's tables
//
// What it finds. In every mode: barriers and warp operations that not all threads reach, or reach at
// different places; lanes that their mask leaves out; launches that a GPU refuses; wild addresses. In
// the `checked` mode also accesses beyond an array, shared memory that nobody wrote, races and
// undefined behaviour of C++; see build.py for the modes. A message reads
//   softmax_row_float32, block (0, 0, 0), thread (3, 0, 0), softmax.cu:88: what is wrong
// test_faults.py shows each kind, with the kernel that has it in planted.cu.
//
// What it cannot: blocks that wait for one another (each runs to its end before the next begins),
// the weak order of memory between blocks, races in global memory, time.
//
// To add an intrinsic: plain arithmetic goes below as an inline function. What lanes do together is
// an emu::collective whose arguments hold both what a lane brings and what it gets; what may arrive
// late is an emu::async_copy or an emu::defer. runtime.cpp is the scheduler behind all this,
// checker.cpp the watch over memory, undefined.cpp the reports of -fsanitize=undefined.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define GRADLAB_EMULATOR 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __constant__ static const

// What is no access of a kernel's, though it is compiled with one.
#define EMU_UNWATCHED __attribute__((no_sanitize("thread")))

struct uint3 { unsigned x, y, z; };
using dim3 = uint3;

namespace emu {

struct Site {  // a place in a kernel's source
  const char* file;
  int line;
};
// As a default argument it is the place of the call.
constexpr Site call_site(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}

struct Fiber {
  uint3 thread;
  int linear, lane, warp;
};

struct Block {
  uint3 block, block_dim, grid_dim;
  unsigned char* dynamic_shared;
  int64_t dynamic_bytes;
};

extern Fiber* current;  // the thread that runs
extern Block* here;     // its block

// -------------------------------------------------------------------------------- waiting

// __syncthreads() and its relatives: how many threads of the block vote with something but 0.
int barrier(int vote, const char* what, Site site);
// bar.sync and bar.arrive of barrier `id`, 0 to 15, for `threads` threads (a multiple of 32).
void named_barrier(int id, int threads, Site site);
void named_barrier_arrive(int id, int threads, Site site);

// All lanes of `mask` bring their arguments; the last one to come computes for all of them.
using Collective = void (*)(void** lanes, uint32_t mask);
void collective(const char* what, uint32_t mask, void* mine, Collective compute, Site site);
// __syncwarp(): of these operations the only one that orders accesses to memory.
void sync_warp(uint32_t mask, Site site);
// The same for a warpgroup: 128 threads, four warps in a row, given as an array of 128.
void collective_group(const char* what, void* mine, void (*compute)(void** threads), Site site);

void yield(Site site = call_site());  // let other threads run

[[noreturn]] void fail(const char* what, Site site);

// -------------------------------------------------------------------------- shared memory

struct SharedKey {
  const char* name;
  Site site;
  uint64_t generation;
  void* memory;
};
void* shared(SharedKey& key, int64_t bytes);

template <class Array> Array& shared_array(SharedKey& key) {
  return *static_cast<Array*>(shared(key, sizeof(Array)));
}

// ------------------------------------------------------------------- asynchronous copies

void cp_async(void* to, const void* from, int bytes, int valid, Site site);
void cp_async_commit();
void cp_async_wait(int groups_left);
// cp.async.mbarrier.arrive(.noinc): arrives once this thread's copies so far are there.
void cp_async_mbarrier_arrive(void* mbarrier, bool noinc, Site site);

// Work that goes on beside the threads, as a value with a call operator and no destructor.
struct Job {
  void (*run)(void* state);
  alignas(16) unsigned char state[240];
};
template <class F> Job job(F run) {
  static_assert(std::is_trivially_copyable_v<F> && sizeof(F) <= sizeof(Job::state));
  Job made{[](void* state) { (*static_cast<F*>(state))(); }, {}};
  std::memcpy(made.state, &run, sizeof run);
  return made;
}
struct Region {  // bytes of shared memory
  void* at;
  int64_t bytes;
};

// A copy that nobody waits for in this thread (cp.async.bulk with an mbarrier): `run` copies and
// says mbarrier_complete_tx. It runs when no thread can go on, so that what reads too early reads
// what was there before. `writes` is the shared memory that it fills (or {nullptr, 0}).
void async_copy(Region writes, Job run, Site site);
template <class F> void async_copy(Region writes, F run, Site site) {
  async_copy(writes, job(run), site);
}

// Work in groups that are waited for: a thread's own bulk copies to global memory, and the wgmma of
// a warpgroup (deferred by one thread, from within collective_group, for all; committed by all 128;
// run for all when the first of them waits). `reads` is shared memory that must stay as it is.
enum class Queue { bulk, wgmma };
void defer(Queue queue, Region reads, Job run, Site site);
template <class F> void defer(Queue queue, Region reads, F run, Site site) {
  defer(queue, reads, job(run), site);
}
void commit_group(Queue queue, Site site);
void wait_group(Queue queue, int groups_left, Site site);

// An mbarrier is eight bytes of shared memory. A wait blocks the thread (kernels write it as a
// loop round try_wait) until the phase of that parity is over; test says whether it is.
void mbarrier_init(void* at, int arrivals, Site site);
void mbarrier_invalidate(void* at, Site site);
void mbarrier_arrive(void* at, int arrivals, Site site);
void mbarrier_expect_tx(void* at, int bytes, Site site);
void mbarrier_complete_tx(void* at, int bytes, Site site);
void mbarrier_wait(void* at, int parity, Site site);
bool mbarrier_test(void* at, int parity, Site site);

// ------------------------------------------------------------------------ warp operations

void check_source(uint32_t mask, int lane, Site site);

template <class V> struct Shuffle {
  V value, result;
  int source;
};

template <class V>
EMU_UNWATCHED V shuffle(const char* what, uint32_t mask, V value, int source, Site site) {
  Shuffle<V> mine{value, value, source};
  if (source != current->lane) check_source(mask, source, site);
  collective(what, mask, &mine, [](void** lanes, uint32_t members) EMU_UNWATCHED {
    for (int i = 0; i < 32; i++) {
      if (!(members >> i & 1)) continue;
      auto* lane = static_cast<Shuffle<V>*>(lanes[i]);
      lane->result = static_cast<Shuffle<V>*>(lanes[lane->source])->value;
    }
  }, site);
  return mine.result;
}

float float_from_half(uint16_t bits);
uint16_t half_from_float(float x);

template <class To, class From> To bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

}  // namespace emu

#define EMU_SITE emu::call_site()

#define threadIdx (emu::current->thread)
#define blockIdx (emu::here->block)
#define blockDim (emu::here->block_dim)
#define gridDim (emu::here->grid_dim)
constexpr int warpSize = 32;

#define SHARED(type, name, dims)                                                          \
  typedef type name##_array dims;                                                         \
  static emu::SharedKey name##_key{#name, {__FILE__, __LINE__}, 0, nullptr};              \
  name##_array& name = emu::shared_array<name##_array>(name##_key)
#define DYNAMIC_SHARED(name) unsigned char* name = emu::here->dynamic_shared

inline void __syncthreads(emu::Site site = EMU_SITE) { emu::barrier(0, "__syncthreads", site); }
inline int __syncthreads_count(int predicate, emu::Site site = EMU_SITE) {
  return emu::barrier(predicate, "__syncthreads_count", site);
}
inline int __syncthreads_or(int predicate, emu::Site site = EMU_SITE) {
  return emu::barrier(predicate, "__syncthreads_or", site) != 0;
}
inline int __syncthreads_and(int predicate, emu::Site site = EMU_SITE) {
  return emu::barrier(!predicate, "__syncthreads_and", site) == 0;
}

struct EmuVote { int predicate; uint32_t ballot; };
EMU_UNWATCHED inline uint32_t __ballot_sync(uint32_t mask, int predicate, emu::Site site = EMU_SITE) {
  EmuVote mine{predicate, 0};
  emu::collective("__ballot_sync", mask, &mine, [](void** lanes, uint32_t members) EMU_UNWATCHED {
    uint32_t ballot = 0;
    for (int i = 0; i < 32; i++)
      if (members >> i & 1 && static_cast<EmuVote*>(lanes[i])->predicate) ballot |= 1u << i;
    for (int i = 0; i < 32; i++)
      if (members >> i & 1) static_cast<EmuVote*>(lanes[i])->ballot = ballot;
  }, site);
  return mine.ballot;
}
inline int __any_sync(uint32_t mask, int predicate, emu::Site site = EMU_SITE) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, emu::Site site = EMU_SITE) {
  return __ballot_sync(mask, predicate, site) == mask;
}
// The lanes that happen to run together: a kernel may not count on more than itself.
inline uint32_t __activemask() { return 1u << emu::current->lane; }
inline void __syncwarp(uint32_t mask = 0xffffffffu, emu::Site site = EMU_SITE) {
  emu::sync_warp(mask, site);
}

template <class V> struct EmuMatch { V value; uint32_t alike; };
template <class V>
EMU_UNWATCHED uint32_t __match_any_sync(uint32_t mask, V value, emu::Site site = EMU_SITE) {
  EmuMatch<V> mine{value, 0};
  emu::collective("__match_any_sync", mask, &mine, [](void** lanes, uint32_t members) EMU_UNWATCHED {
    auto at = [&](int i) { return static_cast<EmuMatch<V>*>(lanes[i]); };
    for (int i = 0; i < 32; i++)
      for (int j = 0; j < 32; j++)
        if (members >> i & members >> j & 1 && !std::memcmp(&at(i)->value, &at(j)->value, sizeof(V)))
          at(i)->alike |= 1u << j;
  }, site);
  return mine.alike;
}
template <class V>
uint32_t __match_all_sync(uint32_t mask, V value, int* all, emu::Site site = EMU_SITE) {
  *all = __match_any_sync(mask, value, site) == mask;
  return *all ? mask : 0;
}

template <class V, class F>
EMU_UNWATCHED V emu_reduce(const char* what, uint32_t mask, V value, F, emu::Site site) {
  emu::Shuffle<V> mine{value, value, 0};
  emu::collective(what, mask, &mine, [](void** lanes, uint32_t members) EMU_UNWATCHED {
    auto at = [&](int i) { return static_cast<emu::Shuffle<V>*>(lanes[i]); };
    int first = __builtin_ctz(members);
    V sum = at(first)->value;
    for (int i = first + 1; i < 32; i++)
      if (members >> i & 1) sum = F()(sum, at(i)->value);
    for (int i = 0; i < 32; i++)
      if (members >> i & 1) at(i)->result = sum;
  }, site);
  return mine.result;
}
#define EMU_REDUCE(op, type, result)                                                          \
  inline type __reduce_##op##_sync(uint32_t mask, type value, emu::Site site = EMU_SITE) {    \
    auto combine = [](type a, type b) -> type { return result; };                             \
    return emu_reduce("__reduce_" #op "_sync", mask, value, combine, site);                   \
  }
EMU_REDUCE(add, unsigned, a + b)
EMU_REDUCE(add, int, int(unsigned(a) + unsigned(b)))
EMU_REDUCE(min, unsigned, a < b ? a : b)
EMU_REDUCE(min, int, a < b ? a : b)
EMU_REDUCE(max, unsigned, a > b ? a : b)
EMU_REDUCE(max, int, a > b ? a : b)
EMU_REDUCE(and, unsigned, a & b)
EMU_REDUCE(or, unsigned, a | b)
EMU_REDUCE(xor, unsigned, a ^ b)
#undef EMU_REDUCE

// The lane numbers of PTX's shfl: a source outside the segment leaves the lane its own value.
template <class V> V __shfl_sync(uint32_t mask, V x, int source, int width = 32,
                                 emu::Site site = EMU_SITE) {
  int base = emu::current->lane & ~(width - 1);
  return emu::shuffle("__shfl_sync", mask, x, base + (source & (width - 1)), site);
}
template <class V> V __shfl_xor_sync(uint32_t mask, V x, int other, int width = 32,
                                     emu::Site site = EMU_SITE) {
  int lane = emu::current->lane, source = lane ^ other;
  if (source / width > lane / width) source = lane;
  return emu::shuffle("__shfl_xor_sync", mask, x, source, site);
}
template <class V> V __shfl_down_sync(uint32_t mask, V x, unsigned step, int width = 32,
                                      emu::Site site = EMU_SITE) {
  int lane = emu::current->lane, source = lane + int(step);
  if (source / width != lane / width) source = lane;
  return emu::shuffle("__shfl_down_sync", mask, x, source, site);
}
template <class V> V __shfl_up_sync(uint32_t mask, V x, unsigned step, int width = 32,
                                    emu::Site site = EMU_SITE) {
  int lane = emu::current->lane, source = lane - int(step);
  if (source < (lane & ~(width - 1))) source = lane;
  return emu::shuffle("__shfl_up_sync", mask, x, source, site);
}

inline void __threadfence() {}
inline void __threadfence_block() {}

// Blocks run one after another and fibers switch only where they wait: plain code is atomic.
namespace emu {
void atomic_access(void* at, int bytes, const void* from);  // tells the checker
template <class V, class F> EMU_UNWATCHED __noinline__ V atomic(V* at, F change) {
  atomic_access(at, sizeof(V), __builtin_return_address(0));
  V old = *at;
  *at = change(old);
  return old;
}
}  // namespace emu

template <class V> using EmuSame = std::type_identity_t<V>;
template <class V> V atomicAdd(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return V(old + x); }); }
template <class V> V atomicSub(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return V(old - x); }); }
template <class V> V atomicMax(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return x > old ? x : old; }); }
template <class V> V atomicMin(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return x < old ? x : old; }); }
template <class V> V atomicAnd(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return V(old & x); }); }
template <class V> V atomicOr(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return V(old | x); }); }
template <class V> V atomicXor(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V old) { return V(old ^ x); }); }
template <class V> V atomicExch(V* at, EmuSame<V> x) { return emu::atomic(at, [=](V) { return x; }); }
template <class V> V atomicCAS(V* at, EmuSame<V> expected, EmuSame<V> x) {
  return emu::atomic(at, [=](V old) { return old == expected ? x : old; });
}
inline unsigned atomicInc(unsigned* at, unsigned limit) {
  return emu::atomic(at, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* at, unsigned limit) {
  return emu::atomic(at, [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

// ------------------------------------------------------------------------ intrinsics

inline float __uint_as_float(unsigned x) { return emu::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return emu::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return emu::bit_cast<float>(x); }
inline int __float_as_int(float x) { return emu::bit_cast<int>(x); }
inline double __longlong_as_double(long long x) { return emu::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return emu::bit_cast<long long>(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)(a) * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
  return y;
}
template <class V> V __ldg(const V* at) { return *at; }
template <class V> V __ldcs(const V* at) { return *at; }
template <class V> V __ldcg(const V* at) { return *at; }
template <class V> void __stcs(V* at, V x) { *at = x; }
template <class V> void __stcg(V* at, V x) { *at = x; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };

// --------------------------------------------------------------- how the driver calls a kernel

// EMU_KERNEL(name, bounds) makes a symbol emu_call_name that unpacks an array of pointers to
// arguments, and emu_signature_name: a letter and a size for each parameter, and the largest block.
namespace emu {
template <class A> constexpr char kind() {
  return std::is_pointer_v<A> ? 'p' : std::is_floating_point_v<A> ? 'f' : std::is_integral_v<A> ? 'i' : 's';
}
template <class... A, size_t... I>
EMU_UNWATCHED void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<A>>*>(args[I])...);
}
template <class... A> EMU_UNWATCHED void call(void (*kernel)(A...), void** args) {
  call(kernel, args, std::index_sequence_for<A...>{});
}
struct Bounds {  // __launch_bounds__
  int threads, blocks = 0, clusters = 0;
};
template <class... A> int signature(void (*)(A...), char* kinds, int64_t* sizes, Bounds bounds) {
  size_t i = 0;
  ((kinds[i] = kind<A>(), sizes[i] = sizeof(A), i++), ...);
  kinds[i] = 0;
  return bounds.threads;
}
}  // namespace emu

#define EMU_EXPORT extern "C" __attribute__((visibility("default")))
#define EMU_KERNEL(name, ...)                                                            \
  EMU_EXPORT void emu_call_##name(void** args) { emu::call(name, args); }                \
  EMU_EXPORT int emu_signature_##name(char* kinds, int64_t* sizes) {                     \
    return emu::signature(name, kinds, sizes, {__VA_ARGS__});                            \
  }
