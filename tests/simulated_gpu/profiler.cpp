// CUPTI: what was asked of the GPU and when it ran, as the activity records that torch's profiler reads.
#include <cupti.h>
#include <pthread.h>

#include <cstring>
#include <set>

#include "gpu.h"

namespace gpu {

struct Slot {
  char bytes[512];
};
static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;
static CUpti_TimestampCallbackFunc timestamp;
static uint64_t first_timestamp;
static double first_s;
static bool enabled[CUPTI_ACTIVITY_KIND_COUNT];
static thread_local std::vector<uint64_t> external[16];
static uint32_t correlations;
static uint8_t* buffer;
static size_t buffer_bytes, filled_bytes;

static uint64_t in_profiler_units(double time_s) {
  if (!timestamp) {
    timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (uint64_t)(wall.tv_sec * 1e9 + wall.tv_nsec + (time_s - now_s()) * 1e9);
  }
  uint64_t stamp = timestamp();
  double passed_s = now_s() - first_s;
  double per_s = passed_s > 1e-6 ? (stamp - first_timestamp) / passed_s : 1e9;
  return (uint64_t)(stamp + (time_s - now_s()) * per_s);
}

static void hand_over() {
  if (!buffer) return;
  uint8_t* full = buffer;
  size_t bytes = filled_bytes;
  buffer = nullptr;
  complete(nullptr, 0, full, buffer_bytes, bytes);
}

template <class Activity>
static void put(const Activity& activity) {
  static_assert(sizeof(Activity) <= sizeof(Slot));
  if (buffer && filled_bytes + sizeof(Slot) > buffer_bytes) hand_over();
  if (!buffer) {
    size_t most = 0;
    filled_bytes = 0;
    request(&buffer, &buffer_bytes, &most);
    if (!buffer) return;
  }
  memset(buffer + filled_bytes, 0, sizeof(Slot));
  memcpy(buffer + filled_bytes, &activity, sizeof activity);
  filled_bytes += sizeof(Slot);
}

void record(const char* name, Work work, const Stream& stream, double asked_s, double begun_s, double ended_s,
            size_t bytes) {
  if (!enabled[CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL] || !request || !complete) return;
  uint32_t correlation = ++correlations;
  for (int kind = 0; kind < 16; kind++) {
    if (external[kind].empty()) continue;
    CUpti_ActivityExternalCorrelation link{};
    link.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
    link.externalKind = (CUpti_ExternalCorrelationKind)kind;
    link.externalId = external[kind].back();
    link.correlationId = correlation;
    put(link);
  }
  CUpti_ActivityAPI call{};
  call.kind = CUPTI_ACTIVITY_KIND_RUNTIME;
  call.cbid = work == Work::copy   ? CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_v3020
              : work == Work::fill ? CUPTI_RUNTIME_TRACE_CBID_cudaMemsetAsync_v3020
                                   : CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000;
  call.start = in_profiler_units(asked_s);
  call.end = in_profiler_units(now_s());
  call.threadId = (uint32_t)pthread_self();
  call.correlationId = correlation;
  put(call);
  if (work == Work::copy) {
    CUpti_ActivityMemcpy6 copy{};
    copy.kind = CUPTI_ACTIVITY_KIND_MEMCPY;
    copy.copyKind = strstr(name, "HtoD") ? CUPTI_ACTIVITY_MEMCPY_KIND_HTOD : CUPTI_ACTIVITY_MEMCPY_KIND_DTOH;
    copy.bytes = bytes;
    copy.start = in_profiler_units(begun_s);
    copy.end = in_profiler_units(ended_s);
    copy.deviceId = stream.device;
    copy.correlationId = correlation;
    put(copy);
    return;
  }
  static std::set<std::string> names;
  CUpti_ActivityKernel10 kernel{};
  kernel.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
  kernel.start = in_profiler_units(begun_s);
  kernel.end = in_profiler_units(ended_s);
  kernel.deviceId = stream.device;
  kernel.contextId = 1;
  kernel.correlationId = correlation;
  kernel.gridX = kernel.gridY = kernel.gridZ = kernel.blockX = kernel.blockY = kernel.blockZ = 1;
  kernel.name = names.insert(name).first->c_str();
  put(kernel);
}

}  // namespace gpu

using namespace gpu;

EXPORT CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc asks,
                                                  CUpti_BuffersCallbackCompleteFunc gives) {
  request = asks;
  complete = gives;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityRegisterTimestampCallback(CUpti_TimestampCallbackFunc clock) {
  timestamp = clock;
  first_timestamp = clock();
  first_s = now_s();
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  enabled[kind] = true;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) {
  enabled[kind] = false;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t id) {
  external[kind].push_back(id);
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t* id) {
  if (external[kind].empty()) return CUPTI_ERROR_QUEUE_EMPTY;
  if (id) *id = external[kind].back();
  external[kind].pop_back();
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityFlushAll(uint32_t) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  hand_over();
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityGetNextRecord(uint8_t* from, size_t valid_bytes, CUpti_Activity** activity) {
  uint8_t* next = *activity ? (uint8_t*)*activity + sizeof(Slot) : from;
  if (next + sizeof(Slot) > from + valid_bytes) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *activity = (CUpti_Activity*)next;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, uint32_t, size_t* dropped) {
  *dropped = 0;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiGetVersion(uint32_t* version) {
  *version = CUPTI_API_VERSION;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiSubscribe(CUpti_SubscriberHandle* subscriber, CUpti_CallbackFunc, void*) {
  *subscriber = (CUpti_SubscriberHandle)1;
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiGetResultString(CUptiResult, const char** text) {
  *text = "an error of the simulated CUPTI";
  return CUPTI_SUCCESS;
}
