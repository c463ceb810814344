// alloc.h: host memory whose size the program itself chooses: names, lists, buffers, tables. When it runs out, the
// process ends with exit code 1 and one line (rank, bytes, purpose), and the launcher ends the other ranks. So none of
// these functions returns NULL, and callers have nothing to check or undo. Free with free().
//
// Not for sizes taken from a file or an option: those use malloc and fail with an Error that names the file.
#ifndef LLMC_ALLOC_H
#define LLMC_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// n elements of `size` bytes, not cleared. what: the purpose, for the line ("page index"). n = 0 is not NULL either.
void *alloc(size_t n, size_t size, const char *what);
void *alloc_zeroed(size_t n, size_t size, const char *what);
// Resizes p (NULL: a new array) to n elements, keeping its contents.
void *alloc_resize(void *p, size_t n, size_t size, const char *what);
// Makes room for one more element: returns p while n < *room, else p with *room doubled (at least 16).
void *alloc_grow(void *p, size_t n, size_t *room, size_t size, const char *what);

// A copy of a string; NULL stays NULL.
char *string_copy(const char *text);
// printf into a new string, or onto the end of an allocated one (NULL: an empty one).
char *string_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void string_append(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The rank that the line names; set by dist_init. Before that it names none.
void alloc_set_rank(int rank);

#ifdef __cplusplus
}
#endif
#endif
