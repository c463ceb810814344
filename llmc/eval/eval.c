// eval.c: see eval.h. Reading and decoding; eval_forced.c holds teacher-forced rows and controls, eval_sum.c the sums,
// eval_report.c the files.
#include "llmc/eval/eval.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/file.h" // string_format
#include "llmc/text/pages.h"

// ---- reading -------------------------------------------------------------------------------------------------------

const Tokens *eval_answer(const EvalPage *p) { return p->answer.n ? &p->answer : &p->context; }

static void free_page(EvalPage *p) {
    free(p->id);
    free(p->reference);
    free(p->output);
    free(p->written);
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

// The same of the perturbed text.
static int read_perturbed(EvalPage *p, const Page *in, const Tokenizer *tok, const EvalOptions *o, uint64_t number,
                          Error *err) {
    Page other = {.id = in->id};
    char *text;
    int is_nfc;
    if (perturb_text(&text, &other.length, in->text, in->length, o->perturb, (o->seed << 32) + number, tok, err) != 0)
        return error_prefix(err, "%s", in->id);
    other.text = text;
    int bad = read_page(p, &other, tok, &is_nfc, err);
    free(text);
    return bad;
}

// Longest decoder and encoder sequence the model and the user allow.
static void limits_of(int *dec, int *enc, const Model *m, const EvalOptions *o) {
    const C3Config *c = &m->files.config;
    *dec = o->maxlen > 0 && o->maxlen < c->dec.max_positions ? o->maxlen : c->dec.max_positions;
    *enc = c->enc.max_positions;
}

// 1: left out, 0: usable, -1: refused.
static int check_length(EvalSet *s, const EvalPage *p, const Model *m, const EvalOptions *o, Error *err) {
    int dec_limit, enc_limit, N = m->files.config.latents;
    limits_of(&dec_limit, &enc_limit, m, o);
    // the end mark counts, as it does in training
    size_t dec = (size_t)template_overhead(&m->t, N) + eval_answer(p)->n + 1, enc = p->context.n + 1 + (size_t)N;
    s->too_long.all_pages++;
    s->too_long.all_tokens += eval_answer(p)->n;
    if (dec <= (size_t)dec_limit && enc <= (size_t)enc_limit) return 0;
    s->too_long.pages++;
    s->too_long.tokens += eval_answer(p)->n;
    if (o->skip) return 1;
    int is_dec = dec > (size_t)dec_limit;
    return error_set(err, "%s: %zu tokens make %s sequence of %zu, the longest is %d (hint: -skip leaves it out%s)",
                     p->id, p->context.n, is_dec ? "a decoder" : "an encoder", is_dec ? dec : enc,
                     is_dec ? dec_limit : enc_limit, is_dec ? "; -maxlen" : "");
}

static int keep_page(EvalSet *s, const EvalPage *p, int *room, Error *err) {
    if (s->n == *room) {
        int more = *room ? 2 * *room : 64;
        EvalPage *grown = realloc(s->pages, (size_t)more * sizeof *grown);
        if (!grown) return error_set(err, "out of memory (%d pages)", more);
        s->pages = grown;
        *room = more;
    }
    s->pages[s->n++] = *p;
    return 0;
}

static int add_page(EvalSet *s, const Page *in, const Model *m, const EvalOptions *o, uint64_t number, int *room,
                    Error *err) {
    EvalPage p = {0};
    int is_nfc = 1;
    int bad = o->perturb == PERTURB_NONE ? read_page(&p, in, m->tok, &is_nfc, err)
                                         : read_perturbed(&p, in, m->tok, o, number, err);
    int left_out = bad ? -1 : check_length(s, &p, m, o, err);
    if (left_out == 0 && keep_page(s, &p, room, err) == 0) {
        s->not_nfc += !is_nfc;
        return 0;
    }
    free_page(&p);
    return left_out == 1 ? 0 : -1;
}

int eval_read(EvalSet *s, const Model *m, const char *path, const EvalOptions *o, Error *err) {
    *s = (EvalSet){0};
    PageReader *r;
    Page page;
    int more = 0, room = 0;
    uint64_t number = 0;
    TRY(pages_open(&r, path, err));
    while ((o->limit == 0 || s->n < o->limit) && (more = pages_next(r, &page, err)) > 0) {
        more = add_page(s, &page, m, o, number++, &room, err);
        if (more < 0) break;
    }
    s->without_text = (int)pages_without_text(r);
    pages_close(r);
    if (more >= 0 && s->n == 0)
        more = error_set(err, "no page to work on (%d without text, %d longer than the model takes)", s->without_text,
                         (int)s->too_long.pages);
    if (more >= 0) return 0;
    eval_free(s);
    const char *file = strcmp(path, "-") ? path : "stdin"; // a page with an id of its own does not say where it stands
    return strncmp(err->text, file, strlen(file)) ? error_prefix(err, "%s", file) : -1;
}

// ---- free-running reconstruction -----------------------------------------------------------------------------------

int eval_new_tokens(const EvalPage *p, const Model *m, const EvalOptions *o) {
    const C3Config *c = &m->files.config;
    int room = c->dec.max_positions - template_overhead(&m->t, c->latents);
    return generate_new_tokens((int)eval_answer(p)->n, o->max_new, room);
}

int eval_longest_new(const EvalSet *s, const Model *m, const EvalOptions *o) {
    int longest = 0;
    for (int i = 0; i < s->n; i++) {
        int n = eval_new_tokens(&s->pages[i], m, o);
        longest = n > longest ? n : longest;
    }
    return longest;
}

double eval_tokens(const EvalSet *s) {
    double tokens = 0;
    for (int i = 0; i < s->n; i++) tokens += (double)eval_answer(&s->pages[i])->n + 1;
    return tokens;
}

int eval_generator(Generator **g, const EvalSet *s, const Model *m, const EvalOptions *o, Error *err) {
    const size_t most = (size_t)4 << 30; // bytes of caches and activations when nobody chose the number of pages
    GeneratorLimits l = {.pages = o->pages > 0 ? o->pages : 64};
    for (int i = 0; i < s->n; i++) {
        int context = (int)s->pages[i].context.n;
        if (context > l.context) l.context = context;
    }
    l.max_new = eval_longest_new(s, m, o);
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
    const Tokens *answer = eval_answer(p);
    char *text = generate_text(tok, g->ids, g->n, &length);
    if (!text) return error_set(err, "out of memory");
    int bad = text_nfc(&p->output, &p->n_output, text, length, err);
    if (!bad && (length != p->n_output || memcmp(text, p->output, length) != 0)) p->written = text;
    else free(text);
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
        metrics_page(&p->m, p->reference, p->n_reference, p->output, p->n_output);
    }
    return bad ? error_set(err, "metrics: out of memory") : 0;
}

int eval_reconstruct(EvalSet *s, const Model *m, const EvalOptions *o, Error *err) {
    GeneratePage *pages = calloc((size_t)s->n, sizeof *pages);
    Generator *g = NULL;
    if (!pages) return error_set(err, "out of memory");
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        pages[i] = (GeneratePage){
            .context = p->context.ids, .n_context = (int)p->context.n, .max_new = eval_new_tokens(p, m, o)};
    }
    int bad = eval_generator(&g, s, m, o, err);
    if (!bad) {
        generator_sampling(g, &o->sampling);
        if (o->progress) generator_listen(g, progress_token, o->progress);
        progress_phase(o->progress, "decoding", PROGRESS_DECODE, s->n, eval_tokens(s));
        bad = generate_pages(g, pages, s->n, o->no_repeat_ngram, progress_pages, o->progress, err);
        progress_phase(o->progress, "comparing", PROGRESS_PREFILL, 0, 0);
    }
    for (int i = 0; i < s->n && !bad; i++) bad = take_output(&s->pages[i], &pages[i], m->tok, err) != 0;
    generate_free(pages, s->n);
    generator_free(g);
    free(pages);
    return bad ? -1 : measure(s, err);
}
