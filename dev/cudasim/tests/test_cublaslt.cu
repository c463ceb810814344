// cuBLASLt's subset against double precision, and what it must refuse.
#include "device.h"
#include "test/check.h"
#include <cmath>
#include <cublasLt.h>
#include <cuda_bf16.h>

typedef __nv_bfloat16 bf16;

struct Problem {
    bool ta, tb;
    int m, n, k;
    cudaDataType_t in, out;
    float alpha, beta;
    bool bias;
    int pad;             // of the leading dimensions
    uint32_t align = 16; // bytes that the plan may rely on
    int shift = 0;       // of A's pointer, in elements
};
static size_t size_of(cudaDataType_t t) { return t == CUDA_R_16BF ? 2 : 4; }
static double value(const std::vector<char> &v, cudaDataType_t t, size_t i) {
    return t == CUDA_R_16BF ? (double)__bfloat162float(((const bf16 *)v.data())[i])
                            : (double)((const float *)v.data())[i];
}
static std::vector<char> random_values(size_t n, cudaDataType_t t, unsigned seed) {
    std::vector<char> v(n * size_of(t));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = (float)(seed >> 8) / (1 << 23) - 1.f;
        if (t == CUDA_R_16BF) ((bf16 *)v.data())[i] = __float2bfloat16(x);
        else ((float *)v.data())[i] = x;
    }
    return v;
}
static cublasLtHandle_t handle;

struct Descriptors {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasStatus_t status;
};
static Descriptors describe(const Problem &p, const void *bias, uint64_t workspace) {
    Descriptors s;
    cublasOperation_t ta = p.ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = p.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtMatmulDescCreate(&s.op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(s.op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    cublasLtMatmulDescSetAttribute(s.op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (p.bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        cublasLtMatmulDescSetAttribute(s.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
        cublasLtMatmulDescSetAttribute(s.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    }
    int ar = p.ta ? p.k : p.m, ac = p.ta ? p.m : p.k, br = p.tb ? p.n : p.k, bc = p.tb ? p.k : p.n;
    cublasLtMatrixLayoutCreate(&s.a, p.in, ar, ac, ar + p.pad);
    cublasLtMatrixLayoutCreate(&s.b, p.in, br, bc, br + p.pad);
    cublasLtMatrixLayoutCreate(&s.d, p.out, p.m, p.n, p.m + p.pad);
    cublasLtMatmulPreferenceCreate(&s.preference);
    cublasLtMatmulPreferenceSetAttribute(s.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                         sizeof workspace);
    for (auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        cublasLtMatmulPreferenceSetAttribute(s.preference, attribute, &p.align, sizeof p.align);
    return s;
}
static void destroy(Descriptors &s) {
    cublasLtMatmulPreferenceDestroy(s.preference);
    cublasLtMatrixLayoutDestroy(s.a);
    cublasLtMatrixLayoutDestroy(s.b);
    cublasLtMatrixLayoutDestroy(s.d);
    cublasLtMatmulDescDestroy(s.op);
}

static double relative_error(const Problem &p) {
    int ar = (p.ta ? p.k : p.m) + p.pad, ac = p.ta ? p.m : p.k, br = (p.tb ? p.n : p.k) + p.pad, bc = p.tb ? p.k : p.n;
    int ld = p.m + p.pad;
    auto a = random_values((size_t)ar * ac, p.in, 1), b = random_values((size_t)br * bc, p.in, 2);
    auto c = random_values((size_t)ld * p.n, p.out, 3), bias = random_values(p.m, p.out, 4);
    Device<char> da(a.size() + p.shift * size_of(p.in)), db(b), dc(c), dbias(bias), workspace(1 << 20);
    char *pa = da.p + p.shift * size_of(p.in);
    CUDA_OK(cudaMemcpy(pa, a.data(), a.size(), cudaMemcpyHostToDevice));
    Descriptors s = describe(p, dbias.p, workspace.n);
    cublasLtMatmulHeuristicResult_t plan;
    int found = 0;
    s.status = cublasLtMatmulAlgoGetHeuristic(handle, s.op, s.a, s.b, s.d, s.d, s.preference, 1, &plan, &found);
    CHECK(s.status == CUBLAS_STATUS_SUCCESS && found == 1, "heuristic: %d", s.status);
    s.status = cublasLtMatmul(handle, s.op, &p.alpha, pa, s.a, db.p, s.b, &p.beta, dc.p, s.d, dc.p, s.d, &plan.algo,
                              workspace.p, workspace.n, 0);
    CHECK(s.status == CUBLAS_STATUS_SUCCESS, "matmul: %d", s.status);
    destroy(s);
    auto d = dc.host();
    double error = 0, norm = 0;
    for (int j = 0; j < p.n; j++)
        for (int i = 0; i < p.m; i++) {
            double want = 0;
            for (int q = 0; q < p.k; q++)
                want += value(a, p.in, p.ta ? (size_t)i * ar + q : (size_t)q * ar + i) *
                        value(b, p.in, p.tb ? (size_t)q * br + j : (size_t)j * br + q);
            want = p.alpha * want + (p.beta != 0 ? p.beta * value(c, p.out, (size_t)j * ld + i) : 0);
            if (p.bias) want += value(bias, p.out, i);
            double e = value(d, p.out, (size_t)j * ld + i) - want;
            error += e * e, norm += want * want;
        }
    for (int j = 0; j < p.n; j++) // between the columns nothing is touched
        for (int i = p.m; i < ld; i++) {
            size_t at = ((size_t)j * ld + i) * size_of(p.out);
            CHECK(!memcmp(&d[at], &c[at], size_of(p.out)), "padding at (%d,%d)", i, j);
        }
    return sqrt(error / norm);
}

static void test_products() {
    const cudaDataType_t B = CUDA_R_16BF, F = CUDA_R_32F;
    const struct {
        const char *name;
        Problem p;
    } cases[] = {{"bf16 out", {false, false, 40, 56, 48, B, B, 1, 0, false, 0}},
                 {"bf16, a transposed, bias", {true, false, 40, 56, 48, B, B, 1, 0, true, 0}},
                 {"bf16 in, fp32 out, b transposed, added up", {false, true, 40, 56, 48, B, F, 1, 1, false, 8}},
                 {"bf16, both transposed, alpha and beta", {true, true, 33, 7, 65, B, B, .5f, 2, false, 3, 2}},
                 {"fp32", {true, false, 40, 56, 48, F, F, 1, 0, false, 4}},
                 {"fp32, b transposed, bias, odd sizes", {false, true, 1, 3, 5, F, F, 2, 1, true, 1, 4}},
                 {"a shifted by 8 bytes, plan for 8", {true, false, 16, 16, 16, B, B, 1, 0, false, 0, 8, 4}}};
    for (auto &c : cases) {
        check_begin(c.name);
        double e = relative_error(c.p), tolerance = c.p.out == B ? 3e-3 : 1e-6;
        CHECK(e < tolerance, "relative error %g", e);
    }
}

// A plan for k = 48 on other sizes: what AlgoCheck says, with sizes set in the layouts that the plan was made for.
static void test_other_sizes() {
    check_begin("a plan on other sizes");
    const Problem p = {false, true, 40, 56, 48, CUDA_R_16BF, CUDA_R_32F, 1, 0, false, 0};
    Descriptors s = describe(p, nullptr, 1 << 20);
    cublasLtMatmulHeuristicResult_t plan, checked;
    int found = 0;
    cublasLtMatmulAlgoGetHeuristic(handle, s.op, s.a, s.b, s.d, s.d, s.preference, 1, &plan, &found);
    CHECK(found == 1, "no plan");
    const struct {
        uint64_t k;
        cublasStatus_t status;
    } sizes[] = {{48, CUBLAS_STATUS_SUCCESS}, {46, CUBLAS_STATUS_SUCCESS}, {47, CUBLAS_STATUS_NOT_SUPPORTED}};
    for (auto &size : sizes) {
        for (cublasLtMatrixLayout_t l : {s.a, s.b})
            cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_COLS, &size.k, sizeof size.k);
        cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, s.op, s.a, s.b, s.d, s.d, &plan.algo, &checked);
        CHECK(status == size.status, "k %d: %d", (int)size.k, status);
        CHECK(status || checked.workspaceSize == plan.workspaceSize, "workspace %zu", checked.workspaceSize);
    }
    destroy(s);
}

static void test_refusals() {
    check_begin("what the library refuses");
    cublasLtMatrixLayout_t l;
    cublasLtMatmulDesc_t op;
    CHECK(cublasLtMatrixLayoutCreate(&l, CUDA_R_16BF, 8, 8, 7) == CUBLAS_STATUS_INVALID_VALUE, "ld < rows");
    CHECK(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_64F, CUDA_R_64F) == CUBLAS_STATUS_NOT_SUPPORTED, "fp64");
    auto heuristic = [](const Problem &a, const Problem &b) { // b's layouts of B and D with A's of a
        Descriptors s = describe(a, nullptr, 0), t = describe(b, nullptr, 0);
        cublasLtMatmulHeuristicResult_t plan;
        int found;
        cublasStatus_t status =
            cublasLtMatmulAlgoGetHeuristic(handle, s.op, s.a, t.b, t.d, t.d, s.preference, 1, &plan, &found);
        destroy(s);
        destroy(t);
        return status;
    };
    const Problem p = {false, false, 8, 8, 8, CUDA_R_16BF, CUDA_R_16BF, 1, 0, false, 0};
    Problem longer = p, mixed = p;
    longer.k = 16;
    mixed.in = CUDA_R_32F;
    CHECK(heuristic(p, p) == CUBLAS_STATUS_SUCCESS, "a good one");
    CHECK(heuristic(p, longer) == CUBLAS_STATUS_INVALID_VALUE, "inner sizes that differ");
    CHECK(heuristic(p, mixed) == CUBLAS_STATUS_NOT_SUPPORTED, "bf16 times fp32");
    CHECK(heuristic(mixed, mixed) == CUBLAS_STATUS_NOT_SUPPORTED, "fp32 in, bf16 out");
    CHECK(!strcmp(cublasLtGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED), "CUBLAS_STATUS_NOT_SUPPORTED"), "name");
}

int main(int argc, char **argv) {
    cublasLtCreate(&handle);
    if (argc > 1 && !strcmp(argv[1], "misaligned")) { // A less aligned than the plan was told: ends the process
        check_begin("misaligned");
        relative_error({false, false, 16, 16, 16, CUDA_R_16BF, CUDA_R_16BF, 1, 0, false, 0, 16, 4});
        return check_done();
    }
    test_products();
    test_other_sizes();
    test_refusals();
    cublasLtDestroy(handle);
    return check_done();
}
