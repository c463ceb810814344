// progress.c: see progress.h.
#include "llmc/infer/progress.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "llmc/base/clean.h"
#include "llmc/base/format.h"
#include "llmc/base/terminal.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- the bar -------------------------------------------------------------------------------------------------------

// Reading a token costs less than writing one: a fifth to a half for the demo's model on a CPU.
static double cost(ProgressKind kind, double tokens) { return kind == PROGRESS_DECODE ? tokens : 0.3 * tokens; }

// Of the current phase. Tokens run ahead of the pages they finish, and there may be more of them than expected.
static double share_of_phase(const Progress *f) {
    double pages = f->pages > 0 ? (double)f->done / f->pages : 0;
    if (f->kind == PROGRESS_PREFILL) return pages;
    double tokens = f->expected > 0 ? fmin(1, (double)f->tokens / f->expected) : pages;
    return (pages + tokens) / 2;
}

static double share_of_all(const Progress *f) {
    double part = cost(f->kind, f->expected), work = fmax(f->work, f->over + part);
    return work > 0 ? (f->over + part * share_of_phase(f)) / work : 0;
}

// Tokens after the first per second since the first: without the prompt.
static double rate(double tokens, double seconds) { return tokens > 0 && seconds > 0 ? tokens / seconds : 0; }

static void show(Progress *f, double time) {
    enum { CELLS = 20 };
    char bar[CELLS + 1], left[48] = "", pages[48] = "", speed[48] = "", line[256], text[32];
    double share = share_of_all(f), spent = time - f->began;
    if (!f->line) return;
    f->shown = time;
    for (int i = 0; i < CELLS; i++) bar[i] = i < (int)(share * CELLS) ? '=' : ' ';
    bar[CELLS] = 0;
    if (share > 0.01) // below that an estimate means nothing
        snprintf(left, sizeof left, "%s left | ", format_time(text, spent * (1 - share) / share));
    if (f->pages) snprintf(pages, sizeof pages, ": %d of %d pages", f->done, f->pages);
    if (f->tokens > 1) snprintf(speed, sizeof speed, ", %.1f tokens/s", rate((double)f->tokens - 1, time - f->first));
    snprintf(line, sizeof line, "[%s] %.0f %% | %s%s%s%s", bar, floor(100 * share), left, f->what, pages, speed);
    fprintf(f->line, "\r\033[K%.*s", terminal_columns(fileno(f->line)) - 1, line);
    fflush(f->line);
}

// ---- events --------------------------------------------------------------------------------------------------------

void progress_expect(Progress *f, ProgressKind kind, double tokens) {
    if (f) f->work += cost(kind, tokens);
}

static void end_phase(Progress *f, double time) {
    if (!f->phases) return;
    f->over += cost(f->kind, f->expected);
    f->written += f->tokens;
    if (f->tokens > 1) {
        f->timed += f->tokens - 1;
        f->writing += time - f->first;
    }
    f->tokens = 0;
}

void progress_phase(Progress *f, const char *what, ProgressKind kind, int pages, double tokens) {
    if (!f) return;
    double time = now();
    end_phase(f, time);
    if (f->phases++ == 0) f->began = time;
    f->what = what;
    f->kind = kind;
    f->expected = tokens;
    f->pages = pages;
    f->done = 0;
    show(f, time);
}

void progress_token(void *arg, int page, int32_t id) {
    const double often = 0.2; // seconds between two lines
    Progress *f = arg;
    double time = now();
    (void)page;
    if (f->tokens++ == 0) f->first = time;
    if (time - f->shown >= often) show(f, time);
    if (!f->text) return;
    size_t length;
    char *text = text_stream_tokens(&f->stream, f->tok, &id, 1, &length);
    clean_print(f->text, text, length);
    if (fflush(f->text) != 0) f->failed = 1;
    free(text);
}

void progress_pages(void *arg, int done, int n) {
    Progress *f = arg;
    if (!f) return;
    f->done = done;
    f->pages = n;
    show(f, now());
}

void progress_end(Progress *f) {
    if (!f || !f->phases) return;
    double time = now();
    char text[32];
    end_phase(f, time);
    if (f->text && f->written) {
        char rest[9];
        clean_print(f->text, rest, text_stream_end(&f->stream, rest));
        if (fputs("\n\n", f->text) < 0 || fflush(f->text) != 0) f->failed = 1;
    }
    if (!f->line) return;
    fprintf(f->line, "\r\033[K");
    if (f->written) {
        fprintf(f->line, "decoded %lld tokens in %.1f s, %.1f tokens/s", (long long)f->written, f->writing,
                rate((double)f->timed, f->writing));
        if (f->work > 0) fprintf(f->line, "; all of it took %s", format_time(text, time - f->began));
        fprintf(f->line, "\n");
    }
    fflush(f->line);
}
