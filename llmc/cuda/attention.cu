// attention.cu: the two attention operations of the Backend table; picks kernels by element type and alignment.
#include "llmc/cuda/attention.cuh"

static bool rows_aligned(const void *p, int ld) { return aligned16(p) && ld % 8 == 0; }

static void check_head(int NH, int KV, int HS) {
    if ((HS != 32 && HS != 64 && HS != 128) || NH % KV)
        cuda_fatal(__FILE__, __LINE__, "attention",
                   "heads of 32, 64 or 128, query heads a multiple of key/value heads");
}

static void attention_forward(Backend *b, elem_t *out, float *lse, const elem_t *q, int ldq, const elem_t *k,
                              const elem_t *v, int ldk, const AttentionPages *pages, int NH, int KV, int HS) {
    check_head(NH, KV, HS);
    if (pages->pages == 0 || pages->max_q == 0) return;
    if (b->dtype == DTYPE_F32) {
        const AttentionInput<float> in = attention_input<float>(q, ldq, k, v, ldk, pages, NH, KV, HS);
        attention_forward_plain(b, (float *)out, lse, in, pages->max_q, HS);
        return;
    }
    const AttentionInput<bf16> in = attention_input<bf16>(q, ldq, k, v, ldk, pages, NH, KV, HS);
    if (rows_aligned(q, ldq) && rows_aligned(k, ldk) && rows_aligned(v, ldk) && aligned16(out))
        attention_forward_bf16(b, (bf16 *)out, lse, in, pages->max_q, HS);
    else attention_forward_plain(b, (bf16 *)out, lse, in, pages->max_q, HS);
}

static void attention_backward(Backend *b, elem_t *dq, int ldq, elem_t *dk, elem_t *dv, int ldk, const elem_t *dout,
                               const elem_t *out, const float *lse, const elem_t *q, const elem_t *k, const elem_t *v,
                               const AttentionPages *pages, int NH, int KV, int HS) {
    check_head(NH, KV, HS);
    if (pages->pages == 0 || pages->max_k == 0) return;
    if (b->dtype == DTYPE_F32) {
        const AttentionInput<float> in = attention_input<float>(q, ldq, k, v, ldk, pages, NH, KV, HS);
        attention_backward_plain(b, (float *)dq, (float *)dk, (float *)dv, (const float *)dout, (const float *)out, lse,
                                 in, pages->max_q, pages->max_k, HS);
        return;
    }
    const AttentionInput<bf16> in = attention_input<bf16>(q, ldq, k, v, ldk, pages, NH, KV, HS);
    const bool all = rows_aligned(q, ldq) && rows_aligned(k, ldk) && rows_aligned(v, ldk) && rows_aligned(dq, ldq) &&
                     rows_aligned(dk, ldk) && rows_aligned(dv, ldk) && aligned16(dout) && aligned16(out);
    (all ? attention_backward_bf16 : attention_backward_plain<bf16>)(b, (bf16 *)dq, (bf16 *)dk, (bf16 *)dv,
                                                                     (const bf16 *)dout, (const bf16 *)out, lse, in,
                                                                     pages->max_q, pages->max_k, HS);
}

void cuda_attention_fill(Backend *b) {
    b->attention_forward = attention_forward;
    b->attention_backward = attention_backward;
}
