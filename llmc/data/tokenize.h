// tokenize.h: turns pages of text files into token shards: the engine of `c3 tokenize`.
#ifndef LLMC_TOKENIZE_H
#define LLMC_TOKENIZE_H

#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/data/left_out.h"

// The trainer's default -maxlen, and the text tokens it leaves beside the paper's instruction and 32 latents.
enum { TOKENIZE_MAXLEN = 8192, TOKENIZE_LONGEST = TOKENIZE_MAXLEN - 65 };

typedef struct TokenizeOptions {
    const char *tokenizer;     // path
    int vocab;                 // K: keep the ranks 0..K-1; 0: all (tokenizer.h)
    const char *prefix;        // shards are PREFIX_00000.bin, PREFIX_00001.bin, ...; missing folders are created
    const char *const *inputs; // (n_inputs) files as pages.h reads them
    int n_inputs;
    uint64_t shard_tokens;     // a new shard begins before this number is exceeded; 0: 2^27
    const int *trained_tokens; // (2) of the model they are for (C3Config), to compare lengths with; NULL
} TokenizeOptions;

typedef struct TokenizeResult {
    uint64_t pages, tokens; // tokens stored: a page's answer counts only where it differs from the context
    uint64_t bytes;         // of the text of these tokens
    uint64_t prompts;       // pages with a prompt of their own
    uint64_t without_text;  // pages left out
    LeftOut
        too_long; // pages longer than TOKENIZE_LONGEST, in tokens of prompt and answer: stored, but skipped by a run
    uint64_t longest;       // the same of the longest page,
    char longest_page[512]; // and its place
    int files;              // shards written
    int removed;            // later shards of the same prefix, left by an earlier, longer run
    int unlocked;           // 1: the file system has no locks, another c3 tokenize could write the same shards
    double bytes_per_token;
    Untrained untrained; // pages of lengths that the model was not trained on
} TokenizeResult;

// All or nothing: the shards are made in a folder PREFIX.new and replace the old ones when all are complete, so that an
// error, or the end of the process before that, leaves an old set as it was (PREFIX.new is removed then, or by the next
// run). The renames are not atomic together: a reader, or a kill, in between sees shards of two sets, which
// dataset_open refuses. A lock on PREFIX.lock keeps a second run away.
int tokenize_files(const TokenizeOptions *o, TokenizeResult *r, Error *err);

#endif
