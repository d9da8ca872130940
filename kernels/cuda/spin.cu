// A kernel that does nothing for a given time. Queued before a call that is to be timed, it keeps
// the GPU busy until the host has queued all of the call: then the time between two events around
// the call is the GPU's alone.
#include "ptx.cuh"

// One thread. elapsed[0]: the nanoseconds that it took.
extern "C" __global__ void spin(int64* elapsed, int64 nanoseconds) {
  const int64 start = nanoseconds_now();
  int64 passed = 0;
  while (passed < nanoseconds) passed = nanoseconds_now() - start;
  elapsed[0] = passed;
}
