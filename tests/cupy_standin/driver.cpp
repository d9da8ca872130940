// CUDA on a machine without a GPU: the driver's functions (cu…) and the runtime's (cuda…) that CuPy
// calls, for two GPUs. Device memory is host memory, set to zero when it is allocated.
// Copies and fills are done at once; kernels are counted and noted by name, and compute nothing.
//
// What a program can get wrong without computing is refused as CUDA refuses it: a kernel launched
// on another device than its module was loaded on, a stream of another device, blocks and shared
// memory beyond the limits, memory freed twice. No header of CUDA is needed: enumerations and
// handles are written as the integers and pointers that they are in the binary interface.

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

// The numbers of cudaError_t and CUresult agree for these.
enum Status {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_HANDLE = 400,
  NOT_SUPPORTED = 801,
};

constexpr size_t TOTAL_MEMORY = size_t(141) << 30, LARGEST_ALLOCATION = size_t(4) << 30;
constexpr unsigned MAX_THREADS = 1024, MAX_SHARED = 232448, DEFAULT_SHARED = 49152;
constexpr int DEVICES = 2, MULTIPROCESSORS = 132, CUDA_VERSION = 13090;

struct Block { void* raw; size_t size; int device; };
struct Module { int device; };
struct Function { int device; unsigned shared_limit; std::string name; };
struct Stream { int device; };

thread_local int current = 0;

std::mutex guard;  // of everything below
std::map<uintptr_t, Block> memory;
std::string launched;  // the names of the kernels, a line each
std::string missing;   // the names of the functions that were called and are not here

const Block* block_of(const void* pointer) {
  auto after = memory.upper_bound(uintptr_t(pointer));
  if (after == memory.begin()) return nullptr;
  auto& [start, block] = *--after;
  return uintptr_t(pointer) < start + (block.size ? block.size : 1) ? &block : nullptr;
}

const char* take(std::string& from, std::string& to) {
  std::lock_guard lock(guard);
  to.swap(from);
  from.clear();
  return to.c_str();
}

int note_launch(const char* name) {
  std::lock_guard lock(guard);
  launched += name;
  launched += '\n';
  return SUCCESS;
}

}  // namespace

// ------------------------------------------------------------------------------ for install.py

extern "C" {

struct Counts {
  long launches, waits, copies_to_host, copies_to_device, copies_on_devices, fills, allocations;
};
Counts standin_counts{};

// What has been noted since the last call; the text is valid until the next.
const char* standin_launched() {
  static std::string taken;
  return take(launched, taken);
}
const char* standin_asked_in_vain() {
  static std::string taken;
  return take(missing, taken);
}

// The device of a pointer into device memory, -1 for any other address.
int standin_device_of(const void* pointer) {
  std::lock_guard lock(guard);
  const Block* block = block_of(pointer);
  return block ? block->device : -1;
}

// What functions answer that CuPy's wheels hold and this file does not.
int standin_missing(const char* name) {
  std::lock_guard lock(guard);
  missing += name;
  missing += '\n';
  return NOT_SUPPORTED;
}

// ------------------------------------------------------------------------------------- devices

int cudaGetDevice(int* index) { *index = current; return SUCCESS; }
int cudaGetDeviceCount(int* count) { *count = DEVICES; return SUCCESS; }
int cudaSetDevice(int index) {
  if (index < 0 || index >= DEVICES) return INVALID_DEVICE;
  current = index;
  return SUCCESS;
}
int cudaDriverGetVersion(int* version) { *version = CUDA_VERSION; return SUCCESS; }
int cudaRuntimeGetVersion(int* version) { *version = CUDA_VERSION; return SUCCESS; }
int cudaDeviceSynchronize() { ++standin_counts.waits; return SUCCESS; }
// Without access to each other's memory CuPy refuses an array of another device by name.
int cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return SUCCESS; }
int cudaDeviceGetPCIBusId(char* id, int size, int index) {
  snprintf(id, size, "0000:%02x:00.0", index + 1);
  return SUCCESS;
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {  // of cudaDeviceAttr
    case 1: case 2: case 3: *value = MAX_THREADS; break;
    case 4: *value = 64; break;
    case 5: *value = 2147483647; break;
    case 6: case 7: *value = 65535; break;
    case 8: *value = DEFAULT_SHARED; break;
    case 10: *value = 32; break;        // the threads of a warp
    case 12: *value = 65536; break;     // registers per block
    case 16: *value = MULTIPROCESSORS; break;
    case 39: *value = 2048; break;      // threads per multiprocessor
    case 41: *value = 1; break;         // unified addresses
    case 75: *value = 9; break;         // compute capability
    case 76: *value = 0; break;
    case 97: *value = MAX_SHARED; break;
    case 115: *value = 1; break;        // memory pools
    default: *value = 0;
  }
  return SUCCESS;
}

int cudaGetDeviceProperties(char* properties, int index) {
  if (index < 0 || index >= DEVICES) return INVALID_DEVICE;
  memset(properties, 0, 1008);  // sizeof(cudaDeviceProp) in CUDA 13, as the places below
  auto put = [&](size_t place, auto value) { memcpy(properties + place, &value, sizeof value); };
  snprintf(properties, 256, "GPU that computes nothing");
  put(288, TOTAL_MEMORY);
  put(296, size_t(DEFAULT_SHARED));
  put(304, 65536);                                   // regsPerBlock
  put(308, 32);                                      // warpSize
  put(320, int(MAX_THREADS));
  put(324, std::array{1024, 1024, 64});              // maxThreadsDim
  put(336, std::array{2147483647, 65535, 65535});    // maxGridSize
  put(360, std::array{9, 0});                        // major, minor
  put(384, MULTIPROCESSORS);
  put(596, 60 << 20);                                // l2CacheSize
  put(604, 2048);                                    // maxThreadsPerMultiProcessor
  put(672, size_t(MAX_SHARED));                      // sharedMemPerBlockOptin
  return SUCCESS;
}

const char* cudaGetErrorName(int status) {
  return status == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaError";
}
const char* cudaGetErrorString(int status) {
  switch (status) {
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case INVALID_DEVICE: return "invalid device ordinal";
    case INVALID_HANDLE: return "invalid resource handle";
    default: return "not in tests/cupy_standin/driver.cpp";
  }
}

// -------------------------------------------------------------------------------------- memory

int cudaMalloc(void** pointer, size_t size) {
  if (size > LARGEST_ALLOCATION) return OUT_OF_MEMORY;
  constexpr size_t ALIGNMENT = 512;
  void* raw = calloc(1, size + ALIGNMENT);
  if (!raw) return OUT_OF_MEMORY;
  uintptr_t address = (uintptr_t(raw) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  std::lock_guard lock(guard);
  ++standin_counts.allocations;
  memory[address] = {raw, size, current};
  *pointer = reinterpret_cast<void*>(address);
  return SUCCESS;
}
int cudaFree(void* pointer) {
  if (!pointer) return SUCCESS;
  std::lock_guard lock(guard);
  auto found = memory.find(uintptr_t(pointer));
  if (found == memory.end()) return INVALID_VALUE;
  free(found->second.raw);
  memory.erase(found);
  return SUCCESS;
}
int cudaMallocAsync(void** pointer, size_t size, void*) { return cudaMalloc(pointer, size); }
int cudaFreeAsync(void* pointer, void*) { return cudaFree(pointer); }
int cudaHostAlloc(void** pointer, size_t size, unsigned) {
  *pointer = calloc(1, size ? size : 1);
  return *pointer ? SUCCESS : OUT_OF_MEMORY;
}
int cudaMallocHost(void** pointer, size_t size) { return cudaHostAlloc(pointer, size, 0); }
int cudaFreeHost(void* pointer) { free(pointer); return SUCCESS; }
int cudaMemGetInfo(size_t* available, size_t* total) {
  *total = TOTAL_MEMORY;
  *available = TOTAL_MEMORY - (size_t(1) << 30);
  return SUCCESS;
}

int cudaPointerGetAttributes(void* attributes, const void* pointer) {
  struct Attributes { int type, device; const void *on_device, *on_host; long reserved[8]; };
  int device = standin_device_of(pointer);
  bool there = device >= 0;  // type 2 is memory of a device, 0 memory that CUDA does not know
  *static_cast<Attributes*>(attributes) =
      {there ? 2 : 0, there ? device : -2, there ? pointer : nullptr, nullptr, {}};
  return SUCCESS;
}

int cudaMemcpy(void* to, const void* from, size_t size, int) {
  // Unified addresses say which way it goes, whatever the program calls it.
  bool to_device = standin_device_of(to) >= 0, from_device = standin_device_of(from) >= 0;
  if (from_device && to_device) ++standin_counts.copies_on_devices;
  else if (from_device) ++standin_counts.copies_to_host;
  else if (to_device) ++standin_counts.copies_to_device;
  memmove(to, from, size);
  return SUCCESS;
}
int cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void*) {
  return cudaMemcpy(to, from, size, kind);
}
int cudaMemcpyPeer(void* to, int, const void* from, int, size_t size) {
  return cudaMemcpy(to, from, size, 4);
}
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, void*) {
  return cudaMemcpy(to, from, size, 4);
}
int cudaMemset(void* to, int value, size_t size) {
  ++standin_counts.fills;
  memset(to, value, size);
  return SUCCESS;
}
int cudaMemsetAsync(void* to, int value, size_t size, void*) { return cudaMemset(to, value, size); }

// -------------------------------------------------------------------------- streams and events

int cudaStreamCreate(void** stream) { *stream = new Stream{current}; return SUCCESS; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return cudaStreamCreate(stream); }
int cudaStreamCreateWithPriority(void** stream, unsigned, int) { return cudaStreamCreate(stream); }
int cudaStreamDestroy(Stream* stream) { delete stream; return SUCCESS; }
int cudaStreamSynchronize(void*) { ++standin_counts.waits; return SUCCESS; }
int cudaStreamQuery(void*) { return SUCCESS; }
int cudaStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cudaStreamIsCapturing(void*, int* status) { *status = 0; return SUCCESS; }
int cudaEventCreate(void** event) { *event = new Stream{current}; return SUCCESS; }
int cudaEventCreateWithFlags(void** event, unsigned) { return cudaEventCreate(event); }
int cudaEventDestroy(Stream* event) { delete event; return SUCCESS; }
int cudaEventRecord(void*, void*) { return SUCCESS; }
int cudaEventQuery(void*) { return SUCCESS; }
int cudaEventSynchronize(void*) { ++standin_counts.waits; return SUCCESS; }
int cudaEventElapsedTime(float* milliseconds, void*, void*) { *milliseconds = 1; return SUCCESS; }
int cudaProfilerStart() { return SUCCESS; }
int cudaProfilerStop() { return SUCCESS; }

// ----------------------------------------------------- kernels that are linked into CuPy's wheels

struct Dim { unsigned x, y, z; };

int __cudaPushCallConfiguration(Dim, Dim, size_t, void*) { return SUCCESS; }
int __cudaPopCallConfiguration(void*, void*, size_t*, void*) { return SUCCESS; }
int __cudaGetKernel(void** kernel, void* function) { *kernel = function; return SUCCESS; }
int __cudaLaunchKernel(const void*, Dim, Dim, void**, size_t, void*) {
  ++standin_counts.launches;
  return note_launch("(of CUB or Thrust)");
}
int cudaLaunchKernel(const void* kernel, Dim grid, Dim block, void** arguments, size_t shared,
                     void* stream) {
  return __cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
int cudaLaunchKernelExC(const void*, const void* kernel, void** arguments) {
  return __cudaLaunchKernel(kernel, {}, {}, arguments, 0, nullptr);
}
int cudaFuncGetAttributes(void* attributes, const void*) {
  struct Attributes {
    size_t shared, constant, local;
    int max_threads, registers, ptx, binary, others[26];
  };
  *static_cast<Attributes*>(attributes) = {0, 0, 0, MAX_THREADS, 32, 90, 90, {}};
  return SUCCESS;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void*, int, size_t, unsigned) { *blocks = 2; return SUCCESS; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 2;
  return SUCCESS;
}
int cudaGetLastError() { return SUCCESS; }
int cudaPeekAtLastError() { return SUCCESS; }

// ---------------------------------------------------------------------------------- the driver

int cuInit(unsigned) { return SUCCESS; }
// NVRTC asks for private tables of functions; one that holds nothing but its size is empty.
int cuGetExportTable(const void** table, const void*) {
  static const size_t empty[] = {sizeof(size_t)};
  *table = empty;
  return SUCCESS;
}
int cuDriverGetVersion(int* version) { return cudaDriverGetVersion(version); }
int cuDeviceGetCount(int* count) { return cudaGetDeviceCount(count); }
int cuDeviceGet(int* device, int index) {
  *device = index;
  return index < 0 || index >= DEVICES ? INVALID_DEVICE : SUCCESS;
}
int cuDeviceGetName(char* name, int size, int) {
  snprintf(name, size, "GPU that computes nothing");
  return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t* size, int) { *size = TOTAL_MEMORY; return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  return cudaDeviceGetAttribute(value, attribute, device);
}
int cuGetErrorName(int, const char** name) { *name = "CUDA_ERROR"; return SUCCESS; }
int cuGetErrorString(int status, const char** text) {
  *text = cudaGetErrorString(status);
  return SUCCESS;
}

int cuCtxGetCurrent(void** context) { *context = reinterpret_cast<void*>(uintptr_t(current + 1)); return SUCCESS; }
int cuCtxSetCurrent(void* context) { return cudaSetDevice(int(uintptr_t(context)) - 1); }
int cuCtxGetDevice(int* device) { return cudaGetDevice(device); }

int cuModuleLoadData(Module** module, const void*) { *module = new Module{current}; return SUCCESS; }
int cuModuleLoad(Module** module, const char*) { *module = new Module{current}; return SUCCESS; }
int cuModuleUnload(Module* module) { delete module; return SUCCESS; }
int cuModuleGetFunction(Function** function, Module* module, const char* name) {
  *function = new Function{module->device, DEFAULT_SHARED, name};
  return SUCCESS;
}
int cuModuleGetGlobal_v2(void** pointer, size_t* size, Module*, const char*) {
  static char constants[1 << 16];
  *pointer = constants, *size = sizeof constants;
  return SUCCESS;
}
int cuFuncGetAttribute(int* value, int attribute, Function* function) {
  switch (attribute) {  // of CUfunction_attribute
    case 0: *value = MAX_THREADS; break;
    case 8: *value = int(function->shared_limit); break;
    default: *value = 0;
  }
  return SUCCESS;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
  if (attribute != 8) return SUCCESS;
  if (value < 0 || unsigned(value) > MAX_SHARED) return INVALID_VALUE;
  function->shared_limit = value;
  return SUCCESS;
}
int cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   Stream* stream, void**, void**) {
  uint64_t threads = uint64_t(block_x) * block_y * block_z;
  if (!threads || threads > MAX_THREADS || block_z > 64 || shared > function->shared_limit ||
      !grid_x || !grid_y || !grid_z || grid_x > 2147483647 || grid_y > 65535 || grid_z > 65535)
    return INVALID_VALUE;
  bool own = uintptr_t(stream) > 2;  // 0, 1 and 2 name the default streams of any device
  if (function->device != current || (own && stream->device != current)) return INVALID_HANDLE;
  ++standin_counts.launches;
  return note_launch(function->name.c_str());
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  *blocks = 2;
  return SUCCESS;
}
int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
  *grid = 2 * MULTIPROCESSORS, *block = 256;
  return SUCCESS;
}

int cuTensorMapEncodeTiled(void* map, int, unsigned rank, void* address, const uint64_t* shape,
                           const uint64_t* strides, const uint32_t* box, const uint32_t*, int, int,
                           int, int) {
  if (uintptr_t(map) % 64 || uintptr_t(address) % 16 || rank < 3 || rank > 5) return INVALID_VALUE;
  for (unsigned i = 0; i < rank; ++i)
    if (!shape[i] || shape[i] > uint64_t(1) << 32 || !box[i] || box[i] > 256) return INVALID_VALUE;
  for (unsigned i = 0; i + 1 < rank; ++i)
    if (strides[i] % 16 || !strides[i] || strides[i] >= uint64_t(1) << 40) return INVALID_VALUE;
  // The address stands first, so that a launch's arguments show which memory it is given.
  memset(map, 0, 128);
  memcpy(map, &address, sizeof address);
  return SUCCESS;
}

}  // extern "C"
