// profile.c: see profile.h. The functions that stand before the backend's, and the steps that are measured.
#include "llmc/train/profile.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/dist.h"
#include "llmc/base/file.h"
#include "llmc/model/params.h" // tags of collectives

static Profile *profile; // whose step is under way

// ---- spans ---------------------------------------------------------------------------------------------------------

static int stamp(int collectives) {
    profile->real.stamp(profile->b, collectives);
    return profile->stamps++;
}

static Span *span_open(const char *name, int number, int kind) {
    Profile *p = profile;
    p->spans = alloc_grow(p->spans, (size_t)p->n_spans, &p->room, sizeof *p->spans, "profile");
    Span *s = &p->spans[p->n_spans];
    *s = (Span){.name = name, .number = number, .parent = p->open, .kind = kind, .begin = stamp(0)};
    p->open = p->n_spans++;
    return s;
}

static void span_close(void) {
    Span *s = &profile->spans[profile->open];
    s->end = stamp(0);
    profile->open = s->parent;
}

static void range_push(Backend *b, const char *name, int number) {
    profile->real.range_push(b, name, number);
    span_open(name, number, KIND_BETWEEN);
}

static void range_pop(Backend *b) {
    span_close();
    profile->real.range_pop(b);
}

// ---- operations ----------------------------------------------------------------------------------------------------

#define PRODUCTS(X)                                                                                                    \
    X(matmul_forward, "product",                                                                                       \
      (Backend * b, elem_t * out, const elem_t *in, const elem_t *w, const elem_t *bias, int T, int K, int N),         \
      (b, out, in, w, bias, T, K, N))                                                                                  \
    X(matmul_forward_add, "product",                                                                                   \
      (Backend * b, elem_t * out, const elem_t *residual, const elem_t *in, const elem_t *w, int T, int K, int N),     \
      (b, out, residual, in, w, T, K, N))                                                                              \
    X(matmul_backward_input, "product for inputs",                                                                     \
      (Backend * b, elem_t * din, const elem_t *dout, const elem_t *w, int T, int K, int N, int accumulate),           \
      (b, din, dout, w, T, K, N, accumulate))                                                                          \
    X(matmul_backward_weight, "product for weights",                                                                   \
      (Backend * b, float *dw, float *dbias, const elem_t *dout, const elem_t *in, int T, int K, int N,                \
       int accumulate),                                                                                                \
      (b, dw, dbias, dout, in, T, K, N, accumulate))

#define OTHERS(X)                                                                                                      \
    X(upload, KIND_ROWS, "upload", (Backend * b, void *device, const void *host, size_t bytes),                        \
      (b, device, host, bytes))                                                                                        \
    X(upload_async, KIND_ROWS, "upload", (Backend * b, void *device, const void *host, size_t bytes),                  \
      (b, device, host, bytes))                                                                                        \
    X(copy, KIND_ROWS, "copy", (Backend * b, void *to, const void *from, size_t bytes), (b, to, from, bytes))          \
    X(zero, KIND_ROWS, "zero", (Backend * b, void *device, size_t bytes), (b, device, bytes))                          \
    X(cast_from_f32, KIND_ROWS, "cast", (Backend * b, elem_t * out, const float *in, size_t n), (b, out, in, n))       \
    X(cast_to_f32, KIND_ROWS, "cast", (Backend * b, float *out, const elem_t *in, size_t n), (b, out, in, n))          \
    X(embedding_forward, KIND_ROWS, "embedding",                                                                       \
      (Backend * b, elem_t * out, const elem_t *table, const elem_t *slots, const int *ids, int T, int D),             \
      (b, out, table, slots, ids, T, D))                                                                               \
    X(embedding_backward, KIND_ROWS, "embedding",                                                                      \
      (Backend * b, float *dtable, float *dslots, const elem_t *dout, const int *ids, const int *order,                \
       const int *runs, int n_runs, int D),                                                                            \
      (b, dtable, dslots, dout, ids, order, runs, n_runs, D))                                                          \
    X(gather_rows, KIND_ROWS, "gather rows",                                                                           \
      (Backend * b, elem_t * out, const elem_t *in, const int *rows, int n, int D), (b, out, in, rows, n, D))          \
    X(scatter_add_rows, KIND_ROWS, "scatter rows",                                                                     \
      (Backend * b, elem_t * out, const elem_t *in, const int *rows, int n, int D), (b, out, in, rows, n, D))          \
    X(scatter_rows, KIND_ROWS, "scatter rows",                                                                         \
      (Backend * b, elem_t * to, int ld_to, const elem_t *from, int ld_from, const int *rows, int n, int width),       \
      (b, to, ld_to, from, ld_from, rows, n, width))                                                                   \
    X(rmsnorm_forward, PART_ELEMENTWISE, "norm",                                                                       \
      (Backend * b, elem_t * out, elem_t * sum, float *rstd, const elem_t *x, const elem_t *delta, const elem_t *w,    \
       int T, int D, float eps),                                                                                       \
      (b, out, sum, rstd, x, delta, w, T, D, eps))                                                                     \
    X(rmsnorm_backward, PART_ELEMENTWISE, "norm",                                                                      \
      (Backend * b, elem_t * dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w, const float *rstd,   \
       int T, int D, int accumulate),                                                                                  \
      (b, dx, dw, dout, x, w, rstd, T, D, accumulate))                                                                 \
    X(rope, PART_ELEMENTWISE, "rotary",                                                                                \
      (Backend * b, elem_t * x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS),         \
      (b, x, ld, cos_sin, positions, T, heads, HS))                                                                    \
    X(rope_backward, PART_ELEMENTWISE, "rotary",                                                                       \
      (Backend * b, elem_t * dx, float *dbias, const float *cos_sin, const int *positions, int T, int N, int heads,    \
       int HS, int accumulate),                                                                                        \
      (b, dx, dbias, cos_sin, positions, T, N, heads, HS, accumulate))                                                 \
    X(attention_forward, PART_ATTENTION, "attention",                                                                  \
      (Backend * b, elem_t * out, float *lse, const elem_t *q, int ldq, const elem_t *k, const elem_t *v, int ldk,     \
       const AttentionPages *pages, int NH, int KV, int HS),                                                           \
      (b, out, lse, q, ldq, k, v, ldk, pages, NH, KV, HS))                                                             \
    X(attention_backward, PART_ATTENTION, "attention",                                                                 \
      (Backend * b, elem_t * dq, int ldq, elem_t *dk, elem_t *dv, int ldk, const elem_t *dout, const elem_t *out,      \
       const float *lse, const elem_t *q, const elem_t *k, const elem_t *v, const AttentionPages *pages, int NH,       \
       int KV, int HS),                                                                                                \
      (b, dq, ldq, dk, dv, ldk, dout, out, lse, q, k, v, pages, NH, KV, HS))                                           \
    X(swiglu_forward, PART_ELEMENTWISE, "SwiGLU", (Backend * b, elem_t * out, const elem_t *gate_up, int T, int F),    \
      (b, out, gate_up, T, F))                                                                                         \
    X(swiglu_backward, PART_ELEMENTWISE, "SwiGLU",                                                                     \
      (Backend * b, elem_t * dgate_up, const elem_t *dout, const elem_t *gate_up, int T, int F),                       \
      (b, dgate_up, dout, gate_up, T, F))                                                                              \
    X(cross_entropy, PART_LOGITS, "cross entropy",                                                                     \
      (Backend * b, float *loss, int *correct, elem_t *logits, const int *labels, const float *weights, int R, int V,  \
       int ld),                                                                                                        \
      (b, loss, correct, logits, labels, weights, R, V, ld))                                                           \
    X(argmax, PART_LOGITS, "argmax", (Backend * b, int *out, const elem_t *logits, int R, int V, int ld),              \
      (b, out, logits, R, V, ld))                                                                                      \
    X(weighted_sum, PART_LOGITS, "sum of losses",                                                                      \
      (Backend * b, double *sum, const float *loss, const float *weights, int n, int accumulate),                      \
      (b, sum, loss, weights, n, accumulate))                                                                          \
    X(adamw, PART_OPTIMIZER, "AdamW",                                                                                  \
      (Backend * b, elem_t * param, float *master, float *m, float *v, const float *grad, const float *scale,          \
       size_t n, const AdamWParams *p),                                                                                \
      (b, param, master, m, v, grad, scale, n, p))                                                                     \
    X(sum_squares, PART_OPTIMIZER, "squares of gradients", (Backend * b, double *sum, const float *x, size_t n),       \
      (b, sum, x, n))                                                                                                  \
    X(clip_scale, PART_OPTIMIZER, "clip factor",                                                                       \
      (Backend * b, float *scale, double *norm, const double *partial, int n, double clip),                            \
      (b, scale, norm, partial, n, clip))

#define DEFINE_PRODUCT(FUNCTION, NAME, PARAMETERS, ARGUMENTS)                                                          \
    static void FUNCTION PARAMETERS {                                                                                  \
        Span *s = span_open(NAME, -1, KIND_PRODUCT);                                                                   \
        s->rows = T, s->in = K, s->out = N;                                                                            \
        profile->real.FUNCTION ARGUMENTS;                                                                              \
        span_close();                                                                                                  \
    }
#define DEFINE_OTHER(FUNCTION, KIND, NAME, PARAMETERS, ARGUMENTS)                                                      \
    static void FUNCTION PARAMETERS {                                                                                  \
        span_open(NAME, -1, KIND);                                                                                     \
        profile->real.FUNCTION ARGUMENTS;                                                                              \
        span_close();                                                                                                  \
    }
PRODUCTS(DEFINE_PRODUCT)
OTHERS(DEFINE_OTHER)

// ---- collectives ---------------------------------------------------------------------------------------------------

// On a GPU they run beside the other work, and what is in their way is the wait for them; on a CPU they are work like
// any other. One rank has none.
static int several_ranks(const Backend *b) { return b->dist && b->dist->ranks > 1; }

// The span; -1: none.
static int collective_open(const Backend *b, const char *name, int kind) {
    if (!several_ranks(b)) return -1;
    const int span = profile->n_spans, around = profile->open;
    Span *s = span_open(name, -1, kind);
    if (!b->is_gpu) return span;
    s->collective = 1;
    s->parent = -1;
    profile->open = around;
    return span;
}

static void collective_close(int span) {
    if (span < 0) return;
    if (profile->spans[span].collective) profile->spans[span].end = stamp(1);
    else span_close();
}

static void reduce_scatter(Backend *b, float *shard, float *buffer, size_t n, int accumulate, int tag) {
    const int span = collective_open(b, "reduce-scatter", PART_REDUCE);
    profile->real.reduce_scatter(b, shard, buffer, n, accumulate, tag);
    collective_close(span);
}

static void all_gather(Backend *b, void *buffer, size_t bytes, int tag) {
    const int span = collective_open(b, "all-gather", PART_GATHER);
    profile->real.all_gather(b, buffer, bytes, tag);
    collective_close(span);
}

static void wait_for(Backend *b, int tag) {
    const int reduces = tag == params_reduce_tag(tag / 2), waits = several_ranks(b) && b->is_gpu;
    if (waits)
        span_open(reduces ? "wait for reduction" : "wait for gathering", -1, reduces ? PART_REDUCE : PART_GATHER);
    profile->real.wait_for(b, tag);
    if (waits) span_close();
}

static void replace_table(Backend *b) {
#define REPLACE(FUNCTION, ...)                                                                                         \
    if (b->FUNCTION) b->FUNCTION = FUNCTION;
    PRODUCTS(REPLACE)
    OTHERS(REPLACE)
#undef REPLACE
    b->reduce_scatter = reduce_scatter;
    b->all_gather = all_gather;
    b->wait_for = wait_for;
    b->range_push = range_push;
    b->range_pop = range_pop;
}

// ---- steps ---------------------------------------------------------------------------------------------------------

Profile *profile_start(Backend *b, int N, int64_t done, int64_t last, Log *log) {
    int64_t first = done + PROFILE_SKIP + 1, left = last - first + 1;
    if (N == 0) return NULL;
    if (left < 0) left = 0;
    if (left < N)
        log_note(log, "-profile %d: %lld step(s) are left after the first %d, which are not measured: %s", N,
                 (long long)left, PROFILE_SKIP, left ? "these are" : "nothing is (hint: a larger -steps)");
    if (left == 0) return NULL;
    Profile *p = alloc_zeroed(1, sizeof *p, "profile");
    p->b = b;
    p->first = first;
    p->steps = N < left ? N : (int)left;
    p->open = -1;
    p->before = alloc_zeroed((size_t)p->steps, sizeof *p->before, "profile");
    return p;
}

void profile_begin(Profile *p, int64_t step) {
    if (!p || step < p->first || p->measured == p->steps) return;
    profile = p;
    p->under_way = step;
    p->real = *p->b;
    p->before[p->measured] = p->stamps;
    if (p->stamps == 0) p->clock = log_seconds(); // the device has nothing to do: the first stamp is of now
    span_open("step", (int)step, KIND_BETWEEN);
    replace_table(p->b);
}

void profile_end(Profile *p) {
    if (!p || !p->under_way) return;
    *p->b = p->real;
    span_close();
    p->under_way = 0;
    p->measured++;
    profile = NULL;
}

static void read_up_to(Profile *p, int stamps) {
    int n = stamps - p->read;
    if (n <= 0) return;
    if (stamps > p->seconds_capacity) {
        p->seconds_capacity = stamps;
        p->seconds = alloc_resize(p->seconds, (size_t)stamps, sizeof *p->seconds, "profile");
    }
    p->b->read_stamps(p->b, p->seconds + p->read, n);
    p->read = stamps;
}

// The collectives of a step end in the next one.
void profile_read(Profile *p) {
    if (p && p->measured) read_up_to(p, p->before[p->measured - 1]);
}

int profile_is_complete(const Profile *p, int64_t step) { return p && step == p->first + p->steps - 1; }

void profile_times(double *begin, double *end, double *free_at, const Profile *p, const Span *s) {
    *begin = p->seconds[s->begin];
    *end = p->seconds[s->end];
    if (!s->collective) return;
    if (*begin < *free_at) *begin = *free_at;
    *free_at = *end;
}

// ---- the end -------------------------------------------------------------------------------------------------------

// Seconds from one stamp to the next when nothing lies between them.
static double stamp_seconds(Backend *b) {
    enum { STAMPS = 256 };
    double seconds[STAMPS];
    for (int i = 0; i < STAMPS; i++) b->stamp(b, 0);
    b->synchronize(b);
    b->read_stamps(b, seconds, STAMPS);
    return (seconds[STAMPS - 1] - seconds[0]) / (STAMPS - 1);
}

// Rank 0 writes what each rank of its host has to say in turn; their clock is one.
static int write_trace(const Profile *p, const char *path, Error *err) {
    const Dist *d = p->b->dist;
    FileWriter w;
    double *clocks = alloc((size_t)d->ranks, sizeof *clocks, "profile"), start = 0;
    dist_all_gather(d, clocks, &p->clock, sizeof p->clock);
    int bad = d->rank == 0 ? file_create(&w, path, err) : 0;
    const int writes = d->rank == 0 && !bad;
    for (int r = 0; r < d->ranks; r++) {
        if (strcmp(dist_host(d, r), dist_host(d, 0)) == 0 && (start == 0 || clocks[r] < start)) start = clocks[r];
    }
    static const char head[] = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", tail[] = "\n]}\n";
    if (writes) bad = file_write(&w, head, sizeof head - 1, err);
    for (int r = 0; r < d->ranks; r++) {
        char *text = NULL;
        size_t size = 0;
        if (strcmp(dist_host(d, r), dist_host(d, 0)) != 0) continue;
        if (r == d->rank) profile_trace(&text, &size, p, r, start);
        dist_broadcast(d, &size, sizeof size, r);
        if (r != d->rank) text = alloc(size, 1, "trace of a rank");
        dist_broadcast(d, text, size, r);
        if (writes && !bad && size == 0) bad = error_set(err, "%s: out of memory for the trace of rank %d", path, r);
        if (writes && !bad && r > 0) bad = file_write(&w, ",\n", 2, err);
        if (writes && !bad) bad = file_write(&w, text, size, err);
        free(text);
    }
    free(clocks);
    if (writes && !bad) bad = file_write(&w, tail, sizeof tail - 1, err);
    return writes ? file_end(&w, bad, err) : bad;
}

void profile_finish(Profile **at, const Plan *plan, const char *folder, Log *log) {
    Profile *p = *at;
    Error err;
    *at = NULL;
    if (!p) return;
    if (p->measured) {
        char *path = string_format("%s/profile.json", folder);
        p->b->synchronize(p->b);
        read_up_to(p, p->stamps);
        double each = stamp_seconds(p->b);
        int bad = write_trace(p, path, &err);
        if (log) {
            log_note(log, "times of %d step(s), %lld to %lld, measured", p->measured, (long long)p->first,
                     (long long)p->first + p->measured - 1);
            profile_print(stdout, p, plan);
            double stamps = (double)p->stamps / p->measured;
            printf("  taking these times: %.0f stamps a step of %.2f us, %.2f ms when nothing else runs\n", stamps,
                   1e6 * each, 1e3 * each * stamps);
            log_note(log, bad ? "  no trace: %s" : "  trace: %s (opens in ui.perfetto.dev and chrome://tracing)",
                     bad ? err.text : path);
        }
        free(path);
    }
    free(p->spans);
    free(p->before);
    free(p->seconds);
    free(p);
}
