// log.c: see log.h. Each object reaches the file in one write of a whole line, so that whoever follows the file, and
// whoever kills the run, never meets half of one.
#include "llmc/train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h> // PRId64
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "llmc/base/json.h"
#include "llmc/base/terminal.h"

static const double LINE_SECONDS = 5;  // at most one line of a step in this time
static const double KEPT_SECONDS = 60; // the same on a terminal, where the bar shows the others

struct Log {
    char *path;
    int fd;
    off_t size;        // bytes of whole lines
    int full_reported; // a failed write was reported
    int64_t steps;     // last step of the run
    int terminal;      // the one behind stdout (terminal.h); -1: none
    double printed;    // when the last line of a step was printed, seconds
    int bar;           // the current line shows a progress bar
    char *step;        // the line of the last step, as long as it was not printed; else NULL
    int64_t seen;      // steps logged
    double before;     // when the last step was logged
    double per_step;   // running mean of the time from step to step, validation and saving included
};

double log_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- log.jsonl -----------------------------------------------------------------------------------------------------

// Step of a line, or that of the line before when it has none; -1 when it is no JSON object. *has_loss: a step's own.
static int64_t step_of_line(const char *line, size_t n, int64_t before, int *has_loss) {
    cJSON *object;
    if (json_parse(&object, line, n, "log", NULL) != 0) return -1;
    int64_t step = before;
    const cJSON *item = json_find(object, "step");
    if (item && json_whole(&step, item, 0, (int64_t)1 << 53) != 0) step = before;
    *has_loss = cJSON_GetObjectItemCaseSensitive(object, "loss") != NULL;
    cJSON_Delete(object);
    return step;
}

// Copies the lines of steps up to `last`, one for each step; a line without its newline was cut.
static int write_history(const char *path, const char *text, size_t size, int64_t last, Error *err) {
    FileWriter w;
    TRY(file_create(&w, path, err));
    int64_t step = 0, kept = 0; // the last step whose line was kept
    int bad = 0, has_loss = 0;
    for (size_t at = 0; at < size && !bad;) {
        const char *newline = memchr(text + at, '\n', size - at);
        if (!newline) break;
        size_t n = (size_t)(newline - (text + at)) + 1;
        int64_t found = step_of_line(text + at, n - 1, step, &has_loss);
        if (found >= 0) step = found;
        int twice = has_loss && found <= kept;
        if (found >= 0 && found <= last && !twice) bad = file_write(&w, text + at, n, err);
        if (has_loss && found > kept) kept = found;
        at += n;
    }
    return file_end(&w, bad, err);
}

int log_open(Log **out, const char *folder, int64_t step, int64_t steps, Error *err) {
    *out = NULL;
    Log *log = alloc(1, sizeof *log, "log");
    char *path = string_format("%s/log.jsonl", folder);
    FileMap old = {0};
    *log =
        (Log){.path = path, .fd = -1, .steps = steps, .terminal = terminal_behind(STDOUT_FILENO), .printed = -INFINITY};
    if (log->terminal >= 0) log->printed = log_seconds();        // the bar shows the first steps
    int bad = file_exists(path) ? file_map(&old, path, err) : 0; // whatever is no regular file is refused here
    if (!bad) bad = write_history(path, (const char *)old.data, step > 0 ? old.size : 0, step, err);
    file_unmap(&old);
    if (!bad) {
        log->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        log->size = log->fd < 0 ? -1 : lseek(log->fd, 0, SEEK_END);
        if (log->size < 0) bad = error_set(err, "%s: cannot append: %s", path, strerror(errno));
    }
    if (bad) log_close(log);
    else *out = log;
    return bad;
}

static void append(Log *log, const char *line, size_t n) {
    ssize_t wrote = write(log->fd, line, n);
    if (wrote == (ssize_t)n) {
        log->size += wrote;
        return;
    }
    int code = wrote < 0 ? errno : ENOSPC;
    int cut = wrote > 0 ? ftruncate(log->fd, log->size) : 0;
    if (!log->full_reported) {
        fprintf(stderr, "%s: cannot write%s: %s; the run continues without a log\n", clean(log->path),
                cut ? " or cut a half line" : "", strerror(code));
        log->full_reported = 1;
    }
}

// "nameSUFFIX":number or "nameSUFFIX":null
static void add_number(char **line, const char *name, const char *suffix, const char *format, double value) {
    char number[64] = "null";
    if (isfinite(value)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(number, sizeof number, format, value);
#pragma GCC diagnostic pop
    }
    string_append(line, ",\"%s%s\":%s", name, suffix, number);
}

typedef struct Field {
    const char *name, *format;
    double value;
} Field;

static void utc_now(char text[32]) {
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, 32 - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

static char *line_begin(int64_t step) {
    char time[32];
    utc_now(time);
    return string_format("{\"step\":%" PRId64 ",\"time\":\"%s\"", step, time);
}

static void add_fields(char **line, const Field *fields, int n) {
    for (int i = 0; i < n; i++) add_number(line, fields[i].name, "", fields[i].format, fields[i].value);
}

static void line_end(Log *log, char *line) {
    string_append(&line, "}\n");
    append(log, line, strlen(line));
    free(line);
}

// ---- stdout --------------------------------------------------------------------------------------------------------

// Replaces the bar by the line of its step, which stays: a note always follows the step it belongs to.
static void keep_step(Log *log) {
    if (log->bar) fputs("\r\x1b[K", stdout);
    log->bar = 0;
    if (!log->step) return;
    puts(log->step);
    free(log->step);
    log->step = NULL;
    log->printed = log_seconds();
}

static double share_of(double peak, const LogStep *s) { // NAN: unknown
    double flops = s->flops_encoder + s->flops_decoder + s->flops_head;
    return peak > 0 && flops > 0 && s->seconds > 0 ? flops / s->seconds / peak : NAN;
}

// "MFU 41.2 %, 68.0 % of peak | ", with n/a for a GPU whose data sheet is not known; a CPU has its measured peak alone.
static void peak_text(char *text, size_t room, const LogStep *s) {
    double mfu = share_of(s->sheet_flops, s), peak = share_of(s->peak_flops, s);
    int at = 0;
    text[0] = 0;
    if (isfinite(mfu)) at = snprintf(text, room, "MFU %.1f %%", 100 * mfu);
    else if (s->is_gpu) at = snprintf(text, room, "MFU n/a");
    if (isfinite(peak)) at += snprintf(text + at, room - (size_t)at, "%s%.1f %% of peak", at ? ", " : "", 100 * peak);
    if (at) snprintf(text + at, room - (size_t)at, " | ");
}

// The words of a step; the counts of steps stand before them. What one looks for first comes first: a narrow terminal
// cuts the rest.
static void step_text(char *text, size_t room, const Log *log, const LogStep *s) {
    char peak[128], left[32];
    peak_text(peak, sizeof peak, s);
    snprintf(text, room, "%s left | loss %.4f | lr %.2e | norm %.3f | %.0f ms | %.0f tok/s | %s%.0f MB",
             format_time(left, log->per_step * (double)(log->steps - s->step)), s->loss, s->lr, s->grad_norm,
             1e3 * s->seconds, s->seconds > 0 ? s->tokens / s->seconds : 0, peak, s->memory_bytes / 1e6);
}

static void print_bar(Log *log, const LogStep *s, const char *text) {
    enum { CELLS = 20 };
    char bar[CELLS + 1], line[768];
    int full = log->steps > 0 ? (int)((double)s->step / (double)log->steps * CELLS) : 0;
    for (int i = 0; i < CELLS; i++) bar[i] = i < full ? '=' : ' ';
    bar[CELLS] = 0;
    snprintf(line, sizeof line, "[%s] %" PRId64 "/%" PRId64 " | %s", bar, s->step, log->steps, text);
    printf("\r\x1b[K%.*s", terminal_columns(log->terminal) - 1, line); // one column less: no terminal wraps
    log->bar = 1;
}

static void note_time(Log *log, const LogStep *s) {
    double now = log_seconds(), took = log->seen ? now - log->before : s->seconds;
    log->seen++;
    log->before = now;
    double weight = log->seen < 50 ? 1.0 / (double)log->seen : 0.02;
    log->per_step += weight * (took - log->per_step);
}

static void print_step(Log *log, const LogStep *s) {
    char text[512];
    step_text(text, sizeof text, log, s);
    free(log->step);
    log->step = string_format("step %*" PRId64 "/%" PRId64 " | %s", snprintf(NULL, 0, "%" PRId64, log->steps), s->step,
                              log->steps, text);
    double often = log->terminal < 0 ? LINE_SECONDS : KEPT_SECONDS;
    if (log_seconds() - log->printed >= often || s->step == log->steps) keep_step(log);
    if (log->terminal >= 0) print_bar(log, s, text);
    fflush(stdout);
}

// ---- events --------------------------------------------------------------------------------------------------------

void log_step(Log *log, const LogStep *s) {
    if (!log) return;
    note_time(log, s);
    // nine digits tell any two fp32 losses apart
    const Field fields[] = {{"loss", "%.9g", s->loss},
                            {"lr", "%.6e", s->lr},
                            {"grad_norm", "%.9g", s->grad_norm},
                            {"pages", "%.0f", s->pages},
                            {"tokens", "%.0f", s->tokens},
                            {"ms", "%.3f", 1e3 * s->seconds},
                            {"tokens_per_second", "%.1f", s->seconds > 0 ? s->tokens / s->seconds : NAN},
                            {"mfu", "%.4f", share_of(s->sheet_flops, s)},
                            {"memory_mb", "%.1f", s->memory_bytes / 1e6},
                            {"peak_share", "%.4f", share_of(s->peak_flops, s)},
                            {"tflop_encoder", "%.6g", s->flops_encoder / 1e12},
                            {"tflop_decoder", "%.6g", s->flops_decoder / 1e12},
                            {"tflop_head", "%.6g", s->flops_head / 1e12}};
    char *line = line_begin(s->step);
    add_fields(&line, fields, sizeof fields / sizeof *fields);
    for (int i = 0; i < s->n_sets; i++) {
        add_number(&line, "data_pages_", s->sets[i].name, "%.0f", s->sets[i].pages);
        add_number(&line, "data_tokens_", s->sets[i].name, "%.0f", s->sets[i].tokens);
    }
    for (int i = 0; i < C3_N_TASKS && s->has_tasks; i++)
        add_number(&line, "loss_", c3_task_names[i], "%.9g", s->task_loss[i]);
    line_end(log, line);
    print_step(log, s);
}

static void add_pages(char **line, const LogPages *p, uint32_t cut) {
    char suffix[64] = "";
    if (p->name) snprintf(suffix, sizeof suffix, "_%s", p->name);
    add_number(line, "val_loss", suffix, "%.9g", p->loss);
    add_number(line, "val_token_accuracy", suffix, "%.6f", p->token_accuracy);
    if (!cut) return;
    if (!p->name) add_number(line, "val_cut", "", "%.0f", cut);
    add_number(line, "val_cut_loss", suffix, "%.9g", p->cut_loss);
    add_number(line, "val_cut_token_accuracy", suffix, "%.6f", p->cut_token_accuracy);
}

static void add_fewer(char **line, const LogPages *p, int latents) {
    char name[32];
    snprintf(name, sizeof name, "val_n%d", latents);
    add_number(line, name, "_loss", "%.9g", p->loss);
    add_number(line, name, "_token_accuracy", "%.6f", p->token_accuracy);
}

// "loss 2.5000, 75.00 % of the tokens right; cut to ..."
static const char *pages_text(char text[256], const LogPages *p, uint32_t cut) {
    int at = snprintf(text, 256, "loss %.4f, %.2f %% of the tokens right", p->loss, 100 * p->token_accuracy);
    if (cut)
        snprintf(text + at, 256 - (size_t)at,
                 "; cut to %" PRIu32 " tokens, as training pages still are: loss %.4f, %.2f %%", cut, p->cut_loss,
                 100 * p->cut_token_accuracy);
    return text;
}

static void print_validation(Log *log, const LogValidation *v) {
    char text[256];
    if (!v->no_pages)
        log_note(log, "validation at step %" PRId64 ": %s%s", v->step, pages_text(text, &v->all, v->cut),
                 v->by_task      ? " (mean by -mix)"
                 : v->n_sets > 1 ? " (mean of the sets)"
                                 : "");
    for (int i = 0; i < v->n_sets; i++)
        log_note(log, "  %-14s %s", v->sets[i].name, pages_text(text, &v->sets[i], v->cut));
    for (int i = 0; i < v->n_fewer; i++)
        log_note(log, "  %5d latents  %s", v->latents[i], pages_text(text, &v->fewer[i], 0));
    if (!v->perplexity) return;
    log_note(log, "plain text at step %" PRId64 ": perplexity of the decoder alone %.4g, %.3f times that at the start",
             v->step, v->perplexity, v->ratio);
    if (v->ratio > v->bound)
        log_note(log,
                 "warning: the decoder forgets: its perplexity on plain text is %.3f times that at the start, above "
                 "-val_lm_bound %g (hint: a lower -lr_dec, or -freeze dec)",
                 v->ratio, v->bound);
}

void log_validation(Log *log, const LogValidation *v) {
    if (!log) return;
    char *line = line_begin(v->step);
    if (!v->no_pages) add_pages(&line, &v->all, v->cut);
    for (int i = 0; i < v->n_sets; i++) add_pages(&line, &v->sets[i], v->cut);
    for (int i = 0; i < v->n_fewer; i++) add_fewer(&line, &v->fewer[i], v->latents[i]);
    if (v->perplexity) {
        const Field fields[] = {{"val_lm_perplexity", "%.9g", v->perplexity},
                                {"val_lm_ratio", "%.6g", v->ratio},
                                {"val_lm_alarm", "%.0f", v->ratio > v->bound}};
        add_fields(&line, fields, 3);
    }
    line_end(log, line);
    print_validation(log, v);
}

void log_note(Log *log, const char *format, ...) {
    if (!log) return;
    keep_step(log);
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("%s\n", clean(text));
    fflush(stdout);
}

void log_close(Log *log) {
    if (!log) return;
    keep_step(log);
    fflush(stdout);
    terminal_close(log->terminal, STDOUT_FILENO);
    if (log->fd >= 0) close(log->fd);
    free(log->path);
    free(log);
}
