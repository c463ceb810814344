// lock.h: one writer for a place on disk (a run's folder, the shards of a prefix).
//
// The lock is flock() on a small file that names the holder. The kernel releases it when the process ends, however it
// ends, so a killed run leaves nothing to clean up. On NFS, Linux maps flock() to a lock of the server, which holds
// between hosts where the server's lock service runs. If the file system has no locks at all (ENOLCK, ENOTSUP), the
// lock is not taken and lock_take says so through `unsure`.
#ifndef LLMC_LOCK_H
#define LLMC_LOCK_H

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Lock {
    int fd;     // -1: not held
    char *path; // of the file, allocated
} Lock;

#define LOCK_NONE ((Lock){.fd = -1})

// Takes the lock on the file `path`, which is created if missing (its folder must exist). If another process has it: an
// error that names `what` (the locked thing) and the holder's host, process and starting time. *unsure (may be NULL): 1
// if the file system has no locks and the caller goes on without.
int lock_take(Lock *lock, const char *path, const char *what, int *unsure, Error *err);

// Removes the file and releases the lock; does nothing on LOCK_NONE.
void lock_release(Lock *lock);

#ifdef __cplusplus
}
#endif
#endif
