// train_c3.cu: the trainer, from top to bottom: options -> model -> data -> the loop -> checkpoints.
//
//     mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000
//
// One rank is one process. Every rank reads the same options, works out the same order of pages without talking, packs
// its own micro-batches and meets the others once a step, when gradients are summed. Errors are agreed on by all ranks
// and printed once. Written in the common subset of C11 and C++17: nvcc compiles it where there is a CUDA toolkit, the
// C compiler elsewhere.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/train/agreement.h" // all ranks mean the same run
#include "llmc/backend.h"
#include "llmc/model/cascade.h"    // c3_forward_backward
#include "llmc/train/checkpoint.h" // checkpoint_save
#include "llmc/base/clean.h"       // what comes from outside, printed
#include "llmc/train/corpus.h"     // tokenizer, template, pages
#include "llmc/train/nan_report.h" // what went bad when the loss is NaN
#include "llmc/base/dist.h"        // ranks
#include "llmc/base/file.h"
#include "llmc/data/loader.h" // loader_next: which pages
#include "llmc/train/log.h"   // progress lines and log.jsonl
#include "llmc/train/optimizer.h"
#include "llmc/train/options.h"       // the option table
#include "llmc/train/plan.h"          // memory by kind, FLOPs
#include "llmc/train/resume.h"        // going on from a checkpoint
#include "llmc/train/run_writer.h"    // the run's folder: one writer, one history
#include "llmc/weights/model_files.h" // where the model comes from
#include "llmc/train/step.h"          // micro-batches of a step, packed for the device
#include "llmc/base/stop.h"           // signals, OUT/stop
#include "llmc/weights/travel.h"      // tokenizer and code of a checkpoint
#include "llmc/train/validate.h"      // validation loss, samples
#include "llmc/version.h"             // what --version prints

typedef struct Trainer {
    Dist dist;
    TrainOptions o;
    Option table[TRAIN_MAX_OPTIONS];
    int n_options;
    ModelFiles files;
    Corpus corpus; // tokenizer, template, training and validation pages
    Travel travel; // what goes into a checkpoint beside the weights (rank 0)
    Backend *backend;
    const char *notes; // about the choice of the device
    C3 model;
    Optimizer optimizer;
    Loader *loader;
    StepConfig packing;
    StepPack packs[2]; // the step under way, and the next
    MicroBatch val_batch;
    RunClaim claim;
    char *resumed; // the checkpoint it went on from; NULL: it starts anew
    TrainState state;
    int64_t steps; // last step of the run
    Plan plan;
    PlanBytes bytes;
    Log *log;
} Trainer;

// ---- set-up --------------------------------------------------------------------------------------------------------

static int64_t pages_a_step(const Trainer *t) { return t->o.b * t->o.g * t->dist.ranks; }

static int build(Trainer *t, Error *err) {
    const C3Config *c = &t->files.config;
    TRY(c3_create(&t->model, c, t->backend, &t->plan.limits, err));
    t->plan.params = &t->model.params;
    t->model.enc.train = strcmp(t->o.freeze, "enc") != 0;
    t->model.dec.train = strcmp(t->o.freeze, "dec") != 0;
    OptimizerConfig oc = options_optimizer(&t->o, t->steps, t->dist.ranks);
    TRY(optimizer_create(&t->optimizer, &oc, &t->model.params, t->backend, t->model.weights, &t->model.grads,
                         t->model.sums + 1, err));
    t->packing = corpus_packing(&t->corpus, &t->o, c, c3_batch_rows(&t->plan.limits), t->plan.fuse, t->dist.ranks);
    for (int i = 0; i < 2; i++) TRY(step_create(&t->packs[i], &t->packing, t->backend, err));
    return batch_create(&t->val_batch, t->backend, t->packing.most, err);
}

static CheckpointJob checkpoint_job(Trainer *t) {
    CheckpointJob job;
    memset(&job, 0, sizeof job);
    job.backend = t->backend;
    job.dist = &t->dist;
    job.config = &t->files.config;
    job.params = &t->model.params;
    job.optimizer = &t->optimizer;
    job.travel = &t->travel;
    return job;
}

// The checkpoint to go on from: rank 0's choice, for hosts may see other files.
static int choose_checkpoint(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, t->dist.rank == 0 ? resume_folder(&t->resumed, &t->o, err) : 0, err));
    dist_share_text(&t->dist, &t->resumed);
    return 0;
}

// Fresh weights, or those of the checkpoint.
static int start_or_resume(Trainer *t, Error *err) {
    char *notes = NULL;
    if (!t->resumed) {
        t->state.loader.seed = (uint64_t)t->o.seed;
        t->state.loader.dataset = t->corpus.train.identity;
        memcpy(t->state.tokenizer, tokenizer_fingerprint(t->corpus.tokenizer), sizeof t->state.tokenizer);
        TRY(model_files_load(&t->files, &t->model, (uint64_t)t->o.seed, err));
        optimizer_reset(&t->optimizer);
        if (t->files.notes && t->dist.rank == 0) {
            printf("changed\n");
            clean_print(stdout, t->files.notes, strlen(t->files.notes));
        }
        return 0;
    }
    CheckpointJob job = checkpoint_job(t);
    int bad = resume_load(&t->state, &notes, &job, t->resumed, &t->o, t->table, t->n_options, pages_a_step(t),
                          &t->corpus, err);
    if (!bad && t->dist.rank == 0) {
        printf("resuming from %s\n", clean(t->resumed));
        clean_print(stdout, notes, strlen(notes));
    }
    free(notes);
    return bad;
}

// Weights and state of the run's beginning, the same on all ranks.
static int begin(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, start_or_resume(t, err), err));
    return agreement_run(&t->dist, &t->state, &t->corpus, t->steps, t->resumed, t->backend, t->model.weights,
                         &t->model.params.table, err);
}

static int open_loader(Trainer *t, Error *err) {
    return corpus_loader(&t->loader, &t->corpus, &t->o, &t->dist, t->state.loader, t->state.step, t->steps, err);
}

// -o as one history up to here: the last thing before training that can fail, as it moves what is in the way.
static int open_run(Trainer *t, Error *err) {
    char *notes;
    TRY(dist_agree(&t->dist, open_loader(t, err), err));
    TRY(run_begin(&notes, &t->dist, t->o.out, t->resumed, err));
    if (t->dist.rank == 0) printf("%s", notes);
    free(notes);
    int bad = t->dist.rank == 0 ? log_open(&t->log, t->o.out, t->state.step, t->steps, err) : 0;
    return dist_agree(&t->dist, bad, err);
}

static void print_settings(const Trainer *t) {
    printf("settings\n  %-14s %s\n", "model", clean(t->files.text));
    options_print_given(stdout, t->table, t->n_options);
    if (t->corpus.maxlen < t->o.maxlen)
        printf("  %-14s %lld in place of %lld: the model has no positions for more\n", "-maxlen",
               (long long)t->corpus.maxlen, (long long)t->o.maxlen);
    printf("  %-14s %s\n", "travels along", t->travel.notes ? t->travel.notes : "nothing");
    printf("  %-14s %s, %d rank(s) of %d core(s)\n", "machine", t->backend->name, t->dist.ranks, t->backend->threads);
    if (t->notes) printf("  %-14s %s\n", "", clean(t->notes));
    if (t->claim.unsure) printf("  %-14s none on this file system: let no other run write to -o\n", "locks");
    plan_print(stdout, &t->plan, &t->bytes);
    fflush(stdout);
}

static int open_backend(Trainer *t, PlanMachine *machine, Error *err) {
    int threads = (int)t->o.threads;
    int bad = backend_create(&t->backend, t->o.device, options_dtype(&t->o), threads, &t->dist, &t->notes, err);
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

// The checkpoint will say on which lengths of pages the model was trained.
static void learn_lengths(Trainer *t) {
    C3Config *c = &t->files.config;
    int least = (int)t->corpus.train.shortest_context, most = (int)t->corpus.train.longest_context;
    int known = c->trained_tokens[1] > 0, inside = least >= c->trained_tokens[0] && most <= c->trained_tokens[1];
    if (known && !inside && t->dist.rank == 0)
        printf("note: pages of %d to %d tokens; -m was trained on %d to %d, and has to learn the others\n", least, most,
               c->trained_tokens[0], c->trained_tokens[1]);
    config_add_trained(c, least, most);
}

static int read_inputs(Trainer *t, Error *err) {
    ModelChoice choice = options_model(&t->o);
    TRY(model_files_open(&t->files, &choice, err));
    if (!t->resumed) TRY(model_files_check(&t->files, err)); // a resumed run has weights of its own
    TRY(corpus_open(&t->corpus, &t->files, &t->o, err));
    learn_lengths(t);
    if (t->dist.rank == 0)
        TRY(travel_open(&t->travel, t->corpus.tokenizer, t->files.tokenizer,
                        t->files.folder ? t->files.folder : t->files.dec, (int)t->o.keep_code, err));
    t->steps = t->o.steps;
    double epoch = (double)t->corpus.train.pages / (double)pages_a_step(t); // in steps
    if (t->o.epochs) t->steps = (int64_t)ceil((double)t->o.epochs * epoch);
    return 0;
}

static int make_plan(Trainer *t, const PlanMachine *m, Error *err) {
    const C3Config *c = &t->files.config;
    C3Params params;
    TRY(params_build(&params, c, t->dist.ranks, err));
    int bad = plan_make(&t->plan, &t->bytes, &t->o, &t->corpus, c, &params, &t->dist, m, t->steps, err);
    if (!bad && t->dist.rank == 0 && !t->o.no_save) bad = plan_check_disk(&t->plan, &t->bytes, err);
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

static int save(Trainer *t, Error *err) {
    if (t->o.no_save) return 0;
    CheckpointJob job = checkpoint_job(t);
    free(t->state.settings);
    t->state.settings = options_json(t->table, t->n_options, pages_a_step(t));
    if (!t->state.settings) return error_set(err, "settings: out of memory");
    double start = log_seconds();
    TRY(checkpoint_save(&job, &t->state, t->o.out, (int)t->o.keep, err));
    if (t->log) log_note(t->log, "saved step %lld in %.1f s", (long long)t->state.step, log_seconds() - start);
    return 0;
}

static Validation validate_cut(Trainer *t, uint32_t cut) {
    return validate(&t->model, &t->corpus.val, &t->corpus.prompt, &t->val_batch, &t->dist, (uint64_t)t->o.val_pages,
                    cut);
}

// A model that has seen only the beginnings of pages so far is also asked for no more than these.
static void validate_and_log(Trainer *t) {
    const Dataset *d = &t->corpus.val;
    uint32_t cut = corpus_cut(&t->corpus, t->state.step);
    Validation whole = validate_cut(t, UINT32_MAX);
    LogValidation line;
    memset(&line, 0, sizeof line);
    line.step = t->state.step;
    line.loss = whole.loss;
    line.token_accuracy = whole.token_accuracy;
    if (cut < d->longest_context || cut < d->longest_answer) {
        Validation begun = validate_cut(t, cut);
        line.cut = cut;
        line.cut_loss = begun.loss;
        line.cut_token_accuracy = begun.token_accuracy;
    }
    log_validation(t->log, &line);
}

static int validation(Trainer *t, int last, Error *err) {
    int64_t step = t->state.step;
    if (!t->corpus.has_val) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) validate_and_log(t);
    if (t->o.sample_every && (last || step % t->o.sample_every == 0) && t->dist.rank == 0)
        return validate_samples(&t->model, &t->corpus.val, &t->corpus.prompt, t->corpus.tokenizer, (int)t->o.samples,
                                t->log, err);
    return 0;
}

static int loop(Trainer *t, Error *err) {
    double saved_at = log_seconds();
    int stopping = 0, found;
    pack(t, t->state.step + 1);
    while (t->state.step < t->steps && !stopping) {
        double start = log_seconds();
        LogStep line;
        train_step(t, &line);
        const StepPack *p = &t->packs[line.step % 2];
        if (!isfinite(line.grad_norm) || !isfinite(line.loss))
            return nan_report(&t->model, &t->optimizer, &t->corpus.train, p->micro, p->n, &t->dist, line.step,
                              line.loss, line.grad_norm, err);
        int bad = train_state_advance(&t->state, line.loss, line.tokens, t->packs[line.step % 2].after, err);
        TRY(dist_agree(&t->dist, bad, err));
        line.seconds = log_seconds() - start;
        if (t->log) log_step(t->log, &line);
        const char *why = stop_requested(t->o.out);
        int last = t->state.step == t->steps;
        int flags[2] = {why != NULL, t->o.save_minutes > 0 && log_seconds() - saved_at > 60 * t->o.save_minutes};
        dist_max_int(&t->dist, flags, 2);
        stopping = flags[0];
        if (stopping && t->log) log_note(t->log, "%s: stopping", why ? why : "another rank was asked");
        TRY(dist_agree(&t->dist, validation(t, last, err), err));
        if (last || stopping || flags[1] || (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            TRY(save(t, err));
            saved_at = log_seconds();
        }
    }
    if (stopping && t->dist.local_rank == 0 && stop_clear(&found, t->o.out, err)) log_note(t->log, "%s", err->text);
    log_note(t->log, "%s at step %lld of %lld; %s/step_%08lld%s", stopping ? "stopped" : "done",
             (long long)t->state.step, (long long)t->steps, t->o.out, (long long)t->state.step,
             t->o.no_save ? " is not saved (-no_save)" : "");
    return 0;
}

static int run(Trainer *t, Error *err) {
    PlanMachine machine;
    TRY(dist_agree(&t->dist, options_check(&t->o, err), err));
    TRY(agreement_program(&t->dist, t->table, t->n_options, err));
    if (t->o.plan) return print_plan(t, err);
    TRY(dist_agree(&t->dist, t->dist.rank == 0 ? run_claim(&t->claim, t->o.out, err) : 0, err)); // nothing before it
    TRY(choose_checkpoint(t, err));
    TRY(dist_agree(&t->dist, read_inputs(t, err), err));
    TRY(open_backend(t, &machine, err));
    TRY(dist_agree(&t->dist, make_plan(t, &machine, err), err));
    TRY(dist_agree(&t->dist, build(t, err), err));
    TRY(begin(t, err));
    TRY(open_run(t, err));
    if (t->dist.rank == 0) print_settings(t);
    stop_install();
    if (t->state.step < t->steps) return loop(t, err);
    log_note(t->log,
             "nothing was trained: %s is at step %lld, the run ends at step %lld (hint: a larger -steps goes "
             "on, -resume no starts anew)",
             t->resumed, (long long)t->state.step, (long long)t->steps);
    return 0;
}

int main(int argc, char **argv) {
    static Trainer t;
    Error err;
    int asked = 0;
    file_hold_standard();
    backend_cpu_prepare(argv);
    t.n_options = options_table(&t.o, t.table);
    int bad = dist_init(&t.dist, &argc, &argv, &err);
    if (!bad) bad = dist_agree(&t.dist, cli_parse(t.table, t.n_options, argc, argv, NULL, NULL, &asked, &err), &err);
    if (!bad && asked == CLI_HELP && t.dist.rank == 0) options_help(stdout);
    if (!bad && asked == CLI_VERSION && t.dist.rank == 0) version_print(stdout, "train_c3");
    if (!bad && !asked) bad = run(&t, &err);
    if (t.log) log_close(t.log);
    if (!bad) bad = file_check_stdout(&err);
    if (bad && t.dist.rank == 0) {
        fflush(stdout);
        fprintf(stderr, "train_c3: %s\n", err.text);
    }
    if (t.loader) loader_close(t.loader);
    run_unclaim(&t.claim);
    dist_finalize(&t.dist);
    return bad ? 1 : 0;
}
