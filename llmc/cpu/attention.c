// attention.c: attention over a packed batch as independent pieces, one a page and key/value head; in the forward pass
// queries are divided further where there are fewer pieces than threads want. One thread does a piece, so nothing is
// added across threads. Pages differ in length: a thread that is done takes the next piece.
#include "llmc/cpu/cpu.h"

#include <math.h>
#include <stdatomic.h>

static AttentionHead head_of(Backend *b, const AttentionPages *pages, int page, int kv, int NH, int KV, int HS,
                             const elem_t *q, int ldq, const elem_t *k, const elem_t *v, int ldk) {
    const int group = NH / KV;
    const size_t q0 = (size_t)pages->cu_q[page], k0 = (size_t)pages->k_begin[page];
    const size_t q_at = q0 * (size_t)ldq + (size_t)(kv * group * HS), k_at = k0 * (size_t)ldk + (size_t)(kv * HS);
    return (AttentionHead){.q = elem_at(b, q, q_at),
                           .k = elem_at(b, k, k_at),
                           .v = elem_at(b, v, k_at),
                           .ldq = ldq,
                           .ldk = ldk,
                           .ldo = (ptrdiff_t)NH * HS,
                           .ld_lse = NH,
                           .group = group,
                           .HS = HS,
                           .q_len = pages->cu_q[page + 1] - pages->cu_q[page],
                           .k_len = pages->k_end[page] - pages->k_begin[page],
                           .scale = 1.0f / sqrtf((float)HS)};
}

static double pairs_of(const AttentionPages *pages, int NH, int HS) { // an upper bound of the work
    const double lanes = pages->max_q > 2 ? 16 : 4; // decoding adds across a vector's lanes for each pair
    return (double)pages->cu_q[pages->pages] * pages->max_k * NH * HS / lanes;
}

static void attention_forward(Backend *b, elem_t *out, float *lse, const elem_t *q, int ldq, const elem_t *k,
                              const elem_t *v, int ldk, const AttentionPages *pages, int NH, int KV, int HS) {
    const CpuKernels *kernels = cpu_kernels(b);
    const int count = cpu_threads(b, pairs_of(pages, NH, HS));
    const size_t bytes = kernels->attention_forward_scratch(pages->max_k, HS);
    // Pieces a page and head: one, unless threads would be idle.
    const int heads = pages->pages * KV, cuts = count == 1 || heads >= 4 * count ? 1 : (4 * count + heads - 1) / heads;
    atomic_int next = 0;
    CPU_PARALLEL(count, {
        (void)threads;
        void *scratch = cpu_thread_scratch(b, thread, bytes);
        for (int i = atomic_fetch_add(&next, 1); i < heads * cuts; i = atomic_fetch_add(&next, 1)) {
            const int page = i / cuts / KV, kv = i / cuts % KV, cut = i % cuts;
            AttentionHead h = head_of(b, pages, page, kv, NH, KV, HS, q, ldq, k, v, ldk);
            const size_t first = (size_t)pages->cu_q[page];
            h.out = elem_at(b, out, first * (size_t)h.ldo + (size_t)(kv * h.group * HS));
            h.lse = lse ? lse + first * (size_t)NH + (size_t)(kv * h.group) : NULL;
            h.q_begin = (int)cpu_split((size_t)h.q_len, cut, cuts);
            h.q_end = (int)cpu_split((size_t)h.q_len, cut + 1, cuts);
            kernels->attention_forward(&h, scratch);
        }
    });
}

static void attention_backward(Backend *b, elem_t *dq, int ldq, elem_t *dk, elem_t *dv, int ldk, const elem_t *dout,
                               const elem_t *out, const float *lse, const elem_t *q, const elem_t *k, const elem_t *v,
                               const AttentionPages *pages, int NH, int KV, int HS) {
    const CpuKernels *kernels = cpu_kernels(b);
    const int count = cpu_threads(b, 2 * pairs_of(pages, NH, HS)), heads = pages->pages * KV;
    const size_t bytes = kernels->attention_backward_scratch(pages->max_k, HS);
    atomic_int next = 0;
    CPU_PARALLEL(count, {
        (void)threads;
        void *scratch = cpu_thread_scratch(b, thread, bytes);
        for (int i = atomic_fetch_add(&next, 1); i < heads; i = atomic_fetch_add(&next, 1)) {
            const int page = i / KV, kv = i % KV;
            AttentionHead h = head_of(b, pages, page, kv, NH, KV, HS, q, ldq, k, v, ldk);
            const size_t q0 = (size_t)pages->cu_q[page], k0 = (size_t)pages->k_begin[page];
            const size_t o_at = q0 * (size_t)h.ldo + (size_t)(kv * h.group * HS);
            const size_t q_at = q0 * (size_t)ldq + (size_t)(kv * h.group * HS),
                         k_at = k0 * (size_t)ldk + (size_t)(kv * HS);
            h.o = elem_at(b, out, o_at);
            h.dout = elem_at(b, dout, o_at);
            h.lse = (float *)(uintptr_t)lse + q0 * (size_t)NH + (size_t)(kv * h.group); // only read
            h.dq = elem_at(b, dq, q_at);
            h.dk = elem_at(b, dk, k_at);
            h.dv = elem_at(b, dv, k_at);
            kernels->attention_backward(&h, scratch);
        }
    });
}

void cpu_attention_fill(Backend *b) {
    b->attention_forward = attention_forward;
    b->attention_backward = attention_backward;
}
