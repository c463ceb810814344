// eval_table.c: the results of an evaluation as printed tables. See eval.h.
#include <math.h>
#include <string.h>

#include "llmc/base/clean.h"
#include "llmc/eval/eval.h"
#include "llmc/eval/baselines.h"

static void print_head(FILE *out, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    const EvalMeans *m = &sum->all;
    fprintf(out, "model %s (%s)\npages %s: %d, %.1f tokens a latent on average (N = %d)\n", clean(f->model), f->dtype,
            clean(f->source), m->pages, m->compression, sum->latents);
    if (f->options.perturb == PERTURB_RANDOM)
        fprintf(out, "texts replaced by random letters and digits (seed %llu)\n", (unsigned long long)f->options.seed);
    if (f->options.perturb == PERTURB_SHUFFLE)
        fprintf(out, "characters of each text shuffled (seed %llu)\n", (unsigned long long)f->options.seed);
    char left_out[160];
    if (s->without_text) fprintf(out, "left out: %d pages without text\n", s->without_text);
    if (s->too_long.pages)
        fprintf(out, "left out: %s, longer than the model takes\n", left_out_text(left_out, &s->too_long));
    if (s->not_nfc) fprintf(out, "%d pages differ from their NFC form; the NFC form is compared\n", s->not_nfc);
    if (m->cut && f->options.max_new)
        fprintf(out, "%d pages were cut at %d new tokens (-max_new)\n", m->cut, f->options.max_new);
    else if (m->cut)
        fprintf(out,
                "%d pages were cut at twice their tokens + 32, at most %d or their own + 1 (-max_new sets a limit)\n",
                m->cut, GENERATE_MAX_NEW);
    fprintf(out, "\n");
}

static void print_share(FILE *out, const char *name, double value, const char *note) {
    fprintf(out, "%-26s %7.2f%%  %s\n", name, 100 * value, note);
}

static void print_metrics(FILE *out, const EvalFiles *f, const EvalSummary *sum) {
    const EvalMeans *m = &sum->all;
    print_share(out, "char precision", m->char_precision, "1 - edit distance / longer length, mean over pages");
    print_share(out, "char precision, micro", m->char_precision_micro, "the same over all characters together");
    print_share(out, "exact match", m->exact_match, "share of pages");
    print_share(out, "token match", m->token_match, "free-running: equal positions / reference tokens");
    print_share(out, "token accuracy", m->token_accuracy, "teacher-forced, the end mark included");
    fprintf(out, "%-26s %8.4g  teacher-forced, from the page's latents (%.4f nats a token)\n", "perplexity",
            exp(m->loss), m->loss);
    const double alone = sum->conditions[EVAL_ALONE].loss;
    fprintf(out, "%-26s %8.4g  the decoder with its latents left out, <img></img> empty (%.4f);\n",
            "perplexity without latents", exp(alone), alone);
    fprintf(out, "%-26s %8d  a guess with equal chances (%.4f), which a decoder that never saw text\n", "", f->vocab,
            log(f->vocab));
    fprintf(out, "%-26s %8s  without latents may miss by far\n", "", "");
}

int eval_published_bucket(const EvalBucket *k) {
    int row = (k->from - BASELINE_FROM) / BASELINE_STEP;
    int same = k->from == BASELINE_FROM + row * BASELINE_STEP && k->to == k->from + BASELINE_STEP;
    return same && k->from >= BASELINE_FROM && row < BASELINE_BUCKETS ? row : -1;
}

static void print_buckets(FILE *out, const EvalFiles *f, const EvalSummary *sum) {
    int outside = sum->all.pages, beside = 0;
    for (int b = 0; b < sum->n_buckets; b++) {
        outside -= sum->buckets[b].m.pages;
        beside |= sum->buckets[b].m.pages > 0 && eval_published_bucket(&sum->buckets[b]) >= 0;
    }
    fprintf(out, "\n%-13s %6s %12s %15s %12s", "text tokens", "pages", "compression", "char precision", "exact match");
    for (int i = 0; i < N_BASELINES && beside; i++) fprintf(out, "%s%7s", i ? " " : " | ", baselines[i].label);
    fprintf(out, "\n");
    for (int b = 0; b < sum->n_buckets; b++) {
        const EvalBucket *k = &sum->buckets[b];
        int row = eval_published_bucket(k);
        if (k->m.pages == 0 && row < 0) continue;
        fprintf(out, "%6d-%-6d %6d", k->from, k->to, k->m.pages);
        if (k->m.pages)
            fprintf(out, " %11.1fx %14.2f%% %11.2f%%", k->m.compression, 100 * k->m.char_precision,
                    100 * k->m.exact_match);
        else fprintf(out, " %12s %15s %12s", "-", "-", "-");
        for (int i = 0; i < N_BASELINES && beside && row >= 0; i++)
            fprintf(out, "%s%6.1f%%", i ? " " : " | ", baselines[i].precision[row]);
        fprintf(out, "\n");
    }
    if (outside) fprintf(out, "%d pages lie outside these buckets\n", outside);
    if (beside)
        fprintf(out,
                "right of the line: the precision the C3 paper prints for C3 (32, 64, 100 latents) and DeepSeek-OCR "
                "(64, 100\nvision tokens), full-size models, Fox's English pages. It does not define precision: "
                "none of our columns is the\nsame quantity by definition. Compression of C3 with 32 latents "
                "there: 21.0x to 39.4x.\n");
    if (beside && f->vocab < QWEN_BASE_RANKS)
        fprintf(out, "tokens are those of this model's vocabulary of %d, the paper's those of Qwen's whole one\n",
                f->vocab);
}

static void print_positions(FILE *out, const EvalMeans *m) {
    fprintf(out,
            "\naccuracy by position in the page, in twentieths: errors counted where they stand in the original\n");
    for (int k = 0; k < METRICS_SLICES; k++) fprintf(out, "%6.1f%s", 100 * m->by_position[k], k % 10 == 9 ? "\n" : " ");
    fprintf(out, "%.1f %% of the errors stand in the last quarter of the pages\n", 100 * m->late_errors);
}

static void print_kinds(FILE *out, const EvalSummary *sum) {
    int few = 0;
    fprintf(out,
            "\nerrors by kind of text: lost = another or none in place of the original's, added = too many\n"
            "%-22s %6s %10s %8s %17s %7s\n",
            "", "pages", "characters", "lost", "95 % interval", "added");
    for (int i = 0; i < N_KINDS; i++) {
        const EvalKind *k = &sum->kinds[i];
        if (k->chars + k->added == 0) continue;
        char lost[16] = "-", interval[32] = "-";
        if (k->chars > 0) snprintf(lost, sizeof lost, "%.2f%%", 100 * k->lost / k->chars);
        if (k->chars > 0) snprintf(interval, sizeof interval, "%.2f%% - %.2f%%", 100 * k->low, 100 * k->high);
        fprintf(out, "%-20s %c %6d %10.0f %8s %17s %7.0f\n", text_kinds[i].label, k->few ? '*' : ' ', k->pages,
                k->chars, lost, interval, k->added);
        few |= k->few;
    }
    fprintf(out, "names: capitalised words inside a sentence; code: whole lines; both are counted above as well\n");
    if (few) fprintf(out, "* fewer than %d characters or %d pages: says little\n", EVAL_FEW_CHARS, EVAL_FEW_PAGES);
}

int eval_few_pairs(const EvalConfidence *c) { return c->exact < EVAL_FEW_PAGES || c->wrong < EVAL_FEW_PAGES; }

static void print_confidence(FILE *out, const EvalConfidence *c) {
    fprintf(out,
            "\nthe decoder's confidence, mean ln p of a page's tokens; expected: exact by its own probability of the "
            "whole\n"
            "%22s %6s %8s %17s %9s %15s\n",
            "mean ln p", "pages", "exact", "95 % interval", "expected", "char precision");
    for (int i = 0; i < c->n_bins; i++) {
        const EvalBin *b = &c->bins[i];
        char interval[32];
        snprintf(interval, sizeof interval, "%.1f%% - %.1f%%", 100 * b->low, 100 * b->high);
        fprintf(out, "%9.2g to %9.2g %6d %7.2f%% %17s %8.2f%% %14.2f%%\n", b->from, b->to, b->pages,
                100.0 * b->exact / b->pages, interval, 100 * b->expected, 100 * b->char_precision);
    }
    if (c->exact == 0 || c->wrong == 0) {
        fprintf(out, "%s: nothing to tell apart\n", c->wrong ? "no page is exact" : "all pages are exact");
        return;
    }
    fprintf(
        out,
        "an exact page is more confident than one with errors in %.1f %% of all pairs (%d exact, %d with errors%s);\n"
        "by its least ln p in %.1f %%\n",
        100 * c->auroc, c->exact, c->wrong, eval_few_pairs(c) ? ": few" : "", 100 * c->least_auroc);
}

static void print_controls(FILE *out, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    if (!f->no_latents_text) return;
    fprintf(out, "\ncontrols: the same pages      char precision  token accuracy  perplexity\n");
    for (EvalCondition c = EVAL_SWAPPED; c < N_CONDITIONS; c++) {
        if (eval_condition_ran(f, s, c))
            fprintf(out, "%-30s %12.2f%% %14.2f%% %11.4g\n", eval_conditions[c].label,
                    100 * sum->conditions[c].char_precision, 100 * sum->conditions[c].accuracy,
                    exp(sum->conditions[c].loss));
    }
}

void eval_print(FILE *out, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    print_head(out, f, s, sum);
    print_metrics(out, f, sum);
    print_buckets(out, f, sum);
    print_positions(out, &sum->all);
    print_kinds(out, sum);
    print_confidence(out, &sum->confidence);
    print_controls(out, f, s, sum);
}

// ---- several numbers of latents ------------------------------------------------------------------------------------

// The paper's precision of C3 with so many latents; NULL: it has none.
static const double *published(int latents) {
    for (int i = 0; i < N_BASELINES; i++) {
        if (baselines[i].latents == latents && !strncmp(baselines[i].name, "C3", 2)) return baselines[i].precision;
    }
    return NULL;
}

static void print_means(FILE *out, const EvalMeans *m, const double *paper, int row) {
    if (m->pages) fprintf(out, " | %7.2f%% %6.1fx", 100 * m->char_precision, m->compression);
    else fprintf(out, " | %8s %7s", "-", "-");
    if (paper && row >= 0) fprintf(out, " %6.1f%%", paper[row]);
    else if (paper) fprintf(out, " %7s", "");
}

void eval_print_latents(FILE *out, const EvalSummary *sums, int n) {
    fprintf(out, "\n\nthe same pages from each number of latents: char precision, text tokens a latent\n%-13s %6s",
            "text tokens", "pages");
    for (int i = 0; i < n; i++)
        fprintf(out, " | %8d latents%s", sums[i].latents, published(sums[i].latents) ? "   paper" : "");
    fprintf(out, "\n");
    for (int b = 0; b < sums->n_buckets; b++) {
        const EvalBucket *k = &sums->buckets[b];
        if (!k->m.pages) continue;
        fprintf(out, "%6d-%-6d %6d", k->from, k->to, k->m.pages);
        for (int i = 0; i < n; i++)
            print_means(out, &sums[i].buckets[b].m, published(sums[i].latents), eval_published_bucket(k));
        fprintf(out, "\n");
    }
    fprintf(out, "%-13s %6d", "all", sums->all.pages);
    for (int i = 0; i < n; i++) print_means(out, &sums[i].all, published(sums[i].latents), -1);
    fprintf(out, "\n");
}
