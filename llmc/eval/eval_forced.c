// eval_forced.c: teacher-forced rows of an evaluation, and its controls. See eval.h.
#include <stdlib.h>
#include <string.h>

#include "llmc/eval/eval.h"

// ---- teacher-forced rows -------------------------------------------------------------------------------------------

// Rows of a batch: enough for efficient products.
enum { FORCED_ROWS = 4096 };

C3Limits eval_limits(const EvalSet *s, const Model *m) {
    int N = m->files.config.latents, overhead = template_overhead(&m->t, N);
    C3Limits l = {.recompute = KEEP_NOTHING, .enc_rows = FORCED_ROWS, .dec_rows = FORCED_ROWS};
    for (int i = 0; i < s->n; i++) {
        int enc = (int)s->pages[i].context.n + 1 + N, answer = (int)eval_answer(&s->pages[i])->n;
        if (enc > l.enc_rows) l.enc_rows = enc;
        if (overhead + answer > l.dec_rows) l.dec_rows = overhead + answer;
    }
    l.pages = FORCED_ROWS / overhead > 0 ? FORCED_ROWS / overhead : 1;
    if (l.pages > s->n) l.pages = s->n;
    l.dec_outputs = l.dec_rows;
    return l;
}

// What one pass over all pages needs.
typedef struct Forced {
    Model *m;
    EvalSet *s;
    MicroBatch batch;
    ShardPage *pages;   // (limits.pages)
    float *device;      // (limits.pages*N,D_enc)
    float *host;        // the same
    double *sum;        // (N,D_enc) of all pages' latents
    float *mean;        // (N,D_enc)
    Progress *progress; // who watches; NULL: nobody
} Forced;

static void forced_free(Forced *f) {
    if (f->device) f->m->b->release(f->m->b, f->device);
    batch_free(&f->batch);
    free(f->pages);
    free(f->host);
    free(f->sum);
    free(f->mean);
}

static int forced_create(Forced *f, Model *m, EvalSet *s, Error *err) {
    *f = (Forced){.m = m, .s = s};
    const C3Limits *l = &m->c3.limits;
    size_t latents = (size_t)m->c3.config.latents * m->c3.config.enc.D;
    f->pages = malloc((size_t)l->pages * sizeof *f->pages);
    f->host = malloc((size_t)l->pages * latents * sizeof(float));
    f->sum = calloc(latents, sizeof(double));
    f->mean = calloc(latents, sizeof(float));
    if (!f->pages || !f->host || !f->sum || !f->mean) error_set(err, "out of memory");
    else if (batch_create(&f->batch, m->b, c3_batch_rows(l), err) == 0 &&
             m->b->alloc(m->b, (void **)&f->device, (size_t)l->pages * latents * sizeof(float), "latents", err) == 0)
        return 0;
    forced_free(f);
    return -1;
}

// Under which condition rows are looked at: one of the controls, or
enum { OWN_LATENTS = -1, DECODER_ALONE = -2 };

// Pages first.. that fit into one batch, each with the context its condition gives it. Returns how many.
static int pack(Forced *f, int first, int condition) {
    const C3Limits *l = &f->m->c3.limits;
    int N = condition == DECODER_ALONE ? 0 : f->m->c3.config.latents, overhead = template_overhead(&f->m->t, N);
    int n = 0, enc = 0, dec = 0, shift = condition == CONTROL_SWAPPED;
    for (; n < l->pages && first + n < f->s->n; n++) {
        const Tokens *context = &f->s->pages[(first + n + shift) % f->s->n].context;
        const Tokens *answer = eval_answer(&f->s->pages[first + n]);
        enc += (int)context->n + 1 + N;
        dec += overhead + (int)answer->n;
        if (enc > l->enc_rows || dec > l->dec_rows) break;
        f->pages[n] = (ShardPage){.context = (const uint32_t *)context->ids,
                                  .context_length = (uint32_t)context->n,
                                  .answer = (const uint32_t *)answer->ids,
                                  .answer_length = (uint32_t)answer->n};
    }
    batch_build(&f->batch, f->pages, NULL, n, &f->m->t, N, UINT32_MAX, NULL);
    return n;
}

static void add_latents(Forced *f, int n) {
    C3 *m = &f->m->c3;
    size_t size = (size_t)m->config.latents * m->config.enc.D;
    m->b->cast_to_f32(m->b, f->device, m->enc_acts.out, (size_t)n * size);
    m->b->download(m->b, f->host, f->device, (size_t)n * size * sizeof(float));
    for (int p = 0; p < n; p++) {
        for (size_t i = 0; i < size; i++) f->sum[i] += f->host[(size_t)p * size + i];
    }
}

// The same latents for each of n pages.
static void forward_constant(Forced *f, int n, const float *latents) {
    C3 *m = &f->m->c3;
    size_t size = (size_t)m->config.latents * m->config.enc.D;
    for (int p = 0; p < n; p++) memcpy(f->host + (size_t)p * size, latents, size * sizeof(float));
    m->b->upload(m->b, f->device, f->host, (size_t)n * size * sizeof(float));
    m->b->cast_from_f32(m->b, m->enc_acts.out, f->device, (size_t)n * size);
    c3_forward_latents(m, &f->batch, m->enc_acts.out);
}

static EvalForced *result_of(EvalPage *p, int condition) {
    return condition == OWN_LATENTS ? &p->forced : condition == DECODER_ALONE ? &p->alone : &p->control[condition];
}

// The name of a pass, and behind it of the decoding, for who watches.
static const char *const watched[][2] = {[CONTROL_SWAPPED] = {"control, swapped latents", "decoding swapped latents"},
                                         [CONTROL_NO_LATENTS] = {"control, mean latents", "decoding mean latents"},
                                         [CONTROL_ZERO] = {"control, zero latents", "decoding zero latents"}};

// One pass over all pages. latents: those of a condition that gives every page the same.
static void forced_pass(Forced *f, int condition, const float *latents) {
    C3 *m = &f->m->c3;
    progress_phase(f->progress,
                   condition == OWN_LATENTS     ? "teacher-forced"
                   : condition == DECODER_ALONE ? "the decoder alone"
                                                : watched[condition][0],
                   PROGRESS_PREFILL, f->s->n, eval_tokens(f->s));
    for (int first = 0, n; first < f->s->n; first += n) {
        n = pack(f, first, condition);
        if (latents) forward_constant(f, n, latents);
        else if (condition == DECODER_ALONE) c3_forward_latents(m, &f->batch, m->enc_acts.out); // of no rows
        else c3_forward(m, &f->batch);
        if (condition == OWN_LATENTS) add_latents(f, n);
        c3_read_loss(m, &f->batch);
        for (int p = 0; p < n; p++) {
            EvalPage *page = &f->s->pages[first + p];
            EvalForced *result = result_of(page, condition);
            int begin = f->batch.dec.output_cu[p], end = f->batch.dec.output_cu[p + 1];
            *result = (EvalForced){0};
            page->forced_rows = end - begin;
            for (int i = begin; i < end; i++) {
                result->loss += m->host_losses[i];
                result->correct += m->host_correct[i];
            }
        }
        progress_pages(f->progress, first + n, f->s->n);
    }
}

// ---- controls, free-running ----------------------------------------------------------------------------------------

static int control_precision(EvalSet *s, Control control, const GeneratePage *pages, int n, const Tokenizer *tok,
                             char **kept, Error *err) {
    int bad = 0;
    char **texts = calloc((size_t)n, sizeof *texts);
    size_t *lengths = calloc((size_t)n, sizeof *lengths);
    for (int i = 0; i < n && texts && lengths && !bad; i++) {
        size_t raw;
        char *text = generate_text(tok, pages[i].ids, pages[i].n, &raw);
        bad = text ? text_nfc(&texts[i], &lengths[i], text, raw, err) : error_set(err, "out of memory");
        free(text);
    }
    if (!texts || !lengths) bad = error_set(err, "out of memory");
    int short_of_memory = 0;
#pragma omp parallel for schedule(dynamic) reduction(| : short_of_memory) if (!bad)
    for (int i = 0; i < s->n; i++) {
        PageMetrics m;
        int t = n == 1 ? 0 : i; // constant latents: one text for all pages
        if (bad) continue;
        metrics_page(&m, s->pages[i].reference, s->pages[i].n_reference, texts[t], lengths[t]);
        s->pages[i].control_precision[control] = m.char_precision;
    }
    if (!bad && short_of_memory) bad = error_set(err, "metrics: out of memory");
    if (kept && texts && !bad) {
        *kept = texts[0];
        texts[0] = NULL;
    }
    for (int i = 0; i < n && texts; i++) free(texts[i]);
    free(texts);
    free(lengths);
    return bad ? -1 : 0;
}

// latents NULL: swapped; else one text from constant latents, as long as the longest page may become.
static int control_decode(EvalSet *s, const Model *m, const EvalOptions *o, Generator *g, Control control,
                          const float *latents, char **kept, Error *err) {
    int n = latents ? 1 : s->n, longest = eval_longest_new(s, m, o);
    GeneratePage *pages = calloc((size_t)n, sizeof *pages);
    if (!pages) return error_set(err, "out of memory");
    for (int i = 0; i < s->n && !latents; i++) {
        const Tokens *context = &s->pages[(i + 1) % s->n].context;
        pages[i] = (GeneratePage){
            .context = context->ids, .n_context = (int)context->n, .max_new = eval_new_tokens(&s->pages[i], m, o)};
    }
    if (latents) pages[0] = (GeneratePage){.latents = latents, .max_new = longest};
    if (o->progress) generator_listen(g, progress_token, o->progress);
    progress_phase(o->progress, watched[control][1], PROGRESS_DECODE, n, latents ? longest : eval_tokens(s));
    int bad = generate_pages(g, pages, n, o->no_repeat_ngram, progress_pages, o->progress, err);
    if (!bad) bad = control_precision(s, control, pages, n, m->tok, kept, err);
    generate_free(pages, n);
    free(pages);
    return bad;
}

static int run_controls(Forced *f, const EvalOptions *o, char **no_latents_text, Error *err) {
    Generator *g = NULL;
    size_t size = (size_t)f->m->c3.config.latents * f->m->c3.config.enc.D;
    float *zero = calloc(size, sizeof *zero);
    if (!zero) return error_set(err, "out of memory");
    for (size_t i = 0; i < size; i++) f->mean[i] = (float)(f->sum[i] / f->s->n);
    const float *latents[N_CONTROLS] = {[CONTROL_NO_LATENTS] = f->mean, [CONTROL_ZERO] = zero};
    int bad = eval_generator(&g, f->s, f->m, o, err);
    for (int c = 0; c < N_CONTROLS && !bad; c++) {
        forced_pass(f, c, latents[c]);
        bad = control_decode(f->s, f->m, o, g, (Control)c, latents[c], c == CONTROL_NO_LATENTS ? no_latents_text : NULL,
                             err);
    }
    generator_free(g);
    free(zero);
    return bad;
}

void eval_expect(const EvalSet *s, const Model *m, const EvalOptions *o, int controls) {
    double tokens = eval_tokens(s), longest = eval_longest_new(s, m, o);
    progress_expect(o->progress, PROGRESS_DECODE, tokens); // eval_reconstruct
    for (int i = 0; i < 2 + (controls ? N_CONTROLS : 0); i++) progress_expect(o->progress, PROGRESS_PREFILL, tokens);
    if (!controls) return;
    progress_expect(o->progress, PROGRESS_DECODE, tokens);
    for (int i = 0; i < 2; i++) progress_expect(o->progress, PROGRESS_DECODE, longest);
}

int eval_forced(EvalSet *s, Model *m, const EvalOptions *o, int controls, char **no_latents_text, Error *err) {
    Forced f;
    *no_latents_text = NULL;
    TRY(forced_create(&f, m, s, err));
    f.progress = o->progress;
    forced_pass(&f, OWN_LATENTS, NULL);
    forced_pass(&f, DECODER_ALONE, NULL);
    int bad = controls ? run_controls(&f, o, no_latents_text, err) : 0;
    forced_free(&f);
    return bad;
}
