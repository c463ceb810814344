// ops_attention.h: the attention of test_ops.c.
#ifndef TEST_OPS_ATTENTION_H
#define TEST_OPS_ATTENTION_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/check.h"
#include "test/ops_arrays.h"
#include "test/ops_reference.h"

typedef struct Batch { // page lengths: q and k; extra: unused key rows between the pages (a KV cache has them)
    const char *name;
    int pages, q[12], k[12], extra;
    int longest; // announced instead of the longest page; 0: that
} Batch;

static const Batch batches[] = {
    {"one token", 1, {1}, {1}, 0, 0},
    {"one page", 1, {37}, {37}, 0, 0},
    {"pages of 1, tile borders", 8, {1, 14, 15, 13, 32, 33, 1, 56}, {1, 14, 15, 13, 32, 33, 1, 56}, 0, 0},
    {"outputs_only", 5, {1, 5, 30, 3, 60}, {9, 40, 31, 3, 131}, 0, 0},
    {"decode in a cache", 4, {1, 1, 1, 1}, {1, 40, 17, 130}, 5, 0},
    {"longer than a tile of keys", 2, {300, 20}, {300, 530}, 3, 0},
    {"many pages", 12, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, 0, 0},
    // a GPU's blocks for pages of 32,768 tokens and 8 heads a group do not fit in the 65,535 of a grid's y
    {"room for a page of 32,800", 1, {3}, {3}, 0, 32800},
};

static void attention_case(const Batch *p, int NH, int KV, int HS, double scale) {
    at("attention, %s, heads %d/%d of %d", p->name, NH, KV, HS);
    int cu_q[13] = {0}, begin[12], end[12], max_q = 0, max_k = 0, rows = p->extra;
    for (int i = 0; i < p->pages; i++) {
        cu_q[i + 1] = cu_q[i] + p->q[i];
        begin[i] = rows;
        end[i] = begin[i] + p->k[i];
        rows = end[i] + p->extra;
        if (p->q[i] > max_q) max_q = p->q[i];
        if (p->k[i] > max_k) max_k = p->k[i];
    }
    const int Tq = cu_q[p->pages], ldq = NH * HS + 24, ldk = 2 * KV * HS + 8;
    const size_t nq = (size_t)Tq * ldq, nk = (size_t)rows * ldk, no = (size_t)Tq * NH * HS, nl = (size_t)Tq * NH;
    const size_t v_at = (size_t)KV * HS; // k and v lie in one row
    Array *acu = int_array(cu_q, (size_t)p->pages + 1), *ab = int_array(begin, (size_t)p->pages);
    Array *ae = int_array(end, (size_t)p->pages);
    const int longest_q = p->longest ? p->longest : max_q, longest_k = p->longest ? p->longest : max_k;
    const AttentionPages pages = {p->pages, longest_q, longest_k, acu->d, ab->d, ae->d};
    const RefPages ref = {p->pages, cu_q, begin, end};
    Array *q = random_array('e', nq, scale), *kv = random_array('e', nk, 1), *out = array('e', no),
          *lse = array('f', nl);
    double *ro = doubles(no), *mo = doubles(no), *zo = doubles(no), *rl = doubles(nl), *ml = doubles(nl);
    ref_attention_forward(ro, mo, zo, rl, ml, q->h, ldq, kv->h, kv->h + v_at, ldk, &ref, NH, KV, HS);
    B->attention_forward(B, out->d, lse->d, q->d, ldq, kv->d, elem_at(B, kv->d, v_at), ldk, &pages, NH, KV, HS);
    const double terms = HS + max_k;
    compare_rounded("out", out, ro, mo, zo, terms);
    compare("lse", lse, rl, ml, terms);
    Array *alone = array('e', no);
    B->attention_forward(B, alone->d, NULL, q->d, ldq, kv->d, elem_at(B, kv->d, v_at), ldk, &pages, NH, KV, HS);
    compare_rounded("out without lse", alone, ro, mo, zo, terms);

    // The backward gets the stored (rounded) out and lse, and so does its reference.
    for (size_t i = 0; i < no; i++) out->h[i] = round_elem(ro[i]);
    for (size_t i = 0; i < nl; i++) lse->h[i] = (float)rl[i];
    put(out);
    put(lse);
    Array *dout = random_array('e', no, 1), *dq = random_array('e', nq, 1), *dkv = random_array('e', nk, 1);
    double *rq = copy_of(dq), *rk = copy_of(dkv), *mq = doubles(nq), *mk = doubles(nk);
    double *zq = doubles(nq), *zk = doubles(nk);
    for (int t = 0; t < Tq; t++) memset(rq + (size_t)t * ldq, 0, (size_t)NH * HS * sizeof *rq);
    for (int i = 0; i < p->pages; i++)
        for (int r = begin[i]; r < end[i]; r++) memset(rk + (size_t)r * ldk, 0, 2 * (size_t)KV * HS * sizeof *rk);
    ref_attention_backward(rq, mq, zq, rk, mk, zk, rk + v_at, mk + v_at, zk + v_at, dout->h, out->h, lse->h, q->h, ldq,
                           kv->h, kv->h + v_at, ldk, &ref, NH, KV, HS);
    B->attention_backward(B, dq->d, ldq, dkv->d, elem_at(B, dkv->d, v_at), ldk, dout->d, out->d, lse->d, q->d, kv->d,
                          elem_at(B, kv->d, v_at), &pages, NH, KV, HS);
    const double terms_back = HS + max_k + max_q * (double)(NH / KV);
    compare_rounded("dq", dq, rq, mq, zq, terms_back);
    compare_rounded("dk and dv", dkv, rk, mk, zk, terms_back);
    free(zo), free(zq), free(zk), free(ro), free(mo), free(rl), free(ml), free(rq), free(rk), free(mq), free(mk);
    free_arrays();
}

static void test_attention(void) {
    static const int heads[][3] = {{14, 2, 64}, {12, 2, 128}, {16, 2, 128}, {4, 4, 32},
                                   {5, 1, 64},  {6, 2, 32},   {4, 2, 32}};
    check_begin("attention");
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++) {
            if (batches[i].k[0] >= 300 && h % 3 != 1) continue; // the long ones on some heads: time
            if (batches[i].longest && heads[h][0] != 8 * heads[h][1]) continue;
            attention_case(&batches[i], heads[h][0], heads[h][1], heads[h][2], h % 2 ? 1 : 6);
        }
    }
}

#endif
