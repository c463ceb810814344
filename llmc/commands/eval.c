// eval.c: c3 eval: reconstruction of held-out pages in numbers.
#include <stdlib.h>

#include "llmc/base/alloc.h" // string_format
#include "llmc/base/clean.h"
#include "llmc/commands/shared.h"

static struct {
    ModelPlace model;
    EvalOptions eval;
    const char *out, *buckets, *perturb, *task, *n;
    int64_t seed;
    int no_controls;
    int edges[EVAL_MAX_BUCKETS + 1], n_edges; // -buckets
    LatentsMix latents;                       // -n
} given;

static void options(OptionTable *t) {
    const Option rows[] = {
        {OPTION_FLAG("skip", &given.eval.skip, "leave out pages longer than the model takes; else an error")},
        {OPTION_CHOICE("perturb", &given.perturb, "none", "none|random|shuffle",
                       "random characters in place of each text, or its own in random order")},
        {OPTION_CHOICE("task", &given.task, "repeat", "repeat|continue",
                       "of pages without a prompt of their own: continue as train_c3 -mix has it")},
        {OPTION_INT64("seed", &given.seed, "of -perturb"), .initial = 1, .max = 2147483647},
        {OPTION_TEXT(
            "n", &given.n, NULL, "N,...",
            "latents a page, the first of the model's; of several, as 8,16,32, each is evaluated: OUT_n8 ...")},
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
    TRY(latents_mix_parse(&given.latents, "n", given.n, 0, err));
    given.model.latents = latents_mix_most(&given.latents);
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

static int report(EvalSummary *sum, const EvalSet *s, const Model *m, const char *path, const char *out,
                  const char *no_latents, Error *err) {
    eval_summarise(sum, s, m->files.config.latents, given.edges, given.n_edges);
    EvalFiles files = {.out = out,
                       .model = m->folder,
                       .source = path,
                       .vocab = m->files.config.dec.V,
                       .no_latents_text = no_latents,
                       .options = given.eval,
                       .dtype = m->b->dtype == DTYPE_F32 ? "fp32" : "bf16"};
    TRY(eval_write(&files, s, sum, err));
    eval_print(stdout, &files, s, sum);
    printf("\nfiles: %s/eval.json pages.jsonl (scripts/score.py adds metrics of words and tables)\n", clean(out));
    return 0;
}

// The folder of results of the i-th number of latents; the caller frees it.
static char *folder_of(int i) {
    return given.latents.n > 1 ? string_format("%s_n%d", given.out, given.latents.latents[i]) : string_copy(given.out);
}

static int try_folders(Error *err) {
    int bad = 0;
    for (int i = 1; i < given.latents.n && !bad; i++) {
        char *out = folder_of(i);
        bad = eval_try_folder(out, err);
        free(out);
    }
    return bad;
}

// Of the i-th number of latents.
static int evaluate(EvalSummary *sum, EvalSet *s, Model *m, const char *path, int i, Error *err) {
    char *out = folder_of(i), *no_latents = NULL;
    int bad = given.latents.n ? model_use_latents(m, given.latents.latents[i], err) : 0;
    if (!bad && !model_knows_latents(m)) warn_latents(m->files.config.latents);
    if (!bad) bad = measure(s, m, &no_latents, err);
    if (!bad && i) printf("\n\n");
    if (!bad) bad = report(sum, s, m, path, out, no_latents, err);
    free(no_latents);
    free(out);
    return bad;
}

static int run(const char *const *words, int n, Error *err) {
    (void)n;
    Model m = {0};
    EvalSet s = {0};
    static EvalSummary sums[MIX_MAX];
    char *first = folder_of(0);
    int several = given.latents.n, bad = open_pages(&m, &s, &given.model, &given.eval, words[0], first, err);
    if (!bad) bad = try_folders(err);
    for (int i = 0; i < (several ? several : 1) && !bad; i++) bad = evaluate(&sums[i], &s, &m, words[0], i, err);
    if (!bad && several > 1) eval_print_latents(stdout, sums, several);
    free(first);
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
