// corpus.h: what a run reads: tokenizer, the words around text and latents, training and validation pages, all made for
// one another.
#ifndef LLMC_CORPUS_H
#define LLMC_CORPUS_H

#include "c3.h" // C3Limits
#include "loader.h"
#include "options.h"
#include "source.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Corpus {
    Tokenizer *tokenizer;
    Template words;
    Dataset train, val;
    int has_val;
    int latents;
} Corpus;

int corpus_open(Corpus *c, const ModelSource *source, const TrainOptions *o, Error *err);
void corpus_close(Corpus *c);

// The longest micro-batch these pages can give decides all sizes.
C3Limits corpus_limits(const Corpus *c, const TrainOptions *o);

// The length warmup: pages are cut to a length that grows linearly from 10 tokens to whole over the first share of the
// steps. A function of the step alone. UINT32_MAX: whole.
uint32_t corpus_cut(const Corpus *c, double share, int64_t steps, uint64_t step);

#ifdef __cplusplus
}
#endif
#endif
