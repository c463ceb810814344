// alloc.h: host memory for what the program itself sizes: names, lists, buffers, tables. When there is none left, the
// process ends with exit code 1 and a line (rank, bytes, what for); the launcher ends the other ranks. So none of these
// return NULL, and their callers have nothing to check or to undo. Free with free().
//
// Not for sizes that a file or an option decides: those are malloc'ed, and refused with an Error that names the file.
#ifndef LLMC_ALLOC_H
#define LLMC_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// n elements of `size` bytes, not cleared; what: "page index", for the line. n = 0 gives a pointer too.
void *alloc(size_t n, size_t size, const char *what);
void *alloc_zeroed(size_t n, size_t size, const char *what);
// p (NULL: new) with room for n elements; its contents stay.
void *alloc_resize(void *p, size_t n, size_t size, const char *what);
// The room of a growing array: p as it is while n < *room, else with *room doubled (at least 16).
void *alloc_grow(void *p, size_t n, size_t *room, size_t size, const char *what);

// A copy of a string; NULL stays NULL.
char *string_copy(const char *text);
// printf into a new string, or at the end of an allocated one (NULL: an empty one).
char *string_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void string_append(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The rank in the line; dist_start sets it. Until then the line names none.
void alloc_set_rank(int rank);

#ifdef __cplusplus
}
#endif
#endif
