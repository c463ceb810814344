// dist_watch.h: waiting for other ranks with open eyes. For dist.c alone; built only with MPI.
//
// A thread of each rank sends a beat to every other rank once a second, so that a rank that computes, saves or decodes
// for hours is known to live, while one that is stopped or cut off is missed after Dist.timeout seconds, named, and the
// run ended. The same thread ends this process when its launcher is gone, which could not end it any more.
#ifndef LLMC_DIST_WATCH_H
#define LLMC_DIST_WATCH_H

#ifdef HAVE_MPI
#include <mpi.h>

#include "llmc/base/dist.h"

// parent: descriptor of the launcher (launch.h) or -1. can_beat: MPI lets several threads call it, one at a time.
void watch_open(const Dist *d, int parent, int can_beat);
void watch_close(const Dist *d);

// All calls of MPI stand between these two: one thread at a time.
void watch_lock(void);
void watch_unlock(void);

// Ends all ranks when a call of MPI failed; the line names rank, host and call.
void watch_check(const Dist *d, int code, const char *call);
// Waits until n requests are done, for as long as there is hope.
void watch_finish(const Dist *d, MPI_Request *requests, int n, const char *call);
// See dist_roll_call.
void watch_roll_call(const Dist *d, int number, double patience, int *numbers);
// Does not return.
void watch_abort(int code) __attribute__((noreturn));

#endif
#endif
