// train_c3.cu: the trainer: a step, the loop around it with validation and checkpoints, and the phases that lead from
// the options to the loop (llmc/train/trainer.c has what each of them does).
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

#include "llmc/base/file.h"        // the standard streams
#include "llmc/base/stop.h"        // signals, OUT/stop
#include "llmc/data/loader.h"      // loader_next: which pages
#include "llmc/model/cascade.h"    // c3_read_step
#include "llmc/train/nan_report.h" // what went bad when the loss is NaN
#include "llmc/train/trainer.h"    // what a run holds, and its start
#include "llmc/train/validate.h"   // validation loss, samples
#include "llmc/version.h"          // what --version prints

// ---- the loop ------------------------------------------------------------------------------------------------------

// Packs a step, while the device works on the one before.
static void pack(Trainer *t, int64_t step) {
    StepPack *p = &t->packs[step % 2];
    step_pack(p, &t->packing, loader_next(t->loader));
}

// One optimizer step. Fills the log line, except for the time; grad_norm is not finite when nothing was changed.
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
    line->memory_bytes = (double)t->plan.choice.bytes.total;
}

static int save(Trainer *t, Error *err) {
    if (t->o.no_save) return 0;
    CheckpointJob job = trainer_checkpoint_job(t);
    free(t->state.settings);
    t->state.settings = options_json(&t->options, trainer_pages_a_step(t));
    double start = log_seconds();
    TRY(checkpoint_save(&job, &t->state, t->o.out, t->o.keep, err));
    log_note(t->log, "saved step %lld in %.1f s", (long long)t->state.step, log_seconds() - start);
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
        Validation beginnings = validate_cut(t, cut);
        line.cut = cut;
        line.cut_loss = beginnings.loss;
        line.cut_token_accuracy = beginnings.token_accuracy;
    }
    log_validation(t->log, &line);
}

static int validation(Trainer *t, int last, Error *err) {
    int64_t step = t->state.step;
    if (!t->corpus.has_val) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) validate_and_log(t);
    if (t->o.sample_every && (last || step % t->o.sample_every == 0) && t->dist.rank == 0)
        return validate_samples(&t->model, &t->corpus.val, &t->corpus.prompt, t->corpus.tokenizer, t->o.samples, t->log,
                                err);
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
        train_state_advance(&t->state, line.loss, line.tokens, p->after);
        line.seconds = log_seconds() - start;
        log_step(t->log, &line);
        const char *why = stop_requested(t->o.out);
        int last = t->state.step == t->steps;
        int flags[2] = {why != NULL, t->o.save_minutes > 0 && log_seconds() - saved_at > 60 * t->o.save_minutes};
        dist_max_int(&t->dist, flags, 2);
        stopping = flags[0];
        if (stopping) log_note(t->log, "%s: stopping", why ? why : "another rank was asked");
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

// ---- the run -------------------------------------------------------------------------------------------------------

static int run(Trainer *t, int argc, char **argv, Error *err) {
    TRY(trainer_check_options(t, err));
    if (t->o.plan) return trainer_print_plan(t, err);
    TRY(trainer_claim_run(t, err)); // before anything is read or written there
    TRY(trainer_read_inputs(t, err));
    TRY(trainer_open_device(t, err));
    TRY(trainer_build(t, err));
    TRY(trainer_load(t, err));
    TRY(trainer_open_run(t, argc, argv, err));
    if (t->dist.rank == 0) trainer_print_settings(t);
    stop_install();
    if (t->state.step < t->steps) return loop(t, err);
    log_note(t->log,
             "nothing was trained: %s is at step %lld, the run ends at step %lld (hint: a larger -steps continues it, "
             "-resume no starts anew)",
             t->resumed, (long long)t->state.step, (long long)t->steps);
    return 0;
}

int main(int argc, char **argv) {
    static Trainer t;
    Error err;
    int asked = 0;
    file_hold_standard();
    backend_cpu_prepare(argv);
    options_table(&t.o, &t.options);
    int bad = dist_init(&t.dist, &argc, &argv, &err);
    if (!bad) bad = dist_agree(&t.dist, cli_parse(&t.options, argc, argv, NULL, NULL, &asked, &err), &err);
    if (!bad && asked == CLI_HELP && t.dist.rank == 0) options_help(stdout);
    if (!bad && asked == CLI_VERSION && t.dist.rank == 0) version_print(stdout, "train_c3");
    if (!bad && !asked) bad = run(&t, argc, argv, &err);
    log_close(t.log);
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
