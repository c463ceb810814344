// matmul.c: the three products of a linear layer, as calls of the single-threaded product of kernels/gemm.inc on a grid
// of row and column parts. K is never divided: every element is the same sum with any number of threads.
//
// Why no GEMM library: measured against oneDNN 2.6.3 on a Zen 4 core (GFLOP/s, one thread, dev/bench_ops.c; forward /
// d input / d weight; peak 117 fp32, 235 bf16):
//                                   fp32 here        oneDNN           bf16 here        oneDNN
//     rows 600, 128 -> 256          114 115 113      105 116 117      222 228 214      229 229 214
//     rows 900, 512 -> 192          115 114 112      110 115 116      229 225 217      230 229 222
//     rows 1320, 320 -> 1792        109 108  99      111 112 110      223 229 209      218 216 205
//     rows 550, 896 -> 9728         110 106 104      106 112 110      219 216 205      188 180 196
// It is as fast, needs no plan per shape (0.2-0.5 ms each in oneDNN, while the rows of a packed batch change every
// step), serves every instruction set from one source, gives a row the same bits whatever else is in the batch, and
// attention uses its register tiles.
#include "llmc/cpu/cpu.h"

#include <stdatomic.h>

// C's parts: rows in `m` parts, columns in `n`.
typedef struct Grid {
    int m, n;
} Grid;

// The grid whose largest part is smallest. Each thread packs its own columns of B, which makes columns cost more.
static Grid choose_grid(const CpuKernels *k, int M, int N, int threads) {
    const double pack_rows = 8; // packing a column of B costs about as much as multiplying it with this many rows
    Grid best = {1, threads};
    double best_cost = -1;
    for (int m = 1; m <= threads; m++) {
        const int n = threads / m;
        const int rows = ((M + k->tile_rows - 1) / k->tile_rows + m - 1) / m * k->tile_rows;
        const int columns = ((N + k->tile_cols - 1) / k->tile_cols + n - 1) / n * k->tile_cols;
        const double cost = (rows + pack_rows) * columns;
        if (best_cost < 0 || cost < best_cost) {
            best_cost = cost;
            best = (Grid){m, n};
        }
    }
    return best;
}

static void part(int *begin, int *end, int size, int tile, int i, int parts) {
    const int tiles = (size + tile - 1) / tile;
    *begin = (int)cpu_split((size_t)tiles, i, parts) * tile;
    *end = (int)cpu_split((size_t)tiles, i + 1, parts) * tile;
    if (*end > size) *end = size;
}

// Rows i..i_end-1 and columns j..j_end-1 of C.
static void multiply_block(Backend *b, const Gemm *g, int thread, int i, int i_end, int j, int j_end) {
    const CpuKernels *k = cpu_kernels(b);
    Gemm p = *g;
    p.M = i_end - i;
    p.N = j_end - j;
    p.a = elem_at(b, g->a, (size_t)(g->a_columns ? i : i * g->lda));
    p.b = elem_at(b, g->b, (size_t)(g->b_rows ? j : j * g->ldb));
    if (g->bias) p.bias = elem_at(b, g->bias, (size_t)j);
    const size_t c = (size_t)(i * g->ldc + j);
    p.c = g->c_float ? (void *)((float *)g->c + c) : elem_at(b, g->c, c);
    k->gemm(&p, cpu_thread_scratch(b, thread, k->gemm_scratch(&p)));
}

static void multiply_part(Backend *b, const Gemm *g, Grid grid, int thread) {
    const CpuKernels *k = cpu_kernels(b);
    if (thread >= grid.m * grid.n) return;
    int i, i_end, j, j_end;
    part(&i, &i_end, g->M, k->tile_rows, thread / grid.n, grid.m);
    part(&j, &j_end, g->N, k->tile_cols, thread % grid.n, grid.n);
    if (i_end > i && j_end > j) multiply_block(b, g, thread, i, i_end, j, j_end);
}

static void multiply(Backend *b, const Gemm *g) {
    const double work = (double)g->M * (double)g->N * (double)g->K / 16;
    CPU_PARALLEL(cpu_threads(b, work), {
        const Grid grid = choose_grid(cpu_kernels(b), g->M, g->N, threads);
        multiply_part(b, g, grid, thread);
    });
}

// Few rows, as in decoding: bound by reading the weights once. A thread that is done takes the next columns, since on a
// shared machine threads are not equally fast.
static void multiply_thin(Backend *b, const Gemm *g) {
    enum { MOST_BYTES = 1 << 22, PARTS = 4 };
    const CpuKernels *k = cpu_kernels(b);
    // Four parts a thread, of at most 4 MB: at its start a part reads what nothing has prefetched, and at its end it
    // prefetches what another thread reads.
    const int tile = k->tile_cols, tiles = (g->N + tile - 1) / tile, parts = PARTS * b->threads;
    const int most = MOST_BYTES / (tile * g->K * (int)dtype_size(b->dtype) + 1) + 1;
    const int shared = (tiles + parts - 1) / parts, chunk = (shared < most ? shared : most) * tile;
    const int chunks = (g->N + chunk - 1) / chunk;
    // Transposing a column in registers costs as much as multiplying it with four rows. The products of a decoding step
    // follow so closely that threads are still awake: less work is worth sharing than elsewhere.
    const int count = cpu_threads(b, 4.0 * g->N * g->K * (g->M + 4) / 16);
    atomic_int next = 0;
    CPU_PARALLEL(count < chunks ? count : chunks, {
        (void)threads;
        for (int i = atomic_fetch_add(&next, 1); i < chunks; i = atomic_fetch_add(&next, 1))
            multiply_block(b, g, thread, 0, g->M, i * chunk, g->N - i * chunk < chunk ? g->N : (i + 1) * chunk);
    });
}

static void matmul_forward(Backend *b, elem_t *out, const elem_t *in, const elem_t *w, const elem_t *bias, int T, int K,
                           int N) {
    const Gemm g = {.c = out, .ldc = N, .a = in, .lda = K, .b = w, .ldb = K, .bias = bias, .M = T, .N = N, .K = K};
    if (T <= cpu_kernels(b)->tile_rows && N > 0) multiply_thin(b, &g);
    else multiply(b, &g);
}

static void matmul_backward_input(Backend *b, elem_t *din, const elem_t *dout, const elem_t *w, int T, int K, int N,
                                  int accumulate) {
    const Gemm g = {.c = din,
                    .ldc = K,
                    .a = dout,
                    .lda = N,
                    .b = w,
                    .ldb = K,
                    .b_rows = 1,
                    .M = T,
                    .N = K,
                    .K = N,
                    .accumulate = accumulate};
    multiply(b, &g);
}

void cpu_column_sums(Backend *b, float *out, const elem_t *x, int T, int N, int accumulate) {
    enum { COLUMNS = 64 };
    const int groups = (N + COLUMNS - 1) / COLUMNS;
    CPU_PARALLEL_ROWS(b, groups, COLUMNS * (double)T, {
        const int last = end * COLUMNS < N ? end * COLUMNS : N;
        cpu_kernels(b)->column_sums(out, x, N, T, begin * COLUMNS, last, accumulate);
    });
}

static void matmul_backward_weight(Backend *b, float *dw, float *dbias, const elem_t *dout, const elem_t *in, int T,
                                   int K, int N, int accumulate) {
    if (dw) {
        const Gemm g = {.c = dw,
                        .c_float = 1,
                        .ldc = K,
                        .a = dout,
                        .a_columns = 1,
                        .lda = N,
                        .b = in,
                        .b_rows = 1,
                        .ldb = K,
                        .M = N,
                        .N = K,
                        .K = T,
                        .accumulate = accumulate};
        multiply(b, &g);
    }
    if (dbias) cpu_column_sums(b, dbias, dout, T, N, accumulate);
}

void cpu_matmul_fill(Backend *b) {
    b->matmul_forward = matmul_forward;
    b->matmul_backward_input = matmul_backward_input;
    b->matmul_backward_weight = matmul_backward_weight;
}
