// sets.c: see sets.h.
#include "llmc/data/sets.h"

#include <inttypes.h> // PRIu64
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

void sets_free(SetSpecs *s) {
    for (int i = 0; i < s->n; i++) free(s->list[i].globs);
    *s = (SetSpecs){0};
}

// Cuts :WEIGHT off the globs, where what follows the last colon is a number.
static int parse_weight(SetSpec *s, const char *option, Error *err) {
    char *colon = strrchr(s->globs, ':'), *end = colon;
    double weight = colon ? strtod(colon + 1, &end) : 0;
    if (!colon || end == colon + 1 || *end || dataset_finds(s->globs)) return 0;
    if (!(weight > 0) || weight > 1e9)
        return error_set(err, "-%s %s: expected a weight above 0 and up to 1e9, found %s", option, s->name, colon + 1);
    s->weight = weight;
    *colon = 0;
    return 0;
}

static int parse_one(SetSpec *s, const char *option, const char *value, int weighted, Error *err) {
    const char *equals = strchr(value, '=');
    size_t n = equals ? (size_t)(equals - value) : 0;
    *s = (SetSpec){.globs = string_copy(value)};
    if (!equals || memchr(value, '/', n) || dataset_finds(value)) return 0;
    if (n == 0 || n >= sizeof s->name || strspn(value, name_characters) != n)
        return error_set(err, "-%s %s: expected a name of 1 to %d letters, digits and _ . - before =, found \"%.*s\"",
                         option, value, DATA_NAME - 1, (int)n, value);
    memcpy(s->name, value, n);
    memmove(s->globs, equals + 1, strlen(equals));
    return weighted ? parse_weight(s, option, err) : 0;
}

static int check_sets(const SetSpecs *s, const char *option, Error *err) {
    for (int i = 0; i < s->n && s->n > 1; i++) {
        const SetSpec *x = &s->list[i], *before = i ? x - 1 : NULL;
        if (!x->name[0])
            return error_set(err, "-%s %s: one of several sets: expected a name (hint: -%s NAME=%s)", option, x->globs,
                             option, x->globs);
        if (before && !strcmp(x->name, before->name))
            return error_set(err, "-%s %s=%s: there is another set of that name, %s (hint: A,B joins them under one)",
                             option, x->name, x->globs, before->globs);
        if (before && !x->weight != !before->weight)
            return error_set(err, "-%s %s: has %s weight, %s has %s: expected one of every set, or of none", option,
                             x->name, x->weight ? "a" : "no", before->name, x->weight ? "none" : "one");
    }
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const SetSpec *)a)->name, ((const SetSpec *)b)->name);
}

int sets_parse(SetSpecs *out, const char *option, const OptionList *values, int weighted, Error *err) {
    *out = (SetSpecs){0};
    int bad = 0;
    for (int i = 0; i < values->n && !bad; i++) {
        SetSpec s;
        bad = parse_one(&s, option, values->values[i], weighted, err);
        if (!s.name[0] && out->n == 1 && !out->list[0].name[0]) sets_free(out);
        out->list[out->n++] = s;
    }
    qsort(out->list, (size_t)out->n, sizeof *out->list, by_name);
    if (!bad) bad = check_sets(out, option, err);
    if (bad) sets_free(out);
    return bad;
}

// ---- pages ---------------------------------------------------------------------------------------------------------

static int check_same(const Dataset *d, const Dataset *first, Error *err) {
    if (d->vocab == first->vocab && !memcmp(d->fingerprint, first->fingerprint, sizeof d->fingerprint)) return 0;
    return error_set(err,
                     "%s: made with another tokenizer or vocabulary than %s (%" PRIu32 " ids, %" PRIu32
                     " there) (hint: tokenize all files with one tokenizer)",
                     d->shards[0].path, first->shards[0].path, d->vocab, first->vocab);
}

static int add_set(Dataset *d, const SetSpec *spec, const PageLimit *limit, Error *err) {
    Dataset more;
    TRY(dataset_open(&more, spec->globs, limit, err));
    snprintf(more.sets[0].name, DATA_NAME, "%s", spec->name);
    more.sets[0].weight = spec->weight;
    if (d->n_sets == 0) *d = more;
    else if (check_same(&more, d, err) != 0 || dataset_append(d, &more, err) != 0) {
        dataset_close(&more);
        return -1;
    }
    return 0;
}

int sets_open(Dataset *d, const SetSpecs *s, const PageLimit *limit, Error *err) {
    *d = (Dataset){0};
    for (int i = 0; i < s->n; i++) {
        if (add_set(d, &s->list[i], limit, err) == 0) continue;
        dataset_close(d);
        return s->list[i].name[0] ? error_prefix(err, "%s", s->list[i].name) : -1;
    }
    return 0;
}
