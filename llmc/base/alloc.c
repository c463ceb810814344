// alloc.c: see alloc.h.
#include "llmc/base/alloc.h"

#include <errno.h> // program_invocation_short_name
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int our_rank = -1;

void alloc_set_rank(int rank) { our_rank = rank; }

// Runs no atexit handlers and flushes no buffers: they might allocate.
static _Noreturn void out_of_memory(size_t n, size_t size, const char *what) {
    char who[24] = "", line[256];
    if (our_rank >= 0) snprintf(who, sizeof who, "rank %d: ", our_rank);
    int length = snprintf(line, sizeof line, "%s: %sout of memory: %zu x %zu bytes for %s\n",
                          program_invocation_short_name, who, n, size, what);
    if (write(STDERR_FILENO, line, length < (int)sizeof line ? (size_t)length : sizeof line - 1) < 0) _exit(1);
    _exit(1);
}

void *alloc_resize(void *p, size_t n, size_t size, const char *what) {
    size_t bytes = n > 0 && size > 0 ? n * size : 1;
    void *q = size > 0 && n > SIZE_MAX / size ? NULL : realloc(p, bytes);
    if (!q) out_of_memory(n, size, what);
    return q;
}

void *alloc(size_t n, size_t size, const char *what) { return alloc_resize(NULL, n, size, what); }

void *alloc_zeroed(size_t n, size_t size, const char *what) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) out_of_memory(n, size, what);
    return p;
}

void *alloc_grow(void *p, size_t n, size_t *room, size_t size, const char *what) {
    if (n < *room) return p;
    *room = *room < 8 ? 16 : 2 * *room;
    return alloc_resize(p, *room, size, what);
}

char *string_copy(const char *text) {
    size_t n = text ? strlen(text) + 1 : 0;
    return text ? memcpy(alloc(n, 1, "text"), text, n) : NULL;
}

static char *print(const char *format, va_list args) {
    char *text;
    if (vasprintf(&text, format, args) < 0) out_of_memory(1, strlen(format), "text");
    return text;
}

char *string_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = print(format, args);
    va_end(args);
    return text;
}

void string_append(char **text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *more = print(format, args);
    va_end(args);
    size_t before = *text ? strlen(*text) : 0, n = strlen(more) + 1;
    *text = alloc_resize(*text, before + n, 1, "text");
    memcpy(*text + before, more, n);
    free(more);
}
