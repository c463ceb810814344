// eval_report.c: eval.json and pages.jsonl, as described in eval.h.
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/eval/eval.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/eval/baselines.h"

int eval_condition_ran(const EvalFiles *f, const EvalSet *s, EvalCondition condition) {
    return condition == EVAL_ALONE || (f->no_latents_text && (s->n > 1 || condition == EVAL_ZERO));
}

// The means and their keys in eval.json; the perplexity comes last.
static const struct {
    const char *key, *what;
    size_t offset; // of the double in EvalMeans
} means[] = {
    {"char_precision",
     "1 - Levenshtein distance / length of the longer text, in Unicode characters of the NFC form; mean over pages",
     offsetof(EvalMeans, char_precision)},
    {"char_precision_micro", "1 - all distances / all longer lengths", offsetof(EvalMeans, char_precision_micro)},
    {"exact_match", "share of pages that came back without an error", offsetof(EvalMeans, exact_match)},
    {"token_match", "free-running: positions with the same token in both texts / tokens of the originals",
     offsetof(EvalMeans, token_match)},
    {"token_accuracy",
     "teacher-forced: rows whose largest logit is the true token, the end mark included, the text before it the true "
     "one",
     offsetof(EvalMeans, token_accuracy)},
    {"loss", "teacher-forced: mean of -ln p over the same rows, nats a token", offsetof(EvalMeans, loss)},
};
enum { N_MEANS = sizeof means / sizeof *means };

// ---- eval.json -----------------------------------------------------------------------------------------------------

static void json_means(cJSON *root, const EvalMeans *m) {
    for (int i = 0; i < N_MEANS; i++)
        cJSON_AddNumberToObject(root, means[i].key, *(const double *)((const char *)m + means[i].offset));
    cJSON_AddNumberToObject(root, "perplexity", exp(m->loss));
}

static void json_positions(cJSON *root, const EvalMeans *m) {
    cJSON_AddItemToObject(root, "by_position", cJSON_CreateDoubleArray(m->by_position, METRICS_SLICES));
}

static void json_buckets(cJSON *root, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "buckets");
    for (int b = 0; b < sum->n_buckets; b++) {
        const EvalBucket *k = &sum->buckets[b];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "from", k->from);
        cJSON_AddNumberToObject(o, "to", k->to);
        cJSON_AddNumberToObject(o, "pages", k->m.pages);
        if (k->m.pages) {
            cJSON_AddNumberToObject(o, "compression", k->m.compression);
            json_means(o, &k->m);
            json_positions(o, &k->m);
        } else {
            cJSON_AddNullToObject(o, "compression");
            cJSON_AddNullToObject(o, "char_precision");
        }
        cJSON_AddItemToArray(list, o);
    }
}

static void json_published(cJSON *root) {
    cJSON *list = cJSON_AddArrayToObject(root, "published");
    for (int i = 0; i < N_BASELINES; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", baselines[i].name);
        cJSON_AddNumberToObject(o, "latents", baselines[i].latents);
        cJSON *buckets = cJSON_AddArrayToObject(o, "buckets");
        for (int b = 0; b < BASELINE_BUCKETS; b++) {
            cJSON *k = cJSON_CreateObject();
            cJSON_AddNumberToObject(k, "from", BASELINE_FROM + b * BASELINE_STEP);
            cJSON_AddNumberToObject(k, "to", BASELINE_FROM + (b + 1) * BASELINE_STEP);
            cJSON_AddNumberToObject(k, "precision", baselines[i].precision[b] / 100);
            if (baselines[i].compression[b] > 0) cJSON_AddNumberToObject(k, "compression", baselines[i].compression[b]);
            else cJSON_AddNullToObject(k, "compression");
            cJSON_AddItemToArray(buckets, k);
        }
        cJSON_AddItemToArray(list, o);
    }
}

static void json_conditions(cJSON *root, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    for (EvalCondition c = EVAL_ALONE; c < N_CONDITIONS; c++) {
        if (!eval_condition_ran(f, s, c)) continue;
        cJSON *o = cJSON_AddObjectToObject(root, eval_conditions[c].key);
        cJSON_AddNumberToObject(o, "token_accuracy", sum->conditions[c].accuracy);
        cJSON_AddNumberToObject(o, "loss", sum->conditions[c].loss);
        cJSON_AddNumberToObject(o, "perplexity", exp(sum->conditions[c].loss));
        cJSON_AddStringToObject(o, "what", eval_conditions[c].what);
        if (c == EVAL_ALONE) cJSON_AddNumberToObject(o, "uniform_perplexity", f->vocab);
        else cJSON_AddNumberToObject(o, "char_precision", sum->conditions[c].char_precision);
        if (c == EVAL_MEAN) cJSON_AddStringToObject(o, "text", f->no_latents_text);
    }
}

static void json_worst(cJSON *root, const EvalSet *s, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "worst");
    for (int i = 0; i < sum->n_worst; i++) {
        const EvalPage *p = &s->pages[sum->worst[i]];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "page", sum->worst[i]);
        cJSON_AddStringToObject(o, "id", p->id);
        cJSON_AddNumberToObject(o, "tokens", (double)p->context.n);
        cJSON_AddNumberToObject(o, "char_precision", p->m.char_precision);
        cJSON_AddNumberToObject(o, "edit_distance", (double)p->m.edit_distance);
        cJSON_AddItemToArray(list, o);
    }
}

static void json_kinds(cJSON *root, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "by_kind");
    for (int i = 0; i < N_KINDS; i++) {
        const EvalKind *k = &sum->kinds[i];
        if (k->chars + k->added == 0) continue;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "kind", text_kinds[i].key);
        cJSON_AddNumberToObject(o, "pages", k->pages);
        cJSON_AddNumberToObject(o, "characters", k->chars);
        cJSON_AddNumberToObject(o, "lost", k->lost);
        cJSON_AddNumberToObject(o, "added", k->added);
        cJSON_AddNumberToObject(o, "rate", k->lost / k->chars); // NaN becomes null
        cJSON_AddNumberToObject(o, "low", k->low);
        cJSON_AddNumberToObject(o, "high", k->high);
        cJSON_AddBoolToObject(o, "few", k->few);
        cJSON_AddItemToArray(list, o);
    }
}

static void json_confidence(cJSON *root, const EvalConfidence *c) {
    cJSON *o = cJSON_AddObjectToObject(root, "confidence");
    cJSON_AddNumberToObject(o, "exact", c->exact);
    cJSON_AddNumberToObject(o, "wrong", c->wrong);
    cJSON_AddNumberToObject(o, "auroc", c->auroc);
    cJSON_AddNumberToObject(o, "least_auroc", c->least_auroc);
    cJSON_AddNumberToObject(o, "rank_correlation", c->rank_correlation);
    cJSON_AddBoolToObject(o, "few", eval_few_pairs(c));
    cJSON *bins = cJSON_AddArrayToObject(o, "bins");
    for (int i = 0; i < c->n_bins; i++) {
        const EvalBin *b = &c->bins[i];
        cJSON *bin = cJSON_CreateObject();
        cJSON_AddNumberToObject(bin, "from", b->from);
        cJSON_AddNumberToObject(bin, "to", b->to);
        cJSON_AddNumberToObject(bin, "pages", b->pages);
        cJSON_AddNumberToObject(bin, "exact", b->exact);
        cJSON_AddNumberToObject(bin, "low", b->low);
        cJSON_AddNumberToObject(bin, "high", b->high);
        cJSON_AddNumberToObject(bin, "expected", b->expected);
        cJSON_AddNumberToObject(bin, "char_precision", b->char_precision);
        cJSON_AddItemToArray(bins, bin);
    }
}

static void json_definitions(cJSON *root) {
    static const char *const more[][2] = {
        {"perplexity", "exp(loss)"},
        {"tokens_per_latent", "text tokens / latents, mean over pages"},
        {"by_position",
         "accuracy in each twentieth of a page: 1 - errors / characters there, over all pages; an error stands where "
         "the alignment of the edit distance has it in the original, a missing or superfluous character is one error"},
        {"buckets", "pages by length in text tokens of the model's own vocabulary, from <= tokens < to"},
        {"late_errors", "share of all errors that stand in the last quarter of their page; 0.25 if spread evenly"},
        {"by_kind",
         "errors by kind of the original's characters: lost = another or none in its place; added = too many in the "
         "reconstruction; low, high: 95 % interval of lost / characters, wider where errors come together in pages"},
        {"confidence",
         "what the decoder's mean ln p of the tokens it wrote says of a page: auroc = of all pairs of an exact page "
         "and a "
         "wrong one the share in which the exact one has more of it; bins: pages sorted by it, expected = mean of the "
         "decoder's own probability of the whole page"},
        {"published",
         "figures of arXiv 2511.15244 on the Fox benchmark, English; it does not define its precision, so none of "
         "these metrics is the same quantity by definition"}};
    cJSON *o = cJSON_AddObjectToObject(root, "definitions");
    for (int i = 0; i < N_MEANS; i++) cJSON_AddStringToObject(o, means[i].key, means[i].what);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) cJSON_AddStringToObject(o, more[i][0], more[i][1]);
}

static cJSON *summary_json(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", f->model);
    cJSON_AddStringToObject(root, "source", f->source);
    cJSON_AddStringToObject(root, "dtype", f->dtype);
    if (f->options.task) cJSON_AddStringToObject(root, "task", c3_task_names[f->options.task]);
    cJSON_AddStringToObject(root, "perturb", perturb_name(f->options.perturb));
    cJSON_AddNumberToObject(root, "seed", (double)f->options.seed);
    cJSON_AddNumberToObject(root, "latents", sum->latents);
    cJSON_AddNumberToObject(root, "pages", sum->all.pages);
    json_means(root, &sum->all);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"tokens_per_latent", sum->all.compression},
                   {"late_errors", sum->all.late_errors},
                   {"pages_cut_at_max_new", sum->all.cut},
                   {"pages_not_nfc", s->not_nfc},
                   {"left_out_empty", s->without_text},
                   {"left_out_too_long", (double)s->too_long.pages},
                   {"left_out_too_long_tokens", (double)s->too_long.tokens},
                   {"left_out_of_tokens", (double)s->too_long.all_tokens},
                   {"max_new", f->options.max_new},
                   {"no_repeat_ngram", f->options.no_repeat_ngram}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(root, numbers[i].key, numbers[i].value);
    json_positions(root, &sum->all);
    json_buckets(root, sum);
    json_conditions(root, f, s, sum);
    json_worst(root, s, sum);
    json_kinds(root, sum);
    json_confidence(root, &sum->confidence);
    json_published(root);
    json_definitions(root);
    return root;
}

// ---- pages.jsonl ---------------------------------------------------------------------------------------------------

static void page_kinds(cJSON *page, const EvalPage *p) {
    cJSON *o = cJSON_AddObjectToObject(page, "by_kind");
    for (int i = 0; i < N_KINDS; i++) {
        const KindErrors *k = &p->m.kinds[i];
        const double counts[] = {(double)k->chars, (double)k->lost, (double)k->added};
        if (k->chars + k->added > 0) cJSON_AddItemToObject(o, text_kinds[i].key, cJSON_CreateDoubleArray(counts, 3));
    }
}

// What only an evaluation measures.
static void page_measured(cJSON *page, const EvalSet *s, const EvalPage *p, const EvalFiles *f) {
    cJSON_AddNumberToObject(page, "edit_distance", (double)p->m.edit_distance);
    cJSON_AddBoolToObject(page, "exact", p->m.exact);
    page_kinds(page, p);
    cJSON_AddNumberToObject(page, "output_tokens", p->output_tokens);
    cJSON_AddBoolToObject(page, "ended", p->ended);
    cJSON_AddNumberToObject(page, "same_tokens", p->same_tokens);
    cJSON_AddNumberToObject(page, "forced_rows", p->forced_rows);
    cJSON_AddNumberToObject(page, "forced_correct", p->forced[EVAL_OWN].correct);
    cJSON_AddNumberToObject(page, "loss", p->forced[EVAL_OWN].loss / p->forced_rows);
    for (EvalCondition c = EVAL_ALONE; c < N_CONDITIONS; c++) {
        if (!eval_condition_ran(f, s, c)) continue;
        cJSON *o = cJSON_AddObjectToObject(page, eval_conditions[c].key);
        cJSON_AddNumberToObject(o, "correct", p->forced[c].correct);
        cJSON_AddNumberToObject(o, "loss", p->forced[c].loss / p->forced_rows);
        if (c != EVAL_ALONE) cJSON_AddNumberToObject(o, "char_precision", p->forced[c].char_precision);
    }
}

char *eval_page_json(const EvalSet *s, int i, int latents, const EvalFiles *f) {
    const EvalPage *p = &s->pages[i];
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", p->id);
    if (p->prompt_text) cJSON_AddStringToObject(o, "prompt", p->prompt_text);
    cJSON_AddStringToObject(o, "text", p->reference);
    cJSON_AddStringToObject(o, "reconstruction", p->written ? p->written : p->output);
    cJSON_AddNumberToObject(o, "tokens", (double)p->context.n);
    cJSON_AddNumberToObject(o, "latents", s->pages[i].windows * latents);
    cJSON_AddNumberToObject(o, "char_precision", p->m.char_precision);
    cJSON_AddNumberToObject(o, "mean_log_prob", eval_mean_log_prob(p));
    cJSON_AddNumberToObject(o, "least_log_prob", p->least_log_prob);
    if (f) page_measured(o, s, p, f);
    char *text = json_line(o);
    cJSON_Delete(o);
    return text;
}

// ---- the files, both or none ---------------------------------------------------------------------------------------

static int create(FileWriter *w, const char *folder, const char *name, Error *err) {
    char *path = string_format("%s/%s", folder, name);
    int bad = file_create(w, path, err);
    free(path);
    return bad;
}

// Frees the line.
static int write_line(FileWriter *w, char *line, Error *err) {
    int bad = file_write(w, line, strlen(line), err) != 0 || file_write(w, "\n", 1, err) != 0;
    free(line);
    return bad ? -1 : 0;
}

static int write_files(FileWriter *pages, FileWriter *summary, const EvalFiles *f, const EvalSet *s,
                       const EvalSummary *sum, Error *err) {
    TRY(create(pages, f->out, "pages.jsonl", err));
    TRY(create(summary, f->out, "eval.json", err));
    for (int i = 0; i < s->n; i++) TRY(write_line(pages, eval_page_json(s, i, sum->latents, f), err));
    cJSON *root = summary_json(f, s, sum);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    TRY(write_line(summary, text, err));
    FileWriter *w[] = {pages, summary};
    for (int i = 0; i < 2; i++)
        if (fflush(w[i]->stream) != 0) return error_set(err, "%s: cannot write: disk full?", w[i]->path);
    TRY(file_commit(pages, err));
    return file_commit(summary, err); // last: when it is there, so is the other
}

int eval_write(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum, Error *err) {
    FileWriter pages = {0}, summary = {0};
    TRY(file_make_dirs(f->out, err));
    int bad = write_files(&pages, &summary, f, s, sum, err);
    file_discard(&pages);
    file_discard(&summary);
    return bad;
}

int eval_try_folder(const char *out, Error *err) {
    TRY(file_make_dirs(out, err));
    char *path = string_format("%s/eval.json", out);
    int bad = file_check_writable(path, err);
    free(path);
    return bad;
}
