// What runtime.cpp (the scheduler) and checker.cpp (the watch over memory) share.
#pragma once

#include "emulator.h"

#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#ifndef CHECKED
#define CHECKED 0
#endif

namespace emu {

constexpr int MAX_THREADS = 1024;

struct Stack;

struct Copy {  // a cp.async that is under way
  unsigned char* to;
  const void* from;
  int bytes, valid;
  Site site;
};

struct Deferred {
  Job job;
  Region reads;
};
struct Groups {
  std::vector<Deferred> open;
  std::deque<std::vector<Deferred>> closed;
};

struct alignas(64) Thread : Fiber {  // what a switch touches lies in one cache line
  Stack* stack;           // where it waits
  const char* waits_for;  // null while it runs or can run
  Site site;
  int votes;  // what a barrier that counts tells it
  bool left;

  // cp.async: copies are done in order, so positions in the thread's sequence say how far it is.
  std::vector<Copy> copies;
  std::vector<size_t> group_ends;
  size_t copied;

  Groups bulk;  // copies from shared to global memory
};

extern Thread threads[MAX_THREADS];
extern int count;  // threads of a block of this launch
extern const char* kernel_name;

void mbarrier_expect_arrivals(void* at, int more, Site site);

inline Thread* running() { return static_cast<Thread*>(current); }

std::string position(const Thread* thread);  // kernel, block, thread
std::string name(const Thread* thread);      // thread (x, y, z)
std::string place(Site site);                // file:line
std::string place(const void* return_address);
[[noreturn]] void fail(const std::string& what, Site site);
[[noreturn]] void fail_at(const std::string& what, const void* return_address);
bool on_a_stack(const void* at);  // of a fiber

// Where shared memory lies: in the middle of a range that nobody else has, most of it without
// access, so that a wild index falls into it.
extern unsigned char* reservation;
constexpr size_t RESERVATION = 64 << 20;

// What the checker is told. It exists in the `checked` build only.
namespace check {

struct Clock {  // of[t]: up to where thread t's accesses are known to have happened
  bool far;     // threads of other warps are known too
  uint32_t of[MAX_THREADS];
};

#if CHECKED
void launch_begins(void (*kernel)(void**), const void* const* extents, int n);
void block_begins();
void shared_array(const char* name, unsigned char* at, int64_t bytes);
void block_synchronised();
void lanes_synchronised(int warp, uint32_t mask);
Clock* make_clock();
void forget(Clock* clock);
void release(Clock* clock);  // what the running thread did so far goes with whoever acquires it
void acquire(Clock* clock);
Clock* split();              // a copy of the running thread's clock, for work that goes on beside it
void act_as(Clock* clock);   // accesses are made by that work; null: by the thread again
void under_way(void* at, int64_t bytes, bool writes, Site site);
void arrived(void* at, int64_t bytes);
void wrote(void* at, int64_t bytes, Site site);
void atomic(void* at, int64_t bytes, const void* return_address);
#else
inline void launch_begins(void (*)(void**), const void* const*, int) {}
inline void block_begins() {}
inline void shared_array(const char*, unsigned char*, int64_t) {}
inline void block_synchronised() {}
inline void lanes_synchronised(int, uint32_t) {}
inline Clock* make_clock() { return nullptr; }
inline void forget(Clock*) {}
inline void release(Clock*) {}
inline void acquire(Clock*) {}
inline Clock* split() { return nullptr; }
inline void act_as(Clock*) {}
inline void under_way(void*, int64_t, bool, Site) {}
inline void arrived(void*, int64_t) {}
inline void wrote(void*, int64_t, Site) {}
inline void atomic(void*, int64_t, const void*) {}
#endif

}  // namespace check
}  // namespace emu
