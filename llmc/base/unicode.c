// unicode.c: see unicode.h. Character data comes from utf8proc.
#include "llmc/base/unicode.h"

#include <pthread.h> // pthread_once
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "llmc/base/alloc.h"

enum { MAX_DECOMPOSED = 32 }; // code points of one character's full canonical decomposition (the longest has 4)

uint8_t unicode_table[UNICODE_TABLE];

// ---- the table -----------------------------------------------------------------------------------------------------

// The characters with Unicode's White_Space property: `\s`.
static int is_white(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static CharClass classify(uint32_t c) {
    if (c == '\r' || c == '\n') return CHAR_NEWLINE;
    if (is_white(c)) return CHAR_SPACE;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return CHAR_NUMBER;
    default:
        return CHAR_OTHER;
    }
}

CharCase unicode_case(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return CASE_UPPER;
    case UTF8PROC_CATEGORY_LL:
        return CASE_LOWER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return CASE_MARK;
    default:
        return CASE_NONE;
    }
}

static int is_scalar(uint32_t c) { return c < 0xd800 || (c > 0xdfff && c <= 0x10ffff); }

// Full canonical decomposition of one character.
static int decompose(utf8proc_int32_t out[MAX_DECOMPOSED], uint32_t c) {
    int last_class = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, out, MAX_DECOMPOSED, UTF8PROC_DECOMPOSE, &last_class);
    if (n >= 1 && n <= MAX_DECOMPOSED) return (int)n;
    out[0] = (utf8proc_int32_t)c;
    return 1;
}

static utf8proc_ssize_t compose(utf8proc_int32_t *c, utf8proc_ssize_t n) {
    return utf8proc_normalize_utf32(c, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
}

// A character may change if it has a combining class (order matters), if NFC replaces it, or if it is the second half
// of a composition. The last follows from the decompositions: anything after the first character of one.
static void fill_table(void) {
    for (uint32_t c = 0; c < UNICODE_TABLE; c++) {
        if (!is_scalar(c)) continue;
        unicode_table[c] |= (uint8_t)classify(c);
        utf8proc_int32_t parts[MAX_DECOMPOSED];
        if (c < 0x80) continue;
        int n = decompose(parts, c);
        if (utf8proc_get_property((utf8proc_int32_t)c)->combining_class) unicode_table[c] |= CHAR_MAY_CHANGE;
        for (int i = 1; i < n; i++)
            if (parts[i] > 0 && parts[i] < UNICODE_TABLE) unicode_table[parts[i]] |= CHAR_MAY_CHANGE;
        if ((n > 1 || (uint32_t)parts[0] != c) && (compose(parts, n) != 1 || (uint32_t)parts[0] != c))
            unicode_table[c] |= CHAR_MAY_CHANGE;
    }
}

void unicode_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_table);
}

// ---- UTF-8 ---------------------------------------------------------------------------------------------------------

static int is_tail(uint8_t b) { return (b & 0xc0) == 0x80; }

// Length of the valid multi-byte character at p, 0 if it is broken.
static unsigned multibyte_length(const uint8_t *p, size_t room) {
    uint8_t a = p[0];
    if (a >= 0xc2 && a < 0xe0) return room >= 2 && is_tail(p[1]) ? 2 : 0;
    if (a >= 0xe0 && a < 0xf0) {
        if (room < 3 || !is_tail(p[1]) || !is_tail(p[2])) return 0;
        if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f)) return 0; // over-long; surrogate
        return 3;
    }
    if (a >= 0xf0 && a < 0xf5) {
        if (room < 4 || !is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3])) return 0;
        if ((a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] > 0x8f)) return 0; // over-long; above U+10FFFF
        return 4;
    }
    return 0;
}

int utf8_length(const uint8_t *p, size_t n) {
    if (p[0] < 0x80) return 1;
    unsigned length = multibyte_length(p, n);
    if (length > 0 || n >= 4) return (int)length;
    if (n == 1) return p[0] >= 0xc2 && p[0] < 0xf5 ? -1 : 0;
    uint8_t whole[4] = {0x80, 0x80, 0x80, 0x80}; // the second byte decides; any valid ones will do after it
    memcpy(whole, p, n);
    return multibyte_length(whole, 4) > n ? -1 : 0;
}

// The index of the first byte >= 0x80 from i on.
static size_t skip_ascii(const uint8_t *text, size_t i, size_t n) {
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, text + i, 8);
        if (eight & 0x8080808080808080u) break;
    }
    while (i < n && text[i] < 0x80) i++;
    return i;
}

size_t utf8_valid(const char *text, size_t n) {
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0;;) {
        i = skip_ascii(p, i, n);
        if (i == n) return n;
        unsigned length = multibyte_length(p + i, n - i);
        if (!length) return i;
        i += length;
    }
}

// ---- NFC -----------------------------------------------------------------------------------------------------------

size_t unicode_nfc_check(int *invalid, const uint8_t *text, size_t n) {
    *invalid = 0;
    size_t safe = 0; // start of the last character that cannot change; what follows may combine with it
    for (size_t i = 0; i < n;) {
        if (text[i] < 0x80) {
            i = skip_ascii(text, i, n);
            safe = i - 1;
            continue;
        }
        unsigned length = multibyte_length(text + i, n - i);
        if (!length) return *invalid = 1, i;
        uint32_t c;
        utf8_read(&c, text + i);
        if (unicode_entry(c) & CHAR_MAY_CHANGE) return safe;
        safe = i;
        i += length;
    }
    return n;
}

typedef struct CodePoints {
    utf8proc_int32_t *c; // (room)
    size_t n, room;
} CodePoints;

static void reserve(CodePoints *s, size_t more) {
    if (s->n + more <= s->room) return;
    s->room = 2 * (s->n + more) + 64;
    s->c = alloc_resize(s->c, s->room, sizeof *s->c, "code points");
}

static uint8_t combining_class(utf8proc_int32_t c) { return (uint8_t)utf8proc_get_property(c)->combining_class; }

// Puts a run of marks into canonical order, a stable sort by class. Runs are short; a long one (hostile text) is sorted
// by counting, so that the time stays linear.
static void sort_marks(utf8proc_int32_t *c, size_t n) {
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t x = c[i];
            uint8_t order = combining_class(x);
            size_t k = i;
            for (; k > 0 && combining_class(c[k - 1]) > order; k--) c[k] = c[k - 1];
            c[k] = x;
        }
        return;
    }
    utf8proc_int32_t *sorted = alloc(n, sizeof *sorted, "marks");
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[combining_class(c[i]) + 1]++;
    for (int k = 0; k < 256; k++) at[k + 1] += at[k];
    for (size_t i = 0; i < n; i++) sorted[at[combining_class(c[i])]++] = c[i];
    memcpy(c, sorted, n * sizeof *sorted);
    free(sorted);
}

// Normalises the n bytes of one stretch, which neither begins nor ends inside a combination, into s.
static void normalize_stretch(CodePoints *s, const uint8_t *text, size_t n) {
    s->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_read(&c, text + i);
        utf8proc_int32_t parts[MAX_DECOMPOSED];
        int count = decompose(parts, c);
        reserve(s, (size_t)count);
        memcpy(s->c + s->n, parts, (size_t)count * sizeof *parts);
        s->n += (size_t)count;
    }
    for (size_t i = 0; i < s->n;) {
        size_t end = i;
        while (end < s->n && combining_class(s->c[end])) end++;
        if (end > i + 1) sort_marks(s->c + i, end - i);
        i = end + 1;
    }
    utf8proc_ssize_t composed = compose(s->c, (utf8proc_ssize_t)s->n);
    if (composed >= 0) s->n = (size_t)composed;
}

typedef struct Bytes {
    uint8_t *p; // (room)
    size_t n, room;
} Bytes;

static void append(Bytes *b, const void *data, size_t n) {
    if (b->n + n + 1 > b->room) {
        b->room += b->room / 2 + n + 64;
        b->p = alloc_resize(b->p, b->room, 1, "text");
    }
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

// Writes text[from, to), which is one stretch that may change, in its normal form.
static void append_normalized(Bytes *b, CodePoints *s, const uint8_t *text, size_t from, size_t to) {
    normalize_stretch(s, text + from, to - from);
    for (size_t i = 0; i < s->n; i++) {
        utf8proc_uint8_t encoded[4];
        utf8proc_ssize_t length = utf8proc_encode_char(s->c[i], encoded);
        append(b, encoded, (size_t)length);
    }
}

char *unicode_nfc(size_t *out_length, const uint8_t *text, size_t n, size_t known) {
    Bytes b = {alloc(n + 64, 1, "text"), 0, n + 64};
    CodePoints s = {0};
    append(&b, text, known);
    size_t stretch = known; // start of the current stretch, whose first character cannot change what precedes it
    int changes = 0;        // the stretch contains a character that may change
    for (size_t i = known; i < n;) {
        uint32_t c;
        unsigned length = utf8_read(&c, text + i);
        if (unicode_entry(c) & CHAR_MAY_CHANGE) {
            changes = 1;
        } else {
            if (changes) append_normalized(&b, &s, text, stretch, i);
            else append(&b, text + stretch, i - stretch);
            stretch = i;
            changes = 0;
        }
        i += length;
    }
    if (changes) append_normalized(&b, &s, text, stretch, n);
    else append(&b, text + stretch, n - stretch);
    free(s.c);
    b.p[b.n] = 0;
    *out_length = b.n;
    return (char *)b.p;
}
