// fuzz_encode.c: libFuzzer target of the encoder: any bytes as text. What is accepted must be valid UTF-8, its ids must
// decode to its NFC, and its NFC must be utf8proc's, which is computed another way.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // memfd_create

#include <utf8proc.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h" // string_format
#include "llmc/text/tokenizer.h"
#include "llmc/base/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// 256 bytes and all pairs of some: merges enough to have merges of merges.
static Tokenizer *make_tokenizer(void) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char *const more[] = {"YWE=",     "YWFh", "YWFhYQ==", "dGg=", "dGhl", "IHRoZQ==", "ICA=",
                                       "ICAgIA==", "Cgo=", "5Lg=",     "5Lit", "zIE=", "w6k=",     "ISE="};
    enum { MORE = sizeof more / sizeof *more };
    int fd = memfd_create("vocabulary", MFD_CLOEXEC);
    for (unsigned b = 0; b < 256; b++) dprintf(fd, "%c%c== %u\n", digits[b >> 2], digits[(b & 3) << 4], b);
    for (unsigned i = 0; i < MORE; i++) dprintf(fd, "%s %u\n", more[i], 256 + i);
    char *path = string_format("/proc/self/fd/%d", fd);
    Tokenizer *t;
    Error err;
    if (tokenizer_load(&t, path, 256 + MORE, &err) != 0) puts(err.text), abort();
    free(path);
    return t;
}

static void check_nfc(const char *normal, size_t n, const uint8_t *data, size_t size) {
    utf8proc_uint8_t *theirs;
    utf8proc_ssize_t length = utf8proc_map(data, (utf8proc_ssize_t)size, &theirs, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (length != (utf8proc_ssize_t)n || memcmp(theirs, normal, n) != 0) abort();
    free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Tokenizer *t;
    if (!t) t = make_tokenizer();
    const char *text = (const char *)data;
    Tokens ids = {0};
    Error err;
    char *normal = NULL, *back;
    size_t n = 0, length;
    int bad = tokenizer_encode(t, &ids, text, size, &err) != 0;
    if ((text_nfc(&normal, &n, text, size, &err) != 0) != bad || (utf8_valid(text, size) < size) != bad) abort();
    if (!bad) {
        check_nfc(normal, n, data, size);
        back = tokenizer_decode(t, ids.ids, ids.n, &length);
        if (length != n || memcmp(back, normal, n) != 0) abort();
        for (size_t i = 0; i < ids.n; i++)
            if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_base(t)) abort();
        free(back);
    }
    free(normal);
    tokens_free(&ids);
    return 0;
}
