// eval.c: see eval.h. Reading and decoding. Teacher-forced rows and controls: eval_forced.c; sums: eval_sum.c,
// eval_fidelity.c; files: eval_report.c; the printed table: eval_table.c.
#include "llmc/eval/eval.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/random.h"
#include "llmc/text/pages.h"
#include "llmc/train/tasks.h"

// ---- reading -------------------------------------------------------------------------------------------------------

const Tokens *eval_answer(const EvalPage *p) { return p->answer.n ? &p->answer : &p->context; }

ShardPage eval_shard_page(const EvalPage *context, const EvalPage *answer) {
    const Tokens *in = &context->context, *out = eval_answer(answer);
    return (ShardPage){.context = (const uint32_t *)in->ids,
                       .answer = (const uint32_t *)out->ids,
                       .context_length = (uint32_t)in->n,
                       .answer_length = (uint32_t)out->n,
                       .prompt = (const uint32_t *)answer->prompt.ids,
                       .prompt_length = (uint32_t)answer->prompt.n};
}

BatchRows eval_page_rows(const EvalPage *p, const Model *m) {
    ShardPage page = eval_shard_page(p, p);
    return batch_page_rows(&page, &m->t, m->files.config.latents, UINT32_MAX);
}

static void free_page(EvalPage *p) {
    free(p->id);
    free(p->reference);
    free(p->output);
    free(p->written);
    free(p->prompt_text);
    tokens_free(&p->context);
    tokens_free(&p->answer);
    tokens_free(&p->prompt);
}

void eval_free(EvalSet *s) {
    for (int i = 0; i < s->n; i++) free_page(&s->pages[i]);
    free(s->pages);
    *s = (EvalSet){0};
}

// prompt NULL: the page's own.
static int read_prompt(EvalPage *p, const Page *in, const char *prompt, const Tokenizer *tok, Error *err) {
    if (prompt ? pages_prompt_repeats(prompt) : !in->prompt) return 0;
    p->prompt_text = prompt ? string_copy(prompt) : string_format("%.*s", (int)in->prompt_length, in->prompt);
    return tokenizer_encode(tok, &p->prompt, p->prompt_text, strlen(p->prompt_text), err);
}

static int read_page(EvalPage *p, const Page *in, const char *prompt, const Tokenizer *tok, int *is_nfc, Error *err) {
    const char *text = in->answer ? in->answer : in->text;
    size_t length = in->answer ? in->answer_length : in->length;
    *p = (EvalPage){.id = string_copy(in->id)};
    TRY(text_nfc(&p->reference, &p->n_reference, text, length, err));
    TRY(tokenizer_encode(tok, &p->context, in->text, in->length, err));
    if (in->answer) TRY(tokenizer_encode(tok, &p->answer, in->answer, in->answer_length, err));
    TRY(read_prompt(p, in, prompt, tok, err));
    *is_nfc = p->n_reference == length && memcmp(p->reference, text, length) == 0;
    return 0;
}

static void copy_ids(Tokens *to, const uint32_t *ids, uint32_t n) {
    *to = (Tokens){.ids = alloc(n, sizeof *ids, "tokens"), .n = n, .room = n};
    memcpy(to->ids, ids, n * sizeof *ids);
}

// Makes of a page that is to be repeated one that is to be continued, if that is asked for.
static int make_task(EvalPage *p, const TaskMix *mix, uint64_t number, const Tokenizer *tok, Error *err) {
    ShardPage page = eval_shard_page(p, p);
    size_t n;
    tasks_make(mix, &page, mix->given ? C3_CONTINUE : C3_REPEAT, random_mix(number));
    if (p->prompt.n || !page.prompt_length) return 0;
    copy_ids(&p->answer, page.answer, page.answer_length);
    copy_ids(&p->prompt, page.prompt, page.prompt_length);
    p->context.n = page.context_length;
    p->prompt_text = generate_text(tok, p->prompt.ids, (int)p->prompt.n, &n);
    char *rest = generate_text(tok, p->answer.ids, (int)p->answer.n, &n);
    free(p->reference);
    int bad = text_nfc(&p->reference, &p->n_reference, rest, n, err);
    free(rest);
    return bad;
}

// The same with a perturbed text.
static int read_perturbed(EvalPage *p, const Page *in, const Tokenizer *tok, const EvalOptions *o, uint64_t number,
                          Error *err) {
    Page other = {.id = in->id};
    char *text;
    int is_nfc;
    TRY(perturb_text(&text, &other.length, in->text, in->length, o->perturb, (o->seed << 32) + number, tok, err));
    other.text = text;
    int bad = read_page(p, &other, o->prompt, tok, &is_nfc, err);
    free(text);
    return bad;
}

// 1: left out; 0: usable; -1: refused.
static int check_length(EvalSet *s, const EvalPage *p, const Model *m, const EvalOptions *o, Error *err) {
    const C3Config *c = &m->files.config;
    const size_t tokens = eval_answer(p)->n, N = (size_t)c->latents;
    const BatchRows rows = eval_page_rows(p, m);
    int dec_limit = o->maxlen > 0 && o->maxlen < c->dec.max_positions ? o->maxlen : c->dec.max_positions;
    int enc_limit = c->enc.max_positions;
    // the end mark counts, as it does in training
    size_t dec = (size_t)rows.dec + 1, enc = (rows.windows > 1 ? (size_t)c->window : p->context.n) + 1 + N;
    s->too_long.all_pages++;
    s->too_long.all_tokens += tokens;
    if (dec <= (size_t)dec_limit && enc <= (size_t)enc_limit) return 0;
    s->too_long.pages++;
    s->too_long.tokens += tokens;
    if (o->skip) return 1;
    int is_dec = dec > (size_t)dec_limit;
    return error_set(err, "%zu tokens make %s sequence of %zu, the longest is %d (hint: -skip leaves it out%s)",
                     p->context.n, is_dec ? "a decoder" : "an encoder", is_dec ? dec : enc,
                     is_dec ? dec_limit : enc_limit, is_dec ? "; -maxlen" : "");
}

static int add_page(EvalSet *s, const Page *in, const Model *m, const EvalOptions *o, const TaskMix *mix,
                    uint64_t number, size_t *room, Error *err) {
    EvalPage p = {0};
    int is_nfc = 1;
    int bad = o->perturb == PERTURB_NONE ? read_page(&p, in, o->prompt, m->tok, &is_nfc, err)
                                         : read_perturbed(&p, in, m->tok, o, number, err);
    if (!bad) bad = make_task(&p, mix, number, m->tok, err);
    int left_out = bad ? -1 : check_length(s, &p, m, o, err);
    if (left_out != 0) {
        free_page(&p);
        return left_out < 0 ? -1 : 0;
    }
    s->pages = alloc_grow(s->pages, (size_t)s->n, room, sizeof p, "pages");
    p.windows = eval_page_rows(&p, m).windows;
    s->pages[s->n++] = p;
    s->not_nfc += !is_nfc;
    return 0;
}

// Says where the page is: "FILE:number" and, where the page has another one, its id.
static int prefix_page(Error *err, const char *file, const Page *in) {
    char *place = string_format("%s:%llu", file, (unsigned long long)in->number);
    int named = strcmp(in->id, place) != 0;
    error_prefix(err, "%s%s%s", place, named ? ": " : "", named ? in->id : "");
    free(place);
    return -1;
}

int eval_read(EvalSet *s, const Model *m, const char *path, const EvalOptions *o, Error *err) {
    const char *file = strcmp(path, "-") ? path : "stdin";
    PageReader *r;
    Page page;
    size_t room = 0;
    int more = 0;
    TaskMix mix;
    *s = (EvalSet){0};
    TRY(tasks_open(&mix, o->task == C3_CONTINUE ? "continue:1" : NULL, m->tok, err));
    if (pages_open(&r, path, err) != 0) {
        tasks_close(&mix);
        return -1;
    }
    for (uint64_t i = 0; (o->limit == 0 || s->n < o->limit) && (more = pages_next(r, &page, err)) > 0; i++) {
        if (add_page(s, &page, m, o, &mix, i, &room, err) == 0) continue;
        more = prefix_page(err, file, &page);
        break;
    }
    s->without_text = (int)pages_without_text(r);
    pages_close(r);
    tasks_close(&mix);
    if (more >= 0 && s->n == 0)
        more = error_set(err, "%s: no page to work on (%d without text, %d longer than the model takes)", file,
                         s->without_text, (int)s->too_long.pages);
    if (more >= 0) return 0;
    eval_free(s);
    return -1;
}

// ---- free-running reconstruction -----------------------------------------------------------------------------------

int eval_new_tokens(const EvalPage *p, const Model *m, const EvalOptions *o) {
    int tokens = (int)eval_answer(p)->n;
    return model_new_tokens(m, eval_page_rows(p, m).dec - tokens, tokens, o->max_new);
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
    GeneratorLimits l = {.pages = s->n, .together = o->pages, .max_new = eval_longest_new(s, m, o)};
    for (int i = 0; i < s->n; i++) {
        int context = (int)s->pages[i].context.n;
        if (context > l.context) l.context = context;
        if ((int)s->pages[i].prompt.n > l.prompt) l.prompt = (int)s->pages[i].prompt.n;
    }
    TRY(generator_create(g, &m->c3, &m->t, &l, err));
    if (o->progress) generator_listen(*g, progress_token, o->progress);
    return 0;
}

GeneratePage *eval_requests(const EvalSet *s, int shift, const Model *m, const EvalOptions *o) {
    GeneratePage *pages = alloc((size_t)s->n, sizeof *pages, "pages");
    for (int i = 0; i < s->n; i++) {
        const Tokens *context = &s->pages[(i + shift) % s->n].context, *prompt = &s->pages[i].prompt;
        pages[i] = (GeneratePage){.context = context->ids,
                                  .n_context = (int)context->n,
                                  .prompt = prompt->ids,
                                  .n_prompt = (int)prompt->n,
                                  .max_new = eval_new_tokens(&s->pages[i], m, o)};
    }
    return pages;
}

static int set_output(EvalPage *p, const GeneratePage *g, const Tokenizer *tok, Error *err) {
    size_t length;
    const Tokens *answer = eval_answer(p);
    free(p->output); // of a decoding before, from another number of latents
    free(p->written);
    p->output = p->written = NULL;
    char *text = generate_text(tok, g->ids, g->n, &length);
    int bad = text_nfc(&p->output, &p->n_output, text, length, err);
    if (!bad && (length != p->n_output || memcmp(text, p->output, length) != 0)) p->written = text;
    else free(text);
    p->output_tokens = g->n;
    p->ended = g->ended;
    p->log_prob = g->log_prob;
    p->least_log_prob = g->least_log_prob;
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
    Generator *g;
    TRY(eval_generator(&g, s, m, o, err));
    GeneratePage *pages = eval_requests(s, 0, m, o);
    generator_sampling(g, &o->sampling);
    generator_confidence(g);
    progress_phase(o->progress, "decoding", PROGRESS_DECODE, s->n, eval_tokens(s));
    int bad = generate_pages(g, pages, s->n, o->no_repeat_ngram, progress_pages, o->progress, err);
    progress_phase(o->progress, "comparing", PROGRESS_PREFILL, 0, 0);
    for (int i = 0; i < s->n && !bad; i++) bad = set_output(&s->pages[i], &pages[i], m->tok, err);
    generate_free(pages, s->n);
    free(pages);
    generator_free(g);
    return bad ? -1 : measure(s, err);
}
