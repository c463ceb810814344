// sample.h: which token comes next, given a row of logits.
//
// softmax(logits / temperature), cut to the smallest set of most likely tokens whose probabilities reach top_p (nucleus
// sampling, Holtzman et al. 2019, arXiv 1904.09751), drawn with a number that depends on seed, page and position alone:
// the same seed writes the same text, whatever is decoded beside it.
#ifndef LLMC_SAMPLE_H
#define LLMC_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Sampling {
    double temperature; // 0: greedy, the largest logit and the lowest id of equal ones
    double top_p;       // 0 or 1: all tokens
    uint64_t seed;
    const int32_t *stop; // (n_stop) tokens that end a page beside the template's end mark; NULL when n_stop is 0
    int n_stop;
} Sampling;

// In [0, 1): the number that draws token `position` of page `page`.
double sample_uniform(uint64_t seed, uint64_t page, uint64_t position);

// The drawn id for u in [0, 1); greedy when the temperature is 0. Ids whose logit is NaN or -Inf are never drawn; -1
// when there is no other. work: room for V ids.
int32_t sample_token(const float *logits, int V, double temperature, double top_p, double u, int32_t *work);

#ifdef __cplusplus
}
#endif
#endif
