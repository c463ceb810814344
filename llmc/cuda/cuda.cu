// cuda.cu: creation of the CUDA backend: choice and check of the GPU; memory, copies, waiting.
//
// All copies are queued on the compute stream. `upload` goes through a ring of page-locked memory, so that it returns
// at once: a copy from pageable memory would wait for everything queued before it.
#include "llmc/cuda/cuda.h"

#include "llmc/base/alloc.h"
#include "llmc/base/gpu_sheets.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- failures on the device end all ranks ----
static const Dist *the_ranks; // of this process's only backend with ranks

void cuda_fatal(const char *file, int line, const char *call, const char *text) {
    static const Dist alone = {0, 1, 0, 1, 1, 0};
    const Dist *d = the_ranks ? the_ranks : &alone;
    fflush(stdout);
    fprintf(stderr, "rank %d on %s: %s:%d: %s: %s\n", d->rank, dist_host(d, d->rank), file, line, call, text);
    fflush(stderr);
    dist_abort(d, 1);
}

// ---- memory ----
static int no_memory(Error *err, const char *what, size_t bytes, const char *kind, cudaError_t code) {
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    if (code != cudaErrorMemoryAllocation)
        return error_set(err, "%s: %zu bytes of %s: %s", what, bytes, kind, cudaGetErrorString(code));
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) (void)cudaGetLastError();
    return error_set(err,
                     "%s: out of %s: %zu bytes (%.2f GB) could not be had, %.2f of the GPU's %.2f GB are free "
                     "(hint: -recompute layer, smaller -b or -maxlen, or more ranks with -zero 1; nvidia-smi shows who "
                     "else uses it)",
                     what, kind, bytes, (double)bytes / 1e9, (double)available / 1e9, (double)total / 1e9);
}

static int memory_alloc(Backend *b, void **memory, size_t bytes, const char *what, Error *err) {
    (void)b;
    *memory = NULL;
    cudaError_t code = cudaMalloc(memory, bytes ? bytes : 64);
    if (code == cudaSuccess) return 0;
    *memory = NULL;
    return no_memory(err, what, bytes, "GPU memory", code);
}

static void memory_release(Backend *b, void *memory) {
    (void)b;
    CUDA_CHECK(cudaFree(memory));
}

static int memory_alloc_host(Backend *b, void **memory, size_t bytes, const char *what, Error *err) {
    (void)b;
    *memory = NULL;
    cudaError_t code = cudaMallocHost(memory, bytes ? bytes : 64);
    if (code == cudaSuccess) return 0;
    *memory = NULL;
    (void)cudaGetLastError();
    return error_set(err, "%s: %zu bytes of page-locked host memory: %s (hint: ulimit -l; smaller -b or -maxlen)", what,
                     bytes, cudaGetErrorString(code));
}

static void memory_release_host(Backend *b, void *memory) {
    (void)b;
    CUDA_CHECK(cudaFreeHost(memory));
}

static void memory_size(Backend *b, size_t *available, size_t *total) {
    (void)b;
    CUDA_CHECK(cudaMemGetInfo(available, total));
}

// ---- scratch ----
static int reserve(Backend *b, int rows, int heads, int width, Error *err) {
    CudaState *s = cuda_state(b);
    const size_t bytes = backend_scratch_bytes(rows, heads, width);
    if (bytes <= s->scratch_bytes) return 0;
    if (s->scratch) CUDA_CHECK(cudaFree(s->scratch)); // waits for kernels that still use it
    s->scratch_bytes = 0;
    TRY(memory_alloc(b, &s->scratch, bytes, "scratch", err));
    s->scratch_bytes = bytes;
    return 0;
}

void *cuda_scratch(Backend *b, size_t bytes, const char *who) {
    const CudaState *s = cuda_state(b);
    if (bytes > s->scratch_bytes) {
        char text[128];
        snprintf(text, sizeof text, "%zu bytes of scratch are wanted, %zu were reserved", bytes, s->scratch_bytes);
        cuda_fatal(__FILE__, __LINE__, who, text);
    }
    return s->scratch;
}

// ---- copies ----
static void next_segment(Backend *b) {
    CudaStaging *r = &cuda_state(b)->staging;
    CUDA_CHECK(cudaEventRecord(r->sent[r->segment], cuda_stream(b)));
    r->segment = (r->segment + 1) % CUDA_STAGING_SEGMENTS;
    r->used = 0;
    cudaError_t code = cudaEventQuery(r->sent[r->segment]); // never recorded counts as passed
    if (code == cudaErrorNotReady) {
        (void)cudaGetLastError();
        cuda_comm_wait(b, 0);
    } else {
        CUDA_CHECK(code);
    }
}

static void upload(Backend *b, void *device, const void *host, size_t bytes) {
    CudaStaging *r = &cuda_state(b)->staging;
    for (size_t at = 0, n = 0; at < bytes; at += n) {
        if (r->used >= CUDA_STAGING_SEGMENT) next_segment(b);
        n = CUDA_STAGING_SEGMENT - r->used;
        if (n > bytes - at) n = bytes - at;
        char *place = r->memory + (size_t)r->segment * CUDA_STAGING_SEGMENT + r->used;
        memcpy(place, (const char *)host + at, n);
        CUDA_CHECK(cudaMemcpyAsync((char *)device + at, place, n, cudaMemcpyHostToDevice, cuda_stream(b)));
        r->used += (n + 63) & ~(size_t)63;
    }
}

static void upload_async(Backend *b, void *device, const void *host, size_t bytes) {
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_stream(b)));
}

// The copy's own wait detects no time-out, so everything that could hang is waited for first.
static void download(Backend *b, void *host, const void *device, size_t bytes) {
    cuda_comm_wait(b, 0);
    CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream(b)));
    CUDA_CHECK(cudaStreamSynchronize(cuda_state(b)->stream));
}

static void synchronize(Backend *b) { cuda_comm_wait(b, 1); }

static void copy(Backend *b, void *to, const void *from, size_t bytes) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream(b)));
}

static void zero(Backend *b, void *device, size_t bytes) {
    CUDA_CHECK(cudaMemsetAsync(device, 0, bytes, cuda_stream(b)));
}

// ---- names for profilers ----
static void range_push(Backend *b, const char *name, int number) {
    char text[64];
    (void)b;
    if (number >= 0) snprintf(text, sizeof text, "%s %d", name, number);
    nvtxRangePushA(number >= 0 ? text : name);
}

static void range_pop(Backend *b) {
    (void)b;
    nvtxRangePop();
}

// ---- times ----
static void stamp(Backend *b, int collectives) {
    enum { MORE = 1024 };
    CudaStamps *t = &cuda_state(b)->stamps;
    if (t->n == t->capacity) {
        t->events =
            (cudaEvent_t *)alloc_resize(t->events, (size_t)t->capacity + MORE, sizeof *t->events, "time stamps");
        for (int end = t->capacity + MORE; t->capacity < end; t->capacity++)
            CUDA_CHECK(cudaEventCreate(&t->events[t->capacity]));
    }
    CUDA_CHECK(cudaEventRecord(t->events[t->n++], collectives ? cuda_comm_stream(b) : cuda_stream(b)));
}

static void read_stamps(Backend *b, double *seconds, int n) {
    CudaStamps *t = &cuda_state(b)->stamps;
    float ms = 0;
    for (int i = 0; i < n; i++) {
        CUDA_CHECK(cudaEventSynchronize(t->events[i]));
        CUDA_CHECK(cudaEventElapsedTime(&ms, t->events[0], t->events[i]));
        seconds[i] = t->before + 1e-3 * (double)ms;
    }
    if (n == 0) return;
    if (n < t->n) {
        CUDA_CHECK(cudaEventSynchronize(t->events[n]));
        CUDA_CHECK(cudaEventElapsedTime(&ms, t->events[0], t->events[n]));
    }
    t->before += 1e-3 * (double)ms;
    for (int i = 0; n + i < t->n; i++) { // those read go behind the others
        const cudaEvent_t read = t->events[i];
        t->events[i] = t->events[n + i];
        t->events[n + i] = read;
    }
    t->n -= n;
}

// ---- which GPU ----
int backend_cuda_devices(void) {
    int count = 0, driver = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (code == cudaSuccess) return count;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    return code == cudaErrorInsufficientDriver && driver > 0 ? -1 : 0;
}

static int check_driver(Error *err) {
    int driver = 0, toolkit = 0, count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (code == cudaSuccess && count > 0) return 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&toolkit) != cudaSuccess) driver = 0;
    if (code == cudaErrorInsufficientDriver && driver > 0)
        return error_set(err,
                         "the NVIDIA driver supports CUDA %d.%d, this program was built with CUDA %d.%d (hint: a newer "
                         "driver, a build with an older toolkit, or -device cpu)",
                         driver / 1000, driver % 1000 / 10, toolkit / 1000, toolkit % 1000 / 10);
    return error_set(err, "no GPU can be used: %s (hint: nvidia-smi shows what the driver sees; or -device cpu)",
                     cudaGetErrorString(code));
}

// If this program has no code for the GPU, asking for this kernel's attributes fails.
__global__ void any_kernel(int *out) { *out = 1; }

static int check_device(const cudaDeviceProp *p, Error *err) {
    if (p->major < 8)
        return error_set(err,
                         "%s has compute capability %d.%d: bf16 on tensor cores needs 8.0 (A100, RTX 30) or newer "
                         "(hint: another GPU through CUDA_VISIBLE_DEVICES, or -device cpu)",
                         p->name, p->major, p->minor);
    cudaFuncAttributes code_for_it;
    const cudaError_t code = cudaFuncGetAttributes(&code_for_it, (const void *)any_kernel);
    if (code == cudaSuccess) return 0;
    (void)cudaGetLastError();
    return error_set(err, "%s: this program holds no code for sm_%d%d: %s (hint: make clean, make GPU_ARCH=%d%d)",
                     p->name, p->major, p->minor, cudaGetErrorString(code), p->major, p->minor);
}

// Takes the GPU whose number is the rank's on its host. A launcher may show each rank a single GPU, hence the
// remainder; check_shared finds out by identity whether two ranks got the same one.
static int take_device(CudaState *s, cudaDeviceProp *p, const Dist *d, Error *err) {
    TRY(check_driver(err));
    s->device = (d ? d->local_rank : 0) % backend_cuda_devices();
    cudaError_t code = cudaGetDeviceProperties(p, s->device);
    if (code == cudaSuccess) code = cudaSetDevice(s->device);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        return error_set(err, "GPU %d cannot be used: %s", s->device, cudaGetErrorString(code));
    }
    s->arch = p->major * 10 + p->minor;
    s->sms = p->multiProcessorCount;
    snprintf(s->name, sizeof s->name, "cuda %s, sm_%d", p->name, s->arch);
    return check_device(p, err);
}

// Refuses two ranks on one GPU, as NCCL does. Called by all ranks.
static int check_shared(const cudaDeviceProp *p, const Dist *d, Error *err) {
    const size_t size = sizeof p->uuid;
    char *all = (char *)alloc((size_t)d->ranks, size, "identities of GPUs");
    dist_all_gather(d, all, &p->uuid, size);
    int other = -1;
    for (int r = 0; r < d->ranks; r++) {
        if (r != d->rank && !memcmp(all + (size_t)r * size, &p->uuid, size)) other = r;
    }
    free(all);
    const int gpus = backend_cuda_devices();
    if (other < 0) return 0;
    return error_set(err,
                     "%d ranks on a host with %d GPU(s): ranks %d and %d would share one (hint: mpirun -np %d here; "
                     "more ranks need more hosts)",
                     d->local_ranks, gpus, d->rank, other, gpus < d->local_ranks ? gpus : d->local_ranks);
}

// ---- creation and end ----
static void destroy(Backend *b) {
    if (!b) return;
    CudaState *s = cuda_state(b);
    if (s->stream) cuda_comm_wait(b, 1);
    cuda_comm_free(b);
    cuda_matmul_free(b);
    if (s->scratch) CUDA_CHECK(cudaFree(s->scratch));
    if (s->staging.memory) CUDA_CHECK(cudaFreeHost(s->staging.memory));
    for (int i = 0; i < CUDA_STAGING_SEGMENTS; i++) {
        if (s->staging.sent[i]) CUDA_CHECK(cudaEventDestroy(s->staging.sent[i]));
    }
    for (int i = 0; i < s->stamps.capacity; i++) CUDA_CHECK(cudaEventDestroy(s->stamps.events[i]));
    free(s->stamps.events);
    if (s->stream) CUDA_CHECK(cudaStreamDestroy(s->stream));
    if (b->dist == the_ranks) the_ranks = NULL;
    free(s);
    free(b);
}

static void fill_table(Backend *b) {
    b->destroy = destroy;
    b->alloc = memory_alloc;
    b->release = memory_release;
    b->memory = memory_size;
    b->alloc_host = memory_alloc_host;
    b->release_host = memory_release_host;
    b->reserve = reserve;
    b->upload = upload;
    b->upload_async = upload_async;
    b->download = download;
    b->copy = copy;
    b->zero = zero;
    b->synchronize = synchronize;
    b->range_push = range_push;
    b->range_pop = range_pop;
    b->stamp = stamp;
    b->read_stamps = read_stamps;
    cuda_rows_fill(b);
    cuda_rmsnorm_fill(b);
    cuda_rope_fill(b);
    cuda_swiglu_fill(b);
    cuda_loss_fill(b);
    cuda_adamw_fill(b);
    cuda_attention_fill(b);
}

static int create_resources(Backend *b, Error *err) {
    CudaStaging *r = &cuda_state(b)->staging;
    void *memory = NULL;
    CUDA_CHECK(cudaStreamCreateWithFlags(&cuda_state(b)->stream, cudaStreamNonBlocking));
    for (int i = 0; i < CUDA_STAGING_SEGMENTS; i++)
        CUDA_CHECK(cudaEventCreateWithFlags(&r->sent[i], cudaEventDisableTiming));
    TRY(memory_alloc_host(b, &memory, (size_t)CUDA_STAGING_SEGMENTS * CUDA_STAGING_SEGMENT, "uploads", err));
    r->memory = (char *)memory;
    return cuda_matmul_create(b, err);
}

// Ranks agree on every step in which one can fail alone, so that none waits for one that has given up.
static int create(Backend *b, Error *err) {
    CudaState *s = cuda_state(b);
    cudaDeviceProp p;
    const int several = b->dist && b->dist->ranks > 1;
    int bad = take_device(s, &p, b->dist, err);
    if (several) {
        TRY(dist_agree(b->dist, bad, err));
        bad = check_shared(&p, b->dist, err);
        TRY(dist_agree(b->dist, bad, err));
    }
    TRY(bad);
    fill_table(b);
    b->name = s->name;
    const Gpu *sheet = gpu_find(p.name);
    if (sheet) b->sheet_flops = b->dtype == DTYPE_BF16 ? sheet->bf16 : sheet->fp32;
    bad = cuda_libraries_load ? cuda_libraries_load(cuda_comm_wanted(b->dist), err) : 0;
    if (!bad && cuda_libraries_text) b->libraries = cuda_libraries_text();
    if (!bad) bad = create_resources(b, err);
    if (several) bad = dist_agree(b->dist, bad, err);
    TRY(bad);
    TRY(cuda_comm_create(b, err)); // agreed inside
    b->peak_flops = cuda_matmul_peak(b);
    return 0;
}

int backend_cuda_create(Backend **out, DType dtype, Dist *dist, Error *err) {
    *out = NULL;
    if (dtype != DTYPE_F32 && dtype != DTYPE_BF16)
        return error_set(err, "cuda: element type must be fp32 or bf16, found type %d", (int)dtype);
    Backend *b = (Backend *)alloc_zeroed(1, sizeof *b, "cuda backend");
    CudaState *s = (CudaState *)alloc_zeroed(1, sizeof *s, "cuda backend");
    b->dtype = dtype;
    b->threads = 1;
    b->is_gpu = 1;
    b->dist = dist;
    b->state = s;
    if (dist) the_ranks = dist;
    if (create(b, err)) {
        destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}
