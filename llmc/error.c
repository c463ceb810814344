// error.c: see error.h.
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void clean(char *text) {
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
}

int error_set(Error *err, const char *format, ...) {
    if (!err) return -1;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    clean(err->text);
    return -1;
}

int error_prefix(Error *err, const char *format, ...) {
    if (!err) return -1;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n + 3 < sizeof err->text) snprintf(err->text + n, sizeof err->text - (size_t)n, ": %.*s",
                                               (int)(sizeof err->text - (size_t)n - 3), old);
    clean(err->text);
    return -1;
}
