// report_eval.c: the evaluations of a report: tables, accuracy by position, and pages beside their reconstructions.
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chart.h"
#include "html.h"
#include "llmc/text/metrics.h"

enum { MAX_COLUMNS = 8 }; // of published figures

// A member that is a text, or "".
static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *item = o ? json_find(o, key) : NULL;
    return cJSON_IsString(item) ? item->valuestring : "";
}

static void print_share(FILE *out, double value) {
    if (isfinite(value)) fprintf(out, "%.2f %%", 100 * value);
    else fprintf(out, "\xe2\x80\x93"); // a dash
}

// ---- means ---------------------------------------------------------------------------------------------------------

typedef struct Row {
    const char *key, *name, *what;
    int share; // shown in per cent
} Row;

static const Row rows[] = {
    {"pages", "pages", NULL, 0},
    {"tokens_per_latent", "text tokens a latent", "compression: how many tokens one latent stands for", 0},
    {"char_precision", "character precision", "1 \xe2\x88\x92 edit distance / longer length, mean over pages", 1},
    {"exact_match", "exact match", "pages without a single error", 1},
    {"token_accuracy", "token accuracy", "teacher-forced: right when the text before is the true one", 1},
    {"perplexity", "perplexity", "of the text, given its latents", 0},
    {"word_precision", "word precision", "sets of words; of characters where Chinese occurs", 1},
    {"word_recall", "word recall", NULL, 1},
    {"bleu4", "BLEU-4", NULL, 1},
    {"rouge_l", "ROUGE-L", "F1", 1},
};

static int is_known(const ReportData *d, const Row *row) {
    for (int i = 0; i < d->n_evals; i++) {
        if (isfinite(report_number(d->evals[i].summary, row->key))) return 1;
    }
    return 0;
}

// Which pages an evaluation is about.
static void write_source(FILE *out, const ReportEval *e) {
    const char *source = text_of(e->summary, "source"), *perturb = text_of(e->summary, "perturb");
    if (!*source) return;
    fprintf(out, "<p class=\"note\">");
    html_string(out, report_eval_name(e));
    fprintf(out, ": ");
    html_string(out, source);
    if (*perturb && strcmp(perturb, "none") != 0) {
        fprintf(out, ", texts perturbed: ");
        html_string(out, perturb);
    }
    fprintf(out, "</p>\n");
}

static void write_means(FILE *out, const ReportData *d) {
    int any = 0;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) any |= is_known(d, &rows[r]);
    if (!any) return;
    fprintf(out,
            "<div class=\"scroll card\" tabindex=\"0\" role=\"region\" aria-label=\"Means\"><table>\n<caption>Pages "
            "written again from their latents alone, greedily, and compared with the originals</caption>\n"
            "<thead><tr><th scope=\"col\">metric</th>");
    for (int i = 0; i < d->n_evals; i++) {
        fprintf(out, "<th scope=\"col\">");
        html_string(out, report_eval_name(&d->evals[i]));
        fprintf(out, "</th>");
    }
    fprintf(out, "</tr></thead>\n<tbody>\n");
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (!is_known(d, &rows[r])) continue;
        fprintf(out, "<tr><th scope=\"row\">%s%s%s%s</th>", rows[r].name, rows[r].what ? "<small>" : "",
                rows[r].what ? rows[r].what : "", rows[r].what ? "</small>" : "");
        for (int i = 0; i < d->n_evals; i++) {
            char text[32];
            double value = report_number(d->evals[i].summary, rows[r].key);
            fprintf(out, "<td>");
            if (rows[r].share) print_share(out, value);
            else fputs(chart_number(text, value), out);
            fprintf(out, "</td>");
        }
        fprintf(out, "</tr>\n");
    }
    fprintf(out, "</tbody></table>\n");
    for (int i = 0; i < d->n_evals; i++) write_source(out, &d->evals[i]);
    fprintf(out, "</div>\n");
}

// ---- by position ---------------------------------------------------------------------------------------------------

// The array "by_position" as numbers; 0 when it is none of METRICS_SLICES.
static int positions(double *out, const ReportEval *e) {
    const cJSON *list = e->summary ? json_find(e->summary, "by_position") : NULL, *item;
    int n = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != METRICS_SLICES) return 0;
    cJSON_ArrayForEach(item, list) out[n++] = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    return 1;
}

static void write_positions(FILE *out, const ReportData *d) {
    double x[METRICS_SLICES], y[CHART_SERIES][METRICS_SLICES];
    Chart c = {.title = "Accuracy by position in the page",
               .note = "characters right in each twentieth of the pages, from their beginning to their end",
               .x_name = "share of the page, %",
               .scale = CHART_TO_ONE,
               .wide = 1};
    for (int k = 0; k < METRICS_SLICES; k++) x[k] = (k + 0.5) * 100 / METRICS_SLICES;
    for (int i = 0; i < d->n_evals && c.n_series < CHART_SERIES; i++) {
        if (!positions(y[c.n_series], &d->evals[i])) continue;
        c.series[c.n_series] = (ChartSeries){
            .name = report_eval_name(&d->evals[i]), .x = x, .y = y[c.n_series], .n = METRICS_SLICES, .dots = 1};
        c.n_series++;
    }
    if (c.n_series) chart_draw(out, &c);
}

// ---- by length -----------------------------------------------------------------------------------------------------

// Of a published table: its precision for the bucket from..to; NAN when it has none.
static double published_precision(const cJSON *table, double from, double to) {
    const cJSON *list = json_find(table, "buckets"), *item;
    cJSON_ArrayForEach(item, list) {
        if (report_number(item, "from") == from && report_number(item, "to") == to)
            return report_number(item, "precision");
    }
    return NAN;
}

// Published tables that have figures for a bucket of ours and as many latents. Returns how many.
static int published_tables(const cJSON **tables, const cJSON *summary) {
    const cJSON *buckets = json_find(summary, "buckets"), *bucket, *table;
    int n = 0;
    cJSON_ArrayForEach(table, json_find(summary, "published")) {
        int fits = 0;
        if (report_number(table, "latents") != report_number(summary, "latents")) continue;
        cJSON_ArrayForEach(bucket, buckets) fits |=
            isfinite(published_precision(table, report_number(bucket, "from"), report_number(bucket, "to")));
        if (fits && n < MAX_COLUMNS) tables[n++] = table;
    }
    return n;
}

static void bucket_row(FILE *out, const cJSON *bucket, const cJSON *const *tables, int n_tables) {
    double precision = report_number(bucket, "char_precision"), compression = report_number(bucket, "compression");
    double from = report_number(bucket, "from"), to = report_number(bucket, "to");
    fprintf(out, "<tr><th scope=\"row\">%.0f\xe2\x80\x93%.0f</th><td>%.0f</td><td>", from, to,
            report_number(bucket, "pages"));
    if (isfinite(compression)) fprintf(out, "%.1f\xc3\x97", compression);
    fprintf(out, "</td><td class=\"bar\"><span style=\"--share:%.2f%%\">",
            isfinite(precision) ? fmin(fmax(100 * precision, 0), 100) : 0);
    print_share(out, precision);
    fprintf(out, "</span></td>");
    for (int i = 0; i < n_tables; i++) {
        fprintf(out, "<td>");
        print_share(out, published_precision(tables[i], from, to));
        fprintf(out, "</td>");
    }
    fprintf(out, "</tr>\n");
}

static void write_buckets(FILE *out, const ReportEval *e) {
    const cJSON *list = json_find(e->summary, "buckets"), *bucket, *tables[MAX_COLUMNS];
    if (!cJSON_IsArray(list) || !list->child) return;
    int n = published_tables(tables, e->summary);
    fprintf(out,
            "<div class=\"scroll card\" tabindex=\"0\" role=\"region\" aria-label=\"By length\"><table>\n<caption><b>");
    html_string(out, report_eval_name(e));
    fprintf(out,
            "</b>: by length of the page%s</caption>\n<thead><tr><th scope=\"col\">text tokens</th>"
            "<th scope=\"col\">pages</th><th scope=\"col\">compression</th>"
            "<th scope=\"col\">character precision</th>",
            n ? "; published figures beside ours do not say how they define precision" : "");
    for (int i = 0; i < n; i++) {
        const cJSON *name = json_find(tables[i], "name");
        fprintf(out, "<th scope=\"col\">");
        html_string(out, cJSON_IsString(name) ? name->valuestring : "published");
        fprintf(out, "</th>");
    }
    fprintf(out, "</tr></thead>\n<tbody>\n");
    cJSON_ArrayForEach(bucket, list) {
        int has_borders = isfinite(report_number(bucket, "from")) && isfinite(report_number(bucket, "to"));
        if (has_borders && report_number(bucket, "pages") > 0) bucket_row(out, bucket, tables, n);
    }
    fprintf(out, "</tbody></table></div>\n");
}

// ---- controls ------------------------------------------------------------------------------------------------------

static const struct {
    const char *key, *name;
} controls[] = {{NULL, "from their own latents"},
                {"control_swapped_latents", "from the next page's latents"},
                {"control_no_latents", "from the mean of all latents"},
                {"control_zero_latents", "from latents of zeros"},
                {"decoder_alone", "without latents, given the true text before"}};

static void write_controls(FILE *out, const ReportEval *e) {
    int any = 0, n = sizeof controls / sizeof *controls;
    for (int i = 1; i < n; i++) any |= cJSON_IsObject(json_find(e->summary, controls[i].key));
    if (!any) return;
    fprintf(out,
            "<div class=\"scroll card\" tabindex=\"0\" role=\"region\" aria-label=\"Controls\"><table>\n<caption><b>");
    html_string(out, report_eval_name(e));
    fprintf(out, "</b>: what comes through the latents \xe2\x80\x93 the same pages, written</caption>\n<thead><tr>"
                 "<th scope=\"col\">controls</th><th scope=\"col\">character precision</th>"
                 "<th scope=\"col\">token accuracy</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < n; i++) {
        const cJSON *o = i ? json_find(e->summary, controls[i].key) : e->summary;
        double precision = o ? report_number(o, "char_precision") : NAN;
        if (!cJSON_IsObject(o)) continue;
        fprintf(out, "<tr><th scope=\"row\">%s</th><td class=\"bar\"><span style=\"--share:%.2f%%\">", controls[i].name,
                isfinite(precision) ? fmin(fmax(100 * precision, 0), 100) : 0);
        print_share(out, precision);
        fprintf(out, "</span></td><td>");
        print_share(out, report_number(o, "token_accuracy"));
        fprintf(out, "</td></tr>\n");
    }
    fprintf(out, "</tbody></table></div>\n");
}

void report_evaluations(FILE *out, const ReportData *d) {
    int any = 0;
    for (int i = 0; i < d->n_evals; i++) any |= d->evals[i].summary != NULL;
    if (!any) return;
    fprintf(out, "<section aria-labelledby=\"evaluation\">\n<h2 id=\"evaluation\">Evaluation</h2>\n");
    write_means(out, d);
    write_positions(out, d);
    for (int i = 0; i < d->n_evals; i++) {
        if (!d->evals[i].summary) continue;
        write_buckets(out, &d->evals[i]);
        write_controls(out, &d->evals[i]);
    }
    fprintf(out, "</section>\n");
}

// ---- reconstructions -----------------------------------------------------------------------------------------------

// group, number: which page of which evaluation, for links.
static void write_page(FILE *out, const ReportPage *p, int group, int number) {
    const char *text = text_of(p->json, "text"), *output = text_of(p->json, "reconstruction");
    size_t n = strlen(text), n_output = strlen(output), n_ops = 0, wrong = 0, characters[2] = {0};
    double tokens = report_number(p->json, "tokens"), latents = report_number(p->json, "latents");
    char *ops = NULL;
    if (metrics_align(&ops, &n_ops, text, n, output, n_output) != 0) return;
    for (size_t i = 0; i < n_ops; i++) {
        wrong += ops[i] != '=';
        characters[0] += ops[i] != 'i';
        characters[1] += ops[i] != 'd';
    }
    double longer = (double)(characters[0] > characters[1] ? characters[0] : characters[1]);
    fprintf(out, "<article id=\"page-%d-%d\">\n<header><h3>", group, number);
    if (cJSON_IsString(json_find(p->json, "id"))) html_string(out, text_of(p->json, "id"));
    else fprintf(out, "page %ld", p->number);
    fprintf(out, "</h3><p>");
    if (isfinite(tokens) && isfinite(latents) && latents > 0)
        fprintf(out, "%.0f tokens \xe2\x86\x92 %.0f latents, ", tokens, latents);
    if (wrong) fprintf(out, "%zu wrong character%s, precision ", wrong, wrong == 1 ? "" : "s");
    else fprintf(out, "exact");
    if (wrong) print_share(out, 1 - (double)wrong / longer);
    fprintf(out, "</p></header>\n<div class=\"pair\"><div><h4>Original</h4><p class=\"text\" dir=\"auto\">");
    html_reference(out, text, n, ops, n_ops);
    fprintf(out, "</p></div>\n<div><h4>Reconstruction</h4><p class=\"text\" dir=\"auto\">");
    html_output(out, output, n_output, ops, n_ops);
    fprintf(out, "</p></div></div>\n</article>\n");
    free(ops);
}

static void write_eval_pages(FILE *out, const ReportEval *e, int group) {
    fprintf(out, "<p class=\"legend-errors\"><b>");
    html_string(out, report_eval_name(e));
    fprintf(out, "</b>, the first %d of %ld pages", e->n_first, e->total);
    if (e->n_worst) fprintf(out, ", then %d that came back worst of all the others", e->n_worst);
    fprintf(out, "</p>\n");
    for (int i = 0; i < e->n_first; i++) write_page(out, &e->pages[i], group, i + 1);
    for (int i = 0; i < e->n_worst; i++) write_page(out, &e->pages[REPORT_FIRST + i], group, e->n_first + i + 1);
}

void report_reconstructions(FILE *out, const ReportData *d) {
    int any = 0;
    for (int i = 0; i < d->n_evals; i++) any |= d->evals[i].n_first > 0;
    if (!any) return;
    fprintf(out, "<section aria-labelledby=\"pages\">\n<h2 id=\"pages\">Reconstructions</h2>\n"
                 "<p class=\"lead legend-errors\">In the original is marked what <del>did not come back</del>, in the "
                 "reconstruction what is <ins>wrong or superfluous</ins>. A \xe2\x86\xb5 is a line end among the "
                 "errors.</p>\n");
    for (int i = 0; i < d->n_evals; i++) {
        if (d->evals[i].n_first) write_eval_pages(out, &d->evals[i], i + 1);
    }
    fprintf(out, "</section>\n");
}
