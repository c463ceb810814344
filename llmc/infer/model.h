// model.h: a trained model as a user means it: a folder that becomes something to decode with.
#ifndef LLMC_MODEL_H
#define LLMC_MODEL_H

#include <stdio.h>

#include "llmc/model/batch.h"
#include "llmc/model/cascade.h"
#include "llmc/base/dist.h"
#include "llmc/weights/model_files.h"
#include "llmc/text/tokenizer.h"

typedef struct Model {
    const char *folder; // the step folder itself, also when a run's folder was named; the source's
    ModelFiles files;
    Tokenizer *tok;
    Template t;
    Backend *b; // NULL until model_load
    Dist dist;  // one rank
    C3 c3;      // weights; inference only
} Model;

// Reads configuration and tokenizer, and compares the weights' shapes. folder: a C3 checkpoint, or a run's folder,
// which stands for its newest complete step. tokenizer: a path, or NULL for the folder's own.
int model_open(Model *m, const char *folder, const char *tokenizer, Error *err);
// Reads the weights. device "auto", "cuda" or "cpu"; dtype "auto" (the files' own), "bf16" or "fp32"; threads 0: all
// cores.
int model_load(Model *m, const char *device, const char *dtype, int threads, const C3Limits *limits, Error *err);
void model_close(Model *m);

#endif
