// fuzz_tokenizer.c: libFuzzer target of the reader of qwen.tiktoken and tokenizer.json, and of merging with whatever
// vocabulary it lets through.
#include <stdlib.h>
#include <string.h>

#include "llmc/text/bpe.h"
#include "llmc/text/vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RANKS = 263, TEXT = 600 }; // ranks of the seeds

// Every text must come back from its ids, whatever the merges are.
static void merge(const Bpe *b, const Vocabulary *v, const uint8_t *text, size_t n) {
    static int32_t ids[TEXT];
    int64_t count = bpe_encode(b, ids, text, n, n);
    if (count < 1 || (size_t)count > n) abort();
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t length;
        if (ids[i] < 0 || ids[i] >= v->ranks) abort();
        const uint8_t *p = vocabulary_rank(v, ids[i], &length);
        if (length > n - at || memcmp(text + at, p, length) != 0) abort();
        at += length;
    }
    if (at != n) abort();
}

static void read_file(const char *data, size_t size, int cut) {
    Vocabulary v;
    Bpe *b;
    Error err;
    if (vocabulary_parse(&v, data, size, RANKS, cut, "file", &err) != 0) {
        if (strncmp(err.text, "file: ", 6) != 0) abort(); // every refusal names the file
        return;
    }
    if (v.ranks != (cut ? cut : RANKS)) abort();
    if (bpe_create(&b, &v, "file", &err) == 0) {
        const size_t lengths[] = {1, 2, 7, 9, 100, TEXT}; // of a short piece, and of a long one
        for (int i = 0; i < 6; i++)
            if (lengths[i] <= size) merge(b, &v, (const uint8_t *)data + size - lengths[i], lengths[i]);
        bpe_free(b);
    }
    vocabulary_free(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_file((const char *)data, size, 0);
    read_file((const char *)data, size, 257);
    return 0;
}
