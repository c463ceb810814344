// bpe.h: byte-pair merging by rank, with one hash table from bytes to rank.
#ifndef LLMC_BPE_H
#define LLMC_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/text/vocabulary.h"

typedef struct Bpe Bpe;

// The vocabulary must outlive the table. Two ranks with the same bytes are an error; name: the file, for messages.
int bpe_create(Bpe **out, const Vocabulary *v, const char *name, Error *err);
void bpe_free(Bpe *b);

// Writes the ids of a piece of 1 <= n < 2^32 - 1 bytes into ids, which has room for n, and returns their number.
// readable: bytes that may be read from p on, at least n. Thread-safe.
size_t bpe_encode(const Bpe *b, int32_t *ids, const uint8_t *p, size_t n, size_t readable);

// The two tokens whose merge makes the token `rank`: its line in a list of merges. -1 if merging its bytes does not
// come to two tokens: no list of merges makes such a vocabulary.
int bpe_parts(const Bpe *b, int rank, int32_t parts[2]);

#endif
