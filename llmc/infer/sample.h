// sample.h: the next token, given a row of logits: drawn from softmax(logits / temperature), restricted to the smallest
// set of most likely tokens whose probabilities reach top_p (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751).
// The random number depends on seed, page and position alone: the same seed writes the same text in any batch.
#ifndef LLMC_SAMPLE_H
#define LLMC_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Sampling {
    double temperature; // 0: greedy, the largest logit, ties to the lowest id
    double top_p;       // 0 or 1: all tokens
    uint64_t seed;
    const int32_t *stop; // (n_stop) tokens that end a page, besides the template's end mark
    int n_stop;
} Sampling;

// The random number in [0, 1) for token `position` of page `page`.
double sample_uniform(uint64_t seed, uint64_t page, uint64_t position);

// The id drawn with u in [0, 1); greedy when the temperature is 0. Ids whose logit is NaN or -Inf are never drawn; -1:
// there are no others. work (V).
int32_t sample_token(const float *logits, int V, double temperature, double top_p, double u, int32_t *work);

#ifdef __cplusplus
}
#endif
#endif
