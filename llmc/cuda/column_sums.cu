// column_sums.cu: sums over the rows of a matrix: gradients of biases, and the second stage of RMSNorm's.
//
// A block owns a strip of 32 W columns and a chunk of rows: its warps take the rows in turn, each lane adding W columns
// in registers, and the warps' sums are added in order through shared memory. The same kernel, run on the partial sums,
// adds the chunks. Each element is read once, 512 consecutive bytes a warp.
#include "llmc/cuda/common.cuh"

// ---- kernel ----
// out (chunks,N) = or += sums over `chunk` rows of x (rows,N) each.
template <class E, int W>
__global__ void column_sums_kernel(float *out, const E *x, int rows, int N, int chunk, int accumulate) {
    extern __shared__ __align__(16) float sums[]; // (warps, W, 33): lanes of one j side by side, no bank twice
    constexpr int PITCH = WARP + 1;
    const int warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP, lane = (int)threadIdx.x % WARP;
    const int column = ((int)blockIdx.x * WARP + lane) * W;
    const int begin = (int)blockIdx.y * chunk, end = rows - begin < chunk ? rows : begin + chunk;
    float s[W] = {0};
    if (column < N) {
#pragma unroll 4
        for (int t = begin + warp; t < end; t += warps) {
            float v[W];
            load(v, x + (size_t)t * (size_t)N + column);
#pragma unroll
            for (int j = 0; j < W; j++) s[j] += v[j];
        }
    }
#pragma unroll
    for (int j = 0; j < W; j++) sums[(warp * W + j) * PITCH + lane] = s[j];
    __syncthreads();
    for (int c = (int)threadIdx.x; c < WARP * W; c += (int)blockDim.x) {
        const int at = (int)blockIdx.x * WARP * W + c;
        if (at >= N) break;
        float *to = out + (size_t)blockIdx.y * (size_t)N + at, sum = 0;
        for (int i = 0; i < warps; i++) sum += sums[(i * W + c % W) * PITCH + c / W];
        *to = accumulate ? *to + sum : sum;
    }
}

// ---- launchers ----
template <class E, int W>
static void launch(Backend *b, float *out, const E *x, int rows, int N, int chunk, int threads, int accumulate) {
    const dim3 grid((unsigned)ceil_divide((size_t)N, WARP * W), (unsigned)ceil_divide((size_t)rows, (size_t)chunk));
    const size_t shared = (size_t)threads * W * (WARP + 1) / WARP * sizeof(float);
    column_sums_kernel<E, W><<<grid, threads, shared, cuda_stream(b)>>>(out, x, rows, N, chunk, accumulate);
    CUDA_CHECK_LAUNCH("column_sums_kernel");
}

void cuda_sum_partials(Backend *b, float *out, const float *partial, int rows, int N, int accumulate) {
    launch<float, 1>(b, out, partial, rows, N, rows, threads_for((size_t)rows * WARP, 1024), accumulate);
}

template <class E, int W>
static void two_stages(Backend *b, float *out, const elem_t *x, int T, int N, int accumulate) {
    const int chunk = column_sum_chunk(T), rows = (int)ceil_divide((size_t)T, (size_t)chunk);
    if (rows == 1) {
        launch<E, W>(b, out, (const E *)x, T, N, chunk, 256, accumulate);
        return;
    }
    float *partial = (float *)cuda_scratch(b, (size_t)rows * (size_t)N * sizeof(float), "column sums"); // (rows,N)
    launch<E, W>(b, partial, (const E *)x, T, N, chunk, 256, 0);
    cuda_sum_partials(b, out, partial, rows, N, accumulate);
}

void cuda_column_sums(Backend *b, float *out, const elem_t *x, int T, int N, int accumulate) {
    if (N <= 0) return;
    if (T <= 0) {
        if (!accumulate) b->zero(b, out, (size_t)N * sizeof(float));
        return;
    }
    CUDA_FOR_ELEMENTS(b, aligned16(x) && N % wide_elems(b) == 0, two_stages, b, out, x, T, N, accumulate);
}
