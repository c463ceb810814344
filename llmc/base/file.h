// file.h: whole-file reading and writing. A file is written whole or not at all: temporary name, fsync, rename.
//
// A temporary file lies beside its target as ".NAME.c3-XXXXXX.tmp": a name nobody can guess, never an existing file or
// a link, hidden from `*`, and locked while it is written, so that the next writer of NAME clears away what a killed
// one left.
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

// Opens a regular file for reading: a descriptor, or -1. A pipe or a device is refused and not waited for.
int file_open(const char *path, Error *err);

// A read-only memory mapping of a whole file. An empty file has data == NULL and size == 0. When somebody cuts the file
// short while it is mapped, the program ends with exit code 1 and a line that names the file.
typedef struct FileMap {
    const uint8_t *data;         // (size)
    size_t size;                 // bytes
    struct FileMapping *mapping; // what is known of it should its bytes go away
} FileMap;

int file_map(FileMap *map, const char *path, Error *err);
void file_unmap(FileMap *map);
// For a mapping that is read from front to back: says so to the system, which then reads further ahead; and gives
// bytes back that have been read, so that a file of gigabytes does not count as this process's memory (they stay in the
// file cache, and may be read again).
void file_map_in_order(const FileMap *map);
void file_map_done(const void *data, size_t bytes);

// Reads a whole regular file into malloc'ed memory, with a zero byte behind the end; "-" is stdin, whatever that is.
// The caller frees *data.
int file_read(char **data, size_t *size, const char *path, Error *err);

// Error when the bytes are a Git LFS pointer: a few lines of text in place of a large file that was never fetched.
int file_check_lfs(const void *data, size_t size, const char *path, Error *err);

// A file under construction, which file_commit makes durable and gives its name. Symlinks are followed: the file at
// their end is replaced, with its mode and owner kept. What is there and is no regular file (a device, a pipe), "-"
// (stdout) and this process's own descriptors (/dev/stdout, /dev/fd/N, a shell's >(command)) are written in place:
// there is nothing to replace, and what was written before an error stays written.
typedef struct FileWriter {
    FILE *stream;
    char *path;      // as it was given, for messages
    char *target;    // where its symlinks end
    char *temporary; // name while it is being written; NULL: in place
    uint32_t crc;    // CRC-32 of all bytes written so far
    uint64_t bytes;  // bytes written so far
} FileWriter;

int file_create(FileWriter *w, const char *path, Error *err);
int file_write(FileWriter *w, const void *data, size_t size, Error *err);
int file_commit(FileWriter *w, Error *err);       // flush, fsync, rename, fsync of the folder
void file_discard(FileWriter *w);                 // drops the temporary file; harmless after file_commit
int file_end(FileWriter *w, int bad, Error *err); // commits, or discards what went bad and returns -1
// All of it at once. mode: of the new file, 0: as file_create makes it.
int file_write_whole(const char *path, const void *data, size_t size, mode_t mode, Error *err);
// Whether file_create would go well, for work that takes long; opens no pipe, whose reader would see its end.
int file_check_writable(const char *path, Error *err);
// 1 when file_create would write to stdout: nothing else should be printed there.
int file_is_stdout(const char *path);
// A file without a name in the folder of `path`, for reading back what is written; gone when it is closed.
FILE *file_spool(const char *path, Error *err);

// For the start of a program: opens descriptors 0 to 2 where they are closed, so that no file gets one of these numbers
// and is written by printf. Using them still fails, as on closed ones.
void file_hold_standard(void);
// For its end: an error when something that was printed did not arrive.
int file_check_stdout(Error *err);

int file_exists(const char *path);                           // 1 or 0
int file_make_dirs(const char *path, Error *err);            // mkdir -p
int file_sync_dir(const char *path, Error *err);             // makes renames and new names inside a folder durable
int file_remove_tree(const char *path, Error *err);          // rm -r; a missing path is no error
int file_copy(const char *from, const char *to, Error *err); // whole or not at all
int file_free_bytes(uint64_t *bytes, const char *path, Error *err); // free space for this user where path lies

// CRC-32 (zlib's polynomial); start with crc = 0 and pass the last result to go on.
uint32_t file_crc32(uint32_t crc, const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
