// file_write.c: writing files, the standard streams: see file.h.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h> // PATH_MAX
#include <stdlib.h>
#include <string.h>
#include <sys/file.h> // flock
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"

// ---- where to ------------------------------------------------------------------------------------------------------

// The folder a name is in, allocated.
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? string_format("%.*s", slash == path ? 1 : (int)(slash - path), path) : string_copy(".");
}

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// N if the name means /proc/self/fd/N, however it is spelled; -1: not a descriptor of this process.
static int own_descriptor(const char *path) {
    const char *base = base_of(path);
    size_t digits = strspn(base, "0123456789");
    if (digits == 0 || digits > 9 || base[digits]) return -1;
    char here[PATH_MAX], own[PATH_MAX], *folder = folder_of(path);
    int same = realpath(folder, here) && realpath("/proc/self/fd", own) && strcmp(here, own) == 0;
    free(folder);
    return same ? atoi(base) : -1;
}

// Where the bytes of a file go.
typedef struct Target {
    char *name;  // allocated
    int fd;      // a descriptor of this process; -1: use the name
    int is_file; // a regular file, or one that does not exist yet
    int exists;
    struct stat st; // if it exists
} Target;

// Follows the symlinks of the last part of a name; a dangling link gives the name to create.
static int follow_links(Target *t, const char *path, Error *err) {
    enum { MOST = 40 };
    t->name = string_copy(path);
    for (int hops = 0;; hops++) {
        char to[PATH_MAX];
        if ((t->fd = own_descriptor(t->name)) >= 0) return 0;
        ssize_t n = readlink(t->name, to, sizeof to - 1);
        if (n < 0) return 0;
        if (hops == MOST) return error_set(err, "%s: cannot create: %s", path, strerror(ELOOP));
        to[n] = 0;
        char *folder = folder_of(t->name);
        free(t->name);
        t->name = to[0] == '/' ? string_copy(to) : string_format("%s/%s", folder, to);
        free(folder);
    }
}

static int find_target(Target *t, const char *path, Error *err) {
    *t = (Target){.fd = -1};
    if (strcmp(path, "-") == 0) t->fd = STDOUT_FILENO;
    else TRY(follow_links(t, path, err));
    t->exists = (t->fd >= 0 ? fstat(t->fd, &t->st) : stat(t->name, &t->st)) == 0;
    if (t->exists && S_ISDIR(t->st.st_mode)) return error_set(err, "%s: cannot create: it is a folder", path);
    t->is_file = t->fd < 0 && (!t->exists || S_ISREG(t->st.st_mode));
    return 0;
}

// ---- temporary files -----------------------------------------------------------------------------------------------

// ".NAME.c3-XXXXXX.tmp", with a long NAME shortened.
static const char mark[] = ".c3-", ending[] = ".tmp", letters[] = "abcdefghijklmnopqrstuvwxyz234567";
enum { RANDOM = 6, LONGEST_BASE = NAME_MAX - 1 - (sizeof mark - 1) - RANDOM - (sizeof ending - 1) };

static int base_length(const char *base) {
    size_t n = strlen(base);
    return n < LONGEST_BASE ? (int)n : LONGEST_BASE;
}

static char *temporary_name(const char *target) {
    char *folder = folder_of(target), *name = NULL, tag[RANDOM + 1] = {0};
    const char *base = base_of(target);
    unsigned char bytes[RANDOM];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) memset(bytes, 0, sizeof bytes); // O_EXCL still holds
    for (int i = 0; i < RANDOM; i++) tag[i] = letters[bytes[i] % (sizeof letters - 1)];
    if (folder) name = string_format("%s/.%.*s%s%s%s", folder, base_length(base), base, mark, tag, ending);
    free(folder);
    return name;
}

static int is_temporary_of(const char *name, const char *base) {
    const size_t n = (size_t)base_length(base);
    if (name[0] != '.' || strncmp(name + 1, base, n) != 0 || strncmp(name + 1 + n, mark, sizeof mark - 1) != 0)
        return 0;
    name += 1 + n + sizeof mark - 1;
    return strspn(name, letters) == RANDOM && strcmp(name + RANDOM, ending) == 0;
}

// Removes what killed writers of this target left behind: our files on which nobody holds a lock.
static void remove_leftovers(const char *target) {
    char *folder = folder_of(target);
    DIR *dir = folder ? opendir(folder) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        if (!is_temporary_of(e->d_name, base_of(target))) continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    if (dir) closedir(dir);
    free(folder);
}

// Creates and locks a file beside the target, with `mode` less the umask; unlocked if the file system has no locks.
static int open_temporary(char **name, const char *target, const char *path, mode_t mode, Error *err) {
    for (;;) {
        *name = temporary_name(target);
        int fd = open(*name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode), code = errno;
        struct stat st;
        if (fd >= 0) {
            int taken = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; // mistaken for a leftover
            if (!taken && fstat(fd, &st) == 0 && st.st_nlink > 0) return fd;
            close(fd);
            unlink(*name);
        }
        free(*name);
        *name = NULL;
        if (fd < 0 && code != EEXIST) return error_set(err, "%s: cannot create: %s", path, strerror(code));
    }
}

int file_link(const char *path, const char *target, Error *err) {
    char *name = temporary_name(path);
    int made = name && symlink(target, name) == 0, bad = !made || rename(name, path) != 0;
    if (bad) error_set(err, "%s: cannot make the link to %s: %s", path, target, strerror(errno));
    if (bad && made) unlink(name);
    free(name);
    return bad ? -1 : 0;
}

// ---- writing -------------------------------------------------------------------------------------------------------

// The new file takes over the mode of the old one, and its owner where that is permitted.
static int open_beside(FileWriter *w, const Target *t, Error *err) {
    remove_leftovers(t->name);
    int fd = open_temporary(&w->temporary, t->name, w->path, t->exists ? t->st.st_mode & 0666 : 0666, err);
    if (fd < 0 || !t->exists) return fd;
    if (t->st.st_uid != geteuid() || t->st.st_gid != getegid()) (void)!fchown(fd, t->st.st_uid, t->st.st_gid);
    (void)fchmod(fd, t->st.st_mode & 0777);
    return fd;
}

// A descriptor is used as it is, at its current position, after what was printed to it.
static int open_in_place(const Target *t, const char *path, Error *err) {
    if (t->fd == STDOUT_FILENO) fflush(stdout);
    int fd = t->fd >= 0 ? fcntl(t->fd, F_DUPFD_CLOEXEC, 3) : open(t->name, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return fd >= 0 ? fd : error_set(err, "%s: cannot open: %s", path, strerror(errno));
}

int file_create(FileWriter *w, const char *path, Error *err) {
    *w = (FileWriter){.path = string_copy(strcmp(path, "-") ? path : "standard output")};
    Target t = {.fd = -1};
    int fd = find_target(&t, path, err);
    if (fd == 0) fd = t.is_file ? open_beside(w, &t, err) : open_in_place(&t, w->path, err);
    w->target = t.name;
    if (fd >= 0 && !(w->stream = fdopen(fd, "wb"))) {
        close(fd);
        fd = error_set(err, "%s: out of memory", path);
    }
    if (fd < 0) {
        file_discard(w);
        return -1;
    }
    setvbuf(w->stream, NULL, _IOFBF, 1 << 20);
    return 0;
}

int file_check_writable(const char *path, Error *err) {
    Target t;
    FileWriter w;
    int bad = find_target(&t, path, err);
    if (!bad && t.is_file) {
        bad = file_create(&w, path, err);
        if (!bad) file_discard(&w);
    } else if (!bad) {
        bad = t.fd < 0 ? access(t.name, W_OK) != 0 : (fcntl(t.fd, F_GETFL) & O_ACCMODE) == O_RDONLY || !t.exists;
        if (bad) error_set(err, "%s: cannot be written", path);
    }
    free(t.name);
    return bad ? -1 : 0;
}

int file_is_stdout(const char *path) {
    Target t;
    int is = find_target(&t, path, NULL) == 0 && t.fd == STDOUT_FILENO;
    free(t.name);
    return is;
}

FILE *file_spool(const char *path, Error *err) {
    char *name;
    int fd = open_temporary(&name, path, path, 0600, err);
    if (fd < 0) return NULL;
    unlink(name);
    free(name);
    FILE *f = fdopen(fd, "w+b");
    if (f) {
        setvbuf(f, NULL, _IOFBF, 1 << 20);
    } else {
        close(fd);
        error_set(err, "%s: out of memory", path);
    }
    return f;
}

// The checksum comes first: if the bytes are in a mapping of a truncated file, the error names that file and not this.
int file_write(FileWriter *w, const void *data, size_t size, Error *err) {
    uint32_t crc = file_crc32(w->crc, data, size);
    if (fwrite(data, 1, size, w->stream) != size)
        return error_set(err, "%s: cannot write %zu bytes at %llu: %s", w->path, size, (unsigned long long)w->bytes,
                         strerror(errno));
    w->crc = crc;
    w->bytes += size;
    return 0;
}

static int sync_parent(const char *path, Error *err) {
    char *parent = folder_of(path);
    int bad = file_sync_dir(parent, err);
    free(parent);
    return bad;
}

// Pipes and devices have nothing to sync.
static int sync_stream(const FileWriter *w) {
    if (fflush(w->stream) != 0 || ferror(w->stream)) return -1;
    return fsync(fileno(w->stream)) == 0 || (!w->temporary && (errno == EINVAL || errno == EROFS || errno == ENOTSUP))
               ? 0
               : -1;
}

int file_commit(FileWriter *w, Error *err) {
    int in_place = !w->temporary;
    int bad = sync_stream(w) != 0 || (!in_place && rename(w->temporary, w->target) != 0), code = errno;
    if (!bad) {
        free(w->temporary);
        w->temporary = NULL;
    }
    if (fclose(w->stream) != 0 && !bad) { // releases the lock, now that the file has its name
        bad = 1;
        code = errno;
    }
    w->stream = NULL;
    if (bad)
        error_set(err, "%s: cannot finish writing %llu bytes: %s", w->path, (unsigned long long)w->bytes,
                  strerror(code));
    else if (!in_place) bad = sync_parent(w->target, err);
    file_discard(w);
    return bad ? -1 : 0;
}

int file_end(FileWriter *w, int bad, Error *err) {
    if (!bad) return file_commit(w, err);
    file_discard(w);
    return -1;
}

int file_write_whole(const char *path, const void *data, size_t size, mode_t mode, Error *err) {
    FileWriter w;
    TRY(file_create(&w, path, err));
    int bad = mode && fchmod(fileno(w.stream), mode) != 0
                  ? error_set(err, "%s: cannot set its mode: %s", w.path, strerror(errno))
                  : file_write(&w, data, size, err);
    return file_end(&w, bad, err);
}

void file_discard(FileWriter *w) {
    if (w->temporary) unlink(w->temporary);
    if (w->stream) fclose(w->stream);
    free(w->temporary);
    free(w->target);
    free(w->path);
    *w = (FileWriter){0};
}

// ---- the standard streams ------------------------------------------------------------------------------------------

void file_hold_standard(void) {
    static const int unusable[] = {O_WRONLY, O_RDONLY, O_RDONLY}; // opened the wrong way round
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
        (void)!open("/dev/null", unusable[fd]); // gets the lowest free number, which is this one
    }
}

int file_check_stdout(Error *err) {
    int bad = fflush(stdout) != 0, code = errno;
    if (bad) return error_set(err, "standard output: cannot write: %s", strerror(code));
    return ferror(stdout) ? error_set(err, "standard output: cannot write all of it") : 0;
}
