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

int main(void) {
    alignments();
    characters();
    return check_done();
}
