// dataset.c: the shards behind names and patterns as one numbered list of pages (declared in loader.h). The list
// depends on the names and contents of the files alone, never on the order in which a folder lists them.
#include "llmc/data/loader.h"

#include <glob.h>
#include <inttypes.h> // PRIu64
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

// ---- names ---------------------------------------------------------------------------------------------------------

typedef struct Name {
    char *path;
    int literal; // 1: named by itself, 0: found by a pattern
} Name;

typedef struct Names {
    Name *list; // (n)
    size_t n, room;
} Names;

static void names_free(Names *names) {
    for (size_t i = 0; i < names->n; i++) free(names->list[i].path);
    free(names->list);
    *names = (Names){0};
}

static void names_add(Names *names, const char *path, int literal) {
    names->list = alloc_grow(names->list, names->n, &names->room, sizeof *names->list, "names of shards");
    names->list[names->n++] = (Name){string_copy(path), literal};
}

static int ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

// Files that shard_open and tokenize_files leave beside shards, which broad patterns (`data/*`) match.
static int is_note(const char *name) {
    return ends_with(name, ".ok") || ends_with(name, ".lock") || ends_with(name, ".new");
}

// Escapes folders that exist under exactly this name; with `keep`, everything but * and ?.
static char *escape(const char *pattern, int keep) {
    char *out = alloc(2 * strlen(pattern) + 1, 1, "pattern"), *to = out, *folder = string_copy(pattern);
    for (const char *at = pattern; *at;) {
        size_t n = strcspn(at, "/");
        folder[at - pattern + (ptrdiff_t)n] = 0; // the path up to the end of this part
        const char *special = n && at[n] && file_exists(folder) ? "*?[]\\" : keep ? "[]\\" : "";
        folder[at - pattern + (ptrdiff_t)n] = pattern[at - pattern + (ptrdiff_t)n];
        n += at[n] == '/';
        for (; n > 0; n--, at++) {
            if (strchr(special, *at)) *to++ = '\\';
            *to++ = *at;
        }
    }
    *to = 0;
    free(folder);
    return out;
}

// 1 = found, 0 = nothing, -1 = error.
static int names_add_pattern(Names *names, const char *pattern, Error *err) {
    size_t before = names->n;
    for (int keep = 0; keep < 2 && names->n == before; keep++) {
        glob_t found = {0};
        char *escaped = escape(pattern, keep);
        int code = glob(escaped, GLOB_NOSORT, NULL, &found);
        for (size_t i = 0; code == 0 && i < found.gl_pathc; i++)
            if (!is_note(found.gl_pathv[i])) names_add(names, found.gl_pathv[i], 0);
        if (code == 0) globfree(&found);
        free(escaped);
        if (code == GLOB_NOSPACE) return error_set(err, "%s: out of memory", pattern);
    }
    return names->n > before;
}

// Takes the next entry off *list: the longest prefix that is an existing name, else the longest that as a pattern finds
// something. Names may contain commas.
static int names_add_next(Names *names, const char **list, Error *err) {
    for (int pattern = 0; pattern < 2; pattern++) {
        char *entry = string_copy(*list);
        for (size_t n = strlen(entry);; n = (size_t)(strrchr(entry, ',') - entry)) {
            entry[n] = 0;
            int got = pattern ? names_add_pattern(names, entry, err) : n > 0 && file_exists(entry);
            if (!pattern && got) names_add(names, entry, 1);
            if (got > 0) *list += n + ((*list)[n] == ',');
            if (got || !strchr(entry, ',')) {
                free(entry);
                if (got) return got < 0 ? -1 : 0;
                break;
            }
        }
    }
    return error_set(err, "%.*s: expected token shards, found no such file (hint: make them with c3 tokenize)",
                     (int)strcspn(*list, ","), *list);
}

static int by_name(const void *a, const void *b) { return strcmp(((const Name *)a)->path, ((const Name *)b)->path); }

// All files of the list, sorted, each once.
static int names_collect(Names *names, const char *list, Error *err) {
    *names = (Names){0};
    do {
        if (names_add_next(names, &list, err) != 0) {
            names_free(names);
            return -1;
        }
    } while (*list);
    qsort(names->list, names->n, sizeof *names->list, by_name);
    size_t kept = 1;
    for (size_t i = 1; i < names->n; i++) {
        Name *last = &names->list[kept - 1], *name = &names->list[i];
        if (strcmp(name->path, last->path) != 0) {
            names->list[kept++] = *name;
            continue;
        }
        last->literal &= name->literal;
        free(name->path);
    }
    names->n = kept;
    return 0;
}

// ---- shards --------------------------------------------------------------------------------------------------------

static int open_shards(Dataset *d, const Names *names, Error *err) {
    d->shards = alloc_zeroed(names->n, sizeof *d->shards, "shards");
    for (size_t i = 0; i < names->n; i++) {
        Shard *s = &d->shards[i], *first = &d->shards[0];
        TRY(shard_open(s, names->list[i].path, err));
        d->n_shards++;
        d->trusted += s->trusted;
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

// ---- sets ----------------------------------------------------------------------------------------------------------

// The length of PREFIX in PREFIX_00000.bin; 0: another kind of name.
static size_t prefix_length(const char *path) {
    size_t n = strlen(path), digits = 0;
    if (!ends_with(path, ".bin")) return 0;
    for (n -= 4; digits < n && path[n - digits - 1] >= '0' && path[n - digits - 1] <= '9';) digits++;
    return digits >= 5 && n > digits && path[n - digits - 1] == '_' ? n - digits - 1 : 0;
}

// Shards of one prefix, which are adjacent, must belong to one set (or all to none).
static int check_neighbours(const Dataset *d, Error *err) {
    for (int i = 1; i < d->n_shards; i++) {
        const Shard *a = &d->shards[i - 1], *b = &d->shards[i];
        size_t n = prefix_length(a->path);
        if (n == 0 || n != prefix_length(b->path) || strncmp(a->path, b->path, n) != 0) continue;
        if (a->set.id == b->set.id && a->set.count == b->set.count) continue;
        return error_set(err,
                         "%s: not of the same run of c3 tokenize as %s: expected one whole set, found parts of two "
                         "(hint: one is being written, or was not finished: wait, or run c3 tokenize again)",
                         b->path, a->path);
    }
    return 0;
}

typedef struct Member {
    ShardSet set;
    int literal;
    const char *path;
} Member;

static int by_set(const void *a, const void *b) {
    const ShardSet *x = &((const Member *)a)->set, *y = &((const Member *)b)->set;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

// Every set must be complete, unless its files were named one by one.
static int check_whole(Dataset *d, const Names *names, Error *err) {
    Member *m = alloc((size_t)d->n_shards, sizeof *m, "shards");
    for (int i = 0; i < d->n_shards; i++) m[i] = (Member){d->shards[i].set, names->list[i].literal, d->shards[i].path};
    qsort(m, (size_t)d->n_shards, sizeof *m, by_set);
    int bad = 0;
    for (int i = 0, end; i < d->n_shards && !bad; i = end) {
        uint32_t found = 0;
        const char *pattern = NULL; // a shard that a pattern found
        for (end = i; end < d->n_shards && m[end].set.id == m[i].set.id; end++) {
            found += end == i || m[end].set.index != m[end - 1].set.index;
            if (!m[end].literal) pattern = m[end].path;
        }
        if (m[i].set.count == 0 || found == m[i].set.count) continue;
        if (pattern)
            bad = error_set(err,
                            "%s: one of %" PRIu32 " shards that belong together: expected all, found %" PRIu32
                            " (hint: run c3 tokenize again, or name the files one by one to take a part)",
                            pattern, m[i].set.count, found);
        else d->unnamed += (int)(m[i].set.count - found);
    }
    free(m);
    return bad;
}

// ---- pages ---------------------------------------------------------------------------------------------------------

static int list_pages(Dataset *d, const char *globs, const PageLimit *limit, Error *err) {
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
            d->too_long.all_pages++;
            d->too_long.all_tokens += page.answer_length;
            if (limit && limit->tokens(limit->arg, &page) > limit->most) {
                d->too_long.pages++;
                d->too_long.tokens += page.answer_length;
                continue;
            }
            d->page_shard[d->pages] = (uint32_t)i;
            d->page_index[d->pages++] = p;
            d->tokens += page.answer_length;
            if (d->pages == 1 || page.context_length < d->shortest_context) d->shortest_context = page.context_length;
            if (page.context_length > d->longest_context) d->longest_context = page.context_length;
            if (page.answer_length > d->longest_answer) d->longest_answer = page.answer_length;
            if (!page.prompt_length) continue;
            d->asked++;
            uint64_t asked = (uint64_t)page.prompt_length + page.answer_length; // a shard has no more
            if (asked > d->longest_asked) d->longest_asked = (uint32_t)asked;
        }
    }
    if (d->pages == 0)
        return error_set(err,
                         "%s: expected pages of at most %" PRIu64 " tokens with the %" PRIu64
                         " around the text, found all %" PRIu64 " longer (hint: raise -maxlen)",
                         globs, limit->most, limit->tokens(limit->arg, &(ShardPage){0}), all);
    return 0;
}

static uint32_t identity(const Dataset *d) {
    uint32_t crc = 0;
    for (int i = 0; i < d->n_shards; i++) {
        uint64_t facts[3] = {d->shards[i].crc, d->shards[i].pages, d->shards[i].tokens};
        crc = file_crc32(crc, facts, sizeof facts);
    }
    return file_crc32(crc, &d->pages, sizeof d->pages); // with another limit the pages are numbered differently
}

int dataset_open(Dataset *d, const char *globs, const PageLimit *limit, Error *err) {
    *d = (Dataset){0};
    Names names;
    TRY(names_collect(&names, globs, err));
    int bad = open_shards(d, &names, err);
    if (!bad) bad = check_neighbours(d, err);
    if (!bad) bad = check_whole(d, &names, err);
    names_free(&names);
    if (!bad) bad = list_pages(d, globs, limit, err);
    if (bad) {
        dataset_close(d);
        return -1;
    }
    d->identity = identity(d);
    d->sets[d->n_sets++] = (PageSet){.pages = d->pages, .tokens = d->tokens};
    return 0;
}

int dataset_finds(const char *globs) {
    Names names;
    int found = names_collect(&names, globs, NULL) == 0;
    names_free(&names);
    return found;
}

// ---- several sets --------------------------------------------------------------------------------------------------

static void add_counts(Dataset *d, const Dataset *more) {
    d->trusted += more->trusted;
    d->unnamed += more->unnamed;
    d->tokens += more->tokens;
    d->too_long.pages += more->too_long.pages;
    d->too_long.tokens += more->too_long.tokens;
    d->too_long.all_pages += more->too_long.all_pages;
    d->too_long.all_tokens += more->too_long.all_tokens;
    if (more->longest_context > d->longest_context) d->longest_context = more->longest_context;
    d->asked += more->asked;
    if (more->longest_asked > d->longest_asked) d->longest_asked = more->longest_asked;
    if (more->longest_answer > d->longest_answer) d->longest_answer = more->longest_answer;
    if (more->shortest_context < d->shortest_context) d->shortest_context = more->shortest_context;
}

// Where a page lies in the run's order depends on the names' order and on whether there are weights, not on their
// values: a resumed run may change these.
static void add_identity(Dataset *d, const Dataset *more) {
    int weighted = more->sets[0].weight > 0;
    if (d->n_sets == 1) d->identity = file_crc32(d->identity, d->sets[0].name, strlen(d->sets[0].name));
    d->identity = file_crc32(d->identity, &more->identity, sizeof more->identity);
    d->identity = file_crc32(d->identity, more->sets[0].name, strlen(more->sets[0].name));
    d->identity = file_crc32(d->identity, &weighted, sizeof weighted);
}

int dataset_append(Dataset *d, Dataset *more, Error *err) {
    uint64_t all = d->pages + more->pages;
    if (all > UINT32_MAX || d->n_sets == DATA_MAX_SETS)
        return error_set(err, "%s: expected at most %d sets of %" PRIu32 " pages in all, found more",
                         more->shards[0].path, DATA_MAX_SETS, UINT32_MAX);
    add_identity(d, more);
    d->shards = alloc_resize(d->shards, (size_t)d->n_shards + (size_t)more->n_shards, sizeof *d->shards, "shards");
    d->page_shard = alloc_resize(d->page_shard, all, sizeof *d->page_shard, "the list of pages");
    d->page_index = alloc_resize(d->page_index, all, sizeof *d->page_index, "the list of pages");
    memcpy(d->shards + d->n_shards, more->shards, (size_t)more->n_shards * sizeof *d->shards);
    memcpy(d->page_index + d->pages, more->page_index, more->pages * sizeof *d->page_index);
    for (uint64_t p = 0; p < more->pages; p++)
        d->page_shard[d->pages + p] = more->page_shard[p] + (uint32_t)d->n_shards;
    d->sets[d->n_sets] = more->sets[0];
    d->sets[d->n_sets++].first = d->pages;
    add_counts(d, more);
    d->n_shards += more->n_shards;
    d->pages = all;
    more->n_shards = 0; // they have moved
    dataset_close(more);
    return 0;
}

int dataset_set(const Dataset *d, uint64_t page) {
    int set = d->n_sets - 1;
    while (page < d->sets[set].first) set--;
    return set;
}

int dataset_vocabulary(uint32_t *vocab, const char *globs, Error *err) {
    Names names;
    TRY(names_collect(&names, globs, err));
    int bad = shard_vocabulary(vocab, names.list[0].path, err);
    names_free(&names);
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
