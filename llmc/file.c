// file.c: see file.h.
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h> // crc32_z

char *string_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int n = vasprintf(&text, format, args);
    va_end(args);
    return n < 0 ? NULL : text;
}

int string_append(char **text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *more = NULL;
    int n = vasprintf(&more, format, args);
    va_end(args);
    if (n < 0) return -1;
    char *longer = *text ? string_format("%s%s", *text, more) : more;
    if (*text) free(more);
    if (!longer) return -1;
    free(*text);
    *text = longer;
    return 0;
}

uint32_t file_crc32(uint32_t crc, const void *data, size_t size) { return (uint32_t)crc32_z(crc, data, size); }

// ---- reading -------------------------------------------------------------------------------------------------------

int file_map(FileMap *map, const char *path, Error *err) {
    *map = (FileMap){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            int code = errno;
            close(fd);
            return error_set(err, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(code));
        }
        map->data = data;
        map->size = (size_t)st.st_size;
    }
    close(fd);
    return 0;
}

void file_unmap(FileMap *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (FileMap){0};
}

void file_map_in_order(const FileMap *map) {
    if (map->data) (void)madvise((void *)(uintptr_t)map->data, map->size, MADV_SEQUENTIAL);
}

// Whole pages: the one the bytes begin in, not the one they end in, where the next ones begin.
void file_map_done(const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data / page * page, end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

int file_read(char **data, size_t *size, const char *path, Error *err) {
    *data = NULL;
    *size = 0;
    int is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rbe");
    if (!f) return error_set(err, "%s: cannot open: %s", path, strerror(errno));
    size_t n = 0, room = 1 << 16;
    char *buffer = malloc(room + 1);
    while (buffer) {
        size_t got = fread(buffer + n, 1, room - n, f);
        n += got;
        if (n < room) break; // end of file or error
        char *bigger = room <= SIZE_MAX / 4 ? realloc(buffer, room * 2 + 1) : NULL;
        if (!bigger) {
            free(buffer);
            buffer = NULL;
            break;
        }
        buffer = bigger;
        room *= 2;
    }
    int bad = buffer && ferror(f), code = errno;
    if (!is_stdin) fclose(f);
    if (!buffer) return error_set(err, "%s: out of memory after %zu bytes", path, n);
    if (bad) {
        free(buffer);
        return error_set(err, "%s: cannot read: %s", path, strerror(code));
    }
    buffer[n] = 0;
    *data = buffer;
    *size = n;
    return 0;
}

int file_check_lfs(const void *data, size_t size, const char *path, Error *err) {
    static const char first_words[] = "version https://git-lfs.github.com/spec/";
    if (size < sizeof first_words || memcmp(data, first_words, sizeof first_words - 1) != 0) return 0;
    return error_set(err,
                     "%s: a Git LFS pointer of %zu bytes, not the file it stands for (hint: `git lfs pull` in its "
                     "repository, or download the file)",
                     path, size);
}

// ---- writing -------------------------------------------------------------------------------------------------------

int file_create(FileWriter *w, const char *path, Error *err) {
    *w = (FileWriter){0};
    w->path = strdup(path);
    w->temporary = string_format("%s.tmp", path);
    if (!w->path || !w->temporary) {
        file_discard(w);
        return error_set(err, "%s: out of memory", path);
    }
    w->stream = fopen(w->temporary, "w+be");
    if (!w->stream) {
        int code = errno;
        free(w->temporary);
        w->temporary = NULL; // not ours to unlink
        file_discard(w);
        return error_set(err, "%s: cannot create: %s", path, strerror(code));
    }
    setvbuf(w->stream, NULL, _IOFBF, 1 << 20);
    return 0;
}

int file_write(FileWriter *w, const void *data, size_t size, Error *err) {
    if (fwrite(data, 1, size, w->stream) != size)
        return error_set(err, "%s: cannot write %zu bytes at %llu: %s", w->path, size, (unsigned long long)w->bytes,
                         strerror(errno));
    w->crc = file_crc32(w->crc, data, size);
    w->bytes += size;
    return 0;
}

int file_patch(FileWriter *w, uint64_t offset, const void *data, size_t size, Error *err) {
    if (fseeko(w->stream, (off_t)offset, SEEK_SET) != 0 || fwrite(data, 1, size, w->stream) != size ||
        fseeko(w->stream, (off_t)w->bytes, SEEK_SET) != 0)
        return error_set(err, "%s: cannot rewrite %zu bytes at %llu: %s", w->path, size, (unsigned long long)offset,
                         strerror(errno));
    return 0;
}

static int sync_parent(const char *path, Error *err) {
    const char *slash = strrchr(path, '/');
    if (!slash) return file_sync_dir(".", err);
    char *parent = string_format("%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (!parent) return error_set(err, "%s: out of memory", path);
    int bad = file_sync_dir(parent, err);
    free(parent);
    return bad;
}

int file_commit(FileWriter *w, Error *err) {
    int bad = fflush(w->stream) != 0 || fsync(fileno(w->stream)) != 0;
    int code = errno;
    if (fclose(w->stream) != 0 && !bad) {
        bad = 1;
        code = errno;
    }
    w->stream = NULL;
    if (!bad && rename(w->temporary, w->path) != 0) {
        bad = 1;
        code = errno;
    }
    if (bad) {
        error_set(err, "%s: cannot finish writing %llu bytes: %s", w->path, (unsigned long long)w->bytes,
                  strerror(code));
        file_discard(w);
        return -1;
    }
    free(w->temporary);
    w->temporary = NULL;
    bad = sync_parent(w->path, err);
    file_discard(w);
    return bad;
}

void file_discard(FileWriter *w) {
    if (w->stream) fclose(w->stream);
    if (w->temporary) unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    *w = (FileWriter){0};
}

// ---- folders -------------------------------------------------------------------------------------------------------

int file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

int file_make_dirs(const char *path, Error *err) {
    char *part = strdup(path);
    if (!part) return error_set(err, "%s: out of memory", path);
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
            bad = child ? file_remove_tree(child, err) : error_set(err, "%s: out of memory", path);
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
    FileWriter w;
    TRY(file_map(&map, from, err));
    int bad = file_create(&w, to, err);
    if (!bad) bad = map.size ? file_write(&w, map.data, map.size, err) : 0;
    if (!bad) bad = file_commit(&w, err);
    else file_discard(&w);
    file_unmap(&map);
    return bad;
}

int file_free_bytes(uint64_t *bytes, const char *path, Error *err) {
    struct statvfs vfs;
    if (statvfs(path, &vfs) != 0) return error_set(err, "%s: cannot read free space: %s", path, strerror(errno));
    *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}
