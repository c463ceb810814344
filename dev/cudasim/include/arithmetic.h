// Loads with cache hints, fast-math functions (exact here), bit operations of device code.
#ifndef CUDASIM_ARITHMETIC_H
#define CUDASIM_ARITHMETIC_H

#include "atomics.h"

template <class T> __forceinline__ T __ldg(const T *p) { return *p; }
template <class T> __forceinline__ T __ldcs(const T *p) { return *p; }
template <class T> __forceinline__ T __ldcg(const T *p) { return *p; }
template <class T> __forceinline__ T __ldca(const T *p) { return *p; }
template <class T> __forceinline__ void __stcs(T *p, sim::Same<T> v) { *p = v; }
template <class T> __forceinline__ void __stcg(T *p, sim::Same<T> v) { *p = v; }
template <class T> __forceinline__ void __stwt(T *p, sim::Same<T> v) { *p = v; }

__forceinline__ float __expf(float x) { return ::expf(x); }
__forceinline__ float __logf(float x) { return ::logf(x); }
__forceinline__ float __log2f(float x) { return ::log2f(x); }
__forceinline__ float __sinf(float x) { return ::sinf(x); }
__forceinline__ float __cosf(float x) { return ::cosf(x); }
__forceinline__ float __fdividef(float a, float b) { return a / b; }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __frcp_rn(float x) { return 1.f / x; }
__forceinline__ float __fsqrt_rn(float x) { return ::sqrtf(x); }
__forceinline__ float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
// The _rn forms are never contracted to fma: the volatile keeps the compiler from it.
__forceinline__ float __fmul_rn(float a, float b) {
    volatile float r = a * b;
    return r;
}
__forceinline__ float __fadd_rn(float a, float b) {
    volatile float r = a + b;
    return r;
}
__forceinline__ float rsqrtf(float x) { return 1.f / ::sqrtf(x); }
__forceinline__ double rsqrt(double x) { return 1.0 / ::sqrt(x); }

__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

namespace sim {
template <class To, class From> __forceinline__ To bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To r;
    memcpy(&r, &x, sizeof r);
    return r;
}
} // namespace sim
__forceinline__ int __float_as_int(float x) { return sim::bits<int>(x); }
__forceinline__ unsigned __float_as_uint(float x) { return sim::bits<unsigned>(x); }
__forceinline__ float __int_as_float(int x) { return sim::bits<float>(x); }
__forceinline__ float __uint_as_float(unsigned x) { return sim::bits<float>(x); }

using std::max;
using std::min;
inline unsigned min(int a, unsigned b) { return std::min((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return std::min(a, (unsigned)b); }
inline unsigned max(int a, unsigned b) { return std::max((unsigned)a, b); }
inline unsigned max(unsigned a, int b) { return std::max(a, (unsigned)b); }

#endif
