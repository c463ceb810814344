// model.h: a trained model, from its folder, for decoding. The room infer/ holds decoding and what is built on it: it
// uses weights/, model/, data/, text/ and base/.
#ifndef LLMC_MODEL_H
#define LLMC_MODEL_H

#include <stdio.h>

#include "llmc/model/batch.h"
#include "llmc/model/cascade.h"
#include "llmc/base/dist.h"
#include "llmc/weights/model_files.h"
#include "llmc/text/tokenizer.h"

typedef struct Model {
    const char *folder; // of the checkpoint, also when a run's folder was named; owned by files
    ModelFiles files;
    Tokenizer *tok;
    Template t;
    Backend *b; // NULL until model_load
    Dist dist;  // one rank
    C3 c3;      // weights; inference only
} Model;

// Which model, and where it runs.
typedef struct ModelPlace {
    const char *folder;    // a C3 checkpoint, or a run's folder (its newest complete step)
    const char *tokenizer; // a path; NULL: the folder's own
    const char *device;    // "auto", "cuda" or "cpu"
    const char *dtype;     // "auto" (the files'), "bf16" or "fp32"
    int threads;           // 0: all cores
    int latents;           // of a page: the first of the model's N; 0: all
} ModelPlace;

// Reads configuration and tokenizer, and checks the weights' shapes. Of the place folder and tokenizer matter.
int model_open(Model *m, const ModelPlace *place, Error *err);
// Reads the weights.
int model_load(Model *m, const ModelPlace *place, const C3Limits *limits, Error *err);
void model_close(Model *m);

// From now on a page has the first n of the model's N latents (0: all): what n queries alone would give. Its number is
// files.config.latents, and c3.config.latents once the weights are loaded. The error: n is above N.
int model_use_latents(Model *m, int n, Error *err);
// Was the model trained with pages of that number?
int model_knows_latents(const Model *m);

// Tokens of the longest page that both stacks take.
int model_longest_page(const Model *m);
// generate_new_tokens, with the positions that this decoder has behind `overhead` rows of prompt and latents.
int model_new_tokens(const Model *m, int overhead, int tokens, int asked);

#endif
