// follow.c: see follow.h.
#include "follow.h"

#include <stdlib.h>
#include <time.h>

#include "clean.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Tokens behind the first by the time since the first: without the prompt.
static double rate(const Follow *f, double time) {
    return f->tokens > 1 && time > f->start ? (double)(f->tokens - 1) / (time - f->start) : 0;
}

static void show(Follow *f, double time) {
    f->shown = time;
    fprintf(f->progress, "\rdecoding: ");
    if (f->pages) fprintf(f->progress, "%d of %d pages, ", f->done, f->pages);
    fprintf(f->progress, "%lld tokens, %.1f tokens/s\033[K", (long long)f->tokens, rate(f, time));
    fflush(f->progress);
}

void follow_token(void *arg, int page, int32_t id) {
    const double often = 0.2; // seconds between two lines
    Follow *f = arg;
    double time = now();
    (void)page;
    if (f->tokens++ == 0) f->start = time;
    if (f->progress && time - f->shown >= often) show(f, time);
    if (!f->text) return;
    size_t length;
    char *text = text_stream_tokens(&f->stream, f->tok, &id, 1, &length);
    if (text) clean_print(f->text, text, length);
    if (!text || fflush(f->text) != 0) f->failed = 1;
    free(text);
}

void follow_pages(void *arg, int done, int n) {
    Follow *f = arg;
    f->done = done;
    f->pages = n;
    if (f->progress) show(f, now());
}

void follow_end(Follow *f) {
    if (f->text && f->tokens) {
        char rest[9];
        clean_print(f->text, rest, text_stream_end(&f->stream, rest));
        if (fputs("\n\n", f->text) < 0 || fflush(f->text) != 0) f->failed = 1;
    }
    if (!f->progress || !f->tokens) return;
    double time = now();
    fprintf(f->progress, "\r\033[Kdecoded %lld tokens in %.1f s, %.1f tokens/s\n", (long long)f->tokens,
            time - f->start, rate(f, time));
    fflush(f->progress);
}
