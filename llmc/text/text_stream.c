// text_stream.c: see text_stream.h.
#include "llmc/text/text_stream.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/unicode.h" // utf8_length

// Moves complete characters and invalid bytes from the tail to out. at_end: nothing follows.
static size_t drain(TextStream *s, char *out, int at_end) {
    size_t used = 0;
    while (s->n_tail > 0) {
        int length = utf8_length(s->tail, (size_t)s->n_tail);
        if (length < 0 && !at_end) break;
        const int taken = length > 0 ? length : 1;
        memcpy(out + used, length > 0 ? (const char *)s->tail : "\xef\xbf\xbd", (size_t)(length > 0 ? length : 3));
        used += (size_t)(length > 0 ? length : 3);
        s->n_tail -= taken;
        memmove(s->tail, s->tail + taken, (size_t)s->n_tail);
    }
    return used;
}

size_t text_stream_add(TextStream *s, char *out, const char *bytes, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        s->tail[s->n_tail++] = (unsigned char)bytes[i];
        used += drain(s, out + used, 0);
    }
    return used;
}

size_t text_stream_end(TextStream *s, char *out) { return drain(s, out, 1); }

char *text_stream_tokens(TextStream *s, const Tokenizer *tok, const int32_t *ids, int n, size_t *length) {
    size_t raw_length = 0;
    char *raw = tokenizer_decode(tok, ids, (size_t)n, &raw_length);
    char *text = alloc(3 * (raw_length + 3) + 1, 1, "text"); // an invalid byte becomes three
    *length = text_stream_add(s, text, raw, raw_length);
    text[*length] = 0;
    free(raw);
    return text;
}
