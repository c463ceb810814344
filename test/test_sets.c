// test_sets.c: sets of pages with names and weights: how they are named, the order of their pages, resuming.
#include "test/loader_rig.h"

#include <math.h>
#include <unistd.h>

#include "llmc/data/sets.h"

// Values of -data, % for the folder, separated by spaces; 0 or -1.
static int parse_sets(SetSpecs *s, const char *values, int weighted, Error *err) {
    static char words[2048]; // the values point into it
    OptionList list = {.n = 0};
    size_t at = 0;
    for (const char *c = values; *c; c++)
        at += (size_t)snprintf(words + at, sizeof words - at, *c == '%' ? "%s" : "%.1s", *c == '%' ? folder : c);
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) list.values[list.n++] = w;
    return sets_parse(s, "data", &list, weighted, err);
}

static void refuse_sets(const char *values, const char *word1, const char *word2) {
    SetSpecs s;
    Error err = {""};
    CHECK(parse_sets(&s, values, 1, &err) == -1 && strstr(err.text, word1) && strstr(err.text, word2) && s.n == 0,
          "%s: no '%s' and '%s' in: %s", values, word1, word2, err.text);
}

static void test_set_names(void) {
    SetSpecs s;
    Error err = {""};
    static const int lengths[] = {5, 10};
    check_begin("NAME=GLOB:WEIGHT: sorted by name; without names the last one counts");
    CHECK(parse_sets(&s, "zh=%/none_*.bin:1 en=%/none_*.bin:2.5", 1, &err) == 0 && s.n == 2, "%s", err.text);
    CHECK(!strcmp(s.list[0].name, "en") && s.list[0].weight == 2.5 && strstr(s.list[0].globs, "/none_*.bin") &&
              !strchr(s.list[0].globs, ':') && !strcmp(s.list[1].name, "zh") && s.list[1].weight == 1,
          "%s %g, %s %g", s.list[0].name, s.list[0].weight, s.list[1].name, s.list[1].weight);
    sets_free(&s);
    CHECK(parse_sets(&s, "%/one.bin %/two.bin", 1, &err) == 0 && s.n == 1 && strstr(s.list[0].globs, "two"), "%s",
          err.text);
    sets_free(&s);
    CHECK(parse_sets(&s, "en=%/x.bin:2", 0, &err) == 0 && strstr(s.list[0].globs, "x.bin:2") && !s.list[0].weight,
          "-val has no weights: %s", err.text);
    sets_free(&s);

    check_begin("a path that is there is taken as it stands, with = and : in it");
    char *sub = in_folder("en=a:3");
    CHECK(file_make_dirs(sub, &err) == 0, "%s", err.text);
    make_shard("en=a:3/x:2", lengths, 2, VOCAB, one_tokenizer);
    make_shard("k=v.bin", lengths, 2, VOCAB, one_tokenizer);
    free(sub);
    CHECK(parse_sets(&s, "%/en=a:3/x:2", 1, &err) == 0 && !s.list[0].name[0] && !s.list[0].weight, "%s", err.text);
    sets_free(&s);
    CHECK(parse_sets(&s, "%/en=a:3/x*", 1, &err) == 0 && !s.list[0].name[0], "%s", err.text);
    sets_free(&s);
    CHECK(parse_sets(&s, "q=%/en=a:3/x:2", 1, &err) == 0 && !strcmp(s.list[0].name, "q") && !s.list[0].weight, "%s",
          err.text);
    sets_free(&s);
    CHECK(parse_sets(&s, "q=%/en=a:3/x:2:7", 1, &err) == 0 && s.list[0].weight == 7, "%s", err.text);
    Dataset d;
    CHECK(sets_open(&d, &s, NULL, &err) == 0 && d.pages == 2 && !strcmp(d.sets[0].name, "q"), "%s", err.text);
    dataset_close(&d);
    sets_free(&s);
    char *here = getcwd(NULL, 0);
    CHECK(here && chdir(folder) == 0 && parse_sets(&s, "k=v.bin", 1, &err) == 0, "%s", err.text);
    CHECK(!s.list[0].name[0] && chdir(here) == 0, "a file k=v.bin was taken for the set k");
    sets_free(&s);
    free(here);

    check_begin("sets that make no sense are refused by name");
    refuse_sets("en=a.bin:1 en=b.bin:1", "another set of that name", "en=b.bin");
    refuse_sets("en=a.bin:0", "weight above 0", "found 0");
    refuse_sets("en=a.bin:-2", "weight above 0", "found -2");
    refuse_sets("en=a.bin:nan", "weight above 0", "found nan");
    refuse_sets("en=a.bin:1 zh=b.bin", "every set, or of none", "zh");
    refuse_sets("e*n=a.bin", "letters, digits", "e*n");
    refuse_sets("=a.bin", "letters, digits", "=a.bin");
    refuse_sets("a234567890123456789012345678901234567890=a.bin", "1 to 31", "letters");
    refuse_sets("en=a.bin b.bin", "expected a name", "b.bin");
    CHECK(parse_sets(&s, "en=%/k=v.bin zh=%/none_*.bin", 1, &err) == 0, "%s", err.text);
    CHECK(sets_open(&d, &s, NULL, &err) == -1 && strstr(err.text, "zh: ") && strstr(err.text, "none_*.bin: expected"),
          "%s", err.text);
    sets_free(&s);
    make_shard("other.bin", lengths, 2, VOCAB, other_tokenizer);
    CHECK(parse_sets(&s, "en=%/k=v.bin zh=%/other.bin", 1, &err) == 0, "%s", err.text);
    CHECK(sets_open(&d, &s, NULL, &err) == -1 && strstr(err.text, "other.bin") && strstr(err.text, "tokenizer"), "%s",
          err.text);
    sets_free(&s);
}

static Dataset open_sets(const char *values) {
    SetSpecs s;
    Dataset d;
    Error err = {""};
    if (parse_sets(&s, values, 1, &err) || sets_open(&d, &s, NULL, &err)) printf("%s\n", err.text), exit(2);
    sets_free(&s);
    return d;
}

static void test_mixing(void) {
    Dataset parts[2] = {make_dataset("mixa", 2, 40), make_dataset("mixb", 1, 13)};
    Dataset plain = open_sets("b=%/mixb_*.bin a=%/mixa_*.bin"), d = open_sets("b=%/mixb_*.bin:1 a=%/mixa_*.bin:3");
    enum { B = 4, G = 2, N = B * G, STEPS = 400 };
    static uint64_t pages[STEPS][N];
    static LoaderState after[STEPS];
    static int seen[53];

    check_begin("sets without weights are one shuffled list");
    CHECK(plain.n_sets == 2 && plain.pages == 53 && plain.n_shards == 3 && !strcmp(plain.sets[1].name, "b") &&
              plain.sets[1].first == 40 && plain.tokens == parts[0].tokens + parts[1].tokens &&
              plain.sets[1].tokens == parts[1].tokens && plain.identity != d.identity,
          "%d sets, %d pages", plain.n_sets, (int)plain.pages);
    Loader *l = open_loader(&plain, (LoaderConfig){.b = 53, .g = 1, .ranks = 1, .shuffle = 1}, fresh(&plain, 5), 1);
    const LoaderStep *s = loader_next(l);
    for (int i = 0; i < 53; i++) seen[s->pages[i]]++;
    for (int i = 0; i < 53; i++) CHECK(seen[i] == 1, "page %d seen %d times", i, seen[i]);
    CHECK(s->of_set[0].pages == 40 && s->of_set[1].pages == 13 && s->of_set[1].tokens == (double)parts[1].tokens &&
              s->after.taken[0] == 0 && s->after.epoch == 1,
          "%g and %g pages", s->of_set[0].pages, s->of_set[1].pages);
    loader_close(l);

    check_begin("by weight: the shares of the pages; each set's pages once in an epoch of its own");
    LoaderConfig c = {.b = B, .g = G, .ranks = 1, .shuffle = 1};
    double taken[2] = {0, 0}, tokens = 0, supervised = 0;
    memset(seen, 0, sizeof seen);
    l = open_loader(&d, c, fresh(&d, 5), 1);
    for (int k = 0; k < STEPS; k++) {
        s = loader_next(l);
        memcpy(pages[k], s->pages, sizeof pages[k]);
        after[k] = s->after;
        for (int i = 0; i < N; i++) seen[s->pages[i]]++;
        for (int i = 0; i < 2; i++) taken[i] += s->of_set[i].pages;
        tokens += s->of_set[0].tokens + s->of_set[1].tokens;
        supervised += (double)s->total_supervised;
        for (int p = 0; p < 53; p++) {
            int set = p >= 40, epochs = (int)(taken[set] / (set ? 13 : 40));
            if (seen[p] == epochs || seen[p] == epochs + 1) continue;
            CHECK(0, "step %d: page %d seen %d times in %d epochs of its set", k + 1, p, seen[p], epochs);
            k = STEPS;
        }
    }
    loader_close(l);
    double share = taken[0] / (taken[0] + taken[1]);
    CHECK(fabs(share - 0.75) < 0.03, "share %.4f, expected 0.75: 0.03 is 4 standard deviations", share);
    CHECK(tokens + N * STEPS == supervised, "%g tokens, %g supervised rows", tokens, supervised);
    LoaderState end = after[STEPS - 1];
    CHECK((double)end.taken[0] == taken[0] && (double)end.taken[1] == taken[1] && end.taken[2] == 0 &&
              end.epoch * 53 + end.position == N * STEPS,
          "%d and %d taken", (int)end.taken[0], (int)end.taken[1]);

    check_begin("by weight: resumed after any step, exactly the same; every rank agrees");
    for (int from = 0; from < 40; from++) {
        c.prefetch = from % 2;
        l = open_loader(&d, c, after[from], (uint64_t)from + 2);
        for (int k = from + 1; k < from + 20; k++) {
            s = loader_next(l);
            CHECK(!memcmp(s->pages, pages[k], sizeof pages[k]) && same_state(s->after, after[k]),
                  "resumed after %d, step %d differs", from + 1, k + 1);
        }
        loader_close(l);
    }
    Loader *loaders[4];
    static WholeStep w;
    for (int r = 0; r < 4; r++)
        loaders[r] =
            open_loader(&d, (LoaderConfig){.b = 1, .g = 2, .rank = r, .ranks = 4, .shuffle = 1}, fresh(&d, 5), 1);
    for (int k = 0; k < 20; k++) {
        next_of_all(&w, loaders, 1, 2, 4);
        qsort(w.pages, N, sizeof *w.pages, by_number);
        qsort(pages[k], N, sizeof **pages, by_number);
        CHECK(!memcmp(w.pages, pages[k], sizeof pages[k]), "4 ranks, step %d: other pages", k + 1);
    }
    for (int r = 0; r < 4; r++) loader_close(loaders[r]);

    check_begin("other weights are the same data; other names, or a set more, are not");
    Dataset heavier = open_sets("b=%/mixb_*.bin:9 a=%/mixa_*.bin:1"),
            other = open_sets("c=%/mixb_*.bin:1 a=%/mixa_*.bin:3");
    CHECK(heavier.identity == d.identity && other.identity != d.identity, "identities");
    l = open_loader(&heavier, (LoaderConfig){.b = 500, .g = 1, .ranks = 1, .shuffle = 1}, after[9], 11);
    s = loader_next(l);
    CHECK(fabs(s->of_set[1].pages - 450) < 30, "%g of 500 pages, expected 450: 30 is 4 standard deviations",
          s->of_set[1].pages);
    loader_close(l);
    dataset_close(&heavier), dataset_close(&other), dataset_close(&plain), dataset_close(&d);
    dataset_close(&parts[0]), dataset_close(&parts[1]);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_set_names();
    test_mixing();
    file_remove_tree(folder, NULL);
    return check_done();
}
