// clean.c: see clean.h.
#include "clean.h"

#include <string.h>

#include "unicode.h" // utf8_valid, utf8_read

size_t clean_next(uint32_t *c, const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length <= n && utf8_valid(text, length) == length) return utf8_read(c, s);
    *c = CLEAN_BROKEN + s[0];
    return 1;
}

int clean_must(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c >= CLEAN_BROKEN;
}

size_t clean_char(char out[CLEAN_BYTES], uint32_t *c, const char *text, size_t n, int keep_lines, size_t *used) {
    *used = clean_next(c, text, n);
    if (!clean_must(*c) || (keep_lines && (*c == '\n' || *c == '\t'))) {
        memcpy(out, text, *used);
        return *used;
    }
    int is_byte = *c < 0x80 || *c >= CLEAN_BROKEN;
    return (size_t)snprintf(out, CLEAN_BYTES, is_byte ? "\\x%02x" : "\\u%04x", is_byte ? *c & 0xff : *c & 0xffff);
}

void clean_text(char *out, size_t room, const char *text) {
    size_t at = 0;
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        char piece[CLEAN_BYTES];
        uint32_t c;
        size_t n = clean_char(piece, &c, text, left, 0, &used);
        if (at + n >= room) break;
        memcpy(out + at, piece, n);
        at += n;
    }
    out[at] = 0;
}

const char *clean(const char *text) {
    static _Thread_local char ring[8][4096];
    static _Thread_local unsigned next;
    char *out = ring[next++ % 8];
    clean_text(out, sizeof ring[0], text);
    return out;
}

void clean_print(FILE *out, const char *text, size_t n) {
    for (size_t at = 0, used; at < n; at += used) {
        char piece[CLEAN_BYTES];
        uint32_t c;
        fwrite(piece, 1, clean_char(piece, &c, text + at, n - at, 1, &used), out);
    }
}
