// cuBLAS and cuDNN: a handle knows its stream, a product takes the time of its FLOPs, every plan is
// supported.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "gpu.h"

using namespace gpu;

struct Handle {
  cudaStream_t stream;
  int math_mode, pointer_mode;
};

static int made(void** thing) {
  *thing = calloc(1, 4096);
  return 0;
}
static int opened(void** handle) {
  if (anything_captures()) note("a library was opened inside a capture");
  return made(handle);
}

static constexpr double WIDE_FLOPS_PER_S = 5e13, NARROW_FLOPS_PER_S = 6e14;

static int product(cudaStream_t stream, double m, double n, double k, double flops_per_s) {
  enqueue(stream_of(stream), 2e-6 + 2 * m * n * k / flops_per_s, "gemm");
  return 0;
}

EXPORT int cublasCreate_v2(void** handle) { return opened(handle); }
EXPORT int cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
  handle->stream = stream;
  return 0;
}
EXPORT int cublasGetMathMode(Handle* handle, int* mode) {
  *mode = handle->math_mode;
  return 0;
}
EXPORT int cublasSetMathMode(Handle* handle, int mode) {
  handle->math_mode = mode;
  return 0;
}
EXPORT int cublasGetPointerMode_v2(Handle* handle, int* mode) {
  *mode = handle->pointer_mode;
  return 0;
}
EXPORT int cublasSetPointerMode_v2(Handle* handle, int mode) {
  handle->pointer_mode = mode;
  return 0;
}
EXPORT const char* cublasGetStatusString(int) { return "an error of the simulated cuBLAS"; }
EXPORT int cublasGemmEx(Handle* handle, int, int, int m, int n, int k, ...) {
  return product(handle->stream, m, n, k, NARROW_FLOPS_PER_S);
}
EXPORT int cublasSgemm_v2(Handle* handle, int, int, int m, int n, int k, ...) {
  return product(handle->stream, m, n, k, WIDE_FLOPS_PER_S);
}
EXPORT int cublasDgemm_v2(Handle* handle, int, int, int m, int n, int k, ...) {
  return product(handle->stream, m, n, k, WIDE_FLOPS_PER_S);
}
EXPORT int cublasGemmStridedBatchedEx(Handle* handle, int, int, int m, int n, int k, ...) {
  return product(handle->stream, m, n, k, NARROW_FLOPS_PER_S);
}
EXPORT int cublasSgemmStridedBatched(Handle* handle, int, int, int m, int n, int k, ...) {
  return product(handle->stream, m, n, k, WIDE_FLOPS_PER_S);
}

struct Layout {
  double rows, columns;
};
EXPORT size_t cublasLtGetVersion() { return 130100; }
EXPORT int cublasLtMatmulDescCreate(void** description, ...) { return made(description); }
EXPORT int cublasLtMatmulPreferenceCreate(void** preference) { return made(preference); }
EXPORT int cublasLtMatrixLayoutCreate(Layout** layout, int, uint64_t rows, uint64_t columns, int64_t) {
  *layout = new Layout{(double)rows, (double)columns};
  return 0;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* results,
                                          int* count) {
  constexpr size_t RESULT_BYTES = 96;
  memset(results, 0, RESULT_BYTES);
  *count = 1;
  return 0;
}
EXPORT int cublasLtMatmul(void*, void*, const void*, const void*, Layout* a, const void*, Layout*,
                          const void*, const void*, Layout*, void*, Layout* d, const void*, void*, size_t,
                          cudaStream_t stream) {
  double depth = a->rows * a->columns / (d->rows > 0 ? d->rows : 1);
  return product(stream, d->rows, d->columns, depth, NARROW_FLOPS_PER_S);
}

static size_t cudnn_version() {
  const char* said = getenv("SIMULATED_CUDNN");
  return said ? atoi(said) : 91900;
}
EXPORT size_t cudnnGetVersion() { return cudnn_version(); }
EXPORT size_t cudnnGetCudartVersion() { return CUDART_VERSION; }
EXPORT int cudnnGetProperty(int which, int* value) {
  int version = (int)cudnn_version();
  *value = which == 0 ? version / 10000 : which == 1 ? version / 100 % 100 : version % 100;
  return 0;
}
EXPORT const char* cudnnGetErrorString(int) { return "an error of the simulated cuDNN"; }
EXPORT void cudnnGetLastErrorString(char* text, size_t size) {
  if (size) *text = 0;
}
EXPORT int cudnnCreate(void** handle) { return opened(handle); }
EXPORT int cudnnSetStream(Handle* handle, cudaStream_t stream) {
  handle->stream = stream;
  return 0;
}
EXPORT int cudnnGetStream(Handle* handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return 0;
}
EXPORT int cudnnCreateActivationDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnCreateConvolutionDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnCreateDropoutDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnCreateFilterDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnCreatePoolingDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnCreateTensorDescriptor(void** made_one) { return made(made_one); }
EXPORT int cudnnBackendCreateDescriptor(int, void** made_one) { return made(made_one); }
EXPORT int cudnnBackendGetAttribute(void*, int name, int type, int64_t wanted, int64_t* count, void* values) {
  constexpr int HEURISTIC_RESULTS = 202, TYPE_INT64 = 3, TYPE_INT32 = 23;
  int64_t found = name == HEURISTIC_RESULTS;  // one engine, with no notes, knobs or workspace
  if (wanted && values && type == TYPE_INT64) *(int64_t*)values = 0, found = 1;
  if (wanted && values && type == TYPE_INT32) *(int32_t*)values = 0, found = 1;
  if (count) *count = found;
  return 0;
}
EXPORT int cudnnBackendExecute(Handle* handle, void*, void*) {
  enqueue(stream_of(handle->stream), 5e-6, "cudnn");
  return 0;
}
