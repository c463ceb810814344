// render.c: see render.h.
#include "llmc/text/render.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/terminal.h"

#include "llmc/base/clean.h"

int render_wants_colour(FILE *out) {
    const char *off = getenv("NO_COLOR"), *kind = getenv("TERM");
    int terminal = terminal_behind(fileno(out));
    terminal_close(terminal, fileno(out));
    return terminal >= 0 && !(off && off[0]) && kind && strcmp(kind, "dumb") != 0;
}

// Prints one character (out NULL: skips it) and returns its length in bytes.
static size_t print_char(FILE *out, const char *text, size_t n) {
    char piece[CLEAN_BYTES];
    uint32_t c;
    size_t used, length = clean_char(piece, &c, text, n, 1, &used);
    if (out) fwrite(piece, 1, length, out);
    return used;
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

static size_t print_marked_char(Marker *m, const char *s, size_t n, int wrong) {
    mark(m, wrong);
    if (wrong && *s == '\n') {
        fputs("\\n", m->out);
        mark(m, 0); // do not colour the rest of the terminal's line
    }
    size_t length = print_char(m->out, s, n);
    m->last = s[length - 1];
    return length;
}

void render_marked(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops, RenderSide side, int colour) {
    Marker m = {.out = out, .colour = colour};
    char elsewhere = side == RENDER_REFERENCE ? 'i' : 'd'; // characters of the other side
    size_t at = 0;
    for (size_t i = 0; i < n_ops && at < n; i++) {
        if (ops[i] == elsewhere) continue;
        at += print_marked_char(&m, text + at, n - at, ops[i] != '=');
    }
    mark(&m, 0);
    if (m.last != '\n') fputc('\n', out);
}
