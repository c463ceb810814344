// eval_sum.c: the numbers of an evaluation, summed up over all pages and over each bucket. See eval.h.
#include <stdlib.h>

#include "llmc/eval/eval.h"
#include "llmc/eval/baselines.h"

// ---- buckets -------------------------------------------------------------------------------------------------------

static int page_tokens(const EvalPage *p) { return (int)p->context.n; }

// The paper's borders when most pages lie between them. 0: they do not.
static int paper_edges(int *edges, const EvalSet *s) {
    int inside = 0, last = BASELINE_FROM + BASELINE_BUCKETS * BASELINE_STEP;
    for (int i = 0; i < s->n; i++) {
        int t = page_tokens(&s->pages[i]);
        inside += t >= BASELINE_FROM && t < last;
    }
    if (2 * inside <= s->n) return 0;
    for (int b = 0; b <= BASELINE_BUCKETS; b++) edges[b] = BASELINE_FROM + b * BASELINE_STEP;
    return BASELINE_BUCKETS + 1;
}

// Borders at multiples of a round step (1, 2 or 5 times a power of ten) so that at most 8 buckets hold every page.
static int round_edges(int *edges, const EvalSet *s) {
    int low = INT32_MAX, high = 0, step = 1, n = 0;
    for (int i = 0; i < s->n; i++) {
        int t = page_tokens(&s->pages[i]);
        low = t < low ? t : low;
        high = t > high ? t : high;
    }
    for (int i = 0; high / step - low / step >= 8; i++) step = i % 3 == 1 ? step / 2 * 5 : step * 2;
    for (int at = low / step * step; n == 0 || edges[n - 1] <= high; at += step) edges[n++] = at;
    return n;
}

static int bad_edges(const char *text, Error *err) {
    return error_set(err, "-buckets %s: expected ascending token counts like 600,700,800 or 600..1300:100, at most %d",
                     text, EVAL_MAX_BUCKETS + 1);
}

int eval_parse_edges(int *edges, const char *text, Error *err) {
    int from, to, step, n = 0, end = 0;
    if (sscanf(text, "%9d..%9d:%9d%n", &from, &to, &step, &end) == 3 && !text[end]) {
        if (from < 0 || step < 1 || to <= from) return bad_edges(text, err);
        for (int at = from; at <= to; at += step) {
            if (n > EVAL_MAX_BUCKETS) return bad_edges(text, err);
            edges[n++] = at;
        }
        return n < 2 ? bad_edges(text, err) : n;
    }
    for (const char *p = text; n <= EVAL_MAX_BUCKETS; p++) {
        if (sscanf(p, "%9d%n", &edges[n], &end) != 1 || edges[n] < 0 || (n > 0 && edges[n] <= edges[n - 1])) break;
        n++;
        p += end;
        if (!*p && n >= 2) return n;
        if (*p != ',') break;
    }
    return bad_edges(text, err);
}

// ---- means ---------------------------------------------------------------------------------------------------------

// Sums over pages, before they are divided.
typedef struct Sums {
    double edits, longer, tokens, answer_tokens, same, rows, loss, correct;
    double errors[METRICS_SLICES], chars[METRICS_SLICES];
} Sums;

static void add_page(EvalMeans *m, Sums *t, const EvalPage *p) {
    const PageMetrics *k = &p->m;
    m->pages++;
    m->cut += !p->ended;
    m->char_precision += k->char_precision;
    m->exact_match += k->exact;
    t->edits += (double)k->edit_distance;
    t->longer += (double)(k->reference_chars > k->output_chars ? k->reference_chars : k->output_chars);
    t->tokens += page_tokens(p);
    t->answer_tokens += (double)eval_answer(p)->n;
    t->same += p->same_tokens;
    t->rows += p->forced_rows;
    t->loss += p->forced.loss;
    t->correct += p->forced.correct;
    for (int i = 0; i < METRICS_SLICES; i++) {
        t->errors[i] += (double)k->slice_errors[i];
        t->chars[i] += (double)k->slice_chars[i];
    }
}

static double share(double part, double whole, double of_nothing) { return whole > 0 ? part / whole : of_nothing; }

// The sum at *mean of `pages` pages becomes their mean.
static void divide(double *mean, int pages) { *mean = share(*mean, pages, 0); }

// Of the pages with from <= tokens < to.
static EvalMeans means_of(const EvalSet *s, int from, int to, int latents) {
    EvalMeans m = {0};
    Sums t = {0};
    double errors = 0, late = 0;
    for (int i = 0; i < s->n; i++) {
        int tokens = page_tokens(&s->pages[i]);
        if (tokens >= from && tokens < to) add_page(&m, &t, &s->pages[i]);
    }
    divide(&m.char_precision, m.pages);
    divide(&m.exact_match, m.pages);
    m.char_precision_micro = 1 - share(t.edits, t.longer, 0);
    m.token_match = share(t.same, t.answer_tokens, 0);
    m.token_accuracy = share(t.correct, t.rows, 0);
    m.loss = share(t.loss, t.rows, 0);
    m.compression = share(t.tokens, (double)m.pages * latents, 0);
    for (int i = 0; i < METRICS_SLICES; i++) {
        double accuracy = 1 - share(t.errors[i], t.chars[i], 0);
        m.by_position[i] = accuracy > 0 ? accuracy : 0; // insertions may outnumber the characters
        errors += t.errors[i];
        if (i >= METRICS_SLICES / 4 * 3) late += t.errors[i];
    }
    m.late_errors = share(late, errors, 0);
    return m;
}

// ---- the worst pages -----------------------------------------------------------------------------------------------

// Inserts pages in turn into the sorted list, equal ones in the order of the file.
static void find_worst(EvalSummary *out, const EvalSet *s) {
    for (int i = 0; i < s->n; i++) {
        if (s->pages[i].m.exact) continue;
        int at = out->n_worst;
        while (at > 0 && s->pages[i].m.char_precision < s->pages[out->worst[at - 1]].m.char_precision) at--;
        if (at == EVAL_WORST) continue;
        if (out->n_worst < EVAL_WORST) out->n_worst++;
        for (int k = out->n_worst - 1; k > at; k--) out->worst[k] = out->worst[k - 1];
        out->worst[at] = i;
    }
}

// ---- all of it -----------------------------------------------------------------------------------------------------

void eval_summarise(EvalSummary *out, const EvalSet *s, int latents, const int *edges, int n_edges) {
    int own[EVAL_MAX_BUCKETS + 1];
    double rows = 0, alone_loss = 0, alone_correct = 0, loss[N_CONTROLS] = {0}, correct[N_CONTROLS] = {0};
    *out = (EvalSummary){.latents = latents, .all = means_of(s, 0, INT32_MAX, latents)};
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        rows += p->forced_rows;
        alone_loss += p->alone.loss;
        alone_correct += p->alone.correct;
        for (int c = 0; c < N_CONTROLS; c++) {
            out->control_precision[c] += p->control_precision[c];
            loss[c] += p->control[c].loss;
            correct[c] += p->control[c].correct;
        }
    }
    out->alone_loss = share(alone_loss, rows, 0);
    out->alone_accuracy = share(alone_correct, rows, 0);
    for (int c = 0; c < N_CONTROLS; c++) {
        divide(&out->control_precision[c], s->n);
        out->control_accuracy[c] = share(correct[c], rows, 0);
        out->control_loss[c] = share(loss[c], rows, 0);
    }
    find_worst(out, s);
    if (s->n == 0) return;
    if (n_edges == 0) {
        n_edges = paper_edges(own, s);
        if (n_edges == 0) n_edges = round_edges(own, s);
        edges = own;
    }
    out->n_buckets = n_edges - 1;
    for (int b = 0; b < out->n_buckets; b++)
        out->buckets[b] = (EvalBucket){edges[b], edges[b + 1], means_of(s, edges[b], edges[b + 1], latents)};
}
