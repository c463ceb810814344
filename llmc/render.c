// render.c: see render.h.
#include "render.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int render_wants_colour(FILE *out) {
    const char *off = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(out)) && !(off && off[0]) && terminal && strcmp(terminal, "dumb") != 0;
}

// Bytes and code point of the character at s; the text is valid UTF-8.
static size_t next_char(uint32_t *c, const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    size_t length = s[0] < 0xc0 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length > n) length = n;
    *c = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) *c = *c << 6 | (s[i] & 0x3fu);
    return length;
}

static void print_char(FILE *out, const char *s, size_t length, uint32_t c) {
    int control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
    int direction = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f;
    if (control && c < 0x80) fprintf(out, "\\x%02x", c);
    else if (control || direction) fprintf(out, "\\u%04x", c);
    else fwrite(s, 1, length, out);
}

typedef struct Marker {
    FILE *out;
    int colour, open;
    char last; // last byte of the text
} Marker;

static void mark(Marker *m, int wrong) {
    if (m->open == wrong) return;
    fputs(m->colour ? (wrong ? "\033[7;31m" : "\033[0m") : (wrong ? "[" : "]"), m->out);
    m->open = wrong;
}

static void print_marked_char(Marker *m, const char *s, size_t length, uint32_t c, int wrong) {
    mark(m, wrong);
    if (wrong && c == '\n') {
        fputs("\\n", m->out);
        mark(m, 0); // a colour must not run along to the end of the terminal's line
    }
    print_char(m->out, s, length, c);
    m->last = s[length - 1];
}

void render_marked(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops, RenderSide side, int colour) {
    Marker m = {.out = out, .colour = colour};
    char elsewhere = side == RENDER_REFERENCE ? 'i' : 'd'; // characters of the other side
    size_t at = 0;
    for (size_t i = 0; i < n_ops && at < n; i++) {
        if (ops[i] == elsewhere) continue;
        uint32_t c;
        size_t length = next_char(&c, text + at, n - at);
        print_marked_char(&m, text + at, length, c, ops[i] != '=');
        at += length;
    }
    mark(&m, 0);
    if (m.last != '\n') fputc('\n', out);
}

void render_piece(FILE *out, const char *text, size_t n) {
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t length = next_char(&c, text + at, n - at);
        print_char(out, text + at, length, c);
        at += length;
    }
}

void render_plain(FILE *out, const char *text, size_t n) {
    render_piece(out, text, n);
    if (n == 0 || text[n - 1] != '\n') fputc('\n', out);
}
