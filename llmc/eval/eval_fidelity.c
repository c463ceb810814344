// eval_fidelity.c: errors by kind of text, and what the decoder's own confidence says about them. See eval.h.
#include <math.h>
#include <stdlib.h>

#include "llmc/base/alloc.h"
#include "llmc/eval/eval.h"

double eval_mean_log_prob(const EvalPage *p) { return p->log_prob / (p->output_tokens + p->ended); }

// Wilson's 95 % interval of a share p of n (Wilson 1927).
static void wilson(double *low, double *high, double p, double n) {
    const double z = 1.959964, centre = p + z * z / (2 * n), scale = 1 + z * z / n;
    const double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    *low = p > 0 ? (centre - half) / scale : 0;
    *high = p < 1 ? (centre + half) / scale : 1;
}

// ---- by kind -------------------------------------------------------------------------------------------------------

// The variance of lost / chars, a ratio of sums over pages (Cochran 1977, 6.4), over that of independent characters.
static double design_effect(const EvalKind *k, const EvalSet *s, TextKind kind) {
    double p = k->lost / k->chars, sum = 0, independent = p * (1 - p) / k->chars;
    for (int i = 0; i < s->n; i++) {
        const KindErrors *e = &s->pages[i].m.kinds[kind];
        double off = (double)e->lost - p * (double)e->chars;
        sum += off * off;
    }
    if (k->pages < 2 || independent <= 0) return 1;
    return fmax(1, sum * k->pages / (k->pages - 1) / (k->chars * k->chars) / independent);
}

void eval_by_kind(EvalKind kinds[N_KINDS], const EvalSet *s) {
    for (TextKind kind = 0; kind < N_KINDS; kind++) {
        EvalKind *k = &kinds[kind];
        *k = (EvalKind){.high = 1};
        for (int i = 0; i < s->n; i++) {
            const KindErrors *e = &s->pages[i].m.kinds[kind];
            k->pages += e->chars > 0;
            k->chars += (double)e->chars;
            k->lost += (double)e->lost;
            k->added += (double)e->added;
        }
        k->few = k->chars < EVAL_FEW_CHARS || k->pages < EVAL_FEW_PAGES;
        if (k->chars > 0) wilson(&k->low, &k->high, k->lost / k->chars, k->chars / design_effect(k, s, kind));
    }
}

// ---- confidence ----------------------------------------------------------------------------------------------------

typedef struct Ranked {
    double value, rank;
    int page;
} Ranked;

static int by_value(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->page - y->page;
}

// Sorts; ranks count from 1, equal values share the mean of theirs.
static void rank(Ranked *r, int n) {
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && r[to].value == r[from].value;) to++;
        for (int i = from; i < to; i++) r[i].rank = (from + 1 + to) / 2.0;
    }
}

// Of all pairs of an exact page and another the share in which the exact one has the larger value; ties are half.
static double auroc(const Ranked *r, const EvalSet *s, const EvalConfidence *c) {
    double sum = 0, exact = c->exact;
    for (int i = 0; i < s->n; i++) sum += s->pages[r[i].page].m.exact ? r[i].rank : 0;
    return (sum - exact * (exact + 1) / 2) / (exact * c->wrong); // 0 / 0 without pairs
}

// Spearman's; NaN where one of the two is the same on all pages.
static double correlation(const double *x, const double *y, int n) {
    double mean = (n + 1) / 2.0, xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < n; i++) {
        xy += (x[i] - mean) * (y[i] - mean);
        xx += (x[i] - mean) * (x[i] - mean);
        yy += (y[i] - mean) * (y[i] - mean);
    }
    return xy / sqrt(xx * yy);
}

// Pages r[0..n-1].
static EvalBin bin_of(const Ranked *r, int n, const EvalSet *s) {
    EvalBin b = {.pages = n, .from = r[0].value, .to = r[n - 1].value};
    for (int i = 0; i < n; i++) {
        const EvalPage *p = &s->pages[r[i].page];
        b.exact += p->m.exact;
        b.expected += p->ended ? exp(p->log_prob) / n : 0; // a page that was cut is not the whole
        b.char_precision += p->m.char_precision / n;
    }
    wilson(&b.low, &b.high, (double)b.exact / n, n);
    return b;
}

void eval_confidence(EvalConfidence *c, const EvalSet *s) {
    const int n = s->n;
    Ranked *r = alloc((size_t)n, sizeof *r, "confidence");
    double *ranks = alloc(2 * (size_t)n, sizeof *ranks, "confidence"), *precision = ranks + n;
    *c = (EvalConfidence){0};
    for (int i = 0; i < n; i++) {
        c->exact += s->pages[i].m.exact;
        r[i] = (Ranked){.value = s->pages[i].m.char_precision, .page = i};
    }
    c->wrong = n - c->exact;
    rank(r, n);
    for (int i = 0; i < n; i++) precision[r[i].page] = r[i].rank;
    for (int i = 0; i < n; i++) r[i] = (Ranked){.value = s->pages[i].least_log_prob, .page = i};
    rank(r, n);
    c->least_auroc = auroc(r, s, c);
    for (int i = 0; i < n; i++) r[i] = (Ranked){.value = eval_mean_log_prob(&s->pages[i]), .page = i};
    rank(r, n);
    c->auroc = auroc(r, s, c);
    for (int i = 0; i < n; i++) ranks[r[i].page] = r[i].rank;
    c->rank_correlation = correlation(ranks, precision, n);
    c->n_bins = n / EVAL_FEW_PAGES < 2 ? 2 : n / EVAL_FEW_PAGES;
    if (c->n_bins > EVAL_BINS) c->n_bins = EVAL_BINS;
    if (c->n_bins > n) c->n_bins = n;
    for (int b = 0; b < c->n_bins; b++) {
        int from = (int)((int64_t)n * b / c->n_bins), to = (int)((int64_t)n * (b + 1) / c->n_bins);
        c->bins[b] = bin_of(r + from, to - from, s);
    }
    free(r);
    free(ranks);
}
