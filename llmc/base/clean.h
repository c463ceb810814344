// clean.h: makes untrusted text (names in files, paths, documents, model output) safe to print: it cannot send control
// sequences to the terminal, reorder the text around it, or pass for a line of this program.
//
// Escapes control characters (\x1b; C1: \u009b), bidirectional controls (\u202e), line and paragraph separators, and
// bytes that are not UTF-8 (\xff). All such text is printed through these functions.
#ifndef LLMC_CLEAN_H
#define LLMC_CLEAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CLEAN_BYTES = 8,         // most bytes of one character as printed, with the zero byte
    CLEAN_BROKEN = 0x110000, // added to a byte that is not UTF-8, in place of a code point
};

// Decodes the character at text (n > 0 bytes left): returns its length in bytes and sets its code point.
size_t clean_next(uint32_t *c, const char *text, size_t n);
// Whether a character must be escaped; line ends and tabs count.
int clean_must(uint32_t c);
// Writes one character as it is printed and returns its bytes. keep_lines: line ends and tabs are kept.
size_t clean_char(char out[CLEAN_BYTES], uint32_t *c, const char *text, size_t n, int keep_lines, size_t *used);

// Cleans text into one line, cut at a whole character if `room` (zero byte included) is short. Idempotent.
void clean_text(char *out, size_t room, const char *text);
// The same as an argument of printf: valid until the eighth call after it in this thread; at most 4,095 bytes.
const char *clean(const char *text);
// Prints n bytes, keeping line ends and tabs.
void clean_print(FILE *out, const char *text, size_t n);

#ifdef __cplusplus
}
#endif
#endif
