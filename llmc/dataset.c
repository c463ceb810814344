// dataset.c: the shards behind a glob as one numbered list of pages (declared in loader.h). The list depends on the
// names and contents of the files alone, never on the order in which a folder lists them.
#include "loader.h"

#include <glob.h>
#include <inttypes.h> // PRIu64
#include <stdlib.h>
#include <string.h>

// ---- names ---------------------------------------------------------------------------------------------------------

typedef struct Names {
    char **list; // (n)
    size_t n;
} Names;

static void names_free(Names *names) {
    for (size_t i = 0; i < names->n; i++) free(names->list[i]);
    free(names->list);
    *names = (Names){0};
}

// The notes that shard_open leaves beside shards match careless globs (`data/*`).
static int is_note(const char *name) {
    size_t n = strlen(name);
    return n > 3 && strcmp(name + n - 3, ".ok") == 0;
}

static int names_add_glob(Names *names, const char *pattern, Error *err) {
    glob_t found;
    int code = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (code == GLOB_NOSPACE) return error_set(err, "%s: out of memory", pattern);
    size_t room = names->n + (code == 0 ? found.gl_pathc : 0), before = names->n;
    char **bigger = realloc(names->list, (room + 1) * sizeof *bigger);
    int bad = bigger ? 0 : error_set(err, "%s: out of memory", pattern);
    if (bigger) names->list = bigger;
    for (size_t i = 0; !bad && code == 0 && i < found.gl_pathc; i++) {
        if (is_note(found.gl_pathv[i])) continue;
        char *copy = strdup(found.gl_pathv[i]);
        if (copy) names->list[names->n++] = copy;
        else bad = error_set(err, "%s: out of memory", pattern);
    }
    if (code == 0) globfree(&found);
    if (!bad && names->n == before)
        bad =
            error_set(err, "%s: expected token shards, found no such file (hint: make them with c3 tokenize)", pattern);
    return bad;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// All files of the comma-separated globs, sorted, each once.
static int names_collect(Names *names, const char *globs, Error *err) {
    *names = (Names){0};
    int bad = 0;
    for (const char *at = globs; !bad; at++) {
        size_t n = strcspn(at, ",");
        char *pattern = strndup(at, n);
        bad = pattern ? names_add_glob(names, pattern, err) : error_set(err, "%s: out of memory", globs);
        free(pattern);
        at += n;
        if (!*at) break;
    }
    if (bad) {
        names_free(names);
        return -1;
    }
    qsort(names->list, names->n, sizeof *names->list, by_name);
    size_t kept = 1;
    for (size_t i = 1; i < names->n; i++) {
        if (strcmp(names->list[i], names->list[kept - 1]) == 0) free(names->list[i]);
        else names->list[kept++] = names->list[i];
    }
    names->n = kept;
    return 0;
}

// ---- shards --------------------------------------------------------------------------------------------------------

static int open_shards(Dataset *d, const Names *names, Error *err) {
    d->shards = calloc(names->n, sizeof *d->shards);
    if (!d->shards) return error_set(err, "dataset: out of memory for %zu shards", names->n);
    for (size_t i = 0; i < names->n; i++) {
        Shard *s = &d->shards[i], *first = &d->shards[0];
        TRY(shard_open(s, names->list[i], err));
        d->n_shards++;
        if (s->vocab != first->vocab)
            return error_set(err,
                             "%s: expected the vocabulary of %s, %" PRIu32 " ids, found %" PRIu32
                             " (hint: tokenize all files with one tokenizer)",
                             s->path, first->path, first->vocab, s->vocab);
        if (memcmp(s->fingerprint, first->fingerprint, sizeof s->fingerprint) != 0)
            return error_set(
                err,
                "%s: expected the tokenizer of %s, fingerprint %02x%02x%02x%02x..., found %02x%02x%02x%02x... "
                "(hint: tokenize all files with one tokenizer)",
                s->path, first->path, first->fingerprint[0], first->fingerprint[1], first->fingerprint[2],
                first->fingerprint[3], s->fingerprint[0], s->fingerprint[1], s->fingerprint[2], s->fingerprint[3]);
    }
    d->vocab = d->shards[0].vocab;
    memcpy(d->fingerprint, d->shards[0].fingerprint, sizeof d->fingerprint);
    return 0;
}

static int list_pages(Dataset *d, const char *globs, uint32_t overhead, uint32_t maxlen, Error *err) {
    uint64_t all = 0;
    for (int i = 0; i < d->n_shards; i++) all += d->shards[i].pages; // each at most 2^31: no overflow
    if (all == 0) return error_set(err, "%s: expected at least one page, found none in %d files", globs, d->n_shards);
    if (all > UINT32_MAX)
        return error_set(err, "%s: expected at most %" PRIu32 " pages, found %" PRIu64, globs, UINT32_MAX, all);
    d->page_shard = malloc(all * sizeof *d->page_shard);
    d->page_index = malloc(all * sizeof *d->page_index);
    if (!d->page_shard || !d->page_index)
        return error_set(err, "%s: out of memory for a list of %" PRIu64 " pages", globs, all);
    for (int i = 0; i < d->n_shards; i++) {
        for (uint64_t p = 0; p < d->shards[i].pages; p++) {
            ShardPage page = shard_page(&d->shards[i], p);
            if (maxlen && (uint64_t)overhead + page.answer_length > maxlen) {
                d->skipped++;
                continue;
            }
            d->page_shard[d->pages] = (uint32_t)i;
            d->page_index[d->pages++] = p;
            d->tokens += page.answer_length;
            if (d->pages == 1 || page.context_length < d->shortest_context) d->shortest_context = page.context_length;
            if (page.context_length > d->longest_context) d->longest_context = page.context_length;
            if (page.answer_length > d->longest_answer) d->longest_answer = page.answer_length;
        }
    }
    if (d->pages == 0)
        return error_set(err,
                         "%s: expected pages of at most %" PRIu32 " tokens with the %" PRIu32
                         " around the text, found all %" PRIu64 " longer (hint: raise -maxlen)",
                         globs, maxlen, overhead, all);
    return 0;
}

static uint32_t identity(const Dataset *d) {
    uint32_t crc = 0;
    for (int i = 0; i < d->n_shards; i++) {
        uint64_t facts[3] = {d->shards[i].crc, d->shards[i].pages, d->shards[i].tokens};
        crc = file_crc32(crc, facts, sizeof facts);
    }
    return file_crc32(crc, &d->pages, sizeof d->pages); // another maxlen numbers the pages differently
}

int dataset_open(Dataset *d, const char *globs, uint32_t overhead, uint32_t maxlen, Error *err) {
    *d = (Dataset){0};
    Names names;
    TRY(names_collect(&names, globs, err));
    int bad = open_shards(d, &names, err);
    names_free(&names);
    if (!bad) bad = list_pages(d, globs, overhead, maxlen, err);
    if (bad) dataset_close(d);
    else d->identity = identity(d);
    return bad;
}

void dataset_close(Dataset *d) {
    for (int i = 0; i < d->n_shards; i++) shard_close(&d->shards[i]);
    free(d->shards);
    free(d->page_shard);
    free(d->page_index);
    *d = (Dataset){0};
}

ShardPage dataset_page(const Dataset *d, uint64_t page) {
    return shard_page(&d->shards[d->page_shard[page]], d->page_index[page]);
}

char *dataset_page_name(const Dataset *d, uint64_t page) {
    return string_format("%s page %" PRIu64, d->shards[d->page_shard[page]].path, d->page_index[page] + 1);
}
