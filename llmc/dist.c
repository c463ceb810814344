// dist.c: see dist.h. Sums over ranks are always added in rank order, so that their bits do not depend on MPI.
#include "dist.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

Dist dist_alone(void) { return (Dist){.ranks = 1, .local_ranks = 1, .cores = usable_cores()}; }

void dist_sum_double(const Dist *d, double *values, int n) {
    if (d->ranks == 1 || n == 0) return;
    double *all = malloc((size_t)d->ranks * (size_t)n * sizeof *all);
    if (!all) dist_abort(d, 1);
    dist_all_gather(d, all, values, (size_t)n * sizeof *values);
    for (int i = 0; i < n; i++) {
        values[i] = all[i];
        for (int r = 1; r < d->ranks; r++) values[i] += all[(size_t)r * n + i];
    }
    free(all);
}

int dist_agree(const Dist *d, int bad, Error *err) {
    if (d->ranks == 1) return bad ? -1 : 0;
    int first = bad ? d->ranks - d->rank : 0; // the largest belongs to the lowest failing rank
    dist_max_int(d, &first, 1);
    if (first == 0) return 0;
    dist_broadcast(d, err->text, sizeof err->text, d->ranks - first);
    return -1;
}

#ifdef HAVE_MPI
#include <mpi.h>

// One message; larger buffers are cut. Also the unit in which reduce-scatter adds.
enum { SLAB_BYTES = 1 << 20 };

static void check(int code, const char *call) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int n = 0, rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Error_string(code, text, &n);
    fprintf(stderr, "rank %d: %s: %.*s\n", rank, call, n, text);
    MPI_Abort(MPI_COMM_WORLD, 1);
}
#define MPI_CHECK(call) check((call), #call)

// Only a launcher's environment starts MPI: a program started by hand needs no daemon and no permission.
static int launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "MPI_LOCALNRANKS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i])) return 1;
    }
    return 0;
}

// Launchers bind ranks to single cores when they are few; all cores of the host are shared out instead.
static void widen_mask(void) {
    cpu_set_t all;
    CPU_ZERO(&all);
    long n = sysconf(_SC_NPROCESSORS_CONF);
    for (long i = 0; i < n && i < CPU_SETSIZE; i++) CPU_SET((int)i, &all);
    (void)sched_setaffinity(0, sizeof all, &all); // the kernel keeps what the container allows
}

const char *dist_library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n); // also before MPI is started
    text[strcspn(text, ",\n")] = 0;
    return text;
}

int dist_init(Dist *d, int *argc, char ***argv, Error *err) {
    *d = (Dist){.ranks = 1, .local_ranks = 1};
    if (launched()) {
        int provided = 0;
        if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
            return error_set(err, "MPI: cannot start");
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &d->rank));
        MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &d->ranks));
        MPI_Comm host;
        MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, d->rank, MPI_INFO_NULL, &host));
        MPI_CHECK(MPI_Comm_rank(host, &d->local_rank));
        MPI_CHECK(MPI_Comm_size(host, &d->local_ranks));
        MPI_CHECK(MPI_Comm_free(&host));
        widen_mask();
    }
    d->cores = usable_cores() / d->local_ranks;
    if (d->cores < 1) d->cores = 1;
    return 0;
}

static int running(void) {
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    return started && !ended;
}

void dist_finalize(Dist *d) {
    (void)d;
    if (running()) MPI_Finalize();
}

void dist_abort(const Dist *d, int code) {
    if (d->ranks > 1 && running()) MPI_Abort(MPI_COMM_WORLD, code);
    if (running()) MPI_Finalize();
    exit(code);
}

// Plain messages, as collectives could wait for ever. What is not through at the end stays under way: the caller ends
// the process.
void dist_roll_call(const Dist *d, int number, double seconds, int *numbers) {
    enum { TAG = 4711, PAUSES = 50 };
    static int said;
    MPI_Request *requests = malloc(2 * (size_t)d->ranks * sizeof *requests);
    if (!requests) dist_abort(d, 1);
    said = number;
    for (int r = 0; r < d->ranks; r++) {
        numbers[r] = r == d->rank ? number : -1;
        requests[2 * r] = requests[2 * r + 1] = MPI_REQUEST_NULL;
        if (r == d->rank) continue;
        MPI_CHECK(MPI_Irecv(&numbers[r], 1, MPI_INT, r, TAG, MPI_COMM_WORLD, &requests[2 * r]));
        MPI_CHECK(MPI_Isend(&said, 1, MPI_INT, r, TAG, MPI_COMM_WORLD, &requests[2 * r + 1]));
    }
    for (int i = 0, all = 0; i < PAUSES && !all; i++) {
        usleep((useconds_t)(seconds / PAUSES * 1e6));
        MPI_CHECK(MPI_Testall(2 * d->ranks, requests, &all, MPI_STATUSES_IGNORE));
    }
}

void dist_barrier(const Dist *d) {
    if (d->ranks > 1) MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD));
}

void dist_broadcast(const Dist *d, void *data, size_t bytes, int root) {
    if (d->ranks == 1) return;
    for (size_t at = 0; at < bytes; at += SLAB_BYTES) {
        size_t n = bytes - at < SLAB_BYTES ? bytes - at : SLAB_BYTES;
        MPI_CHECK(MPI_Bcast((char *)data + at, (int)n, MPI_BYTE, root, MPI_COMM_WORLD));
    }
}

void dist_max_int(const Dist *d, int *values, int n) {
    if (d->ranks > 1) MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_INT, MPI_MAX, MPI_COMM_WORLD));
}

void dist_all_gather(const Dist *d, void *all, const void *mine, size_t bytes) {
    memcpy((char *)all + (size_t)d->rank * bytes, mine, bytes);
    dist_all_gather_in_place(d, all, bytes);
}

void dist_all_gather_in_place(const Dist *d, void *buffer, size_t bytes) {
    if (d->ranks == 1) return;
    char *base = buffer;
    for (size_t at = 0; at < bytes; at += SLAB_BYTES) {
        size_t n = bytes - at < SLAB_BYTES ? bytes - at : SLAB_BYTES;
        for (int shift = 1; shift < d->ranks; shift++) { // every rank sends to one and receives from another
            int to = (d->rank + shift) % d->ranks, from = (d->rank + d->ranks - shift) % d->ranks;
            MPI_CHECK(MPI_Sendrecv(base + (size_t)d->rank * bytes + at, (int)n, MPI_BYTE, to, 1,
                                   base + (size_t)from * bytes + at, (int)n, MPI_BYTE, from, 1, MPI_COMM_WORLD,
                                   MPI_STATUS_IGNORE));
        }
    }
}

void dist_reduce_scatter(const Dist *d, float *buffer, size_t n) {
    if (d->ranks == 1) return;
    enum { SLAB = SLAB_BYTES / (int)sizeof(float) };
    static float *received; // (ranks,SLAB) of the life of the process
    if (!received && !(received = malloc((size_t)d->ranks * SLAB * sizeof *received))) dist_abort(d, 1);
    float *mine = buffer + (size_t)d->rank * n;
    for (size_t at = 0; at < n; at += SLAB) {
        size_t count = n - at < SLAB ? n - at : SLAB;
        for (int shift = 1; shift < d->ranks; shift++) {
            int to = (d->rank + shift) % d->ranks, from = (d->rank + d->ranks - shift) % d->ranks;
            MPI_CHECK(MPI_Sendrecv(buffer + (size_t)to * n + at, (int)count, MPI_FLOAT, to, 2,
                                   received + (size_t)from * SLAB, (int)count, MPI_FLOAT, from, 2, MPI_COMM_WORLD,
                                   MPI_STATUS_IGNORE));
        }
        memcpy(received + (size_t)d->rank * SLAB, mine + at, count * sizeof(float));
        for (size_t i = 0; i < count; i++) {
            float sum = received[i];
            for (int r = 1; r < d->ranks; r++) sum += received[(size_t)r * SLAB + i];
            mine[at + i] = sum;
        }
    }
}

#else // one rank

const char *dist_library(void) { return "none: one rank only"; }
int dist_init(Dist *d, int *argc, char ***argv, Error *err) {
    (void)argc, (void)argv;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (!size) size = getenv("PMI_SIZE");
    *d = dist_alone();
    if (size && atoi(size) > 1)
        return error_set(
            err, "started as %s ranks, but this build has no MPI (hint: install libopenmpi-dev, then make)", size);
    return 0;
}
void dist_finalize(Dist *d) { (void)d; }
void dist_abort(const Dist *d, int code) {
    (void)d;
    exit(code);
}
void dist_barrier(const Dist *d) { (void)d; }
void dist_broadcast(const Dist *d, void *data, size_t bytes, int root) { (void)d, (void)data, (void)bytes, (void)root; }
void dist_max_int(const Dist *d, int *values, int n) { (void)d, (void)values, (void)n; }
void dist_all_gather(const Dist *d, void *all, const void *mine, size_t bytes) {
    (void)d;
    memcpy(all, mine, bytes);
}
void dist_all_gather_in_place(const Dist *d, void *buffer, size_t bytes) { (void)d, (void)buffer, (void)bytes; }
void dist_reduce_scatter(const Dist *d, float *buffer, size_t n) { (void)d, (void)buffer, (void)n; }

#endif
