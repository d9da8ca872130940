// The emulator's scheduler: runs the threads of a block as fibers, one block after another.
//
// A thread runs until it has to wait (at a barrier, for the other lanes of its warp, for a copy) and
// hands over to the next thread that can go on. Threads that have not begun are started one after
// another on the same stack; a thread that waits keeps its stack, and the next one gets another. So
// a kernel without barriers needs one stack and no switch at all.
//
// Whoever can go on does so before new threads are started. With `order` 1 threads start from the
// last to the first and blocks run from the last to the first: what only works in one order lacks a
// barrier. When nobody can go on, an asynchronous copy arrives; when there is none, the launch ends
// with a message that says who waits where.
//
// Everything here is compiled without instrumentation: what the scheduler does is never taken for a
// kernel's access. After a message the fibers of that launch are dropped where they stand.
#include "runtime.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define POISON(at, bytes) (void)0
#define UNPOISON(at, bytes) (void)0
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace emu {

Fiber* current;
Block* here;
Thread threads[MAX_THREADS];
int count;
const char* kernel_name = "";

static std::string error;

// ------------------------------------------------------------------------------ stacks
//
// swapcontext saves the signal mask with a system call per switch. The assembly saves the registers
// that a call preserves, and changes stacks; processors that have none here take swapcontext.

struct Stack {
  void* sp;
  unsigned char* bottom;
  size_t bytes;
  void* sanitizers;  // AddressSanitizer's notion of this stack, while it is left
#if !defined(__x86_64__) && !defined(__aarch64__) || defined(EMU_SWAPCONTEXT)
  ucontext_t context;
#endif
};

#if defined(EMU_SWAPCONTEXT) || !defined(__x86_64__) && !defined(__aarch64__)

static void switch_stacks(Stack* from, Stack* to) { swapcontext(&from->context, &to->context); }
static void enter_at(Stack* stack, void (*entry)(), size_t offset) {
  getcontext(&stack->context);
  stack->context.uc_stack.ss_sp = stack->bottom;
  stack->context.uc_stack.ss_size = stack->bytes - offset;
  stack->context.uc_link = nullptr;
  makecontext(&stack->context, entry, 0);
}

#else

#if defined(__x86_64__)
constexpr int SAVED = 6, ENTRY = 6;
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
constexpr int SAVED = 20, ENTRY = 11;  // x19 to x30, d8 to d15; x30 is where to go
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch,%function
emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emu_switch,.-emu_switch
)");
#endif
extern "C" void emu_switch(void** save, void* to);

static void switch_stacks(Stack* from, Stack* to) { emu_switch(&from->sp, to->sp); }
static void enter_at(Stack* stack, void (*entry)(), size_t offset) {
  // As emu_switch leaves a stack. On x86-64 a function begins with its return address at a multiple
  // of 16 plus 8.
  void** top = reinterpret_cast<void**>(stack->bottom + stack->bytes - offset - 64);
#if defined(__x86_64__)
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
#endif
  for (int r = SAVED; r-- > 0;) *--top = r == ENTRY ? reinterpret_cast<void*>(entry) : nullptr;
  stack->sp = top;
}

#endif

constexpr size_t STACK = 128 << 10, PAGE = 64 << 10;  // the largest page of the usual systems

static unsigned char* stacks;  // one range, each stack above a page that nobody may touch
static Stack fibers[MAX_THREADS + 1], scheduler;
static Stack* idle[MAX_THREADS + 1];
static int idle_count, stack_count;
static Stack* active = &scheduler;

static Stack* take_stack() {
  if (idle_count) return idle[--idle_count];
  if (!stacks) {
    void* made = mmap(nullptr, (STACK + PAGE) * (MAX_THREADS + 1), PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) abort();
    stacks = static_cast<unsigned char*>(made);
  }
  Stack* stack = &fibers[stack_count];
  stack->bottom = stacks + (STACK + PAGE) * stack_count++ + PAGE;
  stack->bytes = STACK;
  mprotect(stack->bottom, STACK, PROT_READ | PROT_WRITE);
  return stack;
}

bool on_a_stack(const void* at) {
  auto* byte = static_cast<const unsigned char*>(at);
  return byte >= stacks && byte < stacks + (STACK + PAGE) * (MAX_THREADS + 1);
}

// Go on on another stack. `ends`: nothing of this one is needed any more.
static void jump(Stack* to, bool ends) {
  Stack* from = active;
  active = to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from->sanitizers, to->bottom, to->bytes);
#endif
  switch_stacks(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(active->sanitizers, nullptr, nullptr);
#endif
  (void)ends;
}

static void begin(Stack* stack, void (*entry)()) {
  // Stacks that begin at the same place in their pages would fight for a few lines of the cache.
  enter_at(stack, entry, size_t(stack - fibers) % 32 * 320);
  stack->sanitizers = nullptr;
}

// ----------------------------------------------------------------------------- messages

std::string name(const Thread* thread) {
  char text[80];
  snprintf(text, sizeof text, "thread (%u, %u, %u)", thread->thread.x, thread->thread.y,
           thread->thread.z);
  return text;
}

std::string position(const Thread* thread) {
  char text[80];
  snprintf(text, sizeof text, ", block (%u, %u, %u), ", here->block.x, here->block.y, here->block.z);
  return kernel_name + (text + name(thread));
}

std::string place(Site site) {
  const char* file = strrchr(site.file, '/');
  return std::string(file ? file + 1 : site.file) + ":" + std::to_string(site.line);
}

// Python looks the line up: @@library+offset@@.
std::string place(const void* return_address) {
  Dl_info info{};
  if (!dladdr(return_address, &info)) return "";
  char text[32];
  snprintf(text, sizeof text, "+%#zx@@", size_t(return_address) - size_t(info.dli_fbase) - 1);
  return std::string("@@") + info.dli_fname + text;
}

// "lane 3", "lanes 0-15, 31"
static std::string lanes(uint32_t mask) {
  std::string text = mask & (mask - 1) ? "lanes " : "lane ";
  for (int i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    int first = i;
    while (i < 31 && mask >> (i + 1) & 1) i++;
    if (text.back() != ' ') text += ", ";
    text += std::to_string(first);
    if (i > first) text += "-" + std::to_string(i);
  }
  return text;
}

[[noreturn]] static void drop_launch() {
  jump(&scheduler, true);
  abort();
}

// "kernel, block (x, y, z), thread (x, y, z), file:line: what"
static std::string message(const Thread* thread, const std::string& where, const std::string& what) {
  return position(thread) + (where.empty() ? "" : ", " + where) + ": " + what;
}

void fail(const std::string& what, Site site) {
  error = message(running(), site.file ? place(site) : "", what);
  drop_launch();
}
void fail(const char* what, Site site) { fail(std::string(what), site); }
void fail_at(const std::string& what, const void* return_address) {
  error = message(running(), place(return_address), what);
  drop_launch();
}

// -------------------------------------------------------------------------- who runs next

struct Ring {  // each thread is in it at most once
  Thread* items[2 * MAX_THREADS];
  unsigned head, tail;
  bool empty() const { return head == tail; }
  void push(Thread* thread) { items[tail++ % (2 * MAX_THREADS)] = thread; }
  Thread* pop() { return items[head++ % (2 * MAX_THREADS)]; }
};
static Ring ready;
static int started, finished;
static unsigned idle_turns;  // turns given away since a thread last came further
static bool backwards;
static void (*body)(void**);
static void** body_args;

struct Pending {
  Job job;
  Thread* by;
  Region writes;
  check::Clock* clock;
};
static std::deque<Pending> pending;  // asynchronous copies of the block
static bool dirty;                   // a thread has copies or groups of its own

static void wake(Thread* thread) {
  thread->waits_for = nullptr;
  idle_turns = 0;
  ready.push(thread);
}

// Copies are not ordered among themselves: with `order` 1 the last one arrives first.
static void run_pending() {
  Pending next = backwards ? pending.back() : pending.front();
  if (backwards) pending.pop_back();
  else pending.pop_front();
  Fiber* before = current;
  current = next.by;
  check::arrived(next.writes.at, next.writes.bytes);
  check::act_as(next.clock);
  next.job.run(next.job.state);
  check::act_as(nullptr);
  check::forget(next.clock);
  current = before;
  idle_turns = 0;
}

static void run_threads();

// Hand over to whoever can go on; comes back when this thread's turn has come. Null: this fiber's
// threads are all done, and it comes back if there are threads to start.
static void hand_over(Thread* me) {
  for (;;) {
    if (!ready.empty()) {
      Thread* next = ready.pop();
      if (!ready.empty()) {
        char* sp = static_cast<char*>(ready.items[ready.head % (2 * MAX_THREADS)]->stack->sp);
        __builtin_prefetch(sp), __builtin_prefetch(sp + 64), __builtin_prefetch(sp + 128);
      }
      current = next;
      if (next == me) return;
      if (!me) idle[idle_count++] = active;
      jump(next->stack, !me);
      return;
    }
    if (started < count) {
      if (!me) return;
      Stack* fresh = take_stack();
      begin(fresh, run_threads);
      jump(fresh, false);
      return;
    }
    if (!pending.empty()) {
      run_pending();
      continue;
    }
    if (!me) idle[idle_count++] = active;
    jump(&scheduler, !me);  // the block is done, or nobody can go on
    abort();
  }
}

static void run_threads() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!scheduler.bottom) {  // the first fiber of a launch is entered from there
    scheduler.bottom = static_cast<unsigned char*>(const_cast<void*>(bottom));
    scheduler.bytes = bytes;
  }
#endif
  for (;;) {
    while (started < count && ready.empty()) {
      int i = backwards ? count - 1 - started : started;
      started++;
      idle_turns = 0;
      current = &threads[i];
      running()->left = false;
      running()->waits_for = nullptr;
      body(body_args);
      Thread* me = running();
      if (!me->bulk.closed.empty() || !me->bulk.open.empty())
        fail("the thread leaves the kernel while bulk copies still read its shared memory (wait for the group)",
             {nullptr, 0});
      me->left = true;
      finished++;
    }
    hand_over(nullptr);
  }
}

static void wait(const char* what, Site site) {
  Thread* me = running();
  me->waits_for = what;
  me->site = site;
  me->stack = active;
  hand_over(me);
}

void yield(Site site) {
  Thread* me = running();
  idle_turns++;
  if (idle_turns > 2u * count && !pending.empty()) run_pending();
  if (idle_turns > 10000u * count)
    fail("waits in a loop for what no thread of this block will do (blocks run one after another)",
         site);
  me->stack = active;
  if (started < count) {  // somebody new comes first, or they would starve
    Stack* fresh = take_stack();
    begin(fresh, run_threads);
    ready.push(me);
    jump(fresh, false);
    return;
  }
  ready.push(me);
  hand_over(me);
}

// ---------------------------------------------------------------------------- barriers

static bool same(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

struct Barrier {
  int arrived, expected, votes, waiting;
  Site site;
  check::Clock* clock;
  Thread* who[MAX_THREADS];
};
static Barrier block_barrier, named_barriers[16];

static void release_all(Barrier& b) {
  b.arrived = 0;
  for (int i = 0; i < b.waiting; i++) {
    b.who[i]->votes = b.votes;
    wake(b.who[i]);
  }
  b.waiting = 0;
  b.votes = 0;
}

int barrier(int vote, const char* what, Site site) {
  Barrier& b = block_barrier;
  if (b.arrived && !same(b.site, site))
    fail(std::string(what) + " is reached by some threads of the block, and the one at " +
         place(b.site) + " by others", site);
  b.site = site;
  b.votes += vote != 0;
  Thread* me = running();
  if (++b.arrived < count) {
    b.who[b.waiting++] = me;
    wait(what, site);
    return me->votes;
  }
  int votes = b.votes;
  release_all(b);
  check::block_synchronised();
  return votes;
}

static void named(int id, int expected, bool waits, const char* what, Site site) {
  if (id < 0 || id > 15)
    fail(std::string(what) + ": there is no barrier " + std::to_string(id) + ", they are 0 to 15", site);
  if (expected <= 0 || expected % 32 || expected > count)
    fail(std::string(what) + " for " + std::to_string(expected) +
         " threads: it takes a multiple of 32, up to the block's " + std::to_string(count), site);
  Barrier& b = named_barriers[id];
  if (b.arrived && b.expected != expected)
    fail(std::string(what) + " of barrier " + std::to_string(id) + " is for " +
         std::to_string(expected) + " threads, and for " + std::to_string(b.expected) + " at " +
         place(b.site), site);
  if (!b.clock) b.clock = check::make_clock();
  check::release(b.clock);
  b.site = site;
  b.expected = expected;
  if (++b.arrived == expected) release_all(b);
  else if (waits) {
    b.who[b.waiting++] = running();
    wait(what, site);
  }
  if (waits) check::acquire(b.clock);
}

void named_barrier(int id, int threads, Site site) { named(id, threads, true, "bar.sync", site); }
void named_barrier_arrive(int id, int threads, Site site) {
  named(id, threads, false, "bar.arrive", site);
}

// --------------------------------------------------------------------- warp operations

struct Meeting {  // lanes that come together for one warp operation
  const char* what;
  uint32_t mask, arrived;
  Site site;
  void* lanes[32];
};
struct Warp {
  int meetings;  // their masks have no lane in common
  Meeting at[32];
};
static Warp warps[MAX_THREADS / 32];

static void check_mask(const char* what, uint32_t mask, Site site) {
  Thread* me = running();
  if (!(mask >> me->lane & 1))
    fail(std::string(what) + " is called by a lane that its mask leaves out", site);
  int present = count - me->warp * 32;
  if (present < 32 && mask >> present)
    fail(std::string(what) + " names " + emu::lanes(mask >> present << present) +
         " in its mask, which the block of " + std::to_string(count) + " threads does not have", site);
}

void collective(const char* what, uint32_t mask, void* mine, Collective compute, Site site) {
  Thread* me = running();
  Warp& warp = warps[me->warp];
  Meeting* met = std::find_if(warp.at, warp.at + warp.meetings,
                              [&](Meeting& m) { return m.mask & mask; });
  if (met == warp.at + warp.meetings || !(mask >> me->lane & 1)) {
    check_mask(what, mask, site);
    met = &warp.at[warp.meetings++];
    met->what = what, met->mask = mask, met->arrived = 0, met->site = site;
  } else if (met->mask != mask || !same(met->site, site) || strcmp(met->what, what)) {
    fail(std::string(what) + " of " + emu::lanes(mask) + " is called, while " +
         emu::lanes(met->arrived) + " of the warp " + (met->arrived & (met->arrived - 1) ? "wait" : "waits") +
         " in " + met->what + " of " + emu::lanes(met->mask) + " at " + place(met->site), site);
  }
  met->arrived |= 1u << me->lane;
  met->lanes[me->lane] = mine;
  if (met->arrived != mask) return wait(what, site);
  compute(met->lanes, mask);
  Thread* first = &threads[me->warp * 32];
  for (int k = 0; k < 32; k++) {
    int i = backwards ? 31 - k : k;
    if (mask >> i & 1 && i != me->lane) wake(first + i);
  }
  if (met != &warp.at[--warp.meetings]) *met = warp.at[warp.meetings];
}

void sync_warp(uint32_t mask, Site site) {
  int nothing = 0;
  collective("__syncwarp", mask, &nothing, [](void**, uint32_t members) {
    check::lanes_synchronised(running()->warp, members);
  }, site);
}

void check_source(uint32_t mask, int lane, Site site) {
  if (!(mask >> (lane & 31) & 1))
    fail("a shuffle of " + lanes(mask) + " reads from lane " + std::to_string(lane) +
         ", which its mask leaves out", site);
}

struct WarpGroup {
  int arrived;
  const char* what;
  Site site;
  void* mine[128];
  // wgmma belongs to the group: whoever waits first lets it happen for all.
  Groups wgmma;
  check::Clock* clock;
};
static WarpGroup warpgroups[MAX_THREADS / 128];

void collective_group(const char* what, void* mine, void (*compute)(void**), Site site) {
  Thread* me = running();
  int group = me->linear / 128;
  WarpGroup& g = warpgroups[group];
  if (count < (group + 1) * 128)
    fail(std::string(what) + " takes four whole warps, which the block of " + std::to_string(count) +
         " threads does not have here", site);
  if (!g.arrived) g.what = what, g.site = site;
  if (!same(g.site, site) || strcmp(g.what, what))
    fail(std::string(what) + " is called, while other threads of the warpgroup wait in " +
         g.what + " at " + place(g.site), site);
  g.mine[me->linear % 128] = mine;
  if (++g.arrived < 128) return wait(what, site);
  g.arrived = 0;
  compute(g.mine);
  for (int k = 0; k < 128; k++) {
    Thread* each = &threads[group * 128 + (backwards ? 127 - k : k)];
    if (each != me) wake(each);
  }
}

// ------------------------------------------------------------------------ shared memory
//
// Every array begins at a multiple of its alignment and of nothing more, between redzones.

constexpr int64_t STATIC_LIMIT = 48 << 10, DYNAMIC_LIMIT = 227 << 10;
constexpr size_t ARENA = 1 << 20, REDZONE = 512;

unsigned char* reservation;
static unsigned char* arena;
static size_t used;
static int64_t static_bytes;
static uint64_t generation;

static unsigned char* take(const char* name, int64_t bytes, size_t align) {
  size_t start = (used + REDZONE + 2 * align - 1) / (2 * align) * (2 * align) + align;
  used = start + bytes;
  if (used > ARENA) fail("too many arrays in shared memory", {nullptr, 0});
  UNPOISON(arena + start, bytes);
  memset(arena + start, 0xff, bytes);  // NaN for floats: what nobody wrote shows in the result
  check::shared_array(name, arena + start, bytes);
  return arena + start;
}

static void clear_shared() {
  if (!reservation) {
    void* made = mmap(nullptr, RESERVATION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) abort();
    reservation = static_cast<unsigned char*>(made);
    arena = reservation + RESERVATION / 2;
    mprotect(arena, ARENA, PROT_READ | PROT_WRITE);
    used = ARENA;
  }
  if (used) POISON(arena, used);
  used = 0;
  static_bytes = 0;
  generation++;
}

void* shared(SharedKey& key, int64_t bytes) {
  if (key.generation != generation) {
    key.generation = generation;
    static_bytes += bytes;
    if (static_bytes > STATIC_LIMIT)
      fail("static shared memory is limited to 48 KiB, " + std::string(key.name) + " makes it " +
           std::to_string(static_bytes) + " bytes (use DYNAMIC_SHARED)", key.site);
    key.memory = take(key.name, bytes, 128);
  }
  return key.memory;
}

// ------------------------------------------------------------------ asynchronous copies
//
// Nothing arrives before it is waited for: a kernel that reads too early reads what was there.

void cp_async(void* to, const void* from, int bytes, int valid, Site site) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes))
    fail("cp.async: an address is not a multiple of the size of the copy", site);
  dirty = true;
  check::under_way(to, bytes, true, site);
  running()->copies.push_back({static_cast<unsigned char*>(to), from, bytes, valid, site});
}

static void copy_until(Thread* me, size_t end) {
  for (; me->copied < end; me->copied++) {
    Copy& copy = me->copies[me->copied];
    check::arrived(copy.to, copy.bytes);
    check::wrote(copy.to, copy.bytes, copy.site);
    if (copy.valid) memcpy(copy.to, copy.from, copy.valid);
    memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
  }
}

void cp_async_commit() {
  dirty = true;
  running()->group_ends.push_back(running()->copies.size());
}

void cp_async_wait(int groups_left) {
  Thread* me = running();
  int groups = int(me->group_ends.size());
  if (groups > groups_left) copy_until(me, me->group_ends[groups - groups_left - 1]);
}

void cp_async_mbarrier_arrive(void* at, bool noinc, Site site) {
  if (!noinc) mbarrier_expect_arrivals(at, 1, site);
  size_t end = running()->copies.size();
  async_copy({nullptr, 0}, [at, end, site] {
    copy_until(running(), end);
    mbarrier_arrive(at, 1, site);
  }, site);
}

void async_copy(Region writes, Job run, Site site) {
  check::under_way(writes.at, writes.bytes, true, site);
  pending.push_back({run, running(), writes, check::split()});
}

static Groups& groups_of(Queue queue) {
  Thread* me = running();
  return queue == Queue::bulk ? me->bulk : warpgroups[me->linear / 128].wgmma;
}

void defer(Queue queue, Region reads, Job run, Site site) {
  dirty = true;
  check::under_way(reads.at, reads.bytes, false, site);
  groups_of(queue).open.push_back({run, reads});
}

static void commit(Groups& groups) {
  dirty = true;
  groups.closed.push_back(std::move(groups.open));
  groups.open.clear();
}

void commit_group(Queue queue, Site site) {
  if (queue == Queue::bulk) return commit(running()->bulk);
  collective_group("wgmma.commit_group", nullptr, [](void**) { commit(groups_of(Queue::wgmma)); }, site);
}

void wait_group(Queue queue, int groups_left, Site) {
  Groups& groups = groups_of(queue);
  while (int(groups.closed.size()) > groups_left) {
    std::vector<Deferred> group = std::move(groups.closed.front());
    groups.closed.pop_front();
    for (Deferred each : group) {
      check::arrived(each.reads.at, each.reads.bytes);
      each.job.run(each.job.state);
    }
  }
  if (queue == Queue::bulk) return;
  WarpGroup& g = warpgroups[running()->linear / 128];
  if (!g.clock) g.clock = check::make_clock();
  check::release(g.clock);
  check::acquire(g.clock);
}

void atomic_access(void* at, int bytes, const void* from) { check::atomic(at, bytes, from); }

// --------------------------------------------------------------------------- mbarriers

struct Mbarrier {
  void* at;
  int expected, pending, phase;
  int64_t bytes;
  std::vector<Thread*> waiting;
  check::Clock *arriving, *arrived;
};
static std::vector<Mbarrier> mbarriers;

// What stands in its eight bytes: whoever writes over them is found out.
static uint64_t mark(void* at) { return reinterpret_cast<uint64_t>(at) * 0x9e3779b97f4a7c15ull | 1; }

static Mbarrier* find_mbarrier(void* at) {
  for (Mbarrier& each : mbarriers)
    if (each.at == at) return &each;
  return nullptr;
}

static Mbarrier& mbarrier_at(void* at, const char* what, Site site) {
  Mbarrier* found = find_mbarrier(at);
  if (!found) fail(std::string(what) + " on an mbarrier that was not initialised", site);
  uint64_t bits;
  memcpy(&bits, at, 8);
  if (bits != mark(at))
    fail(std::string(what) + " on an mbarrier whose bytes were written over", site);
  return *found;
}

static void settle(Mbarrier& m) {
  if (m.pending || m.bytes) return;
  m.phase ^= 1;
  m.pending = m.expected;
  std::swap(m.arriving, m.arrived);
  for (Thread* each : m.waiting) wake(each);
  m.waiting.clear();
  idle_turns = 0;
}

void mbarrier_init(void* at, int arrivals, Site site) {
  if (reinterpret_cast<uintptr_t>(at) % 8) fail("mbarrier.init: the address is not a multiple of 8", site);
  if (arrivals < 1 || arrivals >= 1 << 20) fail("mbarrier.init: it counts from 1 to 1048575 arrivals", site);
  if (find_mbarrier(at)) fail("mbarrier.init of an mbarrier that was not invalidated", site);
  check::wrote(at, 8, site);
  uint64_t bits = mark(at);
  memcpy(at, &bits, 8);
  mbarriers.push_back({at, arrivals, arrivals, 0, 0, {}, check::make_clock(), check::make_clock()});
}

static void forget_mbarrier(Mbarrier& m) { check::forget(m.arriving), check::forget(m.arrived); }

void mbarrier_invalidate(void* at, Site site) {
  Mbarrier& m = mbarrier_at(at, "mbarrier.inval", site);
  if (!m.waiting.empty()) fail("mbarrier.inval while threads wait for it", site);
  forget_mbarrier(m);
  mbarriers.erase(mbarriers.begin() + (&m - mbarriers.data()));
}

void mbarrier_expect_arrivals(void* at, int more, Site site) {
  mbarrier_at(at, "mbarrier.arrive", site).pending += more;
}

void mbarrier_arrive(void* at, int arrivals, Site site) {
  Mbarrier& m = mbarrier_at(at, "mbarrier.arrive", site);
  if (arrivals > m.pending)
    fail("more arrivals at an mbarrier than the " + std::to_string(m.expected) + " it was made for", site);
  check::release(m.arriving);
  m.pending -= arrivals;
  settle(m);
}

void mbarrier_expect_tx(void* at, int bytes, Site site) {
  mbarrier_at(at, "mbarrier.expect_tx", site).bytes += bytes;
}

void mbarrier_complete_tx(void* at, int bytes, Site site) {
  Mbarrier& m = mbarrier_at(at, "mbarrier.complete_tx", site);
  check::release(m.arriving);
  m.bytes -= bytes;
  settle(m);
}

void mbarrier_wait(void* at, int parity, Site site) {
  while (mbarrier_at(at, "mbarrier.try_wait", site).phase == parity) {
    mbarrier_at(at, "mbarrier.try_wait", site).waiting.push_back(running());
    wait("mbarrier.try_wait", site);
  }
  check::acquire(mbarrier_at(at, "mbarrier.try_wait", site).arrived);
}

bool mbarrier_test(void* at, int parity, Site site) {
  if (mbarrier_at(at, "mbarrier.test_wait", site).phase == parity) yield(site);
  Mbarrier& m = mbarrier_at(at, "mbarrier.test_wait", site);
  if (m.phase == parity) return false;
  check::acquire(m.arrived);
  return true;
}

// --------------------------------------------------------------------- nobody can go on

static std::string missing(const Thread* thread) {
  const Warp& warp = warps[thread->warp];
  for (int i = 0; i < warp.meetings; i++)
    if (warp.at[i].mask >> thread->lane & 1 && !strcmp(warp.at[i].what, thread->waits_for))
      return " for " + lanes(warp.at[i].mask & ~warp.at[i].arrived);
  for (const Mbarrier& m : mbarriers)
    if (std::count(m.waiting.begin(), m.waiting.end(), thread))
      return " (" + std::to_string(m.pending) + " of " + std::to_string(m.expected) +
             " arrivals and " + std::to_string(m.bytes) + " bytes have not come)";
  return "";
}

static std::string group_of(int size, const Thread* first) {
  return size == 1 ? name(first) : std::to_string(size) + " threads, among them " + name(first);
}

static void explain_deadlock() {
  Thread* first = std::find_if(threads, threads + count, [](Thread& t) { return !t.left; });
  error = message(first, place(first->site), std::string("waits for ever in ") + first->waits_for +
                                                 missing(first));
  std::vector<bool> told(count);
  for (int i = 0; i < count; i++) {
    const Thread* one = &threads[i];
    auto alike = [&](const Thread& t) {
      return t.left == one->left && (t.left || (t.waits_for == one->waits_for && same(t.site, one->site)));
    };
    if (told[i]) continue;
    int size = 0;
    for (int j = i; j < count; j++)
      if (alike(threads[j])) told[j] = true, size++;
    if (alike(*first)) {
      if (size > 1) error += size == 2 ? ", like another thread" : ", like " + std::to_string(size - 1) + " others";
    } else if (one->left) {
      error += "; " + group_of(size, one) + (size == 1 ? " has" : ", have") + " left the kernel";
    } else {
      error += "; " + group_of(size, one) + (size == 1 ? " waits in " : ", wait in ") +
               one->waits_for + " at " + place(one->site);
    }
  }
}

// ------------------------------------------------------------------------------- launch

static void forget_copies() {
  if (!dirty) return;
  dirty = false;
  for (int i = 0; i < count; i++) {
    Thread& t = threads[i];
    t.copies.clear();
    t.group_ends.clear();
    t.copied = 0;
    t.bulk.open.clear();
    t.bulk.closed.clear();
  }
}

static void forget_waiting() {
  for (Barrier* b = named_barriers; b < named_barriers + 16; b++) b->arrived = b->waiting = 0;
  block_barrier.arrived = block_barrier.waiting = block_barrier.votes = 0;
  for (int w = 0; w * 32 < count; w++) warps[w].meetings = 0;
  for (int g = 0; g * 128 < count; g++) {
    warpgroups[g].arrived = 0;
    warpgroups[g].wgmma.open.clear();
    warpgroups[g].wgmma.closed.clear();
  }
  forget_copies();
  for (Pending& each : pending) check::forget(each.clock);
  pending.clear();
  for (Mbarrier& each : mbarriers) forget_mbarrier(each);
  mbarriers.clear();
}

static void run_block(Block& block) {
  here = &block;
  clear_shared();
  check::block_begins();
  current = &threads[0];
  block.dynamic_shared = block.dynamic_bytes ? take(nullptr, block.dynamic_bytes, 1024) : nullptr;
  ready.head = ready.tail = 0;
  started = finished = 0;
  Stack* fresh = take_stack();
  begin(fresh, run_threads);
  jump(fresh, false);
  if (!error.empty()) return;
  if (finished < count) return explain_deadlock();
}

static void run_blocks(Block& block) {
  uint64_t x = block.grid_dim.x, y = block.grid_dim.y, all = x * y * block.grid_dim.z;
  for (uint64_t k = 0; k < all && error.empty(); k++) {
    uint64_t i = backwards ? all - 1 - k : k;
    block.block = {unsigned(i % x), unsigned(i / x % y), unsigned(i / (x * y))};
    run_block(block);
    forget_waiting();
  }
}

static std::string refuse(const unsigned* grid, const unsigned* block, int64_t shared,
                          int blocks_in_one) {
  auto dims = [](const unsigned* d) {
    return "(" + std::to_string(d[0]) + ", " + std::to_string(d[1]) + ", " + std::to_string(d[2]) + ")";
  };
  uint64_t size = uint64_t(block[0]) * block[1] * block[2];
  if (!size || block[0] > 1024 || block[1] > 1024 || block[2] > 64 || size > MAX_THREADS)
    return "a block of " + dims(block) + " threads: it has 1 to 1024, at most 64 along z";
  if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
    return "a grid of " + dims(grid) + " blocks: it has 1 to 2147483647 along x, to 65535 along y and z";
  if (shared < 0 || shared > DYNAMIC_LIMIT * blocks_in_one)
    return std::to_string(shared / blocks_in_one) + " bytes of dynamic shared memory: a block has up to " +
           std::to_string(DYNAMIC_LIMIT);
  return "";
}

// ----------------------------------------------------------------------------- signals

// A wild address or a stack that is used up ends the launch with a message, not the process.
#if !defined(__SANITIZE_ADDRESS__)
static sigjmp_buf launch_point;
static struct sigaction before[3];
constexpr int SIGNALS[3] = {SIGSEGV, SIGBUS, SIGFPE};

static const void* signalled_at(void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  return reinterpret_cast<const char*>(registers.gregs[REG_RIP]) + 1;
#elif defined(__aarch64__)
  return reinterpret_cast<const char*>(registers.pc) + 1;
#else
  return (void)registers, nullptr;
#endif
}

static const void* fault_place;

static void on_signal(int signal, siginfo_t* info, void* context) {
  if (active == &scheduler) {  // not a kernel's doing: let it happen again without us
    for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    return;
  }
  fault_place = signalled_at(context);
  siglongjmp(launch_point, 1 + (signal == SIGFPE ? 2 : on_a_stack(info->si_addr) ? 1 : 0));
}

// Whoever had the signals before gets what is not a kernel's doing.
static void watch_signals() {
  struct sigaction now{};
  sigaction(SIGSEGV, nullptr, &now);
  if (now.sa_sigaction == on_signal) return;
  stack_t have{};
  sigaltstack(nullptr, &have);
  if (have.ss_flags & SS_DISABLE) {
    static unsigned char alternative[64 << 10];
    stack_t ours{};
    ours.ss_sp = alternative;
    ours.ss_size = sizeof alternative;
    sigaltstack(&ours, nullptr);
  }
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &action, &before[i]);
}

static void run_watched(Block& block) {
  watch_signals();
  static const char* const WHAT[] = {
      "reads or writes memory that no array holds", "the thread's stack of 128 KiB is used up",
      "an integer is divided by zero"};
  if (int what = sigsetjmp(launch_point, 0)) {
    active = &scheduler;
    error = message(running(), place(fault_place), WHAT[what - 1]);
  } else {
    run_blocks(block);
  }
}
#else
static void on_report(const char*) {
  if (active == &scheduler) return;
  fprintf(stderr, "gradlab emulator: %s\n", position(running()).c_str());
}

static void run_watched(Block& block) {
  __asan_set_error_report_callback(on_report);
  run_blocks(block);
}
#endif

static void lay_out_threads(uint3 dim) {
  scheduler.bottom = nullptr;
  count = int(dim.x * dim.y * dim.z);
  for (int i = 0; i < count; i++) {
    Thread& t = threads[i];
    t.linear = i;
    t.lane = i % 32;
    t.warp = i / 32;
    t.thread = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
  }
}

}  // namespace emu

// Runs a grid. The result is empty, or what went wrong. `blocks_in_one`: how many blocks of a
// cluster each emulated block stands for (see ptx.h), which share out its shared memory. `extents`: where the arrays that the kernel
// may use begin and end, `extent_count` of them; -1 where that is not known.
EXPORT const char* emu_launch(void (*call)(void**), const char* name, void** args,
                              const unsigned* grid, const unsigned* block, int64_t shared,
                              int blocks_in_one, int order, const void* const* extents,
                              int extent_count) {
  using namespace emu;
  error = refuse(grid, block, shared, blocks_in_one);
  if (!error.empty()) {
    error = std::string(name) + " is launched with " + error;
    return error.c_str();
  }
  body = call;
  body_args = args;
  kernel_name = name;
  backwards = order;
  lay_out_threads({block[0], block[1], block[2]});
  check::launch_begins(call, extents, extent_count);
  static Block b;
  b = {{}, {block[0], block[1], block[2]}, {grid[0], grid[1], grid[2]}, nullptr, shared};
  run_watched(b);
  if (!error.empty()) {  // the fibers stand where they stood: take their stacks back
    forget_waiting();
    for (idle_count = 0; idle_count < stack_count; idle_count++) idle[idle_count] = &fibers[idle_count];
    UNPOISON(stacks, (STACK + PAGE) * stack_count);
  }
  current = nullptr;
  return error.c_str();
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
  uint32_t bits = bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return uint16_t(sign | 0x7e00);                  // NaN
  if (size >= 0x477ff000) return uint16_t(sign | 0x7c00);                 // 65520 and above
  if (size < 0x38800000) {                                                // below 2^-14
    float scaled = bit_cast<float>(size) * 16777216.0f;                   // in units of 2^-24
    return uint16_t(sign | uint32_t(std::nearbyint(scaled)));
  }
  uint32_t odd = size >> 13 & 1;
  return uint16_t(sign | ((size + 0xfff + odd - (112u << 23)) >> 13));
}

}  // namespace emu
