// rope.cu: rotary embedding, in place on the rows of a fused projection, "rotate half" pairing.
//
// A thread rotates W pairs (i, i + HS/2). The row's cosines and sines come from L1 for all heads but the first.
#include "llmc/cuda/common.cuh"

// ---- kernel ----
template <class E, int W>
__global__ void rope_kernel(E *x, int ld, const float *cos_sin, const int *positions, int heads, int HS, int backward) {
    const int pairs = HS / 2, per_head = pairs / W;
    const float *table = cos_sin + (size_t)positions[blockIdx.x] * (size_t)HS;
    E *row = x + (size_t)blockIdx.x * (size_t)ld;
    for (int k = (int)threadIdx.x; k < heads * per_head; k += (int)blockDim.x) {
        const int head = k / per_head, i = (k - head * per_head) * W;
        E *first = row + (size_t)head * (size_t)HS + i, *second = first + pairs;
        float a[W], b[W], c[W], s[W], turned_a[W], turned_b[W];
        load(a, first), load(b, second), load(c, table + i), load(s, table + pairs + i);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const float sine = backward ? -s[j] : s[j];
            turned_a[j] = a[j] * c[j] - b[j] * sine;
            turned_b[j] = b[j] * c[j] + a[j] * sine;
        }
        store(first, turned_a), store(second, turned_b);
    }
}

// ---- launcher ----
template <class E, int W>
static void launch(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS,
                   int backward) {
    const int threads = threads_for((size_t)heads * (size_t)(HS / 2 / W), 256);
    rope_kernel<E, W><<<(unsigned)T, threads, 0, cuda_stream(b)>>>((E *)x, ld, cos_sin, positions, heads, HS, backward);
    CUDA_CHECK_LAUNCH("rope_kernel");
}

static void rope(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS,
                 int backward) {
    if (T <= 0 || heads <= 0) return;
    const int W = wide_elems(b);
    const bool wide = HS % (2 * W) == 0 && ld % W == 0 && aligned16(x) && aligned16(cos_sin);
    CUDA_FOR_ELEMENTS(b, wide, launch, b, x, ld, cos_sin, positions, T, heads, HS, backward);
}

void cuda_rope_fill(Backend *b) { b->rope = rope; }
