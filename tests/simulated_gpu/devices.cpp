// Devices, their clocks and settings, errors: what an H200 says of itself.
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "gpu.h"

namespace gpu {

static double from_environment(const char* name, double otherwise) {
  const char* value = getenv(name);
  return value ? atof(value) : otherwise;
}

const Settings& settings() {
  static const Settings read = {
      (int)from_environment("SIMULATED_GPUS", 1),
      (size_t)(from_environment("SIMULATED_GIB", 139.8) * (1ull << 30)),
      from_environment("SIMULATED_LAUNCH_US", 0) * 1e-6,
      from_environment("SIMULATED_KERNEL_US", 2.5) * 1e-6,
      (int)lround(10 * from_environment("SIMULATED_CAPABILITY", 9.0)),
      getenv("SIMULATED_LOG"),
  };
  return read;
}

double now_s() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

void wait_until(double time_s) {
  for (double left_s = time_s - now_s(); left_s > 0; left_s = time_s - now_s()) {
    if (left_s < 1e-4) continue;  // the last stretch awake: sleeping is not that precise
    timespec nap = {(time_t)(left_s / 2), (long)(left_s / 2 * 1e9) % 1000000000L};
    nanosleep(&nap, nullptr);
  }
}

std::recursive_mutex& everything() {
  static std::recursive_mutex mutex;
  return mutex;
}

void note(const std::string& what) {
  static FILE* log = settings().log ? fopen(settings().log, "a") : nullptr;
  static std::set<std::string> seen;
  std::lock_guard<std::recursive_mutex> lock(everything());
  if (!log || !seen.insert(what).second) return;
  fprintf(log, "%d %s\n", getpid(), what.c_str());
  fflush(log);
}

static thread_local int device = 0;
static thread_local cudaError_t last_error = cudaSuccess;

int current_device() { return device; }

bool set_device(int number) {
  if (number < 0 || number >= settings().gpus) return false;
  device = number;
  return true;
}

cudaError_t remember(cudaError_t error, const char* where) {
  last_error = error;
  note("error " + std::to_string(error) + " from " + where);
  return error;
}

// the most of a block (CUDA C++ Programming Guide, technical specifications per compute capability)
static int shared_kib() {
  switch (settings().capability) {
    case 75:
      return 64;
    case 80:
    case 87:
      return 163;
    case 86:
    case 89:
    case 120:
    case 121:
      return 99;
    default:
      return 227;
  }
}

int attribute(int which) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return 1024;
    case cudaDevAttrMaxBlockDimZ:
      return 64;
    case cudaDevAttrMaxGridDimX:
      return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return shared_kib() << 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return (shared_kib() + 1) << 10;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return 1024;
    case cudaDevAttrTotalConstantMemory:
    case cudaDevAttrMaxRegistersPerBlock:
      return 65536;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return 65536;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrClockRate:
      return 1980000;
    case cudaDevAttrMemoryClockRate:
      return 3201000;
    case cudaDevAttrGlobalMemoryBusWidth:
      return 6016;
    case cudaDevAttrL2CacheSize:
      return 62914560;
    case cudaDevAttrTextureAlignment:
      return 512;
    case cudaDevAttrMultiProcessorCount:
      return 132;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return 2048;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return 32;
    case cudaDevAttrComputeCapabilityMajor:
      return settings().capability / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return settings().capability % 10;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
      return 1;
    default:
      return 0;
  }
}

}  // namespace gpu

using namespace gpu;

EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().gpus;
  return *count ? cudaSuccess : remember(cudaErrorNoDevice, "cudaGetDeviceCount");
}
EXPORT cudaError_t cudaGetDevice(int* number) {
  *number = device;
  return cudaSuccess;
}
EXPORT cudaError_t cudaSetDevice(int number) {
  return set_device(number) ? cudaSuccess : remember(cudaErrorInvalidDevice, "cudaSetDevice");
}
EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = attribute(which);
  return cudaSuccess;
}
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* said, int number) {
  if (number < 0 || number >= settings().gpus)
    return remember(cudaErrorInvalidDevice, "cudaGetDeviceProperties");
  memset(said, 0, sizeof *said);
  strcpy(said->name, "NVIDIA H200");
  for (int i = 0; i < 16; i++) said->uuid.bytes[i] = (char)(7 * i + number + 1);
  said->totalGlobalMem = settings().bytes;
  said->major = attribute(cudaDevAttrComputeCapabilityMajor);
  said->minor = attribute(cudaDevAttrComputeCapabilityMinor);
  said->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  said->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  said->maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  said->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  said->maxThreadsDim[0] = said->maxThreadsDim[1] = said->maxThreadsPerBlock;
  said->maxThreadsDim[2] = attribute(cudaDevAttrMaxBlockDimZ);
  said->maxGridSize[0] = attribute(cudaDevAttrMaxGridDimX);
  said->maxGridSize[1] = said->maxGridSize[2] = attribute(cudaDevAttrMaxGridDimY);
  said->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  said->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  said->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  said->reservedSharedMemPerBlock = attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  said->regsPerBlock = said->regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerBlock);
  said->totalConstMem = attribute(cudaDevAttrTotalConstantMemory);
  said->textureAlignment = attribute(cudaDevAttrTextureAlignment);
  said->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  said->memoryBusWidth = attribute(cudaDevAttrGlobalMemoryBusWidth);
  said->warpSize = attribute(cudaDevAttrWarpSize);
  said->concurrentKernels = said->unifiedAddressing = said->managedMemory = 1;
  said->pciBusID = 26 + number;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int number) {
  snprintf(text, size, "0000:%02X:00.0", 26 + number);
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
EXPORT cudaError_t cudaPeekAtLastError() { return last_error; }
EXPORT cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
EXPORT const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    default:
      return "an error of the simulated GPU";
  }
}
EXPORT const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorSimulated";
}
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult* found) {
  *function = dlsym(RTLD_DEFAULT, name);
  if (!*function) *function = dlsym(RTLD_DEFAULT, (std::string(name) + "_v2").c_str());
  if (!*function) note(std::string("no driver function ") + name);
  if (found) *found = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
EXPORT void simulated_gpu_note(const char* name) { note(std::string("does nothing: ") + name); }
