// resize.h: weights from files whose sizes are not the model's: another vocabulary, another number of latents. What the
// files have is kept, what they lack is made from what they have, and every change is said.
#ifndef LLMC_RESIZE_H
#define LLMC_RESIZE_H

#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/base/error.h"
#include "llmc/model/params.h"
#include "llmc/weights/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Resizer {
    Backend *backend;
    elem_t *weights; // the arena of `params`; NULL: compare only
    const C3Params *params;
    int base;      // base tokens of the model; config_specials() numbers its specials
    uint64_t seed; // of what is drawn anew
    char *notes;   // a line for each change, malloc'ed; NULL when there was none
} Resizer;

// What the config.json beside the files says of them, and they must hold.
typedef struct FileVocab {
    int base; // base tokens of the vocabulary
    int rows; // vocab_size: tables over the vocabulary have as many rows, or more
    int tied; // a head of its own, where it is stored, must be the embedding
} FileVocab;

// All of these first compare what the files have with what the model asks of them. Without weights that is all they do:
// so that it can be done before memory is taken for the model.

// Fills one stack. The embedding (and head) keep the rows of all tokens both vocabularies have, specials included,
// wherever these stand; rows the files lack become the mean of those they have, with noise of a tenth of their spread.
int resize_stack(Resizer *a, ParamOwner owner, const SafeTensors *s, FileVocab config, Error *err);

// Fills Q, of which there are `latents` in the files. Of more queries in the files the first are kept; fewer are
// repeated, with noise of a tenth of their spread.
int resize_queries(Resizer *a, const SafeTensors *s, int latents, Error *err);
// Fills the projector.
int resize_projector(Resizer *a, const SafeTensors *s, Error *err);

#ifdef __cplusplus
}
#endif
#endif
