// pretokenize.c: Qwen's expression by hand. An expression engine tries the alternatives in order at each position:
//
//   1  (?i:'s|'t|'re|'ve|'m|'ll|'d)
//   2  [^\r\n\p{L}\p{N}]?\p{L}+
//   3  \p{N}
//   4   ?[^\s\p{L}\p{N}]+[\r\n]*
//   5  \s*[\r\n]+
//   6  \s+(?!\S)
//   7  \s+
//
// The first character's class, and the second's, decide which one matches, so no backtracking is left but in white
// space: there the longest run W is taken and cut behind its last newline (5), or, without a newline, one character
// before its end if text follows (6: that character then goes with the text), or not at all when W is that one
// character (7). Every position matches some alternative: the pieces cover the text.
#include "llmc/text/pretokenize.h"

#include "llmc/base/unicode.h"

typedef struct Char {
    unsigned length; // bytes; 0 at the end of the text
    CharClass class;
} Char;

static inline Char read_char(const uint8_t *p, const uint8_t *end) {
    if (p == end) return (Char){0, CHAR_OTHER};
    if (*p < 0x80) return (Char){1, unicode_table[*p] & CHAR_CLASS};
    uint32_t c;
    unsigned length = utf8_read(&c, p);
    return (Char){length, unicode_entry(c) & CHAR_CLASS};
}

static inline const uint8_t *skip_class(const uint8_t *p, const uint8_t *end, CharClass class) {
    for (;;) {
        while (p < end && *p < 0x80) {
            if ((unicode_table[*p] & CHAR_CLASS) != class) return p;
            p++;
        }
        Char c = read_char(p, end);
        if (c.length == 0 || c.class != class) return p;
        p += c.length;
    }
}

// Alternative 1 after the apostrophe at p: length of the match, or 0. Case folding also includes U+017F,
// the long s: bytes c5 bf.
static size_t contraction(const uint8_t *p, const uint8_t *end) {
    size_t room = (size_t)(end - p);
    if (room < 2) return 0;
    uint8_t a = p[1] | 0x20, b = room > 2 ? p[2] | 0x20 : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (p[1] == 0xc5 && room > 2 && p[2] == 0xbf) return 3;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

// Alternatives 5 to 7: p is at white space that is not directly followed by a letter or sign.
static const uint8_t *white_space(const uint8_t *p, const uint8_t *end) {
    const uint8_t *behind_newline = NULL, *last = p, *q = p;
    for (;;) {
        Char c = read_char(q, end);
        if (c.length == 0 || (c.class != CHAR_SPACE && c.class != CHAR_NEWLINE)) break;
        last = q;
        q += c.length;
        if (c.class == CHAR_NEWLINE) behind_newline = q;
    }
    if (behind_newline) return behind_newline;
    return q == end || last == p ? q : last;
}

size_t pretokenize_next(const uint8_t *p, const uint8_t *end) {
    if (*p == '\'') {
        size_t n = contraction(p, end);
        if (n) return n;
    }
    Char first = read_char(p, end);
    const uint8_t *q = p + first.length;
    if (first.class == CHAR_LETTER) return (size_t)(skip_class(q, end, CHAR_LETTER) - p);
    if (first.class == CHAR_NUMBER) return first.length;
    if (first.class == CHAR_NEWLINE) return (size_t)(white_space(p, end) - p);

    Char second = read_char(q, end);
    if (second.length && second.class == CHAR_LETTER)
        return (size_t)(skip_class(q + second.length, end, CHAR_LETTER) - p);
    if (first.class == CHAR_SPACE && !(*p == ' ' && second.length && second.class == CHAR_OTHER))
        return (size_t)(white_space(p, end) - p);
    q = skip_class(q, end, CHAR_OTHER);
    return (size_t)(skip_class(q, end, CHAR_NEWLINE) - p);
}
