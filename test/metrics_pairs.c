// metrics_pairs.c: a filter for test_metrics.py. stdin: pairs of texts, each text as its length in bytes (4 bytes,
// little endian) and its bytes. stdout, a line a pair: every number of PageMetrics, then the alignment ("-" when it is
// empty).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "llmc/text/metrics.h"

static char *read_text(size_t *n) {
    uint32_t length;
    if (fread(&length, 4, 1, stdin) != 1) return NULL;
    char *text = malloc((size_t)length + 1);
    if (!text || fread(text, 1, length, stdin) != length) {
        fprintf(stderr, "metrics_pairs: a text of %u bytes is cut off\n", length);
        exit(1);
    }
    *n = length;
    return text;
}

int main(void) {
    size_t n[2], n_ops;
    for (char *a; (a = read_text(&n[0]));) {
        char *b = read_text(&n[1]), *ops;
        PageMetrics m;
        if (!b) return 1;
        metrics_page(&m, a, n[0], b, n[1]);
        metrics_align(&ops, &n_ops, a, n[0], b, n[1]);
        printf("%.17g %zu %zu %zu %d", m.char_precision, m.edit_distance, m.reference_chars, m.output_chars, m.exact);
        for (int s = 0; s < METRICS_SLICES; s++) printf(" %zu %zu", m.slice_errors[s], m.slice_chars[s]);
        for (int k = 0; k < N_KINDS; k++) printf(" %zu %zu %zu", m.kinds[k].chars, m.kinds[k].lost, m.kinds[k].added);
        printf(" %.*s\n", n_ops ? (int)n_ops : 1, n_ops ? ops : "-");
        free(a);
        free(b);
        free(ops);
    }
    return 0;
}
