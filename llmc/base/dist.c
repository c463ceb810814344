// dist.c: see dist.h. Sums over ranks are always added in rank order, so that their bits do not depend on MPI.
#include "llmc/base/dist.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/launch.h"

Dist dist_alone(void) { return (Dist){.ranks = 1, .local_ranks = 1, .cores = launch_cores(), .timeout = 60}; }

void dist_sum_double(const Dist *d, double *values, int n) {
    if (d->ranks == 1 || n == 0) return;
    double *all = alloc((size_t)d->ranks * (size_t)n, sizeof *all, "a sum over ranks");
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
    int root = d->ranks - first;
    Error line;
    if (d->rank == root) line = *err;
    dist_broadcast(d, line.text, sizeof line.text, root);
    int differs = !bad || strcmp(err->text, line.text) != 0;
    dist_max_int(d, &differs, 1);
    *err = line;
    return differs ? error_prefix(err, "rank %d on %s", root, dist_host(d, root)) : -1;
}

void dist_share_text(const Dist *d, char **text) {
    if (d->ranks == 1) return;
    uint64_t size = d->rank == 0 && *text ? strlen(*text) + 1 : 0;
    dist_broadcast(d, &size, sizeof size, 0);
    if (d->rank != 0) {
        free(*text);
        *text = size ? alloc(size, 1, "text of rank 0") : NULL;
    }
    dist_broadcast(d, *text, size, 0);
}

// One line of a record: its name and value, cut to a size that fits a message.
typedef struct Line {
    int name, value;
    const char *text, *from;
} Line;

static Line line_at(const char *record) {
    int length = (int)strcspn(record, "\n"), name = (int)strcspn(record, ":");
    if (name + 2 > length) return (Line){.text = record, .from = record};
    return (Line){.text = record, .from = record + name + 2, .name = name, .value = length - name - 2};
}

int dist_same(const Dist *d, const char *record, Error *err) {
    if (d->ranks == 1) return 0;
    char *theirs = d->rank == 0 ? string_copy(record) : NULL;
    dist_share_text(d, &theirs);
    int bad = 0;
    size_t at = 0;
    if (strcmp(record, theirs) != 0) {
        for (size_t i = 0; record[i] && record[i] == theirs[i]; i++) at = record[i] == '\n' ? i + 1 : at;
        Line found = line_at(record + at), wanted = line_at(theirs + at);
        bad = error_set(err, "%.*s: expected %.*s as on rank 0 on %s, found %.*s (hint: all ranks need the same files)",
                        found.name, found.text, wanted.value < 200 ? wanted.value : 200, wanted.from, dist_host(d, 0),
                        found.value < 200 ? found.value : 200, found.from);
    }
    free(theirs);
    return dist_agree(d, bad, err);
}

#ifdef HAVE_MPI
#include "llmc/base/dist_watch.h"

// The size of a message: larger buffers are split, so that heartbeats get through. Also reduce-scatter's unit of
// addition.
enum { SLAB_BYTES = 1 << 20, HOST_BYTES = 64 };

static char (*hosts)[HOST_BYTES]; // (ranks) never freed

const char *dist_host(const Dist *d, int rank) { return hosts && rank < d->ranks ? hosts[rank] : "this host"; }

static void post(const Dist *d, int code, const char *call) {
    watch_unlock();
    watch_check(d, code, call);
}
// Begins something under the lock of the watch.
#define POST(d, call) (watch_lock(), post(d, call, #call))
// Begins one collective and waits for it.
#define MEET(d, request, call) (POST(d, call), watch_finish(d, &(request), 1, #call))

static void gather_hosts(const Dist *d) {
    hosts = alloc_zeroed((size_t)d->ranks, sizeof *hosts, "host names");
    (void)gethostname(hosts[d->rank], HOST_BYTES - 1);
    watch_check(d, MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, hosts, HOST_BYTES, MPI_BYTE, MPI_COMM_WORLD),
                "MPI_Allgather");
}

// This rank's share of its cores: ranks on the same host that may use some of the same cores share them.
static int share_cores(const Dist *d, MPI_Comm host) {
    cpu_set_t mine, both, *all = alloc_zeroed((size_t)d->local_ranks, sizeof *all, "cores of ranks");
    int sharing = 0;
    CPU_ZERO(&mine);
    (void)sched_getaffinity(0, sizeof mine, &mine);
    watch_check(d, MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, host), "MPI_Allgather");
    for (int i = 0; i < d->local_ranks; i++) {
        CPU_AND(&both, &mine, &all[i]);
        sharing += CPU_COUNT(&both) > 0;
    }
    free(all);
    return sharing > 1 ? launch_cores() / sharing : launch_cores();
}

static void look_around(Dist *d, int parent) {
    MPI_Comm host;
    int mask = launch_mask(parent), seen[2] = {mask == MASK_ASKED, mask == MASK_DEFAULT};
    watch_check(d, MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, d->rank, MPI_INFO_NULL, &host),
                "MPI_Comm_split_type");
    MPI_Comm_rank(host, &d->local_rank);
    MPI_Comm_size(host, &d->local_ranks);
    gather_hosts(d);
    // On some hosts only one rank can see mpirun's options.
    watch_check(d, MPI_Allreduce(MPI_IN_PLACE, seen, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce");
    if (seen[1] && !seen[0]) launch_take_mask(parent);
    d->cores = share_cores(d, host);
    MPI_Comm_free(&host);
}

static int read_timeout(Dist *d, Error *err) {
    const char *text = getenv("C3_COMM_TIMEOUT");
    char *end = NULL;
    d->timeout = text && *text ? strtod(text, &end) : 60;
    if (end && (*end || !(d->timeout > 0)))
        return error_set(err, "C3_COMM_TIMEOUT=%s: expected the seconds that ranks may stand still (default 60)", text);
    return 0;
}

static const char *library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = 0;
    return text;
}

static int start(Dist *d, int *argc, char ***argv, Error *err) {
    int provided = 0, parent = launch_parent();
    if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
        return error_set(err, "MPI: cannot start");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &d->rank);
    alloc_set_rank(d->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &d->ranks);
    if (launch_check(d->ranks, library(), err) != 0) return -1;
    look_around(d, parent);
    int bad = read_timeout(d, err);
    if (bad) d->timeout = 60;
    watch_check(d, MPI_Bcast(&d->timeout, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD), "MPI_Bcast");
    watch_open(d, launch_parent_descriptor(parent), provided >= MPI_THREAD_SERIALIZED);
    return dist_agree(d, bad, err);
}

const char *dist_library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n); // works before MPI_Init
    text[strcspn(text, ",\n")] = 0;
    return text;
}

int dist_init(Dist *d, int *argc, char ***argv, Error *err) {
    *d = dist_alone();
    return launch_wants_mpi() ? start(d, argc, argv, err) : launch_check(1, library(), err);
}

static int running(void) {
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    return started && !ended;
}

void dist_finalize(Dist *d) {
    if (!running()) return;
    dist_barrier(d); // MPI_Finalize would also wait, but without a timeout
    watch_close(d);
    MPI_Finalize();
}

void dist_abort(const Dist *d, int code) {
    if (d->ranks > 1 && running()) watch_abort(code);
    if (running()) MPI_Finalize();
    exit(code);
}

void dist_roll_call(const Dist *d, int number, double seconds, int *numbers) {
    watch_roll_call(d, number, seconds, numbers);
}

void dist_barrier(const Dist *d) {
    MPI_Request request;
    if (d->ranks > 1) MEET(d, request, MPI_Ibarrier(MPI_COMM_WORLD, &request));
}

void dist_broadcast(const Dist *d, void *data, size_t bytes, int root) {
    if (d->ranks == 1) return;
    for (size_t at = 0; at < bytes; at += SLAB_BYTES) {
        size_t n = bytes - at < SLAB_BYTES ? bytes - at : SLAB_BYTES;
        MPI_Request request;
        MEET(d, request, MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, root, MPI_COMM_WORLD, &request));
    }
}

void dist_max_int(const Dist *d, int *values, int n) {
    MPI_Request request;
    if (d->ranks > 1)
        MEET(d, request, MPI_Iallreduce(MPI_IN_PLACE, values, n, MPI_INT, MPI_MAX, MPI_COMM_WORLD, &request));
}

// Sends to the rank `shift` places after this one and receives from the one as far before it.
static void exchange(const Dist *d, int shift, const void *out, void *in, size_t bytes) {
    MPI_Request requests[2];
    int to = (d->rank + shift) % d->ranks, from = (d->rank + d->ranks - shift) % d->ranks, n = (int)bytes;
    POST(d, MPI_Irecv(in, n, MPI_BYTE, from, 1, MPI_COMM_WORLD, &requests[0]));
    POST(d, MPI_Isend(out, n, MPI_BYTE, to, 1, MPI_COMM_WORLD, &requests[1]));
    watch_finish(d, requests, 2, "exchange");
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
            int from = (d->rank + d->ranks - shift) % d->ranks;
            exchange(d, shift, base + (size_t)d->rank * bytes + at, base + (size_t)from * bytes + at, n);
        }
    }
}

void dist_reduce_scatter(const Dist *d, float *buffer, size_t n) {
    if (d->ranks == 1) return;
    enum { SLAB = SLAB_BYTES / (int)sizeof(float) };
    static float *received; // (ranks,SLAB) never freed
    if (!received) received = alloc((size_t)d->ranks * SLAB, sizeof *received, "reduce-scatter");
    float *mine = buffer + (size_t)d->rank * n;
    for (size_t at = 0; at < n; at += SLAB) {
        size_t count = n - at < SLAB ? n - at : SLAB;
        for (int shift = 1; shift < d->ranks; shift++) {
            int to = (d->rank + shift) % d->ranks, from = (d->rank + d->ranks - shift) % d->ranks;
            exchange(d, shift, buffer + (size_t)to * n + at, received + (size_t)from * SLAB, count * sizeof(float));
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
    *d = dist_alone();
    return launch_check(1, NULL, err);
}
const char *dist_host(const Dist *d, int rank) { return (void)d, (void)rank, "this host"; }
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
void dist_roll_call(const Dist *d, int number, double seconds, int *numbers) {
    (void)d, (void)seconds;
    numbers[0] = number;
}

#endif
