// rows.cu: embedding, gathers and scatters of rows, casts.
//
// Copies move words, not elements: 16 bytes where every row is 16-byte aligned, else one element. A block is a row. The
// embedding's gradient is deterministic: the host has sorted the rows by id, and a block alone writes a run of equal
// ids and a strip of columns. A long run (a frequent token) is shared by the block's warps.
#include "llmc/cuda/common.cuh"

// ---- kernels ----
// Row blockIdx.x of `to` (n words) from the table, or from the slots where the id is negative.
template <class Word>
__global__ void embedding_forward_kernel(Word *to, const Word *table, const Word *slots, const int *ids, int n) {
    const int id = ids[blockIdx.x];
    const Word *from = id >= 0 ? table + (size_t)id * (size_t)n : slots + (size_t)(-1 - id) * (size_t)n;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) to[(size_t)blockIdx.x * (size_t)n + i] = from[i];
}

constexpr int SCATTER_WARPS = 8;

// Block (run, strip of 32 W columns). Warp w adds rows w, w + 8, ... of the run, each lane its W columns; warp 0 starts
// from what is there and adds the other warps' sums in order, so a run of up to 8 rows is added row by row.
template <class E, int W>
__global__ void embedding_backward_kernel(float *dtable, float *dslots, const E *dout, const int *ids, const int *order,
                                          const int *runs, int D) {
    __shared__ float sums[SCATTER_WARPS * W * WARP]; // (warps, W, lanes)
    const int begin = runs[blockIdx.x], count = runs[blockIdx.x + 1] - begin, id = ids[order[begin]];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int column = ((int)blockIdx.y * WARP + lane) * W;
    float *to = id >= 0 ? dtable : dslots;
    if (!to || (count == 1 && warp > 0)) return;
    to += (size_t)(id >= 0 ? id : -1 - id) * (size_t)D + column;
    float s[W] = {0};
    if (column < D) {
        if (warp == 0) load(s, to);
#pragma unroll 4
        for (int i = warp; i < count; i += SCATTER_WARPS) {
            float v[W];
            load(v, dout + (size_t)order[begin + i] * (size_t)D + column);
#pragma unroll
            for (int j = 0; j < W; j++) s[j] += v[j];
        }
    }
    if (count > 1) {
#pragma unroll
        for (int j = 0; j < W; j++) sums[(warp * W + j) * WARP + lane] = s[j];
        __syncthreads();
        if (warp > 0) return;
        for (int i = 1; i < SCATTER_WARPS && i < count; i++) {
#pragma unroll
            for (int j = 0; j < W; j++) s[j] += sums[(i * W + j) * WARP + lane];
        }
    }
    if (column < D) store(to, s);
}

template <class Word> __global__ void gather_rows_kernel(Word *to, const Word *from, const int *rows, int n) {
    from += (size_t)rows[blockIdx.x] * (size_t)n;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) to[(size_t)blockIdx.x * (size_t)n + i] = from[i];
}

template <class Word>
__global__ void scatter_rows_kernel(Word *to, int ld_to, const Word *from, int ld_from, const int *rows, int n) {
    to += (size_t)rows[blockIdx.x] * (size_t)ld_to;
    from += (size_t)blockIdx.x * (size_t)ld_from;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) to[i] = from[i];
}

template <class E, int W> __global__ void scatter_add_rows_kernel(E *to, const E *from, const int *rows, int D) {
    to += (size_t)rows[blockIdx.x] * (size_t)D;
    from += (size_t)blockIdx.x * (size_t)D;
    for (int i = (int)threadIdx.x * W; i < D; i += (int)blockDim.x * W) {
        float v[W], d[W];
        load(v, to + i), load(d, from + i);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] += d[j];
        store(to + i, v);
    }
}

// The last thread also does the n % W elements that are left.
template <class To, class From, int W> __global__ void cast_kernel(To *to, const From *from, size_t n) {
    const size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (i + W <= n) {
        float v[W];
        load(v, from + i), store(to + i, v);
    } else {
        for (size_t k = i; k < n; k++) {
            float v[1];
            load(v, from + k), store(to + k, v);
        }
    }
}

// ---- launchers ----
static bool whole_words(size_t bytes) { return bytes % sizeof(uint4) == 0; }
// LAUNCH<Word>(...) with words of 16 bytes where `wide`, else of one element.
#define CUDA_FOR_WORDS(b, wide, LAUNCH, ...)                                                                           \
    do {                                                                                                               \
        if (wide) LAUNCH<uint4>(__VA_ARGS__);                                                                          \
        else if ((b)->dtype == DTYPE_BF16) LAUNCH<uint16_t>(__VA_ARGS__);                                              \
        else LAUNCH<uint32_t>(__VA_ARGS__);                                                                            \
    } while (0)

template <class Word>
static void launch_embedding(Backend *b, elem_t *out, const elem_t *table, const elem_t *slots, const int *ids, int T,
                             size_t bytes) {
    const int n = (int)(bytes / sizeof(Word));
    embedding_forward_kernel<Word><<<(unsigned)T, threads_for((size_t)n, 256), 0, cuda_stream(b)>>>(
        (Word *)out, (const Word *)table, (const Word *)slots, ids, n);
    CUDA_CHECK_LAUNCH("embedding_forward_kernel");
}

static void embedding_forward(Backend *b, elem_t *out, const elem_t *table, const elem_t *slots, const int *ids, int T,
                              int D) {
    if (T <= 0 || D <= 0) return;
    const size_t bytes = (size_t)D * dtype_size(b->dtype);
    const bool wide = whole_words(bytes) && aligned16(out) && aligned16(table) && aligned16(slots);
    CUDA_FOR_WORDS(b, wide, launch_embedding, b, out, table, slots, ids, T, bytes);
}

template <class E, int W>
static void launch_scatter(Backend *b, float *dtable, float *dslots, const elem_t *dout, const int *ids,
                           const int *order, const int *runs, int n_runs, int D) {
    const dim3 grid((unsigned)n_runs, (unsigned)ceil_divide((size_t)D, WARP * W));
    embedding_backward_kernel<E, W>
        <<<grid, SCATTER_WARPS * WARP, 0, cuda_stream(b)>>>(dtable, dslots, (const E *)dout, ids, order, runs, D);
    CUDA_CHECK_LAUNCH("embedding_backward_kernel");
}

static void embedding_backward(Backend *b, float *dtable, float *dslots, const elem_t *dout, const int *ids,
                               const int *order, const int *runs, int n_runs, int D) {
    if (n_runs <= 0 || D <= 0 || (!dtable && !dslots)) return;
    const bool wide = D % wide_elems(b) == 0 && aligned16(dtable) && aligned16(dslots) && aligned16(dout);
    CUDA_FOR_ELEMENTS(b, wide, launch_scatter, b, dtable, dslots, dout, ids, order, runs, n_runs, D);
}

template <class Word>
static void launch_gather(Backend *b, elem_t *out, const elem_t *in, const int *rows, int count, size_t bytes) {
    const int n = (int)(bytes / sizeof(Word));
    gather_rows_kernel<Word>
        <<<(unsigned)count, threads_for((size_t)n, 256), 0, cuda_stream(b)>>>((Word *)out, (const Word *)in, rows, n);
    CUDA_CHECK_LAUNCH("gather_rows_kernel");
}

static void gather_rows(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n, int D) {
    if (n <= 0 || D <= 0) return;
    const size_t bytes = (size_t)D * dtype_size(b->dtype);
    CUDA_FOR_WORDS(b, whole_words(bytes) && aligned16(out) && aligned16(in), launch_gather, b, out, in, rows, n, bytes);
}

template <class E, int W>
static void launch_scatter_add(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n, int D) {
    const int threads = threads_for(ceil_divide((size_t)D, W), 256);
    scatter_add_rows_kernel<E, W><<<(unsigned)n, threads, 0, cuda_stream(b)>>>((E *)out, (const E *)in, rows, D);
    CUDA_CHECK_LAUNCH("scatter_add_rows_kernel");
}

static void scatter_add_rows(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n, int D) {
    if (n <= 0 || D <= 0) return;
    const bool wide = D % wide_elems(b) == 0 && aligned16(out) && aligned16(in);
    CUDA_FOR_ELEMENTS(b, wide, launch_scatter_add, b, out, in, rows, n, D);
}

template <class Word>
static void launch_scatter_rows(Backend *b, elem_t *to, size_t to_bytes, const elem_t *from, size_t from_bytes,
                                const int *rows, int count, size_t bytes) {
    const int n = (int)(bytes / sizeof(Word));
    scatter_rows_kernel<Word><<<(unsigned)count, threads_for((size_t)n, 256), 0, cuda_stream(b)>>>(
        (Word *)to, (int)(to_bytes / sizeof(Word)), (const Word *)from, (int)(from_bytes / sizeof(Word)), rows, n);
    CUDA_CHECK_LAUNCH("scatter_rows_kernel");
}

static void scatter_rows(Backend *b, elem_t *to, int ld_to, const elem_t *from, int ld_from, const int *rows, int n,
                         int width) {
    if (n <= 0 || width <= 0) return;
    const size_t e = dtype_size(b->dtype), to_bytes = (size_t)ld_to * e, from_bytes = (size_t)ld_from * e;
    const size_t bytes = (size_t)width * e;
    const bool wide =
        whole_words(bytes) && whole_words(to_bytes) && whole_words(from_bytes) && aligned16(to) && aligned16(from);
    CUDA_FOR_WORDS(b, wide, launch_scatter_rows, b, to, to_bytes, from, from_bytes, rows, n, bytes);
}

template <class To, class From, int W> static void launch_cast(Backend *b, To *to, const From *from, size_t n) {
    const size_t blocks = ceil_divide(n, (size_t)256 * W); // one block does 2048 elements: enough for 2^42 of them
    cast_kernel<To, From, W><<<(unsigned)blocks, 256, 0, cuda_stream(b)>>>(to, from, n);
    CUDA_CHECK_LAUNCH("cast_kernel");
}

static void cast_from_f32(Backend *b, elem_t *out, const float *in, size_t n) {
    if (n == 0) return;
    if (b->dtype == DTYPE_F32) b->copy(b, out, in, n * sizeof(float));
    else if (aligned16(out) && aligned16(in)) launch_cast<bf16, float, 8>(b, (bf16 *)out, in, n);
    else launch_cast<bf16, float, 1>(b, (bf16 *)out, in, n);
}

static void cast_to_f32(Backend *b, float *out, const elem_t *in, size_t n) {
    if (n == 0) return;
    if (b->dtype == DTYPE_F32) b->copy(b, out, in, n * sizeof(float));
    else if (aligned16(out) && aligned16(in)) launch_cast<float, bf16, 8>(b, out, (const bf16 *)in, n);
    else launch_cast<float, bf16, 1>(b, out, (const bf16 *)in, n);
}

void cuda_rows_fill(Backend *b) {
    b->embedding_forward = embedding_forward;
    b->embedding_backward = embedding_backward;
    b->gather_rows = gather_rows;
    b->scatter_add_rows = scatter_add_rows;
    b->scatter_rows = scatter_rows;
    b->cast_from_f32 = cast_from_f32;
    b->cast_to_f32 = cast_to_f32;
}
