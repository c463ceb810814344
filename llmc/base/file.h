// file.h: reading and writing whole files. A file is written completely or not at all: temporary name, fsync, rename.
//
// The temporary file is ".NAME.c3-XXXXXX.tmp" beside its target: unpredictable, never an existing file or a link,
// hidden from `*`, and locked while it is being written, so that the next writer of NAME can remove what a killed one
// left.
#ifndef LLMC_FILE_H
#define LLMC_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h> // mode_t

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

// A read-only memory mapping of a whole file; an empty file has data == NULL and size == 0. If the file is truncated
// while it is mapped, the program ends with exit code 1 and a line that names the file.
typedef struct FileMap {
    const uint8_t *data;         // (size)
    size_t size;                 // bytes
    struct FileMapping *mapping; // for the line if the file is truncated
} FileMap;

int file_map(FileMap *map, const char *path, Error *err);
void file_unmap(FileMap *map);
// For a mapping that is read from front to back. file_map_in_order asks the system to read further ahead; file_map_done
// gives back pages that have been read, so that a file of gigabytes does not count as this process's memory (the pages
// stay in the file cache and can be read again).
void file_map_in_order(const FileMap *map);
void file_map_done(const void *data, size_t bytes);

// Reads a whole regular file into allocated memory, followed by a zero byte; the caller frees *data. Pipes and devices
// are refused without blocking, as in file_map.
int file_read(char **data, size_t *size, const char *path, Error *err);

// An error if the bytes are a Git LFS pointer: a few lines of text in place of a file that was never fetched.
int file_check_lfs(const void *data, size_t size, const char *path, Error *err);

// A file being written; file_commit makes it durable and gives it its name. Symlinks are followed: the file they lead
// to is replaced, keeping its mode and owner. Existing files that are not regular (devices, pipes), "-" (stdout) and
// this process's own descriptors (/dev/stdout, /dev/fd/N, a shell's >(command)) are written in place: they cannot be
// replaced, and what was written before an error stays.
typedef struct FileWriter {
    FILE *stream;
    char *path;      // as given, for messages
    char *target;    // where its symlinks lead
    char *temporary; // its name while being written; NULL: in place
    uint32_t crc;    // CRC-32 of all bytes written so far
    uint64_t bytes;  // bytes written so far
} FileWriter;

int file_create(FileWriter *w, const char *path, Error *err);
int file_write(FileWriter *w, const void *data, size_t size, Error *err);
int file_commit(FileWriter *w, Error *err);       // flush, fsync, rename, fsync of the folder
void file_discard(FileWriter *w);                 // drops the temporary file; harmless after file_commit
int file_end(FileWriter *w, int bad, Error *err); // commits, or if bad discards and returns -1
// Writes a whole file at once. mode: its permissions; 0: as file_create makes them.
int file_write_whole(const char *path, const void *data, size_t size, mode_t mode, Error *err);
// Makes `path` a link to `target`, in place of a link or file that is there.
int file_link(const char *path, const char *target, Error *err);
// Whether file_create would succeed, to ask before long work. Opens no pipe, whose reader would see its end.
int file_check_writable(const char *path, Error *err);
// 1 if file_create would write to stdout, where nothing else should then be printed.
int file_is_stdout(const char *path);
// An unnamed file in the folder of `path`, to be read back; it is gone when closed.
FILE *file_spool(const char *path, Error *err);

// At the start of a program: opens descriptors 0 to 2 where they are closed, so that no file is given one of these
// numbers and written to by printf. Using them still fails, as if they were closed.
void file_hold_standard(void);
// At its end: an error if something that was printed could not be written.
int file_check_stdout(Error *err);

int file_exists(const char *path);                           // 1 or 0
int file_make_dirs(const char *path, Error *err);            // mkdir -p
int file_sync_dir(const char *path, Error *err);             // makes renames and new names inside a folder durable
int file_remove_tree(const char *path, Error *err);          // rm -r; a missing path is no error
int file_copy(const char *from, const char *to, Error *err); // whole or not at all
int file_free_bytes(uint64_t *bytes, const char *path, Error *err); // free for this user where path is or will be

// CRC-32 (zlib's polynomial); start with crc = 0 and pass the last result to go on.
uint32_t file_crc32(uint32_t crc, const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
