// decode_ids.c: the generator alone, for tests and benchmarks against other implementations.
//   decode_ids MODEL DTYPE THREADS TOGETHER MAX_NEW NO_REPEAT_NGRAM      stdin: a page a line, its token ids
// stdout: for each page a line "end" or "cut" and the ids that were written; then
//   rate TOKENS SECONDS         without each page's first token, from when the last page had its first to the end
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llmc/infer/generate.h"
#include "llmc/infer/model.h"

enum { MOST_PAGES = 4096 };

typedef struct Clock { // of the rate
    int pages, begun, tokens;
    char has_begun[MOST_PAGES];
    double start;
} Clock;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void tick(void *arg, int page, int32_t id) {
    Clock *c = arg;
    (void)id;
    if (c->begun == c->pages) c->tokens++;
    if (c->has_begun[page]) return;
    c->has_begun[page] = 1;
    if (++c->begun == c->pages) c->start = now();
}

static int read_pages(GeneratePage *pages, int *longest) {
    char *line = NULL;
    size_t room = 0;
    int n = 0;
    *longest = 1;
    while (n < MOST_PAGES && getline(&line, &room, stdin) > 0) {
        int32_t *ids = malloc(strlen(line) * sizeof *ids + sizeof *ids);
        int count = 0;
        char *end = line;
        for (char *at = line; ids; at = end) {
            long id = strtol(at, &end, 10);
            if (end == at) break;
            ids[count++] = (int32_t)id;
        }
        pages[n++] = (GeneratePage){.context = ids, .n_context = count};
        if (count > *longest) *longest = count;
    }
    free(line);
    return n;
}

static int decode(char **argv, GeneratePage *pages, int n, int longest, Clock *clock, Error *err) {
    Model m;
    Generator *g = NULL;
    C3Limits limits = generator_model_limits();
    GeneratorLimits l = {.pages = n, .together = atoi(argv[4]), .context = longest, .max_new = atoi(argv[5])};
    const ModelPlace place = {.folder = argv[1], .device = "cpu", .dtype = argv[2], .threads = atoi(argv[3])};
    int bad = model_open(&m, &place, err) != 0 || model_load(&m, &place, &limits, err) != 0 ||
              generator_create(&g, &m.c3, &m.t, &l, err) != 0;
    if (!bad) {
        generator_listen(g, tick, clock);
        bad = generate_pages(g, pages, n, atoi(argv[6]), NULL, NULL, err);
        clock->start = now() - clock->start;
    }
    generator_free(g);
    model_close(&m);
    return bad;
}

int main(int argc, char **argv) {
    backend_cpu_prepare(argv);
    static GeneratePage pages[MOST_PAGES];
    static Clock clock;
    Error err;
    int longest, n = argc == 7 ? read_pages(pages, &longest) : 0;
    if (n == 0) {
        fprintf(stderr, "usage: decode_ids MODEL DTYPE THREADS TOGETHER MAX_NEW NO_REPEAT_NGRAM < PAGES\n");
        return 2;
    }
    clock.pages = n;
    if (decode(argv, pages, n, longest, &clock, &err) != 0) {
        fprintf(stderr, "decode_ids: %s\n", err.text);
        return 1;
    }
    for (int p = 0; p < n; p++) {
        printf(pages[p].ended ? "end" : "cut");
        for (int i = 0; i < pages[p].n; i++) printf(" %d", pages[p].ids[i]);
        printf("\n");
        free((void *)(uintptr_t)pages[p].context);
    }
    printf("rate %d %.6f\n", clock.tokens - 1, clock.start);
    generate_free(pages, n);
    return 0;
}
