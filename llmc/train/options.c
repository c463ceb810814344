// options.c: see options.h.
#include "llmc/train/options.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llmc/base/clean.h"
#include "llmc/base/file.h" // string_format

enum { MAX_FUSE = 65536 };

int options_table(TrainOptions *o, Option table[TRAIN_MAX_OPTIONS]) {
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
        {"m", OPTION_TEXT, &o->model, "DIR", 0, 0, NULL, "a C3 checkpoint to go on from", 0},
        {"enc", OPTION_TEXT, &o->enc, "DIR", 0, 0, NULL, "Qwen2.5 folder of the encoder; with -m: instead of its own",
         0},
        {"dec", OPTION_TEXT, &o->dec, "DIR", 0, 0, NULL, "Qwen2.5 folder of the decoder; with -m: instead of its own",
         0},
        {"preset", OPTION_CHOICE, &o->preset, NULL, 0, 0, "demo|tiny|small|medium|paper", "random weights, no files",
         0},
        {"vocab", OPTION_INT, &o->vocab, "K", 0, 151643, NULL,
         "base tokens: more get new rows, 0 = the model's own, for a preset the pages'", 0},
        {"n", OPTION_INT, &o->latents, "N", 0, 65536, NULL,
         "latents a page: Q of -m grows or is cut, 0 = the model's own or 32", 0},
        {"template", OPTION_CHOICE, &o->template_name, NULL, 0, 0, "auto|c3|bare",
         "words around the latents: auto = the model's own", 0},
        {"tok", OPTION_TEXT, &o->tokenizer, "FILE", 0, 0, NULL,
         "tokenizer.json or qwen.tiktoken; default: the model's, else data/qwen2.5/", 0},
        {.help = "Data"},
        {"data", OPTION_TEXT, &o->data, "GLOB", 0, 0, NULL, "training shards (c3 tokenize makes them)", 0},
        {"val", OPTION_TEXT, &o->val, "GLOB", 0, 0, NULL, "validation shards", 0},
        {"maxlen", OPTION_INT, &o->maxlen, "N", 16, 131072, NULL,
         "longest decoder sequence in tokens; longer pages are skipped", 0},
        {"len_warmup", OPTION_REAL, &o->len_warmup, "F", 0, 1, NULL,
         "pages are cut, from 10 tokens to whole, over this share of the steps", 0},
        {"seed", OPTION_INT, &o->seed, "N", 0, big, NULL, "of the weights and the order of pages", 0},
        {.help = "Steps"},
        {"b", OPTION_INT, &o->b, "N", 1, 65536, NULL, "pages a micro-batch and rank", 0},
        {"g", OPTION_INT, &o->g, "N", 1, 65536, NULL, "micro-batches a step and rank (gradient accumulation)", 0},
        {"steps", OPTION_INT, &o->steps, "N", 1, big, NULL, "optimizer steps", 0},
        {"epochs", OPTION_INT, &o->epochs, "N", 0, 1e6, NULL, "instead of -steps: passes over the data, 0 = off", 0},
        {"loss_norm", OPTION_CHOICE, &o->loss_norm, NULL, 0, 0, "token|micro",
         "mean over the step's tokens, or over micro-batch means", 0},
        {.help = "Optimizer (AdamW)"},
        {"lr", OPTION_REAL, &o->lr, "X", 0, 1e6, NULL, "peak learning rate", 0},
        {"warmup", OPTION_INT, &o->warmup, "N", 0, big, NULL, "steps of linear warmup", 0},
        {"lr_min", OPTION_REAL, &o->lr_min, "X", 0, 1e6, NULL, "learning rate at the end", 0},
        {"schedule", OPTION_CHOICE, &o->schedule, NULL, 0, 0, "cosine|constant|linear|wsd", "after the warmup", 0},
        {"wd", OPTION_REAL, &o->wd, "X", 0, 1e3, NULL, "weight decay (matrices only)", 0},
        {"beta1", OPTION_REAL, &o->beta1, "X", 0, 0.999999, NULL, "decay of the first moment", 0},
        {"beta2", OPTION_REAL, &o->beta2, "X", 0, 0.99999999, NULL, "decay of the second moment", 0},
        {"eps", OPTION_REAL, &o->eps, "X", 1e-30, 1, NULL, "added to the root of the second moment", 0},
        {"clip", OPTION_REAL, &o->clip, "X", 0, 1e9, NULL, "largest global gradient norm, 0 = no clipping", 0},
        {"lr_enc", OPTION_REAL, &o->lr_enc, "X", 0, 1e3, NULL, "learning rate of the encoder, times -lr", 0},
        {"lr_dec", OPTION_REAL, &o->lr_dec, "X", 0, 1e3, NULL, "learning rate of the decoder, times -lr", 0},
        {"freeze", OPTION_CHOICE, &o->freeze, NULL, 0, 0, "none|enc|dec", "stack that keeps its weights", 0},
        {.help = "Machine"},
        {"device", OPTION_CHOICE, &o->device, NULL, 0, 0, "auto|cuda|cpu", "where to compute", 0},
        {"threads", OPTION_INT, &o->threads, "N", 0, 1024, NULL, "cores a rank, 0 = its share of the host's", 0},
        {"dtype", OPTION_CHOICE, &o->dtype, NULL, 0, 0, "bf16|fp32", "type of weights and activations", 0},
        {"zero", OPTION_CHOICE, &o->zero, NULL, 0, 0, "auto|0|1|2",
         "1: optimizer state divided over the ranks, 2: gradients too", 0},
        {"recompute", OPTION_CHOICE, &o->recompute, NULL, 0, 0, "auto|none|cheap|layer",
         "activations computed again in the backward pass; auto: what memory asks for", 0},
        {"fuse", OPTION_TEXT, &o->fuse, "auto|N", 0, 0, NULL,
         "micro-batches computed at once; auto: 1 on a CPU, what memory holds on a GPU", 0},
        {.help = "Output"},
        {"o", OPTION_TEXT, &o->out, "DIR", 0, 0, NULL, "folder of the run", 0},
        {"val_every", OPTION_INT, &o->val_every, "N", 0, big, NULL, "steps between validations, 0 = at the end", 0},
        {"val_pages", OPTION_INT, &o->val_pages, "N", 1, big, NULL, "pages of a validation", 0},
        {"sample_every", OPTION_INT, &o->sample_every, "N", 0, big, NULL,
         "steps between reconstructions of validation pages, 0 = never", 0},
        {"samples", OPTION_INT, &o->samples, "N", 1, 64, NULL, "pages of such a reconstruction", 0},
        {"save_every", OPTION_INT, &o->save_every, "N", 0, big, NULL, "steps between checkpoints, 0 = at the end", 0},
        {"save_minutes", OPTION_REAL, &o->save_minutes, "X", 0, 1e6, NULL, "minutes between checkpoints, 0 = off", 0},
        {"no_save", OPTION_FLAG, &o->no_save, NULL, 0, 0, NULL,
         "write no checkpoint at all, not at the end either: needs no disk for one", 0},
        {"keep", OPTION_INT, &o->keep, "N", 0, 1e6, NULL, "newest checkpoints kept, 0 = all", 0},
        {"keep_code", OPTION_FLAG, &o->keep_code, NULL, 0, 0, NULL,
         "checkpoints get the *.py and auto_map of the model they come from", 0},
        {"resume", OPTION_TEXT, &o->resume, "auto|no|DIR", 0, 0, NULL, "go on from the newest checkpoint in -o", 0},
        {"resume_force", OPTION_FLAG, &o->resume_force, NULL, 0, 0, NULL, "even if the settings disagree", 0},
        {.help = "Planning (needs neither GPU nor models nor data)"},
        {"plan", OPTION_FLAG, &o->plan, NULL, 0, 0, NULL, "print memory by kind, work, predicted times, then exit", 0},
        {"gpu", OPTION_CHOICE, &o->gpu, NULL, 0, 0, "h100|h800|h200|a100|b200|4090|measured",
         "with -plan: for these GPUs instead of this machine", 0},
        {"plan_ranks", OPTION_INT, &o->plan_ranks, "N", 0, 65536, NULL, "with -plan: ranks, 0 = those started", 0},
        {"plan_tokens", OPTION_INT, &o->plan_tokens, "N", 1, 131072, NULL,
         "with -plan: text tokens a page when there is no data", 0},
        {"plan_longest", OPTION_INT, &o->plan_longest, "N", 0, 131072, NULL,
         "with -plan: of the longest page when there is no data, 0 = all alike", 0},
    };
    memcpy(table, rows, sizeof rows);
    return (int)(sizeof rows / sizeof *rows);
}

void options_help(FILE *out) {
    TrainOptions o;
    Option table[TRAIN_MAX_OPTIONS];
    int n = options_table(&o, table);
    static const char *const examples[][2] = {
        {"mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000", "the paper's run"},
        {"./train_c3 -preset tiny -data 'data/demo/train_*.bin' -o runs/tiny -steps 100", "a small one from nothing"}};
    fprintf(out, "train_c3: trains Context Cascade Compression, two Qwen2.5 stacks joined by N latents.\n\n");
    for (int i = 0; i < 2; i++) fprintf(out, "  %-80s %s\n", examples[i][0], examples[i][1]);
    cli_help(out, table, n);
    fprintf(out, "\n  %-34s %s\n", "--version", "commit, compiler, MPI, CUDA, CPU kernels");
}

char *options_json(const Option *table, int n, int64_t pages_a_step) {
    char *text = cli_json(table, n);
    if (!text) return NULL;
    size_t length = strlen(text);
    char *longer = string_format("%.*s,\"pages_a_step\":%lld}", (int)length - 1, text, (long long)pages_a_step);
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
    if (o->vocab && o->vocab < 256)
        return error_set(err, "-vocab: expected 0, or 256 to 151643, found %lld", (long long)o->vocab);
    if (o->lr_min > o->lr) return error_set(err, "-lr_min %g is above -lr %g", o->lr_min, o->lr);
    if (!o->out[0]) return error_set(err, "-o: expected a folder, found nothing");
    if (strcmp(o->fuse, "auto") != 0 && (strspn(o->fuse, "0123456789") != strlen(o->fuse) || options_fuse(o) < 1))
        return error_set(err, "-fuse: expected auto or a number from 1 to %d, found \"%s\"", MAX_FUSE, o->fuse);
    if ((o->gpu || o->plan_ranks || o->plan_longest) && !o->plan)
        return error_set(err, "-gpu, -plan_ranks and -plan_longest go with -plan (hint: -device chooses for a run)");
    return 0;
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

void options_print_given(FILE *out, const Option *table, int n) {
    char value[256];
    for (int i = 0; i < n; i++) {
        if (table[i].name && table[i].given)
            fprintf(out, "  -%-13s %s\n", table[i].name, clean(cli_value(&table[i], value, sizeof value)));
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
                         .vocab = (int)o->vocab,
                         .latents = (int)o->latents,
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
    if (o->type == OPTION_TEXT || o->type == OPTION_CHOICE) {
        const char *now = *(const char **)o->value;
        return cJSON_IsString(saved) ? now && strcmp(saved->valuestring, now) == 0 : cJSON_IsNull(saved) && !now;
    }
    if (!cJSON_IsNumber(saved)) return 0;
    return saved->valuedouble == (o->type == OPTION_REAL ? *(double *)o->value : (double)*(int64_t *)o->value);
}

// Where a model came from: the same place by another name, or one that has moved away, is no other model.
static int other_model(const cJSON *saved, const Option *o) {
    const char *now = *(const char **)o->value;
    struct stat old, new;
    if (o->type != OPTION_TEXT || !cJSON_IsString(saved) || !now) return 1;
    if (stat(saved->valuestring, &old) != 0) return 0;
    return stat(now, &new) != 0 || old.st_dev != new.st_dev || old.st_ino != new.st_ino;
}

static int is_one_of(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, names[i]) == 0) return 1;
    }
    return 0;
}

static int compare(char **notes, const cJSON *saved, const Option *table, int n, int64_t pages_a_step, int force,
                   Error *err) {
    static const char *const fixed[] = {"n", "vocab", "template", "seed", "dtype", "len_warmup", "maxlen", "loss_norm"};
    static const char *const by_product[] = {"b", "g"}; // only pages a step count
    static const char *const models[] = {"m", "enc", "dec", "preset"};
    static const char *const silent[] = {"o",          "resume",      "resume_force", "plan",   "gpu",
                                         "plan_ranks", "plan_tokens", "plan_longest", "threads"};
    const cJSON *pages = cJSON_GetObjectItemCaseSensitive(saved, "pages_a_step");
    if (cJSON_IsNumber(pages) && pages->valuedouble != (double)pages_a_step && !force)
        return error_set(err,
                         "the checkpoint was made with %.0f pages a step (b x g x ranks), now there are %lld (hint: "
                         "change -b or -g, or give -resume_force)",
                         pages->valuedouble, (long long)pages_a_step);
    for (int i = 0; i < n; i++) {
        const Option *o = &table[i];
        const cJSON *item = o->name ? cJSON_GetObjectItemCaseSensitive(saved, o->name) : NULL;
        if (!item || is_one_of(o->name, silent, sizeof silent / sizeof *silent) || is_one_of(o->name, by_product, 2) ||
            same_value(item, o))
            continue;
        char value[256];
        char *text = cJSON_PrintUnformatted(item);
        if (!text) return error_set(err, "out of memory");
        cli_value(o, value, sizeof value);
        if (is_one_of(o->name, fixed, sizeof fixed / sizeof *fixed) && !force) {
            error_set(err, "-%s is %s in the checkpoint and %s now (hint: use the old value, or -resume_force)",
                      o->name, text, value);
            free(text);
            return -1;
        }
        if (is_one_of(o->name, models, 4) && other_model(item, o) && !force) {
            error_set(err,
                      "-%s is %s in the checkpoint and %s now, another model (hint: -resume no starts anew with it and "
                      "sets the old run aside, -o names another folder, -resume_force goes on from the checkpoint)",
                      o->name, cJSON_IsNull(item) ? "not given" : text, value[0] ? value : "not given");
            free(text);
            return -1;
        }
        char *longer =
            string_format("%s  -%s was %s, is now %s\n", *notes, o->name, text, value[0] ? value : "not given");
        free(text);
        if (!longer) return error_set(err, "out of memory");
        free(*notes);
        *notes = longer;
    }
    return 0;
}

int options_compare(char **notes, const char *saved_json, const Option *table, int n, int64_t pages_a_step, int force,
                    Error *err) {
    *notes = strdup("");
    cJSON *saved = cJSON_Parse(saved_json);
    int bad = -1;
    if (!*notes) error_set(err, "out of memory");
    else if (!cJSON_IsObject(saved)) error_set(err, "trainer/state.json: the settings are not a JSON object");
    else bad = compare(notes, saved, table, n, pages_a_step, force, err);
    cJSON_Delete(saved);
    if (bad) {
        free(*notes);
        *notes = NULL;
    }
    return bad;
}
