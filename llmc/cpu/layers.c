// layers.c: everything but matrix products and attention, divided among threads by rows or by fixed blocks whose
// partial sums are added in order: the same bits with any number of threads.
#include "llmc/cpu/cpu.h"
#include "llmc/base/dist.h"

#include <math.h>
#include <string.h>

// ---- embedding and rows ----
static void embedding_forward(Backend *b, elem_t *out, const elem_t *table, const elem_t *slots, const int *ids, int T,
                              int D) {
    const size_t row = (size_t)D * dtype_size(b->dtype);
    CPU_PARALLEL_ROWS(b, T, D, {
        for (int t = begin; t < end; t++) {
            const int id = ids[t];
            const char *from =
                id >= 0 ? (const char *)table + (size_t)id * row : (const char *)slots + (size_t)(-1 - id) * row;
            memcpy((char *)out + (size_t)t * row, from, row);
        }
    });
}

static void embedding_backward(Backend *b, float *dtable, float *dslots, const elem_t *dout, const int *ids,
                               const int *order, const int *runs, int n_runs, int D) {
    const CpuKernels *k = cpu_kernels(b);
    if (n_runs <= 0) return;
    CPU_PARALLEL_ROWS(b, runs[n_runs], D, {
        for (int r = 0; r < n_runs; r++) { // a thread owns the runs that begin in its rows
            if (runs[r] < begin || runs[r] >= end) continue;
            const int id = ids[order[runs[r]]];
            float *to = id >= 0 ? dtable : dslots;
            if (!to) continue;
            to += (size_t)(id >= 0 ? id : -1 - id) * (size_t)D;
            for (int i = runs[r]; i < runs[r + 1]; i++)
                k->add_row_f32(to, elem_at(b, dout, (size_t)order[i] * (size_t)D), D);
        }
    });
}

static void gather_rows(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n, int D) {
    const size_t row = (size_t)D * dtype_size(b->dtype);
    CPU_PARALLEL_ROWS(b, n, D, {
        for (int i = begin; i < end; i++)
            memcpy((char *)out + (size_t)i * row, (const char *)in + (size_t)rows[i] * row, row);
    });
}

static void scatter_add_rows(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n, int D) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, n, D, {
        for (int i = begin; i < end; i++)
            k->add_row(elem_at(b, out, (size_t)rows[i] * (size_t)D), elem_at(b, in, (size_t)i * (size_t)D), D);
    });
}

static void scatter_rows(Backend *b, elem_t *to, int ld_to, const elem_t *from, int ld_from, const int *rows, int n,
                         int width) {
    const size_t bytes = (size_t)width * dtype_size(b->dtype);
    CPU_PARALLEL_ROWS(b, n, width, {
        for (int i = begin; i < end; i++)
            memcpy(elem_at(b, to, (size_t)rows[i] * (size_t)ld_to), elem_at(b, from, (size_t)i * (size_t)ld_from),
                   bytes);
    });
}

// ---- RMSNorm ----
static void rmsnorm_forward(Backend *b, elem_t *out, elem_t *sum, float *rstd, const elem_t *x, const elem_t *delta,
                            const elem_t *w, int T, int D, float eps) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, T, D, k->rmsnorm_forward(out, sum, rstd, x, delta, w, begin, end, D, eps););
}

static void rmsnorm_backward(Backend *b, elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                             const float *rstd, int T, int D, int accumulate) {
    enum { BLOCK = 128 };
    const CpuKernels *k = cpu_kernels(b);
    const int blocks = (T + BLOCK - 1) / BLOCK;
    float *partial = dw ? cpu_shared_scratch(b, (size_t)(blocks + 1) * (size_t)D * sizeof(float)) : NULL; // (blocks,D)
    CPU_PARALLEL_ROWS(b, blocks, BLOCK * (double)D, {
        for (int i = begin; i < end; i++) {
            const int last = (i + 1) * BLOCK < T ? (i + 1) * BLOCK : T;
            k->rmsnorm_backward(dx, partial ? partial + (size_t)i * (size_t)D : NULL, dout, x, w, rstd, i * BLOCK, last,
                                D);
        }
    });
    if (!dw) return;
    if (!accumulate) memset(dw, 0, (size_t)D * sizeof *dw);
    for (int i = 0; i < blocks; i++) {
        for (int d = 0; d < D; d++) dw[d] += partial[(size_t)i * (size_t)D + (size_t)d];
    }
}

// ---- elementwise layers ----
static void rope(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, T, (double)heads * HS, k->rope(x, ld, cos_sin, positions, begin, end, heads, HS, 0););
}

static void rope_backward(Backend *b, elem_t *dx, float *dbias, const float *cos_sin, const int *positions, int T,
                          int N, int heads, int HS, int accumulate) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, T, (double)heads * HS, k->rope(dx, N, cos_sin, positions, begin, end, heads, HS, 1););
    if (dbias) cpu_column_sums(b, dbias, dx, T, N, accumulate);
}

static void swiglu_forward(Backend *b, elem_t *out, const elem_t *gate_up, int T, int F) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, T, 4.0 * F, k->swiglu_forward(out, gate_up, begin, end, F););
}

static void swiglu_backward(Backend *b, elem_t *dgate_up, const elem_t *dout, const elem_t *gate_up, int T, int F) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, T, 4.0 * F, k->swiglu_backward(dgate_up, dout, gate_up, begin, end, F););
}

static void cross_entropy(Backend *b, float *loss, int *correct, elem_t *logits, const int *labels,
                          const float *weights, int R, int V, int ld) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, R, 4.0 * V, k->cross_entropy(loss, correct, logits, labels, weights, begin, end, V, ld););
}

static void argmax(Backend *b, int *out, const elem_t *logits, int R, int V, int ld) {
    const CpuKernels *k = cpu_kernels(b);
    CPU_PARALLEL_ROWS(b, R, V, k->argmax(out, logits, begin, end, V, ld););
}

static void weighted_sum(Backend *b, double *sum, const float *loss, const float *weights, int n, int accumulate) {
    (void)b;
    double total = 0;
    for (int i = 0; i < n; i++) total += (double)weights[i] * (double)loss[i];
    *sum = accumulate ? *sum + total : total;
}

// ---- optimizer ----
static void adamw(Backend *b, elem_t *param, float *master, float *m, float *v, const float *grad, const float *scale,
                  size_t n, const AdamWParams *p) {
    const CpuKernels *k = cpu_kernels(b);
    if (!isfinite(*scale)) return;
    CPU_PARALLEL(cpu_threads(b, (double)n * 4), {
        const size_t begin = cpu_split(n / 64, thread, threads) * 64, end = cpu_split(n / 64, thread + 1, threads) * 64;
        k->adamw(param, master, m, v, grad, *scale, begin, end, p);
    });
}

static void sum_squares(Backend *b, double *sum, const float *x, size_t n) {
    enum { CHUNK = 64 * 256 };
    const CpuKernels *k = cpu_kernels(b);
    const size_t chunks = (n + CHUNK - 1) / CHUNK;
    double *partial = cpu_shared_scratch(b, (chunks + 1) * sizeof(double));
    CPU_PARALLEL(cpu_threads(b, (double)n), {
        const size_t begin = cpu_split(chunks, thread, threads), end = cpu_split(chunks, thread + 1, threads);
        for (size_t i = begin; i < end; i++)
            partial[i] = k->sum_squares(x + i * CHUNK, n - i * CHUNK < CHUNK ? n - i * CHUNK : CHUNK);
    });
    double total = 0;
    for (size_t i = 0; i < chunks; i++) total += partial[i];
    *sum = total;
}

static void clip_scale(Backend *b, float *scale, double *norm, const double *partial, int n, double clip) {
    (void)b;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += partial[i];
    *norm = sqrt(sum);
    double factor = clip > 0 ? clip / (*norm + 1e-6) : 1.0;
    *scale = isfinite(*norm) ? (float)(factor < 1.0 ? factor : 1.0) : NAN;
}

// ---- collectives: done at once, with nothing to wait for ----
static void reduce_scatter(Backend *b, float *shard, float *buffer, size_t n, int accumulate, int tag) {
    (void)tag;
    const int ranks = b->dist ? b->dist->ranks : 1, rank = b->dist ? b->dist->rank : 0;
    if (ranks > 1) dist_reduce_scatter(b->dist, buffer, n);
    const float *sum = buffer + (size_t)rank * n;
    if (shard == sum) return;
    if (!accumulate) {
        memcpy(shard, sum, n * sizeof *shard);
        return;
    }
    for (size_t i = 0; i < n; i++) shard[i] += sum[i];
}

static void all_gather(Backend *b, void *buffer, size_t bytes, int tag) {
    (void)tag;
    if (b->dist && b->dist->ranks > 1) dist_all_gather_in_place(b->dist, buffer, bytes);
}

static void wait_for(Backend *b, int tag) { (void)b, (void)tag; }

static void range_push(Backend *b, const char *name, int number) { (void)b, (void)name, (void)number; }
static void range_pop(Backend *b) { (void)b; }

void cpu_layers_fill(Backend *b) {
    b->embedding_forward = embedding_forward;
    b->embedding_backward = embedding_backward;
    b->gather_rows = gather_rows;
    b->scatter_add_rows = scatter_add_rows;
    b->scatter_rows = scatter_rows;
    b->rmsnorm_forward = rmsnorm_forward;
    b->rmsnorm_backward = rmsnorm_backward;
    b->rope = rope;
    b->rope_backward = rope_backward;
    b->swiglu_forward = swiglu_forward;
    b->swiglu_backward = swiglu_backward;
    b->cross_entropy = cross_entropy;
    b->argmax = argmax;
    b->weighted_sum = weighted_sum;
    b->adamw = adamw;
    b->sum_squares = sum_squares;
    b->clip_scale = clip_scale;
    b->reduce_scatter = reduce_scatter;
    b->all_gather = all_gather;
    b->wait_for = wait_for;
    b->range_push = range_push;
    b->range_pop = range_pop;
}
