// file.c: reading files, folders, strings: see file.h.
#include "llmc/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h> // PATH_MAX
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h> // crc32_z

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"

uint32_t file_crc32(uint32_t crc, const void *data, size_t size) { return (uint32_t)crc32_z(crc, data, size); }

// ---- mappings whose file was cut -----------------------------------------------------------------------------------

// A mapping, in a list that only grows; free entries are reused. The SIGBUS handler reads the entry of the mapping that
// the faulting thread is reading from. Nobody changes that entry, so the handler needs no lock.
typedef struct FileMapping {
    _Atomic uintptr_t begin, end; // both 0: free
    char *path, *notes;           // "PROGRAM: PATH: " as it is printed
    struct FileMapping *next;
} FileMapping;

static _Atomic(FileMapping *) mappings;
static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER; // for changes of the list
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;

// Ends the program with one line from the first thread that gets here. Async-signal-safe.
static void end_program(const FileMapping *m, size_t size) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&told)) {
        for (;;) pause();
    }
    struct stat st;
    int cut = stat(m->path, &st) == 0 && (uintmax_t)st.st_size < size;
    const char *what = cut ? "somebody cut this file short while it was being read\n"
                           : "bytes of this file could not be read any more (replaced by a shorter one, a bad disk?)\n";
    char line[PATH_MAX + 512];
    size_t head = strlen(m->notes), tail = strlen(what);
    memcpy(line, m->notes, head);
    memcpy(line + head, what, tail);
    (void)!write(STDERR_FILENO, line, head + tail); // there is nobody else to tell
    _exit(1);
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    for (FileMapping *m = atomic_load(&mappings); m; m = m->next) {
        const uintptr_t begin = atomic_load(&m->begin), end = atomic_load(&m->end);
        if (at >= begin && at < end) end_program(m, end - begin);
    }
    signal(number, SIG_DFL); // not one of our mappings: the fault repeats with the default action
}

static void install_handler(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    action.sa_sigaction = on_bus_error;
    sigaction(SIGBUS, &action, NULL);
}

static FileMapping *free_mapping(void) {
    for (FileMapping *m = atomic_load(&mappings); m; m = m->next) {
        if (!m->path) return m;
    }
    FileMapping *m = alloc_zeroed(1, sizeof *m, "mapping");
    m->next = atomic_load(&mappings);
    atomic_store(&mappings, m);
    return m;
}

static FileMapping *remember_mapping(const void *data, size_t size, const char *path) {
    pthread_once(&handler_once, install_handler);
    pthread_mutex_lock(&mappings_lock);
    FileMapping *m = free_mapping();
    m->path = string_copy(path);
    m->notes = string_format("%s: %s: ", program_invocation_short_name, clean(path));
    atomic_store(&m->end, (uintptr_t)data + size);
    atomic_store(&m->begin, (uintptr_t)data);
    pthread_mutex_unlock(&mappings_lock);
    return m;
}

static void forget_mapping(FileMapping *m) {
    if (!m) return;
    pthread_mutex_lock(&mappings_lock);
    atomic_store(&m->end, 0);
    atomic_store(&m->begin, 0);
    free(m->path);
    free(m->notes);
    m->path = m->notes = NULL;
    pthread_mutex_unlock(&mappings_lock);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static int open_regular(struct stat *st, const char *path, Error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); // O_NONBLOCK: pipes are refused below
    if (fd < 0) return error_set(err, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) return fd;
    close(fd);
    return error_set(err, "%s: not a regular file", path);
}

int file_map(FileMap *map, const char *path, Error *err) {
    struct stat st;
    *map = (FileMap){0};
    int fd = open_regular(&st, path, err);
    if (fd < 0) return -1;
    const size_t size = (size_t)st.st_size;
    void *data = size ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : NULL;
    int code = errno;
    close(fd);
    if (data == MAP_FAILED) return error_set(err, "%s: cannot map %zu bytes: %s", path, size, strerror(code));
    *map = (FileMap){.data = data, .size = size, .mapping = data ? remember_mapping(data, size, path) : NULL};
    return 0;
}

void file_unmap(FileMap *map) {
    forget_mapping(map->mapping);
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (FileMap){0};
}

void file_map_in_order(const FileMap *map) {
    if (map->data) (void)madvise((void *)(uintptr_t)map->data, map->size, MADV_SEQUENTIAL);
}

// Whole pages: the first one included, the last one not, because the next bytes begin there.
void file_map_done(const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data / page * page, end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

int file_read(char **data, size_t *size, const char *path, Error *err) {
    FileMap map;
    *data = NULL;
    *size = 0;
    TRY(file_map(&map, path, err));
    *data = malloc(map.size + 1);
    if (*data) {
        if (map.size) memcpy(*data, map.data, map.size);
        (*data)[map.size] = 0;
        *size = map.size;
    } else {
        error_set(err, "%s: out of memory for %zu bytes", path, map.size);
    }
    file_unmap(&map);
    return *data ? 0 : -1;
}

int file_check_lfs(const void *data, size_t size, const char *path, Error *err) {
    static const char first_words[] = "version https://git-lfs.github.com/spec/";
    if (size < sizeof first_words || memcmp(data, first_words, sizeof first_words - 1) != 0) return 0;
    return error_set(err,
                     "%s: a Git LFS pointer of %zu bytes, not the file it stands for (hint: `git lfs pull` in its "
                     "repository, or download the file)",
                     path, size);
}

// ---- folders -------------------------------------------------------------------------------------------------------

int file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

int file_make_dirs(const char *path, Error *err) {
    char *part = string_copy(path);
    int bad = 0;
    for (char *c = part + 1; !bad; c++) {
        if (*c && *c != '/') continue;
        char keep = *c;
        *c = 0;
        struct stat st;
        if (mkdir(part, 0777) != 0 && !(errno == EEXIST && stat(part, &st) == 0 && S_ISDIR(st.st_mode)))
            bad = error_set(err, "%s: cannot make the folder: %s", part, strerror(errno == EEXIST ? ENOTDIR : errno));
        *c = keep;
        if (!keep) break;
    }
    free(part);
    return bad;
}

int file_sync_dir(const char *path, Error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return error_set(err, "%s: cannot open the folder: %s", path, strerror(errno));
    int bad = fsync(fd) != 0 && errno != EINVAL && errno != EROFS; // some file systems cannot sync a folder
    int code = errno;
    close(fd);
    return bad ? error_set(err, "%s: cannot sync the folder: %s", path, strerror(code)) : 0;
}

int file_remove_tree(const char *path, Error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT ? 0 : error_set(err, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        DIR *dir = opendir(path);
        if (!dir) return error_set(err, "%s: cannot list: %s", path, strerror(errno));
        int bad = 0;
        for (struct dirent *e; !bad && (e = readdir(dir));) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
            char *child = string_format("%s/%s", path, e->d_name);
            bad = file_remove_tree(child, err);
            free(child);
        }
        closedir(dir);
        if (bad) return -1;
        if (rmdir(path) != 0) return error_set(err, "%s: cannot remove: %s", path, strerror(errno));
        return 0;
    }
    return unlink(path) == 0 ? 0 : error_set(err, "%s: cannot remove: %s", path, strerror(errno));
}

int file_copy(const char *from, const char *to, Error *err) {
    FileMap map;
    TRY(file_map(&map, from, err));
    int bad = file_write_whole(to, map.data, map.size, 0, err);
    file_unmap(&map);
    return bad;
}

int file_free_bytes(uint64_t *bytes, const char *path, Error *err) {
    struct statvfs vfs;
    char *at = string_copy(path);
    int bad;
    while ((bad = statvfs(at[0] ? at : ".", &vfs)) != 0 && errno == ENOENT && at[0]) { // up to a folder that exists
        char *slash = strrchr(at, '/');
        if (slash) slash[slash == at && slash[1] ? 1 : 0] = 0;
        else at[0] = 0;
    }
    if (bad) error_set(err, "%s: cannot read free space: %s", path, strerror(errno));
    else *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    free(at);
    return bad ? -1 : 0;
}
