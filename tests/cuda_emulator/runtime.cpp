// The emulator's scheduler: runs the threads of a block as fibers, one block after another.
//
// Compiled without instrumentation, so that what it does itself is never taken for a kernel's
// access. A launch ends with a message where a kernel did something that a GPU forbids or leaves
// undefined; the fibers of that launch are then dropped where they stand.
#include "emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define POISON(at, bytes) (void)0
#define UNPOISON(at, bytes) (void)0
#endif

namespace emu {

// ------------------------------------------------------------------------------ fibers
//
// swapcontext saves the signal mask with a system call per switch; this saves the registers that
// a call preserves and changes stacks. Other processors than these two take swapcontext.

#if defined(__x86_64__)
extern "C" void emu_switch(void** save, void* to);
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
#else
#error "to be written"
#endif

enum class State { ready, waiting, done };

struct Thread : Fiber {
  void* sp;
  unsigned char* stack;
  State state;
  const char* waits_for;
  Site site;
  void* fake_stack;
  struct Copy { void* to; const void* from; int bytes, valid; };
  std::vector<Copy> copies;
  std::deque<size_t> groups;  // how many of `copies` each committed group holds
  size_t ungrouped;
  struct { std::vector<Job> open; std::deque<std::vector<Job>> groups; } deferred[2];
};

constexpr size_t STACK = 128 << 10;
constexpr size_t SHARED_BYTES = 256 << 10, GUARD = 128;

Fiber* current;
Block* here;

static std::vector<Thread*> threads;  // kept from launch to launch, with their stacks
static int count;                     // threads of this launch's blocks
static void* scheduler_sp;
static void* scheduler_fake_stack;
static const void* scheduler_stack;
static size_t scheduler_stack_size;
static void (*body)(void**);
static void** body_args;
static const char* kernel_name;
static std::string error;
static bool backwards;

static void to_scheduler(bool leaving) {
  Thread* me = static_cast<Thread*>(current);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(leaving ? nullptr : &me->fake_stack, scheduler_stack, scheduler_stack_size);
#endif
  emu_switch(&me->sp, scheduler_sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(me->fake_stack, nullptr, nullptr);
#endif
}

static void to_thread(Thread* thread) {
  current = thread;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, thread->stack, STACK);
#endif
  emu_switch(&scheduler_sp, thread->sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

static void thread_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  body(body_args);
  static_cast<Thread*>(current)->state = State::done;
  to_scheduler(true);
  abort();
}

static void prepare(Thread* thread, int i, uint3 dim) {
  thread->linear = i;
  thread->lane = i % 32;
  thread->warp = i / 32;
  thread->thread = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
  thread->state = State::ready;
  thread->copies.clear();
  thread->groups.clear();
  thread->ungrouped = 0;
  for (auto& each : thread->deferred) each.open.clear(), each.groups.clear();
  thread->fake_stack = nullptr;
  UNPOISON(thread->stack, STACK);
  // As emu_switch leaves it: six registers, then where to return to; the stack is aligned for a
  // call, which pushes its return address.
  void** top = reinterpret_cast<void**>(thread->stack + STACK - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(thread_main);
  for (int r = 0; r < 6; r++) *--top = nullptr;
  thread->sp = top;
}

static std::string position() {
  char text[256];
  snprintf(text, sizeof text, "%s, block (%u, %u, %u), thread (%u, %u, %u)", kernel_name,
           here->block.x, here->block.y, here->block.z, current->thread.x, current->thread.y,
           current->thread.z);
  return text;
}

static std::string place(Site site) {
  const char* file = strrchr(site.file, '/');
  return std::string(file ? file + 1 : site.file) + ":" + std::to_string(site.line);
}

void fail(const char* what, Site site) {
  error = position() + ": " + what + (site.file ? " at " + place(site) : "");
  to_scheduler(true);
  abort();
}

void yield() { to_scheduler(false); }

static void wait(const char* what, Site site) {
  Thread* me = static_cast<Thread*>(current);
  me->state = State::waiting;
  me->waits_for = what;
  me->site = site;
  to_scheduler(false);
}

// ---------------------------------------------------------------------------- barriers

struct Barrier {
  int arrived = 0, expected = 0;
  Site site{};
  std::vector<Thread*> waiting;
};
static Barrier barriers[17];  // the last one is __syncthreads(), which is also barrier 0

static void arrive(Barrier& b, int expected, bool waits, const char* what, Site site) {
  b.site = site;
  b.expected = expected;
  if (++b.arrived == expected) {
    b.arrived = 0;
    for (Thread* each : b.waiting) each->state = State::ready;
    b.waiting.clear();
    return;
  }
  if (!waits) return;
  b.waiting.push_back(static_cast<Thread*>(current));
  wait(what, site);
}

void barrier(Site site) {
  Barrier& b = barriers[16];
  if (b.arrived && (b.site.line != site.line || strcmp(b.site.file, site.file)))
    fail(("__syncthreads() is reached here by some threads of the block, and at " + place(b.site) +
          " by others").c_str(), site);
  arrive(b, count, true, "__syncthreads()", site);
}

static void named(int id, int expected, bool waits, const char* what, Site site) {
  if (id < 0 || id > 15) fail((std::string(what) + ": there is no barrier " + std::to_string(id) + ", they are 0 to 15").c_str(), site);
  if (expected <= 0 || expected % 32 || expected > count)
    fail((std::string(what) + " for " + std::to_string(expected) + " threads, which is not a multiple of 32 up to the block's " + std::to_string(count)).c_str(), site);
  Barrier& b = barriers[id];
  if (b.arrived && b.expected != expected)
    fail((std::string(what) + " waits for " + std::to_string(expected) + " threads, and for " + std::to_string(b.expected) + " at " + place(b.site)).c_str(), site);
  arrive(b, expected, waits, what, site);
}

void named_barrier(int id, int threads, Site site) { named(id, threads, true, "bar.sync", site); }
void named_barrier_arrive(int id, int threads, Site site) { named(id, threads, false, "bar.arrive", site); }

// --------------------------------------------------------------------- warp operations

struct Meeting {  // lanes that come together for one warp operation
  const char* what;
  uint32_t mask, arrived;
  Site site;
  void* lanes[32];
  Thread* who[32];
};
static std::vector<Meeting> meetings[32];  // of each warp

void collective(const char* what, uint32_t mask, void* mine, Collective compute, Site site) {
  Thread* me = static_cast<Thread*>(current);
  uint32_t bit = 1u << me->lane;
  if (!(mask & bit)) fail((std::string(what) + " is called by a lane that its mask leaves out").c_str(), site);
  auto& pending = meetings[me->warp];
  auto found = std::find_if(pending.begin(), pending.end(), [&](Meeting& m) { return m.mask & mask; });
  if (found == pending.end()) {
    pending.push_back({what, mask, 0, site, {}, {}});
    found = pending.end() - 1;
  }
  if (found->mask != mask || found->what != what || found->site.line != site.line)
    fail((std::string(what) + " is called here, while other lanes of the warp wait in " + found->what +
          " at " + place(found->site)).c_str(), site);
  found->arrived |= bit;
  found->lanes[me->lane] = mine;
  found->who[me->lane] = me;
  if (found->arrived != mask) return wait(what, site);
  compute(found->lanes, mask);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1 && found->who[i] != me) found->who[i]->state = State::ready;
  pending.erase(found);
}

void check_source(uint32_t mask, int lane, Site site) {
  if (!(mask >> lane & 1)) fail("a shuffle reads from a lane that its mask leaves out", site);
}

struct GroupMeeting {
  const char* what = nullptr;
  Site site{};
  int arrived = 0;
  void* mine[128];
  Thread* who[128];
};
static GroupMeeting group_meetings[8];

void collective_group(const char* what, void* mine, void (*compute)(void**), Site site) {
  Thread* me = static_cast<Thread*>(current);
  GroupMeeting& m = group_meetings[me->linear / 128];
  if (count < (me->linear / 128 + 1) * 128) fail((std::string(what) + " needs four whole warps").c_str(), site);
  if (!m.arrived) m.what = what, m.site = site;
  if (m.what != what || m.site.line != site.line)
    fail((std::string(what) + " is called here, while other threads of the warpgroup wait in " + m.what +
          " at " + place(m.site)).c_str(), site);
  m.mine[me->linear % 128] = mine;
  m.who[me->linear % 128] = me;
  if (++m.arrived < 128) return wait(what, site);
  m.arrived = 0;
  compute(m.mine);
  for (Thread* each : m.who)
    if (each != me) each->state = State::ready;
}

// ------------------------------------------------------------------------ shared memory

static unsigned char* arena;
static size_t used;
static uint64_t generation;

static unsigned char* take(int64_t bytes) {
  if (!arena) {
    arena = static_cast<unsigned char*>(aligned_alloc(1024, 2 * SHARED_BYTES));
  }
  size_t start = (used + GUARD + 1023) & ~size_t(1023);
  used = start + bytes;
  UNPOISON(arena + start, bytes);
  memset(arena + start, 0xff, bytes);  // NaN for floats: what nobody wrote shows in the result
  return arena + start;
}

static void clear_shared() {
  used = 0;
  generation++;
  if (arena) POISON(arena, 2 * SHARED_BYTES);
}

void* shared(SharedKey& key, int64_t bytes) {
  if (key.generation != generation) {
    key.generation = generation;
    key.memory = take(bytes);
  }
  return key.memory;
}

// ------------------------------------------------------------------ asynchronous copies
//
// Nothing arrives before it is waited for: a kernel that reads too early reads what was there.

void cp_async(void* to, const void* from, int bytes, int valid, Site site) {
  Thread* me = static_cast<Thread*>(current);
  if (reinterpret_cast<uintptr_t>(to) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes))
    fail("cp.async: an address is not a multiple of the size of the copy", site);
  me->copies.push_back({to, from, bytes, valid});
  me->ungrouped++;
}

void cp_async_commit() {
  Thread* me = static_cast<Thread*>(current);
  me->groups.push_back(me->ungrouped);
  me->ungrouped = 0;
}

void cp_async_wait(int groups_left) {
  Thread* me = static_cast<Thread*>(current);
  while (int(me->groups.size()) > groups_left) {
    size_t n = me->groups.front();
    me->groups.pop_front();
    for (size_t i = 0; i < n; i++) {
      auto& copy = me->copies[i];
      if (copy.valid) memcpy(copy.to, copy.from, copy.valid);
      memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
    }
    me->copies.erase(me->copies.begin(), me->copies.begin() + n);
  }
}

struct Pending {
  Job job;
  Thread* by;
  Site site;
};
static std::deque<Pending> pending;  // of the block

void async_copy(Region, Job run, Site site) {
  pending.push_back({run, static_cast<Thread*>(current), site});
}

void cp_async_mbarrier_arrive(void* at, bool noinc, Site site) {
  if (!noinc) fail("cp.async.mbarrier.arrive without .noinc is not emulated", site);
  async_copy({nullptr, 0}, [at, site] {
    cp_async_commit();
    cp_async_wait(0);
    mbarrier_arrive(at, 1, site);
  }, site);
}

void defer(Queue queue, Region, Job run, Site) {
  static_cast<Thread*>(current)->deferred[int(queue)].open.push_back(run);
}
void commit_group(Queue queue) {
  auto& q = static_cast<Thread*>(current)->deferred[int(queue)];
  q.groups.push_back(std::move(q.open));
  q.open.clear();
}
void wait_group(Queue queue, int groups_left, Site) {
  auto& q = static_cast<Thread*>(current)->deferred[int(queue)];
  while (int(q.groups.size()) > groups_left) {
    auto group = std::move(q.groups.front());
    q.groups.pop_front();
    for (Job& each : group) each.run(each.state);
  }
}

struct Mbarrier {
  int expected, pending, phase;
  int64_t bytes;
  std::vector<Thread*> waiting;
};
static std::map<void*, Mbarrier> mbarriers;

static Mbarrier& mbarrier_at(void* at, Site site) {
  auto found = mbarriers.find(at);
  if (found == mbarriers.end()) fail("an mbarrier is used before mbarrier.init", site);
  return found->second;
}
void mbarrier_init(void* at, int arrivals, Site site) {
  if (reinterpret_cast<uintptr_t>(at) % 8) fail("mbarrier.init: the address is not a multiple of 8", site);
  mbarriers[at] = {arrivals, arrivals, 0, 0, {}};
}
void mbarrier_invalidate(void* at, Site site) { mbarrier_at(at, site), mbarriers.erase(at); }
static void settle(Mbarrier& m) {
  if (m.pending || m.bytes) return;
  m.phase ^= 1;
  m.pending = m.expected;
  for (Thread* each : m.waiting) each->state = State::ready;
  m.waiting.clear();
}
void mbarrier_arrive(void* at, int arrivals, Site site) {
  Mbarrier& m = mbarrier_at(at, site);
  if (arrivals > m.pending) fail("more threads arrive at an mbarrier than it was made for", site);
  m.pending -= arrivals;
  settle(m);
}
void mbarrier_expect_tx(void* at, int bytes, Site site) { mbarrier_at(at, site).bytes += bytes; }
void mbarrier_complete_tx(void* at, int bytes, Site site) {
  Mbarrier& m = mbarrier_at(at, site);
  m.bytes -= bytes;
  settle(m);
}
void mbarrier_wait(void* at, int parity, Site site) {
  Mbarrier& m = mbarrier_at(at, site);
  while (m.phase == parity) {
    m.waiting.push_back(static_cast<Thread*>(current));
    wait("an mbarrier", site);
  }
}
bool mbarrier_test(void* at, int parity, Site site) {
  yield();
  return mbarrier_at(at, site).phase != parity;
}

// ------------------------------------------------------------------------------- launch

static void explain_deadlock() {
  // Nobody can go on: say who waits where.
  std::string text;
  int done = 0;
  Thread* first = nullptr;
  for (int i = 0; i < count; i++) {
    if (threads[i]->state == State::done) done++;
    else if (!first) first = threads[i];
  }
  current = first;
  text = position() + ": waits for ever in " + first->waits_for + " at " + place(first->site);
  if (done) text += "; " + std::to_string(done) + " of " + std::to_string(count) + " threads have left the kernel";
  for (int i = 0; i < count; i++) {
    Thread* t = threads[i];
    if (t->state == State::waiting && (t->site.line != first->site.line)) {
      text += "; thread " + std::to_string(t->linear) + " waits in " + t->waits_for + " at " + place(t->site);
      break;
    }
  }
  error = text;
}

static void run_block(Block& block) {
  here = &block;
  clear_shared();
  block.dynamic_shared = block.dynamic_bytes ? take(block.dynamic_bytes) : nullptr;
  for (auto& b : barriers) b = Barrier{};
  for (auto& m : meetings) m.clear();
  for (auto& m : group_meetings) m.arrived = 0;
  pending.clear();
  mbarriers.clear();
  for (int i = 0; i < count; i++) prepare(threads[i], i, block.block_dim);
  for (int left = count; left && error.empty();) {
    bool moved = false;
    for (int k = 0; k < count; k++) {
      Thread* thread = threads[backwards ? count - 1 - k : k];
      if (thread->state != State::ready) continue;
      moved = true;
      to_thread(thread);
      if (!error.empty()) return;
      if (thread->state == State::done) left--;
    }
    if (!moved && !pending.empty()) {
      Pending next = pending.front();
      pending.pop_front();
      current = next.by;
      next.job.run(next.job.state);
      continue;
    }
    if (!moved) explain_deadlock();
  }
}

static std::string last_error;

}  // namespace emu

extern "C" __attribute__((visibility("default"))) const char* emu_launch(void (*call)(void**), const char* name, void** args,
                                  const unsigned* grid, const unsigned* block, int64_t shared,
                                  int order) {
  using namespace emu;
  body = call;
  body_args = args;
  kernel_name = name;
  backwards = order;
  error.clear();
  count = int(block[0] * block[1] * block[2]);
  while (int(threads.size()) < count) {
    auto* thread = new Thread();
    thread->stack = static_cast<unsigned char*>(
        mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    threads.push_back(thread);
  }
  Block b{{}, {block[0], block[1], block[2]}, {grid[0], grid[1], grid[2]}, nullptr, shared};
  for (unsigned z = 0; z < grid[2] && error.empty(); z++)
    for (unsigned y = 0; y < grid[1] && error.empty(); y++)
      for (unsigned x = 0; x < grid[0] && error.empty(); x++) {
        b.block = {x, y, z};
        run_block(b);
      }
  last_error = error;
  return last_error.c_str();
}

namespace emu {
float float_from_half(uint16_t bits) {
  uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent) return bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  float tiny = float(fraction) * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -tiny : tiny;
}
uint16_t half_from_float(float x) {
  _Float16 y = _Float16(x);  // to nearest, ties to even
  return bit_cast<uint16_t>(y);
}
}  // namespace emu
