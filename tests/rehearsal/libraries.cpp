#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#define EX extern "C" __attribute__((visibility("default")))
extern "C" int mock_note(void*, const char*);
static thread_local void* blas_stream;
static std::map<void*, void*> dnn_stream;
static long next = 16;
EX int mock_gemm(const char* n) { return mock_note(blas_stream, n) ? 13 : 0; }
EX int mock_dnn(void* h, const char* n) { return mock_note(dnn_stream[h], n) ? 8 : 0; }
EX int cublasCreate_v2(void** h) {
  *h = (void*)(next += 16);
  return 0;
}
EX int cublasDestroy_v2(void*) { return 0; }
EX int cublasSetStream_v2(void*, void* s) {
  blas_stream = s;
  return 0;
}
EX int cublasGetMathMode(void*, int* m) {
  *m = 0;
  return 0;
}
EX int cublasGetPointerMode_v2(void*, int* m) {
  *m = 0;
  return 0;
}
EX int cublasLtMatmul(void*, void*, const void*, const void*, void*, const void*, void*,
                      const void*, const void*, void*, void*, void*, const void*, void*, size_t,
                      void* s) {
  return mock_note(s, "cublasLtMatmul");
}
EX int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* r,
                                      int* n) {
  memset(r, 0, 96);
  *n = 1;
  return 0;
}
EX int cublasLtMatmulDescCreate(void** d, int, int) {
  *d = (void*)(next += 16);
  return 0;
}
EX int cublasLtMatmulPreferenceCreate(void** d) {
  *d = (void*)(next += 16);
  return 0;
}
EX int cublasLtMatrixLayoutCreate(void** d, int, uint64_t, uint64_t, int64_t) {
  *d = (void*)(next += 16);
  return 0;
}
EX size_t cublasLtGetVersion() { return 130002; }
EX size_t cudnnGetVersion() { return 91400; }
EX size_t cudnnGetCudartVersion() { return 13000; }
EX const char* cudnnGetErrorString(int) { return "mock cudnn"; }
EX void cudnnGetLastErrorString(char* m, size_t n) { strncpy(m, "mock", n); }
EX int cudnnCreate(void** h) {
  *h = (void*)(next += 16);
  return 0;
}
EX int cudnnSetStream(void* h, void* s) {
  dnn_stream[h] = s;
  return 0;
}
EX int cudnnGetStream(void* h, void** s) {
  *s = dnn_stream[h];
  return 0;
}
struct Perf {
  int algo, status;
  float time;
  size_t memory;
  int determinism, mathType, reserved[3];
};
#define ALGO(N)                                                       \
  EX int N(void*, void*, void*, void*, void*, int, int* n, Perf* p) { \
    memset(p, 0, sizeof *p);                                          \
    p->algo = 1;                                                      \
    *n = 1;                                                           \
    return 0;                                                         \
  }
ALGO(cudnnGetConvolutionForwardAlgorithm_v7)
ALGO(cudnnGetConvolutionBackwardDataAlgorithm_v7)
    ALGO(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
#define WS(N)                                                   \
  EX int N(void*, void*, void*, void*, void*, int, size_t* n) { \
    *n = 0;                                                     \
    return 0;                                                   \
  }
        WS(cudnnGetConvolutionForwardWorkspaceSize) WS(cudnnGetConvolutionBackwardDataWorkspaceSize)
            WS(cudnnGetConvolutionBackwardFilterWorkspaceSize) EX
    int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void*, int, int, void*, void*,
                                                                 void*, void*, void*, size_t* n) {
  *n = 0;
  return 0;
}
EX int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void*, int, int, void*, void*, void*,
                                                         void*, void*, void*, void*, size_t* n) {
  *n = 0;
  return 0;
}
EX int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*,
                                                            size_t* n) {
  *n = 0;
  return 0;
}
