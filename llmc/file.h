// file.h: whole-file reading and writing. A file is written whole or not at all: temporary name, fsync, rename.
#ifndef LLMC_FILE_H
#define LLMC_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

// A read-only memory mapping of a whole file. An empty file has data == NULL and size == 0.
typedef struct FileMap {
    const uint8_t *data; // (size)
    size_t size;         // bytes
} FileMap;

int file_map(FileMap *map, const char *path, Error *err);
void file_unmap(FileMap *map);
// For a mapping that is read from front to back: says so to the system, which then reads further ahead; and gives
// bytes back that have been read, so that a file of gigabytes does not count as this process's memory (they stay in the
// file cache, and may be read again).
void file_map_in_order(const FileMap *map);
void file_map_done(const void *data, size_t bytes);

// Reads a whole file into malloc'ed memory, with a zero byte behind the end; "-" is stdin. The caller frees *data.
int file_read(char **data, size_t *size, const char *path, Error *err);

// Error when the bytes are a Git LFS pointer: a few lines of text in place of a large file that was never fetched.
int file_check_lfs(const void *data, size_t size, const char *path, Error *err);

// A file under construction. Bytes go to "PATH.tmp"; file_commit makes them durable and gives them their name.
typedef struct FileWriter {
    FILE *stream;
    char *path;      // final name
    char *temporary; // name while it is being written
    uint32_t crc;    // CRC-32 of all bytes written so far
    uint64_t bytes;  // bytes written so far
} FileWriter;

int file_create(FileWriter *w, const char *path, Error *err);
int file_write(FileWriter *w, const void *data, size_t size, Error *err);
// Overwrites bytes already written (a header whose contents are known last); does not touch crc or bytes.
int file_patch(FileWriter *w, uint64_t offset, const void *data, size_t size, Error *err);
int file_commit(FileWriter *w, Error *err); // flush, fsync, rename, fsync of the folder
void file_discard(FileWriter *w);           // drops the temporary file; harmless after file_commit

int file_exists(const char *path);            // 1 or 0
int file_make_dirs(const char *path, Error *err); // mkdir -p
int file_sync_dir(const char *path, Error *err);  // makes renames and new names inside a folder durable
int file_remove_tree(const char *path, Error *err); // rm -r; a missing path is no error
int file_copy(const char *from, const char *to, Error *err); // whole or not at all
int file_free_bytes(uint64_t *bytes, const char *path, Error *err); // free space for this user where path lies

// CRC-32 (zlib's polynomial); start with crc = 0 and pass the last result to go on.
uint32_t file_crc32(uint32_t crc, const void *data, size_t size);

// printf into a new string; the caller frees it. NULL when memory ran out.
char *string_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The same at the end of a malloc'ed string (NULL: an empty one); -1 and *text as it was when memory ran out.
int string_append(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
