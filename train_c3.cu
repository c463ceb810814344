// train_c3.cu: the trainer: a step, the loop around it with validation and checkpoints, and the phases that lead from
// the options to the loop (llmc/train/trainer.h has what each of them does).
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

#include "llmc/base/alloc.h"       // string_format
#include "llmc/base/file.h"        // the standard streams
#include "llmc/base/stop.h"        // signals, OUT/stop
#include "llmc/data/loader.h"      // loader_next: which pages
#include "llmc/model/cascade.h"    // c3_read_step
#include "llmc/train/profile.h"    // where a step's time goes
#include "llmc/train/nan_report.h" // what went bad when the loss is NaN
#include "llmc/train/trainer.h"    // what a run holds, and its start
#include "llmc/version.h"          // what --version prints

// ---- the loop ------------------------------------------------------------------------------------------------------

// Packs a step, while the device works on the one before.
static void pack(Trainer *t, int64_t step) {
    StepPack *p = &t->packs[step % 2];
    t->backend->range_push(t->backend, "load and pack the next step", -1);
    step_pack(p, &t->packing, loader_next(t->loader));
    t->backend->range_pop(t->backend);
}

// The mean losses of a step by task, of all ranks.
static void task_losses(const Trainer *t, const StepPack *p, LogStep *line) {
    double sums[2 * C3_N_TASKS];
    step_task_losses(p, &t->model, sums, sums + C3_N_TASKS);
    dist_sum_double(&t->dist, sums, 2 * C3_N_TASKS);
    line->has_tasks = 1;
    for (int i = 0; i < C3_N_TASKS; i++) line->task_loss[i] = sums[i] / sums[C3_N_TASKS + i]; // 0 / 0: no page
}

// One optimizer step. Fills the log line, except for the time; grad_norm is not finite when nothing was changed.
static void train_step(Trainer *t, LogStep *line) {
    int64_t step = t->state.step + 1;
    StepPack *p = &t->packs[step % 2];
    memset(line, 0, sizeof *line);
    line->step = step;
    if (t->optimizer.config.zero == 2) dist_max_int(&t->dist, &p->rounds, 1);
    profile_begin(t->profile, step);
    step_queue(p, &t->model, &t->optimizer);
    line->lr = optimizer_step(&t->optimizer, step);
    if (step < t->steps) pack(t, step + 1);
    profile_end(t->profile);
    double sums[4] = {0, p->flops.encoder, p->flops.decoder, p->flops.head};
    c3_read_step(&t->model, &sums[0], &line->grad_norm);
    profile_read(t->profile);
    dist_sum_double(&t->dist, sums, 4);
    if (t->packing.tasks) task_losses(t, p, line);
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

// What the step took of each set of pages, where these have names.
static void name_sets(const Trainer *t, const StepPack *p, LogStep *line, LogSet *sets) {
    const Dataset *d = &t->corpus.train;
    if (!d->sets[0].name[0]) return;
    line->sets = sets;
    line->n_sets = d->n_sets;
    for (int i = 0; i < d->n_sets; i++) {
        sets[i].name = d->sets[i].name;
        sets[i].pages = p->of_set[i].pages;
        sets[i].tokens = p->of_set[i].tokens;
    }
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

// Says by which algorithms a GPU multiplies, unless it was *said; the caller frees that.
static void note_algorithms(Trainer *t, char **said) {
    if (!t->backend->algorithms_text || t->dist.rank != 0) return;
    char *text = t->backend->algorithms_text(t->backend);
    if (!*said || strcmp(*said, text) != 0) log_note(t->log, "algorithms: %s", text);
    free(*said);
    *said = text;
}

static int save_algorithms(Trainer *t, Error *err) {
    if (t->dist.rank != 0) return 0;
    char *path = string_format("%s/algorithms.json", t->o.out);
    int bad = t->backend->algorithms_save(t->backend, path, err);
    free(path);
    return bad;
}

static int loop(Trainer *t, Error *err) {
    int stopping = 0, found;
    trainer_first_validation(t);
    double saved_at = log_seconds();
    char *said = NULL;
    pack(t, t->state.step + 1);
    t->profile = profile_start(t->backend, t->o.profile, t->state.step, t->steps, t->log);
    while (t->state.step < t->steps && !stopping && !trainer_has_waited(t)) {
        double start = log_seconds();
        LogStep line;
        LogSet sets[DATA_MAX_SETS];
        train_step(t, &line);
        const StepPack *p = &t->packs[line.step % 2];
        if (!isfinite(line.grad_norm) || !isfinite(line.loss))
            return nan_report(&t->model, &t->optimizer, &t->corpus.train, p->micro, p->n, &t->dist, line.step,
                              line.loss, line.grad_norm, err);
        train_state_advance(&t->state, line.loss, line.tokens, p->of_set, p->after);
        line.seconds = log_seconds() - start;
        name_sets(t, p, &line, sets);
        log_step(t->log, &line);
        if (profile_is_complete(t->profile, line.step)) profile_finish(&t->profile, &t->plan, t->o.out, t->log);
        if (!said) note_algorithms(t, &said); // the first step has met most shapes
        if (t->o.tune) TRY(dist_agree(&t->dist, save_algorithms(t, err), err));
        const char *why = stop_requested(t->o.out);
        int last = t->state.step == t->steps, best;
        int flags[2] = {why != NULL, t->o.save_minutes > 0 && log_seconds() - saved_at > 60 * t->o.save_minutes};
        dist_max_int(&t->dist, flags, 2);
        stopping = flags[0];
        if (stopping) log_note(t->log, "%s: stopping", why ? why : "another rank was asked");
        TRY(dist_agree(&t->dist, trainer_validate(t, last, &best, err), err));
        if (last || stopping || flags[1] || (best && t->o.keep_best) || trainer_has_waited(t) ||
            (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            TRY(save(t, err));
            saved_at = log_seconds();
        }
    }
    profile_finish(&t->profile, &t->plan, t->o.out, t->log); // of a run that was stopped before
    note_algorithms(t, &said);
    free(said);
    if (stopping && t->dist.local_rank == 0 && stop_clear(&found, t->o.out, err)) log_note(t->log, "%s", err->text);
    trainer_say_end(t, stopping);
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
    if (t->state.step < t->steps && trainer_has_waited(t)) {
        log_note(
            t->log,
            "nothing was trained: %s is at step %lld, where -patience %d stopped the run (hint: a larger -patience, "
            "or 0, goes on; -resume no starts anew)",
            t->resumed, (long long)t->state.step, t->o.patience);
        return 0;
    }
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
    options_free(&t.o);
    run_unclaim(&t.claim);
    dist_finalize(&t.dist);
    return bad ? 1 : 0;
}
