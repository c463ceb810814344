// cuBLASLt, as far as a trainer needs it: D = alpha op(A) op(B) + beta C (+ bias), column-major, bf16 or fp32 in, fp32
// accumulation, bf16 or fp32 out. Types and enums are NVIDIA's; what is not here fails loudly.
//
// Stricter than the library where a GPU would only sometimes notice: a plan is valid for the alignments it was asked
// for, of pointers as well as leading dimensions, and its workspace must be there (it is filled with NaN). Sizes may
// differ from those it was made for, but an even k must stay even: cublasLtMatmulAlgoCheck says so.
//
// There are four algorithms: number i adds up i + 1 parts of k, so that their results differ in the last bits. Whoever
// asks the heuristic for several gets them with delays, which events see: the third is the fastest.
#include "runtime.h"
#include "fault.h"
#include <cublasLt.h>

namespace {

struct Matmul {
    cublasOperation_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    int32_t bias_type = -1; // -1: that of D
};
struct Layout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;                // there are none here
    uint32_t align_a = 256, align_b = 256, align_c = 256, align_d = 256; // bytes that all pointers are multiples of
};
struct Plan { // inside cublasLtMatmulAlgo_t
    uint64_t magic, workspace;
    uint32_t align[4], ld_align[4]; // of A, B, C, D, in bytes
    uint32_t even_k, parts;         // of k
    float delay;                    // seconds
};
constexpr uint64_t PLAN_MAGIC = 0x6d69732d6e616c70;
static_assert(sizeof(Matmul) <= sizeof(cublasLtMatmulDescOpaque_t), "fits the opaque type");
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits the opaque type");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits the opaque type");
static_assert(sizeof(Plan) <= sizeof(cublasLtMatmulAlgo_t), "fits the opaque type");

template <class T, class Opaque> T &inside(Opaque *p) { return *(T *)(void *)p; }
template <class T> cublasStatus_t set(T &field, const void *value, size_t size) {
    if (size != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((void *)&field, value, size);
    return CUBLAS_STATUS_SUCCESS;
}
size_t element_size(cudaDataType_t type) { return type == CUDA_R_16BF ? 2 : 4; }
float load(const void *p, cudaDataType_t type, size_t i) {
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)p)[i]) : ((const float *)p)[i];
}
void store(void *p, cudaDataType_t type, size_t i, float v) {
    if (type == CUDA_R_16BF) ((__nv_bfloat16 *)p)[i] = __float2bfloat16(v);
    else ((float *)p)[i] = v;
}
// The largest power of two, up to 16, that divides every column's address relative to the first.
uint32_t ld_alignment(const Layout &l) {
    uint64_t bytes = (uint64_t)l.ld * element_size(l.type);
    return l.cols < 2 ? 16 : (uint32_t)std::min<uint64_t>(16, bytes & -bytes);
}

// ---- which products there are ----
struct Shapes {
    int m, n, k;
};
cublasStatus_t check_problem(const Matmul &op, const Layout &a, const Layout &b, const Layout &c, const Layout &d,
                             Shapes *s) {
    uint64_t m = op.transa ? a.cols : a.rows, k = op.transa ? a.rows : a.cols;
    uint64_t kb = op.transb ? b.cols : b.rows, n = op.transb ? b.rows : b.cols;
    bool fit = k == kb && d.rows == m && d.cols == n && c.rows == m && c.cols == n && m && n && k;
    if (!fit || std::max({m, n, k}) > 0x7fffffff) return CUBLAS_STATUS_INVALID_VALUE;
    bool bf16 = a.type == CUDA_R_16BF;
    if (a.type != b.type || c.type != d.type || (!bf16 && d.type == CUDA_R_16BF)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (op.epilogue == CUBLASLT_EPILOGUE_BIAS && op.bias_type != -1 && op.bias_type != (int32_t)d.type)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *s = {(int)m, (int)n, (int)k};
    return CUBLAS_STATUS_SUCCESS;
}
void check_matrix(const void *p, const Layout &l, const char *name) {
    if ((uintptr_t)p % element_size(l.type)) sim::fail("cublasLtMatmul: %s is not aligned to its elements", name);
    std::string what = std::string("cublasLtMatmul, matrix ") + name;
    sim::check_device_range(p, ((l.cols - 1) * l.ld + l.rows) * element_size(l.type), what.c_str());
}
bool takes_shape(const Plan &plan, const Shapes &s) { return !plan.even_k || s.k % 2 == 0; }
void check_plan(const Plan &plan, const void *const (&p)[4], const Layout *const (&l)[4], const Shapes &s,
                size_t workspace) {
    if (plan.magic != PLAN_MAGIC) sim::fail("cublasLtMatmul: the algorithm does not come from the heuristic");
    for (int i = 0; i < 4; i++) {
        if (p[i] && (uintptr_t)p[i] % plan.align[i])
            sim::fail("cublasLtMatmul: matrix %c is less aligned than the %u bytes its plan was made for", "ABCD"[i],
                      plan.align[i]);
        if (ld_alignment(*l[i]) < plan.ld_align[i])
            sim::fail("cublasLtMatmul: the leading dimension of matrix %c is less aligned than in its plan", "ABCD"[i]);
    }
    if (!takes_shape(plan, s)) sim::fail("cublasLtMatmul: the plan was made for an even k, not for %d", s.k);
    if (workspace < plan.workspace)
        sim::fail("cublasLtMatmul: the plan needs %zu bytes of workspace, got %zu", (size_t)plan.workspace, workspace);
}

// ---- the product ----
typedef float Vec __attribute__((vector_size(64), aligned(4)));

// out (n, mp) = b (n, k) a (k, mp), columns k0 to k1 of b, rows dense; mp a multiple of 32. Adds to out unless k0 is 0.
void multiply(int n, int mp, int k, int k0, int k1, const float *b, const float *a, float *out) {
    for (int j = 0; j < mp; j += 32)
        for (int i = 0; i < n; i += 4) {
            Vec sum[4][2] = {};
            int rows = std::min(4, n - i);
            const float *row[4];
            for (int r = 0; r < 4; r++) row[r] = b + (size_t)(i + std::min(r, rows - 1)) * k;
            for (int p = k0; p < k1; p++) {
                const Vec *column = (const Vec *)(a + (size_t)p * mp + j);
                for (int r = 0; r < 4; r++) sum[r][0] += row[r][p] * column[0], sum[r][1] += row[r][p] * column[1];
            }
            for (int r = 0; r < rows; r++) {
                Vec *to = (Vec *)(out + (size_t)(i + r) * mp + j);
                to[0] = k0 ? to[0] + sum[r][0] : sum[r][0], to[1] = k0 ? to[1] + sum[r][1] : sum[r][1];
            }
        }
}
struct Product {
    Matmul op;
    Shapes shape;
    Layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    int parts = 1;

    void run() const {
        auto [m, n, k] = shape;
        int mp = (m + 31) / 32 * 32;
        static thread_local std::vector<float> pa, pb, pd;
        pa.assign((size_t)k * mp, 0.f);
        pb.resize((size_t)n * k);
        pd.resize((size_t)n * mp);
        for (int p = 0; p < k; p++)
            for (int i = 0; i < m; i++)
                pa[(size_t)p * mp + i] = load(a, la.type, op.transa ? (size_t)i * la.ld + p : (size_t)p * la.ld + i);
        for (int j = 0; j < n; j++)
            for (int p = 0; p < k; p++)
                pb[(size_t)j * k + p] = load(b, lb.type, op.transb ? (size_t)p * lb.ld + j : (size_t)j * lb.ld + p);
        int step = (k + parts - 1) / parts;
        for (int k0 = 0; k0 < k; k0 += step)
            multiply(n, mp, k, k0, std::min(k, k0 + step), pb.data(), pa.data(), pd.data());
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                float v = alpha * pd[(size_t)j * mp + i];
                if (beta != 0) v += beta * load(c, lc.type, (size_t)j * lc.ld + i); // with beta 0, C is not read
                if (op.epilogue == CUBLASLT_EPILOGUE_BIAS) v += load(op.bias, ld.type, i);
                store(d, ld.type, (size_t)j * ld.ld + i, v);
            }
    }
};

} // namespace

extern "C" {

size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
const char *cublasLtGetStatusString(cublasStatus_t s) {
    switch (s) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    default:
        return "unknown cuBLAS status";
    }
}
const char *cublasLtGetStatusName(cublasStatus_t s) {
    switch (s) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "unknown";
    }
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = (cublasLtHandle_t) new char;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete (char *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

// ---- descriptors ----
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new cublasLtMatmulDescOpaque_t;
    inside<Matmul>(*desc) = Matmul();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size) {
    Matmul &op = inside<Matmul>(desc);
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(op.transa, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(op.transb, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(op.epilogue, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return set(op.bias, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return set(op.bias_type, value, size);
    default:
        sim::fail("cublasLtMatmulDescSetAttribute: attribute %d is not emulated", (int)attribute);
    }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    if (type != CUDA_R_16BF && type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    *layout = new cublasLtMatrixLayoutOpaque_t;
    inside<Layout>(*layout) = {type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t size) {
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return set(inside<Layout>(layout).rows, value, size);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return set(inside<Layout>(layout).cols, value, size);
    default:
        sim::fail("cublasLtMatrixLayoutSetAttribute: attribute %d is not emulated", (int)attribute);
    }
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new cublasLtMatmulPreferenceOpaque_t;
    inside<Preference>(*preference) = Preference();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t size) {
    Preference &p = inside<Preference>(preference);
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(p.workspace, value, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(p.reductions, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return set(p.align_a, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return set(p.align_b, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return set(p.align_c, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(p.align_d, value, size);
    default:
        sim::fail("cublasLtMatmulPreferenceSetAttribute: attribute %d is not emulated", (int)attribute);
    }
}

// ---- plan and run ----
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int *returned) {
    *returned = 0;
    Shapes shape;
    const Layout *l[4] = {&inside<Layout>(a), &inside<Layout>(b), &inside<Layout>(c), &inside<Layout>(d)};
    cublasStatus_t status = check_problem(inside<Matmul>(desc), *l[0], *l[1], *l[2], *l[3], &shape);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
    const Preference &p = inside<Preference>(preference);
    Plan plan = {PLAN_MAGIC,
                 std::min<uint64_t>(p.workspace, 64 << 10),
                 {p.align_a, p.align_b, p.align_c, p.align_d},
                 {},
                 shape.k % 2 == 0,
                 1,
                 0};
    for (int i = 0; i < 4; i++) plan.ld_align[i] = ld_alignment(*l[i]);
    const float delays[] = {2, 1, 0, 3};
    for (int i = 0; i < std::min(requested, 4); i++) {
        plan.parts = (uint32_t)i + 1;
        if (requested > 1) plan.delay = delays[i];
        results[i] = {};
        memcpy((void *)&results[i].algo, &plan, sizeof plan);
        results[i].workspaceSize = plan.workspace;
        results[i].state = CUBLAS_STATUS_SUCCESS;
        ++*returned;
    }
    return CUBLAS_STATUS_SUCCESS;
}
// The parts of k; the rest of what a real algorithm has is not emulated.
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void *value,
                                                    size_t size, size_t *written) {
    if (attribute != CUBLASLT_ALGO_CONFIG_SPLITK_NUM || size != sizeof(int32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    *(int32_t *)value = (int32_t)inside<const Plan>(algo).parts;
    *written = size;
    return CUBLAS_STATUS_SUCCESS;
}
// Whether the algorithm of a plan takes this problem; pointers are not known here.
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result) {
    const Layout *l[4] = {&inside<Layout>(a), &inside<Layout>(b), &inside<Layout>(c), &inside<Layout>(d)};
    const Plan &plan = inside<const Plan>(algo);
    Shapes shape;
    cublasStatus_t status = check_problem(inside<Matmul>(desc), *l[0], *l[1], *l[2], *l[3], &shape);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (plan.magic != PLAN_MAGIC) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if (ld_alignment(*l[i]) < plan.ld_align[i]) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!takes_shape(plan, shape)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {};
    result->algo = *algo;
    result->workspaceSize = plan.workspace;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_size,
                              cudaStream_t stream) {
    CUDASIM_API;
    Product p = {inside<Matmul>(desc),
                 {},
                 inside<Layout>(la),
                 inside<Layout>(lb),
                 inside<Layout>(lc),
                 inside<Layout>(ld),
                 a,
                 b,
                 c,
                 d,
                 *(const float *)alpha,
                 *(const float *)beta};
    cublasStatus_t status = check_problem(p.op, p.la, p.lb, p.lc, p.ld, &p.shape);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (c == d && p.lc.ld != p.ld.ld) return CUBLAS_STATUS_INVALID_VALUE;
    check_matrix(a, p.la, "A");
    check_matrix(b, p.lb, "B");
    check_matrix(d, p.ld, "D");
    if (p.beta != 0) check_matrix(c, p.lc, "C");
    if (p.op.epilogue == CUBLASLT_EPILOGUE_BIAS)
        sim::check_device_range(p.op.bias, p.shape.m * element_size(p.ld.type), "cublasLtMatmul, bias");
    else if (p.op.epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        sim::fail("cublasLtMatmul: epilogue %d is not emulated", (int)p.op.epilogue);
    if (algo) check_plan(inside<const Plan>(algo), {a, b, c, d}, {&p.la, &p.lb, &p.lc, &p.ld}, p.shape, workspace_size);
    if (workspace_size) sim::check_device_range(workspace, workspace_size, "cublasLtMatmul, workspace");
    if ((uintptr_t)workspace % 16) sim::fail("cublasLtMatmul: the workspace is not aligned to 16 bytes");

    sim::Stream *s = sim::stream_of(stream);
    if (!s) return CUBLAS_STATUS_INVALID_VALUE;
    char name[64];
    snprintf(name, sizeof name, "matmul %dx%dx%d", p.shape.m, p.shape.n, p.shape.k);
    sim::OpRef op = sim::new_op(s, "matmul", name);
    size_t used = algo ? (size_t)inside<const Plan>(algo).workspace : 0;
    if (algo) p.parts = (int)inside<const Plan>(algo).parts, op->delay = inside<const Plan>(algo).delay;
    op->run = [=] {
        if (used) memset(workspace, 0xff, used);
        p.run();
    };
    sim::issue(op);
    return CUBLAS_STATUS_SUCCESS;
}
}
