// Devices, errors, versions, launches.
#include "runtime.h"
#include "fault.h"
#include <cxxabi.h>
#include <dlfcn.h>
#include <map>

namespace sim {

std::recursive_mutex api_mutex;
static __thread cudaError_t last_error;
static __thread int device;
static std::map<const void *, size_t> opted_in; // dynamic shared memory that kernels have asked for

cudaError_t error(cudaError_t e) {
    if (e != cudaSuccess) last_error = e;
    return e;
}
int current_device() { return device; }
size_t device_shared_max() {
    switch (settings.arch) {
    case 70:
        return 96 << 10;
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 163 << 10;
    case 90:
    case 100:
    case 103:
        return 227 << 10;
    default:
        return 99 << 10;
    }
}
static cudaError_t usable() { // is there a GPU at all?
    if (settings.driver / 1000 < CUDART_VERSION / 1000) return cudaErrorInsufficientDriver;
    return settings.devices ? cudaSuccess : cudaErrorNoDevice;
}

// ---- launch ----
static const char *kernel_name(const void *function) { // without its arguments' types
    static std::map<const void *, std::string> names;
    std::string &name = names[function];
    if (!name.empty()) return name.c_str();
    Dl_info info;
    name = dladdr(function, &info) && info.dli_sname ? info.dli_sname : "(a static kernel)";
    int status;
    char *readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    if (readable) name = readable;
    free(readable);
    if (name.rfind("void ", 0) == 0) name = name.substr(5); // templates carry their result type
    if (name[0] != '(') name = name.substr(0, name.find('('));
    return name.c_str();
}
void launch(dim3 grid, dim3 block, size_t shared, cudaStream_t handle, Kernel kernel) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s || usable() != cudaSuccess) return (void)error(s ? usable() : cudaErrorInvalidResourceHandle);
    size_t threads = (size_t)block.x * block.y * block.z, blocks = (size_t)grid.x * grid.y * grid.z;
    bool bad_block = !threads || threads > MAX_THREADS || block.z > 64;
    if (bad_block || !blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return (void)error(cudaErrorInvalidConfiguration);
    auto limit = opted_in.find(kernel.function);
    if (shared > (limit == opted_in.end() ? 48 << 10 : limit->second)) return (void)error(cudaErrorInvalidValue);
    auto l = std::make_shared<Launch>(Launch{grid, block, shared, kernel, kernel_name(kernel.function)});
    OpRef op = new_op(s, "kernel", l->name);
    op->run = [l] {
        run_launch(*l);
        check_memory_guards(l->name);
    };
    issue(op);
}

struct ErrorText {
    cudaError_t error;
    const char *name, *text;
};
static const ErrorText error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
};
static const ErrorText &text_of(cudaError_t e) {
    static const ErrorText unknown = {e, "unrecognized error code", "unrecognized error code"};
    for (auto &t : error_texts)
        if (t.error == e) return t;
    return unknown;
}

} // namespace sim

using namespace sim;
extern "C" {

cudaError_t cudaGetLastError() {
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char *cudaGetErrorString(cudaError_t e) { return text_of(e).text; }
const char *cudaGetErrorName(cudaError_t e) { return text_of(e).name; }

cudaError_t cudaDriverGetVersion(int *version) {
    *version = settings.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = usable() == cudaSuccess ? settings.devices : 0;
    return error(usable());
}
cudaError_t cudaSetDevice(int d) {
    if (usable() != cudaSuccess) return error(usable());
    if (d < 0 || d >= settings.devices) return error(cudaErrorInvalidDevice);
    device = d;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *d) {
    *d = device;
    return error(usable());
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int d) {
    if (usable() != cudaSuccess) return error(usable());
    if (d < 0 || d >= settings.devices) return error(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "CUDA simulation sm_%d", settings.arch);
    memset(p->uuid.bytes, d + 1, sizeof p->uuid.bytes);
    p->major = settings.arch / 10;
    p->minor = settings.arch % 10;
    p->totalGlobalMem = settings.memory;
    p->multiProcessorCount = 4; // few, so that kernels that fit their grid to it walk their rows in several rounds
    p->warpSize = 32;
    p->maxThreadsPerBlock = MAX_THREADS;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = device_shared_max();
    p->sharedMemPerMultiprocessor = device_shared_max() + 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->l2CacheSize = 40 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int d) {
    cudaDeviceProp p;
    if (cudaError_t e = cudaGetDeviceProperties(&p, d)) return e;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = p.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    default:
        fail("cudaDeviceGetAttribute: attribute %d is not emulated", (int)attribute);
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *) { // there is code for every device
    *attributes = {};
    attributes->maxThreadsPerBlock = MAX_THREADS;
    attributes->binaryVersion = attributes->ptxVersion = settings.arch;
    return error(usable());
}
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value) {
    CUDASIM_API;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess; // a hint about caches
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        fail("cudaFuncSetAttribute: attribute %d is not emulated", (int)attribute);
    if (value < 0 || (size_t)value > device_shared_max()) return error(cudaErrorInvalidValue);
    opted_in[function] = (size_t)value;
    return cudaSuccess;
}
}
