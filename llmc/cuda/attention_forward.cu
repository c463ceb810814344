// attention_forward.cu: FlashAttention-2's forward (Dao 2023, algorithm 1) for bf16 on tensor cores.
//
// A block owns 128 packed rows (attention.cuh) of one page and key/value head and walks over the keys in tiles of 64,
// with an online softmax in fp32. Each warp owns 32 rows, so that one ldmatrix of keys or values feeds two mma blocks
// of 16 rows: 160 bytes of shared memory per mma instead of 256, which is all an SM delivers in the time of an mma.
//   shared memory   Q (128,HS), K (64,HS), V (64,HS): 64 KB at HS 128, 32 at 64, 16 at 32
//   registers       output 2 x HS/2, scores 2 x 32 per thread: two blocks an SM at HS 128 and 64, three at 32
//   copies          V of a tile arrives during the product with its K, the next K during softmax and product with V
//   FLOPs           4 HS per row and key, over whole tiles of keys up to the diagonal
// Predicted upper bound on long pages at HS 128, from instruction counts: 83 % of an A100's peak, 49 % of an H100's
// (mma without wgmma).
#include "llmc/cuda/attention.cuh"

constexpr int ROWS = 128, KEYS = 64, WARP_ROWS = 32;

// ---- kernels ----
// Scores of keys that a row does not see become -inf. row: the thread's first; results of rows beyond the page's last
// are not stored.
__device__ __forceinline__ void mask_scores(float (&s)[2][KEYS / 8][4], const AttentionInput<bf16> &in,
                                            const AttentionPart &p, int row, int first_key) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int seen = visible(in, p, min(row + 8 * i, p.rows - 1)) - first_key - threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (n * 8 + e >= seen) s[i / 2][n][i % 2 * 2 + e] = -INFINITY;
    }
}

// Rows g (r = 0) or g + 8 of a block: scores become exp2(scaled - reference). The reference is the largest score so
// far, but it is not raised while it trails by at most 8 (a factor 2^8): then nothing has to be rescaled, and the sums
// stay far from overflow. Returns the factor by which earlier sums must be scaled, mostly 1.
__device__ __forceinline__ float softmax_step(float (&s)[KEYS / 8][4], int r, float &reference, float &sum,
                                              float scale_log2) {
    float m = reference;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) m = fmaxf(m, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
    m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 1));
    m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 2));
    float factor = 1;
    if (!((m - reference) * scale_log2 <= 8)) {
        factor = exp2_approx((reference - m) * scale_log2);
        reference = m;
    }
    const float shift = reference * scale_log2;
    float added = 0;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; e++) added += s[n][e] = exp2_approx(s[n][e] * scale_log2 - shift);
    sum = sum * factor + added;
    return factor;
}

// lse (Tq,NH) may be NULL. Grid: (pages * KV, tiles of the longest page); the last rows have most keys and go first.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS, HS == 32 ? 3 : 2)
    attention_forward_kernel(bf16 *out, float *lse, AttentionInput<bf16> in) {
    extern __shared__ __align__(128) bf16 tiles[];
    bf16 *tile_q = tiles, *tile_k = tile_q + ROWS * HS, *tile_v = tile_k + KEYS * HS;
    // Read once a tile, and not worth scarce registers: it lies where the compiler must assume that it changes.
    AttentionPart &p = *reinterpret_cast<AttentionPart *>(tile_v + KEYS * HS);
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * WARP_ROWS;
    const int row0 = (gridDim.y - 1 - blockIdx.y) * ROWS;
    if (threadIdx.x == 0) p = attention_part(in, blockIdx.x);
    __syncthreads();
    if (row0 >= p.rows) return;
    load_rows<HS, ROWS, 0>(tile_q, in.q, in, p, row0);
    load_keys<HS, KEYS>(tile_k, in.k, in, p, 0);
    cp_async_commit();

    const int keys = visible(in, p, min(row0 + ROWS, p.rows) - 1); // that the block needs
    float acc[2][HS / 8][4] = {}, reference[4], sum[4] = {};       // of rows g, g + 8, g + 16, g + 24
#pragma unroll
    for (int i = 0; i < 4; i++) reference[i] = -INFINITY; // every row sees key 0: finite after the first tile

    for (int key = 0; key < keys; key += KEYS) {
        cp_async_wait<0>(); // Q and K have landed
        __syncthreads();    // for all; and all are done with V
        load_keys<HS, KEYS>(tile_v, in.v, in, p, key);
        cp_async_commit();
        float s[2][KEYS / 8][4] = {};
#pragma unroll
        for (int kk = 0; kk < HS / 16; kk++) {
            uint32_t a[2][4];
            load_fragments<HS>(a, tile_q, warp_row, kk);
            multiply_rows<HS>(s, a, tile_k, kk);
        }
        cp_async_wait<0>(); // V has landed
        __syncthreads();    // for all; and all are done with K
        if (key + KEYS < keys) {
            load_keys<HS, KEYS>(tile_k, in.k, in, p, key + KEYS);
            cp_async_commit();
        }

        if (key + KEYS > visible(in, p, min(row0 + warp_row, p.rows - 1)))
            mask_scores(s, in, p, row0 + warp_row + lane / 4, key);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const float low = softmax_step(s[m], 0, reference[2 * m], sum[2 * m], in.scale_log2);
            const float high = softmax_step(s[m], 1, reference[2 * m + 1], sum[2 * m + 1], in.scale_log2);
            if (__any_sync(ALL_LANES, low != 1 || high != 1)) {
#pragma unroll
                for (int n = 0; n < HS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) acc[m][n][e] *= e < 2 ? low : high;
            }
        }
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            uint32_t a[2][4];
            to_fragment(a[0], s[0][2 * kk], s[0][2 * kk + 1]);
            to_fragment(a[1], s[1][2 * kk], s[1][2 * kk + 1]);
            multiply_columns<HS>(acc, a, tile_v, kk * 16);
        }
    }

    // The warp no longer needs its rows of Q: the output goes through them.
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 1);
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 2);
        const int row = row0 + warp_row + lane / 4 + 8 * i;
        if (lse && lane % 4 == 0 && row < p.rows) lse[row_head(in, p, row)] = reference[i] * in.scale + logf(sum[i]);
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
        stage_result<HS>(tile_q, warp_row + 16 * m, acc[m], __fdividef(1, sum[2 * m]), __fdividef(1, sum[2 * m + 1]));
    __syncwarp();
    for (int i = lane; i < WARP_ROWS * HS / 8; i += WARP) {
        const int row = warp_row + i / (HS / 8), chunk = i % (HS / 8);
        if (row0 + row < p.rows)
            copy_16(out + row_head(in, p, row0 + row) * HS + chunk * 8, tile_at<HS>(tile_q, row, chunk));
    }
}

// ---- launchers ----
template <int HS> static void forward(Backend *b, bf16 *out, float *lse, const AttentionInput<bf16> &in, int max_q) {
    const size_t shared = (ROWS + 2 * KEYS) * HS * sizeof(bf16) + sizeof(AttentionPart);
    const dim3 grid(in.pages * in.KV, (unsigned)ceil_divide((size_t)max_q * in.group, ROWS));
    CUDA_CHECK(
        cudaFuncSetAttribute(attention_forward_kernel<HS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
    attention_forward_kernel<HS><<<grid, ATTENTION_THREADS, shared, cuda_stream(b)>>>(out, lse, in);
    CUDA_CHECK_LAUNCH("attention_forward_kernel");
}

void attention_forward_bf16(Backend *b, bf16 *out, float *lse, const AttentionInput<bf16> &in, int max_q, int HS) {
    if (HS == 128) forward<128>(b, out, lse, in, max_q);
    else if (HS == 64) forward<64>(b, out, lse, in, max_q);
    else forward<32>(b, out, lse, in, max_q);
}
