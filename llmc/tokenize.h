// tokenize.h: pages of text files to token shards: the engine of `c3 tokenize`.
#ifndef LLMC_TOKENIZE_H
#define LLMC_TOKENIZE_H

#include <stdint.h>

#include "error.h"
#include "model.h" // Untrained

typedef struct TokenizeOptions {
    const char *tokenizer;     // path
    int vocab;                 // K: keep the ranks 0..K-1; 0: all (tokenizer.h)
    const char *prefix;        // shards are PREFIX_00000.bin, PREFIX_00001.bin, ...; missing folders are made
    const char *const *inputs; // (n_inputs) files as pages.h reads them
    int n_inputs;
    uint64_t shard_tokens; // a new shard begins before this many would be exceeded; 0: 2^27
    const C3Config *model; // whose training lengths the pages are compared with; NULL: none
    int skip_empty;        // 1: pages without tokens are left out; 0: such a page is an error
} TokenizeOptions;

typedef struct TokenizeResult {
    uint64_t pages, tokens; // tokens stored: a page's answer counts only where it differs from the context
    uint64_t bytes;         // of the texts behind these tokens
    uint64_t empty;         // pages left out
    int files;              // shards written
    int removed;            // later shards of the same prefix, left by an earlier and longer run
    double bytes_per_token;
    Untrained untrained; // pages of lengths that o->model was not trained on
} TokenizeResult;

// All or nothing: on an error the shards written so far are removed again, so that no glob finds half a corpus.
int tokenize_files(const TokenizeOptions *o, TokenizeResult *r, Error *err);

#endif
