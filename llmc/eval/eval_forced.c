// eval_forced.c: teacher-forced rows of an evaluation, and its controls. See eval.h.
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/eval/eval.h"

const EvalConditionInfo eval_conditions[N_CONDITIONS] = {
    [EVAL_OWN] = {.pass = "teacher-forced"},
    [EVAL_ALONE] = {"decoder_alone",
                    "teacher-forced without latents: the decoder's sequence with their positions left out, <img></img> "
                    "empty; each token of the text, and the end mark, predicted from the tokens before it",
                    "", "the decoder alone", ""},
    [EVAL_SWAPPED] = {"control_swapped_latents", "page i decoded from the latents of page i+1",
                      "from the next page's latents", "control, swapped latents", "decoding swapped latents"},
    [EVAL_MEAN] = {"control_no_latents", "every page decoded from the mean of all pages' latents: one text for all",
                   "from the pages' mean latents", "control, mean latents", "decoding mean latents"},
    [EVAL_ZERO] = {"control_zero_latents", "every page decoded from latents of zeros: one text for all",
                   "from latents of zeros", "control, zero latents", "decoding zero latents"},
};

// ---- teacher-forced rows -------------------------------------------------------------------------------------------

// Rows of a batch: enough for efficient products.
enum { FORCED_ROWS = 4096 };

static int larger(int a, int b) { return a > b ? a : b; }

C3Limits eval_limits(const EvalSet *s, const Model *m) {
    int N = m->files.config.latents, least = template_overhead(&m->t, N), overhead = least, answer = 0;
    C3Limits l = {.recompute = KEEP_NOTHING, .enc_rows = FORCED_ROWS, .dec_rows = FORCED_ROWS};
    for (int i = 0; i < s->n; i++) {
        BatchRows page = eval_page_rows(&s->pages[i], m);
        overhead = larger(overhead, page.dec - (page.outputs - 1));
        answer = larger(answer, page.outputs - 1);
        l.enc_rows = larger(l.enc_rows, page.enc);
    }
    l.dec_rows = larger(l.dec_rows, overhead + answer); // one page's latents, the text of another
    l.pages = FORCED_ROWS / least > 0 ? FORCED_ROWS / least : 1;
    if (l.pages > s->n) l.pages = s->n;
    l.windows = m->t.window ? l.enc_rows / (1 + N) : l.pages;
    l.dec_outputs = l.dec_rows;
    return l;
}

// Buffers of the passes over all pages.
typedef struct Forced {
    Model *m;
    EvalSet *s;
    size_t size; // N * D_enc, the numbers of a window's latents
    int windows; // of all pages
    MicroBatch batch;
    ShardPage *pages;   // (limits.pages)
    float *device;      // (limits.windows,size)
    float *host;        // (limits.windows,size)
    double *sum;        // (size) of all windows' latents
    Progress *progress; // may be NULL
} Forced;

static void forced_free(Forced *f) {
    if (f->device) f->m->b->release(f->m->b, f->device);
    batch_free(&f->batch);
    free(f->pages);
    free(f->host);
    free(f->sum);
}

static int forced_create(Forced *f, Model *m, EvalSet *s, Error *err) {
    const C3Limits *l = &m->c3.limits;
    *f = (Forced){.m = m, .s = s, .size = (size_t)m->c3.config.latents * m->c3.config.enc.D};
    const size_t latents = (size_t)l->windows * f->size;
    f->pages = alloc((size_t)l->pages, sizeof *f->pages, "a batch of pages");
    f->host = alloc(latents, sizeof *f->host, "latents");
    f->sum = alloc_zeroed(f->size, sizeof *f->sum, "latents");
    if (batch_create(&f->batch, m->b, c3_batch_rows(l), err) == 0 &&
        m->b->alloc(m->b, (void **)&f->device, latents * sizeof(float), "latents", err) == 0)
        return 0;
    forced_free(f);
    return -1;
}

// Packs pages from `first` on, as many as fit into one batch, with the contexts of the condition. Returns how many.
static int pack(Forced *f, int first, EvalCondition condition) {
    const C3Limits *l = &f->m->c3.limits;
    int N = condition == EVAL_ALONE ? 0 : f->m->c3.config.latents;
    int n = 0, enc = 0, dec = 0, windows = 0, shift = condition == EVAL_SWAPPED;
    for (; n < l->pages && first + n < f->s->n; n++) {
        f->pages[n] = eval_shard_page(&f->s->pages[(first + n + shift) % f->s->n], &f->s->pages[first + n]);
        BatchRows page = batch_page_rows(&f->pages[n], &f->m->t, N, UINT32_MAX);
        enc += page.enc;
        dec += page.dec;
        windows += page.windows;
        if (enc > l->enc_rows || dec > l->dec_rows || windows > l->windows) break;
    }
    batch_build(&f->batch, f->pages, NULL, n, &f->m->t, N, UINT32_MAX, NULL);
    return n;
}

static void add_latents(Forced *f) {
    C3 *m = &f->m->c3;
    const int n = f->batch.enc.pages;
    m->b->cast_to_f32(m->b, f->device, m->enc_acts.out, (size_t)n * f->size);
    m->b->download(m->b, f->host, f->device, (size_t)n * f->size * sizeof(float));
    for (int w = 0; w < n; w++) {
        for (size_t i = 0; i < f->size; i++) f->sum[i] += f->host[(size_t)w * f->size + i];
    }
    f->windows += n;
}

// The same latents for each window.
static void forward_constant(Forced *f, const float *latents) {
    C3 *m = &f->m->c3;
    const int n = f->batch.enc.pages;
    for (int w = 0; w < n; w++) memcpy(f->host + (size_t)w * f->size, latents, f->size * sizeof(float));
    m->b->upload(m->b, f->device, f->host, (size_t)n * f->size * sizeof(float));
    m->b->cast_from_f32(m->b, m->enc_acts.out, f->device, (size_t)n * f->size);
    c3_forward_latents(m, &f->batch, m->enc_acts.out);
}

// The losses of page p of the batch.
static void read_page(Forced *f, EvalPage *page, int p, EvalCondition condition) {
    const C3 *m = &f->m->c3;
    EvalForced *result = &page->forced[condition];
    int begin = f->batch.dec.output_cu[p], end = f->batch.dec.output_cu[p + 1];
    *result = (EvalForced){0};
    page->forced_rows = end - begin;
    for (int i = begin; i < end; i++) {
        result->loss += m->host_losses[i];
        result->correct += m->host_correct[i];
    }
}

// One pass over all pages. latents: those of a condition that gives every page the same; else NULL.
static void forced_pass(Forced *f, EvalCondition condition, const float *latents) {
    C3 *m = &f->m->c3;
    progress_phase(f->progress, eval_conditions[condition].pass, PROGRESS_PREFILL, f->s->n, eval_tokens(f->s));
    for (int first = 0, n; first < f->s->n; first += n) {
        n = pack(f, first, condition);
        if (latents) forward_constant(f, latents);
        else if (condition == EVAL_ALONE) c3_forward_latents(m, &f->batch, m->enc_acts.out); // of no rows
        else c3_forward(m, &f->batch);
        if (condition == EVAL_OWN) add_latents(f);
        c3_read_loss(m, &f->batch);
        for (int p = 0; p < n; p++) read_page(f, &f->s->pages[first + p], p, condition);
        progress_pages(f->progress, first + n, f->s->n);
    }
}

// ---- controls, free-running ----------------------------------------------------------------------------------------

// The precision of each page from n decoded pages; n = 1: one text for all.
static int control_precision(EvalSet *s, EvalCondition condition, const GeneratePage *pages, int n,
                             const Tokenizer *tok, char **kept, Error *err) {
    char **texts = alloc_zeroed((size_t)n, sizeof *texts, "texts of a control");
    size_t *lengths = alloc((size_t)n, sizeof *lengths, "texts of a control");
    int bad = 0;
    for (int i = 0; i < n && !bad; i++) bad = generate_nfc(&texts[i], &lengths[i], tok, &pages[i], err);
#pragma omp parallel for schedule(dynamic) if (!bad)
    for (int i = 0; i < s->n; i++) {
        PageMetrics m;
        EvalPage *p = &s->pages[i];
        int t = n == 1 ? 0 : i;
        if (bad) continue;
        metrics_page(&m, p->reference, p->n_reference, texts[t], lengths[t]);
        p->forced[condition].char_precision = m.char_precision;
    }
    if (condition == EVAL_MEAN && !bad) {
        *kept = texts[0];
        texts[0] = NULL;
    }
    for (int i = 0; i < n; i++) free(texts[i]);
    free(texts);
    free(lengths);
    return bad;
}

static int any_prompt(const EvalSet *s) {
    for (int i = 0; i < s->n; i++)
        if (s->pages[i].prompt.n) return 1;
    return 0;
}

// latents NULL: swapped; else from constant latents one text for each page, or where nothing else is asked of one than
// of another one for all, as long as the longest page may become.
static int control_decode(EvalSet *s, const Model *m, const EvalOptions *o, Generator *g, EvalCondition condition,
                          const float *latents, char **kept, Error *err) {
    int n = latents && !any_prompt(s) ? 1 : s->n, longest = eval_longest_new(s, m, o);
    GeneratePage *pages = eval_requests(s, 1, m, o);
    for (int i = 0; i < n && latents; i++) {
        pages[i].latents = latents;
        if (n == 1) pages[i].max_new = longest;
    }
    progress_phase(o->progress, eval_conditions[condition].decoding, PROGRESS_DECODE, n,
                   latents ? longest : eval_tokens(s));
    int bad = generate_pages(g, pages, n, o->no_repeat_ngram, progress_pages, o->progress, err);
    if (!bad) bad = control_precision(s, condition, pages, n, m->tok, kept, err);
    generate_free(pages, n);
    free(pages);
    return bad;
}

static int run_controls(Forced *f, const EvalOptions *o, char **no_latents_text, Error *err) {
    Generator *g;
    TRY(eval_generator(&g, f->s, f->m, o, err));
    float *zero = alloc_zeroed(2 * f->size, sizeof *zero, "latents"), *mean = zero + f->size;
    for (size_t i = 0; i < f->size; i++) mean[i] = (float)(f->sum[i] / f->windows);
    int bad = 0;
    for (EvalCondition c = EVAL_SWAPPED; c < N_CONDITIONS && !bad; c++) {
        const float *latents = c == EVAL_MEAN ? mean : c == EVAL_ZERO ? zero : NULL;
        forced_pass(f, c, latents);
        bad = control_decode(f->s, f->m, o, g, c, latents, no_latents_text, err);
    }
    generator_free(g);
    free(zero);
    return bad;
}

void eval_expect(const EvalSet *s, const Model *m, const EvalOptions *o, int controls) {
    double tokens = eval_tokens(s), longest = eval_longest_new(s, m, o);
    int passes = controls ? N_CONDITIONS : EVAL_SWAPPED;
    progress_expect(o->progress, PROGRESS_DECODE, tokens); // eval_reconstruct
    for (int i = 0; i < passes; i++) progress_expect(o->progress, PROGRESS_PREFILL, tokens);
    if (controls) progress_expect(o->progress, PROGRESS_DECODE, tokens + 2 * longest);
}

int eval_forced(EvalSet *s, Model *m, const EvalOptions *o, int controls, char **no_latents_text, Error *err) {
    Forced f;
    *no_latents_text = NULL;
    TRY(forced_create(&f, m, s, err));
    f.progress = o->progress;
    forced_pass(&f, EVAL_OWN, NULL);
    forced_pass(&f, EVAL_ALONE, NULL);
    int bad = controls ? run_controls(&f, o, no_latents_text, err) : 0;
    forced_free(&f);
    return bad;
}
