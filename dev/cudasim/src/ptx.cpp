// The instructions behind ptx.cuh: cp.async, mma, ldmatrix.
//
// Fragments of m16n8k16, with g = lane / 4 and t = lane % 4: A holds rows g and g + 8, columns 2t, 2t+1 and 8 more; B
// holds k = 2t, 2t+1 and 8 more of column g; C and D hold rows g and g + 8, columns 2t and 2t+1 (PTX ISA, "Matrix
// Fragments").
#include "block.h"

namespace sim {

// ---- cp.async ----
// Nothing is copied before the thread's wait, the last legal moment: whoever looks earlier sees NaN.
void cp_async(void *dst, const void *src, unsigned n, unsigned valid) {
    if ((uintptr_t)dst % n || (valid && (uintptr_t)src % n)) fail("cp.async: misaligned address");
    if (!is_shared(dst, n)) fail("cp.async: the destination is not inside a variable in shared memory");
    Thread &self = the_block->thread[the_block->current];
    self.copies.push_back({dst, src, n, valid, self.groups});
    if (race) race->flight(dst, n, true);
    memset(dst, 0xff, n);
}
void cp_async_commit() { the_block->thread[the_block->current].groups++; }
static void finish_copies(unsigned groups_to_finish) { // groups are numbered from 0
    auto &copies = the_block->thread[the_block->current].copies;
    size_t i = 0;
    for (; i < copies.size() && copies[i].group < groups_to_finish; i++) {
        const AsyncCopy &c = copies[i];
        if (race) {
            race->flight(c.dst, c.n, false);
            if (c.valid) race->read(c.src, c.valid);
        }
        memcpy(c.dst, c.src, c.valid);
        memset((char *)c.dst + c.valid, 0, c.n - c.valid);
    }
    copies.erase(copies.begin(), copies.begin() + i);
}
void cp_async_wait(unsigned groups_left) {
    unsigned groups = the_block->thread[the_block->current].groups;
    if (groups > groups_left) finish_copies(groups - groups_left);
}

// ---- mma ----
static float low(uint32_t pair) { return __uint_as_float(pair << 16); }
static float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

void mma_leader(void *const *arg, uint32_t) {
    alignas(64) float A[16][16], B[16][8], C[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Mma &m = *(const Mma *)arg[lane];
        int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            float *a = &A[g + (i & 1) * 8][t + (i >> 1) * 8];
            a[0] = low(m.a[i]), a[1] = high(m.a[i]);
        }
        for (int i = 0; i < 2; i++) B[t + i * 8][g] = low(m.b[i]), B[t + i * 8 + 1][g] = high(m.b[i]);
        for (int i = 0; i < 4; i++) C[g + (i >> 1) * 8][t + (i & 1)] = m.d[i];
    }
    typedef float Row __attribute__((vector_size(32)));
    for (int r = 0; r < 16; r++) { // even and odd k apart: the hardware promises no order, and it is twice as fast
        Row even = *(Row *)C[r], odd = {};
        for (int k = 0; k < 16; k += 2) even += A[r][k] * *(Row *)B[k], odd += A[r][k + 1] * *(Row *)B[k + 1];
        *(Row *)C[r] = even + odd;
    }
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4 * 2;
        float *d = ((const Mma *)arg[lane])->d;
        for (int i = 0; i < 4; i++) d[i] = C[g + (i >> 1) * 8][t + (i & 1)];
    }
}

// ---- ldmatrix: lane l gets elements 2 (l % 4) and one more of row l / 4; of the transposed matrix with .trans ----
static void load_matrix_leader(void *const *arg, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
        LoadMatrix *self = (LoadMatrix *)arg[lane];
        for (int i = 0; i < 4; i++) {
            auto row = [&](int r) { return (const uint16_t *)((const LoadMatrix *)arg[i * 8 + r])->row; };
            int r = lane / 4, c = lane % 4 * 2;
            uint16_t pair[2];
            if (self->transposed) pair[0] = row(c)[r], pair[1] = row(c + 1)[r];
            else pair[0] = row(r)[c], pair[1] = row(r)[c + 1];
            memcpy(&self->out[i], pair, 4);
        }
    }
}
void load_matrix(uint32_t *out, const void *row, bool transposed) {
    if ((uintptr_t)row % 16) fail("ldmatrix: the row's address is not aligned to 16 bytes");
    if (!is_shared(row, 16)) fail("ldmatrix: the row is not inside a variable in shared memory");
    if (race) race->read(row, 16);
    LoadMatrix m{out, row, transposed};
    collective(~0u, transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", &m, load_matrix_leader);
}

} // namespace sim
