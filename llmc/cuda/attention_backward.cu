// attention_backward.cu: FlashAttention-2's backward (Dao 2023, algorithm 2) for bf16 on tensor cores, no atomics.
//
// Every sum belongs to one block and runs in a fixed order. For dK and dV a block owns 64 keys and walks over the
// packed rows that see them (attention.cuh: all queries, all heads of the group); for dQ another owns 64 packed rows
// and walks over their keys. So scores and dP are computed twice: 7 products instead of the 5 that atomics would need.
// Partial sums of dQ by key tile would cost more in memory traffic, ordered additions would make blocks wait for each
// other.
//
// One launch has both kinds of block: first those of dK and dV, the longest ones first; those of dQ fill the gaps.
// There are few of the former, one per 64 keys and key/value head, so a launch of few pages waits for the longest of
// them.
//   shared memory   both kinds: 64 KB at HS 128, 32 at 64, 16 at 32; and 640 bytes of statistics and the page
//     dK, dV        K, V (64,HS), two buffers of Q, dout (32,HS)
//     dQ            two buffers of K, V (64,HS); Q, dout come in through the second one and stay in registers
//   registers       dK, dV: 2 x HS/2 sums, 2 x 16 scores and dP, HS/4 fragments of K; dQ: HS/2 sums, 2 x 32, 2 x HS/4;
//                   two blocks an SM at HS 128, three at 64 and 32
//   copies          the next tile is fetched while one is computed; one barrier a tile
// The first kind keeps scores transposed (keys, rows): then P and dS are in the registers in which dV = P^T dout and
// dK = dS^T Q need them, as in the forward, and neither passes through shared memory.
// Predicted upper bound on long pages at HS 128, from instruction counts: 73 % of an A100's peak and 36 % of an H100's,
// counting the 7 products.
#include "llmc/cuda/attention.cuh"

constexpr int KEYS = 64, STEP_ROWS = 32, ROWS = 64; // dK, dV: KEYS meet STEP_ROWS at a time; dQ: ROWS meet KEYS

// ---- kernels ----
// delta (Tq,NH) = sums of dout * out over the head: what the softmax's backward subtracts. 16 bytes per lane.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_delta_kernel(float *delta, const bf16 *dout, const bf16 *out, const int *cu_q, int pages, int NH,
                           size_t capacity) {
    constexpr int LANES = HS / 8;
    const size_t i = ((size_t)blockIdx.x * ATTENTION_THREADS + threadIdx.x) / LANES, n = (size_t)cu_q[pages] * NH;
    if (n > capacity) __trap();
    float sum = 0;
    if (i < n) {
        const size_t place = i * HS + threadIdx.x % LANES * 8;
        float x[8], y[8];
        load(x, dout + place), load(y, out + place);
#pragma unroll
        for (int e = 0; e < 8; e += 2) sum += x[e] * y[e] + x[e + 1] * y[e + 1];
    }
#pragma unroll
    for (int d = LANES / 2; d; d /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, d);
    if (i < n && threadIdx.x % LANES == 0) delta[i] = sum;
}

// exp2(score * scale_log2 - lse_log2) is the softmax; rows beyond the page get +inf, which makes it 0.
__device__ __forceinline__ float lse_log2(const float *lse, const AttentionInput<bf16> &in, const AttentionPart &p,
                                          int row) {
    return row < p.rows ? lse[row_head(in, p, row)] * LOG2E : INFINITY;
}
__device__ __forceinline__ float delta_of(const float *delta, const AttentionInput<bf16> &in, const AttentionPart &p,
                                          int row) {
    return row < p.rows ? delta[row_head(in, p, row)] : 0.0f;
}
// Of STEP_ROWS rows from row0, the first warp fetches lse, the second delta.
__device__ __forceinline__ float statistic(const float *lse, const float *delta, const AttentionInput<bf16> &in,
                                           const AttentionPart &p, int row0) {
    const int row = row0 + threadIdx.x % WARP;
    return threadIdx.x < 32 ? lse_log2(lse, in, p, row) : threadIdx.x < 64 ? delta_of(delta, in, p, row) : 0.0f;
}

// Stores a warp's 16 keys of dK or dV through its own rows of a tile.
template <int HS>
__device__ __forceinline__ void store_keys(bf16 *to, bf16 *tile, const float (&c)[HS / 8][4], float factor,
                                           int warp_key, int ld, int keys) {
    stage_result<HS>(tile, warp_key, c, factor, factor);
    __syncwarp();
    for (int i = threadIdx.x % WARP; i < 16 * HS / 8; i += WARP) {
        const int key = warp_key + i / (HS / 8), chunk = i % (HS / 8);
        if (key < keys) copy_16(to + (size_t)key * ld + chunk * 8, tile_at<HS>(tile, key, chunk));
    }
}

// dK and dV of keys key0 .. key0 + 63.
template <int HS>
__device__ __forceinline__ void backward_keys(bf16 *tiles, float *stats, bf16 *dk, bf16 *dv, const bf16 *dout,
                                              const float *lse, const float *delta, const AttentionInput<bf16> &in,
                                              const AttentionPart &p, int key0) {
    bf16 *tile_k = tiles, *tile_v = tile_k + KEYS * HS, *buffers = tile_v + KEYS * HS; // Q then dout, twice
    if (key0 >= p.k_len) return;
    const int lane = threadIdx.x % WARP, warp_key = threadIdx.x / WARP * 16, g = lane / 4, t = lane % 4;
    const int first = max(0, key0 - (p.k_len - p.q_len)) * in.group; // row that sees the block's first key

    load_keys<HS, KEYS>(tile_k, in.k, in, p, key0);
    load_keys<HS, KEYS>(tile_v, in.v, in, p, key0);
    load_rows<HS, STEP_ROWS, 0>(buffers, in.q, in, p, first);
    load_rows<HS, STEP_ROWS, 1>(buffers + STEP_ROWS * HS, dout, in, p, first);
    cp_async_commit();
    float stat = statistic(lse, delta, in, p, first);
    cp_async_wait<0>();
    __syncthreads();
    uint32_t k[HS / 16][1][4];
#pragma unroll
    for (int kk = 0; kk < HS / 16; kk++) load_fragments<HS>(k[kk], tile_k, warp_key, kk);

    float sum_k[1][HS / 8][4] = {}, sum_v[1][HS / 8][4] = {};
    int now = 0; // buffer
    for (int row0 = first; row0 < p.rows; row0 += STEP_ROWS, now ^= 1) {
        bf16 *tile_q = buffers + now * 2 * STEP_ROWS * HS, *tile_dout = tile_q + STEP_ROWS * HS;
        float *row_lse = stats + now * 2 * STEP_ROWS, *row_delta = row_lse + STEP_ROWS;
        if (threadIdx.x < 2 * STEP_ROWS) row_lse[threadIdx.x] = stat;
        cp_async_wait<0>(); // Q and dout have landed
        __syncthreads();    // for all; and all are done with the other buffer
        if (row0 + STEP_ROWS < p.rows) {
            bf16 *next = buffers + (now ^ 1) * 2 * STEP_ROWS * HS;
            load_rows<HS, STEP_ROWS, 0>(next, in.q, in, p, row0 + STEP_ROWS);
            load_rows<HS, STEP_ROWS, 1>(next + STEP_ROWS * HS, dout, in, p, row0 + STEP_ROWS);
            cp_async_commit();
        }
        stat = statistic(lse, delta, in, p, row0 + STEP_ROWS);

        float s[1][STEP_ROWS / 8][4] = {}, dp[1][STEP_ROWS / 8][4] = {}; // (16 keys, 32 rows) a warp
#pragma unroll
        for (int kk = 0; kk < HS / 16; kk++) multiply_rows<HS>(s, k[kk], tile_q, kk);
#pragma unroll
        for (int n = 0; n < STEP_ROWS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[0][n][e] = exp2_approx(s[0][n][e] * in.scale_log2 - row_lse[n * 8 + 2 * t + (e & 1)]);
        if (visible(in, p, row0) < key0 + KEYS) { // on the diagonal: keys that a row does not see
#pragma unroll
            for (int n = 0; n < STEP_ROWS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (key0 + warp_key + g + (e >> 1) * 8 >= visible(in, p, row0 + n * 8 + 2 * t + (e & 1)))
                        s[0][n][e] = 0.0f;
        }
#pragma unroll
        for (int kk = 0; kk < HS / 16; kk++) {
            uint32_t v[1][4];
            load_fragments<HS>(v, tile_v, warp_key, kk);
            multiply_rows<HS>(dp, v, tile_dout, kk);
        }
#pragma unroll
        for (int kk = 0; kk < STEP_ROWS / 16; kk++) {
            uint32_t a[1][4];
            to_fragment(a[0], s[0][2 * kk], s[0][2 * kk + 1]);
            multiply_columns<HS>(sum_v, a, tile_dout, kk * 16);
        }
#pragma unroll
        for (int n = 0; n < STEP_ROWS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[0][n][e] *= dp[0][n][e] - row_delta[n * 8 + 2 * t + (e & 1)]; // dS, unscaled
#pragma unroll
        for (int kk = 0; kk < STEP_ROWS / 16; kk++) {
            uint32_t a[1][4];
            to_fragment(a[0], s[0][2 * kk], s[0][2 * kk + 1]);
            multiply_columns<HS>(sum_k, a, tile_q, kk * 16);
        }
    }
    // The warp no longer needs its rows of K and V: the results go through them.
    const size_t block_place = row_of_k<HS>(in, p, key0);
    store_keys<HS>(dk + block_place, tile_k, sum_k[0], in.scale, warp_key, in.ldk, p.k_len - key0);
    store_keys<HS>(dv + block_place, tile_v, sum_v[0], 1.0f, warp_key, in.ldk, p.k_len - key0);
}

// dQ of packed rows row0 .. row0 + 63.
template <int HS>
__device__ __forceinline__ void backward_rows(bf16 *tiles, bf16 *dq, const bf16 *dout, const float *lse,
                                              const float *delta, const AttentionInput<bf16> &in,
                                              const AttentionPart &p, int row0) {
    if (row0 >= p.rows) return;
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16, row = row0 + warp_row + lane / 4;
    const int keys = visible(in, p, min(row0 + ROWS, p.rows) - 1);

    bf16 *second = tiles + 2 * KEYS * HS;
    load_rows<HS, ROWS, 0>(second, in.q, in, p, row0);
    load_rows<HS, ROWS, 1>(second + ROWS * HS, dout, in, p, row0);
    cp_async_commit();
    load_keys<HS, KEYS>(tiles, in.k, in, p, 0);
    load_keys<HS, KEYS>(tiles + KEYS * HS, in.v, in, p, 0);
    cp_async_commit();
    float row_lse[2], row_delta[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        row_lse[r] = lse_log2(lse, in, p, row + 8 * r);
        row_delta[r] = delta_of(delta, in, p, row + 8 * r);
    }
    cp_async_wait<1>(); // Q and dout have landed
    __syncthreads();
    uint32_t q[HS / 16][1][4], g[HS / 16][1][4];
#pragma unroll
    for (int kk = 0; kk < HS / 16; kk++) {
        load_fragments<HS>(q[kk], second, warp_row, kk);
        load_fragments<HS>(g[kk], second + ROWS * HS, warp_row, kk);
    }

    float sum[1][HS / 8][4] = {};
    int now = 0; // buffer
    for (int key = 0; key < keys; key += KEYS, now ^= 1) {
        bf16 *tile_k = tiles + now * 2 * KEYS * HS, *tile_v = tile_k + KEYS * HS;
        cp_async_wait<0>(); // K and V have landed
        __syncthreads();    // for all; and all are done with the other buffer
        if (key + KEYS < keys) {
            bf16 *next = tiles + (now ^ 1) * 2 * KEYS * HS;
            load_keys<HS, KEYS>(next, in.k, in, p, key + KEYS);
            load_keys<HS, KEYS>(next + KEYS * HS, in.v, in, p, key + KEYS);
            cp_async_commit();
        }

        float s[1][KEYS / 8][4] = {}, dp[1][KEYS / 8][4] = {};
#pragma unroll
        for (int kk = 0; kk < HS / 16; kk++) multiply_rows<HS>(s, q[kk], tile_k, kk);
#pragma unroll
        for (int kk = 0; kk < HS / 16; kk++) multiply_rows<HS>(dp, g[kk], tile_v, kk);
        const bool diagonal = key + KEYS > visible(in, p, min(row0 + warp_row, p.rows - 1));
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int seen = diagonal ? visible(in, p, min(row + 8 * r, p.rows - 1)) - key : KEYS;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    const float x = exp2_approx(s[0][n][e] * in.scale_log2 - row_lse[r]) * (dp[0][n][e] - row_delta[r]);
                    s[0][n][e] = n * 8 + lane % 4 * 2 + (e & 1) < seen ? x : 0.0f; // dS, unscaled
                }
        }
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            uint32_t a[1][4];
            to_fragment(a[0], s[0][2 * kk], s[0][2 * kk + 1]);
            multiply_columns<HS>(sum, a, tile_k, kk * 16);
        }
    }

    bf16 *tile = tiles + now * 2 * KEYS * HS; // the buffer that the last tile did not use
    stage_result<HS>(tile, warp_row, sum[0], in.scale, in.scale);
    __syncwarp();
    for (int i = lane; i < 16 * HS / 8; i += WARP) {
        const int at = warp_row + i / (HS / 8), chunk = i % (HS / 8);
        if (row0 + at < p.rows) copy_16(dq + row_of_q<HS>(in, p, row0 + at) + chunk * 8, tile_at<HS>(tile, at, chunk));
    }
}

// Grid: (pages * KV, key tiles of the longest page, then its row tiles); late rows have most keys and start first.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS, HS == 128 ? 2 : 3)
    attention_backward_kernel(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                              AttentionInput<bf16> in, int key_tiles) {
    extern __shared__ __align__(128) bf16 tiles[];
    __shared__ float stats[4 * STEP_ROWS]; // two buffers of lse and delta
    __shared__ AttentionPart p;            // read once a tile: not worth scarce registers
    if (threadIdx.x == 0) p = attention_part(in, blockIdx.x);
    __syncthreads();
    const int tile = blockIdx.y;
    if (tile < key_tiles) backward_keys<HS>(tiles, stats, dk, dv, dout, lse, delta, in, p, tile * KEYS);
    else backward_rows<HS>(tiles, dq, dout, lse, delta, in, p, ((int)gridDim.y - 1 - tile) * ROWS);
}

// ---- launchers ----
template <int HS>
static void backward(Backend *b, bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *out, const float *lse,
                     const AttentionInput<bf16> &in, int max_q, int max_k) {
    size_t capacity;
    float *delta = delta_scratch(b, in, max_q, &capacity);
    if (capacity) {
        const unsigned blocks = (unsigned)ceil_divide(capacity * (HS / 8), ATTENTION_THREADS);
        attention_delta_kernel<HS>
            <<<blocks, ATTENTION_THREADS, 0, cuda_stream(b)>>>(delta, dout, out, in.cu_q, in.pages, in.NH, capacity);
        CUDA_CHECK_LAUNCH("attention_delta_kernel");
    }
    const size_t key_tiles = ceil_divide(max_k, KEYS), row_tiles = ceil_divide((size_t)max_q * in.group, ROWS);
    const dim3 grid(in.pages * in.KV, (unsigned)(key_tiles + row_tiles));
    const size_t shared = 4 * KEYS * HS * sizeof(bf16);
    CUDA_CHECK(
        cudaFuncSetAttribute(attention_backward_kernel<HS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
    attention_backward_kernel<HS>
        <<<grid, ATTENTION_THREADS, shared, cuda_stream(b)>>>(dq, dk, dv, dout, lse, delta, in, (int)key_tiles);
    CUDA_CHECK_LAUNCH("attention_backward_kernel");
}

void attention_backward_bf16(Backend *b, bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *out,
                             const float *lse, const AttentionInput<bf16> &in, int max_q, int max_k, int HS) {
    if (HS == 128) backward<128>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
    else if (HS == 64) backward<64>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
    else backward<32>(b, dq, dk, dv, dout, out, lse, in, max_q, max_k);
}
