// metrics.c: see metrics.h.
//
// Both dynamic programs (edit distance, longest common subsequence) run 64 cells at a time: a column of the table is
// two bit vectors of differences (Myers 1999, Hyyrö 2003). The alignment needs the whole table again, backwards: every
// sqrt(n)-th column is kept and the ones between are computed a second time, so memory stays at O(m sqrt(n)) bits and
// the result is that of the full table. Texts and words become small integers first ("ids"), equal where they are
// equal.
#include "llmc/text/metrics.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// ---- ids -----------------------------------------------------------------------------------------------------------

// A run of bytes: one character or one word.
typedef struct Unit {
    const char *at;
    size_t length, place; // place: index before sorting
} Unit;

// Two texts as ids; both arrays lie in one block, owned through `reference`.
typedef struct Ids {
    uint32_t *reference, *output; // (n_reference), (n_output)
    size_t n_reference, n_output;
    size_t symbols; // ids are below this
} Ids;

static int by_bytes(const void *x, const void *y) {
    const Unit *a = x, *b = y;
    int c = memcmp(a->at, b->at, a->length < b->length ? a->length : b->length);
    return c ? c : (a->length > b->length) - (a->length < b->length);
}

static int by_value(const void *x, const void *y) {
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return (a > b) - (a < b);
}

// Length of the character at s. A byte that starts no whole character counts as one of its own.
static size_t character_length(const char *s, const char *end) {
    unsigned char c = (unsigned char)*s;
    size_t n = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc0 && c < 0xe0 ? 2 : 1;
    if (n > (size_t)(end - s)) return 1;
    for (size_t i = 1; i < n; i++) {
        if (((unsigned char)s[i] & 0xc0) != 0x80) return 1;
    }
    return n;
}

static uint32_t code_point(const char *s, size_t length) {
    const unsigned char *c = (const unsigned char *)s;
    uint32_t value = length == 1 ? c[0] : c[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) value = value << 6 | (c[i] & 0x3f);
    return value;
}

static int is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int is_chinese(uint32_t c) {
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x3ffff);
}

static int has_chinese(const char *s, size_t n) {
    for (const char *end = s + n; s < end;) {
        size_t length = character_length(s, end);
        if (length > 1 && is_chinese(code_point(s, length))) return 1;
        s += length;
    }
    return 0;
}

typedef enum UnitKind { CHARACTERS, VISIBLE_CHARACTERS, WORDS } UnitKind;

// Cuts a text into units behind out[0..]; returns their number. out NULL only counts.
static size_t cut(Unit *out, const char *s, size_t n, UnitKind kind) {
    size_t count = 0;
    const char *word = NULL, *end = s + n;
    while (s < end) {
        size_t length = character_length(s, end);
        int space = kind != CHARACTERS && is_space(code_point(s, length));
        if (kind == WORDS && !space && !word) word = s;
        int done = kind == WORDS ? word && (space || s + length == end) : !space;
        if (done) {
            const char *from = kind == WORDS ? word : s, *to = kind == WORDS && space ? s : s + length;
            if (out) out[count] = (Unit){from, (size_t)(to - from), count};
            count++;
            word = NULL;
        }
        s += length;
    }
    return count;
}

static int ids_create(Ids *ids, const char *reference, size_t n_reference, const char *output, size_t n_output,
                      UnitKind kind) {
    *ids = (Ids){.n_reference = cut(NULL, reference, n_reference, kind), .n_output = cut(NULL, output, n_output, kind)};
    size_t n = ids->n_reference + ids->n_output;
    Unit *units = malloc((n + 1) * sizeof *units);
    ids->reference = malloc((n + 1) * sizeof *ids->reference);
    if (!units || !ids->reference) {
        free(units);
        free(ids->reference);
        return -1;
    }
    ids->output = ids->reference + ids->n_reference;
    cut(units, reference, n_reference, kind);
    cut(units + ids->n_reference, output, n_output, kind);
    for (size_t i = ids->n_reference; i < n; i++) units[i].place += ids->n_reference;
    qsort(units, n, sizeof *units, by_bytes);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || by_bytes(&units[i - 1], &units[i]) != 0) ids->symbols++;
        ids->reference[units[i].place] = (uint32_t)(ids->symbols - 1);
    }
    free(units);
    return 0;
}

// ---- bit vectors ---------------------------------------------------------------------------------------------------

static size_t words_for(size_t m) { return (m + 63) / 64; }

// (symbols,words): bit i of row c is set where reference[i] == c. NULL when memory ran out.
static uint64_t *match_bits(const Ids *ids) {
    size_t words = words_for(ids->n_reference);
    uint64_t *bits = calloc(ids->symbols * words + 1, sizeof *bits);
    for (size_t i = 0; bits && i < ids->n_reference; i++)
        bits[ids->reference[i] * words + i / 64] |= (uint64_t)1 << (i % 64);
    return bits;
}

static int bit(const uint64_t *bits, size_t i) { return (int)(bits[i / 64] >> (i % 64) & 1); }

// One column of the edit distance's table D: from the vertical differences of column j-1 to those of column j.
// up (words): D[i][j] - D[i-1][j] is +1; down: it is -1; diagonal, if not NULL: D[i][j] == D[i-1][j-1].
static void distance_column(uint64_t *up, uint64_t *down, uint64_t *diagonal, const uint64_t *match, size_t words) {
    uint64_t carry_up = 1, carry_down = 0; // the row above the table grows by one from column to column
    for (size_t w = 0; w < words; w++) {
        uint64_t x = match[w] | carry_down, vp = up[w], vn = down[w];
        uint64_t d0 = (((x & vp) + vp) ^ vp) | x | vn;
        uint64_t hp = vn | ~(d0 | vp), hn = d0 & vp;
        uint64_t hp1 = hp << 1 | carry_up, hn1 = hn << 1 | carry_down;
        carry_up = hp >> 63;
        carry_down = hn >> 63;
        up[w] = hn1 | ~(d0 | hp1);
        down[w] = d0 & hp1;
        if (diagonal) diagonal[w] = d0;
    }
}

// ---- alignment -----------------------------------------------------------------------------------------------------

// The backward walk through columns from+1..to, whose bit vectors are at diagonal and up (to-from, words). Writes
// operations from the end of the text on; *i and *j are the cell it has come to.
static size_t walk(char *ops, size_t n, const Ids *ids, const uint64_t *diagonal, const uint64_t *up, size_t from,
                   size_t *i, size_t *j) {
    size_t words = words_for(ids->n_reference);
    while (*i > 0 && *j > from) {
        size_t column = (*j - 1 - from) * words, row = *i - 1;
        char op = ids->reference[row] == ids->output[*j - 1] ? '='
                  : !bit(diagonal + column, row)             ? 's'
                  : bit(up + column, row)                    ? 'd'
                                                             : 'i';
        ops[n++] = op;
        if (op != 'i') --*i;
        if (op != 'd') --*j;
    }
    return n;
}

static void reverse(char *ops, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        char c = ops[i];
        ops[i] = ops[n - 1 - i];
        ops[n - 1 - i] = c;
    }
}

// Operations into ops (room for n_reference + n_output); (size_t)-1 when memory ran out.
static size_t align(char *ops, const Ids *ids) {
    size_t words = words_for(ids->n_reference), columns = ids->n_output, block = (size_t)sqrt((double)columns) + 1;
    size_t blocks = (columns + block - 1) / block, n = 0, i = ids->n_reference, j = columns;
    uint64_t *match = match_bits(ids);
    uint64_t *kept = malloc((2 * blocks * words + 1) * sizeof *kept);  // (blocks,2,words) up, down at a block's start
    uint64_t *table = malloc((2 * block * words + 1) * sizeof *table); // (2,block,words) diagonal, up of one block
    uint64_t *state = malloc((2 * words + 1) * sizeof *state);         // (2,words) up, down
    if (!match || !kept || !table || !state) n = (size_t)-1;
    if (n == 0) {
        uint64_t *up = state, *down = state + words;
        memset(up, 0xff, words * sizeof *up);
        memset(down, 0, words * sizeof *down);
        for (size_t c = 0; c < columns; c++) {
            if (c % block == 0) memcpy(kept + c / block * 2 * words, state, 2 * words * sizeof *state);
            distance_column(up, down, NULL, match + ids->output[c] * words, words);
        }
        for (size_t k = blocks; k-- > 0 && i > 0;) {
            size_t from = k * block, to = from + block < columns ? from + block : columns;
            memcpy(state, kept + k * 2 * words, 2 * words * sizeof *state);
            for (size_t c = from; c < to; c++) {
                distance_column(up, down, table + (c - from) * words, match + ids->output[c] * words, words);
                memcpy(table + (block + c - from) * words, up, words * sizeof *up);
            }
            n = walk(ops, n, ids, table, table + block * words, from, &i, &j);
        }
        for (; i > 0; i--) ops[n++] = 'd';
        for (; j > 0; j--) ops[n++] = 'i';
        reverse(ops, n);
    }
    free(match);
    free(kept);
    free(table);
    free(state);
    return n;
}

int metrics_align(char **ops, size_t *n, const char *reference, size_t n_reference, const char *output,
                  size_t n_output) {
    Ids ids;
    *ops = NULL;
    if (ids_create(&ids, reference, n_reference, output, n_output, CHARACTERS) != 0) return -1;
    *ops = malloc(ids.n_reference + ids.n_output + 1);
    *n = *ops ? align(*ops, &ids) : (size_t)-1;
    free(ids.reference);
    if (*n != (size_t)-1) return 0;
    free(*ops);
    *ops = NULL;
    *n = 0;
    return -1;
}

static int characters(PageMetrics *m, const char *reference, size_t n_reference, const char *output, size_t n_output) {
    char *ops;
    size_t n, at = 0;
    if (metrics_align(&ops, &n, reference, n_reference, output, n_output) != 0) return -1;
    for (size_t k = 0; k < n; k++) {
        m->reference_chars += ops[k] != 'i';
        m->output_chars += ops[k] != 'd';
        m->edit_distance += ops[k] != '=';
    }
    size_t length = m->reference_chars;
    for (size_t k = 0; k < n; k++) {
        // an insertion counts at the character it stands before, at the end of the text at the last one
        size_t place = at < length ? at : length - 1;
        size_t slice = length ? place * METRICS_SLICES / length : 0;
        m->slice_errors[slice] += ops[k] != '=';
        m->slice_chars[slice] += ops[k] != 'i';
        at += ops[k] != 'i';
    }
    free(ops);
    size_t longer = m->reference_chars > m->output_chars ? m->reference_chars : m->output_chars;
    m->char_precision = longer ? 1 - (double)m->edit_distance / (double)longer : 1;
    return 0;
}

// ---- words ---------------------------------------------------------------------------------------------------------

// How often each id occurs: (symbols) in the reference, then (symbols) in the output. NULL when memory ran out.
static size_t *occurrences(const Ids *ids) {
    size_t *counts = calloc(2 * ids->symbols + 1, sizeof *counts);
    if (!counts) return NULL;
    for (size_t i = 0; i < ids->n_reference; i++) counts[ids->reference[i]]++;
    for (size_t i = 0; i < ids->n_output; i++) counts[ids->symbols + ids->output[i]]++;
    return counts;
}

static double f1(double precision, double recall) {
    return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

static int word_sets(PageMetrics *m, const Ids *ids) {
    size_t *counts = occurrences(ids), common = 0, in_reference = 0, in_output = 0;
    if (!counts) return -1;
    for (size_t c = 0; c < ids->symbols; c++) {
        int r = counts[c] > 0, o = counts[ids->symbols + c] > 0;
        in_reference += r;
        in_output += o;
        common += r && o;
    }
    free(counts);
    int both_empty = in_reference + in_output == 0;
    m->word_precision = in_output ? (double)common / (double)in_output : both_empty;
    m->word_recall = in_reference ? (double)common / (double)in_reference : both_empty;
    m->word_f1 = f1(m->word_precision, m->word_recall);
    return 0;
}

// Replaces the ids of (n-1)-grams by those of n-grams: an n-gram is the (n-1)-gram at its start and its last unit.
// keys: scratch of 2 * (n_reference + n_output).
static void longer_grams(Ids *grams, const Ids *units, size_t n, uint64_t *keys) {
    size_t r = units->n_reference >= n ? units->n_reference - n + 1 : 0;
    size_t o = units->n_output >= n ? units->n_output - n + 1 : 0;
    uint64_t *sorted = keys + r + o;
    for (size_t i = 0; i < r; i++) keys[i] = (uint64_t)grams->reference[i] << 32 | units->reference[i + n - 1];
    for (size_t i = 0; i < o; i++) keys[r + i] = (uint64_t)grams->output[i] << 32 | units->output[i + n - 1];
    memcpy(sorted, keys, (r + o) * sizeof *keys);
    qsort(sorted, r + o, sizeof *sorted, by_value);
    size_t distinct = 0;
    for (size_t i = 0; i < r + o; i++) {
        if (i == 0 || sorted[i] != sorted[distinct - 1]) sorted[distinct++] = sorted[i];
    }
    for (size_t i = 0; i < r + o; i++) {
        const uint64_t *found = bsearch(&keys[i], sorted, distinct, sizeof *sorted, by_value);
        *(i < r ? &grams->reference[i] : &grams->output[i - r]) = (uint32_t)(found - sorted);
    }
    grams->n_reference = r;
    grams->n_output = o;
    grams->symbols = distinct;
}

// Geometric mean of the clipped n-gram precisions, n = 1..4, times the brevity penalty (Papineni et al. 2002). As
// nltk's sentence_bleu with method-1 smoothing: a precision of 0 counts 0.1 matches; no common unit at all gives 0.
static int bleu(PageMetrics *m, const Ids *units) {
    size_t total = units->n_reference + units->n_output;
    Ids grams = *units;
    uint64_t *keys = malloc((2 * total + 1) * sizeof *keys);
    grams.reference = malloc((total + 1) * sizeof *grams.reference);
    int bad = !keys || !grams.reference;
    double log_sum = 0;
    int nothing_common = 0;
    if (!bad) {
        grams.output = grams.reference + grams.n_reference;
        memcpy(grams.reference, units->reference, total * sizeof *grams.reference);
    }
    for (size_t n = 1; n <= 4 && !bad && !nothing_common; n++) {
        if (n > 1) longer_grams(&grams, units, n, keys);
        size_t *counts = occurrences(&grams), matches = 0;
        bad = !counts;
        for (size_t c = 0; counts && c < grams.symbols; c++) {
            size_t r = counts[c], o = counts[grams.symbols + c];
            matches += r < o ? r : o;
        }
        free(counts);
        nothing_common = n == 1 && matches == 0;
        log_sum += log((matches ? (double)matches : 0.1) / (grams.n_output ? (double)grams.n_output : 1)) / 4;
    }
    free(keys);
    free(grams.reference);
    double r = (double)units->n_reference, o = (double)units->n_output;
    m->bleu4 = bad || nothing_common ? 0 : exp(log_sum) * (o > r ? 1 : exp(1 - r / o));
    return bad ? -1 : 0;
}

// Longest common subsequence by bit vectors (Hyyrö 2004): a zero of `s` is a row where the length grows by one.
static int rouge_l(PageMetrics *m, const Ids *ids) {
    size_t words = words_for(ids->n_reference), common = 0;
    uint64_t *match = match_bits(ids), *s = malloc((words + 1) * sizeof *s);
    int bad = !match || !s;
    if (!bad) memset(s, 0xff, words * sizeof *s);
    for (size_t j = 0; !bad && j < ids->n_output; j++) {
        const uint64_t *row = match + ids->output[j] * words;
        uint64_t carry = 0;
        for (size_t w = 0; w < words; w++) {
            uint64_t u = s[w] & row[w], sum = s[w] + u, with_carry = sum + carry;
            carry = (sum < u) | (with_carry < sum);
            s[w] = with_carry | (s[w] - u);
        }
    }
    for (size_t i = 0; !bad && i < ids->n_reference; i++) common += !bit(s, i);
    free(match);
    free(s);
    double l = (double)common;
    m->rouge_l = common ? f1(l / (double)ids->n_output, l / (double)ids->n_reference) : 0;
    return bad ? -1 : 0;
}

// ---- a page --------------------------------------------------------------------------------------------------------

int metrics_page(PageMetrics *m, const char *reference, size_t n_reference, const char *output, size_t n_output) {
    *m = (PageMetrics){0};
    m->exact = n_reference == n_output && memcmp(reference, output, n_reference) == 0;
    if (characters(m, reference, n_reference, output, n_output) != 0) return -1;
    Ids units;
    m->by_character = has_chinese(n_reference ? reference : output, n_reference ? n_reference : n_output);
    UnitKind kind = m->by_character ? VISIBLE_CHARACTERS : WORDS;
    if (ids_create(&units, reference, n_reference, output, n_output, kind) != 0) return -1;
    int bad = word_sets(m, &units) != 0 || bleu(m, &units) != 0 || rouge_l(m, &units) != 0;
    free(units.reference);
    return bad ? -1 : 0;
}
