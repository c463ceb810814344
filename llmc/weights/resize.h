// resize.h: weights from files of other sizes than the model's: another vocabulary, another number of latents. Rows of
// the files are kept, missing rows are drawn like them, and every change is noted.
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
    uint64_t seed; // of new rows
    char *notes;   // a line for each change, malloc'ed; NULL: none
} Resizer;

// What config.json says of the files' vocabulary.
typedef struct FileVocab {
    int base; // base tokens of the vocabulary
    int rows; // vocab_size: tables over the vocabulary have at least as many rows
    int tied; // a stored head must equal the embedding
} FileVocab;

// Each of these first compares the files with what the model needs. Without `weights` that is all, so that it can be
// done before memory is allocated for the model.

// Fills one stack. Embedding and head keep the rows of all tokens that both vocabularies have, specials included,
// whatever their ids; rows the files lack become the mean of those they have, with noise of a tenth of their spread.
int resize_stack(Resizer *a, ParamOwner owner, const SafeTensors *s, FileVocab config, Error *err);

// Fills Q; the files have `latents` queries. Of too many the first are kept; too few are repeated, with noise of a
// tenth of their spread.
int resize_queries(Resizer *a, const SafeTensors *s, int latents, Error *err);
// Fills the projector.
int resize_projector(Resizer *a, const SafeTensors *s, Error *err);

#ifdef __cplusplus
}
#endif
#endif
