// clean.h: text from outside (names in files, paths, documents, what a model wrote) made fit to be printed, so that it
// can neither give orders to a terminal, nor turn its neighbours around, nor pass for a line of ours.
//
// Escaped are control characters (\x1b; C1: \u009b), those that change the direction of writing (\u202e), line and
// paragraph separators, and bytes that are no UTF-8 (\xff). Everything that prints such text goes through here.
#ifndef LLMC_CLEAN_H
#define LLMC_CLEAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CLEAN_BYTES = 8,         // most bytes of one character, escaped or not, with the zero byte
    CLEAN_BROKEN = 0x110000, // in place of a code point: this and the byte that is no UTF-8
};

// Bytes of the character at text, of which n > 0 are left, and its code point.
size_t clean_next(uint32_t *c, const char *text, size_t n);
// Must this character be escaped? Line ends and tabs too.
int clean_must(uint32_t c);
// The character as it is printed; returns its bytes. keep_lines: line ends and tabs stay.
size_t clean_char(char out[CLEAN_BYTES], uint32_t *c, const char *text, size_t n, int keep_lines, size_t *used);

// One line of it, cut at a whole character where `room` (with the zero byte) is short. Cleaning twice changes nothing.
void clean_text(char *out, size_t room, const char *text);
// The same for an argument of printf: good until the eighth call after, in this thread; at most 4095 bytes.
const char *clean(const char *text);
// n bytes, line ends and tabs kept.
void clean_print(FILE *out, const char *text, size_t n);

#ifdef __cplusplus
}
#endif
#endif
