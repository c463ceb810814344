// eval.c: c3 eval: reconstruction of held-out pages in numbers.
#include <stdlib.h>

#include "llmc/base/clean.h"
#include "llmc/commands/shared.h"

static struct {
    ModelPlace model;
    EvalOptions eval;
    const char *out, *buckets, *perturb, *task;
    int64_t seed;
    int no_controls;
    int edges[EVAL_MAX_BUCKETS + 1], n_edges; // -buckets
} given;

static void options(OptionTable *t) {
    const Option rows[] = {
        {OPTION_FLAG("skip", &given.eval.skip, "leave out pages longer than the model takes; else an error")},
        {OPTION_CHOICE("perturb", &given.perturb, "none", "none|random|shuffle",
                       "random characters in place of each text, or its own in random order")},
        {OPTION_CHOICE("task", &given.task, "repeat", "repeat|continue",
                       "of pages without a prompt of their own: continue as train_c3 -mix has it")},
        {OPTION_INT64("seed", &given.seed, "of -perturb"), .initial = 1, .max = 2147483647},
        {.help = "Tables"},
        {OPTION_TEXT("o", &given.out, NULL, "OUT", "folder of the results"), .required = 1},
        {OPTION_TEXT("buckets", &given.buckets, NULL, "EDGES",
                     "of text tokens: 600,700,800 or 600..1300:100, the paper's; default: from the data")},
        {OPTION_FLAG("no_controls", &given.no_controls, "leave out swapped, mean and zero latents")},
        {0},
    };
    add_eval_options(t, &given.model, &given.eval);
    cli_add(t, rows);
}

static int check(Error *err) {
    given.eval.seed = (uint64_t)given.seed;
    given.eval.task = given.task[0] == 'c' ? C3_CONTINUE : C3_REPEAT;
    TRY(perturb_parse(&given.eval.perturb, given.perturb, err));
    if (given.buckets) given.n_edges = eval_parse_edges(given.edges, given.buckets, err);
    return given.n_edges < 0 ? -1 : 0;
}

static int measure(EvalSet *s, Model *m, char **no_latents, Error *err) {
    EvalOptions *o = &given.eval;
    Progress f = watch(s, m, NULL);
    o->progress = &f;
    eval_expect(s, m, o, !given.no_controls);
    int bad = eval_reconstruct(s, m, o, err);
    if (!bad) bad = eval_forced(s, m, o, !given.no_controls, no_latents, err);
    progress_end(&f);
    return bad;
}

static int report(const EvalSet *s, const Model *m, const char *path, const char *no_latents, Error *err) {
    EvalSummary sum;
    eval_summarise(&sum, s, m->files.config.latents, given.edges, given.n_edges);
    EvalFiles files = {.out = given.out,
                       .model = m->folder,
                       .source = path,
                       .vocab = m->files.config.dec.V,
                       .no_latents_text = no_latents,
                       .options = given.eval,
                       .dtype = m->b->dtype == DTYPE_F32 ? "fp32" : "bf16"};
    TRY(eval_write(&files, s, &sum, err));
    eval_print(stdout, &files, s, &sum);
    printf("\nfiles: %s/eval.json pages.jsonl (scripts/score.py adds metrics of words and tables)\n", clean(given.out));
    return 0;
}

static int run(const char *const *words, int n, Error *err) {
    (void)n;
    Model m = {0};
    EvalSet s = {0};
    char *no_latents = NULL;
    int bad = open_pages(&m, &s, &given.model, &given.eval, words[0], given.out, err);
    if (!bad) bad = measure(&s, &m, &no_latents, err);
    if (!bad) bad = report(&s, &m, words[0], no_latents, err);
    free(no_latents);
    eval_free(&s);
    model_close(&m);
    return bad;
}

const Command command_eval = {
    .name = "eval",
    .what = "evaluate a model on held-out pages: tables, metrics, controls",
    .usage = "-m DIR PAGES.jsonl -o OUT: reconstruction of held-out pages in numbers",
    .example = "c3 eval -m runs/demo data/demo/val_en.jsonl -o runs/demo/eval_en",
    .word = "file of pages",
    .options = options,
    .check = check,
    .run = run,
};
