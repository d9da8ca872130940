// The `checked` build's watch over memory.
//
// Kernels are compiled with the compiler's instrumentation for ThreadSanitizer, which calls a
// function before each access to memory; the functions are these, and ThreadSanitizer itself is not
// there. Of every byte of shared memory they know whether it was written, who wrote it last and who
// read it since, and so find what lies outside of every array, what nobody wrote, and races:
// accesses of two threads, one of them writing, that no barrier puts in an order.
//
// The order is kept in vector clocks. A thread's clock says, for each thread of the block, up to
// when that one's accesses are known to have happened. Barriers, __syncwarp and mbarriers hand
// clocks on; shuffles and votes do not, for CUDA gives them no order of accesses. What came before
// the last __syncthreads() happened before everything after it.
//
// Of global memory they know the arrays that the launch named, if it did.
#include "runtime.h"

#if CHECKED

#include <link.h>

#include <algorithm>
#include <cstdlib>

namespace emu::check {

struct Record {  // an access: when, from where and by whom
  uint32_t when, from, who;
  unsigned thread() const { return who & 0xffff; }
  bool atomic() const { return who >> 16; }
};
struct Cell {  // of one byte
  Record write;
  Record reads[2];  // the first one since the last write, and the last one
  bool written, in_flight, held;  // held: an asynchronous copy still reads it
};

constexpr size_t ARENA = 1 << 20;
static Cell* cells;
static unsigned char* arena;

struct SharedArray {
  const char* name;
  unsigned char *begin, *end;
};
static std::vector<SharedArray> arrays;

// ------------------------------------------------------------------------------- clocks

static Clock clocks[MAX_THREADS];
static Clock* acting;   // whose clock the accesses have, where not the running thread's
static uint32_t ticks;  // goes up with everything that orders accesses
static uint32_t floor_;  // accesses before it happened before everything that follows
static uint32_t floor_of_block, last_block;

static Clock& clock_of(const Thread* thread) {
  Clock& clock = clocks[thread->linear];
  uint32_t& now = clock.of[thread->linear];
  if (now < floor_) {  // since the last __syncthreads() the thread has heard of nobody
    now = floor_;
    clock.far = false;
  }
  return clock;
}

static Clock& my_clock() { return acting ? *acting : clock_of(running()); }

static void join(Clock& to, const Clock& from, const Thread* of) {
  int begin = of->warp * 32, end = std::min(begin + 32, count);
  if (from.far) begin = 0, end = count, to.far = true;
  for (int t = begin; t < end; t++) to.of[t] = std::max(to.of[t], from.of[t]);
}

void block_synchronised() { floor_ = ++ticks; }

void lanes_synchronised(int warp, uint32_t mask) {
  static Clock all;
  all.far = false;
  std::fill(all.of, all.of + count, 0);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) join(all, clock_of(&threads[warp * 32 + i]), &threads[warp * 32 + i]);
  ++ticks;
  for (int i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    Thread* thread = &threads[warp * 32 + i];
    join(clocks[thread->linear], all, thread);
    clocks[thread->linear].of[thread->linear] = ticks;
  }
}

static std::vector<Clock*> unused;

Clock* make_clock() {
  if (unused.empty()) unused.push_back(new Clock);
  Clock* clock = unused.back();
  unused.pop_back();
  clock->far = true;
  std::fill(clock->of, clock->of + MAX_THREADS, 0);
  return clock;
}

void forget(Clock* clock) { unused.push_back(clock); }

void release(Clock* clock) {
  Clock& mine = my_clock();
  join(*clock, mine, running());
  clock->of[running()->linear] = std::max(clock->of[running()->linear], mine.of[running()->linear]);
  if (!acting) mine.of[running()->linear] = ++ticks;
}

void acquire(Clock* clock) { join(my_clock(), *clock, running()); }

Clock* split() {
  Clock* made = make_clock();
  release(made);
  return made;
}

void act_as(Clock* clock) { acting = clock; }

// ----------------------------------------------------------------------------- messages

static ElfW(Addr) kernel_begin, kernel_end, runtime_begin, runtime_end;

static std::string size_of(int64_t bytes) {
  return bytes == 1 ? "1 byte" : std::to_string(bytes) + " bytes";
}

static std::string shared_name(const SharedArray& array) {
  return array.name ? std::string("the shared array ") + array.name : "the dynamic shared memory";
}

static std::string of_array(const unsigned char* at) {
  for (const SharedArray& each : arrays)
    if (at >= each.begin && at < each.end)
      return "byte " + std::to_string(at - each.begin) + " of " + shared_name(each);
  return "shared memory";
}

// Where an access begins that does not lie in the array.
static std::string beside(const unsigned char* at, const unsigned char* begin, const unsigned char* end,
                          const std::string& array) {
  std::string where = at < begin ? size_of(begin - at) + " before "
                      : at < end ? size_of(end - at) + " before the end of "
                                 : size_of(at - end) + " past the end of ";
  return ", beginning " + where + array + " (" + size_of(end - begin) + ")";
}

static int64_t distance(const unsigned char* at, const unsigned char* begin, const unsigned char* end) {
  return at < begin ? begin - at : at < end ? 0 : at - end;
}

static std::string beside_shared(const unsigned char* at) {
  if (arrays.empty()) return " of shared memory, of which the kernel has none";
  auto nearest = std::min_element(arrays.begin(), arrays.end(), [&](auto& a, auto& b) {
    return distance(at, a.begin, a.end) < distance(at, b.begin, b.end);
  });
  return beside(at, nearest->begin, nearest->end, shared_name(*nearest));
}

static std::string did(const Record& record, const char* what) {
  std::string where = record.from ? place(reinterpret_cast<void*>(kernel_begin + record.from)) : "";
  return name(&threads[record.thread()]) + " " + what + (where.empty() ? "" : " at " + where);
}

// ------------------------------------------------------------------------------- arrays

static std::vector<std::pair<const unsigned char*, const unsigned char*>> extents;
static bool extents_known;

static int find_module(dl_phdr_info* info, size_t, void* wanted) {
  auto& range = *static_cast<std::pair<ElfW(Addr), ElfW(Addr)>*>(wanted);
  ElfW(Addr) begin = ElfW(Addr)(-1), end = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    begin = std::min(begin, info->dlpi_addr + segment.p_vaddr);
    end = std::max(end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
  }
  if (range.first < begin || range.first >= end) return 0;
  range = {begin, (end + 4095) & ~ElfW(Addr)(4095)};
  return 1;
}

static void find_module(const void* inside, ElfW(Addr)& begin, ElfW(Addr)& end) {
  std::pair<ElfW(Addr), ElfW(Addr)> range{reinterpret_cast<ElfW(Addr)>(inside), 0};
  dl_iterate_phdr(find_module, &range);
  begin = range.first, end = range.second;
}

void launch_begins(void (*kernel)(void**), const void* const* pointers, int n) {
  if (!cells) {
    cells = static_cast<Cell*>(calloc(ARENA, sizeof(Cell)));
    find_module(reinterpret_cast<const void*>(&current), runtime_begin, runtime_end);
  }
  find_module(reinterpret_cast<const void*>(kernel), kernel_begin, kernel_end);
  extents.clear();
  extents_known = n >= 0;
  for (int i = 0; i < n; i++)
    extents.push_back({static_cast<const unsigned char*>(pointers[2 * i]),
                       static_cast<const unsigned char*>(pointers[2 * i + 1])});
}

void block_begins() {
  if (ticks > 1u << 31) {  // before they run over: all of it happened before
    std::fill(cells, cells + ARENA, Cell{});
    std::fill(clocks, clocks + MAX_THREADS, Clock{});
    ticks = 0;
  }
  arena = reservation + RESERVATION / 2;
  arrays.clear();
  acting = nullptr;
  floor_ = floor_of_block = ++ticks;
}

void shared_array(const char* name, unsigned char* at, int64_t bytes) {
  arrays.push_back({name, at, at + bytes});
  for (Cell* cell = cells + (at - arena); cell < cells + (at - arena) + bytes; cell++)
    cell->written = cell->in_flight = cell->held = false;
}

// ------------------------------------------------------------------------------ accesses

enum class Kind { read, write, atomic };

static bool ordered(const Record& record, const Clock& clock, unsigned me) {
  return record.when < floor_ || record.thread() == me || record.when <= clock.of[record.thread()];
}

struct Access {
  unsigned char* at;
  int64_t bytes;
  Kind kind;
  const void* from;
  Site site;  // where `from` is null
};

[[noreturn]] static void refuse(const Access& access, const std::string& what) {
  if (access.from) fail_at(what, access.from);
  fail(what, access.site);
}

static const char* verb(Kind kind) {
  return kind == Kind::read ? "reads " : kind == Kind::write ? "writes " : "changes atomically ";
}

[[noreturn]] static void race(const Access& access, unsigned char* at, const char* what,
                              const Record& other) {
  refuse(access, std::string("a race: ") + verb(access.kind) + of_array(at) + ", which " +
                     did(other, what) + ", with no barrier between");
}

[[gnu::noinline]] static void explain(const Cell& cell, const Access& access, unsigned char* at,
                                     const Record& now, const Clock& clock) {
  bool writes = access.kind != Kind::read;
  if (cell.in_flight)
    refuse(access, verb(access.kind) + of_array(at) + " while an asynchronous copy to it is under way");
  if (writes && cell.held)
    refuse(access, verb(access.kind) + of_array(at) + " while an asynchronous copy still reads it");
  if (access.kind != Kind::write && !cell.written)
    refuse(access, "reads " + of_array(at) + ", which nobody has written");
  if (!ordered(cell.write, clock, now.thread()) && !(now.atomic() && cell.write.atomic()))
    race(access, at, "wrote", cell.write);
  for (const Record& read : cell.reads)
    if (!ordered(read, clock, now.thread())) race(access, at, "read", read);
  abort();
}

static bool right(const Cell& cell, Kind kind, const Record& now, const Clock& clock) {
  if (cell.in_flight) return false;
  if (cell.written) {
    if (!ordered(cell.write, clock, now.thread()) && !(now.atomic() && cell.write.atomic())) return false;
  } else if (kind != Kind::write) {
    return false;
  }
  return kind == Kind::read || (!cell.held && ordered(cell.reads[0], clock, now.thread()) &&
                                ordered(cell.reads[1], clock, now.thread()));
}

static void note(Cell& cell, Kind kind, const Record& now, const Clock& clock) {
  if (kind == Kind::read) {
    cell.reads[!ordered(cell.reads[0], clock, now.thread())] = now;
  } else {
    cell.write = now;
    cell.written = true;
  }
}

static void check_shared(const Access& access) {
  static SharedArray last;  // where the last access was
  unsigned char* end = access.at + access.bytes;
  if (last_block != floor_of_block || access.at < last.begin || end > last.end) {
    auto found = std::find_if(arrays.begin(), arrays.end(), [&](const SharedArray& each) {
      return access.at >= each.begin && end <= each.end;
    });
    if (found == arrays.end())
      refuse(access, verb(access.kind) + size_of(access.bytes) + beside_shared(access.at));
    last = *found;
    last_block = floor_of_block;
  }
  int me = running()->linear;
  const Clock& clock = my_clock();
  uint32_t from = access.from ? uint32_t(reinterpret_cast<ElfW(Addr)>(access.from) - kernel_begin) : 0;
  Record now{clock.of[me], from, uint32_t(me) | uint32_t(access.kind == Kind::atomic) << 16};
  Cell* cell = cells + (access.at - arena);
  for (int64_t i = 0; i < access.bytes; i++, cell++) {
    if (!right(*cell, access.kind, now, clock)) explain(*cell, access, access.at + i, now, clock);
    note(*cell, access.kind, now, clock);
  }
}

static void check_global(const Access& access) {
  auto address = reinterpret_cast<ElfW(Addr)>(access.at);
  if (address - runtime_begin < runtime_end - runtime_begin) return;  // threadIdx and its like
  const unsigned char* end = access.at + access.bytes;
  for (const auto& each : extents)
    if (access.at >= each.first && end <= each.second) return;
  if (on_a_stack(access.at) || address - kernel_begin < kernel_end - kernel_begin) return;
  auto nearest = std::min_element(extents.begin(), extents.end(), [&](auto& a, auto& b) {
    return distance(access.at, a.first, a.second) < distance(access.at, b.first, b.second);
  });
  std::string where = " that belong to no array of the arguments";
  if (nearest != extents.end() && distance(access.at, nearest->first, nearest->second) < 1 << 30)
    where = beside(access.at, nearest->first, nearest->second,
                   "array argument " + std::to_string(nearest - extents.begin()));
  refuse(access, verb(access.kind) + size_of(access.bytes) + where);
}

static void check(const Access& access) {
  if (!current) return;  // no kernel runs
  if (size_t(access.at - reservation) < RESERVATION) check_shared(access);
  else if (extents_known) check_global(access);
}

void atomic(void* at, int64_t bytes, const void* from) {
  check({static_cast<unsigned char*>(at), bytes, Kind::atomic, from, {}});
}

void wrote(void* at, int64_t bytes, Site site) {
  check({static_cast<unsigned char*>(at), bytes, Kind::write, nullptr, site});
}

static Cell* cells_of(void* at) {
  size_t offset = size_t(static_cast<unsigned char*>(at) - arena);
  return at && offset < ARENA ? cells + offset : nullptr;
}

void under_way(void* at, int64_t bytes, bool writes, Site site) {
  if (!cells_of(at)) return;
  check({static_cast<unsigned char*>(at), bytes, writes ? Kind::write : Kind::read, nullptr, site});
  for (Cell* cell = cells_of(at); bytes-- > 0; cell++) (writes ? cell->in_flight : cell->held) = true;
}

void arrived(void* at, int64_t bytes) {
  if (!cells_of(at)) return;
  for (Cell* cell = cells_of(at); bytes-- > 0; cell++) cell->in_flight = cell->held = false;
}

}  // namespace emu::check

// ----------------------------------------------- what instrumented code calls before an access

#define CALLED extern "C" __attribute__((visibility("default"))) void
#define TOLD(name, kind, size)                                                                  \
  CALLED __tsan_##name(void* at) {                                                              \
    emu::check::check({static_cast<unsigned char*>(at), size, emu::check::Kind::kind,           \
                       __builtin_return_address(0), {}});                                       \
  }
#define TOLD_SIZE(size)        \
  TOLD(read##size, read, size) \
  TOLD(write##size, write, size)
#define TOLD_UNALIGNED(size)             \
  TOLD(unaligned_read##size, read, size) \
  TOLD(unaligned_write##size, write, size)

TOLD_SIZE(1)
TOLD_SIZE(2)
TOLD_SIZE(4)
TOLD_SIZE(8)
TOLD_SIZE(16)
TOLD_UNALIGNED(2)
TOLD_UNALIGNED(4)
TOLD_UNALIGNED(8)
TOLD_UNALIGNED(16)

CALLED __tsan_read_range(void* at, unsigned long bytes) {
  emu::check::check({static_cast<unsigned char*>(at), int64_t(bytes), emu::check::Kind::read,
                     __builtin_return_address(0), {}});
}
CALLED __tsan_write_range(void* at, unsigned long bytes) {
  emu::check::check({static_cast<unsigned char*>(at), int64_t(bytes), emu::check::Kind::write,
                     __builtin_return_address(0), {}});
}
CALLED __tsan_init() {}
CALLED __tsan_func_entry(void*) {}
CALLED __tsan_func_exit() {}

#endif  // CHECKED
