// test_generate.c: decoding with caches and slots against the plain forward pass, token by token.
#include <math.h>
#include <stdlib.h>

#include "../llmc/infer/generate.h"
#include "check.h"

// ---- small random models -------------------------------------------------------------------------------------------

enum { BASE = 42, VOCAB = BASE + 6, PAGES = 9, CONTEXT = 23, MAX_NEW = 37 };

static int32_t prefix[] = {BASE + 1, 3, 4, BASE + 3}, suffix[] = {BASE + 4, 7, BASE + 1};
static Template prompt = {
    .prefix = prefix, .suffix = suffix, .n_prefix = 4, .n_suffix = 3, .end = BASE + 2, .img = BASE + 3};

static C3Config config_of(int enc_HS, int dec_HS, int tied, int latents) {
    C3Config c = {.latents = latents,
                  .base_vocab = BASE,
                  .dtype = DTYPE_F32,
                  .specials = {BASE, BASE + 1, BASE + 2, BASE + 3, BASE + 4, BASE + 5}};
    c.enc = (Qwen2Config){.V = VOCAB,
                          .D = 64,
                          .L = 2,
                          .NH = 2,
                          .KV = 1,
                          .HS = enc_HS,
                          .F = 96,
                          .max_positions = 512,
                          .rope_theta = 1e6f,
                          .rms_eps = 1e-6f,
                          .tied = 1};
    c.dec = (Qwen2Config){.V = VOCAB,
                          .D = 96,
                          .L = 3,
                          .NH = 4,
                          .KV = 2,
                          .HS = dec_HS,
                          .F = 80,
                          .max_positions = 512,
                          .rope_theta = 1e6f,
                          .rms_eps = 1e-6f,
                          .tied = tied};
    return c;
}

static uint64_t state = 88172645463325252u;
static double uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

// Weights large enough that texts vary (the trainer's start values give almost the same logits everywhere).
static void random_weights(C3 *m) {
    size_t n = m->params.table.total;
    float *host = malloc(n * sizeof *host), *device;
    Error err;
    for (size_t i = 0; i < n; i++) host[i] = (float)(0.5 * (uniform() - 0.5));
    for (int i = 0; i < m->params.table.n; i++) {
        const Param *p = &m->params.table.params[i];
        for (size_t k = 0; k < p->count && p->init == INIT_ONE; k++)
            host[p->offset + k] = (float)(0.7 + 0.6 * uniform());
    }
    if (m->b->alloc(m->b, (void **)&device, n * sizeof *host, "test", &err) != 0) exit(1);
    m->b->upload(m->b, device, host, n * sizeof *host);
    m->b->cast_from_f32(m->b, m->weights, device, n);
    m->b->release(m->b, device);
    free(host);
}

typedef struct Fixture {
    Backend *b;
    C3 m;
    MicroBatch batch;
    int32_t texts[PAGES][CONTEXT];
    int lengths[PAGES];
} Fixture;

static void set_up(Fixture *f, DType dtype, const C3Config *c) {
    Error err;
    static Dist dist = {.ranks = 1, .local_ranks = 1, .cores = 1};
    C3Limits l = {.pages = 1,
                  .windows = CONTEXT,
                  .slots = 64,
                  .enc_rows = 128,
                  .dec_rows = 128,
                  .dec_outputs = 64,
                  .recompute = KEEP_NOTHING};
    if (backend_cpu_create(&f->b, dtype, 1, &dist, &err) != 0 || c3_create(&f->m, c, f->b, &l, &err) != 0 ||
        batch_create(&f->batch, f->b, c3_batch_rows(&l), &err) != 0) {
        printf("%s\n", err.text);
        exit(1);
    }
    random_weights(&f->m);
    for (int p = 0; p < PAGES; p++) {
        f->lengths[p] = p == 0 ? 1 : 1 + (int)(uniform() * CONTEXT);
        for (int i = 0; i < CONTEXT; i++) f->texts[p][i] = (int32_t)(uniform() * BASE);
    }
}

static void tear_down(Fixture *f) {
    batch_free(&f->batch);
    c3_free(&f->m);
    f->b->destroy(f->b);
}

static void fill_requests(const Fixture *f, GeneratePage *pages) {
    for (int p = 0; p < PAGES; p++) pages[p] = (GeneratePage){.context = f->texts[p], .n_context = f->lengths[p]};
}

static int generate(Fixture *f, GeneratePage *pages, int n, int slots, int max_new, int ngram) {
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = slots, .together = slots, .context = CONTEXT, .max_new = max_new};
    int bad = generator_create(&g, &f->m, &prompt, &l, &err) || generate_pages(g, pages, n, ngram, NULL, NULL, &err);
    CHECK(!bad, "%s", err.text);
    generator_free(g);
    return bad;
}

// ---- the reference: everything from the start for every token ------------------------------------------------------

// Logits (V) behind the first n tokens of a text.
// asked: 0, or the tokens of a prompt of the page's own; from here on all references have it.
static int asked;
static const int32_t question[4] = {11, 7, 11, 3};

static void plain_logits(Fixture *f, float *logits, const int32_t *context, int n_context, const int32_t *ids, int n) {
    C3 *m = &f->m;
    Backend *b = f->b;
    static const int32_t none[1];
    ShardPage page = {.context = (const uint32_t *)context,
                      .context_length = (uint32_t)n_context,
                      .answer = (const uint32_t *)(n ? ids : none),
                      .answer_length = (uint32_t)n,
                      .prompt = (const uint32_t *)question,
                      .prompt_length = (uint32_t)asked};
    batch_build(&f->batch, &page, NULL, 1, &prompt, m->config.latents, UINT32_MAX, NULL);
    c3_forward(m, &f->batch);
    const elem_t *hidden = elem_at(b, m->dec_acts.out, (size_t)n * m->config.dec.D);
    b->matmul_forward(b, m->logits, hidden, elem_at(b, m->weights, m->params.dec.head), NULL, 1, m->config.dec.D,
                      VOCAB);
    char raw[VOCAB * 4];
    b->download(b, raw, m->logits, VOCAB * dtype_size(b->dtype));
    for (int v = 0; v < VOCAB; v++) {
        uint32_t bits = b->dtype == DTYPE_F32 ? 0 : (uint32_t)((uint16_t *)(void *)raw)[v] << 16;
        if (b->dtype == DTYPE_F32) memcpy(&logits[v], raw + 4 * v, 4);
        else memcpy(&logits[v], &bits, 4);
    }
}

// Does any n-gram stand twice in prompt + text + token? Plain loops over the whole, from the definition.
static int has_repeat(const C3 *m, int slots, const int32_t *ids, int n, int token, int ngram) {
    int32_t all[256];
    int at = 0;
    for (int i = 0; i < prompt.n_prefix; i++) all[at++] = prefix[i];
    for (int i = 0; i < slots; i++) all[at++] = m->config.specials.img_pad;
    for (int i = 0; i < prompt.n_suffix && !asked; i++) all[at++] = suffix[i];
    for (int i = 0; i < prompt.n_ask && asked; i++) all[at++] = prompt.ask[i];
    for (int i = 0; i < asked; i++) all[at++] = question[i];
    for (int i = 0; i < prompt.n_answer && asked; i++) all[at++] = prompt.answer[i];
    for (int i = 0; i < n; i++) all[at++] = ids[i];
    all[at++] = token;
    for (int i = 0; i + ngram < at; i++) {
        if (memcmp(all + i, all + at - ngram, (size_t)ngram * sizeof *all) == 0) return 1;
    }
    return 0;
}

static int is_stop(const Sampling *s, int32_t id) {
    int found = id == prompt.end;
    for (int i = 0; s && i < s->n_stop; i++) found |= s->stop[i] == id;
    return found;
}

// sampling NULL: greedy.
static int plain_text(Fixture *f, int32_t *ids, int *ended, int page, int max_new, int ngram,
                      const Sampling *sampling) {
    float logits[VOCAB];
    int32_t work[VOCAB];
    const uint32_t *context = (const uint32_t *)f->texts[page];
    int n = 0, slots = f->m.config.latents * template_windows(&prompt, context, (uint32_t)f->lengths[page]);
    for (*ended = 0; n < max_new;) {
        plain_logits(f, logits, f->texts[page], f->lengths[page], ids, n);
        int best = -1;
        for (int v = 0; v < VOCAB; v++) {
            if (ngram && has_repeat(&f->m, slots, ids, n, v, ngram)) continue;
            if (best < 0 || logits[v] > logits[best]) best = v;
        }
        if (sampling && sampling->temperature > 0) {
            for (int v = 0; v < VOCAB; v++) {
                if (ngram && has_repeat(&f->m, slots, ids, n, v, ngram)) logits[v] = -INFINITY;
            }
            double u = sample_uniform(sampling->seed, (uint64_t)page, (uint64_t)n);
            best = sample_token(logits, VOCAB, sampling->temperature, sampling->top_p, u, work);
        }
        if (is_stop(sampling, best)) {
            *ended = 1;
            break;
        }
        ids[n++] = best;
    }
    return n;
}

static int same_text(const GeneratePage *a, const int32_t *ids, int n, int ended) {
    return a->n == n && a->ended == ended && memcmp(a->ids, ids, (size_t)n * sizeof *ids) == 0;
}

// From here on contexts are read in windows of so many tokens; 0: whole.
static void set_window(int window) {
    static uint8_t edges[VOCAB]; // zeros: a word may end anywhere
    prompt.window = window;
    prompt.edges = edges;
}

// ---- cases ---------------------------------------------------------------------------------------------------------

static int distinct_tokens(const GeneratePage *pages) {
    int seen[VOCAB] = {0}, n = 0;
    for (int p = 0; p < PAGES; p++) {
        for (int i = 0; i < pages[p].n; i++) n += !seen[pages[p].ids[i]]++;
    }
    return n;
}

static void test_equals_plain(const char *name, int enc_HS, int dec_HS, int tied, int latents, int ngram) {
    Fixture f;
    GeneratePage pages[PAGES];
    C3Config c = config_of(enc_HS, dec_HS, tied, latents);
    check_begin(name);
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    int slots[] = {1, 4, PAGES};
    for (int k = 0; k < 3; k++) {
        if (generate(&f, pages, PAGES, slots[k], MAX_NEW, ngram) != 0) continue;
        CHECK(distinct_tokens(pages) > 8, "texts hardly vary: the case would prove nothing");
        for (int p = 0; p < PAGES; p++) {
            int32_t ids[MAX_NEW];
            int ended, n = plain_text(&f, ids, &ended, p, MAX_NEW, ngram, NULL);
            CHECK(same_text(&pages[p], ids, n, ended), "slots %d, page %d: %d tokens (ended %d), expected %d (%d)",
                  slots[k], p, pages[p].n, pages[p].ended, n, ended);
        }
        generate_free(pages, PAGES);
    }
    tear_down(&f);
}

static void test_limits(void) {
    Fixture f;
    GeneratePage pages[PAGES], cut[PAGES];
    C3Config c = config_of(32, 32, 1, 3);
    check_begin("max_new cuts a text and changes nothing before the cut");
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    fill_requests(&f, cut);
    for (int p = 0; p < PAGES; p++) cut[p].max_new = 1 + 3 * p;
    if (generate(&f, pages, PAGES, 4, MAX_NEW, 0) == 0 && generate(&f, cut, PAGES, 4, MAX_NEW, 0) == 0) {
        for (int p = 0; p < PAGES; p++) {
            int shorter = pages[p].n + pages[p].ended > cut[p].max_new;
            int n = shorter ? cut[p].max_new : pages[p].n;
            CHECK(same_text(&cut[p], pages[p].ids, n, shorter ? 0 : pages[p].ended), "page %d: %d tokens, expected %d",
                  p, cut[p].n, n);
        }
        generate_free(pages, PAGES);
        generate_free(cut, PAGES);
    }
    tear_down(&f);
}

// The latents of a page, (slots,D_enc), from the model's own encoder. Returns slots.
static int encode(Fixture *f, float *latents, const int32_t *context, int n_context) {
    C3 *m = &f->m;
    ShardPage page = generate_prompt(context, n_context);
    batch_build(&f->batch, &page, NULL, 1, &prompt, m->config.latents, UINT32_MAX, NULL);
    f->b->upload(f->b, m->batch_device, f->batch.block, f->batch.bytes);
    MicroBatch d = batch_view(&f->batch, m->batch_device);
    c3_encode(m, &d.enc);
    f->b->download(f->b, latents, m->enc_acts.out, (size_t)d.enc.outputs * m->config.enc.D * sizeof *latents);
    return d.enc.outputs;
}

static void test_given_latents(const char *name, int window) {
    enum { N = 5, D = 64, MOST = N * CONTEXT };
    Fixture f;
    GeneratePage pages[PAGES], given[2 * PAGES];
    C3Config c = config_of(32, 64, 0, N);
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = 2 * PAGES, .together = 4, .context = CONTEXT, .max_new = MAX_NEW};
    float(*latents)[MOST * D] = malloc(PAGES * sizeof *latents);
    check_begin(name);
    set_window(window);
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0, "%s", err.text);
    for (int p = 0; p < PAGES; p++) { // both kinds, in turn
        given[2 * p] = pages[p];
        given[2 * p + 1] = (GeneratePage){.latents = latents[p]};
        given[2 * p + 1].slots = encode(&f, latents[p], pages[p].context, pages[p].n_context);
    }
    CHECK(generate_pages(g, pages, PAGES, 0, NULL, NULL, &err) == 0, "%s", err.text);
    CHECK(generate_pages(g, given, 2 * PAGES, 0, NULL, NULL, &err) == 0, "%s", err.text);
    for (int p = 0; p < 2 * PAGES; p++)
        CHECK(same_text(&given[p], pages[p / 2].ids, pages[p / 2].n, pages[p / 2].ended), "page %d differs", p);
    CHECK(!same_text(&pages[1], pages[2].ids, pages[2].n, pages[2].ended), "two pages have one text");
    generate_free(pages, PAGES);
    generate_free(given, 2 * PAGES);
    CHECK(generate_pages(g, &(GeneratePage){.context = f.texts[0], .n_context = CONTEXT + 1}, 1, 0, NULL, NULL, &err) ==
                  -1 &&
              strstr(err.text, "24 tokens"),
          "a page too long: %s", err.text);
    CHECK(generate_pages(g, &(GeneratePage){.latents = *latents, .slots = MOST}, 1, 0, NULL, NULL, &err) == -1 &&
              strstr(err.text, "115 latents"),
          "too many latents: %s", err.text);
    generator_free(g);
    l.slots = MOST; // prepared for more than the context asks for
    CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0 &&
              generate_pages(g, given, 2 * PAGES, 0, NULL, NULL, &err) == 0,
          "%s", err.text);
    generate_free(given, 2 * PAGES);
    generator_confidence(g);
    latents[0][0] = NAN; // no number: no confidence
    CHECK(generate_pages(g, given, 2 * PAGES, 0, NULL, NULL, &err) == 0, "%s", err.text);
    CHECK(isinf(given[1].log_prob) && isinf(given[1].least_log_prob) && isfinite(given[3].log_prob), "%g, %g",
          given[1].log_prob, given[3].log_prob);
    generate_free(given, 2 * PAGES);
    generator_free(g);
    free(latents);
    tear_down(&f);
    set_window(0);
}

// Pages with a prompt of their own, of several lengths, beside pages to be repeated.
static void test_prompts(void) {
    enum { N = 5 };
    static int32_t before[2] = {9, 5}, behind[3] = {4, 8, 6};
    Fixture f;
    GeneratePage pages[PAGES];
    C3Config c = config_of(32, 64, 0, N);
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = PAGES, .together = 3, .context = CONTEXT, .max_new = MAX_NEW, .prompt = 4};
    check_begin(
        "a page's own prompt: the text of plain recomputation, whatever stands beside it; too long, it is refused");
    prompt.ask = before;
    prompt.n_ask = 2;
    prompt.answer = behind;
    prompt.n_answer = 3;
    set_up(&f, DTYPE_F32, &c);
    for (int ngram = 0; ngram <= 2; ngram += 2) {
        fill_requests(&f, pages);
        for (int p = 0; p < PAGES; p++) {
            pages[p].prompt = question;
            pages[p].n_prompt = p % 5;
        }
        CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0 &&
                  generate_pages(g, pages, PAGES, ngram, NULL, NULL, &err) == 0,
              "%s", err.text);
        int differ = 0;
        for (int p = 0; p < PAGES; p++) {
            int32_t ids[MAX_NEW], other[MAX_NEW];
            int ended;
            asked = 0;
            int n = plain_text(&f, other, &ended, p, MAX_NEW, ngram, NULL);
            differ += p % 5 && !same_text(&pages[p], other, n, ended);
            asked = p % 5;
            n = plain_text(&f, ids, &ended, p, MAX_NEW, ngram, NULL);
            CHECK(same_text(&pages[p], ids, n, ended), "page %d differs", p);
        }
        asked = 0;
        CHECK(differ > 0, "the prompt changes nothing");
        generate_free(pages, PAGES);
        generator_free(g);
    }
    l.prompt = 3;
    fill_requests(&f, pages);
    pages[2].prompt = question;
    pages[2].n_prompt = 4;
    CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0 &&
              generate_pages(g, pages, PAGES, 0, NULL, NULL, &err) == -1 &&
              strstr(err.text, "page 3 has a prompt of 4"),
          "%s", err.text);
    generator_free(g);
    prompt.n_ask = prompt.n_answer = 0;
    tear_down(&f);
}

// In bf16 rounding may turn close logits over: every token must be within the rounding of the largest.
static void test_bf16(void) {
    Fixture f;
    GeneratePage pages[PAGES];
    C3Config c = config_of(64, 32, 1, 4);
    check_begin("bf16: every token has the largest logit up to rounding");
    set_up(&f, DTYPE_BF16, &c);
    fill_requests(&f, pages);
    if (generate(&f, pages, PAGES, 4, MAX_NEW, 0) == 0) {
        for (int p = 0; p < PAGES; p++) {
            for (int i = 0; i < pages[p].n; i++) {
                float logits[VOCAB], largest = -INFINITY;
                plain_logits(&f, logits, f.texts[p], f.lengths[p], pages[p].ids, i);
                for (int v = 0; v < VOCAB; v++) largest = logits[v] > largest ? logits[v] : largest;
                float off = largest - logits[pages[p].ids[i]];
                CHECK(off <= 0.03f * fabsf(largest), "page %d token %d: %g below the largest %g", p, i, off, largest);
            }
        }
        generate_free(pages, PAGES);
    }
    tear_down(&f);
}

// Weights change under a generator that lives on, as in a training run.
static void test_live_weights(void) {
    Fixture f;
    GeneratePage pages[PAGES];
    C3Config c = config_of(32, 32, 0, 2);
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = 3, .context = CONTEXT, .max_new = MAX_NEW};
    check_begin("a generator follows weights that change");
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0, "%s", err.text);
    for (int round = 0; round < 2; round++) {
        CHECK(generate_pages(g, pages, PAGES, 0, NULL, NULL, &err) == 0, "%s", err.text);
        for (int p = 0; p < PAGES; p++) {
            int32_t ids[MAX_NEW];
            int ended, n = plain_text(&f, ids, &ended, p, MAX_NEW, 0, NULL);
            CHECK(same_text(&pages[p], ids, n, ended), "round %d, page %d", round, p);
        }
        generate_free(pages, PAGES);
        random_weights(&f.m);
    }
    generator_free(g);
    tear_down(&f);
}

// ---- sampling, stop tokens, being told ----------------------------------------------------------------------------

typedef struct Heard {
    int32_t ids[PAGES][MAX_NEW];
    int n[PAGES];
} Heard;

static void hear(void *arg, int page, int32_t id) {
    Heard *h = arg;
    h->ids[page][h->n[page]++] = id;
}

static int generate_sampled(Fixture *f, GeneratePage *pages, int slots, int ngram, const Sampling *sampling,
                            Heard *heard) {
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = slots, .together = slots, .context = CONTEXT, .max_new = MAX_NEW};
    int bad = generator_create(&g, &f->m, &prompt, &l, &err);
    if (!bad) {
        generator_sampling(g, sampling);
        if (heard) generator_listen(g, hear, heard);
        bad = generate_pages(g, pages, PAGES, ngram, NULL, NULL, &err);
    }
    CHECK(!bad, "%s", err.text);
    generator_free(g);
    return bad;
}

static void test_sampling(const char *name, DType dtype, const Sampling *sampling, int ngram) {
    Fixture f;
    GeneratePage pages[PAGES], first[PAGES], other[PAGES];
    C3Config c = config_of(32, 64, 1, 4);
    Sampling next_seed = *sampling;
    check_begin(name);
    set_up(&f, dtype, &c);
    fill_requests(&f, first);
    fill_requests(&f, other);
    fill_requests(&f, pages);
    if (generate_sampled(&f, first, 1, ngram, sampling, NULL) == 0) {
        for (int slots = 2; slots <= PAGES; slots++) {
            Heard heard = {0};
            if (generate_sampled(&f, pages, slots, ngram, sampling, &heard) != 0) continue;
            for (int p = 0; p < PAGES; p++) {
                CHECK(same_text(&pages[p], first[p].ids, first[p].n, first[p].ended), "%d together: page %d differs",
                      slots, p);
                CHECK(heard.n[p] == pages[p].n &&
                          !memcmp(heard.ids[p], pages[p].ids, (size_t)pages[p].n * sizeof(int32_t)),
                      "%d together, page %d: heard another text than was written", slots, p);
            }
            generate_free(pages, PAGES);
        }
        for (int p = 0; p < PAGES && dtype == DTYPE_F32; p++) {
            int32_t ids[MAX_NEW];
            int ended, n = plain_text(&f, ids, &ended, p, MAX_NEW, ngram, sampling);
            CHECK(same_text(&first[p], ids, n, ended), "page %d: %d tokens (ended %d), expected %d (%d)", p, first[p].n,
                  first[p].ended, n, ended);
        }
        next_seed.seed++;
        int same = 0;
        if (generate_sampled(&f, other, 3, ngram, &next_seed, NULL) == 0) {
            for (int p = 0; p < PAGES; p++) same += same_text(&other[p], first[p].ids, first[p].n, first[p].ended);
            CHECK(sampling->temperature > 0 ? same < PAGES / 2 : same == PAGES,
                  "with another seed %d of %d are the same", same, PAGES);
        }
        generate_free(first, PAGES);
        generate_free(other, PAGES);
    }
    tear_down(&f);
}

static void test_stop(void) {
    Fixture f;
    GeneratePage pages[PAGES], stopped[PAGES];
    C3Config c = config_of(32, 32, 1, 3);
    const Sampling greedy = {0};
    check_begin("stop tokens end a text before the first of them and change nothing else");
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    fill_requests(&f, stopped);
    if (generate_sampled(&f, pages, 4, 0, &greedy, NULL) == 0) {
        const int32_t stop[2] = {pages[1].ids[pages[1].n / 2], pages[5].ids[pages[5].n / 3]};
        const Sampling s = {.stop = stop, .n_stop = 2};
        int cut = 0;
        if (generate_sampled(&f, stopped, 4, 0, &s, NULL) == 0) {
            for (int p = 0; p < PAGES; p++) {
                int n = 0;
                while (n < pages[p].n && pages[p].ids[n] != stop[0] && pages[p].ids[n] != stop[1]) n++;
                cut += n < pages[p].n;
                CHECK(same_text(&stopped[p], pages[p].ids, n, n < pages[p].n || pages[p].ended),
                      "page %d: %d tokens, expected %d", p, stopped[p].n, n);
            }
            CHECK(cut >= 2, "no text was cut: the case would prove nothing");
            generate_free(stopped, PAGES);
        }
        generate_free(pages, PAGES);
    }
    tear_down(&f);
}

// -ln p of each label of a page, as teacher forcing has it: sum and largest of n + ended rows.
static void forced_losses(Fixture *f, int p, const GeneratePage *page, double *sum, double *largest) {
    ShardPage forced = {.context = (const uint32_t *)f->texts[p],
                        .context_length = (uint32_t)f->lengths[p],
                        .answer = (const uint32_t *)page->ids,
                        .answer_length = (uint32_t)page->n};
    batch_build(&f->batch, &forced, NULL, 1, &prompt, f->m.config.latents, UINT32_MAX, NULL);
    c3_forward(&f->m, &f->batch);
    c3_read_loss(&f->m, &f->batch);
    *sum = *largest = 0;
    for (int i = 0; i < page->n + page->ended; i++) {
        *sum += f->m.host_losses[i];
        *largest = fmax(*largest, f->m.host_losses[i]);
    }
}

static void test_confidence(const char *name, const Sampling *sampling, int ngram) {
    Fixture f;
    GeneratePage pages[PAGES], plain[PAGES];
    C3Config c = config_of(32, 64, 1, 4);
    Error err = {""};
    Generator *g;
    GeneratorLimits l = {.pages = 4, .together = 4, .context = CONTEXT, .max_new = MAX_NEW};
    int ended = 0;
    check_begin(name);
    state = 500000007u; // of which some pages end by themselves and some are cut
    set_up(&f, DTYPE_F32, &c);
    fill_requests(&f, pages);
    fill_requests(&f, plain);
    CHECK(generator_create(&g, &f.m, &prompt, &l, &err) == 0, "%s", err.text);
    generator_sampling(g, sampling);
    CHECK(generate_pages(g, plain, PAGES, ngram, NULL, NULL, &err) == 0, "%s", err.text);
    generator_confidence(g);
    CHECK(generate_pages(g, pages, PAGES, ngram, NULL, NULL, &err) == 0, "%s", err.text);
    for (int p = 0; p < PAGES; p++) {
        double sum, largest;
        forced_losses(&f, p, &pages[p], &sum, &largest);
        ended += pages[p].ended;
        CHECK(fabs(sum + pages[p].log_prob) <= 1e-5 * (pages[p].n + pages[p].ended) && sum > 0,
              "page %d: ln p of %d tokens: expected %.8f, found %.8f", p, pages[p].n, -sum, pages[p].log_prob);
        CHECK(fabs(largest + pages[p].least_log_prob) <= 1e-5, "page %d: the least: expected %.8f, found %.8f", p,
              -largest, pages[p].least_log_prob);
        CHECK(same_text(&pages[p], plain[p].ids, plain[p].n, plain[p].ended), "page %d: another text", p);
        CHECK(plain[p].log_prob == 0 && plain[p].least_log_prob == 0, "page %d: not asked, found %g", p,
              plain[p].log_prob);
    }
    CHECK(ended > 0 && ended < PAGES, "%d pages ended by themselves: both kinds are needed", ended);
    generate_free(pages, PAGES);
    generate_free(plain, PAGES);
    generator_free(g);
    tear_down(&f);
}

static void test_new_tokens(void) {
    check_begin("new tokens of a page: twice its own + 32, at most 4096, but always itself; -max_new says otherwise");
    static const int rows[][4] = {{1, 0, 99999, 34},          {100, 0, 99999, 232},     {2032, 0, 99999, 4096},
                                  {2047, 0, 99999, 4096},     {2048, 0, 99999, 4096},   {4095, 0, 99999, 4096},
                                  {4096, 0, 99999, 4097},     {24000, 0, 99999, 24001}, {24000, 0, 20000, 20000},
                                  {24000, 5000, 99999, 5000}, {10, 5000, 99999, 5000},  {10, 5000, 300, 300}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int n = generate_new_tokens(rows[i][0], rows[i][1], rows[i][2]);
        CHECK(n == rows[i][3], "%d tokens, -max_new %d, room for %d: %d", rows[i][0], rows[i][1], rows[i][2], n);
    }
}

int main(void) {
    test_new_tokens();
    test_equals_plain("equals recomputing: head dims 32/32, tied", 32, 32, 1, 3, 0);
    test_equals_plain("equals recomputing: head dims 32/64, untied", 32, 64, 0, 8, 0);
    test_equals_plain("equals recomputing: head dims 64/32, one latent", 64, 32, 1, 1, 0);
    test_equals_plain("equals recomputing: head dims 64/64, untied", 64, 64, 0, 5, 0);
    set_window(7);
    test_equals_plain("equals recomputing: windows of 7 tokens", 32, 64, 1, 3, 0);
    test_equals_plain("windows of 7 tokens, no_repeat_ngram 2", 32, 32, 1, 3, 2);
    set_window(0);
    test_equals_plain("no_repeat_ngram 1", 32, 32, 0, 3, 1);
    test_equals_plain("no_repeat_ngram 2", 32, 32, 1, 3, 2);
    test_equals_plain("no_repeat_ngram 3", 32, 64, 1, 4, 3);
    test_limits();
    test_given_latents("latents given are the encoder's own, and other latents give another text", 0);
    test_given_latents("the same in windows of 6 tokens", 6);
    test_prompts();
    test_bf16();
    test_live_weights();
    test_sampling("temperature 1: as recomputed, whatever the batch", DTYPE_F32,
                  &(Sampling){.temperature = 1, .seed = 5}, 0);
    test_sampling("temperature 0.6, top_p 0.8", DTYPE_F32, &(Sampling){.temperature = 0.6, .top_p = 0.8, .seed = 6}, 0);
    test_sampling("temperature 2, no_repeat_ngram 2", DTYPE_F32, &(Sampling){.temperature = 2, .seed = 7}, 2);
    test_sampling("bf16: the same text whatever the batch, drawn", DTYPE_BF16,
                  &(Sampling){.temperature = 1, .top_p = 0.95, .seed = 8}, 0);
    test_sampling("bf16: the same text whatever the batch, greedy", DTYPE_BF16, &(Sampling){.seed = 9}, 0);
    test_stop();
    test_confidence("log probabilities are those of teacher forcing: greedy", &(Sampling){0}, 0);
    test_confidence("log probabilities are those of teacher forcing: drawn, no repeats",
                    &(Sampling){.temperature = 0.7, .top_p = 0.9, .seed = 4}, 2);
    return check_done();
}
