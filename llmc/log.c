// log.c: see log.h. Each object reaches the file in one write of a whole line, so that whoever follows the file, and
// whoever kills the run, never meets half of one.
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h> // PRId64
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h> // width of the terminal
#include <time.h>
#include <unistd.h>

#include "clean.h"
#include "file.h"
#include "json.h"

static const double LINE_SECONDS = 5; // at most one line of a step in this time

struct Log {
    char *path;
    int fd;
    off_t size;      // bytes of whole lines
    int said_full;   // a failed write was reported
    int64_t steps;   // last step of the run
    int terminal;    // stdout is one
    double printed;  // when the last line of a step was printed, seconds
    int bar;         // a progress bar stands in the current line
    int64_t seen;    // steps logged
    double before;   // when the last step was logged
    double per_step; // running mean of the time from step to step, validation and saving included
};

double log_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- log.jsonl -----------------------------------------------------------------------------------------------------

// Step of a line, or that of the line before when it has none; -1 when it is no JSON object.
static int64_t step_of_line(const char *line, size_t n, int64_t before) {
    cJSON *object;
    if (json_parse(&object, line, n, "log", NULL) != 0) return -1;
    int64_t step = before;
    const cJSON *item = json_find(object, "step");
    if (item && json_whole(&step, item, 0, (int64_t)1 << 53) != 0) step = before;
    cJSON_Delete(object);
    return step;
}

// Copies the lines of steps up to `last`; a line without its newline was cut.
static int write_history(const char *path, const char *text, size_t size, int64_t last, Error *err) {
    FileWriter w;
    TRY(file_create(&w, path, err));
    int64_t step = 0;
    int bad = 0;
    for (size_t at = 0; at < size && !bad;) {
        const char *newline = memchr(text + at, '\n', size - at);
        if (!newline) break;
        size_t n = (size_t)(newline - (text + at)) + 1;
        int64_t found = step_of_line(text + at, n - 1, step);
        if (found >= 0) step = found;
        if (found >= 0 && found <= last) bad = file_write(&w, text + at, n, err);
        at += n;
    }
    if (!bad) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

// mpirun gives its first rank a pseudo-terminal wherever its own output goes, so a terminal is only believed without
// it.
static int at_terminal(void) { return isatty(STDOUT_FILENO) && !getenv("OMPI_COMM_WORLD_SIZE"); }

int log_open(Log **out, const char *folder, int64_t step, int64_t steps, Error *err) {
    *out = NULL;
    Log *log = calloc(1, sizeof *log);
    char *path = string_format("%s/log.jsonl", folder);
    FileMap old = {0};
    if (!log || !path) {
        free(log);
        free(path);
        return error_set(err, "%s/log.jsonl: out of memory", folder);
    }
    *log = (Log){.path = path, .fd = -1, .steps = steps, .terminal = at_terminal(), .printed = -INFINITY};
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
    if (!log->said_full) {
        fprintf(stderr, "%s: cannot write%s: %s; the run goes on without\n", clean(log->path),
                cut ? " or cut a half line" : "", strerror(code));
        log->said_full = 1;
    }
}

// "name":number or "name":null
static int add_number(char *line, size_t room, const char *name, const char *format, double value) {
    char number[64] = "null";
    if (isfinite(value)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(number, sizeof number, format, value);
#pragma GCC diagnostic pop
    }
    return snprintf(line, room, ",\"%s\":%s", name, number);
}

typedef struct Field {
    const char *name, *format;
    double value;
} Field;

static void append_fields(Log *log, int64_t step, const Field *fields, int n) {
    char line[1024];
    int at = snprintf(line, sizeof line, "{\"step\":%" PRId64, step);
    for (int i = 0; i < n; i++)
        at += add_number(line + at, sizeof line - (size_t)at, fields[i].name, fields[i].format, fields[i].value);
    at += snprintf(line + at, sizeof line - (size_t)at, "}\n");
    append(log, line, (size_t)at);
}

// ---- stdout --------------------------------------------------------------------------------------------------------

static void clear_bar(Log *log) {
    if (log->bar) fputs("\r\x1b[K", stdout);
    log->bar = 0;
}

// "3 h 12 min", "4 min 10 s", "12 s"
static void format_time(char *text, size_t room, double s) {
    long long t = s < 1e15 ? llround(s) : 0;
    if (t >= 86400) snprintf(text, room, "%lld d %lld h", t / 86400, t / 3600 % 24);
    else if (t >= 3600) snprintf(text, room, "%lld h %lld min", t / 3600, t / 60 % 60);
    else if (t >= 60) snprintf(text, room, "%lld min %lld s", t / 60, t % 60);
    else snprintf(text, room, "%lld s", t);
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

// The words of a step; the counts of steps stand before them.
static void step_text(char *text, size_t room, const Log *log, const LogStep *s) {
    char peak[128], left[64];
    peak_text(peak, sizeof peak, s);
    format_time(left, sizeof left, log->per_step * (double)(log->steps - s->step));
    snprintf(text, room, "loss %.4f | lr %.2e | norm %.3f | %.0f ms | %.0f tok/s | %s%.0f MB | %s left", s->loss, s->lr,
             s->grad_norm, 1e3 * s->seconds, s->seconds > 0 ? s->tokens / s->seconds : 0, peak, s->memory_bytes / 1e6,
             left);
}

static void print_bar(Log *log, const LogStep *s, const char *text) {
    enum { CELLS = 20 };
    char bar[CELLS + 1], line[768];
    struct winsize window;
    int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 ? window.ws_col : 80;
    int full = log->steps > 0 ? (int)((double)s->step / (double)log->steps * CELLS) : 0;
    for (int i = 0; i < CELLS; i++) bar[i] = i < full ? '=' : ' ';
    bar[CELLS] = 0;
    snprintf(line, sizeof line, "[%s] %" PRId64 "/%" PRId64 " | %s", bar, s->step, log->steps, text);
    printf("\r\x1b[K%.*s", columns - 1, line); // one column less: no terminal wraps
    log->bar = 1;
}

static void note_time(Log *log, const LogStep *s) {
    double now = log_seconds(), took = log->seen ? now - log->before : s->seconds;
    log->seen++;
    log->before = now;
    double weight = log->seen < 50 ? 1.0 / (double)log->seen : 0.02;
    log->per_step += weight * (took - log->per_step);
}

// ---- what is said --------------------------------------------------------------------------------------------------

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
    append_fields(log, s->step, fields, sizeof fields / sizeof *fields);
    char text[512];
    step_text(text, sizeof text, log, s);
    if (log->terminal) {
        print_bar(log, s, text);
    } else if (log_seconds() - log->printed >= LINE_SECONDS || s->step == log->steps) {
        log->printed = log_seconds();
        printf("step %*" PRId64 "/%" PRId64 " | %s\n", snprintf(NULL, 0, "%" PRId64, log->steps), s->step, log->steps,
               text);
    }
    fflush(stdout);
}

void log_validation(Log *log, int64_t step, double loss, double token_accuracy) {
    if (!log) return;
    const Field fields[] = {{"val_loss", "%.9g", loss}, {"val_token_accuracy", "%.6f", token_accuracy}};
    append_fields(log, step, fields, 2);
    log_note(log, "validation at step %" PRId64 ": loss %.4f, %.2f %% of the tokens right", step, loss,
             100 * token_accuracy);
}

int log_event(Log *log, const char *json, Error *err) {
    if (!log) return 0;
    cJSON *object;
    TRY(json_parse(&object, json, strlen(json), "log", err));
    char *text = cJSON_PrintUnformatted(object), *line = text ? string_format("%s\n", text) : NULL;
    cJSON_Delete(object);
    free(text);
    if (!line) return error_set(err, "%s: out of memory", log->path);
    append(log, line, strlen(line));
    free(line);
    return 0;
}

void log_note(Log *log, const char *format, ...) {
    if (!log) return;
    clear_bar(log);
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
    if (log->bar) putchar('\n');
    fflush(stdout);
    if (log->fd >= 0) close(log->fd);
    free(log->path);
    free(log);
}
