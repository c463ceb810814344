// matmul.cu: the three products of a linear layer through cuBLASLt, gradients of biases, measurement of the GPU's peak.
//
// cuBLASLt is column-major: a row-major (T,N) is its N x T. So, with in (T,K), w (N,K), out (T,N):
//     forward    out  (N x T) = w^T (K x N, transposed)  in (K x T)           + bias along N, or + residual (N x T)
//     d input    din  (K x T) = w (K x N)                dout (N x T)
//     d weight   dw   (K x N) = in (K x T)               dout^T (N x T, transposed)      fp32 out
// No leading dimension depends on T. A plan (descriptor, layouts, algorithm) is kept for each kind, K, N, alignment of
// the pointers and bucket of T: packed batches change T every step, and there are 8 buckets from one power of two to
// the next. The algorithm is the table's, if one was read (algorithms.h), else the heuristic's first choice for the
// bucket's largest T; the layouts carry the exact T, and if cublasLtMatmulAlgoCheck refuses it, T gets a plan of its
// own by the heuristic, which is counted. Partial sums of split K are added in fp32, so that a bf16 result is rounded
// once. fp32 products do not use TF32.
//
// Tuning fills the table: what it lacks is timed on rank 0 with the operands of the first such product, which then
// goes on with the heuristic's first choice, so that tuning changes no result.
#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/cuda/algorithms.h"
#include "llmc/cuda/common.cuh"

#include <stdio.h>  // snprintf
#include <stdlib.h> // free
#include <string.h> // memcmp

// ---- plans ----
struct Plan {
    PlanKey key;
    int rows;   // of the layouts
    bool tuned; // looked at
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
    Plan *next;
};

enum { PLAN_LISTS = 256 };
struct CudaMatmul {
    cublasLtHandle_t handle;
    void *workspace; // BACKEND_GEMM_WORKSPACE bytes
    Plan *plans[PLAN_LISTS];
    AlgorithmTable table;
    char *note;      // about the file of the table; NULL: none was read
    bool tune;       // times what the table lacks
    bool unwritten;  // something was timed since the table was written
    int from_table;  // plans whose algorithm is the table's
    int first;       // the heuristic's
    int exact;       // of those, for a T whose bucket's algorithm was refused
    int timed, beat; // by tuning; of those, where another is faster than the heuristic's first
};

// Operands in cuBLASLt's order.
struct Product {
    Kind kind;
    const void *a, *b, *bias, *c; // c, times beta, is added
    void *d;
    int T, K, N;
    float beta;
};

static bool is_forward(int kind) { return kind == FORWARD || kind == FORWARD_BIAS || kind == FORWARD_ADD; }

// The largest T of T's bucket: up to 16 exact, then 8 buckets from one power of two to the next.
static int bucket_rows(int T) {
    int step = 1;
    while (T / step > 16) step *= 2;
    return (int)(ceil_divide((size_t)T, (size_t)step) * (size_t)step);
}

static int alignment(const void *p) {
    const uintptr_t at = (uintptr_t)p | 16;
    return (int)(at & (~at + 1));
}

static PlanKey key_of(const Product *p) {
    PlanKey key = {p->kind, p->K, p->N, bucket_rows(p->T), 0, alignment(p->a), alignment(p->b), alignment(p->d)};
    const int align_bias = p->bias ? alignment(p->bias) : 16; // the epilogue reads it like D
    if (align_bias < key.align_d) key.align_d = align_bias;
    if (alignment(p->c) < key.align_d) key.align_d = alignment(p->c);
    return key;
}

static Plan **list_of(CudaMatmul *m, const PlanKey *key) {
    unsigned hash = 2166136261u;
    const int words[] = {key->kind, key->K, key->N, key->rows};
    for (int word : words) hash = (hash ^ (unsigned)word) * 16777619u;
    return &m->plans[(hash ^ hash >> 16) % PLAN_LISTS];
}

// Sets T columns in the layouts that have one for each row of the batch; d weight has two of them.
static void set_rows(Plan *plan, int rows) {
    const uint64_t columns = (uint64_t)rows;
    cublasLtMatrixLayout_t with_rows[2] = {plan->b, plan->key.kind == BACKWARD_WEIGHT ? plan->a : plan->d};
    for (cublasLtMatrixLayout_t layout : with_rows)
        CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof columns));
    plan->rows = rows;
}

static void describe(Backend *b, Plan *plan) {
    const int kind = plan->key.kind;
    const uint64_t K = (uint64_t)plan->key.K, N = (uint64_t)plan->key.N, T = (uint64_t)plan->key.rows;
    const bool forward = is_forward(kind), weight = kind == BACKWARD_WEIGHT;
    const cudaDataType_t type = b->dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    if (forward)
        CUBLAS_CHECK(
            cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    if (weight)
        CUBLAS_CHECK(
            cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_TRANSB, &transposed, sizeof transposed));
    if (kind == FORWARD_BIAS) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        CUBLAS_CHECK(
            cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    }
    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->a, type, K, weight ? T : N, (int64_t)K));
    if (forward) CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->b, type, K, T, (int64_t)K));
    else CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->b, type, N, T, (int64_t)N));
    if (forward) CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->d, type, N, T, (int64_t)N));
    else CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan->d, weight ? CUDA_R_32F : type, K, weight ? N : T, (int64_t)K));
    plan->rows = plan->key.rows;
}

static void set_preference(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                           int bytes) {
    const uint32_t value = (uint32_t)bytes;
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

// The heuristic's algorithms for the layouts as they are, best first: fills at most `most`, at least one; how many.
static int ask_heuristic(CudaMatmul *m, const Plan *plan, cublasLtMatmulHeuristicResult_t *results, int most) {
    const uint64_t workspace = BACKEND_GEMM_WORKSPACE;
    cublasLtMatmulPreference_t preference;
    CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                      sizeof workspace));
    set_preference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, plan->key.align_a);
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, plan->key.align_b);
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, plan->key.align_d);
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, plan->key.align_d);
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(m->handle, plan->desc, plan->a, plan->b, plan->d,
                                                                 plan->d, preference, most, results, &found);
    CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_SUCCESS || found < 1) {
        char text[160];
        snprintf(text, sizeof text, "no algorithm for %s, T %d, K %d, N %d: %s", kind_name(plan->key.kind), plan->rows,
                 plan->key.K, plan->key.N, cublasLtGetStatusString(status));
        cuda_fatal(__FILE__, __LINE__, "cublasLtMatmulAlgoGetHeuristic", text);
    }
    return found;
}

// Whether the algorithm takes the rows that the layouts have.
static bool takes(CudaMatmul *m, const Plan *plan, const cublasLtMatmulAlgo_t *algo) {
    cublasLtMatmulHeuristicResult_t result;
    return cublasLtMatmulAlgoCheck(m->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, algo, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= (size_t)BACKEND_GEMM_WORKSPACE;
}

static void choose_algorithm(CudaMatmul *m, Plan *plan) {
    const Algorithm *known = algorithm_find(&m->table, &plan->key);
    if (known && takes(m, plan, &known->algo)) {
        plan->algo = known->algo;
        m->from_table++;
        return;
    }
    cublasLtMatmulHeuristicResult_t result;
    ask_heuristic(m, plan, &result, 1);
    plan->algo = result.algo;
    m->first++;
    m->exact += plan->key.exact;
}

static Plan *plan_for(Backend *b, const PlanKey *key) {
    CudaMatmul *m = cuda_state(b)->matmul;
    Plan **list = list_of(m, key);
    for (Plan *p = *list; p; p = p->next) {
        if (!memcmp(&p->key, key, sizeof *key)) return p;
    }
    Plan *plan = (Plan *)alloc_zeroed(1, sizeof *plan, "matmul plan");
    plan->key = *key;
    describe(b, plan);
    choose_algorithm(m, plan);
    plan->next = *list;
    *list = plan;
    return plan;
}

// The plan whose layouts have exactly the product's rows, and whose algorithm takes them.
static Plan *exact_plan(Backend *b, const Product *p) {
    PlanKey key = key_of(p);
    Plan *plan = plan_for(b, &key);
    if (plan->rows == p->T) return plan;
    set_rows(plan, p->T);
    if (takes(cuda_state(b)->matmul, plan, &plan->algo)) return plan;
    set_rows(plan, key.rows); // asked again, the bucket's plan is checked again
    key.rows = p->T;
    key.exact = 1;
    return plan_for(b, &key);
}

static cublasStatus_t launch(Backend *b, const Plan *plan, const Product *p, const cublasLtMatmulAlgo_t *algo) {
    CudaMatmul *m = cuda_state(b)->matmul;
    const float one = 1.0f;
    return cublasLtMatmul(m->handle, plan->desc, &one, p->a, plan->a, p->b, plan->b, &p->beta, p->c, plan->d, p->d,
                          plan->d, algo, m->workspace, BACKEND_GEMM_WORKSPACE, cuda_stream(b));
}

static void tune(Backend *b, Plan *plan, const Product *p);

static void multiply(Backend *b, const Product *p) {
    CudaMatmul *m = cuda_state(b)->matmul;
    Plan *plan = exact_plan(b, p);
    if (p->bias)
        CUBLAS_CHECK(
            cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    if (m->tune && !plan->tuned) tune(b, plan, p);
    CUBLAS_CHECK(launch(b, plan, p, &plan->algo));
}

// ---- tuning ----
enum { CANDIDATES = 8, ROUNDS = 2, REPEATS = 4 };

// Milliseconds of a product; negative: the algorithm does not run. What was queued before has ended.
static double time_algorithm(Backend *b, const Plan *plan, const Product *p, const cublasLtMatmulAlgo_t *algo,
                             bool first) {
    cudaEvent_t begin, end;
    float ms = 0;
    cublasStatus_t status = first ? launch(b, plan, p, algo) : CUBLAS_STATUS_SUCCESS; // loads the kernel
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    CUDA_CHECK(cudaEventRecord(begin, cuda_stream(b)));
    for (int i = 0; i < REPEATS && status == CUBLAS_STATUS_SUCCESS; i++) status = launch(b, plan, p, algo);
    CUDA_CHECK(cudaEventRecord(end, cuda_stream(b)));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return status == CUBLAS_STATUS_SUCCESS ? (double)ms / REPEATS : -1;
}

// Puts the fastest of the heuristic's best into the table: the least of the rounds counts, and one that is not faster
// by a hundredth does not take the place of one that the heuristic likes better.
static void time_all(Backend *b, Plan *plan, const Product *p) {
    CudaMatmul *m = cuda_state(b)->matmul;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    double ms[CANDIDATES];
    set_rows(plan, plan->key.rows);
    const int n = ask_heuristic(m, plan, found, CANDIDATES);
    set_rows(plan, p->T);
    for (int i = 0; i < n; i++) ms[i] = takes(m, plan, &found[i].algo) ? 1e9 : -1;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) {
            if (ms[i] < 0) continue;
            const double now = time_algorithm(b, plan, p, &found[i].algo, round == 0);
            if (now < ms[i]) ms[i] = now;
        }
    }
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (ms[i] >= 0 && (best < 0 || ms[i] < 0.99 * ms[best])) best = i;
    }
    if (best < 0) return;
    const Algorithm row = {plan->key, found[best].algo, ms[best], ms[0] < 0 ? ms[best] : ms[0]};
    algorithm_add(&m->table, &row);
    m->unwritten = true;
    m->timed++;
    m->beat += best > 0;
}

// d is written over: by the product itself when it does not add to it, else another array takes d's place. Where there
// is no memory for that, the next such product is asked. Waits on the watch for all that could hang.
static void tune(Backend *b, Plan *plan, const Product *p) {
    CudaMatmul *m = cuda_state(b)->matmul;
    Product timed = *p;
    if (plan->key.exact || algorithm_find(&m->table, &plan->key)) {
        plan->tuned = true;
        return;
    }
    cuda_comm_wait(b, 1);
    if (p->beta != 0 && p->c == p->d) {
        const bool weight = p->kind == BACKWARD_WEIGHT, forward = is_forward(p->kind);
        const size_t rows = (size_t)(weight ? p->N : p->T), columns = (size_t)(forward ? p->N : p->K);
        if (cudaMalloc(&timed.d, rows * columns * (weight ? sizeof(float) : dtype_size(b->dtype))) != cudaSuccess) {
            (void)cudaGetLastError();
            return;
        }
    }
    time_all(b, plan, &timed);
    plan->tuned = true;
    if (timed.d != p->d) CUDA_CHECK(cudaFree(timed.d));
}

static int algorithms(Backend *b, const char *read, int tune_rest, Error *err) {
    CudaMatmul *m = cuda_state(b)->matmul;
    m->tune = tune_rest && b->dist->rank == 0;
    return read ? algorithms_read(&m->table, &m->note, b, read, err) : 0;
}

static int algorithms_save(Backend *b, const char *path, Error *err) {
    CudaMatmul *m = cuda_state(b)->matmul;
    if (!m->unwritten) return 0;
    m->unwritten = false;
    return algorithms_write(&m->table, b, path, err);
}

static char *algorithms_text(const Backend *b) {
    const CudaMatmul *m = cuda_state(b)->matmul;
    char *text = NULL;
    if (m->note) string_append(&text, "%s", clean(m->note));
    if (m->note && m->from_table + m->first == 0) return text; // nothing was multiplied yet
    if (m->note) string_append(&text, "; %d used, ", m->from_table);
    string_append(&text, "%d by the heuristic", m->first);
    if (m->exact)
        string_append(&text, " (%d for one number of rows, which their bucket's algorithm does not take)", m->exact);
    if (m->timed) string_append(&text, "; %d timed, another faster in %d", m->timed, m->beat);
    return text;
}

// ---- the table ----
static void matmul_forward(Backend *b, elem_t *out, const elem_t *in, const elem_t *w, const elem_t *bias, int T, int K,
                           int N) {
    if (T <= 0) return;
    const Product p = {bias ? FORWARD_BIAS : FORWARD, w, in, bias, out, out, T, K, N, 0.0f};
    multiply(b, &p);
}

static void matmul_forward_add(Backend *b, elem_t *out, const elem_t *residual, const elem_t *in, const elem_t *w,
                               int T, int K, int N) {
    if (T <= 0) return;
    const Product p = {FORWARD_ADD, w, in, NULL, residual, out, T, K, N, 1.0f};
    multiply(b, &p);
}

static void matmul_backward_input(Backend *b, elem_t *din, const elem_t *dout, const elem_t *w, int T, int K, int N,
                                  int accumulate) {
    if (T <= 0) return;
    const Product p = {BACKWARD_INPUT, w, dout, NULL, din, din, T, K, N, accumulate ? 1.0f : 0.0f};
    multiply(b, &p);
}

static void matmul_backward_weight(Backend *b, float *dw, float *dbias, const elem_t *dout, const elem_t *in, int T,
                                   int K, int N, int accumulate) {
    if (dw && T > 0) {
        const Product p = {BACKWARD_WEIGHT, in, dout, NULL, dw, dw, T, K, N, accumulate ? 1.0f : 0.0f};
        multiply(b, &p);
    } else if (dw && !accumulate) {
        b->zero(b, dw, (size_t)N * (size_t)K * sizeof(float));
    }
    if (dbias) cuda_column_sums(b, dbias, dout, T, N, accumulate);
}

// ---- the peak ----
// Pseudorandom numbers in (-1, 1): a GPU's clock depends on how many bits flip.
template <class E, int W> __global__ void fill_kernel(E *x, size_t n) {
    const size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (i >= n) return;
    float v[W];
#pragma unroll
    for (int j = 0; j < W; j++) {
        unsigned hash = (unsigned)(i + j) * 2654435761u;
        hash = (hash ^ hash >> 15) * 2246822519u;
        v[j] = (float)(int)(hash ^ hash >> 13) * (1.0f / 2147483648.0f);
    }
    store(x + i, v);
}

template <class E, int W> static void launch_fill(Backend *b, elem_t *x, size_t n) {
    fill_kernel<E, W><<<(unsigned)ceil_divide(n, 256 * W), 256, 0, cuda_stream(b)>>>((E *)x, n);
    CUDA_CHECK_LAUNCH("fill_kernel");
}

// Seconds of one of `repeats` products of side n.
static double time_product(Backend *b, elem_t *out, const elem_t *in, const elem_t *w, int n, int repeats) {
    cudaEvent_t begin, end;
    float ms = 0;
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    CUDA_CHECK(cudaEventRecord(begin, cuda_stream(b)));
    for (int i = 0; i < repeats; i++) matmul_forward(b, out, in, w, NULL, n, n, n);
    CUDA_CHECK(cudaEventRecord(end, cuda_stream(b)));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return (double)ms * 1e-3 / repeats;
}

// Sides double until a product takes a millisecond; the last is repeated for some 50 ms.
static void forget_plans(CudaMatmul *m);
double cuda_matmul_peak(Backend *b) {
    enum { SMALLEST = 128, LARGEST = 8192 };
    double rate = 0;
    bool larger = true;
    for (int n = SMALLEST; larger && n <= LARGEST; n *= 2) {
        const size_t side = (size_t)n * (size_t)n, bytes = side * dtype_size(b->dtype);
        void *x[3] = {NULL, NULL, NULL}; // two factors, product
        Error err;
        for (void *&array : x) larger = larger && !b->alloc(b, &array, bytes, "peak measurement", &err);
        if (larger) {
            CUDA_FOR_ELEMENTS(b, true, launch_fill, b, x[0], side);
            CUDA_FOR_ELEMENTS(b, true, launch_fill, b, x[1], side);
            time_product(b, x[2], x[0], x[1], n, 1); // chooses the algorithm, loads the kernel
            double seconds = time_product(b, x[2], x[0], x[1], n, 1);
            larger = seconds < 1e-3;
            const int repeats = (int)(0.05 / (seconds + 1e-6));
            if ((!larger || n == LARGEST) && repeats > 1) seconds = time_product(b, x[2], x[0], x[1], n, repeats);
            rate = 2.0 * n * n * (double)n / seconds;
        }
        for (void *array : x) {
            if (array) b->release(b, array);
        }
    }
    forget_plans(cuda_state(b)->matmul); // they are none of the model's
    return rate;
}

// ---- creation and end ----
int cuda_matmul_create(Backend *b, Error *err) {
    CudaMatmul *m = (CudaMatmul *)alloc_zeroed(1, sizeof *m, "matmul plans");
    cuda_state(b)->matmul = m;
    b->matmul_forward = matmul_forward;
    b->matmul_forward_add = matmul_forward_add;
    b->matmul_backward_input = matmul_backward_input;
    b->matmul_backward_weight = matmul_backward_weight;
    b->algorithms = algorithms;
    b->algorithms_save = algorithms_save;
    b->algorithms_text = algorithms_text;
    const cublasStatus_t status = cublasLtCreate(&m->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return error_set(err, "cuBLASLt does not start: %s (hint: are its libraries those of this CUDA toolkit?)",
                         cublasLtGetStatusString(status));
    return b->alloc(b, &m->workspace, BACKEND_GEMM_WORKSPACE, "cuBLASLt's workspace", err);
}

static void forget_plans(CudaMatmul *m) {
    for (Plan *&list : m->plans) {
        for (Plan *p = list, *next; p; p = next) {
            next = p->next;
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->a));
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->b));
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->d));
            CUBLAS_CHECK(cublasLtMatmulDescDestroy(p->desc));
            free(p);
        }
        list = NULL;
    }
    m->from_table = m->first = m->exact = 0;
}

void cuda_matmul_free(Backend *b) {
    CudaMatmul *m = cuda_state(b)->matmul;
    if (!m) return;
    forget_plans(m);
    if (m->workspace) b->release(b, m->workspace);
    if (m->handle) CUBLAS_CHECK(cublasLtDestroy(m->handle));
    free(m->table.rows);
    free(m->note);
    free(m);
    cuda_state(b)->matmul = NULL;
}
