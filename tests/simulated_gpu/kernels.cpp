// Launches, as torch makes them through the runtime and Triton through the driver. Nothing is computed.
#include <cuda.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "gpu.h"

namespace gpu {

cudaError_t launch(const char* name, dim3 grid, dim3 block, cudaStream_t stream) {
  bool there = grid.x && grid.y && grid.z && block.x && block.y && block.z;
  bool fits = grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535 && block.z <= 64;
  if (!there || !fits || (size_t)block.x * block.y * block.z > 1024)
    return remember(cudaErrorInvalidConfiguration, name);
  enqueue(stream_of(stream), settings().kernel_s, name);
  return cudaSuccess;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
static thread_local std::vector<Configuration> configurations;

static std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> known;
  return known;
}
static const char* name_of(const void* function) {
  auto found = names().find(function);
  return found == names().end() ? "kernel" : found->second.c_str();
}

}  // namespace gpu

using namespace gpu;

EXPORT void** __cudaRegisterFatBinary(void*) {
  static void* handle[8];
  return handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT char __cudaInitModule(void**) { return 0; }
EXPORT void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*,
                                   dim3*, dim3*, int*) {
  names()[function] = name ? name : "";
}
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  Configuration last = configurations.back();
  configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *(cudaStream_t*)stream = last.stream;
  return cudaSuccess;
}
EXPORT cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void**, size_t,
                                    cudaStream_t stream) {
  return launch(name_of(function), grid, block, stream);
}
EXPORT cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void**, size_t,
                                               cudaStream_t stream) {
  return launch(name_of(function), grid, block, stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* function, void**) {
  return launch(name_of(function), how->gridDim, how->blockDim, how->stream);
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t,
                                      cudaStream_t stream) {
  return launch(name_of((const void*)kernel), grid, block, stream);
}
EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  wait_until(stream_of(stream)->busy_until_s);
  function(data);
  return cudaSuccess;
}
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* said, const void*) {
  memset(said, 0, sizeof *said);
  said->maxThreadsPerBlock = 1024;
  said->numRegs = 32;
  said->binaryVersion = said->ptxVersion = 90;
  said->maxDynamicSharedSizeBytes = 49152;
  return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int,
                                                                          size_t, unsigned) {
  *blocks = 2;
  return cudaSuccess;
}

// the driver

static CUcontext context_of(int device) { return (CUcontext)(size_t)(device + 1); }

EXPORT CUresult cuInit(unsigned) { return settings().gpus ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
EXPORT CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetCount(int* count) {
  *count = settings().gpus;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGet(CUdevice* device, int number) {
  *device = number;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
  *value = attribute((int)which);
  return CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  *context = context_of(device);
  return CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = context_of(current_device());
  return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  return set_device((int)(size_t)context - 1) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
  *device = current_device();
  return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetLimit(size_t* value, CUlimit) {
  *value = 0;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuGetErrorString(CUresult error, const char** text) {
  static thread_local char said[64];
  snprintf(said, sizeof said, "error %d of the simulated driver", error);
  *text = said;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuModuleLoadData(CUmodule* module, const void*) {
  if (anything_captures()) note("a module was loaded inside a capture");
  *module = (CUmodule) new int;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
  *function = (CUfunction) new std::string(name);
  return CUDA_SUCCESS;
}
EXPORT CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction) {
  *value = which == CU_FUNC_ATTRIBUTE_NUM_REGS                ? 64
           : which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
                                                              : 0;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuPointerGetAttribute(void* value, CUpointer_attribute which, CUdeviceptr address) {
  int device;
  if (!on_a_gpu((void*)address, &device)) return CUDA_ERROR_INVALID_VALUE;
  if (which == CU_POINTER_ATTRIBUTE_DEVICE_POINTER)
    *(CUdeviceptr*)value = address;
  else
    *(int*)value = device;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  cudaStreamCaptureStatus said;
  cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
  cudaStreamIsCapturing((cudaStream_t)stream, &said);
  *status = (CUstreamCaptureStatus)said;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig* how, CUfunction function, void**, void**) {
  auto stream = (cudaStream_t)how->hStream;
  if ((int)how->sharedMemBytes > attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))
    return CUDA_ERROR_INVALID_VALUE;
  if (stream_of(stream)->device != current_device()) {
    note("a launch on another device's stream");
    return CUDA_ERROR_INVALID_HANDLE;
  }
  dim3 grid(how->gridDimX, how->gridDimY, how->gridDimZ),
      block(how->blockDimX, how->blockDimY, how->blockDimZ);
  return (CUresult)launch(((std::string*)function)->c_str(), grid, block, stream);
}
EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                               unsigned block_x, unsigned block_y, unsigned block_z, unsigned,
                               CUstream stream, void**, void**) {
  dim3 grid(grid_x, grid_y, grid_z), block(block_x, block_y, block_z);
  return (CUresult)launch("kernel", grid, block, (cudaStream_t)stream);
}
EXPORT CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction, const CUlaunchConfig*) {
  *clusters = 66;
  return CUDA_SUCCESS;
}
EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
  *blocks = 2;
  return CUDA_SUCCESS;
}
