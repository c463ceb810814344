// latents_mix.h: several numbers of latents for one model (-n_mix). Attention is causal, so the first n of a page's N
// latents do not depend on the others: a model that was trained with several n serves each of them.
#ifndef LLMC_LATENTS_MIX_H
#define LLMC_LATENTS_MIX_H

#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MIX_MAX = 16, MIX_MAX_LATENTS = 65536 };

typedef struct LatentsMix {
    int n;                 // how many there are; 0: no mix, a page has all of the model's latents
    int latents[MIX_MAX];  // (n) ascending
    double share[MIX_MAX]; // (n) of the pages; their sum is 1
} LatentsMix;

// "8,16,32", of as many pages each, or "8:1,16:1,32:2", in proportion to these weights. NULL or "": no mix. option:
// its name, for errors: not a number from 1, a number twice, weights of some alone. weighted 0: no weights are taken.
int latents_mix_parse(LatentsMix *m, const char *option, const char *text, int weighted, Error *err);
// The largest; 0: no mix.
int latents_mix_most(const LatentsMix *m);
// The n of a page, from a random number that belongs to it; 0: no mix.
int latents_mix_draw(const LatentsMix *m, uint64_t draw);
// What it is on average; of no mix N.
double latents_mix_mean(const LatentsMix *m, int N);

#ifdef __cplusplus
}
#endif
#endif
