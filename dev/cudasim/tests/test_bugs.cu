// Planted bugs, one a run: `test_bugs NAME [bug]`. Without "bug" the same code is correct, and every build must say so.
// Results are compared here; what else must find the bug (a message, a sanitizer) the script that runs this knows.
#include "device.h"
#include "tile_gemm.cuh"
#include <cmath>
#include <cstring>

static const int N = 256;
static bool bug;

static int verdict(const std::vector<float> &got, float (*want)(int)) {
    int wrong = 0;
    for (int i = 0; i < (int)got.size(); i++) wrong += got[i] != want(i);
    printf("%d of %zu values are wrong\n", wrong, got.size());
    return wrong ? 1 : 0;
}
static std::vector<float> ramp(int n) {
    std::vector<float> v(n);
    for (int i = 0; i < n; i++) v[i] = (float)i;
    return v;
}

// ---- barriers ----
__global__ void reverse_kernel(float *x, bool no_barrier) {
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = x[threadIdx.x];
    if (!no_barrier) __syncthreads();
    x[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}
static int missing_barrier() {
    Device<float> x(ramp(N));
    reverse_kernel<<<1, N, N * sizeof(float)>>>(x.p, bug);
    return verdict(x.host(), [](int i) { return (float)(N - 1 - i); });
}
__global__ void reuse_kernel(float *sum, const float *x, bool no_barrier) {
    __shared__ float part[8];
    float s = 0;
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x[round * blockDim.x + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < (int)blockDim.x / 32; i++) s += part[i];
        if (!no_barrier) __syncthreads(); // before the next round writes
    }
    sum[threadIdx.x] = s;
}
static int missing_barrier_before_reuse() {
    Device<float> x(ramp(N)), sum(N / 2);
    reuse_kernel<<<1, N / 2>>>(sum.p, x.p, bug);
    return verdict(sum.host(), [](int) { return 0.f + 32 + 64 + 96 + 128 + 160 + 192 + 224; });
}
__global__ void warp_reverse_kernel(float *x, bool no_barrier) {
    __shared__ float buffer[N];
    int first = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    buffer[threadIdx.x] = x[threadIdx.x];
    if (!no_barrier) __syncwarp();
    x[threadIdx.x] = buffer[first + 31 - lane];
}
static int missing_syncwarp() {
    Device<float> x(ramp(N));
    warp_reverse_kernel<<<1, N>>>(x.p, bug);
    return verdict(x.host(), [](int i) { return (float)(i / 32 * 32 + 31 - i % 32); });
}

// ---- between blocks ----
__global__ void count_kernel(float *sum, bool plain) {
    if (plain) *sum += 1.f;
    else atomicAdd(sum, 1.f);
}
static int plain_atomic() {
    Device<float> sum(std::vector<float>{0.f});
    count_kernel<<<4, 32>>>(sum.p, bug);
    return verdict(sum.host(), [](int) { return 128.f; });
}
enum { FENCE_RIGHT, NO_FENCE, FENCE_TOO_EARLY };
__global__ void last_block_kernel(float *total, float *part, unsigned *arrived, int fence) {
    __shared__ int last;
    if (threadIdx.x == 0) {
        if (fence == FENCE_TOO_EARLY) __threadfence();
        part[blockIdx.x] = 1.f;
        if (fence == FENCE_RIGHT) __threadfence();
        last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x) return;
    *total = 0;
    for (unsigned i = 0; i < gridDim.x; i++) *total += part[i];
}
static int last_block(int fence) {
    Device<float> total(1), part(8);
    Device<unsigned> arrived(std::vector<unsigned>{0});
    last_block_kernel<<<8, 32>>>(total.p, part.p, arrived.p, fence);
    return verdict(total.host(), [](int) { return 8.f; });
}
static int missing_fence() { return last_block(bug ? NO_FENCE : FENCE_RIGHT); }
static int fence_too_early() { return last_block(bug ? FENCE_TOO_EARLY : FENCE_RIGHT); }

// ---- cp.async ----
template <int Bug> static int run_tile_gemm() {
    const int n = 128, k = 128;
    std::vector<bf16> a(n * k), b(n * k);
    for (int i = 0; i < n * k; i++) a[i] = __float2bfloat16((float)(i % 7)), b[i] = __float2bfloat16((float)(i % 5));
    Device<bf16> da(a), db(b);
    Device<float> c(n * n);
    tile_gemm<Bug>(c.p, da.p, db.p, n, n, k, 0);
    auto h = c.host();
    int wrong = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            float want = 0;
            for (int p = 0; p < k; p++) want += (float)((i * k + p) % 7 * ((j * k + p) % 5));
            wrong += h[i * n + j] != want;
        }
    printf("%d of %d values are wrong\n", wrong, n * n);
    return wrong ? 1 : 0;
}
static int tile_no_wait() { return bug ? run_tile_gemm<TILE_NO_WAIT>() : run_tile_gemm<TILE_CORRECT>(); }
static int tile_no_barrier_before() {
    return bug ? run_tile_gemm<TILE_NO_BARRIER_BEFORE>() : run_tile_gemm<TILE_CORRECT>();
}
static int tile_no_barrier_after() {
    return bug ? run_tile_gemm<TILE_NO_BARRIER_AFTER>() : run_tile_gemm<TILE_CORRECT>();
}
__global__ void copy_kernel(float4 *out, const float4 *in, bool never_wait) {
    __shared__ float4 buffer[32];
    cp_async_16(buffer + threadIdx.x, in + threadIdx.x, true);
    cp_async_commit();
    if (!never_wait) cp_async_wait<0>();
    if (!never_wait) out[threadIdx.x] = buffer[threadIdx.x];
}
static int cp_async_never_waited() {
    Device<float> x(ramp(N)), y(128);
    copy_kernel<<<1, 32>>>((float4 *)y.p, (const float4 *)x.p, bug);
    return verdict(y.host(), [](int i) { return (float)i; });
}

// ---- bounds, alignment ----
__global__ void add_one_kernel(float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += 1.f;
}
static int write_past_global() {
    Device<float> x(ramp(N));
    add_one_kernel<<<2, N>>>(x.p, bug ? N + 1 : N);
    return verdict(x.host(), [](int i) { return (float)i + 1.f; });
}
__global__ void neighbours_kernel(float *y, const float *x, int n) {
    int i = threadIdx.x;
    y[i] = i < n - 1 ? x[i + 1] : -1.f;
}
static int read_past_global() {
    Device<float> x(ramp(N)), y(N);
    neighbours_kernel<<<1, N>>>(y.p, x.p, bug ? N + 1 : N);
    return bug ? 0 : verdict(y.host(), [](int i) { return i < N - 1 ? (float)(i + 1) : -1.f; });
}
__global__ void shift_dynamic_kernel(float *x, int shift) {
    extern __shared__ float buffer[];
    buffer[threadIdx.x + shift] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = buffer[threadIdx.x + shift];
}
static int write_past_dynamic_shared() {
    Device<float> x(ramp(N));
    shift_dynamic_kernel<<<1, N, N * sizeof(float)>>>(x.p, bug ? 1 : 0);
    return verdict(x.host(), [](int i) { return (float)i; });
}
__global__ void shift_static_kernel(float *x, int shift) {
    __shared__ float one[32];
    __shared__ float other[32];
    one[threadIdx.x + shift] = x[threadIdx.x];
    other[threadIdx.x] = 0.f;
    __syncthreads();
    x[threadIdx.x] = one[threadIdx.x + shift] + other[threadIdx.x];
}
static int write_past_static_shared() {
    Device<float> x(ramp(32));
    shift_static_kernel<<<1, 32>>>(x.p, bug ? 1 : 0);
    return verdict(x.host(), [](int i) { return (float)i; });
}
__global__ void sum4_kernel(float *sum, const float *x) {
    float4 v = *reinterpret_cast<const float4 *>(x + threadIdx.x * 4);
    sum[threadIdx.x] = v.x + v.y + v.z + v.w;
}
static int misaligned_vector() {
    Device<float> x(std::vector<float>(132, 1.f)), sum(32);
    sum4_kernel<<<1, 32>>>(sum.p, bug ? x.p + 1 : x.p);
    return verdict(sum.host(), [](int) { return 4.f; });
}
__global__ void fragment_kernel(float *out, int shift) {
    __shared__ __align__(16) bf16 tile[264];
    for (int i = threadIdx.x; i < 264; i += 32) tile[i] = __float2bfloat16(1.f);
    __syncwarp();
    uint32_t r[4];
    ldmatrix_x4(r, tile + threadIdx.x * 8 + shift);
    out[threadIdx.x] = __uint_as_float(r[0] << 16);
}
static int misaligned_ldmatrix() {
    Device<float> out(32);
    fragment_kernel<<<1, 32>>>(out.p, bug ? 4 : 0);
    return verdict(out.host(), [](int) { return 1.f; });
}

// ---- collectives ----
__global__ void warp_sum_kernel(float *x, int n) {
    if ((int)threadIdx.x >= n) return; // and yet the mask below names all lanes
    float v = x[threadIdx.x];
    for (int k = 16; k > 0; k /= 2) v += __shfl_xor_sync(~0u, v, k);
    x[threadIdx.x] = v;
}
static int ended_lanes_in_mask() {
    Device<float> x(ramp(32));
    warp_sum_kernel<<<1, 32>>>(x.p, bug ? 20 : 32);
    return verdict(x.host(), [](int) { return 496.f; });
}
__global__ void divergent_kernel(float *x, bool divergent) {
    if (divergent && threadIdx.x >= 40) {
        x[threadIdx.x] = __shfl_sync(~0u, 1.f, 0);
    } else {
        x[threadIdx.x] = 1.f;
        __syncthreads();
    }
}
static int divergent_barrier() {
    Device<float> x(64);
    divergent_kernel<<<1, 64>>>(x.p, bug);
    return verdict(x.host(), [](int) { return 1.f; });
}

// ---- streams ----
__global__ void fill_kernel(float *x, float v) { x[threadIdx.x] = v; }
__global__ void copy_values_kernel(float *y, const float *x) { y[threadIdx.x] = x[threadIdx.x]; }
static int missing_event_wait() {
    Device<float> x(std::vector<float>(N, 0.f)), y(N);
    cudaStream_t a, b;
    cudaEvent_t filled;
    CUDA_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    CUDA_OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    CUDA_OK(cudaEventCreate(&filled));
    fill_kernel<<<1, N, 0, a>>>(x.p, 3.f);
    CUDA_OK(cudaEventRecord(filled, a));
    if (!bug) CUDA_OK(cudaStreamWaitEvent(b, filled, 0));
    copy_values_kernel<<<1, N, 0, b>>>(y.p, x.p);
    CUDA_OK(cudaStreamSynchronize(b));
    return verdict(y.host(), [](int) { return 3.f; });
}
static int result_read_too_early() {
    Device<float> x(N);
    float *pinned;
    cudaStream_t s;
    CUDA_OK(cudaMallocHost((void **)&pinned, N * sizeof(float)));
    CUDA_OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    fill_kernel<<<1, N, 0, s>>>(x.p, 3.f);
    CUDA_OK(cudaMemcpyAsync(pinned, x.p, N * sizeof(float), cudaMemcpyDeviceToHost, s));
    if (!bug) CUDA_OK(cudaStreamSynchronize(s));
    std::vector<float> read(pinned, pinned + N);
    return verdict(read, [](int) { return 3.f; });
}
static int input_overwritten_too_early() {
    Device<float> x(N);
    float *pinned;
    cudaStream_t s;
    CUDA_OK(cudaMallocHost((void **)&pinned, N * sizeof(float)));
    CUDA_OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    for (int i = 0; i < N; i++) pinned[i] = 3.f;
    CUDA_OK(cudaMemcpyAsync(x.p, pinned, N * sizeof(float), cudaMemcpyHostToDevice, s));
    if (!bug) CUDA_OK(cudaStreamSynchronize(s));
    for (int i = 0; i < N; i++) pinned[i] = 4.f; // the next batch
    CUDA_OK(cudaStreamSynchronize(s));
    return verdict(x.host(), [](int) { return 3.f; });
}

// ---- two address spaces ----
static int host_reads_device() {
    Device<float> x(std::vector<float>(N, 3.f));
    auto h = x.host();
    volatile float *p = bug ? x.p : h.data();
    printf("%g\n", p[7]);
    return 0;
}
static int kernel_gets_host_pointer() {
    Device<float> x(N);
    std::vector<float> h(N, 3.f);
    copy_values_kernel<<<1, N>>>(x.p, bug ? h.data() : x.p);
    CUDA_OK(cudaDeviceSynchronize());
    return 0;
}
static int use_after_free() {
    Device<float> x(std::vector<float>(N, 3.f)), y(N);
    float *freed;
    CUDA_OK(cudaMalloc((void **)&freed, N * sizeof(float)));
    fill_kernel<<<1, N>>>(freed, 3.f);
    const float *from = freed;
    if (bug) CUDA_OK(cudaFree(freed));
    copy_values_kernel<<<1, N>>>(y.p, from);
    return verdict(y.host(), [](int) { return 3.f; });
}
static int copy_past_end() {
    Device<float> x(N);
    std::vector<float> h(N + 1, 3.f);
    CUDA_OK(cudaMemcpy(x.p, h.data(), (bug ? N + 1 : N) * sizeof(float), cudaMemcpyHostToDevice));
    return 0;
}
__device__ int deep(volatile int *n) {
    volatile char block[4096];
    block[0] = (char)*n;
    return *n > 1000000 ? block[0] : deep(n) + block[0];
}
__global__ void deep_kernel(int *out, bool recurse) {
    volatile int zero = 0;
    *out = recurse ? deep(&zero) : 0;
}
static int stack_overflow() {
    Device<int> out(1);
    deep_kernel<<<1, 1>>>(out.p, bug);
    return out.host()[0];
}

#define ENTRY(name)                                                                                                    \
    { #name, name }
static const struct {
    const char *name;
    int (*run)();
} entries[] = {ENTRY(missing_barrier),
               ENTRY(missing_barrier_before_reuse),
               ENTRY(missing_syncwarp),
               ENTRY(plain_atomic),
               ENTRY(missing_fence),
               ENTRY(fence_too_early),
               ENTRY(tile_no_wait),
               ENTRY(tile_no_barrier_before),
               ENTRY(tile_no_barrier_after),
               ENTRY(cp_async_never_waited),
               ENTRY(write_past_global),
               ENTRY(read_past_global),
               ENTRY(write_past_dynamic_shared),
               ENTRY(write_past_static_shared),
               ENTRY(misaligned_vector),
               ENTRY(misaligned_ldmatrix),
               ENTRY(ended_lanes_in_mask),
               ENTRY(divergent_barrier),
               ENTRY(missing_event_wait),
               ENTRY(result_read_too_early),
               ENTRY(input_overwritten_too_early),
               ENTRY(host_reads_device),
               ENTRY(kernel_gets_host_pointer),
               ENTRY(use_after_free),
               ENTRY(copy_past_end),
               ENTRY(stack_overflow)};

int main(int argc, char **argv) {
    bug = argc > 2 && !strcmp(argv[2], "bug");
    int run = 0;
    for (auto &entry : entries) {
        if (argc > 1 && strcmp(argv[1], entry.name)) continue;
        int result = entry.run();
        CUDA_OK(cudaGetLastError());
        if (result) return result;
        run++;
    }
    printf("%d right\n", run);
    return run ? 0 : 2;
}
