// Barriers, shuffles, votes, reductions, atomics, fences, bit operations: what each must give, lane by lane.
#include "device.h"
#include "test/check.h"
#include <cmath>
#include <cuda_bf16.h>

// ---- indices: a grid of odd shape ----
__global__ void index_kernel(int *out) {
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}
static void test_indices() {
    check_begin("threadIdx, blockIdx: every thread of a grid once");
    Device<int> out(2 * 3 * 4 * 5 * 3 * 2);
    index_kernel<<<dim3(2, 3, 4), dim3(5, 3, 2)>>>(out.p);
    CUDA_OK(cudaGetLastError());
    auto h = out.host();
    for (int i = 0; i < (int)h.size(); i++) CHECK(h[i] == i / 30 * 1000 + i % 30, "%d: %d", i, h[i]);
}

// ---- shuffles ----
__global__ void shuffle_kernel(int *out, double *wide) {
    int lane = threadIdx.x % 32;
    int *o = out + threadIdx.x;
    const int n = 64; // threads
    o[0 * n] = __shfl_sync(~0u, lane, 5);
    o[1 * n] = __shfl_sync(~0u, lane, lane + 3, 8);
    o[2 * n] = __shfl_xor_sync(~0u, lane, 16);
    o[3 * n] = __shfl_xor_sync(~0u, lane, 9, 8);
    o[4 * n] = __shfl_down_sync(~0u, lane, 4u);
    o[5 * n] = __shfl_down_sync(~0u, lane, 4u, 8);
    o[6 * n] = __shfl_up_sync(~0u, lane, 4u);
    o[7 * n] = __shfl_up_sync(~0u, lane, 4u, 8);
    if (lane < 16) o[8 * n] = __shfl_sync(0x0000ffffu, lane, 15 - lane); // two groups of one warp at once
    else o[8 * n] = __shfl_sync(0xffff0000u, lane, 47 - lane);
    wide[threadIdx.x] = __shfl_xor_sync(~0u, lane * 1.5, 1);
}
static void test_shuffles() {
    check_begin("shuffles: plain, xor, down, up, with widths, in two groups, of 8 bytes");
    Device<int> out(9 * 64);
    Device<double> wide(64);
    shuffle_kernel<<<1, 64>>>(out.p, wide.p);
    CUDA_OK(cudaGetLastError());
    auto h = out.host();
    auto w = wide.host();
    for (int i = 0; i < 64; i++) {
        int lane = i % 32, in8 = lane % 8, base8 = lane - in8;
        int want[9] = {5, base8 + (lane + 3) % 8, lane ^ 16,
                       // Bit 3 leaves the segment: an earlier one may be read, a later one gives the lane's own value.
                       (lane ^ 9) / 8 > lane / 8 ? lane : lane ^ 9, lane + 4 < 32 ? lane + 4 : lane,
                       in8 + 4 < 8 ? lane + 4 : lane, lane >= 4 ? lane - 4 : lane, in8 >= 4 ? lane - 4 : lane,
                       lane < 16 ? 15 - lane : 47 - lane};
        for (int k = 0; k < 9; k++) CHECK(h[k * 64 + i] == want[k], "shuffle %d, lane %d: %d", k, i, h[k * 64 + i]);
        CHECK(w[i] == (lane ^ 1) * 1.5, "lane %d: %g", i, w[i]);
    }
}

// ---- votes and reductions ----
__global__ void vote_kernel(unsigned *out, float *sum) {
    int lane = threadIdx.x % 32;
    unsigned *o = out + threadIdx.x;
    const int n = 64;
    o[0 * n] = __ballot_sync(~0u, lane % 3 == 0);
    o[1 * n] = __any_sync(~0u, lane == 31);
    o[2 * n] = __any_sync(~0u, lane == 32);
    o[3 * n] = __all_sync(~0u, lane < 32);
    o[4 * n] = __all_sync(~0u, lane != 7);
    o[5 * n] = __reduce_add_sync(~0u, (unsigned)lane);
    o[6 * n] = (unsigned)__reduce_min_sync(~0u, 10 - lane);
    o[7 * n] = (unsigned)__reduce_max_sync(~0u, 10 - lane);
    float x = (float)lane;
    for (int k = 16; k > 0; k /= 2) x += __shfl_xor_sync(~0u, x, k);
    sum[threadIdx.x] = x;
}
static void test_votes() {
    check_begin("votes and reductions");
    Device<unsigned> out(8 * 64);
    Device<float> sum(64);
    vote_kernel<<<1, 64>>>(out.p, sum.p);
    CUDA_OK(cudaGetLastError());
    auto h = out.host();
    auto s = sum.host();
    unsigned thirds = 0;
    for (int i = 0; i < 32; i += 3) thirds |= 1u << i;
    const unsigned want[8] = {thirds, 1, 0, 1, 0, 496, (unsigned)-21, 10};
    for (int i = 0; i < 64; i++) {
        for (int k = 0; k < 8; k++) CHECK(h[k * 64 + i] == want[k], "vote %d, lane %d: %u", k, i, h[k * 64 + i]);
        CHECK(s[i] == 496, "lane %d: %g", i, s[i]);
    }
}

// ---- barriers ----
__global__ void barrier_kernel(int *out) {
    extern __shared__ int buffer[];
    __shared__ float part[4][33];
    int t = threadIdx.x, n = blockDim.x;
    buffer[t] = t;
    __syncthreads();
    int other = buffer[n - 1 - t];
    int any = __syncthreads_or(t == n - 1), none = __syncthreads_or(0);
    int all = __syncthreads_and(1), some = __syncthreads_and(t != 3), count = __syncthreads_count(t % 2);
    part[t / 32][t % 32] = (float)t; // within a warp
    __syncwarp();
    float neighbour = part[t / 32][31 - t % 32];
    if (t >= n - 10) return; // the others' barrier counts those that have not ended
    buffer[t] = other;
    __syncthreads();
    int *o = out + t * 8;
    o[0] = other, o[1] = any, o[2] = none, o[3] = all, o[4] = some, o[5] = count, o[6] = (int)neighbour;
    o[7] = buffer[n - 11 - t];
}
static void test_barriers() {
    check_begin("__syncthreads and its kinds, __syncwarp, threads that end early; static and dynamic shared memory");
    const int n = 128;
    Device<int> out(n * 8);
    barrier_kernel<<<1, n, n * sizeof(int)>>>(out.p);
    CUDA_OK(cudaGetLastError());
    auto h = out.host();
    for (int t = 0; t < n - 10; t++) {
        const int want[8] = {n - 1 - t, 1, 0, 1, 0, n / 2, t / 32 * 32 + 31 - t % 32, t + 10};
        for (int k = 0; k < 8; k++) CHECK(h[t * 8 + k] == want[k], "thread %d, %d: %d", t, k, h[t * 8 + k]);
    }
}

// ---- fresh shared memory ----
__global__ void fresh_kernel(int *nans) {
    extern __shared__ float dynamic[];
    __shared__ float fixed[64];
    int i = threadIdx.x;
    nans[i] = isnan(dynamic[i]) + isnan(fixed[i]);
    __syncthreads();
    dynamic[i] = fixed[i] = 1.f; // for the next block
}
static void test_fresh_shared() {
    check_begin("shared memory is NaN at the start of every block");
    Device<int> nans(64);
    for (int launch = 0; launch < 2; launch++) {
        fresh_kernel<<<1, 64, 256>>>(nans.p);
        for (int n : nans.host()) CHECK(n == 2, "%d of 2 are NaN", n);
    }
}

// ---- atomics, fences ----
__global__ void atomic_kernel(int *sum, float *fsum, int *least, int *most, unsigned *bits, int *wins,
                              unsigned *turns) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(sum, i);
    atomicAdd(fsum, 0.5f);
    atomicMin(least, -i);
    atomicMax(most, i);
    atomicOr(bits, 1u << i % 32);
    if (atomicCAS(wins, 0, 1) == 0) atomicAdd(wins + 1, 1);
    atomicExch(wins + 2, 7);
    atomicInc(turns, 9);
}
// The last block to arrive adds up what all have written.
__global__ void last_block_kernel(float *total, float *part, unsigned *arrived) {
    __shared__ int last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (float)blockIdx.x;
        __threadfence();
        last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x != 1) return;
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++) sum += part[i];
    *total = sum;
}
static void test_atomics() {
    check_begin("atomics");
    Device<int> ints(std::vector<int>{0, 0, 0, 0, 0, 0});
    Device<float> fsum(std::vector<float>{0.f});
    Device<unsigned> bits(std::vector<unsigned>{0, 0});
    atomic_kernel<<<10, 64>>>(ints.p, fsum.p, ints.p + 1, ints.p + 2, bits.p, ints.p + 3, bits.p + 1);
    CUDA_OK(cudaGetLastError());
    auto h = ints.host();
    CHECK(h[0] == 640 * 639 / 2 && h[1] == -639 && h[2] == 639, "%d %d %d", h[0], h[1], h[2]);
    CHECK(h[3] == 1 && h[4] == 1 && h[5] == 7, "%d %d %d", h[3], h[4], h[5]);
    CHECK(fsum.host()[0] == 320, "%g", fsum.host()[0]);
    CHECK(bits.host()[0] == ~0u && bits.host()[1] == 0, "%08x %u", bits.host()[0], bits.host()[1]);

    check_begin("the last block reads what others wrote before a fence");
    Device<float> total(1), part(20);
    Device<unsigned> arrived(std::vector<unsigned>{0});
    last_block_kernel<<<20, 32>>>(total.p, part.p, arrived.p);
    CUDA_OK(cudaGetLastError());
    CHECK(total.host()[0] == 190, "%g", total.host()[0]);
}

// ---- arithmetic ----
__global__ void arithmetic_kernel(float *f, int *i) {
    f[0] = __expf(1.f), f[1] = __logf(2.f), f[2] = rsqrtf(4.f), f[3] = __fdividef(1.f, 8.f), f[4] = __frcp_rn(4.f);
    f[5] = __fmaf_rn(2.f, 3.f, 4.f), f[6] = __int_as_float(__float_as_int(1.5f)), f[7] = __ldg(f + 6),
    f[8] = exp2f(3.f);
    __stcs(f + 9, __ldcs(f + 8) + __bfloat162float(__float2bfloat16(1.f + 1.f / 512))); // rounds to 1, the even one
    i[0] = __popc(0xf0f0u), i[1] = __ffs(8), i[2] = __clz(1), i[3] = __clz(0), i[4] = __ffs(0),
    i[5] = min(3, max(1, 2));
}
static void test_arithmetic() {
    check_begin("arithmetic");
    Device<float> f(10);
    Device<int> i(6);
    arithmetic_kernel<<<1, 1>>>(f.p, i.p);
    CUDA_OK(cudaGetLastError());
    auto hf = f.host();
    auto hi = i.host();
    const float want[10] = {2.718282f, 0.693147f, 0.5f, 0.125f, 0.25f, 10.f, 1.5f, 1.5f, 8.f, 9.f};
    const int want_int[6] = {8, 4, 31, 32, 0, 2};
    for (int k = 0; k < 10; k++) CHECK(fabsf(hf[k] - want[k]) < 1e-5f, "%d: %g", k, hf[k]);
    for (int k = 0; k < 6; k++) CHECK(hi[k] == want_int[k], "%d: %d", k, hi[k]);
}

int main() {
    test_indices();
    test_shuffles();
    test_votes();
    test_barriers();
    test_fresh_shared();
    test_atomics();
    test_arithmetic();
    return check_done();
}
