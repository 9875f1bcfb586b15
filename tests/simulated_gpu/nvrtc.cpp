// NVRTC: every program compiles, to nothing.
#include <cstddef>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

static constexpr size_t BYTES = 16;

EXPORT int nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return 0;
}
EXPORT int nvrtcCreateProgram(void** program, ...) {
  *program = new int;
  return 0;
}
EXPORT int nvrtcDestroyProgram(void**) { return 0; }
EXPORT int nvrtcCompileProgram(void*, int, const char**) { return 0; }
EXPORT int nvrtcAddNameExpression(void*, const char*) { return 0; }
EXPORT int nvrtcGetLoweredName(void*, const char* name, const char** lowered) {
  *lowered = name;
  return 0;
}
static int size(void*, size_t* bytes) {
  *bytes = BYTES;
  return 0;
}
static int nothing(void*, char* bytes) {
  memset(bytes, 0, BYTES);
  return 0;
}
EXPORT int nvrtcGetPTXSize(void* program, size_t* bytes) { return size(program, bytes); }
EXPORT int nvrtcGetCUBINSize(void* program, size_t* bytes) { return size(program, bytes); }
EXPORT int nvrtcGetProgramLogSize(void* program, size_t* bytes) { return size(program, bytes); }
EXPORT int nvrtcGetPTX(void* program, char* bytes) { return nothing(program, bytes); }
EXPORT int nvrtcGetCUBIN(void* program, char* bytes) { return nothing(program, bytes); }
EXPORT int nvrtcGetProgramLog(void* program, char* bytes) { return nothing(program, bytes); }
EXPORT const char* nvrtcGetErrorString(int) { return "an error of the simulated NVRTC"; }
