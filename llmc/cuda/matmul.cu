// matmul.cu: the three products of a linear layer through cuBLASLt, gradients of biases, measurement of the GPU's peak.
//
// cuBLASLt is column-major: a row-major (T,N) is its N x T. So, with in (T,K), w (N,K), out (T,N):
//     forward    out  (N x T) = w^T (K x N, transposed)  in (K x T)           + bias along N
//     d input    din  (K x T) = w (K x N)                dout (N x T)
//     d weight   dw   (K x N) = in (K x T)               dout^T (N x T, transposed)      fp32 out
// No leading dimension depends on T. A plan (descriptor, layouts, algorithm) is kept for each kind, K, N, alignment of
// the pointers and bucket of T: packed batches change T every step, and there are 8 buckets from one power of two to
// the next. The algorithm is the heuristic's choice for the bucket's largest T; the layouts carry the exact T, and if
// cublasLtMatmulAlgoCheck refuses it, T gets a plan of its own. Partial sums of split K are added in fp32, so that a
// bf16 result is rounded once. fp32 products do not use TF32.
#include "llmc/base/alloc.h"
#include "llmc/cuda/common.cuh"

#include <stdio.h>  // snprintf
#include <stdlib.h> // free
#include <string.h> // memcmp

// ---- plans ----
enum Kind { FORWARD, FORWARD_BIAS, BACKWARD_INPUT, BACKWARD_WEIGHT };

struct PlanKey {
    int kind, K, N, rows; // rows: the bucket's, or the exact number with exact = 1
    int exact;
    int align_a, align_b, align_d; // bytes, up to 16
};

struct Plan {
    PlanKey key;
    int rows; // of the layouts
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
};

// Operands in cuBLASLt's order.
struct Product {
    Kind kind;
    const void *a, *b, *bias;
    void *d;
    int T, K, N;
    float beta;
};

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
    const bool forward = kind == FORWARD || kind == FORWARD_BIAS, weight = kind == BACKWARD_WEIGHT;
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

// The heuristic's algorithm for the layouts as they are.
static void choose_algorithm(CudaMatmul *m, Plan *plan) {
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
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(m->handle, plan->desc, plan->a, plan->b, plan->d,
                                                                 plan->d, preference, 1, &result, &found);
    CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_SUCCESS || found < 1) {
        static const char *const names[] = {"forward", "forward with bias", "d input", "d weight"};
        char text[160];
        snprintf(text, sizeof text, "no algorithm for %s, T %d, K %d, N %d: %s", names[plan->key.kind], plan->rows,
                 plan->key.K, plan->key.N, cublasLtGetStatusString(status));
        cuda_fatal(__FILE__, __LINE__, "cublasLtMatmulAlgoGetHeuristic", text);
    }
    plan->algo = result.algo;
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
    CudaMatmul *m = cuda_state(b)->matmul;
    PlanKey key = key_of(p);
    Plan *plan = plan_for(b, &key);
    if (plan->rows == p->T) return plan;
    set_rows(plan, p->T);
    cublasLtMatmulHeuristicResult_t result;
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(m->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, &plan->algo, &result);
    if (status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= (size_t)BACKEND_GEMM_WORKSPACE) return plan;
    set_rows(plan, key.rows); // asked again, the bucket's plan is checked again
    key.rows = p->T;
    key.exact = 1;
    return plan_for(b, &key);
}

static void multiply(Backend *b, const Product *p) {
    CudaMatmul *m = cuda_state(b)->matmul;
    Plan *plan = exact_plan(b, p);
    const float one = 1.0f;
    if (p->bias)
        CUBLAS_CHECK(
            cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    CUBLAS_CHECK(cublasLtMatmul(m->handle, plan->desc, &one, p->a, plan->a, p->b, plan->b, &p->beta, p->d, plan->d,
                                p->d, plan->d, &plan->algo, m->workspace, BACKEND_GEMM_WORKSPACE, cuda_stream(b)));
}

// ---- the table ----
static void matmul_forward(Backend *b, elem_t *out, const elem_t *in, const elem_t *w, const elem_t *bias, int T, int K,
                           int N) {
    if (T <= 0) return;
    const Product p = {bias ? FORWARD_BIAS : FORWARD, w, in, bias, out, T, K, N, 0.0f};
    multiply(b, &p);
}

static void matmul_backward_input(Backend *b, elem_t *din, const elem_t *dout, const elem_t *w, int T, int K, int N,
                                  int accumulate) {
    if (T <= 0) return;
    const Product p = {BACKWARD_INPUT, w, dout, NULL, din, T, K, N, accumulate ? 1.0f : 0.0f};
    multiply(b, &p);
}

static void matmul_backward_weight(Backend *b, float *dw, float *dbias, const elem_t *dout, const elem_t *in, int T,
                                   int K, int N, int accumulate) {
    if (dw && T > 0) {
        const Product p = {BACKWARD_WEIGHT, in, dout, NULL, dw, T, K, N, accumulate ? 1.0f : 0.0f};
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
    return rate;
}

// ---- creation and end ----
int cuda_matmul_create(Backend *b, Error *err) {
    CudaMatmul *m = (CudaMatmul *)alloc_zeroed(1, sizeof *m, "matmul plans");
    cuda_state(b)->matmul = m;
    b->matmul_forward = matmul_forward;
    b->matmul_backward_input = matmul_backward_input;
    b->matmul_backward_weight = matmul_backward_weight;
    const cublasStatus_t status = cublasLtCreate(&m->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return error_set(err, "cuBLASLt does not start: %s (hint: are its libraries those of this CUDA toolkit?)",
                         cublasLtGetStatusString(status));
    return b->alloc(b, &m->workspace, BACKEND_GEMM_WORKSPACE, "cuBLASLt's workspace", err);
}

void cuda_matmul_free(Backend *b) {
    CudaMatmul *m = cuda_state(b)->matmul;
    if (!m) return;
    for (Plan *list : m->plans) {
        for (Plan *p = list, *next; p; p = next) {
            next = p->next;
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->a));
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->b));
            CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(p->d));
            CUBLAS_CHECK(cublasLtMatmulDescDestroy(p->desc));
            free(p);
        }
    }
    if (m->workspace) b->release(b, m->workspace);
    if (m->handle) CUBLAS_CHECK(cublasLtDestroy(m->handle));
    free(m);
    cuda_state(b)->matmul = NULL;
}
