// rmsnorm.cu: RMSNorm with the residual add in front of it, forward and backward.
//
// Forward a block is a row, a thread W neighbouring elements, so that a row of up to 1024 W elements stays in registers
// between the sum over the row and its use. Backward a warp is a row of up to 2,048 elements (fp32, or unaligned:
// 1,024) and keeps it, and what its rows give to the weight's gradient, in registers: no barrier between rows. Longer
// rows take a block each, of which each thread's last pack stays in registers; the second pass runs backwards from it.
// Each block writes its part of the weight's gradient once, and the parts are summed in the order of the blocks: no
// atomics. Bytes of memory traffic an element, e = sizeof(elem): forward 4e (x, delta; sum, out), without delta 2e;
// backward 4e (dout, x, dx twice) and 8 bytes a column of each block: one for every multiprocessor, or at most 512 for
// long rows. Everything is bound by memory. What nothing reads again soon leaves the caches first: x, delta; backward
// x, dout.
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
        load_once(v, x + row + i);
        if (delta) {
            float d[W];
            load_once(d, delta + row + i);
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

// dx += rstd * (dout w - x rstd^2 mean(dout w x)); partial (blocks,D) = sum over the block's rows of dout x rstd. A
// warp a row, of at most ROW_ELEMENTS<W> elements.
enum { ROW_WARPS = 8 };
template <int W> constexpr int ROW_PACKS = W == 1 ? 16 : 8; // of a lane
template <int W> constexpr int ROW_ELEMENTS = WARP *W *ROW_PACKS<W>;

template <class E, int W>
__global__ void __launch_bounds__(WARP *ROW_WARPS, 1)
    rmsnorm_backward_kernel(E *dx, float *partial, const E *dout, const E *x, const E *w, const float *rstd, int T,
                            int D, int rows) {
    constexpr int PACKS = ROW_PACKS<W>, STRIDE = WARP * W;
    __shared__ float sums[ROW_ELEMENTS<W>];
    const int warp = (int)threadIdx.x / WARP, first = (int)threadIdx.x % WARP * W;
    const int begin = (int)blockIdx.x * rows, end = T - begin < rows ? T : begin + rows;
    float dw[PACKS][W] = {{0}};
    for (int t = begin + warp; t < end; t += ROW_WARPS) {
        const size_t row = (size_t)t * (size_t)D;
        typename Bits<E, W>::type packed_g[PACKS] = {}, packed_v[PACKS] = {}, packed_d[PACKS] = {};
        float dots = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            const int i = first + p * STRIDE;
            if (i < D) {
                packed_g[p] = bits_once<W>(dout + row + i), packed_v[p] = bits_once<W>(x + row + i);
                packed_d[p] = *(const typename Bits<E, W>::type *)(dx + row + i);
            }
        }
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            float g[W], v[W], u[W] = {0};
            to_floats(g, packed_g[p]), to_floats(v, packed_v[p]);
            if (first + p * STRIDE < D) load(u, w + first + p * STRIDE);
#pragma unroll
            for (int j = 0; j < W; j++) dots += g[j] * u[j] * v[j];
        }
        const float r = rstd[t], c = warp_sum(dots) / (float)D * r * r;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            const int i = first + p * STRIDE;
            float g[W], v[W], u[W] = {0}, d[W];
            to_floats(g, packed_g[p]), to_floats(v, packed_v[p]), to_floats(d, packed_d[p]);
            if (i < D) load(u, w + i);
#pragma unroll
            for (int j = 0; j < W; j++) {
                d[j] += (g[j] * u[j] - v[j] * c) * r;
                dw[p][j] += g[j] * (v[j] * r);
            }
            if (i < D) store(dx + row + i, d);
        }
    }
    if (!partial) return;
    for (int turn = 0; turn < ROW_WARPS; turn++) { // the warps add their sums in order
        if (warp == turn) {
#pragma unroll
            for (int p = 0; p < PACKS; p++) {
#pragma unroll
                for (int j = 0; j < W; j++) {
                    float *sum = &sums[first + p * STRIDE + j];
                    *sum = turn == 0 ? dw[p][j] : *sum + dw[p][j];
                }
            }
        }
        __syncthreads();
    }
    for (int i = (int)threadIdx.x; i < D; i += WARP * ROW_WARPS) partial[(size_t)blockIdx.x * (size_t)D + i] = sums[i];
}

// The same for longer rows: a block a row.
template <class E, int W>
__global__ void __launch_bounds__(512, sizeof(E) == 2 ? 2 : 1)
    rmsnorm_backward_long_kernel(E *dx, float *partial, const E *dout, const E *x, const E *w, const float *rstd, int T,
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

// A block for each multiprocessor, and at least a row for each of its warps; for long rows 8 rows a block: enough
// blocks for every multiprocessor, few enough partial sums.
static int rows_of_block(const Backend *b, int T, bool is_long) {
    const int sms = cuda_state(b)->sms < BACKEND_SUM_BLOCKS ? cuda_state(b)->sms : (int)BACKEND_SUM_BLOCKS;
    const int rows = (int)ceil_divide((size_t)T, (size_t)(is_long ? (int)BACKEND_SUM_BLOCKS : sms));
    return rows < 8 ? 8 : rows;
}

template <class E, int W>
static void launch_backward(Backend *b, elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                            const float *rstd, int T, int D, int accumulate) {
    const bool is_long = D > ROW_ELEMENTS<W>;
    const int rows = rows_of_block(b, T, is_long), blocks = (int)ceil_divide((size_t)T, (size_t)rows);
    const size_t bytes = (size_t)blocks * (size_t)D * sizeof(float);
    float *partial = dw ? (float *)cuda_scratch(b, bytes, "rmsnorm_backward") : NULL; // (blocks,D)
    if (is_long) {
        const int threads = threads_for(ceil_divide((size_t)D, W), 512);
        rmsnorm_backward_long_kernel<E, W><<<(unsigned)blocks, threads, 0, cuda_stream(b)>>>(
            (E *)dx, partial, (const E *)dout, (const E *)x, (const E *)w, rstd, T, D, rows);
        CUDA_CHECK_LAUNCH("rmsnorm_backward_long_kernel");
    } else {
        rmsnorm_backward_kernel<E, W><<<(unsigned)blocks, WARP * ROW_WARPS, 0, cuda_stream(b)>>>(
            (E *)dx, partial, (const E *)dout, (const E *)x, (const E *)w, rstd, T, D, rows);
        CUDA_CHECK_LAUNCH("rmsnorm_backward_kernel");
    }
    if (partial) cuda_sum_partials(b, dw, partial, blocks, D, accumulate);
}

static void rmsnorm_backward(Backend *b, elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                             const float *rstd, int T, int D, int accumulate) {
    if (D <= 0) return;
    if (T <= 0) {
        if (dw && !accumulate) b->zero(b, dw, (size_t)D * sizeof(float));
        return;
    }
    const bool wide = D % wide_elems(b) == 0 && aligned16(dx) && aligned16(dout) && aligned16(x) && aligned16(w);
    CUDA_FOR_ELEMENTS(b, wide, launch_backward, b, dx, dw, dout, x, w, rstd, T, D, accumulate);
}

void cuda_rmsnorm_fill(Backend *b) {
    b->rmsnorm_forward = rmsnorm_forward;
    b->rmsnorm_backward = rmsnorm_backward;
}
