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

#include "llmc/base/alloc.h"       // string_format
#include "llmc/base/file.h"        // the standard streams
#include "llmc/base/stop.h"        // signals, OUT/stop
#include "llmc/data/loader.h"      // loader_next: which pages
#include "llmc/model/cascade.h"    // c3_read_step
#include "llmc/train/profile.h"    // where a step's time goes
#include "llmc/train/nan_report.h" // what went bad when the loss is NaN
#include "llmc/train/trainer.h"    // what a run holds, and its start
#include "llmc/train/validate.h"   // validation loss, samples
#include "llmc/version.h"          // what --version prints

// ---- the loop ------------------------------------------------------------------------------------------------------

// Packs a step, while the device works on the one before.
static void pack(Trainer *t, int64_t step) {
    StepPack *p = &t->packs[step % 2];
    t->backend->range_push(t->backend, "load and pack the next step", -1);
    step_pack(p, &t->packing, loader_next(t->loader));
    t->backend->range_pop(t->backend);
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

static LogPages validate_set(Trainer *t, const Dataset *d, uint32_t cut) {
    uint64_t n = (uint64_t)t->o.val_pages;
    LogPages p;
    memset(&p, 0, sizeof p);
    Validation whole = validate(&t->model, d, &t->corpus.prompt, &t->val_batch, &t->dist, n, UINT32_MAX);
    p.name = d->sets[0].name[0] ? d->sets[0].name : NULL;
    p.loss = whole.loss;
    p.token_accuracy = whole.token_accuracy;
    if (!cut) return p;
    Validation beginnings = validate(&t->model, d, &t->corpus.prompt, &t->val_batch, &t->dist, n, cut);
    p.cut_loss = beginnings.loss;
    p.cut_token_accuracy = beginnings.token_accuracy;
    return p;
}

// A model that has seen only the beginnings of pages so far is also asked for no more than these. 0: it has seen whole
// ones.
static uint32_t validation_cut(const Trainer *t) {
    uint32_t cut = corpus_cut(&t->corpus, t->state.step);
    for (int i = 0; i < t->corpus.n_val; i++)
        if (cut < t->corpus.val[i].longest_context || cut < t->corpus.val[i].longest_answer) return cut;
    return 0;
}

static void validate_pages(Trainer *t, LogValidation *line, LogPages *sets) {
    int n = t->corpus.n_val;
    line->no_pages = n == 0;
    line->cut = validation_cut(t);
    line->sets = sets;
    for (int i = 0; i < n; i++) {
        sets[i] = validate_set(t, &t->corpus.val[i], line->cut);
        line->n_sets += sets[i].name != NULL;
        line->all.loss += sets[i].loss / n;
        line->all.token_accuracy += sets[i].token_accuracy / n;
        line->all.cut_loss += sets[i].cut_loss / n;
        line->all.cut_token_accuracy += sets[i].cut_token_accuracy / n;
    }
}

static void validate_decoder(Trainer *t, LogValidation *line) {
    const Corpus *c = &t->corpus;
    if (!c->has_plain) return;
    line->perplexity = validate_plain(&t->model, &c->plain, &c->plain_text, &t->val_batch, &t->dist,
                                      (uint64_t)t->o.val_pages, corpus_plain_longest(c));
    if (t->state.plain_start <= 0) t->state.plain_start = line->perplexity;
    line->ratio = line->perplexity / t->state.plain_start;
    line->bound = t->o.val_lm_bound;
}

// Is it the lowest loss so far? As long as training pages are cut, that of whole pages says little.
static int is_best(Trainer *t, const LogValidation *line) {
    BestValidation *best = &t->state.best;
    if (!(t->o.keep_best || t->o.patience) || line->cut) return 0;
    best->since++;
    if (!isfinite(line->all.loss) || (best->is_known && line->all.loss >= best->loss)) return 0;
    best->is_known = 1;
    best->loss = line->all.loss;
    best->step = t->state.step;
    best->since = 0;
    return 1;
}

static int samples(Trainer *t, Error *err) {
    for (int i = 0; i < t->corpus.n_val && t->dist.rank == 0; i++) {
        const Dataset *d = &t->corpus.val[i];
        if (t->corpus.n_val > 1) log_note(t->log, "samples of %s", d->sets[0].name);
        TRY(validate_samples(&t->model, d, &t->corpus.prompt, t->corpus.tokenizer, t->o.samples, t->log, err));
    }
    return 0;
}

// *best: the model is the best so far.
static void validate_and_log(Trainer *t, int *best) {
    LogValidation line;
    LogPages sets[DATA_MAX_SETS];
    memset(&line, 0, sizeof line);
    line.step = t->state.step;
    validate_pages(t, &line, sets);
    validate_decoder(t, &line);
    log_validation(t->log, &line);
    *best = is_best(t, &line);
}

static int validation(Trainer *t, int last, int *best, Error *err) {
    int64_t step = t->state.step;
    *best = 0;
    if (!t->corpus.n_val && !t->corpus.has_plain) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) validate_and_log(t, best);
    return t->o.sample_every && (last || step % t->o.sample_every == 0) ? samples(t, err) : 0;
}

// Before the first step: what training starts from. A resumed run that knows of no plain text yet begins with that.
static void first_validation(Trainer *t) {
    int best;
    LogValidation line;
    if (t->state.step == 0 && (t->corpus.n_val || t->corpus.has_plain)) {
        validate_and_log(t, &best);
    } else if (t->corpus.has_plain && t->state.plain_start <= 0) {
        memset(&line, 0, sizeof line);
        line.step = t->state.step;
        line.no_pages = 1;
        validate_decoder(t, &line);
        log_validation(t->log, &line);
    }
}

// -patience: has it been long enough?
static int has_waited(const Trainer *t) { return t->o.patience && t->state.best.since >= t->o.patience; }

static void say_end(Trainer *t, int stopping) {
    const BestValidation *best = &t->state.best;
    double total = t->state.tokens_seen;
    if (has_waited(t) && t->state.step < t->steps)
        log_note(t->log, "no lower validation loss in %lld validations (-patience)", (long long)best->since);
    log_note(t->log, "%s at step %lld of %lld; %s/step_%08lld%s",
             stopping || t->state.step < t->steps ? "stopped" : "done", (long long)t->state.step, (long long)t->steps,
             t->o.out, (long long)t->state.step, t->o.no_save ? " is not saved (-no_save)" : "");
    for (int i = 0; i < t->state.n_sets && t->state.n_sets > 1; i++)
        log_note(t->log, "  %-14s %.0f text tokens seen, %.1f %%", t->state.set_names[i], t->state.set_tokens[i],
                 total > 0 ? 100 * t->state.set_tokens[i] / total : 0);
    if (!best->is_known) return;
    if (best->step == 0)
        log_note(t->log, "lowest validation loss: %.4f, before step 1%s", best->loss,
                 t->o.keep_best ? ": no checkpoint is better than what training began with" : "");
    else if (t->o.keep_best)
        log_note(t->log, "lowest validation loss: %.4f, of %s/best, step %lld", best->loss, t->o.out,
                 (long long)best->step);
    else log_note(t->log, "lowest validation loss: %.4f, at step %lld", best->loss, (long long)best->step);
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
    first_validation(t);
    double saved_at = log_seconds();
    char *said = NULL;
    pack(t, t->state.step + 1);
    t->profile = profile_start(t->backend, t->o.profile, t->state.step, t->steps, t->log);
    while (t->state.step < t->steps && !stopping && !has_waited(t)) {
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
        TRY(dist_agree(&t->dist, validation(t, last, &best, err), err));
        if (last || stopping || flags[1] || (best && t->o.keep_best) || has_waited(t) ||
            (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            TRY(save(t, err));
            saved_at = log_seconds();
        }
    }
    profile_finish(&t->profile, &t->plan, t->o.out, t->log); // of a run that was stopped before
    note_algorithms(t, &said);
    free(said);
    if (stopping && t->dist.local_rank == 0 && stop_clear(&found, t->o.out, err)) log_note(t->log, "%s", err->text);
    say_end(t, stopping);
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
    if (t->state.step < t->steps && has_waited(t)) {
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
