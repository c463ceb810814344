// bench_check.c: see bench_check.h.
#include "dev/cuda/bench_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/ops_reference.h"

enum { PIECE = 1000003, SAMPLES = 64, ROWS = 16 }; // PIECE: prime, so that no row repeats another

static int passed, failed;

// ---- arrays whose elements both sides know: element i is host[(i + offset) % PIECE], rounded to the array's type ----
typedef struct Known {
    void *device;
    int offset, elem; // elem: of the run's type, else float
} Known;

static float host[2 * PIECE];
static int next_offset;

void bench_must(int bad, const Error *err) {
    if (!bad) return;
    fprintf(stderr, "bench: %s\n", err->text);
    exit(1);
}

void *bench_memory(Backend *b, size_t bytes) {
    void *p;
    Error err;
    bench_must(b->alloc(b, &p, bytes, "bench", &err), &err);
    b->zero(b, p, bytes);
    return p;
}

static Known known(Backend *b, size_t n, int elem) {
    static float *pieces;
    if (!pieces) {
        uint32_t x = 1;
        for (int i = 0; i < PIECE; i++)
            host[i] = host[i + PIECE] = (float)((x = x * 1664525u + 1013904223u) >> 16) / 65536.0f - 0.5f;
        pieces = bench_memory(b, sizeof host);
        b->upload(b, pieces, host, sizeof host);
    }
    Known a = {bench_memory(b, n * (elem ? dtype_size(b->dtype) : 4)), next_offset, elem};
    next_offset = (next_offset + 77777) % PIECE;
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t part = n - at < PIECE ? n - at : PIECE;
        if (elem) b->cast_from_f32(b, elem_at(b, a.device, at), pieces + a.offset, part);
        else b->copy(b, (float *)a.device + at, pieces + a.offset, part * 4);
    }
    return a;
}

void *bench_numbers(Backend *b, size_t n) { return known(b, n, 1).device; }

static double value(const Backend *b, const Known *a, size_t i) {
    const float x = host[(i + (size_t)a->offset) % PIECE];
    return a->elem && b->dtype == DTYPE_BF16 ? ref_round_bf16(x) : x;
}

static double *values(const Backend *b, const Known *a, size_t from, size_t n) {
    double *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = value(b, a, from + i);
    return x;
}

// n elements on the host, from element `from` on.
static double *fetch(Backend *b, const void *device, size_t from, size_t n, int elem) {
    float *piece = malloc((n + 1) * sizeof *piece);
    double *x = malloc((n + 1) * sizeof *x);
    if (!elem || b->dtype == DTYPE_F32) {
        b->download(b, piece, (const float *)device + from, n * 4);
    } else {
        uint16_t *bits = (uint16_t *)piece + n; // the upper half, read from its end
        b->download(b, bits, elem_at(b, device, from), n * 2);
        for (size_t i = 0; i < n; i++) {
            const uint32_t wide = (uint32_t)bits[i] << 16;
            memcpy(&piece[i], &wide, 4);
        }
    }
    for (size_t i = 0; i < n; i++) x[i] = piece[i];
    free(piece);
    return x;
}

// ---- comparing: tolerances of test/ops_reference.h ----
typedef struct Verdict {
    double worst, expected, found;
    size_t at;
} Verdict;

static void compare(Verdict *v, const Backend *b, int elem, size_t at, double found, double expected, double size,
                    double half, double terms) {
    const double error = fabs(found - expected) / ref_tolerance(b->dtype, elem, expected, size, half, terms);
    if (!(error <= v->worst)) *v = (Verdict){error, expected, found, at};
}

static void verdict(const Verdict *v, const char *name, const char *what) {
    if (v->worst <= 1) {
        passed++;
        printf("ok   %s %s\n", name, what);
    } else {
        failed++;
        printf("FAIL %s %s: element %zu: expected %.9g, found %.9g, %.2f times the tolerance\n", name, what, v->at,
               v->expected, v->found, v->worst);
    }
    fflush(stdout);
}

int check_total(void) {
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}

// A place among n, the same in every run; the first two samples are the ends.
static size_t sample(int i, size_t n) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return i == 0 ? 0 : i == 1 ? n - 1 : (size_t)(state >> 11) % n;
}

// ---- products ----
typedef struct Factor { // an operand: element (row, i) is array[row * ld + i * step]
    const Known *array;
    size_t ld, step;
} Factor;

static void check_product(Backend *b, const char *name, const char *what, const void *out, int elem, size_t rows,
                          size_t cols, Factor left, Factor right, size_t terms, const Known *bias) {
    Verdict v = {0};
    for (int s = 0; s < SAMPLES; s++) {
        const size_t r = sample(s, rows), c = sample(s, cols);
        double sum = bias ? value(b, bias, c) : 0, size = fabs(sum);
        for (size_t i = 0; i < terms; i++) {
            const double x = value(b, left.array, r * left.ld + i * left.step) *
                             (right.array ? value(b, right.array, c * right.ld + i * right.step) : 1);
            sum += x;
            size += fabs(x);
        }
        double *got = fetch(b, out, r * cols + c, 1, elem);
        compare(&v, b, elem, r * cols + c, *got, sum, size, 0, (double)terms);
        free(got);
    }
    verdict(&v, name, what);
}

void check_products(Backend *b, const char *name, int T, int K, int N, int with_bias) {
    const size_t t = (size_t)T, k = (size_t)K, n = (size_t)N, e = dtype_size(b->dtype);
    char what[64];
    Known in = known(b, t * k, 1), w = known(b, n * k, 1), dout = known(b, t * n, 1), bias = known(b, n, 1);
    void *out = bench_memory(b, t * (n > k ? n : k) * e);
    float *dw = bench_memory(b, n * k * 4), *dbias = bench_memory(b, n * 4);
    b->matmul_forward(b, out, in.device, w.device, with_bias ? bias.device : NULL, T, K, N);
    snprintf(what, sizeof what, "%d -> %d forward, %d rows", K, N, T);
    check_product(b, name, what, out, 1, t, n, (Factor){&in, k, 1}, (Factor){&w, k, 1}, k, with_bias ? &bias : NULL);
    b->matmul_backward_input(b, out, dout.device, w.device, T, K, N, 0);
    snprintf(what, sizeof what, "%d -> %d d input", K, N);
    check_product(b, name, what, out, 1, t, k, (Factor){&dout, n, 1}, (Factor){&w, 1, k}, n, NULL);
    b->matmul_backward_weight(b, dw, with_bias ? dbias : NULL, dout.device, in.device, T, K, N, 0);
    snprintf(what, sizeof what, "%d -> %d d weight", K, N);
    check_product(b, name, what, dw, 0, n, k, (Factor){&dout, 1, n}, (Factor){&in, 1, k}, t, NULL);
    if (with_bias) {
        snprintf(what, sizeof what, "%d -> %d d bias", K, N);
        check_product(b, name, what, dbias, 0, n, 1, (Factor){&dout, 1, n}, (Factor){0}, t, NULL);
    }
    void *all[] = {in.device, w.device, dout.device, bias.device, out, dw, dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->release(b, all[i]);
}

// ---- attention ----
// One page and one group of query heads (those that share a key head) of arrays on the host, in double.
typedef struct Group {
    const double *qkv, *dout, *out, *lse; // the page's rows: (length, ld), (length, NH*HS) twice, (length, NH)
    int length, ld, NH, KV, HS, group;
} Group;

static double *heads_of(const double *x, int length, int ld, int from, int n) {
    double *y = malloc((size_t)length * n * sizeof *y);
    for (int t = 0; t < length; t++) memcpy(y + (size_t)t * n, x + (size_t)t * ld + from, (size_t)n * sizeof *y);
    return y;
}

static void compare_heads(Verdict *v, const Backend *b, const double *got, int ld, int from, int n, int length,
                          const double *ref, const double *size, const double *half, double terms) {
    for (int t = 0; t < length; t++) {
        for (int i = 0; i < n; i++) {
            const size_t r = (size_t)t * n + i, g = (size_t)t * ld + from + i;
            compare(v, b, 1, g, got[g], ref[r], size[r], half[r], terms);
        }
    }
}

// forward: out; else d: the gradients in the layout of qkv.
static void attention_group(Verdict v[2], const Backend *b, const Group *g, const double *d) {
    const int per = g->NH / g->KV, n = per * g->HS, first = g->group * n, heads = g->NH * g->HS, T = g->length;
    const int key = heads + g->group * g->HS, val = key + g->KV * g->HS, begin = 0;
    const int cu[] = {0, T};
    const RefPages page = {1, cu, &begin, &T};
    double *q = heads_of(g->qkv, T, g->ld, first, n), *k = heads_of(g->qkv, T, g->ld, key, g->HS);
    double *w = heads_of(g->qkv, T, g->ld, val, g->HS), *r[9];
    for (int i = 0; i < 9; i++) r[i] = calloc((size_t)T * n, sizeof **r);
    const double terms = g->HS + T;
    if (!d) {
        ref_attention_forward(r[0], r[1], r[2], r[3], r[4], q, n, k, w, g->HS, &page, per, 1, g->HS);
        compare_heads(&v[0], b, g->out, heads, first, n, T, r[0], r[1], r[2], terms);
    } else {
        double *dout = heads_of(g->dout, T, heads, first, n), *out = heads_of(g->out, T, heads, first, n);
        double *lse = heads_of(g->lse, T, g->NH, g->group * per, per);
        ref_attention_backward(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], dout, out, lse, q, n, k, w, g->HS,
                               &page, per, 1, g->HS);
        const double back = terms + (double)T * per;
        compare_heads(&v[0], b, d, g->ld, first, n, T, r[0], r[1], r[2], back);
        compare_heads(&v[1], b, d, g->ld, key, g->HS, T, r[3], r[4], r[5], back);
        compare_heads(&v[1], b, d, g->ld, val, g->HS, T, r[6], r[7], r[8], back);
        free(dout), free(out), free(lse);
    }
    for (int i = 0; i < 9; i++) free(r[i]);
    free(q), free(k), free(w);
}

void check_attention(Backend *b, const char *name, const Qwen2Config *c, int pages, int length) {
    const int heads = c->NH * c->HS, kv = c->KV * c->HS, ld = heads + 2 * kv, T = pages * length;
    const size_t n = (size_t)T * ld, no = (size_t)T * heads, e = dtype_size(b->dtype);
    char what[64];
    int *cu = calloc((size_t)pages + 1, sizeof *cu);
    for (int p = 0; p <= pages; p++) cu[p] = p * length;
    int *borders = bench_memory(b, ((size_t)pages + 1) * sizeof *cu);
    b->upload(b, borders, cu, ((size_t)pages + 1) * sizeof *cu);
    Known qkv = known(b, n, 1), dout = known(b, no, 1);
    elem_t *out = bench_memory(b, no * e), *d = bench_memory(b, n * e);
    float *lse = bench_memory(b, (size_t)T * c->NH * 4);
    AttentionPages a = {pages, length, length, borders, borders, borders + 1};
    const elem_t *k = elem_at(b, qkv.device, (size_t)heads), *v = elem_at(b, qkv.device, (size_t)(heads + kv));
    b->attention_forward(b, out, lse, qkv.device, ld, k, v, ld, &a, c->NH, c->KV, c->HS);
    b->attention_backward(b, d, ld, elem_at(b, d, (size_t)heads), elem_at(b, d, (size_t)(heads + kv)), ld, dout.device,
                          out, lse, qkv.device, k, v, &a, c->NH, c->KV, c->HS);
    double *x = values(b, &qkv, 0, n), *g = values(b, &dout, 0, no), *o = fetch(b, out, 0, no, 1);
    double *l = fetch(b, lse, 0, (size_t)T * c->NH, 0), *back = fetch(b, d, 0, n, 1);
    Verdict forward = {0}, queries = {0}, keys = {0};
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < 2 * pages * c->KV; i++) {
        const size_t row = (size_t)(i / 2 / c->KV) * length;
        Group group = {x + row * ld, g + row * heads, o + row * heads, l + row * c->NH, length,
                       ld,           c->NH,           c->KV,           c->HS,           i / 2 % c->KV};
        Verdict found[2] = {{0}};
        attention_group(found, b, &group, i % 2 ? back + row * ld : NULL);
        Verdict *all[] = {i % 2 ? &queries : &forward, &keys};
#pragma omp critical
        for (int j = 0; j < 2; j++) {
            if (!(found[j].worst <= all[j]->worst)) *all[j] = found[j];
        }
    }
    snprintf(what, sizeof what, "attention %d x %d", pages, length);
    verdict(&forward, name, what);
    verdict(&queries, name, "attention backward, d queries");
    verdict(&keys, name, "attention backward, d keys and values");
    free(cu), free(x), free(g), free(o), free(l), free(back);
    void *all[] = {borders, qkv.device, dout.device, out, d, lse};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->release(b, all[i]);
}

// ---- rows ----
static void compare_row(Verdict *v, Backend *b, const void *device, int elem, size_t from, int n, const double *ref,
                        const double *size, double terms) {
    double *got = fetch(b, device, from, (size_t)n, elem);
    for (int i = 0; i < n; i++) compare(v, b, elem, from + i, got[i], ref[i], size ? size[i] : fabs(ref[i]), 0, terms);
    free(got);
}

static void check_rmsnorm(Backend *b, const char *name, int T, int D) {
    const size_t n = (size_t)T * D;
    Known x = known(b, n, 1), w = known(b, (size_t)D, 1), dout = known(b, n, 1), dx = known(b, n, 1);
    elem_t *out = bench_memory(b, n * dtype_size(b->dtype));
    float *rstd = bench_memory(b, (size_t)T * 4), *dw = bench_memory(b, (size_t)D * 4);
    b->rmsnorm_forward(b, out, NULL, rstd, x.device, NULL, w.device, T, D, 1e-6f);
    b->rmsnorm_backward(b, dx.device, dw, dout.device, x.device, w.device, rstd, T, D, 0);
    double *rw = values(b, &w, 0, (size_t)D), *r = calloc(4 * (size_t)D, sizeof *r),
           *all = calloc(2 * (size_t)D, sizeof *all);
    double *scale = fetch(b, rstd, 0, (size_t)T, 0);
    Verdict forward = {0}, statistic = {0}, backward = {0}, weight = {0};
    for (int t = 0; t < T; t++) { // dw sums over all rows, the rest is looked at in some
        double one, *rx = values(b, &x, (size_t)t * D, (size_t)D), *rd = values(b, &dout, (size_t)t * D, (size_t)D);
        double *rdx = values(b, &dx, (size_t)t * D, (size_t)D);
        ref_rmsnorm_forward(r, r + D, &one, rx, rw, 1, D, 1e-6f);
        compare(&statistic, b, 0, (size_t)t, scale[t], one, one, 0, D);
        ref_rmsnorm_backward(rdx, r + 2 * D, all, all + D, rd, rx, rw, &one, 1, D);
        if (t % (T / ROWS + 1) == 0 || t == T - 1) {
            compare_row(&forward, b, out, 1, (size_t)t * D, D, r, r + D, D);
            compare_row(&backward, b, dx.device, 1, (size_t)t * D, D, rdx, r + 2 * D, D);
        }
        free(rx), free(rd), free(rdx);
    }
    compare_row(&weight, b, dw, 0, 0, D, all, all + D, (double)T + D);
    verdict(&forward, name, "RMSNorm forward");
    verdict(&statistic, name, "RMSNorm rstd");
    verdict(&backward, name, "RMSNorm d input");
    verdict(&weight, name, "RMSNorm d weight");
    free(rw), free(r), free(all), free(scale);
    void *memory[] = {x.device, w.device, dout.device, dx.device, out, rstd, dw};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) b->release(b, memory[i]);
}

static void check_swiglu(Backend *b, const char *name, int T, int F) {
    Known in = known(b, (size_t)T * 2 * F, 1), dout = known(b, (size_t)T * F, 1);
    elem_t *out = bench_memory(b, (size_t)T * F * dtype_size(b->dtype));
    b->swiglu_forward(b, out, in.device, T, F);
    b->swiglu_backward(b, in.device, dout.device, in.device, T, F); // in place, as the model does
    double *r = calloc(4 * (size_t)F, sizeof *r);
    Verdict forward = {0}, backward = {0};
    for (int s = 0; s < ROWS; s++) {
        const size_t t = sample(s, (size_t)T);
        double *x = values(b, &in, t * 2 * F, 2 * (size_t)F), *d = values(b, &dout, t * F, (size_t)F);
        ref_swiglu_forward(r, x, 1, F);
        compare_row(&forward, b, out, 1, t * F, F, r, NULL, 4);
        ref_swiglu_backward(r, r + 2 * F, d, x, 1, F);
        compare_row(&backward, b, in.device, 1, t * 2 * F, 2 * F, r, r + 2 * F, 8);
        free(x), free(d);
    }
    verdict(&forward, name, "SwiGLU forward");
    verdict(&backward, name, "SwiGLU backward");
    free(r);
    b->release(b, in.device), b->release(b, dout.device), b->release(b, out);
}

void check_elementwise(Backend *b, const char *name, const Qwen2Config *c, int T) {
    check_rmsnorm(b, name, T, c->D);
    check_swiglu(b, name, T, c->F);
}

// ---- loss, optimizer ----
static void check_cross_entropy(Backend *b, int R, int V, int ld) {
    Known logits = known(b, (size_t)R * ld, 1), weights = known(b, (size_t)R, 0);
    int *labels = malloc((size_t)R * sizeof *labels), *device_labels = bench_memory(b, (size_t)R * sizeof *labels);
    for (int i = 0; i < R; i++) labels[i] = (int)sample(i, (size_t)V);
    b->upload(b, device_labels, labels, (size_t)R * sizeof *labels);
    float *loss = bench_memory(b, (size_t)R * 4);
    int *correct = bench_memory(b, (size_t)R * sizeof *correct);
    b->cross_entropy(b, loss, correct, logits.device, device_labels, weights.device, R, V, ld);
    double *size = calloc((size_t)V, sizeof *size);
    Verdict losses = {0}, gradient = {0};
    for (int s = 0; s < ROWS; s++) {
        const size_t r = sample(s, (size_t)R);
        double l, l_size, weight = value(b, &weights, r), *x = values(b, &logits, r * ld, (size_t)V);
        int right;
        ref_cross_entropy(&l, &l_size, &right, x, size, &labels[r], &weight, 1, V);
        compare_row(&losses, b, loss, 0, r, 1, &l, &l_size, V);
        compare_row(&gradient, b, logits.device, 1, r * ld, V, x, size, V);
        free(x);
    }
    verdict(&losses, "head", "cross entropy");
    verdict(&gradient, "head", "gradient of the logits");
    free(labels), free(size);
    void *all[] = {logits.device, weights.device, device_labels, loss, correct};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->release(b, all[i]);
}

static void check_adamw(Backend *b) {
    const size_t n = (size_t)1 << 22;
    Known param = known(b, n, 1), grad = known(b, n, 0), master = known(b, n, 0), m = known(b, n, 0),
          v = known(b, n, 0);
    float one = 0.75f, *scale = bench_memory(b, 4);
    double *sum = bench_memory(b, 8), squares = 0, found;
    b->upload(b, scale, &one, 4);
    b->sum_squares(b, sum, grad.device, n);
    b->download(b, &found, sum, 8);
    for (size_t i = 0; i < n; i++) squares += value(b, &grad, i) * value(b, &grad, i);
    b->zero(b, v.device, n * 4); // a second moment is not negative
    AdamWParams p = {.lr = 1e-3f,
                     .beta1 = 0.9f,
                     .beta2 = 0.999f,
                     .eps = 1e-8f,
                     .weight_decay = 0.1f,
                     .bias1 = 0.1f,
                     .bias2 = 0.001f};
    b->adamw(b, param.device, master.device, m.device, v.device, grad.device, scale, n, &p);
    Verdict norm = {0}, updated = {0};
    compare(&norm, b, 0, 0, found, squares, squares, 0, 256);
    for (int s = 0; s < SAMPLES; s++) {
        const size_t i = sample(s, n);
        double x = value(b, &master, i), old = x, mean = value(b, &m, i), second = 0, g = value(b, &grad, i);
        ref_adamw(&x, &mean, &second, &g, one, 1, &p);
        double size = fabs(old) + 8 * fabs(x - old);
        compare_row(&updated, b, master.device, 0, i, 1, &x, &size, 16);
        compare_row(&updated, b, param.device, 1, i, 1, &x, &size, 16);
    }
    verdict(&norm, "optimizer", "squared norm");
    verdict(&updated, "optimizer", "AdamW");
    void *all[] = {param.device, grad.device, master.device, m.device, v.device, scale, sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->release(b, all[i]);
}

void check_loss_and_optimizer(Backend *b, int R, int V, int ld) {
    check_cross_entropy(b, R, V, ld);
    check_adamw(b);
}
