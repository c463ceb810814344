// test_sha256.c: the digests of FIPS 180-4's examples, however the bytes are cut.
#include <stdlib.h>

#include "llmc/base/sha256.h"
#include "test/check.h"

static void digest(char hex[65], const void *data, size_t n, size_t piece) {
    Sha256 s;
    sha256_init(&s);
    for (size_t at = 0; at < n; at += piece)
        sha256_update(&s, (const uint8_t *)data + at, n - at < piece ? n - at : piece);
    sha256_final_hex(&s, hex);
}

int main(void) {
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static char million[1000000];
    memset(million, 'a', sizeof million);
    const struct {
        const char *data, *expected;
        size_t n;
    } examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3},
        {two, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", sizeof two - 1},
        {million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", sizeof million},
    };
    const size_t pieces[] = {1 << 20, 64, 7, 1};
    for (int p = 0; p < 4; p++) {
        check_begin(p == 0 ? "the standard's examples" : "the same, in pieces");
        for (int i = 0; i < 4; i++) {
            char hex[65];
            digest(hex, examples[i].data, examples[i].n, pieces[p]);
            CHECK(strcmp(hex, examples[i].expected) == 0, "example %d: %s", i, hex);
        }
    }
    return check_done();
}
