// text_stream.h: text while it is written. Tokens are bytes, and a character may begin in one and end in the next: what
// comes out is always whole characters, and all pieces together are the text of all tokens.
#ifndef LLMC_TEXT_STREAM_H
#define LLMC_TEXT_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TextStream {
    unsigned char tail[4]; // bytes of a character that is not whole yet
    int n_tail;
} TextStream;

// Writes to `out` what n more bytes make whole and returns its length; out holds 3 (n + 3) bytes at least. Bytes that
// belong to no character become U+FFFD, one each. A stream of zeros is a new one.
size_t text_stream_add(TextStream *s, char *out, const char *bytes, size_t n);
// The same at the end of the text: what is left is no character (out: 9 bytes).
size_t text_stream_end(TextStream *s, char *out);

// The text of n tokens more as valid UTF-8, allocated and zero-terminated (it may be empty).
char *text_stream_tokens(TextStream *s, const Tokenizer *tok, const int32_t *ids, int n, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
