// vocabulary.h: the table rank -> bytes of a byte-level BPE, read from qwen.tiktoken or a Hugging Face tokenizer.json.
#ifndef LLMC_VOCABULARY_H
#define LLMC_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

enum { VOCABULARY_MAX_BYTES = 1 << 26 }; // of a file; Qwen's have 2.5 MB, or 7 to 12 MB as JSON

typedef struct Vocabulary {
    int ranks;      // rank r is bytes[at[r]] .. bytes[at[r+1]]
    uint8_t *bytes; // (at[ranks])
    uint32_t *at;   // (ranks+1)
} Vocabulary;

// Parses the contents of a file; a first byte '{' means JSON. Every rank from 0 on must occur once, the 256 single
// bytes among the first 256 ranks. There must be `expected` ranks or, if a cut is asked for (cut > 0), exactly `cut`: a
// file that was cut before. The result keeps the first `cut` ranks (0: all). name: the file, for messages.
int vocabulary_parse(Vocabulary *v, const char *data, size_t size, int expected, int cut, const char *name, Error *err);
void vocabulary_free(Vocabulary *v);

// How tokenizer.json spells a byte: GPT-2's byte-level alphabet, code points below 0x144.
void vocabulary_alphabet(uint16_t spelled[256]);
// The expression that splits text into pieces before merging, as tokenizer.json spells it.
extern const char vocabulary_expression[];

static inline const uint8_t *vocabulary_rank(const Vocabulary *v, int rank, size_t *length) {
    *length = v->at[rank + 1] - v->at[rank];
    return v->bytes + v->at[rank];
}

#endif
