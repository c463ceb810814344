// bench.c: time of each operation of the backend table at the shapes of the paper's run, beside the peak: matrix
// products and attention in TFLOP/s against the data sheet and a measured product, the rest in GB/s against a measured
// copy.
//
//     make bench && build/dev/cuda/bench [-device cuda|cpu] [-dtype bf16|fp32] [-rows 5900] [-repeats 20] [-check]
//
// -check first compares each operation at these shapes with double precision (bench_check.h); -repeats 0 leaves it at
// that. A time is the median of the repeats, each long enough to hide what a synchronisation costs. Bytes are those
// that have to be moved, each once. On a CPU take few rows: -device cpu -rows 128 -repeats 3.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dev/cuda/bench_check.h"
#include "llmc/backend.h"
#include "llmc/base/cli.h"
#include "llmc/model/config.h"
#include "llmc/model/params.h" // params_head_rows

static Backend *B;
static int64_t rows, repeats;
static double copy_rate; // bytes a second, measured
static size_t e;         // bytes of an element

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int *integers(const int *host, size_t n) {
    int *p = bench_memory(B, n * sizeof *p);
    B->upload(B, p, host, n * sizeof *p);
    return p;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double time, double flops, double bytes) {
    if (flops > 0) {
        const double unit = B->is_gpu ? 1e12 : 1e9;
        printf("%-44s %9.3f ms %8.1f %cFLOP/s", what, 1e3 * time, flops / time / unit, B->is_gpu ? 'T' : 'G');
        if (B->sheet_flops > 0) printf(" %5.1f %% of the data sheet", 100 * flops / time / B->sheet_flops);
        if (B->peak_flops > 0) printf(" %5.1f %% of the measured peak", 100 * flops / time / B->peak_flops);
    } else {
        printf("%-44s %9.3f ms %8.1f GB/s   ", what, 1e3 * time, bytes / time / 1e9);
        if (copy_rate > 0) printf(" %5.1f %% of a copy", 100 * bytes / time / copy_rate);
    }
    printf("\n");
    fflush(stdout);
}

// Runs the statement until a run takes 5 ms or more, then takes the median of as many runs as asked for.
#define MEASURE(what, flops, bytes, ...)                                                                               \
    do {                                                                                                               \
        double times[1000], once = 0;                                                                                  \
        int calls = 1;                                                                                                 \
        for (;; calls *= 2) {                                                                                          \
            B->synchronize(B);                                                                                         \
            const double start = seconds();                                                                            \
            for (int call = 0; call < calls; call++) __VA_ARGS__;                                                      \
            B->synchronize(B);                                                                                         \
            once = seconds() - start;                                                                                  \
            if (once > 5e-3 || calls >= 4096) break;                                                                   \
        }                                                                                                              \
        for (int64_t run = 0; run < repeats; run++) {                                                                  \
            const double start = seconds();                                                                            \
            for (int call = 0; call < calls; call++) __VA_ARGS__;                                                      \
            B->synchronize(B);                                                                                         \
            times[run] = (seconds() - start) / calls;                                                                  \
        }                                                                                                              \
        qsort(times, (size_t)repeats, sizeof *times, ascending);                                                       \
        report(what, times[repeats / 2], flops, bytes);                                                                \
        if (copy_rate == 0) copy_rate = (bytes) / times[repeats / 2];                                                  \
    } while (0)

// The three products of one weight (N,K).
static void products(const char *name, int K, int N, int with_bias) {
    char what[96];
    const int T = (int)rows;
    void *in = bench_numbers(B, (size_t)T * K), *w = bench_numbers(B, (size_t)N * K),
         *out = bench_numbers(B, (size_t)T * N);
    void *bias = with_bias ? bench_numbers(B, (size_t)N) : NULL;
    float *dw = bench_memory(B, (size_t)N * K * 4), *dbias = with_bias ? bench_memory(B, (size_t)N * 4) : NULL;
    const double flops = 2.0 * T * K * N;
    snprintf(what, sizeof what, "%s %d -> %d forward", name, K, N);
    MEASURE(what, flops, 0.0, B->matmul_forward(B, out, in, w, bias, T, K, N));
    snprintf(what, sizeof what, "%s %d -> %d d input", name, K, N);
    MEASURE(what, flops, 0.0, B->matmul_backward_input(B, in, out, w, T, K, N, 0));
    snprintf(what, sizeof what, "%s %d -> %d d weight", name, K, N);
    MEASURE(what, flops, 0.0, B->matmul_backward_weight(B, dw, dbias, out, in, T, K, N, 1));
    void *all[] = {in, w, out, bias, dw, dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i]) B->release(B, all[i]);
    }
}

// Pages of equal length, as many as fill the rows.
static void attention(const char *name, const Qwen2Config *c, int length) {
    char what[96];
    const int pages = (int)rows / length > 0 ? (int)rows / length : 1, T = pages * length;
    const int heads = c->NH * c->HS, kv = c->KV * c->HS, ld = heads + 2 * kv;
    int *cu = malloc(((size_t)pages + 1) * sizeof *cu);
    for (int p = 0; p <= pages; p++) cu[p] = p * length;
    int *borders = integers(cu, (size_t)pages + 1);
    elem_t *qkv = bench_numbers(B, (size_t)T * ld), *d = bench_numbers(B, (size_t)T * ld),
           *out = bench_numbers(B, (size_t)T * heads), *dout = bench_numbers(B, (size_t)T * heads);
    float *lse = bench_memory(B, (size_t)T * c->NH * 4);
    AttentionPages a = {
        .pages = pages, .max_q = length, .max_k = length, .cu_q = borders, .k_begin = borders, .k_end = borders + 1};
    const double pairs = pages * ((double)length * (length + 1) / 2), flops = 4.0 * pairs * heads;
    elem_t *k = elem_at(B, qkv, (size_t)heads), *v = elem_at(B, qkv, (size_t)(heads + kv));
    snprintf(what, sizeof what, "%s attention %d x %d forward", name, pages, length);
    MEASURE(what, flops, 0.0, B->attention_forward(B, out, lse, qkv, ld, k, v, ld, &a, c->NH, c->KV, c->HS));
    snprintf(what, sizeof what, "%s attention %d x %d backward", name, pages, length);
    MEASURE(what, 2.5 * flops, 0.0,
            B->attention_backward(B, d, ld, elem_at(B, d, (size_t)heads), elem_at(B, d, (size_t)(heads + kv)), ld, dout,
                                  out, lse, qkv, k, v, &a, c->NH, c->KV, c->HS));
    void *all[] = {borders, qkv, d, out, dout, lse};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) B->release(B, all[i]);
    free(cu);
}

static void elementwise(const char *name, const Qwen2Config *c) {
    char what[96];
    const int T = (int)rows, D = c->D, F = c->F;
    const double row = (double)T * D * (double)e;
    elem_t *x = bench_numbers(B, (size_t)T * D), *delta = bench_numbers(B, (size_t)T * D),
           *out = bench_numbers(B, (size_t)T * D), *w = bench_numbers(B, (size_t)D),
           *gate_up = bench_numbers(B, (size_t)T * 2 * F), *act = bench_numbers(B, (size_t)T * F);
    float *rstd = bench_memory(B, (size_t)T * 4), *dw = bench_memory(B, (size_t)D * 4);
    snprintf(what, sizeof what, "%s RMSNorm with residual, forward", name);
    MEASURE(what, 0.0, 4 * row, B->rmsnorm_forward(B, out, x, rstd, x, delta, w, T, D, 1e-6f));
    snprintf(what, sizeof what, "%s RMSNorm backward", name);
    MEASURE(what, 0.0, 4 * row, B->rmsnorm_backward(B, delta, dw, out, x, w, rstd, T, D, 1));
    const double wide = (double)T * F * (double)e;
    snprintf(what, sizeof what, "%s SwiGLU forward", name);
    MEASURE(what, 0.0, 3 * wide, B->swiglu_forward(B, act, gate_up, T, F));
    snprintf(what, sizeof what, "%s SwiGLU backward", name);
    MEASURE(what, 0.0, 5 * wide, B->swiglu_backward(B, gate_up, act, gate_up, T, F));
    void *all[] = {x, delta, out, w, gate_up, act, rstd, dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) B->release(B, all[i]);
}

static void loss_and_optimizer(const C3Config *c) {
    const int R = rows < 4096 ? (int)rows : 4096, V = c->dec.V, ld = params_head_rows(V);
    int *labels = calloc((size_t)R, sizeof *labels);
    float *ones = calloc((size_t)R, sizeof *ones);
    int *device_labels = integers(labels, (size_t)R);
    float *weights = bench_memory(B, (size_t)R * 4), *loss = bench_memory(B, (size_t)R * 4);
    int *correct = bench_memory(B, (size_t)R * 4);
    elem_t *logits = bench_numbers(B, (size_t)R * ld);
    B->upload(B, weights, ones, (size_t)R * 4);
    MEASURE("cross entropy and its gradient", 0.0, 2.0 * R * ld * (double)e,
            B->cross_entropy(B, loss, correct, logits, device_labels, weights, R, V, ld));
    const size_t n = (size_t)1 << 26;
    elem_t *param = bench_numbers(B, n);
    float *state = bench_memory(B, 3 * n * 4), *grad = bench_memory(B, n * 4), *scale = bench_memory(B, 4);
    double *sum = bench_memory(B, 8);
    AdamWParams p = {.lr = 1e-5f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .bias1 = 0.1f, .bias2 = 0.001f};
    MEASURE("AdamW, 64 M parameters", 0.0, (double)n * (28.0 + (double)e),
            B->adamw(B, param, state, state + n, state + 2 * n, grad, scale, n, &p));
    MEASURE("squared norm, 64 M gradients", 0.0, (double)n * 4, B->sum_squares(B, sum, grad, n));
    void *all[] = {device_labels, weights, loss, correct, logits, param, state, grad, scale, sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) B->release(B, all[i]);
    free(labels);
    free(ones);
}

static void check_all(const C3Config *c) {
    const Qwen2Config *const stacks[] = {&c->enc, &c->dec};
    const int T = (int)rows, page = T < 1014 ? T : 1014, head = T < 4096 ? T : 4096;
    for (int i = 0; i < 2; i++) {
        const Qwen2Config *q = stacks[i];
        const char *name = i ? "decoder" : "encoder";
        check_products(B, name, T, q->D, (q->NH + 2 * q->KV) * q->HS, 1);
        check_products(B, name, T, q->NH * q->HS, q->D, 0);
        check_products(B, name, T, q->D, 2 * q->F, 0);
        check_products(B, name, T, q->F, q->D, 0);
        check_attention(B, name, q, T / page < 8 ? T / page : 8, page);
        check_elementwise(B, name, q, T);
    }
    check_products(B, "head", head, c->dec.D, params_head_rows(c->dec.V), 0);
    check_loss_and_optimizer(B, head, c->dec.V, params_head_rows(c->dec.V));
}

int main(int argc, char **argv) {
    const char *device, *dtype;
    int check;
    OptionTable table = {.n = 0};
    const Option options[] = {
        {OPTION_CHOICE("device", &device, "auto", "auto|cuda|cpu", "where to compute")},
        {OPTION_CHOICE("dtype", &dtype, "bf16", "bf16|fp32", "element type")},
        {OPTION_INT64("rows", &rows, "rows of a packed batch"), .initial = 5900, .min = 1, .max = 1 << 20},
        {OPTION_INT64("repeats", &repeats, "runs whose median counts; 0 with -check: no times"), .initial = 20,
         .max = 1000},
        {OPTION_FLAG("check", &check, "first compare with double precision")},
        {0},
    };
    Error err;
    C3Config c;
    const char *notes = NULL;
    int help = 0;
    cli_add(&table, options);
    bench_must(cli_parse(&table, argc, argv, NULL, NULL, &help, &err), &err);
    if (help) {
        cli_help(stdout, &table);
        return 0;
    }
    bench_must(config_preset(&c, "paper", 0, &err), &err);
    bench_must(backend_create(&B, device, strcmp(dtype, "fp32") ? DTYPE_BF16 : DTYPE_F32, 0, NULL, &notes, &err), &err);
    e = dtype_size(B->dtype);
    bench_must(B->reserve(B, (int)rows, c.dec.NH, (c.dec.NH + 2 * c.dec.KV) * c.dec.HS, &err), &err);
    printf("%s, %s, %lld rows%s%s\n", B->name, dtype, (long long)rows, notes ? "; " : "", notes ? notes : "");
    if (check) check_all(&c);
    if (repeats == 0) return check_total();
    const size_t copied = (size_t)1 << (B->is_gpu ? 30 : 26);
    void *from = bench_memory(B, copied), *to = bench_memory(B, copied);
    MEASURE("copy", 0.0, 2.0 * (double)copied, B->copy(B, to, from, copied));
    B->release(B, from);
    B->release(B, to);
    const struct {
        const char *name;
        const Qwen2Config *c;
    } stacks[] = {{"encoder", &c.enc}, {"decoder", &c.dec}};
    for (int i = 0; i < 2; i++) {
        const Qwen2Config *q = stacks[i].c;
        products(stacks[i].name, q->D, (q->NH + 2 * q->KV) * q->HS, 1);
        products(stacks[i].name, q->NH * q->HS, q->D, 0);
        products(stacks[i].name, q->D, 2 * q->F, 0);
        products(stacks[i].name, q->F, q->D, 0);
        attention(stacks[i].name, q, rows < 983 ? (int)rows : 983);
        elementwise(stacks[i].name, q);
    }
    if (rows > 4096) rows = 4096; // a chunk of the head
    products("head", c.dec.D, params_head_rows(c.dec.V), 0);
    loss_and_optimizer(&c);
    B->destroy(B);
    return check ? check_total() : 0;
}
