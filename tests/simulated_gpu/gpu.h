// What the simulated GPUs are made of: streams whose work ends at a time, events, graphs, and who may ask.
#pragma once
#include <cuda_runtime_api.h>

#include <mutex>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace gpu {

constexpr int MOST_GPUS = 8;

struct Settings {
  int gpus;         // SIMULATED_GPUS
  size_t bytes;     // SIMULATED_GIB, of each GPU
  double launch_s;  // SIMULATED_LAUNCH_US, what a launch takes of the host
  double kernel_s;  // SIMULATED_KERNEL_US, what a kernel takes of the GPU
  int capability;   // SIMULATED_CAPABILITY, 90 for 9.0
  const char* log;  // SIMULATED_LOG, a file for what was asked and is not simulated
};
const Settings& settings();

struct Graph {
  std::vector<double> nodes_s;
  unsigned long long id;
};

struct Stream {
  int device = 0;
  int priority = 0;
  double busy_until_s = 0;  // on the host's monotonic clock
  Graph* capturing = nullptr;
  bool broken = false;  // by a call that a capture forbids
};

struct Event {
  unsigned flags = 0;
  bool recorded = false;
  double at_s = 0;
  Graph* captured = nullptr;
};

enum class Work { kernel, copy, fill };

double now_s();
void wait_until(double time_s);
void note(const std::string& what);
std::recursive_mutex& everything();

int current_device();
bool set_device(int device);
Stream* stream_of(cudaStream_t handle);
bool anything_captures();
cudaError_t remember(cudaError_t error, const char* where);
cudaError_t refuse_in_a_capture(const char* what);
cudaError_t launch(const char* name, dim3 grid, dim3 block, cudaStream_t stream);
void enqueue(Stream* stream, double seconds, const char* name, Work work = Work::kernel, size_t bytes = 0);
bool on_a_gpu(const void* address, int* device = nullptr);
int attribute(int which);

// profiler.cpp: one record for each piece of work, where a profiler listens
void record(const char* name, Work work, const Stream& stream, double asked_s, double begun_s, double ended_s,
            size_t bytes);

}  // namespace gpu
