// common.cuh: what the kernels share: loads and stores of W elements as fp32, sums in a fixed order, launch sizes.
//
// Kernels are templates over the element type E and the elements W of one access: 16 bytes' worth where all rows start
// on 16-byte borders, else 1. Arithmetic is fp32; what is stored is rounded to E once. No sum depends on which thread
// comes first: no atomics.
#ifndef LLMC_CUDA_COMMON_CUH
#define LLMC_CUDA_COMMON_CUH

#include <math.h>

#include "llmc/cuda/cuda.h"

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// ---- W elements, as fp32; with W > 1 the address is a multiple of 16 bytes ----
template <int W> __device__ __forceinline__ void load(float (&v)[W], const float *p) {
    if constexpr (W % 4 == 0) {
#pragma unroll
        for (int i = 0; i < W; i += 4) {
            const float4 f = *(const float4 *)(p + i);
            v[i] = f.x, v[i + 1] = f.y, v[i + 2] = f.z, v[i + 3] = f.w;
        }
    } else {
        static_assert(W == 1, "16 bytes or one element");
        v[0] = *p;
    }
}

template <int W> __device__ __forceinline__ void store(float *p, const float (&v)[W]) {
    if constexpr (W % 4 == 0) {
#pragma unroll
        for (int i = 0; i < W; i += 4) *(float4 *)(p + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    } else {
        *p = v[0];
    }
}

// A bf16 is the upper half of an fp32.
__device__ __forceinline__ void unpack(float &low, float &high, unsigned pair) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ unsigned pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return (unsigned)__bfloat16_as_ushort(pair.x) | (unsigned)__bfloat16_as_ushort(pair.y) << 16;
}

// W elements as they lie in memory, and as fp32.
template <class E, int W> struct Bits;
template <> struct Bits<float, 1> { typedef float type; };
template <> struct Bits<float, 4> { typedef float4 type; };
template <> struct Bits<bf16, 1> { typedef bf16 type; };
template <> struct Bits<bf16, 8> { typedef uint4 type; };
__device__ __forceinline__ void to_floats(float (&v)[1], float f) { v[0] = f; }
__device__ __forceinline__ void to_floats(float (&v)[4], float4 f) { v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w; }
__device__ __forceinline__ void to_floats(float (&v)[1], bf16 h) { v[0] = __bfloat162float(h); }
__device__ __forceinline__ void to_floats(float (&v)[8], uint4 u) {
    unpack(v[0], v[1], u.x), unpack(v[2], v[3], u.y), unpack(v[4], v[5], u.z), unpack(v[6], v[7], u.w);
}

// Of what is read once and by nobody soon: leaves the cache first.
template <int W, class E> __device__ __forceinline__ typename Bits<E, W>::type bits_once(const E *p) {
    return __ldcs((const typename Bits<E, W>::type *)p);
}
template <int W, class E> __device__ __forceinline__ void load_once(float (&v)[W], const E *p) {
    to_floats(v, bits_once<W>(p));
}

template <int W> __device__ __forceinline__ void load(float (&v)[W], const bf16 *p) {
    if constexpr (W == 8) {
        to_floats(v, *(const uint4 *)p);
    } else {
        static_assert(W == 1, "16 bytes or one element");
        to_floats(v, *p);
    }
}

template <int W> __device__ __forceinline__ void store(bf16 *p, const float (&v)[W]) {
    if constexpr (W == 8) {
        *(uint4 *)p = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    } else {
        *p = __float2bfloat16_rn(v[0]);
    }
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class E> __device__ __forceinline__ E from_float(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// ---- reductions: a tree within each warp, then the warps in order ----
template <class T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
    return v;
}

// The block's sum, for all its threads. warps: shared, 32 of them. The block is one-dimensional, whole warps.
template <class T> __device__ __forceinline__ T block_sum(T v, T *warps) {
    v = warp_sum(v);
    if (blockDim.x == WARP) return v;
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = v;
    __syncthreads();
    T sum = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++) sum += warps[i];
    __syncthreads(); // `warps` may be written again
    return sum;
}

// ---- launches ----
static inline bool aligned16(const void *p) { return (uintptr_t)p % 16 == 0; }
static inline size_t ceil_divide(size_t n, size_t by) { return (n + by - 1) / by; }
// Threads of a block that has n things to do: whole warps, at most `most`.
static inline int threads_for(size_t n, int most) {
    const size_t threads = ceil_divide(n, WARP) * WARP;
    return threads < WARP ? WARP : threads < (size_t)most ? (int)threads : most;
}

// Elements in 16 bytes.
static inline int wide_elems(const Backend *b) { return b->dtype == DTYPE_BF16 ? 8 : 4; }
// LAUNCH<E, W>(...) with the backend's element type, and W = 16 bytes' worth where `wide`, else 1.
#define CUDA_FOR_ELEMENTS(b, wide, LAUNCH, ...)                                                                        \
    do {                                                                                                               \
        if ((b)->dtype == DTYPE_BF16) {                                                                                \
            if (wide) LAUNCH<bf16, 8>(__VA_ARGS__);                                                                    \
            else LAUNCH<bf16, 1>(__VA_ARGS__);                                                                         \
        } else {                                                                                                       \
            if (wide) LAUNCH<float, 4>(__VA_ARGS__);                                                                   \
            else LAUNCH<float, 1>(__VA_ARGS__);                                                                        \
        }                                                                                                              \
    } while (0)

// ---- column_sums.cu ----
// out (N) = or += sums over the T rows of x (T,N), through scratch of at most BACKEND_SUM_BLOCKS rows of N floats.
void cuda_column_sums(Backend *b, float *out, const elem_t *x, int T, int N, int accumulate);
// Rows of one partial sum: at least 64, so many that there are at most BACKEND_SUM_BLOCKS.
static inline int column_sum_chunk(int T) {
    const size_t chunks = ceil_divide((size_t)T, 64);
    return (int)ceil_divide((size_t)T, chunks < BACKEND_SUM_BLOCKS ? chunks : (size_t)BACKEND_SUM_BLOCKS);
}
// The same for few rows of fp32, without scratch: partial sums that another kernel left there.
void cuda_sum_partials(Backend *b, float *out, const float *partial, int rows, int N, int accumulate);

#endif
