// A CUDA runtime without a GPU: memory is host memory, kernels do nothing and are logged, and
// stream capture follows CUDA's rules, as far as they are needed here. Preloaded in place of
// libcudart.so.13.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <execinfo.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>
#undef cudaGetDeviceProperties
#define EX extern "C" __attribute__((visibility("default")))
static std::recursive_mutex mu;
#define LOCK std::lock_guard<std::recursive_mutex> lock(mu)
static FILE* logf_() {
  static FILE* f = nullptr;
  if (!f) {
    const char* p = getenv("MOCK_LOG");
    f = p ? fopen(p, "a") : stderr;
  }
  return f;
}
static bool verbose() {
  static int v = -1;
  if (v < 0) v = getenv("MOCK_VERBOSE") ? 1 : 0;
  return v;
}
struct Capture {
  unsigned long long id;
  cudaStream_t origin;
  bool invalid = false;
  std::string why;
  std::set<cudaStream_t> streams;
  cudaStreamCaptureMode mode;
  std::vector<std::string> nodes;
};
struct Ev {
  cudaStream_t on = nullptr;
  Capture* cap = nullptr;
  bool recorded = false;
};
static std::map<cudaStream_t, Capture*> capturing;
static std::map<const void*, std::string> names;
static std::map<void*, size_t> allocs;
static size_t in_use = 0, peak = 0, limit = 80ull << 30;
static thread_local cudaStreamCaptureMode tmode = cudaStreamCaptureModeGlobal;
static thread_local cudaError_t last = cudaSuccess;
static unsigned long long next_id = 1;
static uintptr_t next_stream = 0x10000;
struct Graph {
  std::vector<std::string> nodes;
};
static std::vector<std::string> violations;
static long launches = 0, graph_launches = 0;
static std::map<std::string, long> by_name;
static bool recording = false;
static cudaError_t fail(cudaError_t e) {
  last = e;
  return e;
}
static void note_violation(const std::string& s) {
  violations.push_back(s);
  fprintf(logf_(), "VIOLATION %s\n", s.c_str());
  fflush(logf_());
}
static Capture* cap_of(cudaStream_t s) {
  auto i = capturing.find(s);
  return i == capturing.end() ? nullptr : i->second;
}
static bool any_global() {
  for (auto& c : capturing)
    if (c.second->mode == cudaStreamCaptureModeGlobal) return true;
  return false;
}
static cudaError_t invalidate(Capture* c, const std::string& why, cudaError_t e) {
  c->invalid = true;
  if (c->why.empty()) c->why = why;
  note_violation(why);
  return fail(e);
}
// A call that is not allowed anywhere in this process (this thread's mode permitting) while a
// capture goes on.
static cudaError_t unsafe(const char* what) {
  if (!capturing.empty() && tmode != cudaStreamCaptureModeRelaxed && any_global()) {
    Capture* c = capturing.begin()->second;
    return invalidate(c, std::string(what) + " during capture", cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
static std::string demangle(const std::string& n) {
  int st;
  char* d = abi::__cxa_demangle(n.c_str(), 0, 0, &st);
  std::string r = d ? d : n;
  free(d);
  return r;
}
static cudaError_t work(cudaStream_t s, const std::string& name) {
  LOCK;
  if (s == cudaStreamLegacy) s = nullptr;
  Capture* c = cap_of(s);
  if (c) {
    if (c->invalid) return fail(cudaErrorStreamCaptureInvalidated);
    c->nodes.push_back(name);
  } else if (s == nullptr && any_global()) {
    note_violation("work on the legacy stream during capture: " + name);
    capturing.begin()->second->invalid = true;
    return fail(cudaErrorStreamCaptureImplicit);
  }
  launches++;
  if (recording) by_name[name]++;
  if (verbose())
    fprintf(logf_(), "LAUNCH s=%p cap=%d %s\n", (void*)s, c != nullptr,
            name.substr(0, 160).c_str());
  return cudaSuccess;
}
EX void mock_record(int on) {
  LOCK;
  recording = on;
  if (on) {
    by_name.clear();
    launches = 0;
  }
}
EX long mock_launches() { return launches; }
EX long mock_graph_launches() { return graph_launches; }
EX long mock_violations() { return violations.size(); }
EX size_t mock_in_use() { return in_use; }
EX size_t mock_peak() { return peak; }
EX void mock_reset_peak() { peak = in_use; }
EX void mock_limit(size_t n) { limit = n; }
EX void mock_dump(const char* path) {
  LOCK;
  FILE* f = fopen(path, "w");
  for (auto& p : by_name) fprintf(f, "%ld\t%s\n", p.second, demangle(p.first).c_str());
  fclose(f);
}
EX void mock_dump_violations(const char* path) {
  LOCK;
  FILE* f = fopen(path, "w");
  for (auto& p : violations) fprintf(f, "%s\n", p.c_str());
  fclose(f);
}
EX int mock_note(void* s, const char* name) {
  if (name[0] == '@') {
    LOCK;
    return unsafe(name);
  }
  return work((cudaStream_t)s, name);
}
static int forced_error = 0;
EX void mock_force(int e) { forced_error = e; }
// registration
EX void** __cudaRegisterFatBinary(void*) {
  static void* h[4];
  return h;
}
EX void __cudaRegisterFatBinaryEnd(void**) {}
EX void __cudaUnregisterFatBinary(void**) {}
EX char __cudaInitModule(void**) { return 0; }
EX void __cudaRegisterFunction(void**, const char* host, char*, const char* dev, int, void*, void*,
                               void*, void*, int*) {
  LOCK;
  names[host] = dev;
}
EX void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
struct Cfg {
  dim3 g, b;
  size_t sh;
  cudaStream_t s;
};
static thread_local std::vector<Cfg> cfgs;
EX unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t sh, struct CUstream_st* s) {
  cfgs.push_back({g, b, sh, s});
  return 0;
}
EX cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* sh, void* s) {
  Cfg c = cfgs.back();
  cfgs.pop_back();
  *g = c.g;
  *b = c.b;
  *sh = c.sh;
  *(cudaStream_t*)s = c.s;
  return cudaSuccess;
}
EX cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* f) {
  *k = (cudaKernel_t)f;
  return cudaSuccess;
}
EX cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3, dim3, void**, size_t, cudaStream_t s) {
  auto i = names.find((const void*)k);
  return work(s, i == names.end() ? "?" : i->second);
}
EX cudaError_t cudaLaunchKernel(const void* f, dim3, dim3, void**, size_t, cudaStream_t s) {
  if (forced_error) return fail((cudaError_t)forced_error);
  auto i = names.find(f);
  return work(s, i == names.end() ? "?" : i->second);
}
EX cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void**) {
  auto i = names.find(f);
  return work(c->stream, i == names.end() ? "?" : i->second);
}
EX cudaError_t cudaLaunchCooperativeKernel(const void* f, dim3, dim3, void**, size_t,
                                           cudaStream_t s) {
  auto i = names.find(f);
  return work(s, i == names.end() ? "?" : i->second);
}
EX cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t, void*) {
  return work(s, "host function");
}
EX cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t, void*, unsigned) {
  return work(s, "callback");
}
// devices
EX cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
EX cudaError_t cudaGetDevice(int* d) {
  *d = 0;
  return cudaSuccess;
}
EX cudaError_t cudaSetDevice(int) { return cudaSuccess; }
EX cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  *v = 1;
  switch ((int)a) {
    case cudaDevAttrMaxThreadsPerBlock:
      *v = 1024;
      break;
    case cudaDevAttrMultiProcessorCount:
      *v = 132;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *v = 49152;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = 232448;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *v = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *v = 0;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *v = 2048;
      break;
    case cudaDevAttrWarpSize:
      *v = 32;
      break;
  }
  return cudaSuccess;
}
static cudaError_t props(cudaDeviceProp* p) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "Mock H100");
  p->totalGlobalMem = 80ull << 30;
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = 9;
  p->minor = 0;
  p->multiProcessorCount = 132;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlockOptin = 232448;
  p->maxBlocksPerMultiProcessor = 32;
  p->unifiedAddressing = 1;
  p->asyncEngineCount = 3;
  p->textureAlignment = 512;
  p->memoryBusWidth = 5120;
  return cudaSuccess;
}
EX cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) { return props(p); }
EX cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* p, int) { return props(p); }
EX cudaError_t cudaDeviceCanAccessPeer(int* c, int, int) {
  *c = 0;
  return cudaSuccess;
}
EX cudaError_t cudaDriverGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
EX cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
EX cudaError_t cudaDeviceGetStreamPriorityRange(int* lo, int* hi) {
  *lo = 0;
  *hi = -5;
  return cudaSuccess;
}
EX cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int) {
  snprintf(s, n, "0000:00:00.0");
  return cudaSuccess;
}
EX cudaError_t cudaDeviceSynchronize() {
  LOCK;
  return unsafe("cudaDeviceSynchronize");
}
EX cudaError_t cudaGetLastError() {
  cudaError_t e = last;
  last = cudaSuccess;
  return e;
}
EX cudaError_t cudaPeekAtLastError() { return last; }
EX const char* cudaGetErrorName(cudaError_t e) {
  static thread_local char b[40];
  snprintf(b, 40, "cudaError %d", e);
  return b;
}
EX const char* cudaGetErrorString(cudaError_t e) {
  static thread_local char b[60];
  snprintf(b, 60, "%s%d",
           e == 2     ? "out of memory "
           : e == 900 ? "operation not permitted when stream is capturing "
                      : "mock error ",
           e);
  return b;
}
// memory
static cudaError_t take(void** p, size_t n) {
  if (in_use + n > limit) {
    return fail(cudaErrorMemoryAllocation);
  }
  size_t len = (n + 4095) / 4096 * 4096 + 4096 * 0;
  if (!len) len = 4096;
  void* m = mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  if (m == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  allocs[m] = len;
  in_use += n;
  if (in_use > peak) peak = in_use;
  *p = m;
  return cudaSuccess;
}
EX cudaError_t cudaMalloc(void** p, size_t n) {
  LOCK;
  if (cudaError_t e = unsafe("cudaMalloc")) return e;
  return take(p, n);
}
EX cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) {
  LOCK;
  return take(p, n);
}
EX cudaError_t cudaFree(void* p) {
  LOCK;
  if (!p) return cudaSuccess;
  if (forced_error) return fail((cudaError_t)forced_error);
  if (cudaError_t e = unsafe("cudaFree")) return e;
  auto i = allocs.find(p);
  if (i == allocs.end()) return cudaSuccess;
  munmap(p, i->second);
  in_use -= i->second;
  allocs.erase(i);
  return cudaSuccess;
}
EX cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }
EX cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  return cudaSuccess;
}
EX cudaError_t cudaFreeHost(void* p) {
  free(p);
  return cudaSuccess;
}
EX cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
EX cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
EX cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  *t = 80ull << 30;
  *f = *t - in_use;
  return cudaSuccess;
}
static void* inside(const void* p) {
  auto i = allocs.upper_bound((void*)p);
  if (i == allocs.begin()) return nullptr;
  --i;
  return (char*)p < (char*)i->first + i->second ? i->first : nullptr;
}
EX cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  LOCK;
  memset(a, 0, sizeof *a);
  a->type = inside(p) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  a->devicePointer = (void*)p;
  return cudaSuccess;
}
EX cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) {
  LOCK;
  if (cudaError_t e = unsafe("cudaMemcpy")) return e;
  if (!inside(s) || !inside(d)) memcpy(d, s, n);
  return work(nullptr, "memcpy (sync)");
}
EX cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k,
                               cudaStream_t st) {
  LOCK;
  bool ds = inside(s), dd = inside(d);
  if (cap_of(st) && !(ds && dd))
    return invalidate(cap_of(st), "host<->device copy during capture",
                      cudaErrorStreamCaptureUnsupported);
  if (!(ds && dd && n > (1 << 22))) memcpy(d, s, n);
  return work(st, ds && dd ? "memcpy DtoD" : ds ? "memcpy DtoH" : "memcpy HtoD");
}
EX cudaError_t cudaMemcpy2DAsync(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind,
                                 cudaStream_t st) {
  return work(st, "memcpy2D");
}
EX cudaError_t cudaMemcpyPeerAsync(void*, int, const void*, int, size_t, cudaStream_t st) {
  return work(st, "memcpy peer");
}
EX cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) {
  return cudaSuccess;
}
EX cudaError_t cudaMemset(void*, int, size_t) {
  LOCK;
  if (cudaError_t e = unsafe("cudaMemset")) return e;
  return work(nullptr, "memset (sync)");
}
EX cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t s) { return work(s, "memset"); }
// streams and events
EX cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) {
  LOCK;
  *s = (cudaStream_t)(next_stream += 16);
  return cudaSuccess;
}
EX cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  return cudaStreamCreateWithPriority(s, 0, 0);
}
EX cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
EX cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
EX cudaError_t cudaStreamQuery(cudaStream_t s) {
  LOCK;
  if (cap_of(s))
    return invalidate(cap_of(s), "cudaStreamQuery of a capturing stream",
                      cudaErrorStreamCaptureUnsupported);
  return unsafe("cudaStreamQuery");
}
EX cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  LOCK;
  if (cap_of(s))
    return invalidate(cap_of(s), "cudaStreamSynchronize of a capturing stream",
                      cudaErrorStreamCaptureUnsupported);
  if (!s && any_global()) return unsafe("cudaStreamSynchronize(legacy)");
  return cudaSuccess;
}
EX cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) {
  *p = 0;
  return cudaSuccess;
}
EX cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  LOCK;
  Ev* v = (Ev*)e;
  Capture* c = cap_of(s);
  if (c && v->recorded && v->cap != c)
    return invalidate(c, "a capturing stream waits for an event recorded outside",
                      cudaErrorStreamCaptureIsolation);
  if (!c && v->cap) {
    bool live = false;
    for (auto& x : capturing) live |= x.second == v->cap;
    if (live) {
      if (!s) return fail(cudaErrorStreamCaptureImplicit);
      capturing[s] = v->cap;
      v->cap->streams.insert(s);
    }
  }
  return cudaSuccess;
}
EX cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = (cudaEvent_t) new Ev;
  return cudaSuccess;
}
EX cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
EX cudaError_t cudaEventDestroy(cudaEvent_t e) {
  (void)e;
  return cudaSuccess;
}
EX cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  LOCK;
  Ev* v = (Ev*)e;
  v->on = s;
  v->recorded = true;
  v->cap = cap_of(s);
  if (!v->cap && !s && any_global()) {
    note_violation("event recorded on the legacy stream during capture");
    capturing.begin()->second->invalid = true;
    return fail(cudaErrorStreamCaptureImplicit);
  }
  return cudaSuccess;
}
EX cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) {
  return cudaEventRecord(e, s);
}
EX cudaError_t cudaEventQuery(cudaEvent_t e) {
  LOCK;
  Ev* v = (Ev*)e;
  if (v->cap)
    for (auto& x : capturing)
      if (x.second == v->cap)
        return invalidate(v->cap, "cudaEventQuery of a captured event", cudaErrorCapturedEvent);
  return unsafe("cudaEventQuery");
}
EX cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  LOCK;
  return unsafe("cudaEventSynchronize");
}
EX cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 1;
  return cudaSuccess;
}
// capture
EX cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* m) {
  auto o = tmode;
  tmode = *m;
  *m = o;
  return cudaSuccess;
}
EX cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode m) {
  LOCK;
  if (!s) return fail(cudaErrorStreamCaptureUnsupported);
  if (cap_of(s)) return fail(cudaErrorIllegalState);
  Capture* c = new Capture;
  c->id = next_id++;
  c->origin = s;
  c->mode = m;
  c->streams.insert(s);
  capturing[s] = c;
  fprintf(logf_(), "BEGIN CAPTURE %llu\n", c->id);
  return cudaSuccess;
}
EX cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  LOCK;
  Capture* c = cap_of(s);
  *g = nullptr;
  if (!c) return fail(cudaErrorIllegalState);
  for (auto x : c->streams) capturing.erase(x);
  fprintf(logf_(), "END CAPTURE %llu nodes=%zu invalid=%d streams=%zu %s\n", c->id, c->nodes.size(),
          c->invalid, c->streams.size(), c->why.c_str());
  fflush(logf_());
  if (c->invalid) return fail(cudaErrorStreamCaptureInvalidated);
  Graph* r = new Graph{c->nodes};
  *g = (cudaGraph_t)r;
  return cudaSuccess;
}
EX cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* st) {
  LOCK;
  Capture* c = cap_of(s);
  *st = !c           ? cudaStreamCaptureStatusNone
        : c->invalid ? cudaStreamCaptureStatusInvalidated
                     : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
EX cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus* st,
                                        unsigned long long* id, cudaGraph_t* g,
                                        const cudaGraphNode_t** d, const cudaGraphEdgeData** e,
                                        size_t* n) {
  LOCK;
  Capture* c = cap_of(s);
  *st = !c           ? cudaStreamCaptureStatusNone
        : c->invalid ? cudaStreamCaptureStatusInvalidated
                     : cudaStreamCaptureStatusActive;
  if (id) *id = c ? c->id : 0;
  if (g) *g = nullptr;
  if (n) *n = 0;
  if (d) *d = nullptr;
  if (e) *e = nullptr;
  return cudaSuccess;
}
EX cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t*, size_t* n) {
  *n = g ? ((Graph*)g)->nodes.size() : 0;
  return cudaSuccess;
}
EX cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* e, cudaGraph_t g,
                                             unsigned long long) {
  *e = (cudaGraphExec_t) new Graph(*(Graph*)g);
  return cudaSuccess;
}
EX cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
EX cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
EX cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
  LOCK;
  graph_launches++;
  for (auto& n : ((Graph*)g)->nodes) {
    if (recording) by_name[n]++;
  }
  launches += ((Graph*)g)->nodes.size();
  return cudaSuccess;
}
EX cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->binaryVersion = 90;
  a->ptxVersion = 90;
  return cudaSuccess;
}
EX cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
EX cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) {
  *n = 4;
  return cudaSuccess;
}
EX cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int,
                                                                      size_t, unsigned) {
  *n = 4;
  return cudaSuccess;
}
// driver entry points
extern "C" void* mock_driver(const char*);
EX cudaError_t cudaGetDriverEntryPointByVersion(const char* sym, void** f, unsigned,
                                                unsigned long long,
                                                cudaDriverEntryPointQueryResult* r) {
  *f = mock_driver(sym);
  if (r) *r = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return *f ? cudaSuccess : cudaErrorSymbolNotFound;
}
#include <dlfcn.h>
extern "C" void* mock_driver(const char* s) {
  static void* h = dlopen("libcuda.so.1", RTLD_NOW);
  return h ? dlsym(h, s) : nullptr;
}
