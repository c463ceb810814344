// A small tensor-core matrix product with everything that kernels of its kind can get wrong: tiles fetched by cp.async
// into two buffers in turn, fragments by ldmatrix, mma. `Bug` leaves out one synchronisation.
#ifndef CUDASIM_TILE_GEMM_CUH
#define CUDASIM_TILE_GEMM_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include "llmc/cuda/ptx.cuh"

typedef __nv_bfloat16 bf16;
enum TileGemmBug { TILE_CORRECT, TILE_NO_WAIT, TILE_NO_BARRIER_BEFORE, TILE_NO_BARRIER_AFTER };
constexpr int TILE = 64, STEP = 32; // rows of a tile, columns of a step

// Place of 8 elements; the swizzle spreads the rows that ldmatrix reads together over the banks.
__device__ __forceinline__ bf16 *tile_at(bf16 *tile, int row, int chunk) {
    return tile + row * STEP + ((chunk ^ (row >> 1)) & 3) * 8;
}
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *from, int ld, int rows) {
    for (int i = threadIdx.x; i < TILE * STEP / 8; i += blockDim.x) {
        int row = i / 4, chunk = i % 4;
        bool valid = row < rows;
        cp_async_16(tile_at(tile, row, chunk), from + (valid ? (size_t)row * ld + chunk * 8 : 0), valid);
    }
}

// c (M,N) = a (M,K) b^T, b (N,K); K a multiple of 32; 128 threads, each warp 32 x 32 of a tile of 64 x 64.
template <int Bug>
__global__ void __launch_bounds__(128) tile_gemm_kernel(float *c, const bf16 *a, const bf16 *b, int M, int N, int K) {
    __shared__ __align__(128) bf16 tile_a[2][TILE * STEP];
    __shared__ __align__(128) bf16 tile_b[2][TILE * STEP];
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int wm = warp / 2 * 32, wn = warp % 2 * 32;
    float acc[2][4][4] = {};
    a += (size_t)m0 * K;
    b += (size_t)n0 * K;
    load_tile(tile_a[0], a, K, M - m0);
    load_tile(tile_b[0], b, K, N - n0);
    cp_async_commit();
    for (int k = 0; k < K; k += STEP) {
        int now = k / STEP % 2;
        if (k + STEP < K) {
            load_tile(tile_a[now ^ 1], a + k + STEP, K, M - m0);
            load_tile(tile_b[now ^ 1], b + k + STEP, K, N - n0);
        }
        cp_async_commit();
        if (Bug != TILE_NO_WAIT) cp_async_wait<1>(); // the older of the two has landed
        if (Bug != TILE_NO_BARRIER_BEFORE) __syncthreads();
#pragma unroll
        for (int kk = 0; kk < STEP / 8; kk += 2) {
            uint32_t fa[2][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                ldmatrix_x4(fa[i], tile_at(tile_a[now], wm + i * 16 + lane % 16, kk + lane / 16));
                ldmatrix_x4(fb[i], tile_at(tile_b[now], wn + i * 16 + lane % 8 + lane / 16 * 8, kk + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
        if (Bug != TILE_NO_BARRIER_AFTER) __syncthreads(); // the next fetch overwrites what was just read
    }
    cp_async_wait<0>();
    int g = lane / 4, t = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int row = m0 + wm + i * 16 + g + e / 2 * 8, col = n0 + wn + j * 8 + t + e % 2;
                if (row < M && col < N) c[(size_t)row * N + col] = acc[i][j][e];
            }
}
template <int Bug> void tile_gemm(float *c, const bf16 *a, const bf16 *b, int M, int N, int K, cudaStream_t stream) {
    dim3 grid((N + TILE - 1) / TILE, (M + TILE - 1) / TILE);
    tile_gemm_kernel<Bug><<<grid, 128, 0, stream>>>(c, a, b, M, N, K);
}

#endif
