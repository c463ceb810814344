// options.c: see options.h.
#include "llmc/train/options.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llmc/base/clean.h"
#include "llmc/base/file.h" // string_format

enum { MAX_FUSE = 65536 };

void options_table(TrainOptions *o, OptionTable *t) {
    *o = (TrainOptions){
        .template_name = "auto",
        .data = "data/ocr/train_*.bin",
        .maxlen = 8192,
        .seed = 1,
        .b = 2,
        .g = 16,
        .steps = 40000,
        .loss_norm = "token",
        .lr = 1e-5,
        .warmup = 100,
        .schedule = "cosine",
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .clip = 1.0,
        .lr_enc = 1,
        .lr_dec = 1,
        .freeze = "none",
        .device = "auto",
        .dtype = "bf16",
        .zero = "auto",
        .recompute = "auto",
        .fuse = "auto",
        .plan_tokens = 950,
        .out = "runs/c3",
        .val_every = 500,
        .val_pages = 256,
        .samples = 2,
        .save_every = 5000,
        .keep = 1,
        .resume = "auto",
    };
    const double big = 9e15;
    const Option rows[] = {
        {.help = "Model (-m, or -enc with -dec, or -preset; default models/Qwen2.5-1.5B and models/Qwen2.5-3B)"},
        {OPTION_TEXT("m", &o->model, "DIR", "a C3 checkpoint to go on from")},
        {OPTION_TEXT("enc", &o->enc, "DIR", "Qwen2.5 folder of the encoder; with -m: instead of its own")},
        {OPTION_TEXT("dec", &o->dec, "DIR", "Qwen2.5 folder of the decoder; with -m: instead of its own")},
        {OPTION_CHOICE("preset", &o->preset, "demo|tiny|small|medium|paper", "random weights, no files")},
        {OPTION_INT("vocab", &o->vocab, 0, 151643,
                    "base tokens: more get new rows, 0 = the model's own, for a preset the pages'"),
         .argument = "K"},
        {OPTION_INT("n", &o->latents, 0, 65536, "latents a page: Q of -m grows or is cut, 0 = the model's own or 32")},
        {OPTION_CHOICE("template", &o->template_name, "auto|c3|bare",
                       "words around the latents: auto = the model's own")},
        {OPTION_TEXT("tok", &o->tokenizer, "FILE",
                     "tokenizer.json or qwen.tiktoken; default: the model's, else data/qwen2.5/")},
        {.help = "Data"},
        {OPTION_TEXT("data", &o->data, "GLOB", "training shards (c3 tokenize makes them)")},
        {OPTION_TEXT("val", &o->val, "GLOB", "validation shards")},
        {OPTION_INT64("maxlen", &o->maxlen, 16, 131072,
                      "longest decoder sequence in tokens; longer pages are skipped")},
        {OPTION_REAL("len_warmup", &o->len_warmup, 0, 1,
                     "pages are cut, from 10 tokens to whole, over this share of the steps"),
         .argument = "F"},
        {OPTION_INT64("seed", &o->seed, 0, big, "of the weights and the order of pages")},
        {.help = "Steps"},
        {OPTION_INT64("b", &o->b, 1, 65536, "pages a micro-batch and rank")},
        {OPTION_INT64("g", &o->g, 1, 65536, "micro-batches a step and rank (gradient accumulation)")},
        {OPTION_INT64("steps", &o->steps, 1, big, "optimizer steps")},
        {OPTION_INT64("epochs", &o->epochs, 0, 1e6, "instead of -steps: passes over the data, 0 = off")},
        {OPTION_CHOICE("loss_norm", &o->loss_norm, "token|micro",
                       "mean over the step's tokens, or over micro-batch means")},
        {.help = "Optimizer (AdamW)"},
        {OPTION_REAL("lr", &o->lr, 0, 1e6, "peak learning rate")},
        {OPTION_INT64("warmup", &o->warmup, 0, big, "steps of linear warmup")},
        {OPTION_REAL("lr_min", &o->lr_min, 0, 1e6, "learning rate at the end")},
        {OPTION_CHOICE("schedule", &o->schedule, "cosine|constant|linear|wsd", "after the warmup")},
        {OPTION_REAL("wd", &o->wd, 0, 1e3, "weight decay (matrices only)")},
        {OPTION_REAL("beta1", &o->beta1, 0, 0.999999, "decay of the first moment")},
        {OPTION_REAL("beta2", &o->beta2, 0, 0.99999999, "decay of the second moment")},
        {OPTION_REAL("eps", &o->eps, 1e-30, 1, "added to the root of the second moment")},
        {OPTION_REAL("clip", &o->clip, 0, 1e9, "largest global gradient norm, 0 = no clipping")},
        {OPTION_REAL("lr_enc", &o->lr_enc, 0, 1e3, "learning rate of the encoder, times -lr")},
        {OPTION_REAL("lr_dec", &o->lr_dec, 0, 1e3, "learning rate of the decoder, times -lr")},
        {OPTION_CHOICE("freeze", &o->freeze, "none|enc|dec", "stack that keeps its weights")},
        {.help = "Machine"},
        {OPTION_CHOICE("device", &o->device, "auto|cuda|cpu", "where to compute")},
        {OPTION_INT("threads", &o->threads, 0, 1024, "cores a rank, 0 = its share of the host's")},
        {OPTION_CHOICE("dtype", &o->dtype, "bf16|fp32", "type of weights and activations")},
        {OPTION_CHOICE("zero", &o->zero, "auto|0|1|2", "1: optimizer state divided over the ranks, 2: gradients too")},
        {OPTION_CHOICE("recompute", &o->recompute, "auto|none|cheap|layer",
                       "activations computed again in the backward pass; auto: what memory asks for")},
        {OPTION_TEXT("fuse", &o->fuse, "auto|N",
                     "micro-batches computed at once; auto: 1 on a CPU, what memory holds on a GPU")},
        {.help = "Output"},
        {OPTION_TEXT("o", &o->out, "DIR", "folder of the run")},
        {OPTION_INT64("val_every", &o->val_every, 0, big, "steps between validations, 0 = at the end")},
        {OPTION_INT64("val_pages", &o->val_pages, 1, big, "pages of a validation")},
        {OPTION_INT64("sample_every", &o->sample_every, 0, big,
                      "steps between reconstructions of validation pages, 0 = never")},
        {OPTION_INT("samples", &o->samples, 1, 64, "pages of such a reconstruction")},
        {OPTION_INT64("save_every", &o->save_every, 0, big, "steps between checkpoints, 0 = at the end")},
        {OPTION_REAL("save_minutes", &o->save_minutes, 0, 1e6, "minutes between checkpoints, 0 = off")},
        {OPTION_FLAG("no_save", &o->no_save,
                     "write no checkpoint at all, not at the end either: needs no disk for one")},
        {OPTION_INT("keep", &o->keep, 0, 1e6, "newest checkpoints kept, 0 = all")},
        {OPTION_FLAG("keep_code", &o->keep_code, "checkpoints get the *.py and auto_map of the model they come from")},
        {OPTION_TEXT("resume", &o->resume, "auto|no|DIR", "go on from the newest checkpoint in -o")},
        {OPTION_FLAG("resume_force", &o->resume_force, "even if the settings disagree")},
        {.help = "Planning (needs neither GPU nor models nor data)"},
        {OPTION_FLAG("plan", &o->plan, "print memory by kind, work, predicted times, then exit")},
        {OPTION_CHOICE("gpu", &o->gpu, "h100|h800|h200|a100|b200|4090|measured",
                       "with -plan: for these GPUs instead of this machine")},
        {OPTION_INT("plan_ranks", &o->plan_ranks, 0, 65536, "with -plan: ranks, 0 = those started")},
        {OPTION_INT("plan_tokens", &o->plan_tokens, 1, 131072, "with -plan: text tokens a page when there is no data")},
        {OPTION_INT("plan_longest", &o->plan_longest, 0, 131072,
                    "with -plan: of the longest page when there is no data, 0 = all alike")},
        {0},
    };
    cli_add(t, rows);
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

int options_check(const TrainOptions *o, Error *err) {
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
    return 0;
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
    char value[256];
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
                         .pages = o->data,
                         .vocab = o->vocab,
                         .latents = o->latents,
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
    c.group_scale[GROUP_LATENT] = 1;
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

static int same_value(const cJSON *saved, const Option *o) {
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
static const char fixed[] = "n vocab template seed dtype len_warmup maxlen loss_norm";
static const char silent[] = "b g o resume resume_force plan gpu plan_ranks plan_tokens plan_longest threads";
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
