// ops_optimizer.h: AdamW, norms and collectives of test_ops.c.
#ifndef TEST_OPS_OPTIMIZER_H
#define TEST_OPS_OPTIMIZER_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/check.h"
#include "test/ops_arrays.h"
#include "test/ops_reference.h"

static void test_adamw(void) {
    check_begin("adamw");
    enum { N = 256 * 5 + 64 * 3, UPDATED = N - 64 }; // the last 64 elements belong to somebody else
    const AdamWParams p = {.lr = 1e-2f,
                           .beta1 = 0.9f,
                           .beta2 = 0.999f,
                           .eps = 1e-8f,
                           .weight_decay = 0.1f,
                           .bias1 = 0.271f,
                           .bias2 = 0.002997f};
    for (int mode = 0; mode < 5; mode++) { // 0: master; 1: fp32 without; 2: no decay; 3, 4: Inf, NaN
        if (mode == 1 && B->dtype != DTYPE_F32) continue;
        at("adamw mode %d", mode);
        AdamWParams q = p;
        if (mode == 2) q.weight_decay = 0;
        Array *master = random_array('f', N, 1), *m = random_array('f', N, 1), *v = random_array('f', N, 1);
        Array *grad = random_array('f', N, 2), *param = array('e', N), *scale = array('f', 1);
        for (int i = 0; i < N; i++) {
            v->h[i] = fabs(v->h[i]);
            if (i / 256 == 2) grad->h[i] = m->h[i] = v->h[i] = 0; // only decays, if anything
            param->h[i] = mode == 1 ? master->h[i] : round_elem(master->h[i]);
        }
        scale->h[0] = mode == 3 ? (double)INFINITY : mode == 4 ? (double)NAN : 0.5;
        put(grad), put(m), put(v), put(param), put(scale);
        double *rx = copy_of(master), *rm = copy_of(m), *rv = copy_of(v), *rp = copy_of(param), *mag = doubles(N);
        if (mode < 3) ref_adamw(rx, rm, rv, grad->h, scale->h[0], UPDATED, &q);
        for (int i = 0; i < N; i++) mag[i] = 1 + fabs(rm[i]) + (double)q.lr * 100;
        if (mode < 3) memcpy(rp, rx, UPDATED * sizeof *rp);
        B->adamw(B, param->d, mode == 1 ? NULL : master->d, m->d, v->d, grad->d, scale->d, UPDATED, &q);
        if (mode >= 3) { // untouched, to the bit
            compare_exact("m", m, rm), compare_exact("v", v, rv), compare_exact("master", master, rx);
            compare_exact("param", param, rp);
        } else {
            compare("m", m, rm, mag, 2), compare("v", v, rv, mag, 2), compare("param", param, rp, mag, 4);
            if (mode != 1) compare("master", master, rx, mag, 4);
        }
        if (mode == 2) { // a block that was never touched: exactly what it was
            for (int i = 512; i < 768; i++)
                CHECK(master->h[i] == rx[i] && m->h[i] == 0 && v->h[i] == 0, "%s: %d", where, i);
        }
        free(rx), free(rm), free(rv), free(rp), free(mag);
        free_arrays();
    }
}

static void test_norm(void) {
    check_begin("sum of squares, clip factor");
    static const int sizes[] = {256, 512, 256 * 63, 256 * 64, 256 * 65, 256 * 300};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        at("sum_squares %d", sizes[s]);
        Array *x = random_array('f', (size_t)sizes[s], 3), *sum = array('d', 1);
        double ref = 0;
        for (int i = 0; i < sizes[s]; i++) ref += x->h[i] * x->h[i];
        B->sum_squares(B, sum->d, x->d, (size_t)sizes[s]);
        compare("sum", sum, &ref, NULL, 256);
        x->h[sizes[s] - 1] = NAN;
        put(x);
        B->sum_squares(B, sum->d, x->d, (size_t)sizes[s]);
        get(sum);
        CHECK(isnan(sum->h[0]), "%s: a NaN got lost: %g", where, sum->h[0]);
        free_arrays();
    }
    static const struct {
        int n;
        double clip, norm_scale;
    } clips[] = {{1, 1, 1},  {5, 0, 1},    {5, 1, 0.1},      {32, 2.5, 1},
                 {70, 1, 1}, {70, 1e9, 1}, {3, 1, INFINITY}, {3, 0, NAN}};
    for (size_t s = 0; s < sizeof clips / sizeof *clips; s++) {
        const int n = clips[s].n;
        at("clip_scale n %d clip %g, norm x %g", n, clips[s].clip, clips[s].norm_scale);
        Array *partial = array('d', (size_t)n), *norm = array('d', 1), *scale = array('f', 1);
        double sum = 0;
        for (int i = 0; i < n; i++) {
            partial->h[i] = fabs(uniform()) * (i == n - 1 ? clips[s].norm_scale : 1);
            sum += partial->h[i];
        }
        put(partial);
        const double root = sqrt(sum), factor = clips[s].clip / (root + 1e-6);
        const double expected = !isfinite(root) ? (double)NAN : clips[s].clip > 0 && factor < 1 ? (float)factor : 1;
        B->clip_scale(B, scale->d, norm->d, partial->d, n, clips[s].clip);
        compare_exact("norm", norm, &root);
        compare_exact("scale", scale, &expected);
        free_arrays();
    }
}

// One rank: what is reduced is the data itself.
static void test_collectives(void) {
    check_begin("collectives of one rank");
    at("collectives");
    Array *x = random_array('f', 512, 1), *shard = random_array('f', 512, 1);
    double *ref = copy_of(x), *sum = copy_of(shard);
    B->wait_for(B, 3); // there was none
    B->reduce_scatter(B, x->d, x->d, 512, 0, 3);
    B->wait_for(B, 3);
    compare_exact("reduce_scatter in place", x, ref);
    for (int i = 0; i < 512; i++) sum[i] = (float)(sum[i] + ref[i]);
    B->reduce_scatter(B, shard->d, x->d, 512, 1, 0);
    B->wait_for(B, 0);
    compare_exact("reduce_scatter, accumulating", shard, sum);
    B->reduce_scatter(B, shard->d, x->d, 512, 0, 0);
    B->wait_for(B, 0);
    compare_exact("reduce_scatter", shard, ref);
    B->all_gather(B, x->d, 512 * 4, 1);
    B->wait_for(B, 1);
    compare_exact("all_gather", x, ref);
    free(ref), free(sum);
    free_arrays();
}

#endif
