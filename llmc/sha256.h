// sha256.h: SHA-256 (FIPS 180-4), for fingerprints of models and vocabularies. With the processor's own instructions
// where it has them: a model of 9 GB is named in seconds.
#ifndef LLMC_SHA256_H
#define LLMC_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct Sha256 {
    uint32_t state[8];
    uint64_t bytes;    // given so far
    uint8_t block[64]; // those that fill no block yet
    int plain;         // portable code only; set by sha256_init where the processor has no instructions for it
} Sha256;

void sha256_init(Sha256 *s);
void sha256_update(Sha256 *s, const void *data, size_t n);
void sha256_final(Sha256 *s, uint8_t digest[32]);

#endif
