// train_c3.cu: the trainer, from top to bottom: options -> model -> data -> the loop -> checkpoints.
//
//     mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000
//
// One rank is one process. Every rank reads the same options, works out the same order of pages without talking, packs
// its own micro-batches and meets the others once a step, when gradients are summed. Errors are agreed on by all ranks
// and printed once. Written in the common subset of C11 and C++17.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "llmc/backend.h"
#include "llmc/c3.h"         // c3_forward_backward
#include "llmc/checkpoint.h" // checkpoint_save
#include "llmc/clean.h"      // what comes from outside, printed
#include "llmc/corpus.h"     // tokenizer, template, pages
#include "llmc/culprit.h"    // what went bad when the loss is NaN
#include "llmc/dist.h"       // ranks
#include "llmc/file.h"
#include "llmc/loader.h"     // loader_next: which pages
#include "llmc/log.h"        // progress lines and log.jsonl
#include "llmc/optimizer.h"
#include "llmc/options.h"    // the option table
#include "llmc/plan.h"       // memory by kind, FLOPs
#include "llmc/resume.h"     // going on from a checkpoint
#include "llmc/source.h"     // where the model comes from
#include "llmc/step.h"       // micro-batches of a step, packed for the device
#include "llmc/stop.h"       // signals, OUT/stop
#include "llmc/validate.h"   // validation loss, samples
#ifdef __cplusplus
}
#endif

typedef struct Trainer {
    Dist dist;
    TrainOptions o;
    Option table[TRAIN_MAX_OPTIONS];
    int n_options;
    ModelSource source;
    Corpus corpus; // tokenizer, template, training and validation pages
    Backend *backend;
    const char *said; // about the choice of the device
    C3 model;
    Optimizer optimizer;
    Loader *loader;
    StepConfig packing;
    StepPack packs[2];  // the step under way, and the next
    MicroBatch scratch; // of validation
    TrainState state;
    int64_t steps; // last step of the run
    Plan plan;
    PlanBytes bytes;
    Log *log;
} Trainer;

// ---- set-up --------------------------------------------------------------------------------------------------------

static int64_t pages_a_step(const Trainer *t) { return t->o.b * t->o.g * t->dist.ranks; }

static int build(Trainer *t, Error *err) {
    const C3Config *c = &t->source.config;
    TRY(c3_create(&t->model, c, t->backend, &t->plan.limits, err));
    t->plan.params = &t->model.params;
    t->model.enc.train = strcmp(t->o.freeze, "enc") != 0;
    t->model.dec.train = strcmp(t->o.freeze, "dec") != 0;
    OptimizerConfig oc = options_optimizer(&t->o, t->steps, t->dist.ranks);
    TRY(optimizer_create(&t->optimizer, &oc, &t->model.params, t->backend, t->model.weights, &t->model.grads,
                         t->model.sums + 1, err));
    t->packing = corpus_packing(&t->corpus, &t->o, c, c3_batch_rows(&t->plan.limits), t->plan.fuse, t->dist.ranks);
    for (int i = 0; i < 2; i++) TRY(step_create(&t->packs[i], &t->packing, t->backend, err));
    return batch_create(&t->scratch, t->backend, t->packing.most, err);
}

static CheckpointJob checkpoint_job(Trainer *t) {
    CheckpointJob job;
    memset(&job, 0, sizeof job);
    job.backend = t->backend;
    job.dist = &t->dist;
    job.config = &t->source.config;
    job.params = &t->model.params;
    job.optimizer = &t->optimizer;
    job.tokenizer_path = t->source.tokenizer;
    job.source = t->source.folder ? t->source.folder : t->source.dec;
    return job;
}

// Fresh weights, or the newest checkpoint of the run.
static int start_or_resume(Trainer *t, Error *err) {
    char *folder = resume_folder(&t->o), *said = NULL;
    if (!folder) {
        t->state.loader.seed = (uint64_t)t->o.seed;
        t->state.loader.dataset = t->corpus.train.identity;
        memcpy(t->state.tokenizer, tokenizer_fingerprint(t->corpus.tokenizer), sizeof t->state.tokenizer);
        TRY(source_fill(&t->source, &t->model, (uint64_t)t->o.seed, err));
        optimizer_reset(&t->optimizer);
        if (t->source.said && t->dist.rank == 0) {
            printf("changed\n");
            clean_print(stdout, t->source.said, strlen(t->source.said));
        }
        return 0;
    }
    CheckpointJob job = checkpoint_job(t);
    int bad = resume_load(&t->state, &said, &job, folder, &t->o, t->table, t->n_options, pages_a_step(t), &t->corpus,
                          err);
    if (!bad && t->dist.rank == 0) {
        printf("resuming from %s\n", clean(folder));
        clean_print(stdout, said, strlen(said));
    }
    free(said);
    free(folder);
    return bad;
}

static int open_run(Trainer *t, Error *err) {
    TRY(corpus_loader(&t->loader, &t->corpus, &t->o, &t->dist, t->state.loader, t->state.step, t->steps, err));
    if (t->dist.rank != 0) return 0;
    TRY(file_make_dirs(t->o.out, err));
    return log_open(&t->log, t->o.out, t->state.step, t->steps, err);
}

static void print_settings(const Trainer *t) {
    printf("settings\n  %-14s %s\n", "model", clean(t->source.text));
    options_print_given(stdout, t->table, t->n_options);
    printf("  %-14s %s, %d rank(s) of %d core(s)\n", "machine", t->backend->name, t->dist.ranks, t->backend->threads);
    if (t->said) printf("  %-14s %s\n", "", clean(t->said));
    plan_print(stdout, &t->plan, &t->bytes);
    fflush(stdout);
}

static int open_backend(Trainer *t, PlanMachine *machine, Error *err) {
    int threads = (int)t->o.threads;
    int bad = backend_create(&t->backend, t->o.device, options_dtype(&t->o), threads, &t->dist, &t->said, err);
    TRY(dist_agree(&t->dist, bad, err));
    *machine = plan_machine(t->backend, &t->dist);
    return 0;
}

static int print_plan(Trainer *t, Error *err) {
    PlanMachine m;
    int named = t->o.gpu && strcmp(t->o.gpu, "measured") != 0;
    if (!named) TRY(open_backend(t, &m, err));
    return plan_run(stdout, &t->o, &t->dist, named ? NULL : &m, err);
}

static int read_inputs(Trainer *t, Error *err) {
    TRY(source_open(&t->source, &t->o, err));
    TRY(corpus_open(&t->corpus, &t->source, &t->o, err));
    t->steps = t->o.steps;
    double epoch = (double)t->corpus.train.pages / (double)pages_a_step(t); // in steps
    if (t->o.epochs) t->steps = (int64_t)ceil((double)t->o.epochs * epoch);
    return 0;
}

static int make_plan(Trainer *t, const PlanMachine *m, Error *err) {
    const C3Config *c = &t->source.config;
    C3Params params;
    TRY(params_build(&params, c, t->dist.ranks, err));
    int bad = plan_make(&t->plan, &t->bytes, &t->o, &t->corpus, c, &params, &t->dist, m, t->steps, err);
    if (!bad && t->dist.rank == 0) bad = plan_check_disk(&t->plan, &t->bytes, err);
    params_free(&params);
    return bad;
}

// ---- the loop ------------------------------------------------------------------------------------------------------

// Packs a step, while the device works on the one before.
static void pack(Trainer *t, int64_t step) {
    StepPack *p = &t->packs[step % 2];
    step_pack(p, &t->packing, loader_next(t->loader));
}

// One optimizer step. Fills everything of the log line but the time; grad_norm is not finite when nothing was changed.
static void train_step(Trainer *t, LogStep *line) {
    int64_t step = t->state.step + 1;
    StepPack *p = &t->packs[step % 2];
    memset(line, 0, sizeof *line);
    line->step = step;
    if (t->optimizer.config.zero == 2) dist_max_int(&t->dist, &p->rounds, 1);
    step_queue(p, &t->model, &t->optimizer);
    line->lr = optimizer_step(&t->optimizer, step);
    if (step < t->steps) pack(t, step + 1);
    double sums[4] = {0, p->flops.encoder, p->flops.decoder, p->flops.head};
    c3_read_step(&t->model, &sums[0], &line->grad_norm);
    dist_sum_double(&t->dist, sums, 4);
    line->loss = sums[0];
    line->pages = (double)p->pages;
    line->tokens = (double)(p->supervised - p->pages);
    line->flops_encoder = sums[1];
    line->flops_decoder = sums[2];
    line->flops_head = sums[3];
    line->sheet_flops = t->backend->sheet_flops * t->dist.ranks;
    line->peak_flops = t->backend->peak_flops * t->dist.ranks;
    line->is_gpu = t->backend->is_gpu;
    line->memory_bytes = (double)t->bytes.total;
}

static int advance(Trainer *t, const LogStep *line, Error *err) {
    TrainState *st = &t->state;
    float *losses = (float *)realloc(st->losses, (size_t)(st->step + 1) * sizeof *losses);
    if (!losses) return error_set(err, "loss history: out of memory");
    losses[st->step] = (float)line->loss;
    st->losses = losses;
    st->step++;
    st->loader = t->packs[st->step % 2].after;
    st->tokens_seen += line->tokens;
    return 0;
}

static int save(Trainer *t, Error *err) {
    CheckpointJob job = checkpoint_job(t);
    free(t->state.settings);
    t->state.settings = options_json(t->table, t->n_options, pages_a_step(t));
    if (!t->state.settings) return error_set(err, "settings: out of memory");
    double start = log_seconds();
    TRY(checkpoint_save(&job, &t->state, t->o.out, (int)t->o.keep, err));
    if (t->log) log_note(t->log, "saved step %lld in %.1f s", (long long)t->state.step, log_seconds() - start);
    return 0;
}

static int validation(Trainer *t, int last, Error *err) {
    int64_t step = t->state.step;
    if (!t->corpus.has_val) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) {
        Validation v =
            validate(&t->model, &t->corpus.val, &t->corpus.words, &t->scratch, &t->dist, (uint64_t)t->o.val_pages);
        if (t->log) log_validation(t->log, step, v.loss, v.token_accuracy);
    }
    if (t->o.sample_every && (last || step % t->o.sample_every == 0) && t->dist.rank == 0)
        return validate_samples(&t->model, &t->corpus.val, &t->corpus.words, t->corpus.tokenizer, (int)t->o.samples,
                                t->log, err);
    return 0;
}

static int loop(Trainer *t, Error *err) {
    double saved_at = log_seconds();
    int stopping = 0;
    if (t->state.step < t->steps) pack(t, t->state.step + 1);
    while (t->state.step < t->steps && !stopping) {
        double start = log_seconds();
        LogStep line;
        train_step(t, &line);
        const StepPack *p = &t->packs[line.step % 2];
        if (!isfinite(line.grad_norm) || !isfinite(line.loss))
            return culprit_report(&t->model, &t->optimizer, &t->corpus.train, p->micro, p->n, &t->dist, line.step,
                                  line.loss, line.grad_norm, err);
        TRY(dist_agree(&t->dist, advance(t, &line, err), err));
        line.seconds = log_seconds() - start;
        if (t->log) log_step(t->log, &line);
        const char *why = stop_requested(t->o.out);
        int last = t->state.step == t->steps;
        int flags[2] = {why != NULL, t->o.save_minutes > 0 && log_seconds() - saved_at > 60 * t->o.save_minutes};
        dist_max_int(&t->dist, flags, 2);
        stopping = flags[0];
        if (stopping && t->log) log_note(t->log, "%s: saving and stopping", why ? why : "another rank was asked");
        TRY(dist_agree(&t->dist, validation(t, last, err), err));
        if (last || stopping || flags[1] || (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            TRY(save(t, err));
            saved_at = log_seconds();
        }
    }
    if (stopping && t->dist.rank == 0) stop_acknowledge(t->o.out);
    if (t->log) log_note(t->log, "%s at step %lld of %lld; %s/step_%08lld", stopping ? "stopped" : "done",
                         (long long)t->state.step, (long long)t->steps, t->o.out, (long long)t->state.step);
    return 0;
}

static int run(Trainer *t, Error *err) {
    PlanMachine machine;
    TRY(options_check(&t->o, err));
    if (t->o.plan) return print_plan(t, err);
    TRY(dist_agree(&t->dist, read_inputs(t, err), err));
    TRY(open_backend(t, &machine, err));
    TRY(dist_agree(&t->dist, make_plan(t, &machine, err), err));
    TRY(dist_agree(&t->dist, build(t, err), err));
    TRY(dist_agree(&t->dist, start_or_resume(t, err), err));
    TRY(dist_agree(&t->dist, open_run(t, err), err));
    if (t->dist.rank == 0) print_settings(t);
    stop_install();
    return loop(t, err);
}

int main(int argc, char **argv) {
    static Trainer t;
    Error err;
    int help = 0;
    file_hold_standard();
    backend_cpu_prepare(argv);
    t.n_options = options_table(&t.o, t.table);
    int bad = dist_init(&t.dist, &argc, &argv, &err);
    if (!bad) bad = cli_parse(t.table, t.n_options, argc, argv, NULL, NULL, &help, &err);
    if (!bad && help && t.dist.rank == 0) options_help(stdout);
    if (!bad && !help) bad = run(&t, &err);
    if (t.log) log_close(t.log);
    if (!bad) bad = file_check_stdout(&err);
    if (bad && t.dist.rank == 0) {
        fflush(stdout);
        fprintf(stderr, "train_c3: %s\n", err.text);
    }
    if (t.loader) loader_close(t.loader);
    dist_finalize(&t.dist);
    return bad ? 1 : 0;
}
