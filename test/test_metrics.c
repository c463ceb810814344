// test_metrics.c: metrics of pages against numbers worked out by hand. The comparison with rapidfuzz is in
// test_metrics.py.
#include "test/check.h"

#include <math.h>
#include <stdlib.h>

#include "llmc/text/metrics.h"

static PageMetrics page(const char *reference, const char *output) {
    PageMetrics m;
    metrics_page(&m, reference, strlen(reference), output, strlen(output));
    return m;
}

static void alignment(const char *reference, const char *output, const char *expected) {
    char *ops;
    size_t n;
    metrics_align(&ops, &n, reference, strlen(reference), output, strlen(output));
    CHECK(n == strlen(expected) && memcmp(ops, expected, n) == 0, "%s | %s: expected %s, found %.*s", reference, output,
          expected, (int)n, ops);
    free(ops);
}

static void near(const char *what, double found, double expected) {
    CHECK(fabs(found - expected) <= 1e-12, "%s: expected %.15g, found %.15g", what, expected, found);
}

static void alignments(void) {
    check_begin("alignments by hand");
    alignment("", "", "");
    alignment("abc", "", "ddd");
    alignment("", "abc", "iii");
    alignment("abc", "abc", "===");
    alignment("abc", "axc", "=s=");
    alignment("abc", "ac", "=d=");
    alignment("ac", "abc", "=i=");
    alignment("kitten", "sitting", "s===s=i");
    check_begin("ties go to match, substitute, delete, insert, seen from the end");
    alignment("aa", "a", "d=");
    alignment("a", "aa", "i=");
    alignment("ab", "ba", "ss");   // not delete and insert, which costs the same
    alignment("abc", "ca", "dss"); // three errors in any case: the substitutions stand last
    check_begin("characters, not bytes");
    alignment("\xe4\xbd\xa0\xe5\xa5\xbd", "\xe4\xbd\xa0\xe4\xbb\xac", "=s"); // two of three bytes differ in the second
    PageMetrics m = page("\xf0\x9f\x98\x80x", "x");
    CHECK(m.reference_chars == 2 && m.edit_distance == 1, "%zu characters, %zu errors", m.reference_chars,
          m.edit_distance);
    check_begin("bytes that are no characters are survived");
    alignment("a\xe4\xbd", "a\xff", "=ds");
}

static void characters(void) {
    check_begin("character precision and slices");
    PageMetrics m = page("kitten", "sitting");
    near("char precision", m.char_precision, 1 - 3.0 / 7);
    CHECK(m.edit_distance == 3 && m.reference_chars == 6 && m.output_chars == 7 && !m.exact, "distance %zu",
          m.edit_distance);
    char reference[41] = "", output[48] = "";
    for (int i = 0; i < 40; i++) reference[i] = output[i] = (char)('A' + i);
    output[0] = '.', output[20] = '.'; // substitutions in the slices 0 and 10
    strcat(output, "!!");              // insertions behind the last character
    m = page(reference, output);
    for (int s = 0; s < METRICS_SLICES; s++) {
        size_t errors = s == 0 || s == 10 ? 1 : s == 19 ? 2 : 0;
        CHECK(m.slice_errors[s] == errors && m.slice_chars[s] == 2, "slice %d: %zu errors in %zu", s, m.slice_errors[s],
              m.slice_chars[s]);
    }
    check_begin("one insertion is one error, not a wrong tail");
    memmove(output + 1, reference, 41);
    m = page(reference, output);
    CHECK(m.edit_distance == 1 && m.slice_errors[0] == 1, "distance %zu, %zu of it in the first slice", m.edit_distance,
          m.slice_errors[0]);
    check_begin("empty texts");
    m = page("", "");
    CHECK(m.char_precision == 1 && m.exact, "both empty");
    m = page("abc", "");
    CHECK(m.char_precision == 0 && m.edit_distance == 3 && !m.exact, "output empty");
    m = page("", "abc");
    CHECK(m.char_precision == 0 && m.edit_distance == 3 && m.slice_errors[0] == 3, "reference empty");
}

// expected: per character of the text a letter, of text_kinds' order from 'a' on; `names` and `code`: 1 where it is.
static void kinds(const char *text, const char *expected, const char *names, const char *code) {
    size_t n;
    uint16_t *found = kinds_of(&n, text, strlen(text));
    CHECK(n == strlen(expected), "%s: expected %zu characters, found %zu", text, strlen(expected), n);
    for (size_t i = 0; i < n && i < strlen(expected); i++) {
        int want = 1 << (expected[i] - 'a') | (names[i] == '1') << KIND_NAMES | (code[i] == '1') << KIND_CODE;
        CHECK(found[i] == want, "%s: character %zu: expected %x, found %x", text, i, (unsigned)want, found[i]);
    }
    free(found);
}

static void by_kind(void) {
    enum { LONG = 64 };
    char none[LONG], all[LONG];
    memset(none, '0', LONG);
    memset(all, '1', LONG);
    check_begin("kinds of characters: digits, punctuation, white space, scripts; marks follow their letter");
    kinds("", "", none, none);
    kinds("a1 \n$\t,",
          "dacc"
          "bcb",
          none, none);
    kinds("éΩжب天かカ한अा½Ⅷ\u3000。😀", "defghiijkkaacbb", none, none);
    kinds("e\u0301.\u0301", "ddbb", none, none);
    check_begin("names: capitalised words inside a sentence");
    kinds("Then Mary saw John.", "ddddcddddcdddcddddb", "0000011110000011110", none);
    kinds("He met, Ann. Bob I NASA", "ddcdddbcdddbcdddcdcdddd", "00000000111000000000000", none);
    kinds("to\nRome 5 Élan \"Yes\"", "ddcddddcacddddcbdddb", "00000000001111000000", none);
    check_begin("code: whole lines, by their marks");
    kinds("a;\nf(x); \nb", "dbcdbdbbccd", none, "00011111110");
    kinds("if x == 1\nx=1", "ddcdcbbcacdba", none, "1111111111000");
    kinds("a = b", "dcbcd", none, all);
    kinds("for {\n}", "dddcbcb", none, all);
    kinds("See Ann::b", "dddcdddbbd", "0000111000", all);

    check_begin("errors by kind: lost in the original, added in the output");
    PageMetrics m = page("In 1984 Ann wept.", "In 19x4 Amn wept.!7");
    const struct {
        TextKind kind;
        size_t chars, lost, added;
    } rows[] = {{KIND_DIGITS, 4, 1, 1}, {KIND_LATIN, 9, 1, 0}, {KIND_PUNCTUATION, 1, 0, 1}, {KIND_SPACE, 3, 0, 0},
                {KIND_NAMES, 3, 1, 0},  {KIND_HAN, 0, 0, 0},   {KIND_CODE, 0, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const KindErrors *k = &m.kinds[rows[i].kind];
        CHECK(k->chars == rows[i].chars && k->lost == rows[i].lost && k->added == rows[i].added,
              "%s: %zu characters, %zu lost, %zu added", text_kinds[rows[i].kind].key, k->chars, k->lost, k->added);
    }
    check_begin("every character and every error is of one kind of character");
    m = page("天地 x2\nint y = 3;", "天x x22\nint;");
    size_t chars = 0, errors = 0;
    for (int k = 0; k < N_CHARACTER_KINDS; k++) {
        chars += m.kinds[k].chars;
        errors += m.kinds[k].lost + m.kinds[k].added;
    }
    CHECK(chars == m.reference_chars && errors == m.edit_distance, "%zu of %zu characters, %zu of %zu errors", chars,
          m.reference_chars, errors, m.edit_distance);
}

int main(void) {
    alignments();
    characters();
    by_kind();
    return check_done();
}
