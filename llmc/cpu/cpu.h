// cpu.h: inside the CPU backend: the table of kernels that each ISA variant fills, and how work is divided among
// threads.
//
// Kernels are single-threaded and work on a range; the files beside this header split the ranges and own the parallel
// regions. No kernel splits a sum by thread: results do not depend on the number of threads. Uses base and backend.h.
#ifndef LLMC_CPU_H
#define LLMC_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/backend.h"

#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_num_threads(void) { return 1; }
#endif

// A matrix product C (M,N) = A (M,K) B (K,N), or C += A B.
typedef struct Gemm {
    void *c;            // float when c_float, else elem; rows ldc apart
    const elem_t *a;    // (M,K) rows lda apart; a_columns: stored transposed, (K,M)
    const elem_t *b;    // b_rows: (K,N) rows ldb apart; else stored transposed, (N,K)
    const elem_t *bias; // (N) or NULL
    ptrdiff_t ldc, lda, ldb;
    int M, N, K;
    int a_columns, b_rows, c_float, accumulate;
} Gemm;

// Attention of one page and one key/value head: base pointers are those of its first rows and first head.
typedef struct AttentionHead {
    const elem_t *q, *k, *v;
    elem_t *out;            // forward
    float *lse;             // forward: written when not NULL; backward: read
    const elem_t *o, *dout; // backward
    elem_t *dq, *dk, *dv;   // backward
    ptrdiff_t ldq, ldk, ldo, ld_lse;
    int q_len, k_len;
    int q_begin, q_end; // forward: the query rows wanted
    int group, HS;      // query heads per key/value head
    float scale;
} AttentionHead;

typedef struct CpuKernels {
    const char *isa;
    int tile_rows, tile_cols; // register tile of the matrix product

    void (*cast_from_f32)(elem_t *out, const float *in, size_t n);
    void (*cast_to_f32)(float *out, const elem_t *in, size_t n);
    void (*add_row_f32)(float *out, const elem_t *in, int n); // out += in
    void (*add_row)(elem_t *out, const elem_t *in, int n);    // out += in
    void (*rmsnorm_forward)(elem_t *out, elem_t *sum, float *rstd, const elem_t *x, const elem_t *delta,
                            const elem_t *w, int begin, int end, int D, float eps);
    // dw (D) float is overwritten with the sum over the rows; may be NULL
    void (*rmsnorm_backward)(elem_t *dx, float *dw, const elem_t *dout, const elem_t *x, const elem_t *w,
                             const float *rstd, int begin, int end, int D);
    void (*rope)(elem_t *x, int ld, const float *cos_sin, const int *positions, int begin, int end, int heads, int HS,
                 int backward);
    void (*swiglu_forward)(elem_t *out, const elem_t *gate_up, int begin, int end, int F);
    void (*swiglu_backward)(elem_t *dgate_up, const elem_t *dout, const elem_t *gate_up, int begin, int end, int F);
    void (*cross_entropy)(float *loss, int *correct, elem_t *logits, const int *labels, const float *weights, int begin,
                          int end, int V, int row_stride);
    void (*argmax)(int *out, const elem_t *logits, int begin, int end, int V, int row_stride);
    void (*adamw)(elem_t *param, float *master, float *m, float *v, const float *grad, float scale, size_t begin,
                  size_t end, const AdamWParams *p);
    double (*sum_squares)(const float *x, size_t n); // n a multiple of 256
    // out (columns begin..end-1) = or += sums over T rows of x, rows ld apart
    void (*column_sums)(float *out, const elem_t *x, ptrdiff_t ld, int T, int begin, int end, int accumulate);

    size_t (*gemm_scratch)(const Gemm *g);
    void (*gemm)(const Gemm *g, void *scratch);
    double (*peak)(int repeats); // runs the inner loop on registers and L1; returns the FLOPs done
    size_t (*attention_forward_scratch)(int k_len, int HS);
    void (*attention_forward)(const AttentionHead *h, void *scratch);
    size_t (*attention_backward_scratch)(int k_len, int HS);
    void (*attention_backward)(const AttentionHead *h, void *scratch);
} CpuKernels;

extern const CpuKernels cpu_kernels_base_f32, cpu_kernels_base_bf16;
#ifdef CPU_HAVE_X86_VARIANTS
extern const CpuKernels cpu_kernels_avx512_f32, cpu_kernels_avx512_bf16, cpu_kernels_avx512bf16_bf16;
#endif

typedef struct CpuState {
    const CpuKernels *kernels;
    char name[32];
    // Scratch, grown on demand: one piece per thread, and one shared by all.
    void **thread_scratch;
    size_t *thread_scratch_bytes;
    void *shared_scratch;
    size_t shared_scratch_bytes;
    double *stamps; // (n_stamps) seconds, not read yet
    int n_stamps, stamps_capacity;
    double first_stamp; // ever; 0: there was none
} CpuState;

static inline const CpuKernels *cpu_kernels(const Backend *b) { return ((const CpuState *)b->state)->kernels; }
// At least `bytes` of 64-byte aligned memory, contents undefined, valid until the next call for the same piece.
void *cpu_thread_scratch(Backend *b, int thread, size_t bytes);
void *cpu_shared_scratch(Backend *b, size_t bytes);

// Threads worth using for `work` (one unit per element touched, or per vector multiply-add): waking the others costs
// about 20 us, in which one thread does 80,000 units.
static inline int cpu_threads(const Backend *b, double work) {
    return b->threads > 1 && work > 262144.0 ? b->threads : 1;
}

// Part `thread` of `threads` of n items.
static inline size_t cpu_split(size_t n, int thread, int threads) {
    return n / (size_t)threads * (size_t)thread + n % (size_t)threads * (size_t)thread / (size_t)threads;
}

// Runs the statements on `count` threads, of which `thread` of `threads` is this one. A single thread enters no
// parallel region.
#define CPU_PARALLEL(count, ...)                                                                                       \
    do {                                                                                                               \
        const int parallel_count = (count);                                                                            \
        if (parallel_count == 1) {                                                                                     \
            const int thread = 0, threads = 1;                                                                         \
            __VA_ARGS__                                                                                                \
        } else {                                                                                                       \
            _Pragma("omp parallel num_threads(parallel_count)") {                                                      \
                const int thread = omp_get_thread_num(), threads = omp_get_num_threads();                              \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

// The same over rows: begin..end-1 are this thread's.
#define CPU_PARALLEL_ROWS(b, rows, row_work, ...)                                                                      \
    CPU_PARALLEL(cpu_threads(b, (double)(rows) * (double)(row_work)),                                                  \
                 const int begin = (int)cpu_split((size_t)(rows), thread, threads);                                    \
                 const int end = (int)cpu_split((size_t)(rows), thread + 1, threads); __VA_ARGS__)

// out (N) = or += column sums of x (T,N): gradients of biases (matmul.c).
void cpu_column_sums(Backend *b, float *out, const elem_t *x, int T, int N, int accumulate);

// What fills the Backend: layers.c, matmul.c, attention.c.
void cpu_layers_fill(Backend *b);
void cpu_matmul_fill(Backend *b);
void cpu_attention_fill(Backend *b);

#endif
