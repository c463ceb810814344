// progress.h: progress of decoding and evaluation at a terminal: a bar with the time left over all phases of the work,
// or the text as it is written. With a NULL Progress every function but progress_token does nothing.
#ifndef LLMC_PROGRESS_H
#define LLMC_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

#include "llmc/text/text_stream.h"
#include "llmc/text/tokenizer.h"

// What kind of work a phase is.
typedef enum ProgressKind {
    PROGRESS_PREFILL, // reads known tokens, many at once
    PROGRESS_DECODE,  // writes tokens one after the other
} ProgressKind;

typedef struct Progress {
    FILE *line;           // for the bar, rewritten in place; NULL: none
    FILE *text;           // for the text of a single page; NULL: none
    const Tokenizer *tok; // for text
    int failed;           // 1: the text could not be written
    // ---- private
    TextStream stream;
    double work, over; // expected work of all phases and of the finished ones, in written tokens
    int phases;        // begun
    double began, shown;
    const char *what; // of the current phase
    ProgressKind kind;
    double expected; // its tokens
    int pages, done;
    int64_t tokens;         // written in it so far
    double first;           // time of the first of them
    int64_t written, timed; // in finished phases; without the first of each, whose time is the prompt's
    double writing;         // seconds for the timed ones
} Progress;

// Announces a phase of about so many tokens, before the work begins: the time left is estimated from these.
void progress_expect(Progress *f, ProgressKind kind, double tokens);
// Begins the next phase. what: "decoding"; must live as long as f.
void progress_phase(Progress *f, const char *what, ProgressKind kind, int pages, double tokens);
// Callbacks for generator_listen and generate_pages; arg: the Progress.
void progress_token(void *arg, int page, int32_t id);
void progress_pages(void *arg, int done, int n);
// Clears the bar, or ends the text, and prints a summary: "decoded 123 tokens in 4.5 s, 27.3 tokens/s".
void progress_end(Progress *f);

#endif
