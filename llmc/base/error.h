// error.h: how functions report what is wrong outside the program.
//
// Functions that read outside data (options, JSON, safetensors, shards, tokenizers, checkpoints) return 0 or -1 and,
// with -1, leave one line in an Error owned by the caller:
//
//     FILE: what is wrong at which place: expected X, found Y (hint: what to do)
//
// Below main nothing prints, exits or asserts because of such data. Programming errors may assert.
#ifndef LLMC_ERROR_H
#define LLMC_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Error {
    char text[1024]; // one line, no newline at the end, always terminated
} Error;

// Formats the line into err (which may be NULL) and returns -1: `return error_set(err, ...)`. The line is cleaned
// (clean.h), so that a hostile file cannot write to the terminal.
int error_set(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "prefix: " before the line and returns -1.
int error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Returns -1 from the enclosing function if a call failed.
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != 0) return -1;                                                                                    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
