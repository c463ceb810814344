// render.c: see render.h.
#include "render.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clean.h"

int render_wants_colour(FILE *out) {
    const char *off = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(out)) && !(off && off[0]) && terminal && strcmp(terminal, "dumb") != 0;
}

// Prints one character (out NULL: passes it) and returns its bytes.
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
        mark(m, 0); // a colour must not run along to the end of the terminal's line
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

void render_plain(FILE *out, const char *text, size_t n) {
    clean_print(out, text, n);
    if (n == 0 || text[n - 1] != '\n') fputc('\n', out);
}

// ---- both sides in one text ----------------------------------------------------------------------------------------

// A place in a text that moves on.
typedef struct Side {
    const char *at, *end;
} Side;

// Passes `count` characters of a side; prints them (wrong: line ends as \n alone, so that a change stays in one piece).
static void pass(Side *s, size_t count, FILE *out, int wrong) {
    for (; count > 0 && s->at < s->end; count--) {
        int line_end = out && wrong && *s->at == '\n';
        if (line_end) fputs("\\n", out);
        s->at += print_char(line_end ? NULL : out, s->at, (size_t)(s->end - s->at));
    }
}

static void print_equal(FILE *out, Side *reference, size_t n, size_t before, size_t after) {
    if (n <= before + after + 16) { // the note would take as much room
        pass(reference, n, out, 0);
        return;
    }
    pass(reference, before, out, 0);
    fprintf(out, "%s[... %zu characters ...]%s", before ? " " : "", n - before - after, after ? " " : "");
    pass(reference, n - before - after, NULL, 0);
    pass(reference, after, out, 0);
}

static void print_change(FILE *out, Side *side, size_t n, const char *open, const char *close) {
    if (n == 0) return;
    fputs(open, out);
    pass(side, n, out, 1);
    fputs(close, out);
}

// Short equal runs between two changes become part of them: '=' to 's', of which each side has a character.
static void join_changes(char *ops, size_t n) {
    enum { SHORTEST = 4 };
    size_t last = n; // where the last change ended
    for (size_t i = 0; i < n; i++) {
        if (ops[i] == '=') continue;
        if (last < i && i - last < SHORTEST) memset(ops + last, 's', i - last);
        last = i + 1;
    }
}

int render_diff(FILE *out, const char *reference, size_t n_reference, const char *output, size_t n_output,
                const char *ops, size_t n_ops, size_t context) {
    char *runs = malloc(n_ops + 1);
    if (!runs) return -1;
    memcpy(runs, ops, n_ops);
    join_changes(runs, n_ops);
    Side r = {reference, reference + n_reference}, o = {output, output + n_output};
    for (size_t i = 0, end; i < n_ops; i = end) {
        size_t lost = 0, written = 0;
        int equal = runs[i] == '=';
        for (end = i; end < n_ops && (runs[end] == '=') == equal; end++) {
            lost += runs[end] != 'i';
            written += runs[end] != 'd';
        }
        if (equal) {
            print_equal(out, &r, end - i, i > 0 ? context : 0, end < n_ops ? context : 0);
            pass(&o, end - i, NULL, 0);
        } else {
            print_change(out, &r, lost, "[-", "-]");
            print_change(out, &o, written, "{+", "+}");
        }
    }
    fputc('\n', out);
    free(runs);
    return 0;
}
