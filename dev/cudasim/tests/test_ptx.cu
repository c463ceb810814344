// mma, ldmatrix and cp.async: alone against the layouts in the PTX manual, together in a small matrix product.
#include "device.h"
#include "test/check.h"
#include "tile_gemm.cuh"
#include <cmath>

// ---- ldmatrix: every element holds its own number, so that what arrives says where it came from ----
__global__ void ldmatrix_kernel(uint32_t *x4, uint32_t *x4_trans) {
    __shared__ __align__(16) unsigned short matrix[4 * 64];
    int lane = threadIdx.x;
    for (int i = lane; i < 4 * 64; i += 32) matrix[i] = (unsigned short)i;
    __syncwarp();
    uint32_t r4[4], t4[4];
    ldmatrix_x4(r4, matrix + lane * 8);
    ldmatrix_x4_trans(t4, matrix + lane * 8);
    for (int i = 0; i < 4; i++) x4[lane * 4 + i] = r4[i], x4_trans[lane * 4 + i] = t4[i];
}
static uint32_t pair(int low, int high) { return (uint32_t)low | (uint32_t)high << 16; }
static void test_ldmatrix() {
    check_begin("ldmatrix: thread l holds row l/4, elements 2(l%4) and the next, of each matrix");
    Device<uint32_t> x4(128), t4(128);
    ldmatrix_kernel<<<1, 32>>>(x4.p, t4.p);
    CUDA_OK(cudaGetLastError());
    auto h4 = x4.host(), ht4 = t4.host();
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            int row = lane / 4, col = lane % 4 * 2;
            uint32_t want = pair(i * 64 + row * 8 + col, i * 64 + row * 8 + col + 1);
            uint32_t want_trans = pair(i * 64 + col * 8 + row, i * 64 + (col + 1) * 8 + row);
            CHECK(h4[lane * 4 + i] == want, "x4, lane %d, matrix %d: %08x", lane, i, h4[lane * 4 + i]);
            CHECK(ht4[lane * 4 + i] == want_trans, "x4.trans, lane %d, matrix %d: %08x", lane, i, ht4[lane * 4 + i]);
        }
}

// ---- mma: small whole numbers, so that every order of the sum is exact ----
__global__ void mma_kernel(float *d, const bf16 *a, const bf16 *b) { // a (16,16), b (16,8), d (16,8), row-major
    int g = threadIdx.x / 4, t = threadIdx.x % 4 * 2;
    uint32_t fa[4], fb[2];
    float fd[4] = {100, 200, 300, 400};
    for (int i = 0; i < 4; i++) {
        const bf16 *p = a + (g + i % 2 * 8) * 16 + t + i / 2 * 8;
        fa[i] = __bfloat16_as_ushort(p[0]) | (uint32_t)__bfloat16_as_ushort(p[1]) << 16;
    }
    for (int i = 0; i < 2; i++) {
        const bf16 *p = b + (t + i * 8) * 8 + g;
        fb[i] = __bfloat16_as_ushort(p[0]) | (uint32_t)__bfloat16_as_ushort(p[8]) << 16;
    }
    mma_m16n8k16_bf16(fd, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + t + i % 2] = fd[i];
}
static void test_mma() {
    check_begin("mma.m16n8k16: exact on small whole numbers");
    std::vector<bf16> a(256), b(128);
    for (int i = 0; i < 256; i++) a[i] = __float2bfloat16((float)(i * 7 % 11 - 5));
    for (int i = 0; i < 128; i++) b[i] = __float2bfloat16((float)(i * 5 % 13 - 6));
    Device<bf16> da(a), db(b);
    Device<float> d(128);
    mma_kernel<<<1, 32>>>(d.p, da.p, db.p);
    CUDA_OK(cudaGetLastError());
    auto h = d.host();
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++) {
            float want = 100.f * (float)(1 + m / 8 * 2 + n % 2);
            for (int k = 0; k < 16; k++) want += __bfloat162float(a[m * 16 + k]) * __bfloat162float(b[k * 8 + n]);
            CHECK(h[m * 8 + n] == want, "(%d,%d): %g, expected %g", m, n, h[m * 8 + n], want);
        }
}

// ---- cp.async ----
__global__ void copy_kernel(float4 *out, const float4 *in, int valid) {
    extern __shared__ __align__(16) float4 buffer[];
    int i = threadIdx.x;
    cp_async_16(buffer + i, in + i, i < valid);
    cp_async_commit();
    cp_async_16(buffer + blockDim.x + i, in + blockDim.x + i, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[i] = buffer[blockDim.x - 1 - i];
    out[blockDim.x + i] = buffer[2 * blockDim.x - 1 - i];
}
__global__ void copy_too_early_kernel(float *out, const float4 *in) {
    __shared__ float4 buffer[32];
    cp_async_16(buffer + threadIdx.x, in + threadIdx.x, true);
    cp_async_commit();
    out[threadIdx.x] = buffer[threadIdx.x].x;
    cp_async_wait<0>();
    out[32 + threadIdx.x] = buffer[threadIdx.x].x;
}
static void test_cp_async(bool race_build) {
    check_begin("cp.async: copies, zero-fills what is not valid, waits for every group");
    std::vector<float> in(512);
    for (int i = 0; i < 512; i++) in[i] = (float)i;
    Device<float> din(in), dout(512);
    copy_kernel<<<1, 64, 2048>>>((float4 *)dout.p, (const float4 *)din.p, 10);
    CUDA_OK(cudaGetLastError());
    auto out = dout.host();
    for (int i = 0; i < 256; i++) {
        int from = (63 - i / 4) * 4 + i % 4;
        CHECK(out[i] == (from < 40 ? in[from] : 0.f), "%d: %g", i, out[i]);
        CHECK(out[256 + i] == in[256 + from], "%d: %g", 256 + i, out[256 + i]);
    }
    if (race_build) return; // which reports the next one
    check_begin("cp.async: NaN until the wait");
    Device<float> early(64);
    copy_too_early_kernel<<<1, 32>>>(early.p, (const float4 *)din.p);
    auto e = early.host();
    for (int i = 0; i < 32; i++)
        CHECK(std::isnan(e[i]) && e[32 + i] == in[i * 4], "%d: %g then %g", i, e[i], e[32 + i]);
}

// ---- together ----
static void test_tile_gemm() {
    const int shapes[][3] = {{64, 64, 32}, {1, 1, 32}, {65, 3, 64}, {100, 150, 96}};
    for (auto &s : shapes) {
        int M = s[0], N = s[1], K = s[2];
        static char name[64];
        check_end_case();
        snprintf(name, sizeof name, "tile product %d x %d x %d", M, N, K);
        check_begin(name);
        std::vector<bf16> a(M * K), b(N * K);
        for (size_t i = 0; i < a.size(); i++) a[i] = __float2bfloat16(sinf((float)i));
        for (size_t i = 0; i < b.size(); i++) b[i] = __float2bfloat16(cosf((float)i * 1.3f));
        Device<bf16> da(a), db(b);
        Device<float> c(M * N);
        tile_gemm<TILE_CORRECT>(c.p, da.p, db.p, M, N, K, 0);
        CUDA_OK(cudaGetLastError());
        auto h = c.host();
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double want = 0;
                for (int k = 0; k < K; k++)
                    want += (double)__bfloat162float(a[m * K + k]) * (double)__bfloat162float(b[n * K + k]);
                CHECK(fabs(h[m * N + n] - want) < 1e-5, "(%d,%d): %g, expected %g", m, n, h[m * N + n], want);
            }
    }
}

int main(int argc, char **argv) {
    test_ldmatrix();
    test_mma();
    test_cp_async(argc > 1 && !strcmp(argv[1], "race"));
    test_tile_gemm();
    return check_done();
}
