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
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "llmc/backend.h"
#include "llmc/batch.h"      // template_make, batch_build
#include "llmc/c3.h"         // c3_forward_backward
#include "llmc/checkpoint.h" // checkpoint_save
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
    C3 model;
    Optimizer optimizer;
    Loader *loader;
    MicroBatch *micro; // (g) host batches of the step
    ShardPage *pages;  // (b) of a micro-batch
    TrainState state;
    int64_t steps; // last step of the run
    Plan plan;
    PlanBytes bytes;
    Log *log;
} Trainer;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- set-up --------------------------------------------------------------------------------------------------------

static int64_t pages_a_step(const Trainer *t) { return t->o.b * t->o.g * t->dist.ranks; }

static int build(Trainer *t, Error *err) {
    const C3Config *c = &t->source.config;
    TRY(backend_cpu_create(&t->backend, options_dtype(&t->o), (int)t->o.threads, &t->dist, err));
    if (t->backend->peak_flops == 0) t->backend->peak_flops = backend_cpu_measure_peak(t->backend);
    TRY(c3_create(&t->model, c, t->backend, &t->plan.limits, err));
    t->plan.params = &t->model.params;
    t->plan.peak_flops = t->backend->peak_flops;
    t->model.enc.train = strcmp(t->o.freeze, "enc") != 0;
    t->model.dec.train = strcmp(t->o.freeze, "dec") != 0;
    OptimizerConfig oc = options_optimizer(&t->o, t->steps, t->dist.ranks);
    TRY(optimizer_create(&t->optimizer, &oc, &t->model.params, t->backend, t->model.weights, t->model.grads, err));
    t->micro = (MicroBatch *)calloc((size_t)t->o.g, sizeof *t->micro);
    t->pages = (ShardPage *)calloc((size_t)t->o.b, sizeof *t->pages);
    if (!t->micro || !t->pages) return error_set(err, "micro-batches: out of memory");
    const C3Limits *l = &t->plan.limits;
    for (int i = 0; i < (int)t->o.g; i++)
        TRY(batch_create(&t->micro[i], l->pages, l->enc_rows, l->dec_rows, l->dec_kept, err));
    return 0;
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
        if (t->source.said && t->dist.rank == 0) printf("changed\n%s", t->source.said);
        return 0;
    }
    CheckpointJob job = checkpoint_job(t);
    int bad = resume_load(&t->state, &said, &job, folder, &t->o, t->table, t->n_options, pages_a_step(t), &t->corpus,
                          err);
    if (!bad && t->dist.rank == 0) printf("resuming from %s\n%s", folder, said);
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
    printf("settings\n  %-14s %s\n", "model", t->source.text);
    options_print_given(stdout, t->table, t->n_options);
    printf("  %-14s %s, %d rank(s) of %d core(s)\n", "machine", t->backend->name, t->dist.ranks, t->backend->threads);
    plan_print(stdout, &t->plan, &t->bytes);
    fflush(stdout);
}

static int set_up(Trainer *t, Error *err) {
    TRY(options_check(&t->o, err));
    TRY(source_open(&t->source, &t->o, err));
    TRY(corpus_open(&t->corpus, &t->source, &t->o, err));
    t->steps = t->o.steps;
    double epoch = (double)t->corpus.train.pages / (double)pages_a_step(t); // in steps
    if (t->o.epochs) t->steps = (int64_t)ceil((double)t->o.epochs * epoch);
    C3Params params;
    TRY(params_build(&params, &t->source.config, t->dist.ranks, err));
    int bad = plan_make(&t->plan, &t->bytes, &t->o, &t->corpus, &t->source.config, &params, &t->dist, t->steps, err);
    if (!bad && t->o.plan) {
        if (t->dist.rank == 0) plan_print(stdout, &t->plan, &t->bytes);
    } else if (!bad) {
        bad = plan_check_memory(&t->plan, &t->bytes, err);
    }
    params_free(&params);
    return bad;
}

// ---- the loop ------------------------------------------------------------------------------------------------------

static void bucket_ready(void *arg, int bucket) { optimizer_reduce_bucket((Optimizer *)arg, bucket); }

static void pack(Trainer *t, const LoaderStep *s, int i) {
    int from = s->micro_begin[i], n = s->micro_begin[i + 1] - from;
    double rows = 0;
    for (int k = 0; k < n; k++) {
        t->pages[k] = dataset_page(&t->corpus.train, s->pages[from + k]);
        rows += (t->pages[k].answer_length < s->cut ? t->pages[k].answer_length : s->cut) + 1;
    }
    // each supervised row's share of the step's loss
    double weight = !strcmp(t->o.loss_norm, "micro") ? 1 / (rows * (double)t->o.g * t->dist.ranks)
                                                      : 1 / (double)s->total_supervised;
    batch_build(&t->micro[i], t->pages, s->pages + from, n, &t->corpus.words, t->source.config.latents, s->cut,
                (float)weight);
}

// One optimizer step. Fills everything of the log line but the time.
static OptimizerResult train_step(Trainer *t, const LoaderStep *s, LogStep *line) {
    int g = s->micro;
    for (int i = 0; i < g; i++) {
        pack(t, s, i);
        c3_forward_backward(&t->model, &t->micro[i], i, i > 0, i == g - 1 ? bucket_ready : NULL, &t->optimizer);
    }
    OptimizerResult r = optimizer_step(&t->optimizer, t->state.step + 1);
    double sums[2] = {0, 0}; // loss, FLOPs
    for (int i = 0; i < g; i++) {
        sums[0] += c3_read_loss(&t->model, &t->micro[i], i).weighted;
        C3Flops f = c3_flops(&t->source.config, &t->micro[i], 1);
        sums[1] += f.encoder + f.decoder + f.head;
    }
    dist_sum_double(&t->dist, sums, 2);
    memset(line, 0, sizeof *line);
    line->step = t->state.step + 1;
    line->loss = sums[0];
    line->lr = r.lr;
    line->grad_norm = r.grad_norm;
    line->pages = (double)s->total_pages;
    line->tokens = (double)(s->total_supervised - s->total_pages);
    line->flops = sums[1];
    line->peak_flops = t->backend->peak_flops * t->dist.ranks;
    line->memory_bytes = (double)t->bytes.total;
    return r;
}

static int advance(Trainer *t, const LoaderStep *s, const LogStep *line, Error *err) {
    TrainState *st = &t->state;
    float *losses = (float *)realloc(st->losses, (size_t)(st->step + 1) * sizeof *losses);
    if (!losses) return error_set(err, "loss history: out of memory");
    losses[st->step] = (float)line->loss;
    st->losses = losses;
    st->step++;
    st->loader = s->after;
    st->tokens_seen += line->tokens;
    return 0;
}

static int save(Trainer *t, Error *err) {
    CheckpointJob job = checkpoint_job(t);
    free(t->state.settings);
    t->state.settings = options_json(t->table, t->n_options, pages_a_step(t));
    if (!t->state.settings) return error_set(err, "settings: out of memory");
    double start = seconds();
    TRY(checkpoint_save(&job, &t->state, t->o.out, (int)t->o.keep, err));
    if (t->log) log_note(t->log, "saved step %lld in %.1f s", (long long)t->state.step, seconds() - start);
    return 0;
}

static int validation(Trainer *t, int last, Error *err) {
    int64_t step = t->state.step;
    if (!t->corpus.has_val) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) {
        Validation v =
            validate(&t->model, &t->corpus.val, &t->corpus.words, &t->micro[0], &t->dist, (uint64_t)t->o.val_pages);
        if (t->log) log_validation(t->log, step, v.loss, v.token_accuracy);
    }
    if (t->o.sample_every && (last || step % t->o.sample_every == 0) && t->dist.rank == 0)
        return validate_samples(&t->model, &t->corpus.val, &t->corpus.words, t->corpus.tokenizer, (int)t->o.samples,
                                t->log, err);
    return 0;
}

static int loop(Trainer *t, Error *err) {
    double saved_at = seconds();
    int stopping = 0;
    while (t->state.step < t->steps && !stopping) {
        double start = seconds();
        const LoaderStep *s = loader_next(t->loader);
        LogStep line;
        OptimizerResult r = train_step(t, s, &line);
        if (!r.finite || !isfinite(line.loss))
            return culprit_report(&t->model, &t->corpus.train, t->micro, s->micro, &t->dist, line.step, line.loss,
                                  line.grad_norm, err);
        TRY(dist_agree(&t->dist, advance(t, s, &line, err), err));
        line.seconds = seconds() - start;
        if (t->log) log_step(t->log, &line);
        const char *why = stop_requested(t->o.out);
        int last = t->state.step == t->steps;
        int flags[2] = {why != NULL, t->o.save_minutes > 0 && seconds() - saved_at > 60 * t->o.save_minutes};
        dist_max_int(&t->dist, flags, 2);
        stopping = flags[0];
        if (stopping && t->log) log_note(t->log, "%s: saving and stopping", why ? why : "another rank was asked");
        TRY(dist_agree(&t->dist, validation(t, last, err), err));
        if (last || stopping || flags[1] || (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            TRY(save(t, err));
            saved_at = seconds();
        }
    }
    if (stopping && t->dist.rank == 0) stop_acknowledge(t->o.out);
    if (t->log) log_note(t->log, "%s at step %lld of %lld; %s/step_%08lld", stopping ? "stopped" : "done",
                         (long long)t->state.step, (long long)t->steps, t->o.out, (long long)t->state.step);
    return 0;
}

static int run(Trainer *t, Error *err) {
    TRY(dist_agree(&t->dist, set_up(t, err), err));
    if (t->o.plan) return 0;
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
    backend_cpu_prepare(argv);
    t.n_options = options_table(&t.o, t.table);
    int bad = dist_init(&t.dist, &argc, &argv, &err);
    if (!bad) bad = cli_parse(t.table, t.n_options, argc, argv, NULL, NULL, &help, &err);
    if (!bad && help && t.dist.rank == 0) options_help(stdout);
    if (!bad && !help) bad = run(&t, &err);
    if (t.log) log_close(t.log);
    if (bad && t.dist.rank == 0) {
        fflush(stdout);
        fprintf(stderr, "train_c3: %s\n", err.text);
    }
    if (t.loader) loader_close(t.loader);
    dist_finalize(&t.dist);
    return bad ? 1 : 0;
}
