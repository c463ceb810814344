// validate.h: what the trainer looks at between steps: loss and token accuracy on held-out pages, and a few of them
// written back from their latents.
#ifndef LLMC_VALIDATE_H
#define LLMC_VALIDATE_H

#include "llmc/model/cascade.h"
#include "llmc/base/dist.h"
#include "llmc/data/loader.h"
#include "llmc/train/log.h"
#include "llmc/train/tasks.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Validation {
    double loss;           // mean over supervised rows
    double token_accuracy; // teacher-forced: share of rows whose label had the largest logit
} Validation;

// What is asked in a validation.
typedef struct ValidationPages {
    const Dataset *d;
    uint64_t pages;       // the first of them
    uint32_t cut;         // longer ones are cut to so many tokens
    int latents;          // the first of each window; 0: all
    const TaskMix *tasks; // not NULL: pages without a prompt of their own are to be made this task, ...
    C3Task task;          // ... always in the same way
} ValidationPages;

// Pages are assigned to the ranks in turn. micro: a micro-batch of the model's limits. Every rank gets the same answer.
Validation validate(C3 *m, const ValidationPages *v, const Template *prompt, MicroBatch *micro, const Dist *dist);

// exp of the mean loss of the first `pages` texts, of each the first `longest` tokens, which the decoder reads without
// latents between the words of `plain` (Corpus.plain_text); the end of a text is not counted.
double validate_plain(C3 *m, const Dataset *d, const Template *plain, MicroBatch *micro, const Dist *dist,
                      uint64_t pages, uint32_t longest);

// Reconstructs `n` pages spread over the dataset, greedily from their latents, and logs text and precision.
int validate_samples(C3 *m, const Dataset *d, const Template *prompt, const Tokenizer *tokenizer, int n, Log *log,
                     Error *err);

#ifdef __cplusplus
}
#endif
#endif
