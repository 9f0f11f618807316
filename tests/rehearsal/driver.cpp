#include <cuda.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#define EX extern "C" __attribute__((visibility("default")))
extern "C" int mock_note(void*, const char*);
static std::map<void*, std::string> fn;
static uintptr_t nx = 0x5000;
EX CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
EX CUresult cuDeviceGetCount(int* n) {
  *n = 1;
  return CUDA_SUCCESS;
}
EX CUresult cuDeviceGet(CUdevice* d, int) {
  *d = 0;
  return CUDA_SUCCESS;
}
EX CUresult cuDriverGetVersion(int* v) {
  *v = 13000;
  return CUDA_SUCCESS;
}
EX CUresult cuDeviceGetName(char* n, int l, CUdevice) {
  snprintf(n, l, "Mock H100");
  return CUDA_SUCCESS;
}
EX CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute a, CUdevice) {
  *v = 1;
  switch ((int)a) {
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *v = 232448;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      *v = 49152;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *v = 233472;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
      *v = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *v = 132;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *v = 9;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *v = 0;
      break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      *v = 32;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *v = 1024;
      break;
  }
  return CUDA_SUCCESS;
}
EX CUresult cuCtxGetCurrent(CUcontext* c) {
  *c = (CUcontext)1;
  return CUDA_SUCCESS;
}
EX CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
EX CUresult cuCtxGetDevice(CUdevice* d) {
  *d = 0;
  return CUDA_SUCCESS;
}
EX CUresult cuCtxGetLimit(size_t* v, CUlimit) {
  *v = 0;
  return CUDA_SUCCESS;
}
EX CUresult cuCtxSetLimit(CUlimit, size_t) { return CUDA_SUCCESS; }
EX CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice) {
  *c = (CUcontext)1;
  return CUDA_SUCCESS;
}
EX CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* f, int* a) {
  *f = 0;
  *a = 1;
  return CUDA_SUCCESS;
}
EX CUresult cuModuleLoadData(CUmodule* m, const void*) {
  int e = mock_note((void*)-1, "@cuModuleLoadData");
  *m = (CUmodule)(nx += 16);
  return e ? (CUresult)e : CUDA_SUCCESS;
}
EX CUresult cuModuleLoadDataEx(CUmodule* m, const void*, unsigned, CUjit_option*, void**) {
  *m = (CUmodule)(nx += 16);
  return CUDA_SUCCESS;
}
#undef cuModuleLoad
EX CUresult cuModuleLoad(CUmodule* m, const char*) {
  *m = (CUmodule)(nx += 16);
  return CUDA_SUCCESS;
}
EX CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
EX CUresult cuModuleGetFunction(CUfunction* f, CUmodule, const char* n) {
  *f = (CUfunction)(nx += 16);
  fn[*f] = std::string("triton ") + n;
  return CUDA_SUCCESS;
}
EX CUresult cuFuncGetAttribute(int* v, CUfunction_attribute a, CUfunction) {
  *v = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
EX CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
EX CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }
EX CUresult cuGetErrorString(CUresult e, const char** s) {
  *s = "mock driver error";
  return CUDA_SUCCESS;
}
EX CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** p, void**) {
  char b[300];
  snprintf(b, 300, "%s grid=%u,%u,%u block=%u", fn[f].c_str(), c->gridDimX, c->gridDimY,
           c->gridDimZ, c->blockDimX);
  return (CUresult)mock_note(c->hStream, b);
}
EX CUresult cuLaunchKernel(CUfunction f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           unsigned, CUstream s, void**, void**) {
  return (CUresult)mock_note(s, fn[f].c_str());
}
EX CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned, unsigned, unsigned, unsigned,
                                      unsigned, unsigned, unsigned, CUstream s, void**) {
  return (CUresult)mock_note(s, fn[f].c_str());
}
EX CUresult cuPointerGetAttribute(void* d, CUpointer_attribute, CUdeviceptr p) {
  *(CUdeviceptr*)d = p;
  return CUDA_SUCCESS;
}
EX CUresult cuOccupancyMaxActiveClusters(int* n, CUfunction, const CUlaunchConfig*) {
  *n = 1;
  return CUDA_SUCCESS;
}
EX CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction, int, size_t) {
  *n = 4;
  return CUDA_SUCCESS;
}
