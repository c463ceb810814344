// test_ops.c: every operation of the Backend table against ops_reference.h (double precision), on odd shapes, in fp32
// and bf16. Written against the table alone:
//     test_ops [-device cpu|cuda] [-dtype fp32|bf16] [-only PART OF A NAME]
// On the CPU every instruction-set variant this processor has is tested, and one thread against two, bit for bit. On
// CUDA the program may be linked to simulated GPUs (dev/cudasim).
//
// Tolerances: the results are computed in fp32 from exactly known inputs and rounded once to the element type, so an
// error is at most a few fp32 roundings of `mag` (ops_reference.h) plus, in bf16, half a unit in the last place.
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/backend.h"
#include "llmc/base/dist.h"
#include "test/check.h"
#include "test/ops_arrays.h"
#include "test/ops_attention.h"
#include "test/ops_optimizer.h"
#include "test/ops_reference.h"

static const char *device = "cpu";

static int open_backend(Backend **b, DType dtype, int threads, Error *err) {
    if (!strcmp(device, "cpu")) return backend_cpu_create(b, dtype, threads, NULL, err);
    if (!strcmp(device, "cuda") && backend_cuda_create) {
        if (backend_cuda_create(b, dtype, NULL, err)) return -1;
        return (*b)->reserve(*b, 4300, 16, 8320, err); // the largest of these tests
    }
    return error_set(err, "device %s is not in this build", device);
}

// ---- memory, casts ----
static void test_memory(void) {
    check_begin("memory and casts");
    at("casts");
    enum { N = 1003 };
    const uint32_t special[] = {0x00000000, 0x80000000, 0x3f800000, 0x3f808000, 0x3f818000, 0x3f807fff,
                                0x3f808001, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001,
                                0xffffffff, 0x00000001, 0x007fffff, 0x00008000, 0x00018000, 0x33800000};
    Array *f = random_array('f', N, 3), *e = array('e', N), *back = array('f', N);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        float x;
        memcpy(&x, &special[i], 4);
        f->h[i] = x;
    }
    put(f);
    B->cast_from_f32(B, e->d, f->d, N);
    B->cast_to_f32(B, back->d, e->d, N);
    double *ref = doubles(N);
    for (int i = 0; i < N; i++) ref[i] = round_elem(f->h[i]);
    compare_exact("cast_from_f32", e, ref);
    compare_exact("cast_to_f32", back, ref);

    at("copy, zero");
    Array *to = array('f', N);
    B->copy(B, to->d, f->d, N * 4);
    compare_exact("copy", to, f->h);
    B->zero(B, to->d, (N - 1) * 4);
    memset(ref, 0, N * sizeof *ref);
    ref[N - 1] = f->h[N - 1];
    compare_exact("zero", to, ref);
    B->synchronize(B);

    at("page-locked memory");
    Error err = {""};
    void *locked = NULL;
    CHECK(!B->alloc_host(B, &locked, N * 4, "locked", &err), "%s", err.text);
    if (locked) {
        CHECK((uintptr_t)locked % 64 == 0, "not 64-byte aligned: %p", locked);
        for (int i = 0; i < N; i++) {
            ref[i] = i * 0.25;
            ((float *)locked)[i] = (float)ref[i];
        }
        B->upload_async(B, to->d, locked, N * 4);
        compare_exact("upload_async", to, ref);
        B->release_host(B, locked);
    }
    size_t available = 0, total = 0;
    B->memory(B, &available, &total);
    CHECK(available > 0 && available <= total, "%zu bytes of %zu are free", available, total);

    at("too much memory");
    void *memory = &err;
    CHECK(B->alloc(B, &memory, (size_t)1 << 60, "the moon", &err) == -1, "an allocation of 2^60 bytes succeeded");
    CHECK(strstr(err.text, "the moon") && strstr(err.text, "1152921504606846976"),
          "error does not say what and how many: %s", err.text);
    free(ref);
    free_arrays();
}

// ---- times ----
static void test_times(void) {
    check_begin("time stamps go forward, also where only the older ones are read");
    enum { N = 1 << 22 };
    double s[4];
    Array *f = array('f', N);
    B->stamp(B, 0);
    B->zero(B, f->d, (size_t)N * sizeof(float));
    B->stamp(B, 0);
    B->stamp(B, 1);
    B->zero(B, f->d, (size_t)N * sizeof(float));
    B->stamp(B, 0);
    B->synchronize(B);
    B->read_stamps(B, s, 1);
    B->read_stamps(B, s + 1, 3);
    CHECK(s[0] >= 0 && s[1] > s[0] && s[2] >= s[1] && s[3] > s[2] && s[3] - s[0] < 60, "%g %g %g %g", s[0], s[1], s[2],
          s[3]);
}

// ---- embedding, rows ----
static int compare_ids(const void *a, const void *b) {
    const int *x = a, *y = b; // pairs (id, row)
    return x[0] != y[0] ? (x[0] < y[0] ? -1 : 1) : x[1] < y[1] ? -1 : 1;
}

static void test_embedding(void) {
    check_begin("embedding");
    static const int shapes[][4] = {{1, 1, 1, 1},   {7, 5, 3, 40},      {300, 50, 8, 128},
                                    {65, 3, 2, 33}, {130, 2, 200, 192}, {500, 1, 1, 264}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s][0], V = shapes[s][1], S = shapes[s][2], D = shapes[s][3];
        at("embedding T %d V %d S %d D %d", T, V, S, D);
        int *ids = malloc((size_t)T * sizeof *ids), *pairs = malloc((size_t)T * 2 * sizeof *pairs);
        for (int t = 0; t < T; t++) {
            ids[t] = (int)floor((uniform() + 1) / 2 * (V + S)) - S;
            pairs[2 * t] = ids[t];
            pairs[2 * t + 1] = t;
        }
        qsort(pairs, (size_t)T, 2 * sizeof *pairs, compare_ids);
        int *order = malloc((size_t)T * sizeof *order), *runs = malloc(((size_t)T + 1) * sizeof *runs), n_runs = 0;
        for (int t = 0; t < T; t++) {
            order[t] = pairs[2 * t + 1];
            if (t == 0 || pairs[2 * t] != pairs[2 * t - 2]) runs[n_runs++] = t;
        }
        runs[n_runs] = T;

        Array *table = random_array('e', (size_t)V * D, 1), *slots = random_array('e', (size_t)S * D, 1);
        Array *i = int_array(ids, (size_t)T), *out = array('e', (size_t)T * D);
        double *ref = doubles((size_t)T * D);
        for (int t = 0; t < T; t++)
            for (int d = 0; d < D; d++)
                ref[t * D + d] = ids[t] >= 0 ? table->h[ids[t] * D + d] : slots->h[(-1 - ids[t]) * D + d];
        B->embedding_forward(B, out->d, table->d, slots->d, i->d, T, D);
        compare_exact("out", out, ref);

        Array *dout = random_array('e', (size_t)T * D, 1), *o = int_array(order, (size_t)T);
        Array *r = int_array(runs, (size_t)n_runs + 1);
        for (int frozen = 0; frozen < 3; frozen++) { // 1: no table, 2: no slots
            Array *dtable = random_array('f', (size_t)V * D, 1), *dslots = random_array('f', (size_t)S * D, 1);
            double *rt = copy_of(dtable), *rs = copy_of(dslots), *mt = doubles((size_t)V * D),
                   *ms = doubles((size_t)S * D);
            for (int k = 0; k < V * D; k++) mt[k] = fabs(rt[k]);
            for (int k = 0; k < S * D; k++) ms[k] = fabs(rs[k]);
            for (int t = 0; t < T; t++) {
                for (int d = 0; d < D; d++) {
                    const double g = dout->h[t * D + d];
                    const int at_slot = (-1 - ids[t]) * D + d, at_row = ids[t] * D + d;
                    if (ids[t] < 0 && frozen != 2) rs[at_slot] += g, ms[at_slot] += fabs(g);
                    if (ids[t] >= 0 && frozen != 1) rt[at_row] += g, mt[at_row] += fabs(g);
                }
            }
            B->embedding_backward(B, frozen == 1 ? NULL : dtable->d, frozen == 2 ? NULL : dslots->d, dout->d, i->d,
                                  o->d, r->d, n_runs, D);
            compare("dtable", dtable, rt, mt, T);
            compare("dslots", dslots, rs, ms, T);
            free(rt), free(rs), free(mt), free(ms);
        }
        free(ids), free(pairs), free(order), free(runs), free(ref);
        free_arrays();
    }
}

static void test_rows(void) {
    check_begin("gather and scatter rows");
    enum { T = 37, N = 11, W = 24, LD = 40, LF = 29 };
    static const int widths[] = {1, 16, 33, 200};
    const int rows[N] = {36, 0, 5, 7, 6, 20, 21, 35, 2, 30, 1};
    for (size_t s = 0; s < 4; s++) {
        const int D = widths[s];
        at("rows D %d", D);
        Array *in = random_array('e', (size_t)T * D, 1), *r = int_array(rows, N), *out = array('e', (size_t)N * D);
        double *ref = doubles((size_t)T * D);
        for (int i = 0; i < N * D; i++) ref[i] = in->h[rows[i / D] * D + i % D];
        B->gather_rows(B, out->d, in->d, r->d, N, D);
        compare_exact("gather_rows", out, ref);
        Array *sum = random_array('e', (size_t)T * D, 1);
        memcpy(ref, sum->h, (size_t)T * D * sizeof *ref);
        for (int i = 0; i < N * D; i++) {
            double *to = &ref[rows[i / D] * D + i % D];
            *to = round_elem((float)*to + (float)out->h[i]);
        }
        B->scatter_add_rows(B, sum->d, out->d, r->d, N, D);
        compare_exact("scatter_add_rows", sum, ref);
        free(ref);
        free_arrays();
    }
    at("scatter_rows");
    Array *to = random_array('e', T * LD, 1), *from = random_array('e', N * LF, 1), *r = int_array(rows, N);
    double *ref = copy_of(to);
    for (int i = 0; i < N; i++)
        for (int w = 0; w < W; w++) ref[rows[i] * LD + 3 + w] = from->h[i * LF + 2 + w];
    B->scatter_rows(B, elem_at(B, to->d, 3), LD, elem_at(B, from->d, 2), LF, r->d, N, W);
    compare_exact("scatter_rows", to, ref);
    free(ref);
    free_arrays();
}

// ---- RMSNorm ----
static void test_rmsnorm(void) {
    check_begin("rmsnorm");
    static const int shapes[][2] = {{1, 1},     {1, 128},   {3, 7},    {33, 192}, {150, 320}, {300, 65},
                                    {129, 896}, {70, 2048}, {3, 1030}, {9, 2049}, {17, 8320}, {4200, 8}};
    const float eps = 1e-6f;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s][0], D = shapes[s][1];
        const size_t n = (size_t)T * D;
        for (int mode = 0; mode < 4; mode++) { // 0: x alone; 1: x + delta; 2: sum is x; 3: only the sum is wanted
            at("rmsnorm T %d D %d mode %d", T, D, mode);
            Array *x = random_array('e', n, 2), *delta = random_array('e', n, 2),
                  *w = random_array('e', (size_t)D, 1.5);
            Array *out = array('e', n), *sum = array('e', n), *rstd = array('f', (size_t)T);
            double *rx = copy_of(x), *ro = doubles(n), *rr = doubles((size_t)T), *mag = doubles(n);
            if (mode)
                for (size_t i = 0; i < n; i++) rx[i] = round_elem((float)rx[i] + (float)delta->h[i]);
            ref_rmsnorm_forward(ro, mag, rr, rx, w->h, T, D, eps);
            Array *sum_at = mode == 2 ? x : sum;
            B->rmsnorm_forward(B, mode == 3 ? NULL : out->d, mode ? sum_at->d : NULL, rstd->d, x->d,
                               mode ? delta->d : NULL, w->d, T, D, eps);
            if (mode != 3) compare("out", out, ro, mag, D);
            if (mode) compare_exact("sum", sum_at, rx);
            compare("rstd", rstd, rr, NULL, D);
            free(rx), free(ro), free(rr), free(mag);
            free_arrays();
        }
        for (int mode = 0; mode < 3; mode++) { // 0: overwrite dw, 1: accumulate, 2: frozen
            at("rmsnorm backward T %d D %d mode %d", T, D, mode);
            Array *x = random_array('e', n, 2), *w = random_array('e', (size_t)D, 1.5), *dout = random_array('e', n, 1);
            Array *dx = random_array('e', n, 1), *dw = random_array('f', (size_t)D, 1), *rstd = array('f', (size_t)T);
            double *ro = doubles(n), *mdx = doubles(n), *mdw = doubles((size_t)D), *rdx = copy_of(dx),
                   *rdw = copy_of(dw);
            ref_rmsnorm_forward(ro, NULL, rstd->h, x->h, w->h, T, D, eps);
            for (int t = 0; t < T; t++) rstd->h[t] = (float)rstd->h[t];
            put(rstd);
            for (int d = 0; d < D; d++) {
                if (mode == 0) rdw[d] = 0;
                mdw[d] = fabs(rdw[d]);
            }
            ref_rmsnorm_backward(rdx, mdx, rdw, mdw, dout->h, x->h, w->h, rstd->h, T, D);
            if (mode == 2) memcpy(rdw, dw->h, (size_t)D * sizeof *rdw);
            B->rmsnorm_backward(B, dx->d, mode == 2 ? NULL : dw->d, dout->d, x->d, w->d, rstd->d, T, D, mode == 1);
            compare("dx", dx, rdx, mdx, D);
            compare("dw", dw, rdw, mdw, T);
            free(ro), free(mdx), free(mdw), free(rdx), free(rdw);
            free_arrays();
        }
    }
}

// ---- matmul ----
// odd: what a GPU's library may have no algorithm for, so that a failure there ends no other test: rows that do not
// begin on 16-byte borders.
static void test_matmul(int odd) {
    check_begin(odd ? "matmul on odd shapes" : "matmul");
    // the second half as in decoding: one row up to a tile of them; odd, short and cut K; ends of columns
    static const int shapes[][3] = {{1, 1, 1},       {1, 128, 256}, {2, 17, 33},    {3, 192, 70},   {4, 64, 5},
                                    {5, 31, 1},      {13, 48, 31},  {14, 64, 32},   {15, 65, 34},   {29, 5, 129},
                                    {100, 33, 63},   {43, 600, 96}, {57, 1100, 40}, {600, 40, 48},  {530, 30, 65},
                                    {31, 128, 1000}, {1, 896, 35},  {1, 1, 33},     {1, 31, 16},    {1, 33, 15},
                                    {1, 1030, 17},   {2, 130, 47},  {4, 515, 33},   {5, 896, 31},   {6, 47, 80},
                                    {8, 320, 448},   {9, 77, 18},   {12, 64, 30},   {14, 1029, 50}, {16, 200, 33}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s][0], K = shapes[s][1], N = shapes[s][2];
        const size_t nin = (size_t)T * K, nw = (size_t)N * K, nout = (size_t)T * N;
        if (odd != (array_shift || K % 8 || N % 8)) continue;
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            at("matmul T %d K %d N %d accumulate %d", T, K, N, accumulate);
            Array *in = random_array('e', nin, 1), *w = random_array('e', nw, 1),
                  *bias = random_array('e', (size_t)N, 1);
            Array *out = array('e', nout), *din = random_array('e', nin, 1), *dout = random_array('e', nout, 1);
            Array *dw = random_array('f', nw, 1), *dbias = random_array('f', (size_t)N, 1);
            double *ref = doubles(nout + nin + nw), *mag = doubles(nout + nin + nw);
            ref_matmul(ref, mag, in->h, K, 1, w->h, 1, K, accumulate ? bias->h : NULL, T, N, K, 0);
            B->matmul_forward(B, out->d, in->d, w->d, accumulate ? bias->d : NULL, T, K, N);
            compare("out", out, ref, mag, K);
            if (B->matmul_forward_add) { // dout serves as residual; in place where accumulate is set
                memcpy(ref, dout->h, nout * sizeof *ref);
                ref_matmul(ref, mag, in->h, K, 1, w->h, 1, K, NULL, T, N, K, 1);
                if (accumulate) B->copy(B, out->d, dout->d, nout * dtype_size(B->dtype));
                B->matmul_forward_add(B, out->d, accumulate ? out->d : dout->d, in->d, w->d, T, K, N);
                compare("out with residual", out, ref, mag, K + 1);
            }
            memcpy(ref, din->h, nin * sizeof *ref);
            ref_matmul(ref, mag, dout->h, N, 1, w->h, K, 1, NULL, T, K, N, accumulate);
            B->matmul_backward_input(B, din->d, dout->d, w->d, T, K, N, accumulate);
            compare("din", din, ref, mag, N);
            double one = 1;
            double *rb = copy_of(dbias), *mb = doubles((size_t)N);
            memcpy(ref, dw->h, nw * sizeof *ref);
            ref_matmul(ref, mag, dout->h, 1, N, in->h, K, 1, NULL, N, K, T, accumulate);
            ref_matmul(rb, mb, dout->h, 1, N, &one, 0, 0, NULL, N, 1, T, accumulate);
            if (T % 2) B->matmul_backward_weight(B, dw->d, dbias->d, dout->d, in->d, T, K, N, accumulate);
            else { // one without the other
                B->matmul_backward_weight(B, dw->d, NULL, dout->d, in->d, T, K, N, accumulate);
                B->matmul_backward_weight(B, NULL, dbias->d, dout->d, in->d, T, K, N, accumulate);
            }
            compare("dw", dw, ref, mag, T);
            compare("dbias", dbias, rb, mb, T);
            free(ref), free(mag), free(rb), free(mb);
            free_arrays();
        }
    }
}

static void test_matmul_even(void) { test_matmul(0); }
static void test_matmul_odd(void) { test_matmul(1); }

// ---- rotary ----
static void test_rope(void) {
    check_begin("rope");
    static const int shapes[][4] = {{1, 1, 2, 2},   {9, 2, 32, 64},    {33, 3, 64, 192},   {50, 2, 128, 300},
                                    {4, 1, 10, 12}, {150, 5, 64, 448}, {70, 18, 128, 2560}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s][0], heads = shapes[s][1], HS = shapes[s][2], ld = shapes[s][3];
        enum { MAX = 40 };
        // 0: forward; backward, where rows consist of heads: 1: dbias is overwritten, 2: added to, 3: frozen
        for (int mode = 0; mode < (ld % HS ? 1 : 4); mode++) {
            at("rope T %d heads %d HS %d mode %d", T, heads, HS, mode);
            Array *x = random_array('e', (size_t)T * ld, 1), *table = array('f', MAX * (size_t)HS);
            Array *dbias = random_array('f', (size_t)ld, 1);
            for (int p = 0; p < MAX; p++) {
                for (int i = 0; i < HS / 2; i++) {
                    const double angle = p * pow(1e6, -2.0 * i / HS);
                    table->h[p * HS + i] = (float)cos(angle);
                    table->h[p * HS + HS / 2 + i] = (float)sin(angle);
                }
            }
            put(table);
            int *positions = malloc((size_t)T * sizeof *positions);
            for (int t = 0; t < T; t++) positions[t] = (t * 7) % MAX;
            Array *p = int_array(positions, (size_t)T);
            double *ref = copy_of(x), *mag = doubles((size_t)T * ld), *rb = copy_of(dbias), *mb = doubles((size_t)ld);
            ref_rope(ref, mag, ld, table->h, positions, T, heads, HS, mode > 0);
            if (mode == 0) B->rope(B, x->d, ld, table->d, p->d, T, heads, HS);
            else B->rope_backward(B, x->d, mode == 3 ? NULL : dbias->d, table->d, p->d, T, ld, heads, HS, mode == 2);
            compare("x", x, ref, mag, 2);
            for (int c = 0; c < ld; c++) { // of what was stored
                if (mode == 1) rb[c] = 0;
                mb[c] = fabs(rb[c]);
                if (mode != 1 && mode != 2) continue;
                for (int t = 0; t < T; t++) rb[c] += x->h[t * ld + c], mb[c] += fabs(x->h[t * ld + c]);
            }
            compare("dbias", dbias, rb, mb, T);
            free(ref), free(mag), free(positions), free(rb), free(mb);
            free_arrays();
        }
    }
}

// ---- SwiGLU ----
static void test_swiglu(void) {
    check_begin("swiglu");
    static const int shapes[][2] = {{1, 1}, {3, 5}, {30, 33}, {100, 384}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s][0], F = shapes[s][1];
        const size_t n = (size_t)T * F;
        at("swiglu T %d F %d", T, F);
        Array *gate_up = random_array('e', 2 * n, 30), *out = array('e', n), *dout = random_array('e', n, 1);
        Array *d = array('e', 2 * n);
        double *ro = doubles(n), *mo = doubles(n), *rd = doubles(2 * n), *md = doubles(2 * n);
        ref_swiglu_forward(ro, gate_up->h, T, F);
        // exp(-g) is off by about |g| roundings: that much is in the number -g
        for (size_t i = 0; i < n; i++) mo[i] = fabs(ro[i]) * (1 + fabs(gate_up->h[i / F * 2 * F + i % F]));
        ref_swiglu_backward(rd, md, dout->h, gate_up->h, T, F);
        B->swiglu_forward(B, out->d, gate_up->d, T, F);
        compare("out", out, ro, mo, 1);
        B->swiglu_backward(B, d->d, dout->d, gate_up->d, T, F);
        compare("dgate_up", d, rd, md, 4);
        B->swiglu_backward(B, gate_up->d, dout->d, gate_up->d, T, F);
        compare("dgate_up in place", gate_up, rd, md, 4);
        free(ro), free(mo), free(rd), free(md);
        free_arrays();
    }
}

// ---- cross entropy, argmax ----
// Rows of V logits, ld apart; what lies between is larger than all of them, or NaN.
static void cross_entropy_case(int R, int V, int ld) {
    const size_t n = (size_t)R * ld, nv = (size_t)R * V, rows = (size_t)R;
    at("cross entropy R %d V %d ld %d", R, V, ld);
    Array *x = random_array('e', n, 20), *labels = array('i', rows), *weights = random_array('f', rows, 1);
    Array *loss = array('f', rows), *correct = array('i', rows), *best = array('i', rows);
    double *ref = doubles(nv), *mag = doubles(nv), *rl = doubles(rows), *ml = doubles(rows);
    double *rb = doubles(rows), *rc = doubles(rows), *gradient = doubles(n), *gradient_mag = doubles(n);
    int *correct_ref = malloc(rows * sizeof *correct_ref);
    for (int r = 0; r < R; r++) {
        int at_largest = 0;
        double *row = x->h + (size_t)r * ld;
        for (int i = 1; i < V && r % 4 == 3; i++) row[i - 1] = i < V / 2 ? (double)-INFINITY : row[i - 1];
        for (int i = 1; i < V; i++) {
            if (row[i] > row[at_largest]) at_largest = i;
        }
        if (r % 3 == 2 && at_largest + 1 < V) row[V - 1] = row[at_largest]; // ties: the lower index wins
        if (r % 3 == 1 && at_largest + 1 < V) row[at_largest + 1] = row[at_largest];
        for (int i = V; i < ld; i++) row[i] = r % 2 ? 100 : (double)NAN;
        rb[r] = at_largest;
        labels->h[r] = r % 2 ? at_largest : r % 3 == 2 ? V - 1 : floor((uniform() + 1) / 2 * V);
        memcpy(ref + (size_t)r * V, row, (size_t)V * sizeof *ref);
    }
    put(x), put(labels);
    const int *label_ints = ints_of(labels);
    ref_cross_entropy(rl, ml, correct_ref, ref, mag, label_ints, weights->h, R, V);
    for (int r = 0; r < R; r++) {
        rc[r] = correct_ref[r];
        memcpy(gradient + (size_t)r * ld, ref + (size_t)r * V, (size_t)V * sizeof *ref); // zero from V on
        memcpy(gradient_mag + (size_t)r * ld, mag + (size_t)r * V, (size_t)V * sizeof *mag);
    }
    B->argmax(B, best->d, x->d, R, V, ld);
    compare_exact("argmax", best, rb);
    double *before = copy_of(x);
    B->cross_entropy(B, loss->d, correct->d, x->d, labels->d, NULL, R, V, ld);
    compare("loss", loss, rl, ml, V);
    compare_exact("correct", correct, rc);
    compare_exact("logits without weights", x, before);
    B->cross_entropy(B, loss->d, correct->d, x->d, labels->d, weights->d, R, V, ld);
    compare("loss", loss, rl, ml, V);
    compare_exact("correct", correct, rc);
    compare("gradient", x, gradient, gradient_mag, V);
    for (int r = 0; r < R; r++)
        for (int i = V; i < ld; i++)
            CHECK(x->h[r * ld + i] == 0, "%s: column %d of row %d is %g, not 0", where, i, r, x->h[r * ld + i]);
    free(ref), free(mag), free(rl), free(ml), free(rb), free(rc), free(correct_ref), free(before);
    free(gradient), free(gradient_mag);
    free((void *)(uintptr_t)label_ints);
    free_arrays();
}

static void test_cross_entropy(void) {
    check_begin("cross entropy and argmax");
    static const int shapes[][3] = {{1, 1, 1},        {1, 2, 2},        {1, 2, 5},        {5, 33, 33},
                                    {6, 33, 40},      {9, 1000, 1000},  {9, 1000, 1024},  {7, 999, 1001},
                                    {20, 4102, 4102}, {20, 4102, 4224}, {3, 40000, 40064}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        cross_entropy_case(shapes[s][0], shapes[s][1], shapes[s][2]);
}

static void test_weighted_sum(void) {
    check_begin("weighted sum");
    static const int sizes[] = {0, 1, 31, 33, 1000, 5001};
    Array *sum = random_array('d', 1, 1);
    double ref = 0, mag = 0;
    for (size_t s = 0; s < 2 * sizeof sizes / sizeof *sizes; s++) {
        const int n = sizes[s / 2], accumulate = s % 2;
        at("weighted_sum n %d accumulate %d", n, accumulate);
        Array *loss = random_array('f', (size_t)n, 5), *weights = random_array('f', (size_t)n, 1);
        if (!accumulate) ref = mag = 0;
        for (int i = 0; i < n; i++) {
            ref += loss->h[i] * weights->h[i];
            mag += fabs(loss->h[i] * weights->h[i]);
        }
        B->weighted_sum(B, sum->d, loss->d, weights->d, n, accumulate);
        get(sum);
        CHECK(fabs(sum->h[0] - ref) <= 1e-14 * mag, "%s: expected %.17g, found %.17g", where, ref, sum->h[0]);
    }
    free_arrays();
}

// ---- NaN is not swallowed ----
static void expect_nan(const char *what, Array *a, size_t i) {
    get(a);
    CHECK(isnan(a->h[i]), "%s: %s[%zu]: a NaN got lost: %g", where, what, i, a->h[i]);
}

static void test_nan(void) {
    check_begin("NaN propagates");
    enum { T = 20, D = 64, V = 100, HS = 32 };
    at("NaN");
    const int row = 17, column = 5;
    Array *x = random_array('e', T * D, 1), *w = random_array('e', V * D, 1), *out = array('e', T * V),
          *n = array('e', T * D);
    Array *rstd = array('f', T), *half = array('e', T * D / 2), *dw = array('f', V * D), *f = array('f', T * D);
    x->h[row * D + column] = NAN;
    put(x);
    B->matmul_forward(B, out->d, x->d, w->d, NULL, T, D, V);
    expect_nan("matmul_forward", out, (size_t)row * V + 99);
    B->matmul_forward(B, out->d, elem_at(B, x->d, row * D), w->d, NULL, 1, D, V);
    expect_nan("matmul_forward, one row", out, 99);
    B->matmul_backward_weight(B, dw->d, NULL, out->d, x->d, T, D, V, 0);
    expect_nan("matmul_backward_weight", dw, (size_t)column);
    B->rmsnorm_forward(B, n->d, NULL, rstd->d, x->d, NULL, w->d, T, D, 1e-6f);
    expect_nan("rmsnorm", n, (size_t)row * D);
    B->swiglu_forward(B, half->d, x->d, T, D / 2);
    expect_nan("swiglu", half, (size_t)row * D / 2 + column);
    B->cast_to_f32(B, f->d, x->d, T * D);
    expect_nan("cast", f, (size_t)row * D + column);

    const int zero = 0, end = T;
    int labels[T] = {0}, cu[2] = {0, T};
    Array *acu = int_array(cu, 2), *ab = int_array(&zero, 1), *ae = int_array(&end, 1), *lab = int_array(labels, T);
    const AttentionPages pages = {1, T, T, acu->d, ab->d, ae->d};
    Array *o = array('e', T * D), *lse = array('f', T * 2), *good = random_array('e', T * D, 1);
    B->attention_forward(B, o->d, lse->d, x->d, D, good->d, good->d, D, &pages, 2, 2, HS);
    expect_nan("attention, query", o, (size_t)row * D);
    B->attention_forward(B, o->d, lse->d, good->d, D, x->d, good->d, D, &pages, 2, 2, HS);
    expect_nan("attention, key", o, (size_t)(T - 1) * D);
    B->attention_forward(B, o->d, lse->d, good->d, D, good->d, x->d, D, &pages, 2, 2, HS);
    expect_nan("attention, value", o, (size_t)(T - 1) * D + column);
    Array *loss = array('f', T), *correct = array('i', T);
    B->cross_entropy(B, loss->d, correct->d, x->d, lab->d, NULL, T, D, D);
    expect_nan("cross_entropy", loss, (size_t)row);
    free_arrays();
}

// ---- the same bits: twice, and with another number of threads ----
typedef struct Bits {
    unsigned char *data;
    size_t n;
} Bits;

static void keep(Bits *bits, Array *a) {
    const size_t bytes = a->n * kind_size(a->kind);
    bits->data = realloc(bits->data, bits->n + bytes);
    B->download(B, bits->data + bits->n, a->d, bytes);
    bits->n += bytes;
}

// Operations with sums, at sizes that two threads divide.
static Bits everything(void) {
    enum { T = 700, HS = 128, NH = 4, D = NH * HS, N = 200, V = 3000, PAGES = 5 };
    Bits bits = {NULL, 0};
    random_state = 4711;
    Array *x = random_array('e', T * D, 1), *w = random_array('e', N * D, 1), *bias = random_array('e', N, 1);
    Array *out = array('e', T * N), *dw = array('f', N * D), *dbias = array('f', N), *dx = random_array('e', T * D, 1);
    B->matmul_forward(B, out->d, x->d, w->d, bias->d, T, D, N);
    keep(&bits, out);
    B->matmul_backward_input(B, dx->d, out->d, w->d, T, D, N, 1);
    keep(&bits, dx);
    B->matmul_backward_weight(B, dw->d, dbias->d, out->d, x->d, T, D, N, 0);
    keep(&bits, dw), keep(&bits, dbias);
    Array *rstd = array('f', T), *norm = array('e', T * D), *dnorm = array('f', D);
    B->rmsnorm_forward(B, norm->d, NULL, rstd->d, x->d, NULL, w->d, T, D, 1e-6f);
    B->rmsnorm_backward(B, dx->d, dnorm->d, norm->d, x->d, w->d, rstd->d, T, D, 0);
    keep(&bits, norm), keep(&bits, dx), keep(&bits, dnorm);
    const int cu[PAGES + 1] = {0, 1, 300, 310, 400, T};
    Array *acu = int_array(cu, PAGES + 1), *ae = int_array(cu + 1, PAGES);
    const AttentionPages pages = {PAGES, 300, 300, acu->d, acu->d, ae->d};
    Array *o = array('e', T * D), *lse = array('f', T * NH), *dq = array('e', T * D), *dk = array('e', T * HS);
    Array *dv = array('e', T * HS), *k = random_array('e', T * HS, 1), *v = random_array('e', T * HS, 1);
    B->attention_forward(B, o->d, lse->d, x->d, D, k->d, v->d, HS, &pages, NH, 1, HS);
    B->attention_backward(B, dq->d, D, dk->d, dv->d, HS, x->d, o->d, lse->d, x->d, k->d, v->d, &pages, NH, 1, HS);
    keep(&bits, o), keep(&bits, lse), keep(&bits, dq), keep(&bits, dk), keep(&bits, dv);
    // decoding: few rows against many columns, few queries against many keys
    enum { WIDE = 60000 };
    Array *wide = random_array('e', WIDE * HS, 1), *few = array('e', 3 * WIDE);
    B->matmul_forward(B, few->d, x->d, wide->d, NULL, 3, HS, WIDE);
    keep(&bits, few);
    const int q_cu[3] = {0, 1, 4}, k_begin[2] = {0, 300}, k_end[2] = {290, 5000};
    Array *acu2 = int_array(q_cu, 3), *ab2 = int_array(k_begin, 2), *ae2 = int_array(k_end, 2);
    const AttentionPages decoding = {2, 3, 4700, acu2->d, ab2->d, ae2->d};
    B->attention_forward(B, o->d, lse->d, x->d, D, wide->d, elem_at(B, wide->d, 6000 * HS), HS, &decoding, NH, 1, HS);
    keep(&bits, o), keep(&bits, lse);
    Array *squares = array('d', 1), *big = random_array('f', 256 * 2000, 1);
    B->sum_squares(B, squares->d, big->d, 256 * 2000);
    keep(&bits, squares);
    Array *logits = random_array('e', 50 * V, 5), *loss = array('f', 50), *correct = array('i', 50),
          *weights = random_array('f', 50, 1);
    Array *labels = array('i', 50);
    for (int i = 0; i < 50; i++) labels->h[i] = i * 7;
    put(labels);
    B->cross_entropy(B, loss->d, correct->d, logits->d, labels->d, weights->d, 50, V, V);
    keep(&bits, loss), keep(&bits, logits);
    B->weighted_sum(B, squares->d, loss->d, weights->d, 50, 0);
    keep(&bits, squares);
    free_arrays();
    return bits;
}

static void test_same_bits(DType dtype) {
    check_begin("same bits: twice, and with other thread counts");
    at("same bits");
    Bits first = everything(), again = everything();
    CHECK(first.n == again.n && !memcmp(first.data, again.data, first.n), "two runs differ");
    if (!strcmp(device, "cpu")) {
        Backend *one = B;
        for (int threads = 2; threads <= 3; threads++) {
            Error err;
            if (open_backend(&B, dtype, threads, &err)) {
                CHECK(0, "%s", err.text);
                break;
            }
            Bits other = everything();
            CHECK(first.n == other.n && !memcmp(first.data, other.data, first.n), "%d threads differ from 1", threads);
            free(other.data);
            B->destroy(B);
        }
        B = one;
    }
    free(first.data);
    free(again.data);
}

// ---- all of them ----
static const struct {
    const char *name;
    void (*run)(void);
    int aligned; // only on arrays that begin on 64-byte borders, as allocated memory does
} tests[] = {
    {"memory", test_memory, 0},
    {"times", test_times, 0},
    {"embedding", test_embedding, 0},
    {"rows", test_rows, 0},
    {"rmsnorm", test_rmsnorm, 0},
    {"matmul_even", test_matmul_even, 1},
    {"matmul_odd", test_matmul_odd, 0},
    {"rope", test_rope, 0},
    {"attention", test_attention, 1},
    {"swiglu", test_swiglu, 0},
    {"cross_entropy", test_cross_entropy, 0},
    {"weighted_sum", test_weighted_sum, 0},
    {"adamw", test_adamw, 0},
    {"norm", test_norm, 0},
    {"collectives", test_collectives, 1},
    {"nan", test_nan, 1},
};

static void test_all(DType dtype, const char *only) {
    for (array_shift = 0; array_shift < 2; array_shift++) {
        check_end_case();
        printf("-- %s, %s%s\n", B->name, dtype == DTYPE_F32 ? "fp32" : "bf16",
               array_shift ? ", arrays that begin one element later" : "");
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            if ((!only || strstr(tests[i].name, only)) && !(array_shift && tests[i].aligned)) tests[i].run();
        }
    }
    array_shift = 0;
    if (!only || strstr("bits", only)) test_same_bits(dtype);
    check_end_case();
}

int main(int argc, char **argv) {
    backend_cpu_prepare(argv); // the tests with two threads would crawl on a busy machine
    const char *only = NULL;
    if (argc == 2 && !strcmp(argv[1], "-list")) { // what -only takes, a line each
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) printf("%s\n", tests[i].name);
        return 0;
    }
    DType first = DTYPE_F32, last = DTYPE_BF16;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "-device")) device = argv[i + 1];
        if (!strcmp(argv[i], "-dtype")) first = last = strcmp(argv[i + 1], "fp32") ? DTYPE_BF16 : DTYPE_F32;
        if (!strcmp(argv[i], "-only")) only = argv[i + 1];
    }
    check_end_case();
    const char *isas[] = {"base", "avx512", "avx512_bf16", NULL};
    const int cpu = !strcmp(device, "cpu");
    Error err;
    for (int i = 0; cpu ? isas[i] != NULL : i < 1; i++) {
        if (cpu) setenv("C3_CPU_ISA", isas[i], 1);
        for (DType dtype = first; dtype <= last; dtype++) {
            if (i == 2 && dtype == DTYPE_F32) continue; // fp32 has no kernels of its own there
            if (open_backend(&B, dtype, 1, &err)) {
                const int missing = cpu && i > 0 && strstr(err.text, "not an instruction set") != NULL;
                printf("-- %s\n", err.text);
                check_begin(isas[i]);
                CHECK(missing, "no backend: %s", err.text);
                check_end_case();
                continue;
            }
            test_all(dtype, only);
            B->destroy(B);
        }
    }
    if (cpu && !only) {
        check_begin("an instruction set nobody has is refused");
        setenv("C3_CPU_ISA", "avx9000", 1);
        CHECK(open_backend(&B, DTYPE_F32, 1, &err) == -1 && strstr(err.text, "avx9000"), "it was taken");
        check_begin("an element type that is none is refused");
        unsetenv("C3_CPU_ISA");
        CHECK(open_backend(&B, DTYPE_F16, 1, &err) == -1, "fp16 was taken");
    }
    return check_done();
}
