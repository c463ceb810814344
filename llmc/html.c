// html.c: see html.h.
#include "html.h"

#include <string.h>

#include "clean.h"

// Prints one character and returns its bytes.
static size_t print_char(FILE *out, const char *text, size_t n) {
    char piece[CLEAN_BYTES];
    uint32_t c;
    size_t used, length = clean_char(piece, &c, text, n, 1, &used);
    if (c == '&') fputs("&amp;", out);
    else if (c == '<') fputs("&lt;", out);
    else if (c == '>') fputs("&gt;", out);
    else if (c == '"') fputs("&quot;", out);
    else if (c == '\'') fputs("&#39;", out);
    else if (c >= CLEAN_BROKEN) fputs("\xef\xbf\xbd", out);
    else fwrite(piece, 1, length, out);
    return used;
}

void html_text(FILE *out, const char *text, size_t n) {
    for (size_t at = 0; at < n;) at += print_char(out, text + at, n - at);
}

void html_string(FILE *out, const char *text) {
    if (text) html_text(out, text, strlen(text));
}

// One side; `elsewhere` is the operation whose characters stand on the other one.
static void marked(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops, char elsewhere,
                   const char *element) {
    size_t at = 0;
    int open = 0;
    for (size_t i = 0; i < n_ops && at < n; i++) {
        if (ops[i] == elsewhere) continue;
        int wrong = ops[i] != '=';
        if (wrong != open) fprintf(out, open ? "</%s>" : "<%s>", element);
        open = wrong;
        if (wrong && text[at] == '\n') fputs("\xe2\x86\xb5", out); // the sign of a line end
        at += print_char(out, text + at, n - at);
    }
    if (open) fprintf(out, "</%s>", element);
}

void html_reference(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops) {
    marked(out, text, n, ops, n_ops, 'i', "del");
}

void html_output(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops) {
    marked(out, text, n, ops, n_ops, 'd', "ins");
}
