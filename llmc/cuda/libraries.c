// libraries.c: cuBLASLt and NCCL, loaded when the first GPU is opened instead of when the program starts.
//
// cuBLASLt alone is a file of 540 MB: linked the usual way it costs every start of the program half a second and
// 200 MB, also on the CPU and for -h, and the program would not start at all where only the CPU is to be used and the
// libraries are not there. So each function that the backend calls is defined here and hands on to the library's.
// The headers' own prototypes guard the signatures. (The simulation brings its own definitions and leaves this out.)
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef HAVE_NCCL
#include <nccl.h>
#endif

#include "llmc/base/error.h"

int cuda_libraries_load(int with_nccl, Error *err);

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define CUBLASLT "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)
#define NCCL     "libnccl.so.2"

static void *cublaslt, *nccl;

static int load(void **library, const char *name, Error *err) {
    if (*library || (*library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) return 0;
    return error_set(err, "%s (hint: install it, or name its folder in LD_LIBRARY_PATH; or -device cpu)", dlerror());
}

int cuda_libraries_load(int with_nccl, Error *err) {
    TRY(load(&cublaslt, CUBLASLT, err));
#ifdef HAVE_NCCL
    if (with_nccl) TRY(load(&nccl, NCCL, err));
#else
    (void)with_nccl;
#endif
    return 0;
}

// The library was loaded and is of the major version it was compiled for; only a broken one lacks the function.
static void *find(void *library, const char *name) {
    void *function = library ? dlsym(library, name) : NULL;
    if (function) return function;
    fprintf(stderr, "%s: not in the library that was loaded\n", name);
    abort();
}

#define FORWARD(library, result, name, parameters, arguments)                                                          \
    result name parameters {                                                                                           \
        static result(*function) parameters;                                                                           \
        if (!function) *(void **)&function = find(library, #name);                                                     \
        return function arguments;                                                                                     \
    }

FORWARD(cublaslt, cublasStatus_t, cublasLtCreate, (cublasLtHandle_t * handle), (handle))
FORWARD(cublaslt, cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t handle), (handle))
FORWARD(cublaslt, const char *, cublasLtGetStatusString, (cublasStatus_t status), (status))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
         cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta, const void *C,
         cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo,
         void *workspace, size_t workspaceSize, cudaStream_t stream),
        (handle, desc, alpha, A, Adesc, B, Bdesc, beta, C, Cdesc, D, Ddesc, algo, workspace, workspaceSize, stream))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulAlgoCheck,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
         cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo,
         cublasLtMatmulHeuristicResult_t *result),
        (handle, desc, Adesc, Bdesc, Cdesc, Ddesc, algo, result))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
         cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc, cublasLtMatmulPreference_t preference, int asked,
         cublasLtMatmulHeuristicResult_t results[], int *found),
        (handle, desc, Adesc, Bdesc, Cdesc, Ddesc, preference, asked, results, found))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulDescCreate,
        (cublasLtMatmulDesc_t * desc, cublasComputeType_t compute, cudaDataType_t scale), (desc, compute, scale))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t desc), (desc))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes),
        (desc, attribute, value, bytes))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference),
        (preference))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference),
        (preference))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
         size_t bytes),
        (preference, attribute, value, bytes))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatrixLayoutCreate,
        (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld),
        (layout, type, rows, cols, ld))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
FORWARD(cublaslt, cublasStatus_t, cublasLtMatrixLayoutSetAttribute,
        (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void *value, size_t bytes),
        (layout, attribute, value, bytes))

#ifdef HAVE_NCCL
FORWARD(nccl, ncclResult_t, ncclGetUniqueId, (ncclUniqueId * id), (id))
FORWARD(nccl, ncclResult_t, ncclCommInitRankConfig,
        (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config),
        (comm, ranks, id, rank, config))
FORWARD(nccl, ncclResult_t, ncclCommFinalize, (ncclComm_t comm), (comm))
FORWARD(nccl, ncclResult_t, ncclCommDestroy, (ncclComm_t comm), (comm))
FORWARD(nccl, const char *, ncclGetErrorString, (ncclResult_t result), (result))
FORWARD(nccl, const char *, ncclGetLastError, (ncclComm_t comm), (comm))
FORWARD(nccl, ncclResult_t, ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *result), (comm, result))
FORWARD(nccl, ncclResult_t, ncclReduceScatter,
        (const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
         cudaStream_t stream),
        (send, receive, count, type, op, comm, stream))
FORWARD(nccl, ncclResult_t, ncclAllGather,
        (const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream),
        (send, receive, count, type, comm, stream))
#endif
