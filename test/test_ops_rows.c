// test_ops_rows.c: on the CPU a row's result has the same bits whatever else is in the batch: the text a model writes
// for a page does not depend on the pages beside it. Products of one row up to more
// than a register tile, attention of few and of many queries, in every instruction set this processor has.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/backend.h"
#include "test/check.h"
#include "test/ops_arrays.h"

static void test_products(void) {
    static const int shapes[][2] = {{1, 1}, {33, 70}, {320, 130}, {600, 33}, {1103, 97}, {4864, 40}};
    enum { ROWS = 40 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int K = shapes[s][0], N = shapes[s][1];
        Array *in = random_array('e', (size_t)ROWS * K, 1), *w = random_array('e', (size_t)N * K, 1);
        Array *bias = random_array('e', (size_t)N, 1), *all = array('e', (size_t)ROWS * N);
        B->matmul_forward(B, all->d, in->d, w->d, bias->d, ROWS, K, N);
        get(all);
        for (int T = 1; T <= 18; T++) {
            const int first = T * 7 % (ROWS - T + 1);
            at("rows %d to %d of %d, K %d N %d", first, first + T - 1, ROWS, K, N);
            Array *some = array('e', (size_t)T * N);
            B->matmul_forward(B, some->d, elem_at(B, in->d, (size_t)first * K), w->d, bias->d, T, K, N);
            compare_exact("out", some, all->h + (size_t)first * N);
        }
        free_arrays();
    }
}

static void test_attention(void) {
    enum { PAGES = 5, NH = 6, KV = 2, HS = 64, LDK = 2 * KV * HS };
    static const int q_len[PAGES] = {1, 1, 40, 2, 3}, k_len[PAGES] = {300, 1, 40, 700, 3};
    int cu[PAGES + 1] = {0}, begin[PAGES], end[PAGES], rows = 0;
    for (int p = 0; p < PAGES; p++) {
        cu[p + 1] = cu[p] + q_len[p];
        begin[p] = rows;
        rows = end[p] = rows + k_len[p];
    }
    Array *q = random_array('e', (size_t)cu[PAGES] * NH * HS, 2), *kv = random_array('e', (size_t)rows * LDK, 1);
    Array *all = array('e', (size_t)cu[PAGES] * NH * HS), *acu = int_array(cu, PAGES + 1);
    Array *ab = int_array(begin, PAGES), *ae = int_array(end, PAGES);
    void *v = elem_at(B, kv->d, KV * HS);
    const AttentionPages together = {PAGES, 40, 700, acu->d, ab->d, ae->d};
    B->attention_forward(B, all->d, NULL, q->d, NH * HS, kv->d, v, LDK, &together, NH, KV, HS);
    get(all);
    for (int p = 0; p < PAGES; p++) {
        at("attention, page %d", p);
        const int one[2] = {0, q_len[p]};
        const size_t from = (size_t)cu[p] * NH * HS;
        Array *acu1 = int_array(one, 2), *ab1 = int_array(&begin[p], 1), *ae1 = int_array(&end[p], 1);
        Array *out = array('e', (size_t)q_len[p] * NH * HS);
        const AttentionPages alone = {1, q_len[p], k_len[p], acu1->d, ab1->d, ae1->d};
        B->attention_forward(B, out->d, NULL, elem_at(B, q->d, from), NH * HS, kv->d, v, LDK, &alone, NH, KV, HS);
        compare_exact("out", out, all->h + from);
    }
    free_arrays();
}

int main(int argc, char **argv) {
    (void)argc;
    backend_cpu_prepare(argv);
    static const char *const isas[] = {"base", "avx512", "avx512_bf16"};
    for (int i = 0; i < 6; i++) {
        const DType dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        static char names[6][2][100];
        Error err;
        setenv("C3_CPU_ISA", isas[i / 2], 1);
        if (backend_cpu_create(&B, dtype, 1, NULL, &err) != 0) {
            printf("%s\n", err.text); // test_ops.c sees to it that there is one
            continue;
        }
        for (int t = 0; t < 2; t++) {
            snprintf(names[i][t], sizeof names[i][t], "%s %s: the same bits, %s", isas[i / 2], i % 2 ? "bf16" : "fp32",
                     t ? "attention's pages alone" : "a product's rows alone");
            check_begin(names[i][t]);
            if (t) test_attention();
            else test_products();
        }
        B->destroy(B);
    }
    return check_done();
}
