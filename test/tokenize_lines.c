// tokenize_lines.c: the tokenizer as a filter, for tests and benchmarks against other implementations.
//   tokenize_lines FILE [VOCAB]     stdin: texts, each a u32 length and the bytes; stdout: for each a u32 count and u32
//   ids tokenize_lines -time N FILE     encodes all texts N times and prints tokens and CPU seconds of the quickest
//   round
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llmc/base/alloc.h"
#include "llmc/text/tokenizer.h"

static int fail(const Error *err) {
    fprintf(stderr, "tokenize_lines: %s\n", err->text);
    return 1;
}

// The next text of data[*at ..]; 0 at the end.
static int next_text(const char **text, uint32_t *n, const char *data, size_t size, size_t *at) {
    if (size - *at < 4) return 0;
    memcpy(n, data + *at, 4);
    if (*n > size - *at - 4) return 0;
    *text = data + *at + 4;
    *at += 4 + (size_t)*n;
    return 1;
}

static int encode_all(const Tokenizer *t, const char *data, size_t size, int print, uint64_t *tokens, Error *err) {
    Tokens ids = {0};
    const char *text;
    uint32_t n;
    *tokens = 0;
    for (size_t at = 0; next_text(&text, &n, data, size, &at);) {
        ids.n = 0;
        TRY(tokenizer_encode(t, &ids, text, n, err));
        *tokens += ids.n;
        if (!print) continue;
        uint32_t count = (uint32_t)ids.n;
        fwrite(&count, 4, 1, stdout);
        fwrite(ids.ids, 4, ids.n, stdout);
    }
    tokens_free(&ids);
    return 0;
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *read_stdin(size_t *size) {
    char *data = NULL;
    size_t room = 0;
    *size = 0;
    do {
        if (room - *size < 1 << 16) data = alloc_resize(data, room = 2 * room + (1 << 17), 1, "standard input");
        *size += fread(data + *size, 1, room - *size, stdin);
    } while (!feof(stdin) && !ferror(stdin));
    return data;
}

int main(int argc, char **argv) {
    Error err;
    Tokenizer *t;
    size_t size;
    uint64_t tokens = 0;
    int timing = argc > 3 && !strcmp(argv[1], "-time"), rounds = timing ? atoi(argv[2]) : 1;
    if (timing) argv += 2, argc -= 2;
    if (argc < 2) return fputs("usage: tokenize_lines [-time N] FILE [VOCAB]\n", stderr), 2;
    if (tokenizer_load(&t, argv[1], argc > 2 ? atoi(argv[2]) : 0, &err)) return fail(&err);
    char *data = read_stdin(&size);
    double best = 1e30;
    for (int i = 0; i < rounds; i++) {
        double start = cpu_seconds();
        if (encode_all(t, data, size, !timing, &tokens, &err)) return fail(&err);
        double seconds = cpu_seconds() - start;
        if (seconds < best) best = seconds;
    }
    if (timing) printf("%llu %.6f\n", (unsigned long long)tokens, best);
    free(data);
    tokenizer_free(t);
    return 0;
}
