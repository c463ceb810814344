// agreement.h: before the first step all ranks must agree on the run. Ranks on different hosts may see different
// files, and would then train a worthless model without any error.
#ifndef LLMC_AGREEMENT_H
#define LLMC_AGREEMENT_H

#include "llmc/train/checkpoint.h"
#include "llmc/train/corpus.h"
#include "llmc/train/options.h"

#ifdef __cplusplus
extern "C" {
#endif

// All ranks run the same program with the same options (but -threads).
int agreement_program(const Dist *d, const OptionTable *options, Error *err);

// All ranks are at the same step of the same run: state, pages, tokenizer, kind of device, weights. folder: the
// checkpoint that was resumed; NULL: none. steps: the last step of the run.
int agreement_run(const Dist *d, const TrainState *state, const Corpus *corpus, int64_t steps, const char *folder,
                  Backend *b, const elem_t *weights, const ParamTable *table, Error *err);

#ifdef __cplusplus
}
#endif
#endif
