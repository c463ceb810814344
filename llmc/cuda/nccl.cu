// nccl.cu: collectives, on a stream of their own, with error and time-out detection.
//
// A collective is tied to the compute stream by two events: it starts after `ready`, recorded where it was called, and
// `wait_for` makes the compute stream wait for `done`. Sums are fp32. Waits on the host poll, and meanwhile check NCCL
// for errors and a clock, which runs while the input of the oldest unfinished collective is ready, so that it can only
// be waiting for other ranks. After Dist.timeout seconds the ranks call the roll; each names those that did not answer
// or are behind, and ends the run. The host never queues so much that it would wait anywhere else: no thread of its own
// is needed, which the driver's locks could stop together with the launch it should watch.
#include "llmc/cuda/cuda.h"
#include "llmc/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// ---- kernels ----
__global__ void add_kernel(float *sum, const float *x, size_t n) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) sum[i] += x[i];
}

static void add(float *sum, const float *x, size_t n, cudaStream_t stream) {
    enum { THREADS = 256 };
    if (n == 0) return;
    add_kernel<<<(unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, stream>>>(sum, x, n);
    CUDA_CHECK_LAUNCH("add_kernel");
}

// ---- one rank ----
static void reduce_scatter_alone(Backend *b, float *shard, float *buffer, size_t n, int accumulate, int tag) {
    (void)tag;
    if (accumulate) add(shard, buffer, n, cuda_stream(b));
    else if (shard != buffer) b->copy(b, shard, buffer, n * sizeof(float));
}
static void all_gather_alone(Backend *b, void *buffer, size_t bytes, int tag) {
    (void)b, (void)buffer, (void)bytes, (void)tag;
}
static void wait_for_alone(Backend *b, int tag) { (void)b, (void)tag; }

static void fill_alone(Backend *b) {
    b->reduce_scatter = reduce_scatter_alone;
    b->all_gather = all_gather_alone;
    b->wait_for = wait_for_alone;
}

int cuda_comm_wanted(const Dist *d) {
    const char *always = getenv("C3_NCCL_ALWAYS");
    return d && (d->ranks > 1 || (always && strcmp(always, "1") == 0));
}

#ifdef HAVE_NCCL
#include <nccl.h>

// ---- several ----
typedef struct Flight { // a collective that the host has not seen end
    cudaEvent_t ready, done;
    const char *operation;
    size_t bytes; // from each rank
    int tag;
} Flight;

struct CudaComm {
    ncclComm_t nccl;
    int connected; // 0: never, and what there is of it can only be aborted
    cudaStream_t stream;
    cudaEvent_t queued; // on the compute stream, CUDA_QUEUED operations ago or less
    double timeout;     // seconds
    Flight *flights;
    int n, capacity; // in use; with events
    int oldest;      // first that was not seen to end
    int *last;       // (tags) the last flight of each tag; -1: none, or already waited for
    int tags;
    int ended;          // collectives before flights[0]
    double waits_since; // when the oldest was first seen ready and not done; 0: not yet
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void nap(void) { usleep(20); }
static void watch(const Backend *b, CudaComm *c);

// The communicator is non-blocking: a call may return early, and is polled until it is through. That usually takes some
// microseconds, a nap at least 70.
static ncclResult_t settle(CudaComm *c, ncclResult_t result) {
    const double start = seconds();
    while (result == ncclInProgress && seconds() - start < c->timeout) {
        if (seconds() - start > 1e-4) nap();
        const ncclResult_t asked = ncclCommGetAsyncError(c->nccl, &result);
        if (asked != ncclSuccess) return asked;
    }
    return result;
}

static const char *explain(CudaComm *c, ncclResult_t result) {
    static char text[512];
    const char *more = ncclGetLastError(c->nccl);
    if (result == ncclInProgress) return "not through in time: another rank does not come";
    snprintf(text, sizeof text, "%s%s%s", ncclGetErrorString(result), more && *more ? ": " : "", more ? more : "");
    return text;
}
#define NCCL_CHECK(c, call)                                                                                            \
    do {                                                                                                               \
        ncclResult_t nccl_check_result = settle(c, call);                                                              \
        if (nccl_check_result != ncclSuccess) cuda_fatal(__FILE__, __LINE__, #call, explain(c, nccl_check_result));    \
    } while (0)

// ---- flights ----
// Starts a collective, whose input is ready after all that is queued so far.
static Flight *depart(Backend *b, const char *operation, size_t bytes, int tag) {
    CudaComm *c = cuda_state(b)->comm;
    while (c->n - c->oldest >= CUDA_QUEUED / 2) watch(b, c), nap(); // up to 4 operations each
    if (c->n == c->capacity) {
        c->flights = (Flight *)alloc_resize(c->flights, (size_t)c->capacity + 64, sizeof *c->flights, "collectives");
        for (int end = c->capacity + 64; c->capacity < end; c->capacity++) {
            CUDA_CHECK(cudaEventCreateWithFlags(&c->flights[c->capacity].ready, cudaEventDisableTiming));
            CUDA_CHECK(cudaEventCreateWithFlags(&c->flights[c->capacity].done, cudaEventDisableTiming));
        }
    }
    if (tag >= c->tags) {
        c->last = (int *)alloc_resize(c->last, (size_t)tag + 1, sizeof *c->last, "collectives");
        while (c->tags <= tag) c->last[c->tags++] = -1;
    }
    c->last[tag] = c->n;
    Flight *f = &c->flights[c->n++];
    f->operation = operation;
    f->bytes = bytes;
    f->tag = tag;
    CUDA_CHECK(cudaEventRecord(f->ready, cuda_stream(b)));
    CUDA_CHECK(cudaStreamWaitEvent(c->stream, f->ready, 0));
    return f;
}

static void reduce_scatter(Backend *b, float *shard, float *buffer, size_t n, int accumulate, int tag) {
    CudaComm *c = cuda_state(b)->comm;
    float *sum = accumulate ? buffer + (size_t)b->dist->rank * n : shard;
    Flight *f = depart(b, "reduce-scatter", n * sizeof(float), tag);
    NCCL_CHECK(c, ncclReduceScatter(buffer, sum, n, ncclFloat32, ncclSum, c->nccl, c->stream));
    if (accumulate) add(shard, sum, n, c->stream);
    CUDA_CHECK(cudaEventRecord(f->done, c->stream));
}

static void all_gather(Backend *b, void *buffer, size_t bytes, int tag) {
    CudaComm *c = cuda_state(b)->comm;
    const char *mine = (const char *)buffer + (size_t)b->dist->rank * bytes;
    Flight *f = depart(b, "all-gather", bytes, tag);
    NCCL_CHECK(c, ncclAllGather(mine, buffer, bytes, ncclUint8, c->nccl, c->stream));
    CUDA_CHECK(cudaEventRecord(f->done, c->stream));
}

static void wait_for(Backend *b, int tag) {
    CudaComm *c = cuda_state(b)->comm;
    if (tag >= c->tags || c->last[tag] < 0) return;
    CUDA_CHECK(cudaStreamWaitEvent(cuda_stream(b), c->flights[c->last[tag]].done, 0));
    c->last[tag] = -1; // later work is behind it anyway
}

// ---- the watch ----
static int passed(cudaError_t code, const char *call) {
    if (code == cudaSuccess) return 1;
    (void)cudaGetLastError();
    if (code != cudaErrorNotReady) cuda_fatal(__FILE__, __LINE__, call, cudaGetErrorString(code));
    return 0;
}

// Ranks start waiting at different times; those that are running come to the roll call within this time.
static double roll_call_seconds(const CudaComm *c) { return c->timeout < 20 ? c->timeout / 4 : 5; }

[[noreturn]] static void overdue(const Backend *b, const CudaComm *c) {
    const Dist *d = b->dist;
    const Flight *f = &c->flights[c->oldest];
    const int number = c->ended + c->oldest;
    char call[128], text[512];
    int length = 0, *numbers = (int *)alloc_zeroed((size_t)d->ranks, sizeof *numbers, "roll call");
    snprintf(call, sizeof call, "%s of tag %d (%zu bytes a rank, the %dth)", f->operation, f->tag, f->bytes,
             number + 1);
    snprintf(text, sizeof text,
             "no progress for %.0f s; all ranks are in it (hint: NCCL_DEBUG=INFO says more, "
             "C3_COMM_TIMEOUT=SECONDS allows more time)",
             c->timeout);
    dist_roll_call(d, number, roll_call_seconds(c), numbers);
    for (int r = 0; r < d->ranks && length < 400; r++) {
        if (numbers[r] >= number) continue;
        if (!length) length = snprintf(text, sizeof text, "no progress for %.0f s: it waits for", c->timeout);
        length += snprintf(text + length, sizeof text - (size_t)length, " rank %d on %.60s (%s)", r, dist_host(d, r),
                           numbers[r] < 0 ? "no answer" : "behind");
    }
    cuda_fatal(__FILE__, __LINE__, call, text);
}

static void watch(const Backend *b, CudaComm *c) {
    ncclResult_t result = ncclSuccess, asked = ncclCommGetAsyncError(c->nccl, &result);
    if (asked != ncclSuccess) result = asked;
    if (result != ncclSuccess && result != ncclInProgress) {
        const Flight *f = &c->flights[c->oldest < c->n ? c->oldest : 0];
        char call[96] = "NCCL";
        if (c->n) snprintf(call, sizeof call, "%s of tag %d (%zu bytes a rank)", f->operation, f->tag, f->bytes);
        cuda_fatal(__FILE__, __LINE__, call, explain(c, result));
    }
    for (; c->oldest < c->n && passed(cudaEventQuery(c->flights[c->oldest].done), "collective"); c->oldest++)
        c->waits_since = 0;
    if (c->oldest == c->n || !passed(cudaEventQuery(c->flights[c->oldest].ready), "compute stream")) return;
    const double now = seconds();
    if (c->waits_since == 0) c->waits_since = now;
    if (now - c->waits_since > c->timeout - roll_call_seconds(c)) overdue(b, c);
}

// Drops finished collectives; the others move to the front.
static void retire(CudaComm *c) {
    while (c->oldest < c->n && passed(cudaEventQuery(c->flights[c->oldest].done), "collective")) c->oldest++;
    const int gone = c->oldest;
    for (int i = 0; gone > 0 && gone + i < c->n; i++) {
        const Flight ended = c->flights[i]; // its events are kept
        c->flights[i] = c->flights[gone + i];
        c->flights[gone + i] = ended;
    }
    for (int i = 0; i < c->tags; i++) c->last[i] = c->last[i] < gone ? -1 : c->last[i] - gone;
    c->ended += gone;
    c->n -= gone;
    c->oldest = 0;
    c->waits_since = 0;
}

void cuda_comm_wait(Backend *b, int collectives) {
    CudaComm *c = cuda_state(b)->comm;
    if (!c) {
        CUDA_CHECK(cudaStreamSynchronize(cuda_state(b)->stream));
        return;
    }
    while (!passed(cudaStreamQuery(cuda_state(b)->stream), "compute stream") ||
           (collectives && !passed(cudaStreamQuery(c->stream), "communication stream"))) {
        watch(b, c);
        nap();
    }
    retire(c);
}

void cuda_hold_back(const Backend *b) {
    CudaComm *c = cuda_state(b)->comm;
    if (!c) return;
    while (!passed(cudaEventQuery(c->queued), "compute stream")) {
        watch(b, c);
        nap();
    }
    CUDA_CHECK(cudaEventRecord(c->queued, cuda_state(b)->stream));
}

cudaStream_t cuda_comm_stream(const Backend *b) {
    const CudaComm *c = cuda_state(b)->comm;
    return c ? c->stream : cuda_stream(b);
}

// ---- creation and end ----
static int connect(Backend *b, CudaComm *c, Error *err) {
    const Dist *d = b->dist;
    ncclUniqueId id = {};
    ncclResult_t result = d->rank == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    int bad = result != ncclSuccess ? error_set(err, "NCCL: no identity: %s", ncclGetErrorString(result)) : 0;
    TRY(dist_agree(d, bad, err));
    dist_broadcast(d, &id, sizeof id, 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    result = settle(c, ncclCommInitRankConfig(&c->nccl, d->ranks, id, d->rank, &config));
    c->connected = result == ncclSuccess;
    if (result != ncclSuccess)
        bad = error_set(err, "NCCL cannot connect the ranks: %s (hint: NCCL_DEBUG=INFO says more)", explain(c, result));
    return dist_agree(d, bad, err);
}

int cuda_comm_create(Backend *b, Error *err) {
    const Dist *d = b->dist;
    fill_alone(b);
    if (!cuda_comm_wanted(d)) return 0;
    CudaComm *c = (CudaComm *)alloc_zeroed(1, sizeof *c, "collectives");
    cuda_state(b)->comm = c;
    c->timeout = d->timeout;
    int least = 0, greatest = 0; // high priority: its kernels are short, and other ranks wait for them
    CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_CHECK(cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking, greatest));
    CUDA_CHECK(cudaEventCreateWithFlags(&c->queued, cudaEventDisableTiming));
    TRY(connect(b, c, err));
    b->reduce_scatter = reduce_scatter;
    b->all_gather = all_gather;
    b->wait_for = wait_for;
    return 0;
}

void cuda_comm_free(Backend *b) {
    CudaComm *c = cuda_state(b)->comm;
    if (!c) return;
    for (int i = 0; i < c->capacity; i++) {
        CUDA_CHECK(cudaEventDestroy(c->flights[i].ready));
        CUDA_CHECK(cudaEventDestroy(c->flights[i].done));
    }
    if (c->connected) {
        NCCL_CHECK(c, ncclCommFinalize(c->nccl));
        ncclCommDestroy(c->nccl); // only frees, after the former
    } else if (c->nccl) {
        ncclCommAbort(c->nccl); // a fatal error here would hide why it was not connected
    }
    if (c->queued) CUDA_CHECK(cudaEventDestroy(c->queued));
    if (c->stream) CUDA_CHECK(cudaStreamDestroy(c->stream));
    free(c->flights);
    free(c->last);
    free(c);
    cuda_state(b)->comm = NULL;
}

#else
int cuda_comm_create(Backend *b, Error *err) {
    fill_alone(b);
    if (cuda_comm_wanted(b->dist))
        return error_set(err,
                         "this program was built without NCCL: one GPU, one rank; found %d rank(s)%s (hint: install "
                         "NCCL with its headers and make again, or -device cpu)",
                         b->dist->ranks, b->dist->ranks == 1 ? " and C3_NCCL_ALWAYS" : "");
    return 0;
}
void cuda_comm_free(Backend *b) { (void)b; }
void cuda_hold_back(const Backend *b) { (void)b; }
cudaStream_t cuda_comm_stream(const Backend *b) { return cuda_stream(b); }
void cuda_comm_wait(Backend *b, int collectives) {
    (void)collectives;
    CUDA_CHECK(cudaStreamSynchronize(cuda_state(b)->stream));
}
#endif
