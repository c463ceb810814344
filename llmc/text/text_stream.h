// text_stream.h: text as it is decoded. A character may begin in one token and end in the next; only whole characters
// are returned, and together they are the text of all tokens.
#ifndef LLMC_TEXT_STREAM_H
#define LLMC_TEXT_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TextStream {
    unsigned char tail[4]; // bytes of an incomplete character
    int n_tail;
} TextStream;

// Writes the characters completed by n more bytes to `out` (at least 3 (n + 3) bytes) and returns their length. Bytes
// that belong to no character become U+FFFD, one each. A zeroed stream is a new one.
size_t text_stream_add(TextStream *s, char *out, const char *bytes, size_t n);
// The same at the end of the text: an incomplete character is broken (out: 9 bytes).
size_t text_stream_end(TextStream *s, char *out);

// The text of n tokens more as valid UTF-8, allocated and zero-terminated (it may be empty).
char *text_stream_tokens(TextStream *s, const Tokenizer *tok, const int32_t *ids, int n, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
