// loader_rig.h: shards of known pages, and the loaders of all ranks side by side, for test_loader.c and test_sets.c.
#ifndef TEST_LOADER_RIG_H
#define TEST_LOADER_RIG_H

#include "test/check.h"

#include <stdlib.h>

#include "llmc/base/alloc.h"
#include "llmc/data/loader.h"

enum { VOCAB = 500 };
static char folder[] = "build/test_loader_XXXXXX";
static const uint8_t one_tokenizer[32] = {1}, other_tokenizer[32] = {2};

static uint64_t rng_state = 11;
static inline uint32_t rng(uint32_t below) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % below);
}

static inline char *in_folder(const char *name) { return string_format("%s/%s", folder, name); }

// A shard of n pages with the given lengths (a length below 0: an answer of -length tokens behind a context of 3).
static inline void make_shard(const char *name, const int *lengths, int n, uint32_t vocab, const uint8_t *tokenizer) {
    Error err = {""};
    ShardWriter *w;
    char *path = in_folder(name);
    int bad = shard_writer_open(&w, path, vocab, tokenizer, &err);
    for (int p = 0; p < n && !bad; p++) {
        int32_t ids[4000];
        for (int i = 0; i < abs(lengths[p]); i++) ids[i] = (p + i) % 100;
        bad = lengths[p] > 0 ? shard_writer_add(w, ids, (size_t)lengths[p], NULL, 0, &err)
                             : shard_writer_add(w, ids, 3, ids, (size_t)-lengths[p], &err);
    }
    if (bad || shard_writer_commit(w, &err)) printf("%s\n", err.text), exit(2);
    free(path);
}

// Pages of 1..40 tokens in shards PREFIX_0.bin, PREFIX_1.bin, ...; opened.
static inline Dataset make_dataset(const char *prefix, int shards, int pages) {
    for (int s = 0, left = pages; s < shards; s++) {
        int lengths[1000], n = s == shards - 1 ? left : left / 3;
        for (int p = 0; p < n; p++) lengths[p] = 1 + (int)rng(40);
        char *name = string_format("%s_%d.bin", prefix, s);
        make_shard(name, lengths, n, VOCAB, one_tokenizer);
        free(name);
        left -= n;
    }
    Dataset d;
    Error err = {""};
    char *glob = string_format("%s/%s_*.bin", folder, prefix);
    if (dataset_open(&d, glob, NULL, &err)) printf("%s\n", err.text), exit(2);
    free(glob);
    return d;
}

static inline LoaderState fresh(const Dataset *d, uint64_t seed) {
    return (LoaderState){.seed = seed, .dataset = d->identity};
}

static inline Loader *open_loader(const Dataset *d, LoaderConfig c, LoaderState start, uint64_t first_step) {
    Error err = {""};
    Loader *l;
    if (loader_open(&l, d, &c, start, first_step, &err)) printf("%s\n", err.text), exit(2);
    return l;
}

static inline int same_state(LoaderState a, LoaderState b) {
    return a.seed == b.seed && a.epoch == b.epoch && a.position == b.position && a.dataset == b.dataset &&
           memcmp(a.taken, b.taken, sizeof a.taken) == 0;
}

// One step of all ranks together. Every rank must say the same about the whole step.
typedef struct WholeStep {
    uint64_t pages[4096];
    int n;
    uint64_t supervised;
    uint64_t learned; // a sum over pages and what is learned from each
    LoaderState after;
} WholeStep;

// A LoaderConfig.learn that shows what was drawn.
static inline void learn_number(void *arg, ShardPage *page, int set, uint64_t draw) {
    (void)arg;
    page->latents = 1 + (uint32_t)set + (uint32_t)(draw % 1000003);
}

static inline void next_of_all(WholeStep *w, Loader **loaders, int b, int g, int ranks) {
    w->n = 0;
    w->learned = 0;
    for (int r = 0; r < ranks; r++) {
        const LoaderStep *s = loader_next(loaders[r]);
        CHECK(s->n == b * g && s->micro == g && s->total_pages == (uint64_t)(b * g * ranks), "%d pages", s->n);
        for (int m = 0; m <= g; m++) CHECK(s->micro_begin[m] == m * b, "border %d at %d", m, s->micro_begin[m]);
        if (r == 0) w->supervised = s->total_supervised, w->after = s->after;
        CHECK(s->total_supervised == w->supervised && same_state(s->after, w->after), "rank %d disagrees", r);
        memcpy(w->pages + w->n, s->pages, (size_t)s->n * sizeof *s->pages);
        w->n += s->n;
        for (int i = 0; i < s->n; i++) w->learned += (s->pages[i] * 2654435761u + 1) * s->text[i].latents;
    }
}

static inline int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

#endif
