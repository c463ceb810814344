// rope.cu: rotary embedding, in place on the rows of a fused projection, "rotate half" pairing.
//
// A thread rotates W pairs (i, i + HS/2). The row's cosines and sines come from L1 for all heads but the first.
// Backward, a warp's lanes own 32 W pairs of columns and its block some rows, as in column_sums.cu: what is written is
// added up as well, and so are the columns that are not rotated. One pass: bytes an element, e = sizeof(elem): 2e of
// the rotated heads, e of the others.
#include "llmc/cuda/common.cuh"

// ---- kernels ----
// W pairs (a, b) by the angles of which `table` holds the cosines, and `pairs` further on the sines; sign -1: back.
template <int W>
__device__ __forceinline__ void rotate(float (&a)[W], float (&b)[W], const float *table, int pairs, float sign) {
    float c[W], s[W];
    load(c, table), load(s, table + pairs);
#pragma unroll
    for (int j = 0; j < W; j++) {
        const float sine = sign * s[j], turned = a[j] * c[j] - b[j] * sine;
        b[j] = b[j] * c[j] + a[j] * sine;
        a[j] = turned;
    }
}

template <class E, int W>
__global__ void rope_kernel(E *x, int ld, const float *cos_sin, const int *positions, int heads, int HS) {
    const int pairs = HS / 2, per_head = pairs / W;
    const float *table = cos_sin + (size_t)positions[blockIdx.x] * (size_t)HS;
    E *row = x + (size_t)blockIdx.x * (size_t)ld;
    for (int k = (int)threadIdx.x; k < heads * per_head; k += (int)blockDim.x) {
        const int head = k / per_head, i = (k - head * per_head) * W;
        E *first = row + (size_t)head * (size_t)HS + i, *second = first + pairs;
        float a[W], b[W];
        load(a, first), load(b, second);
        rotate(a, b, table + i, pairs, 1.0f);
        store(first, a), store(second, b);
    }
}

// partial (chunks,N) = column sums of `chunk` rows of dx (T,N) each, of which the first `heads` heads are rotated back;
// NULL: not wanted, and blocks for those heads alone.
template <class E, int W>
__global__ void __launch_bounds__(256)
    rope_backward_kernel(E *dx, float *partial, const float *cos_sin, const int *positions, int T, int N, int heads,
                         int HS, int chunk) {
    extern __shared__ __align__(16) float sums[]; // (warps, 2 W, 33): lanes of one j side by side, no bank twice
    constexpr int PITCH = WARP + 1;
    const int pairs = HS / 2, per_head = pairs / W;
    const int warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP, lane = (int)threadIdx.x % WARP;
    const int k = (int)blockIdx.x * WARP + lane, head = k / per_head, i = (k - head * per_head) * W;
    const int begin = (int)blockIdx.y * chunk, end = T - begin < chunk ? T : begin + chunk;
    float s[2][W] = {{0}};
    if (head * HS < N) {
#pragma unroll 2
        for (int t = begin + warp; t < end; t += warps) {
            E *first = dx + (size_t)t * (size_t)N + (size_t)head * (size_t)HS + i, *second = first + pairs;
            float a[W], b[W];
            load(a, first), load(b, second);
            if (head < heads) {
                rotate(a, b, cos_sin + (size_t)positions[t] * (size_t)HS + i, pairs, -1.0f);
#pragma unroll
                for (int j = 0; j < W; j++) a[j] = to_float(from_float<E>(a[j])), b[j] = to_float(from_float<E>(b[j]));
                store(first, a), store(second, b);
            }
#pragma unroll
            for (int j = 0; j < W; j++) s[0][j] += a[j], s[1][j] += b[j];
        }
    }
    if (!partial) return;
#pragma unroll
    for (int j = 0; j < 2 * W; j++) sums[(warp * 2 * W + j) * PITCH + lane] = s[j / W][j % W];
    __syncthreads();
    for (int c = (int)threadIdx.x; c < WARP * 2 * W; c += (int)blockDim.x) {
        const int pack = (int)blockIdx.x * WARP + c / (2 * W), j = c % (2 * W);
        const int column = pack / per_head * HS + pack % per_head * W + j / W * pairs + j % W;
        if (pack / per_head * HS >= N) break;
        float sum = 0;
        for (int w = 0; w < warps; w++) sum += sums[(w * 2 * W + j) * PITCH + c / (2 * W)];
        partial[(size_t)blockIdx.y * (size_t)N + column] = sum;
    }
}

// ---- launchers ----
template <class E, int W>
static void launch(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads,
                   int HS) {
    const int threads = threads_for((size_t)heads * (size_t)(HS / 2 / W), 256);
    rope_kernel<E, W><<<(unsigned)T, threads, 0, cuda_stream(b)>>>((E *)x, ld, cos_sin, positions, heads, HS);
    CUDA_CHECK_LAUNCH("rope_kernel");
}

template <class E, int W>
static void launch_backward(Backend *b, elem_t *dx, float *dbias, const float *cos_sin, const int *positions, int T,
                            int N, int heads, int HS, int accumulate) {
    enum { THREADS = 256 };
    const int chunk = column_sum_chunk(T), chunks = (int)ceil_divide((size_t)T, (size_t)chunk);
    const size_t packs = (size_t)(dbias ? N / HS : heads) * (size_t)(HS / 2 / W);
    const size_t bytes = (size_t)chunks * (size_t)N * sizeof(float),
                 shared = THREADS * 2 * W * (WARP + 1) / WARP * sizeof(float);
    float *partial = dbias ? (float *)cuda_scratch(b, bytes, "rope_backward") : NULL; // (chunks,N)
    const dim3 grid((unsigned)ceil_divide(packs, WARP), (unsigned)chunks);
    rope_backward_kernel<E, W>
        <<<grid, THREADS, shared, cuda_stream(b)>>>((E *)dx, partial, cos_sin, positions, T, N, heads, HS, chunk);
    CUDA_CHECK_LAUNCH("rope_backward_kernel");
    if (partial) cuda_sum_partials(b, dbias, partial, chunks, N, accumulate);
}

// 16 bytes' worth of pairs lie together.
static bool is_wide(const Backend *b, const elem_t *x, int ld, const float *cos_sin, int HS) {
    const int W = wide_elems(b);
    return HS % (2 * W) == 0 && ld % W == 0 && aligned16(x) && aligned16(cos_sin);
}

static void rope(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS) {
    if (T <= 0 || heads <= 0) return;
    CUDA_FOR_ELEMENTS(b, is_wide(b, x, ld, cos_sin, HS), launch, b, x, ld, cos_sin, positions, T, heads, HS);
}

static void rope_backward(Backend *b, elem_t *dx, float *dbias, const float *cos_sin, const int *positions, int T,
                          int N, int heads, int HS, int accumulate) {
    if (T <= 0) {
        if (dbias && !accumulate) b->zero(b, dbias, (size_t)N * sizeof(float));
        return;
    }
    CUDA_FOR_ELEMENTS(b, is_wide(b, dx, N, cos_sin, HS), launch_backward, b, dx, dbias, cos_sin, positions, T, N, heads,
                      HS, accumulate);
}

void cuda_rope_fill(Backend *b) {
    b->rope = rope;
    b->rope_backward = rope_backward;
}
