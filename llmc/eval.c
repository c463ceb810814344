// eval.c: see eval.h. Reading, decoding, teacher-forced rows and controls; eval_report.c sums up and writes the files.
#include "eval.h"

#include <stdlib.h>
#include <string.h>

#include "file.h" // string_format
#include "pages.h"

// ---- reading -------------------------------------------------------------------------------------------------------

static const Tokens *answer_of(const EvalPage *p) { return p->answer.n ? &p->answer : &p->context; }

static void free_page(EvalPage *p) {
    free(p->id);
    free(p->reference);
    free(p->output);
    tokens_free(&p->context);
    tokens_free(&p->answer);
}

void eval_free(EvalSet *s) {
    for (int i = 0; i < s->n; i++) free_page(&s->pages[i]);
    free(s->pages);
    *s = (EvalSet){0};
}

static int read_page(EvalPage *p, const Page *in, const Tokenizer *tok, int *is_nfc, Error *err) {
    const char *text = in->answer ? in->answer : in->text;
    size_t length = in->answer ? in->answer_length : in->length;
    *p = (EvalPage){.id = strdup(in->id)};
    if (!p->id) return error_set(err, "out of memory");
    if (text_nfc(&p->reference, &p->n_reference, text, length, err) != 0 ||
        tokenizer_encode(tok, &p->context, in->text, in->length, err) != 0 ||
        (in->answer && tokenizer_encode(tok, &p->answer, in->answer, in->answer_length, err) != 0))
        return error_prefix(err, "%s", in->id);
    *is_nfc = p->n_reference == length && memcmp(p->reference, text, length) == 0;
    return 0;
}

static int is_too_long(const EvalPage *p, const Model *m, const EvalOptions *o) {
    const C3Config *c = &m->source.config;
    size_t dec = (size_t)template_overhead(&m->t, c->latents) + answer_of(p)->n;
    size_t enc = p->context.n + 1 + (size_t)c->latents;
    return (o->maxlen > 0 && dec > (size_t)o->maxlen) || dec > (size_t)c->dec.max_positions ||
           enc > (size_t)c->enc.max_positions;
}

static int add_page(EvalSet *s, const Page *in, const Model *m, const EvalOptions *o, int *room, Error *err) {
    EvalPage p;
    int is_nfc = 1;
    if (read_page(&p, in, m->tok, &is_nfc, err) != 0) {
        free_page(&p);
        return -1;
    }
    int empty = p.context.n == 0 || (in->answer && p.answer.n == 0), too_long = !empty && is_too_long(&p, m, o);
    s->empty += empty;
    s->too_long += too_long;
    if (empty || too_long) {
        free_page(&p);
        return 0;
    }
    s->not_nfc += !is_nfc;
    if (s->n == *room) {
        int more = *room ? 2 * *room : 64;
        EvalPage *grown = realloc(s->pages, (size_t)more * sizeof *grown);
        if (!grown) {
            free_page(&p);
            return error_set(err, "out of memory (%d pages)", more);
        }
        s->pages = grown;
        *room = more;
    }
    s->pages[s->n++] = p;
    return 0;
}

int eval_read(EvalSet *s, const Model *m, const char *path, const EvalOptions *o, Error *err) {
    *s = (EvalSet){0};
    PageReader *r;
    Page page;
    int more = 0, room = 0;
    TRY(pages_open(&r, path, err));
    while ((o->limit == 0 || s->n < o->limit) && (more = pages_next(r, &page, err)) > 0) {
        more = add_page(s, &page, m, o, &room, err);
        if (more < 0) break;
    }
    pages_close(r);
    if (more >= 0 && s->n == 0)
        more = error_set(err, "%s: no page to work on (%d empty, %d longer than the model takes)", path, s->empty,
                         s->too_long);
    if (more < 0) eval_free(s);
    return more < 0 ? -1 : 0;
}

// ---- free-running reconstruction -----------------------------------------------------------------------------------

static int new_tokens(const EvalPage *p, const Model *m, const EvalOptions *o) {
    const C3Config *c = &m->source.config;
    int n = o->max_new > 0 ? o->max_new : 2 * (int)answer_of(p)->n + 32;
    int room = c->dec.max_positions - template_overhead(&m->t, c->latents);
    n = n < room ? n : room;
    return o->max_new > 0 || n < GENERATE_MAX_NEW ? n : GENERATE_MAX_NEW;
}

static int make_generator(Generator **g, const EvalSet *s, const Model *m, const EvalOptions *o, Error *err) {
    const size_t most = (size_t)4 << 30; // bytes of caches and activations when nobody chose the number of pages
    GeneratorLimits l = {.pages = o->pages > 0 ? o->pages : 64};
    for (int i = 0; i < s->n; i++) {
        int context = (int)s->pages[i].context.n, max_new = new_tokens(&s->pages[i], m, o);
        if (context > l.context) l.context = context;
        if (max_new > l.max_new) l.max_new = max_new;
    }
    if (l.pages > s->n) l.pages = s->n;
    size_t bytes;
    for (;; l.pages = (l.pages + 1) / 2) {
        if (generator_memory(&bytes, &m->c3, &m->t, &l) != 0) return error_set(err, "out of memory");
        if (bytes <= most || l.pages == 1 || o->pages > 0) break;
    }
    return generator_create(g, &m->c3, &m->t, &l, err);
}

static int take_output(EvalPage *p, const GeneratePage *g, const Tokenizer *tok, Error *err) {
    size_t length;
    const Tokens *answer = answer_of(p);
    char *text = generate_text(tok, g->ids, g->n, &length);
    if (!text) return error_set(err, "out of memory");
    int bad = text_nfc(&p->output, &p->n_output, text, length, err);
    free(text);
    p->output_tokens = g->n;
    p->ended = g->ended;
    p->same_tokens = 0;
    for (int i = 0; i < g->n && (size_t)i < answer->n; i++) p->same_tokens += g->ids[i] == answer->ids[i];
    return bad;
}

static int measure(EvalSet *s, Error *err) {
    int bad = 0;
#pragma omp parallel for schedule(dynamic) reduction(| : bad)
    for (int i = 0; i < s->n; i++) {
        EvalPage *p = &s->pages[i];
        bad |= metrics_page(&p->m, p->reference, p->n_reference, p->output, p->n_output) != 0;
    }
    return bad ? error_set(err, "metrics: out of memory") : 0;
}

int eval_reconstruct(EvalSet *s, const Model *m, const EvalOptions *o, void (*progress)(void *, int, int), void *arg,
                     Error *err) {
    GeneratePage *pages = calloc((size_t)s->n, sizeof *pages);
    Generator *g = NULL;
    if (!pages) return error_set(err, "out of memory");
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        pages[i] =
            (GeneratePage){.context = p->context.ids, .n_context = (int)p->context.n, .max_new = new_tokens(p, m, o)};
    }
    int bad = make_generator(&g, s, m, o, err);
    if (!bad) {
        generator_sampling(g, &o->sampling);
        generator_listen(g, o->token, o->token_arg);
        bad = generate_pages(g, pages, s->n, o->no_repeat_ngram, progress, arg, err);
    }
    for (int i = 0; i < s->n && !bad; i++) bad = take_output(&s->pages[i], &pages[i], m->tok, err) != 0;
    generate_free(pages, s->n);
    generator_free(g);
    free(pages);
    return bad ? -1 : measure(s, err);
}

// ---- teacher-forced rows -------------------------------------------------------------------------------------------

// Rows of a batch: enough for efficient products.
enum { FORCED_ROWS = 4096 };

C3Limits eval_limits(const EvalSet *s, const Model *m) {
    int N = m->source.config.latents, overhead = template_overhead(&m->t, N);
    C3Limits l = {.micro_batches = 1, .recompute = KEEP_NOTHING, .enc_rows = FORCED_ROWS, .dec_rows = FORCED_ROWS};
    for (int i = 0; i < s->n; i++) {
        int enc = (int)s->pages[i].context.n + 1 + N, answer = (int)answer_of(&s->pages[i])->n;
        if (enc > l.enc_rows) l.enc_rows = enc;
        if (overhead + answer > l.dec_rows) l.dec_rows = overhead + answer;
    }
    l.pages = FORCED_ROWS / overhead > 0 ? FORCED_ROWS / overhead : 1;
    if (l.pages > s->n) l.pages = s->n;
    l.dec_kept = l.dec_rows;
    return l;
}

// What one pass over all pages needs.
typedef struct Forced {
    Model *m;
    EvalSet *s;
    MicroBatch batch;
    ShardPage *pages; // (limits.pages)
    float *device;    // (limits.pages*N,D_enc)
    float *host;      // the same
    double *sum;      // (N,D_enc) of all pages' latents
    float *mean;      // (N,D_enc)
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
    else if (batch_create(&f->batch, l->pages, l->enc_rows, l->dec_rows, l->dec_kept, err) == 0 &&
             m->b->alloc(m->b, (void **)&f->device, (size_t)l->pages * latents * sizeof(float), "latents", err) == 0)
        return 0;
    forced_free(f);
    return -1;
}

// Pages first.. that fit into one batch, each with the context of the page `shift` further on. Returns how many.
static int pack(Forced *f, int first, int shift) {
    const C3Limits *l = &f->m->c3.limits;
    int N = f->m->c3.config.latents, overhead = template_overhead(&f->m->t, N), n = 0, enc = 0, dec = 0;
    for (; n < l->pages && first + n < f->s->n; n++) {
        const Tokens *context = &f->s->pages[(first + n + shift) % f->s->n].context;
        const Tokens *answer = answer_of(&f->s->pages[first + n]);
        enc += (int)context->n + 1 + N;
        dec += overhead + (int)answer->n;
        if (enc > l->enc_rows || dec > l->dec_rows) break;
        f->pages[n] = (ShardPage){.context = (const uint32_t *)context->ids,
                                  .context_length = (uint32_t)context->n,
                                  .answer = (const uint32_t *)answer->ids,
                                  .answer_length = (uint32_t)answer->n};
    }
    batch_build(&f->batch, f->pages, NULL, n, &f->m->t, N, UINT32_MAX, 1.0f);
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
    c3_forward_latents(m, &f->batch, 0, m->enc_acts.out);
}

enum { OWN_LATENTS = -1 };

// One pass over all pages; control: OWN_LATENTS or one of the controls (latents: those of a constant one).
static void forced_pass(Forced *f, int control, const float *latents) {
    C3 *m = &f->m->c3;
    for (int first = 0, n; first < f->s->n; first += n) {
        n = pack(f, first, control == CONTROL_SWAPPED);
        if (latents) forward_constant(f, n, latents);
        else c3_forward(m, &f->batch, 0);
        if (control == OWN_LATENTS) add_latents(f, n);
        c3_read_loss(m, &f->batch, 0);
        for (int p = 0; p < n; p++) {
            EvalPage *page = &f->s->pages[first + p];
            int begin = f->batch.dec.kept_cu[p], end = f->batch.dec.kept_cu[p + 1], correct = 0;
            for (int i = begin; i < end; i++) correct += m->host_correct[i];
            page->forced_rows = end - begin;
            if (control == OWN_LATENTS) page->forced_correct = correct;
            else page->control_correct[control] = correct;
        }
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
        short_of_memory |= metrics_page(&m, s->pages[i].reference, s->pages[i].n_reference, texts[t], lengths[t]) != 0;
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
    int n = latents ? 1 : s->n, longest = 0;
    GeneratePage *pages = calloc((size_t)n, sizeof *pages);
    if (!pages) return error_set(err, "out of memory");
    for (int i = 0; i < s->n; i++) {
        int max_new = new_tokens(&s->pages[i], m, o);
        longest = max_new > longest ? max_new : longest;
        if (latents) continue;
        const Tokens *context = &s->pages[(i + 1) % s->n].context;
        pages[i] = (GeneratePage){.context = context->ids, .n_context = (int)context->n, .max_new = max_new};
    }
    if (latents) pages[0] = (GeneratePage){.latents = latents, .max_new = longest};
    int bad = generate_pages(g, pages, n, o->no_repeat_ngram, NULL, NULL, err);
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
    int bad = make_generator(&g, f->s, f->m, o, err);
    for (int c = 0; c < N_CONTROLS && !bad; c++) {
        forced_pass(f, c, latents[c]);
        bad = control_decode(f->s, f->m, o, g, (Control)c, latents[c], c == CONTROL_NO_LATENTS ? no_latents_text : NULL,
                             err);
    }
    generator_free(g);
    free(zero);
    return bad;
}

int eval_forced(EvalSet *s, Model *m, const EvalOptions *o, int controls, char **no_latents_text, Error *err) {
    Forced f;
    *no_latents_text = NULL;
    TRY(forced_create(&f, m, s, err));
    forced_pass(&f, OWN_LATENTS, NULL);
    int bad = controls ? run_controls(&f, o, no_latents_text, err) : 0;
    forced_free(&f);
    return bad;
}
