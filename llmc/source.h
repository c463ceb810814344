// source.h: where a run's model comes from: a C3 checkpoint (-m), two Qwen2.5 folders (-enc, -dec), or a preset with
// random weights; and where its tokenizer lies.
#ifndef LLMC_SOURCE_H
#define LLMC_SOURCE_H

#include "c3.h"
#include "config.h"
#include "options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ModelSource {
    C3Config config;
    const char *folder;   // -m: a C3 folder; else NULL
    const char *enc, *dec; // two Qwen2 folders; else NULL
    char *tokenizer;      // path, owned
    char text[256];       // one line for the settings table
} ModelSource;

// Works out the shapes and finds the tokenizer. When nothing was named and the default folders are not there, the error
// says what was looked for and which lines get it.
int source_open(ModelSource *s, const TrainOptions *o, Error *err);
// The shapes alone, without a tokenizer. assume: when the default folders are not there, the paper's shapes (for -plan;
// s->text says so). Nothing to close.
int source_shapes(ModelSource *s, const TrainOptions *o, int assume, Error *err);
void source_close(ModelSource *s);

// Fills the weights: reads the folders, or draws random numbers.
int source_fill(const ModelSource *s, C3 *m, uint64_t seed, Error *err);

#ifdef __cplusplus
}
#endif
#endif
