// rmsnorm.cu: RMSNorm with the residual add in front of it, forward and backward.
//
// A block is a row (forward) or some rows (backward), a thread W neighbouring elements, so that a row of up to 1024 W
// elements (backward 512 W) stays in registers between the sum over the row and its use; of longer rows only each
// thread's last pack does, and the second pass runs backwards from it. The weight's gradient is kept in registers over
// the block's rows, written once a block and summed in the order of the blocks: no atomics.
// Bytes of memory traffic an element, e = sizeof(elem): forward 4e (x, delta; sum, out), without delta 2e; backward 4e
// (dout, x, dx twice) and at most 8 bytes a column of each of the 512 blocks. Everything is bound by memory.
#include "llmc/cuda/common.cuh"

// ---- kernels ----
template <class E, int W>
__global__ void __launch_bounds__(1024)
    rmsnorm_forward_kernel(E *out, E *sum, float *rstd, const E *x, const E *delta, const E *w, int D, float eps) {
    __shared__ float warps[32];
    const size_t row = (size_t)blockIdx.x * (size_t)D;
    const int stride = (int)blockDim.x * W;
    float v[W] = {0}, squares = 0;
    int i = (int)threadIdx.x * W;
    for (; i < D; i += stride) {
        load(v, x + row + i);
        if (delta) {
            float d[W];
            load(d, delta + row + i);
#pragma unroll
            for (int j = 0; j < W; j++) v[j] = to_float(from_float<E>(v[j] + d[j])); // backward sees the stored sum
            store(sum + row + i, v);
        }
#pragma unroll
        for (int j = 0; j < W; j++) squares += v[j] * v[j];
    }
    const float r = 1.0f / sqrtf(block_sum(squares, warps) / (float)D + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    if (!out) return;
    const E *in = delta ? sum : x;
    for (i -= stride; i >= 0; i -= stride) {
        float g[W];
        load(g, w + i);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] = v[j] * r * g[j];
        store(out + row + i, v);
        if (i >= stride) load(v, in + row + i - stride);
    }
}

// dx += rstd * (dout w - x rstd^2 mean(dout w x)); partial (blocks,D) = sum over the block's rows of dout x rstd
template <class E, int W>
__global__ void __launch_bounds__(512, sizeof(E) == 2 ? 2 : 1)
    rmsnorm_backward_kernel(E *dx, float *partial, const E *dout, const E *x, const E *w, const float *rstd, int T,
                            int D, int rows) {
    __shared__ float warps[32];
    const int first = (int)threadIdx.x * W, stride = (int)blockDim.x * W;
    const int begin = (int)blockIdx.x * rows, end = T - begin < rows ? T : begin + rows;
    float *mine = partial ? partial + (size_t)blockIdx.x * (size_t)D : NULL;
    float dw[W] = {0}; // of the thread's first pack; those further on are added in `mine`
    for (int t = begin; t < end; t++) {
        const size_t row = (size_t)t * (size_t)D;
        const float r = rstd[t];
        float g[W] = {0}, v[W] = {0}, u[W] = {0}, d[W] = {0}, dots = 0;
        int i = first;
        for (; i < D; i += stride) {
            load(g, dout + row + i), load(v, x + row + i), load(u, w + i), load(d, dx + row + i);
#pragma unroll
            for (int j = 0; j < W; j++) dots += g[j] * u[j] * v[j];
        }
        const float c = block_sum(dots, warps) / (float)D * r * r;
        for (i -= stride; i >= 0; i -= stride) {
#pragma unroll
            for (int j = 0; j < W; j++) d[j] += (g[j] * u[j] - v[j] * c) * r;
            store(dx + row + i, d);
            if (i == first) {
#pragma unroll
                for (int j = 0; j < W; j++) dw[j] += g[j] * (v[j] * r);
            } else {
                if (mine) {
                    float s[W] = {0};
                    if (t > begin) load(s, mine + i);
#pragma unroll
                    for (int j = 0; j < W; j++) s[j] += g[j] * (v[j] * r);
                    store(mine + i, s);
                }
                const size_t before = row + (size_t)(i - stride);
                load(g, dout + before), load(v, x + before), load(u, w + i - stride), load(d, dx + before);
            }
        }
    }
    if (mine && first < D) store(mine + first, dw);
}

// ---- launchers ----
template <class E, int W>
static void launch_forward(Backend *b, elem_t *out, elem_t *sum, float *rstd, const elem_t *x, const elem_t *delta,
                           const elem_t *w, int T, int D, float eps) {
    const int threads = threads_for(ceil_divide((size_t)D, W), 1024);
    rmsnorm_forward_kernel<E, W><<<(unsigned)T, threads, 0, cuda_stream(b)>>>((E *)out, (E *)sum, rstd, (const E *)x,
                                                                              (const E *)delta, (const E *)w, D, eps);
    CUDA_CHECK_LAUNCH("rmsnorm_forward_kernel");
}

static void rmsnorm_forward(Backend *b, elem_t *out, elem_t *sum, float *rstd, const elem_t *x, const elem_t *delta,
                            const elem_t *w, int T, int D, float eps) {
    if (T <= 0 || D <= 0) return;
    const bool wide = D % wide_elems(b) == 0 && aligned16(out) && aligned16(x) && aligned16(w) &&
                      (!delta || (aligned16(sum) && aligned16(delta)));
    CUDA_FOR_ELEMENTS(b, wide, launch_forward, b, out, sum, rstd, x, delta, w, T, D, eps);
}

template <class E, int W>
static void launch_backward(Backend *b, elem_t *dx, float *partial, const elem_t *dout, const elem_t *x,
                            const elem_t *w, const float *rstd, int T, int D, int rows) {
    const int threads = threads_for(ceil_divide((size_t)D, W), 512);
    const unsigned blocks = (unsigned)ceil_divide((size_t)T, (size_t)rows);
    rmsnorm_backward_kernel<E, W><<<blocks, threads, 0, cuda_stream(b)>>>((E *)dx, partial, (const E *)dout,
                                                                          (const E *)x, (const E *)w, rstd, T, D, rows);
    CUDA_CHECK_LAUNCH("rmsnorm_backward_kernel");
}

static void rmsnorm_backward(Backend *b, elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                             const float *rstd, int T, int D, int accumulate) {
    if (D <= 0) return;
    if (T <= 0) {
        if (dw && !accumulate) b->zero(b, dw, (size_t)D * sizeof(float));
        return;
    }
    // 8 rows a block: enough blocks for every multiprocessor, few enough partial sums
    const int rows = T <= 8 * BACKEND_SUM_BLOCKS ? 8 : (int)ceil_divide((size_t)T, BACKEND_SUM_BLOCKS);
    const int blocks = (int)ceil_divide((size_t)T, (size_t)rows);
    const size_t bytes = (size_t)blocks * (size_t)D * sizeof(float);
    float *partial = dw ? (float *)cuda_scratch(b, bytes, "rmsnorm_backward") : NULL; // (blocks,D)
    const bool wide = D % wide_elems(b) == 0 && aligned16(dx) && aligned16(dout) && aligned16(x) && aligned16(w);
    CUDA_FOR_ELEMENTS(b, wide, launch_backward, b, dx, partial, dout, x, w, rstd, T, D, rows);
    if (partial) cuda_sum_partials(b, dw, partial, blocks, D, accumulate);
}

void cuda_rmsnorm_fill(Backend *b) {
    b->rmsnorm_forward = rmsnorm_forward;
    b->rmsnorm_backward = rmsnorm_backward;
}
