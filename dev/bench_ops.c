// bench_ops.c: how fast the backend's operations are, beside this machine's peak.
//     make bench && build/dev/bench_ops [-dtype fp32|bf16] [-threads 1] [-only matmul|decode|attention|rows|stream]
// Matrix products in GFLOP/s and per cent of the measured peak (registers alone, same threads), attention in GFLOP/s of
// the causal half, decoding's products in GB/s of the weights, the other operations in GB/s of the bytes they must read
// and write. Each figure is the best of several runs: other work on the machine only ever slows it.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llmc/base/alloc.h"
#include "llmc/backend.h"

enum { RUNS = 15 };
static const double LONG_ENOUGH = 0.05; // seconds of runs of one operation
static Backend *B;
static double peak;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Runs the statement at least RUNS times and leaves the shortest time in `best`.
#define MEASURE(best, ...)                                                                                             \
    do {                                                                                                               \
        best = 1e30;                                                                                                   \
        const double began = now();                                                                                    \
        for (int run = 0; run < RUNS || now() - began < LONG_ENOUGH; run++) {                                          \
            const double start = now();                                                                                \
            __VA_ARGS__;                                                                                               \
            const double took = now() - start;                                                                         \
            if (took < best) best = took;                                                                              \
        }                                                                                                              \
    } while (0)

static void *memory(size_t bytes) {
    Error err;
    void *p;
    if (B->alloc(B, &p, bytes, "bench", &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    B->zero(B, p, bytes);
    return p;
}

static void *random_memory(size_t n, int is_float) { // n values in [-1, 1)
    float *x = malloc(n * sizeof *x);
    uint32_t s = 12345;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)s / 2147483648.0f;
    }
    void *p = memory(n * 4);
    if (is_float) B->upload(B, p, x, n * 4);
    else {
        void *f = memory(n * 4);
        B->upload(B, f, x, n * 4);
        B->cast_from_f32(B, p, f, n);
        B->release(B, f);
    }
    free(x);
    return p;
}

static void bench_matmul(void) {
    static const struct {
        const char *what;
        int T, K, N;
    } shapes[] = {
        {"tiny enc qkv", 600, 128, 256},        {"tiny enc gate_up", 600, 128, 768},
        {"tiny enc down", 600, 384, 128},       {"tiny dec qkv", 900, 192, 320},
        {"tiny dec o", 900, 192, 192},          {"tiny dec gate_up", 900, 192, 1024},
        {"tiny dec down", 900, 512, 192},       {"tiny head", 520, 192, 4102},
        {"small enc gate_up", 1150, 256, 1408}, {"small dec qkv", 1320, 320, 448},
        {"small dec gate_up", 1320, 320, 1792}, {"small dec down", 1320, 896, 320},
        {"small head", 1024, 320, 8198},        {"medium qkv", 550, 896, 1152},
        {"medium gate_up", 550, 896, 9728},     {"medium down", 550, 4864, 896},
    };
    printf("%-18s %5s %5s %5s  %17s %17s %17s\n", "matmul", "T", "K", "N", "forward", "d input", "d weight");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int T = shapes[s].T, K = shapes[s].K, N = shapes[s].N;
        const size_t nt = (size_t)T * K, nw = (size_t)N * K, no = (size_t)T * N;
        void *in = random_memory(nt, 0), *w = random_memory(nw, 0), *out = random_memory(no, 0), *dw = memory(nw * 4);
        void *result = memory((no > nt ? no : nt) * 4);
        double t[3];
        MEASURE(t[0], B->matmul_forward(B, result, in, w, NULL, T, K, N));
        MEASURE(t[1], B->matmul_backward_input(B, result, out, w, T, K, N, 0));
        MEASURE(t[2], B->matmul_backward_weight(B, dw, NULL, out, in, T, K, N, 1));
        printf("%-18s %5d %5d %5d ", shapes[s].what, T, K, N);
        for (int i = 0; i < 3; i++) {
            const double rate = 2.0 * T * K * N / t[i];
            printf(" %6.1f GF/s %4.1f%%", rate / 1e9, 100 * rate / peak);
        }
        printf("\n");
        B->release(B, in), B->release(B, w), B->release(B, out), B->release(B, dw), B->release(B, result);
    }
}

// Products of few rows: GB/s of the weights; beside them what reading memory alone reaches.
static void bench_decode(void) {
    static const int shapes[][2] = {{320, 1792}, {320, 8198}, {896, 9728}, {4864, 896}, {896, 151860}, {2048, 22016}};
    static const int rows[] = {1, 2, 4, 8, 14, 16};
    printf("%-18s", "decode, GB/s");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) printf(" %7d", rows[i]);
    printf(" rows\n");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int K = shapes[s][0], N = shapes[s][1];
        const size_t n = (size_t)K * N;
        void *in = random_memory((size_t)16 * K, 0), *w = random_memory(n, 0), *out = memory((size_t)16 * N * 4);
        printf("%6d -> %-8d", K, N);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            double t;
            MEASURE(t, B->matmul_forward(B, out, in, w, NULL, rows[i], K, N));
            printf(" %7.1f", (double)(n * dtype_size(B->dtype)) / t / 1e9);
        }
        printf("\n");
        B->release(B, in), B->release(B, w), B->release(B, out);
    }
}

// Adds up n numbers, a multiple of 64, so that no reading can be left out.
static uint64_t read_all(const uint64_t *x, size_t n) {
    enum { LANES = 64 };
    uint64_t total = 0;
#pragma omp parallel for num_threads(B->threads) reduction(+ : total)
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) total += x[i + lane];
    }
    return total;
}

static void bench_stream(void) {
    const size_t n = (size_t)1 << 26; // 512 MB
    uint64_t *x = memory(n * sizeof *x), total = 0;
    double t;
    MEASURE(t, total += read_all(x, n));
    printf("reading memory (zeros, sum %llu): %.1f GB/s\n", (unsigned long long)total,
           (double)(n * sizeof *x) / t / 1e9);
    B->release(B, x);
}

static void bench_attention(void) {
    static const struct {
        const char *what;
        int pages, q_len, k_len, NH, KV, HS;
    } shapes[] = {
        {"tiny enc", 8, 73, 73, 4, 2, 32},
        {"tiny dec", 8, 112, 112, 6, 2, 32},
        {"small enc", 4, 289, 289, 4, 2, 64},
        {"small dec", 4, 330, 330, 5, 1, 64},
        {"small dec outputs only", 4, 256, 330, 5, 1, 64},
        {"medium dec", 1, 590, 590, 14, 2, 64},
        {"long", 1, 2048, 2048, 12, 2, 128},
        {"decode", 4, 1, 330, 5, 1, 64},
    };
    printf("%-18s %5s %5s %5s  %22s %22s\n", "attention", "pages", "q", "k", "forward", "backward");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int P = shapes[s].pages, q_len = shapes[s].q_len, k_len = shapes[s].k_len, NH = shapes[s].NH;
        const int KV = shapes[s].KV, HS = shapes[s].HS, ld = (NH + 2 * KV) * HS, rows = P * k_len;
        int cu[64] = {0}, begin[64], end[64];
        for (int i = 0; i < P; i++) {
            cu[i + 1] = cu[i] + q_len;
            begin[i] = i * k_len;
            end[i] = begin[i] + k_len;
        }
        void *dcu = memory(sizeof cu), *db = memory(sizeof begin), *de = memory(sizeof end);
        B->upload(B, dcu, cu, sizeof cu), B->upload(B, db, begin, sizeof begin), B->upload(B, de, end, sizeof end);
        const AttentionPages pages = {P, q_len, k_len, dcu, db, de};
        void *qkv = random_memory((size_t)rows * ld, 0), *dqkv = memory((size_t)rows * ld * 4);
        void *out = memory((size_t)rows * NH * HS * 4), *lse = memory((size_t)rows * NH * 4);
        void *dout = random_memory((size_t)rows * NH * HS, 0);
        void *k = elem_at(B, qkv, (size_t)NH * HS), *v = elem_at(B, qkv, (size_t)(NH + KV) * HS);
        double forward, backward;
        MEASURE(forward, B->attention_forward(B, out, lse, qkv, ld, k, v, ld, &pages, NH, KV, HS));
        MEASURE(backward, B->attention_backward(B, dqkv, ld, elem_at(B, dqkv, (size_t)NH * HS),
                                                elem_at(B, dqkv, (size_t)(NH + KV) * HS), ld, dout, out, lse, qkv, k, v,
                                                &pages, NH, KV, HS));
        const double pairs = (double)P * NH * q_len * (k_len - (q_len - 1) / 2.0), flops = 4 * pairs * HS;
        printf("%-18s %5d %5d %5d  %7.3f ms %6.1f GF/s %7.3f ms %6.1f GF/s\n", shapes[s].what, P, q_len, k_len,
               forward * 1e3, flops / forward / 1e9, backward * 1e3, 2.5 * flops / backward / 1e9);
        B->release(B, dcu), B->release(B, db), B->release(B, de), B->release(B, qkv), B->release(B, dqkv);
        B->release(B, out), B->release(B, lse), B->release(B, dout);
    }
}

static void rate(const char *what, double seconds, double bytes) {
    printf("%-24s %8.3f ms %7.1f GB/s\n", what, seconds * 1e3, bytes / seconds / 1e9);
}

static void bench_rows(void) {
    enum { T = 900, D = 192, F = 512, V = 4102, R = 520, HS = 32, HEADS = 8 };
    const double e = (double)dtype_size(B->dtype);
    const size_t n = 256 * 8000;
    void *x = random_memory(T * D, 0), *delta = random_memory(T * D, 0), *w = random_memory(D, 0),
         *out = memory(T * D * 4);
    void *rstd = memory(T * 4), *dw = memory(D * 4), *gate_up = random_memory(T * 2 * F, 0),
         *act = random_memory(T * F, 0);
    void *dgate_up = memory(T * 2 * F * 4), *logits = random_memory(R * V, 0), *loss = memory(R * 4),
         *correct = memory(R * 4);
    void *labels = memory(R * 4), *weights = random_memory(R, 1), *grad = random_memory(n, 1), *m = memory(n * 4);
    void *v = memory(n * 4), *param = random_memory(n, 0), *master = random_memory(n, 1), *scale = memory(8);
    void *table = random_memory((size_t)V * D, 0), *ids = memory(T * 4), *qk = random_memory(T * HEADS * HS, 0);
    void *cos_sin = random_memory(T * HS, 1), *positions = memory(T * 4), *copy = memory(n * 4);
    const float one = 1;
    int *numbers = malloc(T * sizeof *numbers);
    for (int i = 0; i < T; i++) numbers[i] = i * 7 % T;
    B->upload(B, scale, &one, 4), B->upload(B, ids, numbers, T * 4), B->upload(B, positions, numbers, T * 4);
    free(numbers);
    const AdamWParams p = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .bias1 = 0.1f, .bias2 = 0.001f};
    double t;
    MEASURE(t, B->embedding_forward(B, out, table, NULL, ids, T, D));
    rate("embedding", t, 2.0 * T * D * e);
    MEASURE(t, B->rmsnorm_forward(B, out, x, rstd, x, delta, w, T, D, 1e-6f));
    rate("rmsnorm + residual", t, 4.0 * T * D * e);
    MEASURE(t, B->rmsnorm_backward(B, x, dw, out, delta, w, rstd, T, D, 1));
    rate("rmsnorm backward", t, 4.0 * T * D * e);
    MEASURE(t, B->rope(B, qk, HEADS * HS, cos_sin, positions, T, HEADS, HS));
    rate("rope", t, 2.0 * T * HEADS * HS * e);
    MEASURE(t, B->swiglu_forward(B, act, gate_up, T, F));
    rate("swiglu", t, 3.0 * T * F * e);
    MEASURE(t, B->swiglu_backward(B, dgate_up, act, gate_up, T, F));
    rate("swiglu backward", t, 5.0 * T * F * e);
    MEASURE(t, B->matmul_backward_weight(B, NULL, dw, x, NULL, T, D, D, 0));
    rate("bias gradient", t, 1.0 * T * D * e);
    MEASURE(t, B->cross_entropy(B, loss, correct, logits, labels, NULL, R, V, V));
    rate("cross entropy, loss", t, 1.0 * R * V * e);
    MEASURE(t, B->cross_entropy(B, loss, correct, logits, labels, weights, R, V, V));
    rate("cross entropy, gradient", t, 2.0 * R * V * e);
    MEASURE(t, B->argmax(B, correct, logits, R, V, V));
    rate("argmax", t, 1.0 * R * V * e);
    MEASURE(t, B->adamw(B, param, B->dtype == DTYPE_F32 ? NULL : master, m, v, grad, scale, n, &p));
    rate("adamw", t, (double)n * (7 * 4 + (B->dtype == DTYPE_F32 ? 0 : 6)));
    MEASURE(t, B->sum_squares(B, scale, grad, n));
    rate("sum of squares", t, (double)n * 4);
    MEASURE(t, B->weighted_sum(B, scale, loss, weights, R, 0));
    rate("weighted sum", t, 8.0 * R);
    MEASURE(t, B->copy(B, copy, grad, n * 4));
    rate("copy", t, (double)n * 8);
    MEASURE(t, B->zero(B, copy, n * 4));
    rate("zero", t, (double)n * 4);
    void *all[] = {x,       delta, w, out, rstd,  dw,     gate_up, act,   dgate_up, logits, loss,    correct,   labels,
                   weights, grad,  m, v,   param, master, scale,   table, ids,      qk,     cos_sin, positions, copy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) B->release(B, all[i]);
}

int main(int argc, char **argv) {
    backend_cpu_prepare(argv);
    const char *only = "";
    int threads = 1, first = DTYPE_F32, last = DTYPE_BF16;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "-only") && *value) only = value;
        else if (!strcmp(argv[i], "-threads") && atoi(value) > 0) threads = atoi(value);
        else if (!strcmp(argv[i], "-dtype") && (!strcmp(value, "fp32") || !strcmp(value, "bf16")))
            first = last = strcmp(value, "fp32") ? DTYPE_BF16 : DTYPE_F32;
        else {
            fprintf(stderr,
                    "usage: bench_ops [-dtype fp32|bf16] [-threads N] [-only matmul|decode|attention|rows|stream]\n");
            return 2;
        }
    }
    for (int dtype = first; dtype <= last; dtype++) {
        Error err;
        if (backend_cpu_create(&B, (DType)dtype, threads, NULL, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        peak = backend_cpu_measure_peak(B);
        printf("%s, %s, %d thread%s: peak %.1f GFLOP/s\n", B->name, dtype == DTYPE_F32 ? "fp32" : "bf16", B->threads,
               B->threads == 1 ? "" : "s", peak / 1e9);
        if (!*only || !strcmp(only, "matmul")) bench_matmul();
        if (!*only || !strcmp(only, "decode")) bench_decode();
        if (!*only || !strcmp(only, "attention")) bench_attention();
        if (!*only || !strcmp(only, "rows")) bench_rows();
        if (!*only || !strcmp(only, "stream")) bench_stream();
        B->destroy(B);
    }
    return 0;
}
