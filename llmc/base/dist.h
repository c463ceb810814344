// dist.h: the ranks of a run. A rank is one process with one GPU or some cores. MPI starts the ranks, carries small
// host values between them and ends them together. A build without MPI always has one rank.
#ifndef LLMC_DIST_H
#define LLMC_DIST_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Dist {
    int rank, ranks;             // in the whole run
    int local_rank, local_ranks; // on this host
    int cores;                   // this rank's share of the host's cores, at least 1
    double timeout;              // C3_COMM_TIMEOUT of rank 0 (60): seconds without a sign of life from a rank, or
                                 // without progress anywhere, before a wait is given up
} Dist;

// Starts MPI if the process was launched by mpirun or srun; otherwise there is one rank. Sets this rank's share of the
// cores; if only Open MPI's default bound the rank to fewer, it gets the launcher's cores back (launch.h). It is an
// error if processes launched as several each find themselves alone. d must outlive the run: a thread reads it.
int dist_init(Dist *d, int *argc, char ***argv, Error *err);
// The MPI library: "Open MPI v4.1.4", or "none: one rank only".
const char *dist_library(void);
// One rank without MPI, with every core this process may use.
Dist dist_alone(void);
void dist_finalize(Dist *d);
// The name of a rank's host.
const char *dist_host(const Dist *d, int rank);
// Ends all ranks with the exit code. Does not return.
void dist_abort(const Dist *d, int code) __attribute__((noreturn));

// Collectives wait as long as every rank is alive. A rank that gives no sign of life for d->timeout seconds is named
// and all are ended, as are ranks that wait for each other in different collectives. Long waits are reported on stderr.
// A signal to stop (stop.h) shortens the timeout.
void dist_barrier(const Dist *d);
void dist_broadcast(const Dist *d, void *data, size_t bytes, int root);         // host memory
void dist_sum_double(const Dist *d, double *values, int n);                     // all-reduce, added in rank order
void dist_max_int(const Dist *d, int *values, int n);                           // all-reduce
void dist_all_gather(const Dist *d, void *all, const void *mine, size_t bytes); // host memory, all has ranks*bytes
// All ranks meet. If any failed (bad != 0), all return -1 with the error line of the lowest failing rank, prefixed with
// its number and host unless all ranks say the same.
int dist_agree(const Dist *d, int bad, Error *err);
// All ranks compare a record with rank 0's: lines "name: value", newline-terminated. If one differs all return -1, and
// the line gives rank, host, name and both values.
int dist_same(const Dist *d, const char *record, Error *err);
// Gives every rank rank 0's text, allocated (NULL if rank 0 has none); the previous text is freed.
void dist_share_text(const Dist *d, char **text);
// For ranks that find something else between them hanging, before they end: sends this rank's number (not negative) to
// the others and collects theirs in numbers (ranks) for at most `seconds`; -1: not heard from.
void dist_roll_call(const Dist *d, int number, double seconds, int *numbers);
// Building blocks of the CPU backend's collectives (host memory).
// reduce_scatter: buffer (ranks*n); afterwards buffer + rank*n holds the sum over ranks, added in rank order.
void dist_reduce_scatter(const Dist *d, float *buffer, size_t n);
void dist_all_gather_in_place(const Dist *d, void *buffer, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
