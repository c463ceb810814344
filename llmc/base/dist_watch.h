// dist_watch.h: detects ranks that are gone while others wait for them. Used by dist.c alone; built only with MPI.
//
// A thread in each rank sends a heartbeat to every other rank once a second. A rank that computes, saves or decodes for
// hours is thus known to be alive; one that is stopped or cut off is missed after Dist.timeout seconds, named, and the
// run is ended. The same thread ends its own process if the launcher, which could otherwise end it, is gone.
#ifndef LLMC_DIST_WATCH_H
#define LLMC_DIST_WATCH_H

#ifdef HAVE_MPI
#include <mpi.h>

#include "llmc/base/dist.h"

// parent: a descriptor of the launcher (launch.h), or -1. can_beat: MPI may be called by several threads in turn.
void watch_open(const Dist *d, int parent, int can_beat);
void watch_close(const Dist *d);

// Every MPI call is made between these two, by one thread at a time.
void watch_lock(void);
void watch_unlock(void);

// Ends all ranks if an MPI call failed; the line names rank, host and call.
void watch_check(const Dist *d, int code, const char *call);
// Waits for n requests until they are done or a rank is given up.
void watch_finish(const Dist *d, MPI_Request *requests, int n, const char *call);
// See dist_roll_call.
void watch_roll_call(const Dist *d, int number, double patience, int *numbers);
// Does not return.
void watch_abort(int code) __attribute__((noreturn));

#endif
#endif
