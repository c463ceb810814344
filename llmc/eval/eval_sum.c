// eval_sum.c: the numbers of an evaluation, summed up over all pages and over each bucket. See eval.h.
#include <stdlib.h>

#include "llmc/eval/eval.h"
#include "llmc/eval/baselines.h"

// ---- buckets -------------------------------------------------------------------------------------------------------

static int page_tokens(const EvalPage *p) { return (int)p->context.n; }

// The paper's borders if most pages lie between them; else 0.
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
    double edits, longer, tokens, windows, answer_tokens, same, rows, loss, correct;
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
    t->windows += p->windows;
    t->answer_tokens += (double)eval_answer(p)->n;
    t->same += p->same_tokens;
    t->rows += p->forced_rows;
    t->loss += p->forced[EVAL_OWN].loss;
    t->correct += p->forced[EVAL_OWN].correct;
    for (int i = 0; i < METRICS_SLICES; i++) {
        t->errors[i] += (double)k->slice_errors[i];
        t->chars[i] += (double)k->slice_chars[i];
    }
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

// Of the pages with from <= tokens < to.
static EvalMeans means_of(const EvalSet *s, int from, int to, int latents) {
    EvalMeans m = {0};
    Sums t = {0};
    double errors = 0, late = 0;
    for (int i = 0; i < s->n; i++) {
        int tokens = page_tokens(&s->pages[i]);
        if (tokens >= from && tokens < to) add_page(&m, &t, &s->pages[i]);
    }
    m.char_precision = share(m.char_precision, m.pages);
    m.exact_match = share(m.exact_match, m.pages);
    m.char_precision_micro = 1 - share(t.edits, t.longer);
    m.token_match = share(t.same, t.answer_tokens);
    m.token_accuracy = share(t.correct, t.rows);
    m.loss = share(t.loss, t.rows);
    m.compression = share(t.tokens, t.windows * latents);
    for (int i = 0; i < METRICS_SLICES; i++) {
        double accuracy = 1 - share(t.errors[i], t.chars[i]);
        m.by_position[i] = accuracy > 0 ? accuracy : 0; // insertions may outnumber the characters
        errors += t.errors[i];
        if (i >= METRICS_SLICES / 4 * 3) late += t.errors[i];
    }
    m.late_errors = share(late, errors);
    return m;
}

// ---- the worst pages -----------------------------------------------------------------------------------------------

// Inserts the pages into the sorted list, ties in the order of the file.
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
    *out = (EvalSummary){.latents = latents, .all = means_of(s, 0, INT32_MAX, latents)};
    for (int c = 0; c < N_CONDITIONS; c++) {
        double rows = 0, loss = 0, correct = 0, precision = 0;
        for (int i = 0; i < s->n; i++) {
            const EvalForced *f = &s->pages[i].forced[c];
            rows += s->pages[i].forced_rows;
            loss += f->loss;
            correct += f->correct;
            precision += f->char_precision;
        }
        out->conditions[c].loss = share(loss, rows);
        out->conditions[c].accuracy = share(correct, rows);
        out->conditions[c].char_precision = share(precision, s->n);
    }
    find_worst(out, s);
    eval_by_kind(out->kinds, s);
    if (s->n == 0) return;
    eval_confidence(&out->confidence, s);
    if (n_edges == 0) {
        n_edges = paper_edges(own, s);
        if (n_edges == 0) n_edges = round_edges(own, s);
        edges = own;
    }
    out->n_buckets = n_edges - 1;
    for (int b = 0; b < out->n_buckets; b++)
        out->buckets[b] = (EvalBucket){edges[b], edges[b + 1], means_of(s, edges[b], edges[b + 1], latents)};
}
