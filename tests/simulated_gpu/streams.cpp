// Streams, events and graphs: work that ends later than it is asked for, and what a capture forbids.
#include <map>
#include <set>

#include "gpu.h"

namespace gpu {

static std::set<Stream*> streams;
static Stream defaults[MOST_GPUS];
static int captures = 0;
static unsigned long long graphs = 0;
static thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

Stream* stream_of(cudaStream_t handle) {
  if (handle != nullptr && handle != cudaStreamLegacy && handle != cudaStreamPerThread)
    return (Stream*)handle;
  Stream* stream = &defaults[current_device()];
  stream->device = current_device();
  return stream;
}

bool anything_captures() { return captures > 0; }

cudaError_t refuse_in_a_capture(const char* what) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  if (!captures || capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (Stream* stream : streams) stream->broken |= stream->capturing != nullptr;
  return remember(cudaErrorStreamCaptureUnsupported, what);
}

void enqueue(Stream* stream, double seconds, const char* name, Work work, size_t bytes) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  if (stream->capturing) {
    stream->capturing->nodes_s.push_back(seconds);
    return;
  }
  double asked_s = now_s();
  if (settings().launch_s > 0) wait_until(asked_s + settings().launch_s);
  double begun_s = std::max(stream->busy_until_s, now_s());
  stream->busy_until_s = begun_s + seconds;
  record(name, work, *stream, asked_s, begun_s, stream->busy_until_s, bytes);
}

}  // namespace gpu

using namespace gpu;

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned, int priority) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  auto* stream = new Stream;
  stream->device = current_device();
  stream->priority = priority;
  streams.insert(stream);
  *handle = (cudaStream_t)stream;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* handle) {
  return cudaStreamCreateWithPriority(handle, 0, 0);
}
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, 0);
}
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  streams.erase(stream_of(handle));
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  *priority = stream_of(handle)->priority;
  return cudaSuccess;
}
static cudaError_t looked_at_while_capturing(Stream* stream, const char* what) {
  if (!stream->capturing) return cudaSuccess;
  stream->broken = true;
  return remember(cudaErrorStreamCaptureUnsupported, what);
}
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Stream* stream = stream_of(handle);
  if (auto error = looked_at_while_capturing(stream, "cudaStreamSynchronize")) return error;
  if (auto error = refuse_in_a_capture("cudaStreamSynchronize of another stream")) return error;
  wait_until(stream->busy_until_s);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Stream* stream = stream_of(handle);
  if (auto error = looked_at_while_capturing(stream, "cudaStreamQuery")) return error;
  return stream->busy_until_s <= now_s() ? cudaSuccess : cudaErrorNotReady;
}
EXPORT cudaError_t cudaDeviceSynchronize() {
  if (auto error = refuse_in_a_capture("cudaDeviceSynchronize")) return error;
  double until_s = stream_of(nullptr)->busy_until_s;
  {
    std::lock_guard<std::recursive_mutex> lock(everything());
    for (Stream* stream : streams)
      if (stream->device == current_device()) until_s = std::max(until_s, stream->busy_until_s);
  }
  wait_until(until_s);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  Stream* stream = stream_of(handle);
  auto* awaited = (Event*)event;
  if (awaited->captured)
    stream->capturing = awaited->captured;  // it joins the capture
  else if (!stream->capturing && awaited->recorded)
    stream->busy_until_s = std::max(stream->busy_until_s, awaited->at_s);
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = (cudaEvent_t) new Event{flags};
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete (Event*)event;
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  Stream* stream = stream_of(on);
  auto* event = (Event*)handle;
  event->recorded = true;
  event->captured = stream->capturing;
  if (!stream->capturing) event->at_s = std::max(stream->busy_until_s, now_s());
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  if (auto error = refuse_in_a_capture("cudaEventQuery")) return error;
  auto* event = (Event*)handle;
  if (event->captured)
    return remember(cudaErrorStreamCaptureUnsupported, "cudaEventQuery of a captured event");
  return !event->recorded || event->at_s <= now_s() ? cudaSuccess : cudaErrorNotReady;
}
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (auto error = refuse_in_a_capture("cudaEventSynchronize")) return error;
  wait_until(((Event*)event)->at_s);
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  auto *begun = (Event*)from, *ended = (Event*)to;
  bool untimed = (begun->flags | ended->flags) & cudaEventDisableTiming;
  if (untimed || !begun->recorded || !ended->recorded)
    return remember(cudaErrorInvalidResourceHandle, "elapsed");
  if (std::max(begun->at_s, ended->at_s) > now_s()) return cudaErrorNotReady;
  *ms = (float)((ended->at_s - begun->at_s) * 1e3);
  return cudaSuccess;
}

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, capture_mode);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  if (!handle) return remember(cudaErrorStreamCaptureUnsupported, "a capture of the default stream");
  Stream* stream = stream_of(handle);
  stream->capturing = new Graph{{}, ++graphs};
  stream->broken = false;
  captures++;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  std::lock_guard<std::recursive_mutex> lock(everything());
  Stream* ended = stream_of(handle);
  Graph* captured = ended->capturing;
  *graph = nullptr;
  if (!captured) return remember(cudaErrorIllegalState, "cudaStreamEndCapture");
  for (Stream* stream : streams)
    if (stream->capturing == captured) stream->capturing = nullptr;
  captures--;
  if (ended->broken) return remember(cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture");
  note("a graph of " + std::to_string(captured->nodes_s.size()) + " nodes");
  *graph = (cudaGraph_t)captured;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  Stream* stream = stream_of(handle);
  *status = !stream->capturing ? cudaStreamCaptureStatusNone
            : stream->broken   ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                            unsigned long long* id, cudaGraph_t* graph,
                                            const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges,
                                            size_t* count) {
  Graph* captured = stream_of(handle)->capturing;
  cudaStreamIsCapturing(handle, status);
  if (id) *id = captured ? captured->id : 0;
  if (graph) *graph = (cudaGraph_t)captured;
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = (cudaGraphExec_t) new Graph(*(Graph*)graph);
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph,
                                                 unsigned long long flags) {
  return cudaGraphInstantiate(made, graph, flags);
}
EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  double seconds = 0;
  for (double node_s : ((Graph*)graph)->nodes_s) seconds += node_s;
  enqueue(stream_of(stream), seconds, "graph");
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = ((Graph*)graph)->nodes_s.size();
  return cudaSuccess;
}
