// attention.cuh: what the attention kernels share.
//
// Packed rows: the query heads that share one key/value head are stacked into one matrix. Row r of a page and a
// key/value head is query r / group of head r % group in the group, so rows are ordered by position, and tiles of them
//   - read every key of the page once for the whole group,
//   - end close to the diagonal: 128 rows are 16 to 22 queries of Qwen2's groups of 6 to 8, not 128,
//   - are full even when a page has few queries (decoding).
// dK and dV of a group are one sum over its rows.
//
// Blocks of the tensor-core kernels have 4 warps. Tiles in shared memory hold rows of HS bf16 without padding; the
// index of a 16-byte chunk is XORed with the row, so that the 8 rows of an ldmatrix lie in different banks.
#ifndef LLMC_CUDA_ATTENTION_CUH
#define LLMC_CUDA_ATTENTION_CUH

#include "llmc/cuda/common.cuh"
#include "llmc/cuda/ptx.cuh"

constexpr float LOG2E = 1.4426950408889634f;
constexpr int ATTENTION_THREADS = 128;

template <class T> struct AttentionInput {
    const T *q, *k, *v;
    int ldq, ldk;
    const int *cu_q, *k_begin, *k_end;
    int pages, NH, KV;
    int group;              // NH / KV
    unsigned group_inverse; // 2^31 / group, rounded up
    float scale;            // 1 / sqrt(HS)
    float scale_log2;       // the same times log2(e)
};

// One page and key/value head.
struct AttentionPart {
    int q0, q_len, k0, k_len, kv, rows; // rows = q_len * group, packed
};
template <class T> __device__ __forceinline__ AttentionPart attention_part(const AttentionInput<T> &in, int index) {
    const int page = index / in.KV, q0 = in.cu_q[page], q_len = in.cu_q[page + 1] - q0, k0 = in.k_begin[page];
    return {q0, q_len, k0, in.k_end[page] - k0, index % in.KV, q_len * in.group};
}

// row / group, exact while row * group < 2^31
template <class T> __device__ __forceinline__ int query_of(const AttentionInput<T> &in, int row) {
    return (int)((unsigned long long)(unsigned)row * in.group_inverse >> 31);
}
// How many keys a row sees: the first ones of its page.
template <class T>
__device__ __forceinline__ int visible(const AttentionInput<T> &in, const AttentionPart &p, int row) {
    return p.k_len - p.q_len + query_of(in, row) + 1;
}
// Index of a packed row in arrays (Tq,NH), such as lse.
template <class T>
__device__ __forceinline__ size_t row_head(const AttentionInput<T> &in, const AttentionPart &p, int row) {
    const int query = query_of(in, row);
    return (size_t)(p.q0 + query) * in.NH + p.kv * in.group + row - query * in.group;
}
// Index of its first element in q (rows ldq apart).
template <int HS, class T>
__device__ __forceinline__ size_t row_of_q(const AttentionInput<T> &in, const AttentionPart &p, int row) {
    const int query = query_of(in, row);
    return (size_t)(p.q0 + query) * in.ldq + (p.kv * in.group + row - query * in.group) * HS;
}
// Index of the first element of a key in k and v.
template <int HS, class T>
__device__ __forceinline__ size_t row_of_k(const AttentionInput<T> &in, const AttentionPart &p, int key) {
    return (size_t)(p.k0 + key) * in.ldk + p.kv * HS;
}

// ---- tiles ----
// Offset of a chunk; that of chunk ^ c is offset ^ 8 c.
template <int HS> __device__ __forceinline__ int tile_offset(int row, int chunk) {
    const int swizzle = HS >= 64 ? row & 7 : row >> 1 & 3;
    return row * HS + (chunk ^ swizzle) * 8;
}
template <int HS> __device__ __forceinline__ bf16 *tile_at(bf16 *tile, int row, int chunk) {
    return tile + tile_offset<HS>(row, chunk);
}

// Starts copying keys (or values) first .. first + KEYS - 1; zeros beyond the page.
template <int HS, int KEYS>
__device__ __forceinline__ void load_keys(bf16 *tile, const bf16 *from, const AttentionInput<bf16> &in,
                                          const AttentionPart &p, int first) {
    constexpr int CHUNKS = HS / 8, STEP = ATTENTION_THREADS / CHUNKS; // STEP rows further the swizzle is the same
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, rows = p.k_len - first - row;
    bf16 *to = tile_at<HS>(tile, row, chunk);
    from += row_of_k<HS>(in, p, 0);
    unsigned place = (first + row) * in.ldk + chunk * 8; // pages of less than 2^32 elements
#pragma unroll
    for (int i = 0; i < KEYS / STEP; i++) {
        cp_async_16(to + i * STEP * HS, from + place, i * STEP < rows);
        place += STEP * in.ldk;
    }
}
// The same for packed rows of q (DENSE = 0) or of a dense array (Tq,NH*HS).
template <int HS, int ROWS, int DENSE>
__device__ __forceinline__ void load_rows(bf16 *tile, const bf16 *from, const AttentionInput<bf16> &in,
                                          const AttentionPart &p, int first) {
    constexpr int CHUNKS = HS / 8, STEP = ATTENTION_THREADS / CHUNKS;
    const int first_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    bf16 *to = tile_at<HS>(tile, first_row, chunk);
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
        const int row = first + first_row + i * STEP;
        const size_t place = DENSE ? row_head(in, p, row) * HS : row_of_q<HS>(in, p, row);
        cp_async_16(to + i * STEP * HS, from + place + chunk * 8, row < p.rows);
    }
}

// ---- fragments of mma.m16n8k16 ----
// All come from 16x16 pieces of tiles by the same ldmatrix: matrices (rows 0-7, 8-15) x (columns 0-7), then x (8-15).
// Pieces begin at rows that are multiples of 8, so a lane's offsets are the same HS/16 numbers for all of them.
template <int HS> __device__ __forceinline__ int lane_offset(int column) { // column: of the piece, a multiple of 16
    return tile_offset<HS>(threadIdx.x % 16, threadIdx.x / 16 % 2) ^ column;
}
// a[m]: rows row + 16 m .. row + 16 m + 15, columns 16 kk .. 16 kk + 15 of a tile.
template <int HS, int M>
__device__ __forceinline__ void load_fragments(uint32_t (&a)[M][4], bf16 *tile, int row, int kk) {
#pragma unroll
    for (int m = 0; m < M; m++) ldmatrix_x4(a[m], tile + (row + 16 * m) * HS + lane_offset<HS>(kk * 16));
}
// Two neighbouring 16x8 results, rounded to bf16, are a 16x16 operand.
__device__ __forceinline__ void to_fragment(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}
// c[m] (16, 8 NB) += a[m] (16, 16) * tile(0 .. 8 NB - 1, 16 kk ..)^T, for M blocks of 16 rows
template <int HS, int M, int NB>
__device__ __forceinline__ void multiply_rows(float (&c)[M][NB][4], const uint32_t (&a)[M][4], bf16 *tile, int kk) {
#pragma unroll
    for (int n = 0; n < NB; n += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, tile + n * 8 * HS + lane_offset<HS>(kk * 16));
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16_bf16(c[m][n], a[m], b[0], b[2]);
            mma_m16n8k16_bf16(c[m][n + 1], a[m], b[1], b[3]);
        }
    }
}
// c[m] (16, HS) += a[m] (16, 16) * tile(row .. row + 15, all columns)
template <int HS, int M>
__device__ __forceinline__ void multiply_columns(float (&c)[M][HS / 8][4], const uint32_t (&a)[M][4], bf16 *tile,
                                                 int row) {
#pragma unroll
    for (int n = 0; n < HS / 8; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, tile + row * HS + lane_offset<HS>(n * 8));
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16_bf16(c[m][n], a[m], b[0], b[1]);
            mma_m16n8k16_bf16(c[m][n + 1], a[m], b[2], b[3]);
        }
    }
}
// Writes a warp's result (16, HS), times `low` for rows 0-7 and `high` for rows 8-15, as bf16 into rows of a tile that
// no other warp uses; from there it is stored 16 bytes at a time.
template <int HS>
__device__ __forceinline__ void stage_result(bf16 *tile, int row, const float (&c)[HS / 8][4], float low, float high) {
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < HS / 8; n++) {
        *reinterpret_cast<uint32_t *>(tile_at<HS>(tile, row + g, n) + 2 * t) = pack(c[n][0] * low, c[n][1] * low);
        *reinterpret_cast<uint32_t *>(tile_at<HS>(tile, row + g + 8, n) + 2 * t) = pack(c[n][2] * high, c[n][3] * high);
    }
}
__device__ __forceinline__ void copy_16(bf16 *to, const bf16 *from) {
    *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
}

// ---- host ----
template <class T>
AttentionInput<T> attention_input(const elem_t *q, int ldq, const elem_t *k, const elem_t *v, int ldk,
                                  const AttentionPages *pages, int NH, int KV, int HS) {
    AttentionInput<T> in = {};
    in.q = (const T *)q;
    in.k = (const T *)k;
    in.v = (const T *)v;
    in.ldq = ldq;
    in.ldk = ldk;
    in.cu_q = pages->cu_q;
    in.k_begin = pages->k_begin;
    in.k_end = pages->k_end;
    in.pages = pages->pages;
    in.NH = NH;
    in.KV = KV;
    in.group = NH / KV;
    in.group_inverse = (unsigned)ceil_divide(1u << 31, in.group);
    in.scale = 1.0f / sqrtf((float)HS);
    in.scale_log2 = in.scale * LOG2E;
    return in;
}

// Scratch for delta (Tq,NH). The host only knows that Tq <= pages * max_q, and that the scratch was reserved for the
// batch's rows: it gets *capacity floats, and the kernel that writes delta traps if they are too few.
template <class T> float *delta_scratch(Backend *b, const AttentionInput<T> &in, int max_q, size_t *capacity) {
    *capacity = (size_t)in.pages * max_q * in.NH;
    if (*capacity > cuda_state(b)->scratch_bytes / sizeof(float))
        *capacity = cuda_state(b)->scratch_bytes / sizeof(float);
    return (float *)cuda_scratch(b, *capacity * sizeof(float), "attention_backward");
}

// attention_forward.cu, attention_backward.cu: tensor cores; pointers and row distances are multiples of 16 bytes.
void attention_forward_bf16(Backend *b, bf16 *out, float *lse, const AttentionInput<bf16> &in, int max_q, int HS);
void attention_backward_bf16(Backend *b, bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *out,
                             const float *lse, const AttentionInput<bf16> &in, int max_q, int max_k, int HS);
// attention_plain.cu: fp32 arithmetic on either element type, of any alignment. T: float, bf16
template <class T>
void attention_forward_plain(Backend *b, T *out, float *lse, const AttentionInput<T> &in, int max_q, int HS);
template <class T>
void attention_backward_plain(Backend *b, T *dq, T *dk, T *dv, const T *dout, const T *out, const float *lse,
                              const AttentionInput<T> &in, int max_q, int max_k, int HS);

#endif
