// attention_plain.cu: attention in fp32 arithmetic, for fp32 runs (parity) and for bf16 rows not aligned to 16 bytes.
//
// A warp owns a packed row (attention.cuh) or, in the second part of the backward, a key. It walks over tiles of 32
// keys (or 32 rows) in shared memory: each lane first computes the score of its own key, then sums its own HS/32
// columns over the tile. Rows of a tile are HS + 1 apart, so that lanes reading different rows use different banks.
//   shared memory   two tiles and four rows: 35 KB at HS 128, 39 in the second part of the backward
#include "llmc/cuda/attention.cuh"

constexpr int TILE = 32, WARPS = 4;

// ---- kernels ----
template <int HS> __device__ __forceinline__ float dot(const float *a, const float *b) {
    float sum = 0;
    for (int d = 0; d < HS; d++) sum += a[d] * b[d];
    return sum;
}
// A tile of keys (or values), zeros beyond the page.
template <class T, int HS>
__device__ void load_key_tile(float *tile, const T *from, const AttentionInput<T> &in, const AttentionPart &p,
                              int first) {
    for (int i = threadIdx.x; i < TILE * HS; i += WARPS * WARP) {
        const int key = first + i / HS, d = i % HS;
        tile[i / HS * (HS + 1) + d] = key < p.k_len ? to_float(from[row_of_k<HS>(in, p, key) + d]) : 0;
    }
}
// By one warp.
template <class T, int HS> __device__ void load_row(float *to, const T *from, bool valid) {
    for (int d = threadIdx.x % WARP; d < HS; d += WARP) to[d] = valid ? to_float(from[d]) : 0;
}
// acc[i] += sum over the tile of weight[j] * tile[j][lane + WARP i]
template <int HS> __device__ void add_weighted(float (&acc)[HS / WARP], const float *weight, const float *tile) {
    for (int j = 0; j < TILE; j++)
#pragma unroll
        for (int i = 0; i < HS / WARP; i++) acc[i] += weight[j] * tile[j * (HS + 1) + threadIdx.x % WARP + WARP * i];
}
__device__ __forceinline__ float warp_max(float x) {
    for (int d = 16; d; d /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, d));
    return x;
}

// Grid of this and of the backward over rows: (pages * KV, the longest page's rows / WARPS).
template <class T, int HS>
__global__ void __launch_bounds__(WARPS *WARP)
    attention_forward_plain_kernel(T *out, float *lse, AttentionInput<T> in) {
    __shared__ float tile_k[TILE * (HS + 1)];
    __shared__ float tile_v[TILE * (HS + 1)];
    __shared__ float rows_q[WARPS * HS];
    __shared__ float weights[WARPS * TILE];
    const AttentionPart p = attention_part(in, blockIdx.y);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row0 = blockIdx.x * WARPS, row = row0 + warp;
    if (row0 >= p.rows) return;
    const int keys = visible(in, p, min(row0 + WARPS, p.rows) - 1), seen = row < p.rows ? visible(in, p, row) : 0;
    float *q = rows_q + warp * HS, *weight = weights + warp * TILE, acc[HS / WARP] = {}, largest = -INFINITY, sum = 0;
    load_row<T, HS>(q, in.q + row_of_q<HS>(in, p, min(row, p.rows - 1)), row < p.rows);
    for (int first = 0; first < keys; first += TILE) {
        load_key_tile<T, HS>(tile_k, in.k, in, p, first);
        load_key_tile<T, HS>(tile_v, in.v, in, p, first);
        __syncthreads();
        if (first < seen) {
            const float s = first + lane < seen ? dot<HS>(q, tile_k + lane * (HS + 1)) * in.scale : -INFINITY;
            const float m = fmaxf(largest, warp_max(s)), factor = expf(largest - m);
            weight[lane] = expf(s - m);
            sum = sum * factor + weight[lane];
            largest = m;
            for (int i = 0; i < HS / WARP; i++) acc[i] *= factor;
            __syncwarp();
            add_weighted<HS>(acc, weight, tile_v);
        }
        __syncthreads(); // all are done with the tiles
    }
    sum = warp_sum(sum);
    if (row >= p.rows) return;
    const size_t place = row_head(in, p, row);
    for (int i = 0; i < HS / WARP; i++) out[place * HS + lane + WARP * i] = from_float<T>(acc[i] / sum);
    if (lse && lane == 0) lse[place] = largest + logf(sum);
}

// delta (Tq,NH) = sums of dout * out over the head: what the softmax's backward subtracts. One warp per sum.
template <class T, int HS>
__global__ void __launch_bounds__(WARPS *WARP)
    attention_delta_plain_kernel(float *delta, const T *dout, const T *out, AttentionInput<T> in, size_t capacity) {
    const int lane = threadIdx.x % WARP;
    const size_t i = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP, n = (size_t)in.cu_q[in.pages] * in.NH;
    if (n > capacity) __trap();
    if (i >= n) return;
    float sum = 0;
    for (int d = lane; d < HS; d += WARP) sum += to_float(dout[i * HS + d]) * to_float(out[i * HS + d]);
    sum = warp_sum(sum);
    if (lane == 0) delta[i] = sum;
}

template <class T, int HS>
__global__ void __launch_bounds__(WARPS *WARP)
    attention_backward_rows_plain_kernel(T *dq, const T *dout, const float *lse, const float *delta,
                                         AttentionInput<T> in) {
    __shared__ float tile_k[TILE * (HS + 1)];
    __shared__ float tile_v[TILE * (HS + 1)];
    __shared__ float rows_q[WARPS * HS];
    __shared__ float rows_dout[WARPS * HS];
    __shared__ float weights[WARPS * TILE];
    const AttentionPart p = attention_part(in, blockIdx.y);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row0 = blockIdx.x * WARPS, row = row0 + warp;
    if (row0 >= p.rows) return;
    const int keys = visible(in, p, min(row0 + WARPS, p.rows) - 1), seen = row < p.rows ? visible(in, p, row) : 0;
    const size_t place = row_head(in, p, min(row, p.rows - 1)), place_q = row_of_q<HS>(in, p, min(row, p.rows - 1));
    float *q = rows_q + warp * HS, *g = rows_dout + warp * HS, *weight = weights + warp * TILE, acc[HS / WARP] = {};
    load_row<T, HS>(q, in.q + place_q, row < p.rows);
    load_row<T, HS>(g, dout + place * HS, row < p.rows);
    for (int first = 0; first < keys; first += TILE) {
        load_key_tile<T, HS>(tile_k, in.k, in, p, first);
        load_key_tile<T, HS>(tile_v, in.v, in, p, first);
        __syncthreads();
        if (first < seen) {
            weight[lane] = 0;
            if (first + lane < seen) {
                const float s = dot<HS>(q, tile_k + lane * (HS + 1)) * in.scale;
                const float dp = dot<HS>(g, tile_v + lane * (HS + 1));
                weight[lane] = expf(s - lse[place]) * (dp - delta[place]) * in.scale;
            }
            __syncwarp();
            add_weighted<HS>(acc, weight, tile_k);
        }
        __syncthreads(); // all are done with the tiles
    }
    if (row >= p.rows) return;
    for (int i = 0; i < HS / WARP; i++) dq[place_q + lane + WARP * i] = from_float<T>(acc[i]);
}

// Grid: (pages * KV, the longest page's keys / WARPS).
template <class T, int HS>
__global__ void __launch_bounds__(WARPS *WARP)
    attention_backward_keys_plain_kernel(T *dk, T *dv, const T *dout, const float *lse, const float *delta,
                                         AttentionInput<T> in) {
    __shared__ float tile_q[TILE * (HS + 1)];
    __shared__ float tile_dout[TILE * (HS + 1)];
    __shared__ float keys[WARPS * HS];
    __shared__ float values[WARPS * HS];
    __shared__ float weights_p[WARPS * TILE];
    __shared__ float weights_ds[WARPS * TILE];
    const AttentionPart p = attention_part(in, blockIdx.y);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, key0 = blockIdx.x * WARPS, key = key0 + warp;
    if (key0 >= p.k_len) return;
    const size_t place_k = row_of_k<HS>(in, p, min(key, p.k_len - 1));
    float *k = keys + warp * HS, *v = values + warp * HS, acc_k[HS / WARP] = {}, acc_v[HS / WARP] = {};
    float *weight_p = weights_p + warp * TILE, *weight_ds = weights_ds + warp * TILE;
    load_row<T, HS>(k, in.k + place_k, key < p.k_len);
    load_row<T, HS>(v, in.v + place_k, key < p.k_len);
    const int first_query = max(0, key0 - (p.k_len - p.q_len)); // that sees the block's first key
    for (int first = first_query * in.group; first < p.rows; first += TILE) {
        for (int i = threadIdx.x; i < TILE * HS; i += WARPS * WARP) {
            const int row = min(first + i / HS, p.rows - 1), d = i % HS;
            tile_q[i / HS * (HS + 1) + d] = to_float(in.q[row_of_q<HS>(in, p, row) + d]);
            tile_dout[i / HS * (HS + 1) + d] = to_float(dout[row_head(in, p, row) * HS + d]);
        }
        __syncthreads();
        const int row = first + lane;
        weight_p[lane] = weight_ds[lane] = 0;
        if (row < p.rows && key < visible(in, p, row)) {
            const size_t place = row_head(in, p, row);
            const float s = dot<HS>(k, tile_q + lane * (HS + 1)) * in.scale;
            const float dp = dot<HS>(v, tile_dout + lane * (HS + 1));
            weight_p[lane] = expf(s - lse[place]);
            weight_ds[lane] = weight_p[lane] * (dp - delta[place]) * in.scale;
        }
        __syncwarp();
        add_weighted<HS>(acc_v, weight_p, tile_dout);
        add_weighted<HS>(acc_k, weight_ds, tile_q);
        __syncthreads(); // all are done with the tiles
    }
    if (key >= p.k_len) return;
    for (int i = 0; i < HS / WARP; i++) {
        dk[place_k + lane + WARP * i] = from_float<T>(acc_k[i]);
        dv[place_k + lane + WARP * i] = from_float<T>(acc_v[i]);
    }
}

// ---- launchers: rows along x, for there may be more blocks of them than the 65,535 of y ----
template <class T, int HS> static void forward(Backend *b, T *out, float *lse, const AttentionInput<T> &in, int max_q) {
    const dim3 grid((unsigned)ceil_divide((size_t)max_q * in.group, WARPS), in.pages * in.KV);
    attention_forward_plain_kernel<T, HS><<<grid, WARPS * WARP, 0, cuda_stream(b)>>>(out, lse, in);
    CUDA_CHECK_LAUNCH("attention_forward_plain_kernel");
}
template <class T>
void attention_forward_plain(Backend *b, T *out, float *lse, const AttentionInput<T> &in, int max_q, int HS) {
    if (HS == 128) forward<T, 128>(b, out, lse, in, max_q);
    else if (HS == 64) forward<T, 64>(b, out, lse, in, max_q);
    else forward<T, 32>(b, out, lse, in, max_q);
}

template <class T, int HS>
static void backward(Backend *b, T *dq, T *dk, T *dv, const T *dout, const T *out, const float *lse,
                     const AttentionInput<T> &in, int max_q, int max_k) {
    size_t capacity;
    float *delta = delta_scratch(b, in, max_q, &capacity);
    const dim3 rows((unsigned)ceil_divide((size_t)max_q * in.group, WARPS), in.pages * in.KV);
    const dim3 keys((unsigned)ceil_divide(max_k, WARPS), in.pages * in.KV);
    if (capacity) {
        attention_delta_plain_kernel<T, HS>
            <<<(unsigned)ceil_divide(capacity, WARPS), WARPS * WARP, 0, cuda_stream(b)>>>(delta, dout, out, in,
                                                                                          capacity);
        CUDA_CHECK_LAUNCH("attention_delta_plain_kernel");
        attention_backward_rows_plain_kernel<T, HS>
            <<<rows, WARPS * WARP, 0, cuda_stream(b)>>>(dq, dout, lse, delta, in);
        CUDA_CHECK_LAUNCH("attention_backward_rows_plain_kernel");
    }
    attention_backward_keys_plain_kernel<T, HS>
        <<<keys, WARPS * WARP, 0, cuda_stream(b)>>>(dk, dv, dout, lse, delta, in);
    CUDA_CHECK_LAUNCH("attention_backward_keys_plain_kernel");
}
template <class T>
void attention_backward_plain(Backend *b, T *dq, T *dk, T *dv, const T *dout, const T *out, const float *lse,
                              const AttentionInput<T> &in, int max_q, int max_k, int HS) {
    if (HS == 128) backward<T, 128>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
    else if (HS == 64) backward<T, 64>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
    else backward<T, 32>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
}

template void attention_forward_plain(Backend *, float *, float *, const AttentionInput<float> &, int, int);
template void attention_forward_plain(Backend *, bf16 *, float *, const AttentionInput<bf16> &, int, int);
template void attention_backward_plain(Backend *, float *, float *, float *, const float *, const float *,
                                       const float *, const AttentionInput<float> &, int, int, int);
template void attention_backward_plain(Backend *, bf16 *, bf16 *, bf16 *, const bf16 *, const bf16 *, const float *,
                                       const AttentionInput<bf16> &, int, int, int);
