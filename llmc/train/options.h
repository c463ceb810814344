// options.h: the trainer's options. The defaults are the paper's run.
#ifndef LLMC_OPTIONS_H
#define LLMC_OPTIONS_H

#include <stdint.h>

#include "llmc/base/cli.h"
#include "llmc/data/sets.h"
#include "llmc/model/latents_mix.h"
#include "llmc/train/optimizer.h"
#include "llmc/weights/model_files.h" // ModelChoice
#include "llmc/model/qwen2.h"         // Recompute

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TrainOptions {
    // model
    const char *model, *enc, *dec, *preset, *template_name, *tokenizer;
    int vocab, latents, window;
    const char *n_mix;
    // data
    OptionList data, val;
    const char *val_lm, *mix;
    double val_lm_bound;
    int64_t maxlen, seed;
    double len_warmup;
    // steps
    int64_t b, g, steps, epochs;
    const char *loss_norm;
    // optimizer
    double lr, lr_min, wd, beta1, beta2, eps, clip, lr_enc, lr_dec, lr_latent;
    int64_t warmup;
    const char *schedule, *freeze;
    // machine
    const char *device, *dtype, *zero, *recompute, *fuse;
    int threads, tune;
    const char *algorithms;
    // planning
    const char *gpu;
    int plan, plan_ranks, plan_tokens, plan_longest;
    // output
    const char *out, *resume;
    int64_t val_every, val_pages, sample_every, save_every;
    int samples, no_save, keep, keep_best, patience, keep_code, resume_force, profile;
    double save_minutes;
    // what options_check reads out of -data, -val and -n_mix
    SetSpecs train_sets, val_sets;
    LatentsMix latents_mix;
} TrainOptions;

// Sets the defaults and adds the options, whose values go into o.
void options_table(TrainOptions *o, OptionTable *t);
// The text of -h.
void options_help(FILE *out);
// {"lr":1e-05,...,"pages_a_step":256}: what is saved with a checkpoint; the caller frees it.
char *options_json(const OptionTable *t, int64_t pages_a_step);
// Checks what no single option's range can say, and reads the sets of pages.
int options_check(TrainOptions *o, Error *err);
void options_free(TrainOptions *o);
// -steps, or the steps of -epochs over this many pages (0: unknown).
int64_t options_steps(const TrainOptions *o, uint64_t pages, int ranks);
// The model's part.
ModelChoice options_model(const TrainOptions *o);
// The optimizer's part. steps: already worked out from -steps or -epochs; ranks decide -zero auto.
OptimizerConfig options_optimizer(const TrainOptions *o, int64_t steps, int ranks);
DType options_dtype(const TrainOptions *o);
int options_zero(const TrainOptions *o, int ranks); // 0, 1 or 2; one rank has nothing to divide: 2 is 1 there
int options_recompute(const TrainOptions *o);       // a Recompute; -1: choose
int options_fuse(const TrainOptions *o);            // micro-batches a device batch; 0: choose
// The options that were given on the command line, a line each.
void options_print_given(FILE *out, const OptionTable *t);

// Compares the options of a saved run (JSON) with these. Those that decide what is learned from which page (latents,
// windows, vocabulary, template, seed, batch, element type) and the model it began with must agree unless force is set;
// every other difference is written to *notes, one line each; the caller frees it, after an error as well.
int options_compare(char **notes, const char *saved_json, const OptionTable *t, int64_t pages_a_step, int force,
                    Error *err);

#ifdef __cplusplus
}
#endif
#endif
