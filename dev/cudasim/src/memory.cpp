// Device memory, pinned memory, copies.
//
// All device memory lies in one arena that is closed to the host (mprotect) except while an operation runs: host code
// that follows a device pointer faults, as it would with a GPU. Fresh and freed memory holds NaN; guard zones lie
// between allocations and are checked after every kernel.
#include "runtime.h"
#include "fault.h"
#include <map>
#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n)   memset(p, GUARD_BYTE, n)
#define UNPOISON(p, n) ((void)0)
#endif

namespace sim {

constexpr size_t ALIGN = 256; // what cudaMalloc promises; every address is an odd multiple of it, never better aligned
constexpr size_t GUARD = 256; // bytes, at least, after each allocation
constexpr unsigned char GUARD_BYTE = 0xA5;

struct Allocation {
    size_t size;
    int device;
};
static char *arena;
static size_t arena_size, arena_used;            // used: up to the highest allocation ever
static std::map<char *, Allocation> allocations; // followed by padding and a guard zone
static std::map<char *, size_t> pinned;
static std::map<int, size_t> used; // bytes of each device
static int opened;

static size_t footprint(size_t size) { return (size + GUARD + 2 * ALIGN - 1) / (2 * ALIGN) * (2 * ALIGN); }

// ---- closing the arena ----
static void protect(int protection) {
    if (settings.host_guard && arena_used) mprotect(arena, arena_used, protection);
}
DeviceAccess::DeviceAccess() {
    if (opened++ == 0) protect(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
    if (--opened == 0) protect(PROT_NONE);
}
bool in_device_arena(const void *p) { return p >= arena && p < arena + arena_size && arena; }

// ---- the arena ----
static void reserve_arena() {
    catch_faults_of_this_thread();
    arena_size = (size_t)settings.devices * (settings.memory + (64 << 20)); // some for guard zones and gaps
    void *p = mmap(nullptr, arena_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("no address space for %zu bytes of device memory", arena_size);
    arena = (char *)p;
    madvise(arena, arena_size, MADV_HUGEPAGE); // closing and opening is then 500 times fewer pages' work
}
// The lowest gap that is large enough.
static char *find_place(size_t bytes) {
    char *place = arena + ALIGN;
    for (auto &[begin, allocation] : allocations) {
        if (place + bytes <= begin) break;
        place = begin + footprint(allocation.size);
    }
    return place + bytes <= arena + arena_size ? place : nullptr;
}
static void *allocate(size_t size) {
    if (!arena) reserve_arena();
    size_t &device_used = used[current_device()];
    if (size > settings.memory - device_used) return nullptr;
    char *p = find_place(footprint(size));
    if (!p) return nullptr;
    size_t end = p + footprint(size) - arena;
    if (end > arena_used) {
        arena_used = (end + 4095) & ~(size_t)4095;
        protect(PROT_READ | PROT_WRITE); // inside DeviceAccess
        if (!settings.host_guard) mprotect(arena, arena_used, PROT_READ | PROT_WRITE);
    }
    UNPOISON(p, size);
    memset(p, 0xff, size); // NaN in every floating-point type
    POISON(p + size, footprint(size) - size);
    allocations[p] = {size, current_device()};
    device_used += size;
    return p;
}
static const std::pair<char *const, Allocation> *find(const void *p) {
    auto i = allocations.upper_bound((char *)p);
    if (i == allocations.begin()) return nullptr;
    --i;
    return (char *)p <= i->first + i->second.size ? &*i : nullptr; // one past the end is a pointer into it, too
}
bool find_device(const void *p, const char **begin, size_t *size) {
    auto a = find(p);
    if (a) *begin = a->first, *size = a->second.size;
    return a;
}
bool is_pinned(const void *p) {
    auto i = pinned.upper_bound((char *)p);
    if (i == pinned.begin()) return false;
    --i;
    return (char *)p <= i->first + i->second;
}
void check_device_range(const void *p, size_t n, const char *what) {
    auto a = find(p);
    if (!a) fail("%s: %p is not device memory", what, p);
    if ((char *)p + n > a->first + a->second.size)
        fail("%s: %zu bytes at offset %td of an allocation of %zu bytes", what, n, (char *)p - a->first,
             a->second.size);
    if (a->second.device != current_device())
        fail("%s: the memory is of device %d, the current one is %d", what, a->second.device, current_device());
}
void check_argument(const void *, int index, const void *pointer) {
    if (!pointer || is_pinned(pointer)) return;
    auto a = find(pointer);
    if (!a) fail("argument %d of a kernel launch, %p, is neither device nor pinned memory", index, pointer);
    if (a->second.device != current_device())
        fail("argument %d of a kernel launch is memory of device %d, the current one is %d", index, a->second.device,
             current_device());
}
void check_memory_guards(const char *who) {
#ifndef __SANITIZE_ADDRESS__ // which watches them itself
    static const std::vector<unsigned char> pattern(GUARD + 2 * ALIGN, GUARD_BYTE);
    for (auto &[begin, allocation] : allocations)
        if (memcmp(begin + allocation.size, pattern.data(), footprint(allocation.size) - allocation.size))
            fail("%s wrote past the end of a device allocation of %zu bytes", who, allocation.size);
#else
    (void)who;
#endif
}

// ---- copies ----
static cudaError_t copy(const char *call, void *dst, const void *src, size_t n, cudaMemcpyKind kind, Stream *s) {
    if (!s) return cudaErrorInvalidResourceHandle;
    if (!n) return cudaSuccess;
    bool to_device = find(dst), from_device = find(src);
    if (kind == cudaMemcpyDefault)
        kind = to_device     ? from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice
               : from_device ? cudaMemcpyDeviceToHost
                             : cudaMemcpyHostToHost;
    if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) check_device_range(dst, n, call);
    else if (to_device) fail("%s: the destination is device memory, the kind says host", call);
    if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) check_device_range(src, n, call);
    else if (from_device) fail("%s: the source is device memory, the kind says host", call);

    static const char *const names[] = {"host to host", "host to device", "device to host", "device to device"};
    if (kind == cudaMemcpyHostToDevice && !is_pinned(src)) {
        // Pageable: waits for the stream, copies into a buffer of the driver, returns.
        std::string what = std::string(call) + " from pageable memory";
        host_wait(what.c_str(), last_of(s) ? std::vector<OpRef>{last_of(s)} : std::vector<OpRef>{});
        auto staged = std::make_shared<std::vector<char>>((const char *)src, (const char *)src + n);
        OpRef op = new_op(s, "copy", names[kind], n);
        op->run = [=] { memcpy(dst, staged->data(), n); };
        issue(op);
        return cudaSuccess;
    }
    OpRef op = new_op(s, "copy", names[kind], n);
    op->run = [=] { memmove(dst, src, n); };
    issue(op);
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(dst))
        host_wait((std::string(call) + " to pageable memory").c_str(), {op});
    return cudaSuccess;
}

} // namespace sim

using namespace sim;
extern "C" {

cudaError_t cudaMalloc(void **p, size_t n) {
    CUDASIM_API;
    *p = nullptr;
    if (!n) return cudaSuccess;
    DeviceAccess open;
    *p = allocate(n);
    return *p ? cudaSuccess : error(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *p) {
    CUDASIM_API;
    if (!p) return cudaSuccess;
    auto a = allocations.find((char *)p);
    if (a == allocations.end()) return error(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    DeviceAccess open;
    check_memory_guards("somebody");
    memset(p, 0xff, a->second.size); // whoever still uses it reads NaN
    POISON(p, a->second.size);
    used[a->second.device] -= a->second.size;
    allocations.erase(a);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned) {
    CUDASIM_API;
    *p = aligned_alloc(ALIGN, footprint(n));
    if (!*p) return error(cudaErrorMemoryAllocation);
    memset(*p, 0xff, footprint(n));
    pinned[(char *)*p] = n;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n) { return cudaHostAlloc(p, n, cudaHostAllocDefault); }
cudaError_t cudaFreeHost(void *p) {
    CUDASIM_API;
    if (!p) return cudaSuccess;
    if (!pinned.count((char *)p)) return error(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    pinned.erase((char *)p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    CUDASIM_API;
    *total = settings.memory;
    *free_bytes = settings.memory - used[current_device()];
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
    CUDASIM_API;
    return copy("cudaMemcpyAsync", dst, src, n, kind, stream_of(s));
}
cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, cudaMemcpyKind kind) {
    CUDASIM_API;
    cudaError_t e = copy("cudaMemcpy", dst, src, n, kind, stream_of(nullptr));
    bool host = !find(dst) || !find(src); // between two places of the device it does not wait
    OpRef op = last_of(stream_of(nullptr));
    if (!e && n && host) host_wait("cudaMemcpy", {op});
    return e;
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t n, cudaStream_t handle) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (!n) return cudaSuccess;
    check_device_range(dst, n, "cudaMemset");
    OpRef op = new_op(s, "set", "memset", n);
    op->run = [=] { memset(dst, value, n); };
    issue(op);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *dst, int value, size_t n) { return cudaMemsetAsync(dst, value, n, nullptr); }
}
