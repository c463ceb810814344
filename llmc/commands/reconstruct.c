// reconstruct.c: c3 reconstruct: writes pages back from their latents and marks what is wrong.
#include <stdlib.h>

#include "llmc/base/clean.h"
#include "llmc/base/format.h"
#include "llmc/commands/shared.h"
#include "llmc/text/render.h"

enum { MAX_STOP = 64 };

static struct {
    ModelPlace model;
    EvalOptions eval;
    int64_t seed;
    const char *file, *stop;
    int32_t stop_ids[MAX_STOP];
    int json;
} given;

static void options(OptionTable *t) {
    Sampling *s = &given.eval.sampling;
    const Option rows[] = {
        {OPTION_INT("n", &given.model.latents, "latents a page, the first of the model's; 0 = all"), .max = 65536},
        {.help = "Drawing"},
        {OPTION_REAL("temperature", &s->temperature, "0 = greedy: always the likeliest token"), .max = 100,
         .argument = "T"},
        {OPTION_REAL("top_p", &s->top_p, "of the likeliest tokens that together reach P, 1 = all"), .initial = 1,
         .max = 1, .argument = "P"},
        {OPTION_INT64("seed", &given.seed, "the same seed draws the same text"), .initial = 1},
        {OPTION_TEXT("stop", &given.stop, NULL, "IDS", "tokens that end a page as well, as 151643,13")},
        {.help = "Input and output"},
        {OPTION_TEXT("f", &given.file, "-", "FILE", ".txt, .jsonl or .json pages; - is stdin")},
        {OPTION_TEXT("prompt", &given.eval.prompt, NULL, "TEXT",
                     "what is asked of each page, in place of its own prompt or \"Repeat the text: \"")},
        {OPTION_FLAG("json", &given.json, "one JSON object a page and line")},
        {0},
    };
    given.eval.skip = 1; // a page that is too long is counted
    add_eval_options(t, &given.model, &given.eval);
    cli_add(t, rows);
}

// The ids of -stop.
static int check(Error *err) {
    Sampling *s = &given.eval.sampling;
    s->seed = (uint64_t)given.seed;
    s->stop = given.stop_ids;
    for (const char *at = given.stop; at && *at;) {
        char *end;
        long id = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (id < 0 || id > INT32_MAX || (*end && *end != ',') || (*end == ',' && !end[1]))
            return error_set(err, "-stop %s: expected token ids with commas between them, as 151643,13", given.stop);
        if (s->n_stop == MAX_STOP) return error_set(err, "-stop: expected at most %d tokens", MAX_STOP);
        given.stop_ids[s->n_stop++] = (int32_t)id;
        at = *end ? end + 1 : end;
    }
    return 0;
}

static void print_page(const EvalPage *p, const Model *m, int number, int n, int colour) {
    const C3Config *c = &m->files.config;
    char *ops, text[4][32];
    size_t n_ops, bytes = (size_t)c->latents * c->enc.D * dtype_size(m->b->dtype);
    metrics_align(&ops, &n_ops, p->reference, p->n_reference, p->output, p->n_output);
    printf("page %d of %d: %s\n", number, n, clean(p->id));
    printf("%s characters (%s bytes), %s tokens -> %d latents of %d numbers (%s bytes): %.1f tokens a latent\n",
           format_count(text[0], (double)p->m.reference_chars), format_count(text[1], (double)p->n_reference),
           format_count(text[2], (double)p->context.n), c->latents, c->enc.D, format_count(text[3], (double)bytes),
           (double)p->context.n / c->latents);
    printf("precision %.2f %% (edit distance %zu)%s%s\nthe decoder's ln p a token: mean %.2g, least %.2g\n",
           100 * p->m.char_precision, p->m.edit_distance,
           p->m.exact ? ", exact"
           : colour   ? ""
                      : ", wrong characters stand in [brackets]",
           p->ended ? "" : ", cut at the limit of new tokens (-max_new)", eval_mean_log_prob(p), p->least_log_prob);
    if (p->prompt_text) printf("--- prompt\n%s\n", clean(p->prompt_text));
    printf(p->answer.n ? "--- answer\n" : "--- original\n");
    render_marked(stdout, p->reference, p->n_reference, ops, n_ops, RENDER_REFERENCE, colour);
    printf(p->prompt_text ? "--- written\n" : "--- reconstruction\n");
    render_marked(stdout, p->output, p->n_output, ops, n_ops, RENDER_OUTPUT, colour);
    printf("\n");
    free(ops);
}

static void print_pages(const EvalSet *s, const Model *m) {
    int colour = render_wants_colour(stdout);
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        sum += s->pages[i].m.char_precision;
        print_page(&s->pages[i], m, i + 1, s->n, colour);
    }
    if (s->n > 1) printf("%d pages, mean precision %.2f %%\n", s->n, 100 * sum / s->n);
}

static void print_json(const EvalSet *s, const Model *m) {
    for (int i = 0; i < s->n; i++) {
        char *line = eval_page_json(s, i, m->files.config.latents, NULL);
        printf("%s\n", line);
        free(line);
    }
}

static int reconstruct(Model *m, EvalSet *s, Error *err) {
    EvalOptions *o = &given.eval;
    TRY(open_pages(m, s, &given.model, o, given.file, NULL, err));
    if (!model_knows_latents(m)) warn_latents(m->files.config.latents);
    Progress f = watch(s, m, given.json ? NULL : stdout);
    o->progress = &f;
    int bad = eval_reconstruct(s, m, o, err);
    progress_end(&f);
    if (bad) return -1;
    if (f.failed) return error_set(err, "standard output: cannot write");
    if (given.json) print_json(s, m);
    else print_pages(s, m);
    return 0;
}

static int run(const char *const *words, int n, Error *err) {
    (void)words, (void)n;
    Model m = {0};
    EvalSet s = {0};
    int bad = reconstruct(&m, &s, err);
    eval_free(&s);
    model_close(&m);
    return bad;
}

const Command command_reconstruct = {
    .name = "reconstruct",
    .what = "write pages back from their latents, errors marked",
    .usage = "-m DIR [-f FILE]: writes pages back from their latents and marks what is wrong",
    .example = "c3 reconstruct -m runs/demo -f page.txt",
    .options = options,
    .check = check,
    .run = run,
};
