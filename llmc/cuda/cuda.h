// cuda.h: inside the CUDA backend: its state, checks, and which part of the table each file fills.
//
// Everything is queued on one compute stream; collectives run on a second stream, tied to the first by events; only
// download and synchronize wait on the host. Files: cuda.cu (creation, memory, streams), rows.cu, rmsnorm.cu, rope.cu,
// swiglu.cu, loss.cu, adamw.cu, attention*.cu (kernels, then launchers), matmul.cu (cuBLASLt), nccl.cu (collectives).
// Uses base and backend.h.
#ifndef LLMC_CUDA_CUDA_H
#define LLMC_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "llmc/backend.h"
#include "llmc/base/dist.h"

typedef __nv_bfloat16 bf16;

typedef struct CudaMatmul CudaMatmul; // matmul.cu: handle, workspace, plans by shape
typedef struct CudaComm CudaComm;     // nccl.cu: communicator, stream, events by tag

// Page-locked memory through which `upload` sends: a ring of segments. A segment is reused once its event, recorded
// after its last copy, has passed.
enum { CUDA_STAGING_SEGMENTS = 4, CUDA_STAGING_SEGMENT = 4 << 20 };
typedef struct CudaStaging {
    char *memory;
    cudaEvent_t sent[CUDA_STAGING_SEGMENTS];
    int segment; // being filled
    size_t used; // of it
} CudaStaging;

// The stamps: events[0..n-1] were recorded and not read; those behind them can be used again.
typedef struct CudaStamps {
    cudaEvent_t *events;
    int n, capacity;
    double before; // seconds from the first stamp ever to events[0]
} CudaStamps;

typedef struct CudaState {
    char name[320];        // "cuda NVIDIA H100 80GB HBM3, sm_90"
    int device, arch, sms; // arch: 90 for sm_90; multiprocessors
    cudaStream_t stream;   // compute
    unsigned queued;       // on it, ever
    void *scratch;         // device, shared by all operations in stream order
    size_t scratch_bytes;
    CudaMatmul *matmul;
    CudaComm *comm; // NULL: not wanted
    CudaStaging staging;
    CudaStamps stamps;
} CudaState;

static inline CudaState *cuda_state(const Backend *b) { return (CudaState *)b->state; }

// The compute stream, to queue one operation on it. A stream takes about 1,000; the next launch then blocks inside the
// driver, where a collective that hangs would never be noticed. So every CUDA_QUEUED operations the host waits, on the
// watch, until those before the last CUDA_QUEUED have ended (nccl.cu; nothing to do without collectives).
enum { CUDA_QUEUED = 256 };
void cuda_hold_back(const Backend *b);
static inline cudaStream_t cuda_stream(const Backend *b) {
    CudaState *s = cuda_state(b);
    if (++s->queued % CUDA_QUEUED == 0) cuda_hold_back(b);
    return s->stream;
}

// At least `bytes` of 256-byte aligned device memory, contents undefined, valid until the next operation that asks for
// scratch. `reserve` sized it: a request beyond that is a bug and ends all ranks, naming `who`.
void *cuda_scratch(Backend *b, size_t bytes, const char *who);

// Prints "rank R on HOST: FILE:LINE: CALL: text" and ends all ranks.
[[noreturn]] void cuda_fatal(const char *file, int line, const char *call, const char *text);
#define CUDA_CHECK(call)                                                                                               \
    do {                                                                                                               \
        cudaError_t cuda_check_code = (call);                                                                          \
        if (cuda_check_code != cudaSuccess)                                                                            \
            cuda_fatal(__FILE__, __LINE__, #call, cudaGetErrorString(cuda_check_code));                                \
    } while (0)
// After every launch.
#define CUDA_CHECK_LAUNCH(kernel)                                                                                      \
    do {                                                                                                               \
        cudaError_t cuda_check_code = cudaGetLastError();                                                              \
        if (cuda_check_code != cudaSuccess)                                                                            \
            cuda_fatal(__FILE__, __LINE__, kernel, cudaGetErrorString(cuda_check_code));                               \
    } while (0)
#define CUBLAS_CHECK(call)                                                                                             \
    do {                                                                                                               \
        cublasStatus_t cublas_check_code = (call);                                                                     \
        if (cublas_check_code != CUBLAS_STATUS_SUCCESS)                                                                \
            cuda_fatal(__FILE__, __LINE__, #call, cublasLtGetStatusString(cublas_check_code));                         \
    } while (0)

// Loads cuBLASLt and, if asked to, NCCL (libraries.c; NULL in the simulation, which has its own).
extern "C" int cuda_libraries_load(int with_nccl, Error *err) __attribute__((weak));
// Paths of the files that were loaded; static memory.
extern "C" const char *cuda_libraries_text(void) __attribute__((weak));

// Each fills its part of the Backend.
void cuda_rows_fill(Backend *b);                // rows.cu: embedding, gather, scatter, casts
void cuda_rmsnorm_fill(Backend *b);             // rmsnorm.cu
void cuda_rope_fill(Backend *b);                // rope.cu
void cuda_swiglu_fill(Backend *b);              // swiglu.cu
void cuda_loss_fill(Backend *b);                // loss.cu: cross entropy, argmax, weighted sum
void cuda_adamw_fill(Backend *b);               // adamw.cu: AdamW, squared norms, clip factor
void cuda_attention_fill(Backend *b);           // attention.cu
int cuda_matmul_create(Backend *b, Error *err); // matmul.cu; also fills
void cuda_matmul_free(Backend *b);
// FLOP/s of a square product of up to 8192, measured; 0 when there is no memory for it.
double cuda_matmul_peak(Backend *b);
int cuda_comm_create(Backend *b, Error *err); // nccl.cu; also fills; nothing but that when it is not wanted
// Whether the ranks talk through NCCL: several do, one does with C3_NCCL_ALWAYS=1, to try NCCL on a single GPU.
int cuda_comm_wanted(const Dist *d);
void cuda_comm_free(Backend *b);
cudaStream_t cuda_comm_stream(const Backend *b); // one rank: the compute stream
// Waits for the compute stream and, if asked to, for all collectives. An error or a time-out of one names rank and
// operation and ends all ranks.
void cuda_comm_wait(Backend *b, int collectives);

#endif
