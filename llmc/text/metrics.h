// metrics.h: how closely a text was reconstructed, on Unicode code points of the NFC form.
#ifndef LLMC_METRICS_H
#define LLMC_METRICS_H

#include <stddef.h>

#include "llmc/text/kinds.h"

enum { METRICS_SLICES = 20 };

typedef struct PageMetrics {
    double char_precision; // 1 - Levenshtein distance / longer length; 1 for two empty texts
    size_t edit_distance, reference_chars, output_chars;
    int exact;                           // texts are equal
    size_t slice_errors[METRICS_SLICES]; // errors counted at the reference position (alignment: match, substitute,
    size_t slice_chars[METRICS_SLICES];  // delete, insert in this order of preference), 20 equal slices of the page
    KindErrors kinds[N_KINDS];
} PageMetrics;

// Both texts are valid UTF-8.
void metrics_page(PageMetrics *m, const char *reference, size_t n_reference, const char *output, size_t n_output);

// The alignment, for showing errors: ops (allocated, *n of them) in text order over code points: '=' match, 's'
// substitute, 'd' delete (only in the reference), 'i' insert (only in the output).
void metrics_align(char **ops, size_t *n, const char *reference, size_t n_reference, const char *output,
                   size_t n_output);

#endif
