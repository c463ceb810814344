// vocabulary.h: the list rank -> bytes of a byte-level BPE, out of qwen.tiktoken or a Hugging Face tokenizer.json.
#ifndef LLMC_VOCABULARY_H
#define LLMC_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

enum { VOCABULARY_MAX_BYTES = 1 << 26 }; // of a file; Qwen's have 2.5 MB and 7 to 12 MB

typedef struct Vocabulary {
    int ranks;      // rank r is bytes[at[r]] .. bytes[at[r+1]]
    uint8_t *bytes; // (at[ranks])
    uint32_t *at;   // (ranks+1)
} Vocabulary;

// Reads the ranks of a file's contents, whose format is told by its first byte: '{' is JSON. Every rank from 0 on must
// be there once, the 256 single bytes among the first 256, and there must be `expected` of them or, where a cut is
// asked for (cut > 0), exactly `cut`: a file that was cut before. The result keeps the first `cut` (0: all). name: the
// file, for messages.
int vocabulary_parse(Vocabulary *v, const char *data, size_t size, int expected, int cut, const char *name, Error *err);
void vocabulary_free(Vocabulary *v);

// How tokenizer.json spells a byte: GPT-2's byte-level alphabet, code points below 0x144.
void vocabulary_alphabet(uint16_t spelled[256]);
// The expression that cuts text into pieces before they are merged, as tokenizer.json spells it.
extern const char vocabulary_expression[];

static inline const uint8_t *vocabulary_rank(const Vocabulary *v, int rank, size_t *length) {
    *length = v->at[rank + 1] - v->at[rank];
    return v->bytes + v->at[rank];
}

#endif
