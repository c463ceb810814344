// model_files.h: where a run's model comes from: a C3 checkpoint (-m), of which -enc or -dec may replace a stack; two
// Qwen2.5 folders (-enc, -dec); or a preset with random weights. And where its tokenizer lies.
#ifndef LLMC_MODEL_FILES_H
#define LLMC_MODEL_FILES_H

#include "llmc/weights/resize.h" // FileVocab
#include "llmc/model/cascade.h"
#include "llmc/model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

// What names a model; NULL or 0 where nothing was said.
typedef struct ModelChoice {
    const char *model;         // a C3 checkpoint, or a run's folder
    const char *enc, *dec;     // Qwen2.5 folders
    const char *preset;        // random weights
    const char *template_name; // "auto" is NULL
    const char *tokenizer;     // path
    const char *pages;         // globs of the shards whose vocabulary a preset takes
    int vocab, latents;
    DType dtype; // of a model that no checkpoint gives one
} ModelChoice;

typedef struct ModelFiles {
    C3Config config;
    char *folder;          // -m: the C3 folder itself, also when a run's was named, owned; else NULL
    int hold;              // keeps a run from removing it (checkpoint_hold) until model_files_close
    const char *enc, *dec; // Qwen2 folders of new stacks; else NULL
    FileVocab stored[2];   // encoder, decoder: the vocabularies in the files
    int stored_latents;    // of the C3 folder
    char *tokenizer;       // path, owned
    char text[256];        // one line for the settings table
    char *notes;           // after model_files_load: a line for each thing that was changed, owned; NULL: nothing was
} ModelFiles;

// Works out the shapes and finds the tokenizer. A preset takes the vocabulary of the training pages. When nothing was
// named and the default folders are not there, the error says what was looked for and which lines get it.
int model_files_open(ModelFiles *s, const ModelChoice *o, Error *err);
// The shapes alone, without a tokenizer. assume: for -plan where there are no pages, a preset's own vocabulary; where
// the default folders are not there either, the paper's shapes (s->text says so). Nothing to close.
int model_files_shapes(ModelFiles *s, const ModelChoice *o, int assume, Error *err);
void model_files_close(ModelFiles *s);

// Where the tokenizer lies: -tok, or the first there is in the model's folder, the encoder's, data/qwen2.5.
int model_files_find_tokenizer(ModelFiles *s, const ModelChoice *o, Error *err);
// Loads the tokenizer, which must have the model's vocabulary.
int model_files_tokenizer(Tokenizer **out, const ModelFiles *s, Error *err);

// Opens the files and compares their tensors with the shapes, before memory is taken for the model: what config.json
// asks for is worth nothing until the weights bear it out.
int model_files_check(const ModelFiles *s, Error *err);

// Fills the weights: reads the folders, fits them to the model's sizes, draws what is new. All ranks get the same.
int model_files_load(ModelFiles *s, C3 *m, uint64_t seed, Error *err);

#ifdef __cplusplus
}
#endif
#endif
