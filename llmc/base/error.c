// error.c: see error.h.
#include "llmc/base/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "llmc/base/clean.h"

enum { RAW_BYTES = 4096 }; // of a line before it is cleaned and truncated

int error_set(Error *err, const char *format, ...) {
    if (!err) return -1;
    char raw[RAW_BYTES] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    clean_text(err->text, sizeof err->text, raw);
    return -1;
}

int error_prefix(Error *err, const char *format, ...) {
    if (!err) return -1;
    char raw[RAW_BYTES] = "";
    va_list args;
    va_start(args, format);
    int n = vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof raw) snprintf(raw + n, sizeof raw - (size_t)n, ": %s", err->text);
    clean_text(err->text, sizeof err->text, raw);
    return -1;
}
