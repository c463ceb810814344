// report.c: see report.h. The page around its parts: head, figures, curves, settings.
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chart.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "html.h"
#include "llmc/model/params.h"

double report_number(const cJSON *o, const char *key) {
    const cJSON *item = o ? json_find(o, key) : NULL;
    return cJSON_IsNumber(item) && fabs(item->valuedouble) <= 1e15 ? item->valuedouble : NAN; // NaN is not <= either
}

const char *report_eval_name(const ReportEval *e) {
    const char *name = e->name + 4; // behind "eval"
    while (*name == '_' || *name == '-') name++;
    return *name ? name : e->name;
}

static const ReportCurve *curve(const ReportData *d, ReportCurveName name) { return &d->curves[name]; }

static double last(const ReportCurve *c) { return c->n ? c->y[c->n - 1] : NAN; }

static int by_value(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static double median(const ReportCurve *c) {
    double *sorted = c->n ? malloc((size_t)c->n * sizeof *sorted) : NULL, value = NAN;
    if (!sorted) return NAN;
    memcpy(sorted, c->y, (size_t)c->n * sizeof *sorted);
    qsort(sorted, (size_t)c->n, sizeof *sorted, by_value);
    value = sorted[c->n / 2];
    free(sorted);
    return value;
}

// ---- head and figures ----------------------------------------------------------------------------------------------

static const char *duration(char buffer[32], double seconds) {
    if (seconds < 120) snprintf(buffer, 32, "%.3g s", seconds);
    else if (seconds < 7200) snprintf(buffer, 32, "%.3g min", seconds / 60);
    else snprintf(buffer, 32, "%.3g h", seconds / 3600);
    return buffer;
}

static double parameters(const C3Config *c) {
    C3Params p;
    if (params_build(&p, c, 1, NULL) != 0) return NAN;
    double n = (double)p.table.parameters;
    params_free(&p);
    return n;
}

static void write_head(FILE *out, const ReportData *d) {
    fprintf(out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">\n"
            "<title>");
    html_string(out, d->name);
    fprintf(out,
            ": C3 training report</title>\n<style>\n%s</style>\n</head>\n<body>\n<header>\n"
            "<p class=\"kind\">C3 training report</p>\n<h1>",
            report_style);
    html_string(out, d->name);
    fprintf(out, "</h1>\n");
    if (d->has_config) {
        const C3Config *c = &d->config;
        char text[32];
        fprintf(out,
                "<p class=\"lead\">Context Cascade Compression: an encoder of %d layers (width %d) reads a page and "
                "leaves %d latents; a decoder of %d layers (width %d) writes the page again from them alone. %s "
                "parameters, stored as %s.</p>\n",
                c->enc.L, c->enc.D, c->latents, c->dec.L, c->dec.D, chart_number(text, parameters(c)),
                c->dtype == DTYPE_F32    ? "fp32"
                : c->dtype == DTYPE_BF16 ? "bf16"
                                         : "fp16");
    }
}

static void tile(FILE *out, const char *value, const char *what) {
    fprintf(out, "<div><dt>");
    html_string(out, what);
    fprintf(out, "</dt><dd>");
    html_string(out, value);
    fprintf(out, "</dd></div>\n");
}

static void tile_number(FILE *out, double value, const char *what) {
    char text[32];
    if (isfinite(value)) tile(out, chart_number(text, value), what);
}

static void tile_share(FILE *out, double value, const char *what, const char *name) {
    char text[32], label[160];
    if (!isfinite(value)) return;
    snprintf(text, sizeof text, "%.2f %%", 100 * value);
    snprintf(label, sizeof label, "%s%s%.80s", what, name ? ", " : "", name ? name : "");
    tile(out, text, label);
}

static void write_tiles(FILE *out, const ReportData *d) {
    char text[64];
    double steps = report_number(d->settings, "steps");
    fprintf(out, "<dl class=\"tiles\">\n");
    for (int i = 0; i < d->n_evals && i < 2; i++) {
        const char *name = d->n_evals > 1 ? report_eval_name(&d->evals[i]) : NULL;
        tile_share(out, report_number(d->evals[i].summary, "char_precision"), "characters right", name);
    }
    if (d->n_evals) tile_number(out, report_number(d->evals[0].summary, "tokens_per_latent"), "text tokens a latent");
    if (d->has_log && isfinite(steps) && steps > 0) {
        char done[32], all[32];
        snprintf(text, sizeof text, "%s of %s", format_count(done, d->last_step), format_count(all, steps));
        tile(out, d->last_step >= steps ? done : text, d->last_step >= steps ? "steps, all of them" : "steps");
    } else if (d->has_log) {
        tile(out, format_count(text, d->last_step), "steps");
    }
    tile_number(out, last(curve(d, CURVE_VAL_LOSS)), "validation loss");
    tile_share(out, last(curve(d, CURVE_VAL_ACCURACY)), "validation tokens right", NULL);
    if (!curve(d, CURVE_VAL_LOSS)->n) tile_number(out, last(curve(d, CURVE_LOSS)), "last training loss");
    if (d->has_log) {
        tile(out, duration(text, d->seconds), "spent in steps");
        tile_number(out, d->tokens, "text tokens seen");
    }
    fprintf(out, "</dl>\n</header>\n<main>\n");
}

// ---- curves --------------------------------------------------------------------------------------------------------

static ChartSeries series(const ReportCurve *c, const char *name, int dots) {
    return (ChartSeries){.name = name, .x = c->x, .y = c->y, .n = c->n, .dots = dots};
}

// what: the word before the number in the corner.
static void small_chart(FILE *out, const ReportCurve *c, const char *title, ChartScale scale, const char *what,
                        double value, double mfu) {
    char number[2][32], text[80];
    int n = snprintf(text, sizeof text, "%s %s", what, chart_number(number[0], value));
    if (isfinite(mfu))
        snprintf(text + n, sizeof text - (size_t)n, ", %s %% of peak", chart_number(number[1], 100 * mfu));
    Chart chart = {.title = title, .x_name = "step", .value = text, .scale = scale, .n_series = 1};
    chart.series[0] = series(c, title, 0);
    if (c->n) chart_draw(out, &chart);
}

static void write_loss(FILE *out, const ReportData *d) {
    const ReportCurve *train = curve(d, CURVE_LOSS), *val = curve(d, CURVE_VAL_LOSS);
    double warm = report_number(d->settings, "len_warmup"), steps = report_number(d->settings, "steps");
    char number[2][32], text[80] = "";
    if (val->n)
        snprintf(text, sizeof text, "training %s, validation %s", chart_number(number[0], last(train)),
                 chart_number(number[1], last(val)));
    else if (train->n) snprintf(text, sizeof text, "%s", chart_number(number[0], last(train)));
    Chart c = {.title = "Loss",
               .note = "cross entropy in nats a token; the band holds every single step",
               .x_name = "step",
               .value = text,
               .scale = CHART_AUTO,
               .n_series = 1,
               .wide = 1};
    c.series[0] = series(train, "training", 0);
    if (val->n) c.series[c.n_series++] = series(val, "validation, whole pages", 1);
    if (warm > 0 && steps > 0) {
        c.mark = warm * steps;
        c.mark_name = "training pages are whole from here on";
    }
    chart_draw(out, &c);
}

static void write_curves(FILE *out, const ReportData *d) {
    const ReportCurve *lr = curve(d, CURVE_LR), *norm = curve(d, CURVE_GRAD_NORM), *memory = curve(d, CURVE_MEMORY);
    const ReportCurve *speed = curve(d, CURVE_SPEED);
    if (!d->has_log) return;
    fprintf(out, "<section aria-labelledby=\"training\">\n<h2 id=\"training\">Training</h2>\n<div class=\"charts\">\n");
    write_loss(out, d);
    small_chart(out, lr, "Learning rate", CHART_FROM_ZERO, "last", last(lr), NAN);
    small_chart(out, norm, "Gradient norm, before clipping", CHART_AUTO, "median", median(norm), NAN);
    small_chart(out, speed, "Text tokens a second", CHART_FROM_ZERO, "median", median(speed),
                median(curve(d, CURVE_MFU)));
    small_chart(out, memory, "Memory of a rank, MB", CHART_FROM_ZERO, "last", last(memory), NAN);
    fprintf(out, "</div>\n</section>\n");
}

// ---- settings ------------------------------------------------------------------------------------------------------

static void setting(FILE *out, const char *name, const char *value) {
    fprintf(out, "<div><dt>");
    html_string(out, name);
    fprintf(out, "</dt><dd>");
    html_string(out, value);
    fprintf(out, "</dd></div>\n");
}

static void stack_settings(FILE *out, const char *name, const Qwen2Config *c) {
    char text[160];
    snprintf(text, sizeof text, "%d layers, width %d, %d/%d heads of %d, MLP %d", c->L, c->D, c->NH, c->KV, c->HS,
             c->F);
    setting(out, name, text);
}

static void write_model(FILE *out, const ReportData *d) {
    const C3Config *c = &d->config;
    char text[64];
    if (!d->has_config) return;
    stack_settings(out, "encoder", &c->enc);
    stack_settings(out, "decoder", &c->dec);
    snprintf(text, sizeof text, "%d a page", c->latents);
    setting(out, "latents", text);
    setting(out, "vocabulary", format_count(text, c->dec.V));
    setting(out, "template", c->template_name);
    setting(out, "checkpoint", d->step);
}

// The few options that say what kind of run it was.
static void write_run(FILE *out, const ReportData *d) {
    const cJSON *schedule = json_find(d->settings, "schedule");
    char text[160], number[32];
    double steps = report_number(d->settings, "steps"), pages = report_number(d->settings, "pages_a_step");
    double lr = report_number(d->settings, "lr"), warmup = report_number(d->settings, "warmup");
    double ranks = report_number(d->state, "ranks");
    if (isfinite(steps)) {
        int n = snprintf(text, sizeof text, "%s", format_count(number, steps));
        if (pages > 0) snprintf(text + n, sizeof text - (size_t)n, " of %.0f pages", pages);
        setting(out, "steps", text);
    }
    if (isfinite(lr)) {
        int n = snprintf(text, sizeof text, "%s", chart_number(number, lr));
        if (cJSON_IsString(schedule)) n += snprintf(text + n, 80, ", %.40s", schedule->valuestring);
        if (isfinite(warmup))
            snprintf(text + n, sizeof text - (size_t)n, ", %s steps of warmup", format_count(number, warmup));
        setting(out, "learning rate", text);
    }
    if (isfinite(ranks)) {
        snprintf(text, sizeof text, "%.0f", ranks);
        setting(out, "ranks", text);
    }
}

static void write_settings(FILE *out, const ReportData *d) {
    const cJSON *item;
    if (!d->has_config && !d->settings) return;
    fprintf(out, "<section aria-labelledby=\"settings\">\n<h2 id=\"settings\">Model and settings</h2>\n");
    fprintf(out, "<dl class=\"grid card\">\n");
    write_model(out, d);
    if (d->settings) write_run(out, d);
    fprintf(out, "</dl>\n");
    if (d->settings) {
        fprintf(out, "<details class=\"card\"><summary>Every option of the run</summary>\n<dl class=\"grid\">\n");
        cJSON_ArrayForEach(item, d->settings) {
            char *number = cJSON_IsString(item) || cJSON_IsNull(item) ? NULL : cJSON_PrintUnformatted(item);
            const char *value = cJSON_IsString(item) ? item->valuestring : cJSON_IsNull(item) ? "not given" : number;
            char *name = string_format("-%s", item->string);
            setting(out, name, value);
            free(name);
            cJSON_free(number);
        }
        fprintf(out, "</dl></details>\n");
    }
    fprintf(out, "</section>\n");
}

static void write_notes(FILE *out, const ReportData *d) {
    if (d->n_notes) {
        fprintf(out, "<section aria-labelledby=\"missing\">\n<h2 id=\"missing\">Not in this report</h2>\n<ul>\n");
        for (int i = 0; i < d->n_notes; i++) {
            fprintf(out, "<li>");
            html_string(out, d->notes[i]);
            fprintf(out, "</li>\n");
        }
        fprintf(out, "</ul>\n</section>\n");
    }
    fprintf(out, "</main>\n<footer>\n<p>Written by <code>c3 report ");
    html_string(out, d->run);
    fprintf(out, "</code>. One file: no network, no script.</p>\n</footer>\n</body>\n</html>\n");
}

// ---- all -----------------------------------------------------------------------------------------------------------

static int save(const char *text, size_t n, const char *path, Error *err) {
    FileWriter w;
    TRY(file_create(&w, path, err));
    if (file_write(&w, text, n, err) == 0) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

int report_write(const char *run, const char *output, Error *err) {
    ReportData d;
    char *text = NULL;
    size_t n = 0;
    TRY(report_read(&d, run, err));
    FILE *out = open_memstream(&text, &n);
    int bad = !out;
    if (out) {
        write_head(out, &d);
        write_tiles(out, &d);
        write_curves(out, &d);
        report_evaluations(out, &d);
        report_reconstructions(out, &d);
        write_settings(out, &d);
        write_notes(out, &d);
        bad = ferror(out);
        bad |= fclose(out) != 0;
    }
    bad = bad ? error_set(err, "%s: out of memory", output) : save(text, n, output, err);
    free(text);
    report_data_free(&d);
    return bad;
}
