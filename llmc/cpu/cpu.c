// cpu.c: creation of the CPU backend, choice of kernels, memory, scratch.
//
// Kernels are compiled for several instruction sets (variants.mk) and chosen here at run time. C3_CPU_ISA in the
// environment (base, avx512, avx512_bf16) forces one, for tests and measurements.
#include "llmc/cpu/cpu.h"
#include "llmc/base/alloc.h"
#include "llmc/base/dist.h" // Dist.cores

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // madvise
#include <time.h>
#include <unistd.h> // execv, sysconf

// ---- scratch ----
static void *grow(void **memory, size_t *have, size_t bytes) {
    if (bytes > *have) {
        free(*memory);
        *memory = NULL;
        *have = 0;
        if (posix_memalign(memory, 64, (bytes + 63) & ~(size_t)63) != 0) {
            fprintf(stderr, "cpu backend: out of memory for %zu bytes of scratch (hint: smaller -b)\n", bytes);
            abort();
        }
        *have = bytes;
    }
    return *memory;
}

void *cpu_thread_scratch(Backend *b, int thread, size_t bytes) {
    CpuState *s = b->state;
    return grow(&s->thread_scratch[thread], &s->thread_scratch_bytes[thread], bytes);
}

void *cpu_shared_scratch(Backend *b, size_t bytes) {
    CpuState *s = b->state;
    return grow(&s->shared_scratch, &s->shared_scratch_bytes, bytes);
}

// ---- memory ----
static int memory_alloc(Backend *b, void **memory, size_t bytes, const char *what, Error *err) {
    enum { HUGE_PAGE = 1 << 21 };
    const int is_large = bytes >= 8 * (size_t)HUGE_PAGE;
    (void)b;
    *memory = NULL;
    if (posix_memalign(memory, is_large ? HUGE_PAGE : 64, bytes ? bytes : 64) != 0) {
        *memory = NULL;
        return error_set(err, "%s: out of memory: %zu bytes (%.1f MB) could not be had (hint: smaller -b or -maxlen)",
                         what, bytes, (double)bytes / 1e6);
    }
#ifdef MADV_HUGEPAGE
    if (is_large) madvise(*memory, bytes, MADV_HUGEPAGE); // a hint
#endif
    return 0;
}

static void memory_release(Backend *b, void *memory) {
    (void)b;
    free(memory);
}

static void memory_copy(Backend *b, void *to, const void *from, size_t bytes) {
    CPU_PARALLEL(cpu_threads(b, (double)bytes / 64), {
        const size_t begin = cpu_split(bytes, thread, threads), end = cpu_split(bytes, thread + 1, threads);
        if (end > begin) memcpy((char *)to + begin, (const char *)from + begin, end - begin);
    });
}

static void memory_zero(Backend *b, void *device, size_t bytes) {
    CPU_PARALLEL(cpu_threads(b, (double)bytes / 64), {
        const size_t begin = cpu_split(bytes, thread, threads), end = cpu_split(bytes, thread + 1, threads);
        if (end > begin) memset((char *)device + begin, 0, end - begin);
    });
}

static void synchronize(Backend *b) { (void)b; }

// The number in the first line of a text file that matches the format, or `otherwise`.
static size_t read_number(const char *path, const char *format, size_t otherwise) {
    FILE *f = fopen(path, "r");
    char line[256];
    size_t value = otherwise;
    while (f && fgets(line, sizeof line, f)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (sscanf(line, format, &value) == 1) break;
#pragma GCC diagnostic pop
    }
    if (f) fclose(f);
    return value;
}

// Memory available without swapping, within the limit of this container.
static void memory_size(Backend *b, size_t *available, size_t *total) {
    (void)b;
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGE_SIZE);
    *available = read_number("/proc/meminfo", "MemAvailable: %zu", *total / 1024) * 1024;
    const size_t limit = read_number("/sys/fs/cgroup/memory.max", "%zu", *total);
    const size_t used = read_number("/sys/fs/cgroup/memory.current", "%zu", 0);
    const size_t left = limit > used ? limit - used : 0;
    if (limit >= *total) return;
    *total = limit;
    if (left < *available) *available = left;
}

static int reserve(Backend *b, int rows, int heads, int width, Error *err) { // scratch grows on demand
    (void)b, (void)rows, (void)heads, (void)width, (void)err;
    return 0;
}

static void cast_from_f32(Backend *b, elem_t *out, const float *in, size_t n) {
    CPU_PARALLEL(cpu_threads(b, (double)n), {
        const size_t begin = cpu_split(n, thread, threads), end = cpu_split(n, thread + 1, threads);
        cpu_kernels(b)->cast_from_f32(elem_at(b, out, begin), in + begin, end - begin);
    });
}

static void cast_to_f32(Backend *b, float *out, const elem_t *in, size_t n) {
    CPU_PARALLEL(cpu_threads(b, (double)n), {
        const size_t begin = cpu_split(n, thread, threads), end = cpu_split(n, thread + 1, threads);
        cpu_kernels(b)->cast_to_f32(out + begin, elem_at(b, in, begin), end - begin);
    });
}

// ---- times ----
static void stamp(Backend *b, int collectives) {
    CpuState *s = b->state;
    struct timespec t;
    (void)collectives;
    if (s->n_stamps == s->stamps_capacity) {
        s->stamps_capacity = 2 * s->stamps_capacity + 1024;
        s->stamps = alloc_resize(s->stamps, (size_t)s->stamps_capacity, sizeof *s->stamps, "time stamps");
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    s->stamps[s->n_stamps++] = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    if (s->first_stamp == 0) s->first_stamp = s->stamps[0];
}

static void read_stamps(Backend *b, double *seconds, int n) {
    CpuState *s = b->state;
    for (int i = 0; i < n; i++) seconds[i] = s->stamps[i] - s->first_stamp;
    s->n_stamps -= n;
    memmove(s->stamps, s->stamps + n, (size_t)s->n_stamps * sizeof *s->stamps);
}

// ---- which kernels ----
typedef struct Variant {
    const char *isa;
    const CpuKernels *f32, *bf16;
    int runs; // on this processor
    int pays; // is not slower there than the previous one
} Variant;

// From the plainest to the fastest. bf16 dot products run at twice the rate of fp32 FMAs on AMD's processors, at half
// the rate on Intel's (GFLOP/s of the inner loop, one thread: Zen 4 117 and 235, Sapphire Rapids 175 and 88), where
// only C3_CPU_ISA selects them.
static int variants(Variant v[3]) {
    v[0] = (Variant){"base", &cpu_kernels_base_f32, &cpu_kernels_base_bf16, 1, 1};
#ifdef CPU_HAVE_X86_VARIANTS
    __builtin_cpu_init();
    v[0].runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512cd");
    v[1] = (Variant){"avx512", &cpu_kernels_avx512_f32, &cpu_kernels_avx512_bf16, avx512, 1};
    v[2] = (Variant){"avx512_bf16", &cpu_kernels_avx512_f32, &cpu_kernels_avx512bf16_bf16,
                     avx512 && __builtin_cpu_supports("avx512bf16"), !__builtin_cpu_is("intel")};
    return 3;
#else
    return 1;
#endif
}

static int choose_kernels(const CpuKernels **out, DType dtype, Error *err) {
    Variant v[3];
    const int n = variants(v);
    const char *wanted = getenv("C3_CPU_ISA");
    int chosen = -1;
    const int is_forced = wanted && *wanted;
    for (int i = 0; i < n; i++) {
        if (v[i].runs && (is_forced ? !strcmp(wanted, v[i].isa) : v[i].pays)) chosen = i;
    }
    if (chosen < 0) {
        if (is_forced)
            return error_set(err, "C3_CPU_ISA=%s: not an instruction set of this build and processor (hint: base%s%s)",
                             wanted, n > 1 && v[1].runs ? ", avx512" : "", n > 1 && v[2].runs ? ", avx512_bf16" : "");
        return error_set(err, "cpu: this build needs a processor with AVX2 and FMA, this one lacks them");
    }
    *out = dtype == DTYPE_F32 ? v[chosen].f32 : v[chosen].bf16;
    return 0;
}

const char *backend_cpu_kernels(DType dtype) {
    const CpuKernels *kernels;
    return choose_kernels(&kernels, dtype, NULL) == 0 ? kernels->isa : NULL;
}

static void destroy(Backend *b) {
    if (!b) return;
    CpuState *s = b->state;
    for (int i = 0; i < b->threads; i++) free(s->thread_scratch[i]);
    free(s->thread_scratch);
    free(s->thread_scratch_bytes);
    free(s->shared_scratch);
    free(s->stamps);
    free(s);
    free(b);
}

int backend_cpu_create(Backend **out, DType dtype, int threads, Dist *dist, Error *err) {
    enum { MAX_THREADS = 4096 };
    *out = NULL;
    if (dtype != DTYPE_F32 && dtype != DTYPE_BF16)
        return error_set(err, "cpu: element type must be fp32 or bf16, found type %d", (int)dtype);
    if (threads <= 0) threads = dist ? dist->cores : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < 1) threads = 1;
    if (threads > MAX_THREADS)
        return error_set(err, "cpu: threads: expected at most %d, found %d", MAX_THREADS, threads);
    const CpuKernels *kernels = NULL;
    TRY(choose_kernels(&kernels, dtype, err));

    Backend *b = alloc(1, sizeof *b, "cpu backend");
    CpuState *s = alloc_zeroed(1, sizeof *s, "cpu backend");
    *b = (Backend){.dtype = dtype, .threads = threads, .dist = dist, .state = s};
    s->kernels = kernels;
    s->thread_scratch = alloc_zeroed((size_t)threads, sizeof *s->thread_scratch, "cpu backend");
    s->thread_scratch_bytes = alloc_zeroed((size_t)threads, sizeof *s->thread_scratch_bytes, "cpu backend");
    snprintf(s->name, sizeof s->name, "cpu %s", kernels->isa);
    b->name = s->name;
    b->destroy = destroy;
    b->alloc = memory_alloc;
    b->release = memory_release;
    b->memory = memory_size;
    b->alloc_host = memory_alloc;
    b->release_host = memory_release;
    b->reserve = reserve;
    b->upload = memory_copy;
    b->upload_async = memory_copy;
    b->download = memory_copy;
    b->copy = memory_copy;
    b->zero = memory_zero;
    b->synchronize = synchronize;
    b->cast_from_f32 = cast_from_f32;
    b->cast_to_f32 = cast_to_f32;
    b->stamp = stamp;
    b->read_stamps = read_stamps;
    cpu_layers_fill(b);
    cpu_matmul_fill(b);
    cpu_attention_fill(b);
    *out = b;
    return 0;
}

void backend_cpu_prepare(char **argv) {
#ifdef __linux__
    // 1000 is what libgomp takes on a machine it knows to be oversubscribed; its default is 300 times that. On two
    // cores, one of them busy, a step of the tiny preset took over 10,000 ms with the default, 250 ms with 0 or 1000.
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || (size_t)n >= sizeof self - 1) return;
    self[n] = 0;
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY") || setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
    execv(self, argv); // returns only on failure: then threads spin
#else
    (void)argv;
#endif
}

// CPU time of this thread, in which other processes do not count.
static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double backend_cpu_measure_peak(Backend *b) {
    enum { RUNS = 8, REPEATS = 200 };
    double *best = alloc_zeroed((size_t)b->threads, sizeof *best, "peak measurement"); // each thread's fastest run
    double sum = 0;
    for (int run = 0; run < RUNS; run++) {
        CPU_PARALLEL(b->threads, {
            (void)threads;
            const double start = thread_seconds();
            const double rate = cpu_kernels(b)->peak(REPEATS) / (thread_seconds() - start);
            if (rate > best[thread]) best[thread] = rate;
        });
    }
    for (int i = 0; i < b->threads; i++) sum += best[i];
    free(best);
    return sum;
}
