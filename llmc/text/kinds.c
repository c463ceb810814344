// kinds.c: see kinds.h.
#include "llmc/text/kinds.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h" // clean_next
#include "llmc/base/unicode.h"

const KindInfo text_kinds[N_KINDS] = {
    [KIND_DIGITS] = {"digits", "digits"},
    [KIND_PUNCTUATION] = {"punctuation", "punctuation, symbols"},
    [KIND_SPACE] = {"space", "white space"},
    [KIND_LATIN] = {"latin", "Latin letters"},
    [KIND_GREEK] = {"greek", "Greek letters"},
    [KIND_CYRILLIC] = {"cyrillic", "Cyrillic letters"},
    [KIND_ARABIC] = {"arabic", "Arabic letters"},
    [KIND_HAN] = {"han", "Han characters"},
    [KIND_KANA] = {"kana", "kana"},
    [KIND_HANGUL] = {"hangul", "Hangul"},
    [KIND_OTHER_LETTERS] = {"other_letters", "other letters"},
    [KIND_NAMES] = {"names", "names"},
    [KIND_CODE] = {"code", "lines of code"},
};

// ---- one character -------------------------------------------------------------------------------------------------

// Unicode's blocks of these scripts; a letter in none of them is of another. Ascending.
static const struct {
    uint32_t from, to;
    TextKind kind;
} scripts[] = {
    {0x41, 0x2af, KIND_LATIN},       {0x370, 0x3ff, KIND_GREEK},      {0x400, 0x52f, KIND_CYRILLIC},
    {0x600, 0x6ff, KIND_ARABIC},     {0x750, 0x77f, KIND_ARABIC},     {0x870, 0x8ff, KIND_ARABIC},
    {0x1100, 0x11ff, KIND_HANGUL},   {0x1c80, 0x1c8f, KIND_CYRILLIC}, {0x1d00, 0x1d7f, KIND_LATIN},
    {0x1e00, 0x1eff, KIND_LATIN},    {0x1f00, 0x1fff, KIND_GREEK},    {0x2c60, 0x2c7f, KIND_LATIN},
    {0x2de0, 0x2dff, KIND_CYRILLIC}, {0x3005, 0x3007, KIND_HAN},      {0x3040, 0x30ff, KIND_KANA},
    {0x3130, 0x318f, KIND_HANGUL},   {0x31f0, 0x31ff, KIND_KANA},     {0x3400, 0x4dbf, KIND_HAN},
    {0x4e00, 0x9fff, KIND_HAN},      {0xa640, 0xa69f, KIND_CYRILLIC}, {0xa720, 0xa7ff, KIND_LATIN},
    {0xa960, 0xa97f, KIND_HANGUL},   {0xab30, 0xab6f, KIND_LATIN},    {0xac00, 0xd7ff, KIND_HANGUL},
    {0xf900, 0xfaff, KIND_HAN},      {0xfb00, 0xfb06, KIND_LATIN},    {0xfb50, 0xfdff, KIND_ARABIC},
    {0xfe70, 0xfeff, KIND_ARABIC},   {0xff21, 0xff5a, KIND_LATIN},    {0xff65, 0xff9f, KIND_KANA},
    {0xffa0, 0xffdc, KIND_HANGUL},   {0x1b000, 0x1b16f, KIND_KANA},   {0x20000, 0x3ffff, KIND_HAN},
};

static TextKind script_of(uint32_t c) {
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts && c >= scripts[i].from; i++) {
        if (c <= scripts[i].to) return scripts[i].kind;
    }
    return KIND_OTHER_LETTERS;
}

// before: the kind of the character before it, which a combining mark belongs to.
static TextKind character_kind(uint32_t c, TextKind before) {
    switch (unicode_entry(c) & CHAR_CLASS) {
    case CHAR_LETTER:
        return script_of(c);
    case CHAR_NUMBER:
        return KIND_DIGITS;
    case CHAR_SPACE:
    case CHAR_NEWLINE:
        return KIND_SPACE;
    default:
        return unicode_case(c) == CASE_MARK ? before : KIND_PUNCTUATION;
    }
}

// ---- words and lines -----------------------------------------------------------------------------------------------

static int is_letter(uint16_t kinds) { return kinds >= 1 << KIND_LATIN; }

// Marks the names of a line.
static void mark_names(uint16_t *kinds, const uint32_t *codes, size_t n) {
    int inside = 0; // of a sentence: what stands before is a letter, a digit or a comma
    for (size_t i = 0; i < n;) {
        if (!is_letter(kinds[i])) {
            if (kinds[i] != 1 << KIND_SPACE) inside = kinds[i] == 1 << KIND_DIGITS || codes[i] == ',';
            i++;
            continue;
        }
        size_t end = i, small = 0;
        for (; end < n && is_letter(kinds[end]); end++) small += unicode_case(codes[end]) == CASE_LOWER;
        for (size_t k = i; inside && small && unicode_case(codes[i]) == CASE_UPPER && k < end; k++)
            kinds[k] |= 1 << KIND_NAMES;
        inside = 1;
        i = end;
    }
}

// Does `mark` stand at codes + i?
static int stands_at(const uint32_t *codes, size_t n, size_t i, const char *mark) {
    size_t length = strlen(mark);
    for (size_t k = 0; k < length; k++) {
        if (i + k >= n || codes[i + k] != (uint32_t)mark[k]) return 0;
    }
    return 1;
}

static int is_code(const uint16_t *kinds, const uint32_t *codes, size_t n) {
    static const char *const ends[] = {"{", "}", ");", "};"};
    static const char *const inside[] = {"==", "!=", "+=", ":=", "->", "=>", "::", "&&", "||", "()", "</", "/*", " = "};
    while (n > 0 && kinds[n - 1] == 1 << KIND_SPACE) n--;
    for (size_t k = 0; k < sizeof ends / sizeof *ends; k++) {
        size_t length = strlen(ends[k]);
        if (n >= length && stands_at(codes, n, n - length, ends[k])) return 1;
    }
    for (size_t i = 0; i < n; i++) {
        if (kinds[i] & ~(1 << KIND_PUNCTUATION | 1 << KIND_SPACE)) continue;
        for (size_t k = 0; k < sizeof inside / sizeof *inside; k++) {
            if (stands_at(codes, n, i, inside[k])) return 1;
        }
    }
    return 0;
}

uint16_t *kinds_of(size_t *count, const char *text, size_t n) {
    uint32_t *codes = alloc(n, sizeof *codes, "kinds of text");
    uint16_t *kinds = alloc(n, sizeof *kinds, "kinds of text");
    TextKind kind = KIND_PUNCTUATION;
    unicode_init();
    *count = 0;
    for (size_t used; n > 0; text += used, n -= used) {
        used = clean_next(&codes[*count], text, n);
        kind = character_kind(codes[*count], kind);
        kinds[(*count)++] = (uint16_t)(1 << kind);
    }
    for (size_t from = 0, to; from < *count; from = to) {
        for (to = from; to < *count && codes[to] != '\n';) to++;
        to += to < *count; // the line's end belongs to it
        mark_names(kinds + from, codes + from, to - from);
        if (!is_code(kinds + from, codes + from, to - from)) continue;
        for (size_t i = from; i < to; i++) kinds[i] |= 1 << KIND_CODE;
    }
    free(codes);
    return kinds;
}

// ---- errors --------------------------------------------------------------------------------------------------------

void kinds_count(KindErrors errors[N_KINDS], const char *reference, size_t n_reference, const char *output,
                 size_t n_output, const char *ops, size_t n_ops) {
    size_t counts[2], i = 0, j = 0;
    uint16_t *originals = kinds_of(&counts[0], reference, n_reference),
             *written = kinds_of(&counts[1], output, n_output);
    memset(errors, 0, N_KINDS * sizeof *errors);
    for (size_t k = 0; k < n_ops; k++) {
        int added = ops[k] == 'i';
        unsigned kinds = added ? written[j] : originals[i];
        for (int kind = 0; kind < N_KINDS; kind++) {
            if (!(kinds >> kind & 1)) continue;
            errors[kind].chars += !added;
            errors[kind].lost += !added && ops[k] != '=';
            errors[kind].added += added;
        }
        i += !added;
        j += ops[k] != 'd';
    }
    free(originals);
    free(written);
}
