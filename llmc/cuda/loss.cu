// loss.cu: cross entropy with its gradient in place, argmax, the weighted sum of the losses.
//
// A block is a row: 152,000 logits are 300 KB in bf16, more than a multiprocessor holds, so the row is read twice. The
// first pass keeps a running maximum, its lowest index and the sum of exponentials relative to it (online softmax), the
// second replaces the logits by their gradient, from the row's end backwards: what was read last is still in L2.
// Fast exponentials: their error, |x - max| roundings of fp32, is weighted by exp(x - max).
#include "llmc/cuda/common.cuh"

// ---- kernels ----
// Of some columns: the largest logit (NaN never wins), its lowest index, and the sum of exp(logit - largest).
struct Softmax {
    float largest, sum;
    int at;
};
constexpr int NOWHERE = 0x7fffffff; // index of the largest of nothing, or of nothing but -Inf and NaN

// exp(x - largest); largest is -Inf when nothing finite was seen, and then x is -Inf or NaN.
__device__ __forceinline__ float exp_below(float x, float largest) {
    return __expf(x - (largest == -INFINITY ? 0.0f : largest));
}

// W logits from column i on; columns from V on count as -Inf.
template <class E, int W> __device__ __forceinline__ void load_logits(float (&v)[W], const E *row, int i, int V) {
    load(v, row + i);
    if (i + W > V) {
#pragma unroll
        for (int j = 0; j < W; j++) v[j] = i + j < V ? v[j] : -INFINITY;
    }
}

// Raises the largest to that of v, if there is a larger one, lowest index first.
template <int W> __device__ __forceinline__ bool raise(Softmax &s, const float (&v)[W], int i) {
    float largest = v[0];
#pragma unroll
    for (int j = 1; j < W; j++) largest = fmaxf(largest, v[j]);
    if (!(largest > s.largest)) return false;
    s.largest = largest;
#pragma unroll
    for (int j = W - 1; j >= 0; j--) s.at = v[j] == largest ? i + j : s.at;
    return true;
}

__device__ __forceinline__ Softmax warp_softmax(Softmax s) {
    float largest = s.largest;
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, distance));
    const float sum = warp_sum(s.sum * exp_below(s.largest, largest));
    const unsigned at = __reduce_min_sync(ALL_LANES, (unsigned)(s.largest == largest ? s.at : NOWHERE));
    return {largest, sum, (int)at};
}

// Of the block, for all its threads; shared: warps (32).
__device__ __forceinline__ Softmax block_softmax(Softmax s, Softmax *warps) {
    s = warp_softmax(s);
    if (blockDim.x > WARP) {
        const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (lane == 0) warps[warp] = s;
        __syncthreads();
        if (warp == 0) {
            s = warp_softmax(lane < blockDim.x / WARP ? warps[lane] : Softmax{-INFINITY, 0.0f, NOWHERE});
            __syncwarp();
            if (lane == 0) warps[0] = s;
        }
        __syncthreads();
        s = warps[0];
    } else {
        __syncwarp(); // here too the row has been read by all before one writes it
    }
    if (s.at == NOWHERE) s.at = 0;
    return s;
}

template <class E, int W>
__global__ void __launch_bounds__(1024)
    cross_entropy_kernel(float *loss, int *correct, E *logits, const int *labels, const float *weights, int V, int ld) {
    __shared__ Softmax warps[32];
    E *row = logits + (size_t)blockIdx.x * (size_t)ld;
    const int label = labels[blockIdx.x], stride = (int)blockDim.x * W;
    const float at_label = to_float(row[label]);
    Softmax s = {-INFINITY, 0.0f, NOWHERE};
#pragma unroll 2
    for (int i = (int)threadIdx.x * W; i < V; i += stride) {
        float v[W];
        load_logits(v, row, i, V);
        const float before = s.largest;
        if (raise(s, v, i)) s.sum *= __expf(before - s.largest);
#pragma unroll
        for (int j = 0; j < W; j++) s.sum += exp_below(v[j], s.largest);
    }
    s = block_softmax(s, warps);
    if (threadIdx.x == 0) {
        loss[blockIdx.x] = logf(s.sum) + s.largest - at_label;
        correct[blockIdx.x] = s.at == label;
    }
    if (!weights) return;
    const float weight = weights[blockIdx.x], scale = weight / s.sum;
#pragma unroll 2
    for (int k = (int)threadIdx.x * W; k < ld; k += stride) {
        const int i = ld - W - k;
        float v[W];
        load_logits(v, row, i, V);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const float gradient = __expf(v[j] - s.largest) * scale;
            const float of_label = (__expf(at_label - s.largest) / s.sum - 1.0f) * weight;
            v[j] = i + j == label ? of_label : gradient; // from V on: exp(-Inf) = 0
        }
        store(row + i, v);
    }
}

template <class E, int W>
__global__ void __launch_bounds__(1024) argmax_kernel(int *out, const E *logits, int V, int ld) {
    __shared__ Softmax warps[32];
    const E *row = logits + (size_t)blockIdx.x * (size_t)ld;
    Softmax s = {-INFINITY, 0.0f, NOWHERE};
#pragma unroll 2
    for (int i = (int)threadIdx.x * W; i < V; i += (int)blockDim.x * W) {
        float v[W];
        load_logits(v, row, i, V);
        raise(s, v, i);
    }
    s = block_softmax(s, warps);
    if (threadIdx.x == 0) out[blockIdx.x] = s.at;
}

__global__ void __launch_bounds__(1024)
    weighted_sum_kernel(double *sum, const float *loss, const float *weights, int n, int accumulate) {
    __shared__ double warps[32];
    double total = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) total += (double)weights[i] * (double)loss[i];
    total = block_sum(total, warps);
    if (threadIdx.x == 0) *sum = accumulate ? *sum + total : total;
}

// ---- launchers ----
// At least four accesses a thread: for short rows the final reduction of fewer threads is faster.
template <int W> static int row_threads(int V) { return threads_for(ceil_divide((size_t)V, 4 * W), 1024); }

template <class E, int W>
static void launch_cross_entropy(Backend *b, float *loss, int *correct, elem_t *logits, const int *labels,
                                 const float *weights, int R, int V, int ld) {
    cross_entropy_kernel<E, W>
        <<<(unsigned)R, row_threads<W>(V), 0, cuda_stream(b)>>>(loss, correct, (E *)logits, labels, weights, V, ld);
    CUDA_CHECK_LAUNCH("cross_entropy_kernel");
}

static void cross_entropy(Backend *b, float *loss, int *correct, elem_t *logits, const int *labels,
                          const float *weights, int R, int V, int ld) {
    if (R <= 0 || V <= 0) return;
    const bool wide = ld % wide_elems(b) == 0 && aligned16(logits);
    CUDA_FOR_ELEMENTS(b, wide, launch_cross_entropy, b, loss, correct, logits, labels, weights, R, V, ld);
}

template <class E, int W> static void launch_argmax(Backend *b, int *out, const elem_t *logits, int R, int V, int ld) {
    argmax_kernel<E, W><<<(unsigned)R, row_threads<W>(V), 0, cuda_stream(b)>>>(out, (const E *)logits, V, ld);
    CUDA_CHECK_LAUNCH("argmax_kernel");
}

static void argmax(Backend *b, int *out, const elem_t *logits, int R, int V, int ld) {
    if (R <= 0 || V <= 0) return;
    const bool wide = ld % wide_elems(b) == 0 && aligned16(logits);
    CUDA_FOR_ELEMENTS(b, wide, launch_argmax, b, out, logits, R, V, ld);
}

static void weighted_sum(Backend *b, double *sum, const float *loss, const float *weights, int n, int accumulate) {
    const int threads = threads_for(ceil_divide(n > 0 ? (size_t)n : 0, 4), 1024);
    weighted_sum_kernel<<<1, threads, 0, cuda_stream(b)>>>(sum, loss, weights, n, accumulate);
    CUDA_CHECK_LAUNCH("weighted_sum_kernel");
}

void cuda_loss_fill(Backend *b) {
    b->cross_entropy = cross_entropy;
    b->argmax = argmax;
    b->weighted_sum = weighted_sum;
}
