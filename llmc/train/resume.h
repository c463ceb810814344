// resume.h: going on from a checkpoint, when its settings, tokenizer and pages agree with the command line.
#ifndef LLMC_RESUME_H
#define LLMC_RESUME_H

#include "llmc/train/checkpoint.h"
#include "llmc/train/corpus.h"
#include "llmc/train/options.h"

#ifdef __cplusplus
extern "C" {
#endif

// The folder -resume means: the newest complete checkpoint of -o, the one named, or NULL: start from nothing.
// malloc'ed. An error when -o holds something that may be it and cannot be used.
int resume_folder(char **folder, const TrainOptions *o, Error *err);

// Reads state, weights and optimizer from a folder. *notes: the options that have changed since, a line each,
// malloc'ed.
int resume_load(TrainState *state, char **notes, const CheckpointJob *job, const char *folder, const TrainOptions *o,
                const Option *table, int n_options, int64_t pages_a_step, const Corpus *corpus, Error *err);

#ifdef __cplusplus
}
#endif
#endif
