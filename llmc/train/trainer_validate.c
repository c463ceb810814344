// trainer_validate.c: see trainer.h. Validation of a run: each set of pages, the decoder alone, which step was best,
// and when to stop for want of a better one.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "llmc/train/trainer.h"
#include "llmc/train/validate.h"

// The lines of a validation: each set, and with -mix each task of it.
typedef struct Lines {
    LogPages pages[DATA_MAX_SETS * C3_N_TASKS];
    char names[DATA_MAX_SETS * C3_N_TASKS][DATA_NAME + 16];
    int n;
} Lines;

// task C3_N_TASKS: the pages as they are.
static LogPages validate_set(Trainer *t, const Dataset *d, int task, uint32_t cut) {
    LogPages p;
    ValidationPages v;
    memset(&p, 0, sizeof p);
    memset(&v, 0, sizeof v);
    v.d = d;
    v.pages = (uint64_t)t->o.val_pages;
    v.cut = UINT32_MAX;
    v.tasks = task < C3_N_TASKS ? &t->corpus.tasks : NULL;
    v.task = (C3Task)task;
    Validation whole = validate(&t->model, &v, &t->corpus.prompt, &t->val_batch, &t->dist);
    p.loss = whole.loss;
    p.token_accuracy = whole.token_accuracy;
    if (!cut) return p;
    v.cut = cut;
    Validation beginnings = validate(&t->model, &v, &t->corpus.prompt, &t->val_batch, &t->dist);
    p.cut_loss = beginnings.loss;
    p.cut_token_accuracy = beginnings.token_accuracy;
    return p;
}

// Adds this share of the mean over n sets.
static void add_share(LogPages *all, const LogPages *p, double share, int n) {
    all->loss += share * p->loss / n;
    all->token_accuracy += share * p->token_accuracy / n;
    all->cut_loss += share * p->cut_loss / n;
    all->cut_token_accuracy += share * p->cut_token_accuracy / n;
}

static void add_line(Lines *lines, LogPages p, const char *set, const char *task) {
    char *name = lines->names[lines->n];
    snprintf(name, sizeof lines->names[0], "%s%s%s", set, *set && *task ? "_" : "", task);
    p.name = *name ? name : NULL;
    lines->pages[lines->n++] = p;
}

// A model that has seen only the beginnings of pages so far is also asked for no more than these. 0: it has seen whole
// ones.
static uint32_t validation_cut(const Trainer *t) {
    uint32_t cut = corpus_cut(&t->corpus, t->state.step);
    for (int i = 0; i < t->corpus.n_val; i++)
        if (cut < t->corpus.val[i].longest_context || cut < t->corpus.val[i].longest_answer) return cut;
    return 0;
}

static void validate_pages(Trainer *t, LogValidation *line, Lines *lines) {
    const TaskMix *mix = &t->corpus.tasks;
    int n = t->corpus.n_val;
    line->no_pages = n == 0;
    line->cut = validation_cut(t);
    line->sets = lines->pages;
    for (int i = 0; i < n; i++) {
        const Dataset *d = &t->corpus.val[i];
        int by_task = mix->given && d->asked < d->pages; // else all have prompts of their own
        line->by_task |= by_task;
        for (int task = 0; task < C3_N_TASKS; task++) {
            double share = by_task ? mix->weight[task] : task == 0;
            if (share <= 0) continue;
            LogPages p = validate_set(t, d, by_task ? task : C3_N_TASKS, line->cut);
            add_line(lines, p, d->sets[0].name, by_task ? c3_task_names[task] : "");
            add_share(&line->all, &p, share, n);
        }
    }
    if (lines->pages[0].name) line->n_sets = lines->n;
}

// -n_mix: the same pages from fewer latents; the largest number is the model's, of which validate_pages tells.
static void validate_fewer(Trainer *t, LogValidation *line) {
    const LatentsMix *mix = &t->o.latents_mix;
    const int n = t->corpus.n_val;
    for (int k = 0; n && k < mix->n - 1; k++) {
        LogPages *p = &line->fewer[line->n_fewer];
        line->latents[line->n_fewer++] = mix->latents[k];
        for (int i = 0; i < n; i++) {
            const ValidationPages asked = {.d = &t->corpus.val[i],
                                           .pages = (uint64_t)t->o.val_pages,
                                           .cut = UINT32_MAX,
                                           .latents = mix->latents[k]};
            Validation v = validate(&t->model, &asked, &t->corpus.prompt, &t->val_batch, &t->dist);
            p->loss += v.loss / n;
            p->token_accuracy += v.token_accuracy / n;
        }
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
    Lines lines;
    memset(&line, 0, sizeof line);
    memset(&lines, 0, sizeof lines);
    line.step = t->state.step;
    validate_pages(t, &line, &lines);
    validate_fewer(t, &line);
    validate_decoder(t, &line);
    log_validation(t->log, &line);
    *best = is_best(t, &line);
}

int trainer_validate(Trainer *t, int last, int *best, Error *err) {
    int64_t step = t->state.step;
    *best = 0;
    if (!t->corpus.n_val && !t->corpus.has_plain) return 0;
    if (last || (t->o.val_every && step % t->o.val_every == 0)) validate_and_log(t, best);
    return t->o.sample_every && (last || step % t->o.sample_every == 0) ? samples(t, err) : 0;
}

void trainer_first_validation(Trainer *t) {
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

int trainer_has_waited(const Trainer *t) { return t->o.patience && t->state.best.since >= t->o.patience; }

void trainer_say_end(Trainer *t, int stopping) {
    const BestValidation *best = &t->state.best;
    double total = t->state.tokens_seen;
    if (trainer_has_waited(t) && t->state.step < t->steps)
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
