// report_data.c: see report_data.h.
#include "report_data.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h" // checkpoint_newest
#include "file.h"
#include "unicode.h" // utf8_valid

enum { MAX_JSON = 1 << 24 };

static int no_memory(Error *err) { return error_set(err, "out of memory"); }

// Adds a sentence to what is missing; beyond the last place they are dropped, memory that runs out as well.
static void __attribute__((format(printf, 2, 3))) note(ReportData *d, const char *format, ...) {
    if (d->n_notes == REPORT_NOTES) return;
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) >= 0) d->notes[d->n_notes++] = text;
    va_end(args);
}

// Calls `take` with every line of a file that is a JSON object; it may keep the object by setting *line to NULL.
// *bad counts the lines that are none. 1: there is no such file.
static int each_line(const char *path, int (*take)(void *arg, cJSON **line, Error *err), void *arg, long *bad,
                     Error *err) {
    char *text = NULL;
    size_t room = 0;
    ssize_t n;
    int failed = 0;
    *bad = 0;
    if (!file_exists(path)) return 1;
    int fd = file_open(path, err);
    FILE *f = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!f) return fd >= 0 ? no_memory(err) : -1;
    while (!failed && (n = getline(&text, &room, f)) > 0) {
        cJSON *line;
        Error ignored;
        if (strspn(text, " \t\r\n") == (size_t)n) continue;
        if (json_parse(&line, text, (size_t)n, path, &ignored) != 0) {
            ++*bad;
            continue;
        }
        failed = take(arg, &line, err) != 0;
        cJSON_Delete(line);
    }
    free(text);
    fclose(f);
    return failed ? -1 : 0;
}

// ---- log.jsonl -----------------------------------------------------------------------------------------------------

static int add_point(ReportCurve *c, double x, double y, Error *err) {
    if (c->n == c->room) {
        int room = c->room ? 2 * c->room : 1024;
        double *xs = realloc(c->x, (size_t)room * sizeof *xs);
        if (!xs) return no_memory(err);
        c->x = xs;
        double *ys = realloc(c->y, (size_t)room * sizeof *ys);
        if (!ys) return no_memory(err);
        c->y = ys;
        c->room = room;
    }
    c->x[c->n] = x;
    c->y[c->n++] = y;
    return 0;
}

static double number(const cJSON *o, const char *key) {
    const cJSON *item = json_find(o, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static int take_log_line(void *arg, cJSON **line, Error *err) {
    static const char *const keys[N_CURVES] = {"loss",      "lr",  "grad_norm", "tokens_per_second",
                                               "memory_mb", "mfu", "val_loss",  "val_token_accuracy"};
    ReportData *d = arg;
    double step = number(*line, "step"), ms = number(*line, "ms"), tokens = number(*line, "tokens");
    if (!(step >= 0 && step <= 1e15)) return 0;
    for (int k = 0; k < N_CURVES; k++) {
        double y = number(*line, keys[k]);
        if (isfinite(y)) TRY(add_point(&d->curves[k], step, y, err));
    }
    if (!isfinite(ms)) return 0; // no step
    d->last_step = fmax(d->last_step, step);
    d->seconds += ms / 1000;
    if (isfinite(tokens)) d->tokens += tokens;
    if (isfinite(number(*line, "pages"))) d->pages += number(*line, "pages");
    return 0;
}

static int read_log(ReportData *d, Error *err) {
    char *path = string_format("%s/log.jsonl", d->run);
    long bad = 0;
    if (!path) return no_memory(err);
    int failed = each_line(path, take_log_line, d, &bad, err);
    free(path);
    if (failed == 1) note(d, "There is no log.jsonl: no curves of the training.");
    d->has_log = failed == 0;
    if (bad) note(d, "log.jsonl: %ld line%s no JSON object, left out.", bad, bad == 1 ? " is" : "s are");
    return failed < 0 ? -1 : 0;
}

// ---- the newest checkpoint -----------------------------------------------------------------------------------------

static cJSON *read_json(ReportData *d, const char *folder, const char *file) {
    char *path = string_format("%s/%s", folder, file);
    cJSON *json = NULL;
    Error why;
    if (path && json_read(&json, path, MAX_JSON, &why) != 0) note(d, "%s.", why.text);
    free(path);
    return json;
}

static void read_step(ReportData *d) {
    Error why;
    d->step = checkpoint_newest(d->run);
    if (!d->step) {
        note(d, "There is no complete step_* folder: neither settings nor shapes of the model.");
        return;
    }
    d->has_config = config_read_c3(&d->config, d->step, &why) == 0;
    if (!d->has_config) note(d, "%s.", why.text);
    d->settings = read_json(d, d->step, "trainer/settings.json");
    d->state = read_json(d, d->step, "trainer/state.json");
}

// ---- evaluations ---------------------------------------------------------------------------------------------------

static int is_text(const cJSON *o, const char *key) {
    const cJSON *item = json_find(o, key);
    return cJSON_IsString(item) &&
           utf8_valid(item->valuestring, strlen(item->valuestring)) == strlen(item->valuestring);
}

// Keeps the first pages and the worst ones of those behind them that have an error.
static int take_page(void *arg, cJSON **line, Error *err) {
    ReportEval *e = arg;
    (void)err;
    e->total++;
    ReportPage p = {.json = *line, .number = e->total, .precision = number(*line, "char_precision")};
    if (!is_text(*line, "text") || !is_text(*line, "reconstruction")) return 0;
    if (!isfinite(p.precision)) p.precision = 1;
    if (e->n_first < REPORT_FIRST) {
        e->pages[e->n_first++] = p;
        *line = NULL;
        return 0;
    }
    ReportPage *worst = e->pages + REPORT_FIRST;
    if (p.precision >= 1 || (e->n_worst == REPORT_WORST && p.precision >= worst[REPORT_WORST - 1].precision)) return 0;
    int at = e->n_worst < REPORT_WORST ? e->n_worst++ : REPORT_WORST - 1;
    cJSON_Delete(worst[at].json);
    for (; at > 0 && worst[at - 1].precision > p.precision; at--) worst[at] = worst[at - 1];
    worst[at] = p;
    *line = NULL;
    return 0;
}

static int read_eval(ReportData *d, const char *name, Error *err) {
    ReportEval *e = &d->evals[d->n_evals++];
    char *folder = string_format("%s/%s", d->run, name), *path = string_format("%s/%s/pages.jsonl", d->run, name);
    long bad = 0;
    *e = (ReportEval){.name = strdup(name)};
    int failed = folder && path && e->name ? 0 : no_memory(err);
    if (!failed) e->summary = read_json(d, folder, "eval.json");
    if (!failed) failed = each_line(path, take_page, e, &bad, err);
    if (failed == 1) note(d, "%s: there is no pages.jsonl: no reconstructions.", name);
    if (bad) note(d, "%s/pages.jsonl: %ld line%s no JSON object, left out.", name, bad, bad == 1 ? " is" : "s are");
    free(folder);
    free(path);
    return failed < 0 ? -1 : 0;
}

static int is_eval(const struct dirent *entry) { return strncmp(entry->d_name, "eval", 4) == 0; }

static int read_evals(ReportData *d, Error *err) {
    struct dirent **names;
    int n = scandir(d->run, &names, is_eval, alphasort), failed = 0;
    if (n < 0) return no_memory(err);
    d->evals = calloc((size_t)n + 1, sizeof *d->evals);
    if (!d->evals) failed = no_memory(err);
    for (int i = 0; i < n; i++) {
        char *summary = string_format("%s/%s/eval.json", d->run, names[i]->d_name);
        char *pages = string_format("%s/%s/pages.jsonl", d->run, names[i]->d_name);
        if (!summary || !pages) failed = no_memory(err);
        if (!failed && (file_exists(summary) || file_exists(pages))) failed = read_eval(d, names[i]->d_name, err);
        free(summary);
        free(pages);
        free(names[i]);
    }
    free(names);
    if (!failed && !d->n_evals)
        note(d, "There is no evaluation in it (c3 eval -m %s PAGES.jsonl -o %s/eval makes one).", d->run, d->run);
    return failed;
}

// ---- all -----------------------------------------------------------------------------------------------------------

static int read_all(ReportData *d, const char *run, Error *err) {
    size_t n = strlen(run);
    while (n > 1 && run[n - 1] == '/') n--;
    d->run = strndup(run, n);
    if (!d->run) return no_memory(err);
    const char *slash = strrchr(d->run, '/');
    d->name = strdup(slash && slash[1] ? slash + 1 : d->run);
    if (!d->name) return no_memory(err);
    DIR *dir = opendir(d->run);
    if (!dir) return error_set(err, "%s: no such folder (hint: c3 report takes the folder of a run)", run);
    closedir(dir);
    TRY(read_log(d, err));
    read_step(d);
    TRY(read_evals(d, err));
    if (d->has_log || d->step || d->n_evals) return 0;
    return error_set(err, "%s: expected log.jsonl, step_* or eval* of a run, found none of them", run);
}

int report_read(ReportData *d, const char *run, Error *err) {
    *d = (ReportData){0};
    if (read_all(d, run, err) == 0) return 0;
    report_data_free(d);
    return -1;
}

void report_data_free(ReportData *d) {
    for (int k = 0; k < N_CURVES; k++) {
        free(d->curves[k].x);
        free(d->curves[k].y);
    }
    for (int i = 0; i < d->n_evals; i++) {
        for (int p = 0; p < REPORT_PAGES; p++) cJSON_Delete(d->evals[i].pages[p].json);
        cJSON_Delete(d->evals[i].summary);
        free(d->evals[i].name);
    }
    for (int i = 0; i < d->n_notes; i++) free(d->notes[i]);
    cJSON_Delete(d->settings);
    cJSON_Delete(d->state);
    free(d->evals);
    free(d->step);
    free(d->name);
    free(d->run);
    *d = (ReportData){0};
}
