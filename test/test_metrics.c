// test_metrics.c: metrics of pages against numbers worked out by hand. The comparison with Python's packages is in
// test_metrics.py.
#include "test/check.h"

#include <math.h>
#include <stdlib.h>

#include "llmc/text/metrics.h"

static PageMetrics page(const char *reference, const char *output) {
    PageMetrics m;
    CHECK(metrics_page(&m, reference, strlen(reference), output, strlen(output)) == 0, "out of memory");
    return m;
}

static void alignment(const char *reference, const char *output, const char *expected) {
    char *ops;
    size_t n;
    CHECK(metrics_align(&ops, &n, reference, strlen(reference), output, strlen(output)) == 0, "out of memory");
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
    CHECK(m.char_precision == 1 && m.exact && m.word_f1 == 1 && m.bleu4 == 0 && m.rouge_l == 0, "both empty");
    m = page("abc", "");
    CHECK(m.char_precision == 0 && m.edit_distance == 3 && !m.exact && m.word_precision == 0 && m.word_recall == 0,
          "output empty");
    m = page("", "abc");
    CHECK(m.char_precision == 0 && m.edit_distance == 3 && m.slice_errors[0] == 3 && m.word_f1 == 0, "reference empty");
}

static void words(void) {
    check_begin("word sets, BLEU and ROUGE-L");
    PageMetrics m = page("the cat sat on the mat", "the cat on\nthe  red mat today");
    near("precision", m.word_precision, 4.0 / 6); // {the cat on mat} of {the cat on red mat today}
    near("recall", m.word_recall, 4.0 / 5);
    near("f1", m.word_f1, 8.0 / 11);
    near("rouge-l", m.rouge_l, 2 * (5.0 / 7) * (5.0 / 6) / (5.0 / 7 + 5.0 / 6));   // the cat on the mat
    near("bleu", m.bleu4, pow(5.0 / 7 * (2.0 / 6) * (0.1 / 5) * (0.1 / 4), 0.25)); // "the cat", "on the"
    m = page("a b c d e f", "a b c d");
    near("brevity penalty", m.bleu4, exp(1 - 6.0 / 4));
    check_begin("Chinese is counted by characters, white space left out");
    m = page("\xe4\xbd\xa0 \xe5\xa5\xbd", "\xe5\xa5\xbd\xe5\xa5\xbd");
    near("precision", m.word_precision, 1);
    near("recall", m.word_recall, 0.5);
    near("rouge-l", m.rouge_l, 0.5);
    check_begin("the reference alone decides what a word is");
    m = page("one two", "one two \xe5\xa5\xbd\xe5\xa5\xbd");
    near("precision", m.word_precision, 2.0 / 3);
}

int main(void) {
    alignments();
    characters();
    words();
    return check_done();
}
