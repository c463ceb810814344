// progress.h: a person watches decoding and evaluation: a bar with the time left through all phases of the work, or the
// text itself as it is written. With a NULL Progress every function does nothing.
#ifndef LLMC_PROGRESS_H
#define LLMC_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

#include "llmc/text/text_stream.h"
#include "llmc/text/tokenizer.h"

// What kind of work a phase is.
typedef enum ProgressKind {
    PROGRESS_PREFILL, // looks at tokens that are known: many at once
    PROGRESS_DECODE,  // writes them one after the other
} ProgressKind;

typedef struct Progress {
    FILE *line;           // gets the line, rewritten in place; NULL: none
    FILE *text;           // gets the text of a single page; NULL: none
    const Tokenizer *tok; // for text
    int failed;           // the text could not be written, or memory ran out
    // ---- its own
    TextStream stream;
    double work, over; // expected of all phases, and of those that are over, in tokens written
    int phases;        // begun
    double began, shown;
    const char *what; // the phase under way
    ProgressKind kind;
    double expected; // of it, tokens
    int pages, done;
    int64_t tokens;         // written in it
    double first;           // when the first of them was
    int64_t written, timed; // in the phases that are over; all but the first of each, whose time is the prompt's
    double writing;         // seconds the timed ones took
} Progress;

// Announces a phase of about so many tokens before the work begins: what the time left is reckoned from.
void progress_expect(Progress *f, ProgressKind kind, double tokens);
// The next phase begins. what: "decoding"; a string that lives as long as f.
void progress_phase(Progress *f, const char *what, ProgressKind kind, int pages, double tokens);
// What generator_listen and generate_pages take, arg: the Progress.
void progress_token(void *arg, int page, int32_t id);
void progress_pages(void *arg, int done, int n);
// Clears the line, or ends the text; a summary in its place: "decoded 123 tokens in 4.5 s, 27.3 tokens/s".
void progress_end(Progress *f);

#endif
