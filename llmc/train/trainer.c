// trainer.c: see trainer.h.
#include "llmc/train/trainer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/version.h"

int64_t trainer_pages_a_step(const Trainer *t) { return t->o.b * t->o.g * t->dist.ranks; }

// ---- agreement -----------------------------------------------------------------------------------------------------

// Before the first step all ranks must agree on the run. Ranks on different hosts may see different files, and would
// then train a worthless model without any error.

static uint32_t file_crc(const char *path) {
    FileMap map;
    if (file_map(&map, path, NULL) != 0) return 0;
    uint32_t crc = file_crc32(0, map.data, map.size);
    file_unmap(&map);
    return crc;
}

// All ranks run the same program with the same options (but -threads).
static int agree_on_program(const Dist *d, const OptionTable *options, Error *err) {
    if (d->ranks == 1) return 0;
    char value[4096];
    char *record = string_format("the program's file: CRC-32 %08" PRIx32 "\n", file_crc("/proc/self/exe"));
    for (int i = 0; i < options->n; i++) {
        const Option *o = &options->rows[i];
        if (o->name && strcmp(o->name, "threads") != 0)
            string_append(&record, "-%s: \"%s\"\n", o->name, cli_value(o, value, sizeof value));
    }
    int bad = dist_same(d, record, err);
    free(record);
    return bad;
}

// CRC-32 of some of every tensor, which takes no time with any model: different weights differ nearly everywhere.
static uint32_t sample_weights(Backend *b, const elem_t *weights, const ParamTable *table) {
    enum { PIECE = 4096, PIECES = 16 };
    char host[PIECE];
    uint32_t crc = 0;
    for (int i = 0; i < table->n; i++) {
        const char *tensor = elem_at(b, (elem_t *)weights, table->params[i].offset);
        size_t bytes = table->params[i].count * dtype_size(b->dtype), last = bytes > PIECE ? bytes - PIECE : 0;
        size_t size = bytes < PIECE ? bytes : PIECE, pieces = bytes <= PIECE ? 1 : PIECES;
        for (size_t p = 0; p < pieces; p++) {
            b->download(b, host, tensor + (pieces > 1 ? last / (pieces - 1) * p : 0), size);
            crc = file_crc32(crc, host, size);
        }
    }
    return crc;
}

// All ranks are at the same step of the same run: state, pages, tokenizer, kind of device, weights.
static int agree_on_run(const Trainer *t, Error *err) {
    if (t->dist.ranks == 1) return 0;
    const Corpus *corpus = &t->corpus;
    const LoaderState *at = &t->state.loader;
    const uint8_t *tokenizer = tokenizer_fingerprint(corpus->tokenizer);
    Backend *b = t->backend;
    uint32_t validation = corpus->has_plain ? corpus->plain.identity : 0;
    for (int i = 0; i < corpus->n_val; i++)
        validation = file_crc32(validation, &corpus->val[i].identity, sizeof validation);
    char *marker = t->resumed ? string_format("%s/COMPLETE", t->resumed) : NULL;
    char *record = string_format(
        "step of the run: %" PRId64 "\ncheckpoint: CRC-32 %08" PRIx32 " of COMPLETE\n"
        "training pages: %" PRIu64 " pages, identity %08" PRIx32 "\n"
        "validation pages: identity %08" PRIx32 "\n"
        "tokenizer: %02x%02x%02x%02x\norder of pages: seed %" PRIu64 ", epoch %" PRIu64 ", page %" PRIu64 "\n"
        "last step: %" PRId64 "\ndevice: %s\nelement type: %s\nweights: sampled CRC-32 %08" PRIx32 "\n",
        t->state.step, marker ? file_crc(marker) : 0, corpus->train.pages, corpus->train.identity, validation,
        tokenizer[0], tokenizer[1], tokenizer[2], tokenizer[3], at->seed, at->epoch, at->position, t->steps,
        b->is_gpu ? "GPU" : "CPU", b->dtype == DTYPE_F32 ? "fp32" : "bf16",
        sample_weights(b, t->model.weights, &t->model.params.table));
    int bad = dist_same(&t->dist, record, err);
    free(record);
    free(marker);
    return bad;
}

// ---- options -------------------------------------------------------------------------------------------------------

int trainer_check_options(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, options_check(&t->o, err), err));
    return agree_on_program(&t->dist, &t->options, err);
}

static int open_backend(Trainer *t, Error *err) {
    int bad = backend_create(&t->backend, t->o.device, options_dtype(&t->o), t->o.threads, &t->dist, &t->notes, err);
    TRY(dist_agree(&t->dist, bad, err));
    t->machine = plan_machine(t->backend, &t->dist);
    return 0;
}

int trainer_print_plan(Trainer *t, Error *err) {
    int named = t->o.gpu && strcmp(t->o.gpu, "measured") != 0;
    if (!named) TRY(open_backend(t, err));
    return plan_run(stdout, &t->o, &t->dist, named ? NULL : &t->machine, err);
}

// ---- the run's folder ----------------------------------------------------------------------------------------------

// The checkpoint that -resume means: the newest complete one of -o, or the one named; NULL: start anew. An error when
// -o holds something that may be one and cannot be used.
static int find_checkpoint(Trainer *t, Error *err) {
    const char *resume = t->o.resume;
    if (!strcmp(resume, "no")) return 0;
    if (!strcmp(resume, "auto")) return run_resumable(&t->resumed, t->o.out, err);
    t->resumed = string_copy(resume);
    return 0;
}

int trainer_claim_run(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, t->dist.rank == 0 ? run_claim(&t->claim, t->o.out, err) : 0, err));
    TRY(dist_agree(&t->dist, t->dist.rank == 0 && t->o.keep_best ? run_check_best(t->o.out, err) : 0, err));
    TRY(dist_agree(&t->dist, t->dist.rank == 0 ? find_checkpoint(t, err) : 0, err));
    dist_share_text(&t->dist, &t->resumed); // rank 0's choice, for other hosts may see other files
    return 0;
}

// ---- inputs --------------------------------------------------------------------------------------------------------

// The checkpoint will say on which lengths of pages and tasks, and with which numbers of latents, the model was
// trained.
static void note_training(Trainer *t) {
    C3Config *c = &t->files.config;
    int least = (int)t->corpus.train.shortest_context, most = (int)t->corpus.train.longest_context;
    int known = c->trained_tokens[1] > 0, inside = least >= c->trained_tokens[0] && most <= c->trained_tokens[1];
    if (known && !inside && t->dist.rank == 0)
        printf("note: pages of %d to %d tokens; -m was trained on %d to %d, and has yet to learn the rest\n", least,
               most, c->trained_tokens[0], c->trained_tokens[1]);
    config_add_trained(c, least, most);
    c->tasks |= corpus_tasks(&t->corpus);
    config_add_latents(c, &t->o.latents_mix);
}

static int read_inputs(Trainer *t, Error *err) {
    ModelChoice choice = options_model(&t->o);
    TRY(model_files_open(&t->files, &choice, err));
    if (!t->resumed) TRY(model_files_check(&t->files, err)); // a resumed run has weights of its own
    TRY(corpus_open(&t->corpus, &t->files, &t->o, err));
    note_training(t);
    t->steps = options_steps(&t->o, t->corpus.train.pages, t->dist.ranks);
    if (t->dist.rank != 0) return 0;
    const char *folder = t->files.folder ? t->files.folder : t->files.dec;
    return travel_open(&t->travel, t->corpus.tokenizer, t->files.tokenizer, folder, t->o.keep_code, 1, err);
}

int trainer_read_inputs(Trainer *t, Error *err) { return dist_agree(&t->dist, read_inputs(t, err), err); }

// ---- device, model -------------------------------------------------------------------------------------------------

static int make_plan(Trainer *t, Error *err) {
    const C3Config *c = &t->files.config;
    C3Params params;
    TRY(params_build(&params, c, t->dist.ranks, err));
    int bad = plan_make(&t->plan, &t->o, &t->corpus, c, &params, &t->dist, &t->machine, t->steps, err);
    if (!bad && t->dist.rank == 0 && !t->o.no_save) bad = plan_check_disk(&t->plan, err);
    params_free(&params);
    return bad;
}

static int choose_algorithms(Trainer *t, Error *err) {
    if (!t->o.tune && !t->o.algorithms) return 0;
    if (!t->backend->algorithms)
        return error_set(err, "-%s is for GPUs, and this run computes on a CPU", t->o.tune ? "tune" : "algorithms");
    return t->backend->algorithms(t->backend, t->o.algorithms, t->o.tune, err);
}

int trainer_open_device(Trainer *t, Error *err) {
    TRY(open_backend(t, err));
    TRY(choose_algorithms(t, err));
    return dist_agree(&t->dist, make_plan(t, err), err);
}

static int build(Trainer *t, Error *err) {
    const C3Config *c = &t->files.config;
    TRY(c3_create(&t->model, c, t->backend, &t->plan.choice.limits, err));
    t->plan.shape.params = &t->model.params;
    t->model.enc.train = strcmp(t->o.freeze, "enc") != 0;
    t->model.dec.train = strcmp(t->o.freeze, "dec") != 0;
    OptimizerConfig oc = options_optimizer(&t->o, t->steps, t->dist.ranks);
    TRY(optimizer_create(&t->optimizer, &oc, &t->model.params, t->backend, t->model.weights, &t->model.grads,
                         t->model.sums + 1, err));
    t->packing =
        corpus_packing(&t->corpus, &t->o, c, c3_batch_rows(&t->plan.choice.limits), t->plan.choice.fuse, t->dist.ranks);
    for (int i = 0; i < 2; i++) TRY(step_create(&t->packs[i], &t->packing, t->backend, err));
    return batch_create(&t->val_batch, t->backend, t->packing.most, err);
}

int trainer_build(Trainer *t, Error *err) { return dist_agree(&t->dist, build(t, err), err); }

// ---- weights and state ---------------------------------------------------------------------------------------------

// The step whose checkpoint is to be kept as the best; -1: the one that is.
static int64_t kept_best(const Trainer *t) {
    return t->o.keep_best && t->state.best.is_known ? t->state.best.step : -1;
}

CheckpointJob trainer_checkpoint_job(Trainer *t) {
    return (CheckpointJob){.backend = t->backend,
                           .dist = &t->dist,
                           .config = &t->files.config,
                           .params = &t->model.params,
                           .optimizer = &t->optimizer,
                           .travel = &t->travel,
                           .best = kept_best(t)};
}

static int load_fresh(Trainer *t, Error *err) {
    t->state.loader.seed = (uint64_t)t->o.seed;
    t->state.loader.dataset = t->corpus.train.identity;
    train_state_sets(&t->state, &t->corpus.train);
    memcpy(t->state.tokenizer, tokenizer_fingerprint(t->corpus.tokenizer), sizeof t->state.tokenizer);
    TRY(model_files_load(&t->files, &t->model, (uint64_t)t->o.seed, err));
    optimizer_reset(&t->optimizer);
    if (t->files.notes && t->dist.rank == 0) {
        printf("changed\n");
        clean_print(stdout, t->files.notes, strlen(t->files.notes));
    }
    return 0;
}

// Whether the saved state agrees with the command line. *notes: options that have changed since, a line each.
static int check_saved(Trainer *t, char **notes, Error *err) {
    TrainState *saved = &t->state;
    if (memcmp(saved->tokenizer, tokenizer_fingerprint(t->corpus.tokenizer), sizeof saved->tokenizer) != 0)
        return error_set(err, "%s: was trained with another tokenizer (hint: -tok FILE)", t->resumed);
    if (options_compare(notes, saved->settings, &t->options, trainer_pages_a_step(t), t->o.resume_force, err) != 0)
        return error_prefix(err, "%s", t->resumed);
    int same_order = saved->format > 1 || saved->loader.position == 0, n = saved->n_sets;
    train_state_sets(saved, &t->corpus.train);
    if (saved->loader.dataset == t->corpus.train.identity && same_order && (n ? n : 1) == saved->n_sets) return 0;
    if (!t->o.resume_force)
        return error_set(err, "%s: %s (hint: -resume_force starts the epoch anew)", t->resumed,
                         same_order ? "the training pages have changed since"
                                    : "an earlier version saved it, which shuffled the pages of an epoch differently");
    saved->loader.dataset = t->corpus.train.identity;
    saved->loader.position = 0;
    memset(saved->loader.taken, 0, sizeof saved->loader.taken);
    memset(saved->set_tokens, 0, sizeof saved->set_tokens);
    return 0;
}

static int load_checkpoint(Trainer *t, Error *err) {
    char *notes = NULL;
    CheckpointJob job = trainer_checkpoint_job(t);
    TRY(checkpoint_read_state(&t->state, t->resumed, err));
    int bad = check_saved(t, &notes, err);
    if (!bad) bad = checkpoint_load(&job, t->resumed, err);
    if (!bad && t->dist.rank == 0) {
        printf("resuming from %s\n", clean(t->resumed));
        clean_print(stdout, notes, strlen(notes));
    }
    free(notes);
    return bad;
}

int trainer_load(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, t->resumed ? load_checkpoint(t, err) : load_fresh(t, err), err));
    return agree_on_run(t, err);
}

// ---- the run -------------------------------------------------------------------------------------------------------

// A run that goes on from an earlier step may have lost the checkpoint that was its best there.
static void check_best(Trainer *t, int64_t kept) {
    BestValidation *best = &t->state.best;
    if (!t->o.keep_best || !best->is_known || best->step == kept) return;
    if (t->dist.rank == 0)
        printf("note: the best checkpoint so far, of step %" PRId64 ", is not in %s: the next validation makes one\n",
               best->step, clean(t->o.out));
    best->is_known = 0;
}

int trainer_open_run(Trainer *t, int argc, char **argv, Error *err) {
    const RunOrigin origin = {.argc = argc, .argv = argv, .build = version_commit()};
    int64_t best = kept_best(t);
    char *notes;
    int bad = corpus_loader(&t->loader, &t->corpus, &t->o, &t->dist, t->state.loader, t->state.step, t->steps, err);
    TRY(dist_agree(&t->dist, bad, err));
    TRY(run_begin(&notes, &best, &t->dist, t->o.out, t->resumed, &origin, err));
    check_best(t, best);
    if (t->dist.rank == 0) printf("%s", notes);
    free(notes);
    bad = t->dist.rank == 0 ? log_open(&t->log, t->o.out, t->state.step, t->steps, err) : 0;
    return dist_agree(&t->dist, bad, err);
}

void trainer_print_settings(const Trainer *t) {
    printf("settings\n  %-14s %s\n", "model", clean(t->files.text));
    options_print_given(stdout, &t->options);
    if (t->corpus.maxlen < t->o.maxlen)
        printf("  %-14s %lld in place of %lld: the model has no positions for more\n", "-maxlen",
               (long long)t->corpus.maxlen, (long long)t->o.maxlen);
    printf("  %-14s %s\n", "travels along", t->travel.notes ? t->travel.notes : "nothing");
    printf("  %-14s %s, %d rank(s) of %d core(s)\n", "machine", t->backend->name, t->dist.ranks, t->backend->threads);
    if (t->backend->libraries) printf("  %-14s %s\n", "libraries", clean(t->backend->libraries));
    if (t->notes) printf("  %-14s %s\n", "", clean(t->notes));
    if (t->o.algorithms) {
        char *text = t->backend->algorithms_text(t->backend);
        printf("  %-14s %s\n", "algorithms", text);
        free(text);
    }
    if (t->claim.unsure) printf("  %-14s none on this file system: let no other run write to -o\n", "locks");
    plan_print(stdout, &t->plan);
    fflush(stdout);
}
