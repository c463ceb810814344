// model_files.h: where a run's model comes from: a C3 checkpoint (-m), of which -enc or -dec may replace a stack; two
// Qwen2.5 folders (-enc, -dec); or a preset with random weights. Also finds its tokenizer.
#ifndef LLMC_MODEL_FILES_H
#define LLMC_MODEL_FILES_H

#include "llmc/weights/resize.h" // FileVocab
#include "llmc/model/cascade.h"
#include "llmc/model/config.h"
#include "llmc/model/latents_mix.h"

#ifdef __cplusplus
extern "C" {
#endif

// The options that choose a model; NULL or 0: not given.
typedef struct ModelChoice {
    const char *model;         // a C3 checkpoint, or a run's folder
    const char *enc, *dec;     // Qwen2.5 folders
    const char *preset;        // random weights
    const char *template_name; // "auto" is NULL
    const char *tokenizer;     // path
    const char *pages;         // globs of the shards whose vocabulary a preset takes
    int vocab, latents, window;
    const LatentsMix *mix; // -n_mix: its largest is the model's N; NULL: none
    DType dtype;           // of a model that does not come from a checkpoint
} ModelChoice;

typedef struct ModelFiles {
    C3Config config;
    char *folder;          // -m: the C3 folder, resolved when a run's folder was named, owned; else NULL
    int hold;              // keeps a run from removing it (checkpoint_hold) until model_files_close
    const char *enc, *dec; // Qwen2 folders of new stacks; else NULL
    FileVocab stored[2];   // vocabularies of the files: encoder, decoder
    int stored_latents;    // in the C3 folder
    char *tokenizer;       // path, owned
    char text[256];        // one line for the settings table
    char *notes;           // after model_files_load: a line for each change, owned; NULL: none
} ModelFiles;

// Works out the shapes and finds the tokenizer. A preset takes the vocabulary of the training pages. If nothing was
// named and the default folders are missing, the error says what was looked for and how to get it.
int model_files_open(ModelFiles *s, const ModelChoice *o, Error *err);
// The shapes alone, without a tokenizer. assume, for -plan: without pages a preset keeps its own vocabulary, and
// without the default folders the model has the paper's shapes (s->text says so).
int model_files_shapes(ModelFiles *s, const ModelChoice *o, int assume, Error *err);
void model_files_close(ModelFiles *s);

// Finds the tokenizer: -tok, or the first of those in the model's folder, the encoder's, data/qwen2.5.
int model_files_find_tokenizer(ModelFiles *s, const ModelChoice *o, Error *err);
// Loads the tokenizer, which must have the model's vocabulary.
int model_files_tokenizer(Tokenizer **out, const ModelFiles *s, Error *err);

// Compares the tensors in the files with the shapes that config.json gives, before memory is allocated for the model.
int model_files_check(const ModelFiles *s, Error *err);

// Fills the weights: reads the folders, resizes tables, draws what is new. All ranks get the same.
int model_files_load(ModelFiles *s, C3 *m, uint64_t seed, Error *err);

#ifdef __cplusplus
}
#endif
#endif
