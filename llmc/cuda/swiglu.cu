// swiglu.cu: out = silu(gate) * up on the rows of a fused gate|up product, and its gradient.
//
// A thread does W elements of a row. Fast exponentials: off by at most |gate| roundings of fp32, like any that starts
// from a rounded gate * log2(e).
#include "llmc/cuda/common.cuh"

// ---- kernels: grid (T, tiles of a row) ----
template <class E, int W> __global__ void swiglu_forward_kernel(E *out, const E *gate_up, int F) {
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x) * W;
    if (i >= F) return;
    const E *gate = gate_up + (size_t)blockIdx.x * 2 * (size_t)F + i;
    float g[W], u[W], y[W];
    load(g, gate), load(u, gate + F);
#pragma unroll
    for (int j = 0; j < W; j++) y[j] = g[j] / (1.0f + __expf(-g[j])) * u[j];
    store(out + (size_t)blockIdx.x * (size_t)F + i, y);
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g); dgate_up may be gate_up
template <class E, int W> __global__ void swiglu_backward_kernel(E *dgate_up, const E *dout, const E *gate_up, int F) {
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x) * W;
    if (i >= F) return;
    const size_t at = (size_t)blockIdx.x * 2 * (size_t)F + i;
    float g[W], u[W], d[W], dg[W], du[W];
    load(g, gate_up + at), load(u, gate_up + at + F), load(d, dout + (size_t)blockIdx.x * (size_t)F + i);
#pragma unroll
    for (int j = 0; j < W; j++) {
        const float s = 1.0f / (1.0f + __expf(-g[j])), silu = g[j] * s;
        dg[j] = d[j] * u[j] * (s + silu * (1.0f - s));
        du[j] = d[j] * silu;
    }
    store(dgate_up + at, dg), store(dgate_up + at + F, du);
}

// ---- launchers ----
template <int W> static dim3 tiles(int T, int F, int threads) {
    return dim3((unsigned)T, (unsigned)ceil_divide((size_t)F, (size_t)threads * W));
}

template <class E, int W> static void launch_forward(Backend *b, elem_t *out, const elem_t *gate_up, int T, int F) {
    const int threads = threads_for(ceil_divide((size_t)F, W), 256);
    swiglu_forward_kernel<E, W>
        <<<tiles<W>(T, F, threads), threads, 0, cuda_stream(b)>>>((E *)out, (const E *)gate_up, F);
    CUDA_CHECK_LAUNCH("swiglu_forward_kernel");
}

static void swiglu_forward(Backend *b, elem_t *out, const elem_t *gate_up, int T, int F) {
    if (T <= 0 || F <= 0) return;
    const bool wide = F % wide_elems(b) == 0 && aligned16(out) && aligned16(gate_up);
    CUDA_FOR_ELEMENTS(b, wide, launch_forward, b, out, gate_up, T, F);
}

template <class E, int W>
static void launch_backward(Backend *b, elem_t *dgate_up, const elem_t *dout, const elem_t *gate_up, int T, int F) {
    const int threads = threads_for(ceil_divide((size_t)F, W), 256);
    swiglu_backward_kernel<E, W><<<tiles<W>(T, F, threads), threads, 0, cuda_stream(b)>>>(
        (E *)dgate_up, (const E *)dout, (const E *)gate_up, F);
    CUDA_CHECK_LAUNCH("swiglu_backward_kernel");
}

static void swiglu_backward(Backend *b, elem_t *dgate_up, const elem_t *dout, const elem_t *gate_up, int T, int F) {
    if (T <= 0 || F <= 0) return;
    const bool wide = F % wide_elems(b) == 0 && aligned16(dgate_up) && aligned16(dout) && aligned16(gate_up);
    CUDA_FOR_ELEMENTS(b, wide, launch_backward, b, dgate_up, dout, gate_up, T, F);
}

void cuda_swiglu_fill(Backend *b) {
    b->swiglu_forward = swiglu_forward;
    b->swiglu_backward = swiglu_backward;
}
