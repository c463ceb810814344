// sha256.c: see sha256.h.
#include "llmc/base/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

static void must(int good) {
    if (good) return;
    fprintf(stderr, "SHA-256: out of memory\n");
    abort();
}

void sha256_init(Sha256 *s) {
    s->state = EVP_MD_CTX_new();
    must(s->state != NULL && EVP_DigestInit_ex(s->state, EVP_sha256(), NULL));
}

void sha256_update(Sha256 *s, const void *data, size_t n) { must(EVP_DigestUpdate(s->state, data, n)); }

void sha256_final(Sha256 *s, uint8_t digest[32]) {
    must(EVP_DigestFinal_ex(s->state, digest, NULL));
    EVP_MD_CTX_free(s->state);
    s->state = NULL;
}

void sha256_final_hex(Sha256 *s, char hex[65]) {
    uint8_t digest[32];
    sha256_final(s, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}
