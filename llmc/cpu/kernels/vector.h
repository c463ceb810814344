// vector.h: the vocabulary of the CPU kernels: vectors of VL floats, loads and stores that convert from and to the
// element type, sums, exp. Written once with the compiler's vector extensions; each ISA variant compiles it with its
// own flags. Intrinsics only where the extensions do not reach an instruction that pays.
//
// ELEM_BF16 (0/1) chooses the element type of this compilation.
#ifndef LLMC_CPU_VECTOR_H
#define LLMC_CPU_VECTOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h> // max, min, scalef, dpbf16, masked loads and stores
#endif

#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

#define INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));
typedef uint16_t bf16;

// SHUFFLE(a, b, F): element j of the result is element F(j) of a followed by b; F is a macro.
#if VL == 16
#define SHUFFLE(a, b, F)                                                                                               \
    __builtin_shufflevector(a, b, F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12),     \
                            F(13), F(14), F(15))
#define LANES                                                                                                          \
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }
#elif VL == 8
#define SHUFFLE(a, b, F) __builtin_shufflevector(a, b, F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7))
#define LANES                                                                                                          \
    { 0, 1, 2, 3, 4, 5, 6, 7 }
#else
#define SHUFFLE(a, b, F) __builtin_shufflevector(a, b, F(0), F(1), F(2), F(3))
#define LANES                                                                                                          \
    { 0, 1, 2, 3 }
#endif
#define XOR1(j) ((j) ^ 1)
#define XOR2(j) ((j) ^ 2)
#define XOR4(j) ((j) ^ 4)
#define XOR8(j) ((j) ^ 8)

INLINE vf vset(float x) { return x - (vf){0}; }
INLINE vf vselect(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }
// a NaN in a is passed on, a NaN in b is not looked at (what the x86 instructions do with their operands swapped)
INLINE vf vmin(vf a, vf b) {
#if VL == 16
    return (vf)_mm512_min_ps((__m512)b, (__m512)a);
#elif VL == 8
    return (vf)_mm256_min_ps((__m256)b, (__m256)a);
#else
    return vselect(a > b, b, a);
#endif
}
INLINE vf vmax(vf a, vf b) {
#if VL == 16
    return (vf)_mm512_max_ps((__m512)b, (__m512)a);
#elif VL == 8
    return (vf)_mm256_max_ps((__m256)b, (__m256)a);
#else
    return vselect(a < b, b, a);
#endif
}

INLINE vf vsqrt(vf x) {
#if VL == 16
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif VL == 8
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < VL; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

// ---- fp32 in memory ----
INLINE vf ldf(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void stf(float *p, vf x) { memcpy(p, &x, sizeof x); }
// The first n elements; lanes from n on read 0 and are not written. n >= VL means all.
INLINE vf ldf_n(const float *p, int n) {
    if (n >= VL) return ldf(p);
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf x = {0};
    for (int i = 0; i < n; i++) x[i] = p[i];
    return x;
#endif
}
INLINE void stf_n(float *p, vf x, int n) {
    if (n >= VL) {
        stf(p, x);
        return;
    }
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
#else
    for (int i = 0; i < n; i++) p[i] = x[i];
#endif
}

// ---- bf16: the upper half of an fp32, rounded to nearest even; a NaN stays one ----
INLINE float bf16_to_float(bf16 h) {
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
INLINE bf16 bf16_from_float(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (x != x) return (bf16)(u >> 16 | 0x40);
    return (bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
INLINE vu widen(vh h) { // gcc 12 makes four instructions of __builtin_convertvector where there is one
#if VL == 16
    return (vu)_mm512_cvtepu16_epi32((__m256i)h);
#elif VL == 8
    return (vu)_mm256_cvtepu16_epi32((__m128i)h);
#else
    return __builtin_convertvector(h, vu);
#endif
}
INLINE vh narrow(vu u) {
#if VL == 16
    return (vh)_mm512_cvtepi32_epi16((__m512i)u);
#else
    return __builtin_convertvector(u, vh);
#endif
}
INLINE vf vf_from_bf16(vh h) { return (vf)(widen(h) << 16); }
INLINE vh bf16_from_vf(vf x) {
    vu u = (vu)x, rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    vu is_nan = (vu)(x != x);
    return narrow((nan & is_nan) | (rounded & ~is_nan));
}
// What is stored to memory: where the processor rounds to bf16 itself, it also turns subnormals into zero.
INLINE vh bf16_to_store(vf x) {
#if defined(__AVX512BF16__)
    return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
    return bf16_from_vf(x);
#endif
}
INLINE vh ldu16_n(const bf16 *p, int n) {
    vh h = {0};
    if (n >= VL) {
        memcpy(&h, p, sizeof h);
        return h;
    }
#if defined(__AVX512BW__) && VL == 16
    return (vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
#else
    for (int i = 0; i < n; i++) h[i] = p[i];
    return h;
#endif
}
INLINE vf ldh(const bf16 *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return vf_from_bf16(h);
}
INLINE void sth(bf16 *p, vf x) {
    const vh h = bf16_to_store(x);
    memcpy(p, &h, sizeof h);
}
INLINE vf ldh_n(const bf16 *p, int n) { return vf_from_bf16(ldu16_n(p, n)); }
INLINE void sth_n(bf16 *p, vf x, int n) {
    const vh h = bf16_to_store(x);
    if (n >= VL) {
        memcpy(p, &h, sizeof h);
        return;
    }
#if defined(__AVX512BW__) && VL == 16
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)h);
#else
    for (int i = 0; i < n; i++) p[i] = h[i];
#endif
}

// ---- the element type ----
#if ELEM_BF16
typedef bf16 elem;
#define ld              ldh
#define st              sth
#define ld_n            ldh_n
#define st_n            sth_n
#define elem_to_float   bf16_to_float
#define elem_from_float bf16_from_float
#else
typedef float elem;
#define ld                 ldf
#define st                 stf
#define ld_n               ldf_n
#define st_n               stf_n
#define elem_to_float(x)   (x)
#define elem_from_float(x) (x)
#endif

// ---- across lanes: always the same tree ----
INLINE float vsum(vf x) {
#if VL == 16
    x += SHUFFLE(x, x, XOR8);
#endif
#if VL >= 8
    x += SHUFFLE(x, x, XOR4);
#endif
    x += SHUFFLE(x, x, XOR2);
    x += SHUFFLE(x, x, XOR1);
    return x[0];
}
INLINE float vmaximum(vf x) { // no lane may be NaN
#if VL == 16
    x = vmax(SHUFFLE(x, x, XOR8), x);
#endif
#if VL >= 8
    x = vmax(SHUFFLE(x, x, XOR4), x);
#endif
    x = vmax(SHUFFLE(x, x, XOR2), x);
    x = vmax(SHUFFLE(x, x, XOR1), x);
    return x[0];
}

// exp, within 2 ulp; overflow gives Inf, underflow goes through subnormals to 0, NaN stays NaN.
// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2, exp(r) a polynomial of degree 6.
INLINE vf vexp(vf x) {
    const float round = 12582912.0f; // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
    x = vmin(vmax(x, vset(-104.0f)), vset(89.0f));
    vf shifted = x * 1.44269504f + round, n = shifted - round;
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = r * 1.3814537910532166e-3f + 8.368745327084088e-3f; // minimax, relative error 3e-9 before rounding
    p = p * r + 4.1668390831076145e-2f;
    p = p * r + 0.16666520396695053f;
    p = p * r + 0.4999999343189188f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    vi k = (vi)shifted - 0x4B400000, half = k >> 1; // 2^k in two factors: k reaches beyond the exponents of a float
    return p * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
#endif
}

#endif
