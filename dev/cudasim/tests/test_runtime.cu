// The host API: memory, copies, streams, events, limits, errors. Runs in every SIM_ASYNC mode.
#include "device.h"
#include "test/check.h"
#include <cmath>
#include <string>

static std::string mode() {
    const char *m = getenv("SIM_ASYNC");
    return m ? m : "eager";
}
__global__ void fill_kernel(float *x, float v, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = v;
}
__global__ void add_kernel(float *y, const float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += x[i];
}
__global__ void scale_kernel(float *x, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor;
}
static bool all(const std::vector<float> &v, float want) {
    for (float x : v)
        if (x != want) return false;
    return true;
}

static void test_memory() {
    check_begin("fresh device and pinned memory is NaN; addresses are aligned to 256 bytes");
    Device<float> a(100), b(1);
    for (float x : a.host()) CHECK(std::isnan(x), "%g", x);
    CHECK((uintptr_t)a.p % 256 == 0 && (uintptr_t)b.p % 256 == 0 && a.p != b.p, "%p %p", (void *)a.p, (void *)b.p);
    float *pinned;
    CUDA_OK(cudaMallocHost((void **)&pinned, 400));
    CHECK(std::isnan(pinned[0]) && std::isnan(pinned[99]), "%g", pinned[0]);

    check_begin("copies in all directions, memset");
    std::vector<float> h(100);
    for (int i = 0; i < 100; i++) h[i] = pinned[i] = (float)i;
    Device<float> c(100);
    CUDA_OK(cudaMemcpy(a.p, h.data(), 400, cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(c.p, a.p, 400, cudaMemcpyDeviceToDevice));
    CHECK(c.host() == h, "device to device");
    CUDA_OK(cudaMemset(c.p, 0, 200));
    CHECK(c.host()[49] == 0 && c.host()[50] == 50, "memset of the first half");
    CUDA_OK(cudaMemcpy(c.p, pinned, 400, cudaMemcpyDefault));
    CHECK(c.host() == h, "from pinned memory, direction by address");
    CUDA_OK(cudaMemcpyAsync(pinned, a.p + 50, 200, cudaMemcpyDeviceToHost, 0));
    CUDA_OK(cudaDeviceSynchronize());
    CHECK(pinned[0] == 50 && pinned[49] == 99 && pinned[50] == 50, "%g %g", pinned[0], pinned[49]);
    CUDA_OK(cudaFreeHost(pinned));

    check_begin("memory is counted, limited, reused");
    size_t free_before, free_now, total;
    CUDA_OK(cudaMemGetInfo(&free_before, &total));
    void *p, *q;
    CUDA_OK(cudaMalloc(&p, 1 << 20));
    CUDA_OK(cudaMemGetInfo(&free_now, &total));
    CHECK(free_before - free_now == 1 << 20, "%zu", free_before - free_now);
    CHECK(cudaMalloc(&q, total) == cudaErrorMemoryAllocation && !q, "more than there is");
    CHECK(cudaPeekAtLastError() == cudaErrorMemoryAllocation, "peek");
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess, "get clears it");
    CUDA_OK(cudaFree(p));
    CUDA_OK(cudaMalloc(&q, 1 << 20));
    CHECK(p == q, "a freed place is used again");
    CUDA_OK(cudaFree(q));
    CUDA_OK(cudaFree(nullptr));
    CHECK(cudaFree(&p) == cudaErrorInvalidValue, "not an allocation");
    cudaGetLastError();
}

static void test_streams() {
    const int n = 1000;
    cudaStream_t a, b;
    CUDA_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    CUDA_OK(cudaStreamCreateWithPriority(&b, cudaStreamNonBlocking, -1));
    float *pinned;
    CUDA_OK(cudaMallocHost((void **)&pinned, n * sizeof(float)));

    check_begin("work of one stream keeps its order; events order streams, any number of times");
    Device<float> x(n), y(std::vector<float>(n, 0.f));
    CUDA_OK(cudaDeviceSynchronize());
    cudaEvent_t filled, added;
    CUDA_OK(cudaEventCreate(&filled));
    CUDA_OK(cudaEventCreateWithFlags(&added, cudaEventDisableTiming));
    for (int round = 0; round < 5; round++) {
        CUDA_OK(cudaStreamWaitEvent(a, added, 0)); // not recorded in the first round: no wait
        fill_kernel<<<4, 256, 0, a>>>(x.p, (float)round, n);
        scale_kernel<<<4, 256, 0, a>>>(x.p, 2.f, n);
        CUDA_OK(cudaEventRecord(filled, a));
        CUDA_OK(cudaStreamWaitEvent(b, filled, 0));
        add_kernel<<<4, 256, 0, b>>>(y.p, x.p, n);
        CUDA_OK(cudaEventRecord(added, b));
    }
    CUDA_OK(cudaMemcpyAsync(pinned, y.p, n * sizeof(float), cudaMemcpyDeviceToHost, b));
    CUDA_OK(cudaStreamSynchronize(b));
    CHECK(all(std::vector<float>(pinned, pinned + n), 20.f), "%g", pinned[0]);

    check_begin("queries: not ready at once when work is late, ready in the end; elapsed time");
    CUDA_OK(cudaDeviceSynchronize());
    cudaEvent_t begin;
    CUDA_OK(cudaEventCreate(&begin));
    CUDA_OK(cudaEventRecord(begin, a));
    for (int i = 0; i < 3; i++) fill_kernel<<<4, 256, 0, a>>>(x.p, 1.f, n);
    CUDA_OK(cudaEventRecord(filled, a));
    float ms = -1;
    if (mode() == "lazy") {
        CHECK(cudaEventQuery(filled) == cudaErrorNotReady, "event");
        CHECK(cudaStreamQuery(a) == cudaErrorNotReady, "stream");
        CHECK(cudaEventElapsedTime(&ms, begin, filled) == cudaErrorNotReady, "elapsed time");
    }
    int polls = 0;
    while (cudaEventQuery(filled) == cudaErrorNotReady && ++polls < 100) {}
    CHECK(polls < 100 && cudaStreamQuery(a) == cudaSuccess, "%d polls", polls);
    CHECK(cudaEventElapsedTime(&ms, begin, filled) == cudaSuccess && ms >= 0, "%g ms", ms);
    CHECK(cudaEventElapsedTime(&ms, begin, added) == cudaErrorInvalidResourceHandle, "an event without timing");
    cudaGetLastError();

    check_begin("nothing runs before it must, in lazy mode; all has run, in eager mode");
    CUDA_OK(cudaDeviceSynchronize());
    pinned[0] = 0;
    fill_kernel<<<4, 256, 0, a>>>(x.p, 7.f, n);
    CUDA_OK(cudaMemcpyAsync(pinned, x.p, sizeof(float), cudaMemcpyDeviceToHost, a));
    fill_kernel<<<4, 256, 0, b>>>(y.p, 8.f, n);
    CUDA_OK(cudaStreamSynchronize(b)); // says nothing about a
    if (mode() == "lazy") CHECK(pinned[0] == 0, "%g", pinned[0]);
    if (mode() == "eager") CHECK(pinned[0] == 7, "%g", pinned[0]);
    CUDA_OK(cudaStreamSynchronize(a));
    CHECK(pinned[0] == 7, "%g", pinned[0]);

    check_begin("a full stream: whoever queues one more waits for the oldest");
    pinned[0] = 0;
    for (int i = 0; i < 1000; i++) CUDA_OK(cudaMemcpyAsync(pinned, x.p, sizeof(float), cudaMemcpyDeviceToHost, a));
    if (mode() == "lazy") CHECK(pinned[0] == 0, "%g", pinned[0]);
    CUDA_OK(cudaMemcpyAsync(pinned, x.p, sizeof(float), cudaMemcpyDeviceToHost, a));
    CHECK(pinned[0] == 7, "%g", pinned[0]);
    CUDA_OK(cudaStreamSynchronize(a));

    check_begin("a pageable source may be changed at once; its copy waits for what was queued before");
    std::vector<float> h(n, 5.f);
    fill_kernel<<<4, 256, 0, a>>>(x.p, 1.f, n);
    CUDA_OK(cudaMemcpyAsync(x.p, h.data(), n * sizeof(float), cudaMemcpyHostToDevice, a));
    h.assign(n, 6.f);
    CUDA_OK(cudaStreamSynchronize(a));
    CHECK(all(x.host(), 5.f), "%g", x.host()[0]);

    check_begin("the null stream waits for blocking streams, and they for it");
    cudaStream_t blocking;
    CUDA_OK(cudaStreamCreate(&blocking));
    fill_kernel<<<4, 256, 0, blocking>>>(x.p, 2.f, n);
    scale_kernel<<<4, 256>>>(x.p, 10.f, n);
    CUDA_OK(cudaMemcpyAsync(pinned, x.p, sizeof(float), cudaMemcpyDeviceToHost, 0));
    CUDA_OK(cudaStreamSynchronize(0));
    CHECK(pinned[0] == 20, "%g", pinned[0]);
    fill_kernel<<<4, 256>>>(y.p, 1.f, n);
    add_kernel<<<4, 256, 0, blocking>>>(y.p, x.p, n);
    CUDA_OK(cudaMemcpyAsync(pinned, y.p, n * sizeof(float), cudaMemcpyDeviceToHost, blocking));
    CUDA_OK(cudaStreamSynchronize(blocking));
    CHECK(all(std::vector<float>(pinned, pinned + n), 21.f), "%g", pinned[0]);

    CUDA_OK(cudaEventDestroy(begin));
    CUDA_OK(cudaEventDestroy(filled));
    CUDA_OK(cudaEventDestroy(added));
    CUDA_OK(cudaStreamDestroy(a));
    CUDA_OK(cudaStreamDestroy(b));
    CUDA_OK(cudaStreamDestroy(blocking));
    CUDA_OK(cudaFreeHost(pinned));
}

__global__ void dynamic_kernel(float *x) {
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = 1.f;
    x[threadIdx.x] = buffer[threadIdx.x];
}
static void test_launches() {
    check_begin("launches that a GPU refuses");
    Device<float> x(64);
    auto refused = [&](dim3 grid, dim3 block, size_t shared) {
        dynamic_kernel<<<grid, block, shared>>>(x.p);
        return cudaGetLastError();
    };
    CHECK(refused(1, 64, 256) == cudaSuccess, "a good one");
    CHECK(refused(0, 64, 256) == cudaErrorInvalidConfiguration, "no blocks");
    CHECK(refused(1, 2048, 256) == cudaErrorInvalidConfiguration, "2048 threads");
    CHECK(refused(dim3(1, 70000), 64, 256) == cudaErrorInvalidConfiguration, "grid.y");
    CHECK(refused(1, 64, 60000) == cudaErrorInvalidValue, "48 kB are the limit");
    CUDA_OK(cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
    CHECK(refused(1, 64, 60000) == cudaSuccess, "unless more is asked for");
    cudaDeviceProp p;
    CUDA_OK(cudaGetDeviceProperties(&p, 0));
    CHECK(cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)p.sharedMemPerBlockOptin + 1) == cudaErrorInvalidValue,
          "more than the GPU has");
    cudaGetLastError();
}

static void test_devices() {
    check_begin("devices: count, choice, memory and streams of each");
    int count = -1, now = -1, version = 0;
    CUDA_OK(cudaGetDeviceCount(&count));
    CHECK(count >= 2, "%d devices", count);
    CHECK(cudaSetDevice(count) == cudaErrorInvalidDevice, "one too far");
    cudaGetLastError();
    CUDA_OK(cudaSetDevice(1));
    CUDA_OK(cudaGetDevice(&now));
    CHECK(now == 1, "%d", now);
    size_t free_bytes, total;
    cudaStream_t s;
    CUDA_OK(cudaStreamCreate(&s));
    Device<float> there(256);
    CUDA_OK(cudaMemGetInfo(&free_bytes, &total));
    CHECK(total - free_bytes == 1024, "%zu used", total - free_bytes);
    CUDA_OK(cudaSetDevice(0));
    CHECK(cudaStreamSynchronize(s) == cudaErrorInvalidResourceHandle, "a stream of another device");
    CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle, "is remembered");
    CUDA_OK(cudaSetDevice(1));
    CUDA_OK(cudaStreamDestroy(s));
    CUDA_OK(cudaSetDevice(0));
    CUDA_OK(cudaRuntimeGetVersion(&version));
    CHECK(version == CUDART_VERSION, "%d", version);
    CHECK(!strcmp(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation"), "name");
    CHECK(!strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"), "text");
}

// What the environment can make of the machine: `test_runtime query` prints it.
static int query() {
    int count = -1, driver = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    printf("devices %d (%s)\n", count, cudaGetErrorName(e));
    CUDA_OK(cudaDriverGetVersion(&driver));
    printf("driver %d runtime %d\n", driver, CUDART_VERSION);
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, 0) == cudaSuccess)
        printf("compute capability %d.%d, %zu bytes, %zu bytes of shared memory\n", p.major, p.minor, p.totalGlobalMem,
               p.sharedMemPerBlockOptin);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "query")) return query();
    test_memory();
    test_streams();
    test_launches();
    test_devices();
    return check_done();
}
