// options.c: see options.h.
#include "llmc/train/options.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h" // string_format
#include "llmc/train/tasks.h"

enum { MAX_FUSE = 65536 };

void options_table(TrainOptions *o, OptionTable *t) {
    const Option rows[] = {
        {.help = "Model (-m, or -enc with -dec, or -preset; default models/Qwen2.5-1.5B and models/Qwen2.5-3B)"},
        {OPTION_TEXT("m", &o->model, NULL, "DIR", "a C3 checkpoint to start from")},
        {OPTION_TEXT("enc", &o->enc, NULL, "DIR", "Qwen2.5 folder of the encoder; with -m: instead of its own")},
        {OPTION_TEXT("dec", &o->dec, NULL, "DIR", "Qwen2.5 folder of the decoder; with -m: instead of its own")},
        {OPTION_CHOICE("preset", &o->preset, NULL, "demo|tiny|small|medium|paper", "random weights, no files")},
        {OPTION_INT("vocab", &o->vocab, "base tokens: more get new rows, 0 = the model's own, for a preset the pages'"),
         .max = 151643, .argument = "K"},
        {OPTION_INT("n", &o->latents, "latents a page: Q of -m grows or is cut, 0 = the model's own or 32"),
         .max = 65536},
        {OPTION_INT("window", &o->window,
                    "longer contexts are read in windows of W tokens, n latents each; 0 = as -m, or whole"),
         .max = 131072, .argument = "W"},
        {OPTION_TEXT(
            "n_mix", &o->n_mix, NULL, "N,...",
            "8,16,32 or 8:1,16:1,32:2: each page is learned from its first 8, 16 or 32 latents, drawn by weight")},
        {OPTION_CHOICE("template", &o->template_name, "auto", "auto|c3|bare",
                       "words around the latents: auto = the model's own")},
        {OPTION_TEXT("tok", &o->tokenizer, NULL, "FILE",
                     "tokenizer.json or qwen.tiktoken; default: the model's, else data/qwen2.5/")},
        {.help = "Data"},
        {OPTION_LIST("data", &o->data, "data/ocr/train_*.bin", "GLOB",
                     "training shards (c3 tokenize makes them); NAME=GLOB:WEIGHT, several times, mixes sets")},
        {OPTION_LIST("val", &o->val, NULL, "GLOB", "validation shards; NAME=GLOB, several times, shows each set")},
        {OPTION_TEXT("mix", &o->mix, NULL, "TASKS",
                     "tasks drawn for pages without a prompt, as repeat:0.7,continue:0.3; default: repeat")},
        {OPTION_TEXT("val_lm", &o->val_lm, NULL, "GLOB",
                     "plain text: the decoder's perplexity on it without latents, at each validation")},
        {OPTION_REAL("val_lm_bound", &o->val_lm_bound, "warns when that is more than X times what it was at the start"),
         .initial = 1.5, .min = 1, .max = 1e9},
        {OPTION_INT64("maxlen", &o->maxlen, "longest decoder sequence in tokens; longer pages are skipped"),
         .initial = 8192, .min = 16, .max = 131072},
        {OPTION_REAL("len_warmup", &o->len_warmup,
                     "pages are cut, from 10 tokens to whole, over this share of the steps"),
         .max = 1, .argument = "F"},
        {OPTION_INT64("seed", &o->seed, "of the weights and the order of pages"), .initial = 1},
        {.help = "Steps"},
        {OPTION_INT64("b", &o->b, "pages a micro-batch and rank"), .initial = 2, .min = 1, .max = 65536},
        {OPTION_INT64("g", &o->g, "micro-batches a step and rank (gradient accumulation)"), .initial = 16, .min = 1,
         .max = 65536},
        {OPTION_INT64("steps", &o->steps, "optimizer steps"), .initial = 40000, .min = 1},
        {OPTION_INT64("epochs", &o->epochs, "instead of -steps: passes over the data, 0 = off"), .max = 1e6},
        {OPTION_CHOICE("loss_norm", &o->loss_norm, "token", "token|micro",
                       "mean over the step's tokens, or over micro-batch means")},
        {.help = "Optimizer (AdamW)"},
        {OPTION_REAL("lr", &o->lr, "peak learning rate"), .initial = 1e-5, .max = 1e6},
        {OPTION_INT64("warmup", &o->warmup, "steps of linear warmup"), .initial = 100},
        {OPTION_REAL("lr_min", &o->lr_min, "learning rate at the end"), .max = 1e6},
        {OPTION_CHOICE("schedule", &o->schedule, "cosine", "cosine|constant|linear|wsd", "after the warmup")},
        {OPTION_REAL("wd", &o->wd, "weight decay (matrices only)"), .max = 1e3},
        {OPTION_REAL("beta1", &o->beta1, "decay of the first moment"), .initial = 0.9, .max = 0.999999},
        {OPTION_REAL("beta2", &o->beta2, "decay of the second moment"), .initial = 0.999, .max = 0.99999999},
        {OPTION_REAL("eps", &o->eps, "added to the root of the second moment"), .initial = 1e-8, .min = 1e-30,
         .max = 1},
        {OPTION_REAL("clip", &o->clip, "largest global gradient norm, 0 = no clipping"), .initial = 1.0, .max = 1e9},
        {OPTION_REAL("lr_enc", &o->lr_enc, "learning rate of the encoder, times -lr"), .initial = 1, .max = 1e3},
        {OPTION_REAL("lr_dec", &o->lr_dec, "learning rate of the decoder, times -lr"), .initial = 1, .max = 1e3},
        {OPTION_REAL("lr_latent", &o->lr_latent, "learning rate of the queries and the projector, times -lr"),
         .initial = 1, .max = 1e3},
        {OPTION_CHOICE("freeze", &o->freeze, "none", "none|enc|dec", "stack that keeps its weights")},
        {.help = "Machine"},
        {OPTION_CHOICE("device", &o->device, "auto", "auto|cuda|cpu", "where to compute")},
        {OPTION_INT("threads", &o->threads, "cores a rank, 0 = its share of the host's"), .max = 1024},
        {OPTION_CHOICE("dtype", &o->dtype, "bf16", "bf16|fp32", "type of weights and activations")},
        {OPTION_CHOICE("zero", &o->zero, "auto", "auto|0|1|2",
                       "1: optimizer state divided over the ranks, 2: gradients too")},
        {OPTION_CHOICE("recompute", &o->recompute, "auto", "auto|none|cheap|layer",
                       "activations computed again in the backward pass; auto: what memory asks for")},
        {OPTION_TEXT("fuse", &o->fuse, "auto", "auto|N",
                     "micro-batches computed at once; auto: 1 on a CPU, as many pages as memory holds on a GPU")},
        {OPTION_FLAG("tune", &o->tune,
                     "time the best 8 algorithms of each matrix product of a GPU, for OUT/algorithms.json")},
        {OPTION_TEXT("algorithms", &o->algorithms, NULL, "FILE",
                     "algorithms.json of a run with -tune: use what was fastest there")},
        {.help = "Output"},
        {OPTION_TEXT("o", &o->out, "runs/c3", "DIR", "folder of the run")},
        {OPTION_INT64("val_every", &o->val_every,
                      "steps between validations, 0 = before the first step and at the end only"),
         .initial = 500},
        {OPTION_INT64("val_pages", &o->val_pages, "pages of a validation, of each set"), .initial = 256, .min = 1},
        {OPTION_INT64("sample_every", &o->sample_every,
                      "steps between reconstructions of validation pages, 0 = never")},
        {OPTION_INT("samples", &o->samples, "pages of such a reconstruction"), .initial = 2, .min = 1, .max = 64},
        {OPTION_INT64("save_every", &o->save_every, "steps between checkpoints, 0 = at the end"), .initial = 5000},
        {OPTION_REAL("save_minutes", &o->save_minutes, "minutes between checkpoints, 0 = off"), .max = 1e6},
        {OPTION_FLAG("no_save", &o->no_save,
                     "write no checkpoint at all, not at the end either: needs no disk for one")},
        {OPTION_INT("keep", &o->keep, "newest checkpoints kept, 0 = all"), .initial = 1, .max = 1e6},
        {OPTION_FLAG("keep_best", &o->keep_best,
                     "keep the checkpoint of the lowest validation loss as well: OUT/best leads to it")},
        {OPTION_INT("patience", &o->patience, "stop after N validations without a lower loss, 0 = never"), .max = 1e6},
        {OPTION_FLAG("keep_code", &o->keep_code,
                     "checkpoints get the *.py and auto_map of the model they come from, not our own")},
        {OPTION_TEXT("resume", &o->resume, "auto", "auto|no|DIR", "continue from the newest checkpoint in -o")},
        {OPTION_FLAG("resume_force", &o->resume_force, "even if the settings disagree")},
        {OPTION_INT("profile", &o->profile,
                    "steps to time by range, after the first two; with a trace, OUT/profile.json; 0 = off"),
         .max = 1000},
        {.help = "Planning (needs neither GPU nor models nor data)"},
        {OPTION_FLAG("plan", &o->plan, "print memory by kind, work, predicted times, then exit")},
        {OPTION_CHOICE("gpu", &o->gpu, NULL, "h100|h800|h200|a100|b200|4090|measured",
                       "with -plan: for these GPUs instead of this machine")},
        {OPTION_INT("plan_ranks", &o->plan_ranks, "with -plan: ranks, 0 = those started"), .max = 65536},
        {OPTION_INT("plan_tokens", &o->plan_tokens, "with -plan: text tokens a page when there is no data"),
         .initial = 950, .min = 1, .max = 131072},
        {OPTION_INT("plan_longest", &o->plan_longest,
                    "with -plan: of the longest page when there is no data, 0 = all alike"),
         .max = 131072},
        {0},
    };
    cli_add(t, rows);
    o->train_sets.n = o->val_sets.n = o->latents_mix.n = 0;
}

void options_free(TrainOptions *o) {
    sets_free(&o->train_sets);
    sets_free(&o->val_sets);
}

void options_help(FILE *out) {
    TrainOptions o;
    OptionTable t = {.n = 0};
    options_table(&o, &t);
    static const char *const examples[][2] = {
        {"mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000", "the paper's run"},
        {"./train_c3 -preset tiny -data 'data/demo/train_*.bin' -o runs/tiny -steps 100", "a small one from nothing"}};
    fprintf(out, "train_c3: trains Context Cascade Compression, two Qwen2.5 stacks joined by N latents.\n\n");
    for (int i = 0; i < 2; i++) fprintf(out, "  %-80s %s\n", examples[i][0], examples[i][1]);
    cli_help(out, &t);
    fprintf(out, "\n  %-34s %s\n", "--version", "commit, compiler, MPI, CUDA, CPU kernels");
}

char *options_json(const OptionTable *t, int64_t pages_a_step) {
    char *text = cli_json(t);
    char *longer = string_format("%.*s,\"pages_a_step\":%lld}", (int)strlen(text) - 1, text, (long long)pages_a_step);
    free(text);
    return longer;
}

int options_check(TrainOptions *o, Error *err) {
    if (!o->model && !!o->enc != !!o->dec)
        return error_set(err, "-%s without -%s: a new model needs both folders", o->enc ? "enc" : "dec",
                         o->enc ? "dec" : "enc");
    if (o->preset && (o->model || o->enc || o->dec))
        return error_set(err, "-preset is a model from nothing: expected no -m, -enc, -dec beside it, found -%s",
                         o->model ? "m"
                         : o->enc ? "enc"
                                  : "dec");
    if (o->vocab && o->vocab < 256) return error_set(err, "-vocab: expected 0, or 256 to 151643, found %d", o->vocab);
    if (o->lr_min > o->lr) return error_set(err, "-lr_min %g is above -lr %g", o->lr_min, o->lr);
    if (!o->out[0]) return error_set(err, "-o: expected a folder, found nothing");
    if (strcmp(o->fuse, "auto") != 0 && (strspn(o->fuse, "0123456789") != strlen(o->fuse) || options_fuse(o) < 1))
        return error_set(err, "-fuse: expected auto or a number from 1 to %d, found \"%s\"", MAX_FUSE, o->fuse);
    if ((o->gpu || o->plan_ranks || o->plan_longest) && !o->plan)
        return error_set(err, "-gpu, -plan_ranks and -plan_longest go with -plan (hint: -device chooses for a run)");
    if ((o->keep_best || o->patience) && !o->val.n)
        return error_set(err, "-%s goes by the validation loss: expected -val GLOB beside it",
                         o->keep_best ? "keep_best" : "patience");
    if (o->keep_best && o->no_save) return error_set(err, "-keep_best keeps a checkpoint, -no_save writes none");
    TaskMix mix;
    TRY(tasks_open(&mix, o->mix, NULL, err));
    TRY(latents_mix_parse(&o->latents_mix, "n_mix", o->n_mix, 1, err));
    TRY(sets_parse(&o->train_sets, "data", &o->data, 1, err));
    return sets_parse(&o->val_sets, "val", &o->val, 0, err);
}

int64_t options_steps(const TrainOptions *o, uint64_t pages, int ranks) {
    if (!o->epochs || !pages) return o->steps;
    return (int64_t)ceil((double)o->epochs * ((double)pages / (double)(o->b * o->g * ranks)));
}

DType options_dtype(const TrainOptions *o) { return strcmp(o->dtype, "fp32") == 0 ? DTYPE_F32 : DTYPE_BF16; }

int options_zero(const TrainOptions *o, int ranks) {
    if (!strcmp(o->zero, "auto")) return ranks > 1;
    int stage = o->zero[0] - '0';
    return stage == 2 && ranks == 1 ? 1 : stage;
}

int options_recompute(const TrainOptions *o) {
    if (!strcmp(o->recompute, "auto")) return -1;
    if (!strcmp(o->recompute, "cheap")) return RECOMPUTE_CHEAP;
    return !strcmp(o->recompute, "layer") ? RECOMPUTE_LAYER : RECOMPUTE_NONE;
}

int options_fuse(const TrainOptions *o) {
    if (!strcmp(o->fuse, "auto")) return 0;
    long n = strtol(o->fuse, NULL, 10);
    return n >= 1 && n <= MAX_FUSE ? (int)n : 0;
}

void options_print_given(FILE *out, const OptionTable *t) {
    char value[4096];
    for (int i = 0; i < t->n; i++) {
        const Option *o = &t->rows[i];
        if (o->name && o->given) fprintf(out, "  -%-13s %s\n", o->name, clean(cli_value(o, value, sizeof value)));
    }
}

ModelChoice options_model(const TrainOptions *o) {
    return (ModelChoice){.model = o->model,
                         .enc = o->enc,
                         .dec = o->dec,
                         .preset = o->preset,
                         .template_name = strcmp(o->template_name, "auto") ? o->template_name : NULL,
                         .tokenizer = o->tokenizer,
                         .pages = o->train_sets.n ? o->train_sets.list[0].globs : o->data.values[0],
                         .vocab = o->vocab,
                         .latents = o->latents,
                         .window = o->window,
                         .mix = o->latents_mix.n ? &o->latents_mix : NULL,
                         .dtype = options_dtype(o)};
}

OptimizerConfig options_optimizer(const TrainOptions *o, int64_t steps, int ranks) {
    OptimizerConfig c = {.lr = o->lr,
                         .lr_min = o->lr_min,
                         .beta1 = o->beta1,
                         .beta2 = o->beta2,
                         .eps = o->eps,
                         .weight_decay = o->wd,
                         .clip = o->clip,
                         .warmup = o->warmup,
                         .steps = steps};
    c.group_scale[GROUP_ENCODER] = o->lr_enc;
    c.group_scale[GROUP_DECODER] = o->lr_dec;
    c.group_scale[GROUP_LATENT] = o->lr_latent;
    c.frozen[GROUP_ENCODER] = strcmp(o->freeze, "enc") == 0;
    c.frozen[GROUP_DECODER] = strcmp(o->freeze, "dec") == 0;
    c.schedule = !strcmp(o->schedule, "constant") ? SCHEDULE_CONSTANT
                 : !strcmp(o->schedule, "linear") ? SCHEDULE_LINEAR
                 : !strcmp(o->schedule, "wsd")    ? SCHEDULE_WSD
                                                  : SCHEDULE_COSINE;
    c.zero = options_zero(o, ranks);
    return c;
}

// ---- resume --------------------------------------------------------------------------------------------------------

static int same_list(const cJSON *saved, const OptionList *now) {
    int several = cJSON_IsArray(saved), n = several ? cJSON_GetArraySize(saved) : !cJSON_IsNull(saved),
        same = n == now->n;
    for (int i = 0; i < n && same; i++) {
        const cJSON *value = several ? cJSON_GetArrayItem(saved, i) : saved;
        same = cJSON_IsString(value) && strcmp(value->valuestring, now->values[i]) == 0;
    }
    return same;
}

static int same_value(const cJSON *saved, const Option *o) {
    if (o->list) return same_list(saved, o->list);
    if (!o->text) return cJSON_IsNumber(saved) && saved->valuedouble == cli_number(o);
    const char *now = *o->text;
    return cJSON_IsString(saved) ? now && strcmp(saved->valuestring, now) == 0 : cJSON_IsNull(saved) && !now;
}

// Where a model came from: the same place by another name, or one that has moved away, is no other model.
static int other_model(const cJSON *saved, const Option *o) {
    const char *now = *o->text;
    struct stat old, new;
    if (o->choices || !cJSON_IsString(saved) || !now) return 1;
    if (stat(saved->valuestring, &old) != 0) return 0;
    return stat(now, &new) != 0 || old.st_dev != new.st_dev || old.st_ino != new.st_ino;
}

// name, among words separated by spaces?
static int is_among(const char *name, const char *words) {
    size_t n = strlen(name);
    for (const char *at = words; (at = strstr(at, name)); at += n) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return 1;
    }
    return 0;
}

// Options whose value decides what is learned from which page; those a resumed run may change without a word, b and g
// because only pages a step count; where the model came from.
static const char fixed[] = "n window n_mix vocab template seed dtype len_warmup maxlen loss_norm mix";
static const char silent[] = "b g o resume resume_force plan gpu plan_ranks plan_tokens plan_longest threads profile";
static const char models[] = "m enc dec preset";

static int compare_option(char **notes, const cJSON *saved, const Option *o, int force, Error *err) {
    char value[256], *text = cJSON_PrintUnformatted(saved);
    int bad = 0;
    cli_value(o, value, sizeof value);
    if (is_among(o->name, fixed) && !force)
        bad = error_set(err, "-%s is %s in the checkpoint and %s now (hint: use the old value, or -resume_force)",
                        o->name, text, value);
    else if (is_among(o->name, models) && other_model(saved, o) && !force)
        bad =
            error_set(err,
                      "-%s is %s in the checkpoint and %s now, another model (hint: -resume no starts anew with it and "
                      "sets the old run aside, -o names another folder, -resume_force continues from the checkpoint)",
                      o->name, cJSON_IsNull(saved) ? "not given" : text, value[0] ? value : "not given");
    else string_append(notes, "  -%s was %s, is now %s\n", o->name, text, value[0] ? value : "not given");
    free(text);
    return bad;
}

static int compare(char **notes, const cJSON *saved, const OptionTable *t, int64_t pages_a_step, int force,
                   Error *err) {
    const cJSON *pages = cJSON_GetObjectItemCaseSensitive(saved, "pages_a_step");
    if (cJSON_IsNumber(pages) && pages->valuedouble != (double)pages_a_step && !force)
        return error_set(err,
                         "the checkpoint was made with %.0f pages a step (b x g x ranks), now there are %lld (hint: "
                         "change -b or -g, or give -resume_force)",
                         pages->valuedouble, (long long)pages_a_step);
    for (int i = 0; i < t->n; i++) {
        const Option *o = &t->rows[i];
        const cJSON *item = o->name ? cJSON_GetObjectItemCaseSensitive(saved, o->name) : NULL;
        if (o->name && !item && o->given && is_among(o->name, fixed) && !force)
            return error_set(
                err, "-%s was not known when the checkpoint was made (hint: leave it out, or -resume_force)", o->name);
        if (!item || is_among(o->name, silent) || same_value(item, o)) continue;
        TRY(compare_option(notes, item, o, force, err));
    }
    return 0;
}

int options_compare(char **notes, const char *saved_json, const OptionTable *t, int64_t pages_a_step, int force,
                    Error *err) {
    *notes = string_copy("");
    cJSON *saved = cJSON_Parse(saved_json);
    int bad = cJSON_IsObject(saved) ? compare(notes, saved, t, pages_a_step, force, err)
                                    : error_set(err, "trainer/state.json: the settings are not a JSON object");
    cJSON_Delete(saved);
    return bad;
}
