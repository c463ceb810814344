// libraries.c: cuBLASLt and NCCL, loaded when the first GPU is opened instead of when the program starts.
//
// Linked the usual way, cuBLASLt (540 MB) would cost every start half a second and 200 MB, even on the CPU and for -h,
// and the program would not start where the libraries are missing. So each function that the backend calls is defined
// here and forwards to the library's. The headers' prototypes check the signatures. (The simulation has its own
// definitions and leaves this file out.)
#include <cublasLt.h>
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_NCCL
#include <nccl.h>
#endif

#include "llmc/base/alloc.h"
#include "llmc/base/error.h"

int cuda_libraries_load(int with_nccl, Error *err);
const char *cuda_libraries_text(void);

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define CUBLASLT "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)
#define NCCL     "libnccl.so.2"

static void *cublaslt, *nccl;

// Where libraries lie that the loader does not find by name: toolkits, and the wheels of Python's packages (PyTorch
// brings both). A pattern begins with an environment variable, or with the folder of the python3 on the PATH; what is
// not set leaves its patterns out.
static const struct {
    const char *variable, *pattern;
} places[] = {
    {"CUDA_HOME", "/lib64"},
    {"CUDA_HOME", "/lib"},
    {NULL, "/usr/local/cuda/lib64"},
    {NULL, "/usr/local/cuda-*/lib64"},
    {"NCCL_HOME", "/lib"},
    {"VIRTUAL_ENV", "/lib/python3*/site-packages/nvidia/*/lib"},
    {"CONDA_PREFIX", "/lib"},
    {"CONDA_PREFIX", "/lib/python3*/site-packages/nvidia/*/lib"},
    {"HOME", "/.local/lib/python3*/site-packages/nvidia/*/lib"},
    {"PATH", "/../lib/python3*/*-packages/nvidia/*/lib"}, // beside python3
    {NULL, "/usr/local/lib/python3*/*-packages/nvidia/*/lib"},
    {NULL, "/usr/lib/python3*/*-packages/nvidia/*/lib"},
};
enum { N_PLACES = sizeof places / sizeof *places };

// The folder of the python3 on the PATH, its links followed; NULL: there is none.
static const char *python_folder(char buffer[PATH_MAX]) {
    const char *path = getenv("PATH");
    while (path && *path) {
        char name[PATH_MAX];
        const int length = (int)strcspn(path, ":");
        snprintf(name, sizeof name, "%.*s/python3", length, path);
        if (access(name, X_OK) == 0 && realpath(name, buffer)) {
            *strrchr(buffer, '/') = 0;
            return buffer;
        }
        path += length + (path[length] == ':');
    }
    return NULL;
}

typedef struct Search {
    void *library;
    char *looked; // the folders, for the error
    char *other;  // a file of another major version; NULL: none
} Search;

// Opens the newest of the files that match FOLDER/NAME, where there is one.
static void search_folder(Search *s, const char *folder, const char *name) {
    char *pattern = string_format("%s/%s", folder, name);
    char *versions = string_format("%s/%.*s.so.[0-9]*", folder, (int)strcspn(name, "."), name);
    glob_t found = {0}, others = {0};
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t k = found.gl_pathc; k > 0 && !s->library; k--)
            s->library = dlopen(found.gl_pathv[k - 1], RTLD_NOW | RTLD_LOCAL);
    }
    if (!s->library && !s->other && glob(versions, 0, NULL, &others) == 0) s->other = string_copy(others.gl_pathv[0]);
    globfree(&found);
    globfree(&others);
    free(pattern);
    free(versions);
}

static void search(Search *s, const char *name) {
    char python[PATH_MAX];
    for (int i = 0; i < N_PLACES && !s->library; i++) {
        const char *variable = places[i].variable;
        const char *base = !variable ? "" : strcmp(variable, "PATH") == 0 ? python_folder(python) : getenv(variable);
        if (!base || (variable && !*base)) continue;
        char *folder = string_format("%s%s", base, places[i].pattern);
        search_folder(s, folder, name);
        string_append(&s->looked, "%s%s", s->looked ? ", " : "", folder);
        free(folder);
    }
}

static int load(void **library, const char *name, Error *err) {
    if (*library || (*library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) return 0;
    Search s = {0};
    search(&s, name);
    *library = s.library;
    if (!s.library && s.other)
        error_set(err,
                  "%s: not found, and %s is of another major version than this program was built for (hint: install "
                  "CUDA %d, or name its folder in LD_LIBRARY_PATH; or -device cpu)",
                  name, s.other, CUBLAS_VER_MAJOR);
    else if (!s.library)
        error_set(err,
                  "%s: not found by name nor in %s (hint: install it, or name its folder in LD_LIBRARY_PATH; or "
                  "-device cpu)",
                  name, s.looked);
    free(s.looked);
    free(s.other);
    return *library ? 0 : -1;
}

// Path of a library that was loaded; "": it was not.
static const char *path_of(void *library) {
    struct link_map *map = NULL;
    return library && dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : "";
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

const char *cuda_libraries_text(void) {
    static char *text;
    if (!text) text = string_format("%s%s%s", path_of(cublaslt), nccl ? ", " : "", path_of(nccl));
    return text;
}

// The library is loaded and of the right major version: only a broken one lacks the function.
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
FORWARD(cublaslt, size_t, cublasLtGetVersion, (void), ())
FORWARD(cublaslt, cublasStatus_t, cublasLtMatmulAlgoConfigGetAttribute,
        (const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attribute, void *value, size_t bytes,
         size_t *written),
        (algo, attribute, value, bytes, written))
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
FORWARD(nccl, ncclResult_t, ncclCommAbort, (ncclComm_t comm), (comm))
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
