// CPU twin of ptx.cuh, the product's one file with inline PTX: same signatures, fragment layouts as in the PTX ISA
// manual. It defines that file's include guard, so wherever the product includes its own, nothing is left of it.
#ifndef LLMC_CUDA_PTX_CUH
#define LLMC_CUDA_PTX_CUH

#include <math.h>

#include "sim.h"

namespace sim {
struct Mma {
    float *d;          // (4) of C and D
    const uint32_t *a; // (4) pairs of bf16
    uint32_t b[2];
};
void mma_leader(void *const *arg, uint32_t mask);
struct LoadMatrix {
    uint32_t *out; // (4)
    const void *row;
    bool transposed;
};
void load_matrix(uint32_t *out, const void *row, bool transposed);
} // namespace sim

// D = A(16x16, row major) * B(16x8, column major) + D; bf16 in, fp32 out.
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    sim::Mma m{d, a, {b0, b1}};
    sim::collective(~0u, "mma.m16n8k16", &m, sim::mma_leader);
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row) { sim::load_matrix(r, row, false); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) { sim::load_matrix(r, row, true); }

// 16 bytes global -> shared; zeros when not valid, and then src is not read.
inline void cp_async_16(void *dst, const void *src, bool valid) { sim::cp_async(dst, src, 16, valid ? 16 : 0); }
inline void cp_async_commit() { sim::cp_async_commit(); }
// Waits until at most the N newest groups are in flight.
template <int N> inline void cp_async_wait() { sim::cp_async_wait(N); }

inline float exp2_approx(float x) { return ::exp2f(x); }

#endif
