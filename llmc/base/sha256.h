// sha256.h: SHA-256 for fingerprints of models, vocabularies and texts. OpenSSL's, which uses the processor's own
// instructions: a model of 9 GB is hashed in seconds. Out of memory (a few hundred bytes of state) ends the program.
#ifndef LLMC_SHA256_H
#define LLMC_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct Sha256 {
    void *state; // owned; freed by sha256_final
} Sha256;

void sha256_init(Sha256 *s);
void sha256_update(Sha256 *s, const void *data, size_t n);
void sha256_final(Sha256 *s, uint8_t digest[32]);
// The digest as 64 hexadecimal digits and a zero byte.
void sha256_final_hex(Sha256 *s, char hex[65]);

#endif
