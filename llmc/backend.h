// backend.h: THE contract between the model and the machine. Memory, layer operations, optimizer, collectives.
//
// A backend is one struct of functions. Model code never asks which backend it runs on; a backend is done when it fills
// the whole table and passes test/test_ops.c.
//
// Conventions
//   elem      the run's element type, fp32 or bf16 (Backend.dtype): parameters and activations
//   float     always fp32: gradients of parameters, statistics, optimizer state
//   T         rows of a packed batch (tokens of all pages one after the other, no padding)
//   D, F, V   hidden width, width of the MLP, rows of the vocabulary
//   NH KV HS  query heads, key/value heads, size of one head
//   (a,b)     shape of a dense row-major array; ld = distance between rows, in elements, where rows are not dense
// Outputs come first, then inputs, then sizes. Every pointer is device memory unless it says "host". All operations are
// queued in order on one compute stream (the CPU does them at once), collectives on a second one. `download` waits for
// the compute stream, and so for collectives that it waited for; `synchronize` waits for both streams. Between the
// first operation of a step and its one download the host never waits. An operation that fails on the device ends all
// ranks with a line that names it; there is no recovery. Sums run in a fixed order: same inputs, same build, same
// thread count -> same bits. `accumulate` = 0 overwrites a gradient, 1 adds to it. Output and input may not overlap
// unless stated.
#ifndef LLMC_BACKEND_H
#define LLMC_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum DType { DTYPE_F32, DTYPE_BF16, DTYPE_F16 } DType; // F16 only occurs in files

static inline size_t dtype_size(DType t) { return t == DTYPE_F32 ? 4 : 2; }

typedef void elem_t; // an array of the run's element type; elem_at() does the arithmetic

typedef struct Dist Dist; // dist.h: the ranks

// The pages of a packed batch, as attention sees them. Queries are a suffix of their page: query i of a page with
// q_len queries and k_len keys stands at key position k_len - q_len + i and sees the keys 0..that position.
// This form covers training, last layers that compute outputs only, and decoding with a KV cache.
typedef struct AttentionPages {
    int pages;
    int max_q, max_k;   // longest q_len and k_len
    const int *cu_q;    // (pages+1) borders of the pages in the query rows
    const int *k_begin; // (pages) first key row of each page
    const int *k_end;   // (pages) one past its last key row
} AttentionPages;

typedef struct AdamWParams {
    float lr, beta1, beta2, eps, weight_decay;
    float bias1, bias2; // 1 - beta1^t, 1 - beta2^t
} AdamWParams;

typedef struct Backend Backend;
struct Backend {
    const char *name;      // "cpu avx512_bf16", ...
    const char *libraries; // paths of cuBLASLt and NCCL as they were found on a GPU; else NULL
    DType dtype;           // element type
    int threads;           // host cores of this rank
    int is_gpu;            // for choices of size only (what to fuse, rows of logits at a time), never of mathematics
    double sheet_flops;    // data-sheet peak of this rank in FLOP/s for dtype; 0 = unknown
    double peak_flops;     // the same, measured on a matrix product at creation; 0 = not measured
    Dist *dist;            // not owned
    void *state;           // the backend's own

    void (*destroy)(Backend *b);

    // ---- memory ----
    // 64-byte aligned device memory, contents undefined. `what` names it in the error, which says the bytes.
    int (*alloc)(Backend *b, void **memory, size_t bytes, const char *what, Error *err);
    void (*release)(Backend *b, void *memory);
    // Bytes of the device that are free, and all of them.
    void (*memory)(Backend *b, size_t *available, size_t *total);
    // Host memory that the device reads directly (page-locked), 64-byte aligned, for upload_async.
    int (*alloc_host)(Backend *b, void **memory, size_t bytes, const char *what, Error *err);
    void (*release_host)(Backend *b, void *memory);
    // Sizes the backend's own scratch for batches of up to `rows` rows, `heads` query heads and rows of up to `width`
    // elements whose columns are summed: backend_scratch_bytes(). Called before the first step; larger requests win.
    int (*reserve)(Backend *b, int rows, int heads, int width, Error *err);
    void (*upload)(Backend *b, void *device, const void *host, size_t bytes); // host may be reused at return
    // host (from alloc_host) must not change until a later download or synchronize has returned
    void (*upload_async)(Backend *b, void *device, const void *host, size_t bytes);
    void (*download)(Backend *b, void *host, const void *device, size_t bytes); // waits
    void (*copy)(Backend *b, void *to, const void *from, size_t bytes);         // device to device
    void (*zero)(Backend *b, void *device, size_t bytes);
    void (*synchronize)(Backend *b); // also for collectives that nothing waited for
    void (*cast_from_f32)(Backend *b, elem_t *out, const float *in, size_t n);
    void (*cast_to_f32)(Backend *b, float *out, const elem_t *in, size_t n);

    // ---- embedding with slots: id >= 0 is row id of the table, id < 0 is row -1-id of the slots ----
    // out (T,D) = gathered rows of table (V,D) and slots (S,D); slots may be NULL when no id is negative
    void (*embedding_forward)(Backend *b, elem_t *out, const elem_t *table, const elem_t *slots, const int *ids, int T,
                              int D);
    // Adds dout rows to dtable (V,D) and dslots (S,D), both float; either may be NULL (frozen: left out).
    // order (T): row indices 0..T-1 sorted by id, equal ids by row; run r covers order[runs[r] .. runs[r+1]-1], which
    // all have one id; runs (n_runs+1). The rows of a run are added in a fixed order.
    void (*embedding_backward)(Backend *b, float *dtable, float *dslots, const elem_t *dout, const int *ids,
                               const int *order, const int *runs, int n_runs, int D);

    // ---- rows ----
    void (*gather_rows)(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n,
                        int D); // out[i] = in[rows[i]]
    void (*scatter_add_rows)(Backend *b, elem_t *out, const elem_t *in, const int *rows, int n,
                             int D); // out[rows[i]] += in[i], rows distinct
    // to[rows[i]*ld_to + 0..width) = from[i*ld_from + 0..width): appends keys and values to a cache
    void (*scatter_rows)(Backend *b, elem_t *to, int ld_to, const elem_t *from, int ld_from, const int *rows, int n,
                         int width);

    // ---- RMSNorm: out = x * rstd * w, rstd = 1/sqrt(mean(x^2) + eps), in fp32 ----
    // With delta (T,D) not NULL the residual add is fused: sum = x + delta is written (sum may be x), then normalised.
    // Without delta, sum is not touched and may be NULL. rstd (T). out may be NULL (only the sum is wanted).
    void (*rmsnorm_forward)(Backend *b, elem_t *out, elem_t *sum, float *rstd, const elem_t *x, const elem_t *delta,
                            const elem_t *w, int T, int D, float eps);
    // dx (T,D) += (it carries the residual's gradient), dw (D) float; x is the normalised input (the sum).
    // dw may be NULL (frozen).
    void (*rmsnorm_backward)(Backend *b, elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                             const float *rstd, int T, int D, int accumulate);

    // ---- matmul: torch's Linear; in (T,K), w (N,K), out (T,N) ----
    void (*matmul_forward)(Backend *b, elem_t *out, const elem_t *in, const elem_t *w, const elem_t *bias, int T, int K,
                           int N); // out = in w^T (+ bias (N))
    // out = residual + in w^T, rounded once; residual (T,N), may be out. NULL on a CPU, where the norm that follows
    // adds (delta).
    void (*matmul_forward_add)(Backend *b, elem_t *out, const elem_t *residual, const elem_t *in, const elem_t *w,
                               int T, int K, int N);
    void (*matmul_backward_input)(Backend *b, elem_t *din, const elem_t *dout, const elem_t *w, int T, int K, int N,
                                  int accumulate); // din (T,K) = dout w
    // dw (N,K) = dout^T in, dbias (N) = column sums of dout; float, fixed order; dbias may be NULL, dw may be NULL
    void (*matmul_backward_weight)(Backend *b, float *dw, float *dbias, const elem_t *dout, const elem_t *in, int T,
                                   int K, int N, int accumulate);

    // Algorithms of a GPU's matrix products; NULL on a CPU, which has one. Before the first product, on all ranks:
    // read: a file of algorithms to use, NULL: none; tune: the fastest is measured for each product that it lacks. That
    // changes no result of this run: those products use the library's choice.
    int (*algorithms)(Backend *b, const char *read, int tune, Error *err);
    // Writes what was read and measured to PATH, if something was measured since; rank 0's measurements alone.
    int (*algorithms_save)(Backend *b, const char *path, Error *err);
    // "42 in FILE; 40 used, 3 by the heuristic": so far, on this rank; the caller frees it.
    char *(*algorithms_text)(const Backend *b);

    // ---- rotary embedding, in place, "rotate half" pairing (i, i + HS/2) ----
    // x: T rows of `heads` heads, ld apart; cos_sin (max_position, HS): HS/2 cosines then HS/2 sines of each position.
    void (*rope)(Backend *b, elem_t *x, int ld, const float *cos_sin, const int *positions, int T, int heads, int HS);
    // dx (T,N), N a multiple of HS: the first `heads` heads of each row are rotated back. dbias (N) float = column sums
    // of the result, all N columns; NULL (frozen): not wanted.
    void (*rope_backward)(Backend *b, elem_t *dx, float *dbias, const float *cos_sin, const int *positions, int T,
                          int N, int heads, int HS, int accumulate);

    // ---- causal grouped-query attention inside each page, scale 1/sqrt(HS) ----
    // out (Tq,NH*HS), lse (Tq,NH) log-sum-exp of the scaled scores (NULL in decoding); q rows ldq apart with NH heads;
    // k and v rows ldk apart with KV heads. No array of size q_len x k_len exists for long pages.
    void (*attention_forward)(Backend *b, elem_t *out, float *lse, const elem_t *q, int ldq, const elem_t *k,
                              const elem_t *v, int ldk, const AttentionPages *pages, int NH, int KV, int HS);
    // dq, dk, dv have the layout of q, k, v and are overwritten on all rows of the pages.
    void (*attention_backward)(Backend *b, elem_t *dq, int ldq, elem_t *dk, elem_t *dv, int ldk, const elem_t *dout,
                               const elem_t *out, const float *lse, const elem_t *q, const elem_t *k, const elem_t *v,
                               const AttentionPages *pages, int NH, int KV, int HS);

    // ---- SwiGLU: gate_up (T,2F) holds gate then up in each row; out (T,F) = silu(gate) * up ----
    void (*swiglu_forward)(Backend *b, elem_t *out, const elem_t *gate_up, int T, int F);
    void (*swiglu_backward)(Backend *b, elem_t *dgate_up, const elem_t *dout, const elem_t *gate_up, int T,
                            int F); // dgate_up may be gate_up

    // ---- cross entropy over rows of logits (R,ld), of which the first V columns count (V <= ld) ----
    // loss (R) = -log softmax(logits)[label], unweighted; correct (R) = 1 where the largest logit is the label's (ties:
    // the lowest index wins). With weights (R) not NULL logits become their gradient: weight * (softmax - onehot), and
    // zero in the columns from V on.
    void (*cross_entropy)(Backend *b, float *loss, int *correct, elem_t *logits, const int *labels,
                          const float *weights, int R, int V, int ld);
    // lowest index of the largest of the first V of each row
    void (*argmax)(Backend *b, int *out, const elem_t *logits, int R, int V, int ld);
    // *sum (double, device) = or += sum of weights[i] * loss[i] over n rows, in double, fixed order
    void (*weighted_sum)(Backend *b, double *sum, const float *loss, const float *weights, int n, int accumulate);

    // ---- optimizer ----
    // One pass over n elements (n a multiple of 64): g = grad * *scale (device scalar; if it is not finite nothing is
    // changed); m, v, master are fp32. param is written back in elem. In fp32 runs master may be NULL: param itself is
    // the master.   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
    //               p -= lr * ((m/bias1) / (sqrt(v/bias2) + eps) + wd * p)
    void (*adamw)(Backend *b, elem_t *param, float *master, float *m, float *v, const float *grad, const float *scale,
                  size_t n, const AdamWParams *p);
    // *sum (double, device) = sum of squares of n floats (n a multiple of 256), in blocks of 256, fixed order
    void (*sum_squares)(Backend *b, double *sum, const float *x, size_t n);
    // *norm = sqrt of the sum of n partial sums of squares, added in order; *scale = min(1, clip / (norm + 1e-6)), or 1
    // when clip <= 0; NaN when the norm is not finite, which turns adamw into nothing. All device memory.
    void (*clip_scale)(Backend *b, float *scale, double *norm, const double *partial, int n, double clip);

    // ---- collectives over the ranks of b->dist; every rank calls them in the same order ----
    // They are queued behind all work queued so far, on a stream of their own; work queued later does not wait for
    // them until `wait_for` says so. tag: a small number >= 0 that names a collective (params.h gives each bucket two).
    // Reduce-scatter: buffer (ranks * n); shard (n) = or += the sum over ranks of piece `rank`, added in rank order
    // 0,1,2,... on the CPU. shard may be that piece itself, buffer + rank*n, with accumulate = 0; the buffer's other
    // pieces are undefined afterwards.
    void (*reduce_scatter)(Backend *b, float *shard, float *buffer, size_t n, int accumulate, int tag);
    // All-gather in place: this rank's `bytes` at buffer + rank*bytes are given to all.
    void (*all_gather)(Backend *b, void *buffer, size_t bytes, int tag);
    // Work queued from now on waits for the last collective with this tag; nothing to do when there was none.
    void (*wait_for)(Backend *b, int tag);

    // ---- names for profilers: begins and ends a range, which may lie in others; name: static memory; number < 0: none
    void (*range_push)(Backend *b, const char *name, int number);
    void (*range_pop)(Backend *b);

    // ---- times ----
    // Notes the time at which all work queued so far is done, on the compute stream or, with collectives = 1, on theirs
    // (the compute stream where they have none of their own). The host does not wait.
    void (*stamp)(Backend *b, int collectives);
    // Seconds from the first stamp to each of the n oldest that were not read yet, in the order of the calls. Waits for
    // these and the one behind them, which takes no time after a download or synchronize. When all have been
    // read, no time need seem to pass until the next.
    void (*read_stamps)(Backend *b, double *seconds, int n);
};

static inline elem_t *elem_at(const Backend *b, const elem_t *x, size_t i) {
    return (char *)(uintptr_t)x + i * dtype_size(b->dtype);
}

// Scratch memory of a GPU backend for `reserve`: row sums of the attention's backward pass (rows, heads), and the
// partial sums of RMSNorm's and the biases' gradients, at most BACKEND_SUM_BLOCKS rows of `width`; all fp32.
enum { BACKEND_SUM_BLOCKS = 512, BACKEND_GEMM_WORKSPACE = 64 << 20 };
static inline size_t backend_scratch_bytes(int rows, int heads, int width) {
    return ((size_t)rows * (size_t)heads + (size_t)BACKEND_SUM_BLOCKS * (size_t)width) * sizeof(float) + 65536;
}

// device: "auto" (a GPU if this build and this host have one, else the CPU), "cuda" or "cpu". threads: of the host, 0 =
// this rank's share of its cores. All ranks agree on the device, or all fail. *notes, if not NULL: one line on
// the choice when it is worth a word (static memory), else NULL.
int backend_create(Backend **out, const char *device, DType dtype, int threads, Dist *dist, const char **notes,
                   Error *err);
// The two backends alone. A build without CUDA has no backend_cuda_create: the symbol is NULL then.
int backend_cpu_create(Backend **out, DType dtype, int threads, Dist *dist, Error *err);
int backend_cuda_create(Backend **out, DType dtype, Dist *dist, Error *err) __attribute__((weak));
// GPUs this process can use; 0 also when there is no driver, -1 when the driver is too old for this build.
int backend_cuda_devices(void) __attribute__((weak));
// First thing in main: makes waiting threads sleep soon instead of spinning. libgomp reads its settings before main, so
// the program starts itself once more with GOMP_SPINCOUNT in its environment, unless the user set that or
// OMP_WAIT_POLICY.
void backend_cpu_prepare(char **argv);
// The instruction set of the CPU kernels that are chosen here for this type: "avx512"; NULL: none runs here.
const char *backend_cpu_kernels(DType dtype);
// FLOP/s of the matrix product's inner loop on registers alone, on all threads of a CPU backend; takes about 50 ms.
double backend_cpu_measure_peak(Backend *b);

#ifdef __cplusplus
}
#endif
#endif
