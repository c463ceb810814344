// metrics.c: see metrics.h.
//
// The edit distance's dynamic program runs 64 cells at a time: a column of the table is two bit vectors of differences
// (Myers 1999, Hyyrö 2003). The alignment needs the whole table again, backwards: every sqrt(n)-th column is kept and
// the ones between are computed a second time, so memory stays at O(m sqrt(n)) bits and the result is that of the full
// table. Characters become small integers first ("ids"), equal where they are equal.
#include "llmc/text/metrics.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h" // clean_next

// ---- ids -----------------------------------------------------------------------------------------------------------

// Two texts as ids; both arrays lie in one block, owned through `reference`.
typedef struct Ids {
    uint32_t *reference, *output; // (n_reference), (n_output)
    size_t n_reference, n_output;
    size_t symbols; // ids are below this
} Ids;

static int by_value(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

// Code points of a text (room for n); returns their number. An invalid byte counts as a character.
static size_t decode(uint32_t *codes, const char *text, size_t n) {
    size_t count = 0;
    for (size_t used; n > 0; text += used, n -= used) used = clean_next(&codes[count++], text, n);
    return count;
}

static void ids_create(Ids *ids, const char *reference, size_t n_reference, const char *output, size_t n_output) {
    uint32_t *codes = alloc(n_reference + n_output, sizeof *codes, "characters");
    uint32_t *sorted = alloc(n_reference + n_output, sizeof *sorted, "characters");
    *ids = (Ids){.reference = codes};
    ids->n_reference = decode(codes, reference, n_reference);
    ids->output = codes + ids->n_reference;
    ids->n_output = decode(ids->output, output, n_output);
    size_t n = ids->n_reference + ids->n_output;
    memcpy(sorted, codes, n * sizeof *codes);
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || sorted[i] != sorted[ids->symbols - 1]) sorted[ids->symbols++] = sorted[i];
    }
    for (size_t i = 0; i < n; i++) {
        const uint32_t *found = bsearch(&codes[i], sorted, ids->symbols, sizeof *sorted, by_value);
        codes[i] = (uint32_t)(found - sorted);
    }
    free(sorted);
}

// ---- bit vectors ---------------------------------------------------------------------------------------------------

static size_t words_for(size_t m) { return (m + 63) / 64; }

// (symbols,words): bit i of row c is set where reference[i] == c.
static uint64_t *match_bits(const Ids *ids) {
    size_t words = words_for(ids->n_reference);
    uint64_t *bits = alloc_zeroed(ids->symbols * words, sizeof *bits, "edit distance");
    for (size_t i = 0; i < ids->n_reference; i++) bits[ids->reference[i] * words + i / 64] |= (uint64_t)1 << (i % 64);
    return bits;
}

static int bit(const uint64_t *bits, size_t i) { return (int)(bits[i / 64] >> (i % 64) & 1); }

// One column of the edit distance's table D: from the vertical differences of column j-1 to those of column j.
// up (words): D[i][j] - D[i-1][j] is +1; down: it is -1; diagonal, if not NULL: D[i][j] == D[i-1][j-1].
static void distance_column(uint64_t *up, uint64_t *down, uint64_t *diagonal, const uint64_t *match, size_t words) {
    uint64_t carry_up = 1, carry_down = 0; // the row above the table increases by one in each column
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

// Operations into ops (room for n_reference + n_output); returns their number.
static size_t align(char *ops, const Ids *ids) {
    size_t words = words_for(ids->n_reference), columns = ids->n_output, block = (size_t)sqrt((double)columns) + 1;
    size_t blocks = (columns + block - 1) / block, n = 0, i = ids->n_reference, j = columns;
    uint64_t *match = match_bits(ids);
    uint64_t *starts =
        alloc(2 * blocks * words, sizeof *starts, "edit distance");             // (blocks,2,words) up, down at a start
    uint64_t *table = alloc(2 * block * words, sizeof *table, "edit distance"); // (2,block,words) diagonal, up
    uint64_t *state = alloc(2 * words, sizeof *state, "edit distance");         // (2,words) up, down
    uint64_t *up = state, *down = state + words;
    memset(up, 0xff, words * sizeof *up);
    memset(down, 0, words * sizeof *down);
    for (size_t c = 0; c < columns; c++) {
        if (c % block == 0) memcpy(starts + c / block * 2 * words, state, 2 * words * sizeof *state);
        distance_column(up, down, NULL, match + ids->output[c] * words, words);
    }
    for (size_t k = blocks; k-- > 0 && i > 0;) {
        size_t from = k * block, to = from + block < columns ? from + block : columns;
        memcpy(state, starts + k * 2 * words, 2 * words * sizeof *state);
        for (size_t c = from; c < to; c++) {
            distance_column(up, down, table + (c - from) * words, match + ids->output[c] * words, words);
            memcpy(table + (block + c - from) * words, up, words * sizeof *up);
        }
        n = walk(ops, n, ids, table, table + block * words, from, &i, &j);
    }
    for (; i > 0; i--) ops[n++] = 'd';
    for (; j > 0; j--) ops[n++] = 'i';
    reverse(ops, n);
    free(match);
    free(starts);
    free(table);
    free(state);
    return n;
}

void metrics_align(char **ops, size_t *n, const char *reference, size_t n_reference, const char *output,
                   size_t n_output) {
    Ids ids;
    ids_create(&ids, reference, n_reference, output, n_output);
    *ops = alloc(ids.n_reference + ids.n_output, 1, "alignment");
    *n = align(*ops, &ids);
    free(ids.reference);
}

void metrics_page(PageMetrics *m, const char *reference, size_t n_reference, const char *output, size_t n_output) {
    char *ops;
    size_t n, at = 0;
    *m = (PageMetrics){.exact = n_reference == n_output && memcmp(reference, output, n_reference) == 0};
    metrics_align(&ops, &n, reference, n_reference, output, n_output);
    for (size_t k = 0; k < n; k++) {
        m->reference_chars += ops[k] != 'i';
        m->output_chars += ops[k] != 'd';
        m->edit_distance += ops[k] != '=';
    }
    size_t length = m->reference_chars;
    for (size_t k = 0; k < n; k++) {
        // an insertion counts at the character after it, at the end of the text at the last one
        size_t place = at < length ? at : length - 1;
        size_t slice = length ? place * METRICS_SLICES / length : 0;
        m->slice_errors[slice] += ops[k] != '=';
        m->slice_chars[slice] += ops[k] != 'i';
        at += ops[k] != 'i';
    }
    kinds_count(m->kinds, reference, n_reference, output, n_output, ops, n);
    free(ops);
    size_t longer = m->reference_chars > m->output_chars ? m->reference_chars : m->output_chars;
    m->char_precision = longer ? 1 - (double)m->edit_distance / (double)longer : 1;
}
