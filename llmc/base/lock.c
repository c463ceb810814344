// lock.c: see lock.h.
#include "llmc/base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"

static int is_unsupported(int code) { return code == ENOLCK || code == EOPNOTSUPP || code == ENOSYS || code == EINVAL; }

// "host node7, process 4711, since 2026-01-31T12:00:00Z"
static void write_holder(int fd) {
    char host[256] = "?", when[32] = "?", text[384];
    time_t now = time(NULL);
    struct tm utc;
    (void)gethostname(host, sizeof host - 1);
    if (gmtime_r(&now, &utc)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int n = snprintf(text, sizeof text, "host %s, process %ld, since %s\n", host, (long)getpid(), when);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) return; // only the holder's name is missing then
}

static int held_by_other(const char *path, const char *what, int fd, Error *err) {
    char text[384];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return error_set(err, "%s: another process is writing there: %s (hint: wait for it, stop it, or choose another -o)",
                     what, text[0] ? text : path);
}

// The holder removes the file before releasing it, so a waiter may have locked a file that no longer has a name.
static int still_named(int fd, const char *path) {
    struct stat mine, named;
    return fstat(fd, &mine) == 0 && lstat(path, &named) == 0 && mine.st_dev == named.st_dev &&
           mine.st_ino == named.st_ino;
}

int lock_take(Lock *lock, const char *path, const char *what, int *unsure, Error *err) {
    *lock = LOCK_NONE;
    if (unsure) *unsure = 0;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
        if (fd < 0) return error_set(err, "%s: cannot open the lock: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int code = errno, bad = 0;
            if (code == EWOULDBLOCK) bad = held_by_other(path, what, fd, err);
            else if (code == EINTR) bad = 1; // try again
            else if (!is_unsupported(code)) bad = error_set(err, "%s: cannot lock: %s", path, strerror(code));
            close(fd);
            if (bad == 1) continue;
            if (!bad && unsure) *unsure = 1;
            return bad;
        }
        if (!still_named(fd, path)) {
            close(fd);
            continue;
        }
        write_holder(fd);
        lock->fd = fd;
        lock->path = string_copy(path);
        return 0;
    }
}

void lock_release(Lock *lock) {
    if (lock->fd < 0) return;
    if (lock->path) unlink(lock->path);
    close(lock->fd);
    free(lock->path);
    *lock = LOCK_NONE;
}
