// shard.h: the token shard (.bin), little-endian: a header of 1,024 bytes (magic, version, counts, vocabulary size,
// tokenizer fingerprint, section offsets, CRC-32 of each section and of the header), the page index, the tokens (u32).
// The reader maps the file and checks everything: magic, version, sizes, monotone index, ids < vocabulary, and CRCs,
// once (the result is remembered beside the file by size and mtime, if that can be written).
//
// Shards made by one run of `c3 tokenize` record which set they belong to, and which of how many they are, so that a
// reader of several can tell half a set, or halves of two, from a whole one (loader.h).
#ifndef LLMC_SHARD_H
#define LLMC_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ShardPage {
    const uint32_t *context; // (context_length) tokens that the encoder reads
    const uint32_t *answer;  // (answer_length) tokens that the decoder writes; == context for the paper's task
    uint32_t context_length, answer_length;
    const uint32_t *prompt; // (prompt_length) what is asked between latents and answer; length 0: to repeat the text
    uint32_t prompt_length;
    uint32_t latents; // of each window that the decoder sees, the first of the model's N; 0: all
} ShardPage;

typedef struct ShardSet {
    uint64_t id;           // a hash of all shards of the set: the same pages and tokens make the same set
    uint32_t index, count; // count 0: not recorded (a single shard, or one of an older program)
} ShardSet;

typedef struct Shard {
    FileMap map;
    char *path;
    uint64_t pages, tokens;  // counts
    uint32_t vocab;          // ids are below this
    uint8_t fingerprint[32]; // of the tokenizer
    uint32_t crc;            // of header, but for `set`, and sections: the dataset's identity
    int has_prompts;         // the format in which pages can have prompts
    ShardSet set;
    int trusted;                // 1: the checksums were not computed, an earlier check is remembered
    const void *index;          // see shard.c
    const uint32_t *token_data; // (tokens)
} Shard;

int shard_open(Shard *s, const char *path, Error *err);
// Computes the checksums that shard_open may have trusted; if one is wrong, the earlier check is forgotten.
int shard_verify(Shard *s, Error *err);
void shard_close(Shard *s);
// The vocabulary size of a shard, from its header alone.
int shard_vocabulary(uint32_t *vocab, const char *path, Error *err);
ShardPage shard_page(const Shard *s, uint64_t page);

typedef struct ShardWriter ShardWriter;
int shard_writer_open(ShardWriter **out, const char *path, uint32_t vocab, const uint8_t fingerprint[32], Error *err);
// Ids below 2^31. answer == context: stored once. A page without context or answer is an error.
int shard_writer_add_page(ShardWriter *w, const ShardPage *page, Error *err);
// A page without a prompt; answer = NULL: the answer is the context.
int shard_writer_add(ShardWriter *w, const int32_t *context, size_t n_context, const int32_t *answer, size_t n_answer,
                     Error *err);
uint64_t shard_writer_tokens(const ShardWriter *w);  // so far; a shard holds at most 2^31
int shard_writer_commit(ShardWriter *w, Error *err); // closes and frees w in any case
void shard_writer_discard(ShardWriter *w);
// Makes n finished shards that nobody reads yet the set of paths[0..n-1].
int shard_make_set(char *const *paths, int n, Error *err);

#ifdef __cplusplus
}
#endif
#endif
