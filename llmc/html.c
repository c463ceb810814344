// html.c: see html.h.
#include "html.h"

#include <stdint.h>
#include <string.h>

#include "unicode.h" // utf8_valid

// Bytes of the character at s (n > 0 left), its code point in *c; U+FFFD and one byte when it is no UTF-8.
static size_t next_char(uint32_t *c, const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length > n || utf8_valid(text, length) != length) {
        *c = 0xfffd;
        return 1;
    }
    *c = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) *c = *c << 6 | (s[i] & 0x3fu);
    return length;
}

static void print_char(FILE *out, const char *s, size_t length, uint32_t c) {
    int control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
    int direction = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f ||
                    c == 0x061c || c == 0x2028 || c == 0x2029;
    if (c == '&') fputs("&amp;", out);
    else if (c == '<') fputs("&lt;", out);
    else if (c == '>') fputs("&gt;", out);
    else if (c == '"') fputs("&quot;", out);
    else if (c == '\'') fputs("&#39;", out);
    else if (control && c < 0x80) fprintf(out, "\\x%02x", c);
    else if (control || direction) fprintf(out, "\\u%04x", c);
    else if (c == 0xfffd) fputs("\xef\xbf\xbd", out);
    else fwrite(s, 1, length, out);
}

void html_text(FILE *out, const char *text, size_t n) {
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t length = next_char(&c, text + at, n - at);
        print_char(out, text + at, length, c);
        at += length;
    }
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
        uint32_t c;
        size_t length = next_char(&c, text + at, n - at);
        int wrong = ops[i] != '=';
        if (wrong != open) fprintf(out, open ? "</%s>" : "<%s>", element);
        open = wrong;
        if (wrong && c == '\n') fputs("\xe2\x86\xb5", out); // the sign of a line end
        print_char(out, text + at, length, c);
        at += length;
    }
    if (open) fprintf(out, "</%s>", element);
}

void html_reference(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops) {
    marked(out, text, n, ops, n_ops, 'i', "del");
}

void html_output(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops) {
    marked(out, text, n, ops, n_ops, 'd', "ins");
}
