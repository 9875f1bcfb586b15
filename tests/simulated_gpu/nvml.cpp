// NVML: a GPU that is warm, runs at one clock and draws 300 W.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#define EXPORT extern "C" __attribute__((visibility("default")))

static constexpr int NOT_FOUND = 6, INVALID_ARGUMENT = 2;
static constexpr unsigned POWER_MW = 300000;

static unsigned long long memory_bytes() {
  const char* said = getenv("SIMULATED_GIB");
  return said ? (unsigned long long)(atof(said) * (1ull << 30)) : 150754820096ull;
}
static int gpus() {
  const char* said = getenv("SIMULATED_GPUS");
  return said ? atoi(said) : 1;
}
static void write_uuid(int device, char* text, unsigned size) {
  unsigned at = snprintf(text, size, "GPU");
  for (int i = 0; i < 16; i++) {
    bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
    at += snprintf(text + at, size - at, "%s%02x", dash ? "-" : "", (unsigned char)(7 * i + device + 1));
  }
}
static int number_of(void* device) { return (int)(size_t)device - 1; }

EXPORT int nvmlInit_v2() { return 0; }
EXPORT int nvmlInitWithFlags(unsigned) { return 0; }
EXPORT int nvmlShutdown() { return 0; }
EXPORT const char* nvmlErrorString(int) { return "an error of the simulated NVML"; }
EXPORT int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  return snprintf(text, size, "simulated") < 0;
}
EXPORT int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = gpus();
  return 0;
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if ((int)index >= gpus()) return INVALID_ARGUMENT;
  *device = (void*)(size_t)(index + 1);
  return 0;
}
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** device) {
  return nvmlDeviceGetHandleByIndex_v2(0, device);
}
EXPORT int nvmlDeviceGetHandleByUUID(const char* wanted, void** device) {
  for (int i = 0; i < gpus(); i++) {
    char text[80];
    write_uuid(i, text, sizeof text);
    if (strcmp(text, wanted) == 0) return nvmlDeviceGetHandleByIndex_v2(i, device);
  }
  return NOT_FOUND;
}
EXPORT int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
  write_uuid(number_of(device), text, size);
  return 0;
}
EXPORT int nvmlDeviceGetName(void*, char* text, unsigned size) {
  return snprintf(text, size, "NVIDIA H200") < 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = memory_bytes();
  total_free_used[2] = 700ull << 20;
  total_free_used[1] = total_free_used[0] - total_free_used[2];
  return 0;
}
EXPORT int nvmlDeviceGetClockInfo(void*, int, unsigned* mhz) {
  *mhz = 1980;
  return 0;
}
EXPORT int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) {
  *celsius = 41;
  return 0;
}
EXPORT int nvmlDeviceGetPowerUsage(void*, unsigned* mw) {
  *mw = POWER_MW;
  return 0;
}
EXPORT int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* mj) {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  *mj = (unsigned long long)((time.tv_sec + 1e-9 * time.tv_nsec) * POWER_MW);
  return 0;
}
EXPORT int nvmlDeviceGetCurrentClocksEventReasons(void*, unsigned long long* reasons) {
  *reasons = 1;  // idle
  return 0;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, void*) {
  *count = 0;
  return 0;
}
