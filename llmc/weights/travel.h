// travel.h: the files that travel with a model's weights into every folder it is saved to: the tokenizer, for this
// program and transformers, and what else of the source folder belongs to the model. They are read once, at the start:
// the source may be gone when the first checkpoint is saved.
//
// A tokenizer.json with the whole vocabulary is saved unchanged, with its companions (tokenizer_config.json, chat
// template, ...). Any other tokenizer is written as tokenizer.json and tokenizer_config.json; a whole .tiktoken file is
// also saved as qwen.tiktoken, which the authors' code reads. From the source come files of known names and bounded
// size, with their mode: regular files, or links that stay inside the folder or its hub cache; code only on request,
// because loading a model with trust_remote_code runs it.
#ifndef LLMC_TRAVEL_H
#define LLMC_TRAVEL_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TravelFile {
    char name[64];
    char *data; // (size)
    size_t size;
    unsigned mode; // permissions of the original; 0: written here, as the umask says
} TravelFile;

enum { TRAVEL_MAX = 80 };

typedef struct Travel {
    TravelFile files[TRAVEL_MAX];
    int n;
    char *auto_map; // JSON: the entry of the source's config.json that names its code; NULL: none
    char *notes;    // one line: the files, and what was left out and why
} Travel;

// tokenizer: the one in use, read from tokenizer_path; NULL: none. source: the folder the model came from; NULL: none.
// code: include *.py and auto_map. door: add our own code for transformers (door.h) and its auto_map, where the
// source's does not travel along.
int travel_open(Travel *t, const Tokenizer *tokenizer, const char *tokenizer_path, const char *source, int code,
                int door, Error *err);
// Writes the files into a folder that already has its config.json. t NULL: nothing.
int travel_write(const Travel *t, const char *folder, Error *err);
void travel_close(Travel *t);

#ifdef __cplusplus
}
#endif
#endif
