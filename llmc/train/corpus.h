// corpus.h: what a run reads: tokenizer, the words around text and latents, training and validation pages, all made for
// one another.
#ifndef LLMC_CORPUS_H
#define LLMC_CORPUS_H

#include "llmc/model/batch.h"
#include "llmc/data/loader.h"
#include "llmc/train/options.h"
#include "llmc/weights/model_files.h"
#include "llmc/train/step.h"
#include "llmc/train/tasks.h"
#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Corpus {
    Tokenizer *tokenizer;
    Template prompt;
    Dataset train;
    Dataset val[DATA_MAX_SETS]; // (n_val) one for each set of -val; its name is that of val[i].sets[0]
    int n_val;
    Dataset plain;       // -val_lm, where has_plain
    Template plain_text; // of a text that the decoder reads as it stands
    int has_plain;
    TaskMix tasks; // -mix
    int latents;
    const LatentsMix *latents_mix; // -n_mix
    int64_t maxlen;    // longest decoder sequence: -maxlen, or what the model has positions for, if that is less
    double cut_share;  // -len_warmup
    int64_t cut_steps; // of the run
} Corpus;

int corpus_open(Corpus *c, const ModelFiles *files, const TrainOptions *o, Error *err);
void corpus_close(Corpus *c);

// What the longest page takes: the longest context and the longest answer of all training and validation pages.
BatchRows corpus_longest(const Corpus *c);

// The tasks of its training pages: bit 1 << C3Task.
unsigned corpus_tasks(const Corpus *c);

// The tokens that are read of a text of -val_lm: those of the longest page, so that it needs no memory of its own.
uint32_t corpus_plain_longest(const Corpus *c);

// The loader of a run of `steps` steps that resumes after step `done`. c must outlive it.
//
// With -len_warmup F pages are cut to a length that grows linearly from 10 tokens to whole over the first F of the
// steps: a function of the step alone.
int corpus_loader(Loader **out, Corpus *c, const TrainOptions *o, const Dist *dist, LoaderState state, int64_t done,
                  int64_t steps, Error *err);

// The length that training pages are cut to in a step, in tokens; UINT32_MAX: none is. Of a corpus with a loader.
uint32_t corpus_cut(const Corpus *c, int64_t step);

// How the steps of a run are packed into device batches of at most `most`; fuse as in step.h. c must outlive it.
StepConfig corpus_packing(const Corpus *c, const TrainOptions *o, const C3Config *model, BatchRows most, int fuse,
                          int ranks);

#ifdef __cplusplus
}
#endif
#endif
