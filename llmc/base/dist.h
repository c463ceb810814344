// dist.h: the ranks of a run. A rank is one process: one GPU, or some cores. MPI starts them, carries small host
// values and ends them together. Built without MPI there is always one rank.
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
    double timeout;              // C3_COMM_TIMEOUT of rank 0: seconds without a sign of life from a rank, or without
                                 // progress of all, until a wait is given up (60)
} Dist;

// Starts MPI when the process was launched by mpirun or srun; otherwise one rank. Takes this rank's share of the cores
// it may use; those are the launcher's where only Open MPI's default bound the rank to fewer (launch.h).
// Processes that were launched as several and meet as one are an error. d must live on: a thread looks at it.
int dist_init(Dist *d, int *argc, char ***argv, Error *err);
// The MPI library: "Open MPI v4.1.4"; "none: one rank only" in a build without.
const char *dist_library(void);
// One rank without MPI, with every core this process may use.
Dist dist_alone(void);
void dist_finalize(Dist *d);
// Name of a rank's host.
const char *dist_host(const Dist *d, int rank);
// Ends all ranks with the exit code. Does not return.
void dist_abort(const Dist *d, int code) __attribute__((noreturn));

// Where ranks wait for each other, a rank that lives may take its time; one that gives no sign of life is named after
// d->timeout seconds and all are ended, as are ranks that wait for each other in different places. Long waits are said
// on stderr. A signal that asks to stop (stop.h) shortens the time.
void dist_barrier(const Dist *d);
void dist_broadcast(const Dist *d, void *data, size_t bytes, int root);         // host memory
void dist_sum_double(const Dist *d, double *values, int n);                     // all-reduce, added in rank order
void dist_max_int(const Dist *d, int *values, int n);                           // all-reduce
void dist_all_gather(const Dist *d, void *all, const void *mine, size_t bytes); // host memory, all has ranks*bytes
// All ranks meet: when any of them failed (bad != 0) all get -1 and, in err, the line of the lowest failing rank, with
// its number and host in front unless all have the same to say.
int dist_agree(const Dist *d, int bad, Error *err);
// All ranks compare a record with rank 0's: lines "name: value", newline-terminated. -1 on all where one differs; the
// line names rank, host, name and both values.
int dist_same(const Dist *d, const char *record, Error *err);
// Every rank gets rank 0's text, malloc'ed (NULL: it has none); what it had before is freed.
void dist_share_text(const Dist *d, char **text);
// For ranks that find that something else between them hangs, before they end: tells the others its number (not
// negative), and fills in theirs as far as they come here too within these seconds; -1: not heard of. numbers (ranks).
void dist_roll_call(const Dist *d, int number, double seconds, int *numbers);
// Building blocks of the CPU backend's collectives (host memory).
// reduce_scatter: buffer (ranks * n); afterwards buffer + rank*n holds the sum over ranks, added in rank order.
void dist_reduce_scatter(const Dist *d, float *buffer, size_t n);
void dist_all_gather_in_place(const Dist *d, void *buffer, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
