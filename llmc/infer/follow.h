// follow.h: a person watches decoding and evaluation: a bar with the time left through all phases of the work, or the
// text itself as it is written. With a NULL Follow every function does nothing.
#ifndef LLMC_FOLLOW_H
#define LLMC_FOLLOW_H

#include <stdint.h>
#include <stdio.h>

#include "llmc/text/text_stream.h"
#include "llmc/text/tokenizer.h"

// What kind of work a phase is.
typedef enum FollowKind {
    FOLLOW_PASS,   // looks at tokens that are known: many at once
    FOLLOW_WRITES, // writes them one after the other
} FollowKind;

typedef struct Follow {
    FILE *progress;       // gets the line, rewritten in place; NULL: none
    FILE *text;           // gets the text of a single page; NULL: none
    const Tokenizer *tok; // for text
    int failed;           // the text could not be written, or memory ran out
    // ---- its own
    TextStream stream;
    double work, over; // expected of all phases, and of those that are over, in tokens written
    int phases;        // begun
    double began, shown;
    const char *what; // the phase under way
    FollowKind kind;
    double expected; // of it, tokens
    int pages, done;
    int64_t tokens;         // written in it
    double first;           // when the first of them was
    int64_t written, timed; // in the phases that are over; all but the first of each, whose time is the prompt's
    double writing;         // seconds the timed ones took
} Follow;

// Announces a phase of about so many tokens before the work begins: what the time left is reckoned from.
void follow_expect(Follow *f, FollowKind kind, double tokens);
// The next phase begins. what: "decoding"; a string that lives as long as f.
void follow_phase(Follow *f, const char *what, FollowKind kind, int pages, double tokens);
// What generator_listen and generate_pages take, arg: the Follow.
void follow_token(void *arg, int page, int32_t id);
void follow_pages(void *arg, int done, int n);
// Clears the line, or ends the text; a summary in its place: "decoded 123 tokens in 4.5 s, 27.3 tokens/s".
void follow_end(Follow *f);

#endif
