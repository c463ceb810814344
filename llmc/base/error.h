// error.h: how a function says that something outside the program is wrong.
//
// Everything that reads bytes from outside (options, JSON, safetensors, shards, tokenizers, checkpoints) returns 0 or
// -1 and, on -1, leaves one line in an Error the caller owns:
//
//     FILE: what is wrong at which place: expected X, found Y (hint: what to do)
//
// Nothing below main prints, exits or asserts on such input. Programming errors may assert.
#ifndef LLMC_ERROR_H
#define LLMC_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Error {
    char text[1024]; // one line, no newline at the end, always terminated
} Error;

// Writes the formatted line into err (which may be NULL) and returns -1, so that `return error_set(err, ...)` reads
// well. The line is cleaned (clean.h), so that a hostile file cannot write to the terminal.
int error_set(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "prefix: " in front of the line that is already there and returns -1.
int error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Leaves the enclosing function with -1 when a call failed.
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != 0) return -1;                                                                                    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
