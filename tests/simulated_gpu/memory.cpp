// Memory: addresses of the host that nothing touches until something is copied there, so that 140 GB cost
// none.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "gpu.h"

namespace gpu {

struct Block {
  size_t bytes;
  int device;
};
static std::map<char*, Block> blocks, pinned;
static size_t used_bytes[MOST_GPUS];

static constexpr size_t GRANULE = 2 << 20;
static constexpr size_t CONTEXT_BYTES = 600ull << 20;
static constexpr size_t LARGEST_COPY = 512ull << 20;  // larger ones move nothing

static const std::pair<char* const, Block>* containing(const std::map<char*, Block>& among,
                                                       const void* address) {
  auto next = among.upper_bound((char*)address);
  if (next == among.begin()) return nullptr;
  auto& found = *--next;
  return (char*)address < found.first + found.second.bytes ? &found : nullptr;
}

bool on_a_gpu(const void* address, int* device) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  auto found = containing(blocks, address);
  if (found && device) *device = found->second.device;
  return found;
}

static bool pageable(const void* address) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  return !on_a_gpu(address) && !containing(pinned, address);
}

static cudaError_t allocate(void** address, size_t bytes) {
  if (auto error = refuse_in_a_capture("an allocation")) return error;
  std::lock_guard<std::recursive_mutex> lock(everything());
  *address = nullptr;
  bytes = (bytes + GRANULE - 1) / GRANULE * GRANULE;
  size_t& used = used_bytes[current_device()];
  if (used + bytes + CONTEXT_BYTES > settings().bytes)
    return remember(cudaErrorMemoryAllocation, "cudaMalloc");
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED) return remember(cudaErrorMemoryAllocation, "mmap");
  madvise(mapped, bytes, MADV_NOHUGEPAGE);
  blocks[(char*)mapped] = {bytes, current_device()};
  used += bytes;
  *address = mapped;
  return cudaSuccess;
}

}  // namespace gpu

using namespace gpu;

EXPORT cudaError_t cudaDeviceSynchronize();

EXPORT cudaError_t cudaMalloc(void** address, size_t bytes) { return allocate(address, bytes); }
EXPORT cudaError_t cudaMallocManaged(void** address, size_t bytes, unsigned) {
  return allocate(address, bytes);
}
EXPORT cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t) {
  return allocate(address, bytes);
}
EXPORT cudaError_t cudaFree(void* address) {
  if (!address) return cudaSuccess;
  if (auto error = refuse_in_a_capture("cudaFree")) return error;
  cudaDeviceSynchronize();
  std::lock_guard<std::recursive_mutex> lock(everything());
  auto found = blocks.find((char*)address);
  if (found == blocks.end()) return remember(cudaErrorInvalidValue, "cudaFree");
  used_bytes[found->second.device] -= found->second.bytes;
  munmap(address, found->second.bytes);
  blocks.erase(found);
  return cudaSuccess;
}
EXPORT cudaError_t cudaFreeAsync(void* address, cudaStream_t) { return cudaFree(address); }
EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = settings().bytes;
  *free = *total - CONTEXT_BYTES - used_bytes[current_device()];
  return cudaSuccess;
}
EXPORT cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  pinned[(char*)*address] = {bytes, 0};
  return cudaSuccess;
}
EXPORT cudaError_t cudaMallocHost(void** address, size_t bytes) { return cudaHostAlloc(address, bytes, 0); }
EXPORT cudaError_t cudaFreeHost(void* address) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  pinned.erase((char*)address);
  free(address);
  return cudaSuccess;
}
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* said, const void* address) {
  memset(said, 0, sizeof *said);
  if (on_a_gpu(address, &said->device)) {
    said->type = cudaMemoryTypeDevice;
    said->devicePointer = (void*)address;
    return cudaSuccess;
  }
  said->type = pageable(address) ? cudaMemoryTypeUnregistered : cudaMemoryTypeHost;
  said->device = pageable(address) ? -2 : current_device();
  said->hostPointer = (void*)address;
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t handle) {
  Stream* stream = stream_of(handle);
  bool reads_host = !on_a_gpu(from), writes_host = !on_a_gpu(to);
  if (stream->capturing && (pageable(from) || pageable(to))) {
    stream->broken = true;
    return remember(cudaErrorStreamCaptureUnsupported, "a copy of pageable memory");
  }
  if (bytes <= LARGEST_COPY) memmove(to, from, bytes);
  const char* name = reads_host ? "Memcpy HtoD" : writes_host ? "Memcpy DtoH" : "Memcpy DtoD";
  double bytes_per_s = reads_host || writes_host ? 5e10 : 2e12;
  enqueue(stream, 1.5e-6 + bytes / bytes_per_s, name, Work::copy, bytes);
  if (writes_host && pageable(to)) wait_until(stream->busy_until_s);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (auto error = refuse_in_a_capture("cudaMemcpy")) return error;
  cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  wait_until(stream_of(nullptr)->busy_until_s);
  return error;
}
EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                       cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
EXPORT cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
  if (bytes <= (1 << 20)) memset(address, value, bytes);
  enqueue(stream_of(stream), 1.5e-6 + bytes / 3e12, "Memset", Work::fill, bytes);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemset(void* address, int value, size_t bytes) {
  return cudaMemsetAsync(address, value, bytes, nullptr);
}
EXPORT cudaError_t cudaGetSymbolAddress(void** address, const void*) {
  *address = calloc(1, 1 << 16);
  return cudaSuccess;
}
