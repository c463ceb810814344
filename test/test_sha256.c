// test_sha256.c: the digests of FIPS 180-4's examples, and that the processor's instructions and the portable code
// agree on every length around a block, however the bytes are cut.
#include <stdlib.h>

#include "llmc/sha256.h"
#include "test/check.h"

static void digest(char hex[65], const void *data, size_t n, size_t piece, int plain) {
    Sha256 s;
    uint8_t bytes[32];
    sha256_init(&s);
    if (plain) s.plain = 1;
    for (size_t at = 0; at < n; at += piece)
        sha256_update(&s, (const uint8_t *)data + at, n - at < piece ? n - at : piece);
    sha256_final(&s, bytes);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static void test_examples(void) {
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char *million = malloc(1000000), hex[65];
    memset(million, 'a', 1000000);
    const struct {
        const char *data, *expected;
        size_t n;
    } examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3},
        {two, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", sizeof two - 1},
        {million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", 1000000},
    };
    for (int plain = 0; plain < 2; plain++) {
        check_begin(plain ? "the standard's examples, portable code" : "the standard's examples");
        for (int i = 0; i < 4; i++) {
            digest(hex, examples[i].data, examples[i].n, 1 << 20, plain);
            CHECK(strcmp(hex, examples[i].expected) == 0, "example %d: %s", i, hex);
        }
    }
    free(million);
}

static void test_cuts(void) {
    check_begin("every length to 200 bytes, cut in every way: both codes, one digest");
    uint8_t data[200];
    char hex[65], first[65], before[65] = "";
    for (int i = 0; i < 200; i++) data[i] = (uint8_t)(i * 37 + i / 7);
    for (size_t n = 0; n <= 200; n++) {
        digest(first, data, n, 200, 1);
        CHECK(strcmp(first, before) != 0, "%zu bytes have the digest of one fewer", n);
        memcpy(before, first, sizeof before);
        for (size_t piece = 1; piece <= 130; piece++) {
            for (int plain = 0; plain < 2; plain++) {
                digest(hex, data, n, piece, plain);
                CHECK(strcmp(hex, first) == 0, "%zu bytes in pieces of %zu, portable %d: %s", n, piece, plain, hex);
            }
        }
    }
}

int main(void) {
    Sha256 s;
    sha256_init(&s);
    printf("%s\n", s.plain ? "portable code only" : "with the processor's instructions");
    test_examples();
    test_cuts();
    return check_done();
}
