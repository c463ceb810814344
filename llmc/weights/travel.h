// travel.h: what goes into a saved model's folder beside its weights: the tokenizer, so that this program and
// transformers find it there, and what of the source's folder belongs to a model. Everything is read once, before any
// work: the source may be gone when the first checkpoint is saved.
//
// A whole vocabulary out of a tokenizer.json travels as it is, with its companions (tokenizer_config.json, chat
// template,
// ...). Any other tokenizer is written as tokenizer.json and tokenizer_config.json; a whole one out of a .tiktoken file
// is kept as qwen.tiktoken too, which the authors' code reads. Of the source travel exact names of bounded size,
// regular files or links that stay inside the folder or its hub cache, with their mode; code only when it is asked for,
// because whoever loads a model with trust_remote_code runs it.
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
    unsigned mode; // permissions of the file it was; 0: what the umask leaves
} TravelFile;

enum { TRAVEL_MAX = 80 };

typedef struct Travel {
    TravelFile files[TRAVEL_MAX];
    int n;
    char *auto_map; // JSON of the source's config.json that names its code; NULL: none
    char *notes;    // one line: what travels, and what was left out and why
} Travel;

// tokenizer: as it is used, read from tokenizer_path; NULL: none. source: the folder the model came from; NULL: none.
// code: *.py and auto_map travel as well.
int travel_open(Travel *t, const Tokenizer *tokenizer, const char *tokenizer_path, const char *source, int code,
                Error *err);
// Writes the files into a folder that has its config.json already. t NULL: nothing.
int travel_write(const Travel *t, const char *folder, Error *err);
void travel_close(Travel *t);

#ifdef __cplusplus
}
#endif
#endif
