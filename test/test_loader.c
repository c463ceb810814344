// test_loader.c: datasets behind globs, the order of pages, dealing them to ranks, resuming, prefetching.
#include "test/loader_rig.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/data/loader.h"
#include "llmc/model/latents_mix.h"

static const struct {
    int b, g, ranks, pages, shards, keep_micro, shuffle;
} shapes[] = {{1, 1, 1, 1, 1, 0, 1},  {1, 1, 1, 7, 1, 0, 0},   {2, 3, 1, 60, 2, 0, 1},   {2, 3, 2, 61, 3, 0, 1},
              {2, 3, 2, 61, 3, 1, 1}, {4, 1, 3, 100, 4, 0, 1}, {1, 5, 4, 33, 5, 0, 1},   {3, 2, 5, 31, 2, 1, 1},
              {2, 2, 2, 3, 1, 0, 1},  {8, 2, 4, 50, 2, 0, 1},  {2, 16, 8, 300, 3, 0, 1}, {1, 1, 7, 7, 1, 0, 0},
              {5, 1, 1, 13, 3, 1, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_every_page_once(void) {
    check_begin("every page exactly once an epoch, epochs straddle steps, for many shapes");
    static int seen[1000];
    for (int k = 0; k < SHAPES; k++) {
        int b = shapes[k].b, g = shapes[k].g, ranks = shapes[k].ranks;
        char prefix[] = {'o', 'n', 'c', 'e', (char)('a' + k), 0};
        Dataset d = make_dataset(prefix, shapes[k].shards, shapes[k].pages);
        CHECK((int)d.pages == shapes[k].pages && d.n_shards == shapes[k].shards, "%d pages", (int)d.pages);
        Loader *loaders[8];
        for (int r = 0; r < ranks; r++) {
            LoaderConfig c = {.b = b,
                              .g = g,
                              .rank = r,
                              .ranks = ranks,
                              .keep_micro = shapes[k].keep_micro,
                              .shuffle = shapes[k].shuffle,
                              .prefetch = k % 2};
            loaders[r] = open_loader(&d, c, fresh(&d, 5), 1);
        }
        memset(seen, 0, sizeof seen);
        uint64_t taken = 0;
        while (taken < 4 * d.pages) {
            WholeStep w;
            next_of_all(&w, loaders, b, g, ranks);
            uint64_t supervised = 0;
            for (int i = 0; i < w.n; i++) {
                CHECK(w.pages[i] < d.pages, "page %d", (int)w.pages[i]);
                seen[w.pages[i]]++;
                supervised += dataset_page(&d, w.pages[i]).answer_length + 1;
            }
            taken += (uint64_t)w.n;
            uint64_t epochs = taken / d.pages, more = taken % d.pages, found_more = 0;
            for (uint64_t p = 0; p < d.pages; p++) {
                CHECK(seen[p] == (int)epochs || seen[p] == (int)epochs + 1,
                      "shape %d: page %d seen %d times in %d epochs", k, (int)p, seen[p], (int)epochs);
                found_more += seen[p] == (int)epochs + 1;
            }
            CHECK(found_more == more, "shape %d: %d pages of the new epoch, expected %d", k, (int)found_more,
                  (int)more);
            CHECK(w.after.epoch == epochs && w.after.position == more, "shape %d: state %d %d", k, (int)w.after.epoch,
                  (int)w.after.position);
            CHECK(w.supervised == supervised, "shape %d: %d supervised rows, expected %d", k, (int)w.supervised,
                  (int)supervised);
        }
        for (int r = 0; r < ranks; r++) loader_close(loaders[r]);
        dataset_close(&d);
    }
}

static void draw_latents(void *mix, ShardPage *page, int set, uint64_t draw) {
    (void)set;
    page->latents = (uint32_t)latents_mix_draw(mix, draw);
}

static void test_resume(void) {
    check_begin("a run resumed after any step goes on like the undisturbed one, on any rank");
    for (int k = 0; k < SHAPES; k++) {
        int n = shapes[k].b * shapes[k].g;
        char prefix[] = {'b', 'a', 'c', 'k', (char)('a' + k), 0};
        Dataset d = make_dataset(prefix, shapes[k].shards, shapes[k].pages);
        LoaderConfig c = {.b = shapes[k].b,
                          .g = shapes[k].g,
                          .rank = shapes[k].ranks - 1,
                          .ranks = shapes[k].ranks,
                          .keep_micro = shapes[k].keep_micro,
                          .shuffle = shapes[k].shuffle,
                          .learn = learn_number};
        enum { STEPS = 12 };
        static uint64_t pages[STEPS][256];
        static uint32_t learned[STEPS][256];
        LoaderState after[STEPS];
        Loader *l = open_loader(&d, c, fresh(&d, 77), 1);
        for (int s = 0; s < STEPS; s++) {
            const LoaderStep *step = loader_next(l);
            memcpy(pages[s], step->pages, (size_t)n * sizeof **pages);
            for (int i = 0; i < n; i++) learned[s][i] = step->text[i].latents;
            after[s] = step->after;
        }
        loader_close(l);
        for (int from = 0; from < STEPS - 1; from++) {
            c.prefetch = from % 2;
            l = open_loader(&d, c, after[from], (uint64_t)from + 2);
            for (int s = from + 1; s < STEPS; s++) {
                const LoaderStep *step = loader_next(l);
                CHECK(memcmp(step->pages, pages[s], (size_t)n * sizeof **pages) == 0 &&
                          same_state(step->after, after[s]),
                      "shape %d: resumed after %d, step %d differs", k, from + 1, s + 1);
                for (int i = 0; i < n; i++)
                    CHECK(step->text[i].latents == learned[s][i], "step %d: page %d is learned otherwise", s + 1, i);
            }
            loader_close(l);
        }
        dataset_close(&d);
    }
}

// -n_mix: what latents_mix_draw makes of the loader's numbers, counted over three epochs of two sets.
static void test_latents_mix(void) {
    check_begin("numbers of latents are drawn by their weights");
    static const char *const mixes[] = {"8,16,32", "32:2,8:1,16:1", "1:1,2:1000", "5"};
    Dataset d = make_dataset("mix", 3, 1000);
    for (int k = 0; k < 4; k++) {
        enum { B = 50, STEPS = 60 };
        Error err = {""};
        LatentsMix mix;
        CHECK(latents_mix_parse(&mix, "n_mix", mixes[k], 1, &err) == 0, "%s", err.text);
        double count[MIX_MAX] = {0}, chi = 0;
        Loader *l = open_loader(
            &d, (LoaderConfig){.b = B, .g = 1, .ranks = 1, .shuffle = 1, .learn = draw_latents, .learn_arg = &mix},
            fresh(&d, 5), 1);
        for (int s = 0; s < STEPS; s++) {
            const LoaderStep *step = loader_next(l);
            for (int p = 0; p < B; p++) {
                int i = 0;
                while (i < mix.n && mix.latents[i] != (int)step->text[p].latents) i++;
                CHECK(i < mix.n && (i == 0 || mix.latents[i - 1] < mix.latents[i]), "drawn: %u", step->text[p].latents);
                count[i]++;
            }
        }
        loader_close(l);
        for (int i = 0; i < mix.n; i++) {
            double expected = mix.share[i] * B * STEPS;
            chi += (count[i] - expected) * (count[i] - expected) / expected;
        }
        CHECK(chi < 13.8, "-n_mix %s: chi-square %.1f", mixes[k], chi); // 1 in 1,000 with 2 degrees of freedom
        if (k == 1) CHECK(fabs(latents_mix_mean(&mix, 99) - 22) < 1e-12, "mean %g", latents_mix_mean(&mix, 99));
    }
    dataset_close(&d);
}

static void test_same_set(void) {
    check_begin("the pages of a step do not depend on how they are split into ranks and micro-batches");
    static const int splits[][3] = {{24, 1, 1}, {2, 12, 1}, {2, 6, 2}, {3, 2, 4}, {1, 4, 6}, {1, 3, 8}, {12, 1, 2}};
    Dataset d = make_dataset("same", 3, 101);
    static WholeStep reference[10], w;
    for (int k = 0; k < 7; k++) {
        int b = splits[k][0], g = splits[k][1], ranks = splits[k][2];
        Loader *loaders[8];
        for (int r = 0; r < ranks; r++)
            loaders[r] = open_loader(&d,
                                     (LoaderConfig){.b = b,
                                                    .g = g,
                                                    .rank = r,
                                                    .ranks = ranks,
                                                    .shuffle = 1,
                                                    .keep_micro = k % 3 == 2,
                                                    .learn = learn_number},
                                     fresh(&d, 3), 1);
        for (int s = 0; s < 10; s++) {
            next_of_all(&w, loaders, b, g, ranks);
            qsort(w.pages, (size_t)w.n, sizeof *w.pages, by_number);
            if (k == 0) reference[s] = w;
            CHECK(w.learned == reference[s].learned && (s == 0 || w.learned != reference[s - 1].learned),
                  "split %d step %d: something else is learned", k, s);
            CHECK(memcmp(w.pages, reference[s].pages, 24 * sizeof *w.pages) == 0, "split %d step %d: other pages", k,
                  s);
            CHECK(same_state(w.after, reference[s].after) && w.supervised == reference[s].supervised, "split %d", k);
        }
        for (int r = 0; r < ranks; r++) loader_close(loaders[r]);
    }
    dataset_close(&d);
}

static void test_order(void) {
    check_begin("seed and epoch each change the order; the generator is SplitMix64");
    Dataset d = make_dataset("order", 1, 100);
    uint64_t pages[4][100];
    static const uint64_t start[4][2] = {{42, 0}, {42, 1}, {43, 0}, {42, 0}}; // seed, epoch
    for (int k = 0; k < 4; k++) {
        LoaderState at = {.seed = start[k][0], .epoch = start[k][1], .dataset = d.identity};
        Loader *l = open_loader(&d, (LoaderConfig){.b = 1, .g = 1, .ranks = 1, .shuffle = 1}, at, 1);
        for (int i = 0; i < 100; i++) pages[k][i] = loader_next(l)->pages[0];
        loader_close(l);
    }
    int equal[3] = {0};
    for (int i = 0; i < 100; i++)
        for (int k = 1; k < 4; k++) equal[k - 1] += pages[0][i] == pages[k][i];
    CHECK(equal[0] < 10 && equal[1] < 10 && equal[2] == 100, "%d %d %d of 100 places agree", equal[0], equal[1],
          equal[2]);
    uint32_t crc = file_crc32(0, pages[0], sizeof pages[0]);
    CHECK(crc == 0x4086eb22u, "the order of seed 42, epoch 0 has CRC-32 %08x", crc);

    check_begin("orders are uniform: how often each page stands at each place");
    static int at_place[5][5];
    dataset_close(&d);
    d = make_dataset("five", 1, 5);
    enum { EPOCHS = 20000 };
    Loader *one = open_loader(&d, (LoaderConfig){.b = 5, .g = 1, .ranks = 1, .shuffle = 1}, fresh(&d, 9), 1);
    for (int e = 0; e < EPOCHS; e++) {
        const LoaderStep *s = loader_next(one);
        for (int i = 0; i < 5; i++) at_place[s->pages[i]][i]++;
    }
    double chi2 = 0, expected = EPOCHS / 5.0;
    for (int i = 0; i < 25; i++) chi2 += pow(at_place[i / 5][i % 5] - expected, 2) / expected;
    CHECK(chi2 < 39.3, "chi-square %.1f with 16 degrees of freedom: below 39.3 in 999 of 1000 cases", chi2);
    loader_close(one);
    dataset_close(&d);
}

static double skewed(void) { // log-normal lengths, as pages of books and forms have
    double u = (rng(1000000) + 1) / 1000001.0, v = rng(1000000) / 1000000.0;
    return 700 * exp(0.5 * sqrt(-2 * log(u)) * cos(6.283185307 * v));
}

static void test_balance(void) {
    check_begin("ranks finish together: the busiest is close to the mean");
    static const struct {
        int b, g, ranks;
        double limit;
    } cases[] = {{2, 16, 8, 1.002}, {2, 4, 8, 1.006}, {1, 8, 2, 1.006}, {4, 2, 4, 1.006}, {2, 16, 64, 1.002}};
    int lengths[1000];
    for (int i = 0; i < 1000; i++) {
        int n = (int)skewed();
        lengths[i] = n < 20 ? 20 : n > 3900 ? 3900 : n;
    }
    make_shard("balance.bin", lengths, 1000, VOCAB, one_tokenizer);
    char *path = in_folder("balance.bin");
    Dataset d;
    Error err = {""};
    CHECK(dataset_open(&d, path, NULL, &err) == 0, "%s", err.text);
    for (int k = 0; k < 5; k++) {
        int b = cases[k].b, g = cases[k].g, ranks = cases[k].ranks;
        Loader *loaders[64];
        for (int r = 0; r < ranks; r++)
            loaders[r] = open_loader(&d, (LoaderConfig){.b = b, .g = g, .rank = r, .ranks = ranks, .shuffle = 1},
                                     fresh(&d, 1), 1);
        double worst = 0, average = 0, worst_micro = 0;
        enum { STEPS = 20 };
        for (int s = 0; s < STEPS; s++) {
            double sum = 0, most = 0, longest = 0;
            for (int r = 0; r < ranks; r++) {
                const LoaderStep *step = loader_next(loaders[r]);
                double work = 0;
                for (int m = 0; m < g; m++) {
                    double micro = 0;
                    for (int i = step->micro_begin[m]; i < step->micro_begin[m + 1]; i++)
                        micro += dataset_page(&d, step->pages[i]).answer_length;
                    work += micro;
                    if (micro > longest) longest = micro;
                }
                sum += work;
                if (work > most) most = work;
            }
            double ratio = most / (sum / ranks), micro_ratio = longest / (sum / ranks / g);
            average += ratio / STEPS;
            if (ratio > worst) worst = ratio;
            if (micro_ratio > worst_micro) worst_micro = micro_ratio;
        }
        printf("  -b %d -g %d, %d ranks: tokens of the busiest rank over the mean %.4f, at worst %.4f; longest "
               "micro-batch "
               "%.2f\n",
               b, g, ranks, average, worst, worst_micro);
        CHECK(average < cases[k].limit, "case %d: %.4f", k, average);
        for (int r = 0; r < ranks; r++) loader_close(loaders[r]);
    }
    dataset_close(&d);
    free(path);
}

static double work_in_windows(const LoaderConfig *c, ShardPage page) {
    double tokens = page.context_length, seen = tokens < c->window ? tokens : c->window;
    double rows = page.answer_length + (tokens / seen - 1) * c->latents;
    return tokens * (32768 + seen) + 2 * rows * (32768 + rows);
}

// Work of the busiest rank over the mean, of 20 steps, of pages in windows that were dealt out with `dealt`.
static double busiest(const Dataset *d, const LoaderConfig *windows, LoaderConfig dealt) {
    double average = 0, sum[20] = {0}, most[20] = {0};
    for (dealt.rank = 0; dealt.rank < dealt.ranks; dealt.rank++) {
        Loader *l = open_loader(d, dealt, fresh(d, 1), 1);
        for (int s = 0; s < 20; s++) {
            const LoaderStep *step = loader_next(l);
            double work = 0;
            for (int i = 0; i < step->n; i++) work += work_in_windows(windows, step->text[i]);
            sum[s] += work;
            if (work > most[s]) most[s] = work;
        }
        loader_close(l);
    }
    for (int s = 0; s < 20; s++) average += most[s] / (sum[s] / dealt.ranks) / 20;
    return average;
}

// After test_balance: of its pages.
static void test_balance_windows(void) {
    check_begin("with windows, ranks balance the work that these are");
    char *path = in_folder("balance.bin");
    Dataset d;
    Error err = {""};
    CHECK(dataset_open(&d, path, NULL, &err) == 0, "%s", err.text);
    const LoaderConfig whole = {.b = 2, .g = 16, .ranks = 8, .shuffle = 1};
    LoaderConfig windows = whole;
    windows.window = 64;
    windows.latents = 16;
    double with = busiest(&d, &windows, windows), without = busiest(&d, &windows, whole);
    CHECK(with < 1.002 && with < without, "%.5f, counted as whole pages %.5f", with, without);
    dataset_close(&d);
    free(path);
}

static void test_keep_micro(void) {
    check_begin("with keep_micro, micro-batches are the consecutive ones of the order, each on one rank");
    Dataset d = make_dataset("keep", 2, 57);
    enum { B = 3, G = 4, RANKS = 3, N = B * G * RANKS };
    Loader *one = open_loader(&d, (LoaderConfig){.b = 1, .g = 1, .ranks = 1, .shuffle = 1}, fresh(&d, 8), 1);
    Loader *loaders[RANKS];
    for (int r = 0; r < RANKS; r++)
        loaders[r] =
            open_loader(&d, (LoaderConfig){.b = B, .g = G, .rank = r, .ranks = RANKS, .shuffle = 1, .keep_micro = 1},
                        fresh(&d, 8), 1);
    int moved = 0;
    for (int s = 0; s < 10; s++) {
        uint64_t order[N];
        for (int i = 0; i < N; i++) order[i] = loader_next(one)->pages[0];
        int used[N / B] = {0};
        WholeStep w;
        next_of_all(&w, loaders, B, G, RANKS);
        for (int m = 0; m < N / B; m++) {
            int found = -1;
            for (int k = 0; k < N / B && found < 0; k++)
                if (!used[k] && memcmp(order + k * B, w.pages + m * B, B * sizeof *order) == 0) found = k;
            CHECK(found >= 0, "step %d: micro-batch %d is none of the order", s, m);
            if (found >= 0) used[found] = 1;
            moved += found != m;
        }
    }
    CHECK(moved > 10, "nothing was balanced");
    for (int r = 0; r < RANKS; r++) loader_close(loaders[r]);
    loader_close(one);
    dataset_close(&d);
}

static uint32_t growing(void *arg, uint64_t step) { return *(uint32_t *)arg + (uint32_t)step; }

static void test_cut(void) {
    check_begin("the length limit of a step is counted in its supervised rows");
    Dataset d = make_dataset("cut", 1, 40);
    uint32_t base = 4;
    for (int threaded = 0; threaded < 2; threaded++) {
        LoaderConfig c = {
            .b = 4, .g = 2, .ranks = 1, .shuffle = 1, .prefetch = threaded, .cut = growing, .cut_arg = &base};
        Loader *l = open_loader(&d, c, fresh(&d, 2), 6);
        for (uint32_t step = 6; step < 30; step++) {
            const LoaderStep *s = loader_next(l);
            uint64_t expected = 0;
            for (int i = 0; i < s->n; i++) {
                uint32_t n = dataset_page(&d, s->pages[i]).answer_length;
                expected += (n < step + 4 ? n : step + 4) + 1;
            }
            CHECK(s->cut == step + 4, "step %u: cut %u", step, s->cut);
            CHECK(s->total_supervised == expected, "step %u: %d rows", step, (int)s->total_supervised);
        }
        loader_close(l);
    }
    dataset_close(&d);
}

static void test_prefetch(void) {
    check_begin("steps are the same with and without the prefetch thread");
    Dataset d = make_dataset("ahead", 3, 90);
    LoaderConfig c = {.b = 2, .g = 3, .rank = 1, .ranks = 2, .shuffle = 1};
    Loader *plain = open_loader(&d, c, fresh(&d, 4), 1);
    c.prefetch = 1;
    Loader *ahead = open_loader(&d, c, fresh(&d, 4), 1);
    for (int s = 0; s < 2000; s++) {
        const LoaderStep *y = loader_next(ahead), *x = loader_next(plain);
        if (s % 100 == 0) usleep(1000); // the thread must not overwrite what the caller still reads
        CHECK(memcmp(x->pages, y->pages, 6 * sizeof *x->pages) == 0 && same_state(x->after, y->after) &&
                  x->total_supervised == y->total_supervised,
              "step %d", s + 1);
    }
    loader_close(plain);
    loader_close(ahead);
    for (int i = 0; i < 50; i++) { // closing at any moment
        ahead = open_loader(&d, c, fresh(&d, (uint64_t)i), 1);
        for (int s = 0; s < i % 3; s++) loader_next(ahead);
        loader_close(ahead);
    }
    dataset_close(&d);
}

// ---- datasets ------------------------------------------------------------------------------------------------------

// Four tokens around every answer.
static uint64_t four_around(const void *arg, const ShardPage *page) {
    (void)arg;
    return 4 + (uint64_t)page->answer_length;
}

static void refuse(const char *globs, uint64_t most, const char *word1, const char *word2) {
    const PageLimit limit = {.most = most, .tokens = four_around};
    Dataset d;
    Error err = {""};
    CHECK(dataset_open(&d, globs, most ? &limit : NULL, &err) == -1, "%s was opened", globs);
    CHECK(strstr(err.text, word1) && strstr(err.text, word2), "no '%s' and '%s' in: %s", word1, word2, err.text);
    CHECK(d.n_shards == 0 && !d.shards && !d.page_shard, "something is left of the refused dataset");
}

static void test_globs(void) {
    static const int lengths[] = {5, 10, 15, -7, 20};
    char *all = in_folder("set/*.bin"), *a = in_folder("set/b*.bin"), *set = in_folder("set");
    char *twice = string_format("%s/set/b*.bin,%s/set/*1.bin", folder, folder);
    Error err = {""};
    Dataset d, e;
    file_make_dirs(set, NULL);
    make_shard("set/b2.bin", lengths, 2, VOCAB, one_tokenizer);
    make_shard("set/a1.bin", lengths, 5, VOCAB, one_tokenizer);
    make_shard("set/b1.bin", lengths, 4, VOCAB, one_tokenizer);

    check_begin("all files of a glob in sorted order, as one list of pages");
    CHECK(dataset_open(&d, all, NULL, &err) == 0, "%s", err.text);
    CHECK(d.n_shards == 3 && d.pages == 11 && d.too_long.pages == 0, "%d shards %d pages", d.n_shards, (int)d.pages);
    CHECK(d.tokens == 57 + 37 + 15, "%d answer tokens", (int)d.tokens);
    CHECK(d.longest_context == 20 && d.longest_answer == 20, "%u %u", d.longest_context, d.longest_answer);
    CHECK(d.vocab == VOCAB && memcmp(d.fingerprint, one_tokenizer, 32) == 0, "tokenizer");
    static const uint32_t answers[] = {5, 10, 15, 7, 20, 5, 10, 15, 7, 5, 10};
    for (int p = 0; p < 11; p++)
        CHECK(dataset_page(&d, (uint64_t)p).answer_length == answers[p], "page %d: %u", p,
              dataset_page(&d, (uint64_t)p).answer_length);
    CHECK(dataset_page(&d, 3).context_length == 3, "context of page 3");
    char *name = dataset_page_name(&d, 6);
    CHECK(strstr(name, "set/b1.bin page 2"), "%s", name);
    free(name);

    check_begin("several globs are one list, each file once; the identity depends on contents and maxlen");
    CHECK(dataset_open(&e, twice, NULL, &err) == 0, "%s", err.text);
    CHECK(e.n_shards == 3 && e.identity == d.identity, "%d shards, %08x %08x", e.n_shards, e.identity, d.identity);
    dataset_close(&e);
    CHECK(dataset_open(&e, a, NULL, &err) == 0, "%s", err.text);
    CHECK(e.n_shards == 2 && e.identity != d.identity, "%d shards", e.n_shards);
    dataset_close(&e);

    check_begin("pages that do not fit into maxlen are left out and counted");
    CHECK(dataset_open(&e, all, &(PageLimit){.most = 14, .tokens = four_around}, &err) == 0, "%s", err.text);
    CHECK(e.pages == 8 && e.tokens == 22 + 22 + 15, "%d pages, %d tokens", (int)e.pages, (int)e.tokens);
    CHECK(e.too_long.pages == 3 && e.too_long.all_pages == 11 && e.too_long.tokens == d.tokens - e.tokens &&
              e.too_long.all_tokens == d.tokens,
          "%d of %d pages, %d of %d tokens", (int)e.too_long.pages, (int)e.too_long.all_pages, (int)e.too_long.tokens,
          (int)e.too_long.all_tokens);
    CHECK(e.longest_answer == 10 && e.longest_context == 10, "%u %u", e.longest_answer, e.longest_context);
    static const uint32_t fitting[] = {5, 10, 7, 5, 10, 7, 5, 10};
    for (int p = 0; p < 8; p++) CHECK(dataset_page(&e, (uint64_t)p).answer_length == fitting[p], "page %d", p);
    CHECK(e.identity != d.identity, "another list of pages, the same identity");

    check_begin("a loader refuses the state of another dataset and impossible numbers");
    Loader *l;
    LoaderConfig c = {.b = 1, .g = 1, .ranks = 1};
    CHECK(loader_open(&l, &e, &c, fresh(&d, 1), 1, &err) == -1 && strstr(err.text, "fingerprint"), "%s", err.text);
    LoaderState beyond = {.position = 9, .dataset = e.identity};
    CHECK(loader_open(&l, &e, &c, beyond, 1, &err) == -1 && strstr(err.text, "found 9"), "%s", err.text);
    beyond.position = 8; // just at the end: the next epoch begins
    CHECK(loader_open(&l, &e, &c, beyond, 1, &err) == 0, "%s", err.text);
    CHECK(loader_next(l)->after.epoch == 1 && loader_next(l)->after.position == 2, "after the end of an epoch");
    loader_close(l);
    c.b = 1 << 16, c.g = 1 << 16;
    CHECK(loader_open(&l, &e, &c, fresh(&e, 1), 1, &err) == -1 && !l && strstr(err.text, "65536"), "%s", err.text);
    dataset_close(&d);
    dataset_close(&e);

    check_begin("nothing there, nothing usable, or files of two tokenizers: refused, with the names");
    char *none = in_folder("none/*.bin"), *both = string_format("%s,%s", all, none), *mixed = in_folder("mix*.bin");
    refuse(none, 0, none, "c3 tokenize");
    refuse(both, 0, none, "c3 tokenize");
    refuse("", 0, "token shards", "c3 tokenize");
    refuse(all, 6, all, "-maxlen");
    make_shard("mix1.bin", lengths, 3, VOCAB, one_tokenizer);
    make_shard("mix2.bin", lengths, 3, VOCAB, other_tokenizer);
    refuse(mixed, 0, "mix2.bin", "mix1.bin");
    make_shard("mix2.bin", lengths, 3, VOCAB + 1, one_tokenizer);
    refuse(mixed, 0, "mix2.bin", "501");
    char *empty = in_folder("mix1.bin");
    make_shard("mix1.bin", lengths, 0, VOCAB, one_tokenizer);
    refuse(empty, 0, "mix1.bin", "at least one page");
    FILE *f = fopen(empty, "wb");
    if (f) fclose(f);
    refuse(empty, 0, "mix1.bin", "empty");
    refuse(set, 0, set, "not a regular file");

    check_begin("the notes beside checked shards are not taken for shards");
    char *note = in_folder("set/a1.bin.ok"), *everything = in_folder("set/*");
    f = fopen(note, "wb");
    if (f) fclose(f);
    CHECK(dataset_open(&d, everything, NULL, &err) == 0 && d.n_shards == 3, "%s", err.text);
    dataset_close(&d);

    char *owned[] = {all, a, set, twice, none, both, mixed, empty, note, everything};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

// Shards NAME_00000.bin... of one page each, as one set.
static void make_set(const char *name, int n, int length) {
    Error err = {""};
    char *paths[8] = {NULL};
    for (int i = 0; i < n; i++) {
        char *short_name = string_format("%s_%05d.bin", name, i);
        paths[i] = in_folder(short_name);
        make_shard(short_name, (int[]){length + i}, 1, VOCAB, one_tokenizer);
        free(short_name);
    }
    if (shard_make_set(paths, n, &err)) printf("%s\n", err.text), exit(2);
    for (int i = 0; i < n; i++) free(paths[i]);
}

static void move(const char *from, const char *to) {
    char *a = in_folder(from), *b = in_folder(to);
    if (rename(a, b) != 0) perror(b), exit(2);
    free(a), free(b);
}

// Pages of a list, whose %s stand for the folder; -1: refused.
static int count_pages(const char *list, Error *err) {
    Dataset d;
    char *full = strdup("");
    for (const char *at = list; *at; at++) {
        char *more = string_format(*at == '%' ? "%s%s" : "%s%.1s", full, *at == '%' ? folder : at);
        free(full);
        full = more;
    }
    int bad = dataset_open(&d, full, NULL, err), n = bad ? -1 : (int)d.pages;
    if (!bad) dataset_close(&d);
    free(full);
    return n;
}

// `old` shards stand there, `new` ones take their places one after the other, those behind them go: at every moment the
// reader sees the old set, the new one, or refuses.
static void replace(int old, int new, int old_is_set) {
    Error err = {""};
    char from[64], to[64], *pattern = string_format("%%/swap%d%d/old_*.bin", old, new);
    snprintf(from, sizeof from, "swap%d%d", old, new);
    char *sub = in_folder(from);
    CHECK(file_make_dirs(sub, &err) == 0, "%s", err.text);
    snprintf(from, sizeof from, "swap%d%d/old", old, new);
    make_set(from, old, 10);
    for (int i = 0; i < old && !old_is_set; i++) { // as an older program wrote them
        snprintf(from, sizeof from, "swap%d%d/old_%05d.bin", old, new, i);
        make_shard(from, (int[]){10 + i}, 1, VOCAB, one_tokenizer);
    }
    snprintf(from, sizeof from, "swap%d%d/new", old, new);
    make_set(from, new, 20);
    CHECK(count_pages(pattern, &err) == old, "%s", err.text);
    for (int i = 0; i < new; i++) {
        snprintf(from, sizeof from, "swap%d%d/new_%05d.bin", old, new, i);
        snprintf(to, sizeof to, "swap%d%d/old_%05d.bin", old, new, i);
        move(from, to);
        int done = i == new - 1 && old <= new, got = count_pages(pattern, &err);
        CHECK(done ? got == new : got == -1 && strstr(err.text, "c3 tokenize again"), "%d to %d, %d moved: %d pages %s",
              old, new, i + 1, got, err.text);
    }
    for (int i = new; i < old; i++) {
        snprintf(to, sizeof to, "swap%d%d/old_%05d.bin", old, new, i);
        char *path = in_folder(to);
        unlink(path);
        free(path);
        int got = count_pages(pattern, &err);
        CHECK(i == old - 1 ? got == new : got == -1, "%d to %d, up to %d gone: %d pages %s", old, new, i, got,
              err.text);
    }
    file_remove_tree(sub, &err);
    free(sub);
    free(pattern);
}

static void test_sets(void) {
    Error err = {""};
    check_begin("a set that is being replaced is the old one, the new one, or refused");
    for (int old = 1; old < 5; old++)
        for (int new = 1; new < 5; new ++) replace(old, new, 1);
    check_begin("so are shards without a set, of an older program");
    for (int old = 1; old < 5; old++) replace(old, 2, 0);

    check_begin("a pattern takes whole sets; files that are named may be a part, which is said");
    make_set("a", 4, 10);
    make_set("b", 2, 10); // half of what a holds, and yet a set of its own
    CHECK(count_pages("%/a_*.bin", &err) == 4 && count_pages("%/[ab]_0*.bin", &err) == 6, "%s", err.text);
    CHECK(count_pages("%/a_0000[0-2].bin", &err) == -1 && strstr(err.text, "one of 4 shards that belong together") &&
              strstr(err.text, "found 3"),
          "%s", err.text);
    CHECK(count_pages("%/a_00000.bin,%/a_00002.bin", &err) == 2, "%s", err.text);
    CHECK(count_pages("%/a_00000.bin,%/a_0000[2].bin", &err) == -1, "half of it by a pattern");
    Dataset d;
    char *part = string_format("%s/a_00001.bin,%s/b_*.bin", folder, folder);
    CHECK(dataset_open(&d, part, NULL, &err) == 0 && d.unnamed == 3 && d.pages == 3, "%s", err.text);
    dataset_close(&d);
    free(part);
    check_begin("a shard of another run in the middle is refused by any name");
    make_set("c", 4, 11);
    move("c_00002.bin", "a_00002.bin");
    CHECK(count_pages("%/a_*.bin", &err) == -1 && strstr(err.text, "a_00002.bin: not of the same run") &&
              strstr(err.text, "a_00001.bin"),
          "%s", err.text);
    CHECK(count_pages("%/a_00001.bin,%/a_00002.bin", &err) == -1, "named one by one");
    CHECK(count_pages("%/a_00000.bin,%/a_00001.bin", &err) == 2, "%s", err.text);
    move("a_00002.bin", "apart.bin");
    CHECK(count_pages("%/a*.bin", &err) == -1 && strstr(err.text, "belong together"), "%s", err.text);
}

static void test_names(void) {
    Error err = {""};
    check_begin("names with brackets, commas, backslashes and stars: literal first, patterns after");
    static const char *const odd[] = {"plain", "[2024] ocr", "x,y", "back\\slash", "st*r"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char *sub = in_folder(odd[i]), *name = string_format("%s/train", odd[i]);
        CHECK(file_make_dirs(sub, &err) == 0, "%s", err.text);
        make_set(name, 2, 10);
        free(name);
        name = string_format("%%/%s/train_00000.bin", odd[i]);
        CHECK(count_pages(name, &err) == 1, "%s", err.text);
        free(name);
        name = string_format("%%/%s/train_*.bin", odd[i]);
        CHECK(count_pages(name, &err) == 2, "%s", err.text);
        free(name);
        name = string_format("%%/%s/train_*.bin,%%/plain/train_00001.bin", odd[i]);
        CHECK(count_pages(name, &err) == (i == 0 ? 2 : 3), "%s", err.text);
        free(name);
        name = string_format("%%/plain/train_00001.bin,%%/%s/train_00001.bin", odd[i]);
        CHECK(count_pages(name, &err) == (i == 0 ? 1 : 2), "%s", err.text);
        free(name);
        free(sub);
    }
    CHECK(count_pages("%/[2024] ocr/train_0000[01].bin", &err) == 2, "a pattern in such a folder: %s", err.text);
    char *star = in_folder("star");
    CHECK(file_make_dirs(star, &err) == 0, "%s", err.text);
    make_set("star/train", 3, 12);
    CHECK(count_pages("%/st*r/train_*.bin", &err) == 2, "the folder of that name alone: %s", err.text);
    free(star);
    make_set("plain/[7] a,b\\c", 3, 10);
    CHECK(count_pages("%/plain/[7] a,b\\c_00001.bin", &err) == 1, "%s", err.text);
    CHECK(count_pages("%/plain/[7] a,b\\c_*.bin", &err) == 3, "%s", err.text);
    CHECK(count_pages("%/plain/[7] a,b\\c_*.bin,%/x,y/*", &err) == 5, "%s", err.text);
    CHECK(count_pages("%/plain/[0-9a-z]rain_*.bin", &err) == 2, "a pattern is one still: %s", err.text);
    CHECK(count_pages("%/plain/\\[7\\] a,b\\\\c_*.bin", &err) == 3, "escapes are as in the shell: %s", err.text);
    CHECK(count_pages("%/x,y/none_*.bin,%/plain/train_*.bin", &err) == -1 && strstr(err.text, "no such file"), "%s",
          err.text);
    check_begin("what a running c3 tokenize keeps beside its shards is no shard");
    char *lock = in_folder("x,y/train.lock"), *new = in_folder("x,y/train.new");
    FILE *f = fopen(lock, "w");
    if (f) fclose(f);
    CHECK(f && file_make_dirs(new, &err) == 0 && count_pages("%/x,y/*", &err) == 2, "%s", err.text);
    free(lock), free(new);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_globs();
    test_sets();
    test_names();
    test_order();
    test_every_page_once();
    test_resume();
    test_same_set();
    test_latents_mix();
    test_balance();
    test_balance_windows();
    test_keep_micro();
    test_cut();
    test_prefetch();
    file_remove_tree(folder, NULL);
    return check_done();
}
