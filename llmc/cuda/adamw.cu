// adamw.cu: AdamW, sums of squares, the clip factor.
//
// AdamW is one pass over memory: 28 bytes an element with a master (gradient, m, v, master in; m, v, master out), and
// sizeof(elem) for the parameter. Without weight decay, elements whose gradient, m and v are zero (untouched rows of
// the embedding) do not change and are skipped: 12 bytes. The clip factor never leaves the device; if it is not finite,
// AdamW changes nothing.
#include "llmc/cuda/common.cuh"

// ---- kernels ----
struct AdamWConstants { // AdamWParams and what follows from them
    float beta1, beta2, one_minus_beta1, one_minus_beta2, inverse_bias1, inverse_bias2, lr, eps, lr_decay;
};

template <class E, int W>
__global__ void adamw_kernel(E *param, float *master, float *m, float *v, const float *grad, const float *scale,
                             size_t n, AdamWConstants c) {
    const size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    const float factor = *scale;
    if (i >= n || !isfinite(factor)) return;
    float g[W], mi[W], vi[W], x[W];
    load(g, grad + i), load(mi, m + i), load(vi, v + i);
    bool touched = c.lr_decay != 0.0f;
#pragma unroll
    for (int j = 0; j < W; j++) touched |= g[j] != 0.0f || mi[j] != 0.0f || vi[j] != 0.0f;
    if (!touched) return;
    if (master) load(x, master + i);
    else load(x, param + i);
#pragma unroll
    for (int j = 0; j < W; j++) {
        g[j] *= factor;
        mi[j] = mi[j] * c.beta1 + g[j] * c.one_minus_beta1;
        vi[j] = vi[j] * c.beta2 + g[j] * g[j] * c.one_minus_beta2;
        const float root = sqrtf(vi[j] * c.inverse_bias2) + c.eps;
        x[j] -= c.lr * (mi[j] * c.inverse_bias1 / root) + c.lr_decay * x[j];
    }
    store(m + i, mi), store(v + i, vi), store(param + i, x);
    if (master) store(master + i, x);
}

// partial (blocks) = sums of squares; a thread squares W neighbours in fp32 and adds such groups in double.
template <int W> __global__ void __launch_bounds__(1024) sum_squares_kernel(double *partial, const float *x, size_t n) {
    __shared__ double warps[32];
    double sum = 0;
    const size_t stride = (size_t)gridDim.x * blockDim.x * W;
#pragma unroll 2
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * W; i < n; i += stride) {
        float v[W], squares = 0;
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < W; j++) squares += v[j] * v[j];
        sum += (double)squares;
    }
    sum = block_sum(sum, warps);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(1024) sum_blocks_kernel(double *sum, const double *partial, int n) {
    __shared__ double warps[32];
    double total = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) total += partial[i];
    total = block_sum(total, warps);
    if (threadIdx.x == 0) *sum = total;
}

// One warp fetches, lane 0 adds in order.
__global__ void clip_scale_kernel(float *scale, double *norm, const double *partial, int n, double clip) {
    __shared__ double tile[WARP];
    double sum = 0;
    for (int begin = 0; begin < n; begin += WARP) {
        const int here = n - begin < WARP ? n - begin : WARP;
        if ((int)threadIdx.x < here) tile[threadIdx.x] = partial[begin + (int)threadIdx.x];
        __syncwarp();
        for (int i = 0; threadIdx.x == 0 && i < here; i++) sum += tile[i];
        __syncwarp();
    }
    if (threadIdx.x != 0) return;
    const double root = sqrt(sum), factor = clip > 0 ? clip / (root + 1e-6) : 1.0;
    *norm = root;
    *scale = isfinite(root) ? (float)(factor < 1.0 ? factor : 1.0) : NAN;
}

// ---- launchers ----
template <class E, int W>
static void launch_adamw(Backend *b, elem_t *param, float *master, float *m, float *v, const float *grad,
                         const float *scale, size_t n, const AdamWConstants *c) {
    const unsigned blocks = (unsigned)ceil_divide(n, (size_t)256 * W);
    adamw_kernel<E, W><<<blocks, 256, 0, cuda_stream(b)>>>((E *)param, master, m, v, grad, scale, n, *c);
    CUDA_CHECK_LAUNCH("adamw_kernel");
}

static void adamw(Backend *b, elem_t *param, float *master, float *m, float *v, const float *grad, const float *scale,
                  size_t n, const AdamWParams *p) {
    if (n == 0) return;
    const AdamWConstants c = {p->beta1,        p->beta2, 1.0f - p->beta1, 1.0f - p->beta2,        1.0f / p->bias1,
                              1.0f / p->bias2, p->lr,    p->eps,          p->lr * p->weight_decay};
    const bool wide = aligned16(param) && aligned16(master) && aligned16(m) && aligned16(v) && aligned16(grad);
    CUDA_FOR_ELEMENTS(b, wide, launch_adamw, b, param, master, m, v, grad, scale, n, &c);
}

static void sum_squares(Backend *b, double *sum, const float *x, size_t n) {
    const size_t wanted = ceil_divide(n, (size_t)256 * 4 * 4); // four accesses a thread at least
    const int blocks = wanted < 1 ? 1 : wanted < BACKEND_SUM_BLOCKS ? (int)wanted : (int)BACKEND_SUM_BLOCKS;
    double *partial = (double *)cuda_scratch(b, (size_t)blocks * sizeof(double), "sum_squares");
    if (aligned16(x)) sum_squares_kernel<4><<<(unsigned)blocks, 256, 0, cuda_stream(b)>>>(partial, x, n);
    else sum_squares_kernel<1><<<(unsigned)blocks, 256, 0, cuda_stream(b)>>>(partial, x, n);
    CUDA_CHECK_LAUNCH("sum_squares_kernel");
    sum_blocks_kernel<<<1, threads_for((size_t)blocks, 1024), 0, cuda_stream(b)>>>(sum, partial, blocks);
    CUDA_CHECK_LAUNCH("sum_blocks_kernel");
}

static void clip_scale(Backend *b, float *scale, double *norm, const double *partial, int n, double clip) {
    clip_scale_kernel<<<1, WARP, 0, cuda_stream(b)>>>(scale, norm, partial, n, clip);
    CUDA_CHECK_LAUNCH("clip_scale_kernel");
}

void cuda_adamw_fill(Backend *b) {
    b->adamw = adamw;
    b->sum_squares = sum_squares;
    b->clip_scale = clip_scale;
}
