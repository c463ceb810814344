// lock.h: one writer for a place on disk (the folder of a run, the shards of a prefix).
//
// The lock is flock() on a small file that says who holds it: the kernel lets go when the process ends, however it
// ends, so a killed run leaves nothing that has to be cleared away. On NFS Linux turns flock() into a lock of the
// server, which holds between hosts where the server's lock service runs; where a file system knows no locks at all
// (ENOLCK, ENOTSUP) the lock is not taken and lock_take says so through `unsure`.
#ifndef LLMC_LOCK_H
#define LLMC_LOCK_H

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Lock {
    int fd;     // -1: not held
    char *path; // of the file, malloc'ed
} Lock;

#define LOCK_NONE ((Lock){.fd = -1})

// Takes the lock on the file `path`, which is made where it is missing (its folder must exist). When somebody else has
// it: an error that names `what` (the thing that is locked), and the holder's host, process and starting time.
// *unsure (NULL: not wanted): 1 when the file system has no locks and the caller goes on without.
int lock_take(Lock *lock, const char *path, const char *what, int *unsure, Error *err);

// Removes the file and lets go; harmless on LOCK_NONE.
void lock_release(Lock *lock);

#ifdef __cplusplus
}
#endif
#endif
